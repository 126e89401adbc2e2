/** The router, frame by frame: what goes in, what must come out (RFC 791, 792, 1812; Linux 2.6.11 where those leave a choice). */
import '../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { afterEach, describe, expect, test } from 'vitest'
import { dev_get_by_name, dev_put } from '../../src/net/core/netdevice.js'
import { neigh_add_permanent } from '../../src/net/core/nud.js'
import {
  counting,
  fragments,
  type IpOptions,
  icmp,
  icmpFrame,
  ipFrame,
  type Parsed,
  parse,
  udp,
  udpFrame,
} from '../helpers/frames.js'
import { conserved, Script } from '../helpers/script.js'
import { ip } from '../helpers/solo.js'

const mac = (k: number) => ({ hi: 0x02000000, lo: k })
const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.2.1'), prefixlen: 24 }], mtu: 576 },
  ],
  routes: [
    {
      dst: ip('192.0.2.0'),
      prefixlen: 24,
      type: 'unicast',
      metric: 0,
      nexthops: [{ gw: ip('10.0.1.254'), dev: 'eth1', weight: 1 }],
    },
    {
      dst: ip('198.51.100.0'),
      prefixlen: 24,
      type: 'unicast',
      metric: 0,
      nexthops: [{ gw: ip('10.0.0.254'), dev: 'eth0', weight: 1 }],
    },
    { dst: ip('203.0.113.0'), prefixlen: 26, type: 'unreachable', metric: 0, nexthops: [] },
    { dst: ip('203.0.113.64'), prefixlen: 26, type: 'prohibit', metric: 0, nexthops: [] },
    { dst: ip('203.0.113.128'), prefixlen: 26, type: 'blackhole', metric: 0, nexthops: [] },
    { dst: ip('192.0.2.64'), prefixlen: 26, type: 'throw', metric: 0, nexthops: [] },
  ],
  neighbours: [
    ...Array.from({ length: 40 }, (_, k) => ({ address: ip('10.0.0.2') + k, dev: 'eth0', mac: mac(0x102 + k) })),
    { address: ip('10.0.0.254'), dev: 'eth0', mac: mac(0x1fe) },
    { address: ip('10.0.1.2'), dev: 'eth1', mac: mac(0x202) },
    { address: ip('10.0.1.254'), dev: 'eth1', mac: mac(0x2fe) },
    { address: ip('10.0.2.2'), dev: 'eth2', mac: mac(0x302) },
  ],
})
const A = '10.0.0.2'
const B = '10.0.1.2'
const C = '10.0.2.2'
/** Every test about errors is another host, so that no test eats another one's rate limit. */
let host = 2
const fresh = (): string => `10.0.0.${++host}`

/** One frame in at port 0, one out, its checksum right. */
function one(port: number, frame: Uint8Array): Parsed {
  const out = s.send(0, frame)
  expect(out.map(frames => frames.length)).toEqual(out.map((_, k) => (k === port ? 1 : 0)))
  const parsed = parse(out[port]![0]!)
  expect(parsed.ipChecksumGood).toBe(true)
  if (parsed.icmp !== null) expect(parsed.icmp.checksumGood).toBe(true)
  return parsed
}
function none(...frames: Uint8Array[]): void {
  expect(s.send(0, ...frames).flat()).toEqual([])
}
/** An ICMP error about `frame` comes back, and quotes it as it was. */
function refused(frame: Uint8Array, src: string, type: number, code: number): Parsed {
  const reply = one(0, frame)
  expect(reply).toMatchObject({ src: '10.0.0.1', dst: src, ttl: 64, tos: 0xc0, protocol: 1 })
  expect(reply.icmp).toMatchObject({ type, code })
  const length = parse(frame).payload.length + (frame[14]! & 15) * 4
  expect([...reply.icmp!.data]).toEqual([...frame.subarray(14, 14 + Math.min(length, 576 - 28))])
  return reply
}

afterEach(() => {
  expect(conserved(s.fates())).toBe(true)
})

describe('forwarding', () => {
  test('a packet goes out on the other wire: one hop less, checksum moved along, link addresses new', () => {
    const given = udpFrame({ src: A, dst: B, ttl: 17, id: 7, tos: 0x10, df: true }, counting(40))
    const sent = one(1, given)
    expect(sent).toMatchObject({ src: A, dst: B, ttl: 16, id: 7, tos: 0x10, df: true, protocol: 17 })
    expect(sent).toMatchObject({ from: '02:00:00:00:00:02', to: '02:00:00:00:02:02' })
    expect([...sent.payload]).toEqual([...parse(given).payload])
  })
  test('through a gateway: its link address, the destination’s IP address', () => {
    expect(one(1, udpFrame({ src: A, dst: '192.0.2.9' }))).toMatchObject({
      dst: '192.0.2.9',
      to: '02:00:00:00:02:fe',
    })
  })
  test.each([0, 1, 17, 18, 19, 500, 1471, 1472])('%i bytes of payload arrive whole', size => {
    const given = udpFrame({ src: A, dst: B }, counting(size))
    expect([...one(1, given).payload]).toEqual([...parse(given).payload])
  })
  test('packets of a flow keep their order', () => {
    const out = s.send(0, ...Array.from({ length: 100 }, (_, k) => udpFrame({ src: A, dst: B, id: k })))
    expect(out[1]!.map(f => parse(f).id)).toEqual(Array.from({ length: 100 }, (_, k) => k))
  })
  test('the checksum stays right for each of the values that it can have', () => {
    for (let id = 0; id < 0x10000; id += 251) expect(one(1, udpFrame({ src: A, dst: B, id })).id).toBe(id)
  })
})

describe('time exceeded', () => {
  test.each([0, 1])('a TTL of %i ends here', ttl => {
    const src = fresh()
    refused(udpFrame({ src, dst: B, ttl }, counting(30)), src, 11, 0)
  })
  test('a long packet is quoted so that the message has 576 bytes', () => {
    const src = fresh()
    const reply = refused(udpFrame({ src, dst: B, ttl: 1 }, counting(1400)), src, 11, 0)
    expect(reply.payload.length + 20).toBe(576)
  })
  test('six at once, then one each second', () => {
    const src = fresh()
    const burst = (n: number): number =>
      s.send(0, ...Array.from({ length: n }, () => udpFrame({ src, dst: B, ttl: 1 }))).flat().length
    expect(burst(20)).toBe(6)
    s.pass(1000)
    expect(burst(20)).toBe(1)
    s.pass(3000)
    expect(burst(20)).toBe(3)
  })
  test.each<[string, (o: IpOptions) => Uint8Array]>([
    ['an ICMP error', o => icmpFrame(o, 3, 1, 0, counting(28))],
    ['a later fragment', o => ipFrame(counting(64), { ...o, offset: 64 })],
    ['a link broadcast', o => udpFrame({ ...o, to: 'ff:ff:ff:ff:ff:ff' })],
    ['a source that cannot be answered', o => udpFrame({ ...o, src: '0.0.0.0' })],
  ])('but not about %s', (_what, frame) => {
    none(frame({ src: fresh(), dst: B, ttl: 1 }))
  })
  test('about an echo request all the same', () => {
    const src = fresh()
    refused(icmpFrame({ src, dst: B, ttl: 1 }, 8, 0, 0, counting(20)), src, 11, 0)
  })
})

describe('unreachable', () => {
  test.each([
    ['no route', '8.8.8.8', 0],
    ['an unreachable route', '203.0.113.1', 1],
    ['a prohibited one', '203.0.113.65', 13],
    ['a throw route within a network that has one', '192.0.2.65', 0],
  ])('%s', (_what, dst, code) => {
    const src = fresh()
    refused(udpFrame({ src, dst }, counting(10)), src, 3, code)
  })
  test('a blackhole says nothing', () => {
    none(udpFrame({ src: fresh(), dst: '203.0.113.129' }))
  })
  describe('a neighbour that nobody knows', () => {
    const nobody = '10.0.1.77'
    test('the sender is told; the hop is counted, as 2.6.11 notices late', () => {
      const src = fresh()
      const f = s.account(() => {
        const reply = one(0, udpFrame({ src, dst: nobody }, counting(10)))
        expect(reply).toMatchObject({ src: '10.0.0.1', dst: src, tos: 0xc0 })
        expect(reply.icmp).toMatchObject({ type: 3, code: 1, info: 0 })
        expect(reply.icmp!.data.length).toBe(38)
        expect(reply.icmp!.data[8]).toBe(63)
      })
      expect(f).toEqual({ received: 1, forwarded: 0, delivered: 0, icmp_sent: 1, drops: { neigh_unresolved: 1 } })
    })
    test('six times at once, then once each second', () => {
      const src = fresh()
      const told = (n: number): number => {
        const frames = Array.from({ length: n }, () => udpFrame({ src, dst: nobody }))
        const f = s.account(() => s.send(0, ...frames))
        expect(f).toMatchObject({ received: n, drops: { neigh_unresolved: n } })
        return f.icmp_sent
      }
      expect(told(20)).toBe(6)
      s.pass(1000)
      expect(told(20)).toBe(1)
    })
    test('an ICMP error about it is about nothing, an answer to it is lost', () => {
      none(icmpFrame({ src: fresh(), dst: nobody }, 3, 1, 0, counting(28)))
      const f = s.account(() => none(icmpFrame({ src: '10.0.0.199', dst: '10.0.0.1' }, 8)))
      expect(f).toEqual({ received: 1, forwarded: 0, delivered: 1, icmp_sent: 0, drops: {} })
      none(udpFrame({ src: '10.0.0.199', dst: nobody }))
    })
    test('of a packet in pieces the first one says it', () => {
      const src = fresh()
      const f = s.account(() => {
        const { icmp } = one(0, udpFrame({ src, dst: '10.0.2.77' }, counting(1400)))
        expect(icmp).toMatchObject({ type: 3, code: 1 })
      })
      expect(f).toMatchObject({ received: 1, forwarded: 0, icmp_sent: 1, drops: { neigh_unresolved: 1 } })
    })
    test('once it is known, packets reach it, those of cached routes too', () => {
      const dev = dev_get_by_name('eth1')!
      expect(neigh_add_permanent(ip(nobody), dev, 0x02000000, 0x277)).toBe(0)
      dev_put(dev)
      expect(one(1, udpFrame({ src: '10.0.0.199', dst: nobody })).to).toBe('02:00:00:00:02:77')
    })
  })
  test('a protocol that nobody here speaks', () => {
    const src = fresh()
    refused(ipFrame(counting(20), { src, dst: '10.0.0.1', protocol: 99 }), src, 3, 2)
  })
})

describe('packets larger than the link', () => {
  test('DF: fragmentation needed, with the MTU', () => {
    const src = fresh()
    const reply = one(0, udpFrame({ src, dst: C, df: true }, counting(800)))
    expect(reply.icmp).toMatchObject({ type: 3, code: 4, info: 576 })
    expect(reply.icmp!.data[8]).toBe(63) // 2.6.11 notices after it has counted the hop
    expect(reply.payload.length + 20).toBe(576)
  })
  test.each([549, 556, 557, 800, 1104, 1105, 1472])('%i bytes: pieces that fit, and together are the packet', size => {
    const src = fresh()
    const given = udpFrame({ src, dst: C, id: size }, counting(size))
    const pieces = s.send(0, given)[2]!.map(parse)
    const whole = new Uint8Array(8 + size)
    let end = 0
    for (const p of pieces) {
      expect(p).toMatchObject({ src, dst: C, id: size, ttl: 63, ipChecksumGood: true, offset: end, df: false })
      expect(p.payload.length + 20).toBeLessThanOrEqual(576)
      if (p.mf) expect(p.payload.length % 8).toBe(0)
      whole.set(p.payload, p.offset)
      end = p.offset + p.payload.length
    }
    expect(pieces.map(p => p.mf)).toEqual(pieces.map((_, k) => k < pieces.length - 1))
    expect([...whole]).toEqual([...parse(given).payload])
    expect(pieces).toHaveLength(Math.ceil((8 + size) / 552))
  })
  test('a fragment is cut again, and the last piece of a middle one still says more', () => {
    const src = fresh()
    const [first, last] = fragments(udp({ src, dst: C }, counting(1900)), { src, dst: C, id: 3 }, 1500)
    const pieces = s.send(0, first!, last!)[2]!.map(parse)
    expect(pieces.map(p => [p.offset, p.mf])).toEqual([
      [0, true],
      [552, true],
      [1104, true],
      [1480, false],
    ])
  })
  test('options are copied into all pieces when they say so, else only into the first', () => {
    const src = fresh()
    const options = [7, 7, 4, 0, 0, 0, 0, 0x94, 4, 0, 0] // record route (not copied), router alert (copied)
    const pieces = s.send(0, udpFrame({ src, dst: C, options }, counting(1000)))[2]!.map(parse)
    expect(pieces.length).toBe(2)
    expect(pieces[0]!.options.slice(0, 7)).toEqual([7, 7, 8, 10, 0, 2, 1])
    expect(pieces[1]!.options.slice(0, 7)).toEqual([1, 1, 1, 1, 1, 1, 1])
    for (const p of pieces) expect(p.options.slice(7, 11)).toEqual([0x94, 4, 0, 0])
  })
})

describe('options', () => {
  test('record route: the address of the outgoing interface', () => {
    const sent = one(1, udpFrame({ src: A, dst: B, options: [7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0] }))
    expect(sent.options.slice(0, 7)).toEqual([7, 11, 8, 10, 0, 1, 1])
  })
  test('a full record route goes on as it is', () => {
    const options = [7, 7, 8, 1, 2, 3, 4]
    expect(one(1, udpFrame({ src: A, dst: B, options })).options.slice(0, 7)).toEqual(options)
  })
  test('timestamps: address and milliseconds', () => {
    const sent = one(1, udpFrame({ src: A, dst: B, options: [68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0] }))
    expect(sent.options.slice(0, 8)).toEqual([68, 12, 13, 1, 10, 0, 1, 1])
  })
  test('a timestamp without room is counted in its overflow field', () => {
    const sent = one(1, udpFrame({ src: A, dst: B, options: [68, 8, 9, 0x20, 9, 9, 9, 9] }))
    expect(sent.options[3]).toBe(0x30)
  })
  test.each([
    ['room', [68, 12, 5, 2, 0, 0, 0, 0, 0, 0, 0, 0]],
    ['room for a time only', [68, 8, 5, 15, 0, 0, 0, 0]],
  ])('a timestamp of a kind that nobody knows goes on as it is, with %s', (_what, options) => {
    expect(one(1, udpFrame({ src: A, dst: B, options })).options).toEqual(options)
  })
  test('loose source route: on to the next address, our own put in its place', () => {
    const options = [131, 7, 4, 192, 0, 2, 5]
    const sent = one(1, udpFrame({ src: A, dst: '10.0.0.1', options }))
    expect(sent.dst).toBe('192.0.2.5')
    expect(sent.options.slice(0, 7)).toEqual([131, 7, 8, 10, 0, 1, 1])
  })
  test.each([
    ['record route that overruns', [7, 60, 4], 1],
    ['record route whose pointer is too small', [7, 7, 3, 0, 0, 0, 0], 2],
    ['an option without a length', [7], 0],
  ])('%s: parameter problem that points at it', (_what, options, at) => {
    const src = fresh()
    const padded = [...options]
    while (padded.length % 4 !== 0) padded.unshift(1)
    const reply = refused(udpFrame({ src, dst: B, options: padded }), src, 12, 0)
    const where = reply.icmp!.info >>> 24
    expect(where).toBeGreaterThanOrEqual(20 + padded.indexOf(7))
    expect(where).toBeLessThanOrEqual(20 + padded.indexOf(7) + at)
  })
})

describe('local delivery', () => {
  test('an echo request is answered with its data, from the address that was asked', () => {
    const reply = one(0, icmpFrame({ src: A, dst: '10.0.1.1' }, 8, 0, 0x12345678, counting(100)))
    expect(reply).toMatchObject({ src: '10.0.1.1', dst: A, ttl: 64, to: '02:00:00:00:01:02' })
    expect(reply.icmp).toMatchObject({ type: 0, code: 0, info: 0x12345678 })
    expect([...reply.icmp!.data]).toEqual([...counting(100)])
  })
  test('to a broadcast as well, which 2.6.11 does not ignore by default', () => {
    const reply = one(0, icmpFrame({ src: A, dst: '10.0.0.255', to: 'ff:ff:ff:ff:ff:ff' }, 8))
    expect(reply).toMatchObject({ src: '10.0.0.1', dst: A })
  })
  test('not with a bad checksum', () => {
    const bad = icmp(8, 0, 1, counting(8))
    bad[2] = bad[2]! ^ 1
    none(ipFrame(bad, { src: A, dst: '10.0.0.1', protocol: 1 }))
  })
  test('a timestamp request', () => {
    const reply = one(0, icmpFrame({ src: A, dst: '10.0.0.1' }, 13, 0, 9, counting(12)))
    expect(reply.icmp).toMatchObject({ type: 14, info: 9 })
  })
  test('a datagram to a port that nobody has', () => {
    const f = s.account(() => {
      const reply = one(0, udpFrame({ src: A, dst: '10.0.0.1' }))
      expect(reply).toMatchObject({ src: '10.0.0.1', dst: A })
      expect(reply.icmp).toMatchObject({ type: 3, code: 3 })
    })
    expect(f).toMatchObject({ received: 1, icmp_sent: 1, drops: { udp_no_port: 1 } })
  })
})

test('a redirect goes to the neighbour who could have asked the gateway himself, and the packet goes on', () => {
  const src = fresh()
  const out = s.send(0, udpFrame({ src, dst: '198.51.100.7' }, counting(12)))[0]!.map(parse)
  expect(out).toHaveLength(2)
  const redirect = out.find(p => p.protocol === 1)!
  expect(redirect.icmp).toMatchObject({ type: 5, code: 1, info: ip('10.0.0.254') >>> 0, checksumGood: true })
  expect(redirect.dst).toBe(src)
  expect(out.find(p => p.protocol === 17)).toMatchObject({ dst: '198.51.100.7', to: '02:00:00:00:01:fe' })
})

describe('dropped, counted by reason', () => {
  const good = udpFrame({ src: A, dst: B })
  const change = (at: number, ...bytes: number[]): Uint8Array => {
    const frame = good.slice()
    frame.set(bytes, at)
    return frame
  }
  test.each<[string, Uint8Array]>([
    ['ip_truncated', good.slice(0, 30)],
    ['ip_version', change(14, 0x65)],
    ['ip_header_length', change(14, 0x44)],
    ['ip_checksum', change(25, good[25]! ^ 1)],
    ['ip_martian_source', udpFrame({ src: '127.0.0.1', dst: B })],
    ['ip_martian_source', udpFrame({ src: '10.0.1.1', dst: B })],
    ['ip_martian_source', udpFrame({ src: '240.0.0.1', dst: B })],
    ['ip_martian_destination', udpFrame({ src: A, dst: '0.0.0.9' })],
    ['ip_martian_destination', udpFrame({ src: A, dst: '127.0.0.1' })],
    ['eth_unknown_protocol', change(12, 0x88, 0xb5)],
    ['ip_no_route', udpFrame({ src: '10.0.0.40', dst: '9.9.9.9' })],
    ['neigh_unresolved', udpFrame({ src: A, dst: '10.0.1.78' })],
  ])('%s', (reason, frame) => {
    const f = s.account(() => s.send(0, frame))
    expect(f).toMatchObject({ received: 1, forwarded: 0, delivered: 0, drops: { [reason]: 1 } })
  })
  test('a frame for another station stays in the NIC', () => {
    expect(s.account(() => none(udpFrame({ src: A, dst: B, to: '02:00:00:00:09:09' }))).received).toBe(0)
  })
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
