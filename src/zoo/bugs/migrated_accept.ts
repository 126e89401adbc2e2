/** #18: a listener closes and leaves its pending connection to another one, whose sleeper is not told. */
import { type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', closing: word(1), other: word(), accepted: word() }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  accept(s: Shared) {
    while (Atomics.load(s.other, 0) === 0) Atomics.wait(s.other, 0, 0)
    Atomics.sub(s.other, 0, 1)
    Atomics.store(s.accepted, 0, 1)
  },
  close(s: Shared) {
    const pending = Atomics.exchange(s.closing, 0, 0)
    Atomics.add(s.other, 0, pending)
    if (s.fixed) Atomics.notify(s.other, 0)
  },
}
