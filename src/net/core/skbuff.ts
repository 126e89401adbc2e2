/**
 * skbuff.ts - socket buffers: a packet is a struct and a data block; headers are added and stripped by moving pointers.
 *
 * Lock charter
 *   An sk_buff belongs to one owner; handing it on hands on the ownership. `users` counts owners when it is shared, and
 *   `dataref` at the end of the data block counts the sk_buffs that share the block. Both are plain while they are 1.
 *   Lists of packets: skb_queue.ts.
 */

import { type Layout, layout, type Struct, Struct as StructClass, word } from '../../abi/layout.js'
import { call } from '../../abi/symbol.js'
import { fetch_add, load, xchg } from '../../arch/atomic.js'
import { cost } from '../../arch/cost.js'
import { BUG_ON, charge_cost, panic } from '../../arch/cpu.js'
import { config } from '../../arch/machine.js'
import { memcpy, RAM } from '../../arch/ram.js'
import { MAX_SKB_FRAGS, SKB_CACHE, SKB_DATA_16K, SKB_DATA_64K } from '../../lib/limits.js'
import { at_mem_init } from '../../mm/init.js'
import {
  kmem_alloc_addr,
  type kmem_cache,
  kmem_cache_alloc,
  kmem_cache_create,
  kmem_cache_free,
  kmem_free_addr,
} from '../../mm/slab.js'
import { refcount_dec, refcount_dec_and_test, refcount_inc } from '../../sync/refcount.js'
import { drop_reason, fate_delivered, fate_dropped, fate_sent } from './fate.js'
import { page_get, page_put } from './pages.js'
import { ACCT_NONE, DST, NF_CONNTRACK, SHINFO, SKB, type sk_buff, type skb_shared_info } from './types.js'

const COST_ALLOC = cost('alloc_skb')
const COST_FREE = cost('__kfree_skb')

const i32 = RAM.i32
const f64 = RAM.f64
const CB_DOUBLES = (SKB.offset('cb') + 7) >> 3

class skb_data extends StructClass {
  declare first: number
}
const DATA: Layout<skb_data> = layout('skb_data', skb_data, { first: word })

const skbs = (): number => config('skbs') || SKB_CACHE
const skb_cache = kmem_cache_create('skbuff_head_cache', SKB, skbs)
const data_2k = kmem_cache_create('skb_data_2k', DATA, skbs, 2048) as unknown as kmem_cache<Struct>
const data_16k = kmem_cache_create(
  'skb_data_16k',
  DATA,
  () => config('jumbo') || SKB_DATA_16K,
  16384,
) as unknown as kmem_cache<Struct>
const data_64k = kmem_cache_create('skb_data_64k', DATA, () => SKB_DATA_64K, 131072) as unknown as kmem_cache<Struct>

/** attach_cb - lenses by slot for what a layer keeps in skb.cb. @context module load */
export function attach_cb(control: Layout<Struct>): void {
  at_mem_init(() => control.attach(skb_cache.base + SKB.offset('cb'), skb_cache.shift, skb_cache.count))
}

const SHINFO_SIZE = (SHINFO.size + 15) & ~15
const USERS = SKB.offset('users')
const ACCT = SKB.offset('acct')
const NFCT = SKB.offset('nfct') >> 2
const DST_FIELD = SKB.offset('dst') >> 2
const DST_REFCNT = DST.offset('refcnt')
const DATAREF = SHINFO.offset('dataref') >> 2
const NR_FRAGS = SHINFO.offset('nr_frags') >> 2
const FRAG_LIST = SHINFO.offset('frag_list') >> 2

/** Largest packet that lies in one data block, bytes. */
export const SKB_MAX_LINEAR = 131072 - SHINFO_SIZE
/** Headroom that dev_alloc_skb leaves in front. */
export const NET_SKB_PAD = 64

// ---- allocation -----------------------------------------------------------------------------------------------------

/** Room for data is handed out in whole cache lines (SKB_DATA_ALIGN). */
function data_align(size: number): number {
  return (size + 63) & ~63
}

/**
 * A data block for `size` bytes (aligned) and the shared info behind them. Small blocks begin at one of four colours:
 * all at the same offset of their 2 KiB, the headers of a ring of packets would fight for a few sets of the cache.
 * @returns address, or 0
 */
function data_alloc(size: number): number {
  const need = size + SHINFO_SIZE
  if (need <= 2048) {
    const block = kmem_alloc_addr(data_2k)
    const colour = (block >>> 4) & 0x180
    return block !== 0 && need + colour <= 2048 ? block + colour : block
  }
  return need <= 16384 ? kmem_alloc_addr(data_16k) : need <= 131072 ? kmem_alloc_addr(data_64k) : 0
}

/** skb_capacity - how many packets of dev_alloc_skb(size) this machine has memory for. */
export function skb_capacity(size: number): number {
  const need = data_align(size + NET_SKB_PAD) + SHINFO_SIZE
  const blocks = need <= 2048 ? data_2k : need <= 16384 ? data_16k : data_64k
  return Math.min(blocks.count, skb_cache.count)
}

function data_free(head: number): void {
  if ((head - data_2k.base) >>> data_2k.shift < data_2k.count) kmem_free_addr(data_2k, head & ~2047)
  else if (head >= data_64k.base && (head - data_64k.base) >>> data_64k.shift < data_64k.count)
    kmem_free_addr(data_64k, head)
  else kmem_free_addr(data_16k, head)
}

function data_init(skb: sk_buff, head: number, size: number): void {
  const end = head + size
  skb.head = head
  skb.data = head
  skb.tail = head
  skb.end = end
  i32[(end >> 2) + DATAREF] = 1
  i32[(end >> 2) + NR_FRAGS] = 0
  i32[(end >> 2) + FRAG_LIST] = 0
}

/** alloc_skb - an empty packet with room for `size` bytes. @context any @returns owned packet, or null */
export function alloc_skb(size: number): sk_buff | null {
  charge_cost(COST_ALLOC)
  const skb = kmem_cache_alloc(skb_cache)
  if (skb === null) return null
  const room = data_align(size)
  const head = data_alloc(room)
  if (head === 0) {
    kmem_cache_free(skb_cache, skb)
    return null
  }
  const w = skb.addr >> 3
  for (let k = w + CB_DOUBLES - 1; k >= w; k--) f64[k] = 0 // cb is left to the layer that uses it
  data_init(skb, head, room)
  skb.users = 1
  skb.truesize = room + SKB.size
  return skb
}

/** dev_alloc_skb - as alloc_skb, for a received packet: NET_SKB_PAD bytes of headroom. */
export function dev_alloc_skb(size: number): sk_buff | null {
  const skb = alloc_skb(size + NET_SKB_PAD)
  if (skb !== null) skb_reserve(skb, NET_SKB_PAD)
  return skb
}

/** skb_shinfo - fragments and reference count of the data block. */
export function skb_shinfo(skb: sk_buff): skb_shared_info {
  return SHINFO.ref(skb.end)
}

function skb_clone_fraglist(list: sk_buff | null): void {
  for (let frag = list; frag !== null; frag = frag.next) refcount_inc(frag.addr + USERS)
}

function skb_release_data(skb: sk_buff): void {
  const info = skb.end >> 2
  if (skb.cloned !== 0 && !refcount_dec_and_test((info + DATAREF) << 2)) return
  if (i32[info + NR_FRAGS] !== 0) {
    const frags = skb_shinfo(skb).frags >> 2
    for (let k = 0; k < i32[info + NR_FRAGS]; k++) page_put(i32[frags + k * 3])
  }
  for (let frag = i32[info + FRAG_LIST]; frag !== 0; ) {
    const part = SKB.ref(frag)
    frag = part.next === null ? 0 : part.next.addr
    part.next = null
    free_copy(part)
  }
  data_free(skb.head)
}

function free_copy(skb: sk_buff): void {
  if (skb_last_ref(skb)) __kfree_skb(skb)
}

/** nf_conntrack_put - @context any @consumes a reference on the connection, or on a sec_path, which begins as one; _get: of who has one */
export function nf_conntrack_put(nfct: number): void {
  if (nfct !== 0 && refcount_dec_and_test(nfct)) call(NF_CONNTRACK.ref(nfct).destroy)(nfct)
}
export function nf_conntrack_get(nfct: number): void {
  if (nfct !== 0) refcount_inc(nfct)
}
/** nf_reset - the packet forgets its connection. @context any */
export function nf_reset(skb: sk_buff): void {
  nf_conntrack_put(skb.nfct)
  skb.nfct = 0
}

/** __kfree_skb - free, when the last reference is gone. @consumes skb */
export function __kfree_skb(skb: sk_buff): void {
  charge_cost(COST_FREE)
  if (skb.list !== null) panic('BUG: freeing queued skb')
  const dst = i32[skb.$w + DST_FIELD]
  if (dst !== 0) refcount_dec(dst + DST_REFCNT) // dst_release
  if (skb.destructor !== 0) call(skb.destructor)(skb)
  if (i32[skb.$w + NFCT] !== 0) nf_conntrack_put(i32[skb.$w + NFCT])
  nf_conntrack_put(skb.sp)
  skb_release_data(skb)
  kmem_cache_free(skb_cache, skb)
}

/** skb_orphan - no socket is charged for the packet from here on. */
export function skb_orphan(skb: sk_buff): void {
  if (skb.destructor !== 0) call(skb.destructor)(skb)
  skb.destructor = 0
  skb.sk = 0
}

/** skb_last_ref - give a reference up. @returns true: it was the last one, and the packet is the caller's to free */
export function skb_last_ref(skb: sk_buff): boolean {
  return skb.users === 1 || refcount_dec_and_test(skb.addr + USERS)
}

const NOT_SPECIFIED = drop_reason('not_specified')
const NO_MEMORY = drop_reason('no_memory')

/** kfree_skb - the packet is dropped for a reason of fate.ts. @context any @consumes skb */
export function kfree_skb(skb: sk_buff, reason: number = NOT_SPECIFIED): void {
  if (!skb_last_ref(skb)) return
  fate_dropped(skb.acct, reason)
  __kfree_skb(skb)
}

/** consume_skb - the packet was put to good use and something else carries its account on. @consumes skb */
export function consume_skb(skb: sk_buff): void {
  if (skb_last_ref(skb)) __kfree_skb(skb)
}

/** skb_sent - the device is done with the frame. @consumes skb */
export function skb_sent(skb: sk_buff): void {
  if (skb_last_ref(skb)) __skb_sent(skb)
}
/** __skb_sent - the same, when the last reference is gone. @consumes skb */
export function __skb_sent(skb: sk_buff): void {
  fate_sent(skb.acct)
  __kfree_skb(skb)
}

/** skb_delivered - a local protocol took the packet. @consumes skb */
export function skb_delivered(skb: sk_buff): void {
  if (!skb_last_ref(skb)) return
  fate_delivered(skb.acct)
  __kfree_skb(skb)
}

/** skb_get - one more owner. @returns the same packet */
export function skb_get(skb: sk_buff): sk_buff {
  refcount_inc(skb.addr + USERS)
  return skb
}
export function skb_shared(skb: sk_buff): boolean {
  return load(skb.addr + USERS) !== 1
}
export function skb_cloned(skb: sk_buff): boolean {
  return skb.cloned !== 0 && load(skb.end + DATAREF * 4) !== 1
}

// ---- sharing and copying --------------------------------------------------------------------------------------------

/** skb_clone - a second sk_buff on the same data, not counted on its own. @returns owned packet, or null */
export function skb_clone(skb: sk_buff): sk_buff | null {
  const n = kmem_cache_alloc(skb_cache)
  if (n === null) return null
  memcpy(n.addr, skb.addr, SKB.size)
  n.next = null
  n.prev = null
  n.list = null
  n.sk = 0
  n.destructor = 0
  n.acct = ACCT_NONE
  n.users = 1
  n.cloned = 1
  skb.cloned = 1
  if (skb.dst !== null) fetch_add(skb.dst.addr + DST_REFCNT, 1)
  nf_conntrack_get(skb.nfct)
  nf_conntrack_get(skb.sp)
  refcount_inc(skb.end + DATAREF * 4)
  return n
}

/**
 * skb_share_check - a packet that this caller owns alone: itself, or a clone of a shared one. The clone carries the account
 * on, and what the others hold is a copy from then on. @consumes skb @returns owned packet, or null
 */
export function skb_share_check(skb: sk_buff): sk_buff | null {
  if (!skb_shared(skb)) return skb
  const n = skb_clone(skb)
  const acct = xchg(skb.addr + ACCT, ACCT_NONE) // another owner may be here too
  if (n !== null) n.acct = acct
  else fate_dropped(acct, NO_MEMORY)
  free_copy(skb)
  return n
}

function copy_header(to: sk_buff, from: sk_buff, shift: number): void {
  to.dev = from.dev
  to.input_dev = from.input_dev
  to.priority = from.priority
  to.protocol = from.protocol
  to.dst = from.dst
  if (from.dst !== null) fetch_add(from.dst.addr + DST_REFCNT, 1)
  to.h = from.h === 0 ? 0 : from.h + shift
  to.nh = from.nh === 0 ? 0 : from.nh + shift
  to.mac = from.mac === 0 ? 0 : from.mac + shift
  to.mac_len = from.mac_len
  memcpy(to.cb, from.cb, 40)
  to.local_df = from.local_df
  to.pkt_type = from.pkt_type
  memcpy(to.stamp, from.stamp, 8)
  to.nfmark = from.nfmark
  to.nfcache = from.nfcache
  nf_conntrack_get((to.nfct = from.nfct))
  to.nfctinfo = from.nfctinfo
  nf_conntrack_get((to.sp = from.sp))
  to.csum = from.csum
  to.ip_summed = from.ip_summed
}

/** skb_copy - a private, linear copy of packet and data, not counted on its own. @returns owned packet, or null */
export function skb_copy(skb: sk_buff): sk_buff | null {
  const n = alloc_skb(skb.end - skb.head + skb.data_len)
  if (n === null) return null
  const headroom = skb.data - skb.head
  skb_reserve(n, headroom)
  skb_put(n, skb.len)
  memcpy(n.head, skb.head, headroom)
  skb_copy_bits(skb, 0, n.data, skb.len)
  copy_header(n, skb, n.head - skb.head)
  return n
}

/**
 * pskb_expand_head - a private data block for this packet, with more room in front and behind. Pointers into the old
 * block that the caller keeps are stale afterwards. @returns 0, or -ENOMEM
 */
export function pskb_expand_head(skb: sk_buff, nhead: number, ntail: number): number {
  BUG_ON(skb_shared(skb), 'expand of a shared skb')
  const size = data_align(skb.end - skb.head + nhead + ntail)
  const head = data_alloc(size)
  if (head === 0) return -12
  const used = skb.tail - skb.head
  memcpy(head + nhead, skb.head, used)
  const end = head + size
  memcpy(end, skb.end, SHINFO.size)
  const info = skb_shinfo(skb)
  for (let k = 0; k < info.nr_frags; k++) page_get(i32[(info.frags >> 2) + k * 3])
  skb_clone_fraglist(info.frag_list)
  skb_release_data(skb)
  i32[(end >> 2) + DATAREF] = 1
  const off = head + nhead - skb.head
  skb.head = head
  skb.end = end
  skb.data += off
  skb.tail += off
  if (skb.mac !== 0) skb.mac += off
  if (skb.nh !== 0) skb.nh += off
  if (skb.h !== 0) skb.h += off
  skb.cloned = 0
  return 0
}

/** skb_cow - make the header writable, with `headroom` bytes in front. @returns 0, or -ENOMEM */
export function skb_cow(skb: sk_buff, headroom: number): number {
  const missing = headroom - (skb.data - skb.head)
  if (missing <= 0 && (skb.cloned === 0 || !skb_cloned(skb))) return 0
  return pskb_expand_head(skb, missing > 0 ? (missing + 15) & ~15 : 0, 0)
}

// ---- moving the pointers --------------------------------------------------------------------------------------------

export function skb_headroom(skb: sk_buff): number {
  return skb.data - skb.head
}
export function skb_tailroom(skb: sk_buff): number {
  return skb.data_len !== 0 ? 0 : skb.end - skb.tail
}
/** Bytes that lie in the data block itself. */
export function skb_headlen(skb: sk_buff): number {
  return skb.len - skb.data_len
}
export function skb_reserve(skb: sk_buff, len: number): void {
  skb.data += len
  skb.tail += len
}
/** skb_put - `len` more bytes at the end. @returns address of the first new byte */
export function skb_put(skb: sk_buff, len: number): number {
  const at = skb.tail
  BUG_ON(skb.data_len !== 0, 'skb_put nonlinear')
  skb.tail = at + len
  skb.len += len
  if (skb.tail > skb.end) panic('BUG: skb_over_panic')
  return at
}
/** skb_push - `len` more bytes in front. @returns the new start */
export function skb_push(skb: sk_buff, len: number): number {
  const at = skb.data - len
  if (at < skb.head) panic('BUG: skb_under_panic')
  skb.data = at
  skb.len += len
  return at
}
/** __skb_pull - strip `len` bytes that are known to be there. @returns the new start */
export function __skb_pull(skb: sk_buff, len: number): number {
  skb.len -= len
  if (skb.len < skb.data_len) panic('BUG: skb_pull beyond the head')
  return (skb.data += len)
}
/** skb_pull - @returns the new start, or 0 when the packet is shorter */
export function skb_pull(skb: sk_buff, len: number): number {
  return len > skb.len ? 0 : __skb_pull(skb, len)
}

/** pskb_may_pull - are the first `len` bytes of the packet in its data block? Fetches them from the fragments. */
export function pskb_may_pull(skb: sk_buff, len: number): boolean {
  if (len <= skb.len - skb.data_len) return true
  if (len > skb.len) return false
  return skb_linearize(skb) === 0
}

/** pskb_trim - cut the packet to `len` bytes. @returns 0, or -ENOMEM */
export function pskb_trim(skb: sk_buff, len: number): number {
  if (len >= skb.len) return 0
  if (skb.data_len !== 0 && skb_linearize(skb) !== 0) return -12
  skb.len = len
  skb.tail = skb.data + len
  return 0
}

/** skb_linearize - gather fragments into one data block. @returns 0, or -ENOMEM */
export function skb_linearize(skb: sk_buff): number {
  if (skb.data_len === 0) return 0
  const headroom = skb_headroom(skb)
  const size = data_align(headroom + skb.len)
  const head = data_alloc(size)
  if (head === 0) return -12
  memcpy(head, skb.head, headroom)
  skb_copy_bits(skb, 0, head + headroom, skb.len)
  const shift = head - skb.head
  skb_release_data(skb)
  const { len } = skb
  skb.cloned = 0
  data_init(skb, head, size)
  skb_reserve(skb, headroom)
  skb.len = 0
  skb.data_len = 0
  skb_put(skb, len)
  if (skb.mac !== 0) skb.mac += shift
  if (skb.nh !== 0) skb.nh += shift
  if (skb.h !== 0) skb.h += shift
  return 0
}

/** skb_copy_bits - copy `len` bytes from `offset` of the packet, wherever they lie. The caller checked the length. */
export function skb_copy_bits(skb: sk_buff, offset: number, to: number, len: number): void {
  let at = offset
  let dst = to
  let left = len
  const take = (from: number, start: number, size: number): void => {
    if (left === 0 || at >= start + size) return
    const n = Math.min(left, start + size - at)
    memcpy(dst, from + at - start, n)
    at += n
    dst += n
    left -= n
  }
  let pos = skb_headlen(skb)
  take(skb.data, 0, pos)
  const info = skb_shinfo(skb)
  for (let k = 0; k < info.nr_frags; k++) {
    const f = (info.frags >> 2) + k * 3
    take(i32[f] + i32[f + 1], pos, i32[f + 2])
    pos += i32[f + 2]
  }
  for (let part = info.frag_list; part !== null && left > 0; part = part.next) {
    if (at < pos + part.len) {
      const n = Math.min(left, pos + part.len - at)
      skb_copy_bits(part, at - pos, dst, n)
      at += n
      dst += n
      left -= n
    }
    pos += part.len
  }
  BUG_ON(left > 0, 'skb_copy_bits beyond')
}

/** skb_add_frag - append `size` bytes at `offset` of a packet page; takes over the caller's reference on the page. */
export function skb_add_frag(skb: sk_buff, page: number, offset: number, size: number): void {
  const info = skb_shinfo(skb)
  BUG_ON(info.nr_frags >= MAX_SKB_FRAGS, 'too many frags')
  const f = (info.frags >> 2) + info.nr_frags * 3
  i32[f] = page
  i32[f + 1] = offset
  i32[f + 2] = size
  info.nr_frags++
  skb.len += size
  skb.data_len += size
  skb.truesize += size
}
