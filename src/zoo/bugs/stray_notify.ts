/** J4: whoever is woken takes it that the work is done, and does not look. */
import { type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', done: word(), result: word() }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  caller({ fixed, done, result }: Shared) {
    do Atomics.wait(done, 0, 0)
    while (fixed && Atomics.load(done, 0) === 0)
    if (Atomics.load(result, 0) !== 42) throw new Error('there is no result yet')
  },
  worker({ done, result }: Shared) {
    Atomics.store(result, 0, 42)
    Atomics.store(done, 0, 1)
    Atomics.notify(done, 0)
  },
  /** Of an earlier user of the word. */
  stray({ done }: Shared) {
    Atomics.notify(done, 0)
  },
}
