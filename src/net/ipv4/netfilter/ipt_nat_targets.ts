/** ipt_nat_targets.ts - more targets of the table nat: REDIRECT to this machine, NETMAP of one net to another. No locks of their own. */
import { RAM } from '../../../arch/ram.js'
import { NF_DROP, NF_IP_LOCAL_OUT, NF_IP_POST_ROUTING } from '../../core/netfilter.js'
import type { net_device, sk_buff } from '../../core/types.js'
import { ip_daddr, ip_saddr } from '../../wire/ipv4.js'
import { in_dev_get } from '../devinet.js'
import { IP_NAT_RANGE_MAP_IPS, RANGE_FLAGS, RANGE_MAX_IP, RANGE_MIN_IP, RANGE_WORDS } from './ip_nat_proto.js'
import { DST_HOOKS, nat_check, nat_target, SRC_HOOKS } from './ip_nat_rule.js'
import { define_target } from './ip_tables.js'
import { extension_module } from './ipt_module.js'

const i32 = RAM.i32
const INADDR_LOOPBACK = 0x7f000001

/** REDIRECT: a range without addresses. A packet that came in goes to the first address of its device, one of ours to loopback. */
function redirect(skb: sk_buff, indev: net_device | null, _out: unknown, hook: number, info: number): number {
  if (hook === NF_IP_LOCAL_OUT) return nat_target(skb, hook, info, INADDR_LOOPBACK)
  const ifa = in_dev_get(indev!)?.ifa_list ?? null
  return ifa === null ? NF_DROP : nat_target(skb, hook, info, ifa.ifa_local)
}
define_target(
  'REDIRECT',
  RANGE_WORDS,
  redirect,
  (table, _e, info, mask) =>
    nat_check(table, info, mask, DST_HOOKS) && (i32[(info >> 2) + RANGE_FLAGS] & IP_NAT_RANGE_MAP_IPS) === 0,
)
extension_module('REDIRECT', ['target'], ['iptable_nat'])

/** NETMAP: first and last address of a net; what is not the net's stays. */
function netmap(skb: sk_buff, _in: unknown, _out: unknown, hook: number, info: number): number {
  const w = info >> 2
  const netmask = ~(i32[w + RANGE_MIN_IP] ^ i32[w + RANGE_MAX_IP])
  const ip = hook === NF_IP_POST_ROUTING ? ip_saddr(skb.nh) : ip_daddr(skb.nh)
  return nat_target(skb, hook, info, (ip & ~netmask) | (i32[w + RANGE_MIN_IP] & netmask))
}
define_target(
  'NETMAP',
  RANGE_WORDS,
  netmap,
  (table, _e, info, mask) =>
    nat_check(table, info, mask, DST_HOOKS | SRC_HOOKS) && i32[(info >> 2) + RANGE_FLAGS] === IP_NAT_RANGE_MAP_IPS,
)
extension_module('NETMAP', ['target'], ['iptable_nat'])
