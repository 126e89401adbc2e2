/** A lock that takes by compareExchange, and sleeps when it is held (Drepper 2005, the third mutex). */
export function setup() {
  const memory = new SharedArrayBuffer(16)
  return { lock: new Int32Array(memory, 0, 1), count: new Int32Array(memory, 4, 1) }
}
type Shared = ReturnType<typeof setup>

function lock(word: Int32Array): void {
  let was = Atomics.compareExchange(word, 0, 0, 1)
  if (was === 0) return
  do {
    if (was === 2 || Atomics.compareExchange(word, 0, 1, 2) !== 0) Atomics.wait(word, 0, 2)
    was = Atomics.compareExchange(word, 0, 0, 2)
  } while (was !== 0)
}
function unlock(word: Int32Array): void {
  if (Atomics.sub(word, 0, 1) === 1) return
  Atomics.store(word, 0, 0)
  Atomics.notify(word, 0, 1)
}

function worker({ lock: word, count }: Shared): void {
  lock(word)
  count[0] = count[0]! + 1
  unlock(word)
}

export const actors = { A: worker, B: worker, C: worker }

export function invariant({ count }: Shared): void {
  if (count[0] !== 3) throw new Error(`counted ${count[0]} of 3`)
}
