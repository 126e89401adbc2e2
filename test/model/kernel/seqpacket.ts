/**
 * Two processes on CPU 1 connect to one on CPU 0 that listens for one connection at a time, accepts one of them and goes: the other is
 * refused while it waits, or reset before it was accepted. Each sends a socket in a message, whether or not anybody will receive it,
 * so that the collector of files in flight looks at connections that come and go.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { HALTING, power_down } from '../../../src/arch/machine.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { run_program } from '../../../src/syscall/process.js'
import {
  accept,
  bind,
  close,
  connect,
  type Libc,
  listen,
  malloc,
  recv,
  sched_yield,
  sendmsg,
  sockaddr_un,
  socket,
  store32,
} from '../../../src/user/libc.js'
import { message } from '../../../src/user/msg.js'
import { clock_chip, cpu, nothing_leaked, power_on, secondary } from './machine.js'

class result extends Struct {
  declare ended: number
  declare bound: number
  declare heard: number
  declare refused: number
  declare reset: number
  declare closed: number
  declare other: number
}
const RESULT: Layout<result> = layout('seqpacket_result', result, {
  ended: word,
  bound: word,
  heard: word,
  refused: word,
  reset: word,
  closed: word,
  other: word,
})
const r = DEFINE_STATIC('seqpacket_result', RESULT)
const at = (field: keyof typeof r & string): number => r.addr + RESULT.offset(field)
const NAME = '\0model'
const [ECONNREFUSED, ECONNRESET, EPIPE] = [-111, -104, -32]

function end(): number {
  if (fetch_add(at('ended'), 1) === 2) power_down(HALTING)
  return 0
}
const server_sym = symbol('test_seqpacket_server', function* (): Libc {
  const l = yield* socket(1, 5, 0)
  const addr = malloc(110)
  yield* bind(l, addr, sockaddr_un(addr, NAME))
  yield* listen(l, 0)
  store(at('bound'), 1)
  const fd = yield* accept(l, 0, 0)
  if ((yield* recv(fd, addr, 8, 0)) === 1) r.heard++
  yield* close(l)
  yield* close(fd)
  return end()
})
/** A message that carries a socket which nobody else has. */
function* pass(fd: number): Libc {
  const m = message(malloc(8))
  m.reset(1)
  const rights = yield* socket(1, 5, 0)
  for (const [k, word] of [16, 1, 1, rights].entries()) store32(m.control + 4 * k, word)
  store32(m.at, 0)
  store32(m.at + 4, 0)
  store32(m.at + 20, 16)
  const ret = yield* sendmsg(fd, m.at, 0)
  yield* close(rights)
  return ret
}
function count(err: number): void {
  if (err === ECONNREFUSED) fetch_add(at('refused'), 1)
  else if (err === ECONNRESET) fetch_add(at('reset'), 1)
  else if (err === 0 || err === EPIPE) fetch_add(at('closed'), 1)
  else store(at('other'), err)
}
const client_sym = symbol('test_seqpacket_client', function* (): Libc {
  while (load(at('bound')) === 0) yield* sched_yield()
  const fd = yield* socket(1, 5, 0)
  const addr = malloc(110)
  let err = yield* connect(fd, addr, sockaddr_un(addr, NAME))
  if (err === 0) err = yield* pass(fd)
  if (err === 1) err = yield* recv(fd, addr, 8, 0)
  count(err)
  yield* close(fd)
  return end()
})

export function setup(): object {
  power_on(2, { rx_arch: 2, user_procs: 4 })
  configure_network({ ports: [], routes: [], neighbours: [] })
  run_program('server', server_sym, 0, { cpu: 0 })
  run_program('client', client_sym, 0, { cpu: 1 })
  run_program('client', client_sym, 0, { cpu: 1 })
  return {}
}
export const prepare = secondary
const clock = (): void => clock_chip(2)
export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, clock }
export const describe = describeAddress
export const outcome = (): string => `${r.closed} closed, ${r.refused} refused, ${r.reset} reset`

export function invariant(): void {
  if (r.ended !== 3 || r.heard !== 1 || r.other !== 0 || r.closed < 1 || r.closed + r.refused + r.reset !== 2)
    throw new Error(`${r.ended} ended, ${r.heard} heard, ${outcome()}, one heard ${r.other}`)
  nothing_leaked()
}
