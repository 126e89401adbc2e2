/** waits.ts - ways to wait for ever: locks taken in a circle by several CPUs, by one alone, and semaphores. */
import { embed, type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load } from '../../../src/arch/atomic.js'
import { cpu_relax } from '../../../src/arch/cpu.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { down, SEMAPHORE, sema_init, type semaphore } from '../../../src/sched/semaphore.js'
import {
  RWLOCK,
  read_lock,
  read_unlock,
  rwlock_init,
  type rwlock_t,
  write_lock,
  write_unlock,
} from '../../../src/sync/rwlock.js'
import { SPINLOCK, spin_lock, spin_lock_init, spin_unlock, type spinlock_t } from '../../../src/sync/spinlock.js'

/** How it ends: set before power-on. */
export const CIRCLE_OF_2 = 1
export const CIRCLE_OF_3 = 2
export const ALONE = 3
export const READS_AND_WRITES = 4
export const READER_AND_WRITER = 5
export const ALL_SLEEP = 6
export const CROWD = 7

class waits extends Struct {
  declare how: number
  declare here: number
  declare a: spinlock_t
  declare b: spinlock_t
  declare c: spinlock_t
  declare rw: rwlock_t
  declare first: semaphore
  declare second: semaphore
}
const WAITS: Layout<waits> = layout('test_waits', waits, {
  how: word,
  here: word,
  a: embed(SPINLOCK),
  b: embed(SPINLOCK),
  c: embed(SPINLOCK),
  rw: embed(RWLOCK),
  first: embed(SEMAPHORE),
  second: embed(SEMAPHORE),
})
const s = DEFINE_STATIC('test_waits', WAITS)
const HERE = s.addr + WAITS.offset('here')

/** Until so many have their first lock. */
function all_here(n: number): void {
  fetch_add(HERE, 1)
  while (load(HERE) < n) cpu_relax()
}

function nested(one: spinlock_t, other: spinlock_t, n: number): void {
  spin_lock(one)
  all_here(n)
  spin_lock(other)
  spin_unlock(other)
  spin_unlock(one)
}

/** Each CPU takes its lock and then that of the next one. */
function* in_circle(k: number): Generator<void, number, void> {
  const locks = s.how === CIRCLE_OF_3 ? [s.a, s.b, s.c] : [s.a, s.b]
  nested(locks[k]!, locks[(k + 1) % locks.length]!, locks.length)
  return 0
}
const circle_sym = symbol('test_in_circle', in_circle)

function* alone(): Generator<void, number, void> {
  spin_lock(s.a)
  spin_lock(s.a)
  return 0
}
const alone_sym = symbol('test_alone', alone)

function* reads_and_writes(): Generator<void, number, void> {
  read_lock(s.rw)
  write_lock(s.rw)
  write_unlock(s.rw)
  return 0
}
const reads_and_writes_sym = symbol('test_reads_and_writes', reads_and_writes)

/** CPU 0 reads and wants a; CPU 1 holds a and wants to write. */
function* reader_and_writer(k: number): Generator<void, number, void> {
  if (k === 0) {
    read_lock(s.rw)
    all_here(2)
    spin_lock(s.a)
    spin_unlock(s.a)
    read_unlock(s.rw)
  } else {
    spin_lock(s.a)
    all_here(2)
    write_lock(s.rw)
    write_unlock(s.rw)
    spin_unlock(s.a)
  }
  return 0
}
const reader_and_writer_sym = symbol('test_reader_and_writer', reader_and_writer)

/** Two processes that each want what the other has. */
function* asleep(k: number): Generator<void, number, void> {
  const [one, other] = k === 0 ? [s.first, s.second] : [s.second, s.first]
  yield* down(one)
  all_here(2)
  yield* down(other)
  return 0
}
const asleep_sym = symbol('test_asleep', asleep)

export function main(): void {
  for (const lock of [s.a, s.b, s.c]) spin_lock_init(lock)
  rwlock_init(s.rw)
  sema_init(s.first, 1)
  sema_init(s.second, 1)
  const start = (sym: typeof circle_sym, n: number): void => {
    for (let cpu = 0; cpu < n; cpu++) kernel_thread(`waiter${cpu}`, sym, cpu, { cpu })
  }
  if (s.how === CIRCLE_OF_2 || s.how === CROWD) start(circle_sym, 2)
  else if (s.how === CIRCLE_OF_3) start(circle_sym, 3)
  else if (s.how === ALONE) start(alone_sym, 1)
  else if (s.how === READS_AND_WRITES) start(reads_and_writes_sym, 1)
  else if (s.how === READER_AND_WRITER) start(reader_and_writer_sym, 2)
  else if (s.how === ALL_SLEEP) start(asleep_sym, 2)
}
