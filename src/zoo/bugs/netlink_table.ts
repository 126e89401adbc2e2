/** #2: a table is locked for reading with interrupts on; an interrupt on that CPU locks it for writing. */
import { embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import { local_irq_enable, tick } from '../../arch/cpu.js'
import {
  RWLOCK,
  read_lock,
  read_lock_irqsave,
  read_unlock,
  read_unlock_irqrestore,
  rwlock_init,
  type rwlock_t,
  write_lock,
  write_unlock,
} from '../../sync/rwlock.js'
import { cpu_init, HERE, machine_init, raise_interrupt } from '../kit/machine.js'
import type { Twin } from '../kit/words.js'

class nl_table extends Struct {
  declare lock: rwlock_t
  declare errors: number
}
const TABLE: Layout<nl_table> = layout('nl_table', nl_table, { lock: embed(RWLOCK), errors: word })
const table = DEFINE_STATIC('nl_table', TABLE)

export function setup(twin: Twin) {
  machine_init(2)
  rwlock_init(table.lock)
  return { fixed: twin === 'fixed' }
}
type Shared = ReturnType<typeof setup>

/** netlink_set_err, from an interrupt. */
function interrupt(): void {
  write_lock(table.lock)
  table.errors++
  write_unlock(table.lock)
}
export const prepare = (_: Shared, me: { index: number }): void => cpu_init(me, interrupt)
export const describe = describe_addr

export const actors = {
  'CPU 0'({ fixed }: Shared) {
    if (fixed) {
      const flags = read_lock_irqsave(table.lock)
      tick(HERE)
      read_unlock_irqrestore(table.lock, flags)
    } else {
      read_lock(table.lock)
      tick(HERE)
      read_unlock(table.lock)
    }
    local_irq_enable()
  },
  device() {
    raise_interrupt(0)
  },
}
