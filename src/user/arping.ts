/** arping.ts - asks for the station address of a neighbour, or announces one's own, with the words and exit codes of iputils. */
import { EAGAIN, EINTR } from '../lib/errno.js'
import {
  bind,
  close,
  connect,
  getsockname,
  gettimeofday,
  type Libc,
  malloc,
  mem,
  recvfrom,
  sendto,
  set_timeout,
  set_word,
  setsockopt,
  sin_addr,
  sockaddr_in,
  socket,
  store32,
  string,
  variable,
} from './libc.js'
import {
  AF_PACKET,
  ETH_P_ARP,
  ether_ntoa,
  get_sockaddr_ll,
  IFF_LOOPBACK,
  IFF_NOARP,
  IFF_UP,
  if_flags,
  if_nametoindex,
  PACKET_HOST,
  PACKET_MULTICAST,
  SOCKADDR_LL_SIZE,
  sockaddr_ll,
} from './libpacket.js'
import { arguments_of, fprintf, getopt, inet_aton, inet_ntoa, number_option, perror, puts, STDERR } from './stdio.js'

const [AF_INET, SOCK_DGRAM] = [2, 2]
const [SOL_SOCKET, SO_DONTROUTE, SO_BROADCAST, SO_BINDTODEVICE] = [1, 5, 6, 25]
const [ARPOP_REQUEST, ARPOP_REPLY] = [1, 2]
const SECOND = 1e6
const ARP_SIZE = 28
const USAGE = 'usage: arping [-fqbDUA] [-c count] [-w timeout] [-I device] [-s source] destination\n'
const BROADCAST = [255, 255, 255, 255, 255, 255]

interface Plan {
  device: string
  destination: string
  dst: number
  source: number | null
  count: number
  timeout_us: number
  quit_on_reply: boolean
  quiet: boolean
  broadcast_only: boolean
  /** -D: is somebody using this address? */
  dad: boolean
  /** -U, -A: nobody is asked, the neighbours are told. */
  unsolicited: boolean
  /** -A: by an answer instead of a question. */
  advert: boolean
}

function plan(args: readonly string[]): Plan | null {
  const o = getopt(args, 'AbDUfqc:w:I:s:')
  const destination = o.rest[0]
  const dst = destination === undefined ? null : inet_aton(destination)
  const count = number_option(o, 'c', [1, 1e9], 0)
  const timeout = number_option(o, 'w', [1, 1e6], 0)
  const source = o.has('s') ? inet_aton(o.get('s')!) : undefined
  if (o.wrong !== '' || o.rest.length !== 1 || dst === null || source === null || count === null || timeout === null)
    return null
  return {
    ...{ device: o.get('I') ?? 'eth0', destination: destination!, dst, source: source ?? null, count },
    ...{ timeout_us: timeout * SECOND, quit_on_reply: o.has('f') || o.has('D'), quiet: o.has('q') },
    ...{ broadcast_only: o.has('b'), dad: o.has('D'), unsolicited: o.has('U') || o.has('A'), advert: o.has('A') },
  }
}

/** The address that this machine would ask from: what the kernel binds a socket to that is connected there. */
function* probe_source(p: Plan): Libc {
  const fd = yield* socket(AF_INET, SOCK_DGRAM, 0)
  if (fd < 0) return fd
  yield* setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, string(p.device), p.device.length + 1)
  const at = sockaddr_in(malloc(16), p.dst, 1025)
  let err = 0
  if (p.source !== null) err = yield* bind(fd, sockaddr_in(malloc(16), p.source, 0), 16)
  else {
    yield* set_word(fd, SOL_SOCKET, SO_BROADCAST, 1)
    yield* set_word(fd, SOL_SOCKET, SO_DONTROUTE, 1)
    err = yield* connect(fd, at, 16)
    if (err === 0) err = yield* getsockname(fd, at, variable(16))
  }
  yield* close(fd)
  p.source ??= err === 0 ? sin_addr(at) : null
  return err
}

interface Run extends Plan {
  src: number
  fd: number
  /** Our station address, and who is asked: all, until one answered. */
  me: number[]
  he: number[]
  buf: number
  to: number
  from: number
  from_len: number
  sent: number
  broadcasts: number
  received: number
  requests: number
  last: number
}

function bytes_of(addr: number): number[] {
  return [addr >>> 24, (addr >> 16) & 255, (addr >> 8) & 255, addr & 255]
}

function* send_pack(r: Run): Libc {
  const op = r.advert ? ARPOP_REPLY : ARPOP_REQUEST
  const target = r.advert ? r.me : r.he
  const body = [0, 1, 8, 0, 6, 4, 0, op, ...r.me, ...bytes_of(r.src), ...target, ...bytes_of(r.dst)]
  mem(r.buf, ARP_SIZE).set(body)
  r.last = yield* gettimeofday()
  const n = yield* sendto(r.fd, r.buf, ARP_SIZE, 0, r.to, SOCKADDR_LL_SIZE)
  if (n !== ARP_SIZE) return n
  r.sent++
  if (r.he.every(b => b === 255)) r.broadcasts++
  return 0
}

/** recv_pack - an ARP packet that came: is it for us, and what does it say? */
function* recv_pack(r: Run, n: number): Libc {
  const sll = get_sockaddr_ll(r.from)
  const b = mem(r.buf, ARP_SIZE)
  const op = b[6]! * 256 + b[7]!
  if (sll.pkttype > PACKET_MULTICAST || n < ARP_SIZE || b[4] !== 6 || b[5] !== 4) return 0
  if (op !== ARPOP_REQUEST && op !== ARPOP_REPLY) return 0
  const sender = [...b.subarray(8, 14)]
  const target = [...b.subarray(18, 24)]
  const src_ip = sin_addr(r.buf + 10)
  const dst_ip = sin_addr(r.buf + 20)
  const mine = (mac: number[]): boolean => mac.every((byte, k) => byte === r.me[k])
  if (src_ip !== r.dst) return 0
  // Somebody who looks for a double of the address may be asked from 0.0.0.0: then it is the station that counts.
  if (r.dad ? mine(sender) || (r.src !== 0 && dst_ip !== r.src) : dst_ip !== r.src || !mine(target)) return 0
  r.received++
  if (sll.pkttype !== PACKET_HOST) r.requests += op === ARPOP_REQUEST ? 1 : 0
  if (!r.quiet) {
    const us = (yield* gettimeofday()) - r.last
    const kind = sll.pkttype === PACKET_HOST ? 'Unicast' : 'Broadcast'
    const who = `${inet_ntoa(src_ip)} [${ether_ntoa(sender).toUpperCase()}]`
    const asked = dst_ip === r.src ? '' : `for ${inet_ntoa(dst_ip)} `
    const other = mine(target) ? '' : `for [${ether_ntoa(target).toUpperCase()}] `
    const time = `${Math.floor(us / 1000)}.${String(us % 1000).padStart(3, '0')}ms`
    yield* puts(`${kind} ${op === ARPOP_REPLY ? 'reply' : 'request'} from ${who} ${asked}${other} ${time}`)
  }
  if (!r.broadcast_only && !r.unsolicited && !r.dad) {
    r.he = sender // from here on it is asked alone
    mem(r.to + 12, 6).set(sender)
  }
  return 1
}

/** Listen until `until`. @returns 1: enough was heard */
function* listen_until(r: Run, until: number): Libc {
  for (;;) {
    const left = until - (yield* gettimeofday())
    if (left <= 0) return 0
    yield* set_timeout(r.fd, left)
    store32(r.from_len, SOCKADDR_LL_SIZE)
    const n = yield* recvfrom(r.fd, r.buf, 64, 0, r.from, r.from_len)
    if (n === -EAGAIN || n === -EINTR) continue
    if (n < 0) return n
    if ((yield* recv_pack(r, n)) === 1 && r.quit_on_reply) return 1
  }
}

function* rounds(r: Run): Libc {
  const end = r.timeout_us > 0 ? (yield* gettimeofday()) + r.timeout_us : Infinity
  for (let k = 0; r.count === 0 || k < r.count; k++) {
    const err = yield* send_pack(r)
    if (err < 0) return err
    const heard = yield* listen_until(r, Math.min(r.last + SECOND, end))
    if (heard !== 0 || (yield* gettimeofday()) >= end) return Math.min(heard, 0)
  }
  return 0
}

function* finish(r: Run): Libc {
  if (r.quiet) return 0
  const requests = r.requests > 0 ? ` (${r.requests} request(s))` : ''
  yield* puts(`Sent ${r.sent} probes (${r.broadcasts} broadcast(s))`)
  return yield* puts(`Received ${r.received} response(s)${requests}`)
}

function* fail(text: string): Libc {
  yield* fprintf(STDERR, `arping: ${text}\n`)
  return 2
}

/** The socket, on a device that can be asked through. @returns descriptor, less than 0: it was told why not */
function* open_socket(p: Plan): Libc {
  const fd = yield* socket(AF_PACKET, SOCK_DGRAM, 0)
  if (fd < 0) {
    yield* perror('arping: socket', fd)
    return -1
  }
  const index = yield* if_nametoindex(fd, p.device)
  if (index < 0) return -(yield* fail(`unknown iface ${p.device}`))
  const flags = yield* if_flags(fd, p.device)
  if ((flags & IFF_UP) === 0) return -(yield* fail(`Interface "${p.device}" is down`))
  if ((flags & (IFF_NOARP | IFF_LOOPBACK)) !== 0) return -(yield* fail(`Interface "${p.device}" is not ARPable`))
  const err = yield* bind(fd, sockaddr_ll(malloc(SOCKADDR_LL_SIZE), index, ETH_P_ARP), SOCKADDR_LL_SIZE)
  if (err === 0) return fd
  yield* perror('arping: bind', err)
  return -1
}

/** arping - @returns 0: somebody answered (with -D: nobody did), 1: the other way, 2: it could not ask */
export function* arping_main(argc: number, argv: number): Libc {
  const p = plan(arguments_of(argc, argv))
  if (p === null) {
    yield* fprintf(STDERR, USAGE)
    return 2
  }
  const fd = yield* open_socket(p)
  if (fd < 0) return 2
  if (p.unsolicited && p.source === null) p.source = p.dst
  const err = p.dad || p.unsolicited ? 0 : yield* probe_source(p)
  if (err < 0) {
    yield* perror('arping: connect', err)
    return 2
  }
  const name = malloc(SOCKADDR_LL_SIZE)
  yield* getsockname(fd, name, variable(SOCKADDR_LL_SIZE))
  const sll = get_sockaddr_ll(name)
  const r: Run = {
    ...p,
    ...{ src: p.source ?? 0, fd, me: sll.address, he: [...BROADCAST], buf: malloc(64) },
    to: sockaddr_ll(malloc(SOCKADDR_LL_SIZE), sll.ifindex, ETH_P_ARP, BROADCAST),
    ...{ from: malloc(SOCKADDR_LL_SIZE), from_len: variable(SOCKADDR_LL_SIZE) },
    ...{ sent: 0, broadcasts: 0, received: 0, requests: 0, last: 0 },
  }
  if (!p.quiet) yield* puts(`ARPING ${p.destination} from ${inet_ntoa(r.src)} ${p.device}`)
  const failed = yield* rounds(r)
  yield* finish(r)
  yield* close(fd)
  if (failed < 0) {
    yield* perror('arping: sendto', failed)
    return 2
  }
  if (p.dad) return r.received > 0 ? 1 : 0
  return p.unsolicited || r.received > 0 ? 0 : 1
}
