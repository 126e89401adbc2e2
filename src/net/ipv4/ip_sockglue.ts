/** ip_sockglue.ts - the options of SOL_IP, and what recvmsg tells of a packet's IP header. */
import { RAM } from '../../arch/ram.js'
import { EFAULT, EINVAL, ENOMEM, ENOPROTOOPT, ENOTCONN, EOPNOTSUPP, EPERM } from '../../lib/errno.js'
import { kfree, kmalloc } from '../../mm/kmalloc.js'
import { copy_from_user, copy_to_user, get_user, KSTACK_WORDS, put_user, task_kstack } from '../../sched/mm.js'
import { current } from '../../sched/sched.js'
import { local_bh_disable, local_bh_enable } from '../../sync/bh.js'
import { dst_release } from '../core/dst.js'
import { put_cmsg } from '../core/scm.js'
import { lock_sock, release_sock, sk_dst_check, sk_dst_reset } from '../core/sock.js'
import { capable, OPT_SCRATCH } from '../core/sock_opt.js'
import { MSG_CTRUNC, type msghdr, SOCK_RAW, SOCK_STREAM, type sock } from '../core/sock_types.js'
import type { Call } from '../core/socket.js'
import type { sk_buff } from '../core/types.js'
import { ip_daddr, ip_tos, ip_ttl } from '../wire/ipv4.js'
import {
  IP_CMSG_PKTINFO,
  IP_CMSG_RECVOPTS,
  IP_CMSG_RETOPTS,
  IP_CMSG_TOS,
  IP_CMSG_TTL,
  inet_sk,
  type inet_sock,
} from './inet_sock.js'
import { ip_errqueue_purge } from './ip_errqueue.js'
import { ip_tos2prio } from './ip_forward.js'
import {
  IP_OPTIONS,
  ip_options_copy,
  ip_options_echo,
  ip_options_get,
  ip_options_undo,
  MAX_IPOPTLEN,
} from './ip_options_sock.js'
import { ip_ra_control } from './ip_ra.js'
import { ip_ctl } from './ip_sysctl.js'
import { IP_MULTICAST_IF, IP_MULTICAST_LOOP, IP_MULTICAST_TTL, ip_mc_setsockopt } from './mc_sock.js'
import { IPCB, RTABLE } from './types.js'

const u8 = RAM.u8
const i32 = RAM.i32
const dv = RAM.dv

export const SOL_IP = 0
export const IP_TOS = 1
export const IP_TTL = 2
export const IP_HDRINCL = 3
export const IP_OPTIONS_OPT = 4
export const IP_ROUTER_ALERT = 5
export const IP_RECVOPTS = 6
export const IP_RETOPTS = 7
export const IP_RECVERR = 11
export const IP_PKTINFO = 8
export const IP_MTU_DISCOVER = 10
export const IP_RECVTTL = 12
export const IP_RECVTOS = 13
export const IP_MTU = 14
export const IP_FREEBIND = 15
const IPTOS_PREC_CRITIC_ECP = 0xa0

function scratch(): number {
  return task_kstack(current()).words + KSTACK_WORDS - OPT_SCRATCH
}

function cmsg_flag(inet: inet_sock, flag: number, on: boolean): number {
  inet.cmsg_flags = on ? inet.cmsg_flags | flag : inet.cmsg_flags & ~flag
  return 0
}

function set_tos(sk: sock, val: number): number {
  if (sk.sk_type === SOCK_STREAM) val &= ~3 // the ECN bits are TCP's
  if ((val & 0xe0) >= IPTOS_PREC_CRITIC_ECP && !capable()) return -EPERM
  const inet = inet_sk(sk)
  if (inet.tos === (val & 0xff)) return 0
  inet.tos = val & 0xff
  sk.sk_priority = ip_tos2prio[(val & 0x1e) >> 1]!
  sk_dst_reset(sk)
  return 0
}

/** @locks the socket is ours */
function set_option(sk: sock, optname: number, val: number, optlen: number): number {
  const inet = inet_sk(sk)
  switch (optname) {
    case IP_TOS:
      return set_tos(sk, val)
    case IP_TTL:
      if (optlen < 1 || (val !== -1 && (val < 1 || val > 255))) return -EINVAL
      inet.uc_ttl = val
      return 0
    case IP_MTU_DISCOVER:
      if (val < 0 || val > 2) return -EINVAL
      inet.pmtudisc = val
      return 0
    case IP_RECVERR:
      inet.recverr = val !== 0 ? 1 : 0
      if (val === 0) ip_errqueue_purge(sk)
      return 0
    case IP_FREEBIND:
      if (optlen < 1) return -EINVAL
      inet.freebind = val !== 0 ? 1 : 0
      return 0
    case IP_HDRINCL:
      if (sk.sk_type !== SOCK_RAW) return -ENOPROTOOPT
      inet.hdrincl = val !== 0 ? 1 : 0
      return 0
    case IP_ROUTER_ALERT:
      return ip_ra_control(sk, val !== 0)
    case IP_RECVOPTS:
      return cmsg_flag(inet, IP_CMSG_RECVOPTS, val !== 0)
    case IP_RETOPTS:
      return cmsg_flag(inet, IP_CMSG_RETOPTS, val !== 0)
    case IP_PKTINFO:
      return cmsg_flag(inet, IP_CMSG_PKTINFO, val !== 0)
    case IP_RECVTTL:
      return cmsg_flag(inet, IP_CMSG_TTL, val !== 0)
    case IP_RECVTOS:
      return cmsg_flag(inet, IP_CMSG_TOS, val !== 0)
    default:
      return -ENOPROTOOPT
  }
}

/** IP_OPTIONS: for every packet from here on. @locks the socket is ours */
function set_ip_options(sk: sock, optval: number, optlen: number): number {
  if (optlen > MAX_IPOPTLEN) return -EINVAL
  const opt = ip_options_get(optval, optlen)
  if (opt < 0) return opt
  const inet = inet_sk(sk)
  const old = inet.opt
  inet.opt = opt
  if (old !== 0) kfree(old)
  return 0
}
/** @locks the socket is ours @returns 0, -EFAULT, -ENOMEM */
function get_ip_options(sk: sock, optval: number, optlen: number, room: number): number {
  const { opt } = inet_sk(sk)
  if (opt === 0) return put_user(0, optlen)
  const copy = ip_options_copy(opt)
  if (copy === 0) return -ENOMEM
  const its = IP_OPTIONS.ref(copy)
  ip_options_undo(its)
  const len = Math.min(room, its.optlen)
  const err = put_user(len, optlen) || (copy_to_user(optval, its.data, len) === 0 ? 0 : -EFAULT)
  kfree(copy)
  return err
}

/** ip_setsockopt - @context process @locks takes the socket @returns 0, -errno */
export function* ip_setsockopt(sk: sock, level: number, optname: number, optval: number, optlen: number): Call {
  if (level !== SOL_IP) return -ENOPROTOOPT
  let val = 0 // an option without a value means 0
  if (optlen >= 4) {
    const word = get_user(optval)
    if (word === null) return -EFAULT
    val = word
  } else if (optlen >= 1) {
    const at = scratch()
    if (copy_from_user(at, optval, 1) !== 0) return -EFAULT
    val = u8[at]
  }
  yield* lock_sock(sk)
  let err: number | null = yield* ip_mc_setsockopt(sk, optname, val, optval, optlen)
  err ??= optname === IP_OPTIONS_OPT ? set_ip_options(sk, optval, optlen) : set_option(sk, optname, val, optlen)
  release_sock(sk)
  return err
}

/** @returns null: there is no such option; -ENOTCONN: no route, so no MTU */
function get_option(sk: sock, optname: number): number | null {
  const inet = inet_sk(sk)
  switch (optname) {
    case IP_TOS:
      return inet.tos
    case IP_TTL:
      return inet.uc_ttl === -1 ? ip_ctl.default_ttl : inet.uc_ttl
    case IP_MTU_DISCOVER:
      return inet.pmtudisc
    case IP_RECVERR:
      return inet.recverr
    case IP_FREEBIND:
      return inet.freebind
    case IP_HDRINCL:
      return inet.hdrincl
    case IP_RECVOPTS:
      return (inet.cmsg_flags & IP_CMSG_RECVOPTS) !== 0 ? 1 : 0
    case IP_RETOPTS:
      return (inet.cmsg_flags & IP_CMSG_RETOPTS) !== 0 ? 1 : 0
    case IP_PKTINFO:
      return (inet.cmsg_flags & IP_CMSG_PKTINFO) !== 0 ? 1 : 0
    case IP_RECVTTL:
      return (inet.cmsg_flags & IP_CMSG_TTL) !== 0 ? 1 : 0
    case IP_RECVTOS:
      return (inet.cmsg_flags & IP_CMSG_TOS) !== 0 ? 1 : 0
    case IP_MULTICAST_TTL:
      return inet.mc_ttl
    case IP_MULTICAST_LOOP:
      return inet.mc_loop
    case IP_MTU: {
      const dst = sk_dst_check(sk)
      if (dst === null) return -ENOTCONN
      const { mtu } = dst
      dst_release(dst)
      return mtu
    }
    default:
      return null
  }
}

/** ip_getsockopt - @context process @locks takes the socket @returns 0, -errno */
export function* ip_getsockopt(sk: sock, level: number, optname: number, optval: number, optlen: number): Call {
  if (level !== SOL_IP) return -EOPNOTSUPP
  let len = get_user(optlen)
  if (len === null) return -EFAULT
  if (len < 0) return -EINVAL
  yield* lock_sock(sk)
  if (optname === IP_OPTIONS_OPT) {
    const err = get_ip_options(sk, optval, optlen, len)
    release_sock(sk)
    return err
  }
  if (optname === IP_MULTICAST_IF) {
    const { mc_addr } = inet_sk(sk)
    release_sock(sk)
    const at = scratch()
    dv.setInt32(at, mc_addr)
    len = Math.min(4, len)
    return put_user(len, optlen) || (copy_to_user(optval, at, len) === 0 ? 0 : -EFAULT)
  }
  const val = get_option(sk, optname)
  release_sock(sk)
  if (val === null) return -ENOPROTOOPT
  if (val === -ENOTCONN) return val
  const at = scratch()
  dv.setInt32(at, val, true)
  len = len < 4 && len > 0 && val >= 0 && val <= 255 ? 1 : Math.min(4, len)
  if (put_user(len, optlen) !== 0) return -EFAULT
  return copy_to_user(optval, at, len) === 0 ? 0 : -EFAULT
}

/** ip_cmsg_recv - what the program wants to be told of the packet's header and way. @context process */
export function ip_cmsg_recv(msg: msghdr, sk: sock, skb: sk_buff, error = false): void {
  const flags = inet_sk(sk).cmsg_flags
  const at = scratch()
  if ((flags & IP_CMSG_PKTINFO) !== 0) {
    const rt = skb.dst === null ? null : RTABLE.ref(skb.dst.addr)
    i32[at >> 2] = rt === null ? 0 : rt.rt_iif
    dv.setInt32(at + 4, rt === null ? 0 : rt.rt_spec_dst)
    dv.setInt32(at + 8, ip_daddr(skb.nh))
    put_cmsg(msg, SOL_IP, IP_PKTINFO, 12, at)
  }
  if ((flags & IP_CMSG_TTL) !== 0) {
    i32[at >> 2] = ip_ttl(skb.nh)
    put_cmsg(msg, SOL_IP, IP_TTL, 4, at)
  }
  if ((flags & IP_CMSG_TOS) !== 0) {
    u8[at] = ip_tos(skb.nh)
    put_cmsg(msg, SOL_IP, IP_TOS, 1, at)
  } // A packet of the error queue has something else where its options were noted.
  if (error) return
  if ((flags & IP_CMSG_RECVOPTS) !== 0) {
    const { optlen } = IPCB.ref(skb.cb)
    if (optlen > 0) put_cmsg(msg, SOL_IP, IP_RECVOPTS, optlen, skb.nh + 20)
  }
  if ((flags & IP_CMSG_RETOPTS) !== 0) retopts(msg, skb)
}

/** Options for an answer, in the form that IP_OPTIONS takes. */
function retopts(msg: msghdr, skb: sk_buff): void {
  if (IPCB.ref(skb.cb).optlen === 0) return
  const addr = kmalloc(IP_OPTIONS.size)
  if (addr === 0) return
  const opt = IP_OPTIONS.ref(addr)
  local_bh_disable()
  const good = ip_options_echo(opt, skb)
  local_bh_enable()
  if (good) {
    ip_options_undo(opt)
    put_cmsg(msg, SOL_IP, IP_RETOPTS, opt.optlen, opt.data)
  } else msg.msg_flags |= MSG_CTRUNC
  kfree(addr)
}
