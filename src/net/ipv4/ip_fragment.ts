/** ip_fragment.ts - cut a packet into pieces that fit the link (ip_fragment of net/ipv4/ip_output.c). No locks. */

import { fetch_add } from '../../arch/atomic.js'
import { cost } from '../../arch/cost.js'
import { tick } from '../../arch/cpu.js'
import { memcpy } from '../../arch/ram.js'
import { EMSGSIZE, ENOMEM } from '../../lib/errno.js'
import { drop_reason } from '../core/fate.js'
import {
  alloc_skb,
  consume_skb,
  kfree_skb,
  nf_conntrack_get,
  skb_copy_bits,
  skb_put,
  skb_reserve,
} from '../core/skbuff.js'
import { skb_set_owner_w } from '../core/sock_mem.js'
import { SOCK } from '../core/sock_types.js'
import { ACCT_NONE, DST, type sk_buff } from '../core/types.js'
import { ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED } from '../wire/icmp.js'
import { IP_DF, IP_MF, IP_OFFSET, ip_frag_off, ip_hdrlen, set_ip_frag_off, set_ip_tot_len } from '../wire/ipv4.js'
import { icmp_send } from './icmp.js'
import { ip_options_fragment } from './ip_options.js'
import { ip_send_check } from './ip_output.js'
import { ip_stats } from './mib.js'

const COST_FRAGMENT = cost('ip_fragment')

const FRAGMENTATION_NEEDED = drop_reason('ip_fragmentation_needed')
const FRAGMENT_FAILED = drop_reason('ip_fragment_failed')
const REFCNT = DST.offset('refcnt')
/** Link header, and that the IP header behind it is aligned. */
const LL_SPACE = 16

/** What all pieces have of the original. */
function ip_copy_metadata(to: sk_buff, from: sk_buff): void {
  to.pkt_type = from.pkt_type
  to.priority = from.priority
  to.protocol = from.protocol
  to.dst = from.dst
  if (from.dst !== null) fetch_add(from.dst.addr + REFCNT, 1)
  to.dev = from.dev
  to.input_dev = from.input_dev
  to.nfmark = from.nfmark
  to.nfcache = from.nfcache
  to.nfct = from.nfct
  to.nfctinfo = from.nfctinfo
  nf_conntrack_get(to.nfct)
  memcpy(to.cb, from.cb, 40)
}

/** One piece: `len` bytes of payload from `at` (bytes behind the header). @returns packet, or null */
function make_piece(skb: sk_buff, hlen: number, at: number, len: number, frag_off: number): sk_buff | null {
  const piece = alloc_skb(LL_SPACE + hlen + len)
  if (piece === null) return null
  ip_copy_metadata(piece, skb)
  if (skb.sk !== 0) skb_set_owner_w(piece, SOCK.ref(skb.sk))
  skb_reserve(piece, LL_SPACE)
  piece.nh = skb_put(piece, hlen + len)
  piece.h = piece.nh + hlen
  memcpy(piece.nh, skb.nh, hlen)
  skb_copy_bits(skb, hlen + at, piece.h, len)
  set_ip_frag_off(piece.nh, frag_off)
  set_ip_tot_len(piece.nh, hlen + len)
  ip_send_check(piece.nh)
  return piece
}

/**
 * ip_fragment - send a packet in pieces of at most the route's MTU; the first piece carries the packet's account.
 * @context process, softirq @consumes skb @returns 0, -EMSGSIZE, -ENOMEM, or what output() says
 */
export function ip_fragment(skb: sk_buff, output: (skb: sk_buff) => number): number {
  tick(COST_FRAGMENT)
  const iph = skb.nh
  const mtu = skb.dst!.mtu
  const hlen = ip_hdrlen(iph)
  const old_off = ip_frag_off(iph)
  if ((old_off & IP_DF) !== 0 && skb.local_df === 0) {
    ip_stats.FragFails++
    icmp_send(skb, ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, mtu)
    kfree_skb(skb, FRAGMENTATION_NEEDED)
    return -EMSGSIZE
  }
  const room = (mtu - hlen) & ~7
  const total = skb.len - hlen
  if (room < 8) {
    ip_stats.FragFails++
    kfree_skb(skb, FRAGMENT_FAILED)
    return -EMSGSIZE
  }
  const { acct } = skb
  for (let at = 0; at < total; ) {
    const last = total - at <= mtu - hlen
    const len = last ? total - at : room
    const more = last ? old_off & IP_MF : IP_MF
    const piece = make_piece(
      skb,
      hlen,
      at,
      len,
      (old_off & ~(IP_DF | IP_MF | IP_OFFSET)) | more | (((old_off & IP_OFFSET) + (at >> 3)) & IP_OFFSET),
    )
    if (piece === null) {
      ip_stats.FragFails++
      if (at === 0) kfree_skb(skb, FRAGMENT_FAILED)
      else consume_skb(skb) // its account left with the first piece
      return -ENOMEM
    }
    if (at === 0) {
      piece.acct = acct
      skb.acct = ACCT_NONE
      ip_options_fragment(iph) // from here on the header is a model for the other pieces
    }
    at += len
    ip_stats.FragCreates++
    const err = output(piece)
    if (err !== 0) {
      ip_stats.FragFails++
      consume_skb(skb) // nobody can put it together any more: the rest is not sent
      return err
    }
  }
  ip_stats.FragOKs++
  consume_skb(skb)
  return 0
}
