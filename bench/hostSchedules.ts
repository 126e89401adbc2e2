/**
 * hostSchedules.ts - `npm run bench -- host-schedules`: what a host does with its sockets under control, 1,000 schedules of each:
 * datagrams, raw, packet and Unix sockets, netlink, poll and select; fragments and neighbours; devices, modules and sockets that go
 * while they are used. Nothing may be found and no schedule be cut.
 */
import { Command } from 'commander'
import { explore, type Finding } from '../src/explore/index.js'
import type { StrategyName } from '../src/explore/strategy.js'
import { type BenchHost, benchHost } from './lib/host.js'
import { positive } from './lib/positive.js'

interface Options {
  schedules: number
  seed: number
  only?: string[]
  json?: string
}

interface Part {
  name: string
  /** A module of test/model/kernel. */
  scenario: string
  args: unknown
  strategy: StrategyName
}

const part = (name: string, scenario: string, args: unknown, strategy: StrategyName = 'mix'): Part => ({
  name,
  scenario,
  args,
  strategy,
})
const MASQUERADE = '-A POSTROUTING -o eth2 -j MASQUERADE'
const PARTS: readonly Part[] = [
  part('udp', 'udp', { datagrams: 2, ticks: 2, client: 1 }),
  part('udp-close', 'udpclose', { datagrams: 8, rounds: 6, ticks: 2 }),
  part('filter', 'filter', { datagrams: 6, rounds: 4, ticks: 2 }),
  part('raw', 'raw', { looks: 12 }),
  part('packet', 'packet', { datagrams: 1, ticks: 2, hasty: false }),
  part('packet-hasty', 'packet', { datagrams: 1, ticks: 2, hasty: true }),
  part('unix', 'unix', { messages: 3 }),
  part('unix-connect', 'seqpacket', {}),
  part('netlink', 'netlink', { routes: 2, ticks: 2, second: 1 }),
  part('poll', 'poll', { call: 'poll', datagrams: 8, ticks: 1 }),
  part('select', 'poll', { call: 'select', datagrams: 8, ticks: 1 }),
  part('fragments', 'frag', { cpus: 2, datagrams: 2, twice: false }),
  part('fragments-twice', 'frag', { cpus: 2, datagrams: 1, twice: true }),
  part('ipsec-delete', 'xfrm', { frames: 3, what: 'delete', operator: 1, ticks: 2 }),
  part('ipsec-spi', 'xfrm_spi', {}),
  part('ipcomp-tunnel', 'xfrm_tunnel', { second: 'goes' }),
  part('masquerade', 'nat', { asked: [2, 3].map((host, port) => ({ host, port })), rules: MASQUERADE, ticks: 1 }),
  part('rules', 'rules', { frames: 4, operator: 1, ticks: 2 }),
  part('tcp-tracker-reset', 'tcp_tracker', { what: 'reset', ticks: 4 }),
  part('tcp-tracker-reopen', 'tcp_tracker', { what: 'reopen', ticks: 4 }),
  part('fifo-open', 'fifo', { end: 'reader', signals: 2, restart: false }),
  part('ipsec-replace', 'xfrm', { frames: 3, what: 'replace', operator: 1, ticks: 2 }),
  part('arp', 'arp', { cpus: 2, frames: 3, answers: 2 }),
  part('updown', 'updown', { frames: 3, datagrams: 2, operator: 0, ticks: 2 }),
  part('unregister', 'unregister', { datagrams: 20, operator: 1 }, 'random'),
  part('modules', 'modules', { frames: 3, rounds: 2, operator: 0, ticks: 2 }),
]

interface Row {
  name: string
  schedules: number
  /** Choosable steps of all of them. */
  steps: number
  longest: number
  /** Runs that were longer than they may be. */
  cut: number
  seconds: number
  findings: string[]
  outcomes: Record<string, number>
}

export interface HostSchedulesReport {
  schema: 'softnet.host-schedules/1'
  date: string
  host: BenchHost
  seed: number
  rows: Row[]
}

async function measure({ name, scenario, args, strategy }: Part, schedules: number, seed: number): Promise<Row> {
  const where = new URL(`../test/model/kernel/${scenario}.js`, import.meta.url)
  const kernel = {}
  const options = { schedules, seed, strategy, kernel, args, maxSteps: 80_000, hangSeconds: 120, spinLooks: 8 }
  const result = await explore(where, { ...options, throws: false, all: true })
  const findings = result.findings.map((f: Finding) => `${f.detector}: ${f.sentence} (${f.replay})`)
  const { steps, longest, cut, seconds, outcomes } = result
  return { name, schedules: result.schedules, steps, longest, cut, seconds, findings, outcomes }
}

/** hostSchedules - the campaign; `write` is given the report. @returns the exit code: 1 when something was found or cut */
export async function hostSchedules(
  argv: readonly string[],
  write: (prefix: string, file: string | undefined, report: HostSchedulesReport) => void,
): Promise<number> {
  const options = new Command('host-schedules')
    .description('sockets, fragments and neighbours under control')
    .option('--schedules <n>', 'of each', positive, 1000)
    .option('--seed <n>', 'seed', positive, 1)
    .option('--only <name...>', `only these (${PARTS.map(p => p.name).join(', ')})`)
    .option('--json <file>', 'write the results there instead of bench/results/')
    .exitOverride(e => process.exit(e.exitCode === 0 ? 0 : 2))
    .parse([...argv], { from: 'user' })
    .opts<Options>()
  const rows: Row[] = []
  for (const p of PARTS.filter(p => options.only?.includes(p.name) ?? true)) {
    const row = await measure(p, options.schedules, options.seed)
    rows.push(row)
    const [mean, rate] = [row.steps / row.schedules, row.schedules / row.seconds].map(n => n.toFixed(0))
    console.log(
      `${row.name}: ${row.schedules} schedules of ${mean} steps, ${rate} a second, ${row.cut} cut, ${row.findings.length} findings`,
    )
    for (const f of row.findings) console.log(`  ${f}`)
  }
  write('host-schedules-', options.json, {
    schema: 'softnet.host-schedules/1',
    date: new Date().toISOString(),
    host: benchHost(),
    seed: options.seed,
    rows,
  })
  return rows.some(r => r.findings.length > 0 || r.cut > 0) ? 1 : 0
}
