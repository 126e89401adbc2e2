/**
 * af_netlink.ts - the AF_NETLINK family (net/netlink/af_netlink.c of 2.6.11): sockets of programs, and the kernel's ends.
 *
 * Lock charter
 *   The table's lock and the dumps': nl_table.ts, nl_send.ts. Where a socket is connected to is the program's own affair, as in
 *   2.6.11: threads that change it at once may mix two addresses.
 */
import { embed, type Layout, layout, Struct } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { BUG_ON } from '../../arch/cpu.js'
import { RAM } from '../../arch/ram.js'
import {
  NOTIFIER_HEAD,
  type notifier_block,
  notifier_call_chain,
  notifier_chain_register,
  notifier_chain_unregister,
  type notifier_head,
  notifier_head_init,
} from '../../irq/notifier.js'
import {
  EFAULT,
  EINVAL,
  EMSGSIZE,
  ENOBUFS,
  ENOMEM,
  EOPNOTSUPP,
  EPERM,
  EPROTONOSUPPORT,
  ESOCKTNOSUPPORT,
} from '../../lib/errno.js'
import { request_module } from '../../sched/module.js'
import { current } from '../../sched/sched.js'
import { init_waitqueue_head, wake_up_all } from '../../sched/wait.js'
import { spin_lock, spin_lock_init, spin_unlock } from '../../sync/spinlock.js'
import {
  datagram_poll,
  skb_copy_datagram_iovec,
  skb_free_datagram,
  skb_recv_datagram,
  skb_recv_datagram_fast,
} from '../core/datagram.js'
import { memcpy_fromiovecend } from '../core/iovec.js'
import { skb_dequeue } from '../core/skb_queue.js'
import { alloc_skb, consume_skb, skb_get, skb_put } from '../core/skbuff.js'
import { sk_alloc, sock_flag, sock_init_data, sock_orphan, sock_put } from '../core/sock.js'
import { sock_def_callbacks, sock_rmem, sock_wmem } from '../core/sock_mem.js'
import { capable, sock_disable_timestamp } from '../core/sock_opt.js'
import {
  AF_UNSPEC,
  MSG_DONTWAIT,
  MSG_OOB,
  MSG_TRUNC,
  type msghdr,
  SOCK_DEAD,
  SOCK_DGRAM,
  SOCK_RAW,
  SOCKET,
  type sock,
  type socket,
} from '../core/sock_types.js'
import { type Call, type proto_ops, sock_alloc, sock_forget, sock_register } from '../core/socket.js'
import { SKB, type sk_buff, type sk_buff_head } from '../core/types.js'
import {
  netlink_broadcast,
  netlink_destroy_callback,
  netlink_dump,
  netlink_rcv_wake,
  netlink_unicast,
} from './nl_send.js'
import {
  netlink_autobind,
  netlink_insert,
  netlink_insert_kernel,
  netlink_lookup,
  netlink_remove,
  netlink_remove_kernel,
  netlink_set_groups,
  nl_table_init,
} from './nl_table.js'
import {
  AF_NETLINK,
  MAX_LINKS,
  NETLINK_CONNECTED,
  NETLINK_ROUTE,
  NETLINK_UNCONNECTED,
  netlink_cb,
  type netlink_sock,
  nlk_sk,
  SOCKADDR_NL_SIZE,
} from './types.js'

const dv = RAM.dv

/** Protocols whose groups everybody may listen to (netlink_set_nonroot, NL_NONROOT_RECV). */
function nonroot_recv(protocol: number): boolean {
  return protocol === NETLINK_ROUTE
}

// struct sockaddr_nl at a kernel address
function nl_family(addr: number): number {
  return dv.getUint16(addr, true)
}
function nl_pid(addr: number): number {
  return dv.getInt32(addr + 4, true)
}
function nl_groups(addr: number): number {
  return dv.getInt32(addr + 8, true)
}
function set_sockaddr_nl(addr: number, pid: number, groups: number): void {
  dv.setUint16(addr, AF_NETLINK, true)
  dv.setUint16(addr + 2, 0)
  dv.setInt32(addr + 4, pid, true)
  dv.setInt32(addr + 8, groups, true)
}

class netlink_globals extends Struct {
  declare chain: notifier_head
}
const GLOBALS: Layout<netlink_globals> = layout('netlink_globals', netlink_globals, { chain: embed(NOTIFIER_HEAD) })
const netlink_chain = DEFINE_STATIC('netlink_globals', GLOBALS).chain

/** Event: a program's socket with an address is closed; the data is the address of its sock. */
export const NETLINK_URELEASE = 1
/** netlink_register_notifier - @context process */
export function netlink_register_notifier(nb: notifier_block): void {
  notifier_chain_register(netlink_chain, nb)
}
export function netlink_unregister_notifier(nb: notifier_block): void {
  notifier_chain_unregister(netlink_chain, nb)
}

// ---- making and ending ----------------------------------------------------------------------------------------------

function purge(list: sk_buff_head): void {
  for (let skb = skb_dequeue(list); skb !== null; skb = skb_dequeue(list)) consume_skb(skb)
}

/** netlink_sock_destruct - the last reference is gone. */
function netlink_sock_destruct(sk: sock): void {
  purge(sk.sk_receive_queue)
  BUG_ON(!sock_flag(sk, SOCK_DEAD), 'destroy of a live netlink sock')
  BUG_ON(sock_rmem(sk) !== 0 || sock_wmem(sk) !== 0, 'netlink sock freed with memory charged')
  BUG_ON(nlk_sk(sk).cb !== null, 'netlink sock freed with a dump')
  sock_disable_timestamp(sk)
}
const netlink_sock_destruct_sym = symbol('netlink_sock_destruct', netlink_sock_destruct)

function prot_none(): void {}
const netlink_prot_sym = symbol('netlink_prot', prot_none)

/** netlink_create - @context process, boot @returns 0, -ESOCKTNOSUPPORT, -EPROTONOSUPPORT, -ENOMEM */
function netlink_create(sock: socket, protocol: number): number {
  if (sock.type !== SOCK_RAW && sock.type !== SOCK_DGRAM) return -ESOCKTNOSUPPORT
  if (protocol < 0 || protocol >= MAX_LINKS) return -EPROTONOSUPPORT
  const sk = sk_alloc(AF_NETLINK, netlink_prot_sym)
  if (sk === null) return -ENOMEM
  sock.ops = netlink_ops_sym
  sock_init_data(sock, sk, sock_def_callbacks)
  const nlk = nlk_sk(sk)
  spin_lock_init(nlk.cb_lock)
  init_waitqueue_head(nlk.wait)
  sk.sk_destruct = netlink_sock_destruct_sym
  sk.sk_protocol = protocol
  return 0
}
const netlink_create_sym = symbol('netlink_create', netlink_create)

/** A dump that nobody will read on. */
function end_dump(sk: sock, nlk: netlink_sock): void {
  spin_lock(nlk.cb_lock)
  const { cb } = nlk
  nlk.cb = null
  spin_unlock(nlk.cb_lock)
  if (cb === null) return
  netlink_destroy_callback(cb)
  sock_put(sk)
}

function* netlink_release(sock: socket): Call {
  const { sk } = sock
  if (sk === null) return 0
  yield* netlink_remove(sk) // from here on no message finds it
  const nlk = nlk_sk(sk)
  end_dump(sk, nlk)
  sock_orphan(sk)
  sock.sk = null
  wake_up_all(nlk.wait)
  if (nlk.pid !== 0 && nlk.groups === 0) notifier_call_chain(netlink_chain, NETLINK_URELEASE, sk.addr)
  purge(sk.sk_write_queue)
  sock_put(sk)
  return 0
}

/** netlink_kernel_create - the kernel's end of a protocol; `input` handles what programs send. @context process, boot @returns sock, or null */
export function netlink_kernel_create(protocol: number, input: netlink_sock['data_ready']): sock | null {
  const sock = sock_alloc()
  if (sock === null) return null
  sock.type = SOCK_RAW
  if (netlink_create(sock, protocol) !== 0) {
    sock_forget(sock)
    return null
  }
  const sk = sock.sk!
  nlk_sk(sk).data_ready = input
  if (netlink_insert_kernel(sk) === 0) return sk
  netlink_kernel_release(sk)
  return null
}

/** netlink_kernel_release - its module goes, making it failed, or the leak audit. @context process, boot, or a halted machine @consumes sk */
export function netlink_kernel_release(sk: sock): void {
  const sock = SOCKET.ref(sk.sk_socket!.addr)
  netlink_remove_kernel(sk)
  sock_orphan(sk)
  sock_put(sk)
  sock_forget(sock)
}

// ---- addresses ------------------------------------------------------------------------------------------------------

/** netlink_bind - @context process @returns 0, -EINVAL, -EPERM, -EADDRINUSE, -EBUSY */
function* netlink_bind(sock: socket, addr: number, addr_len: number): Call {
  const sk = sock.sk!
  const nlk = nlk_sk(sk)
  if (addr_len < SOCKADDR_NL_SIZE || nl_family(addr) !== AF_NETLINK) return -EINVAL // 2.6.11 takes what lies behind a short one
  const pid = nl_pid(addr)
  const groups = nl_groups(addr)
  const kernel = netlink_lookup(sk.sk_protocol, 0)
  if (kernel === null) yield* request_module(`net-pf-${AF_NETLINK}-proto-${sk.sk_protocol}`)
  else sock_put(kernel)
  if (groups !== 0 && !nonroot_recv(sk.sk_protocol) && !capable()) return -EPERM
  if (nlk.pid !== 0) {
    if (pid !== nlk.pid) return -EINVAL
  } else {
    const err = pid !== 0 ? yield* netlink_insert(sk, pid) : yield* netlink_autobind(sk)
    if (err !== 0) return err
  }
  if (groups !== 0 || nlk.groups !== 0) yield* netlink_set_groups(sk, groups)
  return 0
}

function* netlink_connect(sock: socket, addr: number, addr_len: number, _flags: number): Call {
  const sk = sock.sk!
  const nlk = nlk_sk(sk)
  if (addr_len < 2) return -EINVAL
  if (nl_family(addr) === AF_UNSPEC) {
    sk.sk_state = NETLINK_UNCONNECTED
    nlk.dst_pid = 0
    nlk.dst_groups = 0
    return 0
  }
  if (addr_len < SOCKADDR_NL_SIZE || nl_family(addr) !== AF_NETLINK) return -EINVAL
  const pid = nl_pid(addr)
  const groups = nl_groups(addr)
  if (groups !== 0 && !capable()) return -EPERM // nobody may send to everybody but root
  const err = nlk.pid === 0 ? yield* netlink_autobind(sk) : 0
  if (err !== 0) return err
  sk.sk_state = NETLINK_CONNECTED
  nlk.dst_pid = pid
  nlk.dst_groups = groups
  return 0
}

function netlink_getname(sock: socket, addr: number, peer: boolean): number {
  const nlk = nlk_sk(sock.sk!)
  if (peer) set_sockaddr_nl(addr, nlk.dst_pid, nlk.dst_groups)
  else set_sockaddr_nl(addr, nlk.pid, nlk.groups)
  return SOCKADDR_NL_SIZE
}

// ---- messages -------------------------------------------------------------------------------------------------------

/** netlink_sendmsg - @context process @returns bytes, -EOPNOTSUPP, -EINVAL, -EPERM, -EMSGSIZE, -ENOBUFS, -EFAULT, or netlink_unicast's */
function* netlink_sendmsg(sock: socket, msg: msghdr, len: number): Call {
  const sk = sock.sk!
  const nlk = nlk_sk(sk)
  if ((msg.msg_flags & MSG_OOB) !== 0) return -EOPNOTSUPP
  let { dst_pid, dst_groups } = nlk
  if (msg.msg_namelen !== 0) {
    if (msg.msg_namelen < SOCKADDR_NL_SIZE || nl_family(msg.msg_name) !== AF_NETLINK) return -EINVAL
    dst_pid = nl_pid(msg.msg_name)
    dst_groups = nl_groups(msg.msg_name)
    if (dst_groups !== 0 && !capable()) return -EPERM
  }
  const nonblock = (msg.msg_flags & MSG_DONTWAIT) !== 0
  const iov = msg.msg_iov
  if (nlk.pid === 0) {
    const err = yield* netlink_autobind(sk)
    if (err !== 0) return err
  }
  if (len < 0 || len > sk.sk_sndbuf - 32) return -EMSGSIZE
  const skb = alloc_skb(len)
  if (skb === null) return -ENOBUFS
  const cb = netlink_cb(skb)
  cb.pid = nlk.pid
  cb.groups = nlk.groups
  cb.dst_pid = dst_pid
  cb.dst_groups = dst_groups
  cb.uid = current().uid
  cb.eff_cap = capable() ? 1 : 0 // when it is handled nobody else remembers
  if (memcpy_fromiovecend(skb_put(skb, len), iov, 0, len) !== 0) {
    consume_skb(skb)
    return -EFAULT
  }
  if (dst_groups !== 0) netlink_broadcast(sk, skb_get(skb), dst_pid, dst_groups)
  return yield* netlink_unicast(sk, skb, dst_pid, nonblock)
}

/** What the program gets of a message. @returns bytes, -EFAULT */
function copy_out(msg: msghdr, skb: sk_buff, len: number): number {
  const copied = Math.min(skb.len, len)
  if (skb.len > len) msg.msg_flags |= MSG_TRUNC
  skb.h = skb.data
  const err = skb_copy_datagram_iovec(skb, 0, msg.msg_iov, copied)
  msg.msg_namelen = 0
  if (msg.msg_name !== 0) {
    const cb = netlink_cb(skb)
    set_sockaddr_nl(msg.msg_name, cb.pid, cb.dst_groups)
    msg.msg_namelen = SOCKADDR_NL_SIZE
  }
  return err !== 0 ? -EFAULT : copied
}

/** netlink_recvmsg - the next message; a dump that is under way goes on when half of the queue is empty. @context process */
function* netlink_recvmsg(sock: socket, msg: msghdr, len: number, flags: number): Call {
  const sk = sock.sk!
  if ((flags & MSG_OOB) !== 0) return -EOPNOTSUPP
  const noblock = (flags & MSG_DONTWAIT) !== 0
  let got = skb_recv_datagram_fast(sk, flags & ~MSG_DONTWAIT, noblock)
  if (got === 1) got = yield* skb_recv_datagram(sk, flags & ~MSG_DONTWAIT, noblock)
  let ret = got
  if (got > 0) {
    const skb = SKB.ref(got)
    ret = copy_out(msg, skb, len)
    skb_free_datagram(sk, skb)
    if (nlk_sk(sk).cb !== null && sock_rmem(sk) <= sk.sk_rcvbuf >> 1) netlink_dump(sk)
  }
  netlink_rcv_wake(sk)
  return ret
}

function* not_supported(): Call {
  return -EOPNOTSUPP
}

const netlink_ops: proto_ops = {
  poll: datagram_poll,
  family: AF_NETLINK,
  release: netlink_release,
  bind: netlink_bind,
  connect: netlink_connect,
  socketpair: not_supported,
  accept: not_supported,
  getname: netlink_getname,
  listen: not_supported,
  shutdown: not_supported,
  setsockopt: not_supported,
  getsockopt: not_supported,
  ioctl: not_supported,
  sendmsg: netlink_sendmsg,
  recvmsg: netlink_recvmsg,
}
const netlink_ops_sym = symbol('netlink_ops', netlink_ops)

/** netlink_init - @context boot, CPU 0 */
export function netlink_init(): void {
  notifier_head_init(netlink_chain)
  nl_table_init()
  sock_register(AF_NETLINK, netlink_create_sym)
}
