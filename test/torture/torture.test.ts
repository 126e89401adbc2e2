import { describe, expect, test } from 'vitest'
import { HALTING } from '../../src/arch/power.js'
import { Machine, sleep } from '../../src/lab/machine.js'
import { runTorture } from '../../src/lab/torture.js'
import { BUSTED } from '../../src/lab/tortureTargets.js'
import { RCU_FLAVOURS, TORTURE_LOCKS } from '../../src/lib/torture.js'
import { bare, torture } from './harness.js'

const CPUS = [1, 2, 4, 8]

describe.each(['tas', 'ticket', 'mcs'] as const)('%s locks', lock => {
  test.each(CPUS)('nothing is lost under any lock on %i CPUs', async cpus => {
    const { failures, locks } = await runTorture({ target: 'locks', kind: lock, cpus, seed: 1, rounds: 2000 })
    expect(failures).toEqual([])
    expect(locks.map(l => l.lock)).toEqual(TORTURE_LOCKS)
    const writes = new Map(locks.map(l => [l.lock, l.cpus.reduce((sum, c) => sum + c.writes, 0)]))
    expect(writes.get('spin')).toBe(2000 * cpus)
    expect(writes.get('spin-bh')).toBeGreaterThanOrEqual(2000 * cpus) // softirqs come on top
    expect(writes.get('rwlock')).toBe(250 * cpus)
    expect(writes.get('rwlock-irq')).toBe(250 * cpus)
    expect(writes.get('seqlock')).toBe(250 * cpus)
    expect(writes.get('semaphore')).toBe(125 * cpus)
  })
  test.each([2, 4])('who waits for one answers calls meanwhile, on %i CPUs', cpus =>
    torture({ cpus, lock, scenario: 'calls', variable: 'torture_calls', done: cpus }, (m: Machine) => {
      expect(m.ram.word('torture_calls', 'called')).toBe(100 * cpus * cpus)
    }),
  )
})

describe('RCU', () => {
  test.each(CPUS.flatMap(cpus => RCU_FLAVOURS.map(kind => [kind, cpus] as const)))(
    '%s: no reader sees a freed element on %i CPUs',
    async (kind, cpus) => {
      // Each round of rcu_sync waits for a grace period, which takes a while where several CPUs share few cores.
      const rounds = kind === 'rcu_sync' && cpus > 1 ? 100 : 400
      const run = await runTorture({ target: 'rcu', kind, cpus, seed: 1, rounds, poison: cpus === 2 })
      expect(run.failures).toEqual([])
      const { ver, reads, rtf, pipe, rta, rtaf } = run.rcu!
      expect(ver + rtaf).toBe(rounds)
      expect(rta).toBe(ver + 1)
      expect(reads).toBeGreaterThan(0)
      expect(pipe[0]! + pipe[1]!).toBe(reads)
      expect(rtf).toBeGreaterThan(0)
    },
  )
})

describe('timers', () => {
  test.each(CPUS)('none is lost, early, or comes twice on %i CPUs', async cpus => {
    const run = await runTorture({ target: 'timer', kind: 'sound', cpus, seed: 1, rounds: 400, poison: cpus === 2 })
    expect(run.failures).toEqual([])
    const sum = (counts: readonly number[]): number => counts.reduce((a, b) => a + b, 0)
    const { arms, moves, deletions, fired, late, unknown } = run.timer!
    expect(sum(fired)).toBeGreaterThan(0)
    expect(sum(arms)).toBe(sum(moves) + sum(deletions) + sum(fired))
    expect(sum(late) + unknown).toBe(sum(fired))
  })
})

describe('sockets', () => {
  test.each([1, 2, 4])('UDP over loopback: every byte is right, and every packet accounted for, on %i CPUs', cpus =>
    torture(
      {
        cpus,
        scenario: 'udp',
        variable: 'torture_udp',
        done: 3 + 2 * cpus,
        poison: cpus === 2,
        config: { loopback: true, userProcs: 4 + cpus },
      },
      ({ ram }) => {
        const word = (field: string): number => ram.word('torture_udp', field)
        expect(word('bad')).toBe(0)
        expect(word('echoed')).toBe(200)
        expect(word('opened')).toBe(100 * cpus)
        expect(word('sent')).toBe(200 * cpus)
        expect(word('received')).toBeGreaterThan(0)
        expect(word('received')).toBeLessThanOrEqual(word('sent'))
        const sum = (field: string): number =>
          Array.from({ length: cpus }, (_, cpu) => ram.word('packet_fate', field, cpu)).reduce((a, b) => a + b, 0)
        expect(sum('local_made')).toBe(sum('local_sent') + sum('local_dropped'))
        expect(sum('received')).toBe(sum('delivered') + sum('dropped'))
      },
    ),
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
  test.each(CPUS)('no packet and no byte of one is lost on %i CPUs', async cpus => {
    const run = await runTorture({ target: 'skb', kind: 'sound', cpus, seed: 1, rounds: 5000, poison: cpus === 2 })
    expect(run.failures).toEqual([])
    const made = run.skb!.made.reduce((a, b) => a + b, 0)
    expect(made + run.skb!.none).toBe(5000 * cpus)
    expect(made).toBeGreaterThan(2500 * cpus)
  })
})

describe('a busted twin is caught', () => {
  test.each(TORTURE_LOCKS)('%s', async lock => {
    const { failures, locks } = await runTorture({ target: lock, kind: BUSTED, cpus: 2, seed: 1, rounds: 40_000 })
    expect(failures.length).toBeGreaterThan(0)
    expect(locks[0]!.fail + locks[0]!.lost).toBeGreaterThan(0)
  })
  test('rcu', async () => {
    const { failures, rcu } = await runTorture({ target: 'rcu', kind: BUSTED, cpus: 2, seed: 1, rounds: 4000 })
    expect(failures.map(f => f.what)).toContain('readers that saw an element older than a grace period')
    expect(rcu!.pipe.slice(2).some(n => n > 0)).toBe(true)
  })
  test.each(['skb', 'timer'] as const)('%s', async target => {
    const { failures } = await runTorture({ target, kind: BUSTED, cpus: 2, seed: 1, rounds: 4000, poison: true })
    expect(failures.length).toBeGreaterThan(0)
  })
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
