/** rcu.ts - the read side of RCU against liburcu's. */
import { cRcu } from '../lib/comparator.js'
import { type Measure, row, tryRival } from '../lib/measure.js'
import { type MicroResult, runMicro } from '../lib/micro.js'

const ROUNDS = 3

export const rcu: Measure = {
  name: 'rcu',
  async run() {
    const c: { memb: number }[] = []
    const ours: MicroResult[][] = []
    let why: string | undefined
    for (let k = 0; k < ROUNDS; k++) {
      const theirs = await tryRival(cRcu)
      if (theirs.value !== null) c.push(theirs.value)
      else why = theirs.why
      ours.push(await runMicro('rcu', 'tas', 150))
    }
    return [
      row({
        measure: 'rcu_read_lock + rcu_read_unlock',
        unit: 'ns',
        softnet: Math.min(...ours.map(r => r[0]!.ns)),
        rivalName: 'liburcu memb',
        rival: c.length === 0 ? null : Math.min(...c.map(r => r.memb)),
        better: 'less',
        atLeast: 2,
        aim: 1,
        note: why,
        details: { ours, c },
      }),
    ]
  },
}
