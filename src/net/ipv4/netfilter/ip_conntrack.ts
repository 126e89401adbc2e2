/**
 * ip_conntrack.ts - connections by their tuples (ip_conntrack_core.c): hash, references, timers, the oldest goes when all are out.
 *
 * Lock charter
 *   ip_conntrack_lock (core.lock) guards the hash and the protocol state of all connections, and is taken with bottom halves off.
 *   Under it a timer's base is locked, never the other way round: the handler of a timeout takes it with no base held.
 *   `status`: bits that are set once each, atomically. `reply` may change until the connection is confirmed; until then the CPU
 *   that works on its first packet has it alone.
 *   `use`: one of each packet, one of the pending timer of a confirmed one. Who stops the timer has the timer's reference.
 */
import { atomic, by, bytes, embed, konst, type Layout, layout, Struct, word } from '../../../abi/layout.js'
import { INIT_LIST_HEAD, LIST, list_add, list_del_init, type list_head } from '../../../abi/list.js'
import { DEFINE_STATIC } from '../../../abi/section.js'
import { call, type Sym, symbol } from '../../../abi/symbol.js'
import { fetch_add, fetch_or, load, store } from '../../../arch/atomic.js'
import { config, hz } from '../../../arch/machine.js'
import { RAM } from '../../../arch/ram.js'
import { del_timer, init_timer, jiffies, mod_timer, TIMER, type timer_list } from '../../../irq/timer.js'
import { jhash_3words } from '../../../lib/jhash.js'
import { CONNTRACK_BUCKETS, MAX_CONNTRACKS } from '../../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../../mm/slab.js'
import { refcount_inc } from '../../../sync/refcount.js'
import {
  RWLOCK,
  read_lock_bh,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../../../sync/rwlock.js'
import { nf_conntrack_get, nf_conntrack_put } from '../../core/skbuff.js'
import { NF_CONNTRACK, type nf_conntrack, type sk_buff } from '../../core/types.js'
import { ct_sysctl } from './ip_conntrack_sysctl.js'
import { ip_ct_tuple_equal, TUPLE_WORDS, tuple_copy } from './ip_conntrack_tuple.js'

const i32 = RAM.i32

/** What one end of a TCP connection has sent, and may send: sequence numbers. */
export class ip_ct_tcp_state extends Struct {
  declare td_end: number
  declare td_maxend: number
  declare td_maxwin: number
  declare td_scale: number
  declare loose: number
  declare flags: number
}
const TCP_STATE: Layout<ip_ct_tcp_state> = layout('ip_ct_tcp_state', ip_ct_tcp_state, {
  td_end: word, // behind all that it has sent; 0: it has sent nothing yet
  td_maxend: word, // behind all that the other end has allowed it
  td_maxwin: word, // largest window that it has offered, bytes without sign
  td_scale: word, // its windows are shifted by that
  loose: word, // so many packets of its pass without a check
  flags: word, // IP_CT_TCP_FLAG_*
})
export class ip_ct_tcp extends Struct {
  declare seen_orig: ip_ct_tcp_state
  declare seen_reply: ip_ct_tcp_state
  declare state: number
  declare last_dir: number
  declare last_index: number
  declare retrans: number
  declare last_seq: number
  declare last_ack: number
  declare last_end: number
}
const TCP: Layout<ip_ct_tcp> = layout('ip_ct_tcp', ip_ct_tcp, {
  seen_orig: embed(TCP_STATE),
  seen_reply: embed(TCP_STATE),
  state: word,
  last_dir: word,
  last_index: word, // kind of the last segment
  retrans: word, // how often it has come again
  last_seq: word,
  last_ack: word,
  last_end: word,
})

export class ip_conntrack extends Struct {
  declare general: nf_conntrack
  declare orig_list: list_head
  declare orig: number
  declare reply_list: list_head
  declare reply: number
  declare status: number
  declare tcp: ip_ct_tcp
  declare timeout: timer_list
  declare bysource: list_head
  declare masq_index: number
}
export const CONNTRACK: Layout<ip_conntrack> = layout('ip_conntrack', ip_conntrack, {
  general: embed(NF_CONNTRACK),
  orig_list: by('ip_conntrack_lock', embed(LIST)),
  orig: konst(bytes(TUPLE_WORDS * 4)),
  reply_list: by('ip_conntrack_lock', embed(LIST)),
  reply: by('ip_conntrack_lock', bytes(TUPLE_WORDS * 4)), // until it is confirmed; constant then
  status: atomic(word),
  tcp: by('ip_conntrack_lock', embed(TCP)),
  timeout: embed(TIMER), // pending while the connection is confirmed and alive
  bysource: by('ip_nat_lock', embed(LIST)), // linked while IPS_SRC_NAT_DONE
  masq_index: atomic(word), // the device whose address it was given, 0: none
})
const REPLY_LIST = CONNTRACK.offset('reply_list')
const ORIG_LIST = CONNTRACK.offset('orig_list')
const STATUS = CONNTRACK.offset('status')
const cache = kmem_cache_create('ip_conntrack', CONNTRACK, () => MAX_CONNTRACKS)

// status
export const IPS_SEEN_REPLY = 2
export const IPS_ASSURED = 4
export const IPS_CONFIRMED = 8
export const IPS_SRC_NAT = 1 << 4
export const IPS_DST_NAT = 1 << 5
export const IPS_NAT_MASK = IPS_SRC_NAT | IPS_DST_NAT
export const IPS_SRC_NAT_DONE = 1 << 7
export const IPS_DST_NAT_DONE = 1 << 8
export const IPS_NAT_DONE_MASK = IPS_SRC_NAT_DONE | IPS_DST_NAT_DONE
// nfctinfo
export const IP_CT_ESTABLISHED = 0
export const IP_CT_RELATED = 1
export const IP_CT_NEW = 2
export const IP_CT_IS_REPLY = 3

class ct_core extends Struct {
  declare lock: rwlock_t
  declare count: number
  declare rnd: number
  declare early_drops: number
  declare alive: number
  declare destroyed: Sym<(c: ip_conntrack) => void>
  declare hash: number
}
const CORE: Layout<ct_core> = layout('ip_conntrack_core', ct_core, {
  lock: embed(RWLOCK),
  count: { ...word, guard: 'atomic' }, // out of the cache
  rnd: konst(word),
  early_drops: { ...word, guard: 'atomic' },
  alive: konst(word), // the module has been loaded
  destroyed: atomic(word), // ip_conntrack_destroyed: who else keeps something with connections
  hash: by('lock', bytes(CONNTRACK_BUCKETS * 8)), // list heads
})
export const ct = DEFINE_STATIC('ip_conntrack_core', CORE)

function bucket(w: number): number {
  const h = jhash_3words(i32[w], i32[w + 1] ^ i32[w + 4], (i32[w + 2] & 0xffff) | (i32[w + 3] << 16), ct.rnd)
  return ct.hash + ((h >>> 0) % CONNTRACK_BUCKETS) * 8
}

/** set_status - bits that stay. @context any */
export function set_status(c: ip_conntrack, bits: number): void {
  if ((c.status & bits) !== bits) fetch_or(c.addr + STATUS, bits)
}

/**
 * A connection but `ignored` that one of whose tuples is at word `w`, and which way; the lock is held.
 * @returns its address, | 1 for the reply; 0
 */
function __find(w: number, ignored = 0): number {
  const head = bucket(w)
  for (let at = i32[head >> 2]; at !== head; at = i32[at >> 2]) {
    if (!ip_ct_tuple_equal((at + LIST.size) >> 2, w)) continue
    const found = is_slot(at - ORIG_LIST) ? at - ORIG_LIST : (at - REPLY_LIST) | 1 // which of its two nodes this is
    if ((found & ~1) !== ignored) return found
  }
  return 0
}
/** Does a connection begin there? They lie in slots of one size. */
function is_slot(addr: number): boolean {
  return ((addr - cache.base) & ((1 << cache.shift) - 1)) === 0
}

/** ip_conntrack_find_get - @context softirq, process @returns a referenced connection | 1 for its reply; 0: none */
export function ip_conntrack_find_get(w: number): number {
  read_lock_bh(ct.lock)
  const found = __find(w)
  if (found !== 0) refcount_inc(found & ~1)
  read_unlock_bh(ct.lock)
  return found
}

/** ip_conntrack_tuple_taken - by a connection that others can find, and that is not `ignored`. @context softirq, process */
export function ip_conntrack_tuple_taken(w: number, ignored: ip_conntrack): boolean {
  read_lock_bh(ct.lock)
  const found = __find(w, ignored.addr)
  read_unlock_bh(ct.lock)
  return found !== 0
}

/** ip_conntrack_alter_reply - answers will come with the tuple at word `r`. @context as init_conntrack, before it is confirmed */
export function ip_conntrack_alter_reply(c: ip_conntrack, r: number): void {
  write_lock_bh(ct.lock)
  tuple_copy(c.reply >> 2, r)
  write_unlock_bh(ct.lock)
}

/** ip_conntrack_on_destroy - `f` hears of each connection before it is freed, with no lock held; 0: nobody. */
export function ip_conntrack_on_destroy(f: Sym<(c: ip_conntrack) => void>): void {
  store(ct.addr + DESTROYED, f)
}

function destroy_conntrack(nfct: number): void {
  const c = CONNTRACK.ref(nfct)
  const { destroyed } = ct
  if (destroyed !== 0) call(destroyed)(c)
  fetch_add(ct.addr + COUNT, -1)
  kmem_cache_free(cache, c)
}
const destroy_sym = symbol('destroy_conntrack', destroy_conntrack)
const COUNT = CORE.offset('count')
const EARLY_DROPS = CORE.offset('early_drops')
const DESTROYED = CORE.offset('destroyed')

function death_by_timeout(addr: number): void {
  const c = CONNTRACK.ref(addr)
  write_lock_bh(ct.lock)
  list_del_init(c.orig_list)
  list_del_init(c.reply_list)
  write_unlock_bh(ct.lock)
  nf_conntrack_put(addr)
}
const death_by_timeout_sym = symbol('death_by_timeout', death_by_timeout)

/** early_drop - the oldest of a chain that nobody has answered goes. @returns true: there was one */
function early_drop(w: number): boolean {
  let victim = 0
  read_lock_bh(ct.lock)
  const head = bucket(w)
  for (let at = i32[(head >> 2) + 1]; at !== head && victim === 0; at = i32[(at >> 2) + 1]) {
    const addr = is_slot(at - ORIG_LIST) ? at - ORIG_LIST : at - REPLY_LIST
    if ((CONNTRACK.ref(addr).status & IPS_ASSURED) === 0) victim = addr
  }
  if (victim !== 0) refcount_inc(victim)
  read_unlock_bh(ct.lock)
  if (victim === 0) return false
  const dropped = ip_ct_kill(CONNTRACK.ref(victim))
  if (dropped) fetch_add(ct.addr + EARLY_DROPS, 1)
  nf_conntrack_put(victim)
  return dropped
}

/** init_conntrack - a new one for the tuples at words `w` and `r`, not in the hash yet. @returns it with one reference, or null */
export function init_conntrack(w: number, r: number): ip_conntrack | null {
  if (load(ct.addr + COUNT) >= ct_sysctl.max && !early_drop(w)) return null
  const c = kmem_cache_alloc(cache)
  if (c === null) return null
  fetch_add(ct.addr + COUNT, 1)
  c.general.use = 1
  c.general.destroy = destroy_sym
  INIT_LIST_HEAD(c.orig_list)
  INIT_LIST_HEAD(c.reply_list)
  INIT_LIST_HEAD(c.bysource)
  tuple_copy(c.orig >> 2, w)
  tuple_copy(c.reply >> 2, r)
  c.status = 0
  i32.fill(0, c.tcp.addr >> 2, (c.tcp.addr + TCP.size) >> 2)
  c.masq_index = 0
  init_timer(c.timeout, death_by_timeout_sym, c.addr)
  c.timeout.expires = 0
  return c
}

/** ip_ct_refresh - it lives so many jiffies from now. */
export function ip_ct_refresh(c: ip_conntrack, extra: number): void {
  write_lock_bh(ct.lock)
  __ip_ct_refresh(c, extra)
  write_unlock_bh(ct.lock)
}
/** __ip_ct_refresh - @locks ip_conntrack_lock is held for writing */
export function __ip_ct_refresh(c: ip_conntrack, extra: number): void {
  if ((c.status & IPS_CONFIRMED) === 0)
    c.timeout.expires = extra // from when it is confirmed
  else if (del_timer(c.timeout)) mod_timer(c.timeout, (jiffies() + extra) | 0)
}

/** ip_conntrack_confirm - the first packet got through: others may find its connection. @returns false: another was faster */
export function ip_conntrack_confirm(skb: sk_buff): boolean {
  const c = CONNTRACK.ref(skb.nfct)
  if (skb.nfctinfo >= IP_CT_IS_REPLY || (c.status & IPS_CONFIRMED) !== 0) return true
  write_lock_bh(ct.lock)
  const first = __find(c.orig >> 2) === 0 && __find(c.reply >> 2) === 0
  if (first) {
    list_add(c.orig_list, LIST.ref(bucket(c.orig >> 2)))
    list_add(c.reply_list, LIST.ref(bucket(c.reply >> 2)))
    refcount_inc(c.addr)
    set_status(c, IPS_CONFIRMED)
    mod_timer(c.timeout, (jiffies() + c.timeout.expires) | 0)
  }
  write_unlock_bh(ct.lock)
  return first
}

/** ip_conntrack_attach - a packet made up in answer belongs to the connection of the one that it answers, which others may not know yet. */
export function ip_conntrack_attach(nskb: sk_buff, skb: sk_buff): void {
  if (skb.nfct === 0) return
  nskb.nfctinfo = skb.nfctinfo < IP_CT_IS_REPLY ? IP_CT_RELATED + IP_CT_IS_REPLY : IP_CT_RELATED
  nskb.nfct = skb.nfct
  nf_conntrack_get(nskb.nfct)
}

/** ip_conntrack_each - all that are in the hash, the lock held for reading. */
export function ip_conntrack_each(f: (c: ip_conntrack) => void): void {
  if (ct.alive === 0) return
  read_lock_bh(ct.lock)
  for (let k = 0; k < CONNTRACK_BUCKETS; k++) {
    const head = ct.hash + k * 8
    for (let at = i32[head >> 2]; at !== head; at = i32[at >> 2])
      if (is_slot(at - ORIG_LIST)) f(CONNTRACK.ref(at - ORIG_LIST))
  }
  read_unlock_bh(ct.lock)
}

/** ip_ct_kill - it ends now, unless somebody else is about to end it. @context softirq, process, of who has a reference */
export function ip_ct_kill(c: ip_conntrack): boolean {
  if (!del_timer(c.timeout)) return false
  death_by_timeout(c.addr)
  return true
}

/** ip_ct_iterate_cleanup - connections that `which` says yes to go. @context process, or a halted machine */
export function ip_ct_iterate_cleanup(which: (c: ip_conntrack) => boolean): void {
  const all: ip_conntrack[] = []
  ip_conntrack_each(c => {
    if (!which(c)) return
    refcount_inc(c.addr)
    all.push(c)
  })
  for (const c of all) {
    ip_ct_kill(c)
    nf_conntrack_put(c.addr)
  }
}
/** ip_conntrack_flush - every connection that is in the hash goes. @context process, or a halted machine */
export function ip_conntrack_flush(): void {
  ip_ct_iterate_cleanup(() => true)
}

/** ip_conntrack_core_init - @context process, the module's init */
export function ip_conntrack_core_init(): void {
  rwlock_init(ct.lock)
  store(ct.addr + DESTROYED, 0)
  ct.rnd = config('seed') ^ jiffies() ^ hz()
  for (let k = 0; k < CONNTRACK_BUCKETS; k++) INIT_LIST_HEAD(LIST.ref(ct.hash + k * 8))
  ct.alive = 1
}
