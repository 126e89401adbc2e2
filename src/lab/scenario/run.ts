/** run.ts - a scenario from power-on to its end: machines, lines, programs, what they say and how they end. */
import { link_next, link_publish, link_set } from '../../hw/link.js'
import { MachinePanic, RunError, SetupError } from '../errors.js'
import { Machine } from '../machine.js'
import { writeCapture } from '../pcap.js'
import type { CostProfile } from '../profile.js'
import { takeSample } from '../sample.js'
import { openTap, type Tap } from '../tapDevice.js'
import { type Built, buildScenario, type Line, misfitOf } from './build.js'
import { argvOf, DEFAULT_DURATION, type ScenarioSpec } from './schema.js'

export interface ProgramResult {
  host: string
  argv: string[]
  /** null: it was still running. */
  exit: number | null
  /** As was expected; of one in the background, that it had not failed. */
  ok: boolean
  output: string
}
export interface HostResult {
  name: string
  received: number
  forwarded: number
  delivered: number
  dropped: Record<string, number>
  leaks: { name: string; used: number; total: number }[]
}
export interface ScenarioResult {
  schema: 'softnet.scenario/1'
  name: string
  clock: NonNullable<ScenarioSpec['clock']>
  /** Of the machines' time. */
  seconds: number
  programs: ProgramResult[]
  hosts: HostResult[]
  /** In virtual time: of all that happened, the same in each run. */
  hash?: string
}

export interface ScenarioHooks {
  signal?: AbortSignal
  /** A line of a program, as it comes. */
  line?: (host: string, text: string) => void
  progress?: (seconds: number) => void
  capture?: (file: string, bytes: Uint8Array) => void
  /** A file that a program of a host wrote, whole, at the end. */
  file?: (host: string, name: string, bytes: Uint8Array) => void
}

/** How often the host looks at consoles with a real clock, ms; and in virtual time, ms of that. */
const LOOK_MS = 20
/** Of virtual time, ns: so much as a line has memory for, however much is sent. */
const LONGEST_STEP = 1e6

interface Host {
  name: string
  machine: Machine
  programs: { argv: string[]; expect: number; background: boolean; output: string; unfinished: string }[]
}

class Run {
  private readonly hosts: Host[]
  private readonly events: { at: number; line: Line; up: boolean }[]
  private start = 0

  constructor(
    private readonly spec: ScenarioSpec,
    private readonly built: Built,
    private readonly virtual: boolean,
    private readonly hooks: ScenarioHooks,
  ) {
    this.hosts = built.hosts.map(({ name, config, spec: host }) => ({
      name,
      machine: new Machine(config),
      programs: (host.programs ?? []).map(p => ({
        argv: argvOf(p),
        expect: p.expect ?? 0,
        background: p.background === true,
        output: '',
        unfinished: '',
      })),
    }))
    this.events = (spec.events ?? [])
      .map(e => ({ at: e.at, line: built.lines.find(l => l.name === e.link)!, up: e.state === 'up' }))
      .sort((a, b) => a.at - b.at)
  }

  /** All machines come up; in virtual time they then stand at the same moment. */
  async boot(): Promise<void> {
    await Promise.all(
      this.hosts.map(({ name, machine }) =>
        machine.powerOn().catch((error: unknown) => {
          throw error instanceof SetupError ? misfitOf(name, this.spec.hosts[name]!, error) : error
        }),
      ),
    )
    const latest = Math.max(...this.hosts.map(h => h.machine.nowMs))
    if (this.virtual) await Promise.all(this.hosts.map(h => this.until(h, latest * 1e6)))
    this.start = latest * 1e6
  }

  private get now(): number {
    return this.hosts[0]!.machine.nowMs * 1e6
  }
  private async until(h: Host, ns: number): Promise<void> {
    const ahead = ns - h.machine.nowMs * 1e6
    if (ahead > 0) await h.machine.pass(ahead / 1e6)
  }

  /** What programs have said since the last look. */
  private listen(): void {
    for (const h of this.hosts) {
      for (const { process, text } of h.machine.console()) {
        const p = h.programs[process]!
        p.output += text
        const lines = (p.unfinished + text).split('\n')
        p.unfinished = lines.pop()!
        for (const line of lines) this.hooks.line?.(h.name, line)
      }
    }
  }

  /** Have all programs ended that are to end? */
  private get done(): boolean {
    return this.hosts.every(h => {
      const codes = h.machine.exitCodes()
      return h.programs.every((p, k) => p.background || codes[k] !== null)
    })
  }

  private fire(): void {
    while (this.events.length > 0 && this.events[0]!.at <= this.now - this.start) {
      const { line, up } = this.events.shift()!
      link_set(line.memory, up)
    }
  }

  /** Until all is done, or the time is up. */
  async live(): Promise<void> {
    const end = this.start + (this.spec.duration ?? DEFAULT_DURATION)
    let look = 0
    while (this.now < end) {
      this.hooks.signal?.throwIfAborted()
      for (const h of this.hosts) h.machine.check()
      this.fire()
      if (this.now >= look) {
        this.listen()
        this.hooks.progress?.((this.now - this.start) / 1e9)
        if (this.done) return
        look = this.now + LOOK_MS * 1e6
      }
      const until = Math.min(end, look, this.events[0] === undefined ? end : this.start + this.events[0].at)
      if (this.virtual) await this.step(until)
      else await this.hosts[0]!.machine.pass(Math.max(0, until - this.now) / 1e6)
    }
  }

  /**
   * All machines go on together, for as long as what one does now cannot reach another: from the next thing that happens
   * anywhere, the time that the fastest line takes.
   */
  private async step(limit: number): Promise<void> {
    let next = Number.POSITIVE_INFINITY
    for (const { memory, ends } of this.built.lines) {
      link_publish(memory, ends.length)
      next = Math.min(next, link_next(memory, ends.length))
    }
    for (const h of this.hosts) next = Math.min(next, h.machine.nextEventNs)
    const reach = Math.min(LONGEST_STEP, ...this.built.lines.map(l => l.model.delay))
    const until = Math.min(limit, Math.max(this.now, next) + reach)
    await Promise.all(this.hosts.map(h => this.until(h, until)))
  }

  async end(): Promise<ScenarioResult> {
    this.listen()
    for (const h of this.hosts)
      for (const p of h.programs) if (p.unfinished !== '') this.hooks.line?.(h.name, p.unfinished)
    const seconds = (this.now - this.start) / 1e9
    const turns = this.hosts.map(h => h.machine.turns?.hash ?? 0)
    const codes = this.hosts.map(h => h.machine.exitCodes())
    await Promise.all(this.hosts.map(h => h.machine.halt()))
    const hosts: HostResult[] = []
    for (const h of this.hosts) hosts.push(await this.account(h))
    const programs = this.hosts.flatMap((h, n) =>
      h.programs.map(({ argv, expect, background, output }, k): ProgramResult => {
        const exit = codes[n]![k] ?? null
        return { host: h.name, argv, exit, ok: exit === null ? background : exit === expect, output }
      }),
    )
    return {
      schema: 'softnet.scenario/1',
      name: this.spec.name ?? '',
      clock: this.spec.clock ?? 'virtual',
      seconds,
      programs,
      hosts,
      ...(this.virtual ? { hash: turns.map(t => t.toString(16).padStart(8, '0')).join('') } : {}),
    }
  }

  private async account(h: Host): Promise<HostResult> {
    const { machine, name } = h
    const captured = await machine.captures()
    for (const c of this.built.captures) {
      const frames = c.host === name ? captured[c.port] : null
      if (frames) writeCapture(bytes => this.hooks.capture?.(c.file, bytes), frames)
    }
    for (const f of machine.files()) this.hooks.file?.(name, f.name, f.bytes)
    const report = machine.config.lockdep === true ? machine.ram.lockdepReport() : ''
    if (report !== '') throw new MachinePanic(`host ${name}: lockdep: ${report}`)
    const leaks = await machine.audit()
    const { fates } = takeSample(machine)
    const dropped = Object.fromEntries(Object.entries(fates.drops).filter(([, n]) => n > 0))
    const sum = Object.values(dropped).reduce((a, b) => a + b, 0)
    if (fates.received !== fates.forwarded + fates.delivered + sum)
      throw new RunError(
        `host ${name}: packets are not conserved: received ${fates.received} is not forwarded ${fates.forwarded} + delivered ${fates.delivered} + dropped ${sum}`,
      )
    return { name, received: fates.received, forwarded: fates.forwarded, delivered: fates.delivered, dropped, leaks }
  }

  async destroy(): Promise<void> {
    await Promise.all(this.hosts.map(h => h.machine.destroy()))
  }
}

/** runScenario - all of it. `profile`: costs in virtual time, null: a real clock. */
export async function runScenario(
  spec: ScenarioSpec,
  profile: CostProfile | null,
  hooks: ScenarioHooks = {},
): Promise<ScenarioResult> {
  const taps: Tap[] = []
  let run: Run | null = null
  try {
    for (const h of Object.values(spec.hosts))
      for (const i of Object.values(h.interfaces)) if (i.tap !== undefined) taps.push(await openTap(i.tap))
    const built = buildScenario(spec, profile, new Map(taps.map(t => [t.name, t.fd])))
    run = new Run(spec, built, profile !== null, hooks)
    await run.boot()
    await run.live()
    return await run.end()
  } finally {
    await run?.destroy()
    for (const tap of taps) tap.close()
  }
}
