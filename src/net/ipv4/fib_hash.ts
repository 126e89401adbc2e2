/**
 * fib_hash.ts - longest prefix match as 2.6.11 does it: a hash table for each prefix length, the longest asked first.
 *
 * Lock charter
 *   fib_hash_lock (rwlock) guards both tables, their zones, nodes and aliases: lookups read with bottom halves off,
 *   changes write. fib_info_lock may be taken under it. The FIB is no RCU structure in 2.6.11: only the route cache is.
 */

import { by, bytes, embed, type Layout, layout, own, ptr, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { cost } from '../../arch/cost.js'
import { charge_cost } from '../../arch/cpu.js'
import { RAM } from '../../arch/ram.js'
import { EEXIST, EINVAL, ENOMEM, ESRCH } from '../../lib/errno.js'
import { MAX_FIB_NODES } from '../../lib/limits.js'
import { kfree, kmalloc } from '../../mm/kmalloc.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import {
  RWLOCK,
  read_lock_bh,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../../sync/rwlock.js'
import { fib_create_info, fib_nh_match, fib_release_info, fib_semantic_match } from './fib_semantics.js'
import { FIB_INFO, type fib_info, type fib_result, type RouteMatch, type RouteSpec, RTNH_F_DEAD } from './fib_types.js'

const COST_ZONE = cost('fn_hash_lookup')

const i32 = RAM.i32

class fib_alias extends Struct {
  declare next: fib_alias | null
  declare fa_info: fib_info | null
  declare fa_tos: number
  declare fa_type: number
  declare fa_scope: number
}
const FA: Layout<fib_alias> = layout('fib_alias', fib_alias, {
  next: by(
    'fib_hash_lock',
    ptr(() => FA),
  ), // by falling tos, then rising priority
  fa_info: by(
    'fib_hash_lock',
    ptr(() => FIB_INFO),
  ),
  fa_tos: by('fib_hash_lock', word),
  fa_type: by('fib_hash_lock', word),
  fa_scope: by('fib_hash_lock', word),
})
class fib_node extends Struct {
  declare next: fib_node | null
  declare fn_key: number
  declare fn_alias: fib_alias | null
}
const FN: Layout<fib_node> = layout('fib_node', fib_node, {
  next: by(
    'fib_hash_lock',
    ptr(() => FN),
  ),
  fn_key: by('fib_hash_lock', word),
  fn_alias: by(
    'fib_hash_lock',
    ptr(() => FA),
  ),
})
const fn_cache = kmem_cache_create('ip_fib_hash', FN, () => MAX_FIB_NODES)
const fa_cache = kmem_cache_create('ip_fib_alias', FA, () => MAX_FIB_NODES)

class fn_zone extends Struct {
  declare fz_next: fn_zone | null
  declare fz_hash: number
  declare fz_nent: number
  declare fz_divisor: number
  declare fz_order: number
  declare fz_mask: number
}
/** Routes of one prefix length. */
const FZ: Layout<fn_zone> = layout('fn_zone', fn_zone, {
  fz_next: by(
    'fib_hash_lock',
    ptr(() => FZ),
  ), // next shorter prefix in use
  fz_hash: by('fib_hash_lock', word), // address of an array of node pointers
  fz_nent: by('fib_hash_lock', word),
  fz_divisor: by('fib_hash_lock', word), // buckets
  fz_order: own(word), // prefix length
  fz_mask: own(word),
})
const fz_cache = kmem_cache_create('fn_zone', FZ, () => 66)

export class fib_table extends Struct {
  declare fn_zone_list: fn_zone | null
  declare fn_zones: number
  declare tb_id: number
}
const TB: Layout<fib_table> = layout('fib_table', fib_table, {
  fn_zone_list: by(
    'fib_hash_lock',
    ptr(() => FZ),
  ), // longest prefix first
  fn_zones: by('fib_hash_lock', bytes(33 * 4)),
  tb_id: own(word),
})
class fib_lock_box extends Struct {
  declare lock: rwlock_t
}
const LOCK: Layout<fib_lock_box> = layout('fib_hash_lock', fib_lock_box, { lock: embed(RWLOCK) })
const fib_hash_lock = DEFINE_STATIC('fib_hash_lock', LOCK).lock

export const RT_TABLE_MAIN = 254
export const RT_TABLE_LOCAL = 255
export const ip_fib_local_table = DEFINE_STATIC('ip_fib_local_table', TB)
export const ip_fib_main_table = DEFINE_STATIC('ip_fib_main_table', TB)

/** Largest hash of a zone, in buckets. */
const MAX_DIVISOR = 131072

function fn_hash(key: number, fz: fn_zone): number {
  let h = fz.fz_order === 0 ? 0 : key >>> (32 - fz.fz_order)
  h ^= h >>> 20
  h ^= h >>> 10
  h ^= h >>> 5
  return h & (fz.fz_divisor - 1)
}

// ---- lookup ---------------------------------------------------------------------------------------------------------

const N_KEY = FN.offset('fn_key') >> 2
const N_ALIAS = FN.offset('fn_alias') >> 2

/** fn_hash_lookup - the most specific route. @locks fib_hash_lock for reading @returns 0, 1: none, or -errno of its type */
export function fn_hash_lookup(
  tb: fib_table,
  key: number,
  tos: number,
  oif: number,
  scope: number,
  res: fib_result,
): number {
  let err = 1
  read_lock_bh(fib_hash_lock)
  for (let fz = tb.fn_zone_list; fz !== null && err > 0; fz = fz.fz_next) {
    charge_cost(COST_ZONE)
    const k = key & fz.fz_mask
    let f = i32[(fz.fz_hash >> 2) + fn_hash(k, fz)]
    while (f !== 0 && i32[(f >> 2) + N_KEY] !== k) f = i32[f >> 2]
    if (f === 0) continue
    for (let fa = FA.at(i32[(f >> 2) + N_ALIAS]); fa !== null && err > 0; fa = fa.next) {
      if ((fa.fa_tos !== 0 && fa.fa_tos !== tos) || fa.fa_scope < scope) continue
      err = fib_semantic_match(fa.fa_info!, fa.fa_type, fa.fa_scope, fz.fz_order, oif, res)
    }
  }
  read_unlock_bh(fib_hash_lock)
  return err
}

// ---- change ---------------------------------------------------------------------------------------------------------

function zone_at(tb: fib_table, order: number): fn_zone | null {
  return FZ.at(i32[(tb.fn_zones >> 2) + order])
}

function fn_new_zone(tb: fib_table, order: number): fn_zone | null {
  const fz = kmem_cache_alloc(fz_cache)
  const divisor = order === 0 ? 1 : 16
  const hash = kmalloc(divisor * 4)
  if (fz === null || hash === 0) {
    if (fz !== null) kmem_cache_free(fz_cache, fz)
    if (hash !== 0) kfree(hash)
    return null
  }
  fz.fz_order = order
  fz.fz_mask = order === 0 ? 0 : -1 << (32 - order)
  fz.fz_divisor = divisor
  fz.fz_nent = 0
  fz.fz_hash = hash
  write_lock_bh(fib_hash_lock)
  let before: fn_zone | null = null
  let at = tb.fn_zone_list
  while (at !== null && at.fz_order > order) {
    before = at
    at = at.fz_next
  }
  fz.fz_next = at
  if (before === null) tb.fn_zone_list = fz
  else before.fz_next = fz
  i32[(tb.fn_zones >> 2) + order] = fz.addr
  write_unlock_bh(fib_hash_lock)
  return fz
}

/** fn_rehash_zone - 16, 256, 1024, then double. @locks fib_hash_lock */
function fn_rehash_zone(fz: fn_zone): void {
  const size = fz.fz_divisor === 16 ? 256 : fz.fz_divisor === 256 ? 1024 : fz.fz_divisor * 2
  if (size > MAX_DIVISOR) return
  const hash = kmalloc(size * 4)
  if (hash === 0) return
  write_lock_bh(fib_hash_lock)
  const old = fz.fz_hash
  const old_size = fz.fz_divisor
  fz.fz_hash = hash
  fz.fz_divisor = size
  for (let b = 0; b < old_size; b++) {
    for (let f = FN.at(i32[(old >> 2) + b]); f !== null; ) {
      const next: fib_node | null = f.next
      const slot = (hash >> 2) + fn_hash(f.fn_key, fz)
      f.next = FN.at(i32[slot])
      i32[slot] = f.addr
      f = next
    }
  }
  write_unlock_bh(fib_hash_lock)
  kfree(old)
}

function find_node(fz: fn_zone, key: number): fib_node | null {
  let f = FN.at(i32[(fz.fz_hash >> 2) + fn_hash(key, fz)])
  while (f !== null && f.fn_key !== key) f = f.next
  return f
}

/** Does alias `a` come before a new one of this tos and priority? */
function goes_before(a: fib_alias, tos: number, priority: number): boolean {
  return a.fa_tos > tos || (a.fa_tos === tos && a.fa_info!.fib_priority <= priority)
}

/** fn_hash_insert - add a route. @context process @locks rtnl is held; fib_hash_lock @returns 0, -EEXIST, -EINVAL, ... */
export function fn_hash_insert(tb: fib_table, spec: RouteSpec, scope: number): number {
  const { prefixlen, dst } = spec
  if (prefixlen < 0 || prefixlen > 32) return -EINVAL
  const fz = zone_at(tb, prefixlen) ?? fn_new_zone(tb, prefixlen)
  if (fz === null) return -ENOMEM
  if ((dst & ~fz.fz_mask) !== 0) return -EINVAL
  const fi = fib_create_info(spec)
  if (typeof fi === 'number') return fi
  if (fz.fz_nent > fz.fz_divisor * 2 && (prefixlen === 32 || 1 << prefixlen > fz.fz_divisor || prefixlen === 31))
    fn_rehash_zone(fz)
  const tos = spec.tos ?? 0
  let f = find_node(fz, dst)
  for (let a = f === null ? null : f.fn_alias; a !== null; a = a.next) {
    if (a.fa_tos !== tos || a.fa_info!.fib_priority !== fi.fib_priority) continue
    const identical = a.fa_type === spec.type && a.fa_scope === scope && a.fa_info === fi
    if (spec.append === true && !identical) continue
    fib_release_info(fi)
    return -EEXIST
  }
  const fa = kmem_cache_alloc(fa_cache)
  const fresh = f === null ? kmem_cache_alloc(fn_cache) : null
  if (fa === null || (f === null && fresh === null)) {
    if (fa !== null) kmem_cache_free(fa_cache, fa)
    fib_release_info(fi)
    return -ENOMEM
  }
  fa.fa_info = fi
  fa.fa_tos = tos
  fa.fa_type = spec.type
  fa.fa_scope = scope
  write_lock_bh(fib_hash_lock)
  if (fresh !== null) {
    f = fresh
    f.fn_key = dst
    f.fn_alias = null
    const slot = (fz.fz_hash >> 2) + fn_hash(dst, fz)
    f.next = FN.at(i32[slot])
    i32[slot] = f.addr
    fz.fz_nent++
  }
  insert_alias(f!, fa, tos, fi.fib_priority)
  write_unlock_bh(fib_hash_lock)
  return 0
}

function insert_alias(f: fib_node, fa: fib_alias, tos: number, priority: number): void {
  let before: fib_alias | null = null
  let at = f.fn_alias
  while (at !== null && goes_before(at, tos, priority)) {
    before = at
    at = at.next
  }
  fa.next = at
  if (before === null) f.fn_alias = fa
  else before.next = fa
}

/** Unlink an alias, and its node when it was the last. @locks fib_hash_lock is held for writing */
function unlink(fz: fn_zone, f: fib_node, fa: fib_alias): void {
  let before: fib_alias | null = null
  for (let at = f.fn_alias; at !== null && at !== fa; at = at.next) before = at
  if (before === null) f.fn_alias = fa.next
  else before.next = fa.next
  if (f.fn_alias !== null) return
  let slot = (fz.fz_hash >> 2) + fn_hash(f.fn_key, fz)
  while (i32[slot] !== f.addr) slot = i32[slot] >> 2
  i32[slot] = f.next === null ? 0 : f.next.addr
  fz.fz_nent--
}

/** Does a route to be deleted mean this one? */
function matches(fa: fib_alias, want: RouteMatch): boolean {
  return (
    fa.fa_tos === (want.tos ?? 0) &&
    (want.type === 0 || fa.fa_type === want.type) &&
    (want.scope === undefined || fa.fa_scope === want.scope) &&
    fib_nh_match(want, fa.fa_info!)
  )
}

/** fn_hash_delete - remove the first route that fits. @context process @locks rtnl is held; fib_hash_lock @returns 0, -ESRCH */
export function fn_hash_delete(tb: fib_table, want: RouteMatch): number {
  const fz = zone_at(tb, want.prefixlen)
  const f = fz === null ? null : find_node(fz, want.dst)
  if (fz === null || f === null) return -ESRCH
  let fa = f.fn_alias
  while (fa !== null && !matches(fa, want)) fa = fa.next
  if (fa === null) return -ESRCH
  remove(fz, f, fa)
  return 0
}

function remove(fz: fn_zone, f: fib_node, fa: fib_alias): void {
  write_lock_bh(fib_hash_lock)
  unlink(fz, f, fa)
  const empty = f.fn_alias === null
  write_unlock_bh(fib_hash_lock)
  fib_release_info(fa.fa_info!)
  kmem_cache_free(fa_cache, fa)
  if (empty) kmem_cache_free(fn_cache, f)
}

/** fn_hash_flush - remove the routes that are dead, or all of them. @context process @returns how many */
export function fn_hash_flush(tb: fib_table, all: boolean): number {
  let found = 0
  for (let fz = tb.fn_zone_list; fz !== null; fz = fz.fz_next) {
    for (let b = 0; b < fz.fz_divisor; b++) {
      for (let f = FN.at(i32[(fz.fz_hash >> 2) + b]); f !== null; ) {
        const next: fib_node | null = f.next
        for (let fa = f.fn_alias; fa !== null; ) {
          const after: fib_alias | null = fa.next
          if (all || (fa.fa_info!.fib_flags & RTNH_F_DEAD) !== 0) {
            remove(fz, f, fa)
            found++
          }
          fa = after
        }
        f = next
      }
    }
  }
  return found
}

/** A line of `ip route`, for dumps. */
export interface RouteDump {
  dst: number
  prefixlen: number
  tos: number
  type: number
  scope: number
  info: fib_info
}

/** fn_hash_dump - every route, the longest prefixes first. @context process @locks rtnl is held */
export function fn_hash_dump(tb: fib_table, each: (route: RouteDump) => void): void {
  for (let fz = tb.fn_zone_list; fz !== null; fz = fz.fz_next) {
    for (let b = 0; b < fz.fz_divisor; b++) {
      for (let f = FN.at(i32[(fz.fz_hash >> 2) + b]); f !== null; f = f.next) {
        for (let fa = f.fn_alias; fa !== null; fa = fa.next) {
          each({
            dst: f.fn_key,
            prefixlen: fz.fz_order,
            tos: fa.fa_tos,
            type: fa.fa_type,
            scope: fa.fa_scope,
            info: fa.fa_info!,
          })
        }
      }
    }
  }
}

/** fib_hash_init - @context boot, CPU 0 */
export function fib_hash_init(): void {
  rwlock_init(fib_hash_lock)
  for (const [tb, id] of [
    [ip_fib_local_table, RT_TABLE_LOCAL],
    [ip_fib_main_table, RT_TABLE_MAIN],
  ] as const) {
    tb.tb_id = id
    tb.fn_zone_list = null
    for (let k = 0; k < 33; k++) i32[(tb.fn_zones >> 2) + k] = 0
  }
}

/** fib_hash_exit - all routes and zones back, for the leak audit. @context process, or a machine at rest */
export function fib_hash_exit(): void {
  for (const tb of [ip_fib_local_table, ip_fib_main_table]) {
    fn_hash_flush(tb, true)
    for (let fz = tb.fn_zone_list; fz !== null; ) {
      const next: fn_zone | null = fz.fz_next
      kfree(fz.fz_hash)
      kmem_cache_free(fz_cache, fz)
      fz = next
    }
    tb.fn_zone_list = null
    for (let k = 0; k < 33; k++) i32[(tb.fn_zones >> 2) + k] = 0
  }
}
