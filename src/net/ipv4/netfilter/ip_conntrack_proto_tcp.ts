/**
 * ip_conntrack_proto_tcp.ts - TCP connections: which segments may come in which state, and in which window (Guido van Rooij, "Real
 * Stateful TCP Packet Filtering in IP Filter"; ip_conntrack_proto_tcp.c).
 * Locks: see the charter of ip_conntrack.ts; all of `c.tcp` is under ip_conntrack_lock, where 2.6.11 has tcp_lock.
 */
import { hz } from '../../../arch/machine.js'
import { RAM } from '../../../arch/ram.js'
import { write_lock_bh, write_unlock_bh } from '../../../sync/rwlock.js'
import { NF_ACCEPT, NF_DROP, NF_REPEAT } from '../../core/netfilter.js'
import type { sk_buff } from '../../core/types.js'
import { ip_hdrlen } from '../../wire/ipv4.js'
import {
  __ip_ct_refresh,
  ct,
  IPS_ASSURED,
  IPS_SEEN_REPLY,
  type ip_conntrack,
  ip_ct_kill,
  type ip_ct_tcp,
  type ip_ct_tcp_state,
  set_status,
} from './ip_conntrack.js'
import { ct_sysctl } from './ip_conntrack_sysctl.js'
import { transport } from './ipt_matches.js'
import { nf_checksum_wrong } from './nf_checksum.js'

const u8 = RAM.u8
const dv = RAM.dv

// ---- states -----------------------------------------------------------------------------------------------------------

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
const NONE = 0
const SYN_SENT = 1
const SYN_RECV = 2
const ESTABLISHED = 3
const FIN_WAIT = 4
const TIME_WAIT = 7
const CLOSE = 8

// kinds of segments
const SYN_SET = 0
const SYNACK_SET = 1
const FIN_SET = 2
const ACK_SET = 3
const RST_SET = 4
const NONE_SET = 5

const IV = -1 // no such segment can come
const IG = -2 // it may be out of time: it changes nothing
const NEVER = new Array<number>(10).fill(IV)
const CL = [IV, 8, 8, 8, 8, 8, 8, 8, 8, IV]
const FIN = [IV, IV, 4, 4, 6, 6, 6, 7, 8, IV]
/** tcp_conntracks: by direction, by kind of segment, by state. */
const TCP_NEXT = [
  [[1, 1, IG, IG, IG, IG, IG, 1, 1, IV], NEVER, FIN, [3, IV, 3, 3, 5, 5, 7, 7, 8, IV], CL, NEVER],
  [NEVER, [IV, 2, 2, IG, IG, IG, IG, IG, IG, IV], FIN, [IV, IV, 2, 3, 5, 5, 7, 7, 8, IV], CL, NEVER],
]

/** Seconds that a connection stays in a state. */
function timeout_of(state: number): number {
  switch (state) {
    case SYN_SENT:
      return ct_sysctl.tcp_timeout_syn_sent
    case SYN_RECV:
      return ct_sysctl.tcp_timeout_syn_recv
    case ESTABLISHED:
      return ct_sysctl.tcp_timeout_established
    case FIN_WAIT:
      return ct_sysctl.tcp_timeout_fin_wait
    case 5:
      return ct_sysctl.tcp_timeout_close_wait
    case 6:
      return ct_sysctl.tcp_timeout_last_ack
    case TIME_WAIT:
      return ct_sysctl.tcp_timeout_time_wait
    default:
      return ct_sysctl.tcp_timeout_close
  }
}

// ---- the header -------------------------------------------------------------------------------------------------------

const TH_FIN = 1
const TH_SYN = 2
const TH_RST = 4
const TH_ACK = 16
/** tcp_valid_flags - of FIN, SYN, RST, PSH, ACK and URG. */
const VALID_FLAGS = [2, 18, 4, 20, 28, 17, 16, 24, 48, 56, 25, 49, 57]

const seq_of = (th: number): number => dv.getInt32(th + 4)
const ack_of = (th: number): number => dv.getInt32(th + 8)
const window_of = (th: number): number => dv.getUint16(th + 14)
const doff_of = (th: number): number => (u8[th + 12] >> 4) * 4

/** Across the wrap. */
const before = (a: number, b: number): boolean => ((a - b) | 0) < 0
const after = (a: number, b: number): boolean => ((b - a) | 0) < 0

function get_conntrack_index(th: number): number {
  const flags = u8[th + 13]
  if ((flags & TH_RST) !== 0) return RST_SET
  if ((flags & TH_SYN) !== 0) return (flags & TH_ACK) !== 0 ? SYNACK_SET : SYN_SET
  if ((flags & TH_FIN) !== 0) return FIN_SET
  return (flags & TH_ACK) !== 0 ? ACK_SET : NONE_SET
}

/** The sequence number behind a segment: its data, its SYN and its FIN count. */
function segment_end(skb: sk_buff, th: number): number {
  const flags = u8[th + 13]
  const data = skb.len - ip_hdrlen(skb.nh) - doff_of(th)
  return (seq_of(th) + data + ((flags & TH_SYN) !== 0 ? 1 : 0) + ((flags & TH_FIN) !== 0 ? 1 : 0)) | 0
}

/** tcp_header - (tcp_error) address of the whole header, options too; 0: it is cut short, its sum is wrong or its flags mean nothing */
export function tcp_header(skb: sk_buff, hook: number): number {
  const short = transport(skb, 20)
  if (short === 0) return 0
  const hlen = ip_hdrlen(skb.nh)
  const doff = doff_of(short)
  if (doff < 20 || skb.len - hlen < doff) return 0
  const th = transport(skb, doff)
  if (th === 0) return 0
  if (nf_checksum_wrong(skb, hook)) return 0
  return VALID_FLAGS.includes(u8[th + 13] & 63) ? th : 0
}

// ---- options ----------------------------------------------------------------------------------------------------------

const TCPOPT_EOL = 0
const TCPOPT_NOP = 1
const TCPOPT_WINDOW = 3
const TCPOPT_SACK_PERM = 4
const TCPOPT_SACK = 5

const FLAG_WINDOW_SCALE = 1
const FLAG_SACK_PERM = 2
const FLAG_CLOSE_INIT = 4 // his was the first FIN, or the reset

/** Each whole option but padding: its kind, address and size. */
function each_option(th: number, f: (kind: number, at: number, size: number) => void): void {
  const end = th + doff_of(th)
  for (let at = th + 20; at < end; ) {
    const kind = u8[at]
    if (kind === TCPOPT_EOL) return
    if (kind === TCPOPT_NOP) {
      at++
      continue
    }
    const size = at + 1 < end ? u8[at + 1] : 0
    if (size < 2 || at + size > end) return
    f(kind, at, size)
    at += size
  }
}

/** tcp_options - what a SYN agrees on. */
function tcp_options(th: number, end: ip_ct_tcp_state): void {
  if (doff_of(th) === 20) return
  end.td_scale = 0
  end.flags = 0
  each_option(th, (kind, at, size) => {
    if (kind === TCPOPT_SACK_PERM && size === 2) end.flags |= FLAG_SACK_PERM
    if (kind !== TCPOPT_WINDOW || size !== 3) return
    end.td_scale = Math.min(u8[at + 2], 14)
    end.flags |= FLAG_WINDOW_SCALE
  })
}

/** tcp_sack - the last that its sender has, `ack` or the end of a block behind it. */
function tcp_sack(th: number, ack: number): number {
  let last = ack
  each_option(th, (kind, at, size) => {
    if (kind !== TCPOPT_SACK || size < 10 || (size - 2) % 8 !== 0) return
    for (let k = 2; k < size; k += 8) {
      const end = dv.getInt32(at + k + 4)
      if (after(end, last)) last = end
    }
  })
  return last
}

// ---- the window -------------------------------------------------------------------------------------------------------

/** An old acknowledgement may come that late, bytes, or as late as the largest window. */
const MAXACKWINCONST = 66000

/** The first segment of an end: a handshake's, or one in the middle of what we have not seen. */
function first_seen(sender: ip_ct_tcp_state, receiver: ip_ct_tcp_state, th: number, end: number): void {
  sender.td_end = end
  sender.td_maxwin = window_of(th) || 1
  if ((u8[th + 13] & (TH_SYN | TH_ACK)) !== (TH_SYN | TH_ACK)) {
    sender.td_maxend = (end + sender.td_maxwin) | 0
    return
  }
  sender.td_maxend = end
  tcp_options(th, sender)
  // Windows are scaled only if both ends say so (RFC 1323).
  if ((sender.flags & receiver.flags & FLAG_WINDOW_SCALE) === 0) {
    sender.td_scale = 0
    receiver.td_scale = 0
  }
}

/** A segment that was in the window moves it. */
function move_window(
  sender: ip_ct_tcp_state,
  receiver: ip_ct_tcp_state,
  end: number,
  ack: number,
  sack: number,
  win: number,
): void {
  const swin = (win + ((sack - ack) | 0)) >>> 0
  if (sender.td_maxwin >>> 0 < swin) sender.td_maxwin = swin | 0
  if (after(end, sender.td_end)) sender.td_end = end
  if (after(end, sender.td_maxend)) receiver.td_maxwin = (receiver.td_maxwin + ((end - sender.td_maxend) | 0)) | 0
  if (after(sack + win, receiver.td_maxend - 1)) receiver.td_maxend = (sack + win + (win === 0 ? 1 : 0)) | 0
}

/** Is it the same acknowledgement again? */
function count_retrans(t: ip_ct_tcp, dir: number, seq: number, ack: number, end: number): void {
  if (t.last_dir === dir && t.last_seq === seq && t.last_ack === ack && t.last_end === end) {
    t.retrans++
    return
  }
  t.last_dir = dir
  t.last_seq = seq
  t.last_ack = ack
  t.last_end = end
  t.retrans = 0
}

/** tcp_in_window - may this end send that now? If so, the windows move. @locks ip_conntrack_lock is held for writing */
function tcp_in_window(t: ip_ct_tcp, dir: number, index: number, skb: sk_buff, th: number): boolean {
  const sender = dir === 0 ? t.seen_orig : t.seen_reply
  const receiver = dir === 0 ? t.seen_reply : t.seen_orig
  const flags = u8[th + 13]
  let seq = seq_of(th)
  let ack = ack_of(th)
  let end = segment_end(skb, th)
  let sack = (receiver.flags & FLAG_SACK_PERM) !== 0 ? tcp_sack(th, ack) : ack
  if (sender.td_end === 0) first_seen(sender, receiver, th, end)
  else if (((t.state === SYN_SENT && dir === 0) || (t.state === SYN_RECV && dir === 1)) && after(end, sender.td_end)) {
    // It begins anew, behind what it has used (RFC 793).
    sender.td_end = end
    sender.td_maxend = end
    sender.td_maxwin = window_of(th) || 1
    tcp_options(th, sender)
  }
  // Without an acknowledgement it is as if there were one that fits; some stacks send resets that acknowledge 0.
  if ((flags & TH_ACK) === 0 || ((flags & TH_RST) !== 0 && ack === 0)) {
    ack = receiver.td_end
    sack = ack
  }
  // No data: only what is acknowledged counts. Resets always count by their number, but those that answer a SYN by 0.
  if (seq === end && ((flags & TH_RST) === 0 || (seq === 0 && t.state === SYN_SENT))) {
    seq = sender.td_end
    end = seq
  }
  const late = Math.max(sender.td_maxwin >>> 0, MAXACKWINCONST)
  const fits =
    sender.loose !== 0 ||
    receiver.loose !== 0 ||
    (before(seq, sender.td_maxend + 1) &&
      after(end, sender.td_end - receiver.td_maxwin - 1) &&
      before(sack, receiver.td_end + 1) &&
      after(ack, receiver.td_end - late))
  if (!fits) return ct_sysctl.tcp_be_liberal !== 0
  const win = (flags & TH_SYN) !== 0 ? window_of(th) : window_of(th) << sender.td_scale
  move_window(sender, receiver, end, ack, sack, win)
  if (index === ACK_SET) count_retrans(t, dir, seq, ack, end)
  if (sender.loose !== 0) sender.loose--
  return true
}

// ---- packets ----------------------------------------------------------------------------------------------------------

/** tcp_can_begin - a SYN; or, unless that is forbidden, an ACK in the middle of what we have not seen. */
export function tcp_can_begin(th: number): boolean {
  const next = TCP_NEXT[0]![get_conntrack_index(th)]![NONE]!
  return next === SYN_SENT || (next === ESTABLISHED && ct_sysctl.tcp_loose !== 0)
}

/** tcp_new - the first segment that we see of a connection. All else of it is 0. */
export function tcp_new(c: ip_conntrack, skb: sk_buff, th: number): void {
  const { seen_orig: orig, seen_reply: reply } = c.tcp
  orig.td_end = segment_end(skb, th)
  orig.td_maxwin = window_of(th) || 1
  reply.td_maxwin = 1
  c.tcp.last_index = NONE_SET
  if (get_conntrack_index(th) === SYN_SET) {
    orig.td_maxend = orig.td_end
    tcp_options(th, orig)
    return
  }
  orig.td_maxend = (orig.td_end + orig.td_maxwin) | 0
  orig.flags = FLAG_SACK_PERM
  reply.flags = FLAG_SACK_PERM
  orig.loose = ct_sysctl.tcp_loose
  reply.loose = ct_sysctl.tcp_loose
}

const CHECK = 0
const SKIP = 1
const DONE = 2
const KILL = 3
/**
 * What the state says to a segment: CHECK its window, SKIP that, DONE, or KILL the connection; DONE and KILL with a verdict.
 * @locks ip_conntrack_lock is held for writing
 */
function by_state(c: ip_conntrack, th: number, dir: number, index: number, next: number): [number, number] {
  const t = c.tcp
  if (next === IV) return [DONE, -NF_ACCEPT]
  if (next === IG) {
    // The answer to a SYN that we have not believed: the two ends agree and we are wrong. The next SYN begins anew.
    if (index === SYNACK_SET && t.last_index === SYN_SET && t.last_dir !== dir && after(ack_of(th), t.last_seq))
      return [KILL, -NF_DROP]
    t.last_index = index
    t.last_dir = dir
    t.last_seq = seq_of(th)
    return [DONE, NF_ACCEPT]
  }
  if (next === SYN_SENT && t.state >= TIME_WAIT) {
    const sender = dir === 0 ? t.seen_orig : t.seen_reply
    const reopens = (sender.flags & FLAG_CLOSE_INIT) !== 0 || after(seq_of(th), sender.td_end)
    return reopens ? [KILL, -NF_REPEAT] : [DONE, -NF_ACCEPT] // or a SYN of the connection that is over, late
  }
  // The reset of a SYN that we have let through: what it acknowledges is nothing that we have counted.
  const answers = index === RST_SET && t.last_index === SYN_SET && after(ack_of(th), t.last_seq)
  return [answers && (c.status & IPS_SEEN_REPLY) !== 0 ? SKIP : CHECK, NF_ACCEPT]
}

/**
 * tcp_packet - @returns NF_ACCEPT; -NF_ACCEPT: not of this connection; -NF_DROP: it must not get there; -NF_REPEAT: the connection
 * was over, and the packet begins another one, which is to be looked for again
 */
export function tcp_packet(c: ip_conntrack, skb: sk_buff, th: number, dir: number): number {
  const t = c.tcp
  const index = get_conntrack_index(th)
  write_lock_bh(ct.lock)
  const old = t.state
  const next = TCP_NEXT[dir]![index]![old]!
  const [what, verdict] = by_state(c, th, dir, index, next)
  if (what === DONE || what === KILL || (what === CHECK && !tcp_in_window(t, dir, index, skb, th))) {
    write_unlock_bh(ct.lock)
    if (what === KILL) ip_ct_kill(c)
    return what === CHECK ? -NF_ACCEPT : verdict
  }
  t.last_index = index
  t.state = next
  if (old !== next && (next === FIN_WAIT || next === CLOSE))
    (dir === 0 ? t.seen_orig : t.seen_reply).flags |= FLAG_CLOSE_INIT
  const silent = t.retrans >= ct_sysctl.tcp_max_retrans ? ct_sysctl.tcp_timeout_max_retrans : Infinity
  const replied = (c.status & IPS_SEEN_REPLY) !== 0
  const refused = index === RST_SET && !replied
  // 2.6.11 does it without the lock: what is reset meanwhile stays for days, as what it was before.
  if (!refused) __ip_ct_refresh(c, Math.min(timeout_of(next), silent) * hz())
  write_unlock_bh(ct.lock)
  if (refused)
    ip_ct_kill(c) // what follows is another connection
  else if (replied && next === ESTABLISHED && (old === SYN_RECV || old === ESTABLISHED)) set_status(c, IPS_ASSURED)
  return NF_ACCEPT
}
