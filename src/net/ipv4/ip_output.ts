/** ip_output.ts - packets that go out: fragmentation, the last hook, the neighbour. No locks of its own. */

import { call, symbol } from '../../abi/symbol.js'
import { cost } from '../../arch/cost.js'
import { tick } from '../../arch/cpu.js'
import { RAM } from '../../arch/ram.js'
import { ip_fast_csum } from '../../lib/checksum.js'
import { netif_rx } from '../core/dev.js'
import { drop_reason, fate_received } from '../core/fate.js'
import { NF_HOOK, NF_IP_LOCAL_OUT, NF_IP_POST_ROUTING, nf_hook_active } from '../core/netfilter.js'
import { neigh_resolve_output } from '../core/nud.js'
import { __skb_pull, kfree_skb, skb_clone } from '../core/skbuff.js'
import { AF_INET, SOCK } from '../core/sock_types.js'
import { ACCT_RX, CHECKSUM_UNNECESSARY, PACKET_LOOPBACK, type sk_buff } from '../core/types.js'
import { ETH_P_IP } from '../wire/eth.js'
import { ip_ttl, set_ip_check, set_ip_tot_len } from '../wire/ipv4.js'
import { inet_sk } from './inet_sock.js'
import { ip_fragment } from './ip_fragment.js'
import { ip_stats } from './mib.js'
import { RTABLE, RTCF_BROADCAST, RTCF_LOCAL, RTCF_MULTICAST } from './types.js'

const COST_OUTPUT = cost('ip_output')

const u8 = RAM.u8
const dv = RAM.dv
const TTL_EXCEEDED = drop_reason('ip_ttl_exceeded')
const UNRESOLVED = drop_reason('neigh_unresolved')

/** ip_output - dst.output of a route: cut what does not fit. @context process, softirq @consumes skb */
export function ip_output(skb: sk_buff): number {
  tick(COST_OUTPUT)
  ip_stats.OutRequests++
  if (skb.len > skb.dst!.mtu) return ip_fragment(skb, ip_finish_output)
  return ip_finish_output(skb)
}
export const ip_output_sym = symbol('ip_output', ip_output)

/** ip_dev_loopback_xmit - a copy of what was sent to everybody, for this machine itself. @consumes skb */
function ip_dev_loopback_xmit(skb: sk_buff): number {
  skb.mac = skb.data
  __skb_pull(skb, skb.nh - skb.data)
  skb.pkt_type = PACKET_LOOPBACK
  skb.ip_summed = CHECKSUM_UNNECESSARY
  fate_received()
  skb.acct = ACCT_RX
  netif_rx(skb)
  return 0
}
const ip_dev_loopback_xmit_sym = symbol('ip_dev_loopback_xmit', ip_dev_loopback_xmit)

/** Does its sender want to hear it himself? */
function mc_loop(skb: sk_buff): boolean {
  const sk = skb.sk === 0 ? null : SOCK.ref(skb.sk)
  return sk === null || sk.sk_family !== AF_INET || inet_sk(sk).mc_loop !== 0
}

/** ip_mc_output - dst.output of a route to everybody on a link or to a group, this machine too. @context process, softirq @consumes skb */
function ip_mc_output(skb: sk_buff): number {
  tick(COST_OUTPUT)
  ip_stats.OutRequests++
  skb.dev = skb.dst!.dev
  skb.protocol = ETH_P_IP
  const { rt_flags } = RTABLE.ref(skb.dst!.addr)
  const back = (rt_flags & RTCF_BROADCAST) !== 0 || ((rt_flags & RTCF_LOCAL) !== 0 && mc_loop(skb))
  const copy = back ? skb_clone(skb) : null
  if (copy !== null) NF_HOOK(NF_IP_POST_ROUTING, copy, null, copy.dev, ip_dev_loopback_xmit_sym)
  if ((rt_flags & RTCF_MULTICAST) !== 0 && ip_ttl(skb.nh) === 0) {
    kfree_skb(skb, TTL_EXCEEDED) // for this machine alone
    return 0
  }
  if (skb.len > skb.dst!.mtu) return ip_fragment(skb, ip_finish_output)
  return ip_finish_output(skb)
}
export const ip_mc_output_sym = symbol('ip_mc_output', ip_mc_output)

/** ip_finish_output - one packet that fits its link. @consumes skb */
export function ip_finish_output(skb: sk_buff): number {
  const dev = skb.dst!.dev!
  skb.dev = dev
  skb.protocol = ETH_P_IP
  if (!nf_hook_active(NF_IP_POST_ROUTING)) return ip_finish_output2(skb)
  return NF_HOOK(NF_IP_POST_ROUTING, skb, null, dev, ip_finish_output2_sym)
}

/** ip_finish_output2 - behind the last hook. @consumes skb */
function ip_finish_output2(skb: sk_buff): number {
  const neigh = skb.dst!.neighbour
  if (neigh !== null) return neigh_resolve_output(neigh, skb)
  kfree_skb(skb, UNRESOLVED)
  return -22
}
const ip_finish_output2_sym = symbol('ip_finish_output2', ip_finish_output2)

/** ip_send_check - compute the header checksum anew. */
export function ip_send_check(iph: number): void {
  set_ip_check(iph, 0)
  set_ip_check(iph, ip_fast_csum(dv, iph, u8[iph] & 15))
}

/** ip_local_out - send a packet of this machine whose header is complete but for length and checksum. @consumes skb */
export function ip_local_out(skb: sk_buff): number {
  set_ip_tot_len(skb.nh, skb.len)
  ip_send_check(skb.nh)
  if (!nf_hook_active(NF_IP_LOCAL_OUT)) return dst_output(skb)
  return NF_HOOK(NF_IP_LOCAL_OUT, skb, null, skb.dst!.dev, dst_output_sym)
}

/** dst_output - by the way that the packet has, which a hook may have changed. @consumes skb */
function dst_output(skb: sk_buff): number {
  return call(skb.dst!.output)(skb)
}
export const dst_output_sym = symbol('dst_output', dst_output)
