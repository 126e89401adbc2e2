/**
 * libsignal.ts - what programs need for signals (signal.h, and setitimer of sys/time.h). Sets are words, bit 0 for signal 1.
 *
 * A handler may be a generator function with what it sees of the program, as a handler in C sees its variables: the kernel gets
 * the address of one that finds it here. Such a handler is one thread's; a process of several threads gives a symbol.
 */
import { type Sym, symbol } from '../abi/symbol.js'
import { current, sched_hooks } from '../sched/sched.js'
import { SA_RESTART, type sighandler_t, sigmask } from '../sched/signal.js'
import {
  __NR_exit,
  __NR_getitimer,
  __NR_kill,
  __NR_pause,
  __NR_rt_sigaction,
  __NR_rt_sigpending,
  __NR_rt_sigprocmask,
  __NR_rt_sigsuspend,
  __NR_rt_sigtimedwait,
  __NR_setitimer,
} from '../syscall/table.js'
import { getpid, type Libc, load32, syscall, with_words } from './libc.js'

export {
  NSIG,
  SA_NODEFER,
  SA_RESETHAND,
  SA_RESTART,
  SIG_DFL,
  SIG_IGN,
  SIGABRT,
  SIGALRM,
  SIGCHLD,
  SIGCONT,
  SIGHUP,
  SIGINT,
  SIGIO,
  SIGKILL,
  SIGPIPE,
  SIGQUIT,
  SIGSEGV,
  SIGSTOP,
  SIGTERM,
  SIGTSTP,
  SIGURG,
  SIGUSR1,
  SIGUSR2,
  SIGVTALRM,
  SIGWINCH,
  sigmask,
} from '../sched/signal.js'
export { SIG_BLOCK, SIG_SETMASK, SIG_UNBLOCK } from '../syscall/signal.js'

const SIGSET_SIZE = 8

/** The handlers of this thread's programs, by task and signal. */
const handlers = new Map<number, Map<number, sighandler_t>>()
const exit_before = sched_hooks.exit
sched_hooks.exit = p => {
  exit_before(p)
  handlers.delete(p.addr)
}
function* trampoline(sig: number): Generator<void, void, void> {
  const handler = handlers.get(current().addr)?.get(sig)
  if (handler === undefined) throw new Error(`signal ${sig}: its handler is another thread's`)
  yield* handler(sig)
}
const trampoline_sym: Sym<sighandler_t> = symbol('signal_trampoline', trampoline)

function address_of(sig: number, handler: sighandler_t | number): number {
  if (typeof handler === 'number') return handler
  const p = current()
  const mine = handlers.get(p.addr) ?? new Map<number, sighandler_t>()
  handlers.set(p.addr, mine.set(sig, handler))
  return trampoline_sym
}

/** sigaction - a generator function, a symbol, SIG_DFL or SIG_IGN; SA_*; what is blocked meanwhile. @returns 0, -EINVAL */
export function sigaction(sig: number, handler: sighandler_t | number, flags = 0, mask = 0): Libc {
  return with_words([address_of(sig, handler), flags, 0, mask, 0], at =>
    syscall(__NR_rt_sigaction, sig, at, 0, SIGSET_SIZE),
  )
}
/** signal - as glibc has it: calls that it interrupts begin anew. */
export function signal(sig: number, handler: sighandler_t | number): Libc {
  return sigaction(sig, handler, SA_RESTART)
}
/** sigprocmask - @returns 0, -EINVAL */
export function sigprocmask(how: number, set: number): Libc {
  return with_words([set, 0], at => syscall(__NR_rt_sigprocmask, how, at, 0, SIGSET_SIZE))
}
/** sigblocked - the set that is blocked. */
export function sigblocked(): Libc {
  return with_words([0, 0], function* (at) {
    yield* syscall(__NR_rt_sigprocmask, 0, 0, at, SIGSET_SIZE)
    return load32(at)
  })
}
/** sigpending - the set of those that are pending and blocked. */
export function sigpending(): Libc {
  return with_words([0, 0], function* (at) {
    yield* syscall(__NR_rt_sigpending, at, SIGSET_SIZE)
    return load32(at)
  })
}
/** sigsuspend - with this set blocked, until a handler has run. @returns -EINTR */
export function sigsuspend(set: number): Libc {
  return with_words([set, 0], at => syscall(__NR_rt_sigsuspend, at, SIGSET_SIZE))
}
/** sigtimedwait - one of the set, within so many us. @returns the signal, -EAGAIN, -EINTR */
export function sigtimedwait(set: number, us: number): Libc {
  return with_words([set, 0, Math.floor(us / 1e6), (us % 1e6) * 1000], at =>
    syscall(__NR_rt_sigtimedwait, at, 0, at + 8, SIGSET_SIZE),
  )
}
export const pause = (): Libc => syscall(__NR_pause)
export const kill = (pid: number, sig: number): Libc => syscall(__NR_kill, pid, sig)
export function* raise(sig: number): Libc {
  return yield* kill(yield* getpid(), sig)
}
/** exit - it does not return. */
export const exit = (code: number): Libc => syscall(__NR_exit, code)

const MICRO = 1e6
/** setitimer - us; value 0 stops it. @returns 0, -EINVAL */
export function setitimer(which: number, value: number, interval = 0): Libc {
  return with_words([Math.floor(interval / MICRO), interval % MICRO, Math.floor(value / MICRO), value % MICRO], at =>
    syscall(__NR_setitimer, which, at, 0),
  )
}
/** getitimer - us that are left, or a negative errno. */
export function getitimer(which: number): Libc {
  return with_words([0, 0, 0, 0], function* (at) {
    const err = yield* syscall(__NR_getitimer, which, at)
    return err < 0 ? err : load32(at + 8) * MICRO + load32(at + 12)
  })
}

/**
 * on_signals - handlers that only note which signal came; the calls that they interrupt return EINTR.
 * @returns a function that tells the signal, 0: none yet
 */
export function* on_signals(...sigs: number[]): Generator<void, () => number, void> {
  const came = { sig: 0 }
  for (const sig of sigs)
    yield* sigaction(sig, function* () {
      came.sig = sig
    })
  return () => came.sig
}
/** A set of signals. */
export const all_of = (...sigs: number[]): number => sigs.reduce((set, sig) => set | sigmask(sig), 0)
export type { sighandler_t }
