/** #67: a thread that polls never says that it is outside of all readers, and the grace period never ends. */
import { type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', quiescent: word(), stop: word() }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  /** napi_threaded_poll_loop */
  poll({ fixed, quiescent, stop }: Shared) {
    while (Atomics.load(stop, 0) === 0) if (fixed) Atomics.store(quiescent, 0, 1)
  },
  /** synchronize_net, and then the end of the thread. */
  unregister({ quiescent, stop }: Shared) {
    while (Atomics.load(quiescent, 0) === 0);
    Atomics.store(stop, 0, 1)
  },
}
