/** takers.ts - CPU 0 ups a semaphore once for each of the others, at odd moments: none may sleep on with its count there. */
import { embed, type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { cpu_id, cpu_relax } from '../../../src/arch/cpu.js'
import { num_cpus } from '../../../src/arch/machine.js'
import { jiffies } from '../../../src/irq/timer.js'
import { prng_below, prng_seed } from '../../../src/lib/prng.js'
import { cond_resched, kernel_thread, schedule } from '../../../src/sched/sched.js'
import { down, SEMAPHORE, sema_init, type semaphore, up } from '../../../src/sched/semaphore.js'

const ROUNDS = 1500

class shared extends Struct {
  declare done: number
  declare stranded: number
  declare taken: number
  declare round: number
  declare sem: semaphore
}
const SHARED: Layout<shared> = layout('torture_takers', shared, {
  done: word,
  stranded: word,
  taken: word,
  round: word,
  sem: embed(SEMAPHORE),
})
const s = DEFINE_STATIC('torture_takers', SHARED)
const TAKEN = s.addr + SHARED.offset('taken')
const ROUND = s.addr + SHARED.offset('round')

const random = new Int32Array(4)
function pause(): void {
  for (let k = prng_below(random, 2000); k > 0; k--) load(TAKEN)
}

function* taker(): Generator<void, number, void> {
  prng_seed(random, cpu_id)
  for (let k = 1; k <= ROUNDS; k++) {
    while (load(ROUND) < k) cpu_relax()
    pause()
    yield* down(s.sem)
    fetch_add(TAKEN, 1)
  }
  fetch_add(s.addr, 1)
  return 0
}
const taker_sym = symbol('takers_taker', taker)

function* giver(): Generator<void, number, void> {
  prng_seed(random, 99)
  const takers = num_cpus() - 1
  for (let k = 1; k <= ROUNDS; k++) {
    store(ROUND, k)
    for (let n = 0; n < takers; n++) {
      pause()
      up(s.sem)
    }
    const end = jiffies() + 2000
    while (load(TAKEN) < k * takers && jiffies() - end < 0) yield* cond_resched()
    if (load(TAKEN) < k * takers) {
      s.stranded++
      up(s.sem) // somebody must go on
      yield* schedule()
    }
  }
  fetch_add(s.addr, 1)
  return 0
}
const giver_sym = symbol('takers_giver', giver)

export function main(): void {
  sema_init(s.sem, 0)
  kernel_thread('giver', giver_sym, 0, { cpu: 0 })
  for (let cpu = 1; cpu < num_cpus(); cpu++) kernel_thread('taker', taker_sym, 0, { cpu })
}
