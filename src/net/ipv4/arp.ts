/** arp.ts - the address resolution protocol (RFC 826): questions, answers, and answers for others. No locks of its own. */
import { DEFINE_STATIC } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { cost } from '../../arch/cost.js'
import { tick } from '../../arch/cpu.js'
import { RAM } from '../../arch/ram.js'
import { jiffies, time_after } from '../../irq/timer.js'
import { dev_queue_xmit } from '../core/dev.js'
import { dst_link_failure } from '../core/dst.js'
import { drop_reason } from '../core/fate.js'
import { neigh_sysctl_register } from '../core/neigh_sysctl.js'
import {
  __neigh_lookup,
  neigh_jiffies,
  neigh_lookup,
  type neigh_ops,
  neigh_parms_of,
  neigh_release,
} from '../core/neighbour.js'
import { NEIGH_UPDATE_F_OVERRIDE, neigh_init, neigh_update } from '../core/nud.js'
import { dev_add_pack, PACKET_TYPE, type packet_type } from '../core/packet_type.js'
import { LOCALLY_ENQUEUED, pneigh_enqueue, pneigh_init, pneigh_lookup } from '../core/pneigh.js'
import {
  alloc_skb,
  kfree_skb,
  pskb_may_pull,
  skb_delivered,
  skb_put,
  skb_reserve,
  skb_share_check,
} from '../core/skbuff.js'
import {
  IFF_NOARP,
  NUD_REACHABLE,
  NUD_STALE,
  type neighbour,
  type net_device,
  PACKET_HOST,
  PACKET_LOOPBACK,
  PACKET_OTHERHOST,
  type sk_buff,
} from '../core/types.js'
import {
  ARP_LEN,
  ARPHRD_ETHER,
  ARPHRD_IEEE802,
  ARPOP_REPLY,
  ARPOP_REQUEST,
  arp_hln,
  arp_hrd,
  arp_op,
  arp_pln,
  arp_pro,
  arp_sha_hi,
  arp_sha_lo,
  arp_sip,
  arp_tip,
  set_arp,
} from '../wire/arp.js'
import { ETH_HLEN, ETH_P_ARP, ETH_P_IP, set_eth_header } from '../wire/eth.js'
import { ip_saddr, ipv4_is_loopback, ipv4_is_multicast } from '../wire/ipv4.js'
import {
  in_dev_cnf,
  in_dev_forwards,
  in_dev_maxconf,
  in_dev_orconf,
  in_dev_parms,
  inet_addr_onlink,
  inet_confirm_addr,
  inet_select_addr,
} from './devinet.js'
import { inet_addr_type } from './fib_frontend.js'
import { RT_SCOPE_HOST, RT_SCOPE_LINK, RTN_LOCAL, RTN_UNICAST } from './fib_types.js'
import { ip_rt_put } from './route.js'
import { ip_route_output } from './route_output.js'
import { ip_route_input } from './route_slow.js'
import { RTABLE } from './types.js'

const COST_ARP = cost('arp_rcv')

const i32 = RAM.i32
const MALFORMED = drop_reason('arp_malformed')
const IGNORED = drop_reason('arp_ignored')
const UNRESOLVED = drop_reason('neigh_unresolved')
/** Link header in front of what we build. */
const LL_SPACE = 16

/**
 * arp_send - a question or an answer. Station addresses as two numbers; `dhi`, `dlo`: whom the frame is for.
 * @context process, softirq; no lock held
 */
export function arp_send(
  op: number,
  dev: net_device,
  sip: number,
  tip: number,
  dhi: number,
  dlo: number,
  thi: number,
  tlo: number,
): void {
  if ((dev.flags & IFF_NOARP) !== 0) return
  const skb = alloc_skb(LL_SPACE + ARP_LEN)
  if (skb === null) return
  skb_reserve(skb, LL_SPACE)
  skb.nh = skb_put(skb, ARP_LEN)
  skb.dev = dev
  skb.protocol = ETH_P_ARP
  set_arp(skb.nh, op, dev.dev_addr_hi, dev.dev_addr_lo, sip, thi, tlo, tip)
  skb.data -= ETH_HLEN
  skb.len += ETH_HLEN
  skb.mac = skb.data
  set_eth_header(skb.data, dhi, dlo, dev.dev_addr_hi, dev.dev_addr_lo, ETH_P_ARP)
  dev_queue_xmit(skb)
}

// ---- questions ------------------------------------------------------------------------------------------------------

/** Which of our addresses asks (arp_announce): that of the packet that waits, if it is ours and good enough. */
function asking_address(dev: net_device, target: number, skb: sk_buff | null): number {
  const announce = in_dev_maxconf(dev, 'arp_announce')
  if (skb !== null && announce < 2 && skb.protocol === ETH_P_IP) {
    const saddr = ip_saddr(skb.nh)
    if (inet_addr_type(saddr) === RTN_LOCAL && (announce === 0 || inet_addr_onlink(dev, target, saddr))) return saddr
  }
  return inet_select_addr(dev, target, RT_SCOPE_LINK)
}

const arp_ops: neigh_ops = {
  /** arp_solicit - ask the one that was known first, then everybody. @context timer */
  solicit(n, skb) {
    const dev = n.dev!
    if (dev.ip_ptr === 0) return
    const { ucast_probes, app_probes } = neigh_parms_of(n)
    const { probes, ha, primary_key: target } = n
    const saddr = asking_address(dev, target, skb)
    if (probes < ucast_probes && ha !== 0)
      arp_send(ARPOP_REQUEST, dev, saddr, target, i32[ha >> 2], i32[(ha >> 2) + 1], 0, 0)
    else if (probes >= ucast_probes + app_probes || ha === 0)
      arp_send(ARPOP_REQUEST, dev, saddr, target, dev.broadcast_hi, dev.broadcast_lo, 0, 0)
  },
  /** arp_error_report - nobody answers. */
  error_report(_n, skb) {
    dst_link_failure(skb)
    kfree_skb(skb, UNRESOLVED)
  },
}
const arp_ops_sym = symbol('arp_ops', arp_ops)

// ---- answers --------------------------------------------------------------------------------------------------------

/** arp_ignore - may this question for an address of ours stay without an answer? */
function arp_ignore(dev: net_device, sip: number, tip: number): boolean {
  switch (in_dev_maxconf(dev, 'arp_ignore')) {
    case 1: // the address must be that of this device
      return inet_confirm_addr(dev, 0, tip, RT_SCOPE_HOST) === 0
    case 2: // and the two on one subnet
      return inet_confirm_addr(dev, sip, tip, RT_SCOPE_HOST) === 0
    case 3: // not for addresses that mean something here only
      return inet_confirm_addr(null, 0, tip, RT_SCOPE_LINK) === 0
    case 8:
      return true
    default:
      return false
  }
}

/** arp_filter - our way back to the one who asks leads through another device: let that one answer. */
function arp_filter(dev: net_device, sip: number, tip: number): boolean {
  const rt = ip_route_output(sip, tip, 0, 0)
  if (rt === null) return true
  const other = rt.dst.dev !== dev
  ip_rt_put(rt)
  return other
}

function reply(dev: net_device, arp: number, tip: number): void {
  const [hi, lo] = [arp_sha_hi(arp), arp_sha_lo(arp)]
  arp_send(ARPOP_REPLY, dev, tip, arp_sip(arp), hi, lo, hi, lo)
}

/** neigh_event_ns - who asks is there himself. */
function neigh_event_ns(dev: net_device, arp: number): neighbour | null {
  const n = __neigh_lookup(arp_sip(arp), dev)
  if (n !== null) neigh_update(n, arp_sha_hi(arp), arp_sha_lo(arp), NUD_STALE, NEIGH_UPDATE_F_OVERRIDE)
  return n
}

/** arp_fwd_proxy - are we to answer for what lies behind `out`? Not for what is on the same medium, who hears the question himself. */
function arp_fwd_proxy(dev: net_device, out: net_device): boolean {
  if (!in_dev_orconf(dev, 'proxy_arp')) return false
  const [imi, omi] = [in_dev_cnf(dev, 'medium_id'), in_dev_cnf(out, 'medium_id')]
  return imi === 0 || (imi !== -1 && omi !== imi && omi !== -1)
}

/** Is the packet an answer by proxy, and is it due? */
function proxied(skb: sk_buff, dev: net_device, tip: number): boolean {
  const rt = RTABLE.ref(skb.dst!.addr)
  return (
    in_dev_forwards(dev) &&
    rt.rt_type === RTN_UNICAST &&
    rt.dst.dev !== dev &&
    (arp_fwd_proxy(dev, rt.dst.dev!) || pneigh_lookup(tip, dev))
  )
}

/** A question that has a route. @consumes skb if it returns true: it is answered, or never will be */
function arp_request(skb: sk_buff, dev: net_device, arp: number): boolean {
  const [sip, tip] = [arp_sip(arp), arp_tip(arp)]
  if (RTABLE.ref(skb.dst!.addr).rt_type === RTN_LOCAL) {
    const n = neigh_event_ns(dev, arp)
    if (n !== null) {
      const silent = arp_ignore(dev, sip, tip) || (in_dev_orconf(dev, 'arp_filter') && arp_filter(dev, sip, tip))
      if (!silent) reply(dev, arp, tip)
      neigh_release(n)
    }
    skb_delivered(skb)
    return true
  }
  if (!proxied(skb, dev, tip)) return false
  const n = neigh_event_ns(dev, arp)
  if (n !== null) neigh_release(n)
  const waited = i32[skb.stamp >> 2] === LOCALLY_ENQUEUED
  const parms = in_dev_parms(dev)
  if (!waited && skb.pkt_type !== PACKET_HOST && parms !== null && parms.proxy_delay !== 0) {
    pneigh_enqueue(parms, skb)
    return true
  }
  reply(dev, arp, tip)
  skb_delivered(skb)
  return true
}

/** arp_process - @context softirq @consumes skb */
function arp_process(skb: sk_buff): void {
  const dev = skb.dev!
  const arp = skb.nh
  const op = arp_op(arp)
  const [sip, tip] = [arp_sip(arp), arp_tip(arp)]
  const known = (arp_hrd(arp) === ARPHRD_ETHER || arp_hrd(arp) === ARPHRD_IEEE802) && arp_pro(arp) === ETH_P_IP
  const asked = op === ARPOP_REQUEST
  if (dev.ip_ptr === 0 || !known || (!asked && op !== ARPOP_REPLY) || ipv4_is_loopback(tip) || ipv4_is_multicast(tip)) {
    kfree_skb(skb, IGNORED)
    return
  }
  if (sip === 0) {
    // Is this address in use (RFC 2131)?
    if (asked && inet_addr_type(tip) === RTN_LOCAL && !arp_ignore(dev, sip, tip)) {
      const [hi, lo] = [arp_sha_hi(arp), arp_sha_lo(arp)]
      arp_send(ARPOP_REPLY, dev, tip, tip, hi, lo, dev.dev_addr_hi, dev.dev_addr_lo)
    }
    skb_delivered(skb)
    return
  }
  if (asked && ip_route_input(skb, tip, sip, 0, dev) === 0 && arp_request(skb, dev, arp)) return
  // Everything else may be news of somebody that is known already.
  const n = neigh_lookup(sip, dev)
  if (n !== null) {
    // Of several answers in a row the first is believed: proxies may be among them, and the fastest router is the best.
    const override = time_after(jiffies(), (n.updated + neigh_jiffies(neigh_parms_of(n).locktime)) | 0)
    const state = !asked && skb.pkt_type === PACKET_HOST ? NUD_REACHABLE : NUD_STALE
    neigh_update(n, arp_sha_hi(arp), arp_sha_lo(arp), state, override ? NEIGH_UPDATE_F_OVERRIDE : 0)
    neigh_release(n)
  }
  skb_delivered(skb)
}
const arp_process_sym = symbol('arp_process', arp_process)

/** arp_rcv - @context softirq @consumes skb */
function arp_rcv(given: sk_buff, dev: net_device, _pt: packet_type): number {
  tick(COST_ARP)
  const short = !pskb_may_pull(given, ARP_LEN)
  const arp = given.nh
  if (short || arp_hln(arp) !== 6 || arp_pln(arp) !== 4) {
    kfree_skb(given, MALFORMED)
    return 0
  }
  const { pkt_type } = given
  if ((dev.flags & IFF_NOARP) !== 0 || pkt_type === PACKET_OTHERHOST || pkt_type === PACKET_LOOPBACK) {
    kfree_skb(given, IGNORED)
    return 0
  }
  const skb = skb_share_check(given)
  if (skb !== null) arp_process(skb)
  return 0
}
const arp_rcv_sym = symbol('arp_rcv', arp_rcv)
const arp_packet_type = DEFINE_STATIC('arp_packet_type', PACKET_TYPE)

// ---- start ----------------------------------------------------------------------------------------------------------

neigh_sysctl_register('ipv4')

/** arp_init - @context boot, CPU 0 */
export function arp_init(rnd: number): void {
  neigh_init(rnd, arp_ops_sym)
  pneigh_init(arp_process_sym)
  arp_packet_type.type = ETH_P_ARP
  arp_packet_type.func = arp_rcv_sym
  dev_add_pack(arp_packet_type)
}
