/** #10: the reply of a bridge is allocated, which may sleep, while its ports are locked. */
import { embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import { might_sleep } from '../../sync/preempt.js'
import { SPINLOCK, spin_lock, spin_lock_init, spin_unlock, type spinlock_t } from '../../sync/spinlock.js'
import { cpu_init, machine_init } from '../kit/machine.js'
import type { Twin } from '../kit/words.js'

class bridge extends Struct {
  declare lock: spinlock_t
  declare ports: number
  declare reply: number
}
const BRIDGE: Layout<bridge> = layout('bridge', bridge, { lock: embed(SPINLOCK), ports: word, reply: word })
const br = DEFINE_STATIC('bridge', BRIDGE)

export function setup(twin: Twin) {
  machine_init(2)
  spin_lock_init(br.lock)
  return { fixed: twin === 'fixed' }
}
type Shared = ReturnType<typeof setup>

export const prepare = (_: Shared, me: { index: number }): void => cpu_init(me)
export const describe = describe_addr

/** nlmsg_new(GFP_KERNEL) */
function allocate(): number {
  might_sleep()
  return 1
}

export const actors = {
  'CPU 0'({ fixed }: Shared) {
    const early = fixed ? allocate() : 0
    spin_lock(br.lock)
    br.reply = fixed ? early : allocate()
    spin_unlock(br.lock)
  },
  'CPU 1'() {
    spin_lock(br.lock)
    br.ports++
    spin_unlock(br.lock)
  },
}
