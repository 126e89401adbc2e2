/** libc_file.ts - what programs need of unistd.h, fcntl.h, sys/stat.h, sys/uio.h and sys/epoll.h for descriptors. */
import {
  __NR_epoll_create,
  __NR_epoll_ctl,
  __NR_epoll_wait,
  __NR_mknod,
  __NR_open,
  __NR_pipe,
  __NR_readv,
  __NR_writev,
} from '../syscall/table.js'
import { give_back, type Libc, load32, malloc, store32, syscall } from './libc.js'

export {
  POLLERR as EPOLLERR,
  POLLHUP as EPOLLHUP,
  POLLIN as EPOLLIN,
  POLLOUT as EPOLLOUT,
} from '../sched/poll.js'
export { EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLET, EPOLLONESHOT } from '../syscall/epoll.js'
export { F_GETFL, F_GETOWN, F_GETSIG, F_SETFL, F_SETOWN, F_SETSIG, FIOASYNC } from '../syscall/fs.js'
export {
  FASYNC as O_ASYNC,
  FIONREAD,
  O_CREAT,
  O_EXCL,
  O_NONBLOCK,
  O_RDONLY,
  O_RDWR,
  O_TRUNC,
  O_WRONLY,
  PIPE_BUF,
  S_IFDIR,
  S_IFIFO,
  S_IFREG,
  S_IFSOCK,
} from '../syscall/open.js'
export { FIOGETOWN, FIOSETOWN, SIOCGPGRP, SIOCSPGRP } from '../syscall/socket.js'

/** open - `path`: a string in memory. */
export const open = (path: number, flags: number, mode = 0): Libc => syscall(__NR_open, path, flags, mode)
export const mknod = (path: number, mode: number, dev = 0): Libc => syscall(__NR_mknod, path, mode, dev)
/** mkfifo - @returns 0, -EEXIST and so on */
export const mkfifo = (path: number, mode = 0o666): Libc => mknod(path, 0o010000 | (mode & 0o7777))
/** pipe - two descriptors at `fds`: to read from, to write to. */
export const pipe = (fds: number): Libc => syscall(__NR_pipe, fds)
/** pipe_pair - the same as numbers. Throws if there is none to be had. */
export function* pipe_pair(): Generator<void, [reader: number, writer: number], void> {
  const fds = malloc(8)
  const err = yield* pipe(fds)
  if (err !== 0) throw new Error(`pipe: error ${-err}`)
  const pair: [number, number] = [load32(fds), load32(fds + 4)]
  give_back(fds)
  return pair
}
export const readv = (fd: number, vector: number, count: number): Libc => syscall(__NR_readv, fd, vector, count)
export const writev = (fd: number, vector: number, count: number): Libc => syscall(__NR_writev, fd, vector, count)
/** iovec - writes a vector in new memory. @returns its address */
export function iovec(...pieces: [base: number, len: number][]): number {
  const at = malloc(Math.max(8, pieces.length * 8))
  pieces.forEach(([base, len], k) => {
    store32(at + 8 * k, base)
    store32(at + 8 * k + 4, len)
  })
  return at
}

export const epoll_create = (size: number): Libc => syscall(__NR_epoll_create, size)
/** epoll_ctl - `event`: address of an epoll_event. */
export const epoll_ctl = (epfd: number, op: number, fd: number, event: number): Libc =>
  syscall(__NR_epoll_ctl, epfd, op, fd, event)
/** epoll_wait - ms, -1: for ever. */
export const epoll_wait = (epfd: number, events: number, max: number, ms: number): Libc =>
  syscall(__NR_epoll_wait, epfd, events, max, ms)
/** Bytes of an epoll_event. */
export const EPOLL_EVENT = 12
/** epoll_event - writes one at `addr`. @returns addr */
export function epoll_event(addr: number, events: number, data: number, data_hi = 0): number {
  store32(addr, events)
  store32(addr + 4, data)
  store32(addr + 8, data_hi)
  return addr
}
/** epoll_events - the `n` that epoll_wait wrote: events, and the low word of the data. */
export function epoll_events(addr: number, n: number): [events: number, data: number][] {
  return Array.from({ length: Math.max(0, n) }, (_, k) => [
    load32(addr + EPOLL_EVENT * k),
    load32(addr + EPOLL_EVENT * k + 4),
  ])
}
