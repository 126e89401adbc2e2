/**
 * packet_mc.ts - memberships of packet sockets: who wants a device to receive more than its own frames.
 *
 * Lock charter
 *   All under rtnl. A membership is counted; when its last one goes, and when its device does, the device is told.
 */
import { RAM } from '../../arch/ram.js'
import { EADDRNOTAVAIL, EINVAL, ENODEV, ENOMEM } from '../../lib/errno.js'
import { MAX_SOCKS } from '../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import { dev_set_allmulti, dev_set_promiscuity } from '../core/dev_change.js'
import { dev_mc_add, dev_mc_delete } from '../core/dev_mcast.js'
import { dev_get_by_index, dev_put, rtnl_lock, rtnl_unlock } from '../core/netdevice.js'
import type { Call } from '../core/socket.js'
import type { net_device } from '../core/types.js'
import {
  PACKET_MCLIST,
  PACKET_MR_ALLMULTI,
  PACKET_MR_MULTICAST,
  PACKET_MR_PROMISC,
  type packet_mclist,
  type packet_sock,
} from './types.js'

const i32 = RAM.i32
const u8 = RAM.u8
const dv = RAM.dv
const ETH_ALEN = 6
const GROUP = PACKET_MCLIST.offset('addr_hi')

const mclist_cache = kmem_cache_create('packet_mclist', PACKET_MCLIST, () => MAX_SOCKS)

function packet_dev_mc(dev: net_device, ml: packet_mclist, what: number): void {
  if (ml.type === PACKET_MR_PROMISC) dev_set_promiscuity(dev, what)
  else if (ml.type === PACKET_MR_ALLMULTI) dev_set_allmulti(dev, what)
  else if (ml.type === PACKET_MR_MULTICAST)
    (what > 0 ? dev_mc_add : dev_mc_delete)(dev, ml.addr + GROUP, ml.alen, false)
}

// the program's packet_mreq, copied to kernel address `mreq`
const mr_ifindex = (mreq: number): number => i32[mreq >> 2]
const mr_type = (mreq: number): number => dv.getUint16(mreq + 4, true)
const mr_alen = (mreq: number): number => dv.getUint16(mreq + 6, true)

function same(ml: packet_mclist, mreq: number): boolean {
  if (ml.ifindex !== mr_ifindex(mreq) || ml.type !== mr_type(mreq) || ml.alen !== mr_alen(mreq)) return false
  const at = ml.addr + GROUP
  for (let k = 0; k < ml.alen; k++) if (u8[at + k] !== u8[mreq + 8 + k]) return false
  return true
}
function find(po: packet_sock, mreq: number): packet_mclist | null {
  let ml = po.mclist
  while (ml !== null && !same(ml, mreq)) ml = ml.next
  return ml
}

/** @locks rtnl is held @returns 0, -EINVAL, -ENOMEM */
function add_locked(po: packet_sock, mreq: number, dev: net_device): number {
  if (mr_alen(mreq) > ETH_ALEN) return -EINVAL
  const known = find(po, mreq)
  if (known !== null) {
    known.count++
    return 0
  }
  const ml = kmem_cache_alloc(mclist_cache)
  if (ml === null) return -ENOMEM
  ml.ifindex = mr_ifindex(mreq)
  ml.type = mr_type(mreq)
  ml.alen = mr_alen(mreq)
  ml.addr_hi = i32[(mreq >> 2) + 2]
  ml.addr_lo = i32[(mreq >> 2) + 3]
  ml.count = 1
  ml.next = po.mclist
  po.mclist = ml
  packet_dev_mc(dev, ml, 1)
  return 0
}

/** packet_mc_add - `mreq`: kernel address. @context process @locks takes rtnl @returns 0, -ENODEV, -EINVAL, -ENOMEM */
export function* packet_mc_add(po: packet_sock, mreq: number): Call {
  yield* rtnl_lock()
  const dev = dev_get_by_index(mr_ifindex(mreq))
  const err = dev === null ? -ENODEV : add_locked(po, mreq, dev)
  if (dev !== null) dev_put(dev)
  rtnl_unlock()
  return err
}

/** Off the list; its device, if it is still there, is told. @locks rtnl is held */
function forget(po: packet_sock, gone: packet_mclist): void {
  if (po.mclist === gone) po.mclist = gone.next
  for (let ml = po.mclist; ml !== null; ml = ml.next) if (ml.next === gone) ml.next = gone.next
  const dev = dev_get_by_index(gone.ifindex)
  if (dev !== null) {
    packet_dev_mc(dev, gone, -1)
    dev_put(dev)
  }
  kmem_cache_free(mclist_cache, gone)
}

/** packet_mc_drop - @context process @locks takes rtnl @returns 0, -EADDRNOTAVAIL */
export function* packet_mc_drop(po: packet_sock, mreq: number): Call {
  yield* rtnl_lock()
  const ml = find(po, mreq)
  if (ml !== null && --ml.count === 0) forget(po, ml)
  rtnl_unlock()
  return ml === null ? -EADDRNOTAVAIL : 0
}

/** packet_flush_mclist - the socket is closed. @context process @locks takes rtnl, if there is something to do */
export function* packet_flush_mclist(po: packet_sock): Generator<void, void, void> {
  if (po.mclist === null) return
  yield* rtnl_lock()
  while (po.mclist !== null) forget(po, po.mclist)
  rtnl_unlock()
}

/** packet_dev_mclist - the device goes: nobody wants anything of it any more. @locks rtnl is held */
export function packet_dev_mclist(po: packet_sock, dev: net_device): void {
  for (let ml = po.mclist; ml !== null; ml = ml.next) if (ml.ifindex === dev.ifindex) packet_dev_mc(dev, ml, -1)
}
