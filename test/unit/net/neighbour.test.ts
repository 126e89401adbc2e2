import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { RAM } from '../../../src/arch/ram.js'
import { slabinfo } from '../../../src/mm/slab.js'
import { neigh_ifdown, neigh_lookup, neigh_release } from '../../../src/net/core/neighbour.js'
import { dev_get_by_name, dev_put, rtnl_lock, rtnl_unlock } from '../../../src/net/core/netdevice.js'
import { neigh_add_permanent } from '../../../src/net/core/nud.js'
import { in_dev_get, inet_insert_ifa, inetdev_destroy, inetdev_init } from '../../../src/net/ipv4/devinet.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { parse, udpFrame } from '../../helpers/frames.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  neighbours: [{ address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } }],
})
const eth1 = dev_get_by_name('eth1')!
const frame = udpFrame({ src: '10.0.0.2', dst: '10.0.1.2' })
const to = (): string[] => s.send(0, frame)[1]!.map(f => parse(f).to)
const used = (name: string): number => slabinfo().find(c => c.name === name)!.used

describe('the address of a neighbour', () => {
  test('is replaced as a whole: who reads the old one reads it to its end', () => {
    const n = neigh_lookup(ip('10.0.1.2'), eth1)!
    const words = (at: number): number[] => [RAM.i32[at >> 2]!, RAM.i32[(at >> 2) + 1]!]
    const old = n.ha
    expect(words(old)).toEqual([0x02000000, 0x202])
    expect(neigh_add_permanent(ip('10.0.1.2'), eth1, 0x02aabbcc, 0x1234)).toBe(0)
    expect(n.ha).not.toBe(old)
    expect([words(old), words(n.ha)]).toEqual([
      [0x02000000, 0x202],
      [0x02aabbcc, 0x1234],
    ])
    expect(used('neigh_ha')).toBe(2)
    expect(to()).toEqual(['02:aa:bb:cc:12:34'])
    s.pass(200)
    expect(used('neigh_ha')).toBe(1)
    neigh_release(n)
  })
  test('is lost with the neighbour, also while a cached route knows it', () => {
    neigh_ifdown(eth1)
    expect(s.account(() => expect(to()).toEqual([])).drops).toEqual({ neigh_unresolved: 1 })
    expect(neigh_add_permanent(ip('10.0.1.2'), eth1, 0x02000000, 0x203)).toBe(0)
  })
  test('there is no memory for another one: the old one stays', () => {
    s.pass(200)
    const dev = dev_get_by_name('eth0')!
    let n = 0
    while (neigh_add_permanent(ip('10.0.0.3'), dev, 2, n) === 0) n++
    expect(n).toBeGreaterThan(500)
    const neigh = neigh_lookup(ip('10.0.0.3'), dev)!
    expect(RAM.i32[(neigh.ha >> 2) + 1]).toBe(n - 1)
    neigh_release(neigh)
    dev_put(dev)
    s.pass(3000)
    expect(used('neigh_ha')).toBe(used('arp_cache')) // one each, that of the forgotten one included
  })
})

test('the IPv4 side of a device goes when no CPU can look at it any more', () => {
  const before = used('in_device')
  const in_dev = in_dev_get(eth1)!
  const refs = eth1.refcnt
  kernel_thread(
    'ip',
    symbol('test_ip', function* () {
      yield* rtnl_lock()
      inetdev_destroy(eth1)
      rtnl_unlock()
      expect(in_dev_get(eth1)).toBeNull()
      expect(used('in_device')).toBe(before)
      expect(in_dev.dev).toBe(eth1)
      expect(in_dev.cnf.forwarding).toBe(1)
      return 0
    }),
    0,
  )
  s.pass(200)
  expect(used('in_device')).toBe(before - 1)
  expect(eth1.refcnt).toBeLessThan(refs)
  expect(inetdev_init(eth1)).not.toBeNull()
  expect(inet_insert_ifa(eth1, ip('10.0.1.1'), 24)).toBe(0)
})

test('nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  dev_put(eth1)
  expect(s.solo.audit()).toEqual([])
})
