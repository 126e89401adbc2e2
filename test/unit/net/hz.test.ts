/** Times of the protocols on a machine that ticks a hundred times a second: they are the same seconds. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { expect, test } from 'vitest'
import { rt_cache_stats } from '../../../src/net/ipv4/route.js'
import { clock } from '../../helpers/clock.js'
import { parse, udpFrame } from '../../helpers/frames.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const host = (k: number) => ({ address: ip('10.0.0.0') + k, dev: 'eth0', mac: { hi: 0x02000000, lo: 0x100 + k } })
const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  routes: [
    {
      dst: ip('198.51.100.0'),
      prefixlen: 24,
      type: 'unicast',
      metric: 0,
      nexthops: [{ gw: ip('10.0.0.254'), dev: 'eth0', weight: 1 }],
    },
  ],
  neighbours: [host(2), host(3), host(4), host(254)],
  config: { hz: 100 },
})
/** ICMP messages that `n` packets bring. */
function told(n: number, o: { src: string; dst: string; ttl?: number }): number {
  return s
    .send(0, ...Array.from({ length: n }, () => udpFrame(o)))
    .flat()
    .filter(f => parse(f).icmp !== null).length
}

test('ICMP errors: six at once, then one each second', () => {
  s.pass(100)
  const o = { src: '10.0.0.2', dst: '10.0.1.2', ttl: 1 }
  expect(told(20, o)).toBe(6)
  s.pass(1000)
  expect(told(20, o)).toBe(1)
})

test('network unreachable: five at once, then one each second', () => {
  const o = { src: '10.0.0.3', dst: '8.8.8.8' }
  expect(told(20, o)).toBe(5)
  s.pass(1000)
  expect(told(20, o)).toBe(1)
})

test('redirects: the second after 40 ms, the third after 80 more', () => {
  const o = { src: '10.0.0.4', dst: '198.51.100.7' }
  expect(told(1, o)).toBe(1)
  s.pass(70)
  expect(told(1, o)).toBe(1)
  s.pass(50)
  expect(told(1, o)).toBe(0)
  s.pass(60)
  expect(told(1, o)).toBe(1)
})

test('the route cache begins anew every ten minutes', () => {
  const stat = rt_cache_stats.cpu(0)
  const send = (): unknown => s.send(0, udpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }))
  send()
  const slow = stat.in_slow_tot
  send()
  expect(stat.in_slow_tot).toBe(slow)
  clock.ns += 601e9
  s.pass(30)
  send()
  expect(stat.in_slow_tot).toBe(slow + 1)
})

test('nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
