/** ipt_reject.ts - drop a packet and tell its sender (ipt_REJECT.c). No locks of its own; what it sends takes its own. */
import { RAM } from '../../../arch/ram.js'
import { csum_partial, csum_tcpudp_magic } from '../../../lib/checksum.js'
import { E_PROTO, IPT_INV_PROTO } from '../../../lib/iptables.js'
import { fate_made } from '../../core/fate.js'
import { NF_DROP, NF_IP_FORWARD } from '../../core/netfilter.js'
import { alloc_skb, skb_put, skb_reserve } from '../../core/skbuff.js'
import { ACCT_LOCAL, type sk_buff } from '../../core/types.js'
import { ETH_P_IP } from '../../wire/eth.js'
import { ICMP_DEST_UNREACH } from '../../wire/icmp.js'
import {
  IP_DF,
  IP_OFFSET,
  IPPROTO_TCP,
  ip_daddr,
  ip_frag_off,
  ip_hdrlen,
  ip_saddr,
  set_ip_daddr,
  set_ip_frag_off,
  set_ip_id,
  set_ip_protocol,
  set_ip_saddr,
  set_ip_tos,
  set_ip_ttl,
  set_ip_vhl,
} from '../../wire/ipv4.js'
import { icmp_send } from '../icmp.js'
import { ip_local_out } from '../ip_output.js'
import { ip_rt_put } from '../route.js'
import { ip_route_output_key } from '../route_output.js'
import { RTABLE } from '../types.js'
import { ip_conntrack_attach } from './ip_conntrack.js'
import { define_target } from './ip_tables.js'
import { transport } from './ipt_matches.js'
import { extension_module } from './ipt_module.js'

const i32 = RAM.i32
const u8 = RAM.u8
const dv = RAM.dv

// `with`: how it is told
export const IPT_ICMP_ECHOREPLY = 4
export const IPT_TCP_RESET = 7
/** Code of the unreachable message for each of the others. */
const CODES: Record<number, number> = { 0: 0, 1: 1, 2: 2, 3: 3, 5: 9, 6: 10, 8: 13 }

const FIN = 1
const SYN = 2
const RST = 4
const ACK = 16

/** The reset that answers the segment at `th`. */
function build_reset(nskb: sk_buff, skb: sk_buff, th: number, payload: number): void {
  const iph = nskb.nh
  const nth = iph + 20
  u8.fill(0, nth, nth + 20)
  dv.setUint16(nth, dv.getUint16(th + 2))
  dv.setUint16(nth + 2, dv.getUint16(th))
  u8[nth + 12] = 5 << 4
  const flags = u8[th + 13]
  if ((flags & ACK) !== 0) {
    dv.setInt32(nth + 4, dv.getInt32(th + 8))
    u8[nth + 13] = RST
  } else {
    const counted = ((flags & SYN) !== 0 ? 1 : 0) + ((flags & FIN) !== 0 ? 1 : 0) + payload
    dv.setInt32(nth + 8, dv.getInt32(th + 4) + counted)
    u8[nth + 13] = RST | ACK
  }
  const saddr = ip_daddr(skb.nh)
  const daddr = ip_saddr(skb.nh)
  dv.setUint16(nth + 16, csum_tcpudp_magic(saddr, daddr, 20, IPPROTO_TCP, csum_partial(dv, nth, 20, 0)))
  set_ip_vhl(iph, 20)
  set_ip_tos(iph, 0)
  set_ip_id(iph, 0)
  set_ip_frag_off(iph, IP_DF)
  set_ip_ttl(iph, nskb.dst!.hoplimit)
  set_ip_protocol(iph, IPPROTO_TCP)
  set_ip_saddr(iph, saddr)
  set_ip_daddr(iph, daddr)
}

function send_reset(skb: sk_buff, hook: number): void {
  if ((ip_frag_off(skb.nh) & IP_OFFSET) !== 0) return
  const th = transport(skb, 20)
  if (th === 0 || (u8[th + 13] & RST) !== 0) return // no reset for a reset
  const len = skb.len - ip_hdrlen(skb.nh)
  const doff = (u8[th + 12] >> 4) * 4
  if (doff < 20 || doff > len || transport(skb, len) === 0) return
  const start = skb.nh + ip_hdrlen(skb.nh)
  const sum = csum_partial(dv, start, len, 0)
  if (csum_tcpudp_magic(ip_saddr(skb.nh), ip_daddr(skb.nh), len, IPPROTO_TCP, sum) !== 0) return
  const r = ip_route_output_key(ip_saddr(skb.nh), hook === NF_IP_FORWARD ? 0 : ip_daddr(skb.nh), 0, 0)
  if (r < 0) return
  const rt = RTABLE.ref(r)
  const nskb = alloc_skb(16 + 40)
  if (nskb === null) {
    ip_rt_put(rt)
    return
  }
  skb_reserve(nskb, 16)
  nskb.nh = skb_put(nskb, 40)
  nskb.h = nskb.nh + 20
  nskb.dst = rt.dst
  nskb.dev = rt.dst.dev
  nskb.protocol = ETH_P_IP
  build_reset(nskb, skb, start, len - doff)
  ip_conntrack_attach(nskb, skb)
  nskb.acct = ACCT_LOCAL
  fate_made()
  ip_local_out(nskb)
}

function reject(skb: sk_buff, _in: unknown, _out: unknown, hook: number, info: number): number {
  // Nothing that is cut short or was asked of everybody is answered: icmp_send looks to that.
  const how = i32[info >> 2]
  if (how === IPT_TCP_RESET) send_reset(skb, hook)
  else icmp_send(skb, ICMP_DEST_UNREACH, CODES[how]!, 0)
  return NF_DROP
}

function reject_check(table: string, e: number, info: number, mask: number): boolean {
  const how = i32[info >> 2]
  if (table !== 'filter' || (mask & 0b11111 & ~0b01110) !== 0) return false
  if (how !== IPT_TCP_RESET) return CODES[how] !== undefined // an echo reply is no longer made up
  return (i32[e + E_PROTO] & 0xffff) === IPPROTO_TCP && ((i32[e + E_PROTO] >>> 24) & IPT_INV_PROTO) === 0
}
define_target('REJECT', 1, reject, reject_check)
extension_module('REJECT', ['target'])
