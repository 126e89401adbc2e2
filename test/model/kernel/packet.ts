/**
 * A packet socket on lo: a program on CPU 0 reads until it is told that the device is down, and closes; one on CPU 1 sends
 * through lo and takes it down meanwhile. Who does not hear of it sleeps for ever; who closes while a packet comes must
 * leave nothing behind.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { HALTING, power_down } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { dev_close, dev_get_by_name, dev_put, rtnl_lock, rtnl_unlock } from '../../../src/net/core/netdevice.js'
import { run_program } from '../../../src/syscall/process.js'
import {
  bind,
  close,
  type Libc,
  malloc,
  recv,
  sched_yield,
  sendto,
  sockaddr_in,
  socket,
} from '../../../src/user/libc.js'
import { AF_PACKET, ETH_P_ALL, sockaddr_ll } from '../../../src/user/libpacket.js'
import { clock_chip, cpu, nothing_leaked, power_on, secondary } from './machine.js'

export interface PacketArgs {
  datagrams: number
  /** Ticks of the clock for each CPU. */
  ticks: number
  /** The reader closes after its first packet instead of when the device is down. */
  hasty: boolean
}

class result extends Struct {
  declare ended: number
  declare seen: number
  declare error: number
  declare open: number
}
const RESULT: Layout<result> = layout('packet_result', result, { ended: word, seen: word, error: word, open: word })
const r = DEFINE_STATIC('packet_result', RESULT)
const at = (field: 'ended' | 'seen' | 'error' | 'open'): number => r.addr + RESULT.offset(field)
const LO = 1
const ENETDOWN = -100

/** Whoever of the two ends last turns the machine off. */
function end(): number {
  if (fetch_add(at('ended'), 1) === 1) power_down(HALTING)
  return 0
}
const reader_sym = symbol('test_packet_reader', function* (hasty: number): Libc {
  const fd = yield* socket(AF_PACKET, 3, 0) // bound below, for the first time: no grace period to wait for
  yield* bind(fd, sockaddr_ll(malloc(20), LO, ETH_P_ALL), 20)
  store(at('open'), 1)
  const buf = malloc(256)
  let n = yield* recv(fd, buf, 256, 0)
  for (; n > 0; n = hasty === 0 ? yield* recv(fd, buf, 256, 0) : ENETDOWN) fetch_add(at('seen'), 1)
  store(at('error'), n)
  yield* close(fd)
  return end()
})
const operator_sym = symbol('test_packet_operator', function* (datagrams: number): Libc {
  while (load(at('open')) === 0) yield* sched_yield()
  const fd = yield* socket(2, 2, 0)
  const to = sockaddr_in(malloc(16), 0x7f000001, 9)
  for (let k = 0; k < datagrams; k++) yield* sendto(fd, malloc(8), 8, 0, to, 16)
  yield* rtnl_lock()
  const lo = dev_get_by_name('lo')!
  yield* dev_close(lo)
  dev_put(lo)
  rtnl_unlock()
  yield* close(fd)
  return end()
})

export function setup(args: PacketArgs): PacketArgs {
  power_on(2, { rx_arch: 2, loopback: 1, user_procs: 4 })
  configure_network({ ports: [], routes: [], neighbours: [] })
  run_program('reader', reader_sym, args.hasty ? 1 : 0, { cpu: 0 })
  run_program('operator', operator_sym, args.datagrams, { cpu: 1 })
  return args
}

export const prepare = secondary
const clock = (args: PacketArgs): void => clock_chip(args.ticks)
export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, clock }
export const describe = describeAddress
export const outcome = (): string => (RAM.i32[at('seen') >> 2]! > 0 ? 'saw packets' : 'saw none')

export function invariant(): void {
  const error = RAM.i32[at('error') >> 2]!
  if (error !== ENETDOWN) throw new Error(`the reader was told ${error}`)
  nothing_leaked()
}
