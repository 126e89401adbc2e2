/**
 * screen.ts - the screening queue: forwarded packets wait for a verdict of a process, as for 4.2BSD's screend (Mogul 1989).
 *
 * Lock charter
 *   queue.lock guards the queue and its marks, with interrupts off. Nothing is called under it but the wake-up of the reader.
 *
 * When feedback is on and the queue is three quarters full, input is inhibited until it is a quarter full, or until a tick
 * has passed without that (Mogul and Ramakrishnan 1996, section 6.6.1): the packets then die in the NIC, for free.
 */
import { embed, type Layout, layout, own, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { cost } from '../../arch/cost.js'
import { charge_cost } from '../../arch/cpu.js'
import { config } from '../../arch/machine.js'
import { del_timer, init_timer, jiffies, mod_timer, TIMER, type timer_list } from '../../irq/timer.js'
import { SCREEN_QUEUE_LEN } from '../../lib/limits.js'
import { init_waitqueue_head, WAIT_QUEUE_HEAD, wait_event, type wait_queue_head_t, wake_up } from '../../sched/wait.js'
import { spin_lock_irqsave, spin_unlock_irqrestore } from '../../sync/spinlock.js'
import { drop_reason } from '../core/fate.js'
import { input_allow, input_inhibit } from '../core/kpoll.js'
import { NF_HOOK_OPS, NF_IP_FORWARD, NF_STOLEN, type nf_hook_ops, nf_register_hook } from '../core/netfilter.js'
import { __skb_dequeue, __skb_queue_tail, skb_queue_head_init } from '../core/skb_queue.js'
import { kfree_skb } from '../core/skbuff.js'
import { SKB_HEAD, type sk_buff, type sk_buff_head } from '../core/types.js'

const COST_QUEUE = cost('screen_enqueue')

/** Marks of the feedback, packets. */
const HIGH_MARK = (SCREEN_QUEUE_LEN * 3) / 4
const LOW_MARK = SCREEN_QUEUE_LEN / 4

class screen_state extends Struct {
  declare queue: sk_buff_head
  declare readers: wait_queue_head_t
  declare hook: nf_hook_ops
  declare timer: timer_list
  declare inhibited: number
  declare drops: number
}
const SCREEN: Layout<screen_state> = layout('screen', screen_state, {
  queue: embed(SKB_HEAD),
  readers: embed(WAIT_QUEUE_HEAD),
  hook: embed(NF_HOOK_OPS),
  timer: embed(TIMER), // ends an inhibition that the queue does not
  inhibited: own(word), // by queue.lock
  drops: own(word),
})
const screen = DEFINE_STATIC('screen', SCREEN)
const SCREEN_FULL = drop_reason('screen_queue_full')

function stop_input(): void {
  screen.inhibited = 1
  input_inhibit()
  mod_timer(screen.timer, (jiffies() + 1) | 0)
}

function go_on(): void {
  screen.inhibited = 0
  input_allow()
}

/** The hook: the packet waits for the process, or dies here with all the work that was put into it. @context softirq */
function screen_hook(_hook: number, skb: sk_buff): number {
  charge_cost(COST_QUEUE)
  const q = screen.queue
  const flags = spin_lock_irqsave(q.lock)
  if (q.qlen >= SCREEN_QUEUE_LEN) {
    screen.drops++
    spin_unlock_irqrestore(q.lock, flags)
    kfree_skb(skb, SCREEN_FULL)
    return NF_STOLEN
  }
  __skb_queue_tail(q, skb)
  const full = config('screen_feedback') !== 0 && screen.inhibited === 0 && q.qlen >= HIGH_MARK
  if (full) stop_input()
  const first = q.qlen === 1
  spin_unlock_irqrestore(q.lock, flags)
  if (first) wake_up(screen.readers)
  return NF_STOLEN
}
const screen_hook_sym = symbol('screen_hook', screen_hook)

/** A tick has passed: the process may be hung, and must not take the network with it. */
function screen_timeout(): void {
  const flags = spin_lock_irqsave(screen.queue.lock)
  if (screen.inhibited !== 0) go_on()
  spin_unlock_irqrestore(screen.queue.lock, flags)
}
const screen_timeout_sym = symbol('screen_timeout', screen_timeout)

function waiting(): boolean {
  return screen.queue.qlen > 0
}

/** screen_take - the next packet that waits for a verdict. @context process @returns owned packet */
export function* screen_take(): Generator<void, sk_buff, void> {
  const q = screen.queue
  for (;;) {
    if (!waiting()) yield* wait_event(screen.readers, waiting)
    const flags = spin_lock_irqsave(q.lock)
    const skb = __skb_dequeue(q)
    const low = screen.inhibited !== 0 && q.qlen <= LOW_MARK
    if (low) go_on()
    spin_unlock_irqrestore(q.lock, flags)
    if (low) del_timer(screen.timer)
    if (skb !== null) return skb
  }
}

/** screen_init - forwarded packets go through the queue from now on. @context boot, CPU 0 */
export function screen_init(): void {
  skb_queue_head_init(screen.queue)
  init_waitqueue_head(screen.readers)
  init_timer(screen.timer, screen_timeout_sym, 0)
  screen.hook.hook = screen_hook_sym
  screen.hook.hooknum = NF_IP_FORWARD
  screen.hook.priority = 0
  nf_register_hook(screen.hook)
}

/** screen_drain_halted - @context a halted machine, CPU 0 */
export function screen_drain_halted(): void {
  if (screen.hook.hook === 0) return
  for (let skb = __skb_dequeue(screen.queue); skb !== null; skb = __skb_dequeue(screen.queue)) kfree_skb(skb, SHUTDOWN)
}
const SHUTDOWN = drop_reason('shutdown')
