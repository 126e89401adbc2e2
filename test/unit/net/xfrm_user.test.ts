/** IPsec as a key manager sees it: states that somebody should negotiate, numbers that are promised, limits, and modules that come and go. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { EAGAIN, EEXIST, EINVAL, ENOENT, ESRCH } from '../../../src/lib/errno.js'
import { delete_module, modules_loaded } from '../../../src/sched/module.js'
import { bind, close, malloc, nanosleep, recv, sendto, sockaddr_in, socket } from '../../../src/user/libc.js'
import {
  addr,
  attr,
  attrs,
  get16,
  get32,
  getAddr,
  type Message,
  receive,
  rtnl_close,
  rtnl_dump,
  rtnl_open,
  rtnl_talk,
  u16,
  u32,
} from '../../../src/user/libnetlink.js'
import { clock } from '../../helpers/clock.js'
import { counting, icmp, ipFrame, parse, udp, udpFrame } from '../../helpers/frames.js'
import {
  type Association,
  ahFrame,
  ahUnwrap,
  espFrame,
  ip,
  operator,
  ROUTER_OF_IPSEC,
  state,
} from '../../helpers/ipsec.js'
import { runTask } from '../../helpers/iptables.js'
import { finish, type Running, run, start } from '../../helpers/programs.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip as address } from '../../helpers/solo.js'

const s = new Script(ROUTER_OF_IPSEC)
const [AUTH, ENC] = [Buffer.from(counting(20)), Buffer.from(counting(16))]
const IN: Association = { src: '10.0.0.2', dst: '10.0.0.1', spi: 0x100, auth: AUTH, enc: ENC }
const OUT: Association = { src: '10.0.0.1', dst: '10.0.0.2', spi: 0x200, auth: AUTH, enc: ENC }
const [HERE, PEER] = [address('10.0.0.1'), address('10.0.0.2')]
const POLICY_OUT = 'src 10.0.0.1 dst 10.0.0.2 dir out'
const PING = icmp(8, 0, 7, counting(40))
const { good, flush: clean } = operator(s)
const fate = (frame: Uint8Array): string => {
  const f = s.account(() => s.send(0, frame))
  return Object.keys(f.drops)[0] ?? (f.delivered === 1 ? 'delivered' : 'forwarded')
}
/** Seconds go by, in steps that timers do not mind. */
const seconds = (n: number): void => {
  for (let k = 0; k < n * 100; k++) {
    clock.ns += 10e6
    s.solo.step(clock.ns)
    s.pass(0.1)
  }
}

// ---- NETLINK_XFRM ---------------------------------------------------------------------------------------------------

const NETLINK_XFRM = 6
const [NEWSA, GETPOLICY, ALLOCSPI, ACQUIRE, EXPIRE, UPDSA, POLEXPIRE] = [0x10, 0x15, 0x16, 0x17, 0x18, 0x1a, 0x1b]
const [GROUP_ACQUIRE, GROUP_EXPIRE] = [1, 2]
const MSG_DONTWAIT = 0x40
const zeros = (n: number): number[] => new Array<number>(n).fill(0)

/** A key manager: it keeps what it hears until it is asked. */
class Listener {
  private heard: Message[] = []
  private readonly stop = { now: false }
  private readonly program: Running<number>
  constructor(groups: number) {
    const { stop } = this
    const keep = (m: Message[]): void => void this.heard.push(...m)
    this.program = start(function* () {
      const nl = yield* rtnl_open(groups, NETLINK_XFRM)
      if (typeof nl === 'number') return nl
      while (!stop.now) {
        const m = yield* receive(nl, MSG_DONTWAIT)
        if (typeof m !== 'number') keep(m)
        else yield* nanosleep(1)
      }
      return yield* rtnl_close(nl)
    })
    s.pass(1)
  }
  take(): Message[] {
    s.pass(3)
    return this.heard.splice(0)
  }
  /** [type, SPI or index, hard] of what was heard of limits. */
  limits(): [string, number, number][] {
    return this.take().map(({ type, body }) =>
      type === EXPIRE
        ? ['state', getAddr(body, 72) >>> 0, body[220]!]
        : [type === POLEXPIRE ? 'policy' : `message ${type}`, get32(body, 156), body[164]!],
    )
  }
  close(): void {
    this.stop.now = true
    expect(finish(s, this.program)).toBe(0)
  }
}

/** What a program hears that sends a datagram. */
const send = (dport: number, to = PEER): number =>
  run(s, function* () {
    const fd = yield* socket(2, 2, 0)
    yield* bind(fd, sockaddr_in(malloc(16), HERE, 1234), 16)
    const n = yield* sendto(fd, malloc(8), 8, 0, sockaddr_in(malloc(16), to, dport), 16)
    yield* close(fd)
    return n
  })
const talk = (type: number, body: number[]): Message | number =>
  run(s, function* () {
    const nl = yield* rtnl_open(0, NETLINK_XFRM)
    if (typeof nl === 'number') return nl
    const answer = yield* rtnl_talk(nl, type, 4, body)
    yield* rtnl_close(nl)
    return answer
  })

interface Wanted {
  src: number
  dst: number
  spi?: number
  proto?: number
  mode?: number
  reqid?: number
  seq?: number
}
/** struct xfrm_usersa_info, without limits. */
function usersa(w: Wanted): number[] {
  const sel = [...zeros(40), ...u16(2), ...zeros(14)]
  const id = [...addr(w.dst), ...zeros(12), ...addr(w.spi ?? 0), w.proto ?? 50, 0, 0, 0]
  const limits = [...new Array<number>(32).fill(255), ...zeros(32)]
  const rest = [...u32(w.seq ?? 0), ...u32(w.reqid ?? 0), ...u16(2), w.mode ?? 0, 0, 0, 0, 0, 0]
  return [...sel, ...id, ...addr(w.src), ...zeros(12), ...limits, ...zeros(32 + 12), ...rest]
}
const null_key = (): number[] => {
  const name = (text: string): number[] => [...Buffer.from(text.padEnd(64, '\0'))]
  return [...attr(1, [...name('sha1'), ...u32(160), ...AUTH]), ...attr(2, [...name('cipher_null'), ...u32(0)])]
}
/** ALLOCSPI: the SPI, or an errno. */
function allocspi(w: Wanted, min: number, max: number): number {
  const answer = talk(ALLOCSPI, [...usersa(w), ...u32(min), ...u32(max)])
  if (typeof answer === 'number') return answer
  expect(answer.type).toBe(NEWSA)
  return getAddr(answer.body, 72)
}
const newsa = (w: Wanted, type = NEWSA): Message | number => talk(type, [...usersa(w), ...null_key()])
const states = (): number =>
  ip(s, 'xfrm state list')[1]
    .split('\n')
    .filter(line => line.startsWith('src')).length

describe('a state is to be negotiated', () => {
  const policy = `xfrm policy add ${POLICY_OUT} proto udp priority 9 tmpl proto esp reqid 5`

  test('nobody listens: there is nobody to wait for', () => {
    good(policy)
    expect(send(9)).toBe(-ESRCH)
    expect(states()).toBe(0)
    clean()
  })

  test('the key manager hears once what for; when it has negotiated, packets go', () => {
    const km = new Listener(GROUP_ACQUIRE | GROUP_EXPIRE)
    good(policy)
    expect([send(9), send(9), send(10)]).toEqual([-EAGAIN, -EAGAIN, -EAGAIN])
    const [said, ...more] = km.take()
    expect(more).toEqual([])
    expect([said!.type, said!.seq, said!.pid]).toEqual([ACQUIRE, 0, 0])
    const { body } = said!
    // struct xfrm_user_acquire: id, saddr, sel, policy, the algorithms that may be, seq
    expect([getAddr(body), getAddr(body, 16), body[20], getAddr(body, 24)]).toEqual([PEER, 0, 50, HERE])
    expect([getAddr(body, 40), getAddr(body, 56)]).toEqual([PEER, HERE])
    const port = (at: number): number => body[at]! * 256 + body[at + 1]!
    expect([port(72), port(74), port(76), port(78)]).toEqual([9, 0xffff, 1234, 0xffff])
    expect([get16(body, 80), body[82], body[83], body[84]]).toEqual([2, 32, 32, 17])
    expect([get32(body, 96 + 152), body[96 + 160]]).toEqual([9, 1]) // the policy: priority, direction
    expect([get32(body, 260), get32(body, 264), get32(body, 268)]).toEqual([-1, -1, -1])
    const seq = get32(body, 272)
    expect(seq).toBeGreaterThan(0)
    const tmpl = attrs(body, 276).get(5)!
    expect([tmpl.length, tmpl[20], get32(tmpl, 44)]).toEqual([64, 50, 5])

    expect(states()).toBe(1)
    expect(newsa({ src: HERE, dst: PEER, spi: 0x200, reqid: 5, seq })).toBe(0)
    expect(states()).toBe(1) // the one that was waited for has gone
    expect(send(9)).toBe(8)
    expect(s.out()[0]!.map(f => parse(f).protocol)).toEqual([50])
    seconds(33) // nor does its timer do anything
    expect([states(), km.take()]).toEqual([1, []])
    clean()
    km.close()
  })

  test('a state that is not quite what was asked for, but of its number, answers it as well', () => {
    const km = new Listener(GROUP_ACQUIRE)
    good(policy)
    expect(send(9)).toBe(-EAGAIN)
    const seq = get32(km.take()[0]!.body, 272)
    expect(newsa({ src: HERE, dst: PEER, spi: 0x200, reqid: 6, seq: seq + 1 })).toBe(0)
    expect(states()).toBe(2)
    expect(newsa({ src: HERE, dst: PEER, spi: 0x201, reqid: 6, seq })).toBe(0)
    expect(states()).toBe(2)
    expect([send(9), km.take().length]).toEqual([-EAGAIN, 1]) // of number 5 there is none still
    clean()
    km.close()
  })

  test('nobody answers: for 30 s it is waited for, then who sends hears of it, then all begins anew', () => {
    const km = new Listener(GROUP_ACQUIRE | GROUP_EXPIRE)
    good(policy)
    expect([send(9), km.take().map(m => m.type)]).toEqual([-EAGAIN, [ACQUIRE]])
    seconds(29)
    expect([send(9), km.take()]).toEqual([-EAGAIN, []])
    seconds(2)
    expect([send(9), km.take(), states()]).toEqual([-ESRCH, [], 1]) // without an SPI nobody is told that it ends
    seconds(2)
    expect([states(), km.take()]).toEqual([0, []])
    expect([send(9), km.take().map(m => m.type)]).toEqual([-EAGAIN, [ACQUIRE]])
    clean()
    km.close()
  })

  test('what is forwarded is dropped until it is there', () => {
    const km = new Listener(GROUP_ACQUIRE)
    good('xfrm policy add dst 10.0.0.2 dir out tmpl src 10.0.0.1 dst 10.0.0.3 proto esp mode tunnel')
    const packet = udpFrame({ src: '10.0.1.2', dst: '10.0.0.2', to: '02:00:00:00:00:02' })
    const f = s.account(() => s.send(1, packet, packet))
    expect(f).toMatchObject({ received: 2, forwarded: 0 })
    const [said, ...more] = km.take()
    expect([more, getAddr(said!.body), getAddr(said!.body, 24)]).toEqual([[], address('10.0.0.3'), HERE])
    expect(getAddr(said!.body, 40)).toBe(PEER) // for the flow, by the tunnel
    clean()
    km.close()
  })
})

describe('an SPI is promised', () => {
  const wanted: Wanted = { src: PEER, dst: HERE, reqid: 5 }

  test('of a range, or one; the same again to who asks again', () => {
    const spi = allocspi(wanted, 0x1000, 0x10ff)
    expect([spi >= 0x1000, spi <= 0x10ff]).toEqual([true, true])
    expect(allocspi(wanted, 0x2000, 0x2000)).toBe(spi)
    expect(states()).toBe(1)
    expect(allocspi({ ...wanted, reqid: 6 }, 0x3000, 0x3000)).toBe(0x3000)
    expect(allocspi({ ...wanted, reqid: 7 }, 0x3000, 0x3000)).toBe(-ENOENT)
    expect(allocspi({ ...wanted, reqid: 7, proto: 51 }, 0x3000, 0x3000)).toBe(0x3000) // AH has its own
    clean()
  })
  test('a range is used to its last number', () => {
    const range = Array.from({ length: 24 }, (_, k) => 0x500 + k)
    for (const dst of [1, 2, 3, 4]) {
      const all = range.map((_, k) => allocspi({ ...wanted, dst, reqid: k + 1 }, 0x500, 0x517))
      expect(all).not.toEqual(range) // nobody can tell what comes next
      expect(all.toSorted((a, b) => a - b)).toEqual(range)
      expect(allocspi({ ...wanted, dst, reqid: 99 }, 0x500, 0x517)).toBe(-ENOENT)
    }
    clean()
  })
  test('what makes no sense', () => {
    expect(allocspi(wanted, 0x1001, 0x1000)).toBe(-EINVAL)
    expect(allocspi({ ...wanted, proto: 4 }, 0x1000, 0x1000)).toBe(-EINVAL)
    expect(allocspi({ ...wanted, proto: 108 }, 0x1000, 0x10000)).toBe(-EINVAL) // a CPI has 16 bits
    expect(allocspi(wanted, 0, 0)).toBe(-ENOENT) // no SPI is 0
    clean()
  })
  test('packets that come by it are early; it is made whole by an update, not by another state', () => {
    const spi = allocspi(wanted, 0x1000, 0x1000)
    const a: Association = { src: '10.0.0.2', dst: '10.0.0.1', spi, auth: AUTH }
    expect(fate(espFrame(a, 1, PING, 1))).toBe('xfrm_state_invalid')
    expect(newsa({ ...wanted, spi })).toBe(-EEXIST)
    expect(newsa({ ...wanted, spi: 0x1001 }, UPDSA)).toBe(-ESRCH)
    expect(newsa({ ...wanted, spi }, UPDSA)).toBe(0)
    expect(states()).toBe(1)
    expect(fate(espFrame(a, 1, PING, 1))).toBe('delivered')
    clean()
  })
  test('a promise holds for 30 s, and its end is told', () => {
    const km = new Listener(GROUP_EXPIRE)
    expect(allocspi(wanted, 0x1000, 0x1000)).toBe(0x1000)
    seconds(29)
    expect([km.limits(), states()]).toEqual([[], 1])
    seconds(2)
    expect([km.limits(), states()]).toEqual([[['state', 0x1000, 1]], 0])
    km.close()
  })
  test('for what is waited for, by its number: the larval state gets the SPI', () => {
    const km = new Listener(GROUP_ACQUIRE)
    good(`xfrm policy add ${POLICY_OUT} tmpl proto esp reqid 5`)
    expect(send(9)).toBe(-EAGAIN)
    const seq = get32(km.take()[0]!.body, 272)
    expect(allocspi({ src: HERE, dst: PEER, reqid: 77, seq }, 0x900, 0x900)).toBe(0x900)
    expect(states()).toBe(1)
    expect(allocspi({ src: HERE, dst: HERE, reqid: 77, seq }, 0x900, 0x900)).toBe(0x900) // to another address: another
    expect(states()).toBe(2)
    clean()
    km.close()
  })
})

describe('limits of states are told', () => {
  const frame = (seq: number): string => fate(espFrame(IN, seq, PING, 1))

  test('of packets and of bytes: the soft one once, the hard one with the end', () => {
    const km = new Listener(GROUP_EXPIRE)
    good(state(IN, 'replay-window 32 limit packet-soft 2 limit packet-hard 3'))
    expect([frame(1), frame(2), km.limits()]).toEqual(['delivered', 'delivered', []])
    expect([frame(3), km.limits()]).toEqual(['delivered', [['state', 0x100, 0]]])
    expect(frame(3)).toBe('xfrm_replay') // does not count
    expect([km.limits(), states()]).toEqual([[], 1])
    expect([frame(4), km.limits(), states()]).toEqual(['xfrm_state_invalid', [['state', 0x100, 1]], 0])
    expect([frame(5), km.limits()]).toEqual(['xfrm_no_state', []])
    // Bytes are those of what was inside.
    good(state(IN, `limit byte-soft ${PING.length} limit byte-hard ${2 * PING.length}`))
    expect([frame(1), km.limits()]).toEqual(['delivered', []])
    expect(frame(2)).toBe('delivered')
    const [soft] = km.take()
    expect([soft!.body[220], get32(soft!.body, 160)]).toEqual([0, PING.length])
    expect([frame(3), km.limits()]).toEqual(['xfrm_state_invalid', [['state', 0x100, 1]]])
    km.close()
  })

  test('of packets that go out: with the message is what the state was and has done', () => {
    const km = new Listener(GROUP_EXPIRE)
    good(state(OUT, 'reqid 5 limit packet-soft 1 limit packet-hard 2'))
    good(`xfrm policy add ${POLICY_OUT} tmpl proto esp reqid 5`)
    expect([send(9), km.take()]).toEqual([8, []])
    const [{ length }] = s.out()[0]! as [Uint8Array]
    expect(send(9)).toBe(8)
    const [{ body }] = km.take() as [Message]
    expect([getAddr(body, 56), getAddr(body, 72), body[76], getAddr(body, 80)]).toEqual([PEER, 0x200, 50, HERE])
    expect([get32(body, 96 + 16), get32(body, 96 + 24)]).toEqual([1, 2]) // limits of packets
    expect([get32(body, 160), get32(body, 168)]).toEqual([length - 14, 1]) // bytes, packets
    expect([get32(body, 208), body.length]).toEqual([5, 224])
    s.out()
    expect(send(9)).toBe(-EINVAL)
    expect([km.limits(), s.out()[0], states()]).toEqual([[['state', 0x200, 1]], [], 0])
    clean()
    km.close()
  })

  test('of time since it was added, and since it was used', () => {
    const km = new Listener(GROUP_EXPIRE)
    good(state(IN, 'limit time-soft 3 limit time-hard 5'))
    good(state({ ...IN, spi: 0x101 }, 'limit time-use-soft 2 limit time-use-hard 4'))
    seconds(2)
    expect(km.limits()).toEqual([])
    seconds(2)
    expect(km.limits()).toEqual([['state', 0x100, 0]])
    seconds(3)
    expect(km.limits()).toEqual([['state', 0x100, 1]]) // the soft one is not told again
    expect(fate(espFrame({ ...IN, spi: 0x101 }, 1, PING, 1))).toBe('delivered')
    expect(km.limits()).toEqual([])
    // The timer that was set for a state that nobody used looks again at its soft limit, counted from that look on.
    seconds(4)
    expect(km.limits()).toEqual([
      ['state', 0x101, 0],
      ['state', 0x101, 1],
    ])
    expect(states()).toBe(0)
    km.close()
  })

  test('of packets, and of time afterwards: one warning is enough', () => {
    const km = new Listener(GROUP_EXPIRE)
    good(state(IN, 'limit packet-soft 1 limit time-soft 3 limit time-hard 60'))
    seconds(2) // its timer has looked, and waits for the soft limit
    expect([frame(1), frame(2), km.limits()]).toEqual(['delivered', 'delivered', [['state', 0x100, 0]]])
    seconds(6)
    expect([km.limits(), states()]).toEqual([[], 1])
    clean()
    km.close()
  })

  test('a packet that was seen before does not begin the time of use', () => {
    good(state(IN, 'replay-window 32 limit time-use-hard 2'))
    expect(fate(espFrame(IN, 0, PING, 1))).toBe('xfrm_replay')
    seconds(5)
    expect(frame(1)).toBe('delivered')
    seconds(5)
    expect(frame(2)).toBe('xfrm_no_state')
  })

  test('new limits for a state that is there: also its soft one is told again', () => {
    const km = new Listener(GROUP_EXPIRE)
    const update = (more: string): void => good(state(IN, more).replace('add', 'update'))
    good(state(IN, 'limit packet-soft 1'))
    expect([frame(1), frame(2), frame(3), km.limits()]).toEqual([
      ...['delivered', 'delivered', 'delivered'],
      [['state', 0x100, 0]],
    ])
    update('limit packet-soft 4')
    expect([km.limits(), states()]).toEqual([[], 1])
    expect([frame(4), km.limits()]).toEqual(['delivered', []])
    expect([frame(5), km.limits()]).toEqual(['delivered', [['state', 0x100, 0]]])
    update('limit packet-hard 5') // it has that behind it
    expect([km.limits(), states()]).toEqual([[['state', 0x100, 1]], 0])
    good(state(IN))
    seconds(2) // no limit, no timer
    update('limit time-hard 4')
    seconds(3)
    expect([km.limits(), states()]).toEqual([[['state', 0x100, 1]], 0])
    km.close()
  })
})

describe('limits of policies are told', () => {
  /** The index of the only policy. */
  const index = (): number =>
    run(s, function* () {
      const nl = yield* rtnl_open(0, NETLINK_XFRM)
      const all = typeof nl === 'number' ? nl : yield* rtnl_dump(nl, GETPOLICY, zeros(64))
      if (typeof nl !== 'number') yield* rtnl_close(nl)
      return typeof all === 'number' ? all : all.length === 0 ? NONE : get32(all[0]!.body, 156)
    })
  const NONE = -1

  test('the soft one each 30 s, the hard one with the end', () => {
    const km = new Listener(GROUP_EXPIRE)
    good(`xfrm policy add ${POLICY_OUT} limit time-soft 2 limit time-hard 40`)
    const p = index()
    seconds(1)
    expect(km.limits()).toEqual([])
    seconds(2)
    expect(km.limits()).toEqual([['policy', p, 0]])
    seconds(28)
    expect(km.limits()).toEqual([])
    seconds(3)
    expect(km.limits()).toEqual([['policy', p, 0]])
    expect(ip(s, 'xfrm policy list')[1]).not.toBe('')
    seconds(8)
    expect([km.limits(), ip(s, 'xfrm policy list')[1]]).toEqual([[['policy', p, 1]], ''])
    km.close()
  })

  test('of idleness: a packet begins it anew; what nobody uses is as old as it is', () => {
    const km = new Listener(GROUP_EXPIRE)
    good(`xfrm policy add ${POLICY_OUT} limit time-use-hard 4`)
    const used = index()
    for (let k = 0; k < 3; k++) {
      seconds(3)
      expect(send(9)).toBe(8)
    }
    expect(km.limits()).toEqual([])
    seconds(6)
    expect([km.limits(), index()]).toEqual([[['policy', used, 1]], NONE])
    good(`xfrm policy add ${POLICY_OUT} limit time-use-hard 4`)
    const idle = index()
    seconds(6)
    expect([km.limits(), index()]).toEqual([[['policy', idle, 1]], NONE])
    s.out()
    km.close()
  })

  test('the later of two soft limits is told of in time, the message has the templates', () => {
    const km = new Listener(GROUP_EXPIRE)
    good(`xfrm policy add ${POLICY_OUT} limit time-soft 2 limit time-use-soft 6 tmpl proto esp reqid 5`)
    seconds(3)
    expect(km.take().length).toBe(1)
    seconds(4)
    const [{ type, body }] = km.take() as [Message]
    expect([type, getAddr(body), getAddr(body, 16), body[160]]).toEqual([POLEXPIRE, PEER, HERE, 1])
    const tmpl = attrs(body, 168).get(5)!
    expect([tmpl.length, get32(tmpl, 44)]).toEqual([64, 5])
    clean()
    km.close()
  })
})

describe('AH in tunnel mode', () => {
  const key = `auth sha1 0x${AUTH.toString('hex')}`
  const [out, back]: Association[] = [
    { src: '10.0.0.1', dst: '10.0.0.3', spi: 0x400, auth: AUTH },
    { src: '10.0.0.3', dst: '10.0.0.1', spi: 0x401, auth: AUTH },
  ] as [Association, Association]
  const to = '02:00:00:00:00:02'
  const packet = (o: { src: string; dst: string; tos?: number }): Uint8Array => {
    const frame = udpFrame(o, counting(40))
    return frame.subarray(14, 14 + frame[16]! * 256 + frame[17]!)
  }
  const lay = (more = ''): void => {
    for (const a of [out, back])
      good(`xfrm state add src ${a.src} dst ${a.dst} proto ah spi ${a.spi} mode tunnel replay-window 32 ${more} ${key}`)
    good('xfrm policy add dst 10.9.0.0/16 dir out tmpl src 10.0.0.1 dst 10.0.0.3 proto ah mode tunnel')
    good('xfrm policy add src 10.9.0.0/16 dir fwd tmpl src 10.0.0.3 dst 10.0.0.1 proto ah mode tunnel')
    good('route add 10.9.0.0/16 via 10.0.0.2')
  }
  const raze = (): void => {
    good('route del 10.9.0.0/16')
    clean()
  }

  test('what is forwarded goes in as a whole, under a digest that the peer gets as well', () => {
    lay()
    for (let seq = 1; seq <= 2; seq++) {
      const [frame] = s.send(1, udpFrame({ src: '10.0.1.2', dst: '10.9.0.9', to, tos: 0x1b }, counting(40)))[0]!
      const outer = parse(frame!)
      expect(outer).toMatchObject({ src: '10.0.0.1', dst: '10.0.0.3', protocol: 51, tos: 0x1a, ttl: 64 })
      expect(outer.ipChecksumGood).toBe(true)
      const inner = ahUnwrap(out, frame!)
      expect([inner.seq, inner.next]).toEqual([seq, 4])
      expect(parse(Uint8Array.from([...zeros(14), ...inner.payload]))).toMatchObject({
        ...{ src: '10.0.1.2', dst: '10.9.0.9', ttl: 63, tos: 0x1b, ipChecksumGood: true },
      })
    }
    const df = (len: number): Uint8Array => udpFrame({ src: '10.0.1.2', dst: '10.9.0.9', df: true, to }, counting(len))
    const around = 20 + 24
    const error = parse(s.send(1, df(1500 - around - 28 + 1))[1]![0]!)
    expect(error.icmp).toMatchObject({ type: 3, code: 4, info: 1500 - around })
    const [fits] = s.send(1, df(1500 - around - 28))[0]!
    expect([parse(fits!).df, fits!.length]).toEqual([true, 1514])
    ahUnwrap(out, fits!)
    raze()
  })

  test('what comes out is forwarded, if it has come whole and by its policy', () => {
    lay()
    const inner = packet({ src: '10.9.0.9', dst: '10.0.1.2' })
    const [forwarded] = s.send(0, ahFrame(back, 1, inner, 4))[1]!
    expect(parse(forwarded!)).toMatchObject({ src: '10.9.0.9', dst: '10.0.1.2', ttl: 63, ipChecksumGood: true })
    expect(fate(ahFrame(back, 1, inner, 4))).toBe('xfrm_replay')
    const sound = ahFrame(back, 2, inner, 4)
    // Everything of the packet inside is covered, also what routers change outside.
    for (const at of [1, 8, 12, 20, inner.length - 1]) {
      const bad = Uint8Array.from(sound)
      bad[14 + 44 + at]! ^= 1
      expect(fate(bad)).toBe('xfrm_integrity')
    }
    expect(fate(ahFrame(back, 2, inner, 17))).toBe('xfrm_mode')
    expect(fate(ahFrame(back, 3, packet({ src: '10.8.0.9', dst: '10.0.1.2' }), 4))).toBe('xfrm_policy') // nobody asked for that
    expect(fate(ahFrame(back, 4, inner, 4))).toBe('forwarded')
    raze()
  })

  test.each([
    ['moves in', '', 0x1b],
    ['stays out: noecn', 'flag noecn', 0x1a],
  ])('congestion that the way has seen %s', (_what, more, tos) => {
    lay(more)
    const frame = ahFrame(back, 1, packet({ src: '10.9.0.9', dst: '10.0.1.2', tos: 0x1a }), 4)
    frame[15] = 0x1b // TOS is not covered; the IP checksum is a sum of 16 bits
    const sum = frame[14 + 10]! * 256 + frame[14 + 11]! - 0x1b
    frame.set([sum >> 8, sum & 255], 14 + 10)
    const [forwarded] = s.send(0, frame)[1]!
    expect(parse(forwarded!)).toMatchObject({ tos, ipChecksumGood: true })
    raze()
  })
})

describe('modules', () => {
  const unload = (name: string): number => runTask(s, () => delete_module(name))
  const loaded = (name: string): boolean => modules_loaded().includes(name)
  const asks = (protocol: number): Uint8Array => ipFrame(counting(40), { src: '10.0.0.2', dst: '10.0.0.1', protocol })
  const ah = `xfrm state add src 10.0.0.2 dst 10.0.0.1 proto ah spi 0x300 auth sha1 0x${AUTH.toString('hex')}`

  test.each([
    ['esp4', 50, state(IN)],
    ['ah4', 51, ah],
  ])('%s stays while there is a state of it', (name, protocol, add) => {
    good(add)
    expect([loaded(name), unload(name)]).toEqual([true, -EAGAIN])
    clean()
    expect([unload(name), loaded(name), unload(name)]).toEqual([0, false, -ENOENT])
    const [back] = s.send(0, asks(protocol))[0]!
    expect(parse(back!).icmp).toMatchObject({ type: 3, code: 2 }) // protocol unreachable
    good(add)
    expect(loaded(name)).toBe(true)
    expect(fate(asks(protocol))).toMatch(/^xfrm_/)
    if (protocol === 50) expect(fate(espFrame(IN, 1, PING, 1))).toBe('delivered')
    else expect(fate(ahFrame({ ...IN, spi: 0x300 }, 1, PING, 1))).toBe('delivered')
    s.out()
    clean()
  })

  test('a state that is refused does not hold its module', () => {
    const [code] = ip(s, 'xfrm state add src 10.0.0.2 dst 10.0.0.1 proto esp spi 2 auth sha1 0x0011')
    expect([code, loaded('esp4'), unload('esp4')]).toEqual([2, true, 0])
    good(state(IN))
    expect(ip(s, state(IN))[0]).toBe(2) // there is one
    clean()
    expect(unload('esp4')).toBe(0)
  })

  test('a state that a bundle was made of goes all the same', () => {
    good(state(OUT))
    good(`xfrm policy add ${POLICY_OUT} tmpl proto esp`)
    expect(send(9)).toBe(8)
    s.out()
    good('xfrm state del src 10.0.0.1 dst 10.0.0.2 proto esp spi 0x200')
    s.pass(5)
    expect(unload('esp4')).toBe(0)
    clean()
  })

  test('also one that is not the first of its bundle, and ends by itself', () => {
    good(state(OUT))
    const tunnel = `mode tunnel limit time-hard 3 auth sha1 0x${AUTH.toString('hex')}`
    good(`xfrm state add src 10.0.0.1 dst 10.0.0.3 proto ah spi 0x201 ${tunnel}`)
    good(`xfrm policy add ${POLICY_OUT} tmpl proto esp tmpl src 10.0.0.1 dst 10.0.0.3 proto ah mode tunnel`)
    expect(send(9)).toBe(8)
    expect(s.out()[0]!.map(f => parse(f).dst)).toEqual(['10.0.0.3'])
    expect(unload('ah4')).toBe(-EAGAIN)
    seconds(5)
    expect([unload('ah4'), states()]).toEqual([0, 1])
    clean()
  })

  test('a packet that has come through a state holds it, and that its module, until it is read', () => {
    const stop = { now: false }
    const server = start(function* () {
      const fd = yield* socket(2, 2, 0)
      yield* bind(fd, sockaddr_in(malloc(16), HERE, 77), 16)
      while (!stop.now) yield* nanosleep(1)
      const n = yield* recv(fd, malloc(64), 64, 0)
      yield* close(fd)
      return n
    })
    s.pass(1)
    good(state(IN))
    const datagram = udp({ src: IN.src, dst: IN.dst, dport: 77 }, counting(10))
    expect(fate(espFrame(IN, 1, datagram, 17))).toBe('delivered')
    clean()
    expect([states(), unload('esp4')]).toEqual([0, -EAGAIN])
    stop.now = true
    expect([finish(s, server), unload('esp4')]).toEqual([10, 0])
  })

  test('xfrm_user: states and policies stay, limits end them though nobody can be told', () => {
    good(state(IN, 'limit packet-hard 1'))
    good(state({ ...IN, spi: 0x101 }))
    good(`xfrm policy add ${POLICY_OUT} tmpl proto esp reqid 5`)
    expect([unload('xfrm_user'), loaded('xfrm_user')]).toEqual([0, false])
    expect(send(9)).toBe(-ESRCH) // nobody negotiates
    expect(fate(espFrame({ ...IN, spi: 0x101 }, 1, PING, 1))).toBe('delivered')
    expect([1, 2].map(seq => fate(espFrame(IN, seq, PING, 1)))).toEqual(['delivered', 'xfrm_state_invalid'])
    s.pass(2)
    expect(fate(espFrame(IN, 3, PING, 1))).toBe('xfrm_no_state')
    expect(states()).toBe(1) // to look loads it again
    expect(loaded('xfrm_user')).toBe(true)
    clean()
    s.out()
  })
})

test('in the end nothing is left', () => {
  good(state(IN, 'limit time-hard 9'))
  good(`xfrm policy add ${POLICY_OUT} limit time-hard 9 tmpl proto esp`)
  expect(allocspi({ src: PEER, dst: HERE, reqid: 5 }, 7, 7)).toBe(7)
  expect(s.solo.audit()).toEqual([])
  expect(conserved(s.fates())).toBe(true)
})
