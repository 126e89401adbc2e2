/** igmp.ts - the header of IGMP versions 1 and 2 (RFC 2236), 8 bytes: functions on an address. */
import { RAM } from '../../arch/ram.js'

const u8 = RAM.u8
const dv = RAM.dv

export const IGMP_HLEN = 8
export const IGMP_HOST_MEMBERSHIP_QUERY = 0x11
export const IGMP_HOST_MEMBERSHIP_REPORT = 0x12
export const IGMPV2_HOST_MEMBERSHIP_REPORT = 0x16
export const IGMP_HOST_LEAVE_MESSAGE = 0x17
export const IGMP_ALL_HOSTS = 0xe0000001 | 0
export const IGMP_ALL_ROUTER = 0xe0000002 | 0

export function igmp_type(ih: number): number {
  return u8[ih]!
}
/** Tenths of a second within which an answer is due; 0: a query of version 1. */
export function igmp_code(ih: number): number {
  return u8[ih + 1]!
}
export function igmp_group(ih: number): number {
  return dv.getInt32(ih + 4)
}
/** set_igmp_header - with a checksum of 0, to be computed last. */
export function set_igmp_header(ih: number, type: number, group: number): void {
  u8[ih] = type
  u8[ih + 1] = 0
  dv.setUint16(ih + 2, 0)
  dv.setInt32(ih + 4, group)
}
export function set_igmp_csum(ih: number, csum: number): void {
  dv.setUint16(ih + 2, csum)
}
