/**
 * paper.ts - the figures of "Eliminating Receive Livelock in an Interrupt-Driven Kernel" (Mogul and Ramakrishnan, USENIX
 * 1996), from this kernel in virtual time with the costs of their machine. Only Fig 6-1 was fitted; the others follow from it.
 */
import { readFileSync } from 'node:fs'
import type { GeneratorConfig } from '../hw/types.js'
import { livelockMachine } from './bench2544.js'
import { livelockDefaults } from './config.js'
import { RunError } from './errors.js'
import { Machine, type MachineConfig } from './machine.js'
import type { CostProfile } from './profile.js'
import { drain, takeSample, unbalanced } from './sample.js'
import type { PaperPoint, PaperResult, PaperSeries, ProgressHook } from './types.js'

/** Two 10 Mbit/s Ethernets. */
const ETHERNET_BPS = 10_000_000
/** Receive and transmit descriptors of their Ethernet chips, and the length of an output queue (BSD's IFQ_MAXLEN). */
const RING = 32
const IFQ_MAXLEN = 50
/** Packets of a trial, as published. */
export const TRIAL_PACKETS = 10_000
/** Offered loads, packets per second: an Ethernet carries 14,880 of the shortest frames. */
const RATES = [500, ...Array.from({ length: 24 }, (_, k) => (k + 2) * 500)]
/** Before a trial counts, ms. */
const WARM_MS = 60
/** UDP packets of 4 bytes fit the shortest frame. */
const FRAME = 60
/** No limit on what one interrupt takes: their drivers batch. */
const BATCH = 0x7fffffff

interface SeriesPlan {
  figure: string
  series: string
  /** What `output` is: packets per second, or the user's share of the CPU in percent. */
  output: 'pps' | 'user'
  machine: Partial<MachineConfig>
}

const unmodified: Partial<MachineConfig> = { rx: 'interrupt', irqWork: BATCH }
const polling = (pollQuota: number): Partial<MachineConfig> => ({ rx: 'polled', pollQuota })
const QUOTAS = [
  ['q5', 5],
  ['q10', 10],
  ['q20', 20],
  ['q100', 100],
  ['inf', 0],
] as const

/** Every series of the results, in the order of the figures. */
export const PLANS: readonly SeriesPlan[] = [
  { figure: '6-1', series: 'unmod', output: 'pps', machine: unmodified },
  { figure: '6-1', series: 'screend', output: 'pps', machine: { ...unmodified, screend: 'on' } },
  { figure: '6-3', series: 'unmod', output: 'pps', machine: unmodified },
  { figure: '6-3', series: 'nopoll', output: 'pps', machine: unmodified },
  { figure: '6-3', series: 'q5', output: 'pps', machine: polling(5) },
  { figure: '6-3', series: 'noquota', output: 'pps', machine: polling(0) },
  { figure: '6-4', series: 'unmod+screend', output: 'pps', machine: { ...unmodified, screend: 'on' } },
  { figure: '6-4', series: 'poll nofb', output: 'pps', machine: { ...polling(10), screend: 'on' } },
  { figure: '6-4', series: 'poll fb', output: 'pps', machine: { ...polling(10), screend: 'feedback' } },
  ...QUOTAS.map(([series, q]) => ({ figure: '6-5', series, output: 'pps' as const, machine: polling(q) })),
  ...QUOTAS.map(([series, q]) => ({
    figure: '6-6',
    series,
    output: 'pps' as const,
    machine: { ...polling(q), screend: 'feedback' as const },
  })),
  ...[25, 50, 75, 100].map(percent => ({
    figure: '7-1',
    series: `userCPU% threshold ${percent}`,
    output: 'user' as const,
    machine: { ...polling(5), cycleLimit: percent, userSpin: true },
  })),
  { figure: '7-1', series: 'userCPU% no limit', output: 'user', machine: { ...polling(5), userSpin: true } },
]

/** paperMachine - the router under test. */
export function paperMachine(profile: CostProfile, seed: number, part: Partial<MachineConfig>): MachineConfig {
  const base = livelockMachine({ ...livelockDefaults(), profile, seed, flows: 1, queues: 1 }, 'interrupt')
  const source = base.ports[0]!.source as GeneratorConfig
  return {
    ...base,
    rxRing: RING,
    txRing: RING,
    txQueueLen: IFQ_MAXLEN,
    tidvNs: 0,
    userSpin: false,
    skbs: 1024,
    ramMiB: 48,
    ports: base.ports.map((p, k) => ({
      ...p,
      bps: ETHERNET_BPS,
      source: k === 0 ? { ...source, sizes: [[FRAME, 1]], arrivals: 'poisson' } : null,
    })),
    ...part,
  }
}

/** One trial: so many packets at a rate, after a while at it. */
async function trial(machine: Machine, plan: SeriesPlan, rate: number, packets: number): Promise<PaperPoint> {
  await machine.source(0, { on: true, rate: Math.max(rate, 1) })
  await machine.pass(WARM_MS)
  const before = takeSample(machine)
  await machine.pass((packets / Math.max(rate, 1)) * 1000)
  const after = takeSample(machine)
  await machine.source(0, { on: false })
  await drain(machine)
  const wrong = unbalanced(machine)
  if (wrong.length > 0)
    throw new RunError(`${plan.figure} ${plan.series}: packets are not conserved: ${wrong.join('; ')}`)
  const seconds = (after.at - before.at) / 1000
  const spent = (s: typeof after, ...names: string[]): number => names.reduce((n, name) => n + s.cpu[0]![name]!, 0)
  const user = spent(after, 'user', 'nice') - spent(before, 'user', 'nice')
  return {
    input_pps: Math.round((after.ports[0]!.offered - before.ports[0]!.offered) / seconds),
    output:
      plan.output === 'pps'
        ? Math.round((after.ports[1]!.sent - before.ports[1]!.sent) / seconds)
        : Math.round((user / (seconds * 1e9)) * 1000) / 10,
  }
}

async function runSeries(plan: SeriesPlan, options: PaperOptions, each: () => void): Promise<PaperSeries> {
  const machine = new Machine(paperMachine(options.profile, options.seed, plan.machine))
  try {
    await machine.powerOn()
    const points: PaperPoint[] = []
    for (const rate of options.rates ?? ratesOf(plan)) {
      options.hooks?.signal?.throwIfAborted()
      points.push(await trial(machine, plan, rate, options.packets))
      each()
    }
    await machine.halt()
    const leaks = await machine.audit()
    if (leaks.length > 0) throw new RunError(`leaked: ${leaks.map(l => `${l.used} of ${l.name}`).join(', ')}`)
    const hash = machine.turns!.hash.toString(16).padStart(8, '0')
    return { figure: plan.figure, series: plan.series, output: plan.output, hash, points }
  } finally {
    await machine.destroy()
  }
}

function ratesOf(plan: SeriesPlan): readonly number[] {
  return plan.figure === '6-1' ? [...PUBLISHED.filter(p => p.series === plan.series).map(p => p.input_pps)] : RATES
}

export interface PublishedPoint extends PaperPoint {
  figure: string
  series: string
}

/** The published points of Fig 6-1, to which the profile was fitted. */
export const PUBLISHED: readonly PublishedPoint[] = readFileSync(
  new URL('../../../data/livelock-fig-6-1.csv', import.meta.url),
  'utf8',
)
  .trim()
  .split('\n')
  .slice(1)
  .map(line => {
    const [figure, series, input, output] = line.split(',')
    return { figure: figure!, series: series!, input_pps: Number(input), output: Number(output) }
  })

export interface PaperOptions {
  profile: CostProfile
  seed: number
  packets: number
  /** Offered loads of every series; by default the published ones for Fig 6-1 and a grid for the others. */
  rates?: readonly number[]
  figures?: readonly string[]
  /** Machines at once. */
  parallel: number
  hooks?: ProgressHook
}

/** runPaper - all series, several machines at a time; each is the same whatever runs beside it. */
export async function runPaper(options: PaperOptions): Promise<PaperResult> {
  const plans = PLANS.filter(p => options.figures?.includes(p.figure) ?? true)
  const total = plans.reduce((n, p) => n + (options.rates ?? ratesOf(p)).length, 0)
  const series: PaperSeries[] = []
  let done = 0
  let next = 0
  const worker = async (): Promise<void> => {
    for (let k = next++; k < plans.length; k = next++) {
      const plan = plans[k]!
      series[k] = await runSeries(plan, options, () => {
        options.hooks?.progress?.(++done, total, `Fig ${plan.figure}, ${plan.series}`)
      })
    }
  }
  await Promise.all(Array.from({ length: options.parallel }, worker))
  return {
    schema: 'softnet.paper/1',
    profile: options.profile.name,
    seed: options.seed,
    packets: options.packets,
    series,
  }
}
