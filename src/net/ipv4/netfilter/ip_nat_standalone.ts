/**
 * ip_nat_standalone.ts - packets are translated: the hooks of the table nat, which is a module (ip_nat_standalone.c).
 * Locks: see the charter of ip_nat_core.ts.
 */
import { atomic, embed, type Layout, layout, Struct, word } from '../../../abi/layout.js'
import { DEFINE_STATIC } from '../../../abi/section.js'
import { type Sym, symbol } from '../../../abi/symbol.js'
import { RAM } from '../../../arch/ram.js'
import { csum_replace2 } from '../../../lib/checksum.js'
import { define_module } from '../../../sched/module.js'
import { dst_release } from '../../core/dst.js'
import {
  NF_ACCEPT,
  NF_DROP,
  NF_HOOK_OPS,
  NF_IP_LOCAL_IN,
  NF_IP_LOCAL_OUT,
  NF_IP_POST_ROUTING,
  NF_IP_PRE_ROUTING,
  NF_IP_PRI_NAT_DST,
  NF_IP_PRI_NAT_SRC,
  NF_STOLEN,
  type nf_hook_ops,
  nf_hook_slow,
  type nf_okfn,
  nf_register_hook,
  nf_unregister_hook,
} from '../../core/netfilter.js'
import { skb_checksum_help } from '../../core/offload.js'
import { sysctl_word } from '../../core/sysctl.js'
import { CHECKSUM_HW, CHECKSUM_NONE, type net_device, type sk_buff } from '../../core/types.js'
import { ICMP_REDIRECT } from '../../wire/icmp.js'
import {
  IP_DF,
  IP_MF,
  IP_OFFSET,
  IPPROTO_ICMP,
  ip_check,
  ip_daddr,
  ip_frag_off,
  ip_hdrlen,
  ip_id,
  ip_protocol,
  ip_saddr,
  set_ip_check,
  set_ip_id,
} from '../../wire/ipv4.js'
import { ip_select_ident } from '../ip_ident.js'
import { IP_DEFRAG_NAT_OUT } from '../ipq.js'
import { RTABLE } from '../types.js'
import { CONNTRACK, IP_CT_IS_REPLY, IP_CT_NEW, IP_CT_RELATED } from './ip_conntrack.js'
import { ip_ct_gather_frags } from './ip_conntrack_standalone.js'
import {
  HOOK2MANIP,
  icmp_reply_translation,
  ip_nat_cleanup,
  ip_nat_init,
  ip_nat_initialized,
  nat_packet,
} from './ip_nat_core.js'
import { ip_nat_rule_find } from './ip_nat_rule.js'
import { ipt_register, ipt_unregister } from './ip_tables.js'
import { ipt_register_table, ipt_unregister_table } from './ip_tables_user.js'
import { transport } from './ipt_matches.js'
import { ip_route_me_harder } from './route_me_harder.js'

const u8 = RAM.u8

/** No connection: only a redirect must not pass, it would lead others past the translation. */
function untracked(skb: sk_buff): number {
  if (ip_protocol(skb.nh) !== IPPROTO_ICMP) return NF_ACCEPT
  const h = transport(skb, 8)
  return h !== 0 && u8[h] === ICMP_REDIRECT ? NF_DROP : NF_ACCEPT
}

/** ip_nat_fn - a packet at a hook. It is whole: it was gathered in front, or just now. @returns a verdict */
function ip_nat_fn(hook: number, skb: sk_buff, indev: net_device | null, outdev: net_device | null): number {
  if (skb.ip_summed === CHECKSUM_HW) {
    // What the device has summed up, or would, does not hold any more.
    if (outdev === null) skb.ip_summed = CHECKSUM_NONE
    else if (skb_checksum_help(skb) !== 0) return NF_DROP
  }
  if (skb.nfct === 0) return untracked(skb)
  const c = CONNTRACK.ref(skb.nfct)
  const info = skb.nfctinfo
  const related = info % IP_CT_IS_REPLY === IP_CT_RELATED
  if (related && ip_protocol(skb.nh) === IPPROTO_ICMP)
    return icmp_reply_translation(c, skb, HOOK2MANIP(hook)) ? NF_ACCEPT : NF_DROP
  // One may come by a hook again: over loopback, or sent twice before there was an answer.
  if ((related || info === IP_CT_NEW) && !ip_nat_initialized(c, HOOK2MANIP(hook))) {
    const verdict = ip_nat_rule_find(c, skb, hook, indev, outdev)
    if (verdict !== NF_ACCEPT) return verdict
  }
  return nat_packet(c, skb, hook)
}

/** ip_nat_in - in front of the routing decision, which is the new destination's. */
function ip_nat_in(hook: number, skb: sk_buff, indev: net_device | null, outdev: net_device | null): number {
  const daddr = ip_daddr(skb.nh)
  const saddr = ip_saddr(skb.nh)
  const verdict = ip_nat_fn(hook, skb, indev, outdev)
  if (verdict !== NF_ACCEPT || skb.dst === null) return verdict
  if (saddr === ip_saddr(skb.nh) && daddr === ip_daddr(skb.nh)) return verdict
  dst_release(skb.dst)
  skb.dst = null
  return verdict
}

class nat_switches extends Struct {
  declare new_id: number
}
const SWITCHES: Layout<nat_switches> = layout('ip_nat_switches', nat_switches, {
  new_id: atomic(word), // packets in another's name get an id of ours; 0 as in 2.6.11
})
const switches = DEFINE_STATIC('ip_nat_switches', SWITCHES)
sysctl_word('net.ipv4.netfilter.ip_nat_new_id', () => switches, 'new_id', 0, 1)

/**
 * Hosts that share an address here do not share a counter of ids. Two datagrams in pieces with the same one would be put together
 * from each other's (RFC 3022, 6.3); by our counter no two have the same.
 */
function new_id(skb: sk_buff): void {
  if (switches.new_id === 0 || (ip_frag_off(skb.nh) & IP_DF) !== 0) return
  const id = ip_select_ident(RTABLE.ref(skb.dst!.addr))
  set_ip_check(skb.nh, csum_replace2(ip_check(skb.nh), ip_id(skb.nh), id))
  set_ip_id(skb.nh, id)
}

/** A raw socket's: too short to look at, and no harm. */
const too_short = (skb: sk_buff): boolean => skb.len < 20 || ip_hdrlen(skb.nh) < 20

/**
 * ip_nat_out - on the way out. A datagram that was gathered on the way in, or that is too long for its link, is in pieces here; it
 * is gathered once more, and cut at the last hook.
 */
function ip_nat_out(
  hook: number,
  skb: sk_buff,
  indev: net_device | null,
  outdev: net_device | null,
  okfn: Sym<nf_okfn>,
): number {
  if (too_short(skb)) return NF_ACCEPT
  if ((ip_frag_off(skb.nh) & (IP_MF | IP_OFFSET)) === 0) {
    const saddr = ip_saddr(skb.nh)
    const verdict = ip_nat_fn(hook, skb, indev, outdev)
    if (verdict === NF_ACCEPT && saddr !== ip_saddr(skb.nh)) new_id(skb)
    return verdict
  }
  const whole = ip_ct_gather_frags(skb, IP_DEFRAG_NAT_OUT)
  if (whole !== null) nf_hook_slow(hook, whole, indev, outdev, okfn, NF_IP_PRI_NAT_SRC)
  return NF_STOLEN
}

/** ip_nat_local_fn - of this machine itself: where the destination has changed it goes another way. */
function ip_nat_local_fn(hook: number, skb: sk_buff, indev: net_device | null, outdev: net_device | null): number {
  if (too_short(skb)) return NF_ACCEPT
  const daddr = ip_daddr(skb.nh)
  const saddr = ip_saddr(skb.nh)
  const verdict = ip_nat_fn(hook, skb, indev, outdev)
  if (verdict !== NF_ACCEPT || (saddr === ip_saddr(skb.nh) && daddr === ip_daddr(skb.nh))) return verdict
  return ip_route_me_harder(skb) === 0 ? verdict : NF_DROP
}

class nat_hooks extends Struct {
  declare in: nf_hook_ops
  declare out: nf_hook_ops
  declare local_out: nf_hook_ops
  declare local_in: nf_hook_ops
}
const HOOKS: Layout<nat_hooks> = layout('ip_nat_hooks', nat_hooks, {
  in: embed(NF_HOOK_OPS),
  out: embed(NF_HOOK_OPS),
  local_out: embed(NF_HOOK_OPS),
  local_in: embed(NF_HOOK_OPS),
})
const hooks = DEFINE_STATIC('ip_nat_hooks', HOOKS)
const POINTS = [
  [hooks.in, symbol('ip_nat_in', ip_nat_in), NF_IP_PRE_ROUTING, NF_IP_PRI_NAT_DST],
  [hooks.out, symbol('ip_nat_out', ip_nat_out), NF_IP_POST_ROUTING, NF_IP_PRI_NAT_SRC],
  [hooks.local_out, symbol('ip_nat_local_fn', ip_nat_local_fn), NF_IP_LOCAL_OUT, NF_IP_PRI_NAT_DST],
  [hooks.local_in, symbol('ip_nat_fn', ip_nat_fn), NF_IP_LOCAL_IN, NF_IP_PRI_NAT_SRC],
] as const

const mod = define_module('iptable_nat', {
  *init() {
    const err = yield* ipt_register_table('nat', mod.addr)
    if (err !== 0) return err
    ip_nat_init()
    ipt_register('target', 'SNAT', mod.addr)
    ipt_register('target', 'DNAT', mod.addr)
    for (const [ops, hook, hooknum, priority] of POINTS) {
      ops.hook = hook
      ops.hooknum = hooknum
      ops.priority = priority
      ops.owner = mod.addr
      nf_register_hook(ops)
    }
    return 0
  },
  *exit() {
    for (const [ops] of [...POINTS].reverse()) yield* nf_unregister_hook(ops)
    ip_nat_cleanup()
    ipt_unregister('target', 'SNAT')
    ipt_unregister('target', 'DNAT')
    yield* ipt_unregister_table('nat')
  },
  uses: ['ip_tables', 'ip_conntrack'],
})
