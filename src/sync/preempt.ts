/**
 * preempt.ts - preempt_count: what this CPU is in the middle of.
 *
 * Bits 0-7 preempt_disable, 8-15 softirq, 16-27 hardirq, 28 PREEMPT_ACTIVE. A spinlock counts as one preempt_disable,
 * so that "may I sleep?" is one test.
 */
import { bug } from '../arch/bug.js'
import { CPU_PREEMPT, CPU_RCU, cpu_area, cpu_id, irqs_disabled } from '../arch/cpu.js'
import { RAM } from '../arch/ram.js'

const i32 = RAM.i32
const COUNT = (cpu_area(Math.max(cpu_id, 0)) + CPU_PREEMPT) >> 2
const RCU = (cpu_area(Math.max(cpu_id, 0)) + CPU_RCU) >> 2

export const PREEMPT_MASK = 0xff
export const SOFTIRQ_OFFSET = 0x100
export const SOFTIRQ_MASK = 0xff00
export const HARDIRQ_OFFSET = 0x10000
export const HARDIRQ_MASK = 0xfff0000

export function preempt_count(): number {
  return i32[COUNT]
}
export function add_preempt_count(n: number): void {
  i32[COUNT] += n
}
export function preempt_disable(): void {
  i32[COUNT]++
}
export function preempt_enable(): void {
  i32[COUNT]--
}
export function in_irq(): boolean {
  return (i32[COUNT] & HARDIRQ_MASK) !== 0
}
/** Also true under local_bh_disable. */
export function in_softirq(): boolean {
  return (i32[COUNT] & SOFTIRQ_MASK) !== 0
}
export function in_interrupt(): boolean {
  return (i32[COUNT] & (HARDIRQ_MASK | SOFTIRQ_MASK)) !== 0
}
export function in_atomic(): boolean {
  return (i32[COUNT] & 0xfffffff) !== 0
}

/** might_sleep - first statement of whatever may sleep. */
export function might_sleep(): void {
  if (in_atomic() || irqs_disabled()) while_atomic()
}

/** while_atomic - who sleeps here would take a lock, a reader or an interrupt with him. */
export function while_atomic(): never {
  const only_reads = i32[RCU] > 0 && i32[COUNT] === i32[RCU]
  return only_reads
    ? bug('rcu', 'scheduling while atomic: an RCU reader sleeps')
    : bug('sleep in atomic', `scheduling while atomic: preempt_count 0x${(i32[COUNT] >>> 0).toString(16)}`)
}
