/** UDP sockets through the system calls, on one CPU: over loopback, and on the wire. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { call } from '../../../src/abi/symbol.js'
import { proc_read } from '../../../src/fs/proc.js'
import {
  EACCES,
  EADDRINUSE,
  EADDRNOTAVAIL,
  EAGAIN,
  ECONNREFUSED,
  EDESTADDRREQ,
  EINVAL,
  EMSGSIZE,
  EPIPE,
} from '../../../src/lib/errno.js'
import { packet_fates } from '../../../src/net/core/fate.js'
import { neigh_lookup, neigh_release } from '../../../src/net/core/neighbour.js'
import { dev_get_by_name, dev_put } from '../../../src/net/core/netdevice.js'
import { udp_statistics } from '../../../src/net/ipv4/udp_hash.js'
import { run_program } from '../../../src/syscall/process.js'
import {
  bind,
  close,
  connect,
  fcntl,
  getsockname,
  inet_addr,
  type Libc,
  load32,
  malloc,
  mem,
  nanosleep,
  recv,
  recvfrom,
  send,
  sendto,
  setsockopt,
  shutdown,
  sin_addr,
  sin_port,
  sockaddr_in,
  socket,
  store32,
  variable,
} from '../../../src/user/libc.js'
import { udpclient_sym, udpecho_sym } from '../../../src/user/udpecho.js'
import { counting, icmpFrame, parse, udp, udpFrame } from '../../helpers/frames.js'
import { finish, run, start } from '../../helpers/programs.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [{ addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] }],
  neighbours: [{ address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } }],
  config: { loopback: 1, user_procs: 6 },
})
const mib = udp_statistics.cpu(0)
const AF_INET = 2
const SOCK_DGRAM = 2
const SOL_SOCKET = 1
const SO_REUSEADDR = 2
const SO_BROADCAST = 6
const SO_SNDBUF = 7
const SO_RCVBUF = 8
const SO_RCVTIMEO = 20
const MSG_PEEK = 2
const MSG_TRUNC = 0x20
const MSG_DONTWAIT = 0x40
const MSG_MORE = 0x8000
const F_SETFL = 4
const O_NONBLOCK = 0o4000

/** A UDP socket bound to this address. */
function* bound(address: string, port: number): Libc {
  const fd = yield* socket(AF_INET, SOCK_DGRAM, 0)
  const err = yield* bind(fd, sockaddr_in(malloc(16), inet_addr(address), port), 16)
  return err < 0 ? err : fd
}
function* option(fd: number, name: number, value: number, level = SOL_SOCKET): Libc {
  return yield* setsockopt(fd, level, name, variable(value), 4)
}
const to = (address: string, port: number): number => sockaddr_in(malloc(16), inet_addr(address), port)
function text(bytes: string): number {
  const at = malloc(bytes.length)
  mem(at, bytes.length).set([...bytes].map(c => c.charCodeAt(0)))
  return at
}
const read = (at: number, n: number): string => String.fromCharCode(...mem(at, n))

test('MSG_CONFIRM is proof of the neighbour, of UDP and of raw sockets; with MSG_PROBE and no bytes it is all', () => {
  const eth0 = dev_get_by_name('eth0')!
  const n = neigh_lookup(ip('10.0.0.2'), eth0)!
  const confirmed = (type: number, flags: number, len: number): [number, boolean, number] => {
    s.out()
    n.confirmed = -1
    const sent = run(s, function* () {
      return yield* sendto(
        yield* socket(AF_INET, type, type === SOCK_DGRAM ? 0 : 99),
        malloc(4),
        len,
        flags,
        to('10.0.0.2', 9),
        16,
      )
    })
    s.pass(1)
    return [sent, n.confirmed !== -1, s.out()[0]!.length]
  }
  const [RAW, MSG_PROBE, MSG_CONFIRM] = [3, 0x10, 0x800]
  for (const type of [SOCK_DGRAM, RAW]) {
    expect(confirmed(type, 0, 4)).toEqual([4, false, 1])
    expect(confirmed(type, MSG_CONFIRM, 4)).toEqual([4, true, 1])
    expect(confirmed(type, MSG_CONFIRM | MSG_PROBE, 0)).toEqual([0, true, 0])
  }
  neigh_release(n)
  dev_put(eth0)
})

describe('over loopback', () => {
  test('a datagram arrives with its sender, in the order of sending', () => {
    const got = run(s, function* () {
      const a = yield* bound('127.0.0.1', 7001)
      const b = yield* bound('0.0.0.0', 7002)
      const sent = [
        yield* sendto(a, text('hello'), 5, 0, to('127.0.0.1', 7002), 16),
        yield* sendto(a, text('again'), 5, 0, to('10.0.0.1', 7002), 16),
      ]
      const buf = malloc(100)
      const from = malloc(16)
      const len = variable(16)
      const lines: string[] = []
      for (let k = 0; k < 2; k++) {
        const n = yield* recvfrom(b, buf, 100, 0, from, len)
        lines.push(`${read(buf, n)} ${sin_addr(from) >>> 0} ${sin_port(from)} ${load32(len)}`)
      }
      yield* close(a)
      yield* close(b)
      return [sent, lines]
    })
    expect(got).toEqual([
      [5, 5],
      ['hello 2130706433 7001 16', 'again 2130706433 7001 16'],
    ])
  })
  test('a receiver sleeps until it comes', () => {
    const receiver = start(function* () {
      const fd = yield* bound('127.0.0.1', 7003)
      const buf = malloc(10)
      const n = yield* recv(fd, buf, 10, 0)
      return read(buf, n)
    })
    s.pass(20)
    expect(receiver.done).toBe(false)
    run(s, function* () {
      const fd = yield* socket(AF_INET, SOCK_DGRAM, 0)
      return yield* sendto(fd, text('now'), 3, 0, to('127.0.0.1', 7003), 16)
    })
    expect(finish(s, receiver)).toBe('now')
  })
  test('peek, truncation, and not waiting', () => {
    const got = run(s, function* () {
      const fd = yield* bound('127.0.0.1', 7004)
      const buf = malloc(100)
      const out: (number | string)[] = [yield* recv(fd, buf, 10, MSG_DONTWAIT)]
      for (const word of ['first', 'second']) yield* sendto(fd, text(word), word.length, 0, to('127.0.0.1', 7004), 16)
      const n = yield* recv(fd, buf, 100, MSG_PEEK)
      out.push(n, read(buf, n))
      out.push(yield* recv(fd, buf, 2, MSG_PEEK | MSG_TRUNC)) // the whole length
      out.push(yield* recv(fd, buf, 2, 0), read(buf, 2)) // the rest of it is gone
      out.push(yield* recv(fd, buf, 100, 0), read(buf, 6))
      yield* fcntl(fd, F_SETFL, O_NONBLOCK)
      out.push(yield* recv(fd, buf, 100, 0))
      yield* close(fd)
      return out
    })
    expect(got).toEqual([-EAGAIN, 5, 'first', 5, 2, 'fi', 6, 'second', -EAGAIN])
  })
  test('SO_RCVTIMEO: after so long nothing has come', () => {
    const r = start(function* () {
      const fd = yield* bound('127.0.0.1', 7005)
      const timeval = malloc(8)
      store32(timeval + 4, 50_000)
      yield* setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeval, 8)
      return yield* recv(fd, malloc(4), 4, 0)
    })
    s.pass(45)
    expect(r.done).toBe(false)
    expect(finish(s, r, 20)).toBe(-EAGAIN)
  })
  test('an empty datagram, and the largest one that the link takes', () => {
    const got = run(s, function* () {
      const fd = yield* bound('127.0.0.1', 7006)
      const big = malloc(16408)
      mem(big, 16408).set(counting(16408))
      const sent = [yield* sendto(fd, 0, 0, 0, to('127.0.0.1', 7006), 16)]
      sent.push(yield* sendto(fd, big, 16408, 0, to('127.0.0.1', 7006), 16))
      const buf = malloc(16408)
      const n = [yield* recv(fd, buf, 100, 0), yield* recv(fd, buf, 16408, 0)]
      const same = mem(buf, 16408).every((b, k) => b === (k & 255))
      yield* close(fd)
      return [sent, n, same]
    })
    expect(got).toEqual([[0, 16408], [0, 16408], true])
  })
  test('nobody there: a connected socket hears of it, another one does not', () => {
    const ports = mib.NoPorts
    const got = run(s, function* () {
      const fd = yield* socket(AF_INET, SOCK_DGRAM, 0)
      const out = [yield* sendto(fd, text('x'), 1, 0, to('127.0.0.1', 7777), 16)]
      yield* nanosleep(1e6)
      out.push(yield* recv(fd, malloc(4), 4, MSG_DONTWAIT))
      yield* connect(fd, to('127.0.0.1', 7777), 16)
      out.push(yield* send(fd, text('x'), 1, 0))
      yield* nanosleep(1e6)
      out.push(yield* recv(fd, malloc(4), 4, 0), yield* send(fd, text('x'), 1, 0))
      yield* close(fd)
      return out
    })
    expect(got).toEqual([1, -EAGAIN, 1, -ECONNREFUSED, 1])
    expect(mib.NoPorts - ports).toBe(3)
  })
  test('two processes, a hundred datagrams there and back: each byte is right', () => {
    const echo = run_program('udpecho', udpecho_sym, 7)
    expect(echo).not.toBe(null)
    const client = start(() => call(udpclient_sym)((100 << 16) | 7))
    expect(finish(s, client, 5000)).toBe(100)
  })
})

describe('corking', () => {
  test.each([
    ['MSG_MORE', false],
    ['UDP_CORK', true],
  ])('%s: one datagram of several pieces', (_what, cork) => {
    const got = run(s, function* () {
      const fd = yield* bound('127.0.0.1', 7010)
      yield* connect(fd, to('127.0.0.1', 7010), 16)
      if (cork) yield* option(fd, 1, 1, 17)
      const out = [
        yield* send(fd, text('ab'), 2, cork ? 0 : MSG_MORE),
        yield* send(fd, text('c'), 1, cork ? 0 : MSG_MORE),
        yield* recv(fd, malloc(4), 4, MSG_DONTWAIT),
        yield* send(fd, text('defg'), 4, 0),
      ]
      if (cork) yield* option(fd, 1, 0, 17)
      const buf = malloc(100)
      const n = yield* recv(fd, buf, 100, 0)
      yield* close(fd)
      return [out, read(buf, n)]
    })
    expect(got).toEqual([[2, 1, -EAGAIN, 4], 'abcdefg'])
  })
  test('a datagram that is never completed is given up with the socket', () => {
    run(s, function* () {
      const fd = yield* bound('127.0.0.1', 7011)
      yield* sendto(fd, text('lost'), 4, MSG_MORE, to('127.0.0.1', 7011), 16)
      return yield* close(fd)
    })
  })
})

describe('errors of sending', () => {
  test('addresses and sizes', () => {
    const got = run(s, function* () {
      const fd = yield* socket(AF_INET, SOCK_DGRAM, 0)
      const x = text('x')
      const out = [
        yield* send(fd, x, 1, 0),
        yield* sendto(fd, x, 1, 0, to('127.0.0.1', 0), 16),
        yield* sendto(fd, x, 1, 0, to('127.0.0.1', 9), 8),
        yield* sendto(fd, malloc(70_000), 65_508, 0, to('127.0.0.1', 9), 16),
        yield* sendto(fd, x, 1, 0, to('10.0.0.255', 9), 16),
      ]
      yield* option(fd, SO_BROADCAST, 1)
      out.push(yield* sendto(fd, x, 1, 0, to('10.0.0.255', 9), 16))
      yield* close(fd)
      return out
    })
    expect(got).toEqual([-EDESTADDRREQ, -EINVAL, -EINVAL, -EMSGSIZE, -EACCES, 1])
    s.out()
  })
  test('after shutdown', () => {
    const got = run(s, function* () {
      const fd = yield* bound('127.0.0.1', 7012)
      yield* connect(fd, to('127.0.0.1', 7012), 16)
      const out = [yield* shutdown(fd, 2), yield* send(fd, text('x'), 1, 0), yield* recv(fd, malloc(4), 4, 0)]
      yield* close(fd)
      return out
    })
    expect(got).toEqual([0, -EPIPE, 0])
  })
})

describe('ports', () => {
  test("a port is one socket's, unless both say SO_REUSEADDR or their addresses differ", () => {
    const got = run(s, function* () {
      const a = yield* bound('127.0.0.1', 7020)
      const out = [yield* bound('127.0.0.1', 7020), yield* bound('0.0.0.0', 7020)]
      const other = yield* bound('10.0.0.1', 7020)
      out.push(Math.sign(other))
      const c = yield* socket(AF_INET, SOCK_DGRAM, 0)
      yield* option(c, SO_REUSEADDR, 1)
      out.push(yield* bind(c, to('127.0.0.1', 7020), 16))
      yield* option(a, SO_REUSEADDR, 1)
      out.push(yield* bind(c, to('127.0.0.1', 7020), 16))
      out.push(yield* bound('10.0.0.77', 7021))
      return out
    })
    expect(got).toEqual([-EADDRINUSE, -EADDRINUSE, 1, -EADDRINUSE, 0, -EADDRNOTAVAIL])
  })
  test('who asks for none gets one of 32768 to 61000, each another', () => {
    const got = run(s, function* () {
      const ports = new Set<number>()
      const name = malloc(16)
      for (let k = 0; k < 200; k++) {
        const fd = yield* bound('127.0.0.1', 0)
        yield* getsockname(fd, name, variable(16))
        ports.add(sin_port(name))
      }
      return [ports.size, Math.min(...ports) >= 32768, Math.max(...ports) <= 61000]
    })
    expect(got).toEqual([200, true, true])
  })
  test("ports below 1024 are root's", () => {
    const port = (uid: number): number => run(s, () => bound('127.0.0.1', 53), { uid })
    expect(port(1000)).toBe(-EACCES)
    expect(port(0)).toBeGreaterThanOrEqual(0)
  })
  test('a connected socket gets from its peer only, and again from all when it is disconnected', () => {
    const got = run(s, function* () {
      const a = yield* bound('127.0.0.1', 7030)
      const b = yield* bound('127.0.0.1', 7031)
      const c = yield* bound('127.0.0.1', 7032)
      yield* connect(a, to('127.0.0.1', 7031), 16)
      const buf = malloc(10)
      yield* sendto(c, text('c'), 1, 0, to('127.0.0.1', 7030), 16)
      yield* sendto(b, text('b'), 1, 0, to('127.0.0.1', 7030), 16)
      const out = [read(buf, yield* recv(a, buf, 10, 0)), yield* recv(a, buf, 10, MSG_DONTWAIT)]
      yield* connect(a, sockaddr_in(malloc(16), 0, 0, 0), 16)
      yield* sendto(c, text('d'), 1, 0, to('127.0.0.1', 7030), 16)
      out.push(read(buf, yield* recv(a, buf, 10, 0)), yield* send(a, buf, 1, 0))
      return out
    })
    expect(got).toEqual(['b', -EAGAIN, 'd', -EDESTADDRREQ])
  })
})

describe('buffers', () => {
  test('what does not fit the receive buffer is lost, and counted', () => {
    const errors = mib.InErrors
    const got = run(s, function* () {
      const fd = yield* bound('127.0.0.1', 7040)
      yield* option(fd, SO_RCVBUF, 2048)
      const x = malloc(1000)
      for (let k = 0; k < 50; k++) yield* sendto(fd, x, 1000, 0, to('127.0.0.1', 7040), 16)
      let n = 0
      while ((yield* recv(fd, x, 1000, MSG_DONTWAIT)) === 1000) n++
      yield* close(fd)
      return n
    })
    expect(got).toBe(3) // of truesize 1256 each, in 4096
    expect(mib.InErrors - errors).toBe(47)
    expect(s.fates().drops['socket_full']).toBe(47)
  })
  test('a full send buffer: the sender waits for the device, or does not', () => {
    const got = run(s, function* () {
      const fd = yield* bound('10.0.0.1', 7041)
      yield* option(fd, SO_SNDBUF, 2048)
      const x = malloc(1000)
      let ok = 0
      while ((yield* sendto(fd, x, 1000, MSG_DONTWAIT, to('10.0.0.2', 9), 16)) === 1000) ok++
      const waited = yield* sendto(fd, x, 1000, 0, to('10.0.0.2', 9), 16)
      yield* close(fd)
      return [ok, waited]
    })
    expect(got).toEqual([4, 1000])
    s.pass(5)
    expect(s.out()[0]).toHaveLength(5)
  })
})

describe('on the wire', () => {
  test('what is sent: a frame with a right checksum; what comes: its bytes', () => {
    const r = start(function* () {
      const fd = yield* bound('0.0.0.0', 7050)
      yield* sendto(fd, text('ping'), 4, 0, to('10.0.0.2', 99), 16)
      const buf = malloc(100)
      const from = malloc(16)
      const n = yield* recvfrom(fd, buf, 100, 0, from, variable(16))
      return [read(buf, n), sin_addr(from), sin_port(from)]
    })
    s.pass(1)
    const frame = parse(s.out()[0]![0]!)
    expect(frame).toMatchObject({
      src: '10.0.0.1',
      dst: '10.0.0.2',
      df: true,
      protocol: 17,
      ttl: 64,
      ipChecksumGood: true,
    })
    expect([...frame.payload]).toEqual([
      ...udp(
        { src: '10.0.0.1', dst: '10.0.0.2', sport: 7050, dport: 99 },
        [...'ping'].map(c => c.charCodeAt(0)),
      ),
    ])
    s.send(
      0,
      udpFrame(
        { src: '10.0.0.2', dst: '10.0.0.1', sport: 99, dport: 7050 },
        [...'pong'].map(c => c.charCodeAt(0)),
      ),
    )
    expect(finish(s, r)).toEqual(['pong', ip('10.0.0.2'), 99])
  })
  test.each([1473, 2000, 8191, 40_001])('%i bytes leave in fragments, with one checksum over all', size => {
    run(s, function* () {
      const fd = yield* bound('0.0.0.0', 7051)
      const big = malloc(size)
      mem(big, size).set(counting(size))
      return yield* sendto(fd, big, size, 0, to('10.0.0.2', 99), 16)
    })
    s.pass(2)
    const pieces = s.out()[0]!.map(parse)
    expect(pieces).toHaveLength(Math.ceil((size + 8) / 1480))
    expect(pieces.every(p => p.ipChecksumGood && !p.df)).toBe(true)
    const whole = new Uint8Array(size + 8)
    for (const p of pieces) whole.set(p.payload, p.offset)
    expect([...whole]).toEqual([...udp({ src: '10.0.0.1', dst: '10.0.0.2', sport: 7051, dport: 99 }, counting(size))])
  })
  test('pieces of odd length, corked over several packets', () => {
    const sizes = [1, 777, 1301, 1, 3, 2222, 1479, 5]
    run(s, function* () {
      const fd = yield* bound('0.0.0.0', 7052)
      yield* connect(fd, to('10.0.0.2', 99), 16)
      const big = malloc(6000)
      mem(big, 6000).set(counting(6000))
      let at = 0
      for (const n of sizes) {
        yield* send(fd, big + at, n, at + n === 5789 ? 0 : MSG_MORE)
        at += n
      }
      return at
    })
    s.pass(2)
    const pieces = s.out()[0]!.map(parse)
    const whole = new Uint8Array(5797)
    for (const p of pieces) whole.set(p.payload, p.offset)
    expect([...whole]).toEqual([...udp({ src: '10.0.0.1', dst: '10.0.0.2', sport: 7052, dport: 99 }, counting(5789))])
  })
  test('a closed port is answered with port unreachable; a broadcast is not', () => {
    const about = udpFrame({ src: '10.0.0.2', dst: '10.0.0.1', dport: 4 }, counting(5))
    const reply = parse(s.send(0, about)[0]![0]!)
    expect(reply.icmp).toMatchObject({ type: 3, code: 3, checksumGood: true })
    expect(s.send(0, udpFrame({ src: '10.0.0.2', dst: '10.0.0.255', dport: 4, to: 'ff:ff:ff:ff:ff:ff' }))[0]).toEqual(
      [],
    )
  })
  test('a wrong checksum: nobody gets it, nobody is told; without one it is good', () => {
    const errors = mib.InErrors
    const got = start(function* () {
      const fd = yield* bound('0.0.0.0', 7053)
      const buf = malloc(100)
      return read(buf, yield* recv(fd, buf, 100, 0))
    })
    s.pass(1)
    const o = { src: '10.0.0.2', dst: '10.0.0.1' }
    const bad = udpFrame({ ...o, dport: 7053 }, counting(4))
    bad[43]! ^= 1
    const lost = udpFrame({ ...o, dport: 4 }, counting(4))
    lost[43]! ^= 1
    expect(s.send(0, bad, lost)[0]).toEqual([])
    expect(got.done).toBe(false)
    const plain = udpFrame(
      { ...o, dport: 7053 },
      [...'yes'].map(c => c.charCodeAt(0)),
    )
    plain.fill(0, 40, 42)
    s.send(0, plain)
    expect(finish(s, got)).toBe('yes')
    expect(mib.InErrors - errors).toBe(2)
  })
  test('a broadcast reaches everybody who has the port', () => {
    const listen = (): ReturnType<typeof start<number>> =>
      start(function* () {
        const fd = yield* socket(AF_INET, SOCK_DGRAM, 0)
        yield* option(fd, SO_REUSEADDR, 1)
        yield* bind(fd, to('0.0.0.0', 7054), 16)
        return yield* recv(fd, malloc(10), 10, 0)
      })
    const all = [listen(), listen(), listen()]
    s.pass(1)
    s.send(0, udpFrame({ src: '10.0.0.2', dst: '10.0.0.255', dport: 7054, to: 'ff:ff:ff:ff:ff:ff' }, counting(6)))
    expect(all.map(r => finish(s, r))).toEqual([6, 6, 6])
  })
  test('path MTU: the route learns what fits, and the sender is told once', () => {
    const got = start(function* () {
      const fd = yield* bound('10.0.0.1', 7055)
      yield* connect(fd, to('10.0.0.2', 99), 16)
      const x = malloc(1400)
      const out = [yield* send(fd, x, 1400, 0)]
      yield* nanosleep(20e6)
      out.push(yield* send(fd, x, 1400, 0), yield* send(fd, x, 1400, 0))
      return out
    })
    s.pass(2)
    const frame = s.out()[0]![0]!
    expect(parse(frame).df).toBe(true)
    s.send(0, icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }, 3, 4, 1000, frame.subarray(14, 42)))
    expect(finish(s, got)).toEqual([1400, -EMSGSIZE, 1400])
    expect(
      s
        .out()[0]!
        .map(parse)
        .map(p => p.payload.length + 20),
    ).toEqual([996, 452])
  })
})

test('/proc/net/snmp has them', () => {
  expect(proc_read('/proc/net/snmp')).toContain(
    `Udp: InDatagrams NoPorts InErrors OutDatagrams\nUdp: ${mib.InDatagrams} ${mib.NoPorts} ${mib.InErrors} ${mib.OutDatagrams}\n`,
  )
})

test('every packet is accounted for, and nothing leaks', () => {
  const { local_made, local_sent, local_dropped } = packet_fates.cpu(0)
  expect(local_made).toBe(local_sent + local_dropped)
  expect(conserved(s.fates())).toBe(true)
  start(function* () {
    const fd = yield* bound('127.0.0.1', 7060) // sleeps in a call when the machine is halted
    yield* sendto(fd, text('unread'), 6, 0, to('127.0.0.1', 7060), 16)
    yield* recv(fd, malloc(4), 4, 0)
    return yield* recv(fd, malloc(4), 4, 0)
  })
  s.pass(2)
  expect(s.solo.audit()).toEqual([])
})
