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
import { konst, type Layout, layout, own, ptr, Struct, word } from '../../abi/layout.js'
import { symbol } from '../../abi/symbol.js'
import { fetch_or, load, store } from '../../arch/atomic.js'
import { local_irq_restore, local_irq_save, tick } from '../../arch/cpu.js'
import {
  CAUSE_RX,
  CAUSE_TX,
  irq_line,
  LINE_CPU,
  LINE_RX_ACK,
  LINE_RX_HEAD,
  LINE_TX_ACK,
  LINE_TX_HEAD,
  LINE_WIRED,
  line_enable,
} from '../../arch/irqchip.js'
import { config, num_cpus } from '../../arch/machine.js'
import {
  CTRL_UP,
  DESC_ADDR,
  DESC_FLAGS,
  DESC_INFO,
  DESC_LEN,
  DESC_SHIFT,
  NIC_CTRL,
  NIC_ITR_NS,
  NIC_LINK,
  NIC_MAC_HI,
  NIC_MAC_LO,
  NIC_OFFLOAD,
  NIC_PROMISC,
  NIC_QUEUES,
  NIC_TIDV_NS,
  nic_page,
  OFF_RX_CSUM,
  OFF_TX_CSUM,
  Q_IRQ,
  Q_RX_BASE,
  Q_RX_BUF,
  Q_RX_DONE,
  Q_RX_SIZE,
  Q_RX_TAIL,
  Q_TX_BASE,
  Q_TX_DONE,
  Q_TX_SIZE,
  Q_TX_TAIL,
  queue_consts,
  queue_regs,
  RX_CSUM_L4,
  STAT_RX_MISSED,
  STAT_RX_OVERSIZE,
  STAT_RX_RUNT,
  TX_CSUM,
  TX_EOP,
} from '../../arch/nic_regs.js'
import { RAM } from '../../arch/ram.js'
import { free_irq, request_irq } from '../../irq/interrupt.js'
import { ENOMEM } from '../../lib/errno.js'
import { MAX_NICS, MAX_QUEUES, MAX_SKB_FRAGS, RX_RING, TX_RING } from '../../lib/limits.js'
import { kfree, kmalloc } from '../../mm/kmalloc.js'
import { kmem_cache_alloc, kmem_cache_create } from '../../mm/slab.js'
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
  schednetisr_ip,
} from '../../net/core/dev.js'
import { eth_type_trans, ether_setup } from '../../net/core/eth.js'
import { drop_reason, fate_dropped, fate_received } from '../../net/core/fate.js'
import {
  alloc_netdev,
  netif_queue_stopped,
  netif_running,
  netif_start_queue,
  netif_stop_queue,
  netif_wake_queue_test,
  register_netdevice,
} from '../../net/core/netdevice.js'
import { dev_alloc_skb, kfree_skb, skb_headlen, skb_put, skb_shinfo } from '../../net/core/skbuff.js'
import {
  ACCT_RX,
  CHECKSUM_HW,
  CHECKSUM_UNNECESSARY,
  type int_ref,
  LINK_STATE_START,
  NETDEV,
  NETDEV_TX_BUSY,
  NETDEV_TX_OK,
  NETIF_F_HW_CSUM,
  NETIF_F_SG,
  type net_device,
  SKB,
  type sk_buff,
} from '../../net/core/types.js'

const i32 = RAM.i32

class nic_queue extends Struct {
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
const QUEUE: Layout<nic_queue> = layout('nic_queue', nic_queue, {
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
const queue_cache = kmem_cache_create('nic_queue', QUEUE, () => MAX_QUEUES)
const TX_CLEAN = QUEUE.offset('tx_clean')

class nic_adapter extends Struct {
  declare nic: number
  declare nqueues: number
  declare promisc: number
  declare queues: number
}
const ADAPTER: Layout<nic_adapter> = layout('nic_adapter', nic_adapter, {
  nic: konst(word),
  nqueues: konst(word),
  promisc: konst(word),
  queues: konst({ kind: 'bytes', size: MAX_QUEUES * 4, align: 4 }), // addresses
})
const adapter_cache = kmem_cache_create('nic_adapter', ADAPTER, () => MAX_NICS)

const RX_NO_MEMORY = drop_reason('rx_no_memory')
const SHUTDOWN = drop_reason('shutdown')
const ETH_RUNT = drop_reason('eth_runt')
/** Transmit interrupts only free what was sent, so they may wait, ns: e1000's default. */
const TIDV_NS = 64_000
/** Free descriptors before a stopped queue goes on. */
const TX_WAKE = MAX_SKB_FRAGS + 2

function queue_of(adapter: nic_adapter, index: number): nic_queue {
  return QUEUE.ref(i32[(adapter.queues >> 2) + index])
}

// ---- receive --------------------------------------------------------------------------------------------------------

/** A fresh buffer behind a descriptor. */
function rx_post(q: nic_queue, slot: number, skb: sk_buff): void {
  i32[(q.rx_skb >> 2) + slot] = skb.addr
  i32[(q.rx_ring + (slot << DESC_SHIFT) + DESC_ADDR) >> 2] = skb.data
}

/** nic_clean_rx - take up to `limit` frames out of the ring and hand them on. @returns frames taken */
function nic_clean_rx(q: nic_queue, limit: number): number {
  const done = load(q.regs + Q_RX_DONE)
  const arch = q.arch
  let next = q.rx_next
  let work = 0
  while (work < limit && next !== done) {
    tick(300)
    const slot = next & q.rx_mask
    const desc = (q.rx_ring + (slot << DESC_SHIFT)) >> 2
    const skb = SKB.ref(i32[(q.rx_skb >> 2) + slot])
    next = (next + 1) | 0
    q.rx_next = next
    work++
    fate_received()
    const fresh = dev_alloc_skb(q.rx_buf)
    if (fresh === null) {
      q.rx_dropped++
      fate_dropped(ACCT_RX, RX_NO_MEMORY) // its buffer goes back into the ring
      rx_post(q, slot, skb)
      continue
    }
    rx_post(q, slot, fresh)
    const len = i32[desc + (DESC_LEN >> 2)]
    q.rx_packets++
    q.rx_bytes += len
    nic_rx_one(q, skb, len, i32[desc + (DESC_FLAGS >> 2)], arch)
  }
  if (work > 0) store(q.regs + Q_RX_TAIL, (next + q.rx_mask + 1) | 0)
  i32[(irq_line(q.irq) + LINE_RX_ACK) >> 2] = next
  return work
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
  if (arch === RX_NAPI) netif_receive_skb(skb)
  else if (arch === RX_INTERRUPT) schednetisr_ip(skb)
  else netif_rx(skb)
}

// ---- transmit -------------------------------------------------------------------------------------------------------

/** nic_clean_tx - free what the device has sent. @returns frames freed */
function nic_clean_tx(q: nic_queue): number {
  const done = load(q.regs + Q_TX_DONE)
  let at = q.tx_clean
  if (at === done) return 0
  let frames = 0
  while (at !== done) {
    const slot = (q.tx_skb >> 2) + (at & q.tx_mask)
    const skb = i32[slot]
    if (skb !== 0) {
      i32[slot] = 0
      frames++
      dev_kfree_skb_any(SKB.ref(skb))
    }
    at = (at + 1) | 0
  }
  i32[(irq_line(q.irq) + LINE_TX_ACK) >> 2] = at
  store(q.addr + TX_CLEAN, at)
  const dev = q.dev!
  if (netif_queue_stopped(dev) && tx_room(q) >= TX_WAKE && netif_running(dev) && netif_wake_queue_test(dev))
    __netif_schedule(dev)
  return frames
}

function tx_room(q: nic_queue): number {
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
  tick(300)
  const q = queue_of(ADAPTER.ref(dev.priv), 0)
  const nr_frags = skb.data_len === 0 ? 0 : skb_shinfo(skb).nr_frags
  if (tx_room(q) < nr_frags + 1) {
    netif_stop_queue(dev)
    if (tx_room(q) < nr_frags + 1) return NETDEV_TX_BUSY
    netif_start_queue(dev) // it was cleaned in between
  }
  let at = q.tx_next
  let flags = 0
  let info = 0
  if (skb.ip_summed === CHECKSUM_HW) {
    flags = TX_CSUM
    info = ((skb.h - skb.data) << 16) | (skb.h - skb.data + skb.csum)
  }
  tx_desc(q, at, skb.data, skb_headlen(skb), nr_frags === 0 ? flags | TX_EOP : flags, info)
  for (let k = 0; k < nr_frags; k++) {
    const f = (skb_shinfo(skb).frags >> 2) + k * 3
    at = (at + 1) | 0
    tx_desc(q, at, i32[f] + i32[f + 1], i32[f + 2], k === nr_frags - 1 ? flags | TX_EOP : flags, info)
  }
  i32[(q.tx_skb >> 2) + (at & q.tx_mask)] = skb.addr
  q.tx_packets++
  q.tx_bytes += skb.len
  q.tx_next = (at + 1) | 0
  store(q.regs + Q_TX_TAIL, q.tx_next)
  if (tx_room(q) < TX_WAKE) {
    netif_stop_queue(dev)
    if (tx_room(q) >= TX_WAKE) netif_start_queue(dev)
  }
  return NETDEV_TX_OK
}

// ---- interrupt and poll ---------------------------------------------------------------------------------------------

/** nic_interrupt - `interrupt` and `softnet` take packets here; `napi` masks the line and has itself polled. @context hardirq */
function nic_interrupt(irq: number, dev_id: number): number {
  const q = QUEUE.ref(dev_id)
  if (q.arch === RX_NAPI) {
    if (netif_rx_schedule_prep(q.poll_dev!)) {
      line_enable(irq, 0)
      __netif_rx_schedule(q.poll_dev!)
    }
    return 1
  }
  nic_clean_tx(q)
  nic_clean_rx(q, q.irq_work)
  return 1
}

/** nic_poll - the napi poll of one queue. @context softirq @returns 0 when it left the poll list */
function nic_poll(poll_dev: net_device, budget: int_ref): number {
  tick(100)
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
  line_enable(q.irq, CAUSE_RX | CAUSE_TX)
  local_irq_restore(flags)
  return 0
}

// ---- open and close -------------------------------------------------------------------------------------------------

function queue_open(q: nic_queue): number {
  const rx_size = q.rx_mask + 1
  const tx_size = q.tx_mask + 1
  q.rx_ring = kmalloc(rx_size << DESC_SHIFT)
  q.tx_ring = kmalloc(tx_size << DESC_SHIFT)
  q.rx_skb = kmalloc(rx_size * 4)
  q.tx_skb = kmalloc(tx_size * 4)
  if (q.rx_ring === 0 || q.tx_ring === 0 || q.rx_skb === 0 || q.tx_skb === 0) return -ENOMEM
  q.rx_next = 0
  q.tx_next = 0
  q.tx_clean = 0
  for (let slot = 0; slot < rx_size; slot++) {
    const skb = dev_alloc_skb(q.rx_buf)
    if (skb === null) return -ENOMEM
    rx_post(q, slot, skb)
  }
  const c = queue_consts(q.nic, q.index) >> 2
  i32[c + (Q_RX_BASE >> 2)] = q.rx_ring
  i32[c + (Q_RX_SIZE >> 2)] = rx_size
  i32[c + (Q_TX_BASE >> 2)] = q.tx_ring
  i32[c + (Q_TX_SIZE >> 2)] = tx_size
  i32[c + (Q_IRQ >> 2)] = q.irq
  i32[c + (Q_RX_BUF >> 2)] = q.rx_buf
  for (const word of [Q_TX_TAIL, Q_RX_DONE, Q_TX_DONE]) store(q.regs + word, 0)
  store(q.regs + Q_RX_TAIL, rx_size)
  const line = irq_line(q.irq)
  for (const word of [LINE_RX_ACK, LINE_TX_ACK, LINE_RX_HEAD, LINE_TX_HEAD]) store(line + word, 0)
  store(line + LINE_CPU, (q.nic + q.index) % num_cpus())
  store(line + LINE_WIRED, 1)
  return request_irq(q.irq, nic_interrupt_sym, 'nic', q.addr)
}

/** Queue resources back, in whatever state the open left them. */
function queue_close(q: nic_queue): void {
  if (q.rx_skb !== 0) {
    for (let slot = 0; slot <= q.rx_mask; slot++) {
      const skb = i32[(q.rx_skb >> 2) + slot]
      if (skb !== 0) kfree_skb(SKB.ref(skb), SHUTDOWN)
    }
  }
  if (q.tx_skb !== 0) {
    for (let slot = 0; slot <= q.tx_mask; slot++) {
      const skb = i32[(q.tx_skb >> 2) + slot]
      if (skb !== 0) kfree_skb(SKB.ref(skb), SHUTDOWN)
    }
  }
  for (const addr of [q.rx_ring, q.tx_ring, q.rx_skb, q.tx_skb]) if (addr !== 0) kfree(addr)
  q.rx_ring = 0
  q.tx_ring = 0
  q.rx_skb = 0
  q.tx_skb = 0
}

function nic_open(dev: net_device): number {
  const adapter = ADAPTER.ref(dev.priv)
  const page = nic_page(adapter.nic)
  for (let k = 0; k < adapter.nqueues; k++) {
    const q = queue_of(adapter, k)
    q.rx_buf = Math.max(1536, dev.mtu + 18)
    const err = queue_open(q)
    if (err !== 0) {
      for (let j = 0; j <= k; j++) queue_close(queue_of(adapter, j))
      return err
    }
    fetch_or(q.poll_dev!.addr + NETDEV.offset('state'), LINK_STATE_START)
  }
  i32[(page + NIC_MAC_HI) >> 2] = dev.dev_addr_hi
  i32[(page + NIC_MAC_LO) >> 2] = dev.dev_addr_lo << 16
  i32[(page + NIC_QUEUES) >> 2] = adapter.nqueues
  i32[(page + NIC_PROMISC) >> 2] = adapter.promisc
  i32[(page + NIC_OFFLOAD) >> 2] = OFF_RX_CSUM | OFF_TX_CSUM
  i32[(page + NIC_ITR_NS) >> 2] = 0
  i32[(page + NIC_TIDV_NS) >> 2] = TIDV_NS
  store(page + NIC_CTRL, CTRL_UP)
  for (let k = 0; k < adapter.nqueues; k++) line_enable(queue_of(adapter, k).irq, CAUSE_RX | CAUSE_TX)
  netif_start_queue(dev)
  return 0
}

/** nic_close - the caller waits until no poll runs any more (the device is not running). */
function nic_close(dev: net_device): number {
  const adapter = ADAPTER.ref(dev.priv)
  store(nic_page(adapter.nic) + NIC_CTRL, 0)
  netif_stop_queue(dev)
  for (let k = 0; k < adapter.nqueues; k++) {
    const q = queue_of(adapter, k)
    line_enable(q.irq, 0)
    store(irq_line(q.irq) + LINE_WIRED, 0)
    free_irq(q.irq, q.addr)
    nic_clean_tx(q)
    queue_close(q)
  }
  return 0
}

/** nic_get_stats - words in the order of DEV_STATS at `stats`. */
function nic_get_stats(dev: net_device, stats: number): void {
  const adapter = ADAPTER.ref(dev.priv)
  const page = nic_page(adapter.nic) >> 2
  const w = stats >> 2
  i32.fill(0, w, w + 10)
  for (let k = 0; k < adapter.nqueues; k++) {
    const q = queue_of(adapter, k)
    i32[w] += q.rx_packets
    i32[w + 1] += q.rx_bytes
    i32[w + 3] += q.rx_dropped
    i32[w + 6] += q.tx_packets
    i32[w + 7] += q.tx_bytes
    i32[w + 8] += q.tx_errors
  }
  i32[w + 4] = i32[page + (STAT_RX_MISSED >> 2)]
  i32[w + 5] = i32[page + (STAT_RX_OVERSIZE >> 2)]
  i32[w + 2] = i32[w + 5] + i32[page + (STAT_RX_RUNT >> 2)]
}

const nic_interrupt_sym = symbol('nic_interrupt', nic_interrupt)
const nic_poll_sym = symbol('nic_poll', nic_poll)
const nic_open_sym = symbol('nic_open', nic_open)
const nic_close_sym = symbol('nic_close', nic_close)
const nic_xmit_frame_sym = symbol('nic_xmit_frame', nic_xmit_frame)
const nic_get_stats_sym = symbol('nic_get_stats', nic_get_stats)

export interface NicOptions {
  name: string
  /** Station address: first 4 bytes, last 2 bytes. */
  mac_hi: number
  mac_lo: number
  mtu: number
  nqueues: number
  promisc: boolean
}

/** Packets that one receive interrupt takes, when the configuration leaves it to the architecture. */
const IRQ_WORK = [1, 10, 0]

function make_queue(nic: number, index: number, dev: net_device, name: string): nic_queue | null {
  const q = kmem_cache_alloc(queue_cache)
  const poll_dev = alloc_netdev(`${name}-poll`)
  if (q === null || poll_dev === null) return null
  i32.fill(0, q.$w, q.$w + (QUEUE.size >> 2))
  const arch = config('rx_arch')
  q.nic = nic
  q.index = index
  q.irq = nic * config('nqueues') + index
  q.regs = queue_regs(nic, index)
  q.dev = dev
  q.poll_dev = poll_dev
  q.rx_mask = (config('rx_ring') || RX_RING) - 1
  q.tx_mask = (config('tx_ring') || TX_RING) - 1
  q.arch = arch
  q.irq_work = config('irq_work') || IRQ_WORK[arch]
  poll_dev.poll = nic_poll_sym
  poll_dev.weight = 64
  poll_dev.priv = q.addr
  return q
}

/** nic_probe - found a NIC: make a device of it and register it. @context boot @locks rtnl is held @returns device, or null */
export function nic_probe(nic: number, options: NicOptions): net_device | null {
  const dev = alloc_netdev(options.name)
  const adapter = kmem_cache_alloc(adapter_cache)
  if (dev === null || adapter === null) return null
  adapter.nic = nic
  adapter.nqueues = options.nqueues
  adapter.promisc = options.promisc ? 1 : 0
  ether_setup(dev, options.mac_hi, options.mac_lo)
  dev.mtu = options.mtu
  dev.priv = adapter.addr
  dev.features = NETIF_F_SG | NETIF_F_HW_CSUM
  dev.open = nic_open_sym
  dev.stop = nic_close_sym
  dev.hard_start_xmit = nic_xmit_frame_sym
  dev.get_stats = nic_get_stats_sym
  for (let k = 0; k < options.nqueues; k++) {
    const q = make_queue(nic, k, dev, options.name)
    if (q === null) return null
    i32[(adapter.queues >> 2) + k] = q.addr
  }
  i32[(nic_page(nic) + NIC_LINK) >> 2] = 1
  return register_netdevice(dev) === 0 ? dev : null
}
