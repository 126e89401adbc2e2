/**
 * udpgen.ts - a traffic generator and its sink: numbered datagrams of one size at a rate, and who counts what is missing, late,
 * twice or wrong.
 */
import { EAGAIN, EINTR } from '../lib/errno.js'
import {
  bind,
  close,
  connect,
  gettimeofday,
  type Libc,
  load32,
  malloc,
  mem,
  nanosleep,
  recvfrom,
  send,
  set_timeout,
  set_word,
  sin_addr,
  sin_port,
  sockaddr_in,
  socket,
  store32,
  variable,
} from './libc.js'
import {
  arguments_of,
  fprintf,
  getopt,
  inet_aton,
  inet_ntoa,
  number_option,
  perror,
  puts,
  STDERR,
  strerror,
} from './stdio.js'

const AF_INET = 2
const SOCK_DGRAM = 2
const PORT = 5001
const MAX_SIZE = 65_507
/** Of a datagram: a mark, its number, how many there are in all (0: without end). The rest follows from the number. */
const HEADER = 12
const MARK = 0x736f6674
/** Numbers so far behind the newest are given up: a late one beyond that counts as a duplicate. */
const WINDOW = 4096

/** Byte `k` of datagram `seq`. */
function filling(seq: number, k: number): number {
  return (seq * 31 + k * 7 + (k >> 8)) & 255
}

// ---- the generator --------------------------------------------------------------------------------------------------

function* blast(fd: number, buf: number, size: number, count: number, rate: number, seconds: number): Libc {
  const began = yield* gettimeofday()
  let sent = 0
  let refused = 0
  let failed = 0
  for (;;) {
    const passed = (yield* gettimeofday()) - began
    if ((count > 0 && sent >= count) || (seconds > 0 && passed >= seconds * 1e6)) break
    const due = rate === 0 ? sent + 64 : 1 + Math.floor((passed * rate) / 1e6)
    if (due <= sent) {
      // To when the next one is due: the clock of a sleep is the tick.
      yield* nanosleep(Math.max(1, ((sent * 1e6) / rate - passed) * 1000))
      continue
    }
    for (const stop = count > 0 ? Math.min(due, count) : due; sent < stop; sent++) {
      store32(buf + 4, sent)
      const b = mem(buf, size)
      for (let k = HEADER; k < size; k++) b[k] = filling(sent, k)
      const n = yield* send(fd, buf, size, 0)
      if (n === -111) refused++
      else if (n < 0) {
        if (failed++ === 0) yield* fprintf(STDERR, `udpgen: send: ${strerror(n)}\n`)
      }
    }
  }
  const took = Math.max(1, (yield* gettimeofday()) - began)
  const pps = Math.round((sent * 1e6) / took)
  const mbit = ((sent * size * 8) / took).toFixed(2)
  const more = refused + failed > 0 ? `, ${refused} refused, ${failed} failed` : ''
  yield* puts(
    `sent ${sent} datagrams of ${size} bytes in ${(took / 1e6).toFixed(3)} s: ${pps}/s, ${mbit} Mbit/s${more}`,
  )
  return failed > 0 || refused > 0 ? 1 : 0
}

/** udpgen - @returns 0: all was sent, 1: some was not, 2: wrong usage */
export function* udpgen_main(argc: number, argv: number): Libc {
  const o = getopt(arguments_of(argc, argv), 'p:s:c:r:d:')
  const target = inet_aton(o.rest[0] ?? '')
  const port = number_option(o, 'p', [1, 65_535], PORT)
  const size = number_option(o, 's', [HEADER, MAX_SIZE], 64)
  const count = number_option(o, 'c', [0, 0x7fffffff], 1000)
  const rate = number_option(o, 'r', [0, 10_000_000], 1000)
  const seconds = number_option(o, 'd', [1, 86_400], 0)
  const wrong = [target, port, size, count, rate, seconds].some(n => n === null)
  if (o.wrong !== '' || wrong || o.rest.length !== 1) {
    yield* fprintf(
      STDERR,
      'usage: udpgen [-p port] [-s size] [-c count, 0: no end] [-r rate a second, 0: all there is] [-d seconds] address\n',
    )
    return 2
  }
  const fd = yield* socket(AF_INET, SOCK_DGRAM, 0)
  const err = fd < 0 ? fd : yield* connect(fd, sockaddr_in(malloc(16), target!, port!), 16)
  if (err < 0) {
    yield* perror('udpgen', err)
    return 1
  }
  yield* set_word(fd, 1, 6, 1) // SO_BROADCAST
  const buf = malloc(size!)
  store32(buf, MARK)
  store32(buf + 8, count!)
  const code = yield* blast(fd, buf, size!, count!, rate!, seconds!)
  yield* close(fd)
  return code
}

// ---- the sink -------------------------------------------------------------------------------------------------------

/** What came from one sender. */
interface Flow {
  name: string
  total: number
  received: number
  bytes: number
  highest: number
  /** Those of the last numbers that came. */
  seen: Set<number>
  late: number
  duplicates: number
  bad: number
  began: number
  last: number
}

/** A datagram of a flow. */
function take(f: Flow, at: number, n: number, now: number): void {
  const b = mem(at, n)
  const seq = n >= HEADER ? load32(at + 4) : -1
  if (n < HEADER || load32(at) !== MARK || b.some((byte, k) => k >= HEADER && byte !== filling(seq, k))) {
    f.bad++
    return
  }
  f.total = load32(at + 8)
  f.last = now
  if (f.seen.has(seq) || seq < f.highest - WINDOW) {
    f.duplicates++
    return
  }
  f.seen.add(seq)
  f.received++
  f.bytes += n
  if (seq < f.highest) f.late++
  else f.highest = seq
  f.seen.delete(f.highest - WINDOW - 1)
}

function lost(f: Flow): number {
  return Math.max(0, (f.total > 0 ? f.total : f.highest + 1) - f.received)
}
function complete(f: Flow): boolean {
  return f.total > 0 && f.received >= f.total
}

function* summary(f: Flow): Libc {
  const all = f.received + lost(f)
  const percent = all === 0 ? '0' : ((lost(f) * 100) / all).toFixed(2)
  const took = Math.max(1, f.last - f.began)
  const rate = `${Math.round((Math.max(0, f.received - 1) * 1e6) / took)}/s, ${((f.bytes * 8) / took).toFixed(2)} Mbit/s`
  return yield* puts(
    `${f.name}: received ${f.received} of ${all} datagrams, ${lost(f)} lost (${percent}%), ${f.late} late, ${f.duplicates} twice, ${f.bad} bad: ${rate}`,
  )
}

/** Take what comes until all flows are complete and `flows` of them came, or nothing comes for `idle_us` any more. */
function* sink(fd: number, flows: Map<string, Flow>, wanted: number, idle_us: number): Libc {
  const buf = malloc(MAX_SIZE)
  const from = malloc(16)
  const len = variable(16)
  yield* set_timeout(fd, idle_us)
  for (;;) {
    store32(len, 16)
    const n = yield* recvfrom(fd, buf, MAX_SIZE, 0, from, len)
    if (n === -EINTR) continue
    if (n === -EAGAIN) return 0
    if (n < 0) return n
    const now = yield* gettimeofday()
    const name = `${inet_ntoa(sin_addr(from))}:${sin_port(from)}`
    let f = flows.get(name)
    if (f === undefined) {
      const zero = { total: 0, received: 0, bytes: 0, highest: -1, late: 0, duplicates: 0, bad: 0 }
      f = { name, ...zero, seen: new Set(), began: now, last: now }
      flows.set(name, f)
    }
    take(f, buf, n, now)
    if (flows.size >= wanted && [...flows.values()].every(complete)) return 0
  }
}

/** udpsink - @returns 0: all came as it was sent, 1: not, 2: wrong usage */
export function* udpsink_main(argc: number, argv: number): Libc {
  const o = getopt(arguments_of(argc, argv), 'p:n:w:')
  const port = number_option(o, 'p', [1, 65_535], PORT)
  const wanted = number_option(o, 'n', [1, 1000], 1)
  const idle = Number(o.get('w') ?? 5)
  if (o.wrong !== '' || port === null || wanted === null || !(idle >= 0.001 && idle <= 86_400) || o.rest.length > 0) {
    yield* fprintf(STDERR, 'usage: udpsink [-p port] [-n senders] [-w seconds of silence]\n')
    return 2
  }
  const fd = yield* socket(AF_INET, SOCK_DGRAM, 0)
  let err = fd < 0 ? fd : yield* bind(fd, sockaddr_in(malloc(16), 0, port), 16)
  const flows = new Map<string, Flow>()
  if (err >= 0) yield* set_word(fd, 1, 8, 0x40000) // SO_RCVBUF, as large as may be
  if (err >= 0) err = yield* sink(fd, flows, wanted, Math.round(idle * 1e6))
  if (err < 0) {
    yield* perror('udpsink', err)
    return 1
  }
  yield* close(fd)
  for (const f of flows.values()) yield* summary(f)
  if (flows.size === 0) yield* puts('received nothing')
  const sound = [...flows.values()].every(f => lost(f) + f.bad + f.duplicates === 0)
  return sound && flows.size >= wanted ? 0 : 1
}
