/** Two processes on two CPUs talk over loopback: one sends and looks at what comes back, the other one is the echo service. */

import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { call, symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { HALTING, power_down } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { run_program } from '../../../src/syscall/process.js'
import {
  bind,
  close,
  type Libc,
  malloc,
  recvfrom,
  sched_yield,
  sendto,
  sockaddr_in,
  socket,
  variable,
} from '../../../src/user/libc.js'
import { udpclient_sym } from '../../../src/user/udpecho.js'
import { clock_chip, cpu, nothing_leaked, power_on, secondary } from './machine.js'

export interface UdpArgs {
  datagrams: number
  /** Ticks of the clock for each CPU. */
  ticks: number
  /** The CPU of the client; the service is on CPU 0. */
  client: number
}

const PORT = 7

class result extends Struct {
  declare ended: number
  declare echoed: number
  declare served: number
  declare bound: number
}
const RESULT: Layout<result> = layout('udp_result', result, { ended: word, echoed: word, served: word, bound: word })
const r = DEFINE_STATIC('udp_result', RESULT)
const ENDED = r.addr + RESULT.offset('ended')
const ECHOED = r.addr + RESULT.offset('echoed')
const SERVED = r.addr + RESULT.offset('served')
const BOUND = r.addr + RESULT.offset('bound')

/** Whoever of the two ends last turns the machine off. */
function end(): number {
  if (fetch_add(ENDED, 1) === 1) power_down(HALTING)
  return 0
}
const service_sym = symbol('test_udp_service', function* (): Libc {
  const fd = yield* socket(2, 2, 0)
  const addr = malloc(16)
  yield* bind(fd, sockaddr_in(addr, 0, PORT), 16)
  store(BOUND, 1)
  const buf = malloc(2048)
  const len = variable(16)
  for (let n = -1; n !== 0; ) {
    n = yield* recvfrom(fd, buf, 2048, 0, addr, len)
    const sent = yield* sendto(fd, buf, n, 0, addr, 16)
    if (n < 0 || sent !== n) store(SERVED, sent)
  }
  yield* close(fd)
  return end()
})
const client_sym = symbol('test_udp_client', function* (datagrams: number): Libc {
  while (load(BOUND) === 0) yield* sched_yield()
  store(ECHOED, yield* call(udpclient_sym)((datagrams << 16) | PORT))
  return end()
})

export function setup(args: UdpArgs): UdpArgs {
  power_on(2, { rx_arch: 2, loopback: 1, user_procs: 4 })
  configure_network({ ports: [], routes: [], neighbours: [] })
  run_program('udpecho', service_sym, 0, { cpu: 0 })
  run_program('client', client_sym, args.datagrams, { cpu: args.client })
  return args
}

export const prepare = secondary
const clock = (args: UdpArgs): void => clock_chip(args.ticks)
export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, clock }
export const describe = describeAddress
export const outcome = (): string => `${RAM.i32[ECHOED >> 2]} came back`

export function invariant(args: UdpArgs): void {
  const [echoed, served] = [RAM.i32[ECHOED >> 2], RAM.i32[SERVED >> 2]]
  if (echoed !== args.datagrams || served !== 0) throw new Error(`${echoed} came back, the service says ${served}`)
  nothing_leaked()
}
