import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { NOTIFIER, NOTIFY_DONE, type notifier_block } from '../../../src/irq/notifier.js'
import { netif_carrier_off } from '../../../src/net/core/link_watch.js'
import { neigh_lookup } from '../../../src/net/core/neighbour.js'
import {
  alloc_netdev,
  dev_get_by_index,
  dev_get_by_name,
  dev_hold,
  dev_name,
  dev_put,
  first_netdev,
  free_netdev,
  NETDEV_UNREGISTER,
  register_netdevice,
  register_netdevice_notifier,
  rtnl_lock,
  rtnl_unlock,
  unregister_netdev,
} from '../../../src/net/core/netdevice.js'
import {
  NETREG_REGISTERED,
  NETREG_UNREGISTERED,
  NETREG_UNREGISTERING,
  type net_device,
} from '../../../src/net/core/types.js'
import { in_dev_get } from '../../../src/net/ipv4/devinet.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { udpFrame } from '../../helpers/frames.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const told: string[] = []
const nb = DEFINE_STATIC('test_nb', NOTIFIER)
const heard = symbol('test_heard', (_nb: notifier_block, event: number, data: number) => {
  if (event === NETDEV_UNREGISTER) told.push(dev_name(eth2.addr === data ? eth2 : eth1))
  return NOTIFY_DONE
})

const s = new Script({
  ports: [0, 1, 2].map(k => ({ addresses: [{ local: ip(`10.0.${k}.1`), prefixlen: 24 }] })),
  neighbours: [
    { address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } },
    { address: ip('10.0.2.2'), dev: 'eth2', mac: { hi: 0x02000000, lo: 0x302 } },
  ],
})
const of = (name: string): net_device => {
  const dev = dev_get_by_name(name)!
  dev_put(dev)
  return dev
}
const [eth1, eth2] = [of('eth1'), of('eth2')]
nb.call = heard
register_netdevice_notifier(nb)

/** A process; `ended` says whether it has. */
function process(program: () => Generator<void, void, void>): { ended: boolean } {
  const p = { ended: false }
  kernel_thread(
    'ip',
    symbol('test_ip', function* () {
      yield* program()
      p.ended = true
      return 0
    }),
    0,
  )
  return p
}
function names(): string[] {
  const all: string[] = []
  for (let dev = first_netdev(); dev !== null; dev = dev.next) all.push(dev_name(dev))
  return all
}

test('devices are found by name and by index, as many as come and go', () => {
  const alive = new Map<string, net_device>()
  const p = process(function* () {
    for (let k = 0; k < 300; k++) {
      const dev = alloc_netdev(`dummy${k}`)!
      yield* rtnl_lock()
      expect(register_netdevice(dev)).toBe(0)
      rtnl_unlock()
      alive.set(`dummy${k}`, dev)
      if (alive.size <= 20) continue
      const [name, old] = [...alive][(k * 7) % 20]!
      expect(yield* unregister_netdev(old)).toBe(0)
      expect(yield* unregister_netdev(old)).toBe(-19)
      alive.delete(name)
      expect(dev_get_by_name(name)).toBeNull()
      expect(dev_get_by_index(old.ifindex)).toBeNull()
      free_netdev(old)
      for (const [n, d] of alive) {
        expect(dev_get_by_name(n)).toBe(d)
        expect(dev_get_by_index(d.ifindex)).toBe(d)
        dev_put(d)
        dev_put(d)
      }
    }
  })
  for (let k = 0; k < 100 && !p.ended; k++) s.pass(100)
  expect(p.ended).toBe(true)
  expect(names()).toEqual(['eth0', 'eth1', 'eth2', ...alive.keys()])
  const again = process(function* () {
    yield* rtnl_lock()
    const twin = alloc_netdev([...alive.keys()][3]!)!
    expect(register_netdevice(twin)).toBe(-17)
    rtnl_unlock()
    free_netdev(twin)
    for (const dev of alive.values()) {
      yield* unregister_netdev(dev)
      free_netdev(dev)
    }
  })
  for (let k = 0; k < 100 && !again.ended; k++) s.pass(100)
  expect(names()).toEqual(['eth0', 'eth1', 'eth2'])
})

describe('a device that is unregistered', () => {
  test('is waited for until nobody refers to it; who does is told again each second', () => {
    dev_hold(eth2)
    told.length = 0
    const p = process(function* () {
      expect(yield* unregister_netdev(eth2)).toBe(0)
    })
    s.pass(3500)
    expect([p.ended, eth2.reg_state]).toEqual([false, NETREG_UNREGISTERING])
    expect(names()).toEqual(['eth0', 'eth1'])
    expect(told.length).toBeGreaterThanOrEqual(3)
    expect(told.length).toBeLessThanOrEqual(4)
    expect(() => dev_get_by_name('eth2')).not.toThrow()
    dev_put(eth2)
    s.pass(300)
    expect([p.ended, eth2.reg_state]).toEqual([true, NETREG_UNREGISTERED])
    free_netdev(eth2)
  })
  test('loses addresses, neighbours, routes and cached routes, whatever it was doing', () => {
    const frame = udpFrame({ src: '10.0.0.2', dst: '10.0.1.2' })
    expect(s.send(0, frame)[1]).toHaveLength(1)
    expect(eth1.reg_state).toBe(NETREG_REGISTERED)
    netif_carrier_off(eth1) // and there are news of its carrier
    const p = process(function* () {
      expect(yield* unregister_netdev(eth1)).toBe(0)
    })
    for (let k = 0; k < 50; k++) {
      s.solo.board.nics[0]!.arrive(frame)
      s.pass(20)
    }
    for (let k = 0; k < 40 && !p.ended; k++) s.pass(1000)
    expect([p.ended, eth1.reg_state, eth1.refcnt]).toEqual([true, NETREG_UNREGISTERED, 1])
    expect(in_dev_get(eth1)).toBeNull()
    expect(neigh_lookup(ip('10.0.1.2'), eth1)).toBeNull()
    expect(s.account(() => s.send(0, frame)).drops).toEqual({ ip_no_route: 1 })
    free_netdev(eth1)
  })
})

test('nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
