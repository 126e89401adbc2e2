/**
 * chance.ts - time and chance under the seed: `Math.random`, `Date`, `performance.now`, timers, `crypto` random values.
 *
 * An actor's clock goes on by a microsecond with each step and each look at it, and to the next deadline when everybody
 * sleeps. What cannot be put under the seed (files, sockets, processes) is named when the scenario loads it.
 */
import { prng_f64, prng_seed, prng_u32 } from '../lib/prng.js'
import type { Pending } from './atomics.js'
import type { Engine } from './engine.js'
import { native } from './native.js'
import { actorAt } from './strategy.js'
import * as W from './words.js'

/** Where the clock of a run begins: a round date, so that a reader sees that it is none of today. */
const EPOCH_MS = Date.UTC(2000, 0, 1)
const NS_PER_LOOK = 1000
const NS_PER_MS = 1e6

/** controlChance - for this thread. `seed` is for what the scenario does before the first run. */
export function controlChance(engine: Engine, pending: Pending, seed: number): void {
  const { w, f } = engine
  const outside = new Int32Array(4)
  prng_seed(outside, seed)
  const mine = w.subarray(actorAt(engine.me) + W.A_RNG, actorAt(engine.me) + W.A_RNG + 4)
  const state = (): Int32Array => (engine.active ? mine : outside)

  const nowNs = (): number => {
    if (!engine.active) return 0
    w[W.ASKED_TIME] = 1
    f[W.CLOCK >> 1] = f[W.CLOCK >> 1]! + NS_PER_LOOK
    return f[W.CLOCK >> 1]!
  }
  const nowMs = (): number => EPOCH_MS + Math.floor(nowNs() / NS_PER_MS)

  Math.random = () => prng_f64(state())
  globalThis.Date = controlledDate(nowMs)
  performance.now = () => nowNs() / NS_PER_MS
  const hrtime = (since?: [number, number]): [number, number] => {
    const ns = nowNs() - (since === undefined ? 0 : since[0] * 1e9 + since[1])
    return [Math.floor(ns / 1e9), ns % 1e9]
  }
  process.hrtime = Object.assign(hrtime, { bigint: () => BigInt(nowNs()) }) as typeof process.hrtime
  controlCrypto(state)
  controlTimers(engine, pending)
}

function controlledDate(nowMs: () => number): DateConstructor {
  const Host = native.Date
  const Controlled = function (this: unknown, ...args: unknown[]): unknown {
    if (new.target === undefined) return new Host(nowMs()).toString()
    const target = new.target as unknown as new () => unknown
    return Reflect.construct(Host, args.length === 0 ? [nowMs()] : args, target)
  }
  Controlled.prototype = Host.prototype
  Object.defineProperty(Controlled, 'name', { value: 'Date' })
  return Object.assign(Controlled, { now: nowMs, parse: Host.parse, UTC: Host.UTC }) as unknown as DateConstructor
}

function controlCrypto(state: () => Int32Array): void {
  const { crypto } = globalThis
  if (crypto === undefined) return
  const fill = <T extends ArrayBufferView>(view: T): T => {
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
    for (let k = 0; k < bytes.length; k++) bytes[k] = prng_u32(state()) >>> 24
    return view
  }
  const uuid = (): string => {
    const hex = Array.from(fill(new Uint8Array(16)), b => b.toString(16).padStart(2, '0')).join('')
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20)}`
  }
  Object.defineProperty(crypto, 'getRandomValues', { value: fill, configurable: true, writable: true })
  Object.defineProperty(crypto, 'randomUUID', { value: uuid, configurable: true, writable: true })
}

type Callback = (...args: unknown[]) => void

/** Timers of actors sleep in the table of waits; all others are the host's. */
function controlTimers(engine: Engine, pending: Pending): void {
  const { w } = engine
  /** Places in the table, by the handle that the program holds. */
  const running = new Map<object, number>()

  const start = (repeat: boolean, callback: Callback, ms: number | undefined, args: unknown[]): object => {
    const delay = Math.max(1, Number(ms) || 1)
    const handle = { ref: () => handle, unref: () => handle, hasRef: () => true, refresh: () => handle }
    const arm = (): void => {
      const id = pending.add(() => {
        running.delete(handle)
        if (repeat) arm()
        callback(...args)
      })
      running.set(handle, engine.addWait(-1, 0, delay, id))
    }
    arm()
    return handle
  }
  const stop = (handle: unknown): boolean => {
    const at = running.get(handle as object)
    if (at === undefined) return false
    pending.forget(w[at + W.W_ASYNC]!)
    w[at] = W.W_FREE
    running.delete(handle as object)
    return true
  }
  const host = native as unknown as Record<string, (...args: unknown[]) => unknown>
  const replace = (name: string, value: unknown): void => {
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true })
  }
  for (const [set, clear, repeat] of [
    ['setTimeout', 'clearTimeout', false],
    ['setInterval', 'clearInterval', true],
  ] as const) {
    replace(set, (callback: Callback, ms?: number, ...args: unknown[]) =>
      engine.active ? start(repeat, callback, ms, args) : host[set]!(callback, ms, ...args),
    )
    replace(clear, (handle: unknown) => {
      if (!stop(handle)) host[clear]!(handle)
    })
  }
}
