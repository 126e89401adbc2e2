/**
 * nic.ts - the NIC, seen from inside: rings, DMA, interrupts, offloads. arch/nic_regs.ts is its manual.
 *
 * One thread runs all NICs of a machine, so nothing here is locked; what it shares with the driver are the rings and the
 * register words, each written by one side only.
 */
import { load, READ_ONCE, store, WRITE_ONCE } from '../arch/atomic.js'
import { irq_line, LINE_RX_HEAD, LINE_TX_ACK, LINE_TX_HEAD, line_update } from '../arch/irqchip.js'
import {
  CTRL_UP,
  DESC_ADDR,
  DESC_FLAGS,
  DESC_INFO,
  DESC_LEN,
  DESC_SHIFT,
  NIC_CTRL,
  NIC_ITR_FRAMES,
  NIC_ITR_NS,
  NIC_LINK,
  NIC_MAC_HI,
  NIC_MAC_LO,
  NIC_OFFLOAD,
  NIC_PROMISC,
  NIC_QUEUES,
  NIC_STATUS,
  NIC_TIDV_NS,
  nic_page,
  OFF_RX_CSUM,
  OFF_TX_CSUM,
  Q_RX_DONE,
  Q_RX_TAIL,
  Q_TX_DONE,
  Q_TX_TAIL,
  RX_CSUM_IP,
  RX_CSUM_L4,
  RX_EOP,
  STAT_RX_BYTES,
  STAT_RX_DOWN,
  STAT_RX_FILTERED,
  STAT_RX_FRAMES,
  STAT_RX_MISSED,
  STAT_RX_OVERSIZE,
  STAT_RX_RUNT,
  STAT_TX_BYTES,
  STAT_TX_ERRORS,
  STAT_TX_FRAMES,
  TX_CSUM,
  TX_EOP,
} from '../arch/nic_regs.js'
import { RAM } from '../arch/ram.js'
import type { Ahead } from './ahead.js'
import {
  CNT_FILTERED,
  CNT_MISSED,
  CNT_OFFERED,
  CNT_OFFERED_BYTES,
  CNT_RING,
  CNT_SENT,
  CNT_SENT_BYTES,
  CONTROL,
  CTL_ACK,
  CTL_FINISHED,
  CTL_ON,
  CTL_RATE,
  CTL_RESET,
  CTL_SEQ,
} from './control.js'
import { offload_csum } from './offload.js'
import { Queue } from './queue.js'
import { checksum_good, flow_hash, Replay, type Sightings } from './replay.js'
import { Sink } from './sink.js'
import { Generator } from './source.js'
import type { PortConfig } from './types.js'
import type { Wire } from './wire.js'

const i32 = RAM.i32
const f64 = RAM.f64
const u8 = RAM.u8
const dv = RAM.dv

/** Longest frame that the NIC gathers from fragments. */
const MAX_FRAME = 65550
/** In virtual time, how often a flat replay looks whether the router has room for more, ns. */
const FLAT_LOOK_NS = 2000
/** What a frame takes on an Ethernet besides its bytes: preamble, check sequence, gap; and the least it takes. */
const WIRE_OVERHEAD = 24
const WIRE_MIN = 84
/** Frames that one step sends at most, so that reception and the timer are never far away. */
const TX_BATCH = 128
/** And takes from a wire. */
const RX_BATCH = 64

export class Nic {
  private readonly page: number
  private readonly ctl: number
  private queues: Queue[] = []
  private ctrl = 0
  private up = false
  private mac_hi = 0
  private mac_lo = 0
  private offload = 0
  private readonly generator: Generator | null
  private readonly replay: Replay | null
  private readonly seen: Sightings | null
  readonly sink: Sink
  private seq = 0
  /** The capture has what comes in, too. */
  private readonly both: boolean
  private on = false
  private rate = 0
  /** Frames in a buffer of their own while they are gathered. */
  private readonly gather = new Uint8Array(MAX_FRAME)
  private readonly gather_view = new DataView(this.gather.buffer)
  /** ns that a byte takes on the wire. */
  private readonly byte_ns: number

  constructor(
    readonly index: number,
    config: PortConfig,
    sightings: Sightings | null,
    histogram: Int32Array,
    private readonly ahead: Ahead | null = null,
    private readonly wire: Wire | null = null,
  ) {
    this.page = nic_page(index)
    this.ctl = this.page + CONTROL
    this.generator = config.source?.kind === 'generate' ? new Generator(config.source) : null
    this.replay = config.source?.kind === 'replay' ? new Replay(config.source) : null
    this.seen = sightings
    this.byte_ns = config.bps === undefined || config.bps === 0 ? 0 : 8e9 / config.bps
    this.both = config.captureReceived === true
    this.sink = new Sink(this.ctl, config.capture, sightings, histogram)
  }

  // ---- control ------------------------------------------------------------------------------------------------------

  /** Does the source have something to send now or soon? */
  get active(): boolean {
    return this.on && (this.generator !== null || this.replay?.finished === false)
  }

  /** Does the host want something of this port? */
  get asked(): boolean {
    return i32[(this.ctl + CTL_SEQ) >> 2] !== this.seq
  }

  private control(now: number): void {
    const seq = i32[(this.ctl + CTL_SEQ) >> 2]
    if (seq !== this.seq) {
      this.seq = seq
      const was = this.on
      this.on = i32[(this.ctl + CTL_ON) >> 2] !== 0
      this.rate = f64[(this.ctl + CTL_RATE) >> 3]
      if (!was || this.generator !== null) {
        this.generator?.arrivals.restart(now)
        if (!was) this.replay?.restart(now)
      }
      if (i32[(this.ctl + CTL_RESET) >> 2] !== 0) this.sink.reset()
      store(this.ctl + CTL_ACK, seq)
    }
    if (READ_ONCE(this.page + NIC_CTRL) !== this.ctrl) this.power()
  }

  /** Obey NIC_CTRL: take the queues that it stands for, or none, and say so. */
  private power(): void {
    this.ctrl = load(this.page + NIC_CTRL) // the driver wrote the registers before this word
    this.up = (this.ctrl & CTRL_UP) !== 0
    for (const q of this.queues) store(q.regs + Q_RX_DONE, q.rx_done) // what is in the rings is there to be counted
    this.queues = []
    const p = this.page >> 2
    if (this.up) {
      this.mac_hi = i32[p + (NIC_MAC_HI >> 2)]
      this.mac_lo = i32[p + (NIC_MAC_LO >> 2)] >> 16
      this.offload = i32[p + (NIC_OFFLOAD >> 2)]
      for (let k = 0; k < i32[p + (NIC_QUEUES >> 2)]; k++) this.queues.push(new Queue(this.index, k))
    }
    store(this.page + NIC_STATUS, this.ctrl)
  }

  private stat(word: number, n: number): void {
    i32[(this.page + word) >> 2] += n
  }
  private count(counter: number, n: number): void {
    f64[(this.ctl + counter) >> 3] += n
  }

  // ---- receive ------------------------------------------------------------------------------------------------------

  private filtered(n: number, word: number): void {
    this.stat(word, n)
    this.count(CNT_FILTERED, n)
  }
  private missed(n: number): void {
    this.stat(STAT_RX_MISSED, n)
    this.count(CNT_MISSED, n)
  }

  /** Free receive descriptors of all queues, after a fresh look at the doorbells. */
  private room(): number {
    let room = 0
    for (const q of this.queues) {
      q.rx_tail = load(q.regs + Q_RX_TAIL)
      room += (q.rx_tail - q.rx_done) | 0
    }
    return room
  }

  private queue_for(hash: number): Queue {
    const qs = this.queues
    const n = qs.length
    return (n & (n - 1)) === 0 ? qs[hash & (n - 1)]! : qs[(hash >>> 0) % n]!
  }

  /** Fill in the descriptor behind a frame whose bytes are already in the buffer. */
  private received(q: Queue, len: number, flags: number, hash: number): void {
    const desc = (q.rx_base + ((q.rx_done & q.rx_mask) << DESC_SHIFT)) >> 2
    i32[desc + (DESC_LEN >> 2)] = len
    i32[desc + (DESC_FLAGS >> 2)] = RX_EOP | flags
    i32[desc + (DESC_INFO >> 2)] = hash
    q.rx_done = (q.rx_done + 1) | 0
    this.stat(STAT_RX_FRAMES, 1)
    this.stat(STAT_RX_BYTES, len)
    this.count(CNT_RING, 1)
  }

  private buffer_of(q: Queue): number {
    return i32[(q.rx_base + ((q.rx_done & q.rx_mask) << DESC_SHIFT) + DESC_ADDR) >> 2]
  }

  private generate(g: Generator, now: number): void {
    const due = g.arrivals.due(now, this.rate)
    if (due === 0) return
    this.count(CNT_OFFERED, due)
    if (!this.up) {
      this.filtered(due, STAT_RX_DOWN)
      return
    }
    let room = this.room()
    let k = 0
    for (; k < due && room > 0; k++) {
      const hash = g.pick()
      const q = this.queue_for(hash)
      this.count(CNT_OFFERED_BYTES, g.size)
      if (((q.rx_tail - q.rx_done) | 0) <= 0) {
        this.missed(1)
        continue
      }
      if (g.size > q.rx_buf) {
        this.filtered(1, STAT_RX_OVERSIZE)
        continue
      }
      g.write(this.buffer_of(q), now)
      this.received(q, g.size, (this.offload & OFF_RX_CSUM) !== 0 && g.broken < 0 ? RX_CSUM_IP : 0, hash)
      room--
    }
    if (k < due) {
      this.missed(due - k) // no buffer for any of them, so nobody needs to know what they were
      this.count(CNT_OFFERED_BYTES, (due - k) * g.size)
    }
  }

  private play(r: Replay, now: number): void {
    let due = r.due(now, this.rate)
    const flat = r.config.mode === 'flat'
    if (flat && !this.up) return
    const room = this.room()
    if (flat) due = Math.min(due, room, this.ahead?.room() ?? Infinity)
    for (let k = 0; k < due && !r.finished; k++) {
      const { at } = r
      const q = this.up ? this.queue_for(r.hashes[at]!) : null
      if (flat && q !== null && ((q.rx_tail - q.rx_done) | 0) <= 0) break // this queue is full: wait, to keep the order
      this.count(CNT_OFFERED, 1)
      this.count(CNT_OFFERED_BYTES, r.config.lengths[at]!)
      this.deliver(r, at, q, now)
      r.advance()
    }
    if (r.finished) store(this.ctl + CTL_FINISHED, 1)
  }

  private deliver(r: Replay, at: number, q: Queue | null, now: number): void {
    const offset = r.config.offsets[at]!
    const len = r.config.lengths[at]!
    const { hashes, good, view } = r
    if (this.enter(q, view, r.config.data, offset, len, good[at]!, hashes[at]!))
      this.seen?.enter(view, offset, len, now)
  }

  /** A frame from the wire into a queue, or into the counter of why not. `good`: checksum_good() of it. */
  private enter(
    q: Queue | null,
    view: DataView,
    data: Uint8Array,
    at: number,
    len: number,
    good: number,
    hash: number,
  ): boolean {
    if (q === null) this.filtered(1, STAT_RX_DOWN)
    else if (len < 14) this.filtered(1, STAT_RX_RUNT)
    else if (!this.accepts(view, at)) this.filtered(1, STAT_RX_FILTERED)
    else if (len > q.rx_buf) this.filtered(1, STAT_RX_OVERSIZE)
    else if (((q.rx_tail - q.rx_done) | 0) <= 0) this.missed(1)
    else {
      u8.set(data.subarray(at, at + len), this.buffer_of(q))
      const bits = (this.offload & OFF_RX_CSUM) === 0 ? 0 : good
      this.ahead?.enter()
      this.received(q, len, ((bits & 1) !== 0 ? RX_CSUM_IP : 0) | ((bits & 2) !== 0 ? RX_CSUM_L4 : 0), hash)
      return true
    }
    return false
  }

  /** arrive - one frame comes in over the wire, from whoever is at its other end. @returns whether it is in a ring */
  arrive(frame: Uint8Array): boolean {
    const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
    const hash = flow_hash(view, 0, frame.length)
    this.count(CNT_OFFERED, 1)
    this.count(CNT_OFFERED_BYTES, frame.length)
    this.room()
    const q = this.up ? this.queue_for(hash) : null
    return this.enter(q, view, frame, 0, frame.length, checksum_good(view, 0, frame.length), hash)
  }

  /**
   * What the other end has sent. It is left there while the rings are full, as an Ethernet with flow control does: who must
   * drop is the one who can wait.
   */
  private listen(wire: Wire, now: number): number {
    if (!this.up) return 0
    let n = 0
    for (; n < RX_BATCH && this.room() > 0; n++) {
      const frame = wire.receive(now)
      if (frame === null) break
      if (this.both) this.sink.keep(frame, now)
      this.arrive(frame)
    }
    return n
  }

  private accepts(view: DataView, at: number): boolean {
    return (
      (view.getUint8(at) & 1) !== 0 ||
      (view.getInt32(at) === this.mac_hi && view.getInt16(at + 4) === this.mac_lo) ||
      READ_ONCE(this.page + NIC_PROMISC) !== 0
    )
  }

  /** Tell the driver what has arrived: the ring at once, the interrupt as the mitigation allows. */
  private publish_rx(q: Queue, now: number): void {
    if (load(q.regs + Q_RX_DONE) !== q.rx_done) store(q.regs + Q_RX_DONE, q.rx_done)
    if (q.rx_published === q.rx_done) return
    const itr = i32[(this.page + NIC_ITR_NS) >> 2]
    if (itr > 0) {
      const frames = i32[(this.page + NIC_ITR_FRAMES) >> 2]
      const waiting = (q.rx_done - q.rx_published) | 0
      if (now - q.rx_since < itr && (frames === 0 || waiting < frames)) return
      q.rx_since = now
    }
    q.rx_published = q.rx_done
    store(irq_line(q.irq) + LINE_RX_HEAD, q.rx_done)
    line_update(q.irq)
  }

  // ---- transmit -----------------------------------------------------------------------------------------------------

  private sum(view: DataView, at: number, len: number, info: number): void {
    if ((this.offload & OFF_TX_CSUM) !== 0 && !offload_csum(view, at, len, info)) this.stat(STAT_TX_ERRORS, 1)
  }

  /** One frame from descriptor `at`. @returns the descriptor after it, or `at` when its last one is not posted yet */
  private send_one(q: Queue, at: number, tail: number, now: number): number {
    let desc = (q.tx_base + ((at & q.tx_mask) << DESC_SHIFT)) >> 2
    let flags = i32[desc + (DESC_FLAGS >> 2)]
    const info = i32[desc + (DESC_INFO >> 2)]
    const addr = i32[desc + (DESC_ADDR >> 2)]
    let len = i32[desc + (DESC_LEN >> 2)]
    let next = (at + 1) | 0
    if ((flags & TX_EOP) !== 0) {
      if ((flags & TX_CSUM) !== 0) this.sum(dv, addr, len, info)
      this.sent(dv, u8, addr, len, now)
      return next
    }
    this.gather.set(u8.subarray(addr, addr + len))
    while ((flags & TX_EOP) === 0) {
      if (next === tail) return at
      desc = (q.tx_base + ((next & q.tx_mask) << DESC_SHIFT)) >> 2
      flags = i32[desc + (DESC_FLAGS >> 2)]
      const from = i32[desc + (DESC_ADDR >> 2)]
      const part = i32[desc + (DESC_LEN >> 2)]
      next = (next + 1) | 0
      if (len + part > MAX_FRAME) this.stat(STAT_TX_ERRORS, 1)
      else this.gather.set(u8.subarray(from, from + part), len)
      len += part
    }
    if (len > MAX_FRAME) return next
    if ((flags & TX_CSUM) !== 0) this.sum(this.gather_view, 0, len, info)
    this.sent(this.gather_view, this.gather, 0, len, now)
    return next
  }

  private sent(view: DataView, bytes: Uint8Array, at: number, len: number, now: number): void {
    this.stat(STAT_TX_FRAMES, 1)
    this.stat(STAT_TX_BYTES, len)
    this.count(CNT_SENT, 1)
    this.count(CNT_SENT_BYTES, len)
    this.sink.frame(view, bytes, at, len, now)
    if (this.wire !== null && !this.wire.send(bytes, at, len, now)) this.stat(STAT_TX_ERRORS, 1)
  }

  /** @returns frames sent */
  private transmit(q: Queue, now: number): number {
    const tail = load(q.regs + Q_TX_TAIL)
    let n = 0
    if (q.tx_done !== tail) {
      let at = q.tx_done
      if (q.tx_published === q.tx_done) q.tx_since = now
      while (at !== tail && n < TX_BATCH) {
        if (this.byte_ns > 0 && !this.has_left(q, at, tail, now)) break
        const next = this.send_one(q, at, tail, now)
        if (next === at) break
        at = next
        n++
      }
      q.tx_done = at
      q.tx_idle = at === tail
      store(q.regs + Q_TX_DONE, at)
    }
    if (q.tx_published !== q.tx_done) this.publish_tx(q, now)
    return n
  }

  /** Has the frame at `at` left the wire by now? One that is not on it yet goes there as soon as the one before has left. */
  private has_left(q: Queue, at: number, tail: number, now: number): boolean {
    if (q.tx_on !== at) {
      let len = WIRE_OVERHEAD
      for (let k = at; ; k = (k + 1) | 0) {
        if (k === tail) return false // its last descriptor is not posted yet
        const desc = (q.tx_base + ((k & q.tx_mask) << DESC_SHIFT)) >> 2
        len += i32[desc + (DESC_LEN >> 2)]
        if ((i32[desc + (DESC_FLAGS >> 2)] & TX_EOP) !== 0) break
      }
      q.tx_on = at
      q.tx_left = (q.tx_idle ? now : q.tx_left) + Math.max(len, WIRE_MIN) * this.byte_ns
      q.tx_idle = false
    }
    return q.tx_left <= now
  }

  private publish_tx(q: Queue, now: number): void {
    const line = irq_line(q.irq)
    const unfreed = (q.tx_done - READ_ONCE(line + LINE_TX_ACK)) | 0
    if (unfreed > 0 && unfreed * 2 < q.tx_mask + 1 && now - q.tx_since < i32[(this.page + NIC_TIDV_NS) >> 2]) return
    q.tx_published = q.tx_done
    store(line + LINE_TX_HEAD, q.tx_done)
    line_update(q.irq)
  }

  /** When this NIC has to do something of its own accord, ns; Infinity: when a CPU asks it to. */
  next_event(now: number): number {
    let next = Infinity
    if (this.on && this.generator !== null) next = this.generator.arrivals.next(this.rate)
    else if (this.on && this.replay !== null) next = this.next_replayed(this.replay, now)
    if (this.wire !== null) next = Math.min(next, this.wire.next(now))
    const itr = i32[(this.page + NIC_ITR_NS) >> 2]
    for (const q of this.queues) {
      if (q.rx_published !== q.rx_done) next = Math.min(next, q.rx_since + itr)
      if (q.tx_published !== q.tx_done) next = Math.min(next, q.tx_since + i32[(this.page + NIC_TIDV_NS) >> 2])
      if (q.tx_done !== load(q.regs + Q_TX_TAIL)) next = Math.min(next, this.byte_ns > 0 ? q.tx_left : now)
    }
    return next
  }

  /** A flat replay that waits for room goes on when a CPU has made some; it is only looked at now and then. */
  private next_replayed(r: Replay, now: number): number {
    if (r.config.mode !== 'flat' || r.finished) return r.next(this.rate)
    return now + FLAT_LOOK_NS
  }

  /** step - do all that is due at `now` (ns). @returns frames moved */
  step(now: number): number {
    this.control(now)
    let moved = 0
    if (this.on) {
      if (this.generator !== null) this.generate(this.generator, now)
      else if (this.replay !== null) this.play(this.replay, now)
    }
    if (this.wire !== null) {
      WRITE_ONCE(this.page + NIC_LINK, this.wire.carrier?.() === false ? 0 : 1)
      moved += this.listen(this.wire, now)
    }
    for (const q of this.queues) {
      moved += ((q.rx_done - q.rx_published) | 0) + this.transmit(q, now)
      this.publish_rx(q, now)
    }
    return moved
  }
}
