/** Descriptors under control: pipes, epoll, and what happens when a file goes that is watched. */
import { describe, expect, test } from 'vitest'
import { type ExploreOptions, explore } from '../../src/explore/index.js'
import type { EpollArgs } from './kernel/epoll.js'
import type { EpollCloseArgs } from './kernel/epollclose.js'
import type { EpollNestArgs } from './kernel/epollnest.js'
import type { FifoArgs } from './kernel/fifo.js'
import type { PipeArgs } from './kernel/pipe.js'
import type { SigioArgs } from './kernel/sigio.js'

const look = (name: string, options: ExploreOptions) =>
  explore(new URL(`./kernel/${name}.js`, import.meta.url), {
    throws: false,
    kernel: {},
    maxSteps: 50_000,
    hangSeconds: 60,
    shrink: 60,
    ...options,
  })
const ASLEEP = ['deadlock', 'lost wakeup', 'stall']

describe('a FIFO between two CPUs', () => {
  test.each<[string, PipeArgs]>([
    ['more than it holds', { bulk: 68_000, chunk: 9_000, single: 0 }],
    ['byte by byte', { bulk: 0, chunk: 16, single: 4 }],
    ['both', { bulk: 66_000, chunk: 20_000, single: 2 }],
  ])('%s: no byte and no wake-up is lost, nothing raced for, nothing leaked', async (_name, args) => {
    expect(await look('pipe', { schedules: 20, args })).toMatchObject({ findings: [], schedules: 20, cut: 0 })
  })

  test('a broken twin that looks before it is on the queue sleeps for ever', async () => {
    const args: PipeArgs = { bulk: 0, chunk: 16, single: 16, broken: true }
    const { findings } = await look('pipe', { schedules: 150, args })
    expect(ASLEEP).toContain(findings[0]?.detector)
  }, 180_000)
})

describe('an open of a FIFO is interrupted while the other end is opened', () => {
  const options = { spinLooks: 8 }
  test.each<[string, FifoArgs]>([
    ['that of the reader', { end: 'reader', signals: 2, restart: false }],
    ['that of the writer', { end: 'writer', signals: 2, restart: false }],
    ['begun anew by the kernel', { end: 'reader', signals: 1, restart: true }],
  ])('%s: it ends, and each end that is counted is open', async (_name, args) => {
    const result = await look('fifo', { ...options, schedules: 60, args })
    expect(result).toMatchObject({ findings: [], schedules: 60, cut: 0 })
    expect(result.outcomes['signalled']).toBeGreaterThan(0)
    if (!args.restart) expect(result.outcomes['interrupted']).toBeGreaterThan(0)
  })

  test('a broken twin that looks before it is on the queue sleeps for ever', async () => {
    const args: FifoArgs = { end: 'reader', signals: 0, restart: false, broken: 'queue' }
    const { findings } = await look('fifo', { ...options, schedules: 3000, args }) // it ends at the first
    expect(ASLEEP).toContain(findings[0]?.detector)
  }, 180_000)

  test('a broken twin that does not take its end back is caught', async () => {
    const args: FifoArgs = { end: 'reader', signals: 2, restart: false, broken: 'count' }
    const { findings } = await look('fifo', { ...options, schedules: 100, args })
    expect(findings[0]?.detector).toBe('invariant')
  })
})

describe('epoll against softirqs of another CPU', () => {
  test.each(['level', 'edge', 'oneshot', 'add'] as const)('%s: no event is lost', async mode => {
    const args: EpollArgs = { mode, datagrams: 6 }
    expect(await look('epoll', { schedules: 20, args })).toMatchObject({ findings: [], schedules: 20, cut: 0 })
  })

  test('a broken twin of a socket that looks before the item is on its queue sleeps for ever', async () => {
    const args: EpollArgs = { mode: 'add', datagrams: 8, broken: true }
    const { findings } = await look('epoll', { schedules: 80, args })
    expect(ASLEEP).toContain(findings[0]?.detector)
  }, 180_000)
})

test('epoll in epoll in poll, woken by two CPUs at a time: no wake-up is lost', async () => {
  const args: EpollNestArgs = { rounds: 3 }
  const options = { schedules: 20, args }
  expect(await look('epollnest', options)).toMatchObject({ findings: [], schedules: 20, cut: 0 })
})

describe('SIGIO from softirqs of another CPU', () => {
  test('no signal is lost, also while the socket stops to tell, and goes', async () => {
    const args: SigioArgs = { datagrams: 3 }
    const result = await look('sigio', { schedules: 20, args })
    expect(result).toMatchObject({ findings: [], schedules: 20, cut: 0 })
    expect(result.outcomes['told']).toBeGreaterThan(0)
  })

  test('a broken twin that lets it through before it sleeps, sleeps for ever', async () => {
    const args: SigioArgs = { datagrams: 3, broken: true }
    const { findings } = await look('sigio', { schedules: 20, args })
    expect(ASLEEP).toContain(findings[0]?.detector)
  }, 180_000)
})

describe('a watched file goes', () => {
  test('while it wakes, and while its epoll file goes: no item outlives either', async () => {
    const args: EpollCloseArgs = { rounds: 3 }
    expect(await look('epollclose', { schedules: 60, args })).toMatchObject({ findings: [], schedules: 60, cut: 0 })
  })

  test('a twin that looks at the list without a lock, as 2.6.11 does, races with ep_free', async () => {
    const args: EpollCloseArgs = { rounds: 3, broken: true }
    const { findings } = await look('epollclose', { schedules: 200, args })
    expect(findings.length).toBeGreaterThan(0)
    expect(['use after free', 'data race']).toContain(findings[0]?.detector)
  }, 180_000)
})
