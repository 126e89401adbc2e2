/** script.ts - packet scripts: frames go in, time passes, frames come out; on one CPU, on this thread, by a clock of ours. */

import './clock.js' // first: it sets what the kernel's modules find when they load
import { RAM } from '../../src/arch/ram.js'
import { DROP_REASONS, packet_fates } from '../../src/net/core/fate.js'
import { run_next } from '../../src/sched/sched.js'
import { clock } from './clock.js'
import { Solo, type SoloOptions } from './solo.js'

const STEP_NS = 100_000

export interface Fates {
  received: number
  forwarded: number
  delivered: number
  icmp_sent: number
  drops: Record<string, number>
}

export class Script {
  readonly solo: Solo

  constructor(options: SoloOptions) {
    this.solo = new Solo({ ...options, config: { slab_poison: 1, ...options.config } })
    this.pass(1)
  }

  /** Let `ms` go by; in each step tasks get `turns` of the CPU at most: some poll. */
  pass(ms: number, turns = Infinity): void {
    for (let k = 0; k < (ms * 1e6) / STEP_NS; k++) {
      clock.ns += STEP_NS
      this.solo.step(clock.ns)
      for (let n = 0; n < turns && run_next(); n++);
    }
  }

  /** Frames in at a port; half a millisecond later, what came out at all ports since the last call, by port. */
  send(port: number, ...frames: Uint8Array[]): Uint8Array[][] {
    for (const frame of frames) this.solo.board.nics[port]!.arrive(frame)
    this.pass(0.5)
    return this.out()
  }

  out(): Uint8Array[][] {
    return this.solo.board.nics.map(nic => {
      const { data, lengths } = nic.sink.take()!
      let at = 0
      return [...lengths].map(len => data.slice(at, (at += len)))
    })
  }

  fates(): Fates {
    const f = packet_fates.cpu(0)
    const drops: Record<string, number> = {}
    DROP_REASONS.forEach((reason, k) => {
      const n = RAM.i32[(f.drops >> 2) + k]!
      if (n > 0) drops[reason] = n
    })
    const { received, forwarded, delivered, icmp_sent } = f
    return { received, forwarded, delivered, icmp_sent, drops }
  }

  /** What happened to the packets of `during`, only what changed. */
  account(during: () => void): Fates {
    const before = this.fates()
    during()
    const after = this.fates()
    const drops: Record<string, number> = {}
    for (const [reason, n] of Object.entries(after.drops))
      if (n !== (before.drops[reason] ?? 0)) drops[reason] = n - (before.drops[reason] ?? 0)
    return {
      received: after.received - before.received,
      forwarded: after.forwarded - before.forwarded,
      delivered: after.delivered - before.delivered,
      icmp_sent: after.icmp_sent - before.icmp_sent,
      drops,
    }
  }
}

/** conserved - received = forwarded + delivered + dropped. */
export function conserved(f: Fates): boolean {
  return f.received === f.forwarded + f.delivered + Object.values(f.drops).reduce((a, b) => a + b, 0)
}
