/**
 * A process on CPU 1 sends more Unix datagrams than the queue of the one on CPU 0 holds; that one takes some of them, and closes its
 * socket: the sender sleeps and is woken, and hears in the end that nobody is there.
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
  type Libc,
  malloc,
  recv,
  sched_yield,
  sendto,
  sockaddr_un,
  socket,
} from '../../../src/user/libc.js'
import { clock_chip, cpu, nothing_leaked, power_on, secondary } from './machine.js'

class result extends Struct {
  declare ended: number
  declare bound: number
  declare took: number
  declare last: number
}
const RESULT: Layout<result> = layout('unix_result', result, { ended: word, bound: word, took: word, last: word })
const r = DEFINE_STATIC('unix_result', RESULT)
const ENDED = r.addr
const BOUND = r.addr + RESULT.offset('bound')
const NAME = '\0model'

function end(): number {
  if (fetch_add(ENDED, 1) === 1) power_down(HALTING)
  return 0
}
const taker_sym = symbol('test_unix_taker', function* (messages: number): Libc {
  const fd = yield* socket(1, 2, 0)
  const at = malloc(110)
  yield* bind(fd, at, sockaddr_un(at, NAME))
  store(BOUND, 1)
  const buf = malloc(8)
  for (let k = 0; k < messages; k++) if ((yield* recv(fd, buf, 8, 0)) === 4) r.took++
  yield* close(fd)
  return end()
})
const sender_sym = symbol('test_unix_sender', function* (): Libc {
  while (load(BOUND) === 0) yield* sched_yield()
  const fd = yield* socket(1, 2, 0)
  const at = malloc(110)
  const len = sockaddr_un(at, NAME)
  let n = 4
  while (n === 4) n = yield* sendto(fd, at, 4, 0, at, len)
  r.last = n
  yield* close(fd)
  return end()
})

export function setup(args: { messages: number }): { messages: number } {
  power_on(2, { rx_arch: 2, user_procs: 4 })
  configure_network({ ports: [], routes: [], neighbours: [] })
  run_program('taker', taker_sym, args.messages, { cpu: 0 })
  run_program('sender', sender_sym, 0, { cpu: 1 })
  return args
}
export const prepare = secondary
const clock = (): void => clock_chip(2)
export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, clock }
export const describe = describeAddress
export const outcome = (): string => `${r.took} taken`

export function invariant(args: { messages: number }): void {
  if (r.ended !== 2 || r.took !== args.messages || r.last !== -111)
    throw new Error(`${r.ended} ended, ${r.took} taken, the sender heard ${r.last}`)
  nothing_leaked()
}
