/**
 * rtnl_rule.ts - RTM_*RULE: policy rules as programs see and change them. Changes come under rtnl; dumps take fib_rules_lock.
 * Unlike in 2.6.11 the route cache is emptied when a rule changes, and RTMGRP_IPV4_RULE hears of it (2.6.12).
 */
import { symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { EINVAL, ENOBUFS } from '../../lib/errno.js'
import { IFNAMSIZ } from '../core/dev_change.js'
import { AF_INET } from '../core/sock_types.js'
import type { sk_buff } from '../core/types.js'
import {
  nlmsg_data,
  nlmsg_end,
  nlmsg_pid,
  nlmsg_room,
  nlmsg_seq,
  rta_addr,
  rta_payload,
  rta_put_addr,
  rta_put_string,
  rta_put_u32,
  rta_string,
  rta_u32,
} from '../netlink/nlmsg.js'
import {
  RTM_DELRULE,
  RTM_GETRULE,
  RTM_NEWRULE,
  RTMGRP_IPV4_RULE,
  rtnl_notify,
  rtnl_register,
} from '../netlink/rtnetlink.js'
import { NLM_F_MULTI, type netlink_callback, netlink_cb } from '../netlink/types.js'
import { rt_cache_flush_all } from './fib_frontend.js'
import { fib_get_table, RT_TABLE_MAX, RT_TABLE_UNSPEC } from './fib_hash.js'
import {
  FIB_RULE,
  type fib_rule,
  fib_rule_add,
  fib_rule_del,
  fib_rule_ifname,
  fib_rules_each,
  type RuleSpec,
} from './fib_rules.js'
import { RT_SCOPE_UNIVERSE, RTN_UNICAST } from './fib_types.js'
import { RTA_DST, RTA_IIF, RTA_PRIORITY, RTA_PROTOINFO, RTA_SRC, rtmsg_put } from './rtnl_route.js'

const i32 = RAM.i32
const u8 = RAM.u8
const IPTOS_TOS_MASK = 0x1e
const RULE_SPACE = 16 + 12 + 4 * 8 + 20

/** inet_fill_rule - @returns false: there is no room */
function inet_fill_rule(skb: sk_buff, r: fib_rule, type: number, pid: number, seq: number, flags: number): boolean {
  if (!nlmsg_room(skb, RULE_SPACE)) return false
  const head = { pid, seq, type, flags }
  const nlh = rtmsg_put(skb, head, {
    ...{ dst_len: r.r_dst_len, src_len: r.r_src_len, tos: r.r_tos, table: r.r_table, protocol: 0 },
    ...{ scope: RT_SCOPE_UNIVERSE, type: r.r_action, flags: 0 },
  })
  if (r.r_dst_len !== 0) rta_put_addr(skb, RTA_DST, r.r_dst)
  if (r.r_src_len !== 0) rta_put_addr(skb, RTA_SRC, r.r_src)
  if (r.r_fwmark !== 0) rta_put_u32(skb, RTA_PROTOINFO, r.r_fwmark)
  const name = fib_rule_ifname(r)
  if (name !== '') rta_put_string(skb, RTA_IIF, name)
  if (r.r_preference !== 0) rta_put_u32(skb, RTA_PRIORITY, r.r_preference)
  nlmsg_end(skb, nlh)
  return true
}

/** inet_dump_rules - @locks fib_rules_lock */
function inet_dump_rules(skb: sk_buff, cb: netlink_callback): number {
  const done = cb.args >> 2 // rules that were shown
  const { pid } = netlink_cb(cb.skb!)
  let k = 0
  fib_rules_each(r => {
    if (k < i32[done]! || inet_fill_rule(skb, r, RTM_NEWRULE, pid, nlmsg_seq(cb.nlh), NLM_F_MULTI)) {
      k++
      return true
    }
    return false
  })
  i32[done] = k
  return skb.len
}
const inet_dump_rules_sym = symbol('inet_dump_rules', inet_dump_rules)

function announce(r: fib_rule, type: number, nlh: number): void {
  const [pid, seq] = [nlmsg_pid(nlh), nlmsg_seq(nlh)]
  rtnl_notify(RTMGRP_IPV4_RULE, skb => inet_fill_rule(skb, r, type, pid, seq, 0))
}

/** A table that nobody uses, or 0. */
function fib_empty_table(): number {
  for (let id = 1; id <= RT_TABLE_MAX; id++) if (fib_get_table(id) === null) return id
  return 0
}

interface Attributes {
  addr(type: number): number
  value(type: number): number
  has(type: number): boolean
  name: string | null
}
/** @returns null: one is too short, or no name of a device */
function read(rta: number[]): Attributes | null {
  const has = (type: number): boolean => rta[type - 1]! !== 0
  for (const type of [RTA_DST, RTA_SRC, RTA_PRIORITY, RTA_PROTOINFO])
    if (has(type) && rta_payload(rta[type - 1]!) < 4) return null
  if (has(RTA_IIF) && rta_payload(rta[RTA_IIF - 1]!) > IFNAMSIZ) return null
  return {
    has,
    addr: type => (has(type) ? rta_addr(rta[type - 1]!) : 0),
    value: type => (has(type) ? rta_u32(rta[type - 1]!) : 0),
    name: has(RTA_IIF) ? (rta_string(rta[RTA_IIF - 1]!, IFNAMSIZ + 1) ?? '').slice(0, IFNAMSIZ - 1) : null,
  }
}

/** inet_rtm_newrule - @locks rtnl is held @returns 0, -EINVAL, -ENOBUFS */
function inet_rtm_newrule(_skb: sk_buff, nlh: number, rta: number[]): number {
  const rtm = nlmsg_data(nlh)
  const [dst_len, src_len, tos, asked, action] = [1, 2, 3, 4, 7].map(k => u8[rtm + k]!) as [
    ...[number, number, number, number, number],
  ]
  const a = read(rta)
  if (src_len > 32 || dst_len > 32 || (tos & ~IPTOS_TOS_MASK) !== 0 || a === null) return -EINVAL
  const table = asked === RT_TABLE_UNSPEC && action === RTN_UNICAST ? fib_empty_table() : asked
  if (table === 0 && action === RTN_UNICAST) return -ENOBUFS
  const spec: RuleSpec = {
    ...{
      preference: a.value(RTA_PRIORITY),
      table,
      action,
      dst: a.addr(RTA_DST),
      dst_len,
      src: a.addr(RTA_SRC),
      src_len,
    },
    ...{ tos, fwmark: a.value(RTA_PROTOINFO), ifname: a.name ?? '' },
  }
  const at = fib_rule_add(spec)
  if (at < 0) return -ENOBUFS
  announce(FIB_RULE.ref(at), RTM_NEWRULE, nlh)
  rt_cache_flush_all()
  return 0
}
const inet_rtm_newrule_sym = symbol('inet_rtm_newrule', inet_rtm_newrule)

/** inet_rtm_delrule - the first rule that is as is said. @locks rtnl is held @returns 0, -ESRCH, -EPERM, -EINVAL */
function inet_rtm_delrule(_skb: sk_buff, nlh: number, rta: number[]): number {
  const rtm = nlmsg_data(nlh)
  const a = read(rta)
  if (a === null) return -EINVAL
  const meant = (r: fib_rule): boolean =>
    u8[rtm + 1] === r.r_dst_len &&
    u8[rtm + 2] === r.r_src_len &&
    u8[rtm + 3] === r.r_tos &&
    (u8[rtm + 7] === 0 || u8[rtm + 7] === r.r_action) &&
    (u8[rtm + 4] === 0 || u8[rtm + 4] === r.r_table) &&
    (!a.has(RTA_SRC) || a.addr(RTA_SRC) === r.r_src) &&
    (!a.has(RTA_DST) || a.addr(RTA_DST) === r.r_dst) &&
    (!a.has(RTA_PROTOINFO) || a.value(RTA_PROTOINFO) === r.r_fwmark) &&
    (!a.has(RTA_PRIORITY) || a.value(RTA_PRIORITY) === r.r_preference) &&
    (a.name === null || a.name === fib_rule_ifname(r))
  const err = fib_rule_del(meant, r => announce(r, RTM_DELRULE, nlh))
  if (err === 0) rt_cache_flush_all()
  return err
}
const inet_rtm_delrule_sym = symbol('inet_rtm_delrule', inet_rtm_delrule)

/** rtnl_rule_init - @context boot, CPU 0 */
export function rtnl_rule_init(): void {
  rtnl_register(AF_INET, RTM_NEWRULE, inet_rtm_newrule_sym, 0)
  rtnl_register(AF_INET, RTM_DELRULE, inet_rtm_delrule_sym, 0)
  rtnl_register(AF_INET, RTM_GETRULE, 0, inet_dump_rules_sym)
}
