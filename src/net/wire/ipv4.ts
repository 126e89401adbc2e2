/** ipv4.ts - the IPv4 header (RFC 791) at an address. Addresses are signed words: 10.0.0.1 is 0x0a000001. */
import { RAM } from '../../arch/ram.js'

const dv = RAM.dv
const u8 = RAM.u8

export const IP_HLEN = 20
export const IP_RF = 0x8000
export const IP_DF = 0x4000
export const IP_MF = 0x2000
export const IP_OFFSET = 0x1fff
export const IPPROTO_ICMP = 1
export const IPPROTO_IPIP = 4
export const IPPROTO_TCP = 6
export const IPPROTO_UDP = 17
export const IPPROTO_ESP = 50
export const IPPROTO_AH = 51
export const IPPROTO_COMP = 108

export const IPOPT_END = 0
export const IPOPT_NOOP = 1
export const IPOPT_RR = 7
export const IPOPT_TIMESTAMP = 68
export const IPOPT_SEC = 130
export const IPOPT_LSRR = 131
export const IPOPT_CIPSO = 134
export const IPOPT_SID = 136
export const IPOPT_SSRR = 137
export const IPOPT_RA = 148
export const IPOPT_COPY = 0x80

export function ip_version(iph: number): number {
  return u8[iph] >> 4
}
/** Bytes of the header, options included. */
export function ip_hdrlen(iph: number): number {
  return (u8[iph] & 15) << 2
}
export function ip_tos(iph: number): number {
  return u8[iph + 1]
}
export function ip_tot_len(iph: number): number {
  return dv.getUint16(iph + 2)
}
export function ip_id(iph: number): number {
  return dv.getUint16(iph + 4)
}
/** Flags and offset, the offset in units of 8 bytes. */
export function ip_frag_off(iph: number): number {
  return dv.getUint16(iph + 6)
}
export function ip_ttl(iph: number): number {
  return u8[iph + 8]
}
export function ip_protocol(iph: number): number {
  return u8[iph + 9]
}
export function ip_check(iph: number): number {
  return dv.getUint16(iph + 10)
}
export function ip_saddr(iph: number): number {
  return dv.getInt32(iph + 12)
}
export function ip_daddr(iph: number): number {
  return dv.getInt32(iph + 16)
}

/** set_ip_vhl - version 4 and the header's length in bytes. */
export function set_ip_vhl(iph: number, hlen: number): void {
  u8[iph] = 0x40 | (hlen >> 2)
}
export function set_ip_tos(iph: number, tos: number): void {
  u8[iph + 1] = tos
}
export function set_ip_tot_len(iph: number, len: number): void {
  dv.setUint16(iph + 2, len)
}
export function set_ip_id(iph: number, id: number): void {
  dv.setUint16(iph + 4, id)
}
export function set_ip_frag_off(iph: number, off: number): void {
  dv.setUint16(iph + 6, off)
}
export function set_ip_ttl(iph: number, ttl: number): void {
  u8[iph + 8] = ttl
}
export function set_ip_protocol(iph: number, protocol: number): void {
  u8[iph + 9] = protocol
}
export function set_ip_check(iph: number, check: number): void {
  dv.setUint16(iph + 10, check)
}
export function set_ip_saddr(iph: number, addr: number): void {
  dv.setInt32(iph + 12, addr)
}
export function set_ip_daddr(iph: number, addr: number): void {
  dv.setInt32(iph + 16, addr)
}

/** ip_decrease_ttl - one less, and the checksum moved with it (RFC 1624: 0x0100 less in the word of the TTL). */
export function ip_decrease_ttl(iph: number): void {
  const check = dv.getUint16(iph + 10) + 0x0100
  dv.setUint16(iph + 10, check + (check >= 0xffff ? 1 : 0))
  u8[iph + 8]--
}

export function ipv4_is_loopback(addr: number): boolean {
  return addr >>> 24 === 127
}
export function ipv4_is_multicast(addr: number): boolean {
  return addr >>> 28 === 14
}
/** 240/4, the limited broadcast included. */
export function ipv4_is_badclass(addr: number): boolean {
  return addr >>> 28 === 15
}
/** 0/8. */
export function ipv4_is_zeronet(addr: number): boolean {
  return addr >>> 24 === 0
}
export function ipv4_is_local_multicast(addr: number): boolean {
  return addr >>> 8 === 0xe00000
}

/** ip_ntoa - dotted decimal, for dumps. */
export function ip_ntoa(addr: number): string {
  return `${addr >>> 24}.${(addr >>> 16) & 255}.${(addr >>> 8) & 255}.${addr & 255}`
}
/** inet_make_mask - the netmask of a prefix length. */
export function inet_make_mask(prefixlen: number): number {
  return prefixlen === 0 ? 0 : -1 << (32 - prefixlen)
}
