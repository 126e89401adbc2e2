/**
 * af_unix.ts - the AF_UNIX family: datagram sockets (net/unix/af_unix.c of 2.6.11).
 *
 * Lock charter
 *   unix_sock.lock guards who a socket is connected to, and that it is not released while a message is queued on it. Only one is
 *   held at a time. The receive queue's lock, sk_callback_lock and what it takes are taken under it.
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
import { copy_from_user, KSTACK_WORDS, task_kstack } from '../../sched/mm.js'
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
import { datagram_poll, skb_copy_datagram_iovec, skb_free_datagram, skb_recv_datagram } from '../core/datagram.js'
import { memcpy_fromiovecend } from '../core/iovec.js'
import { put_cmsg } from '../core/scm.js'
import { skb_dequeue, skb_queue_tail } from '../core/skb_queue.js'
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
import { OPT_SCRATCH, SOL_SOCKET } from '../core/sock_opt.js'
import {
  AF_UNIX,
  AF_UNSPEC,
  MSG_DONTWAIT,
  MSG_OOB,
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
import { SUN_PATH, UCRED, UNIX_SOCK, unix_sk } from './types.js'
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
const SCM_CREDENTIALS = 2
const CMSG_HDR = 12

function scratch(): number {
  return task_kstack(current()).words + KSTACK_WORDS - OPT_SCRATCH
}
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
  return 0
}
const unix_create_sym = symbol('unix_create', unix_create)

function purge(sk: sock): void {
  for (let skb = skb_dequeue(sk.sk_receive_queue); skb !== null; skb = skb_dequeue(sk.sk_receive_queue))
    consume_skb(skb)
}

function* unix_release(sock: socket): Call {
  const { sk } = sock
  if (sk === null) return 0
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
  purge(sk)
  sock_put(sk)
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
function unix_dgram_disconnected(sk: sock, other: sock): void {
  if (sk.sk_receive_queue.qlen === 0) return
  purge(sk)
  wake_up_all(unix_sk(sk).peer_wait)
  if (sock_flag(other, SOCK_DEAD) || peer_of(other) !== sk.addr) return
  store(other.addr + ERR, ECONNRESET)
  call(other.sk_error_report)(other)
}

/** The new peer takes the place of the old one. @consumes a reference of other */
function set_peer(sk: sock, other: number): void {
  const u = unix_sk(sk)
  write_lock(u.lock)
  const old = peer_of(sk)
  store(sk.addr + PEER, other)
  write_unlock(u.lock)
  if (old === 0) return
  if (other !== old) unix_dgram_disconnected(sk, SOCK.ref(old))
  sock_put(SOCK.ref(old))
}

function* unix_dgram_connect(sock: socket, addr: number, addr_len: number): Call {
  const sk = sock.sk!
  if (addr_len >= 2 && dv.getUint16(addr, true) === AF_UNSPEC) {
    set_peer(sk, 0)
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
  set_peer(sk, other)
  return 0
}

function* unix_socketpair(a: socket, b: socket): Call {
  sock_hold(a.sk!)
  sock_hold(b.sk!)
  store(a.sk!.addr + PEER, b.sk!.addr)
  store(b.sk!.addr + PEER, a.sk!.addr)
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

interface Creds {
  pid: number
  uid: number
  gid: number
}

/** scm_send - who the sender says it is; only root may say what is not so. @returns 0, -EFAULT, -EINVAL, -EPERM */
function scm_send(msg: msghdr, creds: Creds): number {
  const at = scratch()
  const end = msg.msg_control + msg.msg_controllen
  for (let cm = msg.msg_control; cm !== 0 && cm + CMSG_HDR <= end; ) {
    if (copy_from_user(at, cm, CMSG_HDR) !== 0) return -EFAULT
    const [len, level, type] = [i32[at >> 2]!, i32[(at >> 2) + 1]!, i32[(at >> 2) + 2]!]
    if (len < CMSG_HDR || cm + len > end) return -EINVAL
    if (level === SOL_SOCKET) {
      if (type !== SCM_CREDENTIALS || len !== CMSG_HDR + 12) return -EINVAL // no descriptors yet
      if (copy_from_user(at, cm + CMSG_HDR, 12) !== 0) return -EFAULT
      const said = { pid: i32[at >> 2]!, uid: i32[(at >> 2) + 1]!, gid: i32[(at >> 2) + 2]! }
      const root = current().uid === 0
      if (!root && (said.pid !== creds.pid || said.uid !== creds.uid || said.gid !== creds.gid)) return -EPERM
      Object.assign(creds, said)
    }
    cm += (len + 3) & ~3
  }
  return 0
}

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
  else skb_queue_tail(other.sk_receive_queue, skb)
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
function peer_died(sk: sock, other: sock): number {
  const u = unix_sk(sk)
  write_lock(u.lock)
  const was = peer_of(sk) === other.addr
  if (was) store(sk.addr + PEER, 0)
  write_unlock(u.lock)
  if (!was) return AGAIN
  unix_dgram_disconnected(sk, other)
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
    if (ret === DEAD) ret = peer_died(sk, other)
    sock_put(other)
    if (ret !== AGAIN) return ret
  }
}

function* unix_dgram_sendmsg(sock: socket, msg: msghdr, len: number): Call {
  const sk = sock.sk!
  const creds = { pid: current().pid, uid: current().uid, gid: 0 }
  const bad = scm_send(msg, creds)
  if (bad < 0) return bad
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
  const cred = UCRED.ref(skb.cb)
  cred.pid = creds.pid
  cred.uid = creds.uid
  cred.gid = creds.gid
  if (memcpy_fromiovecend(skb_put(skb, len), msg.msg_iov, 0, len) !== 0) {
    err = -EFAULT
    if (peer !== null) sock_put(peer)
  } else err = yield* deliver(sk, skb, peer, named ? msg.msg_name + SUN_PATH : 0, namelen, noblock)
  if (err === 0) return len
  consume_skb(skb)
  return err
}

// ---- receiving ------------------------------------------------------------------------------------------------------

function* unix_dgram_recvmsg(sock: socket, msg: msghdr, size: number, flags: number): Call {
  const sk = sock.sk!
  if ((flags & MSG_OOB) !== 0) return -EOPNOTSUPP
  const got = yield* skb_recv_datagram(sk, flags & ~MSG_DONTWAIT, (flags & MSG_DONTWAIT) !== 0)
  msg.msg_namelen = 0
  if (got <= 0) return got
  const skb = SKB.ref(got)
  wake_up(unix_sk(sk).peer_wait)
  if (msg.msg_name !== 0) msg.msg_namelen = copy_addr(msg.msg_name, SOCK.ref(skb.sk))
  if (size < skb.len) msg.msg_flags |= MSG_TRUNC
  const copied = Math.min(size, skb.len)
  const err = skb_copy_datagram_iovec(skb, 0, msg.msg_iov, copied)
  if (err === 0 && sock.passcred !== 0) put_cmsg(msg, SOL_SOCKET, SCM_CREDENTIALS, 12, skb.cb)
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
  sock_register(AF_UNIX, unix_create_sym)
}
