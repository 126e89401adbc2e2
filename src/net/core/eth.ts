/** eth.ts - Ethernet devices: what net/ethernet/eth.c does. */

import { symbol } from '../../abi/symbol.js'
import { config } from '../../arch/machine.js'
import { RAM } from '../../arch/ram.js'
import { EBUSY, EINVAL } from '../../lib/errno.js'
import { TX_QUEUE_LEN } from '../../lib/limits.js'
import { netif_running } from './netdevice.js'
import { __skb_pull, skb_push } from './skbuff.js'
import {
  IFF_BROADCAST,
  IFF_LOOPBACK,
  IFF_MULTICAST,
  IFF_NOARP,
  type net_device,
  PACKET_BROADCAST,
  PACKET_HOST,
  PACKET_MULTICAST,
  PACKET_OTHERHOST,
  type sk_buff,
} from './types.js'

const dv = RAM.dv
const u8 = RAM.u8

const ETH_HLEN = 14
const ETH_P_802_3 = 0x0001 // raw 802.3 frames of Novell
const ETH_P_802_2 = 0x0004
const ARPHRD_ETHER = 1

function is_broadcast(dev: net_device, hi: number, lo: number): boolean {
  return hi === dev.broadcast_hi && lo === dev.broadcast_lo
}
/**
 * eth_type_trans - strip the Ethernet header of a received frame of at least 14 bytes, say whom it is for.
 * @returns protocol, host order
 */
export function eth_type_trans(skb: sk_buff, dev: net_device): number {
  const eth = skb.data
  skb.mac = eth
  __skb_pull(skb, ETH_HLEN)
  skb.input_dev = dev
  const hi = dv.getInt32(eth)
  const lo = dv.getInt16(eth + 4)
  if ((u8[eth] & 1) !== 0) skb.pkt_type = is_broadcast(dev, hi, lo) ? PACKET_BROADCAST : PACKET_MULTICAST
  else if (hi !== dev.dev_addr_hi || lo !== dev.dev_addr_lo) skb.pkt_type = PACKET_OTHERHOST
  else skb.pkt_type = PACKET_HOST
  const proto = dv.getUint16(eth + 12)
  if (proto >= 1536) return proto
  return skb.len >= 2 && dv.getUint16(eth + ETH_HLEN) === 0xffff ? ETH_P_802_3 : ETH_P_802_2
}

/**
 * eth_header - the header of a frame of this device's, in front of the packet; `daddr`: where the station address lies, 0: not
 * known yet. @returns length of the header, negative: it still wants its destination
 */
export function eth_header(skb: sk_buff, dev: net_device, type: number, daddr: number, len: number): number {
  const eth = skb_push(skb, ETH_HLEN)
  dv.setUint16(eth + 12, type !== ETH_P_802_3 ? type : len)
  dv.setInt32(eth + 6, dev.dev_addr_hi)
  dv.setInt16(eth + 10, dev.dev_addr_lo)
  if ((dev.flags & (IFF_LOOPBACK | IFF_NOARP)) !== 0) u8.fill(0, eth, eth + 6)
  else if (daddr !== 0) u8.copyWithin(eth, daddr, daddr + 6)
  else return -ETH_HLEN
  return ETH_HLEN
}

/** ether_setup - the fields that all Ethernet devices have in common. The address: first 4 and last 2 bytes, signed. */
export function ether_setup(dev: net_device, hi: number, lo: number): void {
  dev.mtu = 1500
  dev.hard_header_len = ETH_HLEN
  dev.tx_queue_len = config('tx_queue_len') || TX_QUEUE_LEN
  dev.flags = IFF_BROADCAST | IFF_MULTICAST
  dev.type = ARPHRD_ETHER
  dev.dev_addr_hi = hi
  dev.dev_addr_lo = (lo << 16) >> 16
  dev.broadcast_hi = -1
  dev.broadcast_lo = -1
  dev.set_mac_address = eth_mac_addr_sym
}

/** eth_mac_addr - a station address of an Ethernet device that is down; it takes it when it is opened. @returns 0, -EBUSY, -EINVAL */
function eth_mac_addr(dev: net_device, hi: number, lo: number): number {
  if (netif_running(dev)) return -EBUSY
  if ((hi & 0x01000000) !== 0 || (hi === 0 && (lo & 0xffff) === 0)) return -EINVAL // a group, or nobody
  dev.dev_addr_hi = hi
  dev.dev_addr_lo = (lo << 16) >> 16
  return 0
}
const eth_mac_addr_sym = symbol('eth_mac_addr', eth_mac_addr)
