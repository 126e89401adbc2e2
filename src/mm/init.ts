/** init.ts - mem_init: gives every declared cache and table its memory. */
import { layouts_settle } from '../abi/layout.js'
import '../sync/watch.js'
import { Bootmem } from './bootmem.js'
import './check.js'
import { kmem_cache_init } from './slab.js'

/** Tables that other floors carve at boot, in module order, after the caches. */
const carvers: ((mem: Bootmem) => void)[] = []

/** at_mem_init - declare, at module load, what to carve at boot. */
export function at_mem_init(carve: (mem: Bootmem) => void): void {
  carvers.push(carve)
}

/** mem_init - carve RAM. Every CPU calls it once; CPU 0 before all others. @context boot */
export function mem_init(): number {
  const mem = new Bootmem()
  kmem_cache_init(mem)
  for (const carve of carvers) carve(mem)
  layouts_settle()
  return mem.used
}
