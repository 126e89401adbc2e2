/**
 * machine.ts - a machine in the hands of the host: power, set-up, counters, halt.
 *
 * One Piscina pool holds the threads: a CPU each, and the board. While the machine is off or halted, each answers through
 * Comlink on a port of its own. While it runs, the host only reads RAM and writes control words.
 */

import { performance } from 'node:perf_hooks'
import { MessageChannel, type MessagePort } from 'node:worker_threads'
import * as Comlink from 'comlink'
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs'
import { Piscina } from 'piscina'
import type { BoardService } from '../../workers/boardService.js'
import type { CpuExit, CpuService, LeakReport } from '../../workers/cpu.js'
import type { BoardConfig, CapturedFrames } from '../hw/types.js'
import type { RouterSetup } from '../init/setup.js'
import type { SystemMap } from '../init/system_map.js'
import { HISTOGRAM_SLOTS } from '../lib/histogram.js'
import { table_blob } from '../lib/iptables.js'
import { tuneCompiler } from './compiler.js'
import { hostCores } from './config.js'
import { ConsoleReader, type ConsoleRecord, type HostFile } from './consoleReader.js'
import { ringDoorbell } from './doorbellHost.js'
import { MachinePanic, RunError, setupError } from './errors.js'
import { linked, linkedWorker } from './image.js'
import { saveIptables } from './iptables/save.js'
import { LOCK_NUMBER, type MachineConfig, playWindow, portSetup, ramMiB, writeConfig } from './machineConfig.js'
import { obituary } from './obituary.js'
import { costTable } from './profile.js'
import { RamReader } from './ramReader.js'
import { TurnstileHost } from './turnstileHost.js'
import type { SourceRequest } from './types.js'

const PAGE = 65536
const OFF = 0
const BOOTING = 1
const RUNNING = 2
const HALTING = 3
const PANIC = 4
/** How long CPUs may take to leave the kernel by themselves, ms. */
const HALT_MS = 2000
/** And how long after the plug was pulled, before their threads are ended from outside. */
const PLUG_MS = 3000
/** A machine in virtual time that has not booted by then, ms, never will: its profile leaves it no time between two ticks. */
const BOOT_MS = 20_000
/** Cycles that a CPU may be ahead: less than an interrupt takes. */
const SLACK = 1000
/** Cycles that the board may be behind the CPUs: less than an interrupt takes, and about what a bus and its bridges take. */
const BOARD_LAG = 2000
/** Tries of a thread that waits for its turn, where the host has a core for each. */
const TURN_SPIN = 20_000

/** How often the host takes out what programs wrote, ms. */
const PROCESS_LOOK_MS = 2

export type { MachineConfig, MachinePort } from './machineConfig.js'

import { sleep } from './sleep.js'

export { sleep } from './sleep.js'

type Remote<T> = Comlink.Remote<T>

/** The bytes of a machine that stood still. */
export interface Snapshot {
  bytes: Uint8Array
  /** Fingerprint of the kernel that they belong to. */
  hash: number
}

/** A machine. Power it on once; after the halt its RAM can still be read. */
export class Machine {
  readonly memory: WebAssembly.Memory
  readonly histograms: SharedArrayBuffer
  private pool: Piscina | null = null
  private ports: MessagePort[] = []
  private cpus: Remote<CpuService>[] = []
  private board: Remote<BoardService> | null = null
  private tasks: Promise<unknown>[] = []
  private exits: Promise<unknown>[] = []
  private died: Error | null = null
  private reader: RamReader | null = null
  private turnstile: TurnstileHost | null = null
  private readConsole: ConsoleReader | null = null
  /** CPUs that are in the kernel. */
  private readonly inside = new Set<number>()

  constructor(readonly config: MachineConfig) {
    const pages = ramMiB(config) * 16
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true })
    this.histograms = new SharedArrayBuffer(Math.max(1, config.ports.length) * HISTOGRAM_SLOTS * 4)
    if (this.memory.buffer.byteLength !== pages * PAGE) throw new RunError('no memory for the machine')
  }

  /** What lies where, and how to read it. */
  get ram(): RamReader {
    if (this.reader === null) throw new Error('the machine was never loaded')
    return this.reader
  }

  private get power(): number {
    return Atomics.load(this.ram.i32, this.ram.map.boot.power >> 2)
  }

  // ---- power on -----------------------------------------------------------------------------------------------------

  /** `cpu`: -1 for the board. In virtual time the thread of CPU 0 runs the board, too. */
  private start(cpu: number, task: object): void {
    const name = cpu < 0 ? 'nic' : 'cpu'
    const { port1, port2 } = new MessageChannel()
    const board = new MessageChannel()
    this.ports.push(port1, board.port1)
    const both = cpu === 0 && this.virtual
    const running = this.pool!.run(
      { ...task, cpu, port: port2, ...(both ? { boardPort: board.port2 } : {}) },
      { filename: linkedWorker(name), transferList: both ? [port2, board.port2] : [port2] },
    )
    if (!both) board.port2.close()
    this.tasks.push(running.catch((error: unknown) => this.threadDied(cpu, error)))
    if (cpu >= 0) this.cpus.push(Comlink.wrap<CpuService>(nodeEndpoint(port1)))
    if (cpu < 0 || both) this.board = Comlink.wrap<BoardService>(nodeEndpoint(cpu < 0 ? port1 : board.port1))
  }

  /** A thread ended by itself or threw where it must not: what RAM still says of it is the dump. */
  private threadDied(cpu: number, error: unknown): void {
    if (this.died === null && this.pool !== null) {
      const why = error instanceof Error ? error.message : String(error)
      const dump = cpu < 0 || this.reader === null ? '' : obituary(this.reader, cpu)
      this.died =
        cpu < 0
          ? new RunError(`the thread of the board died: ${why}`)
          : new MachinePanic(`thread of CPU ${cpu} died: ${why}${dump}`)
    }
    this.pullPlug()
  }

  /** Is time virtual here? */
  get virtual(): boolean {
    return this.config.profile !== undefined
  }

  /** Rejects when a thread died, so that nobody waits for an answer that cannot come. */
  private async alive<T>(what: Promise<T>): Promise<T> {
    const dead = Promise.race(this.tasks).then(() => {
      throw this.died ?? new RunError('a thread of the machine ended: released')
    })
    return Promise.race([what, dead])
  }

  /** Starts the threads and loads the kernel on each; the machine stays off. */
  async load(): Promise<void> {
    const { config } = this
    const threads = config.cpus + (this.virtual ? 0 : 1)
    tuneCompiler()
    this.pool = new Piscina({
      minThreads: threads,
      maxThreads: threads,
      concurrentTasksPerWorker: 1,
      idleTimeout: 1e9,
      atomics: 'disabled',
      filename: linkedWorker('cpu'),
      // A kernel leaves little garbage; at V8's own 48 MB a thread's share of the process is 3 MB larger.
      resourceLimits: { maxYoungGenerationSizeMb: 4 },
    })
    const base = performance.timeOrigin
    const lockKind = LOCK_NUMBER[config.lock]
    for (let cpu = 0; cpu < config.cpus; cpu++)
      this.start(cpu, { memory: this.memory, lockKind, base, virtual: this.virtual, lockdep: config.lockdep })
    if (!this.virtual) this.start(-1, { memory: this.memory, base })
    const maps = await this.alive(
      Promise.all([
        ...this.cpus.map(cpu => cpu.load((config.programs ?? []).map(url => linked(url).href))),
        this.board!.load(),
      ]),
    )
    const map = maps[0] as SystemMap
    this.reader = new RamReader(this.memory, map)
    if (this.virtual) this.turnstile = new TurnstileHost(this.memory.buffer, map, config.cpus)
  }

  /** Starts all CPUs and the board; `run` says what a CPU does. */
  private async startThreads(run: (cpu: Remote<CpuService>, k: number) => Promise<CpuExit>): Promise<void> {
    const { config } = this
    const board: BoardConfig = {
      hz: config.hz,
      ncpus: config.cpus,
      ports: config.ports.map(({ source, capture, captureReceived, bps, wire }) => ({
        source,
        capture,
        bps: bps ?? 0,
        ...(captureReceived === true ? { captureReceived } : {}),
        ...(wire === undefined ? {} : { wire }),
      })),
      window: playWindow(config, this.ram),
      step_ns: config.profile?.board_ns ?? 0,
    }
    const boardRuns = this.board!.run(board, this.histograms)
    if (this.virtual) await boardRuns // the thread of CPU 0 is about to enter the kernel
    for (let cpu = 0; cpu < config.cpus; cpu++) this.inside.add(cpu)
    this.exits = [
      ...this.cpus.map((cpu, k) =>
        run(cpu, k)
          .then(exit => this.left(exit))
          .catch((error: unknown) => this.threadDied(k, error)),
      ),
      boardRuns.catch((error: unknown) => this.threadDied(-1, error)),
    ]
  }

  /** Boots; resolves when the network is configured and the machine runs. */
  async powerOn(): Promise<void> {
    if (this.pool === null) await this.load()
    const { config } = this
    writeConfig(config, this.ram)
    Atomics.store(this.ram.i32, this.ram.map.boot.power >> 2, BOOTING)
    this.initTurnstile()
    const setup: RouterSetup = {
      ports: config.ports.map(portSetup),
      routes: config.routes,
      neighbours: config.neighbours,
      ...(config.sysctl === undefined ? {} : { sysctl: config.sysctl }),
      ...(config.processes === undefined ? {} : { processes: config.processes }),
      ...(config.iptables === undefined ? {} : { iptables: config.iptables.map(table_blob) }),
    }
    await this.startThreads((cpu, k) => cpu.run(k === 0 ? setup : { ports: [], routes: [], neighbours: [] }))
    while (this.power === BOOTING) {
      this.check()
      if (this.virtual && this.nowMs > BOOT_MS)
        throw new RunError(
          `the machine does not come up within ${BOOT_MS / 1000} s of its time: init sleeps, or a tick costs more than lies between two (profile ${config.profile!.name})`,
        )
      await this.pass(1)
    }
    this.check()
  }

  private initTurnstile(): void {
    const { profile, cpus, seed } = this.config
    if (profile === undefined) return
    const spin = hostCores() >= cpus ? TURN_SPIN : 0
    this.turnstile!.init(
      profile.hz,
      costTable(profile, this.ram.map.costs.names),
      seed,
      spin,
      this.config.slackCycles ?? SLACK,
      BOARD_LAG,
      this.config.stirCycles ?? 0,
    )
  }

  private left(exit: CpuExit): void {
    this.inside.delete(exit.cpu)
    if (exit.reason !== 'power off') this.pullPlug()
  }

  /** Throws what the machine died of, if it did. */
  check(): void {
    if (this.died !== null) throw this.died
    if (this.power !== PANIC) return
    const text = this.ram.panicText()
    // No dump: the init process could not set up what it was told to.
    throw setupError(text) ?? new MachinePanic(text)
  }

  // ---- time ---------------------------------------------------------------------------------------------------------

  /**
   * Lets `ms` of the machine's time pass: host time, or exactly so much virtual time, which may take long. `look` is called
   * now and then meanwhile, and may throw: the machine is good for nothing but destroy() then.
   */
  async pass(ms: number, look?: () => void): Promise<void> {
    if (this.turnstile === null) {
      await sleep(ms)
      return
    }
    await this.turnstile.pass(ms * 1e6, () => {
      this.check()
      look?.()
    })
  }

  /** The machine's time, ms. */
  get nowMs(): number {
    return this.turnstile === null ? performance.now() : this.turnstile.nowNs / 1e6
  }

  /** Virtual time: when the machine does something next of its own accord, ns. While it stands still. */
  get nextEventNs(): number {
    return this.turnstile?.nextEventNs ?? 0
  }

  /** Of a run in virtual time: hash of all that happened, and how often the turn went to another thread. */
  get turns(): { hash: number; handovers: number } | null {
    return this.turnstile === null ? null : { hash: this.turnstile.hash, handovers: this.turnstile.handovers }
  }

  get running(): boolean {
    return this.reader !== null && this.power === RUNNING
  }

  // ---- programs -----------------------------------------------------------------------------------------------------

  /** What programs wrote since the last call, in order. Call it often: a program that finds the console full sleeps. */
  console(): ConsoleRecord[] {
    return this.consoleReader.drain()
  }

  /** Files that programs created (`creat`), as far as they were written; they are kept on the host, by the name that was given. */
  files(): HostFile[] {
    return this.consoleReader.files()
  }

  private get consoleReader(): ConsoleReader {
    this.readConsole ??= new ConsoleReader(this.ram)
    return this.readConsole
  }

  /** How each of the configured processes ended, by its place in the configuration; null: it has not. */
  exitCodes(): (number | null)[] {
    return (this.config.processes ?? []).map((_, index) => this.consoleReader.exitCode(index))
  }

  /**
   * Lets time pass until all processes have ended that are no daemons, at most `ms` of the machine's time; `output` gets what
   * they write meanwhile. In virtual time the host looks at fixed times, so the run is the same each time.
   * @returns exit codes; null: it has not ended (a daemon, or there was not enough time)
   */
  async processes(ms: number, output: (record: ConsoleRecord) => void = () => {}): Promise<(number | null)[]> {
    const until = this.nowMs + ms
    const busy = (): boolean =>
      this.exitCodes().some((c, k) => c === null && this.config.processes![k]!.daemon !== true)
    for (;;) {
      this.check()
      const wait = busy() && this.nowMs < until
      for (const record of this.console()) output(record)
      if (!wait) return this.exitCodes()
      await this.pass(Math.min(PROCESS_LOOK_MS, Math.max(0.001, until - this.nowMs)))
    }
  }

  // ---- control of the ports -----------------------------------------------------------------------------------------

  /** Tell a port's source what to do; resolves when the board has done it. */
  async source(port: number, request: SourceRequest): Promise<void> {
    await this.sources([port], request)
  }
  /** The same for several ports, at one time of the machine. */
  async sources(ports: readonly number[], request: SourceRequest): Promise<void> {
    const asked = ports.map(port => ({ port, seq: this.ram.portRequest(port, request) }))
    while (!asked.every(({ port, seq }) => this.ram.portAcknowledged(port, seq))) {
      this.check()
      if (!this.running) throw new RunError('the machine is not running')
      await this.pass(0)
    }
  }

  // ---- CPUs ---------------------------------------------------------------------------------------------------------

  /** Stops a CPU of a machine that runs; everything it had in hand but its tasks goes to CPU 0, which cannot be stopped. */
  async cpuDown(cpu: number): Promise<void> {
    await ringDoorbell(this, this.ram.map.doorbell.cpu_down, cpu, `CPU ${cpu} cannot be stopped`)
  }
  /** Starts a CPU that was stopped. */
  async cpuUp(cpu: number): Promise<void> {
    await ringDoorbell(this, this.ram.map.doorbell.cpu_up, cpu, `CPU ${cpu} cannot be started`)
  }

  /** Unplugs the NIC of a port: its interface goes, with its addresses and routes, when nobody uses it any more. */
  async unplug(port: number): Promise<void> {
    await ringDoorbell(this, this.ram.map.doorbell.nic_del, port, `NIC ${port} cannot be unplugged`)
  }
  /** Plugs it in again: it is `eth` with the first number that is free, down and without addresses. */
  async plug(port: number): Promise<void> {
    await ringDoorbell(this, this.ram.map.doorbell.nic_add, port, `NIC ${port} cannot be plugged in`)
  }

  // ---- power off ----------------------------------------------------------------------------------------------------

  private signalHalt(): void {
    for (let cpu = 0; cpu < this.config.cpus; cpu++) this.ram.sendHalt(cpu)
    Atomics.notify(this.ram.i32, this.ram.map.boot.power >> 2)
    if (this.power === HALTING) this.turnstile?.letGo()
    else this.turnstile?.openAll()
  }

  /** Every CPU leaves the kernel wherever it is. */
  private pullPlug(): void {
    if (this.reader === null) return
    const at = this.ram.map.boot.power >> 2
    if (this.power !== PANIC) Atomics.store(this.ram.i32, at, OFF)
    this.signalHalt()
  }

  /**
   * Orderly halt: CPUs stop between two tasks. After two seconds the plug is pulled, and a CPU that does not see even that
   * is ended with its thread; then this rejects with a RunError that names the CPUs.
   */
  async halt(): Promise<void> {
    if (this.reader === null) return
    const at = this.ram.map.boot.power >> 2
    if (Atomics.compareExchange(this.ram.i32, at, RUNNING, HALTING) === RUNNING) this.signalHalt()
    else if (this.power === BOOTING) this.pullPlug()
    const late: number[] = []
    const plug = setTimeout(() => {
      late.push(...this.inside)
      this.pullPlug()
    }, HALT_MS)
    const stuck = new Promise<'stuck'>(resolve => setTimeout(resolve, HALT_MS + PLUG_MS, 'stuck').unref())
    const how = await Promise.race([Promise.all(this.exits), Promise.all(this.tasks), stuck])
    clearTimeout(plug)
    this.check()
    if (late.length === 0) return
    const names = late.map(cpu => `CPU ${cpu}${obituary(this.ram, cpu)}`).join('\n')
    if (how === 'stuck') await this.destroy()
    throw new MachinePanic(`the machine did not halt, and the plug was pulled:\n${names}`)
  }

  /**
   * All of a halted machine, as bytes. Every task must rest at the top of its program, as the kernel's own threads do when
   * they have nothing to do: what a program holds in its variables is not in RAM. Throws a RunError that names the others.
   */
  async snapshot(): Promise<Snapshot> {
    this.standsStill('a snapshot')
    const busy = await this.alive(Promise.all(this.cpus.slice(0, 1).map(cpu => cpu.notAtRest())))
    if (busy[0]!.length > 0) throw new RunError(`no snapshot while tasks are busy: ${busy[0]!.join(', ')}`)
    return { bytes: new Uint8Array(this.memory.buffer).slice(), hash: this.ram.map.hash }
  }

  /**
   * Goes on with a halted machine from its own RAM; or, from a snapshot of a machine of the same kernel and configuration,
   * with one that is halted, has panicked, or was only loaded and never powered on.
   */
  async resume(from?: Snapshot): Promise<void> {
    if (from === undefined) this.standsStill('to be resumed')
    else await this.restore(from)
    Atomics.store(this.ram.i32, this.ram.map.boot.power >> 2, RUNNING)
    this.turnstile?.begin()
    await this.startThreads(cpu => cpu.resume())
  }

  private async restore(from: Snapshot): Promise<void> {
    if (this.pool === null) await this.load()
    if (this.died !== null) throw this.died
    if (this.inside.size > 0 && this.power !== PANIC) throw new RunError('the machine must be halted to be restored')
    await Promise.all(this.exits)
    if (from.hash !== this.ram.map.hash || from.bytes.length !== this.ram.u8.length)
      throw new RunError('the snapshot is of another machine')
    this.ram.u8.set(from.bytes)
    // CPU 0 of a thread that never ran lays its caches out anew, over the snapshot's: so they come first.
    await this.alive(Promise.all(this.cpus.map(cpu => cpu.carve())))
    this.ram.u8.set(from.bytes)
  }

  private standsStill(what: string): void {
    this.check()
    if (this.pool === null || this.reader === null || this.power !== HALTING)
      throw new RunError(`the machine must be halted for ${what}`)
  }

  /** The leak audit of a machine that was halted at rest. */
  async audit(): Promise<LeakReport[]> {
    return this.alive(this.cpus[0]!.audit())
  }

  /** Names of the variables and objects at these addresses of a halted machine, such as `net_device[1].queue_lock`. */
  async describe(addresses: number[]): Promise<string[]> {
    return this.alive(this.cpus[0]!.describe(addresses))
  }

  /** A file of /proc of a halted machine. */
  async proc(path: string): Promise<string> {
    return this.alive(this.cpus[0]!.proc(path))
  }

  /** A table of the packet filter of a halted machine, as iptables-save -c writes it; null: it is not loaded. */
  async iptables(table: string): Promise<string | null> {
    const blob = await this.alive(this.cpus[0]!.iptables(table))
    return blob === null ? null : saveIptables(blob)
  }

  /** What the ports sent, of those that capture. */
  async captures(): Promise<(CapturedFrames | null)[]> {
    return this.alive(this.board!.captures())
  }

  /** Ends all threads. May be called at any time. */
  async destroy(): Promise<void> {
    if (this.pool === null) return
    const pool = this.pool
    this.pool = null
    this.pullPlug()
    for (const port of this.ports) port.close()
    await pool.destroy().catch(() => {})
    await Promise.allSettled(this.tasks)
  }
}
