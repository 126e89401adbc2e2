/** #48: an error path keeps its reference to the device, whose unregistration waits for ever. */
import { type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', refcnt: word(1), mtu: word(100) }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  send({ fixed, refcnt, mtu }: Shared) {
    Atomics.add(refcnt, 0, 1)
    if (Atomics.load(mtu, 0) < 1500) {
      if (fixed) Atomics.sub(refcnt, 0, 1)
      return
    }
    Atomics.sub(refcnt, 0, 1)
  },
  unregister({ refcnt }: Shared) {
    Atomics.sub(refcnt, 0, 1)
    while (Atomics.load(refcnt, 0) !== 0);
  },
}
