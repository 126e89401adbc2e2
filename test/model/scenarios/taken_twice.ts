/** One takes a lock that it has. */
export function setup() {
  return { word: new Int32Array(new SharedArrayBuffer(4)) }
}
type Shared = ReturnType<typeof setup>

function lock({ word }: Shared): void {
  while (Atomics.compareExchange(word, 0, 0, 1) !== 0) Atomics.wait(word, 0, 1)
}

export const actors = {
  A(s: Shared) {
    lock(s)
    lock(s)
  },
  B() {},
}
