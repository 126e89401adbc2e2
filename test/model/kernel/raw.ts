/**
 * A process on CPU 0 has a raw socket with an error queue, takes what comes and closes it in the midst of it; one on CPU 1 sends
 * echo requests and datagrams to a closed port of this machine, so that copies, answers and errors are on their way.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add } from '../../../src/arch/atomic.js'
import { HALTING, power_down } from '../../../src/arch/machine.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { run_program } from '../../../src/syscall/process.js'
import {
  close,
  type Libc,
  malloc,
  mem,
  recv,
  sched_yield,
  sendto,
  set_word,
  sockaddr_in,
  socket,
} from '../../../src/user/libc.js'
import { in_cksum } from '../../../src/user/msg.js'
import { clock_chip, cpu, nothing_leaked, power_on, secondary } from './machine.js'

class result extends Struct {
  declare ended: number
  declare packets: number
  declare errors: number
  declare wrong: number
}
const RESULT: Layout<result> = layout('raw_result', result, { ended: word, packets: word, errors: word, wrong: word })
const r = DEFINE_STATIC('raw_result', RESULT)
const ENDED = r.addr
const LOOPBACK = 0x7f000001

function end(): number {
  if (fetch_add(ENDED, 1) === 1) power_down(HALTING)
  return 0
}
const taker_sym = symbol('test_raw_taker', function* (looks: number): Libc {
  const fd = yield* socket(2, 3, 1)
  yield* set_word(fd, 0, 11, 1)
  const buf = malloc(256)
  for (let k = 0; k < looks; k++) {
    const n = yield* recv(fd, buf, 256, 0x40)
    if (n > 0) r.packets++
    if (n >= 0 && n < 28) r.wrong++
    if ((yield* recv(fd, buf, 256, 0x2040)) >= 0) r.errors++
    yield* sched_yield()
  }
  yield* close(fd)
  return end()
})
const sender_sym = symbol('test_raw_sender', function* (): Libc {
  const fd = yield* socket(2, 3, 1)
  const udp = yield* socket(2, 2, 0)
  yield* set_word(udp, 0, 11, 1)
  const request = malloc(16)
  mem(request, 16).set([8, 0, 0, 0, 0, 1, 0, 1])
  const sum = in_cksum(request, 16)
  mem(request, 16).set([sum >> 8, sum & 255], 2)
  const to = sockaddr_in(malloc(16), LOOPBACK, 9)
  yield* sendto(fd, request, 16, 0, to, 16)
  yield* sendto(udp, request, 16, 0, to, 16)
  const told = yield* recv(udp, request, 16, 0x2040)
  if (told !== 16) r.wrong++
  yield* close(udp)
  yield* close(fd)
  return end()
})

export function setup(args: { looks: number }): void {
  power_on(2, { rx_arch: 2, loopback: 1, user_procs: 4 })
  configure_network({ ports: [], routes: [], neighbours: [] })
  run_program('taker', taker_sym, args.looks, { cpu: 0 })
  run_program('sender', sender_sym, 0, { cpu: 1 })
}
export const prepare = secondary
const clock = (): void => clock_chip(2)
export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, clock }
export const describe = describeAddress
export const outcome = (): string => `${r.packets > 0 ? 'some' : 'no'} packets`

export function invariant(): void {
  if (r.ended !== 2 || r.wrong !== 0) throw new Error(`${r.ended} ended, ${r.wrong} wrong`)
  nothing_leaked()
}
