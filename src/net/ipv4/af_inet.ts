/**
 * af_inet.ts - the AF_INET family: making sockets, binding them, and the calls that all their types have in common.
 *
 * Lock charter
 *   Addresses and ports of a socket are changed by who owns it (lock_sock); its port also under its protocol's hash lock.
 */

import { call, type Sym, symbol } from '../../abi/symbol.js'
import { config } from '../../arch/machine.js'
import {
  EACCES,
  EADDRINUSE,
  EADDRNOTAVAIL,
  EAGAIN,
  EINVAL,
  ENOBUFS,
  ENOTCONN,
  EOPNOTSUPP,
  EPERM,
  EPROTONOSUPPORT,
  ESOCKTNOSUPPORT,
} from '../../lib/errno.js'
import { local_bh_disable, local_bh_enable } from '../../sync/bh.js'
import { datagram_poll } from '../core/datagram.js'
import { lock_sock, release_sock, sk_alloc, sk_dst_reset, sock_init_data } from '../core/sock.js'
import { sock_def_callbacks } from '../core/sock_mem.js'
import { capable } from '../core/sock_opt.js'
import {
  AF_INET,
  AF_UNSPEC,
  MSG_DONTWAIT,
  type msghdr,
  SHUTDOWN_MASK,
  SOCK_BINDADDR_LOCK,
  SOCK_BINDPORT_LOCK,
  SOCK_DGRAM,
  SOCK_RAW,
  SOCKADDR_IN_SIZE,
  type sock,
  type socket,
  TCP_CLOSE,
  TCP_SYN_SENT,
} from '../core/sock_types.js'
import { type Call, type proto_ops, sock_register } from '../core/socket.js'
import { IPPROTO_UDP } from '../wire/ipv4.js'
import { devinet_ioctl_init } from './devinet_ioctl.js'
import { udp_poll } from './dgram_poll.js'
import { inet_addr_type } from './fib_frontend.js'
import { RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST } from './fib_types.js'
import { igmp_init } from './igmp.js'
import { inet_ioctl, inet_ioctl_init } from './inet_ioctl.js'
import { inet_sock_destruct_sym, sk_common_release } from './inet_life.js'
import { IP_PMTUDISC_DONT, IP_PMTUDISC_WANT, type inet_protosw, inet_sk, type proto } from './inet_sock.js'
import { inet_add_protocol } from './ip_input.js'
import { ip_ra_init } from './ip_ra.js'
import { ip_ctl } from './ip_sysctl.js'
import { ip_mc_drop_socket } from './mc_sock.js'
import { raw_hash_init, raw_prot_sym } from './raw.js'
import { set_sockaddr_in, sin_addr, sin_family, sin_port, udp_prot_sym } from './udp.js'
import { udp_hash_init } from './udp_hash.js'
import { udp_err_sym, udp_rcv_sym } from './udp_input.js'

/** Ports below are root's. */
const PROT_SOCK = 1024

function prot_of(sk: sock): proto {
  return call(sk.sk_prot as Sym<proto>)
}

// ---- making and ending ----------------------------------------------------------------------------------------------

/** Finds what is asked for. @returns null: no such type with this protocol */
function find_protosw(type: number, protocol: number): inet_protosw | null {
  for (const sw of inetsw) {
    if (sw.type !== type) continue
    if (protocol === sw.protocol ? protocol !== 0 : protocol === 0 || sw.protocol === 0) return sw
  }
  return null
}

/** inet_create - @context process @returns 0, -ESOCKTNOSUPPORT, -EPERM, -EPROTONOSUPPORT, -ENOBUFS */
function inet_create(sock: socket, asked: number): number {
  const answer = find_protosw(sock.type, asked)
  if (answer === null) return -ESOCKTNOSUPPORT
  if (answer.privileged && !capable()) return -EPERM
  const protocol = asked !== 0 ? asked : answer.protocol
  if (protocol === 0) return -EPROTONOSUPPORT
  const sk = sk_alloc(AF_INET, answer.prot)
  if (sk === null) return -ENOBUFS
  sock.ops = answer.ops
  sock_init_data(sock, sk, sock_def_callbacks)
  const inet = inet_sk(sk)
  inet.uc_ttl = -1
  inet.mc_ttl = 1
  inet.mc_loop = 1
  inet.pmtudisc = ip_ctl.no_pmtu_disc !== 0 ? IP_PMTUDISC_DONT : IP_PMTUDISC_WANT
  sk.sk_protocol = protocol
  sk.sk_backlog_rcv = prot_of(sk).backlog_rcv as Sym<(sk: sock) => number>
  sk.sk_destruct = inet_sock_destruct_sym
  const err = prot_of(sk).init(sk)
  if (err !== 0) sk_common_release(sk)
  return err
}
const inet_create_sym = symbol('inet_create', inet_create)

function* inet_release(sock: socket): Call {
  const sk = sock.sk
  if (sk === null) return 0
  sock.sk = null
  yield* ip_mc_drop_socket(sk)
  yield* prot_of(sk).close(sk, sk.sk_lingertime)
  return 0
}

// ---- binding --------------------------------------------------------------------------------------------------------

function address_kind(addr: number): number {
  local_bh_disable()
  const type = inet_addr_type(addr)
  local_bh_enable()
  return type
}

/** inet_bind - @context process @locks takes the socket @returns 0, -EINVAL, -EADDRNOTAVAIL, -EACCES, -EADDRINUSE */
function* inet_bind(sock: socket, addr: number, addr_len: number): Call {
  const sk = sock.sk!
  const { bind } = prot_of(sk)
  if (bind !== undefined) return yield* bind(sk, addr, addr_len)
  if (addr_len < SOCKADDR_IN_SIZE) return -EINVAL
  const s_addr = sin_addr(addr)
  const kind = address_kind(s_addr)
  const usable = s_addr === 0 || kind === RTN_LOCAL || kind === RTN_MULTICAST || kind === RTN_BROADCAST
  if (!usable && inet_sk(sk).freebind === 0 && ip_ctl.nonlocal_bind === 0) return -EADDRNOTAVAIL
  const snum = sin_port(addr)
  if (snum !== 0 && snum < PROT_SOCK && !capable()) return -EACCES
  yield* lock_sock(sk)
  const err = bind_locked(sk, s_addr, kind === RTN_MULTICAST || kind === RTN_BROADCAST, snum)
  release_sock(sk)
  return err
}

function bind_locked(sk: sock, s_addr: number, group: boolean, snum: number): number {
  const inet = inet_sk(sk)
  if (sk.sk_state !== TCP_CLOSE || inet.num !== 0) return -EINVAL
  inet.rcv_saddr = s_addr
  inet.saddr = group ? 0 : s_addr // who listens to everybody sends as the route says
  if (prot_of(sk).get_port(sk, snum) !== 0) {
    inet.saddr = 0
    inet.rcv_saddr = 0
    return -EADDRINUSE
  }
  if (inet.rcv_saddr !== 0) sk.sk_userlocks |= SOCK_BINDADDR_LOCK
  if (snum !== 0) sk.sk_userlocks |= SOCK_BINDPORT_LOCK
  inet.sport = inet.num
  inet.daddr = 0
  inet.dport = 0
  sk_dst_reset(sk)
  return 0
}

/** inet_autobind - any port, for who has none. @context process @locks takes the socket @returns 0, -EAGAIN */
function* inet_autobind(sk: sock): Call {
  const inet = inet_sk(sk)
  yield* lock_sock(sk)
  let err = 0
  if (inet.num === 0) {
    if (prot_of(sk).get_port(sk, 0) !== 0) err = -EAGAIN
    else inet.sport = inet.num
  }
  release_sock(sk)
  return err
}

// ---- calls of datagram sockets --------------------------------------------------------------------------------------

function* inet_dgram_connect(sock: socket, addr: number, addr_len: number, flags: number): Call {
  const sk = sock.sk!
  if (sin_family(addr) === AF_UNSPEC) {
    yield* lock_sock(sk) // 2.6.11 takes no lock here
    const err = prot_of(sk).disconnect(sk, flags)
    release_sock(sk)
    return err
  }
  if (inet_sk(sk).num === 0 && (yield* inet_autobind(sk)) !== 0) return -EAGAIN
  return yield* prot_of(sk).connect(sk, addr, addr_len)
}

/** inet_getname - @returns length of the address written, -ENOTCONN */
function inet_getname(sock: socket, addr: number, peer: boolean): number {
  const sk = sock.sk!
  const inet = inet_sk(sk)
  if (peer) {
    if (inet.dport === 0 || sk.sk_state === TCP_CLOSE || sk.sk_state === TCP_SYN_SENT) return -ENOTCONN
    set_sockaddr_in(addr, inet.daddr, inet.dport)
  } else set_sockaddr_in(addr, inet.rcv_saddr !== 0 ? inet.rcv_saddr : inet.saddr, inet.sport)
  return SOCKADDR_IN_SIZE
}

/** inet_shutdown - also who is not connected hears -ENOTCONN only after it has been done. @context process */
function* inet_shutdown(sock: socket, how: number): Call {
  const sk = sock.sk!
  const which = (how + 1) | 0 // 0: receiving, 1: sending, 2: both, as bits
  if ((which & ~SHUTDOWN_MASK) !== 0 || which === 0) return -EINVAL
  yield* lock_sock(sk)
  const err = sk.sk_state === TCP_CLOSE ? -ENOTCONN : 0
  sk.sk_shutdown |= which
  call(sk.sk_state_change)(sk)
  release_sock(sk)
  return err
}

function* inet_sendmsg(sock: socket, msg: msghdr, len: number): Call {
  const sk = sock.sk!
  if (inet_sk(sk).num === 0 && (yield* inet_autobind(sk)) !== 0) return -EAGAIN
  return yield* prot_of(sk).sendmsg(sk, msg, len)
}
function inet_recvmsg(sock: socket, msg: msghdr, len: number, flags: number): Call {
  const sk = sock.sk!
  return prot_of(sk).recvmsg(sk, msg, len, (flags & MSG_DONTWAIT) !== 0, flags & ~MSG_DONTWAIT)
}

function* not_supported(): Call {
  return -EOPNOTSUPP
}

const inet_dgram_ops: proto_ops = {
  family: AF_INET,
  release: inet_release,
  bind: inet_bind,
  connect: inet_dgram_connect,
  socketpair: not_supported,
  accept: not_supported,
  getname: inet_getname,
  listen: not_supported,
  shutdown: inet_shutdown,
  setsockopt: (sock, level, name, val, len) => prot_of(sock.sk!).setsockopt(sock.sk!, level, name, val, len),
  getsockopt: (sock, level, name, val, len) => prot_of(sock.sk!).getsockopt(sock.sk!, level, name, val, len),
  sendmsg: inet_sendmsg,
  recvmsg: inet_recvmsg,
  poll: udp_poll,
  ioctl: (sock, cmd, arg) => inet_ioctl(sock.sk!, prot_of(sock.sk!), cmd, arg),
}
const inet_dgram_ops_sym = symbol('inet_dgram_ops', inet_dgram_ops)
/** As those, but a raw socket has no checksums to look at. */
const inet_sockraw_ops_sym = symbol<proto_ops>('inet_sockraw_ops', { ...inet_dgram_ops, poll: datagram_poll })

/** What can be asked for: types and protocols, those that protocol 0 picks first. */
const inetsw: readonly inet_protosw[] = [
  { type: SOCK_DGRAM, protocol: IPPROTO_UDP, prot: udp_prot_sym, ops: inet_dgram_ops_sym, privileged: false },
  { type: SOCK_RAW, protocol: 0, prot: raw_prot_sym, ops: inet_sockraw_ops_sym, privileged: true },
]

/** inet_init - @context boot, CPU 0 */
export function inet_init(): void {
  udp_hash_init()
  raw_hash_init()
  devinet_ioctl_init()
  inet_ioctl_init()
  igmp_init(config('seed'))
  ip_ra_init()
  inet_add_protocol(IPPROTO_UDP, udp_rcv_sym, { err_handler: udp_err_sym, no_policy: true })
  sock_register(AF_INET, inet_create_sym)
}
