/**
 * slab.ts - object caches: a contiguous slab per kind, per-CPU stacks of free objects in front of a shared one.
 *
 * Lock charter
 *   slab.lock guards the shared stack (free, top). It is taken with interrupts off, only to move a batch, and nothing
 *   is called under it. A CPU's own array is touched by that CPU only, with interrupts off.
 *
 * Objects have a power-of-two stride of at least one word line, so a lens is found by index. A byte per object says
 * whether it is out: a double free and a free of a stranger stop the machine, and the leak audit reads the same bytes.
 *
 * A machine with `slab_poison` keeps nothing in the CPUs' arrays, so that every object takes the slow path, where it is
 * filled: with 0x5a when it is given out, with 0x6b and 0xa5 at its end when it is taken back. What was written in between
 * stops the machine when the object is given out again.
 */
import { by, embed, type Layout, layout, own, type Struct, Struct as StructClass, word } from '../abi/layout.js'
import { DEFINE_STATIC, describers, field_at } from '../abi/section.js'
import { boot } from '../arch/boot.js'
import { bug } from '../arch/bug.js'
import { cpu_id, local_irq_restore, local_irq_save } from '../arch/cpu.js'
import { config, num_cpus } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import { CACHELINE } from '../lib/limits.js'
import { SPINLOCK, spin_lock, spin_lock_init, spin_unlock, type spinlock_t } from '../sync/spinlock.js'
import type { Bootmem } from './bootmem.js'

const i32 = RAM.i32
const u8 = RAM.u8
const ME = Math.max(cpu_id, 0)
const CONTROLLED = boot.controlled === true

/** The part of a cache that CPUs share. */
class slab extends StructClass {
  declare lock: spinlock_t
  declare top: number
  declare failed: number
}
const SLAB: Layout<slab> = layout('slab', slab, {
  lock: embed(SPINLOCK),
  top: by('lock', word), // objects on the shared stack
  failed: own(word), // allocations that found nothing
})

/** Objects that move at once between a CPU's array and the shared stack: at most these. */
const MAX_BATCH = 32
/** A cache of so many bytes is not worth making smaller, bytes. */
const SMALL_CACHE = 1 << 16
/** States of an object. */
export const FREE = 0
const OUT = 1
const OUT_POISONED = 2
const POISON_INUSE = 0x5a5a5a5a
const POISON_FREE = 0x6b6b6b6b
const POISON_END = 0xa56b6b6b | 0 // its last byte is 0xa5
const ARRAY_BYTES = 128 + 2 * MAX_BATCH * 4

/** with_hoards - so many objects that `n` can be out, whatever CPUs keep in their arrays: half of the cache. @context boot */
export function with_hoards(n: number): number {
  const ncpus = num_cpus()
  return n + Math.min(ncpus * 2 * MAX_BATCH, Math.max(ncpus * 2, n))
}

/** for_programs - none of them on a machine that runs no programs of users. @context boot */
export function for_programs(n: number): number {
  return config('user_procs') > 0 ? n : 0
}

/** A cache. Its numbers are the same on every CPU after kmem_cache_init. */
export class kmem_cache<T extends Struct> {
  base = 0
  shift = 0
  count = 0
  /** word index of this CPU's array: [avail, entries...] */
  ac = 0
  stack = 0 // shared stack of free addresses
  state = 0 // a byte per object: 1 while it is out
  arrays = 0 // of CPU 0; the others follow at ARRAY_BYTES
  batch = 0
  poisoned = false
  /** objects that a CPU keeps at most: all CPUs together an eighth of the cache, unless it is tiny */
  limit = 0
  readonly shared: slab

  constructor(
    readonly name: string,
    readonly layout: Layout<T>,
    readonly size: number,
    readonly wanted: () => number,
  ) {
    this.shared = DEFINE_STATIC(`slab:${name}`, SLAB)
  }
}

/** Floors above that want to know of an object that is freed, while the machine is under control. */
export const slab_hooks: { freed: ((addr: number, size: number) => void) | null } = { freed: null }

/** All caches, in module order. */
export const caches: kmem_cache<Struct>[] = []

/**
 * kmem_cache_create - declare a cache, at module load.
 * @param count how many objects the machine has, asked at boot when the configuration is known
 * @param size bytes of an object when it is larger than its struct (buffers)
 */
export function kmem_cache_create<T extends Struct>(
  name: string,
  layout: Layout<T>,
  count: () => number,
  size = layout.size,
): kmem_cache<T> {
  const cache = new kmem_cache(name, layout, size, count)
  caches.push(cache as unknown as kmem_cache<Struct>)
  return cache
}

/** kmem_cache_init - give every cache its memory. Every CPU calls it; CPU 0 fills the free stacks. @context boot */
export function kmem_cache_init(mem: Bootmem): void {
  for (const cache of caches) {
    const shift = Math.max(5, 32 - Math.clz32(cache.size - 1))
    const count = objects_of(cache.wanted(), shift)
    cache.shift = shift
    cache.count = count
    // Where objects are few, those that lie idle at one CPU are missed by the others: all together keep an eighth.
    cache.batch = Math.max(1, Math.min(MAX_BATCH, Math.floor(count / (16 * num_cpus()))))
    cache.limit = 2 * cache.batch
    cache.poisoned = config('slab_poison') !== 0
    cache.base = mem.alloc(count << shift, Math.min(4096, Math.max(CACHELINE, 1 << shift)))
    cache.stack = mem.alloc(count * 4)
    cache.state = mem.alloc(count)
    cache.arrays = mem.alloc(ARRAY_BYTES * num_cpus())
    cache.ac = (cache.arrays + ME * ARRAY_BYTES) >> 2
    if (cache.size === cache.layout.size) cache.layout.attach(cache.base, shift, count)
    if (ME === 0) fill(cache)
  }
}

/** A small machine keeps what takes little. */
function objects_of(wanted: number, shift: number): number {
  const few = Math.min(wanted, Math.max(8, SMALL_CACHE >> shift))
  return Math.max(few, wanted >> config('slab_shift'))
}

function fill(cache: kmem_cache<Struct>): void {
  spin_lock_init(cache.shared.lock)
  for (let k = 0; k < cache.count; k++) {
    const addr = cache.base + ((cache.count - 1 - k) << cache.shift)
    i32[(cache.stack >> 2) + k] = addr
    if (cache.poisoned) poison(cache, addr)
  }
  cache.shared.top = cache.count
}

/** refill - move a batch from the shared stack to this CPU's array; interrupts are off. @returns objects moved */
function refill(cache: kmem_cache<Struct>): number {
  const shared = cache.shared
  spin_lock(shared.lock)
  const n = Math.min(cache.batch, shared.top)
  shared.top -= n
  const from = (cache.stack >> 2) + shared.top
  for (let k = 0; k < n; k++) i32[cache.ac + 1 + k] = i32[from + k]
  if (n === 0) shared.failed++
  spin_unlock(shared.lock)
  i32[cache.ac] = n
  return n
}

/** flush - give the older half of this CPU's array back; interrupts are off. */
function flush(cache: kmem_cache<Struct>): void {
  const { shared, batch } = cache
  spin_lock(shared.lock)
  const to = (cache.stack >> 2) + shared.top
  for (let k = 0; k < batch; k++) i32[to + k] = i32[cache.ac + 1 + k]
  shared.top += batch
  spin_unlock(shared.lock)
  const left = i32[cache.ac] - batch
  for (let k = 0; k < left; k++) i32[cache.ac + 1 + k] = i32[cache.ac + 1 + batch + k]
  i32[cache.ac] = left
}

// ---- poison ---------------------------------------------------------------------------------------------------------

function poison(cache: kmem_cache<Struct>, addr: number): void {
  const end = (addr + (1 << cache.shift)) >> 2
  i32.fill(POISON_FREE, addr >> 2, end - 1)
  i32[end - 1] = POISON_END
}

function check_poison(cache: kmem_cache<Struct>, addr: number): void {
  const end = ((addr + (1 << cache.shift)) >> 2) - 1
  let w = addr >> 2
  while (w < end && i32[w] === POISON_FREE) w++
  if (w === end && i32[end] === POISON_END) return
  const value = (i32[w] >>> 0).toString(16)
  bug(
    'use after free',
    `${cache.name} written after it was freed: 0x${value} at 0x${(w << 2).toString(16)}+${(w << 2) - addr}`,
  )
}

/** Interrupts are off. */
function alloc_poisoned(cache: kmem_cache<Struct>): number {
  const { shared } = cache
  spin_lock(shared.lock)
  const top = shared.top - 1
  if (top >= 0) shared.top = top
  else shared.failed++
  const addr = top >= 0 ? i32[(cache.stack >> 2) + top] : 0
  spin_unlock(shared.lock)
  if (addr === 0) return 0
  check_poison(cache, addr)
  i32.fill(POISON_INUSE, addr >> 2, (addr + (1 << cache.shift)) >> 2)
  u8[cache.state + ((addr - cache.base) >> cache.shift)] = OUT_POISONED
  return addr
}

/** Interrupts are off. */
function free_poisoned(cache: kmem_cache<Struct>, addr: number): void {
  const { shared } = cache
  poison(cache, addr)
  u8[cache.state + ((addr - cache.base) >> cache.shift)] = FREE
  spin_lock(shared.lock)
  i32[(cache.stack >> 2) + shared.top] = addr
  shared.top++
  spin_unlock(shared.lock)
}

// ---- allocation -----------------------------------------------------------------------------------------------------

/** kmem_alloc_addr - as kmem_cache_alloc, by address; 0 when the cache is empty. @context any */
export function kmem_alloc_addr(cache: kmem_cache<Struct>): number {
  const flags = local_irq_save()
  let avail = i32[cache.ac]
  if (avail === 0) {
    const poisoned = cache.poisoned
    avail = poisoned ? 0 : refill(cache)
    if (avail === 0) {
      const addr = poisoned ? alloc_poisoned(cache) : 0
      local_irq_restore(flags)
      return addr
    }
  }
  i32[cache.ac] = --avail
  const addr = i32[cache.ac + 1 + avail]
  u8[cache.state + ((addr - cache.base) >> cache.shift)] = OUT
  local_irq_restore(flags)
  return addr
}

/** kmem_free_addr - as kmem_cache_free, by address. @context any */
export function kmem_free_addr(cache: kmem_cache<Struct>, addr: number): void {
  if (CONTROLLED) slab_hooks.freed?.(addr, 1 << cache.shift)
  const slot = cache.state + ((addr - cache.base) >> cache.shift)
  const flags = local_irq_save()
  if (u8[slot] !== OUT || addr < cache.base || slot >= cache.state + cache.count) {
    free_slow(cache, addr)
    local_irq_restore(flags)
    return
  }
  u8[slot] = FREE
  if (i32[cache.ac] === cache.limit) flush(cache)
  const avail = i32[cache.ac]
  i32[cache.ac + 1 + avail] = addr
  i32[cache.ac] = avail + 1
  local_irq_restore(flags)
}

/** A poisoned object, or a mistake. */
function free_slow(cache: kmem_cache<Struct>, addr: number): void {
  const at = addr - cache.base
  const inside = at >= 0 && at < cache.count << cache.shift && (at & ((1 << cache.shift) - 1)) === 0
  if (!inside || u8[cache.state + (at >> cache.shift)] !== OUT_POISONED)
    bug('double free', `bad or double free of ${cache.name} at 0x${addr.toString(16)}`)
  free_poisoned(cache, addr)
}

/** kmem_cache_alloc - an object with undefined contents, or null when there is none. @context any @returns owned object */
export function kmem_cache_alloc<T extends Struct>(cache: kmem_cache<T>): T | null {
  const addr = kmem_alloc_addr(cache as unknown as kmem_cache<Struct>)
  return addr === 0 ? null : cache.layout.ref(addr)
}

/** kmem_cache_free - @context any @consumes obj */
export function kmem_cache_free<T extends Struct>(cache: kmem_cache<T>, obj: T): void {
  kmem_free_addr(cache as unknown as kmem_cache<Struct>, obj.addr)
}

export interface CacheUse {
  name: string
  size: number
  total: number
  used: number
  failed: number
}

/** slabinfo - objects out of each cache. Exact when the machine stands still. */
export function slabinfo(): CacheUse[] {
  return caches.map(cache => {
    let used = 0
    for (let k = 0; k < cache.count; k++) if (u8[cache.state + k] !== FREE) used++
    return { name: cache.name, size: cache.size, total: cache.count, used, failed: cache.shared.failed }
  })
}

/** objects_out - addresses of all objects of a cache that are out, for the leak audit. */
export function objects_out(cache: kmem_cache<Struct>): number[] {
  const out: number[] = []
  for (let k = 0; k < cache.count; k++) if (u8[cache.state + k] !== FREE) out.push(cache.base + (k << cache.shift))
  return out
}

/** freed_object - the cache of a free object that an address lies in, or null: for the audit. */
export function freed_object(addr: number): string | null {
  for (const cache of caches) {
    const at = addr - cache.base
    if (at < 0 || at >= cache.count << cache.shift) continue
    return u8[cache.state + (at >> cache.shift)] === FREE ? cache.name : null
  }
  return null
}

/** The object that holds an address, and the field of its struct. */
export function describe_object(addr: number): string | null {
  for (const cache of caches) {
    const at = addr - cache.base
    if (at < 0 || at >= cache.count << cache.shift) continue
    const inside = at & ((1 << cache.shift) - 1)
    return `${cache.name}[${at >> cache.shift}]${field_at(cache.layout, inside) || (inside === 0 ? '' : `+0x${inside.toString(16)}`)}`
  }
  return null
}
describers.push(describe_object)
