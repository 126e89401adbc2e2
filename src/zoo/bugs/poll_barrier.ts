/** #14: poll looks for data before it is on the wait queue; the sender looks at the queue before that. */
import { type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', queued: word(), data: word(), woken: word() }
}
type Shared = ReturnType<typeof setup>

const has_data = ({ data }: Shared): boolean => Atomics.load(data, 0) !== 0

export const actors = {
  poll(s: Shared) {
    if (!s.fixed && has_data(s)) return
    Atomics.store(s.queued, 0, 1)
    // Fixed: the look comes after it is on the queue. On a processor that takes a full barrier between the two.
    if (s.fixed && has_data(s)) return
    Atomics.wait(s.woken, 0, 0)
  },
  receive(s: Shared) {
    Atomics.store(s.data, 0, 1)
    if (Atomics.load(s.queued, 0) === 0) return
    Atomics.store(s.woken, 0, 1)
    Atomics.notify(s.woken, 0)
  },
}
