/** Connection tracking: who began it decides; errors are related, fragments are put together, time ends it, and it never overflows. */
import '../../../helpers/clock.js' // first: the kernel's clock is ours

import { expect, test } from 'vitest'
import { CONNTRACK_BUCKETS, MAX_CONNTRACKS } from '../../../../src/lib/limits.js'
import { ct } from '../../../../src/net/ipv4/netfilter/ip_conntrack.js'
import { ip_conntrack_text } from '../../../../src/net/ipv4/netfilter/ip_conntrack_standalone.js'
import { delete_module, modules_loaded } from '../../../../src/sched/module.js'
import { counting, fragments, icmpFrame, ipFrame, parse, udp, udpFrame } from '../../../helpers/frames.js'
import { loadRules, runTask } from '../../../helpers/iptables.js'
import { conserved, Script } from '../../../helpers/script.js'
import { ip } from '../../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  neighbours: [
    { address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } },
    { address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } },
  ],
})
const out = { src: '10.0.0.2', dst: '10.0.1.2' }
const back = { src: '10.0.1.2', dst: '10.0.0.2', to: '02:00:00:00:00:02' }
const inside = (frame: Uint8Array): number => s.send(0, frame)[1]!.length
const outside = (frame: Uint8Array): number => s.send(1, frame)[0]!.length

test('what was not asked for does not come in; its answer does', () => {
  loadRules(
    s,
    '*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m state --state ESTABLISHED,RELATED -j ACCEPT\n-A FORWARD -i eth0 -m state --state NEW -j ACCEPT\nCOMMIT\n',
  )
  const answer = udpFrame({ ...back, sport: 53, dport: 1000 })
  expect(outside(answer)).toBe(0)
  expect(ip_conntrack_text()).toBe('') // a dropped packet leaves nothing
  expect(inside(udpFrame({ ...out, sport: 1000, dport: 53 }))).toBe(1)
  expect(ip_conntrack_text()).toMatch(
    /^udp {6}17 (29|30) src=10.0.0.2 dst=10.0.1.2 sport=1000 dport=53 \[UNREPLIED\] src=10.0.1.2 dst=10.0.0.2 sport=53 dport=1000 use=1\n$/,
  )
  expect(outside(answer)).toBe(1)
  expect(outside(udpFrame({ ...back, sport: 54, dport: 1000 }))).toBe(0)
  expect(inside(udpFrame({ ...out, sport: 1000, dport: 53 }))).toBe(1)
  expect(ip_conntrack_text()).toMatch(/^udp {6}17 (179|180) .*\[ASSURED\] use=1\n$/)
})

test('an ICMP error about a connection is related to it, one about nothing is invalid; an echo reply needs its echo', () => {
  const about = (sport: number): Uint8Array => udpFrame({ ...out, sport, dport: 53 }, counting(8)).subarray(14, 50)
  expect(outside(icmpFrame(back, 3, 3, 0, about(1000)))).toBe(1)
  expect(outside(icmpFrame(back, 3, 3, 0, about(1001)))).toBe(0)
  expect(outside(icmpFrame(back, 0, 0, 0x70001))).toBe(0)
  expect(inside(icmpFrame(out, 8, 0, 0x70001))).toBe(1)
  expect(outside(icmpFrame(back, 0, 0, 0x70001))).toBe(1)
})

test('what is broken is invalid, and begins nothing: a wrong checksum, a wrong length, an unknown type', () => {
  loadRules(s, '*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m state --state INVALID -j ACCEPT\nCOMMIT\n')
  const known = ip_conntrack_text()
  /** Byte `at` behind the IP header is another one. */
  const with_byte = (frame: Uint8Array, at: number, value: number): Uint8Array => {
    const f = Uint8Array.from(frame)
    f[34 + at] = value
    return f
  }
  const datagram = udpFrame({ ...out, sport: 7000, dport: 53 }, counting(9))
  const unsummed = with_byte(with_byte(datagram, 6, 0), 7, 0)
  const broken = [
    with_byte(datagram, 12, 99), // 9 bytes behind the header: an odd number of them is summed
    with_byte(unsummed, 5, 7), // shorter than its own header
    with_byte(unsummed, 5, 18), // longer than the packet
    with_byte(icmpFrame(out, 8, 0, 0x80001), 7, 2),
    icmpFrame(out, 19, 0, 0),
  ]
  expect(broken.map(inside)).toEqual(broken.map(() => 1))
  expect(ip_conntrack_text().replace(/ \d+ src/g, ' src')).toBe(known.replace(/ \d+ src/g, ' src'))
  expect([inside(datagram), inside(unsummed)]).toEqual([0, 0]) // not invalid, and so dropped
  loadRules(s, '*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m state --state INVALID -j DROP\nCOMMIT\n')
  expect([inside(datagram), inside(unsummed)]).toEqual([1, 1])
})

test('fragments are put together in front of it, and cut again behind it', () => {
  const datagram = udp({ ...out, sport: 3000, dport: 53 }, counting(3000))
  const pieces = fragments(datagram, { ...out, id: 9, protocol: 17 }, 1500)
  const sent = s.send(0, ...pieces.slice(0, -1))[1]!
  expect(sent).toHaveLength(0)
  const whole = s.send(0, pieces.at(-1)!)[1]!.map(f => parse(f))
  expect(whole.map(f => f.ipChecksumGood)).toEqual(pieces.map(() => true))
  expect(ip_conntrack_text()).toContain('sport=3000')
})

test('time ends it', () => {
  expect(ip_conntrack_text()).toContain('icmp')
  s.pass(31_000)
  expect(ip_conntrack_text()).not.toMatch(/icmp|sport=3000/)
})

test('more connections than there may be: the oldest of their chain that has no answer goes, the others stay', () => {
  const asked = ip_conntrack_text()
    .split('\n')
    .filter(l => l.includes('ASSURED')).length
  for (let k = 0; k < MAX_CONNTRACKS + 600; k += 50) {
    s.send(
      0,
      ...Array.from({ length: 50 }, (_, n) =>
        udpFrame({ ...out, sport: 4000 + ((k + n) % 60000), dport: 9 + Math.floor((k + n) / 60000) }),
      ),
    )
    expect(ct.count).toBeLessThanOrEqual(MAX_CONNTRACKS)
  }
  expect(ct.early_drops).toBeGreaterThan(CONNTRACK_BUCKETS)
  expect(
    ip_conntrack_text()
      .split('\n')
      .filter(l => l.includes('ASSURED')).length,
  ).toBe(asked)
})

test('the module goes with all that it knows, and packets pass without it', () => {
  loadRules(s, '*filter\nCOMMIT\n')
  for (let k = 0; k < 3; k++) for (const name of modules_loaded()) runTask(s, () => delete_module(name))
  expect(modules_loaded()).toEqual([])
  expect(ct.count).toBe(0)
  expect(outside(udpFrame({ ...back, sport: 99, dport: 1000 }))).toBe(1)
})

test('with connections alive nothing leaks', () => {
  loadRules(s, '*filter\n-A FORWARD -m state --state NEW -j ACCEPT\nCOMMIT\n')
  inside(udpFrame(out))
  inside(ipFrame(counting(16), { ...out, mf: true }))
  expect(ct.count).toBe(1)
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
