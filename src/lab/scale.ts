/**
 * scale.ts - how forwarding grows with the number of CPUs, in virtual time: one variation of the machine at a time, offered
 * more than it can take, with where the cycles went and which locks were waited for.
 */
import type { GeneratorConfig } from '../hw/types.js'
import { livelockMachine } from './bench2544.js'
import { livelockDefaults } from './config.js'
import { RunError } from './errors.js'
import { Machine, type MachineConfig } from './machine.js'
import type { CostProfile } from './profile.js'
import { drain, dropsBetween, type Sample, takeSample, unbalanced } from './sample.js'
import { type CycleShare, cycleShares, cyclesBetween, type LockStat, lockStats, locksBetween } from './tallies.js'
import type { LivelockConfig, ProgressHook, ScaleLock, ScalePoint, ScaleResult } from './types.js'

/** Until the route cache is warm, and the rings and queues as full as they get. */
const WARM_MS = 2
/** Halves of a window may differ by so much of the larger one; else the window is made twice as long, so many times at most. */
const UNSTEADY = 0.1
const DOUBLINGS = 4
/** Packets in each half: fewer may agree by chance, for they leave by whole transmit rings. */
const HALF_PACKETS = 1000
/** Offered per CPU: more than one forwards. */
const OFFERED_PER_CPU = 2_500_000
const TOP_FUNCTIONS = 8
const TOP_LOCKS = 6
/** Few: fewer than there are CPUs. Many: several for each. More than the route cache holds: every packet misses. */
const [FEW, MANY, ALL] = [2, 512, 60_000]

interface Variant {
  name: string
  what: string
  config: Partial<LivelockConfig>
  txRing?: number
}

const LONG_RING = 1024

/** What is varied: each differs from the first in one thing. */
export const VARIANTS: readonly Variant[] = [
  { name: 'base', what: 'a queue for each CPU, many flows, test-and-set locks, routes cached', config: {} },
  { name: 'one-queue', what: 'one receive queue', config: { queues: 1 } },
  { name: 'pinned', what: 'all interrupts on CPU 0', config: { affinity: 'cpu0' } },
  { name: 'few-flows', what: `${FEW} flows`, config: { flows: FEW } },
  { name: 'ticket', what: 'ticket locks', config: { lock: 'ticket' } },
  { name: 'mcs', what: 'MCS locks', config: { lock: 'mcs' } },
  { name: 'long-ring', what: `a transmit ring of ${LONG_RING} frames, not 256`, config: {}, txRing: LONG_RING },
  {
    name: 'long-ring-mcs',
    what: 'such a ring and MCS locks',
    config: { lock: 'mcs' },
    txRing: LONG_RING,
  },
  { name: 'cache-miss', what: `${ALL} destinations: the route cache misses`, config: { flows: ALL } },
]

export interface ScaleOptions {
  profile: CostProfile
  seed: number
  cpus: readonly number[]
  variants: readonly string[]
  /** Virtual time of a point that is steady, ms. */
  durationMs: number
  parallel: number
  hooks?: ProgressHook
}

function scaleMachine(options: ScaleOptions, variant: Variant, cpus: number): MachineConfig {
  const config: LivelockConfig = {
    ...livelockDefaults(),
    profile: options.profile,
    seed: options.seed,
    cpus,
    flows: MANY,
    ...variant.config,
  }
  const machine = livelockMachine(config, 'napi')
  const source = machine.ports[0]!.source as GeneratorConfig
  const order = variant.name === 'cache-miss' ? 'random' : 'round-robin'
  machine.ports[0]!.source = { ...source, order }
  return { ...machine, userSpin: false, ...(variant.txRing === undefined ? {} : { txRing: variant.txRing }) }
}

async function locksOf(machine: Machine, locks: ReturnType<typeof locksBetween>): Promise<ScaleLock[]> {
  const names = await machine.describe(locks.map(l => l.lock))
  const classes = new Map<string, ScaleLock>()
  locks.forEach((l, k) => {
    const name = l.lock === 0 ? 'others' : names[k]!.replace(/\[\d+\]/g, '').replace(/\.val$/, '')
    const sum = classes.get(name) ?? { lock: name, acquisitions: 0, contentions: 0, wait_cycles: 0, hold_cycles: 0 }
    sum.acquisitions += l.acquisitions
    sum.contentions += l.contentions
    sum.wait_cycles += Math.round(l.wait_cycles)
    sum.hold_cycles += Math.round(l.hold_cycles)
    classes.set(name, sum)
  })
  return [...classes.values()]
    .sort((a, b) => b.wait_cycles - a.wait_cycles || b.acquisitions - a.acquisitions)
    .slice(0, TOP_LOCKS)
}

/** Did enough packets come out of the two halves of a window, and the same number, more or less? */
export function isSteady([first, second]: readonly [number, number]): boolean {
  return Math.min(first, second) >= HALF_PACKETS && Math.abs(first - second) <= UNSTEADY * Math.max(first, second)
}

interface Look {
  sample: Sample
  cycles: CycleShare[]
  locks: Map<number, LockStat>
}

function look(machine: Machine): Look {
  const { ram, config } = machine
  return {
    sample: takeSample(machine),
    cycles: cycleShares(ram, config.cpus),
    locks: lockStats(ram, config.cpus),
  }
}

interface Window {
  before: Look
  after: Look
  halves: [number, number]
}

/** A window whose halves agree, if there is one: each longer one begins with all of the last. */
async function steadyWindow(machine: Machine, durationMs: number): Promise<Window> {
  const sent = (): number => machine.ram.port(1).sent
  const before = look(machine)
  const start = sent()
  await machine.pass(durationMs / 2)
  let middle = sent()
  await machine.pass(durationMs / 2)
  for (let k = 0, half = durationMs / 2; ; k++) {
    const end = sent()
    const halves: [number, number] = [middle - start, end - middle]
    if (isSteady(halves) || k === DOUBLINGS) return { before, after: look(machine), halves }
    half *= 2
    middle = end
    await machine.pass(half)
  }
}

async function runPoint(options: ScaleOptions, variant: Variant, cpus: number): Promise<ScalePoint> {
  const machine = new Machine(scaleMachine(options, variant, cpus))
  try {
    await machine.powerOn()
    await machine.source(0, { on: true, rate: OFFERED_PER_CPU * cpus })
    await machine.pass(WARM_MS)
    const { before, after, halves } = await steadyWindow(machine, options.durationMs)
    await machine.source(0, { on: false })
    await drain(machine)
    const wrong = unbalanced(machine)
    if (wrong.length > 0)
      throw new RunError(`${variant.name}, ${cpus} CPUs: packets are not conserved: ${wrong.join('; ')}`)
    const hash = machine.turns!.hash.toString(16).padStart(8, '0')
    await machine.halt()
    const locks = await locksOf(machine, locksBetween(before.locks, after.locks))
    const leaks = await machine.audit()
    if (leaks.length > 0) throw new RunError(`leaked: ${leaks.map(l => `${l.used} of ${l.name}`).join(', ')}`)
    const seconds = (after.sample.at - before.sample.at) / 1000
    const delivered = after.sample.ports[1]!.sent - before.sample.ports[1]!.sent
    const cycles = cyclesBetween(before.cycles, after.cycles)
    const all = seconds * options.profile.hz * cpus
    return {
      variant: variant.name,
      cpus,
      delivered_pps: Math.round(delivered / seconds),
      window_ms: Math.round(seconds * 1000),
      halves_pps: [Math.round((halves[0] * 2) / seconds), Math.round((halves[1] * 2) / seconds)],
      steady: isSteady(halves),
      cycles_per_packet: delivered === 0 ? null : Math.round(cycles.reduce((n, c) => n + c.cycles, 0) / delivered),
      drops: dropsBetween(before.sample, after.sample),
      functions: cycles
        .slice(0, TOP_FUNCTIONS)
        .map(c => ({ ...c, cycles: Math.round(c.cycles), share: c.cycles / all })),
      locks,
      hash,
    }
  } finally {
    await machine.destroy()
  }
}

/** runScale - all points, largest machines last; each is the same whatever runs beside it. */
export async function runScale(options: ScaleOptions): Promise<ScaleResult> {
  const jobs = VARIANTS.filter(v => options.variants.includes(v.name)).flatMap(variant =>
    options.cpus.map(cpus => ({ variant, cpus })),
  )
  const order = jobs.map((_, k) => k).sort((a, b) => jobs[b]!.cpus - jobs[a]!.cpus)
  const points: ScalePoint[] = []
  let done = 0
  const worker = async (): Promise<void> => {
    for (let at = order.shift(); at !== undefined; at = order.shift()) {
      options.hooks?.signal?.throwIfAborted()
      const { variant, cpus } = jobs[at]!
      points[at] = await runPoint(options, variant, cpus)
      options.hooks?.progress?.(++done, jobs.length, `${variant.name}, ${cpus} CPUs`)
    }
  }
  await Promise.all(Array.from({ length: options.parallel }, worker))
  const { profile, seed, durationMs } = options
  return { schema: 'softnet.scale/1', profile: profile.name, hz: profile.hz, seed, duration_ms: durationMs, points }
}
