/**
 * rtnetlink.ts - how programs see and change the network's configuration: the kernel's end of NETLINK_ROUTE, which finds the
 * function for each message (net/core/rtnetlink.c of 2.6.11). Messages change things under rtnl, one after the other, in the
 * context of their sender; 2.6.11 leaves them to who holds rtnl, and the sender does not wait for that.
 *
 * Lock charter
 *   Handlers are registered at boot and constant from then on. Requests are handled with rtnl held; dumps are not, and take the
 *   locks of what they show themselves.
 */
import { bytes, konst, type Layout, layout, ptr, Struct } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call, type Sym, symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { EAFNOSUPPORT, EINVAL, ENOBUFS, EPERM } from '../../lib/errno.js'
import { rtnl_lock, rtnl_unlock } from '../core/netdevice.js'
import { skb_dequeue } from '../core/skb_queue.js'
import { __skb_pull, alloc_skb, consume_skb } from '../core/skbuff.js'
import { AF_INET, AF_UNSPEC, NPROTO, SOCK, type sock } from '../core/sock_types.js'
import type { sk_buff } from '../core/types.js'
import { netlink_kernel_create, netlink_kernel_release } from './af_netlink.js'
import { netlink_ack, netlink_broadcast, netlink_dump_start, netlink_reply, netlink_set_err } from './nl_send.js'
import { netlink_has_listeners } from './nl_table.js'
import { NLMSG_GOODSIZE, nlmsg_data, nlmsg_flags, nlmsg_len, nlmsg_type, rta_parse } from './nlmsg.js'
import {
  NETLINK_ROUTE,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_REQUEST,
  NLMSG_HDRLEN,
  type netlink_callback,
  netlink_cb,
  type netlink_dump_fn,
  nlmsg_align,
} from './types.js'

const i32 = RAM.i32
const u8 = RAM.u8

export const RTM_BASE = 16
export const RTM_NEWLINK = 16
export const RTM_DELLINK = 17
export const RTM_GETLINK = 18
export const RTM_SETLINK = 19
export const RTM_NEWADDR = 20
export const RTM_DELADDR = 21
export const RTM_GETADDR = 22
export const RTM_NEWROUTE = 24
export const RTM_DELROUTE = 25
export const RTM_GETROUTE = 26
export const RTM_NEWNEIGH = 28
export const RTM_DELNEIGH = 29
export const RTM_GETNEIGH = 30
export const RTM_NEWRULE = 32
export const RTM_DELRULE = 33
export const RTM_GETRULE = 34
/** 2.6.11 knows queueing disciplines, filters and IPv6 above these; here nobody answers for them. */
const RTM_MAX = 63

// groups, by bit
export const RTMGRP_LINK = 1
export const RTMGRP_NOTIFY = 2
export const RTMGRP_NEIGH = 4
export const RTMGRP_IPV4_IFADDR = 0x10
export const RTMGRP_IPV4_MROUTE = 0x20
export const RTMGRP_IPV4_ROUTE = 0x40
export const RTMGRP_IPV4_RULE = 0x80

/** By kind (link, address, route, neighbour, rule): bytes of the message's own header, and the largest attribute. */
const rtm_min = [16, 8, 12, 12, 12, 20, 20, 4, 8, 12, 12, 12]
const rta_max = [15, 7, 13, 4, 13, 7, 7, 7, 7, 2, 7, 7]

/** Handles one message; `rta`: its attributes by type - 1, 0 where there is none. @returns 0, -errno */
export type rtnl_doit = (skb: sk_buff, nlh: number, rta: number[]) => number | Generator<void, number, void>

const TYPES = RTM_MAX + 1 - RTM_BASE

class rtnetlink_tables extends Struct {
  declare rtnl: sock | null
  declare doit: number
  declare dumpit: number
}
const TABLES: Layout<rtnetlink_tables> = layout('rtnetlink', rtnetlink_tables, {
  rtnl: konst(ptr(() => SOCK)), // the kernel's end
  doit: konst(bytes(2 * TYPES * 4)), // for any family, then for AF_INET
  dumpit: konst(bytes(2 * TYPES * 4)),
})
const rtnetlink = DEFINE_STATIC('rtnetlink', TABLES)

function slot(table: number, family: number, type: number): number {
  return (table >> 2) + (family === AF_INET ? TYPES : 0) + type - RTM_BASE
}

/** rtnl_register - who handles messages of this type, and who lists what they are about; 0: nobody. @context boot */
export function rtnl_register(
  family: number,
  type: number,
  doit: Sym<rtnl_doit> | 0,
  dumpit: Sym<netlink_dump_fn> | 0,
): void {
  i32[slot(rtnetlink.doit, family, type)] = doit
  i32[slot(rtnetlink.dumpit, family, type)] = dumpit
}

/** The family's own, or the one for any. */
function find(table: number, family: number, type: number): number {
  return i32[slot(table, family, type)] || i32[slot(table, AF_UNSPEC, type)]!
}

/** rtnetlink_dump_all - what the families have, one after the other: there is one. */
function rtnetlink_dump_all(skb: sk_buff, cb: netlink_callback): number {
  const dumpit = i32[slot(rtnetlink.dumpit, AF_INET, nlmsg_type(cb.nlh))] as Sym<netlink_dump_fn>
  return dumpit === 0 ? 0 : call(dumpit)(skb, cb)
}
export const rtnetlink_dump_all_sym = symbol('rtnetlink_dump_all', rtnetlink_dump_all)

const DUMPS = 1 // what rtnetlink_rcv_msg returns when a dump has begun

/** rtnetlink_rcv_msg - @context process @locks rtnl is held @returns 0, -errno, DUMPS */
function* rtnetlink_rcv_msg(sk: sock, skb: sk_buff, nlh: number): Generator<void, number, void> {
  const flags = nlmsg_flags(nlh)
  const type = nlmsg_type(nlh)
  const len = nlmsg_len(nlh)
  if ((flags & NLM_F_REQUEST) === 0 || type < RTM_BASE) return 0 // only requests are for us
  if (type > RTM_MAX) return -EINVAL
  if (len < NLMSG_HDRLEN + 1) return 0
  const family = u8[nlmsg_data(nlh)]!
  if (family >= NPROTO) return -EAFNOSUPPORT
  const kind = type & 3
  if (kind !== 2 && netlink_cb(skb).eff_cap === 0) return -EPERM
  if (kind === 2 && (flags & NLM_F_DUMP) !== 0) {
    const dumpit = find(rtnetlink.dumpit, family, type) as Sym<netlink_dump_fn>
    if (dumpit === 0) return -EINVAL
    return netlink_dump_start(sk, skb, nlh, dumpit) || DUMPS
  }
  const min = NLMSG_HDRLEN + rtm_min[(type - RTM_BASE) >> 2]!
  if (len < min) return -EINVAL
  const rta: number[] = []
  if (!rta_parse(rta, rta_max[(type - RTM_BASE) >> 2]!, nlh + nlmsg_align(min), len - nlmsg_align(min))) return -EINVAL
  const doit = find(rtnetlink.doit, family, type) as Sym<rtnl_doit>
  if (doit === 0) return -EINVAL
  const ret = call(doit)(skb, nlh, rta)
  return typeof ret === 'number' ? ret : yield* ret
}

/** Each message of a packet. @locks rtnl is held */
function* rtnetlink_rcv_skb(sk: sock, skb: sk_buff): Generator<void, void, void> {
  while (skb.len >= NLMSG_HDRLEN) {
    const nlh = skb.data
    const len = nlmsg_len(nlh)
    if (len < NLMSG_HDRLEN || skb.len < len) return
    const err = yield* rtnetlink_rcv_msg(sk, skb, nlh)
    if (err < 0 || (err === 0 && (nlmsg_flags(nlh) & NLM_F_ACK) !== 0)) netlink_ack(sk, skb, nlh, err)
    __skb_pull(skb, Math.min(nlmsg_align(len), skb.len))
  }
}

/** rtnetlink_rcv - what has come, from whomever. @context process @locks takes rtnl */
function* rtnetlink_rcv(sk: sock): Generator<void, void, void> {
  yield* rtnl_lock()
  for (let skb = skb_dequeue(sk.sk_receive_queue); skb !== null; skb = skb_dequeue(sk.sk_receive_queue)) {
    yield* rtnetlink_rcv_skb(sk, skb)
    consume_skb(skb)
  }
  rtnl_unlock()
}
const rtnetlink_rcv_sym = symbol('rtnetlink_rcv', rtnetlink_rcv)

/** rtnl_unicast - an answer to the program with this address. @consumes skb @returns 0, -errno */
export function rtnl_unicast(skb: sk_buff, pid: number): number {
  return Math.min(0, netlink_reply(rtnetlink.rtnl!, skb, pid))
}

/**
 * rtnl_notify - tell everybody who listens to a group what has changed, and him who asked for it by NLM_F_ECHO.
 * `fill` writes the message; false: it did not fit. @context any but hardirq
 */
export function rtnl_notify(group: number, fill: (skb: sk_buff) => boolean, pid = 0, echo = false): void {
  const { rtnl } = rtnetlink
  if (rtnl === null || (!netlink_has_listeners() && !echo)) return
  const skb = alloc_skb(NLMSG_GOODSIZE)
  if (skb === null || !fill(skb)) {
    if (skb !== null) consume_skb(skb)
    netlink_set_err(rtnl, 0, group, skb === null ? ENOBUFS : EINVAL)
    return
  }
  netlink_cb(skb).dst_groups = group
  if (!echo || pid === 0) {
    netlink_broadcast(rtnl, skb, pid, group)
    return
  }
  const copy = alloc_skb(NLMSG_GOODSIZE)
  if (copy !== null && fill(copy)) netlink_reply(rtnl, copy, pid)
  else if (copy !== null) consume_skb(copy)
  netlink_broadcast(rtnl, skb, pid, group)
}

/** rtnetlink_init - @context boot, CPU 0 */
export function rtnetlink_init(): void {
  i32.fill(0, rtnetlink.doit >> 2, (rtnetlink.doit >> 2) + 4 * TYPES)
  rtnetlink.rtnl = netlink_kernel_create(NETLINK_ROUTE, rtnetlink_rcv_sym)
  for (const type of [RTM_GETADDR, RTM_GETROUTE, RTM_GETRULE]) rtnl_register(AF_UNSPEC, type, 0, rtnetlink_dump_all_sym)
}

/** rtnetlink_exit - for the leak audit. @context a halted machine */
export function rtnetlink_exit(): void {
  const { rtnl } = rtnetlink
  rtnetlink.rtnl = null
  if (rtnl !== null) netlink_kernel_release(rtnl)
}
