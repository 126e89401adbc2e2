/** fuzzRun.ts - so many frames of the fuzzer into a machine of two ports that is host and router, with an echo service on it. */
import { ip_frag_mem } from '../../src/net/ipv4/ipq.js'
import { udpechod_main } from '../../src/user/udpecho.js'
import { udpFrame } from './frames.js'
import { Fuzzer } from './fuzz.js'
import { start } from './programs.js'
import { conserved, type Fates, Script } from './script.js'
import { ip } from './solo.js'

const BATCH = 100
/** 2.6.11's sysctl_ipfrag_high_thresh, and one packet that is over it until the evictor has run. */
export const FRAG_LIMIT = 256 * 1024 + 8192

export interface FuzzResult {
  frames: number
  fates: Fates
  /** Most that reassembly held at the end of a batch, bytes. */
  fragments: number
  /** Good datagrams to the echo service between the others, and how many of them came back. */
  markers: { sent: number; echoed: number }
  conserved: boolean
  leaks: { name: string; used: number }[]
}

/** fuzz - once in a process: a machine needs a thread of its own. */
export function fuzz(frames: number, seed: number): FuzzResult {
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
    config: { loopback: 1, user_procs: 2 },
    sysctl: { 'net.ipv4.neigh.default.retrans_time_ms': 1 }, // so that questions end while packets come
  })
  const f = new Fuzzer(seed)
  start(() => udpechod_main(0, 0))
  s.pass(1)
  let [most, echoed, sent] = [0, 0, 0]
  for (let done = 0; done < frames; done += BATCH) {
    const batch = Array.from({ length: Math.min(BATCH, frames - done) }, () => f.frame())
    const marker = udpFrame({ src: '10.0.0.2', dst: '10.0.0.1', sport: 4000 + (sent & 1023), dport: 7 }, [1, 2, 3])
    sent++
    s.send(f.below(8) === 0 ? 1 : 0, ...batch)
    const back = s.send(0, marker)[0]!
    if (back.some(b => b[23] === 17 && b[35] === 7 && b[36]! * 256 + b[37]! === 4000 + ((sent - 1) & 1023))) echoed++
    most = Math.max(most, ip_frag_mem())
  }
  s.pass(20)
  const leaks = s.solo.audit()
  const fates = s.fates()
  return { frames, fates, fragments: most, markers: { sent, echoed }, conserved: conserved(fates), leaks }
}
