/** finding.ts - what was found, as data: the steps of the plainest run into it, and a sentence that says what went wrong. */
import type { ActorThread } from './actor.js'
import { circleOf, countingSentence, livelockSentence } from './livelock.js'
import { type Name, nameOf } from './memory.js'
import { replayId } from './replayId.js'
import type { Outcome, Runs } from './runs.js'
import { actorAt } from './strategy.js'
import * as W from './words.js'

export const DETECTORS = [
  'deadlock',
  'lost wakeup',
  'stall',
  'livelock',
  'data race',
  'exception',
  'invariant',
] as const
/** One of these, or the name that what was thrown gives itself by a property `detector`, as the kernel's lockdep does. */
export type Detector = (typeof DETECTORS)[number] | (string & {})

/** One operation of the run. */
export interface Step {
  n: number
  actor: string
  kind: W.Kind
  /** The word, by the name that `setup` gave it. */
  where: string
  /** The value it saw, and the value it left. Of a notify: the value of the word, and how many it woke. */
  before: number
  after: number
  plain: boolean
  /** Nobody else could have gone on before it. */
  unasked: boolean
  /** File and line. */
  site: string
  /** Of the kernel: context and held locks of the CPU. */
  context: string
  /** For a wake-up: the step that caused it; for a store that comes to memory: when it was made. Or -1. */
  cause: number
}

/** An actor that cannot go on. */
export interface Stuck {
  actor: string
  waits: string
  site: string
  /** Who wrote the word last, and where. */
  writer: string
}

export interface Finding {
  schema: 'softnet.finding/1'
  scenario: string
  detector: Detector
  /** What went wrong. */
  sentence: string
  actors: string[]
  steps: Step[]
  /** Steps that belong to the finding itself. */
  marked: number[]
  stuck: Stuck[]
  /** How often an actor was stopped that could have gone on. */
  preemptions: number
  /** Replays it for ever on the same code. */
  replay: string
  /** Accesses before that race as an earlier finding says, and did not end the run. */
  passed: number
  /** Runs until it was found, and runs that made it plainer. */
  schedules: number
  shrunkBy: number
  seed: number
}

const NAME_OF: Record<number, Detector> = {
  [W.FOUND_DEADLOCK]: 'deadlock',
  [W.FOUND_LOST_WAKEUP]: 'lost wakeup',
  [W.FOUND_STALL]: 'stall',
  [W.FOUND_LIVELOCK]: 'livelock',
  [W.FOUND_RACE]: 'data race',
  [W.FOUND_EXCEPTION]: 'exception',
  [W.FOUND_INVARIANT]: 'invariant',
}

export interface Facts {
  scenario: string
  actors: string[]
  names: Name[]
  describe: ((address: number) => string | null) | null
  schedules: number
  shrunkBy: number
  seed: number
}

/** findingOf - of the run that has just been recorded. */
export function findingOf(thread: ActorThread, runs: Runs, outcome: Outcome, facts: Facts): Finding {
  const { engine } = thread
  const { w } = engine
  const all = stepsOf(thread, facts)
  const steps = stepsToShow(w, outcome, all)
  const blocks = [W.FOUND_DEADLOCK, W.FOUND_LOST_WAKEUP, W.FOUND_STALL].includes(outcome.found)
  const stuck = blocks ? stuckOf(thread, facts, steps) : []
  // Whoever spins for what another one holds that spins for something of his is in a deadlock, however busy both are.
  const circle = outcome.found === W.FOUND_STALL && isCircle(stuck)
  const alone = outcome.found === W.FOUND_LIVELOCK && w[W.FOUND_ACTOR]! < 0
  const detector =
    outcome.named !== '' ? outcome.named : circle ? 'deadlock' : alone ? 'stall' : NAME_OF[outcome.found]!
  const marked = outcome.found === W.FOUND_RACE ? [w[W.FOUND_STEP]!, w[W.FOUND_STEP2]!] : markedOf(w, outcome)
  const story = {
    detector,
    steps,
    stuck,
    marked,
    actors: facts.actors,
    names: facts.names,
    message: outcome.message,
    w,
  }
  return {
    schema: 'softnet.finding/1',
    scenario: facts.scenario,
    detector,
    sentence: sentenceOf(story),
    actors: facts.actors,
    steps,
    marked,
    stuck,
    preemptions: outcome.found === W.FOUND_LIVELOCK ? w[W.PLAN_LENGTH]! - 1 : outcome.preemptions,
    passed: w[W.PASSED]!,
    replay: replayId(wayOf(runs, outcome, steps), all.filter(isChoice), w[W.PASSED]!),
    schedules: facts.schedules,
    shrunkBy: facts.shrunkBy,
    seed: facts.seed,
  }
}

/** Of runs that end in something which comes again and again the first times are enough. */
function stepsToShow(w: Int32Array, outcome: Outcome, all: Step[]): Step[] {
  if (outcome.found === W.FOUND_STALL) return withoutLooks(all)
  return outcome.found === W.FOUND_LIVELOCK ? circleOf(w, all) : all
}

/** Whose each step is, as a plan. */
function wayOf(runs: Runs, outcome: Outcome, steps: readonly Step[]): readonly number[] {
  const { w } = runs
  if (outcome.found !== W.FOUND_LIVELOCK) return runs.executed((steps.at(-1)?.n ?? -1) + 1)
  const plan = runs.plan()
  return plan.at(-1) === W.BY_TURNS_FROM_HERE
    ? plan
    : [...runs.executed().slice(0, w[W.FAIR_FROM]!), W.BY_TURNS_FROM_HERE]
}

function markedOf(w: Int32Array, outcome: Outcome): number[] {
  if (outcome.found === W.FOUND_LOST_WAKEUP) return [w[W.FOUND_STEP2]!, w[W.FOUND_STEP]!].filter(n => n >= 0)
  return outcome.found === W.FOUND_EXCEPTION ? [w[W.FOUND_STEP2]!, w[W.FOUND_STEP]!].filter(n => n >= 0) : []
}

/** stepsOf - all steps of the run that has just been recorded. */
export function stepsOf(thread: ActorThread, facts: Facts): Step[] {
  const { engine } = thread
  const { w } = engine
  return Array.from({ length: w[W.TRACED]! }, (_, n) => {
    const t = W.TRACE + n * W.TRACE_WORDS
    const [site = '', context = ''] = engine.text.read(w[t + W.T_SITE]!, w[t + W.T_SITE_LENGTH]!).split('\n')
    return {
      n,
      actor: facts.actors[engine.owner(w[t]! & 255)]!,
      kind: W.KINDS[(w[t]! >>> 8) & 255]!,
      where: nameOf(facts.names, w[t + W.T_ADDRESS]!, facts.describe),
      before: w[t + W.T_BEFORE]!,
      after: w[t + W.T_AFTER]!,
      plain: ((w[t]! >>> 24) & W.FLAG_PLAIN) !== 0,
      unasked: w[t]! >>> 24 === W.UNASKED,
      site,
      context,
      cause: w[t + W.T_OTHER]!,
    }
  })
}

/** isChoice - is it a step at which another actor could have gone on? */
export function isChoice(s: Step): boolean {
  return !s.unasked
}

/** Of the looks that end a stall the first ones are enough. */
function withoutLooks(steps: readonly Step[]): Step[] {
  const last = steps.findLast(s => writes(s) && s.before !== s.after)?.n ?? 0
  const seen = new Set<string>()
  const end = steps.findLast(s => {
    return s.n > last && steps.findIndex(t => t.n > last && t.actor === s.actor && t.where === s.where) === s.n
  })
  const upTo = end?.n ?? steps.length - 1
  return steps.filter(s => {
    if (s.n > upTo) return false
    if (s.n <= last) return true
    const key = `${s.actor} ${s.where}`
    return !seen.has(key) && seen.add(key) !== undefined
  })
}

/** Does each wait for another one of them? */
function isCircle(stuck: readonly Stuck[]): boolean {
  return stuck.length > 1 && stuck.every(s => stuck.some(t => t !== s && s.writer.startsWith(`${t.actor} (`)))
}

/** Who had not ended, and what it waited for. */
function stuckOf(thread: ActorThread, facts: Facts, steps: readonly Step[]): Stuck[] {
  const { w } = thread.engine
  const out: Stuck[] = []
  const ended = new Set(facts.actors.filter((_, a) => w[actorAt(a) + W.A_END] === W.STATE_OFF))
  for (const [a, actor] of facts.actors.entries()) {
    const at = actorAt(a)
    const state = w[at + W.A_END]!
    if (state !== W.STATE_WAITING && state !== W.STATE_SPINNING && state !== W.STATE_ASYNC) continue
    const last = state === W.STATE_SPINNING ? lookOf(steps, actor, ended) : steps.findLast(s => s.actor === actor)
    const writer = last === undefined ? undefined : writerOf(steps, last)
    out.push({
      actor,
      waits: last === undefined ? 'nothing' : last.where,
      site: last?.site ?? '',
      writer: writer === undefined ? '' : `${writer.actor} (${writer.kind} at ${short(writer.site)})`,
    })
  }
  return out
}

/** Who wrote the word of a step last, other than the actor of that step. */
function writerOf(steps: readonly Step[], step: Step): Step | undefined {
  return steps.findLast(s => s.where === step.where && s.actor !== step.actor && s.before !== s.after && writes(s))
}

/**
 * What a spinning actor looks at: of the words in its loop the one that another one wrote last of all, and rather one that
 * is stuck as well than one that has ended.
 */
function lookOf(steps: readonly Step[], actor: string, ended: ReadonlySet<string>): Step | undefined {
  const mine = steps.filter(s => s.actor === actor)
  const done = mine.findLastIndex(s => writes(s) && s.before !== s.after)
  const rank = (s: Step): number => {
    const writer = writerOf(steps, s)
    return writer === undefined ? -1 : writer.n + (ended.has(writer.actor) ? 0 : steps.length)
  }
  const looks = mine.slice(done + 1).filter(s => s.kind !== 'store' && s.kind !== 'write')
  const best = Math.max(...looks.map(rank))
  return looks.findLast(s => rank(s) === best) ?? mine.at(-1)
}

export function writes(s: Step): boolean {
  return ![
    'load',
    'read',
    'wait',
    'waitAsync',
    'notify',
    'wake',
    'timeout',
    'start',
    'buffer',
    'fence',
    'interrupt',
    'exclusive writer',
    'exclusive access',
    'exclusive bits',
  ].includes(s.kind)
}

export interface Story {
  detector: Detector
  steps: readonly Step[]
  stuck: readonly Stuck[]
  marked: readonly number[]
  actors: readonly string[]
  names: readonly Name[]
  message: string
  w: Int32Array
}

/** One sentence that says what went wrong. */
function sentenceOf(story: Story): string {
  const { w } = story
  const actor = story.actors[w[W.FOUND_ACTOR]!] ?? ''
  switch (story.detector) {
    case 'data race':
      return raceSentence(story)
    case 'lost wakeup':
      return lostSentence(story, actor)
    case 'exception':
      return `${actor} threw: ${story.message}.`
    case 'deadlock':
      return stuckSentence(story, 'waits for', 'none of them can go on')
    case 'invariant':
      return `The invariant does not hold at the end: ${story.message}.${interrupted(story)}`
    case 'livelock':
      return livelockSentence(story, actor)
    case 'stall':
      if (story.stuck.length === 0) return countingSentence(story)
      return stuckSentence(story, 'looks again and again at', 'nobody is left who changes it')
    default:
      return `${actor === '' ? '' : `${actor}: `}${story.message}.`
  }
}

function raceSentence({ steps, marked }: Story): string {
  const [one, two] = marked.map(n => steps[n])
  if (one === undefined || two === undefined) return 'Two accesses race.'
  const claim = [one, two].find(s => s.kind === 'exclusive access') ?? [one, two].find(s => s.kind in CLAIMED)
  if (claim !== undefined) return claimSentence(claim, claim === one ? two : one)
  const said = (s: Step): string =>
    `${s.actor} ${s.plain ? '' : 'atomically '}${verb(s)} ${s.where} at ${short(s.site)}`
  return `${said(one)} and ${said(two)}: nothing orders the two, and ${one.plain && two.plain ? 'both are plain accesses' : 'one of them is a plain access'}.`
}

/** What an actor says that nobody else does. */
export const CLAIMED: Partial<Record<W.Kind, string>> = {
  'exclusive writer': 'nobody else writes',
  'exclusive access': 'nobody else reads or writes',
  'exclusive bits': 'nobody else changes its bits of',
}

function claimSentence(claim: Step, other: Step): string {
  if (other.kind in CLAIMED)
    return `${claim.actor} says at ${short(claim.site)} that ${CLAIMED[claim.kind]} ${claim.where}, while ${other.actor} makes a claim of its own at ${short(other.site)}: nothing keeps the two apart.`
  const does = `${other.actor} ${other.plain ? '' : 'atomically '}${verb(other)} ${other.where} at ${short(other.site)}`
  return `${claim.actor} says at ${short(claim.site)} that ${CLAIMED[claim.kind]} ${claim.where}, but ${does}, and nothing keeps the two apart.`
}

function verb(s: Step): string {
  return s.kind === 'read' || s.kind === 'load' ? 'reads' : 'writes'
}

function lostSentence({ steps, stuck, w }: Story, actor: string): string {
  const sleep = steps[w[W.FOUND_STEP]!]
  const notify = steps[w[W.FOUND_STEP2]!]
  if (sleep === undefined) return `${actor} sleeps, and nobody is left to wake it.`
  const nobody = stuck.length === 1 ? 'nobody is left to wake it' : 'all others sleep too'
  if (notify === undefined) {
    const since = steps.filter(s => s.n > sleep.n && s.where === sleep.where)
    const other = since.find(s => s.kind === 'notify' && s.after > 0)
    const changed = since.some(s => writes(s) && s.before !== s.after)
    const asleep = `${actor} sleeps on ${sleep.where} for as long as it is ${sleep.before}`
    if (!changed) return `${asleep}; nobody has changed it since, and ${nobody}.`
    if (other === undefined) return `${asleep}; it has changed since, but nobody called notify, and ${nobody}.`
    return `${asleep}; it has changed since, but the notify of ${other.actor} at step ${other.n} woke another sleeper, and ${nobody}.`
  }
  return `${actor} sleeps on ${sleep.where} since step ${sleep.n}; the last notify came from ${notify.actor} at step ${notify.n}, before it slept, and woke nobody; ${nobody}.`
}

function stuckSentence({ stuck }: Story, does: string, end: string): string {
  const all = stuck.map(s => `${s.actor} ${does} ${s.waits}${s.writer === '' ? '' : `, last set by ${s.writer}`}`)
  return `${all.join('; ')}; ${stuck.length === 1 && end.startsWith('none') ? 'nobody is left who wakes it' : end}.`
}

/** The pattern behind most broken invariants: between an actor's look at a word and its write, another one wrote it. */
function interrupted({ steps }: Story): string {
  for (const write of steps) {
    if (!writes(write) && write.kind !== 'write') continue
    const look = steps.findLast(
      s =>
        s.n < write.n && s.actor === write.actor && s.where === write.where && (s.kind === 'load' || s.kind === 'read'),
    )
    if (look === undefined) continue
    const between = steps.find(
      s => s.n > look.n && s.n < write.n && s.actor !== write.actor && s.where === write.where && s.before !== s.after,
    )
    if (between === undefined || (!writes(between) && between.kind !== 'write')) continue
    return ` Between the look of ${write.actor} at ${write.where} (step ${look.n}) and its write (step ${write.n}), ${between.actor} wrote it (step ${between.n}).`
  }
  return ''
}

/** short - a site as a reader wants it: below the working directory. */
export function short(site: string): string {
  const cwd = `${process.cwd().replaceAll('\\', '/')}/`
  return site.startsWith(cwd) ? site.slice(cwd.length) : site
}
