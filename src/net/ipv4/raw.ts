/**
 * raw.ts - raw sockets: packets of one protocol with their IP headers in, without or with them (IP_HDRINCL) out (net/ipv4/raw.c of
 * 2.6.11).
 *
 * Lock charter
 *   A packet that is put together belongs to who owns the socket. raw_hash.ts has the chains.
 */
import { symbol } from '../../abi/symbol.js'
import {
  EADDRNOTAVAIL,
  EDESTADDRREQ,
  EFAULT,
  EINVAL,
  EMSGSIZE,
  ENOBUFS,
  ENOPROTOOPT,
  EOPNOTSUPP,
} from '../../lib/errno.js'
import { copy_from_user, copy_to_user, get_user, put_user } from '../../sched/mm.js'
import { local_bh_disable, local_bh_enable } from '../../sync/bh.js'
import { skb_copy_datagram_iovec, skb_free_datagram, skb_recv_datagram } from '../core/datagram.js'
import { dst_hold } from '../core/dst.js'
import { drop_reason, fate_made } from '../core/fate.js'
import { memcpy_fromiovecend } from '../core/iovec.js'
import { NF_HOOK, NF_IP_LOCAL_OUT } from '../core/netfilter.js'
import { sock_recv_timestamp } from '../core/scm.js'
import { consume_skb, kfree_skb, skb_put, skb_reserve } from '../core/skbuff.js'
import { lock_sock, release_sock, sk_dst_reset } from '../core/sock.js'
import { sock_alloc_send_skb } from '../core/sock_mem.js'
import {
  MSG_DONTWAIT,
  MSG_ERRQUEUE,
  MSG_MORE,
  MSG_OOB,
  MSG_PROBE,
  MSG_TRUNC,
  type msghdr,
  SOCK_BINDADDR_LOCK,
  SOCKADDR_IN_SIZE,
  type sock,
  TCP_CLOSE,
  TCP_ESTABLISHED,
} from '../core/sock_types.js'
import type { Call } from '../core/socket.js'
import { ACCT_LOCAL, CHECKSUM_NONE, NET_XMIT_CN, SKB, type sk_buff } from '../core/types.js'
import { IPPROTO_ICMP, ip_hdrlen, ip_id, ip_saddr, set_ip_id, set_ip_saddr, set_ip_tot_len } from '../wire/ipv4.js'
import { raw_ioctl } from './dgram_poll.js'
import { inet_addr_type } from './fib_frontend.js'
import { RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST } from './fib_types.js'
import { sk_common_release } from './inet_life.js'
import { inet_sk, type proto } from './inet_sock.js'
import { ip_append_data, ip_flush_pending_frames, ip_push_pending_frames } from './ip_append.js'
import {
  type Destination,
  destination_of,
  dgram_confirm,
  free_options,
  ip_cmsg_send,
  ip_dgram_route,
} from './ip_dgram_route.js'
import { ip_local_error, ip_recv_error } from './ip_errqueue.js'
import { ip_select_ident } from './ip_ident.js'
import { dst_output_sym, ip_send_check } from './ip_output.js'
import { ip_ra_control } from './ip_ra.js'
import { ip_cmsg_recv, ip_getsockopt, ip_setsockopt } from './ip_sockglue.js'
import { ip_stats } from './mib.js'
import { RAW_SOCK, raw_sk, raw_v4_hash, raw_v4_unhash } from './raw_hash.js'
import { ip_rt_put } from './route.js'
import { RTABLE, type rtable } from './types.js'
import { ip4_datagram_connect, set_sockaddr_in, sin_addr, sin_family } from './udp.js'

const FILTER = RAW_SOCK.offset('filter')
const NOT_SENT = drop_reason('not_specified')
const HH_LEN = 16
export const IPPROTO_RAW = 255
export const SOL_RAW = 255
export const ICMP_FILTER = 1

// ---- sending --------------------------------------------------------------------------------------------------------

/** A header that is none goes out as it is; what a good one lacks is filled in. */
function complete_header(iph: number, length: number, rt: rtable): void {
  if (length < 20 || ip_hdrlen(iph) > length || ip_hdrlen(iph) < 20) return
  if (ip_saddr(iph) === 0) set_ip_saddr(iph, rt.rt_src)
  set_ip_tot_len(iph, length)
  if (ip_id(iph) === 0) set_ip_id(iph, ip_select_ident(rt))
  ip_send_check(iph)
}

/** raw_send_hdrinc - the program's own header. @context process @returns 0, -errno */
function* raw_send_hdrinc(sk: sock, msg: msghdr, length: number, rt: rtable): Call {
  const inet = inet_sk(sk)
  const dev = rt.dst.dev!
  if (length > dev.mtu) {
    ip_local_error(sk, EMSGSIZE, rt.rt_dst, inet.dport, dev.mtu)
    return -EMSGSIZE
  }
  if ((msg.msg_flags & MSG_PROBE) !== 0) return 0
  const got = yield* sock_alloc_send_skb(sk, length + HH_LEN + 15, (msg.msg_flags & MSG_DONTWAIT) !== 0)
  if (got < 0) {
    ip_stats.OutDiscards++
    return got
  }
  const skb = SKB.ref(got)
  skb_reserve(skb, HH_LEN)
  skb.priority = sk.sk_priority
  skb.nh = skb_put(skb, length)
  skb.h = skb.nh
  skb.ip_summed = CHECKSUM_NONE
  if (memcpy_fromiovecend(skb.nh, msg.msg_iov, 0, length) !== 0) {
    consume_skb(skb)
    ip_stats.OutDiscards++
    return -EFAULT
  }
  complete_header(skb.nh, length, rt)
  dst_hold(rt.dst)
  skb.dst = rt.dst
  skb.acct = ACCT_LOCAL
  fate_made()
  let err = length === 0 ? drop_empty(skb) : NF_HOOK(NF_IP_LOCAL_OUT, skb, null, skb.dst!.dev, dst_output_sym)
  if (err > 0) err = inet.recverr !== 0 && err !== NET_XMIT_CN ? -ENOBUFS : 0
  if (err < 0) ip_stats.OutDiscards++
  return err
}
/** A packet of nothing has no place on a wire. @consumes skb */
function drop_empty(skb: sk_buff): number {
  kfree_skb(skb, NOT_SENT)
  return 0
}

/** Whom it is for. @returns 0, -errno */
function destination(sk: sock, msg: msghdr, to: Destination): number {
  if (msg.msg_namelen !== 0) {
    if (msg.msg_namelen < SOCKADDR_IN_SIZE) return -EINVAL
    if (sin_family(msg.msg_name) !== 2 && sin_family(msg.msg_name) !== 0) return -EINVAL
    to.daddr = sin_addr(msg.msg_name)
  } else {
    if (sk.sk_state !== TCP_ESTABLISHED) return -EDESTADDRREQ
    to.daddr = inet_sk(sk).daddr
    to.connected = false // raw sockets ask for the route each time
  }
  return msg.msg_controllen > 0 ? ip_cmsg_send(msg, to) : 0
}

function* send_to(sk: sock, msg: msghdr, len: number, to: Destination, rt: rtable): Call {
  const flags = msg.msg_flags
  if (dgram_confirm(rt, flags, len)) return 0
  if (inet_sk(sk).hdrincl !== 0) return yield* raw_send_hdrinc(sk, msg, len, rt)
  yield* lock_sock(sk)
  const final = to.daddr !== 0 ? to.daddr : rt.rt_dst
  let err = yield* ip_append_data(sk, msg.msg_iov, len, 0, rt, flags, to.opt, final)
  if (err !== 0) ip_flush_pending_frames(sk)
  else if ((flags & MSG_MORE) === 0) err = ip_push_pending_frames(sk)
  release_sock(sk)
  return err
}

/** raw_sendmsg - @context process @locks takes the socket @returns bytes, -errno */
function* raw_sendmsg(sk: sock, msg: msghdr, len: number): Call {
  if (len < 0 || len > 0xffff) return -EMSGSIZE
  if ((msg.msg_flags & MSG_OOB) !== 0) return -EOPNOTSUPP
  const to = destination_of(sk)
  let err = destination(sk, msg, to)
  if (err === 0 && to.opt !== 0 && inet_sk(sk).hdrincl !== 0) err = -EINVAL // headers of programs are theirs
  const found = err === 0 ? ip_dgram_route(sk, to, msg.msg_flags) : err
  if (found >= 0) {
    err = yield* send_to(sk, msg, len, to, RTABLE.ref(found))
    ip_rt_put(RTABLE.ref(found))
  } else err = found
  free_options(to)
  return err < 0 ? err : len
}

// ---- receiving ------------------------------------------------------------------------------------------------------

/** raw_recvmsg - the next packet, header and all. @context process @returns bytes, -errno */
function* raw_recvmsg(sk: sock, msg: msghdr, len: number, noblock: boolean, flags: number): Call {
  if ((flags & MSG_OOB) !== 0) return -EOPNOTSUPP
  if ((flags & MSG_ERRQUEUE) !== 0) return ip_recv_error(sk, msg, len, ip_cmsg_recv)
  const got = yield* skb_recv_datagram(sk, flags, noblock)
  if (got <= 0) return got
  const skb = SKB.ref(got)
  const size = skb.len
  if (size > len) msg.msg_flags |= MSG_TRUNC
  const copied = Math.min(size, len)
  const err = skb_copy_datagram_iovec(skb, 0, msg.msg_iov, copied)
  if (err === 0) {
    sock_recv_timestamp(msg, sk, skb)
    if (msg.msg_name !== 0) set_sockaddr_in(msg.msg_name, ip_saddr(skb.nh), 0)
    msg.msg_namelen = SOCKADDR_IN_SIZE
    if (inet_sk(sk).cmsg_flags !== 0) ip_cmsg_recv(msg, sk, skb)
  }
  skb_free_datagram(sk, skb)
  return err !== 0 ? err : (flags & MSG_TRUNC) !== 0 ? size : copied
}

// ---- life, addresses, options ---------------------------------------------------------------------------------------

/** raw_bind - an address, and no port. @context process @returns 0, -EINVAL, -EADDRNOTAVAIL */
function* raw_bind(sk: sock, addr: number, addr_len: number): Call {
  if (sk.sk_state !== TCP_CLOSE || addr_len < SOCKADDR_IN_SIZE) return -EINVAL
  const s_addr = sin_addr(addr)
  local_bh_disable()
  const kind = inet_addr_type(s_addr)
  local_bh_enable()
  const group = kind === RTN_MULTICAST || kind === RTN_BROADCAST
  if (s_addr !== 0 && kind !== RTN_LOCAL && !group) return -EADDRNOTAVAIL
  const inet = inet_sk(sk)
  yield* lock_sock(sk) // 2.6.11 takes no lock here
  inet.rcv_saddr = s_addr
  inet.saddr = group ? 0 : s_addr
  sk_dst_reset(sk)
  release_sock(sk)
  return 0
}

/** raw_disconnect - udp_disconnect, for raw sockets: it also takes the socket off its chain. @locks the socket is the caller's */
function raw_disconnect(sk: sock, _flags: number): number {
  const inet = inet_sk(sk)
  sk.sk_state = TCP_CLOSE
  inet.daddr = 0
  inet.dport = 0
  sk.sk_bound_dev_if = 0
  if ((sk.sk_userlocks & SOCK_BINDADDR_LOCK) === 0) {
    inet.rcv_saddr = 0
    inet.saddr = 0
  }
  raw_v4_unhash(sk)
  inet.sport = 0
  sk_dst_reset(sk)
  return 0
}

function* raw_setsockopt(sk: sock, level: number, optname: number, optval: number, optlen: number): Call {
  if (level !== SOL_RAW) return yield* ip_setsockopt(sk, level, optname, optval, optlen)
  if (optname !== ICMP_FILTER) return -ENOPROTOOPT
  if (inet_sk(sk).num !== IPPROTO_ICMP) return -EOPNOTSUPP
  const raw = raw_sk(sk)
  return copy_from_user(raw.addr + FILTER, optval, Math.min(optlen, 4)) === 0 ? 0 : -EFAULT
}
function* raw_getsockopt(sk: sock, level: number, optname: number, optval: number, optlen: number): Call {
  if (level !== SOL_RAW) return yield* ip_getsockopt(sk, level, optname, optval, optlen)
  if (optname !== ICMP_FILTER) return -ENOPROTOOPT
  if (inet_sk(sk).num !== IPPROTO_ICMP) return -EOPNOTSUPP
  const len = get_user(optlen)
  if (len === null) return -EFAULT
  if (len < 0) return -EINVAL
  const n = Math.min(len, 4)
  if (put_user(n, optlen) !== 0) return -EFAULT
  return copy_to_user(optval, raw_sk(sk).addr + FILTER, n) === 0 ? 0 : -EFAULT
}

/** raw_init - what inet_create does for raw sockets. @context process */
function raw_init(sk: sock): number {
  const inet = inet_sk(sk)
  inet.num = sk.sk_protocol
  inet.hdrincl = sk.sk_protocol === IPPROTO_RAW ? 1 : 0
  inet.sport = inet.num
  raw_sk(sk).filter = 0
  raw_v4_hash(sk)
  return 0
}

function* raw_close(sk: sock, _timeout: number): Call {
  yield* lock_sock(sk)
  ip_flush_pending_frames(sk) // 2.6.11 forgets what MSG_MORE left
  release_sock(sk)
  ip_ra_control(sk, false)
  raw_v4_unhash(sk)
  sk_common_release(sk)
  return 0
}

export const raw_prot: proto = {
  name: 'RAW',
  init: raw_init,
  close: raw_close,
  bind: raw_bind,
  connect: ip4_datagram_connect,
  disconnect: raw_disconnect,
  setsockopt: raw_setsockopt,
  getsockopt: raw_getsockopt,
  sendmsg: raw_sendmsg,
  recvmsg: raw_recvmsg,
  ioctl: raw_ioctl,
  backlog_rcv: 0,
  unhash: raw_v4_unhash,
  get_port: () => 0,
}
export const raw_prot_sym = symbol('raw_prot', raw_prot)
export { raw_hash_init } from './raw_hash.js'
