/** A little program that is given: each actor a list of operations on some words. What each read is its outcome. */
export type Op = { op: 'load' | 'store' | 'add' | 'cas'; word: number; value: number; expected?: number }
export interface Program {
  words: number
  actors: Op[][]
}

let program: Program = { words: 1, actors: [] }

export function setup(args: Program) {
  program = args
  const length = args.words + args.actors.length * 8
  return { words: new Int32Array(new SharedArrayBuffer(length * 4)), program: args }
}
type Shared = ReturnType<typeof setup>

/** What one operation reads, done on an array. */
export function apply(op: Op, words: { [k: number]: number }, atomic: boolean): number {
  const view = words as unknown as Int32Array
  switch (op.op) {
    case 'load':
      return atomic ? Atomics.load(view, op.word) : words[op.word]!
    case 'store':
      if (atomic) Atomics.store(view, op.word, op.value)
      else words[op.word] = op.value
      return 0
    case 'add': {
      if (atomic) return Atomics.add(view, op.word, op.value)
      const was = words[op.word]!
      words[op.word] = was + op.value
      return was
    }
    case 'cas': {
      if (atomic) return Atomics.compareExchange(view, op.word, op.expected!, op.value)
      const was = words[op.word]!
      if (was === op.expected) words[op.word] = op.value
      return was
    }
  }
}

function run({ words, program: { actors: all, words: n } }: Shared, me: { index: number }): void {
  const ops = all[me.index] ?? []
  for (const [k, op] of ops.entries()) words[n + me.index * 8 + k] = apply(op, words as never, true)
}

export const actors = { A: run, B: run, C: run }

export function outcome({ words }: Shared): string {
  return `${program.words}:${Array.from(words).join()}`
}
