/** #3: a process takes a lock without keeping soft interrupts out, and one on that CPU wants it. */
import { embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { tick } from '../../arch/cpu.js'
import { __raise_softirq_irqoff, NET_RX_SOFTIRQ, open_softirq } from '../../irq/softirq.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { SPINLOCK, spin_lock, spin_lock_init, spin_unlock, type spinlock_t } from '../../sync/spinlock.js'
import { cpu_init, HERE, machine_init, raise_interrupt } from '../kit/machine.js'
import type { Twin } from '../kit/words.js'

class fdb extends Struct {
  declare lock: spinlock_t
  declare entries: number
}
const FDB: Layout<fdb> = layout('fdb', fdb, { lock: embed(SPINLOCK), entries: word })
const table = DEFINE_STATIC('fdb', FDB)

/** The receiving soft interrupt learns an address. */
function learn(): void {
  spin_lock(table.lock)
  table.entries++
  spin_unlock(table.lock)
}
const learn_sym = symbol('fdb_learn', learn)

export function setup(twin: Twin) {
  machine_init(2)
  spin_lock_init(table.lock)
  open_softirq(NET_RX_SOFTIRQ, learn_sym)
  return { fixed: twin === 'fixed' }
}
type Shared = ReturnType<typeof setup>

export const prepare = (_: Shared, me: { index: number }): void =>
  cpu_init(me, () => __raise_softirq_irqoff(NET_RX_SOFTIRQ))
export const describe = describe_addr

export const actors = {
  'CPU 0'({ fixed }: Shared) {
    if (fixed) spin_lock_bh(table.lock)
    else spin_lock(table.lock)
    table.entries--
    tick(HERE)
    if (fixed) spin_unlock_bh(table.lock)
    else spin_unlock(table.lock)
    tick(HERE)
  },
  device() {
    raise_interrupt(0)
  },
}
