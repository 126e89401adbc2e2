/** livelock.ts - what is told of a run that goes round in a circle: one round of it, and who undoes whose work. */
import { type Step, type Story, short, writes } from './finding.js'
import * as W from './words.js'

/** One round of the circle that a recorded run ended in. */
export function circleOf(w: Int32Array, all: readonly Step[]): Step[] {
  const first = w[W.CIRCLE]!
  return all.filter(s => s.n >= first && s.n < first + w[W.CIRCLE_LENGTH]!)
}

function changes(s: Step): boolean {
  return writes(s) && s.before !== s.after
}

/** What an actor saw of another one before it did something else: of its looks at what others change the last but for its own writes. */
function turnedBack(circle: readonly Step[], actor: string): { look: Step; by: Step } | null {
  // The circle twice: what is seen at its beginning was written at its end.
  const twice = [...circle, ...circle]
  const pairs: { look: Step; by: Step; undoes: boolean }[] = []
  for (let k = circle.length; k < twice.length; k++) {
    const look = twice[k]!
    if (look.actor !== actor || (writes(look) && look.before !== look.after) || look.kind === 'store') continue
    const by = twice.slice(0, k).findLast(s => s.where === look.where && changes(s))
    if (by === undefined || by.actor === actor) continue
    const next = [...twice.slice(k + 1), ...circle].find(s => s.actor === actor)
    pairs.push({ look, by, undoes: next !== undefined && changes(next) })
  }
  return pairs.findLast(p => p.undoes) ?? pairs.at(-1) ?? null
}

/** Who keeps whom from its end. */
export function livelockSentence({ steps, w }: Story, actor: string): string {
  const actors = [...new Set(steps.map(s => s.actor))]
  const reasons = actors.flatMap(a => {
    const seen = turnedBack(steps, a)
    if (seen === null) return []
    const { look, by } = seen
    return [
      `${a} goes back when it sees ${look.where} = ${look.before} at ${short(look.site)}, set by ${by.actor} at ${short(by.site)}`,
    ]
  })
  const who = actors.length === 1 ? actors[0]! : `${actors.slice(0, -1).join(', ')} and ${actors.at(-1)}`
  const rounds = `turn by turn ${who} have done the same ${steps.length} steps ${w[W.CIRCLE_ROUNDS]} times, and none of them has come to its end`
  return `${[rounds, ...reasons].join('; ')}; alone, ${actor} goes on at once.`
}

/** Who looks at what, for ever, and counts. */
export function countingSentence({ steps, w }: Story): string {
  const changed = new Set(steps.filter(changes).map(s => s.where))
  const actors = [...new Set(steps.map(s => s.actor))]
  const said = actors.map(a => {
    const mine = steps.filter(s => s.actor === a)
    const words = (of: readonly Step[]): string => [...new Set(of.map(s => s.where))].join(' and ')
    const look = mine.filter(s => !s.unasked && !changed.has(s.where))
    const counts = mine.filter(changes)
    const counted = counts.length === 0 ? '' : `, and counts ${words(counts)}`
    return `${a} looks again and again at ${words(look)} at ${short(look.at(-1)?.site ?? '')}${counted}`
  })
  return `${said.join('; ')}; after ${w[W.CIRCLE_ROUNDS]} rounds nobody is left who changes what is looked at.`
}
