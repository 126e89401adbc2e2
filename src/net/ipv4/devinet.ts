/**
 * devinet.ts - the IPv4 side of a device: its addresses and its switches.
 *
 * Lock charter
 *   rtnl guards every change. Readers in softirqs follow dev.ip_ptr and the address list without a lock: entries are
 *   published atomically, and freed after a grace period of rcu_bh.
 */
import { by, bytes, embed, konst, type Layout, layout, ptr, rcu, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call, type Sym, symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import {
  NOTIFIER,
  NOTIFIER_HEAD,
  NOTIFY_DONE,
  type notifier_block,
  notifier_call_chain,
  notifier_chain_register,
  notifier_chain_unregister,
  type notifier_head,
  notifier_head_init,
} from '../../irq/notifier.js'
import { EADDRNOTAVAIL, EEXIST, EINVAL, ENOMEM, EPERM } from '../../lib/errno.js'
import { MAX_IFADDRS, MAX_NETDEVS } from '../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import { call_rcu_bh, RCU_HEAD, rcu_assign_pointer, type rcu_head } from '../../rcu/rcupdate.js'
import { NEIGH_PARMS, type neigh_parms, neigh_parms_alloc, neigh_parms_release } from '../core/neighbour.js'
import {
  dev_hold,
  dev_name,
  dev_put,
  first_netdev,
  NETDEV_DOWN,
  NETDEV_UNREGISTER,
  NETDEV_UP,
  register_netdevice_notifier,
} from '../core/netdevice.js'
import { register_sysctl, register_sysctl_dir } from '../core/sysctl.js'
import { DST_NOPOLICY, DST_NOXFRM, IFF_LOOPBACK, NETDEV, type net_device } from '../core/types.js'
import { RTM_DELADDR, RTM_NEWADDR } from '../netlink/rtnetlink.js'
import { inet_make_mask, ipv4_is_loopback } from '../wire/ipv4.js'
import {
  DEVCONF,
  type DevconfName,
  devconf_copy,
  devconf_init,
  IPV4_DEVCONF,
  type ipv4_devconf,
  ipv4_devconf_all,
  ipv4_devconf_dflt,
} from './devconf.js'
import { fib_add_ifaddr } from './fib_frontend.js'
import { RT_SCOPE_HOST, RT_SCOPE_LINK, RT_SCOPE_UNIVERSE } from './fib_types.js'
import { ip_mc_destroy_dev } from './igmp.js'
import { rtmsg_ifa } from './rtnl_addr.js'

const i32 = RAM.i32
const u8 = RAM.u8

export class in_ifaddr extends Struct {
  declare ifa_next: in_ifaddr | null
  declare ifa_local: number
  declare ifa_address: number
  declare ifa_mask: number
  declare ifa_broadcast: number
  declare ifa_prefixlen: number
  declare ifa_flags: number
  declare ifa_scope: number
  declare ifa_label: number
  declare ifa_dev: in_device | null
  declare rcu: rcu_head
}
export const IFA: Layout<in_ifaddr> = layout('in_ifaddr', in_ifaddr, {
  ifa_next: rcu(ptr(() => IFA)),
  ifa_local: konst(word),
  ifa_address: konst(word), // the other end's on a link of two, else ifa_local
  ifa_mask: konst(word),
  ifa_broadcast: konst(word),
  ifa_prefixlen: konst(word),
  ifa_flags: by('rtnl', word), // a secondary address may become the first
  ifa_scope: konst(word), // how far the address means something: RT_SCOPE_*
  ifa_label: konst(bytes(16)), // what ifconfig calls it, zero-terminated
  ifa_dev: konst(ptr(() => IN_DEVICE)),
  rcu: embed(RCU_HEAD),
})

export class in_device extends Struct {
  declare dev: net_device | null
  declare ifa_list: in_ifaddr | null
  declare mc_list: number
  declare mr_v1_seen: number
  declare cnf: ipv4_devconf
  declare arp_parms: number
  declare rcu: rcu_head
}
export const IN_DEVICE: Layout<in_device> = layout('in_device', in_device, {
  dev: konst(ptr(() => NETDEV)),
  ifa_list: rcu(ptr(() => IFA)), // primary addresses first
  mc_list: by('igmp.lock', word), // address of the first of its multicast groups (ip_mc.ts)
  mr_v1_seen: by('igmp.lock', word), // jiffies until when a router of IGMP version 1 is about; 0: none was heard
  cnf: embed(IPV4_DEVCONF),
  arp_parms: konst(word), // address of its neigh_parms
  rcu: embed(RCU_HEAD),
})
/** Not the first of its subnet: the routes of the subnet are its primary's, and it goes when that one goes. */
export const IFA_F_SECONDARY = 0x01
const indev_cache = kmem_cache_create('in_device', IN_DEVICE, () => MAX_NETDEVS)
const ifa_cache = kmem_cache_create('in_ifaddr', IFA, () => MAX_IFADDRS)
const IP_PTR = NETDEV.offset('ip_ptr')
const IFA_LIST = IN_DEVICE.offset('ifa_list')

class inetaddr_box extends Struct {
  declare chain: notifier_head
  declare flush: Sym<() => void>
}
const CHAIN: Layout<inetaddr_box> = layout('inetaddr_chain', inetaddr_box, {
  chain: embed(NOTIFIER_HEAD),
  flush: konst(word), // forgets the cached routes
})
const box = DEFINE_STATIC('inetaddr_chain', CHAIN)
const inetaddr_chain = box.chain

/** rt_flush - cached routes know what held before. */
export function rt_flush(): void {
  call(box.flush)()
}

/** A device that is unregistered loses its IPv4 side. */
function inetdev_event(_nb: notifier_block, event: number, data: number): number {
  if (event === NETDEV_UNREGISTER) inetdev_destroy(NETDEV.ref(data))
  return NOTIFY_DONE
}
const inetdev_event_sym = symbol('inetdev_event', inetdev_event)
const ip_netdev_notifier = DEFINE_STATIC('ip_netdev_notifier', NOTIFIER)

/** devinet_init - `flush`: forgets the cached routes. @context boot, CPU 0 */
export function devinet_init(flush: Sym<() => void>): void {
  box.flush = flush
  ip_netdev_notifier.call = inetdev_event_sym
  register_netdevice_notifier(ip_netdev_notifier)
  notifier_head_init(inetaddr_chain)
  devconf_init()
}

/** register_inetaddr_notifier - hear of addresses that come (NETDEV_UP) and go (NETDEV_DOWN); data: in_ifaddr's address. */
export function register_inetaddr_notifier(nb: notifier_block): void {
  notifier_chain_register(inetaddr_chain, nb)
}
export function unregister_inetaddr_notifier(nb: notifier_block): void {
  notifier_chain_unregister(inetaddr_chain, nb)
}

/** in_dev_get - the IPv4 side of a device, or null. @context any, under rcu_bh or rtnl */
export function in_dev_get(dev: net_device): in_device | null {
  return IN_DEVICE.at(dev.ip_ptr)
}
/** in_dev_parms - how its neighbours are asked for; null: it has no IPv4 side. @context any, under rcu_bh or rtnl */
export function in_dev_parms(dev: net_device): neigh_parms | null {
  const in_dev = in_dev_get(dev)
  return in_dev === null ? null : NEIGH_PARMS.ref(in_dev.arp_parms)
}
/** in_dev_cnf - a switch of one device: off where it has no IPv4 side. @context any, under rcu_bh or rtnl */
export function in_dev_cnf(dev: net_device, name: DevconfName): number {
  return in_dev_get(dev)?.cnf[name] ?? 0
}
/** in_dev_dst_flags - of a route that comes in by `from` and goes out by `to`; null: not. @context any, under rcu_bh or rtnl */
export function in_dev_dst_flags(from: net_device, to: net_device | null): number {
  const nopolicy = in_dev_cnf(from, 'disable_policy') !== 0 ? DST_NOPOLICY : 0
  return to !== null && in_dev_cnf(to, 'disable_xfrm') !== 0 ? nopolicy | DST_NOXFRM : nopolicy
}
/** One that must be on for all devices and for this one. */
export function in_dev_andconf(dev: net_device, name: DevconfName): boolean {
  return ipv4_devconf_all[name] !== 0 && in_dev_cnf(dev, name) !== 0
}
/** One that is on for all devices, or for this one. */
export function in_dev_orconf(dev: net_device, name: DevconfName): boolean {
  return ipv4_devconf_all[name] !== 0 || in_dev_cnf(dev, name) !== 0
}
export function in_dev_maxconf(dev: net_device, name: DevconfName): number {
  return Math.max(ipv4_devconf_all[name], in_dev_cnf(dev, name))
}
export function in_dev_forwards(dev: net_device): boolean {
  return in_dev_cnf(dev, 'forwarding') !== 0
}

// ---- net.ipv4.conf --------------------------------------------------------------------------------------------------

/** inet_forward_change - this machine is a router from now on, or a host. @locks rtnl is held */
function inet_forward_change(on: number): void {
  ipv4_devconf_all.accept_redirects = on === 0 ? 1 : 0
  ipv4_devconf_all.forwarding = on
  ipv4_devconf_dflt.forwarding = on
  for (let dev = first_netdev(); dev !== null; dev = dev.next) {
    const in_dev = in_dev_get(dev)
    if (in_dev !== null) in_dev.cnf.forwarding = on
  }
  rt_flush()
}

function devconf_of(which: string): ipv4_devconf | null {
  if (which === 'all') return ipv4_devconf_all
  if (which === 'default') return ipv4_devconf_dflt
  for (let dev = first_netdev(); dev !== null; dev = dev.next)
    if (dev_name(dev) === which) return in_dev_get(dev)?.cnf ?? null
  return null
}
const LIMITS: Partial<Record<DevconfName, [min: number, max: number]>> = {
  medium_id: [-1, 0x7fffffff],
  tag: [-0x80000000, 0x7fffffff], // of whoever wants to write something down
}
register_sysctl_dir('net.ipv4.conf.', path => {
  const dot = path.lastIndexOf('.')
  const name = path.slice(dot + 1) as DevconfName
  const cnf = devconf_of(path.slice(0, dot))
  if (cnf === null || !DEVCONF.includes(name)) return null
  return {
    get: () => cnf[name],
    set(value) {
      if (name === 'mc_forwarding') return -EPERM // a routing daemon's socket says so
      const [min, max] = LIMITS[name] ?? [0, 8]
      if (value < min || value > max) return -EINVAL
      if (cnf === ipv4_devconf_all && name === 'forwarding') inet_forward_change(value === 0 ? 0 : 1)
      else cnf[name] = value
      rt_flush()
      return 0
    },
  }
})
register_sysctl('net.ipv4.ip_forward', {
  get: () => ipv4_devconf_all.forwarding,
  set(value) {
    if (value < 0 || value > 1) return -EINVAL
    inet_forward_change(value)
    return 0
  },
})

/** inetdev_init - a device gets its IPv4 side. @context process, boot @locks rtnl is held @returns in_device, or null */
export function inetdev_init(dev: net_device): in_device | null {
  const in_dev = kmem_cache_alloc(indev_cache)
  if (in_dev === null) return null
  const parms = neigh_parms_alloc(dev)
  if (parms === null) {
    kmem_cache_free(indev_cache, in_dev)
    return null
  }
  in_dev.arp_parms = parms.addr
  in_dev.dev = dev
  in_dev.ifa_list = null
  in_dev.mc_list = 0
  in_dev.mr_v1_seen = 0
  devconf_copy(in_dev.cnf, ipv4_devconf_dflt)
  if ((dev.flags & IFF_LOOPBACK) !== 0) {
    in_dev.cnf.disable_xfrm = 1
    in_dev.cnf.disable_policy = 1
  }
  dev_hold(dev)
  rcu_assign_pointer(dev.addr + IP_PTR, in_dev.addr)
  return in_dev
}

/** inetdev_destroy - and loses it, with its addresses. @context process, or a machine at rest @locks rtnl is held */
export function inetdev_destroy(dev: net_device): void {
  const in_dev = in_dev_get(dev)
  if (in_dev === null) return
  ip_mc_destroy_dev(in_dev)
  while (in_dev.ifa_list !== null) inet_del_ifa(in_dev, in_dev.ifa_list)
  rcu_assign_pointer(dev.addr + IP_PTR, 0)
  neigh_parms_release(NEIGH_PARMS.ref(in_dev.arp_parms))
  call_rcu_bh(in_dev.rcu, in_dev_rcu_put_sym)
}

function in_dev_rcu_put(head: number): void {
  const in_dev = IN_DEVICE.container_of('rcu', head)
  dev_put(in_dev.dev!)
  kmem_cache_free(indev_cache, in_dev)
}
const in_dev_rcu_put_sym = symbol('in_dev_rcu_put', in_dev_rcu_put)

/** What else can be said of an address. */
export interface IfaSpec {
  /** The other end of a link of two. */
  peer?: number
  /** 0: none; nothing: all ones behind the prefix. */
  broadcast?: number
  scope?: number
  /** Shorter than 16 bytes; nothing: the device's name. */
  label?: string
}

/** Where a new address goes: behind the primaries of its scope or nearer ones; a secondary at the end. @returns slot and flags, -errno */
function place_of(in_dev: in_device, local: number, address: number, mask: number, scope: number): [number, number] {
  let slot = in_dev.addr + IFA_LIST
  let last_primary = slot
  let flags = 0
  for (let a = in_dev.ifa_list; a !== null; a = a.ifa_next) {
    slot = a.addr
    if (is_primary(a) && scope <= a.ifa_scope) last_primary = slot
    if (a.ifa_mask !== mask || ((a.ifa_address ^ address) & mask) !== 0) continue
    if (a.ifa_local === local) return [-EEXIST, 0]
    if (a.ifa_scope !== scope) return [-EINVAL, 0]
    flags = IFA_F_SECONDARY
  }
  return [flags === 0 ? last_primary : slot, flags]
}

/** inet_insert_ifa - `ip addr add`. @context process, boot @locks rtnl is held @returns 0, -EEXIST, -EINVAL, -ENOMEM */
export function inet_insert_ifa(dev: net_device, local: number, prefixlen: number, more: IfaSpec = {}): number {
  const in_dev = in_dev_get(dev)
  if (in_dev === null || prefixlen < 0 || prefixlen > 32 || local === 0) return -EINVAL
  const mask = inet_make_mask(prefixlen)
  const address = more.peer ?? local
  const scope = more.scope ?? (ipv4_is_loopback(local) ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE)
  const [slot, flags] = place_of(in_dev, local, address, mask, scope)
  if (slot < 0) return slot
  const ifa = kmem_cache_alloc(ifa_cache)
  if (ifa === null) return -ENOMEM
  ifa.ifa_next = IFA.at(i32[slot >> 2])
  ifa.ifa_local = local
  ifa.ifa_address = address
  ifa.ifa_prefixlen = prefixlen
  ifa.ifa_mask = mask
  ifa.ifa_flags = flags
  ifa.ifa_scope = scope
  ifa.ifa_broadcast = more.broadcast ?? (prefixlen < 31 ? local | ~mask : 0)
  const label = more.label ?? dev_name(dev)
  for (let k = 0; k < 16; k++) u8[ifa.ifa_label + k] = k < Math.min(15, label.length) ? label.charCodeAt(k) : 0
  ifa.ifa_dev = in_dev
  rcu_assign_pointer(slot, ifa.addr)
  rtmsg_ifa(RTM_NEWADDR, ifa)
  notifier_call_chain(inetaddr_chain, NETDEV_UP, ifa.addr)
  return 0
}

/** ifa_label - as text. */
export function ifa_label(ifa: in_ifaddr): string {
  let text = ''
  for (let k = 0; k < 15 && u8[ifa.ifa_label + k] !== 0; k++) text += String.fromCharCode(u8[ifa.ifa_label + k]!)
  return text
}

function free_ifa(head: number): void {
  kmem_cache_free(ifa_cache, IFA.container_of('rcu', head))
}
const free_ifa_sym = symbol('inet_rcu_free_ifa', free_ifa)

/**
 * inet_del_ifa - `ip addr del`; a primary takes its secondaries along, or the first of them takes its place
 * (promote_secondaries, which 2.6.12 brought). @context process @locks rtnl is held @returns 0, -EADDRNOTAVAIL
 */
export function inet_del_ifa(in_dev: in_device, ifa: in_ifaddr): number {
  if (slot_of(in_dev, ifa) === 0) return -EADDRNOTAVAIL
  const promotes = ipv4_devconf_all.promote_secondaries !== 0 || in_dev.cnf.promote_secondaries !== 0
  let heir: in_ifaddr | null = null
  for (let a = is_primary(ifa) ? ifa.ifa_next : null; a !== null && heir === null; ) {
    const next: in_ifaddr | null = a.ifa_next
    if (!is_primary(a) && a.ifa_mask === ifa.ifa_mask && inet_ifa_match(ifa.ifa_address, a)) {
      if (promotes) heir = a
      else remove(in_dev, a)
    }
    a = next
  }
  remove(in_dev, ifa)
  if (heir !== null) promote(in_dev, heir)
  return 0
}

/** A secondary address is the first of its subnet from now on, and stands among the primaries. */
function promote(in_dev: in_device, heir: in_ifaddr): void {
  rcu_assign_pointer(slot_of(in_dev, heir), i32[heir.$w]!)
  let slot = in_dev.addr + IFA_LIST
  for (let a = in_dev.ifa_list; a !== null; a = a.ifa_next)
    if (is_primary(a) && heir.ifa_scope <= a.ifa_scope) slot = a.addr
  heir.ifa_flags &= ~IFA_F_SECONDARY
  heir.ifa_next = IFA.at(i32[slot >> 2]!)
  rcu_assign_pointer(slot, heir.addr)
  rtmsg_ifa(RTM_NEWADDR, heir)
  notifier_call_chain(inetaddr_chain, NETDEV_UP, heir.addr)
  for (let a = heir.ifa_next; a !== null; a = a.ifa_next)
    if (a.ifa_mask === heir.ifa_mask && inet_ifa_match(heir.ifa_address, a)) fib_add_ifaddr(a) // they named the one that went
}

function remove(in_dev: in_device, ifa: in_ifaddr): void {
  rcu_assign_pointer(slot_of(in_dev, ifa), ifa.ifa_next === null ? 0 : ifa.ifa_next.addr)
  rtmsg_ifa(RTM_DELADDR, ifa)
  notifier_call_chain(inetaddr_chain, NETDEV_DOWN, ifa.addr)
  call_rcu_bh(ifa.rcu, free_ifa_sym)
}

/** Where the list names an address; 0: nowhere. */
function slot_of(in_dev: in_device, ifa: in_ifaddr): number {
  let slot = in_dev.addr + IFA_LIST
  while (i32[slot >> 2] !== 0 && i32[slot >> 2] !== ifa.addr) slot = i32[slot >> 2]
  return i32[slot >> 2] === 0 ? 0 : slot
}

function is_primary(ifa: in_ifaddr): boolean {
  return (ifa.ifa_flags & IFA_F_SECONDARY) === 0
}
/** inet_ifa_match - is `addr` in the subnet of an address? */
export function inet_ifa_match(addr: number, ifa: in_ifaddr): boolean {
  return ((addr ^ ifa.ifa_address) & ifa.ifa_mask) === 0
}

/** inet_ifa_byprefix - the primary address of a subnet, or null. @locks rtnl is held */
export function inet_ifa_byprefix(in_dev: in_device, prefix: number, mask: number): in_ifaddr | null {
  let ifa = in_dev.ifa_list
  while (ifa !== null && !(is_primary(ifa) && ifa.ifa_mask === mask && inet_ifa_match(prefix, ifa))) ifa = ifa.ifa_next
  return ifa
}

/** inet_addr_onlink - are `a`, and `b` unless 0, on one subnet of the device? @context any, under rcu_bh or rtnl */
export function inet_addr_onlink(dev: net_device, a: number, b: number): boolean {
  const in_dev = in_dev_get(dev)
  for (let ifa = in_dev === null ? null : in_dev.ifa_list; ifa !== null && is_primary(ifa); ifa = ifa.ifa_next) {
    if (inet_ifa_match(a, ifa) && (b === 0 || inet_ifa_match(b, ifa))) return true
  }
  return false
}

/**
 * inet_select_addr - source address towards `dst`: one of its subnet if there is, else any of the device, else of any device;
 * none that means less than `scope` says. @context any, under rcu_bh or rtnl @returns 0 when there is none
 */
export function inet_select_addr(dev: net_device, dst: number, scope: number): number {
  const in_dev = in_dev_get(dev)
  let addr = 0
  for (let ifa = in_dev === null ? null : in_dev.ifa_list; ifa !== null && is_primary(ifa); ifa = ifa.ifa_next) {
    if (ifa.ifa_scope > scope) continue
    if (dst === 0 || inet_ifa_match(dst, ifa)) return ifa.ifa_local
    if (addr === 0) addr = ifa.ifa_local
  }
  for (let other = first_netdev(); addr === 0 && other !== null; other = other.next) {
    const its = in_dev_get(other)
    for (let ifa = its === null ? null : its.ifa_list; ifa !== null && is_primary(ifa); ifa = ifa.ifa_next) {
      if (ifa.ifa_scope !== RT_SCOPE_LINK && ifa.ifa_scope <= scope) return ifa.ifa_local
    }
  }
  return addr
}

function confirm_addr_indev(in_dev: in_device, dst: number, local: number, scope: number): number {
  let same = false
  let addr = 0
  for (let ifa = in_dev.ifa_list; ifa !== null; ifa = ifa.ifa_next) {
    if (addr === 0 && (local === 0 || local === ifa.ifa_local) && ifa.ifa_scope <= scope) {
      addr = ifa.ifa_local
      if (same) break
    }
    if (same) continue
    same = (local === 0 || inet_ifa_match(local, ifa)) && (dst === 0 || inet_ifa_match(dst, ifa))
    if (!same || addr === 0) continue
    if (local !== 0 || dst === 0 || inet_ifa_match(addr, ifa)) break
    if (ifa.ifa_scope <= scope) {
      addr = ifa.ifa_local
      break
    }
    same = false // a larger subnet may have both
  }
  return same ? addr : 0
}

/**
 * inet_confirm_addr - is `local` an address of `dev` (null: of any device) that means something within `scope`, and on one
 * subnet with `dst`? 0 stands for any, of either. @context any, under rcu_bh or rtnl @returns the address, 0: no
 */
export function inet_confirm_addr(dev: net_device | null, dst: number, local: number, scope: number): number {
  if (dev !== null) {
    const in_dev = in_dev_get(dev)
    return in_dev === null ? 0 : confirm_addr_indev(in_dev, dst, local, scope)
  }
  for (let other = first_netdev(); other !== null; other = other.next) {
    const in_dev = in_dev_get(other)
    const addr = in_dev === null ? 0 : confirm_addr_indev(in_dev, dst, local, scope)
    if (addr !== 0) return addr
  }
  return 0
}
