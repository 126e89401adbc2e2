/** #23: two threads add one socket to a fanout group; whether it has one is asked outside of the lock. */
import { mutex_lock, mutex_unlock, type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', fanout_mutex: word(), fanout: word(), members: word() }
}
type Shared = ReturnType<typeof setup>

function fanout_add(s: Shared): void {
  if (!s.fixed && Atomics.load(s.fanout, 0) !== 0) return
  mutex_lock(s.fanout_mutex)
  if (!s.fixed || Atomics.load(s.fanout, 0) === 0) {
    Atomics.store(s.fanout, 0, 1)
    Atomics.add(s.members, 0, 1)
  }
  mutex_unlock(s.fanout_mutex)
}

export const actors = { A: fanout_add, B: fanout_add }

export function invariant({ members }: Shared): void {
  if (members[0] !== 1) throw new Error(`the socket is ${members[0]} times in its group, and will leave it once`)
}
