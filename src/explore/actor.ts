/** actor.ts - runs one actor of a scenario on this thread, once for each run. */
import type { Pending } from './atomics.js'
import { type Engine, UNWIND } from './engine.js'
import { short } from './finding.js'
import type { InterruptLine } from './interrupts.js'
import type { Memory } from './memory.js'
import { native } from './native.js'
import { type Actor, type ActorInfo, detectorOf, messageOf, otherStepOf } from './scenario.js'
import { originalPlace } from './sourceMaps.js'
import { actorAt, BY_SEARCH } from './strategy.js'
import * as W from './words.js'

/** What the kernel's modules say of themselves, where an actor uses them. */
export interface KernelWatch {
  /** An actor begins. */
  begun?(): void
  /** An actor has come to its end: throws when the CPU is not as it should be then. */
  ended?(): void
  /** Context and held locks of this CPU. */
  here?(): string
  /** What this CPU takes between its steps. */
  interrupts?: InterruptLine
}

/** ActorThread - the actor of this thread. */
export class ActorThread {
  readonly #at: number

  constructor(
    readonly engine: Engine,
    readonly memory: Memory,
    readonly pending: Pending,
    readonly actor: Actor,
    readonly shared: unknown,
    readonly info: ActorInfo,
  ) {
    this.#at = actorAt(engine.me)
  }

  /** Run the actor from its start; this thread has the turn. Returns a promise when the actor is an async one. */
  run(): void | Promise<void> {
    const { engine } = this
    this.memory.forgetOwn()
    engine.buffers.forgetOwn()
    engine.speculation.forget()
    engine.w[this.#at + W.A_STARTED] = 1
    // What it does before its first step on shared memory belongs to this one.
    engine.record(W.K_START, 0, 0, engine.w[W.STRATEGY] === BY_SEARCH ? W.FLAG_NO_CHOICE : 0)
    engine.active = true
    const watch = (globalThis as { softnet_boot?: { watch?: KernelWatch } }).softnet_boot?.watch
    const line = watch?.interrupts ?? null
    engine.interrupts.connect(line, line === null ? 0 : this.memory.addressOf(line.view) + line.index * 4)
    let result: unknown
    try {
      watch?.begun?.()
      result = this.actor(this.shared, this.info)
      watch?.ended?.()
    } catch (error) {
      return this.#end(error)
    }
    if (typeof (result as PromiseLike<unknown> | null)?.then !== 'function') return this.#end(UNWIND)
    return this.#drive(result as PromiseLike<unknown>).then(
      () => this.#end(UNWIND),
      error => this.#end(error),
    )
  }

  /** An async actor: whenever all of its promises wait, it sleeps until one of them settles. */
  async #drive(promise: PromiseLike<unknown>): Promise<void> {
    const state = { settled: false, failed: false, error: undefined as unknown }
    promise.then(
      () => (state.settled = true),
      error => Object.assign(state, { settled: true, failed: true, error }),
    )
    for (;;) {
      await new Promise<void>(resolve => native.setImmediate(() => resolve()))
      if (state.settled) break
      this.engine.asyncBlock()
      this.#settleOne()
    }
    if (state.failed) throw state.error
  }

  /** The oldest sleep that has ended settles its promise. */
  #settleOne(): void {
    const { engine, pending } = this
    const { w } = engine
    let first = -1
    for (let k = 0; k < W.MAX_WAITS; k++) {
      const at = W.WAIT_TABLE + k * W.WAIT_WORDS
      if (w[at]! < W.W_NOTIFIED || w[at + W.W_ACTOR] !== engine.me || w[at + W.W_ASYNC] === 0) continue
      if (first < 0 || w[at + W.W_ORDER]! < w[first + W.W_ORDER]!) first = at
    }
    if (first < 0) return
    const how = w[first]!
    const id = w[first + W.W_ASYNC]!
    const address = w[first + W.W_ADDRESS]!
    w[first] = W.W_FREE
    if (address >= 0) {
      const step = engine.record(how === W.W_TIMED_OUT ? W.K_TIMEOUT : W.K_WAKE, address, 4, W.FLAG_NO_CHOICE)
      w[W.TRACE + step * W.TRACE_WORDS + W.T_OTHER] = w[first + W.W_NOTIFIER]!
    }
    pending.settle(id, how)
  }

  /** The actor has ended: by itself, by an exception of its own, or because the run has. */
  #end(error: unknown): void {
    this.#handOver(error)
    const { w } = this.engine
    native.store(w, this.#at + W.A_LEFT, w[W.GENERATION]!)
  }

  #handOver(error: unknown): void {
    const { engine } = this
    const { w } = engine
    engine.active = false
    this.pending.clear()
    if (error !== UNWIND && w[W.PHASE] === W.PHASE_RUN) {
      engine.say(`${detectorOf(error)}\n${messageOf(error)}${placeOf(error)}`)
      w[W.FOUND_ACTOR] = engine.me
      w[W.FOUND_STEP] = w[W.TRACED]! - 1
      w[W.FOUND_STEP2] = otherStepOf(error)
      engine.end(W.FOUND_EXCEPTION)
    }
    w[this.#at] = W.STATE_OFF
    if (w[W.PHASE] === W.PHASE_RUN) {
      const next = engine.decide(-1)
      if (next >= 0) {
        engine.openGate(next)
        return
      }
      engine.end(W.FOUND_NOTHING)
    }
    if (engine.me !== 0) engine.openGate(0)
  }
}

/** Where an error was made, when it tells. */
function placeOf(error: unknown): string {
  if (!(error instanceof Error) || error.stack === undefined) return ''
  const frames = error.stack.split('\n').filter(line => /^\s+at /.test(line) && !ENGINE.test(line))
  const frame = frames.find(line => !BELOW.test(line)) ?? frames[0]
  const place = frame === undefined ? '' : siteOf(frame)
  return place === '' ? '' : ` (${short(place)})`
}

/** Frames of the engine itself: they are no place in the scenario. */
const ENGINE = /[\\/](?:src[\\/]explore|workers)[\\/]\w+\.[jt]s|node:internal/
/** Accessors that were made as text, the machine's own operations, and what watches: who called them is the place. */
const BELOW =
  /<anonymous>:|\beval at\b|[\\/]src[\\/](?:(?:arch|abi)[\\/]|(?:rcu[\\/]prove|mm[\\/](?:check|slab)|sync[\\/](?:watch|preempt|refcount))\.)/

/** siteOf - file and line of one line of a stack trace. */
export function siteOf(frame: string): string {
  const match = /((?:file:\/\/)?[^\s()]+):(\d+):(\d+)\)?$/.exec(frame)
  if (match === null) return ''
  const path = match[1]!.replace(/^file:\/\//, '').replace(/\?.*$/, '')
  return originalPlace(decodeURIComponent(path), Number(match[2]), Number(match[3]))
}

/** here - file and line of the code that runs now, outside the engine. */
export function here(): string {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 20
  const lines = (new Error().stack ?? '').split('\n').slice(1)
  Error.stackTraceLimit = limit
  const outside = lines.filter(line => !ENGINE.test(line))
  const frame = outside.find(line => !BELOW.test(line)) ?? outside[0]
  return frame === undefined ? '' : siteOf(frame)
}
