/**
 * itimer.ts - interval timers of a process (kernel/itimer.c): by the clock, by its user time, by all its CPU time.
 *
 * Lock charter
 *   None. real_timer is guarded by its wheel; it_real_incr is changed only while the timer is neither pending nor running.
 *   The counted ones belong to the CPU of the process: its tick and the process itself, which nothing interrupts in between.
 *
 * They hang from the task once it has asked for one, and go when it ends. An expiry makes a signal pending (signal.ts).
 */
import { by, bytes, embed, type Layout, layout, own, Struct, word } from '../abi/layout.js'
import { type Sym, symbol } from '../abi/symbol.js'
import { fetch_add } from '../arch/atomic.js'
import { memzero, RAM } from '../arch/ram.js'
import { EINVAL, ENOMEM } from '../lib/errno.js'
import { MAX_TASKS } from '../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free, with_hoards } from '../mm/slab.js'
import { current, current_or_null, sched_hooks } from '../sched/sched.js'
import { SIGALRM, SIGPROF, SIGVTALRM, send_sig } from '../sched/signal.js'
import { TASK, type task_struct } from '../sched/task.js'
import {
  del_timer_sync,
  init_timer,
  jiffies,
  jiffies_to_usecs,
  mod_timer,
  TIMER,
  tick_hooks,
  type timer_func,
  type timer_list,
  timer_pending,
  usecs_to_jiffies,
  user_mode,
} from './timer.js'

const i32 = RAM.i32

export const ITIMER_REAL = 0
export const ITIMER_VIRTUAL = 1
export const ITIMER_PROF = 2

/** Microseconds; value 0: not armed, interval 0: once. Rounded up to ticks. */
export interface itimerval {
  it_interval: number
  it_value: number
}

class itimers extends Struct {
  declare real_timer: timer_list
  declare it_real_incr: number
  declare it_virt_value: number
  declare it_virt_incr: number
  declare it_prof_value: number
  declare it_prof_incr: number
  declare expired: number
}
const ITIMERS: Layout<itimers> = layout('itimers', itimers, {
  real_timer: embed(TIMER),
  it_real_incr: by('real_timer', word), // all of these in jiffies
  it_virt_value: own(word),
  it_virt_incr: own(word),
  it_prof_value: own(word),
  it_prof_incr: own(word),
  expired: bytes(3 * 4), // times that each has expired
})
const itimer_cache = kmem_cache_create('itimers', ITIMERS, () => with_hoards(MAX_TASKS))

function expire(t: itimers, which: number, sig: number, p: task_struct): void {
  fetch_add(t.expired + which * 4, 1)
  send_sig(sig, p)
}

/** The real timer of a task has run off. @context softirq */
function it_real_fn(task: number): void {
  const p = TASK.ref(task)
  const t = ITIMERS.ref(p.itimers)
  expire(t, ITIMER_REAL, SIGALRM, p)
  if (t.it_real_incr !== 0) mod_timer(t.real_timer, jiffies() + t.it_real_incr)
}
const it_real_fn_sym: Sym<timer_func> = symbol('it_real_fn', it_real_fn)

/** The timers of this task, made when it has none yet; null: no memory. */
function my_itimers(): itimers | null {
  const p = current()
  if (p.itimers !== 0) return ITIMERS.ref(p.itimers)
  const t = kmem_cache_alloc(itimer_cache)
  if (t === null) return null
  memzero(t.addr, ITIMERS.size)
  init_timer(t.real_timer, it_real_fn_sym, p.addr)
  p.itimers = t.addr
  return t
}

/** getitimer - what is left, and the interval; null: no such timer. @context process */
export function getitimer(which: number): itimerval | null {
  if (which !== ITIMER_REAL && which !== ITIMER_VIRTUAL && which !== ITIMER_PROF) return null
  const t = ITIMERS.at(current().itimers)
  if (t === null) return { it_interval: 0, it_value: 0 }
  let [value, incr] = [0, 0]
  if (which === ITIMER_REAL) {
    // One that is due but has not been run yet is not off.
    if (timer_pending(t.real_timer)) value = Math.max(1, (t.real_timer.expires - jiffies()) | 0)
    incr = t.it_real_incr
  } else if (which === ITIMER_VIRTUAL) [value, incr] = [t.it_virt_value, t.it_virt_incr]
  else [value, incr] = [t.it_prof_value, t.it_prof_incr]
  return { it_interval: jiffies_to_usecs(incr), it_value: jiffies_to_usecs(value) }
}

/** setitimer - arm one of this process's timers, or stop it with a value of 0. @context process @returns 0, -EINVAL, -ENOMEM */
export function setitimer(which: number, { it_interval, it_value }: itimerval): number {
  if (!(it_interval >= 0 && it_value >= 0)) return -EINVAL
  if (which !== ITIMER_REAL && which !== ITIMER_VIRTUAL && which !== ITIMER_PROF) return -EINVAL
  const t = my_itimers()
  if (t === null) return -ENOMEM
  const value = usecs_to_jiffies(it_value)
  const incr = usecs_to_jiffies(it_interval)
  if (which === ITIMER_REAL) {
    del_timer_sync(t.real_timer)
    t.it_real_incr = incr
    if (value > 0) mod_timer(t.real_timer, jiffies() + value + 1) // this tick has begun already: never early
  } else if (which === ITIMER_VIRTUAL) {
    t.it_virt_value = value
    t.it_virt_incr = incr
  } else {
    t.it_prof_value = value
    t.it_prof_incr = incr
  }
  return 0
}

/** alarm - SIGALRM in so many seconds, 0: none. @context process @returns seconds that were left of the last one, or -ENOMEM */
export function alarm(seconds: number): number {
  const left = getitimer(ITIMER_REAL)!.it_value
  const err = setitimer(ITIMER_REAL, { it_interval: 0, it_value: seconds * 1e6 })
  return err !== 0 ? err : left > 0 ? Math.max(1, Math.round(left / 1e6)) : 0
}

/** itimer_expirations - times that a timer of a task has expired. */
export function itimer_expirations(p: task_struct, which: number): number {
  const t = ITIMERS.at(p.itimers)
  return t === null ? 0 : i32[(t.expired >> 2) + which]
}

function account_it_virt(t: itimers, p: task_struct): void {
  if (t.it_virt_value === 0 || --t.it_virt_value > 0) return
  t.it_virt_value = t.it_virt_incr
  expire(t, ITIMER_VIRTUAL, SIGVTALRM, p)
}

function account_it_prof(t: itimers, p: task_struct): void {
  if (t.it_prof_value === 0 || --t.it_prof_value > 0) return
  t.it_prof_value = t.it_prof_incr
  expire(t, ITIMER_PROF, SIGPROF, p)
}

/** A tick goes to the process that it finds, as all its time; a tick that the host held up is not made up for. @context hardirq */
function account_itimers(): void {
  const p = current_or_null()
  if (p === null || p.itimers === 0) return
  const t = ITIMERS.ref(p.itimers)
  if (user_mode()) account_it_virt(t, p)
  account_it_prof(t, p)
}
tick_hooks.push(account_itimers)

/** exit_itimers - @context a task that ends */
function exit_itimers(p: task_struct): void {
  const t = ITIMERS.at(p.itimers)
  if (t === null) return
  del_timer_sync(t.real_timer)
  p.itimers = 0
  kmem_cache_free(itimer_cache, t)
}
sched_hooks.exit = exit_itimers
