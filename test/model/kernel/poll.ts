/**
 * A process on CPU 0 waits for its sockets by poll or select, without a time limit, and takes what comes. One on CPU 1 sends to
 * them, each time when the first one is about to wait and never before: a wake-up that is lost leaves both asleep for ever.
 * Two broken twins have the way to sleep in the wrong order.
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
import { set_current_state } from '../../../src/sched/sched.js'
import { TASK_INTERRUPTIBLE, TASK_RUNNING } from '../../../src/sched/task.js'
import { run_program } from '../../../src/syscall/process.js'
import {
  bind,
  close,
  type Libc,
  malloc,
  mem,
  poll,
  recv,
  sched_yield,
  select,
  sendto,
  sockaddr_in,
  socket,
  store32,
} from '../../../src/user/libc.js'
import { clock_chip, cpu, nothing_leaked, power_on, secondary } from './machine.js'

export interface PollArgs {
  call: 'poll' | 'select'
  datagrams: number
  ticks: number
  /** `state`: about to sleep only after it has looked. `queue`: looks at a socket before it is on its queue. */
  twin?: 'state' | 'queue'
}
const TWINS = [undefined, 'state', 'queue'] as const
/** Tables of operations that are broken already, on this CPU. */
const broken = new Set<proto_ops>()

/** From now on this socket, and its like, do what they are asked by poll in the wrong order. */
function break_poll(fd: number, twin: 'state' | 'queue'): void {
  const filp = fget(fd)!
  const ops = sock_ops(SOCKET.ref(filp.private_data))
  fput_test(filp)
  if (broken.has(ops)) return
  broken.add(ops)
  const sound = ops.poll!
  ops.poll = (sock, pt, nonblock) => {
    if (twin === 'queue') {
      const mask = sound(sock, null, nonblock)
      sound(sock, pt, nonblock)
      return mask
    }
    set_current_state(TASK_RUNNING)
    const mask = sound(sock, pt, nonblock)
    set_current_state(TASK_INTERRUPTIBLE)
    return mask
  }
}

class result extends Struct {
  declare ended: number
  declare asked: number
  declare taken: number
  declare waits: number
  declare wrong: number
}
const RESULT: Layout<result> = layout('poll_result', result, {
  ended: word,
  asked: word, // for so many datagrams, by the waiter
  taken: word,
  waits: word,
  wrong: word,
})
const r = DEFINE_STATIC('poll_result', RESULT)
const ENDED = r.addr
const ASKED = r.addr + RESULT.offset('asked')
const PORTS = [701, 702]
const MSG_DONTWAIT = 0x40
/** Looks of the sender: some ten thousand steps, a whole run is a third of that. */
const PATIENCE = 1000

function end(): number {
  if (fetch_add(ENDED, 1) === 1) power_down(HALTING)
  return 0
}

/** How many of the sockets have something; `at`: room for pollfds or for a set. */
function* wait(by_poll: boolean, fds: number[], at: number): Libc {
  if (by_poll) {
    fds.forEach((fd, k) => {
      store32(at + 8 * k, fd)
      store32(at + 8 * k + 4, 1)
    })
    return yield* poll(at, fds.length, -1)
  }
  store32(
    at,
    fds.reduce((set, fd) => set | (1 << fd), 0),
  )
  return yield* select(Math.max(...fds) + 1, at, 0, 0, 0)
}

function waiter(by_poll: boolean): (arg: number) => Libc {
  return function* (arg) {
    const twin = TWINS[arg >> 8]
    const fds: number[] = []
    for (const port of PORTS) {
      const fd = yield* socket(2, 2, 0)
      yield* bind(fd, sockaddr_in(malloc(16), 0, port), 16)
      fds.push(fd)
    }
    if (twin !== undefined) break_poll(fds[0]!, twin)
    const [at, buf] = [malloc(16), malloc(16)]
    while (r.taken < (arg & 0xff)) {
      store(ASKED, r.taken + 1)
      const n = yield* wait(by_poll, fds, at)
      r.waits++
      let got = 0
      for (const fd of fds) if ((yield* recv(fd, buf, 16, MSG_DONTWAIT)) === 5) got++
      if (n < 1 || got < n) r.wrong++ // what poll saw is there
      r.taken += got
    }
    for (const fd of fds) yield* close(fd)
    return end()
  }
}
const poller_sym = symbol('test_poller', waiter(true))
const selector_sym = symbol('test_selector', waiter(false))

const sender_sym = symbol('test_poll_sender', function* (datagrams: number): Libc {
  const fd = yield* socket(2, 2, 0)
  const to = malloc(16)
  const buf = malloc(8)
  mem(buf, 5).fill(65)
  for (let k = 0; k < datagrams; k++) {
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

export function setup(args: PollArgs): PollArgs {
  power_on(2, { rx_arch: 2, loopback: 1, user_procs: 4 })
  configure_network({ ports: [], routes: [], neighbours: [] })
  const arg = args.datagrams | (TWINS.indexOf(args.twin) << 8)
  run_program('waiter', args.call === 'poll' ? poller_sym : selector_sym, arg, { cpu: 0 })
  run_program('sender', sender_sym, args.datagrams, { cpu: 1 })
  return args
}
export const prepare = secondary
const clock = (args: PollArgs): void => clock_chip(args.ticks)
export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, clock }
export const describe = describeAddress
export const outcome = (): string => `${r.waits} waits`

export function invariant(args: PollArgs): void {
  if (r.ended !== 2 || r.wrong !== 0 || r.taken !== args.datagrams)
    throw new Error(`${r.ended} ended, ${r.taken} came, ${r.wrong} wrong`)
  nothing_leaked()
}
