/** livelock.ts - `softnet livelock`: options, the run, its reports. */
import type { Command } from 'commander'
import {
  AFFINITIES,
  ARRIVALS,
  IRQ_COST_NS,
  LOCK_KINDS,
  livelockDefaults,
  PCAP_TIMINGS,
  RANGES,
  RX_ARCHS,
  SCREENDS,
} from '../config.js'
import { EXIT_CLEAN } from '../errors.js'
import { startProgress } from '../progress.js'
import type { TraceWriter } from '../report/trace.js'
import type {
  Affinity,
  ArrivalKind,
  LivelockConfig,
  LivelockResult,
  LockKind,
  PcapTiming,
  RxArch,
  Screend,
} from '../types.js'
import {
  burst,
  type ClockOptions,
  clockOption,
  frameSizes,
  OutputFiles,
  oneOf,
  profileInput,
  profileOf,
  profileOption,
  rateList,
  readableFile,
  someOf,
  type VerbRunner,
  warnOvercommit,
  wholeNumber,
} from './verb.js'

interface LivelockOptions extends ClockOptions {
  cpus: number
  rx: RxArch[]
  lock: LockKind
  rates: number[] | 'auto'
  duration: number
  seed: number
  irqCost: number
  pioCost: number
  flows: number
  destinations: number
  arrivals: ArrivalKind
  burst: { packets: number; peak: number }
  sizes: [number, number][]
  itr: number
  itrFrames: number
  affinity: Affinity
  quota: number
  cycleLimit: number
  screend: Screend
  pcapTiming: PcapTiming
  queues: number
  hz: number
  irqWork: number
  pcap?: string
  json?: string
  csv?: string
  html?: string
  trace?: string
}

const EXAMPLES = `
Examples:
  softnet livelock
  softnet livelock --cpus 2 --queues 2 --rx napi --html report.html
  softnet livelock --rates 50k,100k,200k --duration 1000 --json result.json
  softnet livelock --rx interrupt --pcap capture.pcap --trace timeline.json    (open it in Perfetto)
`

/** registerLivelock - adds the verb to the program. */
export function registerLivelock(program: Command, run: VerbRunner): void {
  const d = livelockDefaults()
  const span = (name: keyof typeof RANGES): string => `${RANGES[name][0]} to ${RANGES[name][1]}`
  program
    .command('livelock')
    .description('Find the loss-free receive rate of each receive architecture, then overload it and see what is left.')
    .option('--cpus <n>', `CPUs of the machine, ${span('cpus')}`, wholeNumber('--cpus', 'cpus'), d.cpus)
    .option('--rx <list>', `receive architectures: all, or some of ${RX_ARCHS}`, someOf('--rx', RX_ARCHS), d.rx)
    .option('--lock <kind>', `spinlocks: ${LOCK_KINDS.join(', ')}`, oneOf('--lock', LOCK_KINDS), d.lock)
    .option('--rates <list>', 'offered loads in packets/s such as 50k,100k,1M, or auto', rateList('--rates'), d.rates)
    .option(
      '--duration <ms>',
      `time of a point, in up to three passes of which the best counts, ${span('duration')}`,
      wholeNumber('--duration', 'duration'),
      d.durationMs,
    )
    .option('--seed <n>', `seed of the load, ${span('seed')}`, wholeNumber('--seed', 'seed'), d.seed)
    .option(
      '--irq-cost <ns>',
      `interrupt entry and exit; ${IRQ_COST_NS} was measured on a 500 MHz Pentium III (Aron and Druschel 2000)`,
      wholeNumber('--irq-cost', 'irqCost'),
      d.irqCostNs,
    )
    .option(
      '--pio-cost <ns>',
      'programmed I/O: what a CPU spends on each 4 bytes it moves from or to a NIC; 720 is an ISA card (two cycles of 360 ns); 0: the NIC does DMA',
      wholeNumber('--pio-cost', 'pioCost'),
      d.pioNs,
    )
    .option('--flows <n>', `flows of the load, ${span('flows')}`, wholeNumber('--flows', 'flows'), d.flows)
    .option(
      '--destinations <n>',
      `addresses that the flows go to, ${span('destinations')}; 0: one for each flow`,
      wholeNumber('--destinations', 'destinations'),
      d.destinations,
    )
    .option(
      '--arrivals <kind>',
      `how generated packets arrive: ${ARRIVALS.join(', ')}`,
      oneOf('--arrivals', ARRIVALS),
      d.arrivals,
    )
    .option('--burst <n@peak>', 'packets of a burst, and their rate in it', burst('--burst'), d.burst)
    .option(
      '--sizes <list>',
      'frame sizes without FCS and their weights such as 60:7,590:4,1514:1, or imix, which is just that',
      frameSizes('--sizes'),
      d.sizes,
    )
    .option(
      '--itr <ns>',
      'interrupt mitigation: a NIC interrupts for received frames at most once in this time; 0: at once',
      wholeNumber('--itr', 'itr'),
      d.itrNs,
    )
    .option(
      '--itr-frames <n>',
      'and earlier when so many frames wait; 0: never',
      wholeNumber('--itr-frames', 'itrFrames'),
      d.itrFrames,
    )
    .option(
      '--affinity <kind>',
      `interrupt lines: ${AFFINITIES.join(' (over the CPUs), ')} (all to CPU 0)`,
      oneOf('--affinity', AFFINITIES),
      d.affinity,
    )
    .option(
      '--quota <n>',
      `polled: frames of one callback, ${span('quota')}; without it as many as come`,
      wholeNumber('--quota', 'quota'),
      d.quota,
    )
    .option(
      '--cycle-limit <percent>',
      `polled: share of each 10 ms that its thread may use, ${span('cycleLimit')}`,
      wholeNumber('--cycle-limit', 'cycleLimit'),
      d.cycleLimit,
    )
    .option(
      '--screend <kind>',
      'a user process screens forwarded packets: off, on, or feedback (its full queue inhibits input under polled)',
      oneOf('--screend', SCREENDS),
      d.screend,
    )
    .option(
      '--queues <n>',
      `receive queues of a NIC, ${span('queues')}; 0: one for each CPU`,
      wholeNumber('--queues', 'queues'),
      d.queues,
    )
    .option(
      '--hz <n>',
      'clock ticks per second: 100 or 1000',
      text => Number(oneOf('--hz', ['100', '1000'])(text)),
      d.hz,
    )
    .option(
      '--irq-work <n>',
      'packets that one receive interrupt takes at most; 0: 1 under interrupt, 10 under softnet',
      wholeNumber('--irq-work', 'irqWork'),
      d.irqWork,
    )
    .option('--pcap <file>', 'offer the frames of this capture instead of generated ones', readableFile('--pcap'))
    .option(
      '--pcap-timing <kind>',
      'frames of the capture even (at the offered rate), or stretched (their own gaps, stretched to it)',
      oneOf('--pcap-timing', PCAP_TIMINGS),
      d.pcapTiming,
    )
    .addOption(clockOption())
    .addOption(profileOption())
    .option('--json <file>', 'write the result as JSON; - writes it to standard output instead of the report')
    .option('--csv <file>', 'write one line per point')
    .option('--html <file>', 'write one self-contained page with interactive charts')
    .option('--trace <file>', 'write Chrome trace events, which open in Perfetto')
    .helpOption('-h, --help', 'print help')
    .addHelpText('after', EXAMPLES)
    .allowExcessArguments(false)
    .action((options: LivelockOptions) => run(signal => livelock(options, signal)))
}

/** toConfig - options as the experiment takes them. */
function toConfig(o: LivelockOptions, profile: LivelockConfig['profile']): LivelockConfig {
  return {
    cpus: o.cpus,
    rx: o.rx,
    lock: o.lock,
    rates: o.rates,
    durationMs: o.duration,
    seed: o.seed,
    irqCostNs: o.irqCost,
    pioNs: o.pioCost,
    flows: o.flows,
    destinations: o.destinations,
    arrivals: o.arrivals,
    burst: o.burst,
    sizes: o.sizes,
    itrNs: o.itr,
    itrFrames: o.itrFrames,
    affinity: o.affinity,
    quota: o.quota,
    cycleLimit: o.cycleLimit,
    screend: o.screend,
    pcapTiming: o.pcapTiming,
    queues: o.queues,
    hz: o.hz,
    irqWork: o.irqWork,
    pcap: o.pcap ?? null,
    profile,
    trace: o.trace !== undefined,
  }
}

async function livelock(options: LivelockOptions, signal: AbortSignal): Promise<number> {
  const { json, csv, html, trace } = options
  const inputs = [options.pcap, profileInput(options.profile)]
  const files = new OutputFiles({ '--json': json, '--csv': csv, '--html': html, '--trace': trace }, inputs)
  try {
    const traceFile = files.get('--trace')
    const { TraceWriter } = await import('../report/trace.js')
    const tracer = traceFile === undefined ? null : new TraceWriter(text => traceFile.write(text))
    const result = await measure(toConfig(options, await profileOf(options)), signal, tracer)
    const { livelockReport, lookOf } = await import('../report/terminal.js')
    const { livelockCsv } = await import('../report/csv.js')
    const { livelockHtml } = await import('../report/html.js')
    tracer?.end()
    files.write('--json', () => `${JSON.stringify(result, null, 1)}\n`)
    files.write('--csv', () => livelockCsv(result))
    files.write('--html', () => livelockHtml(result))
    files.commit()
    const stdout =
      json === '-' ? JSON.stringify(result, null, 1) : livelockReport(result, lookOf(process.stdout, process.env))
    process.stdout.write(`${stdout}\n`)
    return EXIT_CLEAN
  } finally {
    files.discard()
  }
}

/** The experiment with its progress bar; loaded late, so that help and wrong flags need no machine. */
async function measure(
  config: LivelockConfig,
  signal: AbortSignal,
  tracer: TraceWriter | null,
): Promise<LivelockResult> {
  const { runLivelock } = await import('../livelock.js')
  const bar = await startProgress()
  try {
    const trace = tracer === null ? {} : { trace: tracer.add.bind(tracer) }
    const ready = (): void => {
      if (config.profile === null)
        warnOvercommit(config.cpus, '; virtual time is the better tool for that: --clock virtual')
    }
    const result = await runLivelock(config, { progress: bar.update, notice: bar.notice, ready, signal, ...trace })
    signal.throwIfAborted()
    return result
  } finally {
    bar.stop()
  }
}
