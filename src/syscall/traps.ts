/**
 * traps.ts - what a program did wrong by itself, between its calls: an address that it does not have, or an exception that it does not
 * catch. The program ends by a signal; the machine goes on. What is thrown in the kernel is no program's mistake.
 */
import { call_trace } from '../arch/cpu.js'
import { printk } from '../sched/printk.js'
import { current, task_name } from '../sched/sched.js'
import { force_sig, SIGABRT, SIGSEGV } from '../sched/signal.js'
import { PF_SYSCALL } from '../sched/task.js'
import { preempt_count } from '../sync/preempt.js'
import { do_signal, KILLED_BY, task_exit } from './do_signal.js'
import { syscall_enter } from './entry.js'

/** A load or store of a program's at an address that it does not have. */
export class page_fault extends Error {
  override name = 'page_fault'
  constructor(
    /** The address, unsigned. */
    readonly cr2: number,
  ) {
    super(`segmentation fault at 0x${cr2.toString(16)}`)
  }
}

export const trap_hooks = {
  /** The words of the program's runtime about what it does not catch. */
  uncaught: function* (_error: Error): Generator<void, void, void> {},
}

/** Exceptions of the language itself; all others that may pass here are the machine's. */
const OF_PROGRAMS: readonly unknown[] = [
  Error,
  TypeError,
  RangeError,
  ReferenceError,
  SyntaxError,
  EvalError,
  URIError,
  page_fault,
]

/** The signal that an exception stands for, or 0: it is not the program's. */
function trap_signal(error: unknown): number {
  if ((current().flags & PF_SYSCALL) !== 0 || preempt_count() !== 0) return 0
  if (!(error instanceof Error)) return 0
  if (error instanceof page_fault) return SIGSEGV
  return OF_PROGRAMS.includes(error.constructor) ? SIGABRT : 0
}

/**
 * die_by - a program ends by what it threw; a handler of the signal runs first. @context process, in user mode
 * @returns its exit code; throws what is not the program's
 */
export function* die_by(error: unknown): Generator<void, number, void> {
  if (error instanceof task_exit) return error.code
  const sig = trap_signal(error)
  if (sig === 0) throw error
  const name = task_name(current()).replace(/ \((\d+)\)$/, '[$1]')
  const [at = '?'] = call_trace(error as Error)
  printk(6, `${name}: ${(error as Error).message.replaceAll('\n', ' ')} ${at}`)
  try {
    yield* trap_hooks.uncaught(error as Error)
    syscall_enter()
    force_sig(sig)
    yield* do_signal()
  } catch (second) {
    if (second instanceof task_exit) return second.code
    if (trap_signal(second) === 0) throw second
  }
  return KILLED_BY + sig // a handler returns to where the program fails again
}
