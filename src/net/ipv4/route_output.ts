/**
 * route_output.ts - the way of a packet of our own (ip_route_output_slow of 2.6.11): source address, device, cache entry.
 * No locks of its own; called with none held. The FIB takes its own for reading.
 */
import { DEFINE_PER_CPU } from '../../abi/section.js'
import { EINVAL, ENETUNREACH, ENOBUFS, ENODEV } from '../../lib/errno.js'
import { local_bh_disable, local_bh_enable } from '../../sync/bh.js'
import { loopback_dev } from '../core/loopback_dev.js'
import { dev_get_by_index, dev_put } from '../core/netdevice.js'
import { IFF_LOOPBACK, type net_device } from '../core/types.js'
import {
  ipv4_is_badclass,
  ipv4_is_local_multicast,
  ipv4_is_loopback,
  ipv4_is_multicast,
  ipv4_is_zeronet,
} from '../wire/ipv4.js'
import { in_dev_dst_flags, in_dev_get, inet_select_addr } from './devinet.js'
import { fib_select_default } from './fib_default.js'
import { ip_dev_find } from './fib_frontend.js'
import { fib_select_multipath } from './fib_multipath.js'
import { fib_lookup } from './fib_rules.js'
import { fib_res_dev, fib_res_gw, fib_res_prefsrc } from './fib_semantics.js'
import {
  FIB_RESULT,
  type fib_info,
  RT_SCOPE_HOST,
  RT_SCOPE_LINK,
  RT_SCOPE_UNIVERSE,
  RTN_BROADCAST,
  RTN_LOCAL,
  RTN_MULTICAST,
  RTN_UNICAST,
} from './fib_types.js'
import { ip_local_deliver_sym } from './ip_input.js'
import { ip_check_mc } from './ip_mc.js'
import { ip_mc_output_sym, ip_output_sym } from './ip_output.js'
import {
  ip_rt_put,
  rt_alloc,
  rt_cache_output,
  rt_intern_hash,
  rt_key,
  rt_set_dev,
  rt_set_nexthop,
  rt_stat,
} from './route.js'
import { ip_error_sym } from './route_slow.js'
import { RTABLE, RTCF_BROADCAST, RTCF_LOCAL, RTCF_MULTICAST, type rtable } from './types.js'

/** In the TOS of a request: the destination must be on the link. */
export const RTO_ONLINK = 0x01
const IPTOS_RT_MASK = 0x1c
const INADDR_LOOPBACK = 0x7f000001
const INADDR_BROADCAST = -1

const results = DEFINE_PER_CPU('fib_result_output', FIB_RESULT)
const res = results.mine

/** What is asked for, and what was found so far: struct flowi and the locals of the original. Lives on the stack. */
interface Search {
  daddr: number
  saddr: number
  tos: number
  oif: number
  mark: number
  /** With a reference of the search. */
  dev: net_device | null
  type: number
  gw: number
  /** What the route says of its packets; it stays as it is while bottom halves are off. */
  fi: fib_info | null
}

function set_dev(s: Search, dev: net_device | null): void {
  if (s.dev !== null) dev_put(s.dev)
  s.dev = dev
}
function hold_by_index(ifindex: number): net_device | null {
  return dev_get_by_index(ifindex)
}

/** Only loopback leads to ourselves. @returns 0, -ENETUNREACH: this machine has none */
function to_loopback(s: Search): number {
  const lo = loopback_dev()
  if (lo === null) return -ENETUNREACH
  set_dev(s, hold_by_index(lo.ifindex))
  s.type = RTN_LOCAL
  return s.dev === null ? -ENETUNREACH : 0
}

/** The source address that was asked for must be ours. @returns 0: go on, 1: the device is found, -errno */
function check_source(s: Search): number {
  if (ipv4_is_multicast(s.saddr) || ipv4_is_badclass(s.saddr) || ipv4_is_zeronet(s.saddr)) return -EINVAL
  const dev = ip_dev_find(s.saddr)
  if (dev === null) return -EINVAL
  if (s.oif !== 0 || !(ipv4_is_multicast(s.daddr) || s.daddr === INADDR_BROADCAST)) {
    dev_put(dev)
    return 0
  }
  set_dev(s, dev) // who sends to everybody says by his address on which link
  return 1
}

/** The device was asked for. @returns as check_source */
function check_device(s: Search, scope: number): number {
  set_dev(s, hold_by_index(s.oif))
  const { dev } = s
  if (dev === null || dev.ip_ptr === 0) return -ENODEV
  if (ipv4_is_local_multicast(s.daddr) || s.daddr === INADDR_BROADCAST) {
    if (s.saddr === 0) s.saddr = inet_select_addr(dev, 0, RT_SCOPE_LINK)
    return 1
  }
  if (s.saddr !== 0) return 0
  if (ipv4_is_multicast(s.daddr)) s.saddr = inet_select_addr(dev, 0, scope)
  else if (s.daddr === 0) s.saddr = inet_select_addr(dev, 0, RT_SCOPE_HOST)
  return 0
}

/** Ask the FIB. @returns 0, -errno */
function look_up(s: Search, scope: number): number {
  if (fib_lookup(s.daddr, s.saddr, s.tos, loopback_dev()?.ifindex ?? 0, s.oif, scope, res, s.mark) !== 0) {
    if (s.dev === null) return -ENETUNREACH
    if (s.saddr === 0) s.saddr = inet_select_addr(s.dev, 0, RT_SCOPE_LINK) // as if the destination was on that link
    s.type = RTN_UNICAST
    return 0
  }
  s.type = res.type
  if (res.type === RTN_LOCAL) {
    if (s.saddr === 0) s.saddr = s.daddr
    return to_loopback(s)
  }
  if (s.oif === 0) {
    fib_select_multipath(res)
    if (res.fi!.fib_nhs < 2 && res.prefixlen === 0) fib_select_default(res)
  }
  if (s.saddr === 0) s.saddr = fib_res_prefsrc(res)
  const dev = fib_res_dev(res)
  if (dev === null) return -ENETUNREACH
  set_dev(s, hold_by_index(dev.ifindex))
  s.gw = fib_res_gw(res)
  s.fi = res.fi
  return s.dev === null ? -ENETUNREACH : 0
}

/** Where it leads. @returns 0, -errno */
function resolve(s: Search, scope: number): number {
  let found = s.saddr !== 0 ? check_source(s) : 0
  if (found !== 0) return Math.min(found, 0)
  if (s.oif !== 0) found = check_device(s, scope)
  if (found !== 0) return Math.min(found, 0)
  if (s.daddr !== 0) return look_up(s, scope)
  s.daddr = s.saddr
  if (s.daddr === 0) {
    s.daddr = INADDR_LOOPBACK
    s.saddr = INADDR_LOOPBACK
  }
  return to_loopback(s)
}

/** @returns flags of the route, or -1: it is none */
function classify(s: Search): number {
  const dev = s.dev!
  if (ipv4_is_loopback(s.saddr) && (dev.flags & IFF_LOOPBACK) === 0) return -1
  if (s.daddr === INADDR_BROADCAST) s.type = RTN_BROADCAST
  else if (ipv4_is_multicast(s.daddr)) s.type = RTN_MULTICAST
  else if (ipv4_is_badclass(s.daddr) || ipv4_is_zeronet(s.daddr)) return -1
  if (dev.ip_ptr === 0) return -1
  let flags = (dev.flags & IFF_LOOPBACK) !== 0 ? RTCF_LOCAL : 0
  if (s.type === RTN_BROADCAST) flags |= RTCF_BROADCAST | RTCF_LOCAL
  else if (s.type === RTN_MULTICAST) {
    flags |= RTCF_MULTICAST | (ip_check_mc(in_dev_get(dev)!, s.daddr, 0) ? RTCF_LOCAL : 0)
    // Without a route of its own a group goes out where the default route does, but not to its gateway.
    if (s.fi !== null && res.prefixlen < 4) {
      s.gw = 0
      s.fi = null
    }
  }
  return flags
}

/** The cache entry of what was found. @returns its address, -errno */
function make_route(s: Search, daddr: number, saddr: number, tos: number, oif: number): number {
  const flags = classify(s)
  if (flags === -1) return -EINVAL
  const dev = s.dev!
  const rth = rt_alloc()
  if (rth === null) return -ENOBUFS
  rt_key(rth, daddr, saddr, 0, oif, tos, s.mark)
  rth.rt_dst = s.daddr
  rth.rt_src = s.saddr
  rth.rt_iif = oif !== 0 ? oif : dev.ifindex
  rth.rt_gateway = s.gw !== 0 ? s.gw : s.daddr
  rth.rt_type = s.type
  rth.rt_flags = flags
  rth.rt_spec_dst = s.saddr
  rth.dst.input = (flags & RTCF_LOCAL) !== 0 ? ip_local_deliver_sym : ip_error_sym
  rth.dst.output = ip_output_sym
  const to_all = RTCF_BROADCAST | RTCF_MULTICAST
  if ((flags & RTCF_LOCAL) !== 0 && (flags & to_all) === 0) rth.rt_spec_dst = s.daddr
  if ((flags & to_all) !== 0 && (dev.flags & IFF_LOOPBACK) === 0) rth.dst.output = ip_mc_output_sym
  rt_set_dev(rth, dev)
  rt_set_nexthop(rth, s.fi)
  rth.dst.flags = in_dev_dst_flags(dev, dev)
  const hashed = rt_intern_hash(rth)
  return hashed === null ? -ENOBUFS : hashed.addr
}

function ip_route_output_slow(daddr: number, saddr: number, tos: number, oif: number, mark: number): number {
  local_bh_disable() // `res` is this CPU's, and softirqs use it too
  const s: Search = { daddr, saddr, tos: tos & IPTOS_RT_MASK, oif, mark, dev: null, type: RTN_UNICAST, gw: 0, fi: null }
  let ret = resolve(s, (tos & RTO_ONLINK) !== 0 ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE)
  rt_stat.out_slow_tot++
  if (ret === 0) ret = make_route(s, daddr, saddr, tos & (IPTOS_RT_MASK | RTO_ONLINK), oif)
  set_dev(s, null)
  local_bh_enable()
  return ret
}

/** ip_route_output_key - @context process, softirq @returns address of a referenced route, or -errno */
export function ip_route_output_key(daddr: number, saddr: number, tos: number, oif: number, mark = 0): number {
  const cached = rt_cache_output(daddr, saddr, tos & (IPTOS_RT_MASK | RTO_ONLINK), oif, mark)
  if (cached === null) return ip_route_output_slow(daddr, saddr, tos, oif, mark)
  if (cached.dst.error === 0) return cached.addr
  const { error } = cached.dst
  ip_rt_put(cached)
  return error
}

/** ip_route_output - for who does not ask why: a referenced route, or null. @context process, softirq */
export function ip_route_output(daddr: number, saddr: number, tos: number, oif: number): rtable | null {
  const r = ip_route_output_key(daddr, saddr, tos, oif)
  return r < 0 ? null : RTABLE.ref(r)
}

/**
 * ip_route_connect - the way of a connection: with both addresses fixed, so that it is found again when other addresses or
 * routes come. @context process @returns address of a referenced route, or -errno
 */
export function ip_route_connect(dst: number, src: number, tos: number, oif: number): number {
  if (dst !== 0 && src !== 0) return ip_route_output_key(dst, src, tos, oif)
  const first = ip_route_output_key(dst, src, tos, oif)
  if (first < 0) return first
  const rt = RTABLE.ref(first)
  const { rt_dst, rt_src } = rt
  ip_rt_put(rt)
  return ip_route_output_key(rt_dst, rt_src, tos, oif)
}
