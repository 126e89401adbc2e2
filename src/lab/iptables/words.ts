/** words.ts - the words of a line, taken one after the other; values of options. */
import { dotted } from '../addresses.js'
import { UsageError } from '../errors.js'

/** RuleError - what is wrong with a line of rules. */
export class RuleError extends UsageError {
  override name = 'RuleError'
  constructor(
    file: string,
    readonly line: number,
    readonly what: string,
  ) {
    super(`${file}:${line}: ${what}`)
  }
}

export class Words {
  private at = 0
  constructor(
    private readonly words: string[],
    private readonly file: string,
    readonly line: number,
  ) {}
  get done(): boolean {
    return this.at === this.words.length
  }
  peek(): string | undefined {
    return this.words[this.at]
  }
  next(what: string): string {
    const word = this.words[this.at]
    if (word === undefined) this.fail(`${what} is missing at the end of the line`)
    this.at++
    return word
  }
  /** Takes a `!`. */
  not(): boolean {
    if (this.words[this.at] !== '!') return false
    this.at++
    return true
  }
  /** Nothing may follow. */
  end(): void {
    if (!this.done) this.fail(`'${this.peek()}' is too much`)
  }
  fail(what: string): never {
    throw new RuleError(this.file, this.line, what)
  }
}

/** own - of a table by words of the user's, some of which every object answers to. */
export function own<T>(table: Record<string, T>, word: string): T | undefined {
  return Object.hasOwn(table, word) ? table[word] : undefined
}

/** split - words; quotes hold one together. */
export function split(line: string): string[] {
  return [...line.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map(m => m[2] ?? m[1]!.replace(/\\(.)/g, '$1'))
}

export function number(w: Words, what: string, max: number, min = 0): number {
  const text = w.next(what)
  const n = /^(0x[0-9a-fA-F]+|\d+)$/.test(text) ? Number(text) : Number.NaN
  if (!(n >= min && n <= max)) w.fail(`${what} '${text}' must be a number from ${min} to ${max}`)
  return n
}

/** A:B, A: or :B or A, as low | high << 16. */
export function range(w: Words, what: string, sep = ':'): number {
  const text = w.next(what)
  const m = /^(\d*)(?:([:-])(\d*))?$/.exec(text)
  const ends = m === null || text === '' || (m[2] !== undefined && m[2] !== sep) ? null : m
  const low = ends === null ? Number.NaN : Number(ends[1] === '' ? 0 : ends[1])
  const high = ends === null ? Number.NaN : ends[2] === undefined ? low : Number(ends[3] === '' ? 65535 : ends[3])
  if (!(low <= high && high <= 65535)) w.fail(`${what} '${text}' must be a number up to 65535, or two with a '${sep}'`)
  return low | (high << 16)
}

export function address(w: Words, text: string): number {
  const m = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text)
  if (m === null || m.slice(1).some(b => Number(b) > 255)) w.fail(`'${text}' is no IPv4 address`)
  return m.slice(1).reduce((n, b) => (n << 8) | Number(b), 0)
}

/** ADDRESS, ADDRESS/LENGTH or ADDRESS/MASK: address and mask. */
export function network(w: Words, what: string): [number, number] {
  const text = w.next(what)
  const [host, mask, more] = text.split('/')
  if (more !== undefined) w.fail(`'${text}' is no network`)
  const addr = address(w, host!)
  if (mask === undefined) return [addr, -1]
  if (mask.includes('.')) return [addr & address(w, mask), address(w, mask)]
  if (!/^\d+$/.test(mask) || Number(mask) > 32) w.fail(`'${text}' must have a length from 0 to 32`)
  const bits = Number(mask) === 0 ? 0 : -1 << (32 - Number(mask))
  return [addr & bits, bits]
}

/** prefix - a network as iptables-save writes it. */
export function prefix(addr: number, mask: number): string {
  if (mask === -1) return dotted(addr)
  const bits = Math.clz32(~mask)
  return `${dotted(addr)}/${mask === (bits === 0 ? 0 : -1 << (32 - bits)) ? bits : dotted(mask)}`
}

export function choice<T>(w: Words, what: string, of: Record<string, T>): T {
  const text = w.next(what)
  if (!Object.hasOwn(of, text)) w.fail(`${what} '${text}' must be one of ${Object.keys(of).join(', ')}`)
  return of[text]!
}

export const PROTOCOLS: Record<string, number> = { all: 0, icmp: 1, igmp: 2, tcp: 6, udp: 17, gre: 47, esp: 50, ah: 51 }
/** protocol - by name or number. */
export function protocol(w: Words): number {
  const text = w.next('the protocol')
  const proto = own(PROTOCOLS, text) ?? (/^\d+$/.test(text) ? Number(text) : Number.NaN)
  if (!(proto <= 255)) w.fail(`there is no protocol '${text}'`)
  return proto
}

/** quoted - a text as one word of a line. */
export function quoted(text: string): string {
  return /^[\w.:-]+$/.test(text) ? text : `"${text.replace(/(["\\])/g, '\\$1')}"`
}

const UNITS: Record<string, number> = {
  second: 1,
  sec: 1,
  s: 1,
  minute: 60,
  min: 60,
  m: 60,
  hour: 3600,
  h: 3600,
  day: 86400,
  d: 86400,
}
/** rate - packets a time, as 1/10000 s from one to the next. */
export function rate(w: Words): number {
  const text = w.next('the rate')
  const m = /^(\d+)(?:\/(\w+))?$/.exec(text)
  const unit = m === null ? undefined : own(UNITS, m[2] ?? 'second')
  if (m === null || unit === undefined || Number(m[1]) === 0) return w.fail(`'${text}' is no rate such as 3/minute`)
  const avg = Math.floor((10000 * unit) / Number(m[1]))
  if (avg === 0) w.fail(`the rate '${text}' is too fast`)
  return avg
}
export function rate_text(avg: number): string {
  const unit =
    (['day', 'hour', 'min', 'sec'] as const).find(u => UNITS[u]! * 10000 >= avg && (UNITS[u]! * 10000) / avg < 60) ??
    'sec'
  return `${Math.floor((UNITS[unit]! * 10000) / avg)}/${unit}`
}
