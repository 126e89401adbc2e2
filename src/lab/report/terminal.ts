/** terminal.ts - results as text that fits a terminal's width: tables, a chart, verdicts. */
import Table from 'cli-table3'
import type { ForwardResult, LivelockPoint, LivelockResult, LivelockSeries } from '../types.js'
import { chart } from './chart.js'
import { ARCH_NAMES, kept, kpps, micros, peak, percent, reason, share, topDrops } from './format.js'

/** How wide a text is where nobody says, such as in a pipe; and the least that it can be. */
const [DEFAULT_WIDTH, LEAST_WIDTH] = [80, 60]
const HEAD = [
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
]
const GAP = 2
const BARE = Object.fromEntries(
  ['top', 'bottom', 'mid', 'left', 'right'].flatMap(k => [k, `${k}-mid`, `${k}-left`, `${k}-right`]).map(k => [k, '']),
)

/** How a terminal shows a report. */
export interface Look {
  width: number
  color: boolean
}

/** lookOf - of a stream: its width, and colours when it is a terminal and nobody has set NO_COLOR (no-color.org). */
export function lookOf(stream: { isTTY?: boolean; columns?: number }, env: NodeJS.ProcessEnv): Look {
  const width = stream.columns ?? Number(env['COLUMNS'] || DEFAULT_WIDTH)
  return {
    width: width > 0 ? Math.max(LEAST_WIDTH, width) : DEFAULT_WIDTH,
    color: stream.isTTY === true && !env['NO_COLOR'] && env['TERM'] !== 'dumb',
  }
}

/** wrap - lines of at most `width` characters, indented; the first one by `first`. */
function wrap(text: string, width: number, indent = '', first = ''): string {
  const [word = '', ...words] = text.split(' ')
  const lines: string[] = []
  let line = first + word
  for (const next of words) {
    if (line.length + 1 + next.length > width) {
      lines.push(line)
      line = indent + next
    } else line = `${line} ${next}`
  }
  return [...lines, line].join('\n')
}

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

function table(rows: readonly string[][], columns: readonly number[]): string {
  const t = new Table({
    head: columns.map(c => HEAD[c]!),
    style: { head: [], border: [], compact: true, 'padding-left': 0, 'padding-right': 0 },
    colAligns: columns.map(c => (c === HEAD.length - 1 ? 'left' : 'right')),
    chars: { ...BARE, middle: ' '.repeat(GAP) },
  })
  for (const row of rows) t.push(columns.map(c => row[c]!))
  return t
    .toString()
    .split('\n')
    .map(line => line.trimEnd())
    .join('\n')
}

/** All columns: what does not fit beside the first ones comes below, beside the offered load again. */
function seriesTable(s: LivelockSeries, width: number): string {
  const rows = s.points.map(pointRow)
  const widths = HEAD.map((head, c) => Math.max(head.length, ...rows.map(row => row[c]!.length)))
  const tables: number[][] = [[0]]
  let used = widths[0]!
  for (let c = 1; c < HEAD.length; c++) {
    if (used + GAP + widths[c]! > width && tables[tables.length - 1]!.length > 1) {
      tables.push([0])
      used = widths[0]!
    }
    tables[tables.length - 1]!.push(c)
    used += GAP + widths[c]!
  }
  const cpus = s.cpus === 1 ? '1 CPU' : `${s.cpus} CPUs`
  return `${ARCH_NAMES[s.rx]}, ${cpus}; rates in kpps\n${tables.map(columns => table(rows, columns)).join('\n\n')}`
}

function verdict(s: LivelockSeries, width: number): string {
  const point =
    s.livelock_pps === null ? 'no livelock in this sweep' : `livelocked from ${kpps(s.livelock_pps)} kpps on`
  const free = s.mlfrr_pps === 0 ? 'no loss-free rate found' : `loss-free up to ${kpps(s.mlfrr_pps)} kpps`
  const text =
    `${s.rx}: ${free}, peak ${kpps(peak(s))} kpps, ${point}; ` +
    `keeps ${percent(kept(s))} % of its peak at the highest load.`
  return `${wrap(text, width, '  ')}\n${wrap(`${reason(s)}.`, width, '  ', '  ')}`
}

/** Which points to trust less. */
function disturbed(result: LivelockResult): string {
  const shares = result.host_shares.flat()
  const bad = shares.filter(share => share < 0.97)
  if (bad.length === 0) return ''
  const worst = Math.min(...bad)
  return `The host was busy elsewhere during ${bad.length} of ${shares.length} points: the machine got ${percent(worst)} % of its time at worst.`
}

/** livelockReport - the whole result. */
export function livelockReport(result: LivelockResult, { width, color }: Look): string {
  return [
    ...result.series.map(s => seriesTable(s, width)),
    chart(result, width, color),
    result.series.map(s => verdict(s, width)).join('\n'),
    wrap(disturbed(result), width),
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
