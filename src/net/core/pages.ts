/** pages.ts - packet pages: 4 KiB with a reference count, for the fragments of sk_buffs. */

import { type Layout, layout, Struct, word } from '../../abi/layout.js'
import { panic } from '../../arch/cpu.js'
import { RAM } from '../../arch/ram.js'
import { PACKET_PAGES, PAGE_SIZE } from '../../lib/limits.js'
import { at_mem_init } from '../../mm/init.js'
import { kmem_alloc_addr, kmem_cache_create, kmem_free_addr } from '../../mm/slab.js'
import { refcount_dec_and_test, refcount_inc } from '../../sync/refcount.js'

const i32 = RAM.i32

class page extends Struct {
  declare first: number
}
const PAGE: Layout<page> = layout('page', page, { first: word })
const cache = kmem_cache_create('packet_page', PAGE, () => PACKET_PAGES, PAGE_SIZE)

/** Where the counts lie: the same on every CPU. */
const place = { counts: 0 }
at_mem_init(mem => {
  place.counts = mem.alloc(PACKET_PAGES * 4)
})

function count_addr(addr: number): number {
  const index = (addr - cache.base) >>> cache.shift
  if (index >= PACKET_PAGES) panic('BUG: not a packet page')
  return place.counts + index * 4
}

/** page_alloc - a page with one reference, or 0. @context any @returns owned page */
export function page_alloc(): number {
  const addr = kmem_alloc_addr(cache)
  if (addr !== 0) i32[count_addr(addr) >> 2] = 1
  return addr
}
/** page_get - one more reference. */
export function page_get(addr: number): void {
  refcount_inc(count_addr(addr))
}
/** page_put - one reference less; the last one frees the page. @consumes a reference */
export function page_put(addr: number): void {
  const count = count_addr(addr)
  if (refcount_dec_and_test(count)) kmem_free_addr(cache, addr)
}
