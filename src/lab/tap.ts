/** tap.ts - the machine as a host or router on TAP devices of the Linux host, until it is told to stop. */
import { execFileSync } from 'node:child_process'
import type { Mac } from '../hw/types.js'
import type { RouteSetup, SysctlSetup } from '../init/setup.js'
import { queuesFor } from './bench2544.js'
import { RunError } from './errors.js'
import { Machine, type MachineConfig } from './machine.js'
import { writeCapture } from './pcap.js'
import type { Fates, PortCounters } from './ramReader.js'
import { takeSample } from './sample.js'
import { openTap, type Tap } from './tapDevice.js'
import { hostCommands } from './tapHost.js'
import type { LockKind, RxArch } from './types.js'

export interface TapPort {
  /** Of the host's device. */
  tap: string
  addresses: { local: number; prefixlen: number }[]
}

export interface TapRunConfig {
  ports: TapPort[]
  routes: RouteSetup[]
  /** Packets that are not for the machine go on: it is a router. */
  forward: boolean
  /** Give the host's end of a TAP device this address and bring it up; by device. */
  host: { tap: string; address: string }[]
  cpus: number
  rx: RxArch
  lock: LockKind
  mtu: number
  seed: number
  /** Port 7 answers with what it got. */
  echo: boolean
  /** Programs on the machine, words of each. */
  run: string[][]
  sysctl: SysctlSetup
  /** Keep what goes over the wires, by device. */
  captures: string[]
  /** Nothing: until the signal. */
  seconds?: number
}

export interface TapResult {
  schema: 'softnet.tap/1'
  seconds: number
  ports: (PortCounters & { name: string; tap: string })[]
  fates: Fates
  leaks: { name: string; used: number; total: number }[]
}

export interface TapHooks {
  signal?: AbortSignal
  /** The machine is up, and these are its devices on the host. */
  ready?: (taps: readonly string[]) => void
  capture?: (tap: string, bytes: Uint8Array) => void
  /** A file that a program wrote, whole, at the end. */
  file?: (name: string, bytes: Uint8Array) => void
  /** What a program says, as it comes. */
  output?: (text: string) => void
}

/** How often the host looks whether the machine still lives, ms. */
const LOOK_MS = 100
const ETH_OVERHEAD = 18

/** Station addresses of our own making, different for different seeds and names: two such machines can be on one bridge. */
function stationAddress(name: string, seed: number): Mac {
  let hash = Math.imul(seed + 1, 0x9e3779b1)
  for (const c of name) hash = Math.imul(hash ^ c.charCodeAt(0), 0x01000193)
  return { hi: (0x02 << 24) | (0x50 << 16) | ((hash >>> 16) & 0xffff), lo: hash & 0xffff }
}

function machineConfig(config: TapRunConfig, taps: readonly Tap[]): MachineConfig {
  const queues = queuesFor(config.cpus, taps.length)
  return {
    cpus: config.cpus,
    rx: config.rx,
    lock: config.lock,
    hz: 1000,
    irqCostNs: 0, // nobody waits for this machine to be as slow as a real one
    irqWork: 0,
    seed: config.seed,
    ports: config.ports.map((port, k) => ({
      name: `eth${k}`,
      mac: stationAddress(port.tap, config.seed),
      mtu: config.mtu,
      addresses: port.addresses,
      queues,
      promisc: false,
      source: null,
      capture: config.captures.includes(port.tap),
      captureReceived: true,
      wire: { kind: 'tap', fd: taps[k]!.fd, frame: config.mtu + ETH_OVERHEAD },
    })),
    routes: config.routes,
    neighbours: [],
    sysctl: { 'net.ipv4.ip_forward': config.forward ? 1 : 0, ...config.sysctl },
    userSpin: false,
    trace: false,
    loopback: true,
    processes: [...(config.echo ? [['udpechod', '7']] : []), ...config.run].map(argv => ({ argv, daemon: true })),
  }
}

function configureHost({ tap, address }: { tap: string; address: string }): void {
  for (const [command, ...args] of hostCommands(tap, address)) {
    try {
      execFileSync(command!, args, { stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8' })
    } catch (error) {
      const { stderr, message } = error as { stderr?: string; message: string }
      throw new RunError(`${command} ${args.join(' ')}: ${(stderr ?? '').trim() || message}`, { cause: error })
    }
  }
}

/** Until the time is up, the signal comes or the machine dies. */
async function serve(machine: Machine, config: TapRunConfig, { signal, output }: TapHooks): Promise<number> {
  const start = machine.nowMs
  const end = config.seconds === undefined ? Number.POSITIVE_INFINITY : start + config.seconds * 1000
  while (signal?.aborted !== true && machine.nowMs < end) {
    machine.check()
    for (const { text } of machine.console()) output?.(text)
    await machine.pass(Math.min(LOOK_MS, end - machine.nowMs))
  }
  return (machine.nowMs - start) / 1000
}

/** Counters, the halt, the audit, the captures. */
async function finish(machine: Machine, config: TapRunConfig, seconds: number, hooks: TapHooks): Promise<TapResult> {
  await machine.halt()
  const captures = await machine.captures()
  for (const { name, bytes } of machine.files()) hooks.file?.(name, bytes)
  const leaks = await machine.audit()
  const { ports, fates } = takeSample(machine)
  config.ports.forEach(({ tap }, k) => {
    const frames = captures[k]
    if (frames !== null && frames !== undefined) writeCapture(bytes => hooks.capture?.(tap, bytes), frames)
  })
  const dropped = Object.values(fates.drops).reduce((a, b) => a + b, 0)
  if (fates.received !== fates.forwarded + fates.delivered + dropped)
    throw new RunError(
      `packets are not conserved: received ${fates.received} is not forwarded ${fates.forwarded} + delivered ${fates.delivered} + dropped ${dropped}`,
    )
  return {
    schema: 'softnet.tap/1',
    seconds,
    ports: ports.map((p, k) => ({ name: `eth${k}`, tap: config.ports[k]!.tap, ...p })),
    fates,
    leaks,
  }
}

/** runTap - open the devices, boot, serve, halt. The devices that were made for it go with it. */
export async function runTap(config: TapRunConfig, hooks: TapHooks = {}): Promise<TapResult> {
  const taps: Tap[] = []
  let machine: Machine | null = null
  try {
    for (const { tap } of config.ports) taps.push(await openTap(tap))
    machine = new Machine(machineConfig(config, taps))
    await machine.powerOn()
    for (const host of config.host) configureHost(host)
    hooks.ready?.(taps.map(t => t.name))
    return await finish(machine, config, await serve(machine, config, hooks), hooks)
  } finally {
    await machine?.destroy()
    for (const tap of taps) tap.close()
  }
}
