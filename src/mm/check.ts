/**
 * check.ts - is an object used after it was freed? While the machine is under control each access of a struct's field is looked
 * at: what lies in a slab must be out of it. (KASAN asks the same of shadow memory.)
 *
 * @unwatched - what is looked at here is no access of the code that runs.
 */

import type { Struct } from '../abi/layout.js'
import { access_hooks } from '../abi/layout.js'
import { boot } from '../arch/boot.js'
import { bug } from '../arch/bug.js'
import { RAM } from '../arch/ram.js'
import { caches, describe_object, FREE, type kmem_cache } from './slab.js'

const u8 = RAM.u8

/** Most accesses go where the last one went, or below all caches. */
const recent: { cache: kmem_cache<Struct> | null } = { cache: null }

function holds(cache: kmem_cache<Struct>, addr: number): boolean {
  return addr >= cache.base && addr < cache.base + (cache.count << cache.shift)
}

function cache_of(addr: number): kmem_cache<Struct> | null {
  const last = recent.cache
  if (last !== null && holds(last, addr)) return last
  const first = caches[0]
  if (first === undefined || addr < first.base) return null
  const cache = caches.find(c => holds(c, addr)) ?? null
  if (cache !== null) recent.cache = cache
  return cache
}

/** Before a field is read or written; `w` is its word. @returns w */
function check_access(w: number): number {
  const addr = w << 2
  const cache = cache_of(addr)
  if (cache === null || u8[cache.state + ((addr - cache.base) >> cache.shift)] !== FREE) return w
  return bug('use after free', `${describe_object(addr)} is used after it was freed`)
}

if (boot.controlled === true) access_hooks.check = check_access
