/** csv.ts - one line per point. */
import type { LivelockResult } from '../types.js'
import { share } from './format.js'

const COLUMNS = [
  'rx',
  'cpus',
  'mlfrr_pps',
  'livelock_pps',
  'offered_pps',
  'received_pps',
  'delivered_pps',
  'irqs',
  'polls',
  'time_squeeze',
  'hardirq',
  'softirq',
  'system',
  'user',
  'idle',
  'user_share',
  'host_share',
  'latency_p50_us',
  'latency_p99_us',
  'latency_p999_us',
]

/** livelockCsv - RFC 4180; drops have a column for each reason that occurs. */
export function livelockCsv(result: LivelockResult): string {
  const reasons = [...new Set(result.series.flatMap(s => s.points.flatMap(p => Object.keys(p.drops))))].sort()
  const lines = [[...COLUMNS, ...reasons.map(r => `drop_${r}`)].join(',')]
  for (const [i, s] of result.series.entries()) {
    for (const [k, p] of s.points.entries()) {
      const contexts = (['hardirq', 'softirq', 'system', 'user', 'idle'] as const).map(c => share(p, c).toFixed(4))
      const { p50, p99, p999 } = p.latency_us
      lines.push(
        [
          s.rx,
          s.cpus,
          s.mlfrr_pps,
          s.livelock_pps ?? '',
          p.offered_pps,
          p.received_pps,
          p.delivered_pps,
          p.irqs,
          p.polls,
          p.time_squeeze,
          ...contexts,
          p.user_share.toFixed(4),
          result.host_shares[i]![k]!.toFixed(4),
          p50 ?? '',
          p99 ?? '',
          p999 ?? '',
          ...reasons.map(r => p.drops[r] ?? 0),
        ].join(','),
      )
    }
  }
  return `${lines.join('\r\n')}\r\n`
}
