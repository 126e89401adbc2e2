/** quiet.ts - what counts as undisturbed on a host that others use too, and how long to wait for it. */

/** How much of the host a trial had. */
export interface Had {
  /** Share of the cores' time that its threads wanted and got. */
  hostShare: number
  /** Ticks of the machine's clock that were lost. */
  ticksLost: number
  /** ms that its threads waited for a core; null where the host does not say. */
  waited?: number | null
}

/** Less of the cores than that, or two ticks lost: the trial says nothing. One may be lost between two looks at the counter. */
const [SHARE, TICKS] = [0.97, 1.01]

/**
 * ms that a trial's threads may have waited for a core: half of it is what the measuring itself takes. The host's slices are of
 * 0.7 ms and more: one of them, and a router near saturation has lost what its ring could not hold. A share of the cores
 * does not show it.
 */
const WAITED = 0.8

/** isUndisturbed - did its threads run all the time? */
export function isUndisturbed(had: Had): boolean {
  return isQuiet(had) && (had.waited ?? 0) <= WAITED
}

/** isQuiet - was nobody else there? */
export function isQuiet({ hostShare, ticksLost }: Had): boolean {
  return hostShare >= SHARE && ticksLost <= TICKS
}

/** chosen - the quiet ones of some trials, or if there is none the one that comes next to it. */
export function chosen<T extends Had>(trials: readonly T[], isGood: (trial: T) => boolean = isQuiet): readonly T[] {
  const quiet = trials.filter(isGood)
  if (quiet.length > 0) return quiet
  return [...trials]
    .sort((a, b) => (a.waited ?? 0) - (b.waited ?? 0) || a.ticksLost - b.ticksLost || b.hostShare - a.hostShare)
    .slice(0, 1)
}

/** Time for trials that were disturbed and are done again, over a whole calibration. */
export class Patience {
  constructor(private leftMs: number) {}

  /** May another trial of so many ms follow a disturbed one? Counts it. */
  again(ms: number): boolean {
    this.leftMs -= ms
    return this.leftMs > 0
  }
}
