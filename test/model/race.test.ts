/** The race detector, case by case as KCSAN's own test has them; docs/explore.md has the table. */
import { describe, expect, test } from 'vitest'
import { type ExploreOptions, explore, type Finding, lanes } from '../../src/explore/index.js'

const look = (name: string, options: ExploreOptions) =>
  explore(new URL(`./${name}.js`, import.meta.url), { throws: false, schedules: 200, ...options })

const REPORTED = [
  'basic',
  'write and write',
  'concurrent races',
  'no value change',
  'one bit changes',
  'struct: whole and whole',
  'struct: whole and part',
  'word and byte of it',
  'half and byte',
  'DataView over two words',
  'marked write, plain read',
  'marked update, plain read',
  'plain write, marked read',
  'data_race beside another',
  'missing barrier',
  'barrier too early',
  'a lock on one side',
]
const SILENT = [
  'basic: only reads',
  'struct: parts of one',
  'bytes of one word',
  'half and other byte',
  'marked and marked',
  'marked read, plain read',
  'zero size',
  'data_race on one side',
  'data_race in a statement',
  'all atomic operations',
  'correct barrier',
  'a lock',
  'a wake-up',
  'seqlock',
]

describe('is reported', () => {
  test.each(REPORTED)('%s', async args => {
    const { findings } = await look('scenarios/races', { args })
    expect(findings.map(f => f.detector)).toEqual(['data race'])
    const [one, two] = findings[0]!.marked.map(n => findings[0]!.steps[n]!)
    expect(new Set([one!.actor, two!.actor])).toEqual(new Set(['A', 'B']))
    expect(one!.plain || two!.plain).toBe(true)
  })

  test('in every order of the two', async () => {
    for (const strategy of ['round-robin', 'random', 'pct', 'exhaustive'] as const)
      expect((await look('scenarios/races', { args: 'basic', strategy })).findings).toHaveLength(1)
  })

  test('the one that is not meant, of two on lines beside each other', async () => {
    const { findings } = await look('scenarios/races', { args: 'data_race beside another', all: true })
    expect(new Set(findings.map(f => f.steps[f.marked[0]!]!.where))).toEqual(new Set(['i32[2]']))
  })

  test('with store buffers, when it is asked for', async () => {
    const options = { args: 'basic', memory: 'tso' } as const
    expect((await look('scenarios/races', { ...options, races: true })).findings[0]?.detector).toBe('data race')
    expect((await look('scenarios/races', options)).findings).toEqual([])
  })
})

describe('is silent', () => {
  test.each(SILENT)('%s', async args => {
    expect(await look('scenarios/races', { args })).toMatchObject({ findings: [], cut: 0 })
  })
})

describe('a race behind another one', () => {
  const where = (findings: readonly Finding[]) => findings.map(f => f.steps[f.marked[0]!]!.where)

  test('ends no run without all, and with all every race is found', async () => {
    expect(where((await look('scenarios/races', { args: 'concurrent races' })).findings)).toEqual(['i32[0]'])
    const all = await look('scenarios/races', { args: 'concurrent races', all: true })
    expect(where(all.findings)).toEqual(['i32[0]', 'i32[2]'])
    expect(all.schedules).toBe(200)
  })

  test('is replayed as what it is, and says what it stands behind', async () => {
    const { findings } = await look('scenarios/races', { args: 'concurrent races', all: true })
    const [first, second] = findings as [Finding, Finding]
    expect([first.passed, second.passed]).toEqual([0, 1])
    expect(lanes(second)).toContain('behind 1 race that an earlier finding tells of')
    for (const { replay, sentence } of [first, second]) {
      const again = await look('scenarios/races', { args: 'concurrent races', replay })
      expect(again.forkedAt).toBe(-1)
      expect(again.findings[0]).toMatchObject({ sentence, replay })
    }
  })

  test('and so is anything else behind one', async () => {
    const { findings } = await look('scenarios/races', { args: 'a race before an exception', all: true })
    expect(findings.map(f => f.detector)).toEqual(['data race', 'exception'])
    const again = await look('scenarios/races', { args: 'a race before an exception', replay: findings[1]!.replay })
    expect(again.findings.map(f => f.detector)).toEqual(['exception'])
  })
})

describe('in the kernel', () => {
  test.each([
    ['jiffies', 0],
    ['once', 0],
    ['plain', 1],
  ] as const)('%s: %i', async (args, n) => {
    expect((await look('kernel/jiffies', { args, kernel: {} })).findings).toHaveLength(n)
  })
})
