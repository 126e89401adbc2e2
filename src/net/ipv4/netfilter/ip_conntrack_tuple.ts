/**
 * ip_conntrack_tuple.ts - what packets of one connection and direction have in common (struct ip_conntrack_tuple). No locks: a
 * tuple in a connection is constant once others can find it.
 *
 * A tuple is five words: source, destination, source part, destination part of the protocol, protocol. Of ICMP the source part is
 * the id, and the destination part type | code << 8. Functions take word indices.
 */
import { RAM } from '../../../arch/ram.js'
import { IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, ip_daddr, ip_ntoa, ip_protocol, ip_saddr } from '../../wire/ipv4.js'

const i32 = RAM.i32
const u8 = RAM.u8
const dv = RAM.dv

export const TUPLE_WORDS = 5
export const T_SRC = 0
export const T_DST = 1
export const T_SRC_PART = 2
export const T_DST_PART = 3
export const T_PROTO = 4

/** Types of questions, and of their answers. */
const ANSWER: Record<number, number> = { 8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17 }

export function has_ports(proto: number): boolean {
  return proto === IPPROTO_TCP || proto === IPPROTO_UDP
}

/** ip_ct_get_tuple - of the packet whose IP header is at `iph` and whose next one, of eight bytes at least, is at `h`. */
export function ip_ct_get_tuple(iph: number, h: number, w: number): void {
  const proto = ip_protocol(iph)
  let [a, b] = [0, 0]
  if (has_ports(proto)) {
    a = dv.getUint16(h)
    b = dv.getUint16(h + 2)
  } else if (proto === IPPROTO_ICMP) {
    a = dv.getUint16(h + 4)
    b = u8[h] | (u8[h + 1] << 8)
  }
  i32[w + T_SRC] = ip_saddr(iph)
  i32[w + T_DST] = ip_daddr(iph)
  i32[w + T_SRC_PART] = a
  i32[w + T_DST_PART] = b
  i32[w + T_PROTO] = proto
}

/** ip_ct_invert_tuple - that of the answer, to the words at `to`. @returns false: nothing answers such a packet */
export function ip_ct_invert_tuple(to: number, w: number): boolean {
  const proto = i32[w + T_PROTO]
  i32[to + T_SRC] = i32[w + T_DST]
  i32[to + T_DST] = i32[w + T_SRC]
  i32[to + T_PROTO] = proto
  if (proto !== IPPROTO_ICMP) {
    i32[to + T_SRC_PART] = i32[w + T_DST_PART]
    i32[to + T_DST_PART] = i32[w + T_SRC_PART]
    return true
  }
  const part = i32[w + T_DST_PART]
  const answer = ANSWER[part & 255]
  if (answer === undefined) return false
  i32[to + T_SRC_PART] = i32[w + T_SRC_PART]
  i32[to + T_DST_PART] = answer | (part & 0xff00)
  return true
}

export function ip_ct_tuple_equal(a: number, b: number): boolean {
  for (let k = 0; k < TUPLE_WORDS; k++) if (i32[a + k] !== i32[b + k]) return false
  return true
}

export function tuple_copy(to: number, w: number): void {
  for (let k = 0; k < TUPLE_WORDS; k++) i32[to + k] = i32[w + k]
}

/** print_tuple - as /proc/net/ip_conntrack has it. */
export function print_tuple(w: number): string {
  const addresses = `src=${ip_ntoa(i32[w])} dst=${ip_ntoa(i32[w + 1])} `
  const part = i32[w + T_DST_PART]
  if (i32[w + T_PROTO] === IPPROTO_ICMP)
    return `${addresses}type=${part & 255} code=${part >> 8} id=${i32[w + T_SRC_PART]} `
  return has_ports(i32[w + T_PROTO]) ? `${addresses}sport=${i32[w + T_SRC_PART]} dport=${part} ` : addresses
}
