/**
 * process.ts - processes: a program with memory, descriptors, handlers of signals and a kernel stack of its own, from its start to
 * its end; and the calls about itself.
 */
import { call, type Sym, symbol } from '../abi/symbol.js'
import { now_ns } from '../arch/cpu.js'
import { exit_files, files_alloc, files_drop, files_get, task_files } from '../fs/file.js'
import { alarm, getitimer, type itimerval, setitimer } from '../irq/itimer.js'
import { jiffies, sleep_interruptible, usecs_to_jiffies } from '../irq/timer.js'
import { EFAULT, EINTR, EINVAL, EPERM, ERESTART_RESTARTBLOCK } from '../lib/errno.js'
import {
  exit_mm,
  get_user,
  kstack_alloc,
  kstack_free,
  mm_alloc,
  mm_get,
  mmput,
  put_user,
  task_kstack,
  task_mm,
} from '../sched/mm.js'
import { current, kernel_thread, sched_hooks, schedule, type ThreadOptions, wake_up_process } from '../sched/sched.js'
import { attach_pid, exit_sighand, sighand_alloc, sighand_get, sighand_put } from '../sched/signal.js'
import type { Program, task_struct } from '../sched/task.js'
import { syscall_enter } from './entry.js'
import { put_timespec } from './signal.js'
import { die_by } from './traps.js'

export interface ProcessOptions extends Pick<ThreadOptions, 'cpu' | 'nice'> {
  /** Who runs it; 0, the default, is root. */
  uid?: number
  /** A thread of this process: it shares memory and descriptors. */
  shares?: task_struct
}

/** What a process is, from its first instruction to its last. */
function* user_start(): Generator<void, number, void> {
  const k = task_kstack(current())
  let code: number
  try {
    code = yield* call(k.program)(k.arg)
  } catch (error) {
    code = yield* die_by(error)
  }
  syscall_enter()
  yield* exit_files()
  exit_mm(current())
  return code
}
const user_start_sym = symbol('user_start', user_start)

// After its timers, which send signals: nothing does any more.
const exit_before = sched_hooks.exit
sched_hooks.exit = p => {
  exit_before(p)
  exit_sighand(p)
}

/**
 * run_program - a new process, ready to run. @context process
 * @param prepare sees the task before it runs, to say where it reports its end
 * @returns the task, or null: no memory (config word `user_procs`)
 */
export function run_program(
  name: string,
  program: Sym<Program>,
  arg: number,
  options: ProcessOptions = {},
  prepare: (p: task_struct) => void = () => {},
): task_struct | null {
  const { shares } = options
  const k = kstack_alloc(program, arg)
  if (k === null) return null
  const mm = shares === undefined ? mm_alloc() : mm_get(task_mm(shares)!)
  const files = mm === null ? null : shares === undefined ? files_alloc() : files_get(task_files(shares)!)
  const sighand = files === null ? null : shares === undefined ? sighand_alloc() : sighand_get(shares)
  const p = sighand === null ? null : kernel_thread(name, user_start_sym, 0, { ...options, user: true, asleep: true })
  if (p === null || sighand === null || files === null || mm === null) {
    if (sighand !== null) sighand_put(sighand)
    if (files !== null) files_drop(files)
    if (mm !== null) mmput(mm)
    kstack_free(k)
    return null
  }
  p.kstack = k.addr
  p.mm = mm.addr
  p.files = files.addr
  p.sighand = sighand.addr
  p.uid = options.uid ?? 0
  attach_pid(p)
  prepare(p)
  wake_up_process(p)
  return p
}

// ---- calls about oneself --------------------------------------------------------------------------------------------

export function sys_getpid(): number {
  return current().pid
}
export function sys_getuid(): number {
  return current().uid
}
/** sys_setuid - only root may become somebody else. */
export function sys_setuid(uid: number): number {
  const p = current()
  if (uid < 0) return -EINVAL
  if (p.uid !== 0 && p.uid !== uid) return -EPERM
  p.uid = uid
  return 0
}
export function sys_alarm(seconds: number): number {
  return seconds < 0 ? -EINVAL : alarm(seconds)
}

/** sys_getitimer - @returns 0, -EINVAL, -EFAULT */
export function sys_getitimer(which: number, value: number): number {
  if (value === 0) return -EFAULT
  const it = getitimer(which)
  return it === null ? -EINVAL : put_itimerval(it, value)
}
/** sys_setitimer - no value stops it. @returns 0, -EINVAL, -EFAULT, -ENOMEM */
export function sys_setitimer(which: number, value: number, ovalue: number): number {
  let it: itimerval = { it_interval: 0, it_value: 0 }
  if (value !== 0) {
    const words = [0, 4, 8, 12].map(at => get_user(value + at))
    if (words.includes(null)) return -EFAULT
    const [isec, ius, sec, us] = words as [number, number, number, number]
    it = { it_interval: isec * 1e6 + ius, it_value: sec * 1e6 + us }
  }
  const before = getitimer(which)
  const err = setitimer(which, it)
  return err !== 0 || ovalue === 0 ? err : put_itimerval(before!, ovalue)
}
function put_itimerval({ it_interval, it_value }: itimerval, at: number): number {
  return put_timeval(it_interval, at) || put_timeval(it_value, at + 8)
}
function put_timeval(us: number, at: number): number {
  return put_user(Math.floor(us / 1e6), at) || put_user(us % 1e6, at + 4)
}

/** Sleep until a jiffy; a signal leaves what goes on afterwards in the restart block. */
function* sleep_until(expire: number, rmtp: number): Generator<void, number, void> {
  const left = yield* sleep_interruptible((expire - jiffies()) | 0)
  if (left <= 0) return 0
  if (rmtp !== 0 && put_timespec(left, rmtp) !== 0) return -EFAULT
  const p = current()
  p.restart_fn = nanosleep_restart_sym
  p.restart_arg0 = expire
  p.restart_arg1 = rmtp
  return -ERESTART_RESTARTBLOCK
}
function nanosleep_restart(p: task_struct): Generator<void, number, void> {
  return sleep_until(p.restart_arg0, p.restart_arg1)
}
const nanosleep_restart_sym = symbol('nanosleep_restart', nanosleep_restart)

/** sys_nanosleep - in ns, as a number; what is left goes to the timespec at `rmtp`. @returns 0, -EINTR, -EFAULT */
export function* sys_nanosleep(ns: number, rmtp: number): Generator<void, number, void> {
  return ns <= 0 ? 0 : yield* sleep_until((jiffies() + usecs_to_jiffies(ns / 1000) + 1) | 0, rmtp)
}
/** sys_restart_syscall - a call goes on that a signal interrupted. */
export function sys_restart_syscall(): number | Generator<void, number, void> {
  const p = current()
  const fn = p.restart_fn as Sym<typeof nanosleep_restart>
  return fn === 0 ? -EINTR : call(fn)(p)
}

/** sys_gettimeofday - the machine's clock, from the start of the machine on; there is no time zone. @returns 0, -EFAULT */
export function sys_gettimeofday(tv: number): number {
  return tv === 0 ? 0 : put_timeval(Math.floor(now_ns() / 1000), tv)
}
export function* sys_sched_yield(): Generator<void, number, void> {
  yield* schedule()
  return 0
}
