/**
 * open.ts - the system calls of paths: open, mknod (fs/open.c, fs/namei.c of 2.6.11), and pipe, which needs none. There is no disk:
 * paths lead to FIFOs and Unix sockets, and a file that is made for writing is kept by the host of the machine.
 */
import { RAM } from '../arch/ram.js'
import { host_create } from '../drivers/char/console.js'
import { fifo_open } from '../fs/fifo.js'
import {
  FILE,
  fd_install,
  type file,
  get_empty_filp,
  get_unused_fd,
  put_unused_fd,
  release_unused,
} from '../fs/file.js'
import { PIPE, pipe_fops_sym, pipe_get, type pipe_inode, pipe_new, pipe_put } from '../fs/pipe.js'
import {
  EACCES,
  EEXIST,
  EFAULT,
  EINVAL,
  EISDIR,
  ENAMETOOLONG,
  ENFILE,
  ENOENT,
  ENOMEM,
  ENXIO,
  EPERM,
} from '../lib/errno.js'
import { O_ACCMODE, O_CREAT, O_EXCL, O_NOCTTY, O_RDONLY, O_TRUNC, O_WRONLY } from '../lib/fcntl.js'
import type { Call } from '../net/core/socket.js'
import { path_enter, path_exists, path_lookup } from '../net/unix/unix_table.js'
import { copy_from_user, put_user, task_kstack } from '../sched/mm.js'
import { current } from '../sched/sched.js'

export { FIONREAD, PIPE_BUF } from '../fs/pipe.js'
export { FASYNC, O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY } from '../lib/fcntl.js'

const u8 = RAM.u8
/** Bytes of the longest path, its last 0 included; and of the longest that the table of paths holds. */
const PATH_MAX = 256
const NAME_MAX = 108

export const S_IFMT = 0o170000
export const S_IFSOCK = 0o140000
export const S_IFREG = 0o100000
export const S_IFBLK = 0o060000
export const S_IFDIR = 0o040000
export const S_IFCHR = 0o020000
export const S_IFIFO = 0o010000
/** What a process that never said otherwise takes away of a mode. */
const UMASK = 0o022

/** A path on the kernel stack, its last 0 included. */
interface name {
  at: number
  len: number
}
/** getname - @context process @returns the path, or -EFAULT, -ENOENT: it is empty, -ENAMETOOLONG */
export function getname(path: number): name | number {
  const at = task_kstack(current()).words
  const missing = copy_from_user(at, path, PATH_MAX)
  const end = u8.subarray(at, at + PATH_MAX - missing).indexOf(0)
  if (end < 0) return missing > 0 ? -EFAULT : -ENAMETOOLONG
  return end === 0 ? -ENOENT : { at, len: end + 1 }
}

// ---- mknod ----------------------------------------------------------------------------------------------------------

/** @consumes nothing of the caller's @returns 0, -EEXIST, -ENOSPC, -ENOMEM */
function mkfifo(path: name, mode: number): number {
  if (path_exists(path.at, path.len)) return -EEXIST
  const pipe = pipe_new(current().uid, mode & 0o777 & ~UMASK)
  if (pipe === null) return -ENOMEM
  const err = path_enter(path.at, path.len, pipe.addr)
  if (err !== 0) pipe_put(pipe)
  return err
}

/** sys_mknod - FIFOs and sockets that nobody is bound to. @returns 0, -EEXIST, -EPERM, -EACCES, -EINVAL, -EFAULT, ... */
export function sys_mknod(filename: number, mode: number): number {
  const type = mode & S_IFMT
  if (type === S_IFDIR) return -EPERM
  const path = getname(filename)
  if (typeof path === 'number') return path
  if (path.len > NAME_MAX) return -ENAMETOOLONG
  switch (type) {
    case S_IFIFO:
      return mkfifo(path, mode)
    case S_IFSOCK:
      return path_enter(path.at, path.len, 0)
    case 0:
    case S_IFREG:
      return path_exists(path.at, path.len) ? -EEXIST : -EACCES // no file system makes them
    case S_IFCHR:
    case S_IFBLK:
      return path_exists(path.at, path.len) ? -EEXIST : -EPERM
    default:
      return -EINVAL
  }
}

// ---- open -----------------------------------------------------------------------------------------------------------

/** The owner by the first digit of the mode, others by the last; root may do all. */
function permission(pipe: pipe_inode, flags: number): number {
  const me = current().uid
  if (me === 0) return 0
  const bits = me === pipe.uid ? (pipe.mode >> 6) & 7 : pipe.mode & 7
  const wants = { [O_RDONLY]: 4, [O_WRONLY]: 2 }[flags & O_ACCMODE] ?? 6
  return (bits & wants) === wants ? 0 : -EACCES
}

/** An end of this FIFO. @consumes a reference of pipe @returns address of the owned file, -errno */
function* open_fifo(pipe: pipe_inode, flags: number): Call {
  const denied = permission(pipe, flags)
  const f_flags = flags & ~(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC)
  const filp = denied === 0 ? get_empty_filp(pipe_fops_sym, pipe.addr, f_flags) : null
  if (filp !== null) filp.f_count = 0 // nobody has it yet
  const err = denied !== 0 ? denied : filp === null ? -ENFILE : yield* fifo_open(filp)
  if (filp !== null && err === 0) {
    filp.f_count = 1
    return filp.addr
  }
  if (filp !== null) release_unused(filp)
  pipe_put(pipe)
  return err
}

/** A file that is not there yet: the host keeps it, and it can only be written. @returns as open_fifo */
function* open_new(filename: number, path: name, flags: number): Call {
  if ((flags & O_CREAT) === 0) return -ENOENT
  if (u8[path.at + path.len - 2] === 0x2f) return -EISDIR
  if ((flags & O_ACCMODE) !== O_WRONLY) return -EACCES
  const made = yield* host_create(filename, path.len - 1)
  return made === 0 ? -ENFILE : made
}

function* filp_open(filename: number, path: name, flags: number): Call {
  const found = path_lookup(path.at, path.len, node => {
    pipe_get(PIPE.ref(node))
  })
  if (found === -ENOENT) return yield* open_new(filename, path, flags)
  if ((flags & (O_CREAT | O_EXCL)) === (O_CREAT | O_EXCL)) {
    if (found > 0) pipe_put(PIPE.ref(found))
    return -EEXIST
  }
  return found === -ENXIO ? found : yield* open_fifo(PIPE.ref(found), flags)
}

/**
 * sys_open - `mode` is the host's affair. @returns descriptor, -EFAULT, -ENOENT, -ENAMETOOLONG, -EMFILE, -EEXIST, -EACCES, -ENXIO: a
 * socket, or a FIFO that nobody reads; -ENFILE, -ERESTARTSYS, -EINVAL
 */
export function* sys_open(filename: number, flags: number, _mode: number): Call {
  const path = getname(filename)
  if (typeof path === 'number') return path
  const fd = get_unused_fd()
  if (fd < 0) return fd
  const opened = yield* filp_open(filename, path, flags)
  if (opened > 0) fd_install(fd, FILE.ref(opened))
  else put_unused_fd(fd)
  return opened > 0 ? fd : opened
}

// ---- pipe -----------------------------------------------------------------------------------------------------------

/** Two files for a pipe that nobody has yet. @returns them, or null: the machine has no more */
function pipe_files(): [reader: file, writer: file] | null {
  const pipe = pipe_new()
  if (pipe === null) return null
  const reader = get_empty_filp(pipe_fops_sym, pipe.addr, O_RDONLY)
  const writer = reader === null ? null : get_empty_filp(pipe_fops_sym, pipe.addr, O_WRONLY)
  if (reader !== null && writer !== null) {
    pipe_get(pipe)
    pipe.readers = 1
    pipe.writers = 1
    return [reader, writer]
  }
  if (reader !== null) release_unused(reader)
  pipe_put(pipe)
  return null
}
function forget_pipe([reader, writer]: [file, file]): void {
  const pipe = PIPE.ref(reader.private_data)
  release_unused(reader)
  release_unused(writer)
  pipe_put(pipe)
  pipe_put(pipe)
}

/** sys_pipe - the end to read from, and the one to write to; they stay open if they cannot be told. @returns 0, -ENFILE, -EMFILE, -EFAULT */
export function sys_pipe(fildes: number): number {
  const files = pipe_files()
  if (files === null) return -ENFILE
  const fd0 = get_unused_fd()
  const fd1 = fd0 < 0 ? fd0 : get_unused_fd()
  if (fd1 < 0) {
    if (fd0 >= 0) put_unused_fd(fd0)
    forget_pipe(files)
    return fd1
  }
  fd_install(fd0, files[0])
  fd_install(fd1, files[1])
  return put_user(fd0, fildes) !== 0 || put_user(fd1, fildes + 4) !== 0 ? -EFAULT : 0
}
