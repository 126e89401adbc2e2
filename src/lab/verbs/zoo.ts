/** zoo.ts - `softnet zoo`: options, the bugs and their twins, the report. */
import type { Command } from 'commander'
import { type Bug, ZOO } from '../../zoo/index.js'
import { RANGES } from '../config.js'
import { EXIT_CLEAN, EXIT_FINDING, UsageError } from '../errors.js'
import { startProgress } from '../progress.js'
import type { ZooResult } from '../zoo.js'
import { OutputFiles, type VerbRunner, wholeNumber } from './verb.js'

interface Flags {
  only?: readonly Bug[]
  schedules: number
  seed: number
  twins?: boolean
  json?: string
}

/** Bugs by number or name, in the order of the list. */
function someBugs(text: string): readonly Bug[] {
  const wanted = text.split(',').map(part => part.trim())
  const is = (bug: Bug, part: string): boolean => bug.number.toLowerCase() === part.toLowerCase() || bug.name === part
  const unknown = wanted.find(part => !ZOO.some(bug => is(bug, part)))
  if (unknown !== undefined)
    throw new UsageError(
      `--only ${unknown}: no such bug, must be numbers or names with commas between (${ZOO.map(b => b.number).join(', ')})`,
    )
  return ZOO.filter(bug => wanted.some(part => is(bug, part)))
}

/** registerZoo - adds the verb to the program. */
export function registerZoo(program: Command, run: VerbRunner): void {
  program
    .command('zoo')
    .description('Look for known bugs of kernels and of JavaScript under control: which are found, how soon, by what.')
    .option('--only <list>', 'some of them, by number or name, with commas between', someBugs)
    .option(
      '--schedules <n>',
      'runs for each bug at most, and for each twin',
      wholeNumber('--schedules', 'schedules'),
      RANGES.schedules[2],
    )
    .option('--seed <n>', 'seed', wholeNumber('--seed', 'seed'), RANGES.seed[2])
    .option('--twins', 'run the fixed twin of each bug too, in which there is nothing to find')
    .option('--json <file>', 'write the result as JSON; - writes it to standard output instead of the table')
    .helpOption('-h, --help', 'print help')
    .allowExcessArguments(false)
    .action((flags: Flags) => run(signal => verb(flags, signal)))
}

async function verb(flags: Flags, signal: AbortSignal): Promise<number> {
  const { json } = flags
  const files = new OutputFiles({ '--json': json })
  try {
    const result = await found(flags, signal)
    const { zooReport } = await import('../report/zoo.js')
    const { isClean } = await import('../zoo.js')
    files.write('--json', () => `${JSON.stringify(result, null, 1)}\n`)
    files.commit()
    process.stdout.write(json === '-' ? `${JSON.stringify(result, null, 1)}\n` : `${zooReport(result)}\n`)
    return isClean(result.summary) ? EXIT_CLEAN : EXIT_FINDING
  } finally {
    files.discard()
  }
}

async function found({ only, schedules, seed, twins = false }: Flags, signal: AbortSignal): Promise<ZooResult> {
  const bar = await startProgress()
  try {
    const { runZoo } = await import('../zoo.js')
    return await runZoo({ bugs: only, schedules, seed, twins, signal, progress: bar.update })
  } finally {
    bar.stop()
  }
}
