/**
 * ipq.ts - a queue for each datagram that is not whole yet (the first half of net/ipv4/ip_fragment.c of 2.6.11): memory for all
 * that is bounded, and a time that is.
 *
 * Lock charter
 *   ipfrag_lock guards the hash, the list by age and their counts. ipq.lock guards a queue's pieces. ipfrag_lock may be taken
 *   under an ipq.lock, never the other way round; an error is sent to the sender of a datagram under its ipq.lock.
 *   refcnt: one of the hash, one of the pending timer, one of whoever works on the queue. A queue that is COMPLETE is off the
 *   hash and has no timer: it only waits for the last of those.
 */
import { atomic, by, bytes, embed, konst, type Layout, layout, ptr, Struct, word } from '../../abi/layout.js'
import {
  INIT_LIST_HEAD,
  LIST,
  list_add_tail,
  list_del_init,
  list_empty,
  type list_head,
  list_move_tail,
} from '../../abi/list.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { fetch_add, load } from '../../arch/atomic.js'
import { config } from '../../arch/machine.js'
import { RAM } from '../../arch/ram.js'
import { del_timer, init_timer, jiffies, mod_timer, TIMER, type timer_list } from '../../irq/timer.js'
import { jhash_3words } from '../../lib/jhash.js'
import { MAX_IPQS } from '../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import { local_bh_disable, local_bh_enable } from '../../sync/bh.js'
import { refcount_dec, refcount_dec_and_test, refcount_inc } from '../../sync/refcount.js'
import {
  RWLOCK,
  read_lock,
  read_unlock,
  rwlock_init,
  type rwlock_t,
  write_lock,
  write_unlock,
} from '../../sync/rwlock.js'
import { SPINLOCK, spin_lock, spin_lock_init, spin_unlock, type spinlock_t } from '../../sync/spinlock.js'
import { drop_reason } from '../core/fate.js'
import { dev_get_by_index, dev_put } from '../core/netdevice.js'
import { consume_skb, kfree_skb } from '../core/skbuff.js'
import { ACCT_NONE, SKB, type sk_buff } from '../core/types.js'
import { ICMP_EXC_FRAGTIME, ICMP_TIME_EXCEEDED } from '../wire/icmp.js'
import { ip_daddr, ip_id, ip_protocol, ip_saddr } from '../wire/ipv4.js'
import { icmp_send } from './icmp.js'
import { ip_ctl } from './ip_sysctl.js'
import { ip_stats } from './mib.js'

const i32 = RAM.i32

export const NOT_REASSEMBLED = drop_reason('ip_not_reassembled')

const IPQ_HASHSZ = 64

/** enum ip_defrag_users: pieces that one of them collects are not the others'. */
export const IP_DEFRAG_LOCAL_DELIVER = 0
export const IP_DEFRAG_CALL_RA_CHAIN = 1
export const IP_DEFRAG_CONNTRACK_IN = 2
export const IP_DEFRAG_CONNTRACK_OUT = 3
export const IP_DEFRAG_NAT_OUT = 4

// last_in
export const COMPLETE = 4
export const FIRST_IN = 2
export const LAST_IN = 1

export class ipq extends Struct {
  declare next: ipq | null
  declare lru_list: list_head
  declare saddr: number
  declare daddr: number
  declare id: number
  declare protocol: number
  declare user: number
  declare last_in: number
  declare fragments: sk_buff | null
  declare len: number
  declare meat: number
  declare iif: number
  declare lock: spinlock_t
  declare refcnt: number
  declare timer: timer_list
}
const IPQ: Layout<ipq> = layout('ipq', ipq, {
  next: by(
    'ipfrag_lock',
    ptr(() => IPQ),
  ),
  lru_list: by('ipfrag_lock', embed(LIST)), // the queue that got nothing for longest comes first
  saddr: konst(word),
  daddr: konst(word),
  id: konst(word),
  protocol: konst(word),
  user: konst(word), // who collects: IP_DEFRAG_*
  last_in: by('lock', word), // has its first piece, its last one; is done with
  fragments: by(
    'lock',
    ptr(() => SKB),
  ), // by offset, none overlaps another
  len: by('lock', word), // of the datagram, as far as is known
  meat: by('lock', word), // bytes that are there
  iif: by('lock', word), // where the last piece came in
  lock: embed(SPINLOCK),
  refcnt: atomic(word),
  timer: embed(TIMER),
})
const ipq_cache = kmem_cache_create('ipq', IPQ, () => MAX_IPQS)
const REFCNT = IPQ.offset('refcnt')

class ipfrag_table extends Struct {
  declare lock: rwlock_t
  declare mem: number
  declare nqueues: number
  declare rnd: number
  declare lru: list_head
  declare secret: timer_list
  declare hash: number
}
const TABLE: Layout<ipfrag_table> = layout('ipfrag_table', ipfrag_table, {
  lock: embed(RWLOCK),
  mem: atomic(word), // truesize of all pieces, and the queues
  nqueues: by('lock', word),
  rnd: by('lock', word),
  lru: by('lock', embed(LIST)),
  secret: embed(TIMER),
  hash: by('lock', bytes(IPQ_HASHSZ * 4)),
})
const table = DEFINE_STATIC('ipfrag', TABLE)
export const MEM = table.addr + TABLE.offset('mem')
const ipfrag_lock = table.lock

/** ip_frag_mem - bytes that pieces and queues take. */
export function ip_frag_mem(): number {
  return load(MEM)
}
/** ip_frag_nqueues - datagrams that are not whole yet. */
export function ip_frag_nqueues(): number {
  return table.nqueues
}

function bucket(id: number, saddr: number, daddr: number, protocol: number): number {
  return (table.hash >> 2) + (jhash_3words((id << 16) | protocol, saddr, daddr, table.rnd) & (IPQ_HASHSZ - 1))
}
function bucket_of(qp: ipq): number {
  return bucket(qp.id, qp.saddr, qp.daddr, qp.protocol)
}

// ---- the life of a queue --------------------------------------------------------------------------------------------

/** A piece is not needed. @returns its truesize */
export function frag_kfree_skb(skb: sk_buff): number {
  const { truesize } = skb
  fetch_add(MEM, -truesize)
  skb.next = null
  if (skb.acct === ACCT_NONE)
    consume_skb(skb) // in the books it was delivered when it was queued
  else kfree_skb(skb, NOT_REASSEMBLED)
  return truesize
}

/** ipq_put - @consumes a reference; the last one frees queue and pieces @returns bytes freed */
export function ipq_put(qp: ipq): number {
  if (!refcount_dec_and_test(qp.addr + REFCNT)) return 0
  let freed = IPQ.size
  for (let fp = qp.fragments; fp !== null; ) {
    const next: sk_buff | null = fp.next
    freed += frag_kfree_skb(fp)
    fp = next
  }
  fetch_add(MEM, -IPQ.size)
  kmem_cache_free(ipq_cache, qp)
  return freed
}

/** Off the hash. @locks ipfrag_lock */
function ipq_unlink(qp: ipq): void {
  write_lock(ipfrag_lock)
  let slot = bucket_of(qp)
  while (i32[slot] !== qp.addr) slot = i32[slot]! >> 2
  i32[slot] = qp.next === null ? 0 : qp.next.addr
  list_del_init(qp.lru_list)
  table.nqueues--
  write_unlock(ipfrag_lock)
}

/** ipq_kill - nothing more is added; who has a reference gives it back. @locks qp.lock is held */
export function ipq_kill(qp: ipq): void {
  if (del_timer(qp.timer)) refcount_dec(qp.addr + REFCNT)
  if ((qp.last_in & COMPLETE) !== 0) return
  ipq_unlink(qp)
  refcount_dec(qp.addr + REFCNT)
  qp.last_in |= COMPLETE
}

/** ip_evictor - the oldest queues go until there is room. @context softirq */
export function ip_evictor(): void {
  let work = load(MEM) - ip_ctl.frag_low_thresh
  while (work > 0) {
    read_lock(ipfrag_lock)
    if (list_empty(table.lru)) {
      read_unlock(ipfrag_lock)
      return
    }
    const qp = IPQ.container_of('lru_list', table.lru.next)
    refcount_inc(qp.addr + REFCNT)
    read_unlock(ipfrag_lock)
    spin_lock(qp.lock)
    ipq_kill(qp)
    spin_unlock(qp.lock)
    work -= ipq_put(qp)
    ip_stats.ReasmFails++
  }
}

/** ip_expire - the rest did not come in time; the sender hears of it if his first piece did. @context timer */
function ip_expire(addr: number): void {
  const qp = IPQ.ref(addr)
  spin_lock(qp.lock)
  if ((qp.last_in & COMPLETE) === 0) {
    ipq_kill(qp)
    ip_stats.ReasmTimeout++
    ip_stats.ReasmFails++
    const head = qp.fragments
    const dev = (qp.last_in & FIRST_IN) !== 0 && head !== null ? dev_get_by_index(qp.iif) : null
    if (dev !== null && head !== null) {
      head.dev = dev
      icmp_send(head, ICMP_TIME_EXCEEDED, ICMP_EXC_FRAGTIME, 0)
      head.dev = null
      dev_put(dev)
    }
  }
  spin_unlock(qp.lock)
  ipq_put(qp) // the timer's
}
const ip_expire_sym = symbol('ip_expire', ip_expire)

// ---- finding one ----------------------------------------------------------------------------------------------------

/** @locks ipfrag_lock is held @returns a queue with one more reference, or null */
function find(iph: number, user: number): ipq | null {
  const [id, saddr, daddr, protocol] = [ip_id(iph), ip_saddr(iph), ip_daddr(iph), ip_protocol(iph)]
  let qp = IPQ.at(i32[bucket(id, saddr, daddr, protocol)]!)
  const is = (q: ipq): boolean =>
    q.id === id && q.saddr === saddr && q.daddr === daddr && q.protocol === protocol && q.user === user
  while (qp !== null && !is(qp)) qp = qp.next
  if (qp !== null) refcount_inc(qp.addr + REFCNT)
  return qp
}

/** ip_frag_create - a new queue, or the one that another CPU was faster with. @returns referenced, or null: no memory */
function ip_frag_create(iph: number, user: number): ipq | null {
  const qp = kmem_cache_alloc(ipq_cache)
  if (qp === null) return null
  i32.fill(0, qp.$w, qp.$w + (IPQ.size >> 2))
  qp.saddr = ip_saddr(iph)
  qp.daddr = ip_daddr(iph)
  qp.id = ip_id(iph)
  qp.protocol = ip_protocol(iph)
  qp.user = user
  INIT_LIST_HEAD(qp.lru_list)
  spin_lock_init(qp.lock)
  init_timer(qp.timer, ip_expire_sym, qp.addr)
  write_lock(ipfrag_lock)
  const other = find(iph, user) // it may have been made since we looked
  if (other !== null) {
    write_unlock(ipfrag_lock)
    kmem_cache_free(ipq_cache, qp)
    return other
  }
  qp.refcnt = 3 // the hash's, the timer's, ours
  fetch_add(MEM, IPQ.size)
  mod_timer(qp.timer, (jiffies() + ip_ctl.frag_time) | 0)
  const slot = bucket_of(qp)
  qp.next = IPQ.at(i32[slot]!)
  i32[slot] = qp.addr
  list_add_tail(qp.lru_list, table.lru)
  table.nqueues++
  write_unlock(ipfrag_lock)
  return qp
}

export function ip_find(iph: number, user: number): ipq | null {
  read_lock(ipfrag_lock)
  const qp = find(iph, user)
  read_unlock(ipfrag_lock)
  return qp ?? ip_frag_create(iph, user)
}

/** ipq_touch - it got something: the last to go when room is needed. */
export function ipq_touch(qp: ipq): void {
  write_lock(ipfrag_lock)
  list_move_tail(qp.lru_list, table.lru)
  write_unlock(ipfrag_lock)
}

// ---- start and end --------------------------------------------------------------------------------------------------

/** ipfrag_secret_rebuild - another seed, so that nobody can aim at one chain for long. @context timer */
function ipfrag_secret_rebuild(): void {
  write_lock(ipfrag_lock)
  const all: ipq[] = []
  for (let b = 0; b < IPQ_HASHSZ; b++) {
    for (let qp = IPQ.at(i32[(table.hash >> 2) + b]!); qp !== null; qp = qp.next) all.push(qp)
    i32[(table.hash >> 2) + b] = 0
  }
  table.rnd = jhash_3words(table.rnd, jiffies(), load(MEM), 0x9e3779b9 | 0)
  for (const qp of all) {
    const slot = bucket_of(qp)
    qp.next = IPQ.at(i32[slot]!)
    i32[slot] = qp.addr
  }
  write_unlock(ipfrag_lock)
  mod_timer(table.secret, (jiffies() + ip_ctl.frag_secret_interval) | 0)
}
const secret_sym = symbol('ipfrag_secret_rebuild', ipfrag_secret_rebuild)

/** ipfrag_init - @context boot, CPU 0 */
export function ipfrag_init(): void {
  rwlock_init(ipfrag_lock)
  INIT_LIST_HEAD(table.lru)
  table.rnd = jhash_3words(config('seed'), jiffies(), 0x1f, 0x9e3779b9 | 0)
  init_timer(table.secret, secret_sym, 0)
  mod_timer(table.secret, (jiffies() + ip_ctl.frag_secret_interval) | 0)
}

/** ipfrag_exit - what is not whole is given up. @context a halted machine */
export function ipfrag_exit(): void {
  local_bh_disable() // its locks are taken in softirqs
  while (!list_empty(table.lru)) {
    const qp = IPQ.container_of('lru_list', table.lru.next)
    refcount_inc(qp.addr + REFCNT)
    ipq_kill(qp)
    ipq_put(qp)
  }
  local_bh_enable()
}
