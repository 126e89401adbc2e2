/**
 * Every bad argument of the socket calls gets the errno of Linux 2.6.11: the tables follow the Linux Test Project's network
 * system-call tests of that time (socket01, bind01, connect01, sendto01, ...), as far as datagrams go.
 */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import type { file_operations } from '../../../src/fs/file.js'
import { fd_install, get_empty_filp, get_unused_fd } from '../../../src/fs/file.js'
import {
  EADDRNOTAVAIL,
  EAFNOSUPPORT,
  EAGAIN,
  EBADF,
  EDESTADDRREQ,
  EDOM,
  EFAULT,
  EINTR,
  EINVAL,
  EMFILE,
  EMSGSIZE,
  ENOBUFS,
  ENODEV,
  ENOPROTOOPT,
  ENOSYS,
  ENOTCONN,
  ENOTSOCK,
  EOPNOTSUPP,
  EPERM,
  ESOCKTNOSUPPORT,
} from '../../../src/lib/errno.js'
import { slabinfo } from '../../../src/mm/slab.js'
import {
  accept,
  alarm,
  bind,
  close,
  connect,
  dup,
  dup2,
  fcntl,
  getpeername,
  getsockname,
  getsockopt,
  inet_addr,
  type Libc,
  listen,
  load32,
  malloc,
  mem,
  nanosleep,
  read,
  recv,
  recvfrom,
  recvmsg,
  sendmsg,
  sendto,
  setsockopt,
  setuid,
  shutdown,
  sin_addr,
  sin_port,
  sockaddr_in,
  socket,
  socketpair,
  store32,
  syscall,
  variable,
  write,
} from '../../../src/user/libc.js'
import { iovec, readv, writev } from '../../../src/user/libc_file.js'
import { on_signals, SIGALRM } from '../../../src/user/libsignal.js'
import { finish, run, start } from '../../helpers/programs.js'
import { Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [{ addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] }],
  config: { loopback: 1, user_procs: 4 },
})
const AF_INET = 2
const SOCK_DGRAM = 2
const SOL_SOCKET = 1
const BAD = 0xdead0000 | 0

/** A descriptor that is no socket. */
const nothing: file_operations = {
  *read() {
    return 0
  },
  *write(_filp, _buf, count) {
    return count
  },
  *readv() {
    return 0
  },
  *writev() {
    return 0
  },
  *ioctl() {
    return 0
  },
  *release() {},
}
const nothing_sym = symbol('test_nothing', nothing)
function not_a_socket(): number {
  const fd = get_unused_fd()
  fd_install(fd, get_empty_filp(nothing_sym, 0, 2)!)
  return fd
}
const udp = (): Libc => socket(AF_INET, SOCK_DGRAM, 0)
const here = (port = 0): number => sockaddr_in(malloc(16), inet_addr('127.0.0.1'), port)
function* bound(port: number): Libc {
  const fd = yield* udp()
  yield* bind(fd, here(port), 16)
  return fd
}

type Cases = [what: string, program: () => Libc, errno: number][]
function table(name: string, cases: Cases): void {
  describe(name, () => {
    test.each(cases)('%s', (_what, program, errno) => {
      const got = run(s, program)
      expect(errno > 0 ? Math.sign(got + 1) : got).toBe(errno)
    })
  })
}

table('socket', [
  ['a domain that is none', () => socket(0, 1, 0), -EAFNOSUPPORT],
  ['a domain beyond all', () => socket(99, SOCK_DGRAM, 0), -EAFNOSUPPORT],
  ['a type beyond all', () => socket(AF_INET, 75, 0), -EINVAL],
  ['a family that is not there', () => socket(AF_INET + 8, SOCK_DGRAM, 0), -EAFNOSUPPORT],
  ['a type that the family has not', () => socket(AF_INET, 5, 0), -ESOCKTNOSUPPORT],
  ['UDP', () => socket(AF_INET, SOCK_DGRAM, 17), 1],
  ['a raw socket of any protocol', () => socket(AF_INET, 3, 0), -ESOCKTNOSUPPORT],
  ['a protocol of another type', () => socket(AF_INET, SOCK_DGRAM, 6), -ESOCKTNOSUPPORT],
  ['any protocol', () => socket(AF_INET, SOCK_DGRAM, 0), 1],
])

function* on(f: (fd: number) => Libc): Libc {
  return yield* f(yield* bound(7100 + (ports++ % 500)))
}
let ports = 0

table('bind', [
  ['a descriptor that is not open', () => bind(77, here(), 16), -EBADF],
  ['a file', () => bind(not_a_socket(), here(), 16), -ENOTSOCK],
  ['a negative length', () => free(fd => bind(fd, here(), -1)), -EINVAL],
  ['a length beyond all', () => free(fd => bind(fd, here(), 129)), -EINVAL],
  ["a length below an address's", () => free(fd => bind(fd, here(), 3)), -EINVAL],
  ['a pointer that leads nowhere', () => free(fd => bind(fd, BAD, 16)), -EFAULT],
  ['NULL', () => free(fd => bind(fd, 0, 16)), -EFAULT],
  [
    'an address that is not ours',
    () => free(fd => bind(fd, sockaddr_in(malloc(16), inet_addr('10.255.254.253'), 0), 16)),
    -EADDRNOTAVAIL,
  ],
  ['any address', () => free(fd => bind(fd, sockaddr_in(malloc(16), 0, 0), 16)), 1],
  ['twice', () => on(fd => bind(fd, here(7099), 16)), -EINVAL],
])
function* free(f: (fd: number) => Libc): Libc {
  return yield* f(yield* udp())
}

table('connect', [
  ['a descriptor that is not open', () => connect(77, here(9), 16), -EBADF],
  ['a file', () => connect(not_a_socket(), here(9), 16), -ENOTSOCK],
  ['a pointer that leads nowhere', () => free(fd => connect(fd, BAD, 16)), -EFAULT],
  ['a short address', () => free(fd => connect(fd, here(9), 3)), -EINVAL],
  ['another family', () => free(fd => connect(fd, sockaddr_in(malloc(16), 1, 9, 47), 16)), -EAFNOSUPPORT],
  ['nowhere', () => free(fd => connect(fd, sockaddr_in(malloc(16), inet_addr('192.0.2.1'), 9), 16)), -101],
  ['to ourselves', () => free(fd => connect(fd, here(9), 16)), 1],
])

const one = (): number => malloc(8)
table('sendto', [
  ['a descriptor that is not open', () => sendto(77, one(), 1, 0, here(9), 16), -EBADF],
  ['a file', () => sendto(not_a_socket(), one(), 1, 0, here(9), 16), -ENOTSOCK],
  ['a buffer that leads nowhere', () => free(fd => sendto(fd, BAD, 8, 0, here(9), 16)), -EFAULT],
  [
    'a buffer that ends too early',
    () => free(fd => sendto(fd, 0x08048000 + (1 << 18) - 4, 8, 0, here(9), 16)),
    -EFAULT,
  ],
  ['an address of negative length', () => free(fd => sendto(fd, one(), 1, 0, here(9), -1)), -EINVAL],
  ['an address that leads nowhere', () => free(fd => sendto(fd, one(), 1, 0, BAD, 16)), -EFAULT],
  ['more than a datagram', () => free(fd => sendto(fd, malloc(66_000), 0x10000, 0, here(9), 16)), -EMSGSIZE],
  ['MSG_OOB', () => free(fd => sendto(fd, one(), 1, 1, here(9), 16)), -EOPNOTSUPP],
  ['all right', () => free(fd => sendto(fd, one(), 1, 0, here(9), 16)), 1],
])

/** A socket that a datagram of one byte waits in. */
function* fed(f: (fd: number) => Libc): Libc {
  return yield* on(function* (fd) {
    const name = malloc(16)
    yield* getsockname(fd, name, variable(16))
    yield* sendto(fd, one(), 1, 0, name, 16)
    return yield* f(fd)
  })
}
table('recvfrom', [
  ['a descriptor that is not open', () => recvfrom(77, one(), 8, 0, malloc(16), variable(16)), -EBADF],
  ['a file', () => recvfrom(not_a_socket(), one(), 8, 0, malloc(16), variable(16)), -ENOTSOCK],
  ['a negative address length', () => fed(fd => recvfrom(fd, one(), 8, 0, malloc(16), variable(-1))), -EINVAL],
  ['an address that leads nowhere', () => fed(fd => recvfrom(fd, one(), 8, 0, BAD, variable(16))), -EFAULT],
  ['a length that leads nowhere', () => fed(fd => recvfrom(fd, one(), 8, 0, malloc(16), BAD)), -EFAULT],
  ['a buffer that leads nowhere', () => fed(fd => recvfrom(fd, BAD, 8, 0, malloc(16), variable(16))), -EFAULT],
  ['the error queue, which is empty', () => fed(fd => recv(fd, one(), 8, 0x2000)), -EAGAIN],
  ['all right', () => fed(fd => recvfrom(fd, one(), 8, 0, malloc(16), variable(16))), 1],
])

table('getsockname and getpeername', [
  ['a descriptor that is not open', () => getsockname(77, malloc(16), variable(16)), -EBADF],
  ['a file', () => getsockname(not_a_socket(), malloc(16), variable(16)), -ENOTSOCK],
  ['an address that leads nowhere', () => on(fd => getsockname(fd, BAD, variable(16))), -EFAULT],
  ['a length that leads nowhere', () => on(fd => getsockname(fd, malloc(16), BAD)), -EFAULT],
  ['a negative length', () => on(fd => getsockname(fd, malloc(16), variable(-1))), -EINVAL],
  ['the peer of nothing', () => getpeername(77, malloc(16), variable(16)), -EBADF],
  ['a peer, told to nowhere', () => paired(fd => getpeername(fd, BAD, variable(16))), -EFAULT],
  ['a peer, its length told to nowhere', () => paired(fd => getpeername(fd, malloc(16), BAD)), -EFAULT],
  ['a peer of negative length', () => paired(fd => getpeername(fd, malloc(16), variable(-1))), -EINVAL],
  ['a peer', () => paired(fd => getpeername(fd, malloc(16), variable(16))), 1],
  ['the peer of a file', () => getpeername(not_a_socket(), malloc(16), variable(16)), -ENOTSOCK],
  ['the peer of who has none', () => on(fd => getpeername(fd, malloc(16), variable(16))), -ENOTCONN],
])

/** One of two Unix sockets that are connected. */
function* paired(f: (fd: number) => Libc): Libc {
  const fds = malloc(8)
  yield* socketpair(1, SOCK_DGRAM, 0, fds)
  return yield* f(load32(fds))
}

const opt = (fd: number, level: number, name: number, val: number, len: number): Libc =>
  setsockopt(fd, level, name, val, len)
table('setsockopt', [
  ['a descriptor that is not open', () => opt(77, SOL_SOCKET, 10, variable(1), 4), -EBADF],
  ['a file', () => opt(not_a_socket(), SOL_SOCKET, 10, variable(1), 4), -ENOTSOCK],
  ['a negative length, even of nothing', () => opt(77, SOL_SOCKET, 10, variable(1), -1), -EINVAL],
  ['a value that leads nowhere', () => free(fd => opt(fd, SOL_SOCKET, 10, BAD, 4)), -EFAULT],
  ['no value', () => free(fd => opt(fd, SOL_SOCKET, 10, variable(1), 0)), -EINVAL],
  ['another level', () => free(fd => opt(fd, 500, 10, variable(1), 4)), -ENOPROTOOPT],
  ["UDP's own, unknown", () => free(fd => opt(fd, 17, 99, variable(1), 4)), -ENOPROTOOPT],
  ["IP's, unknown", () => free(fd => opt(fd, 0, 99, variable(1), 4)), -ENOPROTOOPT],
  ['the type, which is what it is', () => free(fd => opt(fd, SOL_SOCKET, 3, variable(1), 4)), -ENOPROTOOPT],
  ['a timeout of too many microseconds', () => free(fd => opt(fd, SOL_SOCKET, 20, pair(0, 1_000_000), 8)), -EDOM],
  ['a timeout of one word', () => free(fd => opt(fd, SOL_SOCKET, 20, pair(1, 0), 4)), -EINVAL],
  ['a device that is not there', () => free(fd => opt(fd, SOL_SOCKET, 25, name('nic7'), 5)), -ENODEV],
  ['a device, by who is not root', () => mortal(fd => opt(fd, SOL_SOCKET, 25, name('eth0'), 5)), -EPERM],
  ['a priority above 6, by who is not root', () => mortal(fd => opt(fd, SOL_SOCKET, 12, variable(7), 4)), -EPERM],
  ['a TOS of network control, by who is not root', () => mortal(fd => opt(fd, 0, 1, variable(0xc0), 4)), -EPERM],
  ['a TTL of 256', () => free(fd => opt(fd, 0, 2, variable(256), 4)), -EINVAL],
  ['all right', () => free(fd => opt(fd, SOL_SOCKET, 2, variable(1), 4)), 1],
])
function pair(a: number, b: number): number {
  const at = malloc(8)
  store32(at, a)
  store32(at + 4, b)
  return at
}
function name(text: string): number {
  const at = malloc(16)
  mem(at, text.length).set([...text].map(c => c.charCodeAt(0)))
  return at
}
function* mortal(f: (fd: number) => Libc): Libc {
  const fd = yield* udp()
  yield* setuid(1000)
  return yield* f(fd)
}

table('getsockopt', [
  ['a descriptor that is not open', () => getsockopt(77, SOL_SOCKET, 10, variable(), variable(4)), -EBADF],
  ['a file', () => getsockopt(not_a_socket(), SOL_SOCKET, 10, variable(), variable(4)), -ENOTSOCK],
  ['a value that leads nowhere', () => free(fd => getsockopt(fd, SOL_SOCKET, 10, BAD, variable(4))), -EFAULT],
  ['a length that leads nowhere', () => free(fd => getsockopt(fd, SOL_SOCKET, 10, variable(), BAD)), -EFAULT],
  ['another level', () => free(fd => getsockopt(fd, 500, 10, variable(), variable(4))), -EOPNOTSUPP],
  ["UDP's own, unknown", () => free(fd => getsockopt(fd, 17, 99, variable(), variable(4))), -ENOPROTOOPT],
  ["IP's, unknown", () => free(fd => getsockopt(fd, 0, 99, variable(), variable(4))), -ENOPROTOOPT],
  [
    'an option that there is none of',
    () => free(fd => getsockopt(fd, SOL_SOCKET, 99, variable(), variable(4))),
    -ENOPROTOOPT,
  ],
  ['a negative length', () => free(fd => getsockopt(fd, SOL_SOCKET, 10, variable(), variable(-1))), -EINVAL],
  ['all right', () => free(fd => getsockopt(fd, SOL_SOCKET, 10, variable(), variable(4))), 1],
])

table('calls that datagrams have not', [
  ['listen', () => on(fd => listen(fd, 5)), -EOPNOTSUPP],
  ['listen on nothing', () => listen(77, 5), -EBADF],
  ['listen on a file', () => listen(not_a_socket(), 5), -ENOTSOCK],
  ['accept', () => on(fd => accept(fd, 0, 0)), -EOPNOTSUPP],
  ['accept on a file', () => accept(not_a_socket(), malloc(16), variable(16)), -ENOTSOCK],
  ['accept on nothing', () => accept(77, 0, 0), -EBADF],
  ['a pair', () => socketpair(AF_INET, SOCK_DGRAM, 0, malloc(8)), -EOPNOTSUPP],
  ['a pair of a type beyond all', () => socketpair(AF_INET, 75, 0, malloc(8)), -EINVAL],
  ['a pair of raw sockets of any protocol', () => socketpair(AF_INET, 3, 0, malloc(8)), -ESOCKTNOSUPPORT],
  ['a pair of a protocol of another type', () => socketpair(AF_INET, SOCK_DGRAM, 6, malloc(8)), -ESOCKTNOSUPPORT],
  ['a pair of nothing', () => socketpair(0, SOCK_DGRAM, 0, malloc(8)), -EAFNOSUPPORT],
  ['shutdown of who is not connected', () => on(fd => shutdown(fd, 0)), -ENOTCONN],
  ['shutdown of something else', () => on(fd => shutdown(fd, 3)), -EINVAL],
  ['shutdown of nothing', () => on(fd => shutdown(fd, -1)), -EINVAL],
  ['a call that there is none of', () => syscall(999), -ENOSYS],
  ['socketcall 0', () => syscall(102, 0, 0), -EINVAL],
  ['socketcall 18', () => syscall(102, 18, malloc(24)), -EINVAL],
  ['socketcall with its arguments nowhere', () => syscall(102, 1, BAD), -EFAULT],
])

test('socketcall makes a socket as the direct call does', () => {
  const got = run(s, function* () {
    const args = malloc(24)
    for (const [k, word] of [AF_INET, SOCK_DGRAM, 0].entries()) store32(args + 4 * k, word)
    return yield* syscall(102, 1, args)
  })
  expect(got).toBe(0)
})

test('options are what they were set to, as Linux sees it', () => {
  const got = run(s, function* () {
    const fd = yield* udp()
    const out: Record<string, number | number[]> = {}
    const get = function* (what: string, level: number, opt: number): Libc {
      const value = variable(-77)
      yield* getsockopt(fd, level, opt, value, variable(4))
      out[what] = load32(value)
      return 0
    }
    yield* get('sndbuf', 1, 7)
    yield* get('type', 1, 3)
    for (const [opt, value] of [
      [7, 5000],
      [8, 1],
      [18, -1],
      [12, 5],
      [6, 9],
    ] as const)
      yield* setsockopt(fd, 1, opt, variable(value), 4)
    for (const [what, opt] of [
      ['snd', 7],
      ['rcv', 8],
      ['lowat', 18],
      ['prio', 12],
      ['broadcast', 6],
      ['error', 4],
    ] as const)
      yield* get(what, 1, opt)
    yield* setsockopt(fd, 1, 7, variable(1 << 30), 4)
    yield* get('most', 1, 7)
    yield* setsockopt(fd, 0, 2, variable(9), 4)
    yield* setsockopt(fd, 0, 1, variable(0x10), 4)
    for (const [what, opt] of [
      ['ttl', 2],
      ['tos', 1],
      ['pmtudisc', 10],
    ] as const)
      yield* get(what, 0, opt)
    yield* get('prio of tos', 1, 12)
    out['mtu'] = yield* getsockopt(fd, 0, 14, variable(), variable(4))
    yield* connect(fd, here(9), 16)
    yield* get('mtu of lo', 0, 14)
    const tv = malloc(8)
    yield* setsockopt(fd, 1, 20, pair(3, 250_000), 8)
    const len = variable(100)
    yield* getsockopt(fd, 1, 20, tv, len)
    out['tv'] = [load32(tv), load32(tv + 4), load32(len)]
    return out
  })
  const { sndbuf, most, ...rest } = got
  expect(sndbuf).toBeGreaterThan(100_000)
  expect(most).toBe(2 * (sndbuf as number))
  expect(rest).toEqual({
    ...{ type: 2, snd: 10_000, rcv: 256, lowat: 0x7fffffff, prio: 5, broadcast: 1, error: 0, ttl: 9, tos: 0x10 },
    ...{ pmtudisc: 1, 'prio of tos': 6, mtu: -ENOTCONN, 'mtu of lo': 16436, tv: [3, 250_000, 8] },
  })
})

test('names of both ends', () => {
  const got = run(s, function* () {
    const fd = yield* bound(7080)
    yield* connect(fd, here(9), 16)
    const a = malloc(16)
    const len = variable(6) // room for a part of it
    const err = yield* getsockname(fd, a, len)
    const part = [load32(len), sin_port(a), mem(a + 6, 10).every(b => b === 0)]
    yield* getpeername(fd, a, variable(16))
    return [err, ...part, sin_addr(a), sin_port(a)]
  })
  expect(got).toEqual([0, 16, 7080, true, ip('127.0.0.1'), 9])
})

describe('messages', () => {
  /** msghdr with these pieces. */
  function message(
    pieces: [number, number][],
    o: { name?: number; control?: number; controllen?: number } = {},
  ): number {
    const iov = malloc(8 * Math.max(1, pieces.length))
    for (const [k, [base, len]] of pieces.entries()) {
      store32(iov + 8 * k, base)
      store32(iov + 8 * k + 4, len)
    }
    const msg = malloc(28)
    const words = [o.name ?? 0, o.name === undefined ? 0 : 16, iov, pieces.length, o.control ?? 0, o.controllen ?? 0, 0]
    for (const [k, word] of words.entries()) store32(msg + 4 * k, word)
    return msg
  }
  test('are gathered and scattered, also over more than eight pieces', () => {
    const got = run(s, function* () {
      const fd = yield* bound(7090)
      const bytes = malloc(20)
      mem(bytes, 20).set(Array.from({ length: 20 }, (_, k) => k))
      const out = [
        yield* sendmsg(
          fd,
          message(
            Array.from({ length: 10 }, (_, k) => [bytes + 2 * k, 2]),
            { name: here(7090) },
          ),
          0,
        ),
      ]
      const back = malloc(24)
      const name = malloc(16)
      const msg = message(
        [
          [back, 3],
          [back + 4, 0],
          [back + 4, 20],
        ],
        { name },
      )
      out.push(yield* recvmsg(fd, msg, 0), sin_port(name), load32(msg + 24), ...mem(back, 24))
      return out
    })
    expect(got).toEqual([20, 20, 7090, 0, 0, 1, 2, 0, ...Array.from({ length: 17 }, (_, k) => k + 3), 0, 0, 0])
  })
  test('tell of what was cut off, and of the packet that they came in', () => {
    const got = run(s, function* () {
      const fd = yield* bound(7091)
      for (const opt of [8, 12]) yield* setsockopt(fd, 0, opt, variable(1), 4)
      yield* sendto(fd, malloc(8), 8, 0, here(7091), 16)
      yield* sendto(fd, malloc(8), 8, 0, here(7091), 16)
      yield* setsockopt(fd, 1, 29, variable(1), 4) // who asks too late is told of now
      const control = malloc(200)
      const msg = message([[malloc(4), 4]], { control, controllen: 200 })
      const out: unknown[] = [yield* recvmsg(fd, msg, 0), load32(msg + 24)]
      const types: number[][] = []
      const end = control + load32(msg + 20)
      for (let at = control; at < end; at += (load32(at) + 3) & ~3)
        types.push([load32(at + 4), load32(at + 8), load32(at)])
      out.push(types, load32(control + 12) > 0)
      const small = message([[malloc(8), 8]], { control, controllen: 16 })
      out.push(yield* recvmsg(fd, small, 0), load32(small + 24))
      yield* close(fd)
      return out
    })
    expect(got).toEqual([
      4,
      0x20,
      [
        [1, 29, 20],
        [0, 8, 24],
        [0, 2, 16],
      ],
      true,
      8,
      8,
    ])
  })
  test.each<[string, () => Libc, number]>([
    ['a header that leads nowhere', () => free(fd => sendmsg(fd, BAD, 0)), -EFAULT],
    ['too many pieces', () => free(fd => sendmsg(fd, huge(), 0)), -EMSGSIZE],
    ['a vector that leads nowhere', () => free(fd => sendmsg(fd, message_at(BAD, 2), 0)), -EFAULT],
    ['a piece of negative length', () => free(fd => sendmsg(fd, message([[malloc(4), -4]]), 0)), -EMSGSIZE],
    ['more pieces than can be counted', () => free(fd => sendmsg(fd, message_at(malloc(8), -1), 0)), -EMSGSIZE],
    ['an address of negative length', () => free(fd => sendmsg(fd, named(here(9), -1), 0)), -EINVAL],
    ['an address beyond all, before the pieces', () => free(fd => sendmsg(fd, named(here(9), 129, BAD), 0)), -EINVAL],
    ['a length of an address that leads nowhere', () => free(fd => sendmsg(fd, named(0, 16), 0)), -EFAULT],
    ['an address without a length, which is none', () => free(fd => sendmsg(fd, named(here(9), 0), 0)), -EDESTADDRREQ],
    [
      'control data that are not there, before the flags',
      () => free(fd => sendmsg(fd, message([], { name: here(9), control: BAD, controllen: 16 }), 1)),
      -EFAULT,
    ],
    [
      'more control data than a socket may have',
      () => free(fd => sendmsg(fd, message([], { name: here(9), control: malloc(16), controllen: 10_241 }), 0)),
      -ENOBUFS,
    ],
    ['received in pieces of negative length', () => free(fd => recvmsg(fd, message([[malloc(4), -4]]), 0)), -EMSGSIZE],
    ['a piece that leads nowhere', () => free(fd => sendmsg(fd, message([[BAD, 4]], { name: here(9) }), 0)), -EFAULT],
    ['a file', () => sendmsg(not_a_socket(), message([]), 0), -ENOTSOCK],
    ['a descriptor that is not open', () => sendmsg(77, message([]), 0), -EBADF],
    ['MSG_OOB', () => free(fd => sendmsg(fd, message([], { name: here(9) }), 1)), -EOPNOTSUPP],
    ['more than a datagram', () => free(fd => sendmsg(fd, message([[malloc(66_000), 66_000]]), 0)), -EMSGSIZE],
    ['received by a descriptor that is not open', () => recvmsg(77, message([]), 0), -EBADF],
    ['received by a file', () => recvmsg(not_a_socket(), message([]), 0), -ENOTSOCK],
    ['received in a vector that leads nowhere', () => fed(fd => recvmsg(fd, message_at(BAD, 1), 0)), -EFAULT],
    [
      'received in more pieces than can be counted',
      () => fed(fd => recvmsg(fd, message_at(malloc(8), -1), 0)),
      -EMSGSIZE,
    ],
    ['received in a piece that leads nowhere', () => fed(fd => recvmsg(fd, message([[BAD, 8]]), 0)), -EFAULT],
    ['received from a name that leads nowhere', () => fed(fd => recvmsg(fd, named(BAD, 16), 0)), -EFAULT],
    ['received from a name of negative length', () => fed(fd => recvmsg(fd, named(malloc(16), -1), 0)), -EINVAL],
    ['the error queue, which is empty', () => fed(fd => recvmsg(fd, message([]), 0x2000)), -EAGAIN],
    ['received into nowhere', () => free(fd => recvmsg(fd, BAD, 0)), -EFAULT],
  ])('%s', (_what, program, errno) => {
    expect(run(s, program)).toBe(errno)
  })
  function message_at(iov: number, count: number): number {
    const msg = message([])
    store32(msg + 8, iov)
    store32(msg + 12, count)
    return msg
  }
  const huge = (): number => message_at(malloc(8), 1025)
  function named(name: number, namelen: number, iov?: number): number {
    const msg = iov === undefined ? message([]) : message_at(iov, 1)
    store32(msg, name)
    store32(msg + 4, namelen)
    return msg
  }
  test('a pointer without a length is no address: the peer gets it', () => {
    const got = run(s, function* () {
      const fd = yield* bound(7099)
      yield* connect(fd, here(7099), 16)
      const msg = named(BAD, 0)
      return [yield* sendmsg(fd, msg, 0), yield* recv(fd, malloc(4), 4, 0x40), yield* recv(fd, malloc(4), 4, 0x40)]
    })
    expect(got).toEqual([0, 0, -EAGAIN])
  })
  test('readv and writev: as read and write, with errnos of their own', () => {
    const got = run(s, function* () {
      const fd = yield* bound(7088)
      yield* connect(fd, here(7088), 16)
      const at = malloc(8)
      const out = [yield* writev(fd, iovec([at, 3], [at, 0], [at, 5]), 3), yield* readv(fd, iovec([at, 8]), 1)]
      for (const call of [readv, writev])
        out.push(
          yield* call(fd, BAD, 0), // no pieces are nothing, wherever they are
          yield* call(fd, iovec([BAD, 0]), 1), // nor are empty ones
          yield* call(fd, iovec([at, -4]), 1),
          yield* call(fd, at, 1025),
          yield* call(fd, at, -1),
          yield* call(fd, BAD, 1),
        )
      return [...out, yield* recv(fd, at, 8, 0x40)]
    })
    const errors = [0, 0, -EINVAL, -EINVAL, -EINVAL, -EFAULT]
    expect(got).toEqual([8, 8, ...errors, ...errors, -EAGAIN])
  })
})

describe('descriptors', () => {
  test('a duplicate is the same socket; the last close ends it', () => {
    const got = run(s, function* () {
      const a = yield* bound(7095)
      const b = yield* dup(a)
      const c = yield* dup2(a, 9)
      const d = yield* fcntl(a, 0, 5)
      yield* fcntl(b, 4, 0o4000)
      const out = [a, b, c, d, yield* fcntl(a, 3, 0), yield* close(a), yield* close(b), yield* close(b)]
      yield* sendto(c, malloc(4), 4, 0, here(7095), 16)
      out.push(yield* read(d, malloc(8), 8), yield* read(d, malloc(8), 8))
      yield* close(c)
      yield* close(d)
      return [...out, yield* bound(7095)] // the port is free again, and so is the lowest descriptor
    })
    expect(got).toEqual([0, 1, 9, 5, 0o4002, 0, 0, -EBADF, 4, -EAGAIN, 0])
  })
  test('dup2 closes what was there', () => {
    const got = run(s, function* () {
      const a = yield* bound(7096)
      const b = yield* bound(7097)
      const out = [yield* dup2(a, b), yield* dup2(a, a), yield* dup2(55, b), yield* dup2(a, 256), yield* dup2(a, -1)]
      const c = yield* udp()
      return [...out, yield* bind(c, here(7097), 16), yield* bind(yield* udp(), here(7096), 16)]
    })
    expect(got).toEqual([1, 0, -EBADF, -EBADF, -EBADF, 0, -98])
  })
  test('read and write are receive and send', () => {
    const got = run(s, function* () {
      const fd = yield* bound(7098)
      yield* connect(fd, here(7098), 16)
      const out = [yield* write(fd, malloc(5), 5), yield* read(fd, malloc(9), 0), yield* read(fd, malloc(9), 9)]
      out.push(yield* write(fd, malloc(5), 0), yield* recv(fd, malloc(9), 9, 0x40)) // as SVr4: no datagram of nothing
      return [...out, yield* read(fd, BAD, -1), yield* write(fd, 0xc0000000 | 0, 1), yield* read(77, 0, 0)]
    })
    expect(got).toEqual([5, 0, 5, 0, -EAGAIN, -EINVAL, -EFAULT, -EBADF])
  })
  test('there are 256 of them, and flags of each', () => {
    const got = run(s, function* () {
      let last = 0
      for (let k = 0; k < 256; k++) last = yield* udp()
      const out = [
        last,
        yield* udp(),
        yield* dup(3),
        yield* fcntl(3, 0, 256),
        yield* fcntl(3, 99, 0),
        yield* fcntl(300, 1, 0),
      ]
      yield* fcntl(3, 2, 1)
      return [...out, yield* fcntl(3, 1, 0), yield* fcntl(4, 1, 0)]
    })
    expect(got).toEqual([255, -EMFILE, -EMFILE, -EINVAL, -EINVAL, -EBADF, 1, 0])
  })
  test('what a program leaves open is closed when it ends', () => {
    const kernel = (name: string): number => (/^sock/.test(name) ? 1 : 0) // the kernel's end of NETLINK_ROUTE
    expect(
      slabinfo().filter(c => /^(sock|socket|filp|user_memory|files_struct)$/.test(c.name) && c.used > kernel(c.name)),
    ).toEqual([])
  })
  test('a socket closed by one thread while another receives from it lives until that call ends', () => {
    const fds: number[] = []
    const first = start(function* () {
      fds.push(yield* bound(7094))
      return yield* recv(fds[0]!, malloc(4), 4, 0)
    })
    s.pass(2)
    const second = start(() => close(fds[0]!), { shares: first.task })
    expect(finish(s, second)).toBe(0)
    expect(first.done).toBe(false)
    run(s, function* () {
      return yield* sendto(yield* udp(), malloc(3), 3, 0, here(7094), 16)
    })
    expect(finish(s, first)).toBe(3)
  })
})

describe('signals', () => {
  test('end a call that sleeps, with EINTR', () => {
    const got = finish(
      s,
      start(function* () {
        const fd = yield* bound(7093)
        const came = yield* on_signals(SIGALRM)
        yield* alarm(1)
        return [yield* recv(fd, malloc(4), 4, 0), came()]
      }),
      2500,
    )
    expect(got).toEqual([-EINTR, 14])
  })
  test('nanosleep: EINTR, and what is left', () => {
    const got = finish(
      s,
      start(function* () {
        const fd = yield* bound(7092)
        const left = malloc(8)
        yield* on_signals(SIGALRM)
        yield* alarm(1)
        const slept = yield* nanosleep(5e9, left)
        return [slept, load32(left), yield* recv(fd, malloc(4), 4, 0x40)]
      }),
      2500,
    )
    expect(got).toEqual([-EINTR, expect.toSatisfy((s: number) => s === 3 || s === 4), -EAGAIN])
  })
})

test('nothing leaks, not even of programs that sleep when the machine is halted', () => {
  start(function* () {
    const fd = yield* bound(7089)
    yield* setsockopt(fd, SOL_SOCKET, 20, pair(5, 0), 8)
    return yield* recv(yield* dup(fd), malloc(4), 4, 0)
  })
  s.pass(3)
  expect(s.solo.audit()).toEqual([])
})
