/**
 * skb_queue.ts - lists of packets: a ring through sk_buff.next and prev, with its length.
 *
 * Lock charter
 *   sk_buff_head.lock guards the list's pointers and qlen and those of the packets on it; it is taken with interrupts
 *   off. The calls with two underscores leave locking to the caller. Nothing is called under it.
 */
import { RAM } from '../../arch/ram.js'
import { spin_lock_init, spin_lock_irqsave, spin_unlock_irqrestore } from '../../sync/spinlock.js'
import { kfree_skb } from './skbuff.js'
import { SKB, type sk_buff, type sk_buff_head } from './types.js'

const i32 = RAM.i32

export function skb_queue_head_init(list: sk_buff_head): void {
  spin_lock_init(list.lock)
  list.next = list.addr
  list.prev = list.addr
  list.qlen = 0
}
/** skb_queue_empty - also without the lock, to look for what comes: so it goes by the length, one word that says it all. */
export function skb_queue_empty(list: sk_buff_head): boolean {
  return list.qlen === 0
}
export function skb_queue_len(list: sk_buff_head): number {
  return list.qlen
}
/** First packet, which stays on the list. */
export function skb_peek(list: sk_buff_head): sk_buff | null {
  return list.next === list.addr ? null : SKB.ref(list.next)
}

/** __skb_insert - between two nodes, given by address; a head's next and prev lie where a packet's do. */
function __skb_insert(skb: sk_buff, prev: number, next: number, list: sk_buff_head): void {
  i32[skb.$w] = next
  i32[skb.$w + 1] = prev
  i32[(next >> 2) + 1] = skb.addr
  i32[prev >> 2] = skb.addr
  i32[skb.$w + 2] = list.addr
  list.qlen++
}
/** __skb_queue_tail - @locks the list's, or one that stands for it @consumes skb */
export function __skb_queue_tail(list: sk_buff_head, skb: sk_buff): void {
  __skb_insert(skb, list.prev, list.addr, list)
}
export function __skb_queue_head(list: sk_buff_head, skb: sk_buff): void {
  __skb_insert(skb, list.addr, list.next, list)
}
export function __skb_unlink(skb: sk_buff, list: sk_buff_head): void {
  const w = skb.$w
  const next = i32[w]
  const prev = i32[w + 1]
  i32[(next >> 2) + 1] = prev
  i32[prev >> 2] = next
  i32[w] = 0
  i32[w + 1] = 0
  i32[w + 2] = 0
  list.qlen--
}
export function __skb_dequeue(list: sk_buff_head): sk_buff | null {
  const first = list.next
  if (first === list.addr) return null
  const skb = SKB.ref(first)
  __skb_unlink(skb, list)
  return skb
}

/** skb_queue_tail - @context any @locks list.lock @consumes skb */
export function skb_queue_tail(list: sk_buff_head, skb: sk_buff): void {
  const flags = spin_lock_irqsave(list.lock)
  __skb_queue_tail(list, skb)
  spin_unlock_irqrestore(list.lock, flags)
}
export function skb_queue_head(list: sk_buff_head, skb: sk_buff): void {
  const flags = spin_lock_irqsave(list.lock)
  __skb_queue_head(list, skb)
  spin_unlock_irqrestore(list.lock, flags)
}
/** skb_dequeue - @context any @locks list.lock @returns owned packet, or null */
export function skb_dequeue(list: sk_buff_head): sk_buff | null {
  const flags = spin_lock_irqsave(list.lock)
  const skb = __skb_dequeue(list)
  spin_unlock_irqrestore(list.lock, flags)
  return skb
}
/** skb_queue_purge - drop everything on the list. @locks list.lock */
export function skb_queue_purge(list: sk_buff_head, reason: number): void {
  for (let skb = skb_dequeue(list); skb !== null; skb = skb_dequeue(list)) kfree_skb(skb, reason)
}
