/**
 * pcap_filter.ts - filter expressions of tcpdump, made into filters of a socket that gets Ethernet frames:
 *
 *   expression := term { (and | or) term }          from left to right, neither binds more tightly
 *   term       := not term | ( expression ) | primitive
 *   primitive  := [ether|ip|arp|tcp|udp] [src|dst|src or dst|src and dst] [host|net|port|portrange] id
 *               | PROTOCOL | [ip|ether] proto N | [ip|ether] broadcast | [ip|ether] multicast | less N | greater N
 *
 * An id without words before it takes those of the one before: `host a or b`. A frame that is too short for what is asked of it is
 * not wanted, not even by `not`: the filter ends there.
 */
import {
  AND_K,
  Assembler,
  type Insn,
  JEQ,
  JGE,
  JGT,
  JSET,
  type Label,
  LD,
  LD_IND,
  LD_LEN,
  LDX_MSH,
  RET_K,
} from './bpf.js'
import { inet_aton, strtol } from './stdio.js'

/** Part of an expression: goes on at one of two places. */
type Test = (a: Assembler, yes: Label, no: Label) => void

export class FilterError extends Error {}

const ETH = 14
export const ETHERTYPES: Readonly<Record<string, number>> = { ip: 0x0800, arp: 0x0806, rarp: 0x8035, ip6: 0x86dd }
const PROTOCOLS: Readonly<Record<string, number>> = { icmp: 1, igmp: 2, tcp: 6, udp: 17 }
/** What has ports: TCP, UDP, SCTP. */
const WITH_PORTS = [6, 17, 132]
/** More than any frame has: all of it. */
const ALL = 262_144

function and(first: Test, second: Test): Test {
  return (a, yes, no) => {
    const more = a.label()
    first(a, more, no)
    a.place(more)
    second(a, yes, no)
  }
}
function or(first: Test, second: Test): Test {
  return (a, yes, no) => {
    const more = a.label()
    first(a, yes, more)
    a.place(more)
    second(a, yes, no)
  }
}
function not(inner: Test): Test {
  return (a, yes, no) => inner(a, no, yes)
}
function any(tests: readonly Test[]): Test {
  return tests.reduce(or)
}

/** What lies at an offset of the frame has this value, as far as the mask goes. */
function has(code: number, at: number, value: number, mask = -1): Test {
  return (a, yes, no) => {
    a.emit(code, at)
    if (mask !== -1) a.emit(AND_K, mask)
    a.branch(JEQ, value, yes, no)
  }
}
function ethertype(n: number): Test {
  return has(LD.h, 12, n)
}
const isIp = ethertype(0x0800)
function protocol(n: number): Test {
  return and(isIp, has(LD.b, ETH + 9, n))
}

/** Which of two ends must match. */
function ends(dir: string, src: Test, dst: Test): Test {
  if (dir === 'src') return src
  if (dir === 'dst') return dst
  return dir === 'src and dst' ? and(src, dst) : or(src, dst)
}

function hostFilter(proto: string, dir: string, id: string): Test {
  if (proto === 'ether') return etherHost(dir, id)
  const [addr, mask] = network(id)
  const pair = (src: number, dst: number): Test => ends(dir, has(LD.w, src, addr, mask), has(LD.w, dst, addr, mask))
  const ip = and(isIp, pair(ETH + 12, ETH + 16))
  const arp = and(ethertype(0x0806), pair(ETH + 14, ETH + 24))
  return proto === 'arp' ? arp : proto === '' ? or(ip, arp) : ip
}
function etherHost(dir: string, id: string): Test {
  if (!/^([\da-f]{1,2}:){5}[\da-f]{1,2}$/i.test(id)) throw new FilterError(`'${id}' is no station address`)
  const mac = id.split(':').map(part => Number.parseInt(part, 16))
  return ends(dir, station(6, mac), station(0, mac))
}
function station(at: number, mac: readonly number[]): Test {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = mac
  return and(has(LD.w, at + 2, (c << 24) | (d << 16) | (e << 8) | f), has(LD.h, at, (a << 8) | b))
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
function portFilter(proto: string, dir: string, id: string): Test {
  const match = /^(\d+)(?:-(\d+))?$/.exec(id)
  const [low, high] = [Number(match?.[1] ?? -1), Number(match?.[2] ?? match?.[1] ?? -1)]
  if (match === null || low > 65535 || high > 65535) throw new FilterError(`'${id}' is no port`)
  const only = proto === 'udp' ? [17] : proto === 'tcp' ? [6] : WITH_PORTS
  // Of a packet that was not cut up, or of the first piece of one.
  const first: Test = (a, yes, no) => {
    a.emit(LD.h, ETH + 6)
    a.branch(JSET, 0x1fff, no, yes)
  }
  const port =
    (at: number): Test =>
    (a, yes, no) => {
      a.emit(LDX_MSH, ETH)
      a.emit(LD_IND.h, ETH + at)
      if (low === high) return a.branch(JEQ, low, yes, no)
      const more = a.label()
      a.branch(JGE, low, more, no)
      a.place(more)
      a.branch(JGT, high, no, yes)
    }
  const known = and(isIp, any(only.map(n => has(LD.b, ETH + 9, n))))
  return and(and(known, first), ends(dir, port(0), port(2)))
}
function protoFilter(proto: string, id: string): Test {
  const [names, max] = proto === 'ether' ? [ETHERTYPES, 0xffff] : [PROTOCOLS, 0xff]
  const n = Object.hasOwn(names, id) ? names[id]! : strtol(id)
  if (n === null || n < 0 || n > max) throw new FilterError(`'${id}' is no protocol`)
  return proto === 'ether' ? ethertype(n) : protocol(n)
}
function groupFilter(proto: string, word: string): Test {
  if (proto === 'ip') {
    const group: Test = (a, yes, no) => {
      a.emit(LD.b, ETH + 16)
      a.branch(JGE, 0xe0, yes, no)
    }
    return and(isIp, word === 'multicast' ? group : or(has(LD.b, ETH + 19, 255), has(LD.w, ETH + 16, 0)))
  }
  if (word === 'broadcast') return station(0, [255, 255, 255, 255, 255, 255])
  return (a, yes, no) => {
    a.emit(LD.b, 0)
    a.branch(JSET, 1, yes, no)
  }
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

  whole(): Test {
    const test = this.expression()
    if (this.at < this.words.length) throw new FilterError(`syntax error at '${this.words[this.at]}'`)
    return test
  }

  private expression(): Test {
    let left = this.term()
    for (;;) {
      const word = this.take('and', '&&', 'or', '||')
      if (word === null) return left
      left = (word === 'and' || word === '&&' ? and : or)(left, this.term())
    }
  }

  private term(): Test {
    if (this.take('not', '!') !== null) return not(this.term())
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

  private primitive(): Test {
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
  private primitiveOf({ proto, dir, type }: Qualifiers, id: string): Test {
    if (type === 'port' || type === 'portrange') return portFilter(proto, dir, id)
    if (type === 'host' && proto !== 'ether' && !/^\d+(\.\d+){3}$/.test(id))
      throw new FilterError(`unknown host '${id}'`)
    const both = hostFilter(proto, dir, id)
    const only = PROTOCOLS[proto]
    return only === undefined ? both : and(protocol(only), both)
  }
  private idFollows(): boolean {
    return (
      /^[\da-f]/i.test(this.words[this.at] ?? '') &&
      !['and', 'arp', 'broadcast', 'dst', 'ether'].includes(this.words[this.at]!)
    )
  }
  private alone(proto: string): Test {
    const type = ETHERTYPES[proto]
    if (type !== undefined) return ethertype(type)
    if (PROTOCOLS[proto] === undefined) throw new FilterError(`syntax error after '${proto}'`)
    return protocol(PROTOCOLS[proto])
  }
  private length(word: string): Test {
    const n = strtol(this.next())
    if (n === null) throw new FilterError(`${word}: a number is missing`)
    // The filter compares words without a sign: a number that is none would become another one.
    if (!(n >= 0 && n <= 0xffffffff)) throw new FilterError(`${word}: ${n} is no length`)
    return (a, yes, no) => {
      a.emit(LD_LEN)
      if (word === 'less') a.branch(JGT, n, no, yes)
      else a.branch(JGE, n, yes, no)
    }
  }
}

/** compile - the words of an expression; none of them: everything. Throws FilterError with what is wrong. */
export function compile(words: readonly string[]): Insn[] {
  const tokens = words.join(' ').match(/[()]|!(?!=)|&&|\|\||[^\s()!]+/g) ?? []
  const a = new Assembler()
  const [yes, no] = [a.label(), a.label()]
  if (tokens.length > 0) new Parser(tokens).whole()(a, yes, no)
  a.place(yes)
  a.emit(RET_K, ALL)
  a.place(no)
  if (tokens.length > 0) a.emit(RET_K, 0)
  const insns = a.finish()
  if (insns === null) throw new FilterError('the expression is too long')
  return insns
}
