import { describe, expect, test } from 'vitest'
import { type Detector, ExploreError, type ExploreOptions, explore, type Finding } from '../../src/explore/index.js'
import { CAMPAIGN } from './replays.js'
import { apply, type Op, type Program } from './scenarios/program.js'

const scenario = (name: string): URL => new URL(`./scenarios/${name}.js`, import.meta.url)
const look = (name: string, options: ExploreOptions = {}) => explore(scenario(name), { throws: false, ...options })

/** What the exploration finds, without what the clock of the host says. */
async function finding(name: string, options: ExploreOptions = {}): Promise<Finding> {
  const { findings } = await look(name, options)
  expect(findings).toHaveLength(1)
  return findings[0]!
}

describe('a broken scenario and its sound twin', () => {
  test.each<[string, Detector, number]>([
    ['busted_lock', 'invariant', 2],
    ['lost_wakeup', 'lost wakeup', 1],
    ['abba', 'deadlock', 1],
    ['race', 'data race', 0],
    ['unheard', 'lost wakeup', 1],
    ['leftover', 'lost wakeup', 0],
    ['taken_twice', 'deadlock', 0],
  ])('%s: %s', async (name, detector, preemptions) => {
    const found = await finding(name, { schedules: 200 })
    expect(found.detector).toBe(detector)
    expect(found.preemptions).toBeLessThanOrEqual(preemptions)
    // Of the source, not of what it was compiled to.
    expect(found.steps.every(s => s.kind === 'start' || /\/scenarios\/\w+\.ts:\d+$/.test(s.site))).toBe(true)
  })

  test.each(['sound_lock', 'sound_barrier', 'async_waiters', 'deadline', 'ring'])('%s: nothing', async name => {
    const result = await look(name, { schedules: 2000 })
    expect(result.findings).toEqual([])
    expect(result).toMatchObject({ schedules: 2000, cut: 0 })
  })

  test.each([
    ['unheard', /^reader sleeps on woken .* nobody has changed it since, and nobody is left to wake it\.$/],
    ['leftover', /^waits sleeps on state .* the notify of wakes at step \d+ woke another sleeper/],
    ['spinning', /^A looks again and again at flag, last set by B \(xor at /],
    ['throws', /^A threw: no such packet \(\S*scenarios\/throws\.ts:\d+\)\.$/],
  ])('%s: says why', async (name, sentence) => {
    expect((await finding(name)).sentence).toMatch(sentence)
  })

  test('of one circle is the same, whoever closes it', async () => {
    expect((await look('abba_asleep', { all: true, schedules: 500 })).findings).toHaveLength(1)
  })

  test('tells the values that a method of a typed array wrote', async () => {
    const { steps, marked } = await finding('poison')
    expect(steps.filter(s => marked.includes(s.n) && s.kind === 'write')).toMatchObject([{ before: 42, after: 107 }])
  })

  test('is made as plain as it is worth: with no run for it, it is told as it was found', async () => {
    const [asFound, plainer] = await Promise.all(
      [0, 500].map(shrink => finding('busted_lock', { schedules: 200, shrink })),
    )
    expect(asFound).toMatchObject({ detector: 'invariant', shrunkBy: 1 })
    expect(plainer!.preemptions).toBeLessThan(asFound!.preemptions)
    expect(plainer!.steps.length).toBeLessThanOrEqual(asFound!.steps.length)
    expect((await look('busted_lock', { replay: asFound!.replay })).findings).toMatchObject([{ detector: 'invariant' }])
    await expect(look('busted_lock', { shrink: -1 })).rejects.toThrow(
      'shrink -1: must be a whole number from 0 to 1000000',
    )
  })

  test('what Node does for itself is no step', async () => {
    expect(await look('directory', { schedules: 10 })).toMatchObject({ findings: [], longest: 4 })
  })

  test('the error is the explanation', async () => {
    const error = await explore(scenario('lost_wakeup'), { schedules: 200 }).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(ExploreError)
    const text = (error as Error).message
    expect(text).toMatch(/^lost wakeup: . sleeps on condition/)
    expect(text.split('\n').length).toBeLessThanOrEqual(20)
    expect(text).toContain('replay: 1.')
  })
})

describe('a finding', () => {
  test('is the same whenever the seed is the same', async () => {
    const [one, two] = [await finding('busted_lock', { seed: 5 }), await finding('busted_lock', { seed: 5 })]
    expect(two).toEqual(one)
  })

  test('is replayed step for step', async () => {
    for (const name of ['busted_lock', 'lost_wakeup', 'abba', 'race']) {
      const found = await finding(name)
      const again = await look(name, { replay: found.replay })
      expect(again.forkedAt).toBe(-1)
      expect(again.findings[0]).toMatchObject({ detector: found.detector, steps: found.steps, replay: found.replay })
    }
  })

  test('forks where the code is no longer what it was, and says so', async () => {
    const found = await finding('busted_lock')
    const other = await look('sound_lock', { replay: found.replay })
    expect(other.forkedAt).toBeGreaterThanOrEqual(0)
    expect(other.findings).toEqual([])
  })

  test('of another cause is another one', async () => {
    const { findings } = await look('race', { all: true, schedules: 500 })
    expect(findings.map(f => f.steps[f.marked[0]!]!.where)).toEqual(['flag', 'data'])
  })
})

describe('an exhaustive search', () => {
  const words = ['load', 'store', 'add', 'cas'] as const

  /** All outcomes, by trying every order there is. */
  function everyOrder(p: Program): Set<string> {
    const seen = new Set<string>()
    const go = (memory: number[], at: number[]): void => {
      let ended = true
      for (const [a, ops] of p.actors.entries()) {
        const op = ops[at[a]!]
        if (op === undefined) continue
        ended = false
        const next = memory.slice()
        next[p.words + a * 8 + at[a]!] = apply(op, next, false)
        go(
          next,
          at.map((n, k) => (k === a ? n + 1 : n)),
        )
      }
      if (ended) seen.add(`${p.words}:${memory.join()}`)
    }
    go(
      new Array<number>(p.words + p.actors.length * 8).fill(0),
      p.actors.map(() => 0),
    )
    return seen
  }

  /** A program made of numbers, so that a failure can be read from the test's name. */
  function programOf(seed: number): Program {
    let state = seed
    const below = (n: number): number => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0
      return (state >>> 8) % n
    }
    const n = 1 + below(3)
    const op = (): Op => ({ op: words[below(4)]!, word: below(n), value: 1 + below(3), expected: below(3) })
    return { words: n, actors: [0, 1, 2].map(() => Array.from({ length: 1 + below(4) }, op)) }
  }

  test.each(Array.from({ length: 12 }, (_, k) => 77 + k * 31))(
    'sees every outcome of program %i, and no other',
    async seed => {
      const program = programOf(seed)
      const result = await look('program', { strategy: 'exhaustive', args: program })
      expect(result).toMatchObject({ exhausted: true, spun: 0, findings: [] })
      expect(Object.keys(result.outcomes).sort()).toEqual([...everyOrder(program)].sort())
    },
  )

  test('says when all is seen, and when it is not', async () => {
    expect(await look('sound_barrier', { strategy: 'exhaustive' })).toMatchObject({ exhausted: true, findings: [] })
    expect(await look('sound_lock', { strategy: 'exhaustive', schedules: 50 })).toMatchObject({ exhausted: false })
    expect((await finding('lost_wakeup', { strategy: 'exhaustive' })).detector).toBe('lost wakeup')
  })
})

/** Each scenario twice, and each run of it twice. */
describe('a seed is replayed', () => {
  test.each(CAMPAIGN.map(c => [c.name, c] as const))('%s', async (_, { scenario: url, options, schedules }) => {
    const runs = Math.ceil(schedules / 50)
    const twice = () => explore(url, { ...options, schedules: runs, seed: 9, verify: true, throws: false })
    const [one, two] = [await twice(), await twice()]
    expect(one.schedules).toBe(runs)
    expect({ ...two, seconds: 0 }).toEqual({ ...one, seconds: 0 })
  })

  test('to another hash when the seed is another', async () => {
    const of = async (seed: number) => (await look('sound_lock', { seed, schedules: 20 })).hash
    expect(await of(1)).not.toBe(await of(2))
  })

  test('and what differs only later is seen when each run is made twice', async () => {
    const options = { args: 'keeps state later', schedules: 200 }
    expect(await look('broken', options)).toMatchObject({ findings: [], schedules: 200 })
    await expect(look('broken', { ...options, verify: true })).rejects.toThrow(/two runs of one schedule differ/)
  })
})

describe('time and chance', () => {
  test('are under the seed', async () => {
    const one = await look('chance', { strategy: 'round-robin', schedules: 5, seed: 3 })
    const two = await look('chance', { strategy: 'round-robin', schedules: 5, seed: 3 })
    const other = await look('chance', { strategy: 'round-robin', schedules: 5, seed: 4 })
    expect(Object.keys(one.outcomes)).toHaveLength(1)
    expect(one.outcomes).toEqual(two.outcomes)
    expect(one.outcomes).not.toEqual(other.outcomes)
  })
})

describe('every strategy', () => {
  test.each(['random', 'pct', 'round-robin', 'exhaustive', 'mix'] as const)(
    '%s finds the lock that is none',
    async strategy => {
      expect((await finding('busted_lock', { strategy, depth: 3, schedules: 500 })).detector).toBe('invariant')
    },
  )
})

describe('a scenario that cannot be explored gets one clear line', () => {
  test.each([
    ['setup throws', {}, /broken\.js: setup failed: no memory today/],
    ['not cloneable', {}, /what setup returns cannot reach other threads/],
    ['keeps state', {}, /two runs of one schedule differ from step \d+ on/],
    ['never comes back', { hangSeconds: 1 }, /A did nothing that others can see for 1 s/],
    ['ends the process', {}, /the thread of [AB] ended/],
  ])('%s', async (args, options, message) => {
    const error = await look('broken', { args, ...options }).catch((e: unknown) => e)
    expect(error).toMatchObject({ name: 'ScenarioError' })
    expect((error as Error).message).toMatch(message)
    expect((error as Error).message).not.toContain('\n')
  })

  test.each([
    ['./scenarios/nowhere.js', /nowhere\.js does not load/],
    ['../../src/explore/words.js', /exports no 'actors'/],
  ])('%s', async (file, message) => {
    await expect(explore(new URL(file, import.meta.url))).rejects.toThrow(message)
  })

  test('a replay id that is none', async () => {
    await expect(look('abba', { replay: 'nonsense' })).rejects.toThrow(/is no replay id/)
  })
})
