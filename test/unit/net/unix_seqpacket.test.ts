/** Unix sockets of packets in sequence: listen, connect, accept, through the system calls on one CPU. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import {
  EAGAIN,
  EBADF,
  ECONNREFUSED,
  ECONNRESET,
  EFAULT,
  EINTR,
  EINVAL,
  EISCONN,
  ENOTCONN,
  EOPNOTSUPP,
  EPIPE,
  EPROTOTYPE,
  ESOCKTNOSUPPORT,
} from '../../../src/lib/errno.js'
import { unix_tot_inflight } from '../../../src/net/unix/garbage.js'
import {
  accept,
  alarm,
  bind,
  close,
  connect,
  fcntl,
  getpeername,
  getsockname,
  getsockopt,
  ioctl,
  type Libc,
  listen,
  load32,
  malloc,
  mem,
  nanosleep,
  poll,
  recv,
  recvmsg,
  send,
  sendmsg,
  sendto,
  setsockopt,
  shutdown,
  sockaddr_un,
  socket,
  socketpair,
  store32,
  variable,
  with_words,
} from '../../../src/user/libc.js'
import { sigaction } from '../../../src/user/libsignal.js'
import { message } from '../../../src/user/msg.js'
import { finish, run, start } from '../../helpers/programs.js'
import { Script } from '../../helpers/script.js'

const s = new Script({ ports: [], config: { user_procs: 4 } })
const [UNIX, STREAM, DGRAM, SEQPACKET] = [1, 1, 2, 5]
const [DONTWAIT, BAD] = [0x40, 0xdead0000 | 0]
const SIGALRM = 14
const F_SETFL = 4
const O_NONBLOCK = 0o4000
const [POLLIN, POLLOUT, POLLHUP] = [1, 4, 0x10]
const [FIONREAD, SIOCOUTQ] = [0x541b, 0x5411]
const [SO_PEERCRED, SO_SNDTIMEO, SO_ACCEPTCONN] = [17, 21, 30]

const seq = (): Libc => socket(UNIX, SEQPACKET, 0)
function called(f: (fd: number, at: number, len: number) => Libc, fd: number, name: string): Libc {
  const at = malloc(110)
  return f(fd, at, sockaddr_un(at, name))
}
const connect_to = (fd: number, name: string): Libc => called(connect, fd, name)
function* bound(name: string, type = SEQPACKET): Libc {
  const fd = yield* socket(UNIX, type, 0)
  yield* called(bind, fd, name)
  return fd
}
function* listening(name: string, backlog = 5): Libc {
  const fd = yield* bound(name)
  expect(yield* listen(fd, backlog)).toBe(0)
  return fd
}
function* connected(name: string): Libc {
  const fd = yield* seq()
  const err = yield* connect_to(fd, name)
  return err < 0 ? err : fd
}
function* say(fd: number, text: string, flags = 0): Libc {
  const buf = malloc(text.length)
  mem(buf, text.length).set([...text].map(c => c.charCodeAt(0)))
  return yield* send(fd, buf, text.length, flags)
}
function* hear(fd: number, flags = DONTWAIT): Generator<void, string | number, void> {
  const buf = malloc(64)
  const n = yield* recv(fd, buf, 64, flags)
  return n <= 0 ? n : String.fromCharCode(...mem(buf, n))
}
function* events(fd: number): Libc {
  const at = malloc(8)
  store32(at, fd)
  store32(at + 4, POLLIN | POLLOUT)
  yield* poll(at, 1, 0)
  return load32(at + 4) >>> 16
}
/** A message that carries the file. */
function* pass(to: number, fd: number): Libc {
  const m = message(malloc(8))
  m.reset(1)
  ;[16, 1, 1, fd].forEach((word, k) => {
    store32(m.control + 4 * k, word)
  })
  store32(m.at, 0)
  store32(m.at + 4, 0)
  store32(m.at + 20, 16)
  return yield* sendmsg(to, m.at, 0)
}

describe('errno, in the order of 2.6.11', () => {
  test.each<[string, () => Libc, number]>([
    ['streams are not there yet', () => socket(UNIX, STREAM, 0), -ESOCKTNOSUPPORT],
    ['listen: not open', () => listen(99, 1), -EBADF],
    [
      'listen: a socket of datagrams',
      function* () {
        return yield* listen(yield* bound('\0l0', DGRAM), 1)
      },
      -EOPNOTSUPP,
    ],
    [
      'listen: without a name',
      function* () {
        return yield* listen(yield* seq(), 1)
      },
      -EINVAL,
    ],
    [
      'listen: when connected',
      function* () {
        yield* listening('\0l1')
        const fd = yield* bound('\0l2')
        yield* connect_to(fd, '\0l1')
        return yield* listen(fd, 1)
      },
      -EINVAL,
    ],
    [
      'listen: again, with another backlog',
      function* () {
        return yield* listen(yield* listening('\0l3'), 7)
      },
      0,
    ],
    [
      'accept: one that does not listen',
      function* () {
        return yield* accept(yield* bound('\0l4'), 0, 0)
      },
      -EINVAL,
    ],
    [
      'accept: a socket of datagrams',
      function* () {
        return yield* accept(yield* bound('\0l5', DGRAM), 0, 0)
      },
      -EOPNOTSUPP,
    ],
    [
      'accept: nobody there',
      function* () {
        const fd = yield* listening('\0l6')
        yield* fcntl(fd, F_SETFL, O_NONBLOCK)
        return yield* accept(fd, 0, 0)
      },
      -EAGAIN,
    ],
    [
      'accept: a bad address costs the connection',
      function* () {
        const fd = yield* listening('\0l7')
        const c = yield* connected('\0l7')
        const err = yield* accept(fd, BAD, BAD)
        return (yield* hear(c)) === 0 ? err : 0
      },
      -EFAULT,
    ],
    [
      'accept: shut down',
      function* () {
        const fd = yield* listening('\0l8')
        yield* shutdown(fd, 0)
        return yield* accept(fd, 0, 0)
      },
      -EINVAL,
    ],
    ['connect: nobody of that name', () => connected('\0none'), -ECONNREFUSED],
    [
      'connect: one that does not listen',
      function* () {
        yield* bound('\0c1')
        return yield* connected('\0c1')
      },
      -ECONNREFUSED,
    ],
    [
      'connect: one that is shut down',
      function* () {
        yield* shutdown(yield* listening('\0c2', 0), 0)
        return yield* connected('\0c2')
      },
      -ECONNREFUSED,
    ],
    [
      'connect: another type',
      function* () {
        yield* bound('\0c3', DGRAM)
        return yield* connected('\0c3')
      },
      -EPROTOTYPE,
    ],
    [
      'connect: a datagram socket to one that listens',
      function* () {
        yield* listening('\0c4')
        return yield* connect_to(yield* socket(UNIX, DGRAM, 0), '\0c4')
      },
      -EPROTOTYPE,
    ],
    [
      'connect: twice',
      function* () {
        yield* listening('\0c5')
        return yield* connect_to(yield* connected('\0c5'), '\0c5')
      },
      -EISCONN,
    ],
    [
      'connect: to itself',
      function* () {
        return yield* connect_to(yield* listening('\0c6'), '\0c6')
      },
      -EINVAL,
    ],
    [
      'connect: AF_UNSPEC ends no connection',
      function* () {
        yield* listening('\0c7')
        return yield* connect(yield* connected('\0c7'), malloc(8), 2)
      },
      -EINVAL,
    ],
    [
      'send: not connected',
      function* () {
        return yield* say(yield* seq(), 'x')
      },
      -ENOTCONN,
    ],
    [
      'send: not connected, whatever name is given',
      function* () {
        yield* bound('\0c8', DGRAM)
        return yield* called((f, at, len) => sendto(f, at, 1, 0, at, len), yield* seq(), '\0c8')
      },
      -ENOTCONN,
    ],
    [
      'recv: not connected',
      function* () {
        return yield* recv(yield* seq(), malloc(4), 4, 0)
      },
      -ENOTCONN,
    ],
    [
      'getpeername: not connected',
      function* () {
        return yield* getpeername(yield* listening('\0c9'), malloc(110), variable(110))
      },
      -ENOTCONN,
    ],
    [
      'FIONREAD of one that listens',
      function* () {
        return yield* ioctl(yield* listening('\0c10'), FIONREAD, variable())
      },
      -EINVAL,
    ],
  ])('%s', (_what, program, errno) => {
    expect(run(s, program)).toBe(errno)
    expect(s.solo.audit()).toEqual([])
  })
})

test('a server and a client: packets keep their bounds and order, either end knows the other', () => {
  let seen: unknown[] = []
  const server = start(
    function* (): Libc {
      const l = yield* listening('/run/seq')
      const from = malloc(110)
      const len = variable(110)
      const fd = yield* accept(l, from, len) // sleeps
      const peer = String.fromCharCode(...mem(from + 2, load32(len) - 2))
      const heard = [yield* hear(fd, 0), yield* hear(fd, 0), yield* hear(fd, 0)]
      const cred = malloc(12)
      yield* getsockopt(fd, 1, SO_PEERCRED, cred, variable(12))
      seen = [peer, ...heard, load32(cred + 4)]
      const here = malloc(110)
      store32(len, 110)
      yield* getsockname(fd, here, len)
      seen.push(String.fromCharCode(...mem(here + 2, load32(len) - 2)))
      yield* say(fd, 'answer')
      const end = yield* hear(fd, 0)
      yield* close(fd)
      return end as number
    },
    { uid: 3 },
  )
  s.pass(2)
  const client = start(
    function* (): Libc {
      const fd = yield* bound('\0client')
      expect(yield* connect_to(fd, '/run/seq')).toBe(0)
      for (const text of ['one', 'two two', 'three']) yield* say(fd, text)
      const cred = malloc(12)
      yield* getsockopt(fd, 1, SO_PEERCRED, cred, variable(12))
      const answer = yield* hear(fd, 0)
      seen.push(answer)
      expect(load32(cred + 4)).toBe(3)
      return yield* close(fd)
    },
    { uid: 3 },
  )
  expect([finish(s, client), finish(s, server)]).toEqual([0, 0])
  expect(seen).toEqual(['\0client', 'one', 'two two', 'three', 3, '/run/seq\0', 'answer'])
})

describe('the end of a connection', () => {
  function* both(name: string): Generator<void, [number, number], void> {
    const l = yield* listening(name)
    const c = yield* connected(name)
    const a = yield* accept(l, 0, 0)
    yield* close(l)
    return [c, a]
  }
  test('who goes when all is read: the other hears the end, and may not send', () => {
    const got = run(s, function* () {
      const [c, a] = yield* both('\0e1')
      yield* say(a, 'last')
      yield* close(a)
      const poll1 = yield* events(c)
      return [poll1 & (POLLIN | POLLHUP), yield* hear(c), yield* hear(c), yield* hear(c, 0), yield* say(c, 'x')]
    })
    expect(got).toEqual([POLLIN | POLLHUP, 'last', 0, 0, -EPIPE])
  })
  test('who goes without having read: the other hears of that once', () => {
    const got = run(s, function* () {
      const [c, a] = yield* both('\0e2')
      yield* say(c, 'lost')
      yield* close(a)
      return [yield* say(c, 'x'), yield* hear(c), yield* say(c, 'x')]
    })
    expect(got).toEqual([-ECONNRESET, 0, -EPIPE])
  })
  test('a listener that goes resets those whom nobody accepted', () => {
    const got = run(s, function* () {
      const l = yield* listening('\0e3')
      const one = yield* connected('\0e3')
      const two = yield* connected('\0e3')
      yield* say(two, 'lost')
      yield* close(l)
      return [yield* hear(one), yield* hear(one), yield* say(two, 'x'), yield* hear(two)]
    })
    expect(got).toEqual([-ECONNRESET, 0, -ECONNRESET, 0])
    expect(s.solo.audit()).toEqual([])
  })
  test('shutdown of one half is the other half of the other end', () => {
    const got = run(s, function* () {
      const [c, a] = yield* both('\0e4')
      yield* shutdown(c, 1)
      const half = [yield* say(c, 'x'), yield* hear(a), yield* say(a, 'still'), yield* hear(c)]
      yield* shutdown(c, 0)
      return [...half, yield* say(a, 'x'), (yield* events(a)) & POLLHUP]
    })
    expect(got).toEqual([-EPIPE, 0, 5, 'still', -EPIPE, POLLHUP])
  })
  test('somebody who sleeps in recv is woken by it', () => {
    let a = 0
    const reader = start(function* () {
      let c = 0
      ;[c, a] = yield* both('\0e5')
      return yield* hear(c, 0)
    })
    s.pass(2)
    const closer = start(() => close(a), { shares: reader.task })
    expect([finish(s, closer), finish(s, reader)]).toEqual([0, 0])
  })
})

describe('the backlog', () => {
  test('one more than it says; then EAGAIN, or sleep until one is accepted', () => {
    let late = 0
    const server = start(function* (): Libc {
      const l = yield* listening('\0b1', 1)
      yield* nanosleep(50e6)
      const before = late
      yield* accept(l, 0, 0)
      yield* nanosleep(20e6)
      return before === 0 && late > 0 ? 0 : 1
    })
    s.pass(2)
    const client = start(function* () {
      const in_time = [(yield* connected('\0b1')) >= 0, (yield* connected('\0b1')) >= 0]
      const fd = yield* seq()
      yield* fcntl(fd, F_SETFL, O_NONBLOCK)
      const full = yield* connect_to(fd, '\0b1')
      const slow = yield* seq()
      yield* with_words([0, 10_000], at => setsockopt(slow, 1, SO_SNDTIMEO, at, 8))
      const timed_out = yield* connect_to(slow, '\0b1')
      late = yield* connected('\0b1')
      return [...in_time, full, timed_out]
    })
    expect(finish(s, server)).toBe(0)
    expect(finish(s, client)).toEqual([true, true, -EAGAIN, -EAGAIN])
    expect(late).toBeGreaterThan(0)
  })
  test('a larger one wakes who waits', () => {
    let l = 0
    const server = start(function* (): Libc {
      l = yield* listening('\0b2', 0)
      yield* nanosleep(30e6)
      yield* listen(l, 4)
      return yield* nanosleep(50e6)
    })
    s.pass(2)
    const client = start(function* () {
      return [(yield* connected('\0b2')) >= 0, (yield* connected('\0b2')) >= 0]
    })
    expect(finish(s, client, 45)).toEqual([true, true])
    finish(s, server)
  })
  test('a signal ends the wait of connect, and of accept', () => {
    const waits = start(function* () {
      yield* sigaction(SIGALRM, function* () {
        return 0
      })
      const l = yield* listening('\0b4', 0)
      yield* connected('\0b4')
      yield* alarm(1)
      const err = yield* connected('\0b4')
      yield* accept(l, 0, 0)
      yield* alarm(1)
      return [err, yield* accept(l, 0, 0)]
    })
    expect(finish(s, waits, 2500)).toEqual([-EINTR, -EINTR])
  })
  test('who waits for a listener that goes is refused', () => {
    const server = start(function* (): Libc {
      const l = yield* listening('\0b3', 0)
      yield* nanosleep(30e6)
      return yield* close(l)
    })
    s.pass(2)
    const client = start(function* () {
      yield* connected('\0b3')
      return yield* connected('\0b3')
    })
    expect(finish(s, client)).toBe(-ECONNREFUSED)
    finish(s, server)
  })
})

test('a listener is readable when somebody waits, and says what it is', () => {
  const got = run(s, function* () {
    const l = yield* listening('\0p1')
    const before = (yield* events(l)) & POLLIN
    const c = yield* connected('\0p1')
    const is = variable()
    yield* getsockopt(l, 1, SO_ACCEPTCONN, is, variable(4))
    return [before, (yield* events(l)) & POLLIN, (yield* events(c)) & (POLLIN | POLLOUT | POLLHUP), load32(is)]
  })
  expect(got).toEqual([0, POLLIN, POLLOUT, 1])
})

test('SIOCINQ says what all calls together can receive, SIOCOUTQ what is not received', () => {
  const got = run(s, function* () {
    const fds = malloc(8)
    yield* socketpair(UNIX, SEQPACKET, 0, fds)
    const [a, b] = [load32(fds), load32(fds + 4)]
    yield* say(a, 'four')
    yield* say(a, 'and eight')
    const at = variable()
    yield* ioctl(b, FIONREAD, at)
    const waits = load32(at)
    yield* ioctl(a, SIOCOUTQ, at)
    const out = load32(at) > waits
    yield* hear(b)
    yield* hear(b)
    yield* ioctl(a, SIOCOUTQ, at)
    return [waits, out, load32(at)]
  })
  expect(got).toEqual([13, true, 0])
})

describe('files in flight', () => {
  test('one that was sent before the connection was accepted arrives, and its socket lives', () => {
    const got = run(s, function* () {
      const l = yield* listening('\0f1')
      const c = yield* connected('\0f1')
      const fds = malloc(8)
      yield* socketpair(UNIX, DGRAM, 0, fds)
      yield* say(load32(fds), 'in there')
      yield* pass(c, load32(fds + 4))
      yield* close(load32(fds + 4)) // now it lies in a connection that nobody has accepted
      yield* close(yield* seq()) // the collector looks
      const a = yield* accept(l, 0, 0)
      const m = message(malloc(8))
      yield* recvmsg(a, m.reset(8), 0)
      const [rights] = m.cmsgs()
      return [yield* hear(load32(rights!.data)), unix_tot_inflight()]
    })
    expect(got).toEqual(['in there', 0])
  })
  test('a listener that lies in a connection of its own is garbage', () => {
    run(s, function* () {
      const l = yield* listening('\0f2')
      const c = yield* connected('\0f2')
      yield* pass(c, l)
      yield* close(c)
      yield* close(l)
      expect(unix_tot_inflight()).toBe(1)
      yield* close(yield* seq())
      expect(unix_tot_inflight()).toBe(0)
      return 0
    })
    expect(s.solo.audit()).toEqual([])
  })
  test('one that is open still keeps all that lies in its connections', () => {
    const got = run(s, function* () {
      const l = yield* listening('\0f3')
      const c = yield* connected('\0f3')
      yield* pass(c, l)
      yield* close(c)
      yield* close(yield* seq())
      const held = unix_tot_inflight()
      const a = yield* accept(l, 0, 0)
      const m = message(malloc(8))
      const n = yield* recvmsg(a, m.reset(8), 0)
      return [held, n, unix_tot_inflight()]
    })
    expect(got).toEqual([1, 1, 0])
  })
})
