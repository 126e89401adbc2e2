/** spin.ts - a compute-bound process: what is left of a CPU for programs is what this one gets. */

import { type Layout, layout, own, Struct, word } from '../abi/layout.js'
import { DEFINE_PER_CPU } from '../abi/section.js'
import { symbol } from '../abi/symbol.js'
import { cost, cost_cycles, VIRTUAL } from '../arch/cost.js'
import { busy, tick } from '../arch/cpu.js'
import { need_resched, rest } from '../sched/sched.js'

const COST_ROUND = cost('user_spin')

class spin_state extends Struct {
  declare rounds: number
  declare x: number
}
const SPIN: Layout<spin_state> = layout('spin_state', spin_state, { rounds: own(word), x: own(word) })
export const spins = DEFINE_PER_CPU('spin', SPIN)
const mine = spins.mine

/** Rounds between two looks at need_resched. */
const ROUNDS = 64
const BUSY_ROUNDS = 64_000

/** A round of xorshift32: some 100 instructions that nothing can take away. */
function compute(): void {
  let x = mine.x === 0 ? 2463534242 | 0 : mine.x
  for (let k = 0; k < 16; k++) {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
  }
  mine.x = x
  mine.rounds++
}

/** spin - never ends. @context process */
export function* spin(): Generator<void, number, void> {
  for (;;) {
    while (need_resched()) yield* rest()
    if (VIRTUAL) {
      compute()
      busy(COST_ROUND, BUSY_ROUNDS * cost_cycles(COST_ROUND)) // an interrupt ends it, as may be what it woke
      continue
    }
    for (let k = 0; k < ROUNDS; k++) {
      compute()
      tick(COST_ROUND)
    }
  }
}
export const spin_sym = symbol('spin', spin)
