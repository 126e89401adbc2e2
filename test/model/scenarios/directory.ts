/** Code that asks for its working directory: Node looks at a word of its own for that, by Atomics. */
export const setup = () => ({ word: new Int32Array(new SharedArrayBuffer(4)) })
type Shared = ReturnType<typeof setup>

function act({ word }: Shared): void {
  process.cwd()
  Atomics.add(word, 0, 1)
}

export const actors = { A: act, B: act }
