/** The device lo, and the ways of packets of this machine's own. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { RAM } from '../../../src/arch/ram.js'
import { dev_stats } from '../../../src/fs/proc.js'
import { EINVAL, ENODEV } from '../../../src/lib/errno.js'
import { packet_fates } from '../../../src/net/core/fate.js'
import { dev_get_by_name, dev_put } from '../../../src/net/core/netdevice.js'
import { alloc_skb, skb_put, skb_reserve } from '../../../src/net/core/skbuff.js'
import { ACCT_LOCAL, NUD_NOARP } from '../../../src/net/core/types.js'
import { inet_select_addr } from '../../../src/net/ipv4/devinet.js'
import { RT_SCOPE_HOST, RT_SCOPE_LINK } from '../../../src/net/ipv4/fib_types.js'
import { icmp_statistics } from '../../../src/net/ipv4/icmp.js'
import { ip_local_out } from '../../../src/net/ipv4/ip_output.js'
import { ip_rt_put } from '../../../src/net/ipv4/route.js'
import { ip_route_connect, ip_route_output_key } from '../../../src/net/ipv4/route_output.js'
import { RTABLE, RTCF_BROADCAST, RTCF_LOCAL, type rtable } from '../../../src/net/ipv4/types.js'
import {
  set_ip_daddr,
  set_ip_frag_off,
  set_ip_id,
  set_ip_protocol,
  set_ip_saddr,
  set_ip_tos,
  set_ip_ttl,
  set_ip_vhl,
} from '../../../src/net/wire/ipv4.js'
import { icmp, parse } from '../../helpers/frames.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [{ addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] }],
  routes: [
    { dst: 0, prefixlen: 0, type: 'unicast', metric: 0, nexthops: [{ gw: ip('10.0.0.2'), dev: 'eth0', weight: 1 }] },
  ],
  neighbours: [{ address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } }],
  config: { loopback: 1 },
})
const lo = dev_get_by_name('lo')!
const eth0 = dev_get_by_name('eth0')!

/** Ask for a way; what is looked at is given back by `done`. */
function route(daddr: string, saddr = '0.0.0.0', oif = 0): number {
  const r = ip_route_output_key(ip(daddr), ip(saddr), 0, oif)
  if (r > 0) ip_rt_put(RTABLE.ref(r))
  return r
}
const seen = (r: number): Partial<rtable> => {
  expect(r).toBeGreaterThan(0)
  const { rt_dst, rt_src, rt_flags, rt_gateway, dst } = RTABLE.ref(r)
  return { rt_dst, rt_src, rt_flags, rt_gateway, dst }
}

describe('a route of our own', () => {
  test.each(['127.0.0.1', '127.9.9.9', '10.0.0.1'])('to %s leads through lo, from there', to => {
    const r = seen(route(to))
    expect(r).toMatchObject({ rt_dst: ip(to), rt_src: ip(to), rt_flags: RTCF_LOCAL })
    expect(r.dst!.dev).toBe(lo)
    expect(r.dst!.mtu).toBe(16436)
    expect(r.dst!.neighbour).toMatchObject({ primary_key: 0, nud_state: NUD_NOARP })
  })
  test('to nobody in particular is to 127.0.0.1', () => {
    expect(seen(route('0.0.0.0'))).toMatchObject({ rt_dst: ip('127.0.0.1'), rt_src: ip('127.0.0.1') })
    expect(seen(route('0.0.0.0', '10.0.0.1'))).toMatchObject({ rt_dst: ip('10.0.0.1'), rt_src: ip('10.0.0.1') })
  })
  test('to the link and beyond', () => {
    expect(seen(route('10.0.0.9'))).toMatchObject({ rt_src: ip('10.0.0.1'), rt_gateway: ip('10.0.0.9'), rt_flags: 0 })
    expect(seen(route('192.0.2.1'))).toMatchObject({ rt_src: ip('10.0.0.1'), rt_gateway: ip('10.0.0.2') })
  })
  test('to everybody on a link', () => {
    const flags = RTCF_BROADCAST | RTCF_LOCAL
    const one = seen(route('10.0.0.255'))
    expect(one).toMatchObject({ rt_src: ip('10.0.0.1'), rt_flags: flags })
    expect(one.dst!.dev).toBe(eth0)
    expect(seen(route('255.255.255.255', '10.0.0.1')).dst!.dev).toBe(eth0)
    expect(seen(route('255.255.255.255', '0.0.0.0', eth0.ifindex))).toMatchObject({
      rt_src: ip('10.0.0.1'),
      rt_flags: flags,
    })
  })
  test.each([
    ['from an address that is not ours', route('10.0.0.9', '10.0.0.8'), -EINVAL],
    ['from a group', route('10.0.0.9', '224.0.0.1'), -EINVAL],
    ['from loopback to the wire', route('10.0.0.9', '127.0.0.1'), -EINVAL],
    ['through a device that is not there', route('10.0.0.9', '0.0.0.0', 77), -ENODEV],
    ['to class E', route('240.0.0.1'), -EINVAL],
  ])('%s there is none', (_what, found, error) => {
    expect(found).toBe(error)
  })
  test('of a connection has both addresses', () => {
    const r = ip_route_connect(ip('192.0.2.1'), 0, 0, 0)
    expect(RTABLE.ref(r)).toMatchObject({ fl_dst: ip('192.0.2.1'), fl_src: ip('10.0.0.1') })
    ip_rt_put(RTABLE.ref(r))
  })
  test('an address of loopback is no source for a link', () => {
    expect(inet_select_addr(lo, 0, RT_SCOPE_LINK)).toBe(ip('10.0.0.1'))
    expect(inet_select_addr(lo, 0, RT_SCOPE_HOST)).toBe(ip('127.0.0.1'))
  })
})

/** An echo request of this machine. */
function ping(daddr: string, data: number): void {
  const rt = RTABLE.ref(ip_route_output_key(ip(daddr), 0, 0, 0))
  const message = icmp(8, 0, 1, new Uint8Array(data))
  const skb = alloc_skb(64 + message.length)!
  skb_reserve(skb, 16)
  skb.nh = skb_put(skb, 20 + message.length)
  RAM.u8.set(message, skb.nh + 20)
  skb.dst = rt.dst
  skb.acct = ACCT_LOCAL
  packet_fates.mine.local_made++
  set_ip_vhl(skb.nh, 20)
  set_ip_tos(skb.nh, 0)
  set_ip_id(skb.nh, 1)
  set_ip_frag_off(skb.nh, 0)
  set_ip_ttl(skb.nh, 64)
  set_ip_protocol(skb.nh, 1)
  set_ip_saddr(skb.nh, rt.rt_src)
  set_ip_daddr(skb.nh, rt.rt_dst)
  ip_local_out(skb)
}

describe('a packet over lo', () => {
  test.each(['127.0.0.1', '10.0.0.1'])('an echo request to %s is answered', to => {
    const mib = icmp_statistics.cpu(0)
    const before = { echos: mib.InEchos, replies: mib.InEchoReps, packets: dev_stats(lo).tx_packets! }
    const f = s.account(() => {
      ping(to, 100)
      s.pass(1)
    })
    expect([mib.InEchos - before.echos, mib.InEchoReps - before.replies]).toEqual([1, 1])
    expect(dev_stats(lo)).toMatchObject({ tx_packets: before.packets + 2, rx_packets: before.packets + 2 })
    expect(f).toMatchObject({ received: 2, delivered: 2, icmp_sent: 1 })
    expect(s.out()[0]).toEqual([])
  })
  test('to everybody: on the wire, and to this machine', () => {
    const mib = icmp_statistics.cpu(0)
    const before = mib.InEchos
    ping('10.0.0.255', 50)
    s.pass(1)
    expect(mib.InEchos - before).toBe(1)
    expect(s.out()[0]!.map(parse)).toMatchObject([{ to: 'ff:ff:ff:ff:ff:ff', dst: '10.0.0.255', src: '10.0.0.1' }])
  })
})

test('every packet is accounted for, and nothing leaks', () => {
  const { local_made, local_sent, local_dropped } = packet_fates.cpu(0)
  expect(local_made).toBe(local_sent + local_dropped)
  expect(conserved(s.fates())).toBe(true)
  dev_put(lo)
  dev_put(eth0)
  expect(s.solo.audit()).toEqual([])
})
