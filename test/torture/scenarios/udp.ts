/**
 * udp.ts - sockets across CPUs. A client on the last CPU and an echo service on the first one; on each CPU a thread that sends
 * through a socket that all share, to a socket that two threads receive from; on each CPU a process that opens and closes.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { call, symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load } from '../../../src/arch/atomic.js'
import { num_cpus } from '../../../src/arch/machine.js'
import { ECONNREFUSED } from '../../../src/lib/errno.js'
import { current } from '../../../src/sched/sched.js'
import { run_program } from '../../../src/syscall/process.js'
import {
  bind,
  close,
  connect,
  getsockname,
  type Libc,
  malloc,
  mem,
  nanosleep,
  recv,
  send,
  sendto,
  sockaddr_in,
  socket,
  variable,
} from '../../../src/user/libc.js'
import { udpclient_sym, udpecho_sym } from '../../../src/user/udpecho.js'

const SENDS = 200
const OPENS = 100
const PORT = 9000
const LOOPBACK = 0x7f000001

class shared extends Struct {
  declare done: number
  declare echoed: number
  declare sent: number
  declare received: number
  declare opened: number
  declare bad: number
  declare senders: number
}
const SHARED: Layout<shared> = layout('torture_udp', shared, {
  done: word,
  echoed: word,
  sent: word,
  received: word,
  opened: word,
  bad: word,
  senders: word,
})
const s = DEFINE_STATIC('torture_udp', SHARED)
const count = (field: keyof shared & string, n = 1): void => {
  fetch_add(s.addr + SHARED.offset(field), n)
}

const udp = (): Libc => socket(2, 2, 0)
function* bound(port: number): Libc {
  const fd = yield* udp()
  const err = yield* bind(fd, sockaddr_in(malloc(16), LOOPBACK, port), 16)
  return err < 0 ? err : fd
}

function* client(): Libc {
  // Its CPU may not have had a core for a while: until the service is there, it is refused.
  for (let tries = 0; tries < 50; tries++) {
    yield* nanosleep(1e6)
    s.echoed = yield* call(udpclient_sym)((200 << 16) | 7)
    if (s.echoed !== -ECONNREFUSED) break
  }
  count('done')
  return 0
}
const client_sym = symbol('torture_udp_client', client)

/** A datagram says who sent it, which of his it is, and how it goes on. */
function pattern(who: number, turn: number, k: number): number {
  return (who * 67 + turn * 13 + k * 5) & 255
}
function good(bytes: Uint8Array): boolean {
  return (
    bytes.length === 2 + (bytes[1]! % 100) && bytes.every((b, k) => k < 2 || b === pattern(bytes[0]!, bytes[1]!, k))
  )
}

function* sender(who: number): Libc {
  const out = malloc(128)
  for (let turn = 0; turn < SENDS; turn++) {
    const size = 2 + (turn % 100)
    const bytes = mem(out, size)
    for (let k = 0; k < size; k++) bytes[k] = pattern(who, turn & 255, k)
    bytes[0] = who
    bytes[1] = turn & 255
    if ((yield* send(0, out, size, 0)) === size) count('sent')
    else count('bad')
  }
  count('senders')
  count('done')
  return 0
}
const sender_sym = symbol('torture_udp_sender', sender)

/** Receives until an empty datagram comes, and the senders have ended. */
function* receiver(_arg: number): Libc {
  const buf = malloc(128)
  for (;;) {
    const n = yield* recv(1, buf, 128, 0)
    if (n === 0) break
    if (n > 0 && good(mem(buf, n))) count('received')
    else count('bad')
  }
  count('done')
  return 0
}
const receiver_sym = symbol('torture_udp_receiver', receiver)

/** Makes the two sockets, then the threads that share them, and tells the receivers when it is over. */
function* family(): Libc {
  if ((yield* bound(PORT)) !== 0 || (yield* bound(PORT + 1)) !== 1) count('bad')
  yield* connect(0, sockaddr_in(malloc(16), LOOPBACK, PORT + 1), 16)
  const shares = current()
  const ncpus = num_cpus()
  for (let cpu = 0; cpu < ncpus; cpu++) run_program('sender', sender_sym, cpu, { cpu, shares })
  for (let k = 0; k < 2; k++) run_program('receiver', receiver_sym, k, { cpu: k % ncpus, shares })
  while (load(s.addr + SHARED.offset('senders')) < ncpus) yield* nanosleep(1e6)
  for (let k = 0; k < 50; k++) {
    yield* send(0, 0, 0, 0) // one is enough for each receiver, unless it is lost
    yield* nanosleep(1e6)
  }
  return 0
}
const family_sym = symbol('torture_udp_family', family)

function* opener(_arg: number): Libc {
  const name = malloc(16)
  const buf = malloc(16)
  for (let k = 0; k < OPENS; k++) {
    const fd = yield* bound(0)
    yield* getsockname(fd, name, variable(16))
    yield* connect(fd, name, 16)
    mem(buf, 1)[0] = k
    yield* sendto(fd, buf, 1, 0, name, 16)
    const n = yield* recv(fd, buf + 8, 8, 0)
    const same = n === 1 && mem(buf + 8, 1)[0] === k
    if ((yield* close(fd)) === 0 && same) count('opened')
    else count('bad')
  }
  count('done')
  return 0
}
const opener_sym = symbol('torture_udp_opener', opener)

export function main(): void {
  const last = num_cpus() - 1
  run_program('udpecho', udpecho_sym, 7, { cpu: 0 })
  run_program('client', client_sym, 0, { cpu: last })
  run_program('family', family_sym, 0, { cpu: 0 })
  for (let cpu = 0; cpu <= last; cpu++) run_program('opener', opener_sym, cpu, { cpu })
}
