/** One throws, out of something that it calls. */
export const setup = () => ({ word: new Int32Array(new SharedArrayBuffer(4)) })
type Shared = ReturnType<typeof setup>

function find(): never {
  throw new Error('no such packet')
}

export const actors = {
  A({ word }: Shared) {
    Atomics.add(word, 0, 1)
    find()
  },
}
