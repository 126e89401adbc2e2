/**
 * packet_type.ts - who takes which protocol: the handlers that netif_receive_skb() calls.
 *
 * Lock charter
 *   The lists are RCU: changed under ptypes.lock, walked under rcu_read_lock.
 */
import { embed, type Layout, layout, ptr, rcu, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import type { Sym } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { rcu_assign_pointer, synchronize_kernel } from '../../rcu/rcupdate.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { SPINLOCK, spin_lock_init, type spinlock_t } from '../../sync/spinlock.js'
import { NETDEV, type net_device, type sk_buff } from './types.js'

const i32 = RAM.i32

export class packet_type extends Struct {
  declare next: packet_type | null
  declare type: number
  declare dev: net_device | null
  declare func: Sym<(skb: sk_buff, dev: net_device, pt: packet_type) => number>
  declare af_packet_priv: number
}
/** ETH_P_ALL taps have type 3 and see a clone of everything. */
export const PACKET_TYPE: Layout<packet_type> = layout('packet_type', packet_type, {
  next: rcu(ptr(() => PACKET_TYPE)),
  type: word,
  dev: ptr(() => NETDEV),
  func: word,
  af_packet_priv: word, // address of the packet socket's sock, 0: none
})
const ETH_P_ALL = 3

class ptype_lists extends Struct {
  declare all: number
  declare base: number
  declare lock: spinlock_t
}
const PTYPES: Layout<ptype_lists> = layout('ptype_lists', ptype_lists, {
  all: rcu(word),
  base: rcu({ kind: 'bytes', size: 64, align: 4 }), // 16 buckets
  lock: embed(SPINLOCK),
})
export const ptypes = DEFINE_STATIC('ptypes', PTYPES)
export const PTYPE_BASE = ptypes.base

/** dev_add_pack - @context process, boot @locks ptypes.lock */
export function dev_add_pack(pt: packet_type): void {
  spin_lock_bh(ptypes.lock)
  const head = pt.type === ETH_P_ALL ? ptypes.addr : PTYPE_BASE + (pt.type & 15) * 4
  i32[pt.$w] = i32[head >> 2]
  rcu_assign_pointer(head, pt.addr)
  spin_unlock_bh(ptypes.lock)
}

/** __dev_remove_pack - a CPU may look at the handler for one more grace period. @context any but hardirq @locks ptypes.lock */
export function __dev_remove_pack(pt: packet_type): void {
  spin_lock_bh(ptypes.lock)
  let slot = pt.type === ETH_P_ALL ? ptypes.addr : PTYPE_BASE + (pt.type & 15) * 4
  while (i32[slot >> 2] !== 0 && i32[slot >> 2] !== pt.addr) slot = i32[slot >> 2]
  if (i32[slot >> 2] !== 0) rcu_assign_pointer(slot, i32[pt.$w])
  spin_unlock_bh(ptypes.lock)
}
/** dev_remove_pack - returns when no CPU looks at the handler any more. @context process */
export function* dev_remove_pack(pt: packet_type): Generator<void, void, void> {
  __dev_remove_pack(pt)
  yield* synchronize_kernel()
}

/** ptype_init - @context boot */
export function ptype_init(): void {
  spin_lock_init(ptypes.lock)
}
