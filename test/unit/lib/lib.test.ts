import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ffs, fls, roundup_pow_of_two } from '../../../src/lib/bits.js'
import { csum_fold, csum_partial, csum_replace2, csum_tcpudp_magic, ip_fast_csum } from '../../../src/lib/checksum.js'
import {
  HISTOGRAM_SLOTS,
  histogram_percentile,
  histogram_record,
  histogram_slot,
  histogram_total,
  histogram_value,
} from '../../../src/lib/histogram.js'
import { jhash_3words } from '../../../src/lib/jhash.js'
import { prng_below, prng_exponential, prng_f64, prng_seed, prng_u32 } from '../../../src/lib/prng.js'
import { checksum } from '../../helpers/frames.js'

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

describe('checksum', () => {
  test('equals the byte-wise one for any bytes at any address', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 3000 }), fc.nat(7), (bytes, shift) => {
        const moved = new Uint8Array(shift + bytes.length)
        moved.set(bytes, shift)
        expect(csum_fold(csum_partial(view(moved), shift, bytes.length, 0))).toBe(checksum(bytes))
      }),
    )
  })
  test('adds up over even pieces', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(100), (bytes, k) => {
        const at = Math.min(bytes.length, k * 2)
        const first = csum_partial(view(bytes), 0, at, 0)
        expect(csum_fold(csum_partial(view(bytes), at, bytes.length - at, first))).toBe(checksum(bytes))
      }),
    )
  })
  test('of a header equals the byte-wise one for every length', () => {
    fc.assert(
      fc.property(fc.integer({ min: 5, max: 15 }), fc.uint8Array({ minLength: 60, maxLength: 60 }), (ihl, bytes) => {
        expect(ip_fast_csum(view(bytes), 0, ihl)).toBe(checksum(bytes.subarray(0, ihl * 4)))
      }),
    )
  })
  test('an incremental update equals a fresh computation, up to the two ways to write zero', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 20, maxLength: 20 }), fc.nat(8), fc.nat(0xffff), (bytes, k, value) => {
        const words = view(bytes)
        const old = checksum(bytes)
        const from = words.getUint16(k * 2)
        words.setUint16(k * 2, value)
        expect(csum_replace2(old, from, value) % 0xffff).toBe(checksum(bytes) % 0xffff)
      }),
    )
  })
  test('of a pseudo header and payload', () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer(), fc.uint8Array({ maxLength: 64 }), (saddr, daddr, bytes) => {
        const pseudo = new Uint8Array(12 + bytes.length)
        view(pseudo).setInt32(0, saddr)
        view(pseudo).setInt32(4, daddr)
        pseudo.set([0, 17, 0, bytes.length], 8)
        pseudo.set(bytes, 12)
        const sum = csum_partial(view(bytes), 0, bytes.length, 0)
        expect(csum_tcpudp_magic(saddr, daddr, bytes.length, 17, sum)).toBe(checksum(pseudo))
      }),
    )
  })
})

// Computed by include/linux/jhash.h of 2.6.11, compiled with gcc.
test.each([
  [0x0, 0x0, 0x0, 0x0, 0xbd49d10d],
  [0x1, 0x2, 0x3, 0x4, 0xd1222a50],
  [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x17f43626],
  [0xa000001, 0xc0a80101, 0x12345678, 0xdeadbeef, 0x3354cd01],
  [0x80000000, 0x1, 0x7fffffff, 0x55aa55aa, 0x6eea600f],
])('jhash_3words(%i, %i, %i, %i) is what C computes', (a, b, c, seed, hash) => {
  expect(jhash_3words(a, b, c, seed) >>> 0).toBe(hash)
})

describe('prng', () => {
  test('is xoshiro128**', () => {
    const state = Int32Array.of(1, 2, 3, 4) // outputs of the reference code in C
    expect(Array.from({ length: 6 }, () => prng_u32(state))).toEqual([
      11520, 0, 5927040, 70819200, 2031721883, 1637235492,
    ])
  })
  test('a seed makes a stream, another seed another one', () => {
    const stream = (seed: number): number[] => {
      const state = new Int32Array(4)
      prng_seed(state, seed)
      return Array.from({ length: 8 }, () => prng_u32(state))
    }
    expect(stream(7)).toEqual(stream(7))
    expect(stream(7)).not.toEqual(stream(8))
    expect(stream(0).some(x => x !== 0)).toBe(true)
  })
  test('numbers stay in range and have their mean', () => {
    const state = new Int32Array(4)
    prng_seed(state, 3)
    let sum = 0
    let exponential = 0
    for (let k = 0; k < 20_000; k++) {
      const f = prng_f64(state)
      expect(f).toBeGreaterThanOrEqual(0)
      expect(f).toBeLessThan(1)
      expect(prng_below(state, 10)).toBeLessThan(10)
      sum += f
      exponential += prng_exponential(state, 5)
    }
    expect(sum / 20_000).toBeCloseTo(0.5, 1)
    expect(exponential / 20_000).toBeCloseTo(5, 0)
  })
})

describe('histogram', () => {
  test('every value lies within 1.6 % of the middle of its slot', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1.09e12, noNaN: true }), value => {
        const slot = histogram_slot(value)
        expect(slot).toBeGreaterThanOrEqual(0)
        expect(slot).toBeLessThan(HISTOGRAM_SLOTS)
        expect(Math.abs(histogram_value(slot) - value)).toBeLessThanOrEqual(Math.max(1, value * 0.016))
      }),
    )
  })
  test('slots rise with the value', () => {
    fc.assert(
      fc.property(fc.nat(2 ** 40), fc.nat(2 ** 40), (a, b) => {
        if (a <= b) expect(histogram_slot(a)).toBeLessThanOrEqual(histogram_slot(b))
      }),
    )
  })
  test('percentiles are those of the sorted list', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(1e9), { minLength: 1, maxLength: 300 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (values, p) => {
          const slots = new Int32Array(HISTOGRAM_SLOTS)
          for (const v of values) histogram_record(slots, v)
          const sorted = [...values].sort((a, b) => a - b)
          const exact = sorted[Math.max(0, Math.ceil(p * values.length) - 1)]!
          expect(histogram_total(slots)).toBe(values.length)
          expect(Math.abs(histogram_percentile(slots, p)! - exact)).toBeLessThanOrEqual(Math.max(1, exact * 0.016))
        },
      ),
    )
  })
  test('is null when nothing was counted; ends catch what is out of range', () => {
    const slots = new Int32Array(HISTOGRAM_SLOTS)
    expect(histogram_percentile(slots, 0.5)).toBeNull()
    expect(histogram_slot(-5)).toBe(0)
    expect(histogram_slot(1e300)).toBe(HISTOGRAM_SLOTS - 1)
  })
})

test('bits', () => {
  expect([0, 1, 2, 12, 0x80000000].map(ffs)).toEqual([0, 1, 2, 3, 32])
  expect([0, 1, 2, 12, 0x80000000].map(fls)).toEqual([0, 1, 2, 4, 32])
  expect([1, 2, 3, 64, 65].map(roundup_pow_of_two)).toEqual([1, 2, 4, 64, 128])
})
