/** zoo.ts - what was found of the zoo, one line a bug; the false reports; the figures. */
import type { ZooFind, ZooResult } from '../zoo.js'
import { plainTable } from './plainTable.js'

function detectorOf({ detector, right, expected }: ZooFind): string {
  if (detector === null) return '-'
  return right ? detector : `${detector} (expected: ${expected.join(' or ')})`
}

function rowOf(f: ZooFind): string[] {
  const found = f.detector !== null
  const figures = found
    ? [String(f.schedules), String(f.steps), String(f.preemptions)]
    : [`- (${f.schedules})`, '-', '-']
  return [`${f.number.padEnd(3)} ${f.title}`, found ? 'yes' : 'no', detectorOf(f), ...figures]
}

const percent = (n: number, of: number): string => `${n} (${of === 0 ? 0 : Math.round((n / of) * 100)} %)`

/** zooReport - the table and the figures. */
export function zooReport({ finds, twins, summary: s }: ZooResult): string {
  const table = plainTable(['#   bug', 'found', 'detector', 'schedules', 'steps', 'preemptions'], finds.map(rowOf))
  const lines = [
    table,
    `${s.bugs} bugs: found within 100 schedules ${percent(s.within_100, s.bugs)}, within 1,000 ${percent(s.within_1000, s.bugs)}; ` +
      `an expected detector first in ${percent(s.right, s.found)}; median of the shrunk traces: preemptions ${s.median_preemptions}, steps ${s.median_steps}`,
  ]
  if (s.twins > 0) {
    for (const t of twins)
      if (t.report !== null) lines.push(`false report on the fixed twin of ${t.number}: ${t.report}`)
    lines.push(`${s.twins} fixed twins, ${s.twin_schedules} schedules: ${s.false_reports} false reports`)
  }
  return lines.join('\n')
}
