/** explore.ts - what an exploration came to: text, a page, and Chrome trace events. */
import { type Exploration, type Finding, lanes, type Step, said } from '../../explore/index.js'
import { escapeHtml } from './page.js'
import { plainTable } from './plainTable.js'

/** A number with commas between thousands. */
function grouped(n: number): string {
  return n.toLocaleString('en-US')
}

/** What was done, in a line or two. */
function done(r: Exploration): string {
  const rate = r.seconds > 0 ? ` (${grouped(Math.round(r.schedules / r.seconds))} a second)` : ''
  const runs = `${grouped(r.schedules)} ${r.schedules === 1 ? 'schedule' : 'schedules'}${rate}, up to ${r.longest} steps`
  const parts = [`${r.scenario}: ${r.actors.length} actors, ${r.strategy}, seed ${r.seed}: ${runs}`]
  if (r.exhausted) {
    parts.push(
      `every order that matters was seen${r.redundant > 0 ? `; ${grouped(r.redundant)} of the runs were cut short` : ''}`,
    )
    if (r.spun > 0)
      parts.push('provided that an actor which looks again and again at unchanged words does nothing else')
  } else if (r.strategy === 'exhaustive' && r.findings.length === 0)
    parts.push('there is more to see: raise --schedules')
  if (r.cut > 0) parts.push(`${grouped(r.cut)} runs were given up, too long`)
  return parts.join('; ')
}

function forked(r: Exploration): string[] {
  if (r.strategy !== 'replay') return []
  return r.forkedAt < 0
    ? ['Replayed step for step.']
    : [`The code is not what it was: from step ${r.forkedAt} on the replay went its own way.`]
}

function outcomes(r: Exploration): string[] {
  const rows = Object.entries(r.outcomes).sort((a, b) => b[1] - a[1])
  if (rows.length === 0) return []
  return [
    plainTable(
      ['outcome', 'times'],
      rows.slice(0, 20).map(([name, n]) => [name, grouped(n)]),
    ),
  ]
}

/** exploreReport - for a terminal. */
export function exploreReport(r: Exploration): string {
  const found = r.findings.length === 0 ? ['Nothing found.'] : r.findings.map(f => `${lanes(f)}`)
  return [done(r), ...forked(r), ...outcomes(r), ...found].join('\n\n')
}

const STYLE = `
:root { color-scheme: light dark; --line: #8884; --mark: #d332 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; font: 13px/1.4 ui-monospace, monospace; width: 100% }
th, td { text-align: left; padding: 2px 10px; border-left: 1px solid var(--line); white-space: nowrap }
th { border-bottom: 1px solid var(--line) } tr.mark { background: var(--mark) } td.n, td.at { color: #888 }
tr.turn td { border-top: 1px dashed var(--line) }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #ddd } }
`

function row(f: Finding, s: Step): string {
  const turn = f.steps[s.n - 1]?.actor !== s.actor
  const classes = [turn ? 'turn' : '', f.marked.includes(s.n) ? 'mark' : ''].filter(c => c !== '').join(' ')
  const cells = f.actors.map(a => `<td>${a === s.actor ? escapeHtml(said(s)) : ''}</td>`).join('')
  const where = s.context === '' ? '' : ` title="${escapeHtml(`${s.actor} ${s.context}`)}"`
  return `<tr class="${classes}"${where}><td class="n">${s.n}</td>${cells}<td class="at">${escapeHtml(s.site)}</td></tr>`
}

function section(f: Finding): string {
  const head = ['step', ...f.actors, 'at'].map(h => `<th>${escapeHtml(h)}</th>`).join('')
  const stuck = f.stuck.map(s => `<li>${escapeHtml(`${s.actor} cannot go on: ${s.site}`)}</li>`).join('')
  return `<h2>${escapeHtml(f.detector)}</h2><p>${escapeHtml(f.sentence)}</p>
<table><tr>${head}</tr>${f.steps.map(s => row(f, s)).join('\n')}</table><ul>${stuck}</ul>
<p>Found in schedule ${f.schedules}; ${f.preemptions} preemptions. Replay: <code>${escapeHtml(f.replay)}</code></p>`
}

/** exploreHtml - one page that loads nothing: each finding with all of its steps. */
export function exploreHtml(r: Exploration): string {
  const body = r.findings.length === 0 ? '<p>Nothing found.</p>' : r.findings.map(section).join('\n')
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${escapeHtml(r.scenario)}</title><style>${STYLE}</style></head><body>
<h1>${escapeHtml(r.scenario)}</h1><p>${escapeHtml(done(r))}</p>
${body}
</body></html>
`
}

/** exploreTrace - the first finding as Chrome trace events: a thread for each actor, a microsecond for each step. */
export function exploreTrace(r: Exploration): string {
  const events: Record<string, unknown>[] = []
  for (const f of r.findings.slice(0, 1)) {
    events.push({ ph: 'M', pid: 1, name: 'process_name', args: { name: f.scenario } })
    for (const [tid, name] of f.actors.entries())
      events.push({ ph: 'M', pid: 1, tid, name: 'thread_name', args: { name } })
    for (const s of f.steps) {
      const tid = f.actors.indexOf(s.actor)
      const context = s.context === '' ? {} : { context: s.context }
      const args = { step: s.n, at: s.site, before: s.before, after: s.after, ...context }
      events.push({ ph: 'X', pid: 1, tid, ts: s.n, dur: 1, name: said(s), cat: s.plain ? 'plain' : 'atomic', args })
    }
  }
  return `${JSON.stringify({ displayTimeUnit: 'ns', traceEvents: events })}\n`
}
