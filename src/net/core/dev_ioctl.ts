/**
 * dev_ioctl.ts - what `ifconfig` asks of devices: struct ifreq and struct ifconf of i386 (dev_ioctl of net/core/dev.c, 2.6.11).
 * Changes are made under rtnl, which the list and the names are looked at under as well.
 */
import { type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call, type Sym } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { EFAULT, EINVAL, ENODEV, EOPNOTSUPP, EPERM } from '../../lib/errno.js'
import { copy_from_user, copy_to_user, get_user, KSTACK_WORDS, put_user, task_kstack } from '../../sched/mm.js'
import { current } from '../../sched/sched.js'
import { dev_change_flags, dev_change_name, dev_get_flags, dev_set_mac_address, IFNAMSIZ } from './dev_change.js'
import { dev_mc_add, dev_mc_delete } from './dev_mcast.js'
import {
  dev_change_mtu,
  dev_get_by_index,
  dev_get_by_name,
  dev_name,
  dev_put,
  first_netdev,
  NETDEV_CHANGEADDR,
  netdev_notify,
  rtnl_lock,
  rtnl_unlock,
} from './netdevice.js'
import { capable } from './sock_opt.js'
import { AF_UNSPEC } from './sock_types.js'
import type { Call } from './socket.js'
import { LINK_STATE_PRESENT, type net_device } from './types.js'

const dv = RAM.dv
const u8 = RAM.u8

export const SIOCGIFNAME = 0x8910
export const SIOCGIFCONF = 0x8912
export const SIOCGIFFLAGS = 0x8913
export const SIOCSIFFLAGS = 0x8914
export const SIOCGIFMETRIC = 0x891d
export const SIOCSIFMETRIC = 0x891e
export const SIOCGIFMTU = 0x8921
export const SIOCSIFMTU = 0x8922
export const SIOCSIFNAME = 0x8923
export const SIOCSIFHWADDR = 0x8924
export const SIOCGIFHWADDR = 0x8927
export const SIOCADDMULTI = 0x8931
export const SIOCDELMULTI = 0x8932
export const SIOCGIFINDEX = 0x8933
export const SIOCSIFHWBROADCAST = 0x8937
export const SIOCGIFTXQLEN = 0x8942
export const SIOCGIFMAP = 0x8970
export const SIOCSIFMAP = 0x8971
export const SIOCSIFTXQLEN = 0x8943
export const SIOCDEVPRIVATE = 0x89f0

// struct ifreq, by offset: the name, and what the command is about
export const IFREQ_SIZE = 32
export const IFR_DATA = 16
const ETH_ALEN = 6

/** Lists what a family knows of a device, as ifreqs into the program's buffer (0: only counts). @returns bytes, -EFAULT */
export type gifconf_func = (dev: net_device, buf: number, len: number) => number
class gifconf_box extends Struct {
  declare inet: Sym<gifconf_func>
  declare config: Sym<inet_config_func>
}
const BOX: Layout<gifconf_box> = layout('gifconf', gifconf_box, { inet: word, config: word })
const gifconf = DEFINE_STATIC('gifconf', BOX)

/** register_gifconf - of IPv4, the only family that has one. @context boot */
export function register_gifconf(f: Sym<gifconf_func>): void {
  gifconf.inet = f
}

/** What IPv4 knows of routes, neighbours and addresses. @returns null: there is no such command */
export type inet_config_func = (cmd: number, arg: number) => Call | null
/** register_inet_config - for sockets of other families, which are asked for that too. @context boot */
export function register_inet_config(f: Sym<inet_config_func>): void {
  gifconf.config = f
}
/** net_ioctl - a command of no socket in particular: IPv4's, or a device's. @context process @returns 0, -errno */
export function net_ioctl(cmd: number, arg: number): Call {
  const known = gifconf.config === 0 ? null : call(gifconf.config)(cmd, arg)
  return known ?? dev_ioctl(cmd, arg)
}

/** ifreq_scratch - the ifreq of this call, on the kernel stack. @context process */
export function ifreq_scratch(): number {
  return task_kstack(current()).words + KSTACK_WORDS - 64 - 128
}
/** ifreq_name - up to its end, or to the field's. */
export function ifreq_name(r: number): string {
  u8[r + IFNAMSIZ - 1] = 0
  let name = ''
  for (let k = 0; u8[r + k] !== 0; k++) name += String.fromCharCode(u8[r + k]!)
  return name
}
export function set_ifreq_name(r: number, name: string): void {
  for (let k = 0; k < IFNAMSIZ; k++) u8[r + k] = k < name.length && k < IFNAMSIZ - 1 ? name.charCodeAt(k) : 0
}

/** dev_ifconf - @locks rtnl is held @returns 0, -EFAULT */
function dev_ifconf(arg: number): number {
  const len = get_user(arg)
  const buf = get_user(arg + 4)
  if (len === null || buf === null) return -EFAULT
  let total = 0
  for (let dev = first_netdev(); dev !== null && gifconf.inet !== 0; dev = dev.next) {
    const done = call(gifconf.inet)(dev, buf === 0 ? 0 : buf + total, buf === 0 ? 0 : len - total)
    if (done < 0) return -EFAULT
    total += done
  }
  return put_user(total, arg)
}

function dev_ifname(r: number): number {
  const dev = dev_get_by_index(dv.getInt32(r + IFR_DATA, true))
  if (dev === null) return -ENODEV
  set_ifreq_name(r, dev_name(dev))
  dev_put(dev)
  return 0
}

/** A value of a device into the ifreq. @returns 0, -EINVAL */
function get_ifreq(dev: net_device, cmd: number, r: number): number {
  const at = r + IFR_DATA
  switch (cmd) {
    case SIOCGIFFLAGS:
      dv.setInt16(at, dev_get_flags(dev), true)
      return 0
    case SIOCGIFMETRIC:
      dv.setInt32(at, 0, true)
      return 0
    case SIOCGIFMTU:
      dv.setInt32(at, dev.mtu, true)
      return 0
    case SIOCGIFHWADDR:
      u8.fill(0, at, at + 16)
      dv.setUint16(at, dev.type, true)
      dv.setInt32(at + 2, dev.dev_addr_hi)
      dv.setUint16(at + 6, dev.dev_addr_lo)
      return 0
    case SIOCGIFINDEX:
      dv.setInt32(at, dev.ifindex, true)
      return 0
    case SIOCGIFMAP: // of memory and I/O ports a card of this machine has none
      u8.fill(0, at, at + 16)
      u8[at + 10] = dev.irq
      return 0
    case SIOCGIFTXQLEN:
      dv.setInt32(at, dev.tx_queue_len, true)
      return 0
    default:
      return -EINVAL
  }
}

function set_mtu(dev: net_device, mtu: number): number {
  if (mtu === dev.mtu) return 0
  if (mtu < 0) return -EINVAL
  return (dev.state & LINK_STATE_PRESENT) === 0 ? -ENODEV : dev_change_mtu(dev, mtu)
}

/** @locks rtnl is held @returns 0, -errno; -EINVAL also for what it does not know */
function* set_ifreq(dev: net_device, cmd: number, r: number): Call {
  const at = r + IFR_DATA
  const value = dv.getInt32(at, true)
  switch (cmd) {
    case SIOCSIFFLAGS:
      return yield* dev_change_flags(dev, dv.getInt16(at, true))
    case SIOCSIFMETRIC:
    case SIOCSIFMAP:
      return -EOPNOTSUPP
    case SIOCSIFMTU:
      return set_mtu(dev, value)
    case SIOCSIFHWADDR:
      if (dv.getUint16(at, true) !== dev.type) return -EINVAL
      return dev_set_mac_address(dev, dv.getInt32(at + 2), dv.getUint16(at + 6))
    case SIOCSIFHWBROADCAST:
      if (dv.getUint16(at, true) !== dev.type) return -EINVAL
      dev.broadcast_hi = dv.getInt32(at + 2)
      dev.broadcast_lo = dv.getInt16(at + 6)
      netdev_notify(dev, NETDEV_CHANGEADDR)
      return 0
    case SIOCADDMULTI:
    case SIOCDELMULTI:
      if (dev.set_multicast_list === 0 || dv.getUint16(at, true) !== AF_UNSPEC) return -EINVAL
      if ((dev.state & LINK_STATE_PRESENT) === 0) return -ENODEV
      return (cmd === SIOCADDMULTI ? dev_mc_add : dev_mc_delete)(dev, at + 2, ETH_ALEN, true)
    case SIOCSIFTXQLEN:
      if (value < 0) return -EINVAL
      dev.tx_queue_len = value
      return 0
    default: // SIOCSIFNAME
      return dev_change_name(dev, ifreq_name(at))
  }
}

const GETS = [SIOCGIFFLAGS, SIOCGIFMETRIC, SIOCGIFMTU, SIOCGIFHWADDR, SIOCGIFINDEX, SIOCGIFTXQLEN, SIOCGIFMAP]
const SETS = [
  ...[SIOCSIFFLAGS, SIOCSIFMETRIC, SIOCSIFMAP, SIOCSIFMTU, SIOCSIFHWADDR, SIOCSIFTXQLEN, SIOCSIFNAME],
  ...[SIOCSIFHWBROADCAST, SIOCADDMULTI, SIOCDELMULTI],
]

/** dev_ifsioc - @locks rtnl is held @returns 0, -ENODEV, -EINVAL, what the change says */
function* dev_ifsioc(cmd: number, r: number): Call {
  const dev = dev_get_by_name(ifreq_name(r).split(':')[0]!)
  if (dev === null) return -ENODEV
  const ret = GETS.includes(cmd) ? get_ifreq(dev, cmd, r) : yield* set_ifreq(dev, cmd, r)
  dev_put(dev)
  return ret
}

/** dev_ioctl - @context process @locks takes rtnl @returns 0, -EFAULT, -ENODEV, -EPERM, -EINVAL: nobody knows the command, ... */
export function* dev_ioctl(cmd: number, arg: number): Call {
  const r = ifreq_scratch()
  if (cmd !== SIOCGIFCONF && copy_from_user(r, arg, IFREQ_SIZE) !== 0) return -EFAULT
  const sets = SETS.includes(cmd)
  if (!sets && !GETS.includes(cmd) && cmd !== SIOCGIFCONF && cmd !== SIOCGIFNAME) return -EINVAL
  if (sets && !capable()) return -EPERM
  yield* rtnl_lock()
  let ret: number
  if (cmd === SIOCGIFCONF) ret = dev_ifconf(arg)
  else ret = cmd === SIOCGIFNAME ? dev_ifname(r) : yield* dev_ifsioc(cmd, r)
  rtnl_unlock()
  const answers = cmd === SIOCGIFNAME || cmd === SIOCSIFNAME || GETS.includes(cmd)
  if (ret !== 0 || !answers) return ret
  return copy_to_user(arg, r, IFREQ_SIZE) === 0 ? 0 : -EFAULT
}
