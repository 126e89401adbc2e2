/** sock_types.ts - sockets: what a program has (struct socket) and what the protocols have (struct sock); no behaviour. */
import { HLIST, type hlist_node } from '../../abi/hlist.js'
import { atomic, by, bytes, embed, konst, type Layout, layout, line, own, ptr, Struct, word } from '../../abi/layout.js'
import type { Sym } from '../../abi/symbol.js'
import { TIMER, type timer_list } from '../../irq/timer.js'
import { WAIT_QUEUE_HEAD, type wait_queue_head_t } from '../../sched/wait.js'
import { RWLOCK, type rwlock_t } from '../../sync/rwlock.js'
import { SPINLOCK, type spinlock_t } from '../../sync/spinlock.js'
import { DST, type dst_entry, SKB, SKB_HEAD, type sk_buff, type sk_buff_head } from './types.js'

// families, types, levels
export const AF_UNSPEC = 0
export const AF_UNIX = 1
export const AF_INET = 2
export const NPROTO = 32
export const SOCK_STREAM = 1
export const SOCK_DGRAM = 2
export const SOCK_RAW = 3
export const SOCK_RDM = 4
export const SOCK_SEQPACKET = 5
export const SOCK_PACKET = 10
export const SOCK_MAX = 11
/** Bytes of the longest address. */
export const MAX_SOCK_ADDR = 128
export const SOCKADDR_IN_SIZE = 16
/** Largest backlog of listen. */
export const SOMAXCONN = 128

// flags of send and receive
export const MSG_OOB = 1
export const MSG_PEEK = 2
export const MSG_DONTROUTE = 4
export const MSG_CTRUNC = 8
export const MSG_PROBE = 0x10
export const MSG_TRUNC = 0x20
export const MSG_DONTWAIT = 0x40
export const MSG_WAITALL = 0x100
export const MSG_CONFIRM = 0x800
export const MSG_ERRQUEUE = 0x2000
export const MSG_NOSIGNAL = 0x4000
export const MSG_MORE = 0x8000

// commands of ioctl
export const SIOCINQ = 0x541b
export const SIOCOUTQ = 0x5411

export const RCV_SHUTDOWN = 1
export const SEND_SHUTDOWN = 2
export const SHUTDOWN_MASK = 3

// socket.state
export const SS_FREE = 0
export const SS_UNCONNECTED = 1
export const SS_CONNECTING = 2
export const SS_CONNECTED = 3
export const SS_DISCONNECTING = 4
// socket.flags
export const SOCK_ASYNC_NOSPACE = 1 << 0
export const SOCK_ASYNC_WAITDATA = 1 << 1
export const SOCK_NOSPACE = 1 << 2

export class socket extends Struct {
  declare state: number
  declare type: number
  declare flags: number
  declare passcred: number
  declare uid: number
  /** Address of the socket's proto_ops in the symbol table. */
  declare ops: Sym<unknown>
  declare sk: sock | null
  declare file: number
  declare fasync_list: number
  declare wait: wait_queue_head_t
}
export const SOCKET: Layout<socket> = layout('socket', socket, {
  state: by('sk.sk_lock', word),
  type: konst(word),
  flags: atomic(word),
  passcred: word,
  uid: konst(word), // of who made it
  ops: konst(word),
  sk: konst(ptr(() => SOCK)),
  file: atomic(word), // address of the file that it is behind; 0: none yet, or never. The collector of AF_UNIX looks
  fasync_list: atomic(word), // who is told by a signal; changed under sk_callback_lock (sock_async.ts)
  wait: embed(WAIT_QUEUE_HEAD),
})

/** What protects a sock: spinlock for softirqs, ownership for processes (sock.ts says how). */
export class socket_lock_t extends Struct {
  declare slock: spinlock_t
  declare owner: number
  declare wq: wait_queue_head_t
}
export const SOCKET_LOCK: Layout<socket_lock_t> = layout('socket_lock_t', socket_lock_t, {
  slock: embed(SPINLOCK),
  owner: by('slock', word), // 1: a process has it
  wq: embed(WAIT_QUEUE_HEAD),
})

// sk_state, as TCP has them; a datagram socket is CLOSE, or ESTABLISHED when it is connected
export const TCP_ESTABLISHED = 1
export const TCP_SYN_SENT = 2
export const TCP_SYN_RECV = 3
export const TCP_FIN_WAIT1 = 4
export const TCP_FIN_WAIT2 = 5
export const TCP_TIME_WAIT = 6
export const TCP_CLOSE = 7
export const TCP_CLOSE_WAIT = 8
export const TCP_LAST_ACK = 9
export const TCP_LISTEN = 10
export const TCP_CLOSING = 11
// sk_flags, by bit
export const SOCK_DEAD = 1 << 0
export const SOCK_DONE = 1 << 1
export const SOCK_URGINLINE = 1 << 2
export const SOCK_KEEPOPEN = 1 << 3
export const SOCK_LINGER = 1 << 4
export const SOCK_DESTROY = 1 << 5
export const SOCK_BROADCAST = 1 << 6
export const SOCK_TIMESTAMP = 1 << 7
export const SOCK_ZAPPED = 1 << 8
export const SOCK_USE_WRITE_QUEUE = 1 << 9
export const SOCK_DBG = 1 << 10
// sk_userlocks
export const SOCK_SNDBUF_LOCK = 1
export const SOCK_RCVBUF_LOCK = 2
export const SOCK_BINDADDR_LOCK = 4
export const SOCK_BINDPORT_LOCK = 8
// sk_no_check
export const UDP_CSUM_NOXMIT = 1
export const UDP_CSUM_NORCV = 2

export class sock extends Struct {
  declare sk_family: number
  declare sk_state: number
  declare sk_reuse: number
  declare sk_bound_dev_if: number
  declare sk_node: hlist_node
  declare sk_bind_node: hlist_node
  declare sk_refcnt: number
  declare sk_type: number
  declare sk_protocol: number
  declare sk_shutdown: number
  declare sk_no_check: number
  declare sk_userlocks: number
  declare sk_flags: number
  declare sk_rcvbuf: number
  declare sk_sndbuf: number
  declare sk_rcvlowat: number
  declare sk_rcvtimeo: number
  declare sk_sndtimeo: number
  declare sk_lingertime: number
  declare sk_priority: number
  declare sk_localroute: number
  declare sk_err: number
  declare sk_err_soft: number
  declare sk_hashent: number
  declare sk_ack_backlog: number
  declare sk_max_ack_backlog: number
  declare sk_prot: Sym<unknown>
  declare sk_socket: socket | null
  declare sk_sleep: wait_queue_head_t | null
  declare sk_dst_cache: dst_entry | null
  declare sk_dst_lock: rwlock_t
  declare sk_callback_lock: rwlock_t
  declare sk_lock: socket_lock_t
  declare sk_filter: number
  declare sk_backlog_head: sk_buff | null
  declare sk_backlog_tail: sk_buff | null
  declare sk_rmem_alloc: number
  declare sk_receive_queue: sk_buff_head
  declare sk_wmem_alloc: number
  declare sk_write_queue: sk_buff_head
  declare sk_error_queue: sk_buff_head
  declare sk_omem_alloc: number
  declare sk_wmem_queued: number
  declare sk_forward_alloc: number
  declare sk_send_head: sk_buff | null
  declare sk_sndmsg_page: number
  declare sk_sndmsg_off: number
  declare sk_write_pending: number
  declare sk_queue_shrunk: number
  declare sk_route_caps: number
  declare sk_peercred: number
  declare sk_rcvtstamp: number
  declare sk_stamp: number
  declare sk_timer: timer_list
  declare sk_state_change: Sym<(sk: sock) => void>
  declare sk_data_ready: Sym<(sk: sock, bytes: number) => void>
  declare sk_write_space: Sym<(sk: sock) => void>
  declare sk_error_report: Sym<(sk: sock) => void>
  declare sk_backlog_rcv: Sym<(sk: sock, skb: sk_buff) => number>
  declare sk_destruct: Sym<(sk: sock) => void>
}
/** Every protocol's socket begins with one. "sk_lock" below: the process that owns the socket, or slock with no owner. */
export const SOCK: Layout<sock> = layout('sock', sock, {
  sk_family: konst(word),
  sk_state: atomic(word), // changed by whoever owns the sock; of AF_UNIX: under unix_sock.lock
  sk_reuse: by('sk_lock', word),
  sk_bound_dev_if: by('sk_lock', word), // the hash chains' readers look without it
  sk_node: embed(HLIST), // the protocol's hash, by its lock
  sk_bind_node: embed(HLIST),
  sk_refcnt: atomic(word),
  sk_type: konst(word),
  sk_protocol: konst(word),
  sk_shutdown: atomic(word), // as sk_state
  sk_no_check: by('sk_lock', word),
  sk_userlocks: by('sk_lock', word),
  sk_flags: atomic(word),
  sk_rcvbuf: by('sk_lock', word), // bytes of truesize
  sk_sndbuf: by('sk_lock', word),
  sk_rcvlowat: by('sk_lock', word),
  sk_rcvtimeo: by('sk_lock', word), // jiffies; MAX_SCHEDULE_TIMEOUT: for ever
  sk_sndtimeo: by('sk_lock', word),
  sk_lingertime: by('sk_lock', word),
  sk_priority: by('sk_lock', word),
  sk_localroute: by('sk_lock', word),
  sk_err: atomic(word), // positive errno of what went wrong, taken by the next call
  sk_err_soft: atomic(word),
  sk_hashent: by('sk_lock', word),
  sk_ack_backlog: by('sk_lock', word), // connections that nobody has accepted yet
  sk_max_ack_backlog: by('sk_lock', word),
  sk_prot: konst(word),
  sk_socket: by(
    'sk_callback_lock',
    ptr(() => SOCKET),
  ),
  sk_sleep: by(
    'sk_callback_lock',
    ptr(() => WAIT_QUEUE_HEAD),
  ),
  sk_dst_cache: by(
    'sk_dst_lock',
    ptr(() => DST),
  ),
  sk_dst_lock: embed(RWLOCK),
  sk_callback_lock: embed(RWLOCK),
  sk_lock: line(embed(SOCKET_LOCK)),
  sk_filter: atomic(word), // address, followed and changed under sk_lock.slock; 0: the socket wants everything
  sk_backlog_head: by(
    'sk_lock.slock',
    ptr(() => SKB),
  ), // packets that came while a process owned the socket
  sk_backlog_tail: by(
    'sk_lock.slock',
    ptr(() => SKB),
  ),
  sk_rmem_alloc: line(atomic(word)), // truesize of what waits to be received
  sk_receive_queue: embed(SKB_HEAD),
  sk_wmem_alloc: line(atomic(word)), // truesize of what was sent and is not gone yet
  sk_write_queue: embed(SKB_HEAD),
  sk_error_queue: embed(SKB_HEAD),
  sk_omem_alloc: atomic(word),
  sk_wmem_queued: by('sk_lock', word),
  sk_forward_alloc: by('sk_lock', word),
  sk_send_head: by(
    'sk_lock',
    ptr(() => SKB),
  ),
  sk_sndmsg_page: by('sk_lock', word), // page that the last datagram was not filled from
  sk_sndmsg_off: by('sk_lock', word),
  sk_write_pending: by('sk_lock', word),
  sk_queue_shrunk: by('sk_lock', word),
  sk_route_caps: by('sk_lock', word),
  sk_peercred: own(bytes(12)), // struct ucred of who is at the other end: pid, uid, gid
  sk_rcvtstamp: by('sk_lock', word),
  sk_stamp: bytes(8),
  sk_timer: embed(TIMER),
  sk_state_change: konst(word),
  sk_data_ready: konst(word),
  sk_write_space: konst(word),
  sk_error_report: konst(word),
  sk_backlog_rcv: konst(word),
  sk_destruct: konst(word),
})

// ---- messages -------------------------------------------------------------------------------------------------------

export class iovec extends Struct {
  declare iov_base: number
  declare iov_len: number
}
export const IOVEC: Layout<iovec> = layout('iovec', iovec, { iov_base: own(word), iov_len: own(word) })

export class msghdr extends Struct {
  declare msg_name: number
  declare msg_namelen: number
  declare msg_iov: number
  declare msg_iovlen: number
  declare msg_control: number
  declare msg_controllen: number
  declare msg_flags: number
}
/** Lies on the kernel stack of the task that is in the call. */
export const MSGHDR: Layout<msghdr> = layout('msghdr', msghdr, {
  msg_name: own(word), // kernel address of a sockaddr, 0: none
  msg_namelen: own(word),
  msg_iov: own(word), // kernel address of iovecs, whose bases are the user's
  msg_iovlen: own(word),
  msg_control: own(word), // user's address
  msg_controllen: own(word),
  msg_flags: own(word),
})
