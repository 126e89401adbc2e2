/** #38: connect finds a timewait entry just when its timer drops the last reference. */
import { refcount_dec_and_test, refcount_inc, refcount_inc_not_zero, type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', hashed: word(1), refcnt: word(1), reused: word() }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  connect(s: Shared) {
    if (Atomics.load(s.hashed, 0) === 0) return
    if (s.fixed) {
      if (!refcount_inc_not_zero(s.refcnt)) return
    } else refcount_inc(s.refcnt)
    Atomics.store(s.reused, 0, 1)
    refcount_dec_and_test(s.refcnt)
  },
  /** tw_timer_handler */
  timer(s: Shared) {
    Atomics.store(s.hashed, 0, 0)
    refcount_dec_and_test(s.refcnt)
  },
}
