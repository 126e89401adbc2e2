/**
 * link.ts - a cable, or a segment of more than two ends, between the NICs of machines. Whatever an end sends comes out at all
 * others, later by what the line takes and not always whole.
 *
 * All ends share one block of memory: a word that says whether the line is up, and a ring of frames for each ordered pair of ends,
 * written by the board of one and read by the board of the other. A record is 8 bytes of time (ns, when it comes out), 4 of
 * length, 4 of nothing, and the frame, padded to 16, so that what is left of a ring always holds the head of a record.
 *
 * In virtual time what was written is only seen once the host has published it, while all machines stand still: so no machine
 * sees what another one does in the same stretch of time, and a run does not depend on which of them was faster.
 */
import { prng_below, prng_f64, prng_seed } from '../lib/prng.js'
import type { Wire } from './wire.js'

/** What a line does to frames. Times in ns, shares from 0 to 1. */
export interface LinkModel {
  /** Bits per second, in each direction; 0: no time at all. */
  rate: number
  delay: number
  /** Up to so much more, at random; the order is kept. */
  jitter: number
  loss: number
  /** Share of frames that later ones overtake: they take `delay + jitter` once more, or 1 ms. */
  reorder: number
  duplicate: number
  /** One bit of the frame is changed. */
  corrupt: number
  /** Frames that wait for the line at most, before one is lost; 0: any number. */
  queue: number
}

/** One end of a line, as a board is told of it: plain data. */
export interface LinkConfig {
  kind: 'link'
  memory: SharedArrayBuffer
  ends: number
  me: number
  model: LinkModel
  seed: number
  /** Virtual time: frames are seen when the host has published them. */
  staged: boolean
}

const RING = 1 << 20
const HEAD = 64
/** Offsets in a ring's header, words: bytes written, bytes to be seen, bytes read. */
const [WRITTEN, PUBLISHED, READ] = [0, 1, 2]
/** Words of the block's header. */
const UP = 0
/** What a frame takes on an Ethernet besides its bytes, and the least it takes. */
const OVERHEAD = 24
const SHORTEST = 84
const RECORD = 16

/** link_bytes - of the shared block of a line with so many ends. */
export function link_bytes(ends: number): number {
  return HEAD + ends * ends * (HEAD + RING)
}
function ring_at(ends: number, from: number, to: number): number {
  return HEAD + (from * ends + to) * (HEAD + RING)
}

/** link_set - the line is up, or cut. */
export function link_set(memory: SharedArrayBuffer, up: boolean): void {
  Atomics.store(new Int32Array(memory), UP, up ? 1 : 0)
}
/** link_publish - all that was sent so far is to be seen. While the machines stand still. */
export function link_publish(memory: SharedArrayBuffer, ends: number): void {
  const words = new Int32Array(memory)
  for (let ring = 0; ring < ends * ends; ring++) {
    const w = (HEAD + ring * (HEAD + RING)) >> 2
    Atomics.store(words, w + PUBLISHED, Atomics.load(words, w + WRITTEN))
  }
}
/** link_next - when the first frame comes out that was sent and not taken, ns; Infinity: there is none. While the machines stand still. */
export function link_next(memory: SharedArrayBuffer, ends: number): number {
  const words = new Int32Array(memory)
  const view = new DataView(memory)
  let next = Number.POSITIVE_INFINITY
  for (let ring = 0; ring < ends * ends; ring++) {
    const at = HEAD + ring * (HEAD + RING)
    const w = at >> 2
    for (let read = words[w + READ]!; read !== words[w + WRITTEN]; ) {
      const record = at + HEAD + (read & (RING - 1))
      const len = view.getUint32(record + 8, true)
      if (len !== FILLER) next = Math.min(next, view.getFloat64(record, true))
      read = (read + (len === FILLER ? RING - (read & (RING - 1)) : size_of(len))) | 0
    }
  }
  return next
}
/** Bytes that a record of so long a frame takes; it never wraps: what is left of the ring is skipped. */
function size_of(len: number): number {
  return RECORD + ((len + 15) & ~15)
}

interface Pending {
  due: number
  frame: Uint8Array
}

/** A frame that fills the rest of a ring, so that the next one begins at its start. */
const FILLER = 0xffffffff

/** LinkWire - one end. */
export class LinkWire implements Wire {
  private readonly words: Int32Array
  private readonly bytes: Uint8Array
  private readonly view: DataView
  private readonly chance = new Int32Array(4)
  /** Frames that have been read and come out later, the next one last. */
  private pending: Pending[] = []
  /** When the line of this end is free again, and when those that wait for it leave, ns. */
  private free = 0
  private leaving: number[] = []
  /** When the last frame in order comes out, ns. */
  private last = 0
  private readonly scratch = new Uint8Array(65536)

  constructor(private readonly config: LinkConfig) {
    this.words = new Int32Array(config.memory)
    this.bytes = new Uint8Array(config.memory)
    this.view = new DataView(config.memory)
    prng_seed(this.chance, Math.imul(config.seed, 31) + config.me)
  }

  /** Is there a line? */
  carrier(): boolean {
    return Atomics.load(this.words, UP) !== 0
  }

  send(bytes: Uint8Array, at: number, len: number, now: number): boolean {
    const { model } = this.config
    if (!this.carrier()) return false
    const begin = Math.max(now, this.free)
    while (this.leaving.length > 0 && this.leaving[0]! <= now) this.leaving.shift()
    if (model.queue > 0 && this.leaving.length > model.queue) return false
    const leaves = begin + (model.rate === 0 ? 0 : (Math.max(len + OVERHEAD, SHORTEST) * 8e9) / model.rate)
    this.free = leaves
    if (model.queue > 0) this.leaving.push(leaves)
    if (this.happens(model.loss)) return true // on its way it was lost: the sender does not know
    const taken = this.put(bytes, at, len, leaves)
    if (this.happens(model.duplicate)) this.put(bytes, at, len, leaves)
    return taken
  }

  private happens(share: number): boolean {
    return share > 0 && prng_f64(this.chance) < share
  }

  /** A frame that has left this end at `leaves`, to all others. @returns false: one of them has no room for it */
  private put(bytes: Uint8Array, at: number, len: number, leaves: number): boolean {
    const { model, ends, me } = this.config
    const frame = this.scratch.subarray(0, len)
    frame.set(bytes.subarray(at, at + len))
    if (this.happens(model.corrupt)) frame[prng_below(this.chance, len)]! ^= 1 << prng_below(this.chance, 8)
    let due = leaves + model.delay + (model.jitter > 0 ? prng_f64(this.chance) * model.jitter : 0)
    if (this.happens(model.reorder)) due += model.delay + model.jitter || 1e6
    else {
      due = Math.max(due, this.last)
      this.last = due
    }
    let taken = true
    for (let to = 0; to < ends; to++) if (to !== me && !this.write(to, frame, due)) taken = false
    return taken
  }

  /** Into the ring to one end. @returns false: it does not fit, and is lost */
  private write(to: number, frame: Uint8Array, due: number): boolean {
    const { ends, me, staged } = this.config
    const at = ring_at(ends, me, to)
    const w = at >> 2
    const size = size_of(frame.length)
    let written = this.words[w + WRITTEN]!
    const rest = RING - (written & (RING - 1))
    const need = size > rest ? rest + size : size
    if (((written - Atomics.load(this.words, w + READ)) | 0) + need > RING) return false
    if (size > rest) {
      this.view.setUint32(at + HEAD + (written & (RING - 1)) + 8, FILLER, true)
      written = (written + rest) | 0
    }
    const record = at + HEAD + (written & (RING - 1))
    this.view.setFloat64(record, due, true)
    this.view.setUint32(record + 8, frame.length, true)
    this.bytes.set(frame, record + RECORD)
    Atomics.store(this.words, w + WRITTEN, (written + size) | 0)
    if (!staged) Atomics.store(this.words, w + PUBLISHED, (written + size) | 0)
    return true
  }

  /** What the others have sent, in the order in which it comes out. */
  private gather(): void {
    const { ends, me } = this.config
    for (let from = 0; from < ends; from++) {
      if (from === me) continue
      const at = ring_at(ends, from, me)
      const w = at >> 2
      const until = Atomics.load(this.words, w + PUBLISHED)
      let read = this.words[w + READ]!
      if (read === until) continue
      while (read !== until) {
        const offset = read & (RING - 1)
        const record = at + HEAD + offset
        const len = this.view.getUint32(record + 8, true)
        if (len === FILLER) {
          read = (read + RING - offset) | 0
          continue
        }
        this.insert(this.view.getFloat64(record, true), this.bytes.slice(record + RECORD, record + RECORD + len))
        read = (read + size_of(len)) | 0
      }
      Atomics.store(this.words, w + READ, read)
    }
  }

  /** Behind those that come out at the same time. */
  private insert(due: number, frame: Uint8Array): void {
    let k = this.pending.length
    while (k > 0 && this.pending[k - 1]!.due <= due) k--
    this.pending.splice(k, 0, { due, frame })
  }

  receive(now: number): Uint8Array | null {
    this.gather()
    const first = this.pending.at(-1)
    if (first === undefined || first.due > now) return null
    this.pending.pop()
    return this.carrier() ? first.frame : null
  }

  next(): number {
    this.gather()
    return this.pending.at(-1)?.due ?? Number.POSITIVE_INFINITY
  }
}
