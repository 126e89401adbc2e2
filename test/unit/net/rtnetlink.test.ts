/** rtnetlink: links, addresses, routes and neighbours as messages, in Linux's layout; what changes is told to who listens. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import type { Libc } from '../../../src/user/libc.js'
import {
  addr,
  attr,
  attrs,
  get16,
  get32,
  getAddr,
  getText,
  type Message,
  type Netlink,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  RTM,
  RTMGRP,
  receive,
  rtnl_change,
  rtnl_dump,
  rtnl_open,
  rtnl_talk,
  text,
  u16,
  u32,
} from '../../../src/user/libnetlink.js'
import { udpFrame } from '../../helpers/frames.js'
import { run } from '../../helpers/programs.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  neighbours: [{ address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } }],
  config: { loopback: 1, user_procs: 4 },
})
const [LO, ETH0, ETH1] = [1, 2, 3]
const ESRCH = -3
const ENODEV = -19
const EEXIST = -17
const EINVAL = -22
const ENETUNREACH = -101
const ENETDOWN = -100
const EADDRNOTAVAIL = -99
const ENOENT = -2
const IFF_UP = 1

/** A program with a socket, and one that listens to everything. */
function session<T>(
  program: (h: Netlink, heard: () => Generator<void, Message[], void>) => Generator<void, T, void>,
): T {
  return run(s, function* () {
    const ear = (yield* rtnl_open(0xff)) as Netlink
    const h = (yield* rtnl_open()) as Netlink
    return yield* program(h, function* () {
      const all: Message[] = []
      for (let m = yield* receive(ear, 0x40); typeof m !== 'number'; m = yield* receive(ear, 0x40)) all.push(...m)
      return all
    })
  })
}
const ifinfo = (index: number, flags = 0, change = 0): number[] => [
  0,
  0,
  0,
  0,
  ...u32(index),
  ...u32(flags),
  ...u32(change),
]
const ifaddr = (index: number, len: number, scope = 0): number[] => [2, len, 0, scope, ...u32(index)]
interface Rt {
  len?: number
  tos?: number
  table?: number
  protocol?: number
  scope?: number
  type?: number
  flags?: number
}
const rtmsg = (r: Rt = {}): number[] => [
  ...[2, r.len ?? 24, 0, r.tos ?? 0, r.table ?? 254, r.protocol ?? 3, r.scope ?? 0, r.type ?? 1],
  ...u32(r.flags ?? 0),
]
const a = (type: number, dotted: string): number[] => attr(type, addr(ip(dotted)))
const n = (type: number, value: number): number[] => attr(type, u32(value))
const dotted = (b: Uint8Array | undefined): string | undefined =>
  b === undefined ? undefined : [...b.subarray(0, 4)].join('.')

describe('links', () => {
  test('are listed with their attributes', () => {
    const links = session(h => rtnl_dump(h, RTM.GETLINK, ifinfo(0))) as Message[]
    expect(links.map(m => [m.type, m.flags, get16(m.body, 2), get32(m.body, 4)])).toEqual([
      [RTM.NEWLINK, 2, 772, LO],
      [RTM.NEWLINK, 2, 1, ETH0],
      [RTM.NEWLINK, 2, 1, ETH1],
    ])
    const eth0 = attrs(links[1]!.body, 16)
    expect(getText(eth0.get(3)!)).toBe('eth0')
    expect([...eth0.get(1)!]).toEqual([2, 0, 0, 0, 0, 1])
    expect([...eth0.get(2)!]).toEqual([255, 255, 255, 255, 255, 255])
    expect([get32(eth0.get(4)!), get32(eth0.get(13)!), getText(eth0.get(6)!)]).toEqual([1500, 1000, 'pfifo_fast'])
    expect(eth0.get(7)).toHaveLength(92)
    expect(get32(links[1]!.body, 8) & 0x43).toBe(0x43) // up, broadcast, running
    expect(getText(attrs(links[0]!.body, 16).get(6)!)).toBe('noqueue')
  })
  test('go down and up, change their MTU; who listens hears it', () => {
    session(function* (h, heard) {
      expect(yield* rtnl_change(h, RTM.NEWLINK, 0, ifinfo(ETH1, 0, IFF_UP))).toBe(0)
      const down = (yield* heard()).filter(m => m.type === RTM.NEWLINK)
      expect(down.map(m => [get32(m.body, 4), get32(m.body, 8) & 0x41])).toEqual([[ETH1, 0]])
      expect(yield* rtnl_change(h, RTM.SETLINK, 0, [...ifinfo(ETH1, 0, 0), ...n(4, 1400)])).toBe(0)
      expect(yield* rtnl_change(h, RTM.NEWLINK, 0, [...ifinfo(0, IFF_UP, IFF_UP), ...attr(3, text('eth1'))])).toBe(0)
      const up = (yield* heard()).filter(m => m.type === RTM.NEWLINK)
      expect(up.map(m => [get32(attrs(m.body, 16).get(4)!), get32(m.body, 8) & 0x41])).toEqual([
        [1400, 0],
        [1400, 0x41],
      ])
      expect(yield* rtnl_change(h, RTM.SETLINK, 0, [...ifinfo(ETH1), ...n(4, 1500)])).toBe(0)
    })
  })
  test('get another name and another station address only while they are down', () => {
    session(function* (h, heard) {
      const set = (body: number[]): Libc => rtnl_change(h, RTM.SETLINK, 0, [...ifinfo(ETH1), ...body])
      expect(yield* set(attr(3, text('wan')))).toBe(-16)
      expect(yield* set(attr(1, [2, 0, 0, 0, 0, 0x77]))).toBe(-16)
      yield* rtnl_change(h, RTM.NEWLINK, 0, ifinfo(ETH1, 0, IFF_UP))
      yield* heard()
      expect(yield* set(attr(3, text('eth0')))).toBe(EEXIST)
      expect(yield* set(attr(3, text('a/b')))).toBe(EINVAL)
      expect(yield* set(attr(3, text('wan')))).toBe(0)
      expect(yield* set(attr(1, [2, 0, 0, 0, 0, 0x77]))).toBe(0)
      expect(yield* set(attr(1, [3, 0, 0, 0, 0, 0x77]))).toBe(EINVAL)
      expect(yield* set(attr(1, [2, 0, 0, 0]))).toBe(EINVAL)
      const news = (yield* heard()).map(m => [getText(attrs(m.body, 16).get(3)!), attrs(m.body, 16).get(1)![5]])
      expect(news).toEqual([
        ['wan', 2],
        ['wan', 0x77],
      ])
      yield* set(attr(3, text('eth1')))
      yield* set(attr(1, [2, 0, 0, 0, 0, 2]))
      expect(yield* rtnl_change(h, RTM.NEWLINK, 0, ifinfo(ETH1, IFF_UP, IFF_UP))).toBe(0)
    })
  })
  test.each<[string, number[], number]>([
    ['a device that is not there', ifinfo(99, IFF_UP, IFF_UP), ENODEV],
    ['no device', ifinfo(0, IFF_UP, IFF_UP), EINVAL],
    ['an MTU beyond all', [...ifinfo(ETH1), ...n(4, 70_000)], -16],
    ['an MTU of the wrong size', [...ifinfo(ETH1), ...attr(4, [1, 2])], EINVAL],
    ['a station address for loopback', [...ifinfo(LO), ...attr(1, [2, 0, 0, 0, 0, 2])], -95],
  ])('%s', (_what, body, err) => {
    expect(session(h => rtnl_change(h, RTM.SETLINK, 0, body))).toBe(err)
  })
})

describe('addresses', () => {
  test('are listed, come and go; the subnet and its broadcasts with them', () => {
    session(function* (h, heard) {
      const list = (yield* rtnl_dump(h, RTM.GETADDR, ifaddr(0, 0))) as Message[]
      expect(
        list.map(m => {
          const t = attrs(m.body, 8)
          return [
            m.body[1],
            m.body[2],
            m.body[3],
            get32(m.body, 4),
            dotted(t.get(2)),
            dotted(t.get(4)),
            getText(t.get(3)!),
          ]
        }),
      ).toEqual([
        [8, 0x80, 254, LO, '127.0.0.1', '127.255.255.255', 'lo'],
        [24, 0x80, 0, ETH0, '10.0.0.1', '10.0.0.255', 'eth0'],
        [24, 0x80, 0, ETH1, '10.0.1.1', '10.0.1.255', 'eth1'],
      ])
      const eleven = [...ifaddr(ETH1, 16), ...a(2, '172.16.0.1'), ...a(4, '172.16.255.255'), ...attr(3, text('eth1:0'))]
      expect(yield* rtnl_change(h, RTM.NEWADDR, NLM_F_CREATE, eleven)).toBe(0)
      expect(yield* rtnl_change(h, RTM.NEWADDR, NLM_F_CREATE, eleven)).toBe(EEXIST)
      const news = yield* heard()
      expect(news.map(m => m.type)).toEqual([RTM.NEWADDR, ...Array<number>(4).fill(RTM.NEWROUTE)])
      expect(getText(attrs(news[0]!.body, 8).get(3)!)).toBe('eth1:0')
      expect(news.slice(1).map(m => [m.body[7], m.body[1], dotted(attrs(m.body, 12).get(1))])).toEqual([
        [2, 32, '172.16.0.1'],
        [1, 16, '172.16.0.0'],
        [3, 32, '172.16.0.0'],
        [3, 32, '172.16.255.255'],
      ])
      expect(yield* rtnl_change(h, RTM.DELADDR, 0, [...ifaddr(ETH1, 16), ...a(2, '172.16.0.1')])).toBe(0)
      const gone = (yield* heard()).map(m => m.type)
      expect(gone[0]).toBe(RTM.DELADDR)
      expect(gone.filter(type => type === RTM.DELROUTE)).toHaveLength(4)
    })
  })
  test('of a link of two: the other end’s is routed', () => {
    session(function* (h) {
      const body = [...ifaddr(ETH1, 32), ...a(2, '192.168.9.1'), ...a(1, '192.168.9.2')]
      expect(yield* rtnl_change(h, RTM.NEWADDR, NLM_F_CREATE, body)).toBe(0)
      const way = (yield* rtnl_talk(h, RTM.GETROUTE, 0, [...rtmsg({ len: 32 }), ...a(1, '192.168.9.2')])) as Message
      expect([get32(attrs(way.body, 12).get(4)!), dotted(attrs(way.body, 12).get(7))]).toEqual([ETH1, '192.168.9.1'])
      expect(yield* rtnl_change(h, RTM.DELADDR, 0, body)).toBe(0)
    })
  })
  test.each<[string, number, number[], number]>([
    ['a prefix beyond all', RTM.NEWADDR, [...ifaddr(ETH1, 33), ...a(2, '1.2.3.4')], EINVAL],
    ['no address', RTM.NEWADDR, ifaddr(ETH1, 24), EINVAL],
    ['a device that is not there', RTM.NEWADDR, [...ifaddr(99, 24), ...a(2, '1.2.3.4')], ENODEV],
    ['half an address', RTM.NEWADDR, [...ifaddr(ETH1, 24), ...attr(2, [1, 2])], EINVAL],
    ['to delete one that is not there', RTM.DELADDR, [...ifaddr(ETH1, 24), ...a(2, '1.2.3.4')], EADDRNOTAVAIL],
    ['to delete one of no device', RTM.DELADDR, [...ifaddr(99, 24), ...a(2, '1.2.3.4')], EADDRNOTAVAIL],
  ])('%s', (_what, type, body, err) => {
    expect(session(h => rtnl_change(h, type, NLM_F_CREATE, body))).toBe(err)
  })
})

describe('routes', () => {
  const ADD = NLM_F_CREATE | NLM_F_EXCL
  const all = [...rtmsg({ len: 16 }), ...a(1, '30.1.0.0'), ...a(5, '10.0.1.2'), ...n(6, 7), ...a(7, '10.0.1.1')]
  const metrics = attr(8, [...n(2, 1300), ...n(8, 1000)])
  test('a route is told byte by byte as it was made', () => {
    session(function* (h, heard) {
      expect(yield* rtnl_change(h, RTM.NEWROUTE, ADD, [...all, ...metrics])).toBe(0)
      const [m] = yield* heard()
      expect(m).toMatchObject({ type: RTM.NEWROUTE, seq: 1 })
      expect([...m!.body]).toEqual([
        ...rtmsg({ len: 16 }),
        ...a(1, '30.1.0.0'),
        ...n(6, 7),
        ...metrics,
        ...a(7, '10.0.1.1'),
        ...a(5, '10.0.1.2'),
        ...n(4, ETH1),
      ])
      expect(yield* rtnl_change(h, RTM.DELROUTE, 0, all)).toBe(0)
      expect(yield* rtnl_change(h, RTM.DELROUTE, 0, all)).toBe(ESRCH)
      expect((yield* heard()).map(x => x.type)).toEqual([RTM.DELROUTE])
    })
  })
  test('several next hops with their weights', () => {
    const hop = (gw: string, oif: number, weight: number): number[] => [
      ...[...u16(16), 0, weight - 1, ...u32(oif)],
      ...a(5, gw),
    ]
    const paths = attr(9, [...hop('10.0.0.2', ETH0, 2), ...hop('10.0.1.2', ETH1, 3)])
    session(function* (h, heard) {
      expect(yield* rtnl_change(h, RTM.NEWROUTE, ADD, [...rtmsg(), ...a(1, '30.2.0.0'), ...paths])).toBe(0)
      const [m] = yield* heard()
      expect([...m!.body]).toEqual([...rtmsg(), ...a(1, '30.2.0.0'), ...paths])
      expect(yield* rtnl_change(h, RTM.NEWLINK, 0, ifinfo(ETH1, 0, IFF_UP))).toBe(0)
      const shown = ((yield* rtnl_dump(h, RTM.GETROUTE, rtmsg())) as Message[]).find(
        x => dotted(attrs(x.body, 12).get(1)) === '30.2.0.0',
      )!
      expect([...attrs(shown.body, 12).get(9)!].filter((_b, k) => k % 16 === 2)).toEqual([0, 1]) // RTNH_F_DEAD
      expect(yield* rtnl_change(h, RTM.NEWLINK, 0, ifinfo(ETH1, IFF_UP, IFF_UP))).toBe(0)
      const again = ((yield* rtnl_dump(h, RTM.GETROUTE, rtmsg())) as Message[]).find(
        x => dotted(attrs(x.body, 12).get(1)) === '30.2.0.0',
      )!
      expect([...attrs(again.body, 12).get(9)!].filter((_b, k) => k % 16 === 2)).toEqual([0, 0])
      expect(yield* rtnl_change(h, RTM.DELROUTE, 0, [...rtmsg(), ...a(1, '30.2.0.0')])).toBe(0)
    })
  })
  test('CREATE, EXCL, REPLACE, APPEND: what is there already, and in what order', () => {
    const body = (gw: string): number[] => [...rtmsg(), ...a(1, '30.3.0.0'), ...a(5, gw)]
    session(function* (h) {
      const change = (flags: number, gw: string): Libc => rtnl_change(h, RTM.NEWROUTE, flags, body(gw))
      function* gateways(): Generator<void, (string | undefined)[], void> {
        const list = (yield* rtnl_dump(h, RTM.GETROUTE, rtmsg())) as Message[]
        const mine = list.map(m => attrs(m.body, 12)).filter(t => dotted(t.get(1)) === '30.3.0.0')
        return mine.map(t => dotted(t.get(5)))
      }
      expect(yield* change(0, '10.0.1.2')).toBe(ENOENT)
      expect(yield* change(NLM_F_REPLACE, '10.0.1.2')).toBe(ENOENT)
      expect(yield* change(NLM_F_CREATE | NLM_F_REPLACE, '10.0.1.2')).toBe(0)
      expect(yield* change(ADD, '10.0.1.3')).toBe(EEXIST)
      expect(yield* change(NLM_F_CREATE | NLM_F_APPEND, '10.0.1.2')).toBe(EEXIST) // the very same
      expect(yield* change(NLM_F_CREATE | NLM_F_APPEND, '10.0.1.3')).toBe(0)
      expect(yield* change(NLM_F_CREATE, '10.0.1.4')).toBe(0) // in front
      expect(yield* gateways()).toEqual(['10.0.1.4', '10.0.1.2', '10.0.1.3'])
      expect(yield* change(NLM_F_REPLACE, '10.0.1.5')).toBe(0)
      expect(yield* gateways()).toEqual(['10.0.1.5', '10.0.1.2', '10.0.1.3'])
      for (let k = 0; k < 3; k++) yield* rtnl_change(h, RTM.DELROUTE, 0, [...rtmsg(), ...a(1, '30.3.0.0')])
      expect(yield* gateways()).toEqual([])
    })
  })
  test('tables of their own are listed by number; a table that nobody wrote to has no routes', () => {
    session(function* (h) {
      expect(yield* rtnl_change(h, RTM.DELROUTE, 0, [...rtmsg({ table: 77 }), ...a(1, '30.4.0.0')])).toBe(ESRCH)
      const body = [...rtmsg({ table: 77 }), ...a(1, '30.4.0.0'), ...a(5, '10.0.1.2')]
      expect(yield* rtnl_change(h, RTM.NEWROUTE, ADD, body)).toBe(0)
      const list = (yield* rtnl_dump(h, RTM.GETROUTE, rtmsg())) as Message[]
      expect(list.filter(m => m.body[4] === 77).map(m => dotted(attrs(m.body, 12).get(1)))).toEqual(['30.4.0.0'])
      const way = yield* rtnl_talk(h, RTM.GETROUTE, 0, [...rtmsg({ len: 32 }), ...a(1, '30.4.0.1')])
      expect(way).toBe(ENETUNREACH)
      expect(yield* rtnl_change(h, RTM.DELROUTE, 0, body)).toBe(0)
    })
  })
  test('what way a packet takes: of ours, and of somebody else', () => {
    session(function* (h) {
      function* get(body: number[]): Generator<void, Map<number, Uint8Array> | number, void> {
        const m = yield* rtnl_talk(h, RTM.GETROUTE, 0, [...rtmsg({ len: 32 }), ...body])
        return typeof m === 'number' ? m : attrs(m.body, 12)
      }
      yield* rtnl_change(h, RTM.NEWROUTE, ADD, all)
      const ours = (yield* get(a(1, '30.1.2.3'))) as Map<number, Uint8Array>
      expect([1, 5, 7].map(k => dotted(ours.get(k)))).toEqual(['30.1.2.3', '10.0.1.2', '10.0.1.1'])
      expect(get32(ours.get(4)!)).toBe(ETH1)
      const theirs = (yield* get([...a(1, '30.1.2.3'), ...a(2, '10.0.0.9'), ...n(3, ETH0)])) as Map<number, Uint8Array>
      expect([get32(theirs.get(3)!), get32(theirs.get(4)!)]).toEqual([ETH0, ETH1])
      expect(getAddr(theirs.get(2)!)).toBe(ip('10.0.0.9'))
      expect(yield* get([...a(1, '30.1.2.3'), ...a(2, '10.0.0.9'), ...n(3, 99)])).toBe(ENODEV)
      expect(yield* get([...a(1, '30.1.2.3'), ...a(2, '127.0.0.9'), ...n(3, ETH0)])).toBe(EINVAL)
      expect(yield* get(a(1, '99.0.0.1'))).toBe(ENETUNREACH)
      const cached = (yield* rtnl_dump(h, RTM.GETROUTE, rtmsg({ flags: 0x200 }))) as Message[]
      expect(cached.filter(m => dotted(attrs(m.body, 12).get(1)) === '30.1.2.3')).toHaveLength(2)
      expect(yield* rtnl_change(h, RTM.DELROUTE, 0, all)).toBe(0)
      expect(yield* get(a(1, '30.1.2.3'))).toBe(ENETUNREACH)
    })
  })
  test.each<[string, number[], number]>([
    ['a prefix beyond all', [...rtmsg({ len: 33 }), ...a(1, '1.0.0.0'), ...a(5, '10.0.1.2')], EINVAL],
    ['bits behind the prefix', [...rtmsg(), ...a(1, '1.0.0.1'), ...a(5, '10.0.1.2')], EINVAL],
    ['no way at all', [...rtmsg(), ...a(1, '1.0.0.0')], EINVAL],
    ['a gateway that is not on the link', [...rtmsg(), ...a(1, '1.0.0.0'), ...a(5, '99.0.0.1')], ENETUNREACH],
    ['a gateway that is everybody', [...rtmsg(), ...a(1, '1.0.0.0'), ...a(5, '10.0.1.255')], EINVAL],
    ['a device that is not there', [...rtmsg({ scope: 253 }), ...a(1, '1.0.0.0'), ...n(4, 99)], ENODEV],
    ['a type that is none', [...rtmsg({ type: 99 }), ...a(1, '1.0.0.0'), ...n(4, ETH1)], EINVAL],
    ['a scope nearer than its type allows', [...rtmsg({ type: 2 }), ...a(1, '1.0.0.0'), ...n(4, ETH1)], EINVAL],
    ['a source that is not ours', [...all.slice(0, -8), ...a(7, '10.0.1.99')], EINVAL],
    ['a way for a route that leads nowhere', [...rtmsg({ type: 7 }), ...a(1, '1.0.0.0'), ...n(4, ETH1)], EINVAL],
    ['a metric that is none', [...all, ...attr(8, n(13, 1))], EINVAL],
    ['no next hops', [...rtmsg(), ...a(1, '1.0.0.0'), ...attr(9, [0, 0, 0, 0])], EINVAL],
    ['a short attribute', [...rtmsg(), ...attr(1, [1, 2])], EINVAL],
  ])('%s', (_what, body, err) => {
    expect(session(h => rtnl_change(h, RTM.NEWROUTE, ADD, body))).toBe(err)
  })
  test('over a device that is down', () => {
    session(function* (h) {
      yield* rtnl_change(h, RTM.NEWLINK, 0, ifinfo(ETH1, 0, IFF_UP))
      const body = [...rtmsg({ scope: 253 }), ...a(1, '1.0.0.0'), ...n(4, ETH1)]
      expect(yield* rtnl_change(h, RTM.NEWROUTE, ADD, body)).toBe(ENETDOWN)
      yield* rtnl_change(h, RTM.NEWLINK, 0, ifinfo(ETH1, IFF_UP, IFF_UP))
    })
  })
  test('count at once for packets that are on their way through', () => {
    const frame = udpFrame({ src: '10.0.0.2', dst: '40.0.0.1' })
    const through = (): number => s.send(0, frame)[1]!.length
    expect(through()).toBe(0)
    const body = [...rtmsg({ len: 8 }), ...a(1, '40.0.0.0'), ...a(5, '10.0.1.2')]
    session(h => rtnl_change(h, RTM.NEWROUTE, ADD, body))
    expect(through()).toBe(1)
    session(h => rtnl_change(h, RTM.DELROUTE, 0, body))
    expect(through()).toBe(0)
  })
})

describe('neighbours', () => {
  const nd = (state = 0x80, index = ETH1): number[] => [2, 0, 0, 0, ...u32(index), ...u16(state), 0, 0]
  const mac = (last: number): number[] => attr(2, [2, 0, 0, 0, 2, last])
  test('are listed, entered, replaced and deleted', () => {
    session(function* (h, heard) {
      function* list(): Generator<void, unknown[], void> {
        const all = (yield* rtnl_dump(h, RTM.GETNEIGH, nd())) as Message[]
        return all.map(m => [
          get32(m.body, 4),
          get16(m.body, 8),
          dotted(attrs(m.body, 12).get(1)),
          attrs(m.body, 12).get(2)?.[5],
        ])
      }
      expect(yield* list()).toContainEqual([ETH1, 0x80, '10.0.1.2', 2])
      const five = [...nd(), ...a(1, '10.0.1.5')]
      expect(yield* rtnl_change(h, RTM.NEWNEIGH, 0, [...five, ...mac(5)])).toBe(ENOENT)
      expect(yield* rtnl_change(h, RTM.NEWNEIGH, NLM_F_CREATE | NLM_F_EXCL, [...five, ...mac(5)])).toBe(0)
      expect(yield* rtnl_change(h, RTM.NEWNEIGH, NLM_F_CREATE | NLM_F_EXCL, [...five, ...mac(6)])).toBe(EEXIST)
      expect(yield* list()).toContainEqual([ETH1, 0x80, '10.0.1.5', 5])
      expect(yield* rtnl_change(h, RTM.NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, [...five, ...mac(6)])).toBe(0)
      expect(yield* list()).toContainEqual([ETH1, 0x80, '10.0.1.5', 6])
      const told = (yield* heard()).filter(
        m => m.type === RTM.NEWNEIGH && dotted(attrs(m.body, 12).get(1)) === '10.0.1.5',
      )
      expect(told.length).toBeGreaterThanOrEqual(2)
      expect(yield* rtnl_change(h, RTM.DELNEIGH, 0, five)).toBe(0)
      expect(yield* list()).not.toContainEqual([ETH1, 0x80, '10.0.1.5', 6])
    })
  })
  test('can be in any state; addresses that this machine answers for are entered the same way', () => {
    session(function* (h) {
      const six = [...nd(4), ...a(1, '10.0.1.6'), ...mac(6)]
      expect(yield* rtnl_change(h, RTM.NEWNEIGH, NLM_F_CREATE | NLM_F_EXCL, six)).toBe(0)
      const all = (yield* rtnl_dump(h, RTM.GETNEIGH, nd())) as Message[]
      expect(all.map(m => [get16(m.body, 8), dotted(attrs(m.body, 12).get(1))])).toContainEqual([4, '10.0.1.6'])
      const proxy = [...nd(0).slice(0, 10), 8, 0, ...a(1, '10.0.1.99')]
      expect(yield* rtnl_change(h, RTM.NEWNEIGH, NLM_F_CREATE, proxy)).toBe(0)
      expect(yield* rtnl_change(h, RTM.NEWNEIGH, NLM_F_CREATE, proxy)).toBe(0)
      expect(yield* rtnl_change(h, RTM.DELNEIGH, 0, proxy)).toBe(0)
      expect(yield* rtnl_change(h, RTM.DELNEIGH, 0, proxy)).toBe(ENOENT)
    })
  })
  test.each<[string, number, number[], number]>([
    ['no address', RTM.NEWNEIGH, [...nd(), ...mac(1)], EINVAL],
    ['no device', RTM.NEWNEIGH, [...nd(0x80, 0), ...a(1, '10.0.1.7'), ...mac(1)], EINVAL],
    ['a device that is not there', RTM.NEWNEIGH, [...nd(0x80, 99), ...a(1, '10.0.1.7'), ...mac(1)], ENODEV],
    ['half a station address', RTM.NEWNEIGH, [...nd(), ...a(1, '10.0.1.7'), ...attr(2, [1, 2, 3])], EINVAL],
    ['to delete one that is not there', RTM.DELNEIGH, [...nd(), ...a(1, '10.0.1.7')], EINVAL],
  ])('%s', (_what, type, body, err) => {
    expect(session(h => rtnl_change(h, type, NLM_F_CREATE, body))).toBe(err)
  })
})

test('only groups that were asked for are heard', () => {
  run(s, function* () {
    const ear = (yield* rtnl_open(RTMGRP.IPV4_IFADDR)) as Netlink
    const h = (yield* rtnl_open()) as Netlink
    const body = [...ifaddr(ETH1, 24), ...a(2, '10.0.77.1')]
    yield* rtnl_change(h, RTM.NEWADDR, NLM_F_CREATE, body)
    yield* rtnl_change(h, RTM.DELADDR, 0, body)
    const types: number[] = []
    for (let m = yield* receive(ear, 0x40); typeof m !== 'number'; m = yield* receive(ear, 0x40)) types.push(m[0]!.type)
    expect(types).toEqual([RTM.NEWADDR, RTM.DELADDR])
  })
})

test('nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
