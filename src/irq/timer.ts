/**
 * timer.ts - jiffies and the timer wheel: 256 + 4 x 64 slots per CPU, run by the TIMER softirq.
 *
 * Lock charter
 *   base.lock guards a CPU's wheel and every timer on it, with interrupts off. A timer's `base` says whose wheel it
 *   belongs to and is changed only with that base locked, so whoever wants a timer locks its base and then looks again
 *   (lock_timer_base, as from 2.6.12 on: two locks instead of the three of 2.6.11, and no lock order to keep).
 *   Handlers run with the base unlocked, in softirq context, and must leave preempt_count as they found it.
 */

import { by, bytes, embed, type Layout, layout, own, Struct, word } from '../abi/layout.js'
import { INIT_LIST_HEAD, LIST, list_add_tail, list_del_init, type list_head, list_splice_init } from '../abi/list.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../abi/section.js'
import { call, type Sym, symbol } from '../abi/symbol.js'
import { READ_ONCE, store } from '../arch/atomic.js'
import { bug } from '../arch/bug.js'
import { cost } from '../arch/cost.js'
import { BUG_ON, charge_cost, cpu_id, cpu_relax, now_ns } from '../arch/cpu.js'
import { hz, JIFFIES } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import { MAX_TASKS } from '../lib/limits.js'
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
  __set_current_state,
  account_process_tick,
  current,
  current_or_null,
  schedule,
  scheduler_tick,
  set_current_state,
  wake_up_process,
} from '../sched/sched.js'
import { signal_pending } from '../sched/signal.js'
import {
  PF_KTHREAD,
  PF_SYSCALL,
  TASK,
  TASK_DEAD,
  TASK_INTERRUPTIBLE,
  TASK_RUNNING,
  TASK_UNINTERRUPTIBLE,
} from '../sched/task.js'
import { HARDIRQ_OFFSET, preempt_count } from '../sync/preempt.js'
import {
  SINGLE_DEPTH_NESTING,
  SPINLOCK,
  spin_lock_init,
  spin_lock_irqsave,
  spin_lock_nested,
  spin_unlock,
  spin_unlock_irqrestore,
  type spinlock_t,
} from '../sync/spinlock.js'
import { dead_hooks, prepare_hooks } from './hotplug.js'
import { irq_hooks } from './interrupt.js'
import { __raise_softirq_irqoff, open_softirq, TIMER_SOFTIRQ } from './softirq.js'

const COST_TICK = cost('timer_interrupt')
const COST_TIMER = cost('run_timers')

const i32 = RAM.i32
const f64 = RAM.f64

/** jiffies - ticks since boot, wraps at 2^32. */
export function jiffies(): number {
  return READ_ONCE(JIFFIES) // volatile in the original
}
/** time_after - a later than b, across the wrap. */
export function time_after(a: number, b: number): boolean {
  return ((b - a) | 0) < 0
}
export function time_after_eq(a: number, b: number): boolean {
  return ((a - b) | 0) >= 0
}

/** usecs_to_jiffies - rounded up. */
export function usecs_to_jiffies(us: number): number {
  return Math.ceil((us * hz()) / 1e6)
}
export function jiffies_to_usecs(j: number): number {
  return Math.floor((j * 1e6) / hz())
}

export type timer_func = (data: number) => void

export class timer_list extends Struct {
  declare entry: list_head
  declare expires: number
  declare func: Sym<timer_func>
  declare data: number
  declare base: number
}
export const TIMER: Layout<timer_list> = layout('timer_list', timer_list, {
  entry: by('base.lock', embed(LIST)), // linked while pending
  expires: by('base.lock', word),
  func: word,
  data: word,
  base: word, // CPU whose wheel it belongs to
})

const TVR_BITS = 8
const TVN_BITS = 6
export const TVR_SIZE = 1 << TVR_BITS
export const TVN_SIZE = 1 << TVN_BITS

class tvec_base_t extends Struct {
  declare lock: spinlock_t
  declare timer_jiffies: number
  declare running: number
  declare work_list: list_head
  declare tv1: number
  declare tvn: number
}
const BASE: Layout<tvec_base_t> = layout('tvec_base_t', tvec_base_t, {
  lock: embed(SPINLOCK),
  timer_jiffies: by('lock', word), // next tick to be looked at
  running: by('lock', word), // address of the timer whose handler runs
  work_list: by('lock', embed(LIST)), // what is due at the tick that is looked at
  tv1: by('lock', bytes(TVR_SIZE * 8)), // list heads
  tvn: by('lock', bytes(4 * TVN_SIZE * 8)), // tv2 to tv5
})
const bases = DEFINE_PER_CPU('tvec_bases', BASE)
const RUNNING = BASE.offset('running')

class clock extends Struct {
  declare start: number
  declare tick_ns: number
}
const CLOCK: Layout<clock> = layout('clock', clock, { start: own({ kind: 'bytes', size: 8, align: 8 }), tick_ns: word })
const clock_var = DEFINE_STATIC('clock', CLOCK)

export function init_timer(timer: timer_list, func: Sym<timer_func>, data: number): void {
  INIT_LIST_HEAD(timer.entry)
  timer.func = func
  timer.data = data
  timer.base = cpu_id
}
export function timer_pending(timer: timer_list): boolean {
  return timer.entry.next !== timer.entry.addr
}

/** slot of an expiry time, by how far away it is; a past one goes to the current slot. */
function internal_add_timer(base: tvec_base_t, timer: timer_list): void {
  let expires = timer.expires
  const idx = (expires - base.timer_jiffies) | 0
  let head: number
  if (idx < 0) head = base.tv1 + (base.timer_jiffies & (TVR_SIZE - 1)) * 8
  else if (idx < TVR_SIZE) head = base.tv1 + (expires & (TVR_SIZE - 1)) * 8
  else {
    let level = 0
    while (level < 3 && idx >= 1 << (TVR_BITS + (level + 1) * TVN_BITS)) level++
    if (level === 3 && idx > 0x3fffffff) expires = (base.timer_jiffies + 0x3fffffff) | 0
    head = tvn_slot(base, level, (expires >>> (TVR_BITS + level * TVN_BITS)) & (TVN_SIZE - 1))
  }
  list_add_tail(timer.entry, LIST.ref(head))
}

function tvn_slot(base: tvec_base_t, level: number, index: number): number {
  return base.tvn + (level * TVN_SIZE + index) * 8
}

/** Lock the base that the timer belongs to. @returns flags */
function lock_timer_base(timer: timer_list): number {
  for (;;) {
    const cpu = timer.base
    const flags = spin_lock_irqsave(bases.cpu(cpu).lock)
    if (timer.base === cpu) return flags
    spin_unlock_irqrestore(bases.cpu(cpu).lock, flags)
  }
}

/** mod_timer - (re)arm; the timer moves to this CPU's wheel. @context any @returns true when it was pending */
export function mod_timer(timer: timer_list, expires: number): boolean {
  BUG_ON(timer.func === 0, 'timer without function')
  let flags = lock_timer_base(timer)
  let base = bases.cpu(timer.base)
  const pending = timer_pending(timer)
  if (pending) list_del_init(timer.entry)
  if (timer.base !== cpu_id && base.running !== timer.addr) {
    const old = base
    // Off every list and marked as ours while the old base is still locked: nobody else can arm it meanwhile.
    timer.base = cpu_id
    spin_unlock_irqrestore(old.lock, flags)
    flags = lock_timer_base(timer)
    base = bases.cpu(timer.base)
    if (timer_pending(timer)) list_del_init(timer.entry)
  }
  timer.expires = expires | 0
  internal_add_timer(base, timer)
  spin_unlock_irqrestore(base.lock, flags)
  return pending
}

/** add_timer - arm a timer that is not pending, for timer.expires. */
export function add_timer(timer: timer_list): void {
  BUG_ON(timer_pending(timer), 'add_timer of a pending timer')
  mod_timer(timer, timer.expires)
}

/** del_timer - disarm; the handler may still be running. @returns true when it was pending */
export function del_timer(timer: timer_list): boolean {
  const flags = lock_timer_base(timer)
  const base = bases.cpu(timer.base)
  const pending = timer_pending(timer)
  if (pending) list_del_init(timer.entry)
  spin_unlock_irqrestore(base.lock, flags)
  return pending
}

/** del_timer_sync - and wait until the handler has returned. @context process, softirq; holding nothing the handler takes */
export function del_timer_sync(timer: timer_list): boolean {
  for (let was = false; ; ) {
    const flags = lock_timer_base(timer)
    const base = bases.cpu(timer.base)
    const running = base.running === timer.addr
    if (timer_pending(timer)) {
      list_del_init(timer.entry)
      was = true
    }
    spin_unlock_irqrestore(base.lock, flags)
    if (!running) return was
    while (i32[(base.addr + RUNNING) >> 2] === timer.addr) cpu_relax()
  }
}

// ---- running them ---------------------------------------------------------------------------------------------------

/** Spread a slot of an outer wheel over the inner ones. @returns its index */
function cascade(base: tvec_base_t, level: number): number {
  const index = (base.timer_jiffies >>> (TVR_BITS + level * TVN_BITS)) & (TVN_SIZE - 1)
  const head = tvn_slot(base, level, index)
  let at = i32[head >> 2]
  INIT_LIST_HEAD(LIST.ref(head))
  while (at !== head) {
    const next = i32[at >> 2]
    internal_add_timer(base, TIMER.container_of('entry', at))
    at = next
  }
  return index
}

/** __run_timers - everything that is due up to `now`. @context softirq */
export function __run_timers(base: tvec_base_t, now: number): void {
  let flags = spin_lock_irqsave(base.lock)
  while (time_after_eq(now, base.timer_jiffies)) {
    const index = base.timer_jiffies & (TVR_SIZE - 1)
    if (index === 0 && cascade(base, 0) === 0 && cascade(base, 1) === 0 && cascade(base, 2) === 0) cascade(base, 3)
    base.timer_jiffies = (base.timer_jiffies + 1) | 0
    // The slot is emptied first: a handler may arm a timer a whole turn of the wheel ahead, which is the same slot.
    const due = base.work_list
    list_splice_init(LIST.ref(base.tv1 + index * 8), due)
    while (due.next !== due.addr) {
      const timer = TIMER.container_of('entry', due.next)
      list_del_init(timer.entry)
      base.running = timer.addr
      const { func, data } = timer
      charge_cost(COST_TIMER)
      spin_unlock_irqrestore(base.lock, flags)
      const count = preempt_count()
      call(func)(data)
      if (count !== preempt_count()) bug('context imbalance', 'timer handler changed preempt_count')
      flags = spin_lock_irqsave(base.lock)
      store(base.addr + RUNNING, 0)
    }
  }
  spin_unlock_irqrestore(base.lock, flags)
}

function run_timer_softirq(): void {
  const base = bases.mine
  if (time_after_eq(jiffies(), base.timer_jiffies)) __run_timers(base, jiffies())
}
const run_timer_softirq_sym = symbol('run_timer_softirq', run_timer_softirq)

/** Others that want every tick of every CPU; filled at module load. */
export const tick_hooks: (() => void)[] = []

/** user_mode - did this interrupt come out of a program of the user, not out of the kernel? @context hardirq, of a tick */
export function user_mode(): boolean {
  const task = current_or_null()
  return task !== null && (task.flags & (PF_KTHREAD | PF_SYSCALL)) === 0 && preempt_count() === HARDIRQ_OFFSET
}

/** timer_interrupt - CPU 0 moves jiffies to where the clock is, so lost ticks are made up. @context hardirq */
function timer_interrupt(): void {
  charge_cost(COST_TICK)
  if (cpu_id <= 0) store(JIFFIES, Math.floor((now_ns() - f64[clock_var.start >> 3]) / clock_var.tick_ns) | 0)
  __raise_softirq_irqoff(TIMER_SOFTIRQ)
  account_process_tick(user_mode())
  for (let k = 0; k < tick_hooks.length; k++) tick_hooks[k]!()
  scheduler_tick()
}
irq_hooks.timer_interrupt = timer_interrupt

/** init_timers - @context boot, CPU 0 for all CPUs */
export function init_timers(ncpus: number): void {
  clock_var.tick_ns = Math.floor(1e9 / hz())
  f64[clock_var.start >> 3] = now_ns()
  for (let cpu = 0; cpu < ncpus; cpu++) {
    const base = bases.cpu(cpu)
    spin_lock_init(base.lock)
    base.timer_jiffies = jiffies()
    INIT_LIST_HEAD(base.work_list)
    for (let k = 0; k < TVR_SIZE; k++) INIT_LIST_HEAD(LIST.ref(base.tv1 + k * 8))
    for (let k = 0; k < 4 * TVN_SIZE; k++) INIT_LIST_HEAD(LIST.ref(base.tvn + k * 8))
  }
  open_softirq(TIMER_SOFTIRQ, run_timer_softirq_sym)
}

/** resume_clock - jiffies go on where the machine was halted. @context boot of a resumed machine, CPU 0 */
export function resume_clock(): void {
  f64[clock_var.start >> 3] = now_ns() - (jiffies() >>> 0) * clock_var.tick_ns
}

/** migrate_timers - the timers of a CPU that stands still are ours from now on. @context process @locks both bases, by address */
function migrate_timers(cpu: number): void {
  const old = bases.cpu(cpu)
  const base = bases.mine
  const flags = spin_lock_irqsave(cpu < cpu_id ? old.lock : base.lock)
  spin_lock_nested(cpu < cpu_id ? base.lock : old.lock, SINGLE_DEPTH_NESTING)
  BUG_ON(old.running !== 0, 'dead CPU runs a timer')
  for (let k = 0; k < TVR_SIZE; k++) migrate_list(old.tv1 + k * 8, base)
  for (let k = 0; k < 4 * TVN_SIZE; k++) migrate_list(old.tvn + k * 8, base)
  spin_unlock(cpu < cpu_id ? base.lock : old.lock)
  spin_unlock_irqrestore(cpu < cpu_id ? old.lock : base.lock, flags)
}
function migrate_list(head: number, base: tvec_base_t): void {
  for (let at = i32[head >> 2]; at !== head; at = i32[head >> 2]) {
    const timer = TIMER.container_of('entry', at)
    list_del_init(timer.entry)
    timer.base = cpu_id
    internal_add_timer(base, timer)
  }
}
dead_hooks.push(migrate_timers)

/** restart_timers - the wheel of a CPU that is started again is empty: it goes on from now, not from when it was stopped. */
function restart_timers(cpu: number): void {
  const base = bases.cpu(cpu)
  const flags = spin_lock_irqsave(base.lock)
  base.timer_jiffies = jiffies()
  spin_unlock_irqrestore(base.lock, flags)
}
prepare_hooks.push(restart_timers)

/** timers_pending - addresses of all timers on a CPU's wheel; a list that leads out of RAM ends. @context a halted machine */
export function timers_pending(cpu: number): number[] {
  const base = bases.cpu(cpu)
  const pending: number[] = []
  const heads = [base.tv1, base.tvn].flatMap((tv, k) =>
    Array.from({ length: k === 0 ? TVR_SIZE : 4 * TVN_SIZE }, (_, n) => tv + n * 8),
  )
  for (const head of heads) {
    for (let at = i32[head >> 2]; at !== head && at > 0 && at < RAM.size; at = i32[at >> 2]) {
      pending.push(TIMER.container_of('entry', at).addr)
    }
  }
  return pending
}

/** timer_base - of one CPU, for tests. */
export function timer_base(cpu: number): tvec_base_t {
  return bases.cpu(cpu)
}

// ---- sleeping for a time --------------------------------------------------------------------------------------------

class timer_box extends Struct {
  declare timer: timer_list
}
const BOX: Layout<timer_box> = layout('timer_box', timer_box, { timer: embed(TIMER) })
const box_cache = kmem_cache_create('timer_box', BOX, () => with_hoards(MAX_TASKS))

function process_timeout(task: number): void {
  wake_up_process(TASK.ref(task))
}
const process_timeout_sym = symbol('process_timeout', process_timeout)

/** schedule_timeout for as long as it takes. */
export const MAX_SCHEDULE_TIMEOUT = 0x7fffffff

/** schedule_timeout - sleep in the state that was set, at most `timeout` jiffies. @context process @returns jiffies left */
export function* schedule_timeout(timeout: number): Generator<void, number, void> {
  if (timeout === MAX_SCHEDULE_TIMEOUT) {
    yield* schedule()
    return timeout
  }
  const expires = (jiffies() + timeout) | 0
  const box = kmem_cache_alloc(box_cache)
  if (box === null) {
    __set_current_state(TASK_RUNNING) // no timer to be had: woken early, as sleepers must bear
    yield* schedule()
    return Math.max(0, (expires - jiffies()) | 0)
  }
  init_timer(box.timer, process_timeout_sym, current().addr)
  mod_timer(box.timer, expires)
  yield* schedule()
  del_timer_sync(box.timer)
  kmem_cache_free(box_cache, box)
  return Math.max(0, (expires - jiffies()) | 0)
}

/** sleeps_end - the timers of tasks that the halt found asleep: they never wake. @context a halted machine */
export function sleeps_end(): void {
  for (const addr of objects_out(box_cache as unknown as kmem_cache<Struct>)) {
    const { timer } = BOX.ref(addr)
    if (freed_object(timer.data) !== null || TASK.ref(timer.data).state === TASK_DEAD) continue // that one leaked
    del_timer(timer)
    kmem_cache_free(box_cache, BOX.ref(addr))
  }
}

/** schedule_timeout_interruptible - a signal ends it. @context process @returns jiffies left */
export function* schedule_timeout_interruptible(timeout: number): Generator<void, number, void> {
  set_current_state(TASK_INTERRUPTIBLE)
  return yield* schedule_timeout(timeout)
}

/**
 * sleep_interruptible - so many jiffies, or until a signal comes; one that is pending already does not let it sleep at all.
 * @context process @returns jiffies left
 */
export function* sleep_interruptible(timeout: number): Generator<void, number, void> {
  let left = timeout
  while (left > 0 && !signal_pending(current())) left = yield* schedule_timeout_interruptible(left)
  return left
}

/** msleep_interruptible - @context process @returns ms left when a signal ended it */
export function* msleep_interruptible(ms: number): Generator<void, number, void> {
  return jiffies_to_usecs(yield* sleep_interruptible(usecs_to_jiffies(ms * 1000) + 1)) / 1000
}

/** nanosleep - @context process @returns ns left when a signal ended it */
export function* nanosleep(ns: number): Generator<void, number, void> {
  if (ns <= 0) return 0
  return jiffies_to_usecs(yield* sleep_interruptible(usecs_to_jiffies(ns / 1000) + 1)) * 1000
}

/** msleep - @context process */
export function* msleep(ms: number): Generator<void, void, void> {
  let left = usecs_to_jiffies(ms * 1000) + 1
  while (left > 0) {
    set_current_state(TASK_UNINTERRUPTIBLE)
    left = yield* schedule_timeout(left)
  }
}
