/** eth.ts - the Ethernet header: 14 bytes. An address is two numbers: its first 4 bytes and its last 2, signed. */
import { RAM } from '../../arch/ram.js'

const dv = RAM.dv
const u8 = RAM.u8

export const ETH_ALEN = 6
export const ETH_HLEN = 14
export const ETH_ZLEN = 60 // shortest frame, without FCS
export const ETH_DATA_LEN = 1500
export const ETH_P_802_3 = 0x0001
export const ETH_P_ALL = 0x0003
export const ETH_P_802_2 = 0x0004
export const ETH_P_IP = 0x0800
export const ETH_P_ARP = 0x0806
export const ETH_P_8021Q = 0x8100
export const ETH_P_IPV6 = 0x86dd

export function eth_dest_hi(eth: number): number {
  return dv.getInt32(eth)
}
export function eth_dest_lo(eth: number): number {
  return dv.getInt16(eth + 4)
}
export function eth_source_hi(eth: number): number {
  return dv.getInt32(eth + 6)
}
export function eth_source_lo(eth: number): number {
  return dv.getInt16(eth + 10)
}
export function eth_proto(eth: number): number {
  return dv.getUint16(eth + 12)
}
/** Group bit of the destination: multicast or broadcast. */
export function eth_is_multicast(eth: number): boolean {
  return (u8[eth] & 1) !== 0
}
/** set_eth_header - write all 14 bytes. */
export function set_eth_header(eth: number, dhi: number, dlo: number, shi: number, slo: number, proto: number): void {
  dv.setInt32(eth, dhi)
  dv.setInt16(eth + 4, dlo)
  dv.setInt32(eth + 6, shi)
  dv.setInt16(eth + 10, slo)
  dv.setUint16(eth + 12, proto)
}
