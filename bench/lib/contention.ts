/** contention.ts - many CPUs, one spinlock: how often a second it is acquired, and that it never lets two in. */
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { HEAP_BASE } from '../../src/arch/ram.js'
import { bareMachine, type LockKind, onCpu } from './machine.js'

// words from HEAP_BASE, each on a line of its own; the lock itself lies at 0
export const PHASE = 256
export const TALLY = 512
export const STARTED = 768

export const WARM = 1
export const TAKE = 2
export const STOP = 3

export interface Contention {
  kind: LockKind
  cpus: number
  /** acquisitions per second once all CPUs contend */
  perSecond: number
  /** smallest and largest share of one CPU: 1/cpus each would be fair */
  leastShare: number
  mostShare: number
}

interface Contender {
  total: number
  byPhase: number[]
}

/** contended - acquisitions per second of one lock kind by `cpus` worker threads. Throws if the lock let two in. */
export async function contended(kind: LockKind, cpus: number, seconds: number): Promise<Contention> {
  const memory = bareMachine(cpus, kind)
  const i32 = new Int32Array(memory.buffer)
  const at = (word: number): number => (HEAP_BASE + word) >> 2
  const module = new URL('./contender.js', import.meta.url).href
  const running = Array.from({ length: cpus }, (_, cpu) => onCpu<Contender>(memory, cpu, kind, module, null))
  const all = Promise.all(running)
  while (Atomics.load(i32, at(STARTED)) < cpus) await Promise.race([sleep(5), all])
  Atomics.store(i32, at(PHASE), WARM)
  Atomics.notify(i32, at(PHASE))
  await sleep(250)
  const from = performance.now()
  Atomics.store(i32, at(PHASE), TAKE)
  await sleep(seconds * 1000)
  Atomics.store(i32, at(PHASE), STOP)
  const took = (performance.now() - from) / 1000
  const results = await all
  const total = results.reduce((sum, r) => sum + r.total, 0)
  if (total !== i32[at(TALLY)]) throw new Error(`${kind} lock lost ${total - i32[at(TALLY)]} updates`)
  const taken = results.map(r => r.byPhase[TAKE])
  const sum = taken.reduce((a, b) => a + b, 0)
  return {
    kind,
    cpus,
    perSecond: Math.round(sum / took),
    leastShare: Math.min(...taken) / sum,
    mostShare: Math.max(...taken) / sum,
  }
}
