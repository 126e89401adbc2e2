/** RFC 1122 for a host: what a program gets to know of a packet beside its data, and groups; the rows of the requirements by number. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { expect, test } from 'vitest'
import {
  bind,
  close,
  type Libc,
  load32,
  malloc,
  mem,
  recv,
  recvmsg,
  sendmsg,
  sendto,
  set_word,
  setsockopt,
  sockaddr_in,
  socket,
  store32,
} from '../../../src/user/libc.js'
import { message, recv_error } from '../../../src/user/msg.js'
import { icmpFrame, ipFrame, parse, udp, udpFrame } from '../../helpers/frames.js'
import { finish, run, start } from '../../helpers/programs.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const [H, A, ROUTER] = ['10.0.0.1', '10.0.0.2', '10.0.0.9']
const s = new Script({
  ports: [{ addresses: [{ local: ip(H), prefixlen: 24 }] }],
  neighbours: [2, 9].map(k => ({ address: ip(`10.0.0.${k}`), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x100 + k } })),
  config: { loopback: 1, user_procs: 3 },
})
const [IP_RECVOPTS, IP_RETOPTS, IP_RECVERR, ADD] = [6, 7, 11, 35]

function* bound(port: number): Libc {
  const fd = yield* socket(2, 2, 0)
  yield* bind(fd, sockaddr_in(malloc(16), 0, port), 16)
  return fd
}
/** The options that a program is told of, of one datagram. */
function told(option: number, options: number[]): number[] {
  const p = start(function* () {
    const fd = yield* bound(5000)
    yield* set_word(fd, 0, option, 1)
    const m = message(malloc(64))
    yield* recvmsg(fd, m.reset(64), 0)
    const found = m.cmsgs().find(c => c.type === option)
    yield* close(fd)
    return found === undefined ? [] : [...mem(found.data, found.len)]
  })
  s.pass(1)
  s.send(0, udpFrame({ src: A, dst: H, dport: 5000, options }, [1, 2]))
  return finish(s, p)
}

test('RFC 1122 row 9: options are passed up to the application, known or not', () => {
  expect(told(IP_RECVOPTS, [0x99, 4, 1, 2])).toEqual([0x99, 4, 1, 2])
  expect(told(IP_RECVOPTS, [7, 7, 4, 0, 0, 0, 0, 0])).toEqual([7, 7, 8, 10, 0, 0, 1, 0]) // record route, our address in it
  expect(told(IP_RECVOPTS, [])).toEqual([])
})

test('RFC 1122 row 10: the route back is handed to the application, and its answer goes that way', () => {
  const p = start(function* () {
    const fd = yield* bound(5000)
    yield* set_word(fd, 0, IP_RETOPTS, 1)
    const m = message(malloc(64))
    yield* recvmsg(fd, m.reset(64), 0)
    const found = m.cmsgs().find(c => c.type === IP_RETOPTS)!
    const len = found.len + 12
    // The same control message goes with the answer, to where the datagram came from.
    const [at, iov] = [malloc(28), malloc(8)]
    store32(iov, m.buf)
    store32(iov + 4, 2)
    ;[m.name, 16, iov, 1, m.control, len, 0].forEach((w, k) => {
      store32(at + 4 * k, w)
    })
    const sent = yield* sendmsg(fd, at, 0)
    yield* close(fd)
    return [load32(m.control + 8), sent]
  })
  s.pass(1)
  s.out()
  // It came by the router, and is at its end: the pointer is behind the last address.
  const route = [131, 7, 8, ...ROUTER.split('.').map(Number), 0]
  s.solo.board.nics[0]!.arrive(udpFrame({ src: A, dst: H, sport: 77, dport: 5000, options: route }, [1, 2]))
  expect(finish(s, p)).toEqual([IP_RETOPTS, 2])
  const frame = s.out()[0]!.find(f => f[23] === 17)!
  const back = parse(frame)
  expect([back.dst, back.to]).toEqual([ROUTER, '02:00:00:00:01:09']) // to the first stop
  expect([...frame.subarray(34, 42)]).toEqual([131, 7, 4, 10, 0, 0, 2, 0]) // and from there to the sender
})

test('RFC 1122 row 33: ICMP errors reach the application, with who complained and about what', () => {
  const got = run(s, function* () {
    const fd = yield* bound(5001)
    yield* set_word(fd, 0, IP_RECVERR, 1)
    yield* sendto(fd, malloc(4), 4, 0, sockaddr_in(malloc(16), ip(A), 9), 16)
    const quoted = udp({ src: H, dst: A, sport: 5001, dport: 9 }, [0, 0, 0, 0])
    const about = ipFrame(quoted, { src: H, dst: A }).subarray(14, 14 + 28)
    s.solo.board.nics[0]!.arrive(icmpFrame({ src: ROUTER, dst: H }, 3, 1, 0, about))
    yield
    yield
    const first = yield* recv(fd, malloc(4), 4, 0)
    const e = yield* recv_error(fd, message(malloc(64)), 64)
    yield* close(fd)
    return [first, e?.errno, e?.type, e?.code, e?.offender === ip(ROUTER), e?.addr === ip(A), e?.port]
  })
  expect(got).toEqual([-113, 113, 3, 1, true, true, 9])
})

test('RFC 1122 rows 18 and 35: no error about what was sent to a group, and none from one is taken', () => {
  const group = '239.1.1.1'
  const p = start(function* () {
    const fd = yield* bound(5002)
    const mreq = malloc(8)
    mem(mreq, 8).set([239, 1, 1, 1, 10, 0, 0, 1])
    yield* setsockopt(fd, 0, ADD, mreq, 8)
    const n = yield* recv(fd, malloc(8), 8, 0)
    yield* close(fd)
    return n
  })
  s.pass(1)
  const to = '01:00:5e:01:01:01'
  const wrong = s.account(() => s.send(0, udpFrame({ src: A, dst: group, dport: 4444, to }, [1])))
  expect([wrong.icmp_sent, wrong.drops]).toEqual([0, { udp_no_port: 1 }])
  const from = s.account(() => s.send(0, udpFrame({ src: '224.0.0.5', dst: H, dport: 5002 }, [1])))
  expect(from.drops).toEqual({ ip_martian_source: 1 })
  s.solo.board.nics[0]!.arrive(udpFrame({ src: A, dst: group, dport: 5002, to }, [1, 2, 3]))
  expect(finish(s, p)).toBe(3)
})

test('nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
