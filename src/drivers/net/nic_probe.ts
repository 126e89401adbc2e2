import { symbol } from '../../abi/symbol.js'
import { fetch_and, fetch_or, load, READ_ONCE, store } from '../../arch/atomic.js'
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
import { config, hz, num_cpus } from '../../arch/machine.js'
import {
  CTRL_SERIAL,
  CTRL_UP,
  DESC_SHIFT,
  doorbell,
  NIC_CTRL,
  NIC_ITR_FRAMES,
  NIC_ITR_NS,
  NIC_LINK,
  NIC_MAC_HI,
  NIC_MAC_LO,
  NIC_OFFLOAD,
  NIC_PROMISC,
  NIC_QUEUES,
  NIC_STATUS,
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
  STAT_RX_MISSED,
  STAT_RX_OVERSIZE,
  STAT_RX_RUNT,
  STATUS_GONE,
} from '../../arch/nic_regs.js'
import { RAM } from '../../arch/ram.js'
import { free_irq, request_irq, SA_SHIRQ } from '../../irq/interrupt.js'
import { del_timer_sync, init_timer, jiffies, mod_timer, msleep } from '../../irq/timer.js'
import { ENOMEM } from '../../lib/errno.js'
import { MAX_NICS, NR_IRQS, RX_RING, TX_RING } from '../../lib/limits.js'
import { kfree, kmalloc } from '../../mm/kmalloc.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import { RX_POLLED } from '../../net/core/dev.js'
import { ether_setup } from '../../net/core/eth.js'
import { drop_reason, fate_dropped, fate_received } from '../../net/core/fate.js'
import { kpoll_register, kpoll_unregister } from '../../net/core/kpoll.js'
import { netif_carrier_off, netif_carrier_on } from '../../net/core/link_watch.js'
import {
  alloc_netdev,
  free_netdev,
  netif_poll_disable,
  netif_poll_enable,
  netif_start_queue,
  netif_stop_queue,
  register_netdevice,
} from '../../net/core/netdevice.js'
import { consume_skb, dev_alloc_skb, kfree_skb, skb_capacity } from '../../net/core/skbuff.js'
import {
  ACCT_RX,
  IFF_PROMISC,
  LINK_STATE_START,
  NETDEV,
  NETIF_F_HW_CSUM,
  NETIF_F_SG,
  type net_device,
  SKB,
} from '../../net/core/types.js'

import { synchronize_kernel } from '../../rcu/rcupdate.js'
import {
  ADAPTER,
  kpoll_ops_sym,
  nic_clean_tx,
  nic_interrupt_sym,
  nic_poll_sym,
  type nic_queue,
  nic_tx_timeout_sym,
  nic_xmit_frame_sym,
  QUEUE,
  queue_of,
  rx_post,
} from './nic.js'

const i32 = RAM.i32

const queue_cache = kmem_cache_create('nic_queue', QUEUE, () => NR_IRQS)
const adapter_cache = kmem_cache_create('nic_adapter', ADAPTER, () => MAX_NICS)
const SHUTDOWN = drop_reason('shutdown')
const STATE = NETDEV.offset('state')
/** A packet in pages needs that many descriptors, and the queue goes on when as many are free. */
const MIN_TX_RING = 32
/** Transmit interrupts only free what was sent, so they may wait, ns: e1000's default. */
const TIDV_NS = 64_000

// ---- open and close -------------------------------------------------------------------------------------------------

/**
 * Ring sizes: as configured, but the rings of all queues together hold no more than half of the buffers that the machine has
 * of their size (with the card's own transmit buffers: a quarter each). The rest is for packets on their way.
 */
function size_rings(q: nic_queue): void {
  const half = skb_capacity(q.rx_buf) / 2
  const ports = Math.max(1, config('nports'))
  const share = half / ports / Math.max(1, config('nqueues'))
  let rx_size = config('rx_ring') || RX_RING
  let tx_size = config('tx_ring') || TX_RING
  while (rx_size > 1 && rx_size > (q.pio_ns === 0 ? share : share / 2)) rx_size >>= 1
  if (q.pio_ns !== 0) while (tx_size > MIN_TX_RING && tx_size > half / 2 / ports) tx_size >>= 1
  q.rx_mask = rx_size - 1
  q.tx_mask = tx_size - 1
}

function queue_open(q: nic_queue): number {
  size_rings(q)
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
  if (q.pio_ns !== 0 && q.index === 0 && !card_open(q)) return -ENOMEM
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
  store(line + LINE_CPU, config('irq_affinity') === 1 ? 0 : (q.nic + q.index) % num_cpus())
  const err = request_irq(q.irq, nic_interrupt_sym, SA_SHIRQ, q.addr)
  if (err === 0) store(line + LINE_WIRED, 1)
  return err
}

/** The line goes dead: no CPU is in its handler any more when this returns. */
function queue_unwire(q: nic_queue): void {
  line_enable(q.irq, 0)
  store(irq_line(q.irq) + LINE_WIRED, 0)
  free_irq(q.irq, q.addr)
}

/** Programmed I/O: the card's own transmit buffers. */
function card_open(q: nic_queue): boolean {
  q.tx_card = kmalloc((q.tx_mask + 1) * 4)
  if (q.tx_card === 0) return false
  for (let slot = 0; slot <= q.tx_mask; slot++) {
    const skb = dev_alloc_skb(q.rx_buf)
    if (skb === null) return false
    i32[(q.tx_card >> 2) + slot] = skb.addr
  }
  return true
}

/** Packets that hold nothing, by an array of addresses. */
function free_buffers(array: number, mask: number): void {
  if (array === 0) return
  for (let slot = 0; slot <= mask; slot++) {
    const skb = i32[(array >> 2) + slot]
    if (skb !== 0) consume_skb(SKB.ref(skb))
  }
}

/** Frames that nobody will take, and frames that will not be sent: they are dropped. */
function queue_purge(q: nic_queue): void {
  for (const done = load(q.regs + Q_RX_DONE); q.rx_next !== done; q.rx_next = (q.rx_next + 1) | 0) {
    fate_received()
    fate_dropped(ACCT_RX, SHUTDOWN)
  }
  nic_clean_tx(q)
  for (let slot = 0; slot <= q.tx_mask; slot++) {
    const skb = i32[(q.tx_skb >> 2) + slot]
    if (skb !== 0) kfree_skb(SKB.ref(skb), SHUTDOWN)
  }
}

/** Queue resources back, in whatever state the open left them. */
function queue_close(q: nic_queue): void {
  free_buffers(q.rx_skb, q.rx_mask)
  free_buffers(q.tx_card, q.tx_mask)
  for (const addr of [q.rx_ring, q.tx_ring, q.rx_skb, q.tx_skb, q.tx_card]) if (addr !== 0) kfree(addr)
  q.rx_ring = 0
  q.tx_ring = 0
  q.rx_skb = 0
  q.tx_skb = 0
  q.tx_card = 0
}

/** Each write of NIC_CTRL is another number. @returns what NIC_STATUS will be once the device has obeyed */
function write_ctrl(page: number, flags: number): number {
  const ctrl = ((i32[(page + NIC_CTRL) >> 2] & ~CTRL_UP) + CTRL_SERIAL) | flags
  doorbell(page + NIC_CTRL, ctrl)
  return ctrl
}

/** nic_set_multicast_list - frames of all groups come in as it is; all others too if somebody wants them. @locks rtnl is held */
function nic_set_multicast_list(dev: net_device): void {
  const adapter = ADAPTER.ref(dev.priv)
  const all = adapter.promisc !== 0 || (dev.flags & IFF_PROMISC) !== 0
  doorbell(nic_page(adapter.nic) + NIC_PROMISC, all ? 1 : 0)
}
const nic_set_multicast_list_sym = symbol('nic_set_multicast_list', nic_set_multicast_list)

function nic_open(dev: net_device): number {
  const adapter = ADAPTER.ref(dev.priv)
  const page = nic_page(adapter.nic)
  for (let k = 0; k < adapter.nqueues; k++) {
    const q = queue_of(adapter, k)
    q.rx_buf = Math.max(1518, dev.mtu + 18)
    const err = queue_open(q)
    if (err !== 0) {
      queue_close(q)
      while (--k >= 0) {
        queue_unwire(queue_of(adapter, k))
        queue_close(queue_of(adapter, k))
      }
      return err
    }
  }
  i32[(page + NIC_MAC_HI) >> 2] = dev.dev_addr_hi
  i32[(page + NIC_MAC_LO) >> 2] = dev.dev_addr_lo << 16
  i32[(page + NIC_QUEUES) >> 2] = adapter.nqueues
  nic_set_multicast_list(dev)
  i32[(page + NIC_OFFLOAD) >> 2] = OFF_RX_CSUM | OFF_TX_CSUM
  i32[(page + NIC_ITR_NS) >> 2] = config('itr_ns')
  i32[(page + NIC_ITR_FRAMES) >> 2] = config('itr_frames')
  const tidv = config('tidv_ns')
  i32[(page + NIC_TIDV_NS) >> 2] = tidv < 0 ? 0 : tidv || TIDV_NS
  write_ctrl(page, CTRL_UP)
  for (let k = 0; k < adapter.nqueues; k++) {
    const q = queue_of(adapter, k)
    fetch_or(q.poll_dev!.addr + STATE, LINK_STATE_START)
    line_enable(q.irq, CAUSE_RX | CAUSE_TX)
  }
  netif_start_queue(dev)
  if (config('link_ms') !== 0) nic_watchdog(dev.addr)
  return 0
}

/** nic_watchdog - is there a carrier? Asked now and then, as the drivers of 2.6.11 ask their PHY. @context timer, process */
function nic_watchdog(addr: number): void {
  const dev = NETDEV.ref(addr)
  const adapter = ADAPTER.ref(dev.priv)
  if (READ_ONCE(nic_page(adapter.nic) + NIC_LINK) !== 0) netif_carrier_on(dev)
  else netif_carrier_off(dev)
  mod_timer(adapter.watchdog, (jiffies() + Math.max(1, Math.floor((config('link_ms') * hz()) / 1000))) | 0)
}
const nic_watchdog_sym = symbol('nic_watchdog', nic_watchdog)

/**
 * nic_close - the device is not running any more, so nobody transmits. Sleeps until the polls have ended and the NIC has let
 * go of the rings. @context process
 */
function* nic_close(dev: net_device): Generator<void, void, void> {
  const adapter = ADAPTER.ref(dev.priv)
  const page = nic_page(adapter.nic)
  netif_stop_queue(dev)
  if (config('link_ms') !== 0) del_timer_sync(adapter.watchdog)
  const ctrl = write_ctrl(page, 0)
  for (let k = 0; k < adapter.nqueues; k++) {
    const q = queue_of(adapter, k)
    line_enable(q.irq, 0)
    fetch_and(q.poll_dev!.addr + STATE, ~LINK_STATE_START)
    yield* netif_poll_disable(q.poll_dev!)
  }
  let status = load(page + NIC_STATUS)
  if (config('rx_arch') === RX_POLLED && status !== STATUS_GONE) yield* synchronize_kernel() // the thread's round has ended
  for (; status !== ctrl && status !== STATUS_GONE; status = load(page + NIC_STATUS)) yield* msleep(1)
  for (let k = 0; k < adapter.nqueues; k++) {
    const q = queue_of(adapter, k)
    queue_unwire(q)
    netif_poll_enable(q.poll_dev!)
    queue_purge(q)
    queue_close(q)
  }
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

const nic_open_sym = symbol('nic_open', nic_open)
const nic_close_sym = symbol('nic_close', nic_close)
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
const IRQ_WORK = [1, 10, 0, 0]

function make_queue(nic: number, index: number, dev: net_device, name: string): nic_queue | null {
  const q = kmem_cache_alloc(queue_cache)
  const poll_dev = alloc_netdev(`${name}-poll`)
  if (q === null || poll_dev === null) {
    if (q !== null) kmem_cache_free(queue_cache, q)
    if (poll_dev !== null) free_netdev(poll_dev)
    return null
  }
  i32.fill(0, q.$w, q.$w + (QUEUE.size >> 2))
  const arch = config('rx_arch')
  q.nic = nic
  q.index = index
  q.irq = nic * config('nqueues') + index
  q.regs = queue_regs(nic, index)
  q.dev = dev
  q.poll_dev = poll_dev
  q.arch = arch
  q.pio_ns = config('pio_ns')
  q.irq_work = config('irq_work') || IRQ_WORK[arch]
  poll_dev.poll = nic_poll_sym
  poll_dev.weight = 64
  poll_dev.priv = q.addr
  if (arch === RX_POLLED) kpoll_register(kpoll_ops_sym, q.addr)
  return q
}
function free_queue(q: nic_queue): void {
  if (q.arch === RX_POLLED) kpoll_unregister(q.addr)
  free_netdev(q.poll_dev!)
  kmem_cache_free(queue_cache, q)
}

/** nic_free - @context process @consumes dev, which is not registered, and which nobody refers to */
export function nic_free(dev: net_device): void {
  const adapter = ADAPTER.ref(dev.priv)
  for (let k = 0; k < adapter.nqueues; k++) free_queue(queue_of(adapter, k))
  kmem_cache_free(adapter_cache, adapter)
  free_netdev(dev)
}

/** nic_probe - found a NIC: make a device of it and register it. @context boot @locks rtnl is held @returns device, or null */
export function nic_probe(nic: number, options: NicOptions): net_device | null {
  const dev = alloc_netdev(options.name)
  const adapter = kmem_cache_alloc(adapter_cache)
  if (dev === null || adapter === null) {
    if (dev !== null) free_netdev(dev)
    if (adapter !== null) kmem_cache_free(adapter_cache, adapter)
    return null
  }
  adapter.nic = nic
  adapter.nqueues = 0
  adapter.promisc = options.promisc ? 1 : 0
  ether_setup(dev, options.mac_hi, options.mac_lo)
  dev.mtu = options.mtu
  dev.priv = adapter.addr
  init_timer(adapter.watchdog, nic_watchdog_sym, dev.addr)
  dev.features = NETIF_F_SG | NETIF_F_HW_CSUM
  dev.open = nic_open_sym
  dev.stop = nic_close_sym
  dev.hard_start_xmit = nic_xmit_frame_sym
  dev.set_multicast_list = nic_set_multicast_list_sym
  dev.get_stats = nic_get_stats_sym
  dev.tx_timeout = nic_tx_timeout_sym
  for (let k = 0; k < options.nqueues; k++) {
    const q = make_queue(nic, k, dev, options.name)
    if (q === null) {
      nic_free(dev)
      return null
    }
    i32[(adapter.queues >> 2) + k] = q.addr
    adapter.nqueues = k + 1
  }
  i32[(nic_page(nic) + NIC_LINK) >> 2] = 1
  if (register_netdevice(dev) === 0) return dev
  nic_free(dev)
  return null
}
