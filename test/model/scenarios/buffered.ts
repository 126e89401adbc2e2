/** A little program of plain and atomic operations that is given; what each read is its outcome. */
export type Op = { op: 'read' | 'write' | 'load' | 'store' | 'add'; word: number; value: number }
export interface Program {
  words: number
  actors: Op[][]
}

let program: Program = { words: 1, actors: [] }
const MOST = 8

export function setup(args: Program) {
  program = args
  return {
    words: new Int32Array(new SharedArrayBuffer(args.words * 4)),
    seen: new Int32Array(new SharedArrayBuffer(args.actors.length * MOST * 4)),
    program: args,
  }
}
type Shared = ReturnType<typeof setup>

function apply(op: Op, words: Int32Array): number {
  switch (op.op) {
    case 'read':
      return words[op.word]!
    case 'write':
      words[op.word] = op.value
      return 0
    case 'load':
      return Atomics.load(words, op.word)
    case 'store':
      Atomics.store(words, op.word, op.value)
      return 0
    case 'add':
      return Atomics.add(words, op.word, op.value)
  }
}

function run({ words, seen, program: { actors: all } }: Shared, me: { index: number }): void {
  for (const [k, op] of (all[me.index] ?? []).entries()) Reflect.set(seen, me.index * MOST + k, apply(op, words)) // unseen, so that it is no step
}

export const actors = { A: run, B: run, C: run }

export function outcome({ words, seen }: Shared): string {
  return `${Array.from(words).join()}:${Array.from(seen).join()}:${program.actors.length}`
}
