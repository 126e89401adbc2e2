/** tallies.ts - of a machine in virtual time: where its cycles went, and what its locks cost. */
import type { RamReader } from './ramReader.js'

/** Cycles of one function in one context, over all CPUs. */
export interface CycleShare {
  function: string
  context: string
  cycles: number
}

/** A lock in the words of Linux's lock_stat; times in cycles. */
export interface LockStat {
  /** Address; 0: all that found no room in the tables. */
  lock: number
  acquisitions: number
  contentions: number
  wait_cycles: number
  hold_cycles: number
}

/** cycleShares - largest first. */
export function cycleShares(ram: RamReader, cpus: number): CycleShare[] {
  const { costs, contexts, percpu_base, percpu_shift } = ram.map
  const shares: CycleShare[] = []
  contexts.forEach((context, c) => {
    costs.names.forEach((name, k) => {
      let cycles = 0
      for (let cpu = 0; cpu < cpus; cpu++)
        cycles += ram.f64[((percpu_base + (cpu << percpu_shift) + costs.tally) >> 3) + c * costs.max + k]!
      if (cycles > 0) shares.push({ function: name, context, cycles })
    })
  })
  return shares.sort((a, b) => b.cycles - a.cycles)
}

/** cyclesBetween - what was charged between two looks. */
export function cyclesBetween(before: readonly CycleShare[], after: readonly CycleShare[]): CycleShare[] {
  const was = new Map(before.map(s => [`${s.function}/${s.context}`, s.cycles]))
  return after
    .map(s => ({ ...s, cycles: s.cycles - (was.get(`${s.function}/${s.context}`) ?? 0) }))
    .filter(s => s.cycles > 0)
    .sort((a, b) => b.cycles - a.cycles)
}

/** lockStats - by address, summed over the CPUs. */
export function lockStats(ram: RamReader, cpus: number): Map<number, LockStat> {
  const { lockstat, percpu_base, percpu_shift } = ram.map
  const stats = new Map<number, LockStat>()
  for (let cpu = 0; cpu < cpus; cpu++) {
    for (let k = 0; k < lockstat.entries; k++) {
      const at = percpu_base + (cpu << percpu_shift) + lockstat.offset + k * lockstat.size
      const word = (n: number): number => ram.i32[(at >> 2) + n]!
      if (word(1) === 0) continue
      const lock = word(0)
      const sum = stats.get(lock) ?? { lock, acquisitions: 0, contentions: 0, wait_cycles: 0, hold_cycles: 0 }
      sum.acquisitions += word(1)
      sum.contentions += word(2)
      sum.wait_cycles += ram.f64[(at >> 3) + 2]!
      sum.hold_cycles += ram.f64[(at >> 3) + 3]!
      stats.set(lock, sum)
    }
  }
  return stats
}

/** locksBetween - what happened between two looks; the most waited for first. */
export function locksBetween(before: Map<number, LockStat>, after: Map<number, LockStat>): LockStat[] {
  const none = { acquisitions: 0, contentions: 0, wait_cycles: 0, hold_cycles: 0 }
  return [...after.values()]
    .map(s => {
      const was = before.get(s.lock) ?? none
      return {
        lock: s.lock,
        acquisitions: s.acquisitions - was.acquisitions,
        contentions: s.contentions - was.contentions,
        wait_cycles: s.wait_cycles - was.wait_cycles,
        hold_cycles: s.hold_cycles - was.hold_cycles,
      }
    })
    .filter(s => s.acquisitions > 0)
    .sort((a, b) => b.wait_cycles - a.wait_cycles || b.acquisitions - a.acquisitions)
}
