/**
 * neighbour.ts - who is on the link: IPv4 addresses to station addresses. Entries are permanent for now (no resolution).
 *
 * Lock charter
 *   tbl.lock guards the hash chains: lookups read; creation and the collectors write. Who holds it for writing and sees one
 *   reference, the table's, is alone with the entry. neigh.lock guards state and hardware address.
 *   Order: tbl.lock before neigh.lock. Both with bottom halves off. Nothing that can come back here is called under them.
 *   The transmit path reads the hardware address without neigh.lock. So it lies apart and is never changed: another address
 *   is another neigh_ha, published atomically, and the old one is freed after a grace period of rcu_bh. A reader sees all
 *   of the old address or all of the new one.
 */

import { atomic, by, bytes, embed, konst, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { fetch_add, load } from '../../arch/atomic.js'
import { cost } from '../../arch/cost.js'
import { charge_cost } from '../../arch/cpu.js'
import { hz } from '../../arch/machine.js'
import { RAM } from '../../arch/ram.js'
import { init_timer, jiffies, mod_timer, TIMER, time_after, type timer_list } from '../../irq/timer.js'
import { EHOSTUNREACH, ENOMEM } from '../../lib/errno.js'
import { jhash_2words } from '../../lib/jhash.js'
import { MAX_NEIGHBOURS, NEIGH_GC_THRESH2, NEIGH_GC_THRESH3 } from '../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import { call_rcu_bh, RCU_HEAD, rcu_assign_pointer, type rcu_head } from '../../rcu/rcupdate.js'
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
import { dev_queue_xmit } from './dev.js'
import { dst_link_failure } from './dst.js'
import { drop_reason } from './fate.js'
import { dev_hold, dev_put } from './netdevice.js'
import { kfree_skb, skb_cow, skb_push } from './skbuff.js'
import {
  NEIGH,
  NUD_NOARP,
  NUD_NONE,
  NUD_PERMANENT,
  NUD_REACHABLE,
  type neighbour,
  type net_device,
  type sk_buff,
} from './types.js'

const COST_RESOLVE = cost('neigh_resolve_output')

const dv = RAM.dv
const i32 = RAM.i32
const BUCKETS = 1024
const REFCNT = NEIGH.offset('refcnt')
const UNRESOLVED = drop_reason('neigh_unresolved')
const NO_MEMORY = drop_reason('no_memory')
const ETH_HLEN = 14
// seconds: how long an unused entry is kept, and once round the buckets
const gc_staletime = 60
const gc_round = 15
export const NUD_CONNECTED = NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE

const neigh_cache = kmem_cache_create('arp_cache', NEIGH, () => MAX_NEIGHBOURS)

/** A hardware address, as in net_device. */
class neigh_ha extends Struct {
  declare hi: number
  declare lo: number
  declare rcu: rcu_head
}
const HA: Layout<neigh_ha> = layout('neigh_ha', neigh_ha, { hi: konst(word), lo: konst(word), rcu: embed(RCU_HEAD) })
/** One for each neighbour, and some that wait for their grace period. */
const ha_cache = kmem_cache_create('neigh_ha', HA, () => MAX_NEIGHBOURS + 512)
const HA_FIELD = NEIGH.offset('ha')

class neigh_table extends Struct {
  declare lock: rwlock_t
  declare entries: number
  declare hash_rnd: number
  declare last_flush: number
  declare chain_gc: number
  declare gc_timer: timer_list
  declare buckets: number
}
const TABLE: Layout<neigh_table> = layout('neigh_table', neigh_table, {
  lock: embed(RWLOCK),
  entries: atomic(word), // that are not permanent
  hash_rnd: word,
  last_flush: by('lock', word), // jiffies of the last forced collection
  chain_gc: by('lock', word), // bucket that the periodic collector looks at next
  gc_timer: embed(TIMER),
  buckets: by('lock', bytes(BUCKETS * 4)),
})
export const arp_tbl = DEFINE_STATIC('arp_tbl', TABLE)
const ENTRIES = arp_tbl.addr + TABLE.offset('entries')

function bucket(key: number, dev: net_device): number {
  return (arp_tbl.buckets >> 2) + (jhash_2words(key, dev.ifindex, arp_tbl.hash_rnd) & (BUCKETS - 1))
}

/** neigh_release - @consumes a reference; the last one frees the entry */
export function neigh_release(neigh: neighbour): void {
  if (!refcount_dec_and_test(neigh.addr + REFCNT)) return
  dev_put(neigh.dev!)
  if (neigh.ha !== 0) kmem_cache_free(ha_cache, HA.ref(neigh.ha)) // who reads it has a reference
  kmem_cache_free(neigh_cache, neigh)
}
export function neigh_hold(neigh: neighbour): void {
  refcount_inc(neigh.addr + REFCNT)
}

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
  const full = entries >= NEIGH_GC_THRESH3
  const many = entries >= NEIGH_GC_THRESH2 && time_after(jiffies(), arp_tbl.last_flush + 5 * hz())
  const n = (full || many) && !neigh_forced_gc() && full ? null : kmem_cache_alloc(neigh_cache)
  if (n === null) fetch_add(ENTRIES, -1)
  return n
}

/** neigh_create - a new entry in state NONE, or the one that another CPU was faster with. @returns referenced, or null */
export function neigh_create(key: number, dev: net_device): neighbour | null {
  return create(key, dev, 0, NUD_NONE)
}

/** __neigh_lookup_noarp - find or create one whose address follows from its kind, and who is never asked for it. */
export function __neigh_lookup_noarp(key: number, dev: net_device, hi: number, lo: number): neighbour | null {
  const known = neigh_lookup(key, dev)
  if (known !== null) return known
  const ha = kmem_cache_alloc(ha_cache)
  if (ha === null) return null
  ha.hi = hi
  ha.lo = lo
  const n = create(key, dev, ha.addr, NUD_NOARP)
  if (n === null || n.ha !== ha.addr) kmem_cache_free(ha_cache, ha)
  return n
}

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
  n.confirmed = n.used
  n.updated = n.used
  rwlock_init(n.lock)
  write_lock_bh(arp_tbl.lock)
  const other = find(key, dev)
  if (other !== null) {
    neigh_hold(other)
    write_unlock_bh(arp_tbl.lock)
    if (!permanent) fetch_add(ENTRIES, -1)
    kmem_cache_free(neigh_cache, n)
    return other
  }
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

/** neigh_add_permanent - `ip neigh replace KEY lladdr .. nud permanent`. @context process @returns 0, -ENOMEM */
export function neigh_add_permanent(key: number, dev: net_device, hi: number, lo: number): number {
  const ha = kmem_cache_alloc(ha_cache)
  if (ha === null) return -ENOMEM
  ha.hi = hi
  ha.lo = lo
  const n = neigh_lookup(key, dev) ?? create(key, dev, ha.addr, NUD_PERMANENT)
  if (n === null) {
    kmem_cache_free(ha_cache, ha)
    return -ENOMEM
  }
  write_lock_bh(n.lock)
  const old = n.ha
  rcu_assign_pointer(n.addr + HA_FIELD, ha.addr)
  if ((n.nud_state & NUD_PERMANENT) === 0) fetch_add(ENTRIES, -1)
  n.nud_state = NUD_PERMANENT
  n.updated = jiffies()
  write_unlock_bh(n.lock)
  if (old !== 0 && old !== ha.addr) call_rcu_bh(HA.ref(old).rcu, neigh_ha_free_sym)
  neigh_release(n)
  return 0
}

function neigh_ha_free(head: number): void {
  kmem_cache_free(ha_cache, HA.container_of('rcu', head))
}
const neigh_ha_free_sym = symbol('neigh_ha_free', neigh_ha_free)

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
      n.dead = 1
      n.nud_state = NUD_NONE
      write_unlock(n.lock)
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
  return unused(n) && time_after(jiffies(), n.used + gc_staletime * hz())
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

/** neigh_periodic_timer - a part of the buckets each second. @context timer @locks tbl.lock */
function neigh_periodic_timer(): void {
  write_lock_bh(arp_tbl.lock)
  for (let k = Math.ceil(BUCKETS / gc_round); k > 0; k--) {
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

// ---- sending --------------------------------------------------------------------------------------------------------

/** neigh_event_send - can it be sent to, once nobody is changing it? @locks neigh.lock @returns address of its neigh_ha, or 0 */
function neigh_event_send(neigh: neighbour): number {
  read_lock_bh(neigh.lock)
  neigh.used = jiffies()
  const ha = (neigh.nud_state & NUD_CONNECTED) !== 0 ? neigh.ha : 0
  read_unlock_bh(neigh.lock)
  return ha
}

/**
 * Nobody resolves addresses yet, so NONE is as good as FAILED: the sender is told, but for an entry that went with its
 * device (neigh_blackhole). No lock is held. @consumes skb
 */
function neigh_error(neigh: neighbour, skb: sk_buff): number {
  if (neigh.dead === 0) dst_link_failure(skb)
  kfree_skb(skb, UNRESOLVED)
  return -EHOSTUNREACH
}

/**
 * neigh_resolve_output - build the Ethernet header and send. Without a usable entry the packet is dropped and its sender
 * told. @context process, softirq; no lock held @consumes skb
 */
export function neigh_resolve_output(neigh: neighbour, skb: sk_buff): number {
  charge_cost(COST_RESOLVE)
  let { ha } = neigh
  if ((neigh.nud_state & NUD_CONNECTED) === 0 || ha === 0) {
    ha = neigh_event_send(neigh)
    if (ha === 0) return neigh_error(neigh, skb)
  }
  if (skb.data - skb.head < ETH_HLEN && skb_cow(skb, ETH_HLEN + 2) !== 0) {
    kfree_skb(skb, NO_MEMORY)
    return -ENOMEM
  }
  const dev = neigh.dev!
  const at = skb_push(skb, ETH_HLEN)
  dv.setInt32(at, i32[ha >> 2])
  dv.setInt16(at + 4, i32[(ha >> 2) + 1])
  dv.setInt32(at + 6, dev.dev_addr_hi)
  dv.setInt16(at + 10, dev.dev_addr_lo)
  dv.setInt16(at + 12, skb.protocol)
  skb.mac = at
  skb.dev = dev
  return dev_queue_xmit(skb)
}

/** neigh_init - @context boot, CPU 0 */
export function neigh_init(rnd: number): void {
  rwlock_init(arp_tbl.lock)
  arp_tbl.hash_rnd = rnd
  init_timer(arp_tbl.gc_timer, neigh_periodic_timer_sym, 0)
  mod_timer(arp_tbl.gc_timer, (jiffies() + hz()) | 0)
}
