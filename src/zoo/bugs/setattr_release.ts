/** #29: fchown of a socket while its release takes the struct sock away. */
import { mutex_lock, mutex_unlock, type Twin, word } from '../kit/words.js'

const SK = 0x1000

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', inode_lock: word(), sk: word(SK), uid: word() }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  setattr(s: Shared) {
    mutex_lock(s.inode_lock)
    if (Atomics.load(s.sk, 0) !== 0) {
      const sk = Atomics.load(s.sk, 0)
      if (sk === 0) throw new Error('null pointer: sock->sk is gone')
      Atomics.store(s.uid, 0, 1000)
    }
    mutex_unlock(s.inode_lock)
  },
  release(s: Shared) {
    if (s.fixed) mutex_lock(s.inode_lock)
    Atomics.store(s.sk, 0, 0)
    if (s.fixed) mutex_unlock(s.inode_lock)
  },
}
