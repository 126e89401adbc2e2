/** fuzzRun.ts - so many frames of the fuzzer into a machine of two ports that is host and router, with an echo service on it. */
import { ip_frag_mem } from '../../src/net/ipv4/ipq.js'
import { udpechod_main } from '../../src/user/udpecho.js'
import { udpFrame } from './frames.js'
import { Fuzzer } from './fuzz.js'
import { loadRules } from './iptables.js'
import { start } from './programs.js'
import { conserved, type Fates, Script } from './script.js'
import { ip } from './solo.js'

const BATCH = 100
/** 2.6.11's sysctl_ipfrag_high_thresh, and one packet that is over it until the evictor has run. */
export const FRAG_LIMIT = 256 * 1024 + 8192

/** Rules that frames of the fuzzer do come by. */
export const GATEWAY = `*nat
-A PREROUTING -p udp -d 10.0.0.1 --dport 9 -j DNAT --to-destination 10.0.1.2-10.0.1.4:1000-1010
-A PREROUTING -p icmp -d 10.0.1.2 -j NETMAP --to 10.0.1.0/24
-A PREROUTING -i eth0 -p udp --dport 10:65535 -j REDIRECT --to-ports 7
-A POSTROUTING -o eth1 -p udp -j SNAT --to-source 10.0.1.10-10.0.1.11:5000-5100
-A POSTROUTING -o eth1 -j MASQUERADE
COMMIT
*filter
-A FORWARD -p tcp -j REJECT --reject-with tcp-reset
-A FORWARD -m state --state INVALID -j DROP
-A FORWARD -m state --state ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -p udp -m length --length 900: -j REJECT --reject-with icmp-admin-prohibited
-A INPUT -p tcp -j DROP
COMMIT
*mangle
-A PREROUTING -m recent --name all --set -j DSCP --set-dscp 0
-A PREROUTING -m recent --name all --rcheck --seconds 1 --hitcount 2 -j ECN --ecn-ip-ect 2
-A PREROUTING -m hashlimit --hashlimit 50/sec --hashlimit-mode srcip-dstip --hashlimit-name ends --hashlimit-htable-gcinterval 5 --hashlimit-htable-expire 5 -j ULOG --ulog-cprange 64 --ulog-qthreshold 9
-A POSTROUTING -p tcp -m tcpmss ! --mss 1:65535 -j ECN --ecn-tcp-ece 1
-A FORWARD -p tcp -m ttl --ttl-lt 30 -m tcpmss --mss 1 -j DROP
-A FORWARD -p tcp --tcp-flags SYN SYN -j TCPMSS --set-mss 500
-A FORWARD -m conntrack --ctproto 17 --ctexpire 0:200 -j CLASSIFY --set-class 1:1
-A OUTPUT -m owner ! --uid-owner 1 -j MARK --set-mark 2
-A FORWARD -m ttl --ttl-lt 3 -j TTL --ttl-set 9
-A OUTPUT -p icmp -j MARK --set-mark 1
COMMIT
`

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

/**
 * fuzz - once in a process: a machine needs a thread of its own.
 * @param rules a file of iptables-save; without: no modules at all
 * @param halting what else to look at before the machine is halted
 */
export function fuzz(frames: number, seed: number, rules?: string, halting?: () => void): FuzzResult {
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
  if (rules !== undefined) loadRules(s, rules)
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
  halting?.()
  const leaks = s.solo.audit()
  const fates = s.fates()
  return { frames, fates, fragments: most, markers: { sent, echoed }, conserved: conserved(fates), leaks }
}
