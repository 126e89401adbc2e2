/**
 * A thread on CPU 0 sleeps in poll for an epoll file that watches another one, which watches two pipes. Threads on CPUs 1 and 2 write
 * to them: the wake-up goes from the pipe through both files, on two CPUs at a time.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add } from '../../../src/arch/atomic.js'
import { HALTING, power_down } from '../../../src/arch/machine.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { current } from '../../../src/sched/sched.js'
import { run_program } from '../../../src/syscall/process.js'
import { close, type Libc, load32, malloc, poll, read, sched_yield, store32, write } from '../../../src/user/libc.js'
import {
  EPOLL_CTL_ADD,
  EPOLLET,
  EPOLLIN,
  epoll_create,
  epoll_ctl,
  epoll_event,
  epoll_events,
  epoll_wait,
  pipe_pair,
} from '../../../src/user/libc_file.js'
import { clock_chip, cpu, nothing_leaked, power_on, secondary } from './machine.js'

export interface EpollNestArgs {
  rounds: number
}

class result extends Struct {
  declare ended: number
  declare taken: number
  declare wrong: number
  declare buf: number
  declare writer0: number
  declare writer1: number
}
const RESULT: Layout<result> = layout('epollnest_result', result, {
  ended: word,
  taken: word,
  wrong: word,
  buf: word,
  writer0: word,
  writer1: word,
})
const r = DEFINE_STATIC('epollnest_result', RESULT)
const ENDED = r.addr
const args_of: { args: EpollNestArgs } = { args: { rounds: 0 } }

function end(): number {
  if (fetch_add(ENDED, 1) === 2) power_down(HALTING)
  return 0
}

const writer_sym = symbol('test_epollnest_writer', function* (which: number): Libc {
  for (let k = 0; k < args_of.args.rounds; k++) {
    if ((yield* write(which === 0 ? r.writer0 : r.writer1, r.buf, 1)) !== 1) r.wrong++
    yield* sched_yield()
  }
  return end()
})

const waiter_sym = symbol('test_epollnest_waiter', function* (): Libc {
  const [low, high] = [yield* epoll_create(1), yield* epoll_create(1)]
  const pipes = [yield* pipe_pair(), yield* pipe_pair()]
  const [at, fds] = [malloc(24), malloc(8)]
  r.buf = malloc(8)
  r.writer0 = pipes[0]![1]
  r.writer1 = pipes[1]![1]
  yield* epoll_ctl(high, EPOLL_CTL_ADD, low, epoll_event(at, EPOLLIN, 0))
  for (const [fd] of pipes) yield* epoll_ctl(low, EPOLL_CTL_ADD, fd, epoll_event(at, EPOLLIN | EPOLLET, fd))
  for (const which of [0, 1]) run_program('writer', writer_sym, which, { cpu: 1 + which, shares: current() })
  while (r.taken < 2 * args_of.args.rounds) {
    store32(fds, high)
    store32(fds + 4, EPOLLIN)
    if ((yield* poll(fds, 1, -1)) !== 1 || load32(fds + 4) >>> 16 !== EPOLLIN) r.wrong++
    for (const [, fd] of epoll_events(at, yield* epoll_wait(low, at, 2, 0))) r.taken += yield* read(fd, r.buf + 4, 4)
  }
  for (const fd of [low, high, ...pipes.flat()]) yield* close(fd)
  return end()
})

export function setup(args: EpollNestArgs): EpollNestArgs {
  power_on(3, { rx_arch: 2, user_procs: 4 })
  configure_network({ ports: [], routes: [], neighbours: [] })
  run_program('waiter', waiter_sym, 0, { cpu: 0 })
  return args
}
export function prepare(args: EpollNestArgs): void {
  args_of.args = args
  secondary()
}
const clock = (): void => clock_chip(1)
export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, 'CPU 2': cpu, clock }
export const describe = describeAddress
export const outcome = (): string => `${r.taken} bytes`

export function invariant(args: EpollNestArgs): void {
  if (r.ended !== 3 || r.wrong !== 0 || r.taken !== 2 * args.rounds)
    throw new Error(`${r.ended} ended, ${r.taken} came, ${r.wrong} wrong`)
  nothing_leaked()
}
