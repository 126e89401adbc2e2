/**
 * ip_queue.ts - the user queue: packets wait for the verdict of a process (net/ipv4/netfilter/ip_queue.c). A module.
 *
 * Lock charter
 *   state.lock guards the list and its counts. A packet that is taken out is the taker's; verdicts are given with it free.
 */
import { by, embed, type Layout, layout, ptr, Struct, word } from '../../../abi/layout.js'
import {
  INIT_LIST_HEAD,
  LIST,
  list_add_tail,
  list_del_init,
  list_empty,
  type list_head,
  list_next,
} from '../../../abi/list.js'
import { DEFINE_STATIC } from '../../../abi/section.js'
import { symbol } from '../../../abi/symbol.js'
import { ENOENT, ENOMEM, ENOSPC } from '../../../lib/errno.js'
import { MAX_QUEUED_PACKETS } from '../../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free, with_hoards } from '../../../mm/slab.js'
import { synchronize_kernel } from '../../../rcu/rcupdate.js'
import { define_module } from '../../../sched/module.js'
import {
  init_waitqueue_head,
  WAIT_QUEUE_HEAD,
  wait_event,
  type wait_queue_head_t,
  wake_up,
} from '../../../sched/wait.js'
import { local_bh_disable, local_bh_enable, spin_lock_bh, spin_unlock_bh } from '../../../sync/bh.js'
import { SPINLOCK, spin_lock_init, type spinlock_t } from '../../../sync/spinlock.js'
import {
  NF_DROP,
  NF_INFO,
  type nf_info,
  nf_register_queue_handler,
  nf_reinject,
  nf_unregister_queue_handler,
} from '../../core/netfilter.js'
import { SKB, type sk_buff } from '../../core/types.js'

class ipq_queue_entry extends Struct {
  declare list: list_head
  declare skb: sk_buff | null
  declare info: nf_info | null
  declare id: number
  declare taken: number
}
const ENTRY: Layout<ipq_queue_entry> = layout('ipq_queue_entry', ipq_queue_entry, {
  list: by('lock', embed(LIST)),
  skb: ptr(() => SKB),
  info: ptr(() => NF_INFO),
  id: word, // how the process calls it
  taken: by('lock', word), // the process has seen it
})
const cache = kmem_cache_create('ipq_queue_entry', ENTRY, () => with_hoards(MAX_QUEUED_PACKETS))

class ipq_state extends Struct {
  declare lock: spinlock_t
  declare queue: list_head
  declare readers: wait_queue_head_t
  declare total: number
  declare maxlen: number
  declare next_id: number
  declare fresh: number
  declare queue_dropped: number
}
const STATE: Layout<ipq_state> = layout('ipq_state', ipq_state, {
  lock: embed(SPINLOCK),
  queue: by('lock', embed(LIST)),
  readers: embed(WAIT_QUEUE_HEAD),
  total: by('lock', word),
  maxlen: by('lock', word),
  next_id: by('lock', word),
  fresh: by('lock', word), // packets that no process has taken yet
  queue_dropped: by('lock', word),
})
const state = DEFINE_STATIC('ipq_state', STATE)

/** The queue handler. @context softirq, process @returns 0, -ENOMEM, -ENOSPC: the packet stays the caller's */
function ipq_enqueue_packet(skb: sk_buff, info: nf_info): number {
  const entry = kmem_cache_alloc(cache)
  if (entry === null) return -ENOMEM
  spin_lock_bh(state.lock)
  if (state.total >= state.maxlen) {
    state.queue_dropped++
    spin_unlock_bh(state.lock)
    kmem_cache_free(cache, entry)
    return -ENOSPC
  }
  entry.skb = skb
  entry.info = info
  entry.taken = 0
  state.next_id = (state.next_id + 1) | 0
  entry.id = state.next_id
  state.total++
  state.fresh++
  list_add_tail(entry.list, state.queue)
  spin_unlock_bh(state.lock)
  wake_up(state.readers)
  return 0
}
const ipq_enqueue_packet_sym = symbol('ipq_enqueue_packet', ipq_enqueue_packet)

function waiting(): boolean {
  return state.fresh > 0
}

function first(wanted: (entry: ipq_queue_entry) => boolean): ipq_queue_entry | null {
  for (let at = state.queue.next; at !== state.queue.addr; at = list_next(at)) {
    const entry = ENTRY.container_of('list', at)
    if (wanted(entry)) return entry
  }
  return null
}

/** ipq_read - the id of the next packet that waits, and the packet, which stays in the queue. @context process */
export function* ipq_read(): Generator<void, { id: number; skb: sk_buff; info: nf_info }, void> {
  for (;;) {
    if (!waiting()) yield* wait_event(state.readers, waiting)
    spin_lock_bh(state.lock)
    const entry = first(e => e.taken === 0)
    if (entry !== null) {
      entry.taken = 1
      state.fresh--
    }
    spin_unlock_bh(state.lock)
    if (entry !== null) return { id: entry.id, skb: entry.skb!, info: entry.info! }
  }
}

function take(wanted: (entry: ipq_queue_entry) => boolean): ipq_queue_entry | null {
  spin_lock_bh(state.lock)
  const entry = first(wanted)
  if (entry !== null) {
    list_del_init(entry.list)
    state.total--
    if (entry.taken === 0) state.fresh--
  }
  spin_unlock_bh(state.lock)
  return entry
}

function issue_verdict(entry: ipq_queue_entry, verdict: number): void {
  const skb = entry.skb!
  const info = entry.info!
  kmem_cache_free(cache, entry)
  local_bh_disable()
  nf_reinject(skb, info, verdict)
  local_bh_enable()
}

/** ipq_set_verdict - NF_ACCEPT, NF_DROP, NF_REPEAT or NF_QUEUE. @context process @returns 0, or -ENOENT: no such packet waits */
export function ipq_set_verdict(id: number, verdict: number): number {
  const entry = take(e => e.id === id)
  if (entry === null) return -ENOENT
  issue_verdict(entry, verdict)
  return 0
}

/** ipq_set_maxlen - packets that may wait. @context process */
export function ipq_set_maxlen(maxlen: number): void {
  spin_lock_bh(state.lock)
  state.maxlen = maxlen
  spin_unlock_bh(state.lock)
}

/** ipq_flush - drop all that waits. @context process, or a halted machine */
export function ipq_flush(): void {
  if (state.maxlen === 0) return // it was never there
  for (let entry = take(() => true); entry !== null; entry = take(() => true)) issue_verdict(entry, NF_DROP)
}

function* init(): Generator<void, number, void> {
  spin_lock_init(state.lock)
  INIT_LIST_HEAD(state.queue)
  init_waitqueue_head(state.readers)
  state.maxlen = MAX_QUEUED_PACKETS
  state.total = 0
  state.fresh = 0
  return nf_register_queue_handler(ipq_enqueue_packet_sym, 0)
}

function* exit(): Generator<void, void, void> {
  nf_unregister_queue_handler()
  yield* synchronize_kernel()
  ipq_flush()
}

/** ipq_stats - lines of /proc/net/ip_queue. */
export function ipq_text(): string {
  if (state.maxlen === 0) return ''
  return `Queue length     : ${state.total}\nQueue max. length: ${state.maxlen}\nQueue dropped    : ${state.queue_dropped}\nEmpty            : ${list_empty(state.queue) ? 1 : 0}\n`
}

export const ip_queue_module = define_module('ip_queue', { init, exit })
