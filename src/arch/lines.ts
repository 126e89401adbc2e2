/**
 * lines.ts - which CPU wrote a cache line last: a byte for each 64 bytes of RAM, in virtual time on several CPUs.
 *
 * 0: nobody, or everybody has a copy. k: CPU k - 1 has the only one. A CPU that wants a line which another one wrote pays
 * for its way (COST_LINE); so does one that writes what others have read since, for their copies must go. Seen are the
 * atomic operations: locks, reference counts, flags, mailboxes. Plain accesses are not, nor what the board does.
 */
import { line_entry } from './atomic.js'
import { boot } from './boot.js'
import { COST_LINE, VIRTUAL } from './cost.js'
import { charge_cost, seen } from './cpu.js'
import { num_cpus } from './machine.js'
import { RAM } from './ram.js'
import { NR_TRACED, TRACE_BYTES } from './trace.js'
import { turn_of_cpu } from './turnstile.js'

const u8 = RAM.u8

/** The table lies below the trace rings. */
export const LINES = RAM.size - NR_TRACED * TRACE_BYTES - (RAM.size >> 6)
const ME = boot.cpu + 1

function read(addr: number): void {
  const line = LINES + (addr >>> 6)
  const last = u8[line]
  if (last === 0 || last === ME || !turn_of_cpu() || num_cpus() === 1) return
  seen()
  u8[line] = 0
  charge_cost(COST_LINE)
}

function write(addr: number): void {
  const line = LINES + (addr >>> 6)
  if (u8[line] === ME || !turn_of_cpu() || num_cpus() === 1) return
  seen()
  u8[line] = ME
  charge_cost(COST_LINE)
}

if (VIRTUAL) {
  line_entry.read = read
  line_entry.write = write
}
