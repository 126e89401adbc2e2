/**
 * signal.ts - signals (kernel/signal.c of 2.6.11): who gets them, which of them are pending, blocked or ignored. What is done
 * about them on the way back to the program is in syscall/do_signal.ts.
 *
 * Lock charter
 *   siglock, of the handlers that the threads of a process share, guards those, and the pending and blocked signals of these
 *   threads. Taken with interrupts off: the tick sends signals. Under it: rq.lock, to wake.
 *   tasklist_lock guards the list of processes; readers may be softirqs. Under it: siglock.
 *   No signal is lost: sigpending is set before the task is woken; the task sets its state before schedule() looks at it.
 *
 * There are the 31 classic signals, each pending once however often it is sent, and none that queue. Each process is a process
 * group, a session and an orphan of its own.
 */
import { atomic, by, bytes, embed, type Layout, layout, Struct, word } from '../abi/layout.js'
import { INIT_LIST_HEAD, LIST, list_add_tail, list_del_init, type list_head } from '../abi/list.js'
import { DEFINE_STATIC } from '../abi/section.js'
import type { Sym } from '../abi/symbol.js'
import { load, store } from '../arch/atomic.js'
import { config } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../mm/slab.js'
import { refcount_dec_and_test, refcount_inc } from '../sync/refcount.js'
import {
  RWLOCK,
  read_lock_bh,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../sync/rwlock.js'
import {
  SPINLOCK,
  spin_lock_init,
  spin_lock_irqsave,
  spin_unlock_irqrestore,
  type spinlock_t,
} from '../sync/spinlock.js'
import { current, wake_up_state } from './sched.js'
import { TASK, TASK_INTERRUPTIBLE, TASK_STOPPED, type task_struct } from './task.js'

const i32 = RAM.i32

export const SIGHUP = 1
export const SIGINT = 2
export const SIGQUIT = 3
export const SIGABRT = 6
export const SIGKILL = 9
export const SIGUSR1 = 10
export const SIGSEGV = 11
export const SIGUSR2 = 12
export const SIGPIPE = 13
export const SIGALRM = 14
export const SIGTERM = 15
export const SIGCHLD = 17
export const SIGCONT = 18
export const SIGSTOP = 19
export const SIGTSTP = 20
export const SIGTTIN = 21
export const SIGTTOU = 22
export const SIGURG = 23
export const SIGVTALRM = 26
export const SIGPROF = 27
export const SIGWINCH = 28
export const SIGIO = 29
export const NSIG = 31

/** sigmask - the bit of a signal. */
export function sigmask(sig: number): number {
  return 1 << (sig - 1)
}
function maskOf(...sigs: number[]): number {
  return sigs.reduce((set, sig) => set | sigmask(sig), 0)
}
/** Of which nothing can be said to the kernel: they are never caught, blocked or ignored. */
export const SIG_KERNEL_ONLY_MASK = maskOf(SIGKILL, SIGSTOP)
export const SIG_KERNEL_STOP_MASK = maskOf(SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU)
export const SIG_KERNEL_IGNORE_MASK = maskOf(SIGCONT, SIGCHLD, SIGWINCH, SIGURG)

export const SIG_DFL = 0
export const SIG_IGN = 1
export const SA_SIGINFO = 0x4
export const SA_RESTART = 0x10000000
export const SA_NODEFER = 0x40000000
export const SA_RESETHAND = 0x80000000 | 0

/** A handler: runs in user mode, on the stack of the program that it interrupts. */
export type sighandler_t = (sig: number) => Generator<void, unknown, void>

/** What is done about one signal: handler (SIG_DFL, SIG_IGN, or its symbol), SA_*, signals that are blocked meanwhile. */
export interface k_sigaction {
  handler: Sym<sighandler_t>
  flags: number
  mask: number
}
/** Words of it at rest. */
const ACTION = 3

export class sighand_struct extends Struct {
  declare count: number
  declare siglock: spinlock_t
  declare action: number
}
const SIGHAND: Layout<sighand_struct> = layout('sighand_struct', sighand_struct, {
  count: atomic(word), // threads that share it
  siglock: embed(SPINLOCK),
  action: by('siglock', bytes(NSIG * ACTION * 4)),
})
const sighand_cache = kmem_cache_create('sighand_struct', SIGHAND, () => config('user_procs'))
/** Of kernel threads: all SIG_DFL, and nothing comes of that. */
const init_sighand = DEFINE_STATIC('init_sighand', SIGHAND)

class tasklist extends Struct {
  declare lock: rwlock_t
  declare tasks: list_head
}
const TASKLIST: Layout<tasklist> = layout('tasklist', tasklist, {
  lock: embed(RWLOCK),
  tasks: by('lock', embed(LIST)),
})
const list = DEFINE_STATIC('tasklist', TASKLIST)

const SIGPENDING = TASK.offset('sigpending')

function sighand_of(p: task_struct): sighand_struct {
  return p.sighand === 0 ? init_sighand : SIGHAND.ref(p.sighand)
}

/** get_action - @locks siglock is held */
function get_action(sighand: sighand_struct, sig: number): k_sigaction {
  const at = (sighand.action >> 2) + (sig - 1) * ACTION
  return { handler: i32[at]!, flags: i32[at + 1]!, mask: i32[at + 2]! }
}
function set_action(sighand: sighand_struct, sig: number, { handler, flags, mask }: k_sigaction): void {
  const at = (sighand.action >> 2) + (sig - 1) * ACTION
  i32[at] = handler
  i32[at + 1] = flags
  i32[at + 2] = mask
}

/** with_siglock - @context any */
export function with_siglock<T>(p: task_struct, f: (sighand: sighand_struct) => T): T {
  const sighand = sighand_of(p)
  const irq = spin_lock_irqsave(sighand.siglock)
  const ret = f(sighand)
  spin_unlock_irqrestore(sighand.siglock, irq)
  return ret
}

/** recalc_sigpending - after pending or blocked has changed. @locks siglock is held */
function recalc_sigpending(p: task_struct): void {
  store(p.addr + SIGPENDING, (p.pending & ~p.blocked) !== 0 ? 1 : 0)
}

// ---- sending --------------------------------------------------------------------------------------------------------

/** A blocked signal is kept: its handler may change before it is let through. @locks siglock is held */
function sig_ignored(sighand: sighand_struct, p: task_struct, sig: number): boolean {
  if ((p.blocked & sigmask(sig)) !== 0) return false
  const { handler } = get_action(sighand, sig)
  return handler === SIG_IGN || (handler === SIG_DFL && (sigmask(sig) & SIG_KERNEL_IGNORE_MASK) !== 0)
}

/** Stop signals and SIGCONT take each other back; SIGCONT goes on with the task even where it is blocked or ignored. */
function handle_stop_signal(p: task_struct, sig: number): void {
  if ((sigmask(sig) & SIG_KERNEL_STOP_MASK) !== 0) p.pending &= ~sigmask(SIGCONT)
  else if (sig === SIGCONT) {
    p.pending &= ~SIG_KERNEL_STOP_MASK
    recalc_sigpending(p)
    wake_up_state(p, TASK_STOPPED)
  }
}

/** force_sig - to the current task, which can neither block nor ignore it. @context process @locks siglock */
export function force_sig(sig: number): void {
  const p = current()
  with_siglock(p, sighand => {
    const ka = get_action(sighand, sig)
    if ((p.blocked & sigmask(sig)) !== 0 || ka.handler === SIG_IGN) {
      set_action(sighand, sig, { ...ka, handler: SIG_DFL })
      p.blocked &= ~sigmask(sig)
    }
    p.pending |= sigmask(sig)
    recalc_sigpending(p)
  })
}

/** send_sig - to one task, which goes on if it sleeps interruptibly. @context any @locks siglock, rq.lock */
export function send_sig(sig: number, p: task_struct): void {
  with_siglock(p, sighand => {
    handle_stop_signal(p, sig)
    if (sig_ignored(sighand, p, sig) || (p.pending & sigmask(sig)) !== 0) return
    p.pending |= sigmask(sig)
    if ((p.blocked & sigmask(sig)) !== 0) return
    store(p.addr + SIGPENDING, 1) // before the state of the task is looked at
    wake_up_state(p, sig === SIGKILL ? TASK_INTERRUPTIBLE | TASK_STOPPED : TASK_INTERRUPTIBLE)
  })
}

/** signal_pending - should an interruptible sleep end? */
export function signal_pending(p: task_struct): boolean {
  return load(p.addr + SIGPENDING) !== 0
}

// ---- taking ---------------------------------------------------------------------------------------------------------

/** The lowest pending signal that is not in `mask`; 0: none. @locks siglock is held */
function next_signal(p: task_struct, mask: number): number {
  const ready = p.pending & ~mask
  if (ready === 0) return 0
  const lowest = ready & -ready
  p.pending &= ~lowest
  recalc_sigpending(p)
  return 32 - Math.clz32(lowest)
}

/** dequeue_signal - the lowest signal that is pending and not in `mask`, which is then no longer; 0: none. @context process */
export function dequeue_signal(mask = current().blocked): number {
  const p = current()
  return with_siglock(p, () => next_signal(p, mask))
}

/**
 * dequeue_action - the next signal, and what is to be done about it; SA_RESETHAND has been seen to. `stop`: called under siglock
 * for a signal that stops, so that SIGCONT comes before or after. @context process @returns null: no signal
 */
export function dequeue_action(stop: () => void): { sig: number; ka: k_sigaction } | null {
  const p = current()
  return with_siglock(p, sighand => {
    const sig = next_signal(p, p.blocked)
    if (sig === 0) return null
    const ka = get_action(sighand, sig)
    if (ka.handler > SIG_IGN && (ka.flags & SA_RESETHAND) !== 0) set_action(sighand, sig, { ...ka, handler: SIG_DFL })
    if (ka.handler === SIG_DFL && sig === SIGSTOP) stop()
    return { sig, ka }
  })
}

/** set_blocked - the current task lets all other signals through. @context process @returns what was blocked before */
export function set_blocked(mask: number): number {
  const p = current()
  return with_siglock(p, () => {
    const before = p.blocked
    p.blocked = mask & ~SIG_KERNEL_ONLY_MASK
    recalc_sigpending(p)
    return before
  })
}
/** pending_blocked - signals that wait to be let through. @context process */
export function pending_blocked(): number {
  const p = current()
  return with_siglock(p, () => p.pending & p.blocked)
}

/**
 * do_sigaction - what is done about a signal from now on, null: no change. A signal that is ignored from now on is no longer
 * pending. @context process @returns what was done before, or null: a signal came first, the call begins anew
 */
export function do_sigaction(sig: number, act: k_sigaction | null): k_sigaction | null {
  const p = current()
  return with_siglock(p, sighand => {
    if (signal_pending(p)) return null
    const before = get_action(sighand, sig)
    if (act === null) return before
    set_action(sighand, sig, { ...act, mask: act.mask & ~SIG_KERNEL_ONLY_MASK })
    if (act.handler === SIG_IGN || (act.handler === SIG_DFL && (sigmask(sig) & SIG_KERNEL_IGNORE_MASK) !== 0)) {
      p.pending &= ~sigmask(sig)
      recalc_sigpending(p)
    }
    return before
  })
}

// ---- processes ------------------------------------------------------------------------------------------------------

/** sighand_alloc - all SIG_DFL, or null: no memory. @returns owned handlers */
export function sighand_alloc(): sighand_struct | null {
  const sighand = kmem_cache_alloc(sighand_cache)
  if (sighand === null) return null
  i32.fill(0, sighand.$w, sighand.$w + (SIGHAND.size >> 2))
  spin_lock_init(sighand.siglock)
  sighand.count = 1
  return sighand
}
/** sighand_get - of a process, for one more thread of it. */
export function sighand_get(p: task_struct): sighand_struct {
  const sighand = SIGHAND.ref(p.sighand)
  refcount_inc(sighand.addr)
  return sighand
}
/** sighand_put - @consumes a reference */
export function sighand_put(sighand: sighand_struct): void {
  if (refcount_dec_and_test(sighand.addr)) kmem_cache_free(sighand_cache, sighand)
}

/** attach_pid - from here on kill finds it. @context process */
export function attach_pid(p: task_struct): void {
  write_lock_bh(list.lock)
  list_add_tail(p.tasks, list.tasks)
  write_unlock_bh(list.lock)
}
/** exit_sighand - a process has ended: nobody finds it, nobody sends it anything. @context the task, or a halted machine */
export function exit_sighand(p: task_struct): void {
  if (p.sighand === 0) return
  write_lock_bh(list.lock)
  list_del_init(p.tasks)
  write_unlock_bh(list.lock)
  const sighand = SIGHAND.ref(p.sighand)
  i32[p.$w + (TASK.offset('sighand') >> 2)] = 0
  sighand_put(sighand)
}

/** for_each_process - `f` must not sleep. @context process, softirq @locks tasklist_lock */
export function for_each_process(f: (p: task_struct) => void): void {
  read_lock_bh(list.lock)
  const head = list.tasks.addr
  for (let at = i32[head >> 2]; at !== head; at = i32[at >> 2]) f(TASK.container_of('tasks', at))
  read_unlock_bh(list.lock)
}

/** signals_init - @context boot, CPU 0 */
export function signals_init(): void {
  rwlock_init(list.lock)
  INIT_LIST_HEAD(list.tasks)
  spin_lock_init(init_sighand.siglock)
}
