/**
 * link_watch.ts - carriers that come and go. The driver notes it in any context; a process attaches the queue of a device
 * whose carrier came, and takes away that of one whose carrier went.
 *
 * Lock charter
 *   link_watch.lock guards the list of devices with news; taken with interrupts off, nothing is called under it. A device is
 *   on it once: LINK_STATE_LINKWATCH_PENDING is set by whoever puts it there, with a reference, and cleared before the work
 *   looks at the carrier. So a change that comes later is either seen by that look or puts the device on the list again.
 *   running: the work is scheduled, or the timer that schedules it; whoever sets it does so.
 */
import { atomic, by, embed, type Layout, layout, ptr, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { fetch_and, fetch_or, store, xchg } from '../../arch/atomic.js'
import { hz } from '../../arch/machine.js'
import { init_timer, jiffies, mod_timer, TIMER, type timer_list } from '../../irq/timer.js'
import { INIT_WORK, schedule_work, WORK, type work_struct } from '../../irq/workqueue.js'
import {
  SPINLOCK,
  spin_lock_init,
  spin_lock_irqsave,
  spin_unlock_irqrestore,
  type spinlock_t,
} from '../../sync/spinlock.js'
import { dev_hold, dev_put, netdev_state_change, netif_carrier_ok, rtnl_lock, rtnl_unlock } from './netdevice.js'
import { dev_activate, dev_deactivate } from './sch_generic.js'
import { IFF_UP, LINK_STATE_LINKWATCH_PENDING, LINK_STATE_NOCARRIER, NETDEV, type net_device } from './types.js'

const STATE = NETDEV.offset('state')

class link_watch_box extends Struct {
  declare lock: spinlock_t
  declare first: net_device | null
  declare running: number
  declare nextevent: number
  declare work: work_struct
  declare timer: timer_list
}
const BOX: Layout<link_watch_box> = layout('link_watch', link_watch_box, {
  lock: embed(SPINLOCK),
  first: by(
    'lock',
    ptr(() => NETDEV),
  ),
  running: atomic(word),
  nextevent: word, // jiffies: the work does not run before, so that a loose plug keeps nobody busy
  work: embed(WORK),
  timer: embed(TIMER),
})
const link_watch = DEFINE_STATIC('link_watch', BOX)
const RUNNING = link_watch.addr + BOX.offset('running')

/** linkwatch_fire_event - the carrier of the device has changed. @context any */
function linkwatch_fire_event(dev: net_device): void {
  if ((fetch_or(dev.addr + STATE, LINK_STATE_LINKWATCH_PENDING) & LINK_STATE_LINKWATCH_PENDING) !== 0) return
  dev_hold(dev)
  const flags = spin_lock_irqsave(link_watch.lock)
  dev.link_watch_next = link_watch.first
  link_watch.first = dev
  spin_unlock_irqrestore(link_watch.lock, flags)
  if (xchg(RUNNING, 1) !== 0) return
  if (((jiffies() - link_watch.nextevent) | 0) >= 0) schedule_work(link_watch.work)
  else mod_timer(link_watch.timer, link_watch.nextevent)
}

/** linkwatch_run_queue - @context process @locks rtnl is held */
export function* linkwatch_run_queue(): Generator<void, void, void> {
  const flags = spin_lock_irqsave(link_watch.lock)
  let dev = link_watch.first
  link_watch.first = null
  spin_unlock_irqrestore(link_watch.lock, flags)
  while (dev !== null) {
    const next: net_device | null = dev.link_watch_next
    dev.link_watch_next = null
    fetch_and(dev.addr + STATE, ~LINK_STATE_LINKWATCH_PENDING)
    if ((dev.flags & IFF_UP) !== 0) {
      if (netif_carrier_ok(dev)) dev_activate(dev)
      else yield* dev_deactivate(dev)
      netdev_state_change(dev)
    }
    dev_put(dev)
    dev = next
  }
}

function* linkwatch_event(): Generator<void, void, void> {
  link_watch.nextevent = (jiffies() + hz()) | 0
  store(RUNNING, 0)
  yield* rtnl_lock()
  yield* linkwatch_run_queue()
  rtnl_unlock()
}
const linkwatch_event_sym = symbol('linkwatch_event', linkwatch_event)

function linkwatch_timer(): void {
  schedule_work(link_watch.work)
}
const linkwatch_timer_sym = symbol('linkwatch_timer', linkwatch_timer)

/** netif_carrier_on - the driver sees a carrier. @context any */
export function netif_carrier_on(dev: net_device): void {
  if ((fetch_and(dev.addr + STATE, ~LINK_STATE_NOCARRIER) & LINK_STATE_NOCARRIER) !== 0) linkwatch_fire_event(dev)
}
/** netif_carrier_off - and does not see it any more. @context any */
export function netif_carrier_off(dev: net_device): void {
  if ((fetch_or(dev.addr + STATE, LINK_STATE_NOCARRIER) & LINK_STATE_NOCARRIER) === 0) linkwatch_fire_event(dev)
}

/** linkwatch_init - @context boot, CPU 0 */
export function linkwatch_init(): void {
  spin_lock_init(link_watch.lock)
  link_watch.first = null
  link_watch.nextevent = jiffies()
  INIT_WORK(link_watch.work, linkwatch_event_sym, 0)
  init_timer(link_watch.timer, linkwatch_timer_sym, 0)
}
