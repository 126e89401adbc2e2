/**
 * ip_conntrack_standalone.ts - packets meet their connections: hooks, ICMP errors, the match `state` (ip_conntrack_standalone.c).
 * A module. Locks: see the charter of ip_conntrack.ts.
 */
import { bytes, embed, type Layout, layout, own, Struct } from '../../../abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../../../abi/section.js'
import { call, type Sym, symbol } from '../../../abi/symbol.js'
import { hz } from '../../../arch/machine.js'
import { RAM } from '../../../arch/ram.js'
import { jiffies } from '../../../irq/timer.js'
import { define_module } from '../../../sched/module.js'
import { local_bh_disable, local_bh_enable } from '../../../sync/bh.js'
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
import { nf_reset, skb_orphan } from '../../core/skbuff.js'
import type { net_device, sk_buff } from '../../core/types.js'
import {
  IP_MF,
  IP_OFFSET,
  IPPROTO_ICMP,
  IPPROTO_TCP,
  IPPROTO_UDP,
  ip_frag_off,
  ip_hdrlen,
  ip_protocol,
} from '../../wire/ipv4.js'
import { ip_defrag } from '../ip_defrag.js'
import { ip_fragment } from '../ip_fragment.js'
import { IP_DEFRAG_CONNTRACK_IN, IP_DEFRAG_CONNTRACK_OUT } from '../ipq.js'
import {
  CONNTRACK,
  IP_CT_ESTABLISHED,
  IP_CT_IS_REPLY,
  IP_CT_NEW,
  IP_CT_RELATED,
  IPS_ASSURED,
  IPS_SEEN_REPLY,
  init_conntrack,
  ip_conntrack_confirm,
  ip_conntrack_core_init,
  ip_conntrack_each,
  ip_conntrack_find_get,
  ip_conntrack_flush,
  set_status,
} from './ip_conntrack.js'
import { proto_can_begin, proto_header, proto_new, proto_packet } from './ip_conntrack_proto.js'
import { TCP_STATES } from './ip_conntrack_proto_tcp.js'
import { ip_ct_get_tuple, ip_ct_invert_tuple, print_tuple, TUPLE_WORDS } from './ip_conntrack_tuple.js'
import { define_match, NO, YES } from './ip_tables.js'
import { transport } from './ipt_matches.js'
import { extension_module } from './ipt_module.js'
import { nf_checksum_wrong } from './nf_checksum.js'

const i32 = RAM.i32
const u8 = RAM.u8

// ---- which connection -------------------------------------------------------------------------------------------------

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

/** icmp_error - the connection that an ICMP error is about. @returns true: the packet is an error, and has it if there is one */
function icmp_error(skb: sk_buff, hook: number): boolean {
  const h = transport(skb, 8)
  if (h === 0 || ![3, 4, 5, 11, 12].includes(u8[h])) return false
  const len = skb.len - ip_hdrlen(skb.nh)
  const start = transport(skb, len)
  if (start === 0 || nf_checksum_wrong(skb, hook)) return true
  const inner = start + 8
  const hlen = len >= 28 ? ip_hdrlen(inner) : 0
  if (hlen < 20 || len < 8 + hlen + 8 || (ip_frag_off(inner) & IP_OFFSET) !== 0) return true
  ip_ct_get_tuple(inner, inner + hlen, ORIG)
  if (!ip_ct_invert_tuple(REPLY, ORIG)) return true
  let found = ip_conntrack_find_get(REPLY) // it goes the way of the answers to the packet that it is about
  let reply = found & 1
  if (found === 0 && hook === NF_IP_LOCAL_OUT) {
    found = ip_conntrack_find_get(ORIG) // our own, about a packet whose source was still to be translated
    reply = ~found & 1
  }
  if (found === 0) return true
  skb.nfct = found & ~1
  skb.nfctinfo = IP_CT_RELATED + (reply !== 0 ? IP_CT_IS_REPLY : 0)
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
  const h = proto_header(skb, hook)
  if (h === 0) return NF_ACCEPT // INVALID
  ip_ct_get_tuple(skb.nh, h, ORIG)
  let found = ip_conntrack_find_get(ORIG)
  if (found === 0) {
    if (!ip_ct_invert_tuple(REPLY, ORIG) || !proto_can_begin(skb.nh, h)) return NF_ACCEPT
    const fresh = init_conntrack(ORIG, REPLY)
    if (fresh === null) return NF_DROP
    proto_new(fresh, skb, h)
    found = fresh.addr
  }
  const c = CONNTRACK.ref(found & ~1)
  const dir = found & 1
  skb.nfct = c.addr
  if (dir === 1) skb.nfctinfo = IP_CT_ESTABLISHED + IP_CT_IS_REPLY
  else skb.nfctinfo = (c.status & IPS_SEEN_REPLY) !== 0 ? IP_CT_ESTABLISHED : IP_CT_NEW
  const ret = proto_packet(c, skb, h, dir)
  if (ret < 0) {
    nf_reset(skb)
    return -ret
  }
  if (dir === 1) set_status(c, IPS_SEEN_REPLY)
  return ret
}

/** ip_ct_gather_frags - @consumes skb @returns the whole datagram, or null: not yet. @context softirq, process */
export function ip_ct_gather_frags(skb: sk_buff, user: number): sk_buff | null {
  skb_orphan(skb)
  local_bh_disable()
  const whole = ip_defrag(skb, user)
  local_bh_enable()
  return whole
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
  const user = hook === NF_IP_PRE_ROUTING ? IP_DEFRAG_CONNTRACK_IN : IP_DEFRAG_CONNTRACK_OUT
  const whole = ip_ct_gather_frags(skb, user)
  if (whole !== null) nf_hook_slow(hook, whole, indev, outdev, okfn, NF_IP_PRI_CONNTRACK_DEFRAG + 1)
  return NF_STOLEN
}

/** ip_confirm - the packet got through all that could drop it. */
function ip_confirm(_hook: number, skb: sk_buff): number {
  return skb.nfct === 0 || ip_conntrack_confirm(skb) ? NF_ACCEPT : NF_DROP
}

/** ip_refrag - the same on the way out, and what was gathered is cut again. @consumes skb on NF_STOLEN */
function ip_refrag(hook: number, skb: sk_buff, _in: unknown, _out: unknown, okfn: Sym<nf_okfn>): number {
  if (ip_confirm(hook, skb) !== NF_ACCEPT) return NF_DROP
  if (skb.len <= skb.dst!.mtu) return NF_ACCEPT
  ip_fragment(skb, call(okfn)) // no hook comes behind this one
  return NF_STOLEN
}

class ct_hooks extends Struct {
  declare defrag_in: nf_hook_ops
  declare defrag_out: nf_hook_ops
  declare track_in: nf_hook_ops
  declare track_out: nf_hook_ops
  declare confirm_in: nf_hook_ops
  declare refrag: nf_hook_ops
}
const HOOKS: Layout<ct_hooks> = layout('ct_hooks', ct_hooks, {
  defrag_in: embed(NF_HOOK_OPS),
  defrag_out: embed(NF_HOOK_OPS),
  track_in: embed(NF_HOOK_OPS),
  track_out: embed(NF_HOOK_OPS),
  confirm_in: embed(NF_HOOK_OPS),
  refrag: embed(NF_HOOK_OPS),
})
const hooks = DEFINE_STATIC('ip_conntrack_hooks', HOOKS)
const defrag_sym = symbol('ip_conntrack_defrag', ip_conntrack_defrag)
const in_sym = symbol('ip_conntrack_in', ip_conntrack_in)
const confirm_sym = symbol('ip_confirm', ip_confirm)
const refrag_sym = symbol('ip_refrag', ip_refrag)
const POINTS = [
  [hooks.confirm_in, confirm_sym, NF_IP_LOCAL_IN, NF_IP_PRI_LAST - 1],
  [hooks.refrag, refrag_sym, NF_IP_POST_ROUTING, NF_IP_PRI_LAST],
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
/** ip_conntrack_text - /proc/net/ip_conntrack. */
export function ip_conntrack_text(): string {
  const lines: string[] = []
  ip_conntrack_each(c => {
    const proto = i32[(c.orig >> 2) + 4]
    const left = Math.max(0, Math.floor(((c.timeout.expires - jiffies()) | 0) / hz()))
    const head = `${(NAMES[proto] ?? 'unknown').padEnd(8)} ${proto} ${left} ${proto === IPPROTO_TCP ? `${TCP_STATES[c.tcp.state]} ` : ''}`
    const unreplied = (c.status & IPS_SEEN_REPLY) === 0 ? '[UNREPLIED] ' : ''
    const assured = (c.status & IPS_ASSURED) !== 0 ? '[ASSURED] ' : ''
    lines.push(
      `${head}${print_tuple(c.orig >> 2)}${unreplied}${print_tuple(c.reply >> 2)}${assured}use=${c.general.use}\n`,
    )
  })
  return lines.join('')
}
