/**
 * ip_append.ts - datagrams put together from what a program says piece by piece (ip_append_data and ip_push_pending_frames of
 * 2.6.11): the write queue holds packets that each fit the link, with room for their headers.
 *
 * Lock charter
 *   The socket is the caller's (lock_sock): the write queue and the cork belong to him, and the queue's own lock is not taken.
 */
import { RAM } from '../../arch/ram.js'
import { csum_fold, csum_partial } from '../../lib/checksum.js'
import { EFAULT, EMSGSIZE, ENOBUFS, ENOMEM } from '../../lib/errno.js'
import { MAX_SKB_FRAGS, PAGE_SIZE } from '../../lib/limits.js'
import { kfree } from '../../mm/kmalloc.js'
import { dst_hold } from '../core/dst.js'
import { drop_reason, fate_made } from '../core/fate.js'
import { csum_partial_copy_fromiovecend, memcpy_fromiovecend } from '../core/iovec.js'
import { page_alloc, page_get } from '../core/pages.js'
import { __skb_dequeue, __skb_queue_tail, skb_queue_empty } from '../core/skb_queue.js'
import {
  __skb_pull,
  consume_skb,
  kfree_skb,
  pskb_trim,
  skb_add_frag,
  skb_copy_bits,
  skb_put,
  skb_reserve,
  skb_shinfo,
} from '../core/skbuff.js'
import {
  sock_alloc_send_skb,
  sock_alloc_send_skb_fast,
  sock_wmalloc,
  sock_wmem,
  sock_wmem_add,
} from '../core/sock_mem.js'
import { MSG_DONTWAIT, MSG_MORE, MSG_PROBE, type sock } from '../core/sock_types.js'
import {
  ACCT_LOCAL,
  CHECKSUM_HW,
  CHECKSUM_NONE,
  type dst_entry,
  NET_XMIT_CN,
  NETIF_F_HW_CSUM,
  NETIF_F_IP_CSUM,
  NETIF_F_NO_CSUM,
  NETIF_F_SG,
  SKB,
  type sk_buff,
} from '../core/types.js'
import {
  IP_DF,
  set_ip_daddr,
  set_ip_frag_off,
  set_ip_id,
  set_ip_protocol,
  set_ip_saddr,
  set_ip_tos,
  set_ip_ttl,
  set_ip_vhl,
} from '../wire/ipv4.js'
import { RTN_MULTICAST } from './fib_types.js'
import { IP_PMTUDISC_DO, IP_PMTUDISC_WANT, inet_sk, type inet_sock } from './inet_sock.js'
import { ip_local_error } from './ip_errqueue.js'
import { ip_select_ident } from './ip_ident.js'
import { IP_OPTIONS, ip_options_build, ip_options_copy } from './ip_options_sock.js'
import { ip_local_out } from './ip_output.js'
import { ip_stats } from './mib.js'
import { ip_rt_put } from './route.js'
import { RTABLE, type rtable } from './types.js'

const i32 = RAM.i32
const dv = RAM.dv

const HH_LEN = 16 // LL_RESERVED_SPACE of an Ethernet header
const IP_HLEN = 20
const NETIF_F_ALL_CSUM = NETIF_F_IP_CSUM | NETIF_F_NO_CSUM | NETIF_F_HW_CSUM
const NOT_SENT = drop_reason('not_specified')

/** A partial sum as 16 bits, so that it fits skb.csum. */
export function csum_16(sum: number): number {
  return ~csum_fold(sum) & 0xffff
}
/** csum_block_add - the sum of a block that lies at this offset behind what was summed before. */
export function csum_block_add(sum: number, block: number, offset: number): number {
  const b = csum_16(block)
  return csum_16(sum + ((offset & 1) !== 0 ? ((b & 0xff) << 8) | (b >> 8) : b))
}

/** ip_generic_getfrag - bytes of the program's into a packet, summed up unless the device does that. @returns 0, -EFAULT */
function getfrag(skb: sk_buff, to: number, iov: number, offset: number, len: number, odd: number): number {
  if (skb.ip_summed === CHECKSUM_HW) return memcpy_fromiovecend(to, iov, offset, len)
  const sum = csum_partial_copy_fromiovecend(to, iov, offset, len)
  if (sum === -EFAULT) return -EFAULT
  skb.csum = csum_block_add(skb.csum, sum, odd)
  return 0
}

/** What one call of ip_append_data goes by; lives on its stack. */
interface Append {
  sk: sock
  inet: inet_sock
  rt: rtable
  iov: number
  /** Bytes of the vector that were taken, and that are still to come (the transport header counts, at first). */
  offset: number
  length: number
  transhdrlen: number
  mtu: number
  maxfraglen: number
  /** IP header with its options. */
  hlen: number
  opt: number
  faddr: number
  flags: number
  csummode: number
}

function peek_tail(sk: sock): sk_buff | null {
  const q = sk.sk_write_queue
  return q.prev === q.addr ? null : SKB.ref(q.prev)
}

/** Begin a datagram, or go on with one. @returns 0, -EMSGSIZE, -ENOBUFS */
function set_up(a: Append): number {
  const { inet, sk } = a
  if (skb_queue_empty(sk.sk_write_queue)) {
    if (a.opt !== 0) {
      inet.cork.opt = ip_options_copy(a.opt)
      if (inet.cork.opt === 0) return -ENOBUFS
      inet.cork.faddr = a.faddr
    }
    dst_hold(a.rt.dst)
    inet.cork.rt = a.rt.addr
    inet.cork.fragsize = a.rt.dst.mtu
    inet.cork.length = 0
    sk.sk_sndmsg_page = 0
    sk.sk_sndmsg_off = 0
  } else {
    a.rt = RTABLE.ref(inet.cork.rt)
    a.transhdrlen = 0
  }
  a.mtu = inet.cork.fragsize
  a.hlen = IP_HLEN + (inet.cork.opt === 0 ? 0 : IP_OPTIONS.ref(inet.cork.opt).optlen)
  a.maxfraglen = ((a.mtu - a.hlen) & ~7) + a.hlen
  if (inet.cork.length + a.length > 0xffff - a.hlen) {
    ip_local_error(sk, EMSGSIZE, a.rt.rt_dst, inet.dport, a.mtu)
    return -EMSGSIZE
  }
  if (
    a.transhdrlen !== 0 &&
    a.length + a.hlen <= a.mtu &&
    (a.rt.dst.dev!.features & NETIF_F_ALL_CSUM) !== 0 // it is not cut, so far
  )
    a.csummode = CHECKSUM_HW
  inet.cork.length += a.length
  return 0
}

/** One more packet of the datagram. @returns its address, -errno; 0: the caller would have to wait */
function alloc_packet(a: Append, alloclen: number): number {
  const size = alloclen + HH_LEN + 15
  if (a.transhdrlen !== 0) {
    return sock_alloc_send_skb_fast(a.sk, size)
  }
  const skb = sock_wmem(a.sk) <= 2 * a.sk.sk_sndbuf ? sock_wmalloc(a.sk, size, true) : null
  return skb === null ? -ENOBUFS : skb.addr
}

/** Fill a new packet: first what is too much in the one before, then the program's bytes. @consumes skb if it fails @returns 0, -errno */
function fill_packet(a: Append, skb: sk_buff, prev: sk_buff | null, fraggap: number, datalen: number): number {
  skb.ip_summed = a.csummode
  skb.csum = 0
  skb_reserve(skb, HH_LEN)
  skb.nh = skb_put(skb, datalen + a.hlen)
  skb.h = skb.nh + a.hlen
  let data = skb.h + a.transhdrlen
  if (fraggap > 0 && prev !== null) {
    skb_copy_bits(prev, a.maxfraglen, data, fraggap)
    skb.csum = csum_16(csum_partial(dv, data, fraggap, 0))
    prev.csum = csum_16(prev.csum + (~skb.csum & 0xffff)) // csum_sub
    data += fraggap
    if (pskb_trim(prev, a.maxfraglen) !== 0) {
      consume_skb(skb)
      return -ENOMEM
    }
  }
  const copy = datalen - a.transhdrlen - fraggap
  if (copy > 0 && getfrag(skb, data, a.iov, a.offset, copy, fraggap) < 0) {
    consume_skb(skb)
    return -EFAULT
  }
  a.offset += Math.max(copy, 0)
  a.length -= datalen - fraggap
  a.transhdrlen = 0
  a.csummode = CHECKSUM_NONE
  __skb_queue_tail(a.sk.sk_write_queue, skb)
  return 0
}

/** Bytes behind a packet that lies in one block. @returns 0, -EFAULT */
function append_linear(a: Append, skb: sk_buff, copy: number): number {
  const off = skb.len
  if (getfrag(skb, skb_put(skb, copy), a.iov, a.offset, copy, off - a.hlen) === 0) return 0
  skb.len = off
  skb.tail = skb.data + off
  return -EFAULT
}

/** A place for bytes in the pages of a packet: behind the last ones, or in a new page. @returns bytes of room, -errno */
function page_room(a: Append, skb: sk_buff, want: number): number {
  const { sk } = a
  const info = skb_shinfo(skb)
  const k = info.nr_frags
  const last = k === 0 ? 0 : i32[(info.frags >> 2) + (k - 1) * 3]
  const left = sk.sk_sndmsg_page === 0 ? 0 : PAGE_SIZE - sk.sk_sndmsg_off
  if (left > 0) {
    if (sk.sk_sndmsg_page !== last) {
      if (k === MAX_SKB_FRAGS) return -EMSGSIZE
      page_get(sk.sk_sndmsg_page)
      skb_add_frag(skb, sk.sk_sndmsg_page, sk.sk_sndmsg_off, 0)
    }
    return Math.min(want, left)
  }
  if (k >= MAX_SKB_FRAGS) return -EMSGSIZE
  const page = page_alloc()
  if (page === 0) return -ENOMEM
  sk.sk_sndmsg_page = page
  sk.sk_sndmsg_off = 0
  skb_add_frag(skb, page, 0, 0)
  skb.truesize += PAGE_SIZE
  sock_wmem_add(sk, PAGE_SIZE)
  return Math.min(want, PAGE_SIZE)
}

/** Bytes behind a packet for a device that gathers. @returns bytes taken, -errno */
function append_pages(a: Append, skb: sk_buff, want: number): number {
  const copy = page_room(a, skb, want)
  if (copy < 0) return copy
  const info = skb_shinfo(skb)
  const f = (info.frags >> 2) + (info.nr_frags - 1) * 3
  if (getfrag(skb, i32[f] + i32[f + 1] + i32[f + 2], a.iov, a.offset, copy, skb.len - a.hlen) < 0) return -EFAULT
  a.sk.sk_sndmsg_off += copy
  i32[f + 2] += copy
  skb.len += copy
  skb.data_len += copy
  return copy
}

/** Bytes into the last packet, as many as fit it. @returns 0, -errno */
function append(a: Append, skb: sk_buff, room: number): number {
  let copy = Math.min(room, a.length)
  if ((a.rt.dst.dev!.features & NETIF_F_SG) === 0) {
    const err = append_linear(a, skb, copy)
    if (err < 0) return err
  } else {
    copy = append_pages(a, skb, copy)
    if (copy < 0) return copy
  }
  a.offset += copy
  a.length -= copy
  return 0
}

/** The next packet's sizes: [bytes that move over from the one before, its data, bytes to allocate]. */
function measure(a: Append, prev: sk_buff | null): [number, number, number] {
  const fraggap = prev === null ? 0 : prev.len - a.maxfraglen
  let datalen = a.length + fraggap
  if (datalen > a.mtu - a.hlen) datalen = a.maxfraglen - a.hlen
  // Who says that more will come does not know which packet will be the last.
  const open = (a.flags & MSG_MORE) !== 0 && (a.rt.dst.dev!.features & NETIF_F_SG) === 0
  return [fraggap, datalen, open ? a.mtu : datalen + a.hlen]
}

/**
 * ip_append_data - `length` bytes more of a datagram, `transhdrlen` of them room for the transport header in front, the others
 * from the vector; `opt` are IP options of a datagram that goes to `faddr` in the end. @context process @locks the socket is the caller's @returns 0, -errno
 */
export function* ip_append_data(
  sk: sock,
  iov: number,
  length: number,
  transhdrlen: number,
  rt: rtable,
  flags: number,
  opt = 0,
  faddr = 0,
): Generator<void, number, void> {
  if ((flags & MSG_PROBE) !== 0) return 0
  const a: Append = {
    sk,
    inet: inet_sk(sk),
    rt,
    iov,
    offset: 0,
    length,
    transhdrlen,
    mtu: 0,
    maxfraglen: 0,
    hlen: 0,
    flags,
    opt,
    faddr,
    csummode: CHECKSUM_NONE,
  }
  const noblock = (flags & MSG_DONTWAIT) !== 0
  let err = set_up(a)
  if (err !== 0) return err
  for (let skb = peek_tail(sk); err === 0 && (a.length > 0 || skb === null); skb = peek_tail(sk)) {
    let room = skb === null ? 0 : a.mtu - skb.len
    if (skb !== null && room < a.length) room = a.maxfraglen - skb.len
    if (skb !== null && room > 0) {
      err = append(a, skb, room)
      continue
    }
    const [fraggap, datalen, alloclen] = measure(a, skb)
    let got = alloc_packet(a, alloclen)
    if (got === 0) got = yield* sock_alloc_send_skb(sk, alloclen + HH_LEN + 15, noblock)
    err = got < 0 ? got : fill_packet(a, SKB.ref(got), skb, fraggap, datalen)
  }
  if (err === 0) return 0
  a.inet.cork.length -= a.length
  ip_stats.OutDiscards++
  return err
}

function release_cork(inet: inet_sock): void {
  if (inet.cork.rt !== 0) ip_rt_put(RTABLE.ref(inet.cork.rt))
  inet.cork.rt = 0
  if (inet.cork.opt !== 0) kfree(inet.cork.opt)
  inet.cork.opt = 0
}

/** ip_flush_pending_frames - the datagram is given up. @locks the socket is the caller's */
export function ip_flush_pending_frames(sk: sock): void {
  for (let skb = __skb_dequeue(sk.sk_write_queue); skb !== null; skb = __skb_dequeue(sk.sk_write_queue))
    kfree_skb(skb, NOT_SENT)
  release_cork(inet_sk(sk))
}

/** Must packets of this socket stay whole? */
function ip_dont_fragment(inet: inet_sock, dst: dst_entry): boolean {
  return inet.pmtudisc === IP_PMTUDISC_DO || (inet.pmtudisc === IP_PMTUDISC_WANT && dst.mtu_locked === 0)
}

/** The write queue as one packet, further ones in its list. @returns null: it is empty */
function gather(sk: sock): sk_buff | null {
  const skb = __skb_dequeue(sk.sk_write_queue)
  if (skb === null) return null
  let last: sk_buff | null = null
  for (let part = __skb_dequeue(sk.sk_write_queue); part !== null; part = __skb_dequeue(sk.sk_write_queue)) {
    __skb_pull(part, part.h - part.nh)
    if (last === null) skb_shinfo(skb).frag_list = part
    else last.next = part
    last = part
    skb.len += part.len
    skb.data_len += part.len
  }
  return skb
}

/** ip_push_pending_frames - send what was put together. @context process @locks the socket is the caller's @returns 0, -errno */
export function ip_push_pending_frames(sk: sock): number {
  const inet = inet_sk(sk)
  const skb = gather(sk)
  if (skb === null) {
    release_cork(inet)
    return 0
  }
  const rt = RTABLE.ref(inet.cork.rt)
  if (inet.pmtudisc !== IP_PMTUDISC_DO) skb.local_df = 1 // may be cut here, whatever the header says
  const whole = skb_shinfo(skb).frag_list === null && ip_dont_fragment(inet, rt.dst)
  const df = inet.pmtudisc === IP_PMTUDISC_DO || whole
  const iph = skb.nh
  const opt = inet.cork.opt === 0 ? null : IP_OPTIONS.ref(inet.cork.opt)
  set_ip_vhl(iph, IP_HLEN + (opt === null ? 0 : opt.optlen))
  set_ip_tos(iph, inet.tos)
  set_ip_frag_off(iph, df ? IP_DF : 0)
  set_ip_id(iph, df ? inet.id++ & 0xffff : ip_select_ident(rt))
  set_ip_ttl(iph, rt.rt_type === RTN_MULTICAST ? inet.mc_ttl : inet.uc_ttl < 0 ? rt.dst.hoplimit : inet.uc_ttl)
  set_ip_protocol(iph, sk.sk_protocol)
  set_ip_saddr(iph, rt.rt_src)
  set_ip_daddr(iph, rt.rt_dst)
  if (opt !== null) ip_options_build(iph, opt, inet.cork.faddr, rt)
  skb.priority = sk.sk_priority
  dst_hold(rt.dst)
  skb.dst = rt.dst
  skb.acct = ACCT_LOCAL
  fate_made()
  let err = ip_local_out(skb)
  if (err > 0) err = inet.recverr !== 0 && err !== NET_XMIT_CN ? -ENOBUFS : 0
  if (err < 0) ip_stats.OutDiscards++
  release_cork(inet)
  return err
}
