/**
 * dev_mcast.ts - the groups, by station address, that a device is to receive (net/core/dev_mcast.c of 2.6.11): those of programs, by
 * SIOCADDMULTI and packet sockets. The NICs of this machine receive the frames of all groups anyway.
 *
 * Lock charter
 *   rtnl guards the lists. 2.6.11 has xmit_lock for that, since IGMP adds to them under locks of its own; here it does not.
 */
import { by, bytes, konst, type Layout, layout, ptr, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { NOTIFIER, NOTIFY_DONE, type notifier_block } from '../../irq/notifier.js'
import { ENOENT, ENOMEM } from '../../lib/errno.js'
import { MAX_MC_GROUPS } from '../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import { dev_mc_upload } from './dev_change.js'
import { NETDEV_UNREGISTER, register_netdevice_notifier } from './netdevice.js'
import { NETDEV, type net_device } from './types.js'

const i32 = RAM.i32
const u8 = RAM.u8
const MC_LIST = NETDEV.offset('mc_list')

export class dev_mc_list extends Struct {
  declare next: dev_mc_list | null
  declare addr8: number
  declare alen: number
  declare users: number
  declare gusers: number
}
const DEV_MC_LIST: Layout<dev_mc_list> = layout('dev_mc_list', dev_mc_list, {
  next: by(
    'rtnl',
    ptr(() => DEV_MC_LIST),
  ),
  addr8: konst(bytes(8)), // of which alen bytes count
  alen: konst(word),
  users: by('rtnl', word),
  gusers: by('rtnl', word), // 1: one of them is who asked for it by ioctl
})
const mc_cache = kmem_cache_create('dev_mc_list', DEV_MC_LIST, () => MAX_MC_GROUPS)

/** dev_mc_first - the first group of a device; next leads on. @locks rtnl is held */
export function dev_mc_first(dev: net_device): dev_mc_list | null {
  return DEV_MC_LIST.at(dev.mc_list)
}

/** Where the list names a group, or its end. `at`: the address's place. */
function slot_of(dev: net_device, at: number, alen: number): number {
  const same = (mc: dev_mc_list): boolean => {
    let k = 0
    while (k < alen && u8[mc.addr8 + k] === u8[at + k]) k++
    return mc.alen === alen && k === alen
  }
  let slot = dev.addr + MC_LIST
  while (i32[slot >> 2] !== 0 && !same(DEV_MC_LIST.ref(i32[slot >> 2]!))) slot = i32[slot >> 2]!
  return slot
}

/** dev_mc_add - one more who wants a group; `glbl`: by ioctl, who counts once. @context process @locks rtnl is held @returns 0, -ENOMEM */
export function dev_mc_add(dev: net_device, at: number, alen: number, glbl: boolean): number {
  const slot = slot_of(dev, at, alen)
  const known = DEV_MC_LIST.at(i32[slot >> 2]!)
  if (known !== null) {
    if (glbl && known.gusers !== 0) return 0
    if (glbl) known.gusers = 1
    known.users++
    return 0
  }
  const mc = kmem_cache_alloc(mc_cache)
  if (mc === null) return -ENOMEM
  for (let k = 0; k < 8; k++) u8[mc.addr8 + k] = k < alen ? u8[at + k]! : 0
  mc.alen = alen
  mc.users = 1
  mc.gusers = glbl ? 1 : 0
  mc.next = dev_mc_first(dev)
  dev.mc_list = mc.addr
  dev_mc_upload(dev)
  return 0
}

/** dev_mc_delete - one less. @context process @locks rtnl is held @returns 0, -ENOENT */
export function dev_mc_delete(dev: net_device, at: number, alen: number, glbl: boolean): number {
  const slot = slot_of(dev, at, alen)
  const mc = DEV_MC_LIST.at(i32[slot >> 2]!)
  if (mc === null || (glbl && mc.gusers === 0)) return -ENOENT
  if (glbl) mc.gusers = 0
  if (--mc.users > 0) return 0
  i32[slot >> 2] = mc.next === null ? 0 : mc.next.addr
  kmem_cache_free(mc_cache, mc)
  dev_mc_upload(dev)
  return 0
}

/** dev_mc_discard - the device goes. @context process, or a machine at rest @locks rtnl is held */
export function dev_mc_discard(dev: net_device): void {
  for (let mc = dev_mc_first(dev); mc !== null; mc = dev_mc_first(dev)) {
    dev.mc_list = mc.next === null ? 0 : mc.next.addr
    kmem_cache_free(mc_cache, mc)
  }
}

function dev_mc_event(_nb: notifier_block, event: number, data: number): number {
  if (event === NETDEV_UNREGISTER) dev_mc_discard(NETDEV.ref(data))
  return NOTIFY_DONE
}
const dev_mc_event_sym = symbol('dev_mc_event', dev_mc_event)
const dev_mc_notifier = DEFINE_STATIC('dev_mc_notifier', NOTIFIER)

/** dev_mcast_init - @context boot, CPU 0 */
export function dev_mcast_init(): void {
  dev_mc_notifier.call = dev_mc_event_sym
  register_netdevice_notifier(dev_mc_notifier)
}
