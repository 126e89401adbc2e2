/** mlfrr.ts - the search for the maximum loss-free receive rate. */
import type { Machine } from './machine.js'
import { costMs, hold, type Steps } from './trial.js'
import type { LivelockConfig, RxArch } from './types.js'

/** A trial lasts so long, and long enough for some packets or bursts, ms. */
const [TRIAL_MS, LONGEST_TRIAL_MS] = [60, 500]
const TRIAL_PACKETS = 20
const TRIAL_BURSTS = 4
const TRIALS = 3
const BISECTIONS = 5
const CLIMB = 1.25
const FIRST_RATE = 20_000
const LOWEST_RATE = 100
export const MAX_RATE = 20_000_000
/** When a failed trial got less of the host than this, the failure may be the host's. */
const BUSY = 0.9
/** What a search takes that finds some 100 kpps, for the progress bar. */
export const SEARCH_MS = 18 * costMs(TRIAL_MS)

/** A search on one machine. */
export class Search {
  /** Did a rate fail while the host was busy elsewhere? */
  private doubtful = false

  constructor(
    private readonly machine: Machine,
    private readonly config: LivelockConfig,
    private readonly rx: RxArch,
    private readonly steps: Steps,
    /** Packets that come in one lump; 0: the load is even. */
    private readonly lump: number,
  ) {}

  private trialMs(rate: number): number {
    const packets = Math.max(TRIAL_PACKETS, TRIAL_BURSTS * this.lump)
    return Math.min(LONGEST_TRIAL_MS, Math.max(TRIAL_MS, (packets / rate) * 1000))
  }

  /**
   * Does the router lose nothing at this rate? A hiccup of the host is not a loss of the router, so one good trial counts. In
   * virtual time there are no hiccups, but trials differ there as well: NAPI loses packets when a tick finds softirqs left to
   * ksoftirqd. Rates of the two clocks can be compared only if both are looked for in the same way.
   */
  private async survives(rate: number): Promise<boolean> {
    const ms = this.trialMs(rate)
    let share = 0
    for (let k = 0; k < TRIALS; k++) {
      this.steps.next(`${this.rx}: looking for the loss-free rate, ${(rate / 1000).toPrecision(3)} kpps`, costMs(ms))
      const held = await hold(this.machine, { ...this.config, trace: false }, rate, ms)
      if (held.lossFree) return true
      share = Math.max(share, held.hostShare)
    }
    if (share < BUSY) this.doubtful = true
    return false
  }

  /** The highest rate that survives from `good` on: double until packets are lost, then halve the interval. */
  private async above(good: number): Promise<number> {
    let bad = good === 0 ? FIRST_RATE : Math.round(good * 2)
    for (; bad < MAX_RATE && (await this.survives(bad)); bad *= 2) good = bad
    for (; good === 0 && bad > LOWEST_RATE; ) {
      const rate = Math.max(LOWEST_RATE, Math.round(bad / 2))
      if (await this.survives(rate)) good = rate
      else bad = rate
    }
    for (let k = 0; k < BISECTIONS && good > 0; k++) {
      const rate = Math.round((good + bad) / 2)
      if (await this.survives(rate)) good = rate
      else bad = rate
    }
    return good
  }

  /** run - the maximum loss-free rate, or 0. A busy host can fail all trials of a rate that the router bears. */
  async run(): Promise<number> {
    let good = await this.above(0)
    if (this.doubtful) good = await this.above(good)
    while (good > 0 && good * CLIMB < MAX_RATE) {
      const rate = Math.round(good * CLIMB)
      if (!(await this.survives(rate))) break
      good = rate
    }
    return good
  }
}
