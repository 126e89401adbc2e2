/**
 * cells.ts - what is known of each word of shared memory: its version, its clock, and who accessed it last.
 *
 * A cell stands for four bytes. Vector clocks order the steps: an atomic write leaves the writer's clock in the cell (it
 * replaces what was there: whoever reads it is ordered after this write and what came before it, not after older ones), an
 * atomic read takes it over. Two accesses of the same bytes of which one writes and one is plain race when neither's clock
 * has reached the other.
 */
import {
  ACCESS_ATOMIC,
  ACCESS_WORDS,
  C_CLOCK,
  C_GENERATION,
  C_KEY,
  C_VERSION,
  C_WRITER,
  CELL_COUNT,
  CLOCKS,
  GENERATION,
  IDLE_ROUNDS,
  KNOWN,
  KNOWN_COUNT,
  type Layout,
  MAX_ACTORS,
  MAX_KNOWN,
  PASSED,
  TO_PASS,
  TRACED,
} from './words.js'

/** The words are full: a program that touches that many cannot be explored. */
export class TooManyCells extends Error {}

/** Cells - this thread's view of them. */
export class Cells {
  readonly #w: Int32Array
  readonly #base: number
  readonly #words: number
  readonly #mask: number
  readonly #actors: number
  readonly #reads: number
  readonly #me: number
  readonly #clock: number

  constructor(words: Int32Array, layout: Layout, me: number) {
    this.#w = words
    this.#base = layout.cells
    this.#words = layout.cellWords
    this.#mask = layout.maxCells - 1
    this.#actors = layout.actors
    this.#reads = C_CLOCK + layout.actors
    this.#me = me
    this.#clock = CLOCKS + me * MAX_ACTORS
  }

  /** The cell of the word at `address`, made when it was not there in this run. @returns its place in the words */
  at(address: number): number {
    const w = this.#w
    const key = address >>> 2
    const generation = w[GENERATION]!
    for (let slot = (Math.imul(key, 0x9e3779b1) >>> 7) & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const cell = this.#base + slot * this.#words
      if (w[cell + C_GENERATION] !== generation) return this.#make(cell, key, generation)
      if (w[cell + C_KEY] === key) return cell
    }
  }

  /** As at(), of a word that was touched in this run; -1: it was not. */
  find(address: number): number {
    const w = this.#w
    const key = address >>> 2
    const generation = w[GENERATION]!
    for (let slot = (Math.imul(key, 0x9e3779b1) >>> 7) & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const cell = this.#base + slot * this.#words
      if (w[cell + C_GENERATION] !== generation) return -1
      if (w[cell + C_KEY] === key) return cell
    }
  }

  #make(cell: number, key: number, generation: number): number {
    const w = this.#w
    if (++w[CELL_COUNT]! > (this.#mask * 7) >>> 3) throw new TooManyCells()
    for (let k = 0; k < this.#words; k++) w[cell + k] = 0
    w[cell + C_KEY] = key
    w[cell + C_GENERATION] = generation
    w[cell + C_VERSION] = 1
    w[cell + C_WRITER] = -1
    return cell
  }

  /** The value of the word changed: whoever looked at it may look again. */
  changed(cell: number): void {
    this.#w[cell + C_VERSION]!++
    this.#w[IDLE_ROUNDS] = 0
  }

  /** This actor learns what the last atomic writer of the cell knew. */
  acquire(cell: number): void {
    const w = this.#w
    for (let a = 0; a < this.#actors; a++) {
      const theirs = w[cell + C_CLOCK + a]!
      if (theirs > w[this.#clock + a]!) w[this.#clock + a] = theirs
    }
  }

  /** Whoever reads this atomic write will know what this actor knows. */
  release(cell: number): void {
    const w = this.#w
    for (let a = 0; a < this.#actors; a++) w[cell + C_CLOCK + a] = w[this.#clock + a]!
    w[this.#clock + this.#me]!++
  }

  /** A notify adds to what the word's last writer knew. */
  releaseAlso(cell: number): void {
    const w = this.#w
    for (let a = 0; a < this.#actors; a++)
      if (w[this.#clock + a]! > w[cell + C_CLOCK + a]!) w[cell + C_CLOCK + a] = w[this.#clock + a]!
    w[this.#clock + this.#me]!++
  }

  /**
   * Remember an access of the bytes in `mask` (four bits, and ACCESS_ATOMIC), and look for one that it races with. `step`: its
   * place in the trace, or -1 when none is kept.
   * @returns actor of the other access, with 64 added when that one wrote; -1 for none
   */
  access(cell: number, mask: number, isWrite: boolean, step: number): number {
    const w = this.#w
    const me = this.#me
    let race = -1
    for (let a = 0; a < this.#actors && race < 0; a++) {
      if (a === me) continue
      const known = w[this.#clock + a]!
      const write = this.#record(cell, a, true)
      if (conflict(w[write]!, mask) && w[write + 1]! > known) {
        if (this.isNews(cell, a)) race = a + 64
      } else if (isWrite) {
        const read = this.#record(cell, a, false)
        if (conflict(w[read]!, mask) && w[read + 1]! > known && this.isNews(cell, a)) race = a
      }
    }
    const mine = this.#record(cell, me, isWrite)
    const clock = w[this.#clock + me]!
    // Accesses of the same time are kept together; a plain one among them says more than an atomic one.
    const same = w[mine] !== 0 && w[mine + 1] === clock
    w[mine] = same ? ((w[mine]! | mask) & 15) | (w[mine]! & mask & ACCESS_ATOMIC) : mask
    w[mine + 1] = clock
    w[mine + 2] = step >= 0 ? step : w[TRACED]! - 1
    if (isWrite) w[cell + C_WRITER] = w[mine + 2]!
    return race
  }

  /** As access() of a read that is not remembered: the actor whose write it races with, or -1. */
  unorderedWrite(cell: number, mask: number): number {
    const w = this.#w
    for (let a = 0; a < this.#actors; a++) {
      const write = this.#record(cell, a, true)
      const races = a !== this.#me && conflict(w[write]!, mask) && w[write + 1]! > w[this.#clock + a]!
      if (races && this.isNews(cell, a)) return a
    }
    return -1
  }

  /** A race with another actor: is it none of those that are known, and that the run goes past? */
  isNews(cell: number, actor: number): boolean {
    const w = this.#w
    const news = w[PASSED]! >= w[TO_PASS]! && !this.#isKnown(w[cell + C_KEY]!, (1 << actor) | (1 << this.#me))
    if (!news) w[PASSED]!++
    return news
  }

  #isKnown(key: number, pair: number): boolean {
    const w = this.#w
    for (let k = 0; k < w[KNOWN_COUNT]!; k++) if (w[KNOWN + k * 2] === key && w[KNOWN + k * 2 + 1] === pair) return true
    return false
  }

  /** From now on a race of these two about this word does not end a run. */
  know(address: number, one: number, two: number): void {
    const w = this.#w
    if (w[KNOWN_COUNT]! >= MAX_KNOWN) return
    const entry = KNOWN + w[KNOWN_COUNT]!++ * 2
    w[entry] = address >>> 2
    w[entry + 1] = (1 << one) | (1 << two)
  }

  /**
   * An access of the word by another actor that nothing orders before what comes now: its actor, with 64 added when it wrote;
   * or -1.
   */
  unorderedAccess(cell: number): number {
    const w = this.#w
    for (let a = 0; a < this.#actors; a++) {
      if (a === this.#me) continue
      for (const isWrite of [false, true]) {
        const other = this.#record(cell, a, isWrite)
        if (w[other]! !== 0 && w[other + 1]! > w[this.#clock + a]!) return isWrite ? a + 64 : a
      }
    }
    return -1
  }

  /**
   * An access of these bytes by another actor, atomic or not, that nothing orders before what comes now: its actor, with 64
   * added when it wrote; or -1. `reads`: those as well.
   */
  unorderedOf(cell: number, bits: number, reads: boolean): number {
    const w = this.#w
    for (let a = 0; a < this.#actors; a++) {
      for (const isWrite of a === this.#me ? [] : reads ? [true, false] : [true]) {
        const other = this.#record(cell, a, isWrite)
        if ((w[other]! & bits & 15) === 0 || w[other + 1]! <= w[this.#clock + a]!) continue
        if (this.isNews(cell, a)) return isWrite ? a + 64 : a
        break
      }
    }
    return -1
  }

  /** The step of an actor's last access. */
  lastStep(cell: number, actor: number, isWrite: boolean): number {
    return this.#w[this.#record(cell, actor, isWrite) + 2]!
  }

  version(cell: number): number {
    return this.#w[cell + C_VERSION]!
  }

  #record(cell: number, actor: number, isWrite: boolean): number {
    return cell + this.#reads + (actor * 2 + (isWrite ? 1 : 0)) * ACCESS_WORDS
  }
}

/** Do two accesses touch the same bytes, and is one of them a plain one? */
function conflict(theirs: number, ours: number): boolean {
  return (theirs & ours & 15) !== 0 && (theirs & ours & ACCESS_ATOMIC) === 0
}

/** bytesMask - four bits: which bytes of its word an access touches. */
export function bytesMask(address: number, bytes: number): number {
  return bytes >= 4 ? 15 : ((1 << bytes) - 1) << (address & 3)
}
