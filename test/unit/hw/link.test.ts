/** Lines between machines: when frames come out, what becomes of them, and that a run does not depend on who is faster. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { type LinkModel, LinkWire, link_bytes, link_next, link_publish, link_set } from '../../../src/hw/link.js'

const IDEAL: LinkModel = { rate: 0, delay: 1000, jitter: 0, loss: 0, reorder: 0, duplicate: 0, corrupt: 0, queue: 0 }

function line(model: Partial<LinkModel>, ends = 2, staged = false, seed = 1) {
  const memory = new SharedArrayBuffer(link_bytes(ends))
  link_set(memory, true)
  const wires = Array.from(
    { length: ends },
    (_, me) => new LinkWire({ kind: 'link', memory, ends, me, model: { ...IDEAL, ...model }, seed, staged }),
  )
  return { memory, wires }
}
const frame = (k: number, len = 64): Uint8Array => new Uint8Array(len).fill(k & 255)
/** All that comes out by `now`: first bytes. */
function take(wire: LinkWire, now: number): number[] {
  const out: number[] = []
  for (let f = wire.receive(now); f !== null; f = wire.receive(now)) out.push(f[0]!)
  return out
}

describe('a line', () => {
  test('brings what is sent to all other ends, after its delay', () => {
    const { wires } = line({ delay: 5000 }, 3)
    expect(wires[0]!.send(frame(7), 0, 64, 100)).toBe(true)
    expect([take(wires[1]!, 5099), wires[1]!.next()]).toEqual([[], 5100])
    expect([take(wires[1]!, 5100), take(wires[2]!, 5100), take(wires[0]!, 9999)]).toEqual([[7], [7], []])
    expect(wires[1]!.next()).toBe(Number.POSITIVE_INFINITY)
  })
  test('takes time for each bit, preamble and gap included, one frame after the other, each direction on its own', () => {
    const { wires } = line({ rate: 10e6, delay: 0 })
    for (const k of [1, 2]) wires[0]!.send(frame(k, 1514), 0, 1514, 0)
    wires[1]!.send(frame(9, 60), 0, 60, 0)
    const bits = (bytes: number): number => (bytes * 8e9) / 10e6
    expect(wires[1]!.next()).toBe(bits(1538))
    expect(take(wires[1]!, bits(1538))).toEqual([1])
    expect(wires[1]!.next()).toBe(2 * bits(1538))
    expect(wires[0]!.next()).toBe(bits(84))
  })
  test('with a queue loses what does not fit', () => {
    const { wires } = line({ rate: 1e6, queue: 3 })
    const taken = [1, 2, 3, 4, 5, 6].map(k => wires[0]!.send(frame(k), 0, 64, 0))
    expect(taken).toEqual([true, true, true, true, false, false])
    expect(wires[0]!.send(frame(7), 0, 64, 2e6)).toBe(true) // meanwhile two have left
  })
  test('that is cut has no carrier, takes nothing, and what was on it is gone', () => {
    const { memory, wires } = line({})
    wires[0]!.send(frame(1), 0, 64, 0)
    link_set(memory, false)
    expect([wires[0]!.carrier(), wires[0]!.send(frame(2), 0, 64, 0), take(wires[1]!, 1e9)]).toEqual([false, false, []])
    link_set(memory, true)
    expect(take(wires[1]!, 1e9)).toEqual([])
  })
  test('keeps any number of frames of any length in order, round and round its ring', () => {
    const { wires } = line({})
    let sent = 0
    for (let k = 0; k < 4000; k++) {
      const len = 60 + ((k * 7919) % 8000)
      wires[0]!.send(frame(k, len), 0, len, k * 1000)
      sent++
      const f = wires[1]!.receive(k * 1000 + 1000)!
      expect([f.length, f[0], f[len - 1]]).toEqual([len, k & 255, k & 255])
    }
    expect(sent).toBe(4000)
  })
  test('whose ring is full loses frames, and goes on', () => {
    const { wires } = line({ delay: 1 })
    const taken = Array.from({ length: 2000 }, (_, k) => wires[0]!.send(frame(k, 1000), 0, 1000, 0))
    const n = taken.filter(t => t).length
    expect(take(wires[1]!, 10)).toHaveLength(n)
    expect(n).toBeGreaterThan(1000)
    expect(n).toBeLessThan(2000)
    wires[0]!.send(frame(5, 60), 0, 60, 10)
    expect(take(wires[1]!, 20)).toEqual([5])
  })
})

describe('chance', () => {
  const run = (model: Partial<LinkModel>, seed = 1): number[] => {
    const { wires } = line(model, 2, false, seed)
    const out: number[] = []
    for (let k = 0; k < 2000; k++) {
      wires[0]!.send(frame(k), 0, 64, k * 100)
      out.push(...take(wires[1]!, k * 100))
    }
    return [...out, ...take(wires[1]!, 1e12)]
  }
  const near = (n: number, want: number): boolean => Math.abs(n - want) < want * 0.25

  test('loss and duplicates come as often as they are to, and are the same for one seed', () => {
    expect(near(2000 - run({ loss: 0.1 }).length, 200)).toBe(true)
    expect(near(run({ duplicate: 0.1 }).length - 2000, 200)).toBe(true)
    expect(run({ loss: 0.1 })).toEqual(run({ loss: 0.1 }))
    expect(run({ loss: 0.1 })).not.toEqual(run({ loss: 0.1 }, 2))
  })
  test('one bit of a corrupt frame is another one', () => {
    const { wires } = line({ corrupt: 1 })
    wires[0]!.send(frame(0), 0, 64, 0)
    const got = wires[1]!.receive(1e9)!
    const ones = got.reduce((n, b) => n + b.toString(2).replaceAll('0', '').length, 0)
    expect(ones).toBe(1)
  })
  test('jitter keeps the order, reordering does not', () => {
    const disorder = (seq: number[]): number => seq.filter((b, k) => k > 0 && ((b - seq[k - 1]!) & 255) !== 1).length
    expect(disorder(run({ jitter: 5000 }))).toBe(0)
    expect(disorder(run({ delay: 1000, reorder: 0.05 }))).toBeGreaterThan(100)
  })
})

test('in virtual time nothing is seen before the host has published it', () => {
  const { memory, wires } = line({}, 2, true)
  wires[0]!.send(frame(1), 0, 64, 0)
  expect([take(wires[1]!, 1e9), wires[1]!.next()]).toEqual([[], Number.POSITIVE_INFINITY])
  expect(link_next(memory, 2)).toBe(1000)
  link_publish(memory, 2)
  expect(take(wires[1]!, 1e9)).toEqual([1])
  expect(link_next(memory, 2)).toBe(Number.POSITIVE_INFINITY)
})
