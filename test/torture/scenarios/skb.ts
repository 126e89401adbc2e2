/**
 * skb.ts - the sk_buff pool under fire: every CPU allocates, fills, clones, copies, expands and frees packets, and passes
 * them round a ring of queues, so that most are freed by a CPU that did not allocate them.
 *
 * The oracle is in each packet: its words follow from its first one; a block that two packets own shows at once.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add } from '../../../src/arch/atomic.js'
import { cpu_id } from '../../../src/arch/cpu.js'
import { num_cpus } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import {
  skb_dequeue,
  skb_queue_head,
  skb_queue_head_init,
  skb_queue_purge,
  skb_queue_tail,
} from '../../../src/net/core/skb_queue.js'
import {
  alloc_skb,
  consume_skb,
  pskb_expand_head,
  skb_clone,
  skb_copy,
  skb_cow,
  skb_get,
  skb_pull,
  skb_push,
  skb_put,
  skb_reserve,
} from '../../../src/net/core/skbuff.js'
import { SKB_HEAD, type sk_buff, type sk_buff_head } from '../../../src/net/core/types.js'
import { cond_resched, kernel_thread } from '../../../src/sched/sched.js'

const ROUNDS = 5000
const WORDS = 16
const i32 = RAM.i32

const queues = DEFINE_PER_CPU<sk_buff_head>('torture_skb_queue', SKB_HEAD)
class shared extends Struct {
  declare done: number
}
const SHARED: Layout<shared> = layout('torture_skb', shared, { done: word })
const s = DEFINE_STATIC('torture_skb', SHARED)
class own extends Struct {
  declare made: number
  declare bad: number
  declare none: number
}
const OWN: Layout<own> = layout('torture_skb_own', own, { made: word, bad: word, none: word })
const mine = DEFINE_PER_CPU('torture_skb_own', OWN).mine

function make(seed: number): sk_buff | null {
  const skb = alloc_skb(((seed >> 8) & 7) === 0 ? 4000 : 200)
  if (skb === null) {
    mine.none++
    return null
  }
  skb_reserve(skb, 32)
  const at = skb_put(skb, WORDS * 4) >> 2
  for (let k = 0; k < WORDS; k++) i32[at + k] = seed + k
  mine.made++
  return skb
}

function check(skb: sk_buff): void {
  const at = skb.data >> 2
  const seed = i32[at]!
  for (let k = 0; k < WORDS; k++) if (i32[at + k] !== seed + k) mine.bad++
  if (skb.len !== WORDS * 4) mine.bad++
}

/** What a stack may do with a packet; the content stays, the owner changes. */
function handle(skb: sk_buff, k: number): void {
  if ((k & 3) === 0) {
    const clone = skb_clone(skb)
    if (clone !== null) {
      check(clone)
      const to = queues.cpu((cpu_id + k) % num_cpus())
      if (to.qlen > 200) consume_skb(clone)
      else skb_queue_tail(to, clone)
    }
  }
  if ((k & 3) === 1) {
    const copy = skb_copy(skb)
    if (copy !== null) {
      i32[copy.data >> 2] = i32[skb.data >> 2]!
      check(copy)
      consume_skb(copy)
    }
  }
  if ((k & 7) === 2 && skb_cow(skb, 48) === 0) {
    skb_push(skb, 16)
    skb_pull(skb, 16)
  }
  if ((k & 7) === 6) pskb_expand_head(skb, 0, 64)
  if ((k & 15) === 3) {
    skb_get(skb)
    consume_skb(skb)
  }
  check(skb)
}

function* torture(): Generator<void, number, void> {
  for (let k = 0; k < ROUNDS; k++) {
    const fresh = make((cpu_id << 24) | (k << 8))
    if (fresh !== null) {
      handle(fresh, k)
      const to = queues.cpu((cpu_id + 1 + (k % num_cpus())) % num_cpus())
      if (to.qlen > 200)
        consume_skb(fresh) // its CPU has lost the host's core
      else if ((k & 1) === 0) skb_queue_tail(to, fresh)
      else skb_queue_head(to, fresh)
    }
    for (let n = 0; n < 2; n++) {
      const next = skb_dequeue(queues.mine)
      if (next === null) break
      check(next)
      consume_skb(next)
    }
    if ((k & 31) === 0) yield* cond_resched()
  }
  fetch_add(s.addr, 1)
  return 0
}

const torture_sym = symbol('torture_skb_thread', torture)

/** end - what is still queued is freed by one CPU, so that the audit sees only what was lost. */
function* end(): Generator<void, number, void> {
  while (s.done !== num_cpus()) yield* cond_resched()
  for (let cpu = 0; cpu < num_cpus(); cpu++) skb_queue_purge(queues.cpu(cpu), 0)
  fetch_add(s.addr, 1)
  return 0
}
const end_sym = symbol('torture_skb_end', end)

export function main(): void {
  for (let cpu = 0; cpu < num_cpus(); cpu++) skb_queue_head_init(queues.cpu(cpu))
  for (let cpu = 0; cpu < num_cpus(); cpu++) kernel_thread('torture', torture_sym, cpu, { cpu })
  kernel_thread('torture_end', end_sym, 0, { cpu: 0 })
}
