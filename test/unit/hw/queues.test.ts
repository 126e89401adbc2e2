import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { expect, test } from 'vitest'
import { udpFrame } from '../../helpers/frames.js'
import { Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }], mtu: 1500, queues: 3 },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }], mtu: 1500, queues: 3 },
  ],
  neighbours: [{ address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } }],
  config: { nqueues: 3 },
})

test('every queue gets its share of the flows, also when their number is no power of two', () => {
  const nic = s.solo.board.nics[0]!
  for (let sport = 1000; sport < 1300; sport++) {
    nic.arrive(udpFrame({ src: '10.0.0.2', dst: '10.0.1.2', sport }))
    s.pass(1)
  }
  const taken = nic['queues'].map(q => q.rx_done)
  expect(taken).toHaveLength(3)
  for (const n of taken) expect(n).toBeGreaterThan(70)
  expect(s.out()[1]).toHaveLength(300)
})
