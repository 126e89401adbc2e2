/** bench2544.ts - the router of the livelock experiment: two ports in the networks that RFC 2544 sets aside for benchmarks. */
import type { GeneratorConfig, Mac, ReplayConfig, SourceConfig } from '../hw/types.js'
import { NR_IRQS } from '../lib/limits.js'
import type { MachineConfig, MachinePort } from './machine.js'
import { UNANSWERED } from './machineConfig.js'
import type { Capture } from './pcap.js'
import type { LivelockConfig, PcapTiming, RxArch } from './types.js'

/** ipv4 - an address as int32. */
export function ipv4(a: number, b: number, c: number, d: number): number {
  return (a << 24) | (b << 16) | (c << 8) | d
}

/** The hosts on the two wires. */
export const LIVELOCK_PORTS = { sender: ipv4(198, 18, 0, 2), receiver: ipv4(198, 18, 1, 2) }

const ROUTER0: Mac = { hi: 0x02000000, lo: 0x0001 }
const ROUTER1: Mac = { hi: 0x02000000, lo: 0x0002 }
const SENDER: Mac = { hi: 0x02000000, lo: 0x0101 }
const RECEIVER: Mac = { hi: 0x02000000, lo: 0x0102 }

function generated(config: LivelockConfig): GeneratorConfig {
  return {
    kind: 'generate',
    arrivals: config.arrivals,
    burst: config.burst,
    sizes: config.sizes,
    flows: config.flows,
    destinations: config.destinations === 0 ? config.flows : Math.min(config.destinations, config.flows),
    dst: ipv4(198, 19, 0, 1),
    dst_stride: 1,
    src: LIVELOCK_PORTS.sender,
    order: 'round-robin',
    malformed: 0,
    seed: config.seed,
    from: SENDER,
    to: ROUTER0,
  }
}

/** Real frames, sent to this router: their link addresses are those of the wire that it stands on. */
function replayed({ data, offsets, lengths, times }: Capture, timing: PcapTiming): ReplayConfig {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  for (let k = 0; k < offsets.length; k++) {
    if (lengths[k]! < 14 || (view.getUint8(offsets[k]!) & 1) !== 0) continue
    view.setInt32(offsets[k]!, ROUTER0.hi)
    view.setInt16(offsets[k]! + 4, ROUTER0.lo)
  }
  return {
    kind: 'replay',
    data,
    offsets,
    lengths,
    times,
    mode: timing === 'even' ? 'rate' : 'stretched',
    scale: 1,
    loop: true,
  }
}

function port(name: string, mac: Mac, local: number, queues: number, source: SourceConfig | null): MachinePort {
  return { name, mac, mtu: 1500, addresses: [{ local, prefixlen: 24 }], queues, promisc: false, source, capture: false }
}

/** How many receive queues a NIC gets when nobody says: a power of two, one for each CPU as far as that goes. */
export function autoQueues(cpus: number): number {
  return 2 ** Math.floor(Math.log2(cpus))
}

/** queuesFor - the same, as far as the machine has interrupt lines for the queues of all its ports. */
export function queuesFor(cpus: number, ports: number): number {
  let queues = autoQueues(cpus)
  while (queues * ports > NR_IRQS) queues /= 2
  return queues
}

/** livelockMachine - what the experiment runs on, for one receive architecture; `capture`: offered instead of generated load. */
export function livelockMachine(config: LivelockConfig, rx: RxArch, capture: Capture | null = null): MachineConfig {
  const queues = config.queues === 0 ? autoQueues(config.cpus) : config.queues
  const source = capture === null ? generated(config) : replayed(capture, config.pcapTiming)
  return {
    cpus: config.cpus,
    rx,
    lock: config.lock,
    hz: config.hz,
    irqCostNs: config.irqCostNs,
    pioNs: config.pioNs,
    irqWork: config.irqWork,
    itrNs: config.itrNs,
    itrFrames: config.itrFrames,
    affinity: config.affinity,
    pollQuota: config.quota,
    cycleLimit: config.cycleLimit === 100 ? 0 : config.cycleLimit,
    screend: config.screend,
    seed: config.seed,
    ports: [
      port('eth0', ROUTER0, ipv4(198, 18, 0, 1), queues, source),
      port('eth1', ROUTER1, ipv4(198, 18, 1, 1), queues, null),
    ],
    routes: [
      {
        dst: 0,
        prefixlen: 0,
        type: 'unicast',
        metric: 0,
        nexthops: [{ gw: LIVELOCK_PORTS.receiver, dev: 'eth1', weight: 1 }],
      },
    ],
    neighbours: [
      { address: LIVELOCK_PORTS.sender, dev: 'eth0', mac: SENDER },
      { address: LIVELOCK_PORTS.receiver, dev: 'eth1', mac: RECEIVER },
    ],
    sysctl: UNANSWERED,
    userSpin: true,
    trace: config.trace,
    ...(config.profile === null ? {} : { profile: config.profile }),
  }
}
