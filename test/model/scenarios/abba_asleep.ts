/** Two locks, taken in both orders by actors that sleep while they wait. */
export function setup() {
  const memory = new SharedArrayBuffer(16)
  return { a: new Int32Array(memory, 0, 1), b: new Int32Array(memory, 4, 1) }
}
type Shared = ReturnType<typeof setup>

function lock(word: Int32Array): void {
  while (Atomics.compareExchange(word, 0, 0, 1) !== 0) Atomics.wait(word, 0, 1)
}
function unlock(word: Int32Array): void {
  Atomics.store(word, 0, 0)
  Atomics.notify(word, 0, 1)
}

function both(first: Int32Array, second: Int32Array): void {
  lock(first)
  lock(second)
  unlock(second)
  unlock(first)
}

export const actors = { A: ({ a, b }: Shared) => both(a, b), B: ({ a, b }: Shared) => both(b, a) }
