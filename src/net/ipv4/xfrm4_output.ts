/**
 * xfrm4_output.ts - dst.output of a bundle: one transformation after the other, then the route's own output. The packet is
 * transformed under the lock of its state, with bottom halves off; nothing is sent under it.
 */
import { call, symbol } from '../../abi/symbol.js'
import { cost } from '../../arch/cost.js'
import { tick } from '../../arch/cpu.js'
import { EINVAL, EMSGSIZE, ENOMEM } from '../../lib/errno.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { dst_hold, dst_release } from '../core/dst.js'
import { drop_reason } from '../core/fate.js'
import { skb_checksum_help } from '../core/offload.js'
import { kfree_skb, skb_cow, skb_linearize, skb_push } from '../core/skbuff.js'
import { CHECKSUM_HW, CHECKSUM_NONE, type sk_buff } from '../core/types.js'
import { ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED } from '../wire/icmp.js'
import {
  IP_DF,
  IPPROTO_IPIP,
  ip_frag_off,
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
import { STATE, XFRM_MODE_TUNNEL, XFRM_STATE_NOECN, XFRM_STATE_VALID, type xfrm_state } from '../xfrm/types.js'
import { xfrm_state_check_expire, xfrm_state_count } from '../xfrm/xfrm_state.js'
import { icmp_send } from './icmp.js'
import { ip_select_ident } from './ip_ident.js'
import { ip_stats } from './mib.js'
import { RTABLE } from './types.js'

const COST = cost('xfrm4_output')
const TOO_BIG = drop_reason('ip_fragmentation_needed')
const FAILED = drop_reason('xfrm_output')
const LL_SPACE = 16

/** The header around a packet that goes through a tunnel: from the end that is here to the other one. */
function xfrm4_encap(x: xfrm_state, skb: sk_buff): void {
  const inner = skb.nh
  const tos = ip_tos(inner)
  const df = ip_frag_off(inner) & IP_DF
  const iph = skb_push(skb, 20)
  skb.nh = iph
  set_ip_vhl(iph, 20)
  // RFC 3168: congestion that the inner header has seen stays there
  set_ip_tos(iph, (x.flags & XFRM_STATE_NOECN) !== 0 ? tos & ~3 : (tos & 3) === 3 ? (tos & ~3) | 2 : tos)
  set_ip_frag_off(iph, df)
  set_ip_id(iph, df !== 0 ? 0 : ip_select_ident(RTABLE.ref(skb.dst!.path!.addr)))
  set_ip_ttl(iph, skb.dst!.path!.hoplimit)
  set_ip_protocol(iph, IPPROTO_IPIP)
  set_ip_saddr(iph, x.saddr)
  set_ip_daddr(iph, x.daddr)
}

/** One transformation. @locks takes the state's @returns 0, -errno */
function transform(x: xfrm_state, skb: sk_buff): number {
  if (skb_linearize(skb) !== 0 || skb_cow(skb, LL_SPACE + x.header_len) !== 0) return -ENOMEM
  spin_lock_bh(x.lock)
  let err = x.state !== XFRM_STATE_VALID ? -EINVAL : xfrm_state_check_expire(x)
  if (err === 0) {
    if (x.mode === XFRM_MODE_TUNNEL) xfrm4_encap(x, skb)
    err = call(x.type).output(x, skb)
  }
  if (err === 0) xfrm_state_count(x, skb.len)
  spin_unlock_bh(x.lock)
  return err
}

/** xfrm4_output - @context process, softirq @consumes skb */
function xfrm4_output(skb: sk_buff): number {
  tick(COST)
  const bundle = skb.dst!
  let err = skb.ip_summed === CHECKSUM_HW ? skb_checksum_help(skb) : 0
  skb.ip_summed = CHECKSUM_NONE
  const tunnel = STATE.ref(bundle.xfrm).mode === XFRM_MODE_TUNNEL
  if (err === 0 && tunnel && skb.len > bundle.mtu && skb.local_df === 0 && (ip_frag_off(skb.nh) & IP_DF) !== 0) {
    ip_stats.FragFails++
    icmp_send(skb, ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, bundle.mtu)
    kfree_skb(skb, TOO_BIG)
    return -EMSGSIZE
  }
  let dst = bundle
  for (; err === 0 && dst.xfrm !== 0; dst = dst.child!) err = transform(STATE.ref(dst.xfrm), skb)
  if (err !== 0) {
    ip_stats.OutDiscards++
    kfree_skb(skb, FAILED)
    return err
  }
  dst_hold(dst)
  skb.dst = dst
  dst_release(bundle)
  return call(dst.output)(skb)
}
export const xfrm4_output_sym = symbol('xfrm4_output', xfrm4_output)
