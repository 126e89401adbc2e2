/** fib_ioctl.ts - SIOCADDRT and SIOCDELRT: routes as `route` asks for them, a struct rtentry of i386 (ip_rt_ioctl of 2.6.11). */
import { RAM } from '../../arch/ram.js'
import { EAFNOSUPPORT, EFAULT, EINVAL, ENODEV, EPERM } from '../../lib/errno.js'
import { copy_from_user, KSTACK_WORDS, task_kstack } from '../../sched/mm.js'
import { current } from '../../sched/sched.js'
import { local_bh_disable, local_bh_enable } from '../../sync/bh.js'
import { dev_get_by_name, dev_put, rtnl_lock, rtnl_unlock } from '../core/netdevice.js'
import { capable } from '../core/sock_opt.js'
import { AF_INET } from '../core/sock_types.js'
import type { Call } from '../core/socket.js'
import { NLM_F_CREATE } from '../netlink/types.js'
import { ifa_label, in_dev_get } from './devinet.js'
import { inet_addr_type } from './fib_frontend.js'
import { RT_TABLE_MAIN } from './fib_hash.js'
import {
  type RouteSpec,
  RT_SCOPE_HOST,
  RT_SCOPE_LINK,
  RT_SCOPE_NOWHERE,
  RT_SCOPE_UNIVERSE,
  RTAX_ADVMSS,
  RTN_UNICAST,
  RTN_UNREACHABLE,
  RTPROT_BOOT,
} from './fib_types.js'
import { fib_route_del, fib_route_new } from './rtnl_route.js'

const dv = RAM.dv
const u8 = RAM.u8

export const SIOCADDRT = 0x890b
export const SIOCDELRT = 0x890c

// rt_flags
export const RTF_UP = 0x0001
export const RTF_GATEWAY = 0x0002
export const RTF_HOST = 0x0004
export const RTF_MTU = 0x0040
export const RTF_WINDOW = 0x0080
export const RTF_IRTT = 0x0100
export const RTF_REJECT = 0x0200
const RTAX_WINDOW = 3
const RTAX_RTT = 4

// struct rtentry, by offset
const RT_DST = 4
const RT_GATEWAY = 20
const RT_GENMASK = 36
const RT_FLAGS = 52
const RT_METRIC = 64
const RT_DEV = 68
const RT_MTU = 72
const RT_WINDOW = 76
const RT_IRTT = 80
const RTENTRY_SIZE = 84
const IFNAMSIZ = 16

/** What a call has of the program's: the entry, and the name of a device behind it. It lies below the options' scratch place. */
function scratch(): number {
  return task_kstack(current()).words + KSTACK_WORDS - 64 - 128
}

// a struct sockaddr_in of the entry
function family(at: number): number {
  return dv.getUint16(at, true)
}
function address(at: number): number {
  return dv.getInt32(at + 4)
}

/** A mask must be in one piece, with no bit of the address behind it. @returns bits, or -EINVAL */
function mask_len(mask: number, addr: number): number {
  const host = ~mask
  if ((addr & host) !== 0 || (host & (host + 1)) !== 0) return -EINVAL
  return Math.clz32(host)
}

function is_unicast(addr: number): boolean {
  local_bh_disable()
  const type = inet_addr_type(addr)
  local_bh_enable()
  return type === RTN_UNICAST
}

interface Converted {
  spec: Omit<RouteSpec, 'nexthops'>
  hops: { gw: number; oif: number; flags: number; weight: number }[]
}

/** The device of an entry, `eth0` or `eth0:1`. @returns its number and the source that an alias means, or an errno */
function device_of(name: string): { oif: number; prefsrc: number } | number {
  const [plain, ...alias] = name.split(':')
  const dev = dev_get_by_name(plain!)
  if (dev === null) return -ENODEV
  let prefsrc = 0
  if (alias.length > 0) {
    let ifa = in_dev_get(dev)?.ifa_list ?? null
    while (ifa !== null && ifa_label(ifa) !== name) ifa = ifa.ifa_next
    prefsrc = ifa === null ? -ENODEV : ifa.ifa_local
    if (ifa === null) {
      dev_put(dev)
      return -ENODEV
    }
  }
  const oif = dev.ifindex
  dev_put(dev)
  return { oif, prefsrc }
}

function read_name(at: number): string | null {
  if (copy_from_user(at, dv.getInt32(at - RTENTRY_SIZE + RT_DEV, true), IFNAMSIZ - 1) !== 0) return null
  let name = ''
  for (let k = 0; k < IFNAMSIZ - 1 && u8[at + k] !== 0; k++) name += String.fromCharCode(u8[at + k]!)
  return name
}

function metrics_of(r: number, flags: number): Record<number, number> {
  const metrics: Record<number, number> = {}
  if ((flags & RTF_MTU) !== 0) metrics[RTAX_ADVMSS] = dv.getInt32(r + RT_MTU, true) - 40
  if ((flags & RTF_WINDOW) !== 0) metrics[RTAX_WINDOW] = dv.getInt32(r + RT_WINDOW, true)
  if ((flags & RTF_IRTT) !== 0) metrics[RTAX_RTT] = dv.getUint16(r + RT_IRTT, true) << 3
  return metrics
}

/** fib_convert_rtentry - @returns the route that is meant, or an errno */
function fib_convert_rtentry(r: number, adds: boolean): Converted | number {
  const dst = r + RT_DST
  const mask = r + RT_GENMASK
  const flags = dv.getUint16(r + RT_FLAGS, true)
  if (family(dst) !== AF_INET) return -EAFNOSUPPORT
  let prefixlen = 32
  if ((flags & RTF_HOST) === 0) {
    if (family(mask) !== AF_INET && (address(mask) !== 0 || family(mask) !== 0)) return -EAFNOSUPPORT
    prefixlen = mask_len(address(mask), address(dst))
    if (prefixlen < 0) return prefixlen
  }
  const metric = dv.getInt16(r + RT_METRIC, true)
  const spec: Omit<RouteSpec, 'nexthops'> = {
    ...{
      dst: address(dst),
      prefixlen,
      tos: 0,
      protocol: adds ? RTPROT_BOOT : 0,
      priority: metric === 0 ? 0 : metric - 1,
    },
    ...{ type: RTN_UNREACHABLE, scope: RT_SCOPE_HOST, nlflags: NLM_F_CREATE },
    request: { pid: current().pid, seq: 0, echo: false },
  }
  if ((flags & RTF_REJECT) !== 0) return { spec, hops: [] }
  spec.type = RTN_UNICAST
  spec.scope = RT_SCOPE_NOWHERE
  let oif = 0
  if (dv.getInt32(r + RT_DEV, true) !== 0) {
    const name = read_name(r + RTENTRY_SIZE)
    if (name === null) return -EFAULT
    const found = device_of(name)
    if (typeof found === 'number') return found
    oif = found.oif
    if (found.prefsrc !== 0) spec.prefsrc = found.prefsrc
  }
  const gw = family(r + RT_GATEWAY) === AF_INET ? address(r + RT_GATEWAY) : 0
  if (gw !== 0 && (flags & RTF_GATEWAY) !== 0 && is_unicast(gw)) spec.scope = RT_SCOPE_UNIVERSE
  if (adds) {
    if ((flags & RTF_GATEWAY) !== 0 && gw === 0) return -EINVAL
    if (spec.scope === RT_SCOPE_NOWHERE) spec.scope = RT_SCOPE_LINK
    spec.metrics = metrics_of(r, flags)
  }
  return { spec, hops: oif === 0 && gw === 0 ? [] : [{ gw, oif, flags: 0, weight: 1 }] }
}

/** ip_rt_ioctl - @context process @locks takes rtnl @returns 0, -EPERM, -EFAULT, -EAFNOSUPPORT, -EINVAL, -ENODEV, -ESRCH, ... */
export function* ip_rt_ioctl(cmd: number, arg: number): Call {
  if (cmd !== SIOCADDRT && cmd !== SIOCDELRT) return -EINVAL
  if (!capable()) return -EPERM
  const r = scratch()
  if (copy_from_user(r, arg, RTENTRY_SIZE) !== 0) return -EFAULT
  yield* rtnl_lock()
  const route = fib_convert_rtentry(r, cmd === SIOCADDRT)
  let err = 0
  if (typeof route === 'number') err = route
  else if (cmd === SIOCADDRT) err = fib_route_new(RT_TABLE_MAIN, route.spec, route.hops)
  else err = fib_route_del(RT_TABLE_MAIN, route.spec, route.hops)
  rtnl_unlock()
  return err
}
