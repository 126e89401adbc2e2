/**
 * ipt_hashlimit.ts - a token bucket for each address or port that is seen (ipt_hashlimit.c). A module.
 *
 * Lock charter
 *   hashlimit.lock guards the tables, all buckets in them, and who has them. Taken under a table of rules' lock for reading, with
 *   ipt_mutex, or in a table's timer, with bottom halves off; only caches are called under it. 2.6.11 has one for the list and one
 *   of each table.
 *
 * Data: avg and burst as of match limit, mode, most buckets (0: all that there are), ms between two looks for those that are over,
 * ms that one stays unused, then the kernel's own, the table's address; 16 bytes of name. The first rule of a name settles all but
 * the name for the others.
 */
import { by, bytes, embed, konst, type Layout, layout, Struct, word } from '../../../abi/layout.js'
import { LIST, list_add, list_del_init, type list_head, list_next } from '../../../abi/list.js'
import { DEFINE_STATIC } from '../../../abi/section.js'
import { symbol } from '../../../abi/symbol.js'
import { hz } from '../../../arch/machine.js'
import { RAM } from '../../../arch/ram.js'
import {
  del_timer_sync,
  init_timer,
  jiffies,
  mod_timer,
  TIMER,
  time_after_eq,
  type timer_list,
  usecs_to_jiffies,
} from '../../../irq/timer.js'
import { MAX_HASHLIMITS, MAX_NAMED_TABLES } from '../../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free, with_hoards } from '../../../mm/slab.js'
import { define_module } from '../../../sched/module.js'
import { spin_lock_bh, spin_unlock_bh } from '../../../sync/bh.js'
import type { sk_buff } from '../../core/types.js'
import { ip_daddr, ip_ntoa, ip_protocol, ip_saddr } from '../../wire/ipv4.js'
import { has_ports } from './ip_conntrack_tuple.js'
import { define_match, HOTDROP, ipt_register, ipt_unregister } from './ip_tables.js'
import { BUCKET_WORDS, bucket_fits, bucket_init, bucket_take } from './ipt_limit.js'
import { says, transport } from './ipt_matches.js'
import {
  init_chains,
  type ipt_named,
  NAMED,
  name_ok,
  named_add,
  named_chain,
  named_get,
  named_names,
  named_put,
  named_show,
  REGISTRY,
  registry_init,
} from './ipt_named.js'

const i32 = RAM.i32
const dv = RAM.dv

const W_AVG = 0
const W_BURST = 1
const W_MODE = 2
const W_MAX = 3
const W_GC = 4
const W_EXPIRE = 5
const W_TABLE = 6
const W_NAME = 7
const NAME_WORDS = 4
const WORDS = W_NAME + NAME_WORDS

// mode
const DIP = 1
const DPT = 2
const SIP = 4
const SPT = 8
const ALL_MODES = DIP | DPT | SIP | SPT

class dsthash_ent extends Struct {
  declare hash: list_head
  declare src: number
  declare dst: number
  declare ports: number
  declare expires: number
  declare bucket: number
}
const ENTRY: Layout<dsthash_ent> = layout('ipt_hashlimit_entry', dsthash_ent, {
  hash: by('hashlimit_lock', embed(LIST)),
  src: konst(word),
  dst: konst(word),
  ports: konst(word), // destination | source << 16
  expires: by('hashlimit_lock', word),
  bucket: by('hashlimit_lock', bytes(BUCKET_WORDS * 4)),
})
const HASH = 128
class hashlimit_table extends Struct {
  declare named: ipt_named
  declare gc: timer_list
  declare avg: number
  declare burst: number
  declare mode: number
  declare max: number
  declare interval: number
  declare expire: number
  declare count: number
  declare chains: number
}
const TABLE: Layout<hashlimit_table> = layout('ipt_hashlimit_table', hashlimit_table, {
  named: by('hashlimit_lock', embed(NAMED)),
  gc: embed(TIMER), // pending as long as the table is there
  avg: konst(word),
  burst: konst(word),
  mode: konst(word),
  max: konst(word),
  interval: konst(word), // jiffies
  expire: konst(word),
  count: by('hashlimit_lock', word),
  chains: by('hashlimit_lock', bytes(HASH * LIST.size)),
})
const entry_cache = kmem_cache_create('ipt_hashlimit_entry', ENTRY, () => with_hoards(MAX_HASHLIMITS))
const table_cache = kmem_cache_create('ipt_hashlimit_table', TABLE, () => MAX_NAMED_TABLES)

export const hashlimit = DEFINE_STATIC('ipt_hashlimit', REGISTRY)

/** @locks hashlimit.lock is held, as in the next ones */
function each(t: hashlimit_table, f: (e: dsthash_ent) => void): void {
  for (let k = 0; k < HASH; k++) {
    const head = t.chains + k * LIST.size
    for (let at = list_next(head), next = 0; at !== head; at = next) {
      next = list_next(at)
      f(ENTRY.container_of('hash', at))
    }
  }
}
function remove(t: hashlimit_table, e: dsthash_ent): void {
  list_del_init(e.hash)
  t.count--
  kmem_cache_free(entry_cache, e)
}

/** Is there a packet to be had from the bucket? What is seen for the first time is let through beside it, as in 2.6.11. */
function take(t: hashlimit_table, src: number, dst: number, ports: number): boolean {
  const head = named_chain(hashlimit, t.chains, HASH, src, dst, ports)
  for (let at = head.next; at !== head.addr; at = list_next(at)) {
    const e = ENTRY.container_of('hash', at)
    if (e.src !== src || e.dst !== dst || e.ports !== ports) continue
    e.expires = (jiffies() + t.expire) | 0
    return bucket_take(e.bucket >> 2)
  }
  const e = t.max !== 0 && t.count >= t.max ? null : kmem_cache_alloc(entry_cache)
  if (e === null) return false
  e.src = src
  e.dst = dst
  e.ports = ports
  e.expires = (jiffies() + t.expire) | 0
  bucket_init(e.bucket >> 2, t.avg >>> 0, t.burst >>> 0)
  list_add(e.hash, head)
  t.count++
  return true
}

function hashlimit_match(skb: sk_buff, _in: unknown, _out: unknown, info: number, offset: number): number {
  const t = TABLE.ref(i32[(info >> 2) + W_TABLE])
  const { mode } = t
  let ports = 0
  if ((mode & (SPT | DPT)) !== 0) {
    const h = offset === 0 ? transport(skb, 8) : 0
    if (h === 0) return HOTDROP // it was asked of and cannot be seen
    if (has_ports(ip_protocol(skb.nh)))
      ports = ((mode & SPT) !== 0 ? dv.getUint16(h) << 16 : 0) | ((mode & DPT) !== 0 ? dv.getUint16(h + 2) : 0)
  }
  const src = (mode & SIP) !== 0 ? ip_saddr(skb.nh) : 0
  const dst = (mode & DIP) !== 0 ? ip_daddr(skb.nh) : 0
  spin_lock_bh(hashlimit.lock)
  const fits = take(t, src, dst, ports)
  spin_unlock_bh(hashlimit.lock)
  return says(fits)
}

/** htable_gc - buckets that nobody has asked for go. @context softirq */
function htable_gc(addr: number): void {
  const t = TABLE.ref(addr)
  spin_lock_bh(hashlimit.lock)
  const now = jiffies()
  each(t, e => {
    if (time_after_eq(now, e.expires)) remove(t, e)
  })
  spin_unlock_bh(hashlimit.lock)
  mod_timer(t.gc, (now + t.interval) | 0)
}
const htable_gc_sym = symbol('hashlimit_gc', htable_gc)

const ms_to_jiffies = (ms: number): number => Math.max(1, usecs_to_jiffies(ms * 1000))

/** @locks hashlimit.lock is held */
function create(w: number): hashlimit_table | null {
  const t = kmem_cache_alloc(table_cache)
  if (t === null) return null
  t.avg = i32[w + W_AVG]
  t.burst = i32[w + W_BURST]
  t.mode = i32[w + W_MODE]
  t.max = i32[w + W_MAX]
  t.interval = ms_to_jiffies(i32[w + W_GC])
  t.expire = ms_to_jiffies(i32[w + W_EXPIRE])
  t.count = 0
  init_chains(t.chains, HASH)
  init_timer(t.gc, htable_gc_sym, t.addr)
  named_add(hashlimit.tables, t.named, w + W_NAME, NAME_WORDS)
  return t
}

function hashlimit_check(_t: string, _e: number, info: number): boolean {
  const w = info >> 2
  const mode = i32[w + W_MODE]
  if (!bucket_fits(i32[w + W_AVG] >>> 0, i32[w + W_BURST] >>> 0)) return false
  if (mode === 0 || (mode & ~ALL_MODES) !== 0 || i32[w + W_MAX] < 0) return false
  if (i32[w + W_GC] <= 0 || i32[w + W_EXPIRE] <= 0 || !name_ok(w + W_NAME, NAME_WORDS)) return false
  spin_lock_bh(hashlimit.lock)
  const there = named_get(hashlimit.tables, w + W_NAME, NAME_WORDS)
  const t = there === null ? create(w) : TABLE.container_of('named', there.addr)
  spin_unlock_bh(hashlimit.lock)
  if (t === null) return false
  if (there === null) mod_timer(t.gc, (jiffies() + t.interval) | 0)
  i32[w + W_TABLE] = t.addr
  return true
}

function hashlimit_destroy(info: number): void {
  const t = TABLE.ref(i32[(info >> 2) + W_TABLE])
  spin_lock_bh(hashlimit.lock)
  const last = named_put(t.named)
  spin_unlock_bh(hashlimit.lock)
  if (!last) return
  del_timer_sync(t.gc) // which takes the lock
  spin_lock_bh(hashlimit.lock)
  each(t, e => remove(t, e))
  spin_unlock_bh(hashlimit.lock)
  kmem_cache_free(table_cache, t)
}
define_match('hashlimit', WORDS, hashlimit_match, hashlimit_check, hashlimit_destroy)

const mod = define_module('ipt_hashlimit', {
  *init() {
    registry_init(hashlimit)
    ipt_register('match', 'hashlimit', mod.addr)
    return 0
  },
  *exit() {
    ipt_unregister('match', 'hashlimit')
  },
  uses: ['ip_tables'],
})

// ---- /proc/net/ipt_hashlimit ------------------------------------------------------------------------------------------

/** hashlimit_names - of the tables. */
export const hashlimit_names = (): string[] => named_names(hashlimit)

function line(e: dsthash_ent): string {
  const left = Math.floor(((e.expires - jiffies()) | 0) / hz())
  const [, credit, cap, cost] = i32.subarray(e.bucket >> 2, (e.bucket >> 2) + BUCKET_WORDS)
  const ends = `${ip_ntoa(e.src)}:${e.ports >>> 16}->${ip_ntoa(e.dst)}:${e.ports & 0xffff}`
  return `${left} ${ends} ${credit! >>> 0} ${cap! >>> 0} ${cost! >>> 0}\n`
}
/** hashlimit_text - seconds left, who, credit, most credit, what a packet costs; null: there is no such table. */
export function hashlimit_text(name: string): string | null {
  return named_show(hashlimit, name, n => {
    let text = ''
    each(TABLE.container_of('named', n.addr), e => {
      text += line(e)
    })
    return text
  })
}
