/**
 * Two threads of a process, on two CPUs: one closes a pipe that epoll files watch, while the other writes to it (ep_poll_callback
 * against eventpoll_release), and then closes an epoll file while the first one closes what that watches (ep_free against
 * eventpoll_release). The broken twin looks without a lock whether anybody watches the file, as
 * 2.6.11 does: then ep_free may still hold the lock of a file that is gone.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { list_empty } from '../../../src/abi/list.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { HALTING, power_down } from '../../../src/arch/machine.js'
import { file_hooks } from '../../../src/fs/file.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { current } from '../../../src/sched/sched.js'
import { run_program } from '../../../src/syscall/process.js'
import { close, type Libc, malloc, sched_yield, write } from '../../../src/user/libc.js'
import {
  EPOLL_CTL_ADD,
  EPOLLIN,
  EPOLLOUT,
  epoll_create,
  epoll_ctl,
  epoll_event,
  epoll_wait,
  pipe_pair,
} from '../../../src/user/libc_file.js'
import { SIG_IGN, SIGPIPE, signal } from '../../../src/user/libsignal.js'
import { clock_chip, cpu, nothing_leaked, power_on, secondary } from './machine.js'

export interface EpollCloseArgs {
  rounds: number
  broken?: boolean
}

class result extends Struct {
  declare ended: number
  declare round: number
  declare done: number
  declare wrong: number
  declare writer: number
  declare epoll: number
  declare buf: number
}
const RESULT: Layout<result> = layout('epollclose_result', result, {
  ended: word,
  round: word, // that was begun
  done: word, // by the second thread
  wrong: word,
  writer: word, // descriptors of the second thread's round
  epoll: word,
  buf: word, // in the memory of both
})
const r = DEFINE_STATIC('epollclose_result', RESULT)
const [ENDED, ROUND, DONE] = [r.addr, r.addr + RESULT.offset('round'), r.addr + RESULT.offset('done')]
const args_of: { args: EpollCloseArgs } = { args: { rounds: 0 } }
const sound = file_hooks.eventpoll_release

function end(): number {
  if (fetch_add(ENDED, 1) === 1) power_down(HALTING)
  return 0
}

const second_sym = symbol('test_epollclose_second', function* (): Libc {
  for (let round = 1; round <= args_of.args.rounds; round++) {
    while (load(ROUND) < round) yield* sched_yield()
    yield* write(r.writer, r.buf, 1) // the reader may be gone
    yield* close(r.epoll)
    yield* close(r.writer)
    store(DONE, round)
  }
  return end()
})

const first_sym = symbol('test_epollclose_first', function* (): Libc {
  yield* signal(SIGPIPE, SIG_IGN)
  const stays = yield* epoll_create(1)
  const event = epoll_event(malloc(12), EPOLLIN, 1)
  const at = malloc(24)
  r.buf = malloc(1)
  run_program('second', second_sym, 0, { cpu: 1, shares: current() })
  for (let round = 1; round <= args_of.args.rounds; round++) {
    const [reader, writer] = yield* pipe_pair()
    const goes = yield* epoll_create(1)
    for (const ep of [stays, goes]) if ((yield* epoll_ctl(ep, EPOLL_CTL_ADD, reader, event)) !== 0) r.wrong++
    const [lonely, other] = yield* pipe_pair() // only the epoll file that goes watches it
    if ((yield* epoll_ctl(goes, EPOLL_CTL_ADD, lonely, event)) !== 0) r.wrong++
    epoll_event(event, EPOLLOUT, 2)
    if ((yield* epoll_ctl(goes, EPOLL_CTL_ADD, writer, event)) !== 0) r.wrong++
    epoll_event(event, EPOLLIN, 1)
    r.writer = writer
    r.epoll = goes
    store(ROUND, round)
    yield* epoll_wait(stays, at, 2, 0)
    for (const fd of round % 2 === 0 ? [reader, lonely] : [lonely, reader]) yield* close(fd)
    yield* close(other)
    if ((yield* epoll_wait(stays, at, 2, 0)) !== 0) r.wrong++ // what it watched is gone
    while (load(DONE) < round) yield* sched_yield()
  }
  yield* close(stays)
  return end()
})

export function setup(args: EpollCloseArgs): EpollCloseArgs {
  power_on(2, { rx_arch: 2, user_procs: 4 })
  configure_network({ ports: [], routes: [], neighbours: [] })
  run_program('first', first_sym, 0, { cpu: 0 })
  return args
}
export function prepare(args: EpollCloseArgs): void {
  args_of.args = args
  file_hooks.eventpoll_release =
    args.broken === true
      ? function* (filp) {
          if (!list_empty(filp.f_ep_links)) yield* sound(filp)
        }
      : sound
  secondary()
}
const clock = (): void => clock_chip(1)
export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, clock }
export const describe = describeAddress
export const outcome = (): string => `${r.ended} ended`

export function invariant(args: EpollCloseArgs): void {
  if (r.ended !== 2 || r.wrong !== 0 || r.done !== args.rounds)
    throw new Error(`${r.ended} ended, ${r.done} rounds, ${r.wrong} wrong`)
  nothing_leaked()
}
