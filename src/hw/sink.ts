/** sink.ts - the far end of a port's wire: counts, latency, order within flows, capture. */
import { RAM } from '../arch/ram.js'
import { histogram_record } from '../lib/histogram.js'
import { CNT_GENERATED, CNT_REORDERED } from './control.js'
import type { Sightings } from './replay.js'
import { MAGIC, PAYLOAD } from './source.js'
import type { CapturedFrames } from './types.js'

const f64 = RAM.f64
const CHUNK = 1 << 20

/** A growing store of frames. */
class Store {
  private chunks: Uint8Array[] = []
  private used = CHUNK
  private lengths: number[] = []
  private times: number[] = []

  add(bytes: Uint8Array, at: number, len: number, now: number): void {
    if (this.used + len > CHUNK) {
      this.chunks.push(new Uint8Array(CHUNK))
      this.used = 0
    }
    this.chunks[this.chunks.length - 1]!.set(bytes.subarray(at, at + len), this.used)
    this.used += len
    this.lengths.push(len)
    this.times.push(now)
  }

  frames(): CapturedFrames {
    const lengths = Uint32Array.from(this.lengths)
    const data = new Uint8Array(this.lengths.reduce((sum, len) => sum + len, 0))
    let chunk = 0
    let used = 0
    let to = 0
    for (const len of lengths) {
      if (used + len > CHUNK) {
        chunk++
        used = 0
      }
      data.set(this.chunks[chunk]!.subarray(used, used + len), to)
      used += len
      to += len
    }
    return { data, lengths, times: Float64Array.from(this.times) }
  }
}

export class Sink {
  private store: Store | null
  private readonly last = new Int32Array(65536)
  private readonly reordered: number
  private readonly generated: number

  constructor(
    control: number,
    capture: boolean,
    private readonly seen: Sightings | null,
    private readonly histogram: Int32Array,
  ) {
    this.store = capture ? new Store() : null
    this.reordered = (control + CNT_REORDERED) >> 3
    this.generated = (control + CNT_GENERATED) >> 3
  }

  /** frame - it is on the wire. */
  frame(view: DataView, bytes: Uint8Array, at: number, len: number, now: number): void {
    if (len >= 60 && view.getUint32(at + PAYLOAD) === MAGIC) {
      f64[this.generated]++
      const flow = view.getUint16(at + PAYLOAD + 4)
      const seq = view.getInt32(at + PAYLOAD + 6)
      if (((seq - this.last[flow]!) | 0) <= 0) f64[this.reordered]++
      this.last[flow] = seq
      histogram_record(this.histogram, now - view.getFloat64(at + PAYLOAD + 10))
    } else if (this.seen !== null) {
      const since = this.seen.leave(view, at, len)
      if (since >= 0) histogram_record(this.histogram, now - since)
    }
    this.store?.add(bytes, at, len, now)
  }

  /** keep - for the capture alone: it came in. */
  keep(frame: Uint8Array, now: number): void {
    this.store?.add(frame, 0, frame.length, now)
  }

  reset(): void {
    this.histogram.fill(0)
  }

  captured(): CapturedFrames | null {
    return this.store === null ? null : this.store.frames()
  }

  /** take - what was captured since the last call; it is kept no longer. */
  take(): CapturedFrames | null {
    const frames = this.captured()
    if (this.store !== null) this.store = new Store()
    return frames
  }
}
