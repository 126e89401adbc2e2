/**
 * livelock.ts - the experiment: raise the offered load on a router far beyond what it can forward, and see what it still
 * delivers, with each receive architecture (Mogul and Ramakrishnan 1996; Salim, Olsson and Kuznetsov 2001).
 */
import { livelockMachine } from './bench2544.js'
import { configRecord, hostInfo } from './config.js'
import { RunError, UsageError } from './errors.js'
import { Machine } from './machine.js'
import { MAX_RATE, SEARCH_MS, Search } from './mlfrr.js'
import { type Capture, cutNotice, readPcap } from './pcap.js'
import { drain, unbalanced } from './sample.js'
import { readTrace } from './traceReader.js'
import { bursty, costMs, type Held, hold, Steps } from './trial.js'
import type { LivelockConfig, LivelockPoint, LivelockResult, LivelockSeries, ProgressHook, RxArch } from './types.js'

/** Points of an automatic sweep, as multiples of the loss-free rate. */
const SWEEP = [0.2, 0.5, 0.8, 1, 1.2, 1.5, 2, 3, 4]
/** The highest load is offered at least so many times: a source may stay a little behind its rate. */
const OVERLOAD = 4
const MARGIN = 1.01
/** How often a sweep is extended, when it shows that the loss-free rate is higher than the search had found. */
const EXTENSIONS = 6
/** Passes over single points that a sweep may take beyond its own, before it hurries: on a busy host it would find no end. */
const EXTRA_PASSES = 12
/** Below this share of its peak a router counts as livelocked. */
const LIVELOCKED = 0.1
const WARM_MS = 240
/** Both sides of the cliff, so that no code runs for the first time while it is measured. */
const WARM_RATES = [50_000, 100_000, 1_000_000, 100_000]
/** A shared host only ever makes a machine slower, and for seconds: each point is the best of some passes over the sweep.
 *  In virtual time as well, so that its figures are those that a real clock would find. */
const PASSES = 3
/** Below this, ms, a pass would say little: then one pass takes all the time. */
const SHORTEST_PASS = 100

/** A pass that lost nothing is better than one that did, and one that delivered more than one that did less. */
function better(a: Held, b: Held | undefined): boolean {
  if (b === undefined || a.lossFree !== b.lossFree) return b === undefined || a.lossFree
  return a.point.delivered_pps > b.point.delivered_pps
}

/** One machine under one load after the other. */
class Sweep {
  /** Of each rate the best pass. */
  private readonly best = new Map<number, Held>()
  private readonly passes: number
  private readonly passMs: number
  private taken = 0
  private limit = Infinity

  constructor(
    private readonly machine: Machine,
    private readonly config: LivelockConfig,
    private readonly rx: RxArch,
    private readonly steps: Steps,
  ) {
    this.passes = config.durationMs >= PASSES * SHORTEST_PASS ? PASSES : 1
    this.passMs = config.durationMs / this.passes
  }

  /** All points so far, by offered load. */
  get points(): Held[] {
    return [...this.best.values()].sort((a, b) => a.rate - b.rate)
  }

  label(rate: number): string {
    return `${this.rx}, ${rate < 10_000 ? rate / 1000 : Math.round(rate / 1000)} kpps offered`
  }

  /** What so many points take. */
  planMs(points: number): number {
    return points * this.passes * costMs(this.passMs)
  }

  private async pass(rates: readonly number[]): Promise<void> {
    for (const rate of rates) {
      this.steps.next(this.label(rate), costMs(this.passMs))
      this.taken++
      const held = await hold(this.machine, this.config, rate, this.passMs)
      if (better(held, this.best.get(rate))) this.best.set(rate, held)
    }
  }

  private get hurries(): boolean {
    return this.taken > this.limit
  }

  /** All of these rates, pass after pass; in a hurry each once, or only the highest one. */
  async run(rates: readonly number[]): Promise<void> {
    const some = this.hurries ? rates.slice(-1) : rates
    const passes = this.taken + some.length * this.passes > this.limit ? 1 : this.passes
    this.steps.plan((this.planMs(some.length) * passes) / this.passes)
    for (let k = 0; k < passes; k++) await this.pass(some)
  }

  /** The highest rate that lost nothing, of those offered and `found`. */
  lossFree(found: number): number {
    return Math.max(found, ...this.points.filter(p => p.lossFree).map(p => Math.min(p.rate, p.point.offered_pps)))
  }

  /** Below a rate that lost nothing others did: a hiccup of the host, unless it happens again. */
  async again(found: number): Promise<void> {
    if (this.passes === 1 || this.hurries) return
    const odd = (): number[] => this.points.filter(p => !p.lossFree && p.rate <= found).map(p => p.rate)
    for (let k = 0; k < 2 && odd().length > 0; k++) await this.pass(odd())
  }

  /** From a fifth of the loss-free rate to four times that; the sweep itself may show a higher one. @returns it */
  async auto(found: number): Promise<number> {
    let best = found
    await this.run(multiples(best, 0))
    if (!this.machine.virtual) this.limit = this.taken + EXTRA_PASSES
    for (let k = 0; k < EXTENSIONS; k++) {
      best = this.lossFree(best)
      await this.again(best)
      const last = this.points[this.points.length - 1]!
      if (last.point.offered_pps >= OVERLOAD * best || last.rate >= MAX_RATE) break
      const behind = Math.min(1.5, last.rate / Math.max(1, last.point.offered_pps))
      await this.run(multiples(best, last.rate * MARGIN, MARGIN * behind))
    }
    return this.agreed(this.lossFree(best))
  }

  /** A loss at or below the loss-free rate, in a point that lasts longer than a trial: then that rate is what the table shows. */
  private async agreed(found: number): Promise<number> {
    const lossy = this.points.find(p => !p.lossFree && p.rate <= found)
    const clean = this.points.filter(p => p.lossFree).map(p => p.rate)
    if (lossy === undefined || clean.length === 0 || Math.max(...clean) > lossy.rate) return found
    await this.run([Math.round((Math.max(...clean) + lossy.rate) / 2)])
    const best = Math.max(...this.points.filter(p => p.lossFree).map(p => p.rate))
    const lowest = Math.round(SWEEP[0]! * best)
    if (this.points[0]!.rate > lowest * MARGIN) await this.run([lowest])
    return best
  }
}

/** The rates of a sweep that lie above `from`; the highest of them `stretch` times as high. */
function multiples(best: number, from: number, stretch = MARGIN): number[] {
  const rates = SWEEP.map(x => Math.min(MAX_RATE, Math.round(x * best * (x === OVERLOAD ? stretch : 1))))
  return [...new Set(rates)].filter(rate => rate > from)
}

function livelockPoint(points: readonly LivelockPoint[]): number | null {
  const peak = Math.max(...points.map(p => p.delivered_pps))
  let from: number | null = null
  for (const p of points) {
    if (p.delivered_pps >= LIVELOCKED * peak) from = null
    else from ??= p.offered_pps
  }
  return from
}

/** Packets of a lump, for loads that come in lumps: a burst, or a whole capture with its own gaps. */
function lump(config: LivelockConfig, machine: Machine): number {
  const source = machine.config.ports[0]!.source
  if (!bursty(config)) return 0
  return source?.kind === 'replay' ? source.offsets.length : config.burst.packets
}

async function runSeries(
  config: LivelockConfig,
  rx: RxArch,
  machine: Machine,
  steps: Steps,
  hooks: ProgressHook,
): Promise<{ series: LivelockSeries; shares: number[] }> {
  steps.begin(`${rx}: booting`)
  await machine.powerOn()
  for (const rate of machine.virtual ? [] : WARM_RATES) {
    steps.next(`${rx}: warming up`, costMs(WARM_MS))
    await hold(machine, { ...config, trace: false }, rate, WARM_MS)
  }
  const sweep = new Sweep(machine, config, rx, steps)
  const after = sweep.planMs(config.rates === 'auto' ? SWEEP.length : config.rates.length)
  steps.plan(SEARCH_MS + after, after)
  let mlfrr = await new Search(machine, config, rx, steps, lump(config, machine)).run()
  if (config.rates !== 'auto') {
    await sweep.run(config.rates)
    mlfrr = sweep.lossFree(mlfrr)
  } else {
    if (mlfrr === 0) throw new RunError(`${rx}: no offered load gets through without loss, so there is none to raise`)
    mlfrr = await sweep.auto(mlfrr)
  }
  await settle(machine)
  for (const { rate, trace } of sweep.points) {
    if (trace !== null)
      hooks.trace?.({ label: sweep.label(rate), cpus: config.cpus, fromNs: trace.fromNs, records: readTrace(trace) })
  }
  const points = sweep.points.map(p => p.point)
  const hash = machine.turns?.hash.toString(16).padStart(8, '0')
  const series = { rx, cpus: config.cpus, mlfrr_pps: mlfrr, livelock_pps: livelockPoint(points), points }
  return {
    series: { ...series, ...(hash === undefined ? {} : { hash }) },
    shares: sweep.points.map(p => p.hostShare),
  }
}

/** settle - the source off, everything out of the queues: then the books must balance and nothing may be left over. */
export async function settle(machine: Machine): Promise<void> {
  await machine.source(0, { on: false })
  await drain(machine)
  const wrong = unbalanced(machine)
  if (wrong.length > 0) throw new RunError(`packets are not conserved: ${wrong.join('; ')}`)
  await machine.halt()
  const leaks = await machine.audit()
  if (leaks.length > 0) throw new RunError(`leaked: ${leaks.map(l => `${l.used} of ${l.name}`).join(', ')}`)
}

/** Read once, for a pipe has its bytes only once. */
async function captureOf({ pcap }: LivelockConfig, hooks: ProgressHook): Promise<Capture | null> {
  if (pcap === null) return null
  const capture = await readPcap(pcap, hooks.signal)
  if (capture.data.length === 0) throw new UsageError(`--pcap ${pcap}: there is no frame in it to offer`)
  const notice = cutNotice(capture, pcap)
  if (notice !== null) hooks.notice?.(notice)
  return capture
}

/** runLivelock - the whole experiment, one machine for each receive architecture after the other. */
export async function runLivelock(config: LivelockConfig, hooks: ProgressHook = {}): Promise<LivelockResult> {
  const capture = await captureOf(config, hooks)
  hooks.ready?.()
  const series: LivelockSeries[] = []
  const host_shares: number[][] = []
  const points = config.rates === 'auto' ? SWEEP.length : config.rates.length
  const warmMs = config.profile === null ? WARM_RATES.length * costMs(WARM_MS) : 0
  const steps = new Steps(hooks, warmMs + SEARCH_MS + points * config.durationMs, config.rx.length)
  for (const rx of config.rx) {
    const machine = new Machine(livelockMachine(config, rx, capture))
    try {
      const done = await runSeries(config, rx, machine, steps, hooks)
      series.push(done.series)
      host_shares.push(done.shares)
    } finally {
      await machine.destroy()
    }
    steps.finish(`${rx}: done`)
  }
  const head = {
    schema: 'softnet.livelock/1' as const,
    host: hostInfo(),
    seed: config.seed,
    config: configRecord(config),
  }
  return { ...head, series, host_shares }
}
