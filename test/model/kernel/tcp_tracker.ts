/**
 * Segments of one TCP connection go through the tracker on two CPUs, those of the client on the one and those of the server on the
 * other, while the clock ticks: whoever is first, both ends' numbers, the state and the timer are what all segments together say.
 * In the broken twin each CPU has a lock of its own, which is none.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { cpu_relax, cpu_reset, local_irq_enable } from '../../../src/arch/cpu.js'
import { hz } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { describe as describeAddress } from '../../../src/init/main.js'
import { jiffies } from '../../../src/irq/timer.js'
import { NF_IP_LOCAL_IN, NF_IP_PRE_ROUTING, nf_hook_slow } from '../../../src/net/core/netfilter.js'
import { alloc_skb, consume_skb, skb_put } from '../../../src/net/core/skbuff.js'
import type { sk_buff } from '../../../src/net/core/types.js'
import {
  ct,
  IPS_ASSURED,
  IPS_CONFIRMED,
  IPS_SEEN_REPLY,
  type ip_conntrack,
  ip_conntrack_each,
} from '../../../src/net/ipv4/netfilter/ip_conntrack.js'
import { TCP_STATES } from '../../../src/net/ipv4/netfilter/ip_conntrack_proto_tcp.js'
import { ct_sysctl } from '../../../src/net/ipv4/netfilter/ip_conntrack_sysctl.js'
import { request_module } from '../../../src/sched/module.js'
import { local_bh_disable, local_bh_enable } from '../../../src/sync/bh.js'
import { RWLOCK, rwlock_init } from '../../../src/sync/rwlock.js'
import { tcpFrame } from '../../helpers/frames.js'
import { clock_chip, nothing_leaked, power_on, secondary } from './machine.js'

export interface TrackerArgs {
  /**
   * Begin, talk and close, both at once; a reset among data; every timeout 0 while both talk; a SYN that opens anew what is over,
   * sent twice, among late segments.
   */
  what: 'close' | 'reset' | 'expire' | 'reopen'
  ticks: number
  twin?: boolean
}

const [FIN, SYN, RST, ACK] = [1, 2, 4, 16]
const [CLIENT, SERVER] = [0, 1]
const FIRST = [1000, 5000]
const DATA = 10
const INT_MIN = -0x80000000

class result extends Struct {
  declare got_server: number
  declare got_client: number
  declare open: number
  declare tracked: number
  declare invalid: number
  declare late: number
}
const RESULT: Layout<result> = layout('tracker_result', result, {
  got_server: word, // what the server has from the client: the next number that it waits for
  got_client: word,
  open: word, // the server has the last segment of the handshake
  tracked: word,
  invalid: word,
  late: word, // another CPU has begun the connection first
})
const r = DEFINE_STATIC('tracker_result', RESULT)
const at = (field: keyof result & string): number => r.addr + RESULT.offset(field)
const GOT = [at('got_server'), at('got_client')]
const OPEN = at('open')

// ---- one segment through the hooks ------------------------------------------------------------------------------------

const arrived_sym = symbol('test_arrived', (skb: sk_buff): number => {
  consume_skb(skb)
  return 1
})
const tracked_sym = symbol('test_tracked', (skb: sk_buff): number => {
  fetch_add(at(skb.nfct === 0 ? 'invalid' : 'tracked'), 1)
  return nf_hook_slow(NF_IP_LOCAL_IN, skb, null, null, arrived_sym, INT_MIN)
})

function send(end: number, flags: number, seq: number, ack: number, len = 0): void {
  const ends = end === CLIENT ? { src: '10.0.0.2', dst: '10.0.1.2' } : { src: '10.0.1.2', dst: '10.0.0.2' }
  const ports = end === CLIENT ? { sport: 2000, dport: 80 } : { sport: 80, dport: 2000 }
  const frame = tcpFrame({ ...ends, ...ports, flags, seq, ack, window: 8192 }, new Uint8Array(len))
  const size = frame[16]! * 256 + frame[17]!
  const skb = alloc_skb(size)!
  skb.nh = skb_put(skb, size)
  RAM.u8.set(frame.subarray(14, 14 + size), skb.nh)
  local_bh_disable()
  if (nf_hook_slow(NF_IP_PRE_ROUTING, skb, null, null, tracked_sym, INT_MIN) !== 1) fetch_add(at('late'), 1)
  local_bh_enable()
}
/** From `end`, with an acknowledgement of all that it has; then the other one has it. */
function say(end: number, flags: number, len = 0): void {
  const seq = load(GOT[end]!)
  send(end, flags, seq, (flags & ACK) !== 0 ? load(GOT[1 - end]!) : 0, len)
  store(GOT[end]!, seq + len + ((flags & (SYN | FIN)) !== 0 ? 1 : 0))
}
function until(addr: number, value: number): void {
  while (load(addr) < value) cpu_relax()
}

// ---- the two ends -----------------------------------------------------------------------------------------------------

const handshake = {
  client(): void {
    say(CLIENT, SYN)
    until(GOT[SERVER]!, FIRST[SERVER]! + 1)
    say(CLIENT, ACK)
    store(OPEN, 1)
  },
  server(): void {
    until(GOT[CLIENT]!, FIRST[CLIENT]! + 1)
    say(SERVER, SYN | ACK)
    until(OPEN, 1)
  },
}
/** What both have sent in the end, when they have sent so much data. */
const all = (end: number, data: number): number => FIRST[end]! + 1 + data + 1

const MUCH = 2 * DATA
function close(end: number): void {
  say(end, ACK, DATA)
  say(end, ACK, DATA)
  say(end, FIN | ACK)
  until(GOT[1 - end]!, all(1 - end, MUCH))
  say(end, ACK)
}
const CLIENT_DOES: Record<TrackerArgs['what'], () => void> = {
  close(): void {
    handshake.client()
    close(CLIENT)
  },
  reset(): void {
    for (let k = 0; k < 3; k++) say(CLIENT, ACK, DATA)
  },
  expire: () => CLIENT_DOES.reset(),
  reopen: () => send(CLIENT, SYN, 90_000, 0),
}
const SERVER_DOES: Record<TrackerArgs['what'], () => void> = {
  close(): void {
    handshake.server()
    close(SERVER)
  },
  reset: () => say(SERVER, RST | ACK),
  expire(): void {
    for (let k = 0; k < 3; k++) say(SERVER, ACK, DATA)
  },
  reopen(): void {
    send(CLIENT, SYN, 90_000, 0)
    send(SERVER, ACK, load(GOT[SERVER]!), load(GOT[CLIENT]!))
  },
}

// ---- the machine ------------------------------------------------------------------------------------------------------

const TIMEOUTS = ['syn_sent', 'syn_recv', 'established', 'fin_wait', 'close_wait', 'last_ack', 'time_wait'] as const

export function setup(args: TrackerArgs): TrackerArgs {
  power_on(2, { slab_poison: 1 })
  const loading = request_module('ip_conntrack').next()
  if (loading.done !== true || loading.value !== 0) throw new Error('no ip_conntrack')
  FIRST.forEach((seq, end) => {
    store(GOT[end]!, seq)
  })
  local_irq_enable()
  if (args.what === 'close') return args
  for (const [end, flags] of [
    [CLIENT, SYN],
    [SERVER, SYN | ACK],
    [CLIENT, ACK],
  ] as const)
    say(end, flags)
  if (args.what === 'reopen') {
    for (const end of [CLIENT, SERVER]) say(end, FIN | ACK)
    for (const end of [CLIENT, SERVER]) say(end, ACK)
  }
  if (args.what === 'expire') for (const state of TIMEOUTS) ct_sysctl[`tcp_timeout_${state}`] = 0
  return args
}

const own_lock = DEFINE_PER_CPU('test_tracker_lock', RWLOCK)
export function prepare(args: TrackerArgs): void {
  secondary()
  if (args.twin !== true) return
  rwlock_init(own_lock.mine)
  const { addr, $w } = own_lock.mine
  Object.assign(ct.lock, { addr, $w })
}

function cpu(does: Record<TrackerArgs['what'], () => void>, args: TrackerArgs): void {
  cpu_reset()
  local_irq_enable()
  does[args.what]()
}
export const actors = {
  'CPU 0': (args: TrackerArgs): void => cpu(CLIENT_DOES, args),
  'CPU 1': (args: TrackerArgs): void => cpu(SERVER_DOES, args),
  clock: (args: TrackerArgs): void => clock_chip(args.ticks),
}
export const describe = describeAddress

const seen = { as: '' }
export const outcome = (): string => seen.as

function same(what: string, is: unknown, wanted: unknown): void {
  if (is !== wanted) throw new Error(`${what} ${is}, not ${wanted}`)
}
/** It ends after so many seconds, at most. */
function ends_within(c: ip_conntrack, seconds: number): void {
  const left = ((c.timeout.expires - jiffies()) | 0) / hz()
  if (left < 0 || left > seconds) throw new Error(`${TCP_STATES[c.tcp.state]}, and it ends in ${left} s`)
}

const INVARIANTS: Record<TrackerArgs['what'], (c: ip_conntrack | undefined) => void> = {
  close(c) {
    same('tracked', r.tracked, 3 + 8)
    same('state', TCP_STATES[c!.tcp.state], 'TIME_WAIT')
    same('status', c!.status, IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED)
    same('sent by the client', c!.tcp.seen_orig.td_end, all(CLIENT, MUCH))
    same('sent by the server', c!.tcp.seen_reply.td_end, all(SERVER, MUCH))
    ends_within(c!, ct_sysctl.tcp_timeout_time_wait)
  },
  reset(c) {
    same('tracked', r.tracked, 3 + 4)
    same('state', TCP_STATES[c!.tcp.state], 'CLOSE')
    same('sent by the client', c!.tcp.seen_orig.td_end, FIRST[CLIENT]! + 1 + 3 * DATA)
    ends_within(c!, ct_sysctl.tcp_timeout_close)
  },
  expire() {
    same('seen', r.tracked + r.invalid, 3 + 6)
  },
  reopen(c) {
    same('seen', r.tracked + r.invalid, 7 + 3)
    if (c !== undefined && c.tcp.state === 7) throw new Error('the SYN has not opened it')
  },
}

export function invariant(args: TrackerArgs): void {
  const found: ip_conntrack[] = []
  ip_conntrack_each(c => found.push(c))
  if (found.length > 1) throw new Error(`${found.length} connections`)
  same('connections', ct.count, found.length)
  for (const c of found) same('references', c.general.use, 1)
  if (args.what === 'close' || args.what === 'reset') {
    same('invalid', r.invalid, 0)
    same('late', r.late, 0)
  }
  INVARIANTS[args.what](found[0])
  seen.as = `${found.map(c => TCP_STATES[c.tcp.state]).join() || 'none'}, ${r.invalid} invalid, ${r.late} late`
  nothing_leaked()
}
