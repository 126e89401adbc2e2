/** A router under control: CPUs that forward, and a board that brings them frames and takes what they send. */

import { fetch_add, load, WRITE_ONCE } from '../../../src/arch/atomic.js'
import { boot } from '../../../src/arch/boot.js'
import {
  DOORBELL,
  DOORBELL_ARG,
  DOORBELL_CPU_DOWN,
  DOORBELL_CPU_UP,
  DOORBELL_DONE,
  DOORBELL_OP,
  HALTING,
  POWER,
  power_down,
  RUNNING,
  send_vector,
  VEC_TIMER,
} from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { Board } from '../../../src/hw/board.js'
import { doorbell_init } from '../../../src/init/doorbell.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { HISTOGRAM_SLOTS } from '../../../src/lib/histogram.js'
import { packet_fates } from '../../../src/net/core/fate.js'
import { udpFrame } from '../../helpers/frames.js'
import { clock_chip, cpu, ip, nothing_leaked, power_on, secondary } from './machine.js'

export interface RouterArgs {
  cpus: number
  frames: number
  /** 0 interrupt, 1 softnet, 2 napi. */
  rx: number
  /** Ticks of the clock for each CPU. */
  ticks?: number
  /** CPU 1 is stopped and started again meanwhile. */
  hotplug?: boolean
}

export function setup(args: RouterArgs) {
  power_on(args.cpus, { rx_arch: args.rx, nports: 2, nqueues: args.cpus, slab_poison: 1 })
  configure_network({
    ports: [0, 1].map(k => ({
      name: `eth${k}`,
      mac: { hi: 0x02000000, lo: k + 1 },
      mtu: 1500,
      addresses: [{ local: ip(10, 0, k, 1), prefixlen: 24 }],
      queues: args.cpus,
      promisc: false,
    })),
    routes: [],
    neighbours: [{ dev: 'eth1', address: ip(10, 0, 1, 2), mac: { hi: 0x02000000, lo: 0x0102 } }],
  })
  if (args.hotplug === true) doorbell_init()
  return args
}

export const prepare = secondary

/** Brings the frames, one by one, and turns the machine off when all have come out and the operator has what he wants. */
function board(args: RouterArgs): void {
  const b = new Board(
    { hz: 0, ncpus: args.cpus, ports: [0, 1].map(() => ({ source: null, capture: true })) },
    [0, 1].map(() => new Int32Array(HISTOGRAM_SLOTS)),
  )
  b.step(boot.now())
  for (let k = 0; k < args.frames; k++) {
    const frame = udpFrame({ src: `10.0.0.${2 + k}`, dst: '10.0.1.2', ttl: 64, sport: 1000 + k, dport: 9 })
    while (!b.nics[0]!.arrive(frame)) b.step(boot.now())
  }
  const wanted = args.hotplug === true ? 2 : 0
  while (b.captures()[1]!.lengths.length < args.frames || load(DOORBELL_DONE) < wanted) b.step(boot.now())
  power_down(HALTING)
}

const clock = (args: RouterArgs): void => clock_chip(args.ticks ?? 0)

/** Who stops a CPU and starts it again, by the doorbell that the tick of CPU 0 looks at. */
function operator(args: RouterArgs): void {
  if (args.hotplug !== true) return
  for (const op of [DOORBELL_CPU_DOWN, DOORBELL_CPU_UP]) {
    WRITE_ONCE(DOORBELL_OP, op)
    WRITE_ONCE(DOORBELL_ARG, 1)
    const request = fetch_add(DOORBELL, 1) + 1
    send_vector(0, VEC_TIMER)
    while (load(DOORBELL_DONE) !== request) if (load(POWER) !== RUNNING) return
  }
}

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, 'CPU 2': cpu, 'CPU 3': cpu, board, clock, operator }
export const describe = describeAddress
/** How often CPU 1 was stopped or started. */
export const outcome = (): string => `${RAM.i32[DOORBELL_DONE >> 2]} of 2 requests served`

export function invariant(args: RouterArgs): void {
  let received = 0
  for (let k = 0; k < args.cpus; k++) received += packet_fates.cpu(k).received
  if (received !== args.frames) throw new Error(`received ${received} of ${args.frames}`)
  nothing_leaked()
}
