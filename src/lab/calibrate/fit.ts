/**
 * fit.ts - from times that were measured to the costs of functions: non-negative least squares over groups of functions.
 *
 * An observation is a time that the real machine took for something (an interrupt, a packet), and the same machine in virtual
 * time says which functions run for it and how often. Functions that always run together cannot be told apart by such sums,
 * so each group has one factor, and within it the costs keep their proportions. Rows are divided by what was observed, so that
 * a tenth too much counts the same for an interrupt as for a packet.
 */
import { fcnnlsVector } from 'ml-fcnnls'

/** Functions that share one factor. */
export interface Group {
  name: string
  functions: readonly string[]
}

export interface Observation {
  what: string
  /** Measured, ns of one unit (an interrupt, a packet, a tick). */
  ns: number
  /** By function: ns that one unit takes with the costs as they are. Functions in no group are known and stay. */
  parts: Readonly<Record<string, number>>
}

export interface Residual {
  what: string
  observed: number
  fitted: number
}

export interface Fit {
  /** What the costs of each group are to be multiplied by. */
  factors: Record<string, number>
  /** What the observations would be with the new costs. */
  residuals: Residual[]
}

/**
 * How much the costs as they are weigh against one observation: next to nothing, but a group of which no observation says
 * anything keeps its costs instead of becoming anything.
 */
const PRIOR = 0.001

function total(parts: Readonly<Record<string, number>>, functions: readonly string[]): number {
  return functions.reduce((sum, f) => sum + (parts[f] ?? 0), 0)
}

/** fitGroups - the factors of the groups that come nearest to all observations, none of them negative. */
export function fitGroups(observations: readonly Observation[], groups: readonly Group[]): Fit {
  const grouped = new Set(groups.flatMap(g => g.functions))
  const known = (o: Observation): number =>
    total(
      o.parts,
      Object.keys(o.parts).filter(f => !grouped.has(f)),
    )
  const usable = observations.filter(o => o.ns > 0)
  const rows = usable.map(o => groups.map(g => total(o.parts, g.functions) / o.ns))
  const right = usable.map(o => (o.ns - known(o)) / o.ns)
  groups.forEach((_, k) => {
    rows.push(groups.map((_g, j) => (j === k ? PRIOR : 0)))
    right.push(PRIOR)
  })
  const solved = groups.length === 0 ? [] : fcnnlsVector(rows, right, { gradientTolerance: 1e-9 }).K.to1DArray()
  const factors = Object.fromEntries(groups.map((g, k) => [g.name, solved[k]!]))
  const residuals = observations.map(o => ({
    what: o.what,
    observed: o.ns,
    fitted: known(o) + groups.reduce((sum, g, k) => sum + solved[k]! * total(o.parts, g.functions), 0),
  }))
  return { factors, residuals }
}

/** scaled - costs with the factors of their groups. */
export function scaled(
  costs: Readonly<Record<string, number>>,
  groups: readonly Group[],
  factors: Readonly<Record<string, number>>,
): Record<string, number> {
  const next = { ...costs }
  for (const g of groups) for (const f of g.functions) next[f] = (next[f] ?? 0) * (factors[g.name] ?? 1)
  return next
}

/** median - of some numbers; of none NaN. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const half = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2
}

/** lowerTenth - a tenth of the values are lower. */
export function lowerTenth(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor((sorted.length - 1) / 10)]!
}

/** spread - half of the way from the lower to the upper quartile, as a share of the median: how far trials lie apart. */
export function spread(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (q: number): number => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!
  const middle = median(values)
  return sorted.length < 2 || middle === 0 ? 0 : (at(0.75) - at(0.25)) / 2 / Math.abs(middle)
}
