/** net.ipv4.route.* and net.ipv4.inet_peer_*: what 2.6.11 begins with, and that each changes what it says. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { afterEach, describe, expect, test } from 'vitest'
import { EINVAL } from '../../../src/lib/errno.js'
import { find_sysctl, sysctl_names, sysctl_write } from '../../../src/net/core/sysctl.js'
import { inet_getpeer, inet_peers_total, inet_putpeer } from '../../../src/net/ipv4/inetpeer.js'
import { ip_rt_put, rt_cache_flush, rt_entries } from '../../../src/net/ipv4/route.js'
import { ip_route_output } from '../../../src/net/ipv4/route_output.js'
import { clock } from '../../helpers/clock.js'
import { icmpFrame, parse, udpFrame } from '../../helpers/frames.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }], mtu: 200 },
  ],
  routes: [
    {
      ...{ dst: ip('20.0.0.0'), prefixlen: 8, type: 'unicast', metric: 0 },
      nexthops: [{ gw: ip('10.0.1.2'), dev: 'eth1', weight: 1 }],
    },
    {
      ...{ dst: ip('30.0.0.0'), prefixlen: 8, type: 'unicast', metric: 0 },
      nexthops: [{ gw: ip('10.0.0.9'), dev: 'eth0', weight: 1 }],
    },
  ],
  neighbours: [
    { address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } },
    { address: ip('10.0.0.9'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x109 } },
    { address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } },
  ],
})
const HZ = 1000
const DEFAULTS: Record<string, number> = {
  inet_peer_gc_maxtime: 120,
  inet_peer_gc_mintime: 10,
  inet_peer_maxttl: 600,
  inet_peer_minttl: 120,
  inet_peer_threshold: 4096 + 128,
  'route.error_burst': 5 * HZ,
  'route.error_cost': HZ,
  'route.flush': 0,
  'route.gc_elasticity': 8,
  'route.gc_interval': 60,
  'route.gc_min_interval': 0,
  'route.gc_min_interval_ms': 500,
  'route.gc_thresh': 2048,
  'route.gc_timeout': 300,
  'route.max_size': 32768,
  'route.min_adv_mss': 256,
  'route.min_pmtu': 552,
  'route.mtu_expires': 600,
  'route.redirect_load': HZ / 50,
  'route.redirect_number': 9,
  'route.redirect_silence': (HZ / 50) << 10,
  'route.secret_interval': 600,
}
const write = (name: string, value: number): number => sysctl_write(`net.ipv4.${name}`, value)
const set = (values: Record<string, number>): void => {
  for (const [name, value] of Object.entries(values)) expect([name, write(name, value)]).toEqual([name, 0])
}
afterEach(() => {
  for (const [name, value] of Object.entries(DEFAULTS)) if (name !== 'route.gc_min_interval') write(name, value)
  s.pass(5)
})
/** Time goes by, as far as timers see it in one step. */
const later = (seconds: number): void => {
  clock.ns += seconds * 1e9
  s.pass(3)
}
const packet = (k: number): Uint8Array => udpFrame({ src: '10.0.0.2', dst: `20.0.${k >> 8}.${k & 255}` })
const flows = (n: number, from = 0): number => {
  let through = 0
  for (let k = from; k < from + n; k += 100)
    through += s.send(0, ...Array.from({ length: 100 }, (_, i) => packet(k + i)))[1]!.length
  return through
}

test('they are there with the values of 2.6.11, and none takes what makes no sense', () => {
  const names = sysctl_names().filter(n => /^net\.ipv4\.(route\.|inet_peer_)/.test(n))
  const values = Object.fromEntries(names.map(n => [n.slice('net.ipv4.'.length), find_sysctl(n)!.get()]))
  expect(values).toEqual(DEFAULTS)
  for (const name of Object.keys(DEFAULTS))
    if (name !== 'route.flush') expect([name, write(name, -1)]).toEqual([name, -EINVAL])
  set({ 'route.gc_timeout': 7 })
  expect(find_sysctl('net.ipv4.route.gc_timeout')!.get()).toBe(7)
})

describe('the route cache', () => {
  test('flush', () => {
    flows(100)
    expect(rt_entries()).toBeGreaterThan(99)
    set({ 'route.flush': 0 })
    s.pass(5)
    expect(rt_entries()).toBe(0)
  })
  test('gc_thresh and gc_min_interval: it is collected from fewer entries on', () => {
    set({ 'route.gc_thresh': 50, 'route.gc_elasticity': 1, 'route.gc_min_interval_ms': 0, 'route.gc_timeout': 1 })
    flows(300)
    later(2)
    expect(flows(100, 300)).toBe(100)
    s.pass(5)
    expect(rt_entries()).toBeLessThan(200)
  })
  test('max_size: beyond it there is no new route', () => {
    rt_cache_flush()
    s.pass(5)
    set({ 'route.gc_thresh': 0, 'route.max_size': 50, 'route.gc_min_interval': 1000 })
    const { drops } = s.account(() => expect(flows(200)).toBeLessThan(150))
    expect(drops.route_cache_full).toBeGreaterThan(50)
    expect(rt_entries()).toBeLessThan(100)
  })
  test('gc_elasticity: the length of chains', () => {
    rt_cache_flush()
    set({ 'route.gc_elasticity': 1 })
    flows(8000)
    s.pass(5)
    expect(rt_entries()).toBeLessThan(2.1 * 2048)
  })
  test('gc_interval and gc_timeout: what is old goes soon', () => {
    set({ 'route.gc_interval': 1, 'route.gc_timeout': 1 })
    later(61) // the timer that waits
    flows(100)
    expect(rt_entries()).toBeGreaterThan(99)
    for (let k = 0; k < 3; k++) later(1.1)
    s.pass(5)
    expect(rt_entries()).toBe(0)
  })
  test('secret_interval', () => {
    set({ 'route.secret_interval': 1 })
    later(601)
    flows(100)
    expect(rt_entries()).toBeGreaterThan(99)
    later(1.1)
    s.pass(5)
    expect(rt_entries()).toBe(0)
  })
})

test('error_burst and error_cost: how often who asks for no route is told', () => {
  const nowhere = Array.from({ length: 20 }, () => udpFrame({ src: '10.0.0.2', dst: '40.0.0.1' }))
  expect(s.send(0, ...nowhere)[0]).toHaveLength(5)
  rt_cache_flush()
  s.pass(5)
  set({ 'route.error_burst': 4 * HZ, 'route.error_cost': 2 * HZ })
  expect(s.send(0, ...nowhere)[0]).toHaveLength(2)
})

test('redirect_number, redirect_load, redirect_silence: how often a sender hears of a better way', () => {
  const detour = udpFrame({ src: '10.0.0.2', dst: '30.0.0.1' })
  later(2) // the last flush of the tests before
  const told = (): number => s.send(0, detour)[0]!.filter(f => parse(f).icmp?.type === 5).length
  set({ 'route.redirect_number': 1, 'route.redirect_load': 1, 'route.redirect_silence': 3 * HZ })
  expect([told(), told()]).toEqual([1, 0])
  later(1)
  expect(told()).toBe(0) // it has had its one
  later(4)
  expect(told()).toBe(1)
})

describe('a route', () => {
  /** Of this machine to a host behind eth0 or eth1, and what a router says that fits there. */
  const route = (to: string): { mtu: number; advmss: number } => {
    const rt = ip_route_output(ip(to), 0, 0, 0)!
    const { mtu, advmss } = rt.dst
    ip_rt_put(rt)
    return { mtu, advmss }
  }
  const needs = (to: string, mtu: number): void => {
    const about = udpFrame({ src: '10.0.0.1', dst: to, df: true }, new Array(1400)).subarray(14, 14 + 28)
    s.send(0, icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }, 3, 4, mtu, about))
  }
  test('min_pmtu and mtu_expires', () => {
    expect(route('30.0.0.7').mtu).toBe(1500)
    needs('30.0.0.7', 300)
    expect(route('30.0.0.7').mtu).toBe(552)
    rt_cache_flush()
    set({ 'route.min_pmtu': 100, 'route.mtu_expires': 2 })
    route('30.0.0.7')
    needs('30.0.0.7', 300)
    expect(route('30.0.0.7').mtu).toBe(300)
    set({ 'route.gc_interval': 1, 'route.gc_timeout': 1 })
    later(61)
    later(3)
    expect(route('30.0.0.7').mtu).toBe(1500)
  })
  test('min_adv_mss', () => {
    expect(route('20.0.0.7').advmss).toBe(256)
    rt_cache_flush()
    set({ 'route.min_adv_mss': 100 })
    expect(route('20.0.0.7').advmss).toBe(160)
  })
})

test('inet_peer_*: how long a host is remembered, and how often that is looked at', () => {
  const remember = (n: number): void => {
    for (let k = 0; k < n; k++) inet_putpeer(inet_getpeer(ip('50.0.0.0') + k, true)!)
  }
  rt_cache_flush()
  for (let k = 0; k < 20; k++) later(601)
  expect(inet_peers_total()).toBe(0)
  set({ inet_peer_gc_maxtime: 1, inet_peer_gc_mintime: 1, inet_peer_maxttl: 3, inet_peer_minttl: 1 })
  later(121) // the timer that waits
  remember(10)
  later(2)
  expect(inet_peers_total()).toBe(10) // few stay for three seconds
  later(2)
  expect(inet_peers_total()).toBe(0)
  set({ inet_peer_threshold: 5 })
  remember(10)
  expect(inet_peers_total()).toBe(5) // more than that many are not kept unused
  later(1.5)
  expect(inet_peers_total()).toBe(0) // and of many each stays for one
})

test('nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
