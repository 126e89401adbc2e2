/** What is proved by an exhaustive search, with two actors and with three; and that it finds what is wrong with the broken twin. */
import { describe, expect, test } from 'vitest'
import { explore } from '../../src/explore/index.js'
import { PROOFS, type Proof } from './proofs/index.js'

const search = ({ scenario, options }: Proof, broken: boolean) =>
  explore(scenario, {
    ...options,
    strategy: 'exhaustive',
    throws: false,
    args: { ...options.args, broken },
  })

/** Those that take longer are in the benchmark. */
const SHORT = PROOFS.filter(p => p.long !== true)
const named = SHORT.map(p => [`${p.name}; ${p.actors} actors`, p] as const)

describe.each(named)('%s', (_, proof) => {
  test('is proved', async () => {
    const result = await search(proof, false)
    expect(result).toMatchObject({ exhausted: true, findings: [], cut: 0 })
    // More than one order mattered: it was no search of nothing.
    expect(result.schedules).toBeGreaterThan(10)
    // The element was freed, in some of them.
    if (proof.name.startsWith('RCU')) expect(result.outcomes['1 left']).toBeGreaterThan(0)
  })

  test('broken is found', async () => {
    const { findings } = await search(proof, true)
    expect(findings.map(f => f.detector)).toEqual([proof.broken])
  })
})

test('two actors and three for each of them', () => {
  for (const what of ['ticket lock', 'mcs lock', 'seqlock', 'SPSC ring', 'RCU list removal'])
    for (const actors of [2, 3]) expect(SHORT.some(p => p.name.startsWith(what) && p.actors === actors)).toBe(true)
})
