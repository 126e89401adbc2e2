/**
 * irqchip.ts - the interrupt controller: 64 level-triggered lines, each routed to one CPU.
 *
 * A line is 128 bytes in RAM and is at the same time the interrupt part of one device queue's registers:
 *
 *   +0  cpu        affinity: who gets it                     (kernel)
 *   +4  enable     which causes may assert it: RX, TX, LINK  (driver; 0 = masked)
 *   +8  rx_ack     frames the driver has taken               (driver)
 *   +12 tx_ack     transmitted frames the driver has freed   (driver)
 *   +16 wired      the line exists                           (boot)
 *   +64 rx_head    frames the device says it has received    (device; lags the ring by the mitigation)
 *   +68 tx_head    frames the device says it has sent        (device)
 *   +72 raised     times it interrupted a CPU                (device and CPU)
 *
 * The level is a function of these words (line_asserted), so whoever changes one of them looks at the level afterwards:
 * the device after it advances a head, the CPU after it unmasks or ends a handler. Both orders of "device advances" and
 * "driver unmasks" therefore raise the interrupt: this is case (a) of the rotting-packet race in NAPI_HOWTO.
 */
import { fetch_add, load, READ_ONCE, store } from './atomic.js'
import { send_vector, VEC_DEVICE } from './machine.js'
import { IRQ_LINES, PERCPU_BASE, PERCPU_SHIFT } from './ram.js'

export const LINE_CPU = 0
export const LINE_ENABLE = 4
export const LINE_RX_ACK = 8
export const LINE_TX_ACK = 12
export const LINE_WIRED = 16
export const LINE_RX_HEAD = 64
export const LINE_TX_HEAD = 68
export const LINE_RAISED = 72

export const CAUSE_RX = 1
export const CAUSE_TX = 2

const VECTORS = 27 // bits 4 to 30 of the pending word; lines that share a bit share a vector, as PCI lines do

/** irq_line - address of a line. */
export function irq_line(irq: number): number {
  return IRQ_LINES + irq * 128
}

/** irq_vector - the pending bit that a line uses. */
export function irq_vector(irq: number): number {
  return VEC_DEVICE + (irq % VECTORS)
}

/** line_asserted - is the line's level up? */
export function line_asserted(line: number): boolean {
  const enable = load(line + LINE_ENABLE)
  return (
    ((enable & CAUSE_RX) !== 0 && ((load(line + LINE_RX_HEAD) - READ_ONCE(line + LINE_RX_ACK)) | 0) > 0) ||
    ((enable & CAUSE_TX) !== 0 && ((load(line + LINE_TX_HEAD) - READ_ONCE(line + LINE_TX_ACK)) | 0) > 0)
  )
}

/** line_update - after a word of the line changed: interrupt its CPU if the level is up. @context any, any thread */
export function line_update(irq: number): void {
  const line = irq_line(irq)
  if (!line_asserted(line)) return
  const cpu = load(line + LINE_CPU)
  const vector = irq_vector(irq)
  if ((load(PERCPU_BASE + (cpu << PERCPU_SHIFT)) & (1 << vector)) !== 0) return // already pending there
  fetch_add(line + LINE_RAISED, 1)
  send_vector(cpu, vector)
}

/** line_enable - set which causes may assert the line; unmasking looks at the level. @context any */
export function line_enable(irq: number, causes: number): void {
  store(irq_line(irq) + LINE_ENABLE, causes)
  if (causes !== 0) line_update(irq)
}

/** line_route - give the line to a CPU (set_affinity). @context process */
export function line_route(irq: number, cpu: number): void {
  store(irq_line(irq) + LINE_CPU, cpu)
  line_update(irq)
}

/** vector_irq - the next line at or after `from` that uses `vector` and is routed to `cpu`, or -1. */
export function vector_irq(vector: number, from: number, cpu: number): number {
  let irq = from
  while (irq < 64 && irq_vector(irq) !== vector) irq++
  for (; irq < 64; irq += VECTORS) {
    const line = irq_line(irq)
    if (READ_ONCE(line + LINE_WIRED) !== 0 && READ_ONCE(line + LINE_CPU) === cpu) return irq
  }
  return -1
}
