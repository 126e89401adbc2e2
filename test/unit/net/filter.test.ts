/** Socket filters: what they compute, what the kernel takes for one, what sockets get through them. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { OPTMEM_MAX } from '../../../src/lib/limits.js'
import { attach_filter, type Insn } from '../../../src/user/bpf.js'
import {
  bind,
  close,
  connect,
  getpid,
  getsockopt,
  type Libc,
  load32,
  malloc,
  mem,
  recv,
  setsockopt,
  sockaddr_in,
  socket,
  socketpair,
  store32,
  variable,
} from '../../../src/user/libc.js'
import { AF_PACKET, ETH_P_ALL, htons, PACKET_STATISTICS, SOL_PACKET, sockaddr_ll } from '../../../src/user/libpacket.js'
import { compile } from '../../../src/user/pcap_filter.js'
import { check, wanted } from '../../helpers/bpf.js'
import { ethernet, icmpFrame, udpFrame } from '../../helpers/frames.js'
import { finish, run, start } from '../../helpers/programs.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [{ addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] }],
  config: { loopback: 1, user_procs: 4 },
})
const [AF_UNIX, AF_INET, DGRAM, RAW] = [1, 2, 2, 3]
const [SOL_SOCKET, PEERCRED, ATTACH, DETACH, PEERNAME, IPPROTO_ICMP] = [1, 17, 26, 27, 28, 1]
const [ENOMEM, EFAULT, EINVAL, ENONET, ENOTCONN] = [-12, -14, -22, -64, -107]
const TRUNC = 0x20

const insn = (code: number, k = 0, jt = 0, jf = 0): Insn => ({ code, jt, jf, k: k >>> 0 })
const [LD_IMM, LDX_IMM, ST, STX, LD_MEM, LDX_MEM, TAX, TXA, RET_A, RET] = [0, 1, 2, 3, 0x60, 0x61, 7, 0x87, 0x16, 6]
const frame = Uint8Array.from({ length: 64 }, (_, k) => k * 3 + 1)

describe('what a filter computes', () => {
  const view = new DataView(frame.buffer)
  test.each<[string, Insn[], number]>([
    ['a word, from anywhere', [insn(0x20, 5), insn(RET_A)], view.getUint32(5)],
    ['a half', [insn(0x28, 62), insn(RET_A)], view.getUint16(62)],
    ['a byte', [insn(0x30, 63), insn(RET_A)], frame[63]!],
    ['beyond the end: nothing is wanted', [insn(0x20, 61), insn(RET, 5)], 0],
    ['far beyond', [insn(0x28, 0x7fffffff), insn(RET, 5)], 0],
    ['by X', [insn(LDX_IMM, 4), insn(0x48, 6), insn(RET_A)], view.getUint16(10)],
    ['by an X that wraps to the front', [insn(LDX_IMM, 0xffffffff), insn(0x50, 1), insn(RET_A)], frame[0]!],
    ['the length', [insn(0x80), insn(RET_A)], 64],
    ['a length of a header', [insn(0xb1, 2), insn(TXA), insn(RET_A)], (frame[2]! & 15) * 4],
    ['from the network header on', [insn(0x28, -0x100000 + 2), insn(RET_A)], view.getUint16(16)],
    ['from the link header on', [insn(0x30, -0x200000 + 3), insn(RET_A)], frame[3]!],
    [
      'what is not on the wire: how it was sent',
      [insn(0x20, -0x1000 + 4), insn(LDX_IMM, 7), insn(0x0c), insn(RET_A)],
      7,
    ],
    ['and what there is not', [insn(0x20, -0x1000 + 12), insn(RET, 5)], 0],
    ['sums wrap', [insn(LD_IMM, 0xffffffff), insn(0x04, 3), insn(RET_A)], 2],
    ['differences too', [insn(LD_IMM, 1), insn(0x14, 2), insn(0x74, 24), insn(RET_A)], 255],
    ['products', [insn(LD_IMM, 0x10001), insn(0x24, 0x10001), insn(RET_A)], 0x20001],
    ['quotients are unsigned', [insn(LD_IMM, -2), insn(0x34, 2), insn(RET_A)], 0x7fffffff],
    ['a division by 0 is the end', [insn(LD_IMM, 2), insn(0x3c), insn(RET, 5)], 0],
    [
      'and, or, shifts, minus',
      [insn(LD_IMM, 0xf5), insn(0x54, 0x3c), insn(0x44, 1), insn(0x64, 2), insn(0x84), insn(RET_A)],
      -0xd4 >>> 0,
    ],
    ['memory', [insn(LD_IMM, 9), insn(ST, 15), insn(LDX_MEM, 15), insn(STX, 0), insn(LD_MEM, 0), insn(RET_A)], 9],
    ['memory begins with zeros', [insn(LD_MEM, 3), insn(0x04, 1), insn(RET_A)], 1],
    ['A to X and back', [insn(LD_IMM, 6), insn(TAX), insn(LD_IMM, 0), insn(TXA), insn(RET_A)], 6],
    ['comparisons are unsigned', [insn(LD_IMM, -1), insn(0x25, 5, 0, 1), insn(RET, 1), insn(RET, 2)], 1],
    ['with X', [insn(LD_IMM, 5), insn(LDX_IMM, 5), insn(0x3d, 0, 0, 1), insn(RET, 1), insn(RET, 2)], 1],
    ['a jump', [insn(5, 1), insn(RET, 1), insn(RET, 2)], 2],
    ['a code that there is not', [insn(0xe0), insn(RET, 5)], 0],
  ])('%s', (_, program, result) => {
    expect(wanted(program, frame)).toBe(result)
  })

  test('whatever passes the check ends, and reads nothing that is not there', () => {
    const any = fc.record({
      code: fc.nat(0xffff),
      jt: fc.nat(6),
      jf: fc.nat(6),
      k: fc.oneof(fc.nat(80), fc.nat(0xffffffff)),
    })
    fc.assert(
      fc.property(fc.array(any, { maxLength: 8 }), fc.nat(64), (body, length) => {
        const program = [...body, insn(RET_A)]
        if (check(program) === 0) expect(wanted(program, frame.subarray(0, length))).toBeGreaterThanOrEqual(0)
      }),
      { numRuns: 2000, seed: 11 },
    )
  })
})

describe('what is a filter', () => {
  test.each<[string, Insn[], number]>([
    ['nothing', [], EINVAL],
    ['no return at the end', [insn(RET), insn(LD_IMM)], EINVAL],
    ['a jump to the end', [insn(5, 0), insn(RET)], 0],
    ['a jump beyond it', [insn(5, 1), insn(RET)], EINVAL],
    ['a jump back, which is one far ahead', [insn(5, -1), insn(RET)], EINVAL],
    ['a branch beyond the end', [insn(0x15, 0, 0, 1), insn(RET)], EINVAL],
    ['a branch beyond the end, the other way', [insn(0x15, 0, 1, 0), insn(RET)], EINVAL],
    ['the last word of memory', [insn(ST, 15), insn(RET)], 0],
    ['a word that there is not', [insn(ST, 16), insn(RET)], EINVAL],
    ['for X as well', [insn(STX, 16), insn(RET)], EINVAL],
    ['reading it', [insn(LD_MEM, 16), insn(RET)], EINVAL],
    ['into X', [insn(LDX_MEM, 16), insn(RET)], EINVAL],
  ])('%s', (_, program, err) => {
    expect(check(program)).toBe(err)
  })
})

describe('sockets', () => {
  test('arguments, in the order of 2.6.11', () => {
    function* program(): Generator<void, number[], void> {
      const fd = yield* socket(AF_INET, DGRAM, 0)
      const fprog = malloc(8)
      const words = new DataView(mem(fprog, 8).buffer, mem(fprog, 8).byteOffset, 8)
      const attach = (len: number, at: number, optlen = 8, opt = fprog): Libc => {
        words.setUint32(0, len, true)
        words.setUint32(4, at, true)
        return setsockopt(fd, SOL_SOCKET, ATTACH, opt, optlen)
      }
      const code = malloc(16)
      mem(code, 16).set([6, 0, 0, 0, 255, 255, 0, 0])
      return [
        yield* setsockopt(fd, SOL_SOCKET, DETACH, fprog, 4),
        yield* attach(1, code, 4),
        yield* attach(1, code, 8, 16),
        yield* attach(1, 0),
        yield* attach(4097, code),
        yield* attach((OPTMEM_MAX - 8) / 8, code),
        yield* attach(1, 16),
        yield* attach(0, code),
        yield* attach(2, code),
        yield* attach(1, code),
        yield* attach(1, code), // in place of the first
        yield* setsockopt(fd, SOL_SOCKET, DETACH, fprog, 4),
        yield* setsockopt(fd, SOL_SOCKET, DETACH, fprog, 4),
        yield* attach(1, code), // goes with the socket
        yield* close(fd),
      ]
    }
    expect(run(s, program)).toEqual([
      ...[ENONET, EINVAL, EFAULT, EINVAL, EINVAL, ENOMEM, EFAULT, EINVAL, EINVAL, 0, 0, 0, ENONET, 0, 0],
    ])
  })

  /** What a UDP socket with this filter receives of these datagrams from outside. */
  function* receive(insns: readonly Insn[], got: number[][], count: number): Libc {
    const fd = yield* socket(AF_INET, DGRAM, 0)
    yield* bind(fd, sockaddr_in(malloc(16), 0, 777), 16)
    yield* attach_filter(fd, insns)
    const buf = malloc(100)
    for (let k = 0; k < count; k++) {
      const n = yield* recv(fd, buf, 100, 0)
      got.push([...mem(buf, n)])
    }
    return yield* close(fd)
  }
  const datagram = (data: number[], sport = 5) =>
    udpFrame({ src: '10.0.0.2', dst: '10.0.0.1', sport, dport: 777 }, Uint8Array.from(data))

  test('a datagram is seen from its UDP header on; what is not wanted is counted', () => {
    const got: number[][] = []
    // Those from port 5, and of them 10 bytes: 8 of the header, 2 of the data.
    const filter = [insn(0x28, 0), insn(0x15, 5, 0, 1), insn(RET, 10), insn(RET, 0)]
    const r = start(() => receive(filter, got, 3))
    s.pass(1)
    const books = s.account(() => {
      s.send(0, datagram([1, 2, 3, 4]), datagram([5, 6, 7], 6), datagram([8]), datagram([0xff, 0]))
    })
    finish(s, r)
    expect(got).toEqual([[1, 2], [8], [0xff, 0]])
    expect(books).toMatchObject({ received: 4, delivered: 3, drops: { socket_filter: 1 } })
  })
  test('a wrong sum is found before a filter cuts; a header is never cut', () => {
    const got: number[][] = []
    const r = start(() => receive([insn(RET, 1)], got, 1))
    s.pass(1)
    const bad = datagram([1, 2, 3, 4])
    bad[45]! ^= 1
    const books = s.account(() => {
      s.send(0, bad, datagram([9, 9]))
    })
    expect(books).toMatchObject({ received: 2, delivered: 1, drops: { udp_checksum: 1 } })
    finish(s, r)
    expect(got).toEqual([[]])
  })

  test('packet sockets: frames are cut, the others are not its own; only what it wants is in the statistics', () => {
    const got: number[] = []
    const r = start(function* (): Libc {
      const fd = yield* socket(AF_PACKET, RAW, 0)
      yield* attach_filter(fd, [...compile(['udp', 'dst', 'port', '778']).slice(0, -2), insn(RET, 44), insn(RET, 0)])
      yield* bind(fd, sockaddr_ll(malloc(20), 2, ETH_P_ALL), 20)
      const [buf, len] = [malloc(100), variable(8)]
      got.push(yield* recv(fd, buf, 100, 0), yield* recv(fd, buf, 100, TRUNC))
      yield* getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, buf, len)
      got.push(load32(buf), load32(buf + 4))
      return yield* close(fd)
    })
    s.pass(1)
    const one = udpFrame({ src: '10.0.0.2', dst: '10.0.0.1', sport: 5, dport: 778 }, new Uint8Array(50))
    s.send(0, one, datagram([1]), udpFrame({ src: '10.0.0.2', dst: '10.0.0.1', sport: 5, dport: 779 }), one)
    finish(s, r)
    expect(got).toEqual([44, 44, 2, 0])
  })
  test('a protocol that only a packet socket wants, and its filter does not', () => {
    const r = start(function* (): Libc {
      const fd = yield* socket(AF_PACKET, RAW, htons(0x88b5))
      yield* attach_filter(fd, [insn(0x80), insn(0x15, 60, 0, 1), insn(RET, 0), insn(RET, 100)])
      const n = yield* recv(fd, malloc(100), 100, 0)
      yield* close(fd)
      return n
    })
    s.pass(1)
    const books = s.account(() => {
      s.send(0, ethernet(new Uint8Array(46), { type: 0x88b5 }), ethernet(new Uint8Array(50), { type: 0x88b5 }))
    })
    expect(finish(s, r)).toBe(64)
    expect(books).toMatchObject({ received: 2, delivered: 1, drops: { socket_filter: 1 } })
  })
  test('raw sockets: seen from the IP header on', () => {
    const r = start(function* (): Libc {
      const fd = yield* socket(AF_INET, RAW, IPPROTO_ICMP)
      yield* attach_filter(fd, [insn(0x30, 20), insn(0x15, 13, 0, 1), insn(RET, 1000), insn(RET, 0)])
      const buf = malloc(100)
      yield* recv(fd, buf, 100, 0)
      const type = mem(buf, 21)[20]!
      yield* close(fd)
      return type
    })
    s.pass(1)
    const from = { src: '10.0.0.2', dst: '10.0.0.1' }
    s.send(0, icmpFrame(from, 0, 0, 1, new Uint8Array(8)), icmpFrame(from, 13, 0, 1, new Uint8Array(12)))
    expect(finish(s, r)).toBe(13)
  })

  test('who is at the other end: SO_PEERCRED, SO_PEERNAME', () => {
    function* program(): Generator<void, unknown[], void> {
      const [fds, buf, len] = [malloc(8), malloc(16), variable(12)]
      const cred = function* (fd: number): Generator<void, number[], void> {
        store32(len, 12)
        const err = yield* getsockopt(fd, SOL_SOCKET, PEERCRED, buf, len)
        return [err, load32(len), load32(buf), load32(buf + 4), load32(buf + 8)]
      }
      const name = function* (fd: number, n: number): Libc {
        store32(len, n)
        return yield* getsockopt(fd, SOL_SOCKET, PEERNAME, buf, len)
      }
      yield* socketpair(AF_UNIX, DGRAM, 0, fds)
      const udp = yield* socket(AF_INET, DGRAM, 0)
      const got: unknown[] = [yield* getpid(), yield* cred(load32(fds)), yield* cred(udp), yield* name(udp, 16)]
      yield* connect(udp, sockaddr_in(malloc(16), ip('10.0.0.2'), 9), 16)
      got.push(yield* name(udp, 17), yield* name(udp, 8), load32(len), [...mem(buf, 8)])
      for (const fd of [load32(fds), load32(fds + 4), udp]) yield* close(fd)
      return got
    }
    const [pid, pair, nobody, unconnected, ...rest] = run(s, program, { uid: 77 })
    expect(pair).toEqual([0, 12, pid, 77, 0])
    expect(nobody).toEqual([0, 12, 0, -1, -1])
    expect([unconnected, ...rest]).toEqual([ENOTCONN, EINVAL, 0, 8, [2, 0, 0, 9, 10, 0, 0, 2]])
  })
})

test('nothing leaks, and the books are right', () => {
  expect(s.solo.audit()).toEqual([])
  expect(conserved(s.fates())).toBe(true)
})
