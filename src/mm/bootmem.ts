/**
 * bootmem.ts - the boot carve-up of RAM above the statics.
 *
 * Every CPU runs the same allocations in the same order with the same sizes, so all compute the same addresses without a
 * word of communication; only CPU 0 writes what lies there. After mem_init() nothing more is carved.
 */
import { VIRTUAL } from '../arch/cost.js'
import { panic } from '../arch/cpu.js'
import { LINES } from '../arch/lines.js'
import { config } from '../arch/machine.js'
import { HEAP_BASE, RAM } from '../arch/ram.js'
import { TRACE_BYTES } from '../arch/trace.js'
import { NR_CPUS } from '../lib/limits.js'

/** The carver of one boot on one CPU. */
export class Bootmem {
  private top = HEAP_BASE
  /** The trace rings lie at the end of RAM when the machine traces, and below them the table of lines in virtual time. */
  private readonly end = VIRTUAL ? LINES : RAM.size - (config('trace') !== 0 ? NR_CPUS * TRACE_BYTES : 0)

  /** alloc_bootmem - `bytes` of zeroed RAM, aligned to a power of two of at least 128. */
  alloc(bytes: number, align = 128): number {
    const at = (this.top + align - 1) & -align
    this.top = at + bytes
    if (this.top > this.end) panic(`RAM too small: ${this.top - this.end} bytes short`)
    return at
  }

  /** Bytes carved so far. */
  get used(): number {
    return this.top - HEAP_BASE
  }
}
