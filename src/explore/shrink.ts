/**
 * shrink.ts - of all the ways into a bug the plainest: fewest preemptions first, then fewest changes of actor, then fewest steps.
 *
 * A run is a list of stretches, each by one actor. Joining a stretch with an earlier one of the same actor takes a change
 * away; what still ends in the same finding is kept. Then come all runs with one preemption fewer than that, as far as the
 * budget goes.
 */
import { native } from './native.js'
import type { Outcome, Runs } from './runs.js'
import { BY_PLAN } from './strategy.js'
import * as W from './words.js'

/** Runs to try, unless somebody says how many. */
const BUDGET = 3000
/** A run of a whole kernel takes its time: what is found until then is good enough, unless somebody says how many runs to try. */
const MAX_MS = 8000

export interface Shrunk {
  plan: number[]
  outcome: Outcome
  tried: number
}

interface Stretch {
  actor: number
  steps: number
}

export function stretchesOf(plan: readonly number[]): Stretch[] {
  const out: Stretch[] = []
  for (const actor of plan) {
    const last = out.at(-1)
    if (last?.actor === actor) last.steps++
    else out.push({ actor, steps: 1 })
  }
  return out
}

const planOf = (stretches: readonly Stretch[]): number[] =>
  stretches.flatMap(s => Array.from({ length: s.steps }, () => s.actor))

/** Is a plainer than b? */
function plainer(a: Shrunk, b: Shrunk): boolean {
  const d =
    a.outcome.preemptions - b.outcome.preemptions ||
    stretchesOf(a.plan).length - stretchesOf(b.plan).length ||
    a.outcome.steps - b.outcome.steps
  return d < 0
}

/** shrink - find a plainer run that ends in the same finding. `tries`: runs to spend on it; null: as is worth it. */
export async function shrink(
  runs: Runs,
  plan: readonly number[],
  first: Outcome,
  tries: number | null,
): Promise<Shrunk> {
  const state = { tried: 0 }
  const budget = tries ?? BUDGET
  const until = tries === null ? native.now() + MAX_MS : Infinity
  /** Run a plan; null when it does not end in the same finding. */
  const attempt = async (candidate: readonly number[]): Promise<Shrunk | null> => {
    state.tried++
    if (native.now() > until) state.tried = Math.max(state.tried, budget)
    const outcome = await runs.run({ how: BY_PLAN, seed: 0, plan: candidate })
    return outcome.signature === first.signature ? { plan: runs.executed(), outcome, tried: state.tried } : null
  }
  if (first.found === W.FOUND_LIVELOCK) return shortestWay(runs, plan, first, state)
  let best = (await attempt(plan)) ?? { plan: [...plan], outcome: first, tried: 1 }
  best = await joinStretches(best, attempt, state, budget)
  best = await fewerPreemptions(best, attempt, state, budget)
  best = await joinStretches(best, attempt, state, budget)
  return { ...best, tried: state.tried }
}

/** A livelock goes on turn by turn: of the way into it as little as it takes. */
async function shortestWay(
  runs: Runs,
  whole: readonly number[],
  first: Outcome,
  state: { tried: number },
): Promise<Shrunk> {
  for (let steps = 0; ; steps = Math.min(whole.length, Math.max(steps + 1, (steps * 3) >> 1))) {
    state.tried++
    const way = [...whole.slice(0, steps), W.BY_TURNS_FROM_HERE]
    const outcome = await runs.run({ how: BY_PLAN, seed: 0, plan: way })
    if (outcome.signature === first.signature || steps === whole.length)
      return { plan: way, outcome, tried: state.tried }
  }
}

type Attempt = (plan: readonly number[]) => Promise<Shrunk | null>

async function joinStretches(
  best: Shrunk,
  attempt: Attempt,
  state: { tried: number },
  budget: number,
): Promise<Shrunk> {
  for (let again = true; again; ) {
    again = false
    for (const candidate of joined(stretchesOf(best.plan))) {
      if (state.tried >= budget) return best
      const got = await attempt(candidate)
      if (got === null || !plainer(got, best)) continue
      best = got
      again = true
      break
    }
  }
  return best
}

/** Plans with one stretch moved up to an earlier one of the same actor, or an actor's stretch left to the end. */
function* joined(stretches: readonly Stretch[]): Generator<number[]> {
  for (let k = 0; k < stretches.length; k++) {
    const next = stretches.findIndex((s, j) => j > k && s.actor === stretches[k]!.actor)
    if (next < 0) continue
    const merged = stretches.map(s => ({ ...s }))
    merged[k]!.steps += merged[next]!.steps
    merged.splice(next, 1)
    yield planOf(merged)
    // Or the other way round: the earlier one waits for the later one.
    const later = stretches.map(s => ({ ...s }))
    later[next]!.steps += later[k]!.steps
    later.splice(k, 1)
    yield planOf(later)
  }
  // Cut off: what comes after the plan goes on without preemption.
  for (let k = stretches.length - 1; k > 0; k--) yield planOf(stretches.slice(0, k))
}

/** All runs with fewer preemptions: none at all, then one at each step of what the actors do alone. */
async function fewerPreemptions(
  best: Shrunk,
  attempt: Attempt,
  state: { tried: number },
  budget: number,
): Promise<Shrunk> {
  const actors = [...new Set(best.plan)]
  const longest = best.plan.length
  if (best.outcome.preemptions >= 1) {
    for (const order of permutations(actors)) {
      if (state.tried >= budget) return best
      const got = await attempt(planOf(order.map(actor => ({ actor, steps: longest }))))
      if (got !== null && plainer(got, best)) return got
    }
  }
  if (best.outcome.preemptions < 2) return best
  for (const order of permutations(actors)) {
    for (let steps = 1; steps < longest; steps++) {
      if (state.tried >= budget) return best
      const [a, ...others] = order
      const rest = [...others, a!].map(actor => ({ actor, steps: longest }))
      const got = await attempt(planOf([{ actor: a!, steps }, ...rest]))
      if (got !== null && plainer(got, best)) return got
    }
  }
  return best
}

function permutations(items: readonly number[]): number[][] {
  if (items.length > 4) return items.map((_, k) => [...items.slice(k), ...items.slice(0, k)])
  if (items.length <= 1) return [[...items]]
  return items.flatMap((x, k) => permutations([...items.slice(0, k), ...items.slice(k + 1)]).map(p => [x, ...p]))
}
