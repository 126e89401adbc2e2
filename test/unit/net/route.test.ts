import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { ENETUNREACH } from '../../../src/lib/errno.js'
import { RT_CACHE_ENTRIES, RT_HASH_BUCKETS } from '../../../src/lib/limits.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import { rt_cache_flush, rt_cache_stats, rt_entries } from '../../../src/net/ipv4/route.js'
import { rt_may_expire } from '../../../src/net/ipv4/route_gc.js'
import { ip_route_output_key } from '../../../src/net/ipv4/route_output.js'
import { RTABLE, RTCF_BROADCAST, RTCF_LOCAL, RTCF_REDIRECTED, type rtable } from '../../../src/net/ipv4/types.js'
import { clock } from '../../helpers/clock.js'
import { icmpFrame, parse, udpFrame } from '../../helpers/frames.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  routes: [
    {
      dst: 0,
      prefixlen: 0,
      type: 'unicast',
      metric: 0,
      nexthops: [
        { gw: ip('10.0.1.2'), dev: 'eth1', weight: 1 },
        { gw: ip('10.0.1.3'), dev: 'eth1', weight: 1 },
      ],
    },
  ],
  neighbours: [
    { address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } },
    { address: ip('10.0.1.3'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x203 } },
  ],
})
const stat = rt_cache_stats.cpu(0)
const to = (k: number): string => `20.${(k >> 16) & 255}.${(k >> 8) & 255}.${k & 255}`
const packet = (k: number): Uint8Array => udpFrame({ src: '10.0.0.2', dst: to(k), id: k & 0xffff })

describe('an entry', () => {
  interface Entry {
    age: number
    flags?: number
    iif?: number
    refcnt?: number
    /** From now. */
    expires?: number
  }
  const now = 10_000
  function entry(e: Entry): rtable {
    const r = RTABLE.make(kmalloc(RTABLE.size))
    r.dst.next = r.dst // not the last of its chain
    r.dst.refcnt = e.refcnt ?? 0
    r.dst.lastuse = now - e.age
    r.dst.expires = e.expires === undefined ? 0 : now + e.expires
    r.rt_flags = e.flags ?? 0
    r.fl_iif = e.iif ?? 1
    return r
  }
  test.each<[string, boolean, Entry]>([
    ['unused for a while', true, { age: 11 }],
    ['used lately', false, { age: 10 }],
    ['in use', false, { age: 200, refcnt: 1, expires: -1 }],
    ['of a broadcast, used lately', true, { age: 1, flags: RTCF_BROADCAST | RTCF_LOCAL }],
    ['of a broadcast of our own', false, { age: 1, flags: RTCF_BROADCAST | RTCF_LOCAL, iif: 0 }],
    ['learnt from a redirect', false, { age: 100, flags: RTCF_REDIRECTED }],
    ['learnt from a redirect long ago', true, { age: 101, flags: RTCF_REDIRECTED }],
    ['that counts for some time yet', false, { age: 100, expires: 1 }],
    ['whose time is over', true, { age: 1, expires: 0 }],
  ])('%s may expire: %s', (_what, may, e) => {
    const r = entry(e)
    expect(rt_may_expire(r, now, 10, 100)).toBe(may)
    kfree(r.addr)
  })
})

describe('the route cache', () => {
  test('answers the second packet of a flow, and the flow keeps its next hop', () => {
    const before = { hit: stat.in_hit, slow: stat.in_slow_tot }
    const hops = Array.from({ length: 10 }, () => parse(s.send(0, packet(1))[1]![0]!).to)
    expect(new Set(hops).size).toBe(1)
    expect([stat.in_slow_tot - before.slow, stat.in_hit - before.hit]).toEqual([1, 9])
  })
  test('forgets everything when it is flushed', () => {
    rt_cache_flush()
    s.pass(5)
    expect(rt_entries()).toBe(0)
    expect(s.send(0, packet(1))[1]).toHaveLength(1)
  })
  test('keeps the flows through this router when a flood of packets for itself makes its chains long', () => {
    const flows = Array.from({ length: 100 }, (_, k) => packet(k))
    expect(s.send(0, ...flows)[1]).toHaveLength(100)
    for (let k = 0; k < 25_000; k += 200)
      s.send(0, ...Array.from({ length: 200 }, (_, n) => icmpFrame({ src: to(k + n), dst: '10.0.0.1' }, 0)))
    expect(rt_entries()).toBeGreaterThan(8 * RT_HASH_BUCKETS * 0.9)
    const slow = stat.in_slow_tot
    expect(s.send(0, ...flows)[1]).toHaveLength(100)
    expect(stat.in_slow_tot).toBe(slow)
  })
  test('is collected when a scan of addresses fills it; everything is forwarded all the same', () => {
    const count = 3 * RT_CACHE_ENTRIES
    const collected = stat.gc_total
    for (let k = 0; k < count; k += 200) {
      const out = s.send(0, ...Array.from({ length: 200 }, (_, n) => packet(k + n)))
      expect(out[1]).toHaveLength(200)
      expect(rt_entries()).toBeLessThanOrEqual(RT_CACHE_ENTRIES)
    }
    expect(stat.gc_total).toBeGreaterThan(collected)
    expect(conserved(s.fates())).toBe(true)
  })
  test('shrinks by itself when nobody sends', () => {
    for (let k = 0; k < 40; k++) {
      clock.ns += 60e9
      s.pass(1)
    }
    expect(rt_entries()).toBeLessThan(RT_HASH_BUCKETS)
  })
  test('gets another secret every ten minutes, and begins anew', () => {
    s.send(0, packet(5))
    expect(rt_entries()).toBeGreaterThan(0)
    const slow = stat.in_slow_tot
    s.send(0, packet(5))
    expect(stat.in_slow_tot).toBe(slow)
    clock.ns += 601e9
    s.pass(3)
    s.send(0, packet(5))
    expect(stat.in_slow_tot).toBe(slow + 1)
  })
})

test('a machine without loopback has no way to itself', () => {
  expect(ip_route_output_key(ip('10.0.0.1'), 0, 0, 0)).toBe(-ENETUNREACH)
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
