/**
 * plain.ts - plain accesses of shared memory, made visible: the functions that the instrumenting loader writes into code, and
 * the methods of typed arrays and DataView.
 *
 * `a[i]` becomes `__softnet.get(a, i)`, `a[i] = v` becomes `__softnet.set(a, i, v)`. For anything but a typed array over
 * shared memory, and outside of actors, they do what was written.
 */
import { bytesMask } from './cells.js'
import { claim as claimOf } from './claims.js'
import { type Effect, READS, SILENT_READS, SILENT_WRITES, WRITES } from './effects.js'
import type { Engine } from './engine.js'
import type { Claim } from './exclusive.js'
import { type Memory, PRIVATE } from './memory.js'
import type { Look } from './speculation.js'
import * as W from './words.js'

type Indexed = Record<PropertyKey, unknown>
type Typed = ArrayBufferView & { [k: number]: number | bigint; length: number; BYTES_PER_ELEMENT: number }

/** What the instrumented code calls; `quiet` under a comment that says data_race. */
export interface Plain extends Accesses {
  quiet: Accesses
  /** `bytes` from `at` on were written by code that is not watched, and that races with nobody. */
  touched(view: ArrayBufferView, at: number, bytes: number): void
  /** What is read from here on counts only if `settle` says so. */
  speculate(): void
  settle(valid: boolean): void
  /** An access of these bytes that nothing orders before what comes now: whose, and its step in the trace. */
  unordered(view: ArrayBufferView, at: number, bytes: number): { actor: number; step: number } | null
  /** The actor says that only it does such now, or until the function that it gets is called: exclusive.ts. */
  claim: Claim
  /** Code of an actor runs now, and is watched. */
  running(): boolean
}

interface Accesses {
  get(object: unknown, key: PropertyKey): unknown
  set(object: unknown, key: PropertyKey, value: unknown): unknown
  /** `a[i] op= v` and `a[i]++`: `change` makes the new value of the old one. */
  update(object: unknown, key: PropertyKey, change: (old: unknown) => unknown): unknown
  /** `a[i]++`: the old value. */
  post(object: unknown, key: PropertyKey, delta: 1 | -1): unknown
}

export const PLAIN_NAME = '__softnet'

/** plainAsWritten - until there is anything to watch, the instrumented code does what was written. */
export function plainAsWritten(): void {
  const get = (object: unknown, key: PropertyKey): unknown => (object as Indexed)[key]
  const set = (object: unknown, key: PropertyKey, value: unknown): unknown => ((object as Indexed)[key] = value)
  const update: Accesses['update'] = (object, key, change) => set(object, key, change(get(object, key)))
  const post: Accesses['post'] = (object, key, delta) => {
    const old = get(object, key)
    const number = typeof old === 'bigint' ? old : Number(old)
    set(object, key, typeof number === 'bigint' ? number + BigInt(delta) : number + delta)
    return number
  }
  const accesses = { get, set, update, post }
  const nothing = (): void => {}
  const others = {
    touched: nothing,
    speculate: nothing,
    settle: nothing,
    unordered: () => null,
    claim: () => nothing,
    running: () => false,
  }
  Object.defineProperty(globalThis, PLAIN_NAME, {
    value: { ...accesses, quiet: accesses, ...others },
    configurable: true,
  })
}

/** A value as the trace holds it. */
function word(value: unknown): number {
  return typeof value === 'bigint' ? Number(BigInt.asIntN(32, value)) : Number(value) | 0
}

/** controlPlain - accesses that an actor makes on this thread are seen from now on. */
export function controlPlain(engine: Engine, memory: Memory): Plain {
  const quiet = accesses(engine, memory, SILENT_READS, SILENT_WRITES)
  const touched = (view: ArrayBufferView, at: number, bytes: number): void => {
    const base = memory.addressOf(view)
    if (base >= 0) for (let k = 0; k < bytes + 4095; k += 4096) engine.markDirty(base + at + Math.min(k, bytes - 1))
  }
  const unordered: Plain['unordered'] = (view, at, bytes) => {
    const base = engine.active ? memory.addressOf(view) : -1
    if (base < 0 || (engine.w[W.DETECT]! & W.DETECT_RACE) === 0) return null
    for (let word = at; word < at + bytes; word += 4) {
      const cell = engine.cells.find(base + word)
      const found = cell < 0 ? -1 : engine.cells.unorderedAccess(cell)
      if (found >= 0) return { actor: found & 63, step: engine.cells.lastStep(cell, found & 63, found >= 64) }
    }
    return null
  }
  const claim: Claim = (kind, view, index, length, mask, scoped) => {
    const base = engine.active ? memory.addressOf(view) : -1
    const size = view.BYTES_PER_ELEMENT
    if (base < 0 || !(index >= 0 && length > 0 && index + length <= view.length)) return () => {}
    return claimOf(engine, { kind, address: base + index * size, bytes: length * size, mask }, scoped)
  }
  const running = (): boolean => engine.active
  const speculate = (): void => {
    if (engine.active) engine.speculation.begin()
  }
  const settle = (valid: boolean): void => {
    if (engine.active) for (const look of engine.speculation.end(valid)) confirm(engine, look)
  }
  const plain: Plain = {
    ...accesses(engine, memory, READS, WRITES),
    quiet,
    touched,
    speculate,
    settle,
    unordered,
    claim,
    running,
  }
  controlMethods(engine, memory)
  Object.defineProperty(globalThis, PLAIN_NAME, { value: plain, configurable: true })
  return plain
}

/** A read that was made some steps ago counts: did it race? */
function confirm(engine: Engine, { address, bytes, step }: Look): void {
  const { cells, w } = engine
  for (let at = address; at < address + bytes; at += 4) {
    const cell = cells.at(at)
    const other = cells.unorderedWrite(cell, bytesMask(at, bytes))
    if (other < 0 || (w[W.DETECT]! & W.DETECT_RACE) === 0) continue
    engine.found(W.FOUND_RACE, other, at, cells.lastStep(cell, other, true), step >= 0 ? step : w[W.TRACED]! - 1)
  }
}

function accesses(engine: Engine, memory: Memory, reads: Effect, writes: Effect): Accesses {
  const addressOf = (object: unknown, key: unknown): number => {
    if (!engine.active || !ArrayBuffer.isView(object)) return -1
    const typed = object as Typed
    const index = typeof key === 'string' ? Number(key) : key
    if (typeof index !== 'number' || !(index >= 0 && index < typed.length) || !Number.isInteger(index)) return -1
    const base = memory.addressOf(typed)
    return base < 0 ? -1 : base + index * typed.BYTES_PER_ELEMENT
  }

  const get = (object: unknown, key: PropertyKey): unknown => {
    const address = addressOf(object, key)
    if (address < 0) return (object as Indexed)[key]
    const step = engine.plainStep(W.K_READ, address, (object as Typed).BYTES_PER_ELEMENT)
    const value = seen(engine, object as Typed, Number(key), address)
    const bytes = (object as Typed).BYTES_PER_ELEMENT
    const { speculation } = engine
    engine.done(step, address, bytes, word(value), word(value), speculation.active ? SILENT_READS : reads)
    if (speculation.active && reads.silent !== true) speculation.add(address, bytes, step)
    return value
  }

  const set = (object: unknown, key: PropertyKey, value: unknown): unknown => {
    const address = addressOf(object, key)
    if (address < 0) {
      if (engine.tracking && ArrayBuffer.isView(object)) markRange(engine, memory, object)(Number(key))
      ;(object as Indexed)[key] = value
      return value
    }
    if (engine.buffers.any && address < PRIVATE) {
      store(engine, object as Typed, value, address, writes)
      return value
    }
    const step = engine.plainStep(W.K_WRITE, address, (object as Typed).BYTES_PER_ELEMENT)
    const before = word((object as Indexed)[key])
    ;(object as Indexed)[key] = value
    engine.done(step, address, (object as Typed).BYTES_PER_ELEMENT, before, word((object as Indexed)[key]), writes)
    return value
  }

  const update = (object: unknown, key: PropertyKey, change: (old: unknown) => unknown): unknown =>
    set(object, key, change(get(object, key)))

  const post = (object: unknown, key: PropertyKey, delta: 1 | -1): unknown => {
    let old = get(object, key)
    if (typeof old !== 'bigint') old = Number(old)
    set(object, key, typeof old === 'bigint' ? old + BigInt(delta) : (old as number) + delta)
    return old
  }

  return { get, set, update, post }
}

/** Elements of each kind of array, to turn values into bytes and back. */
const scratches = new Map<unknown, { element: Typed; bytes: Uint8Array }>()
function scratch(view: Typed): { element: Typed; bytes: Uint8Array } {
  let known = scratches.get(view.constructor)
  if (known === undefined) {
    const element = new (view.constructor as new (n: number) => Typed)(1)
    known = { element, bytes: new Uint8Array(element.buffer) }
    scratches.set(view.constructor, known)
  }
  return known
}

/** seen - what this actor reads: the element, or what it has stored there itself and memory does not hold yet. */
export function seen(engine: Engine, view: Typed, index: number, address: number): number | bigint {
  const { buffers, me } = engine
  if (!buffers.any || buffers.isEmpty(me)) return view[index]!
  const { element, bytes } = scratch(view)
  element[0] = view[index]!
  buffers.forward(me, address, bytes)
  return element[0]!
}

/** An element is stored: into the buffer, eight bytes in halves where each word has one of its own. */
function store(engine: Engine, view: Typed, value: unknown, address: number, effect: Effect): void {
  const { element, bytes } = scratch(view)
  element[0] = value as number
  const shown = word(element[0])
  if (bytes.length < 8 || !engine.buffers.perWord) {
    engine.store(address, bytes, shown, effect)
    return
  }
  const halves = bytes.slice()
  engine.store(address, halves.subarray(0, 4), shown, effect)
  engine.store(address + 4, halves.subarray(4), shown, effect)
}

/** Remember that an element was written outside of actors. */
function markRange(engine: Engine, memory: Memory, view: ArrayBufferView): (index: number) => void {
  const base = memory.addressOf(view)
  return index => {
    if (base >= 0) engine.markDirty(base + index * ((view as Typed).BYTES_PER_ELEMENT ?? 1))
  }
}

/** An access of several bytes by a method of `view`, word by word. */
function range(
  engine: Engine,
  view: ArrayBufferView,
  base: number,
  { offset, bytes, isWrite }: Touch,
  act: () => unknown,
): unknown {
  const kind = isWrite ? W.K_WRITE : W.K_READ
  const effect = isWrite ? WRITES : READS
  const steps: [step: number, at: number, size: number, before: number][] = []
  engine.fence()
  for (let at = offset; at < offset + bytes; ) {
    const size = Math.min(4 - ((base + at) & 3), offset + bytes - at)
    const step = engine.plainStep(kind, base + at, size)
    steps.push([step, at, size, step < 0 ? 0 : valueAt(view, at, size)])
    at += size
  }
  const result = act()
  for (const [step, at, size, before] of steps) {
    try {
      // Values are not looked at: a method that writes is taken to have changed every word.
      engine.done(step, base + at, size, 0, isWrite ? -1 : 0, effect)
    } finally {
      // But a reader of the trace wants them.
      if (step >= 0) engine.tell(step, before, valueAt(view, at, size))
    }
  }
  return result
}

/** Up to four bytes of a view, as a number. */
function valueAt(view: ArrayBufferView, offset: number, size: number): number {
  const bytes = new Uint8Array(view.buffer, view.byteOffset + offset, size)
  let value = 0
  for (let k = 0; k < size; k++) value |= bytes[k]! << (k * 8)
  return value
}

/** The bytes of a view that a method touches. */
interface Touch {
  offset: number
  bytes: number
  isWrite: boolean
}

type Method = (this: ArrayBufferView, ...args: never[]) => unknown

/** Replace a method of a prototype by one that says which bytes it touches. */
function wrap(
  prototype: object,
  name: string,
  touch: (self: ArrayBufferView, args: readonly unknown[]) => Touch | null,
  engine: Engine,
  memory: Memory,
): void {
  const host = (prototype as Record<string, Method>)[name]!
  const replacement = function (this: ArrayBufferView, ...args: never[]): unknown {
    if (!(engine.active || engine.tracking) || !ArrayBuffer.isView(this)) return host.apply(this, args)
    const base = memory.addressOf(this)
    const what = base < 0 ? null : touch(this, args)
    if (!engine.active) {
      if (what?.isWrite === true)
        for (let at = 0; at < what.bytes + 4096; at += 4096)
          engine.markDirty(base + what.offset + Math.min(at, what.bytes))
      return host.apply(this, args)
    }
    if (what === null || what.bytes <= 0) return host.apply(this, args)
    return range(engine, this, base, what, () => host.apply(this, args))
  }
  Object.defineProperty(replacement, 'name', { value: name })
  Object.defineProperty(prototype, name, { value: replacement, configurable: true, writable: true })
}

const SIZES = {
  Int8: 1,
  Uint8: 1,
  Int16: 2,
  Uint16: 2,
  Int32: 4,
  Uint32: 4,
  Float32: 4,
  Float64: 8,
  BigInt64: 8,
  BigUint64: 8,
}

function controlMethods(engine: Engine, memory: Memory): void {
  for (const [name, bytes] of Object.entries(SIZES)) {
    for (const isWrite of [false, true]) {
      const touch = (self: ArrayBufferView, [offset]: readonly unknown[]) => {
        const at = Number(offset)
        return at >= 0 && at + bytes <= self.byteLength ? { offset: at, bytes, isWrite } : null
      }
      wrap(DataView.prototype, `${isWrite ? 'set' : 'get'}${name}`, touch, engine, memory)
    }
  }
  const typed = Object.getPrototypeOf(Int32Array.prototype) as object
  wrap(
    typed,
    'set',
    (self, [source, offset]) => {
      const { BYTES_PER_ELEMENT: size, length } = self as Typed
      const from = Number(offset ?? 0)
      const n = Number((source as { length?: number } | null)?.length ?? 0)
      return from >= 0 && from + n <= length ? { offset: from * size, bytes: n * size, isWrite: true } : null
    },
    engine,
    memory,
  )
  wrap(
    typed,
    'fill',
    (self, [, start, end]) => {
      const { BYTES_PER_ELEMENT: size, length } = self as Typed
      const from = relative(start, 0, length)
      const to = relative(end, length, length)
      return { offset: from * size, bytes: (to - from) * size, isWrite: true }
    },
    engine,
    memory,
  )
  wrap(
    typed,
    'copyWithin',
    (self, [target, start, end]) => {
      const { BYTES_PER_ELEMENT: size, length } = self as Typed
      const to = relative(target, 0, length)
      const n = Math.min(relative(end, length, length) - relative(start, 0, length), length - to)
      return { offset: to * size, bytes: n * size, isWrite: true }
    },
    engine,
    memory,
  )
  wrap(
    typed,
    'slice',
    (self, [start, end]) => {
      const { BYTES_PER_ELEMENT: size, length } = self as Typed
      const from = relative(start, 0, length)
      const to = Math.max(from, relative(end, length, length))
      return from < to ? { offset: from * size, bytes: (to - from) * size, isWrite: false } : null
    },
    engine,
    memory,
  )
  for (const name of ['join', 'indexOf', 'includes', 'reduce', 'forEach', 'map', 'every', 'some', 'find']) {
    wrap(typed, name, self => ({ offset: 0, bytes: self.byteLength, isWrite: false }), engine, memory)
  }
}

/** An index as `fill` and `slice` take it: negative ones count from the end. */
function relative(index: unknown, otherwise: number, length: number): number {
  if (index === undefined) return otherwise
  const n = Math.trunc(Number(index)) || 0
  return n < 0 ? Math.max(0, length + n) : Math.min(n, length)
}
