/**
 * route_gc.ts - what the route cache lets go: too old, of little worth in a long chain, or one too many.
 *
 * Lock charter
 *   Chains as in route.ts: changed under their bucket's lock, one at a time. The collector's own numbers have no lock, as in
 *   2.6.11: two CPUs that collect at once only collect more.
 */
import { embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { store } from '../../arch/atomic.js'
import { RAM } from '../../arch/ram.js'
import { init_timer, jiffies, mod_timer, TIMER, time_after, time_after_eq, type timer_list } from '../../irq/timer.js'
import { RT_HASH_BUCKETS } from '../../lib/limits.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { in_softirq } from '../../sync/preempt.js'
import { rt_bucket, rt_entries, rt_free, rt_stat } from './route.js'
import { rt_ctl } from './route_sysctl.js'
import {
  RTABLE,
  RTCF_BROADCAST,
  RTCF_LOCAL,
  RTCF_MULTICAST,
  RTCF_NOTIFY,
  RTCF_REDIRECTED,
  type rtable,
} from './types.js'

const i32 = RAM.i32

const MASK = RT_HASH_BUCKETS - 1

class rt_gc_state extends Struct {
  declare last_gc: number
  declare equilibrium: number
  declare rover: number
  declare check_rover: number
  declare expire: number
  declare periodic: timer_list
}
const STATE: Layout<rt_gc_state> = layout('rt_gc', rt_gc_state, {
  last_gc: word,
  equilibrium: word, // entries that seem to be needed
  rover: word, // bucket that the collector looked at last
  check_rover: word, // and the periodic one
  expire: word, // age that is too old now, jiffies
  periodic: embed(TIMER),
})
const gc = DEFINE_STATIC('rt_gc', STATE)

// ---- what an entry is worth -----------------------------------------------------------------------------------------

/** Broadcasts are answered once and clutter the chain before better entries. */
function rt_fast_clean(r: rtable): boolean {
  return (r.rt_flags & (RTCF_BROADCAST | RTCF_MULTICAST)) !== 0 && r.fl_iif !== 0 && i32[r.$w] !== 0
}

/** What cannot be had from the FIB again, as long as it counts (in 2.6.11 what has expired is dear too). */
function rt_valuable(r: rtable, now: number): boolean {
  if ((r.rt_flags & (RTCF_REDIRECTED | RTCF_NOTIFY)) !== 0) return true
  return r.dst.expires !== 0 && time_after(r.dst.expires, now)
}

/** rt_may_expire - unused for longer than `tmo1`, or `tmo2` if it is valuable? @locks the bucket's lock is held */
export function rt_may_expire(r: rtable, now: number, tmo1: number, tmo2: number): boolean {
  if (r.dst.refcnt !== 0) return false
  if (r.dst.expires !== 0 && time_after_eq(now, r.dst.expires)) return true
  const age = (now - r.dst.lastuse) | 0
  if (age <= tmo1 && !rt_fast_clean(r)) return false
  return !(age <= tmo2 && rt_valuable(r, now))
}

/**
 * rt_score - the entry of the lowest score leaves a long chain. Bit 31: very valuable; bit 30: not quite useless, which is
 * what leads through this router or out of it; below: how recently it was used. @returns 0 to 2^32 - 1
 */
export function rt_score(r: rtable): number {
  const now = jiffies()
  let score = ~(now - r.dst.lastuse) & 0x3fffffff
  if (rt_valuable(r, now)) score |= 0x80000000
  if (r.fl_iif === 0 || (r.rt_flags & (RTCF_BROADCAST | RTCF_MULTICAST | RTCF_LOCAL)) === 0) score |= 0x40000000
  return score >>> 0
}

// ---- the collectors -------------------------------------------------------------------------------------------------

/** Unhash what may go in one bucket; the limit halves with each survivor. @returns entries freed */
function gc_bucket(b: number, expire: number, periodic: boolean): number {
  const bucket = rt_bucket(b)
  if (bucket.chain === 0) return 0
  const now = jiffies()
  let limit = expire
  let freed = 0
  spin_lock_bh(bucket.lock)
  let slot = bucket.addr
  for (let at = RTABLE.at(i32[slot >> 2]); at !== null; at = RTABLE.at(i32[slot >> 2])) {
    // The periodic collector takes what has expired though it is in use: it is freed when it no longer is.
    const { expires } = at.dst
    if (periodic && expires !== 0 ? time_after(now, expires) : rt_may_expire(at, now, limit, expire)) {
      store(slot, i32[at.$w])
      rt_free(at)
      freed++
    } else {
      limit >>= 1
      slot = at.addr
    }
  }
  spin_unlock_bh(bucket.lock)
  return freed
}

/** How many entries should go now; not more than 0: none. */
function gc_goal(entries: number): number {
  let goal = entries - rt_ctl.gc_elasticity * RT_HASH_BUCKETS
  if (goal > 0) {
    goal = Math.max(goal >> 1, RT_HASH_BUCKETS)
    gc.equilibrium = entries - goal
    return goal
  }
  gc.equilibrium = Math.max(gc.equilibrium, rt_ctl.gc_thresh)
  goal = entries - gc.equilibrium
  if (goal > 0) {
    gc.equilibrium += Math.min(goal >> 1, RT_HASH_BUCKETS)
    goal = entries - gc.equilibrium
  }
  return goal
}

/** rt_garbage_collect - make room. @returns false when the cache overflows: then no new route can be made */
export function rt_garbage_collect(): boolean {
  const now = jiffies()
  const entries = rt_entries()
  rt_stat.gc_total++
  if (((now - gc.last_gc) | 0) < rt_ctl.gc_min_interval && entries < rt_ctl.max_size) {
    rt_stat.gc_ignored++
    return true
  }
  let goal = gc_goal(entries)
  gc.last_gc = now
  if (goal <= 0) {
    gc.equilibrium += goal
    return work_done()
  }
  do {
    goal -= collect(goal)
    if (goal <= 0) return work_done()
    rt_stat.gc_goal_miss++
    if (gc.expire === 0) break
    gc.expire >>= 1
    if (rt_entries() < rt_ctl.max_size) return true
  } while (!in_softirq() && jiffies() === now)
  if (rt_entries() < rt_ctl.max_size) return true
  rt_stat.gc_dst_overflow++
  return false
}

/**
 * rt_collect_expired - the neighbour table is full, most likely of those that routes refer to: let the routes go that lead
 * to nobody. 2.6.11 collects with an elasticity of 1 for that, which with fewer neighbours than buckets finds none too
 * many; and in process context only, from where this router sends nothing.
 */
export function rt_collect_expired(): void {
  const now = jiffies()
  rt_stat.gc_total++
  if (((now - gc.last_gc) | 0) < rt_ctl.gc_min_interval && in_softirq()) {
    rt_stat.gc_ignored++
    return
  }
  gc.last_gc = now
  for (let b = 0; b < RT_HASH_BUCKETS; b++) gc_bucket(b, rt_ctl.gc_timeout, false)
}

/** Once round the buckets, from where the last round ended. @returns entries freed */
function collect(goal: number): number {
  const { expire } = gc
  let freed = 0
  let k = gc.rover
  for (let n = 0; n < RT_HASH_BUCKETS && freed < goal; n++) {
    k = (k + 1) & MASK
    freed += gc_bucket(k, expire, false)
  }
  gc.rover = k
  return freed
}

function work_done(): boolean {
  gc.expire += rt_ctl.gc_min_interval
  if (gc.expire > rt_ctl.gc_timeout || rt_entries() < rt_ctl.gc_thresh) gc.expire = rt_ctl.gc_timeout
  return true
}

/** rt_check_expire - the periodic collector: a part of the buckets each minute. @context timer */
function rt_check_expire(): void {
  const n = Math.max(
    1,
    Math.min(RT_HASH_BUCKETS, Math.floor((rt_ctl.gc_interval * RT_HASH_BUCKETS) / rt_ctl.gc_timeout)),
  )
  for (let k = 0; k < n; k++) {
    gc.check_rover = (gc.check_rover + 1) & MASK
    gc_bucket(gc.check_rover, rt_ctl.gc_timeout, true)
  }
  mod_timer(gc.periodic, jiffies() + rt_ctl.gc_interval)
}
const rt_check_expire_sym = symbol('rt_check_expire', rt_check_expire)

/** rt_gc_init - @context boot, CPU 0 */
export function rt_gc_init(): void {
  gc.last_gc = jiffies()
  gc.equilibrium = 0
  gc.expire = rt_ctl.gc_timeout
  init_timer(gc.periodic, rt_check_expire_sym, 0)
  mod_timer(gc.periodic, jiffies() + rt_ctl.gc_interval)
}
