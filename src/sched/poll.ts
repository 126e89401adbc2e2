/**
 * poll.ts - what poll and select wait on (include/linux/poll.h, and the first half of fs/select.c of 2.6.11). No locks of its
 * own: a table belongs to the call that it was made for, its entries lie on the wait queues under their locks.
 *
 * No wake-up is lost: the caller is about to sleep before it asks anybody, each file queues it before it looks at what it has,
 * and who changes that looks at the queue afterwards.
 */
import { ENOMEM } from '../lib/errno.js'
import {
  add_wait_queue,
  begin_wait,
  remove_wait_queue,
  WQ_FLAG_STAYS,
  type wait_queue_head_t,
  type wait_queue_t,
} from './wait.js'

export const POLLIN = 0x0001
export const POLLPRI = 0x0002
export const POLLOUT = 0x0004
export const POLLERR = 0x0008
export const POLLHUP = 0x0010
export const POLLNVAL = 0x0020
export const POLLRDNORM = 0x0040
export const POLLRDBAND = 0x0080
export const POLLWRNORM = 0x0100
export const POLLWRBAND = 0x0200
/** Of files that have no poll: they never make anybody wait. */
export const DEFAULT_POLLMASK = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM

/** The queues that one call waits on (struct poll_wqueues). Lives on the stack of the call. */
export interface poll_table {
  readonly entries: [wait_queue_head_t, wait_queue_t][]
  /** -ENOMEM: some queue could not be entered. */
  error: number
  /** Somebody else enters the queue, in his own way (qproc): epoll. */
  readonly queue?: (q: wait_queue_head_t) => void
}
export function poll_initwait(): poll_table {
  return { entries: [], error: 0 }
}

/** poll_wait - for the poll of a file: what it has changes with a wake-up of this queue. Without a table nobody waits. */
export function poll_wait(q: wait_queue_head_t, pt: poll_table | null): void {
  if (pt === null) return
  if (pt.queue !== undefined) {
    pt.queue(q)
    return
  }
  const wait = begin_wait(WQ_FLAG_STAYS)
  if (wait === null) {
    pt.error = -ENOMEM
    return
  }
  pt.entries.push([q, wait])
  add_wait_queue(q, wait)
}

/** poll_freewait - off all queues. @context process */
export function poll_freewait(pt: poll_table): void {
  for (const [q, wait] of pt.entries.splice(0)) remove_wait_queue(q, wait)
}
