/**
 * pneigh.ts - those that this machine answers for: addresses behind it, and questions that wait a moment, so that who is
 * really there can answer first.
 *
 * Lock charter
 *   pneighs.lock (rwlock, bottom halves off) guards the list of addresses. proxy_queue.lock guards the questions and
 *   the arming of the timer; those that are due are taken off under it and answered without it.
 */
import { by, embed, konst, type Layout, layout, ptr, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call, type Sym, symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { init_timer, jiffies, mod_timer, TIMER, time_after, type timer_list, timer_pending } from '../../irq/timer.js'
import { EEXIST, ENOENT, ENOMEM } from '../../lib/errno.js'
import { MAX_PNEIGHS } from '../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import {
  RWLOCK,
  read_lock_bh,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../../sync/rwlock.js'
import { spin_lock_irqsave, spin_unlock_irqrestore } from '../../sync/spinlock.js'
import { dst_release } from './dst.js'
import { drop_reason } from './fate.js'
import { arp_tbl, neigh_jiffies, type neigh_parms } from './neighbour.js'
import { dev_hold, dev_put, netif_running } from './netdevice.js'
import { __skb_queue_tail, __skb_unlink, skb_peek, skb_queue_head_init } from './skb_queue.js'
import { kfree_skb } from './skbuff.js'
import { NETDEV, type net_device, SKB, SKB_HEAD, type sk_buff, type sk_buff_head } from './types.js'

const i32 = RAM.i32
const QUEUE_FULL = drop_reason('neigh_queue_full')
const SHUTDOWN = drop_reason('shutdown')

export class pneigh_entry extends Struct {
  declare next: pneigh_entry | null
  declare key: number
  declare dev: net_device | null
}
const PNEIGH: Layout<pneigh_entry> = layout('pneigh_entry', pneigh_entry, {
  next: by(
    'pneighs.lock',
    ptr(() => PNEIGH),
  ),
  key: konst(word),
  dev: konst(ptr(() => NETDEV)), // null: on every device
})
const pneigh_cache = kmem_cache_create('pneigh_entry', PNEIGH, () => MAX_PNEIGHS)

class pneigh_table extends Struct {
  declare lock: rwlock_t
  declare first: pneigh_entry | null
  declare redo: Sym<(skb: sk_buff) => void>
  declare proxy_queue: sk_buff_head
  declare proxy_timer: timer_list
}
const TABLE: Layout<pneigh_table> = layout('pneigh_table', pneigh_table, {
  lock: embed(RWLOCK),
  first: by(
    'lock',
    ptr(() => PNEIGH),
  ),
  redo: konst(word), // the protocol's: process a question once more. Consumes the packet
  proxy_queue: embed(SKB_HEAD),
  proxy_timer: embed(TIMER),
})
const pneighs = DEFINE_STATIC('pneighs', TABLE)

/** Stamp of a question that has waited: no second of any clock. */
export const LOCALLY_ENQUEUED = -1

/** pneigh_lookup - does this machine answer for `key` on `dev`? @context any @locks pneighs.lock for reading */
export function pneigh_lookup(key: number, dev: net_device): boolean {
  read_lock_bh(pneighs.lock)
  let n = pneighs.first
  while (n !== null && !(n.key === key && (n.dev === null || n.dev === dev))) n = n.next
  read_unlock_bh(pneighs.lock)
  return n !== null
}

/** pneigh_add - `ip neigh add proxy KEY dev DEV`; null: on every device. @context process @returns 0, -EEXIST, -ENOMEM */
export function pneigh_add(key: number, dev: net_device | null): number {
  const n = kmem_cache_alloc(pneigh_cache)
  if (n === null) return -ENOMEM
  n.key = key
  n.dev = dev
  write_lock_bh(pneighs.lock)
  let at = pneighs.first
  while (at !== null && !(at.key === key && at.dev === dev)) at = at.next
  if (at === null) {
    n.next = pneighs.first
    pneighs.first = n
    if (dev !== null) dev_hold(dev)
  }
  write_unlock_bh(pneighs.lock)
  if (at === null) return 0
  kmem_cache_free(pneigh_cache, n)
  return -EEXIST
}

/** Takes out what `goes` names. @returns how many */
function remove(goes: (n: pneigh_entry) => boolean): number {
  let gone = 0
  write_lock_bh(pneighs.lock)
  let prev: pneigh_entry | null = null
  for (let n = pneighs.first; n !== null; ) {
    const { next }: pneigh_entry = n
    if (goes(n)) {
      if (prev === null) pneighs.first = next
      else prev.next = next
      if (n.dev !== null) dev_put(n.dev)
      kmem_cache_free(pneigh_cache, n)
      gone++
    } else prev = n
    n = next
  }
  write_unlock_bh(pneighs.lock)
  return gone
}

/** pneigh_delete - @context process @returns 0, -ENOENT */
export function pneigh_delete(key: number, dev: net_device | null): number {
  return remove(n => n.key === key && n.dev === dev) > 0 ? 0 : -ENOENT
}

/** pneigh_ifdown - a device goes: what it was answered on, and the questions that wait. @context process, or a halted machine */
export function pneigh_ifdown(dev: net_device | null): void {
  remove(n => dev === null || n.dev === dev)
  const its = (skb: sk_buff): boolean => dev === null || skb.dev === dev
  for (let skb = take(its); skb !== null; skb = take(its)) {
    const held = skb.dev!
    kfree_skb(skb, SHUTDOWN)
    dev_put(held)
  }
}

/** pneigh_for_each - for the list of them. @locks pneighs.lock for reading is held */
export function pneigh_for_each(f: (n: pneigh_entry) => void): void {
  read_lock_bh(pneighs.lock)
  for (let n = pneighs.first; n !== null; n = n.next) f(n)
  read_unlock_bh(pneighs.lock)
}

// ---- questions that wait --------------------------------------------------------------------------------------------

/** The next one on the queue, whose end is the head itself. @locks proxy_queue.lock is held */
function after(skb: sk_buff): sk_buff | null {
  const next = i32[skb.$w]
  return next === pneighs.proxy_queue.addr ? null : SKB.ref(next)
}

/** The first waiting question that `wanted` says, off the queue; its device is still held. */
function take(wanted: (skb: sk_buff) => boolean): sk_buff | null {
  const flags = spin_lock_irqsave(pneighs.proxy_queue.lock)
  let skb = skb_peek(pneighs.proxy_queue)
  while (skb !== null && !wanted(skb)) {
    skb = after(skb)
  }
  if (skb !== null) __skb_unlink(skb, pneighs.proxy_queue)
  spin_unlock_irqrestore(pneighs.proxy_queue.lock, flags)
  return skb
}

/** When a waiting question is due, jiffies. */
function due(skb: sk_buff): number {
  return i32[(skb.stamp >> 2) + 1]
}

/** pneigh_enqueue - answer it in a while, of random length, as the device's parameters have it. @context softirq @locks proxy_queue.lock @consumes skb */
export function pneigh_enqueue(parms: neigh_parms, skb: sk_buff): void {
  const { proxy_queue, proxy_timer } = pneighs
  if (proxy_queue.qlen > parms.proxy_qlen) {
    kfree_skb(skb, QUEUE_FULL)
    return
  }
  const delay = neigh_jiffies(parms.proxy_delay)
  // Any number will do, as long as two machines do not draw the same: the question itself is mixed with what we are.
  const drawn = Math.imul(jiffies() ^ skb.addr ^ arp_tbl.hash_rnd, 0x9e3779b1) >>> 8
  const when = (jiffies() + (drawn % delay)) | 0
  i32[skb.stamp >> 2] = LOCALLY_ENQUEUED
  i32[(skb.stamp >> 2) + 1] = when
  const { dst } = skb
  if (dst !== null) dst_release(dst)
  skb.dst = null
  dev_hold(skb.dev!)
  const flags = spin_lock_irqsave(proxy_queue.lock)
  __skb_queue_tail(proxy_queue, skb)
  if (!timer_pending(proxy_timer) || time_after(proxy_timer.expires, when)) mod_timer(proxy_timer, when)
  spin_unlock_irqrestore(proxy_queue.lock, flags)
}

/** neigh_proxy_process - @context timer @locks proxy_queue.lock */
function neigh_proxy_process(): void {
  const is_due = (skb: sk_buff): boolean => !time_after(due(skb), jiffies())
  for (let skb = take(is_due); skb !== null; skb = take(is_due)) {
    const dev = skb.dev!
    if (netif_running(dev)) call(pneighs.redo)(skb)
    else kfree_skb(skb, SHUTDOWN)
    dev_put(dev)
  }
  const flags = spin_lock_irqsave(pneighs.proxy_queue.lock)
  let next = 0
  let some = false
  for (let skb = skb_peek(pneighs.proxy_queue); skb !== null; skb = after(skb)) {
    if (!some || time_after(next, due(skb))) next = due(skb)
    some = true
  }
  if (some) mod_timer(pneighs.proxy_timer, next)
  spin_unlock_irqrestore(pneighs.proxy_queue.lock, flags)
}
const neigh_proxy_process_sym = symbol('neigh_proxy_process', neigh_proxy_process)

/** pneigh_init - `redo`: the protocol's way to process a question. @context boot, CPU 0 */
export function pneigh_init(redo: Sym<(skb: sk_buff) => void>): void {
  rwlock_init(pneighs.lock)
  pneighs.first = null
  pneighs.redo = redo
  skb_queue_head_init(pneighs.proxy_queue)
  init_timer(pneighs.proxy_timer, neigh_proxy_process_sym, 0)
}
