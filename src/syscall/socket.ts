/**
 * socket.ts - the system calls of sockets, and sockets as files (the upper half of net/socket.c of 2.6.11). The order in which
 * arguments are looked at is the original's: programs see it by the errno.
 */

import { symbol } from '../abi/symbol.js'
import { RAM } from '../arch/ram.js'
import {
  __fput,
  FILE,
  fd_install,
  fget,
  type file,
  file_count,
  type file_operations,
  fput,
  fput_test,
  get_empty_filp,
  get_file,
  get_unused_fd,
  put_unused_fd,
  type uvector,
} from '../fs/file.js'
import { EBADF, EFAULT, EINVAL, EMSGSIZE, ENFILE, ENOBUFS, ENOMEM, ENOTSOCK } from '../lib/errno.js'
import { O_NONBLOCK, O_RDWR } from '../lib/fcntl.js'
import { UIO_MAXIOV } from '../lib/limits.js'
import { kfree, kmalloc } from '../mm/kmalloc.js'
import { dev_ioctl, SIOCDEVPRIVATE } from '../net/core/dev_ioctl.js'
import { verify_iovec } from '../net/core/iovec.js'
import { scm_files } from '../net/core/scm.js'
import { sock_fasync, sock_is_async } from '../net/core/sock_async.js'
import { SOL_SOCKET, sock_getsockopt, sock_setsockopt } from '../net/core/sock_opt.js'
import { MAX_SOCK_ADDR, MSG_DONTWAIT, MSGHDR, type msghdr, SOCKET, type socket } from '../net/core/sock_types.js'
import {
  type Call,
  sock_alloc,
  sock_create,
  sock_ops,
  sock_recvmsg,
  sock_release,
  sock_sendmsg,
} from '../net/core/socket.js'
import { core_ctl } from '../net/core/sysctl_net_core.js'
import { f_setown } from '../sched/fasync.js'
import { copy_from_user, copy_to_user, get_user, put_user, task_kstack, user_place } from '../sched/mm.js'
import type { poll_table } from '../sched/poll.js'
import { current } from '../sched/sched.js'
import { sys_close } from './fs.js'

const i32 = RAM.i32

// what a call has on its kernel stack, by offset; the options' scratch place is at its end
const ADDRESS = 0
const MSG = 128
const IOV = 160
const UIO_FASTIOV = 8
const USER_MSG = 224

function stack(): number {
  return task_kstack(current()).words
}

// ---- sockets as files -----------------------------------------------------------------------------------------------

function socket_of(filp: file): socket {
  return SOCKET.ref(filp.private_data)
}

/** A message of one piece, or of a vector that is on the kernel stack already. */
function plain_msg(iov: number, count: number, flags: number): msghdr {
  const msg = MSGHDR.ref(stack() + MSG)
  msg.msg_name = 0
  msg.msg_namelen = 0
  msg.msg_iov = iov
  msg.msg_iovlen = count
  msg.msg_control = 0
  msg.msg_controllen = 0
  msg.msg_flags = flags
  return msg
}
function one_iov(base: number, len: number): number {
  const iov = stack() + IOV
  i32[iov >> 2] = base
  i32[(iov >> 2) + 1] = len
  return iov
}
function nonblock(filp: file): number {
  return (filp.f_flags & O_NONBLOCK) !== 0 ? MSG_DONTWAIT : 0
}

function* sock_read(filp: file, buf: number, count: number): Call {
  if (count === 0) return 0 // SVr4: reading nothing takes no datagram
  const flags = nonblock(filp)
  return yield* sock_recvmsg(socket_of(filp), plain_msg(one_iov(buf, count), 1, 0), count, flags)
}
function* sock_write(filp: file, buf: number, count: number): Call {
  if (count === 0) return 0 // and writing nothing sends none: that is what sendto is for
  return yield* sock_sendmsg(socket_of(filp), plain_msg(one_iov(buf, count), 1, nonblock(filp)), count)
}

/** With room for a vector in the kernel. @returns -ENOMEM, or what f says */
function* with_room(count: number, f: (iov: number) => Call): Call {
  if (count <= UIO_FASTIOV) return yield* f(stack() + IOV)
  const iov = kmalloc(count * 8)
  if (iov === 0) return -ENOMEM
  const ret = yield* f(iov)
  kfree(iov)
  return ret
}
function place(iov: number, pieces: uvector): void {
  for (const [k, piece] of pieces.entries()) i32.set(piece, (iov >> 2) + 2 * k)
}
function sock_readv(filp: file, pieces: uvector, total: number): Call {
  const flags = nonblock(filp)
  return with_room(pieces.length, iov => {
    place(iov, pieces)
    return sock_recvmsg(socket_of(filp), plain_msg(iov, pieces.length, 0), total, flags)
  })
}
function sock_writev(filp: file, pieces: uvector, total: number): Call {
  const flags = nonblock(filp)
  return with_room(pieces.length, iov => {
    place(iov, pieces)
    return sock_sendmsg(socket_of(filp), plain_msg(iov, pieces.length, flags), total)
  })
}

function sock_poll(filp: file, pt: poll_table | null): number {
  const sock = socket_of(filp)
  return sock_ops(sock).poll?.(sock, pt, nonblock(filp) !== 0) ?? 0
}
export const FIOSETOWN = 0x8901
export const SIOCSPGRP = 0x8902
export const FIOGETOWN = 0x8903
export const SIOCGPGRP = 0x8904
/** sock_ioctl - what the family does not know, devices may. @returns -EINVAL: nobody knows it */
function* sock_ioctl(filp: file, cmd: number, arg: number): Call {
  const sock = socket_of(filp)
  if (cmd >= SIOCDEVPRIVATE && cmd < SIOCDEVPRIVATE + 16) return yield* dev_ioctl(cmd, arg)
  if (cmd === FIOSETOWN || cmd === SIOCSPGRP) {
    const pid = get_user(arg)
    if (pid === null) return -EFAULT
    f_setown(filp.f_owner, pid)
    return 0
  }
  if (cmd === FIOGETOWN || cmd === SIOCGPGRP) return put_user(filp.f_owner.pid, arg)
  const { ioctl } = sock_ops(sock)
  return ioctl === undefined ? yield* dev_ioctl(cmd, arg) : yield* ioctl(sock, cmd, arg)
}

const socket_file_ops: file_operations = {
  read: sock_read,
  write: sock_write,
  readv: sock_readv,
  writev: sock_writev,
  ioctl: sock_ioctl,
  poll: sock_poll,
  fasync: (fd, filp, on) => sock_fasync(socket_of(filp), filp.f_owner, fd, on),
  *release(filp) {
    const sock = socket_of(filp)
    if (sock_is_async(sock)) yield* sock_fasync(sock, filp.f_owner, -1, false)
    yield* sock_release(sock)
  },
}
const socket_file_ops_sym = symbol('socket_file_ops', socket_file_ops)

Object.assign(scm_files, {
  fget: fd => fget(fd)?.addr ?? 0,
  get: at => get_file(FILE.ref(at)),
  put: at => fput(FILE.ref(at)),
  count: at => file_count(FILE.ref(at)),
  sk_of: at => (FILE.ref(at).f_op === socket_file_ops_sym ? (socket_of(FILE.ref(at)).sk?.addr ?? 0) : 0),
  get_unused_fd,
  put_unused_fd,
  install: (fd, at) => fd_install(fd, FILE.ref(at)),
} satisfies typeof scm_files)

/** sock_map_fd - the socket as a descriptor. @returns it, -EMFILE, -ENFILE; then the socket stays the caller's */
function sock_map_fd(sock: socket): number {
  const fd = get_unused_fd()
  if (fd < 0) return fd
  const filp = get_empty_filp(socket_file_ops_sym, sock.addr, O_RDWR)
  if (filp === null) {
    put_unused_fd(fd)
    return -ENFILE
  }
  sock.file = filp.addr
  fd_install(fd, filp)
  return fd
}

/** With the socket of a descriptor, held for as long as the call takes. */
function* with_socket(fd: number, f: (sock: socket, filp: file) => Call): Call {
  const filp = fget(fd)
  if (filp === null) return -EBADF
  const ret = filp.f_op === socket_file_ops_sym ? yield* f(socket_of(filp), filp) : -ENOTSOCK
  yield* fput(filp)
  return ret
}

// ---- addresses ------------------------------------------------------------------------------------------------------

/** move_addr_to_kernel - @returns 0, -EINVAL, -EFAULT */
function move_addr_to_kernel(uaddr: number, ulen: number, kaddr: number): number {
  if (ulen < 0 || ulen > MAX_SOCK_ADDR) return -EINVAL
  if (ulen === 0) return 0
  return copy_from_user(kaddr, uaddr, ulen) !== 0 ? -EFAULT : 0
}
/** move_addr_to_user - as much as there is room for, and how much there would be. @returns 0, -EINVAL, -EFAULT */
function move_addr_to_user(kaddr: number, klen: number, uaddr: number, ulen: number): number {
  const room = get_user(ulen)
  if (room === null) return -EFAULT
  const len = Math.min(room, klen)
  if (len < 0 || len > MAX_SOCK_ADDR) return -EINVAL
  if (len > 0 && copy_to_user(uaddr, kaddr, len) !== 0) return -EFAULT
  return put_user(klen, ulen)
}

// ---- the calls ------------------------------------------------------------------------------------------------------

/** sys_socket - @returns descriptor, -EAFNOSUPPORT, -EINVAL, -ESOCKTNOSUPPORT, -EPERM, -EPROTONOSUPPORT, -ENOBUFS, -EMFILE, -ENFILE */
export function* sys_socket(family: number, type: number, protocol: number): Call {
  const made = sock_create(family, type, protocol)
  if (made < 0) return made
  const sock = SOCKET.ref(made)
  const fd = sock_map_fd(sock)
  if (fd < 0) yield* sock_release(sock)
  return fd
}

export function* sys_socketpair(family: number, type: number, protocol: number, usockvec: number): Call {
  const first = sock_create(family, type, protocol)
  if (first < 0) return first
  const a = SOCKET.ref(first)
  const second = sock_create(family, type, protocol)
  let err = second
  if (second > 0) {
    const b = SOCKET.ref(second)
    err = yield* sock_ops(a).socketpair(a, b)
    if (err >= 0) return yield* map_pair(a, b, usockvec)
    yield* sock_release(b)
  }
  if (err < 0) yield* sock_release(a)
  return err
}
/** Two descriptors, or none. @consumes both sockets @returns 0, -EMFILE, -ENFILE, -EFAULT */
function* map_pair(a: socket, b: socket, usockvec: number): Call {
  const fd1 = sock_map_fd(a)
  if (fd1 < 0) {
    yield* sock_release(a)
    yield* sock_release(b)
    return fd1
  }
  const fd2 = sock_map_fd(b)
  if (fd2 < 0) {
    yield* sock_release(b)
    yield* sys_close(fd1)
    return fd2
  }
  const err = put_user(fd1, usockvec) || put_user(fd2, usockvec + 4)
  if (err === 0) return 0
  yield* sys_close(fd2)
  yield* sys_close(fd1)
  return err
}

export function sys_bind(fd: number, umyaddr: number, addrlen: number): Call {
  return with_socket(fd, function* (sock) {
    const address = stack() + ADDRESS
    const err = move_addr_to_kernel(umyaddr, addrlen, address)
    return err < 0 ? err : yield* sock_ops(sock).bind(sock, address, addrlen)
  })
}

export function sys_connect(fd: number, uservaddr: number, addrlen: number): Call {
  return with_socket(fd, function* (sock, filp) {
    const address = stack() + ADDRESS
    const err = move_addr_to_kernel(uservaddr, addrlen, address)
    return err < 0 ? err : yield* sock_ops(sock).connect(sock, address, addrlen, filp.f_flags)
  })
}

export function sys_listen(fd: number, backlog: number): Call {
  return with_socket(fd, sock =>
    sock_ops(sock).listen(sock, backlog >>> 0 > core_ctl.somaxconn ? core_ctl.somaxconn : backlog),
  )
}

export function sys_accept(fd: number, upeer: number, upeerlen: number): Call {
  return with_socket(fd, function* (sock, filp) {
    const newsock = sock_alloc()
    if (newsock === null) return -ENFILE // 2.6.11 says EMFILE
    newsock.type = sock.type
    newsock.ops = sock.ops
    let err = yield* sock_ops(sock).accept(sock, newsock, filp.f_flags)
    if (err >= 0 && upeer !== 0) {
      const len = sock_ops(newsock).getname(newsock, stack() + ADDRESS, true)
      err = len < 0 ? len : move_addr_to_user(stack() + ADDRESS, len, upeer, upeerlen)
    }
    const newfd = err < 0 ? err : sock_map_fd(newsock)
    if (newfd < 0) yield* sock_release(newsock)
    return newfd
  })
}

function getname(fd: number, uaddr: number, ulen: number, peer: boolean): Call {
  return with_socket(fd, function* (sock) {
    const len = sock_ops(sock).getname(sock, stack() + ADDRESS, peer)
    return len < 0 ? len : move_addr_to_user(stack() + ADDRESS, len, uaddr, ulen)
  })
}
export function sys_getsockname(fd: number, uaddr: number, ulen: number): Call {
  return getname(fd, uaddr, ulen, false)
}
export function sys_getpeername(fd: number, uaddr: number, ulen: number): Call {
  return getname(fd, uaddr, ulen, true)
}

/** sys_sendto - as with_socket; a generator function made for each call costs more than all else that is done here. */
export function* sys_sendto(
  fd: number,
  buff: number,
  len: number,
  flags: number,
  addr: number,
  addr_len: number,
): Call {
  const filp = fget(fd)
  if (filp === null) return -EBADF
  let ret = filp.f_op === socket_file_ops_sym ? 0 : -ENOTSOCK
  if (ret === 0) {
    const msg = plain_msg(one_iov(buff, len), 1, flags | nonblock(filp))
    if (addr !== 0) {
      ret = move_addr_to_kernel(addr, addr_len, stack() + ADDRESS)
      msg.msg_name = stack() + ADDRESS
      msg.msg_namelen = addr_len
    }
    if (ret === 0) ret = yield* sock_sendmsg(socket_of(filp), msg, len)
  }
  if (fput_test(filp)) yield* __fput(filp)
  return ret
}
export function sys_send(fd: number, buff: number, len: number, flags: number): Call {
  return sys_sendto(fd, buff, len, flags, 0, 0)
}

export function* sys_recvfrom(fd: number, ubuf: number, size: number, flags: number, addr: number, ulen: number): Call {
  const filp = fget(fd)
  if (filp === null) return -EBADF
  let ret = -ENOTSOCK
  if (filp.f_op === socket_file_ops_sym) {
    const msg = plain_msg(one_iov(ubuf, size), 1, 0)
    msg.msg_name = stack() + ADDRESS
    msg.msg_namelen = MAX_SOCK_ADDR
    ret = yield* sock_recvmsg(socket_of(filp), msg, size, flags | nonblock(filp))
    if (ret >= 0 && addr !== 0)
      ret = Math.min(move_addr_to_user(stack() + ADDRESS, msg.msg_namelen, addr, ulen), 0) || ret
  }
  if (fput_test(filp)) yield* __fput(filp)
  return ret
}
export function sys_recv(fd: number, ubuf: number, size: number, flags: number): Call {
  return sys_recvfrom(fd, ubuf, size, flags, 0, 0)
}

export function* sys_setsockopt(fd: number, level: number, optname: number, optval: number, optlen: number): Call {
  if (optlen < 0) return -EINVAL
  return yield* with_socket(fd, sock =>
    level === SOL_SOCKET
      ? sock_setsockopt(sock, optname, optval, optlen)
      : sock_ops(sock).setsockopt(sock, level, optname, optval, optlen),
  )
}
export function sys_getsockopt(fd: number, level: number, optname: number, optval: number, optlen: number): Call {
  return with_socket(fd, function* (sock) {
    if (level === SOL_SOCKET) return sock_getsockopt(sock, optname, optval, optlen)
    return yield* sock_ops(sock).getsockopt(sock, level, optname, optval, optlen)
  })
}
export function sys_shutdown(fd: number, how: number): Call {
  return with_socket(fd, sock => sock_ops(sock).shutdown(sock, how))
}

// ---- messages -------------------------------------------------------------------------------------------------------

// struct msghdr of the program, by offset
const NAME = 0
const NAMELEN = 4
const IOVP = 8
const IOVLEN = 12
const CONTROL = 16
const CONTROLLEN = 20
const FLAGS = 24
const MSGHDR_SIZE = 28

/** The program's msghdr on the kernel stack, word by word. */
function user_msg(field: number): number {
  return i32[(stack() + USER_MSG + field) >> 2]
}

/** With the vector of the program's msghdr in the kernel, looked at by `verify`. */
function* with_iovec(verify: (iov: number) => number, f: (iov: number, total: number) => Call): Call {
  if (user_msg(IOVLEN) >>> 0 > UIO_MAXIOV) return -EMSGSIZE
  return yield* with_room(user_msg(IOVLEN), function* (iov) {
    const total = verify(iov)
    return total < 0 ? total : yield* f(iov, total)
  })
}
function verify_pieces(iov: number): number {
  return verify_iovec(iov, user_msg(IOVP), user_msg(IOVLEN))
}
/** verify_iovec of 2.6.11 for a sender: the address first. Without a length there is none, whatever the pointer. */
function verify_message(iov: number): number {
  const len = user_msg(NAMELEN)
  const err = len === 0 ? 0 : move_addr_to_kernel(user_msg(NAME), len, stack() + ADDRESS)
  return err < 0 ? err : verify_pieces(iov)
}

export function* sys_sendmsg(fd: number, umsg: number, flags: number): Call {
  if (copy_from_user(stack() + USER_MSG, umsg, MSGHDR_SIZE) !== 0) return -EFAULT
  return yield* with_socket(fd, (sock, filp) =>
    with_iovec(verify_message, function* (iov, total) {
      const msg = plain_msg(iov, user_msg(IOVLEN), flags | nonblock(filp))
      if (user_msg(NAMELEN) !== 0) {
        msg.msg_name = stack() + ADDRESS
        msg.msg_namelen = user_msg(NAMELEN)
      }
      if (user_msg(CONTROLLEN) >>> 0 > core_ctl.optmem_max) return -ENOBUFS
      if (user_msg(CONTROLLEN) > 0 && user_place(user_msg(CONTROL), user_msg(CONTROLLEN)) === 0) return -EFAULT
      msg.msg_control = user_msg(CONTROL)
      msg.msg_controllen = user_msg(CONTROLLEN)
      return yield* sock_sendmsg(sock, msg, total)
    }),
  )
}

export function* sys_recvmsg(fd: number, umsg: number, flags: number): Call {
  if (copy_from_user(stack() + USER_MSG, umsg, MSGHDR_SIZE) !== 0) return -EFAULT
  return yield* with_socket(fd, (sock, filp) =>
    with_iovec(verify_pieces, function* (iov, total) {
      const msg = plain_msg(iov, user_msg(IOVLEN), 0)
      msg.msg_name = stack() + ADDRESS
      msg.msg_namelen = MAX_SOCK_ADDR
      msg.msg_control = user_msg(CONTROL)
      msg.msg_controllen = user_msg(CONTROLLEN)
      const len = yield* sock_recvmsg(sock, msg, total, flags | nonblock(filp))
      if (len < 0) return len
      const err = report(msg, umsg)
      return err < 0 ? err : len
    }),
  )
}
/** What recvmsg writes back: the address, the flags, how much control data there is. */
function report(msg: msghdr, umsg: number): number {
  if (user_msg(NAME) !== 0) {
    const err = move_addr_to_user(stack() + ADDRESS, msg.msg_namelen, user_msg(NAME), umsg + NAMELEN)
    if (err < 0) return err
  }
  return put_user(msg.msg_flags, umsg + FLAGS) || put_user(msg.msg_control - user_msg(CONTROL), umsg + CONTROLLEN)
}
