/** ip_dgram_route.ts - where one message of a datagram or raw socket goes: its address, its ancillary data, the route. No locks of its own. */
import { RAM } from '../../arch/ram.js'
import { EACCES, EFAULT, EINVAL } from '../../lib/errno.js'
import { kfree } from '../../mm/kmalloc.js'
import { copy_from_user, KSTACK_WORDS, task_kstack } from '../../sched/mm.js'
import { current } from '../../sched/sched.js'
import { dst_hold } from '../core/dst.js'
import { neigh_confirm } from '../core/nud.js'
import { sk_dst_check, sk_dst_set, sock_flag } from '../core/sock.js'
import { OPT_SCRATCH } from '../core/sock_opt.js'
import { MSG_CONFIRM, MSG_DONTROUTE, MSG_PROBE, type msghdr, SOCK_BROADCAST, type sock } from '../core/sock_types.js'
import type { dst_entry } from '../core/types.js'
import { IPPROTO_UDP, ipv4_is_multicast } from '../wire/ipv4.js'
import { XFRM_POLICY_OUT } from '../xfrm/types.js'
import { xfrm_lookup, xfrm_policies } from '../xfrm/xfrm_policy.js'
import { inet_sk } from './inet_sock.js'
import { IP_OPTIONS, ip_options_get, MAX_IPOPTLEN } from './ip_options_sock.js'
import { ip_rt_put } from './route.js'
import { ip_route_output_key, RTO_ONLINK } from './route_output.js'
import { RTABLE, RTCF_BROADCAST, type rtable } from './types.js'

const i32 = RAM.i32
const dv = RAM.dv

const SOL_IP = 0
const IP_RETOPTS = 7
const IP_PKTINFO = 8
const CMSG_HDR = 12

/** What one message goes by (struct ipcm_cookie, and the locals of udp_sendmsg). Lives on the stack of a call. */
export interface Destination {
  daddr: number
  dport: number
  /** The socket's own, so that its cached route serves. */
  connected: boolean
  /** 0: as the route says. */
  saddr: number
  oif: number
  /** Address of IP options, 0: none. */
  opt: number
  /** They are this message's own. */
  opt_owned: boolean
}

export function destination_of(sk: sock): Destination {
  const inet = inet_sk(sk)
  const { saddr, opt } = inet
  return { daddr: 0, dport: 0, connected: false, saddr, oif: sk.sk_bound_dev_if, opt, opt_owned: false }
}

/** free_options - what the message brought along. */
export function free_options(to: Destination): void {
  if (to.opt_owned) kfree(to.opt)
  to.opt_owned = false
}

function cmsg_one(to: Destination, type: number, data: number, len: number): number {
  if (type === IP_RETOPTS) {
    const opt = ip_options_get(data, Math.min(len, MAX_IPOPTLEN))
    if (opt < 0) return opt
    free_options(to)
    to.opt = opt
    to.opt_owned = opt !== 0
    return 0
  }
  if (type !== IP_PKTINFO || len !== 12) return -EINVAL
  const at = task_kstack(current()).words + KSTACK_WORDS - OPT_SCRATCH
  if (copy_from_user(at, data, 12) !== 0) return -EFAULT
  to.oif = i32[at >> 2]
  to.saddr = dv.getInt32(at + 4)
  return 0
}

/** ip_cmsg_send - ancillary data of a message. @context process @returns 0, -EINVAL, -EFAULT, -ENOMEM; options may be owned then */
export function ip_cmsg_send(msg: msghdr, to: Destination): number {
  const at = task_kstack(current()).words + KSTACK_WORDS - OPT_SCRATCH
  const end = msg.msg_control + msg.msg_controllen
  for (let cm = msg.msg_control; cm + CMSG_HDR <= end; ) {
    if (copy_from_user(at, cm, CMSG_HDR) !== 0) return -EFAULT
    const len = i32[at >> 2]
    if (len < CMSG_HDR || cm + len > end) return -EINVAL
    const level = i32[(at >> 2) + 1]
    const err = level === SOL_IP ? cmsg_one(to, i32[(at >> 2) + 2], cm + CMSG_HDR, len - CMSG_HDR) : 0
    if (err !== 0) return err
    cm += (len + 3) & ~3
  }
  to.connected = false
  return 0
}

/** Flags of a route for this socket. */
export function conn_flags(sk: sock): number {
  return (inet_sk(sk).tos & 0x1c) | (sk.sk_localroute !== 0 ? RTO_ONLINK : 0)
}

/** ip_dgram_route - the socket's cached way, or a new one. @context process @returns address of a referenced route, -errno */
export function ip_dgram_route(sk: sock, to: Destination, flags: number): number {
  const opt = to.opt === 0 ? null : IP_OPTIONS.ref(to.opt)
  let tos = conn_flags(sk)
  if ((flags & MSG_DONTROUTE) !== 0 || (opt !== null && opt.is_strictroute !== 0)) tos |= RTO_ONLINK
  let { daddr } = to
  if (opt !== null && opt.srr !== 0) {
    if (daddr === 0) return -EINVAL
    daddr = opt.faddr
    to.connected = false
  }
  if (ipv4_is_multicast(daddr)) {
    const inet = inet_sk(sk)
    if (to.oif === 0) to.oif = inet.mc_index
    if (to.saddr === 0) to.saddr = inet.mc_addr
    to.connected = false
  }
  const cacheable = to.connected && (tos & RTO_ONLINK) === 0
  const cached = cacheable ? sk_dst_check(sk) : null
  if (cached !== null) return by_policy(sk, to, cached)
  const found = ip_route_output_key(daddr, to.saddr, tos, to.oif)
  if (found < 0) return found
  const rt = RTABLE.ref(found)
  if ((rt.rt_flags & RTCF_BROADCAST) !== 0 && !sock_flag(sk, SOCK_BROADCAST)) {
    ip_rt_put(rt)
    return -EACCES
  }
  if (cacheable) {
    dst_hold(rt.dst)
    sk_dst_set(sk, rt.dst)
  }
  return by_policy(sk, to, rt.dst)
}

/** dgram_confirm - MSG_CONFIRM: the program knows that the next hop is there. @returns true: it wants to say that only (MSG_PROBE) */
export function dgram_confirm(rt: rtable, flags: number, len: number): boolean {
  if ((flags & MSG_CONFIRM) === 0) return false
  neigh_confirm(rt.dst.neighbour)
  return (flags & MSG_PROBE) !== 0 && len === 0
}

/** The route, or the way that an IPsec policy has for this message. @consumes a reference of route @returns as ip_dgram_route */
function by_policy(sk: sock, to: Destination, route: dst_entry): number {
  if (!xfrm_policies(XFRM_POLICY_OUT)) return route.addr
  const { rt_src, rt_dst } = RTABLE.ref(route.addr)
  const inet = inet_sk(sk)
  const proto = inet.hdrincl !== 0 ? IPPROTO_RAW : sk.sk_protocol
  const [sport, dport] = proto === IPPROTO_UDP ? [inet.sport, to.dport] : [0, 0]
  return xfrm_lookup(route, {
    daddr: rt_dst,
    saddr: rt_src,
    proto,
    sport,
    dport,
    oif: to.oif,
    tos: conn_flags(sk) & 0x1c,
  })
}
const IPPROTO_RAW = 255
