import { describe, expect, test } from 'vitest'
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { KernelPanic } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free, slabinfo } from '../../../src/mm/slab.js'
import { Solo } from '../../helpers/solo.js'

class thing extends Struct {
  declare value: number
  declare other: number
}
const THING: Layout<thing> = layout('test_thing', thing, { value: word, other: word })
const cache = kmem_cache_create('test_thing', THING, () => 10, 64)
const solo = new Solo({ ports: [], config: { slab_poison: 1 } })

describe('a machine with poisoned slabs', () => {
  test('fills an object when it is given out and when it is taken back', () => {
    const t = kmem_cache_alloc(cache)!
    expect(t.value).toBe(0x5a5a5a5a)
    t.value = 1
    kmem_cache_free(cache, t)
    expect(t.value).toBe(0x6b6b6b6b)
    expect(RAM.u8[t.addr + 63]).toBe(0xa5)
    const [a, b] = [kmem_cache_alloc(cache)!, kmem_cache_alloc(cache)!]
    expect(slabinfo().find(c => c.name === 'test_thing')).toMatchObject({ used: 2, total: 10 })
    kmem_cache_free(cache, a)
    kmem_cache_free(cache, b)
  })
  test('gives each object once, and null in the end', () => {
    const all = Array.from({ length: 10 }, () => kmem_cache_alloc(cache)!)
    expect(new Set(all).size).toBe(10)
    expect(kmem_cache_alloc(cache)).toBeNull()
    for (const t of all) kmem_cache_free(cache, t)
    const addr = kmalloc(100)
    expect(RAM.i32[addr >> 2]).toBe(0)
    kfree(addr)
  })
  test('leaks nothing', () => {
    expect(solo.audit()).toEqual([])
  })
  test.each([
    ['its first word', 0],
    ['its last byte', 60],
  ])('stops when a freed object was written, at %s', (_what, at) => {
    const t = kmem_cache_alloc(cache)!
    kmem_cache_free(cache, t)
    const was = RAM.i32[(t.addr + at) >> 2]!
    RAM.i32[(t.addr + at) >> 2] = 42
    expect(() => kmem_cache_alloc(cache)).toThrow(KernelPanic)
    RAM.i32[(t.addr + at) >> 2] = was
  })
  test.each([
    ['a double free', (t: thing) => kmem_cache_free(cache, t)],
    ['an address of somebody else', (_: thing) => kmem_cache_free(cache, THING.make(0x10000))],
  ])('stops at %s', (_what, misuse) => {
    const t = kmem_cache_alloc(cache)!
    kmem_cache_free(cache, t)
    expect(() => misuse(t)).toThrow(KernelPanic)
  })
})
