import { describe, expect, test } from 'vitest'
import { HALTING } from '../../src/arch/power.js'
import { Machine, sleep } from '../../src/lab/machine.js'
import { bare, torture } from './harness.js'

const CPUS = [1, 2, 4, 8]

describe.each(['tas', 'ticket', 'mcs'] as const)('%s locks', lock => {
  test.each(CPUS)('nothing is lost under any lock on %i CPUs', cpus =>
    torture({ cpus, lock, scenario: 'locks', variable: 'torture_locks', done: cpus }, (m: Machine) => {
      const sum = (field: string): number => m.ram.sum('torture_own', field, cpus)
      expect(m.ram.word('torture_locks', 'counted')).toBe(4000 * cpus)
      expect(m.ram.word('torture_locks', 'bh_counted')).toBe(sum('bh_counted'))
      expect(m.ram.word('torture_locks', 'rw_a')).toBe(sum('rw_written'))
      expect(m.ram.word('torture_locks', 'rw_b')).toBe(sum('rw_written'))
      expect(m.ram.word('torture_locks', 'seq_a')).toBe(sum('seq_written'))
      expect(m.ram.word('torture_locks', 'sem_counted')).toBe(sum('sem_counted'))
      expect(sum('sem_counted')).toBe(250 * cpus)
      expect(sum('torn')).toBe(0)
    }),
  )
  test.each([2, 4])('who waits for one answers calls meanwhile, on %i CPUs', cpus =>
    torture({ cpus, lock, scenario: 'calls', variable: 'torture_calls', done: cpus }, (m: Machine) => {
      expect(m.ram.word('torture_calls', 'called')).toBe(100 * cpus * cpus)
    }),
  )
})

describe('RCU', () => {
  test.each(CPUS)('no reader sees a freed element on %i CPUs', cpus =>
    torture({ cpus, poison: cpus === 2, scenario: 'rcu', variable: 'torture_rcu', done: 1 }, (m: Machine) => {
      expect(m.ram.sum('torture_rcu_own', 'bad', cpus)).toBe(0)
      expect(m.ram.sum('torture_rcu_own', 'reads', cpus)).toBeGreaterThan(0)
      expect(m.ram.word('torture_rcu', 'updates')).toBe(800)
      expect(m.ram.word('torture_rcu', 'freed')).toBeGreaterThan(0)
    }),
  )
})

describe('timers, wait queues, work queues', () => {
  test.each(CPUS)('no wake-up and no timer is lost on %i CPUs', cpus =>
    torture(
      { cpus, poison: cpus === 2, scenario: 'sleepers', variable: 'torture_sleepers', done: 2 * cpus },
      (m: Machine) => {
        expect(m.ram.sum('torture_station', 'passed', cpus)).toBe(300 * cpus)
        expect(m.ram.sum('torture_station', 'early', cpus)).toBe(0)
        expect(m.ram.sum('torture_station', 'fired', cpus)).toBeGreaterThan(0)
        expect(m.ram.sum('torture_station', 'worked', cpus)).toBeGreaterThan(0)
      },
    ),
  )
})

test('no wake-up is lost between a state and a look', () =>
  torture({ cpus: 2, scenario: 'states', variable: 'torture_states', done: 2 }, (m: Machine) => {
    expect(m.ram.word('torture_states', 'lost')).toBe(0)
  }))

test('who completes does not touch what the waiter has given back', () =>
  torture({ cpus: 2, scenario: 'ends', variable: 'torture_ends', done: 1 }, (m: Machine) => {
    expect(m.ram.word('torture_ends', 'touched')).toBe(0)
  }))

test('no taker of a semaphore sleeps on while there is a count for it', () =>
  torture({ cpus: 3, scenario: 'takers', variable: 'torture_takers', done: 3 }, (m: Machine) => {
    expect(m.ram.word('torture_takers', 'stranded')).toBe(0)
  }))

test('a crowd of sleepers on 32 CPUs: no cache is kept by CPUs that do not need it', () =>
  torture({ cpus: 32, scenario: 'crowd', variable: 'torture_crowd', done: 32 }, () => {}))

test.each([1, 4])('interval timers of processes on %i CPUs', cpus =>
  torture({ cpus, scenario: 'alarms', variable: 'torture_alarms', done: 2 * cpus }, (m: Machine) => {
    expect(m.ram.word('torture_alarms', 'wrong')).toBe(0)
  }),
)

describe('the sk_buff pool', () => {
  test.each(CPUS)('no packet and no byte of one is lost on %i CPUs', cpus =>
    torture({ cpus, poison: cpus === 2, scenario: 'skb', variable: 'torture_skb', done: cpus + 1 }, (m: Machine) => {
      expect(m.ram.sum('torture_skb_own', 'bad', cpus)).toBe(0)
      const made = m.ram.sum('torture_skb_own', 'made', cpus)
      expect(made + m.ram.sum('torture_skb_own', 'none', cpus)).toBe(5000 * cpus)
      expect(made).toBeGreaterThan(2500 * cpus)
    }),
  )
})

test.each(['tas', 'ticket', 'mcs'] as const)(
  'a halt lets calls end, and CPUs that stand still, stand: %s locks',
  async lock => {
    const machine = new Machine(bare(3, lock, 'halts'))
    const word = (field: string): number => machine.ram.word('torture_halts', field)
    const until = async (condition: () => boolean): Promise<void> => {
      while (!condition()) {
        machine.check()
        await sleep(2)
      }
    }
    try {
      await machine.powerOn()
      for (let round = 0; round < 4; round++) {
        const before = word('calls')
        await until(() => word('calls') > before)
        await machine.halt()
        machine.check()
        expect(machine.ram.i32[machine.ram.map.boot.power >> 2]).toBe(HALTING) // by itself: nobody pulled the plug
        expect(machine.ram.i32[machine.ram.map.boot.online >> 2]).toBe(0)
        expect(word('ran')).toBe(word('ran_then'))
        expect(word('called')).toBe(word('calls'))
        await machine.resume()
      }
      await until(() => machine.ram.i32[machine.ram.map.boot.online >> 2] === 0b011)
    } finally {
      await machine.destroy()
    }
  },
)

describe('CPUs that stop and start', () => {
  test('while others call all CPUs and poll', () =>
    torture({ cpus: 3, scenario: 'changes', variable: 'torture_changes', done: 3 }, (m: Machine) => {
      expect(m.ram.word('torture_changes', 'wrong')).toBe(0)
      expect(m.ram.word('torture_changes', 'calls')).toBeGreaterThan(0)
    }))
  test('are waited for by who flushes a work queue', () =>
    torture({ cpus: 3, scenario: 'flushes', variable: 'torture_flushes', done: 2 }, (m: Machine) => {
      expect(m.ram.word('torture_flushes', 'early')).toBe(0)
    }))
  test.each([2, 4, 8])('lose no timer, no work, no callback, no call on %i CPUs', cpus =>
    torture(
      { cpus, poison: cpus === 2, scenario: 'hotplug', variable: 'torture_hotplug', done: cpus + 1 },
      (m: Machine) => {
        expect(m.ram.word('torture_hotplug', 'wrong')).toBe(0)
        expect(m.ram.word('torture_hotplug', 'changes')).toBe(25)
        expect(m.ram.word('torture_hotplug', 'calls')).toBe(25 * (cpus - 1))
        for (const what of ['fired', 'worked', 'reclaimed']) expect(m.ram.word('torture_hotplug', what)).toBe(40 * cpus)
      },
    ),
  )
})
