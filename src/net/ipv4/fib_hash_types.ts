/** fib_hash_types.ts - the structs of the hash tables of routes; no behaviour. */
import { by, bytes, type Layout, layout, own, ptr, Struct, word } from '../../abi/layout.js'
import { MAX_FIB_NODES, MAX_FIB_TABLES } from '../../lib/limits.js'
import { kmem_cache_create } from '../../mm/slab.js'
import { FIB_INFO, type fib_info } from './fib_types.js'

export class fib_alias extends Struct {
  declare next: fib_alias | null
  declare fa_info: fib_info | null
  declare fa_tos: number
  declare fa_type: number
  declare fa_scope: number
}
export const FA: Layout<fib_alias> = layout('fib_alias', fib_alias, {
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
export class fib_node extends Struct {
  declare next: fib_node | null
  declare fn_key: number
  declare fn_alias: fib_alias | null
}
export const FN: Layout<fib_node> = layout('fib_node', fib_node, {
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
export const fn_cache = kmem_cache_create('ip_fib_hash', FN, () => MAX_FIB_NODES)
export const fa_cache = kmem_cache_create('ip_fib_alias', FA, () => MAX_FIB_NODES)

export class fn_zone extends Struct {
  declare fz_next: fn_zone | null
  declare fz_hash: number
  declare fz_nent: number
  declare fz_divisor: number
  declare fz_order: number
  declare fz_mask: number
}
/** Routes of one prefix length. */
export const FZ: Layout<fn_zone> = layout('fn_zone', fn_zone, {
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
export const fz_cache = kmem_cache_create('fn_zone', FZ, () => 33 * MAX_FIB_TABLES)

export class fib_table extends Struct {
  declare fn_zone_list: fn_zone | null
  declare fn_zones: number
  declare tb_id: number
}
export const TB: Layout<fib_table> = layout('fib_table', fib_table, {
  fn_zone_list: by(
    'fib_hash_lock',
    ptr(() => FZ),
  ), // longest prefix first
  fn_zones: by('fib_hash_lock', bytes(33 * 4)),
  tb_id: own(word),
})
export const tb_cache = kmem_cache_create('ip_fib_table', TB, () => MAX_FIB_TABLES)
