/**
 * ip_errqueue.ts - the error queue of a socket (IP_RECVERR): what ICMP reports and what the machine itself refused, with the
 * datagram that it was about (the first half of net/ipv4/ip_sockglue.c of 2.6.11).
 *
 * Lock charter
 *   sk_error_queue.lock guards the queue; sk_err follows the queue's head under it, as far as errors of the queue go.
 */
import { by, bytes, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { call } from '../../abi/symbol.js'
import { load, store } from '../../arch/atomic.js'
import { RAM } from '../../arch/ram.js'
import { EAGAIN, ENOMEM } from '../../lib/errno.js'
import { KSTACK_WORDS, task_kstack } from '../../sched/mm.js'
import { current } from '../../sched/sched.js'
import { spin_lock_irqsave, spin_unlock_irqrestore } from '../../sync/spinlock.js'
import { skb_copy_datagram_iovec } from '../core/datagram.js'
import { put_cmsg, sock_recv_timestamp } from '../core/scm.js'
import { skb_dequeue, skb_peek, skb_queue_tail } from '../core/skb_queue.js'
import { __skb_pull, alloc_skb, attach_cb, consume_skb, skb_clone, skb_put } from '../core/skbuff.js'
import { sock_flag } from '../core/sock.js'
import { skb_set_owner_r, sock_rmem } from '../core/sock_mem.js'
import { OPT_SCRATCH } from '../core/sock_opt.js'
import { AF_INET, MSG_ERRQUEUE, MSG_TRUNC, type msghdr, SOCK, SOCK_DEAD, type sock } from '../core/sock_types.js'
import type { sk_buff } from '../core/types.js'
import { ICMP_HLEN, icmp_code, icmp_type } from '../wire/icmp.js'
import { ip_saddr, set_ip_daddr } from '../wire/ipv4.js'
import { inet_sk } from './inet_sock.js'

const i32 = RAM.i32
const u8 = RAM.u8
const dv = RAM.dv
const ERR = SOCK.offset('sk_err')

const SOL_IP = 0
const IP_RECVERR = 11
export const SO_EE_ORIGIN_LOCAL = 1
export const SO_EE_ORIGIN_ICMP = 2

class sock_exterr_skb extends Struct {
  declare ee_errno: number
  declare ee_origin: number
  declare ee_type: number
  declare ee_code: number
  declare ee_info: number
  declare addr_offset: number
  declare port: number
  declare room: number
}
/** SKB_EXT_ERR: what a packet of the error queue has in skb.cb. */
const EXT_ERR: Layout<sock_exterr_skb> = layout('sock_exterr_skb', sock_exterr_skb, {
  ee_errno: by('sk_error_queue.lock', word),
  ee_origin: word,
  ee_type: word,
  ee_code: word,
  ee_info: word, // the MTU, or the bad byte
  addr_offset: word, // from the IP header to the address that the datagram was for
  port: word,
  room: bytes(4),
})
attach_cb(EXT_ERR as unknown as Layout<Struct>)

/** sock_queue_err_skb - @consumes skb if it returns 0 @returns 0, -ENOMEM: the receive buffer is full */
function sock_queue_err_skb(sk: sock, skb: sk_buff): number {
  if (sock_rmem(sk) + skb.truesize >= sk.sk_rcvbuf) return -ENOMEM
  skb.dev = null
  skb_set_owner_r(skb, sk)
  const { len } = skb
  skb_queue_tail(sk.sk_error_queue, skb)
  if (!sock_flag(sk, SOCK_DEAD)) call(sk.sk_data_ready)(sk, len)
  return 0
}

/**
 * ip_icmp_error - an ICMP error about a datagram of this socket: skb.h is the message, `payload` what the program had sent.
 * @context softirq; the packet stays the caller's
 */
export function ip_icmp_error(
  sk: sock,
  skb: sk_buff,
  errno: number,
  port: number,
  info: number,
  payload: number,
): void {
  if (inet_sk(sk).recverr === 0) return
  const copy = skb_clone(skb)
  if (copy === null) return
  const serr = EXT_ERR.ref(copy.cb)
  serr.ee_errno = errno
  serr.ee_origin = SO_EE_ORIGIN_ICMP
  serr.ee_type = icmp_type(skb.h)
  serr.ee_code = icmp_code(skb.h)
  serr.ee_info = info
  serr.addr_offset = skb.h + ICMP_HLEN + 16 - skb.nh
  serr.port = port
  const pull = payload - copy.data
  if (pull > copy.len - copy.data_len) {
    consume_skb(copy)
    return
  }
  __skb_pull(copy, pull)
  if (sock_queue_err_skb(sk, copy) !== 0) consume_skb(copy)
}

/** ip_local_error - this machine refuses to send. @context process */
export function ip_local_error(sk: sock, errno: number, daddr: number, port: number, info: number): void {
  if (inet_sk(sk).recverr === 0) return
  const skb = alloc_skb(20)
  if (skb === null) return
  skb.nh = skb_put(skb, 20)
  set_ip_daddr(skb.nh, daddr)
  const serr = EXT_ERR.ref(skb.cb)
  serr.ee_errno = errno
  serr.ee_origin = SO_EE_ORIGIN_LOCAL
  serr.ee_type = 0
  serr.ee_code = 0
  serr.ee_info = info
  serr.addr_offset = 16
  serr.port = port
  __skb_pull(skb, 20)
  skb.h = skb.data
  if (sock_queue_err_skb(sk, skb) !== 0) consume_skb(skb)
}

/** struct sock_extended_err and the address of who complains. */
const ERRHDR = 32
function write_errhdr(at: number, serr: sock_exterr_skb, skb: sk_buff): void {
  u8.fill(0, at, at + ERRHDR)
  i32[at >> 2] = serr.ee_errno
  u8[at + 4] = serr.ee_origin
  u8[at + 5] = serr.ee_type
  u8[at + 6] = serr.ee_code
  i32[(at + 8) >> 2] = serr.ee_info
  if (serr.ee_origin !== SO_EE_ORIGIN_ICMP) return
  dv.setUint16(at + 16, AF_INET, true)
  dv.setInt32(at + 20, ip_saddr(skb.nh))
}

/** The next error of the queue is the socket's. */
function next_error(sk: sock): void {
  const irq = spin_lock_irqsave(sk.sk_error_queue.lock)
  const next = skb_peek(sk.sk_error_queue)
  store(sk.addr + ERR, next === null ? 0 : EXT_ERR.ref(next.cb).ee_errno)
  spin_unlock_irqrestore(sk.sk_error_queue.lock, irq)
  if (next !== null) call(sk.sk_error_report)(sk)
}

/** ip_recv_error - recvmsg with MSG_ERRQUEUE. @context process @returns bytes of the datagram, -EAGAIN, -EFAULT */
export function ip_recv_error(
  sk: sock,
  msg: msghdr,
  len: number,
  cmsg_recv: (msg: msghdr, sk: sock, skb: sk_buff, error: boolean) => void,
): number {
  const skb = skb_dequeue(sk.sk_error_queue)
  if (skb === null) return -EAGAIN
  if (skb.len > len) msg.msg_flags |= MSG_TRUNC
  const copied = Math.min(skb.len, len)
  const err = skb_copy_datagram_iovec(skb, 0, msg.msg_iov, copied)
  if (err === 0) {
    sock_recv_timestamp(msg, sk, skb)
    const serr = EXT_ERR.ref(skb.cb)
    if (msg.msg_name !== 0) {
      dv.setUint16(msg.msg_name, AF_INET, true)
      dv.setUint16(msg.msg_name + 2, serr.port)
      dv.setInt32(msg.msg_name + 4, dv.getInt32(skb.nh + serr.addr_offset))
      u8.fill(0, msg.msg_name + 8, msg.msg_name + 16)
    }
    msg.msg_namelen = 16
    if (serr.ee_origin === SO_EE_ORIGIN_ICMP) cmsg_recv(msg, sk, skb, true)
    const at = task_kstack(current()).words + KSTACK_WORDS - OPT_SCRATCH
    write_errhdr(at, serr, skb)
    put_cmsg(msg, SOL_IP, IP_RECVERR, ERRHDR, at)
    msg.msg_flags |= MSG_ERRQUEUE
    next_error(sk)
  }
  consume_skb(skb)
  return err !== 0 ? err : copied
}

/** ip_errqueue_purge - IP_RECVERR was taken back. @context process */
export function ip_errqueue_purge(sk: sock): void {
  for (let skb = skb_dequeue(sk.sk_error_queue); skb !== null; skb = skb_dequeue(sk.sk_error_queue)) consume_skb(skb)
}
/** sock_err_pending - for poll. */
export function sock_err_pending(sk: sock): boolean {
  return load(sk.addr + ERR) !== 0
}
