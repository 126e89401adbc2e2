/** schema.ts - scenario files: what may stand in them, checked, with the line of what is wrong. docs/scenarios.md describes them. */
import { type Document, isAlias, isMap, isNode, isPair, isScalar, isSeq, LineCounter, parseDocument, visit } from 'yaml'
import { z } from 'zod'
import type { LinkModel } from '../../hw/link.js'
import { MAX_NICS, MAX_PROCESSES } from '../../lib/limits.js'
import { AddressError, parseAddress, parseHost, parseInterfaceAddress, parseMac, parsePrefix } from '../addresses.js'
import { LOCK_KINDS, RANGES, RX_ARCHS, SCENARIO_CLOCKS } from '../config.js'
import { UsageError } from '../errors.js'

/** A word that a parser makes something of, whose complaint becomes the issue. YAML takes some words for numbers. */
function word<T>(parse: (text: string) => T) {
  return z.union([z.string(), z.number()]).transform((text, ctx): T => {
    try {
      return parse(String(text))
    } catch (error) {
      if (!(error instanceof AddressError)) throw error
      ctx.addIssue({ code: 'custom', message: error.message })
      return z.NEVER
    }
  })
}

const TIME_UNITS: Record<string, number> = { ns: 1, us: 1e3, ms: 1e6, s: 1e9, min: 60e9 }
/** 100 days, ns: what a number holds exactly, and what the kernel's jiffies compare. */
const LONGEST = 8.64e15
/** A time with its unit, as ns. */
const time = word(text => {
  const match = /^(\d+(?:\.\d+)?) ?(ns|us|ms|s|min)$/.exec(text)
  if (match === null) throw new AddressError(`'${text}' is not a time such as 20ms or 1.5s`)
  const ns = Number(match[1]) * TIME_UNITS[match[2]!]!
  if (!(ns <= LONGEST)) throw new AddressError(`'${text}' is longer than 100 days`)
  return ns
})
const RATE_UNITS: Record<string, number> = { '': 1, k: 1e3, M: 1e6, G: 1e9 }
const FASTEST = 1e12
const rate = word(text => {
  const match = /^(\d+(?:\.\d+)?) ?([kMG]?)(?:bit(?:\/s)?)?$/.exec(text)
  const bits = match === null ? 0 : Number(match[1]) * RATE_UNITS[match[2]!]!
  if (!(bits >= 1000 && bits <= FASTEST))
    throw new AddressError(`'${text}' is not a rate such as 10M (bits per second, 1k to 1000G)`)
  return bits
})
/** 0 to 1, or with a percent sign. */
const share = z.union([
  z.number().min(0).max(1),
  word(text => {
    const match = /^(\d+(?:\.\d+)?)%$/.exec(text)
    const n = match === null ? Number.NaN : Number(match[1]) / 100
    if (!(n >= 0 && n <= 1)) throw new AddressError(`'${text}' is not a share such as 1% or 0.01`)
    return n
  }),
])
const whole = (name: keyof typeof RANGES) => z.int().min(RANGES[name][0]).max(RANGES[name][1])
const listOf = <T extends z.ZodType>(one: T) =>
  z.union([one.transform(v => [v]), z.array(one)]) as unknown as z.ZodType<z.output<T>[]>

const IFACE = /^[!"$-.0-<>-~]{1,15}$/
/** Numbers that the kernel keeps in a word. */
const natural = z.int().min(0).max(0x7fffffff)

const LINK = z.strictObject({
  rate: rate.optional(),
  delay: time.optional(),
  jitter: time.optional(),
  loss: share.optional(),
  reorder: share.optional(),
  duplicate: share.optional(),
  corrupt: share.optional(),
  queue: z.int().min(1).max(100_000).optional(),
})
const INTERFACE = z.strictObject({
  link: z.string().optional(),
  tap: z.string().regex(IFACE, 'is no name of a device').optional(),
  address: listOf(word(parseInterfaceAddress)),
  mac: word(parseMac).optional(),
  mtu: whole('mtu').optional(),
  capture: z
    .string()
    .min(1)
    .refine(file => file !== '-', 'a capture goes to a file, not to standard output')
    .optional(),
})
/** The kernel's strings end at a zero byte. */
const argument = z.string().refine(text => !text.includes('\0'), 'has a zero byte in it')
const PROGRAM = z.strictObject({
  run: z.union([argument.min(1), z.array(argument).min(1)]),
  at: time.optional(),
  cpu: z.int().min(0).max(31).optional(),
  uid: natural.optional(),
  /** Exit code that counts as a success. */
  expect: z.int().min(0).max(255).optional(),
  /** The run does not wait for its end. */
  background: z.boolean().optional(),
})
export type ProgramSpec = z.output<typeof PROGRAM>
const ROUTE = z.strictObject({
  to: word(parsePrefix),
  via: word(parseHost).optional(),
  dev: z.string().optional(),
  metric: natural.optional(),
})
const HOST = z.strictObject({
  cpus: whole('cpus').optional(),
  rx: z.enum(RX_ARCHS as unknown as [string, ...string[]]).optional(),
  lock: z.enum(LOCK_KINDS as unknown as [string, ...string[]]).optional(),
  forward: z.boolean().optional(),
  interfaces: z.record(z.string().regex(IFACE, 'is no name of an interface'), INTERFACE).default({}),
  gateway: word(parseHost).optional(),
  routes: z.array(ROUTE).optional(),
  neighbours: z.array(z.strictObject({ address: word(parseAddress), mac: word(parseMac), dev: z.string() })).optional(),
  sysctl: z.record(z.string(), z.union([z.int(), z.array(z.int()).min(1)])).optional(),
  /** Rules of the packet filter, in the words of iptables-save. */
  iptables: z.string().optional(),
  programs: z
    .array(z.union([argument.min(1).transform((run): ProgramSpec => ({ run })), PROGRAM]))
    .max(MAX_PROCESSES, `a host starts at most ${MAX_PROCESSES} programs`)
    .optional(),
})
const SCENARIO = z.strictObject({
  name: z.string().optional(),
  clock: z.enum(SCENARIO_CLOCKS).optional(),
  profile: z.string().optional(),
  seed: whole('seed').optional(),
  duration: time.optional(),
  hosts: z.record(z.string().regex(/^[\w-]{1,32}$/, 'is no name of a host'), HOST),
  links: z.record(z.string(), z.union([LINK, z.null()])).optional(),
  events: z.array(z.strictObject({ at: time, link: z.string(), state: z.enum(['up', 'down']) })).optional(),
})

export type HostSpec = z.output<typeof HOST>
export type ScenarioSpec = z.output<typeof SCENARIO>

/**
 * Misfit - something is wrong at a place of the file: what its fields say of each other, or what the machine makes of them. Who
 * has the file says the line, too (`locate`).
 */
export class Misfit extends UsageError {
  override name = 'Misfit'
  constructor(
    readonly path: Path,
    readonly what: string,
    /** Of a text of several lines: the line in it, from 1 on. */
    readonly line?: number,
    options?: ErrorOptions,
  ) {
    super(`${field(path)}${line === undefined ? '' : `:${line}`}${path.length === 0 ? '' : ': '}${what}`, options)
  }
}
type Path = (string | number)[]
const field = (path: Path): string => path.join('.')

/** ns of a scenario that does not say how long it lasts. */
export const DEFAULT_DURATION = 60e9
const TOO_LATE = 'the scenario ends before (duration)'

/** What the fields say of each other. */
function check(s: ScenarioSpec): void {
  const links = new Map(Object.keys(s.links ?? {}).map(name => [name, 0]))
  const taps = new Set<string>()
  const captures = new Set<string>()
  const { duration = DEFAULT_DURATION } = s
  if (Object.keys(s.hosts).length === 0) throw new Misfit(['hosts'], 'there is no host')
  for (const [host, h] of Object.entries(s.hosts)) {
    const path = ['hosts', host]
    const interfaces = Object.entries(h.interfaces)
    if (interfaces.length > MAX_NICS)
      throw new Misfit([...path, 'interfaces'], `a host has ${MAX_NICS} of them at most`)
    for (const [name, i] of interfaces) {
      const at = [...path, 'interfaces', name]
      if ((i.link === undefined) === (i.tap === undefined)) throw new Misfit(at, 'needs a link, or a tap')
      if (i.capture !== undefined) {
        if (captures.has(i.capture)) throw new Misfit([...at, 'capture'], `${i.capture} is written by another one, too`)
        captures.add(i.capture)
      }
      if (i.tap !== undefined) {
        if (s.clock !== 'real') throw new Misfit([...at, 'tap'], 'a TAP device needs clock: real')
        if (taps.has(i.tap)) throw new Misfit([...at, 'tap'], `${i.tap} is there twice`)
        taps.add(i.tap)
      }
      if (i.link === undefined) continue
      if (!links.has(i.link)) throw new Misfit([...at, 'link'], `there is no link '${i.link}' (under links)`)
      links.set(i.link, links.get(i.link)! + 1)
    }
    const known = (dev: string, at: Path): void => {
      if (!Object.hasOwn(h.interfaces, dev)) throw new Misfit(at, `host ${host} has no interface '${dev}'`)
    }
    h.routes?.forEach((r, k) => {
      if (r.via === undefined && r.dev === undefined) throw new Misfit([...path, 'routes', k], 'needs via, or dev')
      if (r.dev !== undefined) known(r.dev, [...path, 'routes', k, 'dev'])
    })
    h.neighbours?.forEach((n, k) => {
      known(n.dev, [...path, 'neighbours', k, 'dev'])
    })
    h.programs?.forEach((p, k) => {
      const { cpu = 0 } = p
      if (cpu >= (h.cpus ?? 1)) throw new Misfit([...path, 'programs', k, 'cpu'], `host ${host} has no CPU ${cpu}`)
      if ((p.at ?? 0) >= duration) throw new Misfit([...path, 'programs', k, 'at'], TOO_LATE)
    })
  }
  for (const [name, ends] of links) {
    if (ends < 2)
      throw new Misfit(
        ['links', name],
        `has ${ends === 0 ? 'no interface' : 'one interface'} at its ends: it needs two`,
      )
    if (ends > MAX_ENDS) throw new Misfit(['links', name], `has ${ends} ends, at most ${MAX_ENDS}`)
  }
  s.events?.forEach((e, k) => {
    if (!links.has(e.link)) throw new Misfit(['events', k, 'link'], `there is no link '${e.link}'`)
    if (e.at >= duration) throw new Misfit(['events', k, 'at'], TOO_LATE)
  })
}
/** Its memory grows with the square of them. */
const MAX_ENDS = 16

/** What goes before what the file says. */
export interface Overrides {
  clock?: NonNullable<ScenarioSpec['clock']>
  profile?: string
  /** CPUs of each host. */
  cpus?: number
  seed?: number
}
function overridden(spec: ScenarioSpec, { cpus, ...rest }: Overrides): ScenarioSpec {
  const given = Object.fromEntries(Object.entries(rest).filter(([, v]) => v !== undefined))
  if (cpus === undefined) return { ...spec, ...given }
  const hosts = Object.fromEntries(Object.entries(spec.hosts).map(([name, h]) => [name, { ...h, cpus }]))
  return { ...spec, ...given, hosts }
}

function read(text: string, name: string): { doc: Document; counter: LineCounter } {
  const counter = new LineCounter()
  const doc = parseDocument(text, { lineCounter: counter })
  const fail = (at: number, what: string): never => {
    throw new UsageError(`${name}:${counter.linePos(at).line}: ${what}`)
  }
  const broken = doc.errors[0] ?? doc.warnings[0] // such as a tag that means nothing
  if (broken?.code === 'MULTIPLE_DOCS') fail(broken.pos[0], 'there is more than one document')
  if (broken !== undefined)
    fail(broken.pos[0], broken.message.split('\n')[0]!.replace(/ at line \d+, column \d+:$/, ''))
  visit(doc, {
    Alias: (_key, alias) => {
      if (alias.resolve(doc) === undefined) fail(alias.range?.[0] ?? 0, `there is no anchor &${alias.source}`)
    },
    // Of an object it would be no field, but what it inherits from.
    Pair: (_key, { key }) => {
      if (isScalar(key) && key.value === '__proto__') fail(key.range?.[0] ?? 0, '__proto__ cannot be a name')
    },
  })
  return { doc, counter }
}

/** The line of the last part of a path that is in the file (a field that is missing is not), and what stands there. */
function lineOf(doc: Document, counter: LineCounter, path: Path): { line: number; node: unknown } {
  let node: unknown = doc.contents
  let named: unknown = node
  for (const part of path) {
    const here = isAlias(node) ? node.resolve(doc) : node
    const pair = isMap(here) ? here.items.find(i => isPair(i) && isScalar(i.key) && String(i.key.value) === part) : null
    const next: unknown = isSeq(here) ? here.items[part as number] : pair?.value
    if (next === undefined) break
    node = next
    named = pair?.key ?? next
  }
  return { line: isNode(named) && named.range ? counter.linePos(named.range[0]).line : 1, node }
}

/** locate - what is wrong with a scenario file, with its line: FILE:LINE: field: what. Other errors stay as they are. */
export function locate(error: unknown, text: string, name: string): unknown {
  if (!(error instanceof Misfit)) return error
  const { doc, counter } = read(text, name)
  const { line, node } = lineOf(doc, counter, error.path)
  const block = isScalar(node) && node.type === 'BLOCK_LITERAL' ? (error.line ?? 0) : 0
  return new UsageError(`${name}:${line + block}: ${error.message}`, { cause: error })
}

/** What is in the file as plain data. */
function plain(doc: Document): unknown {
  try {
    return doc.toJS() ?? {}
  } catch (error) {
    if (error instanceof ReferenceError) throw new Misfit([], 'its aliases stand for more than there is room for')
    throw error
  }
}

/** parseScenario - the text of a scenario file; `name` is for errors, which are UsageErrors: FILE:LINE: field: what is wrong. */
export function parseScenario(text: string, name: string, overrides: Overrides = {}): ScenarioSpec {
  const { doc } = read(text, name)
  try {
    const parsed = SCENARIO.safeParse(plain(doc))
    if (!parsed.success) {
      const { path, message } = deepest(parsed.error.issues[0]!)
      throw new Misfit(path, message)
    }
    const spec = overridden(parsed.data, overrides)
    check(spec)
    return spec
  } catch (error) {
    throw locate(error, text, name)
  }
}

interface Place {
  path: Path
  message: string
}
/** Of a field that may be of several kinds, the complaint that got furthest is the one that helps. */
function deepest(issue: z.core.$ZodIssue): Place {
  const path = issue.path as Path
  if (issue.code === 'unrecognized_keys') return { path: [...path, issue.keys[0]!], message: 'there is no such field' }
  if (issue.code === 'invalid_key') return { path, message: issue.issues[0]!.message }
  const here: Place = { path, message: issue.message }
  if (issue.code !== 'invalid_union') return here
  const inner = issue.errors
    .map(issues => issues[0])
    .filter(i => i !== undefined)
    .map(i => deepest(i))
    .map(p => ({ ...p, path: [...path, ...p.path] }))
  const wrongType = (p: Place): boolean => p.message.startsWith('Invalid input: expected')
  inner.sort((a, b) => b.path.length - a.path.length || Number(wrongType(a)) - Number(wrongType(b)))
  return inner[0] ?? here
}

/** linkModel - with what was left out. A line always takes a little time: no machine sees what another one does at once. */
export function linkModel(spec: NonNullable<ScenarioSpec['links']>[string] | undefined): LinkModel {
  const l = spec ?? {}
  return {
    rate: l.rate ?? 0,
    delay: Math.max(l.delay ?? LINK_DELAY, MIN_DELAY),
    jitter: l.jitter ?? 0,
    loss: l.loss ?? 0,
    reorder: l.reorder ?? 0,
    duplicate: l.duplicate ?? 0,
    corrupt: l.corrupt ?? 0,
    queue: l.queue ?? 0,
  }
}
const LINK_DELAY = 50_000
const MIN_DELAY = 1000

/** argvOf - the words of a program; who needs blanks in one writes a list. */
export function argvOf(program: ProgramSpec): string[] {
  return typeof program.run === 'string' ? program.run.trim().split(/\s+/) : program.run
}
