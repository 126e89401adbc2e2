/**
 * lock.ts - locktorture: threads, softirqs and hardirqs of all CPUs take the locks of each sort, hold them a while and look
 * who else is inside.
 *
 * The oracle are a count of those inside, kept with atomic operations of its own, and a pair of words that only writers
 * change, with time to be disturbed in between. The busted twins take no lock at all, as lock_busted of the original.
 */
import { symbol } from '../abi/symbol.js'
import { fetch_add, load } from '../arch/atomic.js'
import { cpu_relax, now_ns, tick } from '../arch/cpu.js'
import { num_cpus } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import { init_timer, jiffies, mod_timer, tick_hooks } from '../irq/timer.js'
import { TORTURE_LOCKS } from '../lib/torture.js'
import { cond_resched, kernel_thread } from '../sched/sched.js'
import { down, sema_init, up } from '../sched/semaphore.js'
import { rwlock_init } from '../sync/rwlock.js'
import { read_seqbegin, read_seqretry, seqlock_init } from '../sync/seqlock.js'
import { spin_lock_init } from '../sync/spinlock.js'
import {
  BUSTED,
  HOLD_MAX,
  HOLD_TOTAL,
  HOLDERS,
  lock_acquired,
  lock_stats,
  locks,
  OPS,
  type stats,
  type tortured,
} from './lock_ops.js'
import {
  torture_busted,
  torture_create_kthread,
  torture_delay,
  torture_kthread_stopping,
  torture_must_stop,
  torture_others_done,
  torture_random,
  torture_wants,
} from './torture.js'

const f64 = RAM.f64
const [SPIN, SPIN_IRQ, SPIN_BH, RWLOCK, RWLOCK_IRQ, SEQLOCK, SEMAPHORE] = TORTURE_LOCKS.map((_, k) => k)
/** With all locks at once, one round in so many takes the semaphore, and one in so many writes where others may read. */
const SEMAPHORE_EVERY = 16
const WRITE_EVERY = 8
/** Other users of this CPU come in here: the interrupts that are enabled. */
const POLL = 10

type Random = (n: number) => number

/** The lock has just been taken for writing, or not at all: who else is inside? */
function enter_write(l: tortured, st: stats): void {
  const writers = fetch_add(l.addr + HOLDERS.write, 1)
  const readers = load(l.addr + HOLDERS.read)
  if (writers !== 0 || readers !== 0) st.fail++
  if (writers + readers + 1 > st.most) st.most = writers + readers + 1
  st.writes++
}
function leave_write(l: tortured): void {
  fetch_add(l.addr + HOLDERS.write, -1)
}

function enter_read(l: tortured, st: stats): void {
  const readers = fetch_add(l.addr + HOLDERS.read, 1)
  const writers = load(l.addr + HOLDERS.write)
  if (writers !== 0) st.fail++
  if (writers + readers + 1 > st.most) st.most = writers + readers + 1
  st.reads++
}
function leave_read(l: tortured): void {
  fetch_add(l.addr + HOLDERS.read, -1)
}

/** A load and a store with room in between for everybody else to come. */
function count_slowly(l: tortured, random: Random | null): void {
  const n = l.first
  if (random === null) tick(POLL)
  else torture_delay(random)
  l.first = n + 1
  l.second++
}

function held_for(st: stats, since: number): void {
  const at = st.times >> 3
  const ns = now_ns() - since
  f64[at + HOLD_TOTAL] += ns
  if (ns > f64[at + HOLD_MAX]) f64[at + HOLD_MAX] = ns
}

/** A whole critical section of a writer that does not sleep; `random` is null in interrupts. */
function write(k: number, random: Random | null, try_first: boolean): void {
  const ops = torture_busted() ? BUSTED : OPS[k]
  const l = locks[k]
  const st = lock_stats[k].mine
  const flags = random === null ? ops.write_lock_irq(l, st) : ops.write_lock(l, st, try_first)
  const since = now_ns()
  enter_write(l, st)
  count_slowly(l, random)
  leave_write(l)
  held_for(st, since)
  if (random === null) ops.write_unlock_irq(l)
  else ops.write_unlock(l, flags)
}

function read(k: number, random: Random | null): void {
  const ops = torture_busted() ? BUSTED : OPS[k]
  const l = locks[k]
  const st = lock_stats[k].mine
  const flags = random === null ? ops.read_lock_irq(l, st) : ops.read_lock(l, st)
  const since = now_ns()
  enter_read(l, st)
  const { first } = l
  if (random !== null) torture_delay(random)
  if (first !== l.second) st.fail++
  leave_read(l)
  held_for(st, since)
  if (random === null) ops.read_unlock_irq(l)
  else ops.read_unlock(l, flags)
}

/** Readers of a seqlock hold nothing: they read again when a writer came in between. */
function read_seq(random: Random | null): void {
  const l = locks[SEQLOCK]
  const st = lock_stats[SEQLOCK].mine
  for (;;) {
    const ticket = torture_busted() ? 0 : read_seqbegin(l.seq)
    const { first } = l
    if (random !== null) for (let n = random(4); n > 0; n--) cpu_relax()
    const { second } = l
    st.reads++
    if (!torture_busted() && read_seqretry(l.seq, ticket)) {
      st.retries++
      continue
    }
    if (first !== second) st.fail++
    return
  }
}

/** A critical section in which others run on this CPU. @context process */
function* write_sleeping(random: Random): Generator<void, void, void> {
  const l = locks[SEMAPHORE]
  const st = lock_stats[SEMAPHORE].mine
  const since = now_ns()
  const contended = l.sem.count <= 0
  if (!torture_busted()) yield* down(l.sem)
  lock_acquired(st, contended, since)
  const got = now_ns()
  enter_write(l, st)
  const n = l.first
  torture_delay(random)
  yield* cond_resched()
  l.first = n + 1
  l.second++
  leave_write(l)
  held_for(st, got)
  if (!torture_busted()) up(l.sem)
}

/** Where in its round a thread takes lock k. */
function* section(k: number, round: number, random: Random, alone: boolean): Generator<void, void, void> {
  const writes = round % WRITE_EVERY === 0
  if (k === SEMAPHORE) {
    if (alone || round % SEMAPHORE_EVERY === 0) yield* write_sleeping(random)
  } else if (k === SEQLOCK && !writes) read_seq(random)
  else if ((k === RWLOCK || k === RWLOCK_IRQ) && !writes) read(k, random)
  else write(k, random, (round & 1) !== 0)
}

function* lock_torture(): Generator<void, number, void> {
  const random = torture_random(1)
  const chosen = TORTURE_LOCKS.map((_, k) => k).filter(torture_wants)
  const { timer } = lock_stats[SPIN_BH].mine
  init_timer(timer, from_softirq_sym, 0)
  mod_timer(timer, jiffies() + 1)
  for (let round = 0; !torture_must_stop(round); round++) {
    for (const k of chosen) yield* section(k, round, random, chosen.length === 1)
    yield* cond_resched()
  }
  torture_kthread_stopping()
  return 0
}
const lock_torture_sym = symbol('lock_torture', lock_torture)

/** Shares `spin-bh` with the processes, and looks at what only processes write. @context softirq */
function from_softirq(): void {
  if (torture_wants(SPIN_BH)) write(SPIN_BH, null, false)
  if (torture_wants(RWLOCK)) read(RWLOCK, null)
  if (!torture_others_done(0)) mod_timer(lock_stats[SPIN_BH].mine.timer, jiffies() + 1)
}
const from_softirq_sym = symbol('lock_torture_softirq', from_softirq)

/** Every tick of every CPU: shares what is taken with interrupts off. @context hardirq */
function from_hardirq(): void {
  if (!started() || torture_others_done(0)) return
  if (torture_wants(SPIN_IRQ)) write(SPIN_IRQ, null, false)
  if (torture_wants(RWLOCK_IRQ)) read(RWLOCK_IRQ, null)
  if (torture_wants(SEQLOCK)) read_seq(null)
}
tick_hooks.push(from_hardirq)

/** The locks can be taken from now on. */
function started(): boolean {
  return load(locks[SPIN].addr + HOLDERS.ready) !== 0
}

/** A second process on each CPU, so that there is somebody to switch to. */
function* noise(): Generator<void, number, void> {
  while (!torture_others_done(0)) {
    for (let k = 0; k < 20; k++) cpu_relax()
    yield* cond_resched()
  }
  return 0
}
const noise_sym = symbol('lock_torture_noise', noise)

/** main - @context process */
export function main(): void {
  for (const l of locks) {
    spin_lock_init(l.spin)
    rwlock_init(l.rw)
    seqlock_init(l.seq)
    sema_init(l.sem, 1)
  }
  fetch_add(locks[SPIN].addr + HOLDERS.ready, 1)
  for (let cpu = 0; cpu < num_cpus(); cpu++) torture_create_kthread('lock_torture', lock_torture_sym, cpu)
  for (let cpu = 0; cpu < num_cpus(); cpu++) kernel_thread('noise', noise_sym, cpu, { cpu })
}
