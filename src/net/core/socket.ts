/**
 * socket.ts - struct socket: the program's side of a socket, and the families that make them (net/socket.c, but for what has
 * to do with descriptors: syscall/socket.ts).
 *
 * Lock charter
 *   A socket belongs to the file in front of it; calls that are under way hold the file. Families are registered at boot.
 */
import { bytes, konst, type Layout, layout, Struct } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call, type Sym } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { EAFNOSUPPORT, EINVAL, ENFILE } from '../../lib/errno.js'
import { MAX_SOCKS } from '../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import type { poll_table } from '../../sched/poll.js'
import { current_or_null } from '../../sched/sched.js'
import { init_waitqueue_head } from '../../sched/wait.js'
import { type msghdr, NPROTO, SOCK_MAX, SOCKET, SS_FREE, SS_UNCONNECTED, type socket } from './sock_types.js'

const i32 = RAM.i32

const socket_cache = kmem_cache_create('socket', SOCKET, () => MAX_SOCKS)

/** What may sleep before it returns its errno or value. */
export type Call = Generator<void, number, void>

/** What a family's sockets of one type can do. Addresses (`addr`) are the kernel's, other pointers the user's. */
export interface proto_ops {
  readonly family: number
  release(sock: socket): Call
  bind(sock: socket, addr: number, addr_len: number): Call
  connect(sock: socket, addr: number, addr_len: number, flags: number): Call
  socketpair(sock: socket, other: socket): Call
  accept(sock: socket, newsock: socket, flags: number): Call
  /** Writes the address of this end, or of the other. @returns its length, -errno */
  getname(sock: socket, addr: number, peer: boolean): number
  listen(sock: socket, backlog: number): Call
  shutdown(sock: socket, how: number): Call
  setsockopt(sock: socket, level: number, optname: number, optval: number, optlen: number): Call
  getsockopt(sock: socket, level: number, optname: number, optval: number, optlen: number): Call
  sendmsg(sock: socket, msg: msghdr, len: number): Call
  recvmsg(sock: socket, msg: msghdr, len: number, flags: number): Call
  /** What it has, after it entered the table at its queue. Without this: nothing (sock_no_poll). */
  poll?(sock: socket, pt: poll_table | null, nonblock: boolean): number
  /** Without this all are unknown. */
  ioctl?(sock: socket, cmd: number, arg: number): Call
}

/** Makes a sock for the socket and gives it its ops. @returns 0, -errno */
export type net_proto_create = (sock: socket, protocol: number) => number

class net_families extends Struct {
  declare create: number
}
const FAMILIES: Layout<net_families> = layout('net_families', net_families, { create: konst(bytes(NPROTO * 4)) })
const CREATE = DEFINE_STATIC('net_families', FAMILIES).create >> 2

/** sock_register - @context boot */
export function sock_register(family: number, create: Sym<net_proto_create>): void {
  i32[CREATE + family] = create
}

/** sock_ops - what this socket can do. */
export function sock_ops(sock: socket): proto_ops {
  return call(sock.ops as Sym<proto_ops>)
}

/** sock_alloc - @returns a socket of no family yet, or null */
export function sock_alloc(): socket | null {
  const sock = kmem_cache_alloc(socket_cache)
  if (sock === null) return null
  i32.fill(0, sock.$w, sock.$w + (SOCKET.size >> 2))
  sock.state = SS_FREE
  sock.uid = current_or_null()?.uid ?? 0
  init_waitqueue_head(sock.wait)
  return sock
}

/** sock_release - the program is done with it. @context process @consumes sock */
export function* sock_release(sock: socket): Generator<void, void, void> {
  if (sock.ops !== 0) yield* sock_ops(sock).release(sock)
  kmem_cache_free(socket_cache, sock)
}
/** sock_forget - a socket that never got a sock. @consumes sock */
export function sock_forget(sock: socket): void {
  kmem_cache_free(socket_cache, sock)
}

/** sock_create - @context process @returns address of a socket, -EAFNOSUPPORT, -EINVAL, -ENFILE, or what the family says */
export function sock_create(family: number, type: number, protocol: number): number {
  if (family < 0 || family >= NPROTO) return -EAFNOSUPPORT
  if (type < 0 || type >= SOCK_MAX) return -EINVAL
  const create = i32[CREATE + family] as Sym<net_proto_create>
  if (create === 0) return -EAFNOSUPPORT
  const sock = sock_alloc()
  if (sock === null) return -ENFILE
  sock.type = type
  sock.state = SS_UNCONNECTED
  const err = call(create)(sock, protocol)
  if (err === 0) return sock.addr
  sock_forget(sock)
  return err
}

/** sock_sendmsg - @context process @returns bytes sent, -errno */
export function sock_sendmsg(sock: socket, msg: msghdr, len: number): Call {
  return sock_ops(sock).sendmsg(sock, msg, len)
}
/** sock_recvmsg - @context process @returns bytes received, -errno */
export function sock_recvmsg(sock: socket, msg: msghdr, len: number, flags: number): Call {
  return sock_ops(sock).recvmsg(sock, msg, len, flags)
}
