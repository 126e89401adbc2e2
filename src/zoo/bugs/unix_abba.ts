/** #1: two AF_UNIX sockets connect to each other, and each locks itself first. */
import { mutex_lock, mutex_unlock, type Twin, type Word, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', lock_a: word(), lock_b: word(), peer_a: word(), peer_b: word() }
}
type Shared = ReturnType<typeof setup>

function unix_stream_connect(s: Shared, sk: Word, other: Word, peer: Word): void {
  // Fixed: whoever needs two of them locks the one that lies lower first.
  const [first, second] = s.fixed ? [s.lock_a, s.lock_b] : [sk, other]
  mutex_lock(first)
  mutex_lock(second)
  Atomics.store(peer, 0, 1)
  mutex_unlock(second)
  mutex_unlock(first)
}

export const actors = {
  A: (s: Shared) => unix_stream_connect(s, s.lock_a, s.lock_b, s.peer_a),
  B: (s: Shared) => unix_stream_connect(s, s.lock_b, s.lock_a, s.peer_b),
}
