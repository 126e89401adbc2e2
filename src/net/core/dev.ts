/**
 * dev.ts - the softnet core: how packets come up from devices and go down to them.
 *
 * Lock charter
 *   softnet_data belongs to its CPU and is touched with interrupts off (input_pkt_queue, ipintrq, poll_list,
 *   output_queue, completion_queue); nobody else touches it, so it has no lock.
 *   The lists of protocol handlers are RCU (packet_type.ts).
 *   queue_lock: a device's qdisc. xmit_lock: its hard_start_xmit. Never both: queue_lock is dropped before the driver is
 *   called, and xmit_lock is only tried while queue_lock is held (sch_generic.ts).
 *   A device is on at most one poll_list: whoever sets LINK_STATE_RX_SCHED owns its poll until netif_rx_complete.
 */

import { INIT_LIST_HEAD, list_add_tail, list_del_init, list_empty, list_move_tail } from '../../abi/list.js'
import { call, symbol } from '../../abi/symbol.js'
import { fetch_and, fetch_or, READ_ONCE, WRITE_ONCE } from '../../arch/atomic.js'
import { cost } from '../../arch/cost.js'
import {
  charge_cost,
  cpu_id,
  irqs_disabled,
  local_irq_disable,
  local_irq_enable,
  local_irq_restore,
  local_irq_save,
  tick,
} from '../../arch/cpu.js'
import { config } from '../../arch/machine.js'
import { RAM } from '../../arch/ram.js'
import {
  __raise_softirq_irqoff,
  NET_RX_SOFTIRQ,
  NET_TX_SOFTIRQ,
  open_softirq,
  raise_softirq_irqoff,
} from '../../irq/softirq.js'
import { jiffies } from '../../irq/timer.js'
import { ENOMEM } from '../../lib/errno.js'
import { IPQMAXLEN, WEIGHT_P } from '../../lib/limits.js'
import { rcu_dereference, rcu_read_lock, rcu_read_unlock } from '../../rcu/rcupdate.js'
import { local_bh_disable, local_bh_enable } from '../../sync/bh.js'
import { in_irq } from '../../sync/preempt.js'
import { spin_lock, spin_trylock, spin_unlock } from '../../sync/spinlock.js'
import { drop_reason, fate_dropped } from './fate.js'
import { dev_hold, dev_put, netif_queue_stopped, netif_running } from './netdevice.js'
import { skb_fit_device } from './offload.js'
import { PACKET_TYPE, PTYPE_BASE, type packet_type, ptype_init, ptypes } from './packet_type.js'
import { qdisc_run } from './sch_generic.js'
import { __skb_dequeue, __skb_queue_tail, skb_queue_head_init } from './skb_queue.js'
import { __skb_sent, consume_skb, kfree_skb, skb_get, skb_last_ref, skb_sent, skb_share_check } from './skbuff.js'
import { softnet_datas } from './softnet_data.js'
import { net_timestamp, netstamp_needed } from './stamp.js'
import { netdev_rx_stat } from './stats.js'
import { core_ctl } from './sysctl_net_core.js'
import { dev_queue_xmit_nit, netdev_nit } from './taps.js'
import {
  ACCT_NONE,
  CHECKSUM_HW,
  type int_ref,
  LINK_STATE_RX_SCHED,
  LINK_STATE_SCHED,
  LINK_STATE_START,
  NET_XMIT_DROP,
  NETDEV,
  NETDEV_TX_OK,
  NETIF_F_LLTX,
  type net_device,
  type sk_buff,
} from './types.js'

const COST_RECEIVE = cost('netif_receive_skb')
const COST_NETIF_RX = cost('netif_rx')
const COST_BACKLOG = cost('process_backlog')
const COST_IPINTRQ = cost('schednetisr_ip')
const COST_IPINTR = cost('ipintr')
const COST_RX_ACTION = cost('net_rx_action')
const COST_TX_ACTION = cost('net_tx_action')
const COST_XMIT = cost('dev_queue_xmit')

const i32 = RAM.i32
const NETSTAMP = netstamp_needed

// what netif_rx returns, and the congestion levels
export const NET_RX_SUCCESS = 0
export const NET_RX_DROP = 1
export const NET_RX_CN_LOW = 2
export const NET_RX_CN_MOD = 3
export const NET_RX_CN_HIGH = 4
export const NET_RX_BAD = 5

const queue = softnet_datas.mine

const stat = netdev_rx_stat.mine

const BACKLOG_FULL = drop_reason('backlog_full')
const IPINTRQ_FULL = drop_reason('ipintrq_full')
const UNKNOWN_PROTOCOL = drop_reason('eth_unknown_protocol')
const QUEUE_DEAD = drop_reason('dev_queue_dead')
const DEV_DOWN = drop_reason('dev_down')
const NO_MEMORY = drop_reason('no_memory')

// ---- receive: to the protocols ---------------------------------------------------------------------------------------

/** deliver_skb - to one of several handlers that is not the last: it gets a reference of its own. */
function deliver_skb(skb: sk_buff, dev: net_device, pt: packet_type): number {
  return call(pt.func)(skb_get(skb), dev, pt)
}

/**
 * deliver_all - to every tap and every handler of the protocol, who share the packet: each owns a reference, the last one
 * gets ours. The account goes to the last handler of the protocol, the others see a copy; if one of them keeps it, the
 * last gets a clone. @consumes skb
 */
function deliver_all(skb: sk_buff, dev: net_device, type: number): number {
  const { acct } = skb
  skb.acct = ACCT_NONE
  let pt_prev: packet_type | null = null
  for (let pt = PACKET_TYPE.at(rcu_dereference(ptypes.addr)); pt !== null; pt = pt.next) {
    if (pt.dev !== null && pt.dev !== dev) continue
    if (pt_prev !== null) deliver_skb(skb, dev, pt_prev)
    pt_prev = pt
  }
  let known = false
  for (let pt = PACKET_TYPE.at(rcu_dereference(PTYPE_BASE + (type & 15) * 4)); pt !== null; pt = pt.next) {
    if (pt.type !== type || (pt.dev !== null && pt.dev !== dev)) continue
    if (pt_prev !== null) deliver_skb(skb, dev, pt_prev)
    pt_prev = pt
    known = true
  }
  if (known) {
    const last = skb_share_check(skb)
    if (last !== null) {
      last.acct = acct
      return call(pt_prev!.func)(last, dev, pt_prev!)
    }
    fate_dropped(acct, NO_MEMORY)
    return NET_RX_DROP
  }
  fate_dropped(acct, UNKNOWN_PROTOCOL)
  if (pt_prev !== null) return call(pt_prev.func)(skb, dev, pt_prev) // a tap
  consume_skb(skb)
  return NET_RX_DROP
}

/** netif_receive_skb - hand a packet to its protocol. @context softirq @consumes skb */
export function netif_receive_skb(skb: sk_buff): number {
  tick(COST_RECEIVE)
  if (i32[NETSTAMP] !== 0) net_timestamp(skb)
  stat.total++
  skb.h = skb.data
  skb.nh = skb.data
  skb.mac_len = skb.nh - skb.mac
  rcu_read_lock()
  const dev = skb.dev!
  let ret = NET_RX_DROP
  const type = skb.protocol
  const pt = PACKET_TYPE.at(rcu_dereference(PTYPE_BASE + (type & 15) * 4))
  // As a rule nobody taps and no protocol shares the bucket: `next` is the first word.
  if (READ_ONCE(ptypes.addr) !== 0 || (pt !== null && READ_ONCE(pt.addr) !== 0)) ret = deliver_all(skb, dev, type)
  else if (pt !== null && pt.type === type && (pt.dev === null || pt.dev === dev)) ret = call(pt.func)(skb, dev, pt)
  else kfree_skb(skb, UNKNOWN_PROTOCOL)
  rcu_read_unlock()
  return ret
}

// ---- receive: interrupt-driven with an IP input queue (4.2BSD) ------------------------------------------------------

/** schednetisr_ip - queue for the software interrupt, or drop when IFQ_MAXLEN wait. @context hardirq @consumes skb */
export function schednetisr_ip(skb: sk_buff): number {
  charge_cost(COST_IPINTRQ)
  const flags = local_irq_save()
  const q = queue.ipintrq
  if (q.qlen >= (config('ip_input') || IPQMAXLEN)) {
    stat.dropped++
    local_irq_restore(flags)
    kfree_skb(skb, IPINTRQ_FULL)
    return NET_RX_DROP
  }
  __skb_queue_tail(q, skb)
  __raise_softirq_irqoff(NET_RX_SOFTIRQ)
  local_irq_restore(flags)
  return NET_RX_SUCCESS
}

/** ipintr - the software interrupt: serve the IP input queue until it is empty. @context softirq */
function ipintr(): void {
  for (;;) {
    local_irq_disable()
    const skb = __skb_dequeue(queue.ipintrq)
    local_irq_enable()
    if (skb === null) return
    tick(COST_IPINTR)
    netif_receive_skb(skb)
  }
}

// ---- receive: netif_rx and the per-CPU backlog (softnet) ------------------------------------------------------------

function get_sample_stats(): void {
  const avg = (queue.avg_blog >> 1) + (queue.input_pkt_queue.qlen >> 1)
  queue.avg_blog = avg
  if (avg <= core_ctl.no_cong) queue.cng_level = NET_RX_SUCCESS
  else if (avg <= core_ctl.lo_cong) queue.cng_level = NET_RX_CN_LOW
  else queue.cng_level = avg <= core_ctl.mod_cong ? NET_RX_CN_MOD : NET_RX_CN_HIGH
}

/** netif_rx - post a packet to this CPU's backlog. Always succeeds or drops. @context any @consumes skb */
export function netif_rx(skb: sk_buff): number {
  tick(COST_NETIF_RX)
  if (i32[NETSTAMP] !== 0) net_timestamp(skb)
  const flags = local_irq_save()
  stat.total++
  const q = queue.input_pkt_queue
  if (q.qlen <= core_ctl.max_backlog) {
    if (q.qlen === 0) {
      queue.throttle = 0
      netif_rx_schedule(queue.backlog_dev)
    }
    if (queue.throttle === 0) {
      dev_hold(skb.dev!)
      __skb_queue_tail(q, skb)
      get_sample_stats()
      const level = queue.cng_level
      local_irq_restore(flags)
      return level
    }
  } else if (queue.throttle === 0) {
    queue.throttle = 1
    stat.throttled++
  }
  stat.dropped++
  local_irq_restore(flags)
  kfree_skb(skb, BACKLOG_FULL)
  return NET_RX_DROP
}

/** process_backlog - poll() of the backlog. @context softirq */
function process_backlog(backlog_dev: net_device, budget: int_ref): number {
  const quota = Math.min(backlog_dev.quota, budget.value)
  const start = jiffies()
  let work = 0
  backlog_dev.weight = core_ctl.weight // from its next round on
  for (;;) {
    local_irq_disable()
    const skb = __skb_dequeue(queue.input_pkt_queue)
    if (skb === null) break
    local_irq_enable()
    tick(COST_BACKLOG)
    const dev = skb.dev!
    netif_receive_skb(skb)
    dev_put(dev)
    work++
    if (work >= quota || jiffies() - start > 1) {
      backlog_dev.quota -= work
      budget.value -= work
      return -1
    }
  }
  backlog_dev.quota -= work
  budget.value -= work
  list_del_init(backlog_dev.poll_list)
  fetch_and(backlog_dev.addr + STATE, ~LINK_STATE_RX_SCHED)
  queue.throttle = 0
  local_irq_enable()
  return 0
}
const process_backlog_sym = symbol('process_backlog', process_backlog)
const STATE = NETDEV.offset('state')
const XMIT_LOCK_OWNER = NETDEV.offset('xmit_lock_owner')

// ---- receive: polling (NAPI) ----------------------------------------------------------------------------------------

/** netif_rx_schedule_prep - may this caller put the device on a poll list? At most one succeeds until it completes. */
export function netif_rx_schedule_prep(dev: net_device): boolean {
  return netif_running(dev) && (fetch_or(dev.addr + STATE, LINK_STATE_RX_SCHED) & LINK_STATE_RX_SCHED) === 0
}

/** __netif_rx_schedule - put the device on this CPU's poll list; after netif_rx_schedule_prep. @context any */
export function __netif_rx_schedule(dev: net_device): void {
  const flags = local_irq_save()
  dev_hold(dev)
  list_add_tail(dev.poll_list, queue.poll_list)
  dev.quota = dev.quota < 0 ? dev.quota + dev.weight : dev.weight
  __raise_softirq_irqoff(NET_RX_SOFTIRQ) // wakes nobody: irq_exit or local_bh_enable will run it
  local_irq_restore(flags)
}

export function netif_rx_schedule(dev: net_device): void {
  if (netif_rx_schedule_prep(dev)) __netif_rx_schedule(dev)
}

/** netif_rx_reschedule - work appeared after netif_rx_complete; `undo` packets go back on the quota. */
export function netif_rx_reschedule(dev: net_device, undo: number): boolean {
  if (!netif_rx_schedule_prep(dev)) return false
  dev.quota += undo
  const flags = local_irq_save()
  list_add_tail(dev.poll_list, queue.poll_list)
  __raise_softirq_irqoff(NET_RX_SOFTIRQ)
  local_irq_restore(flags)
  return true
}

/** __netif_rx_complete - off the poll list; interrupts are off. Only then may the driver unmask. */
export function __netif_rx_complete(dev: net_device): void {
  list_del_init(dev.poll_list)
  fetch_and(dev.addr + STATE, ~LINK_STATE_RX_SCHED)
}
export function netif_rx_complete(dev: net_device): void {
  const flags = local_irq_save()
  __netif_rx_complete(dev)
  local_irq_restore(flags)
}

/** net_rx_action - the NET_RX softirq: poll devices round-robin within a budget and one jiffy. @context softirq */
function net_rx_action(): void {
  const start_time = jiffies()
  const budget = queue.budget
  budget.value = core_ctl.max_backlog
  local_irq_disable()
  while (!list_empty(queue.poll_list)) {
    if (budget.value <= 0 || jiffies() - start_time > 1) {
      stat.time_squeeze++
      __raise_softirq_irqoff(NET_RX_SOFTIRQ)
      break
    }
    local_irq_enable()
    const dev = NETDEV.container_of('poll_list', queue.poll_list.next)
    tick(COST_RX_ACTION)
    if (dev.quota > 0) stat.polls++
    if (dev.quota <= 0 || call(dev.poll)(dev, budget) !== 0) {
      local_irq_disable()
      list_move_tail(dev.poll_list, queue.poll_list)
      dev.quota = dev.quota < 0 ? dev.quota + dev.weight : dev.weight
    } else {
      dev_put(dev)
      local_irq_disable()
    }
  }
  local_irq_enable()
}

// ---- transmit -------------------------------------------------------------------------------------------------------

/** __netif_schedule - have net_tx_action run the device's qdisc. @context any */
export function __netif_schedule(dev: net_device): void {
  if ((fetch_or(dev.addr + STATE, LINK_STATE_SCHED) & LINK_STATE_SCHED) !== 0) return
  const flags = local_irq_save()
  dev.next_sched = queue.output_queue
  queue.output_queue = dev
  raise_softirq_irqoff(NET_TX_SOFTIRQ)
  local_irq_restore(flags)
}
export function netif_schedule(dev: net_device): void {
  if (!netif_queue_stopped(dev)) __netif_schedule(dev)
}

/**
 * dev_kfree_skb_irq - the device has sent the frame; the last owner's reference puts it where interrupts are on and it is
 * freed. A packet that others own too is not ours to link. @context any @consumes skb
 */
export function dev_kfree_skb_irq(skb: sk_buff): void {
  if (!skb_last_ref(skb)) return
  const flags = local_irq_save()
  skb.next = queue.completion_queue
  queue.completion_queue = skb
  raise_softirq_irqoff(NET_TX_SOFTIRQ)
  local_irq_restore(flags)
}

/** dev_kfree_skb_any - @context any @consumes skb */
export function dev_kfree_skb_any(skb: sk_buff): void {
  if (in_irq() || irqs_disabled()) dev_kfree_skb_irq(skb)
  else skb_sent(skb)
}

/** net_tx_action - the NET_TX softirq: free what was sent, run the qdiscs that were scheduled. @context softirq */
function net_tx_action(): void {
  tick(COST_TX_ACTION)
  if (queue.completion_queue !== null) {
    local_irq_disable()
    let skb: sk_buff | null = queue.completion_queue
    queue.completion_queue = null
    local_irq_enable()
    while (skb !== null) {
      const next: sk_buff | null = skb.next
      skb.next = null
      __skb_sent(skb)
      skb = next
    }
  }
  if (queue.output_queue !== null) {
    local_irq_disable()
    let dev: net_device | null = queue.output_queue
    queue.output_queue = null
    local_irq_enable()
    while (dev !== null) {
      const next: net_device | null = dev.next_sched
      fetch_and(dev.addr + STATE, ~LINK_STATE_SCHED)
      if (spin_trylock(dev.queue_lock)) {
        qdisc_run(dev)
        spin_unlock(dev.queue_lock)
      } else __netif_schedule(dev)
      dev = next
    }
  }
}

/**
 * dev_queue_xmit - send a packet that has its link header: through the qdisc, or at once on a device without one.
 * What the device cannot gather or sum up by itself is done here.
 * @context process, softirq; interrupts on @consumes skb @returns NET_XMIT_*, or negative
 */
export function dev_queue_xmit(skb: sk_buff): number {
  tick(COST_XMIT)
  const dev = skb.dev!
  if ((skb.data_len !== 0 || skb.ip_summed === CHECKSUM_HW) && skb_fit_device(skb, dev) !== 0) {
    kfree_skb(skb, NO_MEMORY)
    return -ENOMEM
  }
  local_bh_disable()
  const q = dev.qdisc
  let rc: number
  if (q !== null && q.enqueue !== 0) {
    spin_lock(dev.queue_lock)
    const now = dev.qdisc! // the device may have gone down since: it is changed under this lock
    rc = call(now.enqueue)(skb, now)
    qdisc_run(dev)
    spin_unlock(dev.queue_lock)
  } else rc = xmit_directly(skb, dev)
  local_bh_enable()
  return rc
}

function transmit(skb: sk_buff, dev: net_device): number {
  if (netdev_nit()) dev_queue_xmit_nit(skb, dev)
  return call(dev.hard_start_xmit)(skb, dev)
}

/** Devices without a queue (loopback, tunnels): the driver is called right here, under xmit_lock unless it needs none. */
function xmit_directly(skb: sk_buff, dev: net_device): number {
  if ((dev.state & LINK_STATE_START) === 0) {
    kfree_skb(skb, DEV_DOWN)
    return NET_XMIT_DROP
  }
  if (READ_ONCE(dev.addr + XMIT_LOCK_OWNER) === cpu_id) {
    kfree_skb(skb, QUEUE_DEAD) // dead loop on a virtual device
    return NET_XMIT_DROP
  }
  if ((dev.features & NETIF_F_LLTX) !== 0) {
    const stopped = netif_queue_stopped(dev) || transmit(skb, dev) !== NETDEV_TX_OK
    if (stopped) kfree_skb(skb, QUEUE_DEAD)
    return stopped ? NET_XMIT_DROP : 0
  }
  spin_lock(dev.xmit_lock)
  WRITE_ONCE(dev.addr + XMIT_LOCK_OWNER, cpu_id)
  const busy = netif_queue_stopped(dev) || transmit(skb, dev) !== NETDEV_TX_OK
  WRITE_ONCE(dev.addr + XMIT_LOCK_OWNER, -1)
  spin_unlock(dev.xmit_lock)
  if (busy) kfree_skb(skb, QUEUE_DEAD)
  return busy ? NET_XMIT_DROP : 0
}

// ---- start ----------------------------------------------------------------------------------------------------------

const net_tx_sym = symbol('net_tx_action', net_tx_action)
const net_rx_sym = symbol('net_rx_action', net_rx_action)
const ipintr_sym = symbol('ipintr', ipintr)

/** Receive architectures, as numbered in the configuration. */
export const RX_INTERRUPT = 0
export const RX_SOFTNET = 1
export const RX_NAPI = 2
/** A thread polls, as in the modified kernel of 1996 (kpoll.ts). */
export const RX_POLLED = 3

/** net_dev_init - @context boot, CPU 0 for all CPUs */
export function net_dev_init(ncpus: number): void {
  ptype_init()
  for (let cpu = 0; cpu < ncpus; cpu++) {
    const sd = softnet_datas.cpu(cpu)
    skb_queue_head_init(sd.input_pkt_queue)
    skb_queue_head_init(sd.ipintrq)
    INIT_LIST_HEAD(sd.poll_list)
    const backlog = sd.backlog_dev
    INIT_LIST_HEAD(backlog.poll_list)
    backlog.state = LINK_STATE_START
    backlog.weight = WEIGHT_P
    backlog.poll = process_backlog_sym
    backlog.refcnt = 1
  }
  open_softirq(NET_TX_SOFTIRQ, net_tx_sym)
  open_softirq(NET_RX_SOFTIRQ, config('rx_arch') === RX_INTERRUPT ? ipintr_sym : net_rx_sym)
}
