/**
 * signal.ts - signals as far as they wake: a word of pending ones in each task, bit 0 for signal 1. Handlers, masks and
 * default actions come with the system calls; until then a program asks by signal_pending and dequeue_signal.
 */
import { fetch_and, fetch_or } from '../arch/atomic.js'
import { RAM } from '../arch/ram.js'
import { current, wake_up_state } from './sched.js'
import { TASK, TASK_INTERRUPTIBLE, type task_struct } from './task.js'

const i32 = RAM.i32
const PENDING = TASK.offset('pending')

export const SIGALRM = 14
export const SIGVTALRM = 26
export const SIGPROF = 27

/** send_sig - it is pending, once however often it is sent; a task that sleeps interruptibly goes on. @context any */
export function send_sig(sig: number, p: task_struct): void {
  fetch_or(p.addr + PENDING, 1 << (sig - 1))
  wake_up_state(p, TASK_INTERRUPTIBLE)
}

/** signal_pending - should an interruptible sleep end? */
export function signal_pending(p: task_struct): boolean {
  return i32[(p.addr + PENDING) >> 2] !== 0
}

/** dequeue_signal - the lowest signal that is pending for this task, which is then no longer; 0: none. @context process */
export function dequeue_signal(): number {
  const p = current()
  const pending = i32[(p.addr + PENDING) >> 2]
  if (pending === 0) return 0
  const lowest = pending & -pending
  fetch_and(p.addr + PENDING, ~lowest)
  return 32 - Math.clz32(lowest)
}
