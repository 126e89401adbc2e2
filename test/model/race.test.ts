/** The race detector, case by case as KCSAN's own test has them; docs/explore.md has the table. */
import { describe, expect, test } from 'vitest'
import {
  assertExclusiveAccess,
  assertExclusiveAccessScoped,
  assertExclusiveBits,
  assertExclusiveWriter,
  assertExclusiveWriterScoped,
  type ExploreOptions,
  explore,
  type Finding,
  lanes,
} from '../../src/explore/index.js'

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
const BROKEN_CLAIMS = [
  [
    'exclusive writer, another writes',
    /^A says at \S+:\d+ that nobody else writes i32\[0\], but B atomically writes i32\[0\]/,
  ],
  ['exclusive writer, another updates plainly', /that nobody else writes i32\[0\], but B writes i32\[0\] at/],
  ['exclusive writer, another writes one byte of several', /but B atomically writes/],
  ['exclusive writer under a lock, of one', /but B atomically writes i32\[0\] at \S+, and nothing keeps the two apart/],
  ['exclusive access, another reads', /that nobody else reads or writes i32\[0\], but B atomically reads i32\[0\]/],
  ['exclusive access, another writes', /that nobody else reads or writes i32\[0\], but B atomically writes i32\[0\]/],
  [
    'exclusive access, another says so too',
    /that nobody else reads or writes i32\[0\], while B makes a claim of its own at/,
  ],
  [
    'exclusive access, another is its writer',
    /that nobody else reads or writes i32\[0\], while B makes a claim of its own at/,
  ],
  ['exclusive bits, another changes them', /that nobody else changes its bits of i32\[0\], but B atomically writes/],
  ['exclusive writer for a while, another writes', /that nobody else writes i32\[0\], but B atomically writes/],
  ['exclusive access for a while, another reads', /that nobody else reads or writes i32\[0\], but B atomically reads/],
  ['exclusive access for a while, asked back and forth meanwhile', /but B writes i32\[0\]/],
] as const
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
  'exclusive writer, another reads',
  'exclusive writer, another writes beside it',
  'exclusive writer under a lock, of both',
  'exclusive writer, and so is another, of them none writes',
  'exclusive access, handed over',
  'exclusive bits, another changes others',
  'exclusive writer for a while, another reads',
  'exclusive access for a while, and then another',
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

describe('what an actor says that only it does', () => {
  test.each(BROKEN_CLAIMS)('%s', async (args, sentence) => {
    const { findings } = await look('scenarios/races', { args })
    expect(findings.map(f => f.detector)).toEqual(['data race'])
    expect(findings[0]!.sentence).toMatch(sentence)
    expect(findings[0]!.marked.map(n => findings[0]!.steps[n]!.actor).sort()).toEqual(['A', 'B'])
  })

  test('is broken in whatever order the two come', async () => {
    const seen = new Set<string>()
    for (const seed of [1, 2, 3, 4, 5, 6]) {
      const options = { args: 'exclusive access, another writes', strategy: 'random', seed } as const
      const { findings } = await look('scenarios/races', options)
      seen.add(findings[0]!.steps.filter(s => s.kind !== 'start').at(-1)!.actor)
    }
    expect(seen).toEqual(new Set(['A', 'B']))
  })

  test('means nothing where nothing is controlled', () => {
    const view = new Int32Array(new SharedArrayBuffer(4))
    assertExclusiveWriter(view)
    assertExclusiveAccess(view)
    assertExclusiveBits(view, 0, 1)
    assertExclusiveWriterScoped(view)()
    assertExclusiveAccessScoped(view)()
    expect(view[0]).toBe(0)
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
