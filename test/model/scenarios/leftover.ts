/** A waitAsync that nobody wants any more takes the one wake-up from who came after it. */
export function setup() {
  return { state: new Int32Array(new SharedArrayBuffer(4)) }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  async leaves({ state }: Shared) {
    const { waitAsync } = Atomics as unknown as {
      waitAsync: (view: Int32Array, index: number, value: number) => unknown
    }
    waitAsync(state, 0, 0)
  },
  waits({ state }: Shared) {
    while (Atomics.load(state, 0) === 0) Atomics.wait(state, 0, 0)
  },
  wakes({ state }: Shared) {
    Atomics.store(state, 0, 1)
    Atomics.notify(state, 0, 1)
  },
}
