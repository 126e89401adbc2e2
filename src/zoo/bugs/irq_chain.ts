/** #4: an interrupt takes A; somebody holds A and takes B; somebody holds B with interrupts on. */
import { embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import { local_irq_restore, local_irq_save, tick } from '../../arch/cpu.js'
import {
  SPINLOCK,
  spin_lock,
  spin_lock_init,
  spin_lock_irqsave,
  spin_unlock,
  spin_unlock_irqrestore,
  type spinlock_t,
} from '../../sync/spinlock.js'
import { cpu_init, HERE, machine_init, raise_interrupt } from '../kit/machine.js'
import type { Twin } from '../kit/words.js'

class locks extends Struct {
  declare a: spinlock_t
  declare b: spinlock_t
  declare count: number
}
const LOCKS: Layout<locks> = layout('locks', locks, { a: embed(SPINLOCK), b: embed(SPINLOCK), count: word })
const l = DEFINE_STATIC('locks', LOCKS)

export function setup(twin: Twin) {
  machine_init(3)
  spin_lock_init(l.a)
  spin_lock_init(l.b)
  return { fixed: twin === 'fixed' }
}
type Shared = ReturnType<typeof setup>

function interrupt(): void {
  spin_lock(l.a)
  spin_unlock(l.a)
}
export const prepare = (_: Shared, me: { index: number }): void => cpu_init(me, interrupt)
export const describe = describe_addr

export const actors = {
  'CPU 0'() {
    const flags = spin_lock_irqsave(l.a)
    spin_lock(l.b)
    l.count++
    spin_unlock(l.b)
    spin_unlock_irqrestore(l.a, flags)
  },
  'CPU 1'({ fixed }: Shared) {
    const flags = fixed ? local_irq_save() : 1
    spin_lock(l.b)
    tick(HERE)
    l.count++
    spin_unlock(l.b)
    if (fixed) local_irq_restore(flags)
  },
  device() {
    raise_interrupt(1)
  },
}
