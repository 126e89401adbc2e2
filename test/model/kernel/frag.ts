/** The pieces of some datagrams come in through two NICs, and so on two CPUs at once: each is put together once, and answered. */
import { boot } from '../../../src/arch/boot.js'
import { HALTING, power_down } from '../../../src/arch/machine.js'
import { Board } from '../../../src/hw/board.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { HISTOGRAM_SLOTS } from '../../../src/lib/histogram.js'
import { packet_fates } from '../../../src/net/core/fate.js'
import { counting, fragments, icmp, parse } from '../../helpers/frames.js'
import { cpu, eth_ports, ip, nothing_leaked, power_on, secondary } from './machine.js'

export interface FragArgs {
  cpus: number
  datagrams: number
  /** Each piece comes twice. */
  twice: boolean
}

const PORTS = [0, 1]
const MTU = 44

export function setup(args: FragArgs): FragArgs {
  power_on(args.cpus, { rx_arch: 2, nports: 2, nqueues: 1, slab_poison: 1 })
  configure_network({
    ports: eth_ports(2, 1),
    routes: [],
    neighbours: [{ dev: 'eth0', address: ip(10, 0, 0, 2), mac: { hi: 0x02000000, lo: 0x0102 } }],
  })
  return args
}

export const prepare = secondary

/** The pieces of echo requests, one after the other through either NIC; the last ones of a datagram come first. */
function pieces(args: FragArgs): [port: number, frame: Uint8Array][] {
  const out: [number, Uint8Array][] = []
  for (let k = 0; k < args.datagrams; k++) {
    const request = icmp(8, 0, (k << 16) | 1, counting(40))
    const cut = PORTS.map(port =>
      fragments(
        request,
        { src: '10.0.0.2', dst: '10.0.0.1', id: 100 + k, protocol: 1, to: `02:00:00:00:00:0${port + 1}` },
        MTU,
      ).reverse(),
    )
    for (let p = 0; p < cut[0]!.length; p++)
      for (const port of args.twice ? PORTS : [p & 1]) out.push([port, cut[port]![p]!])
  }
  return out
}

function board(args: FragArgs): void {
  const b = new Board(
    { hz: 0, ncpus: args.cpus, ports: PORTS.map(() => ({ source: null, capture: true })) },
    PORTS.map(() => new Int32Array(HISTOGRAM_SLOTS)),
  )
  b.step(boot.now())
  for (const [port, frame] of pieces(args)) while (!b.nics[port]!.arrive(frame)) b.step(boot.now())
  while (b.captures()[0]!.lengths.length < args.datagrams) b.step(boot.now())
  const { data, lengths } = b.captures()[0]!
  for (let k = 0, at = 0; k < args.datagrams; at += lengths[k++]!) {
    const reply = parse(data.subarray(at, at + lengths[k]!))
    if (reply.icmp?.type !== 0 || !reply.icmp.checksumGood || reply.payload.length !== 48)
      throw new Error(`frame ${k} is no answer of 48 bytes`)
  }
  power_down(HALTING)
}

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, board }
export const describe = describeAddress

export function invariant(args: FragArgs): void {
  let received = 0
  for (let k = 0; k < args.cpus; k++) received += packet_fates.cpu(k).received
  if (received < args.datagrams * 2) throw new Error(`received ${received}`)
  nothing_leaked()
}
