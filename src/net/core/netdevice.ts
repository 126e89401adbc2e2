/**
 * netdevice.ts - network devices: registration, names, state bits, references, statistics.
 *
 * Lock charter
 *   rtnl_sem serialises every change of the configuration (process context, may sleep).
 *   dev_base_lock guards the device list and its hashes by name and by index: readers in any context take it for reading, a
 *   writer holds rtnl first.
 *   state is changed with atomic bit operations only.
 */

import { by, bytes, embed, type Layout, layout, ptr, Struct, word } from '../../abi/layout.js'
import { INIT_LIST_HEAD } from '../../abi/list.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call } from '../../abi/symbol.js'
import { fetch_and, fetch_or, load, READ_ONCE } from '../../arch/atomic.js'
import { BUG_ON } from '../../arch/cpu.js'
import { hz } from '../../arch/machine.js'
import { RAM } from '../../arch/ram.js'
import {
  NOTIFIER_HEAD,
  type notifier_block,
  notifier_call_chain,
  notifier_chain_register,
  notifier_chain_unregister,
  type notifier_head,
  notifier_head_init,
} from '../../irq/notifier.js'
import { jiffies, msleep } from '../../irq/timer.js'
import { EBUSY, EEXIST, ENODEV } from '../../lib/errno.js'
import { MAX_NETDEVS, NR_IRQS } from '../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import { synchronize_kernel } from '../../rcu/rcupdate.js'
import { down, init_MUTEX, SEMAPHORE, type semaphore, up } from '../../sched/semaphore.js'
import { refcount_dec, refcount_inc } from '../../sync/refcount.js'
import {
  RWLOCK,
  read_lock_bh,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../../sync/rwlock.js'
import { spin_lock_init } from '../../sync/spinlock.js'
import { linkwatch_run_queue } from './link_watch.js'
import { dev_activate, dev_deactivate, dev_init_scheduler, dev_shutdown } from './sch_generic.js'
import {
  IFF_UP,
  LINK_STATE_NOCARRIER,
  LINK_STATE_PRESENT,
  LINK_STATE_RX_SCHED,
  LINK_STATE_START,
  LINK_STATE_XOFF,
  NETDEV,
  NETIF_F_HW_CSUM,
  NETIF_F_IP_CSUM,
  NETIF_F_NO_CSUM,
  NETIF_F_SG,
  NETIF_F_TSO,
  NETREG_REGISTERED,
  NETREG_UNREGISTERED,
  NETREG_UNREGISTERING,
  type net_device,
} from './types.js'

const u8 = RAM.u8
const i32 = RAM.i32
const STATE = NETDEV.offset('state')
const REFCNT = NETDEV.offset('refcnt')
const NETIF_F_ALL_CSUM = NETIF_F_IP_CSUM | NETIF_F_NO_CSUM | NETIF_F_HW_CSUM

const netdev_cache = kmem_cache_create('net_device', NETDEV, () => MAX_NETDEVS + NR_IRQS)

/** Buckets of either hash. */
const NETDEV_HASHENTRIES = 256

class netdev_tables extends Struct {
  declare base: net_device | null
  declare name_head: number
  declare index_head: number
  declare ifindex: number
  declare dev_base_lock: rwlock_t
  declare rtnl_sem: semaphore
  declare netdev_chain: notifier_head
}
const TABLES: Layout<netdev_tables> = layout('netdev_tables', netdev_tables, {
  base: by(
    'dev_base_lock',
    ptr(() => NETDEV),
  ),
  name_head: by('dev_base_lock', bytes(NETDEV_HASHENTRIES * 4)),
  index_head: by('dev_base_lock', bytes(NETDEV_HASHENTRIES * 4)),
  ifindex: by('rtnl', word),
  dev_base_lock: embed(RWLOCK),
  rtnl_sem: embed(SEMAPHORE),
  netdev_chain: embed(NOTIFIER_HEAD),
})
const tables = DEFINE_STATIC('netdev_tables', TABLES)

// events of the netdevice chain
export const NETDEV_UP = 1
export const NETDEV_DOWN = 2
export const NETDEV_CHANGE = 4
export const NETDEV_REGISTER = 5
export const NETDEV_UNREGISTER = 6
export const NETDEV_CHANGEMTU = 7
export const NETDEV_CHANGEADDR = 8
export const NETDEV_GOING_DOWN = 9
export const NETDEV_CHANGENAME = 10

/** rtnl_lock - the configuration of the network is ours until rtnl_unlock. @context process */
export function* rtnl_lock(): Generator<void, void, void> {
  yield* down(tables.rtnl_sem)
}
export function rtnl_unlock(): void {
  up(tables.rtnl_sem)
}

/** register_netdevice_notifier - @context process, boot */
export function register_netdevice_notifier(nb: notifier_block): void {
  notifier_chain_register(tables.netdev_chain, nb)
}
export function unregister_netdevice_notifier(nb: notifier_block): void {
  notifier_chain_unregister(tables.netdev_chain, nb)
}

// ---- state ----------------------------------------------------------------------------------------------------------

export function dev_hold(dev: net_device): void {
  refcount_inc(dev.addr + REFCNT)
}
export function dev_put(dev: net_device): void {
  refcount_dec(dev.addr + REFCNT)
}
export function netif_running(dev: net_device): boolean {
  return (READ_ONCE(dev.addr + STATE) & LINK_STATE_START) !== 0
}
export function netif_queue_stopped(dev: net_device): boolean {
  return (READ_ONCE(dev.addr + STATE) & LINK_STATE_XOFF) !== 0
}
/** netif_stop_queue - the ring is full. @context driver, under xmit_lock */
export function netif_stop_queue(dev: net_device): void {
  fetch_or(dev.addr + STATE, LINK_STATE_XOFF)
}
/** netif_start_queue - may transmit, and nobody waits for it. */
export function netif_start_queue(dev: net_device): void {
  fetch_and(dev.addr + STATE, ~LINK_STATE_XOFF)
}
/** netif_wake_queue_test - clears XOFF; true when it was set: the caller then schedules the device's qdisc. */
export function netif_wake_queue_test(dev: net_device): boolean {
  return (
    (READ_ONCE(dev.addr + STATE) & LINK_STATE_XOFF) !== 0 &&
    (fetch_and(dev.addr + STATE, ~LINK_STATE_XOFF) & LINK_STATE_XOFF) !== 0
  )
}
export function netif_carrier_ok(dev: net_device): boolean {
  return (READ_ONCE(dev.addr + STATE) & LINK_STATE_NOCARRIER) === 0
}

/** netif_wait_clear - returns when nobody holds that state bit any more. @context process */
export function* netif_wait_clear(dev: net_device, bit: number): Generator<void, void, void> {
  while ((load(dev.addr + STATE) & bit) !== 0) yield* msleep(1)
}

/** netif_poll_disable - returns when the device's poll does not run and will not until netif_poll_enable. @context process */
export function* netif_poll_disable(dev: net_device): Generator<void, void, void> {
  while ((fetch_or(dev.addr + STATE, LINK_STATE_RX_SCHED) & LINK_STATE_RX_SCHED) !== 0) yield* msleep(1)
}
export function netif_poll_enable(dev: net_device): void {
  fetch_and(dev.addr + STATE, ~LINK_STATE_RX_SCHED)
}

// ---- registration ---------------------------------------------------------------------------------------------------

/** alloc_netdev - a blank device with this name. @context process, boot @returns owned device, or null */
export function alloc_netdev(name: string): net_device | null {
  const dev = kmem_cache_alloc(netdev_cache)
  if (dev === null) return null
  i32.fill(0, dev.$w, dev.$w + (NETDEV.size >> 2))
  for (let k = 0; k < Math.min(15, name.length); k++) u8[dev.name + k] = name.charCodeAt(k)
  INIT_LIST_HEAD(dev.poll_list)
  spin_lock_init(dev.queue_lock)
  spin_lock_init(dev.xmit_lock)
  dev.xmit_lock_owner = -1
  dev.refcnt = 1
  return dev
}

/** free_netdev - @consumes dev, unregistered and with no reference left */
export function free_netdev(dev: net_device): void {
  BUG_ON(dev.reg_state === NETREG_REGISTERED || dev.reg_state === NETREG_UNREGISTERING, 'free of a registered device')
  BUG_ON(load(dev.addr + REFCNT) !== 1, 'free of a device in use')
  kmem_cache_free(netdev_cache, dev)
}

/** dev_name - as text. */
export function dev_name(dev: net_device): string {
  let name = ''
  for (let k = 0; k < 15 && u8[dev.name + k] !== 0; k++) name += String.fromCharCode(u8[dev.name + k])
  return name
}

/** full_name_hash, as a bucket. */
function name_bucket(name: string): number {
  let hash = 0
  for (let k = 0; k < name.length; k++) {
    const c = name.charCodeAt(k)
    hash = Math.imul(hash + (c << 4) + (c >> 4), 11)
  }
  return (tables.name_head >> 2) + (hash & (NETDEV_HASHENTRIES - 1))
}
function index_bucket(ifindex: number): number {
  return (tables.index_head >> 2) + (ifindex & (NETDEV_HASHENTRIES - 1))
}

/** Takes a device out of a chain. `head`: word index of its first link, `link`: offset of the others. */
function unchain(head: number, link: number, dev: net_device): void {
  let slot = head
  while (i32[slot] !== 0 && i32[slot] !== dev.addr) slot = (i32[slot] + link) >> 2
  if (i32[slot] !== 0) i32[slot] = i32[(dev.addr + link) >> 2]
}

/** register_netdevice - @context process, boot @locks rtnl is held @returns 0, -EEXIST */
export function register_netdevice(dev: net_device): number {
  const name = name_bucket(dev_name(dev))
  if (__dev_get_by_name(dev_name(dev)) !== null) return -EEXIST
  // What is summed up here must be in one piece, so scatter-gather without a checksum unit helps nobody.
  if ((dev.features & NETIF_F_ALL_CSUM) === 0) dev.features &= ~NETIF_F_SG
  if ((dev.features & NETIF_F_SG) === 0) dev.features &= ~NETIF_F_TSO
  tables.ifindex++
  dev.ifindex = tables.ifindex
  fetch_or(dev.addr + STATE, LINK_STATE_PRESENT)
  dev_init_scheduler(dev)
  const index = index_bucket(dev.ifindex)
  write_lock_bh(tables.dev_base_lock)
  let last = tables.base
  while (last !== null && last.next !== null) last = last.next
  if (last === null) tables.base = dev
  else last.next = dev
  dev.name_next = NETDEV.at(i32[name])
  i32[name] = dev.addr
  dev.index_next = NETDEV.at(i32[index])
  i32[index] = dev.addr
  dev_hold(dev)
  dev.reg_state = NETREG_REGISTERED
  write_unlock_bh(tables.dev_base_lock)
  notifier_call_chain(tables.netdev_chain, NETDEV_REGISTER, dev.addr)
  return 0
}

/**
 * unregister_netdevice - take it down and off the list; netdev_wait_allrefs is to follow when rtnl was given back.
 * @context process @locks rtnl is held @returns 0, -ENODEV
 */
export function* unregister_netdevice(dev: net_device): Generator<void, number, void> {
  if (dev.reg_state !== NETREG_REGISTERED) return -ENODEV
  if ((dev.flags & IFF_UP) !== 0) yield* dev_close(dev)
  write_lock_bh(tables.dev_base_lock)
  unchain((tables.addr + TABLES.offset('base')) >> 2, NETDEV.offset('next'), dev)
  unchain(name_bucket(dev_name(dev)), NETDEV.offset('name_next'), dev)
  unchain(index_bucket(dev.ifindex), NETDEV.offset('index_next'), dev)
  dev.reg_state = NETREG_UNREGISTERING
  write_unlock_bh(tables.dev_base_lock)
  yield* synchronize_kernel() // who found it on the list is done
  dev.next = null
  dev_shutdown(dev)
  notifier_call_chain(tables.netdev_chain, NETDEV_UNREGISTER, dev.addr)
  dev_put(dev)
  return 0
}

/**
 * netdev_wait_allrefs - returns when nobody but the caller refers to the device; who does is told again each second.
 * @context process, without rtnl
 */
export function* netdev_wait_allrefs(dev: net_device): Generator<void, void, void> {
  do {
    yield* wait_for_refs(dev)
    yield* synchronize_kernel() // who found it at a route just before that let it go, and may yet refer to it
  } while (load(dev.addr + REFCNT) !== 1)
  dev.reg_state = NETREG_UNREGISTERED
}
function* wait_for_refs(dev: net_device): Generator<void, void, void> {
  const second = hz()
  let told = jiffies()
  while (load(dev.addr + REFCNT) !== 1) {
    if (((jiffies() - told) | 0) > second) {
      yield* netdev_tell_unregister(dev)
      told = jiffies()
    }
    yield* msleep(250)
  }
}

/** netdev_tell_unregister - who refers to it is told once more: some references could not go yet the first time. @context process @locks rtnl */
export function* netdev_tell_unregister(dev: net_device): Generator<void, void, void> {
  yield* rtnl_lock()
  notifier_call_chain(tables.netdev_chain, NETDEV_UNREGISTER, dev.addr)
  yield* linkwatch_run_queue() // news of its carrier are a reference too
  rtnl_unlock()
}

/** unregister_netdev - unregister, and wait until free_netdev may follow. @context process @returns 0, -ENODEV */
export function* unregister_netdev(dev: net_device): Generator<void, number, void> {
  yield* rtnl_lock()
  const err = yield* unregister_netdevice(dev)
  rtnl_unlock()
  if (err === 0) yield* netdev_wait_allrefs(dev)
  return err
}

/** dev_open - bring a device up. @context process, boot @locks rtnl is held @returns 0, or what open() says */
export function dev_open(dev: net_device): number {
  if ((dev.flags & IFF_UP) !== 0) return 0
  if ((dev.state & LINK_STATE_PRESENT) === 0) return -ENODEV
  fetch_or(dev.addr + STATE, LINK_STATE_START)
  const ret = dev.open === 0 ? 0 : call(dev.open)(dev)
  if (ret !== 0) {
    fetch_and(dev.addr + STATE, ~LINK_STATE_START)
    return ret
  }
  dev.flags |= IFF_UP
  dev_activate(dev)
  notifier_call_chain(tables.netdev_chain, NETDEV_UP, dev.addr)
  return 0
}

/**
 * dev_close - bring a device down: nobody sends through it or polls it when its driver is told to stop.
 * @context process @locks rtnl is held
 */
export function* dev_close(dev: net_device): Generator<void, number, void> {
  if ((dev.flags & IFF_UP) === 0) return 0
  notifier_call_chain(tables.netdev_chain, NETDEV_GOING_DOWN, dev.addr)
  yield* dev_deactivate(dev)
  fetch_and(dev.addr + STATE, ~LINK_STATE_START)
  // A poll that is scheduled may be on another CPU's list: it ends by itself, since the device is not running.
  yield* netif_wait_clear(dev, LINK_STATE_RX_SCHED)
  if (dev.stop !== 0) yield* call(dev.stop)(dev)
  dev.flags &= ~IFF_UP
  notifier_call_chain(tables.netdev_chain, NETDEV_DOWN, dev.addr)
  return 0
}

/** dev_change_mtu - @locks rtnl is held @returns 0, -EBUSY for a size the device cannot take */
export function dev_change_mtu(dev: net_device, mtu: number): number {
  if (mtu < 68 || mtu > 65535) return -EBUSY
  dev.mtu = mtu
  notifier_call_chain(tables.netdev_chain, NETDEV_CHANGEMTU, dev.addr)
  return 0
}

/** netdev_state_change - tell everybody that something about the device is different. @locks rtnl is held */
export function netdev_state_change(dev: net_device): void {
  if ((dev.flags & IFF_UP) !== 0) notifier_call_chain(tables.netdev_chain, NETDEV_CHANGE, dev.addr)
}

/** netdev_notify - one event of a device to all who registered. @context process @locks rtnl is held @returns what the last one said */
export function netdev_notify(dev: net_device, event: number): number {
  return notifier_call_chain(tables.netdev_chain, event, dev.addr)
}

/** dev_rehash_name - the device is called so from here on. @locks rtnl is held; dev_base_lock */
export function dev_rehash_name(dev: net_device, name: string): void {
  write_lock_bh(tables.dev_base_lock)
  unchain(name_bucket(dev_name(dev)), NETDEV.offset('name_next'), dev)
  for (let k = 0; k < 16; k++) u8[dev.name + k] = k < name.length ? name.charCodeAt(k) : 0
  const head = name_bucket(name)
  dev.name_next = NETDEV.at(i32[head])
  i32[head] = dev.addr
  write_unlock_bh(tables.dev_base_lock)
}

/** dev_base_read_lock - the list of devices stays as it is, for who has no rtnl. @locks dev_base_lock */
export function dev_base_read_lock(): void {
  read_lock_bh(tables.dev_base_lock)
}
export function dev_base_read_unlock(): void {
  read_unlock_bh(tables.dev_base_lock)
}

export function __dev_get_by_name(name: string): net_device | null {
  let dev = NETDEV.at(i32[name_bucket(name)])
  while (dev !== null && dev_name(dev) !== name) dev = dev.name_next
  return dev
}

/** dev_get_by_name - @returns a device with one more reference, or null */
export function dev_get_by_name(name: string): net_device | null {
  read_lock_bh(tables.dev_base_lock)
  const dev = __dev_get_by_name(name)
  if (dev !== null) dev_hold(dev)
  read_unlock_bh(tables.dev_base_lock)
  return dev
}

/** dev_get_by_index - @returns a device with one more reference, or null */
export function dev_get_by_index(ifindex: number): net_device | null {
  read_lock_bh(tables.dev_base_lock)
  let dev = NETDEV.at(i32[index_bucket(ifindex)])
  while (dev !== null && dev.ifindex !== ifindex) dev = dev.index_next
  if (dev !== null) dev_hold(dev)
  read_unlock_bh(tables.dev_base_lock)
  return dev
}

/** first_netdev - head of the device list; next leads on. @locks rtnl or dev_base_lock is held, or the machine rests */
export function first_netdev(): net_device | null {
  return tables.base
}

/** netdev_init - @context boot, CPU 0 */
export function netdev_init(): void {
  rwlock_init(tables.dev_base_lock)
  init_MUTEX(tables.rtnl_sem)
  notifier_head_init(tables.netdev_chain)
}
