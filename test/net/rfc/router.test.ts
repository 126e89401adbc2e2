/** RFC 1812 (and what RFC 1122 says of errors) for a router, row by row of the requirements; 2.6.11's way where it deviates. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { afterEach, describe, expect, test } from 'vitest'
import { sysctl_write } from '../../../src/net/core/sysctl.js'
import { ip_main } from '../../../src/user/ip.js'
import { close, malloc, recv, set_word, socket } from '../../../src/user/libc.js'
import {
  checksum,
  counting,
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

const mac = (lo: number) => ({ hi: 0x02000000, lo })
const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.2.1'), prefixlen: 24 }], mtu: 576 },
  ],
  neighbours: [
    ...Array.from({ length: 60 }, (_, k) => ({ address: ip('10.0.0.2') + k, dev: 'eth0', mac: mac(0x102 + k) })),
    { address: ip('10.0.0.254'), dev: 'eth0', mac: mac(0x1fe) },
    { address: ip('10.0.1.2'), dev: 'eth1', mac: mac(0x202) },
    { address: ip('10.0.1.3'), dev: 'eth1', mac: mac(0x203) },
    { address: ip('10.0.2.2'), dev: 'eth2', mac: mac(0x302) },
  ],
  config: { loopback: 1, user_procs: 2 },
})
const [A, B, C] = ['10.0.0.2', '10.0.1.2', '10.0.2.2']
let host = 2
const fresh = (): string => `10.0.0.${++host}`

/** Packets that come out at a port when frames come in at eth0. */
const out = (port: number, ...frames: Uint8Array[]): Parsed[] => s.send(0, ...frames)[port]!.map(parse)
const none = (...frames: Uint8Array[]): void => expect(s.send(0, ...frames).flat()).toEqual([])
function through(port: number, frame: Uint8Array): Parsed {
  const frames = out(port, frame)
  expect(frames).toHaveLength(1)
  expect(frames[0]!.ipChecksumGood).toBe(true)
  return frames[0]!
}
function refused(frame: Uint8Array): [number, number] {
  const p = through(0, frame)
  expect(p.icmp!.checksumGood).toBe(true)
  return [p.icmp!.type, p.icmp!.code]
}
function command(line: string): void {
  const none = function* (): Generator<void, number, void> {
    return 0
  }
  expect([line, run(s, () => ip_main(line.split(' '), { out: none, err: none }))]).toEqual([line, 0])
}
const set = (name: string, value: number): void => expect(sysctl_write(name, value)).toBe(0)

afterEach(() => {
  s.out()
  expect(conserved(s.fates())).toBe(true)
})

describe('RFC 1122 3.2.2: errors that are not sent', () => {
  test('RFC 1122 row 17: none about an ICMP error', () => {
    for (const type of [3, 4, 5, 11, 12]) none(icmpFrame({ src: fresh(), dst: B, ttl: 1 }, type, 0, 0, counting(28)))
    expect(refused(icmpFrame({ src: fresh(), dst: B, ttl: 1 }, 8))).toEqual([11, 0])
  })
  test('RFC 1122 row 18: none about a link broadcast or a broadcast', () => {
    none(udpFrame({ src: fresh(), dst: B, ttl: 1, to: 'ff:ff:ff:ff:ff:ff' }))
    none(udpFrame({ src: fresh(), dst: '10.0.0.255', ttl: 1, to: 'ff:ff:ff:ff:ff:ff' }))
  })
  test('RFC 1122 row 19: none about a piece that is not the first', () => {
    none(ipFrame(counting(64), { src: fresh(), dst: B, ttl: 1, offset: 64 }))
    expect(refused(ipFrame(counting(64), { src: fresh(), dst: B, ttl: 1, mf: true }))).toEqual([11, 0])
  })
  test('RFC 1122 row 20: none to a source that is not one host', () => {
    for (const src of ['0.0.0.0', '127.0.0.1', '10.0.0.255', '224.0.0.9', '240.1.1.1', '255.255.255.255'])
      none(udpFrame({ src, dst: B, ttl: 1 }))
  })
})

describe('RFC 1812: forwarding', () => {
  test('RFC 1812 row 68: one hop less, the checksum moved along with it, nothing else is changed', () => {
    for (const ttl of [2, 3, 64, 255]) {
      const frame = udpFrame(
        { src: A, dst: B, ttl, id: 0xbeef, tos: 0x10, df: true, options: [1, 1, 1, 0] },
        counting(33),
      )
      const [sent] = s.send(0, frame)[1]!
      const want = frame.slice(14)
      want[8] = ttl - 1
      want.set([0, 0], 10)
      const sum = checksum(want.subarray(0, 24))
      want.set([sum >> 8, sum & 255], 10)
      expect([...sent!.subarray(14)]).toEqual([...want])
    }
  })
  test('RFC 1812 row 68: a TTL that ends here is time exceeded', () => {
    for (const ttl of [0, 1]) expect(refused(udpFrame({ src: fresh(), dst: B, ttl }))).toEqual([11, 0])
  })
  test('RFC 1812 row 69: no link broadcasts, no sources of 127/8, 0/8 or class E, no limited broadcast', () => {
    none(udpFrame({ src: A, dst: B, to: 'ff:ff:ff:ff:ff:ff' }))
    for (const src of ['127.0.0.1', '0.0.0.5', '240.0.0.1']) none(udpFrame({ src, dst: B }))
    none(udpFrame({ src: A, dst: '255.255.255.255', dport: 4444, to: 'ff:ff:ff:ff:ff:ff' }))
  })
  test('RFC 1812 row 70: the longest prefix, then the TOS, then the metric', () => {
    const station = (dst: string, tos = 0): string => through(1, udpFrame({ src: A, dst, tos })).to.slice(-2)
    command('route add 30.0.0.0/8 via 10.0.1.2')
    command('route add 30.1.0.0/16 via 10.0.1.3')
    expect([station('30.0.0.1'), station('30.1.0.1')]).toEqual(['02', '03'])
    command('route add 30.1.0.0/16 tos 0x10 via 10.0.1.2')
    expect([station('30.1.0.1', 0x10), station('30.1.0.1', 0x08)]).toEqual(['02', '03'])
    command('route add 30.2.0.0/16 via 10.0.1.2 metric 20')
    command('route add 30.2.0.0/16 via 10.0.1.3 metric 10')
    expect(station('30.2.0.1')).toBe('03')
    command('route del 30.2.0.0/16 metric 10')
    expect(station('30.2.0.1')).toBe('02')
    command('route flush root 30.0.0.0/8')
  })
  test('RFC 1812 row 71: pieces of multiples of 8; options that are to be copied are in each, the others in the first', () => {
    const rr = [7, 7, 4, 0, 0, 0, 0]
    const copied = [0x82, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9] // security
    const pieces = out(2, ipFrame(counting(1300), { src: A, dst: C, id: 3, options: [...rr, 1, ...copied, 0] }))
    expect(pieces).toHaveLength(3)
    expect(pieces.every(p => p.ipChecksumGood)).toBe(true)
    expect(pieces.slice(0, -1).every(p => p.payload.length % 8 === 0 && p.mf)).toBe(true)
    expect(pieces.map(p => p.offset)).toEqual([0, pieces[0]!.payload.length, pieces[0]!.payload.length * 2])
    expect(pieces[0]!.options.slice(0, 7)).toEqual([7, 7, 8, 10, 0, 2, 1])
    for (const p of pieces) expect(p.options.slice(8, 19)).toEqual(copied)
    for (const p of pieces.slice(1)) expect(p.options.slice(0, 8).every(b => b === 1)).toBe(true)
    expect(pieces.flatMap(p => [...p.payload])).toEqual([...counting(1300)])
  })
  test('RFC 1812 row 72: no route is 3/0, a neighbour that does not answer 3/1, what may not be cut 3/4 with the MTU', () => {
    expect(refused(udpFrame({ src: fresh(), dst: '99.0.0.1' }))).toEqual([3, 0])
    expect(refused(udpFrame({ src: fresh(), dst: '10.0.1.77' }))).toEqual([3, 1])
    const p = through(0, udpFrame({ src: fresh(), dst: C, df: true }, counting(1000)))
    expect(p.icmp).toMatchObject({ type: 3, code: 4, info: 576 })
    command('route add unreachable 31.0.0.0/8')
    command('route add prohibit 32.0.0.0/8')
    expect(refused(udpFrame({ src: fresh(), dst: '31.0.0.1' }))).toEqual([3, 1])
    expect(refused(udpFrame({ src: fresh(), dst: '32.0.0.1' }))).toEqual([3, 13])
    command('route del unreachable 31.0.0.0/8')
    command('route del prohibit 32.0.0.0/8')
  })
  test('RFC 1812 row 77: a broadcast to another network is not forwarded', () => {
    none(udpFrame({ src: A, dst: '10.0.1.255', dport: 4444 }))
    none(udpFrame({ src: A, dst: '10.0.1.0', dport: 4444 }))
  })
  test('RFC 1812 row 78: a source that has another way back is dropped where rp_filter is on', () => {
    const odd = udpFrame({ src: '10.0.2.9', dst: B })
    expect(through(1, odd).src).toBe('10.0.2.9')
    set('net.ipv4.conf.eth0.rp_filter', 1)
    set('net.ipv4.conf.all.rp_filter', 1) // both must be on
    const f = s.account(() => none(odd))
    expect(f.drops).toEqual({ ip_martian_source: 1 })
    expect(through(1, udpFrame({ src: A, dst: B })).src).toBe(A)
    none(udpFrame({ src: '99.0.0.1', dst: B })) // and one that has none
    set('net.ipv4.conf.eth0.rp_filter', 0)
    set('net.ipv4.conf.all.rp_filter', 0)
  })
  test('RFC 1812 row 79: pieces on their way are not put together', () => {
    const pieces = fragments(udp({ src: A, dst: B }, counting(3000)), { src: A, dst: B, id: 8 }, 1500)
    const sent = out(1, ...pieces)
    expect(sent.map(p => [p.offset, p.mf, p.payload.length])).toEqual(
      pieces.map(f => parse(f)).map(p => [p.offset, p.mf, p.payload.length]),
    )
    expect(out(1, pieces[1]!)).toHaveLength(1) // not even one without its first
  })
})

describe('RFC 1812: redirects', () => {
  test('RFC 1812 row 73: who could ask the gateway himself is told, nine times at most and ever more rarely; the packet goes on', () => {
    command('route add 198.51.100.0/24 via 10.0.0.254')
    const src = fresh()
    const frame = udpFrame({ src, dst: '198.51.100.7' }, counting(12))
    const first = out(0, frame)
    expect(first.map(p => p.protocol).sort()).toEqual([1, 17])
    const redirect = first.find(p => p.protocol === 1)!
    expect(redirect.icmp).toMatchObject({ type: 5, code: 1, info: ip('10.0.0.254'), checksumGood: true })
    expect(redirect).toMatchObject({ src: '10.0.0.1', dst: src })
    expect(first.find(p => p.protocol === 17)!.to).toBe('02:00:00:00:01:fe')
    let told = 1
    const when: number[] = []
    for (let ms = 0; ms < 15_000; ms += 10) {
      s.pass(10, 4)
      const n = out(0, frame).filter(p => p.protocol === 1).length
      if (n > 0) when.push(ms)
      told += n
    }
    expect(told).toBe(9)
    const gaps = when.map((t, k) => t - (when[k - 1] ?? 0))
    expect(gaps.every((gap, k) => k === 0 || gap >= gaps[k - 1]!)).toBe(true)
  })
  test('RFC 1812 row 73: not about source-routed packets, nor where it is switched off', () => {
    const options = [131, 7, 8, 10, 0, 9, 9]
    expect(out(0, udpFrame({ src: fresh(), dst: '198.51.100.7', options })).map(p => p.protocol)).toEqual([17])
    set('net.ipv4.conf.eth0.send_redirects', 0)
    set('net.ipv4.conf.all.send_redirects', 0)
    expect(out(0, udpFrame({ src: fresh(), dst: '198.51.100.7' })).map(p => p.protocol)).toEqual([17])
    set('net.ipv4.conf.eth0.send_redirects', 1)
    set('net.ipv4.conf.all.send_redirects', 1)
    command('route del 198.51.100.0/24')
  })
  test('a router believes none', () => {
    const quoted = udpFrame({ src: '10.0.0.1', dst: '99.0.0.1' }).subarray(14, 42)
    none(icmpFrame({ src: A, dst: '10.0.0.1' }, 5, 1, ip('10.0.0.254'), quoted))
  })
})

describe('RFC 1812 4.3.2: ICMP', () => {
  test('RFC 1812 row 74: six errors at once, then one a second to each host; what path MTU discovery needs is not limited', () => {
    const burst = (n: number, frame: Uint8Array): number => out(0, ...Array.from({ length: n }, () => frame)).length
    const [one, two] = [fresh(), fresh()]
    expect(burst(20, udpFrame({ src: one, dst: B, ttl: 1 }))).toBe(6)
    expect(burst(20, udpFrame({ src: two, dst: B, ttl: 1 }))).toBe(6)
    s.pass(1000)
    expect(burst(20, udpFrame({ src: one, dst: B, ttl: 1 }))).toBe(1)
    expect(burst(20, udpFrame({ src: one, dst: C, df: true }, counting(1000)))).toBe(20)
    expect(burst(20, icmpFrame({ src: one, dst: '10.0.0.1' }, 8))).toBe(20)
    set('net.ipv4.icmp_ratelimit', 0)
    expect(burst(20, udpFrame({ src: one, dst: B, ttl: 1 }))).toBe(20)
    set('net.ipv4.icmp_ratelimit', 1000)
    set('net.ipv4.icmp_ratemask', 0)
    expect(burst(20, udpFrame({ src: one, dst: B, ttl: 1 }))).toBe(20)
    set('net.ipv4.icmp_ratemask', 0x1819) // answers to echoes as well, which nothing limits by default
    expect(burst(20, icmpFrame({ src: fresh(), dst: '10.0.0.1' }, 8))).toBe(6)
    set('net.ipv4.icmp_ratemask', 0x1818)
  })
  test('RFC 1812 row 75: errors quote as much as fits 576 bytes, with precedence 6 and the TOS of the packet', () => {
    const frame = udpFrame({ src: fresh(), dst: B, ttl: 1, tos: 0x48 }, counting(1400))
    const p = through(0, frame)
    expect([p.payload.length + 20, p.tos, p.ttl]).toEqual([576, 0xc8, 64])
    expect([...p.icmp!.data]).toEqual([...frame.subarray(14, 14 + 548)])
  })
})

describe('RFC 1812 5.2.4.1: options on their way', () => {
  /** A source route: type, then the stops, with the pointer at the first of them. */
  const route = (type: number, ...stops: string[]): number[] => [
    ...[type, 3 + 4 * stops.length, 4],
    ...stops.flatMap(stop => stop.split('.').map(Number)),
  ]
  test.each([131, 137])(
    'RFC 1812 row 76: source route %i: the next stop becomes the destination, this router is entered',
    type => {
      const p = through(1, udpFrame({ src: A, dst: '10.0.0.1', options: route(type, B, '10.0.1.3') }))
      expect([p.dst, p.to, p.ttl]).toEqual([B, '02:00:00:00:02:02', 63])
      expect(p.options.slice(0, 11)).toEqual([type, 11, 8, 10, 0, 1, 1, 10, 0, 1, 3])
    },
  )
  test('RFC 1812 row 76: a strict one to a stop that is no neighbour is 3/5', () => {
    command('route add 33.0.0.0/8 via 10.0.1.2')
    expect(refused(udpFrame({ src: fresh(), dst: '10.0.0.1', options: route(137, '33.0.0.1') }))).toEqual([3, 5])
    expect(through(1, udpFrame({ src: A, dst: '10.0.0.1', options: route(131, '33.0.0.1') })).dst).toBe('33.0.0.1')
    command('route del 33.0.0.0/8')
  })
  test('RFC 1812 row 76: a strict one that comes by somebody who is not named is a parameter problem', () => {
    const p = through(0, udpFrame({ src: fresh(), dst: B, options: route(137, '10.0.1.3') }))
    expect(p.icmp).toMatchObject({ type: 12, code: 0, info: 16 << 24 })
    expect(through(1, udpFrame({ src: A, dst: B, options: route(131, '10.0.1.3') })).dst).toBe(B)
  })
  test('RFC 1812 row 76: switched off, source-routed packets are dropped', () => {
    set('net.ipv4.conf.eth0.accept_source_route', 0)
    const f = s.account(() => none(udpFrame({ src: A, dst: '10.0.0.1', options: route(131, B) })))
    expect(f.drops).toEqual({ ip_source_route: 1 })
    set('net.ipv4.conf.eth0.accept_source_route', 1)
  })
  test('RFC 1812 row 76: record route: the address of the way out is entered, until it is full', () => {
    const rr = [7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0]
    const p = through(1, udpFrame({ src: A, dst: B, options: rr }))
    expect(p.options.slice(0, 11)).toEqual([7, 11, 8, 10, 0, 1, 1, 0, 0, 0, 0])
    const full = through(1, udpFrame({ src: A, dst: B, options: [7, 7, 8, 1, 2, 3, 4] }))
    expect(full.options.slice(0, 7)).toEqual([7, 7, 8, 1, 2, 3, 4])
  })
  test('RFC 1812 row 76: timestamps: alone, with addresses, for named ones; what does not fit is counted', () => {
    const stamp = (options: number[]): number[] => through(1, udpFrame({ src: A, dst: B, options })).options
    const alone = stamp([68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    expect([alone.slice(0, 4), alone[4]! & 0x80, alone.slice(8)]).toEqual([[68, 12, 9, 0], 0x80, [0, 0, 0, 0]])
    const both = stamp([68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    expect(both.slice(0, 8)).toEqual([68, 12, 13, 1, 10, 0, 1, 1])
    expect(both[8]! & 0x80).toBe(0x80)
    expect(stamp([68, 12, 5, 3, 10, 0, 9, 9, 0, 0, 0, 0]).slice(0, 12)).toEqual([68, 12, 5, 3, 10, 0, 9, 9, 0, 0, 0, 0])
    expect(stamp([68, 8, 9, 0, 0, 0, 0, 1]).slice(0, 4)).toEqual([68, 8, 9, 0x10])
  })
})

describe('RFC 1122 3.3.1: several gateways of this machine itself', () => {
  test('RFC 1122 row 12: a default gateway that does not answer is passed over', () => {
    command('neigh add 10.0.1.50 dev eth1 lladdr 02:00:00:00:02:50 nud reachable')
    command('neigh add 10.0.1.51 dev eth1 lladdr 02:00:00:00:02:51 nud reachable')
    command('route add default via 10.0.1.50')
    command('route append default via 10.0.1.51')
    const gateway = (dst: string): string => {
      let text = ''
      run(s, () =>
        ip_main(['route', 'get', dst], {
          *out(line) {
            text += line
            return 0
          },
          *err() {
            return 0
          },
        }),
      )
      return /via (\S+)/.exec(text)![1]!
    }
    expect(gateway('99.0.0.1')).toBe('10.0.1.50')
    command('neigh del 10.0.1.50 dev eth1') // FAILED
    expect(gateway('99.0.0.2')).toBe('10.0.1.51')
    command('neigh replace 10.0.1.50 dev eth1 lladdr 02:00:00:00:02:50 nud reachable')
    expect(gateway('99.0.0.3')).toBe('10.0.1.50')
    command('route flush exact default')
  })
})

test('RFC 2113, row 9: a packet that asks routers to look goes to the program that does, and not on', () => {
  const alert = ipFrame([1, 2, 3], { src: A, dst: B, protocol: 77, options: [0x94, 4, 0, 0] })
  expect(out(1, alert)).toHaveLength(1) // nobody looks
  const p = start(function* () {
    const fd = yield* socket(2, 3, 77)
    const udp_fd = yield* socket(2, 2, 0)
    const wrong = yield* set_word(udp_fd, 0, 5, 1)
    const set = [yield* set_word(fd, 0, 5, 1), yield* set_word(fd, 0, 5, 1)]
    const n = yield* recv(fd, malloc(64), 64, 0)
    set.push(yield* set_word(fd, 0, 5, 0), yield* set_word(fd, 0, 5, 0))
    yield* close(udp_fd)
    yield* close(fd)
    return [wrong, ...set, n]
  })
  s.pass(1)
  expect(out(1, ipFrame([1], { src: A, dst: B, protocol: 78, options: [0x94, 4, 0, 0] }))).toHaveLength(1)
  expect(out(1, ipFrame([1], { src: A, dst: B, protocol: 77 }))).toHaveLength(1)
  const f = s.account(() => none(alert))
  expect([f.delivered, f.forwarded]).toEqual([1, 0])
  expect(finish(s, p)).toEqual([-22, 0, -98, 0, -2, 27])
  expect(out(1, alert)).toHaveLength(1)
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
