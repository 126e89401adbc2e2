/** waits.ts - who sleeps: an entry for each Atomics.wait, waitAsync and timer, in the order in which they began. */
import { actorAt } from './strategy.js'
import * as W from './words.js'

const NS_PER_MS = 1e6

/** Waits - this thread's view of the table. */
export class Waits {
  readonly #w: Int32Array
  readonly #f: Float64Array

  constructor(words: Int32Array, floats: Float64Array) {
    this.#w = words
    this.#f = floats
  }

  /** A new entry; `address` is -1 for a timer, `asyncId` 0 for a sleep that blocks. @returns its place, or -1: no room */
  add(actor: number, address: number, expected: number, ms: number, asyncId: number): number {
    const w = this.#w
    for (const at of this.#all(W.W_FREE)) {
      w[at] = W.W_ASLEEP
      w[at + W.W_ADDRESS] = address
      w[at + W.W_ACTOR] = actor
      w[at + W.W_ORDER] = ++w[W.WAIT_ORDER]!
      w[at + W.W_EXPECTED] = expected
      w[at + W.W_ASYNC] = asyncId
      w[at + W.W_STEP] = w[W.TRACED]! - 1
      w[at + W.W_NOTIFIER] = -1
      this.#f[(at + W.W_ALARM) >> 1] = ms === Infinity ? Infinity : this.#f[W.CLOCK >> 1]! + ms * NS_PER_MS
      return at
    }
    return -1
  }

  *#all(state: number): Generator<number, void> {
    for (let k = 0; k < W.MAX_WAITS; k++) {
      const at = W.WAIT_TABLE + k * W.WAIT_WORDS
      if (this.#w[at] === state) yield at
    }
  }

  #alarm(at: number): number {
    return this.#f[(at + W.W_ALARM) >> 1]!
  }

  /** Mask of the actors that sleep no longer than a time. */
  sleepers(): number {
    const w = this.#w
    if (w[W.WAIT_ORDER] === 0) return 0
    let mask = 0
    for (let k = 0; k < W.MAX_WAITS; k++) {
      const at = W.WAIT_TABLE + k * W.WAIT_WORDS
      if (w[at] === W.W_ASLEEP && this.#alarm(at) !== Infinity) mask |= 1 << w[at + W.W_ACTOR]!
    }
    return mask
  }

  /** Nobody can go on: the sleep that ends first ends. @returns false when none ends by itself */
  timePasses(): boolean {
    let first = -1
    for (const at of this.#all(W.W_ASLEEP)) {
      if (this.#alarm(at) === Infinity) continue
      if (first < 0 || this.#alarm(at) < this.#alarm(first)) first = at
    }
    if (first >= 0) this.#timeOut(first)
    return first >= 0
  }

  /** The earliest sleep of `actor` ends now. */
  expire(actor: number): void {
    let first = -1
    for (const at of this.#all(W.W_ASLEEP)) {
      if (this.#w[at + W.W_ACTOR] !== actor) continue
      if (first < 0 || this.#alarm(at) < this.#alarm(first)) first = at
    }
    this.#timeOut(first)
  }

  #timeOut(at: number): void {
    this.#f[W.CLOCK >> 1] = Math.max(this.#f[W.CLOCK >> 1]!, this.#alarm(at))
    this.#wake(at, W.W_TIMED_OUT)
    this.#w[W.IDLE_ROUNDS] = 0
  }

  /** A sleep ends: its actor can go on. */
  #wake(at: number, how: number): void {
    const w = this.#w
    w[at] = how
    w[at + W.W_NOTIFIER] = how === W.W_NOTIFIED ? w[W.TRACED]! - 1 : -1
    const actor = actorAt(w[at + W.W_ACTOR]!)
    const isAsync = w[at + W.W_ASYNC]! !== 0
    if (w[actor] === (isAsync ? W.STATE_ASYNC : W.STATE_WAITING)) w[actor] = W.STATE_READY
  }

  /** Wake up to `count` of those who sleep at `address`, first come first served. @returns how many */
  notify(address: number, count: number): number {
    const w = this.#w
    let woken = 0
    while (woken < count) {
      let first = -1
      for (const at of this.#all(W.W_ASLEEP)) {
        if (w[at + W.W_ADDRESS] !== address) continue
        if (first < 0 || w[at + W.W_ORDER]! < w[first + W.W_ORDER]!) first = at
      }
      if (first < 0) break
      this.#wake(first, W.W_NOTIFIED)
      woken++
    }
    return woken
  }

  /** Has a sleep of this actor's promises ended? */
  anyEnded(actor: number): boolean {
    for (let k = 0; k < W.MAX_WAITS; k++) {
      const at = W.WAIT_TABLE + k * W.WAIT_WORDS
      if (this.#w[at]! >= W.W_NOTIFIED && this.#w[at + W.W_ACTOR] === actor && this.#w[at + W.W_ASYNC] !== 0)
        return true
    }
    return false
  }
}
