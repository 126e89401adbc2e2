/**
 * strategy.ts - who goes on: one decision each time that more than one actor could.
 *
 * All state is in the shared words, so that whoever has the turn decides. A strategy chooses among the units in `enabled`:
 * the actors, and the store buffers that hold something.
 */
import { prng_below, prng_seed } from '../lib/prng.js'
import type { StoreBuffers } from './buffers.js'
import type { Interrupts } from './interrupts.js'
import {
  A_ADDRESS,
  A_KIND,
  ACTOR_TABLE,
  ACTOR_WORDS,
  ACTORS,
  ASLEEP,
  BY_TURNS_FROM_HERE,
  CHANGES,
  DIVERGED,
  IN_A_ROW,
  K_BUFFER,
  K_FENCE,
  K_LOAD,
  K_READ,
  K_START,
  K_WAKE,
  LAST,
  type Layout,
  MAX_CHANGES,
  PLAN_LENGTH,
  PLAN_SHIFT,
  PRIORITIES,
  RNG,
  STEP,
  STRATEGY,
  UNITS,
} from './words.js'

export const STRATEGIES = ['mix', 'random', 'pct', 'round-robin', 'exhaustive'] as const
export type StrategyName = (typeof STRATEGIES)[number]

// what STRATEGY says
export const BY_PLAN = 0
export const BY_CHANCE = 1
export const BY_PRIORITY = 2
export const BY_TURNS = 3
/** As a plan, and then whatever an exhaustive search has not seen yet. */
export const BY_SEARCH = 4
/** Chance that prefers who runs already: fewer hand-overs, longer runs. */
export const BY_STICKY_CHANCE = 5

/** Steps in a row after which an actor falls behind the others: a loop that writes would never let them go on. */
const FAIR_STEPS = 400

const NO_STEP = -1

/** Strategy - this thread's view of the shared choice. */
export class Strategy {
  readonly #w: Int32Array
  readonly #layout: Layout
  readonly #rng: Int32Array
  readonly #buffers: StoreBuffers

  readonly #interrupts: Interrupts

  constructor(words: Int32Array, layout: Layout, buffers: StoreBuffers, interrupts: Interrupts) {
    this.#w = words
    this.#interrupts = interrupts
    this.#buffers = buffers
    this.#layout = layout
    this.#rng = words.subarray(RNG, RNG + 4)
  }

  /**
   * Choose one of `enabled` (a mask, not 0); `me` has the turn and may be among them, or -1. One of `sleepers` may be
   * chosen as well: its sleep then times out.
   */
  pick(enabled: number, sleepers: number, me: number): number {
    const w = this.#w
    const stay = me >= 0 && (enabled & (1 << me)) !== 0
    switch (w[STRATEGY]) {
      case BY_CHANCE:
        return this.#any(this.#perhaps(enabled, sleepers))
      case BY_STICKY_CHANCE:
        return stay && prng_below(this.#rng, 4) !== 0 ? me : this.#any(this.#perhaps(enabled, sleepers))
      case BY_PRIORITY:
        return this.#first(enabled, me)
      case BY_TURNS:
        return this.turn(enabled, me)
      case BY_SEARCH:
        return this.#search(enabled, sleepers, me)
      default:
        return this.#plan(enabled, sleepers, me)
    }
  }

  /** A timeout may come at any time, but seldom does. */
  #perhaps(enabled: number, sleepers: number): number {
    return sleepers !== 0 && prng_below(this.#rng, 16) === 0 ? enabled | sleepers : enabled
  }

  #any(enabled: number): number {
    let left = prng_below(this.#rng, popcount(enabled))
    for (let a = 0; ; a++) if ((enabled & (1 << a)) !== 0 && left-- === 0) return a
  }

  /** Who comes after `me`. */
  turn(enabled: number, me: number): number {
    const n = this.#w[UNITS]!
    for (let k = 1; k <= n; k++) {
      const a = (me + k + n) % n
      if ((enabled & (1 << a)) !== 0) return a
    }
    return lowest(enabled)
  }

  /** PCT: the highest priority goes on; at a change point the one that runs falls behind all others. */
  #first(enabled: number, me: number): number {
    const w = this.#w
    const step = w[STEP]!
    for (let k = 0; k < MAX_CHANGES; k++) {
      if (w[CHANGES + k] !== step || me < 0) continue
      w[CHANGES + k] = NO_STEP
      w[PRIORITIES + me] = -1 - k
    }
    if (me >= 0 && w[LAST] === me && w[IN_A_ROW]! > FAIR_STEPS) {
      w[IN_A_ROW] = 0
      w[PRIORITIES + me] = -100 - step
    }
    let best = -1
    for (let a = 0; a < w[UNITS]!; a++) {
      if ((enabled & (1 << a)) === 0) continue
      if (best < 0 || w[PRIORITIES + a]! > w[PRIORITIES + best]!) best = a
    }
    return best
  }

  /** Follow the plan; where it cannot be followed any more, and after its end, whoever runs goes on. */
  #plan(enabled: number, sleepers: number, me: number): number {
    const w = this.#w
    const { plan } = this.#layout
    const length = w[PLAN_LENGTH]!
    let at = w[STEP]! + w[PLAN_SHIFT]!
    while (at < length) {
      const wanted = w[plan + at]!
      if (wanted === BY_TURNS_FROM_HERE) {
        w[STRATEGY] = BY_TURNS
        return this.turn(enabled, me)
      }
      if (((enabled | sleepers) & (1 << wanted)) !== 0) return wanted
      if (w[DIVERGED]! < 0) w[DIVERGED] = w[STEP]!
      // What is left of the stretch of an actor that cannot go on falls away.
      let skip = at
      while (skip < length && w[plan + skip] === wanted) skip++
      w[PLAN_SHIFT]! += skip - at
      at = skip
    }
    return this.#stay(enabled, me)
  }

  /** Stores come to memory at once where nobody says otherwise: that is the plainest. */
  #stay(enabled: number, me: number): number {
    const w = this.#w
    const buffers = enabled >>> w[ACTORS]!
    if (buffers !== 0) return w[ACTORS]! + lowest(buffers)
    if (me >= 0 && (enabled & (1 << me)) !== 0 && !(w[LAST] === me && w[IN_A_ROW]! > FAIR_STEPS)) return me
    if (me >= 0) w[IN_A_ROW] = 0
    return this.turn(enabled, me)
  }

  /** @returns -1 when all that could go on has been tried from here */
  #search(enabled: number, sleepers: number, me: number): number {
    const w = this.#w
    if (w[STEP]! < w[PLAN_LENGTH]!) return this.#plan(enabled, sleepers, me)
    const awake = enabled & ~w[ASLEEP]!
    if (awake === 0) return -1
    return me >= 0 && (awake & (1 << me)) !== 0 ? me : lowest(awake)
  }

  /** What a unit is about to do. */
  nextKind(unit: number): number {
    if (unit < this.#w[ACTORS]!) return this.#w[actorAt(unit) + A_KIND]!
    return unit < this.#interrupts.base ? this.#buffers.nextKind(unit) : this.#interrupts.nextKind(unit)
  }
  nextAddress(unit: number): number {
    if (unit < this.#w[ACTORS]!) return this.#w[actorAt(unit) + A_ADDRESS]!
    return unit < this.#interrupts.base ? this.#buffers.nextAddress(unit) : this.#interrupts.addressOf(unit)
  }

  /** After a step of `unit` on `address`: sleeping units whose next step depends on it must be tried again. */
  wakeSleepers(unit: number, kind: number, address: number): void {
    const w = this.#w
    let asleep = w[ASLEEP]!
    for (let a = 0; asleep !== 0 && a < w[UNITS]!; a++) {
      if ((asleep & (1 << a)) === 0) continue
      if (this.interrupts(unit, a) || dependent(kind, address, this.nextKind(a), this.nextAddress(a)))
        asleep &= ~(1 << a)
    }
    w[ASLEEP] = asleep
  }

  /** Is one of the units an interrupt of the other one, which is an actor? Then their order always matters. */
  interrupts(a: number, b: number): boolean {
    const { base } = this.#interrupts
    return a - base === b || b - base === a
  }
}

/** dependent - does the order of two steps of different actors matter? */
export function dependent(kind1: number, address1: number, kind2: number, address2: number): boolean {
  if (isAlone(kind1) || isAlone(kind2)) return false
  if (address1 >>> 2 !== address2 >>> 2) return false
  return !(isRead(kind1) && isRead(kind2))
}

/** A step that nobody else sees. */
function isAlone(kind: number): boolean {
  return kind === K_START || kind === K_WAKE || kind === K_BUFFER || kind === K_FENCE
}

function isRead(kind: number): boolean {
  return kind === K_LOAD || kind === K_READ
}

/** seedRun - the state of the strategy for one run. `steps`: how long a run is, about. */
export function seedRun(w: Int32Array, how: number, seed: number, depth: number, steps: number): void {
  const rng = w.subarray(RNG, RNG + 4)
  prng_seed(rng, seed)
  w[STRATEGY] = how
  w.fill(NO_STEP, CHANGES, CHANGES + MAX_CHANGES)
  if (how !== BY_PRIORITY) return
  const n = w[UNITS]!
  const order = Array.from({ length: n }, (_, k) => k)
  for (let k = n - 1; k > 0; k--) {
    const j = prng_below(rng, k + 1)
    const swap = order[k]!
    order[k] = order[j]!
    order[j] = swap
  }
  for (let a = 0; a < n; a++) w[PRIORITIES + a] = order[a]! + 1
  for (let k = 0; k < depth - 1; k++) w[CHANGES + k] = 1 + prng_below(rng, Math.max(1, steps))
}

export function actorAt(actor: number): number {
  return ACTOR_TABLE + actor * ACTOR_WORDS
}

export function lowest(mask: number): number {
  return 31 - Math.clz32(mask & -mask)
}

export function popcount(mask: number): number {
  let n = 0
  for (; mask !== 0; mask &= mask - 1) n++
  return n
}
