/**
 * RFC 1122 for a host, row by row of the requirements: what goes in, what must come out. Where Linux 2.6.11 deviates, its way is
 * asserted. Rows of TCP come with it; a router's are in router.test.ts.
 */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { afterEach, describe, expect, test } from 'vitest'
import { sysctl_write } from '../../../src/net/core/sysctl.js'
import {
  bind,
  close,
  connect,
  getsockopt,
  type Libc,
  load32,
  malloc,
  mem,
  recv,
  recvfrom,
  recvmsg,
  sendto,
  setsockopt,
  sockaddr_in,
  socket,
  store32,
  variable,
} from '../../../src/user/libc.js'
import { clock } from '../../helpers/clock.js'
import {
  checksum,
  counting,
  ethernet,
  fragments,
  icmpFrame,
  ipFrame,
  type Parsed,
  parse,
  udp,
  udpFrame,
} from '../../helpers/frames.js'
import { finish, run, start } from '../../helpers/programs.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const H = '10.0.0.1'
const A = '10.0.0.2'
const [G1, G2] = ['10.0.0.253', '10.0.0.254']
const FAR = '192.0.2.9'
const mac = (lo: number) => ({ hi: 0x02000000, lo })
const s = new Script({
  ports: [
    {
      addresses: [
        { local: ip(H), prefixlen: 24 },
        { local: ip('10.0.0.9'), prefixlen: 24 },
      ],
    },
    { addresses: [{ local: ip('10.0.5.1'), prefixlen: 24 }], mtu: 576 },
  ],
  routes: [{ dst: 0, prefixlen: 0, type: 'unicast', metric: 0, nexthops: [{ gw: ip(G1), dev: 'eth0', weight: 1 }] }],
  neighbours: [
    ...Array.from({ length: 60 }, (_, k) => ({ address: ip(A) + k, dev: 'eth0', mac: mac(0x102 + k) })),
    { address: ip(G1), dev: 'eth0', mac: mac(0x1fd) },
    { address: ip(G2), dev: 'eth0', mac: mac(0x1fe) },
    { address: ip('10.0.5.2'), dev: 'eth1', mac: mac(0x502) },
  ],
  config: { loopback: 1, user_procs: 6 },
  sysctl: { 'net.ipv4.ip_forward': 0 },
})
const [AF_INET, SOCK_DGRAM, SOL_IP, SOL_SOCKET] = [2, 2, 0, 1]
const MSG_DONTWAIT = 0x40
let host = 2
/** Another host each time, so that no test eats another one's rate limit. */
const fresh = (): string => `10.0.0.${++host === 9 ? ++host : host}`

/** Frames in at eth0; IP packets that come out there. */
const send = (...frames: Uint8Array[]): Parsed[] => s.send(0, ...frames)[0]!.map(parse)
const none = (...frames: Uint8Array[]): void => expect(s.send(0, ...frames).flat()).toEqual([])
function one(...frames: Uint8Array[]): Parsed {
  const out = send(...frames)
  expect(out).toHaveLength(1)
  expect(out[0]!.ipChecksumGood).toBe(true)
  if (out[0]!.icmp !== null) expect(out[0]!.icmp.checksumGood).toBe(true)
  return out[0]!
}
/** Dropped without a word, for this reason. */
function silent(reason: string, frame: Uint8Array): void {
  const f = s.account(() => none(frame))
  expect(f).toMatchObject({ received: 1, delivered: 0, drops: { [reason]: 1 } })
}
const change = (frame: Uint8Array, at: number, ...bytes: number[]): Uint8Array => {
  const copy = frame.slice()
  copy.set(bytes, at)
  return copy
}
/** The header's checksum made right again. */
const sealed = (frame: Uint8Array): Uint8Array => {
  const hlen = (frame[14]! & 15) * 4
  const copy = change(frame, 24, 0, 0)
  const sum = checksum(copy.subarray(14, 14 + hlen))
  return change(copy, 24, sum >> 8, sum & 255)
}

/** A program with a UDP socket. */
function with_socket<T>(f: (fd: number) => Generator<void, T, void>, port = 5000, local = '0.0.0.0'): T {
  return run(s, function* () {
    const fd = yield* socket(AF_INET, SOCK_DGRAM, 0)
    expect(yield* bind(fd, sockaddr_in(malloc(16), ip(local), port), 16)).toBe(0)
    const ret = yield* f(fd)
    yield* close(fd)
    return ret
  })
}
function* say(fd: number, to: string, data: ArrayLike<number> = [1, 2, 3], flags = 0): Libc {
  const buf = malloc(data.length + 1)
  mem(buf, data.length).set(Array.from(data))
  return yield* sendto(fd, buf, data.length, flags, sockaddr_in(malloc(16), ip(to), 9), 16)
}
function* option(fd: number, name: number, value: number, level = SOL_IP): Libc {
  return yield* setsockopt(fd, level, name, variable(value), 4)
}
/** What a socket on port 5000 gets of frames that come in; null: nothing. */
function delivered(...frames: Uint8Array[]): number[] | null {
  const r = start(function* () {
    const fd = yield* socket(AF_INET, SOCK_DGRAM, 0)
    yield* bind(fd, sockaddr_in(malloc(16), 0, 5000), 16)
    yield* option(fd, 20, 0, SOL_SOCKET) // SO_RCVTIMEO is set below
    const timeout = malloc(8)
    store32(timeout + 4, 5000)
    yield* setsockopt(fd, SOL_SOCKET, 20, timeout, 8)
    const buf = malloc(9000)
    const n = yield* recv(fd, buf, 9000, 0)
    const got = n < 0 ? null : [...mem(buf, n)]
    yield* close(fd)
    return got
  })
  s.pass(0.3)
  s.send(0, ...frames)
  return finish(s, r)
}
const to5000 = (o: Partial<Parameters<typeof udpFrame>[0]> = {}, data: ArrayLike<number> = [7, 8]): Uint8Array =>
  udpFrame({ src: A, dst: H, dport: 5000, ...o }, data)

afterEach(() => {
  s.out()
  expect(conserved(s.fates())).toBe(true)
})

describe('RFC 1122 3.2.1: the header', () => {
  test('RFC 1122 row 1: another version is dropped silently', () => {
    silent('ip_version', sealed(change(to5000(), 14, 0x65)))
  })
  test('RFC 1122 row 2: a wrong checksum is dropped silently; ours is right', () => {
    const frame = to5000()
    silent('ip_checksum', change(frame, 25, frame[25]! ^ 1))
    expect(one(icmpFrame({ src: A, dst: H }, 8)).ipChecksumGood).toBe(true)
  })
  test('RFC 1122 row 3: a packet for somebody else is dropped silently by a host, and sources that cannot be', () => {
    silent('ip_not_forwarding', udpFrame({ src: A, dst: FAR }))
    for (const src of ['224.0.0.5', '255.255.255.255', '127.0.0.1', '10.0.0.255', '240.0.0.1'])
      silent('ip_martian_source', udpFrame({ src, dst: H }))
  })
  test('RFC 1122 row 4: 127/8 never leaves, nor does a broadcast as source', () => {
    with_socket(
      function* (fd) {
        expect(yield* say(fd, A)).toBe(-22)
      },
      5001,
      '127.0.0.1',
    )
    with_socket(
      function* (fd) {
        expect(yield* say(fd, A)).toBe(3)
      },
      5002,
      '10.0.0.255',
    )
    const sent = s.out()[0]!.map(parse)
    expect(sent.map(p => p.src)).toEqual([H])
  })
  test('RFC 1122 row 5: datagrams of 576 bytes and far more are put together; too much at once does not break others', () => {
    expect(
      delivered(...fragments(udp({ src: A, dst: H, dport: 5000 }, counting(548)), { src: A, dst: H, id: 9 }, 300)),
    ).toEqual([...counting(548)])
    // Later pieces of datagrams whose first one never comes: nobody is told when they are given up.
    const flood = Array.from({ length: 100 }, (_, k) =>
      ipFrame(counting(1480), { src: A, dst: H, id: k, mf: true, offset: 1480 }),
    )
    const good = udp({ src: '10.0.0.40', dst: H, dport: 5000 }, counting(8000))
    expect(delivered(...flood, ...fragments(good, { src: '10.0.0.40', dst: H, id: 10 }, 1500))).toEqual([
      ...counting(8000),
    ])
    clock.ns += 31e9
    s.pass(1)
    expect(s.out()[0]).toEqual([])
  })
  test('RFC 1122 row 6: what is not complete after 30 s (2.6) is given up; 11/1 only if the first piece is there', () => {
    const [first] = fragments(counting(2000), { src: A, dst: H, id: 77 }, 1500)
    const [, second] = fragments(counting(2000), { src: '10.0.0.3', dst: H, id: 77 }, 1500)
    none(first!, second!)
    clock.ns += 29e9
    s.pass(1)
    expect(s.out()[0]).toEqual([])
    clock.ns += 2e9
    s.pass(1)
    const told = s.out()[0]!.map(parse)
    expect(told.map(p => [p.dst, p.icmp?.type, p.icmp?.code])).toEqual([[A, 11, 1]])
  })
  test('RFC 1122 row 7: TOS can be set, and what comes in is told', () => {
    const tos = with_socket(function* (fd) {
      expect(yield* option(fd, 1, 0x10)).toBe(0)
      yield* say(fd, A)
      return 0
    })
    expect(tos).toBe(0)
    expect(parse(s.out()[0]![0]!).tos).toBe(0x10)
    const r = start(function* () {
      const fd = yield* socket(AF_INET, SOCK_DGRAM, 0)
      yield* bind(fd, sockaddr_in(malloc(16), 0, 5000), 16)
      yield* option(fd, 13, 1)
      const [iov, buf, control, msg] = [malloc(8), malloc(64), malloc(64), malloc(28)]
      store32(iov, buf)
      store32(iov + 4, 64)
      store32(msg + 8, iov)
      store32(msg + 12, 1)
      store32(msg + 16, control)
      store32(msg + 20, 64)
      yield* recvmsg(fd, msg, 0)
      yield* close(fd)
      return [load32(control + 8), mem(control + 12, 1)[0]]
    })
    s.pass(0.3)
    s.send(0, to5000({ tos: 0x08 }))
    expect(finish(s, r)).toEqual([1, 0x08])
  })
  test('RFC 1122 row 8: TTL 0 is never sent, a datagram for us is taken whatever its TTL is; 64 unless it is set', () => {
    with_socket(function* (fd) {
      yield* say(fd, A)
      expect(yield* option(fd, 2, 0)).toBe(-22)
      expect(yield* option(fd, 2, 3)).toBe(0)
      yield* say(fd, A)
    })
    expect(s.out()[0]!.map(f => parse(f).ttl)).toEqual([64, 3])
    expect([delivered(to5000({ ttl: 1 })), delivered(to5000({ ttl: 0 }))]).toEqual([
      [7, 8],
      [7, 8],
    ])
  })
  test('RFC 1122 row 9: options that are unknown are skipped; two source routes are a parameter problem', () => {
    expect(delivered(to5000({ options: [0x99, 4, 1, 2, 1, 1] }))).toEqual([7, 8])
    const src = fresh()
    const two = [131, 7, 8, 10, 0, 0, 9, 131, 7, 8, 10, 0, 0, 9]
    expect(one(udpFrame({ src, dst: H, options: two })).icmp).toMatchObject({ type: 12, code: 0, info: 27 << 24 })
  })
  test('RFC 1122 row 10: a datagram at the end of its source route is delivered', () => {
    expect(delivered(to5000({ options: [131, 7, 8, 10, 0, 0, 9] }))).toEqual([7, 8])
  })
})

describe('RFC 1122 3.3: the ways out', () => {
  test('RFC 1122 row 11: on the link by mask, else by a gateway; what was found is cached', () => {
    with_socket(function* (fd) {
      yield* say(fd, A)
      yield* say(fd, FAR)
      yield* say(fd, '10.0.1.2')
    })
    expect(s.out()[0]!.map(f => [parse(f).dst, parse(f).to])).toEqual([
      [A, '02:00:00:00:01:02'],
      [FAR, '02:00:00:00:01:fd'],
      ['10.0.1.2', '02:00:00:00:01:fd'],
    ])
  })
  test('RFC 1122 row 13: the answer comes from the address that was asked', () => {
    expect(one(icmpFrame({ src: A, dst: '10.0.0.9' }, 8))).toMatchObject({ src: '10.0.0.9', dst: A })
  })
  test.each(['255.255.255.255', '10.0.0.255', '10.0.0.0'])('RFC 1122 row 14: %s is everybody', dst => {
    expect(delivered(to5000({ dst, to: 'ff:ff:ff:ff:ff:ff' }))).toEqual([7, 8])
  })
  test('RFC 1122 row 15: what is larger than the MTU is cut, or refused if it may not be', () => {
    with_socket(function* (fd) {
      expect(yield* say(fd, '10.0.5.2', counting(1000))).toBe(1000)
      yield* option(fd, 10, 2)
      expect(yield* say(fd, '10.0.5.2', counting(1000))).toBe(-90)
      expect(yield* say(fd, '10.0.5.2', counting(500))).toBe(500)
    })
    const sent = s.out()[1]!.map(parse)
    expect(sent.map(p => [p.payload.length + 20, p.offset, p.mf, p.df])).toEqual([
      [572, 0, true, false],
      [476, 552, false, false],
      [528, 0, false, true],
    ])
    expect(sent[0]!.id).toBe(sent[1]!.id)
  })
  test('RFC 1122 row 15: identifications count for each destination alone', () => {
    with_socket(function* (fd) {
      yield* option(fd, 10, 0)
      for (const to of [A, '10.0.0.3', A, '10.0.0.3', A]) yield* say(fd, to)
    })
    const ids = s.out()[0]!.map(f => parse(f).id)
    const next = (id: number): number => (id + 1) & 0xffff
    expect([ids[2], ids[4], ids[3]]).toEqual([next(ids[0]!), next(ids[2]!), next(ids[1]!)])
    expect(ids[0]).not.toBe(ids[1])
  })
})

describe('RFC 1122 3.2.2: ICMP', () => {
  test('RFC 1122 row 16: a type that is unknown is dropped silently', () => {
    silent('icmp_ignored', icmpFrame({ src: A, dst: H }, 44))
  })
  test('RFC 1122 row 18: no error about what was sent to everybody', () => {
    none(udpFrame({ src: fresh(), dst: '10.0.0.255', dport: 4444, to: 'ff:ff:ff:ff:ff:ff' }))
    none(udpFrame({ src: fresh(), dst: H, dport: 4444, to: 'ff:ff:ff:ff:ff:ff' }))
  })
  test('RFC 1122 row 20: no error to a source that is not one host', () => {
    for (const src of ['0.0.0.0', '127.0.0.1', '10.0.0.255', '224.0.0.9', '240.1.1.1'])
      none(udpFrame({ src, dst: H, dport: 4444 }))
  })
  test('RFC 1122 row 21: the header and the data come back unchanged, 576 bytes in all', () => {
    const src = fresh()
    const frame = udpFrame({ src, dst: H, dport: 4444, id: 0x1234, tos: 4, ttl: 9 }, counting(1400))
    const error = one(frame)
    expect(error.payload.length + 20).toBe(576)
    expect([...error.icmp!.data]).toEqual([...frame.subarray(14, 14 + 548)])
    const small = udpFrame({ src: fresh(), dst: H, dport: 4444 }, [])
    expect([...one(small).icmp!.data]).toEqual([...small.subarray(14, 14 + 28)])
  })
  /** An ICMP message about the datagram that a connected socket has sent to A. @returns what its program then hears */
  function told(type: number, code: number, recverr: boolean): number {
    return with_socket(function* (fd) {
      yield* connect(fd, sockaddr_in(malloc(16), ip(A), 9), 16)
      if (recverr) yield* option(fd, 11, 1)
      yield* sendto(fd, malloc(4), 4, 0, 0, 0)
      s.solo.step(clock.ns)
      const quoted = s
        .out()[0]!
        .at(-1)!
        .subarray(14, 14 + 28)
      s.solo.board.nics[0]!.arrive(icmpFrame({ src: A, dst: H }, type, code, 0, quoted))
      s.solo.step(clock.ns)
      return yield* recvfrom(fd, malloc(8), 8, MSG_DONTWAIT, 0, 0)
    }, 5003)
  }
  test.each<[string, number, number, number, number]>([
    ['net unreachable', 3, 0, -11, -101],
    ['host unreachable', 3, 1, -11, -113],
    ['protocol unreachable', 3, 2, -92, -92],
    ['port unreachable', 3, 3, -111, -111],
    ['source route failed', 3, 5, -11, -95],
    ['net unknown', 3, 6, -101, -101],
    ['host unknown', 3, 7, -112, -112],
    ['net prohibited', 3, 9, -101, -101],
    ['host prohibited', 3, 10, -113, -113],
    ['filtered', 3, 13, -113, -113],
  ])('RFC 1122 row 22: %s reaches the socket that it belongs to', (_what, type, code, plain, recverr) => {
    expect([told(type, code, false), told(type, code, true)]).toEqual([plain, recverr])
  })
  test('RFC 1122 row 23: a protocol and a port that nobody has', () => {
    expect(one(ipFrame(counting(8), { src: fresh(), dst: H, protocol: 99 })).icmp).toMatchObject({ type: 3, code: 2 })
    expect(one(udpFrame({ src: fresh(), dst: H, dport: 4444 })).icmp).toMatchObject({ type: 3, code: 3 })
  })
  describe('redirects', () => {
    /** The gateway that packets to a host take. */
    const gateway = (dst: string): string => {
      with_socket(function* (fd) {
        yield* say(fd, dst)
      }, 5004)
      return parse(s.out()[0]![0]!).to
    }
    const [M1, M2] = ['02:00:00:00:01:fd', '02:00:00:00:01:fe']
    /** `from` says that packets to `dst` better go by `gw`. */
    function redirect(from: string, dst: string, gw: string, code = 1): void {
      const quoted = udpFrame({ src: H, dst, sport: 5004, dport: 9 }, [1, 2, 3]).subarray(14, 14 + 28)
      none(icmpFrame({ src: from, dst: H }, 5, code, ip(gw), quoted))
    }
    test('RFC 1122 row 24: one from the gateway that is used counts, for that host alone', () => {
      expect(gateway('192.0.2.20')).toBe(M1)
      redirect(G1, '192.0.2.20', G2)
      expect([gateway('192.0.2.20'), gateway('192.0.2.21')]).toEqual([M2, M1])
      expect(gateway('192.0.2.22')).toBe(M1)
      redirect(G1, '192.0.2.22', G2, 0) // for a network is taken for one of that host
      expect(gateway('192.0.2.22')).toBe(M2)
    })
    test.each<[string, string, string, Record<string, number>]>([
      ['from somebody who is not the gateway', A, G2, {}],
      ['to a gateway that is everybody', G1, '10.0.0.255', {}],
      ['to a gateway that is this host', G1, H, {}],
      ['to one off the link, where media are not shared', G1, '10.77.0.1', { shared_media: 0 }],
      ['to one that is no default gateway, where they must be', G1, G2, { shared_media: 0, secure_redirects: 1 }],
      ['where they are switched off', G1, G2, { accept_redirects: 0 }],
    ])('RFC 1122 row 24: one %s is ignored', (_what, from, gw, switches) => {
      const set = (value: (name: string) => number): void => {
        for (const name of Object.keys(switches))
          for (const which of ['all', 'eth0'])
            expect(sysctl_write(`net.ipv4.conf.${which}.${name}`, value(name))).toBe(0)
      }
      set(name => switches[name]!)
      const dst = `192.0.2.${100 + host++}`
      expect(gateway(dst)).toBe(M1)
      redirect(from, dst, gw)
      expect(gateway(dst)).toBe(M1)
      set(() => 1)
    })
    test('RFC 1122 row 24: a host never sends one', () => {
      none(udpFrame({ src: A, dst: FAR }))
    })
  })
  test('RFC 1122 row 25: source quench troubles no datagram socket', () => {
    expect([told(4, 0, false), told(4, 0, true)]).toEqual([-11, -11])
  })
  test('RFC 1122 row 26: time exceeded and parameter problem are passed up', () => {
    expect([told(11, 0, false), told(11, 0, true)]).toEqual([-11, -113]) // soft: only who asked for errors
    expect([told(12, 0, false), told(12, 0, true)]).toEqual([-71, -71])
  })
  test('RFC 1122 row 27: an echo comes back whole, with its code, from where it was sent to', () => {
    const reply = one(icmpFrame({ src: A, dst: '10.0.0.9', tos: 0x10 }, 8, 5, 0x12345678, counting(1000)))
    expect(reply).toMatchObject({ src: '10.0.0.9', dst: A, tos: 0x10 })
    expect(reply.icmp).toMatchObject({ type: 0, code: 5, info: 0x12345678 })
    expect([...reply.icmp!.data]).toEqual([...counting(1000)])
    const many = fragments(
      icmpFrame({ src: A, dst: H }, 8, 0, 7, counting(3000)).subarray(34),
      { src: A, dst: H, id: 5, protocol: 1 },
      1500,
    )
    expect(
      send(...many)
        .map(p => p.payload.length)
        .reduce((a, b) => a + b),
    ).toBe(3008)
  })
  test('RFC 1122 row 27: record route and timestamps of an echo go on in its answer', () => {
    const rr = [7, 15, 8, 10, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, 0]
    const reply = one(icmpFrame({ src: A, dst: H, options: rr }, 8))
    expect(reply.options).toEqual([7, 15, 16, 10, 0, 0, 77, 10, 0, 0, 1, 10, 0, 0, 1, 0])
    expect(reply.icmp!.checksumGood).toBe(true)
    const ts = one(icmpFrame({ src: A, dst: H, options: [68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0] }, 8)).options
    expect([ts.slice(0, 4), ts[4]! & 0x80, ts[8]! & 0x80]).toEqual([[68, 12, 13, 0], 0x80, 0x80])
  })
  test('RFC 1122 row 10: an answer to a source-routed echo goes back the same way, the sender at its end', () => {
    const lsrr = [131, 11, 12, 10, 0, 0, 50, 10, 0, 0, 51] // passed 50, then 51
    const reply = one(icmpFrame({ src: A, dst: H, options: lsrr }, 8))
    expect([reply.dst, reply.to]).toEqual(['10.0.0.51', '02:00:00:00:01:33'])
    expect(reply.options).toEqual([131, 11, 4, 10, 0, 0, 50, 10, 0, 0, 2, 0])
    const error = one(udpFrame({ src: A, dst: H, dport: 4447, options: lsrr }))
    expect([error.dst, error.icmp!.type]).toEqual(['10.0.0.51', 3])
  })
  test('RFC 1122 row 27: one to everybody is answered by default (2.6), and not where that is switched off', () => {
    const ping = icmpFrame({ src: A, dst: '10.0.0.255', to: 'ff:ff:ff:ff:ff:ff' }, 8)
    expect(one(ping)).toMatchObject({ src: H, dst: A })
    expect(sysctl_write('net.ipv4.icmp_echo_ignore_broadcasts', 1)).toBe(0)
    none(ping)
    expect(sysctl_write('net.ipv4.icmp_echo_ignore_broadcasts', 0)).toBe(0)
    expect(sysctl_write('net.ipv4.icmp_echo_ignore_all', 1)).toBe(0)
    none(icmpFrame({ src: A, dst: H }, 8))
    expect(sysctl_write('net.ipv4.icmp_echo_ignore_all', 0)).toBe(0)
  })
  test('RFC 1122 row 28: a timestamp is answered; the time is not that of day, which this machine does not know, and says so', () => {
    const reply = one(icmpFrame({ src: A, dst: H }, 13, 0, 0x00010002, [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0]))
    expect(reply.icmp).toMatchObject({ type: 14, code: 0, info: 0x00010002 })
    const data = reply.icmp!.data
    expect([...data.subarray(0, 4)]).toEqual([1, 2, 3, 4])
    expect([...data.subarray(4, 8)]).toEqual([...data.subarray(8, 12)])
    expect(data[4]! & 0x80).toBe(0x80)
  })
  test('RFC 1122 row 29: nobody is told the address mask', () => {
    none(icmpFrame({ src: A, dst: H }, 17, 0, 0, [0, 0, 0, 0]))
  })
})

describe('RFC 1122 2.3: the link', () => {
  const questions = (): string[] =>
    s
      .out()[0]!
      .filter(f => f[12] === 8 && f[13] === 6)
      .map(f => [...f.subarray(38, 42)].join('.'))
  test('RFC 1122 row 30: one question a second, three in all; then the neighbour is given up', () => {
    with_socket(function* (fd) {
      for (let k = 0; k < 5; k++) yield* say(fd, '10.0.0.200')
    })
    const seen: number[] = []
    for (let tenth = 0; tenth < 50; tenth++) {
      s.pass(100, 4)
      for (const dst of questions()) if (dst === '10.0.0.200') seen.push(tenth)
    }
    expect(seen).toHaveLength(3)
    expect([seen[1]! - seen[0]! >= 9, seen[2]! - seen[1]! >= 9]).toEqual([true, true]) // a second, seen by tenths
  })
  test('RFC 1122 row 31: the latest packets wait for the answer, three of them (2.6)', () => {
    with_socket(function* (fd) {
      for (let k = 0; k < 5; k++) yield* say(fd, '10.0.0.201', [k])
    })
    s.pass(5)
    expect(questions()).toContain('10.0.0.201')
    const arp = [0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 9, 9, 10, 0, 0, 201, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1]
    const out = s.send(0, ethernet(arp, { type: 0x0806, from: '02:00:00:00:09:09' }))[0]!.map(parse)
    expect(out.map(p => p.payload[8])).toEqual([2, 3, 4])
    expect(out[0]!.to).toBe('02:00:00:00:09:09')
  })
  test('RFC 1122 row 32: frames of RFC 894; what came to a station as a link broadcast is taken (2.6)', () => {
    with_socket(function* (fd) {
      yield* say(fd, A, [])
    })
    const [frame] = s.out()[0]!
    expect([frame![12], frame![13], frame!.length]).toEqual([8, 0, 42])
    expect(delivered(to5000({ to: 'ff:ff:ff:ff:ff:ff' }))).toEqual([7, 8])
  })
})

describe('RFC 1122 4.1: UDP', () => {
  test('RFC 1122 row 33: port unreachable is sent, and reaches who sent to such a port', () => {
    expect(one(udpFrame({ src: fresh(), dst: H, dport: 4445 })).icmp).toMatchObject({ type: 3, code: 3 })
    const err = with_socket(function* (fd) {
      yield* connect(fd, sockaddr_in(malloc(16), ip('127.0.0.1'), 4446), 16)
      yield* sendto(fd, malloc(4), 1, 0, 0, 0)
      return yield* recv(fd, malloc(4), 4, 0)
    })
    expect(err).toBe(-111)
  })
  test('RFC 1122 row 34: a checksum by default, right; a wrong one is dropped silently, none is taken', () => {
    with_socket(function* (fd) {
      yield* say(fd, A, [1, 2, 3])
    })
    const sent = parse(s.out()[0]![0]!)
    expect([...sent.payload]).toEqual([...udp({ src: H, dst: A, sport: 5000, dport: 9 }, [1, 2, 3])])
    const good = to5000()
    expect(delivered(change(good, 41, good[41]! ^ 1))).toBeNull()
    expect(delivered(change(good, 40, 0, 0))).toEqual([7, 8])
    expect(s.out()[0]).toEqual([])
  })
  test('RFC 1122 row 35: any address of ours; the destination is told, with the interface', () => {
    expect(delivered(to5000({ dst: '10.0.0.9' }))).toEqual([7, 8])
    expect(delivered(to5000({ src: '10.0.0.255' }))).toBeNull()
    const r = start(function* () {
      const fd = yield* socket(AF_INET, SOCK_DGRAM, 0)
      yield* bind(fd, sockaddr_in(malloc(16), 0, 5000), 16)
      yield* option(fd, 8, 1)
      const [iov, buf, control, msg] = [malloc(8), malloc(64), malloc(64), malloc(28)]
      store32(iov, buf)
      store32(iov + 4, 64)
      store32(msg + 8, iov)
      store32(msg + 12, 1)
      store32(msg + 16, control)
      store32(msg + 20, 64)
      yield* recvmsg(fd, msg, 0)
      yield* close(fd)
      return [load32(control + 12), [...mem(control + 16, 8)]]
    })
    s.pass(0.3)
    s.send(0, to5000({ dst: '10.0.0.9' }))
    expect(finish(s, r)).toEqual([2, [10, 0, 0, 9, 10, 0, 0, 9]])
  })
})

describe('RFC 1191', () => {
  const mtu_to = (dst: string): number =>
    with_socket(function* (fd) {
      yield* connect(fd, sockaddr_in(malloc(16), ip(dst), 9), 16)
      const value = variable()
      yield* getsockopt(fd, SOL_IP, 14, value, variable(4))
      return load32(value)
    }, 5005)
  /** A router on the way says what fits. */
  const too_big = (dst: string, mtu: number): void => {
    const quoted = udpFrame({ src: H, dst, df: true, sport: 5005, dport: 9 }, counting(1472)).subarray(14, 14 + 28)
    none(icmpFrame({ src: G1, dst: H }, 3, 4, mtu, quoted))
  }
  test('row 67: 3/4 makes the path MTU less, not below 552 (2.6), for 600 s', () => {
    expect(mtu_to('198.51.100.1')).toBe(1500)
    too_big('198.51.100.1', 1006)
    expect(mtu_to('198.51.100.1')).toBe(1006)
    too_big('198.51.100.1', 1400) // more again is not believed
    expect(mtu_to('198.51.100.1')).toBe(1006)
    too_big('198.51.100.1', 100)
    expect(mtu_to('198.51.100.1')).toBe(552)
    for (let k = 0; k < 7; k++) {
      clock.ns += 100e9
      s.pass(1)
      if (k < 5) expect(mtu_to('198.51.100.1')).toBe(552)
    }
    for (let k = 0; k < 6; k++) {
      clock.ns += 60e9
      s.pass(1)
    }
    expect(mtu_to('198.51.100.1')).toBe(1500)
  })
  test('row 67: a router that does not say how much fits: the next plateau below what a router of 4.2BSD means', () => {
    expect(mtu_to('198.51.100.2')).toBe(1500)
    too_big('198.51.100.2', 0)
    expect(mtu_to('198.51.100.2')).toBe(576) // 1500 less a header, as those counted
  })
})

test('row 80: what is for this host is taken though it forwards nothing', () => {
  expect(one(icmpFrame({ src: A, dst: '10.0.5.1' }, 8))).toMatchObject({ src: '10.0.5.1' })
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
