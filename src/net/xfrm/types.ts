/** types.ts - the structs of the transformation framework; no behaviour. */
import { atomic, by, bytes, embed, konst, type Layout, layout, own, Struct, word } from '../../abi/layout.js'
import type { Sym } from '../../abi/symbol.js'
import { TIMER, type timer_list } from '../../irq/timer.js'
import { SPINLOCK, type spinlock_t } from '../../sync/spinlock.js'

export const XFRM_MAX_DEPTH = 4 // 2.6.11 has 4
export const XFRM_POLICY_IN = 0
export const XFRM_POLICY_OUT = 1
export const XFRM_POLICY_FWD = 2
export const XFRM_POLICY_MAX = 3
export const XFRM_POLICY_ALLOW = 0
export const XFRM_POLICY_BLOCK = 1
export const XFRM_MODE_TRANSPORT = 0
export const XFRM_MODE_TUNNEL = 1
// km_state
export const XFRM_STATE_VOID = 0
export const XFRM_STATE_ACQ = 1
export const XFRM_STATE_VALID = 2
export const XFRM_STATE_ERROR = 3
export const XFRM_STATE_EXPIRED = 4
export const XFRM_STATE_DEAD = 5
export const XFRM_STATE_NOECN = 1
/** Seconds that a state may wait for somebody to negotiate it. */
export const XFRM_ACQ_EXPIRES = 30
/** Bytes of the largest key. */
export const XFRM_MAX_KEY = 64
export const XFRM_INF = Infinity

/** What a packet is asked for: struct flowi. Ports of ICMP: its type and code. Lives on the stack. */
export interface Flow {
  daddr: number
  saddr: number
  proto: number
  sport: number
  dport: number
  oif: number
  tos: number
}

export class xfrm_selector extends Struct {
  declare daddr: number
  declare saddr: number
  declare dport: number
  declare dport_mask: number
  declare sport: number
  declare sport_mask: number
  declare prefixlen_d: number
  declare prefixlen_s: number
  declare proto: number
  declare ifindex: number
  declare user: number
  declare family: number
}
export const SELECTOR: Layout<xfrm_selector> = layout('xfrm_selector', xfrm_selector, {
  daddr: konst(word),
  saddr: konst(word),
  dport: konst(word),
  dport_mask: konst(word),
  sport: konst(word),
  sport_mask: konst(word),
  prefixlen_d: konst(word),
  prefixlen_s: konst(word),
  proto: konst(word), // 0: any
  ifindex: konst(word), // 0: any
  user: konst(word),
  family: konst(word),
})

/** struct xfrm_lifetime_cfg, as doubles; XFRM_INF is Infinity. Offsets in doubles. */
export const LFT_SOFT_BYTES = 0
export const LFT_HARD_BYTES = 1
export const LFT_SOFT_PACKETS = 2
export const LFT_HARD_PACKETS = 3
export const LFT_SOFT_ADD = 4 // seconds since it was added; 0: for ever
export const LFT_HARD_ADD = 5
export const LFT_SOFT_USE = 6 // seconds since it was first used
export const LFT_HARD_USE = 7
/** struct xfrm_lifetime_cur, behind it. */
export const CUR_BYTES = 8
export const CUR_PACKETS = 9
export const CUR_ADD_TIME = 10
export const CUR_USE_TIME = 11
const LIFETIMES = { kind: 'bytes', size: 12 * 8, align: 8 } as const

export class xfrm_state extends Struct {
  declare bydst: number
  declare byspi: number
  declare refcnt: number
  declare daddr: number
  declare saddr: number
  declare spi: number
  declare proto: number
  declare reqid: number
  declare mode: number
  declare flags: number
  declare replay_window: number
  declare sel: xfrm_selector
  declare aalg: number
  declare aalg_bits: number
  declare akey: number
  declare ealg: number
  declare ealg_bits: number
  declare ekey: number
  declare calg: number
  declare header_len: number
  declare trailer_len: number
  declare type: Sym<xfrm_type>
  declare type_mod: number
  declare tunnel: number
  declare tunnel_users: number
  declare lock: spinlock_t
  declare state: number
  declare dying: number
  declare acq_seq: number
  declare lft: number
  declare ivec: number
  declare replay_oseq: number
  declare replay_seq: number
  declare replay_bitmap: number
  declare stat_replay_window: number
  declare stat_replay: number
  declare stat_integrity_failed: number
  declare timer: timer_list
}
/** A security association. Constant once it is in the database, but for what its lock guards. */
export const STATE: Layout<xfrm_state> = layout('xfrm_state', xfrm_state, {
  bydst: by('xfrm_state_lock', word), // chains of the database, by address
  byspi: by('xfrm_state_lock', word),
  refcnt: atomic(word),
  daddr: konst(word),
  saddr: konst(word),
  spi: konst(word), // as a number; 0: none yet
  proto: konst(word),
  reqid: konst(word),
  mode: konst(word),
  flags: konst(word),
  replay_window: konst(word),
  sel: embed(SELECTOR),
  aalg: konst(word), // number in the table of algorithms, 0: none
  aalg_bits: konst(word),
  akey: konst(bytes(XFRM_MAX_KEY)),
  ealg: konst(word),
  ealg_bits: konst(word),
  ekey: konst(bytes(XFRM_MAX_KEY)),
  calg: konst(word),
  header_len: konst(word), // bytes in front, an outer IP header among them
  trailer_len: konst(word), // bytes behind, at most
  type: konst(word),
  type_mod: konst(word), // address of the module that it comes from, with a reference
  tunnel: konst(word), // address of the state of what comes through its tunnel as it is, with a reference and a use; 0: none
  tunnel_users: atomic(word), // of such a state: who uses it, and 1; 0: of any other. Changed under xfrm_state_lock
  lock: embed(SPINLOCK),
  state: atomic(word), // XFRM_STATE_*: changed under the lock
  dying: by('lock', word), // its soft limit has been told of
  acq_seq: konst(word),
  lft: by('lock', LIFETIMES),
  ivec: by('lock', bytes(16)), // of the next packet
  replay_oseq: by('lock', word),
  replay_seq: by('lock', word),
  replay_bitmap: by('lock', word),
  stat_replay_window: by('lock', word), // packets older than the window
  stat_replay: by('lock', word), // packets seen before
  stat_integrity_failed: by('lock', word),
  timer: embed(TIMER), // pending: it holds a reference
})

/** A protocol of transformations. Packets: under the lock of the state, with bottom halves off. */
export interface xfrm_type {
  proto: number
  /** Fills in what follows from the algorithms. Called without locks. @context process @returns 0, -EINVAL */
  init_state(x: xfrm_state): Generator<void, number, void>
  /** The packet, whose header lies at skb.h, as it was before. @returns the protocol inside; -ENOMEM; below 0: it is not sound */
  input(x: xfrm_state, skb: import('../core/types.js').sk_buff): number
  /** skb.nh is its header, with room in front. @returns 0, -errno */
  output(x: xfrm_state, skb: import('../core/types.js').sk_buff): number
  /** The largest packet that goes through without growing beyond `mtu`. */
  max_size(x: xfrm_state, mtu: number): number
}

export class xfrm_tmpl extends Struct {
  declare daddr: number
  declare saddr: number
  declare spi: number
  declare proto: number
  declare reqid: number
  declare mode: number
  declare share: number
  declare optional: number
  declare aalgos: number
  declare ealgos: number
  declare calgos: number
}
/** What a policy asks for. */
export const TMPL: Layout<xfrm_tmpl> = layout('xfrm_tmpl', xfrm_tmpl, {
  daddr: konst(word),
  saddr: konst(word),
  spi: konst(word),
  proto: konst(word),
  reqid: konst(word),
  mode: konst(word),
  share: konst(word),
  optional: konst(word), // level use
  aalgos: konst(word),
  ealgos: konst(word),
  calgos: konst(word),
})

export class xfrm_policy extends Struct {
  declare next: number
  declare refcnt: number
  declare lock: spinlock_t
  declare dead: number
  declare bundles: number
  declare dir: number
  declare priority: number
  declare index: number
  declare action: number
  declare flags: number
  declare share: number
  declare sel: xfrm_selector
  declare lft: number
  declare xfrm_nr: number
  declare vec: number
  declare timer: timer_list
}
export const POLICY: Layout<xfrm_policy> = layout('xfrm_policy', xfrm_policy, {
  next: by('xfrm_policy_lock', word),
  refcnt: atomic(word),
  lock: embed(SPINLOCK),
  dead: by('lock', word),
  bundles: by('lock', word), // address of the first dst_entry, linked by `next`
  dir: konst(word),
  priority: konst(word), // unsigned
  index: konst(word),
  action: konst(word),
  flags: konst(word),
  share: konst(word),
  sel: embed(SELECTOR),
  lft: by('lock', LIFETIMES),
  xfrm_nr: konst(word),
  vec: konst(bytes(XFRM_MAX_DEPTH * TMPL.size)),
  timer: embed(TIMER),
})

export class sec_path extends Struct {
  declare refcnt: number
  declare destroy: Sym<(sp: number) => void>
  declare len: number
  declare x: number
}
/** Which states a packet has come through, each with a reference: skb.sp. */
export const SEC_PATH: Layout<sec_path> = layout('sec_path', sec_path, {
  refcnt: atomic(word),
  destroy: konst(word),
  len: own(word),
  x: own(bytes(XFRM_MAX_DEPTH * 4)),
})
