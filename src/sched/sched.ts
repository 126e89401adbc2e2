/**
 * sched.ts - the scheduler: an O(1) run queue per CPU; the only place that resumes generators.
 *
 * Lock charter
 *   rq.lock guards a CPU's run queue and the queueing fields of its tasks; taken with interrupts off, from any CPU (wake
 *   up) and any context. Nothing is called under it. Two rq locks are never held together: tasks do not migrate.
 *
 * CONFIG_PREEMPT=n: an interrupt may come at every tick(), but another process runs only when this one yields:
 * in schedule(), or in cond_resched() after need_resched was set.
 */

import { type Layout, layout, own, Struct, word } from '../abi/layout.js'
import { INIT_LIST_HEAD, LIST, list_add_tail, list_del_init } from '../abi/list.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../abi/section.js'
import { call, type Sym } from '../abi/symbol.js'
import { fetch_add, load, store } from '../arch/atomic.js'
import { bug } from '../arch/bug.js'
import { cost } from '../arch/cost.js'
import {
  BUG_ON,
  CPU_CURRENT,
  charge_cost,
  cpu_area,
  cpu_id,
  cpu_relax,
  enter_context,
  halting,
  IDLE,
  idle_wait,
  irqs_disabled,
  local_irq_disable,
  local_irq_enable,
  NICE,
  power_gone,
  SYSTEM,
  set_entry,
  stop_wanted,
  tick,
  USER,
} from '../arch/cpu.js'
import { config, hz, send_vector, VEC_RESCHED } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import { MAX_TASKS } from '../lib/limits.js'
import { type kmem_cache, kmem_cache_alloc, kmem_cache_create, kmem_cache_free, objects_out } from '../mm/slab.js'
import { might_sleep, preempt_count, while_atomic } from '../sync/preempt.js'
import { spin_lock, spin_lock_init, spin_lock_irqsave, spin_unlock, spin_unlock_irqrestore } from '../sync/spinlock.js'
import {
  MAX_PRIO,
  MAX_RT_PRIO,
  PF_KTHREAD,
  PF_SYSCALL,
  type Program,
  type prio_array,
  RUNQUEUE,
  type runqueue,
  type Stack,
  TASK,
  TASK_DEAD,
  TASK_INTERRUPTIBLE,
  TASK_RUNNING,
  TASK_UNINTERRUPTIBLE,
  type task_struct,
} from './task.js'

const COST_SWITCH = cost('schedule')
const COST_WAKE_UP = cost('wake_up_process')

const i32 = RAM.i32
const u8 = RAM.u8
const STATE = TASK.offset('state')
const SIGPENDING = TASK.offset('sigpending')
const PRIO = TASK.offset('prio')
const CURRENT = (cpu_area(Math.max(cpu_id, 0)) + CPU_CURRENT) >> 2

/** Priority of nice 0. */
const NICE_0 = MAX_RT_PRIO + 20
const MIN_TIMESLICE = 5 // ms
const DEF_TIMESLICE = 100

const task_cache = kmem_cache_create('task_struct', TASK, () => MAX_TASKS)
const runqueues = DEFINE_PER_CPU('runqueue', RUNQUEUE)
const rq = runqueues.mine

class sched_counts extends Struct {
  declare last_pid: number
  declare forks: number
}
const COUNTS: Layout<sched_counts> = layout('sched_counts', sched_counts, { last_pid: word, forks: own(word) })
const counts = DEFINE_STATIC('sched_counts', COUNTS)
const LAST_PID = counts.addr

/** The kernel stacks of this CPU's tasks, by address of the task. */
const stacks = new Map<number, Stack>()

/** What other floors want to know of: filled at module load. */
export const sched_hooks = {
  /** A context switch is a quiescent state of RCU. */
  context_switch: (): void => {},
  /** This CPU was asked to stand still; returns when it is wanted again. */
  stand_still: (): void => {},
  /** Nothing runs on this CPU. */
  idle: (): void => {},
  /** This CPU runs no task any more: nobody may count on it. */
  leave: (): void => {},
  /** A task ends: what other floors hung from it goes. */
  exit: (_p: task_struct): void => {},
  /** A task has ended: tell who waits. Gets the address of its completion. */
  exited: (_completion: number): void => {},
}

// ---- the run queue --------------------------------------------------------------------------------------------------

function array_of(q: runqueue, index: number): prio_array {
  return index === 0 ? q.array0 : q.array1
}

function enqueue_task(q: runqueue, p: task_struct, index: number): void {
  const a = array_of(q, index)
  list_add_tail(p.run_list, LIST.ref(a.queue + p.prio * 8))
  i32[(a.bitmap >> 2) + (p.prio >> 5)] |= 1 << (p.prio & 31)
  a.nr_active++
  p.array = index
}

function dequeue_task(q: runqueue, p: task_struct): void {
  const a = array_of(q, p.array)
  list_del_init(p.run_list)
  const head = a.queue + p.prio * 8
  if (i32[head >> 2] === head) i32[(a.bitmap >> 2) + (p.prio >> 5)] &= ~(1 << (p.prio & 31))
  a.nr_active--
}

/** The most urgent task, or 0. @locks q.lock is held */
function first_task(q: runqueue): number {
  if (q.nr_running === 0) return 0
  if (array_of(q, q.active).nr_active === 0) q.active ^= 1
  const a = array_of(q, q.active)
  for (let w = 0; w < 5; w++) {
    const bits = i32[(a.bitmap >> 2) + w]
    if (bits === 0) continue
    const prio = w * 32 + 31 - Math.clz32(bits & -bits)
    return TASK.container_of('run_list', i32[(a.queue + prio * 8) >> 2]).addr
  }
  return 0
}

/** task_timeslice - ticks of a slice by nice: 800 ms at -20, 100 ms at 0, 5 ms at 19. */
export function task_timeslice(p: task_struct): number {
  const prio = load(p.addr + PRIO)
  const ms = SCALE_PRIO(prio < NICE_0 ? 4 * DEF_TIMESLICE : DEF_TIMESLICE, prio)
  return Math.max(1, Math.floor((ms * hz()) / 1000))
}
function SCALE_PRIO(ms: number, prio: number): number {
  return Math.max(MIN_TIMESLICE, Math.floor((ms * (MAX_PRIO - prio)) / ((MAX_PRIO - MAX_RT_PRIO) / 2)))
}

/** try_to_wake_up - make a task run that sleeps in one of these states. @context any @locks rq.lock @returns true when it slept */
function try_to_wake_up(p: task_struct, states: number): boolean {
  charge_cost(COST_WAKE_UP)
  const q = runqueues.cpu(p.cpu)
  const flags = spin_lock_irqsave(q.lock)
  const slept = (load(p.addr + STATE) & states) !== 0 // the sleeper sets it without rq.lock
  if (slept) {
    store(p.addr + STATE, TASK_RUNNING)
    if (p.on_rq === 0) {
      p.on_rq = 1
      q.nr_running++
      enqueue_task(q, p, q.active)
      resched(q, p)
    }
  }
  spin_unlock_irqrestore(q.lock, flags)
  return slept
}

/** task_nice - -20 to 19. */
export function task_nice(p: task_struct): number {
  return load(p.addr + PRIO) - NICE_0
}
/** set_user_nice - from now on; a slice that it has begun stays as long as it is. @context process @locks rq.lock */
export function set_user_nice(p: task_struct, nice: number): void {
  const q = runqueues.cpu(p.cpu)
  const flags = spin_lock_irqsave(q.lock)
  const old = p.prio
  if (old >= MAX_RT_PRIO && old !== NICE_0 + nice) {
    if (p.on_rq !== 0) dequeue_task(q, p)
    store(p.addr + PRIO, NICE_0 + nice)
    if (p.on_rq !== 0) {
      enqueue_task(q, p, p.array)
      if (q.curr === p ? nice > old - NICE_0 : nice < old - NICE_0) resched_cpu(p.cpu)
    }
  }
  spin_unlock_irqrestore(q.lock, flags)
}

/** wake_up_process - from whatever sleep. @context any @returns true when it slept */
export function wake_up_process(p: task_struct): boolean {
  return try_to_wake_up(p, TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE)
}
/** wake_up_state - only when it sleeps in one of these states. @context any */
export function wake_up_state(p: task_struct, states: number): boolean {
  return try_to_wake_up(p, states)
}

function resched(q: runqueue, p: task_struct): void {
  const curr = q.curr
  if (curr !== null && curr.prio <= p.prio) return
  q.need_resched = 1
  if (p.cpu !== cpu_id) send_vector(p.cpu, VEC_RESCHED)
}

// ---- tasks ----------------------------------------------------------------------------------------------------------

export interface ThreadOptions {
  /** The CPU it belongs to for life; default: this one. */
  cpu?: number
  /** -20 to 19; default 0. */
  nice?: number
  /** Real-time priority, 0 to 99, instead of a nice value: it runs until it gives the CPU away (SCHED_FIFO). */
  rt?: number
  /** A program of the user, whose time counts as user time. */
  user?: boolean
  /** It waits for a first wake_up_process, as kthread_create leaves it. */
  asleep?: boolean
}

/** kernel_thread - a new task, ready to run. @context process, boot @returns the task, or null */
export function kernel_thread(
  name: string,
  program: Sym<Program>,
  arg: number,
  options: ThreadOptions = {},
): task_struct | null {
  const p = kmem_cache_alloc(task_cache)
  if (p === null) return null
  i32.fill(0, p.$w, p.$w + (TASK.size >> 2))
  p.state = TASK_UNINTERRUPTIBLE
  p.pid = fetch_add(LAST_PID, 1) + 1
  p.flags = options.user === true ? 0 : PF_KTHREAD
  p.cpu = options.cpu ?? cpu_id
  p.prio = options.rt ?? NICE_0 + (options.nice ?? 0)
  p.program = program
  p.arg = arg
  for (let k = 0; k < Math.min(15, name.length); k++) u8[p.comm + k] = name.charCodeAt(k)
  INIT_LIST_HEAD(p.run_list)
  INIT_LIST_HEAD(p.tasks)
  p.time_slice = task_timeslice(p)
  counts.forks++
  if (options.asleep !== true) wake_up_process(p)
  return p
}

/** current - the task that runs on this CPU. @context process */
export function current(): task_struct {
  return TASK.ref(i32[CURRENT])
}
/** current_or_null - also in idle and before the first task. */
export function current_or_null(): task_struct | null {
  return TASK.at(i32[CURRENT])
}

/** set_current_state - before what is looked at next: a waker changes that before it looks at the state. @context process */
export function set_current_state(state: number): void {
  store(current().addr + STATE, state)
}
/** __set_current_state - where nothing is looked at next. A signal may come at any time, so it is whole. @context process */
export function __set_current_state(state: number): void {
  store(current().addr + STATE, state)
}
export function need_resched(): boolean {
  return rq.need_resched !== 0
}

/** schedule - let others run; a task that has set its state sleeps until it is woken. @context process */
export function* schedule(): Generator<void, void, void> {
  might_sleep()
  yield
}

/** cond_resched - let interrupts in, and others run if they should: a loop that polls with it stops nobody. @context process */
export function* cond_resched(): Generator<void, void, void> {
  cpu_relax()
  if (rq.need_resched !== 0) yield
}

/**
 * rest - schedule() at the top of a program's loop, where it holds nothing: a program that is begun anew does the same as one
 * that goes on. A machine may be saved as bytes when all its tasks rest. @context process
 */
export function* rest(): Generator<void, void, void> {
  const p = current()
  p.at_rest = 1
  yield* schedule()
  p.at_rest = 0
}

/** tasks_not_at_rest - names of the tasks that a snapshot would lose. @context a halted machine */
export function tasks_not_at_rest(): string[] {
  return all_tasks()
    .filter(p => p.at_rest === 0 && stack_begun(p))
    .map(task_name)
}

/** A task that has never run begins at its top in any case. */
function stack_begun(p: task_struct): boolean {
  return p.begun !== 0
}

/** all_tasks - that have not ended, for dumps. */
export function all_tasks(): task_struct[] {
  return objects_out(task_cache as unknown as kmem_cache<Struct>)
    .map(addr => TASK.ref(addr))
    .filter(p => p.state !== TASK_DEAD)
}

/** task_name - and its pid, for dumps. */
export function task_name(p: task_struct): string {
  let name = ''
  for (let k = 0; k < 16 && u8[p.comm + k] !== 0; k++) name += String.fromCharCode(u8[p.comm + k])
  return `${name} (${p.pid})`
}

/** resched_cpu - have whatever runs there give the CPU away. @context any */
export function resched_cpu(cpu: number): void {
  const q = runqueues.cpu(cpu)
  if (q.need_resched !== 0) return // it has been told: who asks again and again must not drown it in interrupts
  q.need_resched = 1
  send_vector(cpu, VEC_RESCHED)
}

/** release_task - free a task that has ended, or has never run. @consumes p */
export function release_task(p: task_struct): void {
  BUG_ON(p.state !== TASK_DEAD && (p.begun !== 0 || p.on_rq !== 0), 'release of a live task')
  kmem_cache_free(task_cache, p)
}

// ---- the CPU's loop -------------------------------------------------------------------------------------------------

/** pick - the next task, off the queue's head but still on it; interrupts are off. */
function pick(): task_struct | null {
  spin_lock(rq.lock)
  rq.need_resched = 0
  const next = TASK.at(first_task(rq))
  rq.curr = next
  i32[CURRENT] = next === null ? 0 : next.addr
  spin_unlock(rq.lock)
  return next
}

/** put_prev - after a task yielded or ended: to the tail of its list, or off the queue. */
function put_prev(p: task_struct, done: boolean): void {
  const flags = spin_lock_irqsave(rq.lock)
  dequeue_task(rq, p)
  if (p.state === TASK_INTERRUPTIBLE && load(p.addr + SIGPENDING) !== 0) p.state = TASK_RUNNING // one came before it slept
  if (done || p.state !== TASK_RUNNING) {
    p.on_rq = 0
    rq.nr_running--
    p.nvcsw++
  } else if (p.time_slice <= 0) {
    p.time_slice = task_timeslice(p)
    enqueue_task(rq, p, rq.active ^ 1)
    p.nivcsw++
  } else enqueue_task(rq, p, rq.active)
  rq.curr = null
  spin_unlock_irqrestore(rq.lock, flags)
}

function stack_of(p: task_struct): Stack {
  let stack = stacks.get(p.addr)
  if (stack === undefined) {
    stack = call(p.program)(p.arg)
    p.begun = 1
    p.at_rest = 0
    stacks.set(p.addr, stack)
  }
  return stack
}

/** What its time is charged to, as account_user_time. */
function context_of(p: task_struct): number {
  if ((p.flags & (PF_KTHREAD | PF_SYSCALL)) !== 0) return SYSTEM
  return load(p.addr + PRIO) > NICE_0 ? NICE : USER
}

/** A task stops running with something held, or with interrupts off. */
function unbalanced(ended: boolean): never {
  if (!ended && preempt_count() !== 0) while_atomic()
  const count = `0x${(preempt_count() >>> 0).toString(16)}`
  const irqs = irqs_disabled() ? 'off' : 'on'
  return bug(
    'context imbalance',
    `a task ${ended ? 'ends' : 'sleeps'} with preempt_count ${count} and interrupts ${irqs}`,
  )
}

function run_task(p: task_struct): void {
  enter_context(context_of(p), p.pid)
  rq.nr_switches++
  tick(COST_SWITCH)
  const step = stack_of(p).next()
  if (preempt_count() !== 0 || irqs_disabled()) unbalanced(step.done === true)
  sched_hooks.context_switch()
  if (step.done !== true) {
    put_prev(p, false)
    return
  }
  p.exit_code = step.value
  sched_hooks.exit(p)
  stacks.delete(p.addr)
  put_prev(p, true)
  i32[CURRENT] = 0
  const waiter = p.exit_wait
  p.state = TASK_DEAD
  if (waiter !== 0)
    sched_hooks.exited(waiter) // p is the waiter's from here on
  else release_task(p)
}

function go_idle(spin_ns: number): void {
  i32[CURRENT] = 0
  enter_context(IDLE, 0)
  local_irq_disable()
  sched_hooks.idle()
  // With the flag off a wake-up shows either in need_resched or, still pending, in the pending word. An order to halt that came
  // before pick() is in neither any more.
  if (rq.need_resched === 0 && !halting()) idle_wait(spin_ns)
  local_irq_enable()
  sched_hooks.context_switch()
}

/** run_next - one step of the most urgent task. @context the bottom of a CPU's stack @returns false: nothing to run */
export function run_next(): boolean {
  local_irq_disable()
  const next = pick()
  local_irq_enable()
  if (next === null) return false
  run_task(next)
  return true
}

/** cpu_loop - what a CPU does until the power goes: it never returns. An orderly halt ends it between two tasks. @context boot */
export function cpu_loop(): never {
  const spin_ns = config('idle_spin_ns')
  for (;;) {
    if (halting()) {
      sched_hooks.leave()
      power_gone()
    }
    if (stop_wanted()) {
      enter_context(IDLE, 0)
      sched_hooks.stand_still()
      continue // it may be a halt that ended it
    }
    if (!run_next()) go_idle(spin_ns)
  }
}

/** scheduler_tick - a slice gets shorter. @context timer interrupt */
export function scheduler_tick(): void {
  const p = rq.curr
  if (p === null || load(p.addr + PRIO) < MAX_RT_PRIO) return
  if (--p.time_slice > 0) return
  if (rq.nr_running > 1) rq.need_resched = 1
  else p.time_slice = task_timeslice(p)
}

/** account_process_tick - a tick of CPU time for the task that it found. @context timer interrupt */
export function account_process_tick(user: boolean): void {
  const p = rq.curr
  if (p === null) return
  if (user) p.utime++
  else p.stime++
}

/** sched_init - @context boot, CPU 0 for all CPUs */
export function sched_init(ncpus: number): void {
  for (let cpu = 0; cpu < ncpus; cpu++) {
    const q = runqueues.cpu(cpu)
    spin_lock_init(q.lock)
    for (const a of [q.array0, q.array1]) {
      for (let prio = 0; prio < MAX_PRIO; prio++) INIT_LIST_HEAD(LIST.ref(a.queue + prio * 8))
    }
  }
}

/** forget_tasks - the power went: drop the stacks of this CPU, so that the thread can boot again. */
export function forget_tasks(): void {
  stacks.clear()
}

/** nr_context_switches - of one CPU, for /proc/stat. */
export function nr_switches(cpu: number): number {
  return runqueues.cpu(cpu).nr_switches
}

function halt(): undefined {
  rq.need_resched = 1
}
set_entry({ halt })
