/** #66: a timer re-arms itself at an interval of 0, and its CPU never leaves the soft interrupt. */
import { type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', jiffies: word(1), expires: word(1), sent: word() }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  /** run_timer_softirq, and the handler of a multicast query. */
  softirq({ fixed, jiffies, expires, sent }: Shared) {
    while (Atomics.load(expires, 0) <= Atomics.load(jiffies, 0)) {
      const interval = fixed ? 1 : 0
      Atomics.store(sent, 0, 1)
      Atomics.store(expires, 0, Atomics.load(jiffies, 0) + interval)
    }
  },
  tick({ jiffies }: Shared) {
    Atomics.add(jiffies, 0, 1)
  },
}
