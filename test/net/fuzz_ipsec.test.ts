/** A host with states of ESP, AH and IPComp, under frames of each with bytes changed: all is in the books, nothing leaks, it goes on answering. */
import '../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { expect, test } from 'vitest'
import { prng_below, prng_seed } from '../../src/lib/prng.js'
import { checksum, counting, icmp, ipFrame, udpFrame } from '../helpers/frames.js'
import { type Association, ahFrame, espFrame, ip, ipcompFrame, state, unwrap } from '../helpers/ipsec.js'
import { conserved, Script } from '../helpers/script.js'
import { ip as address } from '../helpers/solo.js'

const BATCH = 50

test('20,000 frames (seed 9)', { timeout: 300_000 }, () => {
  const s = new Script({
    ports: [{ addresses: [{ local: address('10.0.0.1'), prefixlen: 24 }] }],
    neighbours: [{ address: address('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } }],
    config: { loopback: 1, user_procs: 2 },
  })
  const [auth, enc] = [Buffer.from(counting(20)), Buffer.from(counting(16))]
  const A: Association = { src: '10.0.0.2', dst: '10.0.0.1', spi: 0x100, auth, enc }
  const OPEN: Association = { src: '10.0.0.2', dst: '10.0.0.1', spi: 0x101 } // neither: what is changed gets through
  const TUNNEL: Association = { ...OPEN, spi: 0x102 }
  const AH: Association = { src: '10.0.0.2', dst: '10.0.0.1', spi: 0x103, auth }
  const COMP: Association = { ...OPEN, spi: 0x105 }
  const CTUNNEL: Association = { ...OPEN, spi: 0x106 }
  const LIVE: Association = { ...A, spi: 0x104 } // of the packets that must go on being answered
  const BACK: Association = { src: '10.0.0.1', dst: '10.0.0.2', spi: 0x200, auth, enc }
  const good = (line: string): void => expect(ip(s, line)).toEqual([0, '', ''])
  for (const a of [A, OPEN, LIVE, BACK]) good(state(a, 'replay-window 32'))
  good(state(TUNNEL, 'mode tunnel'))
  good(`xfrm state add src 10.0.0.2 dst 10.0.0.1 proto ah spi 0x103 auth sha1 0x${auth.toString('hex')}`)
  good('xfrm state add src 10.0.0.2 dst 10.0.0.1 proto comp spi 0x105 comp deflate')
  good('xfrm state add src 10.0.0.2 dst 10.0.0.1 proto comp spi 0x106 comp deflate mode tunnel')
  good('xfrm policy add src 10.0.0.1 dst 10.0.0.2 dir out tmpl proto esp')
  const ping = icmp(8, 0, 7, counting(40))
  const inner = udpFrame({ src: '10.0.0.2', dst: '10.0.0.1', dport: 9 }, counting(30)).subarray(14)

  const long = udpFrame({ src: '10.0.0.2', dst: '10.0.0.1', dport: 9 }, new Uint8Array(300)).subarray(14)

  const prng = new Int32Array(4)
  prng_seed(prng, 9)
  const below = (n: number): number => prng_below(prng, n)
  const frame = (seq: number): Uint8Array => {
    const kind = below(7)
    if (kind === 4) return ipcompFrame(COMP, icmp(8, 0, 7, new Uint8Array(400)), [1, 17, 50, 108, 4, 0][below(6)]!)
    if (kind === 5) return ipcompFrame(CTUNNEL, long, below(4) === 0 ? 108 : 4)
    if (kind === 6) return ipFrame(long, { src: TUNNEL.src, dst: TUNNEL.dst, protocol: 4 })
    if (kind === 0) return espFrame(A, seq, ping, 1)
    if (kind === 1) return espFrame(OPEN, seq, ping, [1, 17, 50, 51, 4, 0][below(6)]!)
    if (kind === 2) return espFrame(TUNNEL, seq, inner, 4)
    return ahFrame(AH, seq, ping, [1, 50, 51, 4][below(4)]!, below(4) === 0 ? [7, 7, 4, 0, 0, 0, 0] : [])
  }
  const mangled = (seq: number): Uint8Array => {
    const f = Uint8Array.from(frame(seq))
    for (let n = below(4); n > 0; n--)
      f[22 + below(f.length - 22)] = below(3) === 0 ? [0, 1, 255][below(3)]! : below(256)
    if (below(4) === 0) f.set([(f.length - 14 - below(30)) >> 8, (f.length - 14 - below(30)) & 255], 16)
    if (below(5) === 0) f[14] = 0x45 + below(8)
    const hlen = Math.min((f[14]! & 15) * 4, f.length - 14)
    f.fill(0, 24, 26)
    const sum = checksum(f.subarray(14, 14 + hlen))
    f.set([sum >> 8, sum & 255], 24)
    return f
  }
  let answered = 0
  for (let done = 0; done < 20_000; done += BATCH) {
    s.send(0, ...Array.from({ length: BATCH }, (_, k) => mangled(done + k + 1)))
    const [back] = s.send(0, espFrame(LIVE, 1 + done / BATCH, ping, 1))[0]!
    if (back !== undefined && unwrap(BACK, back).payload.equals(Buffer.from(icmp(0, 0, 7, counting(40))))) answered++
  }
  expect(answered).toBe(20_000 / BATCH)
  s.pass(20)
  const { drops } = s.fates()
  const unseen = ['no_state', 'replay', 'integrity', 'malformed', 'mode'].filter(r => drops[`xfrm_${r}`] === undefined)
  expect(unseen).toEqual([])
  expect(s.solo.audit()).toEqual([])
  expect(conserved(s.fates())).toBe(true)
})
