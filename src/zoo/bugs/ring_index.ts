/** J6: a ring for one writer and one reader tells of an element before it is there. */
import { type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', head: word(), slots: new Int32Array(new SharedArrayBuffer(16)) }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  push({ fixed, head, slots }: Shared) {
    const at = Atomics.load(head, 0)
    if (!fixed) Atomics.store(head, 0, at + 1)
    slots[at] = 7
    if (fixed) Atomics.store(head, 0, at + 1)
  },
  pop({ head, slots }: Shared) {
    if (Atomics.load(head, 0) === 0) return
    if (slots[0] !== 7) throw new Error('popped before it was pushed')
  },
}
