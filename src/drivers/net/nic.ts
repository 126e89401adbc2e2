/**
 * nic.ts - driver of the machine's NIC (arch/nic_regs.ts is its manual), in the style of e1000.
 *
 * Lock charter
 *   rx half of a queue: whoever runs its interrupt handler (interrupt, softnet) or holds its RX_SCHED bit (napi).
 *   tx_next, tx ring: under the device's xmit_lock. tx_clean: the handler or poll of queue 0. One posts, one cleans, so
 *   the ring needs no lock of its own; tx_clean is published atomically before XOFF is looked at, and hard_start_xmit
 *   looks at it again after it set XOFF, so no wake-up is lost.
 *   2.6.11 sends one packet of a device at a time, so all of them go through queue 0, which also keeps flows in order.
 *
 * One net_device stands for the port; each queue has one of its own to be polled by (as e1000's polling_netdev).
 */

import { embed, konst, type Layout, layout, own, ptr, Struct, word } from '../../abi/layout.js'
import { symbol } from '../../abi/symbol.js'
import { load, READ_ONCE, store, WRITE_ONCE } from '../../arch/atomic.js'
import { cost } from '../../arch/cost.js'
import { burn, charge_cost, local_irq_restore, local_irq_save, tick } from '../../arch/cpu.js'
import { CAUSE_RX, CAUSE_TX, irq_line, LINE_RX_ACK, LINE_TX_ACK, line_enable } from '../../arch/irqchip.js'
import {
  DESC_ADDR,
  DESC_FLAGS,
  DESC_INFO,
  DESC_LEN,
  DESC_SHIFT,
  doorbell,
  Q_RX_DONE,
  Q_RX_TAIL,
  Q_TX_DONE,
  Q_TX_TAIL,
  RX_CSUM_L4,
  TX_CSUM,
  TX_EOP,
} from '../../arch/nic_regs.js'
import { memcpy, RAM } from '../../arch/ram.js'
import { jiffies, TIMER, type timer_list } from '../../irq/timer.js'
import { MAX_QUEUES, MAX_SKB_FRAGS } from '../../lib/limits.js'
import {
  __netif_rx_complete,
  __netif_rx_schedule,
  __netif_schedule,
  dev_kfree_skb_any,
  netif_receive_skb,
  netif_rx,
  netif_rx_schedule_prep,
  RX_INTERRUPT,
  RX_NAPI,
  RX_POLLED,
  schednetisr_ip,
} from '../../net/core/dev.js'
import { eth_type_trans } from '../../net/core/eth.js'
import { drop_reason, fate_dropped, fate_received } from '../../net/core/fate.js'
import { input_inhibited, kpoll_schedule, type poll_ops } from '../../net/core/kpoll.js'
import {
  netif_queue_stopped,
  netif_running,
  netif_start_queue,
  netif_stop_queue,
  netif_wake_queue_test,
} from '../../net/core/netdevice.js'
import { dev_alloc_skb, kfree_skb, skb_copy_bits, skb_headlen, skb_put, skb_shinfo } from '../../net/core/skbuff.js'
import {
  ACCT_RX,
  CHECKSUM_HW,
  CHECKSUM_UNNECESSARY,
  type int_ref,
  NETDEV,
  NETDEV_TX_BUSY,
  NETDEV_TX_OK,
  type net_device,
  SKB,
  type sk_buff,
} from '../../net/core/types.js'

const COST_INTERRUPT = cost('nic_interrupt')
const COST_POLL = cost('nic_poll')
const COST_RX = cost('nic_clean_rx')
const COST_TX = cost('nic_clean_tx')
const COST_XMIT = cost('nic_xmit_frame')

const i32 = RAM.i32

export class nic_queue extends Struct {
  declare nic: number
  declare index: number
  declare irq: number
  declare regs: number
  declare dev: net_device | null
  declare poll_dev: net_device | null
  declare rx_ring: number
  declare rx_mask: number
  declare rx_skb: number
  declare rx_buf: number
  declare irq_work: number
  declare arch: number
  declare pio_ns: number
  declare tx_card: number
  declare tx_ring: number
  declare tx_mask: number
  declare tx_skb: number
  declare rx_next: number
  declare rx_packets: number
  declare rx_bytes: number
  declare rx_dropped: number
  declare tx_next: number
  declare tx_packets: number
  declare tx_bytes: number
  declare tx_errors: number
  declare tx_clean: number
}
export const QUEUE: Layout<nic_queue> = layout('nic_queue', nic_queue, {
  nic: konst(word),
  index: konst(word),
  irq: konst(word),
  regs: konst(word), // address of the doorbells
  dev: konst(ptr(() => NETDEV)),
  poll_dev: konst(ptr(() => NETDEV)),
  rx_ring: konst(word),
  rx_mask: konst(word),
  rx_skb: konst(word), // address of an array: the packet behind each descriptor
  rx_buf: konst(word), // bytes of a receive buffer
  irq_work: konst(word), // packets that one interrupt takes at most
  arch: konst(word),
  pio_ns: konst(word), // programmed I/O: ns for each 4 bytes that the CPU moves; 0: the device does DMA
  tx_card: konst(word), // programmed I/O: address of an array: the packet whose data plays the card's memory
  tx_ring: konst(word),
  tx_mask: konst(word),
  tx_skb: konst(word), // the packet whose last descriptor this is, or 0
  rx_next: { ...own(word), align: 128 }, // next descriptor to look at
  rx_packets: own(word),
  rx_bytes: own(word),
  rx_dropped: own(word),
  tx_next: { ...own(word), align: 128 }, // next free descriptor
  tx_packets: own(word),
  tx_bytes: own(word),
  tx_errors: own(word),
  tx_clean: { ...own(word), align: 128 }, // next descriptor to free
})
const TX_CLEAN = QUEUE.offset('tx_clean')

export class nic_adapter extends Struct {
  declare nic: number
  declare nqueues: number
  declare promisc: number
  declare queues: number
  declare watchdog: timer_list
}
export const ADAPTER: Layout<nic_adapter> = layout('nic_adapter', nic_adapter, {
  nic: konst(word),
  nqueues: konst(word),
  promisc: konst(word),
  queues: konst({ kind: 'bytes', size: MAX_QUEUES * 4, align: 4 }), // addresses
  watchdog: embed(TIMER), // looks for the carrier
})

const RX_NO_MEMORY = drop_reason('rx_no_memory')
const ETH_RUNT = drop_reason('eth_runt')
/** Free descriptors before a stopped queue goes on. */
const TX_WAKE = MAX_SKB_FRAGS + 2

export function queue_of(adapter: nic_adapter, index: number): nic_queue {
  return QUEUE.ref(i32[(adapter.queues >> 2) + index])
}

// ---- receive --------------------------------------------------------------------------------------------------------

/** A fresh buffer behind a descriptor. */
export function rx_post(q: nic_queue, slot: number, skb: sk_buff): void {
  i32[(q.rx_skb >> 2) + slot] = skb.addr
  i32[(q.rx_ring + (slot << DESC_SHIFT) + DESC_ADDR) >> 2] = skb.data
}

/** nic_clean_rx - take up to `limit` frames out of the ring and hand them on. @returns frames taken */
function nic_clean_rx(q: nic_queue, limit: number): number {
  const done = load(q.regs + Q_RX_DONE)
  const arch = q.arch
  let next = q.rx_next
  let work = 0
  let packets = 0
  let bytes = 0
  while (work < limit && next !== done) {
    tick(COST_RX)
    const slot = next & q.rx_mask
    const desc = (q.rx_ring + (slot << DESC_SHIFT)) >> 2
    const skb = SKB.ref(i32[(q.rx_skb >> 2) + slot])
    next = (next + 1) | 0
    q.rx_next = next
    work++
    fate_received()
    const len = i32[desc + (DESC_LEN >> 2)]
    const fresh = dev_alloc_skb(q.pio_ns === 0 ? q.rx_buf : len)
    if (fresh === null) {
      q.rx_dropped++
      fate_dropped(ACCT_RX, RX_NO_MEMORY) // its buffer goes back into the ring
      rx_post(q, slot, skb)
      continue
    }
    packets++
    bytes += len
    if (q.pio_ns === 0) rx_post(q, slot, fresh)
    else pio_copy(q, fresh.data, skb.data, len) // the buffer is the card's and stays where it is
    nic_rx_one(q, q.pio_ns === 0 ? skb : fresh, len, i32[desc + (DESC_FLAGS >> 2)], arch)
  }
  q.rx_packets += packets
  q.rx_bytes += bytes
  if (work > 0) doorbell(q.regs + Q_RX_TAIL, (next + q.rx_mask + 1) | 0)
  WRITE_ONCE(irq_line(q.irq) + LINE_RX_ACK, next)
  return work
}

/** nic_rx_batch - as nic_clean_rx, but what arrives meanwhile belongs to it: it ends with an empty ring, or at the limit. */
function nic_rx_batch(q: nic_queue, limit: number): number {
  let work = 0
  for (;;) {
    const n = nic_clean_rx(q, Math.min(limit - work, RX_BATCH))
    work += n
    if (n === 0 || work >= limit) return work
  }
}
/** Descriptors that go back to the device at once. */
const RX_BATCH = 16

/** Programmed I/O: the CPU moves the bytes between the card and memory, and that takes as long as the bus takes. */
function pio_copy(q: nic_queue, to: number, from: number, len: number): void {
  memcpy(to, from, len)
  burn(((len + 3) >> 2) * q.pio_ns)
}

/** One frame up, by the receive architecture of this machine. */
function nic_rx_one(q: nic_queue, skb: sk_buff, len: number, flags: number, arch: number): void {
  const dev = q.dev!
  skb.acct = ACCT_RX
  skb.dev = dev
  skb_put(skb, len)
  if (len < 14) {
    kfree_skb(skb, ETH_RUNT)
    return
  }
  skb.protocol = eth_type_trans(skb, dev)
  if ((flags & RX_CSUM_L4) !== 0) skb.ip_summed = CHECKSUM_UNNECESSARY
  if (arch === RX_NAPI || arch === RX_POLLED) netif_receive_skb(skb)
  else if (arch === RX_INTERRUPT) schednetisr_ip(skb)
  else netif_rx(skb)
}

// ---- transmit -------------------------------------------------------------------------------------------------------

/** nic_clean_tx - free what the device has sent, `limit` frames at most. @returns frames freed */
export function nic_clean_tx(q: nic_queue, limit = 0x7fffffff): number {
  const done = load(q.regs + Q_TX_DONE)
  let at = q.tx_clean
  if (at === done) return 0
  let frames = 0
  while (at !== done && frames < limit) {
    const slot = (q.tx_skb >> 2) + (at & q.tx_mask)
    const skb = i32[slot]
    if (skb !== 0) {
      charge_cost(COST_TX)
      i32[slot] = 0
      frames++
      dev_kfree_skb_any(SKB.ref(skb))
    }
    at = (at + 1) | 0
  }
  WRITE_ONCE(irq_line(q.irq) + LINE_TX_ACK, at)
  store(q.addr + TX_CLEAN, at)
  const dev = q.dev!
  if (netif_queue_stopped(dev) && tx_room_now(q) >= TX_WAKE && netif_running(dev) && netif_wake_queue_test(dev))
    __netif_schedule(dev)
  return frames
}

/** Free descriptors. A plain look: the queue may have been cleaned since, so there is at least this much room. */
function tx_room(q: nic_queue): number {
  return q.tx_mask + 1 - ((q.tx_next - READ_ONCE(q.addr + TX_CLEAN)) | 0)
}
/** The same after XOFF was set: either this sees the cleaning, or the cleaner sees XOFF. */
function tx_room_now(q: nic_queue): number {
  return q.tx_mask + 1 - ((q.tx_next - load(q.addr + TX_CLEAN)) | 0)
}

function tx_desc(q: nic_queue, at: number, addr: number, len: number, flags: number, info: number): void {
  const desc = (q.tx_ring + ((at & q.tx_mask) << DESC_SHIFT)) >> 2
  i32[desc + (DESC_ADDR >> 2)] = addr
  i32[desc + (DESC_LEN >> 2)] = len
  i32[desc + (DESC_FLAGS >> 2)] = flags
  i32[desc + (DESC_INFO >> 2)] = info
}

/** nic_xmit_frame - hard_start_xmit. @context softirq, process @locks xmit_lock is held @consumes skb unless BUSY */
function nic_xmit_frame(skb: sk_buff, dev: net_device): number {
  tick(COST_XMIT)
  const q = queue_of(ADAPTER.ref(dev.priv), 0)
  const nr_frags = skb.data_len === 0 || q.pio_ns !== 0 ? 0 : skb_shinfo(skb).nr_frags
  if (tx_room(q) < nr_frags + 1) {
    netif_stop_queue(dev)
    if (tx_room_now(q) < nr_frags + 1) return NETDEV_TX_BUSY
    netif_start_queue(dev) // it was cleaned in between
  }
  let at = q.tx_next
  let flags = 0
  let info = 0
  if (skb.ip_summed === CHECKSUM_HW) {
    flags = TX_CSUM
    info = ((skb.h - skb.data) << 16) | (skb.h - skb.data + skb.csum)
  }
  if (q.pio_ns !== 0) {
    pio_xmit(q, at, skb, flags, info)
    return NETDEV_TX_OK
  }
  tx_desc(q, at, skb.data, skb_headlen(skb), nr_frags === 0 ? flags | TX_EOP : flags, info)
  for (let k = 0; k < nr_frags; k++) {
    const f = (skb_shinfo(skb).frags >> 2) + k * 3
    at = (at + 1) | 0
    tx_desc(q, at, i32[f] + i32[f + 1], i32[f + 2], k === nr_frags - 1 ? flags | TX_EOP : flags, info)
  }
  i32[(q.tx_skb >> 2) + (at & q.tx_mask)] = skb.addr
  tx_posted(q, dev, skb.len, (at + 1) | 0)
  return NETDEV_TX_OK
}

/** Programmed I/O: the frame is copied to the card, whatever it lies in, and its packet is free at once. */
function pio_xmit(q: nic_queue, at: number, skb: sk_buff, flags: number, info: number): void {
  const card = SKB.ref(i32[(q.tx_card >> 2) + (at & q.tx_mask)]).data
  const { len } = skb
  skb_copy_bits(skb, 0, card, len)
  burn(((len + 3) >> 2) * q.pio_ns)
  tx_desc(q, at, card, len, flags | TX_EOP, info)
  tx_posted(q, q.dev!, len, (at + 1) | 0)
  dev_kfree_skb_any(skb)
}

/** Tell the device, and stop the queue when the next packet might not fit. */
function tx_posted(q: nic_queue, dev: net_device, len: number, next: number): void {
  q.tx_packets++
  q.tx_bytes += len
  q.tx_next = next
  dev.trans_start = jiffies()
  doorbell(q.regs + Q_TX_TAIL, next)
  if (tx_room(q) < TX_WAKE) {
    netif_stop_queue(dev)
    if (tx_room_now(q) >= TX_WAKE) netif_start_queue(dev)
  }
}

/** nic_tx_timeout - the queue has been stopped for too long: ring the doorbell once more, look at the ring. @locks xmit_lock */
function nic_tx_timeout(dev: net_device): void {
  const q = queue_of(ADAPTER.ref(dev.priv), 0)
  q.tx_errors++
  doorbell(q.regs + Q_TX_TAIL, q.tx_next)
  line_enable(q.irq, CAUSE_RX | CAUSE_TX) // an interrupt that was lost comes now
}

// ---- interrupt and poll ---------------------------------------------------------------------------------------------

/** nic_interrupt - `interrupt` and `softnet` take packets here; `napi` masks the line and has itself polled. @context hardirq */
function nic_interrupt(irq: number, dev_id: number): number {
  charge_cost(COST_INTERRUPT)
  const q = QUEUE.ref(dev_id)
  if (q.arch === RX_POLLED) {
    line_enable(irq, 0)
    kpoll_schedule()
    return 1
  }
  if (q.arch === RX_NAPI) {
    if (netif_rx_schedule_prep(q.poll_dev!)) {
      line_enable(irq, 0)
      __netif_rx_schedule(q.poll_dev!)
    } else if (!netif_running(q.dev!)) line_enable(irq, 0) // it is being closed: nobody would take the level down
    return 1
  }
  nic_clean_tx(q)
  nic_rx_batch(q, q.irq_work)
  return 1
}

/** nic_poll - the napi poll of one queue. @context softirq @returns 0 when it left the poll list */
function nic_poll(poll_dev: net_device, budget: int_ref): number {
  tick(COST_POLL)
  const q = QUEUE.ref(poll_dev.priv)
  const allowed = Math.min(budget.value, poll_dev.quota)
  nic_clean_tx(q)
  const work = nic_clean_rx(q, allowed)
  budget.value -= work
  poll_dev.quota -= work
  if (work >= allowed && netif_running(q.dev!)) return 1
  const flags = local_irq_save()
  __netif_rx_complete(poll_dev)
  // Unmasking looks at the level, so a frame that came after the ring was seen empty interrupts at once: nothing rots.
  if (netif_running(q.dev!)) line_enable(q.irq, CAUSE_RX | CAUSE_TX)
  local_irq_restore(flags)
  return 0
}

// ---- callbacks of the polling thread (kpoll.ts) -----------------------------------------------------------------------

/** A queue is its thread's from the end of its open on; nic_close waits for a round that has seen it so. */
function polled(q: nic_queue): boolean {
  return netif_running(q.poll_dev!)
}

const kpoll_ops: poll_ops = {
  receive(dev, quota) {
    const q = QUEUE.ref(dev)
    if (!polled(q)) return 0
    let work = 0
    while (work < quota && !input_inhibited() && nic_clean_rx(q, 1) > 0) work++
    return work
  },
  transmit(dev, quota) {
    const q = QUEUE.ref(dev)
    return polled(q) ? nic_clean_tx(q, quota) : 0
  },
  pending(dev, input) {
    const q = QUEUE.ref(dev)
    if (!polled(q)) return false
    return (input && load(q.regs + Q_RX_DONE) !== q.rx_next) || load(q.regs + Q_TX_DONE) !== q.tx_clean
  },
  enable(dev, input) {
    const q = QUEUE.ref(dev)
    if (polled(q)) line_enable(q.irq, input ? CAUSE_RX | CAUSE_TX : CAUSE_TX)
  },
}
export const kpoll_ops_sym = symbol('nic_kpoll_ops', kpoll_ops)

export const nic_interrupt_sym = symbol('nic_interrupt', nic_interrupt)
export const nic_poll_sym = symbol('nic_poll', nic_poll)
export const nic_tx_timeout_sym = symbol('nic_tx_timeout', nic_tx_timeout)
export const nic_xmit_frame_sym = symbol('nic_xmit_frame', nic_xmit_frame)
