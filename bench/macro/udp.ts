/** udp.ts - a datagram through the whole socket path: sendto, UDP, IP, lo, IP, UDP, the queue, recvfrom; beside the host's kernel through node:dgram. */
import { fileURLToPath } from 'node:url'
import { runJson } from '../lib/comparator.js'
import { type Measure, row } from '../lib/measure.js'

const script = (name: string): string => fileURLToPath(new URL(`../lib/${name}.js`, import.meta.url))
const SIZES = [64, 1400]
/** Datagrams that are on their way at once: they fit any receive buffer. */
const BATCH = 32
const SECONDS = 2
/** Turns of the two, one after the other: what the host does meanwhile hits both. */
const TURNS = 3

interface Rate {
  per_second: number
}

export const udp: Measure = {
  name: 'udp',
  async run() {
    const rows = []
    for (const size of SIZES) {
      const args = [size, BATCH, SECONDS].map(String)
      const [ours, theirs]: [number[], number[]] = [[], []]
      for (let k = 0; k < TURNS; k++) {
        ours.push((await runJson<Rate>(process.execPath, [script('udpOnce'), ...args])).per_second)
        theirs.push((await runJson<Rate>(process.execPath, [script('dgramOnce'), ...args])).per_second)
      }
      rows.push(
        row({
          measure: `UDP over loopback, ${size} bytes, sent and received on one CPU`,
          unit: 'datagrams/s',
          softnet: Math.round(Math.max(...ours)),
          rivalName: 'node:dgram on this host',
          rival: Math.round(Math.max(...theirs)),
          better: 'more',
          atLeast: 1,
          aim: 4,
          details: { ours, theirs, batch: BATCH },
        }),
      )
    }
    return rows
  },
}
