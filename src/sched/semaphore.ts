/** semaphore.ts - counting semaphores that sleep. `count` is guarded by the wait queue's lock. */
import { by, embed, konst, type Layout, layout, Struct, word } from '../abi/layout.js'
import { LOCKDEP } from '../arch/boot.js'
import { TAKEN_WRITE } from '../lib/lockgraph.js'
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

export class semaphore extends Struct {
  declare count: number
  declare wait: wait_queue_head_t
  declare mutex: number
}
export const SEMAPHORE: Layout<semaphore> = layout('semaphore', semaphore, {
  count: by('wait.lock', word),
  wait: embed(WAIT_QUEUE_HEAD),
  mutex: konst(word), // who took it gives it back: lockdep watches its order
})

export function sema_init(sem: semaphore, count: number): void {
  sem.count = count
  sem.mutex = 0
  init_waitqueue_head(sem.wait)
}

/** init_MUTEX - a semaphore of one, which who took it gives back. */
export function init_MUTEX(sem: semaphore): void {
  sema_init(sem, 1)
  sem.mutex = 1
  if (LOCKDEP) lockdep_init(sem.addr)
}

/** down - take one, sleeping until there is one. @context process */
export function* down(sem: semaphore): Generator<void, void, void> {
  might_sleep()
  if (LOCKDEP && sem.mutex !== 0) lockdep_acquire(sem.addr, TAKEN_WRITE, false, true)
  const flags = spin_lock_irqsave(sem.wait.lock)
  if (sem.count <= 0) yield* wait_event_exclusive_locked_irq(sem.wait, () => sem.count > 0)
  sem.count--
  spin_unlock_irqrestore(sem.wait.lock, flags)
}

/** down_trylock - @context any @returns 0 when taken, as the original */
export function down_trylock(sem: semaphore): number {
  const flags = spin_lock_irqsave(sem.wait.lock)
  const taken = sem.count > 0
  if (taken) sem.count--
  if (LOCKDEP && taken && sem.mutex !== 0) lockdep_acquire(sem.addr, TAKEN_WRITE, true, true)
  spin_unlock_irqrestore(sem.wait.lock, flags)
  return taken ? 0 : 1
}

/** up - @context any */
export function up(sem: semaphore): void {
  if (LOCKDEP && sem.mutex !== 0) lockdep_release(sem.addr)
  const flags = spin_lock_irqsave(sem.wait.lock)
  sem.count++
  __wake_up_locked(sem.wait, 1)
  spin_unlock_irqrestore(sem.wait.lock, flags)
}
