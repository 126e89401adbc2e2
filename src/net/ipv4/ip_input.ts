/** ip_input.ts - packets that come in: checks, the routing decision, local delivery. No locks of its own. */

import { bytes, type Layout, layout, Struct } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call, type Sym, symbol } from '../../abi/symbol.js'
import { READ_ONCE, WRITE_ONCE } from '../../arch/atomic.js'
import { cost } from '../../arch/cost.js'
import { tick } from '../../arch/cpu.js'
import { RAM } from '../../arch/ram.js'
import { ip_fast_csum } from '../../lib/checksum.js'
import { NET_RX_DROP } from '../core/dev.js'
import { drop_reason } from '../core/fate.js'
import { NF_HOOK, NF_IP_LOCAL_IN, NF_IP_PRE_ROUTING, nf_hook_active } from '../core/netfilter.js'
import { dev_add_pack, PACKET_TYPE, type packet_type } from '../core/packet_type.js'
import {
  __skb_pull,
  attach_cb,
  kfree_skb,
  nf_reset,
  pskb_may_pull,
  pskb_trim,
  skb_cow,
  skb_delivered,
  skb_share_check,
} from '../core/skbuff.js'
import { type net_device, PACKET_HOST, PACKET_OTHERHOST, type sk_buff } from '../core/types.js'
import { ETH_P_IP } from '../wire/eth.js'
import { ICMP_DEST_UNREACH, ICMP_PARAMETERPROB, ICMP_PROT_UNREACH } from '../wire/icmp.js'
import {
  IP_MF,
  IP_OFFSET,
  ip_daddr,
  ip_frag_off,
  ip_hdrlen,
  ip_protocol,
  ip_saddr,
  ip_tos,
  ip_tot_len,
} from '../wire/ipv4.js'
import { XFRM_POLICY_IN } from '../xfrm/types.js'
import { xfrm_policy_check } from '../xfrm/xfrm_policy.js'
import { in_dev_andconf } from './devinet.js'
import { icmp_send } from './icmp.js'
import { ip_defrag } from './ip_defrag.js'
import { ip_options_compile, ip_options_rcv_srr } from './ip_options.js'
import { IP_DEFRAG_LOCAL_DELIVER } from './ipq.js'
import { ip_stats } from './mib.js'
import { raw_v4_input, raw_v4_wanted } from './raw_hash.js'
import { rt_cache_input } from './route.js'
import { ip_route_input_slow } from './route_slow.js'
import { IPCB } from './types.js'

const COST_RCV = cost('ip_rcv')
const COST_DELIVER = cost('ip_local_deliver')

const i32 = RAM.i32
const u8 = RAM.u8
const dv = RAM.dv

const OTHER_HOST = drop_reason('eth_other_host')
const TRUNCATED = drop_reason('ip_truncated')
const VERSION = drop_reason('ip_version')
const HEADER_LENGTH = drop_reason('ip_header_length')
const CHECKSUM = drop_reason('ip_checksum')
const TOTAL_LENGTH = drop_reason('ip_total_length')
const OPTIONS = drop_reason('ip_options')
const SOURCE_ROUTE = drop_reason('ip_source_route')
const NO_MEMORY = drop_reason('no_memory')
const POLICY = drop_reason('xfrm_policy')
const UNKNOWN_PROTOCOL = drop_reason('ip_unknown_protocol')

attach_cb(IPCB as unknown as Layout<Struct>)

// ---- protocols above IP ---------------------------------------------------------------------------------------------

class inet_protos extends Struct {
  declare handler: number
  declare err_handler: number
  declare no_policy: number
}
const PROTOS: Layout<inet_protos> = layout('inet_protos', inet_protos, {
  // modules come and go under packets: read once, written last
  handler: bytes(256 * 4),
  err_handler: bytes(256 * 4),
  no_policy: bytes(256), // 1: it asks for policies itself
})
const protos = DEFINE_STATIC('inet_protos', PROTOS)
const { handler: HANDLERS, err_handler: ERR_HANDLERS, no_policy: NO_POLICY } = protos

/** What takes local packets of a protocol; skb.data is at its header. Consumes the packet. */
export type inet_handler = (skb: sk_buff) => number

/**
 * Hears of ICMP errors about packets of a protocol: skb.data is at the header that came back, skb.h at the ICMP header. The
 * packet stays the caller's. Says false when the error is about nothing that it knows.
 */
export type inet_err_handler = (skb: sk_buff, info: number) => boolean

export interface inet_protocol {
  err_handler?: Sym<inet_err_handler>
  /** It asks for policies itself, or takes off what they are about. */
  no_policy?: boolean
}

/** inet_add_protocol - @context boot, a module's init @returns false when the protocol is taken */
export function inet_add_protocol(
  protocol: number,
  handler: Sym<inet_handler>,
  { err_handler = 0, no_policy = false }: inet_protocol = {},
): boolean {
  if (READ_ONCE(HANDLERS + protocol * 4) !== 0) return false
  u8[NO_POLICY + protocol] = no_policy ? 1 : 0
  WRITE_ONCE(ERR_HANDLERS + protocol * 4, err_handler)
  WRITE_ONCE(HANDLERS + protocol * 4, handler)
  return true
}

/** inet_del_protocol - a module goes; it waits for a grace period afterwards. @context process */
export function inet_del_protocol(protocol: number): void {
  WRITE_ONCE(HANDLERS + protocol * 4, 0)
  WRITE_ONCE(ERR_HANDLERS + protocol * 4, 0)
}

/** inet_proto_error - tell the protocol. @context softirq @returns false: it knows nothing of it */
export function inet_proto_error(protocol: number, skb: sk_buff, info: number): boolean {
  const handler = READ_ONCE(ERR_HANDLERS + protocol * 4) as Sym<inet_err_handler>
  return handler === 0 || call(handler)(skb, info)
}

// ---- receive --------------------------------------------------------------------------------------------------------

function bad_header(skb: sk_buff, reason: number): number {
  ip_stats.InHdrErrors++
  kfree_skb(skb, reason)
  return NET_RX_DROP
}

/** ip_rcv - main IP receive routine. @context softirq @consumes skb */
export function ip_rcv(given: sk_buff, dev: net_device, _pt: packet_type): number {
  tick(COST_RCV)
  if (given.pkt_type === PACKET_OTHERHOST) {
    kfree_skb(given, OTHER_HOST)
    return NET_RX_DROP
  }
  ip_stats.InReceives++
  const skb = skb_share_check(given)
  if (skb === null) {
    ip_stats.InDiscards++
    return NET_RX_DROP
  }
  if (!pskb_may_pull(skb, 20)) return bad_header(skb, TRUNCATED)
  let iph = skb.nh
  const first = u8[iph]
  if (first >> 4 !== 4) return bad_header(skb, VERSION)
  const hlen = (first & 15) << 2
  if (hlen < 20) return bad_header(skb, HEADER_LENGTH)
  if (!pskb_may_pull(skb, hlen)) return bad_header(skb, TRUNCATED)
  iph = skb.nh
  if (ip_fast_csum(dv, iph, hlen >> 2) !== 0) return bad_header(skb, CHECKSUM)
  const len = ip_tot_len(iph)
  if (len < hlen) return bad_header(skb, TOTAL_LENGTH)
  if (skb.len < len) {
    ip_stats.InTruncatedPkts++
    kfree_skb(skb, TRUNCATED)
    return NET_RX_DROP
  }
  if (skb.len > len && pskb_trim(skb, len) !== 0) {
    // link padding
    ip_stats.InDiscards++
    kfree_skb(skb, NO_MEMORY)
    return NET_RX_DROP
  }
  const cb = skb.cb >> 2
  for (let k = cb; k < cb + 10; k++) i32[k] = 0
  if (!nf_hook_active(NF_IP_PRE_ROUTING)) return ip_rcv_finish(skb)
  return NF_HOOK(NF_IP_PRE_ROUTING, skb, dev, null, ip_rcv_finish_sym)
}

/** ip_rcv_finish - the routing decision. @consumes skb */
export function ip_rcv_finish(skb: sk_buff): number {
  const iph = skb.nh
  const dev = skb.dev!
  if (skb.dst === null) {
    const daddr = ip_daddr(iph)
    const saddr = ip_saddr(iph)
    const tos = ip_tos(iph)
    if (!rt_cache_input(skb, daddr, saddr, tos, dev)) {
      const reason = ip_route_input_slow(skb, daddr, saddr, tos, dev)
      if (reason !== 0) {
        kfree_skb(skb, reason)
        return NET_RX_DROP
      }
    }
  }
  if ((u8[iph] & 15) > 5 && !ip_rcv_options(skb)) return NET_RX_DROP
  return call(skb.dst!.input)(skb)
}

const ip_rcv_finish_sym = symbol('ip_rcv_finish', ip_rcv_finish)

/** Options are compiled once, on a header of our own. @consumes skb unless it returns true */
function ip_rcv_options(skb: sk_buff): boolean {
  const dev = skb.dev!
  if (skb_cow(skb, skb.data - skb.head) !== 0) {
    ip_stats.InDiscards++
    kfree_skb(skb, NO_MEMORY)
    return false
  }
  const opt = IPCB.ref(skb.cb)
  const bad = ip_options_compile(skb, opt, skb.nh)
  if (bad < 0) {
    opt.optlen = 0 // nothing of it is to be trusted
    ip_stats.InHdrErrors++
    icmp_send(skb, ICMP_PARAMETERPROB, 0, (-bad & 0xff) << 24)
    kfree_skb(skb, OPTIONS)
    return false
  }
  if (opt.srr !== 0 && (!in_dev_andconf(dev, 'accept_source_route') || ip_options_rcv_srr(skb) !== 0)) {
    ip_stats.InHdrErrors++
    kfree_skb(skb, SOURCE_ROUTE)
    return false
  }
  return true
}

// ---- local delivery -------------------------------------------------------------------------------------------------

/** ip_local_deliver - for an address of this machine. @context softirq @consumes skb */
export function ip_local_deliver(skb: sk_buff): number {
  tick(COST_DELIVER)
  if ((ip_frag_off(skb.nh) & (IP_MF | IP_OFFSET)) !== 0) {
    const whole = ip_defrag(skb, IP_DEFRAG_LOCAL_DELIVER)
    if (whole === null) return 0
    skb = whole
  }
  if (!nf_hook_active(NF_IP_LOCAL_IN)) return ip_local_deliver_finish(skb)
  return NF_HOOK(NF_IP_LOCAL_IN, skb, skb.dev, null, ip_local_deliver_finish_sym)
}
export const ip_local_deliver_sym = symbol('ip_local_deliver', ip_local_deliver)

function ip_local_deliver_finish(skb: sk_buff): number {
  skb.h = __skb_pull(skb, ip_hdrlen(skb.nh))
  if (skb.nfct !== 0) nf_reset(skb) // nothing above asks for it, and a socket may keep the packet for long
  let ret = deliver(skb, ip_protocol(skb.nh))
  while (ret < 0) ret = deliver(skb, -ret) // an IPsec header was taken off
  return ret
}

/** @consumes skb, unless it returns minus the protocol that is at skb.data now */
function deliver(skb: sk_buff, protocol: number): number {
  const raw = raw_v4_wanted(protocol)
  if (raw) raw_v4_input(skb)
  const handler = READ_ONCE(HANDLERS + protocol * 4) as Sym<inet_handler>
  if ((handler === 0 || u8[NO_POLICY + protocol] === 0) && !xfrm_policy_check(XFRM_POLICY_IN, skb)) {
    kfree_skb(skb, POLICY)
    return 0
  }
  if (handler !== 0) {
    ip_stats.InDelivers++
    return call(handler)(skb)
  }
  if (raw) {
    ip_stats.InDelivers++
    skb_delivered(skb)
    return 0
  }
  ip_stats.InUnknownProtos++
  if (skb.pkt_type === PACKET_HOST) icmp_send(skb, ICMP_DEST_UNREACH, ICMP_PROT_UNREACH, 0)
  kfree_skb(skb, UNKNOWN_PROTOCOL)
  return 0
}

const ip_local_deliver_finish_sym = symbol('ip_local_deliver_finish', ip_local_deliver_finish)

// ---- start ----------------------------------------------------------------------------------------------------------

const ip_rcv_sym = symbol('ip_rcv', ip_rcv)
const ip_packet_type = DEFINE_STATIC('ip_packet_type', PACKET_TYPE)

/** ip_init - @context boot, CPU 0 */
export function ip_init(): void {
  ip_packet_type.type = ETH_P_IP
  ip_packet_type.func = ip_rcv_sym
  dev_add_pack(ip_packet_type)
}
