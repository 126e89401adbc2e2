/** Routes that follow their devices and addresses: what dies with them, and what comes back. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { NOTIFIER, NOTIFY_DONE, NOTIFY_OK, NOTIFY_STOP, type notifier_block } from '../../../src/irq/notifier.js'
import { EBUSY, EINVAL, ENETUNREACH, ESRCH } from '../../../src/lib/errno.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import { dev_set_mac_address } from '../../../src/net/core/dev_change.js'
import { neigh_create, neigh_lookup, neigh_release } from '../../../src/net/core/neighbour.js'
import {
  alloc_netdev,
  dev_change_mtu,
  dev_close,
  dev_get_by_name,
  dev_name,
  dev_open,
  dev_put,
  free_netdev,
  NETDEV_CHANGE,
  NETDEV_DOWN,
  NETDEV_GOING_DOWN,
  NETDEV_UP,
  netdev_notify,
  register_netdevice,
  register_netdevice_notifier,
  rtnl_lock,
  rtnl_unlock,
  unregister_netdevice,
  unregister_netdevice_notifier,
} from '../../../src/net/core/netdevice.js'
import { NEIGH_UPDATE_F_ADMIN, neigh_update } from '../../../src/net/core/nud.js'
import { sysctl_write } from '../../../src/net/core/sysctl.js'
import { NETDEV, NETREG_UNREGISTERED, NUD_STALE, type net_device } from '../../../src/net/core/types.js'
import { in_dev_get, inet_del_ifa, inet_insert_ifa, inetdev_init } from '../../../src/net/ipv4/devinet.js'
import { inet_addr_type, ip_route_add, ip_route_del } from '../../../src/net/ipv4/fib_frontend.js'
import { fib_select_multipath } from '../../../src/net/ipv4/fib_multipath.js'
import { fib_lookup } from '../../../src/net/ipv4/fib_rules.js'
import { fib_res_dev, fib_res_gw, fib_res_prefsrc } from '../../../src/net/ipv4/fib_semantics.js'
import {
  FIB_RESULT,
  RT_SCOPE_LINK,
  RT_SCOPE_UNIVERSE,
  RTN_BROADCAST,
  RTN_LOCAL,
  RTN_UNICAST,
} from '../../../src/net/ipv4/fib_types.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { counting, icmpFrame, parse, udpFrame } from '../../helpers/frames.js'
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
function del(dev: net_device, local: string): void {
  const in_dev = in_dev_get(dev)!
  let ifa = in_dev.ifa_list
  while (ifa !== null && ifa.ifa_local !== ip(local)) ifa = ifa.ifa_next
  expect(inet_del_ifa(in_dev, ifa!)).toBe(0)
}
const add = (dev: net_device, local: string, prefixlen = 24): void =>
  expect(inet_insert_ifa(dev, ip(local), prefixlen)).toBe(0)
const route = (dst: string, gw: string, dev: net_device) => ({
  dst: ip(dst),
  prefixlen: 8,
  type: RTN_UNICAST,
  nexthops: [{ gw: ip(gw), dev }],
})
/** Kinds of message that a frame into eth0 brings out of eth0 and eth1. */
const answer = (frame: Uint8Array): (string | undefined)[][] =>
  s.send(0, frame).map(out => out.map(f => `${parse(f).icmp?.type ?? 'through'} ${parse(f).icmp?.code ?? ''}`.trim()))
const through = udpFrame({ src: '10.0.0.2', dst: '10.0.1.2' })

describe('a device that goes down', () => {
  test('leads nowhere, but its address answers on the others; up again, all is as it was', () => {
    expect(answer(through)).toEqual([[], ['through']])
    expect(ip_route_add(route('30.0.0.0', '10.0.1.2', eth1))).toBe(0)
    down(eth1)
    expect(way('10.0.1.2')).toBe(-ENETUNREACH)
    expect(way('30.0.0.1')).toBe(-ENETUNREACH)
    expect(inet_addr_type(ip('10.0.1.255'))).toBe(RTN_UNICAST)
    expect(answer(through)).toEqual([['3 0'], []])
    expect(answer(icmpFrame({ src: '10.0.0.2', dst: '10.0.1.1' }, 8))).toEqual([['0 0'], []])
    dev_open(eth1)
    expect(way('10.0.1.2')).toBe('eth1')
    expect(inet_addr_type(ip('10.0.1.255'))).toBe(RTN_BROADCAST)
    expect(inet_addr_type(ip('10.0.1.0'))).toBe(RTN_BROADCAST)
    expect(answer(through)).toEqual([[], ['through']]) // its neighbours too
    expect(way('30.0.0.1')).toBe(-ENETUNREACH) // but not what `ip route` had added
  })
  test('can be given an address: it answers at once, its subnet comes with the device', () => {
    down(eth1)
    add(eth1, '10.0.7.1')
    expect(inet_addr_type(ip('10.0.7.1'))).toBe(RTN_LOCAL)
    expect(way('10.0.7.2')).toBe(-ENETUNREACH)
    dev_open(eth1)
    expect(way('10.0.7.2')).toBe('eth1')
    del(eth1, '10.0.7.1')
    expect([way('10.0.7.2'), way('10.0.7.1'), way('10.0.1.2')]).toEqual([-ENETUNREACH, -ENETUNREACH, 'eth1'])
  })
  test('leaves its subnet to another device that has it as well', () => {
    add(eth1, '10.0.0.33')
    expect(way('10.0.0.77')).toBe('eth0')
    down(eth0)
    expect(way('10.0.0.77')).toBe('eth1')
    dev_open(eth0)
    expect(way('10.0.0.77')).toBe('eth1')
    del(eth1, '10.0.0.33')
    expect(way('10.0.0.77')).toBe('eth0')
    expect(inet_addr_type(ip('10.0.0.255'))).toBe(RTN_BROADCAST)
  })
  test('for good takes along the routes that had other ways too', () => {
    const gone = alloc_netdev('gone0')!
    expect([register_netdevice(gone), inetdev_init(gone) !== null, dev_open(gone)]).toEqual([0, true, 0])
    add(gone, '10.0.9.1')
    const two = route('41.0.0.0', '10.0.0.2', eth0)
    two.nexthops.push({ gw: ip('10.0.9.2'), dev: gone })
    expect(ip_route_add(two)).toBe(0)
    down(gone)
    expect(way('41.0.0.1')).toBe('eth0')
    ip_link(() => unregister_netdevice(gone))
    expect(way('41.0.0.1')).toBe(-ENETUNREACH)
    s.pass(50)
    expect(gone.refcnt).toBe(1)
    gone.reg_state = NETREG_UNREGISTERED // as netdev_wait_allrefs, when nobody refers to it
    free_netdev(gone)
  })
})

test('a new MTU counts at once for flows that are cached', () => {
  const long = udpFrame({ src: '10.0.0.2', dst: '10.0.1.2' }, counting(1000))
  expect(s.send(0, long)[1]).toHaveLength(1)
  expect(dev_change_mtu(eth1, 576)).toBe(0)
  expect(s.send(0, long)[1]).toHaveLength(2)
  expect(dev_change_mtu(eth1, 1500)).toBe(0)
  expect(s.send(0, long)[1]).toHaveLength(1)
})

describe('addresses', () => {
  const types = (...addrs: string[]): number[] => addrs.map(a => inet_addr_type(ip(a)))
  test('the second of a subnet goes without the subnet, the first one takes the second along', () => {
    add(eth0, '10.0.0.9')
    expect(types('10.0.0.1', '10.0.0.9')).toEqual([RTN_LOCAL, RTN_LOCAL])
    del(eth0, '10.0.0.9')
    expect(types('10.0.0.1', '10.0.0.9', '10.0.0.255')).toEqual([RTN_LOCAL, RTN_UNICAST, RTN_BROADCAST])
    expect([way('10.0.0.77'), answer(through)]).toEqual(['eth0', [[], ['through']]])
    add(eth0, '10.0.0.9')
    del(eth0, '10.0.0.1')
    expect(in_dev_get(eth0)!.ifa_list === null).toBe(true)
    expect(types('10.0.0.1', '10.0.0.9', '10.0.0.255')).toEqual([RTN_UNICAST, RTN_UNICAST, RTN_UNICAST])
    expect(way('10.0.0.77')).toBe(-ENETUNREACH)
    add(eth0, '10.0.0.1')
    expect(answer(icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }, 8))).toEqual([['0 0'], []])
  })
  test('one of two subnets leaves the other what they share', () => {
    add(eth0, '10.0.0.1', 16)
    del(eth0, '10.0.0.1') // the first that is found: /24
    expect(types('10.0.0.1', '10.0.0.0', '10.0.0.255', '10.0.255.255')).toEqual([
      RTN_LOCAL,
      RTN_BROADCAST,
      RTN_UNICAST,
      RTN_BROADCAST,
    ])
    expect(way('10.0.44.1')).toBe('eth0')
    add(eth0, '10.0.0.1')
    del(eth0, '10.0.0.1')
    expect(types('10.0.0.1', '10.0.0.0', '10.0.255.255')).toEqual([RTN_LOCAL, RTN_BROADCAST, RTN_UNICAST])
    expect([way('10.0.44.1'), way('10.0.0.44')]).toEqual([-ENETUNREACH, 'eth0'])
  })
  test('with one go the routes that send from it, over whatever device', () => {
    add(eth1, '10.0.7.1')
    expect(ip_route_add({ ...route('50.0.0.0', '10.0.0.2', eth0), prefsrc: ip('10.0.7.1') })).toBe(0)
    expect(ip_route_add(route('51.0.0.0', '10.0.0.2', eth0))).toBe(0)
    del(eth1, '10.0.7.1')
    expect([way('50.0.0.1'), way('51.0.0.1')]).toEqual([-ENETUNREACH, 'eth0'])
    expect(ip_route_add({ ...route('50.0.0.0', '10.0.0.2', eth0), prefsrc: ip('10.0.7.1') })).toBe(-EINVAL)
    expect(ip_route_del(route('51.0.0.0', '10.0.0.2', eth0))).toBe(0)
  })
})

describe('promote_secondaries', () => {
  const set = (value: number): void => expect(sysctl_write('net.ipv4.conf.eth0.promote_secondaries', value)).toBe(0)
  const list = (): [number, number][] => {
    const all: [number, number][] = []
    for (let a = in_dev_get(eth0)!.ifa_list; a !== null; a = a.ifa_next) all.push([a.ifa_local, a.ifa_flags])
    return all
  }
  test('the first secondary takes the place of the primary that goes; the subnet stays, sent from it', () => {
    set(1)
    add(eth0, '10.0.0.9')
    add(eth0, '10.0.0.10')
    add(eth0, '192.168.0.1')
    expect(list().map(([, flags]) => flags)).toEqual([0, 0, 1, 1])
    del(eth0, '10.0.0.1')
    expect(list()).toEqual([
      [ip('192.168.0.1'), 0],
      [ip('10.0.0.9'), 0],
      [ip('10.0.0.10'), 1],
    ])
    expect(way('10.0.0.77')).toBe('eth0')
    expect(fib_res_prefsrc(res)).toBe(ip('10.0.0.9'))
    const types = ['10.0.0.1', '10.0.0.9', '10.0.0.10', '10.0.0.255'].map(a => inet_addr_type(ip(a)))
    expect(types).toEqual([RTN_UNICAST, RTN_LOCAL, RTN_LOCAL, RTN_BROADCAST])
    set(0)
    del(eth0, '10.0.0.9')
    expect(list()).toEqual([[ip('192.168.0.1'), 0]])
    del(eth0, '192.168.0.1')
    add(eth0, '10.0.0.1')
  })
})

describe('notifier chains', () => {
  test('are called by falling priority, until one says stop; who is off the list hears nothing', () => {
    const heard: string[] = []
    const block = (name: string, priority: number, ret: number): notifier_block => {
      const nb = NOTIFIER.make(kmalloc(NOTIFIER.size))
      nb.priority = priority
      nb.call = symbol(`test_${name}`, (_nb: notifier_block, event: number, data: number) => {
        heard.push(`${name} ${event} ${dev_name(NETDEV.ref(data))}`)
        return ret
      })
      register_netdevice_notifier(nb)
      return nb
    }
    const low = block('low', -10, NOTIFY_DONE)
    const high = block('high', 10, NOTIFY_OK)
    const mid = block('mid', -5, NOTIFY_STOP)
    expect(netdev_notify(eth1, NETDEV_CHANGE)).toBe(NOTIFY_STOP)
    expect(heard.splice(0)).toEqual([`high ${NETDEV_CHANGE} eth1`, `mid ${NETDEV_CHANGE} eth1`])
    unregister_netdevice_notifier(mid)
    down(eth1)
    dev_open(eth1)
    expect(heard.splice(0)).toEqual(
      [NETDEV_GOING_DOWN, NETDEV_DOWN, NETDEV_UP].flatMap(event => [`high ${event} eth1`, `low ${event} eth1`]),
    )
    for (const nb of [low, high, mid]) {
      unregister_netdevice_notifier(nb)
      kfree(nb.addr)
    }
    netdev_notify(eth1, NETDEV_CHANGE)
    expect(heard).toEqual([])
  })
  test('another station address: neighbours that were found by the old one are asked anew', () => {
    down(eth1)
    const entry = neigh_create(ip('10.0.1.77'), eth1)!
    neigh_update(entry, 0x02000000, 5, NUD_STALE, NEIGH_UPDATE_F_ADMIN)
    expect(dev_set_mac_address(eth1, 0x02000000, 0x99)).toBe(0)
    expect([entry.dead, neigh_lookup(ip('10.0.1.77'), eth1)]).toEqual([1, null])
    neigh_release(entry)
    expect(dev_set_mac_address(eth1, 0x02000000, 2)).toBe(0)
    dev_open(eth1)
    expect(dev_set_mac_address(eth1, 0x02000000, 3)).toBe(-EBUSY)
  })
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
    const first = shares(301)
    add(eth1, '10.0.7.1') // which must not take turns from next hops that live
    expect(shares(299).map((n, k) => n + first[k]!)).toEqual([100, 300, 200])
    del(eth1, '10.0.7.1')
    shares(2)
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
