/** TCP connections: states, windows with loss, reordering, SACK and scaling, resets, timeouts, and what the sysctls change. */
import '../../../helpers/clock.js' // first: the kernel's clock is ours

import { afterEach, expect, test } from 'vitest'
import { sysctl_write } from '../../../../src/net/core/sysctl.js'
import { ip_conntrack_flush } from '../../../../src/net/ipv4/netfilter/ip_conntrack.js'
import { ip_conntrack_text } from '../../../../src/net/ipv4/netfilter/ip_conntrack_standalone.js'
import { counting, tcpFrame } from '../../../helpers/frames.js'
import { loadRules } from '../../../helpers/iptables.js'
import { conserved, Script } from '../../../helpers/script.js'
import { ip } from '../../../helpers/solo.js'
import { AT_CLIENT, AT_SERVER } from '../../../helpers/tcpTransfers.js'

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
loadRules(s, '*filter\n-A FORWARD -m state --state INVALID -j DROP\nCOMMIT\n')

const FIN = 1
const SYN = 2
const RST = 4
const ACK = 16

interface Segment {
  flags: number
  seq?: number
  ack?: number
  window?: number
  len?: number
  options?: number[]
}
/** What a client (`>`) or a server sends; did it get through? */
function pass(from: '>' | '<', { flags, seq = 0, ack = 0, window = 8192, len = 0, options = [] }: Segment): boolean {
  const client = from === '>'
  const frame = tcpFrame(
    {
      ...(client
        ? { src: '10.0.0.2', dst: '10.0.1.2' }
        : { src: '10.0.1.2', dst: '10.0.0.2', to: '02:00:00:00:00:02' }),
      ...(client ? { sport: 2000, dport: 80 } : { sport: 80, dport: 2000 }),
      ...{ flags, seq: seq >>> 0, ack: ack >>> 0, window, tcpOptions: options },
    },
    counting(len),
  )
  return s.send(client ? 0 : 1, frame)[client ? 1 : 0]!.length === 1
}
const client = (segment: Segment): boolean => pass('>', segment)
const server = (segment: Segment): boolean => pass('<', segment)
/** State and seconds left. */
const seen = (): [string, number] | null => {
  const line = /^tcp +6 (\d+) (\w+) .*sport=2000/m.exec(ip_conntrack_text())
  return line === null ? null : [line[2]!, Number(line[1])]
}
const state = (): string | undefined => seen()?.[0]
const assured = (): boolean => ip_conntrack_text().includes('[ASSURED]')

/** A client at 1000, a server at 5000, windows of 8192 bytes. */
function handshake(): void {
  expect(client({ flags: SYN, seq: 999 })).toBe(true)
  expect(server({ flags: SYN | ACK, seq: 4999, ack: 1000 })).toBe(true)
  expect(client({ flags: ACK, seq: 1000, ack: 5000 })).toBe(true)
  expect(state()).toBe('ESTABLISHED')
}
/** With a sysctl of conntrack set to something else. */
function having(name: string, value: number, usual: number, f: () => void): void {
  expect(sysctl_write(`net.ipv4.netfilter.ip_conntrack_${name}`, value)).toBe(0)
  f()
  sysctl_write(`net.ipv4.netfilter.ip_conntrack_${name}`, usual)
}

afterEach(() => {
  ip_conntrack_flush()
})

const u32 = (n: number): number[] => [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255]
/** A transfer of tcpTransfers.ts from initial sequence numbers on. @returns how many segments were not let through, of how many */
function transfer(text: string, isn: { client: number; server: number }, options = true): [number, number] {
  const segments = text.split(';').filter(t => t.trim() !== '')
  let lost = 0
  for (const [, from, numbers, rest] of segments.map(t => /^\s*([<>])([\d ]*\d)(?:$| (\D.*))/.exec(t)!)) {
    const [flags, seq, ack, window, len] = numbers!.split(' ').map(Number) as [number, number, number, number, number]
    const [own, other] = from === '>' ? [isn.client, isn.server] : [isn.server, isn.client]
    const bytes = (rest ?? '').split(' ').flatMap(o => {
      if (o === 'p') return [4, 2]
      if (o.startsWith('w')) return [3, 3, Number(o.slice(1))]
      if (!o.startsWith('s')) return []
      const edges = o.slice(1).split(/[-,]/).map(Number)
      return [5, 2 + 4 * edges.length, ...edges.flatMap(n => u32((n + other) >>> 0))]
    })
    const known = (flags & ACK) === 0 ? 0 : ack + other
    const through = pass(from as '<', {
      ...{ flags, seq: seq + own, ack: known, window, len },
      options: options ? bytes : [],
    })
    if (!through) lost++
  }
  return [lost, segments.length]
}

test('a transfer with loss and reordering, as seen at either end: every segment belongs to it, also where numbers wrap', () => {
  for (const [text, count, isn] of [
    [AT_CLIENT, 320, { client: 2 ** 32 - 50, server: 2 ** 32 - 100_000 }],
    [AT_SERVER, 322, { client: 2 ** 31 - 50, server: 2 ** 31 - 100_000 }],
  ] as const) {
    expect(transfer(text, isn)).toEqual([0, count])
    expect(state()).toBe('TIME_WAIT')
    expect(assured()).toBe(true)
    ip_conntrack_flush()
  }
})

test('without its options the same transfer is out of its window: they are what makes it fit', () => {
  expect(transfer(AT_CLIENT.slice(0, 4000), { client: 1000, server: 70_000 }, false)[0]).toBeGreaterThan(20)
})

test('the states of a connection, and how long each stays', () => {
  expect(server({ flags: SYN | ACK, seq: 4999, ack: 1000 })).toBe(false) // it answers no SYN
  const at = (through: boolean): unknown => [through, state(), Math.ceil((seen()?.[1] ?? 0) / 10) * 10]
  expect(at(client({ flags: SYN, seq: 999 }))).toEqual([true, 'SYN_SENT', 120])
  expect(at(server({ flags: SYN | ACK, seq: 4999, ack: 1000 }))).toEqual([true, 'SYN_RECV', 60])
  expect(at(client({ flags: ACK, seq: 1000, ack: 5000 }))).toEqual([true, 'ESTABLISHED', 432_000])
  expect(assured()).toBe(true)
  expect(at(client({ flags: FIN | ACK, seq: 1000, ack: 5000 }))).toEqual([true, 'FIN_WAIT', 120])
  expect(at(server({ flags: ACK, seq: 5000, ack: 1001 }))).toEqual([true, 'CLOSE_WAIT', 60])
  expect(at(server({ flags: FIN | ACK, seq: 5000, ack: 1001 }))).toEqual([true, 'LAST_ACK', 30])
  expect(at(client({ flags: ACK, seq: 1001, ack: 5001 }))).toEqual([true, 'TIME_WAIT', 120])
})

test('data beyond the window, behind it, and acknowledgements of what was never sent are INVALID', () => {
  handshake()
  expect(client({ flags: ACK, seq: 1000, ack: 5000, len: 1000 })).toBe(true)
  expect(server({ flags: ACK, seq: 5000, ack: 2000 })).toBe(true)
  const ok = { flags: ACK, seq: 2000, ack: 5000, len: 100 }
  expect(client({ ...ok, seq: 2000 + 8192 + 1 })).toBe(false) // the server has offered 8192 bytes
  expect(client({ ...ok, ack: 5001 })).toBe(false)
  expect(client({ ...ok, seq: 2000 - 8192 - 200 })).toBe(false) // too old to be a repetition
  expect(client({ ...ok, seq: 1000 })).toBe(true)
  expect(server({ flags: ACK, seq: 5000, ack: 2000 - 66_001 })).toBe(false)
  expect(client(ok)).toBe(true)
  having('tcp_be_liberal', 1, 0, () => expect(client({ ...ok, seq: 2000 + 8192 * 3 })).toBe(true))
})

test('windows are scaled only if both ends say so', () => {
  const wide = [3, 3, 2]
  for (const [answer, through] of [
    [wide, true],
    [[], false],
  ] as const) {
    client({ flags: SYN, seq: 999, options: wide })
    server({ flags: SYN | ACK, seq: 4999, ack: 1000, options: [...answer] })
    client({ flags: ACK, seq: 1000, ack: 5000 })
    server({ flags: ACK, seq: 5000, ack: 1000 })
    expect(client({ flags: ACK, seq: 1000 + 20_000, ack: 5000, len: 1 })).toBe(through)
    ip_conntrack_flush()
  }
})

test('a reset counts by its number: one that is guessed ends nothing', () => {
  handshake()
  expect(server({ flags: RST, seq: 5000 + 100_000 })).toBe(false)
  expect(server({ flags: RST, seq: 5000 - 100_000 })).toBe(false)
  expect(state()).toBe('ESTABLISHED')
  expect([server({ flags: RST, seq: 5000 }), seen()]).toEqual([true, ['CLOSE', expect.closeTo(10, -1)]])
})

test('a refusal ends the connection at once', () => {
  expect(client({ flags: SYN, seq: 999 })).toBe(true)
  expect(server({ flags: RST | ACK, seq: 0, ack: 1001 })).toBe(false) // it refuses another SYN than this one
  expect(server({ flags: RST | ACK, seq: 0, ack: 1000 })).toBe(true)
  expect(seen()).toBe(null)
})

test('a SYN behind all that was sent opens a closed connection again, an old one does not; who closed it first may', () => {
  handshake()
  expect([server({ flags: RST, seq: 5000 }), state()]).toEqual([true, 'CLOSE'])
  expect([client({ flags: SYN, seq: 998 }), state()]).toEqual([false, 'CLOSE'])
  expect([client({ flags: SYN, seq: 2000 }), state()]).toEqual([true, 'SYN_SENT'])
  ip_conntrack_flush()
  handshake()
  expect([client({ flags: RST, seq: 1000 }), state()]).toEqual([true, 'CLOSE'])
  expect([client({ flags: SYN, seq: 5 }), state()]).toEqual([true, 'SYN_SENT'])
})

test('a SYN in the middle, and the answer that shows it was meant: the connection is forgotten, and the next SYN begins anew', () => {
  handshake()
  expect([client({ flags: SYN, seq: 90_000 }), state()]).toEqual([true, 'ESTABLISHED'])
  expect([server({ flags: SYN | ACK, seq: 50_000, ack: 90_001 }), seen()]).toEqual([false, null])
  expect([client({ flags: SYN, seq: 90_000 }), state()]).toEqual([true, 'SYN_SENT'])
})

test('picked up in the middle: three packets of each end are free, none is if that is forbidden', () => {
  having('tcp_loose', 0, 3, () => expect([client({ flags: ACK, seq: 1000, ack: 5000 }), seen()]).toEqual([false, null]))
  expect([client({ flags: ACK, seq: 1000, ack: 5000 }), state()]).toEqual([true, 'ESTABLISHED'])
  expect(assured()).toBe(false)
  expect(server({ flags: ACK, seq: 5000, ack: 1000, len: 100 })).toBe(true)
  for (let k = 0; k < 3; k++) {
    client({ flags: ACK, seq: 1000, ack: 5100 })
    server({ flags: ACK, seq: 5100, ack: 1000 })
  }
  expect(assured()).toBe(true)
  expect(client({ flags: ACK, seq: 1000 + 100_000, ack: 5100, len: 1 })).toBe(false)
  expect(client({ flags: ACK, seq: 1000, ack: 5100, len: 1 })).toBe(true)
})

test('headers that mean nothing are INVALID: flags, a length, a sum', () => {
  handshake()
  const ok = { flags: ACK, seq: 1000, ack: 5000 }
  for (const flags of [0, SYN | FIN, SYN | RST, FIN, 63, 8])
    expect([flags, client({ ...ok, flags })]).toEqual([flags, false])
  const raw = (at: number, value: number): number => {
    const way = { src: '10.0.0.2', dst: '10.0.1.2', sport: 2000, dport: 80 }
    const frame = tcpFrame({ ...way, ...ok })
    frame[34 + at] = value
    return s.send(0, frame)[1]!.length
  }
  expect([raw(12, 0x40), raw(12, 0x60), raw(16, 1)]).toEqual([0, 0, 0])
  expect(client(ok)).toBe(true)
})

test('a segment that comes again and again: the connection stays for five minutes only', () => {
  handshake()
  const again = { flags: ACK, seq: 1000, ack: 5000, len: 100 }
  client(again)
  for (let k = 0; k < 2; k++) client(again)
  expect(seen()![1]).toBeGreaterThan(400_000)
  client(again)
  expect(seen()![1]).toBeLessThanOrEqual(300)
  server({ flags: ACK, seq: 5000, ack: 1100 })
  expect(seen()![1]).toBeGreaterThan(400_000)
})

test('timeouts are sysctls', () => {
  having('tcp_timeout_syn_sent', 2, 120, () => client({ flags: SYN, seq: 999 }))
  expect(state()).toBe('SYN_SENT')
  s.pass(2500)
  expect(seen()).toBe(null)
  expect(sysctl_write('net.ipv4.netfilter.ip_conntrack_tcp_timeout_close', -1)).toBeLessThan(0)
})

test('nothing leaks', () => {
  handshake()
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
