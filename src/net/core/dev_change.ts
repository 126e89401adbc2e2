/**
 * dev_change.ts - what can be changed of a device while it is there: flags, name, station address, length of its queue
 * (net/core/dev.c of 2.6.11). All under rtnl; devices are told by the netdevice chain.
 */
import { call } from '../../abi/symbol.js'
import { EBUSY, EEXIST, EINVAL, ENODEV, EOPNOTSUPP } from '../../lib/errno.js'
import {
  dev_close,
  dev_get_by_name,
  dev_name,
  dev_open,
  dev_put,
  dev_rehash_name,
  NETDEV_CHANGE,
  NETDEV_CHANGEADDR,
  NETDEV_CHANGENAME,
  netdev_notify,
  netif_carrier_ok,
  netif_running,
} from './netdevice.js'
import {
  IFF_ALLMULTI,
  IFF_AUTOMEDIA,
  IFF_DEBUG,
  IFF_DYNAMIC,
  IFF_MULTICAST,
  IFF_NOARP,
  IFF_NOTRAILERS,
  IFF_PORTSEL,
  IFF_PROMISC,
  IFF_RUNNING,
  IFF_UP,
  LINK_STATE_PRESENT,
  type net_device,
} from './types.js'

export const IFNAMSIZ = 16

/** What a program may change itself; the other bits are the device's. */
const CHANGEABLE = IFF_DEBUG | IFF_NOTRAILERS | IFF_NOARP | IFF_DYNAMIC | IFF_MULTICAST | IFF_PORTSEL | IFF_AUTOMEDIA

const MODES = IFF_PROMISC | IFF_ALLMULTI

/** dev_get_flags - as programs see them: running is who is up and has a carrier; of the modes, what programs have set. */
export function dev_get_flags(dev: net_device): number {
  const running = netif_running(dev) && netif_carrier_ok(dev)
  return (dev.flags & ~(MODES | IFF_RUNNING)) | (dev.gflags & MODES) | (running ? IFF_RUNNING : 0)
}

/** dev_mc_upload - the hardware shall receive what the device's flags say. @locks rtnl is held */
export function dev_mc_upload(dev: net_device): void {
  if ((dev.flags & IFF_UP) !== 0 && dev.set_multicast_list !== 0) call(dev.set_multicast_list)(dev)
}

/** dev_set_promiscuity - one more, or one less, who wants to see all frames. @context process @locks rtnl is held */
export function dev_set_promiscuity(dev: net_device, inc: number): void {
  const old = dev.flags
  dev.promiscuity += inc
  dev.flags = dev.promiscuity === 0 ? old & ~IFF_PROMISC : old | IFF_PROMISC
  if (dev.flags !== old) dev_mc_upload(dev)
}

/** dev_set_allmulti - the same for the frames of all groups. @context process @locks rtnl is held */
export function dev_set_allmulti(dev: net_device, inc: number): void {
  const old = dev.flags
  dev.allmulti += inc
  dev.flags = dev.allmulti === 0 ? old & ~IFF_ALLMULTI : old | IFF_ALLMULTI
  if (dev.flags !== old) dev_mc_upload(dev)
}

/** dev_change_flags - also brings it up or down. @context process @locks rtnl is held @returns 0, or what open says */
export function* dev_change_flags(dev: net_device, flags: number): Generator<void, number, void> {
  const old = dev.flags
  dev.flags = (flags & CHANGEABLE) | (old & ~CHANGEABLE)
  let ret = 0
  if (((old ^ flags) & IFF_UP) !== 0) ret = (old & IFF_UP) !== 0 ? yield* dev_close(dev) : dev_open(dev)
  if (((flags ^ dev.gflags) & IFF_PROMISC) !== 0) {
    dev.gflags ^= IFF_PROMISC
    dev_set_promiscuity(dev, (flags & IFF_PROMISC) !== 0 ? 1 : -1)
  }
  if (((flags ^ dev.gflags) & IFF_ALLMULTI) !== 0) {
    dev.gflags ^= IFF_ALLMULTI
    dev_set_allmulti(dev, (flags & IFF_ALLMULTI) !== 0 ? 1 : -1)
  }
  const quiet = IFF_UP | IFF_RUNNING | IFF_PROMISC | IFF_ALLMULTI
  if ((dev.flags & IFF_UP) !== 0 && ((old ^ dev.flags) & ~quiet) !== 0) netdev_notify(dev, NETDEV_CHANGE)
  return ret
}

/** dev_valid_name - may a device be called so? */
export function dev_valid_name(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..' && name.length < IFNAMSIZ && !/[/\s]/.test(name)
}

/** dev_change_name - while it is down. @context process @locks rtnl is held @returns 0, -EBUSY, -EINVAL, -EEXIST */
export function dev_change_name(dev: net_device, name: string): number {
  if ((dev.flags & IFF_UP) !== 0) return -EBUSY
  if (!dev_valid_name(name)) return -EINVAL
  if (name === dev_name(dev)) return 0
  const other = dev_get_by_name(name)
  if (other !== null) {
    dev_put(other)
    return -EEXIST
  }
  dev_rehash_name(dev, name)
  netdev_notify(dev, NETDEV_CHANGENAME)
  return 0
}

/** dev_set_mac_address - @locks rtnl is held @returns 0, -EOPNOTSUPP, -ENODEV, or what the driver says */
export function dev_set_mac_address(dev: net_device, hi: number, lo: number): number {
  if (dev.set_mac_address === 0) return -EOPNOTSUPP
  if ((dev.state & LINK_STATE_PRESENT) === 0) return -ENODEV
  const err = call(dev.set_mac_address)(dev, hi, lo)
  if (err === 0) netdev_notify(dev, NETDEV_CHANGEADDR)
  return err
}
