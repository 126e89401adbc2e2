/** paper.ts - the figures of 1996 as a table, as CSV, and as a page. */
import { PUBLISHED } from '../paper.js'
import type { PaperResult, PaperSeries } from '../types.js'
import { type Chart, chartPage } from './page.js'
import { plainTable } from './plainTable.js'

const FIGURES: Record<string, { title: string; text: string }> = {
  '6-1': {
    title: 'Fig 6-1: forwarding of the unmodified kernel',
    text: 'Rings are the published points, to which the costs were fitted. With a screening process the kernel livelocks.',
  },
  '6-3': {
    title: 'Fig 6-3: the modified kernel, without screend',
    text: 'A polling thread with a quota holds its peak. Without a quota its receive callback never returns under overload: sent frames are not freed, and the output queue overflows.',
  },
  '6-4': {
    title: 'Fig 6-4: with screend, with and without feedback',
    text: 'Polling alone starves the screening process; when its queue inhibits input, the rest dies in the NIC, for free.',
  },
  '6-5': {
    title: 'Fig 6-5: quotas, without screend',
    text: 'Small quotas hold the peak; large ones starve transmission.',
  },
  '6-6': { title: 'Fig 6-6: quotas, with screend and feedback', text: 'With feedback the quota hardly matters.' },
  '7-1': {
    title: 'Fig 7-1: CPU left to a compute-bound process, by cycle limit',
    text: 'The limit bounds what the polling thread may use of each 10 ms; what remains is the process’s, whatever the load.',
  },
}
const COLORS = ['#dd3333', '#3366cc', '#22aa22', '#dd9900', '#8844bb']

/** The name of a series without what its figure says already. */
function shortName(s: PaperSeries): string {
  return s.series.replace('userCPU% ', '')
}

function figuresOf(result: PaperResult): string[] {
  return [...new Set(result.series.map(s => s.figure))]
}

/** paperCsv - figure,series,input_pps,output, as the published calibration points have them. */
export function paperCsv(result: PaperResult): string {
  const lines = result.series.flatMap(s => s.points.map(p => `${s.figure},${s.series},${p.input_pps},${p.output}`))
  return `figure,series,input_pps,output\n${lines.join('\n')}\n`
}

/** paperHtml - one page, a figure each. */
export function paperHtml(result: PaperResult): string {
  const charts = figuresOf(result).map((figure): Chart => {
    const series = result.series.filter(s => s.figure === figure)
    const measured = series.map((s, k) => ({
      label: shortName(s),
      color: COLORS[k % COLORS.length]!,
      points: s.points.map(p => [p.input_pps, p.output] as const),
    }))
    const published = series.flatMap((s, k) => {
      const points = PUBLISHED.filter(p => p.figure === figure && p.series === s.series)
      const marks = { label: `${s.series}, published`, color: COLORS[k % COLORS.length]!, marks: true }
      return points.length === 0 ? [] : [{ ...marks, points: points.map(p => [p.input_pps, p.output] as const) }]
    })
    const y = series[0]!.output === 'pps' ? 'output, packets/s' : 'user process, % of the CPU'
    const known = FIGURES[figure] ?? { title: `Fig ${figure}`, text: '' }
    return { ...known, x: 'input, packets/s', y, series: [...measured, ...published] }
  })
  const intro = [
    `softnet in virtual time with the costs of ${result.profile}, seed ${result.seed}, ${result.packets} packets a trial.`,
    'After J. C. Mogul and K. K. Ramakrishnan, Eliminating Receive Livelock in an Interrupt-Driven Kernel, USENIX 1996. ' +
      'The costs were fitted to Fig 6-1 alone; all other figures are predictions of the kernel’s structure.',
  ]
  return chartPage('Receive livelock, 1996', intro, charts)
}

/** The point of a series nearest to a load. */
function outputNear(s: PaperSeries, input: number): string {
  const nearest = s.points.reduce((a, b) => (Math.abs(b.input_pps - input) < Math.abs(a.input_pps - input) ? b : a))
  return Math.abs(nearest.input_pps - input) > 0.15 * input ? '-' : String(nearest.output)
}

const TABLE_RATES = [1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 10_000, 12_000]

/** paperReport - a table for each figure; loads across, series down. */
export function paperReport(result: PaperResult): string {
  return figuresOf(result)
    .map(figure => {
      const series = result.series.filter(s => s.figure === figure)
      const inputs = series[0]!.points.map(p => p.input_pps)
      const few = inputs.length <= TABLE_RATES.length
      const rates = few ? inputs : TABLE_RATES.filter(r => inputs.some(i => Math.abs(i - r) <= 0.15 * r))
      const head = [series[0]!.output === 'pps' ? 'output pps at' : 'user % at', ...rates.map(String)]
      const rows = series.map(s => [shortName(s), ...rates.map(r => outputNear(s, r))])
      return `${FIGURES[figure]?.title ?? `Fig ${figure}`}\n${plainTable(head, rows)}`
    })
    .join('\n\n')
}

/** paperFit - how many published points are met: within a tenth, or within 100 packets/s below 1,000. */
export function paperFit(result: PaperResult): { series: string; met: number; of: number }[] {
  return result.series.flatMap(s => {
    const published = PUBLISHED.filter(p => p.figure === s.figure && p.series === s.series)
    if (published.length === 0 || published.length !== s.points.length) return []
    const met = published.filter((p, k) => {
      const off = Math.abs(s.points[k]!.output - p.output)
      return off <= (p.output < 1000 ? 100 : p.output / 10)
    })
    return [{ series: s.series, met: met.length, of: published.length }]
  })
}
