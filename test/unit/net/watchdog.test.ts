import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { expect, test } from 'vitest'
import { dev_get_by_name, dev_put } from '../../../src/net/core/netdevice.js'
import { netdev_rx_stat } from '../../../src/net/core/stats.js'
import { LINK_STATE_XOFF } from '../../../src/net/core/types.js'
import { counting, udpFrame } from '../../helpers/frames.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  neighbours: [{ address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } }],
  config: { rx_ring: 64, tx_ring: 64 },
})
const out = s.solo.board.nics[1]!
const dev = dev_get_by_name('eth1')!
const stat = netdev_rx_stat.cpu(0)

test('a device that hangs stops its queue; the watchdog notices after five seconds, and again after each five more', () => {
  const step = out.step
  out.step = () => 0
  for (let k = 0; k < 5; k++)
    for (let n = 0; n < 40; n++) s.send(0, udpFrame({ src: '10.0.0.2', dst: '10.0.1.2', id: k * 40 + n }, counting(9)))
  expect(dev.state & LINK_STATE_XOFF).not.toBe(0)
  s.pass(4000)
  expect(stat.tx_timeouts).toBe(0)
  s.pass(7000)
  expect(stat.tx_timeouts).toBe(1)
  s.pass(5100)
  expect(stat.tx_timeouts).toBe(2)
  out.step = step
  s.pass(10)
  expect(dev.state & LINK_STATE_XOFF).toBe(0)
  expect(s.out()[1]).toHaveLength(200)
  expect(conserved(s.fates())).toBe(true)
})

test('a device that only has nothing to send is left alone', () => {
  s.pass(11_000)
  expect(stat.tx_timeouts).toBe(2)
})

test('nothing leaks', () => {
  dev_put(dev)
  expect(s.solo.audit()).toEqual([])
})
