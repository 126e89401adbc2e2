/** #44: mq_notify tries again after it has dropped the socket, fails, and drops it once more. */
import { refcount_dec_and_test, refcount_inc_not_zero, type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', descriptor: word(1), refcnt: word(1), full: word(1) }
}
type Shared = ReturnType<typeof setup>

/** netlink_getsockbyfilp */
function get_socket(s: Shared): boolean {
  return Atomics.load(s.descriptor, 0) !== 0 && refcount_inc_not_zero(s.refcnt)
}

export const actors = {
  mq_notify(s: Shared) {
    let sock = false
    for (;;) {
      if (!get_socket(s)) break
      sock = true
      if (Atomics.exchange(s.full, 0, 0) === 0) break
      // netlink_attachskb: the buffer was full; it has put the socket.
      refcount_dec_and_test(s.refcnt)
      if (s.fixed) sock = false
    }
    if (sock) refcount_dec_and_test(s.refcnt)
  },
  close(s: Shared) {
    Atomics.store(s.descriptor, 0, 0)
    refcount_dec_and_test(s.refcnt)
  },
}
