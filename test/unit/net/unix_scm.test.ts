/** Files in messages of Unix sockets: SCM_RIGHTS, what is in flight, and cycles of sockets that only messages name. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { slabinfo } from '../../../src/mm/slab.js'
import { unix_tot_inflight } from '../../../src/net/unix/garbage.js'
import {
  bind,
  close,
  type Libc,
  load32,
  malloc,
  mem,
  read,
  recv,
  recvmsg,
  sendmsg,
  sockaddr_in,
  socket,
  socketpair,
  store32,
  write,
} from '../../../src/user/libc.js'
import { finish, run, start } from '../../helpers/programs.js'
import { Script } from '../../helpers/script.js'

const s = new Script({ ports: [], config: { user_procs: 4, loopback: 1 } })
const [UNIX, INET, DGRAM] = [1, 2, 2]
const [SOL_SOCKET, RIGHTS] = [1, 1]
const [EBADF, EFAULT, EAGAIN, EINVAL] = [-9, -14, -11, -22]
const [PEEK, CTRUNC, DONTWAIT] = [2, 8, 0x40]

function files(): number {
  return slabinfo().find(c => c.name === 'filp')!.used
}
function* pair(): Generator<void, [number, number], void> {
  const at = malloc(8)
  yield* socketpair(UNIX, DGRAM, 0, at)
  return [load32(at), load32(at + 4)]
}
/** A msghdr of one byte with this control data. */
function msg(control: number, controllen: number, buf = malloc(4)): number {
  const [at, iov] = [malloc(28), malloc(8)]
  store32(iov, buf)
  store32(iov + 4, 1)
  ;[0, 0, iov, 1, control, controllen, 0].forEach((w, k) => {
    store32(at + 4 * k, w)
  })
  return at
}
function rights(...fds: number[]): number {
  const at = malloc(12 + 4 * fds.length)
  ;[12 + 4 * fds.length, SOL_SOCKET, RIGHTS, ...fds].forEach((w, k) => {
    store32(at + 4 * k, w)
  })
  return at
}
function pass(fd: number, ...fds: number[]): Libc {
  return sendmsg(fd, msg(rights(...fds), 12 + 4 * fds.length), 0)
}
interface Taken {
  n: number
  fds: number[]
  flags: number
}
function* take(fd: number, room = 64, flags = DONTWAIT): Generator<void, Taken, void> {
  const control = malloc(64)
  const at = msg(control, room)
  const n = yield* recvmsg(fd, at, flags)
  const len = n < 0 ? 0 : load32(at + 20)
  const count = len < 16 ? 0 : (load32(control) - 12) >> 2
  return { n, fds: Array.from({ length: count }, (_, k) => load32(control + 12 + 4 * k)), flags: load32(at + 24) }
}

describe('passing', () => {
  test('the receiver has the file under a number of its own, when the sender has closed it', () => {
    const before = files()
    const got = run(s, function* () {
      const [a, b] = yield* pair()
      const [c, d] = yield* pair()
      const sent = yield* pass(a, c)
      yield* close(c)
      const held = unix_tot_inflight()
      const { n, fds } = yield* take(b)
      const buf = malloc(4)
      mem(buf, 2).set([5, 6])
      const wrote = yield* write(fds[0]!, buf, 2)
      const came = yield* read(d, buf, 4)
      return [sent, held, n, fds.length, wrote, came, unix_tot_inflight()]
    })
    expect(got).toEqual([1, 1, 1, 1, 2, 2, 0])
    expect(files()).toBe(before)
  })
  test('any file, several at once, one of them twice; between two processes', () => {
    const first = start(function* () {
      const [, b] = yield* pair()
      const { fds } = yield* take(b, 64, 0)
      return fds.length
    })
    s.pass(2)
    const second = start(
      function* () {
        const udp = yield* socket(INET, DGRAM, 0)
        yield* bind(udp, sockaddr_in(malloc(16), 0x7f000001, 900), 16)
        const sent = yield* pass(0, udp, udp, 1)
        yield* close(udp)
        return sent
      },
      { shares: first.task },
    )
    expect([finish(s, second), finish(s, first)]).toEqual([1, 3])
  })
  test('MSG_PEEK gives files, too, and leaves the message as it is', () => {
    const got = run(s, function* () {
      const [a, b] = yield* pair()
      yield* pass(a, a)
      const peeked = yield* take(b, 64, PEEK | DONTWAIT)
      const held = unix_tot_inflight()
      const taken = yield* take(b)
      return [peeked.fds.length, held, taken.fds.length, peeked.fds[0] !== taken.fds[0]]
    })
    expect(got).toEqual([1, 1, 1, true])
  })
  test('what finds no room is closed: MSG_CTRUNC', () => {
    const before = files()
    const got = run(s, function* () {
      const [a, b] = yield* pair()
      const seen: [number, number][] = []
      for (const room of [0, 12, 15, 16, 20, 64]) {
        yield* pass(a, a, b)
        const { fds, flags } = yield* take(b, room)
        for (const fd of fds) yield* close(fd)
        seen.push([fds.length, flags & CTRUNC])
      }
      yield* pass(a, a)
      const plain = yield* recv(b, malloc(4), 4, DONTWAIT)
      return [...seen, [plain, unix_tot_inflight()]]
    })
    expect(got).toEqual([
      [0, CTRUNC],
      [0, CTRUNC],
      [0, CTRUNC],
      [1, CTRUNC],
      [2, 0],
      [2, 0],
      [1, 0],
    ])
    expect(files()).toBe(before)
  })
  test('what was never received is closed with the socket it was sent to', () => {
    const before = files()
    run(s, function* () {
      const [a, b] = yield* pair()
      yield* pass(a, yield* socket(INET, DGRAM, 0))
      yield* close(b)
      return 0
    })
    expect([files(), unix_tot_inflight()]).toEqual([before, 0])
  })
  test('a full table of descriptors, an address that is not there', () => {
    const before = files()
    run(s, function* () {
      const [a, b] = yield* pair()
      yield* pass(a, a)
      const bad = msg(0x1000, 64)
      expect(yield* recvmsg(b, bad, DONTWAIT)).toBe(1)
      expect(load32(bad + 24) & CTRUNC).toBe(CTRUNC)
      return 0
    })
    expect(files()).toBe(before)
  })
})

describe('errno', () => {
  test.each<[string, (a: number) => number, number, number]>([
    ['a descriptor that is not open', () => rights(77), 16, EBADF],
    ['a negative one', () => rights(-1), 16, EBADF],
    ['one that is open before one that is not: nothing is held', a => rights(a, a, 77), 24, EBADF],
    ['more than 255', a => rights(...new Array<number>(256).fill(a)), 12 + 4 * 256, EINVAL],
    [
      'an unknown type',
      a => {
        const at = rights(a)
        store32(at + 8, 9)
        return at
      },
      16,
      EINVAL,
    ],
    ['a length beyond the end', a => rights(a, a), 16, EINVAL],
    ['control data that is not there', () => 0x1000, 16, EFAULT],
  ])('%s', (_name, control, len, expected) => {
    const before = files()
    const got = run(s, function* () {
      const [a, b] = yield* pair()
      const ret = yield* sendmsg(a, msg(control(a), len), 0)
      return [ret, (yield* take(b)).n, unix_tot_inflight()]
    })
    expect(got).toEqual([expected, EAGAIN, 0])
    expect(files()).toBe(before)
  })
  test('255 pass, no file passes without a message, and nothing is left of one that cannot be sent', () => {
    const before = files()
    const got = run(s, function* () {
      const [a, b] = yield* pair()
      const many = yield* pass(a, ...new Array<number>(255).fill(a))
      const held = unix_tot_inflight()
      const alone = yield* socket(UNIX, DGRAM, 0)
      const lost = yield* pass(alone, a)
      const none = yield* pass(a)
      yield* close(b)
      return [many, held, lost, none]
    })
    expect(got).toEqual([1, 255, -107, 1])
    expect([files(), unix_tot_inflight()]).toEqual([before, 0])
  })
})

describe('garbage', () => {
  const sockets = (): number => slabinfo().find(c => c.name === 'socket')!.used
  test('a socket that lies in its own queue is collected when it is closed', () => {
    const before = [files(), sockets()]
    const held = run(s, function* () {
      const [a, b] = yield* pair()
      yield* pass(a, b) // b in the queue of b
      yield* close(b)
      const inside = unix_tot_inflight()
      yield* close(a)
      return inside
    })
    expect([held, unix_tot_inflight(), files(), sockets()]).toEqual([1, 0, ...before])
  })
  test('a cycle of three pairs, with other files in it', () => {
    const before = [files(), sockets()]
    const held = run(s, function* () {
      const pairs: [number, number][] = []
      for (let k = 0; k < 3; k++) pairs.push(yield* pair())
      for (let k = 0; k < 3; k++) {
        const next = pairs[(k + 1) % 3]!
        yield* pass(pairs[k]![0], ...next, yield* socket(INET, DGRAM, 0)) // both ends of the next pair into this one
      }
      const inside = unix_tot_inflight()
      for (const [a, b] of pairs.slice(0, 2)) {
        yield* close(a)
        yield* close(b)
      }
      const alive = unix_tot_inflight() // the last pair is open, and reaches all
      yield* close(pairs[2]![0])
      yield* close(pairs[2]![1])
      return [inside, alive]
    })
    expect(held).toEqual([6, 6])
    expect(unix_tot_inflight()).toBe(6) // nobody was released by these calls: as in 2.6.11 the next one that is collects
    run(s, function* () {
      return yield* close(yield* socket(UNIX, DGRAM, 0))
    })
    expect([unix_tot_inflight(), files(), sockets()]).toEqual([0, ...before])
  })
  test('what can still be received is none, however deep it lies', () => {
    const got = run(s, function* () {
      const [top, out] = yield* pair()
      let [a, b] = yield* pair()
      yield* pass(top, a, b)
      for (let k = 0; k < 5; k++) {
        const [c, d] = yield* pair()
        yield* pass(a, c, d)
        yield* close(a)
        yield* close(b)
        ;[a, b] = [c, d]
      }
      yield* close(a)
      yield* close(b)
      yield* close(yield* socket(UNIX, DGRAM, 0)) // a collection
      let depth = 0
      let from = out
      for (; depth < 6; depth++) {
        const { fds } = yield* take(from)
        if (fds.length !== 2) break
        yield* close(fds[0]!)
        from = fds[1]!
      }
      return [depth, unix_tot_inflight()]
    })
    expect(got).toEqual([6, 0])
  })
})

test('nothing leaks, not even a cycle that a halt finds in flight, and messages that nobody took', () => {
  start(function* () {
    const [a, b] = yield* pair()
    const [c, d] = yield* pair()
    yield* pass(a, c, d, yield* socket(INET, DGRAM, 0))
    yield* pass(c, a, b)
    yield* close(c)
    yield* close(d)
    return yield* recv(a, malloc(4), 4, 0)
  })
  s.pass(3)
  expect(unix_tot_inflight()).toBe(4)
  expect(s.solo.audit()).toEqual([])
})
