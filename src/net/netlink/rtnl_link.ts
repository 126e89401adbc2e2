/**
 * rtnl_link.ts - RTM_*LINK: devices as programs see and change them.
 * No locks of its own: changes come under rtnl, dumps take dev_base_lock for reading.
 */

import { DEFINE_STATIC } from '../../abi/section.js'
import { call, symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { NOTIFIER, NOTIFY_DONE, type notifier_block } from '../../irq/notifier.js'
import { EINVAL, ENODEV, EOPNOTSUPP } from '../../lib/errno.js'
import { kfree, kmalloc } from '../../mm/kmalloc.js'
import { dev_change_flags, dev_change_name, dev_get_flags, dev_set_mac_address, IFNAMSIZ } from '../core/dev_change.js'
import {
  dev_base_read_lock,
  dev_base_read_unlock,
  dev_change_mtu,
  dev_get_by_index,
  dev_get_by_name,
  dev_name,
  dev_put,
  first_netdev,
  NETDEV_CHANGE,
  NETDEV_DOWN,
  NETDEV_GOING_DOWN,
  NETDEV_REGISTER,
  NETDEV_UNREGISTER,
  NETDEV_UP,
  register_netdevice_notifier,
} from '../core/netdevice.js'
import { AF_UNSPEC } from '../core/sock_types.js'
import { DEV_STATS, IFF_RUNNING, IFF_UP, NETDEV, type net_device, type sk_buff } from '../core/types.js'
import {
  nlmsg_data,
  nlmsg_end,
  nlmsg_put,
  nlmsg_room,
  nlmsg_seq,
  rta_data,
  rta_payload,
  rta_put,
  rta_put_mac,
  rta_put_string,
  rta_put_u32,
  rta_string,
  rta_u32,
} from './nlmsg.js'
import {
  RTM_DELLINK,
  RTM_GETLINK,
  RTM_NEWLINK,
  RTM_SETLINK,
  RTMGRP_LINK,
  rtnl_notify,
  rtnl_register,
} from './rtnetlink.js'
import { NLM_F_MULTI, type netlink_callback, netlink_cb } from './types.js'

const dv = RAM.dv
const i32 = RAM.i32

export const IFLA_ADDRESS = 1
export const IFLA_BROADCAST = 2
export const IFLA_IFNAME = 3
export const IFLA_MTU = 4
export const IFLA_QDISC = 6
export const IFLA_STATS = 7
export const IFLA_TXQLEN = 13
export const IFLA_MAP = 14
export const IFLA_WEIGHT = 15

/** Words of struct net_device_stats as programs get it. */
const STATS = [
  ...['rx_packets', 'tx_packets', 'rx_bytes', 'tx_bytes', 'rx_errors', 'tx_errors', 'rx_dropped', 'tx_dropped'],
  ...['multicast', 'collisions', 'rx_length_errors', 'rx_over_errors', 'rx_crc_errors', 'rx_frame_errors'],
  ...['rx_fifo_errors', 'rx_missed_errors', 'tx_aborted_errors', 'tx_carrier_errors', 'tx_fifo_errors'],
  ...['tx_heartbeat_errors', 'tx_window_errors', 'rx_compressed', 'tx_compressed'],
]
const DEV_STATS_SIZE = DEV_STATS.length * 4
/** The most that a link's message takes. */
const LINK_SPACE = 384

function put_stats(skb: sk_buff, dev: net_device): void {
  const own = kmalloc(DEV_STATS_SIZE)
  if (own === 0) return
  call(dev.get_stats)(dev, own)
  const at = rta_put(skb, IFLA_STATS, STATS.length * 4)
  DEV_STATS.forEach((name, k) => {
    const place = STATS.indexOf(name)
    if (place >= 0) dv.setInt32(at + place * 4, i32[(own >> 2) + k]!, true)
  })
  kfree(own)
}

/** rtnetlink_fill_ifinfo - @returns false: there is no room */
function rtnetlink_fill_ifinfo(
  skb: sk_buff,
  dev: net_device,
  type: number,
  pid: number,
  seq: number,
  change: number,
  flags: number,
): boolean {
  if (!nlmsg_room(skb, LINK_SPACE)) return false
  const nlh = nlmsg_put(skb, pid, seq, type, 16, flags)
  const ifi = nlmsg_data(nlh)
  dv.setUint16(ifi + 2, dev.type, true)
  dv.setInt32(ifi + 4, dev.ifindex, true)
  dv.setInt32(ifi + 8, dev_get_flags(dev), true)
  dv.setInt32(ifi + 12, change, true)
  rta_put_string(skb, IFLA_IFNAME, dev_name(dev))
  rta_put_u32(skb, IFLA_TXQLEN, dev.tx_queue_len)
  rta_put_u32(skb, IFLA_WEIGHT, dev.weight)
  dv.setUint8(rta_put(skb, IFLA_MAP, 28) + 26, 0)
  rta_put_mac(skb, IFLA_ADDRESS, dev.dev_addr_hi, dev.dev_addr_lo)
  rta_put_mac(skb, IFLA_BROADCAST, dev.broadcast_hi, dev.broadcast_lo)
  rta_put_u32(skb, IFLA_MTU, dev.mtu)
  const { qdisc_sleeping: q } = dev
  const queue = dev.tx_queue_len === 0 ? 'noqueue' : q === null || q.dev === null ? 'noop' : 'pfifo_fast'
  rta_put_string(skb, IFLA_QDISC, queue)
  if (dev.get_stats !== 0) put_stats(skb, dev)
  nlmsg_end(skb, nlh)
  return true
}

/** rtnetlink_dump_ifinfo - @locks dev_base_lock */
function rtnetlink_dump_ifinfo(skb: sk_buff, cb: netlink_callback): number {
  const done = cb.args >> 2 // devices that were shown
  const { pid } = netlink_cb(cb.skb!)
  let k = 0
  dev_base_read_lock()
  for (let dev = first_netdev(); dev !== null; dev = dev.next, k++) {
    if (k < i32[done]!) continue
    if (!rtnetlink_fill_ifinfo(skb, dev, RTM_NEWLINK, pid, nlmsg_seq(cb.nlh), -1, NLM_F_MULTI)) break
  }
  dev_base_read_unlock()
  i32[done] = k
  return skb.len
}
const rtnetlink_dump_ifinfo_sym = symbol('rtnetlink_dump_ifinfo', rtnetlink_dump_ifinfo)

/** rtmsg_ifinfo - a device is there, is gone, or is different. @context process @locks rtnl is held */
export function rtmsg_ifinfo(type: number, dev: net_device, change: number): void {
  rtnl_notify(RTMGRP_LINK, skb => rtnetlink_fill_ifinfo(skb, dev, type, 0, 0, change, 0))
}

// ---- change ---------------------------------------------------------------------------------------------------------

/** The device that a message names, with a reference. @returns address, -EINVAL, -ENODEV */
function named_device(ifi: number, rta: number[]): number {
  const ifindex = dv.getInt32(ifi + 4, true)
  const name = rta[IFLA_IFNAME - 1] ? rta_string(rta[IFLA_IFNAME - 1]!, IFNAMSIZ) : ''
  if (ifindex <= 0 && (name === null || name === '')) return -EINVAL
  const dev = ifindex > 0 ? dev_get_by_index(ifindex) : dev_get_by_name(name!)
  return dev === null ? -ENODEV : dev.addr
}

/** What a message says but flags, one after the other, until one is refused. @returns 0, -errno */
function set_attributes(dev: net_device, by_index: boolean, rta: number[]): number {
  const attribute = (type: number): number => rta[type - 1] ?? 0
  if (attribute(IFLA_MAP) !== 0) return -EOPNOTSUPP
  let err = 0
  const address = attribute(IFLA_ADDRESS)
  if (address !== 0) {
    if (dev.set_mac_address === 0) return -EOPNOTSUPP
    if (rta_payload(address) !== 6) return -EINVAL
    err = dev_set_mac_address(dev, dv.getInt32(rta_data(address)), dv.getInt16(rta_data(address) + 4))
  }
  for (const type of [IFLA_MTU, IFLA_TXQLEN, IFLA_WEIGHT]) {
    if (err !== 0 || attribute(type) === 0) continue
    if (rta_payload(attribute(type)) !== 4) return -EINVAL
    const value = rta_u32(attribute(type))
    if (type === IFLA_MTU) err = dev.mtu === value ? 0 : dev_change_mtu(dev, value)
    else if (type === IFLA_TXQLEN) dev.tx_queue_len = value
    else dev.weight = value
  }
  if (err !== 0 || !by_index || attribute(IFLA_IFNAME) === 0) return err
  const name = rta_string(attribute(IFLA_IFNAME), IFNAMSIZ)
  return name === null ? -EINVAL : dev_change_name(dev, name)
}

/**
 * do_setlink - change a device: its flags (those that ifi_change names, or all that are there), then the rest. RTM_NEWLINK does
 * the same for a device that exists, as from 2.6.20 on. @context process @locks rtnl is held @returns 0, -errno
 */
function* do_setlink(_skb: sk_buff, nlh: number, rta: number[]): Generator<void, number, void> {
  const ifi = nlmsg_data(nlh)
  const at = named_device(ifi, rta)
  if (at < 0) return at
  const dev = NETDEV.ref(at)
  const flags = dv.getInt32(ifi + 8, true)
  const change = dv.getInt32(ifi + 12, true)
  let err = 0
  if (change !== 0 || flags !== 0) {
    const old = dev_get_flags(dev)
    err = yield* dev_change_flags(dev, change === 0 ? flags : (old & ~change) | (flags & change))
  }
  if (err === 0) err = set_attributes(dev, dv.getInt32(ifi + 4, true) > 0, rta)
  dev_put(dev)
  return err
}
const do_setlink_sym = symbol('do_setlink', do_setlink)

function rtnetlink_event(_nb: notifier_block, event: number, data: number): number {
  const dev = NETDEV.ref(data)
  if (event === NETDEV_UNREGISTER) rtmsg_ifinfo(RTM_DELLINK, dev, -1)
  else if (event === NETDEV_REGISTER) rtmsg_ifinfo(RTM_NEWLINK, dev, -1)
  else if (event === NETDEV_UP || event === NETDEV_DOWN) rtmsg_ifinfo(RTM_NEWLINK, dev, IFF_UP | IFF_RUNNING)
  else if (event === NETDEV_CHANGE)
    rtmsg_ifinfo(RTM_NEWLINK, dev, 0) // 2.6.11 does so where it is announced
  else if (event !== NETDEV_GOING_DOWN) rtmsg_ifinfo(RTM_NEWLINK, dev, 0)
  return NOTIFY_DONE
}
const rtnetlink_event_sym = symbol('rtnetlink_event', rtnetlink_event)
const rtnetlink_dev_notifier = DEFINE_STATIC('rtnetlink_dev_notifier', NOTIFIER)

/** rtnl_link_init - @context boot, CPU 0 */
export function rtnl_link_init(): void {
  rtnl_register(AF_UNSPEC, RTM_GETLINK, 0, rtnetlink_dump_ifinfo_sym)
  rtnl_register(AF_UNSPEC, RTM_SETLINK, do_setlink_sym, 0)
  rtnl_register(AF_UNSPEC, RTM_NEWLINK, do_setlink_sym, 0)
  rtnetlink_dev_notifier.call = rtnetlink_event_sym
  register_netdevice_notifier(rtnetlink_dev_notifier)
}
