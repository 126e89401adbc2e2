/** micro.ts - the primitives of bench/micro that have no rival in the table: figures for the file, one row each. */
import { type Measure, row } from '../lib/measure.js'
import { runMicro } from '../lib/micro.js'

const NAMES = ['atomics', 'atomic_t'] as const

export const micro: Measure = {
  name: 'micro',
  async run() {
    const rows = []
    for (const name of NAMES)
      for (const r of await runMicro(name, 'tas', 120))
        rows.push(
          row({
            measure: r.name,
            unit: 'ns',
            softnet: r.ns,
            rivalName: '',
            rival: null,
            better: 'less',
            atLeast: null,
            aim: null,
            details: r,
          }),
        )
    return rows
  },
}
