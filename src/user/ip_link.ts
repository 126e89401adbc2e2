/** ip_link.ts - `ip link` and `ip addr`. */
import {
  type Args,
  change,
  dotted,
  dump,
  Failure,
  Links,
  mac,
  mask_of,
  name_of,
  type Output,
  parse_addr,
  parse_mac,
  parse_prefix,
  SCOPES,
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
  getText,
  type Message,
  type Netlink,
  NLM_F_CREATE,
  NLM_F_EXCL,
  RTM,
  text,
  u32,
} from './libnetlink.js'

type Command = Generator<void, void, void>

/** In the order of iproute2. */
const FLAGS: Readonly<Record<string, number>> = {
  ...{ LOOPBACK: 0x8, BROADCAST: 0x2, POINTOPOINT: 0x10, MULTICAST: 0x1000, NOARP: 0x80, ALLMULTI: 0x200 },
  ...{ PROMISC: 0x100, DEBUG: 0x4, DYNAMIC: 0x8000, AUTOMEDIA: 0x4000, PORTSEL: 0x2000, NOTRAILERS: 0x20, UP: 0x1 },
}
const [IFF_UP, IFF_RUNNING, IFF_NOARP, IFF_PROMISC, IFF_ALLMULTI, IFF_MULTICAST] = [1, 0x40, 0x80, 0x100, 0x200, 0x1000]
const ARPHRD: Record<number, string> = { 1: 'ether', 772: 'loopback' }

function flags_text(flags: number): string {
  const names = Object.keys(FLAGS).filter(name => (flags & FLAGS[name]!) !== 0)
  if ((flags & IFF_UP) !== 0 && (flags & IFF_RUNNING) === 0) names.unshift('NO-CARRIER')
  return names.join(',')
}

/** print_linkinfo */
function link_text(m: Message, stats: boolean): string {
  const t = attrs(m.body, 16)
  const qlen = get32(t.get(13)!)
  let line = `${get32(m.body, 4)}: ${getText(t.get(3)!)}: <${flags_text(get32(m.body, 8))}> mtu ${get32(t.get(4)!)} `
  line += `qdisc ${getText(t.get(6)!)} ${qlen > 0 ? `qlen ${qlen}` : ''}\n`
  line += `    link/${ARPHRD[get16(m.body, 2)] ?? `[${get16(m.body, 2)}]`} ${mac(t.get(1)!)} brd ${mac(t.get(2)!)}\n`
  return stats && t.has(7) ? line + stats_text(t.get(7)!) : line
}

function stats_text(s: Uint8Array): string {
  const at = (k: number): number => get32(s, k * 4) >>> 0
  const row = (...values: number[]): string =>
    `    ${String(values[0]).padEnd(10)} ${String(values[1]).padEnd(8)} ${values
      .slice(2)
      .map(v => String(v).padEnd(7))
      .join(' ')} \n`
  return (
    '    RX: bytes  packets  errors  dropped overrun mcast   \n' +
    row(at(2), at(0), at(4), at(6), at(11), at(8)) +
    '    TX: bytes  packets  errors  dropped carrier collsns \n' +
    row(at(3), at(1), at(5), at(7), at(17), at(9))
  )
}

/** print_addrinfo */
function addr_text(m: Message): string {
  const t = attrs(m.body, 8)
  const local = dotted(t.get(2)!)
  const address = dotted(t.get(1)!)
  let line = `    inet ${local}`
  line += address === local ? `/${m.body[1]} ` : ` peer ${address}/${m.body[1]} `
  if (t.has(4)) line += `brd ${dotted(t.get(4)!)} `
  line += `scope ${name_of(SCOPES, m.body[3]!)} `
  if ((m.body[2]! & 1) !== 0) line += 'secondary '
  return `${line}${t.has(3) ? getText(t.get(3)!) : ''}\n`
}

/** A device's name in the arguments, `dev eth0` or `eth0`; null: there is none. */
function device_arg(args: Args): string | null {
  args.word('dev')
  return args.done ? null : args.next()
}

function* show(nl: Netlink, args: Args, io: Output, addresses: boolean, stats: boolean): Command {
  const links = yield* Links.read(nl)
  const up = args.word('up')
  const dev = device_arg(args)
  const only = dev === null ? 0 : links.index(dev)
  const all = addresses ? yield* dump(nl, RTM.GETADDR, [AF_INET, 0, 0, 0, 0, 0, 0, 0]) : []
  for (const m of links.messages) {
    const ifindex = get32(m.body, 4)
    if ((only !== 0 && ifindex !== only) || (up && (get32(m.body, 8) & IFF_UP) === 0)) continue
    yield* io.out(link_text(m, stats))
    for (const a of all) if (get32(a.body, 4) === ifindex) yield* io.out(addr_text(a))
  }
}

// ---- ip link --------------------------------------------------------------------------------------------------------

function on_off(args: Args, what: string): boolean {
  const arg = args.next()
  if (arg !== 'on' && arg !== 'off') throw new Failure(`Error: argument of "${what}" must be "on" or "off"`, 255)
  return arg === 'on'
}

function* link_set(nl: Netlink, args: Args): Command {
  const links = yield* Links.read(nl)
  const dev = device_arg(args)
  if (dev === null) usage('Not enough of information: "dev" argument is required.')
  const ifindex = links.index(dev)
  let [flags, mask] = [0, 0]
  const bit = (which: number, on: boolean): void => {
    mask |= which
    flags = on ? flags | which : flags & ~which
  }
  const extra: number[] = []
  while (!args.done) {
    if (args.word('up')) bit(IFF_UP, true)
    else if (args.word('down')) bit(IFF_UP, false)
    else if (args.take('mtu')) extra.push(...attr(4, u32(args.number())))
    else if (args.take('txqueuelen', 'qlen')) extra.push(...attr(13, u32(args.number())))
    else if (args.take('name')) extra.push(...attr(3, text(args.next())))
    else if (args.take('address', 'lladdr')) extra.push(...attr(1, parse_mac(args.next())))
    else if (args.word('arp')) bit(IFF_NOARP, !on_off(args, 'arp'))
    else if (args.word('multicast')) bit(IFF_MULTICAST, on_off(args, 'multicast'))
    else if (args.word('promisc')) bit(IFF_PROMISC, on_off(args, 'promisc'))
    else if (args.word('allmulticast')) bit(IFF_ALLMULTI, on_off(args, 'allmulticast'))
    else throw new Failure(`Error: either "dev" is duplicate, or "${args.next()}" is a garbage.`, 255)
  }
  const head = (f: number, c: number): number[] => [0, 0, 0, 0, ...u32(ifindex), ...u32(f), ...u32(c)]
  if (extra.length > 0) yield* change(nl, RTM.SETLINK, 0, [...head(0, 0), ...extra])
  if (mask !== 0) yield* change(nl, RTM.NEWLINK, 0, head(flags, mask))
}

/** do_iplink */
export function* ip_link(nl: Netlink, args: Args, io: Output, stats: boolean): Command {
  if (args.word('set')) return yield* link_set(nl, args)
  if (args.done || args.take('show', 'list', 'lst', 'ls')) return yield* show(nl, args, io, false, stats)
  usage(`Command "${args.next()}" is unknown, try "ip link help".`)
}

// ---- ip addr --------------------------------------------------------------------------------------------------------

function* addr_modify(nl: Netlink, args: Args, type: number): Command {
  const links = yield* Links.read(nl)
  let local = 0
  let len = 32
  let [peer, broadcast, scope]: (number | null)[] = [null, null, null]
  let [dev, label, brd]: (string | null)[] = [null, null, null]
  while (!args.done) {
    if (args.word('peer', 'remote')) {
      const p = parse_prefix(args.next())
      peer = p.addr
      len = p.len
    } else if (args.word('broadcast', 'brd')) brd = args.next()
    else if (args.word('scope')) scope = value_of(SCOPES, args.next(), 'scope')
    else if (args.word('dev')) dev = args.next()
    else if (args.word('label')) label = args.next()
    else {
      args.word('local')
      const p = parse_prefix(args.next())
      local = p.addr
      if (peer === null) len = p.len
    }
  }
  if (dev === null) usage('Not enough information: "dev" argument is required.')
  if (label !== null && label !== dev && !label.startsWith(`${dev}:`))
    usage(`"dev" (${dev}) must match "label" (${label}).`)
  if (brd === '+') broadcast = local | ~mask_of(len)
  else if (brd === '-') broadcast = local & mask_of(len)
  else if (brd !== null) broadcast = parse_addr(brd)
  const adds = type === RTM.NEWADDR
  scope ??= adds && local >>> 24 === 127 ? 254 : 0
  yield* change(nl, type, adds ? NLM_F_CREATE | NLM_F_EXCL : 0, [
    ...[AF_INET, len, 0, scope, ...u32(links.index(dev))],
    ...(local === 0 ? [] : attr(2, addr(local))),
    ...attr(1, addr(peer ?? local)),
    ...(broadcast === null ? [] : attr(4, addr(broadcast))),
    ...(label === null ? [] : attr(3, text(label))),
  ])
}

function* addr_flush(nl: Netlink, args: Args): Command {
  const links = yield* Links.read(nl)
  const dev = device_arg(args)
  if (dev === null) usage('Flush requires arguments.')
  const only = links.index(dev)
  for (;;) {
    // A primary takes its secondaries along, so the list is asked for anew.
    const all = yield* dump(nl, RTM.GETADDR, [AF_INET, 0, 0, 0, 0, 0, 0, 0])
    const m = all.find(a => get32(a.body, 4) === only)
    if (m === undefined) return
    yield* change(nl, RTM.DELADDR, 0, [...m.body])
  }
}

/** do_ipaddr */
export function* ip_addr(nl: Netlink, args: Args, io: Output, stats: boolean): Command {
  if (args.word('add', 'a')) return yield* addr_modify(nl, args, RTM.NEWADDR)
  if (args.take('delete', 'del')) return yield* addr_modify(nl, args, RTM.DELADDR)
  if (args.take('flush')) return yield* addr_flush(nl, args)
  if (args.done || args.take('show', 'list', 'lst', 'ls')) return yield* show(nl, args, io, true, stats)
  usage(`Command "${args.next()}" is unknown, try "ip address help".`)
}
