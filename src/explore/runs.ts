/**
 * runs.ts - one run after the other: the part of thread 0 that starts them, and looks at how they end.
 *
 * Thread 0 runs actor 0 as well, so that a run needs no thread more than it has actors.
 */
import { prng_seed } from '../lib/prng.js'
import type { ActorThread } from './actor.js'
import { PRIVATE } from './memory.js'
import { native } from './native.js'
import { detectorOf, messageOf } from './scenario.js'
import { Snapshot } from './snapshot.js'
import { actorAt, lowest, seedRun } from './strategy.js'
import * as W from './words.js'

/** Runs after which all memory is compared, in case a write was not seen. */
const CHECK_EVERY = 500

/** What one run came to. */
export interface Outcome {
  /** FOUND_* or ENDED_*. */
  found: number
  steps: number
  hash: number
  preemptions: number
  decisions: number
  /** Of a plan: the step from which on it could not be followed, or -1. */
  diverged: number
  /** Of findings of one cause this is the same. */
  signature: string
  message: string
  /** The detector's name, when what was thrown says it. */
  named: string
}

export interface RunOptions {
  how: number
  seed: number
  depth?: number
  /** About how long a run is, for PCT. */
  length?: number
  plan?: readonly number[]
  /** Actors that need not be tried after the plan, for an exhaustive search. */
  asleep?: number
  /** Keep places in the source, in a trace with all plain accesses or with the steps alone. */
  record?: 'all' | 'steps'
  /** So many races do not end the run, whatever they are. */
  pass?: number
  /** Whether it gets anywhere is not asked before this step. */
  lookFrom?: number
}

/** Runs - of a scenario on the threads that stand ready. */
export class Runs {
  readonly #snapshots: Snapshot[]
  readonly #thread: ActorThread
  readonly #invariant: ((shared: unknown) => unknown) | null
  readonly #names: readonly string[]
  #byPages: boolean
  #restores = 0

  constructor(thread: ActorThread, invariant: ((shared: unknown) => unknown) | null, names: readonly string[]) {
    this.#thread = thread
    this.#invariant = invariant
    this.#names = names
    this.#snapshots = thread.memory.shared.map(b => new Snapshot(b))
    this.#byPages = this.#snapshots.some(s => s.byPages)
    thread.engine.tracking = this.#byPages
  }

  get w(): Int32Array {
    return this.#thread.engine.w
  }

  /** Run the scenario once, from its snapshot. */
  async run(options: RunOptions): Promise<Outcome> {
    const { engine } = this.#thread
    const { w } = engine
    this.#reset(options)
    native.store(w, W.PHASE, W.PHASE_RUN)
    const first = engine.decide(-1)
    if (first > 0) engine.openGate(first)
    if (first === 0) await this.#thread.run()
    while (w[W.PHASE] === W.PHASE_RUN) {
      engine.waitGate()
      if (w[W.PHASE] !== W.PHASE_RUN) break
      await this.#thread.run()
    }
    this.#clearStacks()
    w[W.SCHEDULES]!++
    engine.f[W.TOTAL >> 1] = engine.f[W.TOTAL >> 1]! + w[W.STEP]!
    if (w[W.FOUND] === W.FOUND_NOTHING) this.#lookAtSleepers()
    if (w[W.FOUND] === W.FOUND_NOTHING) await this.#askInvariant()
    return this.#outcome()
  }

  /** Whose each step was, of the first `records` in the trace. */
  executed(records = this.w[W.TRACED]!): number[] {
    const { w } = this
    const whose: number[] = []
    for (let k = 0; k < records; k++) {
      const t = w[W.TRACE + k * W.TRACE_WORDS]!
      if (t >>> 24 !== W.UNASKED) whose.push(t & 255)
    }
    return whose
  }

  /** What the last run was told to do. */
  plan(): number[] {
    const { w, layout } = this.#thread.engine
    return Array.from(w.subarray(layout.plan, layout.plan + w[W.PLAN_LENGTH]!))
  }

  #reset(options: RunOptions): void {
    const { w, f, layout } = this.#thread.engine
    const n = layout.actors
    w[W.STEP] = 0
    w[W.TRACED] = 0
    w[W.FOUND] = W.FOUND_NOTHING
    w[W.FOUND_ACTOR] = -1
    w[W.FOUND_OTHER] = -1
    w[W.FOUND_ADDRESS] = -1
    w[W.FOUND_STEP2] = -1
    w[W.HASH] = 0
    w[W.PASSED] = 0
    w[W.CLAIM_COUNT] = 0
    w[W.TO_PASS] = options.pass ?? 0
    w[W.PREEMPTIONS] = 0
    w[W.DECISIONS] = 0
    w[W.GENERATION]!++
    w[W.CELL_COUNT] = 0
    w[W.TEXT_AT] = 0
    w[W.MESSAGE_LENGTH] = 0
    w[W.IDLE_ROUNDS] = 0
    w[W.LAST] = -1
    w[W.IN_A_ROW] = 0
    w[W.ASKED_TIME] = 0
    w[W.DIVERGED] = -1
    w[W.ASLEEP] = options.asleep ?? 0
    w[W.RECORD] = options.record === undefined ? 0 : options.record === 'all' ? W.RECORD_ALL : W.RECORD_STEPS
    f[W.CLOCK >> 1] = 0
    if (w[W.WAIT_ORDER] !== 0) w.fill(0, W.WAIT_TABLE, W.WAIT_TABLE + W.MAX_WAITS * W.WAIT_WORDS)
    w[W.WAIT_ORDER] = 0
    w.fill(0, W.CLOCKS, W.CLOCKS + W.MAX_ACTORS * W.MAX_ACTORS)
    this.#thread.engine.buffers.reset()
    this.#thread.engine.progress.reset(options.lookFrom ?? 0)
    for (let a = 0; a < n; a++) {
      const at = actorAt(a)
      w.fill(0, at, at + W.A_GATE)
      w[at] = W.STATE_READY
      w[at + W.A_KIND] = W.K_START
      w[W.CLOCKS + a * W.MAX_ACTORS + a] = 1
      prng_seed(w.subarray(at + W.A_RNG, at + W.A_RNG + 4), w[W.SEED]! + a)
    }
    const plan = options.plan ?? []
    w[W.PLAN_LENGTH] = plan.length
    w[W.PLAN_SHIFT] = 0
    for (let k = 0; k < plan.length; k++) w[layout.plan + k] = plan[k]!
    seedRun(w, options.how, options.seed, options.depth ?? 0, options.length ?? 0)
    this.#restore()
  }

  /** Put the memory back: all of it, or the pages that were written when that is known and worth it. */
  #restore(): void {
    const { w, layout } = this.#thread.engine
    if (!this.#byPages || this.#restores++ % CHECK_EVERY === 0) {
      this.#restoreAll()
      return
    }
    for (const [k, snapshot] of this.#snapshots.entries()) {
      if (!snapshot.byPages) {
        snapshot.restore()
        continue
      }
      const first = this.#firstPage(k)
      for (let word = first >>> 5; word <= (first + snapshot.pages) >>> 5; word++) {
        for (let bits = w[layout.dirty + word]!; bits !== 0; bits &= bits - 1) {
          const page = word * 32 + lowest(bits) - first
          if (page >= 0 && page < snapshot.pages) snapshot.restorePage(page)
        }
      }
    }
    this.#forgetPages()
  }

  /** A page that differs and was not said to be written: then nothing can be relied on but to look at all. */
  #restoreAll(): void {
    const { w, layout } = this.#thread.engine
    const knows = this.#byPages && this.#restores > 1
    for (const [k, snapshot] of this.#snapshots.entries()) {
      const first = this.#firstPage(k)
      snapshot.restore(page => {
        const known = (w[layout.dirty + ((first + page) >>> 5)]! & (1 << ((first + page) & 31))) !== 0
        if (knows && !known) this.#byPages = false
      })
    }
    this.#forgetPages()
  }

  /** Number of the first page of shared buffer `k`. */
  #firstPage(k: number): number {
    const { memory } = this.#thread
    return memory.baseOf(memory.shared[k]!) >>> W.PAGE_SHIFT
  }

  #forgetPages(): void {
    const { w, layout } = this.#thread.engine
    for (let k = 0; k < W.MAX_PAGES / 32; k++) w[layout.dirty + k] = 0
  }

  /** Actors that the end of the run found inside their code leave it now. */
  #clearStacks(): void {
    const { engine } = this.#thread
    const { w } = engine
    for (let a = 1; a < engine.layout.actors; a++) {
      const at = actorAt(a)
      if (w[at + W.A_STARTED] === 0) {
        w[at] = W.STATE_OFF
        continue
      }
      if (w[at] !== W.STATE_OFF) engine.openGate(a)
      while (native.load(w, at) !== W.STATE_OFF) engine.waitGate()
      // It may be about to open this thread's gate, which the next run would take for its turn.
      for (let spins = w[W.SPINS]!; ; spins--) {
        const left = native.load(w, at + W.A_LEFT)
        if (left === w[W.GENERATION]) break
        if (spins <= 0) native.wait(w, at + W.A_LEFT, left, 1)
      }
    }
    native.store(w, actorAt(0) + W.A_GATE, 0)
  }

  /** Nobody can go on, but some have not ended: what do they wait for? */
  #lookAtSleepers(): void {
    const { engine, memory } = this.#thread
    const { w } = engine
    const stuck = Array.from({ length: engine.layout.actors }, (_, a) => a).filter(a => this.#end(a) !== W.STATE_OFF)
    if (stuck.length === 0) return
    w[W.FOUND_ACTOR] = stuck[0]!
    w[W.FOUND] = W.FOUND_DEADLOCK
    const spinner = stuck.find(a => this.#end(a) === W.STATE_SPINNING)
    if (spinner !== undefined) {
      w[W.FOUND_ACTOR] = spinner
      w[W.FOUND] = W.FOUND_STALL
    }
    for (let k = 0; k < W.MAX_WAITS; k++) {
      const at = W.WAIT_TABLE + k * W.WAIT_WORDS
      const address = w[at + W.W_ADDRESS]!
      if (w[at] !== W.W_ASLEEP || address < 0) continue
      const missed = this.missedNotify(at)
      const now = address < PRIVATE ? this.#wordAt(memory.shared, address) : w[at + W.W_EXPECTED]!
      // The same circle is the same finding, whoever closed it.
      if (w[W.FOUND] === W.FOUND_DEADLOCK && (w[W.FOUND_ADDRESS]! < 0 || address < w[W.FOUND_ADDRESS]!))
        w[W.FOUND_ADDRESS] = address
      // All others have ended, so nobody holds anything any more: unless it sleeps for what it has taken itself.
      const alone = stuck.length === 1 && spinner === undefined && this.#lastWriter(at) !== w[at + W.W_ACTOR]
      if (missed < 0 && now === w[at + W.W_EXPECTED] && !alone) continue
      w[W.FOUND] = W.FOUND_LOST_WAKEUP
      w[W.FOUND_ACTOR] = w[at + W.W_ACTOR]!
      w[W.FOUND_ADDRESS] = address
      w[W.FOUND_STEP] = w[at + W.W_STEP]!
      w[W.FOUND_STEP2] = missed
      return
    }
  }

  /**
   * The last notify by another actor at the word that the sleeper of entry `at` sleeps on, before it slept, when it woke
   * nobody and the word has not changed since; or -1.
   */
  missedNotify(at: number): number {
    const { w } = this
    for (let step = w[at + W.W_STEP]! - 1; step >= 0; step--) {
      const t = W.TRACE + step * W.TRACE_WORDS
      if (w[t + W.T_ADDRESS] !== w[at + W.W_ADDRESS]) continue
      const kind = (w[t]! >>> 8) & 255
      if (changes(kind) && w[t + W.T_BEFORE] !== w[t + W.T_AFTER]) return -1
      if (kind !== W.K_NOTIFY || (w[t]! & 255) === w[at + W.W_ACTOR]) continue
      return w[t + W.T_AFTER] === 0 ? step : -1
    }
    return -1
  }

  /** Who changed the word that the sleeper of entry `at` sleeps on last, by an atomic operation; or -1. */
  #lastWriter(at: number): number {
    const { w } = this
    for (let step = w[W.TRACED]! - 1; step >= 0; step--) {
      const t = W.TRACE + step * W.TRACE_WORDS
      if (w[t + W.T_ADDRESS] !== w[at + W.W_ADDRESS] || w[t]! >>> 24 !== 0) continue
      if (changes((w[t]! >>> 8) & 255) && w[t + W.T_BEFORE] !== w[t + W.T_AFTER]) return w[t]! & 255
    }
    return -1
  }

  #wordAt(buffers: readonly SharedArrayBuffer[], address: number): number {
    for (const buffer of buffers) {
      const offset = address - this.#thread.memory.baseOf(buffer)
      if (offset >= 0 && offset < buffer.byteLength) return new Int32Array(buffer, offset & ~3, 1)[0]!
    }
    return 0
  }

  #end(actor: number): number {
    return this.w[actorAt(actor) + W.A_END]!
  }

  async #askInvariant(): Promise<void> {
    if (this.#invariant === null) return
    let message = ''
    let detector = ''
    try {
      const answer = await this.#invariant(this.#thread.shared)
      if (answer === false) message = 'it returned false'
    } catch (error) {
      message = messageOf(error)
      detector = detectorOf(error)
    }
    if (message === '') return
    this.#thread.engine.say(`${detector}\n${message}`)
    this.w[W.FOUND] = W.FOUND_INVARIANT
  }

  #outcome(): Outcome {
    const { engine } = this.#thread
    const { w } = engine
    const found = w[W.FOUND]!
    const said = engine.text.read(w[W.MESSAGE_AT]!, w[W.MESSAGE_LENGTH]!)
    const [named = '', message = ''] = said.split('\n')
    return {
      found,
      steps: w[W.STEP]!,
      hash: w[W.HASH]!,
      preemptions: w[W.PREEMPTIONS]!,
      decisions: w[W.DECISIONS]!,
      diverged: w[W.DIVERGED]!,
      message,
      named,
      signature: this.#signature(found, message),
    }
  }

  #signature(found: number, message: string): string {
    const { w } = this
    const address = w[W.FOUND_ADDRESS]!
    if (found === W.FOUND_EXCEPTION || found === W.FOUND_INVARIANT) return `${found} ${message.replace(/\d+/g, '#')}`
    if (found !== W.FOUND_RACE) return `${found} ${address}`
    const pair = [w[W.FOUND_ACTOR]!, w[W.FOUND_OTHER]!].sort((a, b) => a - b).map(a => this.#names[a])
    return `${found} ${address} ${pair.join(' ')}`
  }
}

function changes(kind: number): boolean {
  return (kind >= W.K_STORE && kind <= W.K_CAS) || kind === W.K_WRITE || kind === W.K_FLUSH
}
