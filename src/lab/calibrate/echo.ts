/**
 * echo.ts - the other thread of two that pass a word to and fro: it answers what it finds, spinning or asleep.
 *
 * word 0: what was asked, odd numbers; -1 ends it. word 1: the answer. word 2: 1 while it sleeps. After word 8: when it woke, ns.
 */
import { performance } from 'node:perf_hooks'
import { workerData } from 'node:worker_threads'

const { words, rounds, sleeps, base } = workerData as {
  words: Int32Array
  rounds: number
  sleeps: number
  base: number
}
const woke = new Float64Array(words.buffer, 64, 1)
const offset = performance.timeOrigin - base

function answer(): void {
  for (let k = 1; k <= rounds; k++) {
    for (let now = Atomics.load(words, 0); now !== k; now = Atomics.load(words, 0)) if (now < 0) return
    Atomics.store(words, 1, k)
  }
  for (let k = rounds + 1; k <= rounds + sleeps; k++) {
    Atomics.store(words, 2, 1)
    Atomics.wait(words, 0, k - 1)
    woke[0] = (offset + performance.now()) * 1e6
    if (Atomics.load(words, 0) < 0) return
    Atomics.store(words, 2, 0)
    Atomics.store(words, 1, k)
  }
}
answer()
