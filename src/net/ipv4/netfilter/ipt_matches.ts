/** ipt_matches.ts - matches that look at one packet only. No locks: they run under their table's. Data: docs/netfilter.md. */
import { RAM } from '../../../arch/ram.js'
import { E_PROTO, IPT_INV_PROTO } from '../../../lib/iptables.js'
import { pskb_may_pull } from '../../core/skbuff.js'
import type { net_device, sk_buff } from '../../core/types.js'
import { eth_source_hi, eth_source_lo } from '../../wire/eth.js'
import {
  IPPROTO_ICMP,
  IPPROTO_TCP,
  IPPROTO_UDP,
  ip_daddr,
  ip_hdrlen,
  ip_protocol,
  ip_saddr,
  ip_tos,
  ip_tot_len,
  ip_ttl,
} from '../../wire/ipv4.js'
import { inet_addr_type } from '../fib_frontend.js'
import { define_match, HOTDROP, NO, YES } from './ip_tables.js'
import { extension_module } from './ipt_module.js'

const i32 = RAM.i32
const u8 = RAM.u8
const dv = RAM.dv

/** transport - address of the `len` first bytes behind the IP header; 0: the packet is shorter. */
export function transport(skb: sk_buff, len: number): number {
  const hlen = ip_hdrlen(skb.nh)
  return pskb_may_pull(skb, hlen + len) ? skb.nh + hlen : 0
}
/** wants - does a rule want just this protocol? */
export function wants(entry: number, proto: number): boolean {
  const word = i32[entry + E_PROTO]
  return (word & 0xffff) === proto && ((word >>> 24) & IPT_INV_PROTO) === 0
}
export const says = (fits: boolean): number => (fits ? YES : NO)
export const between = (n: number, range: number): boolean => n >= (range & 0xffff) && n <= range >>> 16

// ---- tcp: source ports, destination ports, option | mask << 8 | cmp << 16 | invflags << 24 -----------------------------

const TCP_INV_SRCPT = 1
const TCP_INV_DSTPT = 2
const TCP_INV_FLAGS = 4
const TCP_INV_OPTION = 8

/**
 * tcp_option - the first option of a kind; `size`: only one that has so many bytes, and is whole.
 * @returns its address, 0: there is none, -1: the header is cut short
 */
export function tcp_option(skb: sk_buff, kind: number, size = 0): number {
  const th = transport(skb, 20)
  if (th === 0) return -1
  const doff = (u8[th + 12] >> 4) * 4
  if (doff < 20 || transport(skb, doff) === 0) return -1
  const start = skb.nh + ip_hdrlen(skb.nh)
  const end = start + doff
  for (let at = start + 20; at < end; ) {
    if (u8[at] === kind && (size === 0 || (at + size <= end && u8[at + 1] === size))) return at
    at += u8[at] < 2 ? 1 : u8[at + 1] || 1
  }
  return 0
}

function tcp_match(
  skb: sk_buff,
  _in: net_device | null,
  _out: net_device | null,
  info: number,
  offset: number,
): number {
  if (offset !== 0) return offset === 1 ? HOTDROP : NO // one whose flags lie in the second piece is an attack
  const th = transport(skb, 20)
  if (th === 0) return HOTDROP
  const w = info >> 2
  const word = i32[w + 2]
  const inv = word >>> 24
  if (between(dv.getUint16(th), i32[w]) === ((inv & TCP_INV_SRCPT) !== 0)) return NO
  if (between(dv.getUint16(th + 2), i32[w + 1]) === ((inv & TCP_INV_DSTPT) !== 0)) return NO
  const fits = (u8[th + 13] & (word >> 8) & 255) === ((word >> 16) & 255)
  if (fits === ((inv & TCP_INV_FLAGS) !== 0)) return NO
  if ((word & 255) === 0) return YES
  const has = tcp_option(skb, word & 255)
  return has < 0 ? HOTDROP : says(has > 0 !== ((inv & TCP_INV_OPTION) !== 0))
}
define_match('tcp', 3, tcp_match, (_t, e, info) => wants(e, IPPROTO_TCP) && i32[(info >> 2) + 2] >>> 28 === 0)

// ---- udp: source ports, destination ports, invflags --------------------------------------------------------------------

function udp_match(
  skb: sk_buff,
  _in: net_device | null,
  _out: net_device | null,
  info: number,
  offset: number,
): number {
  if (offset !== 0) return NO
  const uh = transport(skb, 8)
  if (uh === 0) return HOTDROP
  const w = info >> 2
  const inv = i32[w + 2]
  if (between(dv.getUint16(uh), i32[w]) === ((inv & 1) !== 0)) return NO
  return says(between(dv.getUint16(uh + 2), i32[w + 1]) !== ((inv & 2) !== 0))
}
define_match('udp', 3, udp_match, (_t, e, info) => wants(e, IPPROTO_UDP) && (i32[(info >> 2) + 2] & ~3) === 0)

// ---- icmp: type | first code << 8 | last code << 16 | invflags << 24; type 255: any -----------------------------------

function icmp_match(
  skb: sk_buff,
  _in: net_device | null,
  _out: net_device | null,
  info: number,
  offset: number,
): number {
  if (offset !== 0) return NO
  const icmph = transport(skb, 2)
  if (icmph === 0) return HOTDROP
  const word = i32[info >> 2]
  const type = word & 255
  const code = u8[icmph + 1]
  const fits = type === 255 || (u8[icmph] === type && code >= ((word >> 8) & 255) && code <= ((word >> 16) & 255))
  return says(fits !== (word >>> 24 !== 0))
}
define_match('icmp', 1, icmp_match, (_t, e, info) => wants(e, IPPROTO_ICMP) && i32[info >> 2] >>> 25 === 0)

// ---- multiport: flags | count << 8 | invert << 16; then 15 words of port | begins a range << 16 ------------------------

const MULTIPORT_SOURCE = 0
const MULTIPORT_DESTINATION = 1
const MULTIPORT_EITHER = 2

function one_of(port: number, w: number, count: number): boolean {
  for (let k = 0; k < count; k++) {
    const low = i32[w + k] & 0xffff
    if (i32[w + k] >>> 16 === 0) {
      if (port === low) return true
    } else if (port >= low && port <= (i32[w + ++k] & 0xffff)) return true
  }
  return false
}
function multiport(
  skb: sk_buff,
  _in: net_device | null,
  _out: net_device | null,
  info: number,
  offset: number,
): number {
  if (offset !== 0) return NO
  const h = transport(skb, 4)
  if (h === 0) return HOTDROP
  const w = info >> 2
  const flags = i32[w] & 255
  const count = (i32[w] >> 8) & 255
  let fits = false
  if (flags !== MULTIPORT_DESTINATION) fits = one_of(dv.getUint16(h), w + 1, count)
  if (flags !== MULTIPORT_SOURCE && !fits) fits = one_of(dv.getUint16(h + 2), w + 1, count)
  return says(fits !== (i32[w] >>> 16 !== 0))
}
function multiport_check(_t: string, e: number, info: number): boolean {
  const w = info >> 2
  const count = (i32[w] >> 8) & 255
  if (!wants(e, IPPROTO_TCP) && !wants(e, IPPROTO_UDP)) return false
  if ((i32[w] & 255) > MULTIPORT_EITHER || count === 0 || count > 15) return false
  return i32[w + count] >>> 16 === 0 // a range has an end
}
define_match('multiport', 16, multiport, multiport_check)
extension_module('multiport', ['match'])

// ---- a few bytes of the header ----------------------------------------------------------------------------------------

/** length: least | most << 16, invert - of the whole packet. */
define_match(
  'length',
  2,
  (skb, _in, _out, info) => says(between(ip_tot_len(skb.nh), i32[info >> 2]) !== (i32[(info >> 2) + 1] !== 0)),
  () => true,
)
extension_module('length', ['match'])

/** ttl: mode | ttl << 8; the modes are =, not, less, more. */
define_match(
  'ttl',
  1,
  (skb, _in, _out, info) => {
    const ttl = ip_ttl(skb.nh)
    const wanted = (i32[info >> 2] >> 8) & 255
    const mode = i32[info >> 2] & 255
    return says(mode === 0 ? ttl === wanted : mode === 1 ? ttl !== wanted : mode === 2 ? ttl < wanted : ttl > wanted)
  },
  (_t, _e, info) => (i32[info >> 2] & 255) < 4,
)

/** tos: tos | invert << 8. */
define_match(
  'tos',
  1,
  (skb, _in, _out, info) => says((ip_tos(skb.nh) === (i32[info >> 2] & 255)) !== (i32[info >> 2] >> 8 !== 0)),
  () => true,
)

/** mark: mark, mask, invert. */
define_match(
  'mark',
  3,
  (skb, _in, _out, info) =>
    says(((skb.nfmark & i32[(info >> 2) + 1]) === i32[info >> 2]) !== (i32[(info >> 2) + 2] !== 0)),
  () => true,
)
extension_module('mark', ['match'])

/** pkttype: type, invert. */
define_match(
  'pkttype',
  2,
  (skb, _in, _out, info) => says((skb.pkt_type === i32[info >> 2]) !== (i32[(info >> 2) + 1] !== 0)),
  () => true,
)
extension_module('pkttype', ['match'])

/** mac: the sender's station address in two words, invert. */
define_match(
  'mac',
  3,
  (skb, _in, _out, info) => {
    const w = info >> 2
    if (skb.mac < skb.head || skb.mac === 0 || skb.mac + 14 > skb.data) return NO
    return says((eth_source_hi(skb.mac) === i32[w] && eth_source_lo(skb.mac) === i32[w + 1]) !== (i32[w + 2] !== 0))
  },
  (_t, _e, _info, mask) => (mask & 0b11000) === 0, // a packet of this machine, or that goes out, has no sender yet
)
extension_module('mac', ['match'])

/** addrtype: source types | destination types << 16 (a bit for each RTN_*, 0: any), invert source | invert destination << 1. */
define_match(
  'addrtype',
  2,
  (skb, _in, _out, info) => {
    const types = i32[info >> 2]
    const inv = i32[(info >> 2) + 1]
    const is = (addr: number, mask: number): boolean => ((1 << inet_addr_type(addr)) & mask) !== 0
    if ((types & 0xffff) !== 0 && is(ip_saddr(skb.nh), types & 0xffff) === ((inv & 1) !== 0)) return NO
    if (types >>> 16 !== 0 && is(ip_daddr(skb.nh), types >>> 16) === ((inv & 2) !== 0)) return NO
    return YES
  },
  () => true,
)
extension_module('addrtype', ['match'])

/** iprange: flags (1 source, 2 destination, 16 and 32 to invert them), first and last source, first and last destination. */
define_match(
  'iprange',
  5,
  (skb, _in, _out, info) => {
    const w = info >> 2
    const within = (addr: number, at: number): boolean => addr >>> 0 >= i32[at] >>> 0 && addr >>> 0 <= i32[at + 1] >>> 0
    const flags = i32[w]
    if ((flags & 1) !== 0 && within(ip_saddr(skb.nh), w + 1) === ((flags & 16) !== 0)) return NO
    if ((flags & 2) !== 0 && within(ip_daddr(skb.nh), w + 3) === ((flags & 32) !== 0)) return NO
    return YES
  },
  () => true,
)
extension_module('iprange', ['match'])

/** protocol_name - as LOG writes it. */
export function protocol_name(iph: number): string {
  const p = ip_protocol(iph)
  return p === IPPROTO_TCP ? 'TCP' : p === IPPROTO_UDP ? 'UDP' : p === IPPROTO_ICMP ? 'ICMP' : String(p)
}
