/**
 * rwsem.ts - semaphores for readers and writers that sleep, as lib/rwsem-spinlock.c: first come first served, so a reader
 * does not slip in past a writer that waits. `activity` and `writers` are guarded by the wait queue's lock.
 */
import { by, embed, type Layout, layout, Struct, word } from '../abi/layout.js'
import { LOCKDEP } from '../arch/boot.js'
import { TAKEN_READ, TAKEN_WRITE } from '../lib/lockgraph.js'
import { lockdep_acquire, lockdep_init, lockdep_release } from '../sync/lockdep.js'
import { might_sleep } from '../sync/preempt.js'
import { spin_lock_irqsave, spin_unlock_irqrestore } from '../sync/spinlock.js'
import {
  __wake_up_locked,
  init_waitqueue_head,
  WAIT_QUEUE_HEAD,
  wait_event_exclusive_locked_irq,
  type wait_queue_head_t,
} from './wait.js'

export class rw_semaphore extends Struct {
  declare activity: number
  declare writers: number
  declare wait: wait_queue_head_t
}
export const RW_SEMAPHORE: Layout<rw_semaphore> = layout('rw_semaphore', rw_semaphore, {
  activity: by('wait.lock', word), // readers inside, or -1: a writer is
  writers: by('wait.lock', word), // writers that wait
  wait: embed(WAIT_QUEUE_HEAD),
})

const EVERYBODY = 0x7fffffff

export function init_rwsem(sem: rw_semaphore): void {
  sem.activity = 0
  sem.writers = 0
  init_waitqueue_head(sem.wait)
  if (LOCKDEP) lockdep_init(sem.addr)
}

/** down_read - @context process */
export function* down_read(sem: rw_semaphore): Generator<void, void, void> {
  might_sleep()
  if (LOCKDEP) lockdep_acquire(sem.addr, TAKEN_READ, false, true)
  const flags = spin_lock_irqsave(sem.wait.lock)
  yield* wait_event_exclusive_locked_irq(sem.wait, () => sem.activity >= 0 && sem.writers === 0)
  sem.activity++
  spin_unlock_irqrestore(sem.wait.lock, flags)
}

/** down_write - @context process */
export function* down_write(sem: rw_semaphore): Generator<void, void, void> {
  might_sleep()
  if (LOCKDEP) lockdep_acquire(sem.addr, TAKEN_WRITE, false, true)
  const flags = spin_lock_irqsave(sem.wait.lock)
  sem.writers++
  yield* wait_event_exclusive_locked_irq(sem.wait, () => sem.activity === 0)
  sem.writers--
  sem.activity = -1
  spin_unlock_irqrestore(sem.wait.lock, flags)
}

/** up_read - @context process */
export function up_read(sem: rw_semaphore): void {
  if (LOCKDEP) lockdep_release(sem.addr)
  const flags = spin_lock_irqsave(sem.wait.lock)
  sem.activity--
  if (sem.activity === 0) __wake_up_locked(sem.wait, EVERYBODY)
  spin_unlock_irqrestore(sem.wait.lock, flags)
}

/** up_write - @context process */
export function up_write(sem: rw_semaphore): void {
  if (LOCKDEP) lockdep_release(sem.addr)
  const flags = spin_lock_irqsave(sem.wait.lock)
  sem.activity = 0
  __wake_up_locked(sem.wait, EVERYBODY)
  spin_unlock_irqrestore(sem.wait.lock, flags)
}
