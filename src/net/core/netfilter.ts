/**
 * netfilter.ts - the hook points of the packet paths. A hook nobody registered for costs one load and a test.
 *
 * Lock charter
 *   nf_hooks.lock guards changes of the lists; the packet path walks them under rcu_read_lock.
 *   nf_hooks.queue_lock guards the queue handler: read while a packet is handed to it, so that who takes it away may free it.
 */
import { by, embed, type Layout, layout, ptr, rcu, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call, type Sym } from '../../abi/symbol.js'
import { READ_ONCE } from '../../arch/atomic.js'
import { RAM } from '../../arch/ram.js'
import { EBUSY, EPERM } from '../../lib/errno.js'
import { MAX_QUEUED_PACKETS } from '../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free, with_hoards } from '../../mm/slab.js'
import {
  rcu_assign_pointer,
  rcu_dereference,
  rcu_read_lock,
  rcu_read_unlock,
  synchronize_kernel,
} from '../../rcu/rcupdate.js'
import { module_put, try_module_get } from '../../sched/module.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import {
  RWLOCK,
  read_lock_bh,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../../sync/rwlock.js'
import { SPINLOCK, spin_lock_init, type spinlock_t } from '../../sync/spinlock.js'
import { drop_reason } from './fate.js'
import { dev_hold, dev_put } from './netdevice.js'
import { kfree_skb } from './skbuff.js'
import { NETDEV, type net_device, type sk_buff } from './types.js'

const i32 = RAM.i32

export const NF_DROP = 0
export const NF_ACCEPT = 1
export const NF_STOLEN = 2
export const NF_QUEUE = 3
export const NF_REPEAT = 4
export const NF_IP_PRE_ROUTING = 0
export const NF_IP_LOCAL_IN = 1
export const NF_IP_FORWARD = 2
export const NF_IP_LOCAL_OUT = 3
export const NF_IP_POST_ROUTING = 4

/** What becomes of a packet behind the hooks of a point. Consumes it. */
export type nf_okfn = (skb: sk_buff) => number
/**
 * A hook. Who wants another packet to go on in place of this one hands that to nf_hook_slow with `okfn` and a threshold, and says
 * NF_STOLEN: the original writes through a pointer to the pointer.
 */
export type nf_hookfn = (
  hook: number,
  skb: sk_buff,
  indev: net_device | null,
  outdev: net_device | null,
  okfn: Sym<nf_okfn>,
) => number
/** Takes a packet to somebody who decides. Does not consume it when it says a negative errno. */
export type nf_queue_outfn = (skb: sk_buff, info: nf_info, data: number) => number

export const INT_MIN = -0x80000000
// priorities
export const NF_IP_PRI_CONNTRACK_DEFRAG = -400
export const NF_IP_PRI_CONNTRACK = -200
export const NF_IP_PRI_MANGLE = -150
export const NF_IP_PRI_NAT_DST = -100
export const NF_IP_PRI_FILTER = 0
export const NF_IP_PRI_NAT_SRC = 100
export const NF_IP_PRI_LAST = 0x7fffffff

export class nf_hook_ops extends Struct {
  declare next: nf_hook_ops | null
  declare hook: Sym<nf_hookfn>
  declare hooknum: number
  declare priority: number
  /** Address of the module that the hook is in; 0: the kernel itself. */
  declare owner: number
}
export const NF_HOOK_OPS: Layout<nf_hook_ops> = layout('nf_hook_ops', nf_hook_ops, {
  next: rcu(ptr(() => NF_HOOK_OPS)),
  hook: word,
  hooknum: word,
  priority: word,
  owner: word,
})

class nf_hook_lists extends Struct {
  declare pre_routing: number
  declare local_in: number
  declare forward: number
  declare local_out: number
  declare post_routing: number
  declare lock: spinlock_t
  declare queue_lock: rwlock_t
  declare queue_handler: Sym<nf_queue_outfn>
  declare queue_data: number
}
const LISTS: Layout<nf_hook_lists> = layout('nf_hook_lists', nf_hook_lists, {
  pre_routing: rcu(word), // addresses of the first nf_hook_ops, one word for each hook
  local_in: rcu(word),
  forward: rcu(word),
  local_out: rcu(word),
  post_routing: rcu(word),
  lock: embed(SPINLOCK),
  queue_lock: embed(RWLOCK),
  queue_handler: by('queue_lock', word),
  queue_data: by('queue_lock', word),
})

/** A packet that waits for a verdict: where it stands. */
export class nf_info extends Struct {
  declare elem: nf_hook_ops | null
  declare hook: number
  declare indev: net_device | null
  declare outdev: net_device | null
  declare okfn: Sym<nf_okfn>
}
export const NF_INFO: Layout<nf_info> = layout('nf_info', nf_info, {
  elem: ptr(() => NF_HOOK_OPS), // the hook that queued it; its module is held
  hook: word,
  indev: ptr(() => NETDEV), // both are held
  outdev: ptr(() => NETDEV),
  okfn: word,
})
const info_cache = kmem_cache_create('nf_info', NF_INFO, () => with_hoards(MAX_QUEUED_PACKETS))
const nf_hooks = DEFINE_STATIC('nf_hooks', LISTS)
const HEADS = nf_hooks.addr
const NETFILTER = drop_reason('netfilter')

/** nf_register_hook - lowest priority value runs first. @context process or boot @locks nf_hooks.lock */
export function nf_register_hook(ops: nf_hook_ops): void {
  spin_lock_bh(nf_hooks.lock)
  let slot = nf_hooks.addr + ops.hooknum * 4
  for (let at = NF_HOOK_OPS.at(i32[slot >> 2]); at !== null && at.priority <= ops.priority; at = at.next) slot = at.addr
  i32[ops.$w] = i32[slot >> 2]
  rcu_assign_pointer(slot, ops.addr)
  spin_unlock_bh(nf_hooks.lock)
}

/** nf_unregister_hook - returns when no packet runs through the hook any more. @context process */
export function* nf_unregister_hook(ops: nf_hook_ops): Generator<void, void, void> {
  spin_lock_bh(nf_hooks.lock)
  let slot = nf_hooks.addr + ops.hooknum * 4
  while (i32[slot >> 2] !== 0 && i32[slot >> 2] !== ops.addr) slot = i32[slot >> 2]
  if (i32[slot >> 2] !== 0) rcu_assign_pointer(slot, i32[ops.$w])
  spin_unlock_bh(nf_hooks.lock)
  yield* synchronize_kernel()
}

/**
 * nf_hook_active - does anybody listen there? Who asks before NF_HOOK can go on by a call that the compiler sees: okfn, a symbol, may be
 * any function, and is never inlined.
 */
export function nf_hook_active(hook: number): boolean {
  return READ_ONCE(HEADS + hook * 4) !== 0
}

/** NF_HOOK - let the hooks of a point see a packet; okfn takes it on. @consumes skb @returns what okfn says, 0 or -EPERM */
export function NF_HOOK(
  hook: number,
  skb: sk_buff,
  indev: net_device | null,
  outdev: net_device | null,
  okfn: Sym<nf_okfn>,
): number {
  if (READ_ONCE(HEADS + hook * 4) === 0) return call(okfn)(skb)
  return nf_hook_slow(hook, skb, indev, outdev, okfn, INT_MIN)
}

/** Run the hooks from `first` on. @consumes skb on NF_STOLEN @returns a verdict, never NF_QUEUE or NF_REPEAT */
function nf_iterate(
  first: nf_hook_ops | null,
  skb: sk_buff,
  hook: number,
  indev: net_device | null,
  outdev: net_device | null,
  okfn: Sym<nf_okfn>,
  thresh: number,
): number {
  for (let at = first; at !== null; ) {
    if (at.priority < thresh) {
      at = at.next
      continue
    }
    const verdict = call(at.hook)(hook, skb, indev, outdev, okfn)
    if (verdict === NF_REPEAT) continue
    if (verdict === NF_QUEUE) {
      if (nf_queue(skb, at, hook, indev, outdev, okfn)) return NF_STOLEN
      return NF_DROP
    }
    if (verdict !== NF_ACCEPT) return verdict
    at = at.next
  }
  return NF_ACCEPT
}

/**
 * nf_hook_slow - run the hooks of one point whose priority is `thresh` or more.
 * @consumes skb @returns what okfn says; 0: a hook has the packet now; -EPERM: it was dropped
 */
export function nf_hook_slow(
  hook: number,
  skb: sk_buff,
  indev: net_device | null,
  outdev: net_device | null,
  okfn: Sym<nf_okfn>,
  thresh: number,
): number {
  rcu_read_lock()
  let ret = 0
  const verdict = nf_iterate(NF_HOOK_OPS.at(rcu_dereference(HEADS + hook * 4)), skb, hook, indev, outdev, okfn, thresh)
  if (verdict === NF_ACCEPT) ret = call(okfn)(skb)
  else if (verdict !== NF_STOLEN) {
    kfree_skb(skb, NETFILTER) // what is no verdict at all is a drop: nobody else would free the packet
    ret = -EPERM
  }
  rcu_read_unlock()
  return ret
}

// ---- packets that somebody else decides about -------------------------------------------------------------------------

/** nf_register_queue_handler - one for the machine. @context process @returns 0, or -EBUSY */
export function nf_register_queue_handler(outfn: Sym<nf_queue_outfn>, data: number): number {
  write_lock_bh(nf_hooks.queue_lock)
  const ret = nf_hooks.queue_handler === 0 ? 0 : -EBUSY
  if (ret === 0) {
    nf_hooks.queue_handler = outfn
    nf_hooks.queue_data = data
  }
  write_unlock_bh(nf_hooks.queue_lock)
  return ret
}

/** nf_unregister_queue_handler - no packet is handed to it when this returns. @context process */
export function nf_unregister_queue_handler(): void {
  write_lock_bh(nf_hooks.queue_lock)
  nf_hooks.queue_handler = 0
  nf_hooks.queue_data = 0
  write_unlock_bh(nf_hooks.queue_lock)
}

function hold(dev: net_device | null): void {
  if (dev !== null) dev_hold(dev)
}

/** nf_queue - hand a packet to the queue handler. @consumes skb when it returns true */
function nf_queue(
  skb: sk_buff,
  elem: nf_hook_ops,
  hook: number,
  indev: net_device | null,
  outdev: net_device | null,
  okfn: Sym<nf_okfn>,
): boolean {
  read_lock_bh(nf_hooks.queue_lock)
  const info = nf_hooks.queue_handler === 0 ? null : kmem_cache_alloc(info_cache)
  if (info === null || !try_module_get(elem.owner)) {
    if (info !== null) kmem_cache_free(info_cache, info)
    read_unlock_bh(nf_hooks.queue_lock)
    return false
  }
  info.elem = elem
  info.hook = hook
  info.indev = indev
  info.outdev = outdev
  info.okfn = okfn
  hold(indev)
  hold(outdev)
  const status = call(nf_hooks.queue_handler)(skb, info, nf_hooks.queue_data)
  if (status < 0) release(info)
  read_unlock_bh(nf_hooks.queue_lock)
  return status >= 0
}

function release(info: nf_info): void {
  if (info.indev !== null) dev_put(info.indev)
  if (info.outdev !== null) dev_put(info.outdev)
  module_put(info.elem!.owner)
  kmem_cache_free(info_cache, info)
}

/** Is the hook still in its list? @locks rcu_read_lock */
function listed(elem: nf_hook_ops, hook: number): boolean {
  for (let at = NF_HOOK_OPS.at(rcu_dereference(HEADS + hook * 4)); at !== null; at = at.next)
    if (at === elem) return true
  return false
}

/**
 * nf_reinject - the verdict about a queued packet. @context process with bottom halves off, softirq @consumes skb, info
 */
export function nf_reinject(skb: sk_buff, info: nf_info, given: number): void {
  rcu_read_lock()
  const { hook, indev, outdev, okfn } = info
  const elem = info.elem!
  let verdict = listed(elem, hook) ? given : NF_DROP // what it was for is gone
  if (verdict === NF_ACCEPT || verdict === NF_REPEAT) {
    const first = verdict === NF_REPEAT ? elem : elem.next
    verdict = nf_iterate(first, skb, hook, indev, outdev, okfn, INT_MIN)
  } else if (verdict === NF_QUEUE) verdict = nf_queue(skb, elem, hook, indev, outdev, okfn) ? NF_STOLEN : NF_DROP
  if (verdict === NF_ACCEPT) call(okfn)(skb)
  else if (verdict !== NF_STOLEN) kfree_skb(skb, NETFILTER)
  rcu_read_unlock()
  release(info)
}

/** netfilter_init - @context boot, CPU 0 */
export function netfilter_init(): void {
  spin_lock_init(nf_hooks.lock)
  rwlock_init(nf_hooks.queue_lock)
}
