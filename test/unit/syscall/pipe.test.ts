/** Pipes and FIFOs: what goes through, what makes whom wait, what ends a wait; errno in the order of 2.6.11, as LTP's pipe01 to 11, mknod and open have them. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { afterAll, describe, expect, test } from 'vitest'
import {
  EACCES,
  EADDRINUSE,
  EAGAIN,
  EBADF,
  ECONNREFUSED,
  EEXIST,
  EFAULT,
  EINTR,
  EINVAL,
  EMFILE,
  ENAMETOOLONG,
  ENOENT,
  ENXIO,
  EPERM,
  EPIPE,
} from '../../../src/lib/errno.js'
import { POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM } from '../../../src/sched/poll.js'
import {
  alarm,
  bind,
  close,
  connect,
  creat,
  dup,
  fcntl,
  ioctl,
  type Libc,
  load32,
  malloc,
  mem,
  poll,
  read,
  send,
  setuid,
  shutdown,
  sockaddr_un,
  socket,
  socketpair,
  store32,
  string,
  unlink,
  variable,
  write,
} from '../../../src/user/libc.js'
import {
  F_GETFL,
  F_SETFL,
  FIONREAD,
  iovec,
  mkfifo,
  mknod,
  O_CREAT,
  O_EXCL,
  O_NONBLOCK,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  open,
  PIPE_BUF,
  pipe,
  pipe_pair,
  readv,
  S_IFDIR,
  S_IFIFO,
  S_IFREG,
  S_IFSOCK,
  writev,
} from '../../../src/user/libc_file.js'
import { on_signals, SA_RESTART, SIGALRM, SIGPIPE, sigaction } from '../../../src/user/libsignal.js'
import { finish, run, start } from '../../helpers/programs.js'
import { Script } from '../../helpers/script.js'
import { objects_of } from '../../helpers/slabs.js'

const s = new Script({ ports: [], config: { loopback: 1, user_procs: 8 } })
const BAD = 0xdead0000 | 0
const ALL = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM
const READABLE = POLLIN | POLLRDNORM
const WRITABLE = POLLOUT | POLLWRNORM

function* look(fd: number): Libc {
  const fds = malloc(8)
  store32(fds, fd)
  store32(fds + 4, ALL)
  const n = yield* poll(fds, 1, 0)
  return n < 0 ? n : (load32(fds + 4) >>> 16) & 0xffff
}
const text = (at: number, n: number): string => (n < 0 ? `error ${-n}` : String.fromCharCode(...mem(at, n)))
function* say(fd: number, what: string): Libc {
  return yield* write(fd, string(what), what.length)
}
function* hear(fd: number, n: number): Generator<void, string, void> {
  const at = malloc(n)
  return text(at, yield* read(fd, at, n))
}
function* nonblock(...fds: number[]): Generator<void, void, void> {
  for (const fd of fds) yield* fcntl(fd, F_SETFL, O_NONBLOCK)
}

describe('a pipe', () => {
  test('what is written is read in order, and small writes share a page', () => {
    const seen = run(s, function* () {
      const [r, w] = yield* pipe_pair()
      for (const part of ['a', 'bc', 'def']) yield* say(w, part)
      const pages = objects_of('pipe_page')
      const all = [yield* hear(r, 2), yield* hear(r, 100)]
      return [pages, all]
    })
    expect(seen).toEqual([1, ['ab', 'cdef']])
  })

  test('16 pages go in; what does not fit comes back as less, or as EAGAIN', () => {
    const seen = run(s, function* () {
      const [r, w] = yield* pipe_pair()
      yield* nonblock(r, w)
      const buf = malloc(70_000)
      const n = [
        yield* read(r, buf, 1),
        yield* write(w, buf, 70_000),
        yield* write(w, buf, 1),
        yield* read(r, buf, 10),
        yield* write(w, buf, 1), // ten bytes of a page were read, but it is no empty page
        yield* read(r, buf, PIPE_BUF - 10),
        yield* write(w, buf, 5000),
        yield* read(r, buf, 70_000),
        yield* read(r, buf, 1),
      ]
      return n
    })
    expect(seen).toEqual([-EAGAIN, 65_536, -EAGAIN, 10, -EAGAIN, PIPE_BUF - 10, PIPE_BUF, 65_536, -EAGAIN])
  })

  test('a write of PIPE_BUF or less is whole, or does not happen', () => {
    const seen = run(s, function* () {
      const [r, w] = yield* pipe_pair()
      yield* nonblock(w)
      const buf = malloc(PIPE_BUF)
      let whole = 0
      let n = 0
      while ((n = yield* write(w, buf, 3000)) === 3000) whole++
      const count = variable()
      yield* ioctl(r, FIONREAD, count)
      return [whole, n, load32(count)]
    })
    expect(seen).toEqual([16, -EAGAIN, 48_000])
  })

  test('a writer sleeps until there is a page, and a reader until there is a byte', () => {
    const fds = { r: 0, w: 0 }
    const r = start(function* () {
      ;[fds.r, fds.w] = yield* pipe_pair()
      const buf = malloc(80_000)
      mem(buf, 80_000).forEach((_, k, all) => {
        all[k] = k * 7
      })
      return yield* write(fds.w, buf, 80_000)
    })
    s.pass(2)
    expect(r.done).toBe(false)
    const reader = start(
      function* () {
        const buf = malloc(80_000)
        let got = 0
        while (got < 80_000) got += yield* read(fds.r, buf + got, 9_000)
        return mem(buf, 80_000).every((b, k) => b === ((k * 7) & 255))
      },
      { shares: r.task },
    )
    expect(finish(s, reader)).toBe(true)
    expect(finish(s, r)).toBe(80_000)
  })

  test('a reader that finds a sleeping writer waits for the rest of it', () => {
    const fds = { r: 0, w: 0 }
    const w = start(function* () {
      ;[fds.r, fds.w] = yield* pipe_pair()
      return yield* write(fds.w, malloc(100_000), 100_000)
    })
    s.pass(1)
    const r = start(() => read(fds.r, malloc(100_000), 100_000), { shares: w.task })
    expect(finish(s, r)).toBe(100_000)
    expect(finish(s, w)).toBe(100_000)
  })

  test('the last writer gone is the end of the file; a copy of its descriptor counts', () => {
    const seen = run(s, function* () {
      const [r, w] = yield* pipe_pair()
      const copy = yield* dup(w)
      yield* say(w, 'x')
      yield* close(w)
      const masks = [yield* look(r)]
      yield* hear(r, 9)
      yield* nonblock(r)
      const before = yield* hear(r, 9)
      yield* close(copy)
      masks.push(yield* look(r))
      return [masks, before, yield* hear(r, 9)]
    })
    expect(seen).toEqual([[READABLE | WRITABLE, WRITABLE | POLLHUP], `error ${EAGAIN}`, ''])
  })

  test('without a reader: EPIPE and SIGPIPE, which ends a program that does not look', () => {
    const seen = run(s, function* () {
      const [r, w] = yield* pipe_pair()
      const came = yield* on_signals(SIGPIPE)
      yield* close(r)
      return [yield* look(w), yield* say(w, 'x'), came(), yield* write(w, 0, 0)]
    })
    expect(seen).toEqual([WRITABLE | POLLERR, -EPIPE, SIGPIPE, 0])
    const dies = start(function* () {
      const [r, w] = yield* pipe_pair()
      yield* close(r)
      yield* say(w, 'x')
      return 'lives'
    })
    s.pass(2)
    expect(dies.result).toBeUndefined()
  })

  test('a datagram socket whose peer does not listen any more: EPIPE, no signal', () => {
    const seen = run(s, function* () {
      const fds = malloc(8)
      yield* socketpair(1, 2, 0, fds)
      const came = yield* on_signals(SIGPIPE)
      yield* shutdown(load32(fds + 4), 0)
      return [yield* send(load32(fds), malloc(1), 1, 0), came()]
    })
    expect(seen).toEqual([-EPIPE, 0])
  })

  test('both ends say what there is: readv, writev, FIONREAD, poll', () => {
    const seen = run(s, function* () {
      const [r, w] = yield* pipe_pair()
      const masks = [yield* look(r), yield* look(w)]
      const sent = yield* writev(w, iovec([string('one '), 4], [0, 0], [string('two'), 3]), 3)
      const count = variable()
      yield* ioctl(w, FIONREAD, count)
      const [a, b] = [malloc(3), malloc(9)]
      const got = yield* readv(r, iovec([a, 3], [b, 9]), 2)
      masks.push(yield* look(r))
      return [masks, sent, load32(count), got, text(a, 3), text(b, 4)]
    })
    expect(seen).toEqual([[WRITABLE, WRITABLE, WRITABLE], 7, 7, 7, 'one', ' two'])
  })

  test('a signal ends the wait with EINTR, or it goes on with SA_RESTART', () => {
    const waits = start(function* () {
      const [r] = yield* pipe_pair()
      yield* sigaction(SIGALRM, function* () {})
      yield* alarm(1)
      return yield* read(r, malloc(1), 1)
    })
    const seen = finish(s, waits, 1500)
    expect(seen).toBe(-EINTR)
    const fds = { w: 0 }
    const restarts = start(function* () {
      const [r, w] = yield* pipe_pair()
      fds.w = w
      yield* sigaction(SIGALRM, function* () {}, SA_RESTART)
      yield* alarm(1)
      return yield* hear(r, 5)
    })
    s.pass(1500)
    expect(restarts.done).toBe(false)
    run(s, () => say(fds.w, 'late'), { shares: restarts.task })
    expect(finish(s, restarts)).toBe('late')
  })

  test('bad arguments, in the order of Linux', () => {
    const seen = run(s, function* () {
      const [r, w] = yield* pipe_pair()
      return [
        yield* pipe(BAD),
        yield* read(w, BAD, -1),
        yield* write(r, BAD, 1),
        yield* readv(w, BAD, 1),
        yield* read(r, BAD, -1),
        yield* readv(r, BAD, 0),
        yield* readv(r, BAD, 1025),
        yield* readv(r, BAD, 1),
        yield* writev(w, iovec([0, -1]), 1),
        yield* write(w, BAD, 1),
        yield* ioctl(r, FIONREAD, BAD),
        yield* ioctl(r, 0x1234, 0),
      ]
    })
    expect(seen).toEqual(
      [EFAULT, EBADF, EBADF, EBADF, EINVAL, 0, EINVAL, EFAULT, EINVAL, EFAULT, EFAULT, EINVAL].map(e => -e || 0),
    )
  })

  test('no descriptors left: EMFILE, and nothing stays behind', () => {
    const seen = run(s, function* () {
      const before = objects_of('pipe_inode')
      const fds = malloc(8)
      let err = 0
      while ((err = yield* pipe(fds)) === 0);
      const last = load32(fds + 4)
      yield* close(last)
      return [err, yield* pipe(fds), last, before]
    })
    expect(seen).toEqual([-EMFILE, -EMFILE, 255, 0])
    expect(objects_of('pipe_inode')).toBe(0)
  })
})

describe('a FIFO', () => {
  test('who opens one end waits for the other', () => {
    const path = '/tmp/a'
    const reader = start(function* () {
      yield* mkfifo(string(path))
      const fd = yield* open(string(path), O_RDONLY)
      return yield* hear(fd, 9)
    })
    s.pass(2)
    expect(reader.done).toBe(false)
    const writer = start(function* () {
      const fd = yield* open(string(path), O_WRONLY)
      yield* say(fd, 'hello')
      return yield* fcntl(fd, F_GETFL, 0)
    })
    expect([finish(s, writer), finish(s, reader)]).toEqual([O_WRONLY, 'hello'])
    const second = start(() => open(string(path), O_WRONLY))
    s.pass(2)
    expect(second.done).toBe(false)
    run(s, () => open(string(path), O_RDONLY | O_NONBLOCK))
    expect(finish(s, second)).toBe(0)
    expect(run(s, () => unlink(string(path)))).toBe(0)
  })

  test('O_NONBLOCK: reading opens at once and tells of no hangup before a writer came; writing is ENXIO', () => {
    const seen = run(s, function* () {
      const path = string('/tmp/b')
      yield* mkfifo(path)
      const alone = yield* open(path, O_WRONLY | O_NONBLOCK)
      const r = yield* open(path, O_RDONLY | O_NONBLOCK)
      const masks = [yield* look(r)]
      const nothing = yield* hear(r, 1)
      const w = yield* open(path, O_WRONLY | O_NONBLOCK)
      yield* close(w)
      masks.push(yield* look(r))
      yield* unlink(path)
      return [alone, masks, nothing, w]
    })
    expect(seen).toEqual([-ENXIO, [WRITABLE, WRITABLE | POLLHUP], '', 1])
  })

  test('O_RDWR never waits; what nobody has open is empty; unlinked, it works for those who have it', () => {
    const seen = run(s, function* () {
      const path = string('/tmp/c')
      yield* mkfifo(path)
      const both = yield* open(path, O_RDWR)
      yield* say(both, 'abc')
      const first = yield* hear(both, 2)
      yield* close(both)
      const again = yield* open(path, O_RDWR | O_NONBLOCK)
      const lost = yield* hear(again, 9)
      const gone = [yield* unlink(path), yield* unlink(path), yield* open(path, O_RDONLY)]
      yield* say(again, 'still')
      return [first, lost, gone, yield* hear(again, 9)]
    })
    expect(seen).toEqual(['ab', `error ${EAGAIN}`, [0, -ENOENT, -ENOENT], 'still'])
  })

  test('a signal ends the wait for the other end', () => {
    const waits = start(function* () {
      const path = string('/tmp/d')
      yield* mkfifo(path)
      yield* sigaction(SIGALRM, function* () {})
      const errs = []
      for (const flags of [O_RDONLY, O_WRONLY]) {
        yield* alarm(1)
        errs.push(yield* open(path, flags))
      }
      const pages = objects_of('pipe_page')
      yield* unlink(path)
      return [errs, yield* open(path, O_WRONLY), pages]
    })
    const seen = finish(s, waits, 3000)
    expect(seen).toEqual([[-EINTR, -EINTR], -ENOENT, 0])
  }, 20_000)

  test('one name space with sockets', () => {
    const seen = run(s, function* () {
      const [fifo, sock] = ['/tmp/e', '/tmp/f']
      const addr = malloc(110)
      const fd = yield* socket(1, 2, 0)
      yield* mkfifo(string(fifo))
      const ret = [
        yield* bind(fd, addr, sockaddr_un(addr, fifo)),
        yield* connect(fd, addr, sockaddr_un(addr, fifo)),
        yield* bind(fd, addr, sockaddr_un(addr, sock)),
        yield* mkfifo(string(sock)),
        yield* mkfifo(string(fifo)),
        yield* open(string(sock), O_RDWR),
        yield* mknod(string('/tmp/g'), S_IFSOCK | 0o600),
        yield* open(string('/tmp/g'), O_RDONLY),
        yield* connect(fd, addr, sockaddr_un(addr, '/tmp/g')),
      ]
      for (const path of [fifo, sock, '/tmp/g']) ret.push(yield* unlink(string(path)))
      return ret
    })
    const errs = [EADDRINUSE, ECONNREFUSED, 0, EEXIST, EEXIST, ENXIO, 0, ENXIO, ECONNREFUSED, 0, 0, 0]
    expect(seen).toEqual(errs.map(e => -e || 0))
  })

  test('bad arguments of mknod and open, and what there is no file system for', () => {
    const seen = run(s, function* () {
      const path = string('/tmp/h')
      const long = string('x'.repeat(300))
      const ret = [
        yield* mknod(BAD, S_IFDIR),
        yield* mknod(BAD, S_IFIFO),
        yield* mknod(string(''), S_IFIFO),
        yield* mknod(long, S_IFIFO),
        yield* mknod(path, 0o150000),
        yield* mknod(path, S_IFREG),
        yield* mknod(path, 0o020000),
        yield* mknod(path, S_IFIFO | 0o600),
        yield* mknod(path, S_IFREG),
        yield* open(BAD, O_RDONLY),
        yield* open(string(''), O_RDONLY),
        yield* open(long, O_RDONLY),
        yield* open(string('/none'), O_RDONLY),
        yield* open(string('/none'), O_RDWR | O_CREAT),
        yield* open(path, O_RDWR | O_CREAT | O_EXCL),
        yield* open(path, 3),
      ]
      yield* setuid(7)
      ret.push(yield* open(path, O_RDONLY), yield* unlink(path))
      return ret
    })
    const errs = [EPERM, EFAULT, ENOENT, ENAMETOOLONG, EINVAL, EACCES, EPERM, 0, EEXIST]
    errs.push(EFAULT, ENOENT, ENAMETOOLONG, ENOENT, EACCES, EEXIST, EINVAL, EACCES, EACCES)
    expect(seen).toEqual(errs.map(e => -e || 0))
    expect(run(s, () => unlink(string('/tmp/h')))).toBe(0)
  })

  test('creat of its path opens it for writing; of another one, it is the host who keeps it', () => {
    const seen = run(s, function* () {
      const path = string('/tmp/i')
      yield* mkfifo(path)
      const r = yield* open(path, O_RDONLY | O_NONBLOCK)
      const w = yield* creat(path)
      yield* say(w, 'x')
      yield* unlink(path)
      const kept = yield* open(string('kept'), O_WRONLY | O_CREAT)
      return [yield* hear(r, 2), yield* say(kept, 'y'), yield* read(kept, malloc(1), 1)]
    })
    expect(seen).toEqual(['x', 1, -EBADF])
  })
})

test('ends that a halt finds open, and readers that it finds asleep, leave nothing behind', () => {
  start(function* () {
    const [r, w] = yield* pipe_pair()
    yield* say(w, 'left')
    yield* mkfifo(string('/tmp/z'))
    yield* read(r, malloc(9), 9)
    return yield* read(r, malloc(9), 9)
  })
  start(() => open(string('/tmp/z'), O_RDONLY))
  s.pass(3)
  expect([objects_of('pipe_inode'), objects_of('pipe_page')]).toEqual([2, 1])
})
afterAll(() => {
  expect(s.solo.audit()).toEqual([])
})
