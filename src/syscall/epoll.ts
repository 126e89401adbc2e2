/** epoll.ts - the system calls of epoll (fs/eventpoll.c of 2.6.11), in the order of its checks. */
import {
  EPOLL_CTL_DEL,
  ep_alloc,
  ep_control,
  ep_forget,
  type epoll_event,
  eventpoll_fops_sym,
} from '../fs/eventpoll.js'
import { EVENTPOLL } from '../fs/eventpoll_types.js'
import { EVENT_SIZE, ep_poll, ep_timeout } from '../fs/eventpoll_wait.js'
import {
  fd_install,
  fget,
  type file,
  file_op,
  fput,
  get_empty_filp,
  get_unused_fd,
  release_unused,
} from '../fs/file.js'
import { EBADF, EFAULT, EINVAL, ENFILE, ENOMEM, EPERM } from '../lib/errno.js'
import { O_RDONLY } from '../lib/fcntl.js'
import type { Call } from '../net/core/socket.js'
import { access_ok, get_user } from '../sched/mm.js'
import { POLLERR, POLLHUP } from '../sched/poll.js'
import { down_write, up_write } from '../sched/rwsem.js'

export { EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLET, EPOLLONESHOT } from '../fs/eventpoll.js'

const EP_MAX_EVENTS = Math.floor(0x7fffffff / EVENT_SIZE)

/** sys_epoll_create - `size` is of no use, but more than 0. @returns descriptor, -EINVAL, -ENOMEM, -ENFILE, -EMFILE */
export function sys_epoll_create(size: number): number {
  if (size <= 0) return -EINVAL
  const ep = ep_alloc()
  if (ep === null) return -ENOMEM
  const filp = get_empty_filp(eventpoll_fops_sym, ep.addr, O_RDONLY)
  const fd = filp === null ? -ENFILE : get_unused_fd()
  if (filp !== null && fd >= 0) {
    fd_install(fd, filp)
    return fd
  }
  if (filp !== null) release_unused(filp)
  ep_forget(ep)
  return fd
}

/** The event at a program's address; errors are told in any case. @returns null: it is not there */
function get_event(at: number): epoll_event | null {
  const [events, lo, hi] = [get_user(at), get_user(at + 4), get_user(at + 8)]
  if (events === null || lo === null || hi === null) return null
  return { events: events | POLLERR | POLLHUP, data: [lo, hi] }
}
const NO_EVENT: epoll_event = { events: 0, data: [0, 0] }

function* ep_ctl(filp: file, op: number, tfile: file, fd: number, event: epoll_event): Call {
  if (file_op(tfile).poll === undefined) return -EPERM
  if (filp === tfile || filp.f_op !== eventpoll_fops_sym) return -EINVAL
  const ep = EVENTPOLL.ref(filp.private_data)
  yield* down_write(ep.sem)
  const ret = ep_control(ep, op, tfile, fd, event)
  up_write(ep.sem)
  return ret
}

/** sys_epoll_ctl - @returns 0, -EFAULT, -EBADF, -EPERM: `fd` cannot be waited for, -EINVAL, -EEXIST, -ENOENT, -ENOMEM */
export function* sys_epoll_ctl(epfd: number, op: number, fd: number, at: number): Call {
  const event = op === EPOLL_CTL_DEL ? NO_EVENT : get_event(at)
  if (event === null) return -EFAULT
  const filp = fget(epfd)
  if (filp === null) return -EBADF
  const tfile = fget(fd)
  const ret = tfile === null ? -EBADF : yield* ep_ctl(filp, op, tfile, fd, event)
  if (tfile !== null) yield* fput(tfile)
  yield* fput(filp)
  return ret
}

/** sys_epoll_wait - @returns events, 0: the time is over, -EINVAL, -EFAULT, -EBADF, -EINTR */
export function* sys_epoll_wait(epfd: number, events: number, maxevents: number, timeout: number): Call {
  if (maxevents <= 0 || maxevents > EP_MAX_EVENTS) return -EINVAL
  if (!access_ok(events, maxevents * EVENT_SIZE)) return -EFAULT
  const filp = fget(epfd)
  if (filp === null) return -EBADF
  const ep = filp.f_op === eventpoll_fops_sym ? EVENTPOLL.ref(filp.private_data) : null
  const ret = ep === null ? -EINVAL : yield* ep_poll(ep, events, maxevents, ep_timeout(timeout))
  yield* fput(filp)
  return ret
}
