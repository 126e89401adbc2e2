import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { beforeEach, describe, expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { tick } from '../../../src/arch/cpu.js'
import { send_vector, VEC_TIMER } from '../../../src/arch/machine.js'
import {
  alarm,
  getitimer,
  ITIMER_PROF,
  ITIMER_REAL,
  ITIMER_VIRTUAL,
  itimer_expirations,
  setitimer,
} from '../../../src/irq/itimer.js'
import { jiffies, msleep_interruptible, nanosleep, schedule_timeout_interruptible } from '../../../src/irq/timer.js'
import { EINVAL } from '../../../src/lib/errno.js'
import { slabinfo } from '../../../src/mm/slab.js'
import { current, kernel_thread, schedule } from '../../../src/sched/sched.js'
import { dequeue_signal, SIGALRM, SIGPROF, SIGVTALRM, send_sig, signal_pending } from '../../../src/sched/signal.js'
import type { task_struct } from '../../../src/sched/task.js'
import { local_bh_disable, local_bh_enable } from '../../../src/sync/bh.js'
import { clock } from '../../helpers/clock.js'
import { Script } from '../../helpers/script.js'

const s = new Script({ ports: [] })
const log: unknown[] = []
let names = 0
function program(body: () => Generator<void, void, void>): task_struct {
  const sym = symbol(`test_program_${names++}`, function* (): Generator<void, number, void> {
    yield* body()
    return 0
  })
  return kernel_thread(`p${names}`, sym, 0, { user: true })!
}
/** The program that runs computes for so many ticks. */
function compute(ticks: number): void {
  for (let k = 0; k < ticks; k++) {
    clock.ns += 1e6
    send_vector(0, VEC_TIMER)
    tick(0)
  }
}
function signals(): number[] {
  const got: number[] = []
  for (let sig = dequeue_signal(); sig !== 0; sig = dequeue_signal()) got.push(sig)
  return got
}

beforeEach(() => {
  log.length = 0
})

describe('ITIMER_REAL', () => {
  test('fires at its time, again at each interval, never early, and wakes a sleeper', () => {
    program(function* () {
      const from = jiffies()
      expect(setitimer(ITIMER_REAL, { it_value: 20_000, it_interval: 10_000 })).toBe(0)
      for (let k = 0; k < 3; k++) {
        const left = yield* schedule_timeout_interruptible(1000)
        log.push([jiffies() - from >= 20 + 10 * k, left > 900, signals()])
      }
      setitimer(ITIMER_REAL, { it_value: 0, it_interval: 0 })
      log.push(yield* schedule_timeout_interruptible(50), signals(), itimer_expirations(current(), ITIMER_REAL))
    })
    s.pass(200)
    expect(log).toEqual([...Array(3).fill([true, true, [SIGALRM]]), 0, [], 3])
  })
  test('says what is left', () => {
    program(function* () {
      log.push(getitimer(ITIMER_REAL))
      setitimer(ITIMER_REAL, { it_value: 50_000, it_interval: 7000 })
      yield* msleep_interruptible(20)
      const { it_value, it_interval } = getitimer(ITIMER_REAL)!
      log.push(it_interval, it_value > 20_000 && it_value <= 31_000)
    })
    s.pass(100)
    expect(log).toEqual([{ it_value: 0, it_interval: 0 }, 7000, true])
  })
  test('alarm replaces the last one and says its seconds', () => {
    program(function* () {
      log.push(alarm(30), alarm(2), alarm(0), alarm(0))
      log.push(alarm(1))
      log.push((yield* nanosleep(5e9)) > 3.9e9, signals(), alarm(0))
    })
    s.pass(1100)
    expect(log).toEqual([0, 30, 2, 0, 0, true, [SIGALRM], 0])
  })
})

describe('time of the process', () => {
  test('ITIMER_VIRTUAL counts its own, ITIMER_PROF also what the kernel does for it', () => {
    program(function* () {
      setitimer(ITIMER_VIRTUAL, { it_value: 5000, it_interval: 3000 })
      setitimer(ITIMER_PROF, { it_value: 7000, it_interval: 0 })
      compute(4)
      log.push(signals())
      local_bh_disable()
      compute(3)
      local_bh_enable()
      log.push(signals())
      compute(1)
      log.push(signals())
      yield* msleep_interruptible(20) // no time of the process
      log.push(getitimer(ITIMER_VIRTUAL), getitimer(ITIMER_PROF))
      compute(6)
      log.push(signals(), itimer_expirations(current(), ITIMER_VIRTUAL), itimer_expirations(current(), ITIMER_PROF))
    })
    s.pass(60)
    expect(log).toEqual([
      [],
      [SIGPROF],
      [SIGVTALRM],
      { it_value: 3000, it_interval: 3000 },
      { it_value: 0, it_interval: 0 },
      [SIGVTALRM],
      3,
      1,
    ])
  })
  test('is not charged to another process', () => {
    program(function* () {
      setitimer(ITIMER_PROF, { it_value: 1000, it_interval: 0 })
      yield* schedule()
      log.push(signals())
    })
    program(function* () {
      compute(5)
    })
    s.pass(10)
    expect(log).toEqual([[]])
  })
})

describe('signals', () => {
  test('end an interruptible sleep, also when they came before it; the rest is returned', () => {
    const p = program(function* () {
      log.push((yield* nanosleep(100e6)) > 80e6, signals())
      send_sig(SIGALRM, current())
      log.push((yield* msleep_interruptible(50)) >= 50, signal_pending(current()), signals())
      send_sig(SIGALRM, current())
      log.push((yield* schedule_timeout_interruptible(1000)) > 990, signals()) // no sleep at all
      log.push(yield* msleep_interruptible(5), yield* nanosleep(1000))
    })
    s.pass(10)
    send_sig(SIGPROF, p)
    s.pass(20)
    expect(log).toEqual([true, [SIGPROF], true, true, [SIGALRM], true, [SIGALRM], 0, 0])
  })
})

test.each([
  [-1, 1, 1],
  [3, 1, 1],
  [ITIMER_REAL, -1, 0],
  [ITIMER_REAL, 0, Number.NaN],
])('setitimer refuses timer %d with value %d and interval %d', (which, it_value, it_interval) => {
  expect(setitimer(which, { it_value, it_interval })).toBe(-EINVAL)
  expect(getitimer(9)).toBeNull()
})

test('nothing is left of the timers of processes that ended, pending or not', () => {
  program(function* () {
    setitimer(ITIMER_REAL, { it_value: 5000, it_interval: 1000 })
    yield* schedule()
  })
  s.pass(20)
  expect(slabinfo().find(c => c.name === 'itimers')!.used).toBe(0)
  expect(s.solo.audit()).toEqual([])
})
