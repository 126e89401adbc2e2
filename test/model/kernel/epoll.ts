/**
 * A process on CPU 0 waits for two UDP sockets by epoll. One on CPU 1 sends to them, each time when the first one is about to wait:
 * the softirq there finds the item on the queue of the socket, and an event that is lost leaves both asleep for ever.
 *   level    as long as something is there; edge: each datagram once
 *   oneshot  the item is armed anew before each wait
 *   add      the item is added before each wait, and taken out after it
 * The broken twin has a socket look at what it has before the item is on its queue.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { HALTING, power_down } from '../../../src/arch/machine.js'
import { fget, fput_test } from '../../../src/fs/file.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { SOCKET } from '../../../src/net/core/sock_types.js'
import { type proto_ops, sock_ops } from '../../../src/net/core/socket.js'
import { run_program } from '../../../src/syscall/process.js'
import {
  bind,
  close,
  type Libc,
  malloc,
  mem,
  recv,
  sched_yield,
  sendto,
  sockaddr_in,
  socket,
} from '../../../src/user/libc.js'
import {
  EPOLL_CTL_ADD,
  EPOLL_CTL_DEL,
  EPOLL_CTL_MOD,
  EPOLLET,
  EPOLLIN,
  EPOLLONESHOT,
  epoll_create,
  epoll_ctl,
  epoll_event,
  epoll_wait,
} from '../../../src/user/libc_file.js'
import { clock_chip, cpu, nothing_leaked, power_on, secondary } from './machine.js'

export interface EpollArgs {
  mode: 'level' | 'edge' | 'oneshot' | 'add'
  datagrams: number
  broken?: boolean
}
class result extends Struct {
  declare ended: number
  declare asked: number
  declare taken: number
  declare waits: number
  declare wrong: number
}
const RESULT: Layout<result> = layout('epoll_result', result, {
  ended: word,
  asked: word, // for so many datagrams, by the waiter
  taken: word,
  waits: word,
  wrong: word,
})
const r = DEFINE_STATIC('epoll_result', RESULT)
const ENDED = r.addr
const ASKED = r.addr + RESULT.offset('asked')
const PORTS = [701, 702]
const MSG_DONTWAIT = 0x40
/** Looks of the sender: some ten thousand steps, a whole run is a third of that. */
const PATIENCE = 1000
const args_of: { args: EpollArgs } = { args: { mode: 'level', datagrams: 0 } }

/** Tables of operations that are broken already, on this CPU. */
const broken = new Set<proto_ops>()
function break_poll(fd: number): void {
  const filp = fget(fd)!
  const ops = sock_ops(SOCKET.ref(filp.private_data))
  fput_test(filp)
  if (broken.has(ops)) return
  broken.add(ops)
  const sound = ops.poll!
  ops.poll = (sock, pt, nonblock) => {
    const mask = sound(sock, null, nonblock)
    for (let k = 0; k < 50; k++) load(ASKED) // a while
    sound(sock, pt, nonblock)
    return mask
  }
}

function end(): number {
  if (fetch_add(ENDED, 1) === 1) power_down(HALTING)
  return 0
}

const waiter_sym = symbol('test_epoll_waiter', function* (): Libc {
  const { mode, datagrams } = args_of.args
  const ep = yield* epoll_create(2)
  const event = malloc(12)
  const flags = EPOLLIN | (mode === 'edge' ? EPOLLET : mode === 'oneshot' ? EPOLLONESHOT : 0)
  const fds: number[] = []
  function* control(op: number): Generator<void, void, void> {
    for (const fd of fds) if ((yield* epoll_ctl(ep, op, fd, epoll_event(event, flags, fd))) !== 0) r.wrong++
  }
  for (const port of PORTS) {
    const fd = yield* socket(2, 2, 0)
    yield* bind(fd, sockaddr_in(malloc(16), 0, port), 16)
    fds.push(fd)
  }
  if (args_of.args.broken === true) break_poll(fds[0]!)
  const [at, buf] = [malloc(24), malloc(16)]
  if (mode !== 'add') yield* control(EPOLL_CTL_ADD)
  while (r.taken < datagrams) {
    store(ASKED, r.taken + 1)
    if (mode === 'add') yield* control(EPOLL_CTL_ADD)
    if (mode === 'oneshot') yield* control(EPOLL_CTL_MOD)
    const n = yield* epoll_wait(ep, at, 2, -1)
    r.waits++
    let got = 0
    for (const fd of fds) while ((yield* recv(fd, buf, 16, MSG_DONTWAIT)) === 5) got++
    if (n < 1 || got < n) r.wrong++ // what was told is there
    r.taken += got
    if (mode === 'add') yield* control(EPOLL_CTL_DEL)
  }
  for (const fd of [...fds, ep]) yield* close(fd)
  return end()
})

const sender_sym = symbol('test_epoll_sender', function* (): Libc {
  const fd = yield* socket(2, 2, 0)
  const to = malloc(16)
  const buf = malloc(8)
  mem(buf, 5).fill(65)
  for (let k = 0; k < args_of.args.datagrams; k++) {
    sockaddr_in(to, 0x7f000001, PORTS[k % PORTS.length]!)
    for (let n = 0; load(ASKED) <= k; n++) {
      if (n === PATIENCE) return 0 // the waiter has not got the last one: nobody wakes it any more
      yield* sched_yield()
    }
    if ((yield* sendto(fd, buf, 5, 0, to, 16)) !== 5) r.wrong++
  }
  yield* close(fd)
  return end()
})

export function setup(args: EpollArgs): EpollArgs {
  power_on(2, { rx_arch: 2, loopback: 1, user_procs: 4 })
  configure_network({ ports: [], routes: [], neighbours: [] })
  run_program('waiter', waiter_sym, 0, { cpu: 0 })
  run_program('sender', sender_sym, 0, { cpu: 1 })
  return args
}
export function prepare(args: EpollArgs): void {
  args_of.args = args
  secondary()
}
const clock = (): void => clock_chip(1)
export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, clock }
export const describe = describeAddress
export const outcome = (): string => `${r.waits} waits`

export function invariant(args: EpollArgs): void {
  if (r.ended !== 2 || r.wrong !== 0 || r.taken !== args.datagrams)
    throw new Error(`${r.ended} ended, ${r.taken} came, ${r.wrong} wrong`)
  nothing_leaked()
}
