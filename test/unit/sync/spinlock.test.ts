/**
 * Waiters that sleep, seen from one CPU: others are played by their words in RAM, and what they do meanwhile by an interrupt.
 */
import { beforeEach, describe, expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { load, store } from '../../../src/arch/atomic.js'
import { CPU_PENDING, CPU_WAITS_FOR, cpu_area } from '../../../src/arch/cpu.js'
import { irq_line, irq_vector, LINE_WIRED } from '../../../src/arch/irqchip.js'
import { config_addr, send_vector, UNPARK } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { request_irq, SA_INTERRUPT } from '../../../src/irq/interrupt.js'
import { kmalloc } from '../../../src/mm/kmalloc.js'
import { RWLOCK, read_lock, read_unlock, rwlock_init, write_lock, write_unlock } from '../../../src/sync/rwlock.js'
import {
  mcs_lock,
  mcs_unlock,
  SPINLOCK,
  spin_lock_init,
  tas_lock,
  tas_unlock,
  ticket_lock,
  ticket_unlock,
} from '../../../src/sync/spinlock.js'
import { Solo } from '../../helpers/solo.js'

new Solo({ ports: [] })
const IRQ = 1
const others = { act: (): void => {} }
const others_sym = symbol('test_others', () => {
  others.act()
  return 1
})
store(irq_line(IRQ) + LINE_WIRED, 1)
request_irq(IRQ, others_sym, SA_INTERRUPT, 1)
RAM.i32[config_addr('ncpus') >> 2] = 4
RAM.i32[config_addr('spin_limit') >> 2] = 4

const spin = SPINLOCK.make(kmalloc(64))
const rw = RWLOCK.make(kmalloc(64))

/** CPUs that were woken since they went to sleep. */
const woken = (): number[] => [1, 2, 3].filter(cpu => (load(cpu_area(cpu) + CPU_PENDING) & UNPARK) !== 0)
function sleeps(cpu: number, lock: number): void {
  store(cpu_area(cpu) + CPU_PENDING, 0)
  store(cpu_area(cpu) + CPU_WAITS_FOR, lock)
}
/** What others do at this CPU's next look at its pending word. */
function meanwhile(act: () => void): void {
  others.act = act
  send_vector(0, irq_vector(IRQ))
}

beforeEach(() => {
  spin_lock_init(spin)
  rwlock_init(rw)
  for (let cpu = 1; cpu < 4; cpu++) sleeps(cpu, 0)
})

describe('a test-and-set lock', () => {
  test('that nobody slept for wakes nobody', () => {
    sleeps(1, spin.addr)
    tas_lock(spin.addr)
    tas_unlock(spin.addr)
    expect(woken()).toEqual([])
  })
  test('wakes one sleeper at a time, round from the holder', () => {
    spin.val = 2 // another CPU holds it, and these sleep
    for (const cpu of [1, 2, 3]) sleeps(cpu, spin.addr)
    tas_unlock(spin.addr)
    expect(woken()).toEqual([1])
    spin.val = 2 // so takes it who slept
    tas_unlock(spin.addr)
    expect(woken()).toEqual([1, 2])
  })
  test('is taken by who was about to sleep as one that others may sleep for', () => {
    spin.val = 1
    let looks = 0
    // Freed while this CPU sleeps or spins, with another one asleep that is woken by nobody but it.
    meanwhile(() => {
      if (++looks === 1) {
        sleeps(2, spin.addr)
        spin.val = 0
      }
    })
    RAM.i32[config_addr('spin_limit') >> 2] = 0
    tas_lock(spin.addr)
    RAM.i32[config_addr('spin_limit') >> 2] = 4
    expect(looks).toBe(1)
    tas_unlock(spin.addr)
    expect(woken()).toEqual([2])
  })
})

describe('a ticket lock', () => {
  test('wakes the CPU of the next ticket, and only when somebody sleeps', () => {
    ticket_lock(spin.addr)
    const mine = spin.aux
    spin.val += 4 // two more have drawn tickets
    for (const [cpu, ticket] of [
      [1, mine + 4],
      [2, mine + 2],
    ] as const) {
      RAM.i32[(cpu_area(cpu) + CPU_WAITS_FOR + 4) >> 2] = ticket
      sleeps(cpu, spin.addr)
    }
    spin.more = 2
    spin.aux |= 1
    ticket_unlock(spin.addr)
    expect(woken()).toEqual([2])
    expect(spin.aux & 1).toBe(1) // the other one still sleeps
  })
  test('is marked by its sleepers, and the last of them takes the mark away', () => {
    spin.val = 2 // another CPU holds ticket 0
    meanwhile(() => ticket_unlock(spin.addr))
    RAM.i32[config_addr('spin_limit') >> 2] = 0
    ticket_lock(spin.addr)
    RAM.i32[config_addr('spin_limit') >> 2] = 4
    expect([spin.aux, spin.more]).toEqual([2, 0])
    ticket_unlock(spin.addr)
    expect([spin.val, spin.aux]).toEqual([4, 4])
  })
  test('counts on across the end of the numbers', () => {
    spin.val = 0x7ffffffe
    spin.aux = 0x7ffffffe
    for (let k = 0; k < 4; k++) {
      ticket_lock(spin.addr)
      ticket_unlock(spin.addr)
    }
    expect(spin.val).toBe(spin.aux)
  })
})

test('an MCS lock goes to the next node, and its holder waits for one that is not linked yet', () => {
  mcs_lock(spin.addr)
  const mine = spin.aux
  const next = cpu_area(1) + 512
  RAM.i32[(next >> 2) + 1] = 1
  spin.val = next // CPU 1 has swapped itself in, and links itself later
  sleeps(1, next)
  meanwhile(() => store(mine, next))
  mcs_unlock(spin.addr)
  expect(RAM.i32[(next >> 2) + 1]).toBe(0)
  expect(woken()).toEqual([1])
})

describe('an rwlock', () => {
  test('wakes all that sleep for it', () => {
    write_lock(rw)
    for (const cpu of [1, 3]) sleeps(cpu, rw.addr)
    rw.more = 2
    write_unlock(rw)
    expect(woken()).toEqual([1, 3])
  })
  test('is only read once it is free: its memory may be gone', () => {
    read_lock(rw)
    for (const cpu of [1, 3]) sleeps(cpu, rw.addr)
    rw.more = 2
    read_unlock(rw)
    expect(rw.more).toBe(2)
    rw.more = 0
  })
})
