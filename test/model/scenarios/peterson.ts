/** Peterson's lock with plain flags, or with atomic ones: right where stores are seen in order by all, wrong behind a buffer. */
const [TURN, COUNT] = [2, 3]

export function setup(args: { atomic: boolean }) {
  return { words: new Int32Array(new SharedArrayBuffer(16)), atomic: args.atomic }
}
type Shared = ReturnType<typeof setup>

function lock({ words, atomic }: Shared, me: number): void {
  if (atomic) {
    Atomics.store(words, me, 1)
    Atomics.store(words, TURN, 1 - me)
    while (Atomics.load(words, 1 - me) !== 0 && Atomics.load(words, TURN) !== me);
  } else {
    words[me] = 1
    words[TURN] = 1 - me
    while (words[1 - me] !== 0 && words[TURN] !== me);
  }
}

function worker(shared: Shared, me: { index: number }): void {
  const { words, atomic } = shared
  lock(shared, me.index)
  words[COUNT]!++
  if (atomic) Atomics.store(words, me.index, 0)
  else words[me.index] = 0
}

export const actors = { A: worker, B: worker }

export function invariant({ words }: Shared): void {
  if (words[COUNT] !== 2) throw new Error(`counted ${words[COUNT]} of 2`)
}
