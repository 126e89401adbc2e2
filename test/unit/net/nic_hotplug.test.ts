/** The driver model: a NIC is unplugged while it is used and plugged in again; its driver's probe and remove. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { BUS_SLOTS, device_add, device_at, device_del } from '../../../src/drivers/base/bus.js'
import { packet_fates } from '../../../src/net/core/fate.js'
import { dev_get_by_name, dev_put } from '../../../src/net/core/netdevice.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { ip_main } from '../../../src/user/ip.js'
import { close, connect, type Libc, malloc, nanosleep, send, sockaddr_in, socket } from '../../../src/user/libc.js'
import { icmpFrame, udpFrame } from '../../helpers/frames.js'
import { finish, run, start } from '../../helpers/programs.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  neighbours: [
    { address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } },
    { address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } },
  ],
  config: { loopback: 1, user_procs: 4 },
})
const [EEXIST, ENODEV, EINVAL] = [-17, -19, -22]
const MSG_MORE = 0x8000
const through = udpFrame({ src: '10.0.0.2', dst: '10.0.1.2', sport: 5, dport: 9 }, new Uint8Array(30))
const ping = icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }, 8, 0, 1, new Uint8Array(20))

let threads = 0
/** A kernel thread that calls this; what it returned. */
function kernel(body: () => Generator<void, number, void>, ms = 3000): number {
  let ret: number | null = null
  kernel_thread(
    'operator',
    symbol(`hotplug_operator_${threads++}`, function* (): Generator<void, number, void> {
      ret = yield* body()
      return 0
    }),
    0,
  )
  for (let k = 0; k < ms && ret === null; k++) s.pass(1)
  if (ret === null) throw new Error('the thread hangs')
  return ret
}
function exists(name: string): boolean {
  const dev = dev_get_by_name(name)
  if (dev !== null) dev_put(dev)
  return dev !== null
}
function ip_says(line: string): { out: string; code: number } {
  let out = ''
  const take = function* (text: string): Generator<void, number, void> {
    out += text
    return 0
  }
  const code = run(s, () => ip_main(line.split(' '), { out: take, err: take }))
  return { out, code }
}

test('places that are not there, or not in the state for it', () => {
  expect(kernel(() => device_del(BUS_SLOTS))).toBe(ENODEV)
  expect(kernel(() => device_add(-1))).toBe(ENODEV)
  expect(kernel(() => device_add(0))).toBe(EEXIST)
  expect(kernel(() => device_del(5))).toBe(ENODEV)
})

test('unplugged in the midst of traffic: packets, routes, addresses and neighbours go with it', () => {
  expect(s.send(0, through, through)[1]!.length).toBe(2)
  for (let k = 0; k < 20; k++) s.solo.board.nics[0]!.arrive(through)
  expect(kernel(() => device_del(1))).toBe(0)
  expect([exists('eth0'), exists('eth1'), device_at(1)!.driver]).toEqual([true, false, 0])
  expect(ip_says('route show').out).not.toContain('eth1')
  expect(ip_says('neigh show').out).not.toContain('eth1')
  const unreachable = s.send(0, through)
  expect(unreachable[0]!.map(f => [f[34], f[35]])).toEqual([[3, 0]]) // ICMP: network unreachable
  expect(s.send(1, through)).toEqual([[], []]) // nobody drives it
  expect(kernel(() => device_del(1))).toBe(ENODEV)
})

test('plugged in again: the same station, down and bare, until somebody sets it up', () => {
  expect(kernel(() => device_add(1))).toBe(0)
  expect(ip_says('addr show dev eth1').out).toMatch(
    /^\d+: eth1: <BROADCAST,MULTICAST> mtu 1500 qdisc noop qlen 1000\n {4}link\/ether 02:.*\n$/,
  )
  for (const line of ['link set eth1 up', 'addr add 10.0.1.1/24 dev eth1'])
    expect(ip_says(line)).toEqual({ out: '', code: 0 })
  expect(ip_says('neigh add 10.0.1.2 lladdr 02:00:00:00:02:02 dev eth1')).toEqual({ out: '', code: 0 })
  expect(s.send(0, through)[1]!.length).toBe(1)
  expect(s.send(0, ping)[0]!.length).toBe(1)
})

test('idle sockets with a route through it do not hold it: connected, corked, in a tunnel', () => {
  const key = '0x0102030405060708090a0b0c0d0e0f1011121314'
  for (const line of [
    `xfrm state add src 10.0.0.1 dst 10.0.0.2 proto esp spi 0x300 reqid 3 mode tunnel auth sha1 ${key} enc cipher_null 0x`,
    'xfrm policy add src 10.0.0.1/32 dst 10.9.0.0/16 dir out tmpl src 10.0.0.1 dst 10.0.0.2 proto esp reqid 3 mode tunnel',
    'route add 10.9.0.0/16 via 10.0.0.2',
  ])
    expect(ip_says(line)).toEqual({ out: '', code: 0 })
  let gone = false
  const waiting = start(function* () {
    const to = (address: string): number => sockaddr_in(malloc(16), ip(address), 9)
    function* client(address: string): Libc {
      const fd = yield* socket(2, 2, 0)
      yield* connect(fd, to(address), 16)
      return fd
    }
    const plain = yield* client('10.0.0.2')
    const corked = yield* client('10.0.0.2')
    const tunnel = yield* client('10.9.0.1')
    const first = [
      yield* send(plain, malloc(8), 8, 0),
      yield* send(corked, malloc(8), 8, MSG_MORE),
      yield* send(tunnel, malloc(8), 8, 0),
    ]
    while (!gone) yield* nanosleep(10e6)
    const last = [
      yield* send(corked, malloc(8), 8, 0), // what was begun goes the old way, and so nowhere
      yield* send(corked, malloc(8), 8, 0),
      yield* send(plain, malloc(8), 8, 0),
      yield* send(tunnel, malloc(8), 8, 0),
    ]
    for (const fd of [plain, corked, tunnel]) yield* close(fd)
    return [...first, ...last]
  })
  s.pass(5)
  const dropped = packet_fates.mine.local_dropped
  expect(kernel(() => device_del(0))).toBe(0)
  gone = true
  expect(finish(s, waiting)).toEqual([8, 8, 8, 8, EINVAL, EINVAL, EINVAL])
  expect(packet_fates.mine.local_dropped - dropped).toBe(1)
  expect(kernel(() => device_add(0))).toBe(0)
  expect(exists('eth0')).toBe(true)
  for (const what of ['policy', 'state']) expect(ip_says(`xfrm ${what} flush`).code).toBe(0)
})

test('a tunnel that goes through it does not hold it', () => {
  const key = '0x0102030405060708090a0b0c0d0e0f1011121314'
  for (const line of [
    'link set eth1 up',
    'addr add 10.0.1.1/24 dev eth1',
    'neigh add 10.0.1.2 lladdr 02:00:00:00:02:02 dev eth1',
    'link set eth0 up',
    'addr add 10.0.0.1/24 dev eth0',
    `xfrm state add src 10.0.1.1 dst 10.0.1.2 proto esp spi 0x100 reqid 1 mode tunnel auth sha1 ${key} enc cipher_null 0x`,
    'xfrm policy add src 10.0.0.0/24 dst 10.0.1.0/24 dir out tmpl src 10.0.1.1 dst 10.0.1.2 proto esp reqid 1 mode tunnel',
  ])
    ip_says(line)
  const [, out] = s.send(0, through)
  expect(out!.map(f => f[23])).toEqual([50])
  expect(kernel(() => device_del(1))).toBe(0)
  expect(kernel(() => device_add(1))).toBe(0)
  for (const what of ['policy', 'state']) expect(ip_says(`xfrm ${what} flush`).code).toBe(0)
})

test('again and again: no memory is lost', () => {
  for (let k = 0; k < 30; k++) {
    expect(kernel(() => device_del(k & 1))).toBe(0)
    expect(kernel(() => device_add(k & 1))).toBe(0)
  }
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
