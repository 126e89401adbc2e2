import { describe, expect, test } from 'vitest'
import { type ExploreOptions, explore } from '../../src/explore/index.js'
import type { FilterArgs } from './kernel/filter.js'
import type { SharedArgs } from './kernel/ipt_shared.js'
import type { ModulesArgs } from './kernel/modules.js'
import type { NeighParmsArgs } from './kernel/neigh_parms.js'
import type { PollArgs } from './kernel/poll.js'
import type { RouterArgs } from './kernel/router.js'
import type { TrackerArgs } from './kernel/tcp_tracker.js'
import type { UdpCloseArgs } from './kernel/udpclose.js'
import type { UnregisterArgs } from './kernel/unregister.js'
import type { UpDownArgs } from './kernel/updown.js'
import type { XfrmArgs } from './kernel/xfrm.js'
import type { XfrmTunnelArgs } from './kernel/xfrm_tunnel.js'

const look = (name: string, options: ExploreOptions) =>
  explore(new URL(`./kernel/${name}.js`, import.meta.url), { throws: false, hangSeconds: 60, shrink: 60, ...options })

describe.each(['tas', 'ticket', 'mcs'] as const)('%s', lock => {
  test.each([0, 1, 3])(
    'three CPUs, %i turns before a waiter sleeps: one inside at a time, all get there',
    async spins => {
      const result = await look('spinlock', { schedules: 2000, kernel: { lock }, args: { cpus: 3, spins } })
      expect(result).toMatchObject({ findings: [], cut: 0, schedules: 2000 })
    },
  )

  test.each([0, 1])('two CPUs, %i turns: every order that matters', async spins => {
    const result = await look('spinlock', { strategy: 'exhaustive', kernel: { lock }, args: { cpus: 2, spins } })
    expect(result).toMatchObject({ findings: [], exhausted: true })
  })
})

describe('a router forwards under control, from the interrupt to the wire', () => {
  const route = async (args: RouterArgs) => {
    const kernel = {}
    const result = await look('router', { schedules: 40, kernel, args, maxSteps: 50_000 })
    expect(result).toMatchObject({ findings: [], schedules: 40, cut: 0 })
    return result
  }

  test.each([
    [1, 'interrupt', 0],
    [2, 'softnet', 1],
    [2, 'NAPI', 2],
    [4, 'NAPI', 2],
  ])('%i CPUs, %s: nothing raced for, nothing lost, nothing leaked', async (cpus, _name, rx) => {
    await route({ cpus, frames: 2, rx, ticks: 2 })
  })

  test('a CPU is stopped and started while frames go through it', async () => {
    const { outcomes } = await route({ cpus: 2, frames: 2, rx: 1, ticks: 1, hotplug: true })
    expect(outcomes).toEqual({ '2 of 2 requests served': 40 })
  })
})

describe('a neighbour is asked for under control', () => {
  test.each([
    ['one CPU', { cpus: 1, frames: 2, answers: 1 }],
    ['two CPUs', { cpus: 2, frames: 3, answers: 1 }],
    ['two CPUs, and two stations answer', { cpus: 2, frames: 3, answers: 2 }],
  ])('%s: all that waited is sent, nothing raced for, nothing leaked', async (_name, args) => {
    const options = { schedules: 40, kernel: {}, maxSteps: 50_000 }
    expect(await look('arp', { ...options, args })).toMatchObject({ findings: [], schedules: 40, cut: 0 })
  })
})

describe('datagrams in pieces are put together under control', () => {
  test.each([
    ['two CPUs', { cpus: 2, datagrams: 2, twice: false }],
    ['two CPUs, each piece twice', { cpus: 2, datagrams: 1, twice: true }],
  ])('%s: each once, nothing raced for, nothing leaked', async (_name, args) => {
    const options = { schedules: 40, kernel: {}, maxSteps: 50_000 }
    expect(await look('frag', { ...options, args })).toMatchObject({ findings: [], schedules: 40, cut: 0 })
  })
})

describe('a gateway translates addresses under control', () => {
  const options = { schedules: 8, kernel: {}, maxSteps: 80_000 }
  test.each([
    ['one connection on two CPUs', [2, 2]],
    ['two that want the same port', [2, 3]],
  ])('%s: no answer is anybody else’s, nothing raced for, nothing leaked', async (_name, hosts) => {
    const asked = hosts.map((host, port) => ({ host, port }))
    const args = { asked, rules: '-A POSTROUTING -o eth2 -j MASQUERADE', ticks: 1 }
    const result = await look('nat', { ...options, args })
    expect(result).toMatchObject({ findings: [], schedules: 8, cut: 0 })
    expect(result.outcomes['1 late']).toBeGreaterThan(0)
  })
  test('its rules are replaced meanwhile: each packet goes by the old ones or by the new ones', async () => {
    const result = await look('rules', { ...options, args: { frames: 4, operator: 1, ticks: 2 } })
    expect(result).toMatchObject({ findings: [], schedules: 8, cut: 0 })
  })
})

describe('segments of a TCP connection are tracked on two CPUs under control', () => {
  const track = (args: TrackerArgs, schedules: number) =>
    look('tcp_tracker', { schedules, kernel: {}, args, spinLooks: 8, maxSteps: 50_000 })

  test.each([
    ['both ends talk and close at once', 'close', 60],
    ['one resets it while the other talks', 'reset', 100],
    ['it expires while both talk', 'expire', 80],
    ['a SYN opens it anew, twice, among late segments', 'reopen', 60],
  ] as const)('%s (%s): nothing raced for, state and numbers right, nothing leaked', async (_name, what, schedules) => {
    const result = await track({ what, ticks: 4 }, schedules)
    expect(result).toMatchObject({ findings: [], schedules, cut: 0 })
    // Where a connection is begun twice at once, who is late is dropped.
    if (what === 'expire' || what === 'reopen') expect(Object.keys(result.outcomes).join()).toMatch(/1 late/)
  })

  test('a broken twin in which each CPU has a lock of its own is caught', async () => {
    const { findings } = await track({ what: 'close', ticks: 1, twin: true }, 60)
    expect(findings[0]?.detector).toBe('data race')
  })
})

describe('matches that remember are asked on two CPUs under control', () => {
  const options = { kernel: {}, spinLooks: 8, maxSteps: 50_000 }
  test.each(['recent', 'hashlimit', 'expire', 'ulog'] as const)(
    '%s: each packet is counted once, nothing raced for, nothing leaked',
    async what => {
      const args: SharedArgs = { what, packets: 3, ticks: what === 'expire' ? 6 : 1 }
      const result = await look('ipt_shared', { ...options, schedules: 60, args })
      expect(result).toMatchObject({ findings: [], schedules: 60, cut: 0 })
      if (what === 'expire') expect(Object.keys(result.outcomes).length).toBeGreaterThan(1)
    },
  )
  test.each(['recent', 'hashlimit', 'ulog'] as const)(
    '%s: a broken twin in which each CPU has a lock of its own is caught',
    async what => {
      const args: SharedArgs = { what, packets: 3, ticks: 1, twin: true }
      const { findings } = await look('ipt_shared', { ...options, schedules: 60, args })
      expect(findings[0]?.detector).toBe('data race')
    },
  )
})

describe('an IPsec state is deleted under control while a packet uses it', () => {
  test('it stays as long as the packet holds it; the twin that does not hold it is caught', async () => {
    const options = { schedules: 40, kernel: {} }
    const sound = await look('xfrm_ref', { ...options, args: { hold: true } })
    expect(sound).toMatchObject({ findings: [], schedules: 40, cut: 0 })
    const twin = await look('xfrm_ref', { ...options, args: { hold: false } })
    expect(twin.findings).toMatchObject([{ detector: 'use after free' }])
  })
})

describe('two processes talk over loopback under control', () => {
  test.each([
    ['on one CPU', 0],
    ['on two', 1],
  ])('%s: what was sent comes back, nothing raced for, nothing leaked', async (_name, client) => {
    const args = { datagrams: 2, ticks: 2, client }
    const result = await look('udp', {
      schedules: 40,
      kernel: {},
      args,
      maxSteps: 50_000,
    })
    expect(result).toMatchObject({ findings: [], schedules: 40, cut: 0, outcomes: { '2 came back': 40 } })
  })
})

describe('routes change and next hops die and revive while packets go through two CPUs', () => {
  test.each([0, 1])('by CPU %i: nothing raced for, nothing lost without a reason, nothing leaked', async operator => {
    const args = { frames: 3, operator, ticks: 2 }
    const kernel = {}
    const result = await look('changes', { schedules: 40, kernel, args, maxSteps: 50_000 })
    expect(result).toMatchObject({ findings: [], schedules: 40, cut: 0, outcomes: { changed: 40 } })
  })
})

test('two programs write to a full console under control: no line is torn or lost, nobody sleeps for ever', async () => {
  const options = { schedules: 300, kernel: {}, maxSteps: 50_000 }
  expect(await look('console', options)).toMatchObject({ findings: [], schedules: 300, cut: 0 })
})

test('a raw socket is closed while packets and errors come, under control: nothing raced for, nothing leaked', async () => {
  const options = { schedules: 60, kernel: {}, args: { looks: 12 }, maxSteps: 50_000 }
  const result = await look('raw', options)
  expect(result).toMatchObject({ findings: [], schedules: 60, cut: 0 })
  expect(Object.keys(result.outcomes).sort()).toEqual(['no packets', 'some packets'])
})

describe('two processes change routes by netlink and hear of each other', () => {
  test.each([
    ['on one CPU', 0],
    ['on two', 1],
  ])('%s: each request is whole, nothing raced for, nothing leaked', async (_name, second) => {
    const args = { routes: 2, ticks: 2, second }
    const kernel = {}
    const result = await look('netlink', { schedules: 40, kernel, args, maxSteps: 50_000 })
    expect(result).toMatchObject({ findings: [], schedules: 40, cut: 0, outcomes: { '8 heard': 40 } })
  })
})

describe('poll and select wait for two sockets under control', () => {
  const options = { kernel: {}, maxSteps: 50_000 }

  test.each(['poll', 'select'] as const)('%s: no wake-up is lost', async call => {
    const args: PollArgs = { call, datagrams: 8, ticks: 1 }
    expect(await look('poll', { ...options, schedules: 40, args })).toMatchObject({
      findings: [],
      schedules: 40,
      cut: 0,
    })
  })

  test.each([
    ['is about to sleep only after it has looked', 'state'],
    ['looks before it is on the queue', 'queue'],
  ] as const)('a broken twin that %s sleeps for ever', async (_name, twin) => {
    const args: PollArgs = { call: 'poll', datagrams: 8, ticks: 1, twin }
    const { findings } = await look('poll', { ...options, schedules: 40, args })
    expect(['deadlock', 'lost wakeup', 'stall']).toContain(findings[0]?.detector)
  })
})

test.each([
  ['reads on until it is told', false],
  ['closes while packets come', true],
])('a packet socket whose device goes down %s: woken, nothing raced for, nothing leaked', async (_name, hasty) => {
  const args = { datagrams: 1, ticks: 2, hasty }
  const options = { schedules: 40, kernel: {}, args, maxSteps: 80_000 }
  expect(await look('packet', options)).toMatchObject({ findings: [], schedules: 40, cut: 0 })
})

test.each(['sigsuspend', 'recv'])('a signal comes while a process is about to sleep in %s: never lost', async call => {
  const args = { call, signals: 3, ticks: 1 }
  const options = { schedules: 80, kernel: {}, args, maxSteps: 50_000 }
  const result = await look('signal', options)
  expect(result).toMatchObject({ findings: [], schedules: 80, cut: 0, outcomes: { '3 seen': 80 } })
})

test('processes are made more and less urgent by another CPU while they run and sleep: none is lost', async () => {
  const options = { schedules: 60, kernel: {}, maxSteps: 50_000, spinLooks: 8 }
  const result = await look('nice', { ...options, args: { rounds: 3, ticks: 3 } })
  expect(result).toMatchObject({ findings: [], schedules: 60, cut: 0 })
})

describe('what is taken away while it is used', () => {
  // A loop that reads the same word eight times may wait for it; the kernel's own say so by cpu_relax().
  const options = { schedules: 40, kernel: {}, maxSteps: 50_000, spinLooks: 8 }
  const clean = { findings: [], schedules: 40, cut: 0 }

  test.each([0, 1])('a device goes down and up under routes and a connected socket, by CPU %i', async operator => {
    const args: UpDownArgs = { frames: 3, datagrams: 2, operator, ticks: 2 }
    expect(await look('updown', { ...options, args })).toMatchObject(clean)
  })

  test.each([0, 1])(
    'modules are unloaded while packets are in their hooks and in the queue, by CPU %i',
    async operator => {
      const args: ModulesArgs = { frames: 3, rounds: 2, operator, ticks: 2 }
      expect(await look('modules', { ...options, args })).toMatchObject(clean)
    },
  )

  test.each([
    ['the state of a tunnel is deleted', 'delete', 0, false],
    ['the state of a tunnel is deleted', 'delete', 1, false],
    ['its policy is replaced', 'replace', 0, false],
    ['its policy is replaced', 'replace', 1, false],
    ['the state of a tunnel that compresses is deleted', 'delete', 1, true],
  ] as const)('%s under packets that go through it (%s, by CPU %i)', async (_name, what, operator, comp) => {
    const args: XfrmArgs = { frames: 3, what, operator, ticks: 2, comp }
    const result = await look('xfrm', { ...options, args })
    expect(result).toMatchObject(clean)
    expect(result.outcomes[`${what}: 3 of 3`]).toBeGreaterThan(0)
  })

  test.each([0, 1])(
    'a device goes for good, and the socket that sends over it does not hold it, by CPU %i',
    async operator => {
      // By chance alone: where an actor may be kept from its turn for long, one that waits for the hardware can go on for ever.
      const args: UnregisterArgs = { datagrams: 20, operator }
      const result = await look('unregister', { ...options, schedules: 20, strategy: 'random', args })
      expect(result).toMatchObject({ ...clean, schedules: 20 })
      expect(Object.keys(result.outcomes).length).toBeGreaterThan(1)
    },
  )

  test('a device loses its IPv4 side while neighbours go by its parameters', async () => {
    const args: NeighParmsArgs = { rounds: 2 }
    const result = await look('neigh_parms', { ...options, strategy: 'random', args })
    expect(result).toMatchObject(clean)
    expect(Object.keys(result.outcomes)).toContain('made, none refused')
  })
  test('a broken twin that keeps the parameters of an entry it has let go is caught', async () => {
    const args: NeighParmsArgs = { rounds: 2, twin: true }
    const { findings } = await look('neigh_parms', { ...options, strategy: 'random', args })
    expect(findings).toMatchObject([{ detector: 'use after free' }])
  })

  test('a state of IPsec is deleted while an SPI is promised to it: nobody finds what is gone', async () => {
    const result = await look('xfrm_spi', { ...options, schedules: 80 })
    expect(result).toMatchObject({ ...clean, schedules: 80 })
    expect(Object.keys(result.outcomes).sort()).toEqual(['gone', 'promised'])
  })

  test.each([
    ['comes', ['a new one', 'the old one']],
    ['goes', ['none']],
  ] as const)(
    'a state of IPComp goes while another %s: its tunnel state serves who is there',
    async (second, outcomes) => {
      const args: XfrmTunnelArgs = { second }
      const result = await look('xfrm_tunnel', { ...options, schedules: 200, args })
      expect(result).toMatchObject({ ...clean, schedules: 200 })
      expect(Object.keys(result.outcomes).sort()).toEqual(outcomes)
    },
  )
  test('a broken twin that counts behind the lock is left with a tunnel state that is gone', async () => {
    const args: XfrmTunnelArgs = { second: 'comes', twin: true }
    const { findings } = await look('xfrm_tunnel', { ...options, schedules: 200, args })
    expect(findings[0]?.sentence).toMatch(/tunnel state|uses/)
  })

  test('a policy of IPsec is replaced: at no moment is there none', async () => {
    expect(await look('xfrm_replace', { ...options, schedules: 200 })).toMatchObject({ ...clean, schedules: 200 })
  })

  test('a socket is closed while datagrams are delivered to it, and the sender hears of a full device queue', async () => {
    const args: UdpCloseArgs = { datagrams: 8, rounds: 6, ticks: 2 }
    const result = await look('udpclose', { ...options, args })
    expect(result).toMatchObject(clean)
    expect(result.outcomes['heard of a full queue']).toBeGreaterThan(0)
  })

  test('filters of a socket come and go while packets run through them', async () => {
    const args: FilterArgs = { datagrams: 6, rounds: 4, ticks: 2 }
    const result = await look('filter', { ...options, args })
    expect(result).toMatchObject(clean)
    expect(result.outcomes['a filter cut']).toBeGreaterThan(0)
  })
  test('a broken twin that does not keep a filter from going is caught', async () => {
    const args: FilterArgs = { datagrams: 6, rounds: 4, ticks: 2, twin: true }
    const { findings } = await look('filter', { ...options, args })
    expect(['data race', 'use after free']).toContain(findings[0]?.detector)
  })
})
