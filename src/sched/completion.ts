/** completion.ts - wait until somebody says it is done. `done` is guarded by the wait queue's lock. */
import { by, embed, type Layout, layout, Struct, word } from '../abi/layout.js'
import { might_sleep } from '../sync/preempt.js'
import { spin_lock_irqsave, spin_unlock_irqrestore } from '../sync/spinlock.js'
import { sched_hooks } from './sched.js'
import {
  __wake_up_locked,
  init_waitqueue_head,
  WAIT_QUEUE_HEAD,
  wait_event_exclusive_locked_irq,
  type wait_queue_head_t,
} from './wait.js'

export class completion extends Struct {
  declare done: number
  declare wait: wait_queue_head_t
}
export const COMPLETION: Layout<completion> = layout('completion', completion, {
  done: by('wait.lock', word),
  wait: embed(WAIT_QUEUE_HEAD),
})

export function init_completion(x: completion): void {
  x.done = 0
  init_waitqueue_head(x.wait)
}

/** complete - let one waiter go on, which may give the completion's memory back at once. @context any */
export function complete(x: completion): void {
  const flags = spin_lock_irqsave(x.wait.lock)
  x.done++
  __wake_up_locked(x.wait, 1)
  spin_unlock_irqrestore(x.wait.lock, flags)
}

/** complete_all - let every waiter go on, now and later. @context any */
export function complete_all(x: completion): void {
  const flags = spin_lock_irqsave(x.wait.lock)
  x.done += 0x3fffffff
  __wake_up_locked(x.wait, 0x7fffffff)
  spin_unlock_irqrestore(x.wait.lock, flags)
}

/** wait_for_completion - @context process */
export function* wait_for_completion(x: completion): Generator<void, void, void> {
  might_sleep()
  const flags = spin_lock_irqsave(x.wait.lock)
  if (x.done === 0) yield* wait_event_exclusive_locked_irq(x.wait, () => x.done > 0)
  x.done--
  spin_unlock_irqrestore(x.wait.lock, flags)
}

sched_hooks.exited = addr => complete(COMPLETION.ref(addr))
