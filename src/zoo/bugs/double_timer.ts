/** #43: two CPUs arm the timer of one neighbour, and each holds a reference for it; it fires once. */
import { atomic, embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { fetch_add } from '../../arch/atomic.js'
import { init_timer, init_timers, mod_timer, TIMER, type timer_list, timer_pending } from '../../irq/timer.js'
import { RWLOCK, rwlock_init, type rwlock_t, write_lock, write_unlock } from '../../sync/rwlock.js'
import { cpu_init, machine_init } from '../kit/machine.js'
import type { Twin } from '../kit/words.js'

class entry extends Struct {
  declare lock: rwlock_t
  declare refcnt: number
  declare timer: timer_list
}
const ENTRY: Layout<entry> = layout('neigh', entry, {
  lock: embed(RWLOCK),
  refcnt: atomic(word),
  timer: embed(TIMER),
})
const neigh = DEFINE_STATIC('neigh', ENTRY)
const REFCNT = neigh.addr + ENTRY.offset('refcnt')
const handler_sym = symbol('zoo_neigh_timer', () => {})

export function setup(twin: Twin) {
  machine_init(2)
  init_timers(2)
  rwlock_init(neigh.lock)
  init_timer(neigh.timer, handler_sym, 0)
  neigh.refcnt = 1
  return { fixed: twin === 'fixed' }
}
type Shared = ReturnType<typeof setup>

export const prepare = (_: Shared, me: { index: number }): void => cpu_init(me)
export const describe = describe_addr

function neigh_event_send({ fixed }: Shared): void {
  if (fixed) write_lock(neigh.lock)
  if (!timer_pending(neigh.timer)) {
    fetch_add(REFCNT, 1)
    mod_timer(neigh.timer, 10)
  }
  if (fixed) write_unlock(neigh.lock)
}

export const actors = { 'CPU 0': neigh_event_send, 'CPU 1': neigh_event_send }

export function invariant(): void {
  if (neigh.refcnt !== 2) throw new Error(`${neigh.refcnt - 1} references for one timer: the neighbour is never freed`)
}
