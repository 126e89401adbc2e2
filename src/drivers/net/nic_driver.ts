/** nic_driver.ts - the NIC as a device of the bus: what happens when one is plugged in or unplugged. */
import { ENOMEM } from '../../lib/errno.js'
import { __dev_get_by_name, rtnl_lock, rtnl_unlock, unregister_netdev } from '../../net/core/netdevice.js'
import { NETDEV, type net_device } from '../../net/core/types.js'
import { type device, device_found, driver_register } from '../base/bus.js'
import { type NicOptions, nic_free, nic_probe } from './nic_probe.js'

// A NIC's configuration: its station address (first 4 bytes, last 2), and how many queues it has.

/** alloc_name - the first `eth%d` that nobody has. @locks rtnl is held */
function alloc_name(): string {
  for (let k = 0; ; k++) if (__dev_get_by_name(`eth${k}`) === null) return `eth${k}`
}

/** @context process */
function* probe(dev: device): Generator<void, number, void> {
  yield* rtnl_lock()
  const net = nic_probe(dev.slot, {
    name: alloc_name(),
    mac_hi: dev.config0,
    mac_lo: dev.config1,
    mtu: 1500,
    nqueues: dev.config2,
    promisc: false,
  })
  rtnl_unlock()
  if (net === null) return -ENOMEM
  dev.driver_data = net.addr
  return 0
}

/** @context process */
function* remove(dev: device): Generator<void, number, void> {
  const net = NETDEV.ref(dev.driver_data)
  const err = yield* unregister_netdev(net)
  if (err === 0) nic_free(net)
  return err
}

const nic_driver = driver_register({
  name: 'nic',
  match: dev => dev.config2 > 0,
  probe,
  remove,
})

/** nic_found - a NIC that is there at power-on. @context boot @locks rtnl is held @returns its device, or null: no memory, or the name is taken */
export function nic_found(nic: number, options: NicOptions): net_device | null {
  const net = nic_probe(nic, options)
  if (net !== null) device_found(nic, nic_driver, net.addr, [options.mac_hi, options.mac_lo, options.nqueues])
  return net
}
