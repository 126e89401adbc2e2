/**
 * nlmsg.ts - netlink messages and their attributes: read and written in the byte order of the host, which is i386's; addresses
 * of the network lie in the network's.
 */
import { RAM } from '../../arch/ram.js'
import { skb_put, skb_tailroom } from '../core/skbuff.js'
import type { sk_buff } from '../core/types.js'
import { NLMSG_HDRLEN, nlmsg_align } from './types.js'

const dv = RAM.dv
const u8 = RAM.u8

/** Bytes of a packet for messages: what fits the smallest packet buffer. */
export const NLMSG_GOODSIZE = 1728

export function nlmsg_len(nlh: number): number {
  return dv.getUint32(nlh, true)
}
export function nlmsg_type(nlh: number): number {
  return dv.getUint16(nlh + 4, true)
}
export function nlmsg_flags(nlh: number): number {
  return dv.getUint16(nlh + 6, true)
}
export function nlmsg_seq(nlh: number): number {
  return dv.getInt32(nlh + 8, true)
}
export function nlmsg_pid(nlh: number): number {
  return dv.getInt32(nlh + 12, true)
}
export function nlmsg_data(nlh: number): number {
  return nlh + NLMSG_HDRLEN
}

/** nlmsg_put - a header with room for `len` bytes behind it, all zero; the caller has looked for room. @returns its address */
export function nlmsg_put(skb: sk_buff, pid: number, seq: number, type: number, len: number, flags: number): number {
  const size = nlmsg_align(NLMSG_HDRLEN + len)
  const nlh = skb_put(skb, size)
  u8.fill(0, nlh, nlh + size)
  dv.setUint32(nlh, NLMSG_HDRLEN + len, true)
  dv.setUint16(nlh + 4, type, true)
  dv.setUint16(nlh + 6, flags, true)
  dv.setInt32(nlh + 8, seq, true)
  dv.setInt32(nlh + 12, pid, true)
  return nlh
}
/** nlmsg_end - the message ends where the packet does. @returns bytes of the packet */
export function nlmsg_end(skb: sk_buff, nlh: number): number {
  dv.setUint32(nlh, skb.tail - nlh, true)
  return skb.len
}
/** nlmsg_room - is there room for so many bytes more? */
export function nlmsg_room(skb: sk_buff, bytes: number): boolean {
  return skb_tailroom(skb) >= bytes
}

// ---- attributes: length, type, data ---------------------------------------------------------------------------------

export const RTA_HDRLEN = 4

/** rta_put - an attribute of `len` bytes, all zero. @returns address of its data */
export function rta_put(skb: sk_buff, type: number, len: number): number {
  const size = nlmsg_align(RTA_HDRLEN + len)
  const at = skb_put(skb, size)
  u8.fill(0, at, at + size)
  dv.setUint16(at, RTA_HDRLEN + len, true)
  dv.setUint16(at + 2, type, true)
  return at + RTA_HDRLEN
}
export function rta_put_u32(skb: sk_buff, type: number, value: number): void {
  dv.setInt32(rta_put(skb, type, 4), value, true)
}
/** rta_put_addr - an IPv4 address, in network order. */
export function rta_put_addr(skb: sk_buff, type: number, addr: number): void {
  dv.setInt32(rta_put(skb, type, 4), addr)
}
/** rta_put_string - with the zero that ends it. */
export function rta_put_string(skb: sk_buff, type: number, text: string): void {
  const at = rta_put(skb, type, text.length + 1)
  for (let k = 0; k < text.length; k++) u8[at + k] = text.charCodeAt(k)
}
/** rta_put_mac - a station address of 6 bytes. */
export function rta_put_mac(skb: sk_buff, type: number, hi: number, lo: number): void {
  const at = rta_put(skb, type, 6)
  dv.setInt32(at, hi)
  dv.setInt16(at + 4, lo)
}
/** rta_nest - an attribute that holds others; rta_nest_end says how long it became. @returns its address */
export function rta_nest(skb: sk_buff, type: number): number {
  return rta_put(skb, type, 0) - RTA_HDRLEN
}
export function rta_nest_end(skb: sk_buff, rta: number): void {
  dv.setUint16(rta, skb.tail - rta, true)
}

export function rta_len(rta: number): number {
  return dv.getUint16(rta, true)
}
export function rta_type(rta: number): number {
  return dv.getUint16(rta + 2, true)
}
/** Bytes of its data. */
export function rta_payload(rta: number): number {
  return rta_len(rta) - RTA_HDRLEN
}
export function rta_data(rta: number): number {
  return rta + RTA_HDRLEN
}
export function rta_u32(rta: number): number {
  return dv.getInt32(rta + RTA_HDRLEN, true)
}
export function rta_addr(rta: number): number {
  return dv.getInt32(rta + RTA_HDRLEN)
}
/** rta_string - its text; null: not shorter than `size` bytes, so it would not fit (rtattr_strlcpy). */
export function rta_string(rta: number, size: number): string | null {
  let text = ''
  const len = rta_payload(rta)
  for (let k = 0; k < len && u8[rta + RTA_HDRLEN + k] !== 0; k++) text += String.fromCharCode(u8[rta + RTA_HDRLEN + k])
  return text.length < size ? text : null
}

/** rta_each - every attribute of `len` bytes at `at`; stops when `each` says false. @returns whether all were seen */
export function rta_each(at: number, len: number, each: (type: number, rta: number) => boolean): boolean {
  let rta = at
  let left = len
  while (left >= RTA_HDRLEN && rta_len(rta) >= RTA_HDRLEN && rta_len(rta) <= left) {
    if (!each(rta_type(rta), rta)) return false
    left -= nlmsg_align(rta_len(rta))
    rta += nlmsg_align(rta_len(rta))
  }
  return true
}

/** rta_parse - the last attribute of each type, by type - 1; 0: it is not there. Type 0 is skipped. @returns false: one is beyond `max` */
export function rta_parse(tb: number[], max: number, at: number, len: number): boolean {
  for (let k = 0; k < max; k++) tb[k] = 0
  return rta_each(at, len, (type, rta) => {
    if (type === 0) return true
    if (type > max) return false
    tb[type - 1] = rta
    return true
  })
}
