/** Address translation: which address and port a connection gets, and that its packets, answers and errors are rewritten so. */
import '../../../helpers/clock.js' // first: the kernel's clock is ours

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { parseIptables } from '../../../../src/lab/iptables/parse.js'
import { EAGAIN, EINVAL } from '../../../../src/lib/errno.js'
import { table_blob } from '../../../../src/lib/iptables.js'
import {
  dev_close,
  dev_get_by_name,
  dev_open,
  dev_put,
  rtnl_lock,
  rtnl_unlock,
} from '../../../../src/net/core/netdevice.js'
import { neigh_add_permanent } from '../../../../src/net/core/nud.js'
import { in_dev_get, inet_del_ifa, inet_insert_ifa } from '../../../../src/net/ipv4/devinet.js'
import { ct } from '../../../../src/net/ipv4/netfilter/ip_conntrack.js'
import { ip_conntrack_text } from '../../../../src/net/ipv4/netfilter/ip_conntrack_standalone.js'
import { ipt_replace } from '../../../../src/net/ipv4/netfilter/ip_tables_user.js'
import { delete_module, modules_loaded } from '../../../../src/sched/module.js'
import {
  bind,
  close,
  inet_addr,
  type Libc,
  malloc,
  nanosleep,
  recvfrom,
  sendto,
  sin_addr,
  sin_port,
  sockaddr_in,
  socket,
  variable,
} from '../../../../src/user/libc.js'
import { udpechod_main } from '../../../../src/user/udpecho.js'
import { pcapOf } from '../../../helpers/captures.js'
import { counting, fragments, icmpFrame, parse, tcpFrame, udp, udpFrame } from '../../../helpers/frames.js'
import { loadRules, runTask, saved } from '../../../helpers/iptables.js'
import { INSIDE, look, NatGateway, OUTSIDE, PUBLIC, SERVER } from '../../../helpers/natGateway.js'
import { finish, start } from '../../../helpers/programs.js'
import { conserved } from '../../../helpers/script.js'
import { ip } from '../../../helpers/solo.js'
import { complaints, hasTshark } from '../../../helpers/tshark.js'

const s = new NatGateway({ config: { loopback: 1, user_procs: 3 } })
start(() => udpechod_main(0, 0))
const dir = mkdtempSync(join(tmpdir(), 'softnet-nat-'))
afterAll(() => rmSync(dir, { recursive: true }))
const port = (end: string): number => Number(end.split(':')[1])
const host = (end: string): string => end.split(':')[0]!
const MASQUERADE = 'POSTROUTING -o eth1 -j MASQUERADE'

describe('MASQUERADE', () => {
  test('the source is the address of the device, the port stays, and answers come back', () => {
    s.rules(MASQUERADE)
    const asked = s.ask(2, 5000)
    expect(asked).toMatchObject({ from: `${PUBLIC}:5000`, to: `${SERVER}:53`, ttl: 63, wrong: [] })
    expect(s.answer(asked)).toMatchObject({ from: `${SERVER}:53`, to: '10.0.0.2:5000', wrong: [] })
    expect(ip_conntrack_text()).toMatch(
      /^udp {6}17 \d+ src=10.0.0.2 dst=192.0.2.2 sport=5000 dport=53 src=192.0.2.2 dst=192.0.2.1 sport=53 dport=5000 use=1\n$/,
    )
  })
  test.each([
    [5000, 1024, 65535],
    [700, 600, 1023],
    [512, 600, 1023],
    [88, 1, 511],
  ])('two hosts with port %i to one server: the second gets another one, from %i to %i', (sport, low, high) => {
    s.rules(MASQUERADE)
    const first = s.ask(2, sport)
    const second = s.ask(3, sport)
    expect(first.from).toBe(`${PUBLIC}:${sport}`)
    expect(port(second.from)).not.toBe(sport)
    expect(port(second.from)).toBeGreaterThanOrEqual(low)
    expect(port(second.from)).toBeLessThanOrEqual(high)
    expect(s.answer(second).to).toBe(`10.0.0.3:${sport}`)
    expect(s.answer(first).to).toBe(`10.0.0.2:${sport}`)
    // to somebody else the source is known by what it is known by already
    expect(s.ask(3, sport, { dst: '192.0.2.3' }).from).toBe(second.from)
    expect(s.ask(4, sport, { dst: '192.0.2.4' }).from).toBe(`${PUBLIC}:${sport}`)
  })
  test('--to-ports: none but these, and when they are out nothing goes', () => {
    s.rules(`POSTROUTING -o eth1 -p udp -j MASQUERADE --to-ports 6000-6002`)
    const ports = [2, 3, 4].map(k => port(s.ask(k, 5000).from))
    expect(ports.toSorted()).toEqual([6000, 6001, 6002])
    const frame = udpFrame({ src: '10.0.0.2', dst: SERVER, sport: 5001, dport: 53 })
    expect(s.account(() => expect(s.pass1(INSIDE, frame)).toEqual([])).drops).toEqual({ netfilter: 1 })
    expect(port(s.ask(2, 5001, { dst: '192.0.2.3' }).from)).toBeGreaterThanOrEqual(6000)
  })
  test('ids of echo requests, too', () => {
    s.rules(MASQUERADE)
    const echo = (k: number): Uint8Array => icmpFrame({ src: `10.0.0.${k}`, dst: SERVER }, 8, 0, 0x70001, counting(56))
    const asked = [2, 3].map(k => s.through(INSIDE, echo(k)))
    expect(asked.map(a => [a.src, a.wrong])).toEqual([
      [PUBLIC, []],
      [PUBLIC, []],
    ])
    expect(asked[0]!.icmp!.info).toBe(0x70001)
    expect(asked[1]!.icmp!.info).not.toBe(0x70001)
    for (const [k, a] of asked.entries()) {
      const back = s.through(OUTSIDE, icmpFrame({ src: SERVER, dst: PUBLIC }, 0, 0, a.icmp!.info, a.icmp!.data))
      expect([back.dst, back.icmp!.info, back.wrong]).toEqual([`10.0.0.${k + 2}`, 0x70001, []])
    }
  })
  test('TCP: a handshake, data and the end', () => {
    s.rules(MASQUERADE)
    const there = (flags: number, data: number[] = []): string => {
      const seen = s.through(INSIDE, tcpFrame({ src: '10.0.0.2', dst: SERVER, sport: 4000, flags }, data))
      expect(seen.wrong).toEqual([])
      return seen.from
    }
    const here = (flags: number): string => {
      const seen = s.through(OUTSIDE, tcpFrame({ src: SERVER, dst: PUBLIC, sport: 80, dport: 4000, flags }))
      expect(seen.wrong).toEqual([])
      return seen.to
    }
    expect([there(2), here(18), there(16), there(24, [1, 2, 3]), here(16), there(17), here(17), there(16)]).toEqual(
      [0, 1, 0, 0, 1, 0, 1, 0].map(back => (back === 1 ? '10.0.0.2:4000' : `${PUBLIC}:4000`)),
    )
  })
  test('a datagram without a checksum stays without one; one whose checksum comes to 0 says 65535', () => {
    s.rules(MASQUERADE)
    const none = udpFrame({ src: '10.0.0.2', dst: SERVER, sport: 5000, dport: 53 }, [1, 2])
    none.fill(0, 40, 42)
    expect([...s.through(INSIDE, none).payload.subarray(6, 8)]).toEqual([0, 0])
    // The last two bytes make the sum of the translated datagram nothing: RFC 768 sends 65535 then.
    const to = { src: PUBLIC, dst: SERVER, sport: 5000, dport: 53 }
    const left = udp(to, [1, 2, 0, 0]).subarray(6, 8)
    const data = [1, 2, ...left]
    expect([...udp(to, data).subarray(6, 8)]).toEqual([255, 255])
    const out = s.through(INSIDE, udpFrame({ ...to, src: '10.0.0.2' }, data))
    expect([...out.payload.subarray(6, 8)]).toEqual([255, 255])
  })
  test('pieces are gathered, translated, and cut again', () => {
    s.rules(MASQUERADE)
    const o = { src: '10.0.0.2', dst: SERVER, sport: 5000, dport: 53, protocol: 17, id: 77 }
    const out = fragments(udp(o, counting(4000)), o, 1500).flatMap(f => s.pass1(INSIDE, f).map(x => parse(x.frame)))
    expect(out.map(p => [p.src, p.id, p.offset, p.mf, p.ipChecksumGood])).toEqual([
      [PUBLIC, 77, 0, true, true],
      [PUBLIC, 77, 1480, true, true],
      [PUBLIC, 77, 2960, false, true],
    ])
    const whole = Buffer.concat(out.map(p => p.payload))
    expect(whole).toEqual(Buffer.from(udp({ ...o, src: PUBLIC }, counting(4000))))
  })
  test('a device that goes down, an address that goes: what went out by them is forgotten', () => {
    s.rules(MASQUERADE)
    const eth1 = dev_get_by_name('eth1')!
    const under_rtnl = (f: () => Generator<void, void, void>): void =>
      runTask(s, function* () {
        yield* rtnl_lock()
        yield* f()
        rtnl_unlock()
      })
    s.ask(2, 5000)
    expect(ct.count).toBe(1)
    under_rtnl(function* () {
      yield* dev_close(eth1)
      dev_open(eth1)
      for (const k of [2, 3, 4]) neigh_add_permanent(ip(`192.0.2.${k}`), eth1, 0x02000000, 0x200 + k)
    })
    s.pass(5)
    expect(ct.count).toBe(0)
    inet_insert_ifa(eth1, ip('192.0.2.9'), 24)
    s.ask(2, 5001)
    expect(ct.count).toBe(1)
    under_rtnl(function* () {
      const in_dev = in_dev_get(eth1)!
      inet_del_ifa(in_dev, in_dev.ifa_list!.ifa_next!)
    })
    expect(ct.count).toBe(0)
    dev_put(eth1)
  })
})

describe('SNAT and NETMAP', () => {
  test('a range of addresses: the same for the same two ends, each is used', () => {
    s.rules('POSTROUTING -o eth1 -j SNAT --to-source 192.0.2.10-192.0.2.13')
    const used = new Set<string>()
    for (let k = 0; k < 40; k++) {
      const from = s.ask(2 + (k % 3), 5000 + k, { dst: `192.0.2.${2 + (k % 3)}`, dport: 9 })
      const again = s.ask(2 + (k % 3), 6000 + k, { dst: `192.0.2.${2 + (k % 3)}`, dport: 9 })
      expect(host(from.from)).toBe(host(again.from))
      used.add(host(from.from))
    }
    for (const a of used) expect(a).toMatch(/^192\.0\.2\.1[0-3]$/)
    expect(used.size).toBeGreaterThan(1)
  })
  test('ports of one address', () => {
    s.rules('POSTROUTING -p udp -j SNAT --to-source 192.0.2.10:7000-7009')
    expect(s.ask(2, 7004).from).toBe('192.0.2.10:7004')
    const other = s.ask(3, 7004)
    expect(port(other.from)).not.toBe(7004)
    expect(other.from).toMatch(/^192\.0\.2\.10:700\d$/)
  })
  test('a host keeps its number in another net', () => {
    s.rules('POSTROUTING -o eth1 -j NETMAP --to 198.51.100.0/24')
    const asked = s.ask(3, 5000)
    expect(asked.from).toBe('198.51.100.3:5000')
    s.rules('PREROUTING -i eth1 -d 192.0.2.0/24 -j NETMAP --to 10.0.0.0/24')
    const frame = udpFrame({ src: '192.0.2.2', dst: '192.0.2.4', sport: 1, dport: 9 })
    expect(s.through(OUTSIDE, frame).to).toBe('10.0.0.4:9')
  })
  test('where no rule fits, a port that would mix up two connections is changed all the same', () => {
    s.rules('POSTROUTING -s 10.0.0.2 -o eth1 -j SNAT --to-source 10.0.0.3')
    expect(s.ask(2, 5000).from).toBe('10.0.0.3:5000')
    const real = s.ask(3, 5000)
    expect(host(real.from)).toBe('10.0.0.3')
    expect(port(real.from)).not.toBe(5000)
  })
})

describe('DNAT and REDIRECT', () => {
  test('a port of the gateway is a service inside', () => {
    s.rules('PREROUTING -i eth1 -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80')
    const syn = tcpFrame({ src: SERVER, dst: PUBLIC, sport: 4000, dport: 8080 })
    expect(s.through(OUTSIDE, syn)).toMatchObject({ from: `${SERVER}:4000`, to: '10.0.0.2:80', wrong: [] })
    const back = tcpFrame({ src: '10.0.0.2', dst: SERVER, sport: 80, dport: 4000, flags: 18 })
    expect(s.through(INSIDE, back)).toMatchObject({ from: `${PUBLIC}:8080`, to: `${SERVER}:4000`, wrong: [] })
  })
  test('both ends at once', () => {
    s.rules(
      'PREROUTING -i eth1 -p udp --dport 53 -j DNAT --to-destination 10.0.0.2-10.0.0.3',
      'POSTROUTING -o eth0 -j SNAT --to-source 10.0.0.1',
    )
    const there = s.through(OUTSIDE, udpFrame({ src: SERVER, dst: PUBLIC, sport: 4000, dport: 53 }))
    expect(there.from).toBe('10.0.0.1:4000')
    expect(there.to).toMatch(/^10\.0\.0\.[23]:53$/)
    const back = udpFrame({ src: host(there.to), dst: '10.0.0.1', sport: 53, dport: 4000 })
    expect(s.through(INSIDE, back)).toMatchObject({ from: `${PUBLIC}:53`, to: `${SERVER}:4000`, wrong: [] })
  })
  test('REDIRECT: a service of this machine answers in the name of another', () => {
    s.rules('PREROUTING -i eth0 -p udp --dport 9 -j REDIRECT --to-ports 7')
    const [back] = s.pass1(INSIDE, udpFrame({ src: '10.0.0.2', dst: SERVER, sport: 5000, dport: 9 }, counting(30)))
    expect(back!.port).toBe(INSIDE)
    expect(look(back!.frame)).toMatchObject({ from: `${SERVER}:9`, to: '10.0.0.2:5000', wrong: [] })
  })
  /** A program sends a datagram, waits a moment, and says from whom the answer is. */
  function* talk(address: string, dport: number): Libc {
    const fd = yield* socket(2, 2, 0)
    const from = malloc(16)
    yield* sendto(fd, malloc(8), 8, 0, sockaddr_in(malloc(16), inet_addr(address), dport), 16)
    yield* nanosleep(2e6)
    const n = yield* recvfrom(fd, malloc(100), 100, 0x40, from, variable(16))
    yield* close(fd)
    return n === 8 && sin_port(from) === dport ? sin_addr(from) : n
  }
  test('of this machine itself: DNAT on OUTPUT sends it another way', () => {
    s.rules('OUTPUT -p udp -d 192.0.2.3 -j DNAT --to-destination 10.0.0.3:99')
    const program = start(() => talk('192.0.2.3', 9))
    s.pass(0.5)
    const [inside, outside] = s.out()
    expect(outside).toEqual([])
    const seen = look(inside![0]!)
    expect(seen).toMatchObject({ to: '10.0.0.3:99', wrong: [] })
    expect(host(seen.from)).toBe(PUBLIC)
    s.pass1(INSIDE, udpFrame({ src: '10.0.0.3', dst: PUBLIC, sport: 99, dport: port(seen.from) }, counting(8)))
    expect(finish(s, program)).toBe(ip('192.0.2.3'))
  })
  test('of this machine itself: REDIRECT on OUTPUT leads to loopback, and the answer is from whom was asked', () => {
    s.rules('OUTPUT -p udp -d 192.0.2.3 -j REDIRECT --to-ports 77')
    // Bound, so that it answers from where it was asked: with any address it would answer from the asker's own.
    start(function* () {
      const fd = yield* socket(2, 2, 0)
      yield* bind(fd, sockaddr_in(malloc(16), inet_addr('127.0.0.1'), 77), 16)
      const from = malloc(16)
      const n = yield* recvfrom(fd, malloc(100), 100, 0, from, variable(16))
      yield* sendto(fd, malloc(n), n, 0, from, 16)
      return yield* close(fd)
    })
    expect(
      finish(
        s,
        start(() => talk('192.0.2.3', 7)),
      ),
    ).toBe(ip('192.0.2.3'))
  })
  test('MASQUERADE leaves what a local program sends, but for a port that is taken', () => {
    s.rules(MASQUERADE)
    const program = start(() => talk('192.0.2.3', 9))
    s.pass(0.5)
    const seen = look(s.out()[OUTSIDE]![0]!)
    const inner = s.ask(2, port(seen.from), { dst: '192.0.2.3', dport: 9 })
    expect(inner.from).not.toBe(seen.from)
    s.pass1(OUTSIDE, udpFrame({ src: '192.0.2.3', dst: PUBLIC, sport: 9, dport: port(seen.from) }, counting(8)))
    expect(finish(s, program)).toBe(ip('192.0.2.3'))
  })
})

describe('ICMP errors', () => {
  const asked = (): Uint8Array => {
    s.rules(MASQUERADE)
    s.ask(3, 5000)
    s.pass1(INSIDE, udpFrame({ src: '10.0.0.2', dst: SERVER, sport: 5000, dport: 53 }, counting(20)))
    return s.sent.at(-1)!
  }
  test.each([
    [SERVER, 3, 3],
    ['192.0.2.3', 11, 0],
  ])('from %s: the packet that it quotes is the inner host’s own', (src, type, code) => {
    const about = asked()
    const error = s.through(OUTSIDE, icmpFrame({ src, dst: PUBLIC }, type, code, 0, about.subarray(14, 14 + 48)))
    expect(error).toMatchObject({ src, dst: '10.0.0.2', wrong: [] })
    const frame = new Uint8Array(14 + 48)
    frame.set(error.icmp!.data.subarray(0, 48), 14)
    expect(look(frame)).toMatchObject({ from: '10.0.0.2:5000', to: `${SERVER}:53`, ipChecksumGood: true })
  })
  test('with eight bytes of TCP only', () => {
    s.rules(MASQUERADE)
    s.through(INSIDE, tcpFrame({ src: '10.0.0.3', dst: SERVER, sport: 4000 }))
    s.through(INSIDE, tcpFrame({ src: '10.0.0.2', dst: SERVER, sport: 4000 }))
    const quote = s.sent.at(-1)!.subarray(14, 14 + 28)
    const error = s.through(OUTSIDE, icmpFrame({ src: '192.0.2.3', dst: PUBLIC }, 3, 1, 0, quote))
    const frame = new Uint8Array(14 + 28)
    frame.set(error.icmp!.data, 14)
    expect(look(frame)).toMatchObject({ from: '10.0.0.2:4000', ipChecksumGood: true })
    expect(error.wrong).toEqual([])
  })
  test('about an echo request', () => {
    s.rules(MASQUERADE)
    for (const k of [3, 2])
      s.through(INSIDE, icmpFrame({ src: `10.0.0.${k}`, dst: SERVER }, 8, 0, 0x70001, counting(8)))
    const quote = s.sent.at(-1)!.subarray(14, 14 + 36)
    const error = s.through(OUTSIDE, icmpFrame({ src: '192.0.2.3', dst: PUBLIC }, 11, 0, 0, quote))
    expect([...error.icmp!.data.subarray(24, 28)]).toEqual([0, 7, 0, 1])
    expect([error.dst, error.wrong]).toEqual(['10.0.0.2', []])
  })
  test('a redirect, or one with a wrong checksum, does not pass', () => {
    const about = asked().subarray(14, 14 + 48)
    expect(s.pass1(OUTSIDE, icmpFrame({ src: SERVER, dst: PUBLIC }, 5, 1, ip('192.0.2.4'), about))).toEqual([])
    const bad = icmpFrame({ src: SERVER, dst: PUBLIC }, 3, 3, 0, about)
    bad[36]! ^= 1
    expect(s.pass1(OUTSIDE, bad)).toEqual([])
  })
  test('from inside about what came in: it goes out in the name of the gateway', () => {
    s.rules('PREROUTING -i eth1 -p udp --dport 53 -j DNAT --to-destination 10.0.0.2:5353')
    s.through(OUTSIDE, udpFrame({ src: SERVER, dst: PUBLIC, sport: 4000, dport: 53 }, counting(8)))
    const quote = s.sent.at(-1)!.subarray(14, 14 + 36)
    const error = s.through(INSIDE, icmpFrame({ src: '10.0.0.2', dst: SERVER }, 3, 3, 0, quote))
    expect(error).toMatchObject({ src: PUBLIC, dst: SERVER, wrong: [] })
    const frame = new Uint8Array(14 + 36)
    frame.set(error.icmp!.data, 14)
    expect(look(frame)).toMatchObject({ from: `${SERVER}:4000`, to: `${PUBLIC}:53` })
  })
  test('of the gateway itself, about a packet that it has already rewritten', () => {
    s.rules('PREROUTING -i eth1 -p udp --dport 53 -j DNAT --to-destination 10.0.0.2')
    s.through(OUTSIDE, udpFrame({ src: SERVER, dst: PUBLIC, sport: 4000, dport: 53 }))
    const [error] = s.pass1(OUTSIDE, udpFrame({ src: SERVER, dst: PUBLIC, sport: 4000, dport: 53, ttl: 1 }))
    const seen = look(error!.frame)
    expect([seen.dst, seen.icmp?.type, seen.wrong]).toEqual([SERVER, 11, []])
    const frame = new Uint8Array(14 + 28)
    frame.set(seen.icmp!.data, 14)
    expect(look(frame).to).toBe(`${PUBLIC}:53`)
  })
  test('a reset of REJECT is the connection’s: it comes from where the segment was sent to', () => {
    s.rules('PREROUTING -i eth1 -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80')
    loadRules(s, '*filter\n-A FORWARD -p tcp -j REJECT --reject-with tcp-reset\nCOMMIT\n')
    const [reset] = s.pass1(OUTSIDE, tcpFrame({ src: SERVER, dst: PUBLIC, sport: 4000, dport: 8080 }))
    expect(look(reset!.frame)).toMatchObject({ from: `${PUBLIC}:8080`, to: `${SERVER}:4000`, wrong: [] })
    loadRules(s, '*filter\nCOMMIT\n')
    expect(ct.count).toBe(0)
  })
})

describe('rules', () => {
  test.each([
    ['PREROUTING -j SNAT --to-source 1.2.3.4', 'nat'],
    ['POSTROUTING -j DNAT --to-destination 1.2.3.4', 'nat'],
    ['OUTPUT -j MASQUERADE', 'nat'],
    ['POSTROUTING -j REDIRECT', 'nat'],
    ['POSTROUTING -j SNAT --to-source 1.2.3.9-1.2.3.4', 'nat'],
    ['POSTROUTING -j SNAT --to-source 1.2.3.4', 'mangle'],
  ])('the kernel refuses -A %s in table %s', (rule, table) => {
    const [t] = parseIptables(`*${table}\n-A ${rule}\nCOMMIT\n`, 'r')
    expect(runTask(s, () => ipt_replace(table_blob(t!)))).toBe(-EINVAL)
  })
  test('counters count connections, not packets', () => {
    s.rules('POSTROUTING -o eth1 -p udp -j MASQUERADE')
    for (let k = 0; k < 3; k++) s.ask(2, 5000)
    s.ask(2, 5001)
    expect(saved('nat')).toContain('[2:62] -A POSTROUTING -o eth1 -p udp -j MASQUERADE')
  })
  test('a connection from before the module stays as it is', () => {
    loadRules(s, '*nat\nCOMMIT\n*filter\n-A FORWARD -m state --state NEW -j ACCEPT\nCOMMIT\n')
    for (let k = 0; k < 4; k++) {
      for (const name of modules_loaded().filter(m => /nat|MASQ|REDIR|NETMAP/.test(m)))
        runTask(s, () => delete_module(name))
    }
    expect(modules_loaded()).not.toContain('iptable_nat')
    expect(s.ask(2, 5010).from).toBe('10.0.0.2:5010')
    loadRules(s, `*nat\n-A ${MASQUERADE}\nCOMMIT\n`)
    expect(s.ask(2, 5010).from).toBe('10.0.0.2:5010')
    expect(s.ask(2, 5011).from).toBe(`${PUBLIC}:5011`)
    expect(runTask(s, () => delete_module('iptable_nat'))).toBe(-EAGAIN)
  })
})

test.skipIf(!hasTshark)('tshark finds nothing wrong with all that came out', () => {
  const file = join(dir, 'nat.pcap')
  expect(s.sent.length).toBeGreaterThan(150)
  writeFileSync(file, pcapOf(s.sent))
  expect(complaints(file, true)).toBe('')
})

test('the modules go while connections are alive; all is accounted for, and nothing leaks', () => {
  s.rules(MASQUERADE)
  s.ask(2, 5000)
  loadRules(s, '*nat\nCOMMIT\n*filter\nCOMMIT\n')
  for (let k = 0; k < 5; k++) for (const name of modules_loaded()) runTask(s, () => delete_module(name))
  expect(modules_loaded()).toEqual([])
  expect(ct.count).toBe(0)
  s.rules(MASQUERADE)
  s.ask(2, 5000)
  s.pass1(INSIDE, fragments(counting(3000), { src: '10.0.0.2', dst: SERVER, protocol: 17 }, 1500)[0]!)
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
