/** entry.ts - how a process enters the kernel and leaves it: what every system call pays, and whose time it is. */
import { cost } from '../arch/cost.js'
import { enter_context, SYSTEM, tick, USER } from '../arch/cpu.js'
import { current } from '../sched/sched.js'

const COST_ENTER = cost('syscall_entry_exit')

/** syscall_enter - user mode ends here; interrupts that wait are taken: a program that only calls must not shut them out. @context process */
export function syscall_enter(): void {
  enter_context(SYSTEM, current().pid)
  tick(COST_ENTER)
}

/** syscall_exit - back to user mode. @context process */
export function syscall_exit(): void {
  enter_context(USER, current().pid)
}

/** user_work - what a program computes between its system calls. @context process */
export function user_work(id: number): void {
  tick(id)
}
