/** paper.ts - `softnet paper`: options, the runs, their reports. */
import type { Command } from 'commander'
import { hostCores, RANGES } from '../config.js'
import { EXIT_CLEAN, UsageError } from '../errors.js'
import { startProgress } from '../progress.js'
import type { PaperResult } from '../types.js'
import { OutputFiles, profileInput, rateList, type VerbRunner, wholeNumber } from './verb.js'

interface PaperOptions {
  profile: string
  seed: number
  packets: number
  rates: number[] | 'auto'
  figures?: string[]
  json?: string
  csv?: string
  html?: string
}

const FIGURES = ['6-1', '6-3', '6-4', '6-5', '6-6', '7-1']

/** A parser for figures with commas between. */
function figures(text: string): string[] {
  const chosen = text.split(',').map(f => f.trim())
  const unknown = chosen.find(f => !FIGURES.includes(f))
  if (unknown !== undefined) throw new UsageError(`--figures ${unknown}: must be some of ${FIGURES.join(', ')}`)
  return FIGURES.filter(f => chosen.includes(f))
}

const EXAMPLES = `
The costs were fitted to Fig 6-1 and to nothing else; the other figures are predictions (docs/paper.md).

Examples:
  softnet paper --html paper.html
  softnet paper --figures 6-4,6-6 --csv paper.csv
`

/** registerPaper - adds the verb to the program. */
export function registerPaper(program: Command, run: VerbRunner): void {
  program
    .command('paper')
    .description('Run the figures of Mogul and Ramakrishnan 1996 in virtual time: livelock, polling, quotas, feedback.')
    .option('--figures <list>', `some of ${FIGURES.join(', ')}; by default all`, figures)
    .option(
      '--rates <list>',
      'offered loads in packets/s; auto: those published for Fig 6-1, 500 to 12,500 else',
      rateList('--rates'),
      'auto' as const,
    )
    .option('--packets <n>', 'packets of a trial', wholeNumber('--packets', 'packets'), RANGES.packets[2])
    .option('--profile <name>', 'costs', 'decstation-3000-300')
    .option('--seed <n>', 'seed of the arrivals', wholeNumber('--seed', 'seed'), RANGES.seed[2])
    .option('--json <file>', 'write the result as JSON; - writes it to standard output instead of the report')
    .option('--csv <file>', 'write figure,series,input_pps,output')
    .option('--html <file>', 'write one self-contained page with a chart for each figure')
    .helpOption('-h, --help', 'print help')
    .addHelpText('after', EXAMPLES)
    .allowExcessArguments(false)
    .action((options: PaperOptions) => run(signal => paper(options, signal)))
}

async function paper(options: PaperOptions, signal: AbortSignal): Promise<number> {
  const { json, csv, html } = options
  const files = new OutputFiles({ '--json': json, '--csv': csv, '--html': html }, [profileInput(options.profile)])
  try {
    const result = await measure(options, signal)
    const { paperCsv, paperFit, paperHtml, paperReport } = await import('../report/paper.js')
    files.write('--json', () => `${JSON.stringify(result, null, 1)}\n`)
    files.write('--csv', () => paperCsv(result))
    files.write('--html', () => paperHtml(result))
    files.commit()
    const fit = paperFit(result).map(f => `${f.series} ${f.met} of ${f.of}`)
    const note =
      fit.length === 0 ? '' : `\nPublished points of Fig 6-1 met: ${fit.join(', ')}. The rest is prediction.\n`
    process.stdout.write(json === '-' ? `${JSON.stringify(result, null, 1)}\n` : `${paperReport(result)}\n${note}`)
    return EXIT_CLEAN
  } finally {
    files.discard()
  }
}

/** The runs with their progress bar; loaded late, so that help and wrong flags need no machine. */
async function measure(options: PaperOptions, signal: AbortSignal): Promise<PaperResult> {
  const { readProfile } = await import('../profile.js')
  const profile = readProfile(options.profile)
  const { runPaper } = await import('../paper.js')
  const bar = await startProgress()
  try {
    return await runPaper({
      profile,
      seed: options.seed,
      packets: options.packets,
      ...(options.rates === 'auto' ? {} : { rates: options.rates }),
      ...(options.figures === undefined ? {} : { figures: options.figures }),
      parallel: hostCores(),
      hooks: { progress: bar.update, signal },
    })
  } finally {
    bar.stop()
  }
}
