/**
 * calibrate.ts - the costs of this host: measures the free-running kernel on one CPU, fits a profile, and holds what that
 * predicts against the real machine. docs/virtual-time.md says what is fitted and what is predicted.
 */
import { CheckMeter } from './calibrate/check.js'
import { fitCosts, PREDICTED } from './calibrate/costs.js'
import { nominalHz } from './calibrate/host.js'
import { betweenThreads, probeKernel } from './calibrate/micro.js'
import { Patience } from './calibrate/quiet.js'
import { StageMeter } from './calibrate/stages.js'
import { hostInfo } from './config.js'
import { type CostProfile, readProfile } from './profile.js'
import type { CalibrateResult, ProgressHook } from './types.js'

/** What the parts take, of a run's whole: for the bar. */
const [MICRO_MS, FIT_MS, CHECK_MS] = [3000, 6000, 30_000]
/** Rounds, in each of which all is measured once, so that they see the same host; a short calibration has one. */
const ROUNDS = 3
const SHORT_MS = 15_000
/** A busy host may make it longer by so many times the budget. */
const PATIENCE = 10

export interface CalibrateOptions {
  /** Name of the new profile. */
  name: string
  seed: number
  /** Host time for the loads of the fit, ms; on a busy host up to ten times that is spent on waiting for quiet trials. */
  budgetMs: number
  check: boolean
  hooks?: ProgressHook
}

/** One bar over parts of known length, ms. */
class Parts {
  private done = 0
  constructor(
    private readonly hooks: ProgressHook,
    private readonly total: number,
  ) {}
  /** Hooks for a part of so many ms. */
  part(ms: number): ProgressHook {
    const before = this.done
    this.done += ms
    return {
      ...(this.hooks.signal === undefined ? {} : { signal: this.hooks.signal }),
      progress: (n, of, label) => this.hooks.progress?.(before + (ms * n) / Math.max(1, of), this.total, label),
    }
  }
}

/** runCalibrate - the fit, and unless it is not wanted the check. */
export async function runCalibrate(options: CalibrateOptions): Promise<CalibrateResult> {
  const { seed, budgetMs, hooks = {} } = options
  const { signal } = hooks
  const rounds = budgetMs < SHORT_MS ? 1 : ROUNDS
  const checkMs = options.check ? CHECK_MS : 0
  const parts = new Parts(hooks, MICRO_MS + budgetMs + rounds * checkMs + FIT_MS + checkMs)
  const base = readProfile('modern')
  const host = hostInfo()
  const { hz, from } = nominalHz()

  const micro = parts.part(MICRO_MS)
  micro.progress?.(0, 1, 'measuring: two threads')
  const threads = await betweenThreads(signal)
  micro.progress?.(1, 2, 'measuring: inside the kernel')
  const probed = await probeKernel(seed, signal)
  const patience = new Patience(PATIENCE * budgetMs)
  const stages = new StageMeter(seed, patience)
  const check = options.check ? new CheckMeter(seed, patience) : null
  for (let k = 0; k < rounds; k++) {
    await stages.round(budgetMs / rounds, parts.part(budgetMs / rounds))
    await check?.round(parts.part(checkMs))
  }
  const readings = stages.readings()
  const alone = { ...threads, ...probed, user_spin: stages.roundNs() }
  const fitting = parts.part(FIT_MS)
  const board_ns = Math.round(stages.boardNs())
  const { costs, groups, residuals } = await fitCosts(
    { ...base, board_ns },
    hz,
    readings,
    alone,
    seed,
    (round, of) => fitting.progress?.(round, of, 'fitting'),
    signal,
  )
  const profile: CostProfile = {
    name: options.name,
    title: `${host.cpu_model}, one CPU on a core of its own, Node ${host.node}`,
    source:
      `softnet calibrate: fitted to what the free-running kernel took on ${host.cpu_model} ` +
      `(${host.cores} cores, ${host.os}, Node ${host.node}); loads under napi and micro-measurements. ` +
      `Clock rate as ${from} has it. Not measured but scaled with a forwarded packet: ${PREDICTED.join(', ')}`,
    hz,
    costs,
    board_ns,
  }
  return {
    schema: 'softnet.calibrate/1',
    host,
    seed,
    hz_from: from,
    stages: readings.map((r, k) => ({ ...r, fitted_ns: residuals[k]!.fitted })),
    alone: { ...alone, board_ns },
    groups,
    disturbed: readings.some(r => !r.quiet),
    profile,
    check: check === null ? null : await check.against(profile, parts.part(checkMs)),
  }
}
