/**
 * route_slow.ts - what happens when the route cache has no answer: the checks of RFC 1812, the FIB, a new cache entry.
 * No locks of its own; called with none held. The FIB takes its own for reading.
 */

import { DEFINE_PER_CPU } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { cost } from '../../arch/cost.js'
import { tick } from '../../arch/cpu.js'
import { jiffies } from '../../irq/timer.js'
import { EACCES, EHOSTUNREACH, ENETUNREACH, ESRCH } from '../../lib/errno.js'
import { dst_set_expires } from '../core/dst.js'
import { drop_reason } from '../core/fate.js'
import { loopback_dev } from '../core/loopback_dev.js'
import { kfree_skb } from '../core/skbuff.js'
import type { net_device, sk_buff } from '../core/types.js'
import { ETH_P_IP } from '../wire/eth.js'
import {
  ICMP_DEST_UNREACH,
  ICMP_HOST_UNREACH,
  ICMP_NET_UNREACH,
  ICMP_PKT_FILTERED,
  ICMP_REDIR_HOST,
  ICMP_REDIRECT,
} from '../wire/icmp.js'
import {
  ip_protocol,
  ipv4_is_badclass,
  ipv4_is_local_multicast,
  ipv4_is_loopback,
  ipv4_is_multicast,
  ipv4_is_zeronet,
} from '../wire/ipv4.js'
import {
  in_dev_dst_flags,
  in_dev_forwards,
  in_dev_get,
  in_dev_orconf,
  inet_addr_onlink,
  inet_select_addr,
} from './devinet.js'
import { fib_validate_source } from './fib_frontend.js'
import { fib_select_multipath } from './fib_multipath.js'
import { fib_lookup } from './fib_rules.js'
import { fib_res_dev, fib_res_gw } from './fib_semantics.js'
import {
  FIB_RESULT,
  RT_SCOPE_LINK,
  RT_SCOPE_UNIVERSE,
  RTN_BROADCAST,
  RTN_LOCAL,
  RTN_MULTICAST,
  RTN_UNICAST,
  RTN_UNREACHABLE,
} from './fib_types.js'
import { icmp_send } from './icmp.js'
import { ip_forward_sym } from './ip_forward.js'
import { ip_local_deliver_sym } from './ip_input.js'
import { ip_check_mc } from './ip_mc.js'
import { ip_output_sym } from './ip_output.js'
import { ip_stats } from './mib.js'
import { rt_alloc, rt_cache_input, rt_intern_hash, rt_key, rt_set_dev, rt_set_nexthop, rt_stat } from './route.js'
import { rt_ctl } from './route_sysctl.js'
import {
  RTABLE,
  RTCF_BROADCAST,
  RTCF_DIRECTSRC,
  RTCF_DOREDIRECT,
  RTCF_LOCAL,
  RTCF_MULTICAST,
  type rtable,
} from './types.js'

const COST_SLOW = cost('ip_route_input_slow')

const MARTIAN_SOURCE = drop_reason('ip_martian_source')
const MARTIAN_DESTINATION = drop_reason('ip_martian_destination')
const NO_ROUTE = drop_reason('ip_no_route')
const UNREACHABLE = drop_reason('ip_unreachable')
const UNRESOLVED = drop_reason('neigh_unresolved')
const CACHE_FULL = drop_reason('route_cache_full')
const INPUT_ERROR = drop_reason('ip_input_error')
const NOT_FORWARDING = drop_reason('ip_not_forwarding')

const results = DEFINE_PER_CPU('fib_result', FIB_RESULT)
const res = results.mine

function martian_source(): number {
  rt_stat.in_martian_src++
  return MARTIAN_SOURCE
}
function martian_destination(): number {
  rt_stat.in_martian_dst++
  return MARTIAN_DESTINATION
}

/** Enter a route that this packet is the first user of. @returns 0, or a drop reason */
function attach(skb: sk_buff, rth: rtable): number {
  const hashed = rt_intern_hash(rth)
  if (hashed === null) return UNRESOLVED // the neighbour table is full
  skb.dst = hashed.dst
  return 0
}

function new_input_route(skb: sk_buff, daddr: number, saddr: number, tos: number): rtable | null {
  const dev = skb.dev!
  const rth = rt_alloc()
  if (rth === null) return null
  rt_key(rth, daddr, saddr, dev.ifindex, 0, tos, skb.nfmark)
  rth.rt_dst = daddr
  rth.rt_src = saddr
  rth.rt_iif = dev.ifindex
  rth.rt_gateway = daddr
  rth.dst.flags = in_dev_dst_flags(dev, null)
  return rth
}

/** Packets for us, and broadcasts. */
function local_input(skb: sk_buff, daddr: number, saddr: number, tos: number, flags: number, spec_dst: number): number {
  const rth = new_input_route(skb, daddr, saddr, tos)
  if (rth === null) return CACHE_FULL
  rth.dst.input = ip_local_deliver_sym
  rth.dst.output = ip_error_sym
  rth.rt_flags = flags | RTCF_LOCAL
  rth.rt_type =
    (flags & RTCF_BROADCAST) !== 0 ? RTN_BROADCAST : (flags & RTCF_MULTICAST) !== 0 ? RTN_MULTICAST : RTN_LOCAL
  rth.rt_spec_dst = spec_dst
  rth.dst.mtu = skb.dev!.mtu
  rt_set_dev(rth, skb.dev!)
  return attach(skb, rth)
}

function brd_input(skb: sk_buff, daddr: number, saddr: number, tos: number): number {
  if (skb.protocol !== ETH_P_IP) return INPUT_ERROR
  const dev = skb.dev!
  if (saddr !== 0 && fib_validate_source(saddr, 0, tos, 0, dev) < 0) return martian_source()
  rt_stat.in_brd++
  return local_input(skb, daddr, saddr, tos, RTCF_BROADCAST, inet_select_addr(dev, saddr, RT_SCOPE_LINK))
}

/** To a group that somebody here listens to. */
function mc_input(skb: sk_buff, daddr: number, saddr: number, tos: number): number {
  if (skb.protocol !== ETH_P_IP) return INPUT_ERROR
  const dev = skb.dev!
  if (saddr === 0 ? !ipv4_is_local_multicast(daddr) : fib_validate_source(saddr, 0, tos, 0, dev) < 0)
    return martian_source()
  return local_input(skb, daddr, saddr, tos, RTCF_MULTICAST, inet_select_addr(dev, saddr, RT_SCOPE_LINK))
}

/** Nowhere to go: the answer is cached as a route that tells the sender so. */
function no_route(skb: sk_buff, daddr: number, saddr: number, tos: number, error: number): number {
  rt_stat.in_no_route++
  const dev = skb.dev!
  const rth = new_input_route(skb, daddr, saddr, tos)
  if (rth === null) return CACHE_FULL
  rth.dst.input = ip_error_sym
  rth.dst.output = ip_error_sym
  rth.dst.error = error
  rth.rt_type = RTN_UNREACHABLE
  rth.rt_spec_dst = inet_select_addr(dev, saddr, RT_SCOPE_UNIVERSE)
  rth.dst.mtu = dev.mtu
  rt_set_dev(rth, dev)
  return attach(skb, rth)
}

/**
 * ip_route_input_slow - find the way of a received packet and cache it. @context softirq
 * @returns 0 with skb.dst set, or a drop reason of fate.ts; the packet stays the caller's
 */
export function ip_route_input_slow(skb: sk_buff, daddr: number, saddr: number, tos: number, dev: net_device): number {
  tick(COST_SLOW)
  rt_stat.in_slow_tot++
  if (dev.ip_ptr === 0) return INPUT_ERROR
  if (ipv4_is_multicast(saddr) || ipv4_is_badclass(saddr) || ipv4_is_loopback(saddr)) return martian_source()
  if (daddr === -1 || (saddr === 0 && daddr === 0)) return brd_input(skb, daddr, saddr, tos)
  if (ipv4_is_multicast(daddr)) {
    const in_dev = in_dev_get(dev)
    const protocol = skb.protocol === ETH_P_IP ? ip_protocol(skb.nh) : 0
    return in_dev !== null && ip_check_mc(in_dev, daddr, protocol)
      ? mc_input(skb, daddr, saddr, tos)
      : martian_destination()
  }
  if (ipv4_is_zeronet(saddr)) return martian_source()
  if (ipv4_is_badclass(daddr) || ipv4_is_zeronet(daddr) || ipv4_is_loopback(daddr)) {
    return martian_destination()
  }
  const err = fib_lookup(daddr, saddr, tos, dev.ifindex, 0, RT_SCOPE_UNIVERSE, res, skb.nfmark)
  if (err !== 0) {
    if (!in_dev_forwards(dev)) return NOT_FORWARDING
    return no_route(skb, daddr, saddr, tos, err === -ESRCH ? -ENETUNREACH : err)
  }
  if (res.type === RTN_BROADCAST) return brd_input(skb, daddr, saddr, tos)
  if (res.type === RTN_LOCAL) {
    if (fib_validate_source(saddr, daddr, tos, loopback_dev()?.ifindex ?? 0, dev) < 0) return martian_source()
    return local_input(skb, daddr, saddr, tos, 0, daddr)
  }
  if (!in_dev_forwards(dev)) return NOT_FORWARDING
  if (res.type !== RTN_UNICAST) return martian_destination()
  return forward_route(skb, daddr, saddr, tos, dev)
}

/** ip_route_input - the cache, then the FIB. @context softirq @returns as ip_route_input_slow */
export function ip_route_input(skb: sk_buff, daddr: number, saddr: number, tos: number, dev: net_device): number {
  return rt_cache_input(skb, daddr, saddr, tos, dev) ? 0 : ip_route_input_slow(skb, daddr, saddr, tos, dev)
}

/** A way through this router. */
function forward_route(skb: sk_buff, daddr: number, saddr: number, tos: number, dev: net_device): number {
  fib_select_multipath(res)
  const out = fib_res_dev(res)
  if (out === null || out.ip_ptr === 0) return NO_ROUTE
  if (skb.protocol !== ETH_P_IP && out === dev) return INPUT_ERROR // a question by ARP that is not ours to answer
  const gw = fib_res_gw(res)
  const { fi } = res
  const valid = fib_validate_source(saddr, daddr, tos, out.ifindex, dev)
  if (valid < 0) return martian_source()
  const rth = new_input_route(skb, daddr, saddr, tos)
  if (rth === null) return CACHE_FULL
  let flags = valid > 0 ? RTCF_DIRECTSRC : 0
  if (
    out === dev &&
    valid > 0 &&
    in_dev_orconf(dev, 'send_redirects') &&
    (in_dev_orconf(out, 'shared_media') || inet_addr_onlink(out, saddr, gw !== 0 ? gw : daddr))
  )
    flags |= RTCF_DOREDIRECT
  rth.rt_flags = flags
  rth.rt_type = RTN_UNICAST
  rth.rt_gateway = gw !== 0 ? gw : daddr
  rth.rt_spec_dst = 0
  rth.dst.input = ip_forward_sym
  rth.dst.output = ip_output_sym
  rth.dst.flags = in_dev_dst_flags(dev, out)
  rt_set_dev(rth, out)
  rt_set_nexthop(rth, fi)
  return attach(skb, rth)
}

// ---- errors and redirects -------------------------------------------------------------------------------------------

/** ip_error - input and output of a route that leads nowhere: tells the sender, at a limited rate. @consumes skb */
export function ip_error(skb: sk_buff): number {
  const rt = RTABLE.ref(skb.dst!.addr)
  const error = -rt.dst.error
  const code =
    error === EHOSTUNREACH
      ? ICMP_HOST_UNREACH
      : error === ENETUNREACH
        ? ICMP_NET_UNREACH
        : error === EACCES
          ? ICMP_PKT_FILTERED
          : -1
  if (error === ENETUNREACH) ip_stats.InAddrErrors++
  if (code >= 0) {
    const now = jiffies()
    let tokens = rt.dst.rate_tokens + ((now - rt.dst.rate_last) | 0)
    if (tokens > rt_ctl.error_burst || tokens < 0 || rt.dst.rate_last === 0) tokens = rt_ctl.error_burst
    rt.dst.rate_last = now
    if (tokens >= rt_ctl.error_cost) {
      tokens -= rt_ctl.error_cost
      icmp_send(skb, ICMP_DEST_UNREACH, code, 0)
    }
    rt.dst.rate_tokens = tokens
  }
  kfree_skb(skb, error === ENETUNREACH ? NO_ROUTE : UNREACHABLE)
  return 0
}
export const ip_error_sym = symbol('ip_error', ip_error)

/** ipv4_link_failure - the next stop does not answer: tell the sender; the route is the first to be collected. */
export function ipv4_link_failure(skb: sk_buff): void {
  icmp_send(skb, ICMP_DEST_UNREACH, ICMP_HOST_UNREACH, 0)
  if (skb.dst !== null) dst_set_expires(skb.dst, 0)
}

/** ip_rt_send_redirect - there is a better first hop: tell the sender, ever more rarely. */
export function ip_rt_send_redirect(skb: sk_buff): void {
  const rt = RTABLE.ref(skb.dst!.addr)
  const now = jiffies()
  const since = (now - rt.dst.rate_last) | 0
  if (since > rt_ctl.redirect_silence) rt.dst.rate_tokens = 0
  if (rt.dst.rate_tokens >= rt_ctl.redirect_number) {
    rt.dst.rate_last = now // it does not listen
    return
  }
  if (rt.dst.rate_tokens === 0 || since > rt_ctl.redirect_load << rt.dst.rate_tokens) {
    icmp_send(skb, ICMP_REDIRECT, ICMP_REDIR_HOST, rt.rt_gateway)
    rt.dst.rate_last = now
    rt.dst.rate_tokens++
  }
}
