/**
 * netfilter.ts - the hook points of the packet paths. A hook nobody registered for costs one load and a test.
 *
 * Lock charter
 *   nf_hook_lock guards changes of the lists; the packet path walks them under rcu_read_lock.
 */
import { embed, type Layout, layout, ptr, rcu, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call, type Sym } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { EPERM } from '../../lib/errno.js'
import { rcu_assign_pointer, rcu_read_lock, rcu_read_unlock, synchronize_kernel } from '../../rcu/rcupdate.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { SPINLOCK, type spinlock_t } from '../../sync/spinlock.js'
import { drop_reason } from './fate.js'
import { kfree_skb } from './skbuff.js'
import type { net_device, sk_buff } from './types.js'

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

export type nf_hookfn = (hook: number, skb: sk_buff, indev: net_device | null, outdev: net_device | null) => number

export class nf_hook_ops extends Struct {
  declare next: nf_hook_ops | null
  declare hook: Sym<nf_hookfn>
  declare hooknum: number
  declare priority: number
}
export const NF_HOOK_OPS: Layout<nf_hook_ops> = layout('nf_hook_ops', nf_hook_ops, {
  next: rcu(ptr(() => NF_HOOK_OPS)),
  hook: word,
  hooknum: word,
  priority: word,
})

class nf_hook_lists extends Struct {
  declare pre_routing: number
  declare local_in: number
  declare forward: number
  declare local_out: number
  declare post_routing: number
  declare lock: spinlock_t
}
const LISTS: Layout<nf_hook_lists> = layout('nf_hook_lists', nf_hook_lists, {
  pre_routing: rcu(word), // addresses of the first nf_hook_ops, one word for each hook
  local_in: rcu(word),
  forward: rcu(word),
  local_out: rcu(word),
  post_routing: rcu(word),
  lock: embed(SPINLOCK),
})
const nf_hooks = DEFINE_STATIC('nf_hooks', LISTS)
const HEADS = nf_hooks.addr >> 2
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

/** nf_hook_active - does anybody listen there? */
export function nf_hook_active(hook: number): boolean {
  return i32[HEADS + hook] !== 0
}

/**
 * nf_hook_slow - run the hooks of one point.
 * @consumes skb unless it returns 1 @returns 1: the packet goes on; 0: a hook has it now; -EPERM: it was dropped
 */
export function nf_hook_slow(hook: number, skb: sk_buff, indev: net_device | null, outdev: net_device | null): number {
  rcu_read_lock()
  let verdict = NF_ACCEPT
  for (let at = NF_HOOK_OPS.at(i32[HEADS + hook]); at !== null; ) {
    verdict = call(at.hook)(hook, skb, indev, outdev)
    if (verdict === NF_REPEAT) continue
    if (verdict !== NF_ACCEPT) break
    at = at.next
  }
  rcu_read_unlock()
  if (verdict === NF_ACCEPT) return 1
  if (verdict === NF_STOLEN) return 0
  // NF_QUEUE without a queue handler is a drop, and so is what is no verdict at all: nobody else would free the packet.
  kfree_skb(skb, NETFILTER)
  return -EPERM
}
