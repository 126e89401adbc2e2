/** ahead.ts - how many frames of flat replays are on their way through a machine, so that no queue of it overflows. */
import { RAM } from '../arch/ram.js'
import type { PlayWindow } from './types.js'

const i32 = RAM.i32

/** One for all ports of a machine. */
export class Ahead {
  private entered = 0
  private readonly before: number

  constructor(private readonly window: PlayWindow) {
    this.before = this.settled()
  }

  private settled(): number {
    let n = 0
    for (const word of this.window.settled) n = (n + i32[word >> 2]) | 0
    return n
  }

  /** Frames that may go in now. */
  room(): number {
    return this.window.frames - ((this.entered - (this.settled() - this.before)) | 0)
  }

  /** One has gone into a ring. */
  enter(): void {
    this.entered = (this.entered + 1) | 0
  }
}
