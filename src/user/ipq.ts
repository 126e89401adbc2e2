/** ipq.ts - decides about the packets that rules send to QUEUE, as the sample of libipq does: it lets them go or drops some. */
import { EINTR, ENOENT } from '../lib/errno.js'
import type { Libc } from './libc.js'
import {
  get32,
  getText,
  type Message,
  type Netlink,
  receive,
  request,
  rtnl_close,
  rtnl_open,
  send_bytes,
  u32,
} from './libnetlink.js'
import { arguments_of, fprintf, getopt, number_option, perror, puts, STDERR } from './stdio.js'

const NETLINK_FIREWALL = 3
const NLMSG_ERROR = 2
const IPQM_MODE = 17
const IPQM_VERDICT = 18
const IPQM_PACKET = 19
const COPY_META = 1
const COPY_PACKET = 2
const NF_DROP = 0
const NF_ACCEPT = 1
/** What fits a message that the program has memory for. */
const MAX_RANGE = 8000
const HOOKS = ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING']
const [IPPROTO_TCP, IPPROTO_UDP] = [6, 17]

const USAGE = 'usage: ipq [-m meta|packet] [-r bytes] [-n count] [-p dport] [-d every] [-q]\n'
const LONG: Record<string, string> = {
  ...{ '--mode': '-m', '--range': '-r', '--count': '-n', '--dport': '-p', '--drop-every': '-d', '--quiet': '-q' },
}

interface Plan {
  mode: number
  range: number
  /** Packets to decide about; 0: all that come. */
  count: number
  /** Only packets to this port may be dropped; 0: all. */
  dport: number
  /** One in so many of them is dropped; 0: none. */
  every: number
  quiet: boolean
}

function plan(args: string[]): Plan | null {
  const o = getopt(
    args.map(a => LONG[a] ?? a),
    'm:r:n:p:d:q',
  )
  const mode = ['meta', 'packet'].indexOf(o.get('m') ?? 'packet')
  const range = number_option(o, 'r', [1, MAX_RANGE], 128)
  const count = number_option(o, 'n', [1, 0x7fffffff], 0)
  const dport = number_option(o, 'p', [1, 65_535], 0)
  const every = number_option(o, 'd', [1, 0x7fffffff], dport === 0 ? 0 : 1)
  if (o.wrong !== '' || o.rest.length > 0 || mode < 0) return null
  if (range === null || count === null || dport === null || every === null) return null
  if (dport !== 0 && mode + COPY_META !== COPY_PACKET) return null // it must see the port
  return { mode: mode + COPY_META, range, count, dport, every, quiet: o.has('q') }
}

/** The port that the bytes of a packet are for; -1: none is seen. */
function dport_of(ip: Uint8Array): number {
  const at = ((ip[0] ?? 0) % 16) << 2
  if (ip.length < at + 4 || (ip[9] !== IPPROTO_TCP && ip[9] !== IPPROTO_UDP)) return -1
  return (ip[6]! & 0x1f) === 0 && ip[7] === 0 ? ip[at + 2]! * 256 + ip[at + 3]! : -1
}

/** One line: which packet, where, through which devices, what becomes of it. */
function line(id: number, body: Uint8Array, verdict: number): string {
  const [indev, outdev] = [body.subarray(20, 36), body.subarray(36, 52)].map(name => getText(name) || '-')
  const len = body[74] === undefined ? '' : ` len=${body[74]! * 256 + body[75]!}`
  return `${id} ${HOOKS[get32(body, 16)]} in=${indev} out=${outdev}${len} ${verdict === NF_DROP ? 'DROP' : 'ACCEPT'}`
}

/** @returns 0 when it has decided about as many as it should, or a negative errno */
function* decide(nl: Netlink, p: Plan): Libc {
  let [seen, candidates] = [0, 0]
  const about = function* ({ body }: Message): Libc {
    const id = get32(body)
    if (p.dport === 0 || dport_of(body.subarray(72)) === p.dport) candidates++
    else return yield* answer(id, body, NF_ACCEPT)
    return yield* answer(id, body, p.every !== 0 && candidates % p.every === 0 ? NF_DROP : NF_ACCEPT)
  }
  const answer = function* (id: number, body: Uint8Array, verdict: number): Libc {
    seen++
    if (!p.quiet) yield* puts(line(id, body, verdict))
    const sent = yield* send_bytes(nl, request(nl, IPQM_VERDICT, 0, [...u32(verdict), ...u32(id), ...u32(0)]))
    return Math.min(sent, 0)
  }
  while (p.count === 0 || seen < p.count) {
    const messages = yield* receive(nl)
    if (messages === -EINTR) continue
    if (typeof messages === 'number') return messages
    for (const m of messages) {
      let err = 0
      if (m.type === IPQM_PACKET) err = yield* about(m)
      else if (m.type === NLMSG_ERROR) err = get32(m.body)
      if (err < 0 && err !== -ENOENT) return err // a packet may be gone with its device
    }
  }
  return 0
}

/** ipq - @returns 0: it has decided about `-n` packets, 1: the queue cannot be had, 2: wrong usage */
export function* ipq_main(argc: number, argv: number): Libc {
  const p = plan(arguments_of(argc, argv))
  if (p === null) {
    yield* fprintf(STDERR, USAGE)
    return 2
  }
  const nl = yield* rtnl_open(0, NETLINK_FIREWALL)
  if (typeof nl === 'number') {
    yield* perror('ipq', nl)
    return 1
  }
  const sent = yield* send_bytes(nl, request(nl, IPQM_MODE, 0, [...u32(p.mode), ...u32(p.range), ...u32(0)]))
  const err = sent < 0 ? sent : yield* decide(nl, p)
  yield* rtnl_close(nl) // what waits is dropped by the kernel
  if (err < 0) yield* perror('ipq', err)
  return err < 0 ? 1 : 0
}
