/**
 * fib_hash.ts - longest prefix match as 2.6.11 does it: a hash table for each prefix length, the longest asked first.
 *
 * Lock charter
 *   fib_hash_lock (rwlock) guards both tables, their zones, nodes and aliases: lookups read with bottom halves off,
 *   changes write. fib_info_lock may be taken under it. The FIB is no RCU structure in 2.6.11: only the route cache is.
 */

import { bytes, embed, type Layout, layout, rcu, Struct } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { cost } from '../../arch/cost.js'
import { charge_cost } from '../../arch/cpu.js'
import { RAM } from '../../arch/ram.js'
import { EEXIST, EINVAL, ENOENT, ENOMEM, ESRCH } from '../../lib/errno.js'
import { kfree, kmalloc } from '../../mm/kmalloc.js'
import { kmem_cache_alloc, kmem_cache_free } from '../../mm/slab.js'
import { rcu_assign_pointer } from '../../rcu/rcupdate.js'
import {
  RWLOCK,
  read_lock_bh,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../../sync/rwlock.js'
import { RTM_DELROUTE, RTM_NEWROUTE } from '../netlink/rtnetlink.js'
import { NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from '../netlink/types.js'
import {
  FA,
  FN,
  FZ,
  fa_cache,
  type fib_alias,
  type fib_node,
  type fib_table,
  fn_cache,
  type fn_zone,
  fz_cache,
  TB,
  tb_cache,
} from './fib_hash_types.js'
import { fib_create_info, fib_nh_match, fib_release_info, fib_semantic_match } from './fib_semantics.js'
import {
  type fib_info,
  type fib_result,
  type RouteDump,
  type RouteMatch,
  type RouteSpec,
  RTN_UNICAST,
  RTNH_F_DEAD,
} from './fib_types.js'
import { rtmsg_fib } from './rtnl_route.js'

const COST_ZONE = cost('fn_hash_lookup')

const i32 = RAM.i32

class fib_lock_box extends Struct {
  declare lock: rwlock_t
}
const LOCK: Layout<fib_lock_box> = layout('fib_hash_lock', fib_lock_box, { lock: embed(RWLOCK) })
const fib_hash_lock = DEFINE_STATIC('fib_hash_lock', LOCK).lock

export const RT_TABLE_UNSPEC = 0
export const RT_TABLE_DEFAULT = 253
export const RT_TABLE_MAIN = 254
export const RT_TABLE_LOCAL = 255
export const RT_TABLE_MAX = 255
export const ip_fib_local_table = DEFINE_STATIC('ip_fib_local_table', TB)
export const ip_fib_main_table = DEFINE_STATIC('ip_fib_main_table', TB)

class fib_table_list extends Struct {
  declare tables: number
}
const LIST: Layout<fib_table_list> = layout('fib_tables', fib_table_list, {
  tables: rcu(bytes((RT_TABLE_MAX + 1) * 4)), // by number: addresses, 0 until somebody writes there; a table never goes
})
const fib_tables = DEFINE_STATIC('fib_tables', LIST).tables

/** fib_get_table - or null: nobody has written there yet. Table 0 is the main one. @context any */
export function fib_get_table(id: number): fib_table | null {
  return TB.at(i32[(fib_tables >> 2) + (id === RT_TABLE_UNSPEC ? RT_TABLE_MAIN : id)]!)
}

/** fib_new_table - the table, made if need be. @context process @locks rtnl is held @returns null: no memory */
export function fib_new_table(id: number): fib_table | null {
  const known = fib_get_table(id)
  if (known !== null) return known
  const tb = kmem_cache_alloc(tb_cache)
  if (tb === null) return null
  table_init(tb, id)
  rcu_assign_pointer(fib_tables + id * 4, tb.addr)
  return tb
}

function table_init(tb: fib_table, id: number): void {
  tb.tb_id = id
  tb.fn_zone_list = null
  for (let k = 0; k < 33; k++) i32[(tb.fn_zones >> 2) + k] = 0
}

/** fib_tables_each - every table there is, by number. @context any */
export function fib_tables_each(each: (tb: fib_table, id: number) => void): void {
  for (let id = 1; id <= RT_TABLE_MAX; id++) {
    const tb = fib_get_table(id)
    if (tb !== null) each(tb, id)
  }
}

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
  res.table = tb.addr
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

/** fib_find_alias - the first of this tos whose priority is not lower, or the first behind all such. */
function fib_find_alias(f: fib_node | null, tos: number, priority: number): fib_alias | null {
  let fa = f === null ? null : f.fn_alias
  while (fa !== null && (fa.fa_tos > tos || (fa.fa_tos === tos && fa.fa_info!.fib_priority < priority))) fa = fa.next
  return fa
}

/** What the flags of a request make of a route that is there already. @returns where the new one goes before, or an errno */
function place_of(
  fa: fib_alias | null,
  spec: RouteSpec,
  scope: number,
  fi: fib_info,
  flags: number,
): fib_alias | null | number {
  const same = (a: fib_alias): boolean => a.fa_tos === (spec.tos ?? 0) && a.fa_info!.fib_priority === fi.fib_priority
  if (fa !== null && same(fa)) {
    if ((flags & NLM_F_EXCL) !== 0) return -EEXIST
    let at: fib_alias | null = fa
    for (; at !== null && same(at); at = at.next)
      if (at.fa_type === spec.type && at.fa_scope === scope && at.fa_info === fi) return -EEXIST
    if ((flags & NLM_F_APPEND) !== 0) fa = at
  }
  return (flags & NLM_F_CREATE) === 0 ? -ENOENT : fa
}

/** Put what is meant into the place of an equal route. @consumes a reference of fi */
function replace(
  fz: fn_zone,
  key: number,
  fa: fib_alias,
  fi: fib_info,
  tb: fib_table,
  spec: RouteSpec,
  scope: number,
): void {
  const dropped = fa.fa_info!
  write_lock_bh(fib_hash_lock)
  fa.fa_info = fi
  fa.fa_type = spec.type
  fa.fa_scope = scope
  write_unlock_bh(fib_hash_lock)
  fib_release_info(dropped)
  rtmsg_fib(RTM_NEWROUTE, route_of(fz, key, fa), tb.tb_id, spec.request)
}

function route_of(fz: fn_zone, key: number, fa: fib_alias): RouteDump {
  const { fa_tos: tos, fa_type: type, fa_scope: scope } = fa
  return { dst: key, prefixlen: fz.fz_order, tos, type, scope, info: fa.fa_info! }
}

/**
 * fn_hash_insert - add a route, or change one: NLM_F_CREATE and NLM_F_EXCL unless the request says otherwise.
 * @context process @locks rtnl is held; fib_hash_lock @returns 0, -EEXIST, -ENOENT, -EINVAL, ...
 */
export function fn_hash_insert(tb: fib_table, spec: RouteSpec, scope: number): number {
  const { prefixlen, dst } = spec
  const flags = spec.nlflags ?? NLM_F_CREATE | (spec.append === true ? NLM_F_APPEND : NLM_F_EXCL)
  if (prefixlen < 0 || prefixlen > 32) return -EINVAL
  const fz = zone_at(tb, prefixlen) ?? fn_new_zone(tb, prefixlen)
  if (fz === null) return -ENOMEM
  if ((dst & ~fz.fz_mask) !== 0) return -EINVAL
  const fi = fib_create_info(spec)
  if (typeof fi === 'number') return fi
  if (fz.fz_nent > fz.fz_divisor * 2 && (prefixlen === 32 || 1 << prefixlen > fz.fz_divisor || prefixlen === 31))
    fn_rehash_zone(fz)
  const tos = spec.tos ?? 0
  const f = find_node(fz, dst)
  const first = fib_find_alias(f, tos, fi.fib_priority)
  if (
    first !== null &&
    (flags & (NLM_F_EXCL | NLM_F_REPLACE)) === NLM_F_REPLACE &&
    first.fa_tos === tos &&
    first.fa_info!.fib_priority === fi.fib_priority
  ) {
    replace(fz, dst, first, fi, tb, spec, scope)
    return 0
  }
  const before = place_of(first, spec, scope, fi, flags)
  const fa = typeof before === 'number' ? null : kmem_cache_alloc(fa_cache)
  const fresh = fa === null || f !== null ? null : kmem_cache_alloc(fn_cache)
  if (typeof before === 'number' || fa === null || (f === null && fresh === null)) {
    if (fa !== null) kmem_cache_free(fa_cache, fa)
    fib_release_info(fi)
    return typeof before === 'number' ? before : -ENOMEM
  }
  fa.fa_info = fi
  fa.fa_tos = tos
  fa.fa_type = spec.type
  fa.fa_scope = scope
  write_lock_bh(fib_hash_lock)
  if (fresh !== null) insert_node(fz, fresh, dst)
  insert_alias((f ?? fresh)!, fa, before)
  write_unlock_bh(fib_hash_lock)
  rtmsg_fib(RTM_NEWROUTE, route_of(fz, dst, fa), tb.tb_id, spec.request)
  return 0
}

/** @locks fib_hash_lock is held for writing */
function insert_node(fz: fn_zone, f: fib_node, key: number): void {
  f.fn_key = key
  f.fn_alias = null
  const slot = (fz.fz_hash >> 2) + fn_hash(key, fz)
  f.next = FN.at(i32[slot])
  i32[slot] = f.addr
  fz.fz_nent++
}

/** @locks fib_hash_lock is held for writing */
function insert_alias(f: fib_node, fa: fib_alias, before: fib_alias | null): void {
  fa.next = before
  let last: fib_alias | null = null
  for (let at = f.fn_alias; at !== before; at = at!.next) last = at
  if (last === null) f.fn_alias = fa
  else last.next = fa
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
  rtmsg_fib(RTM_DELROUTE, route_of(fz, f.fn_key, fa), tb.tb_id, want.request)
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

/**
 * fn_hash_defaults - the default routes of a table that are as good as the one that was found, it first, while `each` says so.
 * @locks fib_hash_lock for reading
 */
export function fn_hash_defaults(res: fib_result, each: (fi: fib_info) => void): void {
  read_lock_bh(fib_hash_lock)
  const fz = zone_at(TB.ref(res.table), 0)
  const f = fz === null ? null : find_node(fz, 0)
  for (let fa = f === null ? null : f.fn_alias; fa !== null; fa = fa.next) {
    if (fa.fa_scope !== res.scope || fa.fa_type !== RTN_UNICAST) continue
    if (fa.fa_info!.fib_priority > res.fi!.fib_priority) break
    each(fa.fa_info!)
  }
  read_unlock_bh(fib_hash_lock)
}

/** fn_hash_dump - every route, the longest prefixes first. @context process @locks rtnl is held */
export function fn_hash_dump(tb: fib_table, each: (route: RouteDump) => void): void {
  fn_hash_dump_from(tb, [0, 0, 0], route => {
    each(route)
    return true
  })
}

/**
 * fn_hash_dump_from - every route from a place on (zone, bucket, routes of it), until `each` says false: then the place is its.
 * @context any @locks fib_hash_lock for reading @returns whether all were seen
 */
export function fn_hash_dump_from(
  tb: fib_table,
  place: [number, number, number],
  each: (route: RouteDump) => boolean,
): boolean {
  let z = 0
  let all = true
  read_lock_bh(fib_hash_lock)
  for (let fz = tb.fn_zone_list; fz !== null && all; fz = fz.fz_next, z++) {
    if (z < place[0]) continue
    if (z > place[0]) place[1] = place[2] = 0
    place[0] = z
    all = dump_zone(fz, place, each)
  }
  read_unlock_bh(fib_hash_lock)
  return all
}

function dump_zone(fz: fn_zone, place: [number, number, number], each: (route: RouteDump) => boolean): boolean {
  for (let b = place[1]; b < fz.fz_divisor; b++) {
    const skip = b === place[1] ? place[2] : 0
    let n = 0
    for (let f = FN.at(i32[(fz.fz_hash >> 2) + b]); f !== null; f = f.next) {
      for (let fa = f.fn_alias; fa !== null; fa = fa.next) {
        if (n++ < skip || each(route_of(fz, f.fn_key, fa))) continue
        place[1] = b
        place[2] = n - 1
        return false
      }
    }
  }
  return true
}

/** fib_hash_init - @context boot, CPU 0 */
export function fib_hash_init(): void {
  rwlock_init(fib_hash_lock)
  i32.fill(0, fib_tables >> 2, (fib_tables >> 2) + RT_TABLE_MAX + 1)
  for (const [tb, id] of [
    [ip_fib_local_table, RT_TABLE_LOCAL],
    [ip_fib_main_table, RT_TABLE_MAIN],
  ] as const) {
    table_init(tb, id)
    i32[(fib_tables >> 2) + id] = tb.addr
  }
}

/** fib_hash_exit - all routes, zones and tables back, for the leak audit. @context process, or a machine at rest */
export function fib_hash_exit(): void {
  fib_tables_each((tb, id) => {
    fn_hash_flush(tb, true)
    for (let fz = tb.fn_zone_list; fz !== null; ) {
      const next: fn_zone | null = fz.fz_next
      kfree(fz.fz_hash)
      kmem_cache_free(fz_cache, fz)
      fz = next
    }
    table_init(tb, id)
    if (tb === ip_fib_local_table || tb === ip_fib_main_table) return
    i32[(fib_tables >> 2) + id] = 0
    kmem_cache_free(tb_cache, tb)
  })
}
