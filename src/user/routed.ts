/**
 * routed.ts - the routing daemon: tells its neighbours by RIP version 2 which networks it can reach, learns theirs, and enters
 * them into the kernel by netlink. It broadcasts, since this machine's kernel joins no multicast group. It looks at its sockets ten
 * times a second.
 */
import {
  alarm,
  bind,
  close,
  type Libc,
  malloc,
  mem,
  nanosleep,
  recvfrom,
  sendto,
  setsockopt,
  sin_addr,
  sin_port,
  sockaddr_in,
  socket,
  store32,
  variable,
} from './libc.js'
import {
  AF_INET,
  addr,
  attr,
  attrs,
  get32,
  getAddr,
  type Message,
  type Netlink,
  NLM_F_CREATE,
  NLM_F_REPLACE,
  RTM,
  RTMGRP,
  receive,
  rtnl_change,
  rtnl_close,
  rtnl_dump,
  rtnl_open,
  u32,
} from './libnetlink.js'
import { on_signals, SIGALRM, SIGINT, SIGTERM } from './libsignal.js'
import {
  INFINITY,
  RIP_PORT,
  RIP_REQUEST,
  RIP_RESPONSE,
  type RipEntry,
  type RipRoute,
  RipTable,
  type RipTimers,
  rip_decode,
  rip_encode,
} from './rip.js'
import { arguments_of, fprintf, getopt, number_option, perror, STDERR } from './stdio.js'

const SOCK_DGRAM = 2
const SOL_SOCKET = 1
const SO_BROADCAST = 6
const MSG_DONTWAIT = 0x40
const IFF_UP = 1
const IFF_LOOPBACK = 8
const IFF_RUNNING = 0x40
const RTPROT_RIP = 189
const ROOM = 1500
const LOOK_MS = 100

/** An address of an interface that is up. */
interface Interface {
  ifindex: number
  local: number
  mask: number
  broadcast: number
}

interface Daemon {
  fd: number
  /** Requests, and what the kernel tells. */
  nl: Netlink
  ear: Netlink
  table: RipTable
  interfaces: Interface[]
  /** Networks that the kernel has routes of its own to: an interface that lost its carrier keeps them. */
  attached: Set<string>
  /** Routes to enter (true) or to take out, in this order. */
  jobs: [RipRoute, boolean][]
  /** Seconds since the start. */
  now: number
  next_update: number
  next_triggered: number
  buf: number
  peer: number
  len: number
}

function mask_of(len: number): number {
  return len === 0 ? 0 : -1 << (32 - len)
}

// ---- the kernel's side ----------------------------------------------------------------------------------------------

/** The interfaces as they are now: networks come and go with them. */
function* look_at_interfaces(d: Daemon): Libc {
  const links = yield* rtnl_dump(d.nl, RTM.GETLINK, new Array<number>(16).fill(0))
  const addrs = yield* rtnl_dump(d.nl, RTM.GETADDR, [AF_INET, 0, 0, 0, 0, 0, 0, 0])
  if (typeof links === 'number') return links
  if (typeof addrs === 'number') return addrs
  const having = (flags: number): Set<number> => {
    const all = (m: Message): boolean => (get32(m.body, 8) & (flags | IFF_LOOPBACK)) === flags
    return new Set(links.filter(all).map(m => get32(m.body, 4)))
  }
  const [up, usable] = [having(IFF_UP), having(IFF_UP | IFF_RUNNING)]
  d.interfaces = []
  d.attached = new Set()
  for (const m of addrs) {
    const ifindex = get32(m.body, 4)
    const t = attrs(m.body, 8)
    if (!up.has(ifindex) || !t.has(2)) continue
    const local = getAddr(t.get(2)!)
    const mask = mask_of(m.body[1]!)
    d.attached.add(`${local & mask}/${mask}`)
    if (usable.has(ifindex))
      d.interfaces.push({ ifindex, local, mask, broadcast: t.has(4) ? getAddr(t.get(4)!) : local | ~mask })
  }
  for (const r of [...d.table.routes.values()]) {
    const net_of = (i: Interface): boolean =>
      i.ifindex === r.ifindex && (i.local & i.mask) === r.net && i.mask === r.mask
    const reaches = (i: Interface): boolean => i.ifindex === r.ifindex && ((i.local ^ r.gateway) & i.mask) === 0
    if (!d.interfaces.some(r.gateway === 0 ? net_of : reaches)) d.table.disconnect(r.ifindex, d.now, x => x !== r)
  }
  for (const i of d.interfaces) d.table.connect(i.local & i.mask, i.mask, i.ifindex)
  return 0
}

/** A route as a message. */
function route_message(r: RipRoute): number[] {
  const len = r.mask === 0 ? 0 : 32 - Math.round(Math.log2((~r.mask >>> 0) + 1))
  return [
    ...[AF_INET, len, 0, 0, 254, RTPROT_RIP, 0, 1, ...u32(0)],
    ...(len === 0 ? [] : attr(1, addr(r.net))),
    ...attr(4, u32(r.ifindex)),
    ...attr(5, addr(r.gateway)),
  ]
}

/** Enter and take out what the table decided. A route that went with its device is gone already (ESRCH). */
function* do_jobs(d: Daemon): Libc {
  for (const [route, enters] of d.jobs.splice(0)) {
    if (enters) yield* rtnl_change(d.nl, RTM.NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route_message(route))
    else yield* rtnl_change(d.nl, RTM.DELROUTE, 0, route_message(route))
  }
  return 0
}

/** Has the kernel told of links or addresses? Lost news count as news. */
function* news(d: Daemon): Libc {
  let any = 0
  for (;;) {
    const m = yield* receive(d.ear, MSG_DONTWAIT)
    if (typeof m === 'number' && m !== -105) return any
    any = 1
  }
}

// ---- the neighbours' side -------------------------------------------------------------------------------------------

function* send_to(d: Daemon, command: number, entries: readonly RipEntry[], to: number, port: number): Libc {
  for (const bytes of rip_encode(command, entries)) {
    mem(d.buf, bytes.length).set(bytes)
    yield* sendto(d.fd, d.buf, bytes.length, 0, sockaddr_in(d.peer, to, port), 16) // a link that is down is no error
  }
  return 0
}

/** To everybody on every interface. */
function* tell(d: Daemon, only_changed: boolean): Libc {
  for (const i of d.interfaces)
    yield* send_to(d, RIP_RESPONSE, d.table.entries(i.ifindex, only_changed), i.broadcast, RIP_PORT)
  d.table.told()
  return 0
}

function* ask(d: Daemon): Libc {
  const all: RipEntry = { family: 0, net: 0, mask: 0, nexthop: 0, metric: INFINITY }
  for (const i of d.interfaces) yield* send_to(d, RIP_REQUEST, [all], i.broadcast, RIP_PORT)
  return 0
}

/** One datagram of somebody else. */
function* hear(d: Daemon, bytes: Uint8Array, from: number, port: number): Libc {
  const m = rip_decode(bytes)
  const i = d.interfaces.find(x => ((x.local ^ from) & x.mask) === 0)
  if (m === null || i === undefined || d.interfaces.some(x => x.local === from)) return 0
  if (m.command === RIP_REQUEST) {
    const [first] = m.entries
    const whole = m.entries.length === 1 && first!.family === 0 && first!.metric === INFINITY
    const asked = m.entries.map(e => ({ ...e, metric: d.table.routes.get(`${e.net}/${e.mask}`)?.metric ?? INFINITY }))
    return yield* send_to(d, RIP_RESPONSE, whole ? d.table.entries(i.ifindex, false) : asked, from, port)
  }
  if (m.command !== RIP_RESPONSE || port !== RIP_PORT) return 0
  const onlink = (a: number): boolean => ((i.local ^ a) & i.mask) === 0 && a !== i.local
  for (const e of m.entries) if (!d.attached.has(`${e.net}/${e.mask}`)) d.table.heard(e, from, i.ifindex, d.now, onlink)
  return 0
}

function* hear_all(d: Daemon): Libc {
  for (;;) {
    store32(d.len, 16)
    const n = yield* recvfrom(d.fd, d.buf, ROOM, MSG_DONTWAIT, d.peer, d.len)
    if (n < 0) return n
    yield* hear(d, mem(d.buf, n).slice(), sin_addr(d.peer), sin_port(d.peer))
  }
}

// ---- the daemon -----------------------------------------------------------------------------------------------------

function* open_daemon(timers: RipTimers): Generator<void, Daemon | number, void> {
  const fd = yield* socket(AF_INET, SOCK_DGRAM, 0)
  if (fd < 0) return fd
  yield* setsockopt(fd, SOL_SOCKET, SO_BROADCAST, variable(1), 4)
  const err = yield* bind(fd, sockaddr_in(malloc(16), 0, RIP_PORT), 16)
  if (err < 0) return err
  const nl = yield* rtnl_open()
  const ear = yield* rtnl_open(RTMGRP.LINK | RTMGRP.IPV4_IFADDR)
  if (typeof nl === 'number') return nl
  if (typeof ear === 'number') return ear
  const jobs: Daemon['jobs'] = []
  const table = new RipTable(timers, {
    install: route => jobs.push([{ ...route }, true]),
    withdraw: route => jobs.push([{ ...route }, false]),
  })
  const places = { buf: malloc(ROOM), peer: malloc(16), len: variable() }
  const state = { interfaces: [], attached: new Set<string>(), now: 0, next_update: 0, next_triggered: 0 }
  return { fd, nl, ear, table, jobs, ...state, ...places }
}

/** What is due now. */
function* turn(d: Daemon): Libc {
  yield* hear_all(d)
  if ((yield* news(d)) !== 0) yield* look_at_interfaces(d)
  d.table.age(d.now)
  yield* do_jobs(d)
  if (d.now >= d.next_update) {
    yield* tell(d, false)
    d.next_update = d.now + d.table.timers.update
  } else if (d.table.changed && d.now >= d.next_triggered) {
    yield* tell(d, true)
    d.next_triggered = d.now + 1 // not more often, whatever happens
  }
  return 0
}

/** The end: neighbours are told that nothing leads through here any more, and what was learned is taken out. */
function* leave(d: Daemon): Libc {
  for (const r of d.table.routes.values()) {
    if (r.gateway !== 0 && r.metric < INFINITY) d.jobs.push([{ ...r }, false])
    r.metric = INFINITY
    r.changed = true
  }
  yield* do_jobs(d)
  yield* tell(d, false)
  yield* rtnl_close(d.nl)
  yield* rtnl_close(d.ear)
  return yield* close(d.fd)
}

/** routed_main - `routed [-u update] [-t timeout] [-g garbage] [-r run]`, seconds. Runs until a signal comes. */
export function* routed_main(argc: number, argv: number): Libc {
  const options = getopt(arguments_of(argc, argv), 'u:t:g:r:')
  const [update, timeout, garbage, run] = (['u', 't', 'g', 'r'] as const).map((letter, k) =>
    number_option(options, letter, [0, 86_400], [30, 180, 120, 0][k]!),
  )
  if (options.wrong !== '' || options.rest.length > 0 || !update || !timeout || !garbage || run == null) {
    yield* fprintf(STDERR, 'usage: routed [-u update] [-t timeout] [-g garbage] [-r run], seconds\n')
    return 2
  }
  const d = yield* open_daemon({ update, timeout, garbage })
  if (typeof d === 'number') {
    yield* perror('routed', d)
    return 1
  }
  const came = yield* on_signals(SIGALRM, SIGINT, SIGTERM)
  if (run > 0) yield* alarm(run)
  yield* look_at_interfaces(d)
  yield* ask(d)
  while (came() === 0) {
    yield* turn(d)
    yield* nanosleep(LOOK_MS * 1e6)
    d.now += LOOK_MS / 1000
  }
  yield* leave(d)
  return 0
}
