/** #27: bind asks before it has the lock whether the socket is bound. */
import { mutex_lock, mutex_unlock, type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', lock: word(), zapped: word(1), hashed: word() }
}
type Shared = ReturnType<typeof setup>

const is_zapped = ({ zapped }: Shared): boolean => Atomics.load(zapped, 0) === 1

function bind(s: Shared): void {
  if (!s.fixed && !is_zapped(s)) return
  mutex_lock(s.lock)
  if (!s.fixed || is_zapped(s)) {
    Atomics.store(s.zapped, 0, 0)
    if (Atomics.exchange(s.hashed, 0, 1) === 1) throw new Error('the socket is linked into the hash table twice')
  }
  mutex_unlock(s.lock)
}

export const actors = { A: bind, B: bind }
