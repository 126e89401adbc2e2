/** machine.ts - threads that are CPUs of one bare machine: RAM and locks, no kernel booted. */
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { config_addr, POWER, RUNNING } from '../../src/arch/machine.js'
import { RAM_SIZE, SPIN_BEFORE_PARK } from '../../src/lib/limits.js'
import type { CpuJob } from './cpuThread.js'

export const LOCK_KINDS = ['tas', 'ticket', 'mcs'] as const
export type LockKind = (typeof LOCK_KINDS)[number]

/** bareMachine - RAM with the configuration words that locks look at, switched on. */
export function bareMachine(ncpus: number, kind: LockKind): WebAssembly.Memory {
  const pages = RAM_SIZE >> 16
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true })
  const i32 = new Int32Array(memory.buffer)
  i32[config_addr('ncpus') >> 2] = ncpus
  i32[config_addr('lock_kind') >> 2] = LOCK_KINDS.indexOf(kind)
  i32[config_addr('spin_limit') >> 2] = SPIN_BEFORE_PARK
  i32[POWER >> 2] = RUNNING
  return memory
}

/** onCpu - loads `module` (a URL, whose default export is called with `args`) on a thread that is CPU `cpu`. */
export function onCpu<T>(
  memory: WebAssembly.Memory,
  cpu: number,
  kind: LockKind,
  module: string,
  args: unknown,
): Promise<T> {
  const job: CpuJob = {
    memory,
    cpu,
    lockKind: LOCK_KINDS.indexOf(kind),
    base: performance.timeOrigin,
    module,
    args,
  }
  return new Promise<T>((resolve, reject) => {
    const w = new Worker(fileURLToPath(new URL('./cpuThread.js', import.meta.url)), { workerData: job })
    w.once('message', resolve)
    w.once('error', reject)
    w.once('exit', code => reject(new Error(`CPU ${cpu} left with ${code} before it had a result`)))
  })
}
