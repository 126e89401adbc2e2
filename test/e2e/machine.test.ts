/** Whole machines on worker threads: floods, books, /proc, and how they die. */
import { describe, expect, test, vi } from 'vitest'
import { IMIX } from '../../src/hw/imix.js'
import type { GeneratorConfig } from '../../src/hw/types.js'
import { LIVELOCK_PORTS, livelockMachine } from '../../src/lab/bench2544.js'
import { livelockDefaults } from '../../src/lab/config.js'
import { MachinePanic, SetupError } from '../../src/lab/errors.js'
import { Machine, type MachineConfig, sleep } from '../../src/lab/machine.js'
import { type CostProfile, readProfile } from '../../src/lab/profile.js'
import { drain, takeSample, unbalanced } from '../../src/lab/sample.js'
import type { LockKind, RxArch } from '../../src/lab/types.js'

/** The router of the livelock experiment with another load. */
function router(cpus: number, rx: RxArch, lock: LockKind, load: Partial<GeneratorConfig>): MachineConfig {
  const config = livelockMachine({ ...livelockDefaults(), cpus, lock, irqCostNs: 0 }, rx)
  const source = config.ports[0]!.source as GeneratorConfig
  config.ports[0]!.source = { ...source, ...load }
  return config
}

/** Run a load to its end; the books must balance and nothing may be left. @returns the machine, halted */
async function run(
  config: MachineConfig,
  rate: number,
  ms: number | ((m: Machine) => boolean),
  after: (m: Machine) => void | Promise<void>,
  meanwhile?: (m: Machine) => Promise<void>,
): Promise<void> {
  const machine = new Machine(config)
  try {
    await machine.powerOn()
    await machine.source(0, { on: true, rate })
    await meanwhile?.(machine)
    if (typeof ms === 'number') await sleep(ms)
    else
      while (!ms(machine)) {
        machine.check()
        await sleep(10)
      }
    await machine.source(0, { on: false })
    await drain(machine)
    expect(unbalanced(machine)).toEqual([])
    await machine.halt()
    await after(machine)
    expect(await machine.audit()).toEqual([])
  } finally {
    await machine.destroy()
  }
}

describe.each(['interrupt', 'softnet', 'napi'] as const)('%s', rx => {
  test.each([
    [1, 'tas'],
    [2, 'ticket'],
    [4, 'mcs'],
  ] as const)('on %i CPUs with %s locks: a flood of broken frames between good ones', (cpus, lock) =>
    run(
      router(cpus, rx, lock, { malformed: 0.5, arrivals: 'poisson', sizes: IMIX, flows: 100, destinations: 50 }),
      60_000,
      300,
      m => {
        const { ports, fates } = takeSample(m)
        expect(ports[0]!.offered).toBeGreaterThan(5000)
        expect(fates.forwarded).toBeGreaterThan(0)
        expect(fates.drops['ip_checksum']).toBeGreaterThan(0)
        expect(fates.drops['ip_options']).toBeGreaterThan(0)
        expect(ports[1]!.reordered).toBe(0)
      },
    ),
  )
})

test('overload for long: the ring overflows, the books still balance', () =>
  run(
    router(2, 'napi', 'tas', { arrivals: 'burst', burst: { packets: 2000, peak: 10_000_000 } }),
    2_000_000,
    500,
    m => {
      const { ports } = takeSample(m)
      expect(ports[0]!.missed).toBeGreaterThan(0)
      expect(ports[1]!.reordered).toBe(0)
    },
  ))

test('/proc tells the same story as the counters', () =>
  run(router(2, 'napi', 'tas', {}), 20_000, 200, async m => {
    const { ports, fates, irqs } = takeSample(m)
    const dev = await m.proc('/proc/net/dev')
    const eth0 = dev
      .split('\n')
      .find(l => l.includes('eth0'))!
      .split(':')[1]!
      .trim()
      .split(/\s+/)
      .map(Number)
    const eth1 = dev
      .split('\n')
      .find(l => l.includes('eth1'))!
      .split(':')[1]!
      .trim()
      .split(/\s+/)
      .map(Number)
    expect(eth0[1]).toBe(ports[0]!.ring)
    expect(eth1[9]).toBe(ports[1]!.sent)
    const softnet = (await m.proc('/proc/net/softnet_stat')).trimEnd().split('\n')
    expect(softnet).toHaveLength(2)
    const total = softnet.reduce((n, l) => n + Number.parseInt(l.split(/\s+/)[0]!, 16), 0)
    expect(total).toBe(fates.received)
    const stat = await m.proc('/proc/stat')
    expect(stat).toMatch(/^cpu {2}(\d+ ){6}\d+/m)
    expect(stat).toMatch(/^cpu1 /m)
    expect(await m.proc('/proc/interrupts')).toMatch(/nic/)
    expect(irqs).toBeGreaterThan(0)
    expect(await m.proc('/proc/net/route')).toMatch(/^eth1\t00000000\t/m)
    expect(await m.proc('/proc/net/snmp')).toMatch(/^Ip: Forwarding/m)
    expect(await m.proc('/proc/slabinfo')).toMatch(/skbuff_head_cache/)
  }))

test.each(['interrupt', 'softnet', 'napi'] as const)('%s: CPUs are stopped and started under load', rx =>
  run(
    {
      ...router(4, rx, 'ticket', { flows: 64, destinations: 64 }),
      userSpin: false,
      programs: [new URL('../torture/scenarios/hotplug.js', import.meta.url).href],
    },
    40_000,
    m => m.ram.word('torture_hotplug', 'done') === 5,
    m => {
      expect(m.ram.word('torture_hotplug', 'changes')).toBe(25)
      expect(m.ram.word('torture_hotplug', 'wrong')).toBe(0)
      expect(takeSample(m).fates.forwarded).toBeGreaterThan(1000)
    },
  ),
)

test('the host stops and starts CPUs of a machine that forwards', () =>
  run(
    { ...router(3, 'napi', 'tas', { flows: 64, destinations: 64 }), userSpin: false },
    30_000,
    () => true,
    m => {
      expect(takeSample(m).fates.forwarded).toBeGreaterThan(0)
    },
    async m => {
      await m.cpuDown(2)
      expect(m.ram.i32[m.ram.map.boot.online >> 2]).toBe(0b011)
      await sleep(50)
      await expect(m.cpuDown(2)).rejects.toThrow('CPU 2 cannot be stopped')
      await expect(m.cpuDown(0)).rejects.toThrow('CPU 0 cannot be stopped')
      await m.cpuUp(2)
      expect(m.ram.i32[m.ram.map.boot.online >> 2]).toBe(0b111)
      await expect(m.cpuUp(2)).rejects.toThrow('CPU 2 cannot be started')
    },
  ))

test.each([
  ['interrupt', 2],
  ['softnet', 2],
  ['napi', 4],
  ['polled', 2],
] as const)('%s on %i CPUs: ports go down and come up again under load', (rx, cpus) =>
  run(
    {
      ...router(cpus, rx, 'ticket', { flows: 64, destinations: 64 }),
      userSpin: false,
      programs: [new URL('../torture/scenarios/updown.js', import.meta.url).href],
    },
    60_000,
    m => m.ram.word('torture_updown', 'done') === 20,
    m => {
      expect(m.ram.word('torture_updown', 'wrong')).toBe(0)
      const { ports, fates } = takeSample(m)
      expect(fates.forwarded).toBeGreaterThan(100)
      expect(ports[0]!.filtered).toBeGreaterThan(0) // it was down when they came
    },
  ),
)

describe('snapshots', () => {
  /** Offer load for a while, come to rest, halt. @returns packets forwarded since power-on */
  async function work(m: Machine): Promise<number> {
    await m.source(0, { on: true, rate: 30_000 })
    await sleep(150)
    await m.source(0, { on: false })
    await drain(m)
    await m.halt()
    expect(unbalanced(m)).toEqual([])
    return takeSample(m).fates.forwarded
  }
  test('a machine goes on after a halt, and again and again from one snapshot', async () => {
    const m = new Machine({ ...router(2, 'napi', 'ticket', {}), userSpin: true })
    try {
      await m.powerOn()
      const first = await work(m)
      expect(first).toBeGreaterThan(0)
      const snapshot = await m.snapshot()
      const uptime = await m.proc('/proc/uptime')
      for (let k = 0; k < 3; k++) {
        const from = performance.now()
        await m.resume(snapshot)
        expect(takeSample(m).fates.forwarded).toBe(first)
        expect(await work(m)).toBeGreaterThan(first)
        const passed = Number(await m.proc('/proc/uptime')) - Number(uptime)
        expect(passed).toBeGreaterThan(0)
        expect(passed).toBeLessThan((performance.now() - from) / 1000 + 0.1) // the clock goes on where it stood
      }
      await m.resume()
      expect(await work(m)).toBeGreaterThan(first)
      expect(await m.audit()).toEqual([])
    } finally {
      await m.destroy()
    }
  })
  test('restore a machine that was never powered on', async () => {
    const config = { ...router(2, 'napi', 'mcs', {}), userSpin: false }
    const m = new Machine(config)
    const other = new Machine(config)
    try {
      await m.powerOn()
      const first = await work(m)
      const snapshot = await m.snapshot()
      await other.resume(snapshot)
      expect(takeSample(other).fates.forwarded).toBe(first)
      expect(await work(other)).toBeGreaterThan(first)
      expect(await other.audit()).toEqual([])
    } finally {
      await m.destroy()
      await other.destroy()
    }
  })
  test('bring a machine back that has panicked', async () => {
    const programs = [new URL('../torture/scenarios/rests.js', import.meta.url).href]
    const m = new Machine({ ...router(2, 'napi', 'tas', {}), userSpin: false, programs })
    try {
      await m.powerOn()
      const first = await work(m)
      const snapshot = await m.snapshot()
      await m.resume()
      m.ram.i32[m.ram.address('test_trigger', 'pulled') >> 2] = 1
      await vi.waitFor(() => expect(() => m.check()).toThrow(/Kernel panic - BUG: trigger pulled/), 20_000)
      await expect(m.resume()).rejects.toThrow(/trigger pulled/)
      await m.resume(snapshot)
      expect(await work(m)).toBeGreaterThan(first)
      expect(await m.audit()).toEqual([])
    } finally {
      await m.destroy()
    }
  })
  test('not of a machine that runs, nor of another one', async () => {
    const m = new Machine(router(1, 'napi', 'tas', {}))
    try {
      await m.powerOn()
      await expect(m.snapshot()).rejects.toThrow('the machine must be halted for a snapshot')
      await m.halt()
      await expect(m.resume({ bytes: new Uint8Array(4), hash: 0 })).rejects.toThrow(
        'the snapshot is of another machine',
      )
    } finally {
      await m.destroy()
    }
  })
  test('not while a program is somewhere in the middle: it is named', async () => {
    const programs = [new URL('../torture/scenarios/dies.js', import.meta.url).href]
    const m = new Machine({ ...router(1, 'napi', 'tas', {}), userSpin: false, programs })
    try {
      await m.powerOn()
      await sleep(30)
      await m.halt()
      await expect(m.snapshot()).rejects.toThrow(/no snapshot while tasks are busy: doomed \(\d+\)/)
    } finally {
      await m.destroy()
    }
  })
})

describe('what cannot be set up is said in one line', () => {
  const route = (dst: number, gw: number): MachineConfig['routes'][number] => ({
    dst,
    prefixlen: 16,
    type: 'unicast',
    metric: 5,
    nexthops: [{ gw, dev: 'eth1', weight: 1 }],
  })
  const { receiver, sender } = LIVELOCK_PORTS
  test.each<[string, [string, unknown], (c: MachineConfig) => void]>([
    [
      'route 10.9.0.0/16 metric 5 is there already',
      ['routes', expect.any(Number)],
      c => c.routes.push(route(0x0a090000, receiver), route(0x0a090000, 0)),
    ],
    [
      'route 10.9.0.0/16 metric 5 has its gateway on no network of the device',
      ['routes', expect.any(Number)],
      c => c.routes.push(route(0x0a090000, sender)),
    ],
    [
      'address 198.18.1.1/24 of eth1 is there already',
      ['ports', 1],
      c => c.ports[1]!.addresses.push(...c.ports[1]!.addresses),
    ],
    ['interface eth1 has no room in memory', ['ports', 1], c => Object.assign(c, { skbs: 1 })],
    [
      'interface eth0 is there already, or has no room in memory',
      ['ports', 1],
      c => Object.assign(c.ports[1]!, { name: 'eth0' }),
    ],
    ['there is no interface eth7', ['neighbours', 0], c => Object.assign(c.neighbours[0]!, { dev: 'eth7' })],
  ])('%s', async (message, part, spoil) => {
    const config = router(1, 'napi', 'tas', {})
    spoil(config)
    const machine = new Machine(config)
    try {
      const refused: unknown = await machine.powerOn().catch((error: unknown) => error)
      expect(refused).toBeInstanceOf(SetupError)
      expect(refused).toMatchObject({ message: `the machine cannot be set up: ${message}`, part })
    } finally {
      await machine.destroy()
    }
  })
})

describe('a CPU that dies takes the whole machine with it, and says why', () => {
  async function die(how: number, profile: CostProfile | null = null): Promise<Error> {
    const machine = new Machine({
      ...livelockMachine({ ...livelockDefaults(), cpus: 2, profile }, 'napi'),
      programs: [new URL('../torture/scenarios/dies.js', import.meta.url).href],
    })
    try {
      await machine.powerOn()
      await machine.source(0, { on: true, rate: 50_000 })
      machine.ram.i32[machine.ram.address('test_fate', 'how') >> 2] = how
      for (let k = 0; k < 400; k++) {
        await machine.pass(5)
        machine.check()
      }
      throw new Error('it lives')
    } catch (error) {
      return error as Error
    } finally {
      await machine.destroy()
    }
  }
  test.each([
    [1, null, /Kernel panic - BUG: broken invariant/, /EIP is at fall_over/],
    [2, null, /Oops: TypeError: .*gone/, /EIP is at fall_over/],
    [1, 'modern', /Kernel panic - BUG: broken invariant/, /EIP is at fall_over/],
    [2, 'modern', /Oops: TypeError: .*gone/, /EIP is at fall_over/],
  ])('way %i, costs %s', async (how, profile, title, where) => {
    const error = await die(how, profile === null ? null : readProfile(profile))
    expect(error).toBeInstanceOf(MachinePanic)
    expect(error.message).toMatch(title)
    expect(error.message).toMatch(where)
    expect(error.message).toMatch(/CPU: 1 {2}context: system/)
    expect(error.message).toMatch(/held locks: test_fate\.lock/)
    expect(error.message).toMatch(/at doomed .*scenarios/)
  })
  test('a thread that ends by itself: RAM says where it was', async () => {
    const { message } = await die(3)
    expect(message).toMatch(/thread of CPU 1 died/)
    expect(message).toMatch(/EIP is at test_doomed of process \d+ \(doomed\)/)
    expect(message).toMatch(/CPU: 1 {2}context: system {2}preempt_count: 0x1/)
    expect(message).toMatch(/held locks: test_fate\.lock/)
  })
  test.each([
    [4, 'deaf to interrupts'],
    [5, 'deaf to everything'],
  ])(
    'a CPU that does not halt is named, and its thread ended (%i: %s)',
    async how => {
      const programs = [new URL('../torture/scenarios/dies.js', import.meta.url).href]
      const m = new Machine({
        ...livelockMachine({ ...livelockDefaults(), cpus: 2 }, 'napi'),
        userSpin: false,
        programs,
      })
      try {
        await m.powerOn()
        m.ram.i32[m.ram.address('test_fate', 'how') >> 2] = how
        await sleep(50)
        await expect(m.halt()).rejects.toThrow(
          /did not halt.*\nCPU 1\nEIP is at test_doomed of process .*\n.*\nheld locks: test_fate\.lock/,
        )
      } finally {
        await m.destroy()
      }
    },
    20_000,
  )
})
