/**
 * ip_options_sock.ts - IP options that a program gives a socket or one message, those that an answer carries back, and how they
 * get into a header (net/ipv4/ip_options.c of 2.6.11). No locks; a socket's options belong to who owns it.
 */
import { bytes, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { now_ns } from '../../arch/cpu.js'
import { memcpy, memzero, RAM } from '../../arch/ram.js'
import { EFAULT, EINVAL, ENOMEM } from '../../lib/errno.js'
import { kfree, kmalloc } from '../../mm/kmalloc.js'
import { copy_from_user } from '../../sched/mm.js'
import { local_bh_disable, local_bh_enable } from '../../sync/bh.js'
import { capable } from '../core/sock_opt.js'
import type { sk_buff } from '../core/types.js'
import {
  IPOPT_END,
  IPOPT_LSRR,
  IPOPT_NOOP,
  IPOPT_RA,
  IPOPT_RR,
  IPOPT_SSRR,
  IPOPT_TIMESTAMP,
  ip_daddr,
  ip_saddr,
} from '../wire/ipv4.js'
import { inet_addr_type } from './fib_frontend.js'
import { RTN_LOCAL, RTN_UNICAST } from './fib_types.js'
import { ip_rt_get_source, TS_PRESPEC, TS_TSANDADDR, TS_TSONLY } from './ip_options.js'
import { IPCB, RTABLE, type rtable } from './types.js'

const u8 = RAM.u8
const dv = RAM.dv

/** Bytes of options that a header has room for. */
export const MAX_IPOPTLEN = 40

export class ip_options extends Struct {
  declare optlen: number
  declare faddr: number
  declare srr: number
  declare rr: number
  declare ts: number
  declare is_strictroute: number
  declare rr_needaddr: number
  declare ts_needtime: number
  declare ts_needaddr: number
  declare data: number
}
/** Offsets count from the beginning of an IP header that `data` lies behind; 0 means absent. */
export const IP_OPTIONS: Layout<ip_options> = layout('ip_options', ip_options, {
  optlen: word,
  faddr: word, // the first stop of a source route
  srr: word,
  rr: word,
  ts: word,
  is_strictroute: word,
  rr_needaddr: word, // each packet gets our address, or the time
  ts_needtime: word,
  ts_needaddr: word,
  data: bytes(MAX_IPOPTLEN),
})

// ---- from the program -----------------------------------------------------------------------------------------------

/** A source route: its first stop is where packets are sent, the destination comes last. */
function compile_srr(opt: ip_options, at: number, len: number, off: number): boolean {
  if (len < 7 || u8[at + 2] !== 4 || ((len - 3) & 3) !== 0 || opt.srr !== 0) return false
  opt.faddr = dv.getInt32(at + 3)
  if (len > 7) u8.copyWithin(at + 3, at + 7, at + len)
  opt.is_strictroute = u8[at] === IPOPT_SSRR ? 1 : 0
  opt.srr = off
  return true
}
function compile_rr(opt: ip_options, at: number, len: number, off: number): boolean {
  if (opt.rr !== 0 || len < 3 || u8[at + 2] < 4) return false
  if (u8[at + 2] <= len) {
    if (u8[at + 2] + 3 > len) return false
    u8[at + 2] += 4
    opt.rr_needaddr = 1
  }
  opt.rr = off
  return true
}
function compile_ts(opt: ip_options, at: number, len: number, off: number): boolean {
  if (opt.ts !== 0 || len < 4 || u8[at + 2] < 5) return false
  const pointer = u8[at + 2]
  if (pointer > len) {
    opt.ts = off
    return u8[at + 3] >> 4 < 15 // only who receives it counts that there was no room
  }
  const kind = u8[at + 3] & 15
  if (pointer + 3 > len) return false
  if (kind !== TS_TSONLY && kind !== TS_TSANDADDR && kind !== TS_PRESPEC) return capable()
  if (kind !== TS_TSONLY && pointer + 7 > len) return false
  opt.ts = off
  if (kind === TS_PRESPEC && inet_addr_type(dv.getInt32(at + pointer - 1)) === RTN_UNICAST) return true
  opt.ts_needtime = 1
  opt.ts_needaddr = kind === TS_TSANDADDR ? 1 : 0
  u8[at + 2] = pointer + (kind === TS_TSONLY ? 4 : 8)
  return true
}

/** Check what a program wants, and note where it is. @returns false: it makes no sense */
function compile(opt: ip_options): boolean {
  for (let off = 0; off < opt.optlen; ) {
    const at = opt.data + off
    const kind = u8[at]
    if (kind === IPOPT_END) {
      u8.fill(IPOPT_END, at, opt.data + opt.optlen)
      return true
    }
    if (kind === IPOPT_NOOP) {
      off++
      continue
    }
    const len = off + 1 < opt.optlen ? u8[at + 1] : 0
    if (len < 2 || off + len > opt.optlen) return false
    const place = off + 20
    let good = true
    if (kind === IPOPT_SSRR || kind === IPOPT_LSRR) good = compile_srr(opt, at, len, place)
    else if (kind === IPOPT_RR) good = compile_rr(opt, at, len, place)
    else if (kind === IPOPT_TIMESTAMP) good = compile_ts(opt, at, len, place)
    else if (kind === IPOPT_RA) good = len >= 4
    else good = capable() // root may say what nobody understands
    if (!good) return false
    off += len
  }
  return true
}

/** ip_options_get - the program's options. @context process @returns their address, owned; 0: none were given; -errno */
export function ip_options_get(from: number, len: number): number {
  const addr = kmalloc(IP_OPTIONS.size)
  if (addr === 0) return -ENOMEM
  const opt = IP_OPTIONS.ref(addr)
  if (len > 0 && copy_from_user(opt.data, from, len) !== 0) {
    kfree(addr)
    return -EFAULT
  }
  opt.optlen = (len + 3) & ~3
  local_bh_disable()
  const good = compile(opt)
  local_bh_enable()
  if (good && len > 0) return addr
  kfree(addr)
  return good ? 0 : -EINVAL
}

/** ip_options_copy - for a datagram that is put together. @returns owned address, or 0 */
export function ip_options_copy(from: number): number {
  const addr = kmalloc(IP_OPTIONS.size)
  if (addr !== 0) memcpy(addr, from, IP_OPTIONS.size)
  return addr
}

/** ip_options_undo - as the program said them. */
export function ip_options_undo(opt: ip_options): void {
  if (opt.srr !== 0) {
    const at = opt.data + opt.srr - 20
    u8.copyWithin(at + 7, at + 3, at + u8[at + 1] - 4)
    dv.setInt32(at + 3, opt.faddr)
  }
  if (opt.rr_needaddr !== 0) take_back(opt.data + opt.rr - 20)
  if (opt.ts === 0) return
  const at = opt.data + opt.ts - 20
  if (opt.ts_needtime !== 0) {
    take_back(at)
    if ((u8[at + 3] & 15) === TS_PRESPEC) u8[at + 2] -= 4
  }
  if (opt.ts_needaddr !== 0) take_back(at)
}
function take_back(at: number): void {
  u8[at + 2] -= 4
  dv.setInt32(at + u8[at + 2] - 1, 0)
}

// ---- into a packet --------------------------------------------------------------------------------------------------

/** ip_options_build - behind the header of a packet of ours; `daddr` is where it is for in the end. @context process, softirq */
export function ip_options_build(iph: number, opt: ip_options, daddr: number, rt: rtable): void {
  memcpy(iph + 20, opt.data, opt.optlen)
  if (opt.srr !== 0) dv.setInt32(iph + opt.srr + u8[iph + opt.srr + 1] - 4, daddr)
  if (opt.rr_needaddr !== 0) dv.setInt32(iph + opt.rr + u8[iph + opt.rr + 2] - 5, ip_rt_get_source(rt))
  if (opt.ts_needaddr !== 0) {
    const behind = opt.ts_needtime !== 0 ? 9 : 5
    dv.setInt32(iph + opt.ts + u8[iph + opt.ts + 2] - behind, ip_rt_get_source(rt))
  }
  // ms since midnight UT are not known to this machine; the top bit says so (RFC 791).
  if (opt.ts_needtime !== 0)
    dv.setInt32(iph + opt.ts + u8[iph + opt.ts + 2] - 5, 0x80000000 | (Math.floor(now_ns() / 1e6) & 0x7fffffff) | 0)
}

// ---- back to who sent them ------------------------------------------------------------------------------------------

function echo_rr(opt: ip_options, from: number, to: number, need: boolean): boolean {
  const len = u8[from + 1]
  const pointer = u8[from + 2]
  opt.rr = opt.optlen + 20
  memcpy(to, from, len)
  if (need && pointer <= len) {
    if (pointer + 3 > len) return false
    u8[to + 2] = pointer + 4
    opt.rr_needaddr = 1
  }
  opt.optlen += len
  return true
}

function echo_ts(opt: ip_options, from: number, to: number, needaddr: boolean, needtime: boolean): boolean {
  const len = u8[from + 1]
  let pointer = u8[from + 2]
  opt.ts = opt.optlen + 20
  memcpy(to, from, len)
  opt.optlen += len
  if (pointer > len) return true
  if (needaddr) {
    if (pointer + 3 > len) return false
    opt.ts_needaddr = 1
    pointer += 4
  }
  if (needtime) {
    if (pointer + 3 > len) return false
    if ((u8[to + 3] & 15) !== TS_PRESPEC) {
      opt.ts_needtime = 1
      pointer += 4
    } else if (pointer + 8 <= len && inet_addr_type(dv.getInt32(from + pointer - 1)) !== RTN_LOCAL) {
      opt.ts_needtime = 1
      pointer += 8
    }
  }
  u8[to + 2] = pointer
  return true
}

/** The way back of a source route: its stops in the other order. */
function echo_srr(opt: ip_options, from: number, to: number, saddr: number, daddr: number): void {
  const len = u8[from + 1]
  let pointer = Math.min(u8[from + 2], len + 1) - 4
  let filled = 0
  let first = 0
  if (pointer > 3) {
    first = dv.getInt32(from + pointer - 1)
    for (pointer -= 4, filled = 4; pointer > 3; pointer -= 4, filled += 4)
      dv.setInt32(to + filled - 1, dv.getInt32(from + pointer - 1))
    if (dv.getInt32(from + pointer + 3) === saddr) filled -= 4 // RFC 1812: a route that names its beginning
  }
  if (filled <= 3) return
  dv.setInt32(to + filled - 1, daddr)
  opt.faddr = first
  u8[to] = u8[from]
  u8[to + 1] = filled + 3
  u8[to + 2] = 4
  opt.srr = opt.optlen + 20
  opt.optlen += filled + 3
  opt.is_strictroute = u8[from] === IPOPT_SSRR ? 1 : 0
}

/** ip_options_echo - options of an answer to this packet. @context softirq, process @returns false: they make no sense */
export function ip_options_echo(opt: ip_options, skb: sk_buff): boolean {
  memzero(opt.addr, IP_OPTIONS.size)
  const cb = IPCB.ref(skb.cb)
  if (cb.optlen === 0) return true
  const iph = skb.nh
  const daddr = skb.dst === null ? ip_daddr(iph) : RTABLE.ref(skb.dst.addr).rt_spec_dst
  if (cb.rr !== 0 && !echo_rr(opt, iph + cb.rr, opt.data, cb.rr_needaddr !== 0)) return false
  if (cb.ts !== 0) {
    const good = echo_ts(opt, iph + cb.ts, opt.data + opt.optlen, cb.ts_needaddr !== 0, cb.ts_needtime !== 0)
    if (!good) return false
  }
  if (cb.srr !== 0) echo_srr(opt, iph + cb.srr, opt.data + opt.optlen, ip_saddr(iph), daddr)
  while ((opt.optlen & 3) !== 0) u8[opt.data + opt.optlen++] = IPOPT_END
  return true
}
