/** Virtual time: the same run is the same to the last bit, whatever the host does; and what a profile must say. */
import { describe, expect, test } from 'vitest'
import { livelockMachine } from '../../src/lab/bench2544.js'
import { livelockDefaults } from '../../src/lab/config.js'
import { runLivelock } from '../../src/lab/livelock.js'
import { Machine } from '../../src/lab/machine.js'
import { costTable, parseProfile, readProfile } from '../../src/lab/profile.js'
import { drain, takeSample, unbalanced } from '../../src/lab/sample.js'
import type { LivelockConfig, TraceCapture } from '../../src/lab/types.js'

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
