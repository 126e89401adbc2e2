/** proofs.ts - exhaustive searches of the locks, the ring and the list that two and three actors share: each within a minute. */
import { explore } from '../../src/explore/index.js'
import { PROOFS } from '../../test/model/proofs/index.js'
import { type Measure, row } from '../lib/measure.js'

const SECONDS = 60

export const proofs: Measure = {
  name: 'proofs',
  async run() {
    const rows = []
    for (const { name, actors, scenario, options } of PROOFS) {
      const result = await explore(scenario, {
        ...options,
        strategy: 'exhaustive',
        throws: false,
        seconds: SECONDS * 2,
      })
      const { schedules, redundant, spun, longest, exhausted, findings, seconds } = result
      const looks =
        options.spinLooks === undefined ? '' : `, ${options.spinLooks} looks at an unchanged word are a wait`
      const said = `${schedules} runs, ${redundant} of them redundant, of at most ${longest} steps${looks}`
      const proved = exhausted && findings.length === 0
      rows.push(
        row({
          measure: `${name}; ${actors} actors`,
          unit: 's',
          softnet: proved ? seconds : Infinity, // what is not proved reaches no bar
          rivalName: '',
          rival: null,
          better: 'less',
          atLeast: SECONDS,
          aim: null,
          note: proved ? said : `not proved: ${findings[0]?.sentence ?? `not exhausted after ${said}`}`,
          details: { schedules, redundant, spun, longest, exhausted, findings },
        }),
      )
    }
    return rows
  },
}
