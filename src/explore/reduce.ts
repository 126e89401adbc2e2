/**
 * reduce.ts - exhaustive search with partial-order reduction (source sets and sleep sets: Abdulla et al. 2014).
 *
 * Two steps of different actors depend on each other when they touch the same word and one of them writes it. Runs that
 * differ only in the order of independent steps are the same: one of them is enough. After each run the search looks for
 * pairs of dependent steps that nothing else orders, and marks the place before the first of them: there the other actor
 * must go first once. When no mark is left every order that matters has been seen.
 *
 * Store buffers are actors like others here: each step of one takes a store to memory. It comes after that store, and before
 * an operation of the store's actor that waits for the buffer to be empty; neither is a choice.
 */
import { waitsForBuffer } from './buffers.js'
import { dependent, lowest } from './strategy.js'
import * as W from './words.js'

interface Node {
  actor: number
  kind: number
  address: number
  /** Masks of actors: could go on, were tried, must be tried, need not be tried. */
  enabled: number
  done: number
  todo: number
  asleep: number
  /** Kind and address of each actor's next step. */
  pending: Int32Array
  /** How far each actor's steps are ordered before this one. */
  clock: Int32Array
  cause: number
}

/** Search - the tree of choices, depth first. */
export class Search {
  readonly #stack: Node[] = []
  readonly #actors: number
  readonly #owner: (unit: number) => number
  readonly #interrupts: (a: number, b: number) => boolean
  #asleep = 0
  /** Runs whose rest was known already. */
  redundant = 0

  /** `owner`: the actor that a unit is, or whose buffer it is. `interrupts`: is one of two units an interrupt of the other? */
  constructor(units: number, owner: (unit: number) => number, interrupts: (a: number, b: number) => boolean) {
    this.#actors = units
    this.#interrupts = interrupts
    this.#owner = owner
  }

  /** The next run: whose the first steps are, and who need not be tried after them. */
  next(): { plan: number[]; asleep: number } {
    return { plan: this.#stack.map(n => n.actor), asleep: this.#asleep }
  }

  /** Learn from the run that has just ended. @returns false when all is seen */
  learn(w: Int32Array, layout: W.Layout): boolean {
    if (w[W.FOUND] === W.ENDED_REDUNDANT) this.redundant++
    const known = this.#stack.length
    if (known > 0) this.#stack[known - 1]!.cause = w[W.TRACE + (known - 1) * W.TRACE_WORDS + W.T_OTHER]!
    this.#extend(w, layout)
    for (let j = Math.max(0, known - 1); j < this.#stack.length; j++) this.#mark(j)
    return this.#backtrack()
  }

  #extend(w: Int32Array, layout: W.Layout): void {
    const n = this.#actors
    let asleep = this.#asleep
    for (let j = this.#stack.length; j < w[W.TRACED]!; j++) {
      const t = W.TRACE + j * W.TRACE_WORDS
      const actor = w[t]! & 255
      const kind = (w[t]! >>> 8) & 255
      const address = w[t + W.T_ADDRESS]!
      const choice = ((w[t]! >>> 24) & W.FLAG_NO_CHOICE) === 0
      const at = layout.pending + j * n * 2
      const pending = w.slice(at, at + n * 2)
      const enabled = choice ? w[t + W.T_ENABLED]! : 1 << actor
      const bit = 1 << actor
      const cause = w[t + W.T_OTHER]!
      this.#stack.push({ actor, kind, address, enabled, done: bit, todo: bit, asleep, pending, clock: EMPTY, cause })
      asleep = this.#stillAsleep(asleep, pending, actor, kind, address)
    }
  }

  #stillAsleep(asleep: number, pending: Int32Array, unit: number, kind: number, address: number): number {
    for (let a = 0; a < this.#actors; a++) {
      if ((asleep & (1 << a)) === 0) continue
      if (this.#interrupts(unit, a) || dependent(kind, address, pending[a * 2]!, pending[a * 2 + 1]!))
        asleep &= ~(1 << a)
    }
    return asleep
  }

  /** Order step j among those before it, and mark where its actor should have gone first. */
  #mark(j: number): void {
    const stack = this.#stack
    const step = stack[j]!
    const clock = new Int32Array(this.#actors)
    for (let i = j - 1; i >= 0; i--) {
      if (stack[i]!.actor !== step.actor) continue
      clock.set(stack[i]!.clock)
      clock[step.actor] = i + 1
      break
    }
    const races: number[] = []
    for (let i = j - 1; i >= 0; i--) {
      const other = stack[i]!
      if (other.actor === step.actor) continue
      const causes = step.cause === i || this.#mustFollow(step, other)
      const matters =
        this.#interrupts(other.actor, step.actor) || dependent(other.kind, other.address, step.kind, step.address)
      if (!causes && !matters) continue
      if (i < clock[other.actor]!) continue
      if (!causes) races.push(i)
      for (let a = 0; a < this.#actors; a++) clock[a] = Math.max(clock[a]!, other.clock[a]!)
      clock[other.actor] = Math.max(clock[other.actor]!, i + 1)
    }
    step.clock = clock
    for (const i of races) this.#reverse(i, j)
  }

  /** Does the step wait for the other one, which empties its actor's buffer? */
  #mustFollow(step: Node, other: Node): boolean {
    return other.kind === W.K_FLUSH && waitsForBuffer(step.kind) && this.#owner(other.actor) === step.actor
  }

  /**
   * Let step j come before step i once. What must come first for that is known: of the steps in between that do not
   * depend on i, those that depend on none of the others (the initials of a source set). One of their actors is enough.
   */
  #reverse(i: number, j: number): void {
    const stack = this.#stack
    const node = stack[i]!
    let seen = 0
    let initials = 0
    const between: number[] = []
    for (let k = i + 1; k <= j; k++) {
      const step = stack[k]!
      if (k !== j && step.clock[node.actor]! > i) continue
      const bit = 1 << step.actor
      const first = (seen & bit) === 0
      seen |= bit
      if (first && !between.some(m => step.clock[stack[m]!.actor]! > m)) initials |= bit
      between.push(k)
    }
    if ((initials & (node.todo | node.asleep)) !== 0) return
    const able = initials & node.enabled
    if (able === 0) node.todo |= node.enabled
    else node.todo |= (able & (1 << stack[j]!.actor)) !== 0 ? 1 << stack[j]!.actor : 1 << lowest(able)
  }

  #backtrack(): boolean {
    for (let node = this.#stack.at(-1); node !== undefined; node = this.#stack.at(-1)) {
      const open = node.todo & ~node.done & ~node.asleep
      if (open !== 0) {
        const actor = lowest(open)
        const tried = node.done
        node.done |= 1 << actor
        node.actor = actor
        node.kind = node.pending[actor * 2]!
        node.address = node.pending[actor * 2 + 1]!
        node.cause = -1
        const still = (node.asleep | tried) & ~(1 << actor)
        this.#asleep = this.#stillAsleep(still, node.pending, actor, node.kind, node.address)
        return true
      }
      this.#stack.pop()
    }
    return false
  }
}

const EMPTY = new Int32Array(0)
