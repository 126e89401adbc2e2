/**
 * ip_tables_user.ts - tables come and go, rules are replaced, counters are read. Locks: see the charter of ip_tables.ts.
 */
import { DEFINE_STATIC } from '../../../abi/section.js'
import { num_cpus } from '../../../arch/machine.js'
import { memcpy, RAM } from '../../../arch/ram.js'
import { EEXIST, EINVAL, ENOENT, ENOMEM } from '../../../lib/errno.js'
import {
  E_BCNT,
  E_COMEFROM,
  E_OFFSETS,
  E_PCNT,
  ENTRY_WORDS,
  initial_table,
  R_HOOK_ENTRY,
  R_NAME,
  R_NUM_ENTRIES,
  R_SIZE,
  R_UNDERFLOW,
  R_VALID_HOOKS,
  REPLACE_WORDS,
  table_blob,
  text_words,
  words_text,
  X_KERNEL,
  X_NAME,
  X_SIZE,
} from '../../../lib/iptables.js'
import { kfree, kmalloc } from '../../../mm/kmalloc.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../../mm/slab.js'
import { module_put, request_module, try_module_get } from '../../../sched/module.js'
import { down, up } from '../../../sched/semaphore.js'
import { rwlock_init, write_lock_bh, write_unlock_bh } from '../../../sync/rwlock.js'
import { extension_at, ipt_core, type ipt_table, type ipt_table_info, TABLE, TABLE_INFO } from './ip_tables.js'
import { cleanup_entries, translate_table, type Wanted } from './ip_tables_translate.js'

const i32 = RAM.i32
const info_cache = kmem_cache_create('ipt_table_info', TABLE_INFO, () => 16)
const HOOK_ENTRY = TABLE_INFO.offset('hook_entry0') >> 2
const UNDERFLOW = TABLE_INFO.offset('underflow0') >> 2

const tables = new Map<string, ipt_table>()

/** define_table - at module load of a table's file. */
export function define_table(name: string): ipt_table {
  const table = DEFINE_STATIC(`ipt_table:${name}`, TABLE)
  tables.set(name, table)
  return table
}

function wanted(blob: Int32Array): Wanted {
  return {
    name: words_text(blob.subarray(R_NAME, R_NAME + 8)),
    valid_hooks: blob[R_VALID_HOOKS]!,
    number: blob[R_NUM_ENTRIES]!,
    hook_entry: [...blob.subarray(R_HOOK_ENTRY, R_HOOK_ENTRY + 5)],
    underflow: [...blob.subarray(R_UNDERFLOW, R_UNDERFLOW + 5)],
  }
}

/** A checked table with a copy of the rules for each CPU. @returns address of an ipt_table_info, or -errno */
function make_info(blob: Int32Array, w: Wanted): number {
  const size = blob[R_SIZE]!
  if (size <= 0 || (size & 3) !== 0 || size !== (blob.length - REPLACE_WORDS) * 4) return -EINVAL
  const stride = (size + 127) & ~127 // no two CPUs count on one line
  const entries = kmalloc(stride * num_cpus())
  const info = entries === 0 ? null : kmem_cache_alloc(info_cache)
  if (info === null) {
    if (entries !== 0) kfree(entries)
    return -ENOMEM
  }
  info.size = size
  info.number = w.number
  info.initial_entries = 0
  info.stride = stride
  info.entries = entries
  i32.set(blob.subarray(REPLACE_WORDS), entries >> 2)
  for (let hook = 0; hook < 5; hook++) {
    i32[info.$w + HOOK_ENTRY + hook] = w.hook_entry[hook]
    i32[info.$w + UNDERFLOW + hook] = w.underflow[hook]
  }
  const err = translate_table(info, w, extension_at)
  if (err !== 0) {
    free_info(info)
    return err
  }
  for (let cpu = 1; cpu < num_cpus(); cpu++) {
    memcpy(entries + cpu * stride, entries, size)
    for_each_entry(entries + cpu * stride, size, e => {
      for (let k = 0; k < 4; k++) i32[e + E_PCNT + k] = 0 // counters that came from outside count once
    })
  }
  return info.addr
}

function free_info(info: ipt_table_info): void {
  kfree(info.entries)
  kmem_cache_free(info_cache, info)
}

function for_each_entry(entries: number, size: number, f: (e: number) => void): void {
  for (let e = entries >> 2; e < (entries + size) >> 2; e += i32[e + E_OFFSETS] >>> 18) f(e)
}

/** ipt_register_table - with ACCEPT for all that comes. @context process, a module's init @returns 0, -EEXIST, -ENOMEM */
export function* ipt_register_table(name: string, owner: number): Generator<void, number, void> {
  const table = tables.get(name)!
  const blob = table_blob(initial_table(name))
  yield* down(ipt_core.mutex)
  const addr = table.registered !== 0 ? -EEXIST : make_info(blob, wanted(blob))
  if (addr > 0) {
    rwlock_init(table.lock)
    TABLE_INFO.ref(addr).initial_entries = TABLE_INFO.ref(addr).number
    table.private = addr
    table.valid_hooks = blob[R_VALID_HOOKS]!
    table.owner = owner
    table.registered = 1
  }
  up(ipt_core.mutex)
  return addr > 0 ? 0 : addr
}

/** ipt_unregister_table - when no hook leads to it any more. @context process, a module's exit */
export function* ipt_unregister_table(name: string): Generator<void, void, void> {
  const table = tables.get(name)!
  yield* down(ipt_core.mutex)
  drop_table(table)
  up(ipt_core.mutex)
}

function drop_table(table: ipt_table): void {
  table.registered = 0
  const info = TABLE_INFO.ref(table.private)
  table.private = 0
  cleanup_entries(info, extension_at)
  free_info(info)
}

/**
 * ipt_replace - new rules for a table, all at once: a packet sees the old ones or the new ones. The table's module is loaded when it
 * is not there; a table with rules holds it. @context process @returns 0, -EINVAL, -ELOOP, -ENOENT, -ENOMEM
 */
export function* ipt_replace(blob: Int32Array): Generator<void, number, void> {
  if (blob.length < REPLACE_WORDS) return -EINVAL
  const w = wanted(blob)
  const table = tables.get(w.name)
  if (table === undefined) return -ENOENT
  const loaded = yield* request_module(`iptable_${w.name}`)
  if (loaded !== 0) return loaded
  for (const ext of extensions_of(blob)) yield* request_module(`ipt_${ext}`) // what is not there is missed below
  yield* down(ipt_core.mutex)
  const err = replace(table, blob, w)
  up(ipt_core.mutex)
  return err
}

/** Names of matches and targets in a table that nobody has checked yet. */
function extensions_of(blob: Int32Array): Set<string> {
  const names = new Set<string>()
  for (let e = REPLACE_WORDS; e + ENTRY_WORDS < blob.length; ) {
    const end = e + (blob[e + E_OFFSETS]! >>> 18)
    for (let x = e + ENTRY_WORDS; x + X_NAME + 6 <= end; ) {
      names.add(words_text(blob.subarray(x + X_NAME, x + X_NAME + 6)))
      const size = blob[x + X_SIZE]! >> 2
      if (size <= 0) return names
      x += size
    }
    if (end <= e) return names
    e = end
  }
  return names
}

function replace(table: ipt_table, blob: Int32Array, w: Wanted): number {
  if (table.registered === 0 || !try_module_get(table.owner)) return -ENOENT
  const addr = w.valid_hooks === table.valid_hooks ? make_info(blob, w) : -EINVAL
  if (addr < 0) {
    module_put(table.owner)
    return addr
  }
  const info = TABLE_INFO.ref(addr)
  const old = TABLE_INFO.ref(table.private)
  info.initial_entries = old.initial_entries
  write_lock_bh(table.lock)
  table.private = addr
  write_unlock_bh(table.lock)
  const had = old.number > old.initial_entries
  if (had || info.number <= info.initial_entries) module_put(table.owner)
  if (had && info.number <= info.initial_entries) module_put(table.owner)
  cleanup_entries(old, extension_at)
  free_info(old)
  return 0
}

/** Two words from an entry's counter, of all CPUs. */
function sum(info: ipt_table_info, at: number): [number, number] {
  let total = 0
  for (let cpu = 0; cpu < num_cpus(); cpu++) {
    const k = at + ((cpu * info.stride) >> 2)
    total += (i32[k] >>> 0) + (i32[k + 1] >>> 0) * 4294967296
  }
  return [(total % 4294967296) | 0, Math.floor(total / 4294967296) | 0]
}

/**
 * ipt_get_entries - header and rules as table_blob() has them, the counters of all CPUs added up; null: there is no such table.
 * @context process, or a halted machine @locks table.lock for writing
 */
export function ipt_get_entries(name: string): Int32Array<ArrayBuffer> | null {
  const table = tables.get(name)
  if (table === undefined || table.registered === 0) return null
  write_lock_bh(table.lock)
  const info = TABLE_INFO.ref(table.private)
  const base = info.entries >> 2
  const blob = new Int32Array(REPLACE_WORDS + (info.size >> 2))
  blob.set(text_words(name, 8), R_NAME)
  blob[R_VALID_HOOKS] = table.valid_hooks
  blob[R_NUM_ENTRIES] = info.number
  blob[R_SIZE] = info.size
  for (let hook = 0; hook < 5; hook++) {
    blob[R_HOOK_ENTRY + hook] = i32[info.$w + HOOK_ENTRY + hook]
    blob[R_UNDERFLOW + hook] = i32[info.$w + UNDERFLOW + hook]
  }
  blob.set(i32.subarray(base, base + (info.size >> 2)), REPLACE_WORDS)
  for_each_entry(info.entries, info.size, e => {
    const at = e - base + REPLACE_WORDS
    blob.set(sum(info, e + E_PCNT), at + E_PCNT)
    blob.set(sum(info, e + E_BCNT), at + E_BCNT)
    blob[at + E_COMEFROM] = 0
  })
  write_unlock_bh(table.lock)
  strip(blob)
  return blob
}

/** What is the kernel's own does not leave it. */
function strip(blob: Int32Array): void {
  for (let e = REPLACE_WORDS; e < blob.length; e += blob[e + E_OFFSETS]! >>> 18) {
    const t = e + ((blob[e + E_OFFSETS]! & 0xffff) >> 2)
    for (let m = e + ENTRY_WORDS; m < t; m += blob[m + X_SIZE]! >> 2) blob[m + X_KERNEL] = 0
    blob[t + X_KERNEL] = 0
  }
}

/** ipt_exit_halted - all tables are gone. @context a halted machine */
export function ipt_exit_halted(): void {
  for (const table of tables.values()) if (table.registered !== 0) drop_table(table)
}

/** ipt_tables - names of those that are registered: /proc/net/ip_tables_names. */
export function ipt_tables(): string[] {
  return [...tables].filter(([, t]) => t.registered !== 0).map(([name]) => name)
}
