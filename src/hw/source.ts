/** source.ts - traffic sources: when frames arrive, and what is in them. */

import { RAM } from '../arch/ram.js'
import { csum_replace2 } from '../lib/checksum.js'
import { jhash_3words } from '../lib/jhash.js'
import { prng_below, prng_f64, prng_seed } from '../lib/prng.js'
import { make_malformed } from './malformed.js'
import type { GeneratorConfig } from './types.js'

const i32 = RAM.i32
const dv = RAM.dv

/** First word of a generated payload. */
export const MAGIC = 0x50f7e701
/** Payload: magic u32, flow u16, sequence u32, time f64: the 18 bytes of a minimal frame. */
export const PAYLOAD = 42

// ---- when -----------------------------------------------------------------------------------------------------------

/** When frames arrive. Times in ns, rates in frames per second. */
export interface Arrivals {
  /** Arrivals in the step that ends `now`, at `rate`. */
  due(now: number, rate: number): number
  /** Time of the next arrival, as things stand after due(). */
  next(rate: number): number
  /** Start afresh at `now`. */
  restart(now: number): void
}

/** A constant rate that loses no fraction of a frame; a capture is replayed at a rate like this, too. */
export class ConstantArrivals implements Arrivals {
  private last = 0
  private carry = 0
  restart(now: number): void {
    this.last = now
    this.carry = 0
  }
  due(now: number, rate: number): number {
    this.carry += ((now - this.last) * rate) / 1e9
    this.last = now
    const n = Math.floor(this.carry)
    this.carry -= n
    return n
  }
  next(rate: number): number {
    return rate > 0 ? this.last + ((1 - this.carry) / rate) * 1e9 : Infinity
  }
}

/** A Poisson process: gaps are drawn from the exponential distribution. */
class PoissonArrivals implements Arrivals {
  private last = 0
  /** Gap to the next arrival, in mean gaps: a change of rate stretches it. */
  private gap: number
  constructor(private readonly prng: Int32Array) {
    this.gap = this.draw()
  }
  private draw(): number {
    return -Math.log(1 - prng_f64(this.prng))
  }
  restart(now: number): void {
    this.last = now
    this.gap = this.draw()
  }
  due(now: number, rate: number): number {
    this.gap -= ((now - this.last) * rate) / 1e9
    this.last = now
    let n = 0
    for (; this.gap <= 0; n++) this.gap += this.draw()
    return n
  }
  next(rate: number): number {
    return rate > 0 ? this.last + (this.gap / rate) * 1e9 : Infinity
  }
}

/** Bursts of a fixed length at a peak rate, with pauses that bring the mean down to the set rate. */
class BurstArrivals implements Arrivals {
  private phase = 0 // ns into the current period
  private last = 0
  private sent = 0 // of the current burst
  constructor(
    private readonly packets: number,
    private readonly peak: number,
  ) {}
  restart(now: number): void {
    this.last = now
    this.phase = 0
    this.sent = 0
  }
  private period(rate: number): number {
    return (this.packets / Math.min(rate, this.peak)) * 1e9
  }
  due(now: number, rate: number): number {
    if (rate <= 0) {
      this.last = now
      return 0
    }
    const period = this.period(rate)
    this.phase += now - this.last
    this.last = now
    let n = 0
    if (this.phase >= period) {
      const periods = Math.floor(this.phase / period)
      n += this.packets - this.sent + (periods - 1) * this.packets
      this.phase -= periods * period
      this.sent = 0
    }
    const upto = Math.min(this.packets, Math.floor((this.phase * this.peak) / 1e9))
    n += upto - this.sent
    this.sent = upto
    return n
  }
  next(rate: number): number {
    if (rate <= 0) return Infinity
    const first = 1e9 / this.peak
    const at = this.sent < this.packets ? (this.sent + 1) * first : this.period(rate) + first
    return this.last + at - this.phase
  }
}

/** make_arrivals - */
export function make_arrivals(config: GeneratorConfig): Arrivals {
  if (config.arrivals === 'constant') return new ConstantArrivals()
  const prng = new Int32Array(4)
  prng_seed(prng, config.seed ^ 0x5eed)
  if (config.arrivals === 'poisson') return new PoissonArrivals(prng)
  return new BurstArrivals(config.burst?.packets ?? 32, config.burst?.peak ?? 1e6)
}

// ---- what -----------------------------------------------------------------------------------------------------------

const TEMPLATE_WORDS = 16

/** Generated UDP flows: a template of 60 bytes for each, into which sequence and time are written. */
export class Generator {
  readonly arrivals: Arrivals
  private readonly templates: Int32Array
  private readonly hashes: Int32Array
  private readonly sequences: Int32Array
  private readonly prng = new Int32Array(4)
  private readonly sizes: Int32Array // a table of 256 sizes in proportion to the weights
  private readonly bad: Uint8Array[]
  private next = 0
  /** What pick() chose. */
  flow = 0
  size = 60
  broken = -1

  constructor(private readonly config: GeneratorConfig) {
    this.arrivals = make_arrivals(config)
    prng_seed(this.prng, config.seed)
    this.templates = new Int32Array(config.flows * TEMPLATE_WORDS)
    this.hashes = new Int32Array(config.flows)
    this.sequences = new Int32Array(config.flows)
    for (let f = 0; f < config.flows; f++) this.build(f)
    this.sizes = size_table(config.sizes)
    const plain = new Uint8Array(this.templates.buffer).slice(0, 60)
    plain.fill(0, PAYLOAD) // broken frames belong to no flow: the sink shall not ask for their order
    this.bad = config.malformed > 0 ? make_malformed(plain) : []
  }

  private build(f: number): void {
    const c = this.config
    const view = new DataView(this.templates.buffer, f * TEMPLATE_WORDS * 4, 64)
    const src = (c.src + (f >>> 8)) | 0
    const n = f % c.destinations
    const dst = (c.dst_list === undefined ? c.dst + n * c.dst_stride : c.dst_list[n]!) | 0
    const sport = 1024 + (f % 60000)
    view.setInt32(0, c.to.hi)
    view.setInt16(4, c.to.lo)
    view.setInt32(6, c.from.hi)
    view.setInt16(10, c.from.lo)
    view.setUint16(12, 0x0800)
    view.setUint16(14, 0x4500)
    view.setUint16(16, 46)
    view.setUint16(20, 0x4000) // DF
    view.setUint16(22, 0x4011) // TTL 64, UDP
    view.setInt32(26, src)
    view.setInt32(30, dst)
    let sum = 0
    for (let k = 14; k < 34; k += 2) sum += view.getUint16(k)
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
    view.setUint16(24, ~sum & 0xffff)
    view.setUint16(34, sport)
    view.setUint16(36, 9) // discard
    view.setUint16(38, 26) // no UDP checksum
    view.setUint32(42, MAGIC)
    view.setUint16(46, f & 0xffff)
    this.hashes[f] = jhash_3words(src, dst, (sport << 16) | 9, 17)
  }

  /** pick - choose the next frame's flow and size. @returns its flow hash */
  pick(): number {
    const c = this.config
    this.broken = this.bad.length > 0 && prng_f64(this.prng) < c.malformed ? prng_below(this.prng, this.bad.length) : -1
    if (c.order === 'random') this.flow = prng_below(this.prng, c.flows)
    else {
      this.flow = this.next
      this.next = this.next + 1 === c.flows ? 0 : this.next + 1
    }
    this.size =
      this.broken >= 0
        ? this.bad[this.broken]!.length
        : this.sizes.length === 1
          ? this.sizes[0]!
          : this.sizes[prng_below(this.prng, 256)]!
    return this.hashes[this.flow]!
  }

  /** write - put the chosen frame at a word-aligned address, stamped with `now`. */
  write(addr: number, now: number): void {
    if (this.broken >= 0) {
      RAM.u8.set(this.bad[this.broken]!, addr)
      return
    }
    const from = this.flow * TEMPLATE_WORDS
    const to = addr >> 2
    for (let k = 0; k < 12; k++) i32[to + k] = this.templates[from + k]!
    const seq = (this.sequences[this.flow]! + 1) | 0
    this.sequences[this.flow] = seq
    dv.setInt32(addr + PAYLOAD + 6, seq)
    dv.setFloat64(addr + PAYLOAD + 10, now)
    if (this.size > 60) this.stretch(addr)
  }

  private stretch(addr: number): void {
    const { size } = this
    const len = size - 14
    dv.setUint16(addr + 24, csum_replace2(dv.getUint16(addr + 24), 46, len))
    dv.setUint16(addr + 16, len)
    dv.setUint16(addr + 38, len - 20)
    for (let k = (addr + 60) >> 2; k < (addr + size + 3) >> 2; k++) i32[k] = 0x5a5a5a5a
  }
}

function size_table(sizes: [number, number][]): Int32Array {
  if (sizes.length === 1) return Int32Array.of(sizes[0]![0])
  const total = sizes.reduce((sum, [, weight]) => sum + weight, 0)
  const table = new Int32Array(256)
  let at = 0
  let share = 0
  for (const [bytes, weight] of sizes) {
    share += weight
    for (const end = Math.round((share / total) * 256); at < end; at++) table[at] = bytes
  }
  return table
}
