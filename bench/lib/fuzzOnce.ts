/** fuzzOnce.ts - a process that fuzzes one machine, and prints what became of it. */
import { fuzz, GATEWAY } from '../../test/helpers/fuzzRun.js'

const [frames = 0, seed = 0, gateway = 0] = process.argv.slice(2).map(Number)
process.stdout.write(JSON.stringify(fuzz(frames, seed, gateway === 0 ? undefined : GATEWAY)))
