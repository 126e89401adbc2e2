/**
 * trace.ts - a ring per CPU of context changes and drops, on when the machine is told so before boot.
 *
 * A record is 16 bytes: time (f64, ns), kind, argument. The host reads the rings after the machine has halted.
 * A ring that is full overwrites its oldest records; its head counts all records ever written.
 */
import { boot } from './boot.js'
import { now_ns } from './clock.js'
import { CONFIG, CONFIG_WORDS } from './machine.js'
import { RAM } from './ram.js'

const i32 = RAM.i32
const f64 = RAM.f64

/** Rings that RAM has room for at its end, used or not. */
export const NR_TRACED = 32
export const TRACE_RECORDS = 1 << 14
export const TRACE_BYTES = 128 + TRACE_RECORDS * 16
const ON = (CONFIG + CONFIG_WORDS.indexOf('trace') * 4) >> 2

/** Kinds above the contexts of cpu.ts. */
export const TRACE_DROP = 16

/** The rings sit at the end of RAM, so that their place needs no table. */
export function trace_ring(cpu: number): number {
  return RAM.size - (cpu + 1) * TRACE_BYTES
}

const HEAD = trace_ring(Math.max(boot.cpu, 0))

/** trace_switch - this CPU changed its context; `arg` is the irq, the softirq or the pid. */
export function trace_switch(now: number, kind: number, arg: number): void {
  if (i32[ON] === 0) return
  const head = i32[HEAD >> 2]
  const at = HEAD + 128 + (head & (TRACE_RECORDS - 1)) * 16
  f64[at >> 3] = now
  i32[(at >> 2) + 2] = kind
  i32[(at >> 2) + 3] = arg
  i32[HEAD >> 2] = head + 1
}

/** trace_drop - a packet died here. */
export function trace_drop(reason: number): void {
  if (i32[ON] !== 0) trace_switch(now_ns(), TRACE_DROP, reason)
}
