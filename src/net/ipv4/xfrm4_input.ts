/** xfrm4_input.ts - packets of ESP, AH, IPComp and tunnels for this machine: their states, one after the other. Each is taken off under the lock of its state. */
import { call, symbol } from '../../abi/symbol.js'
import { cost } from '../../arch/cost.js'
import { tick } from '../../arch/cpu.js'
import { RAM } from '../../arch/ram.js'
import { ENOMEM } from '../../lib/errno.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { netif_rx } from '../core/dev.js'
import { dst_release } from '../core/dst.js'
import { drop_reason } from '../core/fate.js'
import { kfree_skb, pskb_may_pull, skb_cow, skb_linearize } from '../core/skbuff.js'
import { CHECKSUM_NONE, IFF_LOOPBACK, type sk_buff } from '../core/types.js'
import { ETH_P_IP } from '../wire/eth.js'
import {
  IPPROTO_AH,
  IPPROTO_COMP,
  IPPROTO_ESP,
  IPPROTO_IPIP,
  ip_daddr,
  ip_hdrlen,
  ip_protocol,
  ip_saddr,
  ip_tos,
  set_ip_tos,
} from '../wire/ipv4.js'
import { XFRM_MAX_DEPTH, XFRM_MODE_TUNNEL, XFRM_STATE_NOECN, XFRM_STATE_VALID, type xfrm_state } from '../xfrm/types.js'
import { secpath_add } from '../xfrm/xfrm_input.js'
import { xfrm_replay_advance, xfrm_replay_check } from '../xfrm/xfrm_replay.js'
import { xfrm_state_check_expire, xfrm_state_count, xfrm_state_lookup, xfrm_state_put } from '../xfrm/xfrm_state.js'
import { ip_send_check } from './ip_output.js'

const COST = cost('xfrm4_rcv')
const dv = RAM.dv
const u8 = RAM.u8
const i32 = RAM.i32

const NO_STATE = drop_reason('xfrm_no_state')
const BAD_STATE = drop_reason('xfrm_state_invalid')
const REPLAY = drop_reason('xfrm_replay')
const MALFORMED = drop_reason('xfrm_malformed')
const INTEGRITY = drop_reason('xfrm_integrity')
const MODE = drop_reason('xfrm_mode')
const NO_MEMORY = drop_reason('no_memory')
/** What xfrm_type.input says of a packet whose digest is wrong; anything else below 1: malformed. */
export const BAD_DIGEST = -74 // EBADMSG

const is_ipsec = (protocol: number): boolean =>
  protocol === IPPROTO_ESP || protocol === IPPROTO_AH || protocol === IPPROTO_COMP
/** Bytes of a header; of a tunnel: of the header inside. */
const HLEN: Readonly<Record<number, number>> = {
  [IPPROTO_ESP]: 8,
  [IPPROTO_AH]: 12,
  [IPPROTO_COMP]: 4,
  [IPPROTO_IPIP]: 20,
}
/** xfrm4_parse_spi - the number that the state of the packet at skb.data has. */
function spi_of(skb: sk_buff, protocol: number): number {
  if (protocol === IPPROTO_IPIP) return ip_saddr(skb.nh)
  if (protocol === IPPROTO_COMP) return dv.getUint16(skb.data + 2)
  return dv.getInt32(skb.data + (protocol === IPPROTO_AH ? 4 : 0))
}
/** IPComp and tunnels do not count: a state of theirs with a window takes nothing, as in 2.6.11. */
function seq_of(skb: sk_buff, protocol: number): number {
  if (protocol === IPPROTO_IPIP || protocol === IPPROTO_COMP) return 0
  return dv.getInt32(skb.data + (protocol === IPPROTO_AH ? 8 : 4))
}

/** Take one state off. @locks takes the state's @returns what is inside, or below 0: the reason to drop it, negative */
function decap(x: xfrm_state, skb: sk_buff, seq: number): number {
  spin_lock_bh(x.lock)
  let ret: number
  if (x.state !== XFRM_STATE_VALID) ret = -BAD_STATE
  else if (x.replay_window !== 0 && xfrm_replay_check(x, seq) !== 0) ret = -REPLAY
  else if (xfrm_state_check_expire(x) !== 0) ret = -BAD_STATE
  else {
    const inner = call(x.type).input(x, skb)
    ret = inner > 0 ? inner : inner === BAD_DIGEST ? -INTEGRITY : inner === -ENOMEM ? -NO_MEMORY : -MALFORMED
    if (inner > 0) {
      if (x.replay_window !== 0) xfrm_replay_advance(x, seq)
      xfrm_state_count(x, skb.len) // what was inside
    }
  }
  spin_unlock_bh(x.lock)
  return ret
}

/** The packet inside a tunnel is at skb.data. @returns false: there is none */
function out_of_tunnel(x: xfrm_state, skb: sk_buff, inner: number): boolean {
  if (inner !== IPPROTO_IPIP || skb.len < 20) return false
  const outer_tos = ip_tos(skb.nh)
  skb.nh = skb.data
  if (u8[skb.nh]! >> 4 !== 4) return false
  // ipip_ecn_decapsulate
  if ((x.flags & XFRM_STATE_NOECN) === 0 && (outer_tos & 3) === 3 && (ip_tos(skb.nh) & 3) !== 0) {
    set_ip_tos(skb.nh, ip_tos(skb.nh) | 3)
    if (skb.len >= ip_hdrlen(skb.nh)) ip_send_check(skb.nh)
  }
  if (skb.mac !== 0 && skb.mac_len > 0 && skb.data - skb.mac_len >= skb.head) {
    u8.copyWithin(skb.data - skb.mac_len, skb.mac, skb.mac + skb.mac_len)
    skb.mac = skb.data - skb.mac_len
  }
  i32.fill(0, skb.cb >> 2, (skb.cb >> 2) + 10)
  return true
}

/** Each state that is to be taken off. @returns what is inside; 0: a packet that comes in anew; below 0: the reason, negative */
function decap_all(skb: sk_buff, first: number, states: xfrm_state[]): number {
  for (let protocol = first; ; ) {
    if (!pskb_may_pull(skb, HLEN[protocol]!)) return -MALFORMED
    const x = xfrm_state_lookup(ip_daddr(skb.nh), spi_of(skb, protocol), protocol)
    if (x === null) return -NO_STATE
    states.push(x)
    if (states.length > XFRM_MAX_DEPTH) return -MALFORMED
    const inner = decap(x, skb, seq_of(skb, protocol))
    if (inner < 0) return inner
    if (x.mode === XFRM_MODE_TUNNEL) return out_of_tunnel(x, skb, inner) ? 0 : -MODE
    if (!is_ipsec(inner)) return inner
    protocol = inner
  }
}

/** xfrm4_rcv - @context softirq @consumes skb, unless it returns below 0: minus the protocol that is at skb.data now */
function xfrm4_rcv(skb: sk_buff): number {
  tick(COST)
  if (skb_linearize(skb) !== 0 || skb_cow(skb, 0) !== 0) {
    kfree_skb(skb, NO_MEMORY)
    return 0
  }
  const states: xfrm_state[] = []
  let inner = decap_all(skb, ip_protocol(skb.nh), states)
  if (inner >= 0) {
    skb.ip_summed = CHECKSUM_NONE
    if (!secpath_add(skb, states)) inner = -NO_MEMORY
  }
  if (inner < 0) {
    for (const x of states) xfrm_state_put(x)
    kfree_skb(skb, -inner)
    return 0
  }
  if (inner > 0) return -inner
  if ((skb.dev!.flags & IFF_LOOPBACK) === 0) {
    dst_release(skb.dst!)
    skb.dst = null
  }
  skb.protocol = ETH_P_IP
  netif_rx(skb)
  return 0
}
export const xfrm4_rcv_sym = symbol('xfrm4_rcv', xfrm4_rcv)
