/**
 * ip_nat_rule.ts - the table nat, which the first packet of a connection walks, and its targets SNAT and DNAT (ip_nat_rule.c).
 * Locks: see the charters of ip_tables.ts and ip_nat_core.ts.
 */
import { RAM } from '../../../arch/ram.js'
import { local_bh_disable, local_bh_enable } from '../../../sync/bh.js'
import {
  NF_ACCEPT,
  NF_IP_LOCAL_IN,
  NF_IP_LOCAL_OUT,
  NF_IP_POST_ROUTING,
  NF_IP_PRE_ROUTING,
} from '../../core/netfilter.js'
import type { net_device, sk_buff } from '../../core/types.js'
import { CONNTRACK, IPS_CONFIRMED, type ip_conntrack } from './ip_conntrack.js'
import { alloc_null_binding, HOOK2MANIP, ip_nat_initialized, ip_nat_setup_info } from './ip_nat_core.js'
import {
  IP_NAT_RANGE_MAP_IPS,
  IP_NAT_RANGE_PROTO_SPECIFIED,
  RANGE_FLAGS,
  RANGE_MAX_IP,
  RANGE_MIN_IP,
  RANGE_PORTS,
  RANGE_WORDS,
} from './ip_nat_proto.js'
import { define_target, ipt_do_table } from './ip_tables.js'
import { define_table } from './ip_tables_user.js'

const i32 = RAM.i32

export const nat_table = define_table('nat')
const PRE_ROUTING = 1 << NF_IP_PRE_ROUTING
const LOCAL_OUT = 1 << NF_IP_LOCAL_OUT
export const DST_HOOKS = PRE_ROUTING | LOCAL_OUT
export const SRC_HOOKS = 1 << NF_IP_POST_ROUTING
const HOOK_BITS = 0b11111

/** nat_check - a range that is one, in a rule of the table nat that packets reach from these hooks only. */
export function nat_check(table: string, info: number, mask: number, hooks: number): boolean {
  const w = info >> 2
  const flags = i32[w + RANGE_FLAGS]
  if (table !== 'nat' || (mask & HOOK_BITS & ~hooks) !== 0) return false
  if ((flags & ~(IP_NAT_RANGE_MAP_IPS | IP_NAT_RANGE_PROTO_SPECIFIED)) !== 0) return false
  if (i32[w + RANGE_MIN_IP] >>> 0 > i32[w + RANGE_MAX_IP] >>> 0) return false
  return (i32[w + RANGE_PORTS] & 0xffff) <= i32[w + RANGE_PORTS] >>> 16
}

/** nat_target - settle the connection of a packet: into the range at `info`, or, where the rule names no address, to `ip`. */
export function nat_target(skb: sk_buff, hook: number, info: number, ip: number | null): number {
  const w = info >> 2
  const c = CONNTRACK.ref(skb.nfct)
  if (ip === null)
    return ip_nat_setup_info(
      c,
      i32[w + RANGE_FLAGS],
      i32[w + RANGE_MIN_IP],
      i32[w + RANGE_MAX_IP],
      i32[w + RANGE_PORTS],
      hook,
    )
  return ip_nat_setup_info(c, i32[w + RANGE_FLAGS] | IP_NAT_RANGE_MAP_IPS, ip, ip, i32[w + RANGE_PORTS], hook)
}

/** SNAT and DNAT: a range. */
define_target(
  'SNAT',
  RANGE_WORDS,
  (skb, _in, _out, hook, info) => nat_target(skb, hook, info, null),
  (table, _e, info, mask) => nat_check(table, info, mask, SRC_HOOKS),
)
define_target(
  'DNAT',
  RANGE_WORDS,
  (skb, _in, _out, hook, info) => nat_target(skb, hook, info, null),
  (table, _e, info, mask) => nat_check(table, info, mask, DST_HOOKS),
)

/** ip_nat_rule_find - settle what the rules say of a packet that begins a connection, or that it stays as it is. @returns a verdict */
export function ip_nat_rule_find(
  c: ip_conntrack,
  skb: sk_buff,
  hook: number,
  indev: net_device | null,
  outdev: net_device | null,
): number {
  const walks = hook !== NF_IP_LOCAL_IN && (c.status & IPS_CONFIRMED) === 0
  const verdict = walks ? ipt_do_table(skb, hook, indev, outdev, nat_table) : NF_ACCEPT
  if (verdict !== NF_ACCEPT || ip_nat_initialized(c, HOOK2MANIP(hook))) return verdict
  local_bh_disable()
  const ret = alloc_null_binding(c, hook)
  local_bh_enable()
  return ret
}
