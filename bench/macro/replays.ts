/** replays.ts - seeds that give the same events whenever they are run: each run twice, and the whole of them twice. */
import { explore, ScenarioError } from '../../src/explore/index.js'
import { CAMPAIGN } from '../../test/model/replays.js'
import { type Measure, row } from '../lib/measure.js'

export const replays: Measure = {
  name: 'replays',
  async run({ seed }) {
    const wanted = CAMPAIGN.reduce((sum, c) => sum + c.schedules, 0)
    const details = []
    let same = 0
    for (const { name, scenario, options, schedules } of CAMPAIGN) {
      const run = () => explore(scenario, { ...options, schedules, seed, throws: false, verify: true })
      try {
        const [one, two] = [await run(), await run()]
        const equal = one.hash === two.hash && one.schedules === schedules
        if (equal) same += schedules
        details.push({ name, schedules, hashes: [one.hash, two.hash], seconds: [one.seconds, two.seconds] })
      } catch (error) {
        if (!(error instanceof ScenarioError)) throw error
        details.push({ name, schedules, differs: error.message })
      }
    }
    return [
      row({
        measure: `seeds that give the same event hash twice, of ${wanted}`,
        unit: 'seeds',
        softnet: same,
        rivalName: '',
        rival: null,
        better: 'more',
        atLeast: wanted,
        aim: null,
        note: details.map(d => `${d.name} ${d.schedules}`).join(', '),
        details,
      }),
    ]
  },
}
