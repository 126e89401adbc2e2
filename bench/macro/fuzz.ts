/** fuzz.ts - a million frames that nobody would send on purpose: no crash, no leak, every one accounted for, reassembly within its memory. */
import { fileURLToPath } from 'node:url'
import { FRAG_LIMIT, type FuzzResult } from '../../test/helpers/fuzzRun.js'
import { runJson } from '../lib/comparator.js'
import { type Measure, row } from '../lib/measure.js'

const script = fileURLToPath(new URL('../lib/fuzzOnce.js', import.meta.url))
const FRAMES = 1_000_000
const RUNS = 4

export const fuzz: Measure = {
  name: 'fuzz',
  async run({ seed }) {
    const details: FuzzResult[] = []
    for (let k = 0; k < RUNS; k++)
      details.push(await runJson(process.execPath, [script, String(FRAMES / RUNS), String(seed + k)]))
    const sound = (r: FuzzResult): boolean =>
      r.conserved && r.leaks.length === 0 && r.fragments <= FRAG_LIMIT && r.markers.echoed === r.markers.sent
    return [
      row({
        measure: `fuzzed frames that are accounted for, of ${FRAMES}`,
        unit: 'frames',
        softnet: details.reduce((n, r) => n + (sound(r) ? r.frames : 0), 0),
        rivalName: '',
        rival: null,
        better: 'more',
        atLeast: FRAMES,
        aim: null,
        note: `most that reassembly held: ${Math.max(...details.map(r => r.fragments))} bytes`,
        details,
      }),
    ]
  },
}
