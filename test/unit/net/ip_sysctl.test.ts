/** net.ipv4.ip_*, ipfrag_* and icmp_ignore_bogus_error_responses: what 2.6.11 begins with, and that each changes what it says. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { afterEach, expect, test } from 'vitest'
import { EADDRNOTAVAIL, ECONNREFUSED, EINVAL } from '../../../src/lib/errno.js'
import { find_sysctl, sysctl_write } from '../../../src/net/core/sysctl.js'
import { ip_frag_mem, ip_frag_nqueues } from '../../../src/net/ipv4/ipq.js'
import {
  bind,
  connect,
  getsockopt,
  inet_addr,
  type Libc,
  load32,
  malloc,
  recv,
  sendto,
  set_word,
  sockaddr_in,
  socket,
  variable,
} from '../../../src/user/libc.js'
import { clock } from '../../helpers/clock.js'
import { fragments, icmpFrame, type Parsed, parse, udp, udpFrame } from '../../helpers/frames.js'
import { finish, run, start } from '../../helpers/programs.js'
import { Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [{ addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] }],
  neighbours: [{ address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } }],
  config: { loopback: 1, user_procs: 4 },
})
const [SOL_IP, IP_TTL, IP_MTU_DISCOVER, IP_MTU, SO_BROADCAST] = [0, 2, 10, 14, 6] as const
const DEFAULTS: Record<string, number> = {
  ...{ ip_default_ttl: 64, ip_no_pmtu_disc: 0, ip_nonlocal_bind: 0, icmp_ignore_bogus_error_responses: 0 },
  ...{ ipfrag_high_thresh: 262_144, ipfrag_low_thresh: 196_608, ipfrag_time: 30, ipfrag_secret_interval: 600 },
}
const write = (name: string, value: number): number => sysctl_write(`net.ipv4.${name}`, value)
afterEach(() => {
  for (const [name, value] of Object.entries(DEFAULTS)) write(name, value)
  write('route.flush', 0)
  s.pass(2)
})

const to = (address: string, port = 9): number => sockaddr_in(malloc(16), inet_addr(address), port)
function* option(fd: number, name: number): Libc {
  const value = variable()
  const err = yield* getsockopt(fd, SOL_IP, name, value, variable(4))
  return err < 0 ? err : load32(value)
}
/** What a program's datagram looks like on the wire, and what the option says. */
function sent(name: number): [Parsed, number] {
  s.out()
  const value = run(s, function* () {
    const fd = yield* socket(2, 2, 0)
    yield* sendto(fd, malloc(4), 4, 0, to('10.0.0.2'), 16)
    return yield* option(fd, name)
  })
  s.pass(1)
  return [parse(s.out()[0]![0]!), value]
}

test('they are there with the values of 2.6.11, and none takes what makes no sense', () => {
  for (const [name, value] of Object.entries(DEFAULTS)) {
    expect([name, find_sysctl(`net.ipv4.${name}`)!.get()]).toEqual([name, value])
    expect([name, write(name, -1)]).toEqual([name, -EINVAL])
  }
})

test('ip_default_ttl: of datagrams and of answers, and what IP_TTL tells', () => {
  write('ip_default_ttl', 33)
  write('route.flush', 0)
  s.pass(2)
  const [packet, told] = sent(IP_TTL)
  expect([packet.ttl, told]).toEqual([33, 33])
  expect(parse(s.send(0, icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }, 8))[0]![0]!).ttl).toBe(33)
})

/** A connected socket's MTU after a router has said that 600 bytes fit. */
function told_mtu(): number {
  return finish(
    s,
    start(function* () {
      const fd = yield* socket(2, 2, 0)
      yield* bind(fd, to('10.0.0.1', 5005), 16)
      yield* connect(fd, to('10.0.0.2'), 16)
      const quoted = udpFrame({ src: '10.0.0.1', dst: '10.0.0.2', sport: 5005, dport: 9 }, new Uint8Array(1400))
      s.solo.board.nics[0]!.arrive(icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }, 3, 4, 600, quoted.subarray(14, 42)))
      s.solo.step(clock.ns)
      return yield* option(fd, IP_MTU)
    }),
  )
}
test('ip_no_pmtu_disc: routers may cut, and routes learn no MTU', () => {
  const before = sent(IP_MTU_DISCOVER)
  expect([before[0].df, before[1]]).toEqual([true, 1])
  expect(told_mtu()).toBe(600)
  write('route.flush', 0)
  s.pass(2)
  write('ip_no_pmtu_disc', 1)
  const after = sent(IP_MTU_DISCOVER)
  expect([after[0].df, after[1]]).toEqual([false, 0])
  expect(told_mtu()).toBe(1500)
})

test('ip_nonlocal_bind: any address may be bound to', () => {
  const program = function* (): Libc {
    return yield* bind(yield* socket(2, 2, 0), to('192.0.2.7', 5006), 16)
  }
  expect(run(s, program)).toBe(-EADDRNOTAVAIL)
  write('ip_nonlocal_bind', 1)
  expect(run(s, program)).toBe(0)
})

test('icmp_ignore_bogus_error_responses: who answers to a broadcast with an error is heard if that is wanted', () => {
  const hears = (): number =>
    run(s, function* () {
      const fd = yield* socket(2, 2, 0)
      yield* set_word(fd, 1, SO_BROADCAST, 1)
      yield* bind(fd, to('10.0.0.1', 5007), 16)
      yield* connect(fd, to('10.0.0.255'), 16)
      const quoted = udpFrame({ src: '10.0.0.1', dst: '10.0.0.255', sport: 5007, dport: 9 }, [1, 2, 3, 4])
      s.solo.board.nics[0]!.arrive(icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }, 3, 3, 0, quoted.subarray(14, 42)))
      s.solo.step(clock.ns)
      return yield* recv(fd, malloc(4), 4, 0x40)
    })
  expect(hears()).toBe(-11)
  write('icmp_ignore_bogus_error_responses', 1)
  expect(hears()).toBe(-ECONNREFUSED)
})

let id = 1
const first = (): Uint8Array => {
  const route = { src: '10.0.0.2', dst: '10.0.0.1' }
  return fragments(udp({ ...route, sport: 5, dport: 9 }, new Uint8Array(1000)), { ...route, id: id++ }, 576)[0]!
}
test('ipfrag_high_thresh and _low_thresh: memory of datagrams in pieces', () => {
  write('ipfrag_high_thresh', 20_000)
  write('ipfrag_low_thresh', 10_000)
  let most = 0
  for (let k = 0; k < 100; k++) {
    s.send(0, first())
    most = Math.max(most, ip_frag_mem())
  }
  expect(most).toBeGreaterThan(15_000)
  expect(most).toBeLessThan(24_096)
})
test('ipfrag_time: how long the rest is waited for', () => {
  clock.ns += 31e9
  s.pass(2)
  write('ipfrag_time', 2)
  s.send(0, first())
  expect(ip_frag_nqueues()).toBe(1)
  clock.ns += 2.1e9
  s.pass(2)
  expect(ip_frag_nqueues()).toBe(0)
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
