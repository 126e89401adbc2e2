/** datagram.ts - receiving whole packets: wait for one, copy it out, check its sum on the way. No locks of its own. */
import { fetch_or } from '../../arch/atomic.js'
import { RAM } from '../../arch/ram.js'
import { MAX_SCHEDULE_TIMEOUT, schedule_timeout } from '../../irq/timer.js'
import { csum_fold, csum_partial } from '../../lib/checksum.js'
import { EAGAIN, EFAULT, EINVAL, ENOTCONN } from '../../lib/errno.js'
import { put_user } from '../../sched/mm.js'
import {
  POLLERR,
  POLLHUP,
  POLLIN,
  POLLOUT,
  POLLRDNORM,
  POLLWRBAND,
  POLLWRNORM,
  type poll_table,
  poll_wait,
} from '../../sched/poll.js'
import { current, schedule } from '../../sched/sched.js'
import { signal_pending } from '../../sched/signal.js'
import { TASK_INTERRUPTIBLE } from '../../sched/task.js'
import { begin_wait, finish_wait, prepare_to_wait, WQ_FLAG_EXCLUSIVE } from '../../sched/wait.js'
import { spin_lock_irqsave, spin_unlock_irqrestore } from '../../sync/spinlock.js'
import { memcpy_toiovec } from './iovec.js'
import { skb_dequeue, skb_peek, skb_queue_empty } from './skb_queue.js'
import { consume_skb, skb_get, skb_headlen, skb_shinfo } from './skbuff.js'
import { sock_error } from './sock.js'
import { sock_intr_errno, sock_rcvtimeo, sock_wmem, sock_writeable } from './sock_mem.js'
import {
  MSG_PEEK,
  RCV_SHUTDOWN,
  SHUTDOWN_MASK,
  SIOCINQ,
  SIOCOUTQ,
  SOCK_ASYNC_NOSPACE,
  SOCK_SEQPACKET,
  SOCK_STREAM,
  SOCKET,
  type sock,
  type socket,
  TCP_CLOSE,
  TCP_ESTABLISHED,
  TCP_LISTEN,
  TCP_SYN_SENT,
} from './sock_types.js'
import type { sk_buff } from './types.js'

const i32 = RAM.i32
const dv = RAM.dv

/** The first packet of the receive queue: taken off it, or looked at with a reference more. @returns address, 0: none */
function first_packet(sk: sock, flags: number): number {
  if ((flags & MSG_PEEK) === 0) return skb_dequeue(sk.sk_receive_queue)?.addr ?? 0
  const irq = spin_lock_irqsave(sk.sk_receive_queue.lock)
  const skb = skb_peek(sk.sk_receive_queue)
  if (skb !== null) skb_get(skb)
  spin_unlock_irqrestore(sk.sk_receive_queue.lock, irq)
  return skb === null ? 0 : skb.addr
}

/** connection_based - must it be connected before anything is sent? */
export function connection_based(sk: sock): boolean {
  return sk.sk_type === SOCK_SEQPACKET || sk.sk_type === SOCK_STREAM
}

const LOOK = 1
/** Why a receiver does not go (back) to sleep. @returns LOOK: at the queue, 0: it was shut down, -errno; null: sleep */
function why_not_sleep(sk: sock, timeo: number): number | null {
  const err = sock_error(sk)
  if (err !== 0) return err
  if (!skb_queue_empty(sk.sk_receive_queue)) return LOOK
  if ((sk.sk_shutdown & RCV_SHUTDOWN) !== 0) return 0
  if (connection_based(sk) && sk.sk_state !== TCP_ESTABLISHED && sk.sk_state !== TCP_LISTEN) return -ENOTCONN
  if (signal_pending(current())) return sock_intr_errno(timeo)
  return timeo === 0 ? LOOK : null
}

/**
 * wait_for_packet - sleep until there is something to look at. Unlike the original it stays on the queue while it looks: a
 * wake-up that it does not need goes to another receiver. @context process @returns [why, jiffies left]
 */
function* wait_for_packet(sk: sock, timeo: number): Generator<void, [number, number], void> {
  const q = sk.sk_sleep!
  const wait = begin_wait(WQ_FLAG_EXCLUSIVE)
  if (wait === null) {
    yield* schedule()
    return [why_not_sleep(sk, timeo) ?? LOOK, timeo]
  }
  for (;;) {
    prepare_to_wait(q, wait, TASK_INTERRUPTIBLE)
    const why = why_not_sleep(sk, timeo)
    if (why !== null) {
      finish_wait(q, wait)
      return [why, timeo]
    }
    timeo = yield* schedule_timeout(timeo)
  }
}

/** skb_recv_datagram_fast - skb_recv_datagram for when nobody has to wait. @returns as it, 1: wait */
export function skb_recv_datagram_fast(sk: sock, flags: number, noblock: boolean): number {
  const err = sock_error(sk)
  if (err !== 0) return err
  const skb = first_packet(sk, flags)
  if (skb !== 0) return skb
  return sock_rcvtimeo(sk, noblock) === 0 ? -EAGAIN : 1
}

/**
 * skb_recv_datagram - the next packet, waiting for it as long as the socket says. @context process
 * @returns address of a packet with a reference; 0: shut down; -EAGAIN, -ENOTCONN, -ERESTARTSYS, -EINTR, the socket's error
 */
export function* skb_recv_datagram(sk: sock, flags: number, noblock: boolean): Generator<void, number, void> {
  const err = sock_error(sk)
  if (err !== 0) return err
  let timeo = sock_rcvtimeo(sk, noblock)
  for (;;) {
    const skb = first_packet(sk, flags)
    if (skb !== 0) return skb
    if (timeo === 0) return -EAGAIN
    const [why, left] = yield* wait_for_packet(sk, timeo)
    if (why !== LOOK) return why
    timeo = timeo === MAX_SCHEDULE_TIMEOUT ? timeo : left
  }
}

/** datagram_poll - what a socket of datagrams has. @context process */
export function datagram_poll(sock: socket, pt: poll_table | null): number {
  const sk = sock.sk!
  poll_wait(sk.sk_sleep!, pt)
  let mask = 0
  if (sk.sk_err !== 0 || !skb_queue_empty(sk.sk_error_queue)) mask |= POLLERR
  if (sk.sk_shutdown === SHUTDOWN_MASK) mask |= POLLHUP
  if (!skb_queue_empty(sk.sk_receive_queue) || (sk.sk_shutdown & RCV_SHUTDOWN) !== 0) mask |= POLLIN | POLLRDNORM
  if (connection_based(sk)) {
    if (sk.sk_state === TCP_CLOSE) mask |= POLLHUP
    if (sk.sk_state === TCP_SYN_SENT) return mask
  }
  if (sock_writeable(sk)) return mask | POLLOUT | POLLWRNORM | POLLWRBAND
  fetch_or(sock.addr + SOCKET_FLAGS, SOCK_ASYNC_NOSPACE)
  // Room that came in between wakes nobody who is not on the queue yet, but it is seen here.
  return sock_writeable(sk) ? mask | POLLOUT | POLLWRNORM | POLLWRBAND : mask
}
const SOCKET_FLAGS = SOCKET.offset('flags')

/** Bytes of the next packet behind `hlen`; 0: none. */
function next_len(sk: sock, hlen: number): number {
  const queue = sk.sk_receive_queue
  const irq = spin_lock_irqsave(queue.lock)
  const skb = skb_peek(queue)
  const len = skb === null ? 0 : skb.len - hlen
  spin_unlock_irqrestore(queue.lock, irq)
  return len
}
/** datagram_ioctl - SIOCINQ and SIOCOUTQ. @context process @returns 0, -EFAULT; null: it knows no such command */
export function datagram_ioctl(sk: sock, cmd: number, arg: number, hlen: number): number | null {
  if (cmd === SIOCOUTQ) return put_user(sock_wmem(sk), arg)
  return cmd === SIOCINQ ? put_user(next_len(sk, hlen), arg) : null
}

/** skb_free_datagram - @consumes a reference */
export function skb_free_datagram(_sk: sock, skb: sk_buff): void {
  consume_skb(skb)
}

/** Each piece of `len` bytes from `offset` of a packet on, in order, until one says other than 0. */
function walk(skb: sk_buff, offset: number, len: number, piece: (at: number, len: number) => number): number {
  let pos = 0
  const end = offset + len
  const part = (at: number, size: number): number => {
    const from = Math.max(offset, pos)
    const to = Math.min(end, pos + size)
    pos += size
    return from < to ? piece(at + from - (pos - size), to - from) : 0
  }
  let err = part(skb.data, skb_headlen(skb))
  const info = skb_shinfo(skb)
  for (let k = 0; k < info.nr_frags && err === 0; k++) {
    const f = (info.frags >> 2) + k * 3
    err = part(i32[f] + i32[f + 1], i32[f + 2])
  }
  for (let list = info.frag_list; list !== null && err === 0; list = list.next) {
    const from = Math.max(offset, pos)
    const to = Math.min(end, pos + list.len)
    if (from < to) err = walk(list, from - pos, to - from, piece)
    pos += list.len
  }
  return err
}

/** skb_copy_datagram_iovec - `len` bytes of a packet into the vector. @context process @returns 0, -EFAULT */
export function skb_copy_datagram_iovec(skb: sk_buff, offset: number, iov: number, len: number): number {
  if (skb.data_len === 0) return memcpy_toiovec(iov, skb.data + offset, len)
  return walk(skb, offset, len, (at, n) => memcpy_toiovec(iov, at, n))
}

/** skb_checksum - partial sum of `len` bytes of a packet, wherever they lie. */
export function skb_checksum(skb: sk_buff, offset: number, len: number, sum: number): number {
  if (skb.data_len === 0) return csum_partial(dv, skb.data + offset, len, sum)
  let total = sum
  let odd = false
  walk(skb, offset, len, (at, n) => {
    const part = ~csum_fold(csum_partial(dv, at, n, 0)) & 0xffff
    total += odd ? ((part & 0xff) << 8) | (part >> 8) : part // a piece that begins at an odd byte
    odd = odd !== ((n & 1) !== 0)
    return 0
  })
  return total
}

/** __skb_checksum_complete - is the sum of a packet wrong, with the pseudo header's part in skb.csum? */
export function __skb_checksum_complete(skb: sk_buff): boolean {
  return csum_fold(skb_checksum(skb, 0, skb.len, skb.csum >>> 0)) !== 0
}

/**
 * skb_copy_and_csum_datagram_iovec - what is behind `hlen` bytes into the vector, if the sum of the whole packet is right.
 * @returns 0, -EFAULT, -EINVAL: it is not
 */
export function skb_copy_and_csum_datagram_iovec(skb: sk_buff, hlen: number, iov: number): number {
  if (__skb_checksum_complete(skb)) return -EINVAL
  return skb_copy_datagram_iovec(skb, hlen, iov, skb.len - hlen) === 0 ? 0 : -EFAULT
}
