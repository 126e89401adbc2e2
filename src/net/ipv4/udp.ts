/**
 * udp.ts - the User Datagram Protocol for programs: sending, corking, receiving, connecting.
 *
 * Lock charter
 *   A datagram that is put together (pending, len, the cork) is the socket owner's. Receiving takes no socket lock, and what a
 *   sender without a cork reads of its own addresses may change under it, as in 2.6.11: it sees the old or the new ones.
 */
import { by, embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { symbol } from '../../abi/symbol.js'
import { cost } from '../../arch/cost.js'
import { tick } from '../../arch/cpu.js'
import { RAM } from '../../arch/ram.js'
import { jiffies } from '../../irq/timer.js'
import { csum_partial, csum_tcpudp_magic, csum_tcpudp_nofold } from '../../lib/checksum.js'
import {
  EACCES,
  EAFNOSUPPORT,
  EAGAIN,
  EDESTADDRREQ,
  EFAULT,
  EINVAL,
  EMSGSIZE,
  ENOPROTOOPT,
  EOPNOTSUPP,
} from '../../lib/errno.js'
import { get_user, put_user } from '../../sched/mm.js'
import { spin_lock_irqsave, spin_unlock_irqrestore } from '../../sync/spinlock.js'
import {
  skb_checksum,
  skb_copy_and_csum_datagram_iovec,
  skb_copy_datagram_iovec,
  skb_free_datagram,
  skb_recv_datagram,
  skb_recv_datagram_fast,
} from '../core/datagram.js'
import { drop_reason } from '../core/fate.js'
import { sock_recv_timestamp } from '../core/scm.js'
import { __skb_unlink, skb_peek, skb_queue_empty } from '../core/skb_queue.js'
import { kfree_skb } from '../core/skbuff.js'
import {
  attach_sock,
  lock_sock,
  release_sock,
  sk_dst_reset,
  sk_dst_set,
  sock_flag,
  try_lock_sock,
} from '../core/sock.js'
import {
  AF_INET,
  AF_UNSPEC,
  MSG_ERRQUEUE,
  MSG_MORE,
  MSG_OOB,
  MSG_PEEK,
  MSG_TRUNC,
  type msghdr,
  SOCK_BINDADDR_LOCK,
  SOCK_BINDPORT_LOCK,
  SOCK_BROADCAST,
  SOCKADDR_IN_SIZE,
  type sock,
  TCP_CLOSE,
  TCP_ESTABLISHED,
  UDP_CSUM_NOXMIT,
} from '../core/sock_types.js'
import type { Call } from '../core/socket.js'
import { CHECKSUM_HW, CHECKSUM_NONE, CHECKSUM_UNNECESSARY, SKB, type sk_buff } from '../core/types.js'
import { IPPROTO_UDP, ip_saddr, ipv4_is_multicast } from '../wire/ipv4.js'
import { set_udp_header, udp_source } from '../wire/udp.js'
import { udp_ioctl } from './dgram_poll.js'
import { sk_common_release } from './inet_life.js'
import { INET_SOCK, inet_sk, type inet_sock, type ip_cork, type proto } from './inet_sock.js'
import { csum_16, ip_append_data, ip_flush_pending_frames, ip_push_pending_frames } from './ip_append.js'
import {
  conn_flags,
  type Destination,
  destination_of,
  dgram_confirm,
  free_options,
  ip_cmsg_send,
  ip_dgram_route,
} from './ip_dgram_route.js'
import { ip_recv_error } from './ip_errqueue.js'
import { ip_cmsg_recv, ip_getsockopt, ip_setsockopt } from './ip_sockglue.js'
import { ip_rt_put } from './route.js'
import { ip_route_connect } from './route_output.js'
import { RTABLE, RTCF_BROADCAST, type rtable } from './types.js'
import { udp_stats, udp_v4_get_port, udp_v4_unhash } from './udp_hash.js'
import { udp_checksum_complete } from './udp_input.js'

const COST_SENDMSG = cost('udp_sendmsg')
const COST_RECVMSG = cost('udp_recvmsg')

const dv = RAM.dv
const u8 = RAM.u8

const CHECKSUM = drop_reason('udp_checksum')
const UDP_HLEN = 8
export const SOL_UDP = 17
export const UDP_CORK = 1

class udp_sock extends Struct {
  declare inet: inet_sock
  declare pending: number
  declare corkflag: number
  declare len: number
}
const UDP_SOCK: Layout<udp_sock> = layout('udp_sock', udp_sock, {
  inet: embed(INET_SOCK),
  pending: by('sk_lock', word), // AF_INET: a datagram is being put together
  corkflag: by('sk_lock', word), // UDP_CORK: it is not sent until that is taken back
  len: by('sk_lock', word), // of it so far, UDP header included
})
attach_sock(UDP_SOCK)
function udp_sk(sk: sock): udp_sock {
  return UDP_SOCK.ref(sk.addr)
}

// struct sockaddr_in at a kernel address: the family as the program's words lie, port and address in network order
export function sin_family(addr: number): number {
  return dv.getUint16(addr, true)
}
export function sin_port(addr: number): number {
  return dv.getUint16(addr + 2)
}
export function sin_addr(addr: number): number {
  return dv.getInt32(addr + 4)
}
export function set_sockaddr_in(addr: number, s_addr: number, port: number): void {
  dv.setUint16(addr, AF_INET, true)
  dv.setUint16(addr + 2, port)
  dv.setInt32(addr + 4, s_addr)
  u8.fill(0, addr + 8, addr + SOCKADDR_IN_SIZE)
}

// ---- sending --------------------------------------------------------------------------------------------------------

function udp_flush_pending_frames(sk: sock): void {
  const up = udp_sk(sk)
  if (up.pending === 0) return
  up.len = 0
  up.pending = 0
  ip_flush_pending_frames(sk)
}

/** The checksum of a datagram in one packet. */
function sum_one(skb: sk_buff, cork: ip_cork, len: number): void {
  const uh = skb.h
  let check: number
  if (skb.ip_summed === CHECKSUM_HW) {
    skb.csum = 6 // where the device puts it; in its place stands the sum of the pseudo header
    check = csum_16(csum_tcpudp_nofold(cork.src, cork.dst, len, IPPROTO_UDP, 0))
  } else
    check = csum_tcpudp_magic(cork.src, cork.dst, len, IPPROTO_UDP, csum_partial(dv, uh, UDP_HLEN, skb.csum)) || 0xffff
  dv.setUint16(uh + 6, check)
}

/** The checksum of a datagram in several packets: no device can sum up over them. */
function sum_all(sk: sock, skb: sk_buff, cork: ip_cork, len: number): void {
  const uh = skb.h
  const at = uh - skb.data
  if (skb.ip_summed === CHECKSUM_HW) {
    skb.csum = csum_16(skb_checksum(skb, at, skb.len - at, 0))
    skb.ip_summed = CHECKSUM_NONE
  } else skb.csum = csum_16(csum_partial(dv, uh, UDP_HLEN, skb.csum))
  let sum = 0
  const head = sk.sk_write_queue.addr
  for (let p = sk.sk_write_queue.next; p !== head; ) {
    const part = SKB.ref(p)
    sum += part.csum
    p = RAM.i32[part.$w]!
  }
  dv.setUint16(uh + 6, csum_tcpudp_magic(cork.src, cork.dst, len, IPPROTO_UDP, sum) || 0xffff)
}

/** udp_push_pending_frames - the datagram is complete. @context process @locks the socket is the caller's @returns 0, -errno */
function udp_push_pending_frames(sk: sock): number {
  const up = udp_sk(sk)
  const skb = skb_peek(sk.sk_write_queue)
  let err = 0
  if (skb !== null) {
    const { cork } = up.inet
    set_udp_header(skb.h, cork.sport, cork.dport, up.len, 0)
    if (sk.sk_no_check === UDP_CSUM_NOXMIT) skb.ip_summed = CHECKSUM_NONE
    else if (sk.sk_write_queue.qlen === 1) sum_one(skb, cork, up.len)
    else sum_all(sk, skb, cork, up.len)
    err = ip_push_pending_frames(sk)
  }
  up.len = 0
  up.pending = 0
  return err
}

/** Whom a message is for. @returns 0, -errno; the address in `to` */
function destination(sk: sock, msg: msghdr, to: Destination): number {
  const inet = inet_sk(sk)
  if (msg.msg_name === 0) {
    if (sk.sk_state !== TCP_ESTABLISHED) return -EDESTADDRREQ
    to.daddr = inet.daddr
    to.dport = inet.dport
    to.connected = true
    return 0
  }
  if (msg.msg_namelen < SOCKADDR_IN_SIZE) return -EINVAL
  const family = sin_family(msg.msg_name)
  if (family !== AF_INET && family !== AF_UNSPEC) return -EAFNOSUPPORT
  to.daddr = sin_addr(msg.msg_name)
  to.dport = sin_port(msg.msg_name)
  return to.dport === 0 ? -EINVAL : 0
}
/** Begin a datagram. @locks the socket is the caller's @returns 0, -EINVAL: one was begun meanwhile */
function begin(sk: sock, rt: rtable, to: Destination): number {
  const up = udp_sk(sk)
  if (up.pending !== 0) return -EINVAL
  const { cork } = up.inet
  cork.dst = to.daddr !== 0 ? to.daddr : rt.rt_dst
  cork.dport = to.dport
  cork.src = rt.rt_src
  cork.sport = up.inet.sport
  up.pending = AF_INET
  return 0
}

/** More of the datagram, and send it if that is all. @locks the socket is the caller's, given back here @returns 0, -errno */
function* append(sk: sock, msg: msghdr, ulen: number, rt: rtable | null, corkreq: boolean, opt = 0): Call {
  const up = udp_sk(sk)
  up.len += ulen
  const flags = corkreq ? msg.msg_flags | MSG_MORE : msg.msg_flags
  let err = yield* ip_append_data(
    sk,
    msg.msg_iov,
    ulen,
    rt === null ? 0 : UDP_HLEN,
    rt ?? RTABLE.ref(up.inet.cork.rt),
    flags,
    opt,
    up.inet.cork.dst,
  )
  if (err !== 0) udp_flush_pending_frames(sk)
  else if (!corkreq || skb_queue_empty(sk.sk_write_queue)) err = udp_push_pending_frames(sk)
  release_sock(sk)
  return err
}

function sent(err: number, len: number): number {
  if (err !== 0) return err
  udp_stats.OutDatagrams++
  return len
}

/** udp_sendmsg - @context process @locks takes the socket @returns bytes, -errno */
function* udp_sendmsg(sk: sock, msg: msghdr, len: number): Call {
  tick(COST_SENDMSG)
  const up = udp_sk(sk)
  const flags = msg.msg_flags
  const corkreq = up.corkflag !== 0 || (flags & MSG_MORE) !== 0
  if (len < 0 || len > 0xffff) return -EMSGSIZE
  if ((flags & MSG_OOB) !== 0) return -EOPNOTSUPP
  if (up.pending !== 0) {
    yield* lock_sock(sk)
    if (up.pending !== 0) return sent(yield* append(sk, msg, len, null, corkreq), len)
    release_sock(sk) // somebody sent it meanwhile
  }
  const to = destination_of(sk)
  const bad = destination(sk, msg, to) || (msg.msg_controllen > 0 ? ip_cmsg_send(msg, to) : 0)
  const found = bad === 0 ? ip_dgram_route(sk, to, flags) : bad
  const ret = found < 0 ? found : yield* send_to(sk, msg, len, to, RTABLE.ref(found), corkreq)
  free_options(to)
  return ret
}

/** @consumes a reference of rt */
function* send_to(sk: sock, msg: msghdr, len: number, to: Destination, rt: rtable, corkreq: boolean): Call {
  if (dgram_confirm(rt, msg.msg_flags, len)) {
    ip_rt_put(rt)
    return sent(0, 0)
  }
  if (!try_lock_sock(sk)) yield* lock_sock(sk)
  let err = begin(sk, rt, to)
  if (err !== 0) release_sock(sk)
  else err = yield* append(sk, msg, len + UDP_HLEN, rt, corkreq, to.opt)
  ip_rt_put(rt)
  return sent(err, len)
}

// ---- receiving ------------------------------------------------------------------------------------------------------

/** What the program gets of a datagram. @returns 0, -EFAULT, -EINVAL: its checksum is wrong */
function copy_out(skb: sk_buff, msg: msghdr, copied: number): number {
  if (skb.ip_summed !== CHECKSUM_UNNECESSARY) {
    if ((msg.msg_flags & MSG_TRUNC) === 0) return skb_copy_and_csum_datagram_iovec(skb, UDP_HLEN, msg.msg_iov)
    if (udp_checksum_complete(skb)) return -EINVAL
  }
  return skb_copy_datagram_iovec(skb, UDP_HLEN, msg.msg_iov, copied) === 0 ? 0 : -EFAULT
}

/** A datagram whose checksum is wrong is as if it had never come. @consumes a reference of skb */
function discard(sk: sock, skb: sk_buff, flags: number): void {
  udp_stats.InErrors++
  if ((flags & MSG_PEEK) !== 0) {
    const queue = sk.sk_receive_queue
    const irq = spin_lock_irqsave(queue.lock)
    const first = skb_peek(queue) === skb
    if (first) __skb_unlink(skb, queue)
    spin_unlock_irqrestore(queue.lock, irq)
    if (first) kfree_skb(skb, CHECKSUM)
  }
  kfree_skb(skb, CHECKSUM)
}

/** udp_recvmsg - the next datagram. @context process @returns bytes, -errno */
function* udp_recvmsg(sk: sock, msg: msghdr, len: number, noblock: boolean, flags: number): Call {
  tick(COST_RECVMSG)
  if ((flags & MSG_ERRQUEUE) !== 0) return ip_recv_error(sk, msg, len, ip_cmsg_recv)
  for (;;) {
    let got = skb_recv_datagram_fast(sk, flags, noblock)
    if (got === 1) got = yield* skb_recv_datagram(sk, flags, noblock)
    if (got <= 0) return got
    const skb = SKB.ref(got)
    const size = skb.len - UDP_HLEN
    if (size > len) msg.msg_flags |= MSG_TRUNC
    const copied = Math.min(size, len)
    const err = copy_out(skb, msg, copied)
    if (err === -EINVAL) {
      discard(sk, skb, flags)
      if (noblock) return -EAGAIN
      continue
    }
    if (err === 0) {
      sock_recv_timestamp(msg, sk, skb)
      if (msg.msg_name !== 0) set_sockaddr_in(msg.msg_name, ip_saddr(skb.nh), udp_source(skb.h))
      msg.msg_namelen = SOCKADDR_IN_SIZE
      if (inet_sk(sk).cmsg_flags !== 0) ip_cmsg_recv(msg, sk, skb)
    }
    skb_free_datagram(sk, skb)
    return err !== 0 ? err : (flags & MSG_TRUNC) !== 0 ? size : copied
  }
}

// ---- connecting -----------------------------------------------------------------------------------------------------

/** ip4_datagram_connect - from here on it is to and from this address only. @context process @locks takes the socket */
export function* ip4_datagram_connect(sk: sock, addr: number, addr_len: number): Call {
  if (addr_len < SOCKADDR_IN_SIZE) return -EINVAL
  if (sin_family(addr) !== AF_INET) return -EAFNOSUPPORT
  yield* lock_sock(sk) // 2.6.11 takes no lock here: two threads could mix two addresses
  const err = connect_locked(sk, sin_addr(addr), sin_port(addr))
  release_sock(sk)
  return err
}

function connect_locked(sk: sock, daddr: number, dport: number): number {
  const inet = inet_sk(sk)
  sk_dst_reset(sk)
  const group = ipv4_is_multicast(daddr)
  const oif = sk.sk_bound_dev_if !== 0 || !group ? sk.sk_bound_dev_if : inet.mc_index
  const saddr = inet.saddr !== 0 || !group ? inet.saddr : inet.mc_addr
  const found = ip_route_connect(daddr, saddr, conn_flags(sk), oif)
  if (found < 0) return found
  const rt = RTABLE.ref(found)
  if ((rt.rt_flags & RTCF_BROADCAST) !== 0 && !sock_flag(sk, SOCK_BROADCAST)) {
    ip_rt_put(rt)
    return -EACCES
  }
  if (inet.saddr === 0) inet.saddr = rt.rt_src
  if (inet.rcv_saddr === 0) inet.rcv_saddr = rt.rt_src
  inet.daddr = rt.rt_dst
  inet.dport = dport
  sk.sk_state = TCP_ESTABLISHED
  inet.id = jiffies() & 0xffff
  sk_dst_set(sk, rt.dst)
  return 0
}

/** udp_disconnect - to and from everybody again. @context process @locks the socket is the caller's */
function udp_disconnect(sk: sock, _flags: number): number {
  const inet = inet_sk(sk)
  sk.sk_state = TCP_CLOSE
  inet.daddr = 0
  inet.dport = 0
  sk.sk_bound_dev_if = 0
  if ((sk.sk_userlocks & SOCK_BINDADDR_LOCK) === 0) {
    inet.rcv_saddr = 0
    inet.saddr = 0
  }
  if ((sk.sk_userlocks & SOCK_BINDPORT_LOCK) === 0) {
    udp_v4_unhash(sk)
    inet.sport = 0
  }
  sk_dst_reset(sk)
  return 0
}

// ---- options, and the protocol as a whole ---------------------------------------------------------------------------

function* udp_setsockopt(sk: sock, level: number, optname: number, optval: number, optlen: number): Call {
  if (level !== SOL_UDP) return yield* ip_setsockopt(sk, level, optname, optval, optlen)
  if (optlen < 4) return -EINVAL
  const val = get_user(optval)
  if (val === null) return -EFAULT
  if (optname !== UDP_CORK) return -ENOPROTOOPT
  const up = udp_sk(sk)
  up.corkflag = val !== 0 ? 1 : 0
  if (val !== 0) return 0
  yield* lock_sock(sk)
  udp_push_pending_frames(sk)
  release_sock(sk)
  return 0
}

function* udp_getsockopt(sk: sock, level: number, optname: number, optval: number, optlen: number): Call {
  if (level !== SOL_UDP) return yield* ip_getsockopt(sk, level, optname, optval, optlen)
  const len = get_user(optlen)
  if (len === null) return -EFAULT
  const n = Math.min(len >>> 0, 4)
  if (len < 0) return -EINVAL
  if (optname !== UDP_CORK) return -ENOPROTOOPT
  if (put_user(n, optlen) !== 0) return -EFAULT
  return put_user(udp_sk(sk).corkflag, optval)
}

function* udp_close(sk: sock, _timeout: number): Call {
  yield* lock_sock(sk)
  udp_flush_pending_frames(sk)
  release_sock(sk)
  udp_v4_unhash(sk)
  sk_common_release(sk)
  return 0
}

export const udp_prot: proto = {
  name: 'UDP',
  init: () => 0,
  close: udp_close,
  connect: ip4_datagram_connect,
  disconnect: udp_disconnect,
  setsockopt: udp_setsockopt,
  getsockopt: udp_getsockopt,
  sendmsg: udp_sendmsg,
  recvmsg: udp_recvmsg,
  ioctl: udp_ioctl,
  backlog_rcv: 0, // datagrams are queued without the socket's lock
  unhash: udp_v4_unhash,
  get_port: udp_v4_get_port,
}
export const udp_prot_sym = symbol('udp_prot', udp_prot)
