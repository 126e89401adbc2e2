/**
 * ipt_ulog.ts - packets are told of to programs that listen to a group of NETLINK_NFLOG, several in one message (ipt_ULOG.c).
 * A module.
 *
 * Lock charter
 *   ulog.lock guards the buffer of each group. Taken under a table's lock for reading, or in a group's timer, with bottom halves
 *   off; only memory is asked for under it, and the timer set. A full buffer is taken out and sent with the lock free, where
 *   2.6.11 holds it.
 *
 * Data: groups by bit, of which the lowest is meant, bytes of the packet (0: all), packets in a message, 32 bytes of prefix.
 */
import { by, bytes, embed, konst, type Layout, layout, ptr, Struct, word } from '../../../abi/layout.js'
import { DEFINE_STATIC } from '../../../abi/section.js'
import { symbol } from '../../../abi/symbol.js'
import { hz } from '../../../arch/machine.js'
import { RAM } from '../../../arch/ram.js'
import {
  del_timer_sync,
  init_timer,
  jiffies,
  mod_timer,
  TIMER,
  type timer_list,
  timer_pending,
} from '../../../irq/timer.js'
import { ENOMEM } from '../../../lib/errno.js'
import { IPT_CONTINUE } from '../../../lib/iptables.js'
import { define_module } from '../../../sched/module.js'
import { spin_lock_bh, spin_unlock_bh } from '../../../sync/bh.js'
import { SPINLOCK, spin_lock_init, type spinlock_t } from '../../../sync/spinlock.js'
import { skb_dequeue } from '../../core/skb_queue.js'
import { alloc_skb, consume_skb, skb_copy_bits } from '../../core/skbuff.js'
import { SOCK, type sock } from '../../core/sock_types.js'
import { type net_device, SKB, type sk_buff } from '../../core/types.js'
import { netlink_kernel_create, netlink_kernel_release } from '../../netlink/af_netlink.js'
import { netlink_broadcast } from '../../netlink/nl_send.js'
import { NLMSG_GOODSIZE, nlmsg_data, nlmsg_put, nlmsg_room } from '../../netlink/nlmsg.js'
import { NETLINK_NFLOG, NLM_F_MULTI, NLMSG_DONE, NLMSG_HDRLEN, netlink_cb, nlmsg_align } from '../../netlink/types.js'
import { define_target, ipt_register, ipt_unregister } from './ip_tables.js'
import { put_name } from './ipq_message.js'

const i32 = RAM.i32
const u8 = RAM.u8
const dv = RAM.dv

const W_GROUPS = 0
const W_RANGE = 1
const W_THRESHOLD = 2
const W_PREFIX = 3
const PREFIX_WORDS = 8
const WORDS = W_PREFIX + PREFIX_WORDS

const GROUPS = 32
const ULOG_MAX_QLEN = 50
const ULOG_NL_EVENT = 111
/** sizeof(ulog_packet_msg): mark, time, hook, devices, length, prefix, hardware header; bytes follow from PAYLOAD on. */
const PACKET_MSG = 168
const PAYLOAD = 165
const MAC = 85
const ETH_HLEN = 14

class ulog_buff extends Struct {
  declare skb: sk_buff | null
  declare qlen: number
  declare lastnlh: number
  declare timer: timer_list
}
const BUFF: Layout<ulog_buff> = layout('ulog_buff', ulog_buff, {
  skb: by(
    'ulog_lock',
    ptr(() => SKB),
  ), // null: nothing waits
  qlen: by('ulog_lock', word), // packets in it
  lastnlh: by('ulog_lock', word), // address of the last message
  timer: embed(TIMER), // sends it when nothing more comes
})
class ulog_t extends Struct {
  declare lock: spinlock_t
  declare nflognl: sock | null
  declare buffers: number
}
const ULOG: Layout<ulog_t> = layout('ipt_ulog', ulog_t, {
  lock: embed(SPINLOCK),
  nflognl: konst(ptr(() => SOCK)), // the kernel's end, while the module is loaded
  buffers: konst(bytes(GROUPS * BUFF.size)),
})
export const ulog = DEFINE_STATIC('ipt_ulog', ULOG)
const buffer = (group: number): ulog_buff => BUFF.ref(ulog.buffers + group * BUFF.size)

/** ulog_waiting - packets that no message was sent of. @context any, where it is quiet */
export const ulog_waiting = (group: number): number => buffer(group).qlen

/** What waits in a group, which has nothing then. @locks ulog.lock is held @returns null: nothing */
function take(ub: ulog_buff): sk_buff | null {
  const { skb } = ub
  if (skb !== null && ub.qlen > 1) dv.setUint16(ub.lastnlh + 4, NLMSG_DONE, true)
  ub.skb = null
  ub.qlen = 0
  return skb
}
/** @consumes skb */
function ulog_send(skb: sk_buff | null, group: number): void {
  if (skb === null) return
  netlink_cb(skb).dst_groups = 1 << group
  netlink_broadcast(ulog.nflognl!, skb, 0, 1 << group)
}

/** ulog_timer - nobody waits for ever for a message to get full. @context softirq */
function ulog_timer(group: number): void {
  spin_lock_bh(ulog.lock)
  const skb = take(buffer(group))
  spin_unlock_bh(ulog.lock)
  ulog_send(skb, group)
}
const ulog_timer_sym = symbol('ulog_timer', ulog_timer)

/** What is known of the packet, and `len` bytes of it, at `m`. */
function describe(m: number, skb: sk_buff, hook: number, indev: net_device | null, len: number): void {
  dv.setInt32(m, skb.nfmark, true)
  u8.copyWithin(m + 4, skb.stamp, skb.stamp + 8)
  dv.setUint32(m + 12, hook, true)
  dv.setUint32(m + 48, len, true)
  if (indev !== null && skb.mac !== 0 && skb.mac >= skb.head && skb.mac + ETH_HLEN <= skb.data) {
    u8[m + MAC - 1] = ETH_HLEN
    u8.copyWithin(m + MAC, skb.mac, skb.mac + ETH_HLEN)
  }
  skb_copy_bits(skb, 0, m + PAYLOAD, len)
}

function ulog_target(
  skb: sk_buff,
  indev: net_device | null,
  outdev: net_device | null,
  hook: number,
  info: number,
): number {
  const w = info >> 2
  const group = 31 - Math.clz32(i32[w + W_GROUPS] & -i32[w + W_GROUPS])
  const range = i32[w + W_RANGE] >>> 0
  const len = range === 0 ? skb.len : Math.min(range, skb.len)
  const size = nlmsg_align(NLMSG_HDRLEN + PACKET_MSG + len)
  const ub = buffer(group)
  spin_lock_bh(ulog.lock)
  const full = ub.skb !== null && !nlmsg_room(ub.skb, size) ? take(ub) : null
  ub.skb ??= alloc_skb(Math.max(size, NLMSG_GOODSIZE))
  let ready: sk_buff | null = null
  const nskb = ub.skb
  if (nskb !== null) {
    const nlh = nlmsg_put(nskb, 0, ub.qlen, ULOG_NL_EVENT, PACKET_MSG + len, 0)
    const m = nlmsg_data(nlh)
    put_name(m + 16, indev)
    put_name(m + 32, outdev)
    u8.copyWithin(m + 52, (w + W_PREFIX) << 2, (w + W_PREFIX + PREFIX_WORDS) << 2)
    describe(m, skb, hook, indev, len)
    if (++ub.qlen > 1) dv.setUint16(ub.lastnlh + 6, NLM_F_MULTI, true)
    ub.lastnlh = nlh
    if (ub.qlen >= i32[w + W_THRESHOLD]) ready = take(ub)
    else if (!timer_pending(ub.timer)) mod_timer(ub.timer, (jiffies() + Math.ceil(hz() / 10)) | 0)
  }
  spin_unlock_bh(ulog.lock)
  ulog_send(full, group)
  ulog_send(ready, group)
  return IPT_CONTINUE
}
define_target('ULOG', WORDS, ulog_target, (_table, _e, info) => {
  const w = info >> 2
  if (i32[w + W_GROUPS] === 0 || i32[w + W_THRESHOLD] >>> 0 > ULOG_MAX_QLEN) return false
  return u8[((w + WORDS) << 2) - 1] === 0 // the prefix ends
})

/** Programs have nothing to say. @context process */
function* ulog_rcv(sk: sock): Generator<void, void, void> {
  for (let skb = skb_dequeue(sk.sk_receive_queue); skb !== null; skb = skb_dequeue(sk.sk_receive_queue))
    consume_skb(skb)
}
const ulog_rcv_sym = symbol('ulog_rcv', ulog_rcv)

/** ulog_exit_halted - what waits, and the kernel's end of NETLINK_NFLOG. @context process, the module's exit, or a halted machine */
export function ulog_exit_halted(): void {
  if (ulog.nflognl === null) return
  for (let group = 0; group < GROUPS; group++) {
    const ub = buffer(group)
    del_timer_sync(ub.timer)
    spin_lock_bh(ulog.lock)
    const skb = take(ub)
    spin_unlock_bh(ulog.lock)
    if (skb !== null) consume_skb(skb)
  }
  netlink_kernel_release(ulog.nflognl)
  ulog.nflognl = null
}

const mod = define_module('ipt_ULOG', {
  *init() {
    spin_lock_init(ulog.lock)
    for (let group = 0; group < GROUPS; group++) {
      const ub = buffer(group)
      ub.skb = null
      ub.qlen = 0
      init_timer(ub.timer, ulog_timer_sym, group)
    }
    ulog.nflognl = netlink_kernel_create(NETLINK_NFLOG, ulog_rcv_sym)
    if (ulog.nflognl === null) return -ENOMEM
    ipt_register('target', 'ULOG', mod.addr)
    return 0
  },
  *exit() {
    ipt_unregister('target', 'ULOG')
    ulog_exit_halted()
  },
  uses: ['ip_tables'],
  alias: `net-pf-16-proto-${NETLINK_NFLOG}`,
})
