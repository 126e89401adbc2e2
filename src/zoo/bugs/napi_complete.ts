/** #15: a frame comes after the poll has seen the ring empty and before it says that it is done: nobody polls for it. */
import { atomic, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { fetch_add, load, xchg } from '../../arch/atomic.js'
import { do_softirq } from '../../irq/softirq.js'
import { net_dev_init, netif_rx_complete, netif_rx_reschedule, netif_rx_schedule, RX_NAPI } from '../../net/core/dev.js'
import { net_core_sysctl_init } from '../../net/core/sysctl_net_core.js'
import { type int_ref, LINK_STATE_START, NETDEV, type net_device } from '../../net/core/types.js'
import { cpu_init, machine_init } from '../kit/machine.js'
import type { Twin } from '../kit/words.js'

class nic extends Struct {
  declare frames: number
  declare handled: number
  declare fixed: number
}
const NIC: Layout<nic> = layout('nic', nic, { frames: atomic(word), handled: atomic(word), fixed: word })
const hw = DEFINE_STATIC('nic', NIC)
const FRAMES = hw.addr + NIC.offset('frames')
const HANDLED = hw.addr + NIC.offset('handled')
const eth0 = DEFINE_STATIC('eth0', NETDEV)

function poll(dev: net_device, _budget: int_ref): number {
  for (;;) {
    fetch_add(HANDLED, xchg(FRAMES, 0))
    if (load(FRAMES) !== 0) continue
    netif_rx_complete(dev)
    // Fixed: it looks once more when it is off the list, and goes on if it gets itself back on.
    if (hw.fixed === 0 || load(FRAMES) === 0 || !netif_rx_reschedule(dev, 0)) return 0
  }
}
const poll_sym = symbol('zoo_poll', poll)

export function setup(twin: Twin) {
  machine_init(2, { rx_arch: RX_NAPI })
  net_core_sysctl_init()
  net_dev_init(2)
  eth0.state = LINK_STATE_START
  eth0.weight = 64
  eth0.refcnt = 1
  eth0.poll = poll_sym
  hw.fixed = twin === 'fixed' ? 1 : 0
}

export const prepare = (_: unknown, me: { index: number }): void => cpu_init(me)
export const describe = describe_addr

/** The interrupt of a frame, and the soft interrupt after it. */
function receive(): void {
  fetch_add(FRAMES, 1)
  netif_rx_schedule(eth0)
  do_softirq()
}

export const actors = { 'CPU 0': receive, 'CPU 1': receive }

export function invariant(): void {
  if (hw.handled !== 2) throw new Error(`${hw.frames} of 2 frames waits in the ring, and the device is on no poll list`)
}
