/**
 * spinlock.ts - spinlocks of three kinds, chosen per machine: test-and-set (2.6.11), ticket (2.6.25), MCS.
 *
 * Words of a lock:  TAS     val 0 free, 1 held, 2 held and a waiter may sleep
 *                   ticket  val next ticket, aux ticket served, and 1 more when a waiter sleeps; more = how many sleep.
 *                           Tickets are even.
 *                   MCS     val tail node, aux the holder's node
 * `owner` is the holding CPU + 1: for dumps and assertions, not for exclusion.
 *
 * The machine may have more CPUs than the host has cores, so a waiter spins `spin_limit` times and then sleeps on its own
 * CPU's pending word. Each kind names the waiter to be woken: TAS any one sleeper, ticket the CPU with the served ticket,
 * MCS the CPU of the next node. In every kind the waiter announces itself before it looks once more and the holder frees
 * the lock before it looks for sleepers; both are sequentially consistent, so one of the two sees the other.
 * A waiter that spins or sleeps with interrupts enabled takes them, as a real one does.
 *
 * In virtual time a waiter that sleeps stands for one that spins: the words of sleeping and waking cost nothing, but the
 * lock's line does. After each unlock every waiter of a TAS or ticket lock reads the line anew, one after another; those of
 * TAS then all try to write it. So the next holder has it after as many transfers as there are waiters (TAS), after half as
 * many on average (ticket), or after those of its own node (MCS). As in Boyd-Wickizer, Kaashoek, Morris and Zeldovich,
 * "Non-scalable locks are dangerous", Linux Symposium 2012.
 *
 * Never under a spinlock: sleeping, waiting for another CPU's interrupt.
 */

import { type Layout, layout, Struct, word } from '../abi/layout.js'
import { cmpxchg, fetch_add, load, quiet_ops, READ_ONCE, store, want_line, xchg } from '../arch/atomic.js'
import { boot, LOCKDEP } from '../arch/boot.js'
import { cost, VIRTUAL } from '../arch/cost.js'
import {
  BUG_ON,
  CPU_HELD,
  CPU_HELD_STACK,
  CPU_MCS,
  CPU_PREEMPT,
  CPU_TICKET,
  CPU_WAITS_FOR,
  charge_cost,
  cpu_area,
  cpu_id,
  cpu_relax,
  describe_lock,
  lines_pass,
  local_irq_restore,
  local_irq_save,
  panic,
  park,
  park_announce,
  park_done,
  standing_at,
  unpark_cpu,
} from '../arch/cpu.js'
import { CONFIG, CONFIG_WORDS, num_cpus } from '../arch/machine.js'
import { PERCPU_BASE, PERCPU_SHIFT, RAM } from '../arch/ram.js'
import { my_clock } from '../arch/turnstile.js'
import { MAX_HELD } from '../lib/limits.js'
import { TAKEN_WRITE } from '../lib/lockgraph.js'
import { lockdep_acquire, lockdep_init, lockdep_release } from './lockdep.js'
import { lockstat_acquired, lockstat_released } from './lockstat.js'

const COST_LOCK = cost('spin_lock')

const i32 = RAM.i32
const AREA = cpu_area(Math.max(cpu_id, 0))
const HELD = (AREA + CPU_HELD) >> 2
const HELD_STACK = (AREA + CPU_HELD_STACK) >> 2
const PREEMPT = (AREA + CPU_PREEMPT) >> 2
const NODES = AREA + CPU_MCS // 31 nodes of 16 bytes {next, locked}; the 32nd slot is the map of those in use
const NODE_MAP = (NODES + 31 * 16) >> 2
const SPIN = (CONFIG + CONFIG_WORDS.indexOf('spin_limit') * 4) >> 2
const ME = cpu_id + 1

export const LOCK_TAS = 0
export const LOCK_TICKET = 1
export const LOCK_MCS = 2
export const LOCK_KINDS = ['tas', 'ticket', 'mcs'] as const
const KIND = boot.lockKind

export class spinlock_t extends Struct {
  declare val: number
  declare aux: number
  declare more: number
  declare owner: number
}
export const SPINLOCK: Layout<spinlock_t> = layout('spinlock_t', spinlock_t, {
  val: word,
  aux: word,
  more: word,
  owner: word,
})

export function spin_lock_init(lock: spinlock_t): void {
  lock.val = 0
  lock.aux = 0
  lock.more = 0
  lock.owner = 0
  if (LOCKDEP) lockdep_init(lock.addr)
}

// ---- waiters that sleep ---------------------------------------------------------------------------------------------

function unpark_any(lock: number): void {
  const n = num_cpus()
  // Round from the holder on: always the same one first would starve the others.
  for (let k = 1; k <= n; k++) {
    const cpu = (cpu_id + k) % n
    const slot = cpu_area(cpu) + CPU_WAITS_FOR
    if (quiet_ops.load(slot) === lock && quiet_ops.cmpxchg(slot, lock, 0) === lock) {
      unpark_cpu(cpu)
      return
    }
  }
}

function unpark_ticket(lock: number, ticket: number): void {
  for (let cpu = num_cpus() - 1; cpu >= 0; cpu--) {
    const area = cpu_area(cpu)
    if (quiet_ops.load(area + CPU_WAITS_FOR) === lock && READ_ONCE(area + CPU_TICKET) === ticket) {
      unpark_cpu(cpu)
      return
    }
  }
}

// ---- test-and-set ---------------------------------------------------------------------------------------------------

export function tas_lock(lock: number): void {
  if (cmpxchg(lock, 0, 1) !== 0) tas_slow(lock)
}

/** A waiter that has slept takes the lock as 2: it may have had the only wake-up, and others sleep on. */
function tas_slow(lock: number): void {
  let taken = 1
  for (;;) {
    for (let spins = i32[SPIN]; spins > 0; spins--) {
      if (READ_ONCE(lock) === 0 && cmpxchg(lock, 0, taken) === 0) return
      cpu_relax()
    }
    taken = 2
    park_announce(lock, 0)
    const won = xchg(lock, 2) === 0
    if (!won) park(lock)
    park_done()
    if (!won) continue
    if (VIRTUAL) lines_pass(standing_at(lock))
    return
  }
}

/** One exchange frees the lock and tells of sleepers: the lock's memory may be gone right after it. */
export function tas_unlock(lock: number): void {
  if (xchg(lock, 0) === 2) unpark_any(lock)
}

// ---- ticket ---------------------------------------------------------------------------------------------------------

export function ticket_lock(lock: number): void {
  const ticket = fetch_add(lock, 2)
  if ((load(lock + 4) & ~1) !== ticket) ticket_slow(lock, ticket)
}

function ticket_slow(lock: number, ticket: number): void {
  for (let spins = i32[SPIN]; spins > 0; spins--) {
    const ahead = (ticket - (load(lock + 4) & ~1)) | 0
    if (ahead === 0) return
    if (ahead > 2 && spins > 16) spins = 16 // others go first: not worth the host's core
    cpu_relax()
  }
  park_announce(lock, ticket)
  quiet_ops.fetch_add(lock + 8, 1)
  quiet_ops.fetch_or(lock + 4, 1)
  while ((load(lock + 4) & ~1) !== ticket) {
    park(lock)
    park_announce(lock, ticket) // an interrupt taken meanwhile may have waited for another lock
  }
  park_done()
  if (VIRTUAL) lines_pass(standing_at(lock) >> 1)
  if (quiet_ops.fetch_add(lock + 8, -1) !== 1) return
  quiet_ops.fetch_and(lock + 4, ~1) // only the holder takes the mark away, so nobody misses it meanwhile
  if (quiet_ops.load(lock + 8) !== 0) quiet_ops.fetch_or(lock + 4, 1)
}

/** One addition serves the next ticket and tells of sleepers: the lock's memory may be gone right after it. */
export function ticket_unlock(lock: number): void {
  const served = fetch_add(lock + 4, 2)
  if ((served & 1) !== 0) unpark_ticket(lock, (served + 1) | 0)
}

// ---- MCS ------------------------------------------------------------------------------------------------------------

function node_get(): number {
  const map = i32[NODE_MAP]
  const free = ~map & 0x7fffffff
  if (free === 0) panic('out of MCS nodes')
  const bit = free & -free
  i32[NODE_MAP] = map | bit
  return NODES + ((31 - Math.clz32(bit)) << 4)
}

function node_put(node: number): void {
  i32[NODE_MAP] &= ~(1 << ((node - NODES) >> 4))
}

export function mcs_lock(lock: number): void {
  const node = node_get()
  i32[node >> 2] = 0
  i32[(node >> 2) + 1] = 1
  const prev = xchg(lock, node)
  if (prev !== 0) mcs_slow(lock, prev, node)
  i32[(lock >> 2) + 1] = node // no interrupt comes between winning and this: there is no tick
}

function mcs_slow(lock: number, prev: number, node: number): void {
  store(prev, node)
  for (let spins = i32[SPIN]; spins > 0; spins--) {
    if (load(node + 4) === 0) return
    cpu_relax()
  }
  park_announce(node, 0)
  while (load(node + 4) !== 0) {
    park(lock)
    park_announce(node, 0)
  }
  park_done()
}

export function mcs_unlock(lock: number): void {
  const node = i32[(lock >> 2) + 1]
  let next = load(node)
  if (next === 0) {
    if (cmpxchg(lock, node, 0) === node) {
      node_put(node)
      return
    }
    while ((next = load(node)) === 0) cpu_relax() // the next waiter is between the swap and the link
  }
  store(next + 4, 0)
  const cpu = (next - PERCPU_BASE) >> PERCPU_SHIFT
  if (quiet_ops.load(cpu_area(cpu) + CPU_WAITS_FOR) === next) unpark_cpu(cpu)
  node_put(node)
}

// ---- the lock of this machine ---------------------------------------------------------------------------------------

/** held_push - `lock` is an address, with HELD_READ or HELD_WRITE for an rwlock. */
export function held_push(lock: number): void {
  const depth = i32[HELD]++ // before the entry: an interrupt that comes in between uses the next one
  if (depth >= MAX_HELD) panic('too many locks held')
  i32[HELD_STACK + depth] = lock
}

export function held_pop(lock: number): void {
  const depth = i32[HELD] - 1
  if (i32[HELD_STACK + depth] !== lock) held_remove(lock, depth)
  i32[HELD] = depth
}

function held_remove(addr: number, top: number): void {
  let at = top
  while (at >= 0 && i32[HELD_STACK + at] !== addr) at--
  if (at < 0) panic('unlock of a lock that is not held')
  for (; at < top; at++) i32[HELD_STACK + at] = i32[HELD_STACK + at + 1]
}

/** holds - does this CPU hold it? By its own list, so that nobody else's memory is looked at. `lock` as in held_push. */
export function holds(lock: number): boolean {
  for (let k = i32[HELD] - 1; k >= 0; k--) if (i32[HELD_STACK + k] === lock) return true
  return false
}

/** recursion - a CPU that waits for what it holds itself waits for ever. */
export function recursion(kind: string, lock: number): never {
  panic(`${kind} recursion: CPU ${cpu_id} waits for ${describe_lock(lock)} held by CPU ${cpu_id} itself`)
}

/** spin_lock - @context any, but see _irqsave and _bh for locks shared with interrupts. @locks takes lock */
export function spin_lock(lock: spinlock_t): void {
  if (VIRTUAL) {
    spin_lock_timed(lock)
    return
  }
  i32[PREEMPT]++
  if (LOCKDEP) lockdep_acquire(lock.addr, TAKEN_WRITE, false)
  if (holds(lock.addr)) recursion('spinlock', lock.addr)
  acquire(lock)
}

/** For a second lock of one class, which the caller takes in an order that nobody else turns round. */
export const SINGLE_DEPTH_NESTING = 1

/** spin_lock_nested - as spin_lock, for lockdep a class of its own. */
export function spin_lock_nested(lock: spinlock_t, subclass: number): void {
  if (VIRTUAL) {
    spin_lock_timed(lock, subclass)
    return
  }
  i32[PREEMPT]++
  if (LOCKDEP) lockdep_acquire(lock.addr, TAKEN_WRITE, false, false, subclass)
  if (holds(lock.addr)) recursion('spinlock', lock.addr)
  acquire(lock)
}

/** spin_lock() of virtual time. */
function spin_lock_timed(lock: spinlock_t, subclass = 0): void {
  charge_cost(COST_LOCK)
  i32[PREEMPT]++
  if (LOCKDEP) lockdep_acquire(lock.addr, TAKEN_WRITE, false, false, subclass)
  if (holds(lock.addr)) recursion('spinlock', lock.addr)
  const since = my_clock()
  want_line(lock.addr) // so that the look at the lock costs nothing of its own
  const contended = spin_is_locked(lock)
  acquire(lock)
  lockstat_acquired(lock.addr, contended, my_clock() - since)
}

function acquire(lock: spinlock_t): void {
  if (KIND === LOCK_TAS) tas_lock(lock.addr)
  else if (KIND === LOCK_TICKET) ticket_lock(lock.addr)
  else mcs_lock(lock.addr)
  lock.owner = ME
  held_push(lock.addr)
}

/** spin_trylock - true when taken. */
export function spin_trylock(lock: spinlock_t): boolean {
  if (VIRTUAL) want_line(lock.addr) // 2.6.11 exchanges at once; and who is behind in time comes first
  if (!raw_trylock(lock.addr)) return false
  if (LOCKDEP) lockdep_acquire(lock.addr, TAKEN_WRITE, true)
  if (VIRTUAL) lockstat_acquired(lock.addr, false, 0)
  i32[PREEMPT]++
  lock.owner = ME
  held_push(lock.addr)
  return true
}

function raw_trylock(lock: number): boolean {
  if (KIND === LOCK_TAS) return READ_ONCE(lock) === 0 && cmpxchg(lock, 0, 1) === 0
  if (KIND === LOCK_TICKET) {
    const serving = load(lock + 4) & ~1
    return cmpxchg(lock, serving, (serving + 2) | 0) === serving
  }
  if (READ_ONCE(lock) !== 0) return false
  const node = node_get()
  i32[node >> 2] = 0
  i32[(node >> 2) + 1] = 1
  if (cmpxchg(lock, 0, node) !== 0) {
    node_put(node)
    return false
  }
  i32[(lock >> 2) + 1] = node
  return true
}

/** spin_unlock - @locks releases lock */
export function spin_unlock(lock: spinlock_t): void {
  if (VIRTUAL) lockstat_released(lock.addr)
  if (LOCKDEP) lockdep_release(lock.addr)
  held_pop(lock.addr)
  lock.owner = 0
  if (KIND === LOCK_TAS) tas_unlock(lock.addr)
  else if (KIND === LOCK_TICKET) ticket_unlock(lock.addr)
  else mcs_unlock(lock.addr)
  i32[PREEMPT]--
}

/** spin_is_locked - for assertions and statistics only. */
export function spin_is_locked(lock: spinlock_t): boolean {
  const { load: look } = quiet_ops
  return KIND === LOCK_TICKET ? look(lock.addr) !== (look(lock.addr + 4) & ~1) : look(lock.addr) !== 0
}

/** lockdep_assert_held - first statement of a function whose caller must hold the lock. */
export function lockdep_assert_held(lock: spinlock_t): void {
  BUG_ON(lock.owner !== ME, 'lock not held')
}

/** spin_lock_irqsave - for locks that interrupt handlers take. Returns the flags. */
export function spin_lock_irqsave(lock: spinlock_t): number {
  const flags = local_irq_save()
  spin_lock(lock)
  return flags
}
export function spin_unlock_irqrestore(lock: spinlock_t, flags: number): void {
  spin_unlock(lock)
  local_irq_restore(flags)
}
