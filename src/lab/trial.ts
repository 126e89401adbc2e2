/** trial.ts - one offered load for a while, and whether the router bore it. */
import type { Machine } from './machine.js'
import { hostShare, lostBetween, pointBetween, takeSample, ticksLost } from './sample.js'
import type { ThreadWatch } from './threadTimes.js'
import { snapTrace, type TraceSnapshot } from './traceReader.js'
import type { LivelockConfig, LivelockPoint, ProgressHook } from './types.js'

/** LOSS - loss-free: at most this share of what was offered died of congestion (Mogul and Ramakrishnan read theirs off at 99 %). */
export const LOSS = 0.01
/** OFFERED - a trial that offered less than this share of its rate says nothing about the rate. */
export const OFFERED = 0.9
const SETTLE_MS = 30
/** The last of it, where the host was asked about the threads before: they have made up for that. */
const QUIET_MS = 3

/** How far an experiment has come, in ms of the machine's time: so the bar moves evenly, whatever the steps are. */
export class Steps {
  private spent = 0
  private left = 0
  private floor = 0

  constructor(
    private readonly hooks: ProgressHook,
    private readonly eachMs: number,
    private series: number,
  ) {}

  private report(label: string): void {
    this.hooks.signal?.throwIfAborted()
    this.hooks.progress?.(this.spent, this.spent + this.left + this.series * this.eachMs, label)
  }
  /** One more of the series begins. */
  begin(label: string): void {
    this.series--
    this.left = this.eachMs
    this.report(label)
  }
  /** So long will the rest of this series take, of which so much comes after what runs now. */
  plan(left: number, later = 0): void {
    this.left = left
    this.floor = later
  }
  /** A step of so many ms begins. */
  next(label: string, ms: number): void {
    this.report(label)
    this.spent += ms
    this.left = Math.max(this.floor, this.left - ms)
  }
  /** A series is over, whatever it took. */
  finish(label: string): void {
    this.plan(0)
    this.report(label)
  }
}

/** What came of a trial. */
export interface Held {
  rate: number
  point: LivelockPoint
  /** Share of the host's time that the machine's threads wanted and got, 0 to 1: below 0.97 the host was busy elsewhere. */
  hostShare: number
  /** Ticks of the clock that were lost: so long, about, one of the threads stood still. */
  ticksLost: number
  /** ms that its threads waited for a core, as far as the host tells. */
  waited: number | null
  lossFree: boolean
  /** Frames of it, and those of them that congestion killed. */
  offered: number
  lost: number
  trace: TraceSnapshot | null
}

/** bursty - does the load come in lumps, so that a short trial need not see its mean rate? */
export function bursty(config: LivelockConfig): boolean {
  return config.pcap === null ? config.arrivals === 'burst' : config.pcapTiming === 'stretched'
}

/** What a trial of so many ms takes. */
export function costMs(ms: number): number {
  return SETTLE_MS + ms
}

/** hold - run at a rate for a while. `watch`: also say how long the machine's threads waited for a core. */
export async function hold(
  machine: Machine,
  config: LivelockConfig,
  rate: number,
  ms: number,
  watch?: ThreadWatch,
): Promise<Held> {
  await machine.source(0, { on: true, rate })
  await machine.pass(watch === undefined ? SETTLE_MS : SETTLE_MS - QUIET_MS)
  await machine.source(0, { resetLatency: true })
  await machine.source(1, { resetLatency: true })
  const waitedBefore = watch?.waited() ?? null
  if (watch !== undefined) await machine.pass(QUIET_MS)
  const before = takeSample(machine)
  await machine.pass(ms)
  machine.check()
  const after = takeSample(machine)
  const waitedAfter = watch?.waited() ?? null
  const { offered, decided, lost } = lostBetween(before, after)
  const wanted = bursty(config) ? 1 : OFFERED * rate * ((after.at - before.at) / 1000) - 1
  return {
    rate,
    point: pointBetween(machine, before, after),
    hostShare: hostShare(machine, before, after),
    ticksLost: ticksLost(machine, before, after),
    waited: waitedBefore === null || waitedAfter === null ? null : waitedAfter - waitedBefore,
    lossFree: offered > 0 && offered >= wanted && decided > 0 && lost <= LOSS * offered,
    offered,
    lost,
    trace: config.trace ? snapTrace(machine, before.at, after.at) : null,
  }
}
