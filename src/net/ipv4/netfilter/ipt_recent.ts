/**
 * ipt_recent.ts - who was seen, and when (ipt_recent.c). A module.
 *
 * Lock charter
 *   recent.lock guards the tables, all that is in them, and who has them. Taken under a table of rules' lock for reading, or with
 *   ipt_mutex, with bottom halves off; only caches are called under it. 2.6.11 has one for the list and one of each table.
 *
 * Data: seconds, hits, what is done, invert, side, then the kernel's own, the table's address; 32 bytes of name.
 *
 * A table has room for so many addresses, then who was not seen for longest goes.
 */
import { by, bytes, embed, konst, type Layout, layout, Struct, word } from '../../../abi/layout.js'
import {
  INIT_LIST_HEAD,
  LIST,
  list_add,
  list_add_tail,
  list_del_init,
  type list_head,
  list_next,
} from '../../../abi/list.js'
import { DEFINE_STATIC } from '../../../abi/section.js'
import { hz } from '../../../arch/machine.js'
import { RAM } from '../../../arch/ram.js'
import { jiffies } from '../../../irq/timer.js'
import { MAX_NAMED_TABLES, MAX_RECENT, RECENT_PER_TABLE, RECENT_STAMPS } from '../../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free, with_hoards } from '../../../mm/slab.js'
import { define_module } from '../../../sched/module.js'
import { spin_lock_bh, spin_unlock_bh } from '../../../sync/bh.js'
import type { net_device, sk_buff } from '../../core/types.js'
import { ip_daddr, ip_ntoa, ip_saddr, ip_ttl } from '../../wire/ipv4.js'
import { define_match, ipt_register, ipt_unregister } from './ip_tables.js'
import { says } from './ipt_matches.js'
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

const W_SECONDS = 0
const W_HITS = 1
const W_DOES = 2
const W_INVERT = 3
const W_SIDE = 4
const W_TABLE = 5
const W_NAME = 6
const NAME_WORDS = 8
const WORDS = W_NAME + NAME_WORDS

// what is done
const CHECK = 1
const SET = 2
const UPDATE = 4
const REMOVE = 8
const TTL = 16

class recent_entry extends Struct {
  declare lru: list_head
  declare hash: list_head
  declare address: number
  declare ttl: number
  declare last_seen: number
  declare oldest: number
  declare count: number
  declare stamps: number
}
const ENTRY: Layout<recent_entry> = layout('ipt_recent_entry', recent_entry, {
  lru: by('recent_lock', embed(LIST)), // who was seen last is last
  hash: by('recent_lock', embed(LIST)),
  address: konst(word),
  ttl: by('recent_lock', word), // as it came
  last_seen: by('recent_lock', word),
  oldest: by('recent_lock', word), // the stamp that is written next
  count: by('recent_lock', word), // stamps that are there
  stamps: by('recent_lock', bytes(RECENT_STAMPS * 4)),
})
const HASH = 32
class recent_table extends Struct {
  declare named: ipt_named
  declare lru: list_head
  declare entries: number
  declare chains: number
}
const TABLE: Layout<recent_table> = layout('ipt_recent_table', recent_table, {
  named: by('recent_lock', embed(NAMED)),
  lru: by('recent_lock', embed(LIST)),
  entries: by('recent_lock', word),
  chains: by('recent_lock', bytes(HASH * LIST.size)),
})
const entry_cache = kmem_cache_create('ipt_recent_entry', ENTRY, () => with_hoards(MAX_RECENT))
const table_cache = kmem_cache_create('ipt_recent_table', TABLE, () => MAX_NAMED_TABLES)

export const recent = DEFINE_STATIC('ipt_recent', REGISTRY)
const chain = (t: recent_table, address: number): list_head => named_chain(recent, t.chains, HASH, address, 0, 0)

/** @locks recent.lock is held, as in all that follow; `ttl` 0: any */
function find(t: recent_table, address: number, ttl: number): recent_entry | null {
  const head = chain(t, address)
  for (let at = head.next; at !== head.addr; at = list_next(at)) {
    const e = ENTRY.container_of('hash', at)
    if (e.address === address && (ttl === 0 || e.ttl === ttl)) return e
  }
  return null
}

function remove(t: recent_table, e: recent_entry): void {
  list_del_init(e.lru)
  list_del_init(e.hash)
  t.entries--
  kmem_cache_free(entry_cache, e)
}

/** A new one, in place of the oldest where there is no room. @returns null: there are none, other tables have all */
function add(t: recent_table, address: number): recent_entry | null {
  const oldest = t.lru.next
  let e = t.entries < RECENT_PER_TABLE ? kmem_cache_alloc(entry_cache) : null
  if (e === null && oldest !== t.lru.addr) {
    remove(t, ENTRY.container_of('lru', oldest))
    e = kmem_cache_alloc(entry_cache)
  }
  if (e === null) return null
  e.address = address
  e.oldest = 0
  e.count = 0
  INIT_LIST_HEAD(e.lru)
  list_add(e.hash, chain(t, address))
  t.entries++
  return e
}

function see(t: recent_table, e: recent_entry, ttl: number): void {
  const now = jiffies()
  e.ttl = ttl
  e.last_seen = now
  i32[(e.stamps >> 2) + e.oldest] = now
  e.oldest = (e.oldest + 1) % RECENT_STAMPS
  if (e.count < RECENT_STAMPS) e.count++
  list_del_init(e.lru)
  list_add_tail(e.lru, t.lru)
}

/** Was it seen in so many seconds, so often? */
function seen(e: recent_entry, seconds: number, hits: number): boolean {
  const now = jiffies()
  const within = (stamp: number): boolean => seconds === 0 || (now - stamp) >>> 0 <= seconds * hz()
  if (hits === 0) return within(e.last_seen)
  let n = 0
  for (let k = 0; k < e.count; k++) if (within(i32[(e.stamps >> 2) + k])) n++
  return n >= hits
}

/** Does the packet fit? What is inverted is so for --update, too. */
function look(t: recent_table, w: number, address: number, ttl: number): boolean {
  const does = i32[w + W_DOES]
  const inverted = i32[w + W_INVERT] !== 0
  let e = find(t, address, (does & TTL) !== 0 ? ttl : 0)
  if ((does & SET) !== 0) {
    e ??= add(t, address)
    if (e === null) return inverted
    see(t, e, ttl)
    return !inverted
  }
  if (e === null) return inverted
  if ((does & REMOVE) !== 0) {
    remove(t, e)
    return !inverted
  }
  const fits = seen(e, i32[w + W_SECONDS] >>> 0, i32[w + W_HITS]) !== inverted
  if (fits && (does & UPDATE) !== 0) see(t, e, ttl)
  return fits
}

function recent_match(skb: sk_buff, _in: unknown, out: net_device | null, info: number): number {
  const w = info >> 2
  const address = i32[w + W_SIDE] === 0 ? ip_saddr(skb.nh) : ip_daddr(skb.nh)
  const ttl = ip_ttl(skb.nh) + (out !== null && skb.sk === 0 ? 1 : 0) // as it came: forwarding has lowered it
  spin_lock_bh(recent.lock)
  const fits = look(TABLE.ref(i32[w + W_TABLE]), w, address, ttl)
  spin_unlock_bh(recent.lock)
  return says(fits)
}

function recent_check(_t: string, _e: number, info: number): boolean {
  const w = info >> 2
  const does = i32[w + W_DOES] & ~TTL
  if (does !== CHECK && does !== SET && does !== UPDATE && does !== REMOVE) return false // one of them
  if ((does & (SET | REMOVE)) !== 0 && (i32[w + W_SECONDS] | i32[w + W_HITS]) !== 0) return false
  if (i32[w + W_SIDE] >>> 0 > 1 || !name_ok(w + W_NAME, NAME_WORDS)) return false
  spin_lock_bh(recent.lock)
  const there = named_get(recent.tables, w + W_NAME, NAME_WORDS)
  const t = there === null ? kmem_cache_alloc(table_cache) : TABLE.container_of('named', there.addr)
  if (there === null && t !== null) {
    INIT_LIST_HEAD(t.lru)
    init_chains(t.chains, HASH)
    t.entries = 0
    named_add(recent.tables, t.named, w + W_NAME, NAME_WORDS)
  }
  spin_unlock_bh(recent.lock)
  i32[w + W_TABLE] = t === null ? 0 : t.addr
  return t !== null
}

function recent_destroy(info: number): void {
  const t = TABLE.ref(i32[(info >> 2) + W_TABLE])
  spin_lock_bh(recent.lock)
  if (named_put(t.named)) {
    while (t.lru.next !== t.lru.addr) remove(t, ENTRY.container_of('lru', t.lru.next))
    kmem_cache_free(table_cache, t)
  }
  spin_unlock_bh(recent.lock)
}
define_match('recent', WORDS, recent_match, recent_check, recent_destroy)

const mod = define_module('ipt_recent', {
  *init() {
    registry_init(recent)
    ipt_register('match', 'recent', mod.addr)
    return 0
  },
  *exit() {
    ipt_unregister('match', 'recent')
  },
  uses: ['ip_tables'],
})

// ---- /proc/net/ipt_recent ---------------------------------------------------------------------------------------------

/** recent_names - of the tables. */
export const recent_names = (): string[] => named_names(recent)

function line(e: recent_entry): string {
  const stamps = [...i32.subarray(e.stamps >> 2, (e.stamps >> 2) + e.count)].map(s => s >>> 0)
  return `src=${ip_ntoa(e.address)} ttl: ${e.ttl} last_seen: ${e.last_seen >>> 0} oldest_pkt: ${e.oldest} last_pkts: ${stamps.join(', ')}\n`
}
/** recent_text - a table, whom it has not seen for longest first; null: there is no such table. */
export function recent_text(name: string): string | null {
  return named_show(recent, name, n => {
    const { lru } = TABLE.container_of('named', n.addr)
    let text = ''
    for (let at = lru.next; at !== lru.addr; at = list_next(at)) text += line(ENTRY.container_of('lru', at))
    return text
  })
}
