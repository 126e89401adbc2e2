/** #22: the version of a packet socket's ring changes between the check that there is none and its setup. */
import { mutex_lock, mutex_unlock, type Twin, word } from '../kit/words.js'

const V1 = 1
const V3 = 3
const NONE = 0
const LIVE = 1
const FREED = 2

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', lock: word(), version: word(V3), ring: word(NONE), timer: word() }
}
type Shared = ReturnType<typeof setup>

function packet_set_ring(s: Shared, closing: boolean): void {
  mutex_lock(s.lock)
  // Only version 3 retires blocks by a timer.
  const v3 = Atomics.load(s.version, 0) === V3
  if (v3) Atomics.store(s.timer, 0, closing ? 0 : 1)
  Atomics.store(s.ring, 0, closing ? FREED : LIVE)
  mutex_unlock(s.lock)
}

export const actors = {
  ring(s: Shared) {
    packet_set_ring(s, false)
    packet_set_ring(s, true)
  },
  /** setsockopt(PACKET_VERSION) */
  version(s: Shared) {
    if (s.fixed) mutex_lock(s.lock)
    if (Atomics.load(s.ring, 0) === NONE) Atomics.store(s.version, 0, V1)
    if (s.fixed) mutex_unlock(s.lock)
  },
}

export function invariant({ ring, timer }: Shared): void {
  if (ring[0] === FREED && timer[0] === 1) throw new Error('a timer is armed in the ring that was freed')
}
