import { describe, expect, test } from 'vitest'
import { type ExploreOptions, explore } from '../../src/explore/index.js'

const look = (name: string, options: ExploreOptions) =>
  explore(new URL(`./kernel/${name}.js`, import.meta.url), { throws: false, ...options })

describe.each(['tas', 'ticket', 'mcs'] as const)('%s', lock => {
  test.each([0, 1, 3])(
    'three CPUs, %i turns before a waiter sleeps: one inside at a time, all get there',
    async spins => {
      const result = await look('spinlock', { schedules: 2000, kernel: { lock }, args: { cpus: 3, spins } })
      expect(result).toMatchObject({ findings: [], cut: 0, schedules: 2000 })
    },
  )

  test.each([0, 1])('two CPUs, %i turns: every order that matters', async spins => {
    const result = await look('spinlock', { strategy: 'exhaustive', kernel: { lock }, args: { cpus: 2, spins } })
    expect(result).toMatchObject({ findings: [], exhausted: true })
  })
})
