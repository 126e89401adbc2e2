/** One looks at several words, of which one was changed by the other, and the wrong way. */
export function setup() {
  const memory = new SharedArrayBuffer(16)
  return { flag: new Int32Array(memory, 0, 1), other: new Int32Array(memory, 4, 1), own: new Int32Array(memory, 8, 1) }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  A({ flag, other, own }: Shared) {
    while (Atomics.load(flag, 0) !== 1 || Atomics.load(other, 0) !== 0) {
      Atomics.load(other, 0)
      Atomics.store(own, 0, 1)
    }
  },
  B({ flag }: Shared) {
    Atomics.xor(flag, 0, 2)
  },
}
