import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type AtomicOps, plain_ops, wasm_ops } from '../../../src/arch/atomic.js'
import { RAM } from '../../../src/arch/ram.js'

const A = 0x300000
const B = 0x300040
const value = fc.oneof(fc.integer(), fc.constantFrom(0, 1, -1, 0x7fffffff, -0x80000000))
const op = fc.oneof(
  fc.record({ name: fc.constant('load' as const), args: fc.constant([]) }),
  fc.record({
    name: fc.constantFrom('store', 'xchg', 'fetch_add', 'fetch_or', 'fetch_and'),
    args: fc.tuple(value),
  }),
  fc.record({ name: fc.constant('cmpxchg' as const), args: fc.tuple(value, value) }),
)

describe('the WebAssembly operations and their plain twins', () => {
  test('do the same and return the same, step by step', () => {
    fc.assert(
      fc.property(value, fc.array(op, { maxLength: 30 }), (start, ops) => {
        RAM.i32[A >> 2] = start
        RAM.i32[B >> 2] = start
        for (const { name, args } of ops) {
          const run = (all: AtomicOps, addr: number): unknown =>
            (all[name as keyof AtomicOps] as (...a: number[]) => unknown)(addr, ...args)
          expect(run(wasm_ops, A)).toBe(run(plain_ops, B))
          expect(RAM.i32[A >> 2]).toBe(RAM.i32[B >> 2])
        }
      }),
    )
  })
  test('work at the last word of RAM', () => {
    wasm_ops.store(RAM.size - 4, 7)
    expect(plain_ops.load(RAM.size - 4)).toBe(7)
  })
})
