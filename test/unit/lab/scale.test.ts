/** Scaling: when a point counts as steady, and how one that is not is shown. */
import { expect, test } from 'vitest'
import { readProfile } from '../../../src/lab/profile.js'
import { scaleReport } from '../../../src/lab/report/scale.js'
import { isSteady, runScale } from '../../../src/lab/scale.js'
import type { ScalePoint, ScaleResult } from '../../../src/lab/types.js'

test.each([
  [[10_000, 10_000], true],
  [[10_000, 9_000], true],
  [[9_000, 10_001], false],
  [[0, 0], false], // nothing came out at all
  [[237, 237], false], // a transmit ring each: by chance
] as const)('halves of %j packets', (halves, steady) => {
  expect(isSteady(halves)).toBe(steady)
})

test('a point that is not steady is marked in the table, with what its halves delivered', () => {
  const point: ScalePoint = {
    variant: 'base',
    cpus: 2,
    delivered_pps: 1_500_000,
    window_ms: 64,
    halves_pps: [1_000_000, 2_000_000],
    steady: false,
    cycles_per_packet: 1000,
    drops: { qdisc_full: 7, nic_ring_full: 70 },
    functions: [],
    locks: [],
    hash: '00000000',
  }
  const result: ScaleResult = {
    schema: 'softnet.scale/1',
    profile: 'modern',
    hz: 2.6e9,
    seed: 1,
    duration_ms: 4,
    points: [{ ...point, cpus: 1, steady: true, delivered_pps: 2_000_000 }, point],
  }
  const text = scaleReport(result)
  expect(text).toMatch(/base +2000 +1500\*/)
  expect(text).toContain('* not steady; by halves of its time, base on 2: 1000 and 2000 in 64 ms')
  expect(text).toContain('dropped: nic_ring_full 70, qdisc_full 7')
})

test('a point is made longer until enough came out; the contended lock is the queue lock', async () => {
  const options = { profile: readProfile('modern'), seed: 1, durationMs: 1, parallel: 1 }
  const { points } = await runScale({ ...options, variants: ['base'], cpus: [2, 6] })
  const slow = await runScale({ ...options, variants: ['cache-miss'], cpus: [1] })
  expect(slow.points[0]!.window_ms).toBeGreaterThan(1)
  for (const p of [...points, ...slow.points]) {
    expect(p.steady).toBe(true)
    expect(Math.min(...p.halves_pps) * p.window_ms).toBeGreaterThanOrEqual(2 * 1000 * 1000 * 0.99)
    expect(p.halves_pps[0] + p.halves_pps[1]).toBeCloseTo(2 * p.delivered_pps, -1)
  }
  const [two, six] = points
  expect(six!.locks[0]!.lock).toBe('net_device.queue_lock')
  const wait = (p: ScalePoint): number => p.locks[0]!.wait_cycles / p.locks[0]!.acquisitions
  expect(wait(six!)).toBeGreaterThan(3 * wait(two!))
})
