/** ping.ts - echo requests by a raw socket, with the words and the exit codes of iputils. */
import { EAGAIN, EINTR } from '../lib/errno.js'
import {
  close,
  getpid,
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
  variable,
} from './libc.js'
import { on_signals, SIGINT } from './libsignal.js'
import { in_cksum, type Message, message, type QueuedError, recv_error, SO_EE_ORIGIN_LOCAL } from './msg.js'
import {
  arguments_of,
  fprintf,
  getopt,
  inet_aton,
  inet_ntoa,
  number_option,
  type Options,
  perror,
  printf,
  puts,
  STDERR,
  strerror,
} from './stdio.js'

const AF_INET = 2
const SOCK_RAW = 3
const IPPROTO_ICMP = 1
const SOL_IP = 0
const SOL_SOCKET = 1
const SOL_RAW = 255
const [IP_TTL, IP_OPTIONS, IP_MTU_DISCOVER, IP_RECVERR] = [2, 4, 10, 11] as const
const [SO_SNDBUF, SO_RCVBUF] = [7, 8] as const
const MAX_DATA = 65_507
/** The sender waits so long for an answer before it sends on, when it floods, us. */
const FLOOD_US = 10_000

interface Plan {
  target: number
  host: string
  /** Datagrams to send, 0: without end. */
  count: number
  interval_us: number
  size: number
  ttl: number
  flood: boolean
  record: boolean
  quiet: boolean
  wait_us: number
  /** When it ends in any case, us after its beginning; 0: never. */
  deadline_us: number
  pmtudisc: number
}

interface Run extends Plan {
  fd: number
  id: number
  out: number
  back: number
  from: number
  from_len: number
  m: Message
  sent: number
  received: number
  repeats: number
  errors: number
  /** The request that the last error was about. */
  blamed: number
  seen: Set<number>
  rtts: number[]
  began: number
  /** The signal that ends it, 0: none came. */
  stopped: () => number
}

const USAGE =
  'usage: ping [-c count] [-i seconds] [-s size] [-t ttl] [-W seconds] [-w seconds] [-M do|dont|want] [-fqRn] address\n'

/** Seconds with a fraction, as us. */
function seconds(options: Options, letter: string, otherwise: number): number | null {
  const text = options.get(letter)
  if (text === undefined) return otherwise
  const n = Number(text)
  return /^\d+(\.\d*)?$/.test(text) && n <= 86_400 ? Math.round(n * 1e6) : null
}

function plan(args: string[]): Plan | null {
  const o = getopt(args, 'c:i:s:t:W:w:M:fqRn')
  const target = inet_aton(o.rest[0] ?? '')
  const count = number_option(o, 'c', [1, 0x7fffffff], 0)
  const size = number_option(o, 's', [0, MAX_DATA], 56)
  const ttl = number_option(o, 't', [1, 255], 0)
  const interval = seconds(o, 'i', 1e6)
  const wait = seconds(o, 'W', 10e6)
  const deadline = seconds(o, 'w', 0)
  const pmtudisc = ['dont', 'want', 'do'].indexOf(o.get('M') ?? 'want')
  if (o.wrong !== '' || o.rest.length !== 1 || target === null || pmtudisc < 0) return null
  if (count === null || size === null || ttl === null || interval === null || wait === null || deadline === null)
    return null
  return {
    ...{ target, host: o.rest[0]!, count, size, ttl, pmtudisc },
    ...{ interval_us: interval, wait_us: wait, deadline_us: deadline },
    ...{ flood: o.has('f'), record: o.has('R'), quiet: o.has('q') || o.has('f') },
  }
}

/** The socket as the plan wants it. @returns 0, -errno */
function* prepare(p: Plan, fd: number): Libc {
  // Only answers: errors come by the queue.
  let err = yield* set_word(fd, SOL_RAW, 1, ~(1 << 0))
  if (err === 0) err = yield* set_word(fd, SOL_IP, IP_RECVERR, 1)
  if (err === 0 && p.ttl !== 0) err = yield* set_word(fd, SOL_IP, IP_TTL, p.ttl)
  if (err === 0) err = yield* set_word(fd, SOL_IP, IP_MTU_DISCOVER, p.pmtudisc)
  if (err === 0) err = yield* set_word(fd, SOL_SOCKET, SO_RCVBUF, 0x40000)
  if (err === 0) err = yield* set_word(fd, SOL_SOCKET, SO_SNDBUF, 0x40000)
  if (err !== 0 || !p.record) return err
  const rspace = malloc(40)
  mem(rspace, 40).set([1, 7, 39, 4]) // no operation, record route, its length, its pointer
  return yield* setsockopt(fd, SOL_IP, IP_OPTIONS, rspace, 40)
}

/** Byte `k` of the data of every request, behind the time. */
function filling(k: number): number {
  return k & 255
}

function* send_one(r: Run): Libc {
  const len = 8 + r.size
  const seq = (r.sent + 1) & 0xffff
  const now = yield* gettimeofday()
  const b = mem(r.out, len)
  b.set([8, 0, 0, 0, r.id >> 8, r.id & 255, seq >> 8, seq & 255])
  if (r.size >= 8) {
    store32(r.out + 8, Math.floor(now / 1e6))
    store32(r.out + 12, now % 1e6)
  }
  const sum = in_cksum(r.out, len)
  b.set([sum >> 8, sum & 255], 2)
  const n = yield* sendto(r.fd, r.out, len, 0, r.from + 16, 16)
  if (n < 0 && n !== -EAGAIN && n !== -EINTR) {
    // An older error may be what sendto told of: then this request was not sent, and is sent anew.
    r.blamed = 0
    const known = yield* report_errors(r)
    if (known && r.blamed !== seq) return 0
    if (!known) {
      yield* fprintf(STDERR, `ping: sendmsg: ${strerror(n)}\n`)
      r.errors++
    }
  }
  r.sent++
  if (r.flood && n >= 0) yield* printf('.')
  return n
}

// ---- what comes back ------------------------------------------------------------------------------------------------

const UNREACHABLE = [
  'Destination Net Unreachable',
  'Destination Host Unreachable',
  'Destination Protocol Unreachable',
  'Destination Port Unreachable',
  'Frag needed and DF set',
  'Source Route Failed',
  'Destination Net Unknown',
  'Destination Host Unknown',
  'Source Host Isolated',
  'Destination Net Prohibited',
  'Destination Host Prohibited',
  'Destination Net Unreachable for Type of Service',
  'Destination Host Unreachable for Type of Service',
  'Packet filtered',
  'Precedence Violation',
  'Precedence Cutoff',
]
function words(e: QueuedError): string {
  if (e.type === 3) {
    const text = UNREACHABLE[e.code] ?? `Dest Unreachable, Bad Code: ${e.code}`
    return e.code === 4 ? `${text} (mtu = ${e.info})` : text
  }
  if (e.type === 11) return e.code === 0 ? 'Time to live exceeded' : 'Frag reassembly time exceeded'
  if (e.type === 12) return `Parameter problem: pointer = ${e.info}`
  if (e.type === 5) return 'Redirect'
  return `Bad ICMP type: ${e.type}`
}

/** All that is on the error queue; other pings' errors come to every raw socket. @returns true: there was something */
function* report_errors(r: Run): Generator<void, boolean, void> {
  let any = false
  for (;;) {
    const e = yield* recv_error(r.fd, r.m, 64)
    if (e === null) return any
    any = true
    if (e.origin === SO_EE_ORIGIN_LOCAL) {
      r.errors++
      const mtu = e.errno === 90 ? `, mtu=${e.info}` : ''
      if (!r.quiet) yield* fprintf(STDERR, `ping: local error: ${strerror(e.errno)}${mtu}\n`)
      r.blamed = (r.sent + 1) & 0xffff // nothing was sent
      continue
    }
    const b = mem(r.m.buf, 8)
    if (e.len < 8 || b[0] !== 8 || e.addr !== r.target || b[4]! * 256 + b[5]! !== r.id) continue
    r.errors++
    r.blamed = b[6]! * 256 + b[7]!
    if (r.flood) yield* printf('\bE')
    else if (!r.quiet) yield* puts(`From ${inet_ntoa(e.offender)} icmp_seq=${b[6]! * 256 + b[7]!} ${words(e)}`)
  }
}

/** The addresses of a record route option in the header at `ip`. */
function recorded(ip: number, hlen: number): string {
  const b = mem(ip, hlen)
  for (let at = 20; at < hlen && b[at] !== 0; at += b[at] === 1 ? 1 : Math.max(2, b[at + 1]!)) {
    if (b[at] !== 7) continue
    const lines: string[] = []
    for (let k = at + 3; k + 3 < at + b[at + 2]! - 1 + 1 && k + 3 < hlen; k += 4)
      lines.push(`${b[k]}.${b[k + 1]}.${b[k + 2]}.${b[k + 3]}`)
    return `\nRR: \t${lines.join('\n\t')}\n`
  }
  return ''
}

/** The first byte of the data that is not as it was sent, as a complaint. */
function compare(icmp: number, size: number): string {
  const b = mem(icmp + 8, size)
  for (let k = 8; k < size; k++)
    if (b[k] !== filling(k))
      return `\nwrong data byte #${k} should be 0x${filling(k).toString(16)} but was 0x${b[k]!.toString(16)}`
  return ''
}

/** A packet that came. @returns true: an answer to a request of ours */
function* reply(r: Run, n: number): Generator<void, boolean, void> {
  const now = yield* gettimeofday()
  const hlen = (mem(r.back, 1)[0]! & 15) << 2
  const icmp = r.back + hlen
  const len = n - hlen
  if (len < 8) return false
  const b = mem(icmp, Math.min(len, 16))
  if (b[0] !== 0 || b[4]! * 256 + b[5]! !== r.id) return false
  const seq = b[6]! * 256 + b[7]!
  const sound = in_cksum(icmp, len) === 0
  const repeated = r.seen.has(seq)
  if (repeated) r.repeats++
  else r.received++
  r.seen.add(seq)
  let time = ''
  if (len >= 16) {
    const word = (k: number): number => (b[k]! | (b[k + 1]! << 8) | (b[k + 2]! << 16) | (b[k + 3]! << 24)) >>> 0
    const us = now - (word(8) * 1e6 + word(12))
    r.rtts.push(us)
    time = ` time=${ms(us)} ms`
  }
  if (r.flood) yield* printf('\b \b')
  if (r.quiet) return true
  const ttl = mem(r.back + 8, 1)[0]!
  const more = `${repeated ? ' (DUP!)' : ''}${sound ? '' : ' (BAD CHECKSUM!)'}${compare(icmp, len - 8)}`
  yield* puts(
    `${len} bytes from ${inet_ntoa(sin_addr(r.from))}: icmp_seq=${seq} ttl=${ttl}${time}${more}${recorded(r.back, hlen)}`,
  )
  return true
}

/** Listen until `until` (us); when it floods, or nothing more is to come, an answer ends it. */
function* listen(r: Run, until: number, enough: () => boolean): Libc {
  for (;;) {
    const left = until - (yield* gettimeofday())
    if (left <= 0 || enough() || r.stopped() !== 0) return 0
    yield* set_timeout(r.fd, left)
    store32(r.from_len, 16)
    const n = yield* recvfrom(r.fd, r.back, MAX_DATA + 28, 0, r.from, r.from_len)
    if (n === -EAGAIN || n === -EINTR) continue
    if (n < 0) {
      if (!(yield* report_errors(r)) && !r.quiet) yield* perror('ping: recvmsg', n)
    } else yield* reply(r, n)
  }
}

function ms(us: number): string {
  const t = us / 1000
  return t >= 100 ? t.toFixed(0) : t >= 10 ? t.toFixed(1) : t >= 1 ? t.toFixed(2) : t.toFixed(3)
}

function* statistics(r: Run): Libc {
  const took = Math.round(((yield* gettimeofday()) - r.began) / 1000)
  const repeats = r.repeats > 0 ? `, +${r.repeats} duplicates` : ''
  const errors = r.errors > 0 ? `, +${r.errors} errors` : ''
  const loss = r.sent === 0 ? 0 : Math.floor(((r.sent - r.received) * 100) / r.sent)
  yield* puts(`\n--- ${r.host} ping statistics ---`)
  yield* puts(
    `${r.sent} packets transmitted, ${r.received} received${repeats}${errors}, ${loss}% packet loss, time ${took}ms`,
  )
  if (r.rtts.length === 0) return 0
  const sum = r.rtts.reduce((a, b) => a + b, 0)
  const mean = sum / r.rtts.length
  const square = r.rtts.reduce((a, b) => a + b * b, 0) / r.rtts.length
  const mdev = Math.sqrt(Math.max(0, square - mean * mean))
  const row = [Math.min(...r.rtts), mean, Math.max(...r.rtts), mdev].map(us => (us / 1000).toFixed(3))
  return yield* puts(`rtt min/avg/max/mdev = ${row.join('/')} ms`)
}

/** ping - @returns 0: answers came, 1: none did (or too few by the deadline), 2: something else went wrong */
export function* ping_main(argc: number, argv: number): Libc {
  const p = plan(arguments_of(argc, argv))
  if (p === null) {
    yield* fprintf(STDERR, USAGE)
    return 2
  }
  const fd = yield* socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)
  const err = fd < 0 ? fd : yield* prepare(p, fd)
  if (err < 0) {
    yield* perror(fd < 0 ? 'ping: icmp open socket' : 'ping: setsockopt', err)
    return 2
  }
  const out = malloc(8 + p.size)
  const back = malloc(MAX_DATA + 28)
  const from = malloc(32)
  sockaddr_in(from + 16, p.target, 0)
  for (let k = 0, b = mem(out + 8, p.size); k < p.size; k++) b[k] = filling(k)
  const began = yield* gettimeofday()
  const r: Run = {
    ...p,
    ...{ fd, id: (yield* getpid()) & 0xffff, out, back, from, from_len: variable(16), m: message(malloc(64)) },
    ...{ sent: 0, received: 0, repeats: 0, errors: 0, blamed: 0, seen: new Set(), rtts: [], began },
    stopped: yield* on_signals(SIGINT),
  }
  yield* puts(`PING ${p.host} (${p.host}) ${p.size}(${p.size + 28 + (p.record ? 40 : 0)}) bytes of data.`)
  yield* rounds(r)
  if (r.flood) yield* puts('')
  yield* statistics(r)
  yield* close(fd)
  const short = r.deadline_us > 0 && r.count > 0 && r.received < r.count
  return r.received === 0 || short ? 1 : 0
}

/** Send and listen, to the last answer or the end of waiting for it. */
function* rounds(r: Run): Libc {
  const end = r.deadline_us > 0 ? r.began + r.deadline_us : Infinity
  let next = r.began
  for (;;) {
    const before = r.received + r.errors
    yield* send_one(r)
    const done = (): boolean => r.count > 0 && r.sent >= r.count
    if (done()) break
    const now = yield* gettimeofday()
    next = r.flood ? now + FLOOD_US : Math.max(next + r.interval_us, now)
    yield* listen(r, Math.min(next, end), () => r.flood && r.received + r.errors > before)
    if (r.stopped() !== 0 || (yield* gettimeofday()) >= end) return 0
  }
  const last = (yield* gettimeofday()) + r.wait_us
  return yield* listen(r, Math.min(last, end), () => r.received + r.errors >= r.sent)
}
