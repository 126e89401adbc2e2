/**
 * unix_conn.ts - Unix sockets that are connected before they talk: listen, connect, accept (net/unix/af_unix.c of 2.6.11). Whoever
 * connects makes the socket of the other end himself, and lays it on the queue of the one that listens.
 *
 * Lock charter
 *   unix_sock.lock of the one that listens is held for reading, that of the one that connects is taken under it: never the other
 *   way round, since only one of them listens. A socket that listens does so until it is released.
 */
import { call } from '../../abi/symbol.js'
import { memcpy, RAM } from '../../arch/ram.js'
import { EAGAIN, ECONNREFUSED, EINVAL, EISCONN, ENOMEM } from '../../lib/errno.js'
import { O_NONBLOCK } from '../../lib/fcntl.js'
import { kmalloc } from '../../mm/kmalloc.js'
import { current } from '../../sched/sched.js'
import { signal_pending } from '../../sched/signal.js'
import { wake_up, wake_up_all } from '../../sched/wait.js'
import { read_lock, read_unlock, write_lock, write_lock_nested, write_unlock } from '../../sync/rwlock.js'
import { SINGLE_DEPTH_NESTING } from '../../sync/spinlock.js'
import { skb_free_datagram, skb_recv_datagram, skb_recv_datagram_fast } from '../core/datagram.js'
import { consume_skb } from '../core/skbuff.js'
import { sock_flag, sock_graft, sock_hold, sock_put } from '../core/sock.js'
import { sock_intr_errno, sock_sndtimeo, sock_wmalloc } from '../core/sock_mem.js'
import {
  MSG_PEEK,
  RCV_SHUTDOWN,
  SOCK,
  SOCK_DEAD,
  SS_CONNECTED,
  type sock,
  type socket,
  TCP_CLOSE,
  TCP_ESTABLISHED,
  TCP_LISTEN,
} from '../core/sock_types.js'
import type { Call } from '../core/socket.js'
import { SKB, type sk_buff } from '../core/types.js'
import { unix_queue, unix_recv_begin, unix_recv_end } from './garbage.js'
import { SUN_PATH, UCRED, unix_sk } from './types.js'
import {
  autobind_for_creds,
  unix_create1,
  unix_queue_full,
  unix_release_sock,
  unix_set_peer,
  unix_wait_for_peer,
} from './unix_sock.js'
import { MAX_NAME, unix_find_other, unix_mkname } from './unix_table.js'

const i32 = RAM.i32

/** unix_copy_creds - who is in this call, as SO_PEERCRED of the sock. */
export function unix_copy_creds(sk: sock): void {
  const { pid, uid } = current()
  i32.set([pid, uid, 0], sk.sk_peercred >> 2)
}

export function* unix_listen(sock: socket, backlog: number): Call {
  const sk = sock.sk!
  const u = unix_sk(sk)
  if (u.name === 0) return -EINVAL // nobody could find it
  write_lock(u.lock)
  const err = sk.sk_state !== TCP_CLOSE && sk.sk_state !== TCP_LISTEN ? -EINVAL : 0
  if (err === 0) {
    const more = backlog > sk.sk_max_ack_backlog
    sk.sk_max_ack_backlog = backlog
    sk.sk_state = TCP_LISTEN
    unix_copy_creds(sk) // for connect to copy
    if (more) wake_up_all(u.peer_wait)
  }
  write_unlock(u.lock)
  return err
}

// ---- connecting -----------------------------------------------------------------------------------------------------

const AGAIN = 1
const FULL = 2
/** May this one connect to that one now? @locks unix_sock.lock of other is held @returns 0, -errno, AGAIN, FULL */
function may_connect(sk: sock, other: sock): number {
  if (sock_flag(other, SOCK_DEAD)) return AGAIN // its name leads elsewhere by now, or nowhere
  // 2.6.11 lets shut-down ones listen on, and then waits without sleeping for room in their queue.
  if (other.sk_state !== TCP_LISTEN || (other.sk_shutdown & RCV_SHUTDOWN) !== 0) return -ECONNREFUSED
  if (unix_queue_full(other)) return FULL
  if (sk.sk_state === TCP_CLOSE) return 0
  return sk.sk_state === TCP_ESTABLISHED ? -EISCONN : -EINVAL
}

/** The two ends know each other. @locks unix_sock.lock of other (for reading) and of sk are held */
function marry(sock: socket, sk: sock, newsk: sock, other: sock): void {
  const [newu, otheru] = [unix_sk(newsk), unix_sk(other)]
  newsk.sk_type = sk.sk_type
  newsk.sk_sleep = newu.peer_wait
  newsk.sk_state = TCP_ESTABLISHED
  memcpy(newu.name, otheru.name, otheru.namelen)
  newu.namelen = otheru.namelen
  unix_copy_creds(newsk)
  memcpy(sk.sk_peercred, other.sk_peercred, 12)
  sock_hold(sk)
  unix_set_peer(newsk, sk.addr)
  sock_hold(newsk)
  unix_set_peer(sk, newsk.addr)
  sock.state = SS_CONNECTED
  sk.sk_state = TCP_ESTABLISHED
}

/** One try. @consumes skb and newsk if it returns 0 @returns 0, -errno, AGAIN, FULL */
function try_connect(sock: socket, newsk: sock, skb: sk_buff, other: sock): number {
  const sk = sock.sk!
  const [u, otheru] = [unix_sk(sk), unix_sk(other)]
  read_lock(otheru.lock)
  let ret = may_connect(sk, other)
  if (ret === 0) {
    write_lock_nested(u.lock, SINGLE_DEPTH_NESTING)
    if (sk.sk_state !== TCP_CLOSE)
      ret = AGAIN // another thread was faster, and may_connect says what that means
    else marry(sock, sk, newsk, other)
    write_unlock(u.lock)
  }
  if (ret === 0) unix_queue(other, skb)
  read_unlock(otheru.lock)
  if (ret === 0) call(other.sk_data_ready)(other, 0)
  return ret
}

/** To the name at `addr`, waiting for room on the queue of the one that listens. @returns as try_connect, but for AGAIN and FULL */
function* connect_by_name(sock: socket, newsk: sock, skb: sk_buff, addr: number, len: number, noblock: boolean): Call {
  const sk = sock.sk!
  for (let timeo = sock_sndtimeo(sk, noblock); ; ) {
    const found = unix_find_other(addr + SUN_PATH, len, sk.sk_type)
    if (found < 0) return found
    const other = SOCK.ref(found)
    let ret = try_connect(sock, newsk, skb, other)
    if (ret === FULL && timeo === 0) ret = -EAGAIN
    if (ret === FULL) {
      timeo = yield* unix_wait_for_peer(other, timeo)
      ret = signal_pending(current()) ? sock_intr_errno(timeo) : AGAIN
    }
    sock_put(other)
    if (ret !== AGAIN) return ret
  }
}

/** The other end, with room for its name. @context process @returns owned sock, or null: no memory */
function* make_embrion(): Generator<void, sock | null, void> {
  const newsk = unix_create1(null)
  if (newsk === null) return null
  const name = kmalloc(MAX_NAME)
  unix_sk(newsk).name = name
  if (name !== 0) return newsk
  yield* unix_release_sock(newsk, false)
  return null
}

export function* unix_stream_connect(sock: socket, addr: number, addr_len: number, flags: number): Call {
  const len = unix_mkname(addr, addr_len)
  const err = len < 0 ? len : autobind_for_creds(sock)
  if (err < 0) return err
  const newsk = yield* make_embrion()
  if (newsk === null) return -ENOMEM
  const skb = sock_wmalloc(newsk, 1, false)
  let ret = -ENOMEM
  if (skb !== null) {
    UCRED.ref(skb.cb).fp = 0
    ret = yield* connect_by_name(sock, newsk, skb, addr, len, (flags & O_NONBLOCK) !== 0)
    if (ret < 0) consume_skb(skb)
  }
  if (ret < 0) yield* unix_release_sock(newsk, false)
  return ret
}

// ---- accepting ------------------------------------------------------------------------------------------------------

/** The first connection of the queue gets its program's side, if there is one. @returns 0, -EAGAIN, the socket's error */
function* try_accept(sk: sock, newsock: socket): Call {
  unix_recv_begin() // what is on no queue and has no file yet is no garbage
  const got = skb_recv_datagram_fast(sk, 0, true)
  if (got > 0) {
    const skb = SKB.ref(got)
    const tsk = SOCK.ref(skb.sk)
    skb_free_datagram(sk, skb)
    const { lock } = unix_sk(tsk)
    write_lock(lock)
    newsock.state = SS_CONNECTED
    sock_graft(tsk, newsock)
    write_unlock(lock)
  }
  yield* unix_recv_end()
  if (got > 0) wake_up(unix_sk(sk).peer_wait)
  return Math.min(got, 0)
}

export function* unix_accept(sock: socket, newsock: socket, flags: number): Call {
  const sk = sock.sk!
  if (sk.sk_state !== TCP_LISTEN) return -EINVAL
  for (;;) {
    const err = yield* try_accept(sk, newsock)
    if (err !== -EAGAIN || (flags & O_NONBLOCK) !== 0) return err
    // Somebody else may take what we waited for.
    const seen = yield* skb_recv_datagram(sk, MSG_PEEK, false)
    if (seen <= 0) return seen === 0 ? -EINVAL : seen // 0: it was shut down
    skb_free_datagram(sk, SKB.ref(seen))
  }
}
