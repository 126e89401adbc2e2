/** summary.ts - what is said at the end of a scenario. */
import type { ScenarioResult } from './run.js'

/** A process that a signal ended has 128 and its number as exit code; Linux's numbers, which the host need not have. */
const SIGNALS: Readonly<Record<number, string>> = {
  1: 'HUP',
  2: 'INT',
  3: 'QUIT',
  6: 'ABRT',
  9: 'KILL',
  11: 'SEGV',
  13: 'PIPE',
  14: 'ALRM',
  15: 'TERM',
}
function ended(exit: number): string {
  const name = SIGNALS[exit - 128]
  return `ended with ${exit}${name === undefined ? '' : ` (SIG${name})`}`
}

/** summary - a line for each program and how it ended, then how long it all took. */
export function summary(r: ScenarioResult): string {
  const lines = r.programs.map(p => {
    const how = p.exit === null ? 'was still running' : ended(p.exit)
    return `${p.ok ? 'ok    ' : 'FAILED'} ${p.host}: ${p.argv.join(' ')}: ${how}`
  })
  const hash = r.hash === undefined ? '' : `, hash ${r.hash.slice(0, 16)}`
  return [...lines, `${r.seconds.toFixed(3)} s of ${r.clock} time${hash}`].join('\n')
}
