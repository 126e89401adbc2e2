/**
 * fib_rules.ts - policy routing: which table is asked, by source, destination, TOS, interface and mark (net/ipv4/fib_rules.c of
 * 2.6.11). The three standard rules ask the tables local, main and default.
 *
 * Lock charter
 *   fib_rules_lock (rwlock, bottom halves off) guards the list: lookups read, changes write with rtnl held. fib_hash_lock is
 *   taken under it. A rule is freed when it is off the list: no lookup keeps it for longer than the lock.
 *   plain: the list is as at boot and nobody wrote to table default; then a lookup needs neither list nor lock.
 */
import { by, bytes, embed, konst, type Layout, layout, ptr, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { NOTIFIER, NOTIFY_DONE, type notifier_block } from '../../irq/notifier.js'
import { EACCES, EAGAIN, EINVAL, ENETUNREACH, ENOMEM, EPERM, ESRCH } from '../../lib/errno.js'
import { MAX_FIB_RULES } from '../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import {
  RWLOCK,
  read_lock_bh,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../../sync/rwlock.js'
import {
  dev_get_by_name,
  dev_name,
  dev_put,
  NETDEV_CHANGENAME,
  NETDEV_REGISTER,
  NETDEV_UNREGISTER,
  register_netdevice_notifier,
} from '../core/netdevice.js'
import { NETDEV } from '../core/types.js'
import { inet_make_mask } from '../wire/ipv4.js'
import {
  fib_get_table,
  fn_hash_lookup,
  ip_fib_local_table,
  ip_fib_main_table,
  RT_TABLE_DEFAULT,
  RT_TABLE_LOCAL,
  RT_TABLE_MAIN,
} from './fib_hash.js'
import { type fib_result, RTN_PROHIBIT, RTN_UNICAST, RTN_UNREACHABLE } from './fib_types.js'

const u8 = RAM.u8

export class fib_rule extends Struct {
  declare r_next: fib_rule | null
  declare r_preference: number
  declare r_table: number
  declare r_action: number
  declare r_dst_len: number
  declare r_src_len: number
  declare r_src: number
  declare r_dst: number
  declare r_tos: number
  declare r_fwmark: number
  declare r_ifindex: number
  declare r_ifname: number
}
export const FIB_RULE: Layout<fib_rule> = layout('fib_rule', fib_rule, {
  r_next: by(
    'fib_rules_lock',
    ptr(() => FIB_RULE),
  ), // by rising preference
  r_preference: konst(word),
  r_table: konst(word),
  r_action: konst(word), // RTN_UNICAST: ask the table
  r_dst_len: konst(word),
  r_src_len: konst(word),
  r_src: konst(word),
  r_dst: konst(word),
  r_tos: konst(word), // 0: any
  r_fwmark: konst(word), // 0: any
  r_ifindex: by('fib_rules_lock', word), // 0: any, -1: of that name there is none now
  r_ifname: konst(bytes(16)),
})
const rule_cache = kmem_cache_create('fib_rule', FIB_RULE, () => MAX_FIB_RULES)

class fib_rules_box extends Struct {
  declare lock: rwlock_t
  declare first: fib_rule | null
  declare plain: number
  declare local: fib_rule
  declare main: fib_rule
  declare default_rule: fib_rule
}
const BOX: Layout<fib_rules_box> = layout('fib_rules', fib_rules_box, {
  lock: embed(RWLOCK),
  first: by(
    'lock',
    ptr(() => FIB_RULE),
  ),
  plain: by('lock', word),
  local: embed(FIB_RULE),
  main: embed(FIB_RULE),
  default_rule: embed(FIB_RULE),
})
const rules = DEFINE_STATIC('fib_rules', BOX)
const standard = [rules.local.addr, rules.main.addr, rules.default_rule.addr]

function rule_name(r: fib_rule): string {
  let name = ''
  for (let k = 0; k < 15 && u8[r.r_ifname + k] !== 0; k++) name += String.fromCharCode(u8[r.r_ifname + k]!)
  return name
}

export { rule_name as fib_rule_ifname }

// ---- lookup ---------------------------------------------------------------------------------------------------------

/** What is looked for: struct flowi. */
function fits(r: fib_rule, daddr: number, saddr: number, tos: number, iif: number, mark: number): boolean {
  return (
    ((saddr ^ r.r_src) & inet_make_mask(r.r_src_len)) === 0 &&
    ((daddr ^ r.r_dst) & inet_make_mask(r.r_dst_len)) === 0 &&
    (r.r_tos === 0 || r.r_tos === tos) &&
    (r.r_fwmark === 0 || r.r_fwmark === mark) &&
    (r.r_ifindex === 0 || r.r_ifindex === iif)
  )
}

function refusal(action: number): number {
  if (action === RTN_UNREACHABLE) return -ENETUNREACH
  return action === RTN_PROHIBIT ? -EACCES : -EINVAL
}

/** By the list. */
function lookup_rules(
  daddr: number,
  saddr: number,
  tos: number,
  iif: number,
  oif: number,
  scope: number,
  res: fib_result,
  mark: number,
): number {
  let ret = -ENETUNREACH
  read_lock_bh(rules.lock)
  for (let r = rules.first; r !== null; r = r.r_next) {
    if (!fits(r, daddr, saddr, tos, iif, mark)) continue
    if (r.r_action !== RTN_UNICAST) {
      ret = refusal(r.r_action)
      break
    }
    const tb = fib_get_table(r.r_table)
    const err = tb === null ? 1 : fn_hash_lookup(tb, daddr, tos, oif, scope, res)
    if (err > 0 || err === -EAGAIN) continue
    ret = err
    break
  }
  read_unlock_bh(rules.lock)
  return ret
}

/**
 * fib_lookup - the way for a packet, by the rules; a `throw` route ends the search of its table. Fills res.
 * @context softirq, or bottom halves off @returns 0, -errno
 */
export function fib_lookup(
  daddr: number,
  saddr: number,
  tos: number,
  iif: number,
  oif: number,
  scope: number,
  res: fib_result,
  mark = 0,
): number {
  if (rules.plain === 0) return lookup_rules(daddr, saddr, tos & 0x1c, iif, oif, scope, res, mark)
  const err = fn_hash_lookup(ip_fib_local_table, daddr, tos & 0x1c, oif, scope, res)
  if (err <= 0 && err !== -EAGAIN) return err
  const main = fn_hash_lookup(ip_fib_main_table, daddr, tos & 0x1c, oif, scope, res)
  return main > 0 || main === -EAGAIN ? -ENETUNREACH : main
}

// ---- change ---------------------------------------------------------------------------------------------------------

/** A rule as configuration states it; an object of the slow path. */
export interface RuleSpec {
  /** 0: just before the second rule of the list. */
  preference: number
  table: number
  action: number
  dst: number
  dst_len: number
  src: number
  src_len: number
  tos: number
  fwmark: number
  ifname: string
}

/** fib_rules_changed - is the list still as at boot? @context process @locks rtnl is held */
export function fib_rules_changed(): void {
  write_lock_bh(rules.lock)
  const list: number[] = []
  for (let r = rules.first; r !== null; r = r.r_next) list.push(r.addr)
  const same = list.length === 3 && list.every((addr, k) => addr === standard[k])
  rules.plain = same && fib_get_table(RT_TABLE_DEFAULT) === null ? 1 : 0
  write_unlock_bh(rules.lock)
}

function fill(r: fib_rule, spec: RuleSpec): void {
  r.r_preference = spec.preference
  r.r_table = spec.table
  r.r_action = spec.action
  r.r_dst = spec.dst
  r.r_dst_len = spec.dst_len
  r.r_src = spec.src
  r.r_src_len = spec.src_len
  r.r_tos = spec.tos
  r.r_fwmark = spec.fwmark
  r.r_ifindex = spec.ifname === '' ? 0 : ifindex_of(spec.ifname)
  for (let k = 0; k < 16; k++) u8[r.r_ifname + k] = k < Math.min(15, spec.ifname.length) ? spec.ifname.charCodeAt(k) : 0
}
function ifindex_of(name: string): number {
  const dev = dev_get_by_name(name)
  if (dev === null) return -1
  dev_put(dev)
  return dev.ifindex
}

/** fib_rule_add - behind those of the same preference. @context process @locks rtnl is held; fib_rules_lock @returns address, -ENOMEM */
export function fib_rule_add(spec: RuleSpec): number {
  const r = kmem_cache_alloc(rule_cache)
  if (r === null) return -ENOMEM
  fill(r, spec)
  let before = rules.first
  if (spec.preference === 0) {
    const second = before === null ? null : before.r_next
    if (second !== null && second.r_preference !== 0) r.r_preference = second.r_preference - 1
  }
  let at: fib_rule | null = before
  before = null
  while (at !== null && at.r_preference >>> 0 <= r.r_preference >>> 0) {
    before = at
    at = at.r_next
  }
  r.r_next = at
  write_lock_bh(rules.lock)
  if (before === null) rules.first = r
  else before.r_next = r
  write_unlock_bh(rules.lock)
  fib_rules_changed()
  return r.addr
}

/** fib_rule_del - the first rule that fits; the one for table local stays. `gone` sees it while it is there. @returns 0, -ESRCH, -EPERM */
export function fib_rule_del(meant: (r: fib_rule) => boolean, gone: (r: fib_rule) => void): number {
  let before: fib_rule | null = null
  let r = rules.first
  while (r !== null && !meant(r)) {
    before = r
    r = r.r_next
  }
  if (r === null) return -ESRCH
  if (r.addr === rules.local.addr) return -EPERM
  gone(r)
  write_lock_bh(rules.lock)
  if (before === null) rules.first = r.r_next
  else before.r_next = r.r_next
  write_unlock_bh(rules.lock)
  if (!standard.includes(r.addr)) kmem_cache_free(rule_cache, r)
  fib_rules_changed()
  return 0
}

/** fib_rules_each - every rule by rising preference, until `each` says false. @locks fib_rules_lock for reading */
export function fib_rules_each(each: (r: fib_rule) => boolean): void {
  read_lock_bh(rules.lock)
  for (let r = rules.first; r !== null && each(r); r = r.r_next);
  read_unlock_bh(rules.lock)
}

/** fib_rules_event - devices come and go; rules name them. */
function fib_rules_event(_nb: notifier_block, event: number, data: number): number {
  const dev = NETDEV.ref(data)
  if (event !== NETDEV_REGISTER && event !== NETDEV_UNREGISTER && event !== NETDEV_CHANGENAME) return NOTIFY_DONE
  const name = dev_name(dev)
  write_lock_bh(rules.lock)
  for (let r = rules.first; r !== null; r = r.r_next) {
    if (r.r_ifindex === dev.ifindex) r.r_ifindex = -1
    if (event !== NETDEV_UNREGISTER && r.r_ifindex === -1 && rule_name(r) === name) r.r_ifindex = dev.ifindex
  }
  write_unlock_bh(rules.lock)
  return NOTIFY_DONE
}
const fib_rules_event_sym = symbol('fib_rules_event', fib_rules_event)
const fib_rules_notifier = DEFINE_STATIC('fib_rules_notifier', NOTIFIER)

/** fib_rules_init - @context boot, CPU 0 */
export function fib_rules_init(): void {
  rwlock_init(rules.lock)
  const blank = { action: RTN_UNICAST, dst: 0, dst_len: 0, src: 0, src_len: 0, tos: 0, fwmark: 0, ifname: '' }
  fill(rules.local, { ...blank, preference: 0, table: RT_TABLE_LOCAL })
  fill(rules.main, { ...blank, preference: 0x7ffe, table: RT_TABLE_MAIN })
  fill(rules.default_rule, { ...blank, preference: 0x7fff, table: RT_TABLE_DEFAULT })
  rules.first = FIB_RULE.ref(rules.local.addr)
  FIB_RULE.ref(rules.local.addr).r_next = FIB_RULE.ref(rules.main.addr)
  FIB_RULE.ref(rules.main.addr).r_next = FIB_RULE.ref(rules.default_rule.addr)
  FIB_RULE.ref(rules.default_rule.addr).r_next = null
  rules.plain = 1
  fib_rules_notifier.call = fib_rules_event_sym
  register_netdevice_notifier(fib_rules_notifier)
}

/** fib_rules_exit - the rules that were added, for the leak audit. @context a halted machine */
export function fib_rules_exit(): void {
  while (
    fib_rule_del(
      r => !standard.includes(r.addr),
      () => {},
    ) === 0
  );
}
