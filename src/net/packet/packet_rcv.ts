/**
 * packet_rcv.ts - what a packet socket is given, and what its program gets of it. No locks of its own: the queue's guards the
 * statistics as well.
 */
import { call, symbol } from '../../abi/symbol.js'
import { cost } from '../../arch/cost.js'
import { tick } from '../../arch/cpu.js'
import { RAM } from '../../arch/ram.js'
import { EINVAL } from '../../lib/errno.js'
import { spin_lock_irqsave, spin_unlock_irqrestore } from '../../sync/spinlock.js'
import {
  skb_copy_datagram_iovec,
  skb_free_datagram,
  skb_recv_datagram,
  skb_recv_datagram_fast,
} from '../core/datagram.js'
import { dst_release } from '../core/dst.js'
import { drop_reason, fate_delivered } from '../core/fate.js'
import { run_filter, sk_has_filter } from '../core/filter.js'
import type { packet_type } from '../core/packet_type.js'
import { sock_recv_timestamp } from '../core/scm.js'
import { __skb_queue_tail } from '../core/skb_queue.js'
import { __skb_pull, consume_skb, kfree_skb, pskb_trim, skb_push, skb_share_check } from '../core/skbuff.js'
import { skb_set_owner_r, sock_rmem } from '../core/sock_mem.js'
import {
  MSG_DONTWAIT,
  MSG_PEEK,
  MSG_TRUNC,
  type msghdr,
  SOCK_DGRAM,
  type sock,
  type socket,
} from '../core/sock_types.js'
import type { Call } from '../core/socket.js'
import { ACCT_NONE, type net_device, PACKET_LOOPBACK, PACKET_OUTGOING, SKB, type sk_buff } from '../core/types.js'
import {
  AF_PACKET,
  PACKET_SOCK,
  type packet_sock,
  pkt_sk,
  SLL_ADDR,
  SLL_HALEN,
  SLL_HATYPE,
  SLL_IFINDEX,
  SLL_PKTTYPE,
  SLL_PROTOCOL,
  SOCKADDR_LL_SIZE,
} from './types.js'

const dv = RAM.dv
const u8 = RAM.u8
const COST_RCV = cost('packet_rcv')
const SOCKET_FULL = drop_reason('socket_full')
const SOCKET_FILTER = drop_reason('socket_filter')
const ETH_ALEN = 6

/** Who sent it, how: a sockaddr_ll in the packet's control block. */
function write_sll(skb: sk_buff, dev: net_device): void {
  const sll = skb.cb
  dv.setUint16(sll, AF_PACKET, true)
  dv.setUint16(sll + SLL_PROTOCOL, skb.protocol)
  dv.setInt32(sll + SLL_IFINDEX, dev.ifindex, true)
  dv.setUint16(sll + SLL_HATYPE, dev.type, true)
  u8[sll + SLL_PKTTYPE] = skb.pkt_type
  u8[sll + SLL_HALEN] = ETH_ALEN
  u8.copyWithin(sll + SLL_ADDR, skb.mac + ETH_ALEN, skb.mac + 2 * ETH_ALEN) // eth_header_parse
  u8[sll + SLL_ADDR + 6] = 0
  u8[sll + SLL_ADDR + 7] = 0
}

function count_drop(po: packet_sock): void {
  const irq = spin_lock_irqsave(po.sk.sk_receive_queue.lock)
  po.tp_drops++
  spin_unlock_irqrestore(po.sk.sk_receive_queue.lock, irq)
}

/** Where the socket's view of a packet begins. */
function to_header(sk: sock, skb: sk_buff): void {
  if (sk.sk_type !== SOCK_DGRAM) skb_push(skb, skb.data - skb.mac)
  else if (skb.pkt_type === PACKET_OUTGOING) __skb_pull(skb, skb.nh - skb.data) // what goes out still has its header
}
/** What the filter says of a packet that may be others' as well: nothing of it is changed. */
function filter_given(sk: sock, skb: sk_buff): number {
  const { data, len } = skb
  to_header(sk, skb)
  const wanted = run_filter(sk, skb, skb.len)
  skb.data = data
  skb.len = len
  return wanted
}

/**
 * packet_rcv - a packet for this socket. It may be everybody's: what the socket keeps is its own then. The socket is there as long as
 * the grace period in which its hook was found. @context softirq, or bottom halves off @consumes given
 */
function packet_rcv(given: sk_buff, dev: net_device, pt: packet_type): number {
  tick(COST_RCV)
  const po = PACKET_SOCK.ref(pt.af_packet_priv)
  const { sk } = po
  if (given.pkt_type === PACKET_LOOPBACK) {
    consume_skb(given)
    return 0
  }
  const wanted = sk_has_filter(sk) ? filter_given(sk, given) : 0xffffffff
  if (wanted === 0) {
    kfree_skb(given, SOCKET_FILTER)
    return 0
  }
  if (sock_rmem(sk) + given.truesize >= sk.sk_rcvbuf) {
    count_drop(po)
    kfree_skb(given, SOCKET_FULL)
    return 0
  }
  const skb = skb_share_check(given)
  if (skb === null) {
    count_drop(po)
    return 0
  }
  to_header(sk, skb)
  if (pskb_trim(skb, wanted) !== 0) {
    count_drop(po)
    kfree_skb(skb, SOCKET_FULL)
    return 0
  }
  write_sll(skb, dev)
  skb_set_owner_r(skb, sk)
  skb.dev = null
  if (skb.dst !== null) dst_release(skb.dst)
  skb.dst = null
  fate_delivered(skb.acct)
  skb.acct = ACCT_NONE
  const { len } = skb
  const irq = spin_lock_irqsave(sk.sk_receive_queue.lock)
  po.tp_packets++
  __skb_queue_tail(sk.sk_receive_queue, skb)
  spin_unlock_irqrestore(sk.sk_receive_queue.lock, irq)
  call(sk.sk_data_ready)(sk, len)
  return 0
}
export const packet_rcv_sym = symbol('packet_rcv', packet_rcv)

/** What the program gets of a packet. @returns bytes, -EFAULT */
function copy_out(sk: sock, skb: sk_buff, msg: msghdr, len: number, flags: number): number {
  const copied = Math.min(skb.len, len)
  if (skb.len > len) msg.msg_flags |= MSG_TRUNC
  const err = skb_copy_datagram_iovec(skb, 0, msg.msg_iov, copied)
  if (err !== 0) return err
  sock_recv_timestamp(msg, sk, skb)
  if (msg.msg_name !== 0) u8.copyWithin(msg.msg_name, skb.cb, skb.cb + SOCKADDR_LL_SIZE)
  msg.msg_namelen = SOCKADDR_LL_SIZE
  return (flags & MSG_TRUNC) !== 0 ? skb.len : copied
}

/** packet_recvmsg - @context process @returns bytes (MSG_TRUNC: of the packet), -EINVAL, -ENETDOWN, -EAGAIN, -EINTR, -EFAULT */
export function* packet_recvmsg(sock: socket, msg: msghdr, len: number, flags: number): Call {
  const sk = sock.sk!
  if ((flags & ~(MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC)) !== 0) return -EINVAL
  const noblock = (flags & MSG_DONTWAIT) !== 0
  let got = skb_recv_datagram_fast(sk, flags, noblock)
  if (got === 1) got = yield* skb_recv_datagram(sk, flags, noblock)
  if (got <= 0) return got
  const skb = SKB.ref(got)
  const ret = copy_out(sk, skb, msg, len, flags)
  skb_free_datagram(sk, skb)
  return ret
}

/** packet_statistics - since they were last asked for: all that came, and those of them that were lost. @returns [packets, drops] */
export function packet_statistics(sk: sock): [number, number] {
  const po = pkt_sk(sk)
  const irq = spin_lock_irqsave(sk.sk_receive_queue.lock)
  const { tp_packets, tp_drops } = po
  po.tp_packets = 0
  po.tp_drops = 0
  spin_unlock_irqrestore(sk.sk_receive_queue.lock, irq)
  return [tp_packets + tp_drops, tp_drops]
}
