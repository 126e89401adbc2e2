/** lock_ops.ts - the locks that are tortured, how each is taken in processes and in interrupts, and what it cost. */
import { atomic, embed, type Layout, layout, own, Struct, word } from '../abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../abi/section.js'
import { local_irq_restore, local_irq_save, now_ns } from '../arch/cpu.js'
import { RAM } from '../arch/ram.js'
import { TIMER, type timer_list } from '../irq/timer.js'
import { TORTURE_LOCKS } from '../lib/torture.js'
import { SEMAPHORE, type semaphore } from '../sched/semaphore.js'
import { spin_lock_bh, spin_trylock_bh, spin_unlock_bh } from '../sync/bh.js'
import {
  RW_LOCK_BIAS,
  RWLOCK,
  read_lock,
  read_lock_bh,
  read_lock_irqsave,
  read_unlock,
  read_unlock_bh,
  read_unlock_irqrestore,
  type rwlock_t,
  write_lock_bh,
  write_lock_irqsave,
  write_unlock_bh,
  write_unlock_irqrestore,
} from '../sync/rwlock.js'
import { SEQLOCK, type seqlock_t, write_seqlock_irqsave, write_sequnlock_irqrestore } from '../sync/seqlock.js'
import {
  SPINLOCK,
  spin_is_locked,
  spin_lock,
  spin_lock_irqsave,
  spin_trylock,
  spin_unlock,
  spin_unlock_irqrestore,
  type spinlock_t,
} from '../sync/spinlock.js'

const f64 = RAM.f64

export class tortured extends Struct {
  declare spin: spinlock_t
  declare rw: rwlock_t
  declare seq: seqlock_t
  declare sem: semaphore
  declare first: number
  declare second: number
  declare holders_write: number
  declare holders_read: number
  declare ready: number
}
const TORTURED: Layout<tortured> = layout('tortured', tortured, {
  spin: embed(SPINLOCK),
  rw: embed(RWLOCK),
  seq: embed(SEQLOCK),
  sem: embed(SEMAPHORE),
  first: word, // by the lock: writers count here
  second: word, // and here, later
  holders_write: atomic(word), // who is inside
  holders_read: atomic(word),
  ready: atomic(word), // of the first lock: all of them are initialised
})
/** Offsets of the words that are counted with atomic operations. */
export const HOLDERS = {
  write: TORTURED.offset('holders_write'),
  read: TORTURED.offset('holders_read'),
  ready: TORTURED.offset('ready'),
}

export class stats extends Struct {
  declare writes: number
  declare reads: number
  declare retries: number
  declare contentions: number
  declare fail: number
  declare most: number
  declare times: number
  declare timer: timer_list
}
const STATS: Layout<stats> = layout('torture_lock_stats', stats, {
  writes: own(word),
  reads: own(word),
  retries: own(word), // of a seqlock's readers
  contentions: own(word), // it was held when it was wanted
  fail: own(word), // somebody was inside who must not be, or the pair was torn
  most: own(word), // most that were inside at once
  times: own({ kind: 'bytes', size: 32, align: 8 }), // ns, f64: the four below
  timer: embed(TIMER),
})
export const WAIT_MAX = 0
export const WAIT_TOTAL = 1
export const HOLD_MAX = 2
export const HOLD_TOTAL = 3

export const locks = TORTURE_LOCKS.map(name => DEFINE_STATIC<tortured>(`torture_lock_${name}`, TORTURED))
export const lock_stats = TORTURE_LOCKS.map(name => DEFINE_PER_CPU<stats>(`torture_lock_stats_${name}`, STATS))

/** How a lock is taken; `_irq` is for who has come in as an interrupt already. What is taken returns flags. */
export interface lock_torture_ops {
  write_lock(l: tortured, st: stats, try_first: boolean): number
  write_unlock(l: tortured, flags: number): void
  write_lock_irq(l: tortured, st: stats): number
  write_unlock_irq(l: tortured): void
  read_lock(l: tortured, st: stats): number
  read_unlock(l: tortured, flags: number): void
  read_lock_irq(l: tortured, st: stats): number
  read_unlock_irq(l: tortured): void
}

/** lock_acquired - the lock is ours: what it cost to get it. */
export function lock_acquired(st: stats, contended: boolean, since: number): void {
  if (contended) st.contentions++
  const at = st.times >> 3
  const ns = now_ns() - since
  f64[at + WAIT_TOTAL] += ns
  if (ns > f64[at + WAIT_MAX]) f64[at + WAIT_MAX] = ns
}

function never(): never {
  throw new Error('this lock is not taken so')
}
const NEVER: lock_torture_ops = {
  write_lock: never,
  write_unlock: never,
  write_lock_irq: never,
  write_unlock_irq: never,
  read_lock: never,
  read_unlock: never,
  read_lock_irq: never,
  read_unlock_irq: never,
}

/** Take it and say what it cost: `locked` looks, `lock` takes. */
function taken(l: tortured, st: stats, locked: (l: tortured) => boolean, lock: (l: tortured) => number): number {
  const since = now_ns()
  const contended = locked(l)
  const flags = lock(l)
  lock_acquired(st, contended, since)
  return flags
}

/** The same, for who tried it before. */
function tried(l: tortured, st: stats, got: (l: tortured) => number, lock: (l: tortured) => number): number {
  const since = now_ns()
  let flags = got(l)
  const contended = flags < 0
  if (contended) flags = lock(l)
  lock_acquired(st, contended, since)
  return flags
}

const spin_locked = (l: tortured): boolean => spin_is_locked(l.spin)
const seq_locked = (l: tortured): boolean => spin_is_locked(l.seq.lock)
const writer_there = (l: tortured): boolean => l.rw.val <= 0
const anybody_there = (l: tortured): boolean => l.rw.val !== RW_LOCK_BIAS

/** spin_lock() gives no flags. */
const without_flags =
  (lock: (l: tortured) => void): ((l: tortured) => number) =>
  l => {
    lock(l)
    return 0
  }

const spin_plain = without_flags(l => spin_lock(l.spin))
const spin_irq = (l: tortured): number => spin_lock_irqsave(l.spin)
const spin_bh = without_flags(l => spin_lock_bh(l.spin))
const write_bh = without_flags(l => write_lock_bh(l.rw))
const write_irq = (l: tortured): number => write_lock_irqsave(l.rw)
const read_plain = without_flags(l => read_lock(l.rw))
const read_bh = without_flags(l => read_lock_bh(l.rw))
const read_irq = (l: tortured): number => read_lock_irqsave(l.rw)
const write_seq = (l: tortured): number => write_seqlock_irqsave(l.seq)
const try_plain = (l: tortured): number => (spin_trylock(l.spin) ? 0 : -1)
const try_bh = (l: tortured): number => (spin_trylock_bh(l.spin) ? 0 : -1)
/** Flags are the interrupt flag as it was: 0 or 1. */
const try_irq = (l: tortured): number => {
  const flags = local_irq_save()
  if (spin_trylock(l.spin)) return flags
  local_irq_restore(flags)
  return -1
}

const spin_by = (
  lock: (l: tortured) => number,
  attempt: (l: tortured) => number,
  unlock: (l: tortured, flags: number) => void,
): lock_torture_ops => ({
  ...NEVER,
  write_lock: (l, st, try_first) => (try_first ? tried(l, st, attempt, lock) : taken(l, st, spin_locked, lock)),
  write_unlock: unlock,
  write_lock_irq: (l, st) => taken(l, st, spin_locked, spin_plain),
  write_unlock_irq: l => spin_unlock(l.spin),
})

/** As TORTURE_LOCKS; semaphores sleep, and are taken where that is possible. */
export const OPS: readonly lock_torture_ops[] = [
  spin_by(spin_plain, try_plain, l => spin_unlock(l.spin)),
  spin_by(spin_irq, try_irq, (l, flags) => spin_unlock_irqrestore(l.spin, flags)),
  spin_by(spin_bh, try_bh, l => spin_unlock_bh(l.spin)),
  {
    ...NEVER,
    write_lock: (l, st) => taken(l, st, anybody_there, write_bh),
    write_unlock: l => write_unlock_bh(l.rw),
    read_lock: (l, st) => taken(l, st, writer_there, read_bh),
    read_unlock: l => read_unlock_bh(l.rw),
    read_lock_irq: (l, st) => taken(l, st, writer_there, read_plain),
    read_unlock_irq: l => read_unlock(l.rw),
  },
  {
    ...NEVER,
    write_lock: (l, st) => taken(l, st, anybody_there, write_irq),
    write_unlock: (l, flags) => write_unlock_irqrestore(l.rw, flags),
    read_lock: (l, st) => taken(l, st, writer_there, read_irq),
    read_unlock: (l, flags) => read_unlock_irqrestore(l.rw, flags),
    read_lock_irq: (l, st) => taken(l, st, writer_there, read_plain),
    read_unlock_irq: l => read_unlock(l.rw),
  },
  {
    ...NEVER,
    write_lock: (l, st) => taken(l, st, seq_locked, write_seq),
    write_unlock: (l, flags) => write_sequnlock_irqrestore(l.seq, flags),
  },
  NEVER,
]

const nothing = (): number => 0
/** lock_busted - takes nothing: whoever comes is let in. */
export const BUSTED: lock_torture_ops = {
  write_lock: nothing,
  write_unlock: nothing,
  write_lock_irq: nothing,
  write_unlock_irq: nothing,
  read_lock: nothing,
  read_unlock: nothing,
  read_lock_irq: nothing,
  read_unlock_irq: nothing,
}
