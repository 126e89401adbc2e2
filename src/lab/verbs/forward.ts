/** forward.ts - `softnet forward`: options, the run, its summary. */
import { type Command, Option } from 'commander'
import { forwardDefaults, LOCK_KINDS, RANGES, RX_ARCHS } from '../config.js'
import { EXIT_CLEAN, EXIT_FINDING, UsageError } from '../errors.js'
import type { CaptureSink } from '../forward.js'
import { startProgress } from '../progress.js'
import type { ForwardConfig, ForwardResult, LockKind, PortFile, RxArch } from '../types.js'
import {
  type ClockOptions,
  clockOption,
  OutputFiles,
  oneOf,
  portFiles,
  profileInput,
  profileOf,
  profileOption,
  readableFile,
  type VerbRunner,
  warnOvercommit,
  wholeNumber,
} from './verb.js'

interface ForwardOptions extends ClockOptions {
  in: PortFile[]
  out: PortFile[]
  routes: string
  cpus: number
  rx: RxArch
  lock: LockKind
  seed: number
  timing: number
  json?: string
}

/** A parser for how captures are replayed: flat (0), original (1), or so many times as fast, such as x10. */
function timing(text: string): number {
  if (text === 'flat') return 0
  if (text === 'original') return 1
  const speed = /^x(\d+(?:\.\d+)?)$/.exec(text)?.[1]
  if (!(Number(speed) >= 0.001 && Number(speed) <= 1e6))
    throw new UsageError(`--timing ${text}: must be flat, original, or a speed such as x0.5 or x10`)
  return Number(speed)
}

const EXAMPLES = `
What was captured on a wire goes into that interface of the router; each output file holds what the router put on
that wire. Captures are classic pcap of Ethernet, of either byte order, in micro- or nanoseconds.

Example:
  softnet forward --in eth0=a.pcap --out eth1=b.pcap --routes routes.conf --cpus 2 --json result.json
`

/** registerForward - adds the verb to the program. */
export function registerForward(program: Command, run: VerbRunner): void {
  const d = forwardDefaults()
  const [min, max] = RANGES.cpus
  program
    .command('forward')
    .description('Forward captured frames through the emulated router and write what it put on each wire.')
    .option(
      '--in <iface=file>',
      'capture to send into an interface; once per interface',
      portFiles('--in', readableFile('--in')),
      [],
    )
    .option(
      '--out <iface=file>',
      'capture to write of an interface; once per interface',
      portFiles('--out', f => f),
      [],
    )
    .option('--routes <file>', 'interfaces, routes and neighbours of the router', readableFile('--routes'))
    .option('--cpus <n>', `CPUs of the machine, ${min} to ${max}`, wholeNumber('--cpus', 'cpus'), d.cpus)
    .option('--rx <arch>', `receive architecture: ${RX_ARCHS.join(', ')}`, oneOf('--rx', RX_ARCHS), d.rx)
    .option('--lock <kind>', `spinlocks: ${LOCK_KINDS.join(', ')}`, oneOf('--lock', LOCK_KINDS), d.lock)
    .option('--seed <n>', 'seed of hashes and timers', wholeNumber('--seed', 'seed'), d.seed)
    .addOption(
      new Option(
        '--timing <kind>',
        'flat: as fast as the router takes it, losing none; original: as captured; x10: ten times as fast',
      )
        .argParser(timing)
        .default(d.speed, 'flat'),
    )
    .addOption(clockOption())
    .addOption(profileOption())
    .option('--json <file>', 'write the counts as JSON; - writes them to standard output instead of the summary')
    .helpOption('-h, --help', 'print help')
    .addHelpText('after', EXAMPLES)
    .allowExcessArguments(false)
    .action((options: Partial<ForwardOptions>) => {
      const complete = checkOptions(options)
      return run(signal => forward(complete, signal))
    })
}

function checkOptions(o: Partial<ForwardOptions>): ForwardOptions {
  const { in: inputs = [], out = [], routes, json } = o
  if (inputs.length === 0) throw new UsageError('--in: at least one IFACE=FILE is needed')
  if (routes === undefined) throw new UsageError('--routes: a file is needed')
  const { cpus, rx, lock, seed } = { ...forwardDefaults(), ...o }
  const timing = o.timing ?? forwardDefaults().speed
  const { clock = 'real', profile = 'modern' } = o
  return {
    ...{ in: inputs, out, routes, cpus, rx, lock, seed, timing, clock, profile },
    ...(json === undefined ? {} : { json }),
  }
}

/** What was received has gone somewhere. */
function conserved(r: ForwardResult): boolean {
  return r.received === r.forwarded + r.delivered + Object.values(r.dropped).reduce((a, b) => a + b, 0)
}

async function forward(options: ForwardOptions, signal: AbortSignal): Promise<number> {
  const { in: inputs, out: outputs, json, routes, cpus, rx, lock, seed, timing: speed } = options
  const captures = outputs.map(({ iface, file }) => [`--out ${iface}`, file] as const)
  const files = new OutputFiles({ ...Object.fromEntries(captures), '--json': json }, [
    ...inputs.map(p => p.file),
    routes,
    profileInput(options.profile),
  ])
  try {
    const profile = await profileOf(options)
    const { hz } = forwardDefaults()
    const config = { inputs, outputs, routes, cpus, rx, lock, seed, speed, hz, profile }
    const { forwardReport } = await import('../report/terminal.js')
    const result = await convey(config, (iface, bytes) => files.get(`--out ${iface}`)?.write(bytes), signal)
    files.write('--json', () => `${JSON.stringify(result, null, 1)}\n`)
    files.commit()
    process.stdout.write(`${json === '-' ? JSON.stringify(result, null, 1) : forwardReport(result)}\n`)
    if (conserved(result)) return EXIT_CLEAN
    process.stderr.write('softnet: packets are not conserved: received is not forwarded + delivered + dropped\n')
    return EXIT_FINDING
  } finally {
    files.discard()
  }
}

/** The run with its progress bar; loaded late, so that help and wrong flags need no machine. */
async function convey(config: ForwardConfig, output: CaptureSink, signal: AbortSignal): Promise<ForwardResult> {
  const { runForward } = await import('../forward.js')
  const bar = await startProgress()
  try {
    const ready = (): void => {
      if (config.profile === null) warnOvercommit(config.cpus, '; the packets that come out are the same')
    }
    const result = await runForward(config, output, { progress: bar.update, notice: bar.notice, ready, signal })
    signal.throwIfAborted()
    return result
  } finally {
    bar.stop()
  }
}
