/** Packet sockets: what they see of what comes in and goes out, sending, memberships down to the NIC, errors in Linux's order. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { NIC_PROMISC, nic_page, STAT_RX_FILTERED } from '../../../src/arch/nic_regs.js'
import { RAM } from '../../../src/arch/ram.js'
import { dev_change_flags, dev_get_flags } from '../../../src/net/core/dev_change.js'
import { SIOCGIFINDEX } from '../../../src/net/core/dev_ioctl.js'
import { dev_get_by_name, dev_put, rtnl_lock, rtnl_unlock } from '../../../src/net/core/netdevice.js'
import { SIOCGSTAMP } from '../../../src/net/core/sock_opt.js'
import { SIOCINQ, SIOCOUTQ } from '../../../src/net/core/sock_types.js'
import { IFF_ALLMULTI, IFF_PROMISC, IFF_UP } from '../../../src/net/core/types.js'
import { SIOCGIFADDR } from '../../../src/net/ipv4/devinet_ioctl.js'
import { POLLIN, POLLOUT } from '../../../src/sched/poll.js'
import {
  bind,
  close,
  connect,
  getpeername,
  getsockname,
  getsockopt,
  inet_addr,
  ioctl,
  type Libc,
  listen,
  load32,
  malloc,
  mem,
  nanosleep,
  poll,
  recv,
  recvfrom,
  select,
  sendto,
  setsockopt,
  setuid,
  shutdown,
  sin_addr,
  sockaddr_in,
  socket,
  store32,
  variable,
} from '../../../src/user/libc.js'
import {
  AF_PACKET,
  ETH_P_ALL,
  ETH_P_ARP,
  ETH_P_IP,
  get_sockaddr_ll,
  htons,
  PACKET_ADD_MEMBERSHIP,
  PACKET_DROP_MEMBERSHIP,
  PACKET_MR_ALLMULTI,
  PACKET_MR_MULTICAST,
  PACKET_MR_PROMISC,
  PACKET_STATISTICS,
  packet_mreq,
  SOL_PACKET,
  sockaddr_ll,
} from '../../../src/user/libpacket.js'
import { ethernet, udpFrame } from '../../helpers/frames.js'
import { finish, run, start } from '../../helpers/programs.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  neighbours: [{ address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } }],
  config: { loopback: 1, user_procs: 6 },
})
const [LO, ETH0, ETH1] = [1, 2, 3]
const [DGRAM, RAW] = [2, 3]
const DONTWAIT = 0x40
const [EPERM, ENXIO, EAGAIN, EFAULT, ENODEV, EINVAL] = [-1, -6, -11, -14, -19, -22]
const [EMSGSIZE, ENOPROTOOPT, ESOCKTNOSUPPORT, EOPNOTSUPP, EADDRNOTAVAIL, ENETDOWN] = [-90, -92, -94, -95, -99, -100]
const SENDER = [2, 0, 0, 0, 1, 1]
const forwarded = udpFrame({ src: '10.0.0.2', dst: '10.0.1.2', sport: 5, dport: 9 }, new Uint8Array(30))
const stranger = udpFrame(
  {
    to: '02:00:00:00:00:77',
    src: '10.0.0.2',
    dst: '10.0.1.2',
    sport: 5,
    dport: 9,
  },
  new Uint8Array(30),
)
const experiment = ethernet([1, 2, 3, 4], { type: 0x88b5 })

interface Seen {
  len: number
  dev: number
  kind: number
  protocol: number
}
/** All that is queued at a packet socket. */
function* drain(fd: number): Generator<void, Seen[], void> {
  const seen: Seen[] = []
  const [buf, addr, len] = [malloc(2048), malloc(20), variable(20)]
  for (;;) {
    store32(len, 20)
    const n = yield* recvfrom(fd, buf, 2048, DONTWAIT, addr, len)
    if (n < 0) return seen
    const { ifindex, pkttype, protocol } = get_sockaddr_ll(addr)
    seen.push({ len: n, dev: ifindex, kind: pkttype, protocol })
  }
}
/** A socket, frames in at a port while it listens, what it saw. */
function tap(type: number, protocol: number, ifindex: number, port: number, ...frames: Uint8Array[]): Seen[] {
  let ready = false
  let go = false
  const p = start(function* () {
    const fd = yield* socket(AF_PACKET, type, htons(protocol))
    if (ifindex !== 0) yield* bind(fd, sockaddr_ll(malloc(20), ifindex, protocol), 20)
    ready = true
    while (!go) yield
    const seen = yield* drain(fd)
    yield* close(fd)
    return seen
  })
  for (let k = 0; k < 50 && !ready; k++) s.pass(1, 20)
  for (const frame of frames) s.solo.board.nics[port]!.arrive(frame)
  s.pass(1, 20)
  go = true
  return finish(s, p)
}

describe('what it sees', () => {
  test('every frame in and out, with its header, its device and its kind', () => {
    const f = s.account(() => {
      expect(tap(RAW, ETH_P_ALL, 0, 0, forwarded)).toEqual([
        { len: 72, dev: ETH0, kind: 0, protocol: ETH_P_IP },
        { len: 72, dev: ETH1, kind: 4, protocol: ETH_P_IP },
      ])
    })
    expect(f).toMatchObject({ received: 1, forwarded: 1 })
    expect(conserved(s.fates())).toBe(true)
  })

  test('without the header if it is SOCK_DGRAM, both ways', () => {
    expect(tap(DGRAM, ETH_P_ALL, 0, 0, forwarded).map(x => x.len)).toEqual([58, 58])
  })

  test('one device, if it is bound to it', () => {
    expect(tap(RAW, ETH_P_ALL, ETH1, 0, forwarded)).toEqual([{ len: 72, dev: ETH1, kind: 4, protocol: ETH_P_IP }])
  })

  test('one protocol, and then only what comes in; the packet still goes its way', () => {
    const f = s.account(() => {
      expect(tap(RAW, ETH_P_IP, 0, 0, forwarded)).toEqual([{ len: 72, dev: ETH0, kind: 0, protocol: ETH_P_IP }])
      expect(tap(RAW, ETH_P_ARP, 0, 0, forwarded)).toEqual([])
    })
    expect(f).toMatchObject({ received: 2, forwarded: 2, drops: {} })
  })

  test('a protocol that nobody else knows: delivered, not dropped', () => {
    const f = s.account(() => expect(tap(RAW, 0x88b5, 0, 0, experiment)).toHaveLength(1))
    expect(f).toMatchObject({ received: 1, delivered: 1, drops: {} })
  })

  test('what a program sends to itself over lo: once on its way out, once in', () => {
    const seen = run(s, function* () {
      const fd = yield* socket(AF_PACKET, RAW, htons(ETH_P_ALL))
      const udp = yield* socket(2, 2, 0)
      yield* bind(udp, sockaddr_in(malloc(16), inet_addr('127.0.0.1'), 999), 16)
      yield* sendto(udp, malloc(10), 10, 0, sockaddr_in(malloc(16), inet_addr('127.0.0.1'), 999), 16)
      const all = yield* drain(fd)
      yield* close(udp)
      yield* close(fd)
      return all
    })
    expect(seen).toEqual([
      { len: 52, dev: LO, kind: 4, protocol: ETH_P_IP },
      { len: 52, dev: LO, kind: 0, protocol: ETH_P_IP },
    ])
  })
})

test('the buffer is bounded by truesize; what is lost is counted, and counting starts anew when it was asked for', () => {
  const out = run(s, function* () {
    const fd = yield* socket(AF_PACKET, RAW, htons(ETH_P_ALL))
    yield* setsockopt(fd, 1, 8, variable(4096), 4)
    const udp = yield* socket(2, 2, 0)
    const to = sockaddr_in(malloc(16), inet_addr('10.0.1.2'), 9)
    for (let k = 0; k < 40; k++) yield* sendto(udp, malloc(8), 8, 0, to, 16)
    const queued = yield* drain(fd)
    const [st, len] = [malloc(8), variable(8)]
    const err = yield* getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, st, len)
    const first = [err, load32(st), load32(st + 4), load32(len)]
    yield* getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, st, len)
    const second = [load32(st), load32(st + 4)]
    yield* close(udp)
    yield* close(fd)
    return { n: queued.length, first, second }
  })
  expect(out.n).toBeGreaterThan(1)
  expect(out.n).toBeLessThan(40)
  expect(out.first).toEqual([0, 40, 40 - out.n, 8])
  expect(out.second).toEqual([0, 0])
})

describe('sending', () => {
  test('a raw frame goes out as it is; its own socket does not see it, another one does', () => {
    s.out()
    const frame = ethernet(new Uint8Array(50).fill(7), { type: 0x88b5, to: '02:00:00:00:02:02' })
    const seen = run(s, function* () {
      const fd = yield* socket(AF_PACKET, RAW, htons(ETH_P_ALL))
      const other = yield* socket(AF_PACKET, RAW, htons(ETH_P_ALL))
      const buf = malloc(64)
      mem(buf, 64).set(frame)
      const n = yield* sendto(fd, buf, frame.length, 0, sockaddr_ll(malloc(20), ETH1, 0x88b5), 20)
      const [own, others] = [yield* drain(fd), yield* drain(other)]
      yield* close(fd)
      yield* close(other)
      return [n, own, others]
    })
    s.pass(1)
    expect(seen).toEqual([64, [], [{ len: 64, dev: ETH1, kind: 4, protocol: 0x88b5 }]])
    expect(s.out()[1]).toEqual([frame])
  })

  test('SOCK_DGRAM gets its header from the address', () => {
    s.out()
    run(s, function* () {
      const fd = yield* socket(AF_PACKET, DGRAM, 0)
      const n = yield* sendto(fd, malloc(46), 46, 0, sockaddr_ll(malloc(20), ETH0, 0x88b5, SENDER), 20)
      expect(n).toBe(46)
      yield* close(fd)
      return 0
    })
    s.pass(1)
    expect(s.out()[0]![0]!.slice(0, 14)).toEqual(Uint8Array.from([...SENDER, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]))
  })

  test('what is wrong, in the order of 2.6.11', () => {
    run(s, function* () {
      const fd = yield* socket(AF_PACKET, DGRAM, htons(0x88b5))
      const to = sockaddr_ll(malloc(20), ETH0, 0x88b5, SENDER)
      expect(yield* sendto(fd, malloc(8), 8, 0, 0, 0)).toBe(ENXIO) // not bound
      expect(yield* sendto(fd, malloc(8), 8, 0, to, 19)).toBe(EINVAL)
      expect(yield* sendto(fd, malloc(8), 8, 0, sockaddr_ll(malloc(20), 99, 1), 20)).toBe(ENXIO)
      expect(yield* sendto(fd, malloc(1600), 1501, 0, to, 20)).toBe(EMSGSIZE)
      expect(yield* sendto(fd, 0xdead0000 | 0, 8, 0, to, 20)).toBe(EFAULT)
      yield* bind(fd, sockaddr_ll(malloc(20), ETH0, 0x88b5), 20)
      expect(yield* sendto(fd, malloc(8), 8, 0, 0, 0)).toBe(EINVAL) // a header without a destination
      yield* close(fd)
      return 0
    })
  })
})

describe('errors', () => {
  test('who may have one, and of which types', () => {
    expect(run(s, () => socket(AF_PACKET, RAW, htons(ETH_P_ALL)), { uid: 1000 })).toBe(EPERM)
    expect(run(s, () => socket(AF_PACKET, 1, htons(ETH_P_ALL)))).toBe(ESOCKTNOSUPPORT)
    expect(run(s, () => socket(AF_PACKET, 1, htons(ETH_P_ALL)), { uid: 1000 })).toBe(EPERM)
  })

  test('calls', () => {
    run(s, function* () {
      const fd = yield* socket(AF_PACKET, RAW, htons(ETH_P_ALL))
      const addr = malloc(20)
      expect(yield* bind(fd, sockaddr_ll(addr, ETH0, ETH_P_ALL), 19)).toBe(EINVAL)
      expect(yield* bind(fd, sockaddr_in(addr, 0, 1), 20)).toBe(EINVAL)
      expect(yield* bind(fd, sockaddr_ll(addr, 99, ETH_P_ALL), 20)).toBe(ENODEV)
      expect(yield* bind(fd, sockaddr_ll(addr, ETH1, 0), 20)).toBe(0)
      expect(yield* getsockname(fd, addr, variable(20))).toBe(0)
      expect(get_sockaddr_ll(addr)).toEqual({
        family: AF_PACKET,
        protocol: ETH_P_ALL,
        ifindex: ETH1,
        hatype: 1,
        pkttype: 0,
        address: [2, 0, 0, 0, 0, 2],
      })
      for (const call of [getpeername(fd, addr, variable(20)), connect(fd, addr, 20), listen(fd, 1), shutdown(fd, 1)])
        expect(yield* call).toBe(EOPNOTSUPP)
      expect(yield* recv(fd, malloc(4), 4, DONTWAIT | 1)).toBe(EINVAL)
      expect(yield* recv(fd, malloc(4), 4, DONTWAIT)).toBe(EAGAIN)
      const mreq = packet_mreq(malloc(16), 99, PACKET_MR_PROMISC)
      const option = (level: number, name: number, val: number, len: number): Libc =>
        setsockopt(fd, level, name, val, len)
      expect(yield* option(0, 1, mreq, 16)).toBe(ENOPROTOOPT)
      expect(yield* option(SOL_PACKET, 77, mreq, 16)).toBe(ENOPROTOOPT)
      expect(yield* option(SOL_PACKET, PACKET_ADD_MEMBERSHIP, mreq, 15)).toBe(EINVAL)
      expect(yield* option(SOL_PACKET, PACKET_ADD_MEMBERSHIP, 0xdead0000 | 0, 16)).toBe(EFAULT)
      expect(yield* option(SOL_PACKET, PACKET_ADD_MEMBERSHIP, mreq, 16)).toBe(ENODEV)
      expect(yield* option(SOL_PACKET, PACKET_DROP_MEMBERSHIP, mreq, 16)).toBe(EADDRNOTAVAIL)
      packet_mreq(mreq, ETH0, PACKET_MR_MULTICAST, [1, 2, 3, 4, 5, 6, 7])
      expect(yield* option(SOL_PACKET, PACKET_ADD_MEMBERSHIP, mreq, 16)).toBe(EINVAL)
      const len = variable(-1)
      expect(yield* getsockopt(fd, 0, 6, malloc(8), len)).toBe(ENOPROTOOPT)
      expect(yield* getsockopt(fd, SOL_PACKET, 77, malloc(8), len)).toBe(EINVAL)
      store32(len, 8)
      expect(yield* getsockopt(fd, SOL_PACKET, 77, malloc(8), len)).toBe(ENOPROTOOPT)
      expect(yield* getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, 0xdead0000 | 0, len)).toBe(EFAULT)
      yield* close(fd)
      return 0
    })
  })

  test('MSG_TRUNC tells how long it was; a receiver that gave up root goes on', () => {
    const got = run(s, function* () {
      const fd = yield* socket(AF_PACKET, RAW, htons(ETH_P_ALL))
      yield* setuid(1000)
      const udp = yield* socket(2, 2, 0)
      const to = sockaddr_in(malloc(16), inet_addr('10.0.1.2'), 9)
      for (let k = 0; k < 2; k++) yield* sendto(udp, malloc(100), 100, 0, to, 16)
      const all = [yield* recv(fd, malloc(4), 4, 0x20), yield* recv(fd, malloc(4), 4, 0)]
      yield* close(udp)
      yield* close(fd)
      return all
    })
    expect(got).toEqual([142, 4])
  })
})

/** With rtnl, as a program's ioctl would have it. */
function* set_flags(name: string, change: (flags: number) => number): Libc {
  const dev = dev_get_by_name(name)!
  yield* rtnl_lock()
  const err = yield* dev_change_flags(dev, change(dev_get_flags(dev)))
  rtnl_unlock()
  dev_put(dev)
  return err
}
const up = (name: string): Libc => set_flags(name, f => f | IFF_UP)
const down = (name: string): Libc => set_flags(name, f => f & ~IFF_UP)

test('poll and select wait for a frame; ioctl tells how long it is and when it came, and knows what IPv4 knows', () => {
  const p = start(function* () {
    const fd = yield* socket(AF_PACKET, RAW, htons(0x88b5))
    const at = malloc(8)
    store32(at, fd)
    store32(at + 4, POLLIN | POLLOUT)
    const before = [yield* poll(at, 1, 0), load32(at + 4) >>> 16]
    store32(at + 4, POLLIN)
    const woken = [yield* poll(at, 1, 5000), load32(at + 4) >>> 16]
    const set = malloc(4)
    store32(set, 1 << fd)
    const selected = [yield* select(fd + 1, set, 0, 0, 0), load32(set) === 1 << fd]
    const [n, tv] = [variable(), malloc(8)]
    const waiting = [yield* ioctl(fd, SIOCINQ, n), load32(n), yield* ioctl(fd, SIOCGSTAMP, tv)]
    yield* recv(fd, malloc(64), 64, 0)
    const ifr = malloc(32)
    mem(ifr, 32).fill(0)
    mem(ifr, 4).set([...'eth0'].map(c => c.charCodeAt(0)))
    const known = [
      yield* ioctl(fd, SIOCGSTAMP, tv),
      yield* ioctl(fd, SIOCOUTQ, n),
      yield* ioctl(fd, SIOCGIFADDR, ifr),
      sin_addr(ifr + 16),
      yield* ioctl(fd, SIOCGIFINDEX, ifr),
      load32(ifr + 16),
      yield* ioctl(fd, 0x8999, ifr),
    ]
    yield* close(fd)
    return { before, woken, selected, waiting, known }
  })
  s.pass(5, 20)
  expect(p.done).toBe(false)
  s.send(0, experiment)
  expect(finish(s, p)).toEqual({
    before: [1, POLLOUT],
    woken: [1, POLLIN],
    selected: [1, true],
    waiting: [0, 60, -2], // nothing was received yet
    known: [0, 0, 0, ip('10.0.0.1'), 0, ETH0, EINVAL],
  })
})

describe('devices', () => {
  test('one that is down: ENETDOWN at once, once; it works when it comes up', () => {
    run(s, function* () {
      const fd = yield* socket(AF_PACKET, RAW, htons(ETH_P_ALL))
      yield* down('eth1')
      expect(yield* bind(fd, sockaddr_ll(malloc(20), ETH1, ETH_P_ALL), 20)).toBe(0)
      expect(yield* recv(fd, malloc(4), 4, DONTWAIT)).toBe(ENETDOWN)
      expect(yield* recv(fd, malloc(4), 4, DONTWAIT)).toBe(EAGAIN)
      expect(yield* sendto(fd, malloc(20), 20, 0, 0, 0)).toBe(ENETDOWN)
      yield* up('eth1')
      expect(yield* sendto(fd, malloc(20), 20, 0, 0, 0)).toBe(20)
      yield* close(fd)
      return 0
    })
  })

  test('a sleeping receiver is woken when its device goes down', () => {
    const p = start(function* () {
      const fd = yield* socket(AF_PACKET, RAW, htons(0x88b5))
      yield* bind(fd, sockaddr_ll(malloc(20), ETH0, 0x88b5), 20)
      const first = yield* recv(fd, malloc(4), 4, 0)
      const second = yield* recv(fd, malloc(64), 64, 0)
      yield* close(fd)
      return [first, second]
    })
    s.pass(5)
    expect(p.done).toBe(false)
    run(s, () => down('eth0'))
    run(s, () => up('eth0'))
    s.pass(5)
    s.send(0, experiment)
    expect(finish(s, p)).toEqual([ENETDOWN, 60])
  })

  test("promiscuous memberships are counted down to the register; what is another station's is seen, not taken", () => {
    const page = nic_page(0) >> 2
    const reg = (): number => RAM.i32[page + (NIC_PROMISC >> 2)]!
    const filtered = (): number => RAM.i32[page + (STAT_RX_FILTERED >> 2)]!
    const dev = dev_get_by_name('eth0')!
    const before = filtered()
    s.send(0, stranger)
    expect(filtered()).toBe(before + 1)
    let go = false
    const p = start(function* () {
      const fd = yield* socket(AF_PACKET, RAW, htons(ETH_P_ALL))
      yield* bind(fd, sockaddr_ll(malloc(20), ETH0, ETH_P_ALL), 20)
      const mreq = packet_mreq(malloc(16), ETH0, PACKET_MR_PROMISC)
      const mark: number[] = []
      for (const name of [PACKET_ADD_MEMBERSHIP, PACKET_ADD_MEMBERSHIP, PACKET_DROP_MEMBERSHIP]) {
        expect(yield* setsockopt(fd, SOL_PACKET, name, mreq, 16)).toBe(0)
        mark.push(reg())
      }
      packet_mreq(mreq, ETH0, PACKET_MR_ALLMULTI)
      expect(yield* setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, mreq, 16)).toBe(0)
      expect(dev.flags & (IFF_PROMISC | IFF_ALLMULTI)).toBe(IFF_PROMISC | IFF_ALLMULTI)
      expect(dev_get_flags(dev) & (IFF_PROMISC | IFF_ALLMULTI)).toBe(0) // programs see what programs have set
      while (!go) yield
      const seen = yield* drain(fd)
      yield* close(fd)
      return { mark, seen }
    })
    s.pass(5, 20)
    const f = s.account(() => {
      s.solo.board.nics[0]!.arrive(stranger)
      s.pass(1, 20)
    })
    expect(f).toMatchObject({ received: 1, forwarded: 0, drops: { eth_other_host: 1 } })
    go = true
    expect(finish(s, p)).toEqual({ mark: [1, 1, 1], seen: [{ len: 72, dev: ETH0, kind: 3, protocol: ETH_P_IP }] })
    expect(reg()).toBe(0) // closing gives it back
    expect(dev.flags & (IFF_PROMISC | IFF_ALLMULTI)).toBe(0)
    run(s, () => set_flags('eth0', fl => fl | IFF_PROMISC))
    expect([reg(), dev.promiscuity]).toEqual([1, 1])
    run(s, () => set_flags('eth0', fl => fl & ~IFF_PROMISC))
    expect([reg(), dev.promiscuity]).toEqual([0, 0])
    dev_put(dev)
  })

  test('bound anew: to another protocol, from the next packet on', () => {
    run(s, function* () {
      const fd = yield* socket(AF_PACKET, RAW, htons(ETH_P_ALL))
      yield* bind(fd, sockaddr_ll(malloc(20), 0, 0x88b5), 20)
      const udp = yield* socket(2, 2, 0)
      yield* sendto(udp, malloc(8), 8, 0, sockaddr_in(malloc(16), inet_addr('10.0.1.2'), 9), 16)
      expect(yield* drain(fd)).toEqual([])
      yield* close(udp)
      yield* close(fd)
      return 0
    })
  })
})

test('a socket that a halt finds open, with packets queued and a membership, leaves nothing behind', () => {
  start(function* () {
    const fd = yield* socket(AF_PACKET, RAW, htons(ETH_P_ALL))
    yield* setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, packet_mreq(malloc(16), ETH0, PACKET_MR_PROMISC), 16)
    return yield* nanosleep(1e9)
  })
  s.pass(2, 20)
  s.solo.board.nics[0]!.arrive(forwarded)
  s.pass(2, 20)
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
