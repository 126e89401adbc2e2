/** Packets of several CPUs want the address of one neighbour, who is asked, answers, moves, and is forgotten meanwhile. */

import { boot } from '../../../src/arch/boot.js'
import { HALTING, power_down } from '../../../src/arch/machine.js'
import { Board } from '../../../src/hw/board.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { HISTOGRAM_SLOTS } from '../../../src/lib/histogram.js'
import { packet_fates } from '../../../src/net/core/fate.js'
import { arpFrame, parseArp, udpFrame } from '../../helpers/frames.js'
import { cpu, ip, nothing_leaked, power_on, secondary } from './machine.js'

export interface ArpArgs {
  cpus: number
  /** Three at most: so many wait for an answer. */
  frames: number
  /** How often the neighbour answers each question, each time from another address. */
  answers: number
}

const US = ['02:00:00:00:00:01', '02:00:00:00:00:02']

export function setup(args: ArpArgs): ArpArgs {
  power_on(args.cpus, { rx_arch: 2, nports: 2, nqueues: args.cpus, slab_poison: 1 })
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
    neighbours: [],
    sysctl: { 'net.ipv4.neigh.default.locktime_ms': 0 },
  })
  return args
}

export const prepare = secondary

const isArp = (f: Uint8Array): boolean => f[12] === 8 && f[13] === 6

/** The wires: frames come in, questions are answered, and when all frames have come out, the power goes. */
function board(args: ArpArgs): void {
  const b = new Board(
    { hz: 1000, ncpus: args.cpus, ports: [0, 1].map(() => ({ source: null, capture: true })) },
    [0, 1].map(() => new Int32Array(HISTOGRAM_SLOTS)),
  )
  const arrive = (port: number, frame: Uint8Array): void => {
    while (!b.nics[port]!.arrive(frame)) b.step(boot.now())
  }
  b.step(boot.now())
  for (let k = 0; k < args.frames; k++)
    arrive(0, udpFrame({ src: `10.0.0.${2 + k}`, dst: '10.0.1.2', to: US[0]!, sport: 1000 + k, dport: 9 }))
  let seen = 0
  let data = 0
  let at = 0
  while (data < args.frames) {
    b.step(boot.now())
    const out = b.captures()[1]!
    for (; seen < out.lengths.length; seen++) {
      const frame = out.data.subarray(at, at + out.lengths[seen]!)
      at += out.lengths[seen]!
      if (!isArp(frame)) data++
      else if (parseArp(frame).op === 'who-has') for (let k = 0; k < args.answers; k++) arrive(1, answer(k))
    }
  }
  power_down(HALTING)
}
function answer(k: number): Uint8Array {
  const sha = `02:00:00:00:02:0${k}`
  return arpFrame({ op: 2, sha, sip: '10.0.1.2', tha: US[1]!, tip: '10.0.1.1', from: sha, to: US[1]! })
}

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, board }
export const describe = describeAddress

export function invariant(args: ArpArgs): void {
  let received = 0
  for (let k = 0; k < args.cpus; k++) received += packet_fates.cpu(k).received
  if (received < args.frames + 1) throw new Error(`received ${received} of ${args.frames} and an answer`)
  nothing_leaked()
}
