/** ipq_message.ts - the messages of the user queue (linux/netfilter_ipv4/ip_queue.h), in the byte order of an i386. No locks. */
import { RAM } from '../../../arch/ram.js'
import { dev_name } from '../../core/netdevice.js'
import type { nf_info } from '../../core/netfilter.js'
import { alloc_skb, skb_copy_bits } from '../../core/skbuff.js'
import type { net_device, sk_buff } from '../../core/types.js'
import { nlmsg_data, nlmsg_put } from '../../netlink/nlmsg.js'
import { NLMSG_HDRLEN, nlmsg_align } from '../../netlink/types.js'

const dv = RAM.dv
const u8 = RAM.u8

export const IPQM_BASE = 0x10
/** The program says how much it wants to see. */
export const IPQM_MODE = IPQM_BASE + 1
export const IPQM_VERDICT = IPQM_BASE + 2
/** A packet that waits. */
export const IPQM_PACKET = IPQM_BASE + 3
export const IPQM_MAX = IPQM_BASE + 4

export const IPQ_COPY_NONE = 0
/** What is known of the packet. */
export const IPQ_COPY_META = 1
/** That and its bytes, so many as were asked for. */
export const IPQ_COPY_PACKET = 2

/** sizeof(ipq_packet_msg): id, mark, time, hook, devices, protocol, sender's hardware address, length; the bytes follow. */
const PACKET_MSG = 72
/** sizeof(ipq_peer_msg): a mode or a verdict. */
export const PEER_MSG = 12
const IFNAMSIZ = 16
const ETH_ALEN = 6

/** put_name - of a device, into zeroes. */
export function put_name(at: number, dev: net_device | null): void {
  if (dev === null) return
  const name = dev_name(dev).slice(0, IFNAMSIZ - 1)
  for (let k = 0; k < name.length; k++) u8[at + k] = name.charCodeAt(k)
}

/** ipq_build_packet_message - `range` bytes of the packet at most, 0: none of them. @returns a message, or null: no memory */
export function ipq_build_packet_message(skb: sk_buff, info: nf_info, id: number, range: number): sk_buff | null {
  const len = Math.min(range, skb.len)
  const nskb = alloc_skb(nlmsg_align(NLMSG_HDRLEN + PACKET_MSG + len))
  if (nskb === null) return null
  const m = nlmsg_data(nlmsg_put(nskb, 0, 0, IPQM_PACKET, PACKET_MSG + len, 0))
  dv.setInt32(m, id, true)
  dv.setInt32(m + 4, skb.nfmark, true)
  u8.copyWithin(m + 8, skb.stamp, skb.stamp + 8)
  dv.setUint32(m + 16, info.hook, true)
  put_name(m + 20, info.indev)
  put_name(m + 36, info.outdev)
  dv.setUint16(m + 52, skb.protocol)
  if (info.indev !== null && skb.dev !== null) {
    dv.setUint16(m + 54, skb.dev.type, true)
    if (skb.mac >= skb.head && skb.mac + 2 * ETH_ALEN <= skb.data) {
      u8[m + 56] = ETH_ALEN
      u8.copyWithin(m + 57, skb.mac + ETH_ALEN, skb.mac + 2 * ETH_ALEN)
    }
  }
  dv.setUint32(m + 68, len, true)
  skb_copy_bits(skb, 0, m + PACKET_MSG, len)
  return nskb
}

/** A mode: what to copy, and how many bytes at most. `at`: the message's data. */
export function ipq_mode_msg(at: number): { value: number; range: number } {
  return { value: u8[at]!, range: dv.getUint32(at + 4, true) }
}
/** A verdict on packet `id`; `data_len`: bytes of another packet that is to go on in its place. */
export function ipq_verdict_msg(at: number): { value: number; id: number; data_len: number } {
  return { value: dv.getUint32(at, true), id: dv.getInt32(at + 4, true), data_len: dv.getUint32(at + 8, true) }
}
