/** machineConfig.ts - what a machine is made of, and how the host tells the kernel so. */
import type { PlayWindow, PortConfig } from '../hw/types.js'
import type { PortSetup, ProcessSetup, RouterSetup, SysctlSetup } from '../init/setup.js'
import type { Table } from '../lib/iptables.js'
import { SKB_DATA_JUMBO } from '../lib/limits.js'
import type { CostProfile } from './profile.js'
import type { RamReader } from './ramReader.js'
import type { Affinity, LockKind, RxArch } from './types.js'

const RX_NUMBER: Record<RxArch, number> = { interrupt: 0, softnet: 1, napi: 2, polled: 3 }
export const LOCK_NUMBER: Record<LockKind, number> = { tas: 0, ticket: 1, mcs: 2 }
/** Frames of a capture that are on their way through the router at once: below IFQ_MAXLEN, and below netdev_max_backlog. */
const PLAY_WINDOW: Record<RxArch, number> = { interrupt: 48, softnet: 256, napi: 256, polled: 256 }

export interface MachinePort extends PortSetup {
  source: PortConfig['source']
  capture: boolean
  /** The capture holds what comes in, too. */
  captureReceived?: boolean
  /** Who is at the other end of its cable. */
  wire?: PortConfig['wire']
  /** Speed of its wire, bits per second; 0 or nothing: as fast as the board. */
  bps?: number
}

export interface MachineConfig {
  cpus: number
  rx: RxArch
  lock: LockKind
  hz: number
  irqCostNs: number
  /** Packets per receive interrupt, 0: the architecture's own. */
  irqWork: number
  /** Interrupt mitigation: a receive interrupt comes at most once in so many ns, or when `itrFrames` wait (0: only time). */
  itrNs?: number
  itrFrames?: number
  /** Interrupt lines: spread over the CPUs (the default), or all on CPU 0. */
  affinity?: Affinity
  seed: number
  ports: MachinePort[]
  routes: RouterSetup['routes']
  neighbours: RouterSetup['neighbours']
  /** Tables of the packet filter, such as parseIptables() reads. */
  iptables?: Table[]
  /** By Linux's names, such as net.ipv4.ip_forward; see `UNANSWERED`. */
  sysctl?: SysctlSetup
  /** Run a compute-bound process on each CPU. */
  userSpin: boolean
  trace: boolean
  /** Watch the order of locks (sync/lockdep.ts): what is found is in the variable `lockdep`. */
  lockdep?: boolean
  /** How long an idle CPU spins before its thread sleeps, ns. */
  idleSpinNs?: number
  /** Programmed I/O: ns that a CPU spends on each 4 bytes it moves from or to a NIC; 0 or nothing: DMA. */
  pioNs?: number
  /** The machine's time: the host's clock (nothing), or virtual, with these costs. */
  profile?: CostProfile
  /** Virtual time: cycles that a CPU may be ahead of another while others see nothing of it; 0: none. */
  slackCycles?: number
  /** Virtual time: which CPU goes first is drawn from the seed among those that are within so many cycles; 0 or nothing: who is behind. */
  stirCycles?: number
  /** Longest time until the driver is told of a sent frame, ns; nothing: 64 us. */
  tidvNs?: number
  /** Packets of an output queue; nothing: 1000. */
  txQueueLen?: number
  /** Of the polling thread: frames per callback (0: as many as come), percent of its period that it may use (0: all). */
  pollQuota?: number
  cycleLimit?: number
  /** A process screens forwarded packets; with `feedback`, its queue inhibits input when it is nearly full. */
  screend?: 'off' | 'on' | 'feedback'
  /** sk_buffs in the pool; default 8192. */
  skbs?: number
  /** Packet buffers of 16 KiB, for frames that do not fit 2 KiB; by default 64, or 512 when a port's MTU is above 1500. */
  jumbo?: number
  /** Receive descriptors of a queue, a power of two; default 256. The driver takes fewer when the pool does not bear as many. */
  rxRing?: number
  txRing?: number
  /** Default: 64 and one for each four CPUs, and 16 more for a machine that runs programs. */
  ramMiB?: number
  /** The device lo with 127.0.0.1/8. */
  loopback?: boolean
  /** Programs of users that the machine has memory for at once; nothing: none. */
  userProcs?: number
  /** Programs with their arguments, started when the network is up; the machine has memory for them. */
  processes?: ProcessSetup[]
  /** URLs of modules that every CPU loads beside the kernel; main() of each is called by the init process. */
  programs?: string[]
}

/** How often drivers look whether a line is up, ms. */
const LINK_MS = 100

/**
 * Wires on which nobody answers, such as captures and sources: who is not in the table of neighbours is unreachable at once, and
 * no question goes out.
 */
export const UNANSWERED = { 'net.ipv4.neigh.default.mcast_solicit': 0 }

/** So few frames on their way that neither the IP input queue nor a backlog overflows, on however few CPUs. */
export function playWindow({ cpus, rx }: MachineConfig, ram: RamReader): PlayWindow {
  const words = ['forwarded', 'delivered', 'dropped']
  return {
    frames: PLAY_WINDOW[rx],
    settled: Array.from({ length: cpus }, (_, cpu) =>
      words.map(field => ram.address('packet_fate', field, cpu)),
    ).flat(),
  }
}

/** userProcs - programs that the machine has memory for at once. */
function userProcs({ userProcs, processes }: MachineConfig): number {
  return Math.max(userProcs ?? 0, processes?.length ?? 0)
}
/** ramMiB - of the machine. */
export function ramMiB(config: MachineConfig): number {
  // Each CPU has arrays of its own of every cache.
  return config.ramMiB ?? 64 + Math.ceil(config.cpus / 4) + (userProcs(config) > 0 ? 16 : 0)
}

/** writeConfig - the words of the boot page. */
export function writeConfig(config: MachineConfig, ram: RamReader): void {
  const virtual = config.profile !== undefined
  const words: Record<string, number> = {
    ncpus: config.cpus,
    hz: config.hz,
    lock_kind: LOCK_NUMBER[config.lock],
    irq_cost_ns: virtual ? 0 : config.irqCostNs, // a profile has its own
    spin_limit: virtual ? 0 : 200, // a spin on a word that has not changed is no event
    idle_spin_ns: config.idleSpinNs ?? 20_000,
    seed: config.seed,
    rx_arch: RX_NUMBER[config.rx],
    irq_work: config.irqWork,
    itr_ns: config.itrNs ?? 0,
    itr_frames: config.itrFrames ?? 0,
    irq_affinity: config.affinity === 'cpu0' ? 1 : 0,
    trace: config.trace ? 1 : 0,
    nports: config.ports.length,
    nqueues: Math.max(1, ...config.ports.map(p => p.queues)),
    rx_ring: config.rxRing ?? 0,
    tx_ring: config.txRing ?? 0,
    user_spin: config.userSpin ? 1 : 0,
    skbs: config.skbs ?? 0,
    pio_ns: config.pioNs ?? 0,
    jumbo: config.jumbo ?? (config.ports.some(p => p.mtu > 1500) ? SKB_DATA_JUMBO : 0),
    tidv_ns: config.tidvNs === 0 ? -1 : (config.tidvNs ?? 0),
    tx_queue_len: config.txQueueLen ?? 0,
    poll_quota: config.pollQuota ?? 0,
    cycle_limit: config.cycleLimit ?? 0,
    screend: (config.screend ?? 'off') === 'off' ? 0 : 1,
    loopback: config.loopback === true ? 1 : 0,
    user_procs: userProcs(config),
    link_ms: config.ports.some(p => p.wire?.kind === 'link') ? LINK_MS : 0,
    screen_feedback: config.screend === 'feedback' ? 1 : 0,
  }
  for (const [name, value] of Object.entries(words)) ram.setConfig(name, value)
}

/** portSetup - the kernel's half of a port. */
export function portSetup({ name, mac, mtu, addresses, queues, promisc }: MachinePort): PortSetup {
  return { name, mac, mtu, addresses, queues, promisc }
}
