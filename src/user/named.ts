/** named.ts - a name server that knows the hosts of its arguments, and a client that asks. */
import { EAGAIN, EINTR } from '../lib/errno.js'
import {
  type Answer,
  answer,
  CLASS_IN,
  dns_id,
  FORMERR,
  is_answer,
  NOERROR,
  NOTIMP,
  NXDOMAIN,
  name_bytes,
  opcode,
  question,
  REFUSED,
  rcode,
  read_answers,
  read_question,
  TYPE_A,
  TYPE_ANY,
  TYPE_PTR,
} from './dns.js'
import {
  bind,
  close,
  connect,
  getpid,
  gettimeofday,
  type Libc,
  load32,
  malloc,
  mem,
  recv,
  recvfrom,
  send,
  sendto,
  set_timeout,
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
  printf,
  puts,
  STDERR,
} from './stdio.js'

const AF_INET = 2
const SOCK_DGRAM = 2
const PORT = 53
const BUFFER = 2048
const TTL = 3600

/** Names and what they stand for: addresses, and names of addresses. */
type Hosts = Map<string, Answer[]>

function add(hosts: Hosts, name: string, record: Answer): void {
  const before = hosts.get(name) ?? []
  hosts.set(name, [...before, record])
}
function octets(addr: number): number[] {
  return [24, 16, 8, 0].map(shift => (addr >>> shift) & 255)
}
function reverse_name(addr: number): string {
  return `${octets(addr).reverse().join('.')}.in-addr.arpa`
}

/** `name=address` of each argument. @returns null: one is wrong */
function read_hosts(args: readonly string[]): Hosts | null {
  const hosts: Hosts = new Map()
  for (const arg of args) {
    const [name, text] = arg.split('=')
    const addr = inet_aton(text ?? '')
    const bytes = name_bytes(name ?? '')
    if (name === undefined || name === '' || bytes === null || addr === null) return null
    add(hosts, name.toLowerCase().replace(/\.$/, ''), { type: TYPE_A, data: octets(addr) })
    add(hosts, reverse_name(addr), { type: TYPE_PTR, data: bytes })
  }
  return hosts
}

/** What the server says to a message, null: nothing. */
export function reply_to(hosts: Hosts, query: Uint8Array): Uint8Array | null {
  if (query.length < 12 || is_answer(query)) return null
  if (opcode(query) !== 0) return answer(query, null, NOTIMP, [], TTL)
  const q = read_question(query)
  if (q === null) return answer(query, null, FORMERR, [], TTL)
  if (q.class !== CLASS_IN) return answer(query, q, REFUSED, [], TTL)
  const known = hosts.get(q.name)
  if (known === undefined) return answer(query, q, NXDOMAIN, [], TTL)
  const wanted = known.filter(r => q.type === TYPE_ANY || r.type === q.type)
  return answer(query, q, NOERROR, wanted, TTL)
}

function* serve(fd: number, hosts: Hosts): Libc {
  const buf = malloc(BUFFER)
  const from = malloc(16)
  const len = variable(16)
  for (;;) {
    store32(len, 16)
    const n = yield* recvfrom(fd, buf, BUFFER, 0, from, len)
    if (n === -EINTR) continue
    if (n < 0) return n
    const said = reply_to(hosts, mem(buf, n).slice())
    if (said === null) continue
    mem(buf, said.length).set(said)
    yield* sendto(fd, buf, said.length, 0, from, load32(len))
  }
}

/** named - a daemon. @returns 1: the socket cannot be had, 2: wrong usage */
export function* named_main(argc: number, argv: number): Libc {
  const o = getopt(arguments_of(argc, argv), 'p:')
  const port = number_option(o, 'p', [1, 65_535], PORT)
  const hosts = read_hosts(o.rest)
  if (o.wrong !== '' || port === null || hosts === null || o.rest.length === 0) {
    yield* fprintf(STDERR, 'usage: named [-p port] name=address ...\n')
    return 2
  }
  const fd = yield* socket(AF_INET, SOCK_DGRAM, 0)
  const err = fd < 0 ? fd : yield* bind(fd, sockaddr_in(malloc(16), 0, port), 16)
  yield* perror('named', err < 0 ? err : yield* serve(fd, hosts))
  return 1
}

// ---- the client -----------------------------------------------------------------------------------------------------

/** The answer with this number, null: none came in time. */
function* await_answer(fd: number, buf: number, id: number, wait_us: number): Generator<void, Uint8Array | null, void> {
  const until = (yield* gettimeofday()) + wait_us
  for (;;) {
    const left = until - (yield* gettimeofday())
    if (left <= 0) return null
    yield* set_timeout(fd, left)
    const n = yield* recv(fd, buf, BUFFER, 0)
    if (n === -EAGAIN || n === -EINTR) continue
    if (n < 0) return null // nobody listens there
    const b = mem(buf, n).slice()
    if (is_answer(b) && dns_id(b) === id) return b
  }
}

const CODES = ['NOERROR', 'FORMERR', 'SERVFAIL', 'NXDOMAIN', 'NOTIMP', 'REFUSED']

/** What was answered, in the words of host(1). @returns the exit code */
function* report(name: string, b: Uint8Array): Libc {
  const code = rcode(b)
  const records = read_answers(b)
  if (code !== NOERROR || records === null) {
    yield* puts(
      `Host ${name} not found: ${code}(${records === null && code === 0 ? 'malformed' : (CODES[code] ?? code)})`,
    )
    return 1
  }
  for (const r of records)
    yield* printf(
      r.type === TYPE_PTR ? `${r.name} domain name pointer ${r.text}.\n` : `${r.name} has address ${r.text}\n`,
    )
  if (records.length === 0) yield* puts(`${name} has no such record`)
  return records.length > 0 ? 0 : 1
}

/** host - @returns 0: there is an answer, 1: there is none, 2: wrong usage */
export function* host_main(argc: number, argv: number): Libc {
  const o = getopt(arguments_of(argc, argv), 'p:W:R:')
  const [name, server] = o.rest
  const port = number_option(o, 'p', [1, 65_535], PORT)
  const tries = number_option(o, 'R', [1, 10], 2)
  const wait = Number(o.get('W') ?? 5)
  const at = inet_aton(server ?? '')
  if (o.wrong !== '' || name === undefined || at === null || port === null || tries === null || !(wait >= 0.001)) {
    yield* fprintf(STDERR, 'usage: host [-p port] [-R tries] [-W seconds] name|address server\n')
    return 2
  }
  const addr = inet_aton(name)
  const id = ((yield* getpid()) * 40_503 + (yield* gettimeofday())) & 0xffff
  const query = question(id, addr === null ? name : reverse_name(addr), addr === null ? TYPE_A : TYPE_PTR)
  if (query === null) {
    yield* fprintf(STDERR, `host: '${name}' is no name\n`)
    return 2
  }
  const fd = yield* socket(AF_INET, SOCK_DGRAM, 0)
  const err = fd < 0 ? fd : yield* connect(fd, sockaddr_in(malloc(16), at, port), 16)
  if (err < 0) {
    yield* perror('host', err)
    return 1
  }
  const buf = malloc(BUFFER)
  let got: Uint8Array | null = null
  for (let k = 0; k < tries && got === null; k++) {
    mem(buf, query.length).set(query)
    yield* send(fd, buf, query.length, 0)
    got = yield* await_answer(fd, buf, id, wait * 1e6)
  }
  yield* close(fd)
  if (got !== null) return yield* report(name, got)
  yield* puts(`;; connection timed out; no servers could be reached at ${inet_ntoa(at)}`)
  return 1
}
