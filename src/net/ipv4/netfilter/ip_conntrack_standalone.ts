/**
 * ip_conntrack_standalone.ts - packets meet their connections: hooks, protocols, the match `state` (ip_conntrack_standalone.c and
 * ip_conntrack_proto_*.c). A module. Locks: see the charter of ip_conntrack.ts.
 */
import { bytes, embed, type Layout, layout, own, Struct } from '../../../abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../../../abi/section.js'
import type { Sym } from '../../../abi/symbol.js'
import { symbol } from '../../../abi/symbol.js'
import { hz } from '../../../arch/machine.js'
import { RAM } from '../../../arch/ram.js'
import { jiffies } from '../../../irq/timer.js'
import { csum_fold, csum_partial } from '../../../lib/checksum.js'
import { define_module } from '../../../sched/module.js'
import { local_bh_disable, local_bh_enable } from '../../../sync/bh.js'
import { write_lock_bh, write_unlock_bh } from '../../../sync/rwlock.js'
import {
  NF_ACCEPT,
  NF_DROP,
  NF_HOOK_OPS,
  NF_IP_LOCAL_IN,
  NF_IP_LOCAL_OUT,
  NF_IP_POST_ROUTING,
  NF_IP_PRE_ROUTING,
  NF_IP_PRI_CONNTRACK,
  NF_IP_PRI_CONNTRACK_DEFRAG,
  NF_IP_PRI_LAST,
  NF_STOLEN,
  type nf_hook_ops,
  nf_hook_slow,
  type nf_okfn,
  nf_register_hook,
  nf_unregister_hook,
} from '../../core/netfilter.js'
import { nf_conntrack_put } from '../../core/skbuff.js'
import type { net_device, sk_buff } from '../../core/types.js'
import {
  IP_MF,
  IP_OFFSET,
  IPPROTO_ICMP,
  IPPROTO_TCP,
  IPPROTO_UDP,
  ip_daddr,
  ip_frag_off,
  ip_hdrlen,
  ip_ntoa,
  ip_protocol,
  ip_saddr,
} from '../../wire/ipv4.js'
import { ip_defrag } from '../ip_defrag.js'
import {
  CONNTRACK,
  ct,
  IP_CT_ESTABLISHED,
  IP_CT_IS_REPLY,
  IP_CT_NEW,
  IP_CT_RELATED,
  IPS_ASSURED,
  IPS_SEEN_REPLY,
  init_conntrack,
  type ip_conntrack,
  ip_conntrack_confirm,
  ip_conntrack_core_init,
  ip_conntrack_each,
  ip_conntrack_find_get,
  ip_conntrack_flush,
  ip_ct_refresh,
  TUPLE_WORDS,
} from './ip_conntrack.js'
import { define_match, NO, YES } from './ip_tables.js'
import { transport } from './ipt_matches.js'
import { extension_module } from './ipt_module.js'

const i32 = RAM.i32
const u8 = RAM.u8
const dv = RAM.dv

// ---- tuples -----------------------------------------------------------------------------------------------------------

class scratch extends Struct {
  declare orig: number
  declare reply: number
}
/** The tuples of the packet that a CPU looks at, bottom halves off. */
const SCRATCH: Layout<scratch> = layout('ct_scratch', scratch, {
  orig: own(bytes(TUPLE_WORDS * 4)),
  reply: own(bytes(TUPLE_WORDS * 4)),
})
const tuples = DEFINE_PER_CPU('ct_scratch', SCRATCH)
const ORIG = tuples.mine.orig >> 2
const REPLY = tuples.mine.reply >> 2

/** Types of questions, and of their answers. */
const ANSWER: Record<number, number> = { 8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17 }
const QUESTIONS = [8, 13, 15, 17]

/** get_tuple - of the packet whose IP header is at `iph` and whose next one is at `h`, and of its answer. @returns false: neither */
function get_tuple(iph: number, h: number): boolean {
  const proto = ip_protocol(iph)
  const saddr = ip_saddr(iph)
  const daddr = ip_daddr(iph)
  let [a, b, ra, rb] = [0, 0, 0, 0]
  if (proto === IPPROTO_TCP || proto === IPPROTO_UDP) {
    a = rb = dv.getUint16(h)
    b = ra = dv.getUint16(h + 2)
  } else if (proto === IPPROTO_ICMP) {
    const answer = ANSWER[u8[h]]
    if (answer === undefined) return false
    a = ra = dv.getUint16(h + 4)
    b = u8[h] | (u8[h + 1] << 8)
    rb = answer | (u8[h + 1] << 8)
  }
  const words = [saddr, daddr, a, b, proto, daddr, saddr, ra, rb, proto]
  for (let k = 0; k < TUPLE_WORDS; k++) {
    i32[ORIG + k] = words[k]!
    i32[REPLY + k] = words[TUPLE_WORDS + k]!
  }
  return true
}

// ---- protocols --------------------------------------------------------------------------------------------------------

const TCP_STATES = [
  'NONE',
  'SYN_SENT',
  'SYN_RECV',
  'ESTABLISHED',
  'FIN_WAIT',
  'CLOSE_WAIT',
  'LAST_ACK',
  'TIME_WAIT',
  'CLOSE',
  'LISTEN',
]
const TCP_TIMEOUTS = [30 * 60, 120, 60, 5 * 86400, 120, 60, 30, 120, 10, 120] // seconds
const ES = 3
const IV = -1 // no such segment can come
const IG = -2 // it may be out of time: it changes nothing
const NONE = new Array<number>(10).fill(IV)
const CL = [IV, 8, 8, 8, 8, 8, 8, 8, 8, IV]
const FIN = [IV, IV, 4, 4, 6, 6, 6, 7, 8, IV]
/** tcp_conntracks: by direction, by kind of segment (SYN, SYN and ACK, FIN, ACK, RST, nothing), by state. */
const TCP_NEXT = [
  [[1, 1, IG, IG, IG, IG, IG, 1, 1, IV], NONE, FIN, [ES, IV, ES, ES, 5, 5, 7, 7, 8, IV], CL, NONE],
  [NONE, [IV, 2, 2, IG, IG, IG, IG, IG, IG, IV], FIN, [IV, IV, 2, ES, 5, 5, 7, 7, 8, IV], CL, NONE],
]
function tcp_kind(flags: number): number {
  if ((flags & 4) !== 0) return 4
  if ((flags & 2) !== 0) return (flags & 16) !== 0 ? 1 : 0
  if ((flags & 1) !== 0) return 2
  return (flags & 16) !== 0 ? 3 : 5
}

/** tcp_packet - @returns NF_ACCEPT, or -NF_ACCEPT: not of this connection */
function tcp_packet(c: ip_conntrack, flags: number, dir: number): number {
  write_lock_bh(ct.lock)
  const old = c.state
  const next = TCP_NEXT[dir]![tcp_kind(flags)]![old]!
  if (next === IV) {
    write_unlock_bh(ct.lock)
    return -NF_ACCEPT
  }
  const state = next === IG ? old : next
  c.state = state
  if (state === ES && (old === ES || old === 2)) c.status |= IPS_ASSURED
  const replied = (c.status & IPS_SEEN_REPLY) !== 0
  write_unlock_bh(ct.lock)
  if (!replied && (flags & 4) !== 0 && dir === 1) {
    ip_ct_refresh(c, 0) // a refusal: what follows is another connection
    return NF_ACCEPT
  }
  if (next !== IG) ip_ct_refresh(c, TCP_TIMEOUTS[state]! * hz())
  return NF_ACCEPT
}

function udp_packet(c: ip_conntrack): void {
  const replied = (c.status & IPS_SEEN_REPLY) !== 0
  ip_ct_refresh(c, (replied ? 180 : 30) * hz())
  if (!replied || (c.status & IPS_ASSURED) !== 0) return
  write_lock_bh(ct.lock)
  c.status |= IPS_ASSURED
  write_unlock_bh(ct.lock)
}

/** Let the protocol see a packet. @returns NF_ACCEPT or -NF_ACCEPT */
function proto_packet(c: ip_conntrack, iph: number, h: number, dir: number): number {
  const proto = ip_protocol(iph)
  if (proto === IPPROTO_TCP) return tcp_packet(c, u8[h + 13], dir)
  if (proto === IPPROTO_UDP) udp_packet(c)
  else ip_ct_refresh(c, (proto === IPPROTO_ICMP ? 30 : 600) * hz())
  return NF_ACCEPT
}

/** May a packet that belongs to nothing begin a connection? */
function may_begin(iph: number, h: number): boolean {
  const proto = ip_protocol(iph)
  if (proto === IPPROTO_TCP) {
    const next = TCP_NEXT[0]![tcp_kind(u8[h + 13])]![0]!
    return next !== IV && next !== IG
  }
  return proto !== IPPROTO_ICMP || QUESTIONS.includes(u8[h])
}

/** icmp_error - the connection that an ICMP error is about. @returns true: the packet is an error, and has it if there is one */
function icmp_error(skb: sk_buff, hook: number): boolean {
  const h = transport(skb, 8)
  if (h === 0 || ![3, 4, 5, 11, 12].includes(u8[h])) return false
  const len = skb.len - ip_hdrlen(skb.nh)
  const start = transport(skb, len)
  if (start === 0 || (hook === NF_IP_PRE_ROUTING && csum_fold(csum_partial(dv, start, len, 0)) !== 0)) return true
  const inner = start + 8
  const hlen = len >= 28 ? ip_hdrlen(inner) : 0
  if (hlen < 20 || len < 8 + hlen + 8 || (ip_frag_off(inner) & IP_OFFSET) !== 0) return true
  if (!get_tuple(inner, inner + hlen)) return true
  const found = ip_conntrack_find_get(ORIG) // of the packet that it is about: the error goes the other way
  if (found === 0) return true
  skb.nfct = found & ~1
  skb.nfctinfo = IP_CT_RELATED + ((found & 1) === 0 ? IP_CT_IS_REPLY : 0)
  return true
}

// ---- hooks ------------------------------------------------------------------------------------------------------------

/** ip_conntrack_in - which connection does the packet belong to? */
function ip_conntrack_in(hook: number, skb: sk_buff): number {
  if (skb.nfct !== 0 || (ip_frag_off(skb.nh) & IP_OFFSET) !== 0) return NF_ACCEPT
  local_bh_disable() // the tuples lie in this CPU's memory
  const ret = track(hook, skb)
  local_bh_enable()
  return ret
}

function track(hook: number, skb: sk_buff): number {
  const proto = ip_protocol(skb.nh)
  if (proto === IPPROTO_ICMP && icmp_error(skb, hook)) return NF_ACCEPT
  const h = transport(skb, proto === IPPROTO_TCP ? 20 : proto === IPPROTO_UDP || proto === IPPROTO_ICMP ? 8 : 0)
  if (h === 0 || !get_tuple(skb.nh, h)) return NF_ACCEPT // INVALID
  let found = ip_conntrack_find_get(ORIG)
  if (found === 0) {
    if (!may_begin(skb.nh, h)) return NF_ACCEPT
    const fresh = init_conntrack(ORIG, REPLY)
    if (fresh === null) return NF_DROP
    found = fresh.addr
  }
  const c = CONNTRACK.ref(found & ~1)
  const dir = found & 1
  skb.nfct = c.addr
  if (dir === 1) skb.nfctinfo = IP_CT_ESTABLISHED + IP_CT_IS_REPLY
  else skb.nfctinfo = (c.status & IPS_SEEN_REPLY) !== 0 ? IP_CT_ESTABLISHED : IP_CT_NEW
  if (proto_packet(c, skb.nh, h, dir) < 0) {
    skb.nfct = 0
    nf_conntrack_put(c.addr)
    return NF_ACCEPT
  }
  if (dir === 1 && (c.status & IPS_SEEN_REPLY) === 0) {
    write_lock_bh(ct.lock)
    c.status |= IPS_SEEN_REPLY
    write_unlock_bh(ct.lock)
  }
  return NF_ACCEPT
}

/** ip_conntrack_defrag - connections are of whole datagrams; the whole goes on behind this hook. */
function ip_conntrack_defrag(
  hook: number,
  skb: sk_buff,
  indev: net_device | null,
  outdev: net_device | null,
  okfn: Sym<nf_okfn>,
): number {
  if ((ip_frag_off(skb.nh) & (IP_MF | IP_OFFSET)) === 0) return NF_ACCEPT
  local_bh_disable()
  const whole = ip_defrag(skb)
  local_bh_enable()
  if (whole !== null) nf_hook_slow(hook, whole, indev, outdev, okfn, NF_IP_PRI_CONNTRACK_DEFRAG + 1)
  return NF_STOLEN
}

/** ip_confirm - the packet got through all that could drop it. */
function ip_confirm(_hook: number, skb: sk_buff): number {
  return skb.nfct === 0 || ip_conntrack_confirm(skb) ? NF_ACCEPT : NF_DROP
}

class ct_hooks extends Struct {
  declare defrag_in: nf_hook_ops
  declare defrag_out: nf_hook_ops
  declare track_in: nf_hook_ops
  declare track_out: nf_hook_ops
  declare confirm_in: nf_hook_ops
  declare confirm_out: nf_hook_ops
}
const HOOKS: Layout<ct_hooks> = layout('ct_hooks', ct_hooks, {
  defrag_in: embed(NF_HOOK_OPS),
  defrag_out: embed(NF_HOOK_OPS),
  track_in: embed(NF_HOOK_OPS),
  track_out: embed(NF_HOOK_OPS),
  confirm_in: embed(NF_HOOK_OPS),
  confirm_out: embed(NF_HOOK_OPS),
})
const hooks = DEFINE_STATIC('ip_conntrack_hooks', HOOKS)
const defrag_sym = symbol('ip_conntrack_defrag', ip_conntrack_defrag)
const in_sym = symbol('ip_conntrack_in', ip_conntrack_in)
const confirm_sym = symbol('ip_confirm', ip_confirm)
const POINTS = [
  [hooks.confirm_in, confirm_sym, NF_IP_LOCAL_IN, NF_IP_PRI_LAST - 1],
  [hooks.confirm_out, confirm_sym, NF_IP_POST_ROUTING, NF_IP_PRI_LAST],
  [hooks.defrag_in, defrag_sym, NF_IP_PRE_ROUTING, NF_IP_PRI_CONNTRACK_DEFRAG],
  [hooks.defrag_out, defrag_sym, NF_IP_LOCAL_OUT, NF_IP_PRI_CONNTRACK_DEFRAG],
  [hooks.track_in, in_sym, NF_IP_PRE_ROUTING, NF_IP_PRI_CONNTRACK],
  [hooks.track_out, in_sym, NF_IP_LOCAL_OUT, NF_IP_PRI_CONNTRACK],
] as const

define_module('ip_conntrack', {
  *init() {
    ip_conntrack_core_init()
    for (const [ops, hook, hooknum, priority] of POINTS) {
      ops.hook = hook
      ops.hooknum = hooknum
      ops.priority = priority
      nf_register_hook(ops)
    }
    return 0
  },
  *exit() {
    for (const [ops] of [...POINTS].reverse()) yield* nf_unregister_hook(ops)
    ip_conntrack_flush()
  },
})

// ---- the match, and /proc ---------------------------------------------------------------------------------------------

/** state: INVALID 1, ESTABLISHED 2, RELATED 4, NEW 8. */
define_match(
  'state',
  1,
  (skb, _in, _out, info) =>
    ((skb.nfct === 0 ? 1 : 2 << (skb.nfctinfo % IP_CT_IS_REPLY)) & i32[info >> 2]) !== 0 ? YES : NO,
  () => true,
)
extension_module('state', ['match'], ['ip_conntrack'])

const NAMES: Record<number, string> = { [IPPROTO_ICMP]: 'icmp', [IPPROTO_TCP]: 'tcp', [IPPROTO_UDP]: 'udp' }
function tuple_text(w: number, proto: number): string {
  const addresses = `src=${ip_ntoa(i32[w])} dst=${ip_ntoa(i32[w + 1])} `
  if (proto === IPPROTO_ICMP) return `${addresses}type=${i32[w + 3] & 255} code=${i32[w + 3] >> 8} id=${i32[w + 2]} `
  return proto === IPPROTO_TCP || proto === IPPROTO_UDP
    ? `${addresses}sport=${i32[w + 2]} dport=${i32[w + 3]} `
    : addresses
}

/** ip_conntrack_text - /proc/net/ip_conntrack. */
export function ip_conntrack_text(): string {
  const lines: string[] = []
  ip_conntrack_each(c => {
    const proto = i32[(c.orig >> 2) + 4]
    const left = Math.max(0, Math.floor(((c.timeout.expires - jiffies()) | 0) / hz()))
    const head = `${(NAMES[proto] ?? 'unknown').padEnd(8)} ${proto} ${left} ${proto === IPPROTO_TCP ? `${TCP_STATES[c.state]} ` : ''}`
    const unreplied = (c.status & IPS_SEEN_REPLY) === 0 ? '[UNREPLIED] ' : ''
    const assured = (c.status & IPS_ASSURED) !== 0 ? '[ASSURED] ' : ''
    lines.push(
      `${head}${tuple_text(c.orig >> 2, proto)}${unreplied}${tuple_text(c.reply >> 2, proto)}${assured}use=${c.general.use}\n`,
    )
  })
  return lines.join('')
}
