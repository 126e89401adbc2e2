/** contender.ts - one CPU of the contended lock measure: takes and releases one spinlock until told to stop. */
import { cpu_id } from '../../src/arch/cpu.js'
import { HEAP_BASE, RAM } from '../../src/arch/ram.js'
import { SPINLOCK, spin_lock, spin_unlock } from '../../src/sync/spinlock.js'
import { PHASE, STARTED, STOP, TALLY } from './contention.js'

const i32 = RAM.i32
const phaseAt = (HEAP_BASE + PHASE) >> 2
const tallyAt = (HEAP_BASE + TALLY) >> 2
const lock = SPINLOCK.make(HEAP_BASE)

/** Takes the lock until the phase is STOP. Returns acquisitions: all of them and those of each measuring phase. */
export default function contend(): { total: number; byPhase: number[] } {
  const byPhase = [0, 0, 0, 0]
  let total = 0
  Atomics.add(i32, (HEAP_BASE + STARTED) >> 2, 1)
  Atomics.notify(i32, (HEAP_BASE + STARTED) >> 2)
  while (Atomics.load(i32, phaseAt) === 0) Atomics.wait(i32, phaseAt, 0)
  for (;;) {
    const phase = i32[phaseAt]
    if (phase === STOP) break
    spin_lock(lock)
    i32[tallyAt]++
    spin_unlock(lock)
    total++
    byPhase[phase]++
  }
  if (i32[tallyAt] < 0) throw new Error(`CPU ${cpu_id}: the tally overflowed`)
  return { total, byPhase }
}
