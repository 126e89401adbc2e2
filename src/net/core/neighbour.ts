/**
 * neighbour.ts - who is on the link: the table of IPv4 addresses and their station addresses. How an entry gets its address
 * and loses it again is in nud.ts, who is answered for in pneigh.ts.
 *
 * Lock charter
 *   tbl.lock guards the hash chains and the list of parameters: lookups read; creation and the collectors write. Who holds it for writing and sees one
 *   reference, the table's, is alone with the entry. neigh.lock guards state, hardware address and the packets that wait.
 *   Order: tbl.lock before neigh.lock. Both with bottom halves off. Nothing that can come back here is called under them.
 *   A pending timer of an entry is a reference to it; it is armed under neigh.lock only.
 *   The transmit path reads the hardware address without neigh.lock. So it lies apart and is never changed: another address
 *   is another neigh_ha, published atomically, and the old one is freed after a grace period of rcu_bh. A reader sees all
 *   of the old address or all of the new one.
 */

import { atomic, by, bytes, embed, konst, type Layout, layout, ptr, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { type Sym, symbol } from '../../abi/symbol.js'
import { fetch_add, load } from '../../arch/atomic.js'
import { hz } from '../../arch/machine.js'
import { RAM } from '../../arch/ram.js'
import { del_timer, init_timer, jiffies, mod_timer, TIMER, time_after, type timer_list } from '../../irq/timer.js'
import { jhash_2words } from '../../lib/jhash.js'
import { MAX_NEIGHBOURS, MAX_NETDEVS, NEIGH_GC_THRESH1, NEIGH_GC_THRESH2, NEIGH_GC_THRESH3 } from '../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import { call_rcu_bh, RCU_HEAD, type rcu_head } from '../../rcu/rcupdate.js'
import { refcount_dec_and_test, refcount_inc } from '../../sync/refcount.js'
import {
  RWLOCK,
  read_lock_bh,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock,
  write_lock_bh,
  write_unlock,
  write_unlock_bh,
} from '../../sync/rwlock.js'
import { drop_reason } from './fate.js'
import { dev_hold, dev_put } from './netdevice.js'
import { skb_queue_head_init, skb_queue_purge } from './skb_queue.js'
import {
  NEIGH,
  NUD_DELAY,
  NUD_FAILED,
  NUD_INCOMPLETE,
  NUD_NOARP,
  NUD_NONE,
  NUD_PERMANENT,
  NUD_PROBE,
  NUD_REACHABLE,
  NUD_STALE,
  type neighbour,
  type net_device,
  type sk_buff,
} from './types.js'

const i32 = RAM.i32
export const BUCKETS = 1024
const REFCNT = NEIGH.offset('refcnt')
const UNRESOLVED = drop_reason('neigh_unresolved')
/** Seconds: once round the buckets. */
const gc_round = (): number => Math.max(1, arp_tbl.parms.base_reachable_time / 2000)
/** It may be sent to without a question. */
export const NUD_CONNECTED = NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE
/** Its station address means something. */
export const NUD_VALID = NUD_CONNECTED | NUD_PROBE | NUD_STALE | NUD_DELAY
export const NUD_IN_TIMER = NUD_INCOMPLETE | NUD_REACHABLE | NUD_DELAY | NUD_PROBE

const neigh_cache = kmem_cache_create('arp_cache', NEIGH, () => MAX_NEIGHBOURS)

/** A hardware address, as in net_device. */
export class neigh_ha extends Struct {
  declare hi: number
  declare lo: number
  declare rcu: rcu_head
}
export const HA: Layout<neigh_ha> = layout('neigh_ha', neigh_ha, {
  hi: konst(word),
  lo: konst(word),
  rcu: embed(RCU_HEAD),
})
/** One for each neighbour, and some that wait for their grace period. */
const ha_cache = kmem_cache_create('neigh_ha', HA, () => MAX_NEIGHBOURS + 512)

/** How long what counts, in ms, and how often it is asked for: sysctls net.ipv4.neigh.*, of each device and what one begins with. */
export class neigh_parms extends Struct {
  declare next: neigh_parms | null
  declare dev: number
  declare dead: number
  declare refcnt: number
  declare rcu: rcu_head
  declare base_reachable_time: number
  declare reachable_time: number
  declare retrans_time: number
  declare gc_staletime: number
  declare delay_probe_time: number
  declare queue_len: number
  declare ucast_probes: number
  declare app_probes: number
  declare mcast_probes: number
  declare anycast_delay: number
  declare proxy_delay: number
  declare proxy_qlen: number
  declare locktime: number
}
/** What counts are words that are written with rtnl held and read by anybody, at any time. */
export const NEIGH_PARMS: Layout<neigh_parms> = layout('neigh_parms', neigh_parms, {
  next: by(
    'tbl.lock',
    ptr(() => NEIGH_PARMS),
  ),
  dev: konst(word), // address of the device, for who looks for its parms; no reference. 0: what a new device begins with
  dead: by('tbl.lock', word), // it left the list: no new entry has it
  refcnt: atomic(word), // the list's, and one of each entry
  rcu: embed(RCU_HEAD),
  base_reachable_time: atomic(word),
  reachable_time: atomic(word), // drawn anew every 300 s: between half and one and a half of the base
  retrans_time: atomic(word), // between two questions
  gc_staletime: atomic(word), // an unused entry is kept
  delay_probe_time: atomic(word), // after it was used, until it is asked
  queue_len: atomic(word), // packets that wait for an answer
  ucast_probes: atomic(word), // questions to the address that was known
  app_probes: atomic(word), // to a daemon, which this machine does not have
  mcast_probes: atomic(word), // to everybody; 0: nobody is ever asked
  anycast_delay: atomic(word), // of IPv6, which this machine does not have
  proxy_delay: atomic(word), // at most, before somebody else's answer is given
  proxy_qlen: atomic(word),
  locktime: atomic(word), // a new address is believed again
})

const VALUES = [
  ...([
    'base_reachable_time',
    'retrans_time',
    'gc_staletime',
    'delay_probe_time',
    'queue_len',
    'ucast_probes',
  ] as const),
  ...(['app_probes', 'mcast_probes', 'anycast_delay', 'proxy_delay', 'proxy_qlen', 'locktime'] as const),
]
/** Those of a device that is gone stay for as long as an entry has them. */
const parms_cache = kmem_cache_create('neigh_parms', NEIGH_PARMS, () => 2 * MAX_NETDEVS)
const PARMS_REFCNT = NEIGH_PARMS.offset('refcnt')

/** What a protocol does for its neighbours. */
export interface neigh_ops {
  /** Ask for the address. `skb`: a packet that waits for it, or null; it stays the caller's. No lock is held. */
  solicit(neigh: neighbour, skb: sk_buff | null): void
  /** There is no answer. @consumes skb. No lock is held. */
  error_report(neigh: neighbour, skb: sk_buff): void
}

class neigh_table extends Struct {
  declare lock: rwlock_t
  declare entries: number
  declare hash_rnd: number
  declare rand: number
  declare last_rand: number
  declare ops: number
  declare timer_func: Sym<(data: number) => void>
  declare parms: neigh_parms
  declare gc_thresh1: number
  declare gc_thresh2: number
  declare gc_thresh3: number
  declare gc_interval: number
  declare last_flush: number
  declare chain_gc: number
  declare gc_timer: timer_list
  declare buckets: number
}
const TABLE: Layout<neigh_table> = layout('neigh_table', neigh_table, {
  lock: embed(RWLOCK),
  entries: atomic(word), // that are not permanent
  hash_rnd: konst(word),
  rand: by('lock', word), // state of the generator of reachable_time
  last_rand: by('lock', word), // jiffies
  ops: konst(word), // the protocol's neigh_ops
  timer_func: konst(word), // nud.ts
  parms: embed(NEIGH_PARMS), // those that a device begins with, and head of the list
  gc_thresh1: atomic(word), // this and gc_interval: for who asks; 2.6.11 does not look at them either
  gc_thresh2: atomic(word), // entries that are not permanent: more than these for 5 s, and unused ones go
  gc_thresh3: atomic(word), // there are never more
  gc_interval: atomic(word), // ms
  last_flush: by('lock', word), // jiffies of the last forced collection
  chain_gc: by('lock', word), // bucket that the periodic collector looks at next
  gc_timer: embed(TIMER),
  buckets: by('lock', bytes(BUCKETS * 4)),
})
export const arp_tbl = DEFINE_STATIC('arp_tbl', TABLE)
const ENTRIES = arp_tbl.addr + TABLE.offset('entries')

/** ms as jiffies, at least one. */
export function neigh_jiffies(ms: number): number {
  return Math.max(1, Math.floor((ms * hz()) / 1000))
}

function bucket(key: number, dev: net_device): number {
  return (arp_tbl.buckets >> 2) + (jhash_2words(key, dev.ifindex, arp_tbl.hash_rnd) & (BUCKETS - 1))
}

/** neigh_release - @consumes a reference; the last one frees the entry */
export function neigh_release(neigh: neighbour): void {
  if (!refcount_dec_and_test(neigh.addr + REFCNT)) return
  skb_queue_purge(neigh.arp_queue, UNRESOLVED)
  dev_put(neigh.dev!)
  if (neigh.ha !== 0) kmem_cache_free(ha_cache, HA.ref(neigh.ha)) // who reads it has a reference
  neigh_parms_put(neigh_parms_of(neigh))
  kmem_cache_free(neigh_cache, neigh)
}
export function neigh_hold(neigh: neighbour): void {
  refcount_inc(neigh.addr + REFCNT)
}

// ---- parameters -----------------------------------------------------------------------------------------------------

/** neigh_parms_of - those of an entry, which has a reference. */
export function neigh_parms_of(n: neighbour): neigh_parms {
  return NEIGH_PARMS.ref(n.parms)
}
/** neigh_parms_find - those of a device; null: it has no IPv4 side, or no more. @locks tbl.lock or rtnl is held */
export function neigh_parms_find(dev: net_device): neigh_parms | null {
  let p = arp_tbl.parms.next
  while (p !== null && p.dev !== dev.addr) p = p.next
  return p
}

/** neigh_parms_alloc - for a device: as the defaults are now. @context process @locks rtnl is held; tbl.lock @returns null: no memory */
export function neigh_parms_alloc(dev: net_device): neigh_parms | null {
  const p = kmem_cache_alloc(parms_cache)
  if (p === null) return null
  p.dev = dev.addr
  p.dead = 0
  p.refcnt = 1
  for (const value of VALUES) p[value] = arp_tbl.parms[value]
  write_lock_bh(arp_tbl.lock)
  neigh_rand_reach_time(p)
  p.next = arp_tbl.parms.next
  arp_tbl.parms.next = p
  write_unlock_bh(arp_tbl.lock)
  return p
}

/**
 * neigh_parms_release - the device loses its IPv4 side: no new entry has them, and who found them by the device may go on with
 * them until the end of a grace period of rcu_bh. @context process @locks rtnl is held; tbl.lock @consumes the list's reference
 */
export function neigh_parms_release(parms: neigh_parms): void {
  write_lock_bh(arp_tbl.lock)
  let at = arp_tbl.parms
  while (at.next !== null && at.next !== parms) at = at.next
  at.next = parms.next
  parms.dead = 1
  write_unlock_bh(arp_tbl.lock)
  call_rcu_bh(parms.rcu, neigh_rcu_free_parms_sym)
}
function neigh_rcu_free_parms(head: number): void {
  neigh_parms_put(NEIGH_PARMS.container_of('rcu', head))
}
const neigh_rcu_free_parms_sym = symbol('neigh_rcu_free_parms', neigh_rcu_free_parms)
function neigh_parms_put(parms: neigh_parms): void {
  if (refcount_dec_and_test(parms.addr + PARMS_REFCNT)) kmem_cache_free(parms_cache, parms)
}

// ---- entries --------------------------------------------------------------------------------------------------------

function find(key: number, dev: net_device): neighbour | null {
  let n = NEIGH.at(i32[bucket(key, dev)])
  while (n !== null && (n.primary_key !== key || n.dev !== dev)) n = n.next
  return n
}

/** neigh_lookup - @locks tbl.lock for reading @returns entry with one more reference, or null */
export function neigh_lookup(key: number, dev: net_device): neighbour | null {
  read_lock_bh(arp_tbl.lock)
  const n = find(key, dev)
  if (n !== null) neigh_hold(n)
  read_unlock_bh(arp_tbl.lock)
  return n
}

/**
 * An entry to be filled in, or null when there are too many. Permanent ones can be as many as memory holds: they are not
 * counted, since no collector could do anything about them (as in Linux from 5.0 on).
 */
function neigh_alloc(permanent: boolean): neighbour | null {
  if (permanent) return kmem_cache_alloc(neigh_cache)
  const entries = fetch_add(ENTRIES, 1)
  const full = entries >= arp_tbl.gc_thresh3
  const many = entries >= arp_tbl.gc_thresh2 && time_after(jiffies(), arp_tbl.last_flush + 5 * hz())
  const n = (full || many) && !neigh_forced_gc() && full ? null : kmem_cache_alloc(neigh_cache)
  if (n === null) fetch_add(ENTRIES, -1)
  return n
}

/** neigh_create - a new entry in state NONE, or the one that another CPU was faster with. @returns referenced; null: too many, or a device without IPv4 */
export function neigh_create(key: number, dev: net_device): neighbour | null {
  return create(key, dev, 0, NUD_NONE)
}

/** __neigh_lookup_noarp - find or create one whose address follows from its kind, and who is never asked for it. */
export function __neigh_lookup_noarp(key: number, dev: net_device, hi: number, lo: number): neighbour | null {
  return neigh_lookup(key, dev) ?? create_known(key, dev, hi, lo, NUD_NOARP)
}

/** create_known - a new entry whose address is known, or the one that another CPU was faster with. */
function create_known(key: number, dev: net_device, hi: number, lo: number, state: number): neighbour | null {
  const ha = neigh_ha_alloc(hi, lo)
  if (ha === 0) return null
  const n = create(key, dev, ha, state)
  if (n === null || n.ha !== ha) kmem_cache_free(ha_cache, HA.ref(ha))
  return n
}

/** neigh_ha_alloc - @context any @returns address of a new neigh_ha, 0: no memory */
export function neigh_ha_alloc(hi: number, lo: number): number {
  const ha = kmem_cache_alloc(ha_cache)
  if (ha === null) return 0
  ha.hi = hi
  ha.lo = lo
  return ha.addr
}
function neigh_ha_free(head: number): void {
  kmem_cache_free(ha_cache, HA.container_of('rcu', head))
}
export const neigh_ha_free_sym = symbol('neigh_ha_free', neigh_ha_free)

/** With the address of its neigh_ha, 0: not known. */
function create(key: number, dev: net_device, ha: number, state: number): neighbour | null {
  const permanent = state === NUD_PERMANENT
  const n = neigh_alloc(permanent)
  if (n === null) return null
  n.next = null
  n.primary_key = key
  n.dev = dev
  n.nud_state = state
  n.refcnt = 2 // the table's and the caller's
  n.ha = ha
  n.dead = 0
  n.used = jiffies()
  n.updated = n.used
  n.probes = 0
  rwlock_init(n.lock)
  skb_queue_head_init(n.arp_queue)
  init_timer(n.timer, arp_tbl.timer_func, n.addr)
  write_lock_bh(arp_tbl.lock)
  const other = find(key, dev)
  const parms = other === null ? neigh_parms_find(dev) : null
  if (other !== null) neigh_hold(other)
  if (parms === null) {
    write_unlock_bh(arp_tbl.lock)
    if (!permanent) fetch_add(ENTRIES, -1)
    kmem_cache_free(neigh_cache, n)
    return other
  }
  refcount_inc(parms.addr + PARMS_REFCNT)
  n.parms = parms.addr
  n.confirmed = (n.used - 2 * neigh_jiffies(parms.base_reachable_time)) | 0 // there was no proof yet
  dev_hold(dev)
  const head = bucket(key, dev)
  n.next = NEIGH.at(i32[head])
  i32[head] = n.addr
  write_unlock_bh(arp_tbl.lock)
  return n
}

/** __neigh_lookup - find or create. @returns referenced entry, or null */
export function __neigh_lookup(key: number, dev: net_device): neighbour | null {
  return neigh_lookup(key, dev) ?? neigh_create(key, dev)
}

/** neigh_counts - an entry became one, or ceased to be: those are not counted. @locks neigh.lock is held for writing */
export function neigh_counts(was: number, is: number): void {
  const more = (was & NUD_PERMANENT) - (is & NUD_PERMANENT)
  if (more !== 0) fetch_add(ENTRIES, Math.sign(more))
}

/** neigh_create_permanent - find one, or create it with this address, permanent. @returns referenced entry, or null */
export function neigh_create_permanent(key: number, dev: net_device, hi: number, lo: number): neighbour | null {
  return neigh_lookup(key, dev) ?? create_known(key, dev, hi, lo, NUD_PERMANENT)
}

/** neigh_del_timer - disarm, under neigh.lock. The caller has a reference of its own. */
export function neigh_del_timer(n: neighbour): void {
  if ((n.nud_state & NUD_IN_TIMER) !== 0 && del_timer(n.timer)) neigh_release(n)
}
/** neigh_add_timer - arm, under neigh.lock; a pending one is only moved (2.6.11 arms it twice: zoo 43). */
export function neigh_add_timer(n: neighbour, when: number): void {
  if (!mod_timer(n.timer, when | 0)) neigh_hold(n)
}

// ---- forgetting -----------------------------------------------------------------------------------------------------

/** The entries of one bucket that `goes` names leave the table; who refers to one keeps it alive. @locks tbl.lock is held */
function sweep(b: number, goes: (n: neighbour) => boolean): number {
  let slot = (arp_tbl.buckets >> 2) + b
  let gone = 0
  for (let n = NEIGH.at(i32[slot]); n !== null; ) {
    const next: neighbour | null = n.next
    if (goes(n)) {
      i32[slot] = next === null ? 0 : next.addr
      write_lock(n.lock)
      if ((n.nud_state & NUD_PERMANENT) === 0) fetch_add(ENTRIES, -1)
      neigh_del_timer(n)
      n.dead = 1
      n.nud_state = NUD_NONE
      write_unlock(n.lock)
      skb_queue_purge(n.arp_queue, UNRESOLVED) // nobody adds to that of a dead one
      neigh_release(n)
      gone++
    } else slot = n.$w
    n = next
  }
  return gone
}

/** Nobody refers to it, and it says nothing that could not be found out again. @locks tbl.lock is held for writing */
function unused(n: neighbour): boolean {
  return load(n.addr + REFCNT) === 1 && (n.nud_state & NUD_PERMANENT) === 0
}
function stale(n: neighbour): boolean {
  if ((n.nud_state & (NUD_PERMANENT | NUD_IN_TIMER)) !== 0) return false
  if (time_after(n.confirmed, n.used)) n.used = n.confirmed
  const kept = neigh_jiffies(neigh_parms_of(n).gc_staletime)
  return unused(n) && (n.nud_state === NUD_FAILED || time_after(jiffies(), n.used + kept))
}

/** neigh_forced_gc - room for new entries at any price. @locks tbl.lock @returns whether there is some */
function neigh_forced_gc(): boolean {
  let shrunk = 0
  write_lock_bh(arp_tbl.lock)
  for (let b = 0; b < BUCKETS; b++) shrunk += sweep(b, unused)
  arp_tbl.last_flush = jiffies()
  write_unlock_bh(arp_tbl.lock)
  return shrunk > 0
}

/** neigh_rand_reach_time - so that machines that were started together do not ask each other together. @locks tbl.lock */
export function neigh_rand_reach_time(parms: neigh_parms): void {
  arp_tbl.rand = (Math.imul(arp_tbl.rand, 1103515245) + 12345) | 0
  const base = parms.base_reachable_time
  parms.reachable_time = base === 0 ? 0 : (base >> 1) + ((arp_tbl.rand >>> 8) % base)
}

/** neigh_periodic_timer - a part of the buckets each second. @context timer @locks tbl.lock */
function neigh_periodic_timer(): void {
  write_lock_bh(arp_tbl.lock)
  if (time_after(jiffies(), arp_tbl.last_rand + 300 * hz())) {
    arp_tbl.last_rand = jiffies()
    for (let p: neigh_parms | null = arp_tbl.parms; p !== null; p = p.next) neigh_rand_reach_time(p)
  }
  for (let k = Math.ceil(BUCKETS / gc_round()); k > 0; k--) {
    sweep(arp_tbl.chain_gc, stale)
    arp_tbl.chain_gc = (arp_tbl.chain_gc + 1) & (BUCKETS - 1)
  }
  write_unlock_bh(arp_tbl.lock)
  mod_timer(arp_tbl.gc_timer, (jiffies() + hz()) | 0)
}
const neigh_periodic_timer_sym = symbol('neigh_periodic_timer', neigh_periodic_timer)

/** neigh_ifdown - forget the entries of a device, permanent ones too unless `skip_perm`. @context process @locks tbl.lock */
export function neigh_ifdown(dev: net_device, skip_perm = false): void {
  write_lock_bh(arp_tbl.lock)
  for (let b = 0; b < BUCKETS; b++) sweep(b, n => n.dev === dev && !(skip_perm && (n.nud_state & NUD_PERMANENT) !== 0))
  write_unlock_bh(arp_tbl.lock)
}

/** neigh_table_init - `ops`: the protocol's, `timer_func`: neigh_timer_handler. @context boot, CPU 0 */
export function neigh_table_init(rnd: number, ops: Sym<neigh_ops>, timer_func: Sym<(data: number) => void>): void {
  const { parms } = arp_tbl
  rwlock_init(arp_tbl.lock)
  arp_tbl.hash_rnd = rnd
  arp_tbl.rand = rnd
  arp_tbl.ops = ops
  arp_tbl.timer_func = timer_func
  parms.base_reachable_time = 30_000
  parms.retrans_time = 1000
  parms.gc_staletime = 60_000
  parms.delay_probe_time = 5000
  parms.queue_len = 3
  parms.ucast_probes = 3
  parms.app_probes = 0
  parms.mcast_probes = 3
  parms.anycast_delay = 1000
  parms.proxy_delay = 800
  parms.proxy_qlen = 64
  parms.locktime = 1000
  parms.next = null
  parms.dev = 0
  neigh_rand_reach_time(parms)
  arp_tbl.gc_thresh1 = NEIGH_GC_THRESH1
  arp_tbl.gc_thresh2 = NEIGH_GC_THRESH2
  arp_tbl.gc_thresh3 = NEIGH_GC_THRESH3
  arp_tbl.gc_interval = 30_000
  init_timer(arp_tbl.gc_timer, neigh_periodic_timer_sym, 0)
  mod_timer(arp_tbl.gc_timer, (jiffies() + hz()) | 0)
}
