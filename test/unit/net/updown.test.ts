import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { beforeEach, describe, expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { take_interrupts } from '../../../src/arch/cpu.js'
import { CAUSE_RX, irq_line, LINE_ENABLE, LINE_RX_HEAD, LINE_WIRED, line_enable } from '../../../src/arch/irqchip.js'
import { NIC_CTRL, NIC_STATUS, nic_page } from '../../../src/arch/nic_regs.js'
import { RAM } from '../../../src/arch/ram.js'
import { ADAPTER, queue_of } from '../../../src/drivers/net/nic.js'
import { slabinfo } from '../../../src/mm/slab.js'
import { dev_queue_xmit } from '../../../src/net/core/dev.js'
import {
  dev_close,
  dev_get_by_name,
  dev_open,
  dev_put,
  rtnl_lock,
  rtnl_unlock,
} from '../../../src/net/core/netdevice.js'
import { neigh_add_permanent } from '../../../src/net/core/nud.js'
import { alloc_skb, consume_skb, skb_put } from '../../../src/net/core/skbuff.js'
import {
  ACCT_ICMP,
  LINK_STATE_RX_SCHED,
  LINK_STATE_SCHED,
  LINK_STATE_START,
  type net_device,
} from '../../../src/net/core/types.js'
import { kernel_thread, run_next } from '../../../src/sched/sched.js'
import { __local_bh_enable, local_bh_disable } from '../../../src/sync/bh.js'
import { clock } from '../../helpers/clock.js'
import { counting, udpFrame } from '../../helpers/frames.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }], queues: 2 },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }], queues: 2 },
  ],
  config: { nqueues: 2, rx_ring: 64, tx_ring: 64 },
})
const eth0 = dev_get_by_name('eth0')!
const eth1 = dev_get_by_name('eth1')!
const q0 = queue_of(ADAPTER.ref(eth0.priv), 0)
const q1 = queue_of(ADAPTER.ref(eth0.priv), 1)
const [nic0, nic1] = [s.solo.board.nics[0]!, s.solo.board.nics[1]!]
const frame = (k = 0): Uint8Array => udpFrame({ src: '10.0.0.2', dst: '10.0.1.2', sport: 1000 + k }, counting(9))
const arrive = (n: number): boolean[] => Array.from({ length: n }, (_, k) => nic0.arrive(frame(k)))
const status = (): boolean => RAM.i32[(nic_page(0) + NIC_STATUS) >> 2] === RAM.i32[(nic_page(0) + NIC_CTRL) >> 2]
const addresses = (): number[] => [q0.rx_ring, q0.tx_ring, q0.rx_skb, q1.rx_ring]

const process = { steps: [] as string[], ended: false }
/** A process that has rtnl_lock. */
function begin(program: () => Generator<void, void, void>): void {
  process.steps = []
  process.ended = false
  kernel_thread(
    'ip',
    symbol('test_ip', function* () {
      yield* rtnl_lock()
      yield* program()
      rtnl_unlock()
      process.ended = true
      return 0
    }),
    0,
  )
}
function* down(dev: net_device): Generator<void, void, void> {
  expect(yield* dev_close(dev)).toBe(0)
  process.steps.push('down')
}
function up(dev: net_device): void {
  expect(dev_open(dev)).toBe(0)
  process.steps.push('up')
}
/** What the process has to do now, without time going by. */
function run(): void {
  while (run_next());
}
/** The stations on the wires. */
function stations(): void {
  neigh_add_permanent(ip('10.0.0.2'), eth0, 0x02000000, 0x102)
  neigh_add_permanent(ip('10.0.1.2'), eth1, 0x02000000, 0x202)
}
function both_ways(): void {
  stations()
  s.out()
  expect(s.send(0, frame())[1]).toHaveLength(1)
  expect(s.send(1, udpFrame({ src: '10.0.1.2', dst: '10.0.0.2', to: '02:00:00:00:00:02' }))[0]).toHaveLength(1)
}
const used = (): [string, number][] => slabinfo().map(c => [c.name, c.used])

beforeEach(() => {
  s.pass(50)
  s.out()
})

test('before', both_ways)

describe('dev_close', () => {
  test('waits for a poll that is scheduled; the poll leaves the line masked', () => {
    const rings = addresses()
    arrive(20)
    local_bh_disable() // the interrupt comes, its softirq does not
    s.solo.board.step(clock.ns)
    take_interrupts()
    __local_bh_enable()
    expect(q0.poll_dev!.state & LINK_STATE_RX_SCHED).not.toBe(0)
    begin(() => down(eth0))
    run()
    expect(eth0.state & LINK_STATE_START).toBe(0)
    expect(process.steps).toEqual([])
    expect(addresses()).toEqual(rings)
    s.pass(20)
    expect(process.steps).toEqual(['down'])
    expect(addresses()).toEqual([0, 0, 0, 0])
    for (const q of [q0, q1]) {
      expect(q.poll_dev!.state & (LINK_STATE_RX_SCHED | LINK_STATE_START)).toBe(0)
      expect(RAM.i32[(irq_line(q.irq) + LINE_ENABLE) >> 2]).toBe(0)
      expect(RAM.i32[(irq_line(q.irq) + LINE_WIRED) >> 2]).toBe(0)
    }
    expect(conserved(s.fates())).toBe(true)
    begin(function* () {
      up(eth0)
    })
    s.pass(1)
    both_ways()
  })

  test('waits until the NIC has seen it', () => {
    const { step } = nic0
    nic0.step = () => 0 // it is busy with something else
    const rings = addresses()
    begin(() => down(eth0))
    s.pass(30)
    expect([process.steps, addresses(), status()]).toEqual([[], rings, false])
    // A poll on another CPU may unmask the line this late, and a frame hold it up: the handler masks it for good.
    RAM.i32[(irq_line(q0.irq) + LINE_RX_HEAD) >> 2]! += 1
    line_enable(q0.irq, CAUSE_RX)
    s.pass(1)
    expect(RAM.i32[(irq_line(q0.irq) + LINE_ENABLE) >> 2]).toBe(0)
    nic0.step = step
    s.pass(10)
    expect([process.steps, addresses(), status()]).toEqual([['down'], [0, 0, 0, 0], true])
    begin(function* () {
      up(eth0)
    })
    s.pass(5)
    both_ways()
  })

  test('waits for a queue that is scheduled to be run', () => {
    eth0.state |= LINK_STATE_SCHED
    begin(() => down(eth0))
    s.pass(20)
    expect(process.steps).toEqual([])
    eth0.state &= ~LINK_STATE_SCHED
    s.pass(20)
    expect(process.steps).toEqual(['down'])
    begin(function* () {
      up(eth0)
    })
    s.pass(1)
    both_ways()
  })

  test('down and up again at once: the NIC takes the new rings', () => {
    begin(function* () {
      for (let k = 0; k < 5; k++) {
        yield* down(eth0)
        up(eth0)
        yield* down(eth1)
        up(eth1)
      }
    })
    s.pass(400)
    expect(process.ended).toBe(true)
    both_ways()
  })

  test('down before the NIC has seen that it was up', () => {
    begin(() => down(eth0))
    s.pass(20)
    const { step } = nic0
    nic0.step = () => 0
    begin(function* () {
      up(eth0)
      yield* down(eth0)
    })
    s.pass(20)
    expect(process.steps).toEqual(['up'])
    nic0.step = step
    s.pass(20)
    expect(process.steps).toEqual(['up', 'down'])
    begin(function* () {
      up(eth0)
    })
    s.pass(1)
    both_ways()
  })
})

describe('what is under way when a device goes down', () => {
  test('frames in its ring are received and dropped, packets in its queue are dropped, and the memory is back', () => {
    s.pass(5)
    const before = used()
    const { step } = nic1
    const f = s.account(() => {
      nic1.step = () => 0 // nothing leaves: the transmit ring fills, then the queue
      for (let k = 0; k < 5; k++) {
        arrive(40)
        s.pass(1)
      }
      expect(eth1.qdisc!.qlen).toBeGreaterThan(0)
      arrive(30)
      begin(function* () {
        yield* down(eth0)
        yield* down(eth1)
        up(eth0)
        up(eth1)
      })
      run() // eth0 does not run any more, and its frames are still in the ring
      nic1.step = step
      s.pass(60)
      expect(process.steps).toEqual(['down', 'down', 'up', 'up'])
    })
    expect(conserved(f)).toBe(true)
    expect(f.received).toBe(230)
    expect(f.drops['shutdown']).toBeGreaterThan(0)
    stations()
    s.pass(200)
    const after = new Map(used())
    for (const [name, n] of before.filter(([name]) => /^skb_data|skbuff|irqaction|size-/.test(name)))
      expect([name, after.get(name)]).toEqual([name, n])
    both_ways()
  })
  test('a packet for a device that is down is dropped', () => {
    begin(() => down(eth0))
    s.pass(20)
    const skb = alloc_skb(100)!
    skb_put(skb, 60)
    skb.dev = eth0
    skb.acct = ACCT_ICMP
    expect(dev_queue_xmit(skb)).toBe(1)
    expect(s.send(0, frame())).toEqual([[], []])
    begin(function* () {
      up(eth0)
    })
    s.pass(5)
    both_ways()
  })
  test('no memory to come up: nothing is kept, and the next time it works', () => {
    begin(() => down(eth0))
    s.pass(20)
    s.pass(200)
    const before = used()
    const hoard = []
    for (let skb = alloc_skb(1600); skb !== null; skb = alloc_skb(1600)) hoard.push(skb)
    for (const skb of hoard.splice(0, 100)) consume_skb(skb) // enough for one queue of the two
    begin(function* () {
      expect(dev_open(eth0)).toBe(-12)
    })
    s.pass(1)
    for (const skb of hoard) consume_skb(skb)
    expect(process.ended).toBe(true)
    expect(used()).toEqual(before)
    begin(function* () {
      up(eth0)
    })
    s.pass(1)
    both_ways()
  })
})

test('nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  dev_put(eth0)
  dev_put(eth1)
  expect(s.solo.audit()).toEqual([])
})
