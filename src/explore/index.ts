/**
 * index.ts - `import { explore } from 'softnet/explore'`: run a scenario under every interleaving that a strategy chooses.
 */
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { MEMORIES, type MemoryModel } from './buffers.js'
import type { Exploration, ExploreConfig } from './conductor.js'
import type { Finding } from './finding.js'
import { instrumentedGraph } from './graph.js'
import { lanes } from './lanes.js'
import { LINKER_FLAGS } from './linker.js'
import { type KernelOptions, LOCKS, ScenarioError, scenarioUrl } from './scenario.js'
import type { StrategyName } from './strategy.js'
import { STRATEGIES } from './strategy.js'
import type { ActorData, ActorMessage } from './thread.js'
import * as W from './words.js'

export { MEMORIES, type MemoryModel } from './buffers.js'
export type { Exploration } from './conductor.js'
export {
  assertExclusiveAccess,
  assertExclusiveAccessScoped,
  assertExclusiveBits,
  assertExclusiveWriter,
  assertExclusiveWriterScoped,
} from './exclusive.js'
export { DETECTORS, type Detector, type Finding, type Step, type Stuck } from './finding.js'
export { lanes, said } from './lanes.js'
export { type Actor, type ActorInfo, type KernelOptions, type Scenario, ScenarioError } from './scenario.js'
export { STRATEGIES, type StrategyName } from './strategy.js'

export interface ExploreOptions {
  /** Runs to make (default 1,000). An exhaustive search ends when all is seen, at the latest after so many (default 1,000,000). */
  schedules?: number
  /** Seconds after which no further run begins (default: no limit). */
  seconds?: number
  /** `mix` (default): PCT, chance and turns after one another. */
  strategy?: StrategyName
  /**
   * What stands between plain stores and memory: nothing (`sc`, the default), a store buffer for each actor (`tso`, as x86
   * has it), or one for each word of it (`pso`). With buffers plain accesses are steps, and races are not reported unless
   * asked for.
   */
  memory?: MemoryModel
  /** PCT: bug depth to look for (default 2). */
  depth?: number
  seed?: number
  /** A replay id of an earlier finding: run just that. */
  replay?: string
  /** Go on after the first finding, and group the findings by their cause. */
  all?: boolean
  /** The actors are CPUs of a machine: the scenario uses the kernel's modules. */
  kernel?: KernelOptions
  /** For the scenario's `setup`; reaches it as `postMessage` would carry it. */
  args?: unknown
  /** Runs to spend on making a finding plainer (default: 3,000 of them, or 8 s; as given, the same finding on every host). */
  shrink?: number
  /** Make each run twice, and see that both do the same (default false; the first run always is). */
  verify?: boolean
  /** Make plain element accesses visible, in every module that the scenario loads (default true). */
  instrument?: boolean
  /** Report data races of plain accesses (default true). */
  races?: boolean
  /** Let other actors go on before plain accesses too, not only before atomic ones (default: only without `races`). */
  plainSteps?: boolean
  /**
   * Times that an actor may see a word unchanged before it is taken to wait for its change (default 3; 6 for an exhaustive
   * search, whose proof rests on it when `spun` is not 0).
   */
  spinLooks?: number
  /** Greatest number of steps of a run (default 20,000); longer ones are given up and counted. */
  maxSteps?: number
  /** Seconds without any step after which an actor is taken to be lost (default 10). */
  hangSeconds?: number
  /** Return findings instead of throwing an ExploreError. */
  throws?: boolean
  signal?: AbortSignal
  progress?: (done: number, total: number, label: string) => void
}

/** ExploreError - something was found. The message explains it; `finding` is the same as data. */
export class ExploreError extends Error {
  override name = 'ExploreError'
  readonly finding: Finding
  constructor(readonly exploration: Exploration) {
    const finding = exploration.findings[0]!
    super(lanes(finding))
    this.finding = finding
  }
}

/** The least that the kernel boots with, and the most whose writes are remembered. */
const MEGABYTES = [16, 128] as const
const MAX_CELLS = 1 << 14
const KERNEL_CELLS = 1 << 16
const POLL_MS = 200
/** A thread that spins for its turn for long takes the core from the one that has it. */
const GATE_SPINS = 100

/**
 * explore - run the scenario in module `where` (a URL or a file name) until something is found or the budget is spent.
 *
 * @returns what was done. Throws an ExploreError when something was found, a ScenarioError when the scenario cannot be run.
 */
export async function explore(where: string | URL, options: ExploreOptions = {}): Promise<Exploration> {
  check(options)
  const result = await new Exploring(scenarioUrl(where), options).run()
  if (result.findings.length > 0 && options.throws !== false) throw new ExploreError(result)
  return result
}

function check(options: ExploreOptions): void {
  const { strategy, schedules, depth, maxSteps, memory } = options
  const refuse = (what: string): never => {
    throw new ScenarioError(what)
  }
  if (strategy !== undefined && !STRATEGIES.includes(strategy))
    refuse(`strategy '${strategy}': must be one of ${STRATEGIES.join(', ')}`)
  if (memory !== undefined && !MEMORIES.includes(memory))
    refuse(`memory '${memory}': must be one of ${MEMORIES.join(', ')}`)
  const lock = options.kernel?.lock
  if (lock !== undefined && !LOCKS.includes(lock)) refuse(`kernel.lock '${lock}': must be one of ${LOCKS.join(', ')}`)
  if ((memory ?? 'sc') !== 'sc' && (options.instrument === false || options.plainSteps === false))
    refuse(`memory '${memory}': plain stores must be seen, and be steps`)
  for (const [name, n, least, most] of [
    ['schedules', schedules, 1, 1e9],
    ['depth', depth, 1, 8],
    ['maxSteps', maxSteps, 10, 1e6],
    ['shrink', options.shrink, 0, 1e6],
    ['spinLooks', options.spinLooks, 2, 1e6],
    ['kernel.megabytes', options.kernel?.megabytes, ...MEGABYTES],
  ] as const)
    if (n !== undefined && !(Number.isInteger(n) && n >= least && n <= most))
      refuse(`${name} ${n}: must be a whole number from ${least} to ${most}`)
}

/** One exploration, from the host's side. */
class Exploring {
  readonly #workers: Worker[] = []
  readonly #data: ActorData
  readonly #options: ExploreOptions
  #words: Int32Array | null = null
  #total: Float64Array | null = null
  #names: string[] = []
  #finish: (result: Exploration) => void = () => {}
  #fail: (error: Error) => void = () => {}
  #over = false

  constructor(url: string, options: ExploreOptions) {
    this.#options = options
    const strategy = options.strategy ?? 'mix'
    const memory = options.memory ?? 'sc'
    const config: ExploreConfig = {
      scenario: nameOfScenario(url),
      schedules: options.schedules ?? (strategy === 'exhaustive' ? 1_000_000 : 1000),
      timeMs: (options.seconds ?? Infinity) * 1000,
      strategy,
      memory,
      depth: options.depth ?? 2,
      seed: options.seed ?? 1,
      replay: options.replay ?? null,
      all: options.all ?? false,
      shrink: options.shrink ?? null,
      verify: options.verify ?? false,
    }
    const instrument = options.instrument ?? true
    const races = options.races ?? memory === 'sc'
    this.#data = {
      index: 0,
      url,
      config,
      maxSteps: options.maxSteps ?? 20_000,
      maxCells: options.kernel === undefined ? MAX_CELLS : KERNEL_CELLS,
      instrument,
      texts: instrument ? instrumentedGraph(url) : null,
      races,
      plainSteps: options.plainSteps ?? (!races || memory !== 'sc'),
      args: options.args,
      kernel: options.kernel ?? null,
      spinLooks: options.spinLooks ?? (strategy === 'exhaustive' ? 6 : 3),
      spins: availableParallelism() > 1 ? GATE_SPINS : 0,
    }
  }

  async run(): Promise<Exploration> {
    const result = new Promise<Exploration>((resolve, reject) => {
      this.#finish = resolve
      this.#fail = reject
    })
    const watch = this.#watch()
    const abort = (): void => this.#fail(new ScenarioError('interrupted', 'run'))
    this.#options.signal?.addEventListener('abort', abort)
    if (this.#options.signal?.aborted) abort()
    else this.#start(this.#data)
    try {
      return await result
    } finally {
      this.#over = true
      clearInterval(watch)
      this.#options.signal?.removeEventListener('abort', abort)
      if (this.#words !== null) Atomics.store(this.#words, W.PHASE, W.PHASE_QUIT)
      await Promise.all(this.#workers.map(w => w.terminate()))
    }
  }

  #start(data: ActorData): Worker {
    const worker = new Worker(new URL('../../workers/actor.js', import.meta.url), {
      workerData: data,
      ...(data.texts === null ? {} : { execArgv: LINKER_FLAGS }),
    })
    this.#workers.push(worker)
    const name = (): string => this.#names[data.index] ?? `actor ${data.index}`
    worker.on('message', (m: ActorMessage) => this.#heard(worker, m))
    worker.on('error', error => this.#fail(new ScenarioError(`the thread of ${name()} died: ${error.message}`, 'run')))
    worker.on('exit', code => {
      if (!this.#over && code !== 0)
        this.#fail(new ScenarioError(`the thread of ${name()} ended with exit code ${code}`, 'run'))
      else if (!this.#over && data.index === 0)
        setTimeout(() => this.#fail(new ScenarioError(`the thread of ${name()} ended`, 'run')), POLL_MS)
    })
    return worker
  }

  #ready = 0

  #heard(from: Worker, message: ActorMessage): void {
    if (message.type === 'failed') this.#fail(new ScenarioError(message.message, message.kind))
    else if (message.type === 'done') this.#finish(message.result)
    else if (message.type === 'ready') {
      if (++this.#ready === this.#names.length - 1) this.#workers[0]!.postMessage('go')
    } else this.#startOthers(from, message)
  }

  #startOthers(first: Worker, { words, shared, names, memory }: Extract<ActorMessage, { type: 'loaded' }>): void {
    this.#names = names
    this.#words = new Int32Array(words)
    this.#total = new Float64Array(words)
    if (names.length === 1) first.postMessage('go')
    for (let index = 1; index < names.length; index++)
      this.#start({ ...this.#data, index, shared, words, actors: names.length, memory: memory ?? undefined })
  }

  /** Progress, and an actor that does not come back. */
  #watch(): NodeJS.Timeout {
    const { progress, hangSeconds = 10 } = this.#options
    const { schedules } = this.#data.config
    let last = -1
    let since = performance.now()
    return setInterval(() => {
      const words = this.#words
      const done = words?.[W.SCHEDULES] ?? 0
      const steps = words === null ? 0 : this.#total![W.TOTAL >> 1]! + words[W.STEP]! + done
      progress?.(Math.min(done, schedules), schedules, `${done} schedules`)
      const now = performance.now()
      if (steps !== last) {
        last = steps
        since = now
      } else if (now - since > hangSeconds * 1000) this.#fail(new ScenarioError(this.#lost(hangSeconds), 'run'))
    }, POLL_MS)
  }

  #lost(seconds: number): string {
    const { scenario } = this.#data.config
    const words = this.#words
    if (words === null) return `${scenario}: did not load within ${seconds} s`
    const actor = this.#names[words[W.TURN]!] ?? 'an actor'
    return (
      `${scenario}: ${actor} did nothing that others can see for ${seconds} s: ` +
      'a loop that never looks at shared memory, or a wait that is not under control'
    )
  }
}

/** As short as it can be said: below the working directory. */
function nameOfScenario(url: string): string {
  if (!url.startsWith('file:')) return url
  const path = decodeURIComponent(new URL(url).pathname)
  const cwd = `${process.cwd().replaceAll('\\', '/')}/`
  return path.startsWith(cwd) ? path.slice(cwd.length) : path
}
