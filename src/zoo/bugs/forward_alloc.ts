/** #35: the memory account of a socket is changed by who holds the socket's lock, and by one who does not. */
import { mutex_lock, mutex_unlock, type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', sk_lock: word(), sk_forward_alloc: word(4096) }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  sendmsg(s: Shared) {
    mutex_lock(s.sk_lock)
    s.sk_forward_alloc[0] -= 256
    mutex_unlock(s.sk_lock)
  },
  /** The acknowledged segment's destructor. */
  uncharge(s: Shared) {
    if (s.fixed) mutex_lock(s.sk_lock)
    s.sk_forward_alloc[0] += 256
    if (s.fixed) mutex_unlock(s.sk_lock)
  },
}

export function invariant({ sk_forward_alloc }: Shared): void {
  if (sk_forward_alloc[0] !== 4096) throw new Error(`the account says ${sk_forward_alloc[0]}, not 4096`)
}
