/**
 * A process takes a device down and up again, and enters its route anew, while two CPUs forward through it and a process with a
 * connected socket sends over it. Routes, neighbours and cached ways die under those who use them. What comes after that gets
 * through; nothing is lost without a reason, nothing leaks.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { boot } from '../../../src/arch/boot.js'
import { HALTING, POWER, power_down, RUNNING } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { Board } from '../../../src/hw/board.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { HISTOGRAM_SLOTS } from '../../../src/lib/histogram.js'
import { dev_change_flags } from '../../../src/net/core/dev_change.js'
import { DROP_REASONS, packet_fates } from '../../../src/net/core/fate.js'
import { dev_get_by_name, dev_put, rtnl_lock, rtnl_unlock } from '../../../src/net/core/netdevice.js'
import { IFF_UP } from '../../../src/net/core/types.js'
import { ip_route_add } from '../../../src/net/ipv4/fib_frontend.js'
import { RTN_UNICAST } from '../../../src/net/ipv4/fib_types.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { run_program } from '../../../src/syscall/process.js'
import { close, connect, type Libc, malloc, send, sockaddr_in, socket } from '../../../src/user/libc.js'
import { arpFrame, parseArp, udpFrame } from '../../helpers/frames.js'
import { clock_chip, cpu, eth_ports, ip, nothing_leaked, power_on, secondary } from './machine.js'

export interface UpDownArgs {
  frames: number
  /** Datagrams of the socket. */
  datagrams: number
  /** The CPU of who changes things; the socket is on the other one. */
  operator: number
  /** Ticks of the clock for each CPU. */
  ticks: number
}

class result extends Struct {
  declare changed: number
  declare ended: number
  declare sent: number
  declare wrong: number
}
const RESULT: Layout<result> = layout('updown_result', result, { changed: word, ended: word, sent: word, wrong: word })
const r = DEFINE_STATIC('updown_result', RESULT)
const CHANGED = r.addr + RESULT.offset('changed')
const ENDED = r.addr + RESULT.offset('ended')
const WRONG = r.addr + RESULT.offset('wrong')
const MACS = ['02:00:00:00:00:01', '02:00:00:00:00:02']
/** What a sender is told of a device that is not there at the moment: ENETDOWN, ENETUNREACH, ENOBUFS, EHOSTUNREACH, EINVAL. */
const EXPECTED = [-100, -101, -105, -113, -22]

/** What `ip link set eth1 down`, `up` and `ip route add` do. */
const operate_sym = symbol('test_updown', function* (): Generator<void, number, void> {
  const eth1 = dev_get_by_name('eth1')!
  yield* rtnl_lock()
  let err = yield* dev_change_flags(eth1, eth1.flags & ~IFF_UP)
  rtnl_unlock()
  yield* rtnl_lock()
  err ||= yield* dev_change_flags(eth1, eth1.flags | IFF_UP)
  const nexthops = [{ gw: ip(10, 0, 1, 2), dev: eth1 }]
  err ||= ip_route_add({ dst: ip(20, 0, 0, 0), prefixlen: 8, type: RTN_UNICAST, nexthops })
  rtnl_unlock()
  dev_put(eth1)
  if (err !== 0) store(WRONG, err)
  store(CHANGED, 1)
  return 0
})
const sender_sym = symbol('test_updown_sender', function* (datagrams: number): Libc {
  const fd = yield* socket(2, 2, 0)
  const to = sockaddr_in(malloc(16), ip(20, 0, 0, 9), 9)
  let connected = yield* connect(fd, to, 16)
  for (let k = 0; k < datagrams; k++) {
    if (connected !== 0) connected = yield* connect(fd, to, 16)
    const n = connected === 0 ? yield* send(fd, to, 16, 0) : connected
    if (n === 16) r.sent++
    else if (!EXPECTED.includes(n)) store(WRONG, n)
  }
  yield* close(fd)
  store(ENDED, 1)
  return 0
})

export function setup(args: UpDownArgs): UpDownArgs {
  power_on(2, { rx_arch: 2, nports: 2, nqueues: 2, user_procs: 4 })
  configure_network({
    ports: eth_ports(2, 2),
    routes: [
      {
        ...{ dst: ip(20, 0, 0, 0), prefixlen: 8, type: 'unicast', metric: 0 },
        nexthops: [{ gw: ip(10, 0, 1, 2), dev: 'eth1', weight: 1 }],
      },
    ],
    neighbours: [],
    sysctl: { 'net.ipv4.neigh.default.locktime_ms': 0 },
  })
  kernel_thread('ip', operate_sym, 0, { cpu: args.operator })
  run_program('sender', sender_sym, args.datagrams, { cpu: 1 - args.operator })
  return args
}

export const prepare = secondary

/** Frames while things change, one more afterwards; when that has come out and the socket is closed, the power goes. */
function board(args: UpDownArgs): void {
  const b = new Board(
    { hz: 1000, ncpus: 2, ports: [0, 1].map(() => ({ source: null, capture: true })) },
    [0, 1].map(() => new Int32Array(HISTOGRAM_SLOTS)),
  )
  let [seen, at, last] = [0, 0, false]
  /** What has come out of eth1; whoever is asked for says who he is. */
  const step = (): void => {
    b.step(boot.now())
    const { data, lengths } = b.captures()[1]!
    for (; seen < lengths.length; at += lengths[seen++]!) {
      const frame = data.subarray(at, at + lengths[seen]!)
      if (frame[12] === 8 && frame[13] === 6) {
        if (parseArp(frame).op === 'who-has') b.nics[1]!.arrive(answer)
      } else if (frame[19] === 99) last = true
    }
  }
  const offer = (k: number): void => {
    const frame = udpFrame({ src: `10.0.0.${2 + k}`, dst: '20.0.0.1', to: MACS[0]!, id: k, sport: 1000 + k, dport: 9 })
    while (!b.nics[0]!.arrive(frame)) step()
  }
  step()
  for (let k = 0; k < args.frames; k++) offer(k)
  while (load(CHANGED) === 0 || load(ENDED) === 0) {
    step()
    if (load(POWER) !== RUNNING) return
  }
  offer(99)
  while (!last) step()
  fetch_add(CHANGED, 1)
  power_down(HALTING)
}
const THEM = '02:00:00:00:02:00'
const answer = arpFrame({
  ...{ op: 2, sha: THEM, sip: '10.0.1.2', tha: MACS[1]!, tip: '10.0.1.1' },
  ...{ from: THEM, to: MACS[1]! },
})

const clock = (args: UpDownArgs): void => clock_chip(args.ticks)

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, board, clock }
export const describe = describeAddress
export const outcome = (): string => `${r.sent > 0 ? 'some' : 'none'} sent`

export function invariant(): void {
  if (r.wrong !== 0 || r.changed !== 2) throw new Error(`somebody was told ${r.wrong}, ${r.changed} of 2 changes`)
  nothing_leaked()
  let [received, ended] = [0, 0]
  for (let k = 0; k < 2; k++) {
    const f = packet_fates.cpu(k)
    received += f.received
    ended += f.forwarded + f.delivered
    for (let n = 0; n < DROP_REASONS.length; n++) ended += RAM.i32[(f.drops >> 2) + n]!
  }
  if (received > ended || received === 0) throw new Error(`${received} received, ${ended} accounted for`)
}
