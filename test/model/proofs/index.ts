/** index.ts - what is proved by an exhaustive search: every order that matters was seen, and nothing was found. */
import type { Detector, ExploreOptions } from '../../../src/explore/index.js'

export interface Proof {
  name: string
  actors: 2 | 3
  scenario: URL
  /** Of `explore`, for the sound form; its broken twin gets `broken: true` as well. */
  options: Pick<ExploreOptions, 'kernel' | 'spinLooks'> & { args: Record<string, unknown> }
  /** What the broken twin ends in. */
  broken: Detector
  /** Takes longer than a test may: for the benchmark alone. */
  long?: true
}

const file = (name: string): URL => new URL(`./${name}.js`, import.meta.url)
/** Turns that a waiter spins before it sleeps: more than there are in any run. */
const FOR_EVER = 100_000

interface LockArgs {
  rounds?: number
  spins?: number
  spinLooks?: number
  long?: true
}

function lock(kind: 'ticket' | 'mcs', cpus: 2 | 3, more: LockArgs = {}): Proof {
  const { rounds = 1, spins = FOR_EVER, spinLooks, ...rest } = more
  const sleeps = spins === FOR_EVER ? '' : ', waiters sleep'
  return {
    name: `${kind} lock${rounds > 1 ? `, taken ${rounds === 2 ? 'twice' : `${rounds} times`} each` : ''}${sleeps}`,
    actors: cpus,
    scenario: file('lock'),
    options: { kernel: { lock: kind }, spinLooks, args: { cpus, rounds, spins, broken: false } },
    broken: 'stall',
    ...rest,
  }
}

function seqlock(writers: number, readers: number): Proof {
  return {
    name: `seqlock, ${writers} writing, ${readers} reading`,
    actors: (writers + readers) as 2 | 3,
    scenario: file('seqlock'),
    options: { kernel: {}, args: { writers, readers, broken: false } },
    broken: 'data race',
  }
}

function ring(third: 'none' | 'monitor' | 'producer', elements: number, more: Partial<Proof> = {}): Proof {
  const beside = { none: '', monitor: ', and one that looks on', producer: ', and another producer behind a lock' }
  return {
    name: `SPSC ring, ${elements} element${elements === 1 ? '' : 's'} a producer${beside[third]}`,
    actors: third === 'none' ? 2 : 3,
    scenario: file('ring'),
    options: { args: { third, elements, broken: false } },
    broken: 'data race',
    ...more,
  }
}

function list(wait: 'counter' | 'call_rcu', cpus: 2 | 3, more: Partial<Proof['options']> = {}): Proof {
  return {
    name: `RCU list removal, ${wait === 'counter' ? 'a counter of quiescent states' : wait}`,
    actors: cpus,
    scenario: file('rcu'),
    options: { kernel: { lock: 'ticket' }, ...more, args: { cpus, wait, ticks: [3, 2], broken: false } },
    broken: 'rcu',
  }
}

export const PROOFS: readonly Proof[] = [
  lock('ticket', 2),
  lock('ticket', 2, { rounds: 2 }),
  lock('ticket', 3),
  lock('ticket', 3, { spins: 0, long: true }),
  lock('mcs', 2),
  lock('mcs', 2, { rounds: 2, spinLooks: 4, long: true }),
  lock('mcs', 3, { spinLooks: 3 }),
  lock('mcs', 3, { long: true }),
  lock('mcs', 3, { spins: 0, spinLooks: 4, long: true }),
  seqlock(1, 1),
  seqlock(1, 2),
  seqlock(2, 1),
  ring('none', 3),
  ring('monitor', 2),
  ring('monitor', 3, { long: true }),
  ring('producer', 1),
  list('counter', 2),
  list('counter', 3),
  list('call_rcu', 2),
  list('call_rcu', 3, { spinLooks: 3 }),
]
