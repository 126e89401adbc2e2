/**
 * ip_tables.ts - tables of rules, and the walk that a packet takes through one (net/ipv4/netfilter/ip_tables.c). A module.
 *
 * Lock charter
 *   table.lock is taken for reading, with bottom halves off, while a packet walks the rules of its CPU's own copy: counters and
 *   saved positions in that copy are this CPU's. Who replaces the rules, or adds the counters up, holds it for writing, so no
 *   packet is between two tables. Matches and targets run under it: they must not come back for it in another way than reading.
 *   ipt_mutex (ipt_core.mutex) serialises registration and replacement.
 */
import { by, embed, konst, type Layout, layout, Struct, word } from '../../../abi/layout.js'
import { DEFINE_STATIC } from '../../../abi/section.js'
import { call, type Sym, symbol } from '../../../abi/symbol.js'
import { cost } from '../../../arch/cost.js'
import { charge_cost, cpu_id } from '../../../arch/cpu.js'
import { RAM } from '../../../arch/ram.js'
import {
  E_BCNT,
  E_COMEFROM,
  E_DMSK,
  E_DST,
  E_INIFACE,
  E_INMASK,
  E_OFFSETS,
  E_OUTIFACE,
  E_OUTMASK,
  E_PCNT,
  E_PROTO,
  E_SMSK,
  E_SRC,
  ENTRY_WORDS,
  EXT_WORDS,
  IPT_CONTINUE,
  IPT_F_FRAG,
  IPT_INV_DSTIP,
  IPT_INV_FRAG,
  IPT_INV_PROTO,
  IPT_INV_SRCIP,
  IPT_INV_VIA_IN,
  IPT_INV_VIA_OUT,
  IPT_RETURN,
  X_KERNEL,
  X_SIZE,
} from '../../../lib/iptables.js'
import { define_module } from '../../../sched/module.js'
import { init_MUTEX, SEMAPHORE, type semaphore } from '../../../sched/semaphore.js'
import { RWLOCK, read_lock_bh, read_unlock_bh, type rwlock_t } from '../../../sync/rwlock.js'
import { NF_DROP } from '../../core/netfilter.js'
import { NETDEV, type net_device, type sk_buff } from '../../core/types.js'
import { IP_OFFSET, ip_daddr, ip_frag_off, ip_protocol, ip_saddr, ip_tot_len } from '../../wire/ipv4.js'

const COST_TABLE = cost('ipt_do_table')
const COST_RULE = cost('ip_packet_match')

const i32 = RAM.i32
const NAME = NETDEV.offset('name') >> 2

// ---- what rules are made of -------------------------------------------------------------------------------------------

/** What a match says: the packet fits, it does not, or it is to be dropped whatever the rules say. */
export const NO = 0
export const YES = 1
export const HOTDROP = 2
/** `info` is the address of the match's data; `offset` that of a fragment, 0: the first or only one. */
export type ipt_match_fn = (
  skb: sk_buff,
  indev: net_device | null,
  outdev: net_device | null,
  info: number,
  offset: number,
) => number
/** @returns a verdict of netfilter, or IPT_CONTINUE */
export type ipt_target_fn = (
  skb: sk_buff,
  indev: net_device | null,
  outdev: net_device | null,
  hook: number,
  info: number,
) => number
/** Is the data right for a rule of this table that packets reach from the hooks of `mask`? `entry` is the rule's word. */
export type ipt_check_fn = (table: string, entry: number, info: number, mask: number) => boolean
export type ipt_destroy_fn = (info: number) => void

export class ipt_extension extends Struct {
  declare registered: number
  declare func: Sym<ipt_match_fn> | Sym<ipt_target_fn>
  declare check: Sym<ipt_check_fn>
  declare destroy: Sym<ipt_destroy_fn>
  declare size: number
  declare owner: number
}
const EXTENSION: Layout<ipt_extension> = layout('ipt_extension', ipt_extension, {
  registered: by('ipt_mutex', word),
  func: konst(word),
  check: konst(word),
  destroy: konst(word),
  size: konst(word), // bytes of its data
  owner: konst(word), // address of the module
})

interface ExtensionText {
  name: string
  kind: 'match' | 'target'
  ext: ipt_extension
  fill: () => void
}
const extensions = new Map<string, ExtensionText>()

function define(
  kind: 'match' | 'target',
  name: string,
  words: number,
  func: ipt_match_fn | ipt_target_fn,
  check: ipt_check_fn,
  destroy?: ipt_destroy_fn,
): void {
  const ext = DEFINE_STATIC(`ipt_${kind}:${name}`, EXTENSION)
  const func_sym = symbol(`ipt_${kind}:${name}`, func) as Sym<ipt_match_fn>
  const check_sym = symbol(`ipt_${kind}:${name}:check`, check)
  const destroy_sym = destroy === undefined ? 0 : symbol(`ipt_${kind}:${name}:destroy`, destroy)
  const fill = (): void => {
    ext.func = func_sym
    ext.check = check_sym
    ext.destroy = destroy_sym
    ext.size = words * 4
  }
  extensions.set(`${kind}:${name}`, { name, kind, ext, fill })
}
/** define_match - at module load; ipt_register makes it known to rules. */
export function define_match(
  name: string,
  words: number,
  func: ipt_match_fn,
  check: ipt_check_fn,
  destroy?: ipt_destroy_fn,
): void {
  define('match', name, words, func, check, destroy)
}
export function define_target(
  name: string,
  words: number,
  func: ipt_target_fn,
  check: ipt_check_fn,
  destroy?: ipt_destroy_fn,
): void {
  define('target', name, words, func, check, destroy)
}

/** ipt_register - rules may use it from now on. @context process, ipt_mutex or a module's init */
export function ipt_register(kind: 'match' | 'target', name: string, owner: number): void {
  const text = extensions.get(`${kind}:${name}`)!
  text.fill()
  text.ext.owner = owner
  text.ext.registered = 1
}
export function ipt_unregister(kind: 'match' | 'target', name: string): void {
  extensions.get(`${kind}:${name}`)!.ext.registered = 0
}
/** ipt_find - the struct of one that is registered, or null. */
export function ipt_find(kind: 'match' | 'target', name: string): ipt_extension | null {
  const ext = extensions.get(`${kind}:${name}`)?.ext
  return ext !== undefined && ext.registered !== 0 ? ext : null
}

/** extension_at - what is called at a rule's word X_KERNEL. */
export function extension_at(addr: number): ipt_extension {
  return EXTENSION.ref(addr)
}

// ---- tables -----------------------------------------------------------------------------------------------------------

export class ipt_table_info extends Struct {
  declare size: number
  declare number: number
  declare initial_entries: number
  declare stride: number
  declare entries: number
  declare hook_entry0: number
  declare hook_entry1: number
  declare hook_entry2: number
  declare hook_entry3: number
  declare hook_entry4: number
  declare underflow0: number
  declare underflow1: number
  declare underflow2: number
  declare underflow3: number
  declare underflow4: number
}
/** Constant once it is in a table, but for what each CPU keeps in its copy of the entries. */
export const TABLE_INFO: Layout<ipt_table_info> = layout('ipt_table_info', ipt_table_info, {
  size: konst(word), // bytes of the entries
  number: konst(word),
  initial_entries: konst(word), // of the table as it was registered: with no more than these it does not hold its module
  stride: konst(word), // bytes from one CPU's copy to the next
  entries: konst(word), // address of CPU 0's copy
  hook_entry0: konst(word), // bytes from the start of the entries
  hook_entry1: konst(word),
  hook_entry2: konst(word),
  hook_entry3: konst(word),
  hook_entry4: konst(word),
  underflow0: konst(word),
  underflow1: konst(word),
  underflow2: konst(word),
  underflow3: konst(word),
  underflow4: konst(word),
})
const HOOK_ENTRY = TABLE_INFO.offset('hook_entry0') >> 2
const UNDERFLOW = TABLE_INFO.offset('underflow0') >> 2

export class ipt_table extends Struct {
  declare lock: rwlock_t
  declare private: number
  declare valid_hooks: number
  declare registered: number
  declare owner: number
}
export const TABLE: Layout<ipt_table> = layout('ipt_table', ipt_table, {
  lock: embed(RWLOCK),
  private: by('lock', word), // address of the ipt_table_info
  valid_hooks: konst(word),
  registered: by('ipt_mutex', word),
  owner: konst(word), // address of the module
})

class ipt_core_t extends Struct {
  declare mutex: semaphore
}
const CORE: Layout<ipt_core_t> = layout('ipt_core', ipt_core_t, { mutex: embed(SEMAPHORE) })
export const ipt_core = DEFINE_STATIC('ipt_core', CORE)

// ---- the walk ---------------------------------------------------------------------------------------------------------

/** Is a device's name the wanted one, as far as the mask goes? Words at word indices. */
function iface_differs(dev: net_device | null, wanted: number, mask: number): boolean {
  const name = dev === null ? 0 : dev.$w + NAME
  for (let k = 0; k < 4; k++) {
    const have = name === 0 ? 0 : i32[name + k]
    if (((have ^ i32[wanted + k]) & i32[mask + k]) !== 0) return true
  }
  return false
}

/** ip_packet_match - the part of a rule that every rule has. `e` is a word index. */
function ip_packet_match(
  iph: number,
  indev: net_device | null,
  outdev: net_device | null,
  e: number,
  fragment: boolean,
): boolean {
  const proto = i32[e + E_PROTO]
  const inv = proto >>> 24
  if (((ip_saddr(iph) & i32[e + E_SMSK]) !== i32[e + E_SRC]) !== ((inv & IPT_INV_SRCIP) !== 0)) return false
  if (((ip_daddr(iph) & i32[e + E_DMSK]) !== i32[e + E_DST]) !== ((inv & IPT_INV_DSTIP) !== 0)) return false
  if (iface_differs(indev, e + E_INIFACE, e + E_INMASK) !== ((inv & IPT_INV_VIA_IN) !== 0)) return false
  if (iface_differs(outdev, e + E_OUTIFACE, e + E_OUTMASK) !== ((inv & IPT_INV_VIA_OUT) !== 0)) return false
  const wanted = proto & 0xffff
  if (wanted !== 0 && (wanted !== ip_protocol(iph)) !== ((inv & IPT_INV_PROTO) !== 0)) return false
  return (proto & (IPT_F_FRAG << 16)) === 0 || fragment !== ((inv & IPT_INV_FRAG) !== 0)
}

/** All matches of the rule at word `e`. */
function matches_say(
  e: number,
  end: number,
  skb: sk_buff,
  indev: net_device | null,
  outdev: net_device | null,
  offset: number,
): number {
  for (let m = e + ENTRY_WORDS; m < end; m += i32[m + X_SIZE] >> 2) {
    const ext = EXTENSION.ref(i32[m + X_KERNEL])
    const says = call(ext.func as Sym<ipt_match_fn>)(skb, indev, outdev, (m + EXT_WORDS) << 2, offset)
    if (says !== YES) return says
  }
  return YES
}

/** ADD_COUNTER: a packet more, of so many bytes; each of the two counters is two words. */
export function add_counter(at: number, n: number): void {
  const low = (i32[at] >>> 0) + n
  i32[at] = low | 0
  if (low > 0xffffffff) i32[at + 1]++
}

/** ipt_do_table - @context softirq, process @locks table.lock for reading @returns a verdict of netfilter */
export function ipt_do_table(
  skb: sk_buff,
  hook: number,
  indev: net_device | null,
  outdev: net_device | null,
  table: ipt_table,
): number {
  charge_cost(COST_TABLE)
  const offset = ip_frag_off(skb.nh) & IP_OFFSET
  read_lock_bh(table.lock)
  const priv = TABLE_INFO.ref(table.private)
  const base = (priv.entries + cpu_id * priv.stride) >> 2
  let e = base + (i32[priv.$w + HOOK_ENTRY + hook] >> 2)
  let back = base + (i32[priv.$w + UNDERFLOW + hook] >> 2)
  let verdict = NF_DROP
  for (;;) {
    charge_cost(COST_RULE)
    const offsets = i32[e + E_OFFSETS]
    const t = e + ((offsets & 0xffff) >> 2)
    const next = e + (offsets >>> 18)
    const says = ip_packet_match(skb.nh, indev, outdev, e, offset !== 0)
      ? matches_say(e, t, skb, indev, outdev, offset)
      : NO
    if (says === HOTDROP) break
    if (says === NO) {
      e = next
      continue
    }
    add_counter(e + E_PCNT, 1)
    add_counter(e + E_BCNT, ip_tot_len(skb.nh))
    const target = i32[t + X_KERNEL]
    if (target === 0) {
      const v = i32[t + EXT_WORDS]
      if (v < 0 && v !== IPT_RETURN) {
        verdict = -v - 1
        break
      }
      if (v === IPT_RETURN) {
        e = back
        back = base + (i32[back + E_COMEFROM] >> 2)
        continue
      }
      if (base + (v >> 2) !== next) {
        i32[next + E_COMEFROM] = (back - base) << 2 // whom it returns to is kept where it returns
        back = next
      }
      e = base + (v >> 2)
      continue
    }
    const ext = EXTENSION.ref(target)
    verdict = call(ext.func as Sym<ipt_target_fn>)(skb, indev, outdev, hook, (t + EXT_WORDS) << 2)
    if (verdict !== IPT_CONTINUE) break
    verdict = NF_DROP
    e = next
  }
  read_unlock_bh(table.lock)
  return verdict
}

// ---- the module: the two targets without which there is no table -------------------------------------------------------

function ipt_error(): number {
  return NF_DROP // nobody can get there
}
define_target('ERROR', 8, ipt_error, () => true)

function* init(): Generator<void, number, void> {
  init_MUTEX(ipt_core.mutex)
  ipt_register('target', 'ERROR', 0)
  for (const name of ['tcp', 'udp', 'icmp']) ipt_register('match', name, 0)
  return 0
}
function* exit(): Generator<void, void, void> {
  ipt_unregister('target', 'ERROR')
  for (const name of ['tcp', 'udp', 'icmp']) ipt_unregister('match', name)
}
export const ip_tables_module = define_module('ip_tables', { init, exit })
