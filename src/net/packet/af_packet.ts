/**
 * af_packet.ts - the AF_PACKET family (net/packet/af_packet.c of 2.6.11): programs see and send frames as they are on the wire.
 *
 * Lock charter
 *   packet.lock guards the list of all packet sockets, which device events walk. bind_lock guards the hook of one socket: what it is
 *   bound to and whether the hook is in the handlers' list. Order: packet.lock, bind_lock, ptypes.lock or sk_callback_lock.
 *   A hook that was taken out is still looked at for a grace period: it is changed, and its sock freed, after that only.
 *   2.6.11 frees a sock too early there when a device went down first (the hook is out, and release waits for nobody).
 */
import { hlist_add_head, hlist_del_init } from '../../abi/hlist.js'
import { embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call, symbol } from '../../abi/symbol.js'
import { BUG_ON } from '../../arch/cpu.js'
import { RAM } from '../../arch/ram.js'
import { NOTIFIER, NOTIFY_DONE, type notifier_block } from '../../irq/notifier.js'
import {
  EFAULT,
  EINVAL,
  EMSGSIZE,
  ENETDOWN,
  ENOBUFS,
  ENODEV,
  ENOPROTOOPT,
  ENXIO,
  EOPNOTSUPP,
  EPERM,
  ESOCKTNOSUPPORT,
} from '../../lib/errno.js'
import { call_rcu, synchronize_kernel } from '../../rcu/rcupdate.js'
import { copy_from_user, copy_to_user, get_user, KSTACK_WORDS, put_user, task_kstack } from '../../sched/mm.js'
import { current } from '../../sched/sched.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import {
  RWLOCK,
  read_lock_bh,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../../sync/rwlock.js'
import { spin_lock_init } from '../../sync/spinlock.js'
import { datagram_ioctl, datagram_poll } from '../core/datagram.js'
import { dev_queue_xmit } from '../core/dev.js'
import { net_ioctl } from '../core/dev_ioctl.js'
import { eth_header } from '../core/eth.js'
import { fate_made } from '../core/fate.js'
import { memcpy_fromiovecend } from '../core/iovec.js'
import {
  dev_get_by_index,
  dev_put,
  NETDEV_DOWN,
  NETDEV_UNREGISTER,
  NETDEV_UP,
  register_netdevice_notifier,
} from '../core/netdevice.js'
import { __dev_remove_pack, dev_add_pack } from '../core/packet_type.js'
import { skb_dequeue } from '../core/skb_queue.js'
import { consume_skb, skb_put, skb_reserve } from '../core/skbuff.js'
import {
  lock_sock,
  release_sock,
  sk_alloc,
  sock_flag,
  sock_hold,
  sock_init_data,
  sock_orphan,
  sock_put,
} from '../core/sock.js'
import { sock_alloc_send_skb, sock_def_callbacks, sock_rmem, sock_wmem } from '../core/sock_mem.js'
import { capable, OPT_SCRATCH, SIOCGSTAMP, sock_disable_timestamp, sock_get_timestamp } from '../core/sock_opt.js'
import {
  MSG_DONTWAIT,
  type msghdr,
  SOCK,
  SOCK_DEAD,
  SOCK_DGRAM,
  SOCK_RAW,
  type sock,
  type socket,
} from '../core/sock_types.js'
import { type Call, type proto_ops, sock_register } from '../core/socket.js'
import { ACCT_LOCAL, IFF_UP, NET_XMIT_CN, NETDEV, type net_device, SKB, type sk_buff } from '../core/types.js'
import { packet_dev_mclist, packet_flush_mclist, packet_mc_add, packet_mc_drop } from './packet_mc.js'
import { packet_rcv_sym, packet_recvmsg, packet_statistics } from './packet_rcv.js'
import {
  AF_PACKET,
  PACKET_ADD_MEMBERSHIP,
  PACKET_DROP_MEMBERSHIP,
  PACKET_MREQ_SIZE,
  PACKET_SOCK,
  PACKET_STATISTICS,
  type packet_sock,
  pkt_sk,
  SLL_ADDR,
  SLL_HALEN,
  SLL_HATYPE,
  SLL_IFINDEX,
  SLL_PKTTYPE,
  SLL_PROTOCOL,
  SOCKADDR_LL_SIZE,
  SOL_PACKET,
} from './types.js'

const dv = RAM.dv
const u8 = RAM.u8
const i32 = RAM.i32
const ETH_ALEN = 6
/** Room in front of the link header, as LL_RESERVED_SPACE leaves it. */
const LL_ALIGN = 16

class packet_sklist extends Struct {
  declare first: number
  declare lock: rwlock_t
}
const SKLIST: Layout<packet_sklist> = layout('packet_sklist', packet_sklist, { first: word, lock: embed(RWLOCK) })
const packet = DEFINE_STATIC('packet', SKLIST)
const packet_notifier_block = DEFINE_STATIC('packet_netdev_notifier', NOTIFIER)

function ntohs(n: number): number {
  return ((n & 0xff) << 8) | ((n >> 8) & 0xff)
}

// ---- the hook -------------------------------------------------------------------------------------------------------

/** @locks bind_lock is held */
function hook(po: packet_sock): void {
  dev_add_pack(po.prot_hook)
  sock_hold(po.sk)
  po.running = 1
}
/** @locks bind_lock is held */
function unhook(po: packet_sock): void {
  __dev_remove_pack(po.prot_hook)
  po.running = 0
  sock_put(po.sk) // never the last one: the program's side has one, or the grace period
}
function report_down(sk: sock): void {
  sk.sk_err = ENETDOWN
  if (!sock_flag(sk, SOCK_DEAD)) call(sk.sk_error_report)(sk)
}

// ---- making and ending ----------------------------------------------------------------------------------------------

function purge(sk: sock): void {
  for (let skb = skb_dequeue(sk.sk_receive_queue); skb !== null; skb = skb_dequeue(sk.sk_receive_queue))
    consume_skb(skb)
}

function packet_sock_destruct(sk: sock): void {
  BUG_ON(!sock_flag(sk, SOCK_DEAD), 'destroy of a live packet sock')
  BUG_ON(sock_rmem(sk) !== 0 || sock_wmem(sk) !== 0, 'packet sock freed with memory charged')
  sock_disable_timestamp(sk)
}
const packet_sock_destruct_sym = symbol('packet_sock_destruct', packet_sock_destruct)

function prot_none(): void {}
const packet_prot_sym = symbol('packet_prot', prot_none)

/** packet_create - `protocol` in network order, as programs give it. @context process @returns 0, -EPERM, -ESOCKTNOSUPPORT, -ENOBUFS */
function packet_create(sock: socket, protocol: number): number {
  if (!capable()) return -EPERM
  if (sock.type !== SOCK_DGRAM && sock.type !== SOCK_RAW) return -ESOCKTNOSUPPORT
  const sk = sk_alloc(AF_PACKET, packet_prot_sym)
  if (sk === null) return -ENOBUFS
  sock.ops = packet_ops_sym
  sock_init_data(sock, sk, sock_def_callbacks)
  sk.sk_destruct = packet_sock_destruct_sym
  const po = pkt_sk(sk)
  spin_lock_init(po.bind_lock)
  po.num = ntohs(protocol)
  po.prot_hook.func = packet_rcv_sym
  po.prot_hook.af_packet_priv = sk.addr
  po.prot_hook.type = po.num
  if (po.num !== 0) {
    spin_lock_bh(po.bind_lock)
    hook(po)
    spin_unlock_bh(po.bind_lock)
  }
  write_lock_bh(packet.lock)
  hlist_add_head(sk.sk_node, packet.addr)
  write_unlock_bh(packet.lock)
  return 0
}
const packet_create_sym = symbol('packet_create', packet_create)

/** A grace period after the socket was closed: nobody brings it a packet any more. @context softirq */
function packet_release_rcu(head: number): void {
  const { sk } = PACKET_SOCK.container_of('rcu', head)
  purge(sk)
  sock_put(SOCK.ref(sk.addr))
}
const packet_release_rcu_sym = symbol('packet_release_rcu', packet_release_rcu)

function* packet_release(sock: socket): Call {
  const { sk } = sock
  if (sk === null) return 0
  const po = pkt_sk(sk)
  write_lock_bh(packet.lock)
  hlist_del_init(sk.sk_node)
  write_unlock_bh(packet.lock)
  spin_lock_bh(po.bind_lock)
  if (po.running !== 0) unhook(po)
  po.num = 0
  spin_unlock_bh(po.bind_lock)
  yield* packet_flush_mclist(po)
  sock_orphan(sk)
  sock.sk = null
  purge(sk)
  call_rcu(po.rcu, packet_release_rcu_sym)
  return 0
}

// ---- addresses ------------------------------------------------------------------------------------------------------

/** packet_do_bind - to a protocol and a device, null: all. @context process @locks takes the socket */
function* packet_do_bind(sk: sock, dev: net_device | null, protocol: number): Generator<void, void, void> {
  const po = pkt_sk(sk)
  yield* lock_sock(sk)
  spin_lock_bh(po.bind_lock)
  if (po.running !== 0) {
    unhook(po)
    po.num = 0 // a device that comes up meanwhile leaves it alone
    spin_unlock_bh(po.bind_lock)
    yield* synchronize_kernel()
    spin_lock_bh(po.bind_lock)
  }
  po.num = protocol
  po.prot_hook.type = protocol
  po.prot_hook.dev = dev
  po.ifindex = dev === null ? 0 : dev.ifindex
  if (protocol !== 0) {
    if (dev === null || (dev.flags & IFF_UP) !== 0) hook(po)
    else report_down(sk)
  }
  spin_unlock_bh(po.bind_lock)
  release_sock(sk)
}

/** packet_bind - @context process @returns 0, -EINVAL, -ENODEV */
function* packet_bind(sock: socket, addr: number, addr_len: number): Call {
  const sk = sock.sk!
  if (addr_len < SOCKADDR_LL_SIZE || dv.getUint16(addr, true) !== AF_PACKET) return -EINVAL
  const ifindex = dv.getInt32(addr + SLL_IFINDEX, true)
  const dev = ifindex === 0 ? null : dev_get_by_index(ifindex)
  if (ifindex !== 0 && dev === null) return -ENODEV
  yield* packet_do_bind(sk, dev, dv.getUint16(addr + SLL_PROTOCOL) || pkt_sk(sk).num)
  if (dev !== null) dev_put(dev)
  return 0
}

/** packet_getname - @returns length of the address written, -EOPNOTSUPP */
function packet_getname(sock: socket, addr: number, peer: boolean): number {
  if (peer) return -EOPNOTSUPP
  const po = pkt_sk(sock.sk!)
  const dev = dev_get_by_index(po.ifindex)
  u8.fill(0, addr, addr + SOCKADDR_LL_SIZE)
  dv.setUint16(addr, AF_PACKET, true)
  dv.setUint16(addr + SLL_PROTOCOL, po.num)
  dv.setInt32(addr + SLL_IFINDEX, po.ifindex, true)
  u8[addr + SLL_PKTTYPE] = 0
  if (dev === null) return SOCKADDR_LL_SIZE
  dv.setUint16(addr + SLL_HATYPE, dev.type, true)
  u8[addr + SLL_HALEN] = ETH_ALEN
  dv.setInt32(addr + SLL_ADDR, dev.dev_addr_hi)
  dv.setInt16(addr + SLL_ADDR + 4, dev.dev_addr_lo)
  dev_put(dev)
  return SOCKADDR_LL_SIZE
}

// ---- sending --------------------------------------------------------------------------------------------------------

/** The frame is the program's, or its header is made from the address. @returns 0, -EINVAL, -EFAULT */
function fill(
  skb: sk_buff,
  dev: net_device,
  raw: boolean,
  proto: number,
  daddr: number,
  msg: msghdr,
  len: number,
): number {
  const res = eth_header(skb, dev, proto, daddr, len)
  if (raw) {
    skb.tail = skb.data // the program's bytes are the header
    skb.len = 0
  } else if (res < 0) return -EINVAL
  return memcpy_fromiovecend(skb_put(skb, len), msg.msg_iov, 0, len)
}

function* send_through(sk: sock, dev: net_device, proto: number, daddr: number, msg: msghdr, len: number): Call {
  const raw = sk.sk_type === SOCK_RAW
  const hlen = dev.hard_header_len
  if (len > dev.mtu + (raw ? hlen : 0)) return -EMSGSIZE
  const room = (hlen + LL_ALIGN) & ~(LL_ALIGN - 1)
  const got = yield* sock_alloc_send_skb(sk, len + room, (msg.msg_flags & MSG_DONTWAIT) !== 0)
  if (got <= 0) return got
  const skb = SKB.ref(got)
  skb_reserve(skb, room)
  skb.nh = skb.data
  let err = fill(skb, dev, raw, proto, daddr, msg, len)
  if (err === 0 && (dev.flags & IFF_UP) === 0) err = -ENETDOWN
  if (err !== 0) {
    consume_skb(skb)
    return err
  }
  skb.protocol = proto
  skb.dev = dev
  skb.priority = sk.sk_priority
  skb.acct = ACCT_LOCAL
  fate_made()
  err = dev_queue_xmit(skb)
  return err > 0 ? (err === NET_XMIT_CN ? len : -ENOBUFS) : len
}

/** packet_sendmsg - @context process @returns bytes, -EINVAL, -ENXIO, -EMSGSIZE, -ENETDOWN, -EFAULT, -ENOBUFS, -EAGAIN, -EINTR */
function* packet_sendmsg(sock: socket, msg: msghdr, len: number): Call {
  const sk = sock.sk!
  const po = pkt_sk(sk)
  let { ifindex, num: proto } = po
  let daddr = 0
  if (msg.msg_name !== 0) {
    if (msg.msg_namelen < SOCKADDR_LL_SIZE) return -EINVAL
    ifindex = dv.getInt32(msg.msg_name + SLL_IFINDEX, true)
    proto = dv.getUint16(msg.msg_name + SLL_PROTOCOL)
    daddr = msg.msg_name + SLL_ADDR
  }
  const dev = dev_get_by_index(ifindex)
  if (dev === null) return -ENXIO
  const ret = len < 0 ? -EMSGSIZE : yield* send_through(sk, dev, proto, daddr, msg, len)
  dev_put(dev)
  return ret
}

// ---- options --------------------------------------------------------------------------------------------------------

function scratch(): number {
  return task_kstack(current()).words + KSTACK_WORDS - OPT_SCRATCH
}

/** packet_setsockopt - @returns 0, -ENOPROTOOPT, -EINVAL, -EFAULT, -ENODEV, -ENOMEM, -EADDRNOTAVAIL */
function* packet_setsockopt(sock: socket, level: number, name: number, val: number, len: number): Call {
  if (level !== SOL_PACKET) return -ENOPROTOOPT
  if (name !== PACKET_ADD_MEMBERSHIP && name !== PACKET_DROP_MEMBERSHIP) return -ENOPROTOOPT
  if (len < PACKET_MREQ_SIZE) return -EINVAL
  const mreq = scratch()
  if (copy_from_user(mreq, val, PACKET_MREQ_SIZE) !== 0) return -EFAULT
  const po = pkt_sk(sock.sk!)
  return yield* name === PACKET_ADD_MEMBERSHIP ? packet_mc_add(po, mreq) : packet_mc_drop(po, mreq)
}

/** packet_getsockopt - @returns 0, -ENOPROTOOPT, -EFAULT, -EINVAL */
function* packet_getsockopt(sock: socket, level: number, name: number, val: number, optlen: number): Call {
  if (level !== SOL_PACKET) return -ENOPROTOOPT
  const asked = get_user(optlen)
  if (asked === null) return -EFAULT
  if (asked < 0) return -EINVAL
  if (name !== PACKET_STATISTICS) return -ENOPROTOOPT
  const len = Math.min(asked, 8)
  const at = scratch()
  const [packets, drops] = packet_statistics(sock.sk!)
  i32[at >> 2] = packets
  i32[(at >> 2) + 1] = drops
  if (copy_to_user(val, at, len) !== 0) return -EFAULT
  return put_user(len, optlen)
}

/** packet_ioctl - @context process @returns 0, -errno */
function* packet_ioctl(sock: socket, cmd: number, arg: number): Call {
  const sk = sock.sk!
  if (cmd === SIOCGSTAMP) return sock_get_timestamp(sk, arg)
  return datagram_ioctl(sk, cmd, arg, 0) ?? (yield* net_ioctl(cmd, arg))
}

function* not_supported(): Call {
  return -EOPNOTSUPP
}

const packet_ops: proto_ops = {
  family: AF_PACKET,
  release: packet_release,
  bind: packet_bind,
  connect: not_supported,
  socketpair: not_supported,
  accept: not_supported,
  getname: packet_getname,
  listen: not_supported,
  shutdown: not_supported,
  setsockopt: packet_setsockopt,
  getsockopt: packet_getsockopt,
  sendmsg: packet_sendmsg,
  recvmsg: packet_recvmsg,
  poll: datagram_poll,
  ioctl: packet_ioctl,
}
const packet_ops_sym = symbol('packet_ops', packet_ops)

// ---- devices --------------------------------------------------------------------------------------------------------

function device_down(po: packet_sock, gone: boolean): void {
  spin_lock_bh(po.bind_lock)
  if (po.running !== 0) {
    unhook(po)
    report_down(po.sk)
  }
  if (gone) {
    po.ifindex = -1
    po.prot_hook.dev = null
  }
  spin_unlock_bh(po.bind_lock)
}

/** packet_notifier - a device went down, up or away. @context process @locks rtnl is held */
function packet_notifier(_nb: notifier_block, event: number, data: number): number {
  const dev = NETDEV.ref(data)
  read_lock_bh(packet.lock)
  for (let at = packet.first; at !== 0; at = i32[at >> 2]) {
    const po = pkt_sk(SOCK.container_of('sk_node', at) as sock)
    if (event === NETDEV_UNREGISTER) packet_dev_mclist(po, dev)
    if (dev.ifindex !== po.ifindex) continue
    if (event === NETDEV_DOWN || event === NETDEV_UNREGISTER) device_down(po, event === NETDEV_UNREGISTER)
    else if (event === NETDEV_UP) {
      spin_lock_bh(po.bind_lock)
      if (po.num !== 0 && po.running === 0) hook(po)
      spin_unlock_bh(po.bind_lock)
    }
  }
  read_unlock_bh(packet.lock)
  return NOTIFY_DONE
}
const packet_notifier_sym = symbol('packet_notifier', packet_notifier)

/** packet_init - @context boot, CPU 0 */
export function packet_init(): void {
  packet.first = 0
  rwlock_init(packet.lock)
  sock_register(AF_PACKET, packet_create_sym)
  packet_notifier_block.call = packet_notifier_sym
  register_netdevice_notifier(packet_notifier_block)
}
