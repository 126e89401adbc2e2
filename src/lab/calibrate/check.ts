/**
 * check.ts - is the real machine as the profile predicts? `livelock` with the host's clock and in virtual time, for each receive
 * architecture: its loss-free rate, and what it still delivers far above saturation.
 */
import { livelockDefaults } from '../config.js'
import { runLivelock } from '../livelock.js'
import type { CostProfile } from '../profile.js'
import type { CalibrateCheck, CalibratePoint, LivelockConfig, LivelockResult, ProgressHook, RxArch } from '../types.js'
import { median, spread } from './fit.js'
import { QUIET } from './stages.js'

/** Differences up to this share count as agreement. */
export const BAR = 0.15
/** Loads of so many times the loss-free rate and more are overload. */
const OVERLOADED = 2.5
/** Share of a run's points that a busy host may have spoilt. */
const SPOILT = 0.1
/** Runs of one architecture in a round, when the first ones are disturbed. */
const PATIENCE = 2

interface Run {
  mlfrr: number
  plateau: number
  quiet: boolean
}

/** runOf - the two figures of a run of one receive architecture. */
export function runOf({ series, host_shares }: LivelockResult): Run {
  const { mlfrr_pps, points } = series[0]!
  const over = points.filter(p => p.offered_pps >= OVERLOADED * mlfrr_pps)
  const last = over.length > 0 ? over : points.slice(-1)
  const shares = host_shares[0]!
  return {
    mlfrr: mlfrr_pps,
    plateau: last.reduce((n, p) => n + p.delivered_pps, 0) / last.length,
    quiet: shares.filter(s => s < QUIET).length <= SPOILT * shares.length,
  }
}

/**
 * differences - what was measured against what was predicted. A plateau of nothing has no percentage, so plateaus differ by a
 * share of the predicted loss-free rate, or of the predicted plateau where that is higher.
 */
export function differences(rx: RxArch, real: readonly Run[], virtual: Run): CalibratePoint[] {
  const point = (what: 'mlfrr' | 'plateau', of: number): CalibratePoint => {
    const values = real.map(r => r[what])
    const measured = median(values)
    const predicted = virtual[what]
    const difference = (measured - predicted) / of
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
  return [point('mlfrr', virtual.mlfrr), point('plateau', Math.max(virtual.plateau, virtual.mlfrr))]
}

/** The real machine's side, in rounds beside those of the fit: what changes with the hour changes both. */
export class CheckMeter {
  private readonly runs = new Map<RxArch, Run[]>()
  private readonly config: LivelockConfig

  constructor(seed: number) {
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
      const progress: ProgressHook['progress'] = (n, of, label) =>
        hooks.progress?.(k + n / Math.max(1, of), rx.length, label)
      await run(arch, { progress, ...(hooks.signal === undefined ? {} : { signal: hooks.signal }) })
    }
  }

  /** One run of each architecture; a disturbed one once more. */
  async round(hooks: ProgressHook): Promise<void> {
    await this.each(hooks, async (rx, within) => {
      for (let k = 0; k < PATIENCE; k++) {
        const run = runOf(await runLivelock({ ...this.config, rx: [rx] }, within))
        this.of(rx).push(run)
        if (run.quiet) break
      }
    })
  }

  /** Those runs against virtual time. */
  async against(profile: CostProfile, hooks: ProgressHook): Promise<CalibrateCheck> {
    const points: CalibratePoint[] = []
    let disturbed = false
    await this.each(hooks, async (rx, within) => {
      const quiet = this.of(rx).filter(r => r.quiet)
      if (2 * quiet.length < this.of(rx).length) disturbed = true
      const virtual = runOf(await runLivelock({ ...this.config, rx: [rx], profile }, within))
      points.push(...differences(rx, quiet.length > 0 ? quiet : this.of(rx), virtual))
    })
    return { points, disturbed, bar: BAR }
  }
}
