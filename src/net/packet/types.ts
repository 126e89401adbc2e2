/** types.ts - packet sockets: their state, addresses and options (linux/if_packet.h); no behaviour. */
import { by, embed, type Layout, layout, own, ptr, Struct, word } from '../../abi/layout.js'
import { RCU_HEAD, type rcu_head } from '../../rcu/types.js'
import { SPINLOCK, type spinlock_t } from '../../sync/spinlock.js'
import { PACKET_TYPE, type packet_type } from '../core/packet_type.js'
import { attach_sock } from '../core/sock.js'
import { SOCK, type sock } from '../core/sock_types.js'

export const AF_PACKET = 17
export const SOL_PACKET = 263
// options
export const PACKET_ADD_MEMBERSHIP = 1
export const PACKET_DROP_MEMBERSHIP = 2
export const PACKET_STATISTICS = 6
// what a membership is in
export const PACKET_MR_MULTICAST = 0
export const PACKET_MR_PROMISC = 1
export const PACKET_MR_ALLMULTI = 2
/** struct packet_mreq: index, type and length as the program's words lie, 8 bytes of address. */
export const PACKET_MREQ_SIZE = 16

/** struct sockaddr_ll: family, protocol (network order), index, hatype, pkttype, halen, 8 bytes of address. */
export const SOCKADDR_LL_SIZE = 20
export const SLL_PROTOCOL = 2
export const SLL_IFINDEX = 4
export const SLL_HATYPE = 8
export const SLL_PKTTYPE = 10
export const SLL_HALEN = 11
export const SLL_ADDR = 12

export class packet_mclist extends Struct {
  declare next: packet_mclist | null
  declare ifindex: number
  declare count: number
  declare type: number
  declare alen: number
  declare addr_hi: number
  declare addr_lo: number
}
/** A membership: all under rtnl. */
export const PACKET_MCLIST: Layout<packet_mclist> = layout('packet_mclist', packet_mclist, {
  next: by(
    'rtnl',
    ptr(() => PACKET_MCLIST),
  ),
  ifindex: by('rtnl', word),
  count: by('rtnl', word),
  type: by('rtnl', word),
  alen: by('rtnl', word),
  addr_hi: by('rtnl', word), // 8 bytes as the program gave them, of which alen count
  addr_lo: by('rtnl', word),
})

export class packet_sock extends Struct {
  declare sk: sock
  declare tp_packets: number
  declare tp_drops: number
  declare prot_hook: packet_type
  declare bind_lock: spinlock_t
  declare running: number
  declare ifindex: number
  declare num: number
  declare mclist: packet_mclist | null
  declare rcu: rcu_head
}
export const PACKET_SOCK: Layout<packet_sock> = layout('packet_sock', packet_sock, {
  sk: embed(SOCK),
  tp_packets: by('sk.sk_receive_queue.lock', word),
  tp_drops: by('sk.sk_receive_queue.lock', word),
  prot_hook: embed(PACKET_TYPE),
  bind_lock: embed(SPINLOCK),
  running: by('bind_lock', word), // the hook is in the list, which owns a reference
  ifindex: by('bind_lock', word), // device that it is bound to; 0: all, -1: one that is gone
  num: by('bind_lock', word), // protocol, host order; 0: none
  mclist: by(
    'rtnl',
    ptr(() => PACKET_MCLIST),
  ),
  rcu: own(embed(RCU_HEAD)),
})
attach_sock(PACKET_SOCK)

/** pkt_sk - the same socket as a packet_sock. */
export function pkt_sk(sk: sock): packet_sock {
  return PACKET_SOCK.ref(sk.addr)
}
