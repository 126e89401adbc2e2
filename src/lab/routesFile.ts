/**
 * routesFile.ts - the file that describes a router: interfaces, routes, neighbours (docs/routes-file.md).
 *
 * Errors are UsageErrors of one line: FILE:LINE: what is wrong.
 */
import type { Mac } from '../hw/types.js'
import type { NeighbourSetup, RouteSetup } from '../init/setup.js'
import { MAX_FIB_INFOS, MAX_FIB_NODES, MAX_IFADDRS, MAX_NEIGHBOURS, MAX_NICS } from '../lib/limits.js'
import {
  AddressError,
  edgeOf,
  fail,
  mask,
  parseHost,
  parseInterfaceAddress,
  parseMac,
  parsePrefix,
} from './addresses.js'
import { UsageError } from './errors.js'
import { readInput } from './input.js'

export interface InterfaceLine {
  name: string
  mac: Mac
  mtu: number
  addresses: { local: number; prefixlen: number }[]
}

export interface RoutesFile {
  interfaces: InterfaceLine[]
  routes: RouteSetup[]
  neighbours: NeighbourSetup[]
}

const MIN_MTU = 68
const MAX_MTU = 9000
/** Printable ASCII, as the kernel keeps a byte for each character. */
const NAME = /^[!"$-.0-<>-~]{1,15}$/
/** An address brings up to four routes. */
const MAX_ROUTES = MAX_FIB_NODES - 4 * MAX_IFADDRS
/**
 * What routes mean, their next hops and metric, is kept once for all that mean the same. An address brings two meanings, and
 * a third that is given up at once if its network has a route already; one more is needed to compare.
 */
const MAX_MEANINGS = MAX_FIB_INFOS - 3 * MAX_IFADDRS - 1

/** The file as far as it was read, and what was seen in it. */
interface Draft extends RoutesFile {
  addresses: number
  /** Network of an interface, as `dst/length`: the interface. */
  connected: Map<string, string>
  /** `dst/length metric` */
  destinations: Set<string>
  /** Next hops and metric. */
  meanings: Set<string>
  /** `interface address` */
  stations: Set<string>
  /** Addresses and link addresses of interfaces. */
  own: Set<string>
}

/** Words of one line, taken one after the other. */
class Words {
  private at = 0
  constructor(private readonly words: string[]) {}
  get done(): boolean {
    return this.at === this.words.length
  }
  peek(): string | undefined {
    return this.words[this.at]
  }
  next(what: string): string {
    const word = this.words[this.at]
    if (word === undefined) fail(`${what} is missing`)
    this.at++
    return word
  }
}

function parseNumber(text: string, what: string, min: number, max: number): number {
  const n = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (!(n >= min && n <= max)) fail(`${what} '${text}' must be a whole number from ${min} to ${max}`)
  return n
}

/** The address of an interface, and its network, which no other one may have. */
function parseOwn(text: string, file: Draft): InterfaceLine['addresses'][number] {
  const own = parseInterfaceAddress(text)
  if (file.own.has(`address ${own.local}`)) fail(`address ${text} is given twice`)
  file.own.add(`address ${own.local}`)
  const other = file.interfaces.find(i =>
    i.addresses.some(a => a.prefixlen === own.prefixlen && ((a.local ^ own.local) & mask(own.prefixlen)) === 0),
  )
  if (other !== undefined) fail(`the network of ${text} is that of ${other.name}`)
  return own
}

function parseOnlyMac(w: Words, before: Mac | null): Mac {
  if (before !== null) fail('mac is given twice')
  return parseMac(w.next('the MAC address'))
}

/** The networks of an interface are routes of metric 0. */
function connect(file: Draft, name: string, a: InterfaceLine['addresses'][number], text: string): void {
  if (++file.addresses > MAX_IFADDRS) fail(`more than ${MAX_IFADDRS} addresses`)
  if (a.prefixlen === 32) return
  const network = `${a.local & mask(a.prefixlen)}/${a.prefixlen}`
  if (file.destinations.has(`${network} 0`)) fail(`there is a route to the network of ${text} above this line`)
  if (!file.connected.has(network)) file.connected.set(network, name)
}

function parseInterface(w: Words, file: Draft): void {
  const name = w.next('the name')
  if (!NAME.test(name)) fail(`'${name}' cannot be the name of an interface`)
  if (file.interfaces.some(i => i.name === name)) fail(`interface ${name} is given twice`)
  if (file.interfaces.length === MAX_NICS) fail(`more than ${MAX_NICS} interfaces`)
  const addresses: { local: number; prefixlen: number }[] = []
  let mac: Mac | null = null
  let mtu = 1500
  while (!w.done) {
    const key = w.next('a word')
    if (key === 'address') {
      const text = w.next('the address')
      const own = parseOwn(text, file)
      addresses.push(own)
      connect(file, name, own, text)
    } else if (key === 'mac') mac = parseOnlyMac(w, mac)
    else if (key === 'mtu') mtu = parseNumber(w.next('the MTU'), 'the MTU', MIN_MTU, MAX_MTU)
    else fail(`'${key}' is not known here: address, mac or mtu`)
  }
  if (mac === null) fail(`interface ${name} has no mac`)
  if (addresses.length === 0) fail(`interface ${name} has no address`)
  if (file.own.has(`mac ${mac.hi} ${mac.lo}`)) fail(`interface ${name} has the mac of another one`)
  file.own.add(`mac ${mac.hi} ${mac.lo}`)
  file.interfaces.push({ name, mac, mtu, addresses })
}

function findInterface(file: RoutesFile, name: string): InterfaceLine {
  const found = file.interfaces.find(i => i.name === name)
  return found ?? fail(`there is no interface ${name} above this line`)
}

function onLink(i: InterfaceLine, addr: number): boolean {
  return i.addresses.some(a => ((a.local ^ addr) & mask(a.prefixlen)) === 0)
}

/** Why an address cannot be that of a neighbour, or null. */
function notANeighbour(file: RoutesFile, addr: number): string | null {
  for (const i of file.interfaces) {
    if (i.addresses.some(a => a.local === addr)) return `is this router's own (${i.name})`
    const edge = i.addresses.map(a => edgeOf(a, addr)).find(e => e !== null)
    if (edge !== undefined) return `is a ${edge} of ${i.name}`
  }
  return null
}

/** via A dev X | via A | dev X */
function parseHop(w: Words, file: RoutesFile): RouteSetup['nexthops'][number] {
  let gw = 0
  let dev: InterfaceLine | null = null
  let weight = 1
  let text = ''
  while (!w.done && w.peek() !== 'nexthop' && w.peek() !== 'metric') {
    const key = w.next('a word')
    if (key === 'via') {
      text = w.next('the gateway')
      gw = parseHost(text)
    } else if (key === 'dev') dev = findInterface(file, w.next('the interface'))
    else if (key === 'weight') weight = parseNumber(w.next('the weight'), 'the weight', 1, 256)
    else fail(`'${key}' is not known here: via, dev, weight, nexthop or metric`)
  }
  if (gw === 0 && dev === null) fail('a next hop needs via ADDRESS, dev INTERFACE or both')
  const out = dev ?? file.interfaces.find(i => onLink(i, gw))
  if (out === undefined) fail(`gateway ${text} is on no network of an interface`)
  if (gw !== 0 && !onLink(out, gw)) fail(`gateway ${text} is not on a network of ${out.name}`)
  const why = gw === 0 ? null : notANeighbour(file, gw)
  if (why !== null) fail(`gateway ${text} ${why}`)
  return { gw, dev: out.name, weight }
}

const NOWHERE = ['unreachable', 'blackhole', 'prohibit', 'throw'] as const

function parseRoute(w: Words, file: Draft): void {
  const first = w.next('the prefix')
  const nowhere = NOWHERE.find(t => t === first)
  const text = nowhere === undefined ? first : w.next('the prefix')
  const prefix = parsePrefix(text)
  const nexthops: RouteSetup['nexthops'] = []
  let metric = 0
  while (!w.done) {
    if (w.peek() === 'metric') {
      w.next('metric')
      metric = parseNumber(w.next('the metric'), 'the metric', 0, 0x7fffffff)
      continue
    }
    if (nowhere !== undefined) fail(`${nowhere === 'unreachable' ? 'an' : 'a'} ${nowhere} route takes no next hop`)
    if (w.peek() === 'nexthop') w.next('nexthop')
    nexthops.push(parseHop(w, file))
    if (nexthops.length > 8) fail('more than 8 next hops')
  }
  if (nowhere === undefined && nexthops.length === 0) fail(`route ${text} has no next hop`)
  const network = `${prefix.dst}/${prefix.prefixlen}`
  const owner = metric === 0 ? file.connected.get(network) : undefined
  if (owner !== undefined) fail(`route ${text} is the network of ${owner}: another one needs a metric`)
  if (file.destinations.has(`${network} ${metric}`)) fail(`route ${text} is given twice`)
  if (file.routes.length === MAX_ROUTES) fail(`more than ${MAX_ROUTES} routes`)
  file.destinations.add(`${network} ${metric}`)
  file.meanings.add(`${metric} ${nexthops.map(hop => `${hop.gw} ${hop.dev} ${hop.weight}`).join(' ')}`)
  if (file.meanings.size > MAX_MEANINGS) fail(`more than ${MAX_MEANINGS} different next hops and metrics`)
  file.routes.push({ ...prefix, type: nowhere ?? 'unicast', metric, nexthops })
}

function parseNeighbour(w: Words, file: Draft): void {
  const text = w.next('the address')
  const address = parseHost(text)
  let dev: InterfaceLine | null = null
  let mac: Mac | null = null
  while (!w.done) {
    const key = w.next('a word')
    if (key === 'mac' || key === 'lladdr') mac = parseOnlyMac(w, mac)
    else if (key === 'dev') dev = findInterface(file, w.next('the interface'))
    else fail(`'${key}' is not known here: mac or dev`)
  }
  if (mac === null) fail(`neighbour ${text} has no mac`)
  const out = dev ?? file.interfaces.find(i => onLink(i, address))
  if (out === undefined) fail(`neighbour ${text} is on no network of an interface; with dev NAME it need not be`)
  const why = notANeighbour(file, address)
  if (why !== null) fail(`neighbour ${text} ${why}`)
  if (file.stations.has(`${out.name} ${address}`)) fail(`neighbour ${text} is given twice`)
  if (file.neighbours.length === MAX_NEIGHBOURS) fail(`more than ${MAX_NEIGHBOURS} neighbours`)
  file.stations.add(`${out.name} ${address}`)
  file.neighbours.push({ address, dev: out.name, mac })
}

function parseLine(line: string, file: Draft): void {
  const words = line
    .replace(/#.*$/, '')
    .trim()
    .split(/\s+/)
    .filter(word => word !== '')
  if (words.length === 0) return
  const w = new Words(words.slice(1))
  if (words[0] === 'interface') parseInterface(w, file)
  else if (words[0] === 'route') parseRoute(w, file)
  else if (words[0] === 'neighbour' || words[0] === 'neighbor') parseNeighbour(w, file)
  else fail(`'${words[0]}' is not known: a line begins with interface, route or neighbour`)
}

/** parseRoutes - the text of a routes file; `name` is for errors. */
export function parseRoutes(text: string, name: string): RoutesFile {
  const file: Draft = {
    interfaces: [],
    routes: [],
    neighbours: [],
    addresses: 0,
    connected: new Map(),
    destinations: new Set(),
    meanings: new Set(),
    stations: new Set(),
    own: new Set(),
  }
  text.split(/\r?\n/).forEach((line, k) => {
    try {
      parseLine(line, file)
    } catch (error) {
      if (error instanceof AddressError) throw new UsageError(`${name}:${k + 1}: ${error.message}`)
      throw error
    }
  })
  const { interfaces, routes, neighbours } = file
  if (interfaces.length === 0) throw new UsageError(`${name}: there is no interface in it`)
  return { interfaces, routes, neighbours }
}

/** readRoutes - a routes file. */
export async function readRoutes(path: string, signal?: AbortSignal): Promise<RoutesFile> {
  return parseRoutes((await readInput(path, signal)).toString('utf8'), path)
}
