/** arp_ioctl.ts - SIOCSARP, SIOCGARP and SIOCDARP: neighbours as `arp` asks for them, by a struct arpreq (arp_ioctl of 2.6.11). */
import { symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { EFAULT, EINVAL, ENETUNREACH, ENOBUFS, ENODEV, ENXIO, EPERM, EPFNOSUPPORT } from '../../lib/errno.js'
import { copy_from_user, copy_to_user, KSTACK_WORDS, task_kstack } from '../../sched/mm.js'
import { current } from '../../sched/sched.js'
import { read_lock_bh, read_unlock_bh } from '../../sync/rwlock.js'
import { __neigh_lookup, NUD_VALID, neigh_lookup, neigh_release } from '../core/neighbour.js'
import {
  dev_get_by_index,
  dev_get_by_name,
  dev_name,
  dev_put,
  first_netdev,
  rtnl_lock,
  rtnl_unlock,
} from '../core/netdevice.js'
import { NEIGH_UPDATE_F_ADMIN, NEIGH_UPDATE_F_OVERRIDE, neigh_update } from '../core/nud.js'
import { pneigh_add, pneigh_delete } from '../core/pneigh.js'
import { capable } from '../core/sock_opt.js'
import { AF_INET } from '../core/sock_types.js'
import type { Call } from '../core/socket.js'
import { NUD_FAILED, NUD_NOARP, NUD_PERMANENT, NUD_STALE, type net_device } from '../core/types.js'
import { ipv4_devconf_all } from './devconf.js'
import { in_dev_get } from './devinet.js'
import { register_arp_ioctl, SIOCDARP, SIOCGARP, SIOCSARP } from './inet_ioctl.js'
import { ip_rt_put } from './route.js'
import { ip_route_output, RTO_ONLINK } from './route_output.js'
import type { rtable } from './types.js'

const dv = RAM.dv
const i32 = RAM.i32
const u8 = RAM.u8

// arp_flags
export const ATF_COM = 0x02
export const ATF_PERM = 0x04
export const ATF_PUBL = 0x08
export const ATF_NETMASK = 0x20
export const ATF_DONTPUB = 0x40

// struct arpreq, by offset
const ARP_PA = 0
const ARP_HA = 16
const ARP_FLAGS = 32
const ARP_NETMASK = 36
const ARP_DEV = 52
const ARPREQ_SIZE = 68
const IFNAMSIZ = 16
const ALL_ONES = -1

/** A program's request, on the stack of its call. */
interface arpreq {
  at: number
  ip: number
  flags: number
  mask: number
}

/** dev_getbyhwaddr - @locks rtnl is held */
function dev_getbyhwaddr(type: number, at: number): net_device | null {
  const [hi, lo] = [dv.getInt32(at), dv.getUint16(at + 4)]
  const is = (dev: net_device): boolean =>
    dev.type === type && dev.dev_addr_hi === hi && (dev.dev_addr_lo & 0xffff) === lo
  let dev = first_netdev()
  while (dev !== null && !is(dev)) dev = dev.next
  return dev
}

/** The device that leads to a neighbour, referenced; or an errno. */
function device_towards(ip: number): net_device | number {
  const rt: rtable | null = ip_route_output(ip, 0, RTO_ONLINK, 0)
  if (rt === null) return -ENETUNREACH
  const ifindex = rt.dst.dev?.ifindex ?? 0
  ip_rt_put(rt)
  return dev_get_by_index(ifindex) ?? -EINVAL
}

/** Runs `f` with the device that was named, or else the one that leads there. */
function with_device(r: arpreq, dev: net_device | null, f: (dev: net_device) => number): number {
  if (dev !== null) return f(dev)
  const found = device_towards(r.ip)
  if (typeof found === 'number') return found
  const err = f(found)
  dev_put(found)
  return err
}

/** Proxy ARP as a whole, for one device or for all. */
function proxy_arp(dev: net_device | null, on: number): number {
  const cnf = dev === null ? ipv4_devconf_all : (in_dev_get(dev)?.cnf ?? null)
  if (cnf === null) return -ENXIO
  cnf.proxy_arp = on
  return 0
}

function arp_req_set(r: arpreq, named: net_device | null): number {
  if ((r.flags & ATF_PUBL) !== 0) {
    let dev = named
    if (r.mask !== 0 && r.mask !== ALL_ONES) return -EINVAL
    if (dev === null && (r.flags & ATF_COM) !== 0) {
      dev = dev_getbyhwaddr(dv.getUint16(r.at + ARP_HA, true), r.at + ARP_HA + 2)
      if (dev === null) return -ENODEV
    }
    if (r.mask === 0) return proxy_arp(dev, 1)
    return pneigh_add(r.ip, dev) === -ENOBUFS ? -ENOBUFS : 0 // that it is there already is as good
  }
  const permanent = (r.flags & ATF_PERM) !== 0
  const known = permanent || (r.flags & ATF_COM) !== 0
  return with_device(r, named, dev => {
    const n = __neigh_lookup(r.ip, dev)
    if (n === null) return -ENOBUFS
    const ha = r.at + ARP_HA + 2
    const hi = known ? dv.getInt32(ha) : null
    const flags = NEIGH_UPDATE_F_OVERRIDE | NEIGH_UPDATE_F_ADMIN
    const err = neigh_update(n, hi, dv.getUint16(ha + 4), permanent ? NUD_PERMANENT : NUD_STALE, flags)
    neigh_release(n)
    return err
  })
}

function arp_req_delete(r: arpreq, named: net_device | null): number {
  if ((r.flags & ATF_PUBL) !== 0) {
    if (r.mask === ALL_ONES) return pneigh_delete(r.ip, named)
    return r.mask === 0 ? proxy_arp(named, 0) : -EINVAL
  }
  return with_device(r, named, dev => {
    const n = neigh_lookup(r.ip, dev)
    if (n === null) return -ENXIO
    let err = -ENXIO
    if ((n.nud_state & ~NUD_NOARP) !== 0)
      err = neigh_update(n, null, 0, NUD_FAILED, NEIGH_UPDATE_F_OVERRIDE | NEIGH_UPDATE_F_ADMIN)
    neigh_release(n)
    return err
  })
}

function arp_state_to_flags(state: number): number {
  if ((state & NUD_PERMANENT) !== 0) return ATF_PERM | ATF_COM
  return (state & NUD_VALID) !== 0 ? ATF_COM : 0
}

function arp_req_get(r: arpreq, dev: net_device): number {
  const n = neigh_lookup(r.ip, dev)
  if (n === null) return -ENXIO
  read_lock_bh(n.lock)
  dv.setInt32(r.at + ARP_HA + 2, n.ha === 0 ? 0 : i32[n.ha >> 2]!)
  dv.setInt16(r.at + ARP_HA + 6, n.ha === 0 ? 0 : i32[(n.ha >> 2) + 1]!)
  dv.setInt32(r.at + ARP_FLAGS, arp_state_to_flags(n.nud_state), true)
  read_unlock_bh(n.lock)
  dv.setUint16(r.at + ARP_HA, dev.type, true)
  u8.fill(0, r.at + ARP_DEV, r.at + ARP_DEV + IFNAMSIZ)
  for (const [k, c] of [...dev_name(dev)].entries()) u8[r.at + ARP_DEV + k] = c.charCodeAt(0)
  neigh_release(n)
  return 0
}

function device_name(at: number): string {
  let name = ''
  for (let k = 0; k < IFNAMSIZ - 1 && u8[at + k] !== 0; k++) name += String.fromCharCode(u8[at + k]!)
  return name
}

/** With rtnl held. */
function request(cmd: number, r: arpreq): number {
  const name = device_name(r.at + ARP_DEV)
  const dev = name === '' ? null : dev_get_by_name(name)
  if (dev === null) {
    if (name !== '' || cmd === SIOCGARP) return -ENODEV
    return cmd === SIOCSARP ? arp_req_set(r, null) : arp_req_delete(r, null)
  }
  if (dv.getUint16(r.at + ARP_HA, true) === 0) dv.setUint16(r.at + ARP_HA, dev.type, true)
  let err = -EINVAL
  if ((r.flags & ATF_COM) === 0 || dv.getUint16(r.at + ARP_HA, true) === dev.type) {
    if (cmd === SIOCSARP) err = arp_req_set(r, dev)
    else err = cmd === SIOCDARP ? arp_req_delete(r, dev) : arp_req_get(r, dev)
  }
  dev_put(dev)
  return err
}

/**
 * arp_ioctl - @context process @returns 0; -EPERM, -EFAULT, -EPFNOSUPPORT: no address of IPv4, -EINVAL, -ENODEV,
 * -ENXIO: there is no such neighbour, -ENETUNREACH: no way leads there, -ENOBUFS
 */
function* arp_ioctl(cmd: number, arg: number): Call {
  if (cmd !== SIOCGARP && !capable()) return -EPERM
  const at = task_kstack(current()).words + KSTACK_WORDS - 64 - 128
  if (copy_from_user(at, arg, ARPREQ_SIZE) !== 0) return -EFAULT
  if (dv.getUint16(at + ARP_PA, true) !== AF_INET) return -EPFNOSUPPORT
  const flags = dv.getInt32(at + ARP_FLAGS, true)
  if ((flags & ATF_PUBL) === 0 && (flags & (ATF_NETMASK | ATF_DONTPUB)) !== 0) return -EINVAL
  const mask = (flags & ATF_NETMASK) === 0 ? ALL_ONES : dv.getInt32(at + ARP_NETMASK + 4)
  yield* rtnl_lock()
  const err = request(cmd, { at, ip: dv.getInt32(at + ARP_PA + 4), flags, mask })
  rtnl_unlock()
  return err === 0 && cmd === SIOCGARP && copy_to_user(arg, at, ARPREQ_SIZE) !== 0 ? -EFAULT : err
}
const arp_ioctl_sym = symbol('arp_ioctl', arp_ioctl)

/** arp_ioctl_init - @context boot, CPU 0 */
export function arp_ioctl_init(): void {
  register_arp_ioctl(arp_ioctl_sym)
}
