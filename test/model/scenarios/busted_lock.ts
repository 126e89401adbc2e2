/** A lock that looks, and then takes: two can look before either takes. */
export function setup() {
  const memory = new SharedArrayBuffer(16)
  return {
    lock: new Int32Array(memory, 0, 1),
    inside: new Int32Array(memory, 4, 1),
    most: new Int32Array(memory, 8, 1),
  }
}
type Shared = ReturnType<typeof setup>

function lock(word: Int32Array): void {
  while (Atomics.load(word, 0) !== 0);
  Atomics.store(word, 0, 1)
}
const unlock = (word: Int32Array): void => void Atomics.store(word, 0, 0)

function worker({ lock: word, inside, most }: Shared): void {
  lock(word)
  const n = Atomics.add(inside, 0, 1) + 1
  if (n > Atomics.load(most, 0)) Atomics.store(most, 0, n)
  Atomics.sub(inside, 0, 1)
  unlock(word)
}

export const actors = { A: worker, B: worker, C: worker }

export function invariant({ most }: Shared): void {
  if (most[0]! > 1) throw new Error(`${most[0]} actors were inside at once`)
}
