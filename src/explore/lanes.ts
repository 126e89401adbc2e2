/** lanes.ts - a finding as text: a lane for each actor, one line for each step, and the sentence that says what went wrong. */
import { CLAIMED, type Finding, type Step, short } from './finding.js'

/** Lines of steps that are shown, and of those that count what lies between. */
const MAX_LINES = 16
const LANE_GAP = '  '

const SYMBOL: Partial<Record<Step['kind'], string>> = { exchange: 'xchg', compareExchange: 'cas' }

/** What a step did, in a few words. */
export function said(s: Step): string {
  const name = SYMBOL[s.kind] ?? s.kind
  switch (s.kind) {
    case 'load':
    case 'read':
      return `${name} ${s.where} = ${s.before}`
    case 'store':
    case 'write':
      return `${name} ${s.where} = ${s.after}`
    case 'wait':
    case 'waitAsync':
      return s.before === s.after
        ? `${name} ${s.where} (is ${s.before}: sleeps)`
        : `${name} ${s.where} (is ${s.before}: goes on)`
    case 'buffer':
      return `write ${s.where} = ${s.after} (buffered)`
    case 'flush':
      return `memory: ${s.where} = ${s.after}${s.cause >= 0 ? ` (of step ${s.cause})` : ''}`
    case 'fence':
      return 'its buffer is empty'
    case 'interrupt':
      return 'takes an interrupt'
    case 'notify':
      return `${name} ${s.where} (${s.after === 0 ? 'nobody sleeps' : `wakes ${s.after}`})`
    case 'wake':
      return `wakes${s.cause >= 0 ? ` (by step ${s.cause})` : ''}`
    case 'exclusive writer':
    case 'exclusive access':
    case 'exclusive bits':
      return `${CLAIMED[s.kind]} ${s.where}`
    case 'timeout':
      return 'times out'
    case 'compareExchange':
      return s.before === s.after
        ? `${name} ${s.where} fails (is ${s.before})`
        : `${name} ${s.where} ${s.before} -> ${s.after}`
    default:
      return `${name} ${s.where} ${s.before} -> ${s.after}`
  }
}

/** Which steps to show: those of the finding, and around each change of actor; all when there are few. */
function chosen(f: Finding): Set<number> {
  // A word that only one actor touches says little: its CPU's own counters, say.
  const actors = new Map<string, Set<string>>()
  for (const s of f.steps) actors.set(s.where, (actors.get(s.where) ?? new Set()).add(s.actor))
  const steps = f.steps.filter(
    s => s.kind !== 'start' && (!s.plain || f.marked.includes(s.n) || actors.get(s.where)!.size > 1),
  )
  const all = steps.map(s => s.n)
  if (linesOf(f, all) <= MAX_LINES) return new Set(all)
  const words = new Set(f.marked.map(n => f.steps[n]?.where).concat(f.stuck.map(s => s.waits)))
  const weight = (s: Step): number => {
    const at = steps.indexOf(s)
    const changes = steps[at - 1]?.actor !== s.actor || steps[at + 1]?.actor !== s.actor
    const last = f.steps.findLast(t => t.actor === s.actor) === s
    return (f.marked.includes(s.n) ? 8 : 0) + (last ? 4 : 0) + (changes ? 2 : 0) + (words.has(s.where) ? 1 : 0)
  }
  const best: number[] = []
  for (const { n } of [...steps].sort((a, b) => weight(b) - weight(a) || b.n - a.n)) {
    if (linesOf(f, [...best, n]) > MAX_LINES) break
    best.push(n)
  }
  return new Set(best)
}

/** Lines that these steps take: one each, and one for what lies before each of them, or behind them all. */
function linesOf(f: Finding, shown: readonly number[]): number {
  const sorted = [...shown].sort((a, b) => a - b)
  const gaps = sorted.filter((n, k) => n > (sorted[k - 1] ?? -1) + 1).length
  const end = (sorted.at(-1) ?? -1) + 1 < f.steps.length ? 1 : 0
  return sorted.length + gaps + end
}

/** The last step of an actor that cannot go on: what it holds then is what others wait for. */
function isLastOfStuck(f: Finding, s: Step): boolean {
  return f.stuck.some(t => t.actor === s.actor) && f.steps.findLast(t => t.actor === s.actor) === s
}

/** lanes - the finding in at most some 20 lines. */
export function lanes(f: Finding): string {
  const shown = chosen(f)
  const rows = f.steps.filter(s => shown.has(s.n))
  const sites = rows.map(s => short(s.site))
  const folder = commonFolder(sites)
  const width = (actor: string): number =>
    Math.max(actor.length, ...rows.filter(s => s.actor === actor).map(s => said(s).length), 6)
  const cell = (text: string, actor: string): string => text.padEnd(width(actor))
  const lines = [
    `${f.detector}: ${f.sentence}`,
    '',
    `   step  ${f.actors.map(a => cell(a, a)).join(LANE_GAP)}${LANE_GAP}at`,
  ]
  let next = 0
  for (const [k, s] of rows.entries()) {
    if (s.n > next) lines.push(`         ... ${s.n - next} step${s.n - next === 1 ? '' : 's'}`)
    next = s.n + 1
    const text = f.actors.map(a => cell(a === s.actor ? said(s) : '', a)).join(LANE_GAP)
    const mark = f.marked.includes(s.n) ? '>' : ' '
    lines.push(` ${mark} ${String(s.n).padStart(4)}  ${text}${LANE_GAP}${sites[k]!.slice(folder.length)}`.trimEnd())
  }
  if (next < f.steps.length) lines.push(`         ... ${f.steps.length - next} more`)
  for (const s of f.steps) {
    if (s.context === '' || !(f.marked.includes(s.n) || isLastOfStuck(f, s))) continue
    lines.push(`   ${s.actor} at step ${s.n}: ${s.context}`)
  }
  for (const s of f.stuck) lines.push(`   ${s.actor} cannot go on: ${short(s.site)}`)
  const preemptions = f.preemptions === 1 ? '1 preemption' : `${f.preemptions} preemptions`
  if (f.passed > 0)
    lines.push(`   behind ${f.passed} ${f.passed === 1 ? 'race' : 'races'} that an earlier finding tells of`)
  lines.push(
    '',
    `${f.scenario}, found in schedule ${f.schedules} of seed ${f.seed}; ${f.steps.length} steps, ${preemptions}${folder === '' ? '' : `; files below ${folder}`}`,
    `replay: ${f.replay}`,
  )
  return lines.join('\n')
}

/** The folder that all sites have in common. */
function commonFolder(sites: readonly string[]): string {
  const some = sites.filter(s => s !== '')
  let prefix = some[0]?.replace(/[^/]*$/, '') ?? ''
  for (const s of some) while (!s.startsWith(prefix)) prefix = prefix.replace(/[^/]*\/$/, '')
  return prefix
}
