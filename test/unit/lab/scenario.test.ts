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
  ])('%j -> %j', (from, to, message) => {
    expect(() => parseScenario(GOOD.replace(from, to), 'f')).toThrow(message)
  })
  test('an empty file', () => {
    expect(() => parseScenario('', 'f')).toThrow(/^f:1: hosts: /)
  })
})
