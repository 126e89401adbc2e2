/** dns.ts - messages of the Domain Name System (RFC 1035) as bytes: questions and answers with addresses and names. */

export const TYPE_A = 1
export const TYPE_PTR = 12
export const TYPE_ANY = 255
export const CLASS_IN = 1
export const [NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED] = [0, 1, 2, 3, 4, 5] as const
const [QR, AA, TC, RD] = [0x8000, 0x0400, 0x0200, 0x0100] as const
/** Bytes of the longest message without extensions. */
export const MAX_MESSAGE = 512
const HEADER = 12

export interface Question {
  /** In lower case, without the last dot. */
  name: string
  type: number
  class: number
  /** Where it ends in the message. */
  end: number
}

function u16(b: Uint8Array, at: number): number {
  return b[at]! * 256 + b[at + 1]!
}

/** A name at `at`, through pointers. @returns the name and where it ends, null: it is none */
export function read_name(b: Uint8Array, at: number): [name: string, end: number] | null {
  const labels: string[] = []
  let end = -1
  for (let jumps = 0; jumps < 32; ) {
    const len = b[at]
    if (len === undefined) return null
    if (len === 0) return [labels.join('.'), end < 0 ? at + 1 : end]
    if (len >= 0xc0) {
      if (at + 1 >= b.length) return null
      if (end < 0) end = at + 2
      at = (len & 63) * 256 + b[at + 1]!
      jumps++
    } else {
      if (len > 63 || at + 1 + len > b.length) return null
      labels.push(String.fromCharCode(...b.slice(at + 1, at + 1 + len)).toLowerCase())
      if (labels.length > 127) return null
      at += 1 + len
    }
  }
  return null
}

/** name_bytes - null: it is no name. */
export function name_bytes(name: string): number[] | null {
  const out: number[] = []
  for (const label of name.replace(/\.$/, '').split('.')) {
    if (name === '' || name === '.') break
    if (!/^[\x21-\x7e]{1,63}$/.test(label)) return null
    out.push(label.length, ...[...label].map(c => c.charCodeAt(0)))
  }
  return out.length > 254 ? null : [...out, 0]
}

export function dns_id(b: Uint8Array): number {
  return u16(b, 0)
}
export function is_answer(b: Uint8Array): boolean {
  return b.length >= HEADER && (u16(b, 2) & QR) !== 0
}
export function opcode(b: Uint8Array): number {
  return (b[2]! >> 3) & 15
}
export function rcode(b: Uint8Array): number {
  return b[3]! & 15
}

/** read_question - of a message with exactly one; null: it is malformed. */
export function read_question(b: Uint8Array): Question | null {
  if (b.length < HEADER || u16(b, 4) !== 1) return null
  const found = read_name(b, HEADER)
  if (found === null || found[1] + 4 > b.length) return null
  return { name: found[0], type: u16(b, found[1]), class: u16(b, found[1] + 2), end: found[1] + 4 }
}

export function question(id: number, name: string, type: number): Uint8Array | null {
  const qname = name_bytes(name)
  if (qname === null) return null
  return Uint8Array.from([id >> 8, id & 255, RD >> 8, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...qname, 0, type, 0, CLASS_IN])
}

/** One record of an answer: its data for the question's name. */
export interface Answer {
  type: number
  data: number[]
}

/** answer - to this question, as many records as fit. `authoritative`: the name is ours to speak of. */
export function answer(
  query: Uint8Array,
  q: Question | null,
  code: number,
  records: Answer[],
  ttl: number,
): Uint8Array {
  const flags = QR | (u16(query, 2) & (RD | 0x7800)) | (q === null || code === REFUSED ? 0 : AA) | code
  const out = [query[0]!, query[1]!, flags >> 8, flags & 255, 0, q === null ? 0 : 1, 0, 0, 0, 0, 0, 0]
  if (q !== null) out.push(...query.slice(HEADER, q.end))
  let n = 0
  for (const { type, data } of records) {
    const rr = [0xc0, HEADER, 0, type, 0, CLASS_IN, ttl >>> 24, (ttl >> 16) & 255, (ttl >> 8) & 255, ttl & 255]
    if (out.length + rr.length + 2 + data.length > MAX_MESSAGE) {
      out[2]! |= TC >> 8
      break
    }
    out.push(...rr, data.length >> 8, data.length & 255, ...data)
    n++
  }
  out[6] = n >> 8
  out[7] = n & 255
  return Uint8Array.from(out)
}

/** read_answers - the records of an answer, null: it is malformed. Names are those of PTR records. */
export function read_answers(b: Uint8Array): { name: string; type: number; data: Uint8Array; text: string }[] | null {
  const q = read_question(b)
  if (q === null) return null
  const out: { name: string; type: number; data: Uint8Array; text: string }[] = []
  let at = q.end
  for (let k = 0; k < u16(b, 6); k++) {
    const name = read_name(b, at)
    if (name === null || name[1] + 10 > b.length) return null
    const len = u16(b, name[1] + 8)
    const data = name[1] + 10
    if (data + len > b.length) return null
    const type = u16(b, name[1])
    const text = type === TYPE_PTR ? (read_name(b, data)?.[0] ?? '') : [...b.slice(data, data + len)].join('.')
    out.push({ name: name[0], type, data: b.slice(data, data + len), text })
    at = data + len
  }
  return out
}
