/** calibrate.ts - `softnet calibrate`: options, the run, its report. */
import { basename } from 'node:path'
import type { Command } from 'commander'
import { hostCores, RANGES } from '../config.js'
import { EXIT_CLEAN, EXIT_FINDING, RunError } from '../errors.js'
import { startProgress } from '../progress.js'
import type { CalibrateResult } from '../types.js'
import { OutputFiles, type VerbRunner, wholeNumber } from './verb.js'

interface CalibrateCliOptions {
  out: string
  seconds: number
  seed: number
  check: boolean
  json?: string
}

const EXAMPLES = `
Needs two cores that nobody else uses: one for the CPU, one for the NIC. Takes some minutes; --no-check leaves out most of them.
What is fitted and what is predicted: docs/virtual-time.md.

Examples:
  softnet calibrate --out mine.json
  softnet livelock --clock virtual --profile mine.json
`

/** registerCalibrate - adds the verb to the program. */
export function registerCalibrate(program: Command, run: VerbRunner): void {
  const [min, max] = RANGES.calibrateSeconds
  program
    .command('calibrate')
    .description(
      'Fit the costs of virtual time to this host, and hold the loss-free rates and plateaus that they predict against it.',
    )
    .option('--out <file>', 'the profile, for --profile', 'modern.json')
    .option(
      '--seconds <n>',
      `host time for the measurements of the fit, ${min} to ${max}`,
      wholeNumber('--seconds', 'calibrateSeconds'),
      RANGES.calibrateSeconds[2],
    )
    .option('--seed <n>', 'seed of the load', wholeNumber('--seed', 'seed'), RANGES.seed[2])
    .option('--no-check', 'do not hold the predictions against the real machine')
    .option('--json <file>', 'write measurements, fit and check as JSON; - writes them to standard output instead')
    .helpOption('-h, --help', 'print help')
    .addHelpText('after', EXAMPLES)
    .allowExcessArguments(false)
    .action((options: CalibrateCliOptions) => run(signal => calibrate(options, signal)))
}

async function calibrate(options: CalibrateCliOptions, signal: AbortSignal): Promise<number> {
  const { out, json } = options
  const files = new OutputFiles({ '--out': out, '--json': json })
  try {
    if (hostCores() < 2) throw new RunError('calibrate needs two cores: one for the CPU, one for the NIC')
    const result = await measure(options, signal)
    const { calibrateReport } = await import('../report/calibrate.js')
    const text = `${JSON.stringify(result.profile, null, 2)}\n`
    files.write('--out', () => text)
    files.write('--json', () => `${JSON.stringify(result, null, 1)}\n`)
    files.commit()
    const report =
      json === '-' ? JSON.stringify(result, null, 1) : `${calibrateReport(result)}\n\nThe profile is ${out}.`
    process.stdout.write(`${report}\n`)
    return result.check?.points.every(p => p.agrees) === false ? EXIT_FINDING : EXIT_CLEAN
  } finally {
    files.discard()
  }
}

/** The run with its progress bar; loaded late, so that help and wrong flags need no machine. */
async function measure(options: CalibrateCliOptions, signal: AbortSignal): Promise<CalibrateResult> {
  const { runCalibrate } = await import('../calibrate.js')
  const bar = await startProgress()
  try {
    return await runCalibrate({
      name: basename(options.out).replace(/\.json$/, '') || 'mine',
      seed: options.seed,
      budgetMs: options.seconds * 1000,
      check: options.check,
      hooks: { progress: bar.update, signal },
    })
  } finally {
    bar.stop()
  }
}
