/** config.ts - defaults and ranges of the experiments, and what goes into their reports about host and settings. */
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, release, totalmem, type } from 'node:os'
import type {
  Affinity,
  ArrivalKind,
  ForwardConfig,
  HostInfo,
  LivelockConfig,
  LivelockConfigRecord,
  LockKind,
  PcapTiming,
  RxArch,
  Screend,
} from './types.js'

export const RX_ARCHS: readonly RxArch[] = ['interrupt', 'softnet', 'napi', 'polled']
/** What is compared when nobody says. */
const RX_DEFAULT: readonly RxArch[] = ['interrupt', 'softnet', 'napi']
export const ARRIVALS: readonly ArrivalKind[] = ['constant', 'poisson', 'burst']
export const AFFINITIES: readonly Affinity[] = ['spread', 'cpu0']
export const SCREENDS: readonly Screend[] = ['off', 'on', 'feedback']
export const PCAP_TIMINGS: readonly PcapTiming[] = ['even', 'stretched']
/** Of scenarios; controlled: virtual time, in which the seed draws which CPU goes first, and lockdep watches. */
export const SCENARIO_CLOCKS = ['virtual', 'real', 'controlled'] as const
export const LOCK_KINDS: readonly LockKind[] = ['tas', 'ticket', 'mcs']

/** An interrupt's entry, exit and cache damage: 4.36 us on a 500 MHz Pentium III
 *  (Aron and Druschel, "Soft Timers", ACM TOCS 18(3), 2000). A function call costs nothing like it. */
export const IRQ_COST_NS = 4360

/** [smallest, largest, default] of every number that a user may set. */
export const RANGES = {
  cpus: [1, 32, 1],
  duration: [20, 60_000, 390],
  seed: [0, 0x7fffffff, 1],
  irqCost: [0, 1_000_000, IRQ_COST_NS],
  pioCost: [0, 100_000, 0],
  flows: [1, 65_536, 16],
  destinations: [0, 65_536, 0],
  itr: [0, 10_000_000, 0],
  itrFrames: [0, 4096, 0],
  quota: [1, 4096, 0],
  cycleLimit: [1, 100, 100],
  queues: [0, 32, 0],
  hz: [100, 1000, 1000],
  irqWork: [0, 4096, 0],
  scaleDuration: [1, 1000, 4],
  calibrateSeconds: [1, 3600, 30],
  packets: [100, 1_000_000, 10_000],
  rate: [100, 20_000_000, 0],
  schedules: [1, 1_000_000_000, 1000],
  seconds: [1, 86_400, 0],
  mtu: [68, 9000, 1500],
  depth: [1, 8, 2],
  shrink: [0, 1_000_000, 3000],
  megabytes: [16, 128, 16],
} as const satisfies Record<string, readonly [number, number, number]>

/** livelockDefaults - the configuration of a plain `softnet livelock`. */
export function livelockDefaults(): LivelockConfig {
  return {
    cpus: RANGES.cpus[2],
    rx: [...RX_DEFAULT],
    lock: 'tas',
    rates: 'auto',
    durationMs: RANGES.duration[2],
    seed: RANGES.seed[2],
    irqCostNs: RANGES.irqCost[2],
    pioNs: RANGES.pioCost[2],
    flows: RANGES.flows[2],
    destinations: RANGES.destinations[2],
    arrivals: 'constant',
    burst: { packets: 32, peak: 1_000_000 },
    sizes: [[60, 1]],
    itrNs: RANGES.itr[2],
    itrFrames: RANGES.itrFrames[2],
    affinity: 'spread',
    quota: RANGES.quota[2],
    cycleLimit: RANGES.cycleLimit[2],
    screend: 'off',
    queues: RANGES.queues[2],
    hz: RANGES.hz[2],
    irqWork: RANGES.irqWork[2],
    pcap: null,
    pcapTiming: 'even',
    profile: null,
    trace: false,
  }
}

/** forwardDefaults - all of a forwarding run but its files. */
export function forwardDefaults(): Omit<ForwardConfig, 'inputs' | 'outputs' | 'routes'> {
  return {
    cpus: RANGES.cpus[2],
    rx: 'napi',
    lock: 'tas',
    seed: RANGES.seed[2],
    hz: RANGES.hz[2],
    speed: 0,
    profile: null,
  }
}

/** configRecord - the configuration under the names of the JSON file. */
export function configRecord(c: LivelockConfig): LivelockConfigRecord {
  return {
    cpus: c.cpus,
    rx: c.rx,
    lock: c.lock,
    rates: c.rates,
    duration_ms: c.durationMs,
    irq_cost_ns: c.irqCostNs,
    pio_ns: c.pioNs,
    flows: c.flows,
    destinations: c.destinations,
    arrivals: c.arrivals,
    burst: c.burst,
    sizes: c.sizes,
    queues: c.queues,
    hz: c.hz,
    irq_work: c.irqWork,
    itr_ns: c.itrNs,
    itr_frames: c.itrFrames,
    affinity: c.affinity,
    quota: c.quota,
    cycle_limit: c.cycleLimit,
    screend: c.screend,
    pcap: c.pcap,
    pcap_timing: c.pcapTiming,
    clock: c.profile === null ? 'real' : 'virtual',
    profile: c.profile?.name ?? null,
  }
}

/** packageVersion - of the package.json above this file, in a clone and in an installed package alike. */
export function packageVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'))
  if (typeof manifest === 'object' && manifest !== null && 'version' in manifest) return String(manifest.version)
  return 'unknown'
}

/** hostCores - how many threads of this process can run at once. */
export function hostCores(): number {
  return availableParallelism()
}

/** hostInfo - what a reader of a result needs to know about where it was measured. */
export function hostInfo(): HostInfo {
  return {
    cpu_model: cpus()[0]?.model.trim() ?? 'unknown',
    cores: hostCores(),
    memory_mib: Math.round(totalmem() / 2 ** 20),
    os: `${type()} ${release()} ${process.arch}`,
    node: process.versions.node,
    v8: process.versions.v8,
    softnet: packageVersion(),
  }
}
