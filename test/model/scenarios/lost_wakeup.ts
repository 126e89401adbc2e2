/** A barrier on a condition variable whose wait unlocks, and then sleeps on a word that nobody ever changes. */
export function setup() {
  const memory = new SharedArrayBuffer(16)
  return {
    lock: new Int32Array(memory, 0, 1),
    condition: new Int32Array(memory, 4, 1),
    arrived: new Int32Array(memory, 8, 1),
  }
}
type Shared = ReturnType<typeof setup>

function lock(word: Int32Array): void {
  while (Atomics.compareExchange(word, 0, 0, 1) !== 0) Atomics.wait(word, 0, 1)
}
function unlock(word: Int32Array): void {
  Atomics.store(word, 0, 0)
  Atomics.notify(word, 0, 1)
}

function barrier(s: Shared): void {
  lock(s.lock)
  if (Atomics.add(s.arrived, 0, 1) + 1 === 2) Atomics.notify(s.condition, 0)
  else {
    unlock(s.lock)
    Atomics.wait(s.condition, 0, 0)
    lock(s.lock)
  }
  unlock(s.lock)
}

export const actors = { A: barrier, B: barrier }
