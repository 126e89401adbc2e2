/** fuzzOnce.ts - a process that fuzzes one machine, and prints what became of it. */
import '../../test/helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { fuzz, GATEWAY } from '../../test/helpers/fuzzRun.js'

const [frames = 0, seed = 0, gateway = 0] = process.argv.slice(2).map(Number)
process.stdout.write(JSON.stringify(fuzz(frames, seed, gateway === 0 ? undefined : GATEWAY)))
