/**
 * exploration.ts - `npm run bench -- exploration`: the whole way of a packet under control, from the interrupt to the wire, on 2
 * and 4 CPUs, with a clock that ticks and a CPU that is stopped and started meanwhile. Each schedule must bring every frame out
 * and leave nothing behind; how many schedules a second that makes is told as well.
 */
import { Command } from 'commander'
import { explore, type Finding } from '../src/explore/index.js'
import type { RouterArgs } from '../test/model/kernel/router.js'
import { type BenchHost, benchHost } from './lib/host.js'
import { positive } from './lib/positive.js'

interface Options {
  schedules: number
  seed: number
  json?: string
}

const ROUTER = new URL('../test/model/kernel/router.js', import.meta.url)
const RX = ['interrupt', 'softnet', 'napi'] as const
const CPUS = [2, 4]

interface Row {
  cpus: number
  rx: (typeof RX)[number]
  hotplug: boolean
  schedules: number
  /** Choosable steps of all of them. */
  steps: number
  /** Runs that were longer than they may be. */
  cut: number
  seconds: number
  findings: string[]
  /** By how often CPU 1 was stopped or started while the frames went through. */
  outcomes: Record<string, number>
}

export interface ExplorationReport {
  schema: 'softnet.exploration/1'
  date: string
  host: BenchHost
  seed: number
  rows: Row[]
}

async function measure(args: RouterArgs, schedules: number, seed: number): Promise<Row> {
  const kernel = {}
  const options = { schedules, seed, kernel, args, maxSteps: 50_000, hangSeconds: 120, throws: false, all: true }
  const result = await explore(ROUTER, options)
  return {
    cpus: args.cpus,
    rx: RX[args.rx]!,
    hotplug: args.hotplug === true,
    schedules: result.schedules,
    steps: result.steps,
    cut: result.cut,
    seconds: result.seconds,
    findings: result.findings.map((f: Finding) => `${f.detector}: ${f.sentence} (${f.replay})`),
    outcomes: result.outcomes,
  }
}

/** exploration - the campaign; `write` is given the report. @returns the exit code: 1 when something was found */
export async function exploration(
  argv: readonly string[],
  write: (prefix: string, file: string | undefined, report: ExplorationReport) => void,
): Promise<number> {
  const options = new Command('exploration')
    .description('the whole way of a packet under control, on 2 and 4 CPUs')
    .option('--schedules <n>', 'for each number of CPUs', positive, 10_000)
    .option('--seed <n>', 'seed', positive, 1)
    .option('--json <file>', 'write the results there instead of bench/results/')
    .exitOverride(e => process.exit(e.exitCode === 0 ? 0 : 2))
    .parse([...argv], { from: 'user' })
    .opts<Options>()
  const rows: Row[] = []
  const each = Math.ceil(options.schedules / (RX.length * 2))
  for (const n of CPUS)
    for (const rx of RX.keys())
      for (const hotplug of [false, true]) {
        const row = await measure({ cpus: n, frames: 2, rx, ticks: 2, hotplug }, each, options.seed + rows.length)
        rows.push(row)
        const rate = (row.schedules / row.seconds).toFixed(0)
        console.log(
          `${n} CPUs, ${row.rx}${hotplug ? ', CPU 1 stopped and started' : ''}: ${row.schedules} schedules of ` +
            `${(row.steps / row.schedules).toFixed(0)} steps, ${rate} a second, ${row.cut} cut, ${row.findings.length} findings`,
        )
        for (const f of row.findings) console.log(`  ${f}`)
      }
  write('exploration-', options.json, {
    schema: 'softnet.exploration/1',
    date: new Date().toISOString(),
    host: benchHost(),
    seed: options.seed,
    rows,
  })
  return rows.some(r => r.findings.length > 0) ? 1 : 0
}
