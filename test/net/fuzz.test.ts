/** Frames that nobody would send on purpose, by the hundred thousand: every one is counted once, and nothing leaks. */
import { expect, test } from 'vitest'
import { make_malformed } from '../../src/hw/malformed.js'
import { prng_below, prng_seed } from '../../src/lib/prng.js'
import { counting, icmpFrame, parse, udpFrame } from '../helpers/frames.js'
import { conserved, Script } from '../helpers/script.js'
import { ip } from '../helpers/solo.js'

const SEED = 11
const ROUNDS = 1500
const PER_ROUND = 60

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }], mtu: 296 },
  ],
  routes: [
    { dst: 0, prefixlen: 0, type: 'unicast', metric: 0, nexthops: [{ gw: ip('10.0.1.2'), dev: 'eth1', weight: 1 }] },
  ],
  neighbours: [
    { address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } },
    { address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } },
  ],
})

const route = { src: '10.0.0.2', dst: '10.0.1.2' }
const seeds = [
  udpFrame(route, counting(18)),
  udpFrame({ ...route, dst: '10.0.0.1' }, counting(100)),
  udpFrame({ ...route, options: [7, 39, 4, ...new Array(36).fill(0)] }, counting(400)),
  udpFrame({ ...route, options: [131, 11, 4, 10, 0, 0, 1, 10, 0, 1, 2] }, counting(40)),
  udpFrame({ ...route, options: [68, 36, 5, 1, ...new Array(32).fill(0)] }, counting(900)),
  icmpFrame({ ...route, dst: '10.0.0.1' }, 8, 0, 1, counting(60)),
  icmpFrame({ ...route, dst: '10.0.0.1' }, 3, 4, 576, udpFrame({ src: '10.0.0.1', dst: '10.0.0.2' }).subarray(14, 42)),
  ...make_malformed(udpFrame(route, counting(18))),
]

const prng = new Int32Array(4)
prng_seed(prng, SEED)
const below = (n: number): number => prng_below(prng, n)

/** Bytes changed, inserted or cut off, mostly in the headers; half of them with a header checksum that is right again. */
function mutate(good: Uint8Array): Uint8Array {
  const frame = good.slice(0, below(6) === 0 ? 14 + below(good.length - 13) : good.length)
  for (let n = below(5); n > 0; n--) {
    const at = 12 + below(Math.min(70, frame.length - 12))
    if (at < frame.length) frame[at] = below(3) === 0 ? [0, 1, 4, 127, 128, 255][below(6)]! : below(256)
  }
  const hlen = (frame[14]! & 15) * 4
  if (below(2) === 0 && hlen >= 20 && frame.length >= 14 + hlen) {
    frame[24] = 0
    frame[25] = 0
    let sum = 0
    for (let k = 14; k < 14 + hlen; k += 2) sum += frame[k]! * 256 + frame[k + 1]!
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
    frame[24] = (~sum >> 8) & 255
    frame[25] = ~sum & 255
  }
  return frame
}

test(`${ROUNDS * PER_ROUND} mutated frames (seed ${SEED}): good traffic beside them passes, all are accounted for`, () => {
  let runts = 0
  for (let round = 0; round < ROUNDS; round++) {
    const frames = Array.from({ length: PER_ROUND }, () => mutate(seeds[below(seeds.length)]!))
    runts += frames.filter(f => f.length < 14).length
    const marker = udpFrame({ ...route, id: 0xbee, sport: 777 }, counting(round % 200))
    frames.splice(below(PER_ROUND), 0, marker)
    const out = s.send(0, ...frames)[1]!
    expect(out.some(f => f[18] === 0x0b && f[19] === 0xee && parse(f).payload[1] === 777 % 256)).toBe(true)
    for (const f of out) if (f.length >= 34 && (f[14]! & 15) >= 5) expect(parse(f).ipChecksumGood).toBe(true)
  }
  s.pass(2)
  const fates = s.fates()
  expect(conserved(fates)).toBe(true)
  expect(fates.received).toBe(ROUNDS * (PER_ROUND + 1) - runts)
  expect(Object.keys(fates.drops).length).toBeGreaterThan(12)
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
