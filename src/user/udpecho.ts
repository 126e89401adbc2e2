/** udpecho.ts - the echo service of RFC 862 over UDP, and a client that looks at what comes back. */
import { type Sym, symbol } from '../abi/symbol.js'
import type { Program } from '../sched/task.js'
import {
  bind,
  close,
  connect,
  type Libc,
  load32,
  malloc,
  mem,
  recv,
  recvfrom,
  send,
  sendto,
  sockaddr_in,
  socket,
  store32,
  variable,
} from './libc.js'
import { arguments_of, fprintf, perror, STDERR, strtol } from './stdio.js'

const AF_INET = 2
const SOCK_DGRAM = 2
const LOOPBACK = 0x7f000001
const MAX_DATAGRAM = 65_507
/** A datagram of this many bytes ends the service. */
const END = 0

/** Answers what comes to the port. @returns 0 after a datagram without a byte, if such a one `ends` it; or what went wrong */
function* echo(port: number, ends: boolean): Libc {
  const fd = yield* socket(AF_INET, SOCK_DGRAM, 0)
  if (fd < 0) return fd
  const addr = malloc(16)
  const err = yield* bind(fd, sockaddr_in(addr, 0, port), 16)
  if (err < 0) return err
  const buf = malloc(MAX_DATAGRAM)
  const len = variable()
  for (;;) {
    store32(len, 16)
    const n = yield* recvfrom(fd, buf, MAX_DATAGRAM, 0, addr, len)
    if (n < 0) return n
    const sent = yield* sendto(fd, buf, n, 0, addr, load32(len))
    if (!ends) continue // one who cannot be answered is no reason to leave the others alone
    if (sent < 0) return sent
    if (n === END) break
  }
  return yield* close(fd)
}

/** udpecho - answers on port `arg`, until a datagram without a byte comes. */
export const udpecho_sym: Sym<Program> = symbol('udpecho', arg => echo(arg, true))
/** udpechod - as long as the machine runs. */
export const udpechod_sym: Sym<Program> = symbol('udpechod', arg => echo(arg, false))

/** udpechod PORT - the same as a program with arguments; nothing: port 7. */
export function* udpechod_main(argc: number, argv: number): Libc {
  const [, word = '7', ...rest] = arguments_of(argc, argv)
  const port = strtol(word)
  if (rest.length > 0 || port === null || port < 1 || port > 65_535) {
    yield* fprintf(STDERR, 'usage: udpechod [port]\n')
    return 2
  }
  const err = yield* echo(port, false)
  yield* perror('udpechod', err)
  return 1
}

/** Byte `k` of datagram `turn`. */
function pattern(turn: number, k: number): number {
  return (turn * 31 + k * 7 + (k >> 8)) & 255
}

/**
 * udpclient - sends datagrams of growing size to the echo service of this machine, and ends it. `arg`: the port, and in the upper
 * half how many. @returns how many came back as they were sent, or what went wrong
 */
function* udpclient(arg: number): Libc {
  const count = arg >>> 16
  const fd = yield* socket(AF_INET, SOCK_DGRAM, 0)
  if (fd < 0) return fd
  const err = yield* connect(fd, sockaddr_in(malloc(16), LOOPBACK, arg & 0xffff), 16)
  if (err < 0) return err
  const out = malloc(2048)
  const back = malloc(2048)
  let good = 0
  for (let turn = 1; turn <= count; turn++) {
    const size = 1 + ((turn * 13) % 1400)
    const bytes = mem(out, size)
    for (let k = 0; k < size; k++) bytes[k] = pattern(turn, k)
    const sent = yield* send(fd, out, size, 0)
    const n = sent < 0 ? sent : yield* recv(fd, back, 2048, 0)
    if (n < 0) return n
    if (n === size && mem(back, n).every((b, k) => b === pattern(turn, k))) good++
  }
  yield* send(fd, out, END, 0)
  yield* recv(fd, back, 2048, 0)
  yield* close(fd)
  return good
}
export const udpclient_sym: Sym<Program> = symbol('udpclient', udpclient)
