/** routed: a neighbour speaks RIP on the wire, and the daemon learns, tells, withdraws; the packets then take those ways. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { ip_main } from '../../../src/user/ip.js'
import { malloc, mem, store32 } from '../../../src/user/libc.js'
import { type RipEntry, rip_decode, rip_encode } from '../../../src/user/rip.js'
import { routed_main } from '../../../src/user/routed.js'
import { parse, udpFrame } from '../../helpers/frames.js'
import { finish, run, start } from '../../helpers/programs.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  neighbours: [
    { address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } },
    { address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } },
    { address: ip('10.0.1.3'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x203 } },
  ],
  config: { loopback: 1, user_procs: 4 },
})
const net = (dotted: string, metric: number, mask = '255.255.0.0', nexthop = '0.0.0.0'): RipEntry => ({
  ...{ family: 2, net: ip(dotted), mask: ip(mask), nexthop: ip(nexthop), metric },
})
const text = (n: number): string => [24, 16, 8, 0].map(k => (n >>> k) & 255).join('.')
const WHO = { '10.0.1.2': '02:00:00:00:02:02', '10.0.1.3': '02:00:00:00:02:03' }
/** A neighbour on eth1 says something. */
function says(from: keyof typeof WHO, entries: RipEntry[], command = 2, sport = 520): void {
  const frame = udpFrame(
    { src: from, dst: '10.0.1.255', to: 'ff:ff:ff:ff:ff:ff', from: WHO[from], sport, dport: 520 },
    rip_encode(command, entries)[0]!,
  )
  s.solo.board.nics[1]!.arrive(frame)
}
/** What the daemon told on a port since the last look: networks with their metrics, of all its datagrams. */
function told(port: number, frames: Uint8Array[][] = s.out()): Record<string, number> {
  const nets: Record<string, number> = {}
  for (const frame of frames[port]!) {
    const p = parse(frame)
    if (p.protocol !== 17 || p.payload[3] !== 8) continue // destination port 520
    for (const e of rip_decode(p.payload.slice(8))?.entries ?? []) nets[`${text(e.net)}/${text(e.mask)}`] = e.metric
  }
  return nets
}
const way = (dst: string): string | undefined => {
  const [frame] = s.send(0, udpFrame({ src: '10.0.0.2', dst }))[1]!
  return frame === undefined ? undefined : parse(frame).to
}
function* routed(...args: string[]): Generator<void, number, void> {
  const argv = malloc(4 * (args.length + 2))
  ;['routed', ...args].forEach((arg, k) => {
    const at = malloc(arg.length + 1)
    mem(at, arg.length).set(Array.from(arg, c => c.charCodeAt(0)))
    store32(argv + 4 * k, at)
  })
  return yield* routed_main(args.length + 1, argv)
}
const ip_route = (): string => {
  let out = ''
  run(s, () =>
    ip_main(['route', 'show', 'proto', 'rip'], {
      *out(line) {
        out += line
        return 0
      },
      *err() {
        return 0
      },
    }),
  )
  return out
}
const link = (...args: string[]): void => {
  const none = function* (): Generator<void, number, void> {
    return 0
  }
  expect(run(s, () => ip_main(['link', 'set', 'eth1', ...args], { out: none, err: none }))).toBe(0)
}

const NETS = { eth0: '10.0.0.0/255.255.255.0', eth1: '10.0.1.0/255.255.255.0' }
describe('the daemon', () => {
  const daemon = start(() => routed('-u', '10', '-t', '20', '-g', '15', '-r', '100'))
  test('asks for everything when it starts, and tells what it is on, but nobody of his own network', () => {
    s.pass(200)
    const frames = s.out()
    const first = frames[1]!.map(f => rip_decode(parse(f).payload.slice(8))!).find(m => m.command === 1)!
    expect(first).toMatchObject({ version: 2, entries: [{ family: 0, metric: 16 }] })
    expect(parse(frames[1]![0]!)).toMatchObject({ dst: '10.0.1.255', to: 'ff:ff:ff:ff:ff:ff', src: '10.0.1.1' })
    expect(told(1, frames)).toMatchObject({ [NETS.eth0]: 1 })
    expect(told(1, frames)).not.toHaveProperty([NETS.eth1])
    expect(told(0, frames)).toMatchObject({ [NETS.eth1]: 1 })
  })
  test('learns a network, sends there, and tells the others at once', () => {
    s.pass(2000)
    s.out()
    expect(way('20.1.0.1')).toBeUndefined()
    says('10.0.1.2', [net('20.1.0.0', 2)])
    s.pass(300)
    const frames = s.out()
    expect(told(0, frames)).toEqual({ '20.1.0.0/255.255.0.0': 3 })
    expect(told(1, frames)).toEqual({}) // split horizon
    expect(way('20.1.0.1')).toBe(WHO['10.0.1.2'])
    expect(ip_route()).toBe('20.1.0.0/16 via 10.0.1.2 dev eth1  proto rip \n')
  })
  test('takes the better way, keeps an equal one, follows its gateway to a worse one', () => {
    says('10.0.1.3', [net('20.1.0.0', 2)])
    s.pass(200)
    expect(way('20.1.0.1')).toBe(WHO['10.0.1.2'])
    says('10.0.1.3', [net('20.1.0.0', 1)])
    s.pass(200)
    expect(way('20.1.0.1')).toBe(WHO['10.0.1.3'])
    s.pass(1200)
    s.out()
    says('10.0.1.3', [net('20.1.0.0', 9)])
    s.pass(200)
    expect(told(0)).toEqual({ '20.1.0.0/255.255.0.0': 10 })
  })
  test('a network that somebody else announces by a third one’s address', () => {
    says('10.0.1.2', [net('20.2.0.0', 1, '255.255.0.0', '10.0.1.3')])
    s.pass(200)
    expect(way('20.2.0.1')).toBe(WHO['10.0.1.3'])
  })
  test('a network that is withdrawn is taken out, and the others hear of it', () => {
    s.pass(2200) // what was learned before has been told, and a second has gone by
    s.out()
    says('10.0.1.3', [net('20.1.0.0', 16)])
    s.pass(200)
    expect(told(0)).toEqual({ '20.1.0.0/255.255.0.0': 16 })
    expect(way('20.1.0.1')).toBeUndefined()
  })
  test.each<[string, RipEntry[], number]>([
    ['a metric beyond all', [net('21.0.0.0', 17)], 520],
    ['a network with bits behind its mask', [net('21.0.0.1', 1)], 520],
    ['a mask with a hole', [net('21.0.0.0', 1, '255.0.255.0')], 520],
    ['loopback', [net('127.0.0.0', 1)], 520],
    ['a response from another port', [net('21.0.0.0', 1)], 521],
    ['its own network', [net('10.0.0.0', 1, '255.255.255.0')], 520],
  ])('does not believe %s', (_what, entries, sport) => {
    says('10.0.1.2', entries, 2, sport)
    s.pass(200)
    expect(ip_route()).toBe('20.2.0.0/16 via 10.0.1.3 dev eth1  proto rip \n')
  })
  test('answers who asks, with all or with what he asked for', () => {
    says('10.0.1.2', [{ family: 0, net: 0, mask: 0, nexthop: 0, metric: 16 }], 1, 1234)
    s.pass(200)
    const whole = s
      .out()[1]!
      .map(f => parse(f))
      .find(p => p.dst === '10.0.1.2')!
    expect((whole.payload[2]! << 8) | whole.payload[3]!).toBe(1234)
    expect(rip_decode(whole.payload.slice(8))!.entries.map(e => text(e.net))).toContain('10.0.0.0')
    says('10.0.1.2', [net('20.2.0.0', 0), net('99.0.0.0', 0)], 1)
    s.pass(200)
    const some = s
      .out()[1]!
      .map(f => parse(f))
      .find(p => p.dst === '10.0.1.2')!
    expect(rip_decode(some.payload.slice(8))!.entries.map(e => e.metric)).toEqual([2, 16])
  })
  test('tells everything again and again; what is not heard of for long is lost, then forgotten', () => {
    says('10.0.1.2', [net('20.3.0.0', 1)])
    s.pass(11_000, 4)
    expect(told(0)).toMatchObject({ '20.3.0.0/255.255.0.0': 2 })
    expect(way('20.3.0.1')).toBe(WHO['10.0.1.2'])
    s.pass(11_000, 4)
    expect(told(0)).toMatchObject({ '20.3.0.0/255.255.0.0': 16 })
    expect(way('20.3.0.1')).toBeUndefined()
    s.pass(16_000, 4)
    s.out()
    s.pass(10_500, 4)
    expect(told(0)).not.toHaveProperty(['20.3.0.0/255.255.0.0'])
  })
  test('a link that goes down takes along what led over it, and brings back its own network', () => {
    says('10.0.1.2', [net('20.4.0.0', 1)])
    s.pass(1500)
    s.out()
    link('down')
    s.pass(1300)
    expect(told(0)).toMatchObject({ [NETS.eth1]: 16, '20.4.0.0/255.255.0.0': 16 })
    expect(ip_route()).toBe('')
    link('up')
    s.pass(1300)
    expect(told(0)).toMatchObject({ [NETS.eth1]: 1 })
  })
  test('at its end it takes everything back', () => {
    says('10.0.1.2', [net('20.5.0.0', 1)])
    s.pass(500)
    expect(ip_route()).toContain('20.5.0.0/16')
    s.out()
    expect(finish(s, daemon, 60_000)).toBe(0)
    expect(ip_route()).toBe('')
    expect(told(0)).toMatchObject({ '20.5.0.0/255.255.0.0': 16, [NETS.eth1]: 16 })
  })
})

test('wrong usage', () => {
  expect(run(s, () => routed('-u', 'never'))).toBe(2)
})

test('nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
