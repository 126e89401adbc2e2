/** ipt_header_targets.ts - targets that change single fields and let the packet go on: DSCP, ECN, TCPMSS, CLASSIFY. No locks of their own. */
import { RAM } from '../../../arch/ram.js'
import { csum_replace2, csum_replace4 } from '../../../lib/checksum.js'
import { E_OFFSETS, ENTRY_WORDS, EXT_WORDS, IPT_CONTINUE, words_text, X_NAME, X_SIZE } from '../../../lib/iptables.js'
import { NF_DROP } from '../../core/netfilter.js'
import { pskb_expand_head, skb_linearize, skb_put, skb_tailroom } from '../../core/skbuff.js'
import type { sk_buff } from '../../core/types.js'
import {
  IPPROTO_TCP,
  ip_check,
  ip_hdrlen,
  ip_protocol,
  ip_tos,
  ip_tot_len,
  set_ip_check,
  set_ip_tot_len,
} from '../../wire/ipv4.js'
import { define_target } from './ip_tables.js'
import {
  ECN_OP_ALL,
  ECN_OP_CWR,
  ECN_OP_ECE,
  ECN_OP_IP,
  ecn_tcp_checked,
  TCPOLEN_MSS,
  TCPOPT_MSS,
  TH_CWR,
  TH_ECE,
} from './ipt_header_matches.js'
import { tcp_option, transport, wants } from './ipt_matches.js'
import { extension_module } from './ipt_module.js'
import { in_mangle, set_tos, skb_ip_make_writable } from './ipt_targets.js'

const i32 = RAM.i32
const u8 = RAM.u8
const dv = RAM.dv

/** DSCP: code point. */
define_target(
  'DSCP',
  1,
  (skb, _in, _out, _hook, info) => set_tos(skb, (ip_tos(skb.nh) & 3) | (i32[info >> 2] << 2)),
  (table, _e, info) => in_mangle(table) && i32[info >> 2] >>> 0 < 64,
)
extension_module('DSCP', ['target'])

/** CLASSIFY: skb.priority, by which a queueing discipline chooses. */
define_target(
  'CLASSIFY',
  1,
  (skb, _in, _out, _hook, info) => {
    skb.priority = i32[info >> 2]
    return IPT_CONTINUE
  },
  (table, _e, _info, mask) => in_mangle(table) && (mask & 0b00011) === 0, // what comes in or stays has no queue before it
)
extension_module('CLASSIFY', ['target'])

// ---- TCP ---------------------------------------------------------------------------------------------------------------

/** A word of 16 bits of the header at `th`, with the checksum. */
function set_tcp_word(th: number, at: number, to: number): void {
  dv.setUint16(th + 16, csum_replace2(dv.getUint16(th + 16), dv.getUint16(th + at), to))
  dv.setUint16(th + at, to)
}

/** ECN: operation | ECN field << 8 | ECE << 16 | CWR << 17. */
function ecn_target(skb: sk_buff, _in: unknown, _out: unknown, _hook: number, info: number): number {
  const word = i32[info >> 2]
  if ((word & ECN_OP_IP) !== 0 && set_tos(skb, (ip_tos(skb.nh) & 0xfc) | ((word >> 8) & 3)) === NF_DROP) return NF_DROP
  if ((word & (ECN_OP_ECE | ECN_OP_CWR)) === 0 || ip_protocol(skb.nh) !== IPPROTO_TCP) return IPT_CONTINUE
  const hlen = ip_hdrlen(skb.nh)
  if (transport(skb, 20) === 0) return NF_DROP
  const mask = ((word & ECN_OP_ECE) !== 0 ? TH_ECE : 0) | ((word & ECN_OP_CWR) !== 0 ? TH_CWR : 0)
  const bits = ((word & (1 << 16)) !== 0 ? TH_ECE : 0) | ((word & (1 << 17)) !== 0 ? TH_CWR : 0)
  const from = dv.getUint16(skb.nh + hlen + 12)
  const to = (from & ~mask) | (bits & mask)
  if (from === to) return IPT_CONTINUE
  if (!skb_ip_make_writable(skb)) return NF_DROP
  set_tcp_word(skb.nh + hlen, 12, to)
  return IPT_CONTINUE
}
define_target('ECN', 1, ecn_target, (table, e, info) => {
  const word = i32[info >> 2]
  return (
    in_mangle(table) &&
    (word & 255 & ~ECN_OP_ALL) === 0 &&
    ((word >> 8) & 255) < 4 &&
    word >>> 18 === 0 &&
    ecn_tcp_checked(e, word)
  )
})
extension_module('ECN', ['target'])

/** TCPMSS: the largest segment size to be offered, or this: what the route's MTU lets through. */
const CLAMP_PMTU = 0xffff
const HEADERS = 40
const MAX_DOFF = 60

/** An option more in front of the others of the SYN at `th`, which has room behind it and no data. */
function insert_mss(skb: sk_buff, th: number, tcplen: number, mss: number): void {
  skb_put(skb, TCPOLEN_MSS)
  const opt = th + 20
  u8.copyWithin(opt + TCPOLEN_MSS, opt, th + tcplen)
  const word = (TCPOPT_MSS << 24) | (TCPOLEN_MSS << 16) | mss
  dv.setInt32(opt, word)
  const check = csum_replace4(dv.getUint16(th + 16), 0, word)
  dv.setUint16(th + 16, csum_replace2(check, tcplen, tcplen + TCPOLEN_MSS)) // of the pseudo header
  set_tcp_word(th, 12, dv.getUint16(th + 12) + (1 << 12))
  const iph = skb.nh
  const total = ip_tot_len(iph)
  set_ip_check(iph, csum_replace2(ip_check(iph), total, total + TCPOLEN_MSS))
  set_ip_tot_len(iph, total + TCPOLEN_MSS)
}

function tcpmss_target(skb: sk_buff, _in: unknown, _out: unknown, _hook: number, info: number): number {
  const hlen = ip_hdrlen(skb.nh)
  const tcplen = skb.len - hlen
  const first = transport(skb, 20)
  // A SYN with data would not fit where the MSS does; the original drops it, too.
  if (first === 0 || (u8[first + 12] >> 4) * 4 !== tcplen) return NF_DROP
  const wanted = i32[info >> 2]
  const mtu = skb.dst?.mtu ?? 0
  if (wanted === CLAMP_PMTU && mtu <= HEADERS) return NF_DROP
  const mss = wanted === CLAMP_PMTU ? mtu - HEADERS : wanted
  if (skb_linearize(skb) !== 0 || !skb_ip_make_writable(skb)) return NF_DROP
  const at = tcp_option(skb, TCPOPT_MSS, TCPOLEN_MSS)
  if (at > 0) {
    const th = skb.nh + hlen
    const old = dv.getUint16(at + 2)
    if (wanted === CLAMP_PMTU && old <= mss) return IPT_CONTINUE
    // It may lie across two words of the checksum: the bytes are swapped then.
    const swap = (n: number): number => (((at - th) & 1) === 0 ? n : ((n & 255) << 8) | (n >> 8))
    dv.setUint16(at + 2, mss)
    dv.setUint16(th + 16, csum_replace2(dv.getUint16(th + 16), swap(old), swap(mss)))
    return IPT_CONTINUE
  }
  if (tcplen === MAX_DOFF) return IPT_CONTINUE // no header is longer; 2.6.11 makes one of no length
  if (skb_tailroom(skb) < TCPOLEN_MSS && pskb_expand_head(skb, 0, TCPOLEN_MSS) !== 0) return NF_DROP
  insert_mss(skb, skb.nh + hlen, tcplen, mss)
  return IPT_CONTINUE
}

/** Has the rule at word `e` a match tcp that lets only SYNs through? */
function finds_syn(e: number): boolean {
  const t = e + ((i32[e + E_OFFSETS] & 0xffff) >> 2)
  for (let m = e + ENTRY_WORDS; m < t; m += i32[m + X_SIZE] >> 2) {
    if (words_text(i32.subarray(m + X_NAME, m + X_NAME + 6)) !== 'tcp') continue
    const word = i32[m + EXT_WORDS + 2] // flags that are to be set from bit 16 on, bit 26: not these
    if (((word >> 17) & 1) === 1 && ((word >> 26) & 1) === 0) return true
  }
  return false
}
define_target('TCPMSS', 1, tcpmss_target, (_table, e, info, mask) => {
  const mss = i32[info >> 2]
  if (mss >>> 16 !== 0 || (mss === CLAMP_PMTU && (mask & 0b00011) !== 0)) return false // there is no route yet
  return wants(e, IPPROTO_TCP) && finds_syn(e)
})
extension_module('TCPMSS', ['target'])
