/**
 * ip_mc.ts - the multicast groups that an interface is in: who asked for them, and whether a packet is for one (the lists of
 * net/ipv4/igmp.c of 2.6.11). What routers are told of it is in igmp.ts.
 *
 * Lock charter
 *   igmp.lock guards the lists of all interfaces and the state of their entries; softirqs take it. Under it: a timer's base.
 *   A list is changed under rtnl as well, so whoever has that may walk it. An entry that is off its list has no timer any more when
 *   it is freed: del_timer_sync waits for one that runs, and is called without the lock.
 */
import { by, embed, konst, type Layout, layout, ptr, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { TIMER, type timer_list } from '../../irq/timer.js'
import { MAX_MC_GROUPS } from '../../lib/limits.js'
import { kmem_cache_create } from '../../mm/slab.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { SPINLOCK, spin_lock_init, type spinlock_t } from '../../sync/spinlock.js'
import { IN_DEVICE, type in_device } from './devinet.js'

export class ip_mc_list extends Struct {
  declare next: ip_mc_list | null
  declare interface: in_device | null
  declare multiaddr: number
  declare users: number
  declare timer: timer_list
  declare unsolicit_count: number
  declare reporter: number
}
export const IP_MC_LIST: Layout<ip_mc_list> = layout('ip_mc_list', ip_mc_list, {
  next: by(
    'igmp.lock',
    ptr(() => IP_MC_LIST),
  ),
  interface: konst(ptr(() => IN_DEVICE)),
  multiaddr: konst(word),
  users: by('rtnl', word),
  timer: embed(TIMER), // when the next report is due
  unsolicit_count: by('igmp.lock', word), // reports that nobody asked for, still to be sent
  reporter: by('igmp.lock', word), // the last report of this group on this link was ours
})
export const mc_list_cache = kmem_cache_create('ip_mc_list', IP_MC_LIST, () => MAX_MC_GROUPS)

class igmp_state extends Struct {
  declare lock: spinlock_t
  declare rand: number
}
const STATE: Layout<igmp_state> = layout('igmp', igmp_state, { lock: embed(SPINLOCK), rand: by('lock', word) })
export const igmp = DEFINE_STATIC('igmp', STATE)

/** first_group - of an interface, or null. @locks igmp.lock or rtnl is held */
export function first_group(in_dev: in_device): ip_mc_list | null {
  return IP_MC_LIST.at(in_dev.mc_list)
}
/** find_group - @locks igmp.lock or rtnl is held */
export function find_group(in_dev: in_device, addr: number): ip_mc_list | null {
  let im = first_group(in_dev)
  while (im !== null && im.multiaddr !== addr) im = im.next
  return im
}

/** ip_check_mc - is somebody here in this group? Reports of neighbours are heard in any case. @context any @locks igmp.lock */
export function ip_check_mc(in_dev: in_device, addr: number, protocol: number): boolean {
  if (protocol === IPPROTO_IGMP) return true
  spin_lock_bh(igmp.lock)
  const found = find_group(in_dev, addr) !== null
  spin_unlock_bh(igmp.lock)
  return found
}
export const IPPROTO_IGMP = 2

/** link_group - @locks rtnl is held */
export function link_group(in_dev: in_device, im: ip_mc_list): void {
  spin_lock_bh(igmp.lock)
  im.next = first_group(in_dev)
  in_dev.mc_list = im.addr
  spin_unlock_bh(igmp.lock)
}
/** unlink_group - @locks rtnl is held */
export function unlink_group(in_dev: in_device, im: ip_mc_list): void {
  const next = im.next === null ? 0 : im.next.addr
  spin_lock_bh(igmp.lock)
  let before = first_group(in_dev)
  if (before === im) in_dev.mc_list = next
  else {
    while (before!.next !== im) before = before!.next
    before!.next = im.next
  }
  spin_unlock_bh(igmp.lock)
}

/** ip_mc_init - @context boot, CPU 0 */
export function ip_mc_init(seed: number): void {
  spin_lock_init(igmp.lock)
  igmp.rand = seed
}
