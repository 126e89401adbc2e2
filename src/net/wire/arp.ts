/** arp.ts - the ARP packet of Ethernet and IPv4 (RFC 826): 28 bytes. A station address is two numbers, as in eth.ts. */
import { RAM } from '../../arch/ram.js'

const dv = RAM.dv
const u8 = RAM.u8

export const ARP_LEN = 28
export const ARPHRD_ETHER = 1
export const ARPHRD_IEEE802 = 6
export const ARPOP_REQUEST = 1
export const ARPOP_REPLY = 2

export function arp_hrd(arp: number): number {
  return dv.getUint16(arp)
}
export function arp_pro(arp: number): number {
  return dv.getUint16(arp + 2)
}
export function arp_hln(arp: number): number {
  return u8[arp + 4]
}
export function arp_pln(arp: number): number {
  return u8[arp + 5]
}
export function arp_op(arp: number): number {
  return dv.getUint16(arp + 6)
}
/** Sender's station address. */
export function arp_sha_hi(arp: number): number {
  return dv.getInt32(arp + 8)
}
export function arp_sha_lo(arp: number): number {
  return dv.getInt16(arp + 12)
}
export function arp_sip(arp: number): number {
  return dv.getInt32(arp + 14)
}
export function arp_tip(arp: number): number {
  return dv.getInt32(arp + 24)
}
/** set_arp - write all 28 bytes: who asks or answers (s), and whom (t). */
export function set_arp(
  arp: number,
  op: number,
  shi: number,
  slo: number,
  sip: number,
  thi: number,
  tlo: number,
  tip: number,
): void {
  dv.setUint16(arp, ARPHRD_ETHER)
  dv.setUint16(arp + 2, 0x0800)
  dv.setUint16(arp + 4, 0x0604) // lengths of the addresses
  dv.setUint16(arp + 6, op)
  dv.setInt32(arp + 8, shi)
  dv.setInt16(arp + 12, slo)
  dv.setInt32(arp + 14, sip)
  dv.setInt32(arp + 18, thi)
  dv.setInt16(arp + 22, tlo)
  dv.setInt32(arp + 24, tip)
}
