/**
 * xfrm_policy.ts - the security policy database, and what it says of a packet (net/xfrm/xfrm_policy.c of 2.6.11, without its
 * flow cache: each packet walks the list of its direction).
 *
 * Lock charter
 *   xfrm_policy_lock (rwlock, bottom halves off) guards the lists. A policy's own lock guards its bundles, its counters and
 *   whether it is dead; it is never held around another lock but netlink's. A policy in a list is referenced by it, and by its
 *   pending timer. The bundles of a policy are not referenced by it: a bundle is freed when it is taken off and nobody else
 *   refers to it (dst_free). Nothing of xfrm_state.ts is called under either lock.
 */
import { atomic, bytes, embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call, type Sym, symbol } from '../../abi/symbol.js'
import { load, READ_ONCE, store } from '../../arch/atomic.js'
import { BUG_ON } from '../../arch/cpu.js'
import { hz } from '../../arch/machine.js'
import { RAM } from '../../arch/ram.js'
import { del_timer, init_timer, jiffies, mod_timer } from '../../irq/timer.js'
import { EAGAIN, EEXIST, EINVAL, EPERM } from '../../lib/errno.js'
import { kfree, kmalloc } from '../../mm/kmalloc.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { refcount_dec_and_test, refcount_inc } from '../../sync/refcount.js'
import {
  RWLOCK,
  read_lock_bh,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../../sync/rwlock.js'
import { spin_lock_init } from '../../sync/spinlock.js'
import { dst_free, dst_hold, dst_release } from '../core/dst.js'
import { DST, DST_NOPOLICY, DST_NOXFRM, type dst_entry, type sk_buff } from '../core/types.js'
import {
  CUR_ADD_TIME,
  CUR_USE_TIME,
  type Flow,
  LFT_HARD_ADD,
  LFT_HARD_BYTES,
  LFT_HARD_PACKETS,
  LFT_HARD_USE,
  LFT_SOFT_ADD,
  LFT_SOFT_BYTES,
  LFT_SOFT_PACKETS,
  LFT_SOFT_USE,
  POLICY,
  STATE,
  XFRM_INF,
  XFRM_MODE_TUNNEL,
  XFRM_POLICY_BLOCK,
  XFRM_POLICY_MAX,
  XFRM_POLICY_OUT,
  XFRM_STATE_VALID,
  type xfrm_policy,
  type xfrm_selector,
  type xfrm_state,
} from './types.js'
import { xfrm_km, xfrm_time } from './xfrm_km.js'
import { xfrm_selector_match } from './xfrm_selector.js'
import { xfrm_state_find, xfrm_state_on_delete, xfrm_state_put } from './xfrm_state.js'
import { sec_path_states, xfrm_policy_satisfied, xfrm_tmpl_of } from './xfrm_tmpl.js'

const i32 = RAM.i32
const f64 = RAM.f64

class xfrm_spd extends Struct {
  declare lists: number
  declare lock: rwlock_t
  declare afinfo: number
  declare index: number
}
const SPD: Layout<xfrm_spd> = layout('xfrm_spd', xfrm_spd, {
  lists: atomic(bytes(XFRM_POLICY_MAX * 4)), // changed under the lock; every packet looks at one word without it
  lock: embed(RWLOCK),
  afinfo: word,
  index: word,
})
const spd = DEFINE_STATIC('xfrm_spd', SPD)
const LISTS = spd.lists
const REFCNT = POLICY.offset('refcnt')

/** What IPv4 does for the framework (struct xfrm_policy_afinfo). */
export interface xfrm_policy_afinfo {
  /** What a packet is, for selectors. @returns false: its headers are not there */
  decode_session(skb: sk_buff, fl: Flow): boolean
  /** The states (references are the bundle's from here on, if it is made) in front of a route. @returns address of a dst with one reference, -errno */
  bundle_create(states: xfrm_state[], route: dst_entry, fl: Flow): number
  /** May a bundle be used for this flow and these states still? */
  bundle_ok(bundle: dst_entry, states: readonly xfrm_state[], route: dst_entry, fl: Flow): boolean
}
/** xfrm_policy_register_afinfo - @context boot */
export function xfrm_policy_register_afinfo(afinfo: Sym<xfrm_policy_afinfo>): void {
  spd.afinfo = afinfo
}

// ---- life -----------------------------------------------------------------------------------------------------------

/** xfrm_policy_alloc - @returns a policy with one reference, or null */
export function xfrm_policy_alloc(): xfrm_policy | null {
  const at = kmalloc(POLICY.size)
  if (at === 0) return null
  const policy = POLICY.ref(at)
  spin_lock_init(policy.lock)
  policy.refcnt = 1
  const l = policy.lft >> 3
  for (const limit of [LFT_SOFT_BYTES, LFT_HARD_BYTES, LFT_SOFT_PACKETS, LFT_HARD_PACKETS]) f64[l + limit] = XFRM_INF
  f64[l + CUR_ADD_TIME] = xfrm_time()
  init_timer(policy.timer, xfrm_policy_timer_sym, at)
  return policy
}
export function xfrm_pol_hold(policy: xfrm_policy): void {
  refcount_inc(policy.addr + REFCNT)
}
/** xfrm_pol_put - @context any but hardirq @consumes a reference */
export function xfrm_pol_put(policy: xfrm_policy): void {
  if (!refcount_dec_and_test(policy.addr + REFCNT)) return
  BUG_ON(policy.bundles !== 0, 'xfrm_policy freed with bundles')
  kfree(policy.addr)
}
/** xfrm_policy_kill - it is off its list: its bundles go. @consumes the list's reference */
function xfrm_policy_kill(policy: xfrm_policy): void {
  spin_lock_bh(policy.lock)
  policy.dead = 1
  const bundles = policy.bundles
  policy.bundles = 0
  const pending = del_timer(policy.timer)
  spin_unlock_bh(policy.lock)
  free_bundles(bundles)
  if (pending) xfrm_pol_put(policy)
  xfrm_pol_put(policy)
}
function free_bundles(first: number): void {
  for (let dst = DST.at(first); dst !== null; ) {
    const { next }: dst_entry = dst
    dst_free(dst)
    dst = next
  }
}
/** Seconds until a limit of time; one that nobody has used is as old as if it had been used when it was added. */
function left(l: number, limit: number, since: number): number {
  return f64[l + limit] === 0 ? Infinity : f64[l + limit]! + (f64[l + since]! || f64[l + CUR_ADD_TIME]!) - xfrm_time()
}
function arm(policy: xfrm_policy, seconds: number): void {
  const after = Math.min(Math.max(seconds, 1), 86_400) * hz()
  if (!mod_timer(policy.timer, (jiffies() + after) | 0)) xfrm_pol_hold(policy)
}
const XFRM_KM_TIMEOUT = 30
/** xfrm_policy_timer - limits of time: the soft ones are told of again and again. @context softirq */
function xfrm_policy_timer(addr: number): void {
  const policy = POLICY.ref(addr)
  const l = policy.lft >> 3
  spin_lock_bh(policy.lock)
  const end = Math.min(left(l, LFT_HARD_ADD, CUR_ADD_TIME), left(l, LFT_HARD_USE, CUR_USE_TIME))
  const warn = [left(l, LFT_SOFT_ADD, CUR_ADD_TIME), left(l, LFT_SOFT_USE, CUR_USE_TIME)]
  const over = policy.dead === 0 && end <= 0
  if (policy.dead === 0 && !over) {
    if (Math.min(...warn) <= 0) xfrm_km()?.policy_expired(policy, false)
    const next = Math.min(end, ...warn.map(after => (after <= 0 ? XFRM_KM_TIMEOUT : after)))
    if (next !== Infinity) arm(policy, next)
  }
  spin_unlock_bh(policy.lock)
  if (over && xfrm_policy_delete(policy)) {
    spin_lock_bh(policy.lock) // packets that have it still use it
    xfrm_km()?.policy_expired(policy, true)
    spin_unlock_bh(policy.lock)
  }
  xfrm_pol_put(policy)
}
const xfrm_policy_timer_sym = symbol('xfrm_policy_timer', xfrm_policy_timer)

// ---- the lists ------------------------------------------------------------------------------------------------------

function same(a: xfrm_selector, b: xfrm_selector): boolean {
  for (let k = 0; k < a_words; k++) if (i32[a.$w + k] !== i32[b.$w + k]) return false
  return true
}
const a_words = 10 // all but user and family

/**
 * xfrm_policy_insert - by priority, behind those of the same; one with the same selector is replaced unless `excl`.
 * The bundles of all policies of the direction behind it go, since it may be for their packets. @context process
 * @consumes policy, unless it fails @returns 0, -EEXIST
 */
export function xfrm_policy_insert(dir: number, policy: xfrm_policy, excl: boolean): number {
  write_lock_bh(spd.lock)
  let slot = LISTS + dir * 4
  let old: xfrm_policy | null = null
  let place = 0
  for (let p = POLICY.at(i32[slot >> 2]!); p !== null; p = POLICY.at(p.next)) {
    if (old === null && same(p.sel, policy.sel)) {
      if (excl) {
        write_unlock_bh(spd.lock)
        return -EEXIST
      }
      old = p
    }
    if (place === 0 && p.priority >>> 0 > policy.priority >>> 0) place = slot
    slot = p.addr + NEXT
  }
  if (place === 0) place = slot
  if (policy.index === 0) policy.index = old !== null ? old.index : next_index(dir)
  policy.dir = dir
  policy.next = i32[place >> 2]!
  store(place, policy.addr)
  // Only now: 2.6.11 takes the old one out first, and a packet that looks then, without the lock, finds no policy and goes in clear.
  if (old !== null) unlink(dir, old)
  const l = policy.lft >> 3
  const ends = [LFT_HARD_ADD, LFT_HARD_USE, LFT_SOFT_ADD, LFT_SOFT_USE].some(limit => f64[l + limit] !== 0)
  if (ends) {
    spin_lock_bh(policy.lock)
    arm(policy, 1)
    spin_unlock_bh(policy.lock)
  }
  write_unlock_bh(spd.lock)
  if (old !== null) xfrm_policy_kill(old)
  if (dir === XFRM_POLICY_OUT) xfrm_flush_bundles()
  return 0
}
const NEXT = POLICY.offset('next')

/** An index tells its direction by its last three bits. @locks xfrm_policy_lock is held */
function next_index(dir: number): number {
  spd.index = (spd.index + 8) | 0 || 8
  return spd.index | dir
}
/** @locks xfrm_policy_lock is held @returns it was there */
function unlink(dir: number, policy: xfrm_policy): boolean {
  let slot = LISTS + dir * 4
  while (i32[slot >> 2] !== 0 && i32[slot >> 2] !== policy.addr) slot = i32[slot >> 2]! + NEXT
  if (i32[slot >> 2] === 0) return false
  store(slot, policy.next)
  return true
}
/** xfrm_policy_delete - @context process, softirq @locks takes xfrm_policy_lock @returns false: it was gone */
export function xfrm_policy_delete(policy: xfrm_policy): boolean {
  write_lock_bh(spd.lock)
  const there = unlink(policy.dir, policy)
  write_unlock_bh(spd.lock)
  if (there) xfrm_policy_kill(policy)
  return there
}

/** xfrm_policy_all - every policy of a direction, each with one more reference. @context process */
export function xfrm_policy_all(dir: number): xfrm_policy[] {
  const all: xfrm_policy[] = []
  read_lock_bh(spd.lock)
  for (let p = POLICY.at(i32[(LISTS >> 2) + dir]!); p !== null; p = POLICY.at(p.next)) {
    xfrm_pol_hold(p)
    all.push(p)
  }
  read_unlock_bh(spd.lock)
  return all
}
/** xfrm_policy_find - by selector or by index. @returns it with one more reference, or null */
export function xfrm_policy_find(dir: number, index: number, sel: xfrm_selector): xfrm_policy | null {
  read_lock_bh(spd.lock)
  let p = POLICY.at(i32[(LISTS >> 2) + dir]!)
  while (p !== null && (index !== 0 ? p.index !== index : !same(p.sel, sel))) p = POLICY.at(p.next)
  if (p !== null) xfrm_pol_hold(p)
  read_unlock_bh(spd.lock)
  return p
}
/** xfrm_policy_flush - all of them. @context process, or a halted machine */
export function xfrm_policy_flush(): void {
  for (let dir = 0; dir < XFRM_POLICY_MAX; dir++)
    for (const policy of xfrm_policy_all(dir)) {
      xfrm_policy_delete(policy)
      xfrm_pol_put(policy)
    }
}
/** xfrm_flush_bundles - of all policies for what goes out: another policy may be for their packets now, or their way is gone. @context process */
export function xfrm_flush_bundles(): void {
  drop_bundles(() => true)
}
/** xfrm_prune_bundles - those that nobody can use. @context process, softirq */
function xfrm_prune_bundles(): void {
  drop_bundles(stale_bundle)
}
const xfrm_prune_bundles_sym = symbol('xfrm_prune_bundles', xfrm_prune_bundles)
function drop_bundles(which: (dst: dst_entry) => boolean): void {
  for (const policy of xfrm_policy_all(XFRM_POLICY_OUT)) {
    spin_lock_bh(policy.lock)
    const bundles = take_bundles(policy, which)
    spin_unlock_bh(policy.lock)
    free_bundles(bundles)
    xfrm_pol_put(policy)
  }
}
/** @locks the policy's is held @returns address of the first of a list, 0: none */
function take_bundles(policy: xfrm_policy, which: (dst: dst_entry) => boolean): number {
  let taken = 0
  for (let slot = policy.addr + BUNDLES; i32[slot >> 2] !== 0; ) {
    const dst = DST.ref(i32[slot >> 2]!)
    if (!which(dst)) {
      slot = dst.addr
      continue
    }
    i32[slot >> 2] = i32[dst.$w]!
    i32[dst.$w] = taken
    taken = dst.addr
  }
  return taken
}
const BUNDLES = POLICY.offset('bundles')
/** One of its states has ended, or its route. */
function stale_bundle(bundle: dst_entry): boolean {
  if (bundle.path === null || bundle.path.obsolete !== 0) return true
  for (let dst: dst_entry | null = bundle; dst !== null && dst.xfrm !== 0; dst = dst.child)
    if (STATE.ref(dst.xfrm).state !== XFRM_STATE_VALID) return true
  return false
}

/** xfrm_policies - is there any policy of the direction? All that a packet pays where there is none. */
export function xfrm_policies(dir: number): boolean {
  return READ_ONCE(LISTS + dir * 4) !== 0
}
/** The first one that a flow is meant by, in use from now. @returns it with one more reference, or null */
function xfrm_policy_lookup(dir: number, fl: Flow): xfrm_policy | null {
  read_lock_bh(spd.lock)
  let p = POLICY.at(load(LISTS + dir * 4))
  while (p !== null && !xfrm_selector_match(p.sel, fl)) p = POLICY.at(p.next)
  if (p !== null) xfrm_pol_hold(p)
  read_unlock_bh(spd.lock)
  return p
}
function used(policy: xfrm_policy): void {
  spin_lock_bh(policy.lock)
  f64[(policy.lft >> 3) + CUR_USE_TIME] = xfrm_time()
  spin_unlock_bh(policy.lock)
}

// ---- what goes out --------------------------------------------------------------------------------------------------

/** xfrm_tmpl_resolve - the states that a policy asks for, each with a reference. @returns 0, -errno */
function xfrm_tmpl_resolve(policy: xfrm_policy, fl: Flow, states: xfrm_state[]): number {
  let { daddr, saddr } = fl
  for (let k = 0; k < policy.xfrm_nr; k++) {
    const t = xfrm_tmpl_of(policy, k)
    if (t.mode === XFRM_MODE_TUNNEL) {
      daddr = t.daddr
      saddr = t.saddr
    }
    const found = xfrm_state_find(daddr, saddr, fl, t, policy)
    if (found > 0) states.push(STATE.ref(found))
    else if (t.optional === 0) {
      for (const x of states.splice(0)) xfrm_state_put(x)
      return found
    }
  }
  return 0
}

/** Their list is policy.lock's, not RCU's, which the same field serves in the route cache. */
function next_bundle(dst: dst_entry): dst_entry | null {
  return DST.at(i32[dst.$w]!)
}

/** A bundle of a policy that still serves. @returns it with one more reference, or null */
function xfrm_find_bundle(
  policy: xfrm_policy,
  states: readonly xfrm_state[],
  route: dst_entry,
  fl: Flow,
): dst_entry | null {
  const afinfo = call(spd.afinfo as Sym<xfrm_policy_afinfo>)
  spin_lock_bh(policy.lock)
  let dst = DST.at(policy.bundles)
  while (dst !== null && !afinfo.bundle_ok(dst, states, route, fl)) dst = next_bundle(dst)
  if (dst !== null) dst_hold(dst)
  spin_unlock_bh(policy.lock)
  return dst
}

/** Keep a new bundle with its policy, unless that is dead meanwhile; those that nobody can use go. @returns false: it is dead */
function xfrm_keep_bundle(policy: xfrm_policy, bundle: dst_entry): boolean {
  let stale = 0
  spin_lock_bh(policy.lock)
  const dead = policy.dead !== 0
  if (!dead) {
    stale = take_bundles(policy, stale_bundle)
    i32[bundle.$w] = policy.bundles
    policy.bundles = bundle.addr
  }
  spin_unlock_bh(policy.lock)
  free_bundles(stale)
  return !dead
}

/**
 * xfrm_lookup - what policies say of a packet that goes out by a route. @context process, softirq @consumes a reference of route
 * @returns address of the dst to take, referenced: the route itself or a bundle; -EPERM: blocked; -EAGAIN: its states are being
 * negotiated; -ESRCH, -EINVAL, -ENOBUFS
 */
export function xfrm_lookup(route: dst_entry, fl: Flow): number {
  if ((route.flags & DST_NOXFRM) !== 0 || !xfrm_policies(XFRM_POLICY_OUT)) return route.addr
  const policy = xfrm_policy_lookup(XFRM_POLICY_OUT, fl)
  if (policy === null) return route.addr
  used(policy)
  const ret = policy.action === XFRM_POLICY_BLOCK ? -EPERM : bundle_for(policy, route, fl)
  xfrm_pol_put(policy)
  if (ret !== route.addr) dst_release(route)
  return ret
}
function bundle_for(policy: xfrm_policy, route: dst_entry, fl: Flow): number {
  if (policy.xfrm_nr === 0) return route.addr
  const states: xfrm_state[] = []
  const err = xfrm_tmpl_resolve(policy, fl, states)
  if (err !== 0) return err
  if (states.length === 0) return route.addr
  const known = xfrm_find_bundle(policy, states, route, fl)
  if (known !== null) {
    for (const x of states) xfrm_state_put(x)
    return known.addr
  }
  const made = call(spd.afinfo as Sym<xfrm_policy_afinfo>).bundle_create(states, route, fl)
  if (made < 0) {
    for (const x of states) xfrm_state_put(x)
    return made
  }
  const bundle = DST.ref(made)
  if (xfrm_keep_bundle(policy, bundle)) return made
  dst_release(bundle)
  dst_free(bundle)
  return -EAGAIN // 2.6.11 says EHOSTUNREACH
}

// ---- what comes in --------------------------------------------------------------------------------------------------

/** __xfrm_policy_check - may a packet come in by the way that it has come? @context softirq @returns false: it may not */
function __xfrm_policy_check(dir: number, skb: sk_buff): boolean {
  const fl: Flow = { daddr: 0, saddr: 0, proto: 0, sport: 0, dport: 0, oif: 0, tos: 0 }
  if (!call(spd.afinfo as Sym<xfrm_policy_afinfo>).decode_session(skb, fl)) return false
  const path = sec_path_states(skb)
  for (const x of path) if (!xfrm_selector_match(x.sel, fl)) return false
  const policy = xfrm_policy_lookup(dir, fl)
  if (policy === null) return !path.some(x => x.mode === XFRM_MODE_TUNNEL) // 2.6.11 also refuses transport mode here
  used(policy)
  const ok = xfrm_policy_satisfied(policy, path)
  xfrm_pol_put(policy)
  return ok
}

/** xfrm_policy_check - one look at the list of the direction where nothing is configured. A device may ask for none (disable_policy). @context softirq */
export function xfrm_policy_check(dir: number, skb: sk_buff): boolean {
  if (READ_ONCE(LISTS + dir * 4) === 0 && skb.sp === 0) return true
  return (skb.dst !== null && (skb.dst.flags & DST_NOPOLICY) !== 0) || __xfrm_policy_check(dir, skb)
}

/** xfrm_route_forward - the way of a packet of somebody else, as policies have it. @context softirq @returns 0, -errno: skb keeps its dst */
export function xfrm_route_forward(skb: sk_buff): number {
  if (!xfrm_policies(XFRM_POLICY_OUT) || (skb.dst!.flags & DST_NOXFRM) !== 0) return 0
  const fl: Flow = { daddr: 0, saddr: 0, proto: 0, sport: 0, dport: 0, oif: 0, tos: 0 }
  if (!call(spd.afinfo as Sym<xfrm_policy_afinfo>).decode_session(skb, fl)) return -EINVAL
  const route = skb.dst!
  dst_hold(route)
  const found = xfrm_lookup(route, fl)
  if (found < 0) return found
  skb.dst = DST.ref(found)
  dst_release(route)
  return 0
}

/** xfrm_policy_init - @context boot, CPU 0 */
export function xfrm_policy_init(): void {
  rwlock_init(spd.lock)
  i32.fill(0, LISTS >> 2, (LISTS >> 2) + XFRM_POLICY_MAX)
  spd.index = 0
  xfrm_state_on_delete(xfrm_prune_bundles_sym)
}
