/** run.ts - `softnet run`: a scenario file, what its programs say, how they ended. */
import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { SCENARIO_CLOCKS } from '../config.js'
import { EXIT_CLEAN, EXIT_FINDING, UsageError } from '../errors.js'
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

/** What the command line says goes before what the file says. */
function withOptions(spec: ScenarioSpec, o: RunOptions): ScenarioSpec {
  const hosts =
    o.cpus === undefined
      ? spec.hosts
      : Object.fromEntries(Object.entries(spec.hosts).map(([name, h]) => [name, { ...h, cpus: o.cpus! }]))
  const result: ScenarioSpec = {
    ...spec,
    hosts,
    ...(o.clock === undefined ? {} : { clock: o.clock }),
    ...(o.profile === undefined ? {} : { profile: o.profile }),
    ...(o.seed === undefined ? {} : { seed: o.seed }),
  }
  for (const [name, h] of Object.entries(hosts)) {
    for (const [iface, i] of Object.entries(h.interfaces))
      if (i.tap !== undefined && result.clock !== 'real')
        throw new UsageError(
          `--clock ${result.clock ?? 'virtual'}: ${iface} of ${name} is on a TAP device, which has the host's time`,
        )
    for (const p of h.programs ?? [])
      if ((p.cpu ?? 0) >= (h.cpus ?? 1))
        throw new UsageError(`--cpus ${o.cpus}: a program of ${name} wants CPU ${p.cpu}`)
  }
  return result
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
  const first = spec.seed ?? 1
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

async function scenario(file: string, options: RunOptions, signal: AbortSignal): Promise<number> {
  const { parseScenario } = await import('../scenario/schema.js') // late: help and the other verbs need no YAML
  const spec = withOptions(parseScenario(readFileSync(file, 'utf8'), file), options)
  const { json } = options
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
  if (new Set(captures).size < captures.length) throw new UsageError(`${file}: two interfaces have one capture`)
  const files = new OutputFiles(Object.fromEntries(outputs), [file, profileInput(spec.profile ?? 'modern')])
  try {
    const { runScenario } = await import('../scenario/run.js')
    const hooks = {
      signal,
      ...(json === '-' ? {} : { line: (host: string, text: string) => process.stdout.write(`${host}: ${text}\n`) }),
      capture: (name: string, bytes: Uint8Array) => files.get(`capture ${name}`)?.write(bytes),
      file: (host: string, name: string, bytes: Uint8Array) => files.late(`${name} of host ${host}`, name, bytes),
    }
    const result = await runScenario(spec, profile, hooks)
    const failed =
      spec.clock === 'controlled' ? await others(spec, profile, options.schedules ?? SCHEDULES, signal) : null
    files.write('--json', () => `${JSON.stringify(result, null, 1)}\n`)
    files.commit()
    process.stdout.write(`${json === '-' ? JSON.stringify(result, null, 1) : summary(result)}\n`)
    if (failed !== null) process.stdout.write(`${failed}\n`)
    const leaks = result.hosts.filter(h => h.leaks.length > 0)
    for (const h of leaks)
      process.stderr.write(`softnet: host ${h.name} leaked: ${h.leaks.map(l => `${l.used} of ${l.name}`).join(', ')}\n`)
    return sound(result) && !(failed ?? '').startsWith('FAILED') ? EXIT_CLEAN : EXIT_FINDING
  } finally {
    files.discard()
  }
}
