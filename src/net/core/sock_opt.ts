/** sock_opt.ts - the options of SOL_SOCKET (sock_setsockopt and sock_getsockopt of 2.6.11). */
import { call } from '../../abi/symbol.js'
import { hz } from '../../arch/machine.js'
import { RAM } from '../../arch/ram.js'
import { MAX_SCHEDULE_TIMEOUT } from '../../irq/timer.js'
import { EACCES, EDOM, EFAULT, EINVAL, ENODEV, ENOENT, ENOPROTOOPT, ENOTCONN, EPERM } from '../../lib/errno.js'
import { copy_from_user, copy_to_user, get_user, KSTACK_WORDS, put_user, task_kstack } from '../../sched/mm.js'
import { current } from '../../sched/sched.js'
import { sk_attach_filter, sk_detach_filter } from './filter.js'
import { dev_get_by_name, dev_put } from './netdevice.js'
import {
  lock_sock,
  release_sock,
  sk_dst_reset,
  sock_error,
  sock_error_soft,
  sock_flag,
  sock_reset_flag,
  sock_set_flag,
} from './sock.js'
import { SOCK_MIN_RCVBUF, SOCK_MIN_SNDBUF } from './sock_mem.js'
import {
  MAX_SOCK_ADDR,
  SOCK_BROADCAST,
  SOCK_DBG,
  SOCK_KEEPOPEN,
  SOCK_LINGER,
  SOCK_RCVBUF_LOCK,
  SOCK_SNDBUF_LOCK,
  SOCK_TIMESTAMP,
  SOCK_URGINLINE,
  type sock,
  type socket,
  TCP_LISTEN,
} from './sock_types.js'
import { type Call, sock_ops } from './socket.js'
import { net_disable_timestamp, net_enable_timestamp, stamp_now } from './stamp.js'
import { core_ctl } from './sysctl_net_core.js'

const i32 = RAM.i32
const u8 = RAM.u8

export const SOL_SOCKET = 1
export const SO_DEBUG = 1
export const SO_REUSEADDR = 2
export const SO_TYPE = 3
export const SO_ERROR = 4
export const SO_DONTROUTE = 5
export const SO_BROADCAST = 6
export const SO_SNDBUF = 7
export const SO_RCVBUF = 8
export const SO_KEEPALIVE = 9
export const SO_OOBINLINE = 10
export const SO_NO_CHECK = 11
export const SO_PRIORITY = 12
export const SO_LINGER = 13
export const SO_BSDCOMPAT = 14
export const SO_PASSCRED = 16
export const SO_PEERCRED = 17
export const SO_RCVLOWAT = 18
export const SO_SNDLOWAT = 19
export const SO_RCVTIMEO = 20
export const SO_SNDTIMEO = 21
export const SO_BINDTODEVICE = 25
export const SO_ATTACH_FILTER = 26
export const SO_DETACH_FILTER = 27
export const SO_PEERNAME = 28
export const SO_TIMESTAMP = 29
export const SO_ACCEPTCONN = 30
const IFNAMSIZ = 16
const UCRED_SIZE = 12
const INT_MAX = 0x7fffffff

/** Where a call puts what it copies from and to the program: the end of its kernel stack. */
export const OPT_SCRATCH = 64
function scratch(): number {
  return task_kstack(current()).words + KSTACK_WORDS - OPT_SCRATCH
}

/** capable - may the current task do what only root may? */
export function capable(): boolean {
  return current().uid === 0
}

function valbool_flag(sk: sock, flag: number, on: boolean): void {
  if (on) sock_set_flag(sk, flag)
  else sock_reset_flag(sk, flag)
}

/** A timeval of the program's as jiffies. @returns -EINVAL, -EFAULT, -EDOM */
function get_timeout(optval: number, optlen: number): number {
  if (optlen < 8) return -EINVAL
  const at = scratch()
  if (copy_from_user(at, optval, 8) !== 0) return -EFAULT
  const sec = i32[at >> 2]
  const usec = i32[(at >> 2) + 1]
  if (usec < 0 || usec >= 1_000_000) return -EDOM
  if (sec === 0 && usec === 0) return MAX_SCHEDULE_TIMEOUT
  const max = Math.floor(MAX_SCHEDULE_TIMEOUT / hz()) - 1
  if (sec < 0) return 0 // 2.6.11 takes them for very large; a later fix takes them for none
  return sec < max ? sec * hz() + Math.ceil((usec * hz()) / 1_000_000) : MAX_SCHEDULE_TIMEOUT
}

function set_linger(sk: sock, optval: number, optlen: number): number {
  if (optlen < 8) return -EINVAL
  const at = scratch()
  if (copy_from_user(at, optval, 8) !== 0) return -EFAULT
  const seconds = i32[(at >> 2) + 1]
  if (i32[at >> 2] !== 0) {
    const max = Math.floor(MAX_SCHEDULE_TIMEOUT / hz())
    sk.sk_lingertime = seconds >>> 0 >= max ? MAX_SCHEDULE_TIMEOUT : seconds * hz()
  }
  valbool_flag(sk, SOCK_LINGER, i32[at >> 2] !== 0)
  return 0
}

function bind_to_device(sk: sock, on: boolean, optval: number, optlen: number): number {
  if (!capable()) return -EPERM
  if (!on) {
    sk.sk_bound_dev_if = 0
    return 0
  }
  const at = scratch()
  const len = Math.min(optlen, IFNAMSIZ)
  if (copy_from_user(at, optval, len) !== 0) return -EFAULT
  sk_dst_reset(sk)
  let name = ''
  for (let k = 0; k < len && u8[at + k] !== 0; k++) name += String.fromCharCode(u8[at + k])
  if (name === '') {
    sk.sk_bound_dev_if = 0
    return 0
  }
  const dev = dev_get_by_name(name)
  if (dev === null) return -ENODEV
  sk.sk_bound_dev_if = dev.ifindex
  dev_put(dev)
  return 0
}

/** A struct sock_fprog: length, and where the instructions are. */
function attach_filter(sk: sock, optval: number, optlen: number): number {
  if (optlen !== 8) return -EINVAL
  const at = scratch()
  if (copy_from_user(at, optval, 8) !== 0) return -EFAULT
  return sk_attach_filter(sk, i32[(at >> 2) + 1]!, i32[at >> 2]! & 0xffff)
}

function set_timestamp(sk: sock, on: boolean): void {
  sk.sk_rcvtstamp = on ? 1 : 0
  if (!on || sock_flag(sk, SOCK_TIMESTAMP)) return
  sock_set_flag(sk, SOCK_TIMESTAMP)
  net_enable_timestamp()
}
export const SIOCGSTAMP = 0x8906
/** sock_get_timestamp - when the last packet came that was received here. @context process @returns 0, -ENOENT: none, -EFAULT */
export function sock_get_timestamp(sk: sock, tv: number): number {
  if (!sock_flag(sk, SOCK_TIMESTAMP)) {
    sock_set_flag(sk, SOCK_TIMESTAMP)
    net_enable_timestamp()
  }
  const at = sk.sk_stamp >> 2
  if (i32[at] === -1) return -ENOENT
  stamp_now(sk.sk_stamp) // it came before anybody asked for the time
  return put_user(i32[at]!, tv) || put_user(i32[at + 1]!, tv + 4)
}
/** sock_disable_timestamp - @context whoever frees the sock */
export function sock_disable_timestamp(sk: sock): void {
  if (!sock_flag(sk, SOCK_TIMESTAMP)) return
  sock_reset_flag(sk, SOCK_TIMESTAMP)
  net_disable_timestamp()
}

function set_sndbuf(sk: sock, val: number): void {
  const size = Math.min(val >>> 0, core_ctl.wmem_max) * 2
  sk.sk_userlocks |= SOCK_SNDBUF_LOCK
  sk.sk_sndbuf = Math.max(size | 0, SOCK_MIN_SNDBUF)
  call(sk.sk_write_space)(sk) // there may be room now
}
function set_rcvbuf(sk: sock, val: number): void {
  const size = Math.min(val >>> 0, core_ctl.rmem_max) * 2
  sk.sk_userlocks |= SOCK_RCVBUF_LOCK
  sk.sk_rcvbuf = Math.max(size | 0, SOCK_MIN_RCVBUF)
}

/** @locks the socket is ours */
function set_option(sock: socket, sk: sock, optname: number, val: number, optval: number, optlen: number): number {
  const on = val !== 0
  let timeo = 0
  switch (optname) {
    case SO_DEBUG:
      if (on && !capable()) return -EACCES
      valbool_flag(sk, SOCK_DBG, on)
      return 0
    case SO_REUSEADDR:
      sk.sk_reuse = on ? 1 : 0
      return 0
    case SO_TYPE:
    case SO_ERROR:
      return -ENOPROTOOPT
    case SO_DONTROUTE:
      sk.sk_localroute = on ? 1 : 0
      return 0
    case SO_BROADCAST:
      valbool_flag(sk, SOCK_BROADCAST, on)
      return 0
    case SO_SNDBUF:
      set_sndbuf(sk, val)
      return 0
    case SO_RCVBUF:
      set_rcvbuf(sk, val)
      return 0
    case SO_KEEPALIVE:
      valbool_flag(sk, SOCK_KEEPOPEN, on)
      return 0
    case SO_OOBINLINE:
      valbool_flag(sk, SOCK_URGINLINE, on)
      return 0
    case SO_NO_CHECK:
      sk.sk_no_check = on ? 1 : 0
      return 0
    case SO_PRIORITY:
      if ((val < 0 || val > 6) && !capable()) return -EPERM
      sk.sk_priority = val
      return 0
    case SO_LINGER:
      return set_linger(sk, optval, optlen)
    case SO_BSDCOMPAT:
      return 0 // was never more than a warning
    case SO_PASSCRED:
      sock.passcred = on ? 1 : 0
      return 0
    case SO_TIMESTAMP:
      set_timestamp(sk, on)
      return 0
    case SO_RCVLOWAT:
      sk.sk_rcvlowat = val < 0 ? INT_MAX : val || 1
      return 0
    case SO_RCVTIMEO:
    case SO_SNDTIMEO:
      timeo = get_timeout(optval, optlen)
      if (timeo < 0) return timeo
      if (optname === SO_RCVTIMEO) sk.sk_rcvtimeo = timeo
      else sk.sk_sndtimeo = timeo
      return 0
    case SO_BINDTODEVICE:
      return bind_to_device(sk, on, optval, optlen)
    case SO_ATTACH_FILTER:
      return attach_filter(sk, optval, optlen)
    case SO_DETACH_FILTER:
      return sk_detach_filter(sk)
    default:
      return -ENOPROTOOPT
  }
}

/** sock_setsockopt - @context process @locks takes the socket @returns 0, -errno */
export function* sock_setsockopt(sock: socket, optname: number, optval: number, optlen: number): Call {
  if (optlen < 4) return -EINVAL
  const val = get_user(optval)
  if (val === null) return -EFAULT
  const sk = sock.sk!
  yield* lock_sock(sk)
  const err = set_option(sock, sk, optname, val, optval, optlen)
  release_sock(sk)
  return err
}

function flag_value(sk: sock, flag: number): number {
  return sock_flag(sk, flag) ? 1 : 0
}

/** Value of an option of one word; null: there is none of that name. */
function get_word(sock: socket, sk: sock, optname: number): number | null {
  switch (optname) {
    case SO_DEBUG:
      return flag_value(sk, SOCK_DBG)
    case SO_DONTROUTE:
      return sk.sk_localroute
    case SO_BROADCAST:
      return flag_value(sk, SOCK_BROADCAST)
    case SO_SNDBUF:
      return sk.sk_sndbuf
    case SO_RCVBUF:
      return sk.sk_rcvbuf
    case SO_REUSEADDR:
      return sk.sk_reuse
    case SO_KEEPALIVE:
      return flag_value(sk, SOCK_KEEPOPEN)
    case SO_TYPE:
      return sk.sk_type
    case SO_ERROR:
      return -(sock_error(sk) || sock_error_soft(sk))
    case SO_OOBINLINE:
      return flag_value(sk, SOCK_URGINLINE)
    case SO_NO_CHECK:
      return sk.sk_no_check
    case SO_PRIORITY:
      return sk.sk_priority
    case SO_TIMESTAMP:
      return sk.sk_rcvtstamp
    case SO_RCVLOWAT:
      return sk.sk_rcvlowat
    case SO_SNDLOWAT:
      return 1
    case SO_PASSCRED:
      return sock.passcred
    case SO_ACCEPTCONN:
      return sk.sk_state === TCP_LISTEN ? 1 : 0
    case SO_BSDCOMPAT:
      return 0
    default:
      return null
  }
}

/** Two words at the scratch place. @returns false: no such option */
function get_pair(sk: sock, optname: number, at: number): boolean {
  const w = at >> 2
  if (optname === SO_LINGER) {
    i32[w] = flag_value(sk, SOCK_LINGER)
    i32[w + 1] = Math.floor(sk.sk_lingertime / hz())
    return true
  }
  if (optname !== SO_RCVTIMEO && optname !== SO_SNDTIMEO) return false
  const timeo = optname === SO_RCVTIMEO ? sk.sk_rcvtimeo : sk.sk_sndtimeo
  const ever = timeo === MAX_SCHEDULE_TIMEOUT
  i32[w] = ever ? 0 : Math.floor(timeo / hz())
  i32[w + 1] = ever ? 0 : Math.floor(((timeo % hz()) * 1_000_000) / hz())
  return true
}

/** The address of the other end, of which the caller wants no more bytes than there are. */
function peer_name(sock: socket, optval: number, len: number, optlen: number): number {
  const at = task_kstack(current()).words + KSTACK_WORDS - MAX_SOCK_ADDR
  const size = sock_ops(sock).getname(sock, at, true)
  if (size < 0) return -ENOTCONN
  if (size < len) return -EINVAL
  return copy_to_user(optval, at, len) !== 0 ? -EFAULT : put_user(len, optlen)
}

/** sock_getsockopt - @context process @returns 0, -errno */
export function sock_getsockopt(sock: socket, optname: number, optval: number, optlen: number): number {
  const len = get_user(optlen)
  if (len === null) return -EFAULT
  if (len < 0) return -EINVAL
  const sk = sock.sk!
  if (optname === SO_PEERNAME) return peer_name(sock, optval, len, optlen)
  const at = scratch()
  let size = 8
  if (optname === SO_PEERCRED) {
    u8.copyWithin(at, sk.sk_peercred, sk.sk_peercred + UCRED_SIZE)
    size = UCRED_SIZE
  } else if (!get_pair(sk, optname, at)) {
    const value = get_word(sock, sk, optname)
    if (value === null) return -ENOPROTOOPT
    i32[at >> 2] = value
    size = 4
  }
  const n = Math.min(len, size)
  if (copy_to_user(optval, at, n) !== 0) return -EFAULT
  return put_user(n, optlen)
}
