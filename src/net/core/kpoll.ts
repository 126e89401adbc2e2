/**
 * kpoll.ts - the polling thread of the modified kernel (Mogul and Ramakrishnan 1996, section 6.4).
 *
 * Interrupts only start it: a handler notes that its device needs service, leaves the device's interrupt masked and wakes
 * the thread. The thread goes round all devices, and for each calls its receive and its transmit callback with a quota, and
 * carries each packet through to its end: there is no IP input queue. A device that has nothing more to do has its interrupt
 * enabled again.
 *
 * Input is inhibited, each for its own reason: by the screening queue (screen.ts), and when the thread has used its share
 * of a period (the cycle limit). Inhibited devices are not polled for input and do not interrupt for it.
 *
 * Lock charter
 *   The state belongs to CPU 0, where the thread, its timer and the handlers' devices live; handlers and timers touch it
 *   with interrupts off. One device has one entry, filled at registration.
 */
import { bytes, embed, type Layout, layout, own, ptr, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call, type Sym, symbol } from '../../abi/symbol.js'
import { cost } from '../../arch/cost.js'
import { BUG_ON, local_irq_restore, local_irq_save, now_ns, tick } from '../../arch/cpu.js'
import { config, hz } from '../../arch/machine.js'
import { RAM } from '../../arch/ram.js'
import { init_timer, jiffies, mod_timer, TIMER, type timer_list } from '../../irq/timer.js'
import { NR_IRQS } from '../../lib/limits.js'
import {
  cond_resched,
  kernel_thread,
  rest,
  sched_hooks,
  set_current_state,
  wake_up_process,
} from '../../sched/sched.js'
import { TASK, TASK_INTERRUPTIBLE, TASK_RUNNING, type task_struct } from '../../sched/task.js'
import { local_bh_disable, local_bh_enable } from '../../sync/bh.js'

const i32 = RAM.i32
const COST_LOOP = cost('kpoll_callback')

/** What a driver registers; each gets its device's address. */
export interface poll_ops {
  /** Take up to `quota` received frames to their end, as long as input is not inhibited. @returns frames taken */
  receive(dev: number, quota: number): number
  /** Free up to `quota` sent frames. @returns frames freed */
  transmit(dev: number, quota: number): number
  /** Is there anything to do? */
  pending(dev: number, input: boolean): boolean
  /** Let the device interrupt again; for received frames only when `input`. */
  enable(dev: number, input: boolean): void
}

/** Why input is inhibited: bits. */
export const INHIBIT_QUEUE = 1
export const INHIBIT_CYCLES = 2
/** The period of the cycle limit, ms: the quantum of the scheduler. */
const PERIOD_MS = 10
/** A quota of none: as many as come. */
export const NO_QUOTA = 0x7fffffff

class kpoll_state extends Struct {
  declare task: task_struct | null
  declare timer: timer_list
  declare devices: number
  declare ndevices: number
  declare scheduled: number
  declare inhibited: number
  declare used_us: number
  declare loops: number
}
const KPOLL: Layout<kpoll_state> = layout('kpoll', kpoll_state, {
  task: own(ptr(() => TASK)),
  timer: embed(TIMER), // the end of a period
  devices: own(bytes(NR_IRQS * 8)), // pairs of {ops, queue}: as many as a machine has interrupt lines
  ndevices: own(word),
  scheduled: own(word), // some device needs service
  inhibited: own(word),
  used_us: own(word), // of this period, by the thread
  loops: own(word),
})
const s = DEFINE_STATIC('kpoll', KPOLL)

/** kpoll_register - @context process, boot */
export function kpoll_register(ops: Sym<poll_ops>, dev: number): void {
  BUG_ON(s.ndevices >= NR_IRQS, 'too many polled devices')
  i32[(s.devices >> 2) + s.ndevices * 2] = ops
  i32[(s.devices >> 2) + s.ndevices * 2 + 1] = dev
  s.ndevices++
}

/** kpoll_unregister - a device that is closed goes; the thread is not in a round now. @context process, CPU 0 */
export function kpoll_unregister(dev: number): void {
  const at = s.devices >> 2
  let k = 0
  while (k < s.ndevices && i32[at + 2 * k + 1] !== dev) k++
  if (k === s.ndevices) return
  i32.copyWithin(at + 2 * k, at + 2 * k + 2, at + 2 * s.ndevices)
  s.ndevices--
}

/** kpoll_schedule - a device needs service; its interrupt is masked. @context hardirq, softirq, process */
export function kpoll_schedule(): void {
  const flags = local_irq_save()
  s.scheduled = 1
  if (s.task !== null) wake_up_process(s.task)
  local_irq_restore(flags)
}

function inhibit(why: number): void {
  const flags = local_irq_save()
  s.inhibited |= why
  local_irq_restore(flags)
}

/** Input again, if no other reason stands against it: a look at every device. */
function allow(why: number): void {
  const flags = local_irq_save()
  const was = s.inhibited
  s.inhibited = was & ~why
  if (was !== 0 && s.inhibited === 0) kpoll_schedule()
  local_irq_restore(flags)
}

/** input_inhibit - the screening queue is nearly full. @context any */
export function input_inhibit(): void {
  inhibit(INHIBIT_QUEUE)
}
export function input_allow(): void {
  allow(INHIBIT_QUEUE)
}

/** input_inhibited - a receive callback looks after each packet, and returns when that packet was one too many. */
export function input_inhibited(): boolean {
  return s.inhibited !== 0
}

// ---- the cycle limit ------------------------------------------------------------------------------------------------

function period_ticks(): number {
  return Math.max(1, Math.floor((PERIOD_MS * hz()) / 1000))
}

function end_of_period(): void {
  s.used_us = 0
  allow(INHIBIT_CYCLES)
  mod_timer(s.timer, (jiffies() + period_ticks()) | 0)
}
const end_of_period_sym = symbol('kpoll_end_of_period', end_of_period)

/** The CPU has nothing to do: whoever was held back for its sake goes on. */
function idle(): void {
  if ((s.inhibited & INHIBIT_CYCLES) === 0) return
  s.used_us = 0
  allow(INHIBIT_CYCLES)
}

function charge_loop(us: number): void {
  s.used_us += us
  const limit = config('cycle_limit')
  if (limit > 0 && s.used_us > limit * PERIOD_MS * 10) inhibit(INHIBIT_CYCLES)
}

// ---- the thread -----------------------------------------------------------------------------------------------------

/** One round over all devices, receive and transmit in turn. @returns whether anything was done */
function round(quota: number): boolean {
  let did = 0
  for (let k = 0; k < s.ndevices; k++) {
    const at = (s.devices >> 2) + k * 2
    const ops = call(i32[at] as Sym<poll_ops>)
    const dev = i32[at + 1]
    const start = now_ns()
    local_bh_disable()
    if (s.inhibited === 0) {
      tick(COST_LOOP)
      did += ops.receive(dev, quota)
    }
    tick(COST_LOOP)
    did += ops.transmit(dev, quota)
    local_bh_enable()
    charge_loop(Math.round((now_ns() - start) / 1000))
  }
  return did > 0
}

/** Nothing was found: interrupts on again. @returns false when something came meanwhile */
function enable_all(): boolean {
  const flags = local_irq_save()
  const input = s.inhibited === 0
  s.scheduled = 0
  for (let k = 0; k < s.ndevices; k++) {
    const at = (s.devices >> 2) + k * 2
    const ops = call(i32[at] as Sym<poll_ops>)
    if (ops.pending(i32[at + 1], input)) s.scheduled = 1
    else ops.enable(i32[at + 1], input)
  }
  const quiet = s.scheduled === 0
  local_irq_restore(flags)
  return quiet
}

/** kpoll - @context process, CPU 0 */
function* kpoll(): Generator<void, number, void> {
  const quota = config('poll_quota') === 0 ? NO_QUOTA : config('poll_quota')
  for (;;) {
    set_current_state(TASK_INTERRUPTIBLE)
    if (s.scheduled === 0) yield* rest()
    set_current_state(TASK_RUNNING)
    while (s.scheduled !== 0) {
      s.loops++
      if (!round(quota)) enable_all()
      yield* cond_resched()
    }
  }
}
const kpoll_sym = symbol('kpoll', kpoll)

/** kpoll_init - the thread runs before all user processes. @context boot, CPU 0 */
export function kpoll_init(): void {
  s.task = kernel_thread('kpoll', kpoll_sym, 0, { cpu: 0, rt: 50 })
  init_timer(s.timer, end_of_period_sym, 0)
  if (config('cycle_limit') === 0) return
  mod_timer(s.timer, (jiffies() + period_ticks()) | 0)
  sched_hooks.idle = idle
}
