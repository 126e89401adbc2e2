/** Two that each raise their flag, look at the other one's, and take theirs down again when it is up. */
export interface Args {
  /** Who gives way: both, or A alone. */
  tie: 'none' | 'breaker'
  rounds: number
  /** Plain accesses in each try. */
  noise?: number
}

export function setup(args: Args) {
  const memory = new SharedArrayBuffer(16)
  return {
    flag: new Int32Array(memory, 0, 2),
    tries: new Int32Array(memory, 8, 1),
    noise: new Int32Array(new SharedArrayBuffer(8)),
    accesses: args.noise ?? 0,
    count: new Int32Array(memory, 12, 1),
    tie: args.tie,
    rounds: args.rounds,
  }
}
type Shared = ReturnType<typeof setup>

function worker({ flag, tries, noise, accesses, count, tie, rounds }: Shared, me: { index: number }): void {
  for (let k = 0; k < rounds; k++) {
    for (;;) {
      for (let n = 0; n < accesses; n++) noise[me.index]!++
      Atomics.store(flag, me.index, 1)
      if (Atomics.load(flag, 1 - me.index) === 0) break
      Atomics.add(tries, 0, 1)
      if (tie === 'breaker' && me.index === 1) {
        while (Atomics.load(flag, 0) !== 0);
        break
      }
      Atomics.store(flag, me.index, 0)
      if (tie === 'breaker') while (Atomics.load(flag, 1) !== 0);
    }
    count[0] = count[0]! + 1
    Atomics.store(flag, me.index, 0)
  }
}

export const actors = { A: worker, B: worker }

export function invariant({ count, rounds }: Shared): void {
  if (count[0] !== 2 * rounds) throw new Error(`counted ${count[0]} of ${2 * rounds}`)
}
