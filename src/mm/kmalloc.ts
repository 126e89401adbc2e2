/** kmalloc.ts - memory of any size up to 512 KiB from size-class caches: hash tables, rings, blobs. */
import { type Layout, layout, Struct, word } from '../abi/layout.js'
import { panic } from '../arch/cpu.js'
import { memzero } from '../arch/ram.js'
import { kmem_alloc_addr, kmem_cache_create, kmem_free_addr } from './slab.js'

class chunk extends Struct {
  declare data: number
}
const CHUNK: Layout<chunk> = layout('chunk', chunk, { data: word })

/** log2 of the size, how many there are */
const CLASSES = [
  [6, 4096],
  [8, 1024],
  [10, 256],
  [12, 160],
  [14, 96],
  [16, 32],
  [19, 4],
] as const

const sizes = CLASSES.map(([shift, count]) => ({
  bytes: 1 << shift,
  cache: kmem_cache_create(`size-${1 << shift}`, CHUNK, () => count, 1 << shift),
}))

/** kmalloc - zeroed memory, or 0. @context any @returns owned memory */
export function kmalloc(bytes: number): number {
  for (const size of sizes) {
    if (size.bytes < bytes) continue
    const addr = kmem_alloc_addr(size.cache)
    if (addr === 0) continue
    memzero(addr, size.bytes)
    return addr
  }
  return 0
}

/** kfree - @context any @consumes addr */
export function kfree(addr: number): void {
  for (const { cache } of sizes) {
    if (addr >= cache.base && addr < cache.base + (cache.count << cache.shift)) {
      kmem_free_addr(cache, addr)
      return
    }
  }
  panic('BUG: kfree of a stranger')
}
