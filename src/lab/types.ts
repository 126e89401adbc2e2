/** types.ts - the shapes that experiments, reports and the command line share. No code. */

import type { CostProfile } from './profile.js'

/** Receive architecture: 4.2BSD's interrupt-driven one, netif_rx with a backlog per CPU, polling (NAPI), or a polling thread. */
export type RxArch = 'interrupt' | 'softnet' | 'napi' | 'polled'
export type LockKind = 'tas' | 'ticket' | 'mcs'
/** How generated packets arrive; evenly, as a Poisson process, or in bursts. */
export type ArrivalKind = 'constant' | 'poisson' | 'burst'
/** Interrupt lines over all CPUs, or all on CPU 0. */
export type Affinity = 'spread' | 'cpu0'
export type Screend = 'off' | 'on' | 'feedback'
/** Frames of a capture evenly at the offered rate, or with their own gaps stretched to it. */
export type PcapTiming = 'even' | 'stretched'

/** What every experiment gets from its caller. */
export interface ProgressHook {
  /** Called now and then: `done` of `total` steps, `label` says what runs now. `total` may grow. */
  progress?(done: number, total: number, label: string): void
  /** One line that the user should know about the input. */
  notice?(line: string): void
  /** All that was given has been read, and is sound: the machine is about to start. */
  ready?(): void
  /** Once aborted, the experiment powers its machines off and rejects with an AbortError. */
  signal?: AbortSignal
  /** Takes the trace of one point, when the configuration asks for traces. */
  trace?(capture: TraceCapture): void
}

export interface LivelockConfig {
  /** CPUs of the machine, 1 to 32. */
  cpus: number
  rx: RxArch[]
  lock: LockKind
  /** Offered loads in packets per second, ascending; 'auto' sweeps from MLFRR / 5 to 4 x MLFRR. */
  rates: number[] | 'auto'
  /** Host time that one point is measured for, ms. */
  durationMs: number
  seed: number
  /** Cost of one interrupt, entry and exit together, ns. */
  irqCostNs: number
  /** Programmed I/O: ns for each 4 bytes that the CPU moves from or to a NIC; 0: DMA. */
  pioNs: number
  /** Flows of the generated load. */
  flows: number
  /** Destinations of those flows, at most as many; 0: as many. */
  destinations: number
  arrivals: ArrivalKind
  /** Packets of a burst, and packets per second while it lasts. */
  burst: { packets: number; peak: number }
  /** Frame sizes in bytes without FCS, and their weights. */
  sizes: [bytes: number, weight: number][]
  /** Interrupt mitigation: a receive interrupt at most once in so many ns (0: none), or when that many frames wait. */
  itrNs: number
  itrFrames: number
  affinity: Affinity
  /** Of `polled`: frames of a callback (0: as many as come), percent of a 10 ms period that its thread may use (100: all). */
  quota: number
  cycleLimit: number
  /** A user process screens forwarded packets; with `feedback`, its full queue inhibits input (under `polled`). */
  screend: Screend
  /** Receive queues of each NIC; 0: a power of two, one for each CPU as far as that goes. */
  queues: number
  hz: number
  /** Packets that the receive interrupt handler of `interrupt` and `softnet` takes at most; 0: 1 under `interrupt`, 10 under `softnet`. */
  irqWork: number
  /** Capture to offer instead of generated packets, or null. */
  pcap: string | null
  pcapTiming: PcapTiming
  /** Virtual time with these costs, or null: the host's clock. */
  profile: CostProfile | null
  /** Record context changes and drops of the points, and hand them to the trace hook. */
  trace: boolean
}

export interface HostInfo {
  cpu_model: string
  cores: number
  memory_mib: number
  os: string
  node: string
  v8: string
  softnet: string
}

/** The configuration as it stands in the JSON file. */
export interface LivelockConfigRecord {
  cpus: number
  rx: RxArch[]
  lock: LockKind
  rates: number[] | 'auto'
  duration_ms: number
  irq_cost_ns: number
  pio_ns: number
  flows: number
  destinations: number
  arrivals: ArrivalKind
  burst: { packets: number; peak: number }
  sizes: [bytes: number, weight: number][]
  queues: number
  hz: number
  irq_work: number
  itr_ns: number
  itr_frames: number
  affinity: Affinity
  quota: number
  cycle_limit: number
  screend: Screend
  pcap: string | null
  pcap_timing: PcapTiming
  clock: 'real' | 'virtual'
  /** Name of the cost profile; null with a real clock. */
  profile: string | null
}

/** Shares of one CPU's time, 0 to 1; their sum is 1. */
export interface CpuShares {
  hardirq: number
  softirq: number
  system: number
  user: number
  idle: number
}

/** One offered load. Counts are those of the measured time of the point. */
export interface LivelockPoint {
  /** What the wire carried to the NIC, packets per second. */
  offered_pps: number
  /** What the kernel took out of the NIC's rings. */
  received_pps: number
  /** What left on the far wire. */
  delivered_pps: number
  irqs: number
  polls: number
  time_squeeze: number
  drops: Record<string, number>
  /** One entry per CPU. */
  cpu: CpuShares[]
  /** Share of all CPUs' time that the compute-bound user process got, 0 to 1. */
  user_share: number
  /** From wire to wire; null when nothing was delivered. */
  latency_us: { p50: number | null; p99: number | null; p999: number | null }
}

export interface LivelockSeries {
  rx: RxArch
  cpus: number
  /** Maximum loss-free receive rate; 0: none was found. */
  mlfrr_pps: number
  /** Lowest offered load from which delivery stays below a tenth of its peak, or null: no livelock in this sweep. */
  livelock_pps: number | null
  points: LivelockPoint[]
  /** Of a run in virtual time: hash of all that happened, as 8 hexadecimal digits. The same run has the same one. */
  hash?: string
}

export interface LivelockResult {
  schema: 'softnet.livelock/1'
  host: HostInfo
  seed: number
  config: LivelockConfigRecord
  series: LivelockSeries[]
  /** Of each point of each series: share of the host's time that the machine's threads wanted and got, 0 to 1. Below 0.97
   *  the host was busy elsewhere. */
  host_shares: number[][]
}

/** One trial: packets per second offered, and what came of them. */
export interface PaperPoint {
  input_pps: number
  /** Packets per second, or the user's share of the CPU in percent. */
  output: number
}
export interface PaperSeries {
  figure: string
  series: string
  output: 'pps' | 'user'
  hash: string
  points: PaperPoint[]
}
export interface PaperResult {
  schema: 'softnet.paper/1'
  profile: string
  seed: number
  packets: number
  series: PaperSeries[]
}

/** Locks of one class, in the words of Linux's lock_stat. */
export interface ScaleLock {
  lock: string
  acquisitions: number
  contentions: number
  wait_cycles: number
  hold_cycles: number
}
/** One machine, offered more than it can take. */
export interface ScalePoint {
  variant: string
  cpus: number
  delivered_pps: number
  /** Virtual time that it was measured for. */
  window_ms: number
  /** Delivered in the two halves of that time. */
  halves_pps: [number, number]
  /** Do the halves differ by no more than a tenth? Otherwise the point was made longer as often as allowed, to no avail. */
  steady: boolean
  cycles_per_packet: number | null
  drops: Record<string, number>
  /** Where most cycles went; `share` is of all CPUs' time. */
  functions: { function: string; context: string; cycles: number; share: number }[]
  /** The most waited for. */
  locks: ScaleLock[]
  hash: string
}
export interface ScaleResult {
  schema: 'softnet.scale/1'
  profile: string
  hz: number
  seed: number
  duration_ms: number
  points: ScalePoint[]
}

/** A load of the calibration: time of one unit (a tick, an interrupt, a packet), ns. */
export interface CalibrateStage {
  what: string
  /** Median of the trials, and what the fitted profile makes of it. */
  ns: number
  fitted_ns: number
  /** Half the distance of the quartiles, as a share of the median. */
  spread: number
  trials: number
  /** No other load of the host disturbed those trials. */
  quiet: boolean
}
/** Functions with a common factor, and their sum, ns. */
export interface CalibrateGroup {
  name: string
  functions: string[]
  ns: number
  factor: number
}
/** A figure of the real machine against virtual time. */
export interface CalibratePoint {
  rx: RxArch
  /** Loss-free rate, or what is delivered far above saturation. */
  what: 'mlfrr' | 'plateau'
  /** Median of the runs. */
  measured_pps: number
  predicted_pps: number
  spread: number
  runs: number
  /** Of the prediction; of a plateau, of the predicted loss-free rate where that is higher. 0.1: a tenth more was measured. */
  difference: number
  agrees: boolean
}
export interface CalibrateCheck {
  points: CalibratePoint[]
  /** The host was busy elsewhere in too many of the runs. */
  disturbed: boolean
  /** What a difference may be. */
  bar: number
}
export interface CalibrateResult {
  schema: 'softnet.calibrate/1'
  host: HostInfo
  seed: number
  /** Who told the clock rate of the profile. */
  hz_from: string
  stages: CalibrateStage[]
  /** What was measured by itself, ns of one call. */
  alone: Record<string, number>
  groups: CalibrateGroup[]
  /** The host was busy elsewhere during a stage. */
  disturbed: boolean
  profile: CostProfile
  check: CalibrateCheck | null
}

/** A capture file tied to an interface of the router. */
export interface PortFile {
  iface: string
  file: string
}

export interface ForwardConfig {
  inputs: PortFile[]
  outputs: PortFile[]
  /** The file of interfaces, routes and neighbours. */
  routes: string
  cpus: number
  rx: RxArch
  lock: LockKind
  seed: number
  hz: number
  /** Replay so many times as fast as captured; 0: as fast as the router takes it, losing none. */
  speed: number
  /** Costs of virtual time; null: the host's clock. */
  profile: CostProfile | null
}

/** received = forwarded + delivered + the sum of dropped. */
export interface ForwardResult {
  received: number
  forwarded: number
  delivered: number
  icmp_sent: number
  dropped: Record<string, number>
  /** Virtual time only: a hash of all interrupts with their times. Equal hashes are equal runs. */
  hash?: string
}

export type TraceSlice = 'hardirq' | 'softirq' | 'process' | 'idle'

/** One line of a trace: a slice of a CPU's time begins or ends, or a packet is dropped. */
export type TraceRecord = {
  cpu: number
  /** On one clock for all CPUs of the machine, ns. */
  tsNs: number
} & (
  | {
      kind: 'begin' | 'end'
      slice: TraceSlice /** irq, softirq, or task with its pid, such as "spin 7" */
      arg: string
    }
  | { kind: 'drop'; reason: string }
)

export interface TraceCapture {
  /** Which run this is, such as "napi, 320 kpps offered". */
  label: string
  cpus: number
  /** When it begins. */
  fromNs: number
  records: readonly TraceRecord[]
}

/** What the source of a port shall do. */
export interface SourceRequest {
  on?: boolean
  /** Packets per second. */
  rate?: number
  resetLatency?: boolean
}
