/** Two locks, taken in both orders. */
export function setup() {
  const memory = new SharedArrayBuffer(16)
  return { a: new Int32Array(memory, 0, 1), b: new Int32Array(memory, 4, 1) }
}
type Shared = ReturnType<typeof setup>

function lock(word: Int32Array): void {
  while (Atomics.exchange(word, 0, 1) !== 0);
}
const unlock = (word: Int32Array): void => void Atomics.store(word, 0, 0)

function both(first: Int32Array, second: Int32Array): void {
  lock(first)
  lock(second)
  unlock(second)
  unlock(first)
}

export const actors = { A: ({ a, b }: Shared) => both(a, b), B: ({ a, b }: Shared) => both(b, a) }
