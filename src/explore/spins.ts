/**
 * spins.ts - loops that wait: an actor that looks again and again at words which do not change is blocked, until one of them
 * does. When all that are left are blocked so, they may look once more, later in time; if that helps nobody it is a stall.
 */
import type { Cells } from './cells.js'
import { actorAt, BY_SEARCH } from './strategy.js'
import * as W from './words.js'

/** Rounds of looking once more, when all that are left look at words which nobody changes, before that is a stall. */
const MAX_IDLE_ROUNDS = 12
/** The same when nobody looked at the clock: time alone will not help them. */
const IDLE_ROUNDS_WITHOUT_TIME = 1
/**
 * Steps of others after which a blocked actor goes on nevertheless. Who reads the same word some times in a row, for its bytes say,
 * does not wait for its change; beside an actor that never stops it would not come to its turn again.
 */
const MAX_BLOCKED_STEPS = 400

/** Spins - this thread's view of who looks at what. `at`: an actor's record. */
export class Spins {
  readonly #w: Int32Array
  readonly #f: Float64Array
  readonly #cells: Cells

  constructor(words: Int32Array, floats: Float64Array, cells: Cells) {
    this.#w = words
    this.#f = floats
    this.#cells = cells
  }

  /** An actor has changed something: it does not wait. If its last look said so, it has gone on since, to where it is now. */
  worked(at: number): void {
    const w = this.#w
    w[at + W.A_LOOKS] = 0
    if (w[at] === W.STATE_SPINNING) w[at] = W.STATE_READY
  }

  /** May a blocked actor go on, since a word of its loop has changed, or the others had their turn for long? */
  changed(at: number): boolean {
    const w = this.#w
    if (w[W.STEP]! - w[at + W.A_SPUN_AT]! > MAX_BLOCKED_STEPS && w[W.STRATEGY] !== BY_SEARCH) {
      this.worked(at)
      return true
    }
    for (let k = 0; k < w[at + W.A_LOOKS]!; k++) {
      const look = at + W.A_LOOK + k * 3
      if (this.#cells.version(w[look]!) === w[look + 1]!) continue
      w[at] = W.STATE_READY
      w[at + W.A_LOOKS] = 0 // a word that it no longer looks at must not wake it again
      return true
    }
    return false
  }

  /** All that are left look at words which nobody changes: they may do so once more, later in time. */
  again(): boolean {
    const w = this.#w
    const f = this.#f
    let spinning = false
    for (let a = 0; a < w[W.ACTORS]!; a++) {
      if (w[actorAt(a)] !== W.STATE_SPINNING) continue
      w[actorAt(a)] = W.STATE_READY
      spinning = true
    }
    if (!spinning) return false
    w[W.CUT_SPINS]!++
    const rounds = w[W.ASKED_TIME] !== 0 ? MAX_IDLE_ROUNDS : IDLE_ROUNDS_WITHOUT_TIME
    if (w[W.IDLE_ROUNDS]!++ >= rounds) {
      for (let a = 0; a < w[W.ACTORS]!; a++) if (w[actorAt(a)] === W.STATE_READY) w[actorAt(a)] = W.STATE_SPINNING
      return false
    }
    // A loop with a deadline looks at the clock as well: it has passed sooner or later.
    if (w[W.ASKED_TIME] !== 0) f[W.CLOCK >> 1] = f[W.CLOCK >> 1]! + 1e6 * 8 ** w[W.IDLE_ROUNDS]!
    return true
  }

  /** An operation that changed nothing. An actor that sees the same thing again and again waits for its change. */
  look(at: number, cell: number): void {
    const w = this.#w
    const n = w[at + W.A_LOOKS]!
    const version = this.#cells.version(cell)
    for (let k = 0; k < n; k++) {
      const look = at + W.A_LOOK + k * 3
      if (w[look] !== cell) continue
      if (w[look + 1] !== version) {
        w[look + 1] = version
        w[look + 2] = 1
      } else if (++w[look + 2]! >= w[W.SPIN_LOOKS]!) this.#spin(at)
      return
    }
    // A loop that looks at fewer words than there is room for is seen in its next rounds.
    const k = n === W.MAX_LOOKS ? 0 : n
    const look = at + W.A_LOOK + k * 3
    w[look] = cell
    w[look + 1] = version
    w[look + 2] = 1
    w[at + W.A_LOOKS] = k + 1
  }

  #spin(at: number): void {
    const w = this.#w
    w[W.SPUN]!++
    for (let k = 0; k < w[at + W.A_LOOKS]!; k++) w[at + W.A_LOOK + k * 3 + 2] = 0
    w[at] = W.STATE_SPINNING
    w[at + W.A_SPUN_AT] = w[W.STEP]!
  }

  /** The code says itself that it waits (`Atomics.pause`). */
  relax(at: number): void {
    if (this.#w[at + W.A_LOOKS] !== 0) this.#spin(at)
  }
}
