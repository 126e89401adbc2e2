/**
 * xfrm_state.ts - the security association database (net/xfrm/xfrm_state.c of 2.6.11).
 *
 * Lock charter
 *   xfrm_state_lock (bottom halves off) guards both hashes and the random numbers. A state's own lock guards its life, its
 *   counters and its replay window, and is held while a packet is transformed. xfrm_state_lock may be held around the lock of
 *   a state, never inside it; netlink's locks are taken inside both. The database holds a reference of each state that is in
 *   it, and so does a pending timer. Who finds a state takes one: its memory stays while a packet uses it, whoever deletes it.
 */
import { bytes, embed, konst, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call, type Sym, symbol } from '../../abi/symbol.js'
import { load } from '../../arch/atomic.js'
import { BUG_ON } from '../../arch/cpu.js'
import { hz } from '../../arch/machine.js'
import { RAM } from '../../arch/ram.js'
import { del_timer, init_timer, jiffies, mod_timer } from '../../irq/timer.js'
import { EAGAIN, EEXIST, EINVAL, ENOENT, ESRCH } from '../../lib/errno.js'
import { jhash_3words } from '../../lib/jhash.js'
import { prng_seed, prng_u32 } from '../../lib/prng.js'
import { kfree, kmalloc } from '../../mm/kmalloc.js'
import { module_put } from '../../sched/module.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { refcount_dec_and_test, refcount_inc } from '../../sync/refcount.js'
import { SPINLOCK, spin_lock, spin_lock_init, spin_unlock, type spinlock_t } from '../../sync/spinlock.js'
import {
  CUR_ADD_TIME,
  CUR_BYTES,
  CUR_PACKETS,
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
  STATE,
  XFRM_ACQ_EXPIRES,
  XFRM_INF,
  XFRM_STATE_ACQ,
  XFRM_STATE_DEAD,
  XFRM_STATE_ERROR,
  XFRM_STATE_EXPIRED,
  XFRM_STATE_VALID,
  XFRM_STATE_VOID,
  type xfrm_policy,
  type xfrm_state,
  type xfrm_tmpl,
} from './types.js'
import { xfrm_gc_add } from './xfrm_gc.js'
import { xfrm_km, xfrm_km_init, xfrm_time } from './xfrm_km.js'
import { xfrm_init_tempsel, xfrm_selector_match } from './xfrm_selector.js'

const i32 = RAM.i32
const f64 = RAM.f64
const BUCKETS = 256

class xfrm_sad extends Struct {
  declare lock: spinlock_t
  declare count: number
  declare acq_seq: number
  declare random: number
  declare prune: Sym<() => void>
  declare bydst: number
  declare byspi: number
}
const SAD: Layout<xfrm_sad> = layout('xfrm_sad', xfrm_sad, {
  lock: embed(SPINLOCK),
  count: word, // states in it
  acq_seq: word,
  random: bytes(16),
  prune: konst(word), // xfrm_prune_bundles, which lies above
  bydst: bytes(BUCKETS * 4),
  byspi: bytes(BUCKETS * 4),
})
const sad = DEFINE_STATIC('xfrm_sad', SAD)
export const xfrm_state_lock = sad.lock
const BYDST = STATE.offset('bydst')
const BYSPI = STATE.offset('byspi')
const REFCNT = STATE.offset('refcnt')

/** xfrm_random - a random byte string. @locks takes xfrm_state_lock */
export function xfrm_random(to: number, len: number): void {
  spin_lock_bh(sad.lock)
  for (let k = 0; k < len; k++) RAM.u8[to + k] = random_u32() & 255
  spin_unlock_bh(sad.lock)
}
function random_u32(): number {
  return prng_u32(i32.subarray(sad.random >> 2, (sad.random >> 2) + 4))
}

// ---- life -----------------------------------------------------------------------------------------------------------

/** xfrm_state_alloc - @returns a state with one reference, or null */
export function xfrm_state_alloc(): xfrm_state | null {
  const at = kmalloc(STATE.size)
  if (at === 0) return null
  const x = STATE.ref(at)
  spin_lock_init(x.lock)
  x.refcnt = 1
  x.replay_window = 0
  const l = x.lft >> 3
  for (const limit of [LFT_SOFT_BYTES, LFT_HARD_BYTES, LFT_SOFT_PACKETS, LFT_HARD_PACKETS]) f64[l + limit] = XFRM_INF
  f64[l + CUR_ADD_TIME] = xfrm_time()
  init_timer(x.timer, xfrm_timer_sym, at)
  return x
}
export function xfrm_state_hold(x: xfrm_state): void {
  refcount_inc(x.addr + REFCNT)
}
/** xfrm_state_put - @context any but hardirq @consumes a reference */
export function xfrm_state_put(x: xfrm_state): void {
  if (!refcount_dec_and_test(x.addr + REFCNT)) return
  BUG_ON(x.state !== XFRM_STATE_DEAD && x.state !== XFRM_STATE_VOID, 'xfrm_state freed alive')
  if (x.tunnel === 0) xfrm_state_free(x)
  else xfrm_gc_add(x)
}
/** xfrm_state_free - it has no references. @context any but hardirq @consumes x */
export function xfrm_state_free(x: xfrm_state): void {
  if (x.type_mod !== 0) module_put(x.type_mod)
  kfree(x.addr)
}
/** xfrm_state_kern - is it the kernel's own? It goes with its users, and is nobody else's to delete. */
export function xfrm_state_kern(x: xfrm_state): boolean {
  return x.tunnel_users !== 0
}

const h_dst = (daddr: number): number => (sad.bydst >> 2) + (jhash_3words(daddr, 0, 0, 0) & (BUCKETS - 1))
const h_spi = (daddr: number, spi: number, proto: number): number =>
  (sad.byspi >> 2) + (jhash_3words(daddr, spi, proto, 0) & (BUCKETS - 1))

function unlink(slot: number, link: number, x: xfrm_state): void {
  let at = slot
  while (i32[at] !== 0 && i32[at] !== x.addr) at = (i32[at]! + link) >> 2
  if (i32[at] !== 0) i32[at] = i32[(x.addr + link) >> 2]!
}
/** __xfrm_state_insert - @locks xfrm_state_lock is held */
export function __xfrm_state_insert(x: xfrm_state): void {
  x.bydst = i32[h_dst(x.daddr)]!
  i32[h_dst(x.daddr)] = x.addr
  sad.count++
  refcount_inc(x.addr + REFCNT)
  if (x.spi !== 0) insert_spi(x)
}
function insert_spi(x: xfrm_state): void {
  const slot = h_spi(x.daddr, x.spi, x.proto)
  x.byspi = i32[slot]!
  i32[slot] = x.addr
}
function arm(x: xfrm_state, jiffies_on: number): void {
  if (!mod_timer(x.timer, (jiffies() + jiffies_on) | 0)) refcount_inc(x.addr + REFCNT)
}

/**
 * xfrm_state_delete - out of the database; who uses it may go on until he puts it. @context process, softirq @locks takes both
 * @returns 0, -ESRCH: somebody else was faster
 */
export function xfrm_state_delete(x: xfrm_state): number {
  spin_lock_bh(sad.lock)
  const err = __xfrm_state_delete(x)
  spin_unlock_bh(sad.lock)
  if (err === 0) xfrm_state_dropped(x)
  return err
}
/** xfrm_state_dropped - it is out of the database. More than the caller's reference and the database's are those of bundles, which would keep it, and its module. */
export function xfrm_state_dropped(x: xfrm_state): void {
  if (load(x.addr + REFCNT) > 2) call(sad.prune)()
  xfrm_state_put(x)
}
/** xfrm_state_on_delete - who has bundles takes those off that cannot be used any more. @context boot */
export function xfrm_state_on_delete(prune: Sym<() => void>): void {
  sad.prune = prune
}
/** __xfrm_state_delete - @locks xfrm_state_lock is held; takes the state's @returns 0: xfrm_state_dropped is to be called without it; -ESRCH */
export function __xfrm_state_delete(x: xfrm_state): number {
  spin_lock(x.lock)
  const alive = x.state !== XFRM_STATE_DEAD
  if (alive) {
    x.state = XFRM_STATE_DEAD
    unlink(h_dst(x.daddr), BYDST, x)
    if (x.spi !== 0) unlink(h_spi(x.daddr, x.spi, x.proto), BYSPI, x)
    sad.count--
    if (del_timer(x.timer)) xfrm_state_put(x)
  }
  spin_unlock(x.lock)
  return alive ? 0 : -ESRCH
}

/** xfrm_state_all - every state, each with one more reference. @context process, or a halted machine */
export function xfrm_state_all(): xfrm_state[] {
  const all: xfrm_state[] = []
  spin_lock_bh(sad.lock)
  for (let b = 0; b < BUCKETS; b++)
    for (let at = i32[(sad.bydst >> 2) + b]!; at !== 0; at = STATE.ref(at).bydst) {
      xfrm_state_hold(STATE.ref(at))
      all.push(STATE.ref(at))
    }
  spin_unlock_bh(sad.lock)
  return all
}
/** xfrm_state_flush - all states of a protocol; 0: of any. @context process, or a halted machine @locks takes both */
export function xfrm_state_flush(proto: number): void {
  for (const x of xfrm_state_all()) {
    if ((proto === 0 || x.proto === proto) && !xfrm_state_kern(x)) xfrm_state_delete(x)
    xfrm_state_put(x)
  }
}

// ---- finding --------------------------------------------------------------------------------------------------------

/** xfrm_state_lookup - the state of a packet that came in. @returns it with one more reference, or null */
export function xfrm_state_lookup(daddr: number, spi: number, proto: number): xfrm_state | null {
  spin_lock_bh(sad.lock)
  const x = __xfrm_state_lookup(daddr, spi, proto)
  if (x !== null) xfrm_state_hold(x)
  spin_unlock_bh(sad.lock)
  return x
}
/** __xfrm_state_lookup - @locks xfrm_state_lock is held @returns it, or null */
export function __xfrm_state_lookup(daddr: number, spi: number, proto: number): xfrm_state | null {
  for (let at = i32[h_spi(daddr, spi, proto)]!; at !== 0; ) {
    const x = STATE.ref(at)
    if (x.daddr === daddr && x.spi === spi && x.proto === proto) return x
    at = x.byspi
  }
  return null
}

/**
 * xfrm_state_find - the state that a template asks for, or one to be negotiated: then somebody is told.
 * @context process, softirq @returns address of a state with one more reference; -EAGAIN: not yet; -ESRCH: nobody is there to do it
 */
export function xfrm_state_find(daddr: number, saddr: number, fl: Flow, t: xfrm_tmpl, policy: xfrm_policy): number {
  spin_lock_bh(sad.lock)
  const found = find_locked(daddr, saddr, fl, t, policy)
  spin_unlock_bh(sad.lock)
  return found
}
function find_locked(daddr: number, saddr: number, fl: Flow, t: xfrm_tmpl, policy: xfrm_policy): number {
  let best: xfrm_state | null = null
  let acquiring = false
  let err = 0
  for (let at = i32[h_dst(daddr)]!; at !== 0; at = STATE.ref(at).bydst) {
    const x = STATE.ref(at)
    const other = x.daddr !== daddr || x.reqid !== t.reqid || x.mode !== t.mode || x.proto !== t.proto
    if (other || (saddr !== 0 && x.saddr !== 0 && x.saddr !== saddr)) continue
    if (x.state === XFRM_STATE_ACQ) acquiring = true
    else if (!xfrm_selector_match(x.sel, fl)) continue
    else if (x.state === XFRM_STATE_ERROR || x.state === XFRM_STATE_EXPIRED) err = -ESRCH
    else if (x.state === XFRM_STATE_VALID && (best === null || younger(x, best))) best = x
  }
  if (best !== null) {
    xfrm_state_hold(best)
    return best.addr
  }
  if (acquiring) return -EAGAIN
  if (err !== 0) return err
  if (t.spi !== 0 && __xfrm_state_lookup(daddr, t.spi, t.proto) !== null) return -EEXIST
  return acquire_locked(daddr, saddr, fl, t, policy)
}
function younger(x: xfrm_state, best: xfrm_state): boolean {
  if (best.dying !== x.dying) return best.dying > x.dying
  return f64[(best.lft >> 3) + CUR_ADD_TIME]! < f64[(x.lft >> 3) + CUR_ADD_TIME]!
}
function acquire_locked(daddr: number, saddr: number, fl: Flow, t: xfrm_tmpl, policy: xfrm_policy): number {
  const x = xfrm_state_alloc()
  if (x === null) return -EAGAIN
  xfrm_init_tempsel(x, fl, t, daddr, saddr)
  x.acq_seq = next_seq()
  if ((xfrm_km()?.acquire(x, t, policy) ?? -EINVAL) !== 0) {
    xfrm_state_put(x)
    return -ESRCH
  }
  x.state = XFRM_STATE_ACQ
  f64[(x.lft >> 3) + LFT_HARD_ADD] = XFRM_ACQ_EXPIRES
  __xfrm_state_insert(x)
  arm(x, XFRM_ACQ_EXPIRES * hz())
  xfrm_state_put(x)
  return -EAGAIN
}
function next_seq(): number {
  sad.acq_seq = (sad.acq_seq + 1) | 0 || 1
  return sad.acq_seq
}

/** The state that waits for such a negotiation, rather one without an SPI. @locks xfrm_state_lock is held */
function find_acq(x: xfrm_state): xfrm_state | null {
  let best: xfrm_state | null = null
  for (let at = i32[h_dst(x.daddr)]!; at !== 0; at = STATE.ref(at).bydst) {
    const a = STATE.ref(at)
    const same = a.daddr === x.daddr && a.saddr === x.saddr && a.proto === x.proto && a.mode === x.mode
    if (a.state !== XFRM_STATE_ACQ || !same || a.reqid !== x.reqid) continue
    if (a.spi === 0) return a
    best ??= a
  }
  return best
}
/** The one that was told of by this number; 2.6.11 finds also those that are negotiated. @locks xfrm_state_lock is held */
function find_acq_byseq(seq: number, daddr: number): xfrm_state | null {
  if (seq === 0) return null
  for (let at = i32[h_dst(daddr)]!; at !== 0; at = STATE.ref(at).bydst) {
    const a = STATE.ref(at)
    if (a.acq_seq === seq && a.state === XFRM_STATE_ACQ && a.daddr === daddr) return a
  }
  return null
}

/**
 * xfrm_state_add - a new state that is complete; the one to be negotiated that it answers goes. @context process
 * @locks takes both @returns 0, -EEXIST: its SPI is somebody's, be it only promised
 */
export function xfrm_state_add(x: xfrm_state): number {
  spin_lock_bh(sad.lock)
  if (__xfrm_state_lookup(x.daddr, x.spi, x.proto) !== null) {
    spin_unlock_bh(sad.lock)
    return -EEXIST
  }
  replace_locked(find_acq_byseq(x.acq_seq, x.daddr) ?? find_acq(x), x)
  return 0
}
/** @locks xfrm_state_lock is held, and dropped */
function replace_locked(acq: xfrm_state | null, x: xfrm_state): void {
  const gone = acq !== null && __xfrm_state_delete(acq) === 0
  x.state = XFRM_STATE_VALID
  __xfrm_state_insert(x)
  arm(x, hz())
  spin_unlock_bh(sad.lock)
  if (gone) xfrm_state_put(acq)
}

/**
 * xfrm_state_update - the state that an SPI was promised to, or what one that is there may do from now. @context process
 * @locks takes both @returns 0, -ESRCH, -EINVAL
 */
export function xfrm_state_update(x: xfrm_state): number {
  spin_lock_bh(sad.lock)
  const known = __xfrm_state_lookup(x.daddr, x.spi, x.proto)
  if (known === null) {
    spin_unlock_bh(sad.lock)
    return -ESRCH
  }
  if (known.state === XFRM_STATE_ACQ) {
    replace_locked(known, x)
    return 0
  }
  xfrm_state_hold(known)
  spin_unlock_bh(sad.lock)
  const err = set_limits(known, x)
  xfrm_state_put(known)
  return err
}
function set_limits(known: xfrm_state, x: xfrm_state): number {
  spin_lock_bh(known.lock)
  const valid = known.state === XFRM_STATE_VALID
  if (valid) {
    for (let k = LFT_SOFT_BYTES; k <= LFT_HARD_USE; k++) f64[(known.lft >> 3) + k] = f64[(x.lft >> 3) + k]!
    known.dying = 0
    arm(known, hz())
    if (f64[(known.lft >> 3) + CUR_USE_TIME] !== 0) xfrm_state_check_expire(known)
  }
  spin_unlock_bh(known.lock)
  return valid ? 0 : -EINVAL
}

/**
 * xfrm_find_acq - the state that waits for a negotiation, the one of number `seq` first, made if there is none. @context process
 * @returns one more reference, or null
 */
export function xfrm_find_acq(
  proto: number,
  mode: number,
  reqid: number,
  daddr: number,
  saddr: number,
  seq: number,
): xfrm_state | null {
  const fresh = xfrm_state_alloc()
  if (fresh === null) return null
  Object.assign(fresh, { daddr, saddr, proto, mode, reqid })
  Object.assign(fresh.sel, { daddr, saddr, prefixlen_d: 32, prefixlen_s: 32, family: 2 })
  spin_lock_bh(sad.lock)
  const known = find_acq_byseq(seq, daddr) ?? find_acq(fresh)
  if (known === null) {
    fresh.state = XFRM_STATE_ACQ
    f64[(fresh.lft >> 3) + LFT_HARD_ADD] = XFRM_ACQ_EXPIRES
    __xfrm_state_insert(fresh)
    arm(fresh, XFRM_ACQ_EXPIRES * hz())
  } else xfrm_state_hold(known)
  spin_unlock_bh(sad.lock)
  if (known !== null) xfrm_state_put(fresh)
  return known ?? fresh
}

/**
 * xfrm_alloc_spi - a number that is free, of these: from anywhere on, one after the other. 2.6.11 tries as many as there are, at
 * random, and takes the last one though it be taken. @context process @returns 0, -ENOENT: none is, or the state is gone
 */
export function xfrm_alloc_spi(x: xfrm_state, min: number, max: number): number {
  const n = max - min + 1
  spin_lock_bh(sad.lock)
  // Whoever deletes it has this lock: a state that is gone must not get into the hash.
  if (x.spi === 0 && x.state !== XFRM_STATE_DEAD) {
    const first = random_u32() % n
    for (let h = 0; h < Math.min(n, 0x1000) && x.spi === 0; h++) {
      const spi = (min + ((first + h) % n)) | 0
      if (spi !== 0 && __xfrm_state_lookup(x.daddr, spi, x.proto) === null) x.spi = spi
    }
    if (x.spi !== 0) insert_spi(x)
  }
  const err = x.spi !== 0 && x.state !== XFRM_STATE_DEAD ? 0 : -ENOENT
  spin_unlock_bh(sad.lock)
  return err
}

// ---- limits ---------------------------------------------------------------------------------------------------------

/** xfrm_state_check_expire - count the use. @locks the state's is held @returns 0, -EINVAL: its hard limit is reached */
export function xfrm_state_check_expire(x: xfrm_state): number {
  const l = x.lft >> 3
  if (f64[l + CUR_USE_TIME] === 0) f64[l + CUR_USE_TIME] = xfrm_time()
  if (x.state !== XFRM_STATE_VALID) return -EINVAL
  const over = (bytes: number, packets: number): boolean =>
    f64[l + CUR_BYTES]! >= f64[l + bytes]! || f64[l + CUR_PACKETS]! >= f64[l + packets]!
  if (over(LFT_HARD_BYTES, LFT_HARD_PACKETS)) {
    arm(x, 0) // the timer ends it
    return -EINVAL
  }
  if (x.dying === 0 && over(LFT_SOFT_BYTES, LFT_SOFT_PACKETS)) {
    x.dying = 1
    xfrm_km()?.expired(x, false)
  }
  return 0
}
/** xfrm_state_count - one packet of so many bytes. @locks the state's is held */
export function xfrm_state_count(x: xfrm_state, len: number): void {
  f64[(x.lft >> 3) + CUR_BYTES]! += len
  f64[(x.lft >> 3) + CUR_PACKETS]! += 1
}

/** Seconds until a limit of time; below 1: it is reached. */
function left(l: number, limit: number, since: number): number {
  return f64[l + limit] === 0 ? Infinity : f64[l + limit]! + (f64[l + since]! || xfrm_time()) - xfrm_time()
}
/** xfrm_timer_handler - limits of time, and a hard limit that a packet has reached. @context softirq */
function xfrm_timer_handler(addr: number): void {
  const x = STATE.ref(addr)
  let hard = false
  spin_lock_bh(x.lock)
  if (x.state !== XFRM_STATE_DEAD) {
    const l = x.lft >> 3
    const full = f64[l + CUR_BYTES]! >= f64[l + LFT_HARD_BYTES]! || f64[l + CUR_PACKETS]! >= f64[l + LFT_HARD_PACKETS]!
    const end = Math.min(left(l, LFT_HARD_ADD, CUR_ADD_TIME), left(l, LFT_HARD_USE, CUR_USE_TIME))
    const warn = Math.min(left(l, LFT_SOFT_ADD, CUR_ADD_TIME), left(l, LFT_SOFT_USE, CUR_USE_TIME))
    if (x.state === XFRM_STATE_EXPIRED || full || end <= 0) hard = true
    else if (warn <= 0 && x.dying === 0) {
      x.dying = 1
      xfrm_km()?.expired(x, false)
    }
    const next = Math.min(end, x.dying === 0 ? warn : Infinity)
    if (!hard && next !== Infinity) arm(x, Math.min(Math.max(next, 1), 86_400) * hz())
  }
  spin_unlock_bh(x.lock)
  if (hard) expire(x)
  xfrm_state_put(x) // the timer's
}
/** A state without an SPI ends its negotiation first, so that who waits hears of it: 2 s later it is gone. */
function expire(x: xfrm_state): void {
  if (x.state === XFRM_STATE_ACQ && x.spi === 0) {
    spin_lock_bh(x.lock)
    if (x.state === XFRM_STATE_ACQ) {
      x.state = XFRM_STATE_EXPIRED
      arm(x, 2 * hz())
    }
    spin_unlock_bh(x.lock)
  } else if (xfrm_state_delete(x) === 0 && x.spi !== 0) {
    spin_lock_bh(x.lock) // packets that have it still count
    xfrm_km()?.expired(x, true)
    spin_unlock_bh(x.lock)
  }
}
const xfrm_timer_sym = symbol('xfrm_timer_handler', xfrm_timer_handler)

/** xfrm_state_mtu - the largest packet that this state leaves room for. */
export function xfrm_state_mtu(x: xfrm_state, mtu: number): number {
  return call(x.type).max_size(x, mtu)
}

/** xfrm_state_init - @context boot, CPU 0 */
export function xfrm_state_init(seed: number): void {
  xfrm_km_init()
  spin_lock_init(sad.lock)
  prng_seed(i32.subarray(sad.random >> 2, (sad.random >> 2) + 4), seed ^ 0x78_66_72_6d)
  sad.count = 0
  i32.fill(0, sad.bydst >> 2, (sad.bydst >> 2) + 2 * BUCKETS)
}
