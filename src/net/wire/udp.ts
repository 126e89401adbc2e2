/** udp.ts - the UDP header (RFC 768): 8 bytes. */
import { RAM } from '../../arch/ram.js'

const dv = RAM.dv

export const UDP_HLEN = 8

export function udp_source(uh: number): number {
  return dv.getUint16(uh)
}
export function udp_dest(uh: number): number {
  return dv.getUint16(uh + 2)
}
/** Bytes of header and data. */
export function udp_len(uh: number): number {
  return dv.getUint16(uh + 4)
}
/** 0 means that the sender computed none. */
export function udp_check(uh: number): number {
  return dv.getUint16(uh + 6)
}
export function set_udp_header(uh: number, source: number, dest: number, len: number, check: number): void {
  dv.setUint16(uh, source)
  dv.setUint16(uh + 2, dest)
  dv.setUint16(uh + 4, len)
  dv.setUint16(uh + 6, check)
}
