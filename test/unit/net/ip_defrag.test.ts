/** Datagrams in pieces: in any order, with holes, overlaps and repetitions, too many of them, and too late. Rows 5 and 6 of RFC 1122. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { afterEach, describe, expect, test } from 'vitest'
import { prng_below, prng_seed } from '../../../src/lib/prng.js'
import { ip_ctl } from '../../../src/net/ipv4/ip_sysctl.js'
import { ip_frag_mem, ip_frag_nqueues } from '../../../src/net/ipv4/ipq.js'
import { ip_statistics } from '../../../src/net/ipv4/mib.js'
import {
  bind,
  inet_addr,
  type Libc,
  malloc,
  mem,
  recv,
  sendto,
  setsockopt,
  sockaddr_in,
  socket,
  variable,
} from '../../../src/user/libc.js'
import { clock } from '../../helpers/clock.js'
import { fragments, type IpOptions, icmp, ipFrame, parse, udp } from '../../helpers/frames.js'
import { finish, type Running, run, start } from '../../helpers/programs.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [{ addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] }],
  neighbours: [{ address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } }],
  config: { loopback: 1, user_procs: 4, jumbo: 64 },
})
const mib = ip_statistics.cpu(0)
const route = { src: '10.0.0.2', dst: '10.0.0.1' }
let id = 100

function* bound(port: number): Libc {
  const fd = yield* socket(2, 2, 0)
  yield* setsockopt(fd, 1, 8, variable(100_000), 4)
  yield* bind(fd, sockaddr_in(malloc(16), 0, port), 16)
  return fd
}
/** A program that returns the bytes of the next datagram. */
function listen(port: number): Running<number[]> {
  const r = start(function* () {
    const fd = yield* bound(port)
    const buf = malloc(65_536)
    const n = yield* recv(fd, buf, 65_536, 0)
    return [...mem(buf, Math.max(0, n))]
  })
  s.pass(1)
  return r
}
const data = (n: number): Uint8Array => Uint8Array.from({ length: n }, (_, k) => (k * 7 + (k >> 8)) & 255)
function pieces(port: number, n: number, mtu = 576): Uint8Array[] {
  return fragments(udp({ ...route, sport: 5, dport: port }, data(n)), { ...route, id: ++id }, mtu)
}
/** One piece of a datagram of `whole`. */
function piece(whole: Uint8Array, from: number, to: number, o: Partial<IpOptions> = {}): Uint8Array {
  return ipFrame(whole.subarray(from, to), { ...route, id, offset: from, mf: to < whole.length, ...o })
}

afterEach(() => {
  expect(conserved(s.fates())).toBe(true)
})

describe('a datagram is whole when all its pieces are there', () => {
  const prng = new Int32Array(4)
  prng_seed(prng, 3)
  const shuffled = (frames: Uint8Array[]): Uint8Array[] => {
    const out = [...frames]
    for (let k = out.length - 1; k > 0; k--) {
      const j = prng_below(prng, k + 1)
      ;[out[k], out[j]] = [out[j]!, out[k]!]
    }
    return out
  }
  test.each<[string, (f: Uint8Array[]) => Uint8Array[]]>([
    ['in order', f => f],
    ['backwards', f => [...f].reverse()],
    ['the last one first', f => [f.at(-1)!, ...f.slice(0, -1)]],
    ['in some order', shuffled],
    ['each twice', f => f.flatMap(x => [x, x])],
  ])('%s', (_what, order) => {
    const r = listen(6000)
    const ok = mib.ReasmOKs
    s.send(0, ...order(pieces(6000, 3000)))
    expect(finish(s, r)).toEqual([...data(3000)])
    expect(mib.ReasmOKs - ok).toBe(1)
  })
  test('the largest there can be', () => {
    const r = listen(6001)
    s.send(0, ...shuffled(pieces(6001, 65_507, 1500)))
    expect(finish(s, r)).toEqual([...data(65_507)])
  })
  test('two that are mixed', () => {
    const [a, b] = [listen(6002), listen(6003)]
    const [x, y] = [pieces(6002, 2000), pieces(6003, 2000)]
    s.send(0, ...x.flatMap((f, k) => [f, y[k]!]))
    expect([finish(s, a), finish(s, b)]).toEqual([[...data(2000)], [...data(2000)]])
  })
  test('with pieces that overlap: what was there first stays in front, what is new covers what is behind', () => {
    const whole = udp({ ...route, sport: 5, dport: 6004 }, data(400))
    const r = listen(6004)
    id++
    s.send(0, piece(whole, 0, 200), piece(whole, 240, 320), piece(whole, 136, 304), piece(whole, 280, 408))
    expect(finish(s, r)).toEqual([...data(400)])
    const q = listen(6004)
    id++
    s.send(0, piece(whole, 64, 128), piece(whole, 160, 200), piece(whole, 0, 240), piece(whole, 232, 408))
    expect(finish(s, q)).toEqual([...data(400)])
  })
  test('an echo request of 20,000 bytes is answered, in pieces', () => {
    const whole = icmp(8, 0, 7, data(20_000))
    const out = s.send(0, ...fragments(whole, { ...route, id: ++id, protocol: 1 }, 1500))[0]!.map(parse)
    const reply = new Uint8Array(whole.length)
    for (const p of out) reply.set(p.payload, p.offset)
    expect([...reply]).toEqual([...icmp(0, 0, 7, data(20_000))])
  })
  test.each([16_409, 40_000, 65_507])('over loopback: %i bytes', n => {
    const got = run(s, function* () {
      const fd = yield* bound(6005)
      const buf = malloc(n)
      mem(buf, n).set(data(n))
      const sent = yield* sendto(fd, buf, n, 0, sockaddr_in(malloc(16), inet_addr('127.0.0.1'), 6005), 16)
      mem(buf, n).fill(0)
      const back = yield* recv(fd, buf, n, 0)
      return [sent, back, mem(buf, n).every((b, k) => b === ((k * 7 + (k >> 8)) & 255))]
    })
    expect(got).toEqual([n, n, true])
  })
})

describe('what does not fit is dropped', () => {
  const whole = udp({ ...route, sport: 5, dport: 6010 }, data(1000))
  const refused = (...frames: Uint8Array[]): number => {
    const f = s.account(() => s.send(0, ...frames))
    return f.drops['ip_not_reassembled'] ?? 0
  }
  test('an end before what is there, another end, something behind the end, nothing', () => {
    id++
    expect(refused(piece(whole, 0, 400), piece(whole, 200, 304, { mf: false }))).toBe(1)
    id++
    expect(
      refused(piece(whole, 800, 1008), piece(whole, 800, 1000, { mf: false }), piece(whole, 800, 1008, { mf: true })),
    ).toBe(1)
    id++
    expect(refused(piece(whole, 400, 408, { mf: false }), piece(whole, 800, 808))).toBe(1)
    id++
    expect(refused(piece(whole, 0, 0, { mf: true }))).toBe(1)
  })
  test('a datagram of more than 65535 bytes', () => {
    id++
    const fails = mib.ReasmFails
    const big = data(65_536)
    s.send(0, ...fragments(big.subarray(0, 65_528), { ...route, id }, 1500).slice(0, -1))
    s.send(0, ipFrame(big.subarray(65_120, 65_528), { ...route, id, offset: 65_120, mf: true }))
    s.send(0, ipFrame(big.subarray(0, 16), { ...route, id, offset: 65_528 }))
    expect(mib.ReasmFails - fails).toBe(1)
  })
})

describe('memory and time', () => {
  test('what is not whole after 30 seconds goes; the sender hears of it if his first piece came', () => {
    clock.ns += 31e9
    s.pass(2)
    s.out()
    const timeouts = mib.ReasmTimeout
    const a = pieces(6020, 1000)
    const b = pieces(6020, 1000)
    s.send(0, a[0]!, b[1]!)
    expect(ip_frag_nqueues()).toBe(2)
    clock.ns += 29e9
    s.pass(1)
    s.send(0, a[0]!) // does not begin the time anew
    expect(ip_frag_nqueues()).toBe(2)
    clock.ns += 1.1e9
    s.pass(2)
    const told = s.out()[0]!.map(parse)
    expect(told).toHaveLength(1)
    expect(told[0]!.icmp).toMatchObject({ type: 11, code: 1, checksumGood: true })
    expect([...told[0]!.icmp!.data.subarray(0, 40)]).toEqual([...a[0]!.subarray(14, 54)])
    expect(mib.ReasmTimeout - timeouts).toBe(2)
    expect([ip_frag_nqueues(), ip_frag_mem()]).toEqual([0, 0])
  })
  test('a flood of first pieces: the oldest go, never more than the limit, and others still get through', () => {
    const r = listen(6021)
    const mine = pieces(6021, 1400)
    let most = 0
    for (let k = 0; k < 40; k++) {
      s.send(0, ...Array.from({ length: 50 }, () => pieces(9, 1000)[0]!))
      most = Math.max(most, ip_frag_mem())
      if (k === 20) s.send(0, ...mine)
    }
    expect(most).toBeGreaterThan(192 * 1024)
    expect(most).toBeLessThan(ip_ctl.frag_high_thresh + 4096)
    expect(finish(s, r)).toEqual([...data(1400)])
  })
  test('a new seed after ten minutes changes nothing for those that are under way', () => {
    clock.ns += 31e9
    s.pass(2)
    const before = ip_frag_nqueues()
    clock.ns += 575e9
    s.pass(1)
    const r = listen(6022)
    const frames = pieces(6022, 1400)
    s.send(0, frames[0]!)
    clock.ns += 10e9
    s.pass(2)
    s.send(0, ...frames.slice(1))
    expect(finish(s, r)).toEqual([...data(1400)])
    expect(before).toBe(0)
  })
})

test('nothing leaks, not even what is not whole when the machine is halted', () => {
  s.send(0, pieces(9, 1000)[0]!, pieces(9, 1000)[1]!)
  s.out()
  expect(ip_frag_nqueues()).toBe(2)
  expect(s.solo.audit()).toEqual([])
})
