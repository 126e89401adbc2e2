/** trace.ts - Chrome trace events (JSON object format), written as they come; open in Perfetto. */
import type { TraceCapture, TraceRecord } from '../types.js'

/** TraceWriter - one process for each point, one thread for each CPU; every point begins at 0, to be compared. */
export class TraceWriter {
  private pid = 0
  private first = true

  constructor(private readonly write: (text: string) => void) {
    write('{"displayTimeUnit":"ns","traceEvents":[')
  }

  private event(e: Record<string, unknown>): void {
    this.write(`${this.first ? '' : ','}\n${JSON.stringify(e)}`)
    this.first = false
  }

  /** add - the records of one point. */
  add(capture: TraceCapture): void {
    this.pid++
    const { pid } = this
    this.event({ ph: 'M', pid, name: 'process_name', args: { name: capture.label } })
    for (let cpu = 0; cpu < capture.cpus; cpu++)
      this.event({ ph: 'M', pid, tid: cpu, name: 'thread_name', args: { name: `CPU ${cpu}` } })
    for (const r of capture.records) this.record(pid, r, capture.fromNs)
  }

  private record(pid: number, r: TraceRecord, fromNs: number): void {
    const at = { pid, tid: r.cpu, ts: Math.round(r.tsNs - fromNs) / 1000 }
    if (r.kind === 'drop') this.event({ ...at, ph: 'i', s: 't', name: `drop ${r.reason}`, cat: 'drop' })
    else
      this.event({
        ...at,
        ph: r.kind === 'begin' ? 'B' : 'E',
        name: r.slice === 'idle' || r.slice === 'process' ? r.arg : `${r.slice} ${r.arg}`,
        cat: r.slice,
      })
  }

  /** end - after the last point. */
  end(): void {
    this.write('\n]}\n')
  }
}
