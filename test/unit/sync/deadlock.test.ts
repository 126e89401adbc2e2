/** Circles of waiting CPUs, played by their words in RAM. */
import { beforeEach, expect, test } from 'vitest'
import { CPU_HELD, CPU_HELD_STACK, cpu_area, HELD_READ, HELD_WRITE } from '../../../src/arch/cpu.js'
import { config_addr } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import {
  ACTOR_BLOCKED,
  ACTOR_DEPTH,
  ACTOR_LOCKS,
  ACTOR_READY,
  ACTOR_STATE,
  ACTOR_WHY,
  actor_record,
  MAX_LOCKS,
  WHY_LOCK,
} from '../../../src/arch/turnstile.js'
import { circle, holders, lock_wanted, locks_stood_at } from '../../../src/sync/deadlock.js'

const { i32 } = RAM
const [A, B, C, RW] = [0x20000, 0x20010, 0x20020, 0x20030]
i32[config_addr('ncpus') >> 2] = 4

function holds(cpu: number, ...locks: number[]): void {
  i32[(cpu_area(cpu) + CPU_HELD) >> 2] = locks.length
  locks.forEach((lock, k) => {
    i32[(cpu_area(cpu) + CPU_HELD_STACK + k * 4) >> 2] = lock
  })
}
/** `locks`: outermost first. */
function stands(cpu: number, ...locks: number[]): void {
  const at = actor_record(cpu)
  i32[(at + ACTOR_STATE) >> 2] = locks.length === 0 ? ACTOR_READY : ACTOR_BLOCKED
  i32[(at + ACTOR_WHY) >> 2] = WHY_LOCK
  i32[(at + ACTOR_DEPTH) >> 2] = locks.length
  for (let k = 0; k < Math.min(MAX_LOCKS, locks.length); k++) i32[(at + ACTOR_LOCKS + k * 4) >> 2] = locks[k]!
}

beforeEach(() => {
  for (let cpu = 0; cpu < 4; cpu++) {
    holds(cpu)
    stands(cpu)
  }
})

test('a chain is no circle until it closes', () => {
  holds(0, A)
  holds(1, B)
  holds(2, C)
  stands(0, B)
  stands(1, C)
  expect(circle(0)).toBe(null)
  stands(2, A)
  expect(circle(2)).toEqual([2, 0, 1])
  expect(circle(0)).toEqual([0, 1, 2])
  holds(3)
  stands(3, A)
  expect(circle(3)).toBe(null) // it waits for a circle, and is none of it
})

test('a CPU that was woken stands at nothing any more, whatever its record says', () => {
  holds(0, A)
  holds(1, B)
  stands(0, B)
  stands(1, A)
  i32[(actor_record(1) + ACTOR_STATE) >> 2] = ACTOR_READY
  expect([lock_wanted(0), lock_wanted(1)]).toEqual([B, 0])
  expect(circle(0)).toBe(null)
})

test('an interrupt that came to a waiter waits for another lock: that one counts', () => {
  holds(0, A)
  holds(1, B)
  stands(0, C, B)
  stands(1, A)
  expect(locks_stood_at(0)).toEqual([C, B])
  expect(circle(1)).toEqual([1, 0])
  const many = Array.from({ length: MAX_LOCKS + 2 }, () => C)
  stands(0, ...many)
  expect(locks_stood_at(0)).toHaveLength(MAX_LOCKS)
  expect(lock_wanted(0)).toBe(C)
})

test('readers keep off writers and no readers; a writer keeps off all', () => {
  holds(0, RW | HELD_READ)
  holds(1, RW | HELD_READ)
  expect(holders(RW | HELD_READ)).toEqual([])
  expect(holders(RW | HELD_WRITE)).toEqual([0, 1])
  holds(0, A, RW | HELD_WRITE)
  holds(1)
  expect(holders(RW | HELD_READ)).toEqual([0])
  expect(holders(RW | HELD_WRITE)).toEqual([0])
  expect(holders(A)).toEqual([0])
  expect(holders(B)).toEqual([])
})

test('one of several readers closes the circle', () => {
  holds(1, RW | HELD_READ)
  holds(2, RW | HELD_READ)
  holds(0, A)
  stands(0, RW | HELD_WRITE)
  stands(2, A)
  expect(circle(2)).toEqual([2, 0])
  stands(2, RW | HELD_READ)
  expect(circle(2)).toBe(null)
})
