/**
 * livelock.ts - the experiment: raise the offered load on a router far beyond what it can forward, and see what it still
 * delivers, with each receive architecture (Mogul and Ramakrishnan 1996; Salim, Olsson and Kuznetsov 2001).
 */
import { livelockMachine } from './bench2544.js'
import { configRecord, hostInfo } from './config.js'
import { RunError } from './errors.js'
import { Machine } from './machine.js'
import { drain, pointBetween, takeSample, unbalanced } from './sample.js'
import { readTrace, snapTrace, type TraceSnapshot } from './traceReader.js'
import type { LivelockConfig, LivelockPoint, LivelockResult, LivelockSeries, ProgressHook, RxArch } from './types.js'

/** Points of an automatic sweep, as multiples of the loss-free rate. */
const SWEEP = [0.2, 0.5, 0.8, 1, 1.2, 1.5, 2, 3, 4]
/** Loss-free: at least this share of what was offered came out (Mogul and Ramakrishnan read theirs off at 99 %). */
const LOSS_FREE = 0.99
/** Below this share of its peak a router counts as livelocked. */
const LIVELOCKED = 0.1
const WARM_MS = 300
/** Both sides of the cliff, so that no code runs for the first time while it is measured. */
const WARM_RATES = [50_000, 100_000, 1_000_000, 100_000]
const TRIAL_MS = 60
const TRIALS = 3
const SETTLE_MS = 30
const BISECTIONS = 5
/** A shared host only ever makes a machine slower, and for seconds: each point is the best of some passes over the sweep. */
const PASSES = 3
/** Below this, ms, a pass would say little: then one pass takes all the time. */
const SHORTEST_PASS = 100
const CLIMB = 1.25
const FIRST_RATE = 20_000
const MAX_RATE = 20_000_000

class Steps {
  private done = 0
  private total: number
  constructor(
    private readonly hooks: ProgressHook,
    series: number,
    private readonly perSeries: number,
  ) {
    this.total = series * perSeries
  }
  next(label: string, done = 1): void {
    this.hooks.signal?.throwIfAborted()
    this.hooks.progress?.(this.done, this.total, label)
    this.done += done
  }
  /** A series is over, whatever it took. */
  finish(series: number): void {
    this.done = series * this.perSeries
  }
}

interface Held {
  point: LivelockPoint
  trace: TraceSnapshot | null
}

/** Run at a rate for a while. */
async function hold(machine: Machine, rate: number, ms: number, trace = false): Promise<Held> {
  await machine.source(0, { on: true, rate })
  await machine.pass(SETTLE_MS)
  await machine.source(0, { resetLatency: true })
  await machine.source(1, { resetLatency: true })
  const before = takeSample(machine)
  await machine.pass(ms)
  machine.check()
  const after = takeSample(machine)
  return {
    point: pointBetween(machine, before, after),
    trace: trace ? snapTrace(machine, before.at, after.at) : null,
  }
}

/** sweep - all rates, pass after pass; of each rate the pass that delivered most. */
async function sweep(
  machine: Machine,
  rates: readonly number[],
  config: LivelockConfig,
  each: (rate: number, last: boolean) => void,
): Promise<Held[]> {
  const passes = !machine.virtual && config.durationMs >= PASSES * SHORTEST_PASS ? PASSES : 1
  const best: Held[] = []
  for (let pass = 1; pass <= passes; pass++) {
    for (const [k, rate] of rates.entries()) {
      const held = await hold(machine, rate, config.durationMs / passes, config.trace)
      const before = best[k]
      if (before === undefined || held.point.delivered_pps > before.point.delivered_pps) best[k] = held
      each(rate, pass === passes)
    }
  }
  return best
}

function lossFree(p: LivelockPoint): boolean {
  return p.delivered_pps >= LOSS_FREE * p.offered_pps
}

/** Does the router lose nothing at this rate? A hiccup of the host is not a loss of the router, so one good trial counts. */
async function survives(machine: Machine, rate: number): Promise<boolean> {
  for (let k = 0; k < (machine.virtual ? 1 : TRIALS); k++)
    if (lossFree((await hold(machine, rate, TRIAL_MS)).point)) return true
  return false
}

/** mlfrr - the maximum loss-free receive rate: double until packets are lost, then halve the interval. */
async function mlfrr(machine: Machine, steps: Steps, rx: RxArch): Promise<number> {
  let good = 0
  let bad = FIRST_RATE
  for (; bad < MAX_RATE; bad *= 2) {
    steps.next(`${rx}: looking for the loss-free rate, ${Math.round(bad / 1000)} kpps`)
    if (!(await survives(machine, bad))) break
    good = bad
  }
  for (let k = 0; k < BISECTIONS; k++) {
    const rate = Math.round((good + bad) / 2)
    steps.next(`${rx}: looking for the loss-free rate, ${Math.round(rate / 1000)} kpps`)
    if (await survives(machine, rate)) good = rate
    else bad = rate
  }
  // A busy host can fail all trials of a rate that the router bears: climb back as far as it goes.
  for (
    let rate = Math.round(good * CLIMB);
    !machine.virtual && good > 0 && rate < MAX_RATE;
    rate = Math.round(rate * CLIMB)
  ) {
    steps.next(`${rx}: looking for the loss-free rate, ${Math.round(rate / 1000)} kpps`)
    if (!(await survives(machine, rate))) break
    good = rate
  }
  return Math.max(good, 1)
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

async function runSeries(
  config: LivelockConfig,
  rx: RxArch,
  machine: Machine,
  steps: Steps,
  hooks: ProgressHook,
): Promise<LivelockSeries> {
  steps.next(`${rx}: booting`)
  await machine.powerOn()
  steps.next(`${rx}: warming up`)
  for (const rate of machine.virtual ? [] : WARM_RATES) await hold(machine, rate, WARM_MS)
  const loss_free = await mlfrr(machine, steps, rx)
  const rates = config.rates === 'auto' ? SWEEP.map(x => Math.round(x * loss_free)) : config.rates
  const label = (rate: number): string => `${rx}, ${Math.round(rate / 1000)} kpps offered`
  const held = await sweep(machine, rates, config, (rate, last) => steps.next(label(rate), last ? 1 : 0))
  const points = held.map(h => h.point)
  for (const [k, { trace }] of held.entries()) {
    if (trace !== null)
      hooks.trace?.({ label: label(rates[k]!), cpus: config.cpus, fromNs: trace.fromNs, records: readTrace(trace) })
  }
  await settle(machine)
  const hash = machine.turns?.hash.toString(16).padStart(8, '0')
  return {
    rx,
    cpus: config.cpus,
    mlfrr_pps: loss_free,
    livelock_pps: livelockPoint(points),
    points,
    ...(hash === undefined ? {} : { hash }),
  }
}

/** The source off, everything out of the queues: then the books must balance and nothing may be left over. */
async function settle(machine: Machine): Promise<void> {
  await machine.source(0, { on: false })
  await drain(machine)
  const wrong = unbalanced(machine)
  if (wrong.length > 0) throw new RunError(`packets are not conserved: ${wrong.join('; ')}`)
  await machine.halt()
  const leaks = await machine.audit()
  if (leaks.length > 0) throw new RunError(`leaked: ${leaks.map(l => `${l.used} of ${l.name}`).join(', ')}`)
}

/** runLivelock - the whole experiment, one machine for each receive architecture after the other. */
export async function runLivelock(config: LivelockConfig, hooks: ProgressHook = {}): Promise<LivelockResult> {
  const series: LivelockSeries[] = []
  const perSeries = 2 + 6 + BISECTIONS + (config.rates === 'auto' ? SWEEP.length : config.rates.length)
  const steps = new Steps(hooks, config.rx.length, perSeries)
  for (const rx of config.rx) {
    const machine = new Machine(livelockMachine(config, rx))
    try {
      series.push(await runSeries(config, rx, machine, steps, hooks))
    } finally {
      await machine.destroy()
    }
    steps.finish(series.length)
  }
  return { schema: 'softnet.livelock/1', host: hostInfo(), seed: config.seed, config: configRecord(config), series }
}
