/**
 * workqueue.ts - deferred functions that may sleep: a kernel thread per CPU and queue.
 *
 * Lock charter
 *   cwq.lock guards a CPU's list and its counts, with interrupts off; its thread and who flushes are woken under it, so
 *   that nobody touches a queue which they leave to be destroyed. Bit 0 of work.pending owns the queueing: it is set by
 *   whoever queues or starts the timer, and cleared before the function runs, so a function may queue itself again.
 *   workqueue_lock guards the list of all queues; cwq.lock is taken under it.
 *
 * The threads of a CPU that stands still stand with it: work that one of them has begun ends when the CPU is back, and
 * flush_workqueue and destroy_workqueue wait for that. What it had not begun goes to the CPU that stopped it.
 */
import { atomic, by, bytes, embed, konst, type Layout, layout, ptr, Struct, word } from '../abi/layout.js'
import {
  INIT_LIST_HEAD,
  LIST,
  list_add_tail,
  list_del_init,
  list_empty,
  type list_head,
  list_next,
} from '../abi/list.js'
import { DEFINE_STATIC } from '../abi/section.js'
import { call, type Sym, symbol } from '../abi/symbol.js'
import { fetch_add, fetch_and, fetch_or, load, store } from '../arch/atomic.js'
import { cpu_id, local_irq_restore, local_irq_save } from '../arch/cpu.js'
import { num_cpus } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import { MAX_WORKQUEUES } from '../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free, with_hoards } from '../mm/slab.js'
import { kthread_should_stop, kthread_stop } from '../sched/kthread.js'
import {
  __set_current_state,
  current,
  kernel_thread,
  release_task,
  rest,
  set_current_state,
  wake_up_process,
} from '../sched/sched.js'
import { type Stack, TASK, TASK_INTERRUPTIBLE, TASK_RUNNING, type task_struct } from '../sched/task.js'
import { init_waitqueue_head, WAIT_QUEUE_HEAD, wait_event, type wait_queue_head_t, wake_up_all } from '../sched/wait.js'
import {
  SINGLE_DEPTH_NESTING,
  SPINLOCK,
  spin_lock,
  spin_lock_init,
  spin_lock_irqsave,
  spin_lock_nested,
  spin_unlock,
  spin_unlock_irqrestore,
  type spinlock_t,
} from '../sync/spinlock.js'
import { dead_hooks } from './hotplug.js'
import { add_timer, del_timer_sync, init_timer, jiffies, TIMER, type timer_list } from './timer.js'

const i32 = RAM.i32

/** The work itself; may sleep. */
export type work_func = (data: number) => Generator<void, void, void>

export class work_struct extends Struct {
  declare entry: list_head
  declare pending: number
  declare func: Sym<work_func>
  declare data: number
  declare wq: number
  declare timer: timer_list
}
export const WORK: Layout<work_struct> = layout('work_struct', work_struct, {
  entry: by('cwq.lock', embed(LIST)),
  pending: atomic(word),
  func: word,
  data: word,
  wq: word, // queue that delayed work goes to; owned by bit 0 of pending
  timer: embed(TIMER),
})
const PENDING = WORK.offset('pending')

class cpu_workqueue extends Struct {
  declare lock: spinlock_t
  declare worklist: list_head
  declare inserted: number
  declare removed: number
  declare thread: task_struct | null
  declare work_done: wait_queue_head_t
}
const CWQ: Layout<cpu_workqueue> = layout('cpu_workqueue', cpu_workqueue, {
  lock: embed(SPINLOCK),
  worklist: by('lock', embed(LIST)),
  inserted: by('lock', word),
  removed: by('lock', word),
  thread: konst(ptr(() => TASK)),
  work_done: embed(WAIT_QUEUE_HEAD),
})
const cwq_cache = kmem_cache_create('cpu_workqueue', CWQ, () => with_hoards(MAX_WORKQUEUES * num_cpus()))

export class workqueue_struct extends Struct {
  declare list: list_head
  declare moved: number
  declare cwqs: number
}
export const WORKQUEUE: Layout<workqueue_struct> = layout('workqueue_struct', workqueue_struct, {
  list: by('workqueue_lock', embed(LIST)),
  moved: atomic(word), // times that work went from one CPU to another
  cwqs: konst(bytes(32 * 4)), // address of each CPU's part
})
const MOVED = WORKQUEUE.offset('moved')
const wq_cache = kmem_cache_create('workqueue_struct', WORKQUEUE, () => with_hoards(MAX_WORKQUEUES))

class workqueue_list extends Struct {
  declare workqueue_lock: spinlock_t
  declare head: list_head
  declare keventd_wq: number
}
const QUEUES: Layout<workqueue_list> = layout('workqueues', workqueue_list, {
  workqueue_lock: embed(SPINLOCK),
  head: by('workqueue_lock', embed(LIST)),
  keventd_wq: konst(word), // the queue that everybody shares
})
const queues = DEFINE_STATIC('workqueues', QUEUES)

export function INIT_WORK(work: work_struct, func: Sym<work_func>, data: number): void {
  INIT_LIST_HEAD(work.entry)
  work.pending = 0
  work.func = func
  work.data = data
  init_timer(work.timer, delayed_work_timer_fn_sym, work.addr)
}

function cwq_of(wq: workqueue_struct, cpu: number): cpu_workqueue {
  return CWQ.ref(i32[(wq.cwqs >> 2) + cpu])
}

// ---- queueing -------------------------------------------------------------------------------------------------------

function __queue_work(cwq: cpu_workqueue, work: work_struct): void {
  const flags = spin_lock_irqsave(cwq.lock)
  list_add_tail(work.entry, cwq.worklist)
  cwq.inserted++
  wake_up_process(cwq.thread!)
  spin_unlock_irqrestore(cwq.lock, flags)
}

/** queue_work - on this CPU's thread of the queue. @context any @returns false when it was queued already */
export function queue_work(wq: workqueue_struct, work: work_struct): boolean {
  if ((fetch_or(work.addr + PENDING, 1) & 1) !== 0) return false
  __queue_work(cwq_of(wq, cpu_id), work)
  return true
}

function delayed_work_timer_fn(addr: number): void {
  const work = WORK.ref(addr)
  __queue_work(cwq_of(WORKQUEUE.ref(work.wq), cpu_id), work)
}
const delayed_work_timer_fn_sym = symbol('delayed_work_timer_fn', delayed_work_timer_fn)

/** queue_delayed_work - in `delay` jiffies, where the timer runs then. @context any @returns false when it was queued already */
export function queue_delayed_work(wq: workqueue_struct, work: work_struct, delay: number): boolean {
  if ((fetch_or(work.addr + PENDING, 1) & 1) !== 0) return false
  work.wq = wq.addr
  work.timer.expires = (jiffies() + delay) | 0
  add_timer(work.timer)
  return true
}

/**
 * cancel_delayed_work - before its time has come. @context process, softirq @returns false: it was not waiting for its time; it
 * may be queued or run, and flush_workqueue waits for that
 */
export function cancel_delayed_work(work: work_struct): boolean {
  const waiting = del_timer_sync(work.timer)
  if (waiting) fetch_and(work.addr + PENDING, ~1)
  return waiting
}

/** schedule_work - on the queue that everybody shares, `events`. @context any */
export function schedule_work(work: work_struct): boolean {
  return queue_work(WORKQUEUE.ref(queues.keventd_wq), work)
}
export function schedule_delayed_work(work: work_struct, delay: number): boolean {
  return queue_delayed_work(WORKQUEUE.ref(queues.keventd_wq), work, delay)
}
/** flush_scheduled_work - @context process */
export function* flush_scheduled_work(): Generator<void, void, void> {
  yield* flush_workqueue(WORKQUEUE.ref(queues.keventd_wq))
}

// ---- running --------------------------------------------------------------------------------------------------------

function* run_workqueue(cwq: cpu_workqueue): Generator<void, void, void> {
  let flags = spin_lock_irqsave(cwq.lock)
  while (!list_empty(cwq.worklist)) {
    const work = WORK.container_of('entry', cwq.worklist.next)
    list_del_init(work.entry)
    spin_unlock_irqrestore(cwq.lock, flags)
    const { func, data } = work
    store(work.addr + PENDING, 0)
    yield* call(func)(data) // the work itself may be gone by now
    flags = spin_lock_irqsave(cwq.lock)
    cwq.removed++
    wake_up_all(cwq.work_done)
  }
  spin_unlock_irqrestore(cwq.lock, flags)
}

function* worker_thread(addr: number): Stack {
  const cwq = CWQ.ref(addr)
  while (!kthread_should_stop()) {
    set_current_state(TASK_INTERRUPTIBLE)
    if (list_empty(cwq.worklist) && !kthread_should_stop()) yield* rest()
    __set_current_state(TASK_RUNNING)
    yield* run_workqueue(cwq)
  }
  return 0
}
const worker_thread_sym = symbol('worker_thread', worker_thread)

function* flush_cpu_workqueue(cwq: cpu_workqueue): Generator<void, void, void> {
  if (cwq.thread === current()) {
    yield* run_workqueue(cwq) // a work flushes the queue that it is on
    return
  }
  const flags = spin_lock_irqsave(cwq.lock)
  const target = cwq.inserted
  spin_unlock_irqrestore(cwq.lock, flags)
  yield* wait_event(cwq.work_done, () => ((cwq.removed - target) | 0) >= 0)
}

/** flush_workqueue - returns when everything that was queued before has been done, on whatever CPU. @context process */
export function* flush_workqueue(wq: workqueue_struct): Generator<void, void, void> {
  let moved: number
  do {
    moved = load(wq.addr + MOVED)
    for (let cpu = 0; cpu < num_cpus(); cpu++) yield* flush_cpu_workqueue(cwq_of(wq, cpu))
  } while (moved !== load(wq.addr + MOVED)) // to a CPU that was looked at before, perhaps
}

// ---- coming and going -----------------------------------------------------------------------------------------------

function create_cwq(wq: workqueue_struct, name: string, cpu: number): boolean {
  const cwq = kmem_cache_alloc(cwq_cache)
  i32[(wq.cwqs >> 2) + cpu] = cwq === null ? 0 : cwq.addr
  if (cwq === null) return false
  spin_lock_init(cwq.lock)
  INIT_LIST_HEAD(cwq.worklist)
  cwq.inserted = 0
  cwq.removed = 0
  init_waitqueue_head(cwq.work_done)
  cwq.thread = kernel_thread(`${name}/${cpu}`, worker_thread_sym, cwq.addr, { cpu, nice: -5, asleep: true })
  return cwq.thread !== null
}

/** create_workqueue - with a thread on each CPU. @context boot, process @returns the queue, or null: nothing is left of it */
export function create_workqueue(name: string): workqueue_struct | null {
  const wq = kmem_cache_alloc(wq_cache)
  if (wq === null) return null
  wq.moved = 0
  for (let cpu = 0; cpu < num_cpus(); cpu++) {
    if (create_cwq(wq, name, cpu)) continue
    for (; cpu >= 0; cpu--) free_cwq(wq, cpu)
    kmem_cache_free(wq_cache, wq)
    return null
  }
  spin_lock(queues.workqueue_lock)
  list_add_tail(wq.list, queues.head)
  spin_unlock(queues.workqueue_lock)
  for (let cpu = 0; cpu < num_cpus(); cpu++) wake_up_process(cwq_of(wq, cpu).thread!)
  return wq
}

/** Of a queue that was never used: its threads have not run. */
function free_cwq(wq: workqueue_struct, cpu: number): void {
  const cwq = CWQ.at(i32[(wq.cwqs >> 2) + cpu])
  if (cwq === null) return
  if (cwq.thread !== null) release_task(cwq.thread)
  kmem_cache_free(cwq_cache, cwq)
}

/** destroy_workqueue - when all its work is done. Nobody queues any more. @context process @consumes wq */
export function* destroy_workqueue(wq: workqueue_struct): Generator<void, void, void> {
  yield* flush_workqueue(wq)
  spin_lock(queues.workqueue_lock)
  list_del_init(wq.list)
  spin_unlock(queues.workqueue_lock)
  for (let cpu = 0; cpu < num_cpus(); cpu++) {
    const cwq = cwq_of(wq, cpu)
    yield* kthread_stop(cwq.thread!)
    kmem_cache_free(cwq_cache, cwq)
  }
  kmem_cache_free(wq_cache, wq)
}

/** init_workqueues - @context boot, CPU 0 */
export function init_workqueues(): void {
  spin_lock_init(queues.workqueue_lock)
  INIT_LIST_HEAD(queues.head)
  queues.keventd_wq = create_workqueue('events')?.addr ?? 0
}

/** Work of one queue that a CPU which stands still had not begun. */
function take_over(wq: workqueue_struct, cpu: number): void {
  const dead = cwq_of(wq, cpu)
  const mine = cwq_of(wq, cpu_id)
  const flags = local_irq_save()
  // The dead CPU is off: nobody waits for its lock with ours held.
  spin_lock(dead.lock)
  spin_lock_nested(mine.lock, SINGLE_DEPTH_NESTING)
  if (!list_empty(dead.worklist)) fetch_add(wq.addr + MOVED, 1) // before anybody sees it removed there
  while (!list_empty(dead.worklist)) {
    const work = WORK.container_of('entry', dead.worklist.next)
    list_del_init(work.entry)
    dead.removed++
    list_add_tail(work.entry, mine.worklist)
    mine.inserted++
  }
  wake_up_process(mine.thread!)
  spin_unlock(mine.lock)
  wake_up_all(dead.work_done)
  spin_unlock(dead.lock)
  local_irq_restore(flags)
}

/** take_over_work - of a CPU that stands still. @context process */
function take_over_work(cpu: number): void {
  spin_lock(queues.workqueue_lock)
  for (let at = queues.head.next; at !== queues.head.addr; at = list_next(at)) {
    take_over(WORKQUEUE.container_of('list', at), cpu)
  }
  spin_unlock(queues.workqueue_lock)
}
dead_hooks.push(take_over_work)
