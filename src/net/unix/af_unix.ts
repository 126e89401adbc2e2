/**
 * af_unix.ts - the AF_UNIX family: datagrams, and packets in sequence (net/unix/af_unix.c of 2.6.11). Connections: unix_conn.ts.
 *
 * Lock charter
 *   unix_sock.lock guards who a socket is connected to, and that it is not released while a message is queued on it. Only one is
 *   held at a time, but for connect (unix_conn.ts). The receive queue's lock, sk_callback_lock and what it takes are taken under it.
 *   unix_gc.lock (garbage.ts) is taken under it, too.
 *   A connected socket has a reference of its peer. A message is charged to its sender, who lives until it is received.
 */

import type { Layout, Struct } from '../../abi/layout.js'
import { call, symbol } from '../../abi/symbol.js'
import { load } from '../../arch/atomic.js'
import { memcpy, RAM } from '../../arch/ram.js'
import {
  EAGAIN,
  ECONNREFUSED,
  ECONNRESET,
  EFAULT,
  EINVAL,
  EMSGSIZE,
  ENOMEM,
  ENOTCONN,
  EOPNOTSUPP,
  EPERM,
  EPIPE,
  EPROTONOSUPPORT,
  ESOCKTNOSUPPORT,
} from '../../lib/errno.js'
import { put_user } from '../../sched/mm.js'
import { current } from '../../sched/sched.js'
import { signal_pending } from '../../sched/signal.js'
import { wake_up, wake_up_all } from '../../sched/wait.js'
import { read_lock, read_unlock, write_lock, write_unlock } from '../../sync/rwlock.js'
import { spin_lock_irqsave, spin_unlock_irqrestore } from '../../sync/spinlock.js'
import {
  connection_based,
  datagram_poll,
  skb_copy_datagram_iovec,
  skb_free_datagram,
  skb_recv_datagram,
  skb_recv_datagram_fast,
} from '../core/datagram.js'
import { dev_ioctl } from '../core/dev_ioctl.js'
import { memcpy_fromiovecend } from '../core/iovec.js'
import { attach_cb, consume_skb, skb_put } from '../core/skbuff.js'
import { sock_error, sock_flag, sock_hold, sock_put } from '../core/sock.js'
import { sock_alloc_send_skb, sock_intr_errno, sock_sndtimeo, sock_wmem } from '../core/sock_mem.js'
import {
  AF_UNIX,
  AF_UNSPEC,
  MSG_DONTWAIT,
  MSG_OOB,
  MSG_PEEK,
  MSG_TRUNC,
  type msghdr,
  RCV_SHUTDOWN,
  SEND_SHUTDOWN,
  SHUTDOWN_MASK,
  SIOCINQ,
  SIOCOUTQ,
  SOCK,
  SOCK_DEAD,
  SOCK_DGRAM,
  SOCK_RAW,
  SOCK_SEQPACKET,
  SS_CONNECTED,
  type sock,
  type socket,
  TCP_ESTABLISHED,
  TCP_LISTEN,
} from '../core/sock_types.js'
import { type Call, type proto_ops, sock_register } from '../core/socket.js'
import { SKB, type sk_buff } from '../core/types.js'
import {
  scm_destroy,
  unix_detach_fds,
  unix_gc,
  unix_gc_init,
  unix_queue,
  unix_recv_begin,
  unix_recv_end,
  unix_tot_inflight,
} from './garbage.js'
import { unix_sysctl_init } from './sysctl_net_unix.js'
import { SUN_PATH, UCRED, UNIX_SOCK, unix_sk } from './types.js'
import { unix_accept, unix_copy_creds, unix_listen, unix_stream_connect } from './unix_conn.js'
import { scm_attach, type scm_cookie, scm_fp_dup, scm_recv, scm_release, scm_send } from './unix_scm.js'
import {
  autobind_for_creds,
  unix_create1,
  unix_peer,
  unix_peer_get,
  unix_purge,
  unix_queue_full,
  unix_release_sock,
  unix_set_err,
  unix_set_peer,
  unix_tell,
  unix_wait_for_peer,
} from './unix_sock.js'
import { unix_autobind, unix_bind_name, unix_find_other, unix_mkname, unix_table_init } from './unix_table.js'

const i32 = RAM.i32
const dv = RAM.dv
attach_cb(UCRED as unknown as Layout<Struct>)

// ---- making and ending ----------------------------------------------------------------------------------------------

/** unix_create - @context process @returns 0, -EPROTONOSUPPORT, -ESOCKTNOSUPPORT, -ENOMEM */
function unix_create(sock: socket, protocol: number): number {
  if (protocol !== 0 && protocol !== AF_UNIX) return -EPROTONOSUPPORT
  if (sock.type === SOCK_RAW) sock.type = SOCK_DGRAM // BSD had no such type, and programs use it
  if (sock.type !== SOCK_DGRAM && sock.type !== SOCK_SEQPACKET) return -ESOCKTNOSUPPORT // streams come with TCP's
  sock.ops = sock.type === SOCK_DGRAM ? unix_dgram_ops_sym : unix_seqpacket_ops_sym
  return unix_create1(sock) === null ? -ENOMEM : 0
}
const unix_create_sym = symbol('unix_create', unix_create)

function* unix_release(sock: socket): Call {
  const { sk } = sock
  if (sk === null) return 0
  sock.sk = null
  yield* unix_release_sock(sk, false)
  if (unix_tot_inflight() > 0) yield* unix_gc()
  return 0
}

// ---- addresses ------------------------------------------------------------------------------------------------------

function* unix_bind(sock: socket, addr: number, addr_len: number): Call {
  const sk = sock.sk!
  if (addr_len < SUN_PATH || dv.getUint16(addr, true) !== AF_UNIX) return -EINVAL
  if (addr_len === SUN_PATH) return unix_autobind(sk, addr + SUN_PATH)
  const len = unix_mkname(addr, addr_len)
  if (len < 0) return len
  return unix_sk(sk).name !== 0 ? -EINVAL : unix_bind_name(sk, addr + SUN_PATH, len)
}

/** Writes the address of a sock. @returns its length; 0: it has none */
function copy_addr(to: number, sk: sock): number {
  const u = unix_sk(sk)
  const name = load(sk.addr + NAME)
  if (name === 0) return 0
  dv.setUint16(to, AF_UNIX, true)
  memcpy(to + SUN_PATH, name, u.namelen)
  return SUN_PATH + u.namelen
}
const NAME = UNIX_SOCK.offset('name')

function unix_getname(sock: socket, addr: number, peer: boolean): number {
  let sk = sock.sk!
  if (peer) {
    const other = unix_peer_get(sk)
    if (other === null) return -ENOTCONN
    sk = other
  }
  dv.setUint16(addr, AF_UNIX, true)
  const len = copy_addr(addr, sk) || SUN_PATH
  if (peer) sock_put(sk)
  return len
}

// ---- connecting -----------------------------------------------------------------------------------------------------

/** unix_may_send - a socket that is connected hears its peer only. */
function unix_may_send(sk: sock, other: sock): boolean {
  const peer = unix_peer(other)
  return peer === 0 || peer === sk.addr
}

/** unix_dgram_disconnected - what came from the old peer is lost, and it hears of that if it was connected to us. */
function* unix_dgram_disconnected(sk: sock, other: sock): Generator<void, void, void> {
  if (sk.sk_receive_queue.qlen === 0) return
  yield* unix_purge(sk)
  wake_up_all(unix_sk(sk).peer_wait)
  if (sock_flag(other, SOCK_DEAD) || unix_peer(other) !== sk.addr) return
  unix_set_err(other, ECONNRESET)
  call(other.sk_error_report)(other)
}

/** The new peer takes the place of the old one. @consumes a reference of other */
function* set_peer(sk: sock, other: number): Generator<void, void, void> {
  const u = unix_sk(sk)
  write_lock(u.lock)
  const old = unix_peer(sk)
  unix_set_peer(sk, other)
  write_unlock(u.lock)
  if (old === 0) return
  if (other !== old) yield* unix_dgram_disconnected(sk, SOCK.ref(old))
  sock_put(SOCK.ref(old))
}

function* unix_dgram_connect(sock: socket, addr: number, addr_len: number): Call {
  const sk = sock.sk!
  if (addr_len >= 2 && dv.getUint16(addr, true) === AF_UNSPEC) {
    yield* set_peer(sk, 0)
    return 0
  }
  const len = unix_mkname(addr, addr_len)
  const err = len < 0 ? len : autobind_for_creds(sock)
  if (err < 0) return err
  const other = unix_find_other(addr + SUN_PATH, len, SOCK_DGRAM)
  if (other < 0) return other
  if (!unix_may_send(sk, SOCK.ref(other))) {
    sock_put(SOCK.ref(other))
    return -EPERM
  }
  yield* set_peer(sk, other)
  return 0
}

function* unix_socketpair(a: socket, b: socket): Call {
  for (const [one, other] of [
    [a, b],
    [b, a],
  ] as const) {
    const sk = one.sk!
    sock_hold(other.sk!)
    unix_set_peer(sk, other.sk!.addr)
    unix_copy_creds(sk)
    if (!connection_based(sk)) continue
    sk.sk_state = TCP_ESTABLISHED
    one.state = SS_CONNECTED
  }
  return 0
}

/** What one end hears no more the other need not send, and the other way round. @consumes a reference of other */
function shut_peer(other: sock, mode: number): void {
  const u = unix_sk(other)
  write_lock(u.lock)
  other.sk_shutdown |= mode
  write_unlock(u.lock)
  if ((mode & RCV_SHUTDOWN) !== 0) unix_tell(other)
  else call(other.sk_state_change)(other)
  sock_put(other)
}
function* unix_shutdown(sock: socket, how: number): Call {
  const sk = sock.sk!
  const mode = (how + 1) & SHUTDOWN_MASK
  if (mode === 0) return 0
  const u = unix_sk(sk)
  write_lock(u.lock)
  sk.sk_shutdown |= mode
  const peer = connection_based(sk) ? unix_peer(sk) : 0
  if (peer !== 0) sock_hold(SOCK.ref(peer))
  write_unlock(u.lock)
  call(sk.sk_state_change)(sk)
  if (peer !== 0) shut_peer(SOCK.ref(peer), ((mode & RCV_SHUTDOWN) << 1) | ((mode & SEND_SHUTDOWN) >> 1))
  return 0
}

// ---- sending --------------------------------------------------------------------------------------------------------

const AGAIN = 1
const DEAD = 2
const FULL = 3
/** One try to queue a message on its receiver. @consumes skb if it returns 0 @returns 0, -errno, DEAD, FULL */
function try_queue(sk: sock, other: sock, skb: sk_buff): number {
  const u = unix_sk(other)
  const { len } = skb
  read_lock(u.lock)
  let ret = 0
  if (!unix_may_send(sk, other)) ret = -EPERM
  else if (sock_flag(other, SOCK_DEAD)) ret = DEAD
  else if ((other.sk_shutdown & RCV_SHUTDOWN) !== 0) ret = -EPIPE
  else if (unix_peer(other) !== sk.addr && unix_queue_full(other)) ret = FULL
  else unix_queue(other, skb)
  read_unlock(u.lock)
  if (ret === 0) call(other.sk_data_ready)(other, len)
  return ret
}
/** The receiver is gone: if it was our peer, we are connected to nobody. @returns -ECONNREFUSED, AGAIN: look the name up anew */
function* peer_died(sk: sock, other: sock): Call {
  // A connection stays what it is, and what came on it can be read: 2.6.11 throws it away here.
  if (connection_based(sk)) return -EPIPE
  const u = unix_sk(sk)
  write_lock(u.lock)
  const was = unix_peer(sk) === other.addr
  if (was) unix_set_peer(sk, 0)
  write_unlock(u.lock)
  if (!was) return AGAIN
  yield* unix_dgram_disconnected(sk, other)
  sock_put(other)
  return -ECONNREFUSED
}

/** To this receiver or this name. @consumes skb if it returns 0, and a reference of `first` @returns 0, -errno */
function* deliver(sk: sock, skb: sk_buff, first: sock | null, name: number, len: number, noblock: boolean): Call {
  let timeo = sock_sndtimeo(sk, noblock)
  for (let other = first; ; other = null) {
    if (other === null) {
      if (name === 0) return -ECONNRESET
      const found = unix_find_other(name, len, SOCK_DGRAM)
      if (found < 0) return found
      other = SOCK.ref(found)
    }
    let ret = try_queue(sk, other, skb)
    while (ret === FULL && timeo !== 0) {
      timeo = yield* unix_wait_for_peer(other, timeo)
      ret = signal_pending(current()) ? sock_intr_errno(timeo) : try_queue(sk, other, skb)
    }
    if (ret === FULL) ret = -EAGAIN
    if (ret === DEAD) ret = yield* peer_died(sk, other)
    sock_put(other)
    if (ret !== AGAIN) return ret
  }
}

/** Where it goes: with a reference of the peer, or none and a name. @returns 0, -errno */
function* send_message(sock: socket, msg: msghdr, len: number, scm: scm_cookie): Call {
  const sk = sock.sk!
  if ((msg.msg_flags & MSG_OOB) !== 0) return -EOPNOTSUPP
  const named = msg.msg_name !== 0 && msg.msg_namelen > 0
  const namelen = named ? unix_mkname(msg.msg_name, msg.msg_namelen) : 0
  if (namelen < 0) return namelen
  const peer = named ? null : unix_peer_get(sk)
  if (!named && peer === null) return -ENOTCONN
  let err = autobind_for_creds(sock)
  if (err === 0 && len > sk.sk_sndbuf - 32) err = -EMSGSIZE
  const noblock = (msg.msg_flags & MSG_DONTWAIT) !== 0
  const got = err < 0 ? err : yield* sock_alloc_send_skb(sk, len, noblock)
  if (got < 0) {
    if (peer !== null) sock_put(peer)
    return got
  }
  const skb = SKB.ref(got)
  err = scm_attach(skb, scm)
  if (err === 0 && memcpy_fromiovecend(skb_put(skb, len), msg.msg_iov, 0, len) !== 0) err = -EFAULT
  if (err === 0) err = yield* deliver(sk, skb, peer, named ? msg.msg_name + SUN_PATH : 0, namelen, noblock)
  else if (peer !== null) sock_put(peer)
  if (err === 0) return len
  const { fp } = UCRED.ref(skb.cb) // it was never in flight
  consume_skb(skb)
  yield* scm_destroy(fp)
  return err
}

function* unix_dgram_sendmsg(sock: socket, msg: msghdr, len: number): Call {
  const scm: scm_cookie = { pid: current().pid, uid: current().uid, gid: 0, files: [] }
  const bad = yield* scm_send(msg, scm)
  if (bad < 0) return bad
  const ret = yield* send_message(sock, msg, len, scm)
  yield* scm_release(scm) // unless the message has them
  return ret
}

function* unix_seqpacket_sendmsg(sock: socket, msg: msghdr, len: number): Call {
  const sk = sock.sk!
  const err = sock_error(sk)
  if (err !== 0) return err
  if (sk.sk_state !== TCP_ESTABLISHED) return -ENOTCONN
  msg.msg_namelen = 0 // there is one peer only
  return yield* unix_dgram_sendmsg(sock, msg, len)
}

// ---- receiving ------------------------------------------------------------------------------------------------------

/** take_message - and its files, out of flight. @context process @returns [address of a packet, list of files]; [0 or -errno, 0] */
function* take_message(sk: sock, flags: number): Generator<void, [number, number], void> {
  const looks = flags & ~MSG_DONTWAIT
  for (;;) {
    unix_recv_begin()
    const got = skb_recv_datagram_fast(sk, looks, true)
    const skb = got > 1 ? SKB.ref(got) : null
    const fp = skb === null ? 0 : (flags & MSG_PEEK) !== 0 ? scm_fp_dup(skb) : unix_detach_fds(skb)
    yield* unix_recv_end()
    if (got !== -EAGAIN || (flags & MSG_DONTWAIT) !== 0) return [got, fp]
    // Somebody else may take what we waited for.
    const seen = yield* skb_recv_datagram(sk, looks | MSG_PEEK, false)
    if (seen <= 0) return [seen, 0]
    skb_free_datagram(sk, SKB.ref(seen))
  }
}

function* unix_dgram_recvmsg(sock: socket, msg: msghdr, size: number, flags: number): Call {
  const sk = sock.sk!
  if ((flags & MSG_OOB) !== 0) return -EOPNOTSUPP
  const [got, fp] = yield* take_message(sk, flags)
  msg.msg_namelen = 0
  if (got <= 0) return got
  const skb = SKB.ref(got)
  wake_up(unix_sk(sk).peer_wait)
  if (msg.msg_name !== 0) msg.msg_namelen = copy_addr(msg.msg_name, SOCK.ref(skb.sk))
  if (size < skb.len) msg.msg_flags |= MSG_TRUNC
  const copied = Math.min(size, skb.len)
  const err = skb_copy_datagram_iovec(skb, 0, msg.msg_iov, copied)
  if (err === 0) yield* scm_recv(msg, sock.passcred !== 0, skb.cb, fp)
  else yield* scm_destroy(fp)
  skb_free_datagram(sk, skb)
  return err !== 0 ? err : copied
}

function* unix_seqpacket_recvmsg(sock: socket, msg: msghdr, size: number, flags: number): Call {
  const ret = yield* unix_dgram_recvmsg(sock, msg, size, flags)
  // The end of a connection is one for those who do not wait, too (as in Linux from 2.6.38 on).
  return ret === -EAGAIN && (sock.sk!.sk_shutdown & RCV_SHUTDOWN) !== 0 ? 0 : ret
}

/** SIOCINQ - bytes that one call can receive; of a connection: all that wait. */
function waiting(sk: sock): number {
  const queue = sk.sk_receive_queue
  let n = 0
  const irq = spin_lock_irqsave(queue.lock)
  for (let at = i32[queue.addr >> 2]!; at !== queue.addr; at = i32[at >> 2]!) {
    n += SKB.ref(at).len
    if (!connection_based(sk)) break
  }
  spin_unlock_irqrestore(queue.lock, irq)
  return n
}
function* unix_ioctl(sock: socket, cmd: number, arg: number): Call {
  const sk = sock.sk!
  if (cmd === SIOCOUTQ) return put_user(sock_wmem(sk), arg)
  if (cmd !== SIOCINQ) return yield* dev_ioctl(cmd, arg)
  return sk.sk_state === TCP_LISTEN ? -EINVAL : put_user(waiting(sk), arg)
}

function* not_supported(): Call {
  return -EOPNOTSUPP
}

const unix_dgram_ops: proto_ops = {
  family: AF_UNIX,
  poll: datagram_poll,
  release: unix_release,
  bind: unix_bind,
  connect: unix_dgram_connect,
  socketpair: unix_socketpair,
  accept: not_supported,
  getname: unix_getname,
  listen: not_supported,
  shutdown: unix_shutdown,
  setsockopt: not_supported,
  getsockopt: not_supported,
  sendmsg: unix_dgram_sendmsg,
  recvmsg: unix_dgram_recvmsg,
  ioctl: unix_ioctl,
}
const unix_dgram_ops_sym = symbol('unix_dgram_ops', unix_dgram_ops)
const unix_seqpacket_ops: proto_ops = {
  ...unix_dgram_ops,
  connect: unix_stream_connect,
  accept: unix_accept,
  listen: unix_listen,
  sendmsg: unix_seqpacket_sendmsg,
  recvmsg: unix_seqpacket_recvmsg,
}
const unix_seqpacket_ops_sym = symbol('unix_seqpacket_ops', unix_seqpacket_ops)

/** unix_init - @context boot, CPU 0 */
export function unix_init(): void {
  unix_sysctl_init()
  unix_table_init()
  unix_gc_init()
  sock_register(AF_UNIX, unix_create_sym)
}
