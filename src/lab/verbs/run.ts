/** run.ts - `softnet run`: a scenario file, what its programs say, how they ended. */
import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { RANGES, SCENARIO_CLOCKS } from '../config.js'
import { EXIT_CLEAN, EXIT_FINDING, MachinePanic, RunError, UsageError } from '../errors.js'
import type { CostProfile } from '../profile.js'
import type { ScenarioResult } from '../scenario/run.js'
import type { ScenarioSpec } from '../scenario/schema.js'
import { summary } from '../scenario/summary.js'
import { OutputFiles, oneOf, profileInput, profileOf, readableFile, type VerbRunner, wholeNumber } from './verb.js'

interface RunOptions {
  clock?: NonNullable<ScenarioSpec['clock']>
  profile?: string
  cpus?: number
  seed?: number
  schedules?: number
  json?: string
}

const EXAMPLES = `
A scenario is a YAML file of hosts, links between them, and programs that run on the hosts (docs/scenarios.md). The
exit code is 0 when every program ended as its file expects.

Examples:
  softnet run data/scenarios/ping.yaml
  softnet run data/scenarios/ping.yaml --clock real --cpus 2
`

/** registerRun - adds the verb to the program. */
export function registerRun(program: Command, run: VerbRunner): void {
  program
    .command('run')
    .description('Run a scenario: hosts and routers, links between them, programs on them.')
    .argument('<file>', 'the scenario, as YAML', readableFile('run'))
    .option(
      '--clock <kind>',
      'virtual, real or controlled; instead of what the file says',
      oneOf('--clock', SCENARIO_CLOCKS),
    )
    .option('--profile <name>', 'costs in virtual time; instead of what the file says')
    .option('--cpus <n>', 'CPUs of each host; instead of what the file says', wholeNumber('--cpus', 'cpus'))
    .option('--seed <n>', 'seed; instead of what the file says', wholeNumber('--seed', 'seed'))
    .option('--schedules <n>', 'controlled: runs, each with the next seed', wholeNumber('--schedules', 'schedules'))
    .option(
      '--json <file>',
      'write the result as JSON; - writes it to standard output instead of what the programs say',
    )
    .helpOption('-h, --help', 'print help')
    .addHelpText('after', EXAMPLES)
    .allowExcessArguments(false)
    .action((file: string, options: RunOptions) => run(signal => scenario(file, options, signal)))
}

/** Runs of a controlled scenario, unless it is said how many. */
const SCHEDULES = 20

function sound(r: ScenarioResult): boolean {
  return r.hosts.every(h => h.leaks.length === 0) && r.programs.every(p => p.ok)
}

/** The further runs of a controlled scenario. @returns what to say of them: the first seed that failed, or how many there were */
async function others(
  spec: ScenarioSpec,
  profile: CostProfile | null,
  schedules: number,
  signal: AbortSignal,
): Promise<string> {
  const { runScenario } = await import('../scenario/run.js')
  const first = spec.seed ?? RANGES.seed[2]
  for (let seed = first + 1; seed < first + schedules; seed++) {
    const bad = await runScenario({ ...spec, seed }, profile, { signal }).then(
      r => (sound(r) ? null : summary(r)),
      (error: unknown) => {
        signal.throwIfAborted()
        return error instanceof Error ? error.message : String(error)
      },
    )
    if (bad !== null) return `FAILED with --seed ${seed}:\n${bad}`
  }
  return `${schedules} schedules, nothing found`
}

/** Of a controlled run that broke off, the seed that replays it. */
function seeded(error: unknown, seed: number): unknown {
  if (error instanceof MachinePanic) return new MachinePanic(`FAILED with --seed ${seed}: ${error.message}`)
  if (error instanceof RunError) return new RunError(`FAILED with --seed ${seed}: ${error.message}`)
  return error
}

async function scenario(file: string, options: RunOptions, signal: AbortSignal): Promise<number> {
  const { locate, parseScenario } = await import('../scenario/schema.js') // late: help and the other verbs need no YAML
  const text = readFileSync(file, 'utf8')
  const { json, clock, profile, cpus, seed } = options
  try {
    const spec = parseScenario(text, file, {
      ...(clock === undefined ? {} : { clock }),
      ...(profile === undefined ? {} : { profile }),
      ...(cpus === undefined ? {} : { cpus }),
      ...(seed === undefined ? {} : { seed }),
    })
    if (options.schedules !== undefined && spec.clock !== 'controlled')
      throw new UsageError('--schedules: needs --clock controlled')
    return await runSpec(spec, file, json, options.schedules ?? SCHEDULES, signal)
  } catch (error) {
    throw locate(error, text, file)
  }
}

async function runSpec(
  spec: ScenarioSpec,
  file: string,
  json: string | undefined,
  schedules: number,
  signal: AbortSignal,
): Promise<number> {
  const profile = await profileOf({
    clock: spec.clock === 'real' ? 'real' : 'virtual',
    profile: spec.profile ?? 'modern',
  })
  const captures = Object.values(spec.hosts).flatMap(h =>
    Object.values(h.interfaces).flatMap(i => (i.capture === undefined ? [] : [i.capture])),
  )
  const outputs: [string, string | undefined][] = [
    ...captures.map((c): [string, string] => [`capture ${c}`, c]),
    ['--json', json],
  ]
  const files = new OutputFiles(Object.fromEntries(outputs), [file, profileInput(spec.profile ?? 'modern')])
  try {
    const { runScenario } = await import('../scenario/run.js')
    const hooks = {
      signal,
      ...(json === '-' ? {} : { line: (host: string, text: string) => process.stdout.write(`${host}: ${text}\n`) }),
      capture: (name: string, bytes: Uint8Array) => files.get(`capture ${name}`)?.write(bytes),
      file: (host: string, name: string, bytes: Uint8Array) => files.late(`host ${host}`, name, bytes),
    }
    const controlled = spec.clock === 'controlled'
    const first = spec.seed ?? RANGES.seed[2]
    const result = await runScenario(spec, profile, hooks).catch((error: unknown) => {
      throw controlled ? seeded(error, first) : error
    })
    const failed = !controlled
      ? null
      : sound(result)
        ? await others(spec, profile, schedules, signal)
        : `FAILED with --seed ${first}`
    files.write('--json', () => `${JSON.stringify(result, null, 1)}\n`)
    files.commit()
    process.stdout.write(`${json === '-' ? JSON.stringify(result, null, 1) : summary(result)}\n`)
    // Beside JSON on standard output there is no room for a line.
    if (failed !== null) (json === '-' ? process.stderr : process.stdout).write(`${failed}\n`)
    const leaks = result.hosts.filter(h => h.leaks.length > 0)
    for (const h of leaks)
      process.stderr.write(`softnet: host ${h.name} leaked: ${h.leaks.map(l => `${l.used} of ${l.name}`).join(', ')}\n`)
    const lost = files.complain()
    return lost ?? (sound(result) && !(failed ?? '').startsWith('FAILED') ? EXIT_CLEAN : EXIT_FINDING)
  } finally {
    files.discard()
  }
}
