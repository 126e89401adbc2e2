/** rip.ts - the messages and the table of RIP version 2 (RFC 2453): what a router tells others, and what it makes of what it hears. */
import { addr, getAddr } from './libnetlink.js'

export const RIP_PORT = 520
export const RIP_REQUEST = 1
export const RIP_RESPONSE = 2
export const INFINITY = 16
/** Entries of one datagram. */
const MAX_ENTRIES = 25
const AF_INET = 2

export interface RipEntry {
  family: number
  net: number
  mask: number
  nexthop: number
  metric: number
}
export interface RipMessage {
  command: number
  version: number
  entries: RipEntry[]
}

function entry_bytes(e: RipEntry): number[] {
  return [0, e.family, 0, 0, ...addr(e.net), ...addr(e.mask), ...addr(e.nexthop), 0, 0, 0, e.metric]
}
/** rip_encode - as many datagrams as it takes. */
export function rip_encode(command: number, entries: readonly RipEntry[]): Uint8Array[] {
  const out: Uint8Array[] = []
  for (let at = 0; at < entries.length; at += MAX_ENTRIES)
    out.push(Uint8Array.from([command, 2, 0, 0, ...entries.slice(at, at + MAX_ENTRIES).flatMap(entry_bytes)]))
  return out
}
/** The mask that an address of version 1 has by its class. */
function class_mask(net: number): number {
  const top = net >>> 24
  return top === 0 ? 0 : top < 128 ? 0xff000000 | 0 : top < 192 ? 0xffff0000 | 0 : 0xffffff00 | 0
}
/** rip_decode - null: it is no such message. */
export function rip_decode(b: Uint8Array): RipMessage | null {
  if (b.length < 4 || (b.length - 4) % 20 !== 0 || b[1] === 0) return null
  const entries: RipEntry[] = []
  for (let at = 4; at + 20 <= b.length; at += 20) {
    const net = getAddr(b, at + 4)
    const metric = getAddr(b, at + 16)
    const mask = b[1] === 1 ? class_mask(net) : getAddr(b, at + 8)
    entries.push({
      family: (b[at]! << 8) | b[at + 1]!,
      net,
      mask,
      nexthop: b[1] === 1 ? 0 : getAddr(b, at + 12),
      metric,
    })
  }
  return { command: b[0]!, version: b[1]!, entries }
}

// ---- the table ------------------------------------------------------------------------------------------------------

/** A network of this router itself, or one that it learned of. Times are in seconds. */
export interface RipRoute {
  net: number
  mask: number
  metric: number
  /** 0: it is this router's own. */
  gateway: number
  ifindex: number
  /** When it is too old, while it counts; when it is forgotten, once it does not. */
  deadline: number
  changed: boolean
}
export interface RipTimers {
  update: number
  timeout: number
  garbage: number
}
/** What has to happen in the kernel. */
export interface RipKernel {
  install(route: RipRoute): void
  withdraw(route: RipRoute): void
}

function good_mask(mask: number): boolean {
  return (~mask & (~mask + 1)) === 0
}
/** Is it a network that a router may tell others of? */
function good_network(net: number, mask: number): boolean {
  const top = net >>> 24
  return good_mask(mask) && (net & ~mask) === 0 && top !== 127 && top < 224 && (top !== 0 || (net === 0 && mask === 0))
}

export class RipTable {
  readonly routes = new Map<string, RipRoute>()
  constructor(
    readonly timers: RipTimers,
    private readonly kernel: RipKernel,
  ) {}

  private key(net: number, mask: number): string {
    return `${net}/${mask}`
  }
  get changed(): boolean {
    return [...this.routes.values()].some(r => r.changed)
  }

  /** A network that an interface of this router is on. */
  connect(net: number, mask: number, ifindex: number): void {
    const key = this.key(net, mask)
    const known = this.routes.get(key)
    if (known !== undefined && known.gateway === 0 && known.metric < INFINITY) return
    if (known !== undefined && known.gateway !== 0 && known.metric < INFINITY) this.kernel.withdraw(known)
    this.routes.set(key, { net, mask, metric: 1, gateway: 0, ifindex, deadline: Infinity, changed: true })
  }

  /** What led over an interface does not lead anywhere: its own network, and all that was learned there. */
  disconnect(ifindex: number, now: number, still: (r: RipRoute) => boolean = () => false): void {
    for (const r of this.routes.values())
      if (r.ifindex === ifindex && r.metric < INFINITY && !still(r)) this.lose(r, now)
  }

  private lose(r: RipRoute, now: number): void {
    if (r.gateway !== 0) this.kernel.withdraw(r)
    r.metric = INFINITY
    r.deadline = now + this.timers.garbage
    r.changed = true
  }

  /** A response of a neighbour (RFC 2453 3.9.2). `onlink`: is that address on the same network? */
  heard(e: RipEntry, from: number, ifindex: number, now: number, onlink: (addr: number) => boolean): void {
    if (e.family !== AF_INET || e.metric < 1 || e.metric > INFINITY || !good_network(e.net, e.mask)) return
    const metric = Math.min(e.metric + 1, INFINITY)
    const gateway = e.nexthop !== 0 && onlink(e.nexthop) ? e.nexthop : from
    const key = this.key(e.net, e.mask)
    const known = this.routes.get(key)
    if (known === undefined) {
      if (metric === INFINITY) return
      const deadline = now + this.timers.timeout
      const fresh = { net: e.net, mask: e.mask, metric, gateway, ifindex, deadline, changed: true }
      this.routes.set(key, fresh)
      this.kernel.install(fresh)
      return
    }
    if (known.gateway === 0 && known.metric < INFINITY) return // nobody knows it better
    const same = known.gateway === gateway && known.ifindex === ifindex
    if (same && metric < INFINITY) known.deadline = now + this.timers.timeout
    if (!(same && metric !== known.metric) && !(metric < known.metric)) return
    if (metric === INFINITY) {
      this.lose(known, now)
      return
    }
    Object.assign(known, { metric, gateway, ifindex, deadline: now + this.timers.timeout, changed: true })
    this.kernel.install(known)
  }

  /** Time goes by: what was not heard of for long is lost, what was lost is forgotten. */
  age(now: number): void {
    for (const [key, r] of this.routes) {
      if (now < r.deadline) continue
      if (r.metric < INFINITY) this.lose(r, now)
      else this.routes.delete(key)
    }
  }

  /** What is told on an interface: nothing of what was learned there (split horizon), and only what changed if asked so. */
  entries(ifindex: number, only_changed: boolean): RipEntry[] {
    return [...this.routes.values()]
      .filter(r => r.ifindex !== ifindex && (!only_changed || r.changed))
      .map(({ net, mask, metric }) => ({ family: AF_INET, net, mask, nexthop: 0, metric }))
  }
  told(): void {
    for (const r of this.routes.values()) r.changed = false
  }
}
