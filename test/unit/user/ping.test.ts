/** ping and traceroute, as programs: what they print and return, over loopback and with routers that the test plays. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { expect, test } from 'vitest'
import { exec } from '../../../src/syscall/exec.js'
import { sh, type Wire } from '../../helpers/console.js'
import { icmpFrame, parse } from '../../helpers/frames.js'
import { Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [{ addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] }],
  routes: [
    {
      dst: ip('10.9.0.0'),
      prefixlen: 16,
      type: 'unicast',
      metric: 0,
      nexthops: [{ gw: ip('10.0.0.2'), dev: 'eth0', weight: 1 }],
    },
  ],
  neighbours: [{ address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } }],
  config: { loopback: 1, user_procs: 3, jumbo: 64 },
})
const HOPS = ['10.0.0.2', '10.1.0.1']
const TARGET = '10.9.0.9'

/** Two routers and a host behind them; `lose` drops what it says. */
function network(lose: (probe: number) => boolean = () => false): Wire {
  let probes = 0
  return frame => {
    const p = parse(frame)
    if (p.dst !== TARGET || lose(probes++)) return []
    const quoted = frame.slice(14, 14 + 28)
    const router = HOPS[p.ttl - 1]
    if (router !== undefined) return [icmpFrame({ src: router, dst: '10.0.0.1' }, 11, 0, 0, quoted)]
    if (p.protocol === 17) return [icmpFrame({ src: TARGET, dst: '10.0.0.1' }, 3, 3, 0, quoted)]
    if (p.payload[0] !== 8) return []
    const info = (p.payload[4]! << 24) | (p.payload[5]! << 16) | (p.payload[6]! << 8) | p.payload[7]!
    return [icmpFrame({ src: TARGET, dst: '10.0.0.1', ttl: 62 }, 0, 0, info >>> 0, p.payload.slice(8))]
  }
}

test.each([0, 7, 8, 56, 1472, 1473, 30_000, 65_507])('ping: %i bytes over loopback', size => {
  const said = sh(s, `ping -c 3 -i 0.01 -s ${size} 127.0.0.1`)
  expect(said.err).toBe('')
  const lines = said.out.split('\n')
  expect(lines[0]).toBe(`PING 127.0.0.1 (127.0.0.1) ${size}(${size + 28}) bytes of data.`)
  for (const seq of [1, 2, 3]) {
    const time = size < 8 ? '' : ' time=[0-9.]+ ms'
    expect(lines[seq]).toMatch(new RegExp(`^${size + 8} bytes from 127.0.0.1: icmp_seq=${seq} ttl=64${time}$`))
  }
  expect(said.out).toMatch(/3 packets transmitted, 3 received, 0% packet loss, time \d+ms/)
  expect(/rtt min\/avg\/max\/mdev = /.test(said.out)).toBe(size >= 8)
  expect(said.code).toBe(0)
})

test('ping over two routers: its TTL is what it was told, losses are counted', () => {
  const said = sh(
    s,
    `ping -c 4 -i 0.05 -W 0.1 ${TARGET}`,
    {},
    1000,
    network(k => k === 1),
  )
  expect(said.out).toContain(`64 bytes from ${TARGET}: icmp_seq=1 ttl=62 time=`)
  expect(said.out).not.toContain('icmp_seq=2')
  expect(said.out).toMatch(/4 packets transmitted, 3 received, 25% packet loss/)
  expect(said.code).toBe(0)
  const short = sh(s, `ping -c 1 -t 2 -W 0.1 ${TARGET}`, {}, 1000, network())
  expect(short.out).toContain('From 10.1.0.1 icmp_seq=1 Time to live exceeded\n')
  expect(short.out).toMatch(/1 packets transmitted, 0 received, \+1 errors, 100% packet loss/)
  expect(short.code).toBe(1)
})

test('ping: nobody there, no route, no answer, no rights, wrong usage', () => {
  const dead = sh(s, 'ping -c 1 -W 0.2 10.0.0.77', {}, 5000)
  expect(dead.out).toContain('From 10.0.0.1 icmp_seq=1 Destination Host Unreachable')
  expect(dead.code).toBe(1)
  const nowhere = sh(s, 'ping -c 1 -W 0.1 192.0.2.1')
  expect(nowhere.err).toBe('ping: sendmsg: Network is unreachable\n')
  expect(nowhere.code).toBe(1)
  const silent = sh(s, `ping -c 2 -i 0.01 -W 0.05 ${TARGET}`)
  expect(silent.out).toMatch(/2 packets transmitted, 0 received, 100% packet loss/)
  expect(silent.code).toBe(1)
  const mortal = sh(s, 'ping -c 1 127.0.0.1', { uid: 5 })
  expect([mortal.code, mortal.err]).toEqual([2, 'ping: icmp open socket: Operation not permitted\n'])
  for (const wrong of ['ping', 'ping x', 'ping -s 65508 127.0.0.1', 'ping -z 127.0.0.1', 'ping -c 0 127.0.0.1']) {
    const said = sh(s, wrong)
    expect([said.code, said.err.slice(0, 11)]).toEqual([2, 'usage: ping'])
  }
})

test('ping -M do: what does not fit the device is a local error that names the MTU', () => {
  const said = sh(s, `ping -c 1 -M do -s 1473 -W 0.1 ${TARGET}`, {}, 1000, network())
  expect(said.out + said.err).toMatch(/Frag needed and DF set \(mtu = 1500\)|Message too long, mtu=1500/)
  expect(said.code).toBe(1)
})

test('ping: SIGINT ends it, and it says what came', () => {
  const { pid } = sh(s, 'ping -c 1 127.0.0.1').records[0]!
  exec(['kill', '-INT', String(pid + 2)], { delayMs: 250 })
  const said = sh(s, 'ping -i 0.1 127.0.0.1', {}, 1000)
  expect(said.out).toMatch(/3 packets transmitted, 3 received, 0% packet loss/)
  expect(said.code).toBe(0)
})

test('ping -f: as fast as the answers come', () => {
  const said = sh(s, 'ping -f -c 500 127.0.0.1')
  expect(said.out).toMatch(/500 packets transmitted, 500 received, 0% packet loss/)
  expect(said.out.split('\b \b').length - 1).toBe(500)
  expect(said.code).toBe(0)
})

test('ping -R: the addresses on the way and back', () => {
  const said = sh(s, 'ping -R -c 1 127.0.0.1')
  expect(said.out).toContain('PING 127.0.0.1 (127.0.0.1) 56(124) bytes of data.')
  expect(said.out).toContain('\nRR: \t127.0.0.1\n\t127.0.0.1\n\t127.0.0.1\n\t127.0.0.1\n')
  expect(said.code).toBe(0)
})

test.each(['', '-I '])('traceroute %s: each router, then the host', how => {
  const said = sh(
    s,
    `traceroute ${how}-n -w 0.2 ${TARGET}`,
    {},
    3000,
    network(k => k === 4),
  )
  const lines = said.out.trimEnd().split('\n')
  const time = '  [0-9.]+ ms'
  expect(lines[0]).toBe(`traceroute to ${TARGET} (${TARGET}), 30 hops max, 60 byte packets`)
  expect(lines[1]).toMatch(new RegExp(`^ 1  10.0.0.2${time}${time}${time}$`))
  expect(lines[2]).toMatch(new RegExp(`^ 2  10.1.0.1${time} \\*${time}$`))
  expect(lines[3]).toMatch(new RegExp(`^ 3  10.9.0.9${time}${time}${time}$`))
  expect([lines.length, said.err, said.code]).toEqual([4, '', 0])
})

test('traceroute: limits, names, usage', () => {
  const said = sh(s, `traceroute -m 1 -q 1 -w 0.1 ${TARGET} 100`, {}, 3000, network())
  expect(said.out).toMatch(
    /^traceroute to 10.9.0.9 \(10.9.0.9\), 1 hops max, 100 byte packets\n 1 {2}10.0.0.2 \(10.0.0.2\) {2}[0-9.]+ ms\n$/,
  )
  expect(sh(s, `traceroute -I ${TARGET}`, { uid: 3 }).code).toBe(1)
  expect(sh(s, 'traceroute nowhere').code).toBe(2)
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
