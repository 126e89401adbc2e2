/** #21: a condition variable that sleeps on a word which never changes: a signal between unlock and sleep is lost. */
import { mutex_lock, mutex_unlock, type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', lock: word(), condition: word(), ready: word() }
}
type Shared = ReturnType<typeof setup>

function cond_wait({ lock, condition }: Shared): void {
  const sequence = Atomics.load(condition, 0)
  mutex_unlock(lock)
  Atomics.wait(condition, 0, sequence)
  mutex_lock(lock)
}
function cond_signal({ fixed, condition }: Shared): void {
  if (fixed) Atomics.add(condition, 0, 1)
  Atomics.notify(condition, 0, 1)
}

export const actors = {
  consumer(s: Shared) {
    mutex_lock(s.lock)
    while (Atomics.load(s.ready, 0) === 0) cond_wait(s)
    mutex_unlock(s.lock)
  },
  producer(s: Shared) {
    mutex_lock(s.lock)
    Atomics.store(s.ready, 0, 1)
    cond_signal(s)
    mutex_unlock(s.lock)
  },
}
