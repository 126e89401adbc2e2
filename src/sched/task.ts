/** task.ts - struct task_struct and the run queue: layouts and states, no behaviour. */
import { atomic, by, bytes, embed, konst, type Layout, layout, own, ptr, Struct, word } from '../abi/layout.js'
import { LIST, type list_head } from '../abi/list.js'
import type { Sym } from '../abi/symbol.js'
import { SPINLOCK, type spinlock_t } from '../sync/spinlock.js'

/** A kernel stack: what a process is while it does not run. What it yields nobody looks at; it returns its exit code. */
export type Stack = Generator<void, number, void>
/** A program: runs on the CPU that the task belongs to. */
export type Program = (arg: number) => Stack

export const TASK_RUNNING = 0
export const TASK_INTERRUPTIBLE = 1
export const TASK_UNINTERRUPTIBLE = 2
export const TASK_STOPPED = 4
export const TASK_ZOMBIE = 16
export const TASK_DEAD = 32

export const PF_KTHREAD = 1
export const PF_SYSCALL = 2 // a process that is in the kernel

export const MAX_RT_PRIO = 100
export const MAX_PRIO = 140

export class task_struct extends Struct {
  declare state: number
  declare pid: number
  declare flags: number
  declare cpu: number
  declare prio: number
  declare time_slice: number
  declare on_rq: number
  declare array: number
  declare run_list: list_head
  declare program: Sym<Program>
  declare arg: number
  declare exit_code: number
  declare should_stop: number
  declare at_rest: number
  declare begun: number
  declare exit_wait: number
  declare tasks: list_head
  declare sighand: number
  declare pending: number
  declare blocked: number
  declare sigpending: number
  declare restart_fn: number
  declare restart_arg0: number
  declare restart_arg1: number
  declare itimers: number
  declare mm: number
  declare files: number
  declare kstack: number
  declare uid: number
  declare utime: number
  declare stime: number
  declare nvcsw: number
  declare nivcsw: number
  declare comm: number
}
export const TASK: Layout<task_struct> = layout('task_struct', task_struct, {
  state: word, // set by the task itself before it sleeps, to RUNNING by whoever wakes it (rq.lock)
  pid: konst(word),
  flags: own(word), // PF_*
  cpu: konst(word), // a generator lives in one thread, so a task never migrates
  prio: by('rq.lock', word), // 100 + 20 + nice; looked at without the lock, too
  time_slice: own(word), // ticks left
  on_rq: by('rq.lock', word),
  array: by('rq.lock', word), // which of the two arrays it is queued on
  run_list: by('rq.lock', embed(LIST)),
  program: konst(word),
  arg: konst(word),
  exit_code: own(word),
  should_stop: word,
  at_rest: own(word), // sleeps at the top of its program: begun anew it would do the same
  begun: own(word), // has run at least once
  exit_wait: word, // address of the completion of who waits for the exit
  tasks: by('tasklist_lock', embed(LIST)), // processes that kill finds
  sighand: konst(word), // address of its handlers, 0: those of kernel threads (sched/signal.ts)
  pending: by('siglock', word), // signals, bit 0 for signal 1
  blocked: by('siglock', word), // by the task itself, a word at a time
  sigpending: atomic(word), // TIF_SIGPENDING: one is pending that is not blocked; set under siglock, looked at without
  restart_fn: own(word), // how a call goes on that a signal interrupted (ERESTART_RESTARTBLOCK)
  restart_arg0: own(word),
  restart_arg1: own(word),
  itimers: word, // address of its interval timers, 0: none (irq/itimer.ts)
  mm: konst(word), // address of its memory, 0: a kernel thread (sched/mm.ts)
  files: own(word), // address of its descriptor table (fs/file.ts)
  kstack: konst(word), // what a system call keeps on the stack in C and others look at
  uid: own(word), // 0: may do everything
  utime: own(word), // ticks that found it in user mode
  stime: own(word), // and in the kernel, or in an interrupt that came then
  nvcsw: own(word), // times that it gave the CPU away
  nivcsw: own(word), // times that its slice was used up
  comm: konst(bytes(16)),
})

export class prio_array extends Struct {
  declare nr_active: number
  declare bitmap: number
  declare queue: number
}
export const PRIO_ARRAY: Layout<prio_array> = layout('prio_array', prio_array, {
  nr_active: word,
  bitmap: bytes(5 * 4),
  queue: bytes(MAX_PRIO * 8), // list heads
})

export class runqueue extends Struct {
  declare lock: spinlock_t
  declare nr_running: number
  declare active: number
  declare curr: task_struct | null
  declare need_resched: number
  declare nr_switches: number
  declare array0: prio_array
  declare array1: prio_array
}
export const RUNQUEUE: Layout<runqueue> = layout('runqueue', runqueue, {
  lock: embed(SPINLOCK),
  nr_running: by('lock', word),
  active: by('lock', word), // 0 or 1; the other array holds those whose slice is used up
  curr: own(ptr(() => TASK)),
  need_resched: atomic(word), // set by whoever wants this CPU to choose anew
  nr_switches: own(word),
  array0: by('lock', embed(PRIO_ARRAY)),
  array1: by('lock', embed(PRIO_ARRAY)),
})
