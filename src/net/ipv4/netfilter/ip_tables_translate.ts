/**
 * ip_tables_translate.ts - is a table from outside one that packets can walk? (translate_table of ip_tables.c)
 * No locks of its own; called under ipt_mutex, on entries that nobody else sees yet.
 */
import { call } from '../../../abi/symbol.js'
import { RAM } from '../../../arch/ram.js'
import { EINVAL, ELOOP, ENOENT } from '../../../lib/errno.js'
import {
  E_COMEFROM,
  E_DST,
  E_OFFSETS,
  E_PCNT,
  E_PROTO,
  ENTRY_WORDS,
  EXT_WORDS,
  IPT_F_MASK,
  IPT_INV_MASK,
  IPT_RETURN,
  words_text,
  X_KERNEL,
  X_NAME,
  X_SIZE,
} from '../../../lib/iptables.js'
import { module_put, try_module_get } from '../../../sched/module.js'
import { type ipt_extension, ipt_find, type ipt_table_info } from './ip_tables.js'

const i32 = RAM.i32

/** The fields of a new table as its header gave them. */
export interface Wanted {
  name: string
  valid_hooks: number
  number: number
  hook_entry: number[]
  underflow: number[]
}

function ext_name(x: number): string {
  return words_text(i32.subarray(x + X_NAME, x + X_NAME + 6))
}
const next_of = (e: number): number => e + (i32[e + E_OFFSETS] >>> 18)
const target_of = (e: number): number => e + ((i32[e + E_OFFSETS] & 0xffff) >> 2)

/** Nothing in the rule's common part that a packet could fail. */
function unconditional(e: number): boolean {
  for (let k = E_DST - 1; k <= E_PROTO; k++) if (i32[e + k] !== 0) return false
  return target_of(e) === e + ENTRY_WORDS
}

/** Every entry lies within the table and holds its matches and its target. @returns where entries start, or -EINVAL */
function check_sizes(base: number, info: ipt_table_info, number: number): Set<number> | number {
  const starts = new Set<number>()
  const end = base + (info.size >> 2)
  for (let e = base; e < end; e = next_of(e)) {
    const offsets = i32[e + E_OFFSETS]
    if (e + ENTRY_WORDS + EXT_WORDS > end || ((offsets & 3) | ((offsets >>> 16) & 3)) !== 0) return -EINVAL
    const t = target_of(e)
    const next = next_of(e)
    if (t < e + ENTRY_WORDS || next > end || t + EXT_WORDS > next || i32[t + X_SIZE] !== (next - t) * 4) return -EINVAL
    let m = e + ENTRY_WORDS
    while (m < t) {
      const size = i32[m + X_SIZE]
      if (m + EXT_WORDS > t || size < EXT_WORDS * 4 || (size & 3) !== 0 || size > (t - m) * 4) return -EINVAL
      m += size >> 2
    }
    starts.add((e - base) << 2)
  }
  return starts.size === number ? starts : -EINVAL
}

/** Hooks begin at entries, and end in policies. */
function check_hooks(base: number, w: Wanted, starts: Set<number>): boolean {
  for (let hook = 0; hook < 5; hook++) {
    if ((w.valid_hooks & (1 << hook)) === 0) continue
    if (!starts.has(w.hook_entry[hook]) || !starts.has(w.underflow[hook])) return false
    const e = base + (w.underflow[hook] >> 2)
    const t = target_of(e)
    if (!unconditional(e) || ext_name(t) !== '') return false
    const v = i32[t + EXT_WORDS]
    if (v !== -1 && v !== -2) return false
  }
  return true
}

/** Is it a standard target? Then its verdict is one, or leads to an entry. */
function check_verdict(t: number, starts: Set<number>): boolean {
  if (i32[t + X_SIZE] !== (EXT_WORDS + 1) * 4) return false
  const v = i32[t + EXT_WORDS]
  return v < 0 ? v === -1 || v === -2 || v === -4 || v === IPT_RETURN : starts.has(v)
}

const ON_PATH = 1 << 5

/**
 * mark_source_chains - from each hook along all rules: which hooks does each rule hear from, and does a chain come back to itself?
 * The way back is kept in the packet counters meanwhile, as no packet counts there yet. @returns false: a loop
 */
function mark_source_chains(base: number, w: Wanted, starts: Set<number>): boolean {
  for (let hook = 0; hook < 5; hook++) {
    if ((w.valid_hooks & (1 << hook)) === 0) continue
    let e = base + (w.hook_entry[hook] >> 2)
    i32[e + E_PCNT] = e
    for (;;) {
      const t = target_of(e)
      const standard = ext_name(t) === ''
      const v = standard ? i32[t + EXT_WORDS] : -1
      i32[e + E_COMEFROM] |= (1 << hook) | ON_PATH
      if (!standard || v >= 0 || !unconditional(e)) {
        const to = standard && v >= 0 ? base + (v >> 2) : next_of(e)
        if (!starts.has((to - base) << 2)) return false // off the end: chains end in a verdict
        if ((i32[to + E_COMEFROM] & ON_PATH) !== 0) return false
        i32[to + E_PCNT] = e
        e = to
        continue
      }
      // Back along the way to a rule that called a chain, and on behind it.
      let from = e
      do {
        i32[e + E_COMEFROM] &= ~ON_PATH
        from = e
        e = i32[from + E_PCNT]
        i32[from + E_PCNT] = 0
      } while (e !== from && next_of(e) === from)
      if (e === from) break
      const next = next_of(e)
      i32[next + E_PCNT] = e
      e = next
    }
  }
  return true
}

/** Find it, hold it and ask it. @returns 0, -ENOENT, -EINVAL */
function check_extension(kind: 'match' | 'target', x: number, e: number, table: string): number {
  const ext = ipt_find(kind, ext_name(x))
  if (ext === null || !try_module_get(ext.owner)) return -ENOENT
  const info = (x + EXT_WORDS) << 2
  if (i32[x + X_SIZE] === EXT_WORDS * 4 + ext.size && call(ext.check)(table, e, info, i32[e + E_COMEFROM])) {
    i32[x + X_KERNEL] = ext.addr
    return 0
  }
  module_put(ext.owner)
  return -EINVAL
}

function let_go(x: number, by_addr: (addr: number) => ipt_extension): void {
  const addr = i32[x + X_KERNEL]
  if (addr === 0) return
  const ext = by_addr(addr)
  if (ext.destroy !== 0) call(ext.destroy)((x + EXT_WORDS) << 2)
  module_put(ext.owner)
  i32[x + X_KERNEL] = 0
}

/** cleanup_entries - let all matches and targets of a table go. @context process, when no packet walks it any more */
export function cleanup_entries(info: ipt_table_info, by_addr: (addr: number) => ipt_extension): void {
  const base = info.entries >> 2
  for (let e = base; e < base + (info.size >> 2); e = next_of(e)) {
    const t = target_of(e)
    for (let m = e + ENTRY_WORDS; m < t; m += i32[m + X_SIZE] >> 2) let_go(m, by_addr)
    let_go(t, by_addr)
  }
}

/** translate_table - check CPU 0's copy, and put addresses where names were. @returns 0, -EINVAL, -ELOOP, -ENOENT */
export function translate_table(info: ipt_table_info, w: Wanted, by_addr: (addr: number) => ipt_extension): number {
  const base = info.entries >> 2
  const starts = check_sizes(base, info, w.number)
  if (typeof starts === 'number') return starts
  if (!check_hooks(base, w, starts)) return -EINVAL
  const end = base + (info.size >> 2)
  for (let e = base; e < end; e = next_of(e)) {
    const t = target_of(e)
    const flags = i32[e + E_PROTO]
    if (((flags >>> 16) & 0xff & ~IPT_F_MASK) !== 0 || ((flags >>> 24) & ~IPT_INV_MASK) !== 0) return -EINVAL
    if (ext_name(t) === '' && !check_verdict(t, starts)) return -EINVAL
    i32[e + E_COMEFROM] = 0
    i32[t + X_KERNEL] = 0
    for (let m = e + ENTRY_WORDS; m < t; m += i32[m + X_SIZE] >> 2) i32[m + X_KERNEL] = 0
  }
  // The last rule of a chain leads somewhere: nothing runs off the end of the table.
  const counters = new Map<number, number>()
  for (let e = base; e < end; e = next_of(e)) {
    counters.set(e, i32[e + E_PCNT])
    i32[e + E_PCNT] = 0
    if (next_of(e) === end && ext_name(target_of(e)) !== 'ERROR') return -EINVAL
  }
  if (!mark_source_chains(base, w, starts)) return -ELOOP
  for (const [e, n] of counters) i32[e + E_PCNT] = n
  for (let e = base; e < end; e = next_of(e)) {
    const t = target_of(e)
    let err = 0
    for (let m = e + ENTRY_WORDS; m < t && err === 0; m += i32[m + X_SIZE] >> 2)
      err = check_extension('match', m, e, w.name)
    if (err === 0 && ext_name(t) !== '') err = check_extension('target', t, e, w.name)
    if (err !== 0) {
      cleanup_entries(info, by_addr)
      return err
    }
  }
  return 0
}
