/** summary.ts - what is said at the end of a scenario. */
import type { ScenarioResult } from './run.js'

/** summary - a line for each program and how it ended, then how long it all took. */
export function summary(r: ScenarioResult): string {
  const lines = r.programs.map(p => {
    const how = p.exit === null ? 'was still running' : `ended with ${p.exit}`
    return `${p.ok ? 'ok    ' : 'FAILED'} ${p.host}: ${p.argv.join(' ')}: ${how}`
  })
  const hash = r.hash === undefined ? '' : `, hash ${r.hash.slice(0, 16)}`
  return [...lines, `${r.seconds.toFixed(3)} s of ${r.clock} time${hash}`].join('\n')
}
