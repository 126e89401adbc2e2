/** #69: a ticket lock whose tickets are narrower than there are waiters: two hold the same number. */
import { type Twin, word } from '../kit/words.js'

/** In the wild 8 bits and more than 256 CPUs; here 1 bit and three. */
const NARROW = 0x1
const WIDE = 0xff

export function setup(twin: Twin) {
  return { mask: twin === 'fixed' ? WIDE : NARROW, next: word(), serving: word(), inside: word() }
}
type Shared = ReturnType<typeof setup>

function cpu({ mask, next, serving, inside }: Shared): void {
  const ticket = Atomics.add(next, 0, 1) & mask
  while ((Atomics.load(serving, 0) & mask) !== ticket);
  if (Atomics.exchange(inside, 0, 1) !== 0) throw new Error('two hold the lock')
  Atomics.store(inside, 0, 0)
  Atomics.add(serving, 0, 1)
}

export const actors = { A: cpu, B: cpu, C: cpu }
