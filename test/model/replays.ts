/** replays.ts - 10,000 seeds over scenarios of every kind: each must give the same events whenever it is run. */
import type { ExploreOptions } from '../../src/explore/index.js'

export interface Campaign {
  name: string
  scenario: URL
  options: ExploreOptions
  schedules: number
}

const of = (name: string, file: string, schedules: number, options: ExploreOptions = {}): Campaign => ({
  name,
  scenario: new URL(`./${file}.js`, import.meta.url),
  options: { all: true, ...options },
  schedules,
})

export const CAMPAIGN: readonly Campaign[] = [
  of('a lock that is none, all its findings', 'scenarios/busted_lock', 1000),
  of('a sound lock, three actors', 'scenarios/sound_lock', 1500),
  of('async waiters', 'scenarios/async_waiters', 1000),
  of('deadlines', 'scenarios/deadline', 1000),
  of('time and chance', 'scenarios/chance', 1000, { strategy: 'random' }),
  of("npm's ringbuf.js", 'scenarios/ring', 1000, { strategy: 'pct', depth: 3 }),
  of('a store buffer for each word', 'scenarios/sizes', 500, { memory: 'pso', args: { how: 'method' } }),
  of('the MCS lock of the kernel, three CPUs', 'kernel/spinlock', 1500, {
    kernel: { lock: 'mcs' },
    args: { cpus: 3, spins: 1 },
  }),
  of('RCU of the kernel, three CPUs', 'proofs/rcu', 1300, {
    kernel: {},
    args: { cpus: 3, wait: 'call_rcu', ticks: [3, 2], broken: false },
  }),
  of('a router of two CPUs', 'kernel/router', 200, {
    kernel: {},
    args: { cpus: 2, frames: 2, rx: 2 },
    maxSteps: 50_000,
    hangSeconds: 60,
  }),
]
