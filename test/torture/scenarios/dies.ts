/** dies.ts - ways to die on the last CPU with a lock held: a broken invariant, an exception, the thread itself, two endless loops. */
import { embed, type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { BUG_ON, cpu_id, cpu_relax, local_irq_disable } from '../../../src/arch/cpu.js'
import { num_cpus } from '../../../src/arch/machine.js'
import { msleep } from '../../../src/irq/timer.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { spin_lock_bh, spin_unlock_bh } from '../../../src/sync/bh.js'
import { SPINLOCK, spin_lock_init, type spinlock_t } from '../../../src/sync/spinlock.js'

class fate extends Struct {
  declare lock: spinlock_t
  declare how: number
}
const FATE: Layout<fate> = layout('test_fate', fate, { lock: embed(SPINLOCK), how: word })
const s = DEFINE_STATIC('test_fate', FATE)

function fall_over(how: number): void {
  BUG_ON(how === 1, 'broken invariant')
  if (how === 2) (undefined as unknown as { gone: () => void }).gone()
  if (how === 3) process.exit(7)
  if (how === 4) {
    local_irq_disable()
    for (;;) cpu_relax()
  }
  while (how === 5);
}

function* doomed(): Generator<void, number, void> {
  while (s.how === 0) yield* msleep(2)
  spin_lock_bh(s.lock)
  fall_over(s.how)
  spin_unlock_bh(s.lock)
  return cpu_id
}
const doomed_sym = symbol('test_doomed', doomed)

export function main(): void {
  spin_lock_init(s.lock)
  kernel_thread('doomed', doomed_sym, 0, { cpu: num_cpus() - 1 })
}
