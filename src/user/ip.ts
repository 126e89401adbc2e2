/** ip.ts - `ip`: links, addresses, routes, neighbours and rules, shown and changed by netlink (what iproute2 is). */
import { ip_addr, ip_link } from './ip_link.js'
import { ip_route } from './ip_route.js'
import {
  Args,
  change,
  dotted,
  dump,
  Failure,
  Links,
  mac,
  NUDS,
  name_of,
  type Output,
  parse_addr,
  parse_mac,
  parse_prefix,
  TABLES,
  TYPES,
  usage,
  value_of,
} from './ip_util.js'
import { ip_xfrm } from './ip_xfrm.js'
import type { Libc } from './libc.js'
import {
  AF_INET,
  addr,
  attr,
  attrs,
  get16,
  get32,
  getText,
  type Message,
  type Netlink,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  RTM,
  rtnl_close,
  rtnl_open,
  text,
  u16,
  u32,
} from './libnetlink.js'
import { arguments_of, fprintf, printf, STDERR, strerror } from './stdio.js'

type Command = Generator<void, void, void>
const USAGE = `Usage: ip [ -s ] OBJECT { COMMAND | help }
where  OBJECT := { link | addr | route | neigh | rule | xfrm }`
const NTF_PROXY = 8

// ---- ip neigh -------------------------------------------------------------------------------------------------------

/** print_neigh */
function neigh_text(m: Message, links: Links): string {
  const t = attrs(m.body, 12)
  const state = get16(m.body, 8)
  let line = `${t.has(1) ? dotted(t.get(1)!) : ''} dev ${links.name(get32(m.body, 4))} `
  if (t.has(2)) line += `lladdr ${mac(t.get(2)!)} `
  return `${line}${name_of(NUDS, state).toUpperCase()}\n`
}

function* neigh_modify(nl: Netlink, args: Args, type: number, flags: number): Command {
  const links = yield* Links.read(nl)
  let state = NUDS.permanent!
  let [dst, ifindex, ndm_flags] = [0, 0, 0]
  let lladdr: number[] | null = null
  while (!args.done) {
    if (args.word('lladdr')) lladdr = parse_mac(args.next())
    else if (args.word('nud')) state = value_of(NUDS, args.next(), 'state', 0xff)
    else if (args.word('dev')) ifindex = links.index(args.next())
    else {
      if (args.word('proxy')) ndm_flags = NTF_PROXY
      else args.word('to')
      dst = parse_addr(args.next())
    }
  }
  if (dst === 0 || (ifindex === 0 && ndm_flags === 0)) usage('Device and destination are required arguments.')
  yield* change(nl, type, flags, [
    ...[AF_INET, 0, 0, 0, ...u32(ifindex), ...u16(state), ndm_flags, 0],
    ...attr(1, addr(dst)),
    ...(lladdr === null ? [] : attr(2, lladdr)),
  ])
}

function* neigh_list(nl: Netlink, args: Args, io: Output, flush: boolean): Command {
  const links = yield* Links.read(nl)
  let ifindex = 0
  let states = 0xff & ~NUDS.noarp!
  let to = { addr: 0, len: 0 }
  if (flush && args.done) usage('Flush requires arguments.')
  if (flush) states &= ~NUDS.permanent!
  while (!args.done) {
    if (args.word('dev')) ifindex = links.index(args.next())
    else if (args.word('nud')) {
      const name = args.next()
      states = name === 'all' ? 0xff : value_of(NUDS, name, 'state', 0xff)
    } else {
      args.word('to')
      to = parse_prefix(args.next())
    }
  }
  const all = yield* dump(nl, RTM.GETNEIGH, [AF_INET, ...new Array<number>(11).fill(0)])
  for (const m of all) {
    const dst = attrs(m.body, 12).get(1)!
    const outside = to.len > 0 && ((parse_addr(dotted(dst)) ^ to.addr) & (-1 << (32 - to.len))) !== 0
    if ((ifindex !== 0 && get32(m.body, 4) !== ifindex) || outside) continue
    if ((get16(m.body, 8) & states) === 0) continue
    if (!flush) yield* io.out(neigh_text(m, links))
    else yield* change(nl, RTM.DELNEIGH, 0, [...m.body.subarray(0, 12), ...attr(1, [...dst])])
  }
}

function* ip_neigh(nl: Netlink, args: Args, io: Output): Command {
  if (args.done || args.take('show', 'list', 'ls', 'lst')) return yield* neigh_list(nl, args, io, false)
  if (args.word('add')) return yield* neigh_modify(nl, args, RTM.NEWNEIGH, NLM_F_CREATE | NLM_F_EXCL)
  if (args.word('change', 'chg')) return yield* neigh_modify(nl, args, RTM.NEWNEIGH, NLM_F_REPLACE)
  if (args.word('replace')) return yield* neigh_modify(nl, args, RTM.NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE)
  if (args.take('delete', 'del')) return yield* neigh_modify(nl, args, RTM.DELNEIGH, 0)
  if (args.take('flush')) return yield* neigh_list(nl, args, io, true)
  usage(`Command "${args.next()}" is unknown, try "ip neighbour help".`)
}

// ---- ip rule --------------------------------------------------------------------------------------------------------

/** print_rule */
function rule_text(m: Message): string {
  const b = m.body
  const t = attrs(b, 12)
  const prefix = (type: number, len: number): string => `${dotted(t.get(type)!)}${len === 32 ? '' : `/${len}`} `
  let line = `${t.has(6) ? get32(t.get(6)!) >>> 0 : 0}:\t`
  line += t.has(2) ? `from ${prefix(2, b[2]!)}` : 'from all '
  if (t.has(1)) line += `to ${prefix(1, b[1]!)}`
  if (b[3] !== 0) line += `tos 0x${b[3]!.toString(16).padStart(2, '0')} `
  if (t.has(10)) line += `fwmark 0x${(get32(t.get(10)!) >>> 0).toString(16)} `
  if (t.has(3)) line += `iif ${getText(t.get(3)!)} `
  if (b[7] === 1) line += `lookup ${name_of(TABLES, b[4]!)} `
  else line += name_of(TYPES, b[7]!)
  return `${line}\n`
}

function* rule_modify(nl: Netlink, args: Args, type: number): Command {
  const adds = type === RTM.NEWRULE
  let [tos, table, action, src_len, dst_len] = [0, 0, adds ? TYPES.unicast! : 0, 0, 0]
  const attributes: number[] = []
  const take_prefix = (kind: number): number => {
    const p = parse_prefix(args.next())
    if (p.len > 0) attributes.push(...attr(kind, addr(p.addr)))
    return p.len
  }
  while (!args.done) {
    if (args.word('from')) src_len = take_prefix(2)
    else if (args.word('to')) dst_len = take_prefix(1)
    else if (args.word('preference', 'order', 'priority', 'pref', 'prio'))
      attributes.push(...attr(6, u32(args.number())))
    else if (args.word('tos', 'dsfield')) tos = args.number(255)
    else if (args.word('fwmark')) attributes.push(...attr(10, u32(args.number())))
    else if (args.word('dev', 'iif')) attributes.push(...attr(3, text(args.next())))
    else if (args.word('table', 'lookup')) table = value_of(TABLES, args.next(), 'table ID')
    else {
      args.word('type')
      const name = args.next()
      action = TYPES[name] ?? usage(`Failed to parse rule type "${name}"`)
    }
  }
  if (adds && table === 0 && action === TYPES.unicast) table = TABLES.main!
  const head = [AF_INET, dst_len, src_len, tos, table, adds ? 3 : 0, 0, action, 0, 0, 0, 0]
  yield* change(nl, type, adds ? NLM_F_CREATE | NLM_F_EXCL : 0, [...head, ...attributes])
}

function* ip_rule(nl: Netlink, args: Args, io: Output): Command {
  if (args.done || args.take('show', 'list', 'ls', 'lst')) {
    for (const m of yield* dump(nl, RTM.GETRULE, [AF_INET, ...new Array<number>(11).fill(0)]))
      yield* io.out(rule_text(m))
    return
  }
  if (args.word('add')) return yield* rule_modify(nl, args, RTM.NEWRULE)
  if (args.take('delete', 'del')) return yield* rule_modify(nl, args, RTM.DELRULE)
  usage(`Command "${args.next()}" is unknown, try "ip rule help".`)
}

// ---- ip -------------------------------------------------------------------------------------------------------------

function* run(nl: Netlink, args: Args, io: Output): Command {
  const stats = args.word('-s', '-stats', '-statistics')
  if (args.done || args.word('help', '-h')) usage(USAGE)
  if (args.take('link')) return yield* ip_link(nl, args, io, stats)
  if (args.take('address', 'addr')) return yield* ip_addr(nl, args, io, stats)
  if (args.take('route')) return yield* ip_route(nl, args, io)
  if (args.take('neighbour', 'neighbor', 'neigh', 'arp')) return yield* ip_neigh(nl, args, io)
  if (args.take('rule', 'ru')) return yield* ip_rule(nl, args, io)
  if (args.take('xfrm')) return yield* ip_xfrm(args, io, stats)
  usage(`Object "${args.next()}" is unknown, try "ip help".`)
}

/** ip_main - one command, such as `['route', 'add', 'default', 'via', '10.0.0.1']`. @returns exit code: 0, 1, 2: the kernel says no, 255: usage */
export function* ip_main(argv: readonly string[], io: Output): Libc {
  const nl = yield* rtnl_open()
  if (typeof nl === 'number') {
    yield* io.err(`Cannot open netlink socket: ${strerror(nl)}\n`)
    return 1
  }
  let code = 0
  try {
    yield* run(nl, new Args(argv), io)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    yield* io.err(`${error.message}\n`)
    code = error.code
  }
  yield* rtnl_close(nl)
  return code
}

/** ip_program_main - `ip` as a program: on its console. */
export function* ip_program_main(argc: number, argv: number): Libc {
  return yield* ip_main(arguments_of(argc, argv).slice(1), { out: printf, err: line => fprintf(STDERR, line) })
}
