/**
 * udp_input.ts - datagrams that come in: the checks, whom they are for, errors that ICMP reports.
 *
 * Lock charter
 *   udp_hash.ts has the lookups' lock. A datagram is queued without the socket's lock: the receive queue's own is enough, and
 *   the reference that the lookup took keeps the socket.
 */
import { call, symbol } from '../../abi/symbol.js'
import { store } from '../../arch/atomic.js'
import { cost } from '../../arch/cost.js'
import { tick } from '../../arch/cpu.js'
import { csum_tcpudp_nofold } from '../../lib/checksum.js'
import { EHOSTUNREACH, EMSGSIZE, EPERM, EPROTO } from '../../lib/errno.js'
import { read_lock, read_unlock } from '../../sync/rwlock.js'
import { __skb_checksum_complete } from '../core/datagram.js'
import { drop_reason } from '../core/fate.js'
import { sk_has_filter } from '../core/filter.js'
import { kfree_skb, pskb_may_pull, pskb_trim, skb_clone } from '../core/skbuff.js'
import { sock_put } from '../core/sock.js'
import { sock_queue_rcv_skb } from '../core/sock_mem.js'
import { SOCK, type sock, TCP_ESTABLISHED } from '../core/sock_types.js'
import { CHECKSUM_UNNECESSARY, type sk_buff } from '../core/types.js'
import {
  ICMP_DEST_UNREACH,
  ICMP_FRAG_NEEDED,
  ICMP_PARAMETERPROB,
  ICMP_PORT_UNREACH,
  ICMP_SOURCE_QUENCH,
  icmp_code,
  icmp_type,
} from '../wire/icmp.js'
import { IPPROTO_UDP, ip_daddr, ip_hdrlen, ip_saddr } from '../wire/ipv4.js'
import { UDP_HLEN, udp_check, udp_dest, udp_len, udp_source } from '../wire/udp.js'
import { XFRM_POLICY_IN } from '../xfrm/types.js'
import { xfrm_policy_check } from '../xfrm/xfrm_policy.js'
import { icmp_send } from './icmp.js'
import { icmp_err_convert } from './icmp_convert.js'
import { IP_PMTUDISC_DONT, inet_sk } from './inet_sock.js'
import { csum_16 } from './ip_append.js'
import { ip_icmp_error } from './ip_errqueue.js'
import { RTABLE, RTCF_BROADCAST, RTCF_MULTICAST } from './types.js'
import { udp_hash_lock, udp_stats, udp_v4_lookup, udp_v4_mcast_next } from './udp_hash.js'

const COST_RCV = cost('udp_rcv')

const MALFORMED = drop_reason('udp_malformed')
const CHECKSUM = drop_reason('udp_checksum')
const POLICY = drop_reason('xfrm_policy')
const NO_PORT = drop_reason('udp_no_port')
const SOCKET_FULL = drop_reason('socket_full')
const SOCKET_FILTER = drop_reason('socket_filter')
const ERR = SOCK.offset('sk_err')

function bad_datagram(skb: sk_buff, reason: number): number {
  udp_stats.InErrors++
  kfree_skb(skb, reason)
  return 0
}

/** udp_checksum_init - what of the sum is known already: all of it, or the pseudo header's part. */
function udp_checksum_init(skb: sk_buff, ulen: number, saddr: number, daddr: number): void {
  if (udp_check(skb.h) === 0) skb.ip_summed = CHECKSUM_UNNECESSARY
  if (skb.ip_summed !== CHECKSUM_UNNECESSARY) skb.csum = csum_16(csum_tcpudp_nofold(saddr, daddr, ulen, IPPROTO_UDP, 0))
}

/** udp_checksum_complete - is the sum wrong? */
export function udp_checksum_complete(skb: sk_buff): boolean {
  return skb.ip_summed !== CHECKSUM_UNNECESSARY && __skb_checksum_complete(skb)
}

/** udp_queue_rcv_skb - for the program, unless it does not keep up. @context softirq @consumes skb */
function udp_queue_rcv_skb(sk: sock, skb: sk_buff): void {
  if (!xfrm_policy_check(XFRM_POLICY_IN, skb)) {
    kfree_skb(skb, POLICY)
    return
  }
  if (sk_has_filter(sk) && skb.ip_summed !== CHECKSUM_UNNECESSARY) {
    // What the filter cuts off can be summed no more.
    if (udp_checksum_complete(skb)) {
      bad_datagram(skb, CHECKSUM)
      return
    }
    skb.ip_summed = CHECKSUM_UNNECESSARY
  }
  const err = sock_queue_rcv_skb(sk, skb, UDP_HLEN)
  if (err < 0) bad_datagram(skb, err === -EPERM ? SOCKET_FILTER : SOCKET_FULL)
  else udp_stats.InDatagrams++
}

/** udp_v4_mcast_deliver - to everybody who has the port. @consumes skb */
function udp_v4_mcast_deliver(skb: sk_buff, saddr: number, daddr: number): number {
  const dif = skb.dev!.ifindex
  const sport = udp_source(skb.h)
  const dport = udp_dest(skb.h)
  let left: sk_buff | null = skb
  read_lock(udp_hash_lock)
  let sk = udp_v4_mcast_next(null, saddr, sport, daddr, dport, dif)
  while (sk !== null) {
    const following: sock | null = udp_v4_mcast_next(sk, saddr, sport, daddr, dport, dif)
    const its: sk_buff | null = following !== null ? skb_clone(skb) : skb
    if (following === null) left = null
    if (its !== null) udp_queue_rcv_skb(sk, its)
    sk = following
  }
  read_unlock(udp_hash_lock)
  if (left !== null) kfree_skb(left, NO_PORT)
  return 0
}

/** udp_rcv - a datagram for this machine. @context softirq @consumes skb */
export function udp_rcv(skb: sk_buff): number {
  tick(COST_RCV)
  if (!pskb_may_pull(skb, 8)) return bad_datagram(skb, MALFORMED)
  skb.h = skb.data
  const ulen = udp_len(skb.h)
  if (ulen > skb.len || ulen < 8 || pskb_trim(skb, ulen) !== 0) return bad_datagram(skb, MALFORMED)
  skb.h = skb.data // where a trim may have moved it
  const saddr = ip_saddr(skb.nh)
  const daddr = ip_daddr(skb.nh)
  udp_checksum_init(skb, ulen, saddr, daddr)
  if ((RTABLE.ref(skb.dst!.addr).rt_flags & (RTCF_BROADCAST | RTCF_MULTICAST)) !== 0)
    return udp_v4_mcast_deliver(skb, saddr, daddr)
  const sk = udp_v4_lookup(saddr, udp_source(skb.h), daddr, udp_dest(skb.h), skb.dev!.ifindex)
  if (sk !== null) {
    udp_queue_rcv_skb(sk, skb)
    sock_put(sk)
    return 0
  }
  if (!xfrm_policy_check(XFRM_POLICY_IN, skb)) {
    kfree_skb(skb, POLICY)
    return 0
  }
  if (udp_checksum_complete(skb)) return bad_datagram(skb, CHECKSUM) // nobody is told of noise
  udp_stats.NoPorts++
  icmp_send(skb, ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, 0)
  kfree_skb(skb, NO_PORT)
  return 0
}
export const udp_rcv_sym = symbol('udp_rcv', udp_rcv)

// ---- errors ---------------------------------------------------------------------------------------------------------

/** What an error message means to a socket. @returns null: nothing */
function error_of(type: number, code: number, pmtudisc: number): readonly [errno: number, fatal: boolean] | null {
  if (type === ICMP_SOURCE_QUENCH) return null
  if (type === ICMP_PARAMETERPROB) return [EPROTO, true]
  if (type !== ICMP_DEST_UNREACH) return [EHOSTUNREACH, false]
  if (code === ICMP_FRAG_NEEDED) return pmtudisc === IP_PMTUDISC_DONT ? null : [EMSGSIZE, true]
  return icmp_err_convert[code] ?? [EHOSTUNREACH, false]
}

/**
 * udp_err - an ICMP error about a datagram of ours, whose header lies at skb.data; the packet stays the caller's.
 * @context softirq @returns false: about no socket of this machine
 */
function udp_err(skb: sk_buff, info: number): boolean {
  const iph = skb.data
  const uh = iph + ip_hdrlen(iph)
  const sk = udp_v4_lookup(ip_daddr(iph), udp_dest(uh), ip_saddr(iph), udp_source(uh), skb.dev!.ifindex)
  if (sk === null) return false
  const inet = inet_sk(sk)
  const error = error_of(icmp_type(skb.h), icmp_code(skb.h), inet.pmtudisc)
  // Who is not connected cannot know which of his datagrams it was about.
  if (error !== null && (inet.recverr !== 0 || (error[1] && sk.sk_state === TCP_ESTABLISHED))) {
    ip_icmp_error(sk, skb, error[0], udp_dest(uh), info, uh + 8)
    store(sk.addr + ERR, error[0])
    call(sk.sk_error_report)(sk)
  }
  sock_put(sk)
  return true
}
export const udp_err_sym = symbol('udp_err', udp_err)
