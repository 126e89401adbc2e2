/** resource.ts - how urgent processes are, and what CPU time they took (kernel/sys.c of 2.6.11). */
import { RAM } from '../arch/ram.js'
import { jiffies, jiffies_to_usecs } from '../irq/timer.js'
import { EACCES, EFAULT, EINVAL, EPERM, ESRCH } from '../lib/errno.js'
import { copy_to_user, task_kstack } from '../sched/mm.js'
import { current, set_user_nice, task_nice } from '../sched/sched.js'
import { for_each_process } from '../sched/signal.js'
import type { task_struct } from '../sched/task.js'

const i32 = RAM.i32

export const PRIO_PROCESS = 0
export const PRIO_PGRP = 1
export const PRIO_USER = 2
export const RUSAGE_SELF = 0
export const RUSAGE_CHILDREN = -1
/** Ticks a second that programs are told in. */
const USER_HZ = 100
/** Words of a struct rusage. */
const RUSAGE_WORDS = 18

const clamp_nice = (nice: number): number => Math.min(Math.max(nice, -20), 19)

/** sys_nice - so much less urgent; only root may be more so. @returns 0, -EPERM */
export function sys_nice(increment: number): number {
  const p = current()
  if (increment < 0 && p.uid !== 0) return -EPERM
  const by = Math.min(Math.max(increment, -40), 40)
  set_user_nice(p, clamp_nice(task_nice(p) + by))
  return 0
}

/** The processes that `which` and `who` name; each is a group of its own. `f` is called under tasklist_lock. */
function for_each_named(which: number, who: number, f: (p: task_struct) => void): void {
  const me = current()
  const name = who !== 0 ? who : which === PRIO_USER ? me.uid : me.pid
  for_each_process(p => {
    if ((which === PRIO_USER ? p.uid : p.pid) === name) f(p)
  })
}

/** sys_setpriority - @returns 0, -EINVAL, -ESRCH, -EPERM: somebody else's, -EACCES: more urgent, and not root's */
export function sys_setpriority(which: number, who: number, niceval: number): number {
  if (which < PRIO_PROCESS || which > PRIO_USER) return -EINVAL
  const me = current()
  const nice = clamp_nice(niceval)
  let err = -ESRCH
  for_each_named(which, who, p => {
    if (me.uid !== 0 && p.uid !== me.uid) err = -EPERM
    else if (nice < task_nice(p) && me.uid !== 0) err = -EACCES
    else {
      if (err === -ESRCH) err = 0
      set_user_nice(p, nice)
    }
  })
  return err
}
/** sys_getpriority - of the most urgent one, as 20 - nice, so that it is no errno. @returns 1 to 40, -EINVAL, -ESRCH */
export function sys_getpriority(which: number, who: number): number {
  if (which < PRIO_PROCESS || which > PRIO_USER) return -EINVAL
  let best = -ESRCH
  for_each_named(which, who, p => {
    best = Math.max(best, 20 - task_nice(p))
  })
  return best
}

/** Ticks of CPU time as a program is told them. */
const to_clock_t = (ticks: number): number => Math.floor((jiffies_to_usecs(ticks) * USER_HZ) / 1e6)

/** sys_times - user and system time of the caller, and of children, which nobody has. @returns clock_t since boot, -EFAULT */
export function sys_times(tbuf: number): number {
  const p = current()
  if (tbuf !== 0) {
    const at = task_kstack(p).words
    i32.set([to_clock_t(p.utime), to_clock_t(p.stime), 0, 0], at >> 2)
    if (copy_to_user(tbuf, at, 16) !== 0) return -EFAULT
  }
  return to_clock_t(jiffies())
}

/** sys_getrusage - a struct rusage: times and switches; the rest is 0. @returns 0, -EINVAL, -EFAULT */
export function sys_getrusage(who: number, ru: number): number {
  if (who !== RUSAGE_SELF && who !== RUSAGE_CHILDREN) return -EINVAL
  const p = current()
  const at = task_kstack(p).words >> 2
  i32.fill(0, at, at + RUSAGE_WORDS)
  if (who === RUSAGE_SELF) {
    const [user, system] = [jiffies_to_usecs(p.utime), jiffies_to_usecs(p.stime)]
    i32.set([Math.floor(user / 1e6), user % 1e6, Math.floor(system / 1e6), system % 1e6], at)
    i32.set([p.nvcsw, p.nivcsw], at + RUSAGE_WORDS - 2)
  }
  return copy_to_user(ru, at << 2, RUSAGE_WORDS * 4) !== 0 ? -EFAULT : 0
}
