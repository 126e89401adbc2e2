/**
 * mc_sock.ts - groups as sockets know them (ip_mc_join_group and the like of net/ipv4/igmp.c of 2.6.11): what they joined goes
 * with them.
 *
 * Lock charter
 *   rtnl guards the memberships of all sockets; it is taken under the socket's lock.
 *
 * As in 2.6.11 a socket hears every group that anybody on this machine has joined, if it is bound to the port: there are no
 * filters by source, and ip_mc_sf_allow without one lets all through.
 */
import { by, type Layout, layout, ptr, Struct, word } from '../../abi/layout.js'
import { RAM } from '../../arch/ram.js'
import { EADDRINUSE, EADDRNOTAVAIL, EFAULT, EINVAL, ENOBUFS, ENODEV } from '../../lib/errno.js'
import { IGMP_MAX_MEMBERSHIPS, MAX_MC_GROUPS } from '../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import { copy_from_user, KSTACK_WORDS, task_kstack } from '../../sched/mm.js'
import { current } from '../../sched/sched.js'
import { local_bh_disable, local_bh_enable } from '../../sync/bh.js'
import { dev_get_by_index, dev_put, rtnl_lock, rtnl_unlock } from '../core/netdevice.js'
import { OPT_SCRATCH } from '../core/sock_opt.js'
import { SOCK_STREAM, type sock } from '../core/sock_types.js'
import type { Call } from '../core/socket.js'
import { ipv4_is_multicast } from '../wire/ipv4.js'
import { in_dev_get, type in_device } from './devinet.js'
import { ip_dev_find } from './fib_frontend.js'
import { ip_mc_dec_group, ip_mc_inc_group } from './igmp.js'
import { inet_sk } from './inet_sock.js'
import { ip_rt_put } from './route.js'
import { ip_route_output } from './route_output.js'

const i32 = RAM.i32
const dv = RAM.dv

export const IP_MULTICAST_IF = 32
export const IP_MULTICAST_TTL = 33
export const IP_MULTICAST_LOOP = 34
export const IP_ADD_MEMBERSHIP = 35
export const IP_DROP_MEMBERSHIP = 36

class ip_mc_socklist extends Struct {
  declare next: ip_mc_socklist | null
  declare multiaddr: number
  declare ifindex: number
}
const SOCKLIST: Layout<ip_mc_socklist> = layout('ip_mc_socklist', ip_mc_socklist, {
  next: by(
    'rtnl',
    ptr(() => SOCKLIST),
  ),
  multiaddr: by('rtnl', word),
  ifindex: by('rtnl', word),
})
const socklist_cache = kmem_cache_create('ip_mc_socklist', SOCKLIST, () => MAX_MC_GROUPS)

/** struct ip_mreqn. */
interface ip_mreqn {
  multiaddr: number
  address: number
  ifindex: number
}
/** The program's: of 12 bytes, or 8 without an index, or 4 of an address alone. @returns null: it cannot be read */
function get_mreqn(optval: number, optlen: number): ip_mreqn | null {
  const at = task_kstack(current()).words + KSTACK_WORDS - OPT_SCRATCH
  const len = optlen >= 12 ? 12 : optlen >= 8 ? 8 : 4
  if (copy_from_user(at, optval, len) !== 0) return null
  const addr = (k: number): number => dv.getInt32(at + 4 * k)
  if (len === 4) return { multiaddr: 0, address: addr(0), ifindex: 0 }
  return { multiaddr: addr(0), address: addr(1), ifindex: len === 12 ? i32[(at >> 2) + 2]! : 0 }
}

/** ip_mc_find_dev - the interface that is meant: by index, by its address, or where the group's route leads. @locks rtnl is held */
function ip_mc_find_dev(imr: ip_mreqn): in_device | null {
  local_bh_disable()
  let dev = imr.ifindex !== 0 ? dev_get_by_index(imr.ifindex) : imr.address !== 0 ? ip_dev_find(imr.address) : null
  if (dev === null && imr.ifindex === 0 && imr.address === 0) {
    const rt = ip_route_output(imr.multiaddr, 0, 0, 0)
    if (rt !== null) {
      dev = dev_get_by_index(rt.dst.dev!.ifindex)
      ip_rt_put(rt)
    }
  }
  local_bh_enable()
  if (dev === null) return null
  imr.ifindex = dev.ifindex
  const in_dev = in_dev_get(dev)
  dev_put(dev) // rtnl keeps it
  return in_dev
}

/** @locks rtnl is held */
function join(sk: sock, imr: ip_mreqn): number {
  const in_dev = ip_mc_find_dev(imr)
  if (in_dev === null) return -ENODEV
  const inet = inet_sk(sk)
  let count = 0
  for (let iml = SOCKLIST.at(inet.mc_list); iml !== null; iml = iml.next, count++)
    if (iml.multiaddr === imr.multiaddr && iml.ifindex === imr.ifindex) return -EADDRINUSE
  const iml = count >= IGMP_MAX_MEMBERSHIPS ? null : kmem_cache_alloc(socklist_cache)
  if (iml === null) return -ENOBUFS
  if (!ip_mc_inc_group(in_dev, imr.multiaddr)) {
    kmem_cache_free(socklist_cache, iml)
    return -ENOBUFS
  }
  iml.multiaddr = imr.multiaddr
  iml.ifindex = imr.ifindex
  iml.next = SOCKLIST.at(inet.mc_list)
  inet.mc_list = iml.addr
  return 0
}
/** @locks rtnl is held */
function leave(sk: sock, imr: ip_mreqn): number {
  const in_dev = ip_mc_find_dev(imr)
  if (in_dev === null) return -ENODEV
  const inet = inet_sk(sk)
  let before: ip_mc_socklist | null = null
  for (let iml = SOCKLIST.at(inet.mc_list); iml !== null; before = iml, iml = iml.next) {
    if (iml.multiaddr !== imr.multiaddr || iml.ifindex !== imr.ifindex) continue
    if (before === null) inet.mc_list = iml.next === null ? 0 : iml.next.addr
    else before.next = iml.next
    kmem_cache_free(socklist_cache, iml)
    ip_mc_dec_group(in_dev, imr.multiaddr)
    return 0
  }
  return -EADDRNOTAVAIL
}

/** ip_mc_drop_socket - a socket is closed. @context process @locks takes rtnl */
export function* ip_mc_drop_socket(sk: sock): Generator<void, void, void> {
  const inet = inet_sk(sk)
  if (inet.mc_list === 0) return
  yield* rtnl_lock()
  for (let iml = SOCKLIST.at(inet.mc_list); iml !== null; iml = SOCKLIST.at(inet.mc_list)) {
    inet.mc_list = iml.next === null ? 0 : iml.next.addr
    const dev = dev_get_by_index(iml.ifindex)
    const in_dev = dev === null ? null : in_dev_get(dev)
    if (in_dev !== null) ip_mc_dec_group(in_dev, iml.multiaddr)
    if (dev !== null) dev_put(dev)
    kmem_cache_free(socklist_cache, iml)
  }
  rtnl_unlock()
}

/** IP_MULTICAST_IF. @locks the socket is ours */
function set_interface(sk: sock, imr: ip_mreqn): number {
  const inet = inet_sk(sk)
  if (imr.ifindex === 0 && imr.address === 0) {
    inet.mc_index = 0
    inet.mc_addr = 0
    return 0
  }
  const dev = imr.ifindex === 0 ? ip_dev_find(imr.address) : dev_get_by_index(imr.ifindex)
  if (dev === null) return -EADDRNOTAVAIL
  const { ifindex } = dev
  dev_put(dev)
  if (sk.sk_bound_dev_if !== 0 && ifindex !== sk.sk_bound_dev_if) return -EINVAL
  inet.mc_index = ifindex
  inet.mc_addr = imr.address
  return 0
}

/** ip_mc_setsockopt - `val`: the value as a number. @context process @locks the socket is ours; takes rtnl @returns null: no such option */
export function* ip_mc_setsockopt(
  sk: sock,
  optname: number,
  val: number,
  optval: number,
  optlen: number,
): Generator<void, number | null, void> {
  const inet = inet_sk(sk)
  switch (optname) {
    case IP_MULTICAST_TTL:
      if (sk.sk_type === SOCK_STREAM || optlen < 1 || val < -1 || val > 255) return -EINVAL
      inet.mc_ttl = val === -1 ? 1 : val
      return 0
    case IP_MULTICAST_LOOP:
      if (optlen < 1) return -EINVAL
      inet.mc_loop = val !== 0 ? 1 : 0
      return 0
    case IP_MULTICAST_IF: {
      if (sk.sk_type === SOCK_STREAM || optlen < 4) return -EINVAL
      const imr = get_mreqn(optval, optlen)
      return imr === null ? -EFAULT : set_interface(sk, imr)
    }
    case IP_ADD_MEMBERSHIP:
    case IP_DROP_MEMBERSHIP: {
      if (optlen < 8) return -EINVAL
      const imr = get_mreqn(optval, optlen)
      if (imr === null) return -EFAULT
      return yield* change_membership(sk, imr, optname === IP_ADD_MEMBERSHIP)
    }
    default:
      return null
  }
}
function* change_membership(sk: sock, imr: ip_mreqn, add: boolean): Call {
  if (add && !ipv4_is_multicast(imr.multiaddr)) return -EINVAL
  yield* rtnl_lock()
  const err = add ? join(sk, imr) : leave(sk, imr)
  rtnl_unlock()
  return err
}
