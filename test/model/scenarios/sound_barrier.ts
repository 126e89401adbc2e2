/** The same barrier, with a sequence word that each arrival of the last one changes. */
export { setup } from './lost_wakeup.js'

import type { setup } from './lost_wakeup.js'

type Shared = ReturnType<typeof setup>

function barrier({ condition, arrived }: Shared): void {
  const sequence = Atomics.load(condition, 0)
  if (Atomics.add(arrived, 0, 1) + 1 === 2) {
    Atomics.add(condition, 0, 1)
    Atomics.notify(condition, 0)
  } else Atomics.wait(condition, 0, sequence)
}

export const actors = { A: barrier, B: barrier }
