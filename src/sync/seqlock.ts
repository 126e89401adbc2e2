/**
 * seqlock.ts - a counter that is odd while a writer writes, and a spinlock between writers. Readers never block a
 * writer: they read, and read again when the counter moved. Fields under it are read with atomic loads only if a torn
 * pair would matter; the retry throws every inconsistent copy away. That the reader's plain loads come before the load of
 * read_seqretry is the order of x86-64 (and of the i386 kernel); a host with weaker ordering would need a barrier there.
 */
import { embed, type Layout, layout, Struct, word } from '../abi/layout.js'
import { describe_addr } from '../abi/section.js'
import { fetch_add, load } from '../arch/atomic.js'
import { PROVE } from '../arch/boot.js'
import { bug } from '../arch/bug.js'
import { cpu_relax } from '../arch/cpu.js'
import { lockdep_holds } from './lockdep.js'
import {
  SPINLOCK,
  spin_lock,
  spin_lock_init,
  spin_lock_irqsave,
  spin_unlock,
  spin_unlock_irqrestore,
  type spinlock_t,
} from './spinlock.js'

export class seqlock_t extends Struct {
  declare sequence: number
  declare lock: spinlock_t
}
export const SEQLOCK: Layout<seqlock_t> = layout('seqlock_t', seqlock_t, { sequence: word, lock: embed(SPINLOCK) })

export function seqlock_init(sl: seqlock_t): void {
  sl.sequence = 0
  spin_lock_init(sl.lock)
}

/**
 * Where locks are watched: the sections that this CPU reads in, the innermost last, and a lock whose count said that what was
 * read is worth nothing, and which was not read again.
 */
const reading: { open: number[]; refused: number } = { open: [], refused: 0 }
interface Speculation {
  speculate(): void
  settle(valid: boolean): void
}
function explorer(): Speculation | undefined {
  return (globalThis as { __softnet?: Speculation }).__softnet
}

function name_of(sl: number): string {
  return describe_addr(sl) ?? `0x${sl.toString(16)}`
}

function begin_watched(sl: seqlock_t): void {
  if (lockdep_holds(sl.lock.addr))
    bug('seqlock', `${name_of(sl.addr)} is read where this CPU writes it: the reader would wait for itself`)
  if (reading.open.includes(sl.addr))
    bug('seqlock', `what was read under ${name_of(sl.addr)} is used without read_seqretry`)
  if (reading.refused === sl.addr) reading.refused = 0
}

function retry_watched(sl: seqlock_t, again: boolean): void {
  if (reading.open.at(-1) !== sl.addr) bug('seqlock', `read_seqretry of ${name_of(sl.addr)} without read_seqbegin`)
  reading.open.pop()
  if (again) reading.refused = sl.addr
  explorer()?.settle(!again)
}

/** seq_unfinished - this CPU comes to an end: what it has read must have been worth something. */
export function seq_unfinished(): void {
  const { open, refused } = reading
  const lock = open.at(-1) ?? refused
  seq_forget()
  if (lock === 0) return
  const why = refused === lock ? 'although read_seqretry said that a writer came in between' : 'without read_seqretry'
  bug('seqlock', `what was read under ${name_of(lock)} is used ${why}`)
}

/** seq_forget - nothing is being read. */
export function seq_forget(): void {
  reading.open.length = 0
  reading.refused = 0
}

/** write_seqlock - @locks takes sl.lock */
export function write_seqlock(sl: seqlock_t): void {
  spin_lock(sl.lock)
  write_begin(sl)
}
export function write_sequnlock(sl: seqlock_t): void {
  write_end(sl)
  spin_unlock(sl.lock)
}
export function write_seqlock_irqsave(sl: seqlock_t): number {
  const flags = spin_lock_irqsave(sl.lock)
  write_begin(sl)
  return flags
}
export function write_sequnlock_irqrestore(sl: seqlock_t, flags: number): void {
  write_end(sl)
  spin_unlock_irqrestore(sl.lock, flags)
}

function write_begin(sl: seqlock_t): void {
  const was = fetch_add(sl.addr, 1)
  if (PROVE && (was & 1) !== 0) bug('seqlock', `${name_of(sl.addr)} is written by two: its count was odd`)
}
function write_end(sl: seqlock_t): void {
  const was = fetch_add(sl.addr, 1)
  if (PROVE && (was & 1) === 0) bug('seqlock', `write_sequnlock of ${name_of(sl.addr)} without write_seqlock`)
}

/** read_seqbegin - waits out a writer; returns the ticket for read_seqretry. Never inside the writer's own section. */
export function read_seqbegin(sl: seqlock_t): number {
  if (PROVE) begin_watched(sl)
  let seq = load(sl.addr)
  while ((seq & 1) !== 0) {
    cpu_relax()
    seq = load(sl.addr)
  }
  if (PROVE) {
    reading.open.push(sl.addr)
    explorer()?.speculate()
  }
  return seq
}

/** read_seqretry - true when a writer came in between. */
export function read_seqretry(sl: seqlock_t, seq: number): boolean {
  const again = load(sl.addr) !== seq
  if (PROVE) retry_watched(sl, again)
  return again
}
