/**
 * Packets go through two CPUs while a process changes what they go by: a route is replaced, its next hops die and revive, it is
 * deleted and added. What is sent after that gets through; nothing is lost without a reason, nothing leaks.
 */

import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { load, store } from '../../../src/arch/atomic.js'
import { boot } from '../../../src/arch/boot.js'
import { HALTING, POWER, power_down, RUNNING } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { Board } from '../../../src/hw/board.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { HISTOGRAM_SLOTS } from '../../../src/lib/histogram.js'
import { DROP_REASONS, packet_fates } from '../../../src/net/core/fate.js'
import { dev_get_by_name, dev_put, rtnl_lock, rtnl_unlock } from '../../../src/net/core/netdevice.js'
import { ip_route_add, ip_route_del } from '../../../src/net/ipv4/fib_frontend.js'
import { fib_sync_down_dev, fib_sync_up } from '../../../src/net/ipv4/fib_sync.js'
import { type RouteSpec, RTN_UNICAST } from '../../../src/net/ipv4/fib_types.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { udpFrame } from '../../helpers/frames.js'
import { clock_chip, cpu, eth_ports, ip, nothing_leaked, power_on, secondary } from './machine.js'

export interface ChangesArgs {
  frames: number
  /** The CPU of the process. */
  operator: number
  /** Ticks of the clock for each CPU. */
  ticks: number
}

class progress extends Struct {
  declare changed: number
  declare err: number
}
const PROGRESS: Layout<progress> = layout('changes_progress', progress, { changed: word, err: word })
const p = DEFINE_STATIC('changes_progress', PROGRESS)
const CHANGED = p.addr + PROGRESS.offset('changed')
const ERR = p.addr + PROGRESS.offset('err')

/** What `ip route replace` and `ip link set` do. */
function* operate(): Generator<void, number, void> {
  const eth1 = dev_get_by_name('eth1')!
  const route = (gw: number): RouteSpec => ({
    ...{ dst: ip(20, 0, 0, 0), prefixlen: 8, type: RTN_UNICAST, nexthops: [{ gw, dev: eth1 }] },
  })
  yield* rtnl_lock()
  let err = ip_route_add({ ...route(ip(10, 0, 1, 3)), nlflags: 0x100 })
  // The link fails and comes back: next hops die and revive, and the dead route is flushed.
  if (fib_sync_down_dev(eth1, 0) !== 2) err = -1 // this route and the subnet's
  fib_sync_up(eth1)
  err ||= ip_route_del(route(ip(10, 0, 1, 3)))
  err ||= ip_route_add(route(ip(10, 0, 1, 2)))
  rtnl_unlock()
  dev_put(eth1)
  store(ERR, err)
  store(CHANGED, 1)
  return 0
}
const operate_sym = symbol('test_operate', operate)

export function setup(args: ChangesArgs): ChangesArgs {
  power_on(2, { rx_arch: 2, nports: 2, nqueues: 2, slab_poison: 1 })
  configure_network({
    ports: eth_ports(2, 2),
    routes: [
      {
        ...{ dst: ip(20, 0, 0, 0), prefixlen: 8, type: 'unicast', metric: 0 },
        nexthops: [{ gw: ip(10, 0, 1, 2), dev: 'eth1', weight: 1 }],
      },
    ],
    neighbours: [2, 3].map(k => ({ dev: 'eth1', address: ip(10, 0, 1, k), mac: { hi: 0x02000000, lo: 0x0100 + k } })),
  })
  kernel_thread('ip', operate_sym, 0, { cpu: args.operator })
  return args
}

export const prepare = secondary

/** Frames while things change, one more afterwards; when that has come out the machine is turned off. */
function board(args: ChangesArgs): void {
  const b = new Board(
    { hz: 0, ncpus: 2, ports: [0, 1].map(() => ({ source: null, capture: true })) },
    [0, 1].map(() => new Int32Array(HISTOGRAM_SLOTS)),
  )
  b.step(boot.now())
  const offer = (k: number): void => {
    const frame = udpFrame({ src: `10.0.0.${2 + k}`, dst: '20.0.0.1', id: k, sport: 1000 + k, dport: 9 })
    while (!b.nics[0]!.arrive(frame)) b.step(boot.now())
  }
  for (let k = 0; k < args.frames; k++) offer(k)
  while (load(CHANGED) === 0) {
    b.step(boot.now())
    if (load(POWER) !== RUNNING) return
  }
  offer(99)
  const last = (): boolean => {
    const { data, lengths } = b.captures()[1]!
    let at = 0
    for (const len of lengths) {
      if (data[at + 19] === 99) return true
      at += len
    }
    return false
  }
  while (!last()) b.step(boot.now())
  power_down(HALTING)
}

const clock = (args: ChangesArgs): void => clock_chip(args.ticks)

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, board, clock }
export const describe = describeAddress
export const outcome = (): string => (RAM.i32[ERR >> 2] === 0 ? 'changed' : `error ${RAM.i32[ERR >> 2]}`)

export function invariant(): void {
  nothing_leaked()
  let received = 0
  let ended = 0
  for (let k = 0; k < 2; k++) {
    const f = packet_fates.cpu(k)
    received += f.received
    ended += f.forwarded + f.delivered
    for (let r = 0; r < DROP_REASONS.length; r++) ended += RAM.i32[(f.drops >> 2) + r]!
  }
  if (received !== ended || received === 0) throw new Error(`${received} received, ${ended} accounted for`)
}
