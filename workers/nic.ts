/** nic.ts - a worker thread that is the board around the CPUs: NICs, wires and the clock chip. No kernel in it. */
import { performance } from 'node:perf_hooks'
import type { MessagePort } from 'node:worker_threads'
import * as Comlink from 'comlink'
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs'
import { boardService } from './boardService.js'

export interface BoardTask {
  memory: WebAssembly.Memory
  /** performance.timeOrigin of the machine's clock */
  base: number
  port: MessagePort
}

/** The task that the pool gives this thread; ends when the host releases the board. */
export default function board(task: BoardTask): Promise<void> {
  const offset = performance.timeOrigin - task.base
  globalThis.softnet_boot = {
    memory: task.memory,
    cpu: -1,
    lockKind: 0,
    now: () => (offset + performance.now()) * 1e6,
  }
  return new Promise(resolve => {
    const service = boardService(false, () => {
      resolve()
      setImmediate(() => task.port.close())
    })
    Comlink.expose(service, nodeEndpoint(task.port))
  })
}
