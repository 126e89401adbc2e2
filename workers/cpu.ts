/**
 * cpu.ts - a worker thread that is one CPU. It loads no kernel module before it knows its RAM and its number.
 *
 * While the machine is off or halted it answers the host through Comlink on a port of its own; while it runs it answers
 * nobody, as a CPU that waits for an interrupt cannot: the host then reads RAM and rings the doorbell.
 */
import { performance } from 'node:perf_hooks'
import type { MessagePort } from 'node:worker_threads'
import * as Comlink from 'comlink'
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs'
import type { RouterSetup } from '../src/init/setup.js'
import type { SystemMap } from '../src/init/system_map.js'
import { boardService } from './boardService.js'

export interface CpuTask {
  memory: WebAssembly.Memory
  cpu: number
  lockKind: number
  /** Watch the order of locks. */
  lockdep?: boolean
  /** performance.timeOrigin of the machine's clock */
  base: number
  port: MessagePort
  /** Virtual time: this thread is an actor of the turnstile. */
  virtual?: boolean
  /** The board is run on this thread, too, and answers here. */
  boardPort?: MessagePort
}

/** How a CPU left the kernel. */
export interface CpuExit {
  cpu: number
  reason: 'power off' | 'panic' | 'oops'
}

export interface LeakReport {
  name: string
  used: number
  total: number
}

export interface CpuService {
  /** Loads the kernel, then the modules at these URLs, which export main(); the same map on every CPU. */
  load(programs: string[]): Promise<SystemMap>
  /** Runs this CPU until the power goes. */
  run(setup: RouterSetup): Promise<CpuExit>
  /** Makes a thread that never ran ready to go on with the RAM of a machine of the configuration that is in RAM now. */
  carve(): void
  /** Goes on from the RAM of a halted machine until the power goes. */
  resume(): Promise<CpuExit>
  /** Names of the locks and variables at these addresses, for dumps. */
  describe(addresses: number[]): string[]
  /** Names of the tasks that a snapshot of the halted machine would lose. */
  notAtRest(): string[]
  /** Frees what a halted machine still queues and caches, and reports every object that is out. */
  audit(): LeakReport[]
  /** Text of a file of /proc. */
  proc(path: string): string
  iptables(table: string): Int32Array | null
  /** Ends the thread's task. */
  release(): void
}

/** The task that the pool gives this thread; ends when the host releases the CPU. */
export default function cpu(task: CpuTask): Promise<void> {
  const offset = performance.timeOrigin - task.base
  globalThis.softnet_boot = {
    memory: task.memory,
    cpu: task.cpu,
    lockKind: task.lockKind,
    lockdep: task.lockdep === true,
    now: () => (offset + performance.now()) * 1e6,
    virtual: task.virtual === true,
  }
  return new Promise(resolve => {
    let kernel: typeof import('../src/init/main.js') | null = null
    const service: CpuService = {
      async load(programs) {
        kernel = await import('../src/init/main.js')
        for (const url of programs) kernel.add_program((await import(url)) as { main(): void })
        return kernel.system_map()
      },
      async run(setup) {
        if (kernel === null) throw new Error('the kernel is not loaded')
        return { cpu: task.cpu, reason: kernel.run_cpu(setup) }
      },
      carve() {
        if (kernel?.carved() === false) kernel.carve()
      },
      describe: addresses => addresses.map(addr => kernel?.describe(addr) ?? `0x${addr.toString(16)}`),
      async resume() {
        if (kernel === null) throw new Error('the kernel is not loaded')
        return { cpu: task.cpu, reason: kernel.resume_cpu() }
      },
      notAtRest: () => kernel?.tasks_not_at_rest() ?? [],
      audit: () => kernel?.leak_audit() ?? [],
      proc(path) {
        kernel?.post_mortem()
        return kernel?.proc_read(path) ?? ''
      },
      iptables(table) {
        kernel?.post_mortem()
        return kernel?.ipt_get_entries(table) ?? null
      },
      release() {
        resolve()
        setImmediate(() => {
          task.port.close()
          task.boardPort?.close()
        })
      },
    }
    if (task.boardPort !== undefined)
      Comlink.expose(
        boardService(true, () => {}),
        nodeEndpoint(task.boardPort),
      )
    Comlink.expose(service, nodeEndpoint(task.port))
  })
}
