/**
 * xfrm_gc.ts - the end of states that have a tunnel state. Whoever puts the last reference of one may hold any lock, such as
 * that of the garbage of dst.ts; to let go of the tunnel state takes locks. So a work does it.
 *
 * Lock charter
 *   gc.lock (bottom halves off) guards the list. Nothing is called under it.
 */
import { by, embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import type { Sym } from '../../abi/symbol.js'
import { INIT_WORK, schedule_work, WORK, type work_func, type work_struct } from '../../irq/workqueue.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { SPINLOCK, spin_lock_init, type spinlock_t } from '../../sync/spinlock.js'
import { STATE, type xfrm_state } from './types.js'

class xfrm_state_gc extends Struct {
  declare lock: spinlock_t
  declare list: number
  declare work: work_struct
}
const GC: Layout<xfrm_state_gc> = layout('xfrm_state_gc', xfrm_state_gc, {
  lock: embed(SPINLOCK),
  list: by('lock', word), // states without references, linked by bydst
  work: embed(WORK),
})
const gc = DEFINE_STATIC('xfrm_state_gc', GC)

/** xfrm_gc_add - @context any but hardirq @consumes x, which has no references */
export function xfrm_gc_add(x: xfrm_state): void {
  spin_lock_bh(gc.lock)
  x.bydst = gc.list
  gc.list = x.addr
  spin_unlock_bh(gc.lock)
  schedule_work(gc.work)
}
/** xfrm_gc_take - one of them, or null. @returns it, to be freed */
export function xfrm_gc_take(): xfrm_state | null {
  spin_lock_bh(gc.lock)
  const x = STATE.at(gc.list)
  if (x !== null) gc.list = x.bydst
  spin_unlock_bh(gc.lock)
  return x
}
/** xfrm_gc_init - @context boot, CPU 0 */
export function xfrm_gc_init(work: Sym<work_func>): void {
  spin_lock_init(gc.lock)
  gc.list = 0
  INIT_WORK(gc.work, work, 0)
}
