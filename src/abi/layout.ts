/**
 * layout.ts - how C structs are spelt: a class declares the fields, a layout literal places them.
 *
 *   export class sk_buff extends Struct { declare next: sk_buff | null; declare len: number }
 *   export const SKB: Layout<sk_buff> = layout('sk_buff', sk_buff, { next: ptr(() => SKB), len: word })
 *
 * A lens is a stateless view of one struct at one address: `SKB.at(addr)` is the same object every time on a thread, so
 * `===` and `null` work. All words are int32 in RAM. Guards (`by`, `own`, `rcu`, `konst`) are kept as data for reports.
 */
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
  private cells: { target: Layout<Struct> | null; resolve: () => Layout<Struct> }[] = []

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
    this.size = (at + most - 1) & ~(most - 1)
    this.align = most
    layouts.push(this as unknown as Layout<Struct>)
  }

  private define(key: string, field: Field, offset: number): void {
    const proto = this.ctor.prototype as object
    const off = offset >> 2
    if (field.kind === 'embed') {
      this.embeds.push({ name: key, offset, layout: field.target!() })
    } else if (field.kind === 'bytes') {
      Object.defineProperty(proto, key, {
        get(this: Struct) {
          return this.addr + offset
        },
      })
    } else if (field.kind === 'word') {
      Object.defineProperty(proto, key, {
        get(this: Struct) {
          return i32[this.$w + off]
        },
        set(this: Struct, value: number) {
          i32[this.$w + off] = value
        },
      })
    } else {
      const cell = { target: null as Layout<Struct> | null, resolve: field.target! }
      this.cells.push(cell)
      Object.defineProperty(proto, key, {
        get(this: Struct) {
          const addr = i32[this.$w + off]
          return addr === 0 ? null : (cell.target ?? (cell.target = cell.resolve())).at(addr)
        },
        set(this: Struct, value: Struct | null) {
          i32[this.$w + off] = value === null ? 0 : value.addr
        },
      })
    }
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

  /** The lens of the struct at `addr`, or null for address 0. */
  at(addr: number): T | null {
    if (addr === 0) return null
    const lens = this.lenses[(addr - this.base) >>> this.shift]
    return lens !== undefined && lens.addr === addr ? lens : this.miss(addr)
  }

  /** As at(), for an address that cannot be 0. */
  ref(addr: number): T {
    const lens = this.lenses[(addr - this.base) >>> this.shift]
    return lens !== undefined && lens.addr === addr ? lens : this.miss(addr)
  }

  private miss(addr: number): T {
    const index = (addr - this.base) >>> this.shift
    if (index < this.lenses.length && ((addr - this.base) & ((1 << this.shift) - 1)) === 0) {
      return (this.lenses[index] = this.make(addr))
    }
    let lens = this.others.get(addr)
    if (lens === undefined) {
      lens = this.make(addr)
      this.others.set(addr, lens)
    }
    return lens
  }

  /** container_of: the struct whose embedded `field` is at `addr`. */
  container_of(field: keyof T & string, addr: number): T {
    return this.ref(addr - this.offset(field))
  }

  /** Tell where the slab of these structs lies: `count` slots of `1 << shift` bytes from `base`. */
  attach(base: number, shift: number, count: number): void {
    this.base = base
    this.shift = shift
    this.lenses = new Array<T | undefined>(count).fill(undefined)
    const end = base + count * 2 ** shift
    for (const addr of this.others.keys()) if (addr >= base && addr < end) this.others.delete(addr)
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
