import { expect, test } from 'vitest'
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { SKB_CACHE } from '../../../src/lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free, slabinfo } from '../../../src/mm/slab.js'
import { Solo } from '../../helpers/solo.js'

class thing extends Struct {
  declare value: number
}
const THING: Layout<thing> = layout('test_thing', thing, { value: word })
const few = kmem_cache_create('test_few', THING, () => 100)
kmem_cache_create('test_many', THING, () => 10_000)
const solo = new Solo({ ports: [], config: { slab_shift: 4 } })

test('a machine for a few packets has smaller caches, but where they take little', () => {
  const total = new Map(slabinfo().map(c => [c.name, c.total]))
  expect(total.get('test_many')).toBe(65_536 / 32)
  expect(total.get('test_few')).toBe(100)
  expect(total.get('skbuff_head_cache')).toBe(SKB_CACHE >> 4)
  const all = Array.from({ length: 100 }, () => kmem_cache_alloc(few)!)
  expect(all).not.toContain(null)
  for (const t of all) kmem_cache_free(few, t)
  expect(solo.audit()).toEqual([])
})
