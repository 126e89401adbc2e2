/** The campaign of bench/determinism.ts in small: the same runs in another order, beside others, are the same. */
import { expect, test } from 'vitest'
import { type RunRecord, sameRun, sameRunConfig } from '../../bench/lib/sameRun.js'

const RUNS = 12
/** Every seventh of the campaign's, so that each lock, architecture and number of CPUs comes. */
const CONFIGS = Array.from({ length: RUNS }, (_, k) => sameRunConfig(k * 7))

test('twelve machines are of many kinds', () => {
  const kinds = (of: (c: (typeof CONFIGS)[number]) => unknown): number => new Set(CONFIGS.map(of)).size
  expect(kinds(c => c.rx)).toBe(4)
  expect(kinds(c => c.config.lock)).toBe(3)
  expect(kinds(c => c.profile)).toBe(2)
  expect(kinds(c => c.config.cpus)).toBeGreaterThanOrEqual(4)
  expect(kinds(c => c.config.screend)).toBe(3)
  expect(kinds(c => c.user)).toBe(2)
})

test('one after another, and backwards two at a time: the same hashes and the same JSON', {
  timeout: 120_000,
}, async () => {
  const first: RunRecord[] = []
  for (const c of CONFIGS) first.push(await sameRun(c))
  const again: RunRecord[] = []
  const order = CONFIGS.map((_, k) => k)
  const backwards = async (): Promise<void> => {
    for (let k = order.pop(); k !== undefined; k = order.pop()) again[k] = await sameRun(CONFIGS[k]!)
  }
  await Promise.all([backwards(), backwards()])
  for (const [k, { name }] of CONFIGS.entries()) {
    expect(again[k]!.hash, name).toBe(first[k]!.hash)
    expect(again[k]!.json, name).toBe(first[k]!.json)
  }
  expect(new Set(first.map(r => r.digest)).size).toBe(RUNS)
  expect(first.every(r => r.forwarded > 20)).toBe(true)
})
