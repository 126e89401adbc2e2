/**
 * process.ts - processes: a program with memory, descriptors and a kernel stack of its own, from its start to its end; and the
 * calls about itself.
 */
import { call, type Sym, symbol } from '../abi/symbol.js'
import { now_ns } from '../arch/cpu.js'
import { exit_files, files_alloc, files_drop, files_get, task_files } from '../fs/file.js'
import { alarm } from '../irq/itimer.js'
import { nanosleep } from '../irq/timer.js'
import { EINVAL, EPERM } from '../lib/errno.js'
import {
  exit_mm,
  kstack_alloc,
  kstack_free,
  mm_alloc,
  mm_get,
  mmput,
  put_user,
  task_kstack,
  task_mm,
} from '../sched/mm.js'
import { current, kernel_thread, schedule, type ThreadOptions, wake_up_process } from '../sched/sched.js'
import { dequeue_signal } from '../sched/signal.js'
import type { Program, task_struct } from '../sched/task.js'
import { syscall_enter } from './entry.js'

export interface ProcessOptions extends Pick<ThreadOptions, 'cpu' | 'nice'> {
  /** Who runs it; 0, the default, is root. */
  uid?: number
  /** A thread of this process: it shares memory and descriptors. */
  shares?: task_struct
}

/** What a process is, from its first instruction to its last. */
function* user_start(): Generator<void, number, void> {
  const k = task_kstack(current())
  const code = yield* call(k.program)(k.arg)
  syscall_enter()
  yield* exit_files()
  exit_mm(current())
  return code
}
const user_start_sym = symbol('user_start', user_start)

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
  const p = files === null ? null : kernel_thread(name, user_start_sym, 0, { ...options, user: true, asleep: true })
  if (p === null || files === null || mm === null) {
    if (files !== null) files_drop(files)
    if (mm !== null) mmput(mm)
    kstack_free(k)
    return null
  }
  p.kstack = k.addr
  p.mm = mm.addr
  p.files = files.addr
  p.uid = options.uid ?? 0
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
/** sys_nanosleep - in ns, as a number: no program here has more than one. @returns ns that were left when a signal came */
export function sys_nanosleep(ns: number): Generator<void, number, void> {
  return nanosleep(ns)
}
/** sys_gettimeofday - the machine's clock, from the start of the machine on; there is no time zone. @returns 0, -EFAULT */
export function sys_gettimeofday(tv: number): number {
  if (tv === 0) return 0
  const us = Math.floor(now_ns() / 1000)
  return put_user(Math.floor(us / 1e6), tv) || put_user(us % 1e6, tv + 4)
}
export function* sys_sched_yield(): Generator<void, number, void> {
  yield* schedule()
  return 0
}
/** sys_sigwaitinfo without waiting: there are no handlers, a program asks what came. @returns signal, 0: none */
export function sys_sigpending(): number {
  return dequeue_signal()
}
