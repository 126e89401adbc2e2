/** #7: close waits under rtnl for a work item that wants rtnl itself. */
import { mutex_lock, mutex_unlock, type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', rtnl: word(), work_done: word(), carrier: word() }
}
type Shared = ReturnType<typeof setup>

function flush_work({ work_done }: Shared): void {
  while (Atomics.load(work_done, 0) === 0) Atomics.wait(work_done, 0, 0)
}

export const actors = {
  close(s: Shared) {
    if (s.fixed) flush_work(s)
    mutex_lock(s.rtnl)
    if (!s.fixed) flush_work(s)
    Atomics.store(s.carrier, 0, 0)
    mutex_unlock(s.rtnl)
  },
  worker(s: Shared) {
    mutex_lock(s.rtnl)
    Atomics.store(s.carrier, 0, 1)
    mutex_unlock(s.rtnl)
    Atomics.store(s.work_done, 0, 1)
    Atomics.notify(s.work_done, 0)
  },
}
