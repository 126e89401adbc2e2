/** natGateway.ts - a gateway between 10.0.0.0/24 (port 0) and 192.0.2.0/24 (port 1) on this thread, and short words for its packets. */
import { ip_conntrack_flush } from '../../src/net/ipv4/netfilter/ip_conntrack.js'
import { type Parsed, parse, udpFrame, wrongChecksums } from './frames.js'
import { loadRules } from './iptables.js'
import { Script } from './script.js'
import { ip, type SoloOptions } from './solo.js'

export const INSIDE = 0
export const OUTSIDE = 1
export const PUBLIC = '192.0.2.1'
export const SERVER = '192.0.2.2'
const TO = ['02:00:00:00:00:01', '02:00:00:00:00:02']

/** Source or destination as address and port, or id. */
export interface Seen extends Parsed {
  from: string
  to: string
  wrong: string[]
}

export class NatGateway extends Script {
  /** All that came out, in order. */
  readonly sent: Uint8Array[] = []

  constructor(options: Partial<SoloOptions> = {}) {
    const station = (lo: number): { hi: number; lo: number } => ({ hi: 0x02000000, lo })
    super({
      ports: [
        { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
        { addresses: [{ local: ip(PUBLIC), prefixlen: 24 }] },
      ],
      neighbours: [
        ...[2, 3, 4].map(k => ({ address: ip(`10.0.0.${k}`), dev: 'eth0', mac: station(0x100 + k) })),
        ...[2, 3, 4].map(k => ({ address: ip(`192.0.2.${k}`), dev: 'eth1', mac: station(0x200 + k) })),
      ],
      config: { loopback: 1, user_procs: 2, nports: 2 },
      ...options,
    })
  }

  /** New rules for table nat, and no connections from before. */
  rules(...rules: string[]): void {
    ip_conntrack_flush()
    loadRules(this, `*nat\n${rules.map(r => `-A ${r}\n`).join('')}COMMIT\n`)
  }

  /** A frame in at a port: what came out, at either. */
  pass1(port: number, frame: Uint8Array): { port: number; frame: Uint8Array }[] {
    const f = frame.slice()
    f.set(
      TO[port]!.split(':').map(b => Number.parseInt(b, 16)),
      0,
    )
    const out = this.send(port, f).flatMap((frames, at) => frames.map(x => ({ port: at, frame: x })))
    this.sent.push(...out.map(o => o.frame))
    return out
  }

  /** A frame in at a port, one comes out at the other: as it was then. */
  through(port: number, frame: Uint8Array): Seen {
    const out = this.pass1(port, frame).filter(o => o.port !== port)
    if (out.length !== 1) throw new Error(`${out.length} frames came through`)
    return look(out[0]!.frame)
  }

  /** UDP from an inner host to the outside. */
  ask(host: number, sport: number, o: { dst?: string; dport?: number } = {}): Seen {
    return this.through(INSIDE, udpFrame({ src: `10.0.0.${host}`, dst: SERVER, dport: 53, sport, ...o }, [1, 2, 3]))
  }

  /** The server answers what it saw. */
  answer(seen: Seen): Seen {
    const [src, sport] = seen.to.split(':')
    const [dst, dport] = seen.from.split(':')
    return this.through(OUTSIDE, udpFrame({ src: src!, dst: dst!, sport: Number(sport), dport: Number(dport) }, [4]))
  }
}

/** look - a frame, with both ends as address:port. */
export function look(frame: Uint8Array): Seen {
  const p = parse(frame)
  const port = (at: number): number => (p.payload[at] ?? 0) * 256 + (p.payload[at + 1] ?? 0)
  const [a, b] = p.protocol === 1 ? [port(4), port(4)] : [port(0), port(2)]
  return { ...p, from: `${p.src}:${a}`, to: `${p.dst}:${b}`, wrong: wrongChecksums(frame.subarray(14)) }
}
