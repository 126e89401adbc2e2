/** traceroute.ts - the routers on the way: packets whose time to live ends at each of them, by the error queue of a socket. */
import { EAGAIN } from '../lib/errno.js'
import {
  close,
  connect,
  getpid,
  gettimeofday,
  type Libc,
  malloc,
  mem,
  recv,
  send,
  set_timeout,
  set_word,
  sockaddr_in,
  socket,
} from './libc.js'
import { in_cksum, type Message, message, type QueuedError, recv_error, SO_EE_ORIGIN_ICMP } from './msg.js'
import {
  arguments_of,
  fprintf,
  getopt,
  inet_aton,
  inet_ntoa,
  number_option,
  perror,
  printf,
  puts,
  STDERR,
  strtol,
} from './stdio.js'

const AF_INET = 2
const [SOCK_DGRAM, SOCK_RAW] = [2, 3] as const
const IPPROTO_ICMP = 1
const SOL_IP = 0
const SOL_RAW = 255
const [IP_TTL, IP_RECVERR] = [2, 11] as const
/** Ports from here on are in nobody's use. */
const BASE_PORT = 33_434
const MAX_LEN = 1500

interface Trace {
  target: number
  host: string
  icmp: boolean
  numeric: boolean
  first: number
  max: number
  queries: number
  wait_us: number
  port: number
  len: number
  fd: number
  id: number
  buf: number
  m: Message
  probe: number
}

const USAGE =
  'usage: traceroute [-In] [-f first] [-m hops] [-q queries] [-w seconds] [-p port] address [packet length]\n'

function plan(args: string[]): Omit<Trace, 'fd' | 'id' | 'buf' | 'm'> | null {
  const o = getopt(args, 'Inf:m:q:w:p:')
  const target = inet_aton(o.rest[0] ?? '')
  const max = number_option(o, 'm', [1, 255], 30)
  const first = number_option(o, 'f', [1, 255], 1)
  const queries = number_option(o, 'q', [1, 10], 3)
  const port = number_option(o, 'p', [1, 65_000], BASE_PORT)
  const wait = Number(o.get('w') ?? 5)
  const len = strtol(o.rest[1] ?? '60')
  if (o.wrong !== '' || target === null || o.rest.length > 2 || !(wait >= 0.001 && wait <= 3600)) return null
  if (max === null || first === null || queries === null || port === null || first > max) return null
  if (len === null || len < 28 || len > MAX_LEN) return null
  return {
    ...{ target, host: o.rest[0]!, icmp: o.has('I'), numeric: o.has('n'), first, max, queries, port, len, probe: 0 },
    wait_us: Math.round(wait * 1e6),
  }
}

/** A socket for the probe: a port of its own for UDP, so that answers say which probe they are about. @returns fd, -errno */
function* send_probe(t: Trace): Libc {
  const data = t.len - 28
  if (t.icmp) {
    const b = mem(t.buf, 8 + data)
    b.fill(0)
    b.set([8, 0, 0, 0, t.id >> 8, t.id & 255, t.probe >> 8, t.probe & 255])
    const sum = in_cksum(t.buf, 8 + data)
    b.set([sum >> 8, sum & 255], 2)
    return yield* send(t.fd, t.buf, 8 + data, 0)
  }
  mem(t.buf, data).fill(0x40)
  const err = yield* connect(t.fd, sockaddr_in(t.m.name, t.target, t.port + t.probe), 16)
  return err < 0 ? err : yield* send(t.fd, t.buf, data, 0)
}

/** What an answer says. */
interface Answer {
  from: number
  /** The destination itself. */
  arrived: boolean
  note: string
}

const NOTES: Record<number, string> = {
  0: ' !N',
  1: ' !H',
  2: ' !P',
  4: ' !F',
  5: ' !S',
  9: ' !X',
  10: ' !X',
  13: ' !X',
}

/** Is the error about the probe that we wait for? */
function ours(t: Trace, e: QueuedError): boolean {
  if (e.origin !== SO_EE_ORIGIN_ICMP) return false
  if (!t.icmp) return e.port === t.port + t.probe
  const b = mem(t.buf, 8)
  return e.len >= 8 && b[4]! * 256 + b[5]! === t.id && b[6]! * 256 + b[7]! === t.probe
}

function meaning(e: QueuedError): Answer {
  if (e.type === 11) return { from: e.offender, arrived: false, note: '' }
  if (e.type !== 3) return { from: e.offender, arrived: true, note: ` !<${e.type}-${e.code}>` }
  return { from: e.offender, arrived: true, note: e.code === 3 ? '' : (NOTES[e.code] ?? ` !<${e.code}>`) }
}

/** The echo of a probe, if this is it. */
function echo_of(t: Trace, n: number): Answer | null {
  const hlen = (mem(t.buf, 1)[0]! & 15) << 2
  if (n < hlen + 8) return null
  const b = mem(t.buf + hlen, 8)
  const its = b[0] === 0 && b[4]! * 256 + b[5]! === t.id && b[6]! * 256 + b[7]! === t.probe
  return its ? { from: t.target, arrived: true, note: '' } : null
}

/** Wait for the answer to the last probe. @returns null: none came */
function* await_answer(t: Trace, sent: number): Generator<void, Answer | null, void> {
  for (;;) {
    const left = sent + t.wait_us - (yield* gettimeofday())
    if (left <= 0) return null
    yield* set_timeout(t.fd, left)
    const n = yield* recv(t.fd, t.buf, MAX_LEN, 0)
    if (n >= 0 && t.icmp) {
      const answer = echo_of(t, n)
      if (answer !== null) return answer
    }
    if (n >= 0 || n === -EAGAIN) continue
    for (let e = yield* recv_error(t.fd, t.m, 64); e !== null; e = yield* recv_error(t.fd, t.m, 64))
      if (ours(t, e)) return meaning(e)
  }
}

/** All probes of one hop, as a line. @returns true: that was the last hop */
function* hop(t: Trace, ttl: number): Generator<void, boolean, void> {
  yield* printf(`${String(ttl).padStart(2)} `)
  let last = 0
  let arrived = false
  yield* set_word(t.fd, SOL_IP, IP_TTL, ttl)
  for (let q = 0; q < t.queries; q++) {
    t.probe++
    const sent = yield* gettimeofday()
    let n = yield* send_probe(t)
    for (let k = 0; n < 0 && k < 3; k++) {
      // An answer to an earlier probe that came too late: it is the socket's error now.
      while ((yield* recv_error(t.fd, t.m, 64)) !== null);
      n = yield* send_probe(t)
    }
    if (n < 0) yield* perror('traceroute: send', n)
    const answer = yield* await_answer(t, sent)
    if (answer === null) {
      yield* printf(' *')
      continue
    }
    const us = (yield* gettimeofday()) - sent
    if (answer.from !== last) {
      const text = inet_ntoa(answer.from)
      yield* printf(t.numeric ? ` ${text}` : ` ${text} (${text})`)
    }
    last = answer.from
    yield* printf(`  ${(us / 1000).toFixed(3)} ms${answer.note}`)
    if (answer.arrived) arrived = true
  }
  yield* puts('')
  return arrived
}

/** traceroute - @returns 0, 1: something went wrong, 2: wrong usage */
export function* traceroute_main(argc: number, argv: number): Libc {
  const p = plan(arguments_of(argc, argv))
  if (p === null) {
    yield* fprintf(STDERR, USAGE)
    return 2
  }
  const fd = yield* p.icmp ? socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) : socket(AF_INET, SOCK_DGRAM, 0)
  let err = fd < 0 ? fd : yield* set_word(fd, SOL_IP, IP_RECVERR, 1)
  if (err >= 0 && p.icmp) err = yield* set_word(fd, SOL_RAW, 1, ~1)
  if (err >= 0) err = yield* connect(fd, sockaddr_in(malloc(16), p.target, p.port), 16)
  if (err < 0) {
    yield* perror('traceroute', err)
    return 1
  }
  const buf = malloc(MAX_LEN)
  const t: Trace = { ...p, fd, id: (yield* getpid()) & 0xffff, buf, m: message(buf) }
  yield* puts(`traceroute to ${p.host} (${p.host}), ${p.max} hops max, ${p.len} byte packets`)
  for (let ttl = p.first; ttl <= p.max; ttl++) if (yield* hop(t, ttl)) break
  yield* close(fd)
  return 0
}
