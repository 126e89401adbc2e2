/**
 * route.ts - the route cache: who asked for what way, answered without a lock. What it forgets: route_gc.ts.
 *
 * Lock charter
 *   A bucket's chain is RCU: readers walk it under rcu_read_lock (softirq) or rcu_read_lock_bh (process); writers hold the
 *   bucket's lock with bottom halves off. An entry is constant once it is hashed (its counters apart) and is freed through
 *   call_rcu_bh after it was unhashed. The neighbour is bound under the bucket lock: bucket lock before tbl.lock.
 *   Never under a bucket lock: a FIB lookup, sending, another bucket's lock.
 *   The FIB is asked without any lock of this file.
 */

import { embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { fetch_add, load, READ_ONCE, store, WRITE_ONCE } from '../../arch/atomic.js'
import { PROVE } from '../../arch/boot.js'
import { cost } from '../../arch/cost.js'
import { charge_cost } from '../../arch/cpu.js'
import { config } from '../../arch/machine.js'
import { data_race } from '../../arch/race.js'
import { RAM } from '../../arch/ram.js'
import { init_timer, jiffies, mod_timer, TIMER, type timer_list } from '../../irq/timer.js'
import { EINVAL, ENOBUFS } from '../../lib/errno.js'
import { jhash_3words } from '../../lib/jhash.js'
import { RT_CACHE_ENTRIES, RT_HASH_BUCKETS } from '../../lib/limits.js'
import { at_mem_init } from '../../mm/init.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import { prove_follow } from '../../rcu/prove.js'
import {
  call_rcu_bh,
  rcu_assign_pointer,
  rcu_read_lock,
  rcu_read_lock_bh,
  rcu_read_unlock,
  rcu_read_unlock_bh,
} from '../../rcu/rcupdate.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { in_softirq } from '../../sync/preempt.js'
import { refcount_dec } from '../../sync/refcount.js'
import { SPINLOCK, spin_lock_init, type spinlock_t } from '../../sync/spinlock.js'
import { dst_free, type dst_ops } from '../core/dst.js'
import { __neigh_lookup, __neigh_lookup_noarp } from '../core/neighbour.js'
import { dev_hold, dev_put } from '../core/netdevice.js'
import { register_sysctl } from '../core/sysctl.js'
import { DST, type dst_entry, IFF_LOOPBACK, type neighbour, type net_device, SKB, type sk_buff } from '../core/types.js'
import { type fib_info, fib_metric, RTAX_ADVMSS, RTAX_HOPLIMIT, RTAX_LOCK, RTAX_MTU } from './fib_types.js'
import { inet_putpeer, PEER } from './inetpeer.js'
import { ip_ctl } from './ip_sysctl.js'
import { rt_collect_expired, rt_garbage_collect, rt_gc_init, rt_score } from './route_gc.js'
import { ipv4_link_failure } from './route_slow.js'
import { rt_ctl } from './route_sysctl.js'
import { RTABLE, type rtable } from './types.js'

const COST_CACHE = cost('rt_cache_lookup')

const i32 = RAM.i32

const MASK = RT_HASH_BUCKETS - 1

const rt_cache = kmem_cache_create('ip_dst_cache', RTABLE, () => RT_CACHE_ENTRIES + 1024)

export class rt_hash_bucket extends Struct {
  declare chain: number
  declare lock: spinlock_t
}
const BUCKET: Layout<rt_hash_bucket> = layout('rt_hash_bucket', rt_hash_bucket, {
  chain: { kind: 'word', size: 4, align: 4, guard: 'RCU, changed under lock' },
  lock: embed(SPINLOCK),
})
const BUCKET_SHIFT = 5
/** Where the buckets lie: the same on every CPU. */
const table = { base: 0, w: 0 }
at_mem_init(mem => {
  table.base = mem.alloc(RT_HASH_BUCKETS << BUCKET_SHIFT)
  table.w = table.base >> 2
  DST.attach(rt_cache.base, rt_cache.shift, rt_cache.count) // an rtable begins with its dst_entry
  BUCKET.attach(table.base, BUCKET_SHIFT, RT_HASH_BUCKETS)
})

/** rt_bucket - number `b`. */
export function rt_bucket(b: number): rt_hash_bucket {
  return BUCKET.ref(table.base + (b << BUCKET_SHIFT))
}

class rt_cache_state extends Struct {
  declare entries: number
  declare rnd: number
  declare generation: number
  declare secret: timer_list
}
const STATE: Layout<rt_cache_state> = layout('rt_cache_state', rt_cache_state, {
  entries: { kind: 'word', size: 4, align: 128, guard: 'atomic' },
  rnd: { kind: 'word', size: 4, align: 128, guard: 'changed by the secret rebuild only' },
  generation: word,
  secret: embed(TIMER),
})
const rt = DEFINE_STATIC('rt_cache', STATE)
const RND = rt.$w + (STATE.offset('rnd') >> 2)

/** Columns of /proc/net/stat/rt_cache, per CPU. */
export class rt_cache_stat extends Struct {
  declare in_hit: number
  declare in_slow_tot: number
  declare in_no_route: number
  declare in_brd: number
  declare in_martian_dst: number
  declare in_martian_src: number
  declare out_hit: number
  declare out_slow_tot: number
  declare gc_total: number
  declare gc_ignored: number
  declare gc_goal_miss: number
  declare gc_dst_overflow: number
  declare rnd_state: number
}
const RT_STAT: Layout<rt_cache_stat> = layout('rt_cache_stat', rt_cache_stat, {
  in_hit: word,
  in_slow_tot: word,
  in_no_route: word,
  in_brd: word,
  in_martian_dst: word,
  in_martian_src: word,
  out_hit: word,
  out_slow_tot: word,
  gc_total: word,
  gc_ignored: word,
  gc_goal_miss: word,
  gc_dst_overflow: word,
  rnd_state: word,
})
export const rt_cache_stats = DEFINE_PER_CPU('rt_cache_stat', RT_STAT)
export const rt_stat = rt_cache_stats.mine

function rt_hash_code(daddr: number, saddr: number, tos: number): number {
  return jhash_3words(daddr, saddr, tos, i32[RND]) & MASK
}

// ---- entries --------------------------------------------------------------------------------------------------------

/** rt_entries - routes in the cache or waiting for their grace period. */
export function rt_entries(): number {
  return load(rt.addr)
}

/** dst_alloc - a route with one reference, or null when the cache is full and nothing could be collected. */
export function rt_alloc(): rtable | null {
  if (load(rt.addr) > rt_ctl.gc_thresh && !rt_garbage_collect()) return null
  const r = kmem_cache_alloc(rt_cache)
  if (r === null) {
    rt_stat.gc_dst_overflow++
    return null
  }
  i32.fill(0, r.$w, r.$w + (RTABLE.size >> 2))
  fetch_add(rt.addr, 1)
  r.dst.refcnt = 1
  r.dst.lastuse = jiffies()
  r.dst.ops = ipv4_dst_ops
  return r
}

/** rt_destroy - @consumes dst, the head of an rtable */
export function rt_destroy(dst: dst_entry): void {
  if (dst.dev !== null) dev_put(dst.dev)
  const { peer } = RTABLE.ref(dst.addr)
  if (peer !== 0) inet_putpeer(PEER.ref(peer))
  fetch_add(rt.addr, -1)
  kmem_cache_free(rt_cache, RTABLE.ref(dst.addr))
}
const ops: dst_ops = {
  destroy: rt_destroy,
  link_failure: skb => ipv4_link_failure(skb),
}
const ipv4_dst_ops = symbol('ipv4_dst_ops', ops)

function dst_rcu_free(head: number): void {
  dst_free(DST.container_of('rcu_head', head))
}
const dst_rcu_free_sym = symbol('dst_rcu_free', dst_rcu_free)

/** rt_free - after it was unhashed. @consumes r */
export function rt_free(r: rtable): void {
  call_rcu_bh(r.dst.rcu_head, dst_rcu_free_sym)
}

/** rt_drop - give an entry back that was never hashed. @consumes r */
export function rt_drop(r: rtable): void {
  refcount_dec(r.dst.addr + REFCNT)
  dst_free(DST.ref(r.addr))
}
const REFCNT = DST.offset('refcnt')

/** ip_rt_put - @consumes a reference; null is fine */
export function ip_rt_put(r: rtable | null): void {
  if (r !== null) refcount_dec(r.addr + REFCNT)
}

// ---- lookup ---------------------------------------------------------------------------------------------------------

const FL_DST = RTABLE.offset('fl_dst') >> 2
const FL_SRC = RTABLE.offset('fl_src') >> 2
const FL_IIF = RTABLE.offset('fl_iif') >> 2
const FL_OIF = RTABLE.offset('fl_oif') >> 2
const FL_TOS = RTABLE.offset('fl_tos') >> 2
const FL_MARK = RTABLE.offset('fl_mark') >> 2
const NFMARK = SKB.offset('nfmark') >> 2
const USE = DST.offset('use')
const LASTUSE = DST.offset('lastuse')
const IPTOS_RT_MASK = 0x1c
const RTO_TOS = 0x1e

function touch(r: number): void {
  // Other CPUs touch it as well: of two times either will do, and a use that is lost is only a number.
  WRITE_ONCE(r + LASTUSE, jiffies())
  fetch_add(r + REFCNT, 1)
  WRITE_ONCE(r + USE, READ_ONCE(r + USE) + 1)
}

/** Walk a chain for a key; interrupts may come, RCU keeps the entries. @returns address, or 0 */
function chain_find(
  hash: number,
  daddr: number,
  saddr: number,
  iif: number,
  oif: number,
  tos: number,
  mark: number,
): number {
  let r = READ_ONCE((table.w << 2) + (hash << BUCKET_SHIFT))
  while (r !== 0) {
    if (PROVE) prove_follow(r)
    const w = r >> 2
    if (
      i32[w + FL_DST] === daddr &&
      i32[w + FL_SRC] === saddr &&
      i32[w + FL_IIF] === iif &&
      i32[w + FL_OIF] === oif &&
      i32[w + FL_TOS] === tos &&
      i32[w + FL_MARK] === mark
    )
      return r
    r = READ_ONCE(r)
  }
  return 0
}

/** rt_cache_input - the cached route of a received packet, referenced, on skb.dst. @context softirq @returns found */
export function rt_cache_input(skb: sk_buff, daddr: number, saddr: number, tos: number, dev: net_device): boolean {
  charge_cost(COST_CACHE)
  const iif = dev.ifindex
  const key = tos & IPTOS_RT_MASK
  const hash = rt_hash_code(daddr, saddr ^ (iif << 5), key)
  rcu_read_lock()
  const r = chain_find(hash, daddr, saddr, iif, 0, key, i32[skb.$w + NFMARK])
  if (r !== 0) {
    touch(r)
    i32[skb.$w + SKB_DST] = r
  }
  rcu_read_unlock()
  if (r === 0) return false
  rt_stat.in_hit++
  return true
}
const SKB_DST = SKB.offset('dst') >> 2

/** rt_cache_output - the cached route for packets of our own, referenced, or null. */
export function rt_cache_output(daddr: number, saddr: number, tos: number, oif: number, mark = 0): rtable | null {
  charge_cost(COST_CACHE)
  const key = tos & RTO_TOS
  const hash = rt_hash_code(daddr, saddr ^ (oif << 5), key)
  rcu_read_lock_bh()
  const r = chain_find(hash, daddr, saddr, 0, oif, key, mark)
  if (r !== 0) touch(r)
  rcu_read_unlock_bh()
  if (r === 0) return null
  rt_stat.out_hit++
  return RTABLE.ref(r)
}

/** rt_each_output - every cached route of our own for this key. @context softirq */
export function rt_each_output(daddr: number, saddr: number, oif: number, tos: number, f: (rt: rtable) => void): void {
  const key = tos & IPTOS_RT_MASK
  const { chain } = rt_bucket(rt_hash_code(daddr, saddr ^ (oif << 5), key))
  rcu_read_lock()
  for (let r = RTABLE.at(chain); r !== null; r = RTABLE.at(i32[r.$w]))
    if (r.fl_dst === daddr && r.fl_src === saddr && r.fl_iif === 0 && r.fl_oif === oif && r.fl_tos === key) f(r)
  rcu_read_unlock()
}

/** rt_clone - a route that is like another one, but bound to no neighbour yet. @returns owned route, or null */
export function rt_clone(of: rtable): rtable | null {
  const r = rt_alloc()
  if (r === null) return null
  for (const field of COPIED) r[field] = of[field]
  r.dst.input = of.dst.input
  r.dst.output = of.dst.output
  for (const field of OF_DST) r.dst[field] = of.dst[field]
  rt_set_dev(r, of.dst.dev!)
  return r
}
const OF_DST = ['flags', 'mtu', 'mtu_locked', 'advmss', 'hoplimit'] as const
const COPIED = [
  ...(['fl_dst', 'fl_src', 'fl_iif', 'fl_oif', 'fl_tos', 'fl_mark', 'hash', 'rt_flags', 'rt_type', 'rt_dst'] as const),
  ...(['rt_src', 'rt_iif', 'rt_gateway', 'rt_spec_dst'] as const),
]

/** rt_del - out of the cache, if it is there still. @context softirq @locks the bucket's lock */
export function rt_del(r: rtable): void {
  const bucket = rt_bucket(r.hash)
  spin_lock_bh(bucket.lock)
  let slot = bucket.addr
  while (i32[slot >> 2] !== 0 && i32[slot >> 2] !== r.addr) slot = i32[slot >> 2]!
  const there = i32[slot >> 2] === r.addr
  if (there) store(slot, i32[r.$w]!)
  spin_unlock_bh(bucket.lock)
  if (there) rt_free(r)
}

/** rt_key - fill in what a route answers to, and its bucket. */
export function rt_key(
  r: rtable,
  daddr: number,
  saddr: number,
  iif: number,
  oif: number,
  tos: number,
  mark: number,
): void {
  r.fl_dst = daddr
  r.fl_src = saddr
  r.fl_iif = iif
  r.fl_oif = oif
  r.fl_mark = mark
  r.fl_tos = tos & (iif !== 0 ? IPTOS_RT_MASK : RTO_TOS)
  r.hash = rt_hash_code(daddr, saddr ^ ((iif !== 0 ? iif : oif) << 5), r.fl_tos)
}

// ---- change ---------------------------------------------------------------------------------------------------------

/** What arp_constructor knows: whose address follows from what it is, and who must be asked for it. */
function neighbour_of(r: rtable, dev: net_device): neighbour | null {
  const key = r.rt_gateway
  if ((dev.flags & IFF_LOOPBACK) !== 0) return __neigh_lookup_noarp(0, dev, dev.dev_addr_hi, dev.dev_addr_lo)
  if (r.rt_type === RTN_BROADCAST && r.fl_iif === 0)
    return __neigh_lookup_noarp(key, dev, dev.broadcast_hi, dev.broadcast_lo)
  if (r.rt_type !== RTN_MULTICAST) return __neigh_lookup(key, dev)
  return __neigh_lookup_noarp(key, dev, 0x01005e00 | ((key >>> 16) & 0x7f), (key << 16) >> 16)
}

/** arp_bind_neighbour - the station that leads on. @returns 0, -ENOBUFS, -EINVAL */
export function arp_bind_neighbour(r: rtable): number {
  const dev = r.dst.dev
  if (dev === null) return -EINVAL
  if (r.dst.neighbour !== null) return 0
  const n = neighbour_of(r, dev)
  if (n === null) return -ENOBUFS
  r.dst.neighbour = n
  return 0
}

/**
 * rt_intern_hash - enter a new route, or drop it for an equal one that another CPU entered.
 * @consumes r @returns the hashed entry, with the caller's reference, or null: there is no room for its neighbour
 */
export function rt_intern_hash(r: rtable): rtable | null {
  let hashed = intern(r)
  if (hashed === null) {
    rt_collect_expired()
    if (!in_softirq()) hashed = intern(r) // in a softirq no grace period ends, and only the next packet may find room
  }
  if (hashed === null) rt_drop(r)
  return hashed
}

function intern(r: rtable): rtable | null {
  const bucket = rt_bucket(r.hash)
  let cand: rtable | null = null
  let cand_slot = 0
  let min_score = 0xffffffff
  let chain_length = 0
  spin_lock_bh(bucket.lock)
  let slot = bucket.addr
  for (let at = RTABLE.at(i32[slot >> 2]); at !== null; at = RTABLE.at(i32[slot >> 2])) {
    if (
      at.fl_dst === r.fl_dst &&
      at.fl_src === r.fl_src &&
      at.fl_iif === r.fl_iif &&
      at.fl_oif === r.fl_oif &&
      at.fl_tos === r.fl_tos &&
      at.fl_mark === r.fl_mark
    ) {
      store(slot, i32[at.$w]) // to the front; a reader in the chain may miss the tail, and then asks the FIB
      i32[at.$w] = bucket.chain
      rcu_assign_pointer(bucket.addr, at.addr)
      touch(at.addr)
      spin_unlock_bh(bucket.lock)
      rt_drop(r)
      return at
    }
    if (at.dst.refcnt === 0) {
      const score = rt_score(at)
      if (score <= min_score) {
        cand = at
        cand_slot = slot
        min_score = score
      }
    }
    chain_length++
    slot = at.addr
  }
  if (cand !== null && chain_length > rt_ctl.gc_elasticity) {
    store(cand_slot, i32[cand.$w])
    rt_free(cand)
  }
  if ((r.rt_type === RTN_UNICAST || r.fl_iif === 0) && r.dst.error === 0 && arp_bind_neighbour(r) !== 0) {
    spin_unlock_bh(bucket.lock)
    return null
  }
  i32[r.$w] = bucket.chain
  rcu_assign_pointer(bucket.addr, r.addr)
  spin_unlock_bh(bucket.lock)
  return r
}
const RTN_UNICAST = 1
const RTN_BROADCAST = 3
const RTN_MULTICAST = 5

/** rt_cache_flush - routes or addresses changed: forget what was answered, all of it. @context process, softirq */
export function rt_cache_flush(): void {
  rt.generation++
  for (let b = 0; b < RT_HASH_BUCKETS; b++) {
    const bucket = rt_bucket(b)
    if (data_race(bucket.addr) === 0) continue // whoever enters one now asks the FIB as it is
    spin_lock_bh(bucket.lock)
    let r = RTABLE.at(bucket.chain)
    store(bucket.addr, 0)
    spin_unlock_bh(bucket.lock)
    while (r !== null) {
      const next = RTABLE.at(i32[r.$w])
      rt_free(r)
      r = next
    }
  }
}
export const rt_cache_flush_sym = symbol('rt_cache_flush', rt_cache_flush)
register_sysctl('net.ipv4.route.flush', {
  get: () => 0,
  set() {
    rt_cache_flush() // at once, whatever the delay
    return 0
  },
})

/** rt_secret_rebuild - a new seed, so that nobody can aim at one bucket for long. @context timer */
function rt_secret_rebuild(): void {
  rt_new_secret()
  rt_cache_flush()
  mod_timer(rt.secret, jiffies() + rt_ctl.secret_interval)
}
const rt_secret_rebuild_sym = symbol('rt_secret_rebuild', rt_secret_rebuild)

function rt_new_secret(): void {
  rt.rnd = jhash_3words(rt.rnd, jiffies(), load(rt.addr), 0x9e3779b9 | 0)
}

/** ip_rt_init - @context boot, CPU 0 */
export function ip_rt_init(): void {
  for (let b = 0; b < RT_HASH_BUCKETS; b++) {
    const bucket = rt_bucket(b)
    bucket.chain = 0
    spin_lock_init(bucket.lock)
  }
  rt.entries = 0
  rt.rnd = config('seed')
  rt_new_secret()
  rt_gc_init()
  init_timer(rt.secret, rt_secret_rebuild_sym, 0)
  mod_timer(rt.secret, jiffies() + rt_ctl.secret_interval)
}

/** rt_set_dev - the route's device, with a reference. */
export function rt_set_dev(r: rtable, dev: net_device): void {
  dev_hold(dev)
  r.dst.dev = dev
}

/** rt_set_nexthop - what the route that was found says of its packets; null: nothing. After rt_set_dev and the gateway. */
export function rt_set_nexthop(r: rtable, fi: fib_info | null): void {
  const { mtu } = r.dst.dev!
  const metric = (k: number): number => (fi === null ? 0 : fib_metric(fi, k))
  const locked = (metric(RTAX_LOCK) & (1 << RTAX_MTU)) !== 0
  if (metric(RTAX_MTU) !== 0) r.dst.mtu = Math.min(metric(RTAX_MTU), mtu)
  else r.dst.mtu = locked && r.rt_gateway !== r.rt_dst && mtu > 576 ? 576 : mtu
  r.dst.mtu_locked = locked ? 1 : 0
  r.dst.advmss = Math.min(metric(RTAX_ADVMSS) || Math.max(mtu - 40, rt_ctl.min_adv_mss), 0xffff - 40)
  r.dst.hoplimit = metric(RTAX_HOPLIMIT) || ip_ctl.default_ttl
}
