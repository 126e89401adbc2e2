/**
 * cli.ts - the command line: finds the verb, turns every failure into one line and an exit code.
 *
 * 0 a clean run, 1 a finding or a run that could not be finished, 2 wrong usage, 128 + n ended by signal n, such as 130 for Ctrl-C.
 */
import { Command, CommanderError } from 'commander'
import { packageVersion } from './config.js'
import { EXIT_CLEAN, EXIT_FINDING, EXIT_INTERRUPTED, EXIT_USAGE, errnoText, LabError, MachinePanic } from './errors.js'
import { optionDescription } from './help.js'
import { registerCalibrate } from './verbs/calibrate.js'
import { registerExplore } from './verbs/explore.js'
import { registerForward } from './verbs/forward.js'
import { registerLivelock } from './verbs/livelock.js'
import { registerPaper } from './verbs/paper.js'
import { registerRun } from './verbs/run.js'
import { registerScale } from './verbs/scale.js'
import { registerTap } from './verbs/tap.js'
import { registerTorture } from './verbs/torture.js'
import type { VerbBody, VerbRunner } from './verbs/verb.js'
import { registerZoo } from './verbs/zoo.js'

/** One Ctrl-C can arrive twice: from the terminal, and passed on by npm. */
const SAME_KEYPRESS_MS = 1000
/** How long a machine may take to power off before the process ends without waiting for it. */
const POWER_OFF_MS = 5000

const SIGNALS = [
  ['SIGINT', EXIT_INTERRUPTED],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
  ['SIGQUIT', 131],
] as const

function oneLine(text: string): string {
  return text.replace(/\s*\n\s*/g, ' ').trim()
}

function complain(text: string): void {
  process.stderr.write(`softnet: ${oneLine(text)}\n`)
}

/** Runs a verb's body under the signals of the process; returns the exit code. */
async function underSignals(body: VerbBody): Promise<number> {
  const abort = new AbortController()
  const got = { code: 0, at: 0 }
  const handlers = SIGNALS.map(([signal, code]) => {
    const handler = (): void => {
      const now = Date.now()
      if (got.code !== 0 && now - got.at < SAME_KEYPRESS_MS) return
      if (got.code !== 0) process.exit(got.code)
      got.code = code
      got.at = now
      abort.abort()
      setTimeout(() => process.exit(code), POWER_OFF_MS).unref()
    }
    process.on(signal, handler)
    return [signal, handler] as const
  })
  try {
    const code = await body(abort.signal)
    return got.code !== 0 ? got.code : code
  } catch (error) {
    if (got.code === 0) throw error
    complain('interrupted, the machine is off and no file was written')
    return got.code
  } finally {
    for (const [signal, handler] of handlers) process.off(signal, handler)
  }
}

/** The line for a failure, and its exit code. */
function report(error: unknown): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return EXIT_CLEAN // --help, --version
    if (error.code === 'commander.help') {
      complain('help: there is no such verb (softnet --help)')
      return EXIT_USAGE
    }
    complain(error.message.replace(/^error: /, ''))
    return EXIT_USAGE
  }
  if (error instanceof MachinePanic) {
    process.stderr.write(`softnet: ${error.message.trimEnd()}\n`) // the dump keeps its lines
    return error.exitCode
  }
  if (error instanceof LabError) {
    complain(error.message)
    return error.exitCode
  }
  // What nobody expected: a dump of a dead machine or a bug of the lab itself keeps its lines.
  process.stderr.write(`softnet: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
  return EXIT_FINDING
}

function makeProgram(run: VerbRunner): Command {
  const program = new Command('softnet')
    .description('A multi-threaded SMP kernel on a bench: the network subsystem of Linux 2.6.11 on worker threads.')
    .version(packageVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [verb]', 'print help, also of a verb')
    .configureHelp({ optionDescription })
    .usage('<verb> [options]')
    .exitOverride()
    .configureOutput({ writeErr: () => {}, outputError: () => {} })
    .allowExcessArguments(true)
    .action((_options: unknown, command: Command) => {
      const verbs = command.commands.map(c => c.name()).join(', ')
      const [verb] = command.args
      const what = verb === undefined ? 'no verb given' : `unknown verb '${verb}'`
      throw new LabError(`${what}: one of ${verbs} (softnet --help)`, EXIT_USAGE)
    })
  registerLivelock(program, run)
  registerForward(program, run)
  registerRun(program, run)
  registerTap(program, run)
  registerPaper(program, run)
  registerScale(program, run)
  registerExplore(program, run)
  registerZoo(program, run)
  registerTorture(program, run)
  registerCalibrate(program, run)
  return program
}

/** main - runs one command line; resolves to the exit code and never rejects. */
export async function main(args: readonly string[]): Promise<number> {
  // The reader of a pipe may leave early, as `head` does: then there is nobody left to report to.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(EXIT_CLEAN)
    complain(`cannot write to standard output: ${errnoText(error)}`)
    process.exit(EXIT_FINDING)
  })
  process.stderr.on('error', () => {}) // nobody listens: the exit code still tells
  const result = { code: EXIT_CLEAN }
  try {
    const program = makeProgram(async body => {
      result.code = await underSignals(body)
    })
    await program.parseAsync(args, { from: 'user' })
    return result.code
  } catch (error) {
    return report(error)
  }
}
