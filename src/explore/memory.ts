/**
 * memory.ts - addresses for shared memory: each buffer has its place in one space of numbers, the same on every thread.
 *
 * Buffers that the actors share are registered before the first run. One that an actor makes itself is its own: it gets a
 * place that no other thread uses.
 */

export type View =
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array

const PAGE = 4096
/** Buffers of actor k begin at PRIVATE + k * PRIVATE_SIZE. */
export const PRIVATE = 0x40000000
const PRIVATE_SIZE = 0x2000000

/** Memory - what this thread knows of buffers and views. */
export class Memory {
  readonly #bases = new Map<SharedArrayBuffer, number>()
  #views = new WeakMap<object, number>()
  #lastView: object | null = null
  #lastBase = 0
  #next = PAGE
  #private: number
  readonly #first: number
  #own = new Map<SharedArrayBuffer, number>()
  readonly #shared: SharedArrayBuffer[] = []

  readonly #engine: SharedArrayBuffer

  /** `engine`: the explorer's own memory, which is no part of the scenario. */
  constructor(me: number, engine: SharedArrayBuffer) {
    this.#engine = engine
    this.#first = PRIVATE + me * PRIVATE_SIZE
    this.#private = this.#first
  }

  /** Before a run: what this actor made in an earlier one is gone. */
  forgetOwn(): void {
    if (this.#private === this.#first) return
    this.#private = this.#first
    this.#own.clear()
    this.#views = new WeakMap()
    this.#lastView = null
  }

  /** A buffer that all threads register in the same order. */
  share(buffer: SharedArrayBuffer): void {
    if (this.#bases.has(buffer)) return
    this.#bases.set(buffer, this.#next)
    this.#shared.push(buffer)
    this.#next += Math.ceil((buffer.byteLength + 1) / PAGE) * PAGE
  }

  get shared(): readonly SharedArrayBuffer[] {
    return this.#shared
  }

  baseOf(buffer: SharedArrayBuffer): number {
    const known = this.#bases.get(buffer) ?? this.#own.get(buffer)
    if (known !== undefined) return known
    const base = this.#private
    this.#private += Math.ceil((buffer.byteLength + 1) / PAGE) * PAGE
    this.#own.set(buffer, base)
    return base
  }

  readonly #bytes: [base: number, bytes: Uint8Array][] = []

  /** The bytes of shared memory at `address`, to read or write. */
  bytesAt(address: number, length: number): Uint8Array {
    for (let k = this.#bytes.length; k < this.#shared.length; k++)
      this.#bytes.push([this.#bases.get(this.#shared[k]!)!, new Uint8Array(this.#shared[k]!)])
    for (const [base, bytes] of this.#bytes) {
      const offset = address - base
      if (offset >= 0 && offset < bytes.length) return bytes.subarray(offset, offset + length)
    }
    throw new RangeError(`no shared memory at ${address}`)
  }

  /** Address of a view's first byte; -1: its memory is not shared. */
  addressOf(view: ArrayBufferView): number {
    if (view === this.#lastView) return this.#lastBase
    let base = this.#views.get(view)
    if (base === undefined) {
      const { buffer } = view
      base = buffer instanceof SharedArrayBuffer && buffer !== this.#engine ? this.baseOf(buffer) + view.byteOffset : -1
      this.#views.set(view, base)
    }
    this.#lastView = view
    this.#lastBase = base
    return base
  }
}

/** buffersIn - the shared buffers that can be reached from a value, in the order of its properties. */
export function buffersIn(value: unknown): SharedArrayBuffer[] {
  const found = new Set<SharedArrayBuffer>()
  const seen = new Set<unknown>()
  const walk = (v: unknown): void => {
    if (typeof v !== 'object' || v === null || seen.has(v)) return
    seen.add(v)
    if (v instanceof SharedArrayBuffer) found.add(v)
    else if (ArrayBuffer.isView(v)) walk(v.buffer)
    else if (v instanceof Map) for (const [k, x] of v) for (const y of [k, x]) walk(y)
    else if (v instanceof Set) for (const x of v) walk(x)
    else if (v instanceof WebAssembly.Memory) walk(v.buffer)
    else for (const x of Object.values(v)) walk(x)
  }
  walk(value)
  return [...found]
}

/** A view or buffer of the scenario, by the way that leads to it. */
export interface Name {
  path: string
  address: number
  bytes: number
  /** Bytes of an element; 0 for a plain buffer. */
  element: number
}

/** namesIn - how to speak of addresses: `shared.lock[0]`. */
export function namesIn(value: unknown, memory: Memory): Name[] {
  const names: Name[] = []
  const seen = new Set<unknown>()
  const walk = (v: unknown, path: string): void => {
    if (typeof v !== 'object' || v === null || seen.has(v)) return
    seen.add(v)
    if (v instanceof SharedArrayBuffer) names.push({ path, address: memory.baseOf(v), bytes: v.byteLength, element: 0 })
    else if (ArrayBuffer.isView(v)) {
      const address = memory.addressOf(v)
      const element = 'BYTES_PER_ELEMENT' in v ? Number(v.BYTES_PER_ELEMENT) : 1
      if (address >= 0) names.push({ path, address, bytes: v.byteLength, element })
    } else if (v instanceof WebAssembly.Memory) walk(v.buffer, `${path}.buffer`)
    else if (Array.isArray(v)) for (const [k, x] of v.entries()) walk(x, `${path}[${k}]`)
    else if (v instanceof Map || v instanceof Set)
      for (const [k, x] of [...v.values()].entries()) walk(x, `${path}#${k}`)
    else for (const [k, x] of Object.entries(v)) walk(x, path === '' ? k : `${path}.${k}`)
  }
  walk(value, '')
  return names
}

/** nameOf - the words for an address: the narrowest view that holds it. */
export function nameOf(
  names: readonly Name[],
  address: number,
  describe: ((address: number) => string | null) | null = null,
): string {
  let best: Name | undefined
  for (const n of names) {
    if (address < n.address || address >= n.address + n.bytes) continue
    if (best === undefined || better(n, best)) best = n
  }
  if (best === undefined) return address >= PRIVATE ? `a word of its own (+${address & 0xffff})` : `+${address}`
  const offset = address - best.address
  const described = best.element === 0 ? describe?.(offset) : null
  if (described !== null && described !== undefined) return described
  const path = best.path === '' ? 'shared' : best.path
  if (best.element === 0) return `${path}+${offset}`
  return best.bytes === best.element ? path : `${path}[${Math.floor(offset / best.element)}]`
}

function better(a: Name, b: Name): boolean {
  if ((a.element === 0) !== (b.element === 0)) return b.element === 0
  return a.bytes < b.bytes
}
