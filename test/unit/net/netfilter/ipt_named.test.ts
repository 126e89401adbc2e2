/** What matches remember of whom they have seen, in tables that rules share by name: recent and hashlimit. */
import '../../../helpers/clock.js' // first: the kernel's clock is ours

import { describe, expect, test } from 'vitest'
import { proc_files, proc_read } from '../../../../src/fs/proc.js'
import { parseIptables } from '../../../../src/lab/iptables/parse.js'
import { EAGAIN, EINVAL } from '../../../../src/lib/errno.js'
import { table_blob } from '../../../../src/lib/iptables.js'
import { MAX_NAMED_TABLES, RECENT_PER_TABLE } from '../../../../src/lib/limits.js'
import { ipt_replace } from '../../../../src/net/ipv4/netfilter/ip_tables_user.js'
import { delete_module } from '../../../../src/sched/module.js'
import { counting, ipFrame, udpFrame } from '../../../helpers/frames.js'
import { loadRules, runTask, saved } from '../../../helpers/iptables.js'
import { conserved, Script } from '../../../helpers/script.js'
import { ip } from '../../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  neighbours: [{ address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } }],
})
const table = (rules: string, name = 'filter'): string => `*${name}\n${rules}\nCOMMIT\n`
const from = (host: number, o: { dport?: number; sport?: number; ttl?: number; dst?: string } = {}): Uint8Array =>
  udpFrame({ src: `10.0.0.${host}`, dst: '10.0.1.2', ...o })
const passes = (frame: Uint8Array): boolean => s.send(0, frame)[1]!.length === 1
const load = (...rules: string[]): void =>
  loadRules(s, table(`:FORWARD DROP [0:0]\n${rules.map(r => `-A FORWARD ${r}`).join('\n')}`))
const again = (frame: Uint8Array, n: number): boolean[] => Array.from({ length: n }, () => passes(frame))
/** Whom a table has, by its text. */
const listed = (name: string): string[] =>
  [...(proc_read(`/proc/net/ipt_recent/${name}`) ?? '').matchAll(/^src=(\S+) /gm)].map(m => m[1]!)

describe('recent', () => {
  test('--set is true and remembers; --rcheck knows whom; ! turns both around', () => {
    load('-p udp --dport 1 -m recent --name a --set -j ACCEPT', '-m recent --name a --rcheck -j ACCEPT')
    expect([passes(from(2)), passes(from(2, { dport: 1 })), passes(from(2)), passes(from(3))]).toEqual([
      false,
      true,
      true,
      false,
    ])
    expect(proc_read('/proc/net/ipt_recent/a')).toMatch(
      /^src=10\.0\.0\.2 ttl: 64 last_seen: (\d+) oldest_pkt: 1 last_pkts: \1\n$/,
    )
    load('-m recent --name a ! --rcheck -j ACCEPT') // which keeps the table
    expect([passes(from(2)), passes(from(3))]).toEqual([false, true])
    load('-m recent --name a ! --set -j ACCEPT')
    expect(passes(from(4))).toBe(false)
    expect(listed('a')).toEqual(['10.0.0.2', '10.0.0.4'])
  })
  test('--seconds, and --update starts them anew where it is true', () => {
    const set = '-p udp --dport 1 -m recent --name b --set -j ACCEPT'
    load(set, '-m recent --name b --rcheck --seconds 2 -j ACCEPT')
    passes(from(2, { dport: 1 }))
    s.pass(1500)
    expect(passes(from(2))).toBe(true)
    s.pass(1000)
    expect(passes(from(2))).toBe(false)
    load(set, '-m recent --name b --update --seconds 2 -j ACCEPT')
    expect(passes(from(2))).toBe(false) // which does not begin it anew
    expect(passes(from(2))).toBe(false)
    passes(from(2, { dport: 1 }))
    for (let k = 0; k < 3; k++) {
      s.pass(1500)
      expect(passes(from(2))).toBe(true)
    }
    s.pass(2500)
    expect(passes(from(2))).toBe(false)
  })
  test('--hitcount: so many packets ever, or in so many seconds', () => {
    const set = '-p udp --dport 1 -m recent --name c --set -j ACCEPT'
    load(set, '-m recent --name c --rcheck --hitcount 3 -j ACCEPT')
    const hit = (): boolean => passes(from(2, { dport: 1 }))
    hit()
    hit()
    expect(passes(from(2))).toBe(false)
    s.pass(3000)
    hit()
    expect(passes(from(2))).toBe(true)
    load(set, '-m recent --name c --rcheck --seconds 2 --hitcount 3 -j ACCEPT')
    expect(passes(from(2))).toBe(false)
    hit()
    hit()
    expect(passes(from(2))).toBe(true)
    load(set, '-m recent --name c --rcheck --hitcount 20 -j ACCEPT')
    for (let k = 0; k < 30; k++) hit()
    expect(passes(from(2))).toBe(true)
    load(set, '-m recent --name c --rcheck --hitcount 21 -j ACCEPT') // no more are remembered
    expect(passes(from(2))).toBe(false)
    expect(proc_read('/proc/net/ipt_recent/c')!.split(',')).toHaveLength(20)
    expect(proc_read('/proc/net/ipt_recent/c')).toContain(` oldest_pkt: ${(5 + 30) % 20} `)
  })
  test('--remove, --rdest, --rttl', () => {
    load('-p udp --dport 1 -m recent --name d --set --rdest -j ACCEPT', '-m recent --name d --remove --rdest -j ACCEPT')
    passes(from(2, { dport: 1 }))
    expect(listed('d')).toEqual(['10.0.1.2'])
    expect([passes(from(3)), passes(from(3))]).toEqual([true, false])
    expect(listed('d')).toEqual([])
    load('-p udp --dport 1 -m recent --name d --set -j ACCEPT', '-m recent --name d --rcheck --rttl -j ACCEPT')
    passes(from(2, { dport: 1, ttl: 30 }))
    expect([passes(from(2, { ttl: 30 })), passes(from(2, { ttl: 31 }))]).toEqual([true, false])
    loadRules(s, table('-A PREROUTING -m recent --name d --rcheck --rttl -j DROP', 'mangle'))
    expect(passes(from(2, { ttl: 30 }))).toBe(false) // the same number where it is not lowered yet
    loadRules(s, table('', 'mangle'))
  })
  test('a full table forgets whom it has not seen for longest', () => {
    load('-p udp --dport 1 -m recent --name e --remove -j ACCEPT', '-m recent --name e --set -j ACCEPT')
    for (let k = 0; k < 3; k++) s.send(0, from(2), from(2, { dport: 1 })) // those who went leave room
    for (let k = 0; k < RECENT_PER_TABLE; k++) s.send(0, from(2 + k))
    s.send(0, from(2))
    s.send(0, from(200))
    expect(listed('e')).toHaveLength(RECENT_PER_TABLE)
    expect(listed('e')).not.toContain('10.0.0.3')
    expect(listed('e').slice(-2)).toEqual(['10.0.0.2', '10.0.0.200'])
  })
  test('tables come and go with rules', () => {
    load('-m recent --name one --set -j ACCEPT', '-m recent --name two --set -j ACCEPT')
    expect(proc_files()).toContain('/proc/net/ipt_recent/one')
    expect(runTask(s, () => delete_module('ipt_recent'))).toBe(-EAGAIN)
    load('-m recent --name two --rcheck -j ACCEPT')
    expect(proc_files().filter(f => f.startsWith('/proc/net/ipt_recent/'))).toEqual(['/proc/net/ipt_recent/two'])
    expect(proc_read('/proc/net/ipt_recent/one')).toBe(null)
  })
})

describe('hashlimit', () => {
  const limit = (mode: string, more = '', name = 'h'): string =>
    `-m hashlimit --hashlimit 10/sec --hashlimit-burst 2 --hashlimit-mode ${mode} --hashlimit-name ${name} ${more} -j ACCEPT`
  test('each has a bucket of its own; time fills them', () => {
    load(limit('srcip'))
    expect(again(from(2), 5)).toEqual([true, true, true, false, false])
    expect(again(from(3), 4)).toEqual([true, true, true, false])
    s.pass(100)
    expect([again(from(2), 2), again(from(3), 2)]).toEqual([
      [true, false],
      [true, false],
    ])
    const lines = proc_read('/proc/net/ipt_hashlimit/h')!.split('\n').filter(Boolean)
    expect(lines.map(l => l.replace(/^(9|10) (.*):0 \d+ /, '$2 ')).sort()).toEqual([
      '10.0.0.2:0->0.0.0.0 6400 3200',
      '10.0.0.3:0->0.0.0.0 6400 3200',
    ])
  })
  test.each([
    ['srcip', 1],
    ['dstip', 2],
    ['srcport', 2],
    ['dstport', 2],
    ['srcip-srcport-dstip-dstport', 4],
  ])('--hashlimit-mode %s: %i buckets', (mode, n) => {
    load(limit(mode, '', `m${mode.length}${n}`.slice(0, 15)))
    const frames = [
      from(2, { sport: 5, dport: 6 }),
      from(2, { sport: 7, dport: 6 }),
      from(2, { sport: 5, dport: 8 }),
      from(2, { sport: 5, dport: 6, dst: '10.0.1.3' }),
    ]
    for (const f of frames) s.send(0, f)
    expect(proc_read(`/proc/net/ipt_hashlimit/${`m${mode.length}${n}`.slice(0, 15)}`)!.split('\n')).toHaveLength(n + 1)
  })
  test.each([
    ['srcip', (k: number) => udpFrame({ src: `10.0.0.${k}`, dst: '10.0.1.2' })],
    ['dstip', (k: number) => from(2, { dst: `10.0.1.${k}` })],
    ['srcport', (k: number) => from(2, { sport: k })],
  ])('%s: more buckets than chains, each found again', (mode, frame) => {
    load(limit(mode, '', `many-${mode}`))
    for (let n = 0; n < 2; n++) for (let k = 2; k < 202; k++) s.send(0, frame(k))
    expect(proc_read(`/proc/net/ipt_hashlimit/many-${mode}`)!.split('\n')).toHaveLength(201)
  })
  test('by port: other protocols have none, pieces and what is cut short are dropped', () => {
    load(limit('dstport', '', 'p'), '-j ACCEPT')
    const other = { src: '10.0.0.2', dst: '10.0.1.2', protocol: 99 }
    expect(passes(ipFrame(counting(8), other))).toBe(true)
    expect(proc_read('/proc/net/ipt_hashlimit/p')).toMatch(/^\d+ 0\.0\.0\.0:0->0\.0\.0\.0:0 /)
    expect(passes(ipFrame(counting(7), other))).toBe(false)
    expect(passes(ipFrame(counting(16), { ...other, offset: 8 }))).toBe(false)
  })
  test('what is not used is forgotten, in time; a full table takes nobody in', () => {
    load(
      limit('srcip', '--hashlimit-htable-max 2 --hashlimit-htable-gcinterval 100 --hashlimit-htable-expire 500', 'f'),
    )
    expect([2, 3, 4].map(k => passes(from(k)))).toEqual([true, true, false])
    s.pass(300)
    expect(passes(from(2))).toBe(true)
    s.pass(300)
    expect([passes(from(3)), passes(from(4)), passes(from(2))]).toEqual([true, false, true])
    s.pass(700)
    expect(proc_read('/proc/net/ipt_hashlimit/f')).toBe('')
    expect(passes(from(4))).toBe(true)
  })
  test('rules of one name share the buckets, and the first one’s numbers', () => {
    const more = '-m hashlimit --hashlimit 1000/sec --hashlimit-mode dstip --hashlimit-name s -j ACCEPT'
    load(`-p udp --dport 1 ${limit('srcip', '', 's')}`, more)
    expect(again(from(2, { dport: 1 }), 4)).toEqual([true, true, true, false])
    expect(passes(from(2))).toBe(false)
    expect(proc_read('/proc/net/ipt_hashlimit/s')).toMatch(/->0\.0\.0\.0/)
  })
  test('what is saved can be loaded', () => {
    const before = saved('filter')
    loadRules(s, before)
    expect(saved('filter')).toBe(before)
  })
})

describe('what the kernel refuses', () => {
  const replace = (rules: string, spoil: (words: number[]) => void = () => {}): number => {
    const [t] = parseIptables(table(rules), 'x')
    spoil(t!.chains.flatMap(c => c.rules)[0]?.matches[0]?.words ?? [])
    return runTask(s, () => ipt_replace(table_blob(t!)))
  }
  const RECENT = '-A INPUT -m recent --rcheck -j DROP'
  const LIMIT = '-A INPUT -m hashlimit --hashlimit 3/s --hashlimit-mode srcip --hashlimit-name x -j DROP'
  test.each<[string, string, (w: number[]) => void]>([
    ['recent that does nothing', RECENT, w => void (w[2] = 16)],
    ['recent that does two things', RECENT, w => void (w[2] = 3)],
    ['recent --set with seconds', '-A INPUT -m recent --set -j DROP', w => void (w[0] = 1)],
    ['recent --remove with hits', '-A INPUT -m recent --remove -j DROP', w => void (w[1] = 1)],
    ['recent of a third side', RECENT, w => void (w[4] = 2)],
    ['recent without a name', RECENT, w => void (w[6] = 0)],
    ['recent with a name without an end', RECENT, w => void w.fill(0x61616161, 6)],
    ['hashlimit without a burst', LIMIT, w => void (w[1] = 0)],
    ['hashlimit with a burst of too much', LIMIT, w => void (w[1] = 2 ** 31 - 1)],
    ['hashlimit of nothing', LIMIT, w => void (w[2] = 0)],
    ['hashlimit of what there is not', LIMIT, w => void (w[2] = 16)],
    ['hashlimit that looks all the time', LIMIT, w => void (w[4] = 0)],
    ['hashlimit that forgets at once', LIMIT, w => void (w[5] = 0)],
    ['hashlimit without a name', LIMIT, w => void (w[7] = 0)],
  ])('%s', (_what, rule, spoil) => {
    expect(replace(rule, spoil)).toBe(-EINVAL)
    expect(replace(rule)).toBe(0)
  })
  test('more tables than there are: what was made for the others goes again', () => {
    for (const rule of [
      (k: number) => `-A INPUT -m recent --set --name n${k} -j DROP`,
      (k: number) => `-A INPUT -m hashlimit --hashlimit 3/s --hashlimit-mode srcip --hashlimit-name n${k} -j DROP`,
    ]) {
      const rules = (n: number): string => Array.from({ length: n }, (_, k) => rule(k)).join('\n')
      expect(replace('')).toBe(0)
      expect(replace(rules(MAX_NAMED_TABLES + 1))).toBe(-EINVAL)
      expect(proc_files().filter(f => f.includes('/ipt_'))).toEqual([])
      expect(replace(rules(MAX_NAMED_TABLES))).toBe(0)
    }
  })
})

test('all is accounted for, and nothing leaks', () => {
  load('-j ACCEPT')
  load('-m recent --set -m hashlimit --hashlimit 3/s --hashlimit-mode srcip --hashlimit-name x -j ACCEPT')
  for (let k = 2; k < 9; k++) s.send(0, from(k))
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
