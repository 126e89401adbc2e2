/** nice, setpriority, getpriority, times and getrusage: errors in the order of 2.6.11, and what they change. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { expect, test } from 'vitest'
import { task_nice, task_timeslice } from '../../../src/sched/sched.js'
import { __NR_getrusage, __NR_times, syscall } from '../../../src/syscall/table.js'
import { getpid, type Libc, load32, malloc, nanosleep, setuid } from '../../../src/user/libc.js'
import {
  getpriority,
  getrusage,
  nice,
  PRIO_PGRP,
  PRIO_PROCESS,
  PRIO_USER,
  RUSAGE_CHILDREN,
  RUSAGE_SELF,
  setpriority,
  times,
} from '../../../src/user/libresource.js'
import { finish, run, start } from '../../helpers/programs.js'
import { Script } from '../../helpers/script.js'

const s = new Script({ ports: [], config: { loopback: 1, user_procs: 4 } })
const [EPERM, ESRCH, EACCES, EFAULT, EINVAL] = [-1, -3, -13, -14, -22]

test('nice: down for everybody, up for root, and no further than the ends', () => {
  const own = (): Libc => getpriority(PRIO_PROCESS, 0)
  expect(
    run(s, function* () {
      const steps: number[] = [yield* own()]
      for (const by of [5, -30, 100, -1000]) steps.push(yield* nice(by), yield* own())
      yield* setuid(5)
      steps.push(yield* nice(-1), yield* nice(3), yield* own(), yield* nice(0))
      return steps
    }),
  ).toEqual([20, 0, 15, 0, 40, 0, 1, 0, 40, EPERM, 0, 37, 0])
})

test('setpriority and getpriority: arguments, in the order of 2.6.11', () => {
  const other = start(() => nanosleep(50e6), { uid: 7 })
  const { pid } = other.task
  const result = run(s, function* () {
    const got = [
      yield* setpriority(3, pid, 0),
      yield* setpriority(-1, 0, 0),
      yield* getpriority(3, 0),
      yield* setpriority(PRIO_PROCESS, 9999, 0),
      yield* getpriority(PRIO_PROCESS, 9999),
      yield* getpriority(PRIO_USER, 12345),
      yield* setpriority(PRIO_PROCESS, pid, -100),
      yield* getpriority(PRIO_PROCESS, pid),
      yield* setpriority(PRIO_USER, 7, 4),
      yield* getpriority(PRIO_PGRP, pid),
    ]
    yield* setuid(8)
    got.push(yield* setpriority(PRIO_PROCESS, pid, 10)) // somebody else's
    got.push(yield* getpriority(PRIO_PROCESS, pid)) // asking is free
    got.push(
      yield* setpriority(PRIO_PROCESS, 0, -1),
      yield* setpriority(PRIO_PROCESS, 0, 19),
      yield* setpriority(PRIO_USER, 0, 3),
    )
    return got
  })
  expect(result).toEqual([EINVAL, EINVAL, EINVAL, ESRCH, ESRCH, ESRCH, 0, 40, 0, 16, EPERM, 16, EACCES, 0, EACCES])
  expect([task_nice(other.task), task_timeslice(other.task)]).toEqual([4, 80])
  finish(s, other)
})

test('times and getrusage: arguments, switches, and time since boot', () => {
  function* program(): Generator<void, unknown[], void> {
    const buf = malloc(16)
    const before = yield* times(buf)
    yield* nanosleep(30e6)
    yield* getpid()
    const usage = yield* getrusage(RUSAGE_SELF)
    return [
      (yield* times(buf)) - before,
      [0, 4, 8, 12].map(k => load32(buf + k)),
      (yield* times(0)) >= before,
      usage,
      yield* getrusage(RUSAGE_CHILDREN),
      yield* getrusage(1),
      yield* syscall(__NR_times, 16),
      yield* syscall(__NR_getrusage, RUSAGE_SELF, 16),
      yield* syscall(__NR_getrusage, 5, 16),
    ]
  }
  const [passed, own, always, usage, children, ...wrong] = run(s, program)
  expect([3, 4]).toContain(passed)
  expect([own, always]).toEqual([[0, 0, 0, 0], true])
  expect(usage).toMatchObject({ nvcsw: 1 })
  expect(children).toEqual({ utime: 0, stime: 0, nvcsw: 0, nivcsw: 0 })
  expect(wrong).toEqual([EINVAL, EFAULT, EFAULT, EINVAL])
})

test('an exception in the kernel is nobody else’s: it stops the machine', () => {
  const bad = start(function* () {
    yield* syscall(__NR_times, {
      valueOf: () => {
        throw new Error('in a call')
      },
    } as unknown as number)
    return 0
  })
  expect(() => finish(s, bad)).toThrow('in a call')
})
