/** micro.ts - what is timed by itself: from inside the kernel (user/probe.ts), and between two threads. */
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { RunError } from '../errors.js'
import { Machine, sleep } from '../machine.js'
import { median } from './fit.js'

/** What the probe of the kernel times; its results are in ps. */
const PROBED = ['spin_lock', 'cpu_relax', 'schedule', 'wake_up_process'] as const
const PROBE_MS = 20_000
/** Passes of a word between two threads that spin, in batches of which the median counts. */
const [BATCHES, BATCH] = [60, 500]
/** Wake-ups of a thread that sleeps, and how long it is left asleep before each, ms. */
const [WAKES, NAP_MS] = [60, 1]
/** A thread that has not answered after so long will not, ms. */
const PATIENCE_MS = 5000

/** probeKernel - ns of one call, by function. */
export async function probeKernel(seed: number, signal?: AbortSignal): Promise<Record<string, number>> {
  const machine = new Machine({
    cpus: 1,
    rx: 'napi',
    lock: 'tas',
    hz: 1000,
    irqCostNs: 0,
    irqWork: 0,
    seed,
    ports: [],
    routes: [],
    neighbours: [],
    userSpin: false,
    trace: false,
    programs: [new URL('../../user/probe.js', import.meta.url).href],
  })
  try {
    await machine.powerOn()
    for (const end = machine.nowMs + PROBE_MS; machine.ram.word('probe', 'done') === 0; await sleep(10)) {
      signal?.throwIfAborted()
      machine.check()
      if (machine.nowMs > end) throw new RunError('the kernel does not come to the end of its measurements')
    }
    const times = PROBED.map(name => [name, machine.ram.word('probe', name) / 1000] as const)
    await machine.halt()
    return Object.fromEntries(times)
  } finally {
    await machine.destroy()
  }
}

function spinUntil(words: Int32Array, answer: number): void {
  const end = performance.now() + PATIENCE_MS
  for (let k = 0; Atomics.load(words, 1) !== answer; k++)
    if ((k & 0xfff) === 0xfff && performance.now() > end) throw new RunError('a thread of the host does not answer')
}

/** A word that goes to the other thread and back, half of that: a line that comes from another CPU. */
function passes(words: Int32Array): number {
  const batches: number[] = []
  let k = 0
  for (let b = 0; b < BATCHES; b++) {
    const start = performance.now()
    for (let n = 0; n < BATCH; n++) {
      Atomics.store(words, 0, ++k)
      spinUntil(words, k)
    }
    batches.push(((performance.now() - start) * 1e6) / (2 * BATCH))
  }
  return median(batches)
}

/** From before the call that wakes a sleeping thread to its first instruction. */
async function wakes(words: Int32Array, woke: Float64Array, signal?: AbortSignal): Promise<number> {
  const times: number[] = []
  for (let k = BATCHES * BATCH + 1; k <= BATCHES * BATCH + WAKES; k++) {
    const end = performance.now() + PATIENCE_MS
    while (Atomics.load(words, 2) === 0 && performance.now() < end) await sleep(0)
    await sleep(NAP_MS)
    signal?.throwIfAborted()
    const start = performance.now() * 1e6
    Atomics.store(words, 0, k)
    Atomics.notify(words, 0)
    spinUntil(words, k)
    times.push(woke[0]! - start)
  }
  return median(times)
}

/** betweenThreads - ns of what one CPU does to another. */
export async function betweenThreads(signal?: AbortSignal): Promise<Record<string, number>> {
  const words = new Int32Array(new SharedArrayBuffer(128))
  const woke = new Float64Array(words.buffer, 64, 1)
  const data = { words, rounds: BATCHES * BATCH, sleeps: WAKES, base: performance.timeOrigin }
  const echo = new Worker(fileURLToPath(new URL('./echo.js', import.meta.url)), { workerData: data })
  try {
    await new Promise((resolve, reject) => echo.once('online', resolve).once('error', reject))
    const cache_line_transfer = passes(words)
    return { cache_line_transfer, idle_wakeup: await wakes(words, woke, signal) }
  } finally {
    Atomics.store(words, 0, -1)
    Atomics.notify(words, 0)
    await echo.terminate()
  }
}
