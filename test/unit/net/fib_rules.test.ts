/** Policy rules: which table is asked; and routes by ioctl, with the errno of each bad argument as in 2.6.11. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { RAM } from '../../../src/arch/ram.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import { NF_HOOK_OPS, nf_register_hook, nf_unregister_hook } from '../../../src/net/core/netfilter.js'
import {
  ip_rt_ioctl,
  RTF_GATEWAY,
  RTF_HOST,
  RTF_REJECT,
  SIOCADDRT,
  SIOCDELRT,
} from '../../../src/net/ipv4/fib_ioctl.js'
import { fib_lookup } from '../../../src/net/ipv4/fib_rules.js'
import { fib_res_gw } from '../../../src/net/ipv4/fib_semantics.js'
import { FIB_RESULT } from '../../../src/net/ipv4/fib_types.js'
import { type Libc, malloc, mem, setuid } from '../../../src/user/libc.js'
import {
  addr,
  attr,
  attrs,
  get32,
  getText,
  type Message,
  type Netlink,
  NLM_F_CREATE,
  NLM_F_EXCL,
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
import { parse, udpFrame } from '../../helpers/frames.js'
import { run } from '../../helpers/programs.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const mac = (lo: number) => ({ hi: 0x02000000, lo })
const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.2.1'), prefixlen: 24 }] },
  ],
  neighbours: [
    { address: ip('10.0.0.2'), dev: 'eth0', mac: mac(0x102) },
    { address: ip('10.0.0.3'), dev: 'eth0', mac: mac(0x103) },
    { address: ip('10.0.1.2'), dev: 'eth1', mac: mac(0x202) },
    { address: ip('10.0.2.2'), dev: 'eth2', mac: mac(0x302) },
  ],
  config: { loopback: 1, user_procs: 4 },
})
const hook_ops = DEFINE_STATIC('test_mark_ops', NF_HOOK_OPS)
const RULE = { unicast: 1, blackhole: 6, unreachable: 7, prohibit: 8 }

function session<T>(program: (h: Netlink) => Generator<void, T, void>): T {
  return run(s, function* () {
    return yield* program((yield* rtnl_open()) as Netlink)
  })
}
interface Rule {
  pref?: number
  from?: [string, number]
  to?: [string, number]
  tos?: number
  iif?: string
  mark?: number
  table?: number
  type?: number
}
const rule = (r: Rule): number[] => [
  ...[2, r.to?.[1] ?? 0, r.from?.[1] ?? 0, r.tos ?? 0, r.table ?? 0, 0, 0, r.type ?? 1, 0, 0, 0, 0],
  ...(r.from ? attr(2, addr(ip(r.from[0]))) : []),
  ...(r.to ? attr(1, addr(ip(r.to[0]))) : []),
  ...(r.pref === undefined ? [] : attr(6, u32(r.pref))),
  ...(r.mark === undefined ? [] : attr(10, u32(r.mark))),
  ...(r.iif === undefined ? [] : attr(3, text(r.iif))),
]
const add = (r: Rule): number => session(h => rtnl_change(h, RTM.NEWRULE, NLM_F_CREATE, rule(r)))
const del = (r: Rule): number => session(h => rtnl_change(h, RTM.DELRULE, 0, rule(r)))
const route = (type: number, dst: string, len: number, gw: string, table: number): number =>
  session(h =>
    rtnl_change(h, type, NLM_F_CREATE | NLM_F_EXCL, [
      ...[2, len, 0, 0, table, 4, 0, 1, 0, 0, 0, 0],
      ...attr(1, addr(ip(dst))),
      ...attr(5, addr(ip(gw))),
    ]),
  )
/** The port that a packet leaves by, or the ICMP message that comes back. */
function way(src = '10.0.0.2', dst = '99.0.0.1', tos = 0): string {
  const out = s.send(0, udpFrame({ src, dst, tos }))
  const port = out.findIndex(frames => frames.length > 0)
  if (port < 0) return 'nowhere'
  const { icmp } = parse(out[port]![0]!)
  return icmp === null ? `eth${port}` : `icmp ${icmp.type} ${icmp.code}`
}
const shown = (): string[] =>
  session(function* (h) {
    const rules = (yield* rtnl_dump(h, RTM.GETRULE, rule({}))) as Message[]
    return rules.map(m => {
      const t = attrs(m.body, 12)
      const iif = t.get(3)
      return `${t.has(6) ? get32(t.get(6)!) : 0}: table ${m.body[4]} type ${m.body[7]}${iif ? ` iif ${getText(iif)}` : ''}`
    })
  })

describe('rules', () => {
  test('are three at first: local, main, default', () => {
    expect(shown()).toEqual(['0: table 255 type 1', '32766: table 254 type 1', '32767: table 253 type 1'])
  })
  test('the default table is asked when main knows nothing', () => {
    expect(way()).toBe('icmp 3 0')
    expect(route(RTM.NEWROUTE, '0.0.0.0', 0, '10.0.1.2', 253)).toBe(0)
    expect(way()).toBe('eth1')
    expect(route(RTM.DELROUTE, '0.0.0.0', 0, '10.0.1.2', 253)).toBe(0)
    expect(way()).toBe('icmp 3 0')
  })
  describe('with a table for each way', () => {
    test('set up', () => {
      expect(route(RTM.NEWROUTE, '0.0.0.0', 0, '10.0.1.2', 1)).toBe(0)
      expect(route(RTM.NEWROUTE, '0.0.0.0', 0, '10.0.2.2', 2)).toBe(0)
    })
    test.each<[string, Rule, () => [string, string]]>([
      ['the source', { from: ['10.0.0.2', 32] }, () => [way('10.0.0.2'), way('10.0.0.3')]],
      ['the destination', { to: ['99.0.0.0', 8] }, () => [way(), way('10.0.0.2', '98.0.0.1')]],
      ['the TOS', { tos: 0x10 }, () => [way('10.0.0.2', '99.0.0.1', 0x10), way()]],
      ['the interface', { iif: 'eth0' }, () => [way(), from_port_2()]],
    ])('by %s', (_what, which, ways) => {
      expect(add({ ...which, pref: 100, table: 1 })).toBe(0)
      expect(ways()).toEqual(['eth1', 'icmp 3 0'])
      expect(del({ ...which, pref: 100, table: 1 })).toBe(0)
      expect(ways()[0]).toBe('icmp 3 0')
    })
    function from_port_2(): string {
      const to = '02:00:00:00:00:03'
      const out = s.send(2, udpFrame({ src: '10.0.2.2', dst: '99.0.0.1', to }))
      const { icmp } = parse(out[2]![0]!)
      return icmp === null ? 'through' : `icmp ${icmp.type} ${icmp.code}`
    }
    test('by a mark that the packet filter gives: cached routes do not mix marked packets with others', () => {
      expect(add({ mark: 7, pref: 100, table: 2 })).toBe(0)
      expect(add({ pref: 200, table: 1 })).toBe(0)
      hook_ops.hooknum = 0
      hook_ops.priority = 0
      hook_ops.hook = symbol('test_mark', (_hook: number, skb: { nfmark: number; nh: number }) => {
        skb.nfmark = RAM.u8[skb.nh + 1] === 4 ? 7 : 0
        return 1
      }) as never
      nf_register_hook(hook_ops)
      expect([way(), way('10.0.0.2', '99.0.0.1', 4), way(), way('10.0.0.2', '99.0.0.1', 4)]).toEqual([
        ...['eth1', 'eth2', 'eth1', 'eth2'],
      ])
      run(s, function* () {
        yield* nf_unregister_hook(hook_ops)
      })
      expect([del({ mark: 7 }), del({ pref: 200 })]).toEqual([0, 0])
    })
    test('the first that fits is asked; a table that does not know leaves it to the next', () => {
      expect(add({ pref: 10, table: 77 })).toBe(0) // nobody wrote there
      expect(add({ pref: 20, table: 2 })).toBe(0)
      expect(add({ pref: 30, table: 1 })).toBe(0)
      expect(way()).toBe('eth2')
      expect(del({ pref: 20 })).toBe(0)
      expect(way()).toBe('eth1')
      expect(shown().slice(0, 3)).toEqual(['0: table 255 type 1', '10: table 77 type 1', '30: table 1 type 1'])
      expect([del({ pref: 10 }), del({ pref: 30 })]).toEqual([0, 0])
    })
    test('without a preference it comes just before the second', () => {
      expect([add({ table: 1 }), add({ table: 2 })]).toEqual([0, 0])
      expect(shown().slice(1, 4)).toEqual(['32764: table 2 type 1', '32765: table 1 type 1', '32766: table 254 type 1'])
      expect([del({ table: 1 }), del({ table: 2 })]).toEqual([0, 0])
    })
    test.each([
      ['blackhole', RULE.blackhole, 'nowhere'],
      ['unreachable', RULE.unreachable, 'icmp 3 0'],
      ['prohibit', RULE.prohibit, 'icmp 3 13'],
    ])('%s: no table is asked', (_what, type, answer) => {
      s.pass(6000) // the rate limit of answers
      expect([add({ pref: 5, type, from: ['10.0.0.0', 24] }), add({ pref: 6, table: 1 })]).toEqual([0, 0])
      expect(way()).toBe(answer)
      expect([del({ pref: 5, type, from: ['10.0.0.0', 24] }), del({ pref: 6 })]).toEqual([0, 0])
    })
    test('a rule of a device that is not there counts when it comes; another name, another device', () => {
      expect(add({ iif: 'wan', pref: 9, table: 1 })).toBe(0)
      expect(way()).toBe('icmp 3 0')
      session(function* (h) {
        const link = (flags: number, change: number): number[] => [0, 0, 0, 0, ...u32(2), ...u32(flags), ...u32(change)]
        yield* rtnl_change(h, RTM.NEWLINK, 0, link(0, 1))
        yield* rtnl_change(h, RTM.SETLINK, 0, [...link(0, 0), ...attr(3, text('wan'))])
        yield* rtnl_change(h, RTM.NEWLINK, 0, link(1, 1))
      })
      expect(shown()[1]).toBe('9: table 1 type 1 iif wan')
      expect(way()).toBe('eth1')
      session(function* (h) {
        const link = (flags: number, change: number): number[] => [0, 0, 0, 0, ...u32(2), ...u32(flags), ...u32(change)]
        yield* rtnl_change(h, RTM.NEWLINK, 0, link(0, 1))
        yield* rtnl_change(h, RTM.SETLINK, 0, [...link(0, 0), ...attr(3, text('eth0'))])
        yield* rtnl_change(h, RTM.NEWLINK, 0, link(1, 1))
      })
      expect(way()).toBe('icmp 3 0')
      expect(del({ iif: 'wan', pref: 9 })).toBe(0)
    })
    test('throw in a table goes on with the next rule', () => {
      expect(add({ pref: 10, table: 1 })).toBe(0)
      const thrown = (type: number): number =>
        session(h =>
          rtnl_change(h, type, NLM_F_CREATE, [2, 8, 0, 0, 1, 4, 0, 9, 0, 0, 0, 0, ...attr(1, addr(ip('99.0.0.0')))]),
        )
      expect(thrown(RTM.NEWROUTE)).toBe(0)
      expect(way()).toBe('icmp 3 0')
      expect(thrown(RTM.DELROUTE)).toBe(0)
      expect(way()).toBe('eth1')
      expect(del({ pref: 10 })).toBe(0)
    })
    test('packets of our own are asked for as those of loopback', () => {
      expect(add({ iif: 'lo', pref: 10, table: 2 })).toBe(0)
      const oif = session(function* (h) {
        const m = yield* rtnl_talk(h, RTM.GETROUTE, 0, [...rule({}), ...attr(1, addr(ip('99.0.0.1')))])
        return typeof m === 'number' ? m : get32(attrs(m.body, 12).get(4)!)
      })
      expect(oif).toBe(4)
      expect(way()).toBe('icmp 3 0')
      expect(del({ iif: 'lo', pref: 10 })).toBe(0)
    })
  })
  test('the rule of table local cannot go, the others can', () => {
    expect(del({ pref: 0, table: 255 })).toBe(-1)
    expect(del({ pref: 4711 })).toBe(-3)
    expect(del({ pref: 32766 })).toBe(0)
    expect(way('10.0.0.2', '10.0.1.2')).toBe('nowhere') // nobody asks main, so there is no way back either
    expect(add({ pref: 32766, table: 254 })).toBe(0)
    expect(way('10.0.0.2', '10.0.1.2')).toBe('eth1')
  })
  test.each<[string, Rule | number[], number]>([
    ['a prefix beyond all', { from: ['1.2.3.4', 33] }, -22],
    ['TOS bits beyond all', { tos: 0xff }, -22],
    ['a name beyond all', [...rule({}), ...attr(3, text('a-device-with-a-very-long-name'))], -22],
    ['half an address', [...rule({}), ...attr(1, [1, 2])], -22],
  ])('%s', (_what, r, err) => {
    expect(session(h => rtnl_change(h, RTM.NEWRULE, 0, Array.isArray(r) ? r : rule(r)))).toBe(err)
  })
  test('a rule without a table gets one that nobody uses', () => {
    expect(add({ pref: 50 })).toBe(0)
    expect(shown()[1]).toBe('50: table 3 type 1')
    expect(del({ pref: 50 })).toBe(0)
  })
  test('who listens hears of them', () => {
    run(s, function* () {
      const ear = (yield* rtnl_open(RTMGRP.IPV4_RULE)) as Netlink
      const h = (yield* rtnl_open()) as Netlink
      yield* rtnl_change(h, RTM.NEWRULE, 0, rule({ pref: 60, table: 1 }))
      yield* rtnl_change(h, RTM.DELRULE, 0, rule({ pref: 60 }))
      const heard: number[] = []
      for (let m = yield* receive(ear, 0x40); typeof m !== 'number'; m = yield* receive(ear, 0x40))
        heard.push(m[0]!.type)
      expect(heard).toEqual([RTM.NEWRULE, RTM.DELRULE])
    })
  })
})

describe('SIOCADDRT and SIOCDELRT', () => {
  interface Entry {
    dst?: string
    family?: number
    mask?: string
    maskFamily?: number
    gw?: string
    flags?: number
    metric?: number
    dev?: string | number
  }
  const sockaddr = (a: string, family: number): number[] => [
    ...u16(family),
    0,
    0,
    ...addr(ip(a)),
    ...Array<number>(8).fill(0),
  ]
  function* call(cmd: number, e: Entry): Libc {
    const r = malloc(84)
    let dev = 0
    if (typeof e.dev === 'number') dev = e.dev
    else if (e.dev !== undefined) {
      dev = malloc(16)
      mem(dev, 16).set(text(e.dev))
    }
    mem(r, 84).set([
      ...u32(0),
      ...sockaddr(e.dst ?? '70.0.0.0', e.family ?? 2),
      ...sockaddr(e.gw ?? '0.0.0.0', e.gw === undefined ? 0 : 2),
      ...sockaddr(e.mask ?? '255.0.0.0', e.maskFamily ?? 2),
      ...[
        ...u16(e.flags ?? 0),
        0,
        0,
        ...u32(0),
        ...u32(0),
        ...u16(e.metric ?? 0),
        0,
        0,
        ...u32(dev),
        ...u32(0),
        ...u32(0),
        ...u32(0),
      ],
    ])
    return yield* ip_rt_ioctl(cmd, r)
  }
  const res = FIB_RESULT.make(kmalloc(FIB_RESULT.size))
  const gateway = (to: string): string | number => {
    const err = fib_lookup(ip(to), 0, 0, 0, 0, 0, res)
    return err !== 0 ? err : [24, 16, 8, 0].map(n => (fib_res_gw(res) >>> n) & 255).join('.')
  }
  test('a route through a gateway, added and deleted', () => {
    expect(run(s, () => call(SIOCADDRT, { gw: '10.0.1.2', flags: RTF_GATEWAY, metric: 3 }))).toBe(0)
    expect(gateway('70.1.2.3')).toBe('10.0.1.2')
    expect(run(s, () => call(SIOCADDRT, { gw: '10.0.1.2', flags: RTF_GATEWAY, metric: 3 }))).toBe(-17)
    expect(run(s, () => call(SIOCDELRT, { gw: '10.0.1.9' }))).toBe(-3)
    expect(run(s, () => call(SIOCDELRT, {}))).toBe(0)
    expect(gateway('70.1.2.3')).toBe(-101)
  })
  test('a route over a device; a host; one that leads nowhere', () => {
    expect(run(s, () => call(SIOCADDRT, { dev: 'eth1' }))).toBe(0)
    expect(gateway('70.1.2.3')).toBe('0.0.0.0')
    expect(run(s, () => call(SIOCDELRT, { dev: 'eth2' }))).toBe(-3)
    expect(run(s, () => call(SIOCDELRT, { dev: 'eth1' }))).toBe(0)
    expect(run(s, () => call(SIOCADDRT, { dst: '70.1.1.1', flags: RTF_HOST, dev: 'eth1', mask: '9.9.9.9' }))).toBe(0)
    expect(run(s, () => call(SIOCDELRT, { dst: '70.1.1.1', flags: RTF_HOST }))).toBe(0)
    expect(run(s, () => call(SIOCADDRT, { flags: RTF_REJECT }))).toBe(0)
    expect(gateway('70.1.2.3')).toBe(-113)
    expect(run(s, () => call(SIOCDELRT, { flags: RTF_REJECT }))).toBe(0)
  })
  test.each<[string, Entry, number]>([
    ['another family', { family: 1 }, -97],
    ['a mask of another family', { maskFamily: 3 }, -97],
    ['no family for a mask that says something', { maskFamily: 0 }, -97],
    ['a mask with a hole', { mask: '255.0.255.0' }, -22],
    ['bits behind the mask', { dst: '70.0.0.1' }, -22],
    ['a gateway that is missing', { flags: RTF_GATEWAY, dev: 'eth1' }, -22],
    ['a gateway that is nowhere', { flags: RTF_GATEWAY, gw: '99.9.9.9' }, -101],
    ['a device that is not there', { dev: 'eth9' }, -19],
    ['an alias that is not there', { dev: 'eth1:7' }, -19],
    ['a name that leads nowhere', { dev: 0x10 }, -14],
    ['no way', {}, -22],
  ])('%s', (_what, entry, err) => {
    expect(run(s, () => call(SIOCADDRT, entry))).toBe(err)
  })
  test('a user, a pointer that leads nowhere, another request', () => {
    expect(run(s, () => ip_rt_ioctl(SIOCADDRT, 0x10))).toBe(-14)
    expect(run(s, () => ip_rt_ioctl(0x8000, 0))).toBe(-22)
    expect(
      run(s, function* () {
        yield* setuid(1)
        return yield* ip_rt_ioctl(SIOCADDRT, 0x10)
      }),
    ).toBe(-1)
  })
  test('end', () => kfree(res.addr))
})

test('nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
