/**
 * frames.ts - frames as bytes, for tests and for the captures in data/: written and read without a line of the kernel's
 * code, so that an error there does not cancel itself out here.
 */

export interface EthOptions {
  to?: string
  from?: string
  type?: number
}

export interface IpOptions extends EthOptions {
  src: string
  dst: string
  ttl?: number
  tos?: number
  id?: number
  df?: boolean
  mf?: boolean
  /** Bytes from the start of the datagram, a multiple of 8. */
  offset?: number
  protocol?: number
  /** Header options; padded with zeros to a multiple of 4. */
  options?: number[]
}

export const ROUTER = '02:00:00:00:00:01'
export const SENDER = '02:00:00:00:01:01'

const mac = (text: string): number[] => text.split(':').map(b => Number.parseInt(b, 16))
const addr = (text: string): number[] => text.split('.').map(Number)
const u16 = (n: number): number[] => [(n >> 8) & 255, n & 255]
const u32 = (n: number): number[] => [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255]

/** The Internet checksum of bytes (RFC 1071), one byte at a time. */
export function checksum(bytes: ArrayLike<number>): number {
  let sum = 0
  for (let k = 0; k < bytes.length; k++) sum += (k & 1) === 0 ? bytes[k]! * 256 : bytes[k]!
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000)
  return 0xffff - sum
}

export function ethernet(payload: ArrayLike<number>, o: EthOptions = {}): Uint8Array {
  const head = [...mac(o.to ?? ROUTER), ...mac(o.from ?? SENDER), ...u16(o.type ?? 0x0800)]
  const frame = new Uint8Array(Math.max(60, head.length + payload.length))
  frame.set(head)
  frame.set(payload, head.length)
  return frame
}

/** ipFrame - an Ethernet frame with an IPv4 packet around `payload`. */
export function ipFrame(payload: ArrayLike<number>, o: IpOptions): Uint8Array {
  const options = [...(o.options ?? [])]
  while (options.length % 4 !== 0) options.push(0)
  const hlen = 20 + options.length
  const flags = (o.df === true ? 0x4000 : 0) | (o.mf === true ? 0x2000 : 0) | ((o.offset ?? 0) / 8)
  const head = [
    0x40 | (hlen / 4),
    o.tos ?? 0,
    ...u16(hlen + payload.length),
    ...u16(o.id ?? 1),
    ...u16(flags),
    o.ttl ?? 64,
    o.protocol ?? 17,
    0,
    0,
    ...addr(o.src),
    ...addr(o.dst),
    ...options,
  ]
  head.splice(10, 2, ...u16(checksum(head)))
  const packet = new Uint8Array(hlen + payload.length)
  packet.set(head)
  packet.set(payload, hlen)
  return ethernet(packet, o)
}

/** udp - header with a right checksum, and data. */
export function udp(
  o: { src: string; dst: string; sport?: number; dport?: number },
  data: ArrayLike<number>,
): Uint8Array {
  const len = 8 + data.length
  const out = new Uint8Array(len)
  out.set([...u16(o.sport ?? 1024), ...u16(o.dport ?? 9), ...u16(len), 0, 0])
  out.set(data, 8)
  const pseudo = new Uint8Array(12 + len)
  pseudo.set([...addr(o.src), ...addr(o.dst), 0, 17, ...u16(len)])
  pseudo.set(out, 12)
  out.set(u16(checksum(pseudo) || 0xffff), 6)
  return out
}

export function udpFrame(o: IpOptions & { sport?: number; dport?: number }, data: ArrayLike<number> = []): Uint8Array {
  return ipFrame(udp(o, data), o)
}

export interface TcpOptions {
  sport?: number
  dport?: number
  /** FIN 1, SYN 2, RST 4, ACK 16. */
  flags?: number
  seq?: number
  ack?: number
  window?: number
  /** Padded to words with NOPs. */
  tcpOptions?: number[]
}

/** tcpFrame - a segment with a right checksum. */
export function tcpFrame(o: IpOptions & TcpOptions, data: ArrayLike<number> = []): Uint8Array {
  const options = o.tcpOptions ?? []
  const doff = 20 + Math.ceil(options.length / 4) * 4
  const segment = new Uint8Array(doff + data.length).fill(1, 20, doff)
  segment.set([...u16(o.sport ?? 1024), ...u16(o.dport ?? 80), ...u32(o.seq ?? 1), ...u32(o.ack ?? 0)])
  segment.set([doff << 2, o.flags ?? 2, ...u16(o.window ?? 4096), 0, 0, 0, 0], 12)
  segment.set(options, 20)
  segment.set(data, doff)
  segment.set(u16(checksum([...addr(o.src), ...addr(o.dst), 0, 6, ...u16(segment.length), ...segment])), 16)
  return ipFrame(segment, { ...o, protocol: 6 })
}

/** wrongChecksums - of a whole packet, and of what an ICMP error in it quotes as far as it is there. */
export function wrongChecksums(packet: Uint8Array): string[] {
  const hlen = (packet[0]! & 15) * 4
  const total = packet[2]! * 256 + packet[3]!
  const body = packet.subarray(hlen, total)
  const wrong = checksum(packet.subarray(0, hlen)) === 0 ? [] : ['ip']
  const pseudo = [...packet.subarray(12, 20), 0, packet[9]!, ...u16(total - hlen)]
  const whole = packet.length >= total
  if (packet[9] === 1 && whole) {
    if (checksum(body) !== 0) wrong.push('icmp')
    if ([3, 4, 5, 11, 12].includes(body[0]!)) wrong.push(...wrongChecksums(body.subarray(8)).map(p => `quoted ${p}`))
  } else if (packet[9] === 17 && whole && body[6]! + body[7]! !== 0) {
    if (checksum([...pseudo, ...body]) !== 0) wrong.push('udp')
  } else if (packet[9] === 6 && whole && checksum([...pseudo, ...body]) !== 0) wrong.push('tcp')
  return wrong
}

/** icmp - a message with a right checksum; `info` is its second word. */
export function icmp(type: number, code: number, info: number, data: ArrayLike<number> = []): Uint8Array {
  const out = new Uint8Array(8 + data.length)
  out.set([type, code, 0, 0, ...u32(info)])
  out.set(data, 8)
  out.set(u16(checksum(out)), 2)
  return out
}

export function icmpFrame(o: IpOptions, type: number, code = 0, info = 0, data: ArrayLike<number> = []): Uint8Array {
  return ipFrame(icmp(type, code, info, data), { ...o, protocol: 1 })
}

/** What a frame says; every checksum in it is verified. */
export interface Parsed {
  to: string
  from: string
  ethType: number
  src: string
  dst: string
  ttl: number
  tos: number
  id: number
  df: boolean
  mf: boolean
  offset: number
  protocol: number
  options: number[]
  /** Behind the IP header, link padding removed. */
  payload: Uint8Array
  ipChecksumGood: boolean
  icmp: { type: number; code: number; info: number; data: Uint8Array; checksumGood: boolean } | null
}

const hex = (bytes: Uint8Array): string => [...bytes].map(b => b.toString(16).padStart(2, '0')).join(':')
const dotted = (bytes: Uint8Array): string => [...bytes].join('.')

export function parse(frame: Uint8Array): Parsed {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
  const hlen = (frame[14]! & 15) * 4
  const total = view.getUint16(16)
  const flags = view.getUint16(20)
  const payload = frame.subarray(14 + hlen, 14 + total)
  const isIcmp = frame[23] === 1 && (flags & 0x1fff) === 0
  return {
    to: hex(frame.subarray(0, 6)),
    from: hex(frame.subarray(6, 12)),
    ethType: view.getUint16(12),
    src: dotted(frame.subarray(26, 30)),
    dst: dotted(frame.subarray(30, 34)),
    ttl: frame[22]!,
    tos: frame[15]!,
    id: view.getUint16(18),
    df: (flags & 0x4000) !== 0,
    mf: (flags & 0x2000) !== 0,
    offset: (flags & 0x1fff) * 8,
    protocol: frame[23]!,
    options: [...frame.subarray(34, 14 + hlen)],
    payload,
    ipChecksumGood: checksum(frame.subarray(14, 14 + hlen)) === 0,
    icmp: isIcmp
      ? {
          type: payload[0]!,
          code: payload[1]!,
          info: view.getUint32(14 + hlen + 4),
          data: payload.subarray(8),
          checksumGood: checksum(payload) === 0,
        }
      : null,
  }
}

/** Bytes 0, 1, 2, ... */
export function counting(n: number): Uint8Array {
  return Uint8Array.from({ length: n }, (_, k) => k & 255)
}

/** fragments - an IP payload in frames that fit `mtu`. */
export function fragments(payload: Uint8Array, o: IpOptions, mtu: number): Uint8Array[] {
  const step = Math.floor((mtu - 20) / 8) * 8
  const out: Uint8Array[] = []
  for (let at = 0; at < payload.length; at += step)
    out.push(ipFrame(payload.subarray(at, at + step), { ...o, offset: at, mf: at + step < payload.length }))
  return out
}

export interface ArpOptions extends EthOptions {
  /** 1: who has it, 2: reply. */
  op: number
  sha: string
  sip: string
  tha: string
  tip: string
}

/** arpFrame - a question or an answer about IPv4 on Ethernet (RFC 826). */
export function arpFrame(o: ArpOptions): Uint8Array {
  const packet = [0, 1, 8, 0, 6, 4, 0, o.op, ...mac(o.sha), ...addr(o.sip), ...mac(o.tha), ...addr(o.tip)]
  return ethernet(packet, { ...o, type: 0x0806 })
}

/** parseArp - what it says, as text. */
export function parseArp(f: Uint8Array): Record<'op' | 'sha' | 'sip' | 'tha' | 'tip' | 'from' | 'to', string> {
  const station = (at: number): string =>
    [...f.subarray(at, at + 6)].map(b => b.toString(16).padStart(2, '0')).join(':')
  const address = (at: number): string => f.subarray(at, at + 4).join('.')
  return {
    op: f[21] === 1 ? 'who-has' : 'reply',
    sha: station(22),
    sip: address(28),
    tha: station(32),
    tip: address(38),
    from: station(6),
    to: station(0),
  }
}
