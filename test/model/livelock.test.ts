/** Runs that get nowhere although everybody goes on; and long ones that do get somewhere. */
import { describe, expect, test } from 'vitest'
import { type ExploreOptions, explore, lanes } from '../../src/explore/index.js'

const look = (name: string, options: ExploreOptions) =>
  explore(new URL(`./scenarios/${name}.js`, import.meta.url), { throws: false, schedules: 60, ...options })

describe('two that give way to each other', () => {
  test.each([1, 3])('for ever, %i times in a row: a livelock, and who undoes whose work', async rounds => {
    const { findings, cut } = await look('back_off', { args: { tie: 'none', rounds } })
    expect(findings.map(f => f.detector)).toEqual(['livelock'])
    expect(cut).toBe(0)
    const { sentence, steps } = findings[0]!
    expect(sentence).toMatch(/^turn by turn A and B have done the same 8 steps \d+ times, and none of them has come/)
    expect(sentence).toMatch(/A goes back when it sees flag\[1\] = 1 at \S+back_off.ts:\d+, set by B at \S+/)
    expect(sentence).toMatch(/B goes back when it sees flag\[0\] = 1 at \S+back_off.ts:\d+, set by A at \S+/)
    expect(sentence).toMatch(/alone, [AB] goes on at once\.$/)
    expect(steps).toHaveLength(8)
    expect(lanes(findings[0]!).split('\n').length).toBeLessThanOrEqual(20)
  })

  test('with more plain accesses than there is room for', async () => {
    const { findings } = await look('back_off', { args: { tie: 'none', rounds: 1, noise: 100 } })
    expect(findings.map(f => f.detector)).toEqual(['livelock'])
  })

  test('is replayed from a short text', async () => {
    const args = { tie: 'none', rounds: 1 }
    const found = (await look('back_off', { args })).findings[0]!
    expect(found.replay.length).toBeLessThan(40)
    const again = await look('back_off', { args, replay: found.replay })
    expect(again.forkedAt).toBe(-1)
    expect(again.findings[0]).toMatchObject({ detector: 'livelock', sentence: found.sentence, steps: found.steps })
  })

  test.each([1, 300])('one of them does not, %i times in a row: nothing', async rounds => {
    const result = await look('back_off', { args: { tie: 'breaker', rounds } })
    expect(result).toMatchObject({ findings: [], cut: 0, schedules: 60 })
    // With 300 of them a run is long enough to be looked at.
    if (rounds === 300) expect(result.longest).toBeGreaterThan(2000)
  })
})

describe('who counts how often it has looked in vain', () => {
  test('looks for ever: a stall', async () => {
    const { findings } = await look('long_loops', { args: { how: 'for ever' } })
    expect(findings.map(f => f.detector)).toEqual(['stall'])
    expect(findings[0]!.sentence).toMatch(
      /^B looks again and again at flag at \S+long_loops.ts:\d+, and counts count; after/,
    )
  })

  test('and so do both', async () => {
    const { findings } = await look('long_loops', { args: { how: 'for ever, each' } })
    expect(findings.map(f => f.detector)).toEqual(['stall'])
    expect(findings[0]!.sentence).toMatch(/^A looks .*; B looks /)
  })

  test.each(['locked', 'ping pong', 'counted', 'deadline'])('is silent of a loop that ends: %s', async how => {
    const result = await look('long_loops', { args: { how } })
    expect(result.findings).toEqual([])
    expect(result.longest).toBeGreaterThan(2000)
  })
})
