/** traceReader.ts - the trace rings of a machine as slices of its CPUs' time. */
import type { Machine } from './machine.js'
import type { TraceRecord, TraceSlice } from './types.js'

const SLICES: Record<string, TraceSlice> = {
  user: 'process',
  nice: 'process',
  system: 'process',
  idle: 'idle',
  iowait: 'idle',
  hardirq: 'hardirq',
  softirq: 'softirq',
}
const SOFTIRQS = ['HI', 'TIMER', 'NET_TX', 'NET_RX', 'SCSI', 'TASKLET']
const VECTORS = ['halt', 'timer', 'reschedule', 'call']
const TRACE_DROP = 16
/** A running CPU overwrites its oldest records while they are read: so many are left out. */
const MARGIN = 256

function argument(slice: TraceSlice, context: string, arg: number): string {
  if (slice === 'hardirq') return VECTORS[arg] ?? `irq ${arg - 4}`
  if (slice === 'softirq') return SOFTIRQS[arg] ?? String(arg)
  if (slice === 'idle') return 'idle'
  return `${context} ${arg}`
}

function readRing(machine: Machine, cpu: number): TraceRecord[] {
  const { ram } = machine
  const { bytes, records } = ram.map.trace
  const ring = ram.u8.byteLength - (cpu + 1) * bytes
  const head = ram.i32[ring >> 2]! >>> 0
  const first = Math.max(0, head - records + MARGIN)
  const out: TraceRecord[] = []
  let open: { slice: TraceSlice; arg: string } | null = null
  for (let k = first; k < head; k++) {
    const at = ring + 128 + (k % records) * 16
    const tsNs = ram.f64[at >> 3]!
    const kind = ram.i32[(at >> 2) + 2]!
    const arg = ram.i32[(at >> 2) + 3]!
    if (kind === TRACE_DROP) {
      out.push({ cpu, tsNs, kind: 'drop', reason: ram.map.drop_reasons[arg] ?? String(arg) })
      continue
    }
    const context = ram.map.contexts[kind] ?? 'system'
    const slice = SLICES[context] ?? 'process'
    if (open !== null) out.push({ cpu, tsNs, kind: 'end', ...open })
    open = { slice, arg: argument(slice, context, arg) }
    out.push({ cpu, tsNs, kind: 'begin', ...open })
  }
  if (open !== null && out.length > 0) out.push({ cpu, tsNs: out[out.length - 1]!.tsNs, kind: 'end', ...open })
  return out
}

/** readTrace - the most recent records of every CPU, in the order of time on each. */
export function readTrace(machine: Machine): TraceRecord[] {
  return Array.from({ length: machine.config.cpus }, (_, cpu) => readRing(machine, cpu)).flat()
}
