/** Multicast as hosts have it: memberships, who hears what, what is sent where, and what routers are told by IGMP. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { sysctl_write } from '../../../src/net/core/sysctl.js'
import {
  bind,
  close,
  connect,
  getsockopt,
  type Libc,
  load32,
  malloc,
  mem,
  recv,
  sendto,
  set_word,
  setsockopt,
  sockaddr_in,
  socket,
  variable,
} from '../../../src/user/libc.js'
import { checksum, icmpFrame, ipFrame, parse, udpFrame } from '../../helpers/frames.js'
import { finish, type Running, run, start } from '../../helpers/programs.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  routes: [
    {
      dst: 0,
      prefixlen: 0,
      type: 'unicast',
      metric: 0,
      nexthops: [{ gw: ip('10.0.0.9'), dev: 'eth0', weight: 1 }],
    },
  ],
  neighbours: [{ address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } }],
  config: { loopback: 1, user_procs: 6 },
})
const [SOL_IP, MC_IF, MC_TTL, MC_LOOP, ADD, DROP] = [0, 32, 33, 34, 35, 36]
const [EFAULT, ENODEV, EINVAL, EADDRINUSE, EADDRNOTAVAIL, ENOBUFS] = [-14, -19, -22, -98, -99, -105]
const GROUP = '239.1.2.3'
const BAD = 0x1000
const DONTWAIT = 0x40

function mreq(group: string, address = '0.0.0.0', index?: number): number {
  const at = malloc(12)
  const b = mem(at, 12)
  b.set([...group.split('.'), ...address.split('.')].map(Number))
  if (index !== undefined) b[8] = index
  return at
}
const membership = (fd: number, how: number, group: string, address?: string, index?: number): Libc =>
  setsockopt(fd, SOL_IP, how, mreq(group, address, index), index === undefined ? 8 : 12)
function* udp(port = 0, address = 0): Libc {
  const fd = yield* socket(2, 2, 0)
  yield* set_word(fd, 1, 2, 1) // SO_REUSEADDR
  if (port !== 0) yield* bind(fd, sockaddr_in(malloc(16), address, port), 16)
  return fd
}
const igmp = (type: number, group: string, code = 0): number[] => {
  const b = [type, code, 0, 0, ...group.split('.').map(Number)]
  const sum = checksum(b)
  b.splice(2, 2, sum >> 8, sum & 255)
  return b
}
const macOf = (group: string): string => {
  const [, b, c, d] = group.split('.').map(Number)
  return ['01', '00', '5e', ...[b! & 127, c!, d!].map(n => n.toString(16).padStart(2, '0'))].join(':')
}
const query = (group: string, code: number, to = '224.0.0.1'): Uint8Array =>
  ipFrame(igmp(0x11, group, code), { src: '10.0.0.9', dst: to, protocol: 2, ttl: 1, to: macOf(to) })
const datagram = (group: string, data = [1, 2, 3], port = 5000): Uint8Array =>
  udpFrame({ src: '10.0.0.2', dst: group, sport: 9, dport: port, to: macOf(group) }, data)
/** IGMP messages of those frames: type, group, and where they went. */
function told(frames: Uint8Array[]): [number, string, string][] {
  return frames.flatMap(frame => {
    const p = parse(frame)
    if (p.protocol !== 2) return []
    expect([p.ttl, p.to, checksum(p.payload)]).toEqual([1, macOf(p.dst), 0])
    expect([...frame.subarray(34, 38)]).toEqual([0x94, 4, 0, 0]) // router alert
    return [[p.payload[0]!, [...p.payload.subarray(4, 8)].join('.'), p.dst] as [number, string, string]]
  })
}
/** Let time pass; what was told at port 0. */
function later(ms: number): [number, string, string][] {
  s.pass(ms)
  return told(s.out()[0]!)
}
/** A program that joins and waits to be told to go on. */
function member(
  groups: string[],
  then: (fd: number) => Libc = function* () {
    return 0
  },
): [() => number, Running<number>] {
  const state = { go: false }
  const p = start(function* () {
    const fd = yield* udp(5000)
    for (const g of groups) expect(yield* membership(fd, ADD, g, '10.0.0.1')).toBe(0)
    while (!state.go) yield* recv(fd, malloc(64), 64, 0)
    const ret = yield* then(fd)
    yield* close(fd)
    return ret
  })
  s.pass(1)
  const end = (): number => {
    state.go = true
    s.solo.board.nics[0]!.arrive(datagram(groups[0]!))
    return finish(s, p)
  }
  return [end, p]
}

describe('options', () => {
  test.each<[string, (fd: number) => Libc, number]>([
    ['too short for a membership', fd => setsockopt(fd, SOL_IP, ADD, malloc(8), 7), EINVAL],
    ['a membership that is not there', fd => setsockopt(fd, SOL_IP, ADD, BAD, 8), EFAULT],
    ['no group', fd => membership(fd, ADD, '10.0.0.5'), EINVAL],
    ['no such address', fd => membership(fd, ADD, GROUP, '10.9.9.9'), ENODEV],
    ['no such interface', fd => membership(fd, ADD, GROUP, '0.0.0.0', 77), ENODEV],
    ['not a member', fd => membership(fd, DROP, GROUP, '10.0.0.1'), EADDRNOTAVAIL],
    ['TTL 256', fd => set_word(fd, SOL_IP, MC_TTL, 256), EINVAL],
    ['TTL -2', fd => set_word(fd, SOL_IP, MC_TTL, -2), EINVAL],
    ['TTL 0', fd => set_word(fd, SOL_IP, MC_TTL, 0), 0],
    ['TTL without a value', fd => setsockopt(fd, SOL_IP, MC_TTL, 0, 0), EINVAL],
    ['loop without a value', fd => setsockopt(fd, SOL_IP, MC_LOOP, 0, 0), EINVAL],
    ['interface: too short', fd => setsockopt(fd, SOL_IP, MC_IF, malloc(4), 3), EINVAL],
    ['interface: no such address', fd => setsockopt(fd, SOL_IP, MC_IF, mreq('10.9.9.9'), 4), EADDRNOTAVAIL],
    ['interface: by its address', fd => setsockopt(fd, SOL_IP, MC_IF, mreq('10.0.1.1'), 4), 0],
    ['interface: none', fd => setsockopt(fd, SOL_IP, MC_IF, mreq('0.0.0.0'), 4), 0],
  ])('%s', (_name, call, expected) => {
    expect(
      run(s, function* () {
        const fd = yield* udp()
        const ret = yield* call(fd)
        yield* close(fd)
        return ret
      }),
    ).toBe(expected)
  })
  test('what was set is told; defaults are 1, on, any', () => {
    const got = run(s, function* () {
      const fd = yield* udp()
      const read = function* (name: number): Libc {
        const at = variable()
        yield* getsockopt(fd, SOL_IP, name, at, variable(4))
        return load32(at)
      }
      const before = [yield* read(MC_TTL), yield* read(MC_LOOP), yield* read(MC_IF)]
      yield* set_word(fd, SOL_IP, MC_TTL, 7)
      yield* set_word(fd, SOL_IP, MC_LOOP, 0)
      yield* setsockopt(fd, SOL_IP, MC_IF, mreq('10.0.1.1'), 4)
      const address = 1 * 2 ** 24 + (1 << 16) + 10 // as the network has it
      return [...before, yield* read(MC_TTL), yield* read(MC_LOOP), (yield* read(MC_IF)) === address]
    })
    expect(got).toEqual([1, 1, 0, 7, 0, true])
  })
  test('a group joins once on an interface, 20 of them at most', () => {
    const got = run(s, function* () {
      const fd = yield* udp()
      const first = yield* membership(fd, ADD, '239.0.0.0', '10.0.0.1')
      const twice = yield* membership(fd, ADD, '239.0.0.0', '10.0.0.1')
      const other = yield* membership(fd, ADD, '239.0.0.0', '10.0.1.1')
      let last = 0
      let n = 2
      for (; last === 0; n++) last = yield* membership(fd, ADD, `239.0.0.${n}`, '10.0.0.1')
      const left = yield* membership(fd, DROP, '239.0.0.0', '10.0.1.1')
      return [first, twice, other, n, last, left]
    })
    expect(got).toEqual([0, EADDRINUSE, 0, 21, ENOBUFS, 0])
    s.pass(20)
    s.out()
  })
})

describe('receiving', () => {
  test('only groups that somebody is in; 224.0.0.1 always', () => {
    const nobody = s.account(() => s.send(0, datagram(GROUP)))
    expect(nobody).toMatchObject({ received: 1, delivered: 0, drops: { ip_martian_destination: 1 } })
    const p = start(function* () {
      const fd = yield* udp(5000)
      yield* membership(fd, ADD, GROUP, '10.0.0.1')
      const n = yield* recv(fd, malloc(64), 64, 0)
      yield* close(fd)
      return n
    })
    s.pass(1)
    const wrong = s.account(() =>
      s.send(1, udpFrame({ src: '10.0.1.2', dst: GROUP, to: macOf(GROUP), dport: 5000 }, [1])),
    )
    expect([wrong.drops, p.done]).toEqual([{ ip_martian_destination: 1 }, false]) // joined on the other interface
    s.send(0, datagram(GROUP))
    expect(finish(s, p)).toBe(3)
    const after = s.account(() => s.send(0, datagram(GROUP)))
    expect(after.drops).toEqual({ ip_martian_destination: 1 })
    const ping = icmpFrame({ src: '10.0.0.2', dst: '224.0.0.1', to: macOf('224.0.0.1') }, 8, 0, 1)
    expect(s.account(() => s.send(0, ping))).toMatchObject({ delivered: 1, icmp_sent: 1 })
    s.pass(20)
    s.out()
  })
  test('all sockets with the port hear it, each a copy; one that is connected or bound elsewhere does not', () => {
    const got = run(s, function* () {
      const a = yield* udp(5000)
      const b = yield* udp(5000)
      const bound = yield* udp(5000, ip(GROUP))
      const other = yield* udp(5001)
      const peer = yield* udp(5000)
      yield* connect(peer, sockaddr_in(malloc(16), ip('10.0.0.77'), 9), 16)
      yield* membership(a, ADD, GROUP, '10.0.0.1')
      for (let k = 0; k < 3; k++) yield
      s.solo.board.nics[0]!.arrive(datagram(GROUP))
      const first = yield* recv(a, malloc(64), 64, 0)
      const rest: number[] = []
      for (const fd of [b, bound, other, peer]) rest.push(yield* recv(fd, malloc(64), 64, DONTWAIT))
      return [first, ...rest]
    })
    expect(got).toEqual([3, 3, 3, -11, -11])
  })
})

describe('sending', () => {
  /** What a program sends to the group leaves at both ports. */
  function sent(prepare: (fd: number) => Libc): [number[], ReturnType<typeof parse>[]] {
    s.pass(1)
    s.out()
    const heard = run(s, function* () {
      const fd = yield* udp(5000)
      const out = yield* udp()
      yield* prepare(out)
      yield* membership(fd, ADD, GROUP, '10.0.0.1')
      const n = yield* sendto(out, malloc(4), 4, 0, sockaddr_in(malloc(16), ip(GROUP), 5000), 16)
      yield
      const back = yield* recv(fd, malloc(8), 8, DONTWAIT)
      yield* close(fd)
      return [n, back]
    })
    s.pass(1)
    const frames = s.out().flatMap((list, port) => list.map(f => ({ ...parse(f), port })))
    return [heard, frames.filter(f => f.protocol === 17)]
  }
  test('no question by ARP: the station address follows from the group; TTL 1; a copy comes back', () => {
    const [heard, frames] = sent(function* () {
      return 0
    })
    expect(heard).toEqual([4, 4])
    expect(frames).toMatchObject([{ port: 0, dst: GROUP, src: '10.0.0.1', ttl: 1, to: macOf(GROUP) }])
  })
  test('IP_MULTICAST_TTL and LOOP', () => {
    const [heard, frames] = sent(function* (fd) {
      yield* set_word(fd, SOL_IP, MC_TTL, 9)
      return yield* set_word(fd, SOL_IP, MC_LOOP, 0)
    })
    expect(heard).toEqual([4, -11])
    expect(frames).toMatchObject([{ ttl: 9 }])
  })
  test('TTL 0 stays on this machine', () => {
    const [heard, frames] = sent(fd => set_word(fd, SOL_IP, MC_TTL, 0))
    expect([heard, frames]).toEqual([[4, 4], []])
  })
  test('IP_MULTICAST_IF: the other interface, where nobody has joined, so nothing comes back', () => {
    const [heard, frames] = sent(fd => setsockopt(fd, SOL_IP, MC_IF, mreq('10.0.1.1'), 4))
    expect(heard).toEqual([4, -11])
    expect(frames).toMatchObject([{ port: 1, src: '10.0.1.1', to: macOf(GROUP) }])
  })
})

describe('IGMP', () => {
  const [V1, V2, LEAVE] = [0x12, 0x16, 0x17]
  const ours = (type: number): [number, string, string] => [type, GROUP, type === LEAVE ? '224.0.0.2' : GROUP]
  test('a group is reported when it is joined, twice more, and left when the last member goes', () => {
    const [end] = member([GROUP])
    expect(later(1100)).toEqual([ours(V2)])
    expect(later(21_000)).toEqual([ours(V2), ours(V2)])
    expect(later(60_000)).toEqual([])
    const [end2] = member([GROUP])
    end()
    expect(later(100)).toEqual([]) // the other one is still in it
    end2()
    expect(later(100)).toEqual([ours(LEAVE)])
  })
  test('a query for all groups, one for a group, one for another group', () => {
    const [end] = member([GROUP, '239.9.9.9'])
    later(30_000)
    s.send(0, query('0.0.0.0', 20))
    const all = later(2100)
    expect(all.map(t => t[1]).sort()).toEqual([GROUP, '239.9.9.9'])
    s.send(0, query(GROUP, 10, GROUP))
    expect(later(1100)).toEqual([ours(V2)])
    s.send(0, query('239.4.4.4', 10))
    expect(later(3000)).toEqual([])
    end()
    s.pass(1)
    s.out()
  })
  test('who hears a neighbour report the group says nothing, not even when he leaves', () => {
    const [end] = member([GROUP])
    later(30_000)
    s.send(0, query('0.0.0.0', 100))
    s.send(0, ipFrame(igmp(V2, GROUP), { src: '10.0.0.7', dst: GROUP, protocol: 2, ttl: 1, to: macOf(GROUP) }))
    expect(later(11_000)).toEqual([])
    end()
    expect(later(100)).toEqual([])
  })
  test('a router of version 1 gets reports of version 1, and no word of who leaves', () => {
    const [end] = member([GROUP])
    later(30_000)
    s.send(0, query('0.0.0.0', 0))
    expect(later(10_100)).toEqual([ours(V1)])
    end()
    expect(later(100)).toEqual([])
    s.pass(100)
  })
  test('force_igmp_version 1: as if there were one', () => {
    later(400_000) // the router of version 1 is forgotten
    const reports = (): number[] => {
      const [end] = member([GROUP])
      later(30_000)
      s.send(0, query('0.0.0.0', 100))
      const said = later(10_100)
      end()
      return [...said, ...later(100)].map(m => m[0])
    }
    expect(reports()).toEqual([V2, LEAVE])
    sysctl_write('net.ipv4.conf.eth0.force_igmp_version', 1)
    expect(reports()).toEqual([V1])
    sysctl_write('net.ipv4.conf.eth0.force_igmp_version', 0)
  })
  test('noise: a wrong checksum, a short one, an unknown type', () => {
    const bad = igmp(0x11, '0.0.0.0', 10)
    bad[2]! ^= 1
    const o = { src: '10.0.0.9', dst: '224.0.0.1', protocol: 2, ttl: 1, to: macOf('224.0.0.1') }
    const f = s.account(() => s.send(0, ipFrame(bad, o), ipFrame([0x11, 1, 2], o), ipFrame(igmp(0x55, '0.0.0.0'), o)))
    expect(f).toMatchObject({ received: 3, delivered: 1, drops: { igmp_malformed: 2 } })
  })
})

test('packets are conserved, and nothing leaks, not even memberships of programs that sleep', () => {
  start(function* () {
    const fd = yield* udp(5000)
    yield* membership(fd, ADD, GROUP, '10.0.0.1')
    return yield* recv(fd, malloc(4), 4, 0)
  })
  s.pass(5)
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
