import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { NOTIFIER, NOTIFY_DONE, type notifier_block } from '../../../src/irq/notifier.js'
import { netif_carrier_off, netif_carrier_on } from '../../../src/net/core/link_watch.js'
import {
  dev_change_mtu,
  dev_close,
  dev_get_by_name,
  dev_open,
  dev_put,
  NETDEV_CHANGE,
  netif_carrier_ok,
  register_netdevice_notifier,
  rtnl_lock,
  rtnl_unlock,
} from '../../../src/net/core/netdevice.js'
import { neigh_add_permanent } from '../../../src/net/core/nud.js'
import { LINK_STATE_LINKWATCH_PENDING } from '../../../src/net/core/types.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { counting, parse, udpFrame } from '../../helpers/frames.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const changes: number[] = []
const nb = DEFINE_STATIC('test_nb', NOTIFIER)
const heard = symbol('test_heard', (_nb: notifier_block, event: number, data: number) => {
  if (event === NETDEV_CHANGE) changes.push(data)
  return NOTIFY_DONE
})

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  neighbours: [{ address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } }],
})
nb.call = heard
register_netdevice_notifier(nb)
const eth1 = dev_get_by_name('eth1')!
const pfifo_fast = eth1.qdisc_sleeping!
const frame = udpFrame({ src: '10.0.0.2', dst: '10.0.1.2' })
const passes = (): boolean => s.send(0, frame)[1]!.length === 1

describe('a carrier', () => {
  test('that goes takes the queue with it, and brings it back when it comes', () => {
    expect(eth1.qdisc).toBe(pfifo_fast)
    expect(passes()).toBe(true)
    netif_carrier_off(eth1)
    s.pass(10)
    expect(eth1.qdisc).not.toBe(pfifo_fast)
    expect(s.account(() => s.send(0, frame)).drops).toEqual({ dev_down: 1 })
    netif_carrier_on(eth1)
    s.pass(1100)
    expect(eth1.qdisc).toBe(pfifo_fast)
    expect(passes()).toBe(true)
    expect(changes).toEqual([eth1.addr, eth1.addr])
  })
  test('that is seen as before changes nothing', () => {
    s.pass(1100)
    changes.length = 0
    netif_carrier_on(eth1)
    s.pass(1100)
    expect(changes).toEqual([])
  })
  test('that comes and goes all the time is looked at once a second, and its last state counts', () => {
    s.pass(1100)
    changes.length = 0
    for (let k = 0; k < 1000; k++) {
      if (netif_carrier_ok(eth1)) netif_carrier_off(eth1)
      else netif_carrier_on(eth1)
      s.pass(3)
    }
    expect(changes.length).toBeGreaterThanOrEqual(3)
    expect(changes.length).toBeLessThanOrEqual(4)
    netif_carrier_on(eth1)
    s.pass(1100)
    expect(passes()).toBe(true)
    netif_carrier_off(eth1)
    s.pass(1100)
    expect(passes()).toBe(false)
  })
  test('that was not there when the device came up', () => {
    s.pass(1100)
    kernel_thread(
      'ip',
      symbol('test_ip', function* () {
        yield* rtnl_lock()
        yield* dev_close(eth1)
        dev_open(eth1)
        neigh_add_permanent(ip('10.0.1.2'), eth1, 0x02000000, 0x202)
        rtnl_unlock()
        return 0
      }),
      0,
    )
    s.pass(50)
    expect(passes()).toBe(false)
    netif_carrier_on(eth1)
    s.pass(10)
    expect(eth1.qdisc).toBe(pfifo_fast)
    expect(passes()).toBe(true)
  })
  test('of a device that is down is kept in mind', () => {
    s.pass(1100)
    changes.length = 0
    kernel_thread(
      'ip',
      symbol('test_ip2', function* () {
        yield* rtnl_lock()
        yield* dev_close(eth1)
        netif_carrier_off(eth1)
        netif_carrier_on(eth1)
        rtnl_unlock()
        return 0
      }),
      0,
    )
    s.pass(1200)
    expect(changes).toEqual([])
    expect(eth1.state & LINK_STATE_LINKWATCH_PENDING).toBe(0)
    kernel_thread(
      'ip',
      symbol('test_ip3', function* () {
        yield* rtnl_lock()
        dev_open(eth1)
        neigh_add_permanent(ip('10.0.1.2'), eth1, 0x02000000, 0x202)
        rtnl_unlock()
        return 0
      }),
      0,
    )
    s.pass(5)
    expect(passes()).toBe(true)
  })
})

test('a changed MTU is heeded by routes that are cached', () => {
  const big = udpFrame({ src: '10.0.0.2', dst: '10.0.1.2' }, counting(1000))
  expect(s.send(0, big)[1]).toHaveLength(1)
  expect(dev_change_mtu(eth1, 576)).toBe(0)
  s.pass(5)
  const out = s.send(0, big)[1]!
  expect(out).toHaveLength(2)
  for (const f of out) expect(parse(f).ipChecksumGood).toBe(true)
})

test('nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  dev_put(eth1)
  expect(s.solo.audit()).toEqual([])
})
