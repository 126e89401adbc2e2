/**
 * fib_frontend.ts - the FIB towards the rest: lookups over both tables, source validation, routes that follow addresses
 * and devices. No locks of its own; changes happen under rtnl.
 */

import { konst, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../../abi/section.js'
import { call, type Sym, symbol } from '../../abi/symbol.js'
import { NOTIFIER, NOTIFY_DONE, type notifier_block } from '../../irq/notifier.js'
import { EINVAL, ENETUNREACH } from '../../lib/errno.js'
import { neigh_ifdown } from '../core/neighbour.js'
import {
  NETDEV_DOWN,
  NETDEV_GOING_DOWN,
  NETDEV_REGISTER,
  NETDEV_UNREGISTER,
  NETDEV_UP,
  register_netdevice_notifier,
} from '../core/netdevice.js'
import { NETDEV, type net_device } from '../core/types.js'
import { inet_make_mask, ipv4_is_badclass, ipv4_is_multicast, ipv4_is_zeronet } from '../wire/ipv4.js'
import { IFA, in_dev_get, type in_ifaddr, register_inetaddr_notifier } from './devinet.js'
import {
  fib_hash_exit,
  fib_hash_init,
  fn_hash_delete,
  fn_hash_flush,
  fn_hash_insert,
  fn_hash_lookup,
  ip_fib_local_table,
  ip_fib_main_table,
} from './fib_hash.js'
import { fib_info_exit, fib_info_init, fib_res_dev, fib_sync_down, fib_sync_up } from './fib_semantics.js'
import {
  FIB_RESULT,
  type fib_result,
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
} from './fib_types.js'

class fib_hooks extends Struct {
  declare flush: Sym<() => void>
}
const HOOKS: Layout<fib_hooks> = layout('fib_hooks', fib_hooks, { flush: konst(word) })
const hooks = DEFINE_STATIC('fib_hooks', HOOKS)

function rt_flush(): void {
  if (hooks.flush !== 0) call(hooks.flush)()
}

/** fib_lookup - the local table, then the main one. Fills res. @context softirq, or bottom halves off @returns 0, -errno */
export function fib_lookup(
  daddr: number,
  _saddr: number,
  tos: number,
  _iif: number,
  oif: number,
  scope: number,
  res: fib_result,
): number {
  const err = fn_hash_lookup(ip_fib_local_table, daddr, tos & 0x1c, oif, scope, res)
  if (err <= 0) return err
  const main = fn_hash_lookup(ip_fib_main_table, daddr, tos & 0x1c, oif, scope, res)
  return main > 0 ? -ENETUNREACH : main
}

const scratch = DEFINE_PER_CPU('fib_scratch', FIB_RESULT).mine

/** inet_addr_type - RTN_* of an address. @context any, bottom halves off */
export function inet_addr_type(addr: number): number {
  if (ipv4_is_zeronet(addr) || ipv4_is_badclass(addr)) return RTN_BROADCAST
  if (ipv4_is_multicast(addr)) return RTN_MULTICAST
  return fn_hash_lookup(ip_fib_local_table, addr, 0, 0, RT_SCOPE_UNIVERSE, scratch) === 0 ? scratch.type : RTN_UNICAST
}

/**
 * fib_validate_source - could a packet from `src` come in on `dev`? @context softirq
 * @returns negative: no; 0: yes; 1: and the sender is on the link
 */
export function fib_validate_source(
  src: number,
  _dst: number,
  tos: number,
  _oif: number,
  dev: net_device,
  _res: fib_result,
): number {
  const in_dev = in_dev_get(dev)
  if (in_dev === null) return -EINVAL
  const err = fib_lookup(src, 0, tos, 0, 0, RT_SCOPE_UNIVERSE, scratch)
  if (err !== 0) return in_dev.rp_filter !== 0 ? -EINVAL : 0 // a way back is not required unless rp_filter says so
  if (scratch.type !== RTN_UNICAST) return -EINVAL // our own address, or a broadcast: a martian
  if (fib_res_dev(scratch) === dev) return scratch.scope >= RT_SCOPE_LINK ? 1 : 0
  return in_dev.rp_filter !== 0 ? -EINVAL : 0
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

/** The routes that an address brings: itself, its subnet's broadcasts, its subnet. */
function routes_of(ifa: in_ifaddr): RouteSpec[] {
  const dev = ifa.ifa_dev!.dev!
  const nexthops = [{ gw: 0, dev }]
  const { ifa_local: local, ifa_prefixlen: prefixlen } = ifa
  const net = local & inet_make_mask(prefixlen)
  const routes: RouteSpec[] = [{ dst: local, prefixlen: 32, type: RTN_LOCAL, prefsrc: local, protocol: 2, nexthops }]
  if (prefixlen < 32)
    routes.push({ dst: net, prefixlen, type: RTN_UNICAST, scope: RT_SCOPE_LINK, prefsrc: local, protocol: 2, nexthops })
  if (prefixlen < 31) {
    for (const dst of [net, ifa.ifa_broadcast])
      routes.push({ dst, prefixlen: 32, type: RTN_BROADCAST, prefsrc: local, protocol: 2, nexthops })
  }
  return routes
}

function fib_inetaddr_event(_nb: notifier_block, event: number, data: number): number {
  const ifa = IFA.ref(data)
  if (event === NETDEV_UP) for (const route of routes_of(ifa)) ip_route_add({ ...route, append: true })
  if (event === NETDEV_DOWN) for (const route of routes_of(ifa)) ip_route_del(route)
  return NOTIFY_DONE
}

function fib_netdev_event(_nb: notifier_block, event: number, data: number): number {
  const dev = NETDEV.ref(data)
  if (event === NETDEV_UP) {
    for (let ifa = in_dev_get(dev)?.ifa_list ?? null; ifa !== null; ifa = ifa.ifa_next)
      for (const route of routes_of(ifa)) ip_route_add(route)
    fib_sync_up(dev)
  }
  if (event === NETDEV_DOWN || event === NETDEV_UNREGISTER) {
    fib_sync_down(dev)
    fn_hash_flush(ip_fib_main_table, false)
    fn_hash_flush(ip_fib_local_table, false)
    neigh_ifdown(dev)
  }
  if (event !== NETDEV_REGISTER && event !== NETDEV_GOING_DOWN) rt_flush() // cached routes know address, MTU and neighbour
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
  fib_inetaddr_notifier.call = fib_inetaddr_event_sym
  fib_netdev_notifier.call = fib_netdev_event_sym
  register_inetaddr_notifier(fib_inetaddr_notifier)
  register_netdevice_notifier(fib_netdev_notifier)
}

/** ip_fib_exit - every route back, for the leak audit. @context process, or a machine at rest */
export function ip_fib_exit(): void {
  fib_hash_exit()
  fib_info_exit()
}
