/**
 * icmp.ts - the Internet Control Message Protocol of a router (RFC 792, 1122, 1812).
 *
 * Lock charter
 *   Each CPU has one lock in the place of its ICMP socket, taken by trylock with bottom halves off for as long as a
 *   message is built and sent: a message about a message ends there. The rate limit lies in the destination and is not
 *   locked, as in 2.6.11: a lost token is no harm.
 */

import { atomic, embed, type Layout, layout, own, Struct, word } from '../../abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { cost } from '../../arch/cost.js'
import { now_ns, tick } from '../../arch/cpu.js'
import { hz } from '../../arch/machine.js'
import { RAM } from '../../arch/ram.js'
import { jiffies } from '../../irq/timer.js'
import { csum_fold, csum_partial } from '../../lib/checksum.js'
import { local_bh_disable, local_bh_enable, spin_trylock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { SPINLOCK, spin_lock_init, type spinlock_t } from '../../sync/spinlock.js'
import { drop_reason } from '../core/fate.js'
import {
  alloc_skb,
  kfree_skb,
  skb_copy_bits,
  skb_cow,
  skb_delivered,
  skb_linearize,
  skb_put,
  skb_reserve,
} from '../core/skbuff.js'
import { sysctl_word } from '../core/sysctl.js'
import { ACCT_ICMP, type dst_entry, IFF_LOOPBACK, PACKET_HOST, type sk_buff } from '../core/types.js'
import { ETH_P_IP } from '../wire/eth.js'
import {
  ICMP_ADDRESS,
  ICMP_ADDRESSREPLY,
  ICMP_DEST_UNREACH,
  ICMP_ECHO,
  ICMP_ECHOREPLY,
  ICMP_FRAG_NEEDED,
  ICMP_HLEN,
  ICMP_PARAMETERPROB,
  ICMP_REDIRECT,
  ICMP_SOURCE_QUENCH,
  ICMP_TIME_EXCEEDED,
  ICMP_TIMESTAMP,
  ICMP_TIMESTAMPREPLY,
  icmp_code,
  icmp_info,
  icmp_type,
  NR_ICMP_TYPES,
  set_icmp_checksum,
  set_icmp_header,
} from '../wire/icmp.js'
import {
  IP_OFFSET,
  IPPROTO_ICMP,
  ip_daddr,
  ip_frag_off,
  ip_hdrlen,
  ip_protocol,
  ip_saddr,
  ip_tos,
  set_ip_daddr,
  set_ip_frag_off,
  set_ip_id,
  set_ip_protocol,
  set_ip_saddr,
  set_ip_tos,
  set_ip_ttl,
  set_ip_vhl,
} from '../wire/ipv4.js'
import { XFRM_POLICY_OUT } from '../xfrm/types.js'
import { xfrm_lookup, xfrm_policies } from '../xfrm/xfrm_policy.js'
import { inet_addr_type } from './fib_frontend.js'
import { RTN_LOCAL, RTN_UNICAST } from './fib_types.js'
import { icmp_unreach } from './icmp_err.js'
import { ip_select_ident } from './ip_ident.js'
import { inet_add_protocol } from './ip_input.js'
import { IP_OPTIONS, ip_options_build, ip_options_echo } from './ip_options_sock.js'
import { ip_local_out } from './ip_output.js'
import { ip_rt_put } from './route.js'
import { ip_route_output } from './route_output.js'
import { icmp_redirect } from './route_redirect.js'
import { RTABLE, RTCF_BROADCAST, RTCF_LOCAL, RTCF_MULTICAST, type rtable } from './types.js'

const COST_ICMP = cost('icmp_send')

const dv = RAM.dv

const MALFORMED = drop_reason('icmp_malformed')
const IGNORED = drop_reason('icmp_ignored')
const NO_MEMORY = drop_reason('no_memory')

class icmp_switches extends Struct {
  declare echo_ignore_all: number
  declare echo_ignore_broadcasts: number
  declare ratelimit: number
  declare ratemask: number
}
const SWITCHES: Layout<icmp_switches> = layout('icmp_switches', icmp_switches, {
  echo_ignore_all: atomic(word),
  echo_ignore_broadcasts: atomic(word),
  ratelimit: atomic(word), // jiffies for each message to one host; 0: no limit
  ratemask: atomic(word), // types that it holds for: 3, 4, 11 and 12; answers may be among them
})
const sysctl_icmp = DEFINE_STATIC('icmp_switches', SWITCHES)
for (const [name, field, max] of [
  ['icmp_echo_ignore_all', 'echo_ignore_all', 1],
  ['icmp_echo_ignore_broadcasts', 'echo_ignore_broadcasts', 1],
  ['icmp_ratelimit', 'ratelimit', 0x7fffffff],
  ['icmp_ratemask', 'ratemask', 0x7fffffff],
] as const)
  sysctl_word(`net.ipv4.${name}`, () => sysctl_icmp, field, 0, max)

const XRLIM_BURST_FACTOR = 6
const IPTOS_TOS_MASK = 0x1e
const IPTOS_PREC_INTERNETCONTROL = 0xc0
/** Link header in front of what we build. */
const LL_SPACE = 16

class icmp_mib extends Struct {
  declare InMsgs: number
  declare InErrors: number
  declare InDestUnreachs: number
  declare InTimeExcds: number
  declare InParmProbs: number
  declare InSrcQuenchs: number
  declare InRedirects: number
  declare InEchos: number
  declare InEchoReps: number
  declare InTimestamps: number
  declare InTimestampReps: number
  declare InAddrMasks: number
  declare InAddrMaskReps: number
  declare OutMsgs: number
  declare OutErrors: number
  declare OutDestUnreachs: number
  declare OutTimeExcds: number
  declare OutParmProbs: number
  declare OutSrcQuenchs: number
  declare OutRedirects: number
  declare OutEchoReps: number
  declare OutTimestampReps: number
  declare OutRateLimited: number
  declare lock: spinlock_t
}
const MIB: Layout<icmp_mib> = layout('icmp_mib', icmp_mib, {
  InMsgs: own(word),
  InErrors: own(word),
  InDestUnreachs: own(word),
  InTimeExcds: own(word),
  InParmProbs: own(word),
  InSrcQuenchs: own(word),
  InRedirects: own(word),
  InEchos: own(word),
  InEchoReps: own(word),
  InTimestamps: own(word),
  InTimestampReps: own(word),
  InAddrMasks: own(word),
  InAddrMaskReps: own(word),
  OutMsgs: own(word),
  OutErrors: own(word),
  OutDestUnreachs: own(word),
  OutTimeExcds: own(word),
  OutParmProbs: own(word),
  OutSrcQuenchs: own(word),
  OutRedirects: own(word),
  OutEchoReps: own(word),
  OutTimestampReps: own(word),
  OutRateLimited: own(word), // not in the MIB: errors that the rate limit kept back
  lock: embed(SPINLOCK),
})
export const icmp_statistics = DEFINE_PER_CPU('icmp_statistics', MIB)
const stats = icmp_statistics.mine
/** Options of the answer that this CPU is about to send; `lock` of its counters guards them. */
const replyopts = DEFINE_PER_CPU('icmp_replyopts', IP_OPTIONS).mine

function count_in(type: number): void {
  if (type === ICMP_DEST_UNREACH) stats.InDestUnreachs++
  else if (type === ICMP_TIME_EXCEEDED) stats.InTimeExcds++
  else if (type === ICMP_PARAMETERPROB) stats.InParmProbs++
  else if (type === ICMP_SOURCE_QUENCH) stats.InSrcQuenchs++
  else if (type === ICMP_REDIRECT) stats.InRedirects++
  else if (type === ICMP_ECHO) stats.InEchos++
  else if (type === ICMP_ECHOREPLY) stats.InEchoReps++
  else if (type === ICMP_TIMESTAMP) stats.InTimestamps++
  else if (type === ICMP_TIMESTAMPREPLY) stats.InTimestampReps++
  else if (type === ICMP_ADDRESS) stats.InAddrMasks++
  else if (type === ICMP_ADDRESSREPLY) stats.InAddrMaskReps++
}
function count_out(type: number): void {
  stats.OutMsgs++
  if (type === ICMP_DEST_UNREACH) stats.OutDestUnreachs++
  else if (type === ICMP_TIME_EXCEEDED) stats.OutTimeExcds++
  else if (type === ICMP_PARAMETERPROB) stats.OutParmProbs++
  else if (type === ICMP_SOURCE_QUENCH) stats.OutSrcQuenchs++
  else if (type === ICMP_REDIRECT) stats.OutRedirects++
  else if (type === ICMP_ECHOREPLY) stats.OutEchoReps++
  else if (type === ICMP_TIMESTAMPREPLY) stats.OutTimestampReps++
}

/** An error message: never to be answered with another. */
function is_error(type: number): boolean {
  return (
    type === ICMP_DEST_UNREACH ||
    type === ICMP_SOURCE_QUENCH ||
    type === ICMP_REDIRECT ||
    type === ICMP_TIME_EXCEEDED ||
    type === ICMP_PARAMETERPROB
  )
}

/** An error that a protocol of ours may want to hear of. */
function about_a_packet(type: number): boolean {
  return is_error(type) && type !== ICMP_REDIRECT
}

/** xrlim_allow - one token a `timeout`, a burst of six. */
function xrlim_allow(dst: dst_entry, timeout: number): boolean {
  const now = jiffies()
  const burst = XRLIM_BURST_FACTOR * timeout
  let tokens = dst.rate_last === 0 ? burst : dst.rate_tokens + ((now - dst.rate_last) | 0)
  dst.rate_last = now === 0 ? 1 : now
  if (tokens > burst || tokens < 0) tokens = burst
  const ok = tokens >= timeout
  dst.rate_tokens = ok ? tokens - timeout : tokens
  return ok
}

function icmpv4_xrlim_allow(rt: rtable, type: number, code: number): boolean {
  if (type === ICMP_DEST_UNREACH && code === ICMP_FRAG_NEEDED) return true // path MTU discovery needs every one
  if ((rt.dst.dev!.flags & IFF_LOOPBACK) !== 0) return true
  return ((1 << type) & sysctl_icmp.ratemask) === 0 || xrlim_allow(rt.dst, sysctl_icmp.ratelimit)
}

/** May an error be sent about this packet? RFC 1122 3.2.2, RFC 1812 4.3.2.7. */
function may_complain(skb: sk_buff, type: number): boolean {
  const iph = skb.nh
  const dst = skb.dst
  if (dst === null || iph < skb.head || iph + 20 > skb.tail) return false
  const rt = RTABLE.ref(dst.addr)
  if (skb.pkt_type !== PACKET_HOST || (rt.rt_flags & (RTCF_BROADCAST | RTCF_MULTICAST)) !== 0) return false
  if ((ip_frag_off(iph) & IP_OFFSET) !== 0) return false
  if (is_error(type) && ip_protocol(iph) === IPPROTO_ICMP) {
    const inner = iph + ip_hdrlen(iph)
    if (inner + 1 > skb.tail) return false
    const about = icmp_type(inner)
    if (about > NR_ICMP_TYPES || is_error(about)) return false
  }
  const type_of_sender = inet_addr_type(ip_saddr(iph))
  return type_of_sender === RTN_UNICAST || type_of_sender === RTN_LOCAL
}

/** icmp_send - tell the sender of `skb_in`, which stays the caller's. @context softirq, process @locks this CPU's ICMP lock */
export function icmp_send(skb_in: sk_buff, type: number, code: number, info: number): void {
  tick(COST_ICMP)
  local_bh_disable() // a process may have sent the packet
  if (may_complain(skb_in, type)) __icmp_send(skb_in, type, code, info)
  local_bh_enable()
}

function __icmp_send(skb_in: sk_buff, type: number, code: number, info: number): void {
  if (!spin_trylock_bh(stats.lock)) return
  const iph = skb_in.nh
  const local = (RTABLE.ref(skb_in.dst!.addr).rt_flags & RTCF_LOCAL) !== 0
  const saddr = local ? ip_daddr(iph) : 0
  const tos = is_error(type) ? (ip_tos(iph) & IPTOS_TOS_MASK) | IPTOS_PREC_INTERNETCONTROL : ip_tos(iph)
  const good = ip_options_echo(replyopts, skb_in)
  const rt = good ? secure_route(reply_to(iph), saddr, tos & IPTOS_TOS_MASK, type, code) : null
  if (rt === null) stats.OutErrors++
  else if (!icmpv4_xrlim_allow(rt, type, code)) {
    stats.OutRateLimited++
    ip_rt_put(rt)
  } else {
    const offset = iph - skb_in.data // the packet from its IP header on, as much as fits 576 bytes
    const have = skb_in.len - offset
    const len = Math.min(have, Math.min(rt.dst.mtu, 576) - 20 - replyopts.optlen - ICMP_HLEN)
    push_reply(rt, saddr !== 0 ? saddr : rt.rt_src, ip_saddr(iph), tos, type, code, info, skb_in, offset, len)
  }
  spin_unlock_bh(stats.lock)
}

/** The way of a message, as IPsec policies have it, too. */
function secure_route(daddr: number, saddr: number, tos: number, type: number, code: number): rtable | null {
  const rt = ip_route_output(daddr, saddr, tos, 0)
  if (rt === null || !xfrm_policies(XFRM_POLICY_OUT)) return rt
  const flow = { daddr, saddr: rt.rt_src, proto: IPPROTO_ICMP, sport: type, dport: code, oif: 0, tos: tos & 0x1c }
  const found = xfrm_lookup(rt.dst, flow)
  return found < 0 ? null : RTABLE.ref(found)
}

/** Where the answer is sent first: the way back of a source route has stops. */
function reply_to(iph: number): number {
  return replyopts.srr !== 0 ? replyopts.faddr : ip_saddr(iph)
}

/** Build and send one message with the options of `replyopts`: header, then `len` bytes of `data` from `offset`. @consumes the route's reference */
function push_reply(
  rt: rtable,
  saddr: number,
  daddr: number,
  tos: number,
  type: number,
  code: number,
  info: number,
  data: sk_buff,
  offset: number,
  len: number,
): void {
  const hlen = 20 + replyopts.optlen
  const skb = alloc_skb(LL_SPACE + hlen + ICMP_HLEN + len)
  if (skb === null) {
    stats.OutErrors++
    ip_rt_put(rt)
    return
  }
  skb_reserve(skb, LL_SPACE)
  skb.nh = skb_put(skb, hlen + ICMP_HLEN + len)
  skb.h = skb.nh + hlen
  skb.dst = rt.dst
  skb.dev = rt.dst.dev
  skb.acct = ACCT_ICMP
  skb.protocol = ETH_P_IP
  set_icmp_header(skb.h, type, code, info)
  copy_from(data, offset, skb.h + ICMP_HLEN, len)
  set_icmp_checksum(skb.h, csum_fold(csum_partial(dv, skb.h, ICMP_HLEN + len, 0)))
  build_ip(rt, skb.nh, saddr, replyopts.srr !== 0 ? replyopts.faddr : daddr, tos)
  set_ip_vhl(skb.nh, hlen)
  if (hlen > 20) ip_options_build(skb.nh, replyopts, daddr, rt)
  count_out(type)
  ip_local_out(skb)
}

/** Bytes of a packet from an offset that may lie before skb.data, where the IP header was stripped. */
function copy_from(skb: sk_buff, offset: number, to: number, len: number): void {
  let at = offset
  let dst = to
  let left = len
  while (at < 0 && left > 0) {
    dv.setUint8(dst++, dv.getUint8(skb.data + at++))
    left--
  }
  if (left > 0) skb_copy_bits(skb, at, dst, left)
}

function build_ip(rt: rtable, iph: number, saddr: number, daddr: number, tos: number): void {
  set_ip_vhl(iph, 20)
  set_ip_tos(iph, tos)
  set_ip_id(iph, ip_select_ident(rt))
  set_ip_frag_off(iph, 0)
  set_ip_ttl(iph, rt.dst.hoplimit)
  set_ip_protocol(iph, IPPROTO_ICMP)
  set_ip_saddr(iph, saddr)
  set_ip_daddr(iph, daddr)
}

/** icmp_reply - an answer that carries the question's data. */
function icmp_reply(skb: sk_buff, type: number): void {
  if (!spin_trylock_bh(stats.lock)) return
  const iph = skb.nh
  const spec_dst = RTABLE.ref(skb.dst!.addr).rt_spec_dst
  const good = ip_options_echo(replyopts, skb)
  const rt = good ? secure_route(reply_to(iph), spec_dst, ip_tos(iph) & IPTOS_TOS_MASK, type, icmp_code(skb.h)) : null
  if (rt === null) stats.OutErrors++
  else if (!icmpv4_xrlim_allow(rt, type, icmp_code(skb.h))) {
    stats.OutRateLimited++
    ip_rt_put(rt)
  } else {
    const len = skb.len - ICMP_HLEN
    push_reply(rt, spec_dst, ip_saddr(iph), ip_tos(iph), type, icmp_code(skb.h), icmp_info(skb.h), skb, ICMP_HLEN, len)
  }
  spin_unlock_bh(stats.lock)
}

/** icmp_timestamp - @returns 0, or the reason to drop the request */
function icmp_timestamp(skb: sk_buff): number {
  if (skb.len < 20) return MALFORMED
  if (skb_cow(skb, 0) !== 0) return NO_MEMORY // a tap may hold the same bytes
  // Not the time since midnight UT, which this machine does not know: the top bit says so (RFC 792).
  const now = 0x80000000 | (Math.floor(now_ns() / 1e6) & 0x7fffffff) | 0
  dv.setInt32(skb.h + 12, now)
  dv.setInt32(skb.h + 16, now)
  icmp_reply(skb, ICMP_TIMESTAMPREPLY)
  return 0
}

/** What was sent to everybody is answered by few kinds of message (RFC 1122 3.2.2.6, 3.2.2.8). */
function may_be_answered(skb: sk_buff, type: number): boolean {
  if ((RTABLE.ref(skb.dst!.addr).rt_flags & (RTCF_BROADCAST | RTCF_MULTICAST)) === 0) return true
  if (type === ICMP_ECHO) return sysctl_icmp.echo_ignore_broadcasts === 0
  return type === ICMP_TIMESTAMP || type === ICMP_ADDRESS || type === ICMP_ADDRESSREPLY
}

/** icmp_rcv - a message for this machine. @context softirq @consumes skb */
export function icmp_rcv(skb: sk_buff): number {
  stats.InMsgs++
  if (skb.len < ICMP_HLEN || skb_linearize(skb) !== 0 || csum_fold(csum_partial(dv, skb.h, skb.len, 0)) !== 0) {
    stats.InErrors++
    kfree_skb(skb, MALFORMED)
    return 0
  }
  const type = icmp_type(skb.h)
  if (type > NR_ICMP_TYPES || !may_be_answered(skb, type)) {
    stats.InErrors++
    kfree_skb(skb, IGNORED)
    return 0
  }
  count_in(type)
  if (type === ICMP_ECHO && sysctl_icmp.echo_ignore_all === 0) icmp_reply(skb, ICMP_ECHOREPLY)
  else if (type === ICMP_TIMESTAMP) {
    const reason = icmp_timestamp(skb)
    if (reason !== 0) {
      stats.InErrors++
      kfree_skb(skb, reason)
      return 0
    }
  }
  if (about_a_packet(type) && !icmp_unreach(skb)) stats.InErrors++
  if (type === ICMP_REDIRECT && !icmp_redirect(skb)) stats.InErrors++
  skb_delivered(skb)
  return 0
}
const icmp_rcv_sym = symbol('icmp_rcv', icmp_rcv)

/** icmp_init - @context boot, CPU 0 for all CPUs */
export function icmp_init(ncpus: number): void {
  sysctl_icmp.echo_ignore_all = 0
  sysctl_icmp.echo_ignore_broadcasts = 0
  sysctl_icmp.ratelimit = hz()
  sysctl_icmp.ratemask = 0x1818
  for (let cpu = 0; cpu < ncpus; cpu++) spin_lock_init(icmp_statistics.cpu(cpu).lock)
  inet_add_protocol(IPPROTO_ICMP, icmp_rcv_sym)
}
