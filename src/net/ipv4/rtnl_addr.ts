/**
 * rtnl_addr.ts - RTM_*ADDR: IPv4 addresses of devices as programs see and change them (inet_rtm_newaddr and the like of 2.6.11).
 * Changes come under rtnl; dumps take dev_base_lock for reading, and the lists are RCU.
 */
import { symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { EADDRNOTAVAIL, EINVAL, ENOBUFS, ENODEV, ENOMEM } from '../../lib/errno.js'
import { IFNAMSIZ } from '../core/dev_change.js'
import { dev_base_read_lock, dev_base_read_unlock, dev_get_by_index, dev_put, first_netdev } from '../core/netdevice.js'
import { AF_INET } from '../core/sock_types.js'
import type { net_device, sk_buff } from '../core/types.js'
import {
  nlmsg_data,
  nlmsg_end,
  nlmsg_put,
  nlmsg_room,
  nlmsg_seq,
  rta_addr,
  rta_payload,
  rta_put_addr,
  rta_put_string,
  rta_string,
} from '../netlink/nlmsg.js'
import {
  RTM_DELADDR,
  RTM_GETADDR,
  RTM_NEWADDR,
  RTMGRP_IPV4_IFADDR,
  rtnl_notify,
  rtnl_register,
} from '../netlink/rtnetlink.js'
import { NLM_F_MULTI, type netlink_callback, netlink_cb } from '../netlink/types.js'
import {
  type IfaSpec,
  ifa_label,
  in_dev_get,
  type in_ifaddr,
  inet_del_ifa,
  inet_ifa_match,
  inet_insert_ifa,
  inetdev_init,
} from './devinet.js'

const dv = RAM.dv
const i32 = RAM.i32
const u8 = RAM.u8

export const IFA_ADDRESS = 1
export const IFA_LOCAL = 2
export const IFA_LABEL = 3
export const IFA_BROADCAST = 4
const IFA_F_PERMANENT = 0x80
const ADDR_SPACE = 16 + 8 + 3 * 8 + 20

/** inet_fill_ifaddr - @returns false: there is no room */
function inet_fill_ifaddr(
  skb: sk_buff,
  ifa: in_ifaddr,
  type: number,
  pid: number,
  seq: number,
  flags: number,
): boolean {
  if (!nlmsg_room(skb, ADDR_SPACE)) return false
  const nlh = nlmsg_put(skb, pid, seq, type, 8, flags)
  const ifm = nlmsg_data(nlh)
  u8[ifm] = AF_INET
  u8[ifm + 1] = ifa.ifa_prefixlen
  u8[ifm + 2] = ifa.ifa_flags | IFA_F_PERMANENT
  u8[ifm + 3] = ifa.ifa_scope
  dv.setInt32(ifm + 4, ifa.ifa_dev!.dev!.ifindex, true)
  rta_put_addr(skb, IFA_ADDRESS, ifa.ifa_address)
  rta_put_addr(skb, IFA_LOCAL, ifa.ifa_local)
  if (ifa.ifa_broadcast !== 0) rta_put_addr(skb, IFA_BROADCAST, ifa.ifa_broadcast)
  if (u8[ifa.ifa_label] !== 0) rta_put_string(skb, IFA_LABEL, ifa_label(ifa))
  nlmsg_end(skb, nlh)
  return true
}

/** rtmsg_ifa - tell RTMGRP_IPV4_IFADDR of an address that comes or goes. @context process @locks rtnl is held */
export function rtmsg_ifa(type: number, ifa: in_ifaddr): void {
  rtnl_notify(RTMGRP_IPV4_IFADDR, skb => inet_fill_ifaddr(skb, ifa, type, 0, 0, 0))
}

/** inet_dump_ifaddr - @locks dev_base_lock */
function inet_dump_ifaddr(skb: sk_buff, cb: netlink_callback): number {
  const at = cb.args >> 2 // devices that were shown, and addresses of the next one
  const { pid } = netlink_cb(cb.skb!)
  const seq = nlmsg_seq(cb.nlh)
  let first = i32[at + 1]!
  let k = 0
  let full = false
  dev_base_read_lock()
  for (let dev = first_netdev(); dev !== null && !full; dev = dev.next) {
    if (k++ < i32[at]!) continue
    let n = 0
    for (let ifa = in_dev_get(dev)?.ifa_list ?? null; ifa !== null && !full; ifa = ifa.ifa_next, n++) {
      if (n < first) continue
      full = !inet_fill_ifaddr(skb, ifa, RTM_NEWADDR, pid, seq, NLM_F_MULTI)
      if (full) break
    }
    first = full ? n : 0
  }
  dev_base_read_unlock()
  i32[at] = full ? k - 1 : k
  i32[at + 1] = first
  return skb.len
}
const inet_dump_ifaddr_sym = symbol('inet_dump_ifaddr', inet_dump_ifaddr)

function with_device(ifindex: number, missing: number, f: (dev: net_device) => number): number {
  const dev = dev_get_by_index(ifindex)
  if (dev === null) return missing
  const err = f(dev)
  dev_put(dev)
  return err
}

/** inet_check_attr - an attribute that is there is not shorter than an address, its label fits. */
function bad_attributes(rta: number[]): boolean {
  return [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST].some(type => rta[type - 1]! !== 0 && rta_payload(rta[type - 1]!) < 4)
}

/** inet_rtm_newaddr - @locks rtnl is held @returns 0, -EINVAL, -ENODEV, -ENOBUFS, -EEXIST */
function inet_rtm_newaddr(_skb: sk_buff, nlh: number, rta: number[]): number {
  const ifm = nlmsg_data(nlh)
  const local = rta[IFA_LOCAL - 1]!
  if (u8[ifm + 1]! > 32 || local === 0 || bad_attributes(rta)) return -EINVAL
  return with_device(dv.getInt32(ifm + 4, true), -ENODEV, dev => {
    if (in_dev_get(dev) === null && inetdev_init(dev) === null) return -ENOBUFS
    const more: IfaSpec = { broadcast: 0, scope: u8[ifm + 3]! }
    if (rta[IFA_ADDRESS - 1]! !== 0) more.peer = rta_addr(rta[IFA_ADDRESS - 1]!)
    if (rta[IFA_BROADCAST - 1]! !== 0) more.broadcast = rta_addr(rta[IFA_BROADCAST - 1]!)
    const label = rta[IFA_LABEL - 1]! === 0 ? null : rta_string(rta[IFA_LABEL - 1]!, 256)
    if (label !== null) more.label = label.slice(0, IFNAMSIZ - 1)
    if (rta_addr(local) === 0) return 0 // as 2.6.11: no address, nothing to do
    const err = inet_insert_ifa(dev, rta_addr(local), u8[ifm + 1]!, more)
    return err === -ENOMEM ? -ENOBUFS : err
  })
}
const inet_rtm_newaddr_sym = symbol('inet_rtm_newaddr', inet_rtm_newaddr)

/** Is this the address that is to go? */
function is_meant(ifa: in_ifaddr, prefixlen: number, rta: number[]): boolean {
  const [address, local, label] = [rta[IFA_ADDRESS - 1]!, rta[IFA_LOCAL - 1]!, rta[IFA_LABEL - 1]!]
  if (local !== 0 && rta_addr(local) !== ifa.ifa_local) return false
  if (label !== 0 && rta_string(label, 256) !== ifa_label(ifa)) return false
  return address === 0 || (prefixlen === ifa.ifa_prefixlen && inet_ifa_match(rta_addr(address), ifa))
}

/** inet_rtm_deladdr - the first address that fits. @locks rtnl is held @returns 0, -EADDRNOTAVAIL, -EINVAL */
function inet_rtm_deladdr(_skb: sk_buff, nlh: number, rta: number[]): number {
  const ifm = nlmsg_data(nlh)
  if (bad_attributes(rta)) return -EINVAL
  return with_device(dv.getInt32(ifm + 4, true), -EADDRNOTAVAIL, dev => {
    const in_dev = in_dev_get(dev)
    let ifa = in_dev === null ? null : in_dev.ifa_list
    while (ifa !== null && !is_meant(ifa, u8[ifm + 1]!, rta)) ifa = ifa.ifa_next
    return ifa === null ? -EADDRNOTAVAIL : inet_del_ifa(in_dev!, ifa)
  })
}
const inet_rtm_deladdr_sym = symbol('inet_rtm_deladdr', inet_rtm_deladdr)

/** rtnl_addr_init - @context boot, CPU 0 */
export function rtnl_addr_init(): void {
  rtnl_register(AF_INET, RTM_NEWADDR, inet_rtm_newaddr_sym, 0)
  rtnl_register(AF_INET, RTM_DELADDR, inet_rtm_deladdr_sym, 0)
  rtnl_register(AF_INET, RTM_GETADDR, 0, inet_dump_ifaddr_sym)
}
