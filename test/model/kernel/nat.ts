/**
 * Datagrams of the same connection, and of others that would be mapped to the same, go through a masquerading gateway on two CPUs at
 * once: each connection has one public port, no two have the same, and whoever is late to settle his is dropped, not mixed up.
 */
import { describe as describeAddress } from '../../../src/init/main.js'
import { type Asked, all_accounted, GatewayBoard, gateway, public_end } from './gateway.js'
import { clock_chip, cpu, secondary } from './machine.js'

export interface NatArgs {
  asked: Asked[]
  rules: string
  /** Ticks of the clock for each CPU. */
  ticks: number
}

export function setup(args: NatArgs): NatArgs {
  gateway(args.rules)
  return args
}
export const prepare = secondary

function board(args: NatArgs): void {
  const b = new GatewayBoard()
  for (const a of args.asked) b.offer(a)
  const out = b.last()
  const ends = new Map<string, string>()
  for (const p of out) {
    // Who: the host and what he asks for. The server is the same, so what it sees of two of them must differ.
    const who = `${p.payload[8]} ${p.payload[9]}`
    const seen = `${public_end(p)} ${p.payload[9]}`
    for (const [other, end] of ends) {
      if (other === who && end !== seen) throw new Error(`${who} is ${end} and ${seen}`)
      if (other !== who && end === seen) throw new Error(`${who} and ${other} are both ${seen}`)
    }
    ends.set(who, seen)
  }
  b.off()
}
const clock = (args: NatArgs): void => clock_chip(args.ticks)

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, board, clock }
export const describe = describeAddress

const seen = { drops: '' }
export const outcome = (): string => seen.drops

/** Only who was late is dropped. */
export function invariant(args: NatArgs): void {
  const drops = all_accounted()
  const { netfilter = 0, ...others } = drops
  if (Object.keys(others).length > 0 || netfilter >= args.asked.length)
    throw new Error(`dropped ${JSON.stringify(drops)}`)
  seen.drops = `${netfilter} late`
}
