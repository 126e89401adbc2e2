/** The race detector, case by case as KCSAN's own test has them; docs/explore.md has the table. */
import { describe, expect, test } from 'vitest'
import { type ExploreOptions, explore } from '../../src/explore/index.js'

const look = (name: string, options: ExploreOptions) =>
  explore(new URL(`./${name}.js`, import.meta.url), { throws: false, schedules: 200, ...options })

describe('in the kernel', () => {
  test.each([
    ['jiffies', 0],
    ['once', 0],
    ['plain', 1],
  ] as const)('%s: %i', async (args, n) => {
    expect((await look('kernel/jiffies', { args, kernel: {} })).findings).toHaveLength(n)
  })
})
