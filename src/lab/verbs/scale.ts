/** scale.ts - `softnet scale`: options, the runs, their reports. */
import type { Command } from 'commander'
import { hostCores, RANGES } from '../config.js'
import { EXIT_CLEAN, UsageError } from '../errors.js'
import { startProgress } from '../progress.js'
import type { ScaleResult } from '../types.js'
import { OutputFiles, profileInput, someOf, type VerbRunner, wholeNumber } from './verb.js'

interface ScaleOptions {
  cpus: number[]
  variants: string[]
  profile: string
  duration: number
  seed: number
  json?: string
  html?: string
}

const NAMES = ['base', 'one-queue', 'pinned', 'few-flows', 'ticket', 'mcs', 'long-ring', 'long-ring-mcs', 'cache-miss']

/** A parser for numbers of CPUs with commas between. */
function cpuList(text: string): number[] {
  const [min, max] = RANGES.cpus
  const cpus = text.split(',').map(part => (/^\d+$/.test(part.trim()) ? Number(part) : Number.NaN))
  const bad = cpus.findIndex(n => !(n >= min && n <= max))
  if (bad >= 0) throw new UsageError(`--cpus ${text.split(',')[bad]}: must be whole numbers from ${min} to ${max}`)
  return [...new Set(cpus)].sort((a, b) => a - b)
}

/** registerScale - adds the verb to the program. */
export function registerScale(program: Command, run: VerbRunner): void {
  program
    .command('scale')
    .description(
      'Forwarding throughput by number of CPUs in virtual time, where the cycles go, and the contended locks.',
    )
    .option('--cpus <list>', 'numbers of CPUs', cpuList, [1, 2, 4, 8, 16, 32])
    .option('--variants <list>', `all, or some of ${NAMES.join(', ')}`, someOf('--variants', NAMES), NAMES)
    .option('--profile <name>', 'costs', 'modern')
    .option(
      '--duration <ms>',
      'virtual time of a steady point',
      wholeNumber('--duration', 'scaleDuration'),
      RANGES.scaleDuration[2],
    )
    .option('--seed <n>', 'seed', wholeNumber('--seed', 'seed'), RANGES.seed[2])
    .option('--json <file>', 'write the result as JSON; - writes it to standard output instead of the report')
    .option('--html <file>', 'write one self-contained page')
    .helpOption('-h, --help', 'print help')
    .allowExcessArguments(false)
    .action((options: ScaleOptions) => run(signal => scale(options, signal)))
}

async function scale(options: ScaleOptions, signal: AbortSignal): Promise<number> {
  const { json, html } = options
  const files = new OutputFiles({ '--json': json, '--html': html }, [profileInput(options.profile)])
  try {
    const result = await measure(options, signal)
    const { scaleHtml, scaleReport } = await import('../report/scale.js')
    files.write('--json', () => `${JSON.stringify(result, null, 1)}\n`)
    files.write('--html', () => scaleHtml(result))
    files.commit()
    process.stdout.write(json === '-' ? `${JSON.stringify(result, null, 1)}\n` : `${scaleReport(result)}\n`)
    return EXIT_CLEAN
  } finally {
    files.discard()
  }
}

/** The runs with their progress bar; loaded late, so that help and wrong flags need no machine. */
async function measure(options: ScaleOptions, signal: AbortSignal): Promise<ScaleResult> {
  const { readProfile } = await import('../profile.js')
  const profile = readProfile(options.profile)
  const { runScale } = await import('../scale.js')
  const bar = await startProgress()
  try {
    return await runScale({
      profile,
      seed: options.seed,
      cpus: options.cpus,
      variants: options.variants,
      durationMs: options.duration,
      parallel: hostCores(), // of each machine one thread runs at a time
      hooks: { progress: bar.update, signal },
    })
  } finally {
    bar.stop()
  }
}
