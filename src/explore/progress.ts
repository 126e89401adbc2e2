/**
 * progress.ts - runs that do not get anywhere: actors that undo each other's work for ever (livelock), or count how often they
 * have looked in vain (stall). A limit of steps would not tell them from runs that are long.
 *
 * A run in which for long no actor ends, and none touches a word for the first time, goes on turn by turn, which is fair to all.
 * When its steps then are the same circle again and again, but for words that only count, that may be a loop which ends some
 * time. So each actor is let go on alone, from each place of the circle: if one of them is done within a round or two, which all
 * together are not in fifty, it is the others that keep it from its end. In a loop of many rounds nobody is done so soon, unless
 * it was about to end: then it has ended when the run is made once more and looked at later, which the conductor does. And who
 * waits for the others cannot go on alone at all.
 */
import { actorAt } from './strategy.js'
import * as W from './words.js'

/** Steps without anything new after which a run is looked at. */
const SUSPECT_AFTER = 1000
/** The circle must have been gone round so often. */
const ROUNDS = 50
/** The same where nobody is in anybody's way, but what is done only counts. */
const COUNTING_ROUNDS = 1000
/** Steps of the first look for a circle; later ones come after twice as many, until the last. */
const [FIRST_CHECK, LAST_CHECK] = [512, 4096]
/** Places of a circle from which actors are let go on alone, at most; and steps that one gets for it beside two rounds. */
const [MAX_PLACES, ALONE_STEPS] = [24, 32]
const NEVER = 0x7fffffff

/** What look() answers beside a unit. */
export const NO_OPINION = -2
export const IS_LIVELOCK = -1

const [LONG, FAIR, ALONE] = [0, 1, 2]

/** Progress - this thread's view of it. */
export class Progress {
  readonly #w: Int32Array

  constructor(words: Int32Array) {
    this.#w = words
  }

  /** A run begins. `from`: it is not looked at before this step. */
  reset(from: number): void {
    this.#w.fill(0, W.PROGRESS, W.PROGRESS + W.PROGRESS_WORDS)
    this.#w[W.LOOK_AT] = SUSPECT_AFTER + from
  }

  /** Called from step LOOK_AT on. `next`: whose turn it is. @returns who goes on, IS_LIVELOCK, or NO_OPINION */
  look(enabled: number, next: () => number): number {
    const w = this.#w
    const made = w[W.CELL_COUNT]! * 32 + this.#ended()
    if (made !== w[W.MADE]) {
      w[W.MADE] = made
      if (w[W.FAIRNESS] === ALONE) return this.#found()
      return this.#letBe(SUSPECT_AFTER)
    }
    if (w[W.FAIRNESS] === LONG) {
      w[W.FAIRNESS] = FAIR
      w[W.FAIR_FROM] = w[W.STEP]!
      w[W.CHECK_AT] = w[W.STEP]! + FIRST_CHECK
      w[W.PERIOD] = 0
      w[W.ATTEMPT] = 0
      w[W.LOOK_AT] = 0
    } else if (w[W.FAIRNESS] === ALONE) {
      const actor = w[W.ALONE_ACTOR]!
      const steps = w[W.STEP]! - w[W.ALONE_FROM]!
      if ((enabled & (1 << actor)) !== 0 && steps < 2 * w[W.PERIOD]! + ALONE_STEPS) return actor
      w[W.FAIRNESS] = FAIR
      w[W.ATTEMPT]!++
      w[W.CHECK_AT] = w[W.STEP]! + 4 * w[W.PERIOD]!
    } else if (w[W.STEP]! >= w[W.CHECK_AT]!) return this.#check(enabled, next)
    return next()
  }

  #ended(): number {
    const w = this.#w
    let n = 0
    for (let a = 0; a < w[W.ACTORS]!; a++) if (w[actorAt(a)] === W.STATE_OFF) n++
    return n
  }

  #letBe(steps: number): number {
    const w = this.#w
    w[W.FAIRNESS] = LONG
    w[W.LOOK_AT] = steps === NEVER ? NEVER : w[W.STEP]! + steps
    return NO_OPINION
  }

  /** Turn by turn for a while now: is it a circle? */
  #check(enabled: number, next: () => number): number {
    const w = this.#w
    if (w[W.PERIOD] === 0) {
      const steps = this.#latest(w[W.STEP]! - w[W.FAIR_FROM]!)
      const period = this.#periodOf(steps)
      if (period === 0) return this.#later(steps.length, next)
      const circle = steps.slice(-period)
      if (this.#onlyCounts(circle)) {
        // A loop with a deadline ends when the time has come.
        if (w[W.ASKED_TIME] !== 0) return this.#letBe(NEVER)
        if (!this.#repeats(steps, period, COUNTING_ROUNDS)) return this.#later(steps.length, next)
        w[W.ALONE_ACTOR] = -1
        this.#keep(circle)
        return this.#found()
      }
      w[W.PERIOD] = period
      this.#keep(circle)
    } else if (!this.#repeats(this.#latest(3 * w[W.PERIOD]!), w[W.PERIOD]!, 3)) {
      // Who went on alone has left the circle, though nothing is new: from the beginning, while there are steps left.
      w[W.FAIRNESS] = LONG
      return next()
    }
    return this.#goAlone(enabled, next)
  }

  #later(steps: number, next: () => number): number {
    if (steps >= LAST_CHECK) return this.#letBe(8 * SUSPECT_AFTER)
    this.#w[W.CHECK_AT] = this.#w[W.STEP]! + steps
    return next()
  }

  /** The next actor, from the next place of the circle. */
  #goAlone(enabled: number, next: () => number): number {
    const w = this.#w
    const actors = this.#inCircle()
    const period = w[W.PERIOD]!
    const places = Math.min(period, MAX_PLACES)
    const place = Math.floor(w[W.ATTEMPT]! / actors.length)
    if (place >= places) return this.#letBe(NEVER)
    const offset = Math.floor((place * period) / places)
    if ((w[W.STEP]! - w[W.FAIR_FROM]!) % period !== offset) return next()
    w[W.FAIRNESS] = ALONE
    w[W.ALONE_ACTOR] = actors[w[W.ATTEMPT]! % actors.length]!
    w[W.ALONE_FROM] = w[W.STEP]!
    w[W.ALONE_RECORD] = w[W.TRACED]!
    return this.look(enabled, next)
  }

  /** The last `n` steps at which another actor could have gone on, by their places in the words. */
  #latest(n: number): number[] {
    const w = this.#w
    const steps: number[] = []
    for (let k = w[W.TRACED]! - 1; k >= 0 && steps.length < Math.min(n, LAST_CHECK); k--) {
      const t = W.TRACE + k * W.TRACE_WORDS
      if (w[t]! >>> 24 !== W.UNASKED) steps.push(t)
    }
    return steps.reverse()
  }

  #periodOf(steps: readonly number[]): number {
    for (let p = 1; p * ROUNDS <= steps.length; p++) if (this.#repeats(steps, p, ROUNDS)) return p
    return 0
  }

  #repeats(steps: readonly number[], period: number, rounds: number): boolean {
    const first = steps.length - period * (rounds - 1)
    if (first < period) return false
    for (let k = steps.length - 1; k >= first; k--) if (!this.#same(steps[k]!, steps[k - period]!)) return false
    return true
  }

  /** The same operation, with the same values or values that have gone up alike. */
  #same(one: number, two: number): boolean {
    const w = this.#w
    if (w[one] !== w[two] || w[one + W.T_ADDRESS] !== w[two + W.T_ADDRESS]) return false
    return ((w[one + W.T_BEFORE]! - w[two + W.T_BEFORE]!) | 0) === ((w[one + W.T_AFTER]! - w[two + W.T_AFTER]!) | 0)
  }

  /** Does everybody in the circle look at something that nobody changes, and change nothing but by adding to it? */
  #onlyCounts(circle: readonly number[]): boolean {
    const w = this.#w
    const changed = new Set(circle.filter(t => w[t + W.T_BEFORE] !== w[t + W.T_AFTER]).map(t => w[t + W.T_ADDRESS]))
    const kindOf = (t: number): number => (w[t]! >>> 8) & 255
    const looking = new Set<number>()
    for (const t of circle) {
      const counts = kindOf(t) === W.K_ADD || kindOf(t) === W.K_SUB
      if (!changed.has(w[t + W.T_ADDRESS])) looking.add(w[t]! & 255)
      else if (!counts) return false
    }
    return circle.every(t => looking.has(w[t]! & 255))
  }

  #inCircle(): number[] {
    const w = this.#w
    const actors = new Set<number>()
    for (let k = 0; k < w[W.CIRCLE_LENGTH]!; k++) {
      const unit = w[W.TRACE + (w[W.CIRCLE]! + k) * W.TRACE_WORDS]! & 255
      if (unit < w[W.ACTORS]!) actors.add(unit)
    }
    return [...actors]
  }

  /** Remember the circle for who tells of it: its first record, and how many there are, with plain accesses between. */
  #keep(circle: readonly number[]): void {
    const w = this.#w
    w[W.CIRCLE] = (circle[0]! - W.TRACE) / W.TRACE_WORDS
    w[W.CIRCLE_LENGTH] = w[W.TRACED]! - w[W.CIRCLE]!
    w[W.CIRCLE_ROUNDS] = Math.floor((w[W.STEP]! - w[W.FAIR_FROM]!) / circle.length)
    const written = circle.filter(t => w[t + W.T_BEFORE] !== w[t + W.T_AFTER]).map(t => w[t + W.T_ADDRESS]!)
    w[W.CIRCLE_ADDRESS] = written.length === 0 ? -1 : Math.min(...written)
  }

  #found(): number {
    const w = this.#w
    w[W.FOUND_ACTOR] = w[W.ALONE_ACTOR]!
    w[W.FOUND_ADDRESS] = w[W.CIRCLE_ADDRESS]!
    return IS_LIVELOCK
  }
}
