/** A loop with a deadline, and a sleep that times out: both come to an end by themselves. */
export function setup() {
  return { words: new Int32Array(new SharedArrayBuffer(16)) }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  spins({ words }: Shared) {
    const until = Date.now() + 5000
    while (Atomics.load(words, 0) === 0) if (Date.now() > until) return
  },
  sleeps({ words }: Shared) {
    if (Atomics.wait(words, 1, 0, 50) !== 'timed-out') throw new Error('nobody could wake it')
    Atomics.store(words, 2, 1)
  },
}

export function invariant({ words }: Shared): void {
  if (words[2] !== 1) throw new Error('the sleeper did not go on')
}
