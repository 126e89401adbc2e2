import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { RAM } from '../../../src/arch/ram.js'
import { IMIX } from '../../../src/hw/imix.js'
import { checksum_good, flow_hash, Replay } from '../../../src/hw/replay.js'
import { Generator, make_arrivals } from '../../../src/hw/source.js'
import type { GeneratorConfig, ReplayConfig } from '../../../src/hw/types.js'
import { counting, fragments, icmpFrame, parse, udp, udpFrame } from '../../helpers/frames.js'
import { ip } from '../../helpers/solo.js'

const config: GeneratorConfig = {
  kind: 'generate',
  arrivals: 'constant',
  sizes: [[60, 1]],
  flows: 4,
  destinations: 2,
  dst: ip('198.19.0.1'),
  dst_stride: 256,
  src: ip('198.18.0.2'),
  order: 'round-robin',
  malformed: 0,
  seed: 1,
  from: { hi: 0x02000000, lo: 9 },
  to: { hi: 0x02000000, lo: 1 },
}
const view = (f: Uint8Array): DataView => new DataView(f.buffer, f.byteOffset, f.byteLength)
/** Arrivals of each step of 10 us. */
function arrivals(c: Partial<GeneratorConfig>, rate: number, steps: number): number[] {
  const a = make_arrivals({ ...config, ...c })
  a.restart(0)
  return Array.from({ length: steps }, (_, k) => a.due((k + 1) * 10_000, rate))
}
const total = (n: number[]): number => n.reduce((a, b) => a + b, 0)

describe('arrivals', () => {
  test('at a constant rate lose no fraction of a packet', () => {
    fc.assert(
      fc.property(fc.integer({ min: 100, max: 5_000_000 }), rate => {
        expect(Math.abs(total(arrivals({}, rate, 1000)) - rate / 100)).toBeLessThan(1.01)
      }),
    )
  })
  test.each([2000, 200_000, 20_000_000])('Poisson at %i per second: mean and variance are one', rate => {
    const n = arrivals({ arrivals: 'poisson' }, rate, 50_000)
    const mean = total(n) / n.length
    const variance = total(n.map(x => (x - mean) ** 2)) / n.length
    expect(mean / (rate / 1e5)).toBeCloseTo(1, 1)
    expect(variance / mean).toBeCloseTo(1, 1)
  })
  test('bursts: that many at the peak rate, then a pause, and the mean is the rate', () => {
    const n = arrivals({ arrivals: 'burst', burst: { packets: 20, peak: 1_000_000 } }, 50_000, 10_000)
    expect(total(n) / 5000).toBeCloseTo(1, 1)
    expect(Math.max(...n)).toBeLessThanOrEqual(11) // 10 us at the peak rate
    expect(n.slice(2, 39).every(x => x === 0)).toBe(true)
  })
  test.each(['constant', 'poisson', 'burst'] as const)(
    '%s: a step at each announced time takes one at a time',
    arrivals => {
      const a = make_arrivals({ ...config, arrivals, burst: { packets: 5, peak: 1_000_000 } })
      a.restart(0)
      let taken = 0
      let now = 0
      for (let steps = 0; steps < 2000; steps++) {
        now = Math.max(now + 0.01, a.next(100_000)) // a step may come a hair early: then it takes nothing
        const n = a.due(now, 100_000)
        expect(n).toBeLessThanOrEqual(1)
        taken += n
      }
      expect(taken).toBeGreaterThan(900)
      expect(taken / (now / 1e9) / 100_000).toBeCloseTo(1, 0)
    },
  )
})

describe('generated frames', () => {
  const at = 0x300000
  const next = (g: Generator): Uint8Array => {
    g.pick()
    g.write(at, 5)
    return RAM.u8.slice(at, at + g.size)
  }
  test('are good UDP over the flows and destinations that were asked for', () => {
    const g = new Generator(config)
    const frames = Array.from({ length: 8 }, () => parse(next(g)))
    expect(frames.every(f => f.ipChecksumGood && f.protocol === 17 && f.src === '198.18.0.2')).toBe(true)
    expect(new Set(frames.map(f => f.dst))).toEqual(new Set(['198.19.0.1', '198.19.1.1']))
    expect(new Set(frames.map(f => (f.payload[0]! << 8) | f.payload[1]!)).size).toBe(4)
  })
  test('of mixed sizes have right lengths and checksums, in proportion', () => {
    const g = new Generator({ ...config, sizes: IMIX })
    const counts = new Map<number, number>()
    for (let k = 0; k < 4000; k++) {
      const frame = next(g)
      const p = parse(frame)
      expect(p.ipChecksumGood).toBe(true)
      expect(p.payload.length).toBe(frame.length - 34)
      counts.set(frame.length, (counts.get(frame.length) ?? 0) + 1)
    }
    expect([...counts.keys()].sort((a, b) => a - b)).toEqual([60, 590, 1514])
    expect(counts.get(60)! / counts.get(590)!).toBeCloseTo(7 / 4, 0)
  })
  test('the same seed is the same load', () => {
    const run = (seed: number): number[] => {
      const g = new Generator({ ...config, order: 'random', sizes: IMIX, malformed: 0.2, seed })
      return Array.from({ length: 50 }, () => g.pick() ^ g.size ^ g.broken)
    }
    expect(run(3)).toEqual(run(3))
    expect(run(3)).not.toEqual(run(4))
  })
})

describe('replay', () => {
  const frames = [udpFrame({ src: '1.0.0.1', dst: '1.0.0.2' }), udpFrame({ src: '1.0.0.1', dst: '1.0.0.3' })]
  const capture = (mode: ReplayConfig['mode'], extra: Partial<ReplayConfig> = {}): ReplayConfig => ({
    kind: 'replay',
    data: new Uint8Array([...frames[0]!, ...frames[1]!]),
    offsets: Uint32Array.of(0, 60),
    lengths: Uint32Array.of(60, 60),
    times: Float64Array.of(0, 1000),
    mode,
    scale: 1,
    loop: false,
    ...extra,
  })
  test('by its own times, and faster', () => {
    const r = new Replay(capture('timed'))
    r.restart(50)
    expect([r.due(50, 0), r.due(1049, 0), r.due(1050, 0)]).toEqual([1, 1, 2])
    const fast = new Replay(capture('timed', { scale: 10 }))
    fast.restart(0)
    expect([fast.due(99, 0), fast.due(100, 0)]).toEqual([1, 2])
  })
  test('stretched: its own gaps, at the mean rate that is asked for, pass after pass', () => {
    const r = new Replay(capture('stretched', { times: Float64Array.of(0, 1000), loop: true }))
    r.restart(0)
    const at: number[] = []
    for (let now = 0; now <= 12_000_000; now += 10_000) {
      for (let n = r.due(now, 500); n > 0; n--) {
        at.push(now)
        r.advance()
      }
      expect(r.next(500)).toBeGreaterThan(now)
    }
    expect(at).toEqual([0, 2_000_000, 4_000_000, 6_000_000, 8_000_000, 10_000_000, 12_000_000])
    const uneven = new Replay(
      capture('stretched', {
        offsets: Uint32Array.of(0, 60, 0),
        lengths: Uint32Array.of(60, 60, 60),
        times: Float64Array.of(0, 100, 1000),
      }),
    )
    uneven.restart(0)
    expect([uneven.due(0, 1000), uneven.due(199_999, 1000), uneven.due(200_001, 1000)]).toEqual([1, 1, 2])
  })
  test('flat out, and over again', () => {
    const r = new Replay(capture('flat'))
    expect(r.due(0, 0)).toBe(2)
    r.advance()
    r.advance()
    expect([r.finished, r.due(0, 0)]).toEqual([true, 0])
    const loop = new Replay(capture('rate', { loop: true }))
    loop.restart(0)
    expect(loop.due(1e9, 7)).toBe(7)
    loop.advance()
    loop.advance()
    expect([loop.finished, loop.at]).toEqual([false, 0])
  })
})

describe('what the NIC sees in a frame', () => {
  test('a flow has one hash, all fragments of a packet have one', () => {
    const hash = (f: Uint8Array): number => flow_hash(view(f), 0, f.length)
    const o = { src: '1.0.0.1', dst: '1.0.0.2' }
    expect(hash(udpFrame({ ...o, id: 1 }, counting(9)))).toBe(hash(udpFrame({ ...o, id: 2 })))
    expect(hash(udpFrame({ ...o, sport: 5 }))).not.toBe(hash(udpFrame({ ...o, sport: 6 })))
    const pieces = fragments(udp(o, counting(4000)), o, 1500)
    expect(new Set(pieces.map(hash)).size).toBe(1)
  })
  test('checksums: none, the header’s, both', () => {
    const o = { src: '1.0.0.1', dst: '1.0.0.2' }
    const good = (f: Uint8Array): number => checksum_good(view(f), 0, f.length)
    const bad = (at: number): Uint8Array => {
      const f = udpFrame(o, counting(20))
      f[at] = f[at]! ^ 1
      return f
    }
    expect(good(udpFrame(o, counting(21)))).toBe(3)
    expect(good(icmpFrame(o, 8))).toBe(1)
    expect(good(bad(50))).toBe(1)
    expect(good(bad(24))).toBe(0)
    expect(good(bad(17))).toBe(0)
  })
})
