/** crowd.ts - every CPU has a task that sleeps, waits and synchronizes: small caches must do for all CPUs. */
import { embed, type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add } from '../../../src/arch/atomic.js'
import { num_cpus } from '../../../src/arch/machine.js'
import { msleep } from '../../../src/irq/timer.js'
import { synchronize_kernel } from '../../../src/rcu/rcupdate.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { down, SEMAPHORE, sema_init, type semaphore, up } from '../../../src/sched/semaphore.js'

class shared extends Struct {
  declare done: number
  declare sem: semaphore
}
const SHARED: Layout<shared> = layout('torture_crowd', shared, { done: word, sem: embed(SEMAPHORE) })
const s = DEFINE_STATIC('torture_crowd', SHARED)

function* one(): Generator<void, number, void> {
  yield* msleep(20)
  yield* synchronize_kernel()
  yield* down(s.sem)
  yield* msleep(1)
  up(s.sem)
  fetch_add(s.addr, 1)
  return 0
}
const one_sym = symbol('crowd_one', one)

export function main(): void {
  sema_init(s.sem, 1)
  for (let cpu = 0; cpu < num_cpus(); cpu++) kernel_thread('one', one_sym, 0, { cpu })
}
