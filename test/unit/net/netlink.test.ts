/** AF_NETLINK sockets: addresses, groups, who may what, what is lost; the errno of each bad argument as in 2.6.11. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import {
  EADDRINUSE,
  EAGAIN,
  ECONNREFUSED,
  EFAULT,
  EINVAL,
  EMSGSIZE,
  ENOBUFS,
  EOPNOTSUPP,
  EPERM,
  EPROTONOSUPPORT,
  ESOCKTNOSUPPORT,
} from '../../../src/lib/errno.js'
import {
  accept,
  bind,
  close,
  connect,
  getpeername,
  getpid,
  getsockname,
  getsockopt,
  ioctl,
  type Libc,
  listen,
  load32,
  malloc,
  mem,
  nanosleep,
  recvfrom,
  sendto,
  setsockopt,
  setuid,
  shutdown,
  socket,
  variable,
} from '../../../src/user/libc.js'
import {
  attr,
  get16,
  get32,
  type Netlink,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  RTM,
  RTMGRP,
  receive,
  request,
  rtnl_change,
  rtnl_dump,
  rtnl_open,
  send_bytes,
  sockaddr_nl,
  u32,
} from '../../../src/user/libnetlink.js'
import { finish, run, start } from '../../helpers/programs.js'
import { Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [{ addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] }],
  config: { loopback: 1, user_procs: 6 },
})
const AF_NETLINK = 16
const SOCK_DGRAM = 2
const SOCK_RAW = 3
const USERSOCK = 2
const MSG_PEEK = 2
const MSG_TRUNC = 0x20
const MSG_DONTWAIT = 0x40
const open = (protocol = USERSOCK): Libc => socket(AF_NETLINK, SOCK_RAW, protocol)
const name = (pid = 0, groups = 0, family = AF_NETLINK): number => sockaddr_nl(malloc(12), pid, groups, family)
function* named(fd: number): Generator<void, [family: number, pid: number, groups: number], void> {
  const at = malloc(12)
  expect(yield* getsockname(fd, at, variable(12))).toBe(0)
  return [get16(mem(at, 12), 0), load32(at + 4), load32(at + 8)]
}
function* bytes_of(fd: number, flags = 0, room = 64): Generator<void, number[] | number, void> {
  const buf = malloc(room)
  const n = yield* recvfrom(fd, buf, room, flags, malloc(12), variable(12))
  return n < 0 ? n : [...mem(buf, Math.min(n, room))]
}
function* say(fd: number, data: number[], pid: number, groups = 0, flags = 0): Libc {
  const buf = malloc(data.length)
  mem(buf, data.length).set(data)
  return yield* sendto(fd, buf, data.length, flags, name(pid, groups), 12)
}
type Cases = [what: string, program: () => Libc, ret: number][]
function table(what: string, cases: Cases): void {
  describe(what, () => {
    test.each(cases)('%s', (_what, program, ret) => {
      expect(run(s, program)).toBe(ret)
    })
  })
}
function* on(f: (fd: number) => Libc, protocol = USERSOCK): Libc {
  const fd = yield* open(protocol)
  const ret = yield* f(fd)
  yield* close(fd)
  return ret
}
function* bound(pid: number, f: (fd: number) => Libc): Libc {
  return yield* on(function* (fd) {
    expect(yield* bind(fd, name(pid), 12)).toBe(0)
    return yield* f(fd)
  })
}
function* as_user(f: () => Libc): Libc {
  yield* setuid(1000)
  return yield* f()
}

table('socket', [
  ['a type that is neither raw nor datagram', () => socket(AF_NETLINK, 1, 0), -ESOCKTNOSUPPORT],
  ['a protocol beyond all', () => socket(AF_NETLINK, SOCK_RAW, 32), -EPROTONOSUPPORT],
  ['a negative protocol', () => socket(AF_NETLINK, SOCK_DGRAM, -1), -EPROTONOSUPPORT],
])
table('bind', [
  ['another family', () => on(fd => bind(fd, name(0, 0, 2), 12)), -EINVAL],
  ['a short address', () => on(fd => bind(fd, name(), 8)), -EINVAL],
  ['an address that is taken', () => bound(4242, () => on(fd => bind(fd, name(4242), 12))), -EADDRINUSE],
  ['an address of another protocol', () => bound(4242, () => on(fd => bind(fd, name(4242), 12), 3)), 0],
  ['again, to the same address', () => bound(4242, fd => bind(fd, name(4242), 12)), 0],
  ['again, to another one', () => bound(4242, fd => bind(fd, name(4243), 12)), -EINVAL],
  ['groups, by a user', () => as_user(() => on(fd => bind(fd, name(0, 1), 12))), -EPERM],
  ['groups of NETLINK_ROUTE, by a user', () => as_user(() => on(fd => bind(fd, name(0, 1), 12), 0)), 0],
])
table('connect', [
  ['another family', () => on(fd => connect(fd, name(0, 0, 2), 12)), -EINVAL],
  ['to groups, by a user', () => as_user(() => on(fd => connect(fd, name(0, 1), 12))), -EPERM],
  ['to groups, even of NETLINK_ROUTE', () => as_user(() => on(fd => connect(fd, name(0, 1), 12), 0)), -EPERM],
  ['to somebody', () => on(fd => connect(fd, name(77), 12)), 0],
])
table('what a netlink socket does not do', [
  ['listen', () => on(fd => listen(fd, 1)), -EOPNOTSUPP],
  ['options of its own', () => on(fd => setsockopt(fd, 270, 1, variable(1), 4)), -EOPNOTSUPP],
  ['the same, asked for', () => on(fd => getsockopt(fd, 270, 1, variable(), variable(4))), -EOPNOTSUPP],
  ['shutdown', () => on(fd => shutdown(fd, 1)), -EOPNOTSUPP],
  ['accept', () => on(fd => accept(fd, 0, 0)), -EOPNOTSUPP],
  ['ioctl: it knows no devices', () => on(fd => ioctl(fd, 0x8913, malloc(32))), -EOPNOTSUPP],
])
table('send', [
  ['MSG_OOB', () => on(fd => say(fd, [1], 0, 0, 1)), -EOPNOTSUPP],
  ['another family', () => on(fd => sendto(fd, malloc(8), 4, 0, name(0, 0, 2), 12)), -EINVAL],
  ['to groups, by a user', () => as_user(() => on(fd => say(fd, [1], 0, 1))), -EPERM],
  ['to the kernel, who does not speak that protocol', () => on(fd => say(fd, [1], 0)), -ECONNREFUSED],
  ['to nobody', () => on(fd => say(fd, [1], 31)), -ECONNREFUSED],
  ['more than the send buffer', () => on(fd => sendto(fd, malloc(8), 1 << 20, 0, name(31), 12)), -EMSGSIZE],
  ['what is not there', () => on(fd => sendto(fd, 0x10, 8, 0, name(31), 12)), -EFAULT],
])
table('recv', [
  ['MSG_OOB', () => on(fd => recvfrom(fd, malloc(8), 8, 1, 0, 0)), -EOPNOTSUPP],
  ['nothing', () => on(fd => recvfrom(fd, malloc(8), 8, MSG_DONTWAIT, 0, 0)), -EAGAIN],
])

describe('an address', () => {
  test('is the pid for the first socket of a process, a negative number for the next ones', () => {
    run(s, function* () {
      const pid = yield* getpid()
      const fds = [yield* open(), yield* open(), yield* open()]
      for (const fd of fds) expect(yield* bind(fd, name(), 12)).toBe(0)
      const names = [yield* named(fds[0]!), yield* named(fds[1]!), yield* named(fds[2]!)]
      expect(names[0]).toEqual([AF_NETLINK, pid, 0])
      expect(names[1]![1]).toBeLessThanOrEqual(-4097)
      expect(names[2]![1]).toBe(names[1]![1] - 1)
      return 0
    })
  })
  test('comes with the first message, and with connect, whose peer is remembered', () => {
    run(s, function* () {
      const pid = yield* getpid()
      const a = yield* open()
      yield* say(a, [1], 31)
      expect((yield* named(a))[1]).toBe(pid)
      const b = yield* open()
      expect(yield* connect(b, name(pid, 0), 12)).toBe(0)
      const at = malloc(12)
      expect(yield* getpeername(b, at, variable(12))).toBe(0)
      expect(load32(at + 4)).toBe(pid)
      expect(yield* connect(b, name(0, 0, 0), 12)).toBe(0)
      yield* getpeername(b, at, variable(12))
      expect(load32(at + 4)).toBe(0)
      return 0
    })
  })
})

describe('messages between programs', () => {
  test('arrive whole, with the sender’s address; a short buffer gets the beginning', () => {
    run(s, function* () {
      const a = yield* open()
      const b = yield* open()
      yield* bind(a, name(100), 12)
      yield* bind(b, name(200), 12)
      expect(yield* say(a, [1, 2, 3], 200)).toBe(3)
      const from = malloc(12)
      const buf = malloc(8)
      expect(yield* recvfrom(b, buf, 8, MSG_PEEK, from, variable(12))).toBe(3)
      expect([get16(mem(from, 12), 0), load32(from + 4)]).toEqual([AF_NETLINK, 100])
      expect(yield* recvfrom(b, buf, 2, MSG_TRUNC, from, variable(12))).toBe(2)
      expect([...mem(buf, 3)]).toEqual([1, 2, 3])
      expect(yield* say(b, [9], 100)).toBe(1)
      expect(yield* bytes_of(a)).toEqual([9])
      return 0
    })
  })
  test('to somebody who is connected elsewhere are refused', () => {
    run(s, function* () {
      const a = yield* open()
      const b = yield* open()
      yield* bind(a, name(100), 12)
      yield* bind(b, name(200), 12)
      yield* connect(b, name(300), 12)
      expect(yield* say(a, [1], 200)).toBe(-ECONNREFUSED)
      yield* connect(b, name(100), 12)
      expect(yield* say(a, [1], 200)).toBe(1)
      return 0
    })
  })
  test('to a group reach who listens to it, but not the sender', () => {
    run(s, function* () {
      const fds: number[] = []
      for (const groups of [1, 2, 3]) {
        const fd = yield* open()
        yield* bind(fd, name(0, groups), 12)
        fds.push(fd)
      }
      const a = yield* open()
      yield* bind(a, name(500, 1), 12)
      yield* say(a, [7], 31, 1) // and to nobody else: that part is refused
      const got: unknown[] = []
      for (const fd of [...fds, a]) got.push(yield* bytes_of(fd, MSG_DONTWAIT))
      expect(got).toEqual([[7], -EAGAIN, [7], -EAGAIN])
      yield* bind(fds[0]!, name((yield* named(fds[0]!))[1], 0), 12) // listens no more
      yield* say(a, [8], 31, 1)
      expect(yield* bytes_of(fds[0]!, MSG_DONTWAIT)).toBe(-EAGAIN)
      expect(yield* bytes_of(fds[2]!, MSG_DONTWAIT)).toEqual([8])
      return 0
    })
  })
  test('that find no room: the sender waits, or is told; he goes on when there is room', () => {
    const receiver = start(function* () {
      const b = yield* open()
      yield* bind(b, name(200), 12)
      yield* setsockopt(b, 1, 8, variable(4096), 4)
      for (let k = 0; k < 3; k++) yield* nanosleep(5e6)
      let n = 0
      for (; n < 100; n++) expect(yield* bytes_of(b, 0, 4)).toEqual([n, 0, 0, 0])
      return n
    })
    const sender = start(function* () {
      const a = yield* open()
      let n = 0
      while ((yield* say(a, u32(n), 200, 0, MSG_DONTWAIT)) > 0) n++
      const refused = n
      for (; n < 100; n++) expect(yield* say(a, u32(n), 200)).toBe(4)
      return refused
    })
    const refused = finish(s, sender)
    expect(refused).toBeGreaterThan(3)
    expect(refused).toBeLessThan(100)
    expect(finish(s, receiver)).toBe(100)
  })
})

describe('NETLINK_ROUTE', () => {
  function* nl(groups = 0): Generator<void, Netlink, void> {
    const got = yield* rtnl_open(groups)
    if (typeof got === 'number') throw new Error(`rtnl_open says ${got}`)
    return got
  }
  const rtmsg = (over: Partial<Record<'len' | 'table' | 'type', number>> = {}): number[] => [
    ...[2, over.len ?? 24, 0, 0, over.table ?? 254, 4, 0, over.type ?? 1],
    ...[0, 0, 0, 0],
  ]
  test('an acknowledgement quotes the header; an error the whole message, byte for byte', () => {
    run(s, function* () {
      const h = yield* nl()
      const route = request(h, RTM.NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, [
        ...rtmsg(),
        ...attr(1, [10, 9, 8, 0]),
        ...attr(5, [10, 0, 0, 77]),
      ])
      yield* send_bytes(h, route)
      const good = (yield* receive(h)) as { type: number; body: Uint8Array }[]
      expect([good[0]!.type, get32(good[0]!.body)]).toEqual([2, 0])
      expect([...good[0]!.body.subarray(4)]).toEqual([...route.subarray(0, 16)])
      yield* send_bytes(h, route)
      const bad = (yield* receive(h)) as { body: Uint8Array }[]
      expect(get32(bad[0]!.body)).toBe(-17)
      expect([...bad[0]!.body.subarray(4)]).toEqual([...route])
      return 0
    })
  })
  test('messages of one packet are handled in order; without REQUEST, below RTM_BASE or too short they are skipped', () => {
    run(s, function* () {
      const h = yield* nl()
      const skipped = request(h, RTM.NEWROUTE, 0, rtmsg())
      skipped[6] = NLM_F_ACK // no request
      const control = request(h, 1, NLM_F_ACK, [0, 0, 0, 0])
      const empty = request(h, RTM.NEWROUTE, NLM_F_ACK, [])
      const all = [skipped, control, empty, request(h, 99, 0, [0, 0, 0, 0]), request(h, RTM.NEWROUTE, 0, [2, 0, 0, 0])]
      yield* send_bytes(h, Uint8Array.from(all.flatMap(b => [...b])))
      const errors: number[][] = []
      for (let k = 0; k < 5; k++) {
        const m = (yield* receive(h, MSG_DONTWAIT)) as { body: Uint8Array; seq: number }[] | number
        errors.push(typeof m === 'number' ? [m] : [m[0]!.seq, get32(m[0]!.body)])
      }
      expect(errors).toEqual([
        [1, 0],
        [2, 0],
        [3, 0],
        [4, -EINVAL],
        [5, -EINVAL],
      ])
      return 0
    })
  })
  test.each<[string, number, number[], number]>([
    ['a family beyond all', RTM.NEWROUTE, [77, ...rtmsg().slice(1)], -97],
    ['an attribute beyond all', RTM.NEWROUTE, [...rtmsg(), ...attr(14, [0, 0, 0, 0])], -EINVAL],
    ['a kind that nobody handles', RTM.DELLINK, [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], -EINVAL],
  ])('%s', (_what, type, body, err) => {
    run(s, function* () {
      const h = yield* nl()
      expect(yield* rtnl_change(h, type, 0, body)).toBe(err)
      return 0
    })
  })
  test('a user may look, but change nothing', () => {
    run(s, function* () {
      yield* setuid(1000)
      const h = yield* nl()
      const shown = yield* rtnl_dump(h, RTM.GETLINK, [0, ...new Array<number>(15).fill(0)])
      expect(shown).toHaveLength(2)
      expect(yield* rtnl_change(h, RTM.NEWROUTE, NLM_F_CREATE, rtmsg())).toBe(-EPERM)
      return 0
    })
  })
  test('a dump longer than a packet comes in parts, as the program reads; a second one meanwhile is refused', () => {
    run(s, function* () {
      const h = yield* nl()
      for (let k = 0; k < 200; k++) {
        const body = [...rtmsg(), ...attr(1, [20, 0, k, 0]), ...attr(5, [10, 0, 0, 77])]
        expect(yield* rtnl_change(h, RTM.NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body)).toBe(0)
      }
      const routes = yield* rtnl_dump(h, RTM.GETROUTE, rtmsg())
      const dsts = (routes as { body: Uint8Array }[]).map(m => [...m.body.subarray(16, 20)].join('.'))
      const learnt = dsts.filter(d => d.startsWith('20.0.'))
      expect(new Set(learnt).size).toBe(200)
      expect(learnt).toHaveLength(200)
      yield* send_bytes(h, request(h, RTM.GETROUTE, NLM_F_DUMP, rtmsg()))
      yield* send_bytes(h, request(h, RTM.GETROUTE, NLM_F_DUMP, rtmsg()))
      const seen: number[] = []
      for (let done = 0; done < 1; ) {
        const messages = (yield* receive(h)) as { type: number; seq: number; body: Uint8Array }[]
        for (const m of messages) {
          if (m.type === 2) seen.push(get32(m.body))
          if (m.type === 3) done++
        }
      }
      expect(seen).toEqual([-16])
      return 0
    })
  })
  test('a program that ends in the middle of a dump leaves nothing behind', () => {
    run(s, function* () {
      const h = yield* nl()
      yield* send_bytes(h, request(h, RTM.GETROUTE, NLM_F_DUMP, rtmsg()))
      return 0
    })
  })
  test('who does not read what he listens to is told so, and hears what comes after', () => {
    run(s, function* () {
      const listener = yield* nl(RTMGRP.IPV4_ROUTE)
      yield* setsockopt(listener.fd, 1, 8, variable(4096), 4)
      const h = yield* nl()
      const change = (k: number, type: number): Libc =>
        rtnl_change(h, type, NLM_F_CREATE, [...rtmsg(), ...attr(1, [21, 0, k, 0]), ...attr(5, [10, 0, 0, 77])])
      for (let k = 0; k < 100; k++) expect(yield* change(k, RTM.NEWROUTE)).toBe(0)
      const heard: (number | string)[] = []
      for (let n = 0; n < 200; n++) {
        const m = yield* receive(listener, MSG_DONTWAIT)
        heard.push(typeof m === 'number' ? m : 'route')
        if (m === -EAGAIN) break
      }
      expect(heard[0]).toBe(-ENOBUFS)
      expect(heard.filter(x => x === 'route').length).toBeGreaterThan(3)
      expect(heard.filter(x => x === 'route').length).toBeLessThan(100)
      expect(heard.filter(x => x === -ENOBUFS)).toHaveLength(1)
      for (let k = 0; k < 100; k++) expect(yield* change(k, RTM.DELROUTE)).toBe(0)
      expect(yield* receive(listener, MSG_DONTWAIT)).toBe(-ENOBUFS)
      expect(yield* receive(listener, MSG_DONTWAIT)).toMatchObject([{ type: RTM.DELROUTE }])
      return 0
    })
  })
})

test('a socket that others wait for is closed, and they go on', () => {
  const receiver = start(function* () {
    const b = yield* open()
    yield* bind(b, name(200), 12)
    yield* setsockopt(b, 1, 8, variable(2048), 4)
    yield* nanosleep(20e6)
    return yield* close(b)
  })
  const sender = start(function* () {
    const a = yield* open()
    let n = 1
    while (n > 0) n = yield* say(a, [1], 200)
    return n
  })
  expect(finish(s, sender)).toBe(-ECONNREFUSED)
  expect(finish(s, receiver)).toBe(0)
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
