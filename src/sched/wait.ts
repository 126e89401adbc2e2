/**
 * wait.ts - wait queues.
 *
 * Lock charter
 *   q.lock guards the list; taken with interrupts off, so that handlers may wake. rq.lock is taken under it.
 *   No wake-up is lost: the sleeper queues itself and sets its state before it looks at the condition; the waker changes
 *   the condition before it looks at the queue.
 *   A wake-up of an exclusive waiter reaches one that needs it: what is counted (semaphores, completions) is looked at and
 *   taken with q.lock held; other exclusive waiters hand on a wake-up that came after they had what they wanted.
 */
import { atomic, embed, type Layout, layout, ptr, Struct, word } from '../abi/layout.js'
import {
  INIT_LIST_HEAD,
  LIST,
  list_add,
  list_add_tail,
  list_del_init,
  list_empty,
  type list_head,
} from '../abi/list.js'
import { call, type Sym } from '../abi/symbol.js'
import { load } from '../arch/atomic.js'
import { local_irq_disable, local_irq_enable } from '../arch/cpu.js'
import { RAM } from '../arch/ram.js'
import { MAX_POLL_WAITS, MAX_TASKS } from '../lib/limits.js'
import {
  freed_object,
  type kmem_cache,
  kmem_cache_alloc,
  kmem_cache_create,
  kmem_cache_free,
  objects_out,
  with_hoards,
} from '../mm/slab.js'
import {
  SPINLOCK,
  spin_lock,
  spin_lock_init,
  spin_lock_irqsave,
  spin_lock_nested,
  spin_unlock,
  spin_unlock_irqrestore,
  type spinlock_t,
} from '../sync/spinlock.js'
import { __set_current_state, current, schedule, set_current_state, wake_up_process } from './sched.js'
import { TASK, TASK_DEAD, TASK_RUNNING, TASK_UNINTERRUPTIBLE, type task_struct } from './task.js'

const i32 = RAM.i32
export const WQ_FLAG_EXCLUSIVE = 1
/** The entry stays on the queue when its task is woken (default_wake_function); others are taken off it. */
export const WQ_FLAG_STAYS = 2

export class wait_queue_head_t extends Struct {
  declare lock: spinlock_t
  declare task_list: list_head
  declare waiters: number
}
export const WAIT_QUEUE_HEAD: Layout<wait_queue_head_t> = layout('wait_queue_head_t', wait_queue_head_t, {
  lock: embed(SPINLOCK),
  task_list: embed(LIST),
  waiters: atomic(word), // entries of the list: changed under the lock, looked at without it
})

/** What a wake-up does with an entry that is no task's; the queue's lock is held. @returns true: it counts as an exclusive waiter */
export type wait_queue_func_t = (wait: wait_queue_t) => boolean

export class wait_queue_t extends Struct {
  declare task_list: list_head
  declare flags: number
  declare task: task_struct | null
  declare func: Sym<wait_queue_func_t>
}
export const WAIT: Layout<wait_queue_t> = layout('wait_queue_t', wait_queue_t, {
  task_list: embed(LIST),
  flags: word,
  task: ptr(() => TASK),
  func: word, // 0: the task is woken
})
/** In C these lie on the kernel stack, which is no memory here. */
const wait_cache = kmem_cache_create('wait_queue_t', WAIT, () => with_hoards(2 * MAX_TASKS + MAX_POLL_WAITS))

export function init_waitqueue_head(q: wait_queue_head_t): void {
  spin_lock_init(q.lock)
  INIT_LIST_HEAD(q.task_list)
  q.waiters = 0
}

/** Exclusive waiters come last. @locks q.lock is held */
function __add_wait_queue(q: wait_queue_head_t, wait: wait_queue_t): void {
  if ((wait.flags & WQ_FLAG_EXCLUSIVE) !== 0) list_add_tail(wait.task_list, q.task_list)
  else list_add(wait.task_list, q.task_list)
  q.waiters++
}
/** @locks q.lock is held */
function __remove_wait_queue(q: wait_queue_head_t, wait: wait_queue_t): void {
  list_del_init(wait.task_list)
  q.waiters--
}

/** begin_wait - DEFINE_WAIT: an entry for the current task, or null; finish_wait gives it back. @context process */
export function begin_wait(flags = 0): wait_queue_t | null {
  const wait = kmem_cache_alloc(wait_cache)
  if (wait === null) return null
  INIT_LIST_HEAD(wait.task_list)
  wait.flags = flags
  wait.task = current()
  wait.func = 0
  return wait
}

/** init_waitqueue_func_entry - an entry that lies in another struct and does something else than wake a task. */
export function init_waitqueue_func_entry(wait: wait_queue_t, func: Sym<wait_queue_func_t>): void {
  INIT_LIST_HEAD(wait.task_list)
  wait.flags = 0
  wait.task = null
  wait.func = func
}
/** detach_wait_queue - such an entry off its queue: its func does not run any more. @context process */
export function detach_wait_queue(q: wait_queue_head_t, wait: wait_queue_t): void {
  const flags = spin_lock_irqsave(q.lock)
  __remove_wait_queue(q, wait)
  spin_unlock_irqrestore(q.lock, flags)
}

/** add_wait_queue - an entry on the queue; whether its task sleeps is its own affair. @context process */
export function add_wait_queue(q: wait_queue_head_t, wait: wait_queue_t): void {
  const flags = spin_lock_irqsave(q.lock)
  __add_wait_queue(q, wait)
  spin_unlock_irqrestore(q.lock, flags)
}

/** remove_wait_queue - an entry of add_wait_queue. @context process @consumes wait */
export function remove_wait_queue(q: wait_queue_head_t, wait: wait_queue_t): void {
  const flags = spin_lock_irqsave(q.lock)
  __remove_wait_queue(q, wait)
  spin_unlock_irqrestore(q.lock, flags)
  kmem_cache_free(wait_cache, wait)
}

/** prepare_to_wait - on the queue, and about to sleep; then look at the condition. @context process */
export function prepare_to_wait(q: wait_queue_head_t, wait: wait_queue_t, state: number): void {
  const flags = spin_lock_irqsave(q.lock)
  if (list_empty(wait.task_list)) __add_wait_queue(q, wait)
  set_current_state(state) // before the caller reads the condition
  spin_unlock_irqrestore(q.lock, flags)
}

/** finish_wait - running again, off the queue. @context process @consumes wait */
export function finish_wait(q: wait_queue_head_t, wait: wait_queue_t): void {
  const flags = spin_lock_irqsave(q.lock)
  __set_current_state(TASK_RUNNING)
  const woken = list_empty(wait.task_list)
  if (!woken) __remove_wait_queue(q, wait)
  if (woken && (wait.flags & WQ_FLAG_EXCLUSIVE) !== 0) __wake_up_locked(q, 1) // we did not need it
  spin_unlock_irqrestore(q.lock, flags)
  kmem_cache_free(wait_cache, wait)
}

/** wake_up - wake all sharers and the first `nr` exclusive waiters. @context any @locks q.lock, rq.lock */
export function wake_up(q: wait_queue_head_t, nr = 1): void {
  const flags = spin_lock_irqsave(q.lock)
  __wake_up_locked(q, nr)
  spin_unlock_irqrestore(q.lock, flags)
}
/** wake_up_nested - from the func of another queue's entry, `depth` of them inside each other. @context interrupts are off */
export function wake_up_nested(q: wait_queue_head_t, depth: number): void {
  spin_lock_nested(q.lock, depth)
  __wake_up_locked(q, 1)
  spin_unlock(q.lock)
}
/** wake_up_all - wake everybody. */
export function wake_up_all(q: wait_queue_head_t): void {
  wake_up(q, 0x7fffffff)
}

/** __wake_up_locked - for who holds q.lock already: after it is dropped a waiter may give the queue's memory back. */
export function __wake_up_locked(q: wait_queue_head_t, nr: number): void {
  let left = nr
  const head = q.task_list.addr
  for (let at = i32[head >> 2]; at !== head && left > 0; ) {
    const next = i32[at >> 2]
    const wait = WAIT.container_of('task_list', at)
    const { task, func } = wait
    if (func !== 0) {
      if (call(func)(wait) && (wait.flags & WQ_FLAG_EXCLUSIVE) !== 0) left--
    } else if (task !== null) {
      if ((wait.flags & WQ_FLAG_STAYS) === 0) __remove_wait_queue(q, wait) // autoremove_wake_function
      if (wake_up_process(task) && (wait.flags & WQ_FLAG_EXCLUSIVE) !== 0) left--
    }
    at = next
  }
}

/** waits_of_ended_tasks - entries that nobody will give back, and how many are out. @context a halted machine */
export function waits_of_ended_tasks(): [strays: number, out: number] {
  const out = objects_out(wait_cache as unknown as kmem_cache<Struct>)
  const strays = out.filter(addr => {
    const task = i32[(addr + TASK_PTR) >> 2]
    return freed_object(task) !== null || TASK.ref(task).state === TASK_DEAD
  })
  return [strays.length, out.length]
}
const TASK_PTR = WAIT.offset('task')

/** queue_of - address of the queue that a task sleeps on, or 0: for dumps. */
export function queue_of(p: task_struct): number {
  const entries = objects_out(wait_cache as unknown as kmem_cache<Struct>)
  const mine = entries.find(addr => i32[(addr + TASK_PTR) >> 2] === p.addr)
  if (mine === undefined) return 0
  const nodes = new Set(entries.map(addr => WAIT.ref(addr).task_list.addr))
  const first = WAIT.ref(mine).task_list.addr
  let at = i32[first >> 2]
  while (nodes.has(at) && at !== first) at = i32[at >> 2]
  return at === first || at === 0 ? 0 : WAIT_QUEUE_HEAD.container_of('task_list', at).addr
}

/**
 * waitqueue_active - is anybody there? A hint, unless q.lock is held; but who has changed the condition before finds whoever has
 * not seen that.
 */
export function waitqueue_active(q: wait_queue_head_t): boolean {
  return load(q.addr + WAITERS) !== 0
}
const WAITERS = WAIT_QUEUE_HEAD.offset('waiters')

/** wait_event - sleep until the condition holds; it is looked at before each sleep. @context process */
export function* wait_event(q: wait_queue_head_t, condition: () => boolean, flags = 0): Generator<void, void, void> {
  if (condition()) return
  let wait = begin_wait(flags)
  for (; wait === null; wait = begin_wait(flags)) {
    yield* schedule() // no entry to be had: look again until there is one
    if (condition()) return
  }
  for (;;) {
    prepare_to_wait(q, wait, TASK_UNINTERRUPTIBLE)
    if (condition()) break
    yield* schedule()
  }
  finish_wait(q, wait)
}

/**
 * wait_event_exclusive_locked_irq - as wait_event, with q.lock held whenever the condition is looked at and when this returns:
 * what the condition allows is taken before another waiter sees it. @context process @locks q.lock is held, dropped to sleep
 */
export function* wait_event_exclusive_locked_irq(
  q: wait_queue_head_t,
  condition: () => boolean,
): Generator<void, void, void> {
  if (condition()) return
  const wait = begin_wait(WQ_FLAG_EXCLUSIVE | WQ_FLAG_STAYS)
  if (wait !== null) __add_wait_queue(q, wait)
  do {
    // Without an entry nobody could wake us: look again and again.
    __set_current_state(wait === null ? TASK_RUNNING : TASK_UNINTERRUPTIBLE)
    spin_unlock(q.lock)
    local_irq_enable()
    yield* schedule()
    local_irq_disable()
    spin_lock(q.lock)
  } while (!condition())
  if (wait === null) return
  __remove_wait_queue(q, wait)
  kmem_cache_free(wait_cache, wait)
}
