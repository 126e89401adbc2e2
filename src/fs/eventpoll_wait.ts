/**
 * eventpoll_wait.ts - epoll_wait: what the items of an epoll file have is handed out, or slept for. Locks: eventpoll.ts.
 *
 * Items that are ready move to a list of the call; each file is asked once more; those that still have something, and are not
 * EPOLLET, are ready again.
 */
import { INIT_LIST_HEAD, LIST, list_add, list_add_tail, list_del_init, list_empty, list_next } from '../abi/list.js'
import { hz } from '../arch/machine.js'
import { MAX_SCHEDULE_TIMEOUT, schedule_timeout } from '../irq/timer.js'
import { EFAULT, EINTR } from '../lib/errno.js'
import { put_user, task_kstack } from '../sched/mm.js'
import { down_read, up_read } from '../sched/rwsem.js'
import { __set_current_state, current, schedule, set_current_state } from '../sched/sched.js'
import { signal_pending } from '../sched/signal.js'
import { TASK_INTERRUPTIBLE, TASK_RUNNING } from '../sched/task.js'
import { add_wait_queue, begin_wait, remove_wait_queue, WQ_FLAG_STAYS } from '../sched/wait.js'
import { write_lock_irqsave, write_unlock_irqrestore } from '../sync/rwlock.js'
import { ask, EP_PRIVATE_BITS, EPOLLET, EPOLLONESHOT, ep_poll_safewake, is_ready, wake_sleepers } from './eventpoll.js'
import { EPITEM, type eventpoll } from './eventpoll_types.js'

type Call = Generator<void, number, void>

/** Bytes of an epoll_event on i386: events, and 64 bits of the program's. */
export const EVENT_SIZE = 12

/** ep_collect_ready_items - up to `max` off the ready list. @locks ep.lock @returns how many */
function ep_collect_ready_items(ep: eventpoll, txlist: number, max: number): number {
  const head = LIST.ref(txlist)
  let n = 0
  const flags = write_lock_irqsave(ep.lock)
  for (let at = ep.rdllist.next; at !== ep.rdllist.addr && n < max; ) {
    const epi = EPITEM.container_of('rdllink', at)
    at = list_next(at)
    if (!list_empty(epi.txlink)) continue // another thread hands it out
    epi.revents = epi.events // if it is not asked any more, it goes back to the list
    list_add(epi.txlink, head)
    list_del_init(epi.rdllink)
    n++
  }
  write_unlock_irqrestore(ep.lock, flags)
  return n
}

/** ep_send_events - ask the files, and tell the program what they have. @locks ep.sem is held for reading @returns events, -EFAULT */
function ep_send_events(txlist: number, events: number): number {
  let n = 0
  for (let at = list_next(txlist); at !== txlist; at = list_next(at)) {
    const epi = EPITEM.container_of('txlink', at)
    epi.revents = ask(epi.file!, null) & epi.events
    if (epi.revents === 0) continue
    const to = events + n * EVENT_SIZE
    if ((put_user(epi.revents, to) || put_user(epi.data_lo, to + 4) || put_user(epi.data_hi, to + 8)) !== 0)
      return -EFAULT
    if ((epi.events & EPOLLONESHOT) !== 0) epi.events = epi.events & EP_PRIVATE_BITS
    n++
  }
  return n
}

/** ep_reinject_items - those that still have something are ready again, but for EPOLLET. @locks ep.lock */
function ep_reinject_items(ep: eventpoll, txlist: number): void {
  const head = LIST.ref(txlist)
  let n = 0
  const flags = write_lock_irqsave(ep.lock)
  while (!list_empty(head)) {
    const epi = EPITEM.container_of('txlink', head.next)
    list_del_init(epi.txlink)
    const again = epi.linked !== 0 && (epi.events & EPOLLET) === 0 && (epi.revents & epi.events) !== 0
    if (!again || !list_empty(epi.rdllink)) continue
    list_add_tail(epi.rdllink, ep.rdllist)
    n++
  }
  const pwake = n > 0 && wake_sleepers(ep)
  write_unlock_irqrestore(ep.lock, flags)
  if (pwake) ep_poll_safewake(ep.poll_wait)
}

/** ep_events_transfer - @context process @locks ep.sem @returns events, -EFAULT */
function* ep_events_transfer(ep: eventpoll, events: number, max: number): Call {
  const txlist = task_kstack(current()).words
  INIT_LIST_HEAD(LIST.ref(txlist))
  let n = 0
  yield* down_read(ep.sem)
  if (ep_collect_ready_items(ep, txlist, max) > 0) {
    n = ep_send_events(txlist, events)
    ep_reinject_items(ep, txlist)
  }
  up_read(ep.sem)
  return n
}

/** Sleep until an item is ready. @context process @locks ep.lock is dropped to sleep @returns [jiffies left, 0 or -EINTR] */
function* ep_sleep(ep: eventpoll, timeout: number): Generator<void, [number, number], void> {
  const wait = begin_wait(WQ_FLAG_STAYS)
  let left = timeout
  let err = 0
  let flags = write_lock_irqsave(ep.lock)
  if (wait !== null) add_wait_queue(ep.wq, wait)
  for (;;) {
    // Before the list is looked at. Without an entry nobody could wake us: look again and again.
    set_current_state(wait === null ? TASK_RUNNING : TASK_INTERRUPTIBLE)
    if (!list_empty(ep.rdllist) || left === 0) break
    err = signal_pending(current()) ? -EINTR : 0
    if (err !== 0) break
    write_unlock_irqrestore(ep.lock, flags)
    if (wait === null) yield* schedule()
    else left = yield* schedule_timeout(left)
    flags = write_lock_irqsave(ep.lock)
  }
  if (wait !== null) remove_wait_queue(ep.wq, wait)
  __set_current_state(TASK_RUNNING)
  write_unlock_irqrestore(ep.lock, flags)
  return [left, err]
}
/** ep_poll - @returns events, 0: the time is over, -EINTR, -EFAULT */
export function* ep_poll(ep: eventpoll, events: number, max: number, timeout: number): Call {
  let left = timeout
  for (;;) {
    let err = 0
    if (!is_ready(ep)) [left, err] = yield* ep_sleep(ep, left)
    if (err !== 0) return err
    const n = is_ready(ep) ? yield* ep_events_transfer(ep, events, max) : 0
    if (n !== 0 || left === 0) return n
  }
}

/** ep_timeout - jiffies of ms, rounded up; -1: for ever, others below 0: none, as schedule_timeout has them. */
export function ep_timeout(ms: number): number {
  if (ms === -1 || ms > Math.floor((MAX_SCHEDULE_TIMEOUT - 1000) / hz())) return MAX_SCHEDULE_TIMEOUT
  return ms < 0 ? 0 : Math.floor((ms * hz() + 999) / 1000)
}
