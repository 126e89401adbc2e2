/**
 * ip_nat_core.ts - address translation (ip_nat_core.c): what a connection is mapped to, found once for its first packet, and how
 * that is done to each of its packets, and to the ICMP errors about them.
 *
 * Lock charter
 *   ip_nat_lock (nat.lock) guards `bysource`: connections by their original source, so that one source is mapped to one. Taken
 *   with bottom halves off; nothing is locked under it.
 *   What a connection is mapped to is its reply tuple: the CPU that works on its first packet changes it until it is confirmed
 *   (two of them that choose the same: the second one's packet is dropped when it is to be confirmed).
 *   A connection is in `bysource` from when its source is settled: its reply tuple does not change any more. 2.6.11 puts it there
 *   at the first manipulation, and find_appropriate_src of another CPU may read a tuple that is half changed.
 */
import { by, bytes, embed, type Layout, layout, own, Struct } from '../../../abi/layout.js'
import { INIT_LIST_HEAD, LIST, list_add, list_del_init, list_empty } from '../../../abi/list.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../../../abi/section.js'
import { symbol } from '../../../abi/symbol.js'
import { fetch_and } from '../../../arch/atomic.js'
import { BUG_ON } from '../../../arch/cpu.js'
import { RAM } from '../../../arch/ram.js'
import { csum_fold, csum_partial } from '../../../lib/checksum.js'
import { jhash_2words, jhash_3words } from '../../../lib/jhash.js'
import { CONNTRACK_BUCKETS } from '../../../lib/limits.js'
import {
  RWLOCK,
  read_lock_bh,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../../../sync/rwlock.js'
import { NF_ACCEPT, NF_DROP, NF_IP_LOCAL_IN, NF_IP_POST_ROUTING } from '../../core/netfilter.js'
import { skb_cow } from '../../core/skbuff.js'
import { CHECKSUM_UNNECESSARY, type sk_buff } from '../../core/types.js'
import { ICMP_HLEN, ICMP_REDIRECT, icmp_type, set_icmp_checksum } from '../../wire/icmp.js'
import { ip_hdrlen, ip_protocol, ip_saddr } from '../../wire/ipv4.js'
import {
  CONNTRACK,
  IP_CT_IS_REPLY,
  IPS_CONFIRMED,
  IPS_DST_NAT,
  IPS_DST_NAT_DONE,
  IPS_NAT_DONE_MASK,
  IPS_NAT_MASK,
  IPS_SRC_NAT,
  IPS_SRC_NAT_DONE,
  type ip_conntrack,
  ip_conntrack_alter_reply,
  ip_conntrack_on_destroy,
  ip_conntrack_tuple_taken,
  set_status,
} from './ip_conntrack.js'
import {
  has_ports,
  ip_ct_invert_tuple,
  ip_ct_tuple_equal,
  T_DST,
  T_DST_PART,
  T_PROTO,
  T_SRC,
  T_SRC_PART,
  TUPLE_WORDS,
  tuple_copy,
} from './ip_conntrack_tuple.js'
import {
  IP_NAT_MANIP_DST,
  IP_NAT_MANIP_SRC,
  IP_NAT_RANGE_MAP_IPS,
  IP_NAT_RANGE_PROTO_SPECIFIED,
  manip_pkt,
  proto_in_range,
  unique_tuple,
} from './ip_nat_proto.js'
import { transport } from './ipt_matches.js'

const i32 = RAM.i32
const dv = RAM.dv
const STATUS = CONNTRACK.offset('status')

class nat_core extends Struct {
  declare lock: rwlock_t
  declare bysource: number
}
const CORE: Layout<nat_core> = layout('ip_nat_core', nat_core, {
  lock: embed(RWLOCK),
  bysource: by('lock', bytes(CONNTRACK_BUCKETS * 8)), // list heads
})
const nat = DEFINE_STATIC('ip_nat_core', CORE)

class scratch extends Struct {
  declare current: number
  declare fresh: number
  declare inverse: number
}
/** Tuples that a CPU works with, bottom halves off. */
const SCRATCH: Layout<scratch> = layout('ip_nat_scratch', scratch, {
  current: own(bytes(TUPLE_WORDS * 4)),
  fresh: own(bytes(TUPLE_WORDS * 4)),
  inverse: own(bytes(TUPLE_WORDS * 4)),
})
const tuples = DEFINE_PER_CPU('ip_nat_scratch', SCRATCH)
const CURRENT = tuples.mine.current >> 2
const NEW = tuples.mine.fresh >> 2
const INVERSE = tuples.mine.inverse >> 2

export function HOOK2MANIP(hook: number): number {
  return hook === NF_IP_POST_ROUTING || hook === NF_IP_LOCAL_IN ? IP_NAT_MANIP_SRC : IP_NAT_MANIP_DST
}
const done_bit = (maniptype: number): number => (maniptype === IP_NAT_MANIP_SRC ? IPS_SRC_NAT_DONE : IPS_DST_NAT_DONE)

/** ip_nat_initialized - is it settled what becomes of this end of the connection's packets? */
export function ip_nat_initialized(c: ip_conntrack, maniptype: number): boolean {
  return (c.status & done_bit(maniptype)) !== 0
}

// ---- what a connection is mapped to -----------------------------------------------------------------------------------

function hash_by_src(w: number): number {
  const h = jhash_3words(i32[w + T_SRC], i32[w + T_SRC_PART], i32[w + T_PROTO], 0)
  return nat.bysource + ((h >>> 0) % CONNTRACK_BUCKETS) * 8
}

/** ip_nat_used_tuple - would the answers to a packet with that tuple be taken for those of another connection? */
function ip_nat_used_tuple(w: number, c: ip_conntrack): boolean {
  ip_ct_invert_tuple(INVERSE, w)
  return ip_conntrack_tuple_taken(INVERSE, c)
}

/** in_range - would the source of that tuple do? */
function in_range(w: number, flags: number, min_ip: number, max_ip: number, ports: number): boolean {
  const ip = i32[w + T_SRC] >>> 0
  if ((flags & IP_NAT_RANGE_MAP_IPS) !== 0 && (ip < min_ip >>> 0 || ip > max_ip >>> 0)) return false
  return (flags & IP_NAT_RANGE_PROTO_SPECIFIED) === 0 || proto_in_range(w, IP_NAT_MANIP_SRC, ports)
}

function same_src(orig: number, w: number): boolean {
  return (
    i32[orig + T_SRC] === i32[w + T_SRC] &&
    i32[orig + T_SRC_PART] === i32[w + T_SRC_PART] &&
    i32[orig + T_PROTO] === i32[w + T_PROTO]
  )
}

/** find_appropriate_src - what another connection of the same source is mapped to, into NEW. @returns false: there is none */
function find_appropriate_src(w: number, flags: number, min_ip: number, max_ip: number, ports: number): boolean {
  const head = hash_by_src(w)
  let found = false
  read_lock_bh(nat.lock)
  for (let at = i32[head >> 2]; at !== head && !found; at = i32[at >> 2]) {
    const c = CONNTRACK.container_of('bysource', at)
    if (!same_src(c.orig >> 2, w)) continue
    ip_ct_invert_tuple(NEW, c.reply >> 2)
    i32[NEW + T_DST] = i32[w + T_DST]
    i32[NEW + T_DST_PART] = i32[w + T_DST_PART]
    found = in_range(NEW, flags, min_ip, max_ip, ports)
  }
  read_unlock_bh(nat.lock)
  return found
}

/** find_best_ips_proto - one of the addresses, always the same for the same two ends. */
function find_best_ips_proto(w: number, flags: number, min_ip: number, max_ip: number, maniptype: number): void {
  if ((flags & IP_NAT_RANGE_MAP_IPS) === 0) return
  const h = jhash_2words(i32[w + T_SRC], i32[w + T_DST], 0) >>> 0
  const addresses = (max_ip >>> 0) - (min_ip >>> 0) + 1
  i32[w + (maniptype === IP_NAT_MANIP_SRC ? T_SRC : T_DST)] = ((min_ip >>> 0) + (h % addresses)) | 0
}

/**
 * get_unique_tuple - map CURRENT into the range, as NEW, so that no other connection gets its answers. It may be that there is none,
 * or that another CPU chooses the same: the packet is dropped when its connection is to be confirmed.
 */
function get_unique_tuple(
  c: ip_conntrack,
  flags: number,
  min_ip: number,
  max_ip: number,
  ports: number,
  maniptype: number,
): void {
  if (maniptype === IP_NAT_MANIP_SRC && find_appropriate_src(CURRENT, flags, min_ip, max_ip, ports))
    if (!ip_nat_used_tuple(NEW, c)) return
  tuple_copy(NEW, CURRENT)
  find_best_ips_proto(NEW, flags, min_ip, max_ip, maniptype)
  const fits = (flags & IP_NAT_RANGE_PROTO_SPECIFIED) === 0 || proto_in_range(NEW, maniptype, ports)
  if (fits && !ip_nat_used_tuple(NEW, c)) return
  unique_tuple(NEW, flags, ports, maniptype, c, ip_nat_used_tuple)
}

/**
 * ip_nat_setup_info - settle one end of a connection whose first packet is at this hook: it is mapped into the range.
 * @context softirq, process, bottom halves off @returns NF_ACCEPT
 */
export function ip_nat_setup_info(
  c: ip_conntrack,
  flags: number,
  min_ip: number,
  max_ip: number,
  ports: number,
  hook: number,
): number {
  const maniptype = HOOK2MANIP(hook)
  BUG_ON(ip_nat_initialized(c, maniptype), 'NAT twice')
  // What it looks like now: the inverse of the answers that it waits for.
  ip_ct_invert_tuple(CURRENT, c.reply >> 2)
  get_unique_tuple(c, flags, min_ip, max_ip, ports, maniptype)
  if (!ip_ct_tuple_equal(NEW, CURRENT)) {
    ip_ct_invert_tuple(INVERSE, NEW)
    ip_conntrack_alter_reply(c, INVERSE)
    set_status(c, maniptype === IP_NAT_MANIP_SRC ? IPS_SRC_NAT : IPS_DST_NAT)
  }
  return settled(c, maniptype)
}

function settled(c: ip_conntrack, maniptype: number): number {
  if (maniptype === IP_NAT_MANIP_SRC) {
    write_lock_bh(nat.lock)
    if ((c.status & IPS_SRC_NAT_DONE) === 0) list_add(c.bysource, LIST.ref(hash_by_src(c.orig >> 2)))
    set_status(c, IPS_SRC_NAT_DONE)
    write_unlock_bh(nat.lock)
  } else set_status(c, IPS_DST_NAT_DONE)
  return NF_ACCEPT
}

/**
 * alloc_null_binding - no rule wants this end changed; still nobody else may get its answers. @context softirq, process, bottom
 * halves off @returns NF_ACCEPT
 */
export function alloc_null_binding(c: ip_conntrack, hook: number): number {
  const maniptype = HOOK2MANIP(hook)
  // Others have found it already: it began when there was no translation, and stays as it is.
  if ((c.status & IPS_CONFIRMED) !== 0) return settled(c, maniptype)
  const ip = i32[(c.reply >> 2) + (maniptype === IP_NAT_MANIP_SRC ? T_DST : T_SRC)]
  return ip_nat_setup_info(c, IP_NAT_RANGE_MAP_IPS, ip, ip, 0, hook)
}

// ---- what is done to packets ------------------------------------------------------------------------------------------

/** Rewrite one end of a packet so that it looks like the inverse of the tuple at word `w`. */
function manip_to_inverse(skb: sk_buff, w: number, proto: number, maniptype: number): boolean {
  const from = maniptype === IP_NAT_MANIP_SRC ? T_DST : T_SRC
  const part = has_ports(i32[w + T_PROTO]) && maniptype === IP_NAT_MANIP_SRC ? T_DST_PART : T_SRC_PART
  return manip_pkt(skb, 0, proto, i32[w + from], i32[w + part], maniptype)
}

/** The tuple of a connection's other direction, as a word index. */
function other_way(c: ip_conntrack, dir: number): number {
  return (dir === 0 ? c.reply : c.orig) >> 2
}

/** nat_packet - as it was settled for its connection. @context softirq, process @returns NF_ACCEPT, NF_DROP */
export function nat_packet(c: ip_conntrack, skb: sk_buff, hook: number): number {
  const dir = skb.nfctinfo >= IP_CT_IS_REPLY ? 1 : 0
  const maniptype = HOOK2MANIP(hook)
  // An answer's source is what the question's destination was.
  const bit = (maniptype === IP_NAT_MANIP_SRC) === (dir === 0) ? IPS_SRC_NAT : IPS_DST_NAT
  if ((c.status & bit) === 0) return NF_ACCEPT
  const w = other_way(c, dir)
  return manip_to_inverse(skb, w, i32[w + T_PROTO], maniptype) ? NF_ACCEPT : NF_DROP
}

/**
 * icmp_reply_translation - an ICMP error about a connection: the packet that it quotes is put back to what its sender sent, and the
 * outer header goes the way of an answer. @context softirq, process @returns false: drop it
 */
export function icmp_reply_translation(c: ip_conntrack, skb: sk_buff, maniptype: number): boolean {
  const dir = skb.nfctinfo >= IP_CT_IS_REPLY ? 1 : 0
  const hdrlen = ip_hdrlen(skb.nh)
  const len = skb.len - hdrlen
  if (skb_cow(skb, 0) !== 0 || transport(skb, len) === 0 || len < ICMP_HLEN + 20) return false
  const icmph = skb.nh + hdrlen
  // It is computed anew below, which would make a wrong one right.
  if (skb.ip_summed !== CHECKSUM_UNNECESSARY && csum_fold(csum_partial(dv, icmph, len, 0)) !== 0) return false
  // Who is sent elsewhere talks to somebody past our translation.
  if (icmp_type(icmph) === ICMP_REDIRECT)
    if ((c.status & IPS_NAT_DONE_MASK) !== IPS_NAT_DONE_MASK || (c.status & IPS_NAT_MASK) !== 0) return false
  const w = other_way(c, dir)
  // The other end than usual at this hook: one that was made here does not pass them all.
  const inner = maniptype === IP_NAT_MANIP_SRC ? IP_NAT_MANIP_DST : IP_NAT_MANIP_SRC
  const proto = ip_protocol(icmph + ICMP_HLEN)
  const from = inner === IP_NAT_MANIP_SRC ? T_SRC : T_DST
  const part = has_ports(i32[w + T_PROTO]) && inner === IP_NAT_MANIP_DST ? T_DST_PART : T_SRC_PART
  if (!manip_pkt(skb, hdrlen + ICMP_HLEN, proto, i32[w + from], i32[w + part], inner)) return false
  const h = skb.nh + hdrlen
  set_icmp_checksum(h, 0)
  set_icmp_checksum(h, csum_fold(csum_partial(dv, h, len, 0)))
  // A router on the way has an address of its own; only that of the other end is one of ours in disguise.
  const mine = (dir === 0 ? c.orig : c.reply) >> 2
  if (maniptype === IP_NAT_MANIP_SRC && ip_saddr(skb.nh) !== i32[mine + T_SRC]) return true
  return manip_to_inverse(skb, w, 0, maniptype)
}

// ---- start and end ----------------------------------------------------------------------------------------------------

/** ip_nat_cleanup_conntrack - a connection is about to be freed. */
function ip_nat_cleanup_conntrack(c: ip_conntrack): void {
  if ((c.status & IPS_SRC_NAT_DONE) === 0) return
  write_lock_bh(nat.lock)
  list_del_init(c.bysource)
  write_unlock_bh(nat.lock)
}
const cleanup_sym = symbol('ip_nat_cleanup_conntrack', ip_nat_cleanup_conntrack)

/** ip_nat_init - @context process, the module's init */
export function ip_nat_init(): void {
  rwlock_init(nat.lock)
  for (let k = 0; k < CONNTRACK_BUCKETS; k++) INIT_LIST_HEAD(LIST.ref(nat.bysource + k * 8))
  ip_conntrack_on_destroy(cleanup_sym)
}

/** ip_nat_cleanup - connections forget that they were translated. @context process, when no packet is in a hook any more */
export function ip_nat_cleanup(): void {
  write_lock_bh(nat.lock)
  for (let k = 0; k < CONNTRACK_BUCKETS; k++) {
    const head = LIST.ref(nat.bysource + k * 8)
    while (!list_empty(head)) {
      const c = CONNTRACK.container_of('bysource', head.next)
      list_del_init(c.bysource)
      fetch_and(c.addr + STATUS, ~(IPS_NAT_MASK | IPS_NAT_DONE_MASK))
    }
  }
  write_unlock_bh(nat.lock)
  ip_conntrack_on_destroy(0)
}
