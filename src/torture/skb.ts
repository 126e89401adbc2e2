/**
 * skb.ts - sk_buffs under fire: every CPU allocates, fills, clones, copies, expands and frees packets, and passes
 * them round a ring of queues, so that most are freed by a CPU that did not allocate them.
 *
 * The oracle is in each packet: its words follow from its first one; a block that two packets own shows at once. Beside that
 * its counts of references are looked at where only one CPU can see it. The busted twin gives up references that it does not
 * have.
 */
import { type Layout, layout, own as owned, Struct, word } from '../abi/layout.js'
import { DEFINE_PER_CPU } from '../abi/section.js'
import { symbol } from '../abi/symbol.js'
import { cpu_id } from '../arch/cpu.js'
import { num_cpus } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import {
  skb_dequeue,
  skb_queue_head,
  skb_queue_head_init,
  skb_queue_purge,
  skb_queue_tail,
} from '../net/core/skb_queue.js'
import {
  alloc_skb,
  consume_skb,
  pskb_expand_head,
  skb_clone,
  skb_cloned,
  skb_copy,
  skb_cow,
  skb_get,
  skb_pull,
  skb_push,
  skb_put,
  skb_reserve,
  skb_shared,
} from '../net/core/skbuff.js'
import { SKB_HEAD, type sk_buff, type sk_buff_head } from '../net/core/types.js'
import { cond_resched } from '../sched/sched.js'
import {
  torture_busted,
  torture_create_kthread,
  torture_kthread_stopping,
  torture_must_stop,
  torture_others_done,
  torture_random,
} from './torture.js'

/** One packet in so many of the busted twin. */
const BUSTED_EVERY = 1000
const WORDS = 16
const i32 = RAM.i32

const queues = DEFINE_PER_CPU<sk_buff_head>('torture_skb_queue', SKB_HEAD)
class own extends Struct {
  declare made: number
  declare bad: number
  declare none: number
  declare refs: number
  declare freed: number
}
const OWN: Layout<own> = layout('torture_skb_own', own, {
  made: owned(word),
  bad: owned(word), // words of packets that are not what was written
  none: owned(word), // the pool was empty
  refs: owned(word), // counts of references that were wrong
  freed: owned(word), // packets of others that were freed here
})
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
      if (!skb_cloned(skb) || !skb_cloned(clone) || skb_shared(clone)) mine.refs++
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
    if (skb_cloned(skb)) mine.refs++
  }
  if ((k & 7) === 6) pskb_expand_head(skb, 0, 64)
  if ((k & 15) === 3) {
    skb_get(skb)
    if (!skb_shared(skb)) mine.refs++
    consume_skb(skb)
    if (skb_shared(skb)) mine.refs++
  }
  if (torture_busted() && k % BUSTED_EVERY === BUSTED_EVERY - 1) consume_skb(skb)
  check(skb)
}

function* skb_torture(): Generator<void, number, void> {
  const random = torture_random(1)
  for (let k = 0; !torture_must_stop(k); k++) {
    const fresh = make((cpu_id << 24) | ((k & 0xffff) << 8))
    if (fresh !== null) {
      handle(fresh, k)
      const to = queues.cpu((cpu_id + 1 + (k % num_cpus())) % num_cpus())
      if (to.qlen > 200)
        consume_skb(fresh) // its CPU has lost the host's core
      else if (random(2) === 0) skb_queue_tail(to, fresh)
      else skb_queue_head(to, fresh)
    }
    for (let n = 0; n < 2; n++) {
      const next = skb_dequeue(queues.mine)
      if (next === null) break
      check(next)
      consume_skb(next)
      mine.freed++
    }
    if ((k & 31) === 0) yield* cond_resched()
  }
  torture_kthread_stopping()
  return 0
}
const skb_torture_sym = symbol('skb_torture', skb_torture)

/** What is still queued is freed by one CPU, so that the audit sees only what was lost. */
function* skb_torture_end(): Generator<void, number, void> {
  while (!torture_others_done(1)) yield* cond_resched()
  for (let cpu = 0; cpu < num_cpus(); cpu++) skb_queue_purge(queues.cpu(cpu), 0)
  torture_kthread_stopping()
  return 0
}
const skb_torture_end_sym = symbol('skb_torture_end', skb_torture_end)

/** main - @context process */
export function main(): void {
  for (let cpu = 0; cpu < num_cpus(); cpu++) skb_queue_head_init(queues.cpu(cpu))
  for (let cpu = 0; cpu < num_cpus(); cpu++) torture_create_kthread('skb_torture', skb_torture_sym, cpu)
  torture_create_kthread('skb_torture_end', skb_torture_end_sym, 0)
}
