/** `ip` as a user types it: what it prints, what the kernel then does, its exit codes. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { ip_main } from '../../../src/user/ip.js'
import { inet_addr, malloc, sendto, setuid, sockaddr_in, socket } from '../../../src/user/libc.js'
import { parse, udpFrame } from '../../helpers/frames.js'
import { run } from '../../helpers/programs.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip as address } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: address('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: address('10.0.1.1'), prefixlen: 24 }] },
  ],
  neighbours: [
    { address: address('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } },
    { address: address('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } },
    { address: address('10.0.1.3'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x203 } },
  ],
  config: { loopback: 1, user_procs: 4 },
})
/** One command line: [exit code, what it printed, what it complained of]. */
function ip(line: string, uid = 0): [number, string, string] {
  let [out, err] = ['', '']
  const code = run(s, function* () {
    if (uid !== 0) yield* setuid(uid)
    return yield* ip_main(line.split(' ').filter(Boolean), {
      *out(text) {
        out += text
        return 0
      },
      *err(text) {
        err += text
        return 0
      },
    })
  })
  return [code, out, err]
}
const good = (line: string): void => expect(ip(line)).toEqual([0, '', ''])
const prints = (line: string): string => {
  const [code, out, err] = ip(line)
  expect([code, err]).toEqual([0, ''])
  return out
}
/** The link address that a packet to `dst` leaves with, or nothing. */
/** The TTL of a datagram of our own. */
const ttl = (dst: string): number => {
  run(s, function* () {
    return yield* sendto(yield* socket(2, 2, 0), malloc(4), 4, 0, sockaddr_in(malloc(16), inet_addr(dst), 9), 16)
  })
  s.pass(1)
  return parse(s.out()[1]![0]!).ttl
}
const hop = (dst: string): string | undefined => {
  const [frame] = s.send(0, udpFrame({ src: '10.0.0.2', dst }))[1]!
  return frame === undefined ? undefined : parse(frame).to
}

describe('ip link, ip addr', () => {
  test('what there is at first', () => {
    expect(prints('addr show')).toBe(`1: lo: <LOOPBACK,UP> mtu 16436 qdisc noqueue 
    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00
    inet 127.0.0.1/8 brd 127.255.255.255 scope host lo
2: eth0: <BROADCAST,MULTICAST,UP> mtu 1500 qdisc pfifo_fast qlen 1000
    link/ether 02:00:00:00:00:01 brd ff:ff:ff:ff:ff:ff
    inet 10.0.0.1/24 brd 10.0.0.255 scope global eth0
3: eth1: <BROADCAST,MULTICAST,UP> mtu 1500 qdisc pfifo_fast qlen 1000
    link/ether 02:00:00:00:00:02 brd ff:ff:ff:ff:ff:ff
    inet 10.0.1.1/24 brd 10.0.1.255 scope global eth1
`)
    expect(prints('l sh eth1')).toBe(`3: eth1: <BROADCAST,MULTICAST,UP> mtu 1500 qdisc pfifo_fast qlen 1000
    link/ether 02:00:00:00:00:02 brd ff:ff:ff:ff:ff:ff
`)
  })
  test('addresses come and go', () => {
    good('addr add 172.16.1.1/16 brd + dev eth1 label eth1:x')
    good('addr add 172.16.1.2/16 dev eth1')
    good('addr add 192.168.1.1 peer 192.168.1.2/32 dev eth1')
    expect(prints('a s dev eth1').split('\n').slice(3, -1)).toEqual([
      '    inet 172.16.1.1/16 brd 172.16.255.255 scope global eth1:x',
      '    inet 192.168.1.1 peer 192.168.1.2/32 scope global eth1',
      '    inet 172.16.1.2/16 scope global secondary eth1',
    ])
    good('addr del 192.168.1.1 peer 192.168.1.2/32 dev eth1')
    good('addr del 172.16.1.1/16 dev eth1')
    expect(prints('addr show dev eth1').match(/inet/g)).toHaveLength(1)
    good('addr add 172.16.1.1/16 dev eth1')
    good('addr flush dev eth1')
    expect(prints('addr show dev eth1').match(/inet/g)).toBeNull()
    good('addr add 10.0.1.1/24 brd 10.0.1.255 dev eth1')
  })
  test('a link goes down and up, is called otherwise, counts', () => {
    good('link set eth1 down')
    expect(prints('link show eth1')).toContain('3: eth1: <BROADCAST,MULTICAST> mtu')
    good('link set dev eth1 name wan mtu 1400 address 02:00:00:00:00:77 txqueuelen 500')
    good('link set wan up')
    expect(prints('link show wan')).toBe(`3: wan: <BROADCAST,MULTICAST,UP> mtu 1400 qdisc pfifo_fast qlen 500
    link/ether 02:00:00:00:00:77 brd ff:ff:ff:ff:ff:ff
`)
    good('link set wan down')
    good('link set wan name eth1 address 02:00:00:00:00:02 mtu 1500 txqueuelen 1000')
    good('link set eth1 up promisc on')
    expect(prints('link show eth1')).toContain('<BROADCAST,MULTICAST,PROMISC,UP>')
    good('link set eth1 promisc off')
    s.send(0, udpFrame({ src: '10.0.0.2', dst: '10.0.1.2' }))
    expect(prints('-s link show eth1')).toMatch(/TX: bytes.*\n {4}\d+ +[1-9]\d* +0 +0 +0 +0 +\n$/)
  })
  test.each<[string, number, string]>([
    ['addr add 10.0.1.1/24 dev eth1', 2, 'RTNETLINK answers: File exists\n'],
    ['addr add 10.9.1.1/24 dev eth9', 1, 'Cannot find device "eth9"\n'],
    ['addr del 10.9.1.1/24 dev eth1', 2, 'RTNETLINK answers: Cannot assign requested address\n'],
    ['addr add 10.9.1.1/24', 255, 'Not enough information: "dev" argument is required.\n'],
    ['addr add 10.9.1.x/24 dev eth1', 255, 'Error: an inet address is expected rather than "10.9.1.x".\n'],
    ['addr add 10.9.1.1/33 dev eth1', 255, 'Error: an inet prefix is expected rather than "10.9.1.1/33".\n'],
    ['addr add 10.9.1.1/24 dev eth1 label lo', 255, '"dev" (eth1) must match "label" (lo).\n'],
    ['link set eth1 mtu 9999999', 2, 'RTNETLINK answers: Device or resource busy\n'],
    ['link set eth1 name lo', 2, 'RTNETLINK answers: Device or resource busy\n'],
    ['link set', 255, 'Not enough of information: "dev" argument is required.\n'],
    ['link set eth1 nonsense', 255, 'Error: either "dev" is duplicate, or "nonsense" is a garbage.\n'],
    ['frob', 255, 'Object "frob" is unknown, try "ip help".\n'],
    ['addr frob', 255, 'Command "frob" is unknown, try "ip address help".\n'],
  ])('ip %s', (line, code, err) => {
    expect(ip(line)).toEqual([code, '', err])
  })
  test('a user may look, but change nothing', () => {
    expect(ip('addr show dev lo', 1000)[0]).toBe(0)
    expect(ip('link set eth1 down', 1000)).toEqual([2, '', 'RTNETLINK answers: Operation not permitted\n'])
  })
})

describe('ip route', () => {
  test('what the addresses brought', () => {
    expect(prints('route')).toBe(`10.0.0.0/24 dev eth0  proto kernel  scope link  src 10.0.0.1 
10.0.1.0/24 dev eth1  proto kernel  scope link  src 10.0.1.1 
`)
    expect(prints('route show table local dev lo').split('\n').sort()).toEqual([
      '',
      'broadcast 127.0.0.0 dev lo  proto kernel  scope link  src 127.0.0.1 ',
      'broadcast 127.255.255.255 dev lo  proto kernel  scope link  src 127.0.0.1 ',
      'local 127.0.0.0/8 dev lo  proto kernel  scope host  src 127.0.0.1 ',
      'local 127.0.0.1 dev lo  proto kernel  scope host  src 127.0.0.1 ',
    ])
  })
  test('a way out, and another one', () => {
    good('route add default via 10.0.1.2')
    expect(prints('r s exact 0/0')).toBe('default via 10.0.1.2 dev eth1 \n')
    expect(hop('99.0.0.1')).toBe('02:00:00:00:02:02')
    good('route replace default via 10.0.1.3 dev eth1 metric 0 mtu lock 1300 advmss 1200')
    expect(prints('route show exact default')).toBe('default via 10.0.1.3 dev eth1  mtu lock 1300 advmss 1200\n')
    expect(hop('99.0.0.1')).toBe('02:00:00:00:02:03')
    expect(prints('route get 99.0.0.1')).toBe(`99.0.0.1 via 10.0.1.3 dev eth1  src 10.0.1.1 
    cache  mtu lock 1300 advmss 1200 hoplimit 64
`)
    expect(prints('route get 99.0.0.1 from 10.0.0.2 iif eth0')).toContain(
      '99.0.0.1 from 10.0.0.2 via 10.0.1.3 dev eth1 ',
    )
    expect(prints('route get 10.0.0.1')).toMatch(
      /^local 10\.0\.0\.1 dev lo {2}src 10\.0\.0\.1 \n {4}cache <local> {2}mtu/,
    )
    expect(prints('route show cache via 10.0.1.3')).toContain('cache ')
    good('route replace default via 10.0.1.3 dev eth1 hoplimit 9')
    expect(prints('route get 99.0.0.1')).toContain('cache  mtu 1500 advmss 1460 hoplimit 9\n')
    expect(ttl('99.0.0.1')).toBe(9)
    good('route del default')
    expect(hop('99.0.0.1')).toBeUndefined()
  })
  test('of other kinds, in other tables, with several next hops', () => {
    good('route add unreachable 70.1/16')
    good('route add blackhole 70.2.0.0/16 metric 5')
    good('route add prohibit 70.3.0.0/16 table 9')
    good('route add 70.4.0.0/16 nexthop via 10.0.1.2 weight 2 nexthop via 10.0.1.3 dev eth1')
    good('route add 70.5.0.0/16 dev eth1 src 10.0.0.1 proto static tos 0x10')
    good('route append 70.4.0.0/16 via 10.0.1.3')
    expect(
      prints('route show root 70.0.0.0/8 table all')
        .split(/\n(?!\t)/)
        .filter(Boolean)
        .sort(),
    ).toEqual([
      '70.4.0.0/16 \n\tnexthop via 10.0.1.2  dev eth1 weight 2\n\tnexthop via 10.0.1.3  dev eth1 weight 1',
      '70.4.0.0/16 via 10.0.1.3 dev eth1 ',
      '70.5.0.0/16 tos 0x10 dev eth1  proto static  scope link  src 10.0.0.1 ',
      'blackhole 70.2.0.0/16  metric 5 ',
      'prohibit 70.3.0.0/16  table 9 ',
      'unreachable 70.1.0.0/16 ',
    ])
    expect(prints('route show match 70.5.1.1 dev eth1')).toContain('70.5.0.0/16 tos 0x10')
    good('link set eth1 down')
    expect(prints('route show root 70.0.0.0/8')).not.toContain('nexthop')
    good('link set eth1 up')
    good('route flush root 70.0.0.0/8')
    good('route flush table 9')
    expect(prints('route show root 70.0.0.0/8 table all')).toBe('')
    expect(prints('route flush table 9')).toBe('Nothing to flush.\n')
  })
  test.each<[string, number, string]>([
    ['route add 10.0.1.0/24 dev eth1 scope link proto kernel src 10.0.1.1', 2, 'RTNETLINK answers: File exists\n'],
    ['route add 71.0.0.0/8 via 99.0.0.1', 2, 'RTNETLINK answers: Network is unreachable\n'],
    ['route add 71.0.0.1/8 via 10.0.1.2', 2, 'RTNETLINK answers: Invalid argument\n'],
    ['route del 71.0.0.0/8', 2, 'RTNETLINK answers: No such process\n'],
    ['route change 71.0.0.0/8 via 10.0.1.2', 2, 'RTNETLINK answers: No such file or directory\n'],
    ['route get 71.0.0.1', 2, 'RTNETLINK answers: Network is unreachable\n'],
    ['route get 71.0.0.0/8', 255, 'need at least destination address\n'],
    ['route add 71.0.0.0/8 via', 255, 'Command line is not complete. Try option "help"\n'],
    [
      'route add 71.0.0.0/8 via 10.0.1.2 72.0.0.0/8',
      255,
      'Error: either "to" is duplicate, or "72.0.0.0/8" is a garbage.\n',
    ],
    ['route add 71.0.0.0/8 dev eth1 table 999', 255, 'Error: argument "999" is wrong: invalid table\n'],
  ])('ip %s', (line, code, err) => {
    expect(ip(line)).toEqual([code, '', err])
  })
})

describe('ip neigh', () => {
  test('permanent ones are shown, entered, replaced and deleted', () => {
    expect(prints('neigh show dev eth1').split('\n').sort()).toContain(
      '10.0.1.2 dev eth1 lladdr 02:00:00:00:02:02 PERMANENT',
    )
    good('neigh add 10.0.1.9 lladdr 02:00:00:00:02:09 dev eth1')
    expect(ip('neigh add 10.0.1.9 lladdr 02:00:00:00:02:0a dev eth1')).toEqual([
      2,
      '',
      'RTNETLINK answers: File exists\n',
    ])
    expect(hop('10.0.1.9')).toBe('02:00:00:00:02:09')
    good('neigh replace 10.0.1.9 lladdr 02:00:00:00:02:0a dev eth1 nud reachable')
    expect(prints('neigh show 10.0.1.9')).toBe('10.0.1.9 dev eth1 lladdr 02:00:00:00:02:0a REACHABLE\n')
    expect(hop('10.0.1.9')).toBe('02:00:00:00:02:0a')
    good('neigh del 10.0.1.9 dev eth1')
    expect(prints('neigh show 10.0.1.9 nud all')).toBe('10.0.1.9 dev eth1 FAILED\n')
    good('neigh add 10.0.1.8 lladdr 02:00:00:00:02:08 dev eth1 nud stale')
    good('neigh flush dev eth1')
    expect(prints('neigh show dev eth1 nud stale')).toBe('')
    good('neigh add proxy 10.0.1.99 dev eth1')
    good('neigh del proxy 10.0.1.99 dev eth1')
    expect(ip('neigh add 10.0.1.9')).toEqual([255, '', 'Device and destination are required arguments.\n'])
  })
})

describe('ip rule', () => {
  test('rules are shown, added and deleted', () => {
    const three = '0:\tfrom all lookup local \n32766:\tfrom all lookup main \n32767:\tfrom all lookup default \n'
    expect(prints('rule')).toBe(three)
    good('route add default via 10.0.1.3 table 7')
    good('rule add from 10.0.0.0/24 tos 0x10 iif eth0 fwmark 0 table 7 pref 100')
    good('rule add to 99.0.0.1 prohibit pref 101')
    expect(prints('rule show').split('\n').slice(1, 3)).toEqual([
      '100:\tfrom 10.0.0.0/24 tos 0x10 iif eth0 lookup 7 ',
      '101:\tfrom all to 99.0.0.1 prohibit',
    ])
    expect(hop('99.0.0.1')).toBeUndefined()
    expect(parse(s.send(0, udpFrame({ src: '10.0.0.2', dst: '99.0.0.1', tos: 0x10 }))[1]![0]!).to).toBe(
      '02:00:00:00:02:03',
    )
    good('rule del pref 101 to 99.0.0.1')
    good('rule del pref 100 from 10.0.0.0/24 tos 0x10')
    expect(prints('rule')).toBe(three)
    expect(ip('rule del pref 4711')).toEqual([2, '', 'RTNETLINK answers: No such process\n'])
    good('route flush table 7')
  })
})

test('nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
