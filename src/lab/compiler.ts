/**
 * compiler.ts - what V8 is told before the kernel is loaded.
 *
 * A kernel is many small functions on one long path, and V8 stops inlining after 920 bytes of bytecode: with the limits
 * below it takes the forwarding path nearly whole, which is worth a third of its time (docs/performance.md). The flags
 * hold for all threads of the process, and only for code that is optimised later.
 */
import { setFlagsFromString } from 'node:v8'

const FLAGS = [
  '--max-inlined-bytecode-size=1000',
  '--max-inlined-bytecode-size-cumulative=4000',
  '--max-inlined-bytecode-size-small=100',
  // The helpers of a parallel collection get no core while the machine's threads use all of them, and the thread that waits for
  // them stands still: a NIC late by half a millisecond costs an interrupt-driven machine a hundred packets.
  '--no-parallel-scavenge',
]

/** tuneCompiler - once is enough; more often does no harm. */
export function tuneCompiler(): void {
  for (const flag of FLAGS) setFlagsFromString(flag)
}
