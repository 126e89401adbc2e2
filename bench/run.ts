/**
 * run.ts - `npm run bench`: every measure of the table of numbers to reach, beside its rival, in one run.
 *
 * What cannot be had here (no compiler, no rights, no liburcu, too few cores) is left out and said so. The results are
 * kept as bench/results/HOST-NODE-DATE.json.
 */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus, release, totalmem } from 'node:os'
import { dirname, join } from 'node:path'
import { performance } from 'node:perf_hooks'
import Table from 'cli-table3'
import { Command, InvalidArgumentError } from 'commander'
import { determinism } from './determinism.js'
import { exploration } from './exploration.js'
import { hostSchedules } from './hostSchedules.js'
import { LeftOut, packageRoot } from './lib/comparator.js'
import { type Measure, type MeasureRow, makeContext, reached } from './lib/measure.js'
import { MEASURES } from './macro/index.js'

interface Options {
  only?: string[]
  json?: string
  seed: number
  list?: boolean
}
interface LeftOutNote {
  name: string
  why: string
}

function integer(text: string): number {
  const n = Number(text)
  if (!Number.isSafeInteger(n) || n < 0) throw new InvalidArgumentError('not a whole number.')
  return n
}

function parse(): Options {
  const command = new Command('bench')
    .description(
      'measures the kernel beside its rivals; first word `determinism`: do runs in virtual time differ? `exploration` and `host-schedules`: does the kernel bear every order of its steps?',
    )
    .option('--only <name...>', `only these measures (${MEASURES.map(m => m.name).join(', ')})`)
    .option('--json <file>', 'write the results there instead of bench/results/')
    .option('--seed <n>', 'seed of traffic and tables', integer, 1)
    .option('--list', 'name the measures and leave')
    .configureOutput({ outputError: (text, write) => write(text) })
    .exitOverride(e => process.exit(e.exitCode === 0 ? 0 : 2))
  return command.parse().opts<Options>()
}

function select(only: string[] | undefined): Measure[] {
  if (only === undefined) return [...MEASURES]
  for (const name of only)
    if (!MEASURES.some(m => m.name === name)) {
      console.error(`error: no measure is called '${name}'; there are ${MEASURES.map(m => m.name).join(', ')}`)
      process.exit(2)
    }
  return MEASURES.filter(m => only.includes(m.name))
}

/** figure - three digits that matter, thousands as k and M. */
export function figure(n: number | null): string {
  if (n === null) return '-'
  if (n === 0) return '0'
  if (Math.abs(n) >= 1e6) return `${(n / 1e6).toPrecision(3)} M`
  if (Math.abs(n) >= 1e4) return `${(n / 1e3).toPrecision(3)} k`
  return Math.abs(n) >= 1000 ? n.toFixed(0) : String(Number(n.toPrecision(3)))
}

function bar(r: MeasureRow, value: number | null): string {
  if (value === null) return ''
  const sign = r.better === 'more' ? '>=' : '<='
  const ok = reached(r, value)
  return `${sign} ${figure(value)}${r.rivalName === '' ? '' : ' x'}${ok === null ? '' : ok ? ' yes' : ' NO'}`
}

function print(rows: readonly MeasureRow[], leftOut: readonly LeftOutNote[]): void {
  const table = new Table({
    head: ['measure', 'unit', 'softnet', 'rival', 'ratio', 'at least', 'aim'],
    colAligns: ['left', 'left', 'right', 'right', 'right', 'left', 'left'],
    style: process.stdout.isTTY ? {} : { head: [], border: [] },
  })
  const others = rows.filter(r => r.atLeast === null && r.aim === null)
  for (const r of rows) {
    if (others.includes(r)) continue
    const rival = r.rivalName === '' ? '' : `${r.rivalName} ${figure(r.rival)}`
    const ratio = r.ratio === null ? '' : figure(r.ratio)
    table.push([r.measure, r.unit, figure(r.softnet), rival, ratio, bar(r, r.atLeast), bar(r, r.aim)])
  }
  if (rows.length > others.length) console.log(table.toString())
  for (const r of others) {
    const value = r.softnet ?? r.rival
    if (value === null) continue // its note says why
    const rival = r.ratio === null ? '' : `  (${r.rivalName} ${figure(r.rival)}, ${figure(r.ratio)} x)`
    console.log(`  ${r.measure.padEnd(56)} ${figure(value).padStart(8)} ${r.unit}${rival}`)
  }
  for (const r of rows) if (r.note !== undefined) console.log(`  ${r.measure}: ${r.note}`)
  for (const l of leftOut) console.log(`  left out: ${l.name}: ${l.why}`)
}

function host(): Record<string, unknown> {
  return {
    platform: process.platform,
    arch: process.arch,
    release: release(),
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memory_mib: Math.round(totalmem() / 2 ** 20),
    node: process.version,
    v8: process.versions.v8,
  }
}

/** Processors differ by a factor of two in their atomic operations, so a result is named after its own. */
function resultFile(prefix: string): string {
  const date = new Date().toISOString().slice(0, 10)
  const model = (cpus()[0]?.model ?? 'unknown').replace(/\(R\)|\(TM\)|processor|CPU/gi, '').trim()
  const slug = model
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '')
  const kind = `${process.platform}-${process.arch}-${slug}-${availableParallelism()}core`
  return join(packageRoot(), 'bench', 'results', `${prefix}${kind}-${process.version}-${date}.json`)
}

function keep(file: string, report: unknown): void {
  mkdirSync(dirname(file), { recursive: true })
  const tmp = `${file}.${process.pid}.tmp`
  writeFileSync(tmp, `${JSON.stringify(report, null, 2)}\n`)
  renameSync(tmp, file)
  console.log(`results: ${file}`)
}

async function main(): Promise<void> {
  const options = parse()
  if (options.list === true) {
    for (const m of MEASURES) console.log(m.name)
    return
  }
  const measures = select(options.only)
  const context = makeContext(options.seed, availableParallelism())
  const rows: MeasureRow[] = []
  const leftOut: LeftOutNote[] = []
  const failed: LeftOutNote[] = []
  for (const [n, m] of measures.entries()) {
    const from = performance.now()
    process.stderr.write(`[${n + 1}/${measures.length}] ${m.name} ...`)
    try {
      rows.push(...(await m.run(context)))
    } catch (e) {
      if (e instanceof LeftOut) leftOut.push({ name: m.name, why: e.message })
      else failed.push({ name: m.name, why: e instanceof Error ? (e.stack ?? e.message) : String(e) })
    }
    process.stderr.write(` ${((performance.now() - from) / 1000).toFixed(1)} s\n`)
  }
  print(rows, leftOut)
  for (const f of failed) console.error(`  failed: ${f.name}: ${f.why}`)
  keep(options.json ?? resultFile(''), {
    schema: 'softnet.bench/1',
    date: new Date().toISOString(),
    host: host(),
    seed: options.seed,
    rows,
    leftOut,
  })
  if (rows.some(r => reached(r, r.atLeast) === false)) process.exitCode = 1
}

/** What the first word may be instead of a measure. */
const CAMPAIGNS: Record<string, typeof determinism | undefined> = {
  determinism,
  exploration,
  'host-schedules': hostSchedules,
}

try {
  const write = (prefix: string, file: string | undefined, report: unknown): void =>
    keep(file ?? resultFile(prefix), report)
  const campaign = CAMPAIGNS[process.argv[2] ?? '']
  if (campaign === undefined) await main()
  else process.exitCode = await campaign(process.argv.slice(3), write)
} catch (e) {
  console.error(`error: ${e instanceof Error ? (process.env['DEBUG'] ? e.stack : e.message) : String(e)}`)
  process.exit(1)
}
