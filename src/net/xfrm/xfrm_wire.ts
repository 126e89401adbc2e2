/** xfrm_wire.ts - the structs of NETLINK_XFRM as i386 lays them out: read and written at an address. Numbers in the host's order, addresses, SPIs and ports in the network's. */
import { RAM } from '../../arch/ram.js'
import {
  CUR_BYTES,
  CUR_USE_TIME,
  LFT_HARD_PACKETS,
  LFT_HARD_USE,
  LFT_SOFT_BYTES,
  TMPL,
  type xfrm_policy,
  type xfrm_selector,
  type xfrm_state,
} from './types.js'
import { aalg_of, calg_of, ealg_of } from './xfrm_algo.js'

const dv = RAM.dv
const u8 = RAM.u8
const f64 = RAM.f64
const AF_INET = 2

export const USERSA_INFO = 220
export const USERSA_ID = 24
export const USERSPI_INFO = 228
export const USERPOLICY_INFO = 164
export const USERPOLICY_ID = 64
export const USER_TMPL = 64
export const USER_ACQUIRE = 276
export const USER_EXPIRE = 224
export const USER_POLEXPIRE = 168
export const ALGO_NAME = 64
export const ALGO = 68

export function get_selector(sel: xfrm_selector, at: number): void {
  sel.daddr = dv.getInt32(at)
  sel.saddr = dv.getInt32(at + 16)
  sel.dport = dv.getUint16(at + 32)
  sel.dport_mask = dv.getUint16(at + 34)
  sel.sport = dv.getUint16(at + 36)
  sel.sport_mask = dv.getUint16(at + 38)
  sel.family = dv.getUint16(at + 40, true)
  sel.prefixlen_d = u8[at + 42]!
  sel.prefixlen_s = u8[at + 43]!
  sel.proto = u8[at + 44]!
  sel.ifindex = dv.getInt32(at + 48, true)
  sel.user = dv.getInt32(at + 52, true)
}
function put_selector(sel: xfrm_selector, at: number): void {
  dv.setInt32(at, sel.daddr)
  dv.setInt32(at + 16, sel.saddr)
  dv.setUint16(at + 32, sel.dport)
  dv.setUint16(at + 34, sel.dport_mask)
  dv.setUint16(at + 36, sel.sport)
  dv.setUint16(at + 38, sel.sport_mask)
  dv.setUint16(at + 40, AF_INET, true)
  u8[at + 42] = sel.prefixlen_d
  u8[at + 43] = sel.prefixlen_s
  u8[at + 44] = sel.proto
  dv.setInt32(at + 48, sel.ifindex, true)
  dv.setInt32(at + 52, sel.user, true)
}

function get_u64(at: number): number {
  return dv.getUint32(at + 4, true) * 4294967296 + dv.getUint32(at, true)
}
function put_u64(at: number, n: number): void {
  dv.setUint32(at, n === Infinity ? 0xffffffff : n % 4294967296, true)
  dv.setUint32(at + 4, n === Infinity ? 0xffffffff : Math.floor(n / 4294967296), true)
}
/** Limits; all ones means none. `lft`: of a state or a policy. */
export function get_lifetimes(lft: number, at: number): void {
  for (let k = LFT_SOFT_BYTES; k <= LFT_HARD_USE; k++) {
    const n = get_u64(at + k * 8)
    f64[(lft >> 3) + k] = k <= LFT_HARD_PACKETS && n >= 2 ** 63 ? Infinity : n
  }
}
function put_lifetimes(lft: number, at: number): void {
  for (let k = LFT_SOFT_BYTES; k <= LFT_HARD_USE; k++) put_u64(at + k * 8, f64[(lft >> 3) + k]!)
}
function put_current(lft: number, at: number): void {
  for (let k = CUR_BYTES; k <= CUR_USE_TIME; k++) put_u64(at + (k - CUR_BYTES) * 8, f64[(lft >> 3) + k]!)
}

/** struct xfrm_usersa_info -> a state that is in no database yet. */
export function get_state(x: xfrm_state, at: number): void {
  get_selector(x.sel, at)
  x.daddr = dv.getInt32(at + 56)
  x.spi = dv.getInt32(at + 72)
  x.proto = u8[at + 76]!
  x.saddr = dv.getInt32(at + 80)
  get_lifetimes(x.lft, at + 96)
  x.acq_seq = dv.getInt32(at + 204, true)
  x.reqid = dv.getInt32(at + 208, true)
  x.mode = u8[at + 214]!
  x.replay_window = Math.min(u8[at + 215]!, 32)
  x.flags = u8[at + 216]!
}
export function put_state(x: xfrm_state, at: number): void {
  put_selector(x.sel, at)
  dv.setInt32(at + 56, x.daddr)
  dv.setInt32(at + 72, x.spi)
  u8[at + 76] = x.proto
  dv.setInt32(at + 80, x.saddr)
  put_lifetimes(x.lft, at + 96)
  put_current(x.lft, at + 160)
  dv.setInt32(at + 192, x.stat_replay_window, true)
  dv.setInt32(at + 196, x.stat_replay, true)
  dv.setInt32(at + 200, x.stat_integrity_failed, true)
  dv.setInt32(at + 204, x.acq_seq, true)
  dv.setInt32(at + 208, x.reqid, true)
  dv.setUint16(at + 212, AF_INET, true)
  u8[at + 214] = x.mode
  u8[at + 215] = x.replay_window
  u8[at + 216] = x.flags
}

/** struct xfrm_algo: name, bits of the key, key. */
export function algo_name(at: number): string {
  let name = ''
  for (let k = 0; k < ALGO_NAME && u8[at + k] !== 0; k++) name += String.fromCharCode(u8[at + k]!)
  return name
}
export function algo_bits(at: number): number {
  return dv.getInt32(at + ALGO_NAME, true)
}
export function put_algo(at: number, name: string, bits: number, key: number): void {
  for (let k = 0; k < name.length; k++) u8[at + k] = name.charCodeAt(k)
  dv.setInt32(at + ALGO_NAME, bits, true)
  u8.copyWithin(at + ALGO, key, key + ((bits + 7) >> 3))
}
/** The algorithms of a state, for attributes 1 to 3: [type, name, bits, address of the key]. */
export function algos_of(x: xfrm_state): [type: number, name: string, bits: number, key: number][] {
  const all: [number, string, number, number][] = []
  if (x.aalg !== 0) all.push([1, aalg_of(x.aalg).name, x.aalg_bits, x.akey])
  if (x.ealg !== 0) all.push([2, ealg_of(x.ealg).name, x.ealg_bits, x.ekey])
  if (x.calg !== 0) all.push([3, calg_of(x.calg).name, 0, 0])
  return all
}

/** struct xfrm_userpolicy_info -> a policy that is in no list yet. */
export function get_policy(p: xfrm_policy, at: number): void {
  get_selector(p.sel, at)
  get_lifetimes(p.lft, at + 56)
  p.priority = dv.getInt32(at + 152, true)
  p.index = dv.getInt32(at + 156, true)
  p.dir = u8[at + 160]!
  p.action = u8[at + 161]!
  p.flags = u8[at + 162]!
  p.share = u8[at + 163]!
}
export function put_policy(p: xfrm_policy, at: number): void {
  put_selector(p.sel, at)
  put_lifetimes(p.lft, at + 56)
  put_current(p.lft, at + 120)
  dv.setInt32(at + 152, p.priority, true)
  dv.setInt32(at + 156, p.index, true)
  u8[at + 160] = p.dir
  u8[at + 161] = p.action
  u8[at + 162] = p.flags
  u8[at + 163] = p.share
}
const TMPL_WORDS = ['reqid', 'aalgos', 'ealgos', 'calgos'] as const
const TMPL_AT = [44, 52, 56, 60] as const
/** struct xfrm_user_tmpl, number `k` of a policy. */
export function get_tmpl(p: xfrm_policy, k: number, at: number): void {
  const t = TMPL.ref(p.vec + k * TMPL.size)
  t.daddr = dv.getInt32(at)
  t.spi = dv.getInt32(at + 16)
  t.proto = u8[at + 20]!
  t.saddr = dv.getInt32(at + 28)
  TMPL_WORDS.forEach((field, n) => {
    t[field] = dv.getInt32(at + TMPL_AT[n]!, true)
  })
  t.mode = u8[at + 48]!
  t.share = u8[at + 49]!
  t.optional = u8[at + 50]!
}
export function put_tmpl(p: xfrm_policy, k: number, at: number): void {
  const t = TMPL.ref(p.vec + k * TMPL.size)
  dv.setInt32(at, t.daddr)
  dv.setInt32(at + 16, t.spi)
  u8[at + 20] = t.proto
  dv.setUint16(at + 24, AF_INET, true)
  dv.setInt32(at + 28, t.saddr)
  TMPL_WORDS.forEach((field, n) => {
    dv.setInt32(at + TMPL_AT[n]!, t[field], true)
  })
  u8[at + 48] = t.mode
  u8[at + 49] = t.share
  u8[at + 50] = t.optional
}
/** What a state to be negotiated is for, in an XFRM_MSG_ACQUIRE. */
export function put_acquire(
  x: xfrm_state,
  t: { aalgos: number; ealgos: number; calgos: number },
  p: xfrm_policy,
  at: number,
): void {
  dv.setInt32(at, x.daddr)
  dv.setInt32(at + 16, x.spi)
  u8[at + 20] = x.proto
  dv.setInt32(at + 24, x.saddr)
  put_selector(x.sel, at + 40)
  put_policy(p, at + 96)
  dv.setInt32(at + 260, t.aalgos, true)
  dv.setInt32(at + 264, t.ealgos, true)
  dv.setInt32(at + 268, t.calgos, true)
  dv.setInt32(at + 272, x.acq_seq, true)
}
