/** fib_types.ts - the structs of the forwarding information base; no behaviour. */
import { atomic, by, bytes, embed, konst, type Layout, layout, own, ptr, Struct, word } from '../../abi/layout.js'
import { LIST, type list_head } from '../../abi/list.js'
import { RAM } from '../../arch/ram.js'
import { NETDEV, type net_device } from '../core/types.js'

// route types
export const RTN_UNSPEC = 0
export const RTN_UNICAST = 1
export const RTN_LOCAL = 2
export const RTN_BROADCAST = 3
export const RTN_MULTICAST = 5
export const RTN_BLACKHOLE = 6
export const RTN_UNREACHABLE = 7
export const RTN_PROHIBIT = 8
export const RTN_THROW = 9
// scopes: the larger, the nearer
export const RT_SCOPE_UNIVERSE = 0
export const RT_SCOPE_LINK = 253
export const RT_SCOPE_HOST = 254
export const RT_SCOPE_NOWHERE = 255
// who brought a route
export const RTPROT_UNSPEC = 0
export const RTPROT_REDIRECT = 1
export const RTPROT_KERNEL = 2
export const RTPROT_BOOT = 3
export const RTPROT_STATIC = 4
// next hop and info flags
export const RTNH_F_DEAD = 1
export const RTNH_F_PERVASIVE = 2
export const RTNH_F_ONLINK = 4

export const FIB_MAX_NHS = 8

// metrics of a route, from 1 on
export const RTAX_LOCK = 1 // bits of those that nobody may change, by 1 << number
export const RTAX_MTU = 2
export const RTAX_ADVMSS = 8
export const RTAX_HOPLIMIT = 10
export const RTAX_MAX = 12

export class fib_nh extends Struct {
  declare nh_dev: net_device | null
  declare nh_next: number
  declare nh_flags: number
  declare nh_scope: number
  declare nh_weight: number
  declare nh_power: number
  declare nh_oif: number
  declare nh_gw: number
  declare nh_parent: number
}
export const FIB_NH: Layout<fib_nh> = layout('fib_nh', fib_nh, {
  nh_dev: konst(ptr(() => NETDEV)),
  nh_next: by('fib_info_lock', word), // in the hash by device: address of the next one
  nh_flags: atomic(word), // RTNH_F_DEAD: changed under fib_info_lock and fib_multipath_lock, looked at by lookups without them
  nh_scope: konst(word), // that of the gateway, nearer than the route's
  nh_weight: konst(word),
  nh_power: by('fib_multipath_lock', word),
  nh_oif: konst(word),
  nh_gw: konst(word),
  nh_parent: konst(word), // address of the fib_info
})
export const FIB_NH_SIZE = FIB_NH.size

export class fib_info extends Struct {
  declare fib_hash: list_head
  declare fib_lhash: list_head
  declare fib_treeref: number
  declare fib_clntref: number
  declare fib_dead: number
  declare fib_flags: number
  declare fib_protocol: number
  declare fib_prefsrc: number
  declare fib_priority: number
  declare fib_metrics: number
  declare fib_nhs: number
  declare fib_power: number
  declare fib_nh: number
}
export const FIB_INFO: Layout<fib_info> = layout('fib_info', fib_info, {
  fib_hash: by('fib_info_lock', embed(LIST)),
  fib_lhash: by('fib_info_lock', embed(LIST)),
  fib_treeref: by('fib_info_lock', word), // routes that use it
  fib_clntref: atomic(word), // routes and lookups that use it
  fib_dead: by('fib_info_lock', word),
  fib_flags: atomic(word), // RTNH_F_DEAD: changed under fib_info_lock, looked at by lookups under fib_hash_lock
  fib_protocol: konst(word),
  fib_prefsrc: konst(word),
  fib_priority: konst(word),
  fib_metrics: konst(bytes(RTAX_MAX * 4)), // RTAX_*, from 1 on; 0: not said
  fib_nhs: konst(word),
  fib_power: by('fib_multipath_lock', word),
  fib_nh: konst(bytes(FIB_MAX_NHS * FIB_NH_SIZE)),
})

export class fib_result extends Struct {
  declare prefixlen: number
  declare nh_sel: number
  declare type: number
  declare scope: number
  declare fi: fib_info | null
  declare table: number
}
/** The answer of a lookup. */
export const FIB_RESULT: Layout<fib_result> = layout('fib_result', fib_result, {
  prefixlen: own(word),
  nh_sel: own(word),
  type: own(word),
  scope: own(word),
  fi: own(ptr(() => FIB_INFO)),
  table: own(word), // address of the table that it is from
})

/** fib_nh_of - next hop number `k`. */
export function fib_nh_of(fi: fib_info, k: number): fib_nh {
  return FIB_NH.ref(fi.fib_nh + k * FIB_NH_SIZE)
}

/** fib_metric - one metric of a route, 0: the route does not say. */
export function fib_metric(fi: fib_info, metric: number): number {
  return RAM.i32[(fi.fib_metrics >> 2) + metric - 1]!
}

/** Who asked for a change, for those who are told of it. */
export interface RouteRequest {
  pid: number
  seq: number
  echo: boolean
}

export interface NexthopSpec {
  gw: number
  /** Where to; nothing: where the gateway is found. */
  dev?: net_device
  weight?: number
  flags?: number
}

/** A route as configuration states it; an object of the slow path. */
export interface RouteSpec {
  dst: number
  prefixlen: number
  tos?: number
  type: number
  scope?: number
  protocol?: number
  priority?: number
  prefsrc?: number
  mtu?: number
  /** By RTAX_*. */
  metrics?: Record<number, number>
  nexthops: NexthopSpec[]
  /** Stand behind an equal route that means something else, instead of being refused (NLM_F_CREATE | NLM_F_APPEND). */
  append?: boolean
  /** NLM_F_*, if it is neither the one nor the other. */
  nlflags?: number
  request?: RouteRequest
}

/** What a route to be deleted must be like; what is not said does not matter. A gateway 0 means any. */
export interface RouteMatch extends Pick<RouteSpec, 'dst' | 'prefixlen' | 'tos' | 'type'> {
  scope?: number
  protocol?: number
  priority?: number
  prefsrc?: number
  nexthops?: { gw: number; dev?: net_device }[]
  request?: RouteRequest
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
