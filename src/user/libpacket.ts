/** libpacket.ts - what programs need for packet sockets (netpacket/packet.h, and struct ifreq of net/if.h). */
import { ioctl, type Libc, load32, malloc, mem } from './libc.js'

export const AF_PACKET = 17
export const SOL_PACKET = 263
export const PACKET_ADD_MEMBERSHIP = 1
export const PACKET_DROP_MEMBERSHIP = 2
export const PACKET_STATISTICS = 6
export const PACKET_MR_MULTICAST = 0
export const PACKET_MR_PROMISC = 1
export const PACKET_MR_ALLMULTI = 2
export const PACKET_HOST = 0
export const PACKET_MULTICAST = 2
export const PACKET_OUTGOING = 4
export const ETH_P_ALL = 3
export const ETH_P_IP = 0x0800
export const ETH_P_ARP = 0x0806
export const SOCKADDR_LL_SIZE = 20

/** htons - a number as the network has it, for arguments that are not in memory. */
export function htons(n: number): number {
  return ((n & 0xff) << 8) | ((n >> 8) & 0xff)
}

/** sockaddr_ll - writes one at `addr`; `to`: a station address of 6 bytes. @returns addr */
export function sockaddr_ll(addr: number, ifindex: number, protocol: number, to: ArrayLike<number> = []): number {
  const b = mem(addr, SOCKADDR_LL_SIZE)
  b.fill(0)
  b.set([AF_PACKET, 0, protocol >> 8, protocol & 255, ifindex & 255, (ifindex >> 8) & 255, 0, 0])
  b[11] = to.length
  b.set(to, 12)
  return addr
}

export interface SockaddrLl {
  family: number
  protocol: number
  ifindex: number
  hatype: number
  pkttype: number
  address: number[]
}
/** get_sockaddr_ll - reads one. */
export function get_sockaddr_ll(addr: number): SockaddrLl {
  const b = mem(addr, SOCKADDR_LL_SIZE)
  const v = new DataView(b.buffer, b.byteOffset, SOCKADDR_LL_SIZE)
  return {
    family: v.getUint16(0, true),
    protocol: v.getUint16(2),
    ifindex: v.getInt32(4, true),
    hatype: v.getUint16(8, true),
    pkttype: b[10]!,
    address: [...b.subarray(12, 12 + b[11]!)],
  }
}

/** packet_mreq - writes one at `addr`. @returns addr */
export function packet_mreq(addr: number, ifindex: number, type: number, address: ArrayLike<number> = []): number {
  const b = mem(addr, 16)
  b.fill(0)
  b.set([ifindex & 255, (ifindex >> 8) & 255, 0, 0, type, 0, address.length, 0])
  b.set(address, 8)
  return addr
}

const SIOCGIFNAME = 0x8910
const SIOCGIFFLAGS = 0x8913
const SIOCGIFINDEX = 0x8933
export const IFF_UP = 0x1
export const IFF_LOOPBACK = 0x8
export const IFF_NOARP = 0x80

/** A request about a device by its name. @returns the word that it asks for, or a negative errno */
function* ifreq(fd: number, cmd: number, name: string): Libc {
  const at = malloc(32)
  const b = mem(at, 32)
  b.fill(0)
  b.set([...name].slice(0, 15).map(c => c.charCodeAt(0)))
  const err = yield* ioctl(fd, cmd, at)
  return err < 0 ? err : load32(at + 16)
}
/** if_nametoindex - @returns index, or a negative errno */
export function if_nametoindex(fd: number, name: string): Libc {
  return ifreq(fd, SIOCGIFINDEX, name)
}
/** if_flags - IFF_*, or a negative errno */
export function* if_flags(fd: number, name: string): Libc {
  const flags = yield* ifreq(fd, SIOCGIFFLAGS, name)
  return flags < 0 && flags > -1000 ? flags : flags & 0xffff
}
/** if_indextoname - or '': there is no such device. */
export function* if_indextoname(fd: number, index: number): Generator<void, string, void> {
  const at = malloc(32)
  mem(at + 16, 4).set([index & 255, (index >> 8) & 255, 0, 0])
  if ((yield* ioctl(fd, SIOCGIFNAME, at)) < 0) return ''
  const name = mem(at, 16)
  return new TextDecoder().decode(name.slice(0, name.indexOf(0)))
}
/** ether_ntoa - a station address, two digits a byte. */
export function ether_ntoa(b: ArrayLike<number>): string {
  return Array.from(b, byte => byte.toString(16).padStart(2, '0')).join(':')
}
