/** scale.ts - forwarding by number of CPUs: throughput, where the cycles went, the locks. */
import { VARIANTS } from '../scale.js'
import type { ScalePoint, ScaleResult } from '../types.js'
import { kpps } from './format.js'
import { type Chart, chartPage } from './page.js'
import { plainTable } from './plainTable.js'

const COLORS = ['#dd3333', '#3366cc', '#22aa22', '#dd9900', '#8844bb', '#00aaaa', '#996633', '#dd66aa', '#777777']

function variantsOf(result: ScaleResult): string[] {
  return [...new Set(result.points.map(p => p.variant))]
}
function cpusOf(result: ScaleResult): number[] {
  return [...new Set(result.points.map(p => p.cpus))].sort((a, b) => a - b)
}

function throughput(result: ScaleResult): string {
  const cpus = cpusOf(result)
  const rows = variantsOf(result).map(v => [
    v,
    ...cpus.map(n => {
      const p = result.points.find(q => q.variant === v && q.cpus === n)
      return p === undefined ? '-' : `${kpps(p.delivered_pps)}${p.steady ? '' : '*'}`
    }),
    VARIANTS.find(x => x.name === v)?.what ?? '',
  ])
  const table = `Forwarded, thousands of packets a second, by CPUs\n${plainTable(['', ...cpus.map(String), ''], rows)}`
  const rough = result.points.filter(p => !p.steady)
  if (rough.length === 0) return table
  const halves = rough.map(
    p => `${p.variant} on ${p.cpus}: ${p.halves_pps.map(kpps).join(' and ')} in ${p.window_ms} ms`,
  )
  return `${table}\n* not steady; by halves of its time, ${halves.join('; ')}`
}

/** Where the time of the largest machine of a variant went. */
function details(p: ScalePoint): string {
  const functions = p.functions.map(f => [f.function, f.context, `${(f.share * 100).toFixed(1)} %`])
  const locks = p.locks.map(l => [
    l.lock,
    String(l.acquisitions),
    String(l.contentions),
    String(l.wait_cycles),
    (l.hold_cycles / l.acquisitions).toFixed(0),
  ])
  const drops = Object.entries(p.drops)
    .sort((a, b) => b[1] - a[1])
    .map(([why, n]) => `${why} ${n}`)
    .join(', ')
  return (
    `${p.variant}, ${p.cpus} CPUs, ${p.window_ms} ms: ${p.cycles_per_packet ?? '-'} cycles a packet\n` +
    (drops === '' ? '' : `dropped: ${drops}\n`) +
    `${plainTable(['function', 'context', 'of all time'], functions)}\n` +
    plainTable(['lock', 'acquisitions', 'contentions', 'cycles waited', 'cycles held each'], locks)
  )
}

/** scaleReport - the table, and the largest machine of each variant in detail. */
export function scaleReport(result: ScaleResult): string {
  const most = Math.max(...cpusOf(result))
  const largest = result.points.filter(p => p.cpus === most)
  return [throughput(result), ...largest.map(details)].join('\n\n')
}

/** scaleHtml - throughput over CPUs, a line for each variant. */
export function scaleHtml(result: ScaleResult): string {
  const chart: Chart = {
    title: 'Forwarding by number of CPUs',
    text: 'Offered more than the machine can take; NAPI.',
    x: 'CPUs',
    y: 'packets/s',
    series: variantsOf(result).map((v, k) => ({
      label: v,
      color: COLORS[k % COLORS.length]!,
      points: result.points.filter(p => p.variant === v).map(p => [p.cpus, p.delivered_pps] as const),
    })),
  }
  return chartPage('Scaling in virtual time', [`Costs of ${result.profile}, seed ${result.seed}.`], [chart])
}
