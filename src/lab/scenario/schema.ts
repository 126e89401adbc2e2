/** schema.ts - scenario files: what may stand in them, checked, with the line of what is wrong. docs/scenarios.md describes them. */
import { isNode, LineCounter, parseDocument } from 'yaml'
import { z } from 'zod'
import type { LinkModel } from '../../hw/link.js'
import { MAX_NICS } from '../../lib/limits.js'
import { AddressError, parseAddress, parseHost, parseInterfaceAddress, parseMac, parsePrefix } from '../addresses.js'
import { LOCK_KINDS, RANGES, RX_ARCHS, SCENARIO_CLOCKS } from '../config.js'
import { UsageError } from '../errors.js'

/** A word that a parser makes something of, whose complaint becomes the issue. */
function word<T>(parse: (text: string) => T) {
  return z.string().transform((text, ctx): T => {
    try {
      return parse(text)
    } catch (error) {
      if (!(error instanceof AddressError)) throw error
      ctx.addIssue({ code: 'custom', message: error.message })
      return z.NEVER
    }
  })
}

const TIME_UNITS: Record<string, number> = { ns: 1, us: 1e3, ms: 1e6, s: 1e9, min: 60e9 }
/** A time with its unit, as ns. */
const time = word(text => {
  const match = /^(\d+(?:\.\d+)?) ?(ns|us|ms|s|min)$/.exec(text)
  if (match === null) throw new AddressError(`'${text}' is not a time such as 20ms or 1.5s`)
  return Number(match[1]) * TIME_UNITS[match[2]!]!
})
const RATE_UNITS: Record<string, number> = { '': 1, k: 1e3, M: 1e6, G: 1e9 }
const rate = word(text => {
  const match = /^(\d+(?:\.\d+)?) ?([kMG]?)(?:bit(?:\/s)?)?$/.exec(text)
  const bits = match === null ? 0 : Number(match[1]) * RATE_UNITS[match[2]!]!
  if (!(bits >= 1000)) throw new AddressError(`'${text}' is not a rate such as 10M (bits per second, at least 1k)`)
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
  tap: z.string().min(1).max(15).optional(),
  address: listOf(word(parseInterfaceAddress)),
  mac: word(parseMac).optional(),
  mtu: whole('mtu').optional(),
  capture: z.string().min(1).optional(),
})
const PROGRAM = z.strictObject({
  run: z.union([z.string().min(1), z.array(z.string()).min(1)]),
  at: time.optional(),
  cpu: z.int().min(0).max(31).optional(),
  uid: z.int().min(0).optional(),
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
  metric: z.int().min(0).optional(),
})
const HOST = z.strictObject({
  cpus: whole('cpus').optional(),
  rx: z.enum(RX_ARCHS as unknown as [string, ...string[]]).optional(),
  lock: z.enum(LOCK_KINDS as unknown as [string, ...string[]]).optional(),
  forward: z.boolean().optional(),
  interfaces: z.record(z.string().regex(/^[!"$-.0-<>-~]{1,15}$/, 'is no name of an interface'), INTERFACE).default({}),
  gateway: word(parseHost).optional(),
  routes: z.array(ROUTE).optional(),
  neighbours: z.array(z.strictObject({ address: word(parseAddress), mac: word(parseMac), dev: z.string() })).optional(),
  sysctl: z.record(z.string(), z.int()).optional(),
  /** Rules of the packet filter, in the words of iptables-save. */
  iptables: z.string().optional(),
  programs: z
    .array(
      z.union([
        z
          .string()
          .min(1)
          .transform((run): ProgramSpec => ({ run })),
        PROGRAM,
      ]),
    )
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

/** Something that no single field is to blame for, at a place of the file. */
class Misfit extends Error {
  constructor(
    readonly path: (string | number)[],
    message: string,
  ) {
    super(message)
  }
}

/** What the fields say of each other. */
function check(s: ScenarioSpec): void {
  const links = new Map(Object.keys(s.links ?? {}).map(name => [name, 0]))
  if (Object.keys(s.hosts).length === 0) throw new Misfit(['hosts'], 'there is no host')
  for (const [host, h] of Object.entries(s.hosts)) {
    const path = ['hosts', host]
    const interfaces = Object.entries(h.interfaces)
    if (interfaces.length > MAX_NICS)
      throw new Misfit([...path, 'interfaces'], `a host has ${MAX_NICS} of them at most`)
    for (const [name, i] of interfaces) {
      const at = [...path, 'interfaces', name]
      if ((i.link === undefined) === (i.tap === undefined)) throw new Misfit(at, 'needs a link, or a tap')
      if (i.tap !== undefined && s.clock !== 'real') throw new Misfit([...at, 'tap'], 'a TAP device needs clock: real')
      if (i.link === undefined) continue
      if (!links.has(i.link)) throw new Misfit([...at, 'link'], `there is no link '${i.link}' (under links)`)
      links.set(i.link, links.get(i.link)! + 1)
    }
    const known = (dev: string, at: (string | number)[]): void => {
      if (h.interfaces[dev] === undefined) throw new Misfit(at, `host ${host} has no interface '${dev}'`)
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
  })
}
/** Its memory grows with the square of them. */
const MAX_ENDS = 16

/** parseScenario - the text of a scenario file; `name` is for errors, which are UsageErrors: FILE:LINE: field: what is wrong. */
export function parseScenario(text: string, name: string): ScenarioSpec {
  const counter = new LineCounter()
  const doc = parseDocument(text, { lineCounter: counter })
  const broken = doc.errors[0]
  if (broken !== undefined)
    throw new UsageError(`${name}:${broken.linePos?.[0].line ?? 1}: ${broken.message.split('\n')[0]}`)
  const complain = (path: (string | number)[], message: string): never => {
    let node: unknown = null
    // The nearest place that is in the file: a field that is missing has none.
    for (let n = path.length; n >= 0 && !isNode(node); n--)
      node = n === 0 ? doc.contents : doc.getIn(path.slice(0, n), true)
    const line = isNode(node) && node.range ? counter.linePos(node.range[0]).line : 1
    throw new UsageError(`${name}:${line}: ${path.length === 0 ? '' : `${path.join('.')}: `}${message}`)
  }
  const parsed = SCENARIO.safeParse(doc.toJS() ?? {})
  if (!parsed.success) {
    const { path, message } = deepest(parsed.error.issues[0]!)
    return complain(path, message)
  }
  try {
    check(parsed.data)
  } catch (error) {
    if (error instanceof Misfit) complain(error.path, error.message)
    throw error
  }
  return parsed.data
}

interface Place {
  path: (string | number)[]
  message: string
}
/** Of a field that may be of several kinds, the complaint that got furthest is the one that helps. */
function deepest(issue: z.core.$ZodIssue): Place {
  const path = issue.path as (string | number)[]
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
