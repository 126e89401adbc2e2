/**
 * Two processes of CPU 0 sleep until they are sent something, while one on CPU 1, who sends it, makes them more and less urgent. All get to their end:
 * a task that changes its place in the run queue is neither lost nor in two places.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { HALTING, POWER, power_down, RUNNING } from '../../../src/arch/machine.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { run_program } from '../../../src/syscall/process.js'
import {
  bind,
  close,
  getpid,
  type Libc,
  malloc,
  recv,
  sched_yield,
  sendto,
  sockaddr_in,
  socket,
} from '../../../src/user/libc.js'
import { getpriority, PRIO_PROCESS, setpriority } from '../../../src/user/libresource.js'
import { clock_chip, cpu, eth_ports, nothing_leaked, power_on, secondary } from './machine.js'

export interface NiceArgs {
  rounds: number
  ticks: number
}
class result extends Struct {
  declare pid0: number
  declare pid1: number
  declare ended: number
  declare wrong: number
}
const RESULT: Layout<result> = layout('nice_result', result, {
  pid0: word,
  pid1: word,
  ended: word,
  wrong: word,
})
const r = DEFINE_STATIC('nice_result', RESULT)
const ENDED = r.addr + RESULT.offset('ended')
const PORT = 700

const worker_sym = symbol('test_nice_worker', function* (arg: number): Libc {
  const fd = yield* socket(2, 2, 0)
  const buf = malloc(32)
  yield* bind(fd, sockaddr_in(buf, 0, PORT + (arg & 1)), 16)
  store(r.addr + 4 * (arg & 1), yield* getpid())
  for (let k = 0; k < arg >> 1; k++) {
    yield* recv(fd, buf, 32, 0)
    yield* sched_yield()
  }
  yield* close(fd)
  fetch_add(ENDED, 1)
  return 0
})
const operator_sym = symbol('test_nice_operator', function* (rounds: number): Libc {
  const fd = yield* socket(2, 2, 0)
  const to = malloc(16)
  for (let n = 0; (load(r.addr) === 0 || load(r.addr + 4) === 0) && n < 1000; n++) yield* sched_yield()
  for (let k = 0; k < rounds; k++) {
    for (const n of [0, 1]) {
      const pid = load(r.addr + 4 * n)
      const value = ((k * 7) % 39) - 20
      const err = yield* setpriority(PRIO_PROCESS, pid, value)
      const now = yield* getpriority(PRIO_PROCESS, pid)
      if (err !== 0 || now !== 20 - value) store(r.addr + RESULT.offset('wrong'), now)
      if ((yield* sendto(fd, to, 16, 0, sockaddr_in(to, 0x7f000001, PORT + n), 16)) !== 16)
        store(r.addr + RESULT.offset('wrong'), 99)
    }
  }
  yield* close(fd)
  fetch_add(ENDED, 1)
  return 0
})

export function setup(args: NiceArgs): NiceArgs {
  power_on(2, { rx_arch: 2, nports: 1, nqueues: 1, loopback: 1, user_procs: 4 })
  configure_network({ ports: eth_ports(1, 1), routes: [], neighbours: [] })
  for (const n of [0, 1]) run_program(`worker${n}`, worker_sym, args.rounds * 2 + n, { cpu: 0 })
  run_program('operator', operator_sym, args.rounds, { cpu: 1 })
  return args
}
export const prepare = secondary

function operator(): void {
  while (load(ENDED) < 3) if (load(POWER) !== RUNNING) return
  power_down(HALTING)
}
const clock = (args: NiceArgs): void => clock_chip(args.ticks)

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, operator, clock }
export const describe = describeAddress

export function invariant(): void {
  if (r.wrong !== 0) throw new Error(`somebody was told ${r.wrong}`)
  nothing_leaked()
}
