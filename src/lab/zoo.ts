/** zoo.ts - the bugs of the zoo, looked for one after the other, and their fixed twins, in which there is nothing to find. */
import { type Exploration, explore, ScenarioError } from '../explore/index.js'
import { type Bug, MEGABYTES, scenarioOf, ZOO } from '../zoo/index.js'
import { hostInfo } from './config.js'
import { RunError } from './errors.js'
import type { HostInfo, ProgressHook } from './types.js'

export interface ZooOptions extends ProgressHook {
  /** Which bugs; default all. */
  bugs?: readonly Bug[]
  /** Runs for each bug at most, and for each twin. */
  schedules: number
  seed: number
  /** Run the fixed twins too. */
  twins: boolean
  signal?: AbortSignal
}

/** What became of one bug. */
export interface ZooFind {
  number: string
  name: string
  title: string
  kernel: boolean
  expected: readonly string[]
  /** Detector that reported first, or null: nothing was found. */
  detector: string | null
  /** It is one of the expected ones. */
  right: boolean
  /** Runs until it was found, or all. */
  schedules: number
  /** Of the shrunk trace: steps at which another actor could have gone on or that the finding names, all accesses, preemptions. */
  steps: number
  accesses: number
  preemptions: number
  sentence: string
  replay: string
}

/** What became of one fixed twin. */
export interface ZooTwin {
  number: string
  name: string
  schedules: number
  /** Runs given up at the greatest number of steps. */
  cut: number
  /** A false report, or null. */
  report: string | null
}

export interface ZooSummary {
  bugs: number
  /** Found within so many schedules. */
  within_100: number
  within_1000: number
  found: number
  /** Of those found: named first by an expected detector. */
  right: number
  median_preemptions: number
  median_steps: number
  twins: number
  twin_schedules: number
  false_reports: number
}

export interface ZooResult {
  schema: 'softnet.zoo/1'
  seed: number
  schedules: number
  host: HostInfo
  finds: ZooFind[]
  twins: ZooTwin[]
  summary: ZooSummary
}

/** runZoo - look for each bug, then run each twin if that is wanted. */
export async function runZoo(options: ZooOptions): Promise<ZooResult> {
  const bugs = options.bugs ?? ZOO
  const { schedules, seed } = options
  const jobs = bugs.length * (options.twins ? 2 : 1)
  const finds: ZooFind[] = []
  const twins: ZooTwin[] = []
  const label = (bug: Bug, twin: string): string => `${bug.number} ${bug.name}, ${twin}`
  for (const bug of bugs) {
    options.progress?.(finds.length, jobs, label(bug, 'buggy'))
    finds.push(findOf(bug, await run(bug, 'buggy', options)))
  }
  for (const bug of options.twins ? bugs : []) {
    options.progress?.(finds.length + twins.length, jobs, label(bug, 'fixed'))
    twins.push(twinOf(bug, await run(bug, 'fixed', options)))
  }
  const summary = summaryOf(finds, twins)
  return { schema: 'softnet.zoo/1', seed, schedules, host: hostInfo(), finds, twins, summary }
}

async function run(bug: Bug, args: 'buggy' | 'fixed', { schedules, seed, signal }: ZooOptions): Promise<Exploration> {
  const kernel = bug.kernel === true ? { kernel: { megabytes: MEGABYTES } } : {}
  try {
    return await explore(scenarioOf(bug), { args, schedules, seed, signal, throws: false, ...kernel })
  } catch (error) {
    if (error instanceof ScenarioError) throw new RunError(`${bug.number} ${bug.name}, ${args}: ${error.message}`)
    throw error
  }
}

function findOf(bug: Bug, result: Exploration): ZooFind {
  const finding = result.findings[0]
  const { number, name, title, expected } = bug
  return {
    number,
    name,
    title,
    kernel: bug.kernel === true,
    expected,
    detector: finding?.detector ?? null,
    right: finding !== undefined && expected.includes(finding.detector),
    schedules: finding?.schedules ?? result.schedules,
    steps: finding?.steps.filter(s => !s.unasked || finding.marked.includes(s.n)).length ?? 0,
    accesses: finding?.steps.length ?? 0,
    preemptions: finding?.preemptions ?? 0,
    sentence: finding?.sentence ?? '',
    replay: finding?.replay ?? '',
  }
}

function twinOf({ number, name }: Bug, { schedules, cut, findings }: Exploration): ZooTwin {
  const finding = findings[0]
  return {
    number,
    name,
    schedules,
    cut,
    report: finding === undefined ? null : `${finding.detector}: ${finding.sentence}`,
  }
}

function summaryOf(finds: readonly ZooFind[], twins: readonly ZooTwin[]): ZooSummary {
  const found = finds.filter(f => f.detector !== null)
  return {
    bugs: finds.length,
    within_100: found.filter(f => f.schedules <= 100).length,
    within_1000: found.filter(f => f.schedules <= 1000).length,
    found: found.length,
    right: found.filter(f => f.right).length,
    median_preemptions: median(found.map(f => f.preemptions)),
    median_steps: median(found.map(f => f.steps)),
    twins: twins.length,
    twin_schedules: twins.reduce((sum, t) => sum + t.schedules, 0),
    false_reports: twins.filter(t => t.report !== null).length,
  }
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  if (sorted.length === 0) return 0
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** isClean - every bug was found by a detector that names it rightly, and no twin was reported. */
export function isClean({ bugs, right, false_reports }: ZooSummary): boolean {
  return right === bugs && false_reports === 0
}
