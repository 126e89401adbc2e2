/** thread.ts - what a thread of an exploration does from its start: take control, load the scenario, run. */
import type { MessagePort } from 'node:worker_threads'
import { ActorThread, here, type KernelWatch } from './actor.js'
import { controlAtomics, Pending } from './atomics.js'
import { buffersOf } from './buffers.js'
import { controlChance } from './chance.js'
import { Conductor, type Exploration, type ExploreConfig } from './conductor.js'
import { Engine, Quit } from './engine.js'
import { instrumentModules } from './instrument.js'
import { buffersIn, Memory } from './memory.js'
import { native } from './native.js'
import { controlPlain, plainAsWritten } from './plain.js'
import { type KernelOptions, LOCKS, type Loaded, loadScenario, messageOf, ScenarioError } from './scenario.js'
import * as W from './words.js'

export interface ActorData {
  index: number
  url: string
  config: ExploreConfig
  maxSteps: number
  maxCells: number
  instrument: boolean
  /** What the scenario imports, instrumented already, see instrumentedGraph(); or null: this thread's loader does it. */
  texts: ReadonlyMap<string, string> | null
  races: boolean
  plainSteps: boolean
  spins: number
  spinLooks: number
  /** The actors are CPUs of a machine that has so many MiB of RAM. */
  kernel: KernelOptions | null
  memory?: WebAssembly.Memory
  /** For the scenario's setup. */
  args: unknown
  /** For all threads but the first: what the first one has set up. */
  shared?: unknown
  words?: SharedArrayBuffer
  actors?: number
}

/** From a thread to the host. */
export type ActorMessage =
  | { type: 'loaded'; words: SharedArrayBuffer; shared: unknown; names: string[]; memory: WebAssembly.Memory | null }
  | { type: 'ready' }
  | { type: 'done'; result: Exploration }
  | { type: 'failed'; message: string; kind: 'input' | 'run' }

export async function actorMain(data: ActorData, port: MessagePort): Promise<void> {
  try {
    if (data.index === 0) await conduct(data, port)
    else await follow(data, port)
  } catch (error) {
    if (error instanceof Quit) return
    const message =
      error instanceof ScenarioError ? error.message : `the explorer failed: ${(error as Error)?.stack ?? error}`
    const kind = error instanceof ScenarioError ? error.kind : 'run'
    port.postMessage({ type: 'failed', message, kind } satisfies ActorMessage)
  }
}

/** The scenario's code sees a controlled world from its first line on; how many actors it has is known only then. */
async function conduct(data: ActorData, port: MessagePort): Promise<void> {
  const control = new Control(data)
  const scenario = await loadScenario(data.url, data.texts)
  const n = scenario.names.length
  const { memory } = data.config
  if (buffersOf(memory, n) < 0)
    throw new ScenarioError(`${data.config.scenario}: has ${n} actors, at most ${n - 1} with memory '${memory}'`)
  const layout = layoutOf(data, n)
  const words = new SharedArrayBuffer(layout.words * 4)
  const engine = new Engine(words, layout, 0, memory)
  engine.w[W.ACTORS] = n
  engine.w[W.UNITS] = layout.units
  engine.w[W.MAX_STEPS] = data.maxSteps
  engine.w[W.SPINS] = data.spins
  engine.w[W.SPIN_LOOKS] = data.spinLooks
  engine.w[W.DETECT] = data.races ? W.DETECT_RACE : 0
  engine.w[W.PLAIN_STEPS] = data.plainSteps ? 1 : 0
  let shared: unknown
  try {
    shared = await scenario.setup(data.args)
  } catch (error) {
    throw new ScenarioError(`${data.config.scenario}: setup failed: ${messageOf(error)}`, 'input', { cause: error })
  }
  const thread = control.over(engine, scenario, shared)
  await control.prepare(thread, scenario)
  try {
    port.postMessage({
      type: 'loaded',
      words,
      shared,
      names: scenario.names,
      memory: control.memory,
    } satisfies ActorMessage)
  } catch (error) {
    throw new ScenarioError(
      `${data.config.scenario}: what setup returns cannot reach other threads: ${messageOf(error)} (return plain data, typed arrays and SharedArrayBuffers; make class instances in the actors)`,
    )
  }
  await new Promise<void>(resolve => port.once('message', () => resolve()))
  const conductor = new Conductor(thread, scenario, data.config)
  const result = await conductor.explore()
  native.store(engine.w, W.PHASE, W.PHASE_QUIT)
  for (let a = 1; a < n; a++) engine.openGate(a)
  port.postMessage({ type: 'done', result } satisfies ActorMessage)
}

function layoutOf(data: ActorData, actors: number): W.Layout {
  const interrupts = data.kernel === null ? 0 : actors
  const units = actors * (1 + buffersOf(data.config.memory, actors)) + interrupts
  return W.layoutOf(actors, data.maxSteps, data.maxCells, units)
}

async function follow(data: ActorData, port: MessagePort): Promise<void> {
  const control = new Control(data)
  const scenario = await loadScenario(data.url, data.texts)
  const layout = layoutOf(data, data.actors!)
  const engine = new Engine(data.words!, layout, data.index, data.config.memory)
  const thread = control.over(engine, scenario, data.shared)
  await control.prepare(thread, scenario)
  port.postMessage({ type: 'ready' } satisfies ActorMessage)
  for (;;) {
    engine.waitGate()
    if (engine.w[W.PHASE] !== W.PHASE_RUN) continue
    const running = thread.run()
    if (running !== undefined) await running
  }
}

/** Control - of this thread's world. It begins before the scenario loads, with an engine that runs nothing. */
class Control {
  readonly #data: ActorData
  readonly memory: WebAssembly.Memory | null

  constructor(data: ActorData) {
    this.#data = data
    // A worker asks the host's memory for its working directory, by Atomics, which would be a step of whoever runs.
    const directory = process.cwd()
    process.cwd = () => directory
    // Compiled code is told by the lines of its source, where it has maps: those of modules that load from here on.
    process.setSourceMapsEnabled(true)
    if (data.instrument && data.texts === null) instrumentModules()
    this.memory = data.kernel === null ? null : bootCpu(data)
    // Modules that load ask for the time and for chance as well.
    const layout = W.layoutOf(1, 16, 16)
    const idle = new Engine(new SharedArrayBuffer(layout.words * 4), layout, 0, 'sc')
    plainAsWritten()
    controlChance(idle, new Pending(), data.config.seed)
  }

  over(engine: Engine, scenario: Loaded, shared: unknown): ActorThread {
    const { index, config } = this.#data
    const memory = new Memory(index, engine.w.buffer as SharedArrayBuffer)
    if (this.memory !== null) memory.share(this.memory.buffer as unknown as SharedArrayBuffer)
    for (const buffer of buffersIn(shared)) memory.share(buffer)
    const pending = new Pending()
    engine.site = here
    engine.context = () =>
      (globalThis as { softnet_boot?: { watch?: KernelWatch } }).softnet_boot?.watch?.here?.() ?? ''
    engine.bytesAt = (address, length) => memory.bytesAt(address, length)
    controlAtomics(engine, memory, pending)
    controlPlain(engine, memory)
    controlChance(engine, pending, config.seed)
    const info = { name: scenario.names[index]!, index }
    return new ActorThread(engine, memory, pending, scenario.actors[index]!, shared, info)
  }

  async prepare(thread: ActorThread, scenario: Loaded): Promise<void> {
    try {
      await scenario.prepare?.(thread.shared, thread.info)
    } catch (error) {
      throw new ScenarioError(`${this.#data.config.scenario}: prepare failed: ${messageOf(error)}`, 'input', {
        cause: error,
      })
    }
  }
}

const PAGES_PER_MB = 16

/** Tell the kernel's modules, before they load, which memory is RAM and which CPU this thread is. @returns the memory */
function bootCpu(data: ActorData): WebAssembly.Memory {
  const pages = (data.kernel?.megabytes ?? 16) * PAGES_PER_MB
  const memory = data.memory ?? new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true })
  Object.assign(globalThis, {
    softnet_boot: {
      memory,
      cpu: data.index,
      lockKind: LOCKS.indexOf(data.kernel?.lock ?? 'tas'),
      now: () => performance.now() * 1e6,
      controlled: true,
      buffered: data.config.memory !== 'sc',
    },
  })
  return memory
}
