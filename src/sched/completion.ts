/** completion.ts - wait until somebody says it is done. `done` is guarded by the wait queue's lock. */
import { by, embed, type Layout, layout, Struct, word } from '../abi/layout.js'
import { spin_lock_irqsave, spin_unlock_irqrestore } from '../sync/spinlock.js'
import { sched_hooks } from './sched.js'
import {
  init_waitqueue_head,
  WAIT_QUEUE_HEAD,
  WQ_FLAG_EXCLUSIVE,
  wait_event,
  type wait_queue_head_t,
  wake_up,
  wake_up_all,
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

/** complete - let one waiter go on. @context any */
export function complete(x: completion): void {
  const flags = spin_lock_irqsave(x.wait.lock)
  x.done++
  spin_unlock_irqrestore(x.wait.lock, flags)
  wake_up(x.wait)
}

/** complete_all - let every waiter go on, now and later. @context any */
export function complete_all(x: completion): void {
  const flags = spin_lock_irqsave(x.wait.lock)
  x.done += 0x3fffffff
  spin_unlock_irqrestore(x.wait.lock, flags)
  wake_up_all(x.wait)
}

/** wait_for_completion - @context process */
export function* wait_for_completion(x: completion): Generator<void, void, void> {
  yield* wait_event(x.wait, () => take(x), WQ_FLAG_EXCLUSIVE)
}

function take(x: completion): boolean {
  const flags = spin_lock_irqsave(x.wait.lock)
  const done = x.done > 0
  if (done) x.done--
  spin_unlock_irqrestore(x.wait.lock, flags)
  return done
}

sched_hooks.exited = addr => complete(COMPLETION.ref(addr))
