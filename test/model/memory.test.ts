import { describe, expect, test } from 'vitest'
import { type ExploreOptions, explore, type MemoryModel } from '../../src/explore/index.js'
import type { Op, Program } from './scenarios/buffered.js'

const look = (name: string, options: ExploreOptions = {}) =>
  explore(new URL(`./scenarios/${name}.js`, import.meta.url), { throws: false, ...options })

type Entry = [word: number, value: number]
interface State {
  words: number[]
  seen: number[]
  at: number[]
  buffers: Entry[][]
}

/** All outcomes under a memory model, by trying every order there is: a machine beside the one that is tested. */
function everyOrder(p: Program, memory: MemoryModel): Set<string> {
  const outcomes = new Set<string>()
  const known = new Set<string>()
  const copy = (s: State): State => structuredClone(s)
  const go = (s: State): void => {
    const key = JSON.stringify(s)
    if (known.has(key)) return
    known.add(key)
    let ended = true
    for (const [a, buffer] of s.buffers.entries()) {
      for (const [k, [word, value]] of buffer.entries()) {
        const first = memory === 'pso' ? buffer.findIndex(e => e[0] === word) === k : k === 0
        if (!first) continue
        ended = false
        const next = copy(s)
        next.words[word] = value
        next.buffers[a]!.splice(k, 1)
        go(next)
      }
      const op = p.actors[a]![s.at[a]!]
      if (op === undefined) continue
      ended = false
      const next = step(copy(s), a, op, memory)
      if (next !== null) go(next)
    }
    if (ended) outcomes.add(`${s.words.join()}:${s.seen.join()}:${p.actors.length}`)
  }
  go({
    words: new Array<number>(p.words).fill(0),
    seen: new Array<number>(p.actors.length * 8).fill(0),
    at: p.actors.map(() => 0),
    buffers: p.actors.map(() => []),
  })
  return outcomes
}

/** null: the operation waits for the buffer. */
function step(s: State, a: number, op: Op, memory: MemoryModel): State | null {
  const buffer = s.buffers[a]!
  const mine = buffer.findLast(e => e[0] === op.word)
  const value = mine === undefined ? s.words[op.word]! : mine[1]
  let seen = 0
  if (op.op === 'read' || op.op === 'load') seen = value
  else if (op.op === 'write' && memory !== 'sc') buffer.push([op.word, op.value])
  else {
    if (buffer.length > 0) return null
    if (op.op === 'add') seen = value
    s.words[op.word] = op.op === 'add' ? value + op.value : op.value
  }
  s.seen[a * 8 + s.at[a]!++] = seen
  return s
}

/** A program made of numbers, so that a failure can be read from the test's name. */
function programOf(seed: number): Program {
  let state = seed
  const below = (n: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return (state >>> 8) % n
  }
  const ops = ['read', 'write', 'read', 'write', 'read', 'write', 'load', 'store', 'add'] as const
  const words = 1 + below(3)
  const op = (): Op => ({ op: ops[below(9)]!, word: below(words), value: 1 + below(3) })
  return { words, actors: [0, 1, 2].map(() => Array.from({ length: 1 + below(3) }, op)) }
}

describe.each(['sc', 'tso', 'pso'] as const)('an exhaustive search with memory %s', memory => {
  test.each(Array.from({ length: 12 }, (_, k) => 5 + k * 37))(
    'sees every outcome of program %i, and no other',
    async seed => {
      const program = programOf(seed)
      const result = await look('buffered', { strategy: 'exhaustive', args: program, memory, races: false })
      expect(result).toMatchObject({ exhausted: true, findings: [], memory })
      expect(Object.keys(result.outcomes).sort()).toEqual([...everyOrder(program, memory)].sort())
    },
  )
})

describe('Peterson', () => {
  const plain = { args: { atomic: false }, races: false }

  test('with plain flags holds while memory has no buffers', async () => {
    expect(await look('peterson', { ...plain, strategy: 'exhaustive' })).toMatchObject({ findings: [] })
  })

  test.each(['tso', 'pso'] as const)(
    'with plain flags fails with %s, by any strategy, and is replayed',
    async memory => {
      for (const strategy of ['mix', 'random', 'pct', 'exhaustive'] as const) {
        const { findings } = await look('peterson', { ...plain, strategy, memory, schedules: 20_000 })
        expect(findings).toHaveLength(1)
        const [found] = findings
        expect(found).toMatchObject({ detector: 'invariant' })
        expect(found!.steps.some(s => s.kind === 'buffer')).toBe(true)
        for (const s of found!.steps.filter(f => f.kind === 'flush'))
          expect(found!.steps[s.cause]).toMatchObject({
            kind: 'buffer',
            actor: s.actor,
            where: s.where,
            after: s.after,
          })
        const again = await look('peterson', { ...plain, memory, replay: found!.replay })
        expect(again).toMatchObject({ forkedAt: -1 })
        expect(again.findings[0]).toMatchObject({ steps: found!.steps, replay: found!.replay })
      }
    },
  )

  test.each(['tso', 'pso'] as const)('with atomic flags holds with %s', async memory => {
    const options = { args: { atomic: true }, memory }
    expect(await look('peterson', { ...options, schedules: 2000 })).toMatchObject({ findings: [], cut: 0 })
    expect(await look('peterson', { ...options, strategy: 'exhaustive' })).toMatchObject({ findings: [], cut: 0 })
  })

  test('is found with the same steps whenever the seed is the same', async () => {
    const one = await look('peterson', { ...plain, memory: 'tso', seed: 7 })
    expect((await look('peterson', { ...plain, memory: 'tso', seed: 7 })).findings).toEqual(one.findings)
  })
})

describe.each(['tso', 'pso'] as const)('pieces of words with %s', memory => {
  test.each(['method', 'atomic'])('%s', async how => {
    const result = await look('sizes', { memory, args: { how }, strategy: 'exhaustive', schedules: 3000 })
    expect(result.findings).toEqual([])
    const bytes = new Set(Object.keys(result.outcomes).map(o => o.split(' ')[0]))
    expect([...bytes].sort()).toEqual(['0', '255', '3'])
  })
})

describe('what cannot be is refused in one line', () => {
  test.each<[ExploreOptions, RegExp]>([
    [{ memory: 'rmo' as MemoryModel }, /memory 'rmo': must be one of sc, tso, pso/],
    [{ memory: 'tso', instrument: false }, /memory 'tso': plain stores must be seen/],
    [{ memory: 'pso', plainSteps: false }, /memory 'pso': plain stores must be seen/],
  ])('%j', async (options, message) => {
    await expect(look('peterson', { args: { atomic: true }, ...options })).rejects.toThrow(message)
  })
})
