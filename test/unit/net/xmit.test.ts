import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { beforeEach, describe, expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { local_irq_restore, local_irq_save } from '../../../src/arch/cpu.js'
import { NIC_CTRL, NIC_OFFLOAD, nic_page, OFF_RX_CSUM, OFF_TX_CSUM } from '../../../src/arch/nic_regs.js'
import { RAM } from '../../../src/arch/ram.js'
import { dev_kfree_skb_any, dev_queue_xmit } from '../../../src/net/core/dev.js'
import { alloc_netdev, dev_get_by_name, dev_put, register_netdevice } from '../../../src/net/core/netdevice.js'
import { page_alloc } from '../../../src/net/core/pages.js'
import {
  alloc_skb,
  consume_skb,
  skb_add_frag,
  skb_clone,
  skb_copy_bits,
  skb_get,
  skb_put,
  skb_reserve,
  skb_shinfo,
} from '../../../src/net/core/skbuff.js'
import {
  ACCT_ICMP,
  CHECKSUM_HW,
  CHECKSUM_NONE,
  NETIF_F_FRAGLIST,
  NETIF_F_HW_CSUM,
  NETIF_F_IP_CSUM,
  NETIF_F_NO_CSUM,
  NETIF_F_SG,
  NETIF_F_TSO,
  type net_device,
  type sk_buff,
} from '../../../src/net/core/types.js'
import { checksum, counting, udpFrame } from '../../helpers/frames.js'
import { Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [{ addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] }],
})
const eth0 = dev_get_by_name('eth0')!
const whole = udpFrame({ src: '10.0.1.1', dst: '10.0.1.2' }, counting(401))
const HEAD = 42

/** A piece of the frame in a packet of its own. */
function piece(from: number, to: number): sk_buff {
  const skb = alloc_skb(600)!
  skb_reserve(skb, 16)
  RAM.u8.set(whole.subarray(from, to), skb_put(skb, to - from))
  return skb
}
/** The frame for a device, its head alone in the data block. */
function head(dev: net_device, end = HEAD): sk_buff {
  const skb = piece(0, end)
  skb.dev = dev
  skb.protocol = 0x0800
  skb.nh = skb.data + 14
  skb.h = skb.data + 34
  skb.acct = ACCT_ICMP // of this machine's own
  return skb
}
function in_pages(skb: sk_buff): sk_buff {
  for (let at = HEAD; at < whole.length; at += 150) {
    const page = page_alloc()
    const part = whole.subarray(at, at + 150)
    RAM.u8.set(part, page + 1)
    skb_add_frag(skb, page, 1, part.length)
  }
  return skb
}
function in_list(skb: sk_buff): sk_buff {
  const parts = [piece(HEAD, 200), piece(200, 301), piece(301, whole.length)] as const
  parts[0].next = parts[1]
  parts[1].next = parts[2]
  skb_shinfo(skb).frag_list = parts[0]
  for (const { len } of parts) {
    skb.len += len
    skb.data_len += len
  }
  return skb
}
/** Leave the checksum to the device: in its place stands the sum of the pseudo header. */
function unsummed(skb: sk_buff): sk_buff {
  const pseudo = ~checksum([...whole.subarray(26, 34), 0, 17, ...whole.subarray(38, 40)])
  RAM.u8[skb.h + 6] = (pseudo >> 8) & 255
  RAM.u8[skb.h + 7] = pseudo & 255
  skb.csum = 6
  skb.ip_summed = CHECKSUM_HW
  return skb
}

/** What a device of these features was given: taken apart by its driver. */
const given: { bytes: number[]; frags: number; lists: boolean; summed: number }[] = []
const xmit = symbol('test_xmit', (skb: sk_buff, _dev: net_device) => {
  const to = alloc_skb(600)!
  skb_put(to, skb.len)
  skb_copy_bits(skb, 0, to.data, skb.len)
  given.push({
    bytes: [...RAM.u8.subarray(to.data, to.data + skb.len)],
    frags: skb_shinfo(skb).nr_frags,
    lists: skb_shinfo(skb).frag_list !== null,
    summed: skb.ip_summed,
  })
  consume_skb(to)
  consume_skb(skb)
  return 0
})
function device(name: string, features: number): net_device {
  const dev = alloc_netdev(name)!
  dev.features = features
  dev.hard_start_xmit = xmit
  dev.state = 2 // START, and no queue
  return dev
}

beforeEach(() => {
  given.length = 0
  s.pass(1)
  s.out()
})

describe('to a device that can', () => {
  const can = device('can', NETIF_F_SG | NETIF_F_FRAGLIST | NETIF_F_HW_CSUM)
  test('pages and lists go as they are, and the checksum is its own work', () => {
    expect(dev_queue_xmit(unsummed(in_pages(head(can))))).toBe(0)
    expect(dev_queue_xmit(unsummed(in_list(head(can))))).toBe(0)
    expect(given).toMatchObject([
      { frags: 3, lists: false, summed: CHECKSUM_HW },
      { frags: 0, lists: true, summed: CHECKSUM_HW },
    ])
  })
  test('one that needs no checksum gets none', () => {
    dev_queue_xmit(unsummed(in_pages(head(device('none', NETIF_F_SG | NETIF_F_NO_CSUM)))))
    expect(given).toMatchObject([{ frags: 3, summed: CHECKSUM_HW }])
  })
})

describe('to a device that cannot', () => {
  test.each([
    ['a list', NETIF_F_SG | NETIF_F_HW_CSUM, in_list],
    ['pages', NETIF_F_FRAGLIST | NETIF_F_HW_CSUM, in_pages],
    ['a list, nor anything', 0, in_list],
    ['pages, nor anything', 0, in_pages],
  ])('%s: in one piece', (_what, features, fragmented) => {
    const dev = device('flat', features)
    expect(dev_queue_xmit(fragmented(head(dev)))).toBe(0)
    expect(dev_queue_xmit(unsummed(fragmented(head(dev))))).toBe(0)
    for (const g of given) expect(g).toMatchObject({ frags: 0, lists: false })
    expect(given[0]!.bytes).toEqual([...whole])
    if (features === 0) expect(given[1]).toMatchObject({ bytes: [...whole], summed: CHECKSUM_NONE })
  })
  test('sum up: summed up here, in data of its own when a clone shares it', () => {
    const dev = device('unsummed', 0)
    const skb = unsummed(head(dev, whole.length))
    const clone = skb_clone(skb)!
    expect(dev_queue_xmit(skb)).toBe(0)
    expect(given).toMatchObject([{ bytes: [...whole], summed: CHECKSUM_NONE }])
    expect([...RAM.u8.subarray(clone.data + 40, clone.data + 42)]).not.toEqual([...whole.subarray(40, 42)])
    consume_skb(clone)
  })
  test('sum up other protocols than IP: those are summed up here', () => {
    const dev = device('ip', NETIF_F_SG | NETIF_F_IP_CSUM)
    dev_queue_xmit(unsummed(head(dev, whole.length)))
    const other = unsummed(head(dev, whole.length))
    other.protocol = 0x86dd
    dev_queue_xmit(other)
    expect(given.map(g => g.summed)).toEqual([CHECKSUM_HW, CHECKSUM_NONE])
    expect(given[1]!.bytes).toEqual([...whole])
  })
  test('without memory the packet is dropped', () => {
    const skb = in_list(head(device('poor', 0)))
    const hoard = []
    for (let n = alloc_skb(100); n !== null; n = alloc_skb(100)) hoard.push(n)
    const f = s.account(() => expect(dev_queue_xmit(skb)).toBe(-12))
    expect(f.received).toBe(0)
    expect(given).toEqual([])
    for (const n of hoard) consume_skb(n)
  })
})

describe('the NIC', () => {
  test('does not know lists: the whole packet is on the wire all the same, with its checksum', () => {
    expect(dev_queue_xmit(unsummed(in_list(head(eth0))))).toBe(0)
    expect(dev_queue_xmit(in_list(head(eth0)))).toBe(0)
    s.pass(1)
    const out = s.out()[0]!
    expect(out).toHaveLength(2)
    for (const frame of out) expect([...frame]).toEqual([...whole])
  })
  test('leaves checksums alone when the driver has not turned that on', () => {
    const page = nic_page(0) >> 2
    const restart = (offload: number): void => {
      RAM.i32[page + (NIC_CTRL >> 2)] = 0
      s.pass(1)
      RAM.i32[page + (NIC_OFFLOAD >> 2)] = offload
      RAM.i32[page + (NIC_CTRL >> 2)] = 1
      s.pass(1)
    }
    restart(OFF_RX_CSUM)
    const skb = unsummed(head(eth0, whole.length))
    const before = [...RAM.u8.subarray(skb.data, skb.data + whole.length)]
    dev_queue_xmit(skb)
    s.pass(1)
    expect(s.out()[0]!.map(f => [...f])).toEqual([before])
    restart(OFF_RX_CSUM | OFF_TX_CSUM)
  })
})

describe('what was sent is freed where interrupts are on', () => {
  /** As the interrupt handler of a driver does. */
  function done(skb: sk_buff): void {
    const flags = local_irq_save()
    dev_kfree_skb_any(skb)
    local_irq_restore(flags)
  }
  test('a packet that somebody else owns too stays as it is, for him to free', () => {
    const [a, b, c] = [head(eth0), head(eth0), head(eth0)] as const
    skb_get(b)
    for (const skb of [a, b, c]) done(skb)
    expect([b.users, b.next]).toEqual([1, null])
    const f = s.account(() => s.pass(2))
    expect(f.icmp_sent).toBe(2)
    expect(b.users).toBe(1)
    skb_get(b)
    consume_skb(b)
    done(b) // his was the last: as any other
    expect(s.account(() => s.pass(2)).icmp_sent).toBe(1)
  })
})

test('scatter-gather without a checksum unit is not offered, nor segmentation without scatter-gather', () => {
  const dev = device('odd0', NETIF_F_SG | NETIF_F_TSO)
  dev.state = 0
  expect(register_netdevice(dev)).toBe(0)
  expect(dev.features).toBe(0)
  const good = device('odd1', NETIF_F_SG | NETIF_F_TSO | NETIF_F_IP_CSUM)
  good.state = 0
  expect(register_netdevice(good)).toBe(0)
  expect(good.features).toBe(NETIF_F_SG | NETIF_F_TSO | NETIF_F_IP_CSUM)
})

test('nothing leaks', () => {
  dev_put(eth0)
  expect(s.solo.audit()).toEqual([])
})
