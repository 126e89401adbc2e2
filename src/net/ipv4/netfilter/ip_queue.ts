/**
 * ip_queue.ts - the user queue: packets wait for the verdict of a process (net/ipv4/netfilter/ip_queue.c). A module.
 *
 * Lock charter
 *   state.lock guards the list, its counts, and which program the packets are told to (peer_pid); netlink's locks are taken
 *   below it. A packet that is taken out is the taker's; verdicts are given with it free.
 *
 * A program (NETLINK_FIREWALL) is told of each packet by a message and answers by its number; when it closes its socket, all
 * that waits is dropped. Without a program packets wait for a thread of the kernel that calls ipq_read.
 */
import { by, embed, konst, type Layout, layout, ptr, Struct, word } from '../../../abi/layout.js'
import { INIT_LIST_HEAD, LIST, list_add_tail, list_del_init, type list_head, list_next } from '../../../abi/list.js'
import { DEFINE_STATIC } from '../../../abi/section.js'
import { symbol } from '../../../abi/symbol.js'
import { NOTIFIER, NOTIFY_DONE, type notifier_block } from '../../../irq/notifier.js'
import { EAGAIN, EBUSY, EINVAL, ENOENT, ENOMEM, ENOSPC, EPERM } from '../../../lib/errno.js'
import { MAX_QUEUED_PACKETS } from '../../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free, with_hoards } from '../../../mm/slab.js'
import { synchronize_kernel } from '../../../rcu/rcupdate.js'
import { define_module } from '../../../sched/module.js'
import {
  init_waitqueue_head,
  WAIT_QUEUE_HEAD,
  wait_event,
  type wait_queue_head_t,
  wake_up,
} from '../../../sched/wait.js'
import { local_bh_disable, local_bh_enable, spin_lock_bh, spin_unlock_bh } from '../../../sync/bh.js'
import { SPINLOCK, spin_lock_init, type spinlock_t } from '../../../sync/spinlock.js'
import { NETDEV_DOWN, register_netdevice_notifier, unregister_netdevice_notifier } from '../../core/netdevice.js'
import {
  NF_DROP,
  NF_INFO,
  NF_REPEAT,
  type nf_info,
  nf_register_queue_handler,
  nf_reinject,
  nf_unregister_queue_handler,
} from '../../core/netfilter.js'
import { skb_dequeue } from '../../core/skb_queue.js'
import { consume_skb } from '../../core/skbuff.js'
import { SOCK, type sock } from '../../core/sock_types.js'
import { SKB, type sk_buff } from '../../core/types.js'
import {
  NETLINK_URELEASE,
  netlink_kernel_create,
  netlink_kernel_release,
  netlink_register_notifier,
  netlink_unregister_notifier,
} from '../../netlink/af_netlink.js'
import { netlink_ack, netlink_reply } from '../../netlink/nl_send.js'
import { nlmsg_data, nlmsg_flags, nlmsg_len, nlmsg_type } from '../../netlink/nlmsg.js'
import { NETLINK_FIREWALL, NLM_F_ACK, NLM_F_REQUEST, NLMSG_HDRLEN, netlink_cb, nlk_sk } from '../../netlink/types.js'
import {
  IPQ_COPY_NONE,
  IPQ_COPY_PACKET,
  IPQM_BASE,
  IPQM_MAX,
  IPQM_MODE,
  IPQM_VERDICT,
  ipq_build_packet_message,
  ipq_mode_msg,
  ipq_verdict_msg,
  PEER_MSG,
} from './ipq_message.js'

class ipq_queue_entry extends Struct {
  declare list: list_head
  declare skb: sk_buff | null
  declare info: nf_info | null
  declare id: number
  declare taken: number
}
const ENTRY: Layout<ipq_queue_entry> = layout('ipq_queue_entry', ipq_queue_entry, {
  list: by('lock', embed(LIST)),
  skb: ptr(() => SKB),
  info: ptr(() => NF_INFO),
  id: word, // how the process calls it
  taken: by('lock', word), // the process has seen it
})
/** Bytes of a packet that a program may see. */
const MAX_COPY = 0xffff
const cache = kmem_cache_create('ipq_queue_entry', ENTRY, () => with_hoards(MAX_QUEUED_PACKETS))

class ipq_state extends Struct {
  declare lock: spinlock_t
  declare queue: list_head
  declare readers: wait_queue_head_t
  declare total: number
  declare maxlen: number
  declare next_id: number
  declare fresh: number
  declare queue_dropped: number
  declare user_dropped: number
  declare peer_pid: number
  declare copy_mode: number
  declare copy_range: number
  declare ipqnl: sock | null
}
const STATE: Layout<ipq_state> = layout('ipq_state', ipq_state, {
  lock: embed(SPINLOCK),
  queue: by('lock', embed(LIST)),
  readers: embed(WAIT_QUEUE_HEAD),
  total: by('lock', word),
  maxlen: by('lock', word),
  next_id: by('lock', word),
  fresh: by('lock', word), // packets that no process has taken yet
  queue_dropped: by('lock', word), // there was no room
  user_dropped: by('lock', word), // the program's socket had none
  peer_pid: by('lock', word), // netlink address of the program, 0: there is none
  copy_mode: by('lock', word),
  copy_range: by('lock', word),
  ipqnl: konst(ptr(() => SOCK)), // the kernel's end, while the module is loaded
})
const state = DEFINE_STATIC('ipq_state', STATE)

/** A message to the program. @locks state.lock is held @returns 1, 0: there is no program, -ENOMEM, -EAGAIN, -ECONNREFUSED */
function tell(entry: ipq_queue_entry, skb: sk_buff, info: nf_info): number {
  if (state.peer_pid === 0) return 0
  if (state.copy_mode === IPQ_COPY_NONE) return -EAGAIN
  const nskb = ipq_build_packet_message(skb, info, entry.id, state.copy_range)
  if (nskb === null) return -ENOMEM
  const status = netlink_reply(state.ipqnl!, nskb, state.peer_pid)
  entry.taken = 1
  if (status < 0) state.user_dropped++
  return status < 0 ? status : 1
}

/** The queue handler. @context softirq, process @returns 0, -ENOMEM, -ENOSPC: the packet stays the caller's */
function ipq_enqueue_packet(skb: sk_buff, info: nf_info): number {
  const entry = kmem_cache_alloc(cache)
  if (entry === null) return -ENOMEM
  spin_lock_bh(state.lock)
  if (state.total >= state.maxlen) {
    state.queue_dropped++
    spin_unlock_bh(state.lock)
    kmem_cache_free(cache, entry)
    return -ENOSPC
  }
  entry.skb = skb
  entry.info = info
  entry.taken = 0
  state.next_id = (state.next_id + 1) | 0
  entry.id = state.next_id
  const told = tell(entry, skb, info)
  if (told < 0) {
    spin_unlock_bh(state.lock)
    kmem_cache_free(cache, entry)
    return told
  }
  state.total++
  if (entry.taken === 0) state.fresh++
  list_add_tail(entry.list, state.queue)
  spin_unlock_bh(state.lock)
  if (told === 0) wake_up(state.readers)
  return 0
}
const ipq_enqueue_packet_sym = symbol('ipq_enqueue_packet', ipq_enqueue_packet)

function waiting(): boolean {
  return state.fresh > 0
}

function first(wanted: (entry: ipq_queue_entry) => boolean): ipq_queue_entry | null {
  for (let at = state.queue.next; at !== state.queue.addr; at = list_next(at)) {
    const entry = ENTRY.container_of('list', at)
    if (wanted(entry)) return entry
  }
  return null
}

/** ipq_read - the id of the next packet that waits, and the packet, which stays in the queue. @context process */
export function* ipq_read(): Generator<void, { id: number; skb: sk_buff; info: nf_info }, void> {
  for (;;) {
    if (!waiting()) yield* wait_event(state.readers, waiting)
    spin_lock_bh(state.lock)
    const entry = first(e => e.taken === 0)
    if (entry !== null) {
      entry.taken = 1
      state.fresh--
    }
    spin_unlock_bh(state.lock)
    if (entry !== null) return { id: entry.id, skb: entry.skb!, info: entry.info! }
  }
}

function take(wanted: (entry: ipq_queue_entry) => boolean): ipq_queue_entry | null {
  spin_lock_bh(state.lock)
  const entry = first(wanted)
  if (entry !== null) {
    list_del_init(entry.list)
    state.total--
    if (entry.taken === 0) state.fresh--
  }
  spin_unlock_bh(state.lock)
  return entry
}

function issue_verdict(entry: ipq_queue_entry, verdict: number): void {
  const skb = entry.skb!
  const info = entry.info!
  kmem_cache_free(cache, entry)
  local_bh_disable()
  nf_reinject(skb, info, verdict)
  local_bh_enable()
}

/** ipq_set_verdict - NF_ACCEPT, NF_DROP, NF_REPEAT or NF_QUEUE. @context process @returns 0, or -ENOENT: no such packet waits */
export function ipq_set_verdict(id: number, verdict: number): number {
  const entry = take(e => e.id === id)
  if (entry === null) return -ENOENT
  issue_verdict(entry, verdict)
  return 0
}

// ---- the program ----------------------------------------------------------------------------------------------------

/** ipq_set_mode - @returns 0, -EINVAL */
function ipq_set_mode(mode: number, range: number): number {
  if (mode > IPQ_COPY_PACKET) return -EINVAL
  spin_lock_bh(state.lock)
  state.copy_mode = mode
  state.copy_range = mode === IPQ_COPY_PACKET ? Math.min(range === 0 ? MAX_COPY : range, MAX_COPY) : 0
  spin_unlock_bh(state.lock)
  return 0
}

/** One message of a program. @context process @returns 0, -EINVAL, -ENOENT */
function ipq_receive_peer(type: number, at: number, len: number): number {
  if (len < PEER_MSG) return -EINVAL
  if (type === IPQM_MODE) {
    const { value, range } = ipq_mode_msg(at)
    return ipq_set_mode(value, range)
  }
  if (type !== IPQM_VERDICT) return -EINVAL
  const { value, id, data_len } = ipq_verdict_msg(at)
  return value > NF_REPEAT || data_len !== 0 ? -EINVAL : ipq_set_verdict(id, value)
}

/** The first that speaks is the program until it closes its socket. @returns 0, -EBUSY: there is another one */
function peer_of(pid: number): number {
  spin_lock_bh(state.lock)
  const busy = state.peer_pid !== 0 && state.peer_pid !== pid
  if (!busy) state.peer_pid = pid
  spin_unlock_bh(state.lock)
  return busy ? -EBUSY : 0
}

/** ipq_rcv_skb - @returns 0: nothing to be said, or -errno */
function ipq_rcv_msg(skb: sk_buff, nlh: number): number {
  const type = nlmsg_type(nlh)
  const { pid } = netlink_cb(skb)
  if (pid === 0 || (nlmsg_flags(nlh) & NLM_F_REQUEST) === 0 || type >= IPQM_MAX) return -EINVAL
  if (type <= IPQM_BASE) return 0
  if (netlink_cb(skb).eff_cap === 0) return -EPERM
  return peer_of(pid) || ipq_receive_peer(type, nlmsg_data(nlh), nlmsg_len(nlh) - NLMSG_HDRLEN)
}

/** What programs have sent. @context process */
function* ipq_rcv_sk(sk: sock): Generator<void, void, void> {
  for (let skb = skb_dequeue(sk.sk_receive_queue); skb !== null; skb = skb_dequeue(sk.sk_receive_queue)) {
    const nlh = skb.data
    if (skb.len >= NLMSG_HDRLEN && nlmsg_len(nlh) >= NLMSG_HDRLEN && nlmsg_len(nlh) <= skb.len) {
      const err = ipq_rcv_msg(skb, nlh)
      if (err < 0 || (nlmsg_flags(nlh) & NLM_F_ACK) !== 0) netlink_ack(sk, skb, nlh, err)
    }
    consume_skb(skb)
  }
}
const ipq_rcv_sk_sym = symbol('ipq_rcv_sk', ipq_rcv_sk)

/** The program has closed its socket: what waits is dropped. @context process */
function ipq_rcv_nl_event(_nb: notifier_block, event: number, data: number): number {
  const sk = SOCK.ref(data)
  if (event !== NETLINK_URELEASE || sk.sk_protocol !== NETLINK_FIREWALL) return NOTIFY_DONE
  spin_lock_bh(state.lock)
  const ours = state.peer_pid !== 0 && state.peer_pid === nlk_sk(sk).pid
  if (ours) {
    state.peer_pid = 0
    state.copy_mode = IPQ_COPY_NONE
  }
  spin_unlock_bh(state.lock)
  if (ours) ipq_flush()
  return NOTIFY_DONE
}

/** A device goes down: what came in through it, or is to go out there, is dropped. @context process */
function ipq_rcv_dev_event(_nb: notifier_block, event: number, data: number): number {
  if (event !== NETDEV_DOWN) return NOTIFY_DONE
  const about = ({ info }: ipq_queue_entry): boolean => info!.indev?.addr === data || info!.outdev?.addr === data
  for (let entry = take(about); entry !== null; entry = take(about)) issue_verdict(entry, NF_DROP)
  return NOTIFY_DONE
}
const nl_notifier = DEFINE_STATIC('ipq_nl_notifier', NOTIFIER)
const dev_notifier = DEFINE_STATIC('ipq_dev_notifier', NOTIFIER)
const nl_event_sym = symbol('ipq_rcv_nl_event', ipq_rcv_nl_event)
const dev_event_sym = symbol('ipq_rcv_dev_event', ipq_rcv_dev_event)

// ---- the module -----------------------------------------------------------------------------------------------------

/** ipq_set_maxlen - packets that may wait. @context process */
export function ipq_set_maxlen(maxlen: number): void {
  spin_lock_bh(state.lock)
  state.maxlen = maxlen
  spin_unlock_bh(state.lock)
}

/** ipq_flush - drop all that waits. @context process, or a halted machine */
export function ipq_flush(): void {
  if (state.maxlen === 0) return // it was never there
  for (let entry = take(() => true); entry !== null; entry = take(() => true)) issue_verdict(entry, NF_DROP)
}

function* init(): Generator<void, number, void> {
  spin_lock_init(state.lock)
  INIT_LIST_HEAD(state.queue)
  init_waitqueue_head(state.readers)
  state.maxlen = MAX_QUEUED_PACKETS
  state.total = 0
  state.fresh = 0
  state.peer_pid = 0
  state.copy_mode = IPQ_COPY_NONE
  state.ipqnl = netlink_kernel_create(NETLINK_FIREWALL, ipq_rcv_sk_sym)
  if (state.ipqnl === null) return -ENOMEM
  nl_notifier.call = nl_event_sym
  dev_notifier.call = dev_event_sym
  netlink_register_notifier(nl_notifier)
  register_netdevice_notifier(dev_notifier)
  const err = nf_register_queue_handler(ipq_enqueue_packet_sym, 0)
  if (err < 0) stop_listening()
  return err
}

/** ipq_exit_halted - the kernel's end of NETLINK_FIREWALL, for the leak audit. @context a halted machine */
export function ipq_exit_halted(): void {
  if (state.ipqnl !== null) netlink_kernel_release(state.ipqnl)
  state.ipqnl = null
}

function stop_listening(): void {
  netlink_unregister_notifier(nl_notifier)
  unregister_netdevice_notifier(dev_notifier)
  ipq_exit_halted()
}

function* exit(): Generator<void, void, void> {
  nf_unregister_queue_handler()
  yield* synchronize_kernel()
  stop_listening()
  ipq_flush()
}

/** ipq_stats - lines of /proc/net/ip_queue. */
export function ipq_text(): string {
  if (state.maxlen === 0) return ''
  return [
    `Peer PID         : ${state.peer_pid}`,
    `Copy mode        : ${state.copy_mode}`,
    `Copy range       : ${state.copy_range}`,
    `Queue length     : ${state.total}`,
    `Queue max. length: ${state.maxlen}`,
    `Queue dropped    : ${state.queue_dropped}`,
    `Netlink dropped  : ${state.user_dropped}`,
    '',
  ].join('\n')
}

export const ip_queue_module = define_module('ip_queue', { init, exit, alias: `net-pf-16-proto-${NETLINK_FIREWALL}` })
