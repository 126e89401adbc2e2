/** conductor.ts - an exploration: which runs, in what order, and what becomes of a finding. */
import type { ActorThread } from './actor.js'
import type { MemoryModel } from './buffers.js'
import { type Finding, findingOf, isChoice, stepsOf } from './finding.js'
import { type Name, nameOf, namesIn } from './memory.js'
import { native } from './native.js'
import { Search } from './reduce.js'
import { checkOf, parseReplayId } from './replayId.js'
import { type Outcome, type RunOptions, Runs } from './runs.js'
import { type Loaded, ScenarioError } from './scenario.js'
import { shrink } from './shrink.js'
import {
  BY_CHANCE,
  BY_PLAN,
  BY_PRIORITY,
  BY_SEARCH,
  BY_STICKY_CHANCE,
  BY_TURNS,
  type StrategyName,
} from './strategy.js'
import * as W from './words.js'

export interface ExploreConfig {
  scenario: string
  schedules: number
  /** Ends the exploration after so long, ms of host time; Infinity: never. */
  timeMs: number
  strategy: StrategyName
  /** What stands between plain stores and memory. */
  memory: MemoryModel
  depth: number
  seed: number
  /** Replay this run instead of exploring. */
  replay: string | null
  /** Go on after the first finding. */
  all: boolean
  /** Runs to spend on making a finding plainer; null: as is worth it. */
  shrink: number | null
  /** Make each run twice, and see that both do the same. */
  verify: boolean
}

export interface Exploration {
  schema: 'softnet.explore/1'
  scenario: string
  actors: string[]
  strategy: StrategyName | 'replay'
  memory: MemoryModel
  seed: number
  /** Runs made, without those that made a finding plainer. */
  schedules: number
  steps: number
  longest: number
  /** Exhaustive: every order that matters was seen. */
  exhausted: boolean
  /** Exhaustive: runs that were given up, since all that could follow had been seen. */
  redundant: number
  /** Runs given up: at the greatest number of steps, or in a loop that would have ended some time. */
  cut: number
  /** Times that an actor was taken to wait, since it had looked at unchanged words again and again. */
  spun: number
  findings: Finding[]
  /** Of all that happened in all runs: the same for the same seed. */
  hash: number
  /** How often each outcome was seen, by what the scenario calls it. */
  outcomes: Record<string, number>
  /** Of a replay: the step at which the code no longer did what it had done, or -1. */
  forkedAt: number
  seconds: number
}

/** Runs of one exploration all have seeds of their own. */
function seedOf(seed: number, k: number): number {
  return (Math.imul(seed ^ 0x2545f491, 0x9e3779b1) + Math.imul(k, 0x85ebca6b)) | 0
}

const BY_NAME = { random: BY_CHANCE, pct: BY_PRIORITY, 'round-robin': BY_TURNS } as const

/** Conductor - of one exploration, on thread 0. */
export class Conductor {
  readonly #thread: ActorThread
  readonly #config: ExploreConfig
  readonly #runs: Runs
  readonly #result: Exploration
  readonly #causes = new Set<string>()
  readonly #actors: string[]
  #length = 1

  readonly #outcome: Loaded['outcome']
  readonly #describe: Loaded['describe']

  constructor(thread: ActorThread, loaded: Loaded, config: ExploreConfig) {
    this.#thread = thread
    this.#config = config
    const actors = loaded.names
    this.#actors = actors
    this.#outcome = loaded.outcome
    this.#describe = loaded.describe
    this.#runs = new Runs(thread, loaded.invariant, actors)
    const { scenario, seed, memory } = config
    const strategy = config.replay === null ? config.strategy : 'replay'
    const counts = { schedules: 0, steps: 0, longest: 0, exhausted: false, redundant: 0, cut: 0, spun: 0, seconds: 0 }
    this.#result = {
      schema: 'softnet.explore/1',
      scenario,
      actors,
      strategy,
      memory,
      seed,
      ...counts,
      findings: [],
      hash: 0,
      forkedAt: -1,
      outcomes: {},
    }
  }

  async explore(): Promise<Exploration> {
    const began = native.now()
    const config = this.#config
    this.#thread.engine.w[W.SEED] = config.seed
    if (config.replay !== null) await this.#replay(config.replay)
    else {
      await this.#checkChance()
      if (config.strategy === 'exhaustive') await this.#search(began)
      else await this.#sample(began)
    }
    this.#result.spun = this.#thread.engine.w[W.SPUN]!
    this.#result.seconds = (native.now() - began) / 1000
    return this.#result
  }

  /** The first run twice: a scenario that is no function of its seed cannot be replayed. */
  async #checkChance(): Promise<void> {
    const one = await this.#twice({ how: BY_PLAN, seed: 0 })
    this.#length = Math.max(1, one.steps)
  }

  /** Make a run twice, and see that both do the same. */
  async #twice(options: RunOptions): Promise<Outcome> {
    const one = await this.#runs.run(options)
    const steps = this.#steps()
    const two = await this.#runs.run(options)
    if (one.hash === two.hash && one.found === two.found) return two
    const other = this.#steps()
    const k = steps.findIndex((s, i) => s !== other[i])
    const at = k < 0 ? Math.min(steps.length, other.length) : k
    throw new ScenarioError(
      `${this.#config.scenario}: two runs of one schedule differ from step ${at} on` +
        ` (${this.#said(steps[at])}, then ${this.#said(other[at])}): ` +
        'an actor depends on something outside control, such as state that a module keeps from run to run, files, or the network',
      'run',
    )
  }

  /** Actor, kind, address and values of each step. */
  #steps(): string[] {
    const { w } = this.#runs
    return Array.from({ length: w[W.TRACED]! }, (_, k) =>
      w.subarray(W.TRACE + k * W.TRACE_WORDS, W.TRACE + k * W.TRACE_WORDS + 4).join(),
    )
  }

  #said(step: string | undefined): string {
    if (step === undefined) return 'nothing'
    const [who, address, before, after] = step.split(',').map(Number) as [number, number, number, number]
    const where = nameOf(this.#names(), address, this.#describe)
    return `${this.#actors[who & 255]} ${W.KINDS[(who >>> 8) & 255]} ${where} ${before} -> ${after}`
  }

  #over(began: number): boolean {
    const { schedules, timeMs } = this.#config
    if (this.#result.schedules >= schedules || native.load(this.#runs.w, W.STOP) !== 0) return true
    return (this.#result.schedules & 15) === 0 && native.now() - began > timeMs
  }

  async #sample(began: number): Promise<void> {
    for (let k = 0; !this.#over(began); k++) {
      const options = this.#choose(k)
      const outcome = await (this.#config.verify ? this.#twice(options) : this.#runs.run(options))
      if (await this.#note(outcome)) return
    }
  }

  /** How run k of an exploration is chosen. The mix begins with the plainest: one actor after the other, then turn by turn. */
  #choose(k: number): RunOptions {
    const { strategy, seed, depth } = this.#config
    const options = { seed: seedOf(seed, k), depth, length: this.#length }
    if (strategy !== 'mix' && strategy !== 'exhaustive') return { ...options, how: BY_NAME[strategy] }
    if (k < 2) return { ...options, how: k === 0 ? BY_PLAN : BY_TURNS }
    switch (k % 8) {
      case 1:
      case 5:
        return { ...options, how: BY_STICKY_CHANCE }
      case 3:
        return { ...options, how: BY_CHANCE }
      case 7:
        return { ...options, how: BY_PRIORITY, depth: depth + 1 }
      default:
        return { ...options, how: BY_PRIORITY, depth }
    }
  }

  async #search(began: number): Promise<void> {
    const { engine } = this.#thread
    const { w, layout, strategy } = engine
    const search = new Search(
      layout.units,
      unit => engine.owner(unit),
      (a, b) => strategy.interrupts(a, b),
    )
    while (!this.#over(began)) {
      const outcome = await this.#runs.run({ how: BY_SEARCH, seed: 0, ...search.next() })
      const more = search.learn(w, layout)
      if (outcome.found === W.ENDED_REDUNDANT) this.#result.redundant = search.redundant
      if (await this.#note(outcome)) return
      if (more) continue
      this.#result.exhausted = this.#result.cut === 0
      return
    }
  }

  /** Count a run. @returns true when the exploration ends with it */
  async #note(outcome: Outcome): Promise<boolean> {
    const result = this.#result
    result.schedules++
    result.steps += outcome.steps
    result.hash = Math.imul(result.hash ^ outcome.hash, 0x01000193) ^ outcome.found
    result.longest = Math.max(result.longest, outcome.steps)
    this.#length = Math.max(this.#length, outcome.found === W.FOUND_NOTHING ? outcome.steps : 1)
    if (outcome.found === W.ENDED_CUT) result.cut++
    if (outcome.found === W.FOUND_NOTHING) this.#countOutcome()
    if (outcome.found === W.FOUND_NOTHING || outcome.found >= W.ENDED_CUT) return false
    if (this.#causes.has(outcome.signature)) return false
    const isLivelock = outcome.found === W.FOUND_LIVELOCK
    const way = this.#runs.executed().slice(0, isLivelock ? this.#runs.w[W.FAIR_FROM]! : undefined)
    if (isLivelock && !(await this.#isForEver(way, outcome))) {
      result.cut++
      return false
    }
    this.#causes.add(outcome.signature)
    const { plan, tried } = await shrink(this.#runs, way, outcome, this.#config.shrink)
    await this.#record(plan, result.schedules, tried)
    return !this.#config.all
  }

  /** Once more, and each actor has gone further before it is looked at: a loop that was about to end ends. */
  async #isForEver(way: readonly number[], outcome: Outcome): Promise<boolean> {
    const plan = [...way, W.BY_TURNS_FROM_HERE]
    const lookFrom = this.#actors.length * outcome.steps
    const again = await this.#runs.run({ how: BY_PLAN, seed: 0, plan, lookFrom })
    return again.signature === outcome.signature
  }

  /** How to speak of addresses: what setup returned, and of a kernel's RAM what the kernel says. */
  #names(): Name[] {
    const { memory, shared } = this.#thread
    const names = namesIn(shared, memory)
    for (const buffer of memory.shared)
      names.push({ path: 'RAM', address: memory.baseOf(buffer), bytes: buffer.byteLength, element: 0 })
    return names
  }

  #countOutcome(): void {
    if (this.#outcome === null) return
    const { outcomes } = this.#result
    const name = String(this.#outcome(this.#thread.shared))
    outcomes[name] = (outcomes[name] ?? 0) + 1
  }

  /** A run for whoever reads of it: with its plain accesses, unless there is no room for all of them. */
  async #recorded(plan: readonly number[], pass = 0): Promise<Outcome> {
    const outcome = await this.#runs.run({ how: BY_PLAN, seed: 0, plan, pass, record: 'all' })
    if (outcome.found !== W.ENDED_CUT) return outcome
    return this.#runs.run({ how: BY_PLAN, seed: 0, plan, pass, record: 'steps' })
  }

  async #record(plan: readonly number[], schedules: number, shrunkBy: number): Promise<void> {
    const outcome = await this.#recorded(plan)
    if (outcome.found === W.FOUND_NOTHING || outcome.found >= W.ENDED_CUT)
      throw new ScenarioError(
        `${this.#config.scenario}: a finding could not be replayed: the actors depend on something outside control`,
        'run',
      )
    const { scenario, seed } = this.#config
    const facts = {
      scenario,
      actors: this.#actors,
      names: this.#names(),
      describe: this.#describe,
      schedules,
      shrunkBy,
      seed,
    }
    this.#result.findings.push(findingOf(this.#thread, this.#runs, outcome, facts))
    if (!this.#config.all || outcome.found !== W.FOUND_RACE) return
    // What comes behind it is of interest now.
    const { w, cells } = this.#thread.engine
    cells.know(w[W.FOUND_ADDRESS]!, w[W.FOUND_ACTOR]!, w[W.FOUND_OTHER]!)
  }

  async #replay(id: string): Promise<void> {
    const replay = parseReplayId(id)
    if (replay === null) throw new ScenarioError(`'${id}' is no replay id: it begins with '1.', as a finding prints it`)
    if (replay.plan.some(a => a >= this.#thread.engine.layout.units && a !== W.BY_TURNS_FROM_HERE))
      throw new ScenarioError(
        `the replay id is of a scenario with more actors than the ${this.#actors.length} of this one, or of another memory model`,
      )
    const outcome = await this.#recorded(replay.plan, replay.passed)
    const { scenario, seed } = this.#config
    const facts = {
      scenario,
      actors: this.#actors,
      names: this.#names(),
      describe: this.#describe,
      schedules: 1,
      shrunkBy: 0,
      seed,
    }
    const finding = findingOf(this.#thread, this.#runs, outcome, facts)
    const steps = stepsOf(this.#thread, facts).filter(isChoice)
    const fork = replay.checks.find(({ step, check }) => {
      const done = steps[step]
      return done === undefined || checkOf(done) !== check
    })
    const forks = [outcome.diverged, fork?.step ?? -1].filter(n => n >= 0)
    this.#result.forkedAt = forks.length === 0 ? -1 : Math.min(...forks)
    this.#result.schedules = 1
    this.#result.steps = outcome.steps
    this.#result.longest = outcome.steps
    this.#result.hash = outcome.hash
    if (outcome.found !== W.FOUND_NOTHING && outcome.found < W.ENDED_CUT) this.#result.findings.push(finding)
  }
}
