/**
 * machine.ts - a machine in the hands of the host: power, set-up, counters, halt.
 *
 * One Piscina pool holds the threads: a CPU each, and the board. While the machine is off or halted, each answers through
 * Comlink on a port of its own. While it runs, the host only reads RAM and writes control words.
 */

import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { MessageChannel, type MessagePort } from 'node:worker_threads'
import * as Comlink from 'comlink'
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs'
import { Piscina } from 'piscina'
import type { CpuExit, CpuService, LeakReport } from '../../workers/cpu.js'
import type { BoardService } from '../../workers/nic.js'
import type { BoardConfig, CapturedFrames, PlayWindow, PortConfig } from '../hw/types.js'
import type { PortSetup, RouterSetup } from '../init/setup.js'
import type { SystemMap } from '../init/system_map.js'
import { HISTOGRAM_SLOTS } from '../lib/histogram.js'
import { tuneCompiler } from './compiler.js'
import { RunError } from './errors.js'
import { RamReader } from './ramReader.js'
import type { Affinity, LockKind, RxArch } from './types.js'

const RX_NUMBER: Record<RxArch, number> = { interrupt: 0, softnet: 1, napi: 2 }
const LOCK_NUMBER: Record<LockKind, number> = { tas: 0, ticket: 1, mcs: 2 }
const PAGE = 65536
/** sk_buffs of a machine that does not say. */
const SKBS = 8192
const OFF = 0
const BOOTING = 1
const RUNNING = 2
const HALTING = 3
const PANIC = 4
/** Frames of a capture that are on their way through the router at once: below IFQ_MAXLEN, and below netdev_max_backlog. */
const PLAY_WINDOW: Record<RxArch, number> = { interrupt: 48, softnet: 256, napi: 256 }
/** How long CPUs may take to leave the kernel by themselves, ms. */
const HALT_MS = 2000

export interface MachinePort extends PortSetup {
  source: PortConfig['source']
  capture: boolean
  /** Speed of its wire, bits per second; 0 or nothing: as fast as the board. */
  bps?: number
}

export interface MachineConfig {
  cpus: number
  rx: RxArch
  lock: LockKind
  hz: number
  irqCostNs: number
  /** Packets per receive interrupt, 0: the architecture's own. */
  irqWork: number
  /** Interrupt mitigation: a receive interrupt comes at most once in so many ns, or when `itrFrames` wait (0: only time). */
  itrNs?: number
  itrFrames?: number
  /** Interrupt lines: spread over the CPUs (the default), or all on CPU 0. */
  affinity?: Affinity
  seed: number
  ports: MachinePort[]
  routes: RouterSetup['routes']
  neighbours: RouterSetup['neighbours']
  /** Run a compute-bound process on each CPU. */
  userSpin: boolean
  trace: boolean
  /** How long an idle CPU spins before its thread sleeps, ns. */
  idleSpinNs?: number
  /** Programmed I/O: ns that a CPU spends on each 4 bytes it moves from or to a NIC; 0 or nothing: DMA. */
  pioNs?: number
  /** sk_buffs in the pool; default 8192. */
  skbs?: number
  /** Receive descriptors of a queue; by default as many as the pool bears, at most 256. */
  rxRing?: number
  txRing?: number
  ramMiB?: number
  /** URLs of modules that every CPU loads beside the kernel; main() of each is called by the init process. */
  programs?: string[]
}

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

  constructor(readonly config: MachineConfig) {
    const pages = (config.ramMiB ?? 64) * 16
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

  private start<T>(name: string, task: object): Remote<T> {
    const { port1, port2 } = new MessageChannel()
    this.ports.push(port1)
    const filename = fileURLToPath(new URL(`../../workers/${name}.js`, import.meta.url))
    const running = this.pool!.run({ ...task, port: port2 }, { filename, transferList: [port2] })
    this.tasks.push(
      running.catch((error: unknown) => {
        this.died ??= error instanceof Error ? error : new Error(String(error))
        this.pullPlug()
      }),
    )
    return Comlink.wrap<T>(nodeEndpoint(port1))
  }

  /** Rejects when a thread died, so that nobody waits for an answer that cannot come. */
  private async alive<T>(what: Promise<T>): Promise<T> {
    const dead = Promise.race(this.tasks).then(() => {
      throw new RunError(`a thread of the machine ended: ${this.died?.message ?? 'released'}`)
    })
    return Promise.race([what, dead])
  }

  /** Starts the threads and loads the kernel on each; the machine stays off. */
  async load(): Promise<void> {
    const { config } = this
    const threads = config.cpus + 1
    tuneCompiler()
    this.pool = new Piscina({
      minThreads: threads,
      maxThreads: threads,
      concurrentTasksPerWorker: 1,
      idleTimeout: 1e9,
      atomics: 'disabled',
      filename: fileURLToPath(new URL('../../workers/cpu.js', import.meta.url)),
    })
    const base = performance.timeOrigin
    const lockKind = LOCK_NUMBER[config.lock]
    for (let cpu = 0; cpu < config.cpus; cpu++)
      this.cpus.push(this.start<CpuService>('cpu', { memory: this.memory, cpu, lockKind, base }))
    this.board = this.start<BoardService>('nic', { memory: this.memory, base })
    const maps = await this.alive(
      Promise.all([...this.cpus.map(cpu => cpu.load(config.programs ?? [])), this.board.load()]),
    )
    const map = maps[0] as SystemMap
    this.reader = new RamReader(this.memory, map)
  }

  /** Starts all CPUs and the board; `run` says what a CPU does. */
  private startThreads(run: (cpu: Remote<CpuService>, k: number) => Promise<CpuExit>): void {
    const { config } = this
    const board: BoardConfig = {
      hz: config.hz,
      ncpus: config.cpus,
      ports: config.ports.map(({ source, capture, bps }) => ({ source, capture, bps: bps ?? 0 })),
      window: this.playWindow(),
    }
    const watch = (exit: Promise<unknown>): Promise<unknown> =>
      exit.catch((error: unknown) => {
        this.died ??= error instanceof Error ? error : new Error(String(error))
        this.pullPlug()
      })
    this.exits = [
      ...this.cpus.map((cpu, k) => watch(run(cpu, k).then(e => this.left(e)))),
      watch(this.board!.run(board, this.histograms)),
    ]
  }

  /** So few frames on their way that neither the IP input queue nor a backlog overflows, on however few CPUs. */
  private playWindow(): PlayWindow {
    const { cpus, rx } = this.config
    const words = ['forwarded', 'delivered', 'dropped']
    return {
      frames: PLAY_WINDOW[rx],
      settled: Array.from({ length: cpus }, (_, cpu) =>
        words.map(field => this.ram.address('packet_fate', field, cpu)),
      ).flat(),
    }
  }

  /** Many queues share one pool: their rings may hold half of it, and are no longer than 256. */
  private ringSize(): number {
    const queues = this.config.ports.reduce((n, p) => n + p.queues, 0)
    const share = (this.config.skbs ?? SKBS) / 2 / Math.max(1, queues)
    return Math.max(16, Math.min(256, 2 ** Math.floor(Math.log2(share))))
  }

  private writeConfig(): void {
    const { config } = this
    const words: Record<string, number> = {
      ncpus: config.cpus,
      hz: config.hz,
      lock_kind: LOCK_NUMBER[config.lock],
      irq_cost_ns: config.irqCostNs,
      spin_limit: 200,
      idle_spin_ns: config.idleSpinNs ?? 20_000,
      seed: config.seed,
      rx_arch: RX_NUMBER[config.rx],
      irq_work: config.irqWork,
      itr_ns: config.itrNs ?? 0,
      itr_frames: config.itrFrames ?? 0,
      irq_affinity: config.affinity === 'cpu0' ? 1 : 0,
      trace: config.trace ? 1 : 0,
      nports: config.ports.length,
      nqueues: Math.max(1, ...config.ports.map(p => p.queues)),
      rx_ring: config.rxRing ?? this.ringSize(),
      tx_ring: config.txRing ?? 0,
      user_spin: config.userSpin ? 1 : 0,
      skbs: config.skbs ?? 0,
      pio_ns: config.pioNs ?? 0,
    }
    for (const [name, value] of Object.entries(words)) this.ram.setConfig(name, value)
  }

  /** Boots; resolves when the network is configured and the machine runs. */
  async powerOn(): Promise<void> {
    if (this.pool === null) await this.load()
    const { config } = this
    this.writeConfig()
    Atomics.store(this.ram.i32, this.ram.map.boot.power >> 2, BOOTING)
    const setup: RouterSetup = {
      ports: config.ports.map(portSetup),
      routes: config.routes,
      neighbours: config.neighbours,
    }
    this.startThreads((cpu, k) => cpu.run(k === 0 ? setup : { ports: [], routes: [], neighbours: [] }))
    while (this.power === BOOTING) {
      this.check()
      await sleep(1)
    }
    this.check()
  }

  private left(exit: CpuExit): void {
    if (exit.reason !== 'power off') this.pullPlug()
  }

  /** Throws what the machine died of, if it did. */
  check(): void {
    if (this.died !== null) throw new RunError(`a thread of the machine died: ${this.died.message}`)
    if (this.power === PANIC) throw new MachinePanic(this.ram.panicText())
  }

  get running(): boolean {
    return this.reader !== null && this.power === RUNNING
  }

  // ---- control of the ports -----------------------------------------------------------------------------------------

  /** Tell a port's source what to do; resolves when the board has done it. */
  async source(port: number, request: { on?: boolean; rate?: number; resetLatency?: boolean }): Promise<void> {
    const seq = this.ram.portRequest(port, request)
    while (!this.ram.portAcknowledged(port, seq)) {
      this.check()
      if (!this.running) throw new RunError('the machine is not running')
      await sleep(0)
    }
  }

  // ---- power off ----------------------------------------------------------------------------------------------------

  private signalHalt(): void {
    for (let cpu = 0; cpu < this.config.cpus; cpu++) this.ram.sendHalt(cpu)
    Atomics.notify(this.ram.i32, this.ram.map.boot.power >> 2)
  }

  /** Every CPU leaves the kernel wherever it is. */
  private pullPlug(): void {
    if (this.reader === null) return
    const at = this.ram.map.boot.power >> 2
    if (this.power !== PANIC) Atomics.store(this.ram.i32, at, OFF)
    this.signalHalt()
  }

  /** Orderly halt: CPUs stop in process context. After two seconds the plug is pulled. */
  async halt(): Promise<void> {
    if (this.reader === null) return
    const at = this.ram.map.boot.power >> 2
    if (Atomics.compareExchange(this.ram.i32, at, RUNNING, HALTING) === RUNNING) this.signalHalt()
    else if (this.power === BOOTING) this.pullPlug()
    const plug = setTimeout(() => this.pullPlug(), HALT_MS)
    await Promise.race([Promise.all(this.exits), Promise.all(this.tasks)])
    clearTimeout(plug)
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

  /** Goes on with a halted machine: from its own RAM, or from a snapshot that was taken of it. */
  async resume(from?: Snapshot): Promise<void> {
    this.standsStill('to be resumed')
    if (from !== undefined) {
      if (from.hash !== this.ram.map.hash || from.bytes.length !== this.ram.u8.length)
        throw new RunError('the snapshot is of another machine')
      this.ram.u8.set(from.bytes)
    }
    Atomics.store(this.ram.i32, this.ram.map.boot.power >> 2, RUNNING)
    this.startThreads(cpu => cpu.resume())
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

  /** A file of /proc of a halted machine. */
  async proc(path: string): Promise<string> {
    return this.alive(this.cpus[0]!.proc(path))
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

/** The kernel found a broken invariant; the message is its dump. */
export class MachinePanic extends RunError {
  override name = 'MachinePanic'
}

function portSetup({ name, mac, mtu, addresses, queues, promisc }: MachinePort): PortSetup {
  return { name, mac, mtu, addresses, queues, promisc }
}

/** sleep - host time, ms. */
export function sleep(ms: number): Promise<void> {
  return new Promise(resolve => (ms === 0 ? setImmediate(resolve) : setTimeout(resolve, ms)))
}
