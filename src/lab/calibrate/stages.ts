/**
 * stages.ts - what is measured of a machine of one CPU: loads under which its time goes into known parts of the kernel.
 *
 * All of them run under `napi`: what `interrupt` and `softnet` do is left to be predicted. Packets end at one of four places,
 * each further on than the one before: in netif_receive_skb (nobody takes the protocol), in ip_local_deliver, on the far wire,
 * and there once more with a route that the cache has not. At low loads each packet has its own interrupt, softirq and poll;
 * far above saturation next to none. In between the batches differ from run to run, so no packet is timed there.
 *
 * What is read is the kernel's own account of its time by context. The same code reads it off a machine in virtual time, whose
 * tallies say into which functions it went.
 */
import type { GeneratorConfig, ReplayConfig } from '../../hw/types.js'
import { livelockMachine } from '../bench2544.js'
import { livelockDefaults } from '../config.js'
import { RunError } from '../errors.js'
import { Machine, type MachineConfig } from '../machine.js'
import type { CostProfile } from '../profile.js'
import { hostShare, takeSample, ticksLost } from '../sample.js'
import { type CycleShare, cycleShares, cyclesBetween } from '../tallies.js'
import type { ProgressHook } from '../types.js'
import { median, spread } from './fit.js'
import { chosen, type Had, isQuiet, type Patience } from './quiet.js'

/** Where the packets end. */
export type Workload = 'dropped' | 'delivered' | 'forwarded' | 'missed'

/** One unit of a stage is a tick of the clock, an interrupt of the NIC, or a packet. */
type Unit = 'tick' | 'interrupt' | 'packet'
type Context = 'hardirq' | 'softirq'

interface Reading {
  contexts: readonly Context[]
  per: Unit
}
const IRQ: Reading = { contexts: ['hardirq'], per: 'interrupt' }
const PACKET: Reading = { contexts: ['softirq'], per: 'packet' }
const TICK: Reading = { contexts: ['hardirq', 'softirq'], per: 'tick' }

interface Load {
  /** Packets per second; 0: the clock ticks and nothing else happens. */
  rate: number
  readings: readonly Reading[]
}

/**
 * Below the rate at which an interrupt finds a second packet; where the board has its hands full and is not yet late; above what
 * any host forwards.
 */
const [LOW, MORE, BUSY, FLOOD] = [50_000, 100_000, 500_000, 5_000_000]

export const STAGES: readonly { workload: Workload; loads: readonly Load[] }[] = [
  {
    workload: 'forwarded',
    loads: [
      { rate: 0, readings: [TICK] },
      { rate: LOW, readings: [IRQ, PACKET] },
      { rate: MORE, readings: [IRQ, PACKET] },
      { rate: BUSY, readings: [IRQ] },
      { rate: FLOOD, readings: [PACKET] },
    ],
  },
  {
    workload: 'dropped',
    loads: [
      { rate: MORE, readings: [IRQ, PACKET] },
      { rate: FLOOD, readings: [PACKET] },
    ],
  },
  {
    workload: 'delivered',
    loads: [
      { rate: MORE, readings: [PACKET] },
      { rate: FLOOD, readings: [PACKET] },
    ],
  },
  { workload: 'missed', loads: [{ rate: LOW, readings: [PACKET] }] },
]

const SETTLE_MS = 20
const TRIAL_MS = 60
/** Each load in each round: so many trials undisturbed, or as many as its share of the time allows. */
const TRIALS = 9
/** So many are worth waiting for. */
const LEAST_TRIALS = 3
/** How long a machine may get no time at all, ms. */
const PATIENCE_MS = 30_000
/** Before the first trial: both sides of saturation, until V8 has compiled what runs there. */
const WARM_MS = 250
const WARM_RATES = [LOW, 2_000_000, MORE, FLOOD]
/** In virtual time a trial needs to be no longer than this. */
const VIRTUAL_MS = 20

/** Destinations that the route cache does not hold. */
const STRANGERS = 60_000
/** An EtherType for local experiments (IEEE 802): nobody takes it. */
const NOBODYS = 0x88b5
const FRAMES = 64
const FRAME_BYTES = 60

/** Frames of a protocol that nobody takes, addressed to the router. */
function nobodys({ from, to }: GeneratorConfig): ReplayConfig {
  const data = new Uint8Array(FRAMES * FRAME_BYTES)
  const view = new DataView(data.buffer)
  for (let at = 0; at < data.length; at += FRAME_BYTES) {
    view.setInt32(at, to.hi)
    view.setInt16(at + 4, to.lo)
    view.setInt32(at + 6, from.hi)
    view.setInt16(at + 10, from.lo)
    view.setUint16(at + 12, NOBODYS)
  }
  return {
    kind: 'replay',
    data,
    offsets: Uint32Array.from({ length: FRAMES }, (_, k) => k * FRAME_BYTES),
    lengths: new Uint32Array(FRAMES).fill(FRAME_BYTES),
    times: Float64Array.from({ length: FRAMES }, (_, k) => k),
    mode: 'rate',
    scale: 1,
    loop: true,
  }
}

function stageMachine(workload: Workload, seed: number, profile: CostProfile | null): MachineConfig {
  const config = { ...livelockDefaults(), seed, profile }
  const machine = livelockMachine(workload === 'missed' ? { ...config, flows: STRANGERS } : config, 'napi')
  const port = machine.ports[0]!
  const source = port.source as GeneratorConfig
  if (workload === 'dropped') port.source = nobodys(source)
  if (workload === 'missed') port.source = { ...source, order: 'random' }
  if (workload === 'delivered')
    port.source = { ...source, dst: port.addresses[0]!.local, destinations: 1, dst_stride: 0 }
  return machine
}

/** What was counted in one trial. */
interface Trial extends Had {
  /** ns by context. */
  ns: Record<string, number>
  units: Record<Unit, number>
  tally: CycleShare[]
  /** Rounds of the user's process, and its time. */
  rounds: number
  /** From one look of the board to the next, ns. */
  boardNs: number
}

async function trial(machine: Machine, rate: number, ms: number): Promise<Trial> {
  const { ram } = machine
  const look = () => ({
    sample: takeSample(machine),
    rounds: ram.sum('spin', 'rounds', 1),
    steps: ram.boardSteps(),
    tally: machine.virtual ? cycleShares(ram, 1) : [],
  })
  await machine.source(0, { on: rate > 0, rate: Math.max(1, rate) })
  await machine.pass(SETTLE_MS)
  const a = look()
  await machine.pass(ms)
  machine.check()
  const b = look()
  const since = (now: number, before: number): number => (now < before ? now - before + 2 ** 32 : now - before)
  const [was, is] = [a.sample.cpu[0]!, b.sample.cpu[0]!]
  return {
    ns: Object.fromEntries(Object.keys(is).map(context => [context, is[context]! - was[context]!])),
    units: {
      tick: since(b.sample.ticks, a.sample.ticks),
      interrupt: since(b.sample.irqs, a.sample.irqs),
      packet: since(b.sample.fates.received, a.sample.fates.received),
    },
    // Without a load the board sleeps, so that it does not use what it has.
    hostShare: rate === 0 ? 1 : hostShare(machine, a.sample, b.sample),
    ticksLost: ticksLost(machine, a.sample, b.sample),
    tally: cyclesBetween(a.tally, b.tally),
    rounds: since(b.rounds, a.rounds),
    boardNs: ((b.sample.at - a.sample.at) * 1e6) / Math.max(1, b.steps - a.steps),
  }
}

function perUnit(t: Trial, reading: Reading): number {
  const units = t.units[reading.per]
  return units === 0 ? 0 : reading.contexts.reduce((sum, context) => sum + t.ns[context]!, 0) / units
}

/** What a unit of a reading takes. */
export interface Measured {
  what: string
  /** Median of the trials, ns. */
  ns: number
  spread: number
  trials: number
  /** Was the host left to it? */
  quiet: boolean
}

function nameOf(workload: Workload, rate: number, reading: Reading): string {
  const load = rate === 0 ? 'no load' : rate === FLOOD ? `${workload}, flood` : `${workload}, ${rate / 1000} kpps`
  return `${load}: ${reading.contexts.join(' and ')} per ${reading.per}`
}

async function powered<T>(config: MachineConfig, run: (machine: Machine) => Promise<T>): Promise<T> {
  const machine = new Machine(config)
  try {
    await machine.powerOn()
    const result = await run(machine)
    await machine.halt()
    return result
  } finally {
    await machine.destroy()
  }
}

function loadsOf(): { workload: Workload; load: Load }[] {
  return STAGES.flatMap(({ workload, loads }) => loads.map(load => ({ workload, load })))
}

/**
 * The stages with the host's clock, in rounds: each on machines of its own, for V8 compiles every one of them a little
 * differently, and a host may be faster in one minute than in the next.
 */
export class StageMeter {
  private readonly trials = new Map<Load, Trial[]>()

  constructor(
    private readonly seed: number,
    private readonly patience: Patience,
  ) {}

  /** One round, in about so many ms. */
  async round(budgetMs: number, hooks: ProgressHook): Promise<void> {
    const warms = STAGES.reduce((n, s) => n + warmOf(s.workload).length, 0)
    const warmMs = Math.min(WARM_MS, budgetMs / (2 * warms))
    const eachMs = (budgetMs - warms * warmMs) / loadsOf().length
    let done = 0
    for (const { workload, loads } of STAGES) {
      await powered(stageMachine(workload, this.seed, null), async machine => {
        for (const rate of warmOf(workload)) {
          hooks.signal?.throwIfAborted()
          await trial(machine, rate, warmMs)
        }
        for (const load of loads) {
          hooks.progress?.(done++, loadsOf().length, `measuring: packets ${workload}, ${load.rate / 1000} kpps`)
          const some = await this.some(machine, load, eachMs, hooks.signal)
          this.trials.set(load, [...(this.trials.get(load) ?? []), ...some])
        }
      })
    }
  }

  /** Trials in which something happened; on a host that is very busy a machine may stand still through one. */
  private async some(machine: Machine, load: Load, ms: number, signal?: AbortSignal): Promise<Trial[]> {
    const trials: Trial[] = []
    const start = machine.nowMs
    do {
      signal?.throwIfAborted()
      const t = await trial(machine, load.rate, TRIAL_MS)
      if (load.readings.every(reading => perUnit(t, reading) > 0)) trials.push(t)
      else if (trials.length === 0 && machine.nowMs > start + PATIENCE_MS)
        throw new RunError('the host is too busy to measure anything: the machine gets no time')
    } while (trials.length === 0 || this.wants(trials, machine.nowMs < start + ms))
    return trials
  }

  private wants(trials: readonly Trial[], inTime: boolean): boolean {
    const quiet = trials.filter(isQuiet).length
    return inTime ? quiet < TRIALS : quiet < LEAST_TRIALS && this.patience.again(SETTLE_MS + TRIAL_MS)
  }

  /** Of all rounds. */
  readings(): Measured[] {
    return loadsOf().flatMap(({ workload, load }) => {
      const some = chosen(this.trials.get(load) ?? [])
      return load.readings.map(reading => {
        const values = some.map(t => perUnit(t, reading))
        const what = nameOf(workload, load.rate, reading)
        const ns = median(values)
        return { what, ns, spread: spread(values), trials: some.length, quiet: some.every(isQuiet) }
      })
    })
  }

  /** From one look of the board to the next under a load that it bears, ns. */
  boardNs(): number {
    const busy = loadsOf().filter(({ load }) => load.rate === BUSY)
    return median(busy.flatMap(({ load }) => chosen(this.trials.get(load) ?? []).map(t => t.boardNs)))
  }

  /** A round of the user's process, where nothing comes in between but the clock, ns. */
  roundNs(): number {
    const idle = loadsOf().filter(({ load }) => load.rate === 0)
    return median(
      idle.flatMap(({ load }) => chosen(this.trials.get(load) ?? []).map(t => t.ns['user']! / Math.max(1, t.rounds))),
    )
  }
}

function warmOf(workload: Workload): readonly number[] {
  return workload === 'missed' ? WARM_RATES.slice(0, 1) : WARM_RATES
}

/** predictStages - the same in virtual time: ns of a unit by function, under the names of StageMeter.readings(). */
export async function predictStages(
  profile: CostProfile,
  seed: number,
  signal?: AbortSignal,
): Promise<Map<string, Record<string, number>>> {
  const parts = new Map<string, Record<string, number>>()
  for (const { workload, loads } of STAGES) {
    await powered(stageMachine(workload, seed, profile), async machine => {
      for (const load of loads) {
        signal?.throwIfAborted()
        const t = await trial(machine, load.rate, VIRTUAL_MS)
        for (const reading of load.readings) {
          const units = Math.max(1, t.units[reading.per])
          const ofUnit: Record<string, number> = {}
          for (const { function: f, context, cycles } of t.tally) {
            if (!reading.contexts.some(c => c === context)) continue
            ofUnit[f] = (ofUnit[f] ?? 0) + (cycles * 1e9) / profile.hz / units
          }
          parts.set(nameOf(workload, load.rate, reading), ofUnit)
        }
      }
    })
  }
  return parts
}
