/**
 * sock_async.ts - sockets that tell their owners by a signal what they have (sock_fasync, sock_wake_async of net/socket.c, 2.6.11).
 *
 * Lock charter
 *   sk_callback_lock guards a socket's list: it is changed with the sock owned by a process and the lock held for writing, and
 *   gone through with it held for reading. Under it: fown.lock and what that takes.
 */
import { fetch_and, load } from '../../arch/atomic.js'
import { EINVAL, ENOMEM } from '../../lib/errno.js'
import {
  __kill_fasync,
  fasync_alloc,
  fasync_free,
  fasync_link,
  fasync_unlink,
  type fown_struct,
} from '../../sched/fasync.js'
import { SIGIO, SIGURG } from '../../sched/signal.js'
import { write_lock_bh, write_unlock_bh } from '../../sync/rwlock.js'
import { lock_sock, release_sock } from './sock.js'
import { SOCK_ASYNC_NOSPACE, SOCK_ASYNC_WAITDATA, SOCKET, type sock, type socket } from './sock_types.js'
import type { Call } from './socket.js'

const LIST = SOCKET.offset('fasync_list')
const FLAGS = SOCKET.offset('flags')

// how sk_wake_async is meant
export const WAKE_ERROR = 0
/** Something to read, unless a process waits for it already. */
export const WAKE_IN = 1
/** Room, if somebody was told that there was none. */
export const WAKE_OUT = 2
export const WAKE_URGENT = 3

/** sock_fasync - the owner is told from now on, or no more. @context process @locks sk_lock @returns 0, -ENOMEM, -EINVAL: no sock */
export function* sock_fasync(sock: socket, fown: fown_struct, fd: number, on: boolean): Call {
  const { sk } = sock
  const entry = on ? fasync_alloc() : 0
  if (on && entry === 0) return -ENOMEM
  if (sk === null) {
    fasync_free(entry)
    return -EINVAL
  }
  yield* lock_sock(sk)
  write_lock_bh(sk.sk_callback_lock)
  const list = sock.addr + LIST
  const left = on ? fasync_link(list, entry, fown, fd) : fasync_unlink(list, fown)
  write_unlock_bh(sk.sk_callback_lock)
  release_sock(sk)
  fasync_free(left)
  return 0
}
/** sock_is_async - does it tell anybody? A hint. */
export function sock_is_async(sock: socket): boolean {
  return sock.fasync_list !== 0
}

/** sk_wake_async - owners of the socket are told. @context softirq, process @locks sk_callback_lock is held, fown.lock */
export function sk_wake_async(sk: sock, how: number): void {
  const sock = sk.sk_socket
  if (sock === null || sock.fasync_list === 0) return
  const flags = sock.addr + FLAGS
  if (how === WAKE_IN && (load(flags) & SOCK_ASYNC_WAITDATA) !== 0) return
  if (how === WAKE_OUT && (fetch_and(flags, ~SOCK_ASYNC_NOSPACE) & SOCK_ASYNC_NOSPACE) === 0) return
  __kill_fasync(sock.addr + LIST, how === WAKE_URGENT ? SIGURG : SIGIO)
}
