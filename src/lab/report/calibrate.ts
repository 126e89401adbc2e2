/** calibrate.ts - what was measured of the host, what the fit made of it, and whether the predictions hold. */
import type { CalibratePoint, CalibrateResult } from '../types.js'
import { ARCH_NAMES, kpps } from './format.js'
import { plainTable } from './plainTable.js'

const WHAT: Record<CalibratePoint['what'], string> = { mlfrr: 'loss-free rate', plateau: 'overload plateau' }

function ns(n: number): string {
  return n >= 100 ? n.toFixed(0) : n.toFixed(1)
}
function signed(share: number): string {
  return `${share >= 0 ? '+' : ''}${(share * 100).toFixed(1)} %`
}
function plusMinus(spread: number): string {
  return `${(spread * 100).toFixed(1)} %`
}

function stages(r: CalibrateResult): string {
  const rows = r.stages.map(s => [
    s.what,
    ns(s.ns),
    plusMinus(s.spread),
    ns(s.fitted_ns),
    signed(s.fitted_ns / s.ns - 1),
    String(s.trials),
    s.quiet ? 'yes' : 'NO',
  ])
  return `Under load (napi), ns\n${plainTable(['', 'measured', '+-', 'fitted', '', 'trials', 'quiet'], rows)}`
}

function groups(r: CalibrateResult): string {
  const fitted = r.groups.map(g => [g.name, ns(g.ns), g.functions.join(' ')])
  const alone = Object.entries(r.alone).map(([name, t]) => [name, ns(t), 'measured by itself'])
  return `Costs, ns\n${plainTable(['', 'sum', ''], [...fitted, ...alone])}`
}

function check(r: CalibrateResult): string {
  if (r.check === null) return 'The predictions were not held against the real machine (--no-check).'
  const { points, bar } = r.check
  const rows = points.map(p => [
    ARCH_NAMES[p.rx],
    WHAT[p.what],
    kpps(p.measured_pps),
    plusMinus(p.spread),
    kpps(p.predicted_pps),
    signed(p.difference),
    p.agrees ? 'yes' : 'NO',
  ])
  const head = ['', '', 'measured', '+-', 'predicted', 'difference', `within ${(bar * 100).toFixed(0)} %`]
  return (
    `Real machine against virtual time, kpps\n${plainTable(head, rows)}\n` +
    'Plateaus differ in percent of the predicted loss-free rate or plateau, whichever is higher.'
  )
}

/** calibrateReport - tables, and a warning when the host had other things to do. */
export function calibrateReport(r: CalibrateResult): string {
  const notes: string[] = []
  if (r.disturbed) notes.push('The host was busy elsewhere while the loads were measured: do not trust this profile.')
  if (r.check?.disturbed === true)
    notes.push('The host was busy elsewhere while the predictions were checked: do not trust what was measured there.')
  return [stages(r), groups(r), check(r), ...notes].join('\n\n')
}
