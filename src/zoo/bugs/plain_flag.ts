/** J5: a flag is stored by Atomics and read without. */
import { type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', stop: word(), work: word() }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  worker({ fixed, stop, work }: Shared) {
    for (let n = 0; n < 3; n++) {
      if ((fixed ? Atomics.load(stop, 0) : stop[0]) !== 0) return
      Atomics.add(work, 0, 1)
    }
  },
  main({ stop }: Shared) {
    Atomics.store(stop, 0, 1)
  },
}
