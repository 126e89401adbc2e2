/** What the scenarios of address translation share: a gateway with two NICs inside, each with its interrupts on a CPU of its own, and one outside. */

import { load } from '../../../src/arch/atomic.js'
import { boot } from '../../../src/arch/boot.js'
import { HALTING, POWER, power_down, RUNNING } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { Board } from '../../../src/hw/board.js'
import { configure_network } from '../../../src/init/main.js'
import { parseIptables } from '../../../src/lab/iptables/parse.js'
import { HISTOGRAM_SLOTS } from '../../../src/lib/histogram.js'
import { table_blob } from '../../../src/lib/iptables.js'
import { DROP_REASONS, packet_fates } from '../../../src/net/core/fate.js'
import { ipt_replace } from '../../../src/net/ipv4/netfilter/ip_tables_user.js'
import { type Parsed, parse, udpFrame, wrongChecksums } from '../../helpers/frames.js'
import { ip, nothing_leaked, power_on } from './machine.js'

const PORTS = [0, 1, 2]
const OUTSIDE = 2
const SPORT = 5000

/** gateway - in `setup`: the machine, with rules of table nat that were loaded before anything came. */
export function gateway(rules: string): void {
  power_on(2, { rx_arch: 2, nports: 3, nqueues: 1, slab_poison: 1 })
  configure_network({
    ports: PORTS.map(k => ({
      name: `eth${k}`,
      mac: { hi: 0x02000000, lo: k + 1 },
      mtu: 1500,
      addresses: [{ local: k === OUTSIDE ? ip(192, 0, 2, 1) : ip(10, 0, k, 1), prefixlen: 24 }],
      queues: 1,
      promisc: false,
    })),
    routes: [],
    neighbours: [{ dev: 'eth2', address: ip(192, 0, 2, 2), mac: { hi: 0x02000000, lo: 0x0202 } }],
  })
  const loading = load_rules(rules).next()
  if (loading.done !== true || loading.value !== 0) throw new Error(`the rules are refused: ${loading.value}`)
}

/** load_rules - replaces the table nat. @context process */
export function load_rules(rules: string): Generator<void, number, void> {
  return ipt_replace(table_blob(parseIptables(`*nat\n${rules}\nCOMMIT\n`, 'rules')[0]!))
}

/** A datagram from inner host `host` that says in its payload who sent it, the same port for all. */
export interface Asked {
  port: number
  host: number
  dport?: number
}

export class GatewayBoard {
  private readonly b = new Board(
    { hz: 0, ncpus: 2, ports: PORTS.map(() => ({ source: null, capture: true })) },
    PORTS.map(() => new Int32Array(HISTOGRAM_SLOTS)),
  )
  constructor() {
    this.step()
  }
  step(): void {
    this.b.step(boot.now())
  }
  offer({ port, host, dport }: Asked): void {
    const o = { src: `10.0.0.${host}`, dst: '192.0.2.2', sport: SPORT, dport: dport ?? 53 }
    const frame = udpFrame({ ...o, to: `02:00:00:00:00:0${port + 1}` }, [host, dport ?? 53])
    while (!this.b.nics[port]!.arrive(frame)) this.step()
  }
  /** One more through each NIC, of hosts of their own: when they are out, all before them are. @returns all that came out */
  last(): Parsed[] {
    for (const port of [0, 1]) this.offer({ port, host: 100 + port, dport: 100 + port }) // nobody is in their way
    for (;;) {
      const out = this.out()
      if (out.filter(p => p.payload[8]! >= 100).length === 2 || load(POWER) !== RUNNING) return out
      this.step()
    }
  }
  out(): Parsed[] {
    const { data, lengths } = this.b.captures()[OUTSIDE]!
    let at = 0
    return [...lengths].map(len => {
      const frame = data.slice(at, (at += len))
      const wrong = wrongChecksums(frame.subarray(14))
      if (wrong.length > 0) throw new Error(`a frame with a wrong checksum: ${wrong}`)
      return parse(frame)
    })
  }
  off(): void {
    power_down(HALTING)
  }
}

/** public_end - the address and the port that a datagram came out with. */
export function public_end(p: Parsed): string {
  return `${p.src}:${p.payload[0]! * 256 + p.payload[1]!}`
}

/** all_accounted - in `invariant`: nothing leaked, and what was received went on or was dropped for a reason. */
export function all_accounted(): Record<string, number> {
  nothing_leaked()
  const drops: Record<string, number> = {}
  let [received, ended] = [0, 0]
  for (let k = 0; k < 2; k++) {
    const f = packet_fates.cpu(k)
    received += f.received
    ended += f.forwarded + f.delivered
    DROP_REASONS.forEach((reason, r) => {
      const n = RAM.i32[(f.drops >> 2) + r]!
      ended += n
      if (n > 0) drops[reason] = (drops[reason] ?? 0) + n
    })
  }
  if (received !== ended || received === 0) throw new Error(`${received} received, ${ended} accounted for`)
  return drops
}
