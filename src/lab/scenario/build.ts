/** build.ts - the machines and the lines of a scenario. */
import { type LinkModel, link_bytes, link_set } from '../../hw/link.js'
import type { Mac } from '../../hw/types.js'
import type { WireConfig } from '../../hw/wire.js'
import type { RouteSetup } from '../../init/setup.js'
import type { Table } from '../../lib/iptables.js'
import { mask } from '../addresses.js'
import { queuesFor } from '../bench2544.js'
import { forwardDefaults } from '../config.js'
import type { SetupError } from '../errors.js'
import { checkIptables } from '../iptables/check.js'
import { parseIptables, RuleError } from '../iptables/parse.js'
import type { MachineConfig, MachinePort } from '../machine.js'
import type { CostProfile } from '../profile.js'
import type { LockKind, RxArch } from '../types.js'
import { argvOf, type HostSpec, linkModel, Misfit, type ScenarioSpec } from './schema.js'

/** A line, and who is at its ends. */
export interface Line {
  name: string
  memory: SharedArrayBuffer
  ends: { host: string; iface: string }[]
  model: LinkModel
}

export interface Capture {
  host: string
  port: number
  iface: string
  file: string
}

export interface Built {
  lines: Line[]
  hosts: { name: string; config: MachineConfig; spec: HostSpec }[]
  captures: Capture[]
}

/** Clock ticks a second: of a machine that mostly waits. */
const HZ = 100
const ETH_OVERHEAD = 18
/** Controlled: cycles within which any CPU may go first; some two microseconds. */
const STIR = 4096
/** Programs that a host has memory for beside those of its file. */
const SPARE_PROGRAMS = 4

/** buildLines - each link with its ends, in the order of the file. */
function buildLines(s: ScenarioSpec): Line[] {
  return Object.entries(s.links ?? {}).map(([name, spec]) => {
    const ends = Object.entries(s.hosts).flatMap(([host, h]) =>
      Object.entries(h.interfaces)
        .filter(([, i]) => i.link === name)
        .map(([iface]) => ({ host, iface })),
    )
    const memory = new SharedArrayBuffer(link_bytes(ends.length))
    link_set(memory, true)
    return { name, memory, ends, model: linkModel(spec) }
  })
}

function buildRoutes(host: string, h: HostSpec): RouteSetup[] {
  const leads = (gw: number): string | undefined =>
    Object.entries(h.interfaces).find(([, i]) => i.address.some(a => ((a.local ^ gw) & mask(a.prefixlen)) === 0))?.[0]
  const routes = [
    ...(h.routes ?? []),
    ...(h.gateway === undefined ? [] : [{ to: { dst: 0, prefixlen: 0 }, via: h.gateway }]),
  ]
  return routes.map(({ to, via, dev, metric }: NonNullable<HostSpec['routes']>[number], k) => {
    const out = dev ?? leads(via!)
    if (out === undefined)
      throw new Misfit(
        [...routePath(host, h, k), ...(k < (h.routes?.length ?? 0) ? ['via'] : [])],
        'is on no network of the interfaces',
      )
    return {
      ...to,
      type: 'unicast' as const,
      metric: metric ?? 0,
      nexthops: [{ gw: via ?? 0, dev: out, weight: 1 }],
    }
  })
}

/** Where the k-th route of a host stands: the last one may be its gateway. */
function routePath(host: string, h: HostSpec, k: number): (string | number)[] {
  return ['hosts', host, ...(k < (h.routes?.length ?? 0) ? ['routes', k] : ['gateway'])]
}

function buildRules(host: string, text: string): Table[] {
  try {
    const tables = parseIptables(text, 'rules')
    checkIptables(tables, 'rules')
    return tables
  } catch (error) {
    if (error instanceof RuleError) throw new Misfit(['hosts', host, 'iptables'], error.what, error.line)
    throw error
  }
}

/** misfitOf - where in the file of a scenario stands what a host's machine refused. */
export function misfitOf(host: string, h: HostSpec, { what, part }: SetupError): Misfit {
  const path = (): (string | number)[] => {
    const [field, key] = part ?? ['', 0]
    switch (field) {
      case 'ports':
        return ['interfaces', Object.keys(h.interfaces)[key as number]!]
      case 'routes':
        return routePath(host, h, key as number).slice(2)
      case 'neighbours':
        return ['neighbours', key]
      case 'sysctl':
        return ['sysctl', key]
      case 'processes':
        return ['programs', key]
      case 'iptables':
        return ['iptables']
      default:
        return []
    }
  }
  return new Misfit(['hosts', host, ...path()], what)
}

/** buildScenario - `profile`: costs of virtual time, or null with a real clock. `taps`: descriptors of TAP devices by name. */
export function buildScenario(s: ScenarioSpec, profile: CostProfile | null, taps: Map<string, number>): Built {
  const lines = buildLines(s)
  const seed = s.seed ?? 1
  const captures: Capture[] = []
  const hosts = Object.entries(s.hosts).map(([name, spec], number) => {
    const wireOf = (iface: string): WireConfig => {
      const i = spec.interfaces[iface]!
      if (i.tap !== undefined) return { kind: 'tap', fd: taps.get(i.tap)!, frame: (i.mtu ?? 1500) + ETH_OVERHEAD }
      const k = lines.findIndex(line => line.name === i.link)
      const { memory, ends, model } = lines[k]!
      const me = ends.findIndex(e => e.host === name && e.iface === iface)
      return { kind: 'link', memory, ends: ends.length, me, model, seed: seed * 1009 + k, staged: profile !== null }
    }
    const mac = (k: number): Mac => ({ hi: (0x02 << 24) | (0x53 << 16) | number, lo: k + 1 })
    const cpus = spec.cpus ?? 1
    const queues = queuesFor(cpus, Object.keys(spec.interfaces).length)
    const ports = Object.entries(spec.interfaces).map(([iface, i], k): MachinePort => {
      if (i.capture !== undefined) captures.push({ host: name, port: k, iface, file: i.capture })
      return {
        name: iface,
        mac: i.mac ?? mac(k),
        mtu: i.mtu ?? 1500,
        addresses: i.address,
        queues,
        promisc: false,
        source: null,
        capture: i.capture !== undefined,
        captureReceived: true,
        wire: wireOf(iface),
      }
    })
    const d = forwardDefaults()
    const config: MachineConfig = {
      cpus,
      rx: (spec.rx as RxArch | undefined) ?? 'napi',
      lock: (spec.lock as LockKind | undefined) ?? d.lock,
      hz: HZ,
      irqCostNs: 0,
      irqWork: 0,
      seed: seed + number,
      ports,
      routes: buildRoutes(name, spec),
      neighbours: spec.neighbours ?? [],
      ...(spec.iptables === undefined ? {} : { iptables: buildRules(name, spec.iptables) }),
      sysctl: { 'net.ipv4.ip_forward': spec.forward === true ? 1 : 0, ...spec.sysctl },
      userSpin: false,
      trace: false,
      loopback: true,
      userProcs: (spec.programs?.length ?? 0) + SPARE_PROGRAMS,
      ramMiB: 80 + Math.ceil((spec.cpus ?? 1) / 4) + Math.ceil((spec.programs?.length ?? 0) / 3), // 256 KiB for each, and what goes with it
      processes: (spec.programs ?? []).map(p => ({
        argv: argvOf(p),
        ...(p.cpu === undefined ? {} : { cpu: p.cpu }),
        ...(p.uid === undefined ? {} : { uid: p.uid }),
        ...(p.at === undefined ? {} : { delayMs: p.at / 1e6 }),
      })),
      ...(profile === null ? {} : { profile }),
      ...(s.clock === 'controlled' ? { stirCycles: STIR, lockdep: true } : {}),
    }
    return { name, config, spec }
  })
  return { lines, hosts, captures }
}
