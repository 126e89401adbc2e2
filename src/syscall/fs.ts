/** fs.ts - the system calls of descriptors: read, write, close, dup, fcntl. */
import {
  __fput,
  can_read,
  can_write,
  close_fd,
  FILE,
  fd_install,
  fget,
  type file,
  file_op,
  fput,
  fput_test,
  get_close_on_exec,
  locate_fd,
  replace_fd,
  set_close_on_exec,
  type uvector,
} from '../fs/file.js'
import { EBADF, EBUSY, EFAULT, EINVAL, ENOTTY } from '../lib/errno.js'
import { FASYNC, O_APPEND, O_NONBLOCK } from '../lib/fcntl.js'
import { NR_OPEN, UIO_MAXIOV } from '../lib/limits.js'
import type { Call } from '../net/core/socket.js'
import { f_setown } from '../sched/fasync.js'
import { access_ok, get_user } from '../sched/mm.js'
import { NSIG } from '../sched/signal.js'

export const F_DUPFD = 0
export const F_GETFD = 1
export const F_SETFD = 2
export const F_GETFL = 3
export const F_SETFL = 4
export const F_SETOWN = 8
export const F_GETOWN = 9
export const F_SETSIG = 10
export const F_GETSIG = 11
export const FD_CLOEXEC = 1
export const FIONCLEX = 0x5450
export const FIOCLEX = 0x5451
export const FIONBIO = 0x5421
export const FIOASYNC = 0x5452
/** What F_SETFL can change. */
const SETFL_MASK = O_APPEND | O_NONBLOCK | FASYNC

/** With the file of a descriptor, held for as long as the call takes. */
function* with_file(fd: number, f: (filp: file) => Call): Call {
  const filp = fget(fd)
  if (filp === null) return -EBADF
  const ret = yield* f(filp)
  if (fput_test(filp)) yield* __fput(filp)
  return ret
}

/** What read and write look at before the file does. */
function check(buf: number, count: number): number {
  if (count < 0) return -EINVAL
  return access_ok(buf, count) ? 0 : -EFAULT
}

export function sys_read(fd: number, buf: number, count: number): Call {
  return with_file(fd, function* (filp) {
    if (!can_read(filp)) return -EBADF
    return check(buf, count) || (yield* file_op(filp).read(filp, buf, count))
  })
}
export function sys_write(fd: number, buf: number, count: number): Call {
  return with_file(fd, function* (filp) {
    if (!can_write(filp)) return -EBADF
    return check(buf, count) || (yield* file_op(filp).write(filp, buf, count))
  })
}
/** The program's vector, as do_readv_writev looks at it. @returns it and its bytes; or an errno, 0: there is nothing to do */
function import_iovec(vector: number, count: number): [uvector, number] | number {
  if (count === 0) return 0
  if (count < 0 || count > UIO_MAXIOV) return -EINVAL
  const iov: [number, number][] = []
  for (let k = 0; k < count; k++) {
    const base = get_user(vector + k * 8)
    const len = get_user(vector + k * 8 + 4)
    if (base === null || len === null) return -EFAULT
    iov.push([base, len])
  }
  let total = 0
  for (const [, len] of iov) {
    total += len
    if (len < 0 || total > 0x7fffffff) return -EINVAL
  }
  return total === 0 ? 0 : [iov, total]
}
export function sys_readv(fd: number, vector: number, count: number): Call {
  return with_file(fd, function* (filp) {
    if (!can_read(filp)) return -EBADF
    const v = import_iovec(vector, count)
    return typeof v === 'number' ? v : yield* file_op(filp).readv(filp, ...v)
  })
}
export function sys_writev(fd: number, vector: number, count: number): Call {
  return with_file(fd, function* (filp) {
    if (!can_write(filp)) return -EBADF
    const v = import_iovec(vector, count)
    return typeof v === 'number' ? v : yield* file_op(filp).writev(filp, ...v)
  })
}
/** The owner is told by a signal from now on, or no more. `cannot`: what is said of a file that has no such thing. */
function* set_fasync(fd: number, filp: file, on: boolean, cannot: number): Call {
  const { fasync } = file_op(filp)
  const changes = ((filp.f_flags & FASYNC) !== 0) !== on
  const err = !changes ? 0 : fasync === undefined ? cannot : yield* fasync(fd, filp, on)
  if (err === 0) filp.f_flags = on ? filp.f_flags | FASYNC : filp.f_flags & ~FASYNC
  return err
}
/** sys_ioctl - what holds for all files; the rest is the file's. */
export function sys_ioctl(fd: number, cmd: number, arg: number): Call {
  return with_file(fd, function* (filp) {
    switch (cmd) {
      case FIOCLEX:
      case FIONCLEX:
        set_close_on_exec(fd, cmd === FIOCLEX)
        return 0
      case FIONBIO: {
        const on = get_user(arg)
        if (on === null) return -EFAULT
        filp.f_flags = on !== 0 ? filp.f_flags | O_NONBLOCK : filp.f_flags & ~O_NONBLOCK
        return 0
      }
      case FIOASYNC: {
        const on = get_user(arg)
        return on === null ? -EFAULT : yield* set_fasync(fd, filp, on !== 0, -ENOTTY)
      }
      default:
        return yield* file_op(filp).ioctl(filp, cmd, arg)
    }
  })
}

/** sys_close - the descriptor is free at once, the file when the last call with it has ended. */
export function* sys_close(fd: number): Call {
  const filp = close_fd(fd)
  if (filp === null) return -EBADF
  yield* fput(filp)
  return 0
}

/** dupfd - the lowest descriptor from `start` on for the same file. @consumes a reference of filp @returns it, -EMFILE */
function* dupfd(filp: file, start: number): Call {
  const fd = locate_fd(start)
  if (fd >= 0) fd_install(fd, filp)
  else yield* fput(filp)
  return fd
}

export function* sys_dup(fd: number): Call {
  const filp = fget(fd)
  return filp === null ? -EBADF : yield* dupfd(filp, 0)
}

/** sys_dup2 - what `newfd` was is closed. */
export function* sys_dup2(oldfd: number, newfd: number): Call {
  const filp = fget(oldfd)
  if (filp === null) return -EBADF
  yield* fput(filp)
  if (newfd === oldfd) return newfd
  if (newfd < 0 || newfd >= NR_OPEN) return -EBADF
  const before = replace_fd(oldfd, newfd, EBUSY)
  if (before < 0) return before
  if (before > 0) yield* fput(FILE.ref(before))
  return newfd
}

export function* sys_fcntl(fd: number, cmd: number, arg: number): Call {
  const filp = fget(fd)
  if (filp === null) return -EBADF
  if (cmd === F_DUPFD) {
    if (arg >= 0 && arg < NR_OPEN) return yield* dupfd(filp, arg)
    yield* fput(filp)
    return -EINVAL
  }
  const ret = cmd === F_SETFL ? yield* setfl(fd, filp, arg) : do_fcntl(fd, filp, cmd, arg)
  yield* fput(filp)
  return ret
}

function* setfl(fd: number, filp: file, arg: number): Call {
  const err = yield* set_fasync(fd, filp, (arg & FASYNC) !== 0, 0)
  if (err === 0) filp.f_flags = (arg & SETFL_MASK) | (filp.f_flags & ~SETFL_MASK)
  return err
}

function do_fcntl(fd: number, filp: file, cmd: number, arg: number): number {
  switch (cmd) {
    case F_GETFD:
      return get_close_on_exec(fd)
    case F_SETFD:
      set_close_on_exec(fd, (arg & FD_CLOEXEC) !== 0)
      return 0
    case F_GETFL:
      return filp.f_flags
    case F_SETOWN:
      f_setown(filp.f_owner, arg)
      return 0
    case F_GETOWN:
      return filp.f_owner.pid
    case F_SETSIG:
      if (arg < 0 || arg > NSIG) return -EINVAL
      filp.f_owner.signum = arg
      return 0
    case F_GETSIG:
      return filp.f_owner.signum
    default:
      return -EINVAL
  }
}
