/**
 * engine.ts - the turn of a controlled run, as one of its threads sees it.
 *
 * One actor runs at a time. Before each operation that another actor could observe it comes here (`step`), and the one that
 * has the turn decides who goes on: itself, which costs no more than the decision, or another thread, whose gate it opens.
 * An actor whose `Atomics.wait` sleeps, or that looks again and again at words that do not change, cannot go on until
 * somebody wakes it or changes one of them. When nobody can go on the run has ended.
 *
 * With store buffers what an actor writes plainly goes into one of its own first. Whoever has the turn takes it to memory from
 * there, when the strategy says so: that is a step as well.
 *
 * A run that is over leaves the stacks of its actors by an exception: `UNWIND`.
 */
import { type MemoryModel, StoreBuffers, waitsForBuffer } from './buffers.js'
import { bytesMask, Cells, TooManyCells } from './cells.js'
import { type Breach, Claims } from './claims.js'
import type { Effect } from './effects.js'
import { Interrupts } from './interrupts.js'
import { native } from './native.js'
import { IS_LIVELOCK, NO_OPINION, Progress } from './progress.js'
import { Speculation } from './speculation.js'
import { Spins } from './spins.js'
import { actorAt, BY_SEARCH, Strategy } from './strategy.js'
import { Text } from './text.js'
import { Waits } from './waits.js'
import * as W from './words.js'

/** Thrown through the code of an actor whose run has ended. */
export const UNWIND: unique symbol = Symbol('the run has ended')

const NS_PER_STEP = 1000
/** A gate is looked at again after so long, so that a thread finds out that its exploration was given up. */
const GATE_MS = 200

/** The thread was told to end. */
export class Quit extends Error {}

/** Engine - of one thread. Thread 0 is also the conductor's, which starts the runs. */
export class Engine {
  readonly w: Int32Array
  readonly f: Float64Array
  readonly layout: W.Layout
  readonly me: number
  readonly cells: Cells
  readonly strategy: Strategy
  /** Code of an actor runs on this thread now: its operations are steps. */
  active = false
  /** Writes outside of actors are remembered, too: an invariant may make some. */
  tracking = false
  /** Where in the source the running code is; asked only while a run is recorded. */
  site: () => string = () => ''
  /** Of the kernel: what the running code is in the middle of; asked with `site`. */
  context: () => string = () => ''
  /** Bytes of shared memory. */
  bytesAt: (address: number, length: number) => Uint8Array = () => new Uint8Array(0)

  readonly speculation = new Speculation()
  readonly buffers: StoreBuffers
  readonly interrupts: Interrupts
  readonly #spins: Spins
  readonly waits: Waits
  readonly progress: Progress
  readonly claims: Claims
  readonly text: Text
  readonly #at: number

  constructor(shared: SharedArrayBuffer, layout: W.Layout, me: number, memory: MemoryModel) {
    this.w = new Int32Array(shared)
    this.f = new Float64Array(shared)
    this.layout = layout
    this.me = me
    this.cells = new Cells(this.w, layout, me)
    this.buffers = new StoreBuffers(this.w, layout.actors, memory)
    this.#spins = new Spins(this.w, this.f, this.cells)
    this.interrupts = new Interrupts(this.w, layout, this.buffers.units, me)
    this.strategy = new Strategy(this.w, layout, this.buffers, this.interrupts)
    this.#at = actorAt(me)
    this.progress = new Progress(this.w)
    this.claims = new Claims(this.w, this.cells, me)
    this.waits = new Waits(this.w, this.f)
    this.text = new Text(shared, layout)
  }

  /** The actor that a unit is, or whose buffer or interrupt it is. */
  owner(unit: number): number {
    return unit < this.interrupts.base ? this.buffers.owner(unit) : unit - this.interrupts.base
  }

  // ---- gates ------------------------------------------------------------------------------------------------------------

  /** Let a thread go on that waits at its gate. */
  openGate(thread: number): void {
    const gate = actorAt(thread) + W.A_GATE
    native.store(this.w, gate, 1)
    native.notify(this.w, gate, 1)
  }

  /** Wait at this thread's gate. */
  waitGate(): void {
    const { w } = this
    const gate = this.#at + W.A_GATE
    for (let spins = w[W.SPINS]!; ; spins--) {
      if (native.load(w, gate) !== 0) break
      if (spins > 0) continue
      if (native.load(w, W.PHASE) === W.PHASE_QUIT) throw new Quit()
      native.wait(w, gate, 0, GATE_MS)
    }
    native.store(w, gate, 0)
    if (w[W.PHASE] === W.PHASE_QUIT) throw new Quit()
  }

  // ---- who goes on --------------------------------------------------------------------------------------------------------

  /** Who goes on next; -1: nobody can, and the run has ended. `me` is the actor that decides, or -1. */
  decide(me: number): number {
    const { w } = this
    if (w[W.STRATEGY] === BY_SEARCH) {
      // A search must know everybody's first step before it chooses.
      for (let a = 0; a < w[W.ACTORS]!; a++) if (w[actorAt(a) + W.A_STARTED] === 0) return a
    }
    for (;;) {
      const enabled = this.enabled()
      if (enabled === 0) {
        if (this.waits.timePasses() || this.#spins.again()) continue
        return -1
      }
      const only = (enabled & (enabled - 1)) === 0
      const sleepers = this.waits.sleepers()
      let next = this.#looksAtProgress(enabled, me)
      if (next === IS_LIVELOCK) {
        this.end(W.FOUND_LIVELOCK)
        return -1
      }
      const asked = next === NO_OPINION
      if (asked) next = 31 - Math.clz32(enabled)
      if (!asked) w[W.DECISIONS]!++
      else if (!only || sleepers !== 0 || w[W.STRATEGY] === BY_SEARCH) {
        w[W.DECISIONS]!++
        next = this.strategy.pick(enabled, sleepers, me)
      }
      if (next < 0) {
        this.end(W.ENDED_REDUNDANT)
        return -1
      }
      if (next >= this.buffers.units) return this.#chosen(this.interrupts.choose(next), me, enabled)
      if (next >= this.layout.actors) {
        if (!this.#flush(next)) return -1
        continue
      }
      if ((enabled & (1 << next)) === 0) this.waits.expire(next)
      return this.#chosen(next, me, enabled)
    }
  }

  /** Is it time to see whether the run gets anywhere? What a plan says is done first. @returns as Progress.look */
  #looksAtProgress(enabled: number, me: number): number {
    const { w } = this
    if (w[W.STEP]! < w[W.LOOK_AT]! || w[W.STEP]! + w[W.PLAN_SHIFT]! < w[W.PLAN_LENGTH]!) return NO_OPINION
    const awake = w[W.STRATEGY] === BY_SEARCH ? enabled & ~w[W.ASLEEP]! : enabled
    return awake === 0 ? NO_OPINION : this.progress.look(awake, () => this.strategy.turn(awake, me))
  }

  #chosen(next: number, me: number, enabled: number): number {
    const { w } = this
    if (next !== me && me >= 0 && (enabled & (1 << me)) !== 0) w[W.PREEMPTIONS]!++
    w[W.IN_A_ROW] = next === w[W.LAST] ? w[W.IN_A_ROW]! + 1 : 0
    w[W.LAST] = next
    w[W.TURN] = next
    return next
  }

  /** Mask of the actors that can go on, of the buffers that hold something, and of the interrupts that can be taken. */
  enabled(): number {
    const { w, buffers } = this
    const n = w[W.ACTORS]!
    let mask = this.interrupts.waiting()
    if (buffers.any) mask |= buffers.waiting()
    for (let a = 0; a < n; a++) {
      const at = actorAt(a)
      const state = w[at]!
      if (buffers.any && this.#waitsForBuffer(a, at)) continue
      if (state === W.STATE_READY || (state === W.STATE_SPINNING && this.#spins.changed(at))) mask |= 1 << a
    }
    return mask
  }

  /** Is what an actor is about to do possible only when one of its stores has come to memory? */
  #waitsForBuffer(actor: number, at: number): boolean {
    const { w, buffers } = this
    const kind = w[at + W.A_KIND]!
    if (kind === W.K_BUFFER) return !buffers.hasRoom(w[at + W.A_BUFFER]!)
    return waitsForBuffer(kind) && !buffers.isEmpty(actor)
  }

  // ---- steps ----------------------------------------------------------------------------------------------------------------

  /** The page at `address` is no longer what it was when the run began. */
  markDirty(address: number): void {
    const page = address >>> W.PAGE_SHIFT
    if (page < W.MAX_PAGES) this.w[this.layout.dirty + (page >>> 5)]! |= 1 << (page & 31)
  }

  /** Before an operation on `address`: returns when it is this actor's turn to do it. @returns number of the step */
  step(kind: number, address: number, bytes: number): number {
    const { w } = this
    if (w[W.PHASE] !== W.PHASE_RUN) throw UNWIND
    const at = this.#at
    do {
      w[at + W.A_KIND] = kind
      w[at + W.A_ADDRESS] = address
      this.interrupts.announce()
      this.turn()
    } while (this.#interrupted())
    return this.record(kind, address, bytes, 0)
  }

  /** This actor's turn may be one to take an interrupt first. @returns has it taken one? */
  #interrupted(): boolean {
    const { interrupts, me } = this
    if (!interrupts.wasChosen()) return false
    const unit = interrupts.base + me
    this.record(W.K_INTERRUPT, interrupts.addressOf(unit), 4, 0, unit)
    interrupts.deliver()
    return true
  }

  /** A plain access: nobody else is asked. @returns its record in the trace, or -1: none is kept */
  plainStep(kind: number, address: number, bytes: number): number {
    const { w } = this
    if (w[W.PHASE] !== W.PHASE_RUN) throw UNWIND
    if (w[W.PLAIN_STEPS] !== 0 || this.interrupts.announce()) {
      this.step(kind, address, bytes)
      return this.flag(W.FLAG_PLAIN)
    }
    if (w[W.RECORD] !== W.RECORD_ALL) return -1
    return this.record(kind, address, bytes, W.FLAG_PLAIN | W.FLAG_NO_CHOICE)
  }

  /** A plain store goes into the buffer of this actor. `shown`: its value as the trace holds it. */
  store(address: number, bytes: Uint8Array, shown: number, effect: Effect): void {
    const { w, buffers } = this
    const unit = buffers.unitFor(this.me, address)
    w[this.#at + W.A_BUFFER] = unit
    this.step(W.K_BUFFER, address, bytes.length)
    const step = this.flag(W.FLAG_PLAIN)
    buffers.push(unit, address, bytes, step, shown)
    this.done(step, address, bytes.length, shown, shown, effect)
    this.#spins.worked(this.#at)
  }

  /** All that this actor has stored is in memory from here on. */
  fence(): void {
    if (!this.buffers.isEmpty(this.me)) this.step(W.K_FENCE, 0, 4)
  }

  /** The oldest store of a buffer comes to memory. @returns false: the run has ended */
  #flush(unit: number): boolean {
    const { w, buffers } = this
    const e = buffers.head(unit)
    const [address, length, cause] = [w[e + W.E_ADDRESS]!, w[e + W.E_BYTES]!, w[e + W.E_STEP]!]
    if (w[W.TRACED]! >= w[W.MAX_STEPS]!) {
      this.end(W.ENDED_CUT)
      return false
    }
    const step = this.record(W.K_FLUSH, address, length, 0, unit)
    this.flag(W.FLAG_PLAIN)
    const t = W.TRACE + step * W.TRACE_WORDS
    w[t + W.T_OTHER] = cause
    w[t + W.T_SITE] = w[W.TRACE + cause * W.TRACE_WORDS + W.T_SITE]!
    w[t + W.T_SITE_LENGTH] = w[W.TRACE + cause * W.TRACE_WORDS + W.T_SITE_LENGTH]!
    const bytes = buffers.bytesOf(e)
    const memory = this.bytesAt(address, length)
    let changed = false
    for (let k = 0; k < length; k++) {
      if (memory[k] === bytes[k]) continue
      changed = true
      memory[k] = bytes[k]! // one by one: the methods of arrays are steps themselves
    }
    w[t + W.T_AFTER] = w[e + W.E_SHOWN]!
    // What was there is not known as a value; that it was another one is.
    w[t + W.T_BEFORE] = changed ? ~w[e + W.E_SHOWN]! : w[e + W.E_SHOWN]!
    w[W.HASH] = Math.imul(w[W.HASH]! ^ cause, 0x01000193) ^ w[e + W.E_SHOWN]!
    for (let at = address; at < address + length; at += 4) {
      const cell = this.cells.at(at)
      if (changed) this.cells.changed(cell)
      this.markDirty(at)
    }
    buffers.pop(unit)
    return true
  }

  flag(flags: number): number {
    const { w } = this
    const step = w[W.TRACED]! - 1
    w[W.TRACE + step * W.TRACE_WORDS]! |= flags << 24
    return step
  }

  /** Ask who goes on, and wait until it is this actor. */
  turn(): void {
    const next = this.decide(this.me)
    if (next === this.me) return
    if (next < 0) this.nobody()
    this.w[W.HANDOVERS]!++
    this.openGate(next)
    this.await()
  }

  /** Wait until this actor has the turn. */
  await(): void {
    const { w } = this
    this.waitGate()
    if (w[W.PHASE] !== W.PHASE_RUN) throw UNWIND
  }

  /** The step is done now: it goes into the trace. */
  record(kind: number, address: number, bytes: number, flags: number, unit = this.me): number {
    const { w, layout } = this
    const step = w[W.TRACED]!
    if (step >= w[W.MAX_STEPS]!) this.stop(W.ENDED_CUT)
    w[W.TRACED] = step + 1
    if ((flags & W.FLAG_PLAIN) === 0) w[W.STEP]!++
    const t = W.TRACE + step * W.TRACE_WORDS
    w[t] = unit | (kind << 8) | (bytes << 16) | (flags << 24)
    w[t + W.T_ADDRESS] = address
    w[t + W.T_BEFORE] = 0
    w[t + W.T_AFTER] = 0
    w[t + W.T_SITE] = 0
    w[t + W.T_OTHER] = -1
    if ((flags & W.FLAG_PLAIN) === 0) this.f[W.CLOCK >> 1] = this.f[W.CLOCK >> 1]! + NS_PER_STEP
    if (unit === this.me) this.w[this.#at + W.A_LAST_STEP] = step
    w[W.HASH] = Math.imul(w[W.HASH]! ^ (unit | (kind << 8)), 0x01000193) ^ address
    if (w[W.STRATEGY] === BY_SEARCH) {
      w[t + W.T_ENABLED] = this.enabled() | (1 << unit)
      for (let a = 0; a < layout.units; a++) {
        const p = layout.pending + (step * layout.units + a) * 2
        w[p] = this.strategy.nextKind(a)
        w[p + 1] = this.strategy.nextAddress(a)
      }
      if (w[W.ASLEEP] !== 0 && step >= w[W.PLAN_LENGTH]!) this.strategy.wakeSleepers(unit, kind, address)
    }
    if (w[W.RECORD] !== 0 && (unit === this.me || kind === W.K_INTERRUPT)) {
      const active = this.active
      this.active = false // the host's own code runs now
      const [at, length] = this.text.write(`${this.site()}\n${this.context()}`)
      this.active = active
      w[t + W.T_SITE] = at
      w[t + W.T_SITE_LENGTH] = length
    }
    return step
  }

  /** What the operation of `step` saw and left, and what follows for clocks, races and those who spin. */
  done(step: number, address: number, bytes: number, before: number, after: number, effect: Effect): void {
    const { w } = this
    if (step >= 0) {
      const t = W.TRACE + step * W.TRACE_WORDS
      w[t + W.T_BEFORE] = before
      w[t + W.T_AFTER] = after
    }
    w[W.HASH] = Math.imul(w[W.HASH]! ^ before, 0x01000193) ^ after
    try {
      this.#touch(step, address, bytes, effect, effect.writes && before !== after)
      if (bytes === 8) this.#touch(step, address + 4, 4, effect, effect.writes && before !== after)
      if (this.claims.any && effect.silent !== true)
        this.breach(this.claims.broken(address, bytes, effect.writes, before ^ after), step)
    } catch (error) {
      if (!(error instanceof TooManyCells)) throw error
      this.fail(`the actors touch more than ${(this.layout.maxCells * 7) >>> 3} words of shared memory`)
    }
  }

  /** A claim is broken by this actor's step, or what it claims was broken before. */
  breach(breach: Breach | null, step: number): void {
    if (breach === null || (this.w[W.DETECT]! & W.DETECT_RACE) === 0) return
    const { actor, address } = breach
    this.found(W.FOUND_RACE, actor, address, breach.step, step >= 0 ? step : this.w[W.TRACED]! - 1)
  }

  /** The values of a step, for who reads the trace. */
  tell(step: number, before: number, after: number): void {
    const t = W.TRACE + step * W.TRACE_WORDS
    this.w[t + W.T_BEFORE] = before
    this.w[t + W.T_AFTER] = after
  }

  #touch(step: number, address: number, bytes: number, effect: Effect, changed: boolean): void {
    const { w, cells } = this
    const cell = cells.at(address)
    if (effect.writes) this.markDirty(address)
    if (changed) {
      cells.changed(cell)
      this.#spins.worked(this.#at)
    } else if (effect.looks) this.#spins.look(this.#at, cell)
    const bits = bytesMask(address, bytes)
    if (effect.atomic && effect.reads) cells.acquire(cell)
    const mask = effect.atomic ? bits | W.ACCESS_ATOMIC : bits
    let race = -1
    if (effect.silent !== true) race = cells.access(cell, mask, effect.writes, step)
    if (effect.atomic && effect.writes) cells.release(cell)
    if (race >= 0 && (w[W.DETECT]! & W.DETECT_RACE) !== 0) {
      const other = race & 63
      this.found(W.FOUND_RACE, other, address, cells.lastStep(cell, other, race >= 64), step)
    }
  }

  /** The code says itself that it waits (`Atomics.pause`). */
  relax(): void {
    this.#spins.relax(this.#at)
  }

  // ---- sleeping ---------------------------------------------------------------------------------------------------------------

  /** An entry in the table of waits. @returns its place */
  addWait(address: number, expected: number, ms: number, asyncId: number): number {
    const at = this.waits.add(this.me, address, expected, ms, asyncId)
    return at >= 0 ? at : this.fail(`more than ${W.MAX_WAITS} sleeps at once`)
  }

  /** Sleep in entry `at` until somebody wakes it. @returns how it ended */
  sleep(at: number): number {
    const { w } = this
    w[this.#at] = W.STATE_WAITING
    w[this.#at + W.A_WAIT] = at
    w[this.#at + W.A_KIND] = W.K_WAKE
    w[this.#at + W.A_LOOKS] = 0
    this.turn()
    const how = w[at]!
    const step = this.record(how === W.W_TIMED_OUT ? W.K_TIMEOUT : W.K_WAKE, w[at + W.W_ADDRESS]!, 4, 0)
    w[W.TRACE + step * W.TRACE_WORDS + W.T_OTHER] = w[at + W.W_NOTIFIER]!
    w[at] = W.W_FREE
    return how
  }

  /** An async actor has nothing more to do until one of its promises settles. */
  asyncBlock(): void {
    const { w } = this
    if (!this.waits.anyEnded(this.me)) {
      w[this.#at] = W.STATE_ASYNC
      w[this.#at + W.A_KIND] = W.K_WAKE
      this.turn()
    }
  }

  // ---- how a run ends ---------------------------------------------------------------------------------------------------------

  /** A detector has found something: the run ends here. */
  found(what: number, other: number, address: number, step: number, step2: number): never {
    const { w } = this
    w[W.FOUND_ACTOR] = this.me
    w[W.FOUND_OTHER] = other
    w[W.FOUND_ADDRESS] = address
    w[W.FOUND_STEP] = step
    w[W.FOUND_STEP2] = step2
    return this.stop(what)
  }

  /** The scenario cannot be run: its words say why. */
  fail(message: string): never {
    this.say(`\n${message}`)
    return this.found(W.FOUND_EXCEPTION, -1, -1, this.w[W.TRACED]! - 1, -1)
  }

  /** End the run, and leave the actor's code. */
  stop(what: number): never {
    this.end(what)
    throw UNWIND
  }

  end(what: number): void {
    const { w } = this
    if (w[W.PHASE] !== W.PHASE_RUN) return
    if (w[W.FOUND] === W.FOUND_NOTHING) w[W.FOUND] = what
    for (let a = 0; a < w[W.ACTORS]!; a++) w[actorAt(a) + W.A_END] = w[actorAt(a)]!
    native.store(w, W.PHASE, W.PHASE_ENDED)
  }

  /** Nobody can go on any more. */
  nobody(): never {
    this.end(W.FOUND_NOTHING)
    throw UNWIND
  }

  /** Message of a finding, for the conductor. */
  say(message: string): void {
    const [at, length] = this.text.say(message)
    this.w[W.MESSAGE_AT] = at
    this.w[W.MESSAGE_LENGTH] = length
  }
}
