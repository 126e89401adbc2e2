/** explore.ts - `softnet explore`: options, the exploration, its reports. */
import type { Command } from 'commander'
import type { Exploration, ExploreOptions, MemoryModel, StrategyName } from '../../explore/index.js'
import { LOCK_KINDS, RANGES } from '../config.js'
import { EXIT_CLEAN, EXIT_FINDING, RunError, UsageError } from '../errors.js'
import { startProgress } from '../progress.js'
import type { LockKind } from '../types.js'
import { OutputFiles, oneOf, readableFile, type VerbRunner, wholeNumber } from './verb.js'

interface Flags {
  schedules?: number
  seconds?: number
  strategy: StrategyName
  memory: MemoryModel
  depth: number
  seed: number
  replay?: string
  all?: boolean
  args?: unknown
  /** Kind of its spinlocks; true where none was named. */
  kernel?: LockKind | true
  megabytes?: number
  instrument: boolean
  races: boolean
  json?: string
  html?: string
  trace?: string
}

const MEMORY_NAMES = ['sc', 'tso', 'pso'] as const
const STRATEGY_NAMES = ['mix', 'random', 'pct', 'round-robin', 'exhaustive'] as const

function jsonArgs(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new UsageError(`--args: is no JSON: ${error instanceof Error ? error.message : String(error)}`)
  }
}

/** registerExplore - adds the verb to the program. */
export function registerExplore(program: Command, run: VerbRunner): void {
  program
    .command('explore')
    .description('Run a scenario under many interleavings of its actors; find the one that goes wrong, and explain it.')
    .argument('<file>', 'the scenario: a module that exports actors')
    .option(
      '--schedules <n>',
      'runs to make (default: 1000; exhaustive: 1000000)',
      wholeNumber('--schedules', 'schedules'),
    )
    .option('--seconds <s>', 'no further run after so long', wholeNumber('--seconds', 'seconds'))
    .option('--strategy <name>', STRATEGY_NAMES.join(', '), oneOf('--strategy', STRATEGY_NAMES), 'mix')
    .option(
      '--memory <model>',
      'what stands between plain stores and memory: nothing (sc), a store buffer (tso), one for each word (pso)',
      oneOf('--memory', MEMORY_NAMES),
      'sc',
    )
    .option('--depth <n>', 'depth of bugs that pct looks for', wholeNumber('--depth', 'depth'), RANGES.depth[2])
    .option('--seed <n>', 'seed', wholeNumber('--seed', 'seed'), RANGES.seed[2])
    .option('--replay <id>', 'run once more what a finding printed')
    .option('--all', 'go on after the first finding; findings of one cause are one')
    .option(
      '--shrink <n>',
      `runs to spend on making a finding plainer (default: ${RANGES.shrink[2]}, at most 8 s)`,
      wholeNumber('--shrink', 'shrink'),
    )
    .option('--args <json>', "for the scenario's setup", jsonArgs)
    .option(
      '--kernel [lock]',
      `the actors are CPUs of one machine, whose spinlocks are ${LOCK_KINDS.join(', ')} (default: tas)`,
      oneOf('--kernel', LOCK_KINDS),
    )
    .option(
      '--megabytes <n>',
      `RAM of that machine (default: ${RANGES.megabytes[2]})`,
      wholeNumber('--megabytes', 'megabytes'),
    )
    .option('--no-instrument', 'leave plain accesses of shared memory unseen')
    .option('--no-races', 'report no data races: plain accesses are steps instead, where others may go on')
    .option('--json <file>', 'write the result as JSON; - writes it to standard output instead of the report')
    .option('--html <file>', 'write one self-contained page')
    .option('--trace <file>', 'write the first finding as Chrome trace events, for ui.perfetto.dev')
    .helpOption('-h, --help', 'print help')
    .allowExcessArguments(false)
    .action((file: string, flags: Flags) => run(signal => verb(file, flags, signal)))
}

async function verb(file: string, flags: Flags, signal: AbortSignal): Promise<number> {
  const { json, html, trace } = flags
  const scenario = readableFile('explore')(file)
  const files = new OutputFiles({ '--json': json, '--html': html, '--trace': trace }, [scenario])
  try {
    const result = await explored(scenario, flags, signal)
    const { exploreHtml, exploreReport, exploreTrace } = await import('../report/explore.js')
    files.write('--json', () => `${JSON.stringify(result, null, 1)}\n`)
    files.write('--html', () => exploreHtml(result))
    files.write('--trace', () => exploreTrace(result))
    files.commit()
    process.stdout.write(json === '-' ? `${JSON.stringify(result, null, 1)}\n` : `${exploreReport(result)}\n`)
    return result.findings.length === 0 ? EXIT_CLEAN : EXIT_FINDING
  } finally {
    files.discard()
  }
}

async function explored(file: string, flags: Flags, signal: AbortSignal): Promise<Exploration> {
  const { explore, ScenarioError } = await import('../../explore/index.js')
  const { json: _json, html: _html, trace: _trace, races, kernel, megabytes, ...options } = flags
  if (kernel === undefined && megabytes !== undefined)
    throw new UsageError('--megabytes: is the RAM of a machine, which there is only with --kernel')
  const bar = await startProgress()
  try {
    return await explore(file, {
      ...(options as ExploreOptions),
      ...(flags.memory === 'sc' ? { races } : {}),
      ...(kernel === undefined ? {} : { kernel: { megabytes, lock: kernel === true ? undefined : kernel } }),
      throws: false,
      signal,
      progress: bar.update,
    })
  } catch (error) {
    if (!(error instanceof ScenarioError)) throw error
    // A scenario that cannot be loaded is wrong usage; one whose threads die is a run that could not be finished.
    throw error.kind === 'input' ? new UsageError(error.message) : new RunError(error.message)
  } finally {
    bar.stop()
  }
}
