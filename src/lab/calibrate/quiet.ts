/** quiet.ts - what counts as undisturbed on a host that others use too, and how long to wait for it. */

/** How much of the host a trial had. */
export interface Had {
  /** Share of the cores' time that its threads wanted and got. */
  hostShare: number
  /** Ticks of the machine's clock that were lost. */
  ticksLost: number
}

/** Less of the cores than that, or two ticks lost: the trial says nothing. One may be lost between two looks at the counter. */
const [SHARE, TICKS] = [0.97, 1.01]

/** isQuiet - was nobody else there? */
export function isQuiet({ hostShare, ticksLost }: Had): boolean {
  return hostShare >= SHARE && ticksLost <= TICKS
}

/** chosen - the quiet ones of some trials, or if there is none the one that comes next to it. */
export function chosen<T extends Had>(trials: readonly T[]): readonly T[] {
  const quiet = trials.filter(isQuiet)
  if (quiet.length > 0) return quiet
  return [...trials].sort((a, b) => a.ticksLost - b.ticksLost || b.hostShare - a.hostShare).slice(0, 1)
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
