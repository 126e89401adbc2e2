/** Raw sockets, the error queue, IP options and ancillary data, through the system calls on one CPU. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import {
  EACCES,
  EADDRNOTAVAIL,
  EAGAIN,
  ECONNREFUSED,
  EDESTADDRREQ,
  EFAULT,
  EINVAL,
  EMSGSIZE,
  ENOPROTOOPT,
  EOPNOTSUPP,
  EPERM,
  ESOCKTNOSUPPORT,
} from '../../../src/lib/errno.js'
import {
  bind,
  close,
  connect,
  getsockopt,
  inet_addr,
  type Libc,
  load32,
  malloc,
  mem,
  recv,
  recvfrom,
  recvmsg,
  send,
  sendmsg,
  sendto,
  set_word,
  setsockopt,
  sin_addr,
  sockaddr_in,
  socket,
  store32,
  variable,
} from '../../../src/user/libc.js'
import { message, recv_error } from '../../../src/user/msg.js'
import { counting, icmpFrame, ipFrame, parse, udpFrame } from '../../helpers/frames.js'
import { finish, run, start } from '../../helpers/programs.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [{ addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] }],
  routes: [
    {
      dst: ip('10.9.0.0'),
      prefixlen: 16,
      type: 'unicast',
      metric: 0,
      nexthops: [{ gw: ip('10.0.0.2'), dev: 'eth0', weight: 1 }],
    },
  ],
  neighbours: [{ address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } }],
  config: { loopback: 1, user_procs: 6 },
})
const [DGRAM, RAW] = [2, 3]
const ICMP = 1
const BAD = 0xdead0000 | 0
const raw = (protocol: number): Libc => socket(2, RAW, protocol)
const to = (addr: string, port = 0): number => sockaddr_in(malloc(16), inet_addr(addr), port)
function* with_raw(protocol: number, f: (fd: number) => Libc): Libc {
  return yield* f(yield* raw(protocol))
}
const mortal = (f: () => Libc): number => run(s, f, { uid: 9 })

describe('errno, in the order of 2.6.11', () => {
  test.each<[string, () => Libc, number]>([
    ['no protocol', () => raw(0), -ESOCKTNOSUPPORT],
    ['bind: a short address', () => with_raw(99, fd => bind(fd, to('10.0.0.1'), 8)), -EINVAL],
    ['bind: not ours', () => with_raw(99, fd => bind(fd, to('10.7.7.7'), 16)), -EADDRNOTAVAIL],
    ['bind: ours', () => with_raw(99, fd => bind(fd, to('10.0.0.1'), 16)), 0],
    ['send: too much', () => with_raw(99, fd => sendto(fd, malloc(8), 0x10000, 0, to('10.0.0.2'), 16)), -EMSGSIZE],
    ['send: MSG_OOB', () => with_raw(99, fd => sendto(fd, malloc(8), 8, 1, to('10.0.0.2'), 16)), -EOPNOTSUPP],
    ['send: a short address', () => with_raw(99, fd => sendto(fd, malloc(8), 8, 0, to('10.0.0.2'), 8)), -EINVAL],
    ['send: nowhere said', () => with_raw(99, fd => send(fd, malloc(8), 8, 0)), -EDESTADDRREQ],
    ['send: an address without a length', () => with_raw(99, fd => sendto(fd, malloc(8), 8, 0, BAD, 0)), -EDESTADDRREQ],
    ['send: to all, unasked', () => with_raw(99, fd => sendto(fd, malloc(8), 8, 0, to('10.0.0.255'), 16)), -EACCES],
    ['send: a fault', () => with_raw(99, fd => sendto(fd, BAD, 8, 0, to('10.0.0.2'), 16)), -EFAULT],
    ['hdrincl: a fault', () => with_raw(255, fd => sendto(fd, BAD, 28, 0, to('10.0.0.2'), 16)), -EFAULT],
    [
      'hdrincl: more than fits',
      () => with_raw(255, fd => sendto(fd, malloc(1600), 1501, 0, to('10.0.0.2'), 16)),
      -EMSGSIZE,
    ],
    ['recv: MSG_OOB', () => with_raw(99, fd => recv(fd, malloc(8), 8, 1)), -EOPNOTSUPP],
    ['recv: nothing there', () => with_raw(99, fd => recv(fd, malloc(8), 8, 0x40)), -EAGAIN],
    ['the error queue is empty', () => with_raw(99, fd => recv(fd, malloc(8), 8, 0x2000)), -EAGAIN],
    ['ICMP_FILTER of another protocol', () => with_raw(99, fd => setsockopt(fd, 255, 1, malloc(4), 4)), -EOPNOTSUPP],
    ['ICMP_FILTER: a fault', () => with_raw(ICMP, fd => setsockopt(fd, 255, 1, BAD, 4)), -EFAULT],
    ['SOL_RAW, unknown', () => with_raw(ICMP, fd => setsockopt(fd, 255, 2, malloc(4), 4)), -ENOPROTOOPT],
    [
      'IP_HDRINCL of UDP',
      function* () {
        return yield* set_word(yield* socket(2, DGRAM, 0), 0, 3, 1)
      },
      -ENOPROTOOPT,
    ],
    ['IP_OPTIONS: too many', () => with_raw(99, fd => setsockopt(fd, 0, 4, malloc(44), 44)), -EINVAL],
    ['IP_OPTIONS: a record route without room', () => with_raw(99, fd => options(fd, [7, 2, 4, 0])), -EINVAL],
    ['IP_OPTIONS: a fault', () => with_raw(99, fd => setsockopt(fd, 0, 4, BAD, 8)), -EFAULT],
  ])('%s', (_what, program, errno) => {
    expect(run(s, program)).toBe(errno)
  })
  test('only root gets one, and only root may say options that nobody knows', () => {
    expect(mortal(() => raw(ICMP))).toBe(-EPERM)
    for (const bytes of [
      [200, 4, 1, 1],
      [68, 8, 5, 2, 0, 0, 0, 0], // a timestamp of a kind that is none
    ]) {
      const strange = function* (): Libc {
        return yield* options(yield* socket(2, DGRAM, 0), bytes)
      }
      expect([mortal(strange), run(s, strange)]).toEqual([-EINVAL, 0])
    }
  })
})
function* options(fd: number, bytes: number[]): Libc {
  const at = malloc(40)
  mem(at, bytes.length).set(bytes)
  return yield* setsockopt(fd, 0, 4, at, bytes.length)
}

/** A program that takes one packet, while frames come in. */
function receive(open: () => Libc, frames: Uint8Array[]): { n: number; bytes: number[]; from: number } {
  let out = { n: 0, bytes: [] as number[], from: 0 }
  const r = start(function* (): Libc {
    const fd = yield* open()
    yield* set_word(fd, 1, 8, 4096)
    const buf = malloc(2000)
    const from = malloc(16)
    const n = yield* recvfrom(fd, buf, 2000, 0, from, variable(16))
    out = { n, bytes: n > 0 ? [...mem(buf, n)] : [], from: sin_addr(from) }
    return yield* close(fd)
  })
  s.pass(1)
  s.send(0, ...frames)
  finish(s, r, 20)
  return out
}

describe('receiving', () => {
  const from2 = (protocol: number, src = '10.0.0.2'): Uint8Array =>
    ipFrame(counting(12), { src, dst: '10.0.0.1', protocol })

  test('a packet of a protocol that nobody else knows comes with its header, and is in the books as delivered', () => {
    const fates = s.account(() => {
      const got = receive(() => raw(99), [from2(98), from2(99)])
      expect(got.n).toBe(32)
      expect(got.bytes.slice(20)).toEqual([...counting(12)])
      expect(got.from).toBe(ip('10.0.0.2'))
    })
    expect(fates.drops).toEqual({ ip_unknown_protocol: 1 })
    expect(conserved(fates)).toBe(true)
  })

  test('bound and connected sockets get what is theirs only', () => {
    const other = from2(99, '10.0.0.3')
    const mine = from2(99)
    const open = function* (): Libc {
      const fd = yield* raw(99)
      yield* bind(fd, to('10.0.0.1'), 16)
      yield* connect(fd, to('10.0.0.2'), 16)
      return fd
    }
    expect(receive(open, [other, mine]).from).toBe(ip('10.0.0.2'))
  })

  test('UDP and ICMP reach the raw socket and their protocol as well; ICMP_FILTER keeps types away', () => {
    expect(receive(() => raw(17), [udpFrame({ src: '10.0.0.2', dst: '10.0.0.1', dport: 5 })]).n).toBe(28)
    const filtered = function* (): Libc {
      const fd = yield* raw(ICMP)
      yield* set_word(fd, 255, 1, 1 << 8)
      return fd
    }
    s.out()
    const ask = icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }, 8, 0, 7, counting(4))
    const answer = icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }, 0, 0, 7, counting(4))
    const got = receive(filtered, [ask, answer])
    expect(got.bytes[20]).toBe(0)
  })

  test('after a disconnect it is off its chain', () => {
    const n = run(s, function* () {
      const fd = yield* raw(99)
      yield* connect(fd, to('127.0.0.1'), 16)
      const err = yield* connect(fd, sockaddr_in(malloc(16), 0, 0, 0), 16)
      yield* sendto(fd, malloc(8), 8, 0, to('127.0.0.1'), 16)
      return err || (yield* recv(fd, malloc(8), 8, 0x40))
    })
    expect(n).toBe(-EAGAIN)
  })
})

describe('sending', () => {
  function sent(program: () => Libc): ReturnType<typeof parse>[] {
    s.out()
    expect(run(s, program)).toBeGreaterThanOrEqual(0)
    return s.out()[0]!.map(parse)
  }

  test('with a header of the kernel: protocol of the socket, in pieces where it does not fit', () => {
    const frames = sent(() => with_raw(99, fd => sendto(fd, malloc(3000), 3000, 0, to('10.0.0.2'), 16)))
    expect(frames.map(f => [f.protocol, f.offset, f.payload.length, f.mf, f.ipChecksumGood])).toEqual([
      [99, 0, 1480, true, true],
      [99, 1480, 1480, true, true],
      [99, 2960, 40, false, true],
    ])
  })

  test("with the program's header: source, identification, length and checksum are filled in", () => {
    const [frame] = sent(() =>
      with_raw(255, function* (fd) {
        const at = malloc(30)
        mem(at, 30).set([0x45, 0x10, 0, 0, 0, 0, 0, 0, 9, 99, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2])
        return yield* sendto(fd, at, 30, 0, to('10.0.0.2'), 16)
      }),
    )
    expect(frame).toMatchObject({
      ttl: 9,
      tos: 16,
      src: '10.0.0.1',
      dst: '10.0.0.2',
      protocol: 99,
      ipChecksumGood: true,
    })
    expect(frame!.payload.length).toBe(10)
    expect(frame!.id).not.toBe(0)
  })

  test('IP_OPTIONS: our address in the record of each packet; they are read back as they were given', () => {
    let back: number[] = []
    const [frame] = sent(() =>
      with_raw(99, function* (fd) {
        yield* options(fd, [1, 7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0])
        const at = malloc(40)
        const len = variable(40)
        yield* getsockopt(fd, 0, 4, at, len)
        back = [...mem(at, load32(len))]
        return yield* sendto(fd, malloc(4), 4, 0, to('10.0.0.2'), 16)
      }),
    )
    expect(back).toEqual([1, 7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0])
    expect(frame!.options).toEqual([1, 7, 11, 8, 10, 0, 0, 1, 0, 0, 0, 0])
    expect(frame!.ipChecksumGood).toBe(true)
  })

  test('IP_OPTIONS: timestamps of which there is no room are not counted by who sends them; kinds that nobody knows stay as they are', () => {
    const both = [
      [68, 8, 9, 0x31, 1, 2, 3, 4],
      [68, 8, 5, 0x02, 0, 0, 0, 0],
    ]
    for (const bytes of both) {
      const [frame] = sent(() =>
        with_raw(99, function* (fd) {
          yield* options(fd, bytes)
          return yield* sendto(fd, malloc(4), 4, 0, to('10.0.0.2'), 16)
        }),
      )
      expect(frame!.options).toEqual(bytes)
    }
  })

  test('a source route: to its first stop, the destination last; cut into pieces, a record stays in the first', () => {
    const [frame] = sent(() =>
      with_raw(99, function* (fd) {
        yield* options(fd, [131, 11, 4, 10, 0, 0, 2, 10, 1, 0, 1, 0])
        return yield* sendto(fd, malloc(4), 4, 0, to('10.9.0.9'), 16)
      }),
    )
    expect(frame!.dst).toBe('10.0.0.2')
    expect(frame!.options).toEqual([131, 11, 4, 10, 1, 0, 1, 10, 9, 0, 9, 0])
    const pieces = sent(() =>
      with_raw(99, function* (fd) {
        yield* options(fd, [7, 7, 4, 0, 0, 0, 0, 0])
        return yield* sendto(fd, malloc(2000), 2000, 0, to('10.0.0.2'), 16)
      }),
    )
    expect(pieces.map(f => f.options)).toEqual([
      [7, 7, 8, 10, 0, 0, 1, 0],
      [1, 1, 1, 1, 1, 1, 1, 0],
    ])
    expect(pieces.map(f => f.payload.length).reduce((a, b) => a + b)).toBe(2000)
  })

  test('ancillary data: options and source of one message; what makes no sense is refused', () => {
    const cmsg = (type: number, data: number[], level = 0): Libc =>
      (function* (): Libc {
        const fd = yield* socket(2, DGRAM, 0)
        const m = message(malloc(8))
        m.reset(8)
        const at = m.control
        store32(at, 12 + data.length)
        store32(at + 4, level)
        store32(at + 8, type)
        mem(at + 12, data.length).set(data)
        store32(m.at + 20, 12 + data.length)
        sockaddr_in(m.name, ip('10.0.0.2'), 9)
        return yield* sendmsg(fd, m.at, 0)
      })()
    const [frame] = sent(() => cmsg(7, [7, 7, 4, 0, 0, 0, 0, 0]))
    expect(frame!.options).toEqual([7, 7, 8, 10, 0, 0, 1, 0])
    const [plain] = sent(() => cmsg(8, [0, 0, 0, 0, 10, 0, 0, 1, 0, 0, 0, 0]))
    expect(plain!.src).toBe('10.0.0.1')
    expect(run(s, () => cmsg(8, [0, 0, 0, 0, 10, 8, 8, 8, 0, 0, 0, 0]))).toBe(-EINVAL)
    expect(run(s, () => cmsg(8, [1, 2, 3, 4]))).toBe(-EINVAL)
    expect(run(s, () => cmsg(2, [1, 0, 0, 0]))).toBe(-EINVAL)
    expect(run(s, () => cmsg(2, [1, 0, 0, 0], 77))).toBe(8)
  })
})

describe('what a datagram says of its options', () => {
  test('IP_RECVOPTS: as they came; IP_RETOPTS: as an answer needs them', () => {
    let told: [number, number[]][] = []
    const r = start(function* (): Libc {
      const fd = yield* socket(2, DGRAM, 0)
      yield* bind(fd, to('0.0.0.0', 77), 16)
      yield* set_word(fd, 0, 6, 1)
      yield* set_word(fd, 0, 7, 1)
      const m = message(malloc(64))
      const n = yield* recvmsg(fd, m.reset(64), 0)
      told = m.cmsgs().map(c => [c.type, [...mem(c.data, c.len)]])
      return n
    })
    s.pass(1)
    const route = [131, 11, 12, 10, 0, 0, 9, 10, 0, 0, 2, 0]
    s.send(0, udpFrame({ src: '10.0.0.3', dst: '10.0.0.1', dport: 77, options: route }, counting(4)))
    expect(finish(s, r, 20)).toBe(4)
    expect(told).toEqual([
      [6, [131, 11, 12, 10, 0, 0, 9, 10, 0, 0, 2, 0]],
      [7, [131, 11, 4, 10, 0, 0, 2, 10, 0, 0, 9, 0]],
    ])
  })

  test('an echo reply carries the record of its request, and our address twice', () => {
    s.out()
    const rr = [7, 15, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    const [[reply]] = s.send(0, icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1', options: rr }, 8, 0, 7, counting(4))) as [
      [Uint8Array],
    ]
    const p = parse(reply!)
    expect(p.options).toEqual([7, 15, 12, 10, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0])
    expect([p.icmp!.type, p.icmp!.checksumGood, p.ipChecksumGood]).toEqual([0, true, true])
  })
})

describe('the error queue', () => {
  test('UDP: what came back, who says so, and the pending error follows the queue', () => {
    let seen: unknown
    const r = start(function* (): Libc {
      const fd = yield* socket(2, DGRAM, 0)
      yield* set_word(fd, 0, 11, 1)
      const data = malloc(8)
      mem(data, 8).set([1, 2, 3, 4, 5, 6, 7, 8])
      for (const port of [5001, 5002]) yield* sendto(fd, data, 8, 0, to('10.9.0.9', port), 16)
      const first = yield* recv(fd, malloc(8), 8, 0)
      const m = message(malloc(32))
      const one = yield* recv_error(fd, m, 32)
      const bytes = [...mem(m.buf, one!.len)]
      const flags = m.flags()
      const second = yield* recv(fd, malloc(8), 8, 0x40)
      const two = yield* recv_error(fd, m, 32)
      const none = yield* recv(fd, malloc(8), 8, 0x40)
      seen = { first, second, none, one, two: two!.port, bytes, flags, three: yield* recv_error(fd, m, 32) }
      return yield* close(fd)
    })
    s.out()
    s.pass(1)
    const frames = s.out()[0]!
    expect(frames.length).toBe(2)
    s.send(0, ...frames.map(f => icmpFrame({ src: '10.1.0.1', dst: '10.0.0.1' }, 3, 3, 0, f.slice(14, 14 + 36))))
    finish(s, r, 20)
    expect(seen).toEqual({
      first: -ECONNREFUSED,
      second: -ECONNREFUSED,
      none: -EAGAIN,
      one: {
        ...{ errno: ECONNREFUSED, origin: 2, type: 3, code: 3, info: 0, len: 8 },
        ...{ offender: ip('10.1.0.1'), addr: ip('10.9.0.9'), port: 5001 },
      },
      two: 5002,
      bytes: [1, 2, 3, 4, 5, 6, 7, 8],
      flags: 0x2000,
      three: null,
    })
  })

  test('what this machine refuses is there, too; closing and IP_RECVERR 0 empty the queue', () => {
    const got = run(s, function* () {
      const fd = yield* raw(255)
      yield* set_word(fd, 0, 11, 1)
      const big = (): Libc => sendto(fd, malloc(1600), 1501, 0, to('10.9.0.9'), 16)
      yield* big()
      const e = yield* recv_error(fd, message(malloc(32)), 32)
      yield* big()
      yield* set_word(fd, 0, 11, 0)
      const gone = yield* recv_error(fd, message(malloc(32)), 32)
      yield* set_word(fd, 0, 11, 1)
      yield* big()
      yield* close(fd)
      return [e!.errno, e!.origin, e!.info, e!.addr, e!.offender, e!.len, gone]
    })
    expect(got).toEqual([EMSGSIZE, 1, 1500, ip('10.9.0.9'), 0, 0, null])
  })
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
