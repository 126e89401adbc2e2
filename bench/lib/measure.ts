/** measure.ts - what a measure is: one line of the table of numbers to reach, or several that share their preparation. */
import { type BareLoopResult, measureBareLoop } from '../compare/bareLoop.js'
import { measureVeth, type VethPoint } from '../compare/veth.js'
import { LeftOut } from './comparator.js'

export interface MeasureRow {
  measure: string
  unit: string
  /** our figure; null when it could not be taken, and `note` says why */
  softnet: number | null
  rivalName: string
  rival: number | null
  /** softnet / rival; with no rival the figure itself is held against the bars */
  ratio: number | null
  /** whether a larger or a smaller ratio is better */
  better: 'more' | 'less'
  atLeast: number | null
  aim: number | null
  note?: string
  /** further figures of the same run, for the file */
  details?: unknown
}

export interface MeasureContext {
  seed: number
  /** where the host has fewer cores than a measure wants it says so instead */
  cores: number
  /** rivals that several measures share, taken once per run */
  veth(): Promise<VethPoint[]>
  bareLoop(): Promise<BareLoopResult[]>
}

export interface Measure {
  name: string
  /** Runs the measure. A LeftOut leaves the whole measure out with its reason. */
  run(context: MeasureContext): Promise<MeasureRow[]>
}

function once<T>(take: () => Promise<T>): () => Promise<T> {
  let taken: Promise<T> | null = null
  return () => (taken ??= take())
}

export function makeContext(seed: number, cores: number): MeasureContext {
  return {
    seed,
    cores,
    veth: once(() => measureVeth(undefined, undefined, seed)),
    bareLoop: once(() => measureBareLoop(undefined, 0.8, seed)),
  }
}

/** tryRival - the rival's figure, or null and why it is missing. */
export async function tryRival<T>(
  take: () => Promise<T>,
): Promise<{ value: T; why?: undefined } | { value: null; why: string }> {
  try {
    return { value: await take() }
  } catch (e) {
    if (e instanceof LeftOut) return { value: null, why: e.message }
    throw e
  }
}

/** row - a MeasureRow with its ratio filled in. */
export function row(r: Omit<MeasureRow, 'ratio'>): MeasureRow {
  return { ...r, ratio: r.softnet !== null && r.rival !== null && r.rival !== 0 ? r.softnet / r.rival : null }
}

/** reached - whether a bar is reached; null when there is nothing to compare. */
export function reached(r: MeasureRow, bar: number | null): boolean | null {
  const value = r.rivalName === '' ? r.softnet : r.ratio
  if (value === null || bar === null) return null
  return r.better === 'more' ? value >= bar : value <= bar
}
