/**
 * seqlock.ts - a counter that is odd while a writer writes, and a spinlock between writers. Readers never block a
 * writer: they read, and read again when the counter moved. Fields under it are read with atomic loads only if a torn
 * pair would matter; the retry throws every inconsistent copy away. That the reader's plain loads come before the load of
 * read_seqretry is the order of x86-64 (and of the i386 kernel); a host with weaker ordering would need a barrier there.
 */
import { embed, type Layout, layout, Struct, word } from '../abi/layout.js'
import { fetch_add, load } from '../arch/atomic.js'
import { cpu_relax } from '../arch/cpu.js'
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

/** write_seqlock - @locks takes sl.lock */
export function write_seqlock(sl: seqlock_t): void {
  spin_lock(sl.lock)
  fetch_add(sl.addr, 1)
}
export function write_sequnlock(sl: seqlock_t): void {
  fetch_add(sl.addr, 1)
  spin_unlock(sl.lock)
}
export function write_seqlock_irqsave(sl: seqlock_t): number {
  const flags = spin_lock_irqsave(sl.lock)
  fetch_add(sl.addr, 1)
  return flags
}
export function write_sequnlock_irqrestore(sl: seqlock_t, flags: number): void {
  fetch_add(sl.addr, 1)
  spin_unlock_irqrestore(sl.lock, flags)
}

/** read_seqbegin - waits out a writer; returns the ticket for read_seqretry. Never inside the writer's own section. */
export function read_seqbegin(sl: seqlock_t): number {
  let seq = load(sl.addr)
  while ((seq & 1) !== 0) {
    cpu_relax()
    seq = load(sl.addr)
  }
  return seq
}

/** read_seqretry - true when a writer came in between. */
export function read_seqretry(sl: seqlock_t, seq: number): boolean {
  return load(sl.addr) !== seq
}
