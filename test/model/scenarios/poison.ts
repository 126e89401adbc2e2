/** One fills what another one reads. */
export function setup() {
  const object = new Int32Array(new SharedArrayBuffer(16))
  object[2] = 42
  return { object }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  frees({ object }: Shared) {
    object.fill(107, 1)
  },
  reads({ object }: Shared) {
    if (object[2] === 107) Atomics.add(object, 0, 1)
  },
}
