/** ah4.ts - the authentication header (RFC 2402; net/ipv4/ah4.c of 2.6.11). A module. */
import { symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { EINVAL } from '../../lib/errno.js'
import { synchronize_kernel } from '../../rcu/rcupdate.js'
import { define_module } from '../../sched/module.js'
import { __skb_pull, skb_push } from '../core/skbuff.js'
import type { sk_buff } from '../core/types.js'
import { IPPROTO_AH, ip_hdrlen, ip_protocol, set_ip_protocol, set_ip_tot_len } from '../wire/ipv4.js'
import { XFRM_MODE_TUNNEL, type xfrm_state, type xfrm_type } from '../xfrm/types.js'
import { aalg_of } from '../xfrm/xfrm_algo.js'
import { xfrm_register_type, xfrm_unregister_type } from '../xfrm/xfrm_km.js'
import { bytes_of, equal_at, xfrm_icv } from './esp4.js'
import { inet_add_protocol, inet_del_protocol } from './ip_input.js'
import { ip_send_check } from './ip_output.js'
import { BAD_DIGEST, xfrm4_rcv_sym } from './xfrm4_input.js'

const u8 = RAM.u8
const dv = RAM.dv
/** Next header, length, reserved, SPI, number. */
const AH_HLEN = 12
const ah_len = (x: xfrm_state): number => (AH_HLEN + aalg_of(x.aalg).trunc + 7) & ~7

function* init_state(x: xfrm_state): Generator<void, number, void> {
  if (x.aalg === 0 || x.ealg !== 0) return -EINVAL
  x.header_len = ah_len(x) + (x.mode === XFRM_MODE_TUNNEL ? 20 : 0)
  return 0
}
function max_size(x: xfrm_state, mtu: number): number {
  return mtu - x.header_len
}

// Options that no router changes (RFC 2402 appendix A): end, no operation, security, extended security, commercial security,
// router alert, and the sender's directed multicast.
const IMMUTABLE: readonly number[] = [0x82, 0x85, 0x86, 0x94, 0x95]

/**
 * ip_clear_mutable_options - what routers change counts as 0; of a source route, the destination is the last stop.
 * `copy`: the header. @returns false: the options make no sense
 */
function clear_mutable_options(copy: Uint8Array): boolean {
  for (let at = 20; at < copy.length; ) {
    const type = copy[at]!
    if (type === 0) return true
    if (type === 1) {
      at++
      continue
    }
    const len = copy[at + 1] ?? 0
    if (len < 2 || at + len > copy.length) return false
    if (!IMMUTABLE.includes(type)) {
      if (type === 0x83 || type === 0x89) {
        if (len < 6) return false
        copy.copyWithin(16, at + len - 4, at + len)
      }
      copy.fill(0, at, at + len)
    }
    at += len
  }
  return true
}

/** What the digest is of: the packet with 0 for all that changes on its way. @returns null: bad options */
function covered(iph: number, hlen: number, ah: number, icv: number, end: number): Uint8Array | null {
  const copy = bytes_of(iph, end - iph)
  copy[1] = 0 // TOS
  copy.fill(0, 6, 9) // flags, offset, TTL
  copy.fill(0, 10, 12)
  if (!clear_mutable_options(copy.subarray(0, hlen))) return null
  copy.fill(0, ah - iph + AH_HLEN, ah - iph + AH_HLEN + icv)
  return copy
}

function output(x: xfrm_state, skb: sk_buff): number {
  const { trunc } = aalg_of(x.aalg)
  const hlen = ip_hdrlen(skb.nh)
  const inner = ip_protocol(skb.nh)
  const from = skb.nh
  const len = ah_len(x)
  skb.nh = skb_push(skb, len)
  u8.copyWithin(skb.nh, from, from + hlen)
  const ah = skb.nh + hlen
  skb.h = ah
  u8.fill(0, ah, ah + len)
  u8[ah] = inner
  u8[ah + 1] = (len >> 2) - 2
  dv.setInt32(ah + 4, x.spi)
  x.replay_oseq = (x.replay_oseq + 1) | 0
  dv.setInt32(ah + 8, x.replay_oseq)
  set_ip_protocol(skb.nh, IPPROTO_AH)
  set_ip_tot_len(skb.nh, skb.len)
  const data = covered(skb.nh, hlen, ah, trunc, skb.tail)
  if (data === null) return -EINVAL
  u8.set(xfrm_icv(x, data), ah + AH_HLEN)
  ip_send_check(skb.nh)
  return 0
}

function input(x: xfrm_state, skb: sk_buff): number {
  const { trunc } = aalg_of(x.aalg)
  const ah = skb.data
  const len = (u8[ah + 1]! + 2) << 2
  if (len !== ah_len(x) || skb.len < len) return -EINVAL
  const inner = u8[ah]!
  const hlen = ip_hdrlen(skb.nh)
  const data = covered(skb.nh, hlen, ah, trunc, skb.tail)
  if (data === null || inner === 0) return -EINVAL
  if (!equal_at(ah + AH_HLEN, xfrm_icv(x, data))) {
    x.stat_integrity_failed++
    return BAD_DIGEST
  }
  const from = skb.nh
  skb.h = __skb_pull(skb, len)
  skb.nh = skb.h - hlen
  u8.copyWithin(skb.nh, from, from + hlen)
  set_ip_protocol(skb.nh, inner)
  set_ip_tot_len(skb.nh, skb.len + hlen)
  ip_send_check(skb.nh)
  return inner
}

const ah_type: xfrm_type = { proto: IPPROTO_AH, init_state, input, output, max_size }
const ah_type_sym = symbol('ah_type', ah_type)

const mod = define_module('ah4', {
  alias: 'xfrm-type-2-51',
  *init() {
    if (!xfrm_register_type(IPPROTO_AH, ah_type_sym, mod.addr)) return -EINVAL
    inet_add_protocol(IPPROTO_AH, xfrm4_rcv_sym, { no_policy: true })
    return 0
  },
  *exit() {
    inet_del_protocol(IPPROTO_AH)
    xfrm_unregister_type(IPPROTO_AH)
    yield* synchronize_kernel()
  },
})
