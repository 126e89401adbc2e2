/**
 * nl_send.ts - how netlink messages get from one socket to others: to one, to those who listen to a group, in parts.
 *
 * Lock charter
 *   A message is queued under the receive queue's own lock. cb_lock guards the dump that a socket has under way; its parts are
 *   made under it, so what makes them takes only locks that are never held around netlink. nl_table.ts keeps the table.
 *   A message to the kernel is handled in its sender's context, with no lock held, before the sender goes on.
 */
import { call, type Sym } from '../../abi/symbol.js'
import { load, store, xchg } from '../../arch/atomic.js'
import { memcpy, RAM } from '../../arch/ram.js'
import { schedule_timeout } from '../../irq/timer.js'
import { EAGAIN, EBUSY, ECONNREFUSED, EINVAL, ENOBUFS, ESRCH } from '../../lib/errno.js'
import { kfree, kmalloc } from '../../mm/kmalloc.js'
import { current, schedule } from '../../sched/sched.js'
import { signal_pending } from '../../sched/signal.js'
import { TASK_INTERRUPTIBLE } from '../../sched/task.js'
import { begin_wait, finish_wait, prepare_to_wait, wake_up } from '../../sched/wait.js'
import { spin_lock, spin_unlock } from '../../sync/spinlock.js'
import { skb_queue_empty, skb_queue_tail } from '../core/skb_queue.js'
import { alloc_skb, consume_skb, pskb_expand_head, skb_clone, skb_get, skb_orphan, skb_shared } from '../core/skbuff.js'
import { sock_flag, sock_hold, sock_put } from '../core/sock.js'
import { skb_set_owner_r, sock_intr_errno, sock_rmem, sock_sndtimeo } from '../core/sock_mem.js'
import { SOCK, SOCK_DEAD, type sock } from '../core/sock_types.js'
import type { sk_buff } from '../core/types.js'
import {
  netlink_getsockbypid,
  netlink_listeners,
  netlink_lock_table,
  netlink_lookup,
  netlink_unlock_table,
} from './nl_table.js'
import { NLMSG_GOODSIZE, nlmsg_data, nlmsg_len, nlmsg_put, nlmsg_seq } from './nlmsg.js'
import {
  NETLINK_CALLBACK,
  NETLINK_CONGESTED,
  NETLINK_SOCK,
  NLM_F_MULTI,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLMSG_HDRLEN,
  type netlink_callback,
  netlink_cb,
  type netlink_dump_fn,
  type netlink_sock,
  nlk_sk,
  nlmsg_align,
} from './types.js'

const dv = RAM.dv
const STATE = NETLINK_SOCK.offset('state')
const ERR = SOCK.offset('sk_err')

function congested(nlk: netlink_sock): boolean {
  return load(nlk.addr + STATE) !== 0
}
function full(sk: sock): boolean {
  return sock_rmem(sk) > sk.sk_rcvbuf || congested(nlk_sk(sk))
}

/** netlink_overrun - a message for this socket is lost: its program hears ENOBUFS, once until it has read all there is. */
export function netlink_overrun(sk: sock): void {
  if (xchg(nlk_sk(sk).addr + STATE, NETLINK_CONGESTED) !== 0) return
  store(sk.addr + ERR, ENOBUFS)
  call(sk.sk_error_report)(sk)
}

/** netlink_rcv_wake - the program has read: there is room again, perhaps. @context process */
export function netlink_rcv_wake(sk: sock): void {
  const nlk = nlk_sk(sk)
  if (skb_queue_empty(sk.sk_receive_queue)) store(nlk.addr + STATE, 0)
  if (!congested(nlk)) wake_up(nlk.wait)
}

/** netlink_trim - a message takes no more memory on anybody's account than it is long. @consumes skb @returns it, or a clone */
function netlink_trim(given: sk_buff): sk_buff {
  let skb = given
  const slack = (skb.end - skb.tail) & ~63
  if (slack * 2 < skb.truesize) return skb
  if (skb_shared(skb)) {
    const clone = skb_clone(skb)
    if (clone === null) return skb
    consume_skb(skb)
    skb = clone
  }
  if (pskb_expand_head(skb, 0, -slack) === 0) skb.truesize -= slack
  return skb
}

// ---- to one ---------------------------------------------------------------------------------------------------------

/** Queue it, and let whoever it is for know. @consumes a reference of sk, and skb @returns bytes */
function netlink_sendskb(sk: sock, skb: sk_buff): number {
  const { len } = skb
  skb_orphan(skb)
  skb_set_owner_r(skb, sk)
  skb_queue_tail(sk.sk_receive_queue, skb)
  call(sk.sk_data_ready)(sk, len)
  return len
}

/** Sleep until there may be room. @context process @consumes a reference of sk @returns jiffies left */
function* wait_for_room(sk: sock, timeo: number): Generator<void, number, void> {
  const { wait } = nlk_sk(sk)
  const entry = begin_wait()
  if (entry === null) yield* schedule()
  else {
    prepare_to_wait(wait, entry, TASK_INTERRUPTIBLE)
    if (full(sk) && !sock_flag(sk, SOCK_DEAD)) timeo = yield* schedule_timeout(timeo)
    finish_wait(wait, entry)
  }
  sock_put(sk)
  return timeo
}

/**
 * netlink_unicast - to the socket with this address, waiting for room in its queue. What is for the kernel has been handled
 * when this returns. @context process @consumes skb @returns bytes, -ECONNREFUSED, -EAGAIN, -ERESTARTSYS, -EINTR
 */
export function* netlink_unicast(
  ssk: sock,
  given: sk_buff,
  pid: number,
  nonblock: boolean,
): Generator<void, number, void> {
  const skb = netlink_trim(given)
  let timeo = sock_sndtimeo(ssk, nonblock)
  for (;;) {
    const found = netlink_getsockbypid(ssk, pid)
    const sk = found < 0 ? null : SOCK.ref(found)
    if (sk !== null && !full(sk)) {
      const len = netlink_sendskb(sk, skb)
      const { data_ready } = nlk_sk(sk)
      if (data_ready !== 0) yield* call(data_ready)(sk)
      sock_put(sk)
      return len
    }
    if (sk === null || timeo === 0) {
      consume_skb(skb)
      if (sk === null) return found
      if (nlk_sk(ssk).pid === 0) netlink_overrun(sk)
      sock_put(sk)
      return -EAGAIN
    }
    timeo = yield* wait_for_room(sk, timeo)
    if (!signal_pending(current())) continue
    consume_skb(skb)
    return sock_intr_errno(timeo)
  }
}

/** netlink_reply - netlink_unicast of the kernel to a program, which never waits. @context any but hardirq @consumes skb */
export function netlink_reply(ssk: sock, given: sk_buff, pid: number): number {
  const skb = netlink_trim(given)
  const found = netlink_getsockbypid(ssk, pid)
  if (found < 0) {
    consume_skb(skb)
    return found
  }
  const sk = SOCK.ref(found)
  let ret = -EAGAIN
  if (!full(sk)) ret = netlink_sendskb(sk, skb)
  else {
    netlink_overrun(sk)
    consume_skb(skb)
  }
  sock_put(sk)
  return ret
}

// ---- to all who listen ----------------------------------------------------------------------------------------------

/** @consumes skb if it returns true */
function netlink_broadcast_deliver(sk: sock, skb: sk_buff): boolean {
  if (full(sk)) return false
  skb_set_owner_r(skb, sk)
  const { len } = skb
  skb_queue_tail(sk.sk_receive_queue, skb)
  call(sk.sk_data_ready)(sk, len)
  return true
}

/**
 * netlink_broadcast - to everybody who listens to one of the groups, but `ssk` and the socket with address `pid`. Who has no
 * room loses it and is told so. @context any but hardirq @consumes skb @returns 0, -ENOBUFS, -ESRCH: nobody
 */
export function netlink_broadcast(ssk: sock, given: sk_buff, pid: number, group: number): number {
  const skb = netlink_trim(given)
  let delivered = false
  let failure = false
  netlink_lock_table()
  netlink_listeners(ssk.sk_protocol, (sk, nlk) => {
    if (sk === ssk || nlk.pid === pid || (nlk.groups & group) === 0) return
    sock_hold(sk)
    const copy = failure ? null : skb_clone(skb)
    if (copy === null) failure = true // all are told, since nobody knows who would have got it
    if (copy !== null && netlink_broadcast_deliver(sk, copy)) delivered = true
    else {
      if (copy !== null) consume_skb(copy)
      netlink_overrun(sk)
    }
    sock_put(sk)
  })
  netlink_unlock_table()
  consume_skb(skb)
  return delivered ? 0 : failure ? -ENOBUFS : -ESRCH
}

/** netlink_set_err - everybody who listens to one of the groups hears of an error. @context any but hardirq */
export function netlink_set_err(ssk: sock, pid: number, group: number, code: number): void {
  netlink_lock_table()
  netlink_listeners(ssk.sk_protocol, (sk, nlk) => {
    if (sk === ssk || nlk.pid === pid || (nlk.groups & group) === 0) return
    store(sk.addr + ERR, code)
    call(sk.sk_error_report)(sk)
  })
  netlink_unlock_table()
}

/** netlink_ack - what came of a request: 0 or -errno, and the request itself if it went wrong. @context process */
export function netlink_ack(ssk: sock, in_skb: sk_buff, nlh: number, err: number): void {
  const { pid } = netlink_cb(in_skb)
  const quoted = err === 0 ? NLMSG_HDRLEN : nlmsg_len(nlh)
  const skb = alloc_skb(nlmsg_align(NLMSG_HDRLEN + 4 + quoted))
  if (skb === null) {
    const sk = netlink_lookup(ssk.sk_protocol, pid)
    if (sk === null) return
    store(sk.addr + ERR, ENOBUFS)
    call(sk.sk_error_report)(sk)
    sock_put(sk)
    return
  }
  const rep = nlmsg_put(skb, pid, nlmsg_seq(nlh), NLMSG_ERROR, 4 + quoted, 0)
  dv.setInt32(nlmsg_data(rep), err, true)
  memcpy(nlmsg_data(rep) + 4, nlh, quoted)
  netlink_reply(ssk, skb, pid)
}

// ---- in parts -------------------------------------------------------------------------------------------------------

/** netlink_destroy_callback - @consumes cb and its reference of the question */
export function netlink_destroy_callback(cb: netlink_callback): void {
  if (cb.skb !== null) consume_skb(cb.skb)
  kfree(cb.addr)
}

/** netlink_dump - the next part of what was asked for, as much as one packet holds. @context process @returns 0, -ENOBUFS, -EINVAL */
export function netlink_dump(sk: sock): number {
  const nlk = nlk_sk(sk)
  const skb = sock_rmem(sk) >= sk.sk_rcvbuf ? null : alloc_skb(NLMSG_GOODSIZE)
  if (skb === null) return -ENOBUFS
  spin_lock(nlk.cb_lock)
  const { cb } = nlk
  if (cb === null) {
    spin_unlock(nlk.cb_lock)
    consume_skb(skb)
    return -EINVAL
  }
  const len = call(cb.dump)(skb, cb)
  if (len <= 0) {
    const nlh = nlmsg_put(skb, netlink_cb(cb.skb!).pid, nlmsg_seq(cb.nlh), NLMSG_DONE, 4, NLM_F_MULTI)
    dv.setInt32(nlmsg_data(nlh), len, true)
    nlk.cb = null
  }
  spin_unlock(nlk.cb_lock)
  const bytes = skb.len
  skb_set_owner_r(skb, sk)
  skb_queue_tail(sk.sk_receive_queue, skb)
  call(sk.sk_data_ready)(sk, bytes)
  if (len > 0) return 0
  netlink_destroy_callback(cb)
  sock_put(sk)
  return 0
}

/**
 * netlink_dump_start - answer a request by a dump: the first part now, the others as the program reads.
 * @context process @returns 0, -ENOBUFS, -ECONNREFUSED, -EBUSY: another one is under way
 */
export function netlink_dump_start(ssk: sock, skb: sk_buff, nlh: number, dump: Sym<netlink_dump_fn>): number {
  const at = kmalloc(NETLINK_CALLBACK.size)
  if (at === 0) return -ENOBUFS
  const cb = NETLINK_CALLBACK.ref(at)
  cb.dump = dump
  cb.nlh = nlh
  cb.skb = skb_get(skb)
  const sk = netlink_lookup(ssk.sk_protocol, netlink_cb(skb).pid)
  if (sk === null) {
    netlink_destroy_callback(cb)
    return -ECONNREFUSED
  }
  const nlk = nlk_sk(sk)
  spin_lock(nlk.cb_lock)
  const busy = nlk.cb !== null
  if (!busy) nlk.cb = cb // with the reference of sk
  spin_unlock(nlk.cb_lock)
  if (busy) {
    netlink_destroy_callback(cb)
    sock_put(sk)
    return -EBUSY
  }
  netlink_dump(sk)
  return 0
}
