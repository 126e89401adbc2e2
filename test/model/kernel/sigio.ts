/**
 * A process on CPU 0 takes what comes to its UDP socket whenever SIGIO says so, and sleeps in sigsuspend meanwhile. One on CPU 1
 * sends, each time when the first one is about to sleep: the softirq there tells the owner of the socket. The socket stops to
 * tell and begins anew between datagrams, and is closed while it tells. The broken twin lets SIGIO through before it
 * sleeps, as pause would, and not at once: what comes in between is no reason to wake any more.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { HALTING, power_down } from '../../../src/arch/machine.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { run_program } from '../../../src/syscall/process.js'
import {
  bind,
  close,
  fcntl,
  getpid,
  type Libc,
  malloc,
  mem,
  recv,
  sched_yield,
  sendto,
  sockaddr_in,
  socket,
} from '../../../src/user/libc.js'
import { F_SETFL, F_SETOWN, O_ASYNC, O_NONBLOCK } from '../../../src/user/libc_file.js'
import {
  pause,
  SIG_BLOCK,
  SIG_UNBLOCK,
  SIGIO,
  sigaction,
  sigmask,
  sigprocmask,
  sigsuspend,
} from '../../../src/user/libsignal.js'
import { clock_chip, cpu, nothing_leaked, power_on, secondary } from './machine.js'

export interface SigioArgs {
  datagrams: number
  broken?: boolean
}

class result extends Struct {
  declare ended: number
  declare asked: number
  declare taken: number
  declare sent: number
  declare told: number
  declare wrong: number
}
const RESULT: Layout<result> = layout('sigio_result', result, {
  ended: word,
  asked: word,
  taken: word,
  sent: word, // by the sender
  told: word, // signals
  wrong: word,
})
const r = DEFINE_STATIC('sigio_result', RESULT)
const ENDED = r.addr
const [ASKED, SENT] = [r.addr + RESULT.offset('asked'), r.addr + RESULT.offset('sent')]
/** Looks of the sender: some ten thousand steps, a whole run is a third of that. */
const PATIENCE = 1000
const args_of: { args: SigioArgs } = { args: { datagrams: 0 } }

function end(): number {
  if (fetch_add(ENDED, 1) === 1) power_down(HALTING)
  return 0
}

/** Until SIGIO has come. */
function* sleep(): Generator<void, void, void> {
  if (args_of.args.broken !== true) {
    yield* sigsuspend(0)
    return
  }
  yield* sigprocmask(SIG_UNBLOCK, sigmask(SIGIO))
  while (load(SENT) <= r.taken) yield* sched_yield() // a while
  yield* pause()
  yield* sigprocmask(SIG_BLOCK, sigmask(SIGIO))
}

const owner_sym = symbol('test_sigio_owner', function* (): Libc {
  yield* sigprocmask(SIG_BLOCK, sigmask(SIGIO))
  yield* sigaction(SIGIO, function* () {
    r.told++
  })
  const fd = yield* socket(2, 2, 0)
  yield* bind(fd, sockaddr_in(malloc(16), 0, 701), 16)
  yield* fcntl(fd, F_SETOWN, yield* getpid())
  const buf = malloc(16)
  while (r.taken < args_of.args.datagrams) {
    yield* fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC)
    store(ASKED, r.taken + 1)
    while ((yield* recv(fd, buf, 16, 0)) !== 5) yield* sleep()
    r.taken++
    yield* fcntl(fd, F_SETFL, O_NONBLOCK)
  }
  yield* fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC)
  store(ASKED, r.taken + 1) // one more: to a socket that goes
  yield* close(fd)
  return end()
})

const sender_sym = symbol('test_sigio_sender', function* (): Libc {
  const fd = yield* socket(2, 2, 0)
  const [to, buf] = [sockaddr_in(malloc(16), 0x7f000001, 701), malloc(8)]
  mem(buf, 5).fill(65)
  for (let k = 0; k <= args_of.args.datagrams; k++) {
    for (let n = 0; load(ASKED) <= k; n++) {
      if (n === PATIENCE) return 0 // the owner has not got the last one: nobody tells it any more
      yield* sched_yield()
    }
    if ((yield* sendto(fd, buf, 5, 0, to, 16)) !== 5) r.wrong++
    store(SENT, k + 1)
  }
  yield* close(fd)
  return end()
})

export function setup(args: SigioArgs): SigioArgs {
  power_on(2, { rx_arch: 2, loopback: 1, user_procs: 4 })
  configure_network({ ports: [], routes: [], neighbours: [] })
  run_program('owner', owner_sym, 0, { cpu: 0 })
  run_program('sender', sender_sym, 0, { cpu: 1 })
  return args
}
export function prepare(args: SigioArgs): void {
  args_of.args = args
  secondary()
}
const clock = (): void => clock_chip(1)
export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, clock }
export const describe = describeAddress
export const outcome = (): string => (r.told > 0 ? 'told' : 'not told')

export function invariant(args: SigioArgs): void {
  if (r.ended !== 2 || r.wrong !== 0 || r.taken !== args.datagrams)
    throw new Error(`${r.ended} ended, ${r.taken} came, ${r.wrong} wrong`)
  nothing_leaked()
}
