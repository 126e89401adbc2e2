/**
 * table.ts - the system calls by number, those of i386. The calls of sockets go through number 102 and a number of their own
 * behind it, as in 2.6.11, or by the numbers that later kernels gave each of them.
 */
import { sys_poll, sys_select } from '../fs/select.js'
import { EFAULT, EINVAL, ENOSYS, ERESTART_RESTARTBLOCK } from '../lib/errno.js'
import type { Call } from '../net/core/socket.js'
import { get_user } from '../sched/mm.js'
import { cond_resched, current, need_resched } from '../sched/sched.js'
import { signal_pending } from '../sched/signal.js'
import { PF_SYSCALL } from '../sched/task.js'
import { sys_creat } from './creat.js'
import { is_restart, signal_return } from './do_signal.js'
import { syscall_enter, syscall_exit } from './entry.js'
import { sys_epoll_create, sys_epoll_ctl, sys_epoll_wait } from './epoll.js'
import { sys_close, sys_dup, sys_dup2, sys_fcntl, sys_ioctl, sys_read, sys_readv, sys_write, sys_writev } from './fs.js'
import { sys_mknod, sys_open, sys_pipe } from './open.js'
import {
  sys_alarm,
  sys_getitimer,
  sys_getpid,
  sys_gettimeofday,
  sys_getuid,
  sys_nanosleep,
  sys_restart_syscall,
  sys_sched_yield,
  sys_setitimer,
  sys_setuid,
} from './process.js'
import { sys_getpriority, sys_getrusage, sys_nice, sys_setpriority, sys_times } from './resource.js'
import {
  sys_exit,
  sys_kill,
  sys_pause,
  sys_rt_sigaction,
  sys_rt_sigpending,
  sys_rt_sigprocmask,
  sys_rt_sigsuspend,
  sys_rt_sigtimedwait,
} from './signal.js'
import {
  sys_accept,
  sys_bind,
  sys_connect,
  sys_getpeername,
  sys_getsockname,
  sys_getsockopt,
  sys_listen,
  sys_recv,
  sys_recvfrom,
  sys_recvmsg,
  sys_send,
  sys_sendmsg,
  sys_sendto,
  sys_setsockopt,
  sys_shutdown,
  sys_socket,
  sys_socketpair,
} from './socket.js'
import { sys_unlink } from './unlink.js'

/** A call returns its value or negative errno at once, or is a generator because it may sleep. */
type SystemCall = (a: number, b: number, c: number, d: number, e: number, f: number) => number | Call

export const __NR_restart_syscall = 0
export const __NR_exit = 1
export const __NR_read = 3
export const __NR_write = 4
export const __NR_open = 5
export const __NR_close = 6
export const __NR_creat = 8
export const __NR_unlink = 10
export const __NR_mknod = 14
export const __NR_getpid = 20
export const __NR_setuid = 23
export const __NR_getuid = 24
export const __NR_alarm = 27
export const __NR_pause = 29
export const __NR_nice = 34
export const __NR_kill = 37
export const __NR_dup = 41
export const __NR_pipe = 42
export const __NR_times = 43
export const __NR_ioctl = 54
export const __NR_fcntl = 55
export const __NR_dup2 = 63
export const __NR_getrusage = 77
export const __NR_gettimeofday = 78
export const __NR_getpriority = 96
export const __NR_setpriority = 97
export const __NR_setitimer = 104
export const __NR_getitimer = 105
export const __NR_select = 142
export const __NR_poll = 168
export const __NR_socketcall = 102
export const __NR_readv = 145
export const __NR_writev = 146
export const __NR_sched_yield = 158
export const __NR_nanosleep = 162
export const __NR_rt_sigaction = 174
export const __NR_rt_sigprocmask = 175
export const __NR_rt_sigpending = 176
export const __NR_rt_sigtimedwait = 177
export const __NR_rt_sigsuspend = 179
export const __NR_epoll_create = 254
export const __NR_epoll_ctl = 255
export const __NR_epoll_wait = 256
export const __NR_socket = 359
export const __NR_socketpair = 360
export const __NR_bind = 361
export const __NR_connect = 362
export const __NR_listen = 363
export const __NR_accept = 364
export const __NR_getsockopt = 365
export const __NR_setsockopt = 366
export const __NR_getsockname = 367
export const __NR_getpeername = 368
export const __NR_sendto = 369
export const __NR_sendmsg = 370
export const __NR_recvfrom = 371
export const __NR_recvmsg = 372
export const __NR_shutdown = 373

/** The calls behind number 102: function and number of arguments, by SYS_SOCKET and so on. */
const socketcalls: readonly (readonly [SystemCall, number])[] = [
  [() => -EINVAL, 0],
  [sys_socket, 3],
  [sys_bind, 3],
  [sys_connect, 3],
  [sys_listen, 2],
  [sys_accept, 3],
  [sys_getsockname, 3],
  [sys_getpeername, 3],
  [sys_socketpair, 4],
  [sys_send, 4],
  [sys_recv, 4],
  [sys_sendto, 6],
  [sys_recvfrom, 6],
  [sys_shutdown, 2],
  [sys_setsockopt, 5],
  [sys_getsockopt, 5],
  [sys_sendmsg, 3],
  [sys_recvmsg, 3],
]

/** sys_socketcall - the arguments lie in the program's memory. @returns -EINVAL, -EFAULT, or what the call says */
function sys_socketcall(which: number, args: number): number | Call {
  const entry = socketcalls[which]
  if (which < 1 || entry === undefined) return -EINVAL
  const [call, count] = entry
  const a = [0, 0, 0, 0, 0, 0]
  for (let k = 0; k < count; k++) {
    const word = get_user(args + k * 4)
    if (word === null) return -EFAULT
    a[k] = word
  }
  return call(a[0]!, a[1]!, a[2]!, a[3]!, a[4]!, a[5]!)
}

const sys_call_table: Readonly<Record<number, SystemCall | undefined>> = {
  [__NR_restart_syscall]: sys_restart_syscall,
  [__NR_exit]: sys_exit,
  [__NR_read]: sys_read,
  [__NR_write]: sys_write,
  [__NR_open]: sys_open,
  [__NR_close]: sys_close,
  [__NR_creat]: sys_creat,
  [__NR_unlink]: sys_unlink,
  [__NR_mknod]: sys_mknod,
  [__NR_getpid]: sys_getpid,
  [__NR_setuid]: sys_setuid,
  [__NR_getuid]: sys_getuid,
  [__NR_alarm]: sys_alarm,
  [__NR_dup]: sys_dup,
  [__NR_pipe]: sys_pipe,
  [__NR_ioctl]: sys_ioctl,
  [__NR_fcntl]: sys_fcntl,
  [__NR_dup2]: sys_dup2,
  [__NR_pause]: sys_pause,
  [__NR_nice]: sys_nice,
  [__NR_kill]: sys_kill,
  [__NR_times]: sys_times,
  [__NR_getrusage]: sys_getrusage,
  [__NR_getpriority]: sys_getpriority,
  [__NR_setpriority]: sys_setpriority,
  [__NR_setitimer]: sys_setitimer,
  [__NR_getitimer]: sys_getitimer,
  [__NR_rt_sigaction]: sys_rt_sigaction,
  [__NR_rt_sigprocmask]: sys_rt_sigprocmask,
  [__NR_rt_sigpending]: sys_rt_sigpending,
  [__NR_rt_sigtimedwait]: sys_rt_sigtimedwait,
  [__NR_rt_sigsuspend]: sys_rt_sigsuspend,
  [__NR_gettimeofday]: sys_gettimeofday,
  [__NR_select]: sys_select,
  [__NR_poll]: sys_poll,
  [__NR_socketcall]: sys_socketcall,
  [__NR_readv]: sys_readv,
  [__NR_writev]: sys_writev,
  [__NR_sched_yield]: sys_sched_yield,
  [__NR_nanosleep]: sys_nanosleep,
  [__NR_epoll_create]: sys_epoll_create,
  [__NR_epoll_ctl]: sys_epoll_ctl,
  [__NR_epoll_wait]: sys_epoll_wait,
  [__NR_socket]: sys_socket,
  [__NR_socketpair]: sys_socketpair,
  [__NR_bind]: sys_bind,
  [__NR_connect]: sys_connect,
  [__NR_listen]: sys_listen,
  [__NR_accept]: sys_accept,
  [__NR_getsockopt]: sys_getsockopt,
  [__NR_setsockopt]: sys_setsockopt,
  [__NR_getsockname]: sys_getsockname,
  [__NR_getpeername]: sys_getpeername,
  [__NR_sendto]: sys_sendto,
  [__NR_sendmsg]: sys_sendmsg,
  [__NR_recvfrom]: sys_recvfrom,
  [__NR_recvmsg]: sys_recvmsg,
  [__NR_shutdown]: sys_shutdown,
}

/**
 * syscall - into the kernel, and back: signals that came meanwhile are seen to on the way. @context process, in user mode
 * @returns value, or negative errno
 */
export function* syscall(nr: number, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0): Call {
  syscall_enter()
  const p = current()
  p.flags |= PF_SYSCALL
  let call = sys_call_table[nr]
  for (;;) {
    let ret = call === undefined ? -ENOSYS : call(a, b, c, d, e, f)
    if (typeof ret !== 'number') ret = yield* ret
    if (need_resched()) yield* cond_resched()
    if (signal_pending(p) || is_restart(ret)) ret = yield* signal_return(ret)
    if (is_restart(ret)) {
      if (ret === -ERESTART_RESTARTBLOCK) call = sys_restart_syscall
      syscall_exit()
      syscall_enter() // the program executes the instruction once more
      continue
    }
    p.flags &= ~PF_SYSCALL
    syscall_exit()
    return ret
  }
}
