/**
 * nud.ts - neighbour unreachability detection: how an entry of the table (neighbour.ts, which has the lock charter) gets its
 * station address, keeps it, is doubted and asked again, and fails.
 *
 *   NONE --packet--> INCOMPLETE --answer--> REACHABLE --time--> STALE --packet--> DELAY --time--> PROBE --no answer--> FAILED
 *
 *   2.6.11 keeps a function pointer for sending in each entry; here the state says it. The transmit path looks at it without
 *   the lock: to see it late is to send one packet more, or to ask once more.
 */
import { call, type Sym, symbol } from '../../abi/symbol.js'
import { fetch_add } from '../../arch/atomic.js'
import { cost } from '../../arch/cost.js'
import { charge_cost } from '../../arch/cpu.js'
import { hz } from '../../arch/machine.js'
import { RAM } from '../../arch/ram.js'
import { jiffies, time_after, time_after_eq } from '../../irq/timer.js'
import { EHOSTUNREACH, EINVAL, ENETDOWN, ENOMEM, EPERM } from '../../lib/errno.js'
import { call_rcu_bh, rcu_assign_pointer } from '../../rcu/rcupdate.js'
import {
  read_lock_bh,
  read_unlock_bh,
  write_lock,
  write_lock_bh,
  write_unlock,
  write_unlock_bh,
} from '../../sync/rwlock.js'
import { dev_queue_xmit } from './dev.js'
import { drop_reason } from './fate.js'
import {
  arp_tbl,
  BUCKETS,
  HA,
  NUD_CONNECTED,
  NUD_IN_TIMER,
  NUD_VALID,
  neigh_add_timer,
  neigh_counts,
  neigh_create_permanent,
  neigh_del_timer,
  neigh_ha_alloc,
  neigh_ha_free_sym,
  neigh_jiffies,
  type neigh_ops,
  neigh_parms_of,
  neigh_release,
  neigh_table_init,
} from './neighbour.js'
import { __skb_dequeue, __skb_queue_tail, skb_peek } from './skb_queue.js'
import { kfree_skb, skb_cow, skb_get, skb_push } from './skbuff.js'
import {
  NEIGH,
  NUD_DELAY,
  NUD_FAILED,
  NUD_INCOMPLETE,
  NUD_NOARP,
  NUD_PERMANENT,
  NUD_PROBE,
  NUD_REACHABLE,
  NUD_STALE,
  type neighbour,
  type net_device,
  type sk_buff,
} from './types.js'

const COST_RESOLVE = cost('neigh_resolve_output')

const dv = RAM.dv
const i32 = RAM.i32
const ETH_HLEN = 14
const HA_FIELD = NEIGH.offset('ha')
const PROBES = NEIGH.offset('probes')
const UNRESOLVED = drop_reason('neigh_unresolved')
const QUEUE_FULL = drop_reason('neigh_queue_full')
const NO_MEMORY = drop_reason('no_memory')

// flags of neigh_update
export const NEIGH_UPDATE_F_OVERRIDE = 0x1 // another address is believed
export const NEIGH_UPDATE_F_WEAK_OVERRIDE = 0x2 // it only makes the entry doubtful
export const NEIGH_UPDATE_F_ADMIN = 0x80000000 | 0 // the administrator says so

function ops(): neigh_ops {
  return call(arp_tbl.ops as Sym<neigh_ops>)
}

/** A new state. @locks neigh.lock is held for writing */
function set_state(n: neighbour, state: number): void {
  neigh_counts(n.nud_state, state)
  n.nud_state = state
}

function reachable_time(n: neighbour): number {
  return neigh_jiffies(neigh_parms_of(n).reachable_time)
}
function delay_probe_time(n: neighbour): number {
  return neigh_jiffies(neigh_parms_of(n).delay_probe_time)
}
function retrans_time(n: neighbour): number {
  return neigh_jiffies(neigh_parms_of(n).retrans_time)
}

/** Questions until it has failed. */
function neigh_max_probes(n: neighbour): number {
  const { ucast_probes, app_probes, mcast_probes } = neigh_parms_of(n)
  return (n.nud_state & NUD_PROBE) !== 0 ? ucast_probes : ucast_probes + app_probes + mcast_probes
}

/** What the clock does to an entry. @locks neigh.lock is held for writing @returns jiffies of the next look */
function grow_older(n: neighbour, now: number): number {
  const state = n.nud_state
  if ((state & NUD_REACHABLE) !== 0) {
    const until = (n.confirmed + reachable_time(n)) | 0
    if (time_after_eq(until, now)) return until
    const used = time_after_eq((n.used + delay_probe_time(n)) | 0, now)
    set_state(n, used ? NUD_DELAY : NUD_STALE)
    return now + delay_probe_time(n)
  }
  if ((state & NUD_DELAY) !== 0) {
    if (time_after_eq((n.confirmed + delay_probe_time(n)) | 0, now)) {
      set_state(n, NUD_REACHABLE)
      return n.confirmed + reachable_time(n)
    }
    set_state(n, NUD_PROBE)
    n.probes = 0
  }
  return now + retrans_time(n)
}

/** Nobody answered: those who wait are told, one by one, with the lock open, for they may come back here. */
function fail(n: neighbour): void {
  set_state(n, NUD_FAILED)
  n.updated = jiffies()
  for (let skb = __skb_dequeue(n.arp_queue); skb !== null; skb = __skb_dequeue(n.arp_queue)) {
    const failed = n.nud_state === NUD_FAILED
    write_unlock(n.lock)
    if (failed) ops().error_report(n, skb)
    else kfree_skb(skb, UNRESOLVED)
    write_lock(n.lock)
  }
}

/** neigh_timer_handler - @context timer @locks neigh.lock @consumes the timer's reference */
function neigh_timer_handler(addr: number): void {
  const n = NEIGH.ref(addr)
  let skb: sk_buff | null = null
  let asks = false
  write_lock(n.lock)
  if ((n.nud_state & NUD_IN_TIMER) !== 0 && n.dead === 0) {
    const now = jiffies()
    const next = grow_older(n, now)
    if ((n.nud_state & (NUD_INCOMPLETE | NUD_PROBE)) !== 0 && n.probes >= neigh_max_probes(n)) fail(n)
    if ((n.nud_state & NUD_IN_TIMER) !== 0)
      neigh_add_timer(n, time_after(now + (hz() >> 1), next) ? now + (hz() >> 1) : next)
    asks = (n.nud_state & (NUD_INCOMPLETE | NUD_PROBE)) !== 0
    if (asks) {
      const first = skb_peek(n.arp_queue)
      if (first !== null) skb = skb_get(first) // the queue may lose it meanwhile
    }
  }
  write_unlock(n.lock)
  if (asks) {
    ops().solicit(n, skb)
    fetch_add(n.addr + PROBES, 1)
    if (skb !== null) kfree_skb(skb, QUEUE_FULL)
  }
  neigh_release(n)
}
const neigh_timer_handler_sym = symbol('neigh_timer_handler', neigh_timer_handler)

// ---- sending --------------------------------------------------------------------------------------------------------

/**
 * __neigh_event_send - somebody wants to send: may he?
 * @context process, softirq @locks neigh.lock @consumes skb unless it returns 0
 * @returns 0: yes; 1: the packet waits for the answer; -ENETDOWN, -EHOSTUNREACH: it is freed
 */
function __neigh_event_send(n: neighbour, skb: sk_buff | null): number {
  write_lock_bh(n.lock)
  if (n.dead !== 0) {
    write_unlock_bh(n.lock) // neigh_blackhole
    if (skb !== null) kfree_skb(skb, UNRESOLVED)
    return -ENETDOWN
  }
  const state = n.nud_state
  if ((state & (NUD_CONNECTED | NUD_DELAY | NUD_PROBE)) !== 0) {
    write_unlock_bh(n.lock)
    return 0
  }
  if ((state & NUD_STALE) !== 0) {
    set_state(n, NUD_DELAY)
    neigh_add_timer(n, jiffies() + delay_probe_time(n))
    write_unlock_bh(n.lock)
    return 0
  }
  if ((state & NUD_INCOMPLETE) === 0) {
    const { ucast_probes, app_probes, mcast_probes } = neigh_parms_of(n)
    if (mcast_probes + app_probes === 0) {
      set_state(n, NUD_FAILED)
      write_unlock_bh(n.lock)
      if (skb !== null) ops().error_report(n, skb) // 2.6.11 tells nobody
      return -EHOSTUNREACH
    }
    n.probes = ucast_probes
    set_state(n, NUD_INCOMPLETE)
    neigh_add_timer(n, jiffies() + 1)
  }
  let oldest: sk_buff | null = null
  if (skb !== null && n.arp_queue.qlen >= neigh_parms_of(n).queue_len) oldest = __skb_dequeue(n.arp_queue)
  if (skb !== null) __skb_queue_tail(n.arp_queue, skb)
  write_unlock_bh(n.lock)
  if (oldest !== null) kfree_skb(oldest, QUEUE_FULL)
  return 1
}

/** neigh_event_send - ask for its address, though there is no packet for it yet. @context process, softirq @locks neigh.lock */
export function neigh_event_send(n: neighbour): void {
  if ((n.nud_state & (NUD_CONNECTED | NUD_DELAY | NUD_PROBE)) === 0) __neigh_event_send(n, null)
}

/**
 * neigh_resolve_output - build the Ethernet header and send; or wait for the address.
 * @context process, softirq; no lock held @consumes skb @returns 0, -ENETDOWN, -EHOSTUNREACH, -ENOMEM, or what the queue says
 */
export function neigh_resolve_output(neigh: neighbour, skb: sk_buff): number {
  charge_cost(COST_RESOLVE)
  if ((neigh.nud_state & NUD_CONNECTED) === 0) {
    neigh.used = jiffies()
    const wait = (neigh.nud_state & (NUD_DELAY | NUD_PROBE)) === 0 ? __neigh_event_send(neigh, skb) : 0
    if (wait !== 0) return Math.min(wait, 0)
  }
  const { ha } = neigh
  if (ha === 0 || (skb.data - skb.head < ETH_HLEN && skb_cow(skb, ETH_HLEN + 2) !== 0)) {
    kfree_skb(skb, ha === 0 ? UNRESOLVED : NO_MEMORY)
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

/** neigh_confirm - there is proof that it is there, such as an answer of its application. @context any */
export function neigh_confirm(neigh: neighbour | null): void {
  if (neigh !== null) neigh.confirmed = jiffies()
}

// ---- what is learned ------------------------------------------------------------------------------------------------

/** Is it the address that the entry has? */
function same_ha(n: neighbour, hi: number, lo: number): boolean {
  return n.ha !== 0 && i32[n.ha >> 2] === hi && i32[(n.ha >> 2) + 1] === lo
}

/** Another address, or -ENOMEM and the old one. @locks neigh.lock is held for writing */
function set_ha(n: neighbour, hi: number, lo: number): number {
  const ha = neigh_ha_alloc(hi, lo)
  if (ha === 0) return -ENOMEM
  const old = n.ha
  rcu_assign_pointer(n.addr + HA_FIELD, ha)
  if (old !== 0) call_rcu_bh(HA.ref(old).rcu, neigh_ha_free_sym)
  return 0
}

/**
 * neigh_update - something was learned of an entry: a new state, and a station address unless `hi` is null.
 * @context process, softirq @locks neigh.lock; the caller has a reference
 * @returns 0; -EPERM: only the administrator changes this one; -EINVAL: valid, but with what address? -ENOMEM
 */
export function neigh_update(n: neighbour, hi: number | null, lo: number, state: number, flags: number): number {
  write_lock_bh(n.lock)
  const err = update(n, hi, lo, state, flags)
  // Those who waited go, one by one, with the lock open. It may be lost again meanwhile.
  for (let skb = next_waiting(n); skb !== null; skb = next_waiting(n)) {
    write_unlock_bh(n.lock)
    neigh_resolve_output(skb.dst?.neighbour ?? n, skb)
    write_lock_bh(n.lock)
  }
  write_unlock_bh(n.lock)
  return err
}

function next_waiting(n: neighbour): sk_buff | null {
  return (n.nud_state & NUD_VALID) !== 0 && n.arp_queue.qlen > 0 ? __skb_dequeue(n.arp_queue) : null
}

function update(n: neighbour, hi: number | null, lo: number, to: number, flags: number): number {
  const old = n.nud_state
  if ((flags & NEIGH_UPDATE_F_ADMIN) === 0 && (old & (NUD_NOARP | NUD_PERMANENT)) !== 0) return -EPERM
  if (n.dead !== 0) return -EINVAL
  if ((to & NUD_VALID) === 0) {
    neigh_del_timer(n)
    set_state(n, to)
    return 0
  }
  const valid = (old & NUD_VALID) !== 0
  if (hi === null && !valid) return -EINVAL
  const same = hi === null || (valid && same_ha(n, hi, lo))
  if ((to & NUD_CONNECTED) !== 0) n.confirmed = jiffies()
  n.updated = jiffies()
  let state = to
  let changes = !same
  if (valid && !same && (flags & NEIGH_UPDATE_F_OVERRIDE) === 0) {
    if ((flags & NEIGH_UPDATE_F_WEAK_OVERRIDE) === 0 || (old & NUD_CONNECTED) === 0) return 0
    state = NUD_STALE
    changes = false
  } else if (
    valid &&
    same &&
    to === NUD_STALE &&
    ((flags & NEIGH_UPDATE_F_WEAK_OVERRIDE) !== 0 || (old & NUD_CONNECTED) !== 0)
  )
    state = old
  // The address first: who sees the state without the lock finds it.
  if (changes && set_ha(n, hi!, lo) !== 0) return -ENOMEM
  if (changes && (state & NUD_CONNECTED) === 0)
    n.confirmed = (jiffies() - 2 * neigh_jiffies(neigh_parms_of(n).base_reachable_time)) | 0
  if (state !== old) {
    neigh_del_timer(n)
    if ((state & NUD_IN_TIMER) !== 0)
      neigh_add_timer(n, jiffies() + ((state & NUD_REACHABLE) !== 0 ? reachable_time(n) : 0))
    set_state(n, state)
  }
  return 0
}

/** neigh_add_permanent - `ip neigh replace KEY lladdr .. nud permanent`. @context process @returns 0, -ENOMEM */
export function neigh_add_permanent(key: number, dev: net_device, hi: number, lo: number): number {
  const n = neigh_create_permanent(key, dev, hi, lo)
  if (n === null) return -ENOMEM
  const err = neigh_update(n, hi, lo, NUD_PERMANENT, NEIGH_UPDATE_F_OVERRIDE | NEIGH_UPDATE_F_ADMIN)
  neigh_release(n)
  return err
}

/** neigh_for_each - for the list of them. @locks tbl.lock for reading is held around f */
export function neigh_for_each(f: (n: neighbour) => void): void {
  read_lock_bh(arp_tbl.lock)
  for (let b = 0; b < BUCKETS; b++) for (let n = NEIGH.at(i32[(arp_tbl.buckets >> 2) + b]); n !== null; n = n.next) f(n)
  read_unlock_bh(arp_tbl.lock)
}

/** neigh_init - @context boot, CPU 0 */
export function neigh_init(rnd: number, protocol: Sym<neigh_ops>): void {
  neigh_table_init(rnd, protocol, neigh_timer_handler_sym)
}
