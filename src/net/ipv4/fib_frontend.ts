/**
 * fib_frontend.ts - the FIB towards the rest: lookups over both tables, source validation, routes that follow addresses
 * and devices. No locks of its own; changes happen under rtnl.
 */

import { konst, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../../abi/section.js'
import { call, type Sym, symbol } from '../../abi/symbol.js'
import { NOTIFIER, NOTIFY_DONE, type notifier_block } from '../../irq/notifier.js'
import { EINVAL } from '../../lib/errno.js'
import { local_bh_disable, local_bh_enable } from '../../sync/bh.js'
import { neigh_ifdown } from '../core/neighbour.js'
import {
  dev_hold,
  NETDEV_CHANGE,
  NETDEV_CHANGEADDR,
  NETDEV_CHANGEMTU,
  NETDEV_DOWN,
  NETDEV_UNREGISTER,
  NETDEV_UP,
  register_netdevice_notifier,
} from '../core/netdevice.js'
import { pneigh_ifdown } from '../core/pneigh.js'
import { IFF_LOOPBACK, NETDEV, type net_device } from '../core/types.js'
import { inet_make_mask, ipv4_is_badclass, ipv4_is_multicast, ipv4_is_zeronet } from '../wire/ipv4.js'
import {
  IFA,
  IFA_F_SECONDARY,
  in_dev_andconf,
  in_dev_get,
  type in_ifaddr,
  inet_ifa_byprefix,
  register_inetaddr_notifier,
} from './devinet.js'
import {
  fib_hash_exit,
  fib_hash_init,
  fib_tables_each,
  fn_hash_delete,
  fn_hash_flush,
  fn_hash_insert,
  fn_hash_lookup,
  ip_fib_local_table,
  ip_fib_main_table,
} from './fib_hash.js'
import { fib_lookup, fib_rules_exit, fib_rules_init } from './fib_rules.js'
import { fib_info_exit, fib_info_init, fib_res_dev } from './fib_semantics.js'
import { fib_sync_down_addr, fib_sync_down_dev, fib_sync_up } from './fib_sync.js'
import {
  FIB_RESULT,
  fib_nh_of,
  type RouteMatch,
  type RouteSpec,
  RT_SCOPE_HOST,
  RT_SCOPE_LINK,
  RT_SCOPE_UNIVERSE,
  RTN_BLACKHOLE,
  RTN_BROADCAST,
  RTN_LOCAL,
  RTN_MULTICAST,
  RTN_UNICAST,
  RTPROT_KERNEL,
} from './fib_types.js'

class fib_hooks extends Struct {
  declare flush: Sym<() => void>
}
const HOOKS: Layout<fib_hooks> = layout('fib_hooks', fib_hooks, { flush: konst(word) })
const hooks = DEFINE_STATIC('fib_hooks', HOOKS)

/** rt_cache_flush_all - what was answered may be wrong now. @context process */
export function rt_cache_flush_all(): void {
  rt_flush()
}

function rt_flush(): void {
  if (hooks.flush !== 0) call(hooks.flush)()
}

const scratch = DEFINE_PER_CPU('fib_scratch', FIB_RESULT).mine

/** inet_addr_type - RTN_* of an address. @context any, bottom halves off */
export function inet_addr_type(addr: number): number {
  if (ipv4_is_zeronet(addr) || ipv4_is_badclass(addr)) return RTN_BROADCAST
  if (ipv4_is_multicast(addr)) return RTN_MULTICAST
  return fn_hash_lookup(ip_fib_local_table, addr, 0, 0, RT_SCOPE_UNIVERSE, scratch) === 0 ? scratch.type : RTN_UNICAST
}

/** ip_dev_find - the device that an address of ours belongs to, with a reference; null: it is not ours. @context bottom halves off */
export function ip_dev_find(addr: number): net_device | null {
  if (fn_hash_lookup(ip_fib_local_table, addr, 0, 0, RT_SCOPE_UNIVERSE, scratch) !== 0) return null
  const dev = scratch.type === RTN_LOCAL ? fib_res_dev(scratch) : null
  if (dev !== null) dev_hold(dev)
  return dev
}

/** inet_addr_is_local - is it one of ours? @context process */
export function inet_addr_is_local(addr: number): boolean {
  local_bh_disable()
  const type = inet_addr_type(addr)
  local_bh_enable()
  return type === RTN_LOCAL
}

/**
 * fib_validate_source - could a packet from `src` to `dst` that came in on `dev` have come that way? With rp_filter it must be
 * the way back to its sender. `oif`: where it goes. @context softirq
 * @returns negative: no; 0: yes; 1: and the sender is on the link
 */
export function fib_validate_source(src: number, dst: number, tos: number, oif: number, dev: net_device): number {
  const in_dev = in_dev_get(dev)
  if (in_dev === null) return -EINVAL
  const rp_filter = in_dev_andconf(dev, 'rp_filter')
  if (fib_lookup(src, dst, tos, oif, 0, RT_SCOPE_UNIVERSE, scratch) !== 0) return rp_filter ? -EINVAL : 0
  if (scratch.type !== RTN_UNICAST) return -EINVAL // our own address, or a broadcast: a martian
  if (fib_res_dev(scratch) === dev) return on_link()
  if (in_dev.ifa_list === null) return rp_filter ? -EINVAL : 0
  if (rp_filter) return -EINVAL
  const back = fib_lookup(src, dst, tos, oif, dev.ifindex, RT_SCOPE_UNIVERSE, scratch) // if it had to be this device
  return back === 0 && scratch.type === RTN_UNICAST ? on_link() : 0
}
/** Is what was found not behind a gateway? */
function on_link(): number {
  return fib_nh_of(scratch.fi!, scratch.nh_sel).nh_scope >= RT_SCOPE_HOST ? 1 : 0
}

// ---- changes --------------------------------------------------------------------------------------------------------

function scope_of(spec: RouteSpec): number {
  if (spec.scope !== undefined) return spec.scope
  if (spec.type === RTN_LOCAL) return RT_SCOPE_HOST
  if (spec.type === RTN_BROADCAST) return RT_SCOPE_LINK
  if (spec.type >= RTN_BLACKHOLE) return RT_SCOPE_UNIVERSE
  return spec.nexthops.every(hop => hop.gw === 0) ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE
}

/** ip_route_add - `ip route add`. @context process, boot @locks rtnl is held @returns 0, or -errno */
export function ip_route_add(spec: RouteSpec): number {
  const scope = scope_of(spec)
  const table = spec.type === RTN_LOCAL || spec.type === RTN_BROADCAST ? ip_fib_local_table : ip_fib_main_table
  const err = fn_hash_insert(table, { ...spec, scope }, scope)
  if (err === 0) rt_flush()
  return err
}

/** ip_route_del - `ip route del`. @context process @locks rtnl is held @returns 0, -ESRCH */
export function ip_route_del(want: RouteMatch): number {
  const table = want.type === RTN_LOCAL || want.type === RTN_BROADCAST ? ip_fib_local_table : ip_fib_main_table
  const err = fn_hash_delete(table, want)
  if (err === 0) rt_flush()
  return err
}

/** The routes that an address brings: itself, its subnet, its subnet's broadcasts. A secondary one finds the latter there. */
function routes_of(ifa: in_ifaddr): RouteSpec[] {
  const in_dev = ifa.ifa_dev!
  const { ifa_local: local, ifa_prefixlen: prefixlen } = ifa
  const net = ifa.ifa_address & inet_make_mask(prefixlen)
  const secondary = (ifa.ifa_flags & IFA_F_SECONDARY) !== 0
  const primary = secondary ? inet_ifa_byprefix(in_dev, net, ifa.ifa_mask) : ifa
  const means = {
    prefsrc: primary === null ? local : primary.ifa_local,
    protocol: RTPROT_KERNEL,
    nexthops: [{ gw: 0, dev: in_dev.dev! }],
    append: true, // another device may have the same subnet
  }
  const routes: RouteSpec[] = [{ dst: local, prefixlen: 32, type: RTN_LOCAL, ...means }]
  if (secondary) return routes
  const loopback = (in_dev.dev!.flags & IFF_LOOPBACK) !== 0
  const broadcast = (dst: number): void => {
    routes.push({ dst, prefixlen: 32, type: RTN_BROADCAST, ...means })
  }
  const { ifa_broadcast: all } = ifa
  const usual = prefixlen < 31 ? [net, net | ~ifa.ifa_mask] : []
  if (!ipv4_is_zeronet(net) && (prefixlen < 32 || net !== local)) {
    routes.push(
      loopback // all of 127/8 is this machine
        ? { dst: net, prefixlen, type: RTN_LOCAL, ...means }
        : { dst: net, prefixlen, type: RTN_UNICAST, scope: RT_SCOPE_LINK, ...means },
    )
    for (const dst of usual) broadcast(dst)
  }
  if (all !== 0 && all !== -1 && !usual.includes(all)) broadcast(all)
  return routes
}

/** fib_add_ifaddr - while the device is down, those of the subnet are refused and only the address itself is entered. */
export function fib_add_ifaddr(ifa: in_ifaddr): void {
  for (const route of routes_of(ifa)) ip_route_add(route)
}

/** fib_del_ifaddr - what no other address brings as well goes, and the routes that send from this address. */
function fib_del_ifaddr(ifa: in_ifaddr): void {
  const others: RouteSpec[] = []
  for (let a = ifa.ifa_dev!.ifa_list; a !== null; a = a.ifa_next) others.push(...routes_of(a))
  for (const r of routes_of(ifa)) {
    const same = (o: RouteSpec): boolean =>
      o.dst === r.dst && o.prefixlen === r.prefixlen && o.type === r.type && o.prefsrc === r.prefsrc
    if (!others.some(same)) ip_route_del(r)
  }
  if (!inet_addr_is_local(ifa.ifa_local) && fib_sync_down_addr(ifa.ifa_local) > 0) fib_flush()
}

/** fib_flush - the dead routes out of all tables. */
function fib_flush(): void {
  let flushed = 0
  fib_tables_each(tb => {
    flushed += fn_hash_flush(tb, false)
  })
  if (flushed > 0) rt_flush()
}

/**
 * fib_disable_ip - a device that is down, has lost its last address (`force` 1) or goes for good (2) leads nowhere.
 * Permanent neighbours stay until it goes for good, unlike in 2.6.11: there is no ARP that could find them again.
 */
function fib_disable_ip(dev: net_device, force: number): void {
  if (fib_sync_down_dev(dev, force) > 0) fib_flush()
  rt_flush()
  neigh_ifdown(dev, force < 2)
  pneigh_ifdown(dev)
}

function fib_inetaddr_event(_nb: notifier_block, event: number, data: number): number {
  const ifa = IFA.ref(data)
  const in_dev = ifa.ifa_dev!
  if (event === NETDEV_UP) {
    fib_add_ifaddr(ifa)
    fib_sync_up(in_dev.dev!)
    rt_flush()
  } else if (event === NETDEV_DOWN) {
    fib_del_ifaddr(ifa)
    if (in_dev.ifa_list === null) fib_disable_ip(in_dev.dev!, 1)
    else rt_flush()
  }
  return NOTIFY_DONE
}

function fib_netdev_event(_nb: notifier_block, event: number, data: number): number {
  const dev = NETDEV.ref(data)
  const in_dev = in_dev_get(dev)
  if (event === NETDEV_UNREGISTER) fib_disable_ip(dev, 2)
  else if (in_dev === null) return NOTIFY_DONE
  else if (event === NETDEV_UP) {
    for (let ifa = in_dev.ifa_list; ifa !== null; ifa = ifa.ifa_next) fib_add_ifaddr(ifa)
    fib_sync_up(dev)
    rt_flush()
  } else if (event === NETDEV_DOWN) fib_disable_ip(dev, 0)
  else if (event === NETDEV_CHANGEADDR) {
    neigh_ifdown(dev, true) // who answered to the old address may have kept it
    rt_flush()
  } else if (event === NETDEV_CHANGEMTU || event === NETDEV_CHANGE) rt_flush() // cached routes know how it was
  return NOTIFY_DONE
}
const fib_inetaddr_event_sym = symbol('fib_inetaddr_event', fib_inetaddr_event)
const fib_netdev_event_sym = symbol('fib_netdev_event', fib_netdev_event)
const fib_inetaddr_notifier = DEFINE_STATIC('fib_inetaddr_notifier', NOTIFIER)
const fib_netdev_notifier = DEFINE_STATIC('fib_netdev_notifier', NOTIFIER)

/** ip_fib_init - `flush` empties the route cache when anything changes. @context boot, CPU 0 */
export function ip_fib_init(flush: Sym<() => void>): void {
  hooks.flush = flush
  fib_info_init()
  fib_hash_init()
  fib_rules_init()
  fib_inetaddr_notifier.call = fib_inetaddr_event_sym
  fib_netdev_notifier.call = fib_netdev_event_sym
  register_inetaddr_notifier(fib_inetaddr_notifier)
  register_netdevice_notifier(fib_netdev_notifier)
}

/** ip_fib_exit - every route back, for the leak audit. @context process, or a machine at rest */
export function ip_fib_exit(): void {
  fib_rules_exit()
  fib_hash_exit()
  fib_info_exit()
}
