/**
 * dst.ts - the protocol-independent life of a destination: references, and freeing when the last one goes.
 *
 * Lock charter
 *   refcnt is atomic. A destination that is freed while somebody still refers to it waits on dst_garbage (dst_lock) for
 *   the timer, which destroys it once the count is 0. dst_lock is taken with bottom halves off; the destructor is called
 *   under it, as in the original, and must not take it.
 *   dev, input and output of a destination change under dst_lock while others use it: who reads dev may go on with it until he
 *   sleeps, since a device is freed a grace period after the last reference to it (netdev_wait_allrefs).
 */

import { by, embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call, type Sym, symbol } from '../../abi/symbol.js'
import { fetch_add } from '../../arch/atomic.js'
import { hz } from '../../arch/machine.js'
import { NOTIFIER, NOTIFY_DONE, type notifier_block } from '../../irq/notifier.js'
import { init_timer, jiffies, mod_timer, TIMER, time_after, type timer_list } from '../../irq/timer.js'
import { local_bh_disable, local_bh_enable, spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { refcount_dec } from '../../sync/refcount.js'
import { SPINLOCK, spin_lock_init, spin_trylock, spin_unlock, type spinlock_t } from '../../sync/spinlock.js'
import { drop_reason } from './fate.js'
import { loopback_dev } from './loopback_dev.js'
import { neigh_release } from './neighbour.js'
import { dev_hold, dev_put, NETDEV_DOWN, NETDEV_UNREGISTER, register_netdevice_notifier } from './netdevice.js'
import { kfree_skb } from './skbuff.js'
import { DST, type dst_entry, IFF_UP, NETDEV, type neighbour, type net_device, type sk_buff } from './types.js'

const REFCNT = DST.offset('refcnt')
// how often the garbage is looked through: every 0.1 s at first, then ever more rarely by steps of 0.5 s
const gc_min = (): number => Math.floor(hz() / 10)
const gc_inc = (): number => hz() >> 1
const gc_max = (): number => 120 * hz()

class dst_garbage extends Struct {
  declare lock: spinlock_t
  declare list: number
  declare timer_inc: number
  declare timer_expires: number
  declare timer: timer_list
}
const GARBAGE: Layout<dst_garbage> = layout('dst_garbage', dst_garbage, {
  lock: embed(SPINLOCK),
  list: by('lock', word), // address of the first dst_entry
  timer_inc: by('lock', word),
  timer_expires: by('lock', word),
  timer: embed(TIMER),
})
const garbage = DEFINE_STATIC('dst_garbage', GARBAGE)

/** What a protocol does with its own kind of destination. */
export interface dst_ops {
  /** Frees the struct. */
  destroy(dst: dst_entry): void
  /** The neighbour could not be reached: tell the sender of the packet, which stays the caller's. No lock is held. */
  link_failure(skb: sk_buff): void
}

export function dst_hold(dst: dst_entry): void {
  fetch_add(dst.addr + REFCNT, 1)
}

/** dst_release - @consumes a reference */
export function dst_release(dst: dst_entry): void {
  refcount_dec(dst.addr + REFCNT)
}

/** dst_link_failure - the way of this packet ends at somebody who does not answer. @context process, softirq; no lock held */
export function dst_link_failure(skb: sk_buff): void {
  const dst = skb.dst
  if (dst !== null) call(dst.ops as Sym<dst_ops>).link_failure(skb)
}

/** dst_set_expires - it counts for `timeout` jiffies more at most. */
export function dst_set_expires(dst: dst_entry, timeout: number): void {
  const expires = (jiffies() + timeout) | 0 || 1 // 0 means for ever
  if (dst.expires === 0 || time_after(dst.expires, expires)) dst.expires = expires
}

// ---- devices that go ------------------------------------------------------------------------------------------------

function dst_discard(skb: sk_buff): number {
  kfree_skb(skb, DISCARDED)
  return 0
}
const dst_discard_sym = symbol('dst_discard', dst_discard)
const DISCARDED = drop_reason('dev_down')

/** Nothing goes this way any more. @locks dst_lock is held */
function discard_all(dst: dst_entry): void {
  dst.input = dst_discard_sym
  dst.output = dst_discard_sym
}

/** The reference of `dev` becomes one of `to`. @locks dst_lock is held */
function move_to(holder: dst_entry | neighbour, dev: net_device, to: net_device): void {
  if (holder.dev !== dev) return
  dev_hold(to)
  holder.dev = to
  dev_put(dev)
}

/**
 * dst_ifdown - a destination that somebody still refers to, say an idle socket, must not hold a device that goes. Of a neighbour
 * that its table has forgotten only destinations know. @locks dst_lock is held
 */
function dst_ifdown(dst: dst_entry, dev: net_device, unregister: boolean): void {
  const lo = loopback_dev()
  for (let at: dst_entry | null = dst; at !== null && (at === dst || at.xfrm !== 0); at = at.child) {
    if (at.dev === dev) discard_all(at)
    if (!unregister || lo === null || lo === dev) continue
    move_to(at, dev, lo)
    const neigh = at.neighbour
    if (neigh !== null && neigh.dead !== 0) move_to(neigh, dev, lo)
  }
}

/** dst_dev_event - @context process @locks rtnl is held; dst_lock */
function dst_dev_event(_nb: notifier_block, event: number, data: number): number {
  if (event !== NETDEV_DOWN && event !== NETDEV_UNREGISTER) return NOTIFY_DONE
  const dev = NETDEV.ref(data)
  spin_lock_bh(garbage.lock)
  for (let dst = DST.at(garbage.list); dst !== null; dst = dst.next) dst_ifdown(dst, dev, event === NETDEV_UNREGISTER)
  spin_unlock_bh(garbage.lock)
  return NOTIFY_DONE
}
const dst_dev_event_sym = symbol('dst_dev_event', dst_dev_event)
const dst_dev_notifier = DEFINE_STATIC('dst_dev_notifier', NOTIFIER)

// ---- the garbage ----------------------------------------------------------------------------------------------------

/** dst_free - destroy now, or when the last user is gone. No new user can come. @context softirq, process @consumes dst */
export function dst_free(dst: dst_entry): void {
  if (dst.obsolete > 1) return
  if (dst.refcnt === 0) {
    dst_destroy(dst)
    return
  }
  spin_lock_bh(garbage.lock)
  const { dev } = dst
  if (dev !== null && (dev.flags & IFF_UP) === 0) discard_all(dst)
  dst.obsolete = 2
  dst.next = DST.at(garbage.list)
  garbage.list = dst.addr
  if (garbage.timer_inc > gc_inc()) {
    garbage.timer_inc = gc_inc()
    garbage.timer_expires = gc_min()
    mod_timer(garbage.timer, jiffies() + garbage.timer_expires)
  }
  spin_unlock_bh(garbage.lock)
}

/** dst_destroy - @consumes dst */
export function dst_destroy(dst: dst_entry): void {
  const neigh = dst.neighbour
  if (neigh !== null) {
    dst.neighbour = null
    neigh_release(neigh)
  }
  call(dst.ops as Sym<dst_ops>).destroy(dst)
}

function dst_run_gc(): void {
  if (!spin_trylock(garbage.lock)) {
    mod_timer(garbage.timer, jiffies() + gc_min())
    return
  }
  let kept: dst_entry | null = null
  for (let dst = DST.at(garbage.list); dst !== null; ) {
    const next: dst_entry | null = dst.next
    if (dst.refcnt === 0) dst_destroy(dst)
    else {
      dst.next = kept
      kept = dst
    }
    dst = next
  }
  garbage.list = kept === null ? 0 : kept.addr
  if (kept === null) garbage.timer_inc = gc_max()
  else {
    garbage.timer_expires = Math.min(garbage.timer_expires + garbage.timer_inc, gc_max())
    garbage.timer_inc += gc_inc()
    mod_timer(garbage.timer, jiffies() + garbage.timer_expires)
  }
  spin_unlock(garbage.lock)
}
const dst_run_gc_sym = symbol('dst_run_gc', dst_run_gc)

/** dst_init - @context boot, CPU 0 */
export function dst_init(): void {
  spin_lock_init(garbage.lock)
  garbage.list = 0
  garbage.timer_inc = gc_max()
  garbage.timer_expires = gc_min()
  init_timer(garbage.timer, dst_run_gc_sym, 0)
}
/** dst_dev_init - it hears of devices from here on. @context boot, CPU 0 */
export function dst_dev_init(): void {
  dst_dev_notifier.call = dst_dev_event_sym
  dst_dev_notifier.priority = -10 // after those who forget routes and neighbours
  register_netdevice_notifier(dst_dev_notifier)
}

function garbage_length(): number {
  let n = 0
  for (let dst = DST.at(garbage.list); dst !== null; dst = dst.next) n++
  return n
}
/** dst_gc_now - for the leak audit of a machine at rest: look through the garbage until nothing of it goes: one may have held another. */
export function dst_gc_now(): void {
  local_bh_disable() // as the timer would
  for (let [n, before] = [garbage_length(), -1]; n !== before; ) {
    before = n
    dst_run_gc()
    n = garbage_length()
  }
  local_bh_enable()
}
