/**
 * affinity.ts - set up for tests whose machines and explorations run one thread at a time: each test process keeps to a core of its
 * own. Threads that hand over to one another wake each other sooner there, and the processes do not take each other's place.
 */
import { availableParallelism } from 'node:os'

/** A cpu_set_t for the first 64 cores. */
const set = BigUint64Array.of(
  1n << BigInt((Number(process.env['VITEST_POOL_ID'] ?? 1) - 1) % Math.min(64, availableParallelism())),
)

if (process.platform === 'linux') {
  const { default: koffi } = await import('koffi')
  // Threads that begin later inherit it. Where it cannot be had, the tests only take longer.
  koffi.load('libc.so.6').func('int sched_setaffinity(int, size_t, void *)')(0, 8, set)
}
