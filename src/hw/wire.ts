/** wire.ts - what is at the other end of a port's cable, when it is neither a source nor a sink: a device of the host, or another machine. */

import type { LinkConfig } from './link.js'

/** One end of a cable. Runs on the board's thread. */
export interface Wire {
  /** A frame leaves the NIC. @returns false: the other end did not take it, and it is lost */
  send(bytes: Uint8Array, at: number, len: number, now: number): boolean
  /** The next frame that is here by `now` (ns), or null; good until the next call. */
  receive(now: number): Uint8Array | null
  /** In virtual time, when the next one will be here, ns; Infinity: nobody knows of one. */
  next(now: number): number
  /** Is anybody there? Nothing: always. */
  carrier?(): boolean
}

/** A TAP device of the host, open in this process. */
export interface TapConfig {
  kind: 'tap'
  fd: number
  /** Longest frame, bytes. */
  frame: number
}
export type WireConfig = TapConfig | LinkConfig
