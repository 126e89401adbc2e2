/**
 * ip_conntrack_proto.ts - what protocols know of connections (ip_conntrack_proto_{udp,icmp,generic}.c): states and timeouts.
 * Locks: see the charter of ip_conntrack.ts.
 */
import { hz } from '../../../arch/machine.js'
import { RAM } from '../../../arch/ram.js'
import { NF_ACCEPT } from '../../core/netfilter.js'
import type { sk_buff } from '../../core/types.js'
import { IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, ip_hdrlen, ip_protocol } from '../../wire/ipv4.js'
import { UDP_HLEN, udp_check, udp_len } from '../../wire/udp.js'
import { IPS_ASSURED, IPS_SEEN_REPLY, type ip_conntrack, ip_ct_refresh, set_status } from './ip_conntrack.js'
import { tcp_can_begin, tcp_header, tcp_new, tcp_packet } from './ip_conntrack_proto_tcp.js'
import { ct_sysctl } from './ip_conntrack_sysctl.js'
import { transport } from './ipt_matches.js'
import { nf_checksum_wrong } from './nf_checksum.js'

const u8 = RAM.u8

const QUESTIONS = [8, 13, 15, 17]

function udp_packet(c: ip_conntrack): void {
  const replied = (c.status & IPS_SEEN_REPLY) !== 0
  ip_ct_refresh(c, (replied ? ct_sysctl.udp_timeout_stream : ct_sysctl.udp_timeout) * hz())
  if (replied) set_status(c, IPS_ASSURED)
}

/** proto_packet - let the protocol see a packet whose transport header is at `h`. @returns NF_ACCEPT or a negative verdict */
export function proto_packet(c: ip_conntrack, skb: sk_buff, h: number, dir: number): number {
  const proto = ip_protocol(skb.nh)
  if (proto === IPPROTO_TCP) return tcp_packet(c, skb, h, dir)
  if (proto === IPPROTO_UDP) udp_packet(c)
  else ip_ct_refresh(c, (proto === IPPROTO_ICMP ? ct_sysctl.icmp_timeout : ct_sysctl.generic_timeout) * hz())
  return NF_ACCEPT
}

/** udp_error - 0: it is cut short, its length or its sum is wrong. */
function udp_header(skb: sk_buff, hook: number): number {
  const uh = transport(skb, UDP_HLEN)
  if (uh === 0) return 0
  const len = udp_len(uh)
  if (len < UDP_HLEN || len > skb.len - ip_hdrlen(skb.nh)) return 0
  return udp_check(uh) !== 0 && nf_checksum_wrong(skb, hook) ? 0 : uh
}
/** icmp_error - the same; no type above 18 is known. */
function icmp_header(skb: sk_buff, hook: number): number {
  const icmph = transport(skb, 8)
  return icmph === 0 || nf_checksum_wrong(skb, hook) || u8[icmph]! > NR_ICMP_TYPES ? 0 : icmph
}
const NR_ICMP_TYPES = 18

/** proto_header - address of the transport header, as much of it as is looked at; 0: the packet is broken. @param hook where it is */
export function proto_header(skb: sk_buff, hook: number): number {
  const proto = ip_protocol(skb.nh)
  if (proto === IPPROTO_TCP) return tcp_header(skb, hook)
  if (proto === IPPROTO_UDP) return udp_header(skb, hook)
  return proto === IPPROTO_ICMP ? icmp_header(skb, hook) : transport(skb, 0)
}

/** proto_can_begin - may a packet that belongs to nothing begin a connection? */
export function proto_can_begin(iph: number, h: number): boolean {
  const proto = ip_protocol(iph)
  if (proto === IPPROTO_TCP) return tcp_can_begin(h)
  return proto !== IPPROTO_ICMP || QUESTIONS.includes(u8[h])
}

/** proto_new - what the packet says of the connection that it begins, which nobody else sees yet. */
export function proto_new(c: ip_conntrack, skb: sk_buff, h: number): void {
  if (ip_protocol(skb.nh) === IPPROTO_TCP) tcp_new(c, skb, h)
}
