/**
 * af_unix.ts - the AF_UNIX family: datagram sockets (net/unix/af_unix.c of 2.6.11).
 *
 * Lock charter
 *   unix_sock.lock guards who a socket is connected to, and that it is not released while a message is queued on it. Only one is
 *   held at a time. The receive queue's lock, sk_callback_lock and what it takes are taken under it.
 *   unix_gc.lock (garbage.ts) is taken under it, too.
 *   A connected socket has a reference of its peer. A message is charged to its sender, who lives until it is received.
 */

import type { Layout, Struct } from '../../abi/layout.js'
import { call, symbol } from '../../abi/symbol.js'
import { load, store } from '../../arch/atomic.js'
import { BUG_ON } from '../../arch/cpu.js'
import { memcpy, RAM } from '../../arch/ram.js'
import { schedule_timeout } from '../../irq/timer.js'
import {
  EAGAIN,
  ECONNREFUSED,
  ECONNRESET,
  EFAULT,
  EINVAL,
  EMSGSIZE,
  ENOMEM,
  ENOPROTOOPT,
  ENOTCONN,
  EOPNOTSUPP,
  EPERM,
  EPIPE,
  EPROTONOSUPPORT,
  ESOCKTNOSUPPORT,
} from '../../lib/errno.js'
import { MAX_DGRAM_QLEN } from '../../lib/limits.js'
import { kfree } from '../../mm/kmalloc.js'
import { current, schedule } from '../../sched/sched.js'
import { signal_pending } from '../../sched/signal.js'
import { TASK_INTERRUPTIBLE } from '../../sched/task.js'
import {
  begin_wait,
  finish_wait,
  init_waitqueue_head,
  prepare_to_wait,
  WQ_FLAG_EXCLUSIVE,
  wake_up,
  wake_up_all,
} from '../../sched/wait.js'
import { read_lock, read_unlock, rwlock_init, write_lock, write_unlock } from '../../sync/rwlock.js'
import {
  datagram_poll,
  skb_copy_datagram_iovec,
  skb_free_datagram,
  skb_recv_datagram,
  skb_recv_datagram_fast,
} from '../core/datagram.js'
import { memcpy_fromiovecend } from '../core/iovec.js'
import { skb_dequeue } from '../core/skb_queue.js'
import { attach_cb, consume_skb, skb_put } from '../core/skbuff.js'
import { sk_alloc, sock_flag, sock_hold, sock_init_data, sock_orphan, sock_put } from '../core/sock.js'
import {
  sock_alloc_send_skb,
  sock_def_callbacks,
  sock_intr_errno,
  sock_sndtimeo,
  sock_wmem,
  sysctl_rmem_default,
  sysctl_wmem_default,
} from '../core/sock_mem.js'
import {
  AF_UNIX,
  AF_UNSPEC,
  MSG_DONTWAIT,
  MSG_OOB,
  MSG_PEEK,
  MSG_TRUNC,
  type msghdr,
  RCV_SHUTDOWN,
  SHUTDOWN_MASK,
  SOCK,
  SOCK_DEAD,
  SOCK_DGRAM,
  SOCK_RAW,
  type sock,
  type socket,
} from '../core/sock_types.js'
import { type Call, type proto_ops, sock_register } from '../core/socket.js'
import { SKB, SKB_HEAD, type sk_buff } from '../core/types.js'
import {
  scm_destroy,
  unix_detach_fds,
  unix_free_message,
  unix_gc,
  unix_gc_init,
  unix_insert_socket,
  unix_queue,
  unix_recv_begin,
  unix_recv_end,
  unix_remove_socket,
  unix_tot_inflight,
} from './garbage.js'
import { SUN_PATH, UCRED, UNIX_SOCK, unix_sk } from './types.js'
import { scm_attach, type scm_cookie, scm_fp_dup, scm_recv, scm_release, scm_send, scratch } from './unix_scm.js'
import {
  unix_autobind,
  unix_bind_name,
  unix_find_other,
  unix_mkname,
  unix_table_init,
  unix_unhash,
} from './unix_table.js'

const i32 = RAM.i32
const dv = RAM.dv
attach_cb(UCRED as unknown as Layout<Struct>)

const PEER = UNIX_SOCK.offset('peer')
const ERR = SOCK.offset('sk_err')

function peer_of(sk: sock): number {
  return load(sk.addr + PEER)
}

// ---- making and ending ----------------------------------------------------------------------------------------------

function unix_sock_destructor(sk: sock): void {
  BUG_ON(!sock_flag(sk, SOCK_DEAD), 'destroy of a live unix sock')
  BUG_ON(sock_wmem(sk) !== 0, 'unix sock freed with memory charged')
  const { name } = unix_sk(sk)
  if (name !== 0) kfree(name)
}
const unix_sock_destructor_sym = symbol('unix_sock_destructor', unix_sock_destructor)
const unix_prot_sym = symbol('unix_prot', unix_sock_destructor)

/** unix_create - @context process @returns 0, -EPROTONOSUPPORT, -ESOCKTNOSUPPORT, -ENOMEM */
function unix_create(sock: socket, protocol: number): number {
  if (protocol !== 0 && protocol !== AF_UNIX) return -EPROTONOSUPPORT
  if (sock.type !== SOCK_DGRAM && sock.type !== SOCK_RAW) return -ESOCKTNOSUPPORT // streams come later
  const sk = sk_alloc(AF_UNIX, unix_prot_sym)
  if (sk === null) return -ENOMEM
  sock.type = SOCK_DGRAM
  sock.ops = unix_dgram_ops_sym
  sock_init_data(sock, sk, sock_def_callbacks, sysctl_rmem_default, sysctl_wmem_default)
  sk.sk_max_ack_backlog = MAX_DGRAM_QLEN
  sk.sk_destruct = unix_sock_destructor_sym
  const u = unix_sk(sk)
  rwlock_init(u.lock)
  init_waitqueue_head(u.peer_wait)
  u.inflight = 0
  unix_insert_socket(sk)
  return 0
}
const unix_create_sym = symbol('unix_create', unix_create)

function* purge(sk: sock): Generator<void, void, void> {
  for (let skb = skb_dequeue(sk.sk_receive_queue); skb !== null; skb = skb_dequeue(sk.sk_receive_queue))
    yield* unix_free_message(skb)
}

function* unix_release(sock: socket): Call {
  const { sk } = sock
  if (sk === null) return 0
  unix_remove_socket(sk)
  sock.sk = null
  unix_unhash(sk)
  const u = unix_sk(sk)
  write_lock(u.lock)
  sock_orphan(sk)
  sk.sk_shutdown = SHUTDOWN_MASK
  const peer = peer_of(sk)
  store(sk.addr + PEER, 0)
  write_unlock(u.lock)
  wake_up_all(u.peer_wait)
  if (peer !== 0) sock_put(SOCK.ref(peer))
  yield* purge(sk)
  sock_put(sk)
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

/** A name for who wants his messages to say from whom they are. */
function autobind_for_creds(sock: socket): number {
  return sock.passcred !== 0 ? unix_autobind(sock.sk!, scratch()) : 0
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

/** unix_peer_get - with a reference, or null. */
function unix_peer_get(sk: sock): sock | null {
  const u = unix_sk(sk)
  read_lock(u.lock)
  const at = peer_of(sk)
  const peer = at === 0 ? null : SOCK.ref(at)
  if (peer !== null) sock_hold(peer)
  read_unlock(u.lock)
  return peer
}

/** unix_may_send - a socket that is connected hears its peer only. */
function unix_may_send(sk: sock, other: sock): boolean {
  const peer = peer_of(other)
  return peer === 0 || peer === sk.addr
}

/** unix_dgram_disconnected - what came from the old peer is lost, and it hears of that if it was connected to us. */
function* unix_dgram_disconnected(sk: sock, other: sock): Generator<void, void, void> {
  if (sk.sk_receive_queue.qlen === 0) return
  yield* purge(sk)
  wake_up_all(unix_sk(sk).peer_wait)
  if (sock_flag(other, SOCK_DEAD) || peer_of(other) !== sk.addr) return
  store(other.addr + ERR, ECONNRESET)
  call(other.sk_error_report)(other)
}

/** The new peer takes the place of the old one. @consumes a reference of other */
function* set_peer(sk: sock, other: number): Generator<void, void, void> {
  const u = unix_sk(sk)
  write_lock(u.lock)
  const old = peer_of(sk)
  store(sk.addr + PEER, other)
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
  sock_hold(a.sk!)
  sock_hold(b.sk!)
  store(a.sk!.addr + PEER, b.sk!.addr)
  store(b.sk!.addr + PEER, a.sk!.addr)
  const { pid, uid } = current()
  for (const sk of [a.sk!, b.sk!]) i32.set([pid, uid, 0], sk.sk_peercred >> 2)
  return 0
}

function* unix_shutdown(sock: socket, how: number): Call {
  const sk = sock.sk!
  const mode = (how + 1) & SHUTDOWN_MASK
  if (mode === 0) return 0
  const u = unix_sk(sk)
  write_lock(u.lock)
  sk.sk_shutdown |= mode
  write_unlock(u.lock)
  call(sk.sk_state_change)(sk)
  return 0
}

// ---- sending --------------------------------------------------------------------------------------------------------

const QLEN = SKB_HEAD.offset('qlen')
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
  else if (peer_of(other) !== sk.addr && queue_full(other)) ret = FULL
  else unix_queue(other, skb)
  read_unlock(u.lock)
  if (ret === 0) call(other.sk_data_ready)(other, len)
  return ret
}
function queue_full(other: sock): boolean {
  return load(other.sk_receive_queue.addr + QLEN) > other.sk_max_ack_backlog
}

/** unix_wait_for_peer - until the receiver has taken something. @context process @returns jiffies left */
function* unix_wait_for_peer(other: sock, timeo: number): Generator<void, number, void> {
  const u = unix_sk(other)
  const wait = begin_wait(WQ_FLAG_EXCLUSIVE)
  if (wait === null) {
    yield* schedule()
    return timeo
  }
  prepare_to_wait(u.peer_wait, wait, TASK_INTERRUPTIBLE)
  read_lock(u.lock)
  const sleep =
    !sock_flag(other, SOCK_DEAD) &&
    (other.sk_shutdown & RCV_SHUTDOWN) === 0 &&
    queue_full(other) &&
    !signal_pending(current())
  read_unlock(u.lock)
  const left = sleep ? yield* schedule_timeout(timeo) : timeo
  finish_wait(u.peer_wait, wait)
  return left
}

/** The receiver is gone: if it was our peer, we are connected to nobody. @returns -ECONNREFUSED, AGAIN: look the name up anew */
function* peer_died(sk: sock, other: sock): Call {
  const u = unix_sk(sk)
  write_lock(u.lock)
  const was = peer_of(sk) === other.addr
  if (was) store(sk.addr + PEER, 0)
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

function* not_supported(): Call {
  return -EOPNOTSUPP
}
function* no_option(): Call {
  return -ENOPROTOOPT
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
  setsockopt: no_option,
  getsockopt: no_option,
  sendmsg: unix_dgram_sendmsg,
  recvmsg: unix_dgram_recvmsg,
}
const unix_dgram_ops_sym = symbol('unix_dgram_ops', unix_dgram_ops)

/** unix_init - @context boot, CPU 0 */
export function unix_init(): void {
  unix_table_init()
  unix_gc_init()
  sock_register(AF_UNIX, unix_create_sym)
}
