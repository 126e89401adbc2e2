/** What is known of a packet beside its bytes: its connection (match conntrack), and whose program sends it (match owner). */
import '../../../helpers/clock.js' // first: the kernel's clock is ours

import { describe, expect, test } from 'vitest'
import { parseIptables } from '../../../../src/lab/iptables/parse.js'
import { EINVAL } from '../../../../src/lib/errno.js'
import { table_blob } from '../../../../src/lib/iptables.js'
import { ipt_replace } from '../../../../src/net/ipv4/netfilter/ip_tables_user.js'
import { close, inet_addr, malloc, sendto, setuid, sockaddr_in, socket } from '../../../../src/user/libc.js'
import { counting, icmpFrame, ipFrame, udpFrame } from '../../../helpers/frames.js'
import { loadRules, runTask, saved } from '../../../helpers/iptables.js'
import { run } from '../../../helpers/programs.js'
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
  config: { user_procs: 2 },
})
const table = (rules: string, name = 'filter'): string => `*${name}\n${rules}\nCOMMIT\n`
const ports = { current: 2000 }
/** A question of a new connection, its answer, and a second question; which of them come by a rule. */
function conversation(match: string): string {
  loadRules(s, table(`-A FORWARD -m conntrack ${match} -j ACCEPT`))
  const sport = ports.current++
  const hits = (): number => Number(/\[(\d+):\d+\] -A FORWARD/.exec(saved('filter'))![1])
  const seen: string[] = []
  const look = (what: string, send: () => void): void => {
    const before = hits()
    send()
    if (hits() > before) seen.push(what)
  }
  const ask = (): unknown => s.send(0, udpFrame({ src: '10.0.0.2', dst: '10.0.1.2', sport, dport: 53 }))
  look('question', ask)
  look('answer', () =>
    s.send(1, udpFrame({ src: '10.0.1.2', dst: '10.0.0.2', to: '02:00:00:00:00:02', sport: 53, dport: sport })),
  )
  look('again', ask)
  look('error', () => {
    const about = udpFrame({ src: '10.0.0.2', dst: '10.0.1.2', sport, dport: 53 }, counting(8)).subarray(14, 50)
    s.send(1, icmpFrame({ src: '10.0.1.2', dst: '10.0.0.2', to: '02:00:00:00:00:02' }, 3, 3, 0, about))
  })
  look('invalid', () => s.send(0, icmpFrame({ src: '10.0.0.2', dst: '10.0.1.2' }, 0)))
  return seen.join(' ')
}

describe('conntrack: which packets of a conversation come by', () => {
  test.each([
    ['--ctstate NEW', 'question'],
    ['--ctstate ESTABLISHED', 'answer again'],
    ['--ctstate RELATED,INVALID', 'error invalid'],
    ['! --ctstate NEW,INVALID', 'answer again error'],
    ['--ctstate SNAT,DNAT', ''],
    ['--ctproto udp', 'question answer again error'],
    ['! --ctproto udp', ''],
    ['! --ctproto icmp', 'question answer again error'],
    ['--ctorigsrc 10.0.0.2 --ctorigdst 10.0.1.0/24', 'question answer again error'],
    ['--ctorigsrc 10.0.1.2', ''],
    ['! --ctorigdst 10.0.1.2', ''],
    ['--ctreplsrc 10.0.1.2 --ctrepldst 10.0.0.0/24', 'question answer again error'],
    ['--ctrepldst 10.0.1.2', ''],
    ['! --ctreplsrc 10.0.0.2', 'question answer again error'],
    ['--ctstatus SEEN_REPLY', 'answer again error'],
    ['--ctstatus ASSURED', 'again error'],
    ['! --ctstatus CONFIRMED', 'question'],
    ['--ctstatus NONE', ''],
    ['! --ctstatus NONE', 'question answer again error'],
    ['--ctexpire 0', 'question'],
    ['--ctexpire 28:30', 'answer'],
    ['! --ctexpire 0:100', 'again error'],
    ['--ctstate ESTABLISHED ! --ctstatus ASSURED --ctexpire 0:100', 'answer'],
  ])('%s: %s', (match, wanted) => {
    expect(conversation(match)).toBe(wanted)
  })

  test('with addresses translated: SNAT, and the answer’s tuple', () => {
    loadRules(s, table('-A POSTROUTING -o eth1 -j SNAT --to-source 10.0.1.9', 'nat'))
    loadRules(s, table(':FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate SNAT --ctrepldst 10.0.1.9 -j ACCEPT'))
    const ask = udpFrame({ src: '10.0.0.2', dst: '10.0.1.2', sport: 9, dport: 53 })
    expect(s.send(0, ask)[1]).toEqual([]) // the source is translated behind it
    loadRules(s, table('-A FORWARD -m conntrack ! --ctstate SNAT,DNAT -j ACCEPT\n-A FORWARD -j ACCEPT'))
    s.send(0, ask)
    loadRules(s, table(':FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate SNAT --ctrepldst 10.0.1.9 -j ACCEPT'))
    expect(s.send(0, ask)[1]).toHaveLength(1)
    loadRules(s, table(':FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT'))
    expect(s.send(0, ask)[1]).toEqual([])
    loadRules(s, table('', 'nat'))
  })
})

describe('owner', () => {
  /** A datagram of a program of this user. @returns is it sent? */
  function sends(uid: number): boolean {
    const buf = run(s, function* () {
      if (uid !== 0) yield* setuid(uid)
      const fd = yield* socket(2, 2, 0)
      const to = malloc(16)
      sockaddr_in(to, inet_addr('10.0.1.2'), 9)
      yield* sendto(fd, to, 4, 0, to, 16)
      yield* close(fd)
      return 0
    })
    expect(buf).toBe(0)
    return s.out()[1]!.some(f => f[23] === 17)
  }
  test.each([
    ['OUTPUT', 'filter'],
    ['POSTROUTING', 'mangle'],
  ])('%s: by uid', (chain, name) => {
    s.out()
    loadRules(s, table(''))
    loadRules(s, table(`-A ${chain} -o eth1 -m owner --uid-owner 7 -j DROP`, name))
    expect([0, 7, 8].map(sends)).toEqual([true, false, true])
    loadRules(s, table(`-A ${chain} -o eth1 -m owner ! --uid-owner 7 -j DROP`, name))
    expect([0, 7].map(sends)).toEqual([false, true])
    // What is forwarded, and what the kernel says itself, is nobody's.
    expect(s.send(0, udpFrame({ src: '10.0.0.2', dst: '10.0.1.2' }))[1]).toHaveLength(1)
    expect(s.send(1, icmpFrame({ src: '10.0.1.2', dst: '10.0.1.1', to: '02:00:00:00:00:02' }, 8))[1]).toHaveLength(1)
    loadRules(s, table(`-A ${chain} -o eth1 -m owner --uid-owner 0 -j DROP`, name))
    expect(s.send(1, icmpFrame({ src: '10.0.1.2', dst: '10.0.1.1', to: '02:00:00:00:00:02' }, 8))[1]).toHaveLength(1)
    loadRules(s, table('', name))
  })
})

describe('what the kernel refuses', () => {
  const refuses = (rule: string, spoil: (words: number[]) => void = () => {}, name = 'filter'): number => {
    const [t] = parseIptables(table(`-A ${rule}`, name), 'x')
    spoil(t!.chains.flatMap(c => c.rules)[0]!.matches[0]!.words)
    return runTask(s, () => ipt_replace(table_blob(t!)))
  }
  test.each<[string, string, ((w: number[]) => void)?, string?]>([
    ['owner on the way in', 'INPUT -m owner --uid-owner 1 -j DROP'],
    ['owner on the way through', 'FORWARD -m owner --uid-owner 1 -j DROP'],
    ['owner by pid', 'OUTPUT -m owner --uid-owner 1 -j DROP', w => void (w[1] = 4)],
    ['owner with an inversion that there is not', 'OUTPUT -m owner --uid-owner 1 -j DROP', w => void (w[2] = 4)],
    ['conntrack with an unknown flag', 'INPUT -m conntrack --ctstate NEW -j DROP', w => void (w[0]! |= 1 << 16)],
    ['conntrack of another size', 'INPUT -m conntrack --ctstate NEW -j DROP', w => void w.push(0)],
  ])('%s', (_what, rule, spoil, name) => {
    expect(refuses(rule, spoil, name)).toBe(-EINVAL)
  })
})

test('a fragment has the connection of the whole', () => {
  loadRules(s, table(':FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctproto 99 -j ACCEPT'))
  const way = { src: '10.0.0.2', dst: '10.0.1.2', protocol: 99, id: 5 }
  expect(
    s.send(0, ipFrame(counting(16), { ...way, mf: true }), ipFrame(counting(16), { ...way, offset: 16 }))[1],
  ).toHaveLength(1)
})

test('all is accounted for, and nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
