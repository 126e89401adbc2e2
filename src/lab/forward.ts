/** forward.ts - captures through the emulated router: one in for each wire, one out for each wire. */
import { queuesFor } from './bench2544.js'
import { RunError, UsageError } from './errors.js'
import { Machine, type MachineConfig } from './machine.js'
import { UNANSWERED } from './machineConfig.js'
import { type Capture, cutNotice, readPcap, writeCapture } from './pcap.js'
import { type RoutesFile, readRoutes } from './routesFile.js'
import { drain, takeSample, unbalanced } from './sample.js'
import type { ForwardConfig, ForwardResult, ProgressHook } from './types.js'

function machineConfig(config: ForwardConfig, routes: RoutesFile, captures: Map<string, Capture>): MachineConfig {
  const queues = queuesFor(config.cpus, routes.interfaces.length)
  return {
    cpus: config.cpus,
    rx: config.rx,
    lock: config.lock,
    hz: config.hz,
    irqCostNs: 0, // nobody waits for this router to be as slow as a real one
    irqWork: 0,
    seed: config.seed,
    ports: routes.interfaces.map(i => {
      const capture = captures.get(i.name)
      return {
        name: i.name,
        mac: i.mac,
        mtu: i.mtu,
        addresses: i.addresses,
        queues,
        promisc: true, // a capture holds what was on the wire: IP itself drops what is for others
        capture: config.outputs.some(o => o.iface === i.name),
        source:
          capture === undefined
            ? null
            : {
                kind: 'replay',
                ...capture,
                mode: config.speed === 0 ? 'flat' : 'timed',
                scale: config.speed,
                loop: false,
              },
      }
    }),
    routes: routes.routes,
    neighbours: routes.neighbours,
    sysctl: UNANSWERED,
    userSpin: false,
    trace: false,
    idleSpinNs: 50_000,
    ...(config.profile === null ? {} : { profile: config.profile }),
  }
}

function knownInterfaces(config: ForwardConfig, routes: RoutesFile): void {
  const names = routes.interfaces.map(i => i.name)
  for (const [flag, files] of [
    ['--in', config.inputs],
    ['--out', config.outputs],
  ] as const) {
    for (const { iface } of files) {
      if (!names.includes(iface))
        throw new UsageError(`${flag} ${iface}: ${config.routes} has no such interface (it has ${names.join(', ')})`)
    }
  }
}

/** Captures of one time, such as of two wires, keep what lies between their beginnings. */
function onOneClock(captures: readonly Capture[]): void {
  const starts = captures.map(c => c.start).filter(start => start !== null)
  const earliest = starts.reduce((a, b) => (b < a ? b : a), starts[0] ?? 0n)
  for (const { start, times } of captures) {
    const late = start === null ? 0 : Number(start - earliest)
    for (let k = 0; k < times.length; k++) times[k]! += late
  }
}

/** No frame offered for so long of the machine's time, ms: nothing will come of it any more. */
const STALLED_MS = 20_000
/** How often that is looked at. Never by the host's time: in virtual time what the host does is a part of the run. */
const LOOK_MS = 20

/** Send everything, wait until it has gone somewhere. */
async function play(machine: Machine, total: number, hooks: ProgressHook): Promise<void> {
  const flat = machine.config.ports.some(p => p.source?.kind === 'replay' && p.source.mode === 'flat')
  let moved = machine.nowMs
  let before = 0
  const ports = machine.config.ports.map((p, k) => ({ k, source: p.source })).filter(p => p.source !== null)
  const offered = (): number => ports.reduce((n, { k }) => n + machine.ram.port(k).offered, 0)
  const look = (): void => {
    hooks.signal?.throwIfAborted()
    const sent = offered()
    hooks.progress?.(sent, total, `${sent} of ${total} frames`)
  }
  await machine.sources(
    ports.map(({ k }) => k),
    { on: true }, // all at once, or their clocks would differ
  )
  while (!ports.every(({ k }) => machine.ram.portFinished(k))) {
    machine.check()
    look()
    const sent = offered()
    if (sent !== before) moved = machine.nowMs
    before = sent
    if (flat && machine.nowMs - moved > STALLED_MS)
      throw new RunError(`the router takes no more frames: ${sent} of ${total} went in`)
    await machine.pass(LOOK_MS, look)
  }
  await drain(machine)
}

function count(machine: Machine): ForwardResult {
  const { ports, fates } = takeSample(machine)
  const dropped = { ...fates.drops }
  ports.forEach((_, k) => {
    for (const [reason, n] of Object.entries(machine.ram.nicDrops(k)))
      if (n > 0) dropped[reason] = (dropped[reason] ?? 0) + n
  })
  return {
    received: ports.reduce((n, p) => n + p.offered, 0),
    forwarded: fates.forwarded,
    delivered: fates.delivered,
    icmp_sent: fates.icmpSent,
    dropped,
    ...(machine.turns === null ? {} : { hash: machine.turns.hash.toString(16).padStart(8, '0') }),
  }
}

/** Takes the capture of an interface, in pieces. */
export type CaptureSink = (iface: string, bytes: Uint8Array) => void

async function run(
  config: ForwardConfig,
  machine: Machine,
  total: number,
  output: CaptureSink,
  hooks: ProgressHook,
): Promise<ForwardResult> {
  await machine.powerOn()
  hooks.signal?.throwIfAborted()
  await play(machine, total, hooks)
  const result = count(machine)
  const wrong = unbalanced(machine)
  if (wrong.length > 0) throw new RunError(`packets are not conserved: ${wrong.join('; ')}`)
  await machine.halt()
  const captures = await machine.captures()
  config.outputs.forEach(({ iface }) => {
    const captured = captures[machine.config.ports.findIndex(p => p.name === iface)]
    if (captured !== null && captured !== undefined) writeCapture(bytes => output(iface, bytes), captured)
  })
  const leaks = await machine.audit()
  if (leaks.length > 0) throw new RunError(`leaked: ${leaks.map(l => `${l.used} of ${l.name}`).join(', ')}`)
  return result
}

/**
 * runForward - the whole run. `output` gets what the interfaces of config.outputs put on their wires; whether that is kept
 * should wait for the end of the run.
 */
export async function runForward(
  config: ForwardConfig,
  output: CaptureSink,
  hooks: ProgressHook = {},
): Promise<ForwardResult> {
  const routes = await readRoutes(config.routes, hooks.signal)
  knownInterfaces(config, routes)
  const captures = new Map<string, Capture>()
  for (const { iface, file } of config.inputs) {
    const capture = await readPcap(file, hooks.signal)
    const notice = cutNotice(capture, file)
    if (notice !== null) hooks.notice?.(notice)
    captures.set(iface, capture)
  }
  onOneClock([...captures.values()])
  const total = [...captures.values()].reduce((n, c) => n + c.offsets.length, 0)
  const setup = machineConfig(config, routes, captures)
  hooks.ready?.()
  const machine = new Machine(setup)
  try {
    return await run(config, machine, total, output, hooks)
  } finally {
    await machine.destroy()
  }
}
