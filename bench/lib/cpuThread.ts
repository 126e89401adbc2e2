/** cpuThread.ts - entry of a worker thread that is one CPU of a bare machine; loads no kernel module before it is told which. */
import { performance } from 'node:perf_hooks'
import { parentPort, workerData } from 'node:worker_threads'

export interface CpuJob {
  memory: WebAssembly.Memory
  cpu: number
  lockKind: number
  /** time origin of the machine's clock, as performance.timeOrigin */
  base: number
  module: string
  args: unknown
}

const job = workerData as CpuJob
const offset = performance.timeOrigin - job.base
globalThis.softnet_boot = {
  memory: job.memory,
  cpu: job.cpu,
  lockKind: job.lockKind,
  now: () => (offset + performance.now()) * 1e6,
}
const { local_irq_enable } = await import('../../src/arch/cpu.js')
local_irq_enable()
const loaded = (await import(job.module)) as { default(args: unknown): unknown }
parentPort?.postMessage(await loaded.default(job.args))
