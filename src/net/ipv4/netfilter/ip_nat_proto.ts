/**
 * ip_nat_proto.ts - address translation in the headers of protocols (ip_nat_proto_{tcp,udp,icmp,unknown}.c): which parts of a
 * tuple may be mapped to what, and how a packet is rewritten.
 *
 * Lock charter
 *   No locks. `rover` is where the search for a free port goes on: two CPUs that read the same only search the same ports.
 */
import { atomic, type Layout, layout, Struct, word } from '../../../abi/layout.js'
import { DEFINE_STATIC } from '../../../abi/section.js'
import { load, store } from '../../../arch/atomic.js'
import { RAM } from '../../../arch/ram.js'
import { csum_replace2, csum_replace4 } from '../../../lib/checksum.js'
import { pskb_may_pull, skb_cow } from '../../core/skbuff.js'
import type { sk_buff } from '../../core/types.js'
import {
  IPPROTO_ICMP,
  IPPROTO_TCP,
  IPPROTO_UDP,
  ip_check,
  ip_daddr,
  ip_hdrlen,
  ip_saddr,
  set_ip_check,
  set_ip_daddr,
  set_ip_saddr,
} from '../../wire/ipv4.js'
import type { ip_conntrack } from './ip_conntrack.js'
import { has_ports, T_DST_PART, T_PROTO, T_SRC_PART } from './ip_conntrack_tuple.js'

const i32 = RAM.i32
const dv = RAM.dv

/** enum ip_nat_manip_type: which end of a packet is rewritten. */
export const IP_NAT_MANIP_SRC = 0
export const IP_NAT_MANIP_DST = 1

// struct ip_nat_range, as four words: flags, first and last address, first | last << 16 port or id
export const IP_NAT_RANGE_MAP_IPS = 1
export const IP_NAT_RANGE_PROTO_SPECIFIED = 2
export const RANGE_FLAGS = 0
export const RANGE_MIN_IP = 1
export const RANGE_MAX_IP = 2
export const RANGE_PORTS = 3
export const RANGE_WORDS = 4

class nat_rover extends Struct {
  declare tcp: number
  declare udp: number
  declare icmp: number
}
const ROVER: Layout<nat_rover> = layout('ip_nat_rover', nat_rover, {
  tcp: atomic(word),
  udp: atomic(word),
  icmp: atomic(word),
})
const rover = DEFINE_STATIC('ip_nat_rover', ROVER)
const ROVERS: Record<number, number> = {
  [IPPROTO_TCP]: rover.addr + ROVER.offset('tcp'),
  [IPPROTO_UDP]: rover.addr + ROVER.offset('udp'),
  [IPPROTO_ICMP]: rover.addr + ROVER.offset('icmp'),
}

/** Which part of a tuple stands for that end; an ICMP message has one id for both. */
function part_of(w: number, maniptype: number): number {
  const source = maniptype === IP_NAT_MANIP_SRC || i32[w + T_PROTO] === IPPROTO_ICMP
  return w + (source ? T_SRC_PART : T_DST_PART)
}

/** proto_in_range - lies the part of the tuple at word `w` between the two of `ports`? */
export function proto_in_range(w: number, maniptype: number, ports: number): boolean {
  if (ROVERS[i32[w + T_PROTO]] === undefined) return true
  const part = i32[part_of(w, maniptype)]
  return part >= (ports & 0xffff) && part <= ports >>> 16
}

/** The first of the parts that this one may become, and how many there are. */
function choices(w: number, at: number, flags: number, ports: number, maniptype: number): [number, number] {
  if ((flags & IP_NAT_RANGE_PROTO_SPECIFIED) !== 0) return [ports & 0xffff, (ports >>> 16) - (ports & 0xffff) + 1]
  if (i32[w + T_PROTO] === IPPROTO_ICMP) return [0, 0xffff]
  if (maniptype === IP_NAT_MANIP_DST) return [0, 0] // the service is where it is
  const port = i32[at]
  if (port >= 1024) return [1024, 65535 - 1024 + 1]
  return port < 512 ? [1, 511] : [600, 1023 - 600 + 1] // privileged ones stay so; below 512 they vouch for users
}

/**
 * unique_tuple - give the tuple at word `w` a part that no connection has. @context softirq, process, bottom halves off
 * @param taken has one of them the tuple as it is?
 * @returns false: all are taken, and it has one that is
 */
export function unique_tuple(
  w: number,
  flags: number,
  ports: number,
  maniptype: number,
  c: ip_conntrack,
  taken: (w: number, c: ip_conntrack) => boolean,
): boolean {
  const next = ROVERS[i32[w + T_PROTO]]
  if (next === undefined) return false
  const at = part_of(w, maniptype)
  const [first, size] = choices(w, at, flags, ports, maniptype)
  const start = load(next)
  for (let i = 0; i < size; i++) {
    const n = (start + i) & 0x7fffffff
    i32[at] = first + (n % size)
    if (taken(w, c)) continue
    store(next, n)
    return true
  }
  return false
}

/** Another port, or an id, in the protocol's header at `hdroff` behind skb.nh. @returns false: it is not there */
function manip_proto(
  skb: sk_buff,
  iphdroff: number,
  proto: number,
  ip: number,
  part: number,
  maniptype: number,
): boolean {
  if (ROVERS[proto] === undefined) return true
  const hdroff = iphdroff + ip_hdrlen(skb.nh + iphdroff)
  // What an ICMP error quotes may be the first eight bytes only.
  const len = proto === IPPROTO_TCP && skb.len >= hdroff + 20 ? 20 : 8
  if (!pskb_may_pull(skb, hdroff + len)) return false
  const iph = skb.nh + iphdroff
  const h = skb.nh + hdroff
  const at = h + (has_ports(proto) ? (maniptype === IP_NAT_MANIP_SRC ? 0 : 2) : 4)
  const old_ip = maniptype === IP_NAT_MANIP_SRC ? ip_saddr(iph) : ip_daddr(iph)
  const old = dv.getUint16(at)
  dv.setUint16(at, part)
  if (proto === IPPROTO_ICMP) dv.setUint16(h + 2, csum_replace2(dv.getUint16(h + 2), old, part))
  else if (proto === IPPROTO_UDP) {
    const check = dv.getUint16(h + 6)
    if (check === 0) return true // there is none
    // One that comes out as 0 would say so; 2.6.11 forgets that.
    dv.setUint16(h + 6, csum_replace4(csum_replace2(check, old, part), old_ip, ip) || 0xffff)
  } else if (len === 20) dv.setUint16(h + 16, csum_replace4(csum_replace2(dv.getUint16(h + 16), old, part), old_ip, ip))
  return true
}

/**
 * manip_pkt - rewrite one end of the packet whose IP header is `iphdroff` bytes behind skb.nh: the one that skb is, or one quoted
 * in it. Checksums move with what is changed: a wrong one stays wrong.
 * @param proto whose header follows; 0: only the address @context softirq, process @returns false: no memory, or it is too short
 */
export function manip_pkt(
  skb: sk_buff,
  iphdroff: number,
  proto: number,
  ip: number,
  part: number,
  maniptype: number,
): boolean {
  if (skb_cow(skb, 0) !== 0 || !manip_proto(skb, iphdroff, proto, ip, part, maniptype)) return false
  const iph = skb.nh + iphdroff
  const old = maniptype === IP_NAT_MANIP_SRC ? ip_saddr(iph) : ip_daddr(iph)
  set_ip_check(iph, csum_replace4(ip_check(iph), old, ip))
  if (maniptype === IP_NAT_MANIP_SRC) set_ip_saddr(iph, ip)
  else set_ip_daddr(iph, ip)
  return true
}
