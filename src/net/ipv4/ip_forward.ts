/** ip_forward.ts - the router: packets for somebody else. No locks of its own. */

import { call, symbol } from '../../abi/symbol.js'
import { cost } from '../../arch/cost.js'
import { tick } from '../../arch/cpu.js'
import { drop_reason } from '../core/fate.js'
import { NF_HOOK, NF_IP_FORWARD, nf_hook_active } from '../core/netfilter.js'
import { kfree_skb, skb_cow } from '../core/skbuff.js'
import { CHECKSUM_NONE, PACKET_HOST, type sk_buff } from '../core/types.js'
import { ICMP_DEST_UNREACH, ICMP_EXC_TTL, ICMP_SR_FAILED, ICMP_TIME_EXCEEDED } from '../wire/icmp.js'
import { ip_decrease_ttl, ip_tos, ip_ttl } from '../wire/ipv4.js'
import { XFRM_POLICY_FWD } from '../xfrm/types.js'
import { xfrm_policy_check, xfrm_route_forward } from '../xfrm/xfrm_policy.js'
import { icmp_send } from './icmp.js'
import { ip_forward_options } from './ip_options.js'
import { ip_call_ra_chain } from './ip_ra.js'
import { ip_stats } from './mib.js'
import { ip_rt_send_redirect } from './route_slow.js'
import { IPCB, RTABLE, RTCF_DOREDIRECT } from './types.js'

const COST_FORWARD = cost('ip_forward')

const POLICY = drop_reason('xfrm_policy')
const TTL_EXCEEDED = drop_reason('ip_ttl_exceeded')
const SOURCE_ROUTE = drop_reason('ip_source_route')
const OTHER_HOST = drop_reason('eth_other_host')
const NO_MEMORY = drop_reason('no_memory')

/** Priority of a packet by the four TOS bits. */
export const ip_tos2prio = [0, 1, 0, 0, 2, 2, 2, 2, 6, 6, 6, 6, 4, 4, 4, 4]
const LL_RESERVED_SPACE = 16

/** ip_forward - @context softirq @consumes skb */
export function ip_forward(skb: sk_buff): number {
  tick(COST_FORWARD)
  if (!xfrm_policy_check(XFRM_POLICY_FWD, skb)) {
    kfree_skb(skb, POLICY)
    return 1
  }
  if (IPCB.ref(skb.cb).router_alert !== 0 && ip_call_ra_chain(skb)) return 0
  if (skb.pkt_type !== PACKET_HOST) {
    kfree_skb(skb, OTHER_HOST)
    return 1
  }
  skb.ip_summed = CHECKSUM_NONE
  let iph = skb.nh
  if (ip_ttl(iph) <= 1) {
    ip_stats.InHdrErrors++
    icmp_send(skb, ICMP_TIME_EXCEEDED, ICMP_EXC_TTL, 0)
    kfree_skb(skb, TTL_EXCEEDED)
    return 1
  }
  if (xfrm_route_forward(skb) !== 0) {
    kfree_skb(skb, POLICY)
    return 1
  }
  const rt = RTABLE.ref(skb.dst!.addr)
  const opt = IPCB.ref(skb.cb)
  if (opt.srr_is_hit === 2 && rt.rt_dst !== rt.rt_gateway) {
    icmp_send(skb, ICMP_DEST_UNREACH, ICMP_SR_FAILED, 0) // strict source route, and the next stop is not a neighbour
    kfree_skb(skb, SOURCE_ROUTE)
    return 1
  }
  if (skb_cow(skb, LL_RESERVED_SPACE) !== 0) {
    ip_stats.InDiscards++
    kfree_skb(skb, NO_MEMORY)
    return 1
  }
  iph = skb.nh
  ip_decrease_ttl(iph)
  if ((rt.rt_flags & RTCF_DOREDIRECT) !== 0 && opt.srr === 0) ip_rt_send_redirect(skb)
  skb.priority = ip_tos2prio[(ip_tos(iph) >> 1) & 15]
  if (!nf_hook_active(NF_IP_FORWARD)) return ip_forward_finish(skb)
  return NF_HOOK(NF_IP_FORWARD, skb, skb.dev, rt.dst.dev, ip_forward_finish_sym)
}
export const ip_forward_sym = symbol('ip_forward', ip_forward)

/** ip_forward_finish - behind the hooks. @context softirq, or process with bottom halves off @consumes skb */
export function ip_forward_finish(skb: sk_buff): number {
  ip_stats.ForwDatagrams++
  if (IPCB.ref(skb.cb).optlen !== 0) ip_forward_options(skb)
  return call(skb.dst!.output)(skb)
}
const ip_forward_finish_sym = symbol('ip_forward_finish', ip_forward_finish)
