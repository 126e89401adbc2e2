/**
 * select and poll: what they say of sockets, how long they wait, what wakes them, and the errno of each bad argument, which
 * follow the Linux Test Project's select01 to 04 and poll01 and 02.
 */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { EBADF, EFAULT, EINTR, EINVAL } from '../../../src/lib/errno.js'
import { udp_stats } from '../../../src/net/ipv4/udp_hash.js'
import {
  POLLERR,
  POLLHUP,
  POLLIN,
  POLLNVAL,
  POLLOUT,
  POLLPRI,
  POLLRDNORM,
  POLLWRBAND,
  POLLWRNORM,
} from '../../../src/sched/poll.js'
import {
  alarm,
  bind,
  close,
  connect,
  gettimeofday,
  inet_addr,
  type Libc,
  load32,
  malloc,
  poll,
  recv,
  select,
  sendto,
  set_word,
  shutdown,
  sockaddr_in,
  socket,
  store32,
} from '../../../src/user/libc.js'
import { on_signals, SIGALRM } from '../../../src/user/libsignal.js'
import { udpFrame } from '../../helpers/frames.js'
import { finish, run, start } from '../../helpers/programs.js'
import { Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [{ addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] }],
  neighbours: [{ address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } }],
  config: { loopback: 1, user_procs: 4 },
  sysctl: {}, // neighbours are asked for
})
const BAD = 0xdead0000 | 0
const SOL_SOCKET = 1
const ALL = 0x3ff & ~POLLNVAL
const WRITABLE = POLLOUT | POLLWRNORM | POLLWRBAND

const here = (port: number): number => sockaddr_in(malloc(16), inet_addr('127.0.0.1'), port)
function* bound(port: number): Libc {
  const fd = yield* socket(2, 2, 0)
  yield* bind(fd, here(port), 16)
  return fd
}
function pollfds(...fds: [fd: number, events: number][]): number {
  const at = malloc(fds.length * 8)
  fds.forEach(([fd, events], k) => {
    store32(at + 8 * k, fd)
    store32(at + 8 * k + 4, events)
  })
  return at
}
const revents = (fds: number, k = 0): number => (load32(fds + 8 * k + 4) >>> 16) & 0xffff
function* look(fd: number, events = ALL, ms = 0): Libc {
  const fds = pollfds([fd, events])
  const n = yield* poll(fds, 1, ms)
  return n < 0 ? n : revents(fds)
}
function set(...fds: number[]): number {
  const at = malloc(128)
  for (const fd of fds) store32(at + 4 * (fd >> 5), load32(at + 4 * (fd >> 5)) | (1 << (fd & 31)))
  return at
}
function timeval_of(sec: number, usec: number): number {
  const at = malloc(8)
  store32(at, sec)
  store32(at + 4, usec)
  return at
}
const timeval = (us: number): number => timeval_of(Math.floor(us / 1e6), us % 1e6)

describe('poll', () => {
  test('a socket: room, then something to read, then both ends shut', () => {
    const seen = run(s, function* () {
      const fd = yield* bound(7001)
      const masks = [yield* look(fd)]
      yield* sendto(fd, malloc(8), 5, 0, here(7001), 16)
      masks.push(yield* look(fd), yield* look(fd, POLLIN), yield* look(fd, POLLPRI))
      yield* recv(fd, malloc(8), 8, 0)
      masks.push(yield* look(fd))
      yield* shutdown(fd, 0)
      masks.push(yield* look(fd))
      yield* shutdown(fd, 1)
      masks.push(yield* look(fd, 0))
      return masks
    })
    const readable = POLLIN | POLLRDNORM
    expect(seen).toEqual([WRITABLE, WRITABLE | readable, POLLIN, 0, WRITABLE, WRITABLE | readable, POLLHUP])
  })

  test('an error that came is told though nobody asked for it, and taken by the next call', () => {
    const seen = run(s, function* () {
      const fd = yield* socket(2, 2, 0)
      yield* connect(fd, here(9), 16)
      yield* sendto(fd, malloc(8), 1, 0, 0, 0)
      return [yield* look(fd, 0), yield* recv(fd, malloc(8), 8, 0x40), yield* look(fd, 0)]
    })
    expect(seen).toEqual([POLLERR, -111, 0])
  })

  test('no room: half of the buffer has to be free', () => {
    const r = start(function* () {
      const fd = yield* socket(2, 2, 0)
      yield* set_word(fd, SOL_SOCKET, 7, 2048) // SO_SNDBUF: doubled
      const to = sockaddr_in(malloc(16), inet_addr('10.0.0.9'), 9) // nobody answers: packets wait for the neighbour
      const masks: number[] = []
      for (let k = 0; k < 3; k++) {
        yield* sendto(fd, malloc(1400), 1400, 0x40, to, 16)
        masks.push((yield* look(fd)) & POLLOUT)
      }
      const n = yield* look(fd, POLLOUT, 10_000)
      return [...masks, n]
    })
    expect(finish(s, r, 10_000)).toEqual([POLLOUT, 0, 0, POLLOUT])
  })

  test.each([0, 1, 50, 999])('%i ms are not too few', ms => {
    const program = function* (): Generator<void, number[], void> {
      const fd = yield* bound(7003)
      const before = yield* gettimeofday()
      return [yield* look(fd, POLLIN, ms), (yield* gettimeofday()) - before]
    }
    const [n, us] = finish(s, start(program), 3000) as [number, number]
    expect(n).toBe(0)
    expect(us).toBeGreaterThanOrEqual(ms * 1000)
    expect(us).toBeLessThan(ms === 0 ? 1000 : ms * 1000 + 25_000)
  })

  test.each([-1, 5000])('%i ms: a datagram wakes at once; all processes that wait are told', ms => {
    const first = start(() => waiter(7004, ms))
    const second = start(() => waiter(7005, ms))
    s.pass(20)
    expect([first.done, second.done]).toEqual([false, false])
    const frame = (dport: number): Uint8Array =>
      udpFrame({ src: '10.0.0.2', dst: '10.0.0.1', sport: 9, dport }, new Uint8Array(3))
    s.send(0, frame(7004))
    s.pass(1)
    expect([first.done, second.done]).toEqual([true, false])
    s.send(0, frame(7005))
    expect([finish(s, first), finish(s, second)]).toEqual([POLLIN, POLLIN])
  })
  function* waiter(port: number, ms: number): Libc {
    const fd = yield* socket(2, 2, 0)
    yield* bind(fd, sockaddr_in(malloc(16), 0, port), 16)
    return yield* look(fd, POLLIN, ms)
  }

  test('two threads wait for one socket: both are told', () => {
    let fd = -1
    const one = start(function* () {
      fd = yield* bound(7006)
      return yield* look(fd, POLLIN, 500)
    })
    s.pass(5)
    const two = start(() => look(fd, POLLIN, 500), { shares: one.task })
    s.pass(5)
    run(s, () => client(7006))
    expect([finish(s, one), finish(s, two)]).toEqual([POLLIN, POLLIN])
  })
  function* client(port: number): Libc {
    const fd = yield* socket(2, 2, 0)
    return yield* sendto(fd, malloc(8), 1, 0, here(port), 16)
  }

  test('a socket that is closed by another thread is held until the end', () => {
    let fd = -1
    const one = start(function* () {
      fd = yield* bound(7007)
      return yield* look(fd, POLLIN, 100)
    })
    s.pass(5)
    expect(
      finish(
        s,
        start(() => close(fd), { shares: one.task }),
      ),
    ).toBe(0)
    s.pass(5)
    expect(one.done).toBe(false)
    expect(finish(s, one)).toBe(POLLNVAL)
  })

  test('a signal ends it', () => {
    const program = function* (): Generator<void, number[], void> {
      const fd = yield* bound(7008)
      const came = yield* on_signals(SIGALRM)
      yield* alarm(1)
      return [yield* look(fd, POLLIN, -1), came()]
    }
    expect(finish(s, start(program), 3000)).toEqual([-EINTR, 14])
  })

  test('many descriptors: some open, some not, some negative', () => {
    const seen = run(s, function* () {
      const a = yield* bound(7009)
      const b = yield* bound(7010)
      yield* sendto(a, malloc(8), 1, 0, here(7010), 16)
      const fds = pollfds([a, POLLIN], [77, POLLIN], [-1, ALL], [b, POLLIN])
      const n = yield* poll(fds, 4, 1000)
      return [n, ...[0, 1, 2, 3].map(k => revents(fds, k))]
    })
    expect(seen).toEqual([2, 0, POLLNVAL, 0, POLLIN])
  })

  test('a datagram with a wrong checksum is none', () => {
    const r = start(function* () {
      const fd = yield* socket(2, 2, 0)
      yield* bind(fd, sockaddr_in(malloc(16), 0, 7011), 16)
      return yield* look(fd, POLLIN, 50)
    })
    s.pass(5)
    const frame = udpFrame({ src: '10.0.0.2', dst: '10.0.0.1', sport: 9, dport: 7011 }, new Uint8Array(9))
    const errors = udp_stats.InErrors
    frame[14 + 20 + 8]! ^= 1
    s.send(0, frame)
    expect(finish(s, r)).toBe(0)
    expect(udp_stats.InErrors).toBe(errors + 1)
  })

  test.each<[string, () => Libc, number]>([
    ['a pointer that leads nowhere', () => poll(BAD, 1, 0), -EFAULT],
    ['more than there can be', () => poll(malloc(8), 1025, 0), -EINVAL],
    ['a negative number', () => poll(malloc(8), -1, 0), -EINVAL],
    ['none at all', () => poll(0, 0, 1), 0],
  ])('%s', (_what, program, errno) => {
    expect(run(s, program)).toBe(errno)
  })
})

describe('select', () => {
  test('which can be read, which written; what is left of the time', () => {
    const seen = run(s, function* () {
      const a = yield* bound(7020)
      const b = yield* bound(7021)
      yield* sendto(a, malloc(8), 1, 0, here(7021), 16)
      const [r, w, x, tv] = [set(a, b), set(a), set(a, b), timeval(5_000_000)]
      const n = yield* select(b + 1, r, w, x, tv)
      return [n, load32(r) === 1 << b, load32(w) === 1 << a, load32(x), load32(tv)]
    })
    expect(seen).toEqual([2, true, true, 0, 5])
  })

  test('descriptors from n on are nobody’s concern', () => {
    const n = run(s, function* () {
      const fd = yield* bound(7022)
      return yield* select(fd, 0, set(fd), 0, timeval(0))
    })
    expect(n).toBe(0)
  })

  test.each([0, 1000, 250_000, 1_500_000])('%i us are not too few, and all are used up', us => {
    const program = function* (): Generator<void, number[], void> {
      const fd = yield* bound(7023)
      const tv = timeval(us)
      const r = set(fd)
      const before = yield* gettimeofday()
      const got = yield* select(fd + 1, r, 0, 0, tv)
      return [got + load32(r), (yield* gettimeofday()) - before, load32(tv) + load32(tv + 4)]
    }
    const [n, took, left] = finish(s, start(program), 3000) as [number, number, number]
    expect([n, left]).toEqual([0, 0])
    expect(took).toBeGreaterThanOrEqual(us === 0 ? 0 : us - 10_000) // whole jiffies, from the last tick on
    expect(took).toBeLessThan(us + 25_000)
  })

  test('without a timeval it waits for as long as it takes, and tells each of several sets', () => {
    const r = start(function* () {
      const fd = yield* bound(7024)
      const [inp, exp] = [set(fd), set(fd)]
      const n = yield* select(fd + 1, inp, 0, exp, 0)
      return [n, load32(inp) === 1 << fd, load32(exp)]
    })
    s.pass(3000)
    expect(r.done).toBe(false)
    run(s, function* () {
      const fd = yield* socket(2, 2, 0)
      return yield* sendto(fd, malloc(8), 1, 0, here(7024), 16)
    })
    expect(finish(s, r)).toEqual([1, true, 0])
  })

  const fd0 = function* (f: (fd: number) => Libc): Libc {
    return yield* f(yield* socket(2, 2, 0))
  }
  test.each<[string, () => Libc, number]>([
    ['a negative number', () => select(-1, 0, 0, 0, timeval(0)), -EINVAL],
    ['a descriptor that is not open', () => select(90, set(89), 0, 0, timeval(0)), -EBADF],
    ['one that a process cannot have', () => select(1024, set(1000), 0, 0, timeval(0)), -EBADF],
    ['a set that leads nowhere', () => fd0(fd => select(fd + 1, BAD, 0, 0, timeval(0))), -EFAULT],
    ['a timeval that leads nowhere', () => fd0(fd => select(fd + 1, 0, set(fd), 0, BAD)), -EFAULT],
    ['negative time', () => fd0(fd => select(fd + 1, 0, set(fd), 0, timeval_of(-1, 0))), -EINVAL],
    ['nothing to look at', () => select(0, 0, 0, 0, timeval(1000)), 0],
    ['more descriptors than there are', () => fd0(fd => select(5000, 0, set(fd), 0, timeval(0))), 1],
  ])('%s', (_what, program, errno) => {
    expect(run(s, program)).toBe(errno)
  })
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
