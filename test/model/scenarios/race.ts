/** A flag that is set by a plain write and polled atomically, and data that it is to publish. */
export function setup() {
  const memory = new SharedArrayBuffer(16)
  return { data: new Int32Array(memory, 0, 1), flag: new Int32Array(memory, 4, 1) }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  writer({ data, flag }: Shared) {
    data[0] = 42
    flag[0] = 1
  },
  reader({ data, flag }: Shared) {
    while (Atomics.load(flag, 0) === 0);
    if (data[0] !== 42) throw new Error('the data was not there')
  },
}
