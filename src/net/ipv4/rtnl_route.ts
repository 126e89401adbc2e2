/**
 * rtnl_route.ts - RTM_*ROUTE: routes as programs see and change them (inet_rtm_newroute, inet_dump_fib, fib_dump_info of 2.6.11).
 * Changes come under rtnl; dumps take fib_hash_lock for reading. The route cache: rtnl_cache.ts.
 */
import { symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { EINVAL, ENOBUFS, ENODEV, ENOMEM, ESRCH } from '../../lib/errno.js'
import { dev_get_by_index, dev_put } from '../core/netdevice.js'
import { skb_put } from '../core/skbuff.js'
import { AF_INET } from '../core/sock_types.js'
import type { net_device, sk_buff } from '../core/types.js'
import {
  nlmsg_data,
  nlmsg_end,
  nlmsg_flags,
  nlmsg_put,
  nlmsg_room,
  nlmsg_seq,
  rta_addr,
  rta_data,
  rta_each,
  rta_nest,
  rta_nest_end,
  rta_payload,
  rta_put_addr,
  rta_put_u32,
  rta_u32,
} from '../netlink/nlmsg.js'
import {
  RTM_DELROUTE,
  RTM_GETROUTE,
  RTM_NEWROUTE,
  RTMGRP_IPV4_ROUTE,
  rtnl_notify,
  rtnl_register,
} from '../netlink/rtnetlink.js'
import { NLM_F_ECHO, NLM_F_MULTI, type netlink_callback, netlink_cb, nlmsg_align } from '../netlink/types.js'
import { rt_cache_flush_all } from './fib_frontend.js'
import {
  fib_get_table,
  fib_new_table,
  fn_hash_delete,
  fn_hash_dump_from,
  fn_hash_insert,
  RT_TABLE_DEFAULT,
  RT_TABLE_MAX,
} from './fib_hash.js'
import { fib_rules_changed } from './fib_rules.js'
import {
  FIB_MAX_NHS,
  type fib_info,
  fib_metric,
  fib_nh_of,
  type NexthopSpec,
  type RouteDump,
  type RouteMatch,
  type RouteRequest,
  type RouteSpec,
  RT_SCOPE_NOWHERE,
  RTAX_MAX,
  RTN_UNSPEC,
} from './fib_types.js'
import { inet_rtm_getroute_sym, ip_rt_dump } from './rtnl_cache.js'

const dv = RAM.dv
const i32 = RAM.i32
const u8 = RAM.u8

export const RTA_DST = 1
export const RTA_SRC = 2
export const RTA_IIF = 3
export const RTA_OIF = 4
export const RTA_GATEWAY = 5
export const RTA_PRIORITY = 6
export const RTA_PREFSRC = 7
export const RTA_METRICS = 8
export const RTA_MULTIPATH = 9
export const RTA_PROTOINFO = 10
export const RTA_FLOW = 11
export const RTA_CACHEINFO = 12
const RTA_MAX = 13
export const RTM_F_NOTIFY = 0x100
export const RTM_F_CLONED = 0x200

// struct rtmsg, by offset
const DST_LEN = 1
const SRC_LEN = 2
const TOS = 3
const TABLE = 4
const PROTOCOL = 5
const SCOPE = 6
const TYPE = 7
const FLAGS = 8
export const RTMSG_SIZE = 12
const RTNH_SIZE = 8
/** The most that a route's message takes: its header, addresses, metrics, next hops. */
const ROUTE_SPACE = 16 + RTMSG_SIZE + 6 * 8 + 4 + RTAX_MAX * 8 + 4 + FIB_MAX_NHS * (RTNH_SIZE + 8)

// ---- a route as a message -------------------------------------------------------------------------------------------

/** rtmsg_put - the fixed part of a route's message. @returns its address */
export function rtmsg_put(
  skb: sk_buff,
  head: { pid: number; seq: number; type: number; flags: number },
  r: {
    dst_len: number
    src_len?: number
    tos: number
    table: number
    protocol: number
    scope: number
    type: number
    flags: number
  },
): number {
  const nlh = nlmsg_put(skb, head.pid, head.seq, head.type, RTMSG_SIZE, head.flags)
  const rtm = nlmsg_data(nlh)
  u8[rtm] = AF_INET
  u8[rtm + DST_LEN] = r.dst_len
  u8[rtm + SRC_LEN] = r.src_len ?? 0
  u8[rtm + TOS] = r.tos
  u8[rtm + TABLE] = r.table
  u8[rtm + PROTOCOL] = r.protocol
  u8[rtm + SCOPE] = r.scope
  u8[rtm + TYPE] = r.type
  dv.setInt32(rtm + FLAGS, r.flags, true)
  return nlh
}

/** rtnetlink_put_metrics - those that are not 0, by number from 1 on. */
export function rtnetlink_put_metrics(skb: sk_buff, metric: (k: number) => number): void {
  const start = rta_nest(skb, RTA_METRICS)
  const empty = skb.tail
  for (let k = 1; k <= RTAX_MAX; k++) if (metric(k) !== 0) rta_put_u32(skb, k, metric(k))
  if (skb.tail !== empty) rta_nest_end(skb, start)
  else {
    skb.len -= skb.tail - start
    skb.tail = start
  }
}

function put_nexthops(skb: sk_buff, fi: fib_info): void {
  if (fi.fib_nhs === 1) {
    const nh = fib_nh_of(fi, 0)
    if (nh.nh_gw !== 0) rta_put_addr(skb, RTA_GATEWAY, nh.nh_gw)
    if (nh.nh_oif !== 0) rta_put_u32(skb, RTA_OIF, nh.nh_oif)
    return
  }
  if (fi.fib_nhs === 0) return
  const start = rta_nest(skb, RTA_MULTIPATH)
  for (let k = 0; k < fi.fib_nhs; k++) {
    const nh = fib_nh_of(fi, k)
    const rtnh = rta_nest(skb, (nh.nh_flags & 0xff) | ((nh.nh_weight - 1) << 8)) // a struct rtnexthop begins as an attribute does
    dv.setInt32(skb_put(skb, 4), nh.nh_oif, true)
    if (nh.nh_gw !== 0) rta_put_addr(skb, RTA_GATEWAY, nh.nh_gw)
    rta_nest_end(skb, rtnh)
  }
  rta_nest_end(skb, start)
}
/** fib_dump_info - @returns false: there is no room */
function fib_dump_info(
  skb: sk_buff,
  route: RouteDump,
  table: number,
  head: { pid: number; seq: number; type: number; flags: number },
): boolean {
  if (!nlmsg_room(skb, ROUTE_SPACE)) return false
  const { dst, prefixlen, tos, type, scope, info: fi } = route
  const nlh = rtmsg_put(skb, head, {
    ...{ dst_len: prefixlen, tos, table, protocol: fi.fib_protocol, scope, type, flags: fi.fib_flags },
  })
  if (prefixlen !== 0) rta_put_addr(skb, RTA_DST, dst)
  if (fi.fib_priority !== 0) rta_put_u32(skb, RTA_PRIORITY, fi.fib_priority)
  rtnetlink_put_metrics(skb, k => fib_metric(fi, k))
  if (fi.fib_prefsrc !== 0) rta_put_addr(skb, RTA_PREFSRC, fi.fib_prefsrc)
  put_nexthops(skb, fi)
  nlmsg_end(skb, nlh)
  return true
}

/** rtmsg_fib - tell RTMGRP_IPV4_ROUTE of a route that comes or goes. @context process @locks rtnl is held */
export function rtmsg_fib(event: number, route: RouteDump, table: number, request?: RouteRequest): void {
  const { pid = 0, seq = 0, echo = false } = request ?? {}
  const head = { pid, seq, type: event, flags: 0 }
  rtnl_notify(RTMGRP_IPV4_ROUTE, skb => fib_dump_info(skb, route, table, head), pid, echo)
}

/** inet_dump_fib - every table; with RTM_F_CLONED the route cache instead. @locks fib_hash_lock */
function inet_dump_fib(skb: sk_buff, cb: netlink_callback): number {
  const rtm = nlmsg_data(cb.nlh)
  if (cb.skb!.len >= 16 + RTMSG_SIZE && (dv.getInt32(rtm + FLAGS, true) & RTM_F_CLONED) !== 0)
    return ip_rt_dump(skb, cb)
  const at = cb.args >> 2 // table, zone, bucket, routes of it
  const head = { pid: netlink_cb(cb.skb!).pid, seq: nlmsg_seq(cb.nlh), type: RTM_NEWROUTE, flags: NLM_F_MULTI }
  let id = Math.max(i32[at]!, 1)
  const place: [number, number, number] = [i32[at + 1]!, i32[at + 2]!, i32[at + 3]!]
  for (; id <= RT_TABLE_MAX; id++) {
    const tb = fib_get_table(id)
    if (tb !== null && !fn_hash_dump_from(tb, place, route => fib_dump_info(skb, route, id, head))) break
    place.fill(0)
  }
  i32[at] = id
  for (let k = 0; k < 3; k++) i32[at + 1 + k] = place[k]!
  return skb.len
}
const inet_dump_fib_sym = symbol('inet_dump_fib', inet_dump_fib)

// ---- a message as a route -------------------------------------------------------------------------------------------

/** Next hops of RTA_MULTIPATH with their devices' numbers, or null: the attribute is broken. */
function read_multipath(rta: number): (NexthopSpec & { oif: number })[] | null {
  const hops: (NexthopSpec & { oif: number })[] = []
  let at = rta_data(rta)
  let left = rta_payload(rta)
  while (left >= RTNH_SIZE) {
    const len = dv.getUint16(at, true)
    if (len < RTNH_SIZE || len > left) return null
    const hop = { gw: 0, oif: dv.getInt32(at + 4, true), flags: u8[at + 2]!, weight: u8[at + 3]! + 1 }
    rta_each(at + RTNH_SIZE, len - RTNH_SIZE, (type, attr) => {
      if (type === RTA_GATEWAY && rta_payload(attr) >= 4) hop.gw = rta_addr(attr)
      return true
    })
    hops.push(hop)
    left -= nlmsg_align(len)
    at += nlmsg_align(len)
  }
  return hops.length === 0 || hops.length > FIB_MAX_NHS ? null : hops
}

/** Metrics by number, or null: one is unknown. */
function read_metrics(rta: number): Record<number, number> | null {
  const metrics: Record<number, number> = {}
  const good = rta_each(rta_data(rta), rta_payload(rta), (type, attr) => {
    if (type > RTAX_MAX || rta_payload(attr) < 4) return false
    if (type > 0) metrics[type] = rta_u32(attr)
    return true
  })
  return good ? metrics : null
}

/** What a message says of a route; devices by number, since they are looked up when all else is right. */
interface RouteMessage {
  hops: (NexthopSpec & { oif: number })[]
  spec: Omit<RouteSpec, 'nexthops'>
  table: number
}

function requested(nlh: number, skb: sk_buff): RouteRequest {
  return { pid: netlink_cb(skb).pid, seq: nlmsg_seq(nlh), echo: (nlmsg_flags(nlh) & NLM_F_ECHO) !== 0 }
}

/** read_route - @returns what it says, or -EINVAL */
function read_route(skb: sk_buff, nlh: number, rta: number[]): RouteMessage | number {
  for (let type = 1; type <= RTA_MAX; type++)
    if (rta[type - 1]! !== 0 && rta_payload(rta[type - 1]!) < 4) return -EINVAL
  const rtm = nlmsg_data(nlh)
  const attr = (type: number): number => rta[type - 1]!
  const addr = (type: number): number => (attr(type) === 0 ? 0 : rta_addr(attr(type)))
  const value = (type: number): number => (attr(type) === 0 ? 0 : rta_u32(attr(type)))
  const flags = dv.getInt32(rtm + FLAGS, true)
  const metrics = attr(RTA_METRICS) === 0 ? {} : read_metrics(attr(RTA_METRICS))
  let hops: RouteMessage['hops'] | null = []
  if (attr(RTA_MULTIPATH) !== 0) {
    hops = read_multipath(attr(RTA_MULTIPATH))
    if (hops !== null && attr(RTA_OIF) !== 0 && hops[0]!.oif !== value(RTA_OIF)) return -EINVAL
    if (hops !== null && attr(RTA_GATEWAY) !== 0 && hops[0]!.gw !== addr(RTA_GATEWAY)) return -EINVAL
  } else if (attr(RTA_OIF) !== 0 || attr(RTA_GATEWAY) !== 0)
    hops = [{ gw: addr(RTA_GATEWAY), oif: value(RTA_OIF), flags: flags & 0xff, weight: 1 }]
  if (hops === null || metrics === null) return -EINVAL
  return {
    hops,
    table: u8[rtm + TABLE]!,
    spec: {
      ...{ dst: addr(RTA_DST), prefixlen: u8[rtm + DST_LEN]!, tos: u8[rtm + TOS]!, type: u8[rtm + TYPE]! },
      ...{ scope: u8[rtm + SCOPE]!, protocol: u8[rtm + PROTOCOL]!, priority: value(RTA_PRIORITY) },
      ...{ prefsrc: addr(RTA_PREFSRC), metrics, nlflags: nlmsg_flags(nlh), request: requested(nlh, skb) },
    },
  }
}

/** With the devices of next hops, held. */
function with_devices<T>(hops: RouteMessage['hops'], f: (nexthops: NexthopSpec[]) => T): T {
  const devs = hops.map(hop => (hop.oif === 0 ? null : dev_get_by_index(hop.oif)))
  const nexthops = hops.map(({ gw, weight, flags }, k) => {
    const hop: NexthopSpec = { gw, weight: weight ?? 1, flags: flags ?? 0 }
    if (devs[k] !== null) hop.dev = devs[k]!
    return hop
  })
  const result = f(nexthops)
  for (const dev of devs) if (dev !== null) dev_put(dev)
  return result
}

/** A next hop over a device that is not there is none (2.6.11: fib_lookup finds no gateway over it, or ENODEV). */
function lacks_device(hops: RouteMessage['hops'], nexthops: NexthopSpec[]): boolean {
  return hops.some((hop, k) => hop.oif !== 0 && nexthops[k]!.dev === undefined)
}

/** inet_rtm_newroute - @locks rtnl is held @returns 0, -errno */
function inet_rtm_newroute(skb: sk_buff, nlh: number, rta: number[]): number {
  const m = read_route(skb, nlh, rta)
  if (typeof m === 'number') return m
  return fib_route_new(m.table, m.spec, m.hops)
}
const inet_rtm_newroute_sym = symbol('inet_rtm_newroute', inet_rtm_newroute)

/** fib_route_new - a route into a table, as netlink and ioctl ask for it. @context process @locks rtnl is held @returns 0, -errno */
export function fib_route_new(table: number, spec: Omit<RouteSpec, 'nexthops'>, hops: RouteMessage['hops']): number {
  const tb = fib_new_table(table)
  if (tb === null) return -ENOBUFS
  if (table === RT_TABLE_DEFAULT) fib_rules_changed()
  const err = with_devices(hops, nexthops =>
    lacks_device(hops, nexthops) ? -ENODEV : fn_hash_insert(tb, { ...spec, nexthops }, spec.scope ?? 0),
  )
  if (err === 0) rt_cache_flush_all()
  return err === -ENOMEM ? -ENOBUFS : err
}

/** inet_rtm_delroute - @locks rtnl is held @returns 0, -ESRCH, -EINVAL */
function inet_rtm_delroute(skb: sk_buff, nlh: number, rta: number[]): number {
  const m = read_route(skb, nlh, rta)
  return typeof m === 'number' ? m : fib_route_del(m.table, m.spec, m.hops)
}
const inet_rtm_delroute_sym = symbol('inet_rtm_delroute', inet_rtm_delroute)

/** fib_route_del - the first route of a table that is as is said; 0 is not said. @locks rtnl is held @returns 0, -ESRCH */
export function fib_route_del(table: number, spec: Omit<RouteSpec, 'nexthops'>, hops: RouteMessage['hops']): number {
  const tb = fib_get_table(table)
  if (tb === null) return -ESRCH
  const { dst, prefixlen, tos = 0, type, scope, protocol, priority, request } = spec
  if (prefixlen > 32) return -EINVAL
  const want: RouteMatch = { dst, prefixlen, tos, type: type === RTN_UNSPEC ? 0 : type }
  if (scope !== undefined && scope !== RT_SCOPE_NOWHERE) want.scope = scope
  if (protocol) want.protocol = protocol
  if (priority) want.priority = priority
  if (request !== undefined) want.request = request
  const err = with_devices(hops, nexthops => {
    if (lacks_device(hops, nexthops)) return -ESRCH
    const match = nexthops.map(({ gw, dev }): { gw: number; dev?: net_device } =>
      dev === undefined ? { gw } : { gw, dev },
    )
    return fn_hash_delete(tb, { ...want, nexthops: match })
  })
  if (err === 0) rt_cache_flush_all()
  return err
}

/** rtnl_route_init - @context boot, CPU 0 */
export function rtnl_route_init(): void {
  rtnl_register(AF_INET, RTM_NEWROUTE, inet_rtm_newroute_sym, 0)
  rtnl_register(AF_INET, RTM_DELROUTE, inet_rtm_delroute_sym, 0)
  rtnl_register(AF_INET, RTM_GETROUTE, inet_rtm_getroute_sym, inet_dump_fib_sym)
}
