/** captures.ts - the captures of data/: what one wire of data/example.routes might see, made here, the same bytes each time. */
import { make_malformed } from '../../src/hw/malformed.js'
import { PcapWriter } from '../../src/lab/pcap.js'
import { counting, ethernet, fragments, icmpFrame, ROUTER, udp, udpFrame } from './frames.js'

const CLIENT = '10.1.0.2'
const SERVER = '10.2.0.2'
const to = ROUTER
const from = '02:00:00:00:01:02'

/** Many kinds of frame on the wire of eth0. */
export function mixedFrames(): Uint8Array[] {
  const frames: Uint8Array[] = []
  const client = { src: CLIENT, dst: SERVER, to, from }
  for (let k = 0; k < 120; k++)
    frames.push(
      udpFrame(
        { ...client, src: `10.1.0.${2 + (k % 8)}`, sport: 2000 + (k % 8), id: k },
        counting(18 + ((k * 37) % 1400)),
      ),
    )
  for (let k = 0; k < 5; k++) frames.push(icmpFrame(client, 8, 0, (77 << 16) | k, counting(56))) // ping through
  for (let k = 0; k < 3; k++) frames.push(icmpFrame({ ...client, dst: '10.1.0.1' }, 8, 0, (78 << 16) | k, counting(56))) // ping the router
  for (let ttl = 1; ttl <= 3; ttl++) frames.push(udpFrame({ ...client, ttl, dport: 33434 + ttl }, counting(32))) // traceroute
  frames.push(udpFrame({ ...client, dst: '10.3.0.2', df: true }, counting(1200))) // larger than eth2's MTU
  frames.push(udpFrame({ ...client, dst: '10.3.0.2', id: 4242 }, counting(1300))) // the same, to be fragmented
  frames.push(...fragments(udp(client, counting(4000)), { ...client, id: 99 }, 1500))
  frames.push(udpFrame({ ...client, options: [7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0] }, counting(20))) // record route
  frames.push(udpFrame({ ...client, dst: '203.0.113.9' }, counting(20))) // an unreachable network
  frames.push(udpFrame({ ...client, dst: '192.0.2.77' }, counting(20))) // the default route
  frames.push(udpFrame({ ...client, to: '02:00:00:00:09:09' }, counting(20))) // for another host on this wire
  frames.push(udpFrame({ ...client, dst: '10.1.0.255', to: 'ff:ff:ff:ff:ff:ff' }, counting(20))) // broadcast
  frames.push(ethernet(counting(46), { to: 'ff:ff:ff:ff:ff:ff', from, type: 0x0806 })) // not IP
  const plain = udpFrame(client, counting(18))
  plain.fill(0, 40, 42) // no UDP checksum: some of the changes that follow would break it as well
  frames.push(...make_malformed(plain))
  return frames
}

/** A steady load for `softnet livelock --pcap`: the livelock machine's own addresses do not matter, frames are offered as they are. */
export function steadyFrames(): Uint8Array[] {
  return Array.from({ length: 256 }, (_, k) =>
    udpFrame(
      {
        src: `198.18.0.${2 + (k % 32)}`,
        dst: '198.18.1.2',
        to: '02:00:00:00:00:01',
        from,
        sport: 5000 + (k % 32),
        id: k,
      },
      counting([18, 18, 18, 200, 18, 18, 512, 1400][k % 8]!),
    ),
  )
}

/** pcapOf - a classic capture with a frame each 100 us, from `start` (ns) on. */
export function pcapOf(frames: Uint8Array[], start = 0): Uint8Array {
  const chunks: Uint8Array[] = []
  const writer = new PcapWriter(bytes => chunks.push(bytes))
  frames.forEach((f, k) => {
    writer.frame(f, start + k * 100_000)
  })
  writer.end()
  return Buffer.concat(chunks)
}
