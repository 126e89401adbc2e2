/** The table of neighbours: it fills up, it empties, and what is permanent stays. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { afterEach, describe, expect, test } from 'vitest'
import { NEIGH_GC_THRESH2, NEIGH_GC_THRESH3 } from '../../../src/lib/limits.js'
import { arp_tbl, neigh_create, neigh_ifdown, neigh_lookup, neigh_release } from '../../../src/net/core/neighbour.js'
import { dev_get_by_name, dev_put } from '../../../src/net/core/netdevice.js'
import { neigh_add_permanent } from '../../../src/net/core/nud.js'
import type { neighbour } from '../../../src/net/core/types.js'
import { rt_cache_flush, rt_entries } from '../../../src/net/ipv4/route.js'
import { clock } from '../../helpers/clock.js'
import { parse, udpFrame } from '../../helpers/frames.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.1.0.1'), prefixlen: 16 }] },
  ],
  neighbours: [
    { address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } },
    { address: ip('10.1.0.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } },
  ],
})
const dev = dev_get_by_name('eth1')!
/** Address number k on eth1; 10.1.0.2 is not among them. */
const key = (k: number): number => ip('10.1.1.0') + k
const text = (k: number): string => `10.1.${1 + (k >> 8)}.${k & 255}`
const ask = (k: number): Uint8Array => udpFrame({ src: '10.0.0.2', dst: text(k) })

function known(k: number): boolean {
  const n = neigh_lookup(key(k), dev)
  if (n !== null) neigh_release(n)
  return n !== null
}
/** An entry that nobody refers to. */
function mention(k: number): boolean {
  const n = neigh_create(key(k), dev)
  if (n !== null) neigh_release(n)
  return n !== null
}
function seconds(n: number): void {
  for (let k = 0; k < n; k++) {
    clock.ns += 1e9
    s.pass(0.2)
  }
}

afterEach(() => {
  rt_cache_flush()
  neigh_ifdown(dev, true)
  expect(arp_tbl.entries).toBe(0)
})

describe('the table', () => {
  test('takes any number of addresses that are only mentioned, and stays small', () => {
    for (let k = 0; k < 3000; k++) {
      expect(mention(k)).toBe(true)
      expect(arp_tbl.entries).toBeLessThanOrEqual(NEIGH_GC_THRESH3)
    }
    seconds(6) // the last collection is longer than five seconds ago: half of the room is enough
    while (arp_tbl.entries < NEIGH_GC_THRESH2) mention(4000 + arp_tbl.entries)
    expect(mention(5000)).toBe(true)
    expect(arp_tbl.entries).toBe(1)
  })
  test('is full when all entries are in use, but not for permanent ones', () => {
    const held: neighbour[] = []
    for (let k = 0; k < NEIGH_GC_THRESH3; k++) held.push(neigh_create(key(k), dev)!)
    expect(mention(2000)).toBe(false)
    for (let k = 3000; k < 5000; k++) expect(neigh_add_permanent(key(k), dev, 0x02000000, k)).toBe(0)
    expect(arp_tbl.entries).toBe(NEIGH_GC_THRESH3)
    expect(neigh_add_permanent(key(0), dev, 0x02000000, 1)).toBe(0) // one of them becomes permanent
    expect(mention(2000)).toBe(true)
    for (const n of held) neigh_release(n)
    expect(mention(2001)).toBe(true)
    seconds(90)
    expect([0, 3000, 4999, 1, 2000, 2001].map(known)).toEqual([true, true, true, false, false, false])
  })
  test('forgets within a minute and a quarter what nobody has asked for', () => {
    mention(1)
    const held = neigh_create(key(2), dev)!
    seconds(50)
    expect(known(1)).toBe(true)
    seconds(26)
    expect([known(1), known(2)]).toEqual([false, true])
    neigh_release(held)
    seconds(16)
    expect(known(2)).toBe(false)
  })
})

describe('a scan of a network where nobody answers', () => {
  const told = (out: Uint8Array[][]): number => out[0]!.filter(f => parse(f).icmp?.code === 1).length
  test('does not fill it for good: senders are still told, others get through, all is accounted for', () => {
    const count = 6000
    let errors = 0
    const f = s.account(() => {
      for (let k = 0; k < count; k += 50) {
        const out = s.send(
          0,
          ...Array.from({ length: 50 }, (_, n) => ask(6000 + k + n)),
          udpFrame({ src: '10.0.0.2', dst: '10.1.0.2' }),
        )
        expect(out[1]).toHaveLength(1)
        errors += told(out)
        expect(arp_tbl.entries).toBeLessThanOrEqual(NEIGH_GC_THRESH3)
        clock.ns += 100e6
        s.pass(1)
      }
    })
    expect(f).toMatchObject({ received: count + 120, forwarded: 120, drops: { neigh_unresolved: count } })
    expect(errors).toBeGreaterThanOrEqual(6 + 11)
    expect(f.icmp_sent).toBe(errors)
  })
  test('and is forgotten: routes that lead to nobody go with the next round of the collectors', () => {
    for (let k = 0; k < 2000; k += 50) s.send(0, ...Array.from({ length: 50 }, (_, n) => ask(20_000 + k + n)))
    expect(arp_tbl.entries).toBeGreaterThan(500)
    seconds(400)
    expect(arp_tbl.entries).toBe(0)
    expect(rt_entries()).toBeLessThan(10)
  })
})

test('nothing leaks', () => {
  dev_put(dev)
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
