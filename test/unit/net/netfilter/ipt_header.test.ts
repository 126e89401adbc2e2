/** Matches of single header fields and the targets that set them: what fits, what is cut short, what the kernel refuses, checksums. */
import '../../../helpers/clock.js' // first: the kernel's clock is ours

import { writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { DEFINE_STATIC } from '../../../../src/abi/section.js'
import { symbol } from '../../../../src/abi/symbol.js'
import { RAM } from '../../../../src/arch/ram.js'
import { parseIptables } from '../../../../src/lab/iptables/parse.js'
import { EINVAL } from '../../../../src/lib/errno.js'
import { table_blob } from '../../../../src/lib/iptables.js'
import {
  NF_ACCEPT,
  NF_HOOK_OPS,
  NF_IP_POST_ROUTING,
  NF_IP_PRE_ROUTING,
  nf_hook_slow,
  nf_register_hook,
  nf_unregister_hook,
} from '../../../../src/net/core/netfilter.js'
import { alloc_skb, consume_skb, skb_put, skb_tailroom } from '../../../../src/net/core/skbuff.js'
import type { sk_buff } from '../../../../src/net/core/types.js'
import { ipt_replace } from '../../../../src/net/ipv4/netfilter/ip_tables_user.js'
import { pcapOf } from '../../../helpers/captures.js'
import { counting, ipFrame, tcpFrame, udpFrame, wrongChecksums } from '../../../helpers/frames.js'
import { loadRules, runTask } from '../../../helpers/iptables.js'
import { conserved, Script } from '../../../helpers/script.js'
import { ip } from '../../../helpers/solo.js'
import { complaints, hasTshark } from '../../../helpers/tshark.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }], mtu: 1000 },
  ],
  neighbours: [
    { address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } },
    { address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } },
  ],
})
const way = { src: '10.0.0.2', dst: '10.0.1.2' }
const [SYN, ACK, ECE, CWR] = [2, 16, 64, 128]
const table = (rules: string, name = 'filter'): string => `*${name}\n${rules}\nCOMMIT\n`
const sent: Uint8Array[] = []
const priorities: number[] = []
const priority_sym = symbol('test_priority', (_hook: number, skb: sk_buff) => {
  priorities.push(skb.priority)
  return NF_ACCEPT
})
const ops = DEFINE_STATIC('test_priority_ops', NF_HOOK_OPS)
const kept: Uint8Array[] = []
const keep_sym = symbol('test_keep', (skb: sk_buff) => {
  kept.push(RAM.u8.slice(skb.data, skb.data + skb.len))
  consume_skb(skb)
  return 1
})
function passes(frame: Uint8Array): boolean {
  const out = s.send(0, frame)[1]!
  sent.push(...out)
  return out.length === 1
}
const mss = (n: number): number[] => [2, 4, n >> 8, n & 255]
const syn = (tcpOptions: number[] = []): Uint8Array => tcpFrame({ ...way, flags: SYN, tcpOptions })
const esp = (spi: number, more = 4): Uint8Array => ipFrame([0, 0, 0, spi, ...counting(more)], { ...way, protocol: 50 })
const ah = (spi: number, more = 4): Uint8Array =>
  ipFrame([17, 1, 0, 0, 0, 0, 0, spi, ...counting(more)], { ...way, protocol: 51 })
const piece = (protocol: number): Uint8Array => ipFrame(counting(16), { ...way, protocol, offset: 64 })

/** A piece whose bytes look like a header with ECE, and one with an MSS that is cut off but for the data behind it. */
const flagged = ipFrame(
  counting(24).map((b, k) => (k === 13 ? ECE : b)),
  { ...way, protocol: 6, offset: 64 },
)
const cut = tcpFrame({ ...way, flags: SYN, tcpOptions: [1, 1, 2, 4] }, [1024 >> 8, 0])

describe('matches, each with packets that fit and some that do not', () => {
  test.each<[string, Uint8Array[], Uint8Array[]]>([
    [
      '-m dscp --dscp 0x12',
      [udpFrame({ ...way, tos: 0x48 }), udpFrame({ ...way, tos: 0x4b })],
      [udpFrame({ ...way, tos: 0x12 })],
    ],
    ['-m dscp ! --dscp-class EF', [udpFrame(way)], [udpFrame({ ...way, tos: 0xb8 })]],
    ['-m ecn --ecn-ip-ect 2', [udpFrame({ ...way, tos: 0xfe })], [udpFrame({ ...way, tos: 3 }), udpFrame(way)]],
    ['-m ecn ! --ecn-ip-ect 0', [udpFrame({ ...way, tos: 1 })], [udpFrame({ ...way, tos: 4 })]],
    [
      '-p tcp -m ecn --ecn-tcp-ece ! --ecn-tcp-cwr',
      [tcpFrame({ ...way, flags: ACK | ECE })],
      [tcpFrame({ ...way, flags: ACK }), tcpFrame({ ...way, flags: ACK | ECE | CWR }), flagged],
    ],
    ['-p esp --espspi 5:7', [esp(5), esp(7)], [esp(4), esp(8), esp(5, 3), piece(50)]],
    ['-p ah ! --ahspi 5', [ah(6), ah(4)], [ah(5), ah(6, 3), piece(51)]],
    [
      '-p tcp -m tcpmss --mss 536:1460',
      [syn(mss(536)), syn([1, 1, 1, ...mss(1460)])],
      [syn(mss(535)), syn(mss(1461)), syn(), syn([2, 3, 4]), syn([1, 1, 2, 4]), cut, piece(6)],
    ],
    ['-p tcp -m tcpmss ! --mss 1000', [syn(), syn(mss(999))], [syn(mss(1000)), piece(6)]],
  ])('%s', (match, fits, others) => {
    loadRules(s, table(`:FORWARD DROP [0:0]\n-A FORWARD ${match} -j ACCEPT`))
    expect(fits.map(passes)).toEqual(fits.map(() => true))
    expect(others.map(passes)).toEqual(others.map(() => false))
  })

  test('a header that is cut short is dropped, whatever comes behind the match', () => {
    const short = tcpFrame({ ...way, flags: SYN })
    short[46] = 0xf0 // options beyond the end
    const none = tcpFrame({ ...way, flags: SYN })
    none[46] = 0x40
    for (const [match, frame] of [
      ['-p esp --espspi 1', esp(5, 3)],
      ['-p ah --ahspi 1', ah(5, 3)],
      ['-p tcp -m tcpmss --mss 1', short],
      ['-p tcp -m tcpmss --mss 1', none],
      ['-p tcp -m tcpmss --mss 1', ipFrame(counting(19), { ...way, protocol: 6 })],
    ] as const) {
      loadRules(s, table(`-A FORWARD ${match} -j ACCEPT\n-A FORWARD -j ACCEPT`))
      expect(s.account(() => s.send(0, frame)).drops).toEqual({ netfilter: 1 })
    }
  })
})

describe('targets', () => {
  const changed = (rule: string, frame: Uint8Array, name = 'mangle'): Uint8Array => {
    loadRules(s, table(''))
    loadRules(s, table(`-A FORWARD ${rule}`, name))
    expect(passes(frame)).toBe(true)
    const out = sent.at(-1)!
    expect(wrongChecksums(out.subarray(14))).toEqual([])
    return out
  }
  const tcp = '-p tcp --syn -j'
  const MSS = 'TCPMSS --set-mss'

  test('DSCP leaves ECN alone, and ECN leaves the code point alone', () => {
    expect(changed('-j DSCP --set-dscp 0x2e', udpFrame({ ...way, tos: 0x4b }))[15]).toBe(0xbb)
    expect(changed('-j ECN --ecn-ip-ect 2', udpFrame({ ...way, tos: 0x4b }))[15]).toBe(0x4a)
  })
  test.each([
    ['--ecn-tcp-remove', SYN | ECE | CWR, SYN],
    ['--ecn-tcp-ece 1', SYN, SYN | ECE],
    ['--ecn-tcp-cwr 0', SYN | ECE | CWR, SYN | ECE],
    ['--ecn-tcp-cwr 1 --ecn-tcp-ece 0', SYN | ECE, SYN | CWR],
    ['--ecn-tcp-remove', SYN, SYN],
  ])('ECN %s: flags %i become %i', (how, flags, becomes) => {
    expect(changed(`-p tcp -j ECN ${how}`, tcpFrame({ ...way, flags }, counting(9)))[47]).toBe(becomes)
  })
  test('CLASSIFY says it to the queue', () => {
    ops.hook = priority_sym
    ops.hooknum = NF_IP_POST_ROUTING
    nf_register_hook(ops)
    expect(changed('-j CLASSIFY --set-class 1:2', udpFrame(way)).length).toBe(42)
    expect(priorities).toEqual([0x10002])
    runTask(s, function* () {
      yield* nf_unregister_hook(ops)
    })
  })
  test('TCPMSS finds room where there is none behind the packet', () => {
    loadRules(s, table(`-A PREROUTING ${tcp} ${MSS} 600`, 'mangle'))
    const bytes = syn(new Array(24).fill(1)).subarray(14)
    const skb = alloc_skb(bytes.length)!
    skb.nh = skb_put(skb, bytes.length)
    RAM.u8.set(bytes, skb.nh)
    expect(skb_tailroom(skb)).toBe(0)
    nf_hook_slow(NF_IP_PRE_ROUTING, skb, null, null, keep_sym, -0x80000000)
    expect(kept.map(b => [...b.subarray(40, 44)])).toEqual([mss(600)])
    expect(kept.flatMap(wrongChecksums)).toEqual([])
    loadRules(s, table('', 'mangle'))
  })
  test.each<[string, string, number[], number[]]>([
    ['another value', `${tcp} ${MSS} 600`, mss(1460), mss(600)],
    ['a larger one', `${tcp} ${MSS} 2000`, mss(1460), mss(2000)],
    ['behind other options', `${tcp} ${MSS} 600`, [3, 3, 7, 1, ...mss(1460)], [3, 3, 7, 1, ...mss(600)]],
    ['at an odd place', `${tcp} ${MSS} 600`, [1, ...mss(1460), 1, 1, 1], [1, ...mss(600), 1, 1, 1]],
    ['where there is none', `${tcp} ${MSS} 600`, [3, 3, 7, 1], [...mss(600), 3, 3, 7, 1]],
    ['where there is no option', `${tcp} ${MSS} 600`, [], mss(600)],
    ['in a full header: none', `${tcp} ${MSS} 600`, new Array(40).fill(1), new Array(40).fill(1)],
    ['of the way out', `${tcp} TCPMSS --clamp-mss-to-pmtu`, mss(1460), mss(960)],
    ['of the way out, which is larger', `${tcp} TCPMSS --clamp-mss-to-pmtu`, mss(536), mss(536)],
    ['of the way out, where there is none', `${tcp} TCPMSS --clamp-mss-to-pmtu`, [], mss(960)],
  ])('TCPMSS: %s', (_what, rule, before, after) => {
    for (const name of ['mangle', 'filter']) {
      const out = changed(rule, syn(before), name)
      expect([...out.subarray(54, 54 + after.length)]).toEqual(after)
      expect([out[46]! >> 4, out[17]]).toEqual([5 + after.length / 4, 40 + after.length])
      loadRules(s, table('', name))
    }
  })
  test('TCPMSS drops a SYN with data, and one whose length is wrong', () => {
    loadRules(s, table(`-A FORWARD ${tcp} ${MSS} 600`))
    expect(s.account(() => s.send(0, tcpFrame({ ...way, flags: SYN }, [1]))).drops).toEqual({ netfilter: 1 })
    expect(passes(tcpFrame({ ...way, flags: ACK }, [1]))).toBe(true)
  })
  test.skipIf(!hasTshark)('tshark finds no wrong checksum in what came out', () => {
    const file = join(tmpdir(), `ipt_header-${process.pid}.pcap`)
    writeFileSync(file, pcapOf(sent.filter(f => f[23] === 6 && f[21] === 0)))
    expect(complaints(file, true)).toBe('')
  })
})

describe('what the kernel refuses', () => {
  const refuses = (rule: string, spoil: (words: number[]) => void = () => {}, name = 'filter'): number => {
    const [t] = parseIptables(table(`-A ${rule}`, name), 'x')
    const [r] = t!.chains.flatMap(c => c.rules)
    spoil('words' in r!.target ? r!.target.words : r!.matches.at(-1)!.words)
    return runTask(s, () => ipt_replace(table_blob(t!)))
  }
  const first = (n: number) => (words: number[]) => void (words[0] = n)
  test.each<[string, string, ((words: number[]) => void)?, string?]>([
    ['a code point of more than six bits', 'FORWARD -m dscp --dscp 1 -j DROP', first(64)],
    ['an operation of ecn that there is not', 'FORWARD -p tcp -m ecn --ecn-tcp-ece -j DROP', first(0x12)],
    ['an inversion of ecn that there is not', 'FORWARD -p tcp -m ecn --ecn-tcp-ece -j DROP', first(0x210)],
    ['an ECN field of three bits', 'FORWARD -m ecn --ecn-ip-ect 1 -j DROP', first(0x40001)],
    ['ecn of TCP without -p tcp', 'FORWARD -m ecn --ecn-tcp-ece -j DROP'],
    ['esp without -p esp', 'FORWARD -m esp --espspi 1 -j DROP'],
    ['esp of all but -p esp', 'FORWARD ! -p esp -m esp --espspi 1 -j DROP'],
    ['ah with an unknown flag', 'FORWARD -p ah --ahspi 1 -j DROP', w => void (w[2] = 2)],
    ['tcpmss without -p tcp', 'FORWARD -m tcpmss --mss 1 -j DROP'],
    ['data of another size', 'FORWARD -m dscp --dscp 1 -j DROP', w => void w.push(0)],
    ['DSCP in table filter', 'FORWARD -j DSCP --set-dscp 1'],
    ['DSCP of more than six bits', 'FORWARD -j DSCP --set-dscp 1', first(64), 'mangle'],
    ['ECN in table filter', 'FORWARD -j ECN --ecn-ip-ect 1'],
    ['ECN of TCP without -p tcp', 'FORWARD -j ECN --ecn-tcp-remove', undefined, 'mangle'],
    ['CLASSIFY in front of the routing decision', 'PREROUTING -j CLASSIFY --set-class 1:1', undefined, 'mangle'],
    ['CLASSIFY in table filter', 'FORWARD -j CLASSIFY --set-class 1:1'],
    ['TCPMSS without a match', 'FORWARD -p tcp -j TCPMSS --set-mss 1'],
    ['TCPMSS of all but SYNs', 'FORWARD -p tcp ! --syn -j TCPMSS --set-mss 1'],
    ['TCPMSS of segments without SYN', 'FORWARD -p tcp --tcp-flags SYN,ACK ACK -j TCPMSS --set-mss 1'],
    ['TCPMSS by a route that there is not', 'INPUT -p tcp --syn -j TCPMSS --clamp-mss-to-pmtu'],
  ])('%s', (_what, rule, spoil, name) => {
    expect(refuses(rule, spoil, name)).toBe(-EINVAL)
  })
  test('and what it does not', () => {
    expect(refuses('INPUT -p tcp --syn -j TCPMSS --set-mss 1')).toBe(0)
    expect(refuses('FORWARD -m ecn --ecn-ip-ect 1 -j DROP')).toBe(0)
    loadRules(s, `${table('')}${table('', 'mangle')}`)
  })
})

test('all is accounted for, and nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
