/** terminal.ts - results as text: tables, a chart, verdicts. */
import asciichart from 'asciichart'
import Table from 'cli-table3'
import type { ForwardResult, LivelockPoint, LivelockResult, LivelockSeries } from '../types.js'
import { ARCH_NAMES, kept, kpps, micros, peak, percent, reason, share, topDrops } from './format.js'

const CHART_WIDTH = 72
const CHART_HEIGHT = 14
const COLORS = [asciichart.red, asciichart.yellow, asciichart.green, asciichart.blue]
const MARKS = ['interrupt', 'softnet', 'napi', 'polled']

const PLAIN = { head: [], border: [], compact: true }

function pointRow(p: LivelockPoint): string[] {
  return [
    kpps(p.offered_pps),
    kpps(p.received_pps),
    kpps(p.delivered_pps),
    String(p.irqs),
    String(p.polls),
    String(p.time_squeeze),
    ['hardirq', 'softirq', 'system', 'user', 'idle'].map(c => percent(share(p, c as 'user'))).join('/'),
    `${percent(p.user_share)} %`,
    [p.latency_us.p50, p.latency_us.p99, p.latency_us.p999].map(micros).join('/'),
    topDrops(p, 2)
      .map(([why, n]) => `${why} ${n}`)
      .join(', '),
  ]
}

function seriesTable(s: LivelockSeries): string {
  const table = new Table({
    head: [
      'offered',
      'received',
      'delivered',
      'irqs',
      'polls',
      'squeeze',
      'hi/si/sy/us/id %',
      'user',
      'p50/99/99.9 us',
      'drops',
    ],
    style: PLAIN,
    colAligns: ['right', 'right', 'right', 'right', 'right', 'right', 'right', 'right', 'right', 'left'],
    chars: {
      top: '',
      'top-mid': '',
      'top-left': '',
      'top-right': '',
      bottom: '',
      'bottom-mid': '',
      'bottom-left': '',
      'bottom-right': '',
      left: ' ',
      right: '',
      mid: '',
      'mid-mid': '',
      'left-mid': '',
      'right-mid': '',
      middle: ' ',
    },
  })
  for (const p of s.points) table.push(pointRow(p))
  const cpus = s.cpus === 1 ? '1 CPU' : `${s.cpus} CPUs`
  return `${ARCH_NAMES[s.rx]}, ${cpus}; rates in kpps\n${table.toString()}`
}

/** What a series delivers at an offered load, by straight lines from the origin through its points. */
function deliveredAt(s: LivelockSeries, offered: number): number {
  let a = { offered_pps: 0, delivered_pps: 0 }
  for (const b of s.points) {
    if (offered <= b.offered_pps) {
      const t = (offered - a.offered_pps) / Math.max(1, b.offered_pps - a.offered_pps)
      return a.delivered_pps + t * (b.delivered_pps - a.delivered_pps)
    }
    a = b
  }
  return a.delivered_pps
}

/** All series over one axis of offered load; each ends where its sweep did. */
function chart(result: LivelockResult, color: boolean): string {
  const most = Math.max(...result.series.flatMap(s => s.points.map(p => p.offered_pps)))
  const step = most / CHART_WIDTH
  const curves = result.series.map(s => {
    const end = s.points[s.points.length - 1]?.offered_pps ?? 0
    return Array.from(
      { length: Math.max(2, Math.round(end / step) + 1) },
      (_, k) => deliveredAt(s, Math.min(end, k * step)) / 1000,
    )
  })
  if (curves.length === 0 || !(most > 0)) return ''
  const colors = result.series.map(s => COLORS[MARKS.indexOf(s.rx)] ?? asciichart.default)
  const text = asciichart.plot(curves, {
    height: CHART_HEIGHT,
    min: 0,
    format: x => x.toFixed(0).padStart(7),
    ...(color ? { colors } : {}),
  })
  const axis = `${' '.repeat(9)}0${kpps(most).padStart(CHART_WIDTH - 1)}`
  const legend = result.series
    .map((s, k) => `${color ? colors[k] : ''}${s.rx}${color ? asciichart.reset : ''}`)
    .join('   ')
  return `delivered kpps over offered kpps: ${legend}\n${text}\n${axis}`
}

function verdict(s: LivelockSeries): string {
  const point =
    s.livelock_pps === null ? 'no livelock in this sweep' : `livelocked from ${kpps(s.livelock_pps)} kpps on`
  return (
    `${s.rx}: loss-free up to ${kpps(s.mlfrr_pps)} kpps, peak ${kpps(peak(s))} kpps, ${point}; ` +
    `keeps ${percent(kept(s))} % of its peak at the highest load.\n  ${reason(s)}.`
  )
}

/** Which points to trust less. */
function disturbed(result: LivelockResult): string {
  const shares = result.host_shares.flat()
  const bad = shares.filter(share => share < 0.97)
  if (bad.length === 0) return ''
  const worst = Math.min(...bad)
  return `The host was busy elsewhere during ${bad.length} of ${shares.length} points: the machine got ${percent(worst)} % of its time at worst.`
}

/** livelockReport - the whole result for a terminal of 120 columns; `color` for one that knows colours. */
export function livelockReport(result: LivelockResult, color: boolean): string {
  return [
    ...result.series.map(seriesTable),
    chart(result, color),
    result.series.map(verdict).join('\n'),
    disturbed(result),
  ]
    .filter(part => part !== '')
    .join('\n\n')
}

/** forwardReport - counts of a forwarding run. */
export function forwardReport(r: ForwardResult): string {
  const rows: [string, number][] = [
    ['received', r.received],
    ['forwarded', r.forwarded],
    ['delivered to this router', r.delivered],
    ...Object.entries(r.dropped)
      .sort((a, b) => b[1] - a[1])
      .map(([why, n]): [string, number] => [`dropped: ${why}`, n]),
    ['ICMP messages sent', r.icmp_sent],
  ]
  const width = Math.max(...rows.map(([name]) => name.length))
  return rows.map(([name, n]) => `${name.padEnd(width)}  ${String(n).padStart(10)}`).join('\n')
}
