/** Scenarios that cannot be explored, one for each `args`. */
export function setup(args: string): unknown {
  if (args === 'setup throws') throw new Error('no memory today')
  if (args === 'not cloneable') return { f: () => 0 }
  return { how: args, words: new Int32Array(new SharedArrayBuffer(8)) }
}
type Shared = { how: string; words: Int32Array }

let calls = 0

function act({ how, words }: Shared): void {
  Atomics.add(words, 0, 1)
  if (how === 'keeps state') Atomics.store(words, 1, ++calls)
  if (how === 'keeps state later' && ++calls > 100) Atomics.store(words, 1, calls)
  if (how === 'never comes back') for (;;);
  if (how === 'ends the process') process.exit(3)
}

export const actors = { A: act, B: act }
