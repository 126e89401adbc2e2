/** types.ts - what a board is told at power-on: plain data that can be posted to a thread. */

import type { WireConfig } from './wire.js'

/** A station address: first 4 and last 2 bytes. */
export interface Mac {
  hi: number
  lo: number
}

/** UDP packets made on the fly. Addresses are int32. */
export interface GeneratorConfig {
  kind: 'generate'
  /** How arrivals are spread at a given mean rate. */
  arrivals: 'constant' | 'poisson' | 'burst'
  /** Of a burst: packets in it, and packets per second while it lasts. */
  burst?: { packets: number; peak: number }
  /** Frame sizes in bytes without FCS (60 to 1514) and their weights. */
  sizes: [bytes: number, weight: number][]
  flows: number
  /** Destinations dst, dst + stride, ... : flow f goes to number f % destinations. */
  destinations: number
  dst: number
  dst_stride: number
  /** Destinations one by one, instead of the row that begins at dst. */
  dst_list?: number[]
  src: number
  order: 'round-robin' | 'random'
  /** Share of frames that are broken in one of many ways, 0 to 1. */
  malformed: number
  seed: number
  /** Link addresses of sender and router. */
  from: Mac
  to: Mac
}

/** Frames of a capture. */
export interface ReplayConfig {
  kind: 'replay'
  data: Uint8Array
  /** Of each frame: offset in data, bytes, ns since the first. */
  offsets: Uint32Array
  lengths: Uint32Array
  times: Float64Array
  /** timed: as captured, `scale` times as fast. flat: as fast as the router takes them, losing none. rate: evenly at the set
   *  rate. stretched: with its own gaps, all stretched so that their mean is the set rate. */
  mode: 'timed' | 'flat' | 'rate' | 'stretched'
  scale: number
  /** Start again after the last one. */
  loop: boolean
}

export type SourceConfig = GeneratorConfig | ReplayConfig

export interface PortConfig {
  source: SourceConfig | null
  /** Keep what is sent. */
  capture: boolean
  /** And what comes in, too. */
  captureReceived?: boolean
  /** Who is at the other end; nothing: the source, and a sink. */
  wire?: WireConfig
  /** Bits per second of its wire, on which each frame takes 24 bytes more than it has; 0 or nothing: no time at all. */
  bps?: number
}

export interface BoardConfig {
  hz: number
  ncpus: number
  ports: PortConfig[]
  /** Of the kernel, where it counts the packets that have come to an end: how far a flat replay may go ahead. */
  window?: PlayWindow
  /** Virtual time: ns from one look of the board at its wires and registers to the next; 0 or nothing: it sees all at once. */
  step_ns?: number
}

/** A flat replay offers the next frame only while fewer than `frames` of those before it are still on their way. */
export interface PlayWindow {
  frames: number
  /** Addresses of words; their sum, as an int32, is the number of received packets whose fate is known. */
  settled: number[]
}

/** What a port put on its wire, in order. */
export interface CapturedFrames {
  data: Uint8Array
  lengths: Uint32Array
  /** ns since power-on */
  times: Float64Array
}
