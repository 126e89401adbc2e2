/**
 * raw_hash.ts - raw sockets by protocol: who gets a copy of what comes in, and who hears of errors.
 *
 * Lock charter
 *   raw_v4_lock guards the chains, and a socket's place on them. Read with bottom halves off. A socket on a chain has one
 *   reference for that. The receive queue's lock, sk_callback_lock and what they take are taken under it.
 */
import { hlist_add_head, hlist_del_init, hlist_unhashed } from '../../abi/hlist.js'
import { atomic, by, bytes, embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call } from '../../abi/symbol.js'
import { fetch_add, load, store } from '../../arch/atomic.js'
import { RAM } from '../../arch/ram.js'
import { EHOSTUNREACH, EMSGSIZE, EPERM, EPROTO } from '../../lib/errno.js'
import {
  RWLOCK,
  read_lock,
  read_lock_bh,
  read_unlock,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../../sync/rwlock.js'
import { drop_reason } from '../core/fate.js'
import { kfree_skb, pskb_may_pull, skb_clone, skb_push } from '../core/skbuff.js'
import { attach_sock, sock_hold, sock_put } from '../core/sock.js'
import { sock_queue_rcv_skb } from '../core/sock_mem.js'
import { SOCK, type sock, TCP_ESTABLISHED } from '../core/sock_types.js'
import type { sk_buff } from '../core/types.js'
import {
  ICMP_DEST_UNREACH,
  ICMP_FRAG_NEEDED,
  ICMP_HLEN,
  ICMP_PARAMETERPROB,
  ICMP_SOURCE_QUENCH,
  icmp_code,
  icmp_type,
} from '../wire/icmp.js'
import { IPPROTO_ICMP, ip_daddr, ip_hdrlen, ip_protocol, ip_saddr } from '../wire/ipv4.js'
import { XFRM_POLICY_IN } from '../xfrm/types.js'
import { xfrm_policy_check } from '../xfrm/xfrm_policy.js'
import { icmp_err_convert } from './icmp_convert.js'
import { INET_SOCK, IP_PMTUDISC_DONT, inet_sk, type inet_sock } from './inet_sock.js'
import { ip_icmp_error } from './ip_errqueue.js'

const i32 = RAM.i32
const ERR = SOCK.offset('sk_err')
const NODE = SOCK.offset('sk_node')
const POLICY = drop_reason('xfrm_policy')
const SOCKET_FULL = drop_reason('socket_full')
const SOCKET_FILTER = drop_reason('socket_filter')

export class raw_sock extends Struct {
  declare inet: inet_sock
  declare filter: number
}
export const RAW_SOCK: Layout<raw_sock> = layout('raw_sock', raw_sock, {
  inet: embed(INET_SOCK),
  filter: by('raw_v4_lock', word), // of ICMP_FILTER: types that are not wanted; a word, so late is early enough
})
attach_sock(RAW_SOCK)
export function raw_sk(sk: sock): raw_sock {
  return RAW_SOCK.ref(sk.addr)
}

class raw_table extends Struct {
  declare lock: rwlock_t
  declare chains: number
  declare present: number
}
const TABLE: Layout<raw_table> = layout('raw_v4_htable', raw_table, {
  lock: embed(RWLOCK),
  chains: by('lock', bytes(256 * 4)),
  present: atomic(bytes(256 * 4)), // sockets of each chain: changed under the lock, looked at without it
})
const table = DEFINE_STATIC('raw_v4_htable', TABLE)

function chain(protocol: number): number {
  return table.chains + (protocol & 255) * 4
}
function present(protocol: number): number {
  return table.present + (protocol & 255) * 4
}
function sk_at(node: number): sock | null {
  return node === 0 ? null : SOCK.ref(node - NODE)
}

/** raw_v4_hash - from here on it gets packets. @context process @locks raw_v4_lock */
export function raw_v4_hash(sk: sock): void {
  write_lock_bh(table.lock)
  sock_hold(sk)
  hlist_add_head(sk.sk_node, chain(inet_sk(sk).num))
  fetch_add(present(inet_sk(sk).num), 1)
  write_unlock_bh(table.lock)
}
/** raw_v4_unhash - @context process @locks raw_v4_lock */
export function raw_v4_unhash(sk: sock): void {
  write_lock_bh(table.lock)
  const hashed = !hlist_unhashed(sk.sk_node)
  if (hashed) {
    hlist_del_init(sk.sk_node)
    fetch_add(present(inet_sk(sk).num), -1)
  }
  write_unlock_bh(table.lock)
  if (hashed) sock_put(sk)
}

/** The next socket from `from` on that such packets are for. @locks raw_v4_lock is held */
function lookup(from: sock | null, num: number, raddr: number, laddr: number, dif: number): sock | null {
  for (let sk = from; sk !== null; sk = sk_at(sk.sk_node.next)) {
    const inet = inet_sk(sk)
    const wrong =
      inet.num !== num ||
      (inet.daddr !== 0 && inet.daddr !== raddr) ||
      (inet.rcv_saddr !== 0 && inet.rcv_saddr !== laddr) ||
      (sk.sk_bound_dev_if !== 0 && sk.sk_bound_dev_if !== dif)
    if (!wrong) return sk
  }
  return null
}

/** icmp_filter - does the socket not want this message? */
function icmp_filter(sk: sock, skb: sk_buff): boolean {
  if (!pskb_may_pull(skb, ICMP_HLEN)) return true
  const type = icmp_type(skb.data)
  return type < 32 && (raw_sk(sk).filter & (1 << type)) !== 0
}

/** raw_rcv - with its IP header, as raw sockets get packets. @context softirq @consumes skb */
export function raw_rcv(sk: sock, skb: sk_buff): void {
  if (!xfrm_policy_check(XFRM_POLICY_IN, skb)) {
    kfree_skb(skb, POLICY)
    return
  }
  skb_push(skb, skb.data - skb.nh)
  const err = sock_queue_rcv_skb(sk, skb)
  if (err < 0) kfree_skb(skb, err === -EPERM ? SOCKET_FILTER : SOCKET_FULL)
}

/** raw_v4_wanted - is there any raw socket for the protocol? Looked at without the lock. */
export function raw_v4_wanted(protocol: number): boolean {
  return load(present(protocol)) !== 0
}

/**
 * raw_v4_input - a copy for each raw socket that the packet is for; the packet stays the caller's, and at its transport header.
 * @context softirq @locks raw_v4_lock
 */
export function raw_v4_input(skb: sk_buff): void {
  const iph = skb.nh
  const protocol = ip_protocol(iph)
  const dif = skb.dev!.ifindex
  read_lock(table.lock)
  let sk = lookup(sk_at(i32[chain(protocol) >> 2]), protocol, ip_saddr(iph), ip_daddr(iph), dif)
  while (sk !== null) {
    if (protocol !== IPPROTO_ICMP || !icmp_filter(sk, skb)) {
      const clone = skb_clone(skb)
      if (clone !== null) raw_rcv(sk, clone)
    }
    sk = lookup(sk_at(sk.sk_node.next), protocol, ip_saddr(skb.nh), ip_daddr(skb.nh), dif)
  }
  read_unlock(table.lock)
}

/** raw_err - one socket hears of an ICMP error. @returns nothing; the packet stays the caller's */
function raw_err(sk: sock, skb: sk_buff, info: number): void {
  const inet = inet_sk(sk)
  const type = icmp_type(skb.h)
  const code = icmp_code(skb.h)
  if ((inet.recverr === 0 && sk.sk_state !== TCP_ESTABLISHED) || type === ICMP_SOURCE_QUENCH) return
  let err = EHOSTUNREACH
  let hard = false
  if (type === ICMP_PARAMETERPROB) {
    err = EPROTO
    hard = true
  } else if (type === ICMP_DEST_UNREACH) {
    const known = icmp_err_convert[code]
    if (known !== undefined) [err, hard] = known
    if (code === ICMP_FRAG_NEEDED) {
      hard = inet.pmtudisc !== IP_PMTUDISC_DONT
      err = EMSGSIZE
    }
  }
  if (inet.recverr !== 0) {
    const payload = inet.hdrincl !== 0 ? skb.data : skb.data + ip_hdrlen(skb.data)
    ip_icmp_error(sk, skb, err, 0, info, payload)
  }
  if (inet.recverr !== 0 || hard) {
    store(sk.addr + ERR, err)
    call(sk.sk_error_report)(sk)
  }
}

/** raw_v4_error - an ICMP error about a packet of ours, whose header lies at skb.data. @context softirq @locks raw_v4_lock */
export function raw_v4_error(protocol: number, skb: sk_buff, info: number): void {
  if (!raw_v4_wanted(protocol)) return
  const dif = skb.dev!.ifindex
  read_lock(table.lock)
  let sk = sk_at(i32[chain(protocol) >> 2])
  for (;;) {
    sk = lookup(sk, protocol, ip_daddr(skb.data), ip_saddr(skb.data), dif)
    if (sk === null) break
    raw_err(sk, skb, info)
    sk = sk_at(sk.sk_node.next)
  }
  read_unlock(table.lock)
}

/** raw_each - the raw sockets, by protocol. @context process, or a halted machine @locks raw_v4_lock for reading is held around f */
export function raw_each(f: (inet: inet_sock, protocol: number) => void): void {
  read_lock_bh(table.lock)
  for (let p = 0; p < 256; p++)
    for (let node = i32[chain(p) >> 2]!; node !== 0; ) {
      const inet = INET_SOCK.ref(node - NODE)
      f(inet, p)
      node = inet.sk.sk_node.next
    }
  read_unlock_bh(table.lock)
}
/** raw_hash_init - @context boot, CPU 0 */
export function raw_hash_init(): void {
  rwlock_init(table.lock)
}
