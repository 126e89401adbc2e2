/**
 * unix_sock.ts - the life of a Unix socket of any type: made, connected to somebody, waited for, ended.
 *
 * Lock charter: af_unix.ts.
 */
import type { Sym } from '../../abi/symbol.js'
import { call, symbol } from '../../abi/symbol.js'
import { load, store } from '../../arch/atomic.js'
import { BUG_ON } from '../../arch/cpu.js'
import { schedule_timeout } from '../../irq/timer.js'
import { ECONNRESET } from '../../lib/errno.js'
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
  wake_up_all,
} from '../../sched/wait.js'
import {
  read_lock,
  read_lock_bh,
  read_unlock,
  read_unlock_bh,
  rwlock_init,
  write_lock,
  write_unlock,
} from '../../sync/rwlock.js'
import { connection_based } from '../core/datagram.js'
import { skb_dequeue, skb_queue_empty } from '../core/skb_queue.js'
import { sk_alloc, sock_flag, sock_hold, sock_init_data, sock_orphan, sock_put } from '../core/sock.js'
import { sk_wake_async, WAKE_IN } from '../core/sock_async.js'
import { sock_def_callbacks, sock_wmem } from '../core/sock_mem.js'
import {
  AF_UNIX,
  RCV_SHUTDOWN,
  SHUTDOWN_MASK,
  SOCK,
  SOCK_DEAD,
  type sock,
  type socket,
  TCP_CLOSE,
  TCP_LISTEN,
} from '../core/sock_types.js'
import { SKB_HEAD } from '../core/types.js'
import { unix_free_message, unix_insert_socket, unix_remove_socket } from './garbage.js'
import { unix_ctl } from './sysctl_net_unix.js'
import { UNIX_SOCK, unix_sk } from './types.js'
import { scratch } from './unix_scm.js'
import { unix_autobind, unix_unhash } from './unix_table.js'

const PEER = UNIX_SOCK.offset('peer')
const ERR = SOCK.offset('sk_err')
const QLEN = SKB_HEAD.offset('qlen')

/** unix_peer - address of the sock that it is connected to, 0: none. */
export function unix_peer(sk: sock): number {
  return load(sk.addr + PEER)
}
/** unix_set_peer - @locks unix_sock.lock is held for writing, or nobody knows the sock yet @consumes a reference of peer */
export function unix_set_peer(sk: sock, peer: number): void {
  store(sk.addr + PEER, peer)
}
/** unix_peer_get - with a reference, or null. */
export function unix_peer_get(sk: sock): sock | null {
  const u = unix_sk(sk)
  read_lock(u.lock)
  const at = unix_peer(sk)
  const peer = at === 0 ? null : SOCK.ref(at)
  if (peer !== null) sock_hold(peer)
  read_unlock(u.lock)
  return peer
}
/** unix_set_err - the next call on the socket says so. */
export function unix_set_err(sk: sock, errno: number): void {
  store(sk.addr + ERR, errno)
}

/** autobind_for_creds - a name for who wants his messages to say from whom they are. */
export function autobind_for_creds(sock: socket): number {
  return sock.passcred !== 0 ? unix_autobind(sock.sk!, scratch()) : 0
}

// ---- making and ending ----------------------------------------------------------------------------------------------

function unix_sock_destructor(sk: sock): void {
  BUG_ON(!sock_flag(sk, SOCK_DEAD), 'destroy of a live unix sock')
  BUG_ON(sock_wmem(sk) !== 0, 'unix sock freed with memory charged')
  const { name } = unix_sk(sk)
  if (name !== 0) kfree(name)
}
const unix_sock_destructor_sym = symbol('unix_sock_destructor', unix_sock_destructor)
const unix_prot_sym: Sym<unknown> = symbol('unix_prot', unix_sock_destructor)

/** unix_create1 - a sock, with the program's side or (null) without one yet. @context process @returns owned sock, or null */
export function unix_create1(sock: socket | null): sock | null {
  const sk = sk_alloc(AF_UNIX, unix_prot_sym)
  if (sk === null) return null
  sock_init_data(sock, sk, sock_def_callbacks)
  sk.sk_max_ack_backlog = unix_ctl.max_dgram_qlen
  sk.sk_destruct = unix_sock_destructor_sym
  const u = unix_sk(sk)
  rwlock_init(u.lock)
  init_waitqueue_head(u.peer_wait)
  u.inflight = 0
  unix_insert_socket(sk)
  return sk
}

/** unix_tell - who sleeps in the socket, and who is told of it by a signal, look again. @context process @locks sk_callback_lock */
export function unix_tell(sk: sock): void {
  call(sk.sk_state_change)(sk)
  read_lock_bh(sk.sk_callback_lock)
  sk_wake_async(sk, WAKE_IN)
  read_unlock_bh(sk.sk_callback_lock)
}

/** The other end of a connection hears that this one is gone, and whether what it sent was read. */
function hang_up(sk: sock, peer: sock, embrion: boolean): void {
  const u = unix_sk(peer)
  write_lock(u.lock)
  peer.sk_shutdown = SHUTDOWN_MASK
  if (embrion || !skb_queue_empty(sk.sk_receive_queue)) unix_set_err(peer, ECONNRESET)
  write_unlock(u.lock)
  unix_tell(peer)
}

/** unix_purge - what was not received goes; of a listening socket (`listens`) it is connections. @context process */
export function* unix_purge(sk: sock, listens = false): Generator<void, void, void> {
  for (let skb = skb_dequeue(sk.sk_receive_queue); skb !== null; skb = skb_dequeue(sk.sk_receive_queue)) {
    if (listens) yield* unix_release_sock(SOCK.ref(skb.sk), true)
    yield* unix_free_message(skb)
  }
}

/** unix_release_sock - `embrion`: nobody ever accepted it. @context process @consumes sk */
export function* unix_release_sock(sk: sock, embrion: boolean): Generator<void, void, void> {
  unix_remove_socket(sk)
  unix_unhash(sk)
  const u = unix_sk(sk)
  write_lock(u.lock)
  sock_orphan(sk)
  sk.sk_shutdown = SHUTDOWN_MASK
  const listened = sk.sk_state === TCP_LISTEN
  sk.sk_state = TCP_CLOSE
  const peer = unix_peer(sk)
  unix_set_peer(sk, 0)
  write_unlock(u.lock)
  wake_up_all(u.peer_wait)
  if (peer !== 0) {
    if (connection_based(sk)) hang_up(sk, SOCK.ref(peer), embrion)
    sock_put(SOCK.ref(peer))
  }
  yield* unix_purge(sk, listened)
  sock_put(sk)
}

// ---- full queues ----------------------------------------------------------------------------------------------------

/** unix_queue_full - of messages, or of connections that wait to be accepted. */
export function unix_queue_full(sk: sock): boolean {
  return load(sk.sk_receive_queue.addr + QLEN) > sk.sk_max_ack_backlog
}

/** unix_wait_for_peer - until the receiver has taken something. @context process @returns jiffies left */
export function* unix_wait_for_peer(other: sock, timeo: number): Generator<void, number, void> {
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
    unix_queue_full(other) &&
    !signal_pending(current())
  read_unlock(u.lock)
  const left = sleep ? yield* schedule_timeout(timeo) : timeo
  finish_wait(u.peer_wait, wait)
  return left
}
