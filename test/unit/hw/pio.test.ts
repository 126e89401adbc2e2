/** A NIC without DMA: the CPU copies every frame from and to the card. */
import { performance } from 'node:perf_hooks'
import { expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { slabinfo } from '../../../src/mm/slab.js'
import { packet_fates } from '../../../src/net/core/fate.js'
import {
  dev_change_mtu,
  dev_close,
  dev_get_by_name,
  dev_open,
  dev_put,
  rtnl_lock,
  rtnl_unlock,
} from '../../../src/net/core/netdevice.js'
import { neigh_add_permanent } from '../../../src/net/core/nud.js'
import { kernel_thread, run_next } from '../../../src/sched/sched.js'
import { counting, parse, udpFrame } from '../../helpers/frames.js'
import { ip, Solo } from '../../helpers/solo.js'

const PIO_NS = 20
const solo = new Solo({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }], mtu: 576 },
  ],
  neighbours: [{ address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } }],
  config: { pio_ns: PIO_NS, rx_ring: 64, tx_ring: 64, jumbo: 256 },
})

function settle(): void {
  for (let k = 0; k < 50; k++) solo.step(performance.now() * 1e6)
}

test('frames of every size pass whole, also those that are cut on the way', () => {
  settle()
  const sizes = [0, 1, 17, 18, 19, 200, 549, 1000]
  for (const [id, size] of sizes.entries()) {
    solo.board.nics[0]!.arrive(udpFrame({ src: '10.0.0.2', dst: '10.0.1.2', id }, counting(size)))
    settle()
  }
  const { data, lengths } = solo.captures()[1]!
  const whole = sizes.map(size => new Uint8Array(8 + size))
  let at = 0
  for (const len of lengths) {
    const p = parse(data.slice(at, at + len))
    expect(p.ipChecksumGood).toBe(true)
    whole[p.id]!.set(p.payload, p.offset)
    at += len
  }
  sizes.forEach((size, id) => {
    const given = parse(udpFrame({ src: '10.0.0.2', dst: '10.0.1.2', id }, counting(size)))
    expect([...whole[id]!]).toEqual([...given.payload])
  })
})

test('the copying takes the time that the bus takes', () => {
  const frames = 200
  const from = performance.now()
  for (let k = 0; k < frames; k++) {
    solo.board.nics[0]!.arrive(udpFrame({ src: '10.0.0.2', dst: '10.0.1.2' }, counting(500)))
    settle()
  }
  const words = Math.ceil(542 / 4)
  expect((performance.now() - from) * 1e6).toBeGreaterThan(frames * 2 * words * PIO_NS)
  expect(packet_fates.cpu(0).forwarded).toBe(frames + 8)
})

test('with MTU 9000 the card and the receive rings share the large buffers', () => {
  const devs = ['eth0', 'eth1'].map(name => dev_get_by_name(name)!)
  const p = { ended: false }
  kernel_thread(
    'ip',
    symbol('test_ip', function* () {
      yield* rtnl_lock()
      for (const dev of devs) {
        yield* dev_close(dev)
        dev_change_mtu(dev, 9000)
        expect(dev_open(dev)).toBe(0)
      }
      neigh_add_permanent(ip('10.0.1.2'), devs[1]!, 0x02000000, 0x202)
      rtnl_unlock()
      p.ended = true
      return 0
    }),
    0,
  )
  while (!p.ended) {
    settle()
    while (run_next());
  }
  expect(slabinfo().find(c => c.name === 'skb_data_16k')).toMatchObject({ total: 256, used: 2 * 32 + 2 * 32 })
  const before = solo.captures()[1]!.lengths.length
  solo.board.nics[0]!.arrive(udpFrame({ src: '10.0.0.2', dst: '10.0.1.2' }, counting(8972)))
  settle()
  expect([...solo.captures()[1]!.lengths].slice(before)).toEqual([9014])
  for (const dev of devs) dev_put(dev)
})

test('nothing leaks', () => {
  expect(solo.audit()).toEqual([])
})
