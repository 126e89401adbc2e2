/** inet_life.ts - how a sock of AF_INET ends. */
import { symbol } from '../../abi/symbol.js'
import { BUG_ON } from '../../arch/cpu.js'
import { kfree } from '../../mm/kmalloc.js'
import { dst_release } from '../core/dst.js'
import { skb_dequeue } from '../core/skb_queue.js'
import { consume_skb } from '../core/skbuff.js'
import { sock_flag, sock_orphan, sock_put } from '../core/sock.js'
import { sock_rmem, sock_wmem } from '../core/sock_mem.js'
import { sock_disable_timestamp } from '../core/sock_opt.js'
import { SOCK_DEAD, type sock } from '../core/sock_types.js'
import type { sk_buff_head } from '../core/types.js'
import { inet_sk } from './inet_sock.js'

/** What was delivered, but never received. */
function purge(list: sk_buff_head): void {
  for (let skb = skb_dequeue(list); skb !== null; skb = skb_dequeue(list)) consume_skb(skb)
}

/** inet_sock_destruct - the last reference is gone. @context any but hardirq */
function inet_sock_destruct(sk: sock): void {
  BUG_ON(!sock_flag(sk, SOCK_DEAD), 'destroy of a live sock')
  purge(sk.sk_receive_queue)
  purge(sk.sk_error_queue)
  BUG_ON(sock_rmem(sk) !== 0 || sock_wmem(sk) !== 0, 'sock freed with memory charged')
  sock_disable_timestamp(sk)
  const { opt } = inet_sk(sk)
  if (opt !== 0) kfree(opt)
  if (sk.sk_dst_cache !== null) dst_release(sk.sk_dst_cache)
  sk.sk_dst_cache = null
}
export const inet_sock_destruct_sym = symbol('inet_sock_destruct', inet_sock_destruct)

/** sk_common_release - the program's side is gone; what is on its way still has the sock. @context process @consumes a reference */
export function sk_common_release(sk: sock): void {
  sock_orphan(sk)
  sock_put(sk)
}
