/** ip_util.ts - what the parts of `ip` have in common: arguments, names of numbers, addresses as text, what went wrong. */
import type { Libc } from './libc.js'
import { attrs, get32, getText, type Message, type Netlink, RTM, rtnl_change, rtnl_dump } from './libnetlink.js'
import { strerror } from './stdio.js'

/** Where a program's text goes. */
export interface Output {
  out(text: string): Libc
  err(text: string): Libc
}

/** Ends a command with a message and an exit code. */
export class Failure extends Error {
  constructor(
    message: string,
    readonly code: number,
  ) {
    super(message)
  }
}
/** invarg - an argument that means nothing. */
export function invarg(message: string, arg: string): never {
  throw new Failure(`Error: argument "${arg}" is wrong: ${message}`, 255)
}
export function usage(text: string): never {
  throw new Failure(text, 255)
}

/** Arguments, taken one by one. */
export class Args {
  private at = 0
  constructor(private readonly args: readonly string[]) {}
  get done(): boolean {
    return this.at >= this.args.length
  }
  peek(): string | undefined {
    return this.args[this.at]
  }
  /** NEXT_ARG - the next one must be there. */
  next(): string {
    if (this.done) throw new Failure('Command line is not complete. Try option "help"', 255)
    return this.args[this.at++]!
  }
  /** Take the next one if it is one of these words, or begins as the first one does (`ip r a`). */
  take(...words: string[]): boolean {
    const arg = this.peek()
    if (arg === undefined || !(words.includes(arg) || (arg.length > 0 && words[0]!.startsWith(arg)))) return false
    this.at++
    return true
  }
  /** As take, for words that are written in full. */
  word(...words: string[]): boolean {
    const arg = this.peek()
    if (arg === undefined || !words.includes(arg)) return false
    this.at++
    return true
  }
  number(max = 0xffffffff): number {
    const arg = this.next()
    const value = Number(arg)
    if (!Number.isInteger(value) || value < 0 || value > max) invarg('not a number in range', arg)
    return value
  }
}

// ---- addresses ------------------------------------------------------------------------------------------------------

/** An address, parts of which may be missing: `10.1` is 10.1.0.0. */
export function parse_addr(textual: string): number {
  const parts = textual.split('.')
  const numbers = parts.map(Number)
  if (parts.length > 4 || numbers.some((n, k) => parts[k] === '' || !Number.isInteger(n) || n < 0 || n > 255))
    throw new Failure(`Error: an inet address is expected rather than "${textual}".`, 255)
  return [0, 1, 2, 3].reduce((sum, k) => (sum << 8) | (numbers[k] ?? 0), 0)
}
export interface Prefix {
  addr: number
  len: number
}
/** `10.0.0.0/8`, `default`, `any`. */
export function parse_prefix(textual: string): Prefix {
  if (textual === 'default' || textual === 'any' || textual === 'all') return { addr: 0, len: 0 }
  const [host, len = '32', more] = textual.split('/')
  const bits = Number(len)
  if (more !== undefined || !Number.isInteger(bits) || bits < 0 || bits > 32 || len === '')
    throw new Failure(`Error: an inet prefix is expected rather than "${textual}".`, 255)
  return { addr: parse_addr(host!), len: bits }
}
export function dotted(b: ArrayLike<number>): string {
  return `${b[0]}.${b[1]}.${b[2]}.${b[3]}`
}
export function parse_mac(textual: string): number[] {
  const bytes = textual.split(':').map(part => Number.parseInt(part, 16))
  if (bytes.length !== 6 || bytes.some(b => !(b >= 0 && b <= 255)))
    throw new Failure(`"${textual}" is invalid lladdr.`, 255)
  return bytes
}
export function mac(b: ArrayLike<number>): string {
  return Array.from({ length: b.length }, (_, k) => b[k]!.toString(16).padStart(2, '0')).join(':')
}
export function mask_of(len: number): number {
  return len === 0 ? 0 : -1 << (32 - len)
}

// ---- names of numbers -----------------------------------------------------------------------------------------------

type Names = Readonly<Record<string, number>>
export const SCOPES: Names = { global: 0, nowhere: 255, host: 254, link: 253, site: 200 }
export const PROTOCOLS: Names = { none: 0, redirect: 1, kernel: 2, boot: 3, static: 4, gated: 8, zebra: 11, rip: 189 }
export const TABLES: Names = { local: 255, main: 254, default: 253 }
export const TYPES: Names = {
  ...{
    unicast: 1,
    local: 2,
    broadcast: 3,
    anycast: 4,
    multicast: 5,
    blackhole: 6,
    unreachable: 7,
    prohibit: 8,
    throw: 9,
  },
}
export const NUDS: Names = {
  ...{ none: 0, incomplete: 1, reachable: 2, stale: 4, delay: 8, probe: 16, failed: 32, noarp: 64, permanent: 128 },
}
export function name_of(names: Names, value: number): string {
  return Object.keys(names).find(name => names[name] === value) ?? String(value)
}
export function value_of(names: Names, name: string, what: string, max = 255): number {
  const known = names[name]
  const value = known ?? Number(name)
  if (name === '' || !Number.isInteger(value) || value < 0 || value > max) invarg(`invalid ${what}`, name)
  return value
}

// ---- devices --------------------------------------------------------------------------------------------------------

/** Devices by number and by name (ll_map). */
export class Links {
  private constructor(readonly messages: readonly Message[]) {}
  static *read(nl: Netlink): Generator<void, Links, void> {
    const links = yield* rtnl_dump(nl, RTM.GETLINK, new Array<number>(16).fill(0))
    if (typeof links === 'number') throw new Failure(`Dump terminated: ${strerror(links)}`, 1)
    return new Links(links)
  }
  name(ifindex: number): string {
    const m = this.messages.find(link => get32(link.body, 4) === ifindex)
    return m === undefined ? `if${ifindex}` : getText(attrs(m.body, 16).get(3)!)
  }
  index(name: string): number {
    const m = this.messages.find(link => getText(attrs(link.body, 16).get(3)!) === name)
    if (m === undefined) throw new Failure(`Cannot find device "${name}"`, 1)
    return get32(m.body, 4)
  }
}

/** change - a request that must succeed. */
export function* change(nl: Netlink, type: number, flags: number, body: number[]): Generator<void, void, void> {
  const err = yield* rtnl_change(nl, type, flags, body)
  if (err !== 0) throw new Failure(`RTNETLINK answers: ${strerror(err)}`, 2)
}
/** dump - all there is of a kind. */
export function* dump(nl: Netlink, type: number, body: number[]): Generator<void, Message[], void> {
  const all = yield* rtnl_dump(nl, type, body)
  if (typeof all === 'number') throw new Failure(`RTNETLINK answers: ${strerror(all)}`, 1)
  return all
}
