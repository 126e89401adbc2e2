/** Frames that do not fit 2 KiB: several ports and queues share a small pool of large buffers. */
import '../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { symbol } from '../../src/abi/symbol.js'
import { ADAPTER, queue_of } from '../../src/drivers/net/nic.js'
import { slabinfo } from '../../src/mm/slab.js'
import {
  dev_change_mtu,
  dev_close,
  dev_get_by_name,
  dev_open,
  dev_put,
  rtnl_lock,
  rtnl_unlock,
} from '../../src/net/core/netdevice.js'
import { neigh_add_permanent } from '../../src/net/core/nud.js'
import type { net_device } from '../../src/net/core/types.js'
import { kernel_thread } from '../../src/sched/sched.js'
import { counting, parse, udpFrame } from '../helpers/frames.js'
import { conserved, Script } from '../helpers/script.js'
import { ip } from '../helpers/solo.js'

const PORTS = 4
const QUEUES = 4
const POOL = 64
const mac = (port: number): { hi: number; lo: number } => ({ hi: 0x02000000, lo: 0x102 + 0x100 * port })
const s = new Script({
  ports: Array.from({ length: PORTS }, (_, k) => ({
    addresses: [{ local: ip(`10.0.${k}.1`), prefixlen: 24 }],
    mtu: 9000,
    queues: QUEUES,
  })),
  neighbours: Array.from({ length: PORTS }, (_, k) => ({ address: ip(`10.0.${k}.2`), dev: `eth${k}`, mac: mac(k) })),
  config: { nqueues: QUEUES },
})
const devs = Array.from({ length: PORTS }, (_, k) => dev_get_by_name(`eth${k}`)!)
const ring = (dev: net_device): number => queue_of(ADAPTER.ref(dev.priv), 0).rx_mask + 1
const used = (): number => slabinfo().find(c => c.name === 'skb_data_16k')!.used
const IP_UDP = 28
/** A packet of `size` bytes from port to port. */
const packet = (from: number, to: number, size: number, sport = 1024): Uint8Array =>
  udpFrame(
    { src: `10.0.${from}.2`, dst: `10.0.${to}.2`, to: `02:00:00:00:00:0${from + 1}`, sport },
    counting(size - IP_UDP),
  )

test('rings hold half of the pool at most', () => {
  for (const dev of devs) expect(ring(dev)).toBe(2)
  expect(used()).toBe(PORTS * QUEUES * 2)
  expect(slabinfo().find(c => c.name === 'skb_data_16k')!.total).toBe(POOL)
})

describe('MTU 9000', () => {
  test('packets of every size, from every port to every other', () => {
    for (const size of [28, 46, 1500, 1710, 1711, 2048, 4096, 8999, 9000]) {
      for (let from = 0; from < PORTS; from++) {
        const to = (from + 1) % PORTS
        const [out] = s.send(from, packet(from, to, size))[to]!
        expect(out).toBeDefined()
        expect([...parse(out!).payload]).toEqual([...parse(packet(from, to, size)).payload])
        expect(parse(out!).ipChecksumGood).toBe(true)
      }
    }
  })
  test('all queues at once, many times over: nothing is missed that a ring has room for, and nothing runs out', () => {
    const f = s.account(() => {
      for (let round = 0; round < 50; round++) {
        for (let from = 0; from < PORTS; from++)
          s.solo.board.nics[from]!.arrive(packet(from, (from + round) % PORTS, 9000, 1024 + round))
        s.pass(0.2)
      }
      s.pass(2)
    })
    expect(conserved(f)).toBe(true)
    expect(f.drops['rx_no_memory']).toBeUndefined()
    expect(f.forwarded).toBeGreaterThan(100)
    expect(used()).toBe(PORTS * QUEUES * 2)
    s.out()
  })
  test('larger ones are not taken', () => {
    expect(s.solo.board.nics[0]!.arrive(packet(0, 1, 9005))).toBe(false)
  })
})

test.each([68, 576, 1500, 1710, 1711, 1730, 2048, 4000, 9000])('a device comes up with MTU %i', mtu => {
  const [eth0, eth1] = [devs[0]!, devs[1]!]
  const p = { ended: false }
  kernel_thread(
    'ip',
    symbol('test_ip', function* () {
      yield* rtnl_lock()
      yield* dev_close(eth0)
      expect(dev_change_mtu(eth0, mtu)).toBe(0)
      expect(dev_open(eth0)).toBe(0)
      neigh_add_permanent(ip('10.0.0.2'), eth0, mac(0).hi, mac(0).lo)
      rtnl_unlock()
      p.ended = true
      return 0
    }),
    0,
  )
  s.pass(20)
  expect(p.ended).toBe(true)
  expect(ring(eth0)).toBeGreaterThanOrEqual(2)
  expect(ring(eth0)).toBeLessThanOrEqual(256)
  s.out()
  const there = packet(0, 1, mtu)
  expect(s.send(0, there)[1]!.map(f => [...parse(f).payload])).toEqual([[...parse(there).payload]])
  const back = parse(packet(1, 0, 9000)).payload // whole, or in as many pieces as it takes
  const pieces = s.send(1, packet(1, 0, 9000))[0]!.map(f => parse(f))
  for (const f of pieces) {
    expect(f.payload.length + 20).toBeLessThanOrEqual(mtu)
    expect(f.offset + f.payload.length).toBeLessThanOrEqual(back.length)
  }
  const whole = new Uint8Array(back.length)
  for (const f of pieces) whole.set(f.payload, f.offset)
  expect([...whole]).toEqual([...back])
  expect(eth1.mtu).toBe(9000)
})

test('nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  for (const dev of devs) dev_put(dev)
  expect(s.solo.audit()).toEqual([])
})
