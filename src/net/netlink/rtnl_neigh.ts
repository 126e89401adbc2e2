/**
 * rtnl_neigh.ts - RTM_*NEIGH: neighbours as programs see and change them (neigh_add, neigh_delete, neigh_dump_info).
 * Dumps take tbl.lock for reading, then the lock of each entry.
 */
import { symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { jiffies } from '../../irq/timer.js'
import { EEXIST, EINVAL, ENOBUFS, ENODEV, ENOENT } from '../../lib/errno.js'
import { read_lock_bh, read_unlock_bh } from '../../sync/rwlock.js'
import { __neigh_lookup, arp_tbl, NUD_VALID, neigh_lookup, neigh_release } from '../core/neighbour.js'
import { dev_get_by_index, dev_put } from '../core/netdevice.js'
import { NEIGH_UPDATE_F_ADMIN, NEIGH_UPDATE_F_OVERRIDE, neigh_update } from '../core/nud.js'
import { pneigh_add, pneigh_delete } from '../core/pneigh.js'
import { AF_INET, AF_UNSPEC } from '../core/sock_types.js'
import { NEIGH, NETDEV, NUD_FAILED, type neighbour, type net_device, type sk_buff } from '../core/types.js'
import {
  nlmsg_data,
  nlmsg_end,
  nlmsg_flags,
  nlmsg_pid,
  nlmsg_put,
  nlmsg_room,
  nlmsg_seq,
  rta_addr,
  rta_data,
  rta_payload,
  rta_put,
  rta_put_addr,
  rta_put_mac,
} from './nlmsg.js'
import { RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH, RTMGRP_NEIGH, rtnl_notify, rtnl_register } from './rtnetlink.js'
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_MULTI, NLM_F_REPLACE, type netlink_callback, netlink_cb } from './types.js'

const dv = RAM.dv
const i32 = RAM.i32
const u8 = RAM.u8

export const NDA_DST = 1
export const NDA_LLADDR = 2
export const NDA_CACHEINFO = 3
/** Of ndm_flags: not a neighbour, but an address that this machine answers for. */
const NTF_PROXY = 0x08
const NEIGH_SPACE = 16 + 12 + 8 + 12 + 20
/** Buckets of arp_tbl. */
const BUCKETS = 1024

/** neigh_fill_info - @returns false: there is no room */
function neigh_fill_info(skb: sk_buff, n: neighbour, type: number, pid: number, seq: number, flags: number): boolean {
  if (!nlmsg_room(skb, NEIGH_SPACE)) return false
  const now = jiffies()
  const nlh = nlmsg_put(skb, pid, seq, type, 12, flags)
  const ndm = nlmsg_data(nlh)
  u8[ndm] = AF_INET
  dv.setInt32(ndm + 4, n.dev!.ifindex, true)
  rta_put_addr(skb, NDA_DST, n.primary_key)
  read_lock_bh(n.lock)
  dv.setUint16(ndm + 8, n.nud_state, true)
  if ((n.nud_state & NUD_VALID) !== 0 && n.ha !== 0)
    rta_put_mac(skb, NDA_LLADDR, i32[n.ha >> 2]!, i32[(n.ha >> 2) + 1]!)
  const ci = rta_put(skb, NDA_CACHEINFO, 16)
  const ages = [n.confirmed, n.used, n.updated]
  ages.forEach((when, k) => {
    dv.setInt32(ci + k * 4, (now - when) | 0, true)
  })
  dv.setInt32(ci + 12, n.refcnt - 1, true)
  read_unlock_bh(n.lock)
  nlmsg_end(skb, nlh)
  return true
}

/** neigh_dump_info - @locks tbl.lock */
function neigh_dump_info(skb: sk_buff, cb: netlink_callback): number {
  const at = cb.args >> 2 // bucket, and entries of it that were shown
  const { pid } = netlink_cb(cb.skb!)
  let b = i32[at]!
  let first = i32[at + 1]!
  let full = false
  read_lock_bh(arp_tbl.lock)
  for (; b < BUCKETS && !full; b++) {
    let k = 0
    for (let n = NEIGH.at(i32[(arp_tbl.buckets >> 2) + b]!); n !== null && !full; n = n.next, k++) {
      if (k < first) continue
      full = !neigh_fill_info(skb, n, RTM_NEWNEIGH, pid, nlmsg_seq(cb.nlh), NLM_F_MULTI)
      if (full) break
    }
    if (full) {
      first = k
      break
    }
    first = 0
  }
  read_unlock_bh(arp_tbl.lock)
  i32[at] = b
  i32[at + 1] = first
  return skb.len
}
const neigh_dump_info_sym = symbol('neigh_dump_info', neigh_dump_info)

/** neigh_notify - tell RTMGRP_NEIGH of an entry that is new, different or gone. @context any but hardirq, entry referenced */
export function neigh_notify(n: neighbour, type: number, pid = 0, seq = 0): void {
  rtnl_notify(RTMGRP_NEIGH, skb => neigh_fill_info(skb, n, type, pid, seq, 0))
}

/** The device that a message names. @returns address, referenced; 0: none; -ENODEV */
function ndm_device(ndm: number): number {
  const ifindex = dv.getInt32(ndm + 4, true)
  if (ifindex === 0) return 0
  return dev_get_by_index(ifindex)?.addr ?? -ENODEV
}

function with_device(
  nlh: number,
  rta: number[],
  f: (dst: number, dev: net_device) => number,
  proxy: typeof pneigh_add,
): number {
  const ndm = nlmsg_data(nlh)
  const at = ndm_device(ndm)
  if (at < 0) return at
  const dst = rta[NDA_DST - 1] ?? 0
  const dev = NETDEV.at(at)
  let err = -EINVAL
  if (dst !== 0 && rta_payload(dst) >= 4) {
    if ((u8[ndm + 10]! & NTF_PROXY) !== 0) err = proxy(rta_addr(dst), dev)
    else if (dev !== null) err = f(rta_addr(dst), dev)
  }
  if (dev !== null) dev_put(dev)
  return err
}

function add(dst: number, dev: net_device, nlh: number, rta: number[]): number {
  const flags = nlmsg_flags(nlh)
  const lladdr = rta[NDA_LLADDR - 1] ?? 0
  if (lladdr !== 0 && rta_payload(lladdr) !== 6) return -EINVAL
  const known = neigh_lookup(dst, dev)
  const refused = known !== null ? (flags & NLM_F_EXCL) !== 0 : (flags & NLM_F_CREATE) === 0
  if (refused) {
    if (known !== null) neigh_release(known)
    return known !== null ? -EEXIST : -ENOENT
  }
  const n = known ?? __neigh_lookup(dst, dev)
  if (n === null) return -ENOBUFS
  const override = known === null || (flags & NLM_F_REPLACE) !== 0 ? NEIGH_UPDATE_F_OVERRIDE : 0
  const at = rta_data(lladdr)
  const hi = lladdr === 0 ? null : dv.getInt32(at)
  const lo = lladdr === 0 ? 0 : dv.getInt16(at + 4)
  const err = neigh_update(n, hi, lo, dv.getUint16(nlmsg_data(nlh) + 8, true), override | NEIGH_UPDATE_F_ADMIN)
  if (err === 0) neigh_notify(n, RTM_NEWNEIGH, nlmsg_pid(nlh), nlmsg_seq(nlh))
  neigh_release(n)
  return err
}

/** neigh_add - @locks rtnl is held @returns 0, -ENODEV, -EINVAL, -EEXIST, -ENOENT, -ENOBUFS */
function neigh_add(_skb: sk_buff, nlh: number, rta: number[]): number {
  const proxy = (dst: number, dev: net_device | null): number => {
    const err = pneigh_add(dst, dev)
    return err === -EEXIST ? 0 : err
  }
  return with_device(nlh, rta, (dst, dev) => add(dst, dev, nlh, rta), proxy)
}
const neigh_add_sym = symbol('neigh_add', neigh_add)

/** neigh_delete - @locks rtnl is held @returns 0, -ENODEV, -EINVAL: also where there is none */
function neigh_delete(_skb: sk_buff, nlh: number, rta: number[]): number {
  const fail = (dst: number, dev: net_device): number => {
    const n = neigh_lookup(dst, dev)
    if (n === null) return -EINVAL
    const err = neigh_update(n, null, 0, NUD_FAILED, NEIGH_UPDATE_F_OVERRIDE | NEIGH_UPDATE_F_ADMIN)
    if (err === 0) neigh_notify(n, RTM_DELNEIGH, nlmsg_pid(nlh), nlmsg_seq(nlh))
    neigh_release(n)
    return err
  }
  return with_device(nlh, rta, fail, pneigh_delete)
}
const neigh_delete_sym = symbol('neigh_delete', neigh_delete)

/** rtnl_neigh_init - @context boot, CPU 0 */
export function rtnl_neigh_init(): void {
  rtnl_register(AF_UNSPEC, RTM_GETNEIGH, 0, neigh_dump_info_sym)
  rtnl_register(AF_UNSPEC, RTM_NEWNEIGH, neigh_add_sym, 0)
  rtnl_register(AF_UNSPEC, RTM_DELNEIGH, neigh_delete_sym, 0)
}
