/** ip_tables: the kernel's own check of a table, the walk, every match and target, counters, replacement, modules. */
import '../../../helpers/clock.js' // first: the kernel's clock is ours

import { describe, expect, test } from 'vitest'
import { parseIptables } from '../../../../src/lab/iptables/parse.js'
import { EAGAIN, EINVAL, ELOOP, ENOENT } from '../../../../src/lib/errno.js'
import {
  E_OFFSETS,
  E_PROTO,
  R_HOOK_ENTRY,
  R_SIZE,
  R_UNDERFLOW,
  REPLACE_WORDS,
  table_blob,
} from '../../../../src/lib/iptables.js'
import { prng_below, prng_seed } from '../../../../src/lib/prng.js'
import { sysctl_write } from '../../../../src/net/core/sysctl.js'
import { ipt_replace } from '../../../../src/net/ipv4/netfilter/ip_tables_user.js'
import { delete_module, modules_loaded } from '../../../../src/sched/module.js'
import { kmsg_text } from '../../../../src/sched/printk.js'
import { checksum, counting, icmpFrame, ipFrame, parse, udpFrame } from '../../../helpers/frames.js'
import { loadRules, runTask, saved } from '../../../helpers/iptables.js'
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
const way = { src: '10.0.0.2', dst: '10.0.1.2' }

/** A TCP segment, by hand. */
function tcp(
  flags: number,
  o: { sport?: number; dport?: number; seq?: number; ack?: number; dst?: string } = {},
): Uint8Array {
  const dst = o.dst ?? way.dst
  const u32 = (n: number): number[] => [n >>> 24, (n >> 16) & 255, (n >> 8) & 255, n & 255]
  const sport = o.sport ?? 1000
  const dport = o.dport ?? 80
  const th = [
    sport >> 8,
    sport & 255,
    dport >> 8,
    dport & 255,
    ...u32(o.seq ?? 7),
    ...u32(o.ack ?? 0),
    0x50,
    flags,
    1,
    0,
    0,
    0,
    0,
    0,
  ]
  const pseudo = [...way.src.split('.').map(Number), ...dst.split('.').map(Number), 0, 6, 0, 20]
  const sum = checksum([...pseudo, ...th])
  th[16] = sum >> 8
  th[17] = sum & 255
  return ipFrame(th, { ...way, dst, protocol: 6 })
}

const table = (rules: string, name = 'filter'): string => `*${name}\n${rules}\nCOMMIT\n`
const passes = (frame: Uint8Array): boolean => s.send(0, frame)[1]!.length === 1

describe('matches, each with a packet that fits and one that does not', () => {
  test.each([
    ['-s 10.0.0.2', udpFrame(way), udpFrame({ ...way, src: '10.0.0.3' })],
    ['! -s 10.0.0.0/31', udpFrame(way), udpFrame({ ...way, src: '10.0.0.1', sport: 2 })],
    ['-i eth0 -o eth+', udpFrame(way), null],
    ['-p udp', udpFrame(way), tcp(2)],
    ['-f', ipFrame(counting(16), { ...way, offset: 64 }), udpFrame(way)],
    [
      '-p udp --dport 53:60 ! --sport 7',
      udpFrame({ ...way, dport: 55, sport: 8 }),
      udpFrame({ ...way, dport: 55, sport: 7 }),
    ],
    ['-p tcp --syn', tcp(2), tcp(18)],
    ['-p tcp --tcp-flags FIN,ACK FIN', tcp(1), tcp(17)],
    ['-p icmp --icmp-type echo-request', icmpFrame(way, 8), icmpFrame(way, 13, 0, 0, counting(12))],
    ['-p udp -m multiport --dports 1,5:9,20', udpFrame({ ...way, dport: 9 }), udpFrame({ ...way, dport: 10 })],
    ['-p udp -m multiport ! --ports 5', udpFrame({ ...way, dport: 9, sport: 9 }), udpFrame({ ...way, dport: 5 })],
    ['-m length --length 28:40', udpFrame(way, counting(12)), udpFrame(way, counting(13))],
    ['-m ttl --ttl-lt 10', udpFrame({ ...way, ttl: 10 }), udpFrame({ ...way, ttl: 11 })],
    ['-m tos --tos 0x10', udpFrame({ ...way, tos: 16 }), udpFrame(way)],
    ['-m mac --mac-source 02:00:00:00:01:01', udpFrame(way), udpFrame({ ...way, from: '02:00:00:00:01:02' })],
    ['-m pkttype --pkt-type unicast', udpFrame(way), null],
    ['-m addrtype --src-type UNICAST --dst-type LOCAL', null, udpFrame(way)],
    [
      '-m iprange --src-range 10.0.0.2-10.0.0.9 ! --dst-range 10.0.1.3-10.0.1.4',
      udpFrame(way),
      udpFrame({ ...way, dst: '10.0.1.3' }),
    ],
  ])('%s', (match, fits, other) => {
    loadRules(s, table(`:FORWARD DROP [0:0]\n-A FORWARD ${match} -j ACCEPT`))
    if (fits !== null) expect(passes(fits)).toBe(true)
    if (other !== null) {
      expect(s.account(() => s.send(0, other)).drops).toMatchObject(
        other[29] === 1 && other[30] === 10 ? {} : { netfilter: 1 },
      )
    }
  })
})

test('limit: a burst, then so many a second', () => {
  loadRules(s, table(':FORWARD DROP [0:0]\n-A FORWARD -m limit --limit 10/second --limit-burst 3 -j ACCEPT'))
  expect(Array.from({ length: 5 }, () => passes(udpFrame(way)))).toEqual([true, true, true, false, false])
  s.pass(100)
  expect([passes(udpFrame(way)), passes(udpFrame(way))]).toEqual([true, false])
})

test('chains: jump, return, fall through, a chain in a chain; counters say which way packets went', () => {
  loadRules(
    s,
    table(`:FORWARD ACCEPT [0:0]
:one - [0:0]
:two - [0:0]
-A FORWARD -p udp -j one
-A FORWARD -p udp --dport 3 -j DROP
-A one -p udp --dport 1 -j RETURN
-A one -p udp -j two
-A one -p udp --dport 4 -j DROP
-A two -p udp --dport 2 -j DROP`),
  )
  expect([1, 2, 3, 4, 5].map(dport => passes(udpFrame({ ...way, dport })))).toEqual([true, false, false, false, true])
  expect(
    saved('filter')
      .split('\n')
      .filter(l => l.startsWith('[')),
  ).toEqual([
    '[5:140] -A FORWARD -p udp -j one',
    '[1:28] -A FORWARD -p udp -m udp --dport 3 -j DROP',
    '[1:28] -A one -p udp -m udp --dport 1 -j RETURN',
    '[4:112] -A one -p udp -j two',
    '[1:28] -A one -p udp -m udp --dport 4 -j DROP',
    '[1:28] -A two -p udp -m udp --dport 2 -j DROP',
  ])
  expect(saved('filter')).toContain(':FORWARD ACCEPT [2:56]')
})

test('what is saved can be loaded, counters and all', () => {
  const before = saved('filter')
  loadRules(s, before)
  expect(saved('filter')).toBe(before)
})

test('REJECT tells the sender how', () => {
  for (const [how, code] of [
    ['icmp-port-unreachable', 3],
    ['icmp-admin-prohibited', 13],
    ['icmp-host-prohibited', 10],
  ] as const) {
    s.pass(1100)
    loadRules(s, table(`-A FORWARD -j REJECT --reject-with ${how}`))
    const [back] = s.send(0, udpFrame(way))
    expect(back).toHaveLength(1)
    expect([...back![0]!.subarray(34, 36)]).toEqual([3, code])
  }
  loadRules(s, table('-A FORWARD -p tcp -j REJECT --reject-with tcp-reset'))
  const [reset] = s.send(0, tcp(2, { seq: 41 }))
  const f = reset![0]!
  expect([...f.subarray(26, 34)]).toEqual([10, 0, 1, 2, 10, 0, 0, 2])
  expect([...f.subarray(34, 38)]).toEqual([0, 80, 3, 232])
  expect([...f.subarray(42, 48)]).toEqual([0, 0, 0, 42, 0x50, 20])
  expect(checksum([...f.subarray(26, 34), 0, 6, 0, 20, ...f.subarray(34, 54)])).toBe(0)
  expect(s.send(0, tcp(4))[0]).toEqual([]) // no reset for a reset
  expect([...s.send(0, tcp(16, { ack: 99 }))[0]![0]!.subarray(38, 42)]).toEqual([0, 0, 0, 99])
})

test('a reset of REJECT has the TTL of its route', () => {
  loadRules(s, table('-A FORWARD -p tcp -j REJECT --reject-with tcp-reset'))
  const ttl = (): number => parse(s.send(0, tcp(2))[0]![0]!).ttl
  const before = ttl()
  sysctl_write('net.ipv4.ip_default_ttl', 77)
  sysctl_write('net.ipv4.route.flush', 0)
  expect([before, ttl()]).toEqual([64, 77])
  sysctl_write('net.ipv4.ip_default_ttl', 64)
  sysctl_write('net.ipv4.route.flush', 0)
})

test('mangle: MARK is seen by mark, TOS and TTL are written with a right checksum', () => {
  loadRules(
    s,
    `${table('-A PREROUTING -p udp -j MARK --set-mark 0x7\n-A FORWARD -m mark --mark 7 -j TOS --set-tos 0x10\n-A POSTROUTING -m tos --tos 16 -j TTL --ttl-set 33', 'mangle')}${table('')}`,
  )
  const f = parse(s.send(0, udpFrame(way))[1]![0]!)
  expect(f).toMatchObject({ ttl: 33, ipChecksumGood: true })
  const raw = s.send(0, udpFrame(way))[1]![0]!
  expect(raw[15]).toBe(16)
})

test('LOG writes to the ring and lets go on', () => {
  loadRules(s, table('-A FORWARD -j LOG --log-prefix "seen: " --log-level 6'))
  expect(passes(udpFrame({ ...way, sport: 5, dport: 6, ttl: 9, id: 3 }))).toBe(true)
  expect(kmsg_text()).toBe(
    '<6>seen: IN=eth0 OUT=eth1 SRC=10.0.0.2 DST=10.0.1.2 LEN=28 TOS=0x10 PREC=0x00 TTL=8 ID=3 PROTO=UDP SPT=5 DPT=6 LEN=8 \n',
  )
})

describe('the kernel checks for itself', () => {
  const good = (): Int32Array =>
    table_blob(parseIptables(table(':a - [0:0]\n-A FORWARD -p udp --dport 1 -j a\n-A a -j DROP'), 'x')[0]!)
  const replace = (blob: Int32Array): number => runTask(s, () => ipt_replace(blob))
  test.each<[string, number, (b: Int32Array) => void]>([
    ['a size that is not that of the entries', -EINVAL, b => void (b[R_SIZE]! -= 4)],
    ['a hook that begins between two entries', -EINVAL, b => void (b[R_HOOK_ENTRY + 2]! += 4)],
    ['an underflow that is no policy', -EINVAL, b => void (b[R_UNDERFLOW + 2] = b[R_HOOK_ENTRY + 2]!)],
    ['an entry that ends outside', -EINVAL, b => void (b[REPLACE_WORDS + E_OFFSETS] = 112 | (40000 << 16))],
    ['an entry of no length', -EINVAL, b => void (b[REPLACE_WORDS + E_OFFSETS] = 112)],
    ['unknown flags', -EINVAL, b => void (b[REPLACE_WORDS + E_PROTO]! |= 0x80 << 16)],
    ['a table that is not there', -ENOENT, b => void (b[0] = 0x61)],
  ])('%s', (_what, err, spoil) => {
    const b = good()
    spoil(b)
    expect(replace(b)).toBe(err)
  })
  test('a loop of chains, a match that is not there, a target of another table', () => {
    expect(
      replace(
        table_blob(
          parseIptables(table(':a - [0:0]\n:b - [0:0]\n-A FORWARD -j a\n-A a -j b\n-A b -p udp -j a'), 'x')[0]!,
        ),
      ),
    ).toBe(-ELOOP)
    const [t] = parseIptables(table('-A FORWARD -m length --length 3 -j ACCEPT'), 'x')
    t!.chains[1]!.rules[0]!.matches[0]!.name = 'nothing'
    expect(replace(table_blob(t!))).toBe(-ENOENT)
    t!.chains[1]!.rules[0]!.matches = []
    t!.chains[1]!.rules[0]!.target = { name: 'MARK', words: [1] }
    expect(replace(table_blob(t!))).toBe(-EINVAL)
  })
  test('1500 spoilt tables: refused, or harmless', () => {
    const prng = new Int32Array(4)
    prng_seed(prng, 5)
    let refused = 0
    for (let k = 0; k < 1500; k++) {
      const b = good()
      for (let n = 1 + prng_below(prng, 3); n > 0; n--) {
        const at = 8 + prng_below(prng, b.length - 8)
        b[at] =
          prng_below(prng, 2) === 0
            ? prng_below(prng, 2 ** 31)
            : b[at]! + [4, -4, 112, 1, 65536, -112][prng_below(prng, 6)]!
      }
      if (runTask(s, () => ipt_replace(b)) !== 0) refused++
      else s.send(0, udpFrame({ ...way, dport: 1 }), udpFrame(way))
    }
    expect(refused).toBeGreaterThan(150)
  })
})

test('a table with rules holds its module; without, all modules can go', () => {
  loadRules(s, `${table('-A FORWARD -m ttl --ttl-eq 3 -j DROP')}${table('', 'mangle')}`)
  expect(runTask(s, () => delete_module('iptable_filter'))).toBe(-EAGAIN)
  expect(runTask(s, () => delete_module('ipt_ttl'))).toBe(-EAGAIN)
  loadRules(s, table(''))
  const f = s.account(() => {
    for (let k = 0; k < 4; k++) for (const name of modules_loaded()) runTask(s, () => delete_module(name))
    expect(modules_loaded()).toEqual([])
    expect(passes(udpFrame(way))).toBe(true)
  })
  expect(f.forwarded).toBe(1)
})

test('all is accounted for, and nothing leaks', () => {
  loadRules(s, table('-A FORWARD -m limit -j ACCEPT'))
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
