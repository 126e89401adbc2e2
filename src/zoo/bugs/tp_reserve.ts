/** #25: a packet ring is laid out for one tp_reserve, and filled by another. */
import { mutex_lock, mutex_unlock, type Twin, word } from '../kit/words.js'

const BLOCK = 4096
const HEADER = 64

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', lock: word(), tp_reserve: word(), ring: word() }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  ring({ lock, tp_reserve, ring }: Shared) {
    mutex_lock(lock)
    if (HEADER + Atomics.load(tp_reserve, 0) <= BLOCK) Atomics.store(ring, 0, 1)
    mutex_unlock(lock)
    // tpacket_rcv
    if (Atomics.load(ring, 0) === 0) return
    const offset = HEADER + Atomics.load(tp_reserve, 0)
    if (offset > BLOCK) throw new Error(`out of bounds: written at ${offset} of a block of ${BLOCK}`)
  },
  /** setsockopt(PACKET_RESERVE) */
  reserve(s: Shared) {
    if (s.fixed) mutex_lock(s.lock)
    if (Atomics.load(s.ring, 0) === 0) Atomics.store(s.tp_reserve, 0, 65536)
    if (s.fixed) mutex_unlock(s.lock)
  },
}
