/**
 * timer.ts - timers under fire: the CPUs arm, move and delete timers of all groups, mostly those that another one armed last.
 *
 * Lock charter
 *   a group's lock guards who arms and deletes its timers; handlers take no lock, so that del_timer_sync may be called under
 *   it. `gen` tells a handler whether `due` is that of its own arming: it is odd while somebody arms, and until no older
 *   arming can still have its handler running.
 *
 * The oracle: each arming ends in one call of the handler, or in one deletion (or arming anew) that found it pending. What
 * is left over was lost, what is too much came twice. The busted twin arms for earlier than it says.
 */
import { atomic, bytes, embed, type Layout, layout, own, Struct, word } from '../abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../abi/section.js'
import { symbol } from '../abi/symbol.js'
import { fetch_add, load, store } from '../arch/atomic.js'
import { BUG_ON } from '../arch/cpu.js'
import { num_cpus } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import {
  del_timer,
  del_timer_sync,
  init_timer,
  jiffies,
  mod_timer,
  msleep,
  TIMER,
  time_after,
  timer_base,
  type timer_list,
} from '../irq/timer.js'
import { LATE_SLOTS, late_slot } from '../lib/torture.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../mm/slab.js'
import { cond_resched } from '../sched/sched.js'
import { SPINLOCK, spin_lock_init, spin_trylock, spin_unlock, type spinlock_t } from '../sync/spinlock.js'
import {
  torture_busted,
  torture_create_kthread,
  torture_kthread_stopping,
  torture_must_stop,
  torture_others_done,
  torture_random,
} from './torture.js'

const i32 = RAM.i32
/** Timers of a group; there are as many groups as CPUs. */
const GROUP = 16
const MAX_GROUPS = 32
/** How much earlier the busted twin arms, jiffies. */
const TOO_EARLY = 3

class torture_timer extends Struct {
  declare timer: timer_list
  declare gen: number
  declare due: number
  declare armed: number
  declare cancelled: number
  declare fired: number
  declare inside: number
}
const TT: Layout<torture_timer> = layout('torture_timer', torture_timer, {
  timer: embed(TIMER),
  gen: atomic(word),
  due: word, // by gen
  armed: atomic(word),
  cancelled: atomic(word),
  fired: atomic(word), // last thing that a handler does
  inside: atomic(word), // handlers that run
})
const cache = kmem_cache_create('torture_timer', TT, () => MAX_GROUPS * GROUP)
const [GEN, ARMED, CANCELLED, FIRED, INSIDE] = (['gen', 'armed', 'cancelled', 'fired', 'inside'] as const).map(f =>
  TT.offset(f),
)

class group extends Struct {
  declare lock: spinlock_t
  declare timers: number
}
const GROUP_OF: Layout<group> = layout('torture_timer_group', group, {
  lock: embed(SPINLOCK),
  timers: bytes(GROUP * 4), // their addresses
})
const groups = DEFINE_PER_CPU('torture_timer_groups', GROUP_OF)

class shared extends Struct {
  declare lost: number
}
const SHARED: Layout<shared> = layout('torture_timer', shared, { lost: word })
const s = DEFINE_STATIC('torture_timer', SHARED)

class per_cpu extends Struct {
  declare arms: number
  declare moves: number
  declare deletions: number
  declare fired: number
  declare early: number
  declare twice: number
  declare unknown: number
  declare late: number
}
const PER_CPU: Layout<per_cpu> = layout('torture_timer_own', per_cpu, {
  arms: own(word),
  moves: own(word), // arming anew of a pending one
  deletions: own(word), // of a pending one
  fired: own(word),
  early: own(word),
  twice: own(word), // more calls than armings, or two at once
  unknown: own(word), // calls whose due time was being changed
  late: own(bytes(LATE_SLOTS * 4)), // calls by lateness
})
const mine = DEFINE_PER_CPU('torture_timer_own', PER_CPU).mine

function timer_of(g: group, k: number): torture_timer {
  return TT.ref(i32[(g.timers >> 2) + k])
}

/** Armings of which nobody has seen the end; rather too many than too few, when others arm meanwhile. */
function outstanding(t: torture_timer): number {
  const { addr } = t
  const ended = load(addr + FIRED) + load(addr + CANCELLED)
  return load(addr + ARMED) - ended
}

/** The handler. @context softirq */
function fire(addr: number): void {
  const t = TT.ref(addr)
  const now = jiffies()
  if (fetch_add(addr + INSIDE, 1) !== 0) mine.twice++
  const gen = load(addr + GEN)
  const late = (now - t.due) | 0
  if ((gen & 1) !== 0 || load(addr + GEN) !== gen) mine.unknown++
  else if (late < 0) mine.early++
  else i32[(mine.late >> 2) + late_slot(late)]++
  if (outstanding(t) <= 0) mine.twice++
  mine.fired++
  fetch_add(addr + INSIDE, -1)
  fetch_add(addr + FIRED, 1)
}
const fire_sym = symbol('torture_timer_fire', fire)

/** @locks the group's lock is held */
function arm(t: torture_timer, delay: number): void {
  const { addr } = t
  store(addr + GEN, load(addr + GEN) | 1)
  const due = (jiffies() + delay) | 0
  t.due = due
  fetch_add(addr + ARMED, 1)
  mine.arms++
  if (mod_timer(t.timer, torture_busted() ? due - TOO_EARLY : due)) {
    fetch_add(addr + CANCELLED, 1)
    mine.moves++
  }
  // One arming is left: a handler that runs from here on is that one's.
  if (outstanding(t) <= 1) fetch_add(addr + GEN, 1)
}

/** @locks the group's lock is held */
function disarm(t: torture_timer, sync: boolean): void {
  if (sync ? del_timer_sync(t.timer) : del_timer(t.timer)) {
    fetch_add(t.addr + CANCELLED, 1)
    mine.deletions++
  }
  if (!sync) return
  const left = outstanding(t)
  if (left > 0) lose(t, left)
  else if (left < 0) mine.twice++
}

/** A timer is neither pending nor running, and yet its handler was not called: it is not waited for again. */
function lose(t: torture_timer, n: number): void {
  fetch_add(s.addr, n)
  fetch_add(t.addr + CANCELLED, n)
}

/** Soon, a while, or on the second wheel. */
function some_delay(random: (n: number) => number): number {
  const dice = random(8)
  return dice < 4 ? random(4) : dice < 7 ? random(24) : 250 + random(50)
}

function* timer_torture(): Generator<void, number, void> {
  const random = torture_random(1)
  for (let round = 0; !torture_must_stop(round); round++) {
    const g = groups.cpu(random(num_cpus()))
    if (spin_trylock(g.lock)) {
      for (let k = random(GROUP); k >= 0; k--) {
        const t = timer_of(g, random(GROUP))
        const dice = random(8)
        if (dice < 6) arm(t, some_delay(random))
        else disarm(t, dice === 6)
      }
      spin_unlock(g.lock)
    }
    if (random(4) === 0) yield* msleep(1)
    else yield* cond_resched()
  }
  torture_kthread_stopping()
  return 0
}
const timer_torture_sym = symbol('timer_torture', timer_torture)

/** Every CPU has looked at all that was due up to then, and at more. */
function all_past(due: number): boolean {
  for (let cpu = 0; cpu < num_cpus(); cpu++) if (!time_after(timer_base(cpu).timer_jiffies, due + 2)) return false
  return true
}

/** What is pending in the end may still come; then all timers are given back. */
function* timer_torture_end(): Generator<void, number, void> {
  while (!torture_others_done(1)) yield* msleep(1)
  for (let cpu = 0; cpu < num_cpus(); cpu++) {
    for (let k = 0; k < GROUP; k++) {
      const t = timer_of(groups.cpu(cpu), k)
      for (let late = 0; outstanding(t) > 0 && late < 2; ) {
        if (all_past(t.due)) late++
        yield* msleep(1)
      }
      del_timer_sync(t.timer)
      const left = outstanding(t)
      if (left > 0) lose(t, left)
      else if (left < 0) mine.twice++
      kmem_cache_free(cache, t)
    }
  }
  torture_kthread_stopping()
  return 0
}
const timer_torture_end_sym = symbol('timer_torture_end', timer_torture_end)

/** main - @context process */
export function main(): void {
  for (let cpu = 0; cpu < num_cpus(); cpu++) {
    const g = groups.cpu(cpu)
    spin_lock_init(g.lock)
    for (let k = 0; k < GROUP; k++) {
      const t = kmem_cache_alloc(cache)
      BUG_ON(t === null, 'no memory for torture timers')
      i32.fill(0, t!.$w, t!.$w + (TT.size >> 2))
      init_timer(t!.timer, fire_sym, t!.addr)
      i32[(g.timers >> 2) + k] = t!.addr
    }
  }
  for (let cpu = 0; cpu < num_cpus(); cpu++) torture_create_kthread('timer_torture', timer_torture_sym, cpu)
  torture_create_kthread('timer_torture_end', timer_torture_end_sym, 0)
}
