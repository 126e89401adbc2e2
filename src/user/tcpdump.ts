/**
 * tcpdump.ts - what goes over the wires of this machine, through a packet socket: as lines, or as a pcap file.
 *
 * A file is written as packets come, each whole: a machine that is switched off loses none.
 */
import { EINTR, ENETDOWN } from '../lib/errno.js'
import { attach_filter, bpf_image, type Insn } from './bpf.js'
import {
  bind,
  close,
  creat,
  getsockopt,
  type Libc,
  load32,
  malloc,
  mem,
  recvmsg,
  set_word,
  setsockopt,
  socket,
  string,
  variable,
} from './libc.js'
import {
  AF_PACKET,
  ETH_P_ALL,
  get_sockaddr_ll,
  IFF_LOOPBACK,
  IFF_UP,
  if_flags,
  if_indextoname,
  if_nametoindex,
  PACKET_ADD_MEMBERSHIP,
  PACKET_MR_PROMISC,
  PACKET_OUTGOING,
  PACKET_STATISTICS,
  packet_mreq,
  SOCKADDR_LL_SIZE,
  SOL_PACKET,
  sockaddr_ll,
} from './libpacket.js'
import { on_signals, SIGINT, SIGTERM } from './libsignal.js'
import { type Message, MSG_TRUNC, message } from './msg.js'
import { compile, FilterError } from './pcap_filter.js'
import { arguments_of, fprintf, getopt, number_option, perror, printf, STDERR, STDOUT, write_all } from './stdio.js'
import { frame_line, hex_lines } from './tcpdump_print.js'

const SOCK_RAW = 3
const SOL_SOCKET = 1
const SO_RCVBUF = 8
const SO_TIMESTAMP = 29
const USAGE = 'usage: tcpdump [-denpqtx] [-c count] [-i interface] [-s snaplen] [-w file] [expression]\n'
const MAX_SNAPLEN = 65_535
const MAX_FRAME = 65_536
/** Devices that are looked through for one to listen on. */
const MAX_IFINDEX = 64

interface Plan {
  device: string | undefined
  count: number
  snaplen: number
  link: boolean
  quick: boolean
  times: boolean
  hex: boolean
  promiscuous: boolean
  file: string | undefined
  filter: readonly Insn[]
  /** Only tell what the filter is. */
  dump: boolean
}

/** What the arguments say, or the complaint. */
function plan(args: readonly string[]): Plan | string {
  const o = getopt(args, 'c:dei:npqs:tw:x')
  const count = number_option(o, 'c', [1, 1e9], 0)
  const snaplen = number_option(o, 's', [0, MAX_SNAPLEN], MAX_SNAPLEN)
  if (o.wrong !== '') return `${o.wrong}\n${USAGE}`
  if (count === null) return `invalid packet count ${o.get('c')}\n`
  if (snaplen === null) return `invalid snaplen ${o.get('s')}\n`
  try {
    return {
      ...{ device: o.get('i'), count, snaplen: snaplen || MAX_SNAPLEN, file: o.get('w'), filter: compile(o.rest) },
      ...{ link: o.has('e'), quick: o.has('q'), times: !o.has('t'), hex: o.has('x'), promiscuous: !o.has('p') },
      dump: o.has('d'),
    }
  } catch (error) {
    if (error instanceof FilterError) return `${error.message}\n`
    throw error
  }
}

/** The first device that is up and is not the loopback one, as the original chooses. */
function* default_device(fd: number): Generator<void, string, void> {
  for (let index = 1; index < MAX_IFINDEX; index++) {
    const name = yield* if_indextoname(fd, index)
    if (name === '') continue
    const flags = yield* if_flags(fd, name)
    if (flags >= 0 && (flags & IFF_UP) !== 0 && (flags & IFF_LOOPBACK) === 0) return name
  }
  return ''
}

/** listen - bind to the device, and make it hear everything. @returns 0, or a negative errno */
function* listen_on(fd: number, device: string, promiscuous: boolean): Libc {
  const index = device === 'any' ? 0 : yield* if_nametoindex(fd, device)
  if (index < 0) return index
  const err = yield* bind(fd, sockaddr_ll(malloc(SOCKADDR_LL_SIZE), index, ETH_P_ALL), SOCKADDR_LL_SIZE)
  if (err < 0 || !promiscuous || index === 0) return err
  return yield* setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, packet_mreq(malloc(16), index, PACKET_MR_PROMISC), 16)
}

// ---- the file -------------------------------------------------------------------------------------------------------

function words(...values: number[]): Uint8Array {
  const out = new DataView(new ArrayBuffer(4 * values.length))
  values.forEach((value, k) => {
    out.setUint32(4 * k, value, true)
  })
  return new Uint8Array(out.buffer)
}
/** The header of a pcap file: version 2.4, times in us, Ethernet. */
function file_header(snaplen: number): Uint8Array {
  return words(0xa1b2c3d4, 0x00040002, 0, 0, snaplen, 1)
}
function record(frame: Uint8Array, length: number, us: number): Uint8Array {
  const out = new Uint8Array(16 + frame.length)
  out.set(words(Math.floor(us / 1e6), us % 1e6, frame.length, length))
  out.set(frame, 16)
  return out
}

// ---- packets --------------------------------------------------------------------------------------------------------

/** HH:MM:SS of the machine's clock, which begins at 0. */
function clock(us: number): string {
  const two = (n: number): string => String(Math.floor(n)).padStart(2, '0')
  const s = us / 1e6
  return `${two((s / 3600) % 24)}:${two((s / 60) % 60)}:${two(s % 60)}.${String(us % 1e6).padStart(6, '0')}`
}

/** When the packet came: its SCM_TIMESTAMP. */
function stamp_of(m: Message): number {
  const found = m.cmsgs().find(c => c.level === SOL_SOCKET && c.type === SO_TIMESTAMP)
  return found === undefined ? 0 : load32(found.data) * 1e6 + load32(found.data + 4)
}

interface Counts {
  captured: number
}

/** capture - until enough came, or a signal. @returns 0, or a negative errno */
function* capture(p: Plan, fd: number, out: number, lo: number, counts: Counts): Libc {
  const m = message(malloc(MAX_FRAME), SOCKADDR_LL_SIZE)
  while (p.count === 0 || counts.captured < p.count) {
    const length = yield* recvmsg(fd, m.reset(MAX_FRAME), MSG_TRUNC)
    if (length === -EINTR) return 0
    if (length < 0) return length
    const sll = get_sockaddr_ll(m.name)
    // What is sent over the loopback device comes back at once: once is enough.
    if (sll.ifindex === lo && sll.pkttype === PACKET_OUTGOING) continue
    const frame = mem(m.buf, Math.min(length, p.snaplen)).slice()
    counts.captured++
    const us = stamp_of(m)
    const err = out >= 0 ? yield* write_all(out, record(frame, length, us)) : yield* tell(p, frame, length, us)
    if (err < 0) return err
  }
  return 0
}
function tell(p: Plan, frame: Uint8Array, length: number, us: number): Libc {
  const time = p.times ? `${clock(us)} ` : ''
  const hex = p.hex ? hex_lines(frame.subarray(14)) : ''
  return printf(`${time}${frame_line(frame, length, p)}\n${hex}`)
}

/** What was seen, and what was lost. */
function* statistics(fd: number, counts: Counts): Libc {
  const [at, len] = [malloc(8), variable(8)]
  yield* getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, at, len)
  const plural = (n: number): string => `${n} packet${n === 1 ? '' : 's'}`
  return yield* fprintf(
    STDERR,
    `${plural(counts.captured)} captured\n${plural(load32(at))} received by filter\n${plural(load32(at + 4))} dropped by kernel\n`,
  )
}

function* fail(text: string): Libc {
  yield* fprintf(STDERR, `tcpdump: ${text}`)
  return 1
}

/** Where a capture goes. @returns descriptor, -1: nowhere, lines are printed; less: a negative errno - 1 */
function* open_file(p: Plan): Libc {
  if (p.file === undefined) return -1
  const fd = p.file === '-' ? STDOUT : yield* creat(string(p.file))
  if (fd < 0) return fd - 1
  const err = yield* write_all(fd, file_header(p.snaplen))
  return err < 0 ? err - 1 : fd
}

/** tcpdump - @returns 0, or 1 if it cannot begin, or the device went down */
export function* tcpdump_main(argc: number, argv: number): Libc {
  const p = plan(arguments_of(argc, argv))
  if (typeof p === 'string') return yield* fail(p)
  if (p.dump) {
    yield* printf(bpf_image(p.filter))
    return 0
  }
  const fd = yield* socket(AF_PACKET, SOCK_RAW, 0) // hears nothing before it has its filter
  if (fd < 0) {
    yield* perror('tcpdump: socket', fd)
    return 1
  }
  const device = p.device ?? (yield* default_device(fd))
  if (device === '') return yield* fail('no suitable device found\n')
  yield* set_word(fd, SOL_SOCKET, SO_RCVBUF, 0x40000)
  let err = yield* set_word(fd, SOL_SOCKET, SO_TIMESTAMP, 1)
  if (err === 0) err = yield* attach_filter(fd, p.filter)
  if (err === 0) err = yield* listen_on(fd, device, p.promiscuous)
  if (err < 0) {
    yield* perror(`tcpdump: ${device}`, err)
    return 1
  }
  const lo = yield* if_nametoindex(fd, 'lo')
  const out = yield* open_file(p)
  if (out < -1) {
    yield* perror(`tcpdump: ${p.file}`, out + 1)
    return 1
  }
  yield* fprintf(
    STDERR,
    `tcpdump: listening on ${device}, link-type EN10MB (Ethernet), capture size ${p.snaplen} bytes\n`,
  )
  yield* on_signals(SIGINT, SIGTERM) // they end the wait for a packet
  const counts = { captured: 0 }
  err = yield* capture(p, fd, out, lo, counts)
  if (err < 0) yield* perror(`tcpdump: ${err === -ENETDOWN ? device : 'recvmsg'}`, err)
  yield* statistics(fd, counts)
  if (out > STDERR) yield* close(out)
  yield* close(fd)
  return err < 0 ? 1 : 0
}
