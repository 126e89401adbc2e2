/** calibrate.ts - loss-free rate and overload plateau of the real machine, held against virtual time with a profile fitted here. */
import { BAR } from '../../src/lab/calibrate/check.js'
import { runCalibrate } from '../../src/lab/calibrate.js'
import { LeftOut } from '../lib/comparator.js'
import { type Measure, row } from '../lib/measure.js'

const BUDGET_MS = 30_000
const WHAT = { mlfrr: 'loss-free rate', plateau: 'overload plateau' }

export const calibrate: Measure = {
  name: 'calibrate',
  async run({ cores, seed }) {
    if (cores < 2) throw new LeftOut(`the CPU and the NIC need two cores, this host has ${cores}`)
    const result = await runCalibrate({ name: 'bench', seed, budgetMs: BUDGET_MS, check: true })
    const points = result.check!.points
    const disturbed = result.disturbed || result.check!.disturbed
    return points.map((p, k) =>
      row({
        measure: `virtual time, fitted: ${p.rx}, ${WHAT[p.what]}`,
        unit: '% off',
        softnet: Math.abs(p.difference) * 100,
        rivalName: '',
        rival: null,
        better: 'less',
        atLeast: BAR * 100,
        aim: null,
        ...(disturbed && k === 0 ? { note: 'the host was busy elsewhere' } : {}),
        details: k === 0 ? { ...p, result } : p,
      }),
    )
  },
}
