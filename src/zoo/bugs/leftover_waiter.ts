/** J3: a waitAsync that nobody wants any more takes the one wake-up from who came after it. */
import { type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', state: word() }
}
type Shared = ReturnType<typeof setup>
type WaitAsync = (view: Int32Array, index: number, value: number) => unknown

export const actors = {
  /** Gives up at once: a promise of waitAsync cannot be cancelled. */
  async gives_up({ fixed, state }: Shared) {
    const { waitAsync } = Atomics as unknown as { waitAsync: WaitAsync }
    waitAsync(state, 0, 0)
    // Fixed: who lets go of the word sends its waiters away.
    if (fixed) Atomics.notify(state, 0)
  },
  waits({ state }: Shared) {
    while (Atomics.load(state, 0) === 0) Atomics.wait(state, 0, 0)
  },
  wakes({ state }: Shared) {
    Atomics.store(state, 0, 1)
    Atomics.notify(state, 0, 1)
  },
}
