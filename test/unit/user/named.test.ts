/** The name server and its client: messages on the wire as RFC 1035 has them, byte by byte. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { exec } from '../../../src/syscall/exec.js'
import { sh } from '../../helpers/console.js'
import { parse, udpFrame } from '../../helpers/frames.js'
import { Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [{ addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] }],
  neighbours: [{ address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } }],
  config: { loopback: 1, user_procs: 4 },
})
const many = Array.from({ length: 40 }, (_, k) => `many.lab=10.5.0.${k}`)
exec(['named', 'Gate.lab=10.0.0.1', 'www.lab=10.0.0.7', 'www.lab=10.0.0.8', ...many])
s.pass(1)

const name = (text: string): number[] => [
  ...text.split('.').flatMap(l => [l.length, ...[...l].map(c => c.charCodeAt(0))]),
  0,
]
const query = (qname: number[], type: number, o: { flags?: number; cls?: number; extra?: number[] } = {}): number[] => [
  ...[0xab, 0xcd, (o.flags ?? 0x0100) >> 8, (o.flags ?? 0x0100) & 255, 0, 1, 0, 0, 0, 0, 0, o.extra ? 1 : 0],
  ...[...qname, 0, type, 0, o.cls ?? 1],
  ...(o.extra ?? []),
]
/** What the server sends back to these bytes; null: nothing. */
function ask(bytes: number[]): number[] | null {
  s.out()
  const frames = s.send(0, udpFrame({ src: '10.0.0.2', dst: '10.0.0.1', sport: 4000, dport: 53 }, bytes))[0]!
  s.pass(1)
  const all = [...frames, ...s.out()[0]!]
  return all.length === 0 ? null : [...parse(all[0]!).payload.slice(8)]
}

describe('named', () => {
  test('an A question: authoritative, the question as it was asked, each address', () => {
    const q = name('wWw.LAB')
    const rr = (host: number): number[] => [0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 10, 0, 0, host]
    expect(ask(query(q, 1))).toEqual([
      ...[0xab, 0xcd, 0x85, 0x00, 0, 1, 0, 2, 0, 0, 0, 0],
      ...[...q, 0, 1, 0, 1],
      ...rr(7),
      ...rr(8),
    ])
  })
  test('the options that dig adds (EDNS) do no harm', () => {
    const got = ask(query(name('gate.lab'), 1, { flags: 0x0120, extra: [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0] }))!
    expect(got.slice(0, 12)).toEqual([0xab, 0xcd, 0x85, 0, 0, 1, 0, 1, 0, 0, 0, 0])
    expect(got.slice(-4)).toEqual([10, 0, 0, 1])
  })
  test('an address the other way round', () => {
    const got = ask(query(name('7.0.0.10.in-addr.arpa'), 12))!
    expect(got.slice(-9)).toEqual(name('www.lab'))
  })
  test.each<[string, number[], number, number]>([
    ['a name that is not known', query(name('no.lab'), 1), 0x8503, 0],
    ['a known name, another type', query(name('gate.lab'), 28), 0x8500, 0],
    ['a class that is not the Internet', query(name('gate.lab'), 1, { cls: 3 }), 0x8105, 0],
    ['another operation', query(name('gate.lab'), 1, { flags: 0x1000 }), 0x9004, 0],
    [
      'two questions',
      [...query(name('gate.lab'), 1).slice(0, 5), 2, ...query(name('gate.lab'), 1).slice(6)],
      0x8101,
      0,
    ],
    ['a name that is cut', query(name('gate.lab'), 1).slice(0, 16), 0x8101, 0],
    ['a pointer to itself', query([0xc0, 12], 1), 0x8101, 0],
    ['any record', query(name('www.lab'), 255), 0x8500, 2],
  ])('%s', (_what, bytes, flags, answers) => {
    const got = ask(bytes)!
    expect([(got[2]! << 8) | got[3]!, (got[6]! << 8) | got[7]!]).toEqual([flags, answers])
  })
  test('more than fits is cut, and says so', () => {
    const got = ask(query(name('many.lab'), 1))!
    expect(got.length).toBeLessThanOrEqual(512)
    expect(got[2]! & 2).toBe(2)
    expect(got[7]).toBe(Math.floor((512 - 12 - name('many.lab').length - 4) / 16))
  })
  test('an answer, or less than a header, is not answered', () => {
    expect(ask(query(name('gate.lab'), 1, { flags: 0x8000 }))).toBeNull()
    expect(ask([1, 2, 3])).toBeNull()
  })
})

describe('host', () => {
  test('asks, and says what it hears', () => {
    const said = sh(s, 'host www.lab 127.0.0.1')
    expect([said.code, said.out]).toEqual([0, 'www.lab has address 10.0.0.7\nwww.lab has address 10.0.0.8\n'])
    expect(sh(s, 'host 10.0.0.1 127.0.0.1').out).toBe('1.0.0.10.in-addr.arpa domain name pointer gate.lab.\n')
    const none = sh(s, 'host nope.lab 127.0.0.1')
    expect([none.code, none.out]).toEqual([1, 'Host nope.lab not found: 3(NXDOMAIN)\n'])
  })
  test('nobody there, wrong usage', () => {
    let asked = 0
    const silent = (): Uint8Array[] => {
      asked++
      return []
    }
    const dead = sh(s, 'host -W 0.05 -R 3 www.lab 10.0.0.2', {}, 1000, silent)
    expect([dead.code, dead.out]).toEqual([1, ';; connection timed out; no servers could be reached at 10.0.0.2\n'])
    expect(asked).toBe(3)
    for (const line of ['host', 'host x', 'host x y', `host ${'x'.repeat(64)} 127.0.0.1`])
      expect(sh(s, line).code).toBe(2)
    for (const line of ['named', 'named x', 'named x=y', 'named -p 0 a=1.2.3.4']) expect(sh(s, line).code).toBe(2)
    expect(sh(s, 'named a=1.2.3.4').err).toBe('named: Address already in use\n')
  })
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
