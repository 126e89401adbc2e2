/** slabs.ts - how many objects of a cache are out. */
import { slabinfo } from '../../src/mm/slab.js'

export function objects_of(cache: string): number {
  const found = slabinfo().find(c => c.name === cache)
  if (found === undefined) throw new Error(`there is no cache ${cache}`)
  return found.used
}
