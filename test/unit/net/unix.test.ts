/** Datagram sockets of AF_UNIX through the system calls, on one CPU. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import {
  EACCES,
  EADDRINUSE,
  EAGAIN,
  ECONNREFUSED,
  ECONNRESET,
  EFAULT,
  EINVAL,
  EMFILE,
  EMSGSIZE,
  ENOENT,
  ENOTCONN,
  EOPNOTSUPP,
  EPERM,
  EPIPE,
  EPROTONOSUPPORT,
  ESOCKTNOSUPPORT,
} from '../../../src/lib/errno.js'
import {
  bind,
  close,
  connect,
  dup,
  getpeername,
  getpid,
  getsockname,
  getsockopt,
  type Libc,
  load32,
  malloc,
  mem,
  nanosleep,
  recv,
  recvfrom,
  recvmsg,
  send,
  sendmsg,
  sendto,
  set_word,
  setsockopt,
  shutdown,
  sockaddr_un,
  socket,
  socketpair,
  store32,
  unlink,
  variable,
} from '../../../src/user/libc.js'
import { message } from '../../../src/user/msg.js'
import { finish, run, start } from '../../helpers/programs.js'
import { Script } from '../../helpers/script.js'

const s = new Script({ ports: [], config: { user_procs: 4 } })
const [UNIX, DGRAM] = [1, 2]
const BAD = 0xdead0000 | 0
const unix = (): Libc => socket(UNIX, DGRAM, 0)
const called = (f: (fd: number, at: number, len: number) => Libc, fd: number, name: string): Libc => {
  const at = malloc(110)
  return f(fd, at, sockaddr_un(at, name))
}
const bind_to = (fd: number, name: string): Libc => called(bind, fd, name)
const connect_to = (fd: number, name: string): Libc => called(connect, fd, name)
function send_to(fd: number, name: string, text = 'x', flags = 0): Libc {
  const buf = malloc(text.length)
  mem(buf, text.length).set([...text].map(c => c.charCodeAt(0)))
  return called((f, at, len) => sendto(f, buf, text.length, flags, at, len), fd, name)
}
function* bound(name: string): Libc {
  const fd = yield* unix()
  const err = yield* bind_to(fd, name)
  return err < 0 ? err : fd
}
function* text_of(fd: number, flags = 0x40): Generator<void, string | number, void> {
  const buf = malloc(64)
  const n = yield* recv(fd, buf, 64, flags)
  return n < 0 ? n : String.fromCharCode(...mem(buf, n))
}

describe('errno, in the order of 2.6.11', () => {
  test.each<[string, () => Libc, number]>([
    ['another protocol', () => socket(UNIX, DGRAM, 7), -EPROTONOSUPPORT],
    ['a type that there is not', () => socket(UNIX, 4, 0), -ESOCKTNOSUPPORT],
    [
      'bind: another family',
      function* () {
        const at = malloc(16)
        mem(at, 16).set([2, 0, 65])
        return yield* bind(yield* unix(), at, 16)
      },
      -EINVAL,
    ],
    [
      'bind: too long',
      function* () {
        return yield* bind(yield* unix(), malloc(128), 111)
      },
      -EINVAL,
    ],
    [
      'bind: twice',
      function* () {
        return yield* bind_to(yield* bound('\0a'), '\0b')
      },
      -EINVAL,
    ],
    [
      'bind: a name that is taken',
      function* () {
        yield* bound('\0c')
        return yield* bound('\0c')
      },
      -EADDRINUSE,
    ],
    [
      'connect: a path that is not there',
      function* () {
        return yield* connect_to(yield* unix(), '/tmp/none')
      },
      -ENOENT,
    ],
    [
      'connect: an abstract name that is not there',
      function* () {
        return yield* connect_to(yield* unix(), '\0none')
      },
      -ECONNREFUSED,
    ],
    [
      'connect: a fault',
      function* () {
        return yield* connect(yield* unix(), BAD, 8)
      },
      -EFAULT,
    ],
    [
      'send: to nobody',
      function* () {
        return yield* send(yield* unix(), malloc(4), 4, 0)
      },
      -ENOTCONN,
    ],
    [
      'send: MSG_OOB',
      function* () {
        return yield* send_to(yield* unix(), '\0none', 'x', 1)
      },
      -EOPNOTSUPP,
    ],
    [
      'send: a fault',
      function* () {
        const fd = yield* bound('\0d')
        return yield* called((f, at, len) => sendto(f, BAD, 4, 0, at, len), fd, '\0d')
      },
      -EFAULT,
    ],
    [
      'send: more than the buffer',
      function* () {
        const fd = yield* bound('\0e')
        yield* set_word(fd, 1, 7, 2048)
        return yield* called((f, at, len) => sendto(f, malloc(5000), 5000, 0, at, len), fd, '\0e')
      },
      -EMSGSIZE,
    ],
    [
      'recv: nothing there',
      function* () {
        return yield* recv(yield* unix(), malloc(4), 4, 0x40)
      },
      -EAGAIN,
    ],
    [
      'recv: MSG_OOB',
      function* () {
        return yield* recv(yield* unix(), malloc(4), 4, 1)
      },
      -EOPNOTSUPP,
    ],
    [
      'getpeername of who has none',
      function* () {
        return yield* getpeername(yield* unix(), malloc(110), variable(110))
      },
      -ENOTCONN,
    ],
    [
      'unlink: not there',
      function* () {
        return yield* unlink(malloc(8))
      },
      -ENOENT,
    ],
    ['unlink: a fault', () => unlink(BAD), -EFAULT],
    [
      'options of its own',
      function* () {
        return yield* setsockopt(yield* unix(), 0, 1, variable(1), 4)
      },
      -EOPNOTSUPP,
    ],
    [
      'the same, asked for',
      function* () {
        return yield* getsockopt(yield* unix(), 0, 1, variable(), variable(4))
      },
      -EOPNOTSUPP,
    ],
    ['socketpair of a family that cannot', () => socketpair(2, DGRAM, 0, malloc(8)), -EOPNOTSUPP],
    ['socketpair: a fault', () => socketpair(UNIX, DGRAM, 0, BAD), -EFAULT],
  ])('%s', (_what, program, errno) => {
    expect(run(s, program)).toBe(errno)
  })

  test('a pair that gets one descriptor only gets none', () => {
    const got = run(s, function* () {
      let last = 0
      for (let fd = yield* unix(); fd >= 0; fd = yield* dup(fd)) last = fd
      yield* close(last)
      const err = yield* socketpair(UNIX, DGRAM, 0, malloc(8))
      return [err, (yield* unix()) === last]
    })
    expect(got).toEqual([-EMFILE, true])
  })
})

test('messages keep their bounds and say who sent them; what does not fit is lost', () => {
  const got = run(s, function* () {
    const a = yield* bound('/run/a')
    const b = yield* bound('\0b1')
    yield* send_to(b, '/run/a', 'hello')
    yield* send_to(b, '/run/a', 'again')
    yield* send_to(yield* unix(), '/run/a', '')
    const buf = malloc(8)
    const from = malloc(110)
    const len = variable(110)
    const n = yield* recvfrom(a, buf, 3, 0, from, len)
    const sender = String.fromCharCode(...mem(from, load32(len)))
    const second = yield* text_of(a)
    store32(len, 110)
    const empty = yield* recvfrom(a, buf, 8, 0, from, len)
    return [n, sender, second, empty, load32(len), yield* unlink_path('/run/a')]
  })
  expect(got).toEqual([3, '\x01\0\0b1', 'again', 0, 0, 0])
})
function unlink_path(path: string): Libc {
  const at = malloc(120)
  sockaddr_un(at, path)
  return unlink(at + 2)
}

test('a path outlives its socket until it is unlinked; another user may not use it', () => {
  const got = run(s, function* () {
    const a = yield* bound('/run/x')
    const name = malloc(110)
    const len = variable(110)
    yield* getsockname(a, name, len)
    const own = String.fromCharCode(...mem(name + 2, load32(len) - 2))
    yield* close(a)
    const taken = yield* bound('/run/x')
    const refused = yield* connect_to(yield* unix(), '/run/x')
    const gone = yield* unlink_path('/run/x')
    const none = yield* connect_to(yield* unix(), '/run/x')
    const free = yield* bound('/run/x')
    return [own, taken, refused, gone, none, free > 0]
  })
  expect(got).toEqual(['/run/x\0', -EADDRINUSE, -ECONNREFUSED, 0, -ENOENT, true])
  const stranger = function* (): Generator<void, number[], void> {
    return [yield* unlink_path('/run/x'), yield* connect_to(yield* unix(), '/run/x')]
  }
  expect(run(s, stranger, { uid: 8 })).toEqual([-EACCES, -ECONNREFUSED])
  expect(run(s, () => unlink_path('/run/x'))).toBe(0)
})

test('a connected socket hears its peer only; who goes is missed', () => {
  const got = run(s, function* () {
    const server = yield* bound('\0server')
    const client = yield* bound('\0client')
    yield* connect_to(server, '\0client')
    const stranger = yield* send_to(yield* unix(), '\0server')
    const strange = yield* connect_to(yield* unix(), '\0server')
    yield* connect_to(client, '\0server')
    yield* send_to(client, '\0server', 'lost')
    yield* bound('\0third')
    yield* connect_to(server, '\0third') // the message of the old peer goes
    const reset = yield* recv(client, malloc(4), 4, 0x40)
    yield* close(server)
    const dead = yield* send(client, malloc(4), 4, 0)
    const then = yield* send(client, malloc(4), 4, 0)
    return [stranger, strange, reset, dead, then]
  })
  expect(got).toEqual([-EPERM, -EPERM, -ECONNRESET, -ECONNREFUSED, -ENOTCONN])
})

test('a pair talks both ways; shutdown ends hearing', () => {
  const got = run(s, function* () {
    const fds = malloc(8)
    const err = yield* socketpair(UNIX, DGRAM, 0, fds)
    const [a, b] = [load32(fds), load32(fds + 4)]
    yield* send(a, malloc(2), 2, 0)
    yield* send(b, malloc(3), 3, 0)
    const sizes = [yield* recv(a, malloc(8), 8, 0x40), yield* recv(b, malloc(8), 8, 0x40)]
    yield* shutdown(b, 0)
    return [err, ...sizes, yield* send(a, malloc(2), 2, 0), yield* recv(b, malloc(8), 8, 0)]
  })
  expect(got).toEqual([0, 3, 2, -EPIPE, 0])
})

test('the queue has a limit: EAGAIN at once, or sleep until the receiver takes something; who is gone wakes, too', () => {
  let sent = 0
  let first = 0
  let fd = 0
  const reader = start(function* (): Libc {
    fd = yield* bound('\0full')
    yield* nanosleep(30e6)
    for (let k = 0; k < 14; k++) yield* recv(fd, malloc(4), 4, 0)
    yield* nanosleep(30e6)
    return yield* close(fd)
  })
  const writer = start(function* (): Libc {
    const w = yield* unix()
    for (first = 0; (yield* send_to(w, '\0full', 'x', 0x40)) === 1; first++);
    const again = yield* send_to(w, '\0full', 'x', 0x40)
    for (sent = 0; ; sent++) {
      const n = yield* send_to(w, '\0full')
      if (n < 0) return again === -EAGAIN ? n : 0
    }
  })
  finish(s, reader, 200)
  expect(finish(s, writer, 50)).toBe(-ECONNREFUSED)
  expect([first, sent]).toEqual([11, 14])
})

test('names are given by themselves, and credentials are told to who asks for them', () => {
  const got = run(s, function* () {
    const server = yield* bound('\0creds')
    yield* set_word(server, 1, 16, 1)
    const client = yield* unix()
    yield* set_word(client, 1, 16, 1)
    yield* send_to(client, '\0creds')
    const m = message(malloc(8))
    yield* recvmsg(server, m.reset(8), 0)
    const [cred] = m.cmsgs()
    const len = load32(m.at + 4)
    const me = yield* getpid()
    return [cred!.level, cred!.type, load32(cred!.data) - me, load32(cred!.data + 4), len, mem(m.name + 2, 1)[0]]
  })
  expect(got).toEqual([1, 2, 0, 0, 8, 0])
  const claim = (uid: number) =>
    run(
      s,
      function* () {
        const fds = malloc(8)
        yield* socketpair(UNIX, DGRAM, 0, fds)
        const m = message(malloc(8))
        m.reset(1)
        ;[24, 1, 2, yield* getpid(), uid, 0].forEach((word, k) => {
          store32(m.control + 4 * k, word)
        })
        store32(m.at, 0)
        store32(m.at + 4, 0)
        store32(m.at + 20, 24)
        return yield* sendmsg(load32(fds), m.at, 0)
      },
      { uid: 5 },
    )
  expect([claim(5), claim(6)]).toEqual([1, -EPERM])
})

test('a socket is closed with messages in it and a peer that points to itself: nothing leaks', () => {
  run(s, function* () {
    const a = yield* bound('\0self')
    yield* connect_to(a, '\0self')
    yield* send(a, malloc(4), 4, 0)
    yield* bound('/left/behind')
    return 0
  })
  expect(s.solo.audit()).toEqual([])
})
