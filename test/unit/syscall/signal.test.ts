/** Signals: arguments in Linux's order of checks, handlers, masks, default actions, and what becomes of calls they interrupt. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { sched_hooks } from '../../../src/sched/sched.js'
import { TASK_STOPPED, type task_struct } from '../../../src/sched/task.js'
import {
  __NR_getitimer,
  __NR_restart_syscall,
  __NR_rt_sigaction,
  __NR_rt_sigpending,
  __NR_rt_sigprocmask,
  __NR_rt_sigsuspend,
  __NR_rt_sigtimedwait,
  __NR_setitimer,
} from '../../../src/syscall/table.js'
import {
  alarm,
  bind,
  close,
  getpid,
  getuid,
  inet_addr,
  type Libc,
  load32,
  malloc,
  mem,
  nanosleep,
  poll,
  recv,
  select,
  sendto,
  set_timeout,
  setuid,
  sockaddr_in,
  socket,
  store32,
  syscall,
} from '../../../src/user/libc.js'
import {
  all_of,
  exit,
  kill,
  on_signals,
  pause,
  raise,
  SA_NODEFER,
  SA_RESETHAND,
  SA_RESTART,
  SIG_BLOCK,
  SIG_DFL,
  SIG_IGN,
  SIG_SETMASK,
  SIG_UNBLOCK,
  SIGALRM,
  SIGCHLD,
  SIGCONT,
  SIGINT,
  SIGKILL,
  SIGSTOP,
  SIGTERM,
  SIGTSTP,
  SIGURG,
  SIGUSR1,
  SIGUSR2,
  setitimer,
  sigaction,
  sigblocked,
  signal,
  sigpending,
  sigprocmask,
  sigsuspend,
  sigtimedwait,
} from '../../../src/user/libsignal.js'
import { finish, type Running, run, start } from '../../helpers/programs.js'
import { Script } from '../../helpers/script.js'

const s = new Script({ ports: [], config: { loopback: 1, user_procs: 6 } })
const [EPERM, ESRCH, EINTR, EAGAIN, EFAULT, EINVAL] = [-1, -3, -4, -11, -14, -22]
const BAD = 0x1000
const MAX = 31

/** A program that sleeps in a call, then what is sent to it, then what it returned. */
function interrupted<T>(program: () => Generator<void, T, void>, ...sigs: number[]): Running<T> {
  const p = start(program)
  s.pass(5)
  for (const sig of sigs) expect(run(s, () => kill(p.task.pid, sig))).toBe(0)
  s.pass(2)
  return p
}
/** Exit codes by task, since an ended task is freed. */
const codes = new Map<number, number>()
const exit_before = sched_hooks.exit
sched_hooks.exit = p => {
  exit_before(p)
  codes.set(p.addr, p.exit_code)
}
/** Exit code of a program that ends itself somehow. */
function code_of(program: () => Libc, then: (task: task_struct) => void = () => {}): number {
  const p = start(program)
  const { task } = p
  codes.delete(task.addr)
  s.pass(5)
  then(task)
  s.pass(5)
  expect(p.done).toBe(false) // it never came to its end
  return codes.get(task.addr) ?? -1
}
function* udp(port: number): Libc {
  const fd = yield* socket(2, 2, 0)
  yield* bind(fd, sockaddr_in(malloc(16), inet_addr('127.0.0.1'), port), 16)
  return fd
}
function* send_to(port: number): Libc {
  const fd = yield* socket(2, 2, 0)
  const n = yield* sendto(fd, malloc(3), 3, 0, sockaddr_in(malloc(16), inet_addr('127.0.0.1'), port), 16)
  yield* close(fd)
  return n
}

describe('arguments', () => {
  const calls: [string, (at: number) => Libc, number][] = [
    ['sigaction: the size of a set, before all else', () => syscall(__NR_rt_sigaction, 0, BAD, BAD, 4), EINVAL],
    ['sigaction: the new one, before the number', () => syscall(__NR_rt_sigaction, 0, BAD, 0, 8), EFAULT],
    ['sigaction: signal 0', at => syscall(__NR_rt_sigaction, 0, at, 0, 8), EINVAL],
    ['sigaction: above the last', at => syscall(__NR_rt_sigaction, MAX + 1, at, 0, 8), EINVAL],
    ['sigaction: SIGKILL', at => syscall(__NR_rt_sigaction, SIGKILL, at, 0, 8), EINVAL],
    ['sigaction: SIGSTOP', at => syscall(__NR_rt_sigaction, SIGSTOP, at, 0, 8), EINVAL],
    ['sigaction: SIGKILL may be looked at', at => syscall(__NR_rt_sigaction, SIGKILL, 0, at, 8), 0],
    ['sigaction: the old one', () => syscall(__NR_rt_sigaction, SIGUSR1, 0, BAD, 8), EFAULT],
    ['sigprocmask: the size', () => syscall(__NR_rt_sigprocmask, 9, BAD, BAD, 16), EINVAL],
    ['sigprocmask: the set, before how', () => syscall(__NR_rt_sigprocmask, 9, BAD, 0, 8), EFAULT],
    ['sigprocmask: how', at => syscall(__NR_rt_sigprocmask, 3, at, 0, 8), EINVAL],
    ['sigprocmask: how is not looked at without a set', at => syscall(__NR_rt_sigprocmask, 3, 0, at, 8), 0],
    ['sigprocmask: the old set', () => syscall(__NR_rt_sigprocmask, 0, 0, BAD, 8), EFAULT],
    ['sigpending: the size', at => syscall(__NR_rt_sigpending, at, 9), EINVAL],
    ['sigpending: the set', () => syscall(__NR_rt_sigpending, BAD, 8), EFAULT],
    ['sigsuspend: the size', () => syscall(__NR_rt_sigsuspend, BAD, 4), EINVAL],
    ['sigsuspend: the set', () => syscall(__NR_rt_sigsuspend, BAD, 8), EFAULT],
    ['sigtimedwait: the size', at => syscall(__NR_rt_sigtimedwait, at, 0, 0, 4), EINVAL],
    ['sigtimedwait: the set', () => syscall(__NR_rt_sigtimedwait, BAD, 0, 0, 8), EFAULT],
    ['sigtimedwait: the time', at => syscall(__NR_rt_sigtimedwait, at, 0, BAD, 8), EFAULT],
    ['getitimer: nowhere, before which', () => syscall(__NR_getitimer, 3, 0), EFAULT],
    ['getitimer: which', at => syscall(__NR_getitimer, 3, at), EINVAL],
    ['getitimer: where', () => syscall(__NR_getitimer, 0, BAD), EFAULT],
    ['setitimer: the value, before which', () => syscall(__NR_setitimer, 3, BAD, 0), EFAULT],
    ['setitimer: which', at => syscall(__NR_setitimer, 3, at, 0), EINVAL],
    ['setitimer: no value', () => syscall(__NR_setitimer, 0, 0, 0), 0],
    ['setitimer: the old value', () => syscall(__NR_setitimer, 0, 0, BAD), EFAULT],
    ['kill: nobody, before the number', () => kill(30_000, MAX + 1), ESRCH],
    ['kill: a number above the last', () => raise(MAX + 1), EINVAL],
    ['kill: a negative number', () => raise(-1), EINVAL],
    ['kill: signal 0', () => raise(0), 0],
    ['kill: a group that is not there', () => kill(-30_000, 0), ESRCH],
    ['kill: all others, of which there are none', () => kill(-1, 0), ESRCH],
    ['restart_syscall: nothing to restart', () => syscall(__NR_restart_syscall), EINTR],
  ]
  test.each(calls)('%s', (_name, call, expected) => {
    expect(run(s, () => call(malloc(64)))).toBe(expected)
  })
  test('a time that is none', () => {
    expect(
      run(s, function* () {
        const at = malloc(32)
        store32(at + 12, 1e9)
        const first = yield* syscall(__NR_rt_sigtimedwait, at, 0, at + 8, 8)
        return [first, yield* sigtimedwait(all_of(SIGUSR1), -1e6)]
      }),
    ).toEqual([EINVAL, EINVAL])
  })
  test('who may signal whom: root all, others their own', () => {
    const sleeper = start(pause, { uid: 5 })
    const { pid } = sleeper.task
    s.pass(1)
    const by = (uid: number, sig: number): number => run(s, () => kill(pid, sig), { uid })
    expect([by(6, 0), by(6, MAX + 1), by(5, 0), by(0, 0)]).toEqual([EPERM, EINVAL, 0, 0])
    const mixed = run(s, function* () {
      yield* setuid(6)
      return [yield* getuid(), yield* kill(-1, 0)] // all were passed over: that is no error of the call
    })
    expect(mixed).toEqual([6, 0])
    expect(by(5, SIGTERM)).toBe(0)
    s.pass(2)
    expect(run(s, () => kill(pid, 0))).toBe(ESRCH)
  })
})

describe('handlers', () => {
  test('run on the way back from the call that the signal came in, with its number', () => {
    const log = run(s, function* () {
      const seen: unknown[] = []
      yield* signal(SIGUSR1, function* (sig) {
        seen.push(sig, yield* getpid())
      })
      seen.push('before')
      seen.push(yield* raise(SIGUSR1), 'after', yield* getpid())
      return seen
    })
    const pid = log.at(-1)
    expect(log).toEqual(['before', SIGUSR1, pid, 0, 'after', pid])
  })
  test('a symbol is a handler, also in another thread of the process', () => {
    const seen: number[] = []
    const sym = symbol('test_handler', function* (sig: number) {
      seen.push(sig)
    })
    const first = start(function* () {
      yield* sigaction(SIGUSR2, sym)
      return yield* pause()
    })
    s.pass(2)
    const second = start(() => raise(SIGUSR2), { shares: first.task })
    expect([finish(s, second), seen, first.done]).toEqual([0, [SIGUSR2], false])
    run(s, () => kill(first.task.pid, SIGUSR2))
    expect([finish(s, first), seen]).toEqual([EINTR, [SIGUSR2, SIGUSR2]])
  })
  /** A handler that raises its own signal once more: how deep it gets. */
  const depth = (flags: number): number[] =>
    run(s, function* () {
      const log: number[] = []
      let level = 0
      const handler = function* (): Generator<void, void, void> {
        log.push(++level)
        if (log.length === 1) yield* raise(SIGUSR1)
        level--
      }
      yield* sigaction(SIGUSR1, handler, flags)
      yield* raise(SIGUSR1)
      return log
    })
  test('its own signal is blocked meanwhile, unless SA_NODEFER', () => {
    expect(depth(0)).toEqual([1, 1]) // the second one after the first
    expect(depth(SA_NODEFER)).toEqual([1, 2]) // in the middle of it
  })
  test('sa_mask is blocked meanwhile; afterwards all is as before', () => {
    const log = run(s, function* () {
      const seen: string[] = []
      yield* sigprocmask(SIG_SETMASK, all_of(SIGINT))
      yield* signal(SIGUSR2, function* () {
        seen.push('usr2')
      })
      yield* sigaction(
        SIGUSR1,
        function* () {
          seen.push('in')
          yield* raise(SIGUSR2)
          seen.push(`blocked ${(yield* sigblocked()) === all_of(SIGINT, SIGUSR1, SIGUSR2)}`, 'out')
        },
        0,
        all_of(SIGUSR2),
      )
      yield* raise(SIGUSR1)
      seen.push(`blocked ${(yield* sigblocked()) === all_of(SIGINT)}`)
      return seen
    })
    expect(log).toEqual(['in', 'blocked true', 'out', 'usr2', 'blocked true'])
  })
  test('of two that are let through at once the later number is on top, and so runs first', () => {
    const log = run(s, function* () {
      const seen: number[] = []
      for (const sig of [SIGUSR1, SIGUSR2])
        yield* signal(sig, function* () {
          seen.push(sig)
        })
      yield* sigprocmask(SIG_BLOCK, all_of(SIGUSR1, SIGUSR2))
      yield* raise(SIGUSR2)
      yield* raise(SIGUSR1)
      yield* raise(SIGUSR1) // once is enough
      yield* sigprocmask(SIG_UNBLOCK, all_of(SIGUSR1, SIGUSR2))
      return seen
    })
    expect(log).toEqual([SIGUSR2, SIGUSR1])
  })
  test('SA_RESETHAND: the second one is the default again', () => {
    let count = 0
    const code = code_of(function* () {
      yield* sigaction(
        SIGUSR1,
        function* () {
          count++
        },
        SA_RESETHAND,
      )
      yield* raise(SIGUSR1)
      yield* raise(SIGUSR1)
      return 0
    })
    expect([code, count]).toEqual([128 + SIGUSR1, 1])
  })
  test('what was done before is told', () => {
    const words = run(s, function* () {
      const sym = symbol('test_told', function* () {})
      yield* sigaction(SIGUSR1, sym, SA_RESTART | SA_NODEFER, all_of(SIGINT, SIGKILL, SIGSTOP))
      const at = malloc(20)
      yield* syscall(__NR_rt_sigaction, SIGUSR1, 0, at, 8)
      return [load32(at) === sym, load32(at + 4), load32(at + 12)]
    })
    expect(words).toEqual([true, SA_RESTART | SA_NODEFER, all_of(SIGINT)])
  })
})

describe('blocked, pending, ignored', () => {
  test('pending shows what is blocked; SIGKILL and SIGSTOP cannot be', () => {
    const seen = run(s, function* () {
      yield* sigprocmask(SIG_BLOCK, -1)
      const blocked = yield* sigblocked()
      yield* raise(SIGTERM)
      yield* raise(SIGUSR1)
      return [blocked, yield* sigpending()]
    })
    expect(seen).toEqual([-1 & ~all_of(SIGKILL, SIGSTOP), all_of(SIGTERM, SIGUSR1)])
  })
  test('ignored ones are forgotten, also when they were pending; blocked ones are not, whatever is done about them', () => {
    const seen = run(s, function* () {
      yield* signal(SIGTERM, SIG_IGN)
      yield* raise(SIGTERM)
      yield* raise(SIGCHLD) // ignored by default
      yield* sigprocmask(SIG_BLOCK, all_of(SIGTERM, SIGURG))
      yield* raise(SIGTERM)
      yield* raise(SIGURG)
      const kept = yield* sigpending()
      yield* signal(SIGTERM, SIG_IGN)
      yield* signal(SIGURG, SIG_DFL)
      return [kept, yield* sigpending()]
    })
    expect(seen).toEqual([all_of(SIGTERM, SIGURG), 0])
  })
  test('an ignored signal ends no sleep', () => {
    const p = interrupted(
      function* () {
        yield* signal(SIGTERM, SIG_IGN)
        return yield* recv(yield* udp(800), malloc(8), 8, 0)
      },
      SIGTERM,
      SIGCHLD,
    )
    expect(p.done).toBe(false)
    run(s, () => send_to(800))
    expect(finish(s, p)).toBe(3)
  })
})

describe('default actions', () => {
  test.each([SIGINT, SIGTERM, SIGKILL, SIGUSR1, SIGALRM, MAX])('signal %i ends', sig => {
    expect(code_of(() => raise(sig))).toBe(128 + sig)
  })
  test('it ends a program that sleeps, and what it has open is closed', () => {
    const program = function* (): Libc {
      return yield* recv(yield* udp(801), malloc(8), 8, 0)
    }
    expect(code_of(program, task => run(s, () => kill(task.pid, SIGTERM)))).toBe(128 + SIGTERM)
    expect(run(s, () => udp(801))).toBeGreaterThanOrEqual(0)
  })
  test.each([SIGCHLD, SIGURG, 28, SIGCONT, SIGTSTP])('signal %i does nothing', sig => {
    expect(run(s, () => raise(sig))).toBe(0)
  })
  test('SIGSTOP stops, SIGCONT goes on, SIGKILL ends also what is stopped', () => {
    const { task, ...p } = start(function* () {
      yield* nanosleep(5e6)
      yield* raise(SIGSTOP)
      return 7
    })
    s.pass(20)
    expect(task.state).toBe(TASK_STOPPED)
    run(s, () => kill(task.pid, SIGUSR1)) // waits
    expect([task.state, p.done]).toEqual([TASK_STOPPED, false])
    run(s, () => kill(task.pid, SIGKILL))
    s.pass(2)
    expect(codes.get(task.addr)).toBe(128 + SIGKILL)
    const again = start(function* () {
      yield* raise(SIGSTOP)
      return 7
    })
    s.pass(2)
    run(s, () => kill(again.task.pid, SIGCONT))
    expect(finish(s, again)).toBe(7)
  })
  test('exit: with its code, through whatever called it', () => {
    const deep = function* (n: number): Libc {
      return n === 0 ? yield* exit(259) : yield* deep(n - 1)
    }
    expect(code_of(() => deep(5))).toBe(3)
  })
})

describe('calls that a signal interrupts', () => {
  /** What the call says, and whether the handler ran. */
  const caught = (flags: number, call: (fd: number) => Libc, port: number): Running<[number, number]> =>
    interrupted(function* (): Generator<void, [number, number], void> {
      const fd = yield* udp(port)
      let ran = 0
      yield* sigaction(
        SIGUSR1,
        function* () {
          ran++
        },
        flags,
      )
      return [yield* call(fd), ran]
    }, SIGUSR1)
  const one = (fd: number): number => {
    const at = malloc(8)
    store32(at, fd)
    store32(at + 4, 1)
    return at
  }
  const set = (fd: number): number => {
    const at = malloc(4)
    store32(at, 1 << fd)
    return at
  }
  const take = (fd: number): Libc => recv(fd, malloc(8), 8, 0)
  function* in_time(fd: number): Libc {
    yield* set_timeout(fd, 60e6)
    return yield* take(fd)
  }
  test.each<[string, (fd: number) => Libc, number, number | 'goes on']>([
    ['recv', take, 0, EINTR],
    ['recv', take, SA_RESTART, 'goes on'],
    ['recv with SO_RCVTIMEO', in_time, SA_RESTART, EINTR],
    ['poll', fd => poll(one(fd), 1, -1), SA_RESTART, EINTR],
    ['poll with a time', fd => poll(one(fd), 1, 60_000), 0, EINTR],
    ['select', fd => select(fd + 1, set(fd), 0, 0, 0), SA_RESTART, EINTR],
    ['nanosleep', () => nanosleep(60e9), SA_RESTART, EINTR],
    ['pause', () => pause(), SA_RESTART, EINTR],
    ['sigtimedwait', () => sigtimedwait(all_of(SIGINT), 60e6), SA_RESTART, EINTR],
  ])('%s, by a handler (%#)', (_name, call, flags, expected) => {
    const port = 810
    const p = caught(flags, call, port)
    if (expected !== 'goes on') {
      expect(finish(s, p)).toEqual([expected, 1])
      return
    }
    expect(p.done).toBe(false)
    run(s, () => send_to(port))
    expect(finish(s, p)).toEqual([3, 1])
  })
  /** Stopped and continued: no handler has run. */
  test.each<[string, (fd: number) => Libc, number | 'goes on']>([
    ['recv', take, 'goes on'],
    ['recv with SO_RCVTIMEO', in_time, EINTR],
    ['poll', fd => poll(one(fd), 1, -1), EINTR],
    ['select', fd => select(fd + 1, set(fd), 0, 0, 0), 'goes on'],
  ])('%s, by SIGSTOP and SIGCONT', (_name, call, expected) => {
    const port = 811
    const p = interrupted(
      function* () {
        return yield* call(yield* udp(port))
      },
      SIGSTOP,
      SIGCONT,
    )
    if (expected !== 'goes on') {
      expect(finish(s, p)).toBe(expected)
      return
    }
    expect(p.done).toBe(false)
    run(s, () => send_to(port))
    expect(finish(s, p)).toBeGreaterThan(0)
  })
  test('nanosleep goes on to the time that was meant, by its restart block', () => {
    const p = interrupted(() => nanosleep(100e6), SIGSTOP)
    s.pass(50)
    run(s, () => kill(p.task.pid, SIGCONT))
    s.pass(25)
    expect(p.done).toBe(false)
    s.pass(25) // 110 ms: not 100 ms from SIGCONT on
    expect([p.done, p.result]).toEqual([true, 0])
  })
  test('nanosleep tells what was left', () => {
    const p = interrupted(function* () {
      const left = malloc(8)
      yield* on_signals(SIGUSR1)
      const ret = yield* nanosleep(2e9, left)
      return [ret, load32(left), load32(left + 4) > 9e8]
    }, SIGUSR1)
    expect(finish(s, p)).toEqual([EINTR, 1, true])
  })
})

describe('waiting for signals', () => {
  test('sigsuspend lets through what it does not block, then all is blocked as before', () => {
    const p = interrupted(function* () {
      const seen: number[] = []
      for (const sig of [SIGUSR1, SIGUSR2])
        yield* signal(sig, function* (n) {
          seen.push(n)
        })
      yield* sigprocmask(SIG_BLOCK, all_of(SIGUSR1, SIGUSR2))
      const ret = yield* sigsuspend(all_of(SIGUSR2))
      return [ret, ...seen, yield* sigblocked(), yield* sigpending()]
    }, SIGUSR2)
    expect(p.done).toBe(false)
    run(s, () => kill(p.task.pid, SIGUSR1))
    expect(finish(s, p)).toEqual([EINTR, SIGUSR1, all_of(SIGUSR1, SIGUSR2), all_of(SIGUSR2)])
  })
  test('sigsuspend does not sleep when one is pending already', () => {
    const got = run(s, function* () {
      yield* on_signals(SIGUSR1)
      yield* sigprocmask(SIG_BLOCK, all_of(SIGUSR1))
      yield* raise(SIGUSR1)
      return yield* sigsuspend(0)
    })
    expect(got).toBe(EINTR)
  })
  test('sigtimedwait takes one without a handler, or gives up', () => {
    const got = run(s, function* () {
      yield* sigprocmask(SIG_BLOCK, all_of(SIGUSR1, SIGUSR2))
      yield* raise(SIGUSR2)
      const first = yield* sigtimedwait(all_of(SIGUSR1, SIGUSR2), 0)
      const none = yield* sigtimedwait(all_of(SIGUSR1, SIGUSR2), 0)
      return [first, none, yield* sigtimedwait(all_of(SIGUSR1), 20_000), yield* sigpending()]
    })
    expect(got).toEqual([SIGUSR2, EAGAIN, EAGAIN, 0])
  })
  test('sigtimedwait is woken by what it waits for', () => {
    const p = interrupted(function* () {
      yield* sigprocmask(SIG_BLOCK, all_of(SIGUSR1))
      return yield* sigtimedwait(all_of(SIGUSR1), 60e6)
    }, SIGUSR1)
    expect([p.done, p.result]).toEqual([true, SIGUSR1])
  })
  test('alarm and setitimer send SIGALRM, again and again', () => {
    const got = finish(
      s,
      start(function* () {
        let count = 0
        yield* signal(SIGALRM, function* () {
          count++
        })
        yield* setitimer(0, 10_000, 10_000)
        while (count < 3) yield* pause()
        yield* setitimer(0, 0)
        yield* alarm(1)
        return [yield* pause(), count]
      }),
      2000,
    )
    expect(got).toEqual([EINTR, 4])
  })
})

test('mem is not disturbed by handlers that take and give back memory', () => {
  const ok = run(s, function* () {
    const at = malloc(16)
    mem(at, 16).fill(7)
    yield* signal(SIGUSR1, function* () {
      yield* sigblocked()
    })
    yield* raise(SIGUSR1)
    return mem(at, 16).every(b => b === 7)
  })
  expect(ok).toBe(true)
})

test('nothing leaks, not even of programs that sleep, are stopped, or have signals pending', () => {
  start(pause)
  start(() => raise(SIGSTOP))
  start(function* () {
    yield* sigprocmask(SIG_BLOCK, -1)
    yield* raise(SIGTERM)
    return yield* pause()
  })
  s.pass(3)
  expect(s.solo.audit()).toEqual([])
})
