/** J9: a counter of 64 bits without Atomics: two add at once, and on some hosts a reader sees half of a change. */
import type { Twin } from '../kit/words.js'

export function setup(twin: Twin) {
  const memory = new SharedArrayBuffer(8)
  return { fixed: twin === 'fixed', bytes: new Float64Array(memory), whole: new BigInt64Array(memory) }
}
type Shared = ReturnType<typeof setup>

function received({ fixed, bytes, whole }: Shared): void {
  if (fixed) Atomics.add(whole, 0, 60n)
  else bytes[0] += 60
}

export const actors = { A: received, B: received }

export function invariant({ fixed, bytes, whole }: Shared): void {
  const sum = fixed ? Number(whole[0]) : bytes[0]
  if (sum !== 120) throw new Error(`counted ${sum} of 120 bytes`)
}
