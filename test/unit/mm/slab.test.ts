import { describe, expect, test } from 'vitest'
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { config_addr, KernelPanic, PANIC, POWER } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free, slabinfo } from '../../../src/mm/slab.js'
import { Solo } from '../../helpers/solo.js'

class thing extends Struct {
  declare value: number
}
const THING: Layout<thing> = layout('test_thing', thing, { value: word })
const cache = kmem_cache_create('test_thing', THING, () => 100)
const many = kmem_cache_create('test_many', THING, () => 10_000)
const solo = new Solo({ ports: [], config: { ncpus: 8 } })
RAM.i32[config_addr('ncpus') >> 2] = 1 // the caches are for eight; only this one exists
const use = () => slabinfo().find(c => c.name === 'test_thing')!

describe('slab cache', () => {
  test('gives each object once, null when it is empty, and counts', () => {
    const all = new Set<thing>()
    for (let k = 0; k < 100; k++) all.add(kmem_cache_alloc(cache)!)
    expect(all.size).toBe(100)
    expect(kmem_cache_alloc(cache)).toBeNull()
    expect(use()).toMatchObject({ total: 100, used: 100, failed: 1 })
    for (const t of all) kmem_cache_free(cache, t)
    expect(use().used).toBe(0)
  })
  test('what was freed last is given first: it is still in the cache', () => {
    const a = kmem_cache_alloc(cache)!
    kmem_cache_free(cache, a)
    const b = kmem_cache_alloc(cache)!
    expect(b).toBe(a)
    kmem_cache_free(cache, b)
  })
})

test('where objects are few, a CPU leaves them to the others', () => {
  const top = (c: { shared: { top: number } }): number => c.shared.top
  for (const [c, kept] of [
    [cache, 2],
    [many, 64],
  ] as const) {
    const all = []
    for (let t = kmem_cache_alloc(c); t !== null; t = kmem_cache_alloc(c)) all.push(t)
    expect(top(c)).toBe(0)
    for (const t of all) kmem_cache_free(c, t)
    expect(top(c)).toBeGreaterThanOrEqual(c.count - kept)
    const one = kmem_cache_alloc(c)!
    expect(top(c)).toBeGreaterThanOrEqual(c.count - kept)
    kmem_cache_free(c, one)
  }
})

test('kmalloc gives room for any size up to its largest, and takes it back', () => {
  const blocks = [1, 32, 33, 64, 100, 1000, 4000, 60_000].map(size => ({ size, addr: kmalloc(size) }))
  for (const { size, addr } of blocks) RAM.u8.fill(size & 255, addr, addr + size)
  for (const { size, addr } of blocks) {
    expect(RAM.u8[addr]).toBe(size & 255)
    expect(RAM.u8[addr + size - 1]).toBe(size & 255)
    kfree(addr)
  }
})

test('nothing leaks', () => {
  expect(solo.audit()).toEqual([])
})

describe('a broken caller stops the machine', () => {
  test.each([
    ['a double free', (t: thing) => kmem_cache_free(cache, t)],
    ['an address inside an object', (t: thing) => kmem_cache_free(cache, THING.make(t.addr + 4))],
    ['an address of somebody else', (_: thing) => kmem_cache_free(cache, THING.make(0x10000))],
  ])('%s', (_what, misuse) => {
    const t = kmem_cache_alloc(cache)!
    kmem_cache_free(cache, t)
    expect(() => misuse(t)).toThrow(KernelPanic)
    expect(RAM.i32[POWER >> 2]).toBe(PANIC)
  })
})
