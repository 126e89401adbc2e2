/**
 * fuzz.ts - frames that nobody would send on purpose, from a seed: good ones with bytes changed, cut off or added, pieces that
 * overlap and never make a whole, every type of ICMP about everything, and ARP.
 */
import { make_malformed } from '../../src/hw/malformed.js'
import { prng_below, prng_seed } from '../../src/lib/prng.js'
import { arpFrame, checksum, counting, icmpFrame, ipFrame, udpFrame } from './frames.js'

const route = { src: '10.0.0.2', dst: '10.0.1.2' }
const HOSTS = [
  '10.0.0.1',
  '10.0.1.1',
  '10.0.1.2',
  '10.0.0.255',
  '255.255.255.255',
  '224.0.0.1',
  '127.0.0.1',
  '10.9.9.9',
]
const MTU = 1500
const ALL = 'ff:ff:ff:ff:ff:ff'
const STATION = '02:00:00:00:02:02'

export class Fuzzer {
  private readonly prng = new Int32Array(4)
  private readonly seeds: Uint8Array[] = [
    udpFrame(route, counting(18)),
    udpFrame({ ...route, dst: '10.0.0.1' }, counting(100)),
    udpFrame({ ...route, dst: '10.0.0.1', dport: 7 }, counting(64)),
    udpFrame({ ...route, dport: 2000 }, counting(33)),
    udpFrame({ ...route, options: [7, 39, 4, ...new Array(36).fill(0)] }, counting(400)),
    udpFrame({ ...route, options: [131, 11, 4, 10, 0, 0, 1, 10, 0, 1, 2] }, counting(40)),
    udpFrame({ ...route, options: [137, 7, 4, 10, 0, 1, 2, 0] }, counting(40)),
    udpFrame({ ...route, options: [148, 4, 0, 0] }, counting(40)),
    udpFrame({ ...route, options: [68, 36, 5, 1, ...new Array(32).fill(0)] }, counting(900)),
    icmpFrame({ ...route, dst: '10.0.0.1' }, 8, 0, 1, counting(60)),
    ...make_malformed(udpFrame(route, counting(18))),
    arpFrame({ op: 1, sha: STATION, sip: '10.0.0.77', tha: ALL, tip: '10.0.0.1', to: ALL }),
    arpFrame({ op: 2, sha: STATION, sip: '10.0.0.77', tha: ALL, tip: '10.0.0.1' }),
  ]

  constructor(seed: number) {
    prng_seed(this.prng, seed)
  }

  below(n: number): number {
    return prng_below(this.prng, n)
  }
  private host(): string {
    return HOSTS[this.below(HOSTS.length)]!
  }

  /** Bytes changed, inserted or cut off, mostly in the headers; half of them with a header checksum that is right again. */
  mutate(good: Uint8Array): Uint8Array {
    const frame = good.slice(0, this.below(6) === 0 ? 14 + this.below(good.length - 13) : good.length)
    for (let n = this.below(5); n > 0; n--) {
      const at = 12 + this.below(Math.min(70, frame.length - 12))
      if (at < frame.length)
        frame[at] = this.below(3) === 0 ? [0, 1, 4, 127, 128, 255][this.below(6)]! : this.below(256)
    }
    const hlen = (frame[14]! & 15) * 4
    if (this.below(2) === 0 && hlen >= 20 && frame.length >= 14 + hlen) {
      frame.fill(0, 24, 26)
      const sum = checksum(frame.subarray(14, 14 + hlen))
      frame[24] = sum >> 8
      frame[25] = sum & 255
    }
    return frame
  }

  /** A piece of a datagram of few possible ones: they overlap, have holes, two ends, and some make a whole. */
  piece(): Uint8Array {
    const len = [8, 16, 24, 56, 1480, 1 + this.below(1400)][this.below(6)]!
    const offset = this.below(4) === 0 ? this.below(8192) * 8 : this.below(12) * 8
    const last = this.below(3) === 0
    return ipFrame(counting(Math.min(len, MTU - 20)), {
      src: `10.0.0.${2 + this.below(3)}`,
      dst: this.below(4) === 0 ? this.host() : '10.0.0.1',
      id: this.below(40),
      offset,
      mf: !last,
      protocol: [17, 1, 6, 99][this.below(4)]!,
      ...(this.below(5) === 0 ? { options: [7, 7, 4, 0, 0, 0, 0] } : {}),
    })
  }

  /** Every type, every code, about anything: whole packets, their beginnings, nonsense. */
  icmp(): Uint8Array {
    const about = this.seeds[this.below(this.seeds.length)]!
    const quote = this.below(3) === 0 ? counting(this.below(64)) : about.subarray(14, 14 + this.below(about.length))
    const type = this.below(4) === 0 ? this.below(256) : this.below(19)
    const o = { src: this.below(8) === 0 ? this.host() : '10.0.0.2', dst: this.host() }
    return icmpFrame(o, type, this.below(20), this.below(0x7fffffff), quote)
  }

  /** The next frame. */
  frame(): Uint8Array {
    switch (this.below(4)) {
      case 0:
        return this.piece()
      case 1:
        return this.below(2) === 0 ? this.icmp() : this.mutate(this.icmp())
      case 2:
        return this.mutate(this.piece())
      default:
        return this.mutate(this.seeds[this.below(this.seeds.length)]!)
    }
  }
}
