/** icmp.ts - the ICMP header (RFC 792): type, code, checksum, and four bytes that the type defines. */
import { RAM } from '../../arch/ram.js'

const dv = RAM.dv
const u8 = RAM.u8

export const ICMP_HLEN = 8
export const ICMP_ECHOREPLY = 0
export const ICMP_DEST_UNREACH = 3
export const ICMP_SOURCE_QUENCH = 4
export const ICMP_REDIRECT = 5
export const ICMP_ECHO = 8
export const ICMP_TIME_EXCEEDED = 11
export const ICMP_PARAMETERPROB = 12
export const ICMP_TIMESTAMP = 13
export const ICMP_TIMESTAMPREPLY = 14
export const ICMP_INFO_REQUEST = 15
export const ICMP_INFO_REPLY = 16
export const ICMP_ADDRESS = 17
export const ICMP_ADDRESSREPLY = 18
export const NR_ICMP_TYPES = 18

// codes of DEST_UNREACH
export const ICMP_NET_UNREACH = 0
export const ICMP_HOST_UNREACH = 1
export const ICMP_PROT_UNREACH = 2
export const ICMP_PORT_UNREACH = 3
export const ICMP_FRAG_NEEDED = 4
export const ICMP_SR_FAILED = 5
export const ICMP_PKT_FILTERED = 13
// of REDIRECT
export const ICMP_REDIR_HOST = 1
// of TIME_EXCEEDED
export const ICMP_EXC_TTL = 0
export const ICMP_EXC_FRAGTIME = 1

export function icmp_type(icmph: number): number {
  return u8[icmph]
}
export function icmp_code(icmph: number): number {
  return u8[icmph + 1]
}
export function icmp_checksum(icmph: number): number {
  return dv.getUint16(icmph + 2)
}
/** The second word: id and sequence, gateway, pointer or MTU. */
export function icmp_info(icmph: number): number {
  return dv.getInt32(icmph + 4)
}
/** set_icmp_header - with a checksum of 0, to be computed last. */
export function set_icmp_header(icmph: number, type: number, code: number, info: number): void {
  u8[icmph] = type
  u8[icmph + 1] = code
  dv.setUint16(icmph + 2, 0)
  dv.setInt32(icmph + 4, info)
}
export function set_icmp_checksum(icmph: number, check: number): void {
  dv.setUint16(icmph + 2, check)
}
