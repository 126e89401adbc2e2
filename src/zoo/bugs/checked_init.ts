/** #64: who finds the pointer set takes what it points to as ready; it was set before that was. */
import { mutex_lock, mutex_unlock, type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', lock: word(), pointer: word(), size: word() }
}
type Shared = ReturnType<typeof setup>

function init({ fixed, pointer, size }: Shared): void {
  if (!fixed) Atomics.store(pointer, 0, 1)
  size[0] = 64
  if (fixed) Atomics.store(pointer, 0, 1)
}

function get(s: Shared): void {
  if (Atomics.load(s.pointer, 0) === 0) {
    mutex_lock(s.lock)
    if (Atomics.load(s.pointer, 0) === 0) init(s)
    mutex_unlock(s.lock)
  }
  if (s.size[0] !== 64) throw new Error('the table has no size yet')
}

export const actors = { A: get, B: get }
