/**
 * updown.ts - the last CPU takes the two ports of a router down and up again, one after the other, while frames pour in: no
 * poll, no handler and no NIC may touch a ring that is gone.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { num_cpus } from '../../../src/arch/machine.js'
import { msleep } from '../../../src/irq/timer.js'
import {
  dev_close,
  dev_get_by_name,
  dev_open,
  dev_put,
  rtnl_lock,
  rtnl_unlock,
} from '../../../src/net/core/netdevice.js'
import { neigh_add_permanent } from '../../../src/net/core/nud.js'
import type { net_device } from '../../../src/net/core/types.js'
import { ip_route_add } from '../../../src/net/ipv4/fib_frontend.js'
import { RTN_UNICAST } from '../../../src/net/ipv4/fib_types.js'
import { kernel_thread } from '../../../src/sched/sched.js'

/** The stations of the livelock experiment (bench2544.ts). */
const SENDER = (198 << 24) | (18 << 16) | 2
const RECEIVER = (198 << 24) | (18 << 16) | (1 << 8) | 2
const ROUNDS = 20

class shared extends Struct {
  declare done: number
  declare wrong: number
}
const SHARED: Layout<shared> = layout('torture_updown', shared, { done: word, wrong: word })
const s = DEFINE_STATIC('torture_updown', SHARED)

/** The default route goes with its device; the neighbours stay, and are replaced while packets are sent to them. */
function settle(eth0: net_device, eth1: net_device): void {
  neigh_add_permanent(SENDER, eth0, 0x02000000, 0x101)
  neigh_add_permanent(RECEIVER, eth1, 0x02000000, 0x102)
  ip_route_add({ dst: 0, prefixlen: 0, type: RTN_UNICAST, nexthops: [{ gw: RECEIVER, dev: eth1 }] })
}

function* updown(): Generator<void, number, void> {
  const eth0 = dev_get_by_name('eth0')!
  const eth1 = dev_get_by_name('eth1')!
  for (let k = 0; k < ROUNDS; k++) {
    const dev = k % 2 === 0 ? eth0 : eth1
    yield* msleep(3)
    yield* rtnl_lock()
    if ((yield* dev_close(dev)) !== 0 || dev_open(dev) !== 0) s.wrong++
    settle(eth0, eth1)
    rtnl_unlock()
    s.done++
  }
  dev_put(eth0)
  dev_put(eth1)
  return 0
}
const updown_sym = symbol('updown', updown)

export function main(): void {
  kernel_thread('updown', updown_sym, 0, { cpu: num_cpus() - 1 })
}
