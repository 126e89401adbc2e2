/**
 * fib_semantics.ts - what a route means: next hops, shared between routes that mean the same.
 *
 * Lock charter
 *   fib_info_lock (rwlock) guards the two hashes of fib_info, the hash of next hops by device, reference counts and the
 *   DEAD flags. fib_hash_lock (fib_hash.ts) may be held when it is taken, and it when fib_multipath_lock is
 *   (fib_multipath.ts), never the reverse. Nothing else is called under it.
 *   A lookup's result holds no reference: it is used up before the caller's softirq or bh-off section ends, and a
 *   fib_info is freed after a grace period of rcu_bh.
 */

import { by, bytes, embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { INIT_LIST_HEAD, LIST, list_add, list_del_init } from '../../abi/list.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { EACCES, EAGAIN, EHOSTUNREACH, EINVAL, ENETDOWN, ENODEV, ENOMEM } from '../../lib/errno.js'
import { MAX_FIB_INFOS } from '../../lib/limits.js'
import { kfree, kmalloc } from '../../mm/kmalloc.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import { call_rcu_bh, RCU_HEAD, type rcu_head } from '../../rcu/rcupdate.js'
import { local_bh_disable, local_bh_enable } from '../../sync/bh.js'
import { refcount_dec_and_test } from '../../sync/refcount.js'
import {
  RWLOCK,
  read_lock_bh,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../../sync/rwlock.js'
import { dev_hold, dev_put } from '../core/netdevice.js'
import { IFF_UP, type net_device } from '../core/types.js'
import { inet_select_addr } from './devinet.js'
import { inet_addr_is_local, inet_addr_type } from './fib_frontend.js'
import { fib_multipath_init } from './fib_multipath.js'
import { fib_lookup } from './fib_rules.js'
import {
  FIB_INFO,
  FIB_MAX_NHS,
  FIB_NH,
  FIB_RESULT,
  type fib_info,
  fib_metric,
  type fib_nh,
  fib_nh_of,
  type fib_result,
  type RouteMatch,
  type RouteSpec,
  RT_SCOPE_HOST,
  RT_SCOPE_LINK,
  RT_SCOPE_NOWHERE,
  RT_SCOPE_UNIVERSE,
  RTAX_MAX,
  RTAX_MTU,
  RTN_BLACKHOLE,
  RTN_BROADCAST,
  RTN_LOCAL,
  RTN_MULTICAST,
  RTN_PROHIBIT,
  RTN_THROW,
  RTN_UNICAST,
  RTN_UNREACHABLE,
  RTNH_F_DEAD,
  RTNH_F_ONLINK,
  RTNH_F_PERVASIVE,
  RTPROT_STATIC,
} from './fib_types.js'

const i32 = RAM.i32
const DEVINDEX_HASHSIZE = 256

/** A fib_info and the head it is freed by. */
class fib_info_box extends Struct {
  declare info: fib_info
  declare rcu: rcu_head
}
const BOX: Layout<fib_info_box> = layout('fib_info_box', fib_info_box, { info: embed(FIB_INFO), rcu: embed(RCU_HEAD) })
const info_cache = kmem_cache_create('ip_fib_info', BOX, () => MAX_FIB_INFOS)

class fib_info_tables extends Struct {
  declare lock: rwlock_t
  declare hash: number
  declare lhash: number
  declare size: number
  declare count: number
  declare devhash: number
}
const TABLES: Layout<fib_info_tables> = layout('fib_info_tables', fib_info_tables, {
  lock: embed(RWLOCK),
  hash: by('lock', word), // addresses of arrays of list heads, `size` each
  lhash: by('lock', word),
  size: by('lock', word),
  count: by('lock', word),
  devhash: by('lock', bytes(DEVINDEX_HASHSIZE * 4)),
})
export const fib_infos = DEFINE_STATIC('fib_info_tables', TABLES)
const tables = fib_infos
const scratch = DEFINE_PER_CPU('fib_gateway_result', FIB_RESULT).mine

/** errno and scope by route type. */
export function fib_type_error(type: number): number {
  if (type === RTN_BLACKHOLE) return -EINVAL
  if (type === RTN_UNREACHABLE) return -EHOSTUNREACH
  if (type === RTN_PROHIBIT) return -EACCES
  if (type === RTN_THROW) return -EAGAIN
  return type === RTN_UNICAST || type === RTN_LOCAL || type === RTN_BROADCAST || type === RTN_MULTICAST ? 0 : -EINVAL
}
function fib_type_scope(type: number): number {
  if (type === RTN_LOCAL) return RT_SCOPE_HOST
  return type === RTN_BROADCAST ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE
}

// ---- the two hashes -------------------------------------------------------------------------------------------------

function fib_info_hashfn(nhs: number, protocol: number, prefsrc: number, priority: number): number {
  const mask = tables.size - 1
  const val = nhs ^ protocol ^ prefsrc ^ priority
  return (val ^ (val >>> 7) ^ (val >>> 12)) & mask
}
export function fib_laddr_hashfn(addr: number): number {
  return (addr ^ (addr >>> 7) ^ (addr >>> 14)) & (tables.size - 1)
}
export function fib_devindex_hashfn(ifindex: number): number {
  return (ifindex ^ (ifindex >> 8)) & (DEVINDEX_HASHSIZE - 1)
}

function new_heads(size: number): number {
  const at = kmalloc(size * 8)
  if (at !== 0) for (let k = 0; k < size; k++) INIT_LIST_HEAD(LIST.ref(at + k * 8))
  return at
}

/** Double both hashes. @locks fib_info_lock is held for writing */
function grow(): boolean {
  const size = tables.size === 0 ? 1 : tables.size * 2
  const hash = new_heads(size)
  const lhash = new_heads(size)
  if (hash === 0 || lhash === 0) {
    if (hash !== 0) kfree(hash)
    if (lhash !== 0) kfree(lhash)
    return tables.size > 0 // longer chains then
  }
  const old = tables.hash
  const old_l = tables.lhash
  const old_size = tables.size
  tables.hash = hash
  tables.lhash = lhash
  tables.size = size
  for (let k = 0; k < old_size; k++) {
    const head = old + k * 8
    while (i32[head >> 2] !== head) rehash(FIB_INFO.container_of('fib_hash', i32[head >> 2]))
  }
  if (old !== 0) kfree(old)
  if (old_l !== 0) kfree(old_l)
  return true
}

function rehash(fi: fib_info): void {
  list_del_init(fi.fib_hash)
  if (fi.fib_prefsrc !== 0) list_del_init(fi.fib_lhash)
  link(fi)
}

function link(fi: fib_info): void {
  const k = fib_info_hashfn(fi.fib_nhs, fi.fib_protocol, fi.fib_prefsrc, fi.fib_priority)
  list_add(fi.fib_hash, LIST.ref(tables.hash + k * 8))
  if (fi.fib_prefsrc !== 0) list_add(fi.fib_lhash, LIST.ref(tables.lhash + fib_laddr_hashfn(fi.fib_prefsrc) * 8))
}

function same_metrics(a: fib_info, b: fib_info): boolean {
  for (let k = 1; k <= RTAX_MAX; k++) if (fib_metric(a, k) !== fib_metric(b, k)) return false
  return true
}

function same(a: fib_info, b: fib_info): boolean {
  if (a.fib_nhs !== b.fib_nhs || a.fib_protocol !== b.fib_protocol || a.fib_prefsrc !== b.fib_prefsrc) return false
  if (a.fib_priority !== b.fib_priority || !same_metrics(a, b) || ((a.fib_flags ^ b.fib_flags) & ~RTNH_F_DEAD) !== 0)
    return false
  for (let k = 0; k < a.fib_nhs; k++) {
    const x = fib_nh_of(a, k)
    const y = fib_nh_of(b, k)
    if (x.nh_oif !== y.nh_oif || x.nh_gw !== y.nh_gw || x.nh_scope !== y.nh_scope || x.nh_weight !== y.nh_weight)
      return false
    if (((x.nh_flags ^ y.nh_flags) & ~RTNH_F_DEAD) !== 0) return false
  }
  return true
}

/** fib_find_info - one that means the same, or null. @locks fib_info_lock is held */
function fib_find_info(nfi: fib_info): fib_info | null {
  if (tables.size === 0) return null
  const head = tables.hash + fib_info_hashfn(nfi.fib_nhs, nfi.fib_protocol, nfi.fib_prefsrc, nfi.fib_priority) * 8
  for (let at = i32[head >> 2]; at !== head; at = i32[at >> 2]) {
    const fi = FIB_INFO.container_of('fib_hash', at)
    if (fi.fib_dead === 0 && same(nfi, fi)) return fi
  }
  return null
}

// ---- life -----------------------------------------------------------------------------------------------------------

function free_fib_info_rcu(head: number): void {
  const box = BOX.container_of('rcu', head)
  for (let k = 0; k < box.info.fib_nhs; k++) {
    const dev = fib_nh_of(box.info, k).nh_dev
    if (dev !== null) dev_put(dev)
  }
  kmem_cache_free(info_cache, box)
}
const free_fib_info_sym = symbol('free_fib_info', free_fib_info_rcu)
const CLNTREF = FIB_INFO.offset('fib_clntref')

/** fib_info_put - @consumes a reference of a client */
export function fib_info_put(fi: fib_info): void {
  if (refcount_dec_and_test(fi.addr + CLNTREF)) call_rcu_bh(BOX.ref(fi.addr).rcu, free_fib_info_sym)
}

/** fib_release_info - a route less uses it. @locks fib_info_lock */
export function fib_release_info(fi: fib_info): void {
  write_lock_bh(tables.lock)
  fi.fib_treeref--
  const last = fi.fib_treeref === 0
  if (last) {
    list_del_init(fi.fib_hash)
    if (fi.fib_prefsrc !== 0) list_del_init(fi.fib_lhash)
    for (let k = 0; k < fi.fib_nhs; k++) unlink_nh(fib_nh_of(fi, k))
    fi.fib_dead = 1
    tables.count--
  }
  write_unlock_bh(tables.lock)
  if (last) fib_info_put(fi)
}

function unlink_nh(nh: fib_nh): void {
  if (nh.nh_dev === null) return
  let slot = tables.devhash + fib_devindex_hashfn(nh.nh_oif) * 4
  while (i32[slot >> 2] !== 0 && i32[slot >> 2] !== nh.addr) slot = i32[slot >> 2] + NEXT
  if (i32[slot >> 2] === nh.addr) i32[slot >> 2] = nh.nh_next
}
const NEXT = FIB_NH.offset('nh_next')

/** The device of a gateway, by asking the FIB for it. @returns 0, or -errno */
function resolve_gateway(nh: fib_nh, scope: number): number {
  local_bh_disable()
  const err = fib_lookup(nh.nh_gw, 0, 0, 0, nh.nh_oif, Math.max(scope + 1, RT_SCOPE_LINK), scratch)
  const { type, scope: found } = scratch
  const dev = err === 0 ? fib_res_dev(scratch) : null
  if (dev !== null) dev_hold(dev)
  local_bh_enable()
  if (err !== 0) return err
  if (dev === null) return -EINVAL
  if (type !== RTN_UNICAST && type !== RTN_LOCAL) {
    dev_put(dev)
    return -EINVAL
  }
  nh.nh_scope = found
  nh.nh_oif = dev.ifindex
  nh.nh_dev = dev
  return (dev.flags & IFF_UP) === 0 ? -ENETDOWN : 0
}

function set_nh(nh: fib_nh, dev: net_device, scope: number): void {
  dev_hold(dev)
  nh.nh_dev = dev
  nh.nh_oif = dev.ifindex
  nh.nh_scope = scope
}

/** fib_check_nh - where a next hop is, and how near; takes a reference of its device. @returns 0, or -errno */
function fib_check_nh(spec: RouteSpec, nh: fib_nh, dev: net_device | undefined, scope: number): number {
  if (scope === RT_SCOPE_HOST) {
    if (spec.nexthops.length !== 1 || nh.nh_gw !== 0) return -EINVAL
    if (dev === undefined) return -ENODEV
    set_nh(nh, dev, RT_SCOPE_NOWHERE) // an address of our own is one on a device that is down as well
    return 0
  }
  if (nh.nh_gw === 0) {
    if ((nh.nh_flags & (RTNH_F_PERVASIVE | RTNH_F_ONLINK)) !== 0) return -EINVAL
    if (dev === undefined || dev.ip_ptr === 0) return -ENODEV
    if ((dev.flags & IFF_UP) === 0) return -ENETDOWN
    set_nh(nh, dev, RT_SCOPE_HOST)
    return 0
  }
  if ((nh.nh_flags & RTNH_F_ONLINK) === 0) return resolve_gateway(nh, scope)
  if (scope >= RT_SCOPE_LINK || address_type(nh.nh_gw) !== RTN_UNICAST) return -EINVAL
  if (dev === undefined) return -ENODEV
  if ((dev.flags & IFF_UP) === 0) return -ENETDOWN
  set_nh(nh, dev, RT_SCOPE_LINK)
  return 0
}

function address_type(addr: number): number {
  local_bh_disable()
  const type = inet_addr_type(addr)
  local_bh_enable()
  return type
}

function fill_nexthops(fi: fib_info, spec: RouteSpec, scope: number): number {
  let err = 0
  for (let k = 0; k < spec.nexthops.length && err === 0; k++) {
    const hop = spec.nexthops[k]!
    const nh = fib_nh_of(fi, k)
    nh.nh_parent = fi.addr
    nh.nh_flags = hop.flags ?? 0
    nh.nh_weight = hop.weight ?? 1
    nh.nh_power = 0
    nh.nh_gw = hop.gw
    nh.nh_oif = hop.dev?.ifindex ?? 0
    fi.fib_nhs = k + 1
    err = fib_check_nh(spec, nh, hop.dev, scope)
  }
  return err
}

/** Is the source address that a route names ours? A local route may just be making it so. */
function prefsrc_is_ours(spec: RouteSpec): boolean {
  const { prefsrc = 0 } = spec
  return prefsrc === 0 || (spec.type === RTN_LOCAL && spec.dst === prefsrc) || inet_addr_is_local(prefsrc)
}

function discard(fi: fib_info): void {
  for (let k = 0; k < fi.fib_nhs; k++) {
    const dev = fib_nh_of(fi, k).nh_dev
    if (dev !== null) dev_put(dev)
  }
  kmem_cache_free(info_cache, BOX.ref(fi.addr))
}

/** fib_create_info - what the route means, shared when it is known. @context process @returns info, or -errno */
export function fib_create_info(spec: RouteSpec): fib_info | number {
  const scope = spec.scope ?? fib_type_scope(spec.type)
  if (spec.type < RTN_UNICAST || spec.type > RTN_THROW || scope < fib_type_scope(spec.type)) return -EINVAL
  if (spec.nexthops.length > FIB_MAX_NHS) return -EINVAL
  const errors = fib_type_error(spec.type) !== 0
  if (errors !== (spec.nexthops.length === 0) || scope > (errors ? RT_SCOPE_NOWHERE : RT_SCOPE_HOST)) return -EINVAL
  const box = kmem_cache_alloc(info_cache)
  if (box === null) return -ENOMEM
  i32.fill(0, box.$w, box.$w + (BOX.size >> 2))
  const fi = FIB_INFO.ref(box.addr)
  INIT_LIST_HEAD(fi.fib_hash)
  INIT_LIST_HEAD(fi.fib_lhash)
  fi.fib_protocol = spec.protocol ?? RTPROT_STATIC
  fi.fib_priority = spec.priority ?? 0
  fi.fib_prefsrc = spec.prefsrc ?? 0
  for (let k = 1; k <= RTAX_MAX; k++) i32[(fi.fib_metrics >> 2) + k - 1] = spec.metrics?.[k] ?? 0
  if (spec.mtu !== undefined) i32[(fi.fib_metrics >> 2) + RTAX_MTU - 1] = spec.mtu
  let err = fill_nexthops(fi, spec, scope)
  if (err === 0 && !prefsrc_is_ours(spec)) err = -EINVAL
  if (err !== 0) {
    discard(fi)
    return err
  }
  write_lock_bh(tables.lock)
  const known = fib_find_info(fi)
  if (known !== null) {
    known.fib_treeref++
    write_unlock_bh(tables.lock)
    discard(fi)
    return known
  }
  if (tables.count >= tables.size && !grow()) {
    write_unlock_bh(tables.lock)
    discard(fi)
    return -ENOMEM
  }
  publish(fi)
  write_unlock_bh(tables.lock)
  return fi
}

/** fib_nh_match - is this what a route to be deleted is said to mean? */
export function fib_nh_match(want: RouteMatch, fi: fib_info): boolean {
  if (want.protocol !== undefined && fi.fib_protocol !== want.protocol) return false
  if (want.priority !== undefined && fi.fib_priority !== want.priority) return false
  if (want.prefsrc !== undefined && fi.fib_prefsrc !== want.prefsrc) return false
  const { nexthops = [] } = want
  if (nexthops.length > fi.fib_nhs) return false
  return nexthops.every(({ gw, dev }, k) => {
    const nh = fib_nh_of(fi, k)
    return (dev === undefined || nh.nh_oif === dev.ifindex) && (gw === 0 || nh.nh_gw === gw)
  })
}

function publish(fi: fib_info): void {
  tables.count++
  fi.fib_treeref = 1
  fi.fib_clntref = 1
  link(fi)
  for (let k = 0; k < fi.fib_nhs; k++) {
    const nh = fib_nh_of(fi, k)
    const slot = (tables.devhash >> 2) + fib_devindex_hashfn(nh.nh_oif)
    nh.nh_next = i32[slot]
    i32[slot] = nh.addr
  }
}

// ---- use ------------------------------------------------------------------------------------------------------------

/**
 * fib_semantic_match - does this route answer? Dead next hops do not count. Fills res.
 * @returns 0 yes, 1 look further, -errno: the answer is no way
 */
export function fib_semantic_match(
  fi: fib_info,
  type: number,
  scope: number,
  prefixlen: number,
  oif: number,
  res: fib_result,
): number {
  const err = fib_type_error(type)
  if (err === 0) {
    if ((fi.fib_flags & RTNH_F_DEAD) !== 0) return 1
    let k = 0
    for (; k < fi.fib_nhs; k++) {
      const nh = fib_nh_of(fi, k)
      if ((nh.nh_flags & RTNH_F_DEAD) === 0 && (oif === 0 || oif === nh.nh_oif)) break
    }
    if (k === fi.fib_nhs) return 1
    res.nh_sel = k
  }
  res.prefixlen = prefixlen
  res.type = type
  res.scope = scope
  res.fi = fi
  return err
}

/** The next hop that a result chose. */
export function fib_res_dev(res: fib_result): net_device | null {
  return res.fi === null ? null : fib_nh_of(res.fi, res.nh_sel).nh_dev
}
/** Its gateway, when it is a neighbour; 0: the destination is on the link. */
export function fib_res_gw(res: fib_result): number {
  if (res.fi === null) return 0
  const nh = fib_nh_of(res.fi, res.nh_sel)
  return nh.nh_gw !== 0 && nh.nh_scope === RT_SCOPE_LINK ? nh.nh_gw : 0
}
/** Source address for packets of our own. */
export function fib_res_prefsrc(res: fib_result): number {
  if (res.fi === null) return 0
  if (res.fi.fib_prefsrc !== 0) return res.fi.fib_prefsrc
  const dev = fib_res_dev(res)
  return dev === null ? 0 : inet_select_addr(dev, fib_res_gw(res), res.scope)
}

/** ip_fib_check_default - is it the gateway of some route over this device? @context softirq @locks fib_info_lock for reading */
export function ip_fib_check_default(gw: number, dev: net_device): boolean {
  let found = false
  read_lock_bh(tables.lock)
  for (let at = i32[(tables.devhash >> 2) + fib_devindex_hashfn(dev.ifindex)]; at !== 0 && !found; ) {
    const nh = FIB_NH.ref(at)
    found = nh.nh_dev === dev && nh.nh_gw === gw && (nh.nh_flags & RTNH_F_DEAD) === 0
    at = nh.nh_next
  }
  read_unlock_bh(tables.lock)
  return found
}

/** fib_info_count - in use, for tests and reports. */
export function fib_info_count(): number {
  return tables.count
}

/** fib_info_init - @context boot, CPU 0 */
export function fib_info_init(): void {
  rwlock_init(tables.lock)
  fib_multipath_init()
  tables.hash = 0
  tables.lhash = 0
  tables.size = 0
  tables.count = 0
}

/** fib_info_exit - the hash arrays back, once every route is gone; for the leak audit. */
export function fib_info_exit(): void {
  if (tables.count > 0 || tables.size === 0) return
  kfree(tables.hash)
  kfree(tables.lhash)
  tables.size = 0
}
