/** signal.ts - the system calls of signals (kernel/signal.c of 2.6.11), in the order of its checks. Sets are 64 bits, as the program's. */
import { jiffies_to_usecs, MAX_SCHEDULE_TIMEOUT, schedule_timeout, usecs_to_jiffies } from '../irq/timer.js'
import { EAGAIN, EFAULT, EINTR, EINVAL, EPERM, ERESTARTNOHAND, ERESTARTNOINTR, ESRCH } from '../lib/errno.js'
import type { Call } from '../net/core/socket.js'
import { get_user, put_user } from '../sched/mm.js'
import { current, schedule, set_current_state } from '../sched/sched.js'
import {
  dequeue_signal,
  do_sigaction,
  for_each_process,
  type k_sigaction,
  NSIG,
  pending_blocked,
  SIG_KERNEL_ONLY_MASK,
  send_sig,
  set_blocked,
  sigmask,
} from '../sched/signal.js'
import { TASK_INTERRUPTIBLE, type task_struct } from '../sched/task.js'
import { do_exit, do_signal } from './do_signal.js'

const SIGSET_SIZE = 8
export const SIG_BLOCK = 0
export const SIG_UNBLOCK = 1
export const SIG_SETMASK = 2

/** The low word of a set; the other signals are not there. @returns null: it cannot be read */
function get_sigset(at: number): number | null {
  const low = get_user(at)
  return get_user(at + 4) === null ? null : low
}
function put_sigset(set: number, at: number): number {
  return put_user(set, at) || put_user(0, at + 4)
}

// struct sigaction of rt_sigaction: handler, flags, restorer, mask
function get_sigaction(at: number): k_sigaction | null {
  const [handler, flags] = [get_user(at), get_user(at + 4)]
  const mask = get_sigset(at + 12)
  return handler === null || flags === null || mask === null ? null : { handler, flags, mask }
}

/** sys_rt_sigaction - @returns 0, -EINVAL, -EFAULT */
export function sys_rt_sigaction(sig: number, act: number, oact: number, sigsetsize: number): number {
  if (sigsetsize !== SIGSET_SIZE) return -EINVAL
  const ka = act === 0 ? null : get_sigaction(act)
  if (act !== 0 && ka === null) return -EFAULT
  if (sig < 1 || sig > NSIG || (act !== 0 && (sigmask(sig) & SIG_KERNEL_ONLY_MASK) !== 0)) return -EINVAL
  const before = do_sigaction(sig, ka)
  if (before === null) return -ERESTARTNOINTR
  if (oact === 0) return 0
  const err = put_user(before.handler, oact) || put_user(before.flags, oact + 4) || put_user(0, oact + 8)
  return err || put_sigset(before.mask, oact + 12)
}

/** sys_rt_sigprocmask - @returns 0, -EINVAL, -EFAULT */
export function sys_rt_sigprocmask(how: number, uset: number, uoset: number, sigsetsize: number): number {
  if (sigsetsize !== SIGSET_SIZE) return -EINVAL
  const before = current().blocked
  if (uset !== 0) {
    const set = get_sigset(uset)
    if (set === null) return -EFAULT
    if (how === SIG_BLOCK) set_blocked(before | set)
    else if (how === SIG_UNBLOCK) set_blocked(before & ~set)
    else if (how === SIG_SETMASK) set_blocked(set)
    else return -EINVAL
  }
  return uoset === 0 ? 0 : put_sigset(before, uoset)
}

/** sys_rt_sigpending - @returns 0, -EINVAL, -EFAULT */
export function sys_rt_sigpending(uset: number, sigsetsize: number): number {
  if (sigsetsize >>> 0 > SIGSET_SIZE) return -EINVAL
  return put_sigset(pending_blocked(), uset)
}

/** sys_rt_sigsuspend - sleep until a handler has run, with other signals blocked. @returns -EINTR, -EINVAL, -EFAULT */
export function* sys_rt_sigsuspend(unewset: number, sigsetsize: number): Call {
  if (sigsetsize !== SIGSET_SIZE) return -EINVAL
  const newset = get_sigset(unewset)
  if (newset === null) return -EFAULT
  const saveset = set_blocked(newset)
  for (;;) {
    set_current_state(TASK_INTERRUPTIBLE)
    yield* schedule()
    if ((yield* do_signal(saveset)) !== null) return -EINTR
  }
}

/** sys_pause - @returns -EINTR, after a handler has run */
export function* sys_pause(): Call {
  set_current_state(TASK_INTERRUPTIBLE)
  yield* schedule()
  return -ERESTARTNOHAND
}

/** Jiffies of a timespec, and one more if it is not 0. @returns -EFAULT, -EINVAL */
function timespec_jiffies(uts: number): number {
  if (uts === 0) return MAX_SCHEDULE_TIMEOUT
  const [sec, nsec] = [get_user(uts), get_user(uts + 4)]
  if (sec === null || nsec === null) return -EFAULT
  if (nsec < 0 || nsec >= 1e9 || sec < 0) return -EINVAL
  return Math.min(usecs_to_jiffies(sec * 1e6 + nsec / 1000) + (sec || nsec ? 1 : 0), MAX_SCHEDULE_TIMEOUT)
}

/** sys_rt_sigtimedwait - take one of these signals, which had better be blocked. @returns it, -EINVAL, -EFAULT, -EAGAIN, -EINTR */
export function* sys_rt_sigtimedwait(uthese: number, uinfo: number, uts: number, sigsetsize: number): Call {
  if (sigsetsize !== SIGSET_SIZE) return -EINVAL
  const these = get_sigset(uthese)
  if (these === null) return -EFAULT
  const others = ~(these & ~SIG_KERNEL_ONLY_MASK)
  const timeout = timespec_jiffies(uts)
  if (timeout < 0) return timeout
  let sig = dequeue_signal(others)
  let left = timeout
  if (sig === 0 && timeout > 0) {
    const blocked = set_blocked(current().blocked & others) // so that one of them wakes us
    set_current_state(TASK_INTERRUPTIBLE)
    left = yield* schedule_timeout(timeout)
    sig = dequeue_signal(others)
    set_blocked(blocked)
  }
  if (sig === 0) return left > 0 && timeout > 0 ? -EINTR : -EAGAIN
  return uinfo === 0 || put_user(sig, uinfo) === 0 ? sig : -EFAULT
}

/** check_kill_permission - @returns 0, -EINVAL, -EPERM */
function check_kill_permission(sig: number, p: task_struct): number {
  if (sig < 0 || sig > NSIG) return -EINVAL
  const me = current()
  return me.uid === 0 || me.uid === p.uid ? 0 : -EPERM
}

/** sys_kill - signal 0 only asks whether one could. Each process is a group of its own. @returns 0, -ESRCH, -EINVAL, -EPERM */
export function sys_kill(pid: number, sig: number): number {
  const me = current()
  const wanted = pid === 0 ? me.pid : Math.abs(pid)
  let found = 0
  let err = 0
  for_each_process(p => {
    if (pid === -1 ? p === me : p.pid !== wanted) return
    found++
    const ret = check_kill_permission(sig, p)
    if (ret === 0 && sig > 0) send_sig(sig, p)
    if (pid !== -1 || ret !== -EPERM) err = ret // of many, who may not be told is passed over
  })
  return found === 0 ? -ESRCH : err
}

/** sys_exit - it does not return. */
export function sys_exit(code: number): never {
  do_exit(code & 0xff)
}

/** put_timespec - what is left of a sleep. @returns 0, -EFAULT */
export function put_timespec(jiffies: number, at: number): number {
  const us = jiffies_to_usecs(jiffies)
  return put_user(Math.floor(us / 1e6), at) || put_user((us % 1e6) * 1000, at + 4)
}
