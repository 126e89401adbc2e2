/** Scenario files: what is in them, and what is wrong with them, by line and field. */
import { describe, expect, test } from 'vitest'
import { argvOf, linkModel, parseScenario } from '../../../src/lab/scenario/schema.js'

const GOOD = `name: two
seed: 3
duration: 1.5s
hosts:
  a:
    interfaces:
      eth0: { link: ab, address: 10.0.0.1/24 }
    gateway: 10.0.0.2
    programs:
      - ping -c 1 10.0.0.2
      - { run: [echo, two words], at: 20ms, expect: 1, background: true }
  b:
    cpus: 2
    forward: true
    interfaces:
      eth0:
        link: ab
        address: [10.0.0.2/24, 10.0.1.2/24]
        mtu: 600
links:
  ab: { rate: 10M, delay: 2ms, loss: 1%, queue: 20 }
events:
  - { at: 1s, link: ab, state: down }
`

test('a good one', () => {
  const s = parseScenario(GOOD, 'f')
  expect(s.hosts.b!.interfaces.eth0!.address.map(a => a.prefixlen)).toEqual([24, 24])
  expect(s.hosts.a!.programs!.map(argvOf)).toEqual([
    ['ping', '-c', '1', '10.0.0.2'],
    ['echo', 'two words'],
  ])
  expect(s.hosts.a!.programs![1]).toMatchObject({ at: 20e6, expect: 1, background: true })
  expect(linkModel(s.links!.ab)).toMatchObject({ rate: 10e6, delay: 2e6, loss: 0.01, queue: 20, jitter: 0 })
  expect([s.duration, s.events![0]!.at]).toEqual([1.5e9, 1e9])
})

test('YAML takes a rate without a unit for a number', () => {
  const { links } = parseScenario(GOOD.replace('rate: 10M', 'rate: 10000000'), 'f')
  expect(linkModel(links!.ab).rate).toBe(10e6)
})

test('a sysctl is a number, or several of one', () => {
  const sysctl = { 'net.ipv4.ip_default_ttl': 9, 'net.ipv4.ip_local_port_range': [5000, 6000] }
  const with_sysctl = (value: unknown): string =>
    GOOD.replace('    gateway:', `    sysctl: ${JSON.stringify(value)}\n    gateway:`)
  expect(parseScenario(with_sysctl(sysctl), 'f').hosts.a!.sysctl).toEqual(sysctl)
  for (const bad of [[], ['x'], 'x', 1.5]) expect(() => parseScenario(with_sysctl({ y: bad }), 'f')).toThrow(/sysctl/)
})

test('what is said beside the file goes before it, and is what its fields are held against', () => {
  const text =
    'clock: virtual\nhosts: { a: { interfaces: { e: { tap: t, address: 10.0.0.1/24 } }, programs: [{ run: x, cpu: 1 }] } }'
  expect(() => parseScenario(text, 'f')).toThrow(/a TAP device needs clock: real/)
  expect(() => parseScenario(text, 'f', { clock: 'real' })).toThrow(/host a has no CPU 1/)
  const spec = parseScenario(text, 'f', { clock: 'real', cpus: 2, seed: 7, profile: 'p' })
  expect(spec).toMatchObject({ clock: 'real', seed: 7, profile: 'p', hosts: { a: { cpus: 2 } } })
})

describe('what is wrong is said with its line', () => {
  test.each([
    ['seed: 3', 'seed: x', /^f:2: seed: /],
    ['seed: 3', 'speed: 3', /^f:\d+: .*speed/],
    [
      '10.0.0.1/24',
      '10.0.0.300/24',
      /^f:7: hosts\.a\.interfaces\.eth0\.address: '10\.0\.0\.300' is not an IPv4 address$/,
    ],
    ['10.0.0.1/24', '10.0.0.1', /needs a prefix length/],
    ['link: ab, address', 'link: ac, address', /^f:7: hosts\.a\.interfaces\.eth0\.link: there is no link 'ac'/],
    ['link: ab, address', 'address', /^f:7: hosts\.a\.interfaces\.eth0: needs a link, or a tap$/],
    ['link: ab, address', 'tap: tap0, address', /a TAP device needs clock: real/],
    ['at: 20ms', 'at: 20', /^f:11: hosts\.a\.programs\.1\.at: /],
    ['at: 20ms', 'at: soon', /'soon' is not a time such as 20ms/],
    ['at: 20ms', 'cpu: 1', /^f:11: hosts\.a\.programs\.1\.cpu: host a has no CPU 1$/],
    ['loss: 1%', 'loss: 101%', /^f:21: links\.ab\.loss: '101%' is not a share/],
    ['rate: 10M', 'rate: 1', /links\.ab\.rate/],
    ['mtu: 600', 'mtu: 60', /^f:19: hosts\.b\.interfaces\.eth0\.mtu: /],
    ['cpus: 2', 'cpus: 40', /^f:13: hosts\.b\.cpus: /],
    ['link: ab, state', 'link: cd, state', /^f:23: events\.0\.link: there is no link 'cd'$/],
    ['forward: true', 'forward: perhaps', /^f:14: hosts\.b\.forward: /],
    ['hosts:', 'hosts: [', /^f:\d+: /],
    ['links:\n  ab:', 'links:\n  cd: {}\n  ab:', /^f:\d+: links\.cd: has no interface at its ends/],
    ['forward: true', 'forwards: true', /^f:14: hosts\.b\.forwards: there is no such field$/],
    ['mtu: 600', 'mut: 600', /^f:19: hosts\.b\.interfaces\.eth0\.mut: there is no such field$/],
    ['  b:\n', '  b c:\n', /^f:12: hosts\.b c: is no name of a host$/],
    ['  b:\n', '  __proto__:\n', /^f:12: __proto__ cannot be a name$/],
    ['cpus: 2', 'cpus: *two', /^f:13: there is no anchor &two$/],
    ['cpus: 2', 'cpus: !two 2', /^f:13: Unresolved tag: !two$/],
    ['seed: 3', '---\nseed: 3', /^f:\d+: there is more than one document$/],
    ['duration: 1.5s', 'duration: 1000000min', /^f:3: duration: '1000000min' is longer than 100 days$/],
    ['duration: 1.5s', 'duration: 20ms', /^f:11: hosts\.a\.programs\.1\.at: the scenario ends before/],
    ['duration: 1.5s', 'duration: 1s', /^f:\d+: events\.0\.at: the scenario ends before/],
    ['duration: 1.5s', 'duration: 5', /^f:3: duration: '5' is not a time such as 20ms/],
    ['rate: 10M', 'rate: 99999G', /links\.ab\.rate: '99999G' is not a rate/],
    ['at: 20ms', 'uid: 4294967296', /^f:11: hosts\.a\.programs\.1\.uid: /],
    ['two words', '"two\\0words"', /^f:11: hosts\.a\.programs\.1\.run\.1: has a zero byte in it$/],
    ['mtu: 600', 'capture: "-"', /^f:19: .*capture: a capture goes to a file, not to standard output$/],
    [
      '      - ping -c 1 10.0.0.2\n',
      '      - named\n'.repeat(64),
      /^f:9: hosts\.a\.programs: a host starts at most 64 programs$/,
    ],
    [
      'gateway: 10.0.0.2',
      'routes: [{ to: 10.1.0.0/16, dev: constructor }]',
      /^f:8: .*host a has no interface 'constructor'$/,
    ],
  ])('%j -> %j', (from, to, message) => {
    expect(() => parseScenario(GOOD.replace(from, to), 'f')).toThrow(message)
  })
  test('aliases that stand for more and more', () => {
    const ten = (of: string) => `[${Array(10).fill(of).join(', ')}]`
    const text = `a: &a ${ten('x')}\nb: &b ${ten('*a')}\nc: &c ${ten('*b')}\nhosts: ${ten('*c')}`
    expect(() => parseScenario(text, 'f')).toThrow(/^f:1: its aliases stand for more than there is room for$/)
  })
  test('a place behind an alias', () => {
    const text = 'hosts:\n  a: &a\n    cpus: 1\n    forwards: true\n  b: *a'
    expect(() => parseScenario(text, 'f')).toThrow(/^f:4: hosts\.a\.forwards: there is no such field$/)
    const bad = 'x: 1\nhosts:\n  b: *x'
    expect(() => parseScenario(bad, 'f')).toThrow(/^f:3: there is no anchor &x$/)
  })
  test('a capture or a TAP device that two interfaces have', () => {
    const two = (a: string) =>
      `clock: real\nhosts:\n  a:\n    interfaces:\n      e0: { tap: t0, address: 10.0.0.1/24, capture: x }\n      e1: { address: 10.0.1.1/24, ${a} }`
    expect(() => parseScenario(two('tap: t0'), 'f')).toThrow(/^f:6: hosts\.a\.interfaces\.e1\.tap: t0 is there twice$/)
    expect(() => parseScenario(two('tap: t1, capture: x'), 'f')).toThrow(
      /^f:6: hosts\.a\.interfaces\.e1\.capture: x is written by another one, too$/,
    )
  })
  test('an empty file', () => {
    expect(() => parseScenario('', 'f')).toThrow(/^f:1: hosts: /)
  })
})
