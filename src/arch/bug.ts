/** bug.ts - a rule of the kernel's was broken, and a detector with a name has seen it. */
import { boot } from './boot.js'
import { panic } from './cpu.js'
import { KernelPanic } from './machine.js'

/** What watches the kernel, as reports name it. lockdep has its own: 'lock order'. */
export type KernelDetector =
  | 'rcu'
  | 'sleep in atomic'
  | 'context imbalance'
  | 'use after free'
  | 'double free'
  | 'leak'
  | 'refcount'
  | 'seqlock'

/** KernelBug - under control it ends the run, as a finding of its detector. */
export class KernelBug extends KernelPanic {
  override name = 'BUG'

  constructor(
    words: string,
    readonly detector: KernelDetector,
    /** An earlier step of the run that belongs to it, or -1. */
    readonly step: number,
  ) {
    super(words)
  }
}

/** bug - stop the machine. @context any */
export function bug(detector: KernelDetector, words: string, step = -1): never {
  if (boot.controlled === true) throw new KernelBug(words, detector, step)
  return panic(`BUG: ${words}`)
}
