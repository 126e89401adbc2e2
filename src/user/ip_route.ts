/** ip_route.ts - `ip route`. */

import {
  type Args,
  change,
  dotted,
  dump,
  Failure,
  invarg,
  Links,
  mask_of,
  name_of,
  type Output,
  PROTOCOLS,
  type Prefix,
  parse_addr,
  parse_prefix,
  SCOPES,
  TABLES,
  TYPES,
  usage,
  value_of,
} from './ip_util.js'
import {
  AF_INET,
  addr,
  attr,
  attrs,
  get16,
  get32,
  getAddr,
  type Message,
  type Netlink,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  RTM,
  rtnl_talk,
  u16,
  u32,
} from './libnetlink.js'
import { strerror } from './stdio.js'

type Command = Generator<void, void, void>

const RTM_F_CLONED = 0x200
const METRICS: Record<string, number> = {
  ...{ mtu: 2, window: 3, rtt: 4, rttvar: 5, ssthresh: 6, cwnd: 7, advmss: 8, reordering: 9, hoplimit: 10 },
}
const CACHE_FLAGS: Readonly<Record<string, number>> = {
  ...{ local: 0x80000000, notify: 0x10000, redirected: 0x40000, brd: 0x10000000, mc: 0x20000000 },
  ...{ redirect: 0x01000000, 'src-direct': 0x04000000 },
}

// ---- as text --------------------------------------------------------------------------------------------------------

function metrics_text(nested: Uint8Array): string {
  const t = attrs(nested, 0)
  const lock = t.has(1) ? get32(t.get(1)!) : 0
  let line = ''
  for (let k = 2; k <= 12; k++) {
    const value = t.get(k)
    if (value === undefined) continue
    line += ` ${name_of(METRICS, k)}${(lock & (1 << k)) !== 0 ? ' lock' : ''} ${get32(value)}`
  }
  return line
}

function nexthops_text(nested: Uint8Array, links: Links): string {
  let line = ''
  for (let at = 0; at + 8 <= nested.length; at += (get16(nested, at) + 3) & ~3) {
    const hop = nested.subarray(at, at + get16(nested, at))
    const gw = attrs(hop, 8).get(5)
    line += `\n\tnexthop${gw === undefined ? '' : ` via ${dotted(gw)} `}`
    line += ` dev ${links.name(get32(hop, 4))} weight ${hop[3]! + 1}`
    if ((hop[2]! & 1) !== 0) line += ' dead'
    if ((hop[2]! & 4) !== 0) line += ' onlink'
  }
  return line
}

function cache_text(flags: number, t: Map<number, Uint8Array>): string {
  const names = Object.keys(CACHE_FLAGS).filter(name => (flags & CACHE_FLAGS[name]!) !== 0)
  let line = `\n    cache ${names.length > 0 ? `<${names.join(',')}> ` : ''}`
  const ci = t.get(12)
  if (ci !== undefined && get32(ci, 8) !== 0) line += ` expires ${Math.floor(get32(ci, 8) / 1000)}sec`
  if (ci !== undefined && get32(ci, 12) !== 0) line += ` error ${get32(ci, 12)}`
  return line
}

/** print_route - with its table, unless only one is shown. */
export function route_text(m: Message, links: Links, table: number): string {
  const b = m.body
  const t = attrs(b, 12)
  const flags = get32(b, 8)
  const cloned = (flags & RTM_F_CLONED) !== 0
  let line = m.type === RTM.DELROUTE ? 'Deleted ' : ''
  if (b[7] !== 1) line += `${name_of(TYPES, b[7]!)} `
  if (t.has(1)) line += b[1] === 32 ? `${dotted(t.get(1)!)} ` : `${dotted(t.get(1)!)}/${b[1]} `
  else line += b[1] === 0 ? 'default ' : `0/${b[1]} `
  if (t.has(2)) line += b[2] === 32 ? `from ${dotted(t.get(2)!)} ` : `from ${dotted(t.get(2)!)}/${b[2]} `
  if (b[3] !== 0) line += `tos 0x${b[3]!.toString(16).padStart(2, '0')} `
  if (t.has(5)) line += `via ${dotted(t.get(5)!)} `
  if (t.has(4)) line += `dev ${links.name(get32(t.get(4)!))} `
  if (!cloned) {
    if (b[4] !== 254 && table === 0) line += ` table ${name_of(TABLES, b[4]!)} `
    if (b[5] !== 3) line += ` proto ${name_of(PROTOCOLS, b[5]!)} `
    if (b[6] !== 0) line += ` scope ${name_of(SCOPES, b[6]!)} `
  }
  if (t.has(7)) line += ` src ${dotted(t.get(7)!)} `
  if (t.has(6)) line += ` metric ${get32(t.get(6)!)} `
  if ((flags & 1) !== 0) line += 'dead '
  if ((flags & 4) !== 0) line += 'onlink '
  if (cloned) line += cache_text(flags, t)
  if (t.has(8)) line += metrics_text(t.get(8)!)
  if (t.has(3)) line += ` iif ${links.name(get32(t.get(3)!))}`
  if (t.has(9)) line += nexthops_text(t.get(9)!, links)
  return `${line}\n`
}

// ---- change ---------------------------------------------------------------------------------------------------------

interface Route {
  type: number
  tos: number
  table: number
  protocol: number
  scope: number
  dst: Prefix
  attributes: number[]
  hops: number[]
  gateway: boolean
  flags: number
  said: Set<string>
}

/** One `nexthop via A dev D weight N`, as a struct rtnexthop with its attributes. */
function nexthop(args: Args, links: Links): number[] {
  let [gw, dev, weight, flags] = [0, 0, 1, 0]
  for (;;) {
    if (args.word('via')) gw = parse_addr(args.next())
    else if (args.word('dev')) dev = links.index(args.next())
    else if (args.word('weight')) weight = args.number(256) || invarg('"weight" is invalid', '0')
    else if (args.word('onlink')) flags |= 4
    else break
  }
  const attributes = gw === 0 ? [] : attr(5, addr(gw))
  return [...u16(8 + attributes.length), flags, weight - 1, ...u32(dev), ...attributes]
}

/** One argument, with what belongs to it. @returns false: it is no option */
function option(r: Route, args: Args, links: Links, metrics: number[], locks: { bits: number }): boolean {
  if (args.word('via')) {
    r.attributes.push(...attr(5, addr(parse_addr(args.next()))))
    r.gateway = true
  } else if (args.word('dev', 'oif')) {
    r.attributes.push(...attr(4, u32(links.index(args.next()))))
    r.said.add('dev')
  } else if (args.word('src')) r.attributes.push(...attr(7, addr(parse_addr(args.next()))))
  else if (args.word('metric', 'preference', 'priority')) r.attributes.push(...attr(6, u32(args.number())))
  else if (args.word('tos', 'dsfield')) r.tos = args.number(255)
  else if (args.word('table')) {
    r.table = value_of(TABLES, args.next(), 'table')
    r.said.add('table')
  } else if (args.word('proto', 'protocol')) {
    r.protocol = value_of(PROTOCOLS, args.next(), 'protocol')
    r.said.add('protocol')
  } else if (args.word('scope')) {
    r.scope = value_of(SCOPES, args.next(), 'scope')
    r.said.add('scope')
  } else if (args.word('onlink')) r.flags |= 4
  else if (args.word('nexthop')) r.hops.push(...nexthop(args, links))
  else {
    const name = args.peek()!
    const metric = METRICS[name]
    if (metric === undefined) return false
    args.next()
    if (args.word('lock')) locks.bits |= 1 << metric
    metrics.push(...attr(metric, u32(args.number())))
  }
  return true
}

/** What iproute2 makes of what was not said. */
function complete(r: Route, deletes: boolean): void {
  const local = r.type === TYPES.local
  const everybody = r.type === TYPES.broadcast || r.type === TYPES.multicast || r.type === TYPES.anycast
  if (!r.said.has('scope')) {
    if (local) r.scope = SCOPES.host!
    else if (everybody) r.scope = SCOPES.link!
    else if (deletes) r.scope = SCOPES.nowhere!
    else if (r.type <= 1 && !r.gateway && r.hops.length === 0) r.scope = SCOPES.link!
  }
  if (!r.said.has('table') && (local || r.type === TYPES.broadcast || r.type === TYPES.anycast)) r.table = TABLES.local!
}

function read_route(args: Args, links: Links, deletes: boolean): Route {
  const r: Route = {
    ...{ type: deletes ? 0 : 1, tos: 0, table: TABLES.main!, protocol: deletes ? 0 : PROTOCOLS.boot!, scope: 0 },
    ...{ dst: { addr: 0, len: 0 }, attributes: [], hops: [], gateway: false, flags: 0, said: new Set<string>() },
  }
  const metrics: number[] = []
  const locks = { bits: 0 }
  while (!args.done) {
    if (option(r, args, links, metrics, locks)) continue
    const word = args.peek()!
    if (!r.said.has('dst') && word in TYPES) r.type = TYPES[args.next()]!
    else {
      args.word('to')
      if (r.said.has('dst'))
        throw new Failure(`Error: either "to" is duplicate, or "${args.next()}" is a garbage.`, 255)
      r.dst = parse_prefix(args.next())
      r.said.add('dst')
    }
  }
  if (locks.bits !== 0) metrics.unshift(...attr(1, u32(locks.bits)))
  if (metrics.length > 0) r.attributes.push(...attr(8, metrics))
  if (r.hops.length > 0) r.attributes.push(...attr(9, r.hops))
  complete(r, deletes)
  return r
}

function message_of(r: Route): number[] {
  return [
    ...[AF_INET, r.dst.len, 0, r.tos, r.table, r.protocol, r.scope, r.type, ...u32(r.flags)],
    ...(r.dst.len === 0 ? [] : attr(1, addr(r.dst.addr))),
    ...r.attributes,
  ]
}

function* modify(nl: Netlink, args: Args, type: number, flags: number): Command {
  const links = yield* Links.read(nl)
  yield* change(nl, type, flags, message_of(read_route(args, links, type === RTM.DELROUTE)))
}

// ---- show -----------------------------------------------------------------------------------------------------------

interface Filter {
  /** 0: all. */
  table: number
  cache: boolean
  tests: ((m: Message, t: Map<number, Uint8Array>) => boolean)[]
}

function read_filter(args: Args, links: Links): Filter {
  const f: Filter = { table: TABLES.main!, cache: false, tests: [] }
  const dst = (m: Message, t: Map<number, Uint8Array>): Prefix => ({
    addr: t.has(1) ? getAddr(t.get(1)!) : 0,
    len: m.body[1]!,
  })
  while (!args.done) {
    if (args.word('table')) {
      const name = args.next()
      f.cache = name === 'cache'
      f.table = name === 'all' || name === 'cache' ? 0 : value_of(TABLES, name, 'table')
    } else if (args.word('cache', 'cached', 'cloned')) {
      f.cache = true
      f.table = 0
    } else if (args.word('dev', 'oif')) {
      const ifindex = links.index(args.next())
      f.tests.push((_m, t) => t.has(4) && get32(t.get(4)!) === ifindex)
    } else if (args.word('via')) {
      const gw = parse_addr(args.next())
      f.tests.push((_m, t) => t.has(5) && getAddr(t.get(5)!) === gw)
    } else if (args.word('proto', 'protocol')) {
      const name = args.next()
      const protocol = value_of(PROTOCOLS, name, 'protocol')
      f.tests.push(m => m.body[5] === protocol)
    } else if (args.word('scope')) {
      const name = args.next()
      const scope = value_of(SCOPES, name, 'scope')
      f.tests.push(m => m.body[6] === scope)
    } else if (args.word('type')) {
      const name = args.next()
      const type = value_of(TYPES, name, 'type')
      f.tests.push(m => m.body[7] === type)
    } else {
      const root = args.word('root')
      const match = !root && args.word('match')
      if (!root && !match) args.word('exact')
      args.word('to')
      const p = parse_prefix(args.next())
      f.tests.push((m, t) => {
        const d = dst(m, t)
        if (root) return d.len >= p.len && ((d.addr ^ p.addr) & mask_of(p.len)) === 0
        if (match) return d.len <= p.len && ((d.addr ^ p.addr) & mask_of(d.len)) === 0
        return d.len === p.len && d.addr === p.addr
      })
    }
  }
  return f
}

function* selected(nl: Netlink, f: Filter): Generator<void, Message[], void> {
  const flags = f.cache ? RTM_F_CLONED : 0
  const all = yield* dump(nl, RTM.GETROUTE, [AF_INET, 0, 0, 0, 0, 0, 0, 0, ...u32(flags)])
  return all.filter(m => {
    if (f.table !== 0 && m.body[4] !== f.table) return false
    const t = attrs(m.body, 12)
    return f.tests.every(test => test(m, t))
  })
}

function* show(nl: Netlink, args: Args, io: Output): Command {
  const links = yield* Links.read(nl)
  const filter = read_filter(args, links)
  for (const m of yield* selected(nl, filter)) yield* io.out(route_text(m, links, filter.table))
}

function* flush(nl: Netlink, args: Args, io: Output): Command {
  if (args.done) usage('"ip route flush" requires arguments')
  const links = yield* Links.read(nl)
  const filter = read_filter(args, links)
  if (filter.cache) usage('"ip route flush cache" is not possible: the cache is emptied when something changes')
  const routes = yield* selected(nl, filter)
  for (const m of routes) yield* change(nl, RTM.DELROUTE, 0, [...m.body])
  if (routes.length === 0) yield* io.out('Nothing to flush.\n')
}

function* get(nl: Netlink, args: Args, io: Output): Command {
  const links = yield* Links.read(nl)
  const attributes: number[] = []
  let [tos, src] = [0, false]
  let dst: Prefix | null = null
  while (!args.done) {
    if (args.word('from')) {
      attributes.push(...attr(2, addr(parse_addr(args.next()))))
      src = true
    } else if (args.word('iif')) {
      attributes.push(...attr(3, u32(links.index(args.next()))))
    } else if (args.word('oif', 'dev')) attributes.push(...attr(4, u32(links.index(args.next()))))
    else if (args.word('tos', 'dsfield')) tos = args.number(255)
    else {
      args.word('to')
      dst = parse_prefix(args.next())
    }
  }
  if (dst === null || dst.len !== 32) usage('need at least destination address')
  const body = [AF_INET, 32, src ? 32 : 0, tos, 0, 0, 0, 0, 0, 0, 0, 0, ...attr(1, addr(dst.addr)), ...attributes]
  const m = yield* rtnl_talk(nl, RTM.GETROUTE, 0, body)
  if (typeof m === 'number') throw new Failure(`RTNETLINK answers: ${strerror(m)}`, 2)
  yield* io.out(route_text(m, links, 0))
}

/** do_iproute */
export function* ip_route(nl: Netlink, args: Args, io: Output): Command {
  if (args.done || args.take('show', 'list', 'ls', 'lst')) return yield* show(nl, args, io)
  if (args.word('add', 'a')) return yield* modify(nl, args, RTM.NEWROUTE, NLM_F_CREATE | NLM_F_EXCL)
  if (args.word('append')) return yield* modify(nl, args, RTM.NEWROUTE, NLM_F_CREATE | NLM_F_APPEND)
  if (args.word('prepend')) return yield* modify(nl, args, RTM.NEWROUTE, NLM_F_CREATE)
  if (args.word('replace')) return yield* modify(nl, args, RTM.NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE)
  if (args.word('change', 'chg')) return yield* modify(nl, args, RTM.NEWROUTE, NLM_F_REPLACE)
  if (args.take('delete', 'del')) return yield* modify(nl, args, RTM.DELROUTE, 0)
  if (args.word('get')) return yield* get(nl, args, io)
  if (args.take('flush')) return yield* flush(nl, args, io)
  usage(`Command "${args.next()}" is unknown, try "ip route help".`)
}
