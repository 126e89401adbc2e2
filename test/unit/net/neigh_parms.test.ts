/** net.ipv4.neigh.*: each device has parameters of its own, which begin as a copy of `default` and end with the last entry that has them. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { afterEach, describe, expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { EINVAL, ENOENT } from '../../../src/lib/errno.js'
import { slabinfo } from '../../../src/mm/slab.js'
import {
  arp_tbl,
  neigh_create,
  neigh_ifdown,
  neigh_lookup,
  neigh_parms_of,
  neigh_release,
} from '../../../src/net/core/neighbour.js'
import {
  alloc_netdev,
  dev_get_by_name,
  dev_put,
  free_netdev,
  register_netdevice,
  unregister_netdev,
} from '../../../src/net/core/netdevice.js'
import { NEIGH_UPDATE_F_ADMIN, neigh_event_send, neigh_update } from '../../../src/net/core/nud.js'
import { sysctl_read, sysctl_write } from '../../../src/net/core/sysctl.js'
import { NUD_FAILED, NUD_PROBE, NUD_STALE, type net_device } from '../../../src/net/core/types.js'
import { inetdev_init } from '../../../src/net/ipv4/devinet.js'
import { rt_cache_flush } from '../../../src/net/ipv4/route.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { clock } from '../../helpers/clock.js'
import { udpFrame } from '../../helpers/frames.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [{}, {}],
  sysctl: { 'net.ipv4.neigh.default.ucast_solicit': 2, 'net.ipv4.neigh.eth1.mcast_solicit': 1 },
})
const [eth0, eth1] = [dev_get_by_name('eth0')!, dev_get_by_name('eth1')!]
const neigh = (name: string): number[] | null => sysctl_read(`net.ipv4.neigh.${name}`)
const write = (name: string, value: number): number => sysctl_write(`net.ipv4.neigh.${name}`, value)
const used = (name: string): number => slabinfo().find(c => c.name === name)!.used
function seconds(n: number): void {
  for (let k = 0; k < n * 10; k++) {
    clock.ns += 1e8
    s.pass(0.1)
  }
}
afterEach(() => {
  rt_cache_flush()
  s.pass(5)
  for (const dev of [eth0, eth1]) neigh_ifdown(dev)
})

describe('sysctls', () => {
  test('the names and units of 2.6.11, and what a device begins with', () => {
    const values = {
      ...{ mcast_solicit: 3, ucast_solicit: 2, app_solicit: 0, unres_qlen: 3, proxy_qlen: 64 },
      ...{ base_reachable_time: 30, delay_first_probe_time: 5, gc_stale_time: 60 },
      ...{ retrans_time: 100, anycast_delay: 100, proxy_delay: 80, locktime: 100, retrans_time_ms: 1000 },
    }
    for (const [name, value] of Object.entries(values)) {
      expect([name, neigh(`default.${name}`), neigh(`eth0.${name}`)]).toEqual([name, [value], [value]])
      expect([name, write(`eth0.${name}`, -1)]).toEqual([name, -EINVAL])
    }
    expect(neigh('eth1.mcast_solicit')).toEqual([1])
    expect(['gc_thresh1', 'gc_thresh2', 'gc_thresh3', 'gc_interval'].map(name => neigh(`default.${name}`))).toEqual([
      ...[[128], [512], [1024], [30]],
    ])
    for (const name of ['eth0.gc_thresh1', 'eth7.locktime', 'default.nothing', 'eth0'])
      expect(write(name, 1)).toBe(-ENOENT)
  })
  test('of one device are no concern of another, and default is for those that come later', () => {
    write('eth0.locktime', 7)
    write('default.locktime', 9)
    expect([neigh('eth0.locktime'), neigh('eth1.locktime'), neigh('eth0.locktime_ms')]).toEqual([[7], [100], [70]])
    const dev = alloc_netdev('late0')!
    expect([register_netdevice(dev), inetdev_init(dev) !== null]).toEqual([0, true])
    expect(neigh('late0.locktime')).toEqual([9])
    const n = neigh_create(ip('10.5.0.2'), dev)!
    expect(neigh_parms_of(n).locktime).toBe(90)
    const before = used('neigh_parms')
    let gone = false
    kernel_thread(
      'rmmod',
      symbol('test_rmmod', function* () {
        gone = (yield* unregister_netdev(dev)) === 0
        return 0
      }),
      0,
    )
    seconds(1)
    // The entry is no more in the table, and new ones there are none; it still has its parameters.
    expect([neigh('late0.locktime'), neigh_create(ip('10.5.0.3'), dev), n.dead]).toEqual([null, null, 1])
    expect([neigh_parms_of(n).locktime, used('neigh_parms')]).toEqual([90, before])
    neigh_release(n)
    expect(used('neigh_parms')).toBe(before - 1)
    seconds(2)
    expect(gone).toBe(true)
    free_netdev(dev)
    write('default.locktime', 100)
    write('eth0.locktime', 100)
  })
})

describe('an entry goes by those of its device', () => {
  const entry = (dev: net_device): number => {
    const n = neigh_lookup(ip(dev === eth0 ? '10.0.0.9' : '10.0.1.9'), dev)
    if (n !== null) neigh_release(n)
    return n === null ? 0 : n.nud_state
  }
  test('unres_qlen: packets that wait', () => {
    write('eth1.unres_qlen', 1)
    const waits = (from: number, dst: string): number => {
      s.send(from, udpFrame({ src: `10.0.${from}.9`, dst, to: `02:00:00:00:00:0${from + 1}` }, [0]))
      s.send(from, udpFrame({ src: `10.0.${from}.9`, dst, to: `02:00:00:00:00:0${from + 1}` }, [1]))
      const n = neigh_lookup(ip(dst), from === 0 ? eth1 : eth0)!
      const { qlen } = n.arp_queue
      neigh_release(n)
      return qlen
    }
    expect([waits(0, '10.0.1.9'), waits(1, '10.0.0.9')]).toEqual([1, 2])
    write('eth1.unres_qlen', 3)
  })
  test('mcast_solicit, retrans_time: how long it is asked for', () => {
    write('eth0.retrans_time', 300)
    for (const dev of [eth0, eth1]) {
      const n = neigh_create(ip(dev === eth0 ? '10.0.0.9' : '10.0.1.9'), dev)!
      neigh_event_send(n)
      neigh_release(n)
    }
    seconds(2.5)
    expect([entry(eth0), entry(eth1)]).toEqual([1, NUD_FAILED])
    seconds(8)
    expect(entry(eth0)).toBe(NUD_FAILED)
    write('eth0.retrans_time', 100)
  })
  test('delay_first_probe_time: how soon it is doubted', () => {
    write('eth0.delay_first_probe_time', 1)
    for (const dev of [eth0, eth1]) {
      const n = neigh_create(ip(dev === eth0 ? '10.0.0.9' : '10.0.1.9'), dev)!
      neigh_update(n, 0x02000000, 9, NUD_STALE, NEIGH_UPDATE_F_ADMIN)
      neigh_event_send(n)
      neigh_release(n)
    }
    seconds(1.6)
    expect([entry(eth0), entry(eth1)]).toEqual([NUD_PROBE, 8])
    write('eth0.delay_first_probe_time', 5)
  })
  test('gc_stale_time: how long it is kept', () => {
    write('eth0.gc_stale_time', 1)
    for (const dev of [eth0, eth1]) {
      const n = neigh_create(ip(dev === eth0 ? '10.0.0.9' : '10.0.1.9'), dev)!
      neigh_update(n, 0x02000000, 9, NUD_STALE, NEIGH_UPDATE_F_ADMIN)
      neigh_release(n)
    }
    seconds(20)
    expect([entry(eth0), entry(eth1)]).toEqual([0, NUD_STALE])
    write('eth0.gc_stale_time', 60)
  })
  test('gc_thresh3 of the table: there are never more', () => {
    write('default.gc_thresh3', 5)
    const held = Array.from({ length: 7 }, (_, k) => neigh_create(ip('10.0.0.20') + k, eth0))
    expect(held.map(n => n !== null)).toEqual([true, true, true, true, true, false, false])
    for (const n of held) if (n !== null) neigh_release(n)
    write('default.gc_thresh3', 1024)
    expect(arp_tbl.entries).toBe(5)
  })
})

test('nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  dev_put(eth0)
  dev_put(eth1)
  expect(s.solo.audit()).toEqual([])
})
