/** epoll: what it tells and when, and the errno of each bad argument in the order of 2.6.11, as LTP's epoll_create, epoll_ctl and epoll_wait tests have them. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { afterAll, describe, expect, test } from 'vitest'
import { EBADF, EEXIST, EFAULT, EINTR, EINVAL, ENOENT, EPERM } from '../../../src/lib/errno.js'
import { MAX_EPITEMS } from '../../../src/lib/limits.js'
import {
  alarm,
  bind,
  close,
  creat,
  dup,
  gettimeofday,
  inet_addr,
  ioctl,
  type Libc,
  load32,
  malloc,
  mem,
  poll,
  read,
  recv,
  sendto,
  sockaddr_in,
  socket,
  store32,
  string,
  write,
} from '../../../src/user/libc.js'
import {
  EPOLL_CTL_ADD,
  EPOLL_CTL_DEL,
  EPOLL_CTL_MOD,
  EPOLLERR,
  EPOLLET,
  EPOLLHUP,
  EPOLLIN,
  EPOLLONESHOT,
  EPOLLOUT,
  epoll_create,
  epoll_ctl,
  epoll_event,
  epoll_events,
  epoll_wait,
  pipe_pair,
} from '../../../src/user/libc_file.js'
import { on_signals, SIGALRM } from '../../../src/user/libsignal.js'
import { finish, run, start } from '../../helpers/programs.js'
import { Script } from '../../helpers/script.js'
import { objects_of } from '../../helpers/slabs.js'

const s = new Script({ ports: [], config: { loopback: 1, user_procs: 8 } })
const BAD = 0xdead0000 | 0
const MOST = Math.floor(0x7fffffff / 12)

function* watch(ep: number, fd: number, events: number, data = fd, op = EPOLL_CTL_ADD): Libc {
  return yield* epoll_ctl(ep, op, fd, epoll_event(malloc(12), events, data))
}
/** What there is now. */
function* ready(ep: number, max = 8, ms = 0): Generator<void, [number, number][], void> {
  const at = malloc(12 * max)
  return epoll_events(at, yield* epoll_wait(ep, at, max, ms))
}
const put = (fd: number): Libc => write(fd, string('x'), 1)
const get = (fd: number): Libc => read(fd, malloc(1), 1)
function* bound(port: number): Libc {
  const fd = yield* socket(2, 2, 0)
  yield* bind(fd, sockaddr_in(malloc(16), inet_addr('127.0.0.1'), port), 16)
  return fd
}
const datagram = (fd: number, port: number): Libc =>
  sendto(fd, malloc(8), 5, 0, sockaddr_in(malloc(16), inet_addr('127.0.0.1'), port), 16)

describe('what it tells', () => {
  test('as long as it is there; the data of the program comes back', () => {
    const seen = run(s, function* () {
      const ep = yield* epoll_create(1)
      const [r, w] = yield* pipe_pair()
      const at = malloc(12)
      yield* epoll_ctl(ep, EPOLL_CTL_ADD, r, epoll_event(at, EPOLLIN, 0x1234, 0x5678))
      const told = [yield* ready(ep)]
      yield* put(w)
      told.push(yield* ready(ep), yield* ready(ep))
      yield* epoll_wait(ep, at, 1, 0)
      const high = load32(at + 8)
      yield* get(r)
      told.push(yield* ready(ep))
      return [told, high]
    })
    expect(seen).toEqual([[[], [[EPOLLIN, 0x1234]], [[EPOLLIN, 0x1234]], []], 0x5678])
  })

  test('EPOLLET: once for each thing that comes', () => {
    const seen = run(s, function* () {
      const ep = yield* epoll_create(1)
      const [r, w] = yield* pipe_pair()
      yield* put(w)
      yield* watch(ep, r, EPOLLIN | EPOLLET, 1)
      const told = [yield* ready(ep), yield* ready(ep)]
      yield* put(w)
      told.push(yield* ready(ep), yield* ready(ep))
      yield* watch(ep, r, EPOLLIN | EPOLLET, 2, EPOLL_CTL_MOD) // looks anew
      told.push(yield* ready(ep), yield* ready(ep))
      return told
    })
    expect(seen).toEqual([[[EPOLLIN, 1]], [], [[EPOLLIN, 1]], [], [[EPOLLIN, 2]], []])
  })

  test('EPOLLONESHOT: once, until it is asked anew', () => {
    const seen = run(s, function* () {
      const ep = yield* epoll_create(1)
      const [r, w] = yield* pipe_pair()
      yield* watch(ep, r, EPOLLIN | EPOLLONESHOT)
      yield* put(w)
      const told = [yield* ready(ep), yield* ready(ep)]
      yield* put(w)
      yield* close(w)
      told.push(yield* ready(ep)) // not even that it was hung up
      yield* watch(ep, r, EPOLLIN | EPOLLONESHOT, r, EPOLL_CTL_MOD)
      told.push(yield* ready(ep))
      return told.map(events => events.map(([mask]) => mask))
    })
    expect(seen).toEqual([[EPOLLIN], [], [], [EPOLLIN | EPOLLHUP]])
  })

  test('errors and hangups are told though nobody asked', () => {
    const seen = run(s, function* () {
      const ep = yield* epoll_create(1)
      const [a, b] = [yield* pipe_pair(), yield* pipe_pair()]
      yield* watch(ep, a[0], 0, 1)
      yield* watch(ep, b[1], EPOLLOUT, 2)
      const told = [yield* ready(ep)]
      yield* close(a[1])
      yield* close(b[0])
      told.push(yield* ready(ep))
      return told.map(events => events.sort((x, y) => x[1] - y[1]))
    })
    expect(seen).toEqual([
      [[EPOLLOUT, 2]],
      [
        [EPOLLHUP, 1],
        [EPOLLOUT | EPOLLERR, 2],
      ],
    ])
  })

  test('of many, at most as many as there is room for, and each gets its turn', () => {
    const seen = run(s, function* () {
      const ep = yield* epoll_create(1)
      for (let k = 0; k < 5; k++) {
        const [r, w] = yield* pipe_pair()
        yield* watch(ep, r, EPOLLIN, k)
        yield* put(w)
      }
      const told: number[] = []
      for (let k = 0; k < 3; k++) told.push(...(yield* ready(ep, 2)).map(([, data]) => data))
      return [...new Set(told)].sort()
    })
    expect(seen).toEqual([0, 1, 2, 3, 4])
  })

  test('one file by two descriptors is two items; who is taken out is not told', () => {
    const seen = run(s, function* () {
      const ep = yield* epoll_create(1)
      const [r, w] = yield* pipe_pair()
      const copy = yield* dup(r)
      yield* watch(ep, r, EPOLLIN)
      yield* watch(ep, copy, EPOLLIN)
      yield* put(w)
      const told = [(yield* ready(ep)).length]
      yield* epoll_ctl(ep, EPOLL_CTL_DEL, copy, 0)
      told.push((yield* ready(ep)).length)
      yield* close(r) // the file is still open as the copy, and watched
      told.push((yield* ready(ep)).length)
      yield* close(copy)
      told.push((yield* ready(ep)).length, objects_of('eventpoll_epi'), objects_of('eventpoll_pwq'))
      return told
    })
    expect(seen).toEqual([2, 1, 1, 0, 0, 0])
  })
})

describe('waiting', () => {
  test('a datagram that comes in a softirq ends the sleep', () => {
    const r = start(function* () {
      const fd = yield* bound(7301)
      const ep = yield* epoll_create(1)
      yield* watch(ep, fd, EPOLLIN)
      const told = yield* ready(ep, 4, -1)
      return [told, told[0]?.[1] === fd, yield* recv(fd, malloc(8), 8, 0), yield* ready(ep)]
    })
    s.pass(5)
    expect(r.done).toBe(false)
    run(s, function* () {
      return yield* datagram(yield* socket(2, 2, 0), 7301)
    })
    expect(finish(s, r)).toEqual([[[EPOLLIN, expect.any(Number)]], true, 5, []])
  })

  test('the time is over, or a signal comes', () => {
    const r = start(function* () {
      const ep = yield* epoll_create(1)
      const at = malloc(12)
      const before = yield* gettimeofday()
      const none = yield* epoll_wait(ep, at, 1, 20)
      const ms = ((yield* gettimeofday()) - before) / 1000
      yield* on_signals(SIGALRM)
      yield* alarm(1)
      return [none, ms >= 19 && ms < 40, yield* epoll_wait(ep, at, 1, -1), yield* epoll_wait(ep, at, 1, -2)]
    })
    expect(finish(s, r, 1500)).toEqual([0, true, -EINTR, 0])
  })

  test('two threads wait: one event, and no one sleeps on', () => {
    const fds = { ep: 0, r: 0, w: 0 }
    const one = start(function* () {
      fds.ep = yield* epoll_create(1)
      ;[fds.r, fds.w] = yield* pipe_pair()
      yield* watch(fds.ep, fds.r, EPOLLIN)
      return (yield* ready(fds.ep, 1, -1)).length
    })
    s.pass(1)
    const two = start(
      function* () {
        return (yield* ready(fds.ep, 1, -1)).length
      },
      { shares: one.task },
    )
    s.pass(1)
    run(s, () => put(fds.w), { shares: one.task })
    expect([finish(s, one), finish(s, two)]).toEqual([1, 1])
  })
})

describe('epoll in epoll, and in poll', () => {
  test('an event goes up through both, and a circle ends', () => {
    const seen = run(s, function* () {
      const [low, high] = [yield* epoll_create(1), yield* epoll_create(1)]
      const [r, w] = yield* pipe_pair()
      const errs = [
        yield* watch(high, low, EPOLLIN, 1),
        yield* watch(low, r, EPOLLIN, 2),
        yield* watch(low, high, EPOLLIN, 3),
      ]
      yield* put(w)
      const told = [yield* ready(high), (yield* ready(low)).map(([, data]) => data).includes(2)]
      const fds = malloc(8)
      store32(fds, low)
      store32(fds + 4, EPOLLIN)
      const polled = yield* poll(fds, 1, 0)
      yield* close(low)
      return [errs, told, polled, yield* ready(high)]
    })
    expect(seen).toEqual([[0, 0, 0], [[[EPOLLIN, 1]], true], 1, []])
  })

  test('who sleeps in poll for an epoll file is woken', () => {
    const fds = { w: 0 }
    const r = start(function* () {
      const ep = yield* epoll_create(1)
      const [r, w] = yield* pipe_pair()
      fds.w = w
      yield* watch(ep, r, EPOLLIN)
      const at = malloc(8)
      store32(at, ep)
      store32(at + 4, EPOLLIN)
      return yield* poll(at, 1, -1)
    })
    s.pass(2)
    expect(r.done).toBe(false)
    run(s, () => put(fds.w), { shares: r.task })
    expect(finish(s, r)).toBe(1)
  })
})

describe('bad arguments, in the order of Linux', () => {
  test('epoll_create, epoll_wait', () => {
    const seen = run(s, function* () {
      const ep = yield* epoll_create(1)
      const [r, w] = yield* pipe_pair()
      const at = malloc(24)
      yield* watch(ep, w, EPOLLOUT)
      return [
        yield* epoll_create(0),
        yield* epoll_create(-1),
        yield* epoll_wait(99, BAD, 0, 0),
        yield* epoll_wait(99, BAD, -1, 0),
        yield* epoll_wait(99, at, MOST + 1, 0),
        yield* epoll_wait(99, 0xbffffff8 | 0, 1, 0),
        yield* epoll_wait(99, at, 1, 0),
        yield* epoll_wait(r, at, 1, 0),
        yield* epoll_wait(ep, 0x1000, 1, 0),
        yield* epoll_wait(ep, at, 1, 0), // it is still there
        yield* read(ep, at, 1),
        yield* write(ep, at, 1),
      ]
    })
    const errs = [EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EFAULT, EBADF, EINVAL, EFAULT]
    expect(seen).toEqual([...errs.map(e => -e), 1, -EINVAL, -EBADF])
  })

  test('epoll_ctl', () => {
    const seen = run(s, function* () {
      const ep = yield* epoll_create(1)
      const [r] = yield* pipe_pair()
      const file = yield* creat(string('kept'))
      const event = epoll_event(malloc(12), EPOLLIN, 0)
      return [
        yield* epoll_ctl(99, EPOLL_CTL_ADD, 98, BAD),
        yield* epoll_ctl(99, EPOLL_CTL_ADD, r, event),
        yield* epoll_ctl(ep, EPOLL_CTL_ADD, 98, event),
        yield* epoll_ctl(r, EPOLL_CTL_ADD, file, event),
        yield* epoll_ctl(ep, EPOLL_CTL_ADD, ep, event),
        yield* epoll_ctl(r, EPOLL_CTL_ADD, ep, event),
        yield* epoll_ctl(ep, 7, r, event),
        yield* epoll_ctl(ep, EPOLL_CTL_MOD, r, event),
        yield* epoll_ctl(ep, EPOLL_CTL_DEL, r, BAD),
        yield* epoll_ctl(ep, EPOLL_CTL_ADD, r, event),
        yield* epoll_ctl(ep, EPOLL_CTL_ADD, r, event),
        yield* epoll_ctl(ep, EPOLL_CTL_DEL, r, 0),
        yield* ioctl(ep, 0x1234, 0),
      ]
    })
    const errs = [EFAULT, EBADF, EBADF, EPERM, EINVAL, EINVAL, EINVAL, ENOENT, ENOENT, 0, EEXIST, 0, 25]
    expect(seen).toEqual(errs.map(e => -e || 0))
  })

  test('no memory for an item: ENOMEM, and nothing stays behind', () => {
    const seen = run(s, function* () {
      const fds: number[] = [...(yield* pipe_pair())]
      while (fds.length < 200) fds.push(yield* dup(fds[0]!))
      const event = epoll_event(malloc(12), EPOLLIN, 0)
      for (;;) {
        const ep = yield* epoll_create(1)
        for (const fd of fds) {
          const err = yield* epoll_ctl(ep, EPOLL_CTL_ADD, fd, event)
          if (err !== 0) return [err, objects_of('eventpoll_epi') >= MAX_EPITEMS]
        }
      }
    })
    expect(seen).toEqual([-12, true])
    expect(objects_of('eventpoll_epi') + objects_of('eventpoll_pwq')).toBe(0)
  })
})

test('what a halt finds open and asleep leaves nothing behind', () => {
  start(function* () {
    const [ep, up] = [yield* epoll_create(1), yield* epoll_create(1)]
    const [r, w] = yield* pipe_pair()
    yield* watch(ep, r, EPOLLIN)
    yield* watch(ep, w, EPOLLOUT | EPOLLET)
    yield* watch(up, ep, EPOLLIN)
    yield* ready(ep)
    mem(malloc(4), 4).fill(1)
    return (yield* ready(ep, 1, -1)).length
  })
  s.pass(2)
  expect(objects_of('eventpoll_epi')).toBe(3)
})
afterAll(() => {
  expect(s.solo.audit()).toEqual([])
})
