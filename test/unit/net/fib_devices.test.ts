/** Routes that follow their devices and addresses: what dies with them, and what comes back. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { ENETUNREACH, ESRCH } from '../../../src/lib/errno.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import {
  dev_close,
  dev_get_by_name,
  dev_name,
  dev_open,
  dev_put,
  rtnl_lock,
  rtnl_unlock,
} from '../../../src/net/core/netdevice.js'
import type { net_device } from '../../../src/net/core/types.js'
import { fib_lookup, ip_route_add, ip_route_del } from '../../../src/net/ipv4/fib_frontend.js'
import { fib_select_multipath } from '../../../src/net/ipv4/fib_multipath.js'
import { fib_res_dev, fib_res_gw } from '../../../src/net/ipv4/fib_semantics.js'
import { FIB_RESULT, RT_SCOPE_LINK, RT_SCOPE_UNIVERSE, RTN_UNICAST } from '../../../src/net/ipv4/fib_types.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const host = (address: string, dev: string, k: number) => ({
  address: ip(address),
  dev,
  mac: { hi: 0x02000000, lo: k },
})
const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  neighbours: [host('10.0.0.2', 'eth0', 0x102), host('10.0.1.2', 'eth1', 0x202)],
})
const eth0 = dev_get_by_name('eth0')!
const eth1 = dev_get_by_name('eth1')!
const res = FIB_RESULT.make(kmalloc(FIB_RESULT.size))

/** A process that holds rtnl does it. */
function ip_link(program: () => Generator<void, unknown, void>): void {
  const state = { ended: false }
  kernel_thread(
    'ip',
    symbol('test_ip', function* () {
      yield* rtnl_lock()
      yield* program()
      rtnl_unlock()
      state.ended = true
      return 0
    }),
    0,
  )
  for (let k = 0; k < 20 && !state.ended; k++) s.pass(50)
  expect(state.ended).toBe(true)
}
const down = (dev: net_device): void => ip_link(() => dev_close(dev))
/** Where a packet to an address goes: the name of the device, or an error. */
function way(addr: string): string | number {
  const err = fib_lookup(ip(addr), 0, 0, 0, 0, RT_SCOPE_UNIVERSE, res)
  return err === 0 ? dev_name(fib_res_dev(res)!) : err
}
const route = (dst: string, gw: string, dev: net_device) => ({
  dst: ip(dst),
  prefixlen: 8,
  type: RTN_UNICAST,
  nexthops: [{ gw: ip(gw), dev }],
})
test('a route is deleted only if it is the one that was meant', () => {
  const near = { ...route('60.0.0.0', '10.0.0.2', eth0), priority: 1 }
  const far = { ...route('60.0.0.0', '10.0.1.2', eth1), priority: 2 }
  expect([ip_route_add(near), ip_route_add(far)]).toEqual([0, 0])
  const { dst, prefixlen, type } = near
  const like = { dst, prefixlen, type }
  expect(ip_route_del({ ...like, nexthops: [{ gw: ip('10.0.0.3') }] })).toBe(-ESRCH)
  expect(ip_route_del({ ...like, scope: RT_SCOPE_LINK })).toBe(-ESRCH)
  expect(ip_route_del({ ...like, protocol: 2 })).toBe(-ESRCH)
  expect(ip_route_del({ ...like, nexthops: [...near.nexthops, ...far.nexthops] })).toBe(-ESRCH)
  expect(ip_route_del({ ...like, nexthops: [{ gw: 0, dev: eth1 }] })).toBe(0)
  expect(way('60.0.0.1')).toBe('eth0')
  expect(ip_route_del({ ...like, scope: RT_SCOPE_UNIVERSE, nexthops: near.nexthops })).toBe(0)
  expect(way('60.0.0.1')).toBe(-ENETUNREACH)
})

describe('multipath', () => {
  const route = {
    dst: ip('40.0.0.0'),
    prefixlen: 8,
    type: RTN_UNICAST,
    nexthops: [
      { gw: ip('10.0.0.2'), dev: eth0, weight: 1 },
      { gw: ip('10.0.0.3'), dev: eth0, weight: 3 },
      { gw: ip('10.0.1.2'), dev: eth1, weight: 2 },
    ],
  }
  /** How often each next hop is chosen, in their order. */
  function shares(n: number): number[] {
    const seen = route.nexthops.map(() => 0)
    for (let k = 0; k < n; k++) {
      expect(fib_lookup(route.dst + 1, 0, 0, 0, 0, RT_SCOPE_UNIVERSE, res)).toBe(0)
      fib_select_multipath(res)
      seen[route.nexthops.findIndex(hop => hop.gw === fib_res_gw(res))]!++
      s.pass(0.3)
    }
    return seen
  }
  test('shares by weight go on among those that are left when a device goes down, and with it when it is back', () => {
    expect(ip_route_add(route)).toBe(0)
    expect(shares(602).map(n => Math.round(n / 100))).toEqual([1, 3, 2])
    down(eth1)
    expect(shares(400).map(n => Math.round(n / 100))).toEqual([1, 3, 0])
    dev_open(eth1)
    shares(3) // what is left of the round
    expect(shares(600).map(n => Math.round(n / 100))).toEqual([1, 3, 2])
    expect(ip_route_del(route)).toBe(0)
  })
})

test('nothing leaks', () => {
  dev_put(eth0)
  dev_put(eth1)
  kfree(res.addr)
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
