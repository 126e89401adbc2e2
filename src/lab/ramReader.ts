/** ramReader.ts - reads a machine's RAM by its System.map: to measure must not disturb. */

import {
  CNT_FILTERED,
  CNT_GENERATED,
  CNT_MISSED,
  CNT_OFFERED,
  CNT_REORDERED,
  CNT_RING,
  CNT_SENT,
  CNT_SENT_BYTES,
  CNT_STEPS,
  CONTROL,
  CTL_ACK,
  CTL_FINISHED,
  CTL_ON,
  CTL_RATE,
  CTL_RESET,
  CTL_SEQ,
} from '../hw/control.js'
import type { SystemMap } from '../init/system_map.js'
import type { SourceRequest } from './types.js'

export interface PortCounters {
  offered: number
  ring: number
  missed: number
  filtered: number
  sent: number
  sentBytes: number
  reordered: number
  generated: number
}

/** Where each received packet ended. */
export interface Fates {
  received: number
  forwarded: number
  delivered: number
  icmpSent: number
  icmpDropped: number
  copiesDropped: number
  drops: Record<string, number>
}

/** How long a CPU may take to write its dump, ms. */
const PANIC_MS = 500

export class RamReader {
  readonly i32: Int32Array
  readonly f64: Float64Array
  readonly u8: Uint8Array

  constructor(
    memory: WebAssembly.Memory,
    readonly map: SystemMap,
  ) {
    const buffer = memory.buffer as unknown as SharedArrayBuffer
    this.i32 = new Int32Array(buffer)
    this.f64 = new Float64Array(buffer)
    this.u8 = new Uint8Array(buffer)
  }

  setConfig(name: string, value: number): void {
    const addr = this.map.config[name]
    if (addr === undefined) throw new Error(`no configuration word ${name}`)
    this.i32[addr >> 2] = value
  }

  /** Address of a field of a placed variable. */
  address(variable: string, field: string, cpu = 0): number {
    const v = this.map.variables[variable]
    const offset = v?.fields[field]
    if (v === undefined || offset === undefined) throw new Error(`no ${variable}.${field} in System.map`)
    return (v.kind === 'percpu' ? this.map.percpu_base + (cpu << this.map.percpu_shift) : 0) + v.offset + offset
  }

  word(variable: string, field: string, cpu = 0): number {
    return this.i32[this.address(variable, field, cpu) >> 2]!
  }

  /** What lockdep has found on a machine that it watches; empty: nothing. */
  lockdepReport(): string {
    if (this.word('lockdep', 'reports') === 0) return ''
    const at = this.address('lockdep', 'text')
    return new TextDecoder().decode(this.u8.slice(at, at + this.word('lockdep', 'length')))
  }

  /** Sum of a per-CPU counter. */
  sum(variable: string, field: string, cpus: number): number {
    let n = 0
    for (let cpu = 0; cpu < cpus; cpu++) n += this.word(variable, field, cpu) >>> 0
    return n
  }

  /** CPU time by context, ns, as accounted up to the last change of context. */
  cpuTimes(cpu: number): Record<string, number> {
    const at = (this.map.percpu_base + (cpu << this.map.percpu_shift) + this.map.cpu_stat) >> 3
    return Object.fromEntries(this.map.contexts.map((name, k) => [name, this.f64[at + k]!]))
  }

  fates(cpus: number): Fates {
    const drops: Record<string, number> = {}
    for (let cpu = 0; cpu < cpus; cpu++) {
      const at = this.address('packet_fate', 'drops', cpu) >> 2
      this.map.drop_reasons.forEach((reason, k) => {
        const n = this.i32[at + k]! >>> 0
        if (n > 0) drops[reason] = (drops[reason] ?? 0) + n
      })
    }
    return {
      received: this.sum('packet_fate', 'received', cpus),
      forwarded: this.sum('packet_fate', 'forwarded', cpus),
      delivered: this.sum('packet_fate', 'delivered', cpus),
      icmpSent: this.sum('packet_fate', 'icmp_sent', cpus),
      icmpDropped: this.sum('packet_fate', 'icmp_dropped', cpus),
      copiesDropped: this.sum('packet_fate', 'copies_dropped', cpus),
      drops,
    }
  }

  // ---- ports --------------------------------------------------------------------------------------------------------

  private control(port: number): number {
    return this.map.nic_regs + (port << this.map.nic_page_shift) + CONTROL
  }

  port(port: number): PortCounters {
    const at = this.control(port)
    const read = (counter: number): number => this.f64[(at + counter) >> 3]!
    return {
      offered: read(CNT_OFFERED),
      ring: read(CNT_RING),
      missed: read(CNT_MISSED),
      filtered: read(CNT_FILTERED),
      sent: read(CNT_SENT),
      sentBytes: read(CNT_SENT_BYTES),
      reordered: read(CNT_REORDERED),
      generated: read(CNT_GENERATED),
    }
  }

  /** Looks of the board at all its ports, with the host's clock. */
  boardSteps(): number {
    return this.f64[(this.control(0) + CNT_STEPS) >> 3]!
  }

  /** What the NIC itself dropped, by reason. */
  nicDrops(port: number): Record<string, number> {
    const page = this.map.nic_regs + (port << this.map.nic_page_shift)
    return Object.fromEntries(
      Object.entries(this.map.nic_drops).map(([reason, word]) => [reason, this.i32[(page + word) >> 2]! >>> 0]),
    )
  }

  /** Writes a request for the board. @returns its number */
  portRequest(port: number, request: SourceRequest): number {
    const at = this.control(port)
    if (request.on !== undefined) this.i32[(at + CTL_ON) >> 2] = request.on ? 1 : 0
    if (request.rate !== undefined) this.f64[(at + CTL_RATE) >> 3] = request.rate
    this.i32[(at + CTL_RESET) >> 2] = request.resetLatency === true ? 1 : 0
    const seq = (this.i32[(at + CTL_SEQ) >> 2]! + 1) | 0
    Atomics.store(this.i32, (at + CTL_SEQ) >> 2, seq)
    return seq
  }

  portAcknowledged(port: number, seq: number): boolean {
    return Atomics.load(this.i32, (this.control(port) + CTL_ACK) >> 2) === seq
  }

  /** Has a replay sent its last frame? */
  portFinished(port: number): boolean {
    return Atomics.load(this.i32, (this.control(port) + CTL_FINISHED) >> 2) !== 0
  }

  // ---- requests to a machine that runs --------------------------------------------------------------------------------

  /** @returns number of the request */
  ringDoorbell(op: number, arg: number): number {
    const { doorbell } = this.map
    this.i32[doorbell.op >> 2] = op
    this.i32[doorbell.arg >> 2] = arg
    return Atomics.add(this.i32, doorbell.seq >> 2, 1) + 1
  }
  doorbellServed(request: number): boolean {
    return Atomics.load(this.i32, this.map.doorbell.done >> 2) === request
  }
  doorbellResult(): number {
    return this.i32[this.map.doorbell.result >> 2]!
  }

  // ---- power --------------------------------------------------------------------------------------------------------

  /** The halt vector of a CPU, and a wake-up for its thread. */
  sendHalt(cpu: number): void {
    const pending = (this.map.percpu_base + (cpu << this.map.percpu_shift)) >> 2
    Atomics.or(this.i32, pending, 1)
    Atomics.notify(this.i32, pending)
  }

  /** The dump of a machine that panicked; waits a moment for the CPU that still writes it. */
  panicText(): string {
    const { panic_len, panic_text } = this.map.boot
    Atomics.wait(this.i32, panic_len >> 2, 0, PANIC_MS)
    const len = this.i32[panic_len >> 2]!
    return Buffer.from(this.u8.slice(panic_text, panic_text + len)).toString('utf8')
  }
}
