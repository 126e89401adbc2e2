/** Virtual time: the same run is the same to the last bit, whatever the host does; and what a profile must say. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { livelockMachine } from '../../src/lab/bench2544.js'
import { livelockDefaults } from '../../src/lab/config.js'
import { UsageError } from '../../src/lab/errors.js'
import { runLivelock } from '../../src/lab/livelock.js'
import { Machine } from '../../src/lab/machine.js'
import { costTable, parseProfile, readProfile } from '../../src/lab/profile.js'
import { drain, takeSample, unbalanced } from '../../src/lab/sample.js'
import type { LivelockConfig, TraceCapture } from '../../src/lab/types.js'
import { pcapOf, steadyFrames } from '../helpers/captures.js'

/** What each point of the JSON has, and nothing else. */
const POINT = 'cpu delivered_pps drops irqs latency_us offered_pps polls received_pps time_squeeze user_share'.split(
  ' ',
)
const modern = readProfile('modern')

/** One load on one machine, from power-on to a clean halt. */
async function play(
  part: Partial<LivelockConfig>,
  rate: number,
  ms: number,
): Promise<{ hash: number; handovers: number; forwarded: number; atMs: number; irqs: number }> {
  const config = { ...livelockDefaults(), profile: modern, ...part }
  const machine = new Machine(livelockMachine(config, config.rx[0]!))
  try {
    await machine.powerOn()
    const start = machine.nowMs
    await machine.source(0, { on: true, rate })
    await machine.pass(ms)
    expect(machine.nowMs - start).toBeGreaterThanOrEqual(ms)
    await machine.source(0, { on: false })
    await drain(machine)
    expect(unbalanced(machine)).toEqual([])
    const { fates, irqs } = takeSample(machine)
    const result = { ...machine.turns!, forwarded: fates.forwarded, atMs: machine.nowMs, irqs }
    await machine.halt()
    expect(await machine.audit()).toEqual([])
    return result
  } finally {
    await machine.destroy()
  }
}

test('a machine is halted in the middle of its work, and goes on', async () => {
  const config = { ...livelockDefaults(), profile: modern, cpus: 3, flows: 64 }
  const machine = new Machine({ ...livelockMachine(config, 'napi'), userSpin: false })
  try {
    await machine.powerOn()
    await machine.source(0, { on: true, rate: 2_000_000 })
    await machine.pass(3)
    await machine.halt()
    const before = takeSample(machine).fates.forwarded
    expect(before).toBeGreaterThan(1000)
    await machine.resume()
    await machine.source(0, { on: true, rate: 500_000 })
    await machine.pass(2)
    await machine.source(0, { on: false })
    await drain(machine)
    expect(unbalanced(machine)).toEqual([])
    expect(takeSample(machine).fates.forwarded).toBeGreaterThan(before + 500)
    await machine.halt()
    expect(await machine.audit()).toEqual([])
  } finally {
    await machine.destroy()
  }
})

test('a machine is halted while packets wait for their screening process: none leaks', async () => {
  const config = { ...livelockDefaults(), profile: modern, screend: 'on' as const }
  const machine = new Machine({ ...livelockMachine(config, 'polled'), userSpin: false })
  try {
    await machine.powerOn()
    await machine.source(0, { on: true, rate: 2_000_000 })
    await machine.pass(3)
    expect(takeSample(machine).fates.drops['screen_queue_full']).toBeGreaterThan(0) // so the queue is full
    await machine.halt()
    expect(await machine.audit()).toEqual([])
  } finally {
    await machine.destroy()
  }
})

test('what a machine of several CPUs died of is told, though its thread has no turn afterwards', async () => {
  const config = { ...livelockDefaults(), profile: modern, cpus: 3, flows: 64 }
  const programs = [new URL('../torture/scenarios/dies.js', import.meta.url).href]
  const machine = new Machine({ ...livelockMachine(config, 'napi'), userSpin: false, programs })
  try {
    await machine.powerOn()
    await machine.source(0, { on: true, rate: 1_000_000 })
    await machine.pass(1)
    machine.ram.i32[machine.ram.address('test_fate', 'how') >> 2] = 1
    const death = (async () => {
      for (let k = 0; k < 100; k++) await machine.pass(5)
    })()
    await expect(death).rejects.toThrow(/Kernel panic - BUG: broken invariant\nEIP is at fall_over/)
  } finally {
    await machine.destroy()
  }
})

test('the polling thread serves every queue of both devices', async () => {
  const { forwarded } = await play({ cpus: 8, rx: ['polled'], flows: 64 }, 400_000, 4)
  expect(forwarded).toBe(1600)
})

describe('the same run has the same hash', () => {
  test.each([
    [1, 'napi', 'tas', 400_000],
    [1, 'interrupt', 'ticket', 60_000],
    [2, 'softnet', 'tas', 200_000],
    [2, 'napi', 'mcs', 800_000],
    [3, 'napi', 'ticket', 500_000],
  ] as const)('%i CPUs, %s, %s', async (cpus, rx, lock, rate) => {
    const first = await play({ cpus, rx: [rx], lock, flows: 64 }, rate, 8)
    const again = await play({ cpus, rx: [rx], lock, flows: 64 }, rate, 8)
    expect(again).toEqual(first)
    expect(first.forwarded).toBeGreaterThan(50)
    expect(first.handovers > 0).toBe(cpus > 1) // one CPU and the board share a thread
    const other = await play({ cpus, rx: [rx], lock, flows: 64, arrivals: 'poisson', seed: 7 }, rate, 8)
    expect(other.hash).not.toBe(first.hash)
  })
})

test('a board that looks only now and then: the same run twice, more packets to an interrupt', async () => {
  const slow = { ...modern, board_ns: 30_000 }
  const first = await play({ profile: slow, rx: ['napi'] }, 100_000, 8)
  expect(await play({ profile: slow, rx: ['napi'] }, 100_000, 8)).toEqual(first)
  const { board_ns: _, ...rest } = modern
  const at_once = await play({ profile: rest, rx: ['napi'] }, 100_000, 8)
  expect(first.irqs).toBeLessThan(0.7 * at_once.irqs)
  expect(Math.abs(first.forwarded - 800)).toBeLessThan(10)
})

test('the whole experiment: the same JSON twice, NAPI holds and interrupts livelock', async () => {
  const config: LivelockConfig = {
    ...livelockDefaults(),
    profile: modern,
    rx: ['interrupt', 'napi'],
    rates: [50_000, 150_000, 2_000_000],
    durationMs: 30,
  }
  const first = await runLivelock(config)
  expect(await runLivelock(config)).toEqual(first)
  const [interrupt, napi] = first.series
  expect(interrupt!.points[2]!.delivered_pps).toBeLessThan(0.1 * interrupt!.points[0]!.delivered_pps)
  expect(interrupt!.points[2]!.user_share).toBeLessThan(0.02)
  expect(napi!.points[2]!.delivered_pps).toBeGreaterThan(0.9 * napi!.mlfrr_pps)
  expect(first.config).toMatchObject({ clock: 'virtual', profile: 'modern' })
})

describe('the loss-free rate', () => {
  const auto = (part: Partial<LivelockConfig>): LivelockConfig => ({
    ...livelockDefaults(),
    profile: modern,
    rx: ['interrupt'],
    durationMs: 20,
    ...part,
  })
  test('stands as the table has it, and the sweep goes to four times that', async () => {
    const seen: number[] = []
    const hooks = { progress: (done: number, total: number) => seen.push(done / total) }
    const result = await runLivelock(auto({}), hooks)
    const { mlfrr_pps, points } = result.series[0]!
    expect(points.at(-1)!.offered_pps).toBeGreaterThanOrEqual(4 * mlfrr_pps)
    expect(points[0]!.offered_pps).toBeLessThanOrEqual(0.21 * mlfrr_pps)
    const clean = points.filter(p => Object.values(p.drops).reduce((a, b) => a + b, 0) <= 0.01 * p.offered_pps * 0.02)
    expect(Math.max(...clean.map(p => p.offered_pps))).toBeLessThanOrEqual(mlfrr_pps * 1.01)
    expect(points.filter(p => p.offered_pps <= mlfrr_pps).every(p => clean.includes(p))).toBe(true)
    expect(result.host_shares).toEqual([points.map(() => 1)])
    expect(Object.keys(points[0]!).sort()).toEqual(POINT)
    expect(seen.every((share, k) => k === 0 || share >= seen[k - 1]! - 0.02)).toBe(true) // a longer search moves it back a little
    expect(Math.max(...seen.slice(1).map((share, k) => share - seen[k]!))).toBeLessThan(0.4)
    expect(seen.at(-1)).toBe(1)
  })
  test('frames that go nowhere at any rate are no loss; frames that never reach the kernel are no success', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'softnet-virtual-'))
    const write = (name: string, frames: Uint8Array[]): string => {
      writeFileSync(join(dir, name), pcapOf(frames))
      return join(dir, name)
    }
    try {
      const lost = steadyFrames().slice(0, 64)
      for (const f of lost.slice(0, 16)) f[12] = 0x99 // not IP
      const pcap = write('lost.pcap', lost)
      const { series } = await runLivelock(auto({ pcap, rates: [10_000] }))
      expect(series[0]!.mlfrr_pps).toBeGreaterThan(20_000)
      expect(series[0]!.points[0]!.drops).toHaveProperty('eth_unknown_protocol')
      const runts = auto({ pcap: write('runts.pcap', [new Uint8Array(8)]) })
      await expect(runLivelock(runts)).rejects.toThrow('interrupt: no offered load gets through without loss')
      await expect(runLivelock(auto({ pcap: write('none.pcap', []) }))).rejects.toThrow(UsageError)
      await expect(runLivelock(auto({ pcap: write('void.pcap', [new Uint8Array(0)]) }))).rejects.toThrow(UsageError)
    } finally {
      rmSync(dir, { recursive: true })
    }
  })
})

test('a trace holds what happened in its point and nothing else', async () => {
  const captures: TraceCapture[] = []
  const config = { ...livelockDefaults(), profile: modern, cpus: 2, trace: true, durationMs: 20 }
  const { series } = await runLivelock(
    { ...config, rx: ['interrupt'], rates: [20_000, 130_000] },
    { trace: c => captures.push(c) },
  )
  expect(captures.map(c => c.label)).toEqual(['interrupt, 20 kpps offered', 'interrupt, 130 kpps offered'])
  for (const [k, { fromNs, records }] of captures.entries()) {
    for (const cpu of [0, 1]) {
      const mine = records.filter(r => r.cpu === cpu)
      expect(mine[0]!.tsNs).toBe(fromNs)
      expect(mine.at(-1)!.tsNs - fromNs).toBeCloseTo(20e6, -3)
      expect(mine.every((r, i) => i === 0 || r.tsNs >= mine[i - 1]!.tsNs)).toBe(true)
      const time = (slice: string): number =>
        mine.reduce(
          (n, r) => n + (r.kind !== 'drop' && r.slice === slice ? (r.kind === 'end' ? r.tsNs : -r.tsNs) : 0),
          0,
        )
      expect(time('hardirq') / 20e6).toBeCloseTo(series[0]!.points[k]!.cpu[cpu]!.hardirq, 2)
    }
    const drops = Object.entries(series[0]!.points[k]!.drops).filter(([why]) => !why.startsWith('nic_'))
    expect(records.filter(r => r.kind === 'drop')).toHaveLength(drops.reduce((n, [, d]) => n + d, 0))
    expect(records.some(r => r.kind === 'begin' && /^spin.* \d+$/.test(r.arg))).toBe(true)
  }
})

describe('a profile says what is wrong with it', () => {
  const text = (change: (p: Record<string, unknown>) => void): string => {
    const p = structuredClone(modern) as unknown as Record<string, unknown>
    change(p)
    return JSON.stringify(p)
  }
  test.each([
    ['{', /f\.json: is no JSON/],
    [text(p => delete p['hz']), /f\.json: hz: /],
    [text(p => (p['costs'] = { ip_rcv: -1 })), /f\.json: costs\.ip_rcv: /],
    [text(p => (p['colour'] = 'red')), /f\.json: .*colour/],
  ])('%#', (json, message) => {
    expect(() => parseProfile(json, 'f.json')).toThrow(message)
  })
  test('a function without a cost, a cost without a function', () => {
    const names = Object.keys(modern.costs)
    expect(costTable(modern, names)).toEqual(Object.values(modern.costs))
    expect(() => costTable(modern, [...names, 'ip_teleport'])).toThrow("no cost for 'ip_teleport'")
    expect(() => costTable(modern, names.slice(1))).toThrow(`the kernel has no function '${names[0]}'`)
  })
})
