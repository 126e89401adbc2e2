/** #32: a packet is queued for a device that was up a moment ago; the flush of its unregistration is over. */
import { atomic, by, embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import { load, store } from '../../arch/atomic.js'
import {
  SPINLOCK,
  spin_lock_init,
  spin_lock_irqsave,
  spin_unlock_irqrestore,
  type spinlock_t,
} from '../../sync/spinlock.js'
import { cpu_init, machine_init } from '../kit/machine.js'
import type { Twin } from '../kit/words.js'

class backlog extends Struct {
  declare lock: spinlock_t
  declare qlen: number
  declare running: number
}
const BACKLOG: Layout<backlog> = layout('backlog', backlog, {
  lock: embed(SPINLOCK),
  qlen: by('lock', word),
  running: atomic(word),
})
const sd = DEFINE_STATIC('backlog', BACKLOG)
const DEV_RUNNING = sd.addr + BACKLOG.offset('running')

export function setup(twin: Twin) {
  machine_init(2)
  spin_lock_init(sd.lock)
  store(DEV_RUNNING, 1)
  return { fixed: twin === 'fixed' }
}
type Shared = ReturnType<typeof setup>

export const prepare = (_: Shared, me: { index: number }): void => cpu_init(me)
export const describe = describe_addr

export const actors = {
  /** enqueue_to_backlog */
  'CPU 0'({ fixed }: Shared) {
    if (!fixed && load(DEV_RUNNING) === 0) return
    const flags = spin_lock_irqsave(sd.lock)
    if (!fixed || load(DEV_RUNNING) !== 0) sd.qlen++
    spin_unlock_irqrestore(sd.lock, flags)
  },
  /** unregister_netdevice: down, then flush_backlog. */
  'CPU 1'() {
    store(DEV_RUNNING, 0)
    const flags = spin_lock_irqsave(sd.lock)
    sd.qlen = 0
    spin_unlock_irqrestore(sd.lock, flags)
  },
}

export function invariant(): void {
  if (sd.qlen !== 0) throw new Error('a packet is queued for a device that is freed')
}
