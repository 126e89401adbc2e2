/** bh.ts - bottom halves off and on, and the spinlock calls that keep softirqs out. @context not hardirq */

import { LOCKDEP } from '../arch/boot.js'
import { BUG_ON, enter_softirq, irqs_disabled, local_softirq_pending } from '../arch/cpu.js'
import { lockdep_softirqs_on } from './lockdep.js'
import {
  add_preempt_count,
  HARDIRQ_MASK,
  in_interrupt,
  preempt_count,
  SOFTIRQ_MASK,
  SOFTIRQ_OFFSET,
} from './preempt.js'
import { spin_lock, spin_trylock, spin_unlock, type spinlock_t } from './spinlock.js'

/** local_bh_disable - no softirq runs on this CPU until local_bh_enable. */
export function local_bh_disable(): void {
  add_preempt_count(SOFTIRQ_OFFSET)
}

/** __local_bh_enable - without running what is pending: for softirq code itself. */
export function __local_bh_enable(): void {
  add_preempt_count(-SOFTIRQ_OFFSET)
}

/** local_bh_enable - runs pending softirqs at once when this was the outermost. Interrupts must be on. */
export function local_bh_enable(): void {
  BUG_ON(irqs_disabled(), 'local_bh_enable with interrupts off')
  if (LOCKDEP && (preempt_count() & (SOFTIRQ_MASK | HARDIRQ_MASK)) === SOFTIRQ_OFFSET) lockdep_softirqs_on()
  add_preempt_count(-(SOFTIRQ_OFFSET - 1)) // stay not preemptible while softirqs run
  if (local_softirq_pending() !== 0 && !in_interrupt()) enter_softirq()
  add_preempt_count(-1)
}

/** spin_lock_bh - for locks shared between processes and softirqs. @locks takes lock */
export function spin_lock_bh(lock: spinlock_t): void {
  add_preempt_count(SOFTIRQ_OFFSET)
  spin_lock(lock)
}
export function spin_unlock_bh(lock: spinlock_t): void {
  spin_unlock(lock)
  local_bh_enable()
}
export function spin_trylock_bh(lock: spinlock_t): boolean {
  add_preempt_count(SOFTIRQ_OFFSET)
  if (spin_trylock(lock)) return true
  local_bh_enable()
  return false
}
