/** #8: a packet that is redirected to the device it comes from meets the lock of its queue, which is held for it. */
import { embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import { holds, SPINLOCK, spin_lock, spin_lock_init, spin_unlock, type spinlock_t } from '../../sync/spinlock.js'
import { cpu_init, machine_init } from '../kit/machine.js'
import type { Twin } from '../kit/words.js'

class root_qdisc extends Struct {
  declare lock: spinlock_t
  declare queued: number
  declare looped: number
}
const ROOT: Layout<root_qdisc> = layout('root_qdisc', root_qdisc, {
  lock: embed(SPINLOCK),
  queued: word,
  looped: word,
})
const q = DEFINE_STATIC('root_qdisc', ROOT)

export function setup(twin: Twin) {
  machine_init(2)
  spin_lock_init(q.lock)
  return { fixed: twin === 'fixed' }
}
type Shared = ReturnType<typeof setup>

export const prepare = (_: Shared, me: { index: number }): void => cpu_init(me)
export const describe = describe_addr

function dev_queue_xmit({ fixed }: Shared, redirects: number): void {
  if (fixed && holds(q.lock.addr)) {
    q.looped++ // the packet is dropped
    return
  }
  spin_lock(q.lock)
  q.queued++
  if (redirects > 0) dev_queue_xmit({ fixed }, redirects - 1)
  spin_unlock(q.lock)
}

export const actors = {
  'CPU 0': (s: Shared) => dev_queue_xmit(s, 1),
  'CPU 1': (s: Shared) => dev_queue_xmit(s, 0),
}
