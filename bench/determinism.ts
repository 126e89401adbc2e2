/**
 * determinism.ts - `npm run bench -- determinism`: the same runs in virtual time again and again, in processes of their own,
 * in another order each time, two processes at once, on one or several versions of Node. All runs of a configuration must
 * give the same hash and the same JSON.
 */
import { spawn } from 'node:child_process'
import { availableParallelism, cpus } from 'node:os'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import { positive } from './lib/positive.js'
import { type RunRecord, sameRun, sameRunConfig } from './lib/sameRun.js'

interface Options {
  configs: number
  runs: number
  node: string[]
  nodeRuns: number
  json?: string
  round?: number
}

/** One run, as a process says it. */
interface Line {
  k: number
  hash: string
  digest: string
  forwarded: number
  handovers: number
  error?: string
}

/** What one process did. */
interface Round {
  node: string
  lines: Line[]
}

export interface DeterminismReport {
  schema: 'softnet.determinism/1'
  date: string
  host: { platform: string; arch: string; cpu: string; cores: number }
  seconds: number
  configurations: number
  runs: number
  /** Runs by version of Node. */
  nodes: Record<string, number>
  handovers: number
  differing: { name: string; digests: Record<string, number> }[]
  failed: { name: string; error: string }[]
  results: { name: string; hash: string; digest: string; forwarded: number }[]
}

function parse(args: readonly string[]): Options {
  return new Command('determinism')
    .description('the same runs in virtual time, again and again: do they differ?')
    .option('--configs <n>', 'configurations', positive, 100)
    .option('--runs <n>', 'runs of each on this Node', positive, 10)
    .option('--node <binary...>', 'other Node binaries to run them on as well', [])
    .option('--node-runs <n>', 'runs of each on each of those', positive, 2)
    .option('--json <file>', 'write the results there instead of bench/results/')
    .option('--round <n>', 'what one process of the campaign does', Number)
    .configureOutput({ outputError: (text, write) => write(text) })
    .exitOverride(e => process.exit(e.exitCode === 0 ? 0 : 2))
    .parse(args, { from: 'user' })
    .opts<Options>()
}

/** The numbers below `n` in an order of their own for each round: a step that shares no divisor with `n`. */
function orderOf(n: number, round: number): number[] {
  const divides = (a: number, b: number): number => (b === 0 ? a : divides(b, a % b))
  let step = 1 + ((round * 37) % n)
  while (divides(step, n) !== 1) step++
  return Array.from({ length: n }, (_, k) => (k * step + round) % n)
}

/** One process: every configuration once, a line of JSON for each. */
async function playRound(round: number, configs: number): Promise<void> {
  for (const k of orderOf(configs, round)) {
    let line: Line
    try {
      const { hash, digest, forwarded, handovers }: RunRecord = await sameRun(sameRunConfig(k))
      line = { k, hash, digest, forwarded, handovers }
    } catch (e) {
      line = { k, hash: '', digest: '', forwarded: 0, handovers: 0, error: e instanceof Error ? e.message : String(e) }
    }
    process.stdout.write(`${JSON.stringify(line)}\n`)
  }
}

function versionOf(binary: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(binary, ['--version'], { stdio: ['ignore', 'pipe', 'inherit'] })
    let text = ''
    child.stdout.on('data', chunk => (text += String(chunk)))
    child.on('error', () => reject(new Error(`--node ${binary}: cannot be started`)))
    child.on('close', code =>
      code === 0 ? resolve(text.trim()) : reject(new Error(`--node ${binary}: leaves with ${code}`)),
    )
  })
}

function startRound(binary: string, node: string, round: number, configs: number, done: () => void): Promise<Round> {
  return new Promise((resolve, reject) => {
    const script = fileURLToPath(import.meta.url)
    const args = [script, '--round', String(round), '--configs', String(configs)]
    const child = spawn(binary, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    const lines: Line[] = []
    let rest = ''
    child.stdout.on('data', chunk => {
      const parts = (rest + String(chunk)).split('\n')
      rest = parts.pop()!
      for (const text of parts) {
        lines.push(JSON.parse(text) as Line)
        done()
      }
    })
    child.on('error', reject)
    child.on('close', code => {
      if (code === 0 && lines.length === configs) resolve({ node, lines })
      else reject(new Error(`round ${round} on ${node} left with ${code} after ${lines.length} of ${configs} runs`))
    })
  })
}

function report(rounds: readonly Round[], configs: number, seconds: number): DeterminismReport {
  const differing: DeterminismReport['differing'] = []
  const failed: DeterminismReport['failed'] = []
  const results: DeterminismReport['results'] = []
  const nodes: Record<string, number> = {}
  let handovers = 0
  for (const { node, lines } of rounds) {
    nodes[node] = (nodes[node] ?? 0) + lines.length
    for (const line of lines) handovers += line.handovers
  }
  for (let k = 0; k < configs; k++) {
    const { name } = sameRunConfig(k)
    const digests: Record<string, number> = {}
    const mine = rounds.flatMap(r => r.lines.filter(l => l.k === k))
    for (const l of mine) {
      if (l.error !== undefined) failed.push({ name, error: l.error })
      else digests[`${l.hash} ${l.digest}`] = (digests[`${l.hash} ${l.digest}`] ?? 0) + 1
    }
    if (Object.keys(digests).length > 1) differing.push({ name, digests })
    const { hash, digest, forwarded } = mine[0]!
    results.push({ name, hash, digest, forwarded })
  }
  return {
    schema: 'softnet.determinism/1',
    date: new Date().toISOString(),
    host: {
      platform: process.platform,
      arch: process.arch,
      cpu: cpus()[0]?.model ?? 'unknown',
      cores: availableParallelism(),
    },
    seconds: Math.round(seconds),
    configurations: configs,
    runs: rounds.reduce((n, r) => n + r.lines.length, 0),
    nodes,
    handovers,
    differing,
    failed,
    results,
  }
}

/** determinism - the campaign; `keep` writes the report. @returns the exit code */
export async function determinism(
  args: readonly string[],
  keep: (name: string, file: string | undefined, report: unknown) => void,
): Promise<number> {
  const options = parse(args)
  const { configs } = options
  if (options.round !== undefined) {
    await playRound(options.round, configs)
    return 0
  }
  const jobs: { binary: string; node: string; round: number }[] = []
  for (let round = 0; round < options.runs; round++)
    jobs.push({ binary: process.execPath, node: process.version, round })
  for (const binary of options.node) {
    const node = await versionOf(binary)
    for (let k = 0; k < options.nodeRuns; k++) jobs.push({ binary, node, round: jobs.length })
  }
  const from = performance.now()
  const all = jobs.length * configs
  let runs = 0
  const done = (): void => {
    if (++runs % configs === 0) process.stderr.write(`${runs} of ${all} runs\n`)
  }
  const rounds: Round[] = []
  const worker = async (): Promise<void> => {
    for (let job = jobs.shift(); job !== undefined; job = jobs.shift())
      rounds.push(await startRound(job.binary, job.node, job.round, configs, done))
  }
  await Promise.all([worker(), worker()])
  const result = report(rounds, configs, (performance.now() - from) / 1000)
  for (const d of result.differing) console.error(`differs: ${d.name}: ${JSON.stringify(d.digests)}`)
  for (const f of result.failed) console.error(`failed: ${f.name}: ${f.error}`)
  const versions = Object.entries(result.nodes).map(([node, n]) => `${n} on ${node}`)
  console.log(
    `${result.runs} runs of ${configs} configurations (${versions.join(', ')}) in ${result.seconds} s: ` +
      `${result.differing.length} differ, ${result.failed.length} failed`,
  )
  keep('determinism-', options.json, result)
  return result.differing.length + result.failed.length === 0 ? 0 : 1
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  process.exitCode = await determinism(process.argv.slice(2), () => {})
