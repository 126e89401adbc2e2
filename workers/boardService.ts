/** boardService.ts - how the host drives a board: on a thread of its own, or in virtual time on the thread of CPU 0. */
import type { BoardConfig, CapturedFrames } from '../src/hw/types.js'
import type { Wire, WireConfig } from '../src/hw/wire.js'

export interface BoardService {
  /** Loads the model. */
  load(): Promise<void>
  /** Runs until the power goes; in virtual time only gets ready to. `histograms` has HISTOGRAM_SLOTS words for each port. */
  run(config: BoardConfig, histograms: SharedArrayBuffer): Promise<void>
  /** What the ports sent, of those that capture. */
  captures(): (CapturedFrames | null)[]
  release(): void
}

/** This end of a port's cable. What is the host's alone is loaded only where it is used. */
async function wireOf(config: WireConfig | undefined): Promise<Wire | null> {
  if (config === undefined) return null
  if (config.kind === 'link') return new (await import('../src/hw/link.js')).LinkWire(config)
  const { tapWire } = await import('../src/lab/tapDevice.js')
  return tapWire(config.fd, config.frame)
}

/** boardService - `release` ends the thread's task. */
export function boardService(virtual: boolean, release: () => void): BoardService {
  let model: typeof import('../src/hw/board.js') | null = null
  let running: import('../src/hw/board.js').Board | null = null
  return {
    async load() {
      model = await import('../src/hw/board.js')
    },
    async run(config, histograms) {
      if (model === null) throw new Error('the board is not loaded')
      const wires = await Promise.all(config.ports.map(port => wireOf(port.wire)))
      const words = histograms.byteLength / 4 / Math.max(1, config.ports.length)
      running = new model.Board(
        config,
        config.ports.map((_, k) => new Int32Array(histograms, k * words * 4, words)),
        wires,
      )
      if (virtual) running.host_virtual()
      else running.run()
    },
    captures: () => running?.captures() ?? [],
    release,
  }
}
