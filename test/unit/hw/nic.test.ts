import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { beforeEach, describe, expect, test } from 'vitest'
import { take_interrupts } from '../../../src/arch/cpu.js'
import { NIC_ITR_FRAMES, NIC_ITR_NS, nic_page } from '../../../src/arch/nic_regs.js'
import { RAM } from '../../../src/arch/ram.js'
import { irq_stats } from '../../../src/irq/interrupt.js'
import { dev_queue_xmit } from '../../../src/net/core/dev.js'
import { dev_get_by_name, dev_put } from '../../../src/net/core/netdevice.js'
import { page_alloc } from '../../../src/net/core/pages.js'
import { alloc_skb, consume_skb, skb_add_frag, skb_put, skb_reserve } from '../../../src/net/core/skbuff.js'
import { ACCT_NONE, CHECKSUM_HW, type net_device } from '../../../src/net/core/types.js'
import { clock } from '../../helpers/clock.js'
import { checksum, counting, parse, udpFrame } from '../../helpers/frames.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const RING = 64
const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }], mtu: 1500 },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }], mtu: 1500 },
  ],
  neighbours: [{ address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } }],
  config: { rx_ring: RING, tx_ring: RING },
})
const frame = (id = 1): Uint8Array => udpFrame({ src: '10.0.0.2', dst: '10.0.1.2', id })
const nic = s.solo.board.nics[0]!
const set = (word: number, value: number): void => {
  RAM.i32[(nic_page(0) + word) >> 2] = value
}
const irqs = (): number => irq_stats.cpu(0).total - irq_stats.cpu(0).timer

beforeEach(() => {
  set(NIC_ITR_NS, 0)
  set(NIC_ITR_FRAMES, 0)
  s.pass(1)
  s.out()
})

test('a full ring: exactly what does not fit is missed, and nothing else', () => {
  const before = s.fates()
  const taken = Array.from({ length: 100 }, (_, k) => nic.arrive(frame(k)))
  expect(taken.filter(Boolean)).toHaveLength(RING)
  expect(taken.slice(0, RING).every(Boolean)).toBe(true)
  s.pass(1)
  const out = s.out()[1]!
  expect(out.map(f => parse(f).id)).toEqual(Array.from({ length: RING }, (_, k) => k))
  expect(s.fates().received - before.received).toBe(RING)
  expect(conserved(s.fates())).toBe(true)
})

test('frames of every size from the shortest to the longest; longer ones are counted as such', () => {
  for (const size of [60, 61, 1513, 1514]) {
    const f = udpFrame({ src: '10.0.0.2', dst: '10.0.1.2' }, counting(size - 42))
    expect(f.length).toBe(size)
    expect(s.send(0, f)[1]).toHaveLength(1)
  }
  expect(nic.arrive(new Uint8Array(9000))).toBe(false)
  expect(nic.arrive(new Uint8Array(13))).toBe(false)
})

describe('interrupt mitigation', () => {
  const arrive = (n: number, gapNs: number): number => {
    const before = irqs()
    for (let k = 0; k < n; k++) {
      nic.arrive(frame(k))
      clock.ns += gapNs
      s.solo.board.nics[0]!.step(clock.ns)
      take_interrupts()
    }
    return irqs() - before
  }
  test('without it each frame interrupts', () => {
    expect(arrive(20, 10_000)).toBe(20)
  })
  test('at most one interrupt in its time', () => {
    set(NIC_ITR_NS, 100_000)
    expect(arrive(20, 10_000)).toBeLessThanOrEqual(3)
    s.pass(1)
    expect(s.out()[1]).toHaveLength(20)
  })
  test('or earlier when that many frames wait', () => {
    set(NIC_ITR_NS, 10_000_000)
    set(NIC_ITR_FRAMES, 5)
    expect(arrive(20, 10_000)).toBe(4)
  })
})

test('a packet in pages is gathered, and its checksum filled in', () => {
  const dev = dev_get_by_name('eth1') as net_device
  const whole = udpFrame({ src: '10.0.1.1', dst: '10.0.1.2' }, counting(300))
  const skb = alloc_skb(200)!
  skb_reserve(skb, 16)
  RAM.u8.set(whole.subarray(0, 42), skb_put(skb, 42))
  for (let at = 42; at < whole.length; at += 150) {
    const page = page_alloc()
    const part = whole.subarray(at, at + 150)
    RAM.u8.set(part, page + 3)
    skb_add_frag(skb, page, 3, part.length)
  }
  skb.h = skb.data + 34
  skb.csum = 6
  skb.ip_summed = CHECKSUM_HW
  skb.acct = ACCT_NONE
  skb.dev = dev
  const pseudo = checksum([...whole.subarray(26, 34), 0, 17, ...whole.subarray(38, 40)])
  RAM.u8[skb.h + 6] = (~pseudo >> 8) & 255
  RAM.u8[skb.h + 7] = ~pseudo & 255
  expect(dev_queue_xmit(skb)).toBe(0)
  s.pass(1)
  const [sent] = s.out()[1]!
  expect([...sent!]).toEqual([...whole])
  dev_put(dev)
})

test('a receive ring that cannot be refilled keeps its buffers: the packet is dropped, the ring stays whole', () => {
  const hoard = []
  for (let skb = alloc_skb(100); skb !== null; skb = alloc_skb(100)) hoard.push(skb)
  const f = s.account(() => s.send(0, ...Array.from({ length: 10 }, (_, k) => frame(k))))
  expect(f).toMatchObject({ received: 10, forwarded: 0, drops: { rx_no_memory: 10 } })
  for (const skb of hoard) consume_skb(skb)
  expect(s.send(0, frame())[1]).toHaveLength(1)
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
