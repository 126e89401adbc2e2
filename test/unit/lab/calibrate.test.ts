/** The mathematics of `softnet calibrate`: known costs are found again, noise does little, what nothing is known of stays. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { BAR, differences, type Run } from '../../../src/lab/calibrate/check.js'
import { GROUPS, PREDICTED } from '../../../src/lab/calibrate/costs.js'
import {
  fitGroups,
  type Group,
  lowerTenth,
  median,
  type Observation,
  scaled,
  spread,
} from '../../../src/lab/calibrate/fit.js'
import { nominalHz } from '../../../src/lab/calibrate/host.js'
import { hostInfo } from '../../../src/lab/config.js'
import { readProfile } from '../../../src/lab/profile.js'
import { calibrateReport } from '../../../src/lab/report/calibrate.js'
import type { CalibrateResult } from '../../../src/lab/types.js'

const THREE: readonly Group[] = [
  { name: 'irq', functions: ['entry', 'handler'] },
  { name: 'packet', functions: ['rx', 'tx'] },
  { name: 'poll', functions: ['poll'] },
]
const COSTS: Record<string, number> = { burn: 4360, entry: 50, handler: 30, rx: 100, tx: 60, poll: 80 }

/** Calls of each function for one unit of four observations. */
const CALLS: Record<string, Record<string, number>> = {
  interrupt: { burn: 1, entry: 1, handler: 1 },
  low: { rx: 1, tx: 1, poll: 1 },
  flood: { rx: 1, tx: 1, poll: 1 / 64 },
  dropped: { rx: 1, poll: 0.5 },
}

/** What is observed when the true costs are the given ones times the factors, each off by a share. */
function observed(factors: Record<string, number>, off: (k: number) => number = () => 0): Observation[] {
  const truth = scaled(COSTS, THREE, factors)
  return Object.entries(CALLS).map(([what, calls], k) => {
    const parts = Object.fromEntries(Object.entries(calls).map(([f, n]) => [f, n * COSTS[f]!]))
    const ns = Object.entries(calls).reduce((sum, [f, n]) => sum + n * truth[f]!, 0)
    return { what, ns: ns * (1 + off(k)), parts }
  })
}

describe('the fit', () => {
  const factor = fc.double({ min: 0.3, max: 8, noNaN: true })
  test('finds known costs again', () => {
    fc.assert(
      fc.property(factor, factor, factor, (irq, packet, poll) => {
        const { factors, residuals } = fitGroups(observed({ irq, packet, poll }), THREE)
        expect(factors['irq']! / irq - 1).toBeCloseTo(0, 1)
        expect(factors['packet']! / packet - 1).toBeCloseTo(0, 3)
        expect(factors['poll']! / poll - 1).toBeCloseTo(0, 2)
        for (const r of residuals) expect(Math.abs(r.fitted / r.observed - 1)).toBeLessThan(0.002)
      }),
    )
  })
  test('some percent of noise change what it predicts by some percent', () => {
    const noise = fc.array(fc.double({ min: -0.05, max: 0.05, noNaN: true }), { minLength: 4, maxLength: 4 })
    fc.assert(
      fc.property(factor, factor, noise, (packet, poll, off) => {
        const truth = observed({ irq: 4, packet, poll })
        const { residuals } = fitGroups(
          observed({ irq: 4, packet, poll }, k => off[k]!),
          THREE,
        )
        residuals.forEach((r, k) => {
          expect(Math.abs(r.fitted / truth[k]!.ns - 1)).toBeLessThan(0.16)
        })
      }),
    )
  })
  test('no cost becomes negative, however the observations contradict each other', () => {
    const some = observed({ irq: 1, packet: 1, poll: 1 })
    const odd = some.map(o => (o.what === 'interrupt' ? { ...o, ns: 3000 } : o.what === 'low' ? { ...o, ns: 20 } : o))
    for (const f of Object.values(fitGroups(odd, THREE).factors)) expect(f).toBeGreaterThanOrEqual(0)
    expect(fitGroups(odd, THREE).factors['irq']).toBe(0)
  })
  test('a group of which no observation says anything keeps its costs', () => {
    const groups = [...THREE, { name: 'unseen', functions: ['fragment'] }]
    const { factors } = fitGroups(observed({ irq: 2, packet: 3, poll: 2 }), groups)
    expect(factors['unseen']).toBeCloseTo(1, 6)
    expect(factors['packet']).toBeCloseTo(3, 1)
  })
  test('groups that always run together share what they take', () => {
    const twins: Group[] = [
      { name: 'a', functions: ['rx'] },
      { name: 'b', functions: ['tx'] },
    ]
    const { factors, residuals } = fitGroups([{ what: 'both', ns: 320, parts: { rx: 100, tx: 60 } }], twins)
    expect(residuals[0]!.fitted).toBeCloseTo(320, 0)
    expect(factors['a']).toBeGreaterThan(1)
    expect(factors['b']).toBeGreaterThan(1)
  })
  test('nothing observed, nothing to fit', () => {
    expect(fitGroups([], [])).toEqual({ factors: {}, residuals: [] })
    expect(Object.values(fitGroups([], THREE).factors).every(f => Math.abs(f - 1) < 1e-6)).toBe(true)
    expect(fitGroups([{ what: 'broken', ns: 0, parts: { rx: 1 } }], THREE).factors['packet']).toBeCloseTo(1, 6)
  })
})

test('every function of the kernel is fitted, predicted, or measured by itself; none twice', () => {
  const alone =
    'irq_entry_exit cache_line_transfer idle_wakeup cpu_relax spin_lock schedule wake_up_process user_spin'.split(' ')
  const all = [...GROUPS.flatMap(g => g.functions), ...PREDICTED, ...alone]
  expect([...all].sort()).toEqual(Object.keys(readProfile('modern').costs).sort())
})

test('median, lower quartile and spread', () => {
  expect(median([3, 1, 2])).toBe(2)
  expect(median([4, 1, 2, 3])).toBe(2.5)
  expect(median([])).toBeNaN()
  expect(lowerTenth([9, 1, 2, 3, 4, 5, 6, 7, 8, 0, 10])).toBe(1)
  expect(lowerTenth([7])).toBe(7)
  expect(spread([5])).toBe(0)
  expect(spread([90, 100, 100, 110])).toBeCloseTo(0.05)
})

test('the clock rate is told, or a cycle is a nanosecond', () => {
  const { hz, from } = nominalHz()
  expect(hz).toBeGreaterThanOrEqual(1e6)
  expect(from === 'nobody: a cycle is a nanosecond').toBe(hz === 1e9 && from.startsWith('nobody'))
})

describe('the check', () => {
  const run = (mlfrr: number, plateau: number): Run => ({ mlfrr, plateau, quiet: true })
  test('takes the median of the runs, and plateaus by the rate that they fell from', () => {
    const [mlfrr, plateau] = differences('softnet', [run(90, 8), run(110, 12), run(100, 10)], [run(100, 0)])
    expect(mlfrr).toMatchObject({ measured_pps: 100, predicted_pps: 100, difference: 0, agrees: true, runs: 3 })
    expect(plateau).toMatchObject({ measured_pps: 10, predicted_pps: 0, difference: 0.1, agrees: true })
    const [, high] = differences('napi', [run(100, 230)], [run(70, 0), run(100, 200), run(110, 300)])
    expect(high!.difference).toBeCloseTo(0.15)
  })
  test('beyond the bar it says so', () => {
    const [mlfrr] = differences('napi', [run(100 * (1 + BAR) + 1, 0)], [run(100, 0)])
    expect(mlfrr!.agrees).toBe(false)
  })
})

test('the report: every stage, every group, the check, and what disturbed it', () => {
  const result: CalibrateResult = {
    schema: 'softnet.calibrate/1',
    host: hostInfo(),
    seed: 1,
    hz_from: 'nobody',
    stages: [{ what: 'a load', ns: 500, fitted_ns: 520, spread: 0.02, trials: 9, quiet: true }],
    alone: { spin_lock: 14.2 },
    groups: [{ name: 'poll', functions: ['nic_poll'], ns: 80, factor: 1.5 }],
    disturbed: false,
    profile: readProfile('modern'),
    check: {
      points: differences(
        'napi',
        [{ mlfrr: 150, plateau: 200, quiet: true }],
        [{ mlfrr: 100, plateau: 200, quiet: true }],
      ),
      disturbed: true,
      bar: BAR,
    },
  }
  const text = calibrateReport(result)
  expect(text).toMatch(/a load +500 +2\.0 % +520 +\+4\.0 %/)
  expect(text).toMatch(/polling \(NAPI\) +loss-free rate .* \+50\.0 % +NO/)
  expect(text).toMatch(/busy elsewhere while the predictions were checked/)
  expect(calibrateReport({ ...result, disturbed: true, check: null })).toMatch(
    /--no-check.*busy elsewhere while the loads/s,
  )
})
