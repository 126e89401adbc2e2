/** tap.ts - `softnet tap`: options, the run, its summary. */
import type { Command } from 'commander'
import type { RouteSetup, SysctlSetup } from '../../init/setup.js'
import { MAX_NICS } from '../../lib/limits.js'
import { AddressError, dotted, mask, parseHost, parseInterfaceAddress, parsePrefix } from '../addresses.js'
import { forwardDefaults, LOCK_KINDS, RANGES, RX_ARCHS } from '../config.js'
import { EXIT_CLEAN, EXIT_FINDING, SetupError, UsageError } from '../errors.js'
import type { TapPort, TapResult, TapRunConfig } from '../tap.js'
import { hostCommands } from '../tapHost.js'
import type { LockKind, PortFile, RxArch } from '../types.js'
import { OutputFiles, oneOf, portFiles, type VerbRunner, warnOvercommit, wholeNumber } from './verb.js'

interface TapOptions {
  tap: TapPort[]
  host: TapRunConfig['host']
  gateway?: number
  route: { text: string; dst: number; prefixlen: number; gw: number }[]
  forward: boolean
  sysctl: SysctlSetup
  echo: boolean
  run: string[][]
  capture: PortFile[]
  cpus: number
  rx: RxArch
  lock: LockKind
  mtu: number
  seed: number
  seconds?: number
  json?: string
}

/** What a flag's value is, with the flag before what is wrong with it. */
function parsed<T>(flag: string, text: string, parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    if (error instanceof AddressError) throw new UsageError(`${flag} ${text}: ${error.message}`)
    throw error
  }
}

/** NAME=REST, or one line that says how it should be. */
function named(flag: string, text: string, example: string): [name: string, rest: string] {
  const match = /^([!"$-.0-<>-~]{1,15})=(.+)$/.exec(text)
  if (match === null) throw new UsageError(`${flag} ${text}: must be ${example}`)
  return [match[1]!, match[2]!]
}

function tapPort(text: string, before: TapPort[]): TapPort[] {
  const [tap, rest] = named('--tap', text, 'DEVICE=ADDRESS/LENGTH[,..], such as tap0=10.77.0.2/24')
  if (before.some(p => p.tap === tap)) throw new UsageError(`--tap ${text}: ${tap} is given twice`)
  if (before.length === MAX_NICS) throw new UsageError(`--tap ${text}: a machine has ${MAX_NICS} NICs at most`)
  const addresses = parsed('--tap', text, () => rest.split(',').map(parseInterfaceAddress))
  return [...before, { tap, addresses }]
}

function hostAddress(text: string, before: TapRunConfig['host']): TapRunConfig['host'] {
  const [tap, address] = named('--host', text, 'DEVICE=ADDRESS/LENGTH, such as tap0=10.77.0.1/24')
  parsed('--host', text, () => parseInterfaceAddress(address))
  return [...before, { tap, address }]
}

function route(text: string, before: TapOptions['route']): TapOptions['route'] {
  const match = /^(\S+)=(\S+)$/.exec(text)
  if (match === null) throw new UsageError(`--route ${text}: must be PREFIX=GATEWAY, such as 10.1.0.0/16=10.77.0.9`)
  return [...before, parsed('--route', text, () => ({ text, ...parsePrefix(match[1]!), gw: parseHost(match[2]!) }))]
}

function sysctl(text: string, before: SysctlSetup): SysctlSetup {
  const match = /^([\w.-]+)=(-?\d+(?:[ ,]-?\d+)*)$/.exec(text)
  if (match === null)
    throw new UsageError(`--sysctl ${text}: must be NAME=NUMBER[,NUMBER..], such as net.ipv4.conf.all.rp_filter=1`)
  const values = match[2]!.split(/[ ,]/).map(Number)
  return { ...before, [match[1]!]: values.length === 1 ? values[0]! : values }
}

const EXAMPLES = `
The machine answers ping, traceroute and arping, and echoes what comes to UDP port 7. Ctrl-C ends it. TAP devices
that do not exist are made for as long as it runs; that needs root, or CAP_NET_ADMIN.

Examples:
  softnet tap --tap tap0=10.77.0.2/24 --host tap0=10.77.0.1/24       then: ping 10.77.0.2
  softnet tap --tap tap0=10.1.0.1/24 --tap tap1=10.2.0.1/24 --forward --cpus 2    a router between two networks
`

/** registerTap - adds the verb to the program. */
export function registerTap(program: Command, run: VerbRunner): void {
  const d = forwardDefaults()
  const [min, max] = RANGES.cpus
  program
    .command('tap')
    .description('Put the emulated machine on TAP devices of this host, so that real programs can talk to it.')
    .option('--tap <device=address>', 'TAP device, and addresses of the machine on it; once per device', tapPort, [])
    .option('--host <device=address>', "the host's own address on that device", hostAddress, [])
    .option('--gateway <address>', 'where the default route of the machine leads', text =>
      parsed('--gateway', text, () => parseHost(text)),
    )
    .option('--route <prefix=gateway>', 'another route of the machine', route, [])
    .option('--forward', 'forward packets between the devices: the machine is a router', false)
    .option('--sysctl <name=value>', "a switch of the kernel, by Linux's name", sysctl, {})
    .option(
      '--run <command>',
      'a program to run on the machine; once per program',
      (text, before: string[][]) => [...before, text.trim().split(/\s+/)],
      [],
    )
    .option('--no-echo', 'no echo service on UDP port 7')
    .option(
      '--capture <device=file>',
      'keep what goes over the wire of a device, both ways, as pcap',
      portFiles('--capture', f => f),
      [],
    )
    .option('--cpus <n>', `CPUs of the machine, ${min} to ${max}`, wholeNumber('--cpus', 'cpus'), d.cpus)
    .option('--rx <arch>', `receive architecture: ${RX_ARCHS.join(', ')}`, oneOf('--rx', RX_ARCHS), d.rx)
    .option('--lock <kind>', `spinlocks: ${LOCK_KINDS.join(', ')}`, oneOf('--lock', LOCK_KINDS), d.lock)
    .option('--mtu <bytes>', 'MTU of the machine on all devices', wholeNumber('--mtu', 'mtu'), RANGES.mtu[2])
    .option('--seed <n>', 'seed of hashes and station addresses', wholeNumber('--seed', 'seed'), d.seed)
    .option('--seconds <n>', 'end after so many seconds', wholeNumber('--seconds', 'seconds'))
    .option('--json <file>', 'write the counts as JSON; - writes them to standard output instead of the summary')
    .helpOption('-h, --help', 'print help')
    .addHelpText('after', EXAMPLES)
    .allowExcessArguments(false)
    .action((options: TapOptions) => {
      const config = tapConfig(options)
      return run(signal => tap(options, config, signal))
    })
}

/** The interface that leads to a gateway, by number. */
function interfaceOf(ports: readonly TapPort[], flag: string, text: string, gw: number): string {
  const k = ports.findIndex(p => p.addresses.some(a => ((a.local ^ gw) & mask(a.prefixlen)) === 0))
  if (k < 0) throw new UsageError(`${flag} ${text}: the gateway is on no network of the machine`)
  return `eth${k}`
}

function tapConfig(o: TapOptions): TapRunConfig {
  if (o.tap.length === 0) throw new UsageError('--tap: at least one DEVICE=ADDRESS/LENGTH is needed')
  for (const [flag, name] of [
    ...o.host.map(h => ['--host', h.tap] as const),
    ...o.capture.map(c => ['--capture', c.iface] as const),
  ])
    if (!o.tap.some(p => p.tap === name)) throw new UsageError(`${flag} ${name}: there is no --tap ${name}`)
  const routes: RouteSetup[] = []
  const add = (flag: string, text: string, dst: number, prefixlen: number, gw: number): void => {
    const dev = interfaceOf(o.tap, flag, text, gw)
    routes.push({ dst, prefixlen, type: 'unicast', metric: 0, nexthops: [{ gw, dev, weight: 1 }] })
  }
  if (o.gateway !== undefined) add('--gateway', dotted(o.gateway), 0, 0, o.gateway)
  for (const r of o.route) add('--route', r.text, r.dst, r.prefixlen, r.gw)
  const { host, forward, cpus, rx, lock, mtu, seed, echo, run, sysctl, seconds } = o
  return {
    ...{ ports: o.tap, routes, host, forward, cpus, rx, lock, mtu, seed, echo, run, sysctl },
    captures: o.capture.map(c => c.iface),
    ...(seconds === undefined ? {} : { seconds }),
  }
}

/** What the machine cannot be, with the flag that wants it so. */
function flagged(error: unknown, o: TapOptions): unknown {
  if (!(error instanceof SetupError) || error.part === null) return error
  const [field, key] = error.part
  const told: Record<string, (k: number) => string> = {
    sysctl: () => `--sysctl ${key}=${o.sysctl[key]}`,
    processes: k => `--run ${o.run[k - (o.echo ? 1 : 0)]?.join(' ')}`,
    ports: k => `--tap ${o.tap[k]?.tap}`,
  }
  const flag = told[field]
  return flag === undefined ? error : new UsageError(`${flag(Number(key))}: ${error.what}`, { cause: error })
}

/** What the user can do now, on standard error: standard output is for the result. */
function announce(config: TapRunConfig, taps: readonly string[]): void {
  config.ports.forEach((port, k) => {
    const own = port.addresses.map(a => `${dotted(a.local)}/${a.prefixlen}`).join(', ')
    process.stderr.write(`softnet: eth${k} ${own} is on ${taps[k]}\n`)
    if (config.host.some(h => h.tap === port.tap)) return
    const [address, up] = hostCommands(port.tap, 'ADDRESS/LENGTH')
    process.stderr.write(`softnet:   to talk to it: ${address!.join(' ')} && ${up!.join(' ')}\n`)
  })
}

function report(r: TapResult): string {
  const f = r.fates
  const drops = Object.entries(f.drops)
    .filter(([, n]) => n > 0)
    .map(([reason, n]) => `${n} ${reason}`)
  return [
    `${r.seconds.toFixed(1)} s`,
    ...r.ports.map(p => `${p.name} on ${p.tap}: ${p.offered} frames in, ${p.sent} out`),
    `${f.received} packets received: ${f.delivered} delivered, ${f.forwarded} forwarded, ${drops.join(', ') || 'none'} dropped`,
    `${f.icmpSent} ICMP messages sent`,
  ].join('\n')
}

async function tap(options: TapOptions, config: TapRunConfig, signal: AbortSignal): Promise<number> {
  const { json } = options
  const captures = options.capture.map(({ iface, file }) => [`--capture ${iface}`, file] as const)
  const files = new OutputFiles({ ...Object.fromEntries(captures), '--json': json })
  try {
    warnOvercommit(config.cpus, '')
    const { runTap } = await import('../tap.js')
    const result = await runTap(config, {
      signal,
      ready: taps => announce(config, taps),
      ...(json === '-' ? {} : { output: (text: string) => process.stdout.write(text) }),
      capture: (name, bytes) => files.get(`--capture ${name}`)?.write(bytes),
      file: (name, bytes) => files.late('a program', name, bytes),
    }).catch((error: unknown) => {
      throw flagged(error, options)
    })
    files.write('--json', () => `${JSON.stringify(result, null, 1)}\n`)
    files.commit()
    process.stdout.write(`${json === '-' ? JSON.stringify(result, null, 1) : report(result)}\n`)
    const lost = files.complain()
    if (result.leaks.length === 0) return lost ?? EXIT_CLEAN
    const what = result.leaks.map(l => `${l.used} of ${l.name}`).join(', ')
    process.stderr.write(`softnet: leaked: ${what}\n`)
    return EXIT_FINDING
  } finally {
    files.discard()
  }
}
