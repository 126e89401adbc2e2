/** offload.ts - what a device cannot do by itself is done in front of its queue: gather fragments, fill in a checksum. */
import { BUG_ON } from '../../arch/cpu.js'
import { RAM } from '../../arch/ram.js'
import { csum_fold, csum_partial } from '../../lib/checksum.js'
import { ENOMEM } from '../../lib/errno.js'
import { pskb_expand_head, skb_cloned, skb_linearize, skb_shinfo } from './skbuff.js'
import {
  CHECKSUM_HW,
  CHECKSUM_NONE,
  NETIF_F_FRAGLIST,
  NETIF_F_HW_CSUM,
  NETIF_F_IP_CSUM,
  NETIF_F_NO_CSUM,
  NETIF_F_SG,
  type net_device,
  type sk_buff,
} from './types.js'

const dv = RAM.dv
const ETH_P_IP = 0x0800

/** skb_checksum_help - fill in the checksum that was left to the device. @context any @returns 0, -ENOMEM */
export function skb_checksum_help(skb: sk_buff): number {
  if (skb_linearize(skb) !== 0 || (skb_cloned(skb) && pskb_expand_head(skb, 0, 0) !== 0)) return -ENOMEM
  const len = skb.tail - skb.h
  BUG_ON(skb.h < skb.data || skb.csum + 2 > len, 'checksum outside')
  const sum = csum_fold(csum_partial(dv, skb.h, len, 0))
  dv.setUint16(skb.h + skb.csum, sum === 0 ? 0xffff : sum) // 0 would say that UDP has none; the NIC does the same
  skb.ip_summed = CHECKSUM_NONE
  return 0
}

/** Can the device fill in the checksum of this packet? */
function can_checksum(skb: sk_buff, dev: net_device): boolean {
  if ((dev.features & (NETIF_F_HW_CSUM | NETIF_F_NO_CSUM)) !== 0) return true
  return (dev.features & NETIF_F_IP_CSUM) !== 0 && skb.protocol === ETH_P_IP
}

/** skb_fit_device - make a packet in parts, or without its checksum, one that the device can send. @returns 0, -ENOMEM */
export function skb_fit_device(skb: sk_buff, dev: net_device): number {
  if (skb.data_len !== 0) {
    const info = skb_shinfo(skb)
    const lists = info.frag_list !== null && (dev.features & NETIF_F_FRAGLIST) === 0
    const pages = info.nr_frags !== 0 && (dev.features & NETIF_F_SG) === 0
    if ((lists || pages) && skb_linearize(skb) !== 0) return -ENOMEM
  }
  return skb.ip_summed === CHECKSUM_HW && !can_checksum(skb, dev) ? skb_checksum_help(skb) : 0
}
