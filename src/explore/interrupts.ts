/**
 * interrupts.ts - interrupts of the kernel's CPUs as steps: between any two operations of an actor that is interruptible and
 * has something pending, the strategy may let it take that.
 *
 * An interrupt is a unit beside the actors and the store buffers, one for each actor. It can go on while a bit that the actor
 * would serve now is set in its pending word. Which bits those are the actor says before each of its steps; the word lies in
 * memory that all threads share, so that whoever decides sees it.
 */
import { actorAt } from './strategy.js'
import * as W from './words.js'

/** What a CPU tells of its interrupts. */
export interface InterruptLine {
  /** The pending word. */
  view: Int32Array
  index: number
  /** The bits of it that would be served now: none while interrupts are off. */
  mask(): number
  /** Serve them. */
  deliver(): void
}

/** Interrupts - this thread's view of them. */
export class Interrupts {
  readonly #w: Int32Array
  readonly #actors: number
  readonly #me: number
  /** The first unit that is one. */
  readonly base: number
  #line: InterruptLine | null = null

  /** `units`: of all kinds; none is left for interrupts where the actors are no CPUs. */
  constructor(words: Int32Array, { actors, units }: W.Layout, base: number, me: number) {
    this.#w = words
    this.#actors = units > base ? actors : 0
    this.#me = me
    this.base = base
  }

  /** This thread's actor begins, and has these. */
  connect(line: InterruptLine | null, address: number): void {
    if (this.#actors === 0) return
    this.#line = line
    const at = actorAt(this.#me)
    this.#w[at + W.A_IRQ_WORD] = line?.index ?? 0
    this.#w[at + W.A_IRQ_ADDRESS] = address
    this.#w[at + W.A_IRQ_MASK] = 0
  }

  /** Before a step of this thread's actor: what would be served. @returns is anything pending? */
  announce(): boolean {
    const line = this.#line
    if (line === null) return false
    const mask = line.mask()
    this.#w[actorAt(this.#me) + W.A_IRQ_MASK] = mask
    return (line.view[line.index]! & mask) !== 0
  }

  /** Mask of the units whose actors could take one. */
  waiting(): number {
    let mask = 0
    for (let a = 0; a < this.#actors; a++) if (this.#isWaiting(a)) mask |= 1 << (this.base + a)
    return mask
  }

  #isWaiting(actor: number): boolean {
    const w = this.#w
    const at = actorAt(actor)
    const mask = w[at + W.A_IRQ_MASK]!
    if (mask === 0 || this.#line === null) return false
    if (w[at] !== W.STATE_READY && w[at] !== W.STATE_SPINNING) return false
    return (this.#line.view[w[at + W.A_IRQ_WORD]!]! & mask) !== 0
  }

  /** The unit was chosen. @returns its actor, which is to go on and take it */
  choose(unit: number): number {
    const actor = unit - this.base
    const at = actorAt(actor)
    this.#w[at] = W.STATE_READY
    this.#w[at + W.A_LOOKS] = 0
    this.#w[at + W.A_IRQ_CHOSEN] = 1
    return actor
  }

  /** This thread's actor has the turn: for that? */
  wasChosen(): boolean {
    const at = actorAt(this.#me) + W.A_IRQ_CHOSEN
    const chosen = this.#w[at] !== 0
    this.#w[at] = 0
    return chosen
  }

  deliver(): void {
    this.#line?.deliver()
  }

  nextKind(unit: number): number {
    return this.#isWaiting(unit - this.base) ? W.K_INTERRUPT : W.K_START
  }
  addressOf(unit: number): number {
    return this.#w[actorAt(unit - this.base) + W.A_IRQ_ADDRESS]!
  }
}
