/**
 * workqueue.ts - deferred functions that may sleep: a kernel thread per CPU and queue.
 *
 * Lock charter
 *   cwq.lock guards a CPU's list and its counts, with interrupts off. Bit 0 of work.pending owns the queueing: it is set
 *   by whoever queues and cleared before the function runs, so a function may queue itself again.
 */
import { atomic, by, bytes, embed, konst, type Layout, layout, ptr, Struct, word } from '../abi/layout.js'
import { INIT_LIST_HEAD, LIST, list_add_tail, list_del_init, list_empty, type list_head } from '../abi/list.js'
import { DEFINE_STATIC } from '../abi/section.js'
import { call, type Sym, symbol } from '../abi/symbol.js'
import { fetch_or, store } from '../arch/atomic.js'
import { cpu_id, local_irq_restore, local_irq_save } from '../arch/cpu.js'
import { num_cpus } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import { MAX_WORKQUEUES } from '../lib/limits.js'
import { type kmem_cache, kmem_cache_alloc, kmem_cache_create, objects_out } from '../mm/slab.js'
import { __set_current_state, kernel_thread, rest, set_current_state, wake_up_process } from '../sched/sched.js'
import { type Stack, TASK, TASK_INTERRUPTIBLE, TASK_RUNNING, type task_struct } from '../sched/task.js'
import { init_waitqueue_head, WAIT_QUEUE_HEAD, wait_event, type wait_queue_head_t, wake_up_all } from '../sched/wait.js'
import {
  SPINLOCK,
  spin_lock,
  spin_lock_init,
  spin_lock_irqsave,
  spin_unlock,
  spin_unlock_irqrestore,
  type spinlock_t,
} from '../sync/spinlock.js'
import { dead_hooks } from './hotplug.js'

const i32 = RAM.i32

/** The work itself; may sleep. */
export type work_func = (data: number) => Generator<void, void, void>

export class work_struct extends Struct {
  declare entry: list_head
  declare pending: number
  declare func: Sym<work_func>
  declare data: number
}
export const WORK: Layout<work_struct> = layout('work_struct', work_struct, {
  entry: by('cwq.lock', embed(LIST)),
  pending: atomic(word),
  func: word,
  data: word,
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
const cwq_cache = kmem_cache_create('cpu_workqueue', CWQ, () => MAX_WORKQUEUES * num_cpus())

export class workqueue_struct extends Struct {
  declare cwqs: number
}
export const WORKQUEUE: Layout<workqueue_struct> = layout('workqueue_struct', workqueue_struct, {
  cwqs: konst(bytes(32 * 4)), // address of each CPU's part
})
const wq_cache = kmem_cache_create('workqueue_struct', WORKQUEUE, () => MAX_WORKQUEUES)

export function INIT_WORK(work: work_struct, func: Sym<work_func>, data: number): void {
  INIT_LIST_HEAD(work.entry)
  work.pending = 0
  work.func = func
  work.data = data
}

function cwq_of(wq: workqueue_struct, cpu: number): cpu_workqueue {
  return CWQ.ref(i32[(wq.cwqs >> 2) + cpu])
}

/** queue_work - on this CPU's thread of the queue. @context any @returns false when it was queued already */
export function queue_work(wq: workqueue_struct, work: work_struct): boolean {
  if (fetch_or(work.addr + PENDING, 1) !== 0) return false
  const cwq = cwq_of(wq, cpu_id)
  const flags = spin_lock_irqsave(cwq.lock)
  list_add_tail(work.entry, cwq.worklist)
  cwq.inserted++
  spin_unlock_irqrestore(cwq.lock, flags)
  const { thread } = cwq
  if (thread !== null) wake_up_process(thread)
  return true
}

/** schedule_work - on the queue that everybody shares, `events`. @context any */
export function schedule_work(work: work_struct): boolean {
  return queue_work(WORKQUEUE.ref(keventd.wq), work)
}

/** flush_workqueue - returns when everything that was queued before has been done. @context process */
export function* flush_workqueue(wq: workqueue_struct): Generator<void, void, void> {
  for (let cpu = 0; cpu < num_cpus(); cpu++) {
    const cwq = cwq_of(wq, cpu)
    const target = cwq.inserted
    yield* wait_event(cwq.work_done, () => ((cwq.removed - target) | 0) >= 0)
  }
}

function* worker_thread(addr: number): Stack {
  const cwq = CWQ.ref(addr)
  for (;;) {
    set_current_state(TASK_INTERRUPTIBLE)
    if (list_empty(cwq.worklist)) yield* rest()
    __set_current_state(TASK_RUNNING)
    if (list_empty(cwq.worklist)) continue
    const flags = spin_lock_irqsave(cwq.lock)
    const work = WORK.container_of('entry', cwq.worklist.next)
    list_del_init(work.entry)
    spin_unlock_irqrestore(cwq.lock, flags)
    const { func, data } = work
    store(work.addr + PENDING, 0)
    yield* call(func)(data)
    const again = spin_lock_irqsave(cwq.lock)
    cwq.removed++
    spin_unlock_irqrestore(cwq.lock, again)
    wake_up_all(cwq.work_done)
  }
}
const worker_thread_sym = symbol('worker_thread', worker_thread)

/** create_workqueue - with a thread on each CPU. @context boot, process @returns the queue, or null */
export function create_workqueue(name: string): workqueue_struct | null {
  const wq = kmem_cache_alloc(wq_cache)
  if (wq === null) return null
  for (let cpu = 0; cpu < num_cpus(); cpu++) {
    const cwq = kmem_cache_alloc(cwq_cache)
    if (cwq === null) return null
    spin_lock_init(cwq.lock)
    INIT_LIST_HEAD(cwq.worklist)
    cwq.inserted = 0
    cwq.removed = 0
    init_waitqueue_head(cwq.work_done)
    i32[(wq.cwqs >> 2) + cpu] = cwq.addr
    cwq.thread = kernel_thread(`${name}/${cpu}`, worker_thread_sym, cwq.addr, { cpu, nice: -5 })
  }
  return wq
}

class keventd_state extends Struct {
  declare wq: number
}
const KEVENTD: Layout<keventd_state> = layout('keventd', keventd_state, { wq: konst(word) })
const keventd = DEFINE_STATIC('keventd', KEVENTD)

/** init_workqueues - @context boot, CPU 0 */
export function init_workqueues(): void {
  keventd.wq = create_workqueue('events')?.addr ?? 0
}

/** take_over_work - what a CPU that stands still had queued is done by this one's threads. @context process */
function take_over_work(cpu: number): void {
  for (const addr of objects_out(wq_cache as unknown as kmem_cache<Struct>)) {
    const dead = CWQ.ref(i32[(WORKQUEUE.ref(addr).cwqs >> 2) + cpu])
    const mine = CWQ.ref(i32[(WORKQUEUE.ref(addr).cwqs >> 2) + cpu_id])
    const flags = local_irq_save()
    // The dead CPU is off: nobody waits for its lock with ours held.
    spin_lock(dead.lock)
    spin_lock(mine.lock)
    while (!list_empty(dead.worklist)) {
      const work = WORK.container_of('entry', dead.worklist.next)
      list_del_init(work.entry)
      dead.removed++
      list_add_tail(work.entry, mine.worklist)
      mine.inserted++
    }
    spin_unlock(mine.lock)
    spin_unlock(dead.lock)
    local_irq_restore(flags)
    wake_up_all(dead.work_done)
    const { thread } = mine
    if (thread !== null) wake_up_process(thread)
  }
}
dead_hooks.push(take_over_work)
