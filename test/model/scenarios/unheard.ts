/** A reader looks before it says that it waits; the writer wakes only who says so. */
export function setup() {
  const memory = new SharedArrayBuffer(16)
  return {
    waiting: new Int32Array(memory, 0, 1),
    data: new Int32Array(memory, 4, 1),
    woken: new Int32Array(memory, 8, 1),
  }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  reader({ waiting, data, woken }: Shared) {
    if (Atomics.load(data, 0) !== 0) return
    Atomics.store(waiting, 0, 1)
    Atomics.wait(woken, 0, 0)
  },
  writer({ waiting, data, woken }: Shared) {
    Atomics.store(data, 0, 1)
    if (Atomics.load(waiting, 0) === 0) return
    Atomics.store(woken, 0, 1)
    Atomics.notify(woken, 0)
  },
}
