/** J8: the main thread waits for a worker that needs something of the main thread first. */
import { type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', bell: word(), request: word(), reply: word(), done: word() }
}
type Shared = ReturnType<typeof setup>

function ring({ bell }: Shared): void {
  Atomics.add(bell, 0, 1)
  Atomics.notify(bell, 0)
}

export const actors = {
  main(s: Shared) {
    for (;;) {
      const rung = Atomics.load(s.bell, 0)
      if (Atomics.load(s.done, 0) !== 0) return
      // Fixed: it serves the worker while it waits.
      if (s.fixed && Atomics.exchange(s.request, 0, 0) !== 0) {
        Atomics.store(s.reply, 0, 1)
        Atomics.notify(s.reply, 0)
      }
      Atomics.wait(s.bell, 0, rung)
    }
  },
  worker(s: Shared) {
    Atomics.store(s.request, 0, 1)
    ring(s)
    while (Atomics.load(s.reply, 0) === 0) Atomics.wait(s.reply, 0, 0)
    Atomics.store(s.done, 0, 1)
    ring(s)
  },
}
