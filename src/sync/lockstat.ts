/**
 * lockstat.ts - in virtual time, what each lock cost each CPU: a table in the CPU's own area, by address of the lock.
 *
 *   +0 lock   +4 acquisitions   +8 contentions   +16 cycles waited (f64)   +24 cycles held (f64)   +32 taken at (f64)
 *
 * The words are those of Linux's lock_stat. The host reads the tables; names come from describe_addr. A CPU that takes
 * more locks than the table has room for counts the rest together, under address 0.
 */
import { CPU_LOCKSTAT, cpu_area, cpu_id } from '../arch/cpu.js'
import { RAM } from '../arch/ram.js'
import { my_clock } from '../arch/turnstile.js'

const i32 = RAM.i32
const f64 = RAM.f64
const TABLE = cpu_area(Math.max(cpu_id, 0)) + CPU_LOCKSTAT

/** Entries of a table; the last one is for all that found no room. */
export const LOCKSTAT_ENTRIES = 201
export const LOCKSTAT_SIZE = 40
const REST = TABLE + (LOCKSTAT_ENTRIES - 1) * LOCKSTAT_SIZE

function entry(lock: number): number {
  let slot = (lock >>> 4) % (LOCKSTAT_ENTRIES - 1)
  for (let tries = 0; tries < 16; tries++) {
    const at = TABLE + slot * LOCKSTAT_SIZE
    const owner = i32[at >> 2]
    if (owner === lock) return at
    if (owner === 0) {
      i32[at >> 2] = lock
      return at
    }
    slot = slot + 1 === LOCKSTAT_ENTRIES - 1 ? 0 : slot + 1
  }
  return REST
}

/** lockstat_acquired - `waited`: cycles from the first look at the lock, when somebody else held it then. */
export function lockstat_acquired(lock: number, contended: boolean, waited: number): void {
  const at = entry(lock)
  i32[(at >> 2) + 1]++
  if (contended) {
    i32[(at >> 2) + 2]++
    f64[(at >> 3) + 2] += waited
  }
  f64[(at >> 3) + 4] = my_clock()
}

/** lockstat_released - @locks lock is held */
export function lockstat_released(lock: number): void {
  const at = entry(lock)
  f64[(at >> 3) + 3] += my_clock() - f64[(at >> 3) + 4]
}
