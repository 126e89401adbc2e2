/** #13: two locks with interrupts off, one variable for what they were before: they stay off. */
import { embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import {
  SPINLOCK,
  spin_lock_init,
  spin_lock_irqsave,
  spin_unlock_irqrestore,
  type spinlock_t,
} from '../../sync/spinlock.js'
import { cpu_init, machine_init } from '../kit/machine.js'
import type { Twin } from '../kit/words.js'

class pair extends Struct {
  declare outer: spinlock_t
  declare inner: spinlock_t
  declare sent: number
}
const PAIR: Layout<pair> = layout('pair', pair, { outer: embed(SPINLOCK), inner: embed(SPINLOCK), sent: word })
const p = DEFINE_STATIC('pair', PAIR)

export function setup(twin: Twin) {
  machine_init(2)
  spin_lock_init(p.outer)
  spin_lock_init(p.inner)
  return { fixed: twin === 'fixed' }
}
type Shared = ReturnType<typeof setup>

export const prepare = (_: Shared, me: { index: number }): void => cpu_init(me)
export const describe = describe_addr

function transmit({ fixed }: Shared): void {
  let flags = spin_lock_irqsave(p.outer)
  const before = flags
  flags = spin_lock_irqsave(p.inner)
  p.sent++
  spin_unlock_irqrestore(p.inner, flags)
  spin_unlock_irqrestore(p.outer, fixed ? before : flags)
}

export const actors = { 'CPU 0': transmit, 'CPU 1': transmit }
