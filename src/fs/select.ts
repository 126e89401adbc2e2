/**
 * select.ts - select and poll (fs/select.c of 2.6.11): wait until one of many files has something to read, or room.
 *
 * A file that is waited on is held until the end of the call, whoever closes it meanwhile. No locks of its own.
 */

import { hz } from '../arch/machine.js'
import { jiffies_to_usecs, MAX_SCHEDULE_TIMEOUT, schedule_timeout, usecs_to_jiffies } from '../irq/timer.js'
import { EBADF, EFAULT, EINTR, EINVAL, ERESTARTNOHAND } from '../lib/errno.js'
import { FD_SETSIZE, OPEN_MAX } from '../lib/limits.js'
import { get_user, put_user } from '../sched/mm.js'
import {
  DEFAULT_POLLMASK,
  POLLERR,
  POLLHUP,
  POLLIN,
  POLLNVAL,
  POLLOUT,
  POLLPRI,
  POLLRDBAND,
  POLLRDNORM,
  POLLWRBAND,
  POLLWRNORM,
  poll_freewait,
  poll_initwait,
  type poll_table,
} from '../sched/poll.js'
import { __set_current_state, cond_resched, current, set_current_state } from '../sched/sched.js'
import { signal_pending } from '../sched/signal.js'
import { TASK_INTERRUPTIBLE, TASK_RUNNING } from '../sched/task.js'
import { __fput, fd_is_open, fget, type file, file_op, fput, fput_test } from './file.js'

type Call = Generator<void, number, void>

// What of a mask each of the three sets of select is about.
const POLLIN_SET = POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR
const POLLOUT_SET = POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR
const POLLEX_SET = POLLPRI

/** One call of select or poll. Lives on its stack. */
interface Wait {
  table: poll_table
  /** Queues are entered in the first round alone, and only as long as nothing was found. */
  pt: poll_table | null
  /** Files whose queues we are on. */
  held: file[]
  /** Files that were closed while we looked: the last reference is ours. */
  closed: file[]
}
function begin(timeout: number): Wait {
  const table = poll_initwait()
  return { table, pt: timeout === 0 ? null : table, held: [], closed: [] }
}

/** What a descriptor has. @context process, about to sleep @returns mask, or null: it is not open */
function look(w: Wait, fd: number): number | null {
  const filp = fget(fd)
  if (filp === null) return null
  const before = w.table.entries.length
  const mask = file_op(filp).poll?.(filp, w.pt) ?? DEFAULT_POLLMASK
  if (w.table.entries.length > before) w.held.push(filp)
  else if (fput_test(filp)) w.closed.push(filp)
  return mask
}

/** Awake, and off all queues: their locks keep out wakers, which write the state as well. */
function stand_up(w: Wait): void {
  poll_freewait(w.table)
  __set_current_state(TASK_RUNNING)
}

/**
 * Look at all files until there is something, or the time is over. `round` looks once and counts.
 * @context process @returns [what was counted, or an errno; jiffies left]
 */
function* wait_for(w: Wait, timeout: number, round: () => number): Generator<void, [number, number], void> {
  let left = timeout
  let count = 0
  for (;;) {
    set_current_state(TASK_INTERRUPTIBLE) // before any file is asked
    count = round()
    w.pt = null
    if (count !== 0 || left === 0 || signal_pending(current())) break
    count = w.table.error
    if (count !== 0) break
    if (w.closed.length > 0) {
      stand_up(w) // to close a file may take a sleep of its own; then all over again
      for (const filp of w.closed.splice(0)) yield* __fput(filp)
      yield* cond_resched()
      w.pt = w.table
    } else left = yield* schedule_timeout(left)
  }
  stand_up(w)
  for (const filp of w.closed) yield* __fput(filp)
  for (const filp of w.held) yield* fput(filp)
  return [count, left]
}

// ---- poll -----------------------------------------------------------------------------------------------------------

const POLLFD_SIZE = 8

interface pollfd {
  fd: number
  /** The program's word: events below, revents above. */
  events: number
  revents: number
}

function do_pollfd(w: Wait, p: pollfd): boolean {
  p.revents = 0
  if (p.fd < 0) return false
  const mask = look(w, p.fd)
  p.revents = mask === null ? POLLNVAL : mask & (p.events | POLLERR | POLLHUP)
  if (p.revents !== 0) w.pt = null
  return p.revents !== 0
}

/** ms of poll: rounded up and one more, so that it is never too short. */
function poll_timeout(ms: number): number {
  if (ms === 0) return 0
  return ms >= 0 && ms < MAX_SCHEDULE_TIMEOUT / hz() ? Math.floor((ms * hz() + 999) / 1000) + 1 : MAX_SCHEDULE_TIMEOUT
}

/** sys_poll - @returns descriptors that have something, 0: the time is over, -EINVAL, -EFAULT, -EINTR, -ENOMEM */
export function* sys_poll(ufds: number, nfds: number, timeout: number): Call {
  if (nfds >>> 0 > FD_SETSIZE && nfds >>> 0 > OPEN_MAX) return -EINVAL
  const fds: pollfd[] = []
  for (let k = 0; k < nfds; k++) {
    const fd = get_user(ufds + k * POLLFD_SIZE)
    const events = get_user(ufds + k * POLLFD_SIZE + 4)
    if (fd === null || events === null) return -EFAULT
    fds.push({ fd, events: events & 0xffff, revents: 0 })
  }
  const jiffies = poll_timeout(timeout)
  const w = begin(jiffies)
  const [count] = yield* wait_for(w, jiffies, () => fds.reduce((n, p) => n + Number(do_pollfd(w, p)), 0))
  for (const [k, p] of fds.entries())
    if (put_user(p.events | (p.revents << 16), ufds + k * POLLFD_SIZE + 4) !== 0) return -EFAULT
  return count === 0 && signal_pending(current()) ? -EINTR : count
}

// ---- select ---------------------------------------------------------------------------------------------------------

type fd_set = number[]

/** get_fd_set - @returns null: it is not there */
function get_fd_set(nr: number, ufdset: number): fd_set | null {
  const set = new Array<number>(nr).fill(0)
  if (ufdset === 0) return set
  for (let k = 0; k < nr; k++) {
    const word = get_user(ufdset + k * 4)
    if (word === null) return null
    set[k] = word
  }
  return set
}
function set_fd_set(ufdset: number, set: fd_set): number {
  if (ufdset === 0) return 0
  for (const [k, word] of set.entries()) if (put_user(word, ufdset + k * 4) !== 0) return -EFAULT
  return 0
}
function has(set: fd_set, fd: number): boolean {
  return (set[fd >> 5]! & (1 << (fd & 31))) !== 0
}

/** max_select_fd - all that are asked for, in order. @returns null: one of them is not open */
function select_fds(n: number, sets: fd_set[]): number[] | null {
  const fds: number[] = []
  for (let fd = 0; fd < n; fd++) if (sets.some(set => has(set, fd))) fds.push(fd)
  return fds.every(fd_is_open) ? fds : null
}

/** One round of do_select. */
function select_round(w: Wait, fds: number[], sets: fd_set[], results: fd_set[]): number {
  let count = 0
  for (const fd of fds) {
    const mask = look(w, fd) ?? 0
    ;[POLLIN_SET, POLLOUT_SET, POLLEX_SET].forEach((bits, k) => {
      if ((mask & bits) === 0 || !has(sets[k]!, fd)) return
      results[k]![fd >> 5]! |= 1 << (fd & 31)
      count++
    })
    if (count > 0) w.pt = null
  }
  return count
}

/** Jiffies of a timeval; very many seconds are for ever. @returns -EFAULT, -EINVAL */
function select_timeout(tvp: number): number {
  if (tvp === 0) return MAX_SCHEDULE_TIMEOUT
  const sec = get_user(tvp)
  const usec = get_user(tvp + 4)
  if (sec === null || usec === null) return -EFAULT
  if (sec < 0 || usec < 0) return -EINVAL
  const longest = Math.floor(MAX_SCHEDULE_TIMEOUT / hz()) - 1
  return sec < longest ? Math.min(usecs_to_jiffies(usec) + sec * hz(), MAX_SCHEDULE_TIMEOUT - 1) : MAX_SCHEDULE_TIMEOUT
}

/** What is left of the time; that it cannot be written is nobody's concern. */
function put_timeout(tvp: number, left: number): void {
  if (tvp === 0) return
  put_user(Math.floor(left / hz()), tvp)
  put_user(jiffies_to_usecs(left % hz()), tvp + 4)
}

/** sys_select - @returns bits that are set, 0: the time is over, -EBADF, -EINVAL, -EFAULT, -ERESTARTNOHAND, -ENOMEM */
export function* sys_select(n: number, inp: number, outp: number, exp: number, tvp: number): Call {
  const timeout = select_timeout(tvp)
  if (timeout < 0) return timeout
  if (n < 0) return -EINVAL
  const top = Math.min(n, FD_SETSIZE)
  const places = [inp, outp, exp]
  const read = places.map(place => get_fd_set((top + 31) >> 5, place))
  if (read.includes(null)) return -EFAULT
  const sets = read as fd_set[]
  const results = sets.map(set => set.map(() => 0))
  const fds = select_fds(top, sets)
  let ret = -EBADF
  let left = timeout
  if (fds !== null) {
    const w = begin(timeout)
    ;[ret, left] = yield* wait_for(w, timeout, () => select_round(w, fds, sets, results))
  }
  put_timeout(tvp, left)
  if (ret < 0) return ret
  if (ret === 0 && signal_pending(current())) return -ERESTARTNOHAND
  const bad = places.some((place, k) => set_fd_set(place, results[k]!) !== 0)
  return bad ? -EFAULT : ret
}
