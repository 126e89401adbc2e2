/**
 * rwlock.ts - reader-writer spinlocks as on i386: one word, readers count up, a writer takes the whole bias.
 *
 * `val` is RW_LOCK_BIAS when free, less one for each reader, 0 when a writer holds it. Readers are preferred, as in
 * 2.6.11, so an interrupt handler may read_lock what the code below it holds for reading. `owner` is the writer + 1.
 * Waiters that find no core sleep as those of a spinlock do; `more` counts them, and who frees the lock wakes them all.
 * It only reads `more` then: the lock's memory may be gone already.
 */
import { type Layout, layout, Struct, word } from '../abi/layout.js'
import { cmpxchg, fetch_add, quiet_ops, READ_ONCE } from '../arch/atomic.js'
import { LOCKDEP } from '../arch/boot.js'
import { VIRTUAL } from '../arch/cost.js'
import {
  CPU_PREEMPT,
  CPU_WAITS_FOR,
  cpu_area,
  cpu_id,
  cpu_relax,
  HELD_READ,
  HELD_WRITE,
  local_irq_restore,
  local_irq_save,
  panic,
  park,
  park_announce,
  park_done,
  unpark_cpu,
} from '../arch/cpu.js'
import { CONFIG, CONFIG_WORDS, num_cpus } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import { TAKEN_READ_RECURSIVE, TAKEN_WRITE } from '../lib/lockgraph.js'
import { local_bh_enable } from './bh.js'
import { lockdep_acquire, lockdep_init, lockdep_release } from './lockdep.js'
import { add_preempt_count, SOFTIRQ_OFFSET } from './preempt.js'
import { held_pop, held_push, holds, recursion } from './spinlock.js'

const i32 = RAM.i32
const PREEMPT = (cpu_area(Math.max(cpu_id, 0)) + CPU_PREEMPT) >> 2
const SPIN = (CONFIG + CONFIG_WORDS.indexOf('spin_limit') * 4) >> 2
const ME = cpu_id + 1

/** Free value: more than there can be readers. */
export const RW_LOCK_BIAS = 0x01000000

export class rwlock_t extends Struct {
  declare val: number
  declare more: number
  declare owner: number
}
export const RWLOCK: Layout<rwlock_t> = layout('rwlock_t', rwlock_t, { val: word, more: word, owner: word })

export function rwlock_init(lock: rwlock_t): void {
  lock.val = RW_LOCK_BIAS
  lock.more = 0
  lock.owner = 0
  if (LOCKDEP) lockdep_init(lock.addr)
}

function try_read(addr: number): boolean {
  if (fetch_add(addr, -1) > 0) return true
  fetch_add(addr, 1)
  return false
}

function try_write(addr: number): boolean {
  return READ_ONCE(addr) === RW_LOCK_BIAS && cmpxchg(addr, RW_LOCK_BIAS, 0) === RW_LOCK_BIAS
}

function wait(addr: number, write: boolean): void {
  for (;;) {
    for (let spins = i32[SPIN]; spins > 0; spins--) {
      if (write ? try_write(addr) : READ_ONCE(addr) > 0 && try_read(addr)) return
      cpu_relax()
    }
    park_announce(addr, 0)
    quiet_ops.fetch_add(addr + 4, 1)
    const won = write ? try_write(addr) : try_read(addr)
    if (!won) park(addr | (write ? HELD_WRITE : HELD_READ))
    quiet_ops.fetch_add(addr + 4, -1)
    park_done()
    if (won) return
  }
}

function wake_waiters(addr: number): void {
  if (quiet_ops.load(addr + 4) === 0) return
  for (let cpu = num_cpus() - 1; cpu >= 0; cpu--) {
    if (quiet_ops.load(cpu_area(cpu) + CPU_WAITS_FOR) === addr) unpark_cpu(cpu)
  }
}

/** read_lock - shared. @context any, when every writer keeps that context out */
export function read_lock(lock: rwlock_t): void {
  i32[PREEMPT]++
  if (LOCKDEP) lockdep_acquire(lock.addr, TAKEN_READ_RECURSIVE, false)
  if (holds(lock.addr | HELD_WRITE)) recursion('rwlock', lock.addr)
  if (!try_read(lock.addr)) wait(lock.addr, false)
  held_push(lock.addr | HELD_READ)
}
export function read_unlock(lock: rwlock_t): void {
  if (LOCKDEP) lockdep_release(lock.addr)
  held_pop(lock.addr | HELD_READ)
  fetch_add(lock.addr, 1)
  wake_waiters(lock.addr)
  i32[PREEMPT]--
}

/** write_lock - exclusive. */
export function write_lock(lock: rwlock_t): void {
  write_lock_nested(lock, 0)
}
/** write_lock_nested - as write_lock, for lockdep a class of its own: SINGLE_DEPTH_NESTING for a second lock of one class. */
export function write_lock_nested(lock: rwlock_t, subclass: number): void {
  i32[PREEMPT]++
  if (LOCKDEP) lockdep_acquire(lock.addr, TAKEN_WRITE, false, false, subclass)
  if (holds(lock.addr | HELD_WRITE)) recursion('rwlock', lock.addr)
  // Who reads it and then writes waits for itself. In virtual time the wait graph says so, with all who take part.
  if (!VIRTUAL && holds(lock.addr | HELD_READ)) recursion('rwlock', lock.addr)
  if (!try_write(lock.addr)) wait(lock.addr, true)
  lock.owner = ME
  held_push(lock.addr | HELD_WRITE)
}
export function write_trylock(lock: rwlock_t): boolean {
  if (!try_write(lock.addr)) return false
  if (LOCKDEP) lockdep_acquire(lock.addr, TAKEN_WRITE, true)
  i32[PREEMPT]++
  lock.owner = ME
  held_push(lock.addr | HELD_WRITE)
  return true
}
export function write_unlock(lock: rwlock_t): void {
  if (LOCKDEP) lockdep_release(lock.addr)
  if (lock.owner !== ME) panic('write_unlock by a stranger')
  held_pop(lock.addr | HELD_WRITE)
  lock.owner = 0
  fetch_add(lock.addr, RW_LOCK_BIAS) // readers that try and fail keep their counts balanced
  wake_waiters(lock.addr)
  i32[PREEMPT]--
}

export function read_lock_bh(lock: rwlock_t): void {
  add_preempt_count(SOFTIRQ_OFFSET)
  read_lock(lock)
}
export function read_unlock_bh(lock: rwlock_t): void {
  read_unlock(lock)
  local_bh_enable()
}
export function write_lock_bh(lock: rwlock_t): void {
  add_preempt_count(SOFTIRQ_OFFSET)
  write_lock(lock)
}
export function write_unlock_bh(lock: rwlock_t): void {
  write_unlock(lock)
  local_bh_enable()
}
export function read_lock_irqsave(lock: rwlock_t): number {
  const flags = local_irq_save()
  read_lock(lock)
  return flags
}
export function read_unlock_irqrestore(lock: rwlock_t, flags: number): void {
  read_unlock(lock)
  local_irq_restore(flags)
}
export function write_lock_irqsave(lock: rwlock_t): number {
  const flags = local_irq_save()
  write_lock(lock)
  return flags
}
export function write_unlock_irqrestore(lock: rwlock_t, flags: number): void {
  write_unlock(lock)
  local_irq_restore(flags)
}
