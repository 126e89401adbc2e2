/** torture.ts - what torture runs counted, in the words of locktorture, rcutorture and lock_stat. */
import type { TortureResult, TortureRun } from '../torture.js'
import type { LockReport, RcuReport, SkbReport, TimerReport } from '../tortureCounts.js'
import { plainTable } from './plainTable.js'

/** Max/Min by CPU; question marks when one CPU came by more than twice as often as another, as locktorture has it. */
function spread(counts: readonly number[]): string {
  const [max, min] = [Math.max(...counts), Math.min(...counts)]
  return `Max/Min: ${max}/${min}${max / 2 > min ? ' ???' : ''}`
}
function total(counts: readonly number[]): number {
  return counts.reduce((sum, n) => sum + n, 0)
}

function ofLock(l: LockReport): string[] {
  const line = (what: string, counts: readonly number[]): string =>
    `${what}:  Total: ${total(counts)}  ${spread(counts)}  Fail: ${l.fail + l.lost}${l.fail + l.lost > 0 ? ' !!!' : ''}`
  const reads = l.cpus.map(c => c.reads)
  return [
    `${l.lock}-torture: ${line(
      'Writes',
      l.cpus.map(c => c.writes),
    )}`,
    ...(total(reads) > 0 ? [`${l.lock}-torture: ${line('Reads', reads)}`] : []),
    `${l.lock}-torture: holders at once: ${l.holders} at most; ${l.lost} sections lost`,
  ]
}

const us = (n: number): string => n.toFixed(n < 100 ? 2 : 0)

function lockStatistics(locks: readonly LockReport[]): string {
  const head = [
    ...['lock', 'cpu', 'acquisitions', 'contentions', 'retries'],
    ...['waittime-max', 'waittime-total', 'holdtime-max', 'holdtime-total'],
  ]
  const rows = locks.flatMap(l =>
    l.cpus.map((c, cpu) => [
      cpu === 0 ? l.lock : '',
      String(cpu),
      String(c.writes + c.reads),
      String(c.contentions),
      String(c.retries),
      ...[c.wait_max_us, c.wait_total_us, c.hold_max_us, c.hold_total_us].map(us),
    ]),
  )
  return `lock statistics by CPU, times in us\n${plainTable(head, rows)}`
}

function ofRcu(r: RcuReport, failed: boolean): string[] {
  const flag = failed ? ' !!!' : ''
  const rtc = r.rtc === 0 ? '(null)' : r.rtc.toString(16).padStart(8, '0')
  return [
    `rcu-torture:${flag} rtc: ${rtc} ver: ${r.ver} rta: ${r.rta} rtaf: ${r.rtaf} rtf: ${r.rtf} rtmbe: ${r.rtmbe}`,
    `rcu-torture:${flag} Reader Pipe:  ${r.pipe.join(' ')}`,
    `rcu-torture:${flag} Reader Batch:  ${r.batch.join(' ')}`,
    `rcu-torture:${flag} Free-Block Circulation:  ${r.circulation.join(' ')}`,
  ]
}

function ofSkb(s: SkbReport): string[] {
  return [
    `skb-torture: Packets:  Total: ${total(s.made)}  ${spread(s.made)}  pool empty: ${s.none}`,
    `skb-torture: Freed by CPU: ${s.freed.join(' ')}`,
    `skb-torture: bad words: ${s.bad}  wrong references: ${s.refs}`,
  ]
}

function ofTimer(t: TimerReport): string[] {
  const slots = t.late.map(
    (n, k) =>
      `${k === 0 ? '0' : k === t.late.length - 1 ? `${2 ** (k - 1)}+` : k === 1 ? '1' : `${2 ** (k - 1)}-${2 ** k - 1}`}: ${n}`,
  )
  return [
    `timer-torture: Armed:  Total: ${total(t.arms)}  ${spread(t.arms)}  moved: ${total(t.moves)}  deleted: ${total(t.deletions)}`,
    `timer-torture: Fired:  Total: ${total(t.fired)}  early: ${t.early}  twice: ${t.twice}  lost: ${t.lost}  of no known due time: ${t.unknown}`,
    `timer-torture: Late by jiffies:  ${slots.join('  ')}`,
  ]
}

function ofRun(run: TortureRun): string {
  const failed = run.failures.length > 0
  const lines = [
    `--- ${run.target} ${run.kind}: ${run.cpus} CPU${run.cpus === 1 ? '' : 's'}, ${run.seconds.toFixed(1)} s, seed ${run.seed}`,
    ...run.locks.flatMap(ofLock),
    ...(run.rcu === null ? [] : ofRcu(run.rcu, failed)),
    ...(run.skb === null ? [] : ofSkb(run.skb)),
    ...(run.timer === null ? [] : ofTimer(run.timer)),
    ...(run.locks.length > 0 ? [lockStatistics(run.locks)] : []),
    ...run.failures.map(f => `!!! ${f.what}: ${f.count}`),
    `--- End of test: ${failed ? 'FAILURE' : 'SUCCESS'}: ${run.target} ${run.kind}`,
  ]
  return lines.join('\n')
}

/** tortureReport - each run after the other, and how many failed. */
export function tortureReport(result: TortureResult): string {
  const bad = result.runs.filter(r => r.failures.length > 0)
  const end =
    bad.length === 0
      ? `${result.runs.length} ${result.runs.length === 1 ? 'run' : 'runs'}, no failure`
      : `${bad.length} of ${result.runs.length} failed: ${bad.map(r => `${r.target} ${r.kind}`).join(', ')}`
  return `${result.runs.map(ofRun).join('\n\n')}\n\n${end}`
}
