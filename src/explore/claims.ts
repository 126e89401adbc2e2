/**
 * claims.ts - what actors have said that only they do in a run (exclusive.ts), held against what the others do.
 *
 * A claim is broken by an access of another actor that nothing orders before or after it; one that holds for a stretch of code
 * also by whatever comes in between its two ends.
 */
import { bytesMask, type Cells } from './cells.js'
import type { Engine } from './engine.js'
import { actorAt } from './strategy.js'
import * as W from './words.js'

// words of a claim
const [ACTOR, ADDRESS, BYTES, KIND, MASK, STEP, CLOCK, OPEN] = [0, 1, 2, 3, 4, 5, 6, 7]

/** K_EXCLUSIVE_*, of these bytes; of bits, which. */
export interface Claimed {
  kind: number
  address: number
  bytes: number
  mask: number
}

/** Whose access or claim it is that is in the way, the place of its step in the trace, and the word. */
export interface Breach {
  actor: number
  step: number
  address: number
}

/** claim - an actor says that only it does such now; `scoped`: until it calls what it gets. */
export function claim(engine: Engine, claimed: Claimed, scoped: boolean): () => void {
  const { claims, w } = engine
  const say = (): number => {
    const step = engine.plainStep(claimed.kind, claimed.address, Math.min(claimed.bytes, 255))
    return step >= 0 ? step : w[W.TRACED]! - 1
  }
  const look = (step: number): void => engine.breach(claims.brokenBefore(claimed) ?? claims.clash(claimed), step)
  const step = say()
  const at = claims.add(claimed, step, scoped)
  look(step)
  return () => {
    if (!scoped || !engine.active) return
    const end = say()
    claims.close(at, end)
    look(end)
  }
}

/** Claims - this thread's view of them. */
export class Claims {
  readonly #w: Int32Array
  readonly #cells: Cells
  readonly #me: number

  constructor(words: Int32Array, cells: Cells, me: number) {
    this.#w = words
    this.#cells = cells
    this.#me = me
  }

  get any(): boolean {
    return this.#w[W.CLAIM_COUNT] !== 0
  }

  /** This actor claims something, at `step`. @returns the claim's place; -1: there is no room for it, it holds only here */
  add(claimed: Claimed, step: number, isOpen: boolean): number {
    const w = this.#w
    let at = this.#find(claimed)
    if (at < 0) {
      if (w[W.CLAIM_COUNT]! >= W.MAX_CLAIMS) return -1
      at = W.CLAIMS + w[W.CLAIM_COUNT]!++ * W.CLAIM_WORDS
      w[at + ACTOR] = this.#me
      w[at + ADDRESS] = claimed.address
      w[at + BYTES] = claimed.bytes
      w[at + KIND] = claimed.kind
      w[at + MASK] = claimed.mask
      w[at + OPEN] = 0
    }
    this.#stamp(at, step)
    if (isOpen) w[at + OPEN]!++
    return at
  }

  /** The stretch of code for which it holds ends. */
  close(at: number, step: number): void {
    if (at < 0) return
    this.#w[at + OPEN]!--
    this.#stamp(at, step)
  }

  #stamp(at: number, step: number): void {
    const w = this.#w
    w[at + STEP] = step
    w[at + CLOCK] = w[W.CLOCKS + this.#me * W.MAX_ACTORS + this.#me]!
  }

  /** The same claim made again: later is stronger. */
  #find({ kind, address, bytes, mask }: Claimed): number {
    const w = this.#w
    for (let k = 0; k < w[W.CLAIM_COUNT]!; k++) {
      const at = W.CLAIMS + k * W.CLAIM_WORDS
      if (w[at + ACTOR] !== this.#me || w[at + KIND] !== kind || w[at + ADDRESS] !== address) continue
      if (w[at + BYTES] === bytes && w[at + MASK] === mask) return at
    }
    return -1
  }

  /** Has another actor already done what this one claims that nobody does? Which bits a write has changed is not known then. */
  brokenBefore({ kind, address, bytes }: Claimed): Breach | null {
    if (kind === W.K_EXCLUSIVE_BITS) return null
    const end = address + bytes
    for (let at = address; at < end; at = (at & ~3) + 4) {
      const cell = this.#cells.at(at)
      const found = this.#cells.unorderedOf(cell, bytesMask(at, end - at), kind === W.K_EXCLUSIVE_ACCESS)
      if (found < 0) continue
      return { actor: found & 63, step: this.#cells.lastStep(cell, found & 63, found >= 64), address: at }
    }
    return null
  }

  /** To claim something is to touch it: where one says that nobody else does, another must not. */
  clash({ kind, address, bytes }: Claimed): Breach | null {
    const w = this.#w
    for (let k = 0; k < w[W.CLAIM_COUNT]!; k++) {
      const at = W.CLAIMS + k * W.CLAIM_WORDS
      if (kind !== W.K_EXCLUSIVE_ACCESS && w[at + KIND] !== W.K_EXCLUSIVE_ACCESS) continue
      const breach = this.#isMet(at, address, bytes) ? this.#told(at, address) : null
      if (breach !== null) return breach
    }
    return null
  }

  /** Does another actor's claim hold for these bytes, now? */
  #isMet(at: number, address: number, bytes: number): boolean {
    const w = this.#w
    const actor = w[at + ACTOR]!
    if (actor === this.#me) return false
    if (address >= w[at + ADDRESS]! + w[at + BYTES]! || address + bytes <= w[at + ADDRESS]!) return false
    const isOpen = w[at + OPEN]! > 0 && w[actorAt(actor)] !== W.STATE_OFF
    return isOpen || w[at + CLOCK]! > w[W.CLOCKS + this.#me * W.MAX_ACTORS + actor]!
  }

  #told(at: number, address: number): Breach | null {
    const actor = this.#w[at + ACTOR]!
    return this.#cells.isNews(this.#cells.at(address), actor) ? { actor, step: this.#w[at + STEP]!, address } : null
  }

  /** Does this actor do now what another one claims that nobody does? `bits`: what it has changed of the element. */
  broken(address: number, bytes: number, writes: boolean, bits: number): Breach | null {
    const w = this.#w
    for (let k = 0; k < w[W.CLAIM_COUNT]!; k++) {
      const at = W.CLAIMS + k * W.CLAIM_WORDS
      const kind = w[at + KIND]!
      if (!this.#isMet(at, address, bytes)) continue
      if (kind !== W.K_EXCLUSIVE_ACCESS && !writes) continue
      if (kind === W.K_EXCLUSIVE_BITS && this.#sparesBits(at, address, bytes, bits)) continue
      const breach = this.#told(at, address)
      if (breach !== null) return breach
    }
    return null
  }

  /** A write of another size may have changed any of them, when it has changed anything. */
  #sparesBits(at: number, address: number, bytes: number, bits: number): boolean {
    const w = this.#w
    const alike = address === w[at + ADDRESS] && bytes === w[at + BYTES]
    return (alike ? bits & w[at + MASK]! : bits) === 0
  }
}
