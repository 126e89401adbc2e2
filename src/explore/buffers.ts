/**
 * buffers.ts - store buffers: what an actor has written plainly, and nobody else can see yet.
 *
 * With `tso` each actor has one buffer, first in first out, as a processor of x86 has; with `pso` one for each word, so that
 * stores to different words may come to memory in any order. That an entry leaves its buffer is a step of its own, of a unit
 * beside the actors: units 0 to n - 1 are the actors, the others are buffers, each of which belongs to an actor.
 */
import * as W from './words.js'

export const MEMORIES = ['sc', 'tso', 'pso'] as const
export type MemoryModel = (typeof MEMORIES)[number]

/** Buffers of an actor at most. */
const MOST = 8

/** buffersOf - how many buffers each of n actors has; -1: there is no room for one. */
export function buffersOf(memory: MemoryModel, actors: number): number {
  if (memory === 'sc') return 0
  const room = Math.floor((W.MAX_UNITS - actors) / actors)
  if (room === 0) return -1
  return memory === 'tso' ? 1 : Math.min(room, MOST)
}

/** StoreBuffers - this thread's view of them. */
export class StoreBuffers {
  readonly #w: Int32Array
  readonly #actors: number
  readonly #each: number
  readonly units: number
  readonly #perWord: boolean
  /** Of this thread's actor: the buffer of each word that it has written in this run. */
  readonly #own = new Map<number, number>()
  readonly #bytes = new Uint8Array(8)
  readonly #words = new Int32Array(this.#bytes.buffer)

  constructor(words: Int32Array, actors: number, memory: MemoryModel) {
    this.#w = words
    this.#actors = actors
    this.#each = Math.max(0, buffersOf(memory, actors))
    this.#perWord = memory === 'pso'
    this.units = actors + actors * this.#each
  }

  /** Are plain stores buffered at all? */
  get any(): boolean {
    return this.#each > 0
  }
  /** Does a store of eight bytes come to memory in halves? */
  get perWord(): boolean {
    return this.#perWord
  }

  #at(unit: number): number {
    return W.BUFFERS + unit * W.BUFFER_WORDS
  }
  #first(actor: number): number {
    return this.#actors + actor * this.#each
  }

  /** The actor that a unit is, or whose buffer it is. */
  owner(unit: number): number {
    return unit < this.#actors ? unit : Math.floor((unit - this.#actors) / this.#each)
  }

  /** Before a run. */
  reset(): void {
    if (this.any) this.#w.fill(0, W.BUFFERS, this.#at(this.units))
  }

  /** Mask of the buffers that are not empty. */
  waiting(): number {
    let mask = 0
    for (let unit = this.#actors; unit < this.units; unit++) if (this.#w[this.#at(unit)] !== 0) mask |= 1 << unit
    return mask
  }

  /** Mask of the buffers of an actor. */
  mine(actor: number): number {
    return ((1 << this.#each) - 1) << this.#first(actor)
  }

  isEmpty(actor: number): boolean {
    for (let k = 0; k < this.#each; k++) if (this.#w[this.#at(this.#first(actor) + k)] !== 0) return false
    return true
  }

  /**
   * The buffer that a store of this thread's actor goes into. The order in which its program first writes its words says which
   * one that is, whatever others do meanwhile; when there are more words than buffers some share one.
   */
  unitFor(actor: number, address: number): number {
    if (!this.#perWord) return this.#first(actor)
    const known = this.#own.get(address >>> 2)
    if (known !== undefined) return known
    const unit = this.#first(actor) + (this.#own.size % this.#each)
    this.#own.set(address >>> 2, unit)
    return unit
  }

  /** Before a run of this thread's actor. */
  forgetOwn(): void {
    this.#own.clear()
  }

  hasRoom(unit: number): boolean {
    return this.#w[this.#at(unit)]! < W.BUFFER_DEPTH
  }

  /** A store goes into its actor's buffer. `step`: its record in the trace; `shown`: its value as the trace holds it. */
  push(unit: number, address: number, bytes: Uint8Array, step: number, shown: number): void {
    const w = this.#w
    const at = this.#at(unit)
    const e = at + W.B_ENTRIES + w[at]!++ * W.ENTRY_WORDS
    this.#bytes.fill(0)
    this.#bytes.set(bytes)
    w[e + W.E_ADDRESS] = address
    w[e + W.E_BYTES] = bytes.length
    w[e + W.E_LOW] = this.#words[0]!
    w[e + W.E_HIGH] = this.#words[1]!
    w[e + W.E_STEP] = step
    w[e + W.E_SHOWN] = shown
  }

  /** The oldest entry of a buffer. @returns its place in the words, or -1 */
  head(unit: number): number {
    const at = this.#at(unit)
    return this.#w[at] === 0 ? -1 : at + W.B_ENTRIES
  }

  /** The bytes of the entry at `e`; they stay until the next call. */
  bytesOf(e: number): Uint8Array {
    const w = this.#w
    this.#words[0] = w[e + W.E_LOW]!
    this.#words[1] = w[e + W.E_HIGH]!
    return this.#bytes.subarray(0, w[e + W.E_BYTES]!)
  }

  /** The oldest entry has gone to memory. */
  pop(unit: number): void {
    const w = this.#w
    const at = this.#at(unit)
    const from = at + W.B_ENTRIES
    w[at]!--
    w.copyWithin(from, from + W.ENTRY_WORDS, from + (w[at]! + 1) * W.ENTRY_WORDS)
  }

  /** What an actor reads at `address`: the bytes that memory holds, under those that it has written itself. */
  forward(actor: number, address: number, bytes: Uint8Array): void {
    const w = this.#w
    const first = this.#first(actor)
    for (let unit = first; unit < first + this.#each; unit++) {
      const at = this.#at(unit)
      for (let k = 0; k < w[at]!; k++) {
        const e = at + W.B_ENTRIES + k * W.ENTRY_WORDS
        const from = w[e + W.E_ADDRESS]! - address
        if (from >= bytes.length || from + w[e + W.E_BYTES]! <= 0) continue
        const theirs = this.bytesOf(e)
        for (let b = 0; b < theirs.length; b++)
          if (from + b >= 0 && from + b < bytes.length) bytes[from + b] = theirs[b]!
      }
    }
  }

  /** Kind and address of a buffer's next step, as an exhaustive search looks at them. */
  nextKind(unit: number): number {
    return this.head(unit) < 0 ? W.K_START : W.K_FLUSH
  }
  nextAddress(unit: number): number {
    const e = this.head(unit)
    return e < 0 ? 0 : this.#w[e + W.E_ADDRESS]!
  }
}

/** waitsForBuffer - an operation that is done only when its actor's stores are in memory: all atomic ones but loads. */
export function waitsForBuffer(kind: number): boolean {
  return (kind >= W.K_STORE && kind <= W.K_WAIT_ASYNC) || kind === W.K_FENCE
}
