/**
 * veth.ts - the host kernel as a router: what one forwarded 64-byte packet costs it between veth pairs.
 *
 *   source namespace  s0 --- r0  router namespace, 10,000 routes  r1 --- d0  sink namespace
 *
 * The sink's neighbour entry carries an address that is not the sink's, so the sink drops a frame in the first lines
 * of ip_rcv. With two cores the flooder runs on the first and receive packet steering hands its frames to the second,
 * which then does nothing but forward. With one core the flooder shares it, and only the time in softirq counts.
 * The namespaces carry the process id in their name and are removed on every way out.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildComparator, LeftOut, runJson } from '../lib/comparator.js'
import { dotted, makeDestinations, makeRoutes } from '../lib/routes.js'

export interface VethPoint {
  destinations: number
  routes: number
  layout: 'own core' | 'shared core'
  sent: number
  forwarded: number
  forwarded_pps: number
  /** softirq time of the forwarding core per forwarded packet */
  softirq_us: number
  /** time of one core per forwarded packet: what the rate says when the core does nothing else, else the softirq time */
  core_us: number
}

const PREFIX = 'softnet-bench'
const MAC = {
  s0: '02:00:00:00:00:01',
  r0: '02:00:00:00:00:02',
  r1: '02:00:00:00:00:03',
  elsewhere: '02:00:00:00:00:99',
}

function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

function shIn(ns: string, script: string): string {
  return ip('netns', 'exec', ns, 'sh', '-c', script)
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (e) {
    return (e as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** sweep - removes the namespaces of this process and those of runs that were killed. */
function sweep(): void {
  let list: string
  try {
    list = ip('netns', 'list')
  } catch {
    return
  }
  for (const line of list.split('\n')) {
    const name = line.split(' ')[0]
    const m = /^softnet-bench-(\d+)-[srd]$/.exec(name)
    if (m === null || (Number(m[1]) !== process.pid && alive(Number(m[1])))) continue
    try {
      ip('netns', 'del', name)
    } catch {
      // another run has just swept it
    }
  }
}

interface CpuTime {
  user: number
  system: number
  irq: number
  softirq: number
}

/** cpuTime - accounted seconds of one core of the host (a tick of 10 ms each). */
function cpuTime(cpu: number): CpuTime {
  const line = readFileSync('/proc/stat', 'utf8')
    .split('\n')
    .find(l => l.startsWith(`cpu${cpu} `))
  const f = (line ?? '').split(/\s+/).map(Number)
  return { user: (f[1] + f[2]) / 100, system: f[3] / 100, irq: f[6] / 100, softirq: f[7] / 100 }
}

class Bench implements Disposable {
  readonly s = `${PREFIX}-${process.pid}-s`
  readonly r = `${PREFIX}-${process.pid}-r`
  readonly d = `${PREFIX}-${process.pid}-d`
  private readonly dir = mkdtempSync(join(tmpdir(), 'softnet-veth-'))
  private readonly abort = new AbortController()
  private readonly onSignal = (signal: NodeJS.Signals): void => {
    this[Symbol.dispose]()
    process.kill(process.pid, signal)
  }
  private readonly onExit = (): void => this[Symbol.dispose]()

  constructor(
    readonly routes: number,
    readonly core: number,
    readonly seed: number,
  ) {
    for (const s of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(s, this.onSignal)
    process.once('exit', this.onExit)
    try {
      this.build()
    } catch (e) {
      this[Symbol.dispose]()
      const text = String((e as { stderr?: string }).stderr || (e as Error).message)
      throw new LeftOut(`network namespaces cannot be set up: ${text.split('\n')[0]}`)
    }
  }

  private build(): void {
    const { s, r, d } = this
    for (const ns of [s, r, d]) ip('netns', 'add', ns)
    ip('link', 'add', 's0', 'address', MAC.s0, 'netns', s, 'type', 'veth', 'peer', 'r0', 'address', MAC.r0, 'netns', r)
    ip('link', 'add', 'r1', 'address', MAC.r1, 'netns', r, 'type', 'veth', 'peer', 'd0', 'netns', d)
    for (const ns of [s, r, d]) shIn(ns, 'echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 2>/dev/null || true')
    const up: [string, string, string][] = [
      [s, 's0', '198.18.0.2/24'],
      [r, 'r0', '198.18.0.1/24'],
      [r, 'r1', '198.19.0.1/24'],
      [d, 'd0', '198.19.0.2/24'],
    ]
    for (const [ns, dev, address] of up) {
      ip('-n', ns, 'address', 'add', address, 'dev', dev)
      ip('-n', ns, 'link', 'set', dev, 'up')
    }
    ip('-n', r, 'neigh', 'replace', '198.19.0.2', 'lladdr', MAC.elsewhere, 'dev', 'r1', 'nud', 'permanent')
    ip('-n', r, 'neigh', 'replace', '198.18.0.2', 'lladdr', MAC.s0, 'dev', 'r0', 'nud', 'permanent')
    shIn(
      r,
      'echo 1 > /proc/sys/net/ipv4/ip_forward; for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done',
    )
    const batch = join(this.dir, 'routes')
    const lines = makeRoutes(this.routes, this.seed).map(
      t => `route add ${dotted(t.prefix)}/${t.len} via 198.19.0.2 dev r1\n`,
    )
    writeFileSync(batch, lines.join(''))
    ip('-n', r, '-batch', batch)
  }

  private steer(cpu: number): void {
    const mask = cpu < 0 ? '0' : (2 ** cpu).toString(16)
    shIn(this.r, `echo ${mask} > /sys/class/net/r0/queues/rx-0/rps_cpus`)
  }

  private arrived(): number {
    return Number(shIn(this.d, 'cat /sys/class/net/d0/statistics/rx_packets'))
  }

  async point(flood: string, destinations: number, own: boolean, seconds: number): Promise<VethPoint> {
    const file = join(this.dir, `dests-${destinations}`)
    const dests = makeDestinations(destinations, makeRoutes(this.routes, this.seed), this.seed + 1)
    writeFileSync(file, dests.map(a => `${dotted(a)}\n`).join(''))
    this.steer(own ? this.core : -1)
    const cpu = own ? this.core : 0
    const args = (s: number) => ['netns', 'exec', this.s, flood, 's0', MAC.r0, '198.18.0.2', file, String(s), '0']
    await runJson('ip', args(0.2), this.abort.signal)
    const [before, packets] = [cpuTime(cpu), this.arrived()]
    const f = await runJson<{ sent: number; seconds: number }>('ip', args(seconds), this.abort.signal)
    const [after, forwarded] = [cpuTime(cpu), this.arrived() - packets]
    if (forwarded <= 0) throw new LeftOut('the host kernel forwarded nothing (a firewall between namespaces?)')
    const softirq_us = ((after.softirq - before.softirq) / forwarded) * 1e6
    const rate = forwarded / f.seconds
    // an own core that was busy all the time has spent 1/rate on each packet; one that had idle time spent less
    const core_us = own && softirq_us > 0.9e6 / rate ? 1e6 / rate : softirq_us
    return {
      destinations,
      routes: this.routes,
      layout: own ? 'own core' : 'shared core',
      sent: f.sent,
      forwarded,
      forwarded_pps: Math.round(rate),
      softirq_us,
      core_us,
    }
  }

  [Symbol.dispose](): void {
    this.abort.abort()
    for (const s of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(s, this.onSignal)
    process.off('exit', this.onExit)
    sweep()
    rmSync(this.dir, { recursive: true, force: true })
  }
}

function check(): void {
  if (process.platform !== 'linux') throw new LeftOut('the host is not Linux')
  if (process.getuid?.() !== 0) throw new LeftOut('needs root for network namespaces')
  try {
    ip('-V')
  } catch {
    throw new LeftOut('needs the ip program (iproute2)')
  }
}

/** measureVeth - forwarding cost of the host kernel, one point per number of destinations, each the better of two runs
 *  (noise of a shared host only makes a rival slower). Throws LeftOut with the reason when it cannot be had here. */
export async function measureVeth(
  destinations: readonly number[] = [1, 4096],
  seconds = 1,
  seed = 1,
): Promise<VethPoint[]> {
  check()
  const flood = buildComparator('flood')
  sweep()
  const two = availableParallelism() > 1
  const points: VethPoint[] = []
  const bench = new Bench(10_000, two ? 1 : 0, seed)
  try {
    for (const n of destinations) {
      const runs = [await bench.point(flood, n, two, seconds), await bench.point(flood, n, two, seconds)]
      points.push(runs[0].core_us <= runs[1].core_us ? runs[0] : runs[1])
    }
    if (two) points.push(await bench.point(flood, destinations[0], false, seconds))
  } finally {
    bench[Symbol.dispose]()
  }
  return points
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    for (const p of await measureVeth()) console.log(JSON.stringify(p))
  } catch (e) {
    if (!(e instanceof LeftOut)) throw e
    console.log(JSON.stringify({ leftOut: e.message }))
  }
}
