/**
 * softirq.ts - bottom halves: six vectors per CPU, run when the last hardirq ends or bottom halves are enabled again.
 *
 * Lock charter
 *   The pending mask belongs to its CPU and is changed with interrupts off. softirq_vec is filled at boot.
 *   Handlers run with interrupts on and bottom halves off; the same vector may run on several CPUs at once.
 */

import { bytes, konst, type Layout, layout, own, ptr, Struct, word } from '../abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../abi/section.js'
import { call, type Sym, symbol } from '../abi/symbol.js'
import { PROVE } from '../arch/boot.js'
import { cost } from '../arch/cost.js'
import {
  charge_cost,
  enter_context,
  leave_context,
  local_irq_disable,
  local_irq_enable,
  local_irq_restore,
  local_irq_save,
  local_softirq_pending,
  SOFTIRQ,
  set_entry,
  set_softirq_pending,
} from '../arch/cpu.js'
import { RAM } from '../arch/ram.js'
import {
  __set_current_state,
  cond_resched,
  kernel_thread,
  rest,
  set_current_state,
  wake_up_process,
} from '../sched/sched.js'
import { TASK, TASK_INTERRUPTIBLE, TASK_RUNNING, type task_struct } from '../sched/task.js'
import { __local_bh_enable, local_bh_disable } from '../sync/bh.js'
import { in_interrupt } from '../sync/preempt.js'
import { balance, check_balance } from '../sync/watch.js'

const COST_SOFTIRQ = cost('__do_softirq')

const i32 = RAM.i32

export const HI_SOFTIRQ = 0
export const TIMER_SOFTIRQ = 1
export const NET_TX_SOFTIRQ = 2
export const NET_RX_SOFTIRQ = 3
export const SCSI_SOFTIRQ = 4
export const TASKLET_SOFTIRQ = 5
export const SOFTIRQ_NAMES = ['HI', 'TIMER', 'NET_TX', 'NET_RX', 'SCSI', 'TASKLET'] as const

/** Passes over the pending mask before ksoftirqd has to go on. */
export const MAX_SOFTIRQ_RESTART = 10

class softirq_vec extends Struct {
  declare action: number
}
const VEC: Layout<softirq_vec> = layout('softirq_vec', softirq_vec, { action: konst(bytes(32 * 4)) })
const ACTIONS = DEFINE_STATIC('softirq_vec', VEC).action >> 2

class softirq_stat extends Struct {
  declare ksoftirqd: task_struct | null
  declare runs: number
}
const STAT: Layout<softirq_stat> = layout('softirq_stat', softirq_stat, {
  ksoftirqd: konst(ptr(() => TASK)),
  runs: own(word),
})
const stats = DEFINE_PER_CPU('softirq_stat', STAT)
const mine = stats.mine

/** Floors above that look at softirqs: RCU's bh flavour counts the end of every handler as a quiescent state. */
export const softirq_hooks = {
  handler_done: (): void => {},
}

/** open_softirq - @context boot */
export function open_softirq(nr: number, action: Sym<() => void>): void {
  i32[ACTIONS + nr] = action
}

function wakeup_softirqd(): void {
  const task = mine.ksoftirqd
  if (task !== null && task.state !== TASK_RUNNING) wake_up_process(task)
}

/** __raise_softirq_irqoff - set the bit only; interrupts are off. */
export function __raise_softirq_irqoff(nr: number): void {
  set_softirq_pending(local_softirq_pending() | (1 << nr))
}

/** raise_softirq_irqoff - and wake ksoftirqd when no interrupt will end soon that would run it. Interrupts are off. */
export function raise_softirq_irqoff(nr: number): void {
  __raise_softirq_irqoff(nr)
  if (!in_interrupt()) wakeup_softirqd()
}

/** raise_softirq - @context any */
export function raise_softirq(nr: number): void {
  const flags = local_irq_save()
  raise_softirq_irqoff(nr)
  local_irq_restore(flags)
}

/** __do_softirq - run what is pending, at most 10 times over. Interrupts are off before and after. @context any */
export function __do_softirq(): void {
  let pending = local_softirq_pending()
  local_bh_disable()
  let restart = MAX_SOFTIRQ_RESTART
  const old = enter_context(SOFTIRQ, 31 - Math.clz32(pending & -pending))
  do {
    set_softirq_pending(0)
    local_irq_enable()
    mine.runs++
    charge_cost(COST_SOFTIRQ)
    while (pending !== 0) {
      const nr = 31 - Math.clz32(pending & -pending)
      const before = PROVE ? balance() : 0
      call(i32[ACTIONS + nr] as Sym<() => void>)()
      if (PROVE) check_balance(before, `softirq ${SOFTIRQ_NAMES[nr]}`)
      softirq_hooks.handler_done()
      pending &= pending - 1
    }
    local_irq_disable()
    pending = local_softirq_pending()
  } while (pending !== 0 && --restart > 0)
  if (pending !== 0) wakeup_softirqd()
  leave_context(old)
  __local_bh_enable()
}

/** do_softirq - @context process, end of interrupt */
export function do_softirq(): undefined {
  if (in_interrupt()) return
  const flags = local_irq_save()
  if (local_softirq_pending() !== 0) __do_softirq()
  local_irq_restore(flags)
}

/** ksoftirqd - goes on with softirqs that never end, at the lowest priority. @context process */
function* ksoftirqd(): Generator<void, number, void> {
  for (;;) {
    set_current_state(TASK_INTERRUPTIBLE)
    if (local_softirq_pending() === 0) yield* rest()
    __set_current_state(TASK_RUNNING)
    while (local_softirq_pending() !== 0) {
      do_softirq()
      yield* cond_resched()
    }
  }
}
const ksoftirqd_sym = symbol('ksoftirqd', ksoftirqd)

/** softirq_init - @context boot, CPU 0 for all CPUs */
export function softirq_init(ncpus: number): void {
  for (let cpu = 0; cpu < ncpus; cpu++) {
    stats.cpu(cpu).ksoftirqd = kernel_thread(`ksoftirqd/${cpu}`, ksoftirqd_sym, cpu, { cpu, nice: 19 })
  }
}

set_entry({ do_softirq })
