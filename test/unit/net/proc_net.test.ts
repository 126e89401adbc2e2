/** /proc/net: neighbours, sockets and groups in the columns of 2.6.11. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { expect, test } from 'vitest'
import { proc_read } from '../../../src/fs/proc.js'
import { dev_get_by_name, dev_put } from '../../../src/net/core/netdevice.js'
import { pneigh_add } from '../../../src/net/core/pneigh.js'
import { sysctl_write } from '../../../src/net/core/sysctl.js'
import { bind, connect, inet_addr, ioctl, malloc, mem, sockaddr_in, socket } from '../../../src/user/libc.js'
import { icmpFrame } from '../../helpers/frames.js'
import { run } from '../../helpers/programs.js'
import { Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [{ addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] }],
  neighbours: [{ address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x1ab } }],
  config: { loopback: 1, user_procs: 4 },
})
const lines = (file: string): string[] => proc_read(`/proc/net/${file}`)!.trimEnd().split('\n')

test('arp: who is known, and who is answered for', () => {
  s.send(0, icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }, 8))
  const eth0 = dev_get_by_name('eth0')!
  expect([pneigh_add(ip('10.0.0.7'), eth0), pneigh_add(ip('10.0.0.8'), null)]).toEqual([0, 0])
  dev_put(eth0)
  expect(lines('arp')).toEqual([
    'IP address       HW type     Flags       HW address            Mask     Device',
    '10.0.0.2         0x1         0x6         02:00:00:00:01:AB     *        eth0',
    '10.0.0.8         0x0         0xc         00:00:00:00:00:00     *        *',
    '10.0.0.7         0x1         0xc         00:00:00:00:00:00     *        eth0',
  ])
})

test('udp, raw, sockstat: sockets with a port or a protocol', () => {
  const seen: string[][] = []
  const before = Number(lines('sockstat')[0]!.slice('sockets: used '.length)) // the kernel's own
  run(s, function* () {
    const fd = yield* socket(2, 2, 0)
    yield* bind(fd, sockaddr_in(malloc(16), inet_addr('10.0.0.1'), 0x1234), 16)
    yield* connect(fd, sockaddr_in(malloc(16), inet_addr('10.0.0.2'), 9), 16)
    yield* socket(2, 3, 89)
    seen.push(lines('udp'), lines('raw'), lines('sockstat'))
    return 0
  })
  const [udp, raw, stat] = seen as [string[], string[], string[]]
  const head =
    /^ {2}sl {2}local_address rem_address {3}st tx_queue rx_queue tr tm->when retrnsmt {3}uid {2}timeout inode *$/
  expect([udp.length, raw.length, udp[0], raw[0], udp[0]!.length]).toEqual([
    ...[2, 2, expect.stringMatching(head), expect.stringMatching(head)],
    127,
  ])
  expect(udp[1]).toMatch(
    /^ {2}52: 0100000A:1234 0200000A:0009 01 00000000:00000000 00:00000000 00000000 {5}0 {8}0 0 2 /,
  )
  expect(raw[1]).toMatch(/^ {2}89: 00000000:0059 00000000:0000 07 00000000:00000000 00:00000000 00000000 {5}0 {8}0 0 /)
  expect(stat).toEqual([`sockets: used ${before + 2}`, 'UDP: inuse 1', 'RAW: inuse 1', 'FRAG: inuse 0 memory 0'])
  expect([lines('udp').length, lines('raw').length]).toEqual([1, 1])
})

test('igmp: the groups of each device; dev_mcast: those by station address', () => {
  expect(lines('igmp')).toEqual([
    'Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter',
    '1\tlo        :     1      V2',
    '\t\t\t\t010000E0     1 0:00000000\t\t0',
    '2\teth0      :     1      V2',
    '\t\t\t\t010000E0     1 0:00000000\t\t0',
  ])
  sysctl_write('net.ipv4.conf.eth0.force_igmp_version', 1)
  expect(lines('igmp')[3]).toBe('2\teth0      :     1      V1')
  expect(lines('dev_mcast')).toEqual([''])
  const SIOCADDMULTI = 0x8931
  run(s, function* () {
    const req = malloc(32)
    mem(req, 32).set([...'eth0'].map(c => c.charCodeAt(0)))
    mem(req + 16, 16).set([0, 0, 1, 0, 0x5e, 1, 2, 3])
    return yield* ioctl(yield* socket(2, 2, 0), SIOCADDMULTI, req)
  })
  expect(lines('dev_mcast')).toEqual(['2    eth0            1     1     01005e010203'])
})

test('snmp: 1 for a router, 2 for a host', () => {
  const forwarding = (): string => lines('snmp')[1]!.split(' ')[1]!
  expect(forwarding()).toBe('1')
  sysctl_write('net.ipv4.ip_forward', 0)
  expect(forwarding()).toBe('2')
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
