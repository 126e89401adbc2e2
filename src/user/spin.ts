/** spin.ts - a compute-bound process: what is left of a CPU for programs is what this one gets. */

import { type Layout, layout, own, Struct, word } from '../abi/layout.js'
import { DEFINE_PER_CPU } from '../abi/section.js'
import { symbol } from '../abi/symbol.js'
import { cost } from '../arch/cost.js'
import { tick } from '../arch/cpu.js'
import { need_resched, rest } from '../sched/sched.js'

const COST_ROUND = cost('user_spin')

class spin_state extends Struct {
  declare rounds: number
  declare x: number
}
const SPIN: Layout<spin_state> = layout('spin_state', spin_state, { rounds: own(word), x: own(word) })
export const spins = DEFINE_PER_CPU('spin', SPIN)
const mine = spins.mine

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
    for (let k = 0; k < 64; k++) {
      compute()
      tick(COST_ROUND)
    }
    if (need_resched()) yield* rest()
  }
}
export const spin_sym = symbol('spin', spin)
