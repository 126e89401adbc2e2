/**
 * sock_mem.ts - what a socket is charged for, and who is woken when that changes.
 *
 * Lock charter
 *   sk_rmem_alloc and sk_wmem_alloc are atomic sums of truesize. A sender that waits for room queues itself on sk_sleep
 *   before it looks at the sum; a packet is taken off the sum before its destructor looks for sleepers. A receiver does the
 *   same with the receive queue.
 *   sk_sleep is looked at under sk_callback_lock, for reading, in any context but hardirq.
 */
import { call, symbol } from '../../abi/symbol.js'
import { fetch_add, fetch_and, fetch_or, load } from '../../arch/atomic.js'
import { MAX_SCHEDULE_TIMEOUT, schedule_timeout } from '../../irq/timer.js'
import { EAGAIN, EINTR, ENOBUFS, ENOMEM, EPIPE, ERESTARTSYS } from '../../lib/errno.js'
import { current, schedule } from '../../sched/sched.js'
import { signal_pending } from '../../sched/signal.js'
import { TASK_INTERRUPTIBLE } from '../../sched/task.js'
import { begin_wait, finish_wait, prepare_to_wait, waitqueue_active, wake_up, wake_up_all } from '../../sched/wait.js'
import { read_lock_bh, read_unlock_bh } from '../../sync/rwlock.js'
import { fate_delivered } from './fate.js'
import { sk_filter } from './filter.js'
import { skb_queue_tail } from './skb_queue.js'
import { alloc_skb, skb_orphan } from './skbuff.js'
import { type sock_callbacks, sock_error, sock_flag, sock_hold, sock_put } from './sock.js'
import { sk_wake_async, WAKE_ERROR, WAKE_IN, WAKE_OUT } from './sock_async.js'
import {
  SEND_SHUTDOWN,
  SOCK,
  SOCK_ASYNC_NOSPACE,
  SOCK_DEAD,
  SOCK_NOSPACE,
  SOCK_USE_WRITE_QUEUE,
  SOCKET,
  type sock,
} from './sock_types.js'
import { ACCT_NONE, type sk_buff } from './types.js'

const RMEM = SOCK.offset('sk_rmem_alloc')
const WMEM = SOCK.offset('sk_wmem_alloc')
const SOCKET_FLAGS = SOCKET.offset('flags')

export const SOCK_MIN_SNDBUF = 2048
export const SOCK_MIN_RCVBUF = 256

// ---- who is told ----------------------------------------------------------------------------------------------------

/** Somebody sleeps on the socket. What was changed before is seen by him, or he by us: both sides are ordered. */
function sk_has_sleeper(sk: sock): boolean {
  const q = sk.sk_sleep
  return q !== null && waitqueue_active(q)
}

function sock_def_wakeup(sk: sock): void {
  read_lock_bh(sk.sk_callback_lock)
  if (sk_has_sleeper(sk)) wake_up_all(sk.sk_sleep!)
  read_unlock_bh(sk.sk_callback_lock)
}
function sock_def_error_report(sk: sock): void {
  read_lock_bh(sk.sk_callback_lock)
  if (sk_has_sleeper(sk)) wake_up(sk.sk_sleep!)
  sk_wake_async(sk, WAKE_ERROR)
  read_unlock_bh(sk.sk_callback_lock)
}
function sock_def_readable(sk: sock, _bytes: number): void {
  read_lock_bh(sk.sk_callback_lock)
  if (sk_has_sleeper(sk)) wake_up(sk.sk_sleep!)
  sk_wake_async(sk, WAKE_IN)
  read_unlock_bh(sk.sk_callback_lock)
}
/** Who waits for room is woken when half of it is free, so that it is worth his while. */
function sock_def_write_space(sk: sock): void {
  read_lock_bh(sk.sk_callback_lock)
  if (load(sk.addr + WMEM) << 1 <= sk.sk_sndbuf) {
    if (sk_has_sleeper(sk)) wake_up(sk.sk_sleep!)
    if (sock_writeable(sk)) sk_wake_async(sk, WAKE_OUT)
  }
  read_unlock_bh(sk.sk_callback_lock)
}
/** The callbacks that a sock begins with. */
export const sock_def_callbacks: sock_callbacks = {
  state_change: symbol('sock_def_wakeup', sock_def_wakeup),
  data_ready: symbol('sock_def_readable', sock_def_readable),
  write_space: symbol('sock_def_write_space', sock_def_write_space),
  error_report: symbol('sock_def_error_report', sock_def_error_report),
}

// ---- receiving ------------------------------------------------------------------------------------------------------

/** sock_rfree - destructor of a packet that a receiver is charged for. */
function sock_rfree(skb: sk_buff): void {
  fetch_add(skb.sk + RMEM, -skb.truesize)
}
const sock_rfree_sym = symbol('sock_rfree', sock_rfree)

/** skb_set_owner_r - the socket is charged for a packet that it received. It outlives it: it purges its queue. */
export function skb_set_owner_r(skb: sk_buff, sk: sock): void {
  skb_orphan(skb)
  skb.sk = sk.addr
  skb.destructor = sock_rfree_sym
  fetch_add(sk.addr + RMEM, skb.truesize)
}

/**
 * sock_queue_rcv_skb - a packet for the program, unless its buffer is full. In the books it is delivered from here on.
 * @param header bytes that a filter cannot cut off @context softirq, process @consumes skb if it returns 0
 * @returns 0, -ENOMEM, -EPERM: its filter does not want it
 */
export function sock_queue_rcv_skb(sk: sock, skb: sk_buff, header = 0): number {
  // As many as 2^31 bytes are on no account; the sum before this packet may be just below the limit.
  if (load(sk.addr + RMEM) + skb.truesize >= sk.sk_rcvbuf) return -ENOMEM
  const err = sk_filter(sk, skb, header)
  if (err !== 0) return err
  skb.dev = null
  skb_set_owner_r(skb, sk)
  fate_delivered(skb.acct)
  skb.acct = ACCT_NONE
  const { len } = skb
  skb_queue_tail(sk.sk_receive_queue, skb) // it may be gone at once
  if (!sock_flag(sk, SOCK_DEAD)) call(sk.sk_data_ready)(sk, len)
  return 0
}

/** sock_rmem - truesize of what waits to be received. */
export function sock_rmem(sk: sock): number {
  return load(sk.addr + RMEM)
}
/** sock_wmem - truesize of what was sent and is not gone. */
export function sock_wmem(sk: sock): number {
  return load(sk.addr + WMEM)
}
/** sock_writeable - is so much room that to send is worth a program's while? */
export function sock_writeable(sk: sock): boolean {
  return sock_wmem(sk) < sk.sk_sndbuf >> 1
}
/** sock_wmem_add - a packet grew that the socket is charged for. */
export function sock_wmem_add(sk: sock, n: number): void {
  fetch_add(sk.addr + WMEM, n)
}

// ---- sending --------------------------------------------------------------------------------------------------------

/** sock_wfree - destructor of a packet that a sender is charged for: there is room again. */
function sock_wfree(skb: sk_buff): void {
  const sk = SOCK.ref(skb.sk)
  fetch_add(sk.addr + WMEM, -skb.truesize)
  if (!sock_flag(sk, SOCK_USE_WRITE_QUEUE)) call(sk.sk_write_space)(sk)
  sock_put(sk)
}
const sock_wfree_sym = symbol('sock_wfree', sock_wfree)

/** skb_set_owner_w - the socket is charged for a packet that it sends, and lives until it is gone. */
export function skb_set_owner_w(skb: sk_buff, sk: sock): void {
  sock_hold(sk)
  skb.sk = sk.addr
  skb.destructor = sock_wfree_sym
  fetch_add(sk.addr + WMEM, skb.truesize)
}

/** sock_wmalloc - a packet that the socket is charged for, if it has room for it or is made to (`force`). @returns null: no */
export function sock_wmalloc(sk: sock, size: number, force: boolean): sk_buff | null {
  if (!force && sock_wmem(sk) >= sk.sk_sndbuf) return null
  const skb = alloc_skb(size)
  if (skb !== null) skb_set_owner_w(skb, sk)
  return skb
}

/** sock_sndtimeo - jiffies that a sender may sleep. */
export function sock_sndtimeo(sk: sock, noblock: boolean): number {
  return noblock ? 0 : sk.sk_sndtimeo
}
export function sock_rcvtimeo(sk: sock, noblock: boolean): number {
  return noblock ? 0 : sk.sk_rcvtimeo
}
/** sock_intr_errno - what a call returns that a signal ended: begun anew it would wait longer than it was told to. */
export function sock_intr_errno(timeo: number): number {
  return timeo === MAX_SCHEDULE_TIMEOUT ? -ERESTARTSYS : -EINTR
}

function set_socket_flags(sk: sock, flags: number): void {
  if (sk.sk_socket !== null) fetch_or(sk.sk_socket.addr + SOCKET_FLAGS, flags)
}

/** Sleep until there is room, or something else to look at. @context process @returns jiffies left */
function* sock_wait_for_wmem(sk: sock, timeo: number): Generator<void, number, void> {
  const q = sk.sk_sleep!
  const wait = begin_wait()
  if (wait === null) {
    yield* schedule() // look again and again
    return timeo
  }
  if (sk.sk_socket !== null) fetch_and(sk.sk_socket.addr + SOCKET_FLAGS, ~SOCK_ASYNC_NOSPACE)
  while (timeo > 0 && !signal_pending(current())) {
    set_socket_flags(sk, SOCK_NOSPACE)
    prepare_to_wait(q, wait, TASK_INTERRUPTIBLE)
    if (sock_wmem(sk) < sk.sk_sndbuf || (sk.sk_shutdown & SEND_SHUTDOWN) !== 0 || sk.sk_err !== 0) break
    timeo = yield* schedule_timeout(timeo)
  }
  finish_wait(q, wait)
  return timeo
}

/** What sock_alloc_send_skb does when nobody has to wait. @returns address of a packet, -errno; 0: wait */
function try_alloc_send_skb(sk: sock, size: number): number {
  const err = sock_error(sk)
  if (err !== 0) return err
  if ((sk.sk_shutdown & SEND_SHUTDOWN) !== 0) return -EPIPE
  if (sock_wmem(sk) >= sk.sk_sndbuf) return 0
  const skb = alloc_skb(size)
  if (skb === null) return -ENOBUFS
  skb_set_owner_w(skb, sk)
  return skb.addr
}

/**
 * sock_alloc_send_skb - a packet of the program's, once the send buffer has room.
 * @context process @returns address of an owned packet, or -EAGAIN, -EPIPE, -ENOBUFS, -ERESTARTSYS, -EINTR, the socket's error
 */
export function* sock_alloc_send_skb(sk: sock, size: number, noblock: boolean): Generator<void, number, void> {
  let timeo = sock_sndtimeo(sk, noblock)
  for (;;) {
    const got = try_alloc_send_skb(sk, size)
    if (got !== 0) return got
    set_socket_flags(sk, SOCK_ASYNC_NOSPACE | SOCK_NOSPACE)
    if (timeo === 0) return -EAGAIN
    if (signal_pending(current())) return sock_intr_errno(timeo)
    timeo = yield* sock_wait_for_wmem(sk, timeo)
  }
}

/** sock_alloc_send_skb_fast - the same without a generator; 0: it would have to wait. @context process */
export function sock_alloc_send_skb_fast(sk: sock, size: number): number {
  return try_alloc_send_skb(sk, size)
}
