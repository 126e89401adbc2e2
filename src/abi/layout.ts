/**
 * layout.ts - how C structs are spelt: a class declares the fields, a layout literal places them.
 *
 *   export class sk_buff extends Struct { declare next: sk_buff | null; declare len: number }
 *   export const SKB: Layout<sk_buff> = layout('sk_buff', sk_buff, { next: ptr(() => SKB), len: word })
 *
 * A lens is a stateless view of one struct at one address: `SKB.at(addr)` is the same object every time on a thread, so
 * `===` and `null` work. All words are int32 in RAM. Guards (`by`, `own`, `rcu`, `konst`) are kept as data for reports.
 */
import { load, store } from '../arch/atomic.js'
import { boot } from '../arch/boot.js'
import { RAM } from '../arch/ram.js'

const i32 = RAM.i32

export class Struct {
  /** Address in RAM. */
  declare readonly addr: number
  /** The same as a word index. */
  declare readonly $w: number
  constructor(addr: number) {
    ;(this as { addr: number }).addr = addr
    ;(this as { $w: number }).$w = addr >> 2
  }
}

type Kind = 'word' | 'ptr' | 'embed' | 'bytes'
export interface Field {
  readonly kind: Kind
  readonly size: number
  readonly align: number
  readonly target?: () => Layout<Struct>
  /** Who may touch it, in the words of the lock charter. */
  readonly guard?: string
}

/** A 32-bit signed word. */
export const word: Field = { kind: 'word', size: 4, align: 4 }
/** A pointer to another struct: a lens or null in code, an address at rest. */
export function ptr<T extends Struct>(target: () => Layout<T>): Field {
  return { kind: 'ptr', size: 4, align: 4, target: target as () => Layout<Struct> }
}
/** A struct inside this one. The embedded layout must already be defined. */
export function embed<T extends Struct>(target: Layout<T>): Field {
  return { kind: 'embed', size: target.size, align: target.align, target: () => target as unknown as Layout<Struct> }
}
/** Raw bytes or an array of words: the field's value is its address. */
export function bytes(size: number): Field {
  return { kind: 'bytes', size: (size + 3) & ~3, align: 4 }
}
/** Starts the field on a cache line of its own. */
export function line(field: Field): Field {
  return { ...field, align: 128 }
}
/** Guarded by the lock of that name. */
export function by(guard: string, field: Field): Field {
  return { ...field, guard: `guarded by ${guard}` }
}
/** Touched by its owner only. */
export function own(field: Field): Field {
  return { ...field, guard: 'owner only' }
}
/** Published with rcu_assign_pointer. */
export function rcu(field: Field): Field {
  return { ...field, guard: 'RCU' }
}
/** Any CPU, atomically. */
export function atomic(field: Field): Field {
  return { ...field, guard: 'atomic' }
}
/** Constant after boot or registration. */
export function konst(field: Field): Field {
  return { ...field, guard: 'const' }
}

export const layouts: Layout<Struct>[] = []

export class Layout<T extends Struct> {
  readonly offsets: Record<string, number> = {}
  readonly size: number
  readonly align: number
  // the pool whose slots have lenses by index; set by attach
  private base = 0
  private shift = 31
  private lenses: (T | undefined)[] = []
  private others = new Map<number, T>()
  private embeds: { name: string; offset: number; layout: Layout<Struct> }[] = []
  private pointers: { key: string; at: string; field: Field; target: () => Layout<Struct> }[] = []
  private source: string[] = []
  private count = 0
  private mask = 0
  // what miss() found last
  private recent: T | null = null
  private recent_addr = 0

  constructor(
    readonly name: string,
    private readonly ctor: new (addr: number) => T,
    readonly fields: Record<string, Field>,
    align = 4,
  ) {
    let at = 0
    let most = align
    for (const [key, field] of Object.entries(fields)) {
      at = (at + field.align - 1) & ~(field.align - 1)
      this.offsets[key] = at
      this.define(key, field, at)
      at += field.size
      most = Math.max(most, field.align)
    }
    this.install()
    this.size = (at + most - 1) & ~(most - 1)
    this.align = most
    layouts.push(this as unknown as Layout<Struct>)
  }

  /** Note a field; install() writes the accessors of all fields at once. */
  private define(key: string, field: Field, offset: number): void {
    const at = `this.$w + ${offset >> 2}`
    if (field.kind === 'embed') this.embeds.push({ name: key, offset, layout: field.target!() })
    else if (field.kind === 'bytes') this.source.push(`get ${key}() { return this.addr + ${offset} }`)
    else if (field.kind === 'word')
      this.source.push(`get ${key}() { return ${read(at, field)} }`, `set ${key}(v) { ${write(at, 'v', field)} }`)
    else {
      this.pointers.push({ key, at, field, target: field.target! })
    }
  }

  /**
   * Accessors are generated as text, one function each: closures over an offset would share one feedback vector between
   * all structs, whose field `$w` then loads megamorphically. Measured: docs/architecture.md, "Lenses".
   */
  private install(): void {
    const getters = this.pointers.map(
      ({ key, at, field }, k) =>
        `get ${key}() { const a = ${read(at, field)}; return a === 0 ? null : t[${k}]().ref(a) }`,
    )
    const targets = this.pointers.map(p => p.target)
    this.define_accessors([...this.source, ...getters, ...this.setters()], { t: targets })
  }

  private setters(): string[] {
    return this.pointers.map(({ key, at, field }) => `set ${key}(v) { ${write(at, 'v === null ? 0 : v.addr', field)} }`)
  }

  private define_accessors(source: string[], captured: Record<string, unknown>): void {
    const accessors = generate(`{\n${source.join(',\n')}\n}`, captured) as object
    Object.defineProperties(this.ctor.prototype as object, Object.getOwnPropertyDescriptors(accessors))
  }

  /**
   * Once all pools have their place: pointers and ref() are generated anew with the place of their pool as constants, so
   * that following a pointer is a subtraction, two comparisons and a load, small enough to be inlined everywhere.
   */
  settle(): void {
    const getters = this.pointers.map(({ key, at, field, target }, k) => {
      const found = target().lookup(`l${k}`, `t${k}`)
      return `get ${key}() { const a = ${read(at, field)}; if (a === 0) return null; ${found} }`
    })
    const captured = Object.fromEntries(
      this.pointers.flatMap(({ target }, k) => [
        [`l${k}`, target().lenses],
        [`t${k}`, target()],
      ]),
    )
    this.define_accessors([...getters, ...this.setters()], captured)
    this.ref = generate(`a => { ${this.lookup('l', 't')} }`, { l: this.lenses, t: this }) as (addr: number) => T
  }

  /** Statements that return the lens at address `a`. */
  private lookup(lenses: string, layout: string): string {
    if (this.count === 0) return `return ${layout}.miss(a)`
    return (
      `const d = a - ${this.base}, s = d >>> ${this.shift}; ` +
      `if (s < ${this.count} && (d & ${this.mask}) === 0) { const x = ${lenses}[s]; if (x !== undefined) return x } ` +
      `return ${layout}.miss(a)`
    )
  }

  /** Byte offset of a field. */
  offset(field: keyof T & string): number {
    const offset = this.offsets[field]
    if (offset === undefined) throw new Error(`struct ${this.name} has no field ${field}`)
    return offset
  }

  /** A new lens that nobody else will get; for embedding and for statics. */
  make(addr: number): T {
    const lens = new this.ctor(addr)
    for (const e of this.embeds)
      Object.defineProperty(lens, e.name, { value: e.layout.make(addr + e.offset), enumerable: true })
    return lens
  }

  // The slot is checked by arithmetic, never by lens.addr: that load would see every struct's shape.

  /** The lens of the struct at `addr`, or null for address 0. */
  at(addr: number): T | null {
    return addr === 0 ? null : this.ref(addr)
  }

  /** As at(), for an address that cannot be 0. */
  ref: (addr: number) => T = addr => this.miss(addr)

  private miss(addr: number): T {
    const d = addr - this.base
    const slot = d >>> this.shift
    if (slot < this.count && (d & this.mask) === 0) return this.lenses[slot] ?? (this.lenses[slot] = this.make(addr))
    if (addr === this.recent_addr && this.recent !== null) return this.recent // a static that every packet asks for
    let lens = this.others.get(addr)
    if (lens === undefined) {
      lens = this.make(addr)
      this.others.set(addr, lens)
    }
    this.recent_addr = addr
    this.recent = lens
    return lens
  }

  /** container_of: the struct whose embedded `field` is at `addr`. */
  container_of(field: keyof T & string, addr: number): T {
    return this.ref(addr - this.offset(field))
  }

  /** Tell where the slab of these structs lies: `count` slots of `1 << shift` bytes from `base`. */
  attach(base: number, shift: number, count: number): void {
    if (settled.yes) {
      if (base === this.base && shift === this.shift && count === this.count) return // the same machine boots again
      throw new Error(`the pool of struct ${this.name} moved after layouts_settle()`)
    }
    this.base = base
    this.shift = shift
    this.count = count
    this.mask = 2 ** shift - 1
    this.lenses = []
    for (let k = 0; k < count; k++) this.lenses.push(undefined)
    const end = base + count * 2 ** shift
    for (const addr of this.others.keys()) if (addr >= base && addr < end) this.others.delete(addr)
    this.recent = null
  }

  /** pahole: one line a field. */
  describe(): string {
    const rows = Object.entries(this.fields).map(
      ([key, f]) =>
        `  ${String(this.offsets[key]).padStart(5)} ${String(f.size).padStart(5)}  ${key}${f.guard ? `  /* ${f.guard} */` : ''}`,
    )
    return `struct ${this.name} { /* size ${this.size}, align ${this.align} */\n${rows.join('\n')}\n}`
  }
}

/**
 * The flavours of the accessors: under control each access is watched (src/explore/plain.ts). A field that is said to be
 * atomic is read as atomic_read() reads: others may change it meanwhile, and that is no data race.
 */
const CHECKED = boot.controlled === true
function read(at: string, field?: Field): string {
  if (!CHECKED) return `i32[${at}]`
  const where = `check(${at})`
  if (field?.guard === 'atomic') return `load(${where} << 2)`
  return field?.guard === 'RCU' && field.kind === 'ptr'
    ? `fetched(__softnet.get(i32, ${where}), ${at})`
    : `__softnet.get(i32, ${where})`
}
function write(at: string, value: string, field?: Field): string {
  if (!CHECKED) return `i32[${at}] = ${value}`
  const where = `check(${at})`
  return field?.guard === 'atomic' ? `store(${where} << 2, ${value})` : `__softnet.set(i32, ${where}, ${value})`
}

/**
 * What floors above have to say about an access, by word index: `check` may refuse it, `fetched` sees the pointers that are
 * published by RCU. Only the checked flavour asks, and only while an actor runs.
 */
export const access_hooks = {
  check: (w: number): number => w,
  fetched: (value: number, _w: number): number => value,
}
function running(): boolean {
  return (globalThis as { __softnet?: { running(): boolean } }).__softnet?.running() === true
}
function check(w: number): number {
  return running() ? access_hooks.check(w) : w
}
function fetched(value: number, w: number): number {
  return running() ? access_hooks.fetched(value, w) : value
}

/** A function or object from source text, with the captured values as constants. */
function generate(source: string, captured: Record<string, unknown>): unknown {
  const names = Object.keys(captured)
  const make = new Function('i32', 'load', 'store', 'check', 'fetched', ...names, `'use strict'; return (${source})`)
  return make(i32, load, store, check, fetched, ...names.map(name => captured[name]))
}

const settled = { yes: false }
/** layouts_settle - every pool has its place: from here on pointers are followed by constants. @context boot, once a thread */
export function layouts_settle(): void {
  if (settled.yes) return
  settled.yes = true
  for (const l of layouts) l.settle()
}

/** layout - place the fields of a struct. */
export function layout<T extends Struct>(
  name: string,
  ctor: new (addr: number) => T,
  fields: {
    [K in Exclude<keyof T, 'addr' | '$w'> & string as T[K] extends (...args: never[]) => unknown ? never : K]: Field
  },
  options: { align?: number } = {},
): Layout<T> {
  return new Layout<T>(name, ctor, fields as Record<string, Field>, options.align)
}
