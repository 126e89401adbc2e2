/**
 * loopback.ts - the device `lo`: what is sent through it is received by the CPU that sends it.
 *
 * Lock charter
 *   None (NETIF_F_LLTX): CPUs send at once without keeping each other out. The statistics are per CPU and changed in
 *   hard_start_xmit only, which runs with bottom halves off.
 */
import { type Layout, layout, own, Struct, word } from '../../abi/layout.js'
import { DEFINE_PER_CPU } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { num_cpus } from '../../arch/machine.js'
import { RAM } from '../../arch/ram.js'
import { netif_rx } from '../../net/core/dev.js'
import { eth_type_trans } from '../../net/core/eth.js'
import { fate_received, fate_sent } from '../../net/core/fate.js'
import { set_loopback_dev } from '../../net/core/loopback_dev.js'
import { alloc_netdev, free_netdev, register_netdevice } from '../../net/core/netdevice.js'
import { skb_orphan } from '../../net/core/skbuff.js'
import {
  ACCT_RX,
  CHECKSUM_UNNECESSARY,
  DEV_STATS,
  IFF_LOOPBACK,
  NETDEV_TX_OK,
  NETIF_F_FRAGLIST,
  NETIF_F_HIGHDMA,
  NETIF_F_LLTX,
  NETIF_F_NO_CSUM,
  NETIF_F_SG,
  type net_device,
  type sk_buff,
} from '../../net/core/types.js'

const i32 = RAM.i32

/** 16 KiB of data behind the largest headers of IP and TCP. */
export const LOOPBACK_MTU = 16 * 1024 + 20 + 20 + 12
const ETH_HLEN = 14
const ARPHRD_LOOPBACK = 772

class loopback_stat extends Struct {
  declare packets: number
  declare bytes: number
}
/** Sent and received are the same here. */
const STATS: Layout<loopback_stat> = layout('loopback_stats', loopback_stat, { packets: own(word), bytes: own(word) })
const loopback_stats = DEFINE_PER_CPU('loopback_stats', STATS)
const mine = loopback_stats.mine

/**
 * loopback_xmit - hard_start_xmit: the packet comes in at once. No socket is charged for it any more, its checksum need not be
 * looked at, and it keeps the route that it was sent by. @context softirq, or bottom halves off @consumes skb
 */
function loopback_xmit(skb: sk_buff, dev: net_device): number {
  skb_orphan(skb)
  fate_sent(skb.acct) // one packet is out, another one is in: the books have both
  fate_received()
  skb.acct = ACCT_RX
  skb.protocol = eth_type_trans(skb, dev)
  skb.dev = dev
  skb.ip_summed = CHECKSUM_UNNECESSARY
  mine.packets++
  mine.bytes += skb.len
  netif_rx(skb)
  return NETDEV_TX_OK
}
const loopback_xmit_sym = symbol('loopback_xmit', loopback_xmit)

/** loopback_get_stats - the sum over all CPUs, in words of DEV_STATS at `stats`. */
function loopback_get_stats(_dev: net_device, stats: number): void {
  let packets = 0
  let bytes = 0
  for (let cpu = 0; cpu < num_cpus(); cpu++) {
    packets += loopback_stats.cpu(cpu).packets
    bytes += loopback_stats.cpu(cpu).bytes
  }
  const put = (name: (typeof DEV_STATS)[number], value: number): void => {
    i32[(stats >> 2) + DEV_STATS.indexOf(name)] = value
  }
  put('rx_packets', packets)
  put('tx_packets', packets)
  put('rx_bytes', bytes)
  put('tx_bytes', bytes)
}
const loopback_get_stats_sym = symbol('loopback_get_stats', loopback_get_stats)

/** loopback_init - @context boot @locks rtnl is held @returns the registered device, or null */
export function loopback_init(): net_device | null {
  const dev = alloc_netdev('lo')
  if (dev === null) return null
  dev.mtu = LOOPBACK_MTU
  dev.hard_header_len = ETH_HLEN
  dev.type = ARPHRD_LOOPBACK
  dev.flags = IFF_LOOPBACK
  dev.features = NETIF_F_SG | NETIF_F_FRAGLIST | NETIF_F_NO_CSUM | NETIF_F_HIGHDMA | NETIF_F_LLTX
  dev.hard_start_xmit = loopback_xmit_sym
  dev.get_stats = loopback_get_stats_sym
  if (register_netdevice(dev) !== 0) {
    free_netdev(dev)
    return null
  }
  set_loopback_dev(dev)
  return dev
}
