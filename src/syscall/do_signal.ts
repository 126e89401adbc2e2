/**
 * do_signal.ts - what a signal does to a process on its way back to user mode (arch/i386/kernel/signal.c of 2.6.11): it runs
 * a handler, stops, ends, or is ignored; and the call that it interrupted fails, begins anew, or goes on.
 */
import { call } from '../abi/symbol.js'
import { EINTR, ERESTART_RESTARTBLOCK, ERESTARTNOINTR, ERESTARTSYS } from '../lib/errno.js'
import type { Call } from '../net/core/socket.js'
import { current, schedule, set_current_state } from '../sched/sched.js'
import {
  dequeue_action,
  type k_sigaction,
  SA_NODEFER,
  SA_RESTART,
  SIG_DFL,
  SIG_IGN,
  SIG_KERNEL_IGNORE_MASK,
  SIG_KERNEL_STOP_MASK,
  SIGSTOP,
  set_blocked,
  sigmask,
  signal_pending,
} from '../sched/signal.js'
import { PF_SYSCALL, TASK_STOPPED } from '../sched/task.js'
import { syscall_enter, syscall_exit } from './entry.js'

/** Thrown through the program that ends, and caught where it began: what longjmp to the bottom of the stack would be. */
export class task_exit {
  constructor(readonly code: number) {}
}
/** do_exit - the current process ends; nothing may be held. @context process */
export function do_exit(code: number): never {
  throw new task_exit(code)
}
/** The exit code of a process that a signal ended, as shells tell it. */
export const KILLED_BY = 128

/** get_signal_to_deliver - the next signal that has a handler; others are seen to. @context process @returns null: no more */
function* get_signal_to_deliver(): Generator<void, { sig: number; ka: k_sigaction } | null, void> {
  for (;;) {
    const got = dequeue_action(() => set_current_state(TASK_STOPPED))
    if (got === null) return null
    const { sig, ka } = got
    if (ka.handler === SIG_IGN) continue
    if (ka.handler !== SIG_DFL) return got
    if ((sigmask(sig) & SIG_KERNEL_IGNORE_MASK) !== 0) continue
    if (sig === SIGSTOP) {
      yield* schedule()
      continue
    }
    // The other stop signals are the terminal's: they do not stop an orphaned process group, which nobody could continue.
    if ((sigmask(sig) & SIG_KERNEL_STOP_MASK) !== 0) continue
    do_exit(KILLED_BY + sig)
  }
}

/** handle_signal - run a handler; `oldset` is blocked again afterwards. Signals that it does not block come first. */
function* handle_signal(sig: number, ka: k_sigaction, oldset: number): Generator<void, void, void> {
  const p = current()
  set_blocked(p.blocked | ka.mask | ((ka.flags & SA_NODEFER) !== 0 ? 0 : sigmask(sig)))
  if (signal_pending(p)) yield* do_signal()
  p.flags &= ~PF_SYSCALL
  syscall_exit()
  yield* call(ka.handler)(sig)
  syscall_enter() // sigreturn
  p.flags |= PF_SYSCALL
  set_blocked(oldset)
}

/**
 * do_signal - all that is pending. `oldset`: what is blocked after the first handler; sigsuspend blocks something else
 * meanwhile. @context process, in the kernel, about to leave it @returns SA_* of the first handler that ran; null: none did
 */
export function* do_signal(oldset?: number): Generator<void, number | null, void> {
  let flags: number | null = null
  for (let got = yield* get_signal_to_deliver(); got !== null; got = yield* get_signal_to_deliver()) {
    yield* handle_signal(got.sig, got.ka, flags === null ? (oldset ?? current().blocked) : current().blocked)
    flags ??= got.ka.flags
  }
  return flags
}

/**
 * signal_return - signals at the end of a call that returned `ret`. @returns what the program gets; -ERESTARTNOINTR: the call
 * begins anew; -ERESTART_RESTARTBLOCK: it goes on by the restart block
 */
export function* signal_return(ret: number): Call {
  const flags = yield* do_signal()
  if (ret > -ERESTARTSYS || ret < -ERESTART_RESTARTBLOCK) return ret
  if (ret === -ERESTARTNOINTR) return ret
  if (flags === null) return ret === -ERESTART_RESTARTBLOCK ? ret : -ERESTARTNOINTR
  if (ret === -ERESTARTSYS && (flags & SA_RESTART) !== 0) return -ERESTARTNOINTR
  return -EINTR
}
/** is_restart - has a call returned what no program may see? */
export function is_restart(ret: number): boolean {
  return ret <= -ERESTARTSYS && ret >= -ERESTART_RESTARTBLOCK
}
