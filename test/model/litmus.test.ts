/** The 35 litmus tests of the Linux-kernel memory model: what must never be seen, and what may be. */
import { describe, expect, test } from 'vitest'
import { explore, type MemoryModel } from '../../src/explore/index.js'
import { LITMUS, type Litmus, type Outcome } from './litmus/table.js'

const MEMORIES = ['sc', 'tso', 'pso'] as const

/** All outcomes of a test, by exhaustive search. */
async function outcomesOf(litmus: Litmus, memory: MemoryModel): Promise<Outcome[]> {
  const result = await explore(new URL(`./litmus/cpus${litmus.actors.length}.js`, import.meta.url), {
    ...{ strategy: 'exhaustive', memory, races: false, throws: false },
    kernel: {},
    args: litmus.actors,
  })
  expect(result).toMatchObject({ exhausted: true, findings: [], cut: 0 })
  return Object.keys(result.outcomes).map(o => JSON.parse(o) as Outcome)
}

const matches = (outcome: Outcome, exists: Outcome): boolean =>
  Object.entries(exists).every(([key, value]) => outcome[key] === value)

test('the table is whole', () => {
  expect(LITMUS.filter(l => l.result === 'Never')).toHaveLength(23)
  expect(LITMUS.filter(l => l.result === 'Sometimes')).toHaveLength(12)
  expect(LITMUS.filter(l => l.shown.length > 0)).toHaveLength(6)
})

// A buffer for each word allows all that one for all of them does, and that all that none does.
describe.each(MEMORIES)('with memory %s', memory => {
  const tests = LITMUS.filter(l => memory === 'pso' || l.result === 'Sometimes')
  test.each(tests.map(l => [l.name, l.result, l] as const))('%s: %s', async (_name, _result, litmus) => {
    const outcomes = await outcomesOf(litmus, memory)
    expect(outcomes.length).toBeGreaterThan(0)
    expect(outcomes.some(o => matches(o, litmus.exists))).toBe(litmus.shown.includes(memory))
  })
})
