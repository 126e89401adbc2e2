/**
 * sch_generic.ts - the packet scheduler between dev_queue_xmit and the driver: qdisc_restart and pfifo_fast.
 *
 * Lock charter
 *   dev.queue_lock guards the qdisc and is taken with bottom halves off.
 *   dev.xmit_lock serialises hard_start_xmit; xmit_lock_owner is the CPU inside the driver.
 *   The two are never held across each other: qdisc_restart only tries xmit_lock while it holds queue_lock, and drops
 *   queue_lock before it calls the driver.
 */

import { embed, type Layout, layout, Struct } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call, symbol } from '../../abi/symbol.js'
import { READ_ONCE, WRITE_ONCE } from '../../arch/atomic.js'
import { cost } from '../../arch/cost.js'
import { charge_cost, cpu_id, tick } from '../../arch/cpu.js'
import { hz } from '../../arch/machine.js'
import { del_timer, init_timer, jiffies, mod_timer } from '../../irq/timer.js'
import { MAX_NETDEVS } from '../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import { rcu_assign_pointer } from '../../rcu/rcupdate.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { spin_lock, spin_trylock, spin_unlock } from '../../sync/spinlock.js'
import { __netif_schedule } from './dev.js'
import { drop_reason } from './fate.js'
import {
  dev_hold,
  dev_put,
  netif_carrier_ok,
  netif_queue_stopped,
  netif_running,
  netif_wait_clear,
} from './netdevice.js'
import { __skb_dequeue, __skb_queue_head, __skb_queue_tail, skb_queue_head_init } from './skb_queue.js'
import { kfree_skb } from './skbuff.js'
import { netdev_rx_stat } from './stats.js'
import { dev_queue_xmit_nit, netdev_nit } from './taps.js'
import {
  LINK_STATE_SCHED,
  NET_XMIT_DROP,
  NET_XMIT_SUCCESS,
  NETDEV,
  NETDEV_TX_LOCKED,
  NETDEV_TX_OK,
  NETIF_F_LLTX,
  type net_device,
  QDISC,
  type Qdisc,
  type sk_buff,
  type sk_buff_head,
} from './types.js'

const XMIT_LOCK_OWNER = NETDEV.offset('xmit_lock_owner')
const COST_RESTART = cost('qdisc_restart')
const COST_ENQUEUE = cost('pfifo_fast_enqueue')

const stat = netdev_rx_stat.mine
const QDISC_FULL = drop_reason('qdisc_full')
const QUEUE_DEAD = drop_reason('dev_queue_dead')
const DEV_DOWN = drop_reason('dev_down')
const SHUTDOWN = drop_reason('shutdown')

const qdisc_cache = kmem_cache_create('Qdisc', QDISC, () => MAX_NETDEVS)

// ---- pfifo_fast -----------------------------------------------------------------------------------------------------

/** Priority of a packet to band; band 0 first, always. */
const prio2band = [1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
const TC_PRIO_MAX = 15

function band_of(skb: sk_buff, q: Qdisc): sk_buff_head {
  const band = prio2band[skb.priority & TC_PRIO_MAX]
  return band === 0 ? q.band0 : band === 1 ? q.band1 : q.band2
}

/** The limit of tx_queue_len holds for each band by itself. */
function pfifo_fast_enqueue(skb: sk_buff, q: Qdisc): number {
  charge_cost(COST_ENQUEUE)
  const list = band_of(skb, q)
  if (list.qlen < q.dev!.tx_queue_len) {
    __skb_queue_tail(list, skb)
    q.qlen++
    q.bytes += skb.len
    q.packets++
    return NET_XMIT_SUCCESS
  }
  q.drops++
  kfree_skb(skb, QDISC_FULL)
  return NET_XMIT_DROP
}
function pfifo_fast_dequeue(q: Qdisc): sk_buff | null {
  if (q.qlen === 0) return null
  const skb = __skb_dequeue(q.band0) ?? __skb_dequeue(q.band1) ?? __skb_dequeue(q.band2)
  if (skb !== null) q.qlen--
  return skb
}
function pfifo_fast_requeue(skb: sk_buff, q: Qdisc): number {
  __skb_queue_head(band_of(skb, q), skb)
  q.qlen++
  return 0
}
function pfifo_fast_reset(q: Qdisc): void {
  for (let skb = pfifo_fast_dequeue(q); skb !== null; skb = pfifo_fast_dequeue(q)) kfree_skb(skb, SHUTDOWN)
}
const pfifo_fast_enqueue_sym = symbol('pfifo_fast_enqueue', pfifo_fast_enqueue)
const pfifo_fast_dequeue_sym = symbol('pfifo_fast_dequeue', pfifo_fast_dequeue)
const pfifo_fast_requeue_sym = symbol('pfifo_fast_requeue', pfifo_fast_requeue)
const pfifo_fast_reset_sym = symbol('pfifo_fast_reset', pfifo_fast_reset)

// ---- noop: the qdisc of a device that is down -----------------------------------------------------------------------

function noop_enqueue(skb: sk_buff): number {
  kfree_skb(skb, DEV_DOWN)
  return NET_XMIT_DROP
}
function noop_dequeue(): null {
  return null
}
const noop_enqueue_sym = symbol('noop_enqueue', noop_enqueue)
const noop_dequeue_sym = symbol('noop_dequeue', noop_dequeue)

class noop_holder extends Struct {
  declare qdisc: Qdisc
}
const NOOP: Layout<noop_holder> = layout('noop_qdisc', noop_holder, { qdisc: embed(QDISC) })
const noop_qdisc = DEFINE_STATIC('noop_qdisc', NOOP).qdisc
const NOOP_REF = QDISC.ref(noop_qdisc.addr)

// ---- the protocol between queue_lock and xmit_lock ------------------------------------------------------------------

/**
 * qdisc_restart - send one packet of the queue. @context softirq @locks dev.queue_lock is held, dropped and retaken
 * @returns negative: go on; 0: empty; positive: stopped
 */
export function qdisc_restart(dev: net_device): number {
  const q = dev.qdisc!
  const skb = call(q.dequeue)(q)
  if (skb === null) return q.qlen
  const nolock = (dev.features & NETIF_F_LLTX) !== 0
  if (!nolock) {
    if (!spin_trylock(dev.xmit_lock)) return xmit_collision(skb, dev, q)
    WRITE_ONCE(dev.addr + XMIT_LOCK_OWNER, cpu_id)
  }
  spin_unlock(dev.queue_lock)
  let ret = 1
  if (!netif_queue_stopped(dev)) {
    if (netdev_nit()) dev_queue_xmit_nit(skb, dev)
    ret = call(dev.hard_start_xmit)(skb, dev)
  }
  if (!nolock) {
    WRITE_ONCE(dev.addr + XMIT_LOCK_OWNER, -1)
    spin_unlock(dev.xmit_lock)
  }
  spin_lock(dev.queue_lock)
  if (ret === NETDEV_TX_OK) return -1
  const now = dev.qdisc!
  if (ret === NETDEV_TX_LOCKED && nolock) return xmit_collision(skb, dev, now)
  return requeue(skb, dev, now)
}

/** Another CPU is in the driver: give the packet back and let the softirq try again. */
function xmit_collision(skb: sk_buff, dev: net_device, q: Qdisc): number {
  if (READ_ONCE(dev.addr + XMIT_LOCK_OWNER) === cpu_id) {
    kfree_skb(skb, QUEUE_DEAD) // dead loop
    return -1
  }
  stat.cpu_collision++
  return requeue(skb, dev, q)
}

function requeue(skb: sk_buff, dev: net_device, q: Qdisc): number {
  if (q.requeue === 0) {
    kfree_skb(skb, DEV_DOWN) // the device went down meanwhile
    return 0
  }
  call(q.requeue)(skb, q)
  q.requeues++
  if (!netif_queue_stopped(dev)) __netif_schedule(dev)
  return 1
}

/** qdisc_run - @locks dev.queue_lock is held */
export function qdisc_run(dev: net_device): void {
  while (!netif_queue_stopped(dev) && qdisc_restart(dev) < 0) tick(COST_RESTART)
}

// ---- watchdog -------------------------------------------------------------------------------------------------------

/** dev_watchdog - a queue that stays stopped without a transmission means that the device hangs. @context softirq */
function dev_watchdog(addr: number): void {
  const dev = NETDEV.ref(addr)
  spin_lock(dev.xmit_lock)
  if (dev.qdisc !== NOOP_REF && netif_running(dev) && netif_carrier_ok(dev)) {
    if (netif_queue_stopped(dev) && ((jiffies() - dev.trans_start) | 0) > dev.watchdog_timeo) {
      stat.tx_timeouts++
      call(dev.tx_timeout)(dev)
    }
    if (!mod_timer(dev.watchdog_timer, (jiffies() + dev.watchdog_timeo) | 0)) dev_hold(dev)
  }
  spin_unlock(dev.xmit_lock)
  dev_put(dev)
}
const dev_watchdog_sym = symbol('dev_watchdog', dev_watchdog)

function dev_watchdog_up(dev: net_device): void {
  if (dev.tx_timeout === 0) return
  if (dev.watchdog_timeo <= 0) dev.watchdog_timeo = 5 * hz()
  if (!mod_timer(dev.watchdog_timer, (jiffies() + dev.watchdog_timeo) | 0)) dev_hold(dev)
}

function dev_watchdog_down(dev: net_device): void {
  spin_lock_bh(dev.xmit_lock)
  if (dev.tx_timeout !== 0 && del_timer(dev.watchdog_timer)) dev_put(dev)
  spin_unlock_bh(dev.xmit_lock)
}

// ---- life of a device's qdisc ---------------------------------------------------------------------------------------

/** dev_init_scheduler - a device that is down has the noop qdisc. */
export function dev_init_scheduler(dev: net_device): void {
  noop_qdisc.enqueue = noop_enqueue_sym
  noop_qdisc.dequeue = noop_dequeue_sym
  dev.qdisc = NOOP_REF
  dev.qdisc_sleeping = NOOP_REF
  init_timer(dev.watchdog_timer, dev_watchdog_sym, dev.addr)
}

/** dev_activate - attach pfifo_fast, unless the device has no queue. @locks rtnl is held */
export function dev_activate(dev: net_device): void {
  if (dev.qdisc_sleeping === NOOP_REF && dev.tx_queue_len > 0) dev.qdisc_sleeping = pfifo_fast_create(dev) ?? NOOP_REF
  if (!netif_carrier_ok(dev)) return
  spin_lock_bh(dev.queue_lock)
  const q = dev.tx_queue_len > 0 ? dev.qdisc_sleeping!.addr : 0
  rcu_assign_pointer(dev.addr + QDISC_FIELD, q)
  if (q !== 0) {
    dev.trans_start = jiffies()
    dev_watchdog_up(dev)
  }
  spin_unlock_bh(dev.queue_lock)
}
const QDISC_FIELD = NETDEV.offset('qdisc')

function pfifo_fast_create(dev: net_device): Qdisc | null {
  const q = kmem_cache_alloc(qdisc_cache)
  if (q === null) return null
  q.enqueue = pfifo_fast_enqueue_sym
  q.dequeue = pfifo_fast_dequeue_sym
  q.requeue = pfifo_fast_requeue_sym
  q.reset = pfifo_fast_reset_sym
  q.dev = dev
  q.qlen = 0
  q.drops = 0
  q.requeues = 0
  q.packets = 0
  q.bytes = 0
  skb_queue_head_init(q.band0)
  skb_queue_head_init(q.band1)
  skb_queue_head_init(q.band2)
  return q
}

/**
 * dev_deactivate - back to noop; what was queued is dropped. When it returns no CPU is inside the driver's transmit
 * function or about to run the queue. @context process @locks rtnl is held
 */
export function* dev_deactivate(dev: net_device): Generator<void, void, void> {
  spin_lock_bh(dev.queue_lock)
  const q = dev.qdisc
  rcu_assign_pointer(dev.addr + QDISC_FIELD, NOOP_REF.addr)
  if (q !== null && q.reset !== 0) call(q.reset)(q)
  spin_unlock_bh(dev.queue_lock)
  dev_watchdog_down(dev)
  yield* netif_wait_clear(dev, LINK_STATE_SCHED)
  spin_lock_bh(dev.xmit_lock)
  spin_unlock_bh(dev.xmit_lock)
}

/** dev_shutdown - free the qdisc of a device that goes for good. @locks rtnl is held */
export function dev_shutdown(dev: net_device): void {
  const q = dev.qdisc_sleeping
  dev.qdisc_sleeping = NOOP_REF
  if (q !== null && q !== NOOP_REF) kmem_cache_free(qdisc_cache, q)
}
