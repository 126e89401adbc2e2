/** Time and chance: each run of one schedule sees the same. */
export function setup() {
  return { words: new Int32Array(new SharedArrayBuffer(64)), ticks: Math.random() }
}
type Shared = ReturnType<typeof setup>

function act({ words }: Shared, me: { index: number }): void {
  const at = me.index * 4
  Atomics.store(words, at, Math.floor(Math.random() * 1e9))
  Atomics.store(words, at + 1, Date.now() % 1e9)
  Atomics.store(words, at + 2, new Date().getFullYear())
  Atomics.store(words, at + 3, Math.floor(performance.now() * 1000) + crypto.getRandomValues(new Uint32Array(1))[0]!)
}

export const actors = { A: act, B: act }

export function outcome({ words }: Shared): string {
  return Array.from(words).join()
}
