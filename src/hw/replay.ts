/** replay.ts - a capture played into a port, and the side table that recognises its frames when they come out again. */
import { csum_fold, csum_partial, csum_tcpudp_magic } from '../lib/checksum.js'
import { jhash_3words } from '../lib/jhash.js'
import { ConstantArrivals } from './source.js'
import type { ReplayConfig } from './types.js'

/** pair_hash - addresses and protocol of an IPv4 frame; 0 for all else, so that those share a queue. */
function pair_hash(view: DataView, at: number, len: number): number {
  if (len < 34 || view.getUint16(at + 12) !== 0x0800) return 0
  return jhash_3words(view.getInt32(at + 26), view.getInt32(at + 30), view.getUint8(at + 23), 17)
}

function is_fragment(view: DataView, at: number, len: number): boolean {
  return len >= 34 && view.getUint16(at + 12) === 0x0800 && (view.getUint16(at + 20) & 0x3fff) !== 0
}

/** flow_hash - addresses, protocol and, of whole TCP and UDP packets, ports; 0 for what is not IPv4. */
export function flow_hash(view: DataView, at: number, len: number): number {
  const pair = pair_hash(view, at, len)
  if (pair === 0 || is_fragment(view, at, len)) return pair
  const ihl = (view.getUint8(at + 14) & 15) * 4
  const proto = view.getUint8(at + 23)
  const ports = (proto === 6 || proto === 17) && len >= 14 + ihl + 4 ? view.getInt32(at + 14 + ihl) : 0
  return ports === 0 ? pair : jhash_3words(pair, ports, 0, 17)
}

/**
 * flow_hashes - of all frames of a capture. Fragments carry no ports: between two hosts that sent some, nobody's ports
 * count, or a whole packet could overtake the fragments of its flow on another CPU.
 */
function flow_hashes(view: DataView, offsets: Uint32Array, lengths: Uint32Array): Int32Array {
  const fragmented = new Set<number>()
  offsets.forEach((at, k) => {
    if (is_fragment(view, at, lengths[k]!)) fragmented.add(pair_hash(view, at, lengths[k]!))
  })
  return Int32Array.from(offsets, (at, k) => {
    const pair = pair_hash(view, at, lengths[k]!)
    return fragmented.has(pair) ? pair : flow_hash(view, at, lengths[k]!)
  })
}

/** checksum_good - what the NIC's receive offload finds: bit 1 for the IPv4 header, bit 2 for UDP or TCP. */
export function checksum_good(view: DataView, at: number, len: number): number {
  if (len < 34 || view.getUint16(at + 12) !== 0x0800) return 0
  const iph = at + 14
  const ihl = (view.getUint8(iph) & 15) * 4
  const total = view.getUint16(iph + 2)
  if (ihl < 20 || total < ihl || total > len - 14 || csum_fold(csum_partial(view, iph, ihl, 0)) !== 0) return 0
  const proto = view.getUint8(iph + 9)
  const fragment = (view.getUint16(iph + 6) & 0x3fff) !== 0
  if (fragment || (proto !== 6 && proto !== 17)) return 1
  const payload = total - ihl
  if (payload < 8 || (proto === 17 && view.getUint16(iph + ihl + 6) === 0)) return 1
  const sum = csum_partial(view, iph + ihl, payload, 0)
  return csum_tcpudp_magic(view.getInt32(iph + 12), view.getInt32(iph + 16), payload, proto, sum) === 0 ? 3 : 1
}

/** The next frames of a capture, and how many of them are due. */
export class Replay {
  readonly view: DataView
  readonly hashes: Int32Array
  readonly good: Uint8Array
  at = 0
  finished = false
  private readonly arrivals = new ConstantArrivals()
  /** Where the replay is in the capture's own time, ns since its first frame; `last`: when it was there. */
  private position = 0
  private last = 0
  /** Where this pass over the capture began, and how long one takes: the mean gap lies between two passes. */
  private pass = 0
  private readonly period: number

  constructor(readonly config: ReplayConfig) {
    const { data, offsets, lengths } = config
    this.view = new DataView(data.buffer, data.byteOffset, data.byteLength)
    this.hashes = flow_hashes(this.view, offsets, lengths)
    this.good = new Uint8Array(offsets.length)
    for (let k = 0; k < offsets.length; k++) this.good[k] = checksum_good(this.view, offsets[k]!, lengths[k]!)
    this.finished = offsets.length === 0
    const span = offsets.length === 0 ? 0 : config.times[offsets.length - 1]!
    this.period = offsets.length > 1 ? (span * offsets.length) / (offsets.length - 1) : 1e6
  }

  restart(now: number): void {
    this.last = now
    this.position = this.at === 0 ? 0 : this.pass + this.config.times[this.at]!
    if (this.at === 0) this.pass = 0
    this.arrivals.restart(now)
  }

  /** ns of the capture that pass in one ns. */
  private speed(rate: number): number {
    const { mode, scale, offsets } = this.config
    return mode === 'timed' ? scale : (rate * this.period) / (offsets.length * 1e9)
  }

  /** How many frames have arrived and not been taken; a flat replay has all of them waiting. */
  due(now: number, rate: number): number {
    const { mode, offsets, times } = this.config
    const left = offsets.length - this.at
    if (this.finished) return 0
    if (mode === 'flat') return left
    if (mode === 'rate') {
      const n = this.arrivals.due(now, rate)
      return this.config.loop ? n : Math.min(n, left)
    }
    this.position += (now - this.last) * this.speed(rate)
    this.last = now
    let n = 0
    while (n < left && this.pass + times[this.at + n]! <= this.position) n++
    return n
  }

  /** next - time of the next arrival, ns; of a flat replay that of its start, whatever room there is. */
  next(rate: number): number {
    const { mode, times } = this.config
    if (this.finished) return Infinity
    if (mode === 'rate') return this.arrivals.next(rate)
    if (mode === 'flat') return this.last
    const speed = this.speed(rate)
    return speed > 0 ? this.last + (this.pass + times[this.at]! - this.position) / speed : Infinity
  }

  /** advance - the frame at `at` has been offered. */
  advance(): void {
    this.at++
    if (this.at < this.config.offsets.length) return
    if (this.config.loop) {
      this.at = 0
      this.pass += this.period
    } else this.finished = true
  }
}

const SLOTS = 1 << 14

/** When frames went in, keyed by what routers do not change; old entries are overwritten. */
export class Sightings {
  private readonly tags = new Int32Array(SLOTS)
  private readonly times = new Float64Array(SLOTS)

  private key(view: DataView, at: number, len: number): number {
    if (len < 42 || view.getUint16(at + 12) !== 0x0800) return 0
    const l4 = at + 14 + (view.getUint8(at + 14) & 15) * 4
    if (l4 + 8 > at + len) return 0
    const ports = jhash_3words(view.getInt32(l4), view.getInt32(l4 + 4), view.getUint16(at + 18), 3)
    return jhash_3words(view.getInt32(at + 26), view.getInt32(at + 30), ports, 5) || 1
  }
  enter(view: DataView, at: number, len: number, now: number): void {
    const key = this.key(view, at, len)
    this.tags[key & (SLOTS - 1)] = key
    this.times[key & (SLOTS - 1)] = now
  }
  /** When this frame went in, or -1. */
  leave(view: DataView, at: number, len: number): number {
    const key = this.key(view, at, len)
    const slot = key & (SLOTS - 1)
    return key !== 0 && this.tags[slot] === key ? this.times[slot]! : -1
  }
}
