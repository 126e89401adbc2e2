/** IPComp: what becomes shorter is compressed, everything else goes as it is; the peer is the zlib of Node, and tshark reads along. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { deflateRawSync } from 'node:zlib'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { EAGAIN } from '../../../src/lib/errno.js'
import { prng_below, prng_seed } from '../../../src/lib/prng.js'
import { alloc_skb, consume_skb } from '../../../src/net/core/skbuff.js'
import type { sk_buff } from '../../../src/net/core/types.js'
import { icmp_statistics } from '../../../src/net/ipv4/icmp.js'
import { xfrm_state_all, xfrm_state_put } from '../../../src/net/xfrm/xfrm_state.js'
import { delete_module, modules_loaded } from '../../../src/sched/module.js'
import { pcapOf } from '../../helpers/captures.js'
import { counting, fragments, icmp, icmpFrame, ipFrame, parse, udpFrame } from '../../helpers/frames.js'
import {
  type Association,
  ahFrame,
  espFrame,
  ip,
  ipcomp,
  ipcompFrame,
  operator,
  ROUTER_OF_IPSEC,
  state,
  uncomp,
  unwrap,
} from '../../helpers/ipsec.js'
import { runTask } from '../../helpers/iptables.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip as address } from '../../helpers/solo.js'
import { complaints, dissected, hasTshark } from '../../helpers/tshark.js'

const s = new Script(ROUTER_OF_IPSEC)
const dir = mkdtempSync(join(tmpdir(), 'softnet-ipcomp-'))
afterAll(() => rmSync(dir, { recursive: true }))

const IN: Association = { src: '10.0.0.2', dst: '10.0.0.1', spi: 0x100 }
const OUT: Association = { src: '10.0.0.1', dst: '10.0.0.2', spi: 0x200 }
const { good, refused, flush } = operator(s)
const clean = (): void => {
  flush()
  s.pass(1) // states with a tunnel end in a work
  expect(states()).toEqual([])
}
/** [protocol, SPI] of each state. */
const states = (): [proto: number, spi: number][] =>
  xfrm_state_all().map(x => {
    const { proto, spi } = x
    xfrm_state_put(x)
    return [proto, spi]
  })
const comp = (a: Association, more = '', command = 'add'): string =>
  `xfrm state ${command} src ${a.src} dst ${a.dst} proto comp spi ${a.spi} comp deflate ${more}`
beforeEach(clean)
/** Every frame that came out of eth0, for tshark. */
const sent: Uint8Array[] = []
const send = (port: number, ...frames: Uint8Array[]): Uint8Array[][] => {
  const out = s.send(port, ...frames)
  sent.push(...out[0]!)
  return out
}
const fate = (frame: Uint8Array, port = 0): string => {
  const f = s.account(() => send(port, frame))
  expect(f.received).toBe(1)
  return Object.keys(f.drops)[0] ?? (f.delivered === 1 ? 'delivered' : 'forwarded')
}
const prng = new Int32Array(4)
prng_seed(prng, 11)
const noise = (n: number): Uint8Array => Uint8Array.from({ length: n }, () => prng_below(prng, 256))
const zlib = (data: Uint8Array): number => deflateRawSync(data, { windowBits: 11, memLevel: 8 }).length
/** Bytes that repeat soon. */
const words = (n: number): Uint8Array => counting(n).map(k => k % 20)
const echo = (data: Uint8Array): Uint8Array => icmp(8, 0, 7, data)
const answer = (data: Uint8Array): Buffer => Buffer.from(icmp(0, 0, 7, data))
const raw = (payload: Uint8Array, protocol: number): Uint8Array =>
  ipFrame(payload, { src: IN.src, dst: IN.dst, protocol })

describe('transport mode', () => {
  const lay = (level = 'level use'): void => {
    good(comp(IN, 'reqid 5'))
    good(comp(OUT, 'reqid 5'))
    good('xfrm policy add src 10.0.0.1 dst 10.0.0.2 dir out tmpl proto comp reqid 5')
    good(`xfrm policy add src 10.0.0.2 dst 10.0.0.1 dir in tmpl proto comp reqid 5 ${level}`)
  }
  /** What the answer to a ping with these data is like. */
  const pinged = (data: Uint8Array): ReturnType<typeof parse> => {
    const all = fragments(echo(data), { src: IN.src, dst: IN.dst, protocol: 1, id: 77 }, 1500)
    const back = send(0, ...all)[0]!
    expect(back.length).toBe(1)
    return parse(back[0]!)
  }

  test.each([90, 400, 1400])('a ping with %i bytes, and its answer', len => {
    lay()
    const data = words(len)
    const [back] = send(0, ipcompFrame(IN, echo(data), 1))[0]!
    const p = parse(back!)
    expect(p).toMatchObject({ protocol: 108, ipChecksumGood: true, src: OUT.src, dst: OUT.dst })
    expect(uncomp(p.payload)).toEqual({ cpi: 0x200, flags: 0, next: 1, payload: answer(data) })
    expect(p.payload.length).toBe(4 + zlib(answer(data)))
  })

  test('below 90 bytes nobody tries', () => {
    lay()
    const zeros = (n: number): Uint8Array => new Uint8Array(n - 8)
    expect(pinged(zeros(89)).protocol).toBe(1)
    expect(pinged(zeros(90)).protocol).toBe(108)
  })

  test('what does not become shorter with its header goes as it is: to the byte', () => {
    lay()
    /** Data whose answer becomes shorter by so many bytes, without the header. */
    const shorter = (by: number): Uint8Array => {
      for (let zeros = 5; zeros < 40; zeros++) {
        const data = noise(80 + zeros).fill(0, 80)
        if (answer(data).length - zlib(answer(data)) === by) return data
      }
      throw new Error('there are none')
    }
    const [same, less] = [shorter(4), shorter(5)]
    expect(pinged(same).protocol).toBe(1)
    const p = pinged(less)
    expect([p.protocol, p.payload.length]).toEqual([108, answer(less).length - 1])
    expect(uncomp(p.payload).payload).toEqual(answer(less))
    expect(pinged(noise(1400)).protocol).toBe(1)
  })

  test('what repeats beyond 2 KiB is not seen: peers need not remember more', () => {
    lay()
    const once = noise(2500)
    const all = fragments(echo(Uint8Array.from([...once, ...once])), { src: IN.src, dst: IN.dst, protocol: 1 }, 1500)
    const back = send(0, ...all)[0]!
    expect(back.map(f => parse(f).protocol)).toEqual([1, 1, 1, 1])
    const near = noise(1200)
    const p = pinged(Uint8Array.from([...near, ...new Uint8Array(500), ...near.subarray(0, 500)]))
    expect([p.protocol, p.payload.length < 1300]).toEqual([108, true])
  })

  test('compressed before it is cut: a ping of 60,000 bytes is answered in one frame', () => {
    lay()
    const p = pinged(new Uint8Array(60_000))
    expect([p.protocol, p.mf, p.ipChecksumGood]).toEqual([108, false, true])
    expect(uncomp(p.payload).payload).toEqual(answer(new Uint8Array(60_000)))
  })

  test('the policy says whether what comes must have been compressed', () => {
    lay()
    expect(fate(icmpFrame({ src: IN.src, dst: IN.dst }, 8))).toBe('delivered')
    clean()
    lay('level required')
    expect(fate(icmpFrame({ src: IN.src, dst: IN.dst }, 8))).toBe('xfrm_policy')
    expect(fate(ipcompFrame(IN, echo(counting(400)), 1))).toBe('delivered')
  })

  test('a state that is not there: what may go without it does', () => {
    good('xfrm policy add src 10.0.0.1 dst 10.0.0.2 dir out tmpl proto comp level use')
    expect(pinged(new Uint8Array(400)).protocol).toBe(1)
    good('xfrm policy update src 10.0.0.1 dst 10.0.0.2 dir out tmpl proto comp')
    expect(send(0, icmpFrame({ src: IN.src, dst: IN.dst }, 8))[0]).toEqual([])
    good(comp(OUT))
    expect(pinged(new Uint8Array(400)).protocol).toBe(108)
  })

  test('IP options stay in front', () => {
    lay()
    const options = [7, 7, 4, 0, 0, 0, 0]
    const frame = ipFrame(ipcomp(IN.spi, echo(counting(400)), 1), { ...IN, protocol: 108, options })
    const p = parse(send(0, frame)[0]![0]!) // the answer records its route as well
    expect([p.protocol, p.options.slice(0, 3), p.ipChecksumGood]).toEqual([108, [7, 7, 8], true])
    expect(uncomp(p.payload).payload).toEqual(answer(counting(400)))
  })

  test('the CPI is the lower half of an SPI', () => {
    good(comp({ ...OUT, spi: 0x54321 }))
    good('xfrm policy add src 10.0.0.1 dst 10.0.0.2 dir out tmpl proto comp')
    expect(uncomp(pinged(new Uint8Array(400)).payload).cpi).toBe(0x4321)
  })
})

describe('what is not sound is counted and freed', () => {
  const PING = echo(counting(400))
  const text = (payload: Uint8Array, head = [1, 0, 1, 0]): Uint8Array => raw(Buffer.from([...head, ...payload]), 108)
  const sound = deflateRawSync(PING)

  test('streams, lengths, numbers', () => {
    good(comp(IN))
    expect(fate(text(sound))).toBe('delivered')
    expect(fate(text(sound, [1, 0xff, 1, 0]))).toBe('delivered') // flags are nobody's
    expect(fate(text(sound, [1, 0, 1, 1]))).toBe('xfrm_no_state')
    expect(fate(text(sound, [1, 0, 2, 0]))).toBe('xfrm_no_state')
    expect(fate(text(sound, [0, 0, 1, 0]))).toBe('xfrm_malformed') // nothing inside
    for (const len of [0, 3]) expect(fate(raw(counting(len), 108))).toBe('xfrm_malformed')
    for (const len of [0, 1, sound.length >> 1, sound.length - 1])
      expect(fate(text(sound.subarray(0, len)))).toBe('xfrm_malformed')
    expect(fate(text(noise(200).fill(0xff, 0, 1)))).toBe('xfrm_malformed')
    expect(fate(text(Buffer.concat([sound, noise(9)])))).toBe('delivered') // what follows the stream
  })
  test('no memory for what is inside', () => {
    good(comp(IN))
    const held: sk_buff[] = []
    for (let skb = alloc_skb(30_000); skb !== null; skb = alloc_skb(30_000)) held.push(skb)
    const large = text(deflateRawSync(echo(new Uint8Array(30_000))))
    expect(fate(large)).toBe('no_memory')
    for (const skb of held) consume_skb(skb)
    expect(fate(large)).toBe('delivered')
  })
  test('a stream of somebody who remembers 32 KiB', () => {
    good(comp(IN))
    const far = noise(3000)
    const stream = ipcomp(IN.spi, echo(Buffer.concat(new Array(7).fill(far))), 1)
    expect(stream.length).toBeLessThan(4000)
    const back = send(0, ...fragments(stream, { ...IN, protocol: 108 }, 1500))[0]!
    expect(back.length).toBe(15) // the answer goes as it is
  })
  test('a stream that is not shorter than what is in it', () => {
    good(comp(IN))
    const stored = (n: number): Uint8Array => deflateRawSync(echo(counting(n - 8)), { level: 0 })
    expect(stored(100).length).toBe(105)
    expect(fate(text(stored(100)))).toBe('xfrm_malformed')
    /** A stream of `n` bytes less than what is in it. */
    const gains = (n: number): Uint8Array => {
      for (let k = 20; ; k++) {
        const data = echo(Uint8Array.from([...counting(k), ...counting(k).subarray(0, 9)]))
        const stream = deflateRawSync(data)
        if (data.length - stream.length === n) return stream
      }
    }
    expect(fate(text(gains(3)))).toBe('xfrm_malformed')
    expect(fate(text(gains(4)))).toBe('delivered')
  })
  test('65,400 bytes are a packet, one more is none', () => {
    good(comp(IN))
    expect(fate(text(deflateRawSync(echo(new Uint8Array(65_392)))))).toBe('delivered')
    expect(fate(text(deflateRawSync(echo(new Uint8Array(65_393)))))).toBe('xfrm_malformed')
    expect(fate(text(deflateRawSync(new Uint8Array(1_000_000))))).toBe('xfrm_malformed')
    s.out()
  })
  test('AH inside: of the header as it was', () => {
    good(comp(IN))
    const auth = Buffer.from(counting(20))
    good(`xfrm state add src 10.0.0.2 dst 10.0.0.1 proto ah spi 0x300 auth sha1 0x${auth.toString('hex')}`)
    const ah = parse(ahFrame({ ...IN, spi: 0x300, auth }, 1, PING, 1)).payload
    expect(fate(ipcompFrame(IN, ah, 51))).toBe('delivered')
    ah[40]! ^= 1
    expect(fate(ipcompFrame(IN, ah, 51))).toBe('xfrm_integrity')
  })
  test('what is inside is asked about once more: no protocol, a packet in a packet', () => {
    good(comp(IN))
    expect(fate(text(deflateRawSync(counting(400)), [200, 0, 1, 0]))).toBe('ip_unknown_protocol')
    good(comp({ ...IN, spi: 0x101 }))
    const twice = ipcomp(0x101, Buffer.concat([ipcomp(0x100, new Uint8Array(3000), 200), new Uint8Array(90)]), 108)
    expect(fate(raw(twice, 108))).toBe('ip_unknown_protocol')
  })
  test('a state with a replay window takes nothing: IPComp does not count', () => {
    good(comp(IN, 'replay-window 32'))
    expect(fate(text(sound))).toBe('xfrm_replay')
  })
})

describe('tunnel mode', () => {
  const there: Association = { src: '10.0.0.1', dst: '10.0.0.3', spi: 0x400 }
  const back: Association = { src: '10.0.0.3', dst: '10.0.0.1', spi: 0x401 }
  const to = '02:00:00:00:00:02'
  const route = (): void => good('route replace 10.9.0.0/16 via 10.0.0.2')
  const lay = (level: string, esp = ''): void => {
    for (const a of [there, back]) good(comp(a, 'mode tunnel reqid 1'))
    const tmpl = (a: Association): string =>
      `tmpl src ${a.src} dst ${a.dst} proto comp reqid 1 mode tunnel ${level} ${esp}`
    good(`xfrm policy add dst 10.9.0.0/16 dir out ${tmpl(there)}`)
    good(`xfrm policy add src 10.9.0.0/16 dir fwd ${tmpl(back)}`)
    route()
  }
  const going = (data: Uint8Array, df = false): Uint8Array =>
    udpFrame({ src: '10.0.1.2', dst: '10.9.0.9', df, to }, data)
  const coming = (data: Uint8Array, src = '10.9.0.9'): Uint8Array => {
    const frame = udpFrame({ src, dst: '10.0.1.2' }, data)
    return frame.subarray(14, 14 + 28 + data.length)
  }
  const inner = (packet: Uint8Array): ReturnType<typeof parse> =>
    parse(Uint8Array.from([...new Uint8Array(14), ...packet]))
  const ipip = (packet: Uint8Array, o = back): Uint8Array => ipFrame(packet, { src: o.src, dst: o.dst, protocol: 4 })

  test('what is forwarded goes in compressed, or as it is', () => {
    lay('level use')
    const p = parse(send(1, going(counting(1400)))[0]![0]!)
    expect(p).toMatchObject({ src: '10.0.0.1', dst: '10.0.0.3', protocol: 108, ipChecksumGood: true })
    const { payload, ...head } = uncomp(p.payload)
    expect(head).toEqual({ cpi: 0x400, flags: 0, next: 4 })
    expect(inner(payload)).toMatchObject({ src: '10.0.1.2', dst: '10.9.0.9', ttl: 63, ipChecksumGood: true })
    expect(payload.length).toBe(1428)
    const tos = udpFrame({ src: '10.0.1.2', dst: '10.9.0.9', tos: 0x10, to }, counting(1400))
    expect(uncomp(parse(send(1, tos)[0]![0]!).payload).flags).toBe(0) // whatever lay there
    for (const data of [noise(1400), counting(20)]) {
      const plain = parse(send(1, going(data))[0]![0]!)
      expect(plain).toMatchObject({ src: '10.0.0.1', dst: '10.0.0.3', protocol: 4, ipChecksumGood: true })
      expect([...inner(plain.payload).payload.subarray(8)]).toEqual([...data])
    }
  })

  test('what does not fit: whoever forbids to cut it hears of it, all else is cut once it is compressed', () => {
    lay('level use')
    const error = parse(send(1, going(noise(1453), true))[1]![0]!)
    expect(error.icmp).toMatchObject({ type: 3, code: 4, info: 1480 })
    expect(send(1, going(noise(1452), true))[0]!.map(f => f.length)).toEqual([1514])
    expect(send(1, going(counting(1472)))[0]!.length).toBe(1)
    const cut = send(1, going(noise(1472)))[0]!.map(parse)
    expect(cut.map(p => [p.protocol, p.mf, p.payload.length])).toEqual([
      [4, true, 1480],
      [4, false, 20],
    ])
  })

  test('what comes out, compressed or not, is forwarded if that may be', () => {
    lay('level use')
    const out = (...frames: Uint8Array[]): Uint8Array[] => send(0, ...frames)[1]!
    const [one] = out(ipcompFrame(back, coming(counting(1000)), 4))
    expect(parse(one!)).toMatchObject({ src: '10.9.0.9', dst: '10.0.1.2', ttl: 63, ipChecksumGood: true })
    const [two] = out(ipip(coming(noise(1000))))
    expect(parse(two!)).toMatchObject({ src: '10.9.0.9', dst: '10.0.1.2', ttl: 63, ipChecksumGood: true })
    const pieces = fragments(coming(noise(1472)), { src: back.src, dst: back.dst, protocol: 4, id: 9 }, 1500)
    expect(out(...pieces).map(f => f.length)).toEqual([1514])
    good('xfrm policy add src 10.0.0.3 dst 10.0.0.1 dir in tmpl proto esp') // of what is for this machine itself
    expect(fate(ipip(coming(noise(100))))).toBe('forwarded')
    expect(fate(ipip(coming(noise(100)), { ...back, src: '10.0.0.2' }))).toBe('xfrm_no_state') // from somebody else
    expect(fate(ipip(coming(noise(100), '10.8.0.9')))).toBe('xfrm_policy') // nobody asked for that
    expect(fate(ipcompFrame(back, coming(counting(400)), 17))).toBe('xfrm_mode')
    expect(fate(ipip(counting(40)))).toBe('xfrm_mode') // no IPv4 inside
    expect(fate(raw(counting(10), 4))).toBe('xfrm_malformed')
    clean()
    lay('level required')
    expect(fate(ipcompFrame(back, coming(counting(1000)), 4))).toBe('forwarded')
    expect(fate(ipip(coming(noise(1000))))).toBe('xfrm_policy')
  })

  test('a template of another tunnel is not met by what comes as it is', () => {
    for (const a of [there, back]) good(comp(a, 'mode tunnel reqid 1'))
    const fwd = (src: string): string =>
      `src 10.9.0.0/16 dir fwd tmpl src ${src} dst 10.0.0.1 proto comp mode tunnel level use`
    good(`xfrm policy add ${fwd('10.0.0.2')}`)
    expect(fate(ipip(coming(noise(100))))).toBe('xfrm_policy')
    good(`xfrm policy update ${fwd('10.0.0.3')}`)
    expect(fate(ipip(coming(noise(100))))).toBe('forwarded')
  })

  test('under ESP: the compressed packet, and the one that stayed as it is', () => {
    const key = { auth: Buffer.from(counting(20)), enc: Buffer.from(counting(16)) }
    const [e1, e2] = [
      { ...there, spi: 0x500, ...key },
      { ...back, spi: 0x501, ...key },
    ]
    for (const e of [e1, e2]) good(state(e, 'reqid 2'))
    lay('level use', 'tmpl proto esp reqid 2')
    const packed = unwrap(e1, send(1, going(counting(1400)))[0]![0]!)
    expect(packed.next).toBe(108)
    expect(uncomp(packed.payload)).toMatchObject({ cpi: 0x400, next: 4 })
    const plain = unwrap(e1, send(1, going(counting(20)))[0]![0]!)
    expect([plain.next, inner(plain.payload).dst]).toEqual([4, '10.9.0.9'])
    expect(fate(espFrame(e2, 1, ipcomp(back.spi, coming(counting(1000)), 4), 108))).toBe('forwarded')
    expect(fate(espFrame(e2, 2, coming(noise(100)), 4))).toBe('forwarded')
    expect(fate(ipcompFrame(back, coming(counting(1000)), 4))).toBe('xfrm_policy') // not encrypted
    expect(fate(ipip(coming(noise(100))))).toBe('xfrm_policy')
    expect(fate(espFrame(e2, 3, ipcomp(back.spi, noise(40), 4), 108))).toBe('xfrm_malformed')
  })

  test('the largest packet that ESP over IPComp leaves room for', () => {
    const key = { auth: Buffer.from(counting(20)), enc: Buffer.from(counting(16)) }
    const e1 = { ...there, spi: 0x500, ...key }
    good(state(e1, 'reqid 2'))
    lay('level use', 'tmpl proto esp reqid 2')
    const { info } = parse(send(1, going(noise(1472), true))[1]![0]!).icmp!
    const [fits] = send(1, going(noise(info - 28), true))[0]!
    expect([unwrap(e1, fits!).next, fits!.length <= 1514]).toEqual([4, true])
    expect(fits!.length + 16).toBeGreaterThan(1514) // a block of AES more is too much
  })

  describe('the state of what comes as it is', () => {
    const IPIP = (a: Association): [number, number] => [4, address(a.src)]
    test('is made with the first state between two addresses, and goes with the last', () => {
      good(comp(there, 'mode tunnel'))
      expect(states().sort()).toEqual([[108, 0x400], IPIP(there)])
      good(comp({ ...there, spi: 0x402 }, 'mode tunnel'))
      good(comp({ ...there, spi: 0x403 })) // transport mode has no need of it
      expect(states().length).toBe(4)
      good(`xfrm state del src ${there.src} dst ${there.dst} proto comp spi 0x400`)
      s.pass(1)
      expect(states().sort()).toEqual([[108, 0x402], [108, 0x403], IPIP(there)])
      good(`xfrm state del src ${there.src} dst ${there.dst} proto comp spi 0x402`)
      s.pass(1)
      expect(states()).toEqual([[108, 0x403]])
    })
    test('is nobody else’s to delete; with all others it goes', () => {
      good(comp(there, 'mode tunnel'))
      const named = 'src 10.0.0.1 dst 10.0.0.3 proto 4 spi 0x0a000001'
      expect(ip(s, `xfrm state get ${named}`)[1]).toMatch(
        /^src 10\.0\.0\.1 dst 10\.0\.0\.3\n\tproto 4 spi 0x0a000001 .* mode tunnel/,
      )
      expect(refused(`xfrm state del ${named}`)).toBe('Operation not permitted')
      good('xfrm state flush proto 4')
      s.pass(1)
      expect(states().length).toBe(2)
    })
    test('has no more users than there are states: not one that is refused, nor one that brings new limits', () => {
      good(comp(there, 'mode tunnel'))
      expect(refused(comp(there, 'mode tunnel'))).toBe('File exists')
      good(comp(there, 'mode tunnel limit packet-hard 1', 'update'))
      s.pass(1)
      expect(states().length).toBe(2)
      good(`xfrm state del src ${there.src} dst ${there.dst} proto comp spi 0x400`)
      s.pass(1)
      expect(states()).toEqual([])
      clean()
    })
    test('is for what the first state is for, and as that one is', () => {
      good(comp(back, 'mode tunnel flag noecn sel src 10.9.0.9 dst 10.0.1.0/24'))
      good('xfrm policy add src 10.9.0.0/16 dir fwd tmpl proto comp mode tunnel level use')
      const seen = udpFrame({ src: '10.9.0.9', dst: '10.0.1.2', tos: 2 }, noise(100)).subarray(14)
      const [out] = send(0, ipFrame(seen, { src: back.src, dst: back.dst, protocol: 4, tos: 3 }))[1]!
      expect(parse(out!).tos).toBe(2) // congestion stays outside
      expect(fate(ipip(coming(noise(100), '10.9.0.8')))).toBe('xfrm_policy')
    })
    test('serves a policy for a tunnel and nothing else', () => {
      route()
      good(comp(there, 'mode tunnel'))
      good('xfrm policy add dst 10.9.0.0/16 dir out tmpl src 10.0.0.1 dst 10.0.0.3 proto 4 mode tunnel')
      const p = parse(send(1, going(counting(1000)))[0]![0]!)
      expect(p).toMatchObject({ src: '10.0.0.1', dst: '10.0.0.3', protocol: 4, ipChecksumGood: true })
      expect(inner(p.payload)).toMatchObject({ dst: '10.9.0.9', ipChecksumGood: true })
      expect(p.payload.length).toBe(1028)
      expect(parse(send(1, going(noise(1453), true))[1]![0]!).icmp).toMatchObject({ type: 3, code: 4, info: 1480 })
      good(`xfrm state del src ${there.src} dst ${there.dst} proto comp spi 0x400`)
      s.pass(1)
      expect(states()).toEqual([]) // though a bundle was made of it
    })
    test('goes, too, when a limit ends the last one', () => {
      good(comp(back, 'mode tunnel limit packet-hard 1'))
      good('xfrm policy add src 10.9.0.0/16 dir fwd tmpl proto comp mode tunnel level use')
      expect(fate(ipcompFrame(back, coming(counting(1000)), 4))).toBe('forwarded')
      expect(fate(ipcompFrame(back, coming(counting(1000)), 4))).toBe('xfrm_state_invalid')
      s.pass(5)
      expect(states()).toEqual([])
    })
    test('stays while a bundle has the state, and goes when nobody has', () => {
      lay('level use')
      expect(fate(going(counting(1000)), 1)).toBe('forwarded')
      good(`xfrm state del src ${there.src} dst ${there.dst} proto comp spi 0x400`)
      s.pass(2)
      expect(states().sort()).toEqual([[108, 0x401], IPIP(back)].sort())
    })
  })
})

describe('what the kernel refuses, and what it shows', () => {
  const add = (proto: string, algos: string): string =>
    `xfrm state add src 10.0.0.2 dst 10.0.0.1 proto ${proto} spi 0x100 ${algos}`
  const auth = `auth sha1 0x${'11'.repeat(20)}`
  test('algorithms that a protocol has not, or must have', () => {
    expect(refused(add('comp', ''))).toBe('Invalid argument')
    expect(refused(add('comp', `comp deflate ${auth}`))).toBe('Invalid argument')
    expect(refused(add('comp', 'comp deflate enc aes 0x00112233445566778899aabbccddeeff'))).toBe('Invalid argument')
    expect(refused(add('esp', `comp deflate ${auth} enc aes 0x00112233445566778899aabbccddeeff`))).toBe(
      'Invalid argument',
    )
    expect(refused(add('ah', `comp deflate ${auth}`))).toBe('Invalid argument')
    for (const name of ['lzs', 'lzjh', 'gzip'])
      expect(refused(add('comp', `comp ${name}`))).toBe('Function not implemented')
    expect(refused(add('4', 'comp deflate mode tunnel'))).toBe('Invalid argument')
  })
  test('a state as it is listed', () => {
    good(comp(IN, 'reqid 7'))
    const text = ip(s, 'xfrm state list')[1]
    expect(text).toMatch(/^src 10\.0\.0\.2 dst 10\.0\.0\.1\n\tproto comp spi 0x00000100 reqid 7 mode transport\n/)
    expect(text).toMatch(/\n\tcomp deflate \n/)
  })
  test('numbers that are promised have 16 bits', () => {
    const alloc = 'xfrm state allocspi src 10.0.0.2 dst 10.0.0.1 proto comp'
    for (let reqid = 1; reqid <= 20; reqid++) {
      const [code, text] = ip(s, `${alloc} reqid ${reqid}`)
      const spi = Number(/spi (0x[0-9a-f]+)/.exec(text)![1])
      expect([code, spi >= 0x100, spi <= 0xffff]).toEqual([0, true, true])
    }
    expect(refused(`${alloc} reqid 99 min 0x100 max 0x10000`)).toBe('Invalid argument')
    expect(ip(s, `${alloc} reqid 99 min 0xffff max 0xffff`)[0]).toBe(0)
    expect(fate(ipcompFrame({ ...IN, spi: 0xffff }, echo(counting(400)), 1))).toBe('xfrm_state_invalid') // early
    good(comp({ ...IN, spi: 0xffff }, 'reqid 99', 'update'))
    expect(fate(ipcompFrame({ ...IN, spi: 0xffff }, echo(counting(400)), 1))).toBe('delivered')
  })
})

test('a router says that a packet was too big: of states that there are', () => {
  good(comp(OUT))
  const stats = icmp_statistics.mine
  const errors = (cpi: number, code = 4): number => {
    const before = stats.InErrors
    const head = ipFrame(ipcomp(cpi, counting(400), 1), { src: OUT.src, dst: OUT.dst, protocol: 108 })
    expect(fate(icmpFrame({ src: '10.0.0.3', dst: '10.0.0.1' }, 3, code, 1400, head.subarray(14, 14 + 28)))).toBe(
      'delivered',
    )
    return stats.InErrors - before
  }
  expect([errors(0x200), errors(0x201), errors(0x201, 1)]).toEqual([0, 1, 0])
})

describe('modules', () => {
  const unload = (name: string): number => runTask(s, () => delete_module(name))
  const loaded = (): string[] => modules_loaded().filter(name => name === 'ipcomp' || name === 'xfrm4_tunnel')
  const tunnel = comp(IN, 'mode tunnel')
  const unreachable = (protocol: number): void => {
    const [back] = send(0, raw(counting(40), protocol))[0]!
    expect(parse(back!).icmp).toMatchObject({ type: 3, code: 2 })
  }
  test('stay while there is a state of theirs, and what they took is unknown then', () => {
    for (const name of loaded()) expect(unload(name)).toBe(0)
    good(comp(IN))
    expect([loaded(), unload('ipcomp')]).toEqual([['ipcomp'], -EAGAIN])
    clean()
    expect(unload('ipcomp')).toBe(0)
    good(tunnel)
    expect(loaded().toSorted()).toEqual(['ipcomp', 'xfrm4_tunnel'])
    expect([unload('ipcomp'), unload('xfrm4_tunnel')]).toEqual([-EAGAIN, -EAGAIN])
    clean()
    expect([unload('ipcomp'), unload('xfrm4_tunnel')]).toEqual([0, 0])
    unreachable(108)
    unreachable(4)
  })
  test('a policy is asked about a protocol that nobody takes', () => {
    good('xfrm policy add src 10.0.0.2 dst 10.0.0.1 dir in tmpl proto esp')
    for (const protocol of [108, 4]) expect(fate(raw(counting(40), protocol))).toBe('xfrm_policy')
    good(comp(IN))
    expect(fate(raw(counting(40), 108))).toBe('xfrm_no_state') // whoever takes it asks about what is inside
    expect(fate(ipcompFrame(IN, echo(counting(400)), 1))).toBe('xfrm_policy')
  })
  test('a state that is refused holds neither', () => {
    good(tunnel)
    expect(refused(tunnel)).toBe('File exists')
    clean()
    expect([unload('ipcomp'), unload('xfrm4_tunnel')]).toEqual([0, 0])
  })
})

test.skipIf(!hasTshark)('tshark reads what was sent: headers, and what is inside', () => {
  const file = join(dir, 'ipcomp.pcap')
  writeFileSync(file, pcapOf(sent))
  expect(complaints(file, true)).toBe('')
  const mine = sent.map(parse).filter(p => p.protocol === 108 && p.dst === '10.0.0.2')
  const fields = ['ipcomp.next_header', 'ipcomp.flags', 'ipcomp.cpi', 'icmp.checksum.status', 'icmp.ident']
  const seen = dissected(file, 'ipcomp && icmp.type == 0', fields)
  expect(mine.length).toBeGreaterThan(5)
  const cpi = (p: ReturnType<typeof parse>): string => `0x${uncomp(p.payload).cpi.toString(16).padStart(4, '0')}`
  expect(seen).toEqual(mine.map(p => ['0x01', '0x00', cpi(p), '1', '0']))
  const inside = dissected(file, 'ipcomp && ip.dst == 10.0.0.3', [
    'ipcomp.next_header',
    'ip.dst',
    'udp.checksum.status',
  ])
  expect(new Set(inside.map(String))).toEqual(new Set(['0x04,10.0.0.3,10.9.0.9,1']))
})

test('in the end nothing is left', () => {
  for (const a of [IN, OUT]) good(comp(a, 'mode tunnel'))
  good('xfrm policy add src 10.0.0.1 dst 10.0.0.2 dir out tmpl src 10.0.0.1 dst 10.0.0.2 proto comp mode tunnel')
  send(0, icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }, 8)) // so that there is a bundle
  expect(states().length).toBe(4)
  expect(s.solo.audit()).toEqual([])
  expect(conserved(s.fates())).toBe(true)
})
