/**
 * icmp_err.ts - errors that others report about packets of ours: to the protocol that sent them, and to the routes when a packet
 * was too big (path MTU discovery, RFC 1191). No locks of its own.
 */
import { dst_set_expires } from '../core/dst.js'
import { __skb_pull, pskb_may_pull } from '../core/skbuff.js'
import type { sk_buff } from '../core/types.js'
import {
  ICMP_DEST_UNREACH,
  ICMP_FRAG_NEEDED,
  ICMP_HLEN,
  ICMP_PARAMETERPROB,
  icmp_code,
  icmp_info,
  icmp_type,
} from '../wire/icmp.js'
import { ip_daddr, ip_hdrlen, ip_protocol, ip_saddr, ip_tos, ip_tot_len } from '../wire/ipv4.js'
import { inet_addr_type } from './fib_frontend.js'
import { RTN_BROADCAST } from './fib_types.js'
import { inet_proto_error } from './ip_input.js'
import { ip_ctl } from './ip_sysctl.js'
import { raw_v4_error } from './raw_hash.js'
import { rt_each_output } from './route.js'
import { rt_ctl } from './route_sysctl.js'
import type { rtable } from './types.js'

const NR_ICMP_UNREACH = 15
/** Sizes that links have, for routers that do not say theirs (RFC 1191 7.1). */
const mtu_plateau = [32000, 17914, 8166, 4352, 2002, 1492, 576, 296, 216, 128]

function guess_mtu(old_mtu: number): number {
  return mtu_plateau.find(mtu => old_mtu > mtu) ?? 68
}

/** One route of ours learns that less fits. @returns its MTU then, 0: it knew */
function shrink(rt: rtable, iph: number, new_mtu: number): number {
  const { dst } = rt
  if (dst.mtu_locked !== 0) return 0
  let old_mtu = ip_tot_len(iph)
  let mtu = new_mtu
  if (new_mtu < 68 || new_mtu >= old_mtu) {
    // 4.2BSD sends back a total length without the header's.
    if (mtu === 0 && old_mtu >= dst.mtu && old_mtu >= 68 + ip_hdrlen(iph)) old_mtu -= ip_hdrlen(iph)
    mtu = guess_mtu(old_mtu)
  }
  if (mtu > dst.mtu) return 0
  if (mtu < dst.mtu) {
    if (mtu < rt_ctl.min_pmtu) {
      mtu = rt_ctl.min_pmtu // nobody makes us send crumbs; such packets may be cut
      dst.mtu_locked = 1
    }
    dst.mtu = mtu
    dst_set_expires(dst, rt_ctl.mtu_expires)
  }
  return mtu
}

/** ip_rt_frag_needed - a packet with this header was too big for a link of `new_mtu` (0: not said). @returns what fits now */
function ip_rt_frag_needed(iph: number, new_mtu: number): number {
  let est_mtu = 0
  for (const src of [ip_saddr(iph), 0])
    rt_each_output(ip_daddr(iph), src, 0, ip_tos(iph), rt => {
      if (rt.rt_dst === ip_daddr(iph) && rt.rt_src === ip_saddr(iph)) est_mtu = shrink(rt, iph, new_mtu) || est_mtu
    })
  return est_mtu || new_mtu
}

/** icmp_unreach - DEST_UNREACH, TIME_EXCEEDED, SOURCE_QUENCH, PARAMETERPROB. @context softirq @returns false: malformed, or about nothing */
export function icmp_unreach(skb: sk_buff): boolean {
  if (!pskb_may_pull(skb, ICMP_HLEN + 20)) return false
  skb.h = skb.data
  const iph = __skb_pull(skb, ICMP_HLEN)
  if (ip_hdrlen(iph) < 20) return false
  const type = icmp_type(skb.h)
  const code = icmp_code(skb.h)
  let info = 0
  if (type === ICMP_DEST_UNREACH) {
    if (code === ICMP_FRAG_NEEDED && ip_ctl.no_pmtu_disc === 0) {
      info = ip_rt_frag_needed(iph, icmp_info(skb.h) & 0xffff)
      if (info === 0) return true
    }
    if (code > NR_ICMP_UNREACH) return true
  } else if (type === ICMP_PARAMETERPROB) info = icmp_info(skb.h) >>> 24
  // from a router that answers to broadcasts
  if (ip_ctl.ignore_bogus_errors === 0 && inet_addr_type(ip_daddr(iph)) === RTN_BROADCAST) return true
  const need = ip_hdrlen(iph) + 8
  if (need > skb.len - skb.data_len) return true // 8 bytes of the protocol's header, or it says nothing
  raw_v4_error(ip_protocol(iph), skb, info)
  return inet_proto_error(ip_protocol(iph), skb, info)
}
