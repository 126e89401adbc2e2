/** Files that tell their owner by a signal: F_SETOWN and its like, O_ASYNC, F_SETSIG; of pipes and of sockets. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { afterAll, describe, expect, test } from 'vitest'
import { EFAULT, EINVAL, ENOTTY } from '../../../src/lib/errno.js'
import {
  bind,
  close,
  creat,
  fcntl,
  getpid,
  inet_addr,
  ioctl,
  type Libc,
  load32,
  malloc,
  nanosleep,
  read,
  recv,
  sendto,
  setuid,
  sockaddr_in,
  socket,
  string,
  variable,
  write,
} from '../../../src/user/libc.js'
import {
  F_GETFL,
  F_GETOWN,
  F_GETSIG,
  F_SETFL,
  F_SETOWN,
  F_SETSIG,
  FIOASYNC,
  FIOGETOWN,
  FIOSETOWN,
  O_ASYNC,
  O_NONBLOCK,
  O_RDWR,
  pipe_pair,
  SIOCGPGRP,
  SIOCSPGRP,
} from '../../../src/user/libc_file.js'
import { SIGIO, SIGUSR1, sigaction } from '../../../src/user/libsignal.js'
import { run, start } from '../../helpers/programs.js'
import { Script } from '../../helpers/script.js'
import { objects_of } from '../../helpers/slabs.js'

const s = new Script({ ports: [], config: { loopback: 1, user_procs: 8 } })
const BAD = 0xdead0000 | 0

/** Counts the signals that come. */
function* counting(sig: number): Generator<void, () => number, void> {
  const came = { n: 0 }
  yield* sigaction(sig, function* () {
    came.n++
  })
  return () => came.n
}
function* owned(fd: number, pid?: number): Libc {
  yield* fcntl(fd, F_SETOWN, pid ?? (yield* getpid()))
  return yield* fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK)
}
const put = (fd: number): Libc => write(fd, string('x'), 1)

describe('a pipe', () => {
  test('tells the reader of bytes, and of the end; the writer of room', () => {
    const seen = run(s, function* () {
      const came = yield* counting(SIGIO)
      const [r, w] = yield* pipe_pair()
      yield* put(w)
      const counts = [came()]
      yield* owned(r)
      yield* put(w)
      counts.push(came())
      yield* read(r, malloc(9), 1) // it is not the writer who asked
      counts.push(came())
      yield* owned(w)
      yield* read(r, malloc(9), 9)
      counts.push(came())
      yield* fcntl(w, F_SETFL, 0)
      yield* close(w)
      counts.push(came())
      return counts
    })
    expect(seen).toEqual([0, 1, 1, 2, 3])
    expect(objects_of('fasync_cache')).toBe(0)
  })

  test('as long as O_ASYNC is set, by F_SETFL or FIOASYNC; by the signal of F_SETSIG', () => {
    const seen = run(s, function* () {
      const [io, usr] = [yield* counting(SIGIO), yield* counting(SIGUSR1)]
      const [r, w] = yield* pipe_pair()
      yield* fcntl(r, F_SETOWN, yield* getpid())
      const [on, off] = [variable(1), variable(0)]
      yield* ioctl(r, FIOASYNC, on)
      yield* ioctl(r, FIOASYNC, on)
      const flags = [yield* fcntl(r, F_GETFL, 0)]
      yield* put(w)
      yield* fcntl(r, F_SETSIG, SIGUSR1)
      yield* put(w)
      yield* ioctl(r, FIOASYNC, off)
      flags.push(yield* fcntl(r, F_GETFL, 0))
      yield* put(w)
      return [flags, io(), usr(), yield* fcntl(r, F_GETSIG, 0)]
    })
    expect(seen).toEqual([[O_ASYNC, 0], 1, 1, SIGUSR1])
  })

  test('-n is process group n, 0 nobody; nobody gets signals from who may not send him any', () => {
    const told = { n: 0 }
    const target = start(function* () {
      yield* sigaction(SIGIO, function* () {
        told.n++
      })
      const [r] = yield* pipe_pair()
      for (;;) yield* read(r, malloc(1), 1)
    })
    s.pass(1)
    const { pid } = target.task
    const counts = run(s, function* () {
      const [r, w] = yield* pipe_pair()
      const counts: [owner: number, told: number][] = []
      for (const owner of [-pid, 0, pid]) {
        yield* owned(r, owner)
        yield* put(w)
        yield* nanosleep(2e6)
        counts.push([yield* fcntl(r, F_GETOWN, 0), told.n])
      }
      yield* setuid(7)
      yield* fcntl(r, F_SETOWN, pid)
      yield* put(w)
      yield* nanosleep(2e6)
      return [...counts, told.n]
    })
    expect(counts).toEqual([[-pid, 1], [0, 1], [pid, 2], 2])
  })
})

describe('a socket', () => {
  const here = (): number => sockaddr_in(malloc(16), inet_addr('127.0.0.1'), 7401)

  test('tells of datagrams, until it is closed', () => {
    const seen = run(s, function* () {
      const came = yield* counting(SIGIO)
      const fd = yield* socket(2, 2, 0)
      yield* bind(fd, here(), 16)
      const counts: number[] = []
      yield* sendto(fd, malloc(8), 5, 0, here(), 16)
      counts.push(came())
      yield* owned(fd)
      yield* sendto(fd, malloc(8), 5, 0, here(), 16)
      counts.push(came())
      yield* fcntl(fd, F_SETFL, O_NONBLOCK)
      yield* sendto(fd, malloc(8), 5, 0, here(), 16)
      counts.push(came(), yield* fcntl(fd, F_GETFL, 0))
      yield* owned(fd)
      const entries = objects_of('fasync_cache')
      yield* close(fd)
      return [counts, entries, objects_of('fasync_cache')]
    })
    expect(seen).toEqual([[0, 1, 1, O_RDWR | O_NONBLOCK], 1, 0])
  })

  test('tells of room, once after somebody found none', () => {
    const seen = run(s, function* () {
      const fd = yield* socket(2, 2, 0)
      yield* bind(fd, here(), 16)
      const other = yield* socket(2, 2, 0)
      const came = yield* counting(SIGIO)
      yield* owned(other)
      yield* sendto(other, malloc(8), 5, 0, here(), 16) // its packet is freed: room, but nobody missed it
      yield* recv(fd, malloc(8), 8, 0)
      return came()
    })
    expect(seen).toBe(0)
  })

  test('its owner by ioctl as well', () => {
    const seen = run(s, function* () {
      const fd = yield* socket(2, 2, 0)
      const [pid, got] = [variable(42), variable()]
      const ret = [yield* ioctl(fd, SIOCSPGRP, pid), yield* ioctl(fd, FIOGETOWN, got), load32(got)]
      ret.push(yield* ioctl(fd, FIOSETOWN, variable(-43)), yield* ioctl(fd, SIOCGPGRP, got), load32(got))
      ret.push(yield* fcntl(fd, F_GETOWN, 0))
      return ret
    })
    expect(seen).toEqual([0, 0, 42, 0, 0, -43, -43])
  })
})

test('bad arguments', () => {
  const seen = run(s, function* () {
    const [r] = yield* pipe_pair()
    const fd = yield* socket(2, 2, 0)
    const file = yield* creat(string('kept'))
    return [
      yield* fcntl(r, F_SETSIG, -1),
      yield* fcntl(r, F_SETSIG, 65),
      yield* ioctl(r, FIOASYNC, BAD),
      yield* ioctl(fd, SIOCSPGRP, BAD),
      yield* ioctl(fd, SIOCGPGRP, BAD),
      yield* ioctl(file, FIOASYNC, variable(1)),
      yield* fcntl(file, F_SETFL, O_ASYNC), // there is nothing to turn on, and nobody minds
    ]
  })
  expect(seen).toEqual([-EINVAL, -EINVAL, -EFAULT, -EFAULT, -EFAULT, -ENOTTY, 0])
})

afterAll(() => {
  expect(s.solo.audit()).toEqual([])
})
