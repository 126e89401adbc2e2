/**
 * A process on CPU 0 sleeps in a call until a signal comes that it has a handler for; one on CPU 1 sends it as many, and sleeps
 * after each until it is told by a signal that it was seen. One that is lost between the look and the sleep leaves both asleep.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { type Sym, symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load } from '../../../src/arch/atomic.js'
import { HALTING, power_down } from '../../../src/arch/machine.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import type { Program } from '../../../src/sched/task.js'
import { run_program } from '../../../src/syscall/process.js'
import { bind, close, type Libc, malloc, recv, sendto, sockaddr_in, socket } from '../../../src/user/libc.js'
import {
  kill,
  SA_RESTART,
  SIG_SETMASK,
  SIGUSR1,
  SIGUSR2,
  sigaction,
  sigmask,
  sigprocmask,
  sigsuspend,
} from '../../../src/user/libsignal.js'
import { clock_chip, cpu, nothing_leaked, power_on, secondary } from './machine.js'

export interface SignalArgs {
  /** sigsuspend, or a recv that is begun anew after each signal. */
  call: 'sigsuspend' | 'recv'
  signals: number
  ticks: number
}

class result extends Struct {
  declare ended: number
  declare pid: number
  declare sender: number
  declare seen: number
  declare wrong: number
}
const RESULT: Layout<result> = layout('signal_result', result, {
  ended: word,
  pid: word,
  sender: word,
  seen: word,

  wrong: word,
})
const r = DEFINE_STATIC('signal_result', RESULT)
const ENDED = r.addr
const SEEN = r.addr + RESULT.offset('seen')
const EINTR = -4
const [LOOPBACK, PORT] = [0x7f000001, 700]

function end(): number {
  if (fetch_add(ENDED, 1) === 1) power_down(HALTING)
  return 0
}

function* seen(): Generator<void, void, void> {
  fetch_add(SEEN, 1)
  if ((yield* kill(r.sender, SIGUSR2)) !== 0) r.wrong++
}
const seen_sym = symbol('test_seen', seen)

/** Each signal ends one sigsuspend; in between it is blocked, as it is from the start. */
const suspends_sym = symbol('test_suspends', function* (signals: number): Libc {
  yield* sigaction(SIGUSR1, seen_sym)
  yield* kill(r.sender, SIGUSR2)
  for (let k = 1; k <= signals; k++) if ((yield* sigsuspend(0)) !== EINTR || load(SEEN) !== k) r.wrong++
  return end()
})
/** The same recv all the time, begun anew after each signal, until something is sent. */
const receives_sym = symbol('test_receives', function* (): Libc {
  const fd = yield* socket(2, 2, 0)
  yield* bind(fd, sockaddr_in(malloc(16), LOOPBACK, PORT), 16)
  yield* sigaction(SIGUSR1, seen_sym, SA_RESTART)
  yield* sigprocmask(SIG_SETMASK, 0)
  yield* kill(r.sender, SIGUSR2)
  if ((yield* recv(fd, malloc(4), 4, 0)) !== 3) r.wrong++
  yield* close(fd)
  return end()
})

const told_sym = symbol('test_told', function* () {})
const sender_sym = symbol('test_signal_sender', function* (signals: number): Libc {
  yield* sigaction(SIGUSR2, told_sym)
  for (let k = 0; k <= signals; k++) {
    if (k > 0 && (yield* kill(r.pid, SIGUSR1)) !== 0) r.wrong++
    if ((yield* sigsuspend(0)) !== EINTR || load(SEEN) !== k) r.wrong++
  }
  const fd = yield* socket(2, 2, 0)
  yield* sendto(fd, malloc(4), 3, 0, sockaddr_in(malloc(16), LOOPBACK, PORT), 16)
  yield* close(fd)
  return end()
})

export function setup(args: SignalArgs): SignalArgs {
  power_on(2, { rx_arch: 2, loopback: 1, user_procs: 4 })
  configure_network({ ports: [], routes: [], neighbours: [] })
  const begin = (program: Sym<Program>, cpu: number, sig: number): number =>
    run_program('test', program, args.signals, { cpu }, p => {
      p.blocked = sigmask(sig)
    })!.pid
  r.pid = begin(args.call === 'recv' ? receives_sym : suspends_sym, 0, SIGUSR1)
  r.sender = begin(sender_sym, 1, SIGUSR2)
  return args
}
export const prepare = secondary
const clock = (args: SignalArgs): void => clock_chip(args.ticks)
export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, clock }
export const describe = describeAddress
export const outcome = (): string => `${r.seen} seen`

export function invariant(args: SignalArgs): void {
  if (r.ended !== 2 || r.wrong !== 0 || r.seen !== args.signals)
    throw new Error(`${r.ended} ended, ${r.seen} seen, ${r.wrong} wrong`)
  nothing_leaked()
}
