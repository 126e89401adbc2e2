/**
 * ip_conntrack_proto.ts - what protocols know of connections (ip_conntrack_proto_{tcp,udp,icmp,generic}.c): states and timeouts.
 * Locks: see the charter of ip_conntrack.ts.
 */
import { hz } from '../../../arch/machine.js'
import { RAM } from '../../../arch/ram.js'
import { write_lock_bh, write_unlock_bh } from '../../../sync/rwlock.js'
import { NF_ACCEPT, NF_REPEAT } from '../../core/netfilter.js'
import type { sk_buff } from '../../core/types.js'
import { IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, ip_hdrlen, ip_protocol } from '../../wire/ipv4.js'
import {
  ct,
  IPS_ASSURED,
  IPS_CLOSE_INIT,
  IPS_SEEN_REPLY,
  type ip_conntrack,
  ip_ct_kill,
  ip_ct_refresh,
  set_status,
} from './ip_conntrack.js'

const u8 = RAM.u8
const dv = RAM.dv

const QUESTIONS = [8, 13, 15, 17]

export const TCP_STATES = [
  'NONE',
  'SYN_SENT',
  'SYN_RECV',
  'ESTABLISHED',
  'FIN_WAIT',
  'CLOSE_WAIT',
  'LAST_ACK',
  'TIME_WAIT',
  'CLOSE',
  'LISTEN',
]
const TCP_TIMEOUTS = [30 * 60, 120, 60, 5 * 86400, 120, 60, 30, 120, 10, 120] // seconds
const ES = 3
const IV = -1 // no such segment can come
const IG = -2 // it may be out of time: it changes nothing
const NONE = new Array<number>(10).fill(IV)
const CL = [IV, 8, 8, 8, 8, 8, 8, 8, 8, IV]
const FIN = [IV, IV, 4, 4, 6, 6, 6, 7, 8, IV]
/** tcp_conntracks: by direction, by kind of segment (SYN, SYN and ACK, FIN, ACK, RST, nothing), by state. */
const TCP_NEXT = [
  [[1, 1, IG, IG, IG, IG, IG, 1, 1, IV], NONE, FIN, [ES, IV, ES, ES, 5, 5, 7, 7, 8, IV], CL, NONE],
  [NONE, [IV, 2, 2, IG, IG, IG, IG, IG, IG, IV], FIN, [IV, IV, 2, ES, 5, 5, 7, 7, 8, IV], CL, NONE],
]
function tcp_kind(flags: number): number {
  if ((flags & 4) !== 0) return 4
  if ((flags & 2) !== 0) return (flags & 16) !== 0 ? 1 : 0
  if ((flags & 1) !== 0) return 2
  return (flags & 16) !== 0 ? 3 : 5
}

const SYN_SENT = 1
const FIN_WAIT = 4
const TIME_WAIT = 7
const CLOSE = 8

/** The sequence number behind a segment: its data, its SYN and its FIN count. */
function segment_end(skb: sk_buff, th: number): number {
  const data = skb.len - ip_hdrlen(skb.nh) - (u8[th + 12] >> 4) * 4
  return (dv.getInt32(th + 4) + data + ((u8[th + 13] >> 1) & 1) + (u8[th + 13] & 1)) | 0
}
/** after - a later than b, across the wrap. */
function after(a: number, b: number): boolean {
  return ((b - a) | 0) < 0
}

/**
 * tcp_packet - @returns NF_ACCEPT; -NF_ACCEPT: not of this connection; -NF_REPEAT: it was over, and the packet begins another one,
 * which is to be looked for again
 */
function tcp_packet(c: ip_conntrack, skb: sk_buff, th: number, dir: number): number {
  const flags = u8[th + 13]
  write_lock_bh(ct.lock)
  const old = c.state
  const next = TCP_NEXT[dir]![tcp_kind(flags)]![old]!
  if (next === IV) {
    write_unlock_bh(ct.lock)
    return -NF_ACCEPT
  }
  if (next === SYN_SENT && old >= TIME_WAIT) {
    const reopens = (c.status & IPS_CLOSE_INIT) !== 0 || after(dv.getInt32(th + 4), c.td_end)
    write_unlock_bh(ct.lock)
    if (!reopens) return -NF_ACCEPT // a SYN of the connection that is over, late
    ip_ct_kill(c)
    return -NF_REPEAT
  }
  const state = next === IG ? old : next
  c.state = state
  if (dir === 0 && next !== IG) {
    const end = segment_end(skb, th)
    if (old === 0 || after(end, c.td_end)) c.td_end = end
    if (old !== state && (state === FIN_WAIT || state === CLOSE)) set_status(c, IPS_CLOSE_INIT)
  }
  if (state === ES && (old === ES || old === 2)) set_status(c, IPS_ASSURED)
  write_unlock_bh(ct.lock)
  if ((c.status & IPS_SEEN_REPLY) === 0 && (flags & 4) !== 0 && dir === 1) {
    ip_ct_refresh(c, 0) // a refusal: what follows is another connection
    return NF_ACCEPT
  }
  if (next !== IG) ip_ct_refresh(c, TCP_TIMEOUTS[state]! * hz())
  return NF_ACCEPT
}

function udp_packet(c: ip_conntrack): void {
  const replied = (c.status & IPS_SEEN_REPLY) !== 0
  ip_ct_refresh(c, (replied ? 180 : 30) * hz())
  if (replied) set_status(c, IPS_ASSURED)
}

/** proto_packet - let the protocol see a packet whose transport header is at `h`. @returns NF_ACCEPT or a negative verdict */
export function proto_packet(c: ip_conntrack, skb: sk_buff, h: number, dir: number): number {
  const proto = ip_protocol(skb.nh)
  if (proto === IPPROTO_TCP) return tcp_packet(c, skb, h, dir)
  if (proto === IPPROTO_UDP) udp_packet(c)
  else ip_ct_refresh(c, (proto === IPPROTO_ICMP ? 30 : 600) * hz())
  return NF_ACCEPT
}

/** proto_new - may a packet that belongs to nothing begin a connection? */
export function proto_new(iph: number, h: number): boolean {
  const proto = ip_protocol(iph)
  if (proto === IPPROTO_TCP) {
    const next = TCP_NEXT[0]![tcp_kind(u8[h + 13])]![0]!
    return next !== IV && next !== IG
  }
  return proto !== IPPROTO_ICMP || QUESTIONS.includes(u8[h])
}
