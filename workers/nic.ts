/** nic.ts - a worker thread that is the board around the CPUs: NICs, wires and the clock chip. No kernel in it. */
import { performance } from 'node:perf_hooks'
import type { MessagePort } from 'node:worker_threads'
import * as Comlink from 'comlink'
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs'
import type { BoardConfig, CapturedFrames } from '../src/hw/types.js'

export interface BoardTask {
  memory: WebAssembly.Memory
  /** performance.timeOrigin of the machine's clock */
  base: number
  port: MessagePort
}

export interface BoardService {
  /** Loads the model. */
  load(): Promise<void>
  /** Runs until the power goes. `histograms` has HISTOGRAM_SLOTS words for each port. */
  run(config: BoardConfig, histograms: SharedArrayBuffer): Promise<void>
  /** What the ports sent, of those that capture. */
  captures(): (CapturedFrames | null)[]
  release(): void
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
    let model: typeof import('../src/hw/board.js') | null = null
    let running: import('../src/hw/board.js').Board | null = null
    const service: BoardService = {
      async load() {
        model = await import('../src/hw/board.js')
      },
      async run(config, histograms) {
        if (model === null) throw new Error('the board is not loaded')
        const words = histograms.byteLength / 4 / Math.max(1, config.ports.length)
        running = new model.Board(
          config,
          config.ports.map((_, k) => new Int32Array(histograms, k * words * 4, words)),
        )
        running.run()
      },
      captures: () => running?.captures() ?? [],
      release() {
        resolve()
        setImmediate(() => task.port.close())
      },
    }
    Comlink.expose(service, nodeEndpoint(task.port))
  })
}
