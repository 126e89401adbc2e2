/** torture.ts - `softnet torture`: options, the runs, their report. */
import type { Command } from 'commander'
import { hostCores, RANGES } from '../config.js'
import { EXIT_CLEAN, EXIT_FINDING, UsageError } from '../errors.js'
import { startProgress } from '../progress.js'
import type { TortureResult, TortureRun } from '../torture.js'
import { BUSTED, kindsOf, TORTURE_ALL, TORTURE_TARGETS, type TortureTarget } from '../tortureTargets.js'
import { OutputFiles, oneOf, type VerbRunner, wholeNumber } from './verb.js'

interface Flags {
  cpus?: number
  seconds: number
  kind?: string
  seed: number
  json?: string
}

/** Without `--cpus`: as many as really run at once, and two at least, for one alone disturbs nobody. */
const [FEW, MANY] = [2, 8]
const DEFAULT_SECONDS = 2

/** registerTorture - adds the verb to the program. */
export function registerTorture(program: Command, run: VerbRunner): void {
  program
    .command('torture')
    .description(
      'Locks, RCU, packets or timers under free-running load on parallel CPUs, with oracles that count failures.',
    )
    .argument('<what>', `${TORTURE_TARGETS.join(', ')}, or all`)
    .option('--cpus <n>', `CPUs (default: the host's cores, ${FEW} to ${MANY})`, wholeNumber('--cpus', 'cpus'))
    .option('--seconds <s>', 'of each run', wholeNumber('--seconds', 'seconds'), DEFAULT_SECONDS)
    .option(
      '--kind <name>',
      `of locks: ${kindsOf('locks').join(', ')}; of rcu: ${kindsOf('rcu').join(', ')}; or ${BUSTED}, which must fail (default: each that is sound)`,
    )
    .option('--seed <n>', 'seed', wholeNumber('--seed', 'seed'), RANGES.seed[2])
    .option('--json <file>', 'write the result as JSON; - writes it to standard output instead of the report')
    .helpOption('-h, --help', 'print help')
    .allowExcessArguments(false)
    .action((what: string, flags: Flags) => run(signal => verb(what, flags, signal)))
}

/** The runs that were asked for. */
function jobsOf(what: string, kind: string | undefined): { target: TortureTarget; kind: string }[] {
  const targets = what === 'all' ? TORTURE_ALL : [oneOf('torture', TORTURE_TARGETS)(what)]
  const jobs = targets.flatMap(target => {
    const kinds = kind === undefined ? kindsOf(target) : [...kindsOf(target), BUSTED].filter(k => k === kind)
    return kinds.map(k => ({ target, kind: k }))
  })
  if (jobs.length > 0) return jobs
  const known = [...new Set([...targets.flatMap(kindsOf), BUSTED])]
  throw new UsageError(`--kind ${kind}: must be one of ${known.join(', ')} for ${what}`)
}

async function verb(what: string, flags: Flags, signal: AbortSignal): Promise<number> {
  const { json, seed, seconds } = flags
  const jobs = jobsOf(what, flags.kind)
  const cpus = flags.cpus ?? Math.min(MANY, Math.max(FEW, hostCores()))
  const files = new OutputFiles({ '--json': json })
  const bar = await startProgress()
  try {
    const { runTorture } = await import('../torture.js')
    const runs: TortureRun[] = []
    for (const [k, job] of jobs.entries()) {
      const progress = (done: number, total: number, label: string): void =>
        bar.update(k + done / total, jobs.length, label)
      runs.push(await runTorture({ ...job, cpus, seed, seconds, poison: true, hooks: { signal, progress } }))
    }
    bar.stop()
    const result: TortureResult = { schema: 'softnet.torture/1', cpus, seed, runs }
    const { tortureReport } = await import('../report/torture.js')
    files.write('--json', () => `${JSON.stringify(result, null, 1)}\n`)
    files.commit()
    process.stdout.write(json === '-' ? `${JSON.stringify(result, null, 1)}\n` : `${tortureReport(result)}\n`)
    return runs.every(r => r.failures.length === 0) ? EXIT_CLEAN : EXIT_FINDING
  } finally {
    bar.stop()
    files.discard()
  }
}
