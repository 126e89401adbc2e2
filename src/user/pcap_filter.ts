/**
 * pcap_filter.ts - filter expressions of tcpdump, as functions of an Ethernet frame:
 *
 *   expression := term { (and | or) term }          from left to right, neither binds more tightly
 *   term       := not term | ( expression ) | primitive
 *   primitive  := [ether|ip|arp|tcp|udp] [src|dst|src or dst|src and dst] [host|net|port|portrange] id
 *               | PROTOCOL | [ip|ether] proto N | [ip|ether] broadcast | [ip|ether] multicast | less N | greater N
 *
 * An id without words before it takes those of the one before: `host a or b`.
 */
import { inet_aton, strtol } from './stdio.js'

/** true: the frame is wanted. */
export type Filter = (frame: Uint8Array) => boolean

export class FilterError extends Error {}

const ETH = 14
export const ETHERTYPES: Readonly<Record<string, number>> = { ip: 0x0800, arp: 0x0806, rarp: 0x8035, ip6: 0x86dd }
const PROTOCOLS: Readonly<Record<string, number>> = { icmp: 1, igmp: 2, tcp: 6, udp: 17 }

function u16(b: Uint8Array, at: number): number {
  return at + 2 <= b.length ? b[at]! * 256 + b[at + 1]! : -1
}
function u32(b: Uint8Array, at: number): number | null {
  return at + 4 <= b.length ? (u16(b, at) << 16) | u16(b, at + 2) : null
}
const isIp: Filter = f => u16(f, 12) === 0x0800 && f.length >= ETH + 20
const isArp: Filter = f => u16(f, 12) === 0x0806 && f.length >= ETH + 28
function protocol(n: number): Filter {
  return f => isIp(f) && f[ETH + 9] === n
}
/** Ports: of an unfragmented UDP or TCP packet, or the first fragment. */
function ports(f: Uint8Array, only: number | null): [src: number, dst: number] | null {
  if (!isIp(f) || (u16(f, ETH + 6) & 0x1fff) !== 0) return null
  const proto = f[ETH + 9]!
  if (only === null ? proto !== 6 && proto !== 17 : proto !== only) return null
  const at = ETH + (f[ETH]! & 15) * 4
  return [u16(f, at), u16(f, at + 2)]
}

/** Which of two ends must match. */
function ends<T>(dir: string, pair: readonly [T, T], match: (end: T) => boolean): boolean {
  const [src, dst] = [match(pair[0]), match(pair[1])]
  if (dir === 'src') return src
  if (dir === 'dst') return dst
  return dir === 'src and dst' ? src && dst : src || dst
}

/** The addresses of an IP packet or of ARP. */
function addresses(f: Uint8Array, proto: string): [number, number] | null {
  if (proto !== 'arp' && isIp(f)) return [u32(f, ETH + 12)!, u32(f, ETH + 16)!]
  if (proto !== 'ip' && isArp(f)) return [u32(f, ETH + 14)!, u32(f, ETH + 24)!]
  return null
}

function hostFilter(proto: string, dir: string, id: string): Filter {
  if (proto === 'ether') return etherHost(dir, id)
  const [addr, mask] = network(id)
  return f => {
    const pair = addresses(f, proto)
    return pair !== null && ends(dir, pair, a => ((a ^ addr) & mask) === 0)
  }
}
function etherHost(dir: string, id: string): Filter {
  if (!/^([\da-f]{1,2}:){5}[\da-f]{1,2}$/i.test(id)) throw new FilterError(`'${id}' is no station address`)
  const mac = id.split(':').map(part => Number.parseInt(part, 16))
  const matches = (f: Uint8Array, at: number): boolean => mac.every((b, k) => f[at + k] === b)
  return f => ends(dir, [6, 0], at => matches(f, at))
}
/** ADDRESS, ADDRESS/LENGTH, or the first bytes of a network. */
function network(id: string): [addr: number, mask: number] {
  const [text, length] = id.split('/')
  const parts = text!.split('.')
  const full = [...parts, '0', '0', '0'].slice(0, 4).join('.')
  const addr = /^\d+(\.\d+){0,3}$/.test(text!) ? inet_aton(full) : null
  const bits = length === undefined ? parts.length * 8 : strtol(length)
  if (addr === null || bits === null || bits < 0 || bits > 32) throw new FilterError(`'${id}' is no address`)
  const mask = bits === 0 ? 0 : -1 << (32 - bits)
  if ((addr & ~mask) !== 0) throw new FilterError(`non-network bits set in "${id}"`)
  return [addr, mask]
}
function portFilter(proto: string, dir: string, id: string): Filter {
  const match = /^(\d+)(?:-(\d+))?$/.exec(id)
  const [low, high] = [Number(match?.[1] ?? -1), Number(match?.[2] ?? match?.[1] ?? -1)]
  if (match === null || low > 65535 || high > 65535) throw new FilterError(`'${id}' is no port`)
  const only = proto === 'udp' ? 17 : proto === 'tcp' ? 6 : null
  return f => {
    const pair = ports(f, only)
    return pair !== null && ends(dir, pair, p => p >= low && p <= high)
  }
}
function protoFilter(proto: string, id: string): Filter {
  const known = proto === 'ether' ? ETHERTYPES[id] : PROTOCOLS[id]
  const n = known ?? strtol(id)
  if (n === null) throw new FilterError(`'${id}' is no protocol`)
  return proto === 'ether' ? f => u16(f, 12) === n : protocol(n)
}
function groupFilter(proto: string, word: string): Filter {
  if (proto === 'ip')
    return word === 'multicast'
      ? f => isIp(f) && (f[ETH + 16]! & 0xf0) === 0xe0
      : f => isIp(f) && (f[ETH + 19] === 255 || u32(f, ETH + 16) === 0)
  return word === 'multicast' ? f => (f[0]! & 1) === 1 : f => f.subarray(0, 6).every(b => b === 255)
}

interface Qualifiers {
  proto: string
  dir: string
  type: string
}

class Parser {
  private at = 0
  /** Of the primitive before. */
  private last: Qualifiers | null = null

  constructor(private readonly words: readonly string[]) {}

  private next(): string {
    const word = this.words[this.at++]
    if (word === undefined) throw new FilterError('syntax error: the expression ends too early')
    return word
  }
  private take(...words: string[]): string | null {
    const word = this.words[this.at]
    if (word === undefined || !words.includes(word)) return null
    this.at++
    return word
  }

  whole(): Filter {
    const filter = this.expression()
    if (this.at < this.words.length) throw new FilterError(`syntax error at '${this.words[this.at]}'`)
    return filter
  }

  private expression(): Filter {
    let left = this.term()
    for (;;) {
      const word = this.take('and', '&&', 'or', '||')
      if (word === null) return left
      const [a, b] = [left, this.term()]
      left = word === 'and' || word === '&&' ? f => a(f) && b(f) : f => a(f) || b(f)
    }
  }

  private term(): Filter {
    if (this.take('not', '!') !== null) {
      const inner = this.term()
      return f => !inner(f)
    }
    if (this.take('(') === null) return this.primitive()
    const inner = this.expression()
    if (this.take(')') === null) throw new FilterError("syntax error: ')' is missing")
    return inner
  }

  private direction(): string {
    const first = this.take('src', 'dst')
    if (first === null) return ''
    const [joint, other] = [this.words[this.at], this.words[this.at + 1]]
    if ((joint !== 'or' && joint !== 'and') || other !== (first === 'src' ? 'dst' : 'src')) return first
    this.at += 2
    return joint === 'or' ? '' : 'src and dst'
  }

  private primitive(): Filter {
    const length = this.take('less', 'greater')
    if (length !== null) return this.length(length)
    const begin = this.at
    const proto = this.take('ether', ...Object.keys(ETHERTYPES), ...Object.keys(PROTOCOLS)) ?? ''
    const group = this.take('broadcast', 'multicast')
    if (group !== null) return groupFilter(proto, group)
    if ((proto === 'ip' || proto === 'ether') && this.take('proto') !== null) return protoFilter(proto, this.next())
    const dir = this.direction()
    const type = this.take('host', 'net', 'port', 'portrange') ?? ''
    if (proto !== '' && dir === '' && type === '' && !this.idFollows()) return this.alone(proto)
    const bare = this.at === begin
    if (bare && !this.idFollows()) throw new FilterError(`syntax error at '${this.words[this.at] ?? ''}'`)
    const q = bare && this.last !== null ? this.last : { proto, dir, type: type === '' ? 'host' : type }
    this.last = q
    return this.primitiveOf(q, this.next())
  }
  private primitiveOf({ proto, dir, type }: Qualifiers, id: string): Filter {
    if (type === 'port' || type === 'portrange') return portFilter(proto, dir, id)
    if (type === 'host' && proto !== 'ether' && !/^\d+(\.\d+){3}$/.test(id))
      throw new FilterError(`unknown host '${id}'`)
    const both = hostFilter(proto, dir, id)
    const only = PROTOCOLS[proto]
    return only === undefined ? both : f => protocol(only)(f) && both(f)
  }
  private idFollows(): boolean {
    return (
      /^[\da-f]/i.test(this.words[this.at] ?? '') &&
      !['and', 'arp', 'broadcast', 'dst', 'ether'].includes(this.words[this.at]!)
    )
  }
  private alone(proto: string): Filter {
    const type = ETHERTYPES[proto]
    if (type !== undefined) return f => u16(f, 12) === type
    if (PROTOCOLS[proto] === undefined) throw new FilterError(`syntax error after '${proto}'`)
    return protocol(PROTOCOLS[proto])
  }
  private length(word: string): Filter {
    const n = strtol(this.next())
    if (n === null) throw new FilterError(`${word}: a number is missing`)
    return word === 'less' ? f => f.length <= n : f => f.length >= n
  }
}

/** compile - the words of an expression; none of them: everything. Throws FilterError with what is wrong. */
export function compile(words: readonly string[]): Filter {
  const tokens = words.join(' ').match(/[()]|!(?!=)|&&|\|\||[^\s()!]+/g) ?? []
  return tokens.length === 0 ? () => true : new Parser(tokens).whole()
}
