import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { EEXIST, EHOSTUNREACH, EINVAL, ENETUNREACH, ESRCH } from '../../../src/lib/errno.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import { dev_get_by_name, dev_put } from '../../../src/net/core/netdevice.js'
import type { net_device } from '../../../src/net/core/types.js'
import { inet_addr_type, ip_route_add, ip_route_del } from '../../../src/net/ipv4/fib_frontend.js'
import { fib_select_multipath } from '../../../src/net/ipv4/fib_multipath.js'
import { fib_lookup } from '../../../src/net/ipv4/fib_rules.js'
import { fib_res_gw } from '../../../src/net/ipv4/fib_semantics.js'
import {
  FIB_RESULT,
  RT_SCOPE_UNIVERSE,
  RTN_BROADCAST,
  RTN_LOCAL,
  RTN_MULTICAST,
  RTN_THROW,
  RTN_UNICAST,
  RTN_UNREACHABLE,
} from '../../../src/net/ipv4/fib_types.js'
import { inet_make_mask } from '../../../src/net/wire/ipv4.js'
import { ip, Solo } from '../../helpers/solo.js'

const solo = new Solo({ ports: [{ addresses: [{ local: ip('10.0.0.1'), prefixlen: 8 }] }, {}] })
const dev = dev_get_by_name('eth0') as net_device
const res = FIB_RESULT.make(kmalloc(FIB_RESULT.size))

function lookup(addr: number, tos = 0): { err: number; gw: number; prefixlen: number } {
  const err = fib_lookup(addr, 0, tos, 0, 0, RT_SCOPE_UNIVERSE, res)
  return { err, gw: err === 0 ? fib_res_gw(res) : 0, prefixlen: err === 0 ? res.prefixlen : -1 }
}

interface Route {
  dst: number
  prefixlen: number
  gw: number
}
/** Few different bits, so that prefixes nest and collide; gateways of 10/8 are on the link. */
const route: fc.Arbitrary<Route> = fc
  .record({
    net: fc.constantFrom(0xc0a80000, 0xac100000, 0x0b000000, 0xfe000000 >>> 1),
    low: fc.integer({ min: 0, max: 0xffff }),
    prefixlen: fc.integer({ min: 0, max: 32 }),
    gw: fc.integer({ min: 2, max: 250 }),
  })
  .map(r => ({
    dst: (r.net | r.low) & inet_make_mask(r.prefixlen),
    prefixlen: r.prefixlen,
    gw: ip('10.9.9.0') | r.gw,
  }))

const spec = (r: Route) => ({
  dst: r.dst,
  prefixlen: r.prefixlen,
  type: RTN_UNICAST,
  nexthops: [{ gw: r.gw, dev }],
})

/** The oracle: look at every route. */
function naive(routes: Route[], addr: number): Route | null {
  let best: Route | null = null
  for (const r of routes)
    if (((addr ^ r.dst) & inet_make_mask(r.prefixlen)) === 0 && (best === null || r.prefixlen > best.prefixlen))
      best = r
  return best
}

describe('the FIB', () => {
  test('finds what a search through all routes finds, while they come and go', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ route, remove: fc.boolean() }), { maxLength: 40 }),
        fc.array(fc.tuple(route, fc.nat(0xffff)), { minLength: 1, maxLength: 40 }),
        (changes, probes) => {
          let routes: Route[] = []
          for (const { route: r, remove } of changes) {
            const same = (o: Route): boolean => o.dst === r.dst && o.prefixlen === r.prefixlen
            const known = routes.some(same)
            if (remove) {
              expect(ip_route_del({ dst: r.dst, prefixlen: r.prefixlen, type: RTN_UNICAST })).toBe(known ? 0 : -ESRCH)
              routes = routes.filter(o => !same(o))
            } else {
              expect(ip_route_add(spec(r))).toBe(known ? -EEXIST : 0)
              if (!known) routes.push(r)
            }
          }
          for (const [{ dst, prefixlen }, low] of probes) {
            const addr = dst | (low & ~inet_make_mask(prefixlen))
            if (inet_addr_type(addr) !== RTN_UNICAST || ((addr ^ ip('10.0.0.0')) & inet_make_mask(8)) === 0) continue
            const want = naive(routes, addr)
            const got = lookup(addr)
            if (want === null) expect(got.err).toBe(-ENETUNREACH)
            else expect(got).toEqual({ err: 0, gw: want.gw, prefixlen: want.prefixlen })
          }
          for (const r of routes)
            expect(ip_route_del({ dst: r.dst, prefixlen: r.prefixlen, type: RTN_UNICAST })).toBe(0)
        },
      ),
      { numRuns: 200 },
    )
  })

  test('grows its zones and still finds each of 10,000 routes', () => {
    const count = 10_000
    const route_to = (k: number): Route => ({
      dst: ip('20.0.0.0') + (k << 8),
      prefixlen: 24,
      gw: ip('10.1.0.2') + (k & 7),
    })
    for (let k = 0; k < count; k++) expect(ip_route_add(spec(route_to(k)))).toBe(0)
    for (let k = 0; k < count; k++) expect(lookup(route_to(k).dst + 77).gw).toBe(route_to(k).gw)
    for (let k = 0; k < count; k++)
      expect(ip_route_del({ dst: route_to(k).dst, prefixlen: 24, type: RTN_UNICAST })).toBe(0)
    expect(lookup(ip('20.1.2.3')).err).toBe(-ENETUNREACH)
  })

  test('an exact type of service wins over none, and no route for it falls through to the wider one', () => {
    const r = { dst: ip('30.0.0.0'), prefixlen: 8, gw: ip('10.1.0.2') }
    expect(ip_route_add(spec(r))).toBe(0)
    expect(ip_route_add({ ...spec({ ...r, gw: ip('10.1.0.3') }), tos: 0x10 })).toBe(0)
    expect(lookup(ip('30.1.1.1'), 0x10).gw).toBe(ip('10.1.0.3'))
    expect(lookup(ip('30.1.1.1'), 0x08).gw).toBe(ip('10.1.0.2'))
    expect(ip_route_del({ ...r, type: RTN_UNICAST, tos: 0x10 })).toBe(0)
    expect(ip_route_del({ ...r, type: RTN_UNICAST, tos: 0 })).toBe(0)
  })

  test('the route of least priority wins', () => {
    const r = { dst: ip('31.0.0.0'), prefixlen: 8 }
    expect(ip_route_add({ ...spec({ ...r, gw: ip('10.1.0.9') }), priority: 10 })).toBe(0)
    expect(ip_route_add({ ...spec({ ...r, gw: ip('10.1.0.5') }), priority: 5 })).toBe(0)
    expect(lookup(ip('31.2.3.4')).gw).toBe(ip('10.1.0.5'))
    expect(ip_route_del({ ...r, type: RTN_UNICAST, priority: 5 })).toBe(0)
    expect(lookup(ip('31.2.3.4')).gw).toBe(ip('10.1.0.9'))
    expect(ip_route_del({ ...r, type: RTN_UNICAST, priority: 10 })).toBe(0)
  })

  test('multipath gives each next hop its share by weight', () => {
    const dst = ip('40.0.0.0')
    const nexthops = [
      { gw: ip('10.1.0.2'), dev, weight: 1 },
      { gw: ip('10.1.0.3'), dev, weight: 3 },
    ]
    expect(ip_route_add({ dst, prefixlen: 8, type: RTN_UNICAST, nexthops })).toBe(0)
    const seen = new Map<number, number>()
    for (let k = 0; k < 400; k++) {
      expect(lookup(dst + 1).err).toBe(0)
      fib_select_multipath(res)
      seen.set(fib_res_gw(res), (seen.get(fib_res_gw(res)) ?? 0) + 1)
    }
    expect(seen.get(ip('10.1.0.2'))).toBe(100)
    expect(seen.get(ip('10.1.0.3'))).toBe(300)
    expect(ip_route_del({ dst, prefixlen: 8, type: RTN_UNICAST })).toBe(0)
  })

  test('a route may say that there is no way', () => {
    expect(ip_route_add({ dst: ip('50.0.0.0'), prefixlen: 8, type: RTN_UNREACHABLE, nexthops: [] })).toBe(0)
    expect(lookup(ip('50.1.1.1')).err).toBe(-EHOSTUNREACH)
    expect(ip_route_del({ dst: ip('50.0.0.0'), prefixlen: 8, type: RTN_UNREACHABLE })).toBe(0)
  })

  test('a throw route ends the search as if there were none, wider ones or not', () => {
    const wide = { dst: ip('50.0.0.0'), prefixlen: 8, gw: ip('10.1.0.2') }
    const hole = { dst: ip('50.1.0.0'), prefixlen: 16, type: RTN_THROW, nexthops: [] }
    expect([ip_route_add(spec(wide)), ip_route_add(hole)]).toEqual([0, 0])
    expect([lookup(ip('50.1.1.1')).err, lookup(ip('50.2.1.1')).err]).toEqual([-ENETUNREACH, 0])
    expect(ip_route_add({ ...hole, prefixlen: 24, nexthops: spec(wide).nexthops })).toBe(-EINVAL)
    expect(ip_route_del(hole)).toBe(0)
    expect(lookup(ip('50.1.1.1')).err).toBe(0)
    expect(ip_route_del({ ...wide, type: RTN_UNICAST })).toBe(0)
  })

  test.each([
    ['bits beyond its prefix', { dst: ip('60.0.0.1'), prefixlen: 8, gw: ip('10.1.0.2') }, -EINVAL],
    ['prefix length 33', { dst: ip('60.0.0.0'), prefixlen: 33, gw: ip('10.1.0.2') }, -EINVAL],
    ['a gateway on no network', { dst: ip('60.0.0.0'), prefixlen: 8, gw: ip('99.1.0.2') }, -ENETUNREACH],
  ])('a route with %s is refused', (_what, r, err) => {
    expect(ip_route_add(spec(r))).toBe(err)
  })
})

test('addresses have types', () => {
  expect(inet_addr_type(ip('10.0.0.1'))).toBe(RTN_LOCAL)
  expect(inet_addr_type(ip('10.0.0.2'))).toBe(RTN_UNICAST)
  expect(inet_addr_type(ip('10.255.255.255'))).toBe(RTN_BROADCAST)
  expect(inet_addr_type(ip('10.0.0.0'))).toBe(RTN_BROADCAST)
  expect(inet_addr_type(ip('224.0.0.9'))).toBe(RTN_MULTICAST)
  expect(inet_addr_type(-1)).toBe(RTN_BROADCAST)
})

test('nothing leaks', () => {
  dev_put(dev)
  kfree(res.addr)
  expect(solo.audit()).toEqual([])
})
