/** The figures of 1996 in a short form: the same numbers on every host, so the table itself is the snapshot. */
import { describe, expect, test } from 'vitest'
import { PLANS, PUBLISHED, runPaper } from '../../src/lab/paper.js'
import { readProfile } from '../../src/lab/profile.js'
import { paperCsv, paperFit, paperHtml } from '../../src/lab/report/paper.js'
import type { PaperResult, PaperSeries } from '../../src/lab/types.js'

const profile = readProfile('decstation-3000-300')
const short = (rates: number[], figures?: string[]): Promise<PaperResult> =>
  runPaper({ profile, seed: 1, packets: 600, rates, parallel: 2, ...(figures === undefined ? {} : { figures }) })
const outputs = (s: PaperSeries): number[] => s.points.map(p => p.output)

test('every series at three loads', async () => {
  const result = await short([2000, 6000, 11_000])
  expect(result.series).toHaveLength(PLANS.length)
  expect(Object.fromEntries(result.series.map(s => [`${s.figure} ${s.series}`, outputs(s)]))).toMatchSnapshot()
  expect(await short([2000, 6000, 11_000])).toEqual(result)
  const csv = paperCsv(result).trimEnd().split('\n')
  expect(csv).toHaveLength(1 + 3 * PLANS.length)
  expect(csv[0]).toBe('figure,series,input_pps,output')
  expect(paperHtml(result)).not.toMatch(/src="http|href="http/)
}, 120_000)

describe('the mechanisms', () => {
  test('what the paper says of each holds', async () => {
    const { series } = await short([3000, 11_000])
    const at = (figure: string, name: string): number[] =>
      outputs(series.find(s => s.figure === figure && s.series === name)!)
    expect(at('6-1', 'unmod')[1]).toBeLessThan(0.4 * at('6-1', 'unmod')[0]!)
    expect(at('6-1', 'screend')[1]).toBeLessThan(100)
    expect(at('6-3', 'q5')[1]).toBeGreaterThan(4500)
    expect(at('6-3', 'noquota')[1]).toBeLessThan(100)
    expect(at('6-4', 'poll nofb')[1]).toBeLessThan(100)
    expect(at('6-4', 'poll fb')[1]).toBeGreaterThan(0.95 * at('6-4', 'poll fb')[0]!)
    const left = [25, 50, 75, 100].map(k => at('7-1', `userCPU% threshold ${k}`)[1]!)
    expect(left).toEqual([...left].sort((a, b) => b - a))
    expect(left[0]).toBeGreaterThan(60)
    expect(left[3]).toBeLessThan(5)
  }, 120_000)
  test('the fit to Fig 6-1 stands', async () => {
    const result = await runPaper({ profile, seed: 1, packets: 4000, parallel: 2, figures: ['6-1'] })
    const fit = Object.fromEntries(paperFit(result).map(f => [f.series, f.met]))
    expect(fit['unmod']).toBe(PUBLISHED.filter(p => p.series === 'unmod').length)
    expect(fit['screend']).toBeGreaterThanOrEqual(10)
  }, 120_000)
})
