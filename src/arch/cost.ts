/**
 * cost.ts - what the machine's functions cost in virtual time: a table of cycles by number, filled from a profile.
 *
 * A kernel file registers its functions of weight once, at module load, and says `tick(ITS_COST)` in each call. Every
 * thread loads the same modules in the same order, so a number means the same function on all of them.
 */
import { boot } from './boot.js'
import { COSTS, RAM } from './ram.js'

const f64 = RAM.f64

/** Does time stand still but for what is charged? Constant of the thread. */
export const VIRTUAL = boot.virtual === true

export const MAX_COSTS = 128

const names: string[] = []

/** cost - the number of a function (or of a machine's own act) whose cycles a profile names. @context module load */
export function cost(name: string): number {
  const known = names.indexOf(name)
  if (known >= 0) return known
  if (names.length >= MAX_COSTS) throw new Error(`more than ${MAX_COSTS} costs at ${name}`)
  return names.push(name) - 1
}

/** cost_names - in the order of their numbers. */
export function cost_names(): readonly string[] {
  return names
}

/** cost_cycles - what the profile says. */
export function cost_cycles(id: number): number {
  return f64[(COSTS >> 3) + id]
}

// what the machine itself charges for
/** Entry to and exit from an interrupt, with the damage to the caches. */
export const COST_IRQ = cost('irq_entry_exit')
/** A cache line that comes from another CPU. */
export const COST_LINE = cost('cache_line_transfer')
/** From the sender of a vector to the first instruction of a CPU that slept. */
export const COST_WAKE = cost('idle_wakeup')
/** One turn of a loop that waits for another CPU. */
export const COST_RELAX = cost('cpu_relax')
/** Time that a CPU stood at a lock; charged as it passes, so it costs what it costs: 0 in a profile. */
export const COST_SPIN = cost('spin_wait')
/** Programmed I/O and other time given in ns, not in cycles; 0 in a profile. */
export const COST_BURN = cost('burn')
