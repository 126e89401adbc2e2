/** traceReader.ts - the trace rings of a machine as slices of its CPUs' time. */
import type { Machine } from './machine.js'
import type { RamReader } from './ramReader.js'
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
const RECORD = 16
const HEAD_BYTES = 128
/** A running CPU writes on while its ring is copied: the record in the making, and what the host sees late. */
const MARGIN = 16
/** As many tasks as the kernel has room for. */
const MAX_TASKS = 512

/** The records of one CPU, by the numbers from `first` to `head`. */
interface Ring {
  f64: Float64Array
  i32: Int32Array
  first: number
  head: number
}

/** The rings of a machine at one moment, and the time in them that counts, ns. */
export interface TraceSnapshot {
  rings: Ring[]
  fromNs: number
  toNs: number
  /** Names of tasks by pid. */
  tasks: ReadonlyMap<number, string>
  map: RamReader['map']
}

function copyRing(ram: RamReader, cpu: number): Ring {
  const { bytes, records } = ram.map.trace
  const at = ram.u8.byteLength - (cpu + 1) * bytes
  const head = ram.i32[at >> 2]! >>> 0
  const copy = ram.u8.slice(at + HEAD_BYTES, at + bytes)
  // What the CPU has written since then lies over its oldest records.
  const overwritten = (ram.i32[at >> 2]! >>> 0) - records
  const first = overwritten + MARGIN <= 0 ? 0 : Math.min(head, overwritten + MARGIN)
  return { f64: new Float64Array(copy.buffer), i32: new Int32Array(copy.buffer), first, head }
}

function timeOf(ring: Ring, k: number): number {
  return ring.f64[(k % (ring.f64.length / 2)) * 2]!
}

/** Since when a ring holds all that its CPU did. */
function coveredSince(ring: Ring): number {
  if (ring.first === 0) return -Infinity
  return ring.first < ring.head ? timeOf(ring, ring.first) : Infinity
}

/** Tasks lie in slots of one slab: from one that runs, the others are found. */
function taskNames(ram: RamReader, cpus: number): Map<number, string> {
  const { task, registers, percpu_base, percpu_shift, symbols } = ram.map
  const slot = 2 ** Math.ceil(Math.log2(task['comm']! + 16))
  const names = new Map<number, string>()
  for (let cpu = 0; cpu < cpus; cpu++) {
    const known = ram.i32[(percpu_base + (cpu << percpu_shift) + registers.current) >> 2]!
    if (known === 0) continue
    const last = Math.min(known + MAX_TASKS * slot, ram.u8.length - slot)
    for (let at = Math.max(known % slot, known - MAX_TASKS * slot); at <= last; at += slot) {
      const word = (field: string): number => ram.i32[(at + task[field]!) >> 2]!
      if (word('cpu') >>> 0 >= cpus || word('prio') >>> 0 >= 140 || word('flags') >>> 0 > 1) continue
      if (word('program') >>> 0 >= symbols.length || word('pid') <= 0) continue
      const comm = Buffer.from(ram.u8.slice(at + task['comm']!, at + task['comm']! + 16)).toString('latin1')
      const name = /^([!-~]{1,15})\0/.exec(comm)?.[1]
      if (name !== undefined) names.set(word('pid'), name)
    }
    return names
  }
  return names
}

/** snapTrace - what the rings hold of the time between two moments, ms of the machine. */
export function snapTrace(machine: Machine, fromMs: number, toMs: number): TraceSnapshot {
  const { ram, config } = machine
  const rings = Array.from({ length: config.cpus }, (_, cpu) => copyRing(ram, cpu))
  // A busy CPU's ring reaches back less far: all CPUs are shown over the same time.
  const fromNs = Math.max(fromMs * 1e6, ...rings.map(coveredSince))
  return { rings, fromNs, toNs: toMs * 1e6, tasks: taskNames(ram, config.cpus), map: ram.map }
}

function argument(slice: TraceSlice, arg: number, tasks: TraceSnapshot['tasks']): string {
  if (slice === 'hardirq') return VECTORS[arg] ?? `irq ${arg - 4}`
  if (slice === 'softirq') return SOFTIRQS[arg] ?? String(arg)
  if (slice === 'idle') return 'idle'
  return `${tasks.get(arg) ?? 'process'} ${arg}`
}

function readRing(snap: TraceSnapshot, cpu: number): TraceRecord[] {
  const ring = snap.rings[cpu]!
  const out: TraceRecord[] = []
  let open: { slice: TraceSlice; arg: string } | null = null
  let began = false
  const begin = (): void => {
    if (open !== null) out.push({ cpu, tsNs: snap.fromNs, kind: 'begin', ...open })
    began = true
  }
  for (let k = ring.first; k < ring.head; k++) {
    const tsNs = timeOf(ring, k)
    if (tsNs >= snap.toNs) break
    const at = (k % (ring.f64.length / 2)) * (RECORD >> 2)
    const kind = ring.i32[at + 2]!
    const arg = ring.i32[at + 3]!
    if (tsNs >= snap.fromNs && !began) begin()
    if (kind === TRACE_DROP) {
      if (began) out.push({ cpu, tsNs, kind: 'drop', reason: snap.map.drop_reasons[arg] ?? String(arg) })
      continue
    }
    const slice = SLICES[snap.map.contexts[kind] ?? 'system'] ?? 'process'
    if (began && open !== null) out.push({ cpu, tsNs, kind: 'end', ...open })
    open = { slice, arg: argument(slice, arg, snap.tasks) }
    if (began) out.push({ cpu, tsNs, kind: 'begin', ...open })
  }
  if (snap.fromNs >= snap.toNs) return []
  if (!began) begin()
  if (open !== null) out.push({ cpu, tsNs: snap.toNs, kind: 'end', ...open })
  return out
}

/** readTrace - the records of every CPU, in the order of time on each; slices are clipped to the time that counts. */
export function readTrace(snap: TraceSnapshot): TraceRecord[] {
  return snap.rings.flatMap((_, cpu) => readRing(snap, cpu))
}
