/** devinet_ioctl.ts - the addresses of devices as `ifconfig` knows them: one for each label (devinet_ioctl of 2.6.11). */
import { symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { EACCES, EADDRNOTAVAIL, EFAULT, EINVAL, ENODEV } from '../../lib/errno.js'
import { copy_from_user, copy_to_user } from '../../sched/mm.js'
import { dev_change_flags } from '../core/dev_change.js'
import {
  IFR_DATA,
  IFREQ_SIZE,
  ifreq_name,
  ifreq_scratch,
  register_gifconf,
  SIOCSIFFLAGS,
  set_ifreq_name,
} from '../core/dev_ioctl.js'
import { dev_get_by_name, dev_put, rtnl_lock, rtnl_unlock } from '../core/netdevice.js'
import { capable } from '../core/sock_opt.js'
import { AF_INET } from '../core/sock_types.js'
import type { Call } from '../core/socket.js'
import { IFF_BROADCAST, IFF_POINTOPOINT, IFF_UP, type net_device } from '../core/types.js'
import { inet_make_mask } from '../wire/ipv4.js'
import {
  type IfaSpec,
  ifa_label,
  in_dev_get,
  type in_device,
  type in_ifaddr,
  inet_del_ifa,
  inet_insert_ifa,
} from './devinet.js'

const dv = RAM.dv
const u8 = RAM.u8

export const SIOCGIFADDR = 0x8915
export const SIOCSIFADDR = 0x8916
export const SIOCGIFDSTADDR = 0x8917
export const SIOCSIFDSTADDR = 0x8918
export const SIOCGIFBRDADDR = 0x8919
export const SIOCSIFBRDADDR = 0x891a
export const SIOCGIFNETMASK = 0x891b
export const SIOCSIFNETMASK = 0x891c

const GETS = [SIOCGIFADDR, SIOCGIFDSTADDR, SIOCGIFBRDADDR, SIOCGIFNETMASK]
const SETS = [SIOCSIFADDR, SIOCSIFDSTADDR, SIOCSIFBRDADDR, SIOCSIFNETMASK]
const SIN = IFR_DATA

// the sockaddr_in of an ifreq
function family(r: number): number {
  return dv.getUint16(r + SIN, true)
}
function address(r: number): number {
  return dv.getInt32(r + SIN + 4)
}
function set_address(r: number, addr: number): void {
  u8.fill(0, r + SIN, r + SIN + 16)
  dv.setUint16(r + SIN, AF_INET, true)
  dv.setInt32(r + SIN + 4, addr)
}

/** inet_abc_len - bits that an address's class had before there were prefixes. @returns -1: it is no host's */
function inet_abc_len(addr: number): number {
  if (addr === 0) return 0
  const top = addr >>> 24
  if (top < 128) return 8
  if (top < 192) return 16
  return top < 224 ? 24 : -1
}

/** An address's label, and for those who ask as 4.4BSD did the address as well. @locks rtnl is held */
function find_ifa(in_dev: in_device | null, label: string, addr: number | null): in_ifaddr | null {
  for (let a = in_dev?.ifa_list ?? null; a !== null && addr !== null; a = a.ifa_next)
    if (a.ifa_address === addr && ifa_label(a) === label) return a
  for (let a = in_dev?.ifa_list ?? null; a !== null; a = a.ifa_next) if (ifa_label(a) === label) return a
  return null
}

/** What an address is, to be entered anew with one thing changed: entries do not change while readers follow them. */
function spec_of(a: in_ifaddr): Required<IfaSpec> {
  return { peer: a.ifa_address, broadcast: a.ifa_broadcast, scope: a.ifa_scope, label: ifa_label(a) }
}
function replace(dev: net_device, a: in_ifaddr, prefixlen: number, change: Partial<IfaSpec>): number {
  const { ifa_local } = a
  const spec = { ...spec_of(a), ...change }
  inet_del_ifa(in_dev_get(dev)!, a)
  return inet_insert_ifa(dev, ifa_local, prefixlen, spec)
}

/** SIOCSIFADDR: the address of a label, with the mask of its class. */
function set_ifaddr(
  dev: net_device,
  in_dev: in_device | null,
  a: in_ifaddr | null,
  label: string,
  addr: number,
): number {
  const classful = inet_abc_len(addr)
  if (classful < 0 || in_dev === null) return -EINVAL
  if (a !== null) {
    if (a.ifa_local === addr) return 0
    inet_del_ifa(in_dev, a)
  }
  const prefixlen = (dev.flags & IFF_POINTOPOINT) === 0 ? classful : 32
  const has_broadcast = (dev.flags & IFF_BROADCAST) !== 0 && prefixlen < 31
  const broadcast = has_broadcast ? addr | ~inet_make_mask(prefixlen) : 0
  return inet_insert_ifa(dev, addr, prefixlen, { broadcast, label })
}

function set_netmask(dev: net_device, a: in_ifaddr, mask: number): number {
  const host = ~mask
  if ((host & (host + 1)) !== 0) return -EINVAL
  if (a.ifa_mask === mask) return 0
  const prefixlen = Math.clz32(host)
  const follows = (dev.flags & IFF_BROADCAST) !== 0 && prefixlen < 31 && a.ifa_broadcast === (a.ifa_local | ~a.ifa_mask)
  return replace(dev, a, prefixlen, follows ? { broadcast: a.ifa_local | host } : {})
}

/** The changes of an address that is there. */
function change(dev: net_device, cmd: number, a: in_ifaddr, addr: number): number {
  if (cmd === SIOCSIFNETMASK) return set_netmask(dev, a, addr)
  if (cmd === SIOCSIFBRDADDR)
    return a.ifa_broadcast === addr ? 0 : replace(dev, a, a.ifa_prefixlen, { broadcast: addr })
  if (a.ifa_address === addr) return 0
  return inet_abc_len(addr) < 0 ? -EINVAL : replace(dev, a, a.ifa_prefixlen, { peer: addr })
}

function value(cmd: number, a: in_ifaddr): number {
  if (cmd === SIOCGIFADDR) return a.ifa_local
  if (cmd === SIOCGIFDSTADDR) return a.ifa_address
  return cmd === SIOCGIFBRDADDR ? a.ifa_broadcast : a.ifa_mask
}

/** SIOCSIFFLAGS: an alias that is taken down is gone; else the device. */
function* set_flags(dev: net_device, alias: boolean, a: in_ifaddr | null, flags: number): Call {
  if (!alias) return yield* dev_change_flags(dev, flags)
  if (a === null) return -EADDRNOTAVAIL
  if ((flags & IFF_UP) === 0) inet_del_ifa(in_dev_get(dev)!, a)
  return 0
}

/** @locks rtnl is held */
function* do_ioctl(cmd: number, r: number): Call {
  const label = ifreq_name(r)
  const dev = dev_get_by_name(label.split(':')[0]!)
  if (dev === null) return -ENODEV
  const in_dev = in_dev_get(dev)
  const a = find_ifa(in_dev, label, GETS.includes(cmd) && family(r) === AF_INET ? address(r) : null)
  let ret = -EADDRNOTAVAIL
  if (cmd === SIOCSIFFLAGS) ret = yield* set_flags(dev, label.includes(':'), a, dv.getInt16(r + IFR_DATA, true))
  else if (cmd === SIOCSIFADDR) ret = set_ifaddr(dev, in_dev, a, label, address(r))
  else if (a !== null && SETS.includes(cmd)) ret = change(dev, cmd, a, address(r))
  else if (a !== null) {
    set_address(r, value(cmd, a))
    ret = 0
  }
  dev_put(dev)
  return ret
}

/** devinet_ioctl - @context process @locks takes rtnl @returns 0, -EFAULT, -EACCES, -EINVAL, -ENODEV, -EADDRNOTAVAIL, ... */
export function* devinet_ioctl(cmd: number, arg: number): Call {
  const r = ifreq_scratch()
  if (copy_from_user(r, arg, IFREQ_SIZE) !== 0) return -EFAULT
  const gets = GETS.includes(cmd)
  if (!gets) {
    if (!capable()) return -EACCES
    if (SETS.includes(cmd) && family(r) !== AF_INET) return -EINVAL
  }
  yield* rtnl_lock()
  const ret = yield* do_ioctl(cmd, r)
  rtnl_unlock()
  if (ret !== 0 || !gets) return ret
  return copy_to_user(arg, r, IFREQ_SIZE) === 0 ? 0 : -EFAULT
}
/** devinet_ioctl_knows - is the command one of these? */
export function devinet_ioctl_knows(cmd: number): boolean {
  return cmd === SIOCSIFFLAGS || GETS.includes(cmd) || SETS.includes(cmd)
}

/** inet_gifconf - the addresses of a device, for SIOCGIFCONF. @locks rtnl is held @returns bytes, -EFAULT */
function inet_gifconf(dev: net_device, buf: number, len: number): number {
  let done = 0
  const r = ifreq_scratch()
  for (let a = in_dev_get(dev)?.ifa_list ?? null; a !== null; a = a.ifa_next) {
    if (buf !== 0) {
      if (len - done < IFREQ_SIZE) break
      u8.fill(0, r, r + IFREQ_SIZE)
      set_ifreq_name(r, ifa_label(a))
      set_address(r, a.ifa_local)
      if (copy_to_user(buf + done, r, IFREQ_SIZE) !== 0) return -EFAULT
    }
    done += IFREQ_SIZE
  }
  return done
}
const inet_gifconf_sym = symbol('inet_gifconf', inet_gifconf)

/** devinet_ioctl_init - @context boot, CPU 0 */
export function devinet_ioctl_init(): void {
  register_gifconf(inet_gifconf_sym)
}
