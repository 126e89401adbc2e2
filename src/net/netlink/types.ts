/** types.ts - netlink: messages between programs and the kernel, in the layout of i386; no behaviour. */
import { atomic, by, embed, type Layout, layout, own, ptr, Struct, word } from '../../abi/layout.js'
import type { Sym } from '../../abi/symbol.js'
import { WAIT_QUEUE_HEAD, type wait_queue_head_t } from '../../sched/wait.js'
import { SPINLOCK, type spinlock_t } from '../../sync/spinlock.js'
import { attach_cb } from '../core/skbuff.js'
import { attach_sock } from '../core/sock.js'
import { SOCK, type sock } from '../core/sock_types.js'
import { SKB, type sk_buff } from '../core/types.js'

export const AF_NETLINK = 16
/** Bytes of a sockaddr_nl: family, padding, pid, groups. */
export const SOCKADDR_NL_SIZE = 12
export const MAX_LINKS = 32
export const NETLINK_ROUTE = 0
export const NETLINK_FIREWALL = 3
export const NETLINK_NFLOG = 5
export const NETLINK_XFRM = 6
// sk_state
export const NETLINK_UNCONNECTED = 0
export const NETLINK_CONNECTED = 1

// struct nlmsghdr: length, type, flags, sequence, pid
export const NLMSG_HDRLEN = 16
export const NLMSG_NOOP = 1
export const NLMSG_ERROR = 2
export const NLMSG_DONE = 3
export const NLM_F_REQUEST = 1
export const NLM_F_MULTI = 2
export const NLM_F_ACK = 4
export const NLM_F_ECHO = 8
export const NLM_F_ROOT = 0x100
export const NLM_F_MATCH = 0x200
export const NLM_F_DUMP = NLM_F_ROOT | NLM_F_MATCH
export const NLM_F_REPLACE = 0x100
export const NLM_F_EXCL = 0x200
export const NLM_F_CREATE = 0x400
export const NLM_F_APPEND = 0x800

export function nlmsg_align(len: number): number {
  return (len + 3) & ~3
}

/** netlink_sock.state: messages were lost, and the program has not emptied its queue since. */
export const NETLINK_CONGESTED = 1

export class netlink_sock extends Struct {
  declare sk: sock
  declare pid: number
  declare groups: number
  declare dst_pid: number
  declare dst_groups: number
  declare state: number
  declare wait: wait_queue_head_t
  declare cb: netlink_callback | null
  declare cb_lock: spinlock_t
  declare data_ready: Sym<(sk: sock) => Generator<void, void, void>>
}
export const NETLINK_SOCK: Layout<netlink_sock> = layout('netlink_sock', netlink_sock, {
  sk: embed(SOCK),
  pid: by('nl_table_lock', word), // its address, 0: the kernel's end, or not bound yet
  groups: by('nl_table_lock', word), // multicast groups that it listens to, by bit
  dst_pid: by('program', word), // where it is connected to
  dst_groups: by('program', word),
  state: atomic(word), // NETLINK_CONGESTED
  wait: embed(WAIT_QUEUE_HEAD), // senders that wait for room in its queue
  cb: by(
    'cb_lock',
    ptr(() => NETLINK_CALLBACK),
  ), // a dump that is under way
  cb_lock: embed(SPINLOCK),
  data_ready: own(word), // of a kernel's end: handles what has come, in the sender's context
})
attach_sock(NETLINK_SOCK)

/** nlk_sk - the same socket as a netlink_sock. */
export function nlk_sk(sk: sock): netlink_sock {
  return NETLINK_SOCK.ref(sk.addr)
}

/** Words that a dump may keep between its parts; the first two are rtnetlink's family and type. */
export const CB_ARGS = 6

export type netlink_dump_fn = (skb: sk_buff, cb: netlink_callback) => number

export class netlink_callback extends Struct {
  declare skb: sk_buff | null
  declare nlh: number
  declare dump: Sym<netlink_dump_fn>
  declare args: number
}
/** A dump: what was asked, who answers, and how far he is. */
export const NETLINK_CALLBACK: Layout<netlink_callback> = layout('netlink_callback', netlink_callback, {
  skb: own(ptr(() => SKB)), // the question, with a reference
  nlh: own(word), // address of its header
  dump: own(word),
  args: own({ kind: 'bytes', size: CB_ARGS * 4, align: 4 }),
})

export class netlink_skb_parms extends Struct {
  declare pid: number
  declare groups: number
  declare dst_pid: number
  declare dst_groups: number
  declare uid: number
  declare eff_cap: number
}
/** NETLINK_CB: who sent a message, to whom, and what he was allowed to do when he did. */
export const NETLINK_CB: Layout<netlink_skb_parms> = layout('netlink_skb_parms', netlink_skb_parms, {
  pid: own(word),
  groups: own(word),
  dst_pid: own(word),
  dst_groups: own(word),
  uid: own(word),
  eff_cap: own(word), // 1: the sender was root
})
attach_cb(NETLINK_CB as unknown as Layout<Struct>)

export function netlink_cb(skb: sk_buff): netlink_skb_parms {
  return NETLINK_CB.ref(skb.cb)
}
