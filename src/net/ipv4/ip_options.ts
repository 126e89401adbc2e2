/** ip_options.ts - IPv4 options (RFC 791, RFC 1812 5.2.4), in place on the packet's header. No locks. */
import { cost } from '../../arch/cost.js'
import { now_ns, tick } from '../../arch/cpu.js'
import { RAM } from '../../arch/ram.js'
import { PACKET_HOST, type sk_buff } from '../core/types.js'
import { ICMP_PARAMETERPROB } from '../wire/icmp.js'
import {
  IPOPT_END,
  IPOPT_LSRR,
  IPOPT_NOOP,
  IPOPT_RA,
  IPOPT_RR,
  IPOPT_SSRR,
  IPOPT_TIMESTAMP,
  ip_hdrlen,
  ip_saddr,
  ip_tos,
  set_ip_daddr,
} from '../wire/ipv4.js'
import { inet_select_addr } from './devinet.js'
import { inet_addr_type } from './fib_frontend.js'
import { RT_SCOPE_UNIVERSE, RTN_LOCAL, RTN_UNICAST } from './fib_types.js'
import { icmp_send } from './icmp.js'
import { ip_send_check } from './ip_output.js'
import { ip_rt_put } from './route.js'
import { ip_route_input } from './route_slow.js'
import { IPCB, type inet_skb_parm, RTABLE, type rtable } from './types.js'

const COST_OPTIONS = cost('ip_options_compile')

const u8 = RAM.u8
const dv = RAM.dv

export const TS_TSONLY = 0
export const TS_TSANDADDR = 1
export const TS_PRESPEC = 3

/** ms since midnight UT are not known to this machine; the top bit says that the time is of another kind (RFC 791). */
function timestamp(): number {
  return 0x80000000 | (Math.floor(now_ns() / 1e6) & 0x7fffffff) | 0
}

/** The address that this router shows of itself to the record, on the way that the packet leaves. */
export function ip_rt_get_source(rt: rtable): number {
  return rt.fl_iif === 0 ? rt.rt_src : inet_select_addr(rt.dst.dev!, rt.rt_gateway, RT_SCOPE_UNIVERSE)
}

/** Record route: room for one more address? @returns 0, or the offset of the bad byte in the option */
function compile_rr(opt: inet_skb_parm, at: number, len: number, off: number, spec_dst: number): number {
  if (opt.rr !== 0) return -1
  if (len < 3) return 1
  const pointer = u8[at + 2]
  if (pointer < 4) return 2
  if (pointer <= len) {
    if (pointer + 3 > len) return 2
    dv.setInt32(at + pointer - 1, spec_dst)
    u8[at + 2] = pointer + 4
    opt.is_changed = 1
    opt.rr_needaddr = 1
  }
  opt.rr = off
  return 0
}

function compile_srr(opt: inet_skb_parm, at: number, len: number, off: number): number {
  if (len < 3) return 1
  if (u8[at + 2] < 4) return 2
  if (opt.srr !== 0) return -1
  opt.srr = off
  return 0
}

function compile_ts(opt: inet_skb_parm, at: number, len: number, off: number, spec_dst: number): number {
  if (opt.ts !== 0) return -1
  if (len < 4) return 1
  const pointer = u8[at + 2]
  if (pointer < 5) return 2
  if (pointer > len) {
    const overflow = u8[at + 3] >> 4
    if (overflow === 15) return 3
    u8[at + 3] = (u8[at + 3] & 15) | ((overflow + 1) << 4)
    opt.ts = off
    opt.is_changed = 1
    return 0
  }
  if (pointer + 3 > len) return 2
  const kind = u8[at + 3] & 15
  if (kind !== TS_TSONLY && kind !== TS_TSANDADDR && kind !== TS_PRESPEC) return 0 // not for us to understand
  if (kind !== TS_TSONLY && pointer + 7 > len) return 2
  opt.ts = off
  if (kind === TS_TSONLY) {
    dv.setInt32(at + pointer - 1, timestamp())
    u8[at + 2] = pointer + 4
  } else {
    if (kind === TS_PRESPEC && inet_addr_type(dv.getInt32(at + pointer - 1)) !== RTN_LOCAL) return 0 // not our turn
    if (kind === TS_TSANDADDR) {
      dv.setInt32(at + pointer - 1, spec_dst)
      opt.ts_needaddr = 1
    }
    dv.setInt32(at + pointer + 3, timestamp())
    u8[at + 2] = pointer + 8
  }
  opt.ts_needtime = 1
  opt.is_changed = 1
  return 0
}

/**
 * ip_options_compile - check the options of a received packet and note where they are; record route and timestamp get
 * their entry. @returns 0, or minus the offset from the header of the byte that is wrong
 */
export function ip_options_compile(skb: sk_buff, opt: inet_skb_parm, iph: number): number {
  tick(COST_OPTIONS)
  const hlen = ip_hdrlen(iph)
  const dst = skb.dst
  const spec_dst = dst === null ? 0 : RTABLE.ref(dst.addr).rt_spec_dst
  opt.optlen = hlen - 20
  let off = 20
  while (off < hlen) {
    const at = iph + off
    const kind = u8[at]
    if (kind === IPOPT_END) {
      pad(opt, iph, off, hlen)
      break
    }
    if (kind === IPOPT_NOOP) {
      off++
      continue
    }
    const len = off + 1 < hlen ? u8[at + 1] : 0
    if (len < 2 || off + len > hlen) return -off
    let bad = 0
    if (kind === IPOPT_SSRR || kind === IPOPT_LSRR) bad = compile_srr(opt, at, len, off)
    else if (kind === IPOPT_RR) bad = compile_rr(opt, at, len, off, spec_dst)
    else if (kind === IPOPT_TIMESTAMP) bad = compile_ts(opt, at, len, off, spec_dst)
    else if (kind === IPOPT_RA) {
      if (len < 4) bad = 1
      else if (u8[at + 2] === 0 && u8[at + 3] === 0) opt.router_alert = off
    }
    if (bad !== 0) return -(off + Math.max(bad, 0))
    off += len
  }
  return 0
}

/** After the end of the list there is nothing but zeros. */
function pad(opt: inet_skb_parm, iph: number, from: number, hlen: number): void {
  for (let k = from; k < hlen; k++) {
    if (u8[iph + k] !== IPOPT_END) {
      u8[iph + k] = IPOPT_END
      opt.is_changed = 1
    }
  }
}

/** ip_options_rcv_srr - we are a stop of a source route: find the next one and route to it. @returns 0, -EINVAL */
export function ip_options_rcv_srr(skb: sk_buff): number {
  const opt = IPCB.ref(skb.cb)
  const iph = skb.nh
  const at = iph + opt.srr
  const strict = u8[at] === IPOPT_SSRR
  if (skb.pkt_type !== PACKET_HOST) return -22
  const type = RTABLE.ref(skb.dst!.addr).rt_type
  if (type === RTN_UNICAST) {
    if (!strict) return 0
    icmp_send(skb, ICMP_PARAMETERPROB, 0, 16 << 24)
    return -22
  }
  if (type !== RTN_LOCAL) return -22
  const space = u8[at + 1]
  let pointer = u8[at + 2]
  for (; pointer <= space; pointer += 4) {
    if (pointer + 3 > space) {
      icmp_send(skb, ICMP_PARAMETERPROB, 0, (opt.srr + 2) << 24)
      return -22
    }
    const nexthop = dv.getInt32(at + pointer - 1)
    const old = skb.dst!
    skb.dst = null
    const reason = ip_route_input(skb, nexthop, ip_saddr(iph), ip_tos(iph), skb.dev!)
    const rt = skb.dst as typeof old | null
    const found = rt === null ? 0 : RTABLE.ref(rt.addr).rt_type
    if (reason !== 0 || (found !== RTN_UNICAST && found !== RTN_LOCAL)) {
      if (rt !== null) ip_rt_put(RTABLE.ref(rt.addr))
      skb.dst = old
      return -22
    }
    ip_rt_put(RTABLE.ref(old.addr))
    if (found !== RTN_LOCAL) break
    set_ip_daddr(iph, nexthop) // the next stop is this machine again
    u8[at + 2] = pointer + 4
    opt.is_changed = 1
  }
  if (pointer <= space) {
    opt.srr_is_hit = strict ? 2 : 1
    opt.is_changed = 1
  } else if (opt.is_changed !== 0) {
    opt.is_changed = 0
    ip_send_check(iph)
  }
  return 0
}

/** ip_forward_options - a packet with options goes on: our own address into the records. */
export function ip_forward_options(skb: sk_buff): void {
  const opt = IPCB.ref(skb.cb)
  const rt = RTABLE.ref(skb.dst!.addr)
  const iph = skb.nh
  if (opt.rr_needaddr !== 0) {
    const at = iph + opt.rr
    dv.setInt32(at + u8[at + 2] - 5, ip_rt_get_source(rt))
    opt.is_changed = 1
  }
  if (opt.srr_is_hit !== 0) forward_srr(opt, rt, iph)
  if (opt.ts_needaddr !== 0) {
    const at = iph + opt.ts
    dv.setInt32(at + u8[at + 2] - 9, ip_rt_get_source(rt))
    opt.is_changed = 1
  }
  if (opt.is_changed !== 0) {
    opt.is_changed = 0
    ip_send_check(iph)
  }
}

/** Our address takes the place of the next stop, which becomes the destination. */
function forward_srr(opt: inet_skb_parm, rt: rtable, iph: number): void {
  const at = iph + opt.srr
  const space = u8[at + 1]
  for (let pointer = u8[at + 2]; pointer + 3 <= space; pointer += 4) {
    if (dv.getInt32(at + pointer - 1) !== rt.rt_dst) continue
    dv.setInt32(at + pointer - 1, ip_rt_get_source(rt))
    set_ip_daddr(iph, rt.rt_dst)
    u8[at + 2] = pointer + 4
    opt.is_changed = 1
    return
  }
}

/** ip_options_fragment - options that belong in the first fragment only become no-operations in the others. */
export function ip_options_fragment(iph: number): void {
  const hlen = ip_hdrlen(iph)
  for (let off = 20; off < hlen; ) {
    const kind = u8[iph + off]
    if (kind === IPOPT_END) return
    if (kind === IPOPT_NOOP) {
      off++
      continue
    }
    const len = off + 1 < hlen ? u8[iph + off + 1] : 0
    if (len < 2 || off + len > hlen) return
    if ((kind & 0x80) === 0) u8.fill(IPOPT_NOOP, iph + off, iph + off + len)
    off += len
  }
}
