/**
 * A process on CPU 0 opens and closes a UDP socket again and again in the midst of what comes; one on CPU 1 sends to it, more than its buffer takes, and
 * through a device whose output queue holds one packet. The softirq that delivers has a reference on the socket; who sends hears
 * of a full queue; nothing leaks.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { boot } from '../../../src/arch/boot.js'
import { HALTING, POWER, power_down, RUNNING } from '../../../src/arch/machine.js'
import { Board } from '../../../src/hw/board.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { HISTOGRAM_SLOTS } from '../../../src/lib/histogram.js'
import { run_program } from '../../../src/syscall/process.js'
import {
  bind,
  close,
  type Libc,
  malloc,
  recv,
  sched_yield,
  sendto,
  set_word,
  sockaddr_in,
  socket,
} from '../../../src/user/libc.js'
import { clock_chip, cpu, ip, nothing_leaked, power_on, secondary } from './machine.js'

export interface UdpCloseArgs {
  datagrams: number
  /** So often is the socket opened and closed. */
  rounds: number
  ticks: number
}

class result extends Struct {
  declare bound: number
  declare ended: number
  declare taken: number
  declare full: number
  declare wrong: number
}
const RESULT: Layout<result> = layout('udpclose_result', result, {
  bound: word,
  ended: word,
  taken: word,
  full: word, // how often the sender heard of a full queue
  wrong: word,
})
const r = DEFINE_STATIC('udpclose_result', RESULT)
const BOUND = r.addr
const ENDED = r.addr + RESULT.offset('ended')
const FULL = r.addr + RESULT.offset('full')
const WRONG = r.addr + RESULT.offset('wrong')
const PORT = 700
const SIZE = 100
const [SOL_SOCKET, SO_RCVBUF, SOL_IP, IP_RECVERR] = [1, 8, 0, 11]
const EAGAIN = -11
const ENOBUFS = -105
/** Times that the taker looks before it closes. */
const LOOKS = 2
const MSG_DONTWAIT = 0x40

const taker_sym = symbol('test_udpclose_taker', function* (rounds: number): Libc {
  const buf = malloc(128)
  for (let k = 0; k < rounds; k++) {
    const fd = yield* socket(2, 2, 0)
    yield* set_word(fd, SOL_SOCKET, SO_RCVBUF, 256)
    yield* bind(fd, sockaddr_in(buf, 0, PORT), 16)
    store(BOUND, k + 1)
    for (let n = 0; n < LOOKS; n++) {
      const got = yield* recv(fd, buf, 128, MSG_DONTWAIT)
      if (got === SIZE) r.taken++
      else if (got !== EAGAIN) store(WRONG, got)
    }
    yield* close(fd)
  }
  fetch_add(ENDED, 1)
  return 0
})
const sender_sym = symbol('test_udpclose_sender', function* (datagrams: number): Libc {
  const fd = yield* socket(2, 2, 0)
  const out = yield* socket(2, 2, 0)
  yield* set_word(out, SOL_IP, IP_RECVERR, 1)
  const buf = malloc(128)
  const near = sockaddr_in(malloc(16), 0x7f000001, PORT)
  const far = sockaddr_in(malloc(16), ip(10, 0, 0, 2), 9)
  for (let n = 0; load(BOUND) === 0 && n < 1000; n++) yield* sched_yield()
  for (let k = 0; k < datagrams; k++) {
    const n = yield* sendto(fd, buf, SIZE, 0, near, 16)
    const m = yield* sendto(out, buf, SIZE, 0, far, 16)
    if (m === ENOBUFS) fetch_add(FULL, 1)
    if (n !== SIZE || (m !== SIZE && m !== ENOBUFS)) store(WRONG, n === SIZE ? m : n)
  }
  yield* close(out)
  yield* close(fd)
  fetch_add(ENDED, 1)
  return 0
})

export function setup(args: UdpCloseArgs): UdpCloseArgs {
  power_on(2, { rx_arch: 2, nports: 1, nqueues: 1, loopback: 1, user_procs: 4, tx_queue_len: 1, tx_ring: 2 })
  configure_network({
    ports: [
      {
        name: 'eth0',
        mac: { hi: 0x02000000, lo: 1 },
        mtu: 1500,
        addresses: [{ local: ip(10, 0, 0, 1), prefixlen: 24 }],
        queues: 1,
        promisc: false,
      },
    ],
    routes: [],
    neighbours: [{ dev: 'eth0', address: ip(10, 0, 0, 2), mac: { hi: 0x02000000, lo: 0x0102 } }],
  })
  run_program('taker', taker_sym, args.rounds, { cpu: 0 })
  run_program('sender', sender_sym, args.datagrams, { cpu: 1 })
  return args
}
export const prepare = secondary

/** The wire takes nothing before the sender has heard of a full queue. */
function board(): void {
  const b = new Board({ hz: 1000, ncpus: 2, ports: [{ source: null, capture: true }] }, [
    new Int32Array(HISTOGRAM_SLOTS),
  ])
  b.step(boot.now())
  while (load(ENDED) < 2) {
    if (load(FULL) > 0) b.step(boot.now())
    if (load(POWER) !== RUNNING) return
  }
  power_down(HALTING)
}
const clock = (args: UdpCloseArgs): void => clock_chip(args.ticks)

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, board, clock }
export const describe = describeAddress
export const outcome = (): string => (r.full > 0 ? 'heard of a full queue' : 'all found room')

export function invariant(args: UdpCloseArgs): void {
  if (r.wrong !== 0 || r.bound !== args.rounds) throw new Error(`somebody was told ${r.wrong} in round ${r.bound}`)
  nothing_leaked()
}
