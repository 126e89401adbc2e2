/**
 * deadlock.ts - in virtual time: at which lock a CPU stands, who holds it, and whether the waiting has come full circle.
 *
 * A lock is an address, as on the stack of held locks: with HELD_READ or HELD_WRITE in its low bits when it is an rwlock. Who
 * releases a lock takes it off that stack first, and who takes one puts it there after; both run then, so a circle that is
 * found is one. It is found when it closes: by the last of its CPUs, when that comes to stand.
 */
import { CPU_HELD, CPU_HELD_STACK, cpu_area, HELD_READ, HELD_WRITE } from '../arch/cpu.js'
import { num_cpus } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import {
  ACTOR_BLOCKED,
  ACTOR_DEPTH,
  ACTOR_LOCKS,
  ACTOR_STATE,
  ACTOR_WHY,
  actor_record,
  MAX_LOCKS,
  WHY_LOCK,
} from '../arch/turnstile.js'

const i32 = RAM.i32

/** locks_stood_at - outermost first; an interrupt that came while a CPU stood at one may have led it to another. */
export function locks_stood_at(cpu: number): number[] {
  const at = actor_record(cpu) >> 2
  const depth = Math.min(MAX_LOCKS, i32[at + (ACTOR_DEPTH >> 2)])
  return Array.from({ length: depth }, (_, k) => i32[at + (ACTOR_LOCKS >> 2) + k])
}

/** lock_wanted - the lock that a CPU stands at now, or 0. */
export function lock_wanted(cpu: number): number {
  const at = actor_record(cpu) >> 2
  if (i32[at + (ACTOR_STATE >> 2)] !== ACTOR_BLOCKED || i32[at + (ACTOR_WHY >> 2)] !== WHY_LOCK) return 0
  const depth = i32[at + (ACTOR_DEPTH >> 2)]
  return depth > 0 ? i32[at + (ACTOR_LOCKS >> 2) + Math.min(depth, MAX_LOCKS) - 1] : 0
}

/** locks_held - by a CPU, in the order in which it took them. */
export function locks_held(cpu: number): number[] {
  const area = cpu_area(cpu)
  return Array.from({ length: i32[(area + CPU_HELD) >> 2] }, (_, k) => i32[(area + CPU_HELD_STACK + k * 4) >> 2])
}

/** Does who holds `held` keep off who wants `wanted`? Readers do not keep off readers. */
function keeps_off(held: number, wanted: number): boolean {
  return (held & ~3) === (wanted & ~3) && ((held & wanted & 3) !== HELD_READ || (wanted & HELD_WRITE) !== 0)
}

function holds_against(cpu: number, wanted: number): boolean {
  const stack = (cpu_area(cpu) + CPU_HELD_STACK) >> 2
  for (let k = i32[(cpu_area(cpu) + CPU_HELD) >> 2] - 1; k >= 0; k--) if (keeps_off(i32[stack + k], wanted)) return true
  return false
}

/** holders - the CPUs that keep others off a lock. */
export function holders(wanted: number): number[] {
  const found: number[] = []
  for (let cpu = 0; cpu < num_cpus(); cpu++) if (holds_against(cpu, wanted)) found.push(cpu)
  return found
}

/** circle - CPUs of which each stands at a lock that the next one holds, the last at one that `cpu` holds; or null. */
export function circle(cpu: number, path: readonly number[] = [cpu]): number[] | null {
  const wanted = lock_wanted(path[path.length - 1])
  if (wanted === 0) return null
  for (const next of holders(wanted)) {
    if (next === cpu) return [...path]
    if (path.includes(next)) continue // a circle that this CPU only waits for: found when it closed
    const found = circle(cpu, [...path, next])
    if (found !== null) return found
  }
  return null
}
