/**
 * libc.ts - what programs call. A program is a generator; each call that enters the kernel is used with `yield*` and returns what
 * the kernel says: a value, or a negative errno. Pointers are addresses of the program's own memory, which lies from USER_BASE on.
 *
 *   function* echo() { const fd = yield* socket(AF_INET, SOCK_DGRAM, 0); ... return 0 }
 */
import { RAM } from '../arch/ram.js'
import { USER_MEM_SIZE } from '../lib/limits.js'
import { task_mm, USER_BASE, user_place } from '../sched/mm.js'
import { current } from '../sched/sched.js'
import {
  __NR_accept,
  __NR_alarm,
  __NR_bind,
  __NR_close,
  __NR_connect,
  __NR_creat,
  __NR_dup,
  __NR_dup2,
  __NR_fcntl,
  __NR_getpeername,
  __NR_getpid,
  __NR_getsockname,
  __NR_getsockopt,
  __NR_gettimeofday,
  __NR_getuid,
  __NR_ioctl,
  __NR_listen,
  __NR_nanosleep,
  __NR_poll,
  __NR_read,
  __NR_recvfrom,
  __NR_recvmsg,
  __NR_sched_yield,
  __NR_select,
  __NR_sendmsg,
  __NR_sendto,
  __NR_setsockopt,
  __NR_setuid,
  __NR_shutdown,
  __NR_socket,
  __NR_socketpair,
  __NR_unlink,
  __NR_write,
  syscall,
} from '../syscall/table.js'
import { page_fault } from '../syscall/traps.js'

export { syscall }
export type Libc = Generator<void, number, void>

// ---- memory ---------------------------------------------------------------------------------------------------------

/** sbrk - so many bytes more, all zero; they are given back when the program ends. @returns address, 0: there are none */
export function sbrk(bytes: number): number {
  const mm = task_mm(current())!
  const at = mm.brk
  const end = at + ((bytes + 7) & ~7)
  if (end > USER_MEM_SIZE) return 0
  mm.brk = end
  return USER_BASE + at
}
/** malloc - as sbrk; an address that is not there faults when it is used. */
export const malloc = sbrk

/** give_back - everything from `at` on, which was taken last; zero again. */
export function give_back(at: number): void {
  const mm = task_mm(current())!
  mem(at, mm.brk - (at - USER_BASE)).fill(0)
  mm.brk = at - USER_BASE
}

/** mem - bytes of the program's memory, to read and to write. Throws for a pointer that leads elsewhere: a segmentation fault. */
export function mem(addr: number, len: number): Uint8Array {
  const at = user_place(addr, len)
  if (at === 0 && len > 0) throw new page_fault(addr >>> 0)
  return RAM.u8.subarray(at, at + len)
}
/** A word at a pointer, as i386 has them. */
export function load32(addr: number): number {
  const b = mem(addr, 4)
  return b[0]! | (b[1]! << 8) | (b[2]! << 16) | (b[3]! << 24)
}
export function store32(addr: number, value: number): void {
  mem(addr, 4).set([value & 255, (value >> 8) & 255, (value >> 16) & 255, value >>> 24])
}
/** string - in memory, with its 0. */
export function string(text: string): number {
  const bytes = new TextEncoder().encode(text)
  const at = sbrk(bytes.length + 1)
  mem(at, bytes.length).set(bytes)
  return at
}
/** A variable that lies in memory, for calls that want its address. */
export function variable(value = 0): number {
  const at = sbrk(4)
  store32(at, value)
  return at
}

/** inet_addr - `10.0.0.1` as a number. */
export function inet_addr(text: string): number {
  return text.split('.').reduce((sum, part) => (sum << 8) | Number(part), 0)
}
/** sockaddr_in - writes one at `addr`. @returns addr */
export function sockaddr_in(addr: number, s_addr: number, port: number, family = 2): number {
  const b = mem(addr, 16)
  b.fill(0)
  b.set([
    family & 255,
    family >> 8,
    port >> 8,
    port & 255,
    s_addr >>> 24,
    (s_addr >> 16) & 255,
    (s_addr >> 8) & 255,
    s_addr & 255,
  ])
  return addr
}
export function sin_addr(addr: number): number {
  const b = mem(addr + 4, 4)
  return (b[0]! << 24) | (b[1]! << 16) | (b[2]! << 8) | b[3]!
}
export function sin_port(addr: number): number {
  const b = mem(addr + 2, 2)
  return b[0]! * 256 + b[1]!
}

// ---- calls ----------------------------------------------------------------------------------------------------------

export const socket = (family: number, type: number, protocol: number): Libc =>
  syscall(__NR_socket, family, type, protocol)
export const socketpair = (family: number, type: number, protocol: number, fds: number): Libc =>
  syscall(__NR_socketpair, family, type, protocol, fds)
export const bind = (fd: number, addr: number, len: number): Libc => syscall(__NR_bind, fd, addr, len)
export const connect = (fd: number, addr: number, len: number): Libc => syscall(__NR_connect, fd, addr, len)
export const listen = (fd: number, backlog: number): Libc => syscall(__NR_listen, fd, backlog)
export const accept = (fd: number, addr: number, len: number): Libc => syscall(__NR_accept, fd, addr, len)
export const getsockname = (fd: number, addr: number, len: number): Libc => syscall(__NR_getsockname, fd, addr, len)
export const getpeername = (fd: number, addr: number, len: number): Libc => syscall(__NR_getpeername, fd, addr, len)
export const sendto = (fd: number, buf: number, len: number, flags: number, addr: number, addr_len: number): Libc =>
  syscall(__NR_sendto, fd, buf, len, flags, addr, addr_len)
export const send = (fd: number, buf: number, len: number, flags: number): Libc => sendto(fd, buf, len, flags, 0, 0)
export const recvfrom = (fd: number, buf: number, len: number, flags: number, addr: number, addr_len: number): Libc =>
  syscall(__NR_recvfrom, fd, buf, len, flags, addr, addr_len)
export const recv = (fd: number, buf: number, len: number, flags: number): Libc => recvfrom(fd, buf, len, flags, 0, 0)
export const sendmsg = (fd: number, msg: number, flags: number): Libc => syscall(__NR_sendmsg, fd, msg, flags)
export const recvmsg = (fd: number, msg: number, flags: number): Libc => syscall(__NR_recvmsg, fd, msg, flags)
export const setsockopt = (fd: number, level: number, name: number, val: number, len: number): Libc =>
  syscall(__NR_setsockopt, fd, level, name, val, len)
export const getsockopt = (fd: number, level: number, name: number, val: number, len: number): Libc =>
  syscall(__NR_getsockopt, fd, level, name, val, len)
/** An option of one word. */
export function* set_word(fd: number, level: number, name: number, value: number): Libc {
  return yield* with_words([value], at => setsockopt(fd, level, name, at, 4))
}
/** SO_RCVTIMEO in us, at least one. */
export function set_timeout(fd: number, us: number): Libc {
  const whole = Math.max(1, Math.ceil(us))
  return with_words([Math.floor(whole / 1e6), whole % 1e6], at => setsockopt(fd, 1, 20, at, 8))
}
/** with_words - words in memory for one call. */
export function* with_words(words: number[], f: (at: number) => Libc): Libc {
  const mm = task_mm(current())!
  const at = malloc(words.length * 4)
  const top = mm.brk
  words.forEach((word, k) => {
    store32(at + 4 * k, word)
  })
  const ret = yield* f(at)
  if (mm.brk === top) give_back(at)
  return ret
}
export const shutdown = (fd: number, how: number): Libc => syscall(__NR_shutdown, fd, how)

/** unlink - the path of a Unix socket. */
export const unlink = (path: number): Libc => syscall(__NR_unlink, path)
/** sockaddr_un - of 110 bytes at `addr`; a name that begins with NUL is abstract. @returns the address's length */
export function sockaddr_un(addr: number, name: string): number {
  const b = mem(addr, 110)
  b.fill(0)
  b.set([1, 0, ...[...name].map(c => c.charCodeAt(0))])
  return 2 + name.length + (name.startsWith('\0') ? 0 : 1)
}

export const read = (fd: number, buf: number, count: number): Libc => syscall(__NR_read, fd, buf, count)
export const write = (fd: number, buf: number, count: number): Libc => syscall(__NR_write, fd, buf, count)
/** creat - a file for writing; the host of the machine keeps it under this name. */
export const creat = (path: number): Libc => syscall(__NR_creat, path)
export const close = (fd: number): Libc => syscall(__NR_close, fd)
export const dup = (fd: number): Libc => syscall(__NR_dup, fd)
export const dup2 = (fd: number, to: number): Libc => syscall(__NR_dup2, fd, to)
export const fcntl = (fd: number, cmd: number, arg: number): Libc => syscall(__NR_fcntl, fd, cmd, arg)

export const ioctl = (fd: number, cmd: number, arg: number): Libc => syscall(__NR_ioctl, fd, cmd, arg)
/** `fds`: address of pollfd; ms, less than 0: for ever. */
export const poll = (fds: number, nfds: number, ms: number): Libc => syscall(__NR_poll, fds, nfds, ms)
/** Addresses of sets and of a timeval; 0: none. */
export const select = (n: number, inp: number, outp: number, exp: number, tv: number): Libc =>
  syscall(__NR_select, n, inp, outp, exp, tv)

export const getpid = (): Libc => syscall(__NR_getpid)
export const getuid = (): Libc => syscall(__NR_getuid)
export const setuid = (uid: number): Libc => syscall(__NR_setuid, uid)
export const alarm = (seconds: number): Libc => syscall(__NR_alarm, seconds)
/** `rmtp`: where the timespec goes that was left when a signal came. */
export const nanosleep = (ns: number, rmtp = 0): Libc => syscall(__NR_nanosleep, ns, rmtp)
/** The machine's clock as us, in place of a timeval. */
export function* gettimeofday(): Libc {
  const mm = task_mm(current())!
  const brk = mm.brk
  const tv = malloc(8)
  yield* syscall(__NR_gettimeofday, tv, 0)
  const us = load32(tv) * 1e6 + load32(tv + 4)
  if (mm.brk === brk + 8) give_back(tv)
  return us
}
export const sched_yield = (): Libc => syscall(__NR_sched_yield)
