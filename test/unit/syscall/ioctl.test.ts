/** ioctl: of descriptors, of sockets, of devices and their addresses, as ifconfig uses it; with the errno of each bad argument. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { RAM } from '../../../src/arch/ram.js'
import {
  EACCES,
  EADDRNOTAVAIL,
  EAGAIN,
  EBADF,
  EEXIST,
  EFAULT,
  EINVAL,
  ENODEV,
  ENOENT,
  ENXIO,
  EOPNOTSUPP,
  EPERM,
  EPFNOSUPPORT,
} from '../../../src/lib/errno.js'
import {
  SIOCGIFMAP as GIFMAP,
  SIOCSIFMAP as SIFMAP,
  SIOCADDMULTI,
  SIOCDELMULTI,
  SIOCSIFHWBROADCAST,
} from '../../../src/net/core/dev_ioctl.js'
import { dev_mc_first } from '../../../src/net/core/dev_mcast.js'
import { dev_get_by_name, dev_put } from '../../../src/net/core/netdevice.js'
import { pneigh_for_each } from '../../../src/net/core/pneigh.js'
import { sysctl_write } from '../../../src/net/core/sysctl.js'
import { SIOCADDRT } from '../../../src/net/ipv4/fib_ioctl.js'
import {
  bind,
  fcntl,
  inet_addr,
  ioctl,
  type Libc,
  load32,
  malloc,
  mem,
  recv,
  sendto,
  setuid,
  sin_addr,
  sockaddr_in,
  socket,
  store32,
  variable,
} from '../../../src/user/libc.js'
import { run } from '../../helpers/programs.js'
import { Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [{ addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] }, { addresses: [] }],
  config: { loopback: 1, user_procs: 4 },
})
const BAD = 0xdead0000 | 0
const [FIONBIO, FIOCLEX, FIONCLEX, FIOASYNC] = [0x5421, 0x5451, 0x5450, 0x5452] as const
const [SIOCINQ, SIOCOUTQ, SIOCGSTAMP] = [0x541b, 0x5411, 0x8906] as const
const [GIFNAME, GIFCONF, GIFFLAGS, SIFFLAGS, GIFADDR, SIFADDR] = [
  0x8910, 0x8912, 0x8913, 0x8914, 0x8915, 0x8916,
] as const
const [GIFDSTADDR, GIFBRDADDR, SIFBRDADDR, GIFNETMASK, SIFNETMASK] = [0x8917, 0x8919, 0x891a, 0x891b, 0x891c] as const
const [GIFMETRIC, SIFMETRIC, GIFMTU, SIFMTU, SIFNAME] = [0x891d, 0x891e, 0x8921, 0x8922, 0x8923] as const
const [SIFHWADDR, GIFHWADDR, GIFINDEX, GIFTXQLEN, SIFTXQLEN] = [0x8924, 0x8927, 0x8933, 0x8942, 0x8943] as const

/** An ifreq of a name, with bytes behind it. */
function ifreq(name: string, ...data: number[]): number {
  const at = malloc(32)
  mem(at, 32).set([...name].map(c => c.charCodeAt(0)))
  mem(at + 16, 16).set(data)
  return at
}
function with_word(name: string, value: number): number {
  const at = ifreq(name)
  store32(at + 16, value)
  return at
}
function with_addr(name: string, addr: string): number {
  const at = ifreq(name)
  sockaddr_in(at + 16, inet_addr(addr), 0)
  return at
}
const name_at = (at: number): string => String.fromCharCode(...mem(at, 16)).replace(/\0.*$/s, '')
const text = (addr: number): string => [24, 16, 8, 0].map(n => (addr >>> n) & 255).join('.')

/** On a socket: the errno, or what the ifreq holds then. */
function* ask(cmd: number, req: number): Libc {
  const fd = yield* socket(2, 2, 0)
  return yield* ioctl(fd, cmd, req)
}
function word(cmd: number, name: string): number {
  return run(s, function* () {
    const req = ifreq(name)
    return (yield* ask(cmd, req)) || load32(req + 16)
  })
}
function addr(cmd: number, name: string): string | number {
  return run(s, function* () {
    const req = ifreq(name)
    return (yield* ask(cmd, req)) || text(sin_addr(req + 16))
  })
}
const change = (cmd: number, make: () => number, uid = 0): number => run(s, () => ask(cmd, make()), { uid })

describe('descriptors and sockets', () => {
  test('FIONBIO: who would wait is told so', () => {
    const got = run(s, function* () {
      const fd = yield* socket(2, 2, 0)
      const on = yield* ioctl(fd, FIONBIO, variable(1))
      const again = yield* recv(fd, malloc(8), 8, 0)
      const flags = (yield* fcntl(fd, 3, 0)) & 0o4000
      const off = yield* ioctl(fd, FIONBIO, variable(0))
      return [on, again, flags, off, (yield* fcntl(fd, 3, 0)) & 0o4000, yield* ioctl(fd, FIONBIO, BAD)]
    })
    expect(got).toEqual([0, -EAGAIN, 0o4000, 0, 0, -EFAULT])
  })

  test('FIOCLEX, FIONCLEX, FIOASYNC', () => {
    const got = run(s, function* () {
      const fd = yield* socket(2, 2, 0)
      const seen = [yield* ioctl(fd, FIOCLEX, 0), yield* fcntl(fd, 1, 0)]
      seen.push(yield* ioctl(fd, FIONCLEX, 0), yield* fcntl(fd, 1, 0))
      return [...seen, yield* ioctl(fd, FIOASYNC, variable(1)), yield* ioctl(fd, FIOASYNC, variable(0))]
    })
    expect(got).toEqual([0, 1, 0, 0, 0, 0])
  })

  test('SIOCINQ: the next datagram; SIOCOUTQ: what is not gone; SIOCGSTAMP: when the last one came', () => {
    const got = run(s, function* () {
      const fd = yield* socket(2, 2, 0)
      const to = sockaddr_in(malloc(16), inet_addr('127.0.0.1'), 7100)
      yield* bind(fd, to, 16)
      const n = variable(-1)
      const tv = malloc(8)
      const seen = [yield* ioctl(fd, SIOCINQ, n), load32(n), yield* ioctl(fd, SIOCGSTAMP, tv)]
      yield* sendto(fd, malloc(8), 7, 0, to, 16)
      yield* sendto(fd, malloc(8), 3, 0, to, 16)
      seen.push(yield* ioctl(fd, SIOCINQ, n), load32(n))
      yield* recv(fd, malloc(8), 8, 0)
      seen.push(yield* ioctl(fd, SIOCINQ, n), load32(n), yield* ioctl(fd, SIOCOUTQ, n), load32(n))
      seen.push(yield* ioctl(fd, SIOCGSTAMP, tv), Math.sign(load32(tv) * 1e6 + load32(tv + 4)))
      return [...seen, yield* ioctl(fd, SIOCINQ, BAD), yield* ioctl(fd, SIOCGSTAMP, BAD)]
    })
    expect(got).toEqual([0, 0, -ENOENT, 0, 7, 0, 3, 0, 0, 0, 1, -EFAULT, -EFAULT])
  })

  test.each<[string, () => Libc, number]>([
    ['a descriptor that is not open', () => ioctl(77, GIFFLAGS, 0), -EBADF],
    ['a pointer that leads nowhere', () => ask(GIFFLAGS, BAD), -EFAULT],
    ['flags from nowhere', () => ask(SIFFLAGS, BAD), -EFAULT],
    ['a list into nowhere', () => ask(GIFCONF, BAD), -EFAULT],
    ['SIOCATMARK, which datagrams have not', () => ask(0x8905, variable()), -EINVAL],
    ['a command that is none', () => ask(0x8999, malloc(32)), -EINVAL],
    ['a device that is not there', () => ask(GIFFLAGS, ifreq('eth9')), -ENODEV],
    ['a route that leads nowhere', () => ask(SIOCADDRT, BAD), -EFAULT],
  ])('%s', (_what, program, errno) => {
    expect(run(s, program)).toBe(errno)
  })
})

describe('neighbours, by a struct arpreq', () => {
  const [DARP, GARP, SARP] = [0x8953, 0x8954, 0x8955] as const
  const MAC = [0x02, 0x00, 0x00, 0x00, 0x01, 0x07]
  /** @returns its place: the address, the hardware's, flags, mask, device */
  function arpreq(address: string, flags: number, dev: string, { mac = MAC, mask = 0, family = 2 } = {}): number {
    const at = malloc(68)
    mem(at, 68).fill(0)
    sockaddr_in(at, inet_addr(address), 0, family)
    mem(at + 18, 6).set(mac)
    store32(at + 32, flags)
    store32(at + 40, mask)
    mem(at + 52, 16).set([...dev].map(c => c.charCodeAt(0)))
    return at
  }
  const get = (address: string, dev = 'eth0') =>
    run(s, function* () {
      const at = arpreq(address, 0, dev, { mac: [0, 0, 0, 0, 0, 0] })
      const err = yield* ask(GARP, at)
      return err === 0 ? [[...mem(at + 18, 6)], load32(at + 32)] : err
    })
  const set = (address: string, flags: number, dev: string, more = {}) =>
    run(s, () => ask(SARP, arpreq(address, flags, dev, more)))
  const remove = (address: string, flags: number, dev: string, more = {}) =>
    run(s, () => ask(DARP, arpreq(address, flags, dev, more)))
  const [COM, PERM, PUBL, NETMASK, DONTPUB] = [2, 4, 8, 0x20, 0x40] as const

  test('one that was set is found, with its kind; one that was deleted is not valid any more', () => {
    expect(get('10.0.0.7')).toBe(-ENXIO)
    expect(set('10.0.0.7', COM, 'eth0')).toBe(0)
    expect(get('10.0.0.7')).toEqual([MAC, COM])
    expect(set('10.0.0.7', PERM, '')).toBe(0) // the device that leads there
    expect(get('10.0.0.7')).toEqual([MAC, PERM | COM])
    expect(remove('10.0.0.7', 0, 'eth0')).toBe(0)
    expect(get('10.0.0.7')).not.toEqual([MAC, PERM | COM])
    expect(remove('10.0.0.9', 0, 'eth0')).toBe(-ENXIO)
  })

  test('an address that is answered for, and a device that answers for all', () => {
    expect(set('10.0.0.8', PUBL, 'eth0')).toBe(0)
    expect(set('10.0.0.8', PUBL, 'eth0')).toBe(0)
    const proxies: number[] = []
    pneigh_for_each(n => proxies.push(n.key))
    expect(proxies).toEqual([ip('10.0.0.8')])
    expect(remove('10.0.0.8', PUBL, 'eth0')).toBe(0)
    expect(remove('10.0.0.8', PUBL, 'eth0')).toBe(-ENOENT)
    expect(set('10.0.0.8', PUBL | NETMASK, 'eth0')).toBe(0) // mask 0: proxy_arp of eth0
    expect(remove('10.0.0.8', PUBL | NETMASK, 'eth0')).toBe(0)
    expect(set('10.0.0.8', PUBL | NETMASK, 'eth0', { mask: 0xff })).toBe(-EINVAL)
    expect(set('10.0.0.8', PUBL | COM, '', { mac: MAC })).toBe(-ENODEV) // no device has that address
  })

  test.each<[string, () => Libc, number]>([
    ['a pointer that leads nowhere', () => ask(GARP, BAD), -EFAULT],
    ['another family', () => ask(GARP, arpreq('10.0.0.7', 0, 'eth0', { family: 1 })), -EPFNOSUPPORT],
    ['a mask for what is not published', () => ask(SARP, arpreq('10.0.0.7', NETMASK, 'eth0')), -EINVAL],
    ['not to be published, and not published', () => ask(SARP, arpreq('10.0.0.7', DONTPUB, 'eth0')), -EINVAL],
    ['a device that is not there', () => ask(SARP, arpreq('10.0.0.7', COM, 'eth9')), -ENODEV],
    ['asked of no device', () => ask(GARP, arpreq('10.0.0.7', 0, '')), -ENODEV],
  ])('%s', (_what, program, errno) => {
    expect(run(s, program)).toBe(errno)
  })

  test('only root changes them, everybody asks', () => {
    const got = run(s, function* () {
      yield* setuid(1000)
      const req = arpreq('10.0.0.9', COM, 'eth0')
      return [yield* ask(SARP, req), yield* ask(DARP, req), yield* ask(GARP, req)]
    })
    expect(got).toEqual([-EPERM, -EPERM, -ENXIO])
  })
})

describe('devices', () => {
  test('names and numbers, both ways', () => {
    const index = word(GIFINDEX, 'eth0')
    const named = run(s, function* () {
      const req = with_word('', index)
      return (yield* ask(GIFNAME, req)) || name_at(req)
    })
    expect(named).toBe('eth0')
    expect(run(s, () => ask(GIFNAME, with_word('', 99)))).toBe(-ENODEV)
  })

  test('an alias names its device', () => {
    expect(word(GIFMTU, 'eth0:7')).toBe(1500)
  })

  test('the MTU, the queue, the metric', () => {
    expect([word(GIFMTU, 'eth1'), word(GIFMTU, 'lo'), word(GIFTXQLEN, 'eth1')]).toEqual([1500, 16_436, 1000])
    expect(change(SIFMTU, () => with_word('eth1', 1000))).toBe(0)
    expect(change(SIFTXQLEN, () => with_word('eth1', 77))).toBe(0)
    expect([word(GIFMTU, 'eth1'), word(GIFTXQLEN, 'eth1')]).toEqual([1000, 77])
    expect(change(SIFMTU, () => with_word('eth1', 1500))).toBe(0)
    expect(change(SIFMTU, () => with_word('eth1', -1))).toBe(-EINVAL)
    expect(change(SIFTXQLEN, () => with_word('eth1', -1))).toBe(-EINVAL)
    expect(word(GIFMETRIC, 'eth1')).toBe(0)
    expect(change(SIFMETRIC, () => with_word('eth1', 1))).toBe(-EOPNOTSUPP)
    const map = run(s, function* () {
      const req = ifreq('eth1', ...Array.from({ length: 16 }, () => 7))
      return [yield* ask(GIFMAP, req), ...mem(req + 16, 16)]
    })
    const eth1 = dev_get_by_name('eth1')!
    const { irq } = eth1
    dev_put(eth1)
    expect(map).toEqual([0, ...Array.from({ length: 10 }, () => 0), irq, 0, 0, 0, 0, 0])
    expect(change(SIFMAP, () => ifreq('eth1'))).toBe(-EOPNOTSUPP)
    expect(change(SIFMAP, () => ifreq('eth1'), 1000)).toBe(-EPERM)
  })

  test('the station address, told with its kind', () => {
    const got = run(s, function* () {
      const req = ifreq('eth0')
      return (yield* ask(GIFHWADDR, req)) || [...mem(req + 16, 8)]
    })
    expect((got as number[]).slice(0, 3)).toEqual([1, 0, 2])
    expect(change(SIFHWADDR, () => ifreq('eth1', 4, 0, 2, 0, 0, 0, 0, 9))).toBe(-EINVAL)
  })

  test('groups by station address: one who asks by ioctl counts once', () => {
    const GROUP = [0, 0, 1, 0, 0x5e, 1, 2, 3]
    const groups = (): number[][] => {
      const dev = dev_get_by_name('eth0')!
      const list: number[][] = []
      for (let mc = dev_mc_first(dev); mc !== null; mc = mc.next)
        list.push([...RAM.u8.subarray(mc.addr8, mc.addr8 + 6)])
      dev_put(dev)
      return list
    }
    const multi = (cmd: number, name: string, data = GROUP, uid = 0): number =>
      change(cmd, () => ifreq(name, ...data), uid)
    expect([multi(SIOCADDMULTI, 'eth0'), multi(SIOCADDMULTI, 'eth0'), groups()]).toEqual([0, 0, [GROUP.slice(2)]])
    expect([multi(SIOCDELMULTI, 'eth0'), groups(), multi(SIOCDELMULTI, 'eth0')]).toEqual([0, [], -ENOENT])
    expect(multi(SIOCADDMULTI, 'eth0', [1, ...GROUP.slice(1)])).toBe(-EINVAL) // not AF_UNSPEC
    expect(multi(SIOCADDMULTI, 'lo')).toBe(-EINVAL) // takes no list
    expect(multi(SIOCADDMULTI, 'eth7')).toBe(-ENODEV)
    expect(multi(SIOCADDMULTI, 'eth7', GROUP, 500)).toBe(-EPERM)
    expect([multi(SIOCADDMULTI, 'eth0'), multi(SIOCADDMULTI, 'eth1')]).toEqual([0, 0]) // they go with their devices
  })
  test('SIOCSIFHWBROADCAST: whom questions and broadcasts are for', () => {
    const set = (data: number[], uid = 0): number => change(SIOCSIFHWBROADCAST, () => ifreq('eth0', ...data), uid)
    const asks = (): number[] => {
      run(s, function* () {
        const fd = yield* socket(2, 2, 0)
        return yield* sendto(fd, malloc(4), 4, 0, sockaddr_in(malloc(16), inet_addr('10.0.0.77'), 9), 16)
      })
      s.pass(5)
      return [...s.out()[0]![0]!.subarray(0, 6)]
    }
    expect(sysctl_write('net.ipv4.neigh.eth0.mcast_solicit', 1)).toBe(0)
    s.out()
    expect([set([1, 0, 3, 0, 0, 0, 0, 9]), asks()]).toEqual([0, [3, 0, 0, 0, 0, 9]])
    expect([set([6, 0, 3, 0, 0, 0, 0, 9]), set([1, 0, 3, 0, 0, 0, 0, 9], 500)]).toEqual([-EINVAL, -EPERM])
    expect([set([1, 0, 255, 255, 255, 255, 255, 255]), asks()]).toEqual([0, [255, 255, 255, 255, 255, 255]])
    expect(sysctl_write('net.ipv4.neigh.eth0.mcast_solicit', 0)).toBe(0)
  })
  test('up and down, a new name while it is down', () => {
    const up = (): number => word(GIFFLAGS, 'eth1') & 1
    const flags = word(GIFFLAGS, 'eth1') & 0xffff
    expect(up()).toBe(1)
    expect(change(SIFNAME, () => rename('eth1', 'wan'))).toBe(-16)
    expect(change(SIFFLAGS, () => with_word('eth1', flags & ~1))).toBe(0)
    expect(up()).toBe(0)
    expect(change(SIFNAME, () => rename('eth1', 'eth0'))).toBe(-EEXIST)
    expect(change(SIFNAME, () => rename('eth1', 'wan'))).toBe(0)
    expect([word(GIFMTU, 'wan'), word(GIFMTU, 'eth1')]).toEqual([1500, -ENODEV])
    expect(change(SIFNAME, () => rename('wan', 'eth1'))).toBe(0)
    expect(change(SIFFLAGS, () => with_word('eth1', flags))).toBe(0)
    expect(up()).toBe(1)
  })
  function rename(from: string, to: string): number {
    return ifreq(from, ...[...to].map(c => c.charCodeAt(0)))
  }

  test.each([
    ['SIOCSIFMTU', SIFMTU, -EPERM],
    ['SIOCSIFTXQLEN', SIFTXQLEN, -EPERM],
    ['SIOCSIFNAME', SIFNAME, -EPERM],
    ['SIOCSIFHWADDR', SIFHWADDR, -EPERM],
    ['SIOCSIFFLAGS', SIFFLAGS, -EACCES],
    ['SIOCSIFADDR', SIFADDR, -EACCES],
    ['SIOCSIFNETMASK', SIFNETMASK, -EACCES],
  ])('%s is root’s', (_name, cmd, errno) => {
    expect(change(cmd, () => ifreq('eth1'), 1000)).toBe(errno)
    expect(
      run(s, function* () {
        yield* setuid(5)
        return yield* ask(cmd, ifreq('eth1'))
      }),
    ).toBe(errno)
  })
})

describe('addresses', () => {
  test('what a device has', () => {
    expect([GIFADDR, GIFDSTADDR, GIFBRDADDR, GIFNETMASK].map(cmd => addr(cmd, 'eth0'))).toEqual([
      ...['10.0.0.1', '10.0.0.1', '10.0.0.255', '255.255.255.0'],
    ])
    expect([addr(GIFADDR, 'eth1'), addr(GIFADDR, 'eth7'), addr(GIFADDR, 'eth0:1')]).toEqual([
      ...[-EADDRNOTAVAIL, -ENODEV, -EADDRNOTAVAIL],
    ])
  })

  test('an address has the mask of its class until it is told another; the broadcast address follows', () => {
    const all = (): unknown[] => [GIFADDR, GIFNETMASK, GIFBRDADDR].map(cmd => addr(cmd, 'eth1'))
    expect(change(SIFADDR, () => with_addr('eth1', '172.16.5.1'))).toBe(0)
    expect(all()).toEqual(['172.16.5.1', '255.255.0.0', '172.16.255.255'])
    expect(change(SIFNETMASK, () => with_addr('eth1', '255.255.255.0'))).toBe(0)
    expect(all()).toEqual(['172.16.5.1', '255.255.255.0', '172.16.5.255'])
    expect(change(SIFBRDADDR, () => with_addr('eth1', '172.16.5.0'))).toBe(0)
    expect(change(SIFNETMASK, () => with_addr('eth1', '255.255.255.128'))).toBe(0)
    expect(all()).toEqual(['172.16.5.1', '255.255.255.128', '172.16.5.0'])
    expect(change(SIFADDR, () => with_addr('eth1', '192.168.7.1'))).toBe(0)
    expect(all()).toEqual(['192.168.7.1', '255.255.255.0', '192.168.7.255'])
    expect(change(SIFADDR, () => with_addr('eth1', '192.168.7.1'))).toBe(0)
  })

  test('aliases come by their address and go with their flag', () => {
    expect(change(SIFADDR, () => with_addr('eth1:1', '192.168.8.1'))).toBe(0)
    expect([addr(GIFADDR, 'eth1:1'), addr(GIFADDR, 'eth1')]).toEqual(['192.168.8.1', '192.168.7.1'])
    expect(change(SIFFLAGS, () => with_word('eth1:2', 0))).toBe(-EADDRNOTAVAIL)
    expect(change(SIFFLAGS, () => with_word('eth1:1', 0))).toBe(0)
    expect([addr(GIFADDR, 'eth1:1'), word(GIFFLAGS, 'eth1') & 1]).toEqual([-EADDRNOTAVAIL, 1])
  })

  test.each<[string, number, () => number, number]>([
    ['another family', SIFADDR, () => ifreq('eth1', 5, 0), -EINVAL],
    ['a group', SIFADDR, () => with_addr('eth1', '224.0.0.1'), -EINVAL],
    ['a mask with a hole', SIFNETMASK, () => with_addr('eth1', '255.0.255.0'), -EINVAL],
    ['a mask of no address', SIFNETMASK, () => with_addr('eth1:5', '255.255.0.0'), -EADDRNOTAVAIL],
  ])('%s', (_what, cmd, make, errno) => {
    expect(change(cmd, make)).toBe(errno)
  })

  test('SIOCGIFCONF: all of them, or as many as there is room for; without a buffer how many there are', () => {
    const conf = (room: number, there = true): [number, string[]] =>
      run(s, function* () {
        const buf = malloc(256)
        const at = malloc(8)
        store32(at, room)
        store32(at + 4, there ? buf : 0)
        const err = yield* ask(GIFCONF, at)
        const n = err || load32(at)
        const names = Array.from({ length: Math.max(0, n) >> 5 }, (_, k) => buf + 32 * k)
        return [n, there ? names.map(a => `${name_at(a)} ${text(sin_addr(a + 16))}`) : []]
      })
    const all = ['lo 127.0.0.1', 'eth0 10.0.0.1', 'eth1 192.168.7.1']
    const [n, names] = conf(256)
    expect([n, names.toSorted()]).toEqual([96, all.toSorted()])
    expect(conf(0, false)).toEqual([96, []])
    expect(conf(70)).toEqual([64, names.slice(0, 2)])
    expect(run(s, () => ask(GIFCONF, BAD))).toBe(-EFAULT)
  })
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
