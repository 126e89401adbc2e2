/** Address resolution: questions and answers byte for byte, and every state of a neighbour. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { slabinfo } from '../../../src/mm/slab.js'
import { arp_tbl, neigh_ifdown, neigh_lookup, neigh_release } from '../../../src/net/core/neighbour.js'
import { dev_get_by_name, dev_put } from '../../../src/net/core/netdevice.js'
import { NEIGH_UPDATE_F_ADMIN, neigh_confirm, neigh_update } from '../../../src/net/core/nud.js'
import { pneigh_add, pneigh_delete, pneigh_ifdown } from '../../../src/net/core/pneigh.js'
import { sysctl_write } from '../../../src/net/core/sysctl.js'
import {
  NUD_DELAY,
  NUD_FAILED,
  NUD_INCOMPLETE,
  NUD_NONE,
  NUD_PERMANENT,
  NUD_PROBE,
  NUD_REACHABLE,
  NUD_STALE,
  type net_device,
} from '../../../src/net/core/types.js'
import { rt_cache_flush } from '../../../src/net/ipv4/route.js'
import { clock } from '../../helpers/clock.js'
import { type ArpOptions, arpFrame, parse, parseArp, udpFrame } from '../../helpers/frames.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    {
      addresses: [
        { local: ip('10.0.0.1'), prefixlen: 24 },
        { local: ip('10.0.9.1'), prefixlen: 24 },
      ],
    },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  routes: [
    { dst: ip('10.7.0.0'), prefixlen: 16, type: 'unicast', metric: 0, nexthops: [{ gw: 0, dev: 'eth1', weight: 1 }] },
  ],
  neighbours: [{ address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } }],
  sysctl: {},
})
const eth0 = dev_get_by_name('eth0')!
const eth1 = dev_get_by_name('eth1')!
const US = '02:00:00:00:00:02'
const THEM = '02:00:00:00:02:02'
const ALL = 'ff:ff:ff:ff:ff:ff'

function state(of = '10.0.1.2', dev: net_device = eth1): number | null {
  const n = neigh_lookup(ip(of), dev)
  if (n === null) return null
  const { nud_state } = n
  neigh_release(n)
  return nud_state
}
function seconds(n: number): void {
  for (let k = 0; k < n * 10; k++) {
    clock.ns += 1e8
    s.pass(0.1)
  }
}
const data = (k = 0): Uint8Array => udpFrame({ src: '10.0.0.2', dst: '10.0.1.2' }, [k])
/** What came out at eth1: ARP packets as text, others as their last byte. */
const out = (port = 1): string[] =>
  s.out()[port]!.map(f => (f[12] === 8 && f[13] === 6 ? arpText(f) : `data ${f[42]} to ${parse(f).to}`))
function arpText(f: Uint8Array): string {
  const a = parseArp(f)
  return `${a.op} ${a.sip}=${a.sha} > ${a.tip}=${a.tha} in ${a.from}>${a.to}`
}
const from = (o: Partial<ArpOptions>): Uint8Array =>
  arpFrame({ op: 2, sha: THEM, sip: '10.0.1.2', tha: US, tip: '10.0.1.1', from: THEM, to: US, ...o })
const question = `who-has 10.0.1.1=${US} > 10.0.1.2=00:00:00:00:00:00 in ${US}>${ALL}`
const asked_again = question.replace(ALL, THEM)
const send = (k = 0): string[] => {
  s.solo.board.nics[0]!.arrive(data(k))
  s.pass(1.5)
  return out()
}
/** eth1 hears a frame. */
function hears(frame: Uint8Array, port = 1): string[] {
  s.solo.board.nics[port]!.arrive(frame)
  s.pass(1.5)
  return out(port)
}
function resolved(): void {
  send()
  hears(from({}))
  expect(state()).toBe(NUD_REACHABLE)
}

beforeEach(() => {
  s.out()
})
afterEach(() => {
  rt_cache_flush()
  s.pass(5)
  for (const dev of [eth0, eth1]) {
    neigh_ifdown(dev, true)
    pneigh_ifdown(dev)
  }
  expect(arp_tbl.entries).toBe(0)
})

describe('a question for this machine', () => {
  test('is answered, byte for byte, and who asks is known from then on, without proof', () => {
    s.solo.board.nics[1]!.arrive(from({ op: 1, tha: '00:00:00:00:00:00', to: ALL }))
    s.pass(1)
    const [frame] = s.out()[1]!
    const hex = Buffer.from(frame!.subarray(0, 42)).toString('hex')
    expect(hex).toBe(
      '020000000202' +
        '020000000002' +
        '0806' +
        '0001080006040002' +
        '020000000002' +
        '0a000101' +
        '020000000202' +
        '0a000102',
    )
    expect(state()).toBe(NUD_STALE)
  })
  test('by one who has no address yet (is it in use?) is answered to him, and he is not remembered', () => {
    expect(hears(from({ op: 1, sip: '0.0.0.0', to: ALL }))).toEqual([
      `reply 10.0.1.1=${US} > 10.0.1.1=${US} in ${US}>${THEM}`,
    ])
    expect(state('0.0.0.0')).toBeNull()
  })
  test('on another subnet of the link is answered too; for anybody else it is not', () => {
    expect(hears(from({ op: 1, sip: '10.0.0.7', tip: '10.0.9.1', to: ALL }), 0)).toHaveLength(1)
    expect(hears(from({ op: 1, tip: '10.0.1.9', to: ALL }))).toEqual([])
    expect(hears(from({ op: 1, tip: '127.0.0.1', to: ALL }))).toEqual([])
    expect(hears(from({ op: 1, tip: '224.0.0.1', to: ALL }))).toEqual([])
  })
  test.each([
    ['arp_ignore', 1, '10.0.0.1', false],
    ['arp_ignore', 1, '10.0.1.1', true],
    ['arp_ignore', 2, '10.0.1.1', true],
    ['arp_ignore', 8, '10.0.1.1', false],
    ['arp_filter', 1, '10.0.0.1', true],
  ])('%s = %i, for %s: answer %s', (name, value, tip, answer) => {
    expect(sysctl_write(`net.ipv4.conf.eth1.${name}`, value)).toBe(0)
    expect(hears(from({ op: 1, tip, to: ALL })).length > 0).toBe(answer)
    expect(sysctl_write(`net.ipv4.conf.eth1.${name}`, 0)).toBe(0)
  })
  test('arp_ignore = 2: not if the one who asks is of another subnet', () => {
    sysctl_write('net.ipv4.conf.eth0.arp_ignore', 2)
    expect(hears(from({ op: 1, sip: '10.0.9.7', tip: '10.0.0.1', to: ALL }), 0)).toEqual([])
    expect(hears(from({ op: 1, sip: '10.0.9.7', tip: '10.0.9.1', to: ALL }), 0)).toHaveLength(1)
    sysctl_write('net.ipv4.conf.eth0.arp_ignore', 0)
  })
  test('arp_filter: not on a device that our way back does not lead through', () => {
    sysctl_write('net.ipv4.conf.eth0.arp_filter', 1)
    expect(hears(from({ op: 1, sip: '10.0.1.7', tip: '10.0.0.1', to: ALL }), 0)).toEqual([])
    sysctl_write('net.ipv4.conf.eth0.arp_filter', 0)
  })
})

describe('a packet for somebody unknown', () => {
  test('waits for the answer; of more than three the oldest are lost', () => {
    const f = s.account(() => {
      expect(send(1)).toEqual([question])
      for (const k of [2, 3, 4, 5]) expect(send(k)).toEqual([])
      expect(state()).toBe(NUD_INCOMPLETE)
      expect(hears(from({}))).toEqual([3, 4, 5].map(k => `data ${k} to ${THEM}`))
    })
    expect(f.drops).toEqual({ neigh_queue_full: 2 })
    expect(f.forwarded).toBe(3)
    expect(state()).toBe(NUD_REACHABLE)
    expect(send(6)).toEqual([`data 6 to ${THEM}`])
  })
  test('is asked for three times, a second apart; then its sender hears of it, and the next one starts anew', () => {
    const f = s.account(() => {
      expect(send()).toEqual([question])
      seconds(0.9)
      expect(out()).toEqual([])
      seconds(0.2)
      expect(out()).toEqual([question])
      seconds(1)
      expect(out()).toEqual([question])
      expect(state()).toBe(NUD_INCOMPLETE)
      seconds(1)
      expect(state()).toBe(NUD_FAILED)
      s.pass(1)
    })
    expect(f).toMatchObject({ received: 1, icmp_sent: 1, drops: { neigh_unresolved: 1 } })
    const [unreachable] = s.out()[0]!
    expect([unreachable![34], unreachable![35]]).toEqual([3, 1])
    expect(send()).toEqual([question])
  })
  test('its address, if the machine has it, is the one that asks', () => {
    sysctl_write('net.ipv4.conf.eth1.arp_announce', 2)
    expect(send()).toEqual([question])
    sysctl_write('net.ipv4.conf.eth1.arp_announce', 0)
  })
  test('is lost when the device goes down', () => {
    const f = s.account(() => {
      send()
      neigh_ifdown(eth1)
    })
    expect(f.drops).toEqual({ neigh_unresolved: 1 })
    expect(state()).toBeNull()
  })
})

describe('a neighbour', () => {
  test('REACHABLE, STALE, DELAY, PROBE, FAILED', () => {
    sysctl_write('net.ipv4.neigh.eth1.base_reachable_time_ms', 30_000)
    resolved()
    seconds(14)
    expect(state()).toBe(NUD_REACHABLE) // at least half of 30 s
    seconds(32)
    expect(state()).toBe(NUD_STALE) // and one and a half at most
    expect(send()).toEqual([`data 0 to ${THEM}`])
    expect(state()).toBe(NUD_DELAY)
    seconds(4.8)
    expect([out(), state()]).toEqual([[], NUD_DELAY])
    seconds(0.4)
    expect([out(), state()]).toEqual([[asked_again], NUD_PROBE])
    expect(send()).toEqual([`data 0 to ${THEM}`]) // it is still sent to
    seconds(2.1)
    expect(out()).toEqual([asked_again, asked_again])
    seconds(1)
    expect(state()).toBe(NUD_FAILED)
    expect(send()).toEqual([question])
  })
  test('that answers a probe is reachable again', () => {
    resolved()
    seconds(46)
    send()
    seconds(6)
    expect(out()).toContain(asked_again)
    hears(from({}))
    expect(state()).toBe(NUD_REACHABLE)
  })
  test('of whom there is proof while it is doubted is not asked', () => {
    resolved()
    seconds(46)
    send()
    expect(state()).toBe(NUD_DELAY)
    seconds(1)
    const n = neigh_lookup(ip('10.0.1.2'), eth1)!
    neigh_confirm(n)
    neigh_release(n)
    seconds(4.5)
    expect([out(), state()]).toEqual([[], NUD_REACHABLE])
  })
  test('that nobody uses is forgotten', () => {
    resolved()
    rt_cache_flush()
    seconds(46)
    expect(state()).toBe(NUD_STALE)
    seconds(80)
    expect(state()).toBeNull()
  })
  test('with another address: not within a second, then at once; a broadcast is no proof', () => {
    resolved()
    const other = { sha: '02:00:00:00:02:03', from: '02:00:00:00:02:03' }
    hears(from(other)) // the first of several answers is believed
    expect(send()).toEqual([`data 0 to ${THEM}`])
    seconds(1.1)
    hears(from({ ...other, tip: '10.0.1.2', to: ALL })) // gratuitous
    expect(state()).toBe(NUD_STALE)
    expect(send()).toEqual(['data 0 to 02:00:00:00:02:03'])
  })
  test('is not made of answers that nobody asked for', () => {
    hears(from({}))
    hears(from({ tip: '10.0.1.2', to: ALL }))
    expect(state()).toBeNull()
  })
  test('that is permanent is not changed by what is heard, only by the administrator', () => {
    hears(
      arpFrame({ op: 2, sha: THEM, sip: '10.0.0.2', tha: US, tip: '10.0.0.1', from: THEM, to: '02:00:00:00:00:01' }),
      0,
    )
    expect(state('10.0.0.2', eth0)).toBe(NUD_PERMANENT)
    const n = neigh_lookup(ip('10.0.0.2'), eth0)!
    expect(neigh_update(n, null, 0, NUD_NONE, 0)).toBe(-1)
    expect(neigh_update(n, null, 0, NUD_REACHABLE, NEIGH_UPDATE_F_ADMIN)).toBe(0)
    expect(arp_tbl.entries).toBe(1)
    expect(neigh_update(n, null, 0, NUD_PERMANENT, NEIGH_UPDATE_F_ADMIN)).toBe(0)
    expect(arp_tbl.entries).toBe(0)
    neigh_release(n)
  })
})

describe('answers for others', () => {
  const ask = from({ op: 1, tip: '10.0.0.44', to: ALL, sip: '10.0.1.7' })
  const answer = `reply 10.0.0.44=${US} > 10.0.1.7=${THEM} in ${US}>${THEM}`
  test('are given after a while for those in the table, and only on their device', () => {
    expect(pneigh_add(ip('10.0.0.44'), eth1)).toBe(0)
    expect(pneigh_add(ip('10.0.0.44'), eth1)).toBe(-17)
    expect(hears(ask)).toEqual([])
    seconds(1)
    expect(out()).toEqual([answer])
    expect(hears(from({ op: 1, tip: '10.0.0.45', to: ALL, sip: '10.0.1.7' }))).toEqual([])
    expect(pneigh_delete(ip('10.0.0.44'), eth1)).toBe(0)
    expect(pneigh_delete(ip('10.0.0.44'), eth1)).toBe(-2)
    hears(ask)
    seconds(1)
    expect(out()).toEqual([])
  })
  test('proxy_arp: for all that a route leads to elsewhere; at once if the delay is 0; not for those on the same link', () => {
    sysctl_write('net.ipv4.conf.eth1.proxy_arp', 1)
    sysctl_write('net.ipv4.neigh.eth1.proxy_delay_ms', 0)
    expect(hears(ask)).toEqual([answer])
    expect(hears(from({ op: 1, tip: '10.7.1.1', to: ALL, sip: '10.0.1.7' }))).toEqual([])
    // by medium_id: nothing is said of who hears the question himself, or of nobody
    const media = (eth0: number, eth1: number): number => {
      sysctl_write('net.ipv4.conf.eth0.medium_id', eth0)
      sysctl_write('net.ipv4.conf.eth1.medium_id', eth1)
      return hears(ask).length
    }
    expect([media(5, 5), media(5, 6), media(-1, 6), media(5, -1), media(-1, 0), media(0, 0)]).toEqual([
      0, 1, 0, 0, 1, 1,
    ])
    expect(sysctl_write('net.ipv4.conf.eth1.medium_id', -2)).toBe(-22)
    sysctl_write('net.ipv4.conf.eth1.proxy_arp', 0)
    sysctl_write('net.ipv4.neigh.eth1.proxy_delay_ms', 800)
  })
  test('more than the queue holds are lost; those that wait go with their device', () => {
    pneigh_add(ip('10.0.0.44'), null)
    sysctl_write('net.ipv4.neigh.eth1.proxy_qlen', 2)
    sysctl_write('net.ipv4.neigh.eth1.proxy_delay_ms', 3000)
    const f = s.account(() => {
      for (let k = 0; k < 5; k++) hears(ask)
      pneigh_ifdown(eth1)
    })
    expect(f.drops.neigh_queue_full).toBe(2)
    expect(f.drops.shutdown! + f.delivered).toBe(3)
    pneigh_ifdown(null)
    sysctl_write('net.ipv4.neigh.eth1.proxy_qlen', 64)
    sysctl_write('net.ipv4.neigh.eth1.proxy_delay_ms', 800)
  })
})

test.each([
  ['too short', 'arp_malformed', from({}).subarray(0, 40)],
  ['of other lengths', 'arp_malformed', changed(18, 8)],
  ['of another kind of link', 'arp_ignored', changed(15, 7)],
  ['of another protocol', 'arp_ignored', changed(17, 6)],
  ['neither question nor answer', 'arp_ignored', changed(21, 3)],
] as const)('a packet that is %s is counted and freed', (_, reason, frame) => {
  expect(s.account(() => hears(frame))).toMatchObject({ received: 1, drops: { [reason]: 1 } })
})
function changed(at: number, to: number): Uint8Array {
  const f = from({})
  f[at] = to
  return f
}

test('a sysctl that is not there, or cannot be so', () => {
  expect(sysctl_write('net.ipv4.neigh.eth1.nothing', 1)).toBe(-2)
  expect(sysctl_write('net.ipv4.conf.eth7.proxy_arp', 1)).toBe(-2)
  expect(sysctl_write('net.ipv4.neigh.eth1.mcast_solicit', -1)).toBe(-22)
  expect(sysctl_write('net.ipv4.ip_forward', 2)).toBe(-22)
})

test('nothing leaks', () => {
  send()
  expect(conserved(s.fates())).toBe(false) // one waits
  dev_put(eth0)
  dev_put(eth1)
  expect(s.solo.audit()).toEqual([])
  expect(conserved(s.fates())).toBe(true)
  expect(slabinfo().find(c => c.name === 'neigh_ha')!.used).toBe(0)
})
