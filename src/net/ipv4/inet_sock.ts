/** inet_sock.ts - what AF_INET's sockets have behind the sock, and what a protocol of theirs is. A header: no behaviour. */
import { atomic, by, embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import type { Sym } from '../../abi/symbol.js'
import { attach_sock } from '../core/sock.js'
import { type msghdr, SOCK, type sock } from '../core/sock_types.js'
import type { Call, proto_ops } from '../core/socket.js'

export const IP_PMTUDISC_DONT = 0
export const IP_PMTUDISC_WANT = 1
export const IP_PMTUDISC_DO = 2
// cmsg_flags
export const IP_CMSG_PKTINFO = 1
export const IP_CMSG_TTL = 2
export const IP_CMSG_TOS = 4
export const IP_CMSG_RECVOPTS = 8
export const IP_CMSG_RETOPTS = 16

/** A datagram that is being put together. */
export class ip_cork extends Struct {
  declare rt: number
  declare fragsize: number
  declare opt: number
  declare faddr: number
  declare length: number
  declare dst: number
  declare src: number
  declare dport: number
  declare sport: number
}
const CORK: Layout<ip_cork> = layout('ip_cork', ip_cork, {
  rt: word, // address of its route, referenced; 0: none
  fragsize: word, // MTU when it was begun
  opt: word, // address of IP options of its own, 0: none
  faddr: word, // where a source route ends
  length: word, // bytes so far, transport header included
  dst: word, // struct flowi
  src: word,
  dport: word,
  sport: word,
})

export class inet_sock extends Struct {
  declare sk: sock
  declare daddr: number
  declare rcv_saddr: number
  declare saddr: number
  declare dport: number
  declare num: number
  declare sport: number
  declare uc_ttl: number
  declare tos: number
  declare cmsg_flags: number
  declare id: number
  declare mc_ttl: number
  declare mc_loop: number
  declare mc_index: number
  declare mc_addr: number
  declare mc_list: number
  declare pmtudisc: number
  declare recverr: number
  declare freebind: number
  declare hdrincl: number
  declare opt: number
  declare cork: ip_cork
}
/** Addresses and ports are numbers in host order. */
export const INET_SOCK: Layout<inet_sock> = layout('inet_sock', inet_sock, {
  sk: embed(SOCK),
  // Written by who owns the socket, read by lookups under the hash lock alone: late is early enough, as in 2.6.11.
  daddr: atomic(word), // the other end, 0: not connected
  rcv_saddr: by('sk_lock', word), // bound address, 0: any
  saddr: by('sk_lock', word), // source address, 0: as the route says
  dport: atomic(word),
  num: by('sk_lock', word), // local port; changed under the hash lock as well
  sport: by('sk_lock', word),
  uc_ttl: by('sk_lock', word), // -1: the default
  tos: by('sk_lock', word),
  cmsg_flags: by('sk_lock', word),
  id: by('sk_lock', word), // identification of packets that are not to be cut
  mc_ttl: by('sk_lock', word),
  mc_loop: word, // what it sends to a group comes back to this machine; looked at without the lock
  mc_index: by('sk_lock', word), // where multicast goes out, 0: as the route says
  mc_addr: by('sk_lock', word),
  mc_list: by('rtnl', word), // address of the first of its memberships (mc_sock.ts)
  pmtudisc: by('sk_lock', word),
  recverr: by('sk_lock', word),
  freebind: by('sk_lock', word),
  hdrincl: by('sk_lock', word), // raw: the program brings the IP header
  opt: by('sk_lock', word), // address of its IP options (ip_options_sock.ts), 0: none
  cork: by('sk_lock', embed(CORK)),
})
attach_sock(INET_SOCK)

/** inet_sk - the same socket as an inet_sock. */
export function inet_sk(sk: sock): inet_sock {
  return INET_SOCK.ref(sk.addr)
}

/** A protocol, as its sockets see it (struct proto). */
export interface proto {
  readonly name: string
  init(sk: sock): number
  close(sk: sock, timeout: number): Call
  /** Instead of what inet_bind does. */
  bind?(sk: sock, addr: number, addr_len: number): Call
  connect(sk: sock, addr: number, addr_len: number): Call
  disconnect(sk: sock, flags: number): number
  setsockopt(sk: sock, level: number, optname: number, optval: number, optlen: number): Call
  getsockopt(sk: sock, level: number, optname: number, optval: number, optlen: number): Call
  sendmsg(sk: sock, msg: msghdr, len: number): Call
  recvmsg(sk: sock, msg: msghdr, len: number, noblock: boolean, flags: number): Call
  /** null: it does not know the command. */
  ioctl?(sk: sock, cmd: number, arg: number): number | null
  backlog_rcv: Sym<(sk: sock, skb: never) => number> | 0
  unhash(sk: sock): void
  /** Take a local port, 0: any, and enter the hash. @returns 0, or 1: it is taken */
  get_port(sk: sock, snum: number): number
}

/** A kind of socket that can be asked for (struct inet_protosw). */
export interface inet_protosw {
  readonly type: number
  readonly protocol: number
  readonly prot: Sym<proto>
  readonly ops: Sym<proto_ops>
  /** Only root may have one. */
  readonly privileged: boolean
}
