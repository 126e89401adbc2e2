/**
 * atomics.ts - `Atomics` under control: each of its functions becomes a step of the actor that calls it.
 *
 * The functions of the global object are replaced, so that code finds them however it got hold of `Atomics`. Outside of an
 * actor (while modules load, in `setup` and `invariant`) they are the host's own. What the host would refuse is left to the
 * host, which says why.
 */
import { type Effect, FAILS, LOADS, STORES, UPDATES } from './effects.js'
import type { Engine } from './engine.js'
import type { Memory, View } from './memory.js'
import { native } from './native.js'
import { seen } from './plain.js'
import * as W from './words.js'

type Value = number | bigint
type AnyView = View & { [k: number]: Value }
type Rmw = (view: AnyView, index: number, value: Value) => Value

/** A value as the trace holds it. */
function word(value: Value): number {
  return typeof value === 'bigint' ? Number(BigInt.asIntN(32, value)) : value | 0
}

/** Promises of this thread's `waitAsync` and timers, by the number in their entry of the table of waits. */
export class Pending {
  readonly #resolvers = new Map<number, (how: number) => void>()
  #last = 0

  add(resolve: (how: number) => void): number {
    this.#resolvers.set(++this.#last, resolve)
    return this.#last
  }

  settle(id: number, how: number): void {
    const resolve = this.#resolvers.get(id)
    this.#resolvers.delete(id)
    resolve?.(how)
  }

  forget(id: number): void {
    this.#resolvers.delete(id)
  }

  clear(): void {
    this.#resolvers.clear()
  }
}

/** controlAtomics - from now on the operations of this thread's actor are steps. */
export function controlAtomics(engine: Engine, memory: Memory, pending: Pending): void {
  const { w } = engine

  /** The address of an element, or -1: the host shall deal with it. */
  const addressOf = (view: unknown, index: unknown): number => {
    if (!engine.active || !ArrayBuffer.isView(view) || typeof index !== 'number') return -1
    const typed = view as AnyView
    if (!(index >= 0 && index < typed.length)) return -1
    const base = memory.addressOf(typed)
    return base < 0 ? -1 : base + Math.trunc(index) * typed.BYTES_PER_ELEMENT
  }

  const peek = native.load as unknown as (view: AnyView, index: number) => Value

  const rmw = (kind: number, operation: Rmw, effect: Effect): Rmw =>
    function update(view, index, value) {
      const address = addressOf(view, index)
      if (address < 0) {
        if (engine.tracking && ArrayBuffer.isView(view))
          engine.markDirty(memory.addressOf(view) + index * view.BYTES_PER_ELEMENT)
        return operation(view, index, value)
      }
      const step = engine.step(kind, address, view.BYTES_PER_ELEMENT)
      const before = peek(view, index)
      const result = operation(view, index, value)
      engine.done(step, address, view.BYTES_PER_ELEMENT, word(before), word(peek(view, index)), effect)
      return result
    }

  const load = (view: AnyView, index: number): Value => {
    const address = addressOf(view, index)
    if (address < 0) return peek(view, index)
    const step = engine.step(W.K_LOAD, address, view.BYTES_PER_ELEMENT)
    peek(view, index) // the host refuses what is no array of integers
    const value = seen(engine, view, Math.trunc(index), address)
    engine.done(step, address, view.BYTES_PER_ELEMENT, word(value), word(value), LOADS)
    return value
  }

  const compareExchange = (view: AnyView, index: number, expected: Value, value: Value): Value => {
    const cas = native.compareExchange as unknown as (v: AnyView, i: number, e: Value, x: Value) => Value
    const address = addressOf(view, index)
    if (address < 0) {
      if (engine.tracking && ArrayBuffer.isView(view))
        engine.markDirty(memory.addressOf(view) + index * view.BYTES_PER_ELEMENT)
      return cas(view, index, expected, value)
    }
    const step = engine.step(W.K_CAS, address, view.BYTES_PER_ELEMENT)
    const before = peek(view, index)
    const result = cas(view, index, expected, value)
    const after = peek(view, index)
    // Succeeding with the value that is there already cannot be told from failing by the word alone.
    const wrote = before !== after || sameElement(view, before, expected)
    engine.done(step, address, view.BYTES_PER_ELEMENT, word(before), word(after), wrote ? UPDATES : FAILS)
    return result
  }

  /** Is this a view that can be slept on? */
  const canWait = (view: unknown): boolean => view instanceof Int32Array || view instanceof BigInt64Array

  const timeoutOf = (timeout: unknown): number => {
    const ms = timeout === undefined ? Number.NaN : Number(timeout)
    return Number.isNaN(ms) ? Infinity : Math.max(ms, 0)
  }

  /** The look with which every sleep begins. @returns whether the value is the expected one */
  const lookBeforeSleep = (kind: number, view: AnyView, index: number, address: number, expected: Value): boolean => {
    const step = engine.step(kind, address, view.BYTES_PER_ELEMENT)
    const value = peek(view, index)
    const same = sameElement(view, value, expected)
    engine.done(step, address, view.BYTES_PER_ELEMENT, word(value), word(expected), same ? SLEEPS : LOADS)
    return same
  }

  const wait = (view: AnyView, index: number, expected: Value, timeout?: number): 'ok' | 'not-equal' | 'timed-out' => {
    const host = native.wait as unknown as (v: AnyView, i: number, e: Value, t?: number) => 'ok'
    const address = canWait(view) ? addressOf(view, index) : -1
    if (address < 0) return host(view, index, expected, timeout)
    const ms = timeoutOf(timeout)
    if (!lookBeforeSleep(W.K_WAIT, view, index, address, expected)) return 'not-equal'
    if (ms === 0) return 'timed-out'
    const how = engine.sleep(engine.addWait(address, word(expected), ms, 0))
    if (how === W.W_TIMED_OUT) return 'timed-out'
    engine.cells.acquire(engine.cells.at(address))
    return 'ok'
  }

  const waitAsync = (view: AnyView, index: number, expected: Value, timeout?: number): unknown => {
    const host = native.waitAsync as (v: AnyView, i: number, e: Value, t?: number) => unknown
    const address = canWait(view) ? addressOf(view, index) : -1
    if (address < 0) return host(view, index, expected, timeout)
    const ms = timeoutOf(timeout)
    if (!lookBeforeSleep(W.K_WAIT_ASYNC, view, index, address, expected)) return { async: false, value: 'not-equal' }
    if (ms === 0) return { async: false, value: 'timed-out' }
    const value = new Promise<string>(resolve => {
      const id = pending.add(how => {
        if (how !== W.W_TIMED_OUT) engine.cells.acquire(engine.cells.at(address))
        resolve(how === W.W_TIMED_OUT ? 'timed-out' : 'ok')
      })
      engine.addWait(address, word(expected), ms, id)
    })
    return { async: true, value }
  }

  const notify = (view: AnyView, index: number, count?: number): number => {
    const host = native.notify as unknown as (v: AnyView, i: number, c?: number) => number
    const address = view instanceof Int32Array || view instanceof BigInt64Array ? addressOf(view, index) : -1
    if (address < 0) return host(view, index, count)
    const most = count === undefined ? Infinity : Math.max(0, Math.trunc(Number(count)) || 0)
    const step = engine.step(W.K_NOTIFY, address, view.BYTES_PER_ELEMENT)
    engine.cells.releaseAlso(engine.cells.at(address))
    const woken = engine.waits.notify(address, most)
    const t = W.TRACE + step * W.TRACE_WORDS
    w[t + W.T_BEFORE] = word(peek(view, index))
    w[t + W.T_AFTER] = woken
    w[W.HASH] = Math.imul(w[W.HASH]! ^ woken, 0x01000193)
    if (woken > 0) {
      w[W.ACTOR_TABLE + engine.me * W.ACTOR_WORDS + W.A_LOOKS] = 0
      w[W.IDLE_ROUNDS] = 0
    }
    return woken
  }

  const replacement: Record<string, unknown> = {
    add: rmw(W.K_ADD, native.add as unknown as Rmw, UPDATES),
    sub: rmw(W.K_SUB, native.sub as unknown as Rmw, UPDATES),
    and: rmw(W.K_AND, native.and as unknown as Rmw, UPDATES),
    or: rmw(W.K_OR, native.or as unknown as Rmw, UPDATES),
    xor: rmw(W.K_XOR, native.xor as unknown as Rmw, UPDATES),
    exchange: rmw(W.K_EXCHANGE, native.exchange as unknown as Rmw, UPDATES),
    store: rmw(W.K_STORE, native.store as unknown as Rmw, STORES),
    load,
    compareExchange,
    wait,
    notify,
    waitAsync,
  }
  const pause = (Atomics as { pause?: (n?: number) => void }).pause
  if (pause !== undefined) replacement['pause'] = (n?: number) => (engine.active ? engine.relax() : pause(n))
  const lengths: Record<string, number> = { load: 2, compareExchange: 4, wait: 4, waitAsync: 4, pause: 0 }
  for (const [name, value] of Object.entries(replacement)) {
    Object.defineProperty(value, 'name', { value: name, configurable: true })
    Object.defineProperty(value, 'length', { value: lengths[name] ?? 3, configurable: true })
    Object.defineProperty(Atomics, name, { value, writable: true, configurable: true })
  }
}

/** It read the word, and was right to sleep: it is no look of a loop. */
const SLEEPS: Effect = { ...LOADS, looks: false }

/** Are two values the same once they are elements of this view? */
function sameElement(view: AnyView, inMemory: Value, given: Value): boolean {
  if (view instanceof Int32Array) return ((given as number) | 0) === inMemory
  const one = new (view.constructor as new (n: number) => AnyView)(1)
  one[0] = given
  return one[0] === inMemory
}
