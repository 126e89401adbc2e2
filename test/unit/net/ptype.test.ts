import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { beforeEach, describe, expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { RAM } from '../../../src/arch/ram.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import { netif_rx } from '../../../src/net/core/dev.js'
import { fate_received } from '../../../src/net/core/fate.js'
import { dev_get_by_name, dev_put } from '../../../src/net/core/netdevice.js'
import { neigh_add_permanent } from '../../../src/net/core/nud.js'
import { dev_add_pack, dev_remove_pack, PACKET_TYPE, type packet_type } from '../../../src/net/core/packet_type.js'
import { alloc_skb, consume_skb, kfree_skb, skb_copy, skb_put, skb_share_check } from '../../../src/net/core/skbuff.js'
import { net_disable_timestamp, net_enable_timestamp } from '../../../src/net/core/stamp.js'
import { ACCT_RX, type net_device, type sk_buff } from '../../../src/net/core/types.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { clock } from '../../helpers/clock.js'
import { counting, ethernet, icmpFrame, parse, udpFrame } from '../../helpers/frames.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  neighbours: [{ address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } }],
})
const eth0 = dev_get_by_name('eth0')!
const ETH_P_ALL = 3
const log: string[] = []
const kept: sk_buff[] = []
const stamps: [number, number][] = []
type Handler = (skb: sk_buff, dev: net_device, pt: packet_type) => number

/** A handler that notes what it sees, and does what `then` says with its reference. */
function handler(name: string, then: (skb: sk_buff) => void): ReturnType<typeof symbol<Handler>> {
  return symbol(`test_${name}`, (skb: sk_buff) => {
    log.push(`${name} ${skb.len} ${skb.users}`)
    stamps.push([RAM.i32[skb.stamp >> 2]!, RAM.i32[(skb.stamp >> 2) + 1]!])
    then(skb)
    return 0
  })
}
const frees = handler('frees', skb => kfree_skb(skb))
const keeps = handler('keeps', skb => kept.push(skb))
const changes = handler('changes', skb => {
  const own = skb_share_check(skb)! // what every handler does that wants to change it
  kept.push(own)
})

const registered: packet_type[] = []
function register(type: number, func: typeof frees, dev: net_device | null = null): void {
  const pt = PACKET_TYPE.make(kmalloc(PACKET_TYPE.size))
  pt.type = type
  pt.dev = dev
  pt.func = func
  dev_add_pack(pt)
  registered.push(pt)
}
const remove = symbol('test_remove', function* () {
  for (const pt of registered) yield* dev_remove_pack(pt)
  return 0
})
/** Nobody listens any more, and everything that was kept is given back. */
function reset(): void {
  kernel_thread('remove', remove, 0)
  s.pass(200)
  for (const pt of registered.splice(0)) kfree(pt.addr)
  for (const skb of kept.splice(0)) kfree_skb(skb)
  log.length = 0
  stamps.length = 0
}
beforeEach(reset)

const frame = udpFrame({ src: '10.0.0.2', dst: '10.0.1.2' }, counting(20))
const LEN = 48 // of the packet in it: but for the padding, which the NIC hands up
const seen = (): string[] => log.map(l => l.split(' ')[0]!)

describe('more than one handler', () => {
  test('every tap and every handler of the protocol sees the packet; it is forwarded, and counted once', () => {
    register(ETH_P_ALL, frees)
    register(ETH_P_ALL, keeps)
    register(0x0800, changes)
    register(0x0800, keeps)
    const f = s.account(() => expect(s.send(0, frame)[1]).toHaveLength(1))
    expect(f).toMatchObject({ received: 1, forwarded: 1, drops: {} })
    expect(seen().sort()).toEqual(['changes', 'frees', 'frees', 'keeps', 'keeps', 'keeps'])
    const lengths = log.map(l => Number(l.split(' ')[1]))
    expect(lengths).toEqual([LEN, LEN, LEN, LEN, LEN + 14, LEN + 14]) // the taps once more on its way out, with its header
    const after = s.account(() => {
      for (const skb of kept.splice(0)) kfree_skb(skb)
    })
    expect(after).toMatchObject({ received: 0, forwarded: 0, drops: {} })
  })
  test('what a tap keeps is not what the router changes', () => {
    register(ETH_P_ALL, keeps)
    expect(s.send(0, frame)[1]).toHaveLength(1)
    const [skb] = kept
    expect([...RAM.u8.subarray(skb!.data, skb!.data + LEN)]).toEqual([...frame.subarray(14, 14 + LEN)])
  })
  test('nor what it answers with: the times of an ICMP timestamp', () => {
    neigh_add_permanent(ip('10.0.0.2'), eth0, 0x02000000, 0x102)
    const ask = icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }, 13, 0, 1, [0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 7])
    register(ETH_P_ALL, keeps)
    const [answer] = s.send(0, ask)[0]!.map(f => parse(f))
    expect(answer!.icmp).toMatchObject({ type: 14, checksumGood: true })
    expect([...answer!.icmp!.data.subarray(0, 4)]).toEqual([0, 0, 0, 5])
    expect(answer!.icmp!.data[4]! & 0x80).toBe(0x80)
    const [skb] = kept
    expect([...RAM.u8.subarray(skb!.data, skb!.data + 40)]).toEqual([...ask.subarray(14, 54)])
  })
  test('the last one owns the packet without a further reference', () => {
    register(0x0800, frees) // before ip_rcv
    register(0x1230, frees) // the same bucket, another protocol
    register(0x1230, frees, dev_get_by_name('eth1'))
    expect(s.send(0, frame)[1]).toHaveLength(1)
    expect(log).toEqual([`frees ${LEN} 2`])
    log.length = 0
    const f = s.account(() => s.send(0, ethernet(counting(46), { type: 0x1230 })))
    expect(f).toMatchObject({ received: 1, drops: { not_specified: 1 } })
    expect(log).toEqual(['frees 46 1'])
    dev_put(registered[2]!.dev!)
  })
  test('a handler of one device hears of that device only', () => {
    const eth1 = dev_get_by_name('eth1')!
    register(0x0800, frees, eth1)
    register(ETH_P_ALL, frees, eth1)
    expect(s.send(0, frame)[1]).toHaveLength(1)
    expect(log).toEqual([`frees ${LEN + 14} 1`]) // the tap, what goes out there
    dev_put(eth1)
  })
  test('what only taps want is of an unknown protocol', () => {
    register(ETH_P_ALL, keeps)
    register(ETH_P_ALL, frees)
    const f = s.account(() => {
      s.send(0, ethernet(counting(46), { type: 0x88cc }))
      for (const skb of kept.splice(0)) kfree_skb(skb)
    })
    expect(f).toMatchObject({ received: 1, drops: { eth_unknown_protocol: 1 } })
    expect(seen().sort()).toEqual(['frees', 'keeps'])
  })
  test('no memory to clone what a tap keeps: dropped as that', () => {
    register(ETH_P_ALL, keeps)
    const hoard: sk_buff[] = []
    for (let skb = alloc_skb(100); skb !== null; skb = alloc_skb(100)) hoard.push(skb)
    consume_skb(hoard.pop()!) // the one to refill the ring with
    const f = s.account(() => s.send(0, frame))
    for (const skb of hoard) consume_skb(skb)
    expect(f).toMatchObject({ received: 1, forwarded: 0, drops: { no_memory: 1 } })
    expect(seen()).toEqual(['keeps'])
  })
})

describe('stamps', () => {
  test('nobody asks: none', () => {
    register(ETH_P_ALL, frees)
    s.send(0, frame)
    expect(stamps).toEqual([
      [0, 0],
      [0, 0],
    ])
  })
  test('somebody asks: the time at which the packet came in, until the last one asks no more', () => {
    register(ETH_P_ALL, frees)
    net_enable_timestamp()
    net_enable_timestamp()
    net_disable_timestamp()
    const before = clock.ns
    s.send(0, frame)
    net_disable_timestamp()
    s.send(0, frame)
    const [[sec, usec], out] = stamps as [[number, number], [number, number]]
    expect(sec * 1e9 + usec * 1e3).toBeGreaterThanOrEqual(before - 1000)
    expect(sec * 1e9 + usec * 1e3).toBeLessThanOrEqual(before + 500_000)
    expect(out).toEqual([sec, usec])
    expect(stamps.slice(2)).toEqual([
      [0, 0],
      [0, 0],
    ])
  })
  test('netif_rx stamps a packet when it is queued, not when its turn comes; a copy has the stamp of the original', () => {
    register(ETH_P_ALL, keeps)
    net_enable_timestamp()
    const skb = alloc_skb(100)!
    skb.dev = eth0
    skb.mac = skb_put(skb, 60)
    skb.protocol = 0x88cc
    skb.acct = ACCT_RX
    fate_received()
    const queued = Math.floor(clock.ns / 1000)
    netif_rx(skb)
    clock.ns += 3_000_000
    s.pass(1)
    net_disable_timestamp()
    expect(stamps).toEqual([[Math.floor(queued / 1e6), queued % 1e6]])
    const copy = skb_copy(kept[0]!)!
    expect(RAM.i32[(copy.stamp >> 2) + 1]).toBe(queued % 1e6)
    kept.push(copy)
  })
})

test('nothing leaks', () => {
  reset()
  dev_put(eth0)
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
