/**
 * check.ts - is the real machine as the profile predicts? For each receive architecture its loss-free rate, and what it still
 * delivers far above saturation, with the host's clock and in virtual time, by the same procedure.
 *
 * `livelock` lets one good trial of several count, so that no hiccup of the host passes for a loss. For a comparison that is
 * too much luck: under `napi` the share that is lost stays near the limit over a wide range of loads, for it is lost by accidents
 * of some hundred microseconds (softirqs that wait for a tick in ksoftirqd, which a pause of the host's is enough to bring
 * about). So here there are more and shorter trials, and those are done again in which a thread of the machine had to wait
 * for its core. Of the others the tenth with the lowest losses decides, on both sides: hiccups too short to be noticed only ever
 * add to them, and an interrupt-driven machine makes each of 150 us into a hundred lost packets.
 */
import { livelockMachine } from '../bench2544.js'
import { livelockDefaults } from '../config.js'
import { settle } from '../livelock.js'
import { Machine } from '../machine.js'
import type { CostProfile } from '../profile.js'
import { ThreadWatch } from '../threadTimes.js'
import { type Held, hold, LOSS, OFFERED } from '../trial.js'
import type { CalibrateCheck, CalibratePoint, LivelockConfig, ProgressHook, RxArch } from '../types.js'
import { lowerTenth, median, spread } from './fit.js'
import { chosen, isUndisturbed, type Patience } from './quiet.js'

/** Differences up to this share count as agreement. */
export const BAR = 0.15
/** Rounds may lie so far apart, as a share of the loss-free rate: beyond, the host was not as fast in all of them. */
const STEADY = 0.1
/**
 * Trials of a load, ms and number: short ones, since every pause of the host is worth some hundred packets, and few of the
 * long ones would be without.
 */
const TRIAL_MS = 20
const TRIALS = 21
/** In virtual time the same run twice is the same: these begin their search elsewhere, so that they meet other loads. */
const VIRTUAL_STARTS = [1, 1.15, 1.3]
/** Trials of a load differ by so much of its rate: no rate is measured that happens to fit the clock's ticks. */
const SPREAD = 0.04
/** The search: from here by doubling, then by halving the interval so often. */
const FIRST_RATE = 50_000
const LOWEST_RATE = 1000
const HIGHEST_RATE = 20_000_000
const BISECTIONS = 6
/** What a search takes, in loads, for the bar. */
const SEARCH_LOADS = 11
/** Overload: so many times the loss-free rate. */
const OVERLOADS = [3, 4, 5]
const WARM_MS = 240
const WARM_RATES = [50_000, 100_000, 1_000_000, 100_000, 5_000_000]

/** What a machine did: packets per second. */
export interface Run {
  mlfrr: number
  plateau: number
  /** Did its threads get what they wanted of the host? */
  quiet: boolean
}

/** What came of the trials of a load. */
interface Load {
  loss: number
  offered: number
  delivered: number
}

/** One machine under one load after the other. */
class Bench {
  private disturbed = 0
  /** In virtual time nobody waits for a core. */
  private readonly watch: ThreadWatch | undefined
  private loads = 0

  constructor(
    private readonly machine: Machine,
    private readonly config: LivelockConfig,
    private readonly rx: RxArch,
    private readonly patience: Patience,
    private readonly hooks: ProgressHook,
    /** The search begins at so many times the usual rate. */
    private readonly start: number,
  ) {
    this.watch = machine.virtual ? undefined : new ThreadWatch(machine.config.cpus + 1)
  }

  private async load(rate: number): Promise<Load> {
    const wanted = TRIALS
    const all: Held[] = []
    const quiet = (): Held[] => all.filter(isUndisturbed)
    const label = `checking: ${this.rx}, ${(rate / 1000).toPrecision(3)} kpps${this.machine.virtual ? ', virtual' : ''}`
    this.hooks.progress?.(this.loads++, SEARCH_LOADS + OVERLOADS.length, label)
    while (quiet().length < wanted && (all.length < wanted || this.patience.again(TRIAL_MS))) {
      this.hooks.signal?.throwIfAborted()
      const share = (all.length % wanted) / (wanted - 1) - 0.5
      all.push(await hold(this.machine, this.config, rate * (1 + SPREAD * share), TRIAL_MS, this.watch))
    }
    if (quiet().length < wanted) this.disturbed++
    const some = chosen(all, isUndisturbed)
    return {
      loss: lowerTenth(some.map(t => (t.offered === 0 ? 1 : t.lost / t.offered))),
      offered: median(some.map(t => t.point.offered_pps)),
      delivered: median(some.map(t => t.point.delivered_pps)),
    }
  }

  private async bears(rate: number): Promise<boolean> {
    const { loss, offered } = await this.load(rate)
    return loss <= LOSS && offered >= OFFERED * rate
  }

  private async mlfrr(): Promise<number> {
    let good = 0
    let bad = Math.round(FIRST_RATE * this.start)
    for (; bad < HIGHEST_RATE && (await this.bears(bad)); bad *= 2) good = bad
    while (good === 0 && bad > LOWEST_RATE) {
      if (await this.bears(bad / 2)) good = bad / 2
      else bad /= 2
    }
    for (let k = 0; k < BISECTIONS && good > 0; k++) {
      const rate = Math.round(Math.sqrt(good * bad))
      if (await this.bears(rate)) good = rate
      else bad = rate
    }
    return good
  }

  async run(): Promise<Run> {
    if (!this.machine.virtual)
      for (const rate of WARM_RATES) await hold(this.machine, this.config, rate, WARM_MS, this.watch)
    const mlfrr = await this.mlfrr()
    let delivered = 0
    for (const times of OVERLOADS) delivered += (await this.load(times * mlfrr)).delivered
    return { mlfrr, plateau: delivered / OVERLOADS.length, quiet: this.disturbed === 0 }
  }
}

async function runOf(
  config: LivelockConfig,
  rx: RxArch,
  patience: Patience,
  hooks: ProgressHook,
  start = 1,
): Promise<Run> {
  const machine = new Machine(livelockMachine(config, rx))
  try {
    await machine.powerOn()
    const run = await new Bench(machine, config, rx, patience, hooks, start).run()
    await settle(machine)
    return run
  } finally {
    await machine.destroy()
  }
}

/**
 * differences - what was measured against what was predicted. A plateau of nothing has no percentage, so plateaus differ by a
 * share of the predicted loss-free rate, or of the predicted plateau where that is higher.
 */
export function differences(rx: RxArch, real: readonly Run[], virtual: readonly Run[]): CalibratePoint[] {
  const predictedOf = (what: 'mlfrr' | 'plateau'): number => median(virtual.map(r => r[what]))
  const point = (what: 'mlfrr' | 'plateau', of: number): CalibratePoint => {
    const values = real.map(r => r[what])
    const measured = median(values)
    const predicted = predictedOf(what)
    const difference = (measured - predicted) / Math.max(1, of)
    return {
      rx,
      what,
      measured_pps: Math.round(measured),
      predicted_pps: Math.round(predicted),
      spread: spread(values),
      runs: values.length,
      difference,
      agrees: Math.abs(difference) <= BAR,
    }
  }
  const mlfrr = predictedOf('mlfrr')
  return [point('mlfrr', mlfrr), point('plateau', Math.max(predictedOf('plateau'), mlfrr))]
}

/** The real machine's side, in rounds beside those of the fit: what changes with the hour changes both. */
export class CheckMeter {
  private readonly runs = new Map<RxArch, Run[]>()
  private readonly config: LivelockConfig

  constructor(
    seed: number,
    private readonly patience: Patience,
  ) {
    this.config = { ...livelockDefaults(), seed }
  }

  private of(rx: RxArch): Run[] {
    const runs = this.runs.get(rx) ?? []
    this.runs.set(rx, runs)
    return runs
  }

  private async each(hooks: ProgressHook, run: (rx: RxArch, hooks: ProgressHook) => Promise<void>): Promise<void> {
    const { rx } = this.config
    for (const [k, arch] of rx.entries()) {
      hooks.signal?.throwIfAborted()
      const progress: ProgressHook['progress'] = (n, of, label) =>
        hooks.progress?.(k + Math.min(1, n / of), rx.length, label)
      await run(arch, { progress, ...(hooks.signal === undefined ? {} : { signal: hooks.signal }) })
    }
  }

  /** One run of each architecture. */
  async round(hooks: ProgressHook): Promise<void> {
    await this.each(hooks, async (rx, within) => {
      this.of(rx).push(await runOf(this.config, rx, this.patience, within))
    })
  }

  /** Those runs against virtual time. */
  async against(profile: CostProfile, hooks: ProgressHook): Promise<CalibrateCheck> {
    const points: CalibratePoint[] = []
    let disturbed = false
    await this.each(hooks, async (rx, within) => {
      const quiet = this.of(rx).filter(r => r.quiet)
      if (2 * quiet.length < this.of(rx).length) disturbed = true
      const virtual: Run[] = []
      for (const start of VIRTUAL_STARTS)
        virtual.push(await runOf({ ...this.config, profile }, rx, this.patience, within, start))
      const found = differences(rx, quiet.length > 0 ? quiet : this.of(rx), virtual)
      if (found.some(p => p.spread * p.measured_pps > STEADY * found[0]!.measured_pps)) disturbed = true
      points.push(...found)
    })
    return { points, disturbed, bar: BAR }
  }
}
