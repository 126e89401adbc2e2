/**
 * sock.ts - struct sock: the network's side of a socket. Its life, who owns it, its cached route. Memory: sock_mem.ts.
 *
 * Lock charter
 *   sk_lock: a process takes the socket as a whole (lock_sock) and may sleep with it; softirqs take slock (bh_lock_sock) and
 *   look whether a process is the owner: then what they bring goes to the backlog, which release_sock hands to
 *   sk_backlog_rcv. slock is taken with bottom halves off; the receive queue's lock may be taken under it.
 *   sk_dst_lock guards sk_dst_cache. sk_callback_lock guards sk_sleep and sk_socket, which go when the program's side does;
 *   the wait queue's lock and rq.lock are taken under it.
 *   sk_refcnt: one of the program's side, one of the protocol's hash, one of each packet that the socket is charged for as a
 *   sender. The last one frees the sock.
 */

import { hlist_unhashed, INIT_HLIST_NODE } from '../../abi/hlist.js'
import type { Layout, Struct } from '../../abi/layout.js'
import { call, type Sym, symbol } from '../../abi/symbol.js'
import { fetch_and, fetch_or, load, xchg } from '../../arch/atomic.js'
import { LOCKDEP } from '../../arch/boot.js'
import { BUG_ON } from '../../arch/cpu.js'
import { RAM } from '../../arch/ram.js'
import { init_timer, MAX_SCHEDULE_TIMEOUT } from '../../irq/timer.js'
import { MAX_SOCKS, SOCK_SLOT } from '../../lib/limits.js'
import { TAKEN_WRITE } from '../../lib/lockgraph.js'
import { at_mem_init } from '../../mm/init.js'
import { kmem_alloc_addr, type kmem_cache, kmem_cache_create, kmem_free_addr, objects_out } from '../../mm/slab.js'
import { schedule } from '../../sched/sched.js'
import { TASK_UNINTERRUPTIBLE } from '../../sched/task.js'
import {
  begin_wait,
  finish_wait,
  init_waitqueue_head,
  prepare_to_wait,
  WQ_FLAG_EXCLUSIVE,
  waitqueue_active,
  wake_up,
} from '../../sched/wait.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { lockdep_acquire, lockdep_init, lockdep_release } from '../../sync/lockdep.js'
import { might_sleep } from '../../sync/preempt.js'
import { refcount_dec_and_test, refcount_inc } from '../../sync/refcount.js'
import { read_lock_bh, read_unlock_bh, rwlock_init, write_lock_bh, write_unlock_bh } from '../../sync/rwlock.js'
import { spin_lock, spin_lock_init, spin_unlock } from '../../sync/spinlock.js'
import { dst_hold, dst_release } from './dst.js'
import { sk_filter_free } from './filter.js'
import { skb_queue_head_init } from './skb_queue.js'
import { SOCK, SOCK_DEAD, SOCKET_LOCK, type sock, type socket, TCP_CLOSE } from './sock_types.js'
import { core_ctl } from './sysctl_net_core.js'
import { type dst_entry, SKB, type sk_buff } from './types.js'

const i32 = RAM.i32

/** Sockets of all protocols: what is behind the sock is the protocol's. */
const sock_cache = kmem_cache_create('sock', SOCK, () => MAX_SOCKS, SOCK_SLOT) as unknown as kmem_cache<Struct>

/** attach_sock - lenses by slot for a struct that begins with a sock. @context module load */
export function attach_sock<T extends Struct>(its: Layout<T>): void {
  if (its.size > SOCK_SLOT) throw new Error(`struct ${its.name} is larger than SOCK_SLOT`)
  at_mem_init(() => its.attach(sock_cache.base, sock_cache.shift, sock_cache.count))
}
attach_sock(SOCK)

const REFCNT = SOCK.offset('sk_refcnt')
const FLAGS = SOCK.offset('sk_flags')
const ERR = SOCK.offset('sk_err')
const ERR_SOFT = SOCK.offset('sk_err_soft')
const OWNER = SOCKET_LOCK.offset('owner')

// ---- flags and errors -----------------------------------------------------------------------------------------------

export function sock_set_flag(sk: sock, flag: number): void {
  fetch_or(sk.addr + FLAGS, flag)
}
export function sock_reset_flag(sk: sock, flag: number): void {
  fetch_and(sk.addr + FLAGS, ~flag)
}
export function sock_flag(sk: sock, flag: number): boolean {
  return (load(sk.addr + FLAGS) & flag) !== 0
}
/** sock_error - what went wrong since it was last asked, as a negative errno; 0: nothing. */
export function sock_error(sk: sock): number {
  return sk.sk_err === 0 ? 0 : -xchg(sk.addr + ERR, 0)
}
/** sock_error_soft - the same for what TCP goes on in spite of. */
export function sock_error_soft(sk: sock): number {
  return -xchg(sk.addr + ERR_SOFT, 0)
}

// ---- life -----------------------------------------------------------------------------------------------------------

/** sk_alloc - a sock of this protocol, all zero but for one reference. @context process @returns owned sock, or null */
export function sk_alloc(family: number, prot: Sym<unknown>): sock | null {
  const addr = kmem_alloc_addr(sock_cache)
  if (addr === 0) return null
  i32.fill(0, addr >> 2, (addr + SOCK_SLOT) >> 2)
  const sk = SOCK.ref(addr)
  sk.sk_family = family
  sk.sk_prot = prot
  sk.sk_refcnt = 1
  INIT_HLIST_NODE(sk.sk_node)
  INIT_HLIST_NODE(sk.sk_bind_node)
  return sk
}

/** sk_free - the last reference is gone. @consumes sk */
export function sk_free(sk: sock): void {
  if (sk.sk_destruct !== 0) call(sk.sk_destruct)(sk)
  BUG_ON(!hlist_unhashed(sk.sk_node), 'free of a hashed sock')
  sk_filter_free(sk)
  kmem_free_addr(sock_cache, sk.addr)
}
export function sock_hold(sk: sock): void {
  refcount_inc(sk.addr + REFCNT)
}
/** sock_put - @consumes a reference */
export function sock_put(sk: sock): void {
  if (refcount_dec_and_test(sk.addr + REFCNT)) sk_free(sk)
}

function no_timer(): void {}
const no_timer_sym = symbol('sk_no_timer', no_timer)

/**
 * sock_init_data - what all socks begin with; the callbacks are those of sock_mem.ts until the protocol has others.
 * @param sock the program's side; null: none yet (sock_graft)
 */
export function sock_init_data(sock: socket | null, sk: sock, defaults: sock_callbacks): void {
  skb_queue_head_init(sk.sk_receive_queue)
  skb_queue_head_init(sk.sk_write_queue)
  skb_queue_head_init(sk.sk_error_queue)
  init_timer(sk.sk_timer, no_timer_sym, sk.addr)
  sk.sk_rcvbuf = core_ctl.rmem_default
  sk.sk_sndbuf = core_ctl.wmem_default
  sk.sk_state = TCP_CLOSE
  if (sock !== null) {
    sk.sk_socket = sock
    sk.sk_type = sock.type
    sk.sk_sleep = sock.wait
    sock.sk = sk
  }
  spin_lock_init(sk.sk_lock.slock)
  init_waitqueue_head(sk.sk_lock.wq)
  if (LOCKDEP) lockdep_init(sk.sk_lock.addr + OWNER)
  rwlock_init(sk.sk_dst_lock)
  rwlock_init(sk.sk_callback_lock)
  sk.sk_state_change = defaults.state_change
  sk.sk_data_ready = defaults.data_ready
  sk.sk_write_space = defaults.write_space
  sk.sk_error_report = defaults.error_report
  sk.sk_rcvlowat = 1
  i32[sk.sk_stamp >> 2] = -1 // no packet yet
  i32.set([0, -1, -1], sk.sk_peercred >> 2) // nobody
  sk.sk_rcvtimeo = MAX_SCHEDULE_TIMEOUT
  sk.sk_sndtimeo = MAX_SCHEDULE_TIMEOUT
}
export interface sock_callbacks {
  state_change: Sym<(sk: sock) => void>
  data_ready: Sym<(sk: sock, bytes: number) => void>
  write_space: Sym<(sk: sock) => void>
  error_report: Sym<(sk: sock) => void>
}

/** sock_orphan - the program's side goes: nobody there is woken any more. @context process @locks sk_callback_lock */
export function sock_orphan(sk: sock): void {
  write_lock_bh(sk.sk_callback_lock)
  sock_set_flag(sk, SOCK_DEAD)
  sk.sk_socket = null
  sk.sk_sleep = null
  write_unlock_bh(sk.sk_callback_lock)
}

/** sock_graft - a sock that came without one gets its program's side. @context process @locks sk_callback_lock */
export function sock_graft(sk: sock, parent: socket): void {
  write_lock_bh(sk.sk_callback_lock)
  sk.sk_sleep = parent.wait
  parent.sk = sk
  sk.sk_socket = parent
  write_unlock_bh(sk.sk_callback_lock)
}

// ---- who owns it ----------------------------------------------------------------------------------------------------

/** lock_sock - the socket is this process's until release_sock. @context process */
export function* lock_sock(sk: sock): Generator<void, void, void> {
  might_sleep()
  if (LOCKDEP) lockdep_acquire(sk.sk_lock.addr + OWNER, TAKEN_WRITE, false, true)
  spin_lock_bh(sk.sk_lock.slock)
  if (sk.sk_lock.owner !== 0) yield* __lock_sock(sk)
  sk.sk_lock.owner = 1
  spin_unlock_bh(sk.sk_lock.slock)
}

/** try_lock_sock - lock_sock for who would rather not make a generator: false, and it is to be called then. @context process */
export function try_lock_sock(sk: sock): boolean {
  might_sleep()
  if (LOCKDEP) lockdep_acquire(sk.sk_lock.addr + OWNER, TAKEN_WRITE, true, true)
  spin_lock_bh(sk.sk_lock.slock)
  const free = sk.sk_lock.owner === 0
  if (free) sk.sk_lock.owner = 1
  spin_unlock_bh(sk.sk_lock.slock)
  if (LOCKDEP && !free) lockdep_release(sk.sk_lock.addr + OWNER)
  return free
}

/** @locks slock is held, dropped to sleep */
function* __lock_sock(sk: sock): Generator<void, void, void> {
  const { slock, wq } = sk.sk_lock
  const wait = begin_wait(WQ_FLAG_EXCLUSIVE)
  for (;;) {
    if (wait !== null) prepare_to_wait(wq, wait, TASK_UNINTERRUPTIBLE)
    // Still on the queue when it is free: finish_wait then does not hand the wake-up on.
    if (sk.sk_lock.owner === 0) break
    spin_unlock_bh(slock)
    yield* schedule()
    spin_lock_bh(slock)
  }
  if (wait !== null) finish_wait(wq, wait)
}

/** release_sock - what came meanwhile is received now, then others may have the socket. @context process */
export function release_sock(sk: sock): void {
  if (LOCKDEP) lockdep_release(sk.sk_lock.addr + OWNER)
  spin_lock_bh(sk.sk_lock.slock)
  if (sk.sk_backlog_tail !== null) __release_sock(sk)
  sk.sk_lock.owner = 0
  if (waitqueue_active(sk.sk_lock.wq)) wake_up(sk.sk_lock.wq)
  spin_unlock_bh(sk.sk_lock.slock)
}

/** @locks slock is held; dropped, with bottom halves still off, while packets are received */
function __release_sock(sk: sock): void {
  for (let skb = sk.sk_backlog_head; skb !== null; skb = sk.sk_backlog_head) {
    sk.sk_backlog_head = null
    sk.sk_backlog_tail = null
    spin_unlock(sk.sk_lock.slock)
    while (skb !== null) {
      const next: sk_buff | null = skb.next
      skb.next = null
      call(sk.sk_backlog_rcv)(sk, skb)
      skb = next
    }
    spin_lock(sk.sk_lock.slock)
  }
}

/** bh_lock_sock - @context softirq */
export function bh_lock_sock(sk: sock): void {
  spin_lock(sk.sk_lock.slock)
}
export function bh_unlock_sock(sk: sock): void {
  spin_unlock(sk.sk_lock.slock)
}
/** sock_owned_by_user - @locks slock is held */
export function sock_owned_by_user(sk: sock): boolean {
  return sk.sk_lock.owner !== 0
}
/** sk_add_backlog - for release_sock. @context softirq @locks slock is held @consumes skb */
export function sk_add_backlog(sk: sock, skb: sk_buff): void {
  if (sk.sk_backlog_tail === null) sk.sk_backlog_head = skb
  else sk.sk_backlog_tail.next = skb
  sk.sk_backlog_tail = skb
  i32[skb.$w + NEXT] = 0
}
const NEXT = SKB.offset('next') >> 2

// ---- its route ------------------------------------------------------------------------------------------------------

/** sk_dst_set - @consumes a reference of dst */
export function sk_dst_set(sk: sock, dst: dst_entry | null): void {
  write_lock_bh(sk.sk_dst_lock)
  const old = sk.sk_dst_cache
  sk.sk_dst_cache = dst
  write_unlock_bh(sk.sk_dst_lock)
  if (old !== null) dst_release(old)
}
export function sk_dst_reset(sk: sock): void {
  sk_dst_set(sk, null)
}
/** sk_dst_check - the cached route with one more reference; null: there is none that still counts. @context process */
export function sk_dst_check(sk: sock): dst_entry | null {
  read_lock_bh(sk.sk_dst_lock)
  const dst = sk.sk_dst_cache
  if (dst !== null) dst_hold(dst)
  read_unlock_bh(sk.sk_dst_lock)
  if (dst === null || dst.obsolete === 0) return dst
  sk_dst_reset(sk)
  dst_release(dst)
  return null
}

// ---- for the audit --------------------------------------------------------------------------------------------------

/** socks_disown - whoever owned one will not go on. @context a halted machine */
export function socks_disown(): void {
  for (const addr of objects_out(sock_cache)) SOCK.ref(addr).sk_lock.owner = 0
}
