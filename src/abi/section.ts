/** section.ts - where variables live: DEFINE_STATIC (one for the machine) and DEFINE_PER_CPU (one for each CPU). */
import { CPU_TALLY, CPU_VARS, CPU_WORDS, cpu_area, cpu_id } from '../arch/cpu.js'
import { PERCPU_SHIFT, STATIC_BASE, STATIC_END } from '../arch/ram.js'
import type { Layout, Struct } from './layout.js'

export interface Placed {
  name: string
  kind: 'static' | 'percpu'
  offset: number // address of a static; offset in each CPU's area of a per-CPU variable
  layout: Layout<Struct>
}
/** Every placed variable, in module order: the machine's System.map. */
export const placed: Placed[] = []

let static_top = STATIC_BASE
let percpu_top = CPU_VARS

function align_up(n: number, a: number): number {
  return (n + a - 1) & ~(a - 1)
}

/** DEFINE_STATIC - one struct of the whole machine, on cache lines of its own; zero at power-on. */
export function DEFINE_STATIC<T extends Struct>(name: string, layout: Layout<T>): T {
  const offset = align_up(static_top, 128)
  static_top = offset + layout.size
  if (static_top > STATIC_END) throw new Error(`statics overflow at ${name}`)
  placed.push({ name, kind: 'static', offset, layout: layout as unknown as Layout<Struct> })
  return layout.ref(offset)
}

/** A per-CPU variable: `mine` is this CPU's, `cpu(n)` is another's. */
export class PerCpu<T extends Struct> {
  readonly mine: T
  private readonly all: T[] = []
  constructor(
    readonly offset: number,
    private readonly layout: Layout<T>,
  ) {
    this.mine = layout.ref(cpu_area(Math.max(cpu_id, 0)) + offset)
  }
  cpu(n: number): T {
    return this.all[n] ?? (this.all[n] = this.layout.ref(cpu_area(n) + this.offset))
  }
}

/** DEFINE_PER_CPU - one struct for each CPU, each on lines of its own; zero at power-on. */
export function DEFINE_PER_CPU<T extends Struct>(name: string, layout: Layout<T>): PerCpu<T> {
  const offset = align_up(percpu_top, 128)
  percpu_top = offset + layout.size
  if (percpu_top > CPU_TALLY) throw new Error(`per-CPU area overflows at ${name}`)
  placed.push({ name, kind: 'percpu', offset, layout: layout as unknown as Layout<Struct> })
  return new PerCpu(offset, layout)
}

/** Others that know what lies at an address; filled at module load. */
export const describers: ((addr: number) => string | null)[] = []

/** describe_addr - what holds an address, for dumps: `softnet_data[1].throttle`, `net_device[3].xmit_lock`, or null. */
export function describe_addr(addr: number): string | null {
  for (const describe of [describe_variable, describe_register, ...describers]) {
    const name = describe(addr)
    if (name !== null) return name
  }
  return null
}

/** A CPU's own words: `cpu[1].pending`. */
function describe_register(addr: number): string | null {
  const cpu = (addr - cpu_area(0)) >> PERCPU_SHIFT
  if (cpu < 0 || cpu >= 32) return null
  const name = CPU_WORDS[addr - cpu_area(cpu)]
  return name === undefined ? null : `cpu[${cpu}].${name}`
}

function describe_variable(addr: number): string | null {
  for (const p of placed) {
    let at = addr - p.offset
    let index = ''
    if (p.kind === 'percpu') {
      const cpu = (addr - cpu_area(0)) >> PERCPU_SHIFT
      if (cpu < 0 || cpu >= 32) continue
      at = addr - cpu_area(cpu) - p.offset
      index = `[${cpu}]`
    }
    if (at >= 0 && at < p.layout.size) return `${p.name}${index}${field_at(p.layout, at)}`
  }
  return null
}

/** field_at - `.name` of the field at an offset of a struct; the first word of a struct inside it is called as that struct. */
export function field_at(layout: Layout<Struct>, offset: number): string {
  for (const [key, field] of Object.entries(layout.fields)) {
    const at = offset - layout.offsets[key]
    if (at >= 0 && at < field.size) {
      return `.${key}${at > 0 && field.kind === 'embed' && field.target ? field_at(field.target(), at) : ''}`
    }
  }
  return ''
}
