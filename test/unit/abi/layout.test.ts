import { describe, expect, test } from 'vitest'
import { bytes, embed, type Layout, layout, ptr, Struct, word } from '../../../src/abi/layout.js'
import {
  INIT_LIST_HEAD,
  LIST,
  list_add,
  list_add_tail,
  list_del_init,
  list_empty,
  type list_head,
  list_move_tail,
} from '../../../src/abi/list.js'
import { DEFINE_PER_CPU, DEFINE_STATIC, describe_addr } from '../../../src/abi/section.js'
import { call, symbol, symbol_name } from '../../../src/abi/symbol.js'
import { cpu_area } from '../../../src/arch/cpu.js'
import { RAM } from '../../../src/arch/ram.js'

class inner extends Struct {
  declare a: number
  declare b: number
}
const INNER: Layout<inner> = layout('test_inner', inner, { a: word, b: word })
class outer extends Struct {
  declare head: number
  declare link: list_head
  declare in: inner
  declare next: outer | null
  declare raw: number
}
const OUTER: Layout<outer> = layout('test_outer', outer, {
  head: word,
  link: embed(LIST),
  in: embed(INNER),
  next: ptr(() => OUTER),
  raw: bytes(12),
})
const BASE = 0x200000

describe('layout', () => {
  test('places fields one after the other, as C would', () => {
    expect(OUTER.offsets).toEqual({ head: 0, link: 4, in: 12, next: 20, raw: 24 })
    expect(OUTER.size).toBe(36)
    expect(OUTER.describe()).toContain('struct test_outer { /* size 36')
  })
  test('a field is a word of RAM, in both directions', () => {
    const o = OUTER.ref(BASE)
    o.head = -7
    o.in.b = 9
    expect(RAM.i32[BASE >> 2]).toBe(-7)
    expect(RAM.i32[(BASE + 16) >> 2]).toBe(9)
    RAM.i32[(BASE + 12) >> 2] = 5
    expect(o.in.a).toBe(5)
    expect(o.raw).toBe(BASE + 24)
  })
  test('one address is one lens: === works, null is address 0', () => {
    const a = OUTER.ref(BASE)
    const b = OUTER.ref(BASE + 64)
    a.next = b
    expect(RAM.i32[(BASE + 20) >> 2]).toBe(BASE + 64)
    expect(a.next).toBe(b)
    a.next = null
    expect(a.next).toBeNull()
    expect(OUTER.at(0)).toBeNull()
  })
  test('container_of goes from the field back to the struct', () => {
    const o = OUTER.ref(BASE)
    expect(OUTER.container_of('link', o.link.addr)).toBe(o)
  })
  test('lenses of a slab are found by slot, and an address inside a slot is none of them', () => {
    OUTER.attach(BASE + 4096, 6, 8)
    const third = OUTER.ref(BASE + 4096 + 128)
    expect(OUTER.ref(BASE + 4096 + 128)).toBe(third)
    expect(OUTER.ref(BASE + 4096 + 130)).not.toBe(third)
    expect(OUTER.ref(BASE + 4096 + 130).addr).toBe(BASE + 4096 + 130)
  })
  test('an unknown field is an error that names both', () => {
    expect(() => OUTER.offset('nothing' as 'raw')).toThrow('struct test_outer has no field nothing')
  })
})

test('lists: insertion at both ends, deletion, moving', () => {
  const head = LIST.make(BASE + 8192)
  const nodes = [1, 2, 3].map(k => LIST.make(BASE + 8192 + k * 16))
  const walk = (): number[] => {
    const out: number[] = []
    for (let at = head.next; at !== head.addr; at = RAM.i32[at >> 2]!) out.push((at - head.addr) / 16)
    return out
  }
  INIT_LIST_HEAD(head)
  expect(list_empty(head)).toBe(true)
  list_add_tail(nodes[0]!, head)
  list_add_tail(nodes[1]!, head)
  list_add(nodes[2]!, head)
  expect(walk()).toEqual([3, 1, 2])
  list_move_tail(nodes[2]!, head)
  expect(walk()).toEqual([1, 2, 3])
  list_del_init(nodes[1]!)
  expect(walk()).toEqual([1, 3])
})

test('statics and per-CPU variables lie on lines of their own, and a dump knows them by name', () => {
  const s = DEFINE_STATIC('test_static', INNER)
  const p = DEFINE_PER_CPU('test_percpu', OUTER)
  expect(s.addr % 128).toBe(0)
  expect(p.cpu(3).addr - p.cpu(2).addr).toBe(cpu_area(3) - cpu_area(2))
  expect(p.mine).toBe(p.cpu(0))
  expect(describe_addr(s.addr + 4)).toBe('test_static.b')
  expect(describe_addr(p.cpu(5).in.addr + 4)).toBe('test_percpu[5].in.b')
  expect(describe_addr(4)).toBeNull()
})

test('a symbol is a number that calls its function', () => {
  const f = symbol('test_function', (x: number) => x + 1)
  expect(call(f)(41)).toBe(42)
  expect(symbol_name(f)).toBe('test_function')
})
