/**
 * inetpeer.ts - what this machine remembers of each host that it sends to: the identification of its next packet there
 * (net/ipv4/inetpeer.c of 2.6.11, with a hash keyed by a secret instead of the AVL tree).
 *
 * Lock charter
 *   peer_pool_lock (rwlock, bottom halves off) guards the hash; unused_lock guards the list of those that nobody refers to, the
 *   longest unused first, and the step of refcnt from 1 to 0. A peer is freed by who takes it out of the hash with
 *   peer_pool_lock held for writing and sees one reference, his own. unused_lock may be taken under peer_pool_lock.
 *   ip_id_count is atomic.
 */
import { HLIST, hlist_add_head, hlist_del_init, type hlist_node } from '../../abi/hlist.js'
import { atomic, by, bytes, embed, konst, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { INIT_LIST_HEAD, LIST, list_add_tail, list_del_init, list_empty, type list_head } from '../../abi/list.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { fetch_add, load } from '../../arch/atomic.js'
import { config } from '../../arch/machine.js'
import { RAM } from '../../arch/ram.js'
import { init_timer, jiffies, mod_timer, TIMER, time_after, type timer_list } from '../../irq/timer.js'
import { jhash_2words } from '../../lib/jhash.js'
import { MAX_INET_PEERS } from '../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import {
  RWLOCK,
  read_lock_bh,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../../sync/rwlock.js'
import { SPINLOCK, spin_lock, spin_lock_init, spin_unlock, type spinlock_t } from '../../sync/spinlock.js'
import { rt_ctl } from './route_sysctl.js'

const i32 = RAM.i32
const BUCKETS = 1024
/** Removals of one run of the timer. */
const PEER_MAX_CLEANUP_WORK = 30

export class inet_peer extends Struct {
  declare node: hlist_node
  declare unused: list_head
  declare dtime: number
  declare refcnt: number
  declare v4daddr: number
  declare ip_id_count: number
}
export const PEER: Layout<inet_peer> = layout('inet_peer', inet_peer, {
  node: embed(HLIST), // the hash, peer_pool_lock
  unused: embed(LIST), // unused_lock
  dtime: by('unused_lock', word), // jiffies: when the last reference went
  refcnt: atomic(word),
  v4daddr: konst(word),
  ip_id_count: atomic(word), // identification of the next packet
})
const peer_cache = kmem_cache_create('inet_peer', PEER, () => MAX_INET_PEERS)
const REFCNT = PEER.offset('refcnt')
const ID = PEER.offset('ip_id_count')

class inet_peers extends Struct {
  declare pool_lock: rwlock_t
  declare unused_lock: spinlock_t
  declare unused: list_head
  declare total: number
  declare secret: number
  declare fallback: number
  declare timer: timer_list
  declare hash: number
}
const PEERS: Layout<inet_peers> = layout('inet_peers', inet_peers, {
  pool_lock: embed(RWLOCK),
  unused_lock: embed(SPINLOCK),
  unused: by('unused_lock', embed(LIST)),
  total: atomic(word),
  secret: konst(word),
  fallback: atomic(word), // identification where there is no memory for a peer
  timer: embed(TIMER),
  hash: by('pool_lock', bytes(BUCKETS * 4)),
})
const peers = DEFINE_STATIC('inet_peers', PEERS)
const TOTAL = peers.addr + PEERS.offset('total')
const FALLBACK = peers.addr + PEERS.offset('fallback')

/** secure_ip_id - where the identifications for a host begin: nobody else can tell. */
function secure_ip_id(daddr: number): number {
  return jhash_2words(daddr, 0, peers.secret)
}
function bucket(daddr: number): number {
  return peers.hash + (jhash_2words(daddr, 1, peers.secret) & (BUCKETS - 1)) * 4
}
function find(daddr: number): inet_peer | null {
  for (let at = i32[bucket(daddr) >> 2]!; at !== 0; at = i32[at >> 2]!) {
    const p = PEER.container_of('node', at)
    if (p.v4daddr === daddr) return p
  }
  return null
}

/** Somebody refers to it again. */
function unlink_from_unused(p: inet_peer): void {
  spin_lock_bh(peers.unused_lock)
  if (!list_empty(p.unused)) list_del_init(p.unused)
  spin_unlock_bh(peers.unused_lock)
}

function lookup(daddr: number): inet_peer | null {
  read_lock_bh(peers.pool_lock)
  const p = find(daddr)
  if (p !== null) fetch_add(p.addr + REFCNT, 1)
  read_unlock_bh(peers.pool_lock)
  if (p !== null) unlink_from_unused(p)
  return p
}

/** inet_getpeer - what is known of a host; `create`: begin to know it. @context process, softirq @returns referenced peer, or null */
export function inet_getpeer(daddr: number, create: boolean): inet_peer | null {
  const known = lookup(daddr)
  if (known !== null || !create) return known
  const n = kmem_cache_alloc(peer_cache)
  if (n === null) {
    cleanup_once(0) // the next one finds room
    return null
  }
  n.v4daddr = daddr
  n.refcnt = 1
  n.ip_id_count = secure_ip_id(daddr)
  n.dtime = 0
  INIT_LIST_HEAD(n.unused)
  write_lock_bh(peers.pool_lock)
  const other = find(daddr)
  if (other === null) hlist_add_head(n.node, bucket(daddr))
  else fetch_add(other.addr + REFCNT, 1)
  write_unlock_bh(peers.pool_lock)
  if (other !== null) {
    unlink_from_unused(other)
    kmem_cache_free(peer_cache, n)
    return other
  }
  if (fetch_add(TOTAL, 1) >= rt_ctl.peer_threshold) cleanup_once(0)
  return n
}

/** inet_putpeer - @consumes a reference */
export function inet_putpeer(p: inet_peer): void {
  spin_lock_bh(peers.unused_lock)
  if (fetch_add(p.addr + REFCNT, -1) === 1) {
    list_add_tail(p.unused, peers.unused)
    p.dtime = jiffies()
  }
  spin_unlock_bh(peers.unused_lock)
}

/** The one that nobody has referred to for the longest time goes, if that is longer than `ttl`. @returns false: there is none */
function cleanup_once(ttl: number): boolean {
  let p: inet_peer | null = null
  spin_lock_bh(peers.unused_lock)
  if (!list_empty(peers.unused)) {
    p = PEER.container_of('unused', peers.unused.next)
    if (ttl > 0 && time_after((p.dtime + ttl) | 0, jiffies())) p = null
    else {
      list_del_init(p.unused)
      fetch_add(p.addr + REFCNT, 1)
    }
  }
  spin_unlock_bh(peers.unused_lock)
  if (p === null) return false
  unlink_from_pool(p)
  return true
}

/** @consumes a reference of p: the only one, unless somebody has found it meanwhile */
function unlink_from_pool(p: inet_peer): void {
  write_lock_bh(peers.pool_lock)
  spin_lock(peers.unused_lock)
  const mine = load(p.addr + REFCNT) === 1
  spin_unlock(peers.unused_lock)
  if (mine) hlist_del_init(p.node)
  write_unlock_bh(peers.pool_lock)
  if (!mine) {
    inet_putpeer(p)
    return
  }
  fetch_add(TOTAL, -1)
  kmem_cache_free(peer_cache, p)
}

/** Between two times, the shorter the more peers there are; jiffies. */
function between(least: number, most: number): number {
  const total = load(TOTAL)
  const threshold = rt_ctl.peer_threshold
  return total >= threshold ? least : Math.floor(most - ((most - least) * total) / threshold)
}

/** peer_check_expire - @context timer */
function peer_check_expire(): void {
  const ttl = between(rt_ctl.peer_minttl, rt_ctl.peer_maxttl)
  for (let k = 0; k < PEER_MAX_CLEANUP_WORK && cleanup_once(ttl); k++);
  mod_timer(peers.timer, (jiffies() + between(rt_ctl.peer_gc_mintime, rt_ctl.peer_gc_maxtime)) | 0)
}
const peer_check_expire_sym = symbol('peer_check_expire', peer_check_expire)

/** inet_getid - the identification of the next packet to a host, 0 to 65535. */
export function inet_getid(p: inet_peer): number {
  return fetch_add(p.addr + ID, 1) & 0xffff
}
/** inet_getid_fallback - where there is no memory to count for each host. */
export function inet_getid_fallback(daddr: number): number {
  return (secure_ip_id(daddr ^ fetch_add(FALLBACK, 1)) >>> 0) & 0xffff
}

/** inet_peers_total - for tests and reports. */
export function inet_peers_total(): number {
  return load(TOTAL)
}

/** inet_initpeers - @context boot, CPU 0 */
export function inet_initpeers(): void {
  rwlock_init(peers.pool_lock)
  spin_lock_init(peers.unused_lock)
  INIT_LIST_HEAD(peers.unused)
  peers.total = 0
  peers.fallback = 0
  peers.secret = jhash_2words(config('seed'), 0x1d, 0x9e3779b9 | 0)
  i32.fill(0, peers.hash >> 2, (peers.hash >> 2) + BUCKETS)
  init_timer(peers.timer, peer_check_expire_sym, 0)
  mod_timer(peers.timer, (jiffies() + rt_ctl.peer_gc_maxtime) | 0)
}

/** inet_peers_exit - those that nobody refers to, for the leak audit. @context a halted machine */
export function inet_peers_exit(): void {
  while (cleanup_once(0));
}
