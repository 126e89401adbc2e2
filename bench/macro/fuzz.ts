/**
 * fuzz.ts - a million frames that nobody would send on purpose, half of them into a machine with rules: no crash, no leak, every one
 * accounted for, reassembly within its memory.
 */
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
    for (let k = 0; k < RUNS; k++) {
      const rules = k % 2 // the second and the fourth are gateways with a packet filter
      details.push(await runJson(process.execPath, [script, ...[FRAMES / RUNS, seed + k, rules].map(String)]))
    }
    const sound = (r: FuzzResult, k: number): boolean =>
      r.conserved &&
      r.leaks.length === 0 &&
      r.fragments <= FRAG_LIMIT &&
      (k % 2 === 1 || r.markers.echoed === r.markers.sent) // with all connections taken one may be dropped
    const count = (of: 'sent' | 'echoed'): number => details.reduce((n, r) => n + r.markers[of], 0)
    return [
      row({
        measure: `fuzzed frames that are accounted for, of ${FRAMES}`,
        unit: 'frames',
        softnet: details.reduce((n, r, k) => n + (sound(r, k) ? r.frames : 0), 0),
        rivalName: '',
        rival: null,
        better: 'more',
        atLeast: FRAMES,
        aim: null,
        note: `most that reassembly held: ${Math.max(...details.map(r => r.fragments))} bytes; the echo service answered ${count('echoed')} of ${count('sent')}`,
        details,
      }),
    ]
  },
}
