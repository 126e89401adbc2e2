import { beforeEach, describe, expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { KernelPanic } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { post_mortem } from '../../../src/init/audit.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import { drop_reason, packet_fates } from '../../../src/net/core/fate.js'
import { page_alloc, page_get } from '../../../src/net/core/pages.js'
import {
  skb_dequeue,
  skb_peek,
  skb_queue_head,
  skb_queue_head_init,
  skb_queue_len,
  skb_queue_tail,
} from '../../../src/net/core/skb_queue.js'
import {
  alloc_skb,
  consume_skb,
  dev_alloc_skb,
  kfree_skb,
  NET_SKB_PAD,
  pskb_expand_head,
  pskb_may_pull,
  pskb_trim,
  skb_add_frag,
  skb_clone,
  skb_cloned,
  skb_copy,
  skb_copy_bits,
  skb_cow,
  skb_get,
  skb_headroom,
  skb_linearize,
  skb_pull,
  skb_push,
  skb_put,
  skb_reserve,
  skb_share_check,
  skb_tailroom,
} from '../../../src/net/core/skbuff.js'
import { ACCT_NONE, ACCT_RX, SKB_HEAD, type sk_buff } from '../../../src/net/core/types.js'
import { counting } from '../../helpers/frames.js'
import { Solo } from '../../helpers/solo.js'

const solo = new Solo({ ports: [] })

function filled(n: number, headroom = 32): sk_buff {
  const skb = alloc_skb(headroom + n)!
  skb_reserve(skb, headroom)
  RAM.u8.set(counting(n), skb_put(skb, n))
  return skb
}
function content(skb: sk_buff): number[] {
  const to = kmalloc(skb.len + 4)
  skb_copy_bits(skb, 0, to, skb.len)
  const bytes = [...RAM.u8.subarray(to, to + skb.len)]
  kfree(to)
  return bytes
}
/** `head` bytes in the block, the rest in pages. */
function paged(n: number, head: number): sk_buff {
  const skb = filled(head)
  for (let at = head; at < n; at += 100) {
    const page = page_alloc()
    const size = Math.min(100, n - at)
    RAM.u8.set(counting(n).subarray(at, at + size), page + 8)
    skb_add_frag(skb, page, 8, size)
  }
  return skb
}

describe('moving pointers', () => {
  test('put, push and pull keep length, headroom and tailroom', () => {
    const skb = alloc_skb(100)!
    const room = skb_tailroom(skb)
    expect(room).toBeGreaterThanOrEqual(100)
    skb_reserve(skb, 20)
    expect([skb_headroom(skb), skb_tailroom(skb), skb.len]).toEqual([20, room - 20, 0])
    skb_put(skb, 30)
    skb_push(skb, 14)
    expect([skb_headroom(skb), skb_tailroom(skb), skb.len]).toEqual([6, room - 50, 44])
    expect(skb_pull(skb, 45)).toBe(0)
    expect(skb_pull(skb, 14)).toBe(skb.head + 20)
    expect(pskb_trim(skb, 10)).toBe(0)
    expect(skb.len).toBe(10)
    consume_skb(skb)
  })
  test('dev_alloc_skb leaves headroom', () => {
    const skb = dev_alloc_skb(60)!
    expect(skb_headroom(skb)).toBe(NET_SKB_PAD)
    consume_skb(skb)
  })
  test('a packet of any size, up to 64 KiB and beyond; none larger than a block', () => {
    for (const size of [1, 1500, 2000, 9000, 16_000, 65_535, 100_000]) {
      const skb = filled(size, 0)
      expect(content(skb)).toEqual([...counting(size)])
      consume_skb(skb)
    }
    expect(alloc_skb(200_000)).toBeNull()
  })
})

describe('sharing', () => {
  test('a clone has its own pointers and the same data', () => {
    const skb = filled(50)
    const clone = skb_clone(skb)!
    skb_pull(clone, 10)
    expect([skb.len, clone.len, skb_cloned(skb), skb_cloned(clone)]).toEqual([50, 40, true, true])
    consume_skb(skb)
    expect(skb_cloned(clone)).toBe(false)
    expect(content(clone)).toEqual([...counting(50).subarray(10)])
    consume_skb(clone)
  })
  test('cow gives a cloned packet data of its own, and leaves a lonely one alone', () => {
    const skb = filled(50)
    const { data } = skb
    expect(skb_cow(skb, 16)).toBe(0)
    expect(skb.data).toBe(data)
    const clone = skb_clone(skb)!
    expect(skb_cow(clone, 16)).toBe(0)
    expect(clone.data).not.toBe(data)
    RAM.u8[clone.data] = 99
    expect(content(skb)).toEqual([...counting(50)])
    consume_skb(clone)
    consume_skb(skb)
  })
  test('share_check clones what somebody else holds too', () => {
    const skb = skb_get(filled(20))
    const own = skb_share_check(skb)!
    expect(own).not.toBe(skb)
    expect(skb.users).toBe(1)
    expect(skb_share_check(own)).toBe(own)
    consume_skb(own)
    consume_skb(skb)
  })
  test('of a shared packet the clone carries the account, whoever frees first', () => {
    const fate = packet_fates.cpu(0)
    const dropped = (): number => RAM.i32[(fate.drops >> 2) + drop_reason('not_specified')]!
    for (const cloneFirst of [true, false]) {
      const skb = filled(20)
      skb.acct = ACCT_RX
      const own = skb_share_check(skb_get(skb))!
      expect([own.acct, skb.acct]).toEqual([ACCT_RX, ACCT_NONE])
      const before = dropped()
      kfree_skb(cloneFirst ? own : skb)
      kfree_skb(cloneFirst ? skb : own)
      expect(dropped() - before).toBe(1)
    }
  })
  test('without memory for the clone the packet is counted as dropped, once', () => {
    const fate = packet_fates.cpu(0)
    const dropped = (): number => RAM.i32[(fate.drops >> 2) + drop_reason('no_memory')]!
    const skb = filled(20)
    skb.acct = ACCT_RX
    const hoard = []
    for (let n = skb_clone(skb); n !== null; n = skb_clone(skb)) hoard.push(n)
    const before = dropped()
    expect(skb_share_check(skb_get(skb))).toBeNull()
    expect([dropped() - before, skb.users, skb.acct]).toEqual([1, 1, ACCT_NONE])
    for (const n of hoard) consume_skb(n)
    consume_skb(skb)
  })
  test('a copy is equal and apart', () => {
    const skb = paged(350, 60)
    const copy = skb_copy(skb)!
    expect(copy.data_len).toBe(0)
    expect(content(copy)).toEqual(content(skb))
    consume_skb(copy)
    consume_skb(skb)
  })
  test('expand moves the headers with the data', () => {
    const skb = filled(80, 8)
    skb.mac = skb.data
    skb.nh = skb.data + 14
    skb.h = skb.data + 34
    expect(pskb_expand_head(skb, 64, 10)).toBe(0)
    expect([skb_headroom(skb), skb.nh - skb.mac, skb.h - skb.mac, skb.mac]).toEqual([72, 14, 34, skb.data])
    expect(content(skb)).toEqual([...counting(80)])
    consume_skb(skb)
  })
})

describe('fragments', () => {
  test('are read as one run of bytes, and gathered on demand', () => {
    const skb = paged(450, 40)
    expect(skb.data_len).toBe(410)
    expect(content(skb)).toEqual([...counting(450)])
    expect(pskb_may_pull(skb, 40)).toBe(true)
    expect(skb.data_len).toBe(410)
    expect(pskb_may_pull(skb, 451)).toBe(false)
    expect(pskb_may_pull(skb, 300)).toBe(true)
    expect(skb.data_len).toBe(0)
    expect(content(skb)).toEqual([...counting(450)])
    consume_skb(skb)
  })
  test('a clone that is linearised leaves the other one’s pages alone', () => {
    const skb = paged(450, 40)
    const clone = skb_clone(skb)!
    expect(skb_linearize(clone)).toBe(0)
    consume_skb(clone)
    expect(content(skb)).toEqual([...counting(450)])
    consume_skb(skb)
  })
  test('a page with two owners goes with the second', () => {
    const skb = filled(10)
    const page = page_alloc()
    page_get(page)
    skb_add_frag(skb, page, 0, 10)
    const other = filled(10)
    skb_add_frag(other, page, 20, 10)
    consume_skb(skb)
    consume_skb(other)
  })
})

test('queues keep their order; a packet is on one at most', () => {
  const list = SKB_HEAD.make(kmalloc(SKB_HEAD.size))
  skb_queue_head_init(list)
  const [a, b, c] = [filled(1), filled(2), filled(3)] as const
  skb_queue_tail(list, a)
  skb_queue_tail(list, b)
  skb_queue_head(list, c)
  expect(skb_peek(list)).toBe(c)
  expect(skb_queue_len(list)).toBe(3)
  const out = [skb_dequeue(list), skb_dequeue(list), skb_dequeue(list)]
  expect(out).toEqual([c, a, b])
  expect(skb_dequeue(list)).toBeNull()
  for (const skb of out) consume_skb(skb!)
  kfree(list.addr)
})

test('the destructor runs once, with the packet', () => {
  const seen: number[] = []
  const skb = filled(5)
  skb.destructor = symbol('test_destructor', (s: sk_buff) => {
    seen.push(s.len)
  })
  const clone = skb_clone(skb)!
  consume_skb(clone)
  expect(seen).toEqual([])
  consume_skb(skb)
  expect(seen).toEqual([5])
})

test('nothing leaks', () => {
  expect(solo.audit()).toEqual([])
})

describe('a broken caller stops the machine', () => {
  beforeEach(post_mortem) // the one before has taken the power away
  test.each<[string, (skb: sk_buff) => void]>([
    ['put beyond the end', skb => skb_put(skb, 10_000)],
    ['push before the start', skb => skb_push(skb, 1000)],
    [
      'free of a queued packet',
      skb => {
        const list = SKB_HEAD.make(kmalloc(SKB_HEAD.size))
        skb_queue_head_init(list)
        skb_queue_tail(list, skb)
        consume_skb(skb)
      },
    ],
    ['expand of a shared packet', skb => pskb_expand_head(skb_get(skb), 1, 1)],
  ])('%s', (_what, misuse) => {
    expect(() => misuse(filled(20))).toThrow(KernelPanic)
  })
})
